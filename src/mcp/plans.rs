//! Plans at the edge: what a dry run says of its plan, and calls that apply one.

use super::{
    documents::UndoRemarks,
    error::{CallOptions, ToolError},
    meta::{PlanMeta, PlanRemarks, UndoMeta, UpdateMeta},
    output::{ChangedDocuments, ToolOutput, UpdatedDocument},
    params::{self, Detail, UndoParams, UpdateParams},
    server::ContentServer,
    tool_name::ToolName,
};
use crate::{
    deadline::Deadline,
    domain::{Change, Document, DocumentKey, Origin},
    service::{ApplyRequest, Error, KeptPlan, Mode, Undone, Updated, Written},
};

impl ContentServer {
    /// Keeps the plan of a dry run that showed these changes.
    pub(super) async fn keep_plan(
        &self,
        tool: ToolName,
        changes: &[Change],
        deadline: Deadline,
    ) -> PlanRemarks {
        if changes.is_empty() {
            return PlanRemarks::default();
        }
        let kept = self.content.keep_plan(tool.as_str(), changes, deadline);
        match kept.await {
            KeptPlan::Kept { id, expires_at } => PlanRemarks {
                plan: Some(PlanMeta {
                    id,
                    expires_at: expires_at.to_string(),
                }),
                warning: None,
            },
            KeptPlan::NotKept(reason) => PlanRemarks {
                plan: None,
                warning: Some(format!("there is no plan to apply: {reason}")),
            },
        }
    }

    /// Applies the plan of an update.
    pub(super) async fn apply_update<D: Document>(
        &self,
        params: UpdateParams<D>,
        plan_id: String,
        origin: Origin,
        deadline: Deadline,
    ) -> Result<ToolOutput<UpdatedDocument<D>, UpdateMeta>, ToolError> {
        let tool = ToolName::Update(D::KIND);
        let key = DocumentKey::new(D::KIND, params.id);
        let (named, reason, idempotency_key) = (Some(key), params.reason, params.idempotency_key);
        let request = params::apply_request(plan_id, tool, named, reason, idempotency_key, origin);
        let applied = self.apply(tool, request, deadline).await?;
        let detail: Detail = params.detail.unwrap_or_default();
        let remarks = Some(UndoRemarks::default());
        Ok(self.update_output(updated(applied), Mode::Commit, detail, remarks))
    }

    /// Applies the plan of an undo.
    pub(super) async fn apply_undo(
        &self,
        params: UndoParams,
        plan_id: String,
        origin: Origin,
        deadline: Deadline,
    ) -> Result<ToolOutput<ChangedDocuments, UndoMeta>, ToolError> {
        let tool = ToolName::UndoChanges;
        let (reason, key) = (params.reason, params.idempotency_key);
        let request = params::apply_request(plan_id, tool, None, reason, key, origin);
        let applied = self.apply(tool, request, deadline).await?;
        let undone = Undone {
            documents: applied.documents,
            changed_outside: applied.changed_outside,
            replayed: applied.replayed,
            ..Undone::default()
        };
        let mut output = self.undo_output(undone, Mode::Commit);
        // The dry run has told them.
        output.meta.counts = None;
        Ok(output)
    }

    pub(super) async fn apply(
        &self,
        tool: ToolName,
        request: ApplyRequest,
        deadline: Deadline,
    ) -> Result<Written, ToolError> {
        let options = CallOptions::of_plan(&request);
        let request = ApplyRequest {
            creations: self.named_creations(),
            ..request
        };
        let applied = self.content.apply_plan(request, deadline).await;
        applied.map_err(|error| self.apply_error(tool, error, options))
    }

    fn apply_error(&self, tool: ToolName, error: Error, options: CallOptions) -> ToolError {
        ToolError::new(tool, error, options, self.content.now())
    }
}

/// What applying a plan did to the one document of an update.
fn updated(applied: Written) -> Updated {
    let changed_outside = applied.changed_outside.values().next().copied();
    let Some(document) = applied.documents.into_iter().next() else {
        unreachable!("a plan of an update changes its document");
    };
    let record = document.record;
    Updated {
        version: record.as_ref().map(|record| record.version().clone()),
        changes: document.changes,
        audit_id: document.audit_id,
        replayed: applied.replayed,
        is_unread: document.is_unread,
        warnings: document.warnings,
        record,
        changed_outside,
        planned: None,
    }
}

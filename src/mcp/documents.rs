//! What the tools of both content types do, written once.

use std::slice;

use rmcp::{
    ErrorData,
    handler::server::tool::IntoCallToolResult,
    model::{CallToolResponse, JsonObject},
};
use serde_json::Value;

use super::{
    changes::{fitting_changes, is_creation, summarize_changes},
    error::{CallOptions, ToolError},
    list::summary_row,
    meta::{DocumentMeta, UndoCounters, UpdateMeta, fitting_warnings},
    output::{DocumentBody, ToolOutput, UpdatedDocument, room_beside},
    outside,
    params::{self, Detail, GetParams, UpdateParams},
    router::CHECKS,
    server::ContentServer,
    tool_name::ToolName,
};
use crate::{
    deadline::Deadline,
    domain::{
        Document, DocumentKey, Kind, Origin, Patch, Project, Resource, Violation, audit::Action,
        patch::empty_objects, text::truncate,
    },
    service::{Error, Mode, UpdateRequest, Updated},
};

/// What to do when an update names no field: some clients leave out every `null`.
const NOTHING_NAMED: &str = "`data` names no field (an empty object changes nothing) and there are no `edits`, so nothing was changed; put the fields to change in `data`. If `null` was meant to remove a field, the client left it out";

/// What to say when an earlier call wrote a document that cannot be shown now.
pub(super) const UNREAD: &str =
    "an earlier call wrote this, but the document cannot be read now, so it is not shown";
const DELETED_SINCE: &str =
    "an earlier call wrote this; the document was deleted since, so it is not shown";

/// A warning names this many fields.
const MAX_NAMED_FIELDS: usize = 5;

/// What an undo adds to the answer of an update.
#[derive(Default)]
pub(super) struct UndoRemarks {
    /// The fields that stay.
    pub kept: Vec<Value>,
    /// The number of those that are not listed.
    pub more_kept: usize,
    /// The fields, counted.
    pub counts: Option<UndoCounters>,
}

impl ContentServer {
    pub(super) async fn get<D: Document>(
        &self,
        params: GetParams,
        deadline: Deadline,
    ) -> Result<ToolOutput<DocumentBody<D>, DocumentMeta>, ToolError> {
        let key = DocumentKey::new(D::KIND, params.id);
        if let Some(as_of) = params.as_of {
            return self.get_as_of(key, &as_of, deadline).await;
        }
        let record = self.content.get(key, deadline).await;
        let fetched = record.map_err(|error| self.read_error(ToolName::Get(D::KIND), error))?;
        let record = fetched.value.record;
        let mut meta = DocumentMeta {
            freshness: self.freshness(fetched.snapshot_age),
            version: record.version().clone(),
            as_of: None,
            url: self.public_url(&record),
            warnings: Vec::new(),
        };
        let document = DocumentBody::new(&record);
        // Counting the text of a document costs as much as the rest of the call.
        let outside = fetched.value.changed_outside.map(outside::shown);
        if outside.is_some() || !record.violations().is_empty() {
            let violations = record.violations().iter().map(ToString::to_string);
            let warnings = outside.into_iter().chain(violations);
            meta.warnings = fitting_warnings(warnings, room_beside(&document, &meta));
        }
        Ok(ToolOutput::new(document, meta))
    }

    pub(super) async fn update<D: Document>(
        &self,
        params: UpdateParams<D>,
        mut origin: Origin,
        deadline: Deadline,
    ) -> Result<ToolOutput<UpdatedDocument<D>, UpdateMeta>, ToolError> {
        if let Some(plan_id) = params.plan.clone() {
            return self.apply_update(params, plan_id, origin, deadline).await;
        }
        if let Some(audit_id) = params.undo.clone() {
            return self.undo_update(params, audit_id, origin, deadline).await;
        }
        origin.reason = params.reason.filter(|reason| !reason.is_empty());
        let key = DocumentKey::new(D::KIND, params.id);
        let mode = params::mode(params.dry_run);
        let request = UpdateRequest {
            key: key.clone(),
            patch: params.data.map(Patch::into_members).unwrap_or_default(),
            edits: params.edits.unwrap_or_default(),
            expected_version: params.expected_version,
            mode,
            idempotency_key: params.idempotency_key,
            origin,
        };
        let detail = params.detail.unwrap_or_default();
        let empty = empty_objects(&request.patch);
        let names_nothing = D::rules().names_nothing(&request.patch) && request.edits.is_empty();
        let options = CallOptions::of_request(&request);
        let (tool, now) = (ToolName::Update(D::KIND), || self.content.now());
        match self.content.update(request, deadline).await {
            Ok(updated) => {
                let planned = updated.planned.as_deref().map(slice::from_ref);
                let changes = planned.unwrap_or_default();
                let plan = self.keep_plan(tool, changes, deadline).await;
                let mut output = self.update_output(updated, mode, detail, None);
                plan.add_to(&mut output.meta.plan, &mut output.meta.warnings);
                if names_nothing {
                    output.add_warning(NOTHING_NAMED);
                } else if !empty.is_empty() {
                    output.add_warning(&empty_objects_warning(&empty));
                }
                Ok(output)
            }
            Err(Error::Invalid(mut violations)) => {
                point_out_arguments(tool, &mut violations);
                Err(ToolError::invalid_change(tool, &key, &violations, now()))
            }
            Err(error) => Err(ToolError::new(tool, error, options, now())),
        }
    }

    /// The response to arguments that break rules: the first result, if this repeats a request that
    /// was valid then; otherwise all violations, those of the change included.
    pub(super) async fn reject_or_replay(
        &self,
        kind: Kind,
        arguments: &JsonObject,
        mut violations: Vec<Violation>,
        deadline: Deadline,
    ) -> Result<CallToolResponse, ErrorData> {
        let (tool, now) = (ToolName::Update(kind), || self.content.now());
        let mut request = UpdateRequest::from_arguments(kind, arguments);
        let detail = Detail::of_arguments(arguments);
        // With an unknown argument it is another request.
        let is_other = violations
            .iter()
            .any(|violation| violation.rule == "unknown");
        let done = if is_other {
            Ok(None)
        } else {
            self.content.replay_if_done(&request, deadline).await
        };
        match done {
            Ok(None) => {
                (request.mode, request.idempotency_key) = (Mode::DryRun, None);
                if let Err(Error::Invalid(mut more)) = self.content.update(request, deadline).await
                {
                    point_out_arguments(tool, &mut more);
                    violations.extend(more);
                }
                ToolError::invalid_arguments(tool, &violations, now()).into_response()
            }
            Ok(Some(updated)) => match kind {
                Kind::Project => self
                    .update_output::<Project>(updated, Mode::Commit, detail, None)
                    .into_call_tool_result(),
                Kind::Resource => self
                    .update_output::<Resource>(updated, Mode::Commit, detail, None)
                    .into_call_tool_result(),
            },
            Err(error) => {
                let options = CallOptions::of_arguments(arguments);
                ToolError::new(tool, error, options, now()).into_response()
            }
        }
    }

    pub(super) fn update_output<D: Document>(
        &self,
        updated: Updated,
        mode: Mode,
        detail: Detail,
        undo: Option<UndoRemarks>,
    ) -> ToolOutput<UpdatedDocument<D>, UpdateMeta> {
        let action = match undo {
            Some(_) => Action::Revert,
            None => Action::Update,
        };
        let undo = undo.unwrap_or_default();
        let is_dry_run = mode == Mode::DryRun && !updated.replayed;
        let absent = why_absent(&updated);
        let changes = summarize_changes(Some(D::KIND), Some(action.as_str()), updated.changes);
        let is_stored = !(is_dry_run && is_creation(&changes));
        let version = updated.version.filter(|_| is_stored);
        let data = match (&updated.record, detail) {
            (None, _) => UpdatedDocument::row(JsonObject::new()),
            (Some(record), Detail::Summary) => {
                UpdatedDocument::row(summary_row(record, version.as_ref()))
            }
            (Some(record), Detail::Full) => UpdatedDocument::full(record),
        };
        let outside = updated
            .changed_outside
            .map(|after| match &updated.audit_id {
                Some(_) => outside::recorded(after),
                None => outside::shown(after),
            });
        let mut meta = UpdateMeta {
            dry_run: is_dry_run,
            timestamp: self.content.now().to_string(),
            source: self.content.store_name().to_owned(),
            version,
            url: updated
                .record
                .as_ref()
                .filter(|_| !is_dry_run)
                .and_then(|record| self.public_url(record)),
            audit_id: updated.audit_id,
            plan: None,
            changes: Vec::new(),
            more: 0,
            kept: undo.kept,
            more_kept: undo.more_kept,
            counts: undo.counts,
            replayed: updated.replayed,
            warnings: Vec::new(),
        };
        if absent.is_some() || outside.is_some() || !updated.warnings.is_empty() {
            let violations = updated.warnings.iter().map(ToString::to_string);
            let remarks = absent.map(ToOwned::to_owned).into_iter().chain(outside);
            let warnings = remarks.chain(violations);
            meta.warnings = fitting_warnings(warnings, room_beside(&data, &meta));
        }
        let listed;
        (listed, meta.more) = fitting_changes(changes, room_beside(&data, &meta));
        meta.changes = match listed {
            Value::Array(changes) => changes,
            other => vec![other],
        };
        ToolOutput::new(data, meta)
    }
}

/// Why the document is not shown, if it is not.
fn why_absent(updated: &Updated) -> Option<&'static str> {
    match updated.record {
        Some(_) => None,
        None if updated.is_unread => Some(UNREAD),
        None => Some(DELETED_SINCE),
    }
}

pub(super) fn point_out_arguments(tool: ToolName, violations: &mut [Violation]) {
    if let Some(check) = CHECKS.get(tool.as_str()) {
        check.point_out_arguments(violations);
    }
}

fn empty_objects_warning(paths: &[String]) -> String {
    let named: Vec<String> = paths
        .iter()
        .take(MAX_NAMED_FIELDS)
        .map(|path| format!("`{}`", truncate(path)))
        .collect();
    format!(
        "nothing was changed within {}: an empty object names no field. If `null` was meant to remove a field there, the client left it out",
        named.join(", ")
    )
}

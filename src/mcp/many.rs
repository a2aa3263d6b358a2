//! The tool that updates many documents at once.

use rmcp::{handler::server::wrapper::Parameters, model::JsonObject, tool, tool_router};
use serde_json::Value;

use super::{
    documents::point_out_arguments,
    error::{CallOptions, ToolError},
    meta::{ManyMeta, fitting_warnings},
    output::{self, ChangedDocuments, MAX_ANSWER_BYTES, RESERVED_BYTES, ToolOutput, answer_text},
    outside,
    params::{self, ChangeParams, ManyParams},
    server::ContentServer,
    tool_name::ToolName,
    undo::document_row,
};
use crate::{
    deadline::Deadline,
    domain::{DocumentKey, Origin, Source, Violation, audit::Action},
    service::{Error, ManyItem, Mode, UpdateManyRequest, Written, WrittenDocument},
};

/// What to say when no document changes.
const NOTHING_CHANGED: &str = "every document already is as requested, so nothing was changed";
/// A warning names this many documents that were left out.
const MAX_NAMED: usize = 10;

#[tool_router(router = batch_tools, vis = "pub(super)")]
impl ContentServer {
    /// Changes up to 50 existing documents, each once, all or none. Send for each the version that you
    /// read. If anything is unclear, first show the owner a `dryRun`.
    #[tool(
        title = "Update many documents",
        annotations(title = "Update many documents", read_only_hint = false, destructive_hint = true, idempotent_hint = false, open_world_hint = false),
        input_schema = params::schema::<ManyParams>(),
        output_schema = output::schema::<ToolOutput<ChangedDocuments, ManyMeta>>()
    )]
    async fn update_many(
        &self,
        Parameters(params): Parameters<ManyParams>,
        origin: Origin,
        deadline: Deadline,
    ) -> Result<ToolOutput<ChangedDocuments, ManyMeta>, ToolError> {
        let (tool, now) = (ToolName::UpdateMany, || self.content.now());
        if let Some(plan_id) = params.plan {
            let (reason, key) = (params.reason, params.idempotency_key);
            let request = params::apply_request(plan_id, tool, None, reason, key, origin);
            let written = self.apply(tool, request, deadline).await?;
            return Ok(self.many_output(&written, Mode::Commit));
        }
        let changes = params.changes.into_iter().flatten().enumerate();
        let request = UpdateManyRequest {
            changes: changes.map(|(index, change)| item(index, change)).collect(),
            options: params::write_options(
                params.dry_run,
                params.reason,
                params.idempotency_key,
                origin,
            ),
        };
        let (mode, options) = (
            request.options.mode,
            CallOptions::of_write(&request.options),
        );
        let expecting: Vec<DocumentKey> = request
            .changes
            .iter()
            .filter(|item| item.expected_version.is_some())
            .map(|item| item.key.clone())
            .collect();
        match self.content.update_many(request, deadline).await {
            Ok(written) => {
                let plan = self.keep_plan(tool, &written.planned, deadline).await;
                let mut output = self.many_output(&written, mode);
                plan.add_to(&mut output.meta.plan, &mut output.meta.warnings);
                Ok(output)
            }
            Err(Error::Invalid(mut violations)) => {
                point_out_arguments(tool, &mut violations);
                let error = Error::Invalid(violations);
                Err(ToolError::new(tool, error, options, now()))
            }
            Err(error) => {
                let options = match &error {
                    Error::Conflict { key, .. } if expecting.contains(key) => {
                        options.expecting_version()
                    }
                    _ => options,
                };
                Err(ToolError::new(tool, error, options, now()))
            }
        }
    }
}

impl ContentServer {
    /// What is wrong with the changes of a call whose arguments break rules too.
    pub(super) async fn many_violations(
        &self,
        arguments: &JsonObject,
        deadline: Deadline,
    ) -> Vec<Violation> {
        let changes = arguments.get("changes").and_then(Value::as_array);
        let changes = changes.into_iter().flatten().enumerate();
        let mut items: Vec<ManyItem> = Vec::new();
        for (index, change) in changes.take(params::MAX_CHANGES) {
            let Ok(change) = serde_json::from_value::<ChangeParams>(change.clone()) else {
                continue;
            };
            let item = item(index, change);
            if !items.iter().any(|other| other.key == item.key) {
                items.push(item);
            }
        }
        if items.is_empty() {
            return Vec::new();
        }
        let request = UpdateManyRequest {
            changes: items,
            options: params::write_options(Some(true), None, None, Origin::new(Source::Mcp)),
        };
        match self.content.update_many(request, deadline).await {
            Err(Error::Invalid(mut violations)) => {
                point_out_arguments(ToolName::UpdateMany, &mut violations);
                violations
            }
            _ => Vec::new(),
        }
    }

    fn many_output(&self, written: &Written, mode: Mode) -> ToolOutput<ChangedDocuments, ManyMeta> {
        let mut meta = ManyMeta {
            dry_run: mode == Mode::DryRun,
            timestamp: self.content.now().to_string(),
            source: self.content.store_name().to_owned(),
            plan: None,
            more: 0,
            replayed: written.replayed,
            warnings: fitting_warnings(warnings(written), MAX_ANSWER_BYTES),
        };
        let room = MAX_ANSWER_BYTES - RESERVED_BYTES - answer_text(&meta).len();
        let rows = fitting_rows(&written.documents, mode, room);
        meta.more = written.documents.len() - rows.len();
        ToolOutput::new(ChangedDocuments::new(rows), meta)
    }
}

/// One update, as the service is asked for it.
fn item(index: usize, change: ChangeParams) -> ManyItem {
    ManyItem {
        path: format!("changes[{index}]"),
        key: DocumentKey::new(change.entity_type.kind(), change.id),
        patch: change.data.unwrap_or_default(),
        edits: change.edits.unwrap_or_default(),
        expected_version: change.expected_version,
    }
}

/// A row for each document, as many as fit. What is left beside the rows without changes is for the
/// changes, in equal parts.
fn fitting_rows(documents: &[WrittenDocument], mode: Mode, mut room: usize) -> Vec<Value> {
    let row = |document: &WrittenDocument, room| document_row(document, mode, Action::Update, room);
    let length = |row: &Value| answer_text(row).len() + 1;
    let bare: usize = documents
        .iter()
        .map(|document| length(&row(document, 0)))
        .sum();
    let for_changes = room.saturating_sub(bare) / documents.len().max(1);
    let rows = documents.iter().map(|document| row(document, for_changes));
    let fitting = rows.map_while(|row| {
        room = room.checked_sub(length(&row))?;
        Some(row)
    });
    fitting.collect()
}

/// What was left out, and the rules that the documents broke before and still break.
fn warnings(written: &Written) -> impl Iterator<Item = String> {
    let is_nothing = written.documents.is_empty() && !written.replayed;
    let unchanged = match written.unchanged.len() {
        0 => None,
        _ if is_nothing => Some(NOTHING_CHANGED.to_owned()),
        _ => Some(left_out(&written.unchanged)),
    };
    let outside = written.changed_outside.iter().map(|(key, after)| {
        let mut documents = written.documents.iter();
        let remark = match documents.find(|it| it.key == *key && it.audit_id.is_some()) {
            Some(_) => outside::recorded(*after),
            None => outside::shown(*after),
        };
        format!("{key}: {remark}")
    });
    let violations = written.documents.iter().flat_map(|document| {
        let warnings = document.warnings.iter();
        warnings.map(move |violation| format!("{}: {violation}", document.key))
    });
    unchanged.into_iter().chain(outside).chain(violations)
}

fn left_out(unchanged: &[DocumentKey]) -> String {
    let named = unchanged.iter().take(MAX_NAMED).map(ToString::to_string);
    let named = named.collect::<Vec<_>>().join(", ");
    let more = match unchanged.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("left out, because they already are as requested: {named}{more}")
}

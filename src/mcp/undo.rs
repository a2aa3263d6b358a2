//! What an update with `undo` does, and how answers show what an undo keeps.

use serde_json::{Map, Value, json};

use super::{
    changes::shorten,
    error::{CallOptions, ToolError},
    meta::{UndoCounters, UpdateMeta},
    output::{ToolOutput, UpdatedDocument, answer_text},
    params::UpdateParams,
    server::ContentServer,
    tool_name::ToolName,
};
use crate::{
    deadline::Deadline,
    domain::{Creations, Document, DocumentKey, Kept, Origin, Violation},
    service::{Mode, Selection, UndoRequest, Undone},
};

/// How much text of an answer may name fields that stay; the rest is for what was changed.
const MAX_KEPT_BYTES: usize = 8000;

/// What to say when nothing goes back.
pub(super) const NOTHING_TO_UNDO: &str = "nothing is left to undo, so nothing was changed";

/// Why a creation stays.
const CREATION_STAYS: &str =
    "undoing its creation would delete the document, which this tool does not do";

impl ContentServer {
    /// Undoes one change of a document.
    pub(super) async fn undo_update<D: Document>(
        &self,
        params: UpdateParams<D>,
        audit_id: String,
        mut origin: Origin,
        deadline: Deadline,
    ) -> Result<ToolOutput<UpdatedDocument<D>, UpdateMeta>, ToolError> {
        let (tool, now) = (ToolName::Update(D::KIND), || self.content.now());
        let names_data = params
            .data
            .is_some_and(|data| !data.into_members().is_empty());
        if names_data || params.edits.is_some_and(|edits| !edits.is_empty()) {
            let message = "send `undo` without `data` and `edits`: undo first, then change";
            let violation = Violation::new("undo", "alone", message);
            return Err(ToolError::invalid_arguments(tool, &[violation], now()));
        }
        origin.reason = params.reason.filter(|reason| !reason.is_empty());
        let key = DocumentKey::new(D::KIND, params.id);
        let expected = params.expected_version;
        let mode = if params.dry_run == Some(true) {
            Mode::DryRun
        } else {
            Mode::Commit
        };
        let request = UndoRequest {
            expected_versions: expected
                .map(|version| (key.clone(), Some(version)))
                .into_iter()
                .collect(),
            selection: Selection::EntryOf(key, audit_id),
            creations: Creations::Keep,
            mode,
            idempotency_key: params.idempotency_key,
            origin,
        };
        let options = CallOptions::of_undo(&request);
        let undone = self.content.undo_change(request, deadline).await;
        let (updated, undone) =
            undone.map_err(|error| ToolError::new(tool, error, options, now()))?;
        let is_unchanged = updated.changes.as_array().is_some_and(Vec::is_empty);
        let (kept, _) = kept_rows(&undone);
        let undo = (kept, counters(&undone));
        let detail = params.detail.unwrap_or_default();
        let mut output = self.update_output(updated, mode, detail, undo);
        if is_unchanged {
            output.add_warning(NOTHING_TO_UNDO);
        }
        Ok(output)
    }
}

/// The counts of an undo, which a repeated request does not tell.
pub(super) fn counters(undone: &Undone) -> Option<UndoCounters> {
    (!undone.replayed).then_some(UndoCounters {
        undone: undone.counts.undone,
        kept: undone.counts.kept,
        already_gone: undone.counts.already_gone,
    })
}

/// The fields that stay, as many as there is room for, and the number of the others.
pub(super) fn kept_rows(undone: &Undone) -> (Vec<Value>, usize) {
    let mut bytes = 0;
    let rows = undone.kept.iter().map(|(key, kept)| kept_row(key, kept));
    let fitting = rows.take_while(|row| {
        bytes += answer_text(row).len() + 1;
        bytes <= MAX_KEPT_BYTES
    });
    let rows: Vec<Value> = fitting.collect();
    let more = undone.kept.len() - rows.len();
    (rows, more)
}

fn kept_row(key: &DocumentKey, kept: &Kept) -> Value {
    let text = |text: &Option<String>| text.as_deref().map(Value::from);
    let members = [
        ("entityType", Some(json!(key.kind.singular()))),
        ("entityId", Some(json!(key.id))),
        ("field", Some(json!(kept.field))),
        ("auditId", text(&kept.audit_id)),
        ("actor", text(&kept.actor)),
        ("clientId", text(&kept.client_id)),
        ("timestamp", text(&kept.timestamp)),
        ("reason", kept.is_creation.then(|| json!(CREATION_STAYS))),
    ];
    let members = members.into_iter().filter_map(|(name, value)| {
        let mut value = value?;
        shorten(&mut value);
        Some((name.to_owned(), value))
    });
    Value::Object(Map::from_iter(members))
}

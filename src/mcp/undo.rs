//! Undoing changes: the tool for many, what an update with `undo` does, and how answers show both.

use std::{collections::BTreeMap, slice};

use rmcp::{handler::server::wrapper::Parameters, tool, tool_router};
use serde_json::{Map, Value, json};

use super::{
    changes::{fitting_changes, shorten, summarize_changes},
    documents::{UNREAD, UndoRemarks},
    error::{CallOptions, ToolError},
    meta::{UndoCounters, UndoMeta, UpdateMeta, fitting_warnings},
    output::{
        self, ChangedDocuments, MAX_ANSWER_BYTES, RESERVED_BYTES, ToolOutput, UpdatedDocument,
        answer_text,
    },
    outside,
    params::{self, EntityType, UndoParams, UpdateParams},
    server::ContentServer,
    tool_name::ToolName,
    toolset::Toolset,
};
use crate::{
    deadline::Deadline,
    domain::{
        AuditQuery, Creations, Document, DocumentKey, Kept, Origin, Timestamp, Violation,
        audit::Action,
    },
    service::{Mode, Selection, UndoRequest, Undone, WrittenDocument},
};

/// How much text of an answer may name fields that stay; the rest is for what was changed.
const MAX_KEPT_BYTES: usize = 8000;
/// And about the changes of one document. More are only counted; the log has them.
const MAX_CHANGE_BYTES: usize = 8000;

/// What to say when nothing goes back.
const NOTHING_TO_UNDO: &str = "nothing is left to undo, so nothing was changed";

/// Why a creation stays.
const CREATION_STAYS: &str = "undoing its creation would delete the document; only `undo_changes` with this audit id in `auditIds` does that, where the toolset `authoring` is on";

#[tool_router(router = undo_tools, vis = "pub(super)")]
impl ContentServer {
    /// Undoes changes of any documents, all or none: those in `auditIds`, or all since a time that
    /// match. Each field gets the value it would have without them; a field that others changed later
    /// stays, and `meta.kept` names it. First show the owner a `dryRun`. Over stdio all programs of one
    /// person share the actor, so filter by `clientId`.
    #[tool(
        title = "Undo changes",
        annotations(title = "Undo changes", read_only_hint = false, destructive_hint = true, idempotent_hint = false, open_world_hint = false),
        input_schema = params::schema::<UndoParams>(),
        output_schema = output::schema::<ToolOutput<ChangedDocuments, UndoMeta>>()
    )]
    async fn undo_changes(
        &self,
        Parameters(params): Parameters<UndoParams>,
        origin: Origin,
        deadline: Deadline,
    ) -> Result<ToolOutput<ChangedDocuments, UndoMeta>, ToolError> {
        let (tool, now) = (ToolName::UndoChanges, || self.content.now());
        if let Some(plan_id) = params.plan.clone() {
            return self.apply_undo(params, plan_id, origin, deadline).await;
        }
        let request = undo_request(params, self.named_creations(), origin)
            .map_err(|violation| ToolError::invalid_arguments(tool, &[violation], now()))?;
        let (mode, options) = (request.mode, CallOptions::of_undo(&request));
        match self.content.undo(request, deadline).await {
            Ok(undone) => {
                let plan = self.keep_plan(tool, &undone.planned, deadline).await;
                let mut output = self.undo_output(undone, mode);
                plan.add_to(&mut output.meta.plan, &mut output.meta.warnings);
                Ok(output)
            }
            Err(error) => Err(ToolError::new(tool, error, options, now())),
        }
    }
}

impl ContentServer {
    /// Whether undoing a creation deletes the document, if its audit id is named.
    pub(super) fn named_creations(&self) -> Creations {
        if self.toolsets.have(Toolset::Authoring) {
            Creations::Undo
        } else {
            Creations::Keep
        }
    }

    pub(super) fn undo_output(
        &self,
        undone: Undone,
        mode: Mode,
    ) -> ToolOutput<ChangedDocuments, UndoMeta> {
        let (kept, more_kept) = kept_rows(&undone);
        let mut meta = UndoMeta {
            dry_run: mode == Mode::DryRun,
            timestamp: self.content.now().to_string(),
            source: self.content.store_name().to_owned(),
            plan: None,
            counts: counters(&undone),
            kept,
            more_kept,
            more: 0,
            replayed: undone.replayed,
            warnings: fitting_warnings(warnings(&undone), MAX_ANSWER_BYTES),
        };
        let all = undone.documents.len();
        let mut room = MAX_ANSWER_BYTES - RESERVED_BYTES - answer_text(&meta).len();
        let documents = undone.documents.into_iter();
        let rows = documents
            .map(|document| document_row(&document, mode, Action::Revert, MAX_CHANGE_BYTES));
        let fitting = rows.map_while(|row| {
            room = room.checked_sub(answer_text(&row).len() + 1)?;
            Some(row)
        });
        let rows: Vec<Value> = fitting.collect();
        meta.more = all - rows.len();
        ToolOutput::new(ChangedDocuments::new(rows), meta)
    }

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
        let mode = params::mode(params.dry_run);
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
        let (kept, more_kept) = kept_rows(&undone);
        let undo = UndoRemarks {
            kept,
            more_kept,
            counts: counters(&undone),
        };
        let detail = params.detail.unwrap_or_default();
        let planned = updated.planned.as_deref().map(slice::from_ref);
        let changes = planned.unwrap_or_default();
        let plan = self.keep_plan(tool, changes, deadline).await;
        let mut output = self.update_output(updated, mode, detail, Some(undo));
        plan.add_to(&mut output.meta.plan, &mut output.meta.warnings);
        if is_unchanged {
            output.add_warning(NOTHING_TO_UNDO);
        }
        Ok(output)
    }
}

/// What the arguments ask for; `named` says whether a creation is undone whose audit id is named.
fn undo_request(
    params: UndoParams,
    named: Creations,
    mut origin: Origin,
) -> Result<UndoRequest, Violation> {
    const EITHER: &str = "send either `auditIds` alone, or `since` with any of `until`, `actor`, `clientId`, `source`, `entityType`, `entityId`";
    origin.reason = params.reason.filter(|reason| !reason.is_empty());
    // The check of the arguments has parsed them before.
    let time = |text: Option<String>| text.and_then(|text| Timestamp::parse(&text));
    let query = AuditQuery {
        since: time(params.since),
        until: time(params.until),
        actor: params.actor,
        client_id: params.client_id,
        source: params.source,
        kind: params.entity_type.map(EntityType::kind),
        entity_id: params.entity_id,
        ..AuditQuery::default()
    };
    let is_filtered = query.is_filtered() || query.since.is_some() || query.until.is_some();
    let selection = match params.audit_ids {
        Some(_) if is_filtered => return Err(Violation::new("auditIds", "alone", EITHER)),
        Some(ids) => Selection::Entries(ids.into_iter().collect()),
        None if query.since.is_none() => return Err(Violation::new("since", "required", EITHER)),
        None => Selection::Matching(Box::new(query)),
    };
    Ok(UndoRequest {
        creations: match selection {
            Selection::Entries(_) => named,
            Selection::EntryOf(..) | Selection::Matching(_) => Creations::Keep,
        },
        selection,
        expected_versions: BTreeMap::new(),
        mode: params::mode(params.dry_run),
        idempotency_key: params.idempotency_key,
        origin,
    })
}

/// Why nothing goes back, what was left out, and the rules that the documents break now.
fn warnings(undone: &Undone) -> impl Iterator<Item = String> {
    let nothing =
        (undone.documents.is_empty() && !undone.replayed).then(|| NOTHING_TO_UNDO.to_owned());
    let unexplained = (undone.unexplained > 0).then(|| {
        format!(
            "matching entries left out: {}. The log does not show how such an entry joins the other versions of its document (an older program or another log wrote it, or the document was changed beside the log since)",
            undone.unexplained
        )
    });
    let outside = undone.changed_outside.iter().map(|(key, after)| {
        let mut documents = undone.documents.iter();
        let remark = match documents.find(|it| it.key == *key && it.audit_id.is_some()) {
            Some(_) => outside::recorded(*after),
            None => outside::shown(*after),
        };
        format!("{key}: {remark}")
    });
    let unreadable = undone.documents.iter().filter(|it| it.is_unread);
    let unreadable = unreadable.map(|document| format!("{}: {UNREAD}", document.key));
    let documents = undone.documents.iter();
    let violations = documents.flat_map(|document| {
        let warnings = document.warnings.iter();
        warnings.map(move |violation| format!("{}: {violation}", document.key))
    });
    let remarks = nothing.into_iter().chain(unexplained);
    remarks.chain(unreadable).chain(outside).chain(violations)
}

/// A document that was changed, with as many changes as fit in `room` bytes. In a dry run its version
/// is the stored one.
pub(super) fn document_row(
    document: &WrittenDocument,
    mode: Mode,
    action: Action,
    room: usize,
) -> Value {
    let record = document.record.as_ref();
    let before = document.before.as_ref();
    let is_deleted = record.is_none() && !document.is_unread;
    let named = record.or(before);
    let versioned = match mode {
        Mode::DryRun => before,
        Mode::Commit => record,
    };
    let key = &document.key;
    let mut row = members([
        ("entityType", Some(json!(key.kind))),
        ("entityId", Some(json!(key.id))),
        (
            "title",
            named.and_then(|record| record.document().get("title").cloned()),
        ),
        ("deleted", is_deleted.then_some(json!(true))),
        ("version", versioned.map(|record| json!(record.version()))),
        ("auditId", document.audit_id.as_deref().map(Value::from)),
    ]);
    let changes = document.changes.clone();
    let changes = summarize_changes(Some(key.kind), Some(action.as_str()), changes);
    let (changes, omitted) = fitting_changes(changes, room);
    row.insert("changes".to_owned(), changes);
    if omitted > 0 {
        row.insert("more".to_owned(), json!(omitted));
    }
    Value::Object(row)
}

/// The counts of an undo, which a repeated request does not tell.
fn counters(undone: &Undone) -> Option<UndoCounters> {
    (!undone.replayed).then_some(UndoCounters {
        undone: undone.counts.undone,
        kept: undone.counts.kept,
        already_gone: undone.counts.already_gone,
    })
}

/// The fields that stay, as many as there is room for, and the number of the others.
fn kept_rows(undone: &Undone) -> (Vec<Value>, usize) {
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
    Value::Object(members([
        ("entityType", Some(json!(key.kind))),
        ("entityId", Some(json!(key.id))),
        ("field", Some(json!(kept.field))),
        ("auditId", text(&kept.audit_id)),
        ("actor", text(&kept.actor)),
        ("clientId", text(&kept.client_id)),
        ("timestamp", text(&kept.timestamp)),
        ("reason", kept.is_creation.then(|| json!(CREATION_STAYS))),
    ]))
}

/// The members that there are, long values being shortened.
fn members<const N: usize>(members: [(&str, Option<Value>); N]) -> Map<String, Value> {
    let members = members.into_iter().filter_map(|(name, value)| {
        let mut value = value?;
        shorten(&mut value);
        Some((name.to_owned(), value))
    });
    members.collect()
}

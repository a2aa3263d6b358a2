//! Undoing changes: the tool for many, and what an update with `undo` does.

use std::collections::{BTreeMap, BTreeSet};

use rmcp::{handler::server::wrapper::Parameters, tool, tool_router};
use serde_json::{Map, Value, json};

use super::{
    changes::{fitting_changes, shorten, summarize_changes},
    error::{CallOptions, ToolError},
    meta::{UndoCounters, UndoMeta, UpdateMeta, fitting_warnings},
    output::{
        self, MAX_ANSWER_BYTES, RESERVED_BYTES, ToolOutput, UndoneDocuments, UpdatedDocument,
        answer_text,
    },
    params::{self, EntityType, UndoParams, UpdateParams},
    server::ContentServer,
    tool_name::ToolName,
};
use crate::{
    deadline::Deadline,
    domain::{AuditQuery, Creations, Document, DocumentKey, Kept, Origin, Timestamp, Violation},
    service::{Mode, Selection, UndoRequest, Undone, UndoneDocument},
};

/// How much text of an answer may name fields that stay; the rest is for what was changed.
const MAX_KEPT_BYTES: usize = 8000;

/// What to say when nothing goes back.
const NOTHING_TO_UNDO: &str = "nothing is left to undo, so nothing was changed";

/// Why a creation stays.
const CREATION_STAYS: &str = "undoing its creation would delete the document, and this server's tools delete none; say so if you are asked to";

#[tool_router(router = undo_tools, vis = "pub(super)")]
impl ContentServer {
    /// Undoes changes of any documents, all or none: those named in `auditIds`, or all since a time
    /// that match. Each field gets the value it would have without them; one that others changed
    /// later stays, and `meta.kept` names it. An undo can be undone too. First show the owner a
    /// `dryRun`. Over stdio all programs of one person share the actor, so filter by `clientId`.
    #[tool(
        title = "Undo changes",
        annotations(title = "Undo changes", read_only_hint = false, destructive_hint = true, idempotent_hint = true, open_world_hint = false),
        input_schema = params::schema::<UndoParams>(),
        output_schema = output::schema::<ToolOutput<UndoneDocuments, UndoMeta>>()
    )]
    async fn undo_changes(
        &self,
        Parameters(params): Parameters<UndoParams>,
        mut origin: Origin,
        deadline: Deadline,
    ) -> Result<ToolOutput<UndoneDocuments, UndoMeta>, ToolError> {
        const TOOL: ToolName = ToolName::UndoChanges;
        let now = || self.content.now();
        origin.reason = params.reason.clone().filter(|reason| !reason.is_empty());
        let request = UndoRequest {
            creations: Creations::Keep,
            expected_versions: BTreeMap::new(),
            mode: mode(params.dry_run),
            idempotency_key: params.idempotency_key.clone(),
            origin,
            selection: selection(params)
                .map_err(|violation| ToolError::invalid_arguments(TOOL, &[violation], now()))?,
        };
        let options = CallOptions::of_key(request.idempotency_key.as_deref());
        let mode = request.mode;
        match self.content.undo(request, deadline).await {
            Ok(undone) => Ok(self.undo_output(undone, mode)),
            Err(error) => Err(ToolError::new(TOOL, error, options, now())),
        }
    }
}

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
        let expected = params
            .expected_version
            .map(|version| (key.clone(), Some(version)));
        let options = CallOptions::of_key(params.idempotency_key.as_deref())
            .with_expected_version(expected.is_some());
        let mode = mode(params.dry_run);
        let request = UndoRequest {
            selection: Selection::EntryOf(key, audit_id),
            creations: Creations::Keep,
            expected_versions: expected.into_iter().collect(),
            mode,
            idempotency_key: params.idempotency_key,
            origin,
        };
        let undone = self.content.undo_change(request, deadline).await;
        let (updated, undone) =
            undone.map_err(|error| ToolError::new(tool, error, options, now()))?;
        let is_unchanged = updated.changes.as_array().is_some_and(Vec::is_empty);
        let mut output = self.update_output(updated, mode, params.detail.unwrap_or_default());
        output.add_undo(kept_rows(&undone).0, counters(&undone));
        if is_unchanged {
            output.add_warning(NOTHING_TO_UNDO);
        }
        Ok(output)
    }

    fn undo_output(&self, undone: Undone, mode: Mode) -> ToolOutput<UndoneDocuments, UndoMeta> {
        let mut remarks = Vec::new();
        if undone.documents.is_empty() {
            remarks.push(NOTHING_TO_UNDO.to_owned());
        }
        if undone.unexplained > 0 {
            remarks.push(format!(
                "{} matching entries were left out: the log does not show how they join the other versions of their documents (older programs or another log wrote them, or the document was changed beside the log since)",
                undone.unexplained
            ));
        }
        let violations = undone.documents.iter().flat_map(|document| {
            let key = &document.key;
            document
                .warnings
                .iter()
                .map(move |violation| format!("{key}: {violation}"))
        });
        let (kept, more_kept) = kept_rows(&undone);
        let mut meta = UndoMeta {
            dry_run: mode == Mode::DryRun,
            timestamp: self.content.now().to_string(),
            source: self.content.store_name().to_owned(),
            counts: counters(&undone),
            kept,
            more_kept,
            more: 0,
            replayed: undone.replayed,
            warnings: fitting_warnings(remarks.into_iter().chain(violations), MAX_KEPT_BYTES),
        };
        let all = undone.documents.len();
        let mut room = MAX_ANSWER_BYTES.saturating_sub(answer_text(&meta).len() + RESERVED_BYTES);
        let mut rows = Vec::new();
        for document in undone.documents {
            let row = document_row(document, room);
            let bytes = answer_text(&row).len() + 1;
            if bytes > room {
                break;
            }
            room -= bytes;
            rows.push(row);
        }
        meta.more = all - rows.len();
        ToolOutput::new(UndoneDocuments::new(rows), meta)
    }
}

fn mode(dry_run: Option<bool>) -> Mode {
    if dry_run == Some(true) {
        Mode::DryRun
    } else {
        Mode::Commit
    }
}

/// Which changes the arguments name.
fn selection(params: UndoParams) -> Result<Selection, Violation> {
    let is_filtered = params.until.is_some()
        || params.actor.is_some()
        || params.client_id.is_some()
        || params.source.is_some()
        || params.entity_type.is_some()
        || params.entity_id.is_some();
    let alone = "send either `auditIds` alone, or `since` with any of until, actor, clientId, source, entityType, entityId";
    match (params.audit_ids, params.since) {
        (Some(ids), None) if !is_filtered => Ok(Selection::Entries(BTreeSet::from_iter(ids))),
        (Some(_), _) => Err(Violation::new("auditIds", "alone", alone)),
        (None, None) => Err(Violation::new("since", "required", alone)),
        (None, Some(since)) => {
            // The check of the arguments has parsed them before.
            let time = |text: &str| Timestamp::parse(text);
            Ok(Selection::Matching(Box::new(AuditQuery {
                since: time(&since),
                until: params.until.as_deref().and_then(time),
                actor: params.actor,
                client_id: params.client_id,
                source: params.source,
                kind: params.entity_type.map(EntityType::kind),
                entity_id: params.entity_id,
                ..AuditQuery::default()
            })))
        }
    }
}

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
    row([
        ("entityType", Some(json!(key.kind.singular()))),
        ("entityId", Some(json!(key.id))),
        ("field", Some(json!(kept.field))),
        ("auditId", text(&kept.audit_id)),
        ("actor", text(&kept.actor)),
        ("clientId", text(&kept.client_id)),
        ("timestamp", text(&kept.timestamp)),
        ("why", kept.is_creation.then(|| json!(CREATION_STAYS))),
    ])
    .into()
}

/// The members that there are, long values being shortened.
fn row<const N: usize>(members: [(&str, Option<Value>); N]) -> Map<String, Value> {
    let members = members.into_iter().filter_map(|(name, value)| {
        let mut value = value?;
        shorten(&mut value);
        Some((name.to_owned(), value))
    });
    members.collect()
}

/// A document that an undo changed, with as many changes as there is room for.
fn document_row(document: UndoneDocument, room: usize) -> Value {
    let UndoneDocument {
        key,
        record,
        before,
        changes,
        audit_id,
        ..
    } = document;
    let title = record.as_ref().or(before.as_ref());
    let title = title.and_then(|record| record.document().get("title"));
    let action = match (&before, &record) {
        (None, Some(_)) => Some("create"),
        (_, None) => Some("delete"),
        (Some(_), Some(_)) => None,
    };
    let mut row = row([
        ("entityType", Some(json!(key.kind.singular()))),
        ("entityId", Some(json!(key.id))),
        ("title", title.cloned()),
        ("deleted", record.is_none().then_some(json!(true))),
        ("auditId", audit_id.map(Value::from)),
        (
            "version",
            record.as_ref().map(|record| json!(record.version())),
        ),
    ]);
    let changes = summarize_changes(Some(key.kind), action, changes);
    let taken = answer_text(&row).len() + 100;
    let (changes, more) = fitting_changes(changes, room.saturating_sub(taken));
    row.insert("changes".to_owned(), changes);
    if more > 0 {
        row.insert("more".to_owned(), json!(more));
    }
    Value::Object(row)
}

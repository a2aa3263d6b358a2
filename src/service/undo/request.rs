//! What an undo is asked for, and what comes of it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    deadline::Deadline,
    domain::{
        AuditQuery, Change, Creations, DocumentKey, Kept, Kind, Operation, Origin, Timestamp,
        UndoCounts,
    },
    service::{Mode, WrittenDocument},
};

/// One undo changes no more documents.
pub(super) const MAX_DOCUMENTS: usize = 200;

/// A requested undo.
#[derive(Debug, Clone)]
pub struct UndoRequest {
    /// Which changes.
    pub selection: Selection,
    /// Whether undoing a creation deletes the document.
    pub creations: Creations,
    /// The versions that the caller has read; documents that are not in here may have any.
    pub expected_versions: BTreeMap<DocumentKey, Option<String>>,
    /// Whether to write.
    pub mode: Mode,
    /// The caller's name for this undo, under which it may be repeated.
    pub idempotency_key: Option<String>,
    /// Who asks for it, how and why.
    pub origin: Origin,
}

/// Which changes to undo.
#[derive(Debug, Clone)]
pub enum Selection {
    /// Those with these audit ids.
    Entries(BTreeSet<String>),
    /// One change of this document.
    EntryOf(DocumentKey, String),
    /// All that match, but for what a command wrote.
    Matching(Box<AuditQuery>),
}

/// What an undo did, or would do.
#[derive(Debug, Default)]
pub struct Undone {
    /// The documents that were changed.
    pub documents: Vec<WrittenDocument>,
    /// The fields that stay, with their documents.
    pub kept: Vec<(DocumentKey, Kept)>,
    /// The fields of all documents, counted.
    pub counts: UndoCounts,
    /// The audit ids of the changes that were selected and can be undone.
    pub selected: BTreeSet<String>,
    /// Selected entries that cannot be undone, because the log does not explain them.
    pub unexplained: usize,
    /// The documents that were found changed outside this server, each with the time of the newest
    /// entry before that. A write has recorded it before its own entry.
    pub changed_outside: BTreeMap<DocumentKey, Timestamp>,
    /// The versions that all documents of the selection had, whether something goes back in them or
    /// not; none in a replay.
    pub versions: BTreeMap<DocumentKey, Option<String>>,
    /// In a dry run, the changes.
    pub planned: Vec<Change>,
    /// Whether an earlier call with the same idempotency key did it.
    pub replayed: bool,
}

/// One undo under way.
pub(super) struct UndoCall {
    pub(super) request: UndoRequest,
    pub(super) operation: Operation,
    pub(super) deadline: Deadline,
}

impl UndoCall {
    pub(super) fn new(request: UndoRequest, deadline: Deadline) -> Self {
        let identity = identity(&request);
        let mut call = Self {
            operation: Operation::once(&Uuid::new_v4().to_string(), identity.clone()),
            request,
            deadline,
        };
        if let Some(key) = call.key_of_write() {
            call.operation = Operation::keyed(key, identity);
        }
        call
    }

    /// The key under which an earlier call may have done this. A dry run is another request.
    pub(super) fn key_of_write(&self) -> Option<&str> {
        match self.request.mode {
            Mode::Commit => self.request.idempotency_key.as_deref(),
            Mode::DryRun => None,
        }
    }
}

/// What makes two requests the same one.
fn identity(request: &UndoRequest) -> Value {
    let versions = request.expected_versions.iter();
    let versions: Vec<Value> = versions
        .map(|(key, version)| json!([key.to_string(), version]))
        .collect();
    match &request.selection {
        Selection::Entries(ids) => {
            json!({ "tool": "undo_changes", "auditIds": ids, "versions": versions })
        }
        Selection::EntryOf(key, id) => {
            json!({ "tool": format!("update_{}", key.kind), "id": key.id, "undo": id, "versions": versions })
        }
        Selection::Matching(query) => json!({
            "tool": "undo_changes",
            "since": query.since.map(|time| time.to_string()),
            "until": query.until.map(|time| time.to_string()),
            "actor": query.actor,
            "clientId": query.client_id,
            "source": query.source,
            "entityType": query.kind.map(Kind::singular),
            "entityId": query.entity_id,
            "versions": versions,
        }),
    }
}

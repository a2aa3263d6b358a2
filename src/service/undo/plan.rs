//! What an undo does to each document.

use std::collections::BTreeSet;

use super::request::UndoCall;
use crate::{
    deadline::Deadline,
    domain::{
        AuditQuery, Change, Current, DocumentKey, Operation, Record, StoredEntry, Timeline,
        Timestamp, Undo, Version, Violation,
        audit::{MAX_SCANNED_BYTES, MAX_SCANNED_ENTRIES, entry_text},
    },
    service::{ContentService, Error, WrittenDocument, adopt::adopt_origin, read::in_time},
    store::StoreError,
};

/// Entries of a document that are read at once, and how much text of them.
const PAGE_ENTRIES: usize = 100;
const PAGE_BYTES: usize = 1024 * 1024;

/// What an undo does to one document.
pub(super) struct DocumentPlan {
    pub(super) current: Current,
    pub(super) undo: Undo,
    /// The change; `None` if nothing goes back.
    pub(super) change: Option<Change>,
    /// The selected entries that the log does not explain.
    pub(super) unexplained: Vec<String>,
}

impl ContentService {
    pub(super) async fn plan_document(
        &self,
        call: &UndoCall,
        key: &DocumentKey,
        ids: &BTreeSet<String>,
    ) -> Result<Result<DocumentPlan, Vec<Violation>>, Error> {
        let current = in_time(call.deadline.run(self.read_stored(key)).await)?;
        self.check_version(call, &current).await?;
        let mut entries = self.history(key, ids, call.deadline).await?;
        let adopted = self.unrecorded(call, &current).await?;
        let adopted_id = adopted.as_ref().and_then(|entry| entry.text_of("id"));
        let adopted_id = adopted_id.map(ToOwned::to_owned);
        entries.splice(0..0, adopted);
        let (record, creations) = (current.record().cloned(), call.request.creations);
        let ids = ids.clone();
        let planned = tokio::task::spawn_blocking(move || {
            let timeline = Timeline::of(record.as_ref(), &entries);
            let unexplained = ids.iter().filter(|id| timeline.entry(id).is_none());
            (
                unexplained.cloned().collect(),
                timeline.undo(&ids, creations),
            )
        });
        let planned = call.deadline.run(planned).await;
        let planned = planned.map(|planned| planned.map_err(|_| StoreError::panicked()));
        let (unexplained, mut undo): (Vec<String>, Undo) = in_time(planned)?;
        // That entry is not written yet, and nobody knows when the document was changed.
        for kept in &mut undo.kept {
            if adopted_id.is_some() && kept.audit_id == adopted_id {
                (kept.audit_id, kept.timestamp) = (None, None);
            }
        }
        let context = self.write_context(call.request.origin.clone(), call.operation.clone());
        let (document, reverts) = (undo.document.as_ref(), undo.reverts.clone());
        let change = Change::revert(&current, document, reverts, context);
        Ok(change.map(|change| DocumentPlan {
            current,
            undo,
            change,
            unexplained,
        }))
    }

    /// Fails if the document has another version than the caller has read.
    async fn check_version(&self, call: &UndoCall, current: &Current) -> Result<(), Error> {
        let key = current.key();
        let expected = call.request.expected_versions.get(key);
        let version = current.version();
        let Some(expected) = expected.filter(|it| it.as_deref() != version.map(Version::as_str))
        else {
            return Ok(());
        };
        let changed_since = match expected {
            Some(expected) => self.changed_since(key, expected, call.deadline).await,
            None => Vec::new(),
        };
        Err(Error::Conflict {
            key: key.clone(),
            current: version.cloned(),
            changed_since,
            changed_outside: current.changed_outside(),
        })
    }

    /// The entries of a document, newest first, back to the first of these, and to all that undos
    /// among them have undone.
    async fn history(
        &self,
        key: &DocumentKey,
        ids: &BTreeSet<String>,
        deadline: Deadline,
    ) -> Result<Vec<StoredEntry>, Error> {
        let mut query = AuditQuery {
            max_bytes: PAGE_BYTES,
            ..AuditQuery::of(key, PAGE_ENTRIES)
        };
        let (mut wanted, mut entries, mut bytes) = (ids.clone(), Vec::new(), 0);
        loop {
            let page = in_time(deadline.run(self.store.audit_entries(&query)).await)?;
            for entry in &page.entries {
                bytes += entry.text().len();
                wanted.extend(entry.reverts().map(ToOwned::to_owned));
            }
            entries.extend(page.entries);
            for entry in &entries {
                entry.text_of("id").map(|id| wanted.remove(id));
            }
            let is_long = entries.len() >= MAX_SCANNED_ENTRIES || bytes >= MAX_SCANNED_BYTES;
            query.after = page.next;
            if wanted.is_empty() || query.after.is_none() || is_long {
                return Ok(entries);
            }
        }
    }

    /// The entry that will record what was changed outside this server, before an undo is written.
    async fn unrecorded(
        &self,
        call: &UndoCall,
        current: &Current,
    ) -> Result<Option<StoredEntry>, Error> {
        if current.changed_outside().is_none() {
            return Ok(None);
        }
        let known = self.last_known(current, call.deadline).await?;
        let operation: Operation = call.operation.clone();
        let context = self.write_context(adopt_origin(call.request.origin.source), operation);
        let change = Change::adopt(current, &known, context);
        Ok(change
            .map(|change| StoredEntry::parse(entry_text(0, change.time(), &change.entry().rest()))))
    }
}

impl DocumentPlan {
    /// Whether the document and its newest entry are those that this was planned from.
    pub(super) fn is_from(&self, current: &Current) -> bool {
        self.current.latest_entry() == current.latest_entry()
            && self.current.record().map(Record::text) == current.record().map(Record::text)
    }

    /// The document that it changes, if it does.
    pub(super) fn document(&self) -> Option<WrittenDocument> {
        self.change.as_ref().map(WrittenDocument::of)
    }

    /// When the document was last written before it was changed outside this server, if it was.
    pub(super) fn changed_outside(&self) -> Option<(DocumentKey, Timestamp)> {
        Some((self.current.key().clone(), self.current.changed_outside()?))
    }

    /// The document's text before and after, if it changes.
    pub(super) fn bytes(&self) -> usize {
        self.change.as_ref().map_or(0, |change| {
            let texts = [change.expected_text(), change.text()];
            texts.into_iter().flatten().map(str::len).sum()
        })
    }
}

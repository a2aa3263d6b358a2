//! Recording what was changed outside this server, before the next write of the document.
//!
//! It is a commit of its own: a document is changed once in a commit, and the write is then computed
//! from the new state like any other. A process that is killed between the two leaves a log that
//! explains what is stored.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::{ContentService, Error, read::in_time};
use crate::{
    deadline::Deadline,
    domain::{
        AuditQuery, Change, Current, DocumentKey, EntryChain, LastKnown, Operation, Origin, Source,
        audit::{MAX_SCANNED_BYTES, MAX_SCANNED_ENTRIES},
    },
    store::StoreError,
};

/// How long reading the history of one document may take.
const HISTORY_TIMEOUT: Duration = Duration::from_secs(3);
/// Entries of the document that are read at once, and how much text of them.
const PAGE_ENTRIES: usize = 100;
const PAGE_BYTES: usize = 1024 * 1024;
/// Why such an entry was written.
const REASON: &str = "found changed outside this server";

/// The origin of such an entry: nobody knows who changed the document.
pub(super) fn adopt_origin(source: Source) -> Origin {
    Origin {
        reason: Some(REASON.to_owned()),
        ..Origin::new(source)
    }
}

impl ContentService {
    /// Records what was changed outside this server in the documents that `changes` were made from.
    /// Returns the first of them, if there is one: then the changes have to be made again, from what
    /// is stored now.
    pub(super) async fn adopt(
        &self,
        changes: &[Change],
        deadline: Deadline,
    ) -> Result<Option<DocumentKey>, Error> {
        let mut first = None;
        for change in changes {
            let current = change.current();
            if current.changed_outside().is_none() {
                continue;
            }
            let origin = adopt_origin(change.entry().source);
            self.adopt_one(current, origin, deadline).await?;
            first.get_or_insert_with(|| current.key().clone());
        }
        Ok(first)
    }

    async fn adopt_one(
        &self,
        current: &Current,
        origin: Origin,
        deadline: Deadline,
    ) -> Result<(), Error> {
        let known = self.last_known(current, deadline).await?;
        let identity = json!({ "adopt": current.key().to_string() });
        let operation = Operation::once(&Uuid::new_v4().to_string(), identity);
        let context = self.write_context(origin, operation.clone());
        let Some(change) = Change::adopt(current, &known, context) else {
            return Ok(());
        };
        let commit = self.commit_in_task(vec![change], operation);
        match in_time(deadline.run(commit).await) {
            // Whatever came of it, the next read shows.
            Ok(_) | Err(StoreError::Conflict | StoreError::OutcomeUnknown(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// What the document was after its newest entry, according to its history. A log that is too long
    /// to find that out in time does not say it.
    pub(super) async fn last_known(
        &self,
        current: &Current,
        deadline: Deadline,
    ) -> Result<LastKnown, Error> {
        let Some(newest) = current.latest_entry() else {
            return Ok(LastKnown::Unknown);
        };
        let deadline = deadline.capped(HISTORY_TIMEOUT);
        let mut chain = EntryChain::from_newest(newest);
        let mut query = AuditQuery {
            max_bytes: PAGE_BYTES,
            ..AuditQuery::of(current.key(), PAGE_ENTRIES)
        };
        while !chain.is_complete()
            && chain.entries() < MAX_SCANNED_ENTRIES
            && chain.bytes() < MAX_SCANNED_BYTES
        {
            let Ok(page) = deadline.run(self.store.audit_entries(&query)).await else {
                break;
            };
            let page = page?;
            page.entries
                .into_iter()
                .for_each(|entry| chain.offer(entry));
            // A search that looked at enough of the log has not found it.
            if page.next.is_none() || page.searched_since.is_some() {
                break;
            }
            query.after = page.next;
        }
        Ok(chain.last_known())
    }
}

//! Who last changed each field of a document.

use std::{sync::Arc, time::Duration};

use super::{
    ContentService, Error,
    read::{READ_TIMEOUT, in_time},
};
use crate::{
    deadline::Deadline,
    domain::{
        AuditQuery, Blame, BlamedField, DocumentKey, FoundDocument, Timestamp,
        audit::{LookedAt, MAX_SCANNED_BYTES, MAX_SCANNED_ENTRIES},
    },
    store::StoreError,
};

/// How long reading may take before what was found is the answer; a page that has begun is waited for
/// until then. The versions are read after it.
const PAGES_TIMEOUT: Duration = Duration::from_millis(3500);
/// Entries that are read at once, and how much text of them.
const PAGE_ENTRIES: usize = 500;
const PAGE_BYTES: usize = 2 * 1024 * 1024;

/// The fields of a document, each with the last entry that changed it.
#[derive(Debug)]
pub struct DocumentBlame {
    /// The fields; none if there is no such document now.
    pub fields: Vec<BlamedField>,
    /// As it is stored now.
    pub found: FoundDocument,
    /// The time of the last entry that was looked at, if there are more.
    pub searched_since: Option<Timestamp>,
}

impl ContentService {
    /// The last entry of each field of a document, or of one field and those above and below it.
    pub async fn blame(
        &self,
        key: &DocumentKey,
        field: Option<&str>,
        deadline: Deadline,
    ) -> Result<DocumentBlame, Error> {
        self.note_use();
        let deadline = deadline.capped(READ_TIMEOUT);
        let found = in_time(deadline.run(self.store.get(key)).await)?;
        let mut blame = match &found.record {
            Some(record) => Blame::of(record.document(), field),
            None => Blame::of(&serde_json::Map::new(), field),
        };
        let mut query = AuditQuery {
            max_bytes: PAGE_BYTES,
            ..AuditQuery::of(key, PAGE_ENTRIES)
        };
        let _permit = self.log_permit(&query, deadline).await?;
        let more_pages = deadline.capped(PAGES_TIMEOUT);
        let (mut looked_at, mut searched_since) = (LookedAt::default(), None);
        while !blame.is_complete() {
            let until = match searched_since {
                None => deadline,
                Some(_) => more_pages,
            };
            let page = match in_time(until.run(self.store.audit_entries(&query)).await) {
                Ok(page) => page,
                Err(StoreError::Unavailable(_)) if searched_since.is_some() => break,
                Err(error) => return Err(error.into()),
            };
            looked_at.entries += page.looked_at.entries;
            looked_at.bytes += page.looked_at.bytes;
            for entry in page.entries {
                blame.look_at(&Arc::new(entry));
            }
            let last = page.next.as_ref();
            searched_since = last.map(|last| Timestamp::from_millis(last.score));
            query.after = page.next;
            if query.after.is_none()
                || page.searched_since.is_some()
                || looked_at.entries >= MAX_SCANNED_ENTRIES
                || looked_at.bytes >= MAX_SCANNED_BYTES
            {
                break;
            }
        }
        Ok(DocumentBlame {
            searched_since: searched_since.filter(|_| !blame.is_complete()),
            fields: blame.into_fields(),
            found,
        })
    }
}

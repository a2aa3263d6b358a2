//! Who last changed each field of a document.

use std::sync::Arc;

use super::{
    ContentService, Error,
    read::{READ_TIMEOUT, in_time},
};
use crate::{
    deadline::Deadline,
    domain::{
        AuditQuery, Blame, BlamedField, DocumentKey, FoundDocument, Timestamp,
        audit::{MAX_SCANNED_BYTES, MAX_SCANNED_ENTRIES},
    },
};

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
        let (mut entries, mut bytes, mut searched_since) = (0, 0, None);
        while !blame.is_complete() {
            let page = in_time(deadline.run(self.store.audit_entries(&query)).await)?;
            query.after = page.next;
            for entry in page.entries {
                (entries, bytes) = (entries + 1, bytes + entry.text().len());
                searched_since = entry.timestamp().or(searched_since);
                blame.look_at(&Arc::new(entry));
            }
            if query.after.is_none() {
                searched_since = None;
                break;
            }
            if entries >= MAX_SCANNED_ENTRIES || bytes >= MAX_SCANNED_BYTES {
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

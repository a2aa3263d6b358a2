//! Changes outside this server: a document whose stored bytes are not those of its newest entry.

use super::{
    audit::{StoredEntry, entry_checksum},
    kind::DocumentKey,
    record::Record,
    timestamp::Timestamp,
};

/// A document as it was read for display.
#[derive(Debug, Clone, Default)]
pub struct FoundDocument {
    /// The document; `None` if there is none.
    pub record: Option<Record>,
    /// The time of its newest entry, if it was changed or deleted outside this server after that.
    pub changed_outside: Option<Timestamp>,
}

/// A document that was changed outside this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutsideChange {
    /// Which document.
    pub key: DocumentKey,
    /// The time of its newest entry.
    pub after: Timestamp,
    /// Whether it is gone.
    pub is_deleted: bool,
}

impl OutsideChange {
    /// What was found at `key`, if it was changed outside this server.
    #[must_use]
    pub fn of(key: &DocumentKey, found: &FoundDocument) -> Option<Self> {
        Some(Self {
            key: key.clone(),
            after: found.changed_outside?,
            is_deleted: found.record.is_none(),
        })
    }
}

/// The time of a document's newest entry, if what is stored is not what that entry left. A document
/// that has no entry of this program was never changed outside it.
#[must_use]
pub fn changed_outside(record: Option<&Record>, latest_entry: Option<&str>) -> Option<Timestamp> {
    let (latest_entry, checksum) = (latest_entry?, record.map(Record::checksum));
    // Every read comes here; to parse the entry would take longer than the rest of it.
    if checksum.is_some() && entry_checksum(latest_entry) == checksum {
        return None;
    }
    let entry = StoredEntry::parse(latest_entry.to_owned());
    entry.timestamp().filter(|_| entry.checksum() != checksum)
}

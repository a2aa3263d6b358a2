//! The state of a document that a change starts from.

use std::sync::Arc;

use super::{
    kind::DocumentKey, outside::changed_outside, record::Record, timestamp::Timestamp,
    version::Version,
};

/// The newest state of a document, or its absence, with the newest audit entry of the document.
///
/// A store's `get_for_update` returns it, and a `Change` can be made from nothing else. A document
/// that was read for display has no newest entry, so a change made from it would break the chain of
/// entries.
#[derive(Debug, Clone)]
pub struct Current {
    key: DocumentKey,
    record: Option<Record>,
    latest_entry: Option<Arc<str>>,
    remembered: bool,
}

impl Current {
    /// The state that a store read. `latest_entry` is the stored text of the document's newest
    /// entry.
    #[must_use]
    pub fn read(
        key: DocumentKey,
        record: Option<Record>,
        latest_entry: Option<impl Into<Arc<str>>>,
    ) -> Self {
        Self {
            key,
            record,
            latest_entry: latest_entry.map(Into::into),
            remembered: false,
        }
    }

    /// The state that a store wrote last, without reading it again.
    #[must_use]
    pub fn remembered(record: Record, latest_entry: Arc<str>) -> Self {
        Self {
            key: record.key().clone(),
            record: Some(record),
            latest_entry: Some(latest_entry),
            remembered: true,
        }
    }

    /// Which document it is.
    #[must_use]
    pub fn key(&self) -> &DocumentKey {
        &self.key
    }

    /// The document; `None` if there is none.
    #[must_use]
    pub fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// The document's version; `None` if there is none.
    #[must_use]
    pub fn version(&self) -> Option<&Version> {
        self.record.as_ref().map(Record::version)
    }

    /// The stored text of the document's newest audit entry.
    #[must_use]
    pub fn latest_entry(&self) -> Option<&str> {
        self.latest_entry.as_deref()
    }

    /// The time of the newest entry, if the document was changed outside this server after that.
    #[must_use]
    pub fn changed_outside(&self) -> Option<Timestamp> {
        changed_outside(self.record(), self.latest_entry())
    }

    /// Whether this is the state that this process wrote last, and not one that was read. A commit
    /// made from it is safe, because the commit compares; any other decision needs the stored
    /// state.
    #[must_use]
    pub fn is_remembered(&self) -> bool {
        self.remembered
    }
}

//! Records that were read before, so that the same bytes are not parsed, hashed and checked again.
//!
//! What is shown is never stale: the store is asked, and a record is used again only for the very bytes that it was made from. A change may
//! be tried on a record as it is remembered, because its commit compares.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use crate::domain::{DocumentKey, Record};

/// So many bytes of stored text are remembered, entries among them; parsed they take a few times as much memory.
const MOST_BYTES: usize = 8 * 1024 * 1024;

/// The records that were read last, roughly.
#[derive(Default)]
pub(super) struct RecordCache(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    records: HashMap<DocumentKey, Record>,
    bytes: usize,
}

impl RecordCache {
    /// The record of `text`, stored at `key`.
    pub(super) fn record(&self, key: DocumentKey, text: String) -> Result<Record, String> {
        if let Some(known) = self.lock().records.get(&key)
            && known.text() == text
        {
            return Ok(known.clone());
        }
        let record = Record::parse(key, text)?;
        self.remember(record.clone());
        Ok(record)
    }

    /// What was last written at `key`, with its audit entry, if nothing else was read there since.
    pub(super) fn recall(&self, key: &DocumentKey) -> Option<Record> {
        self.lock()
            .records
            .get(key)
            .filter(|record| record.latest_entry().is_some())
            .cloned()
    }

    /// Keeps a record for the next time its text is read.
    pub(super) fn remember(&self, record: Record) {
        let mut remembered = self.lock();
        remembered.bytes += size(&record);
        if let Some(old) = remembered.records.insert(record.key().clone(), record) {
            remembered.bytes -= size(&old);
        }
        while remembered.bytes > MOST_BYTES {
            // Whichever comes first: a list reads all documents in turn, so the oldest would be the next one needed.
            let Some(key) = remembered.records.keys().next().cloned() else {
                return;
            };
            if let Some(forgotten) = remembered.records.remove(&key) {
                remembered.bytes -= size(&forgotten);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn size(record: &Record) -> usize {
    record.text().len() + record.latest_entry().map_or(0, str::len)
}

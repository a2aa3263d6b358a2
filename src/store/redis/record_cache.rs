//! Documents that were read or written before, so that the same bytes are not parsed, hashed and
//! checked again.
//!
//! What is shown is never stale: the store is asked, and a cached record is used only for the very
//! bytes that it was made from. A change may be tried on the state that this process wrote last,
//! because its commit compares.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use quick_cache::{Weighter, sync::Cache};

use crate::domain::{Current, DocumentKey, Record};

/// The bytes of stored text that are cached, entries included. Parsed, they take a few times as
/// much memory.
const MAX_BYTES: u64 = 8 * 1024 * 1024;
/// An estimate of the number of documents in these bytes.
const ESTIMATED_DOCUMENTS: usize = 2048;

/// A cache of records, and of the newest entries of those that were written here.
pub(super) struct RecordCache(Cache<DocumentKey, CachedRecord, TextLength>);

#[derive(Clone)]
struct CachedRecord {
    record: Record,
    /// If this process wrote it.
    written: Option<Arc<Written>>,
}

/// A write of this process.
struct Written {
    entry: Arc<str>,
    /// Whether a change was tried on it.
    taken: AtomicBool,
}

#[derive(Clone)]
struct TextLength;

impl Weighter<DocumentKey, CachedRecord> for TextLength {
    fn weight(&self, _: &DocumentKey, cached: &CachedRecord) -> u64 {
        let entry = cached
            .written
            .as_ref()
            .map_or(0, |written| written.entry.len());
        (cached.record.text().len() + entry).max(1) as u64
    }
}

impl Default for RecordCache {
    fn default() -> Self {
        Self(Cache::with_weighter(
            ESTIMATED_DOCUMENTS,
            MAX_BYTES,
            TextLength,
        ))
    }
}

impl RecordCache {
    /// The record of `text`, stored at `key`.
    pub(super) fn parse(&self, key: DocumentKey, text: String) -> Result<Record, String> {
        if let Some(cached) = self.0.get(&key)
            && cached.record.text() == text
        {
            return Ok(cached.record);
        }
        let record = Record::parse(key.clone(), text)?;
        self.insert(key, record.clone(), None);
        Ok(record)
    }

    /// Remembers what was written, with its audit entry.
    pub(super) fn written(&self, record: Record, entry: &str) {
        let written = Written {
            entry: entry.into(),
            taken: AtomicBool::new(false),
        };
        self.insert(record.key().clone(), record, Some(Arc::new(written)));
    }

    /// Forgets a document that was deleted.
    pub(super) fn remove(&self, key: &DocumentKey) {
        self.0.remove(key);
    }

    /// The state that was last written at `key`, if nothing else was read there since; once for
    /// each write.
    pub(super) fn take_written(&self, key: &DocumentKey) -> Option<Current> {
        let CachedRecord { record, written } = self.0.get(key)?;
        let written = written?;
        if written.taken.swap(true, Ordering::Relaxed) {
            return None;
        }
        Some(Current::remembered(record, Arc::clone(&written.entry)))
    }

    fn insert(&self, key: DocumentKey, record: Record, written: Option<Arc<Written>>) {
        self.0.insert(key, CachedRecord { record, written });
    }
}

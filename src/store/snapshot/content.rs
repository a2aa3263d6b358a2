//! The documents of a snapshot.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use quick_cache::{Weighter, sync::Cache};
use tokio::time::Instant;

use crate::{
    domain::{
        DocumentKey, FoundDocument, Kind, ListPage, ListQuery, OutsideChange, Record,
        list::IndexEntry,
    },
    store::{Documents, Revision, StoreError},
};

/// All documents are read again after this time, because some changes leave no trace in the log; or,
/// if there are many, after one second for each [`REREAD_BYTES_PER_SECOND`] of them.
const MIN_REREAD_INTERVAL: Duration = Duration::from_mins(1);
const REREAD_BYTES_PER_SECOND: usize = 100_000;

/// The bytes of text whose documents stay parsed: those that were listed last. Lists are mostly the
/// same ones. Parsed, they take a few times as much memory.
const MAX_PARSED_BYTES: u64 = 2 * 1024 * 1024;
/// An estimate of the number of documents in these bytes.
const ESTIMATED_PARSED: usize = 512;

/// All documents at one revision.
#[derive(Debug, Clone)]
pub(super) struct Content {
    revision: Revision,
    documents: BTreeMap<DocumentKey, Arc<SnapshotDocument>>,
    parsed: Arc<Parsed>,
    unreadable: Vec<(Kind, String)>,
    /// What was changed outside this server.
    changed_outside: BTreeMap<DocumentKey, OutsideChange>,
    /// Why a kind could not be read.
    failed: Vec<(Kind, String)>,
    /// How many ids in the index have no document.
    absent: u64,
    /// When reading all documents began.
    read_at: Instant,
    /// After which time they are read again.
    reread_interval: Duration,
}

/// The text of a document, and what lists need of it. Parsed, it would take several times as much
/// memory.
#[derive(Debug)]
struct SnapshotDocument {
    text: String,
    index: IndexEntry,
}

/// Documents that were listed lately, so that they are not parsed, hashed and checked again.
#[derive(Debug)]
struct Parsed(Cache<DocumentKey, Record, TextLength>);

#[derive(Clone)]
struct TextLength;

impl Weighter<DocumentKey, Record> for TextLength {
    fn weight(&self, _: &DocumentKey, record: &Record) -> u64 {
        record.text().len().max(1) as u64
    }
}

impl Default for Parsed {
    fn default() -> Self {
        Self(Cache::with_weighter(
            ESTIMATED_PARSED,
            MAX_PARSED_BYTES,
            TextLength,
        ))
    }
}

/// What was read of one kind.
#[derive(Debug, Default)]
pub(super) struct KindContent {
    documents: BTreeMap<DocumentKey, Arc<SnapshotDocument>>,
    unreadable: Vec<String>,
    changed_outside: Vec<OutsideChange>,
    failed: Option<String>,
}

impl KindContent {
    pub(super) fn failed(problem: String) -> Self {
        Self {
            failed: Some(problem),
            ..Self::default()
        }
    }

    pub(super) fn add(&mut self, found: Documents) {
        self.documents.extend(found.records.iter().map(indexed));
        self.unreadable.extend(found.unreadable);
        self.changed_outside.extend(found.changed_outside);
    }
}

impl Content {
    /// What was read of each of [`Kind::ALL`], beginning at `read_at`, after `revision` was.
    pub(super) fn new(revision: Revision, kinds: Vec<KindContent>, read_at: Instant) -> Self {
        let mut content = Self {
            revision,
            documents: BTreeMap::new(),
            parsed: Arc::default(),
            unreadable: Vec::new(),
            changed_outside: BTreeMap::new(),
            failed: Vec::new(),
            absent: 0,
            read_at,
            reread_interval: MIN_REREAD_INTERVAL,
        };
        for (kind, found) in Kind::ALL.into_iter().zip(kinds) {
            let named = |problem| (kind, problem);
            content.documents.extend(found.documents);
            content
                .unreadable
                .extend(found.unreadable.into_iter().map(named));
            content
                .changed_outside
                .extend(found.changed_outside.into_iter().map(by_key));
            content.failed.extend(found.failed.map(named));
        }
        content.absent = content
            .counted_by_store()
            .saturating_sub(content.counted_here());
        let bytes: usize = content
            .documents
            .values()
            .map(|document| document.text.len())
            .sum();
        let seconds = (bytes / REREAD_BYTES_PER_SECOND) as u64;
        content.reread_interval = MIN_REREAD_INTERVAL.max(Duration::from_secs(seconds));
        content
    }

    pub(super) fn revision(&self) -> &Revision {
        &self.revision
    }

    /// How long until the documents have to be read again.
    pub(super) fn fresh_for(&self) -> Duration {
        self.reread_interval.saturating_sub(self.read_at.elapsed())
    }

    pub(super) fn is_expired(&self) -> bool {
        self.fresh_for().is_zero()
    }

    /// Why a kind could not be read, if one could not.
    pub(super) fn problem(&self) -> Result<(), StoreError> {
        match self.failed.first() {
            Some((_, problem)) => Err(StoreError::Failed(problem.clone())),
            None => Ok(()),
        }
    }

    pub(super) fn found(&self, key: &DocumentKey) -> Option<FoundDocument> {
        let outside = self.changed_outside.get(key);
        Some(FoundDocument {
            record: Some(self.get(key)?),
            changed_outside: outside.map(|change| change.after),
        })
    }

    /// The documents that were here and are not in `next`, and those that were found deleted outside
    /// this server.
    pub(super) fn gone_in(&self, next: &Self) -> Vec<DocumentKey> {
        let deleted = self.changed_outside.values();
        let deleted = deleted.filter(|change| change.is_deleted);
        let known = self.documents.keys();
        known
            .chain(deleted.map(|change| &change.key))
            .filter(|key| !next.documents.contains_key(*key))
            .filter(|key| !next.changed_outside.contains_key(*key))
            .filter(|key| !next.failed.iter().any(|(kind, _)| *kind == key.kind))
            .cloned()
            .collect()
    }

    /// Adds the deletions among some changes outside this server.
    pub(super) fn add_deleted_outside(&mut self, found: Vec<OutsideChange>) {
        let deleted = found.into_iter().filter(|change| change.is_deleted);
        self.changed_outside.extend(deleted.map(by_key));
    }

    pub(super) fn count_changed_outside(&self) -> usize {
        self.changed_outside.len()
    }

    fn get(&self, key: &DocumentKey) -> Option<Record> {
        let text = &self.documents.get(key)?.text;
        if let Some(record) = self.parsed.0.get(key)
            && record.text() == text
        {
            return Some(record);
        }
        let record = Record::parse(key.clone(), text.clone()).ok()?;
        self.parsed.0.insert(key.clone(), record.clone());
        Some(record)
    }

    pub(super) fn ids(&self, kind: Kind) -> impl Iterator<Item = &str> {
        self.of(kind).map(|(key, _)| key.id.as_str())
    }

    pub(super) fn list(&self, kind: Kind, query: &ListQuery) -> Result<ListPage, StoreError> {
        if let Some((_, problem)) = self.failed.iter().find(|(failed, _)| *failed == kind) {
            return Err(StoreError::Failed(problem.clone()));
        }
        let found = query.page(self.of(kind).map(|(_, document)| &document.index));
        let records = found
            .positions
            .into_iter()
            .filter_map(|position| self.get(&DocumentKey::new(kind, position.id)))
            .collect();
        let unreadable = self
            .unreadable
            .iter()
            .filter(|(of, _)| *of == kind)
            .map(|(_, problem)| problem.clone())
            .collect();
        Ok(ListPage {
            records,
            total: found.total,
            next: found.next,
            unreadable,
            changed_outside: self
                .changed_outside
                .values()
                .filter(|change| change.key.kind == kind)
                .cloned()
                .collect(),
        })
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = (&DocumentKey, &Arc<SnapshotDocument>)> {
        self.documents
            .iter()
            .filter(move |(key, _)| key.kind == kind)
    }

    /// These documents, some of them changed; `None` if their number is not the store's.
    pub(super) fn followed_by(
        &self,
        revision: Revision,
        changed: impl Iterator<Item = (DocumentKey, Option<Record>)>,
        changed_outside: Vec<OutsideChange>,
    ) -> Option<Self> {
        let mut content = Self {
            revision,
            ..self.clone()
        };
        for (key, record) in changed {
            content.changed_outside.remove(&key);
            match record {
                Some(record) => content.documents.extend([indexed(&record)]),
                None => drop(content.documents.remove(&key)),
            }
        }
        content
            .changed_outside
            .extend(changed_outside.into_iter().map(by_key));
        (content.counted_here() == content.counted_by_store()).then_some(content)
    }

    fn counted_by_store(&self) -> u64 {
        self.revision.documents.iter().sum()
    }

    fn counted_here(&self) -> u64 {
        (self.documents.len() + self.unreadable.len()) as u64 + self.absent
    }
}

fn by_key(change: OutsideChange) -> (DocumentKey, OutsideChange) {
    (change.key.clone(), change)
}

fn indexed(record: &Record) -> (DocumentKey, Arc<SnapshotDocument>) {
    let document = SnapshotDocument {
        text: record.text().to_owned(),
        index: record.index_entry().clone(),
    };
    (record.key().clone(), Arc::new(document))
}

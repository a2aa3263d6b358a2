//! A copy of a distant store in this process: it answers lists without reading every document again, and everything that only
//! reads while the store is away.
//!
//! The log tells what was written since: its numbers are asked first, and only documents that they name are read again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::try_join_all;
use tokio::time::Instant;
use tracing::debug;

use super::{Purpose, Repository, Revision, StoreError};
use crate::domain::{
    AuditPage, AuditQuery, AuditStats, DocumentKey, Kind, ListPage, ListQuery, Record, StoredEntry,
    list::IndexEntry,
};

/// So many of the newest audit entries are kept.
const ENTRIES: usize = 1000;
/// More writes than these are not followed one by one: everything is read again.
const FOLLOWED: u64 = 100;
/// So many entries may come in while the log is read.
const SLACK: u64 = 10;
/// Everything is read again after this time and one more second for each 100 kB of it, because some changes leave no trace in the log.
const LEAST_AGE: Duration = Duration::from_secs(5);
const BYTES_PER_SECOND: usize = 100_000;

/// Keeps the copy of one store.
pub struct SnapshotCache {
    store: Arc<dyn Repository>,
    copy: Mutex<Option<Snapshot>>,
    /// Held by whoever asks the store; the others wait for what it brings.
    asking: tokio::sync::Mutex<()>,
    reloading: AtomicBool,
}

/// What the store held when it was last asked. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Snapshot {
    held: Arc<SnapshotData>,
    /// When the store last said that nothing had changed.
    confirmed: Instant,
}

#[derive(Debug, Clone)]
struct SnapshotData {
    revision: Revision,
    /// The documents: their texts, and what lists need. Parsed, they would take several times as much memory.
    documents: BTreeMap<DocumentKey, Arc<(String, IndexEntry)>>,
    unreadable: Vec<(Kind, String)>,
    /// Ids in the index whose documents are gone.
    absent: u64,
    /// Newest first.
    entries: Vec<StoredEntry>,
    stats: AuditStats,
    /// When everything was read.
    loaded: Instant,
}

impl SnapshotCache {
    /// A copy of `store` that is still empty.
    pub(super) fn of(store: Arc<dyn Repository>) -> Self {
        Self {
            store,
            copy: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            reloading: AtomicBool::new(false),
        }
    }

    /// The last copy, however old; `None` if there was none yet.
    #[must_use]
    pub fn last(&self) -> Option<Snapshot> {
        self.copy
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// A copy of what the store holds now. What was begun for it is finished, even if the caller has no time to wait.
    pub async fn current(self: &Arc<Self>) -> Result<Snapshot, StoreError> {
        let (snapshot, asked) = (Arc::clone(self), Instant::now());
        tokio::spawn(async move { snapshot.since(asked).await })
            .await
            .unwrap_or_else(|_| Err(StoreError::ended()))
    }

    async fn since(self: &Arc<Self>, asked: Instant) -> Result<Snapshot, StoreError> {
        let _turn = self.asking.lock().await;
        let last = self.last();
        if let Some(copy) = &last
            && copy.confirmed >= asked
        {
            return Ok(copy.clone()); // whoever had the turn before asked the store for us too
        }
        let confirmed = Instant::now();
        // Asked before anything is read: what is written meanwhile shows the next time.
        let revision = self.store.revision().await?;
        let held = match &last {
            Some(copy) if copy.held.revision == revision => Arc::clone(&copy.held),
            Some(copy) => match self.follow(&copy.held, revision).await? {
                Some(held) => Arc::new(held),
                None => Arc::new(self.load(revision).await?),
            },
            None => Arc::new(self.load(revision).await?),
        };
        if held.is_old() {
            self.reload();
        }
        Ok(self.keep(Snapshot { held, confirmed }))
    }

    fn keep(&self, mut copy: Snapshot) -> Snapshot {
        let mut kept = self.copy.lock().unwrap_or_else(PoisonError::into_inner);
        // Everything may have been read anew in the meantime.
        if let Some(other) = kept.as_ref().filter(|other| {
            other.held.revision == copy.held.revision && other.held.loaded > copy.held.loaded
        }) {
            copy.held = Arc::clone(&other.held);
        }
        *kept = Some(copy.clone());
        copy
    }

    /// Reads everything again while the copy goes on answering.
    fn reload(self: &Arc<Self>) {
        if self.reloading.swap(true, Ordering::AcqRel) {
            return;
        }
        let snapshot = Arc::clone(self);
        tokio::spawn(async move {
            let confirmed = Instant::now();
            let read = async { snapshot.load(snapshot.store.revision().await?).await };
            match read.await {
                Ok(held) => drop(snapshot.keep(Snapshot {
                    held: Arc::new(held),
                    confirmed,
                })),
                Err(error) => debug!("the saved copy could not be read anew: {error}"),
            }
            snapshot.reloading.store(false, Ordering::Release);
        });
    }

    /// Reads everything.
    async fn load(&self, revision: Revision) -> Result<SnapshotData, StoreError> {
        let loaded = Instant::now();
        let newest = AuditQuery {
            limit: ENTRIES,
            ..AuditQuery::default()
        };
        let all = try_join_all(Kind::ALL.map(|kind| self.store.all(kind)));
        let (all, mut page, stats) = tokio::try_join!(
            all,
            self.store.audit_entries(&newest),
            self.store.audit_stats()
        )?;
        // Thousands of documents take longer to prepare for lists than other calls should wait.
        let sorted = tokio::task::spawn_blocking(move || {
            // What was written since the pulse is told by the next one.
            page.entries
                .retain(|entry| entry.seq().is_none_or(|seq| seq <= revision.seq));
            let (mut documents, mut unreadable) = (BTreeMap::new(), Vec::new());
            for (kind, found) in Kind::ALL.into_iter().zip(all) {
                documents.extend(found.records.iter().map(kept));
                unreadable.extend(found.unreadable.into_iter().map(|problem| (kind, problem)));
            }
            (documents, unreadable, page.entries)
        });
        let (documents, unreadable, entries) = sorted.await.map_err(|_| StoreError::ended())?;
        let mut held = SnapshotData {
            revision,
            documents,
            unreadable,
            absent: 0,
            entries,
            stats,
            loaded,
        };
        held.absent = held.indexed().saturating_sub(held.counted());
        Ok(held)
    }

    /// Reads what was written since `last`; `None` if the log does not tell all of it.
    async fn follow(
        &self,
        last: &SnapshotData,
        revision: Revision,
    ) -> Result<Option<SnapshotData>, StoreError> {
        let (Some(writes), Some(added)) = (
            revision.seq.checked_sub(last.revision.seq),
            revision.entries.checked_sub(last.revision.entries),
        ) else {
            return Ok(None);
        };
        if writes > FOLLOWED || added != writes {
            return Ok(None); // entries without a number, such as older programs add, need not be the newest ones
        }
        // Some more, because others go on writing meanwhile; what they write is told by the next pulse.
        let limit = usize::try_from(writes + SLACK).unwrap_or(ENTRIES);
        let query = AuditQuery {
            limit,
            ..AuditQuery::default()
        };
        let (page, stats) =
            tokio::try_join!(self.store.audit_entries(&query), self.store.audit_stats())?;
        let told = |entry: &StoredEntry| {
            entry
                .seq()
                .is_some_and(|seq| seq > last.revision.seq && seq <= revision.seq)
        };
        let entries: Vec<StoredEntry> = page.entries.into_iter().filter(told).collect();
        if entries.len() as u64 != writes {
            return Ok(None);
        }
        let changed: BTreeSet<DocumentKey> = entries.iter().filter_map(StoredEntry::key).collect();
        let records = match try_join_all(
            changed
                .iter()
                .map(async |key| self.store.get(key, Purpose::Show).await),
        )
        .await
        {
            // It has a place among the documents that cannot be read.
            Err(StoreError::Corrupt { .. }) => return Ok(None),
            records => records?,
        };
        let mut held = SnapshotData {
            revision,
            stats,
            ..last.clone()
        };
        for (key, record) in changed.into_iter().zip(records) {
            match record {
                Some(record) => held.documents.extend([kept(&record)]),
                None => drop(held.documents.remove(&key)),
            }
        }
        held.entries.splice(0..0, entries);
        held.entries.truncate(ENTRIES);
        Ok((held.counted() == held.indexed()).then_some(held))
    }
}

fn kept(record: &Record) -> (DocumentKey, Arc<(String, IndexEntry)>) {
    (
        record.key().clone(),
        Arc::new((record.text().to_owned(), record.index_entry().clone())),
    )
}

impl Snapshot {
    /// How long ago the store confirmed it.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.confirmed.elapsed()
    }

    /// A document; `None` if there was none.
    #[must_use]
    pub fn get(&self, key: &DocumentKey) -> Option<Record> {
        let kept = self.held.documents.get(key)?;
        Record::parse(key.clone(), kept.0.clone()).ok()
    }

    /// A page of the documents of a kind.
    #[must_use]
    pub fn list(&self, kind: Kind, query: &ListQuery) -> ListPage {
        let of_kind = self
            .held
            .documents
            .iter()
            .filter(|(key, _)| key.kind == kind);
        let (places, total, next) = query.page(of_kind.map(|(_, kept)| &kept.1));
        let records = places
            .into_iter()
            .filter_map(|place| self.get(&DocumentKey::new(kind, place.id)))
            .collect();
        let unreadable = self
            .held
            .unreadable
            .iter()
            .filter(|(of, _)| *of == kind)
            .map(|(_, problem)| problem.clone())
            .collect();
        ListPage {
            records,
            total,
            next,
            unreadable,
        }
    }

    /// A page of the log, which ends where the copy does.
    #[must_use]
    pub fn audit_entries(&self, query: &AuditQuery) -> AuditPage {
        let entries = &self.held.entries;
        let begin = query.after.as_ref().map_or(0, |place| {
            match entries
                .iter()
                .position(|entry| entry.digest() == place.digest)
            {
                Some(at) => at + 1,
                None => entries
                    .iter()
                    .take_while(|entry| entry.position().score >= place.score)
                    .count(),
            }
        });
        let in_time = |entry: &&StoredEntry| {
            let millis = entry.position().score;
            query
                .since
                .is_none_or(|since| millis >= since.millis_ceil())
                && query.until.is_none_or(|until| millis < until.millis_ceil())
        };
        let mut matching = entries
            .iter()
            .skip(begin)
            .filter(in_time)
            .filter(|entry| query.matches(entry))
            .cloned();
        let entries: Vec<StoredEntry> = matching.by_ref().take(query.limit).collect();
        let next = if matching.next().is_some() {
            entries.last().map(StoredEntry::position)
        } else {
            None
        };
        AuditPage { entries, next }
    }

    /// The log in numbers, with its newest entries.
    #[must_use]
    pub fn audit_stats(&self) -> (AuditStats, Vec<StoredEntry>) {
        (
            self.held.stats.clone(),
            self.held.entries.iter().take(10).cloned().collect(),
        )
    }
}

impl SnapshotData {
    fn is_old(&self) -> bool {
        let seconds = self
            .documents
            .values()
            .map(|kept| kept.0.len())
            .sum::<usize>()
            / BYTES_PER_SECOND;
        self.loaded.elapsed() > LEAST_AGE + Duration::from_secs(seconds as u64)
    }

    /// How many documents there are, as the store says, and as they are known here.
    fn indexed(&self) -> u64 {
        self.revision.documents.iter().sum()
    }

    fn counted(&self) -> u64 {
        (self.documents.len() + self.unreadable.len()) as u64 + self.absent
    }
}

//! A copy of a distant store in this process. It answers lists without reading every document
//! again, and all reads during an outage.
//!
//! The audit log tells what was written since: the store's revision is read first, and then only
//! documents that new entries name.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::try_join_all;
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::{Documents, Revision, SnapshotSource, StoreError};
use crate::domain::{
    AuditPage, AuditQuery, AuditStats, DocumentKey, Kind, ListPage, ListQuery, Record, StoredEntry,
    list::IndexEntry,
};

/// How many of the newest audit entries the snapshot holds.
const MAX_ENTRIES: usize = 1000;
/// More writes than these are not followed one by one: everything is read again.
const MAX_FOLLOWED_WRITES: u64 = 100;
/// How many more entries than expected are read, because others go on writing.
const EXTRA_ENTRIES: u64 = 10;
/// Everything is read again after this time, and one more second for each
/// [`RELOAD_BYTES_PER_SECOND`] of it, because some changes leave no trace in the log.
const MIN_RELOAD_INTERVAL: Duration = Duration::from_secs(5);
const RELOAD_BYTES_PER_SECOND: usize = 100_000;
/// How many of the newest entries the statistics show.
const RECENT_ENTRIES: usize = 10;

/// The first refresh waits this long: the first call goes first.
const FIRST_REFRESH_DELAY: Duration = Duration::from_millis(250);
/// How often the snapshot is compared with the store while calls arrive.
const REFRESH_INTERVAL: Duration = Duration::from_mins(1);
/// After this many intervals it is compared although no call arrived.
const IDLE_INTERVALS: u32 = 5;
/// How soon a failed comparison is repeated.
const FAILED_REFRESH_INTERVAL: Duration = Duration::from_secs(5);
/// How soon after a write of ours the snapshot includes it, and how often at most.
const OWN_WRITE_DELAY: Duration = Duration::from_secs(3);

/// Keeps the snapshot of one store.
pub struct SnapshotCache {
    store: Arc<dyn SnapshotSource>,
    snapshot: Mutex<Option<Snapshot>>,
    /// Single flight: one task asks the store, the others wait for its result.
    refreshing: tokio::sync::Mutex<()>,
    reloading: AtomicBool,
    /// Whether a call arrived since the last comparison.
    used: AtomicBool,
    /// Whether a refresh after a write of ours is due.
    own_write_pending: AtomicBool,
}

/// What the store held when it was last asked. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Snapshot {
    data: Arc<SnapshotData>,
    /// When the store last confirmed it.
    confirmed: Instant,
}

#[derive(Debug, Clone)]
struct SnapshotData {
    revision: Revision,
    documents: BTreeMap<DocumentKey, Arc<SnapshotDocument>>,
    unreadable: Vec<(Kind, String)>,
    /// How many ids in the index have no document.
    absent: u64,
    /// Newest first.
    entries: Vec<StoredEntry>,
    stats: AuditStats,
    /// When everything was read.
    loaded: Instant,
}

/// The text of a document, and what lists need of it. Parsed, it would take several times as much
/// memory.
#[derive(Debug)]
struct SnapshotDocument {
    text: String,
    index: IndexEntry,
}

impl SnapshotCache {
    /// An empty cache of `store`.
    pub(super) fn new(store: Arc<dyn SnapshotSource>) -> Self {
        Self {
            store,
            snapshot: Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
            reloading: AtomicBool::new(false),
            used: AtomicBool::new(false),
            own_write_pending: AtomicBool::new(false),
        }
    }

    /// Keeps the snapshot ready for an outage; never ends.
    pub async fn run_refresh(self: &Arc<Self>) {
        let mut rounds = 0;
        sleep(FIRST_REFRESH_DELAY).await;
        loop {
            let pause = match self.current().await {
                Ok(_) => REFRESH_INTERVAL,
                Err(_) => FAILED_REFRESH_INTERVAL, // the store logged the error
            };
            sleep(pause).await;
            rounds += 1;
            // Every comparison is billed, and most servers of desktop clients are idle most of the
            // time.
            while !self.used.swap(false, Ordering::Relaxed)
                && pause == REFRESH_INTERVAL
                && rounds % IDLE_INTERVALS != 0
            {
                sleep(REFRESH_INTERVAL).await;
                rounds += 1;
            }
        }
    }

    /// Notes that a call arrived.
    pub fn note_use(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    /// Refreshes the snapshot soon after a write of ours, so that an outage does not undo the write
    /// for readers.
    pub fn note_write(self: &Arc<Self>) {
        if self.own_write_pending.swap(true, Ordering::Relaxed) {
            return;
        }
        let cache = Arc::clone(self);
        tokio::spawn(async move {
            sleep(OWN_WRITE_DELAY).await;
            cache.own_write_pending.store(false, Ordering::Relaxed);
            let _ = cache.current().await; // the store logged the error
        });
    }

    /// The last snapshot, however old; `None` if there was none yet.
    #[must_use]
    pub fn last(&self) -> Option<Snapshot> {
        self.snapshot
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// A snapshot of what the store holds now. The refresh goes on if the caller has no time to
    /// wait.
    pub async fn current(self: &Arc<Self>) -> Result<Snapshot, StoreError> {
        let (cache, asked) = (Arc::clone(self), Instant::now());
        tokio::spawn(async move { cache.confirmed_since(asked).await })
            .await
            .unwrap_or_else(|_| Err(StoreError::panicked()))
    }

    async fn confirmed_since(self: &Arc<Self>, asked: Instant) -> Result<Snapshot, StoreError> {
        let _turn = self.refreshing.lock().await;
        let last = self.last();
        if let Some(snapshot) = &last
            && snapshot.confirmed >= asked
        {
            return Ok(snapshot.clone()); // the task before this one asked the store for us too
        }
        let confirmed = Instant::now();
        // Read before everything else: what is written meanwhile shows the next time.
        let revision = self.store.revision().await?;
        let data = match &last {
            Some(snapshot) if snapshot.data.revision == revision => Arc::clone(&snapshot.data),
            Some(snapshot) => match self.follow(&snapshot.data, &revision).await? {
                Some(data) => Arc::new(data),
                None => Arc::new(self.load(revision).await?),
            },
            None => Arc::new(self.load(revision).await?),
        };
        if data.is_old() {
            self.reload();
        }
        Ok(self.keep(Snapshot { data, confirmed }))
    }

    fn keep(&self, mut snapshot: Snapshot) -> Snapshot {
        let mut current = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        // Everything may have been read again in the meantime.
        if let Some(other) = current.as_ref().filter(|other| {
            other.data.revision == snapshot.data.revision
                && other.data.loaded > snapshot.data.loaded
        }) {
            snapshot.data = Arc::clone(&other.data);
        }
        *current = Some(snapshot.clone());
        snapshot
    }

    /// Reads everything again while the snapshot goes on answering.
    fn reload(self: &Arc<Self>) {
        if self.reloading.swap(true, Ordering::AcqRel) {
            return;
        }
        let cache = Arc::clone(self);
        tokio::spawn(async move {
            let confirmed = Instant::now();
            let read = async { cache.load(cache.store.revision().await?).await };
            match read.await {
                Ok(data) => {
                    let data = Arc::new(data);
                    cache.keep(Snapshot { data, confirmed });
                }
                Err(error) => debug!("could not reload the snapshot: {error}"),
            }
            cache.reloading.store(false, Ordering::Release);
        });
    }

    /// Reads everything.
    async fn load(&self, revision: Revision) -> Result<SnapshotData, StoreError> {
        let loaded = Instant::now();
        let newest = AuditQuery {
            limit: MAX_ENTRIES,
            ..AuditQuery::default()
        };
        let all = try_join_all(Kind::ALL.map(|kind| self.store.load(kind)));
        let (all, page, stats) = tokio::try_join!(
            all,
            self.store.audit_entries(&newest),
            self.store.audit_stats()
        )?;
        // Thousands of documents take longer to prepare for lists than other calls should wait.
        let newest_seq = revision.state.seq;
        let prepared = tokio::task::spawn_blocking(move || {
            let mut entries = page.entries;
            // The next revision tells what was written since this one.
            entries.retain(|entry| entry.seq().is_none_or(|seq| seq <= newest_seq));
            SnapshotData::new(revision, all, entries, stats, loaded)
        });
        prepared.await.map_err(|_| StoreError::panicked())
    }

    /// Reads what was written since `last`; `None` if the log does not show all of it, or has another
    /// history.
    async fn follow(
        &self,
        last: &SnapshotData,
        revision: &Revision,
    ) -> Result<Option<SnapshotData>, StoreError> {
        let (Some(writes), Some(added)) = (
            revision.state.seq.checked_sub(last.revision.state.seq),
            revision.entries.checked_sub(last.revision.entries),
        ) else {
            return Ok(None);
        };
        if writes > MAX_FOLLOWED_WRITES || added != writes {
            return Ok(None); // entries without a number, such as older programs add, need not be the newest ones
        }
        // One more, to find the entry that was the newest one before.
        let query = AuditQuery {
            limit: usize::try_from(writes + 1 + EXTRA_ENTRIES).unwrap_or(MAX_ENTRIES),
            ..AuditQuery::default()
        };
        let (page, stats) =
            tokio::try_join!(self.store.audit_entries(&query), self.store.audit_stats())?;
        let Some(new) = entries_since(last.entries.first(), page.entries) else {
            return Ok(None);
        };
        let range = last.revision.state.seq + 1..=revision.state.seq;
        let is_new = |entry: &StoredEntry| entry.seq().is_some_and(|seq| range.contains(&seq));
        let entries: Vec<StoredEntry> = new.into_iter().filter(is_new).collect();
        if entries.len() as u64 != writes {
            return Ok(None);
        }
        let changed: BTreeSet<DocumentKey> = entries.iter().filter_map(StoredEntry::key).collect();
        let records = try_join_all(changed.iter().map(async |key| self.store.get(key).await)).await;
        let records = match records {
            // It belongs to the documents that cannot be read, which `load` explains.
            Err(StoreError::Corrupt { .. }) => return Ok(None),
            records => records?,
        };
        let changed = changed.into_iter().zip(records);
        Ok(last.followed_by(revision.clone(), changed, entries, stats))
    }
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
        let document = self.data.documents.get(key)?;
        Record::parse(key.clone(), document.text.clone()).ok()
    }

    /// The ids of a kind's documents.
    pub fn ids(&self, kind: Kind) -> impl Iterator<Item = &str> {
        self.documents(kind).map(|(key, _)| key.id.as_str())
    }

    fn documents(
        &self,
        kind: Kind,
    ) -> impl Iterator<Item = (&DocumentKey, &Arc<SnapshotDocument>)> {
        self.data
            .documents
            .iter()
            .filter(move |(key, _)| key.kind == kind)
    }

    /// A page of the documents of a kind.
    #[must_use]
    pub fn list(&self, kind: Kind, query: &ListQuery) -> ListPage {
        let found = query.page(self.documents(kind).map(|(_, document)| &document.index));
        let records = found
            .positions
            .into_iter()
            .filter_map(|position| self.get(&DocumentKey::new(kind, position.id)))
            .collect();
        let unreadable = self
            .data
            .unreadable
            .iter()
            .filter(|(of, _)| *of == kind)
            .map(|(_, problem)| problem.clone())
            .collect();
        ListPage {
            records,
            total: found.total,
            next: found.next,
            unreadable,
        }
    }

    /// A page of the log, which ends where the snapshot does.
    #[must_use]
    pub fn audit_entries(&self, query: &AuditQuery) -> AuditPage {
        let entries = &self.data.entries;
        let begin = query.after.as_ref().map_or(0, |position| {
            match entries
                .iter()
                .position(|entry| entry.digest() == position.digest)
            {
                Some(at) => at + 1,
                None => entries
                    .iter()
                    .take_while(|entry| entry.position().score >= position.score)
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
        AuditPage {
            entries,
            next,
            searched_since: None,
        }
    }

    /// The log in numbers, with its newest entries.
    #[must_use]
    pub fn audit_stats(&self) -> (AuditStats, Vec<StoredEntry>) {
        (
            self.data.stats.clone(),
            self.data
                .entries
                .iter()
                .take(RECENT_ENTRIES)
                .cloned()
                .collect(),
        )
    }
}

impl SnapshotData {
    fn new(
        revision: Revision,
        all: Vec<Documents>,
        entries: Vec<StoredEntry>,
        stats: AuditStats,
        loaded: Instant,
    ) -> Self {
        let (mut documents, mut unreadable) = (BTreeMap::new(), Vec::new());
        for (kind, found) in Kind::ALL.into_iter().zip(all) {
            documents.extend(found.records.iter().map(indexed));
            unreadable.extend(found.unreadable.into_iter().map(|problem| (kind, problem)));
        }
        let mut data = Self {
            revision,
            documents,
            unreadable,
            absent: 0,
            entries,
            stats,
            loaded,
        };
        data.absent = data.counted_by_store().saturating_sub(data.counted_here());
        data
    }

    /// This state and what was written since; `None` if the number of documents is not the store's.
    fn followed_by(
        &self,
        revision: Revision,
        changed: impl Iterator<Item = (DocumentKey, Option<Record>)>,
        entries: Vec<StoredEntry>,
        stats: AuditStats,
    ) -> Option<Self> {
        let mut data = Self {
            revision,
            stats,
            ..self.clone()
        };
        for (key, record) in changed {
            match record {
                Some(record) => data.documents.extend([indexed(&record)]),
                None => drop(data.documents.remove(&key)),
            }
        }
        data.entries.splice(0..0, entries);
        data.entries.truncate(MAX_ENTRIES);
        (data.counted_here() == data.counted_by_store()).then_some(data)
    }

    fn is_old(&self) -> bool {
        let bytes: usize = self
            .documents
            .values()
            .map(|document| document.text.len())
            .sum();
        let seconds = (bytes / RELOAD_BYTES_PER_SECOND) as u64;
        self.loaded.elapsed() > MIN_RELOAD_INTERVAL + Duration::from_secs(seconds)
    }

    fn counted_by_store(&self) -> u64 {
        self.revision.documents.iter().sum()
    }

    fn counted_here(&self) -> u64 {
        (self.documents.len() + self.unreadable.len()) as u64 + self.absent
    }
}

/// The entries of a page, newest first, that came after `known`; `None` if the page does not reach
/// back to it, which another history never does.
fn entries_since(known: Option<&StoredEntry>, page: Vec<StoredEntry>) -> Option<Vec<StoredEntry>> {
    let Some(known) = known else {
        return Some(page);
    };
    let position = page.iter().position(|entry| entry == known)?;
    Some(page.into_iter().take(position).collect())
}

fn indexed(record: &Record) -> (DocumentKey, Arc<SnapshotDocument>) {
    let document = SnapshotDocument {
        text: record.text().to_owned(),
        index: record.index_entry().clone(),
    };
    (record.key().clone(), Arc::new(document))
}

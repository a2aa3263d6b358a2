//! A copy of a distant store in this process. It answers lists without reading every document
//! again, and all reads during an outage.
//!
//! The store's revision tells whether anything was written. What this process wrote itself is known,
//! and what others wrote is read from the audit log, if the history proves that nothing else
//! happened in between. Edits without a trace in the log are found by reading all documents again
//! from time to time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use super::{Revision, SnapshotSource, StoreError, load::load};
use crate::domain::{
    AuditPage, AuditQuery, AuditStats, Change, DocumentKey, FoundDocument, History, Kind, ListPage,
    ListQuery, OutsideChange, Record, StoredEntry,
};

mod content;
mod log_tail;
mod own_writes;
mod problem;

use content::{Content, KindContent};
use log_tail::LogTail;
use own_writes::{OwnWrite, OwnWrites};
use problem::Problem;

/// More writes of others than these are not followed one by one: all documents are read again.
const MAX_FOLLOWED_WRITES: usize = 100;
/// Nor are entries that are larger together.
const MAX_FOLLOWED_BYTES: usize = 1024 * 1024;
/// While others write, the store is asked this many times for what they wrote.
const MAX_STEPS: usize = 3;
/// How many more entries than expected are read, because others go on writing.
const EXTRA_ENTRIES: usize = 4;
/// How long a reader waits for documents that have to be read again. If they take longer, they are
/// for the next one.
const EXPIRED_TIMEOUT: Duration = Duration::from_secs(3);

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
    own_writes: OwnWrites,
    /// Single flight: one task asks the store, the others wait for its result.
    refreshing: tokio::sync::Mutex<()>,
    /// The same for reading all documents again; when that was last tried.
    rereading: tokio::sync::Mutex<Option<Instant>>,
    /// Whether a call arrived since the last comparison.
    used: AtomicBool,
    /// Whether a refresh after a write of ours is due.
    own_write_pending: AtomicBool,
    /// Whether the log will soon be read because it could not be followed.
    log_read_pending: AtomicBool,
    content_problem: Problem,
    log_problem: Problem,
}

/// What the store held when it was last asked. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Snapshot {
    content: Arc<Content>,
    /// Absent until it was read, and behind the documents after writes that could not be followed.
    log: Option<Arc<LogTail>>,
    /// When the store last confirmed it.
    confirmed: Instant,
    /// Whether its documents are known to be of its revision. Otherwise others were writing, and some
    /// may be newer, so it must not be taken for the state of that revision.
    consistent: bool,
}

impl SnapshotCache {
    /// An empty cache of `store`.
    pub(super) fn new(store: Arc<dyn SnapshotSource>) -> Self {
        Self {
            store,
            snapshot: Mutex::default(),
            own_writes: OwnWrites::default(),
            refreshing: tokio::sync::Mutex::default(),
            rereading: tokio::sync::Mutex::default(),
            used: AtomicBool::new(false),
            own_write_pending: AtomicBool::new(false),
            log_read_pending: AtomicBool::new(false),
            content_problem: Problem::new(
                "all documents",
                "lists and the website show the last ones that were read, if any",
            ),
            log_problem: Problem::new(
                "the end of the audit log",
                "an outage would show no log; lists and documents are not affected",
            ),
        }
    }

    /// Keeps the snapshot ready for an outage; never ends.
    pub async fn run_refresh(self: &Arc<Self>) {
        let mut rounds = 0;
        sleep(FIRST_REFRESH_DELAY).await;
        loop {
            let pause = match self.confirmed().await {
                Ok(_) => REFRESH_INTERVAL,
                Err(_) => FAILED_REFRESH_INTERVAL, // the store logged the error
            };
            if pause == REFRESH_INTERVAL {
                self.read_log().await;
            }
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

    /// Notes what this process wrote: the entries of `changes`, or nothing if that is not known.
    /// The snapshot is refreshed soon, so that an outage does not undo the write for readers.
    pub fn note_write(self: &Arc<Self>, changes: &[Change], entries: &[StoredEntry]) {
        for (change, entry) in changes.iter().zip(entries) {
            self.own_writes.note(OwnWrite {
                entry: entry.clone(),
                key: change.key().clone(),
                record: change.next().cloned(),
            });
        }
        if self.own_write_pending.swap(true, Ordering::Relaxed) {
            return;
        }
        let cache = Arc::clone(self);
        tokio::spawn(async move {
            sleep(OWN_WRITE_DELAY).await;
            cache.own_write_pending.store(false, Ordering::Relaxed);
            let _ = cache.confirmed().await; // the store logged the error
        });
    }

    /// The last snapshot, however old; `None` if there was none yet.
    #[must_use]
    pub fn last(&self) -> Option<Snapshot> {
        self.lock().clone()
    }

    /// Whether the store is being read for it.
    #[must_use]
    pub fn is_refreshing(&self) -> bool {
        self.refreshing.try_lock().is_err()
    }

    /// A snapshot of what the store holds now, but for edits without a trace in the log. Where those
    /// may be missing for too long, this starts to read all documents again, for the next call.
    pub async fn current(self: &Arc<Self>) -> Result<Snapshot, StoreError> {
        let snapshot = self.confirmed().await?;
        if snapshot.content.is_expired() && self.rereading.try_lock().is_ok() {
            let cache = Arc::clone(self);
            tokio::spawn(async move { cache.reread().await });
        }
        Ok(snapshot)
    }

    /// A snapshot of what the store holds now, edits without a trace in the log included, but for
    /// those of the last minute (see [`Snapshot::fresh_for`]).
    pub async fn unexpired(self: &Arc<Self>) -> Result<Snapshot, StoreError> {
        let snapshot = self.confirmed().await?;
        if !snapshot.content.is_expired() {
            return Ok(snapshot);
        }
        let cache = Arc::clone(self);
        let reread = tokio::spawn(async move { cache.reread().await });
        match timeout(EXPIRED_TIMEOUT, reread).await {
            Ok(Ok(Ok(Some(reread)))) => Ok(reread),
            // Too slow or broken: what the log tells is still shown.
            _ => Ok(snapshot),
        }
    }

    /// The snapshot as the store confirms it now. The refresh goes on if the caller has no time to
    /// wait.
    async fn confirmed(self: &Arc<Self>) -> Result<Snapshot, StoreError> {
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
        let revision = self.store.revision().await?;
        let followed = match last.clone() {
            Some(last) if !last.consistent && *last.content.revision() == revision => None,
            Some(last) => self.advance(last, revision.clone()).await?,
            None => None,
        };
        let next = if let Some(next) = followed {
            next
        } else {
            let log = last.and_then(|last| last.log);
            let loaded = self.load(revision, log, confirmed).await?;
            if loaded.log.is_some() && loaded.current_log().is_none() {
                self.read_log_soon();
            }
            loaded
        };
        Ok(self.keep(Snapshot { confirmed, ..next }))
    }

    /// Reads all documents, when the store had `revision`. What is written meanwhile is followed, so
    /// that a write that is lost afterwards cannot hide in them.
    async fn load(
        &self,
        revision: Revision,
        log: Option<Arc<LogTail>>,
        confirmed: Instant,
    ) -> Result<Snapshot, StoreError> {
        let loaded = Snapshot {
            content: Arc::new(self.read_content(revision).await?),
            log,
            confirmed,
            consistent: false,
        };
        let followed = async {
            let now = self.store.revision().await?;
            self.advance(loaded.clone(), now).await
        };
        // What was read is not thrown away if the store fails now, or others write very fast.
        Ok(followed.await.ok().flatten().unwrap_or(loaded))
    }

    /// Replaces the snapshot. Only who holds `refreshing` may call it.
    fn keep(&self, snapshot: Snapshot) -> Snapshot {
        *self.lock() = Some(snapshot.clone());
        snapshot
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Snapshot>> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads all documents again, unless another task has just done so. The snapshot goes on
    /// answering meanwhile.
    async fn reread(&self) -> Result<Option<Snapshot>, StoreError> {
        let mut tried = self.rereading.lock().await;
        let Some(expired) = self.expired() else {
            return Ok(self.last());
        };
        if tried.is_some_and(|tried| tried.elapsed() < FAILED_REFRESH_INTERVAL) {
            return Ok(self.last());
        }
        let result = self.replace(expired).await;
        *tried = Some(Instant::now());
        result
    }

    /// The snapshot, if its documents have to be read again.
    fn expired(&self) -> Option<Snapshot> {
        self.last().filter(|last| last.content.is_expired())
    }

    async fn replace(&self, expired: Snapshot) -> Result<Option<Snapshot>, StoreError> {
        // They are at least as new as that.
        let revision = expired.content.revision().clone();
        let content = Arc::new(self.read_content(revision).await?);
        let _turn = self.refreshing.lock().await;
        let Some(last) = self.expired() else {
            return Ok(self.last()); // another task had to load everything meanwhile
        };
        let confirmed = Instant::now();
        let now = self.store.revision().await?;
        let read = Snapshot { content, ..last };
        let next = self.advance(read, now).await?;
        Ok(next.map(|next| self.keep(Snapshot { confirmed, ..next })))
    }

    async fn read_content(&self, revision: Revision) -> Result<Content, StoreError> {
        let content = self.read_all(revision).await;
        let problem = match &content {
            Ok(content) => content.problem(),
            Err(error) => Err(error.clone()),
        };
        self.content_problem.note(&problem);
        content
    }

    async fn read_all(&self, revision: Revision) -> Result<Content, StoreError> {
        let read_at = Instant::now();
        let kinds = join_all(Kind::ALL.map(async |kind| {
            let mut content = KindContent::default();
            match load(&*self.store, kind, |found| content.add(found)).await {
                // The other kind is read all the same.
                Err(StoreError::Failed(problem)) => Ok(KindContent::failed(problem)),
                Err(error) => Err(error),
                Ok(()) => Ok(content),
            }
        }))
        .await;
        let kinds: Result<Vec<KindContent>, StoreError> = kinds.into_iter().collect();
        let mut content = Content::new(revision, kinds?, read_at);
        if let Some(last) = self.last() {
            // No index names them any more, if somebody deleted them there too.
            for keys in last.content.gone_in(&content).chunks(MAX_FOLLOWED_WRITES) {
                let found = self.store.get_many(keys).await.unwrap_or_default();
                content.add_deleted_outside(found.changed_outside);
            }
        }
        Ok(content)
    }

    /// `from` and what was written since, up to `revision` or later; `None` if that cannot be known,
    /// or the history is another one.
    async fn advance(
        &self,
        mut from: Snapshot,
        mut revision: Revision,
    ) -> Result<Option<Snapshot>, StoreError> {
        for _ in 0..MAX_STEPS {
            if *from.content.revision() == revision {
                let consistent = true;
                return Ok(Some(Snapshot { consistent, ..from }));
            }
            if let Some(next) = self.follow_own(&from, &revision) {
                return Ok(Some(next));
            }
            let Some(next) = self.follow(&from, &revision).await? else {
                return Ok(None);
            };
            // What was read may be newer than the revision, and be lost afterwards.
            (from, revision) = (next, self.store.revision().await?);
        }
        let consistent = *from.content.revision() == revision;
        Ok(Some(Snapshot { consistent, ..from }))
    }

    /// `last` and what this process wrote since, if nobody else wrote.
    fn follow_own(&self, last: &Snapshot, revision: &Revision) -> Option<Snapshot> {
        let before = last.content.revision();
        let added = revision.entries.checked_sub(before.entries)?;
        let writes = self
            .own_writes
            .between(&before.history, &revision.history, added)?;
        let entries = writes.iter().rev().map(|write| write.entry.clone());
        let entries = entries.collect();
        let changed = writes.into_iter().map(|write| (write.key, write.record));
        last.followed_by(revision, changed, Vec::new(), entries)
    }

    /// `last` and what was written since, from the log.
    async fn follow(
        &self,
        last: &Snapshot,
        revision: &Revision,
    ) -> Result<Option<Snapshot>, StoreError> {
        let before = last.content.revision();
        let Some(added) = revision
            .entries
            .checked_sub(before.entries)
            .and_then(|added| usize::try_from(added).ok())
            .filter(|added| (1..=MAX_FOLLOWED_WRITES).contains(added))
        else {
            return Ok(None);
        };
        let query = AuditQuery {
            limit: added + EXTRA_ENTRIES,
            max_bytes: MAX_FOLLOWED_BYTES,
            ..AuditQuery::default()
        };
        let page = self.store.audit_entries(&query).await?.entries;
        let Some(entries) = continuation(&before.history, &revision.history, added, &page) else {
            return Ok(None);
        };
        let changed: Option<BTreeSet<DocumentKey>> = entries.iter().map(StoredEntry::key).collect();
        let Some(changed) = changed else {
            return Ok(None); // a kind of document that this version does not know
        };
        let changed: Vec<DocumentKey> = changed.into_iter().collect();
        let found = self.store.get_many(&changed).await?;
        if !found.unreadable.is_empty() {
            return Ok(None); // reading all documents explains what cannot be read
        }
        let mut records: BTreeMap<DocumentKey, Record> = found
            .records
            .into_iter()
            .map(|record| (record.key().clone(), record))
            .collect();
        let changed = changed.into_iter().map(|key| {
            let record = records.remove(&key);
            (key, record)
        });
        Ok(last.followed_by(revision, changed, found.changed_outside, entries))
    }

    /// Reads the end of the log after a pause: too much was written to follow it.
    fn read_log_soon(self: &Arc<Self>) {
        if self.log_read_pending.swap(true, Ordering::Relaxed) {
            return;
        }
        let cache = Arc::clone(self);
        tokio::spawn(async move {
            sleep(FAILED_REFRESH_INTERVAL).await;
            cache.log_read_pending.store(false, Ordering::Relaxed);
            cache.read_log().await;
        });
    }

    /// Reads the end of the log, which only an outage needs, unless it is there.
    async fn read_log(self: &Arc<Self>) {
        let read = async {
            let is_counted = |log: &LogTail| log.is_counted();
            let lacks_log = |last: &Snapshot| !last.current_log().is_some_and(is_counted);
            let Some(last) = self.last().filter(lacks_log) else {
                return Ok(true);
            };
            // Mostly only a few entries are missing.
            if let Some(log) = last.log
                && self.keep_log(LogTail::clone(&log)).await?
            {
                return Ok(true);
            }
            self.keep_log(LogTail::read(&*self.store).await?).await
        };
        let read = read.await;
        self.log_problem.note(&read);
        if matches!(read, Ok(false)) {
            self.read_log_soon();
        }
    }

    /// Keeps the end of the log, if it can be brought up to date.
    async fn keep_log(&self, mut log: LogTail) -> Result<bool, StoreError> {
        log.count(&*self.store).await?;
        let _turn = self.refreshing.lock().await;
        let Some(revision) = log.catch_up(&*self.store).await? else {
            return Ok(false);
        };
        if let Some(last) = self.last() {
            let log = Some(Arc::new(log));
            let last = Snapshot { log, ..last };
            // Otherwise the next list brings the documents up to the log.
            let next = if last.consistent {
                self.advance(last.clone(), revision).await?
            } else {
                None
            };
            self.keep(next.unwrap_or(last));
        }
        Ok(true)
    }
}

impl Snapshot {
    /// How long ago the store confirmed it.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.confirmed.elapsed()
    }

    /// How long it may be shown, as far as edits without a trace in the log are concerned.
    #[must_use]
    pub fn fresh_for(&self) -> Duration {
        self.content.fresh_for()
    }

    /// A document; `None` if there was none.
    #[must_use]
    pub fn get(&self, key: &DocumentKey) -> Option<FoundDocument> {
        self.content.found(key)
    }

    /// How many documents were changed outside this server.
    #[must_use]
    pub fn count_changed_outside(&self) -> usize {
        self.content.count_changed_outside()
    }

    /// The ids of a kind's documents.
    pub fn ids(&self, kind: Kind) -> impl Iterator<Item = &str> {
        self.content.ids(kind)
    }

    /// A page of the documents of a kind.
    ///
    /// # Errors
    /// Why the documents of this kind could not be read.
    pub fn list(&self, kind: Kind, query: &ListQuery) -> Result<ListPage, StoreError> {
        self.content.list(kind, query)
    }

    /// A page of the log; `None` if this is beyond what the snapshot holds.
    #[must_use]
    pub fn audit_entries(&self, query: &AuditQuery) -> Option<AuditPage> {
        self.current_log()?.page(query)
    }

    /// The log in numbers, and its page for `newest`; `None` if they were not read yet.
    #[must_use]
    pub fn audit_stats(&self, newest: &AuditQuery) -> Option<(AuditStats, AuditPage)> {
        self.current_log()?.stats(newest)
    }

    /// The end of the log, if nothing is missing in it.
    fn current_log(&self) -> Option<&LogTail> {
        self.log
            .as_deref()
            .filter(|log| log.is_of(self.content.revision()))
    }

    /// This state with the documents that were changed since, those among them that others changed
    /// outside this server, and the entries of that, newest first; `None` if the number of documents is not the store's.
    fn followed_by(
        &self,
        revision: &Revision,
        changed: impl Iterator<Item = (DocumentKey, Option<Record>)>,
        changed_outside: Vec<OutsideChange>,
        entries: Vec<StoredEntry>,
    ) -> Option<Self> {
        let content = self
            .content
            .followed_by(revision.clone(), changed, changed_outside)?;
        let log = self
            .log
            .as_ref()
            .map(|log| Arc::new(log.followed_by(self.content.revision(), revision, entries)));
        Some(Self {
            content: Arc::new(content),
            log,
            ..self.clone()
        })
    }
}

/// The entries, newest first, of `added` writes that lead from one history to another; `None` if
/// `page` does not show that they do. Its first ones may have come later.
fn continuation(
    before: &History,
    after: &History,
    added: usize,
    page: &[StoredEntry],
) -> Option<Vec<StoredEntry>> {
    (0..=EXTRA_ENTRIES).find_map(|later| {
        let new = page.get(later..later + added)?;
        let reached = new
            .iter()
            .rev()
            .try_fold(before.clone(), |history, entry| history.followed_by(entry))?;
        (reached == *after).then(|| new.to_vec())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use async_trait::async_trait;

    use super::*;
    use crate::{
        domain::{Current, Operation},
        store::{Commit, Documents, Repository},
    };

    /// An empty store that counts what it is asked.
    #[derive(Default)]
    struct Counting {
        revisions: AtomicUsize,
        other_calls: AtomicUsize,
    }

    impl Counting {
        fn other<T: Default>(&self) -> T {
            self.other_calls.fetch_add(1, Ordering::Relaxed);
            T::default()
        }
    }

    #[async_trait]
    impl Repository for Counting {
        fn name(&self) -> &'static str {
            "counting"
        }
        async fn get(&self, _: &DocumentKey) -> Result<FoundDocument, StoreError> {
            Ok(self.other())
        }
        async fn get_for_update(&self, key: &DocumentKey) -> Result<Current, StoreError> {
            self.other::<()>();
            Ok(Current::read(key.clone(), None, None::<&str>))
        }
        async fn list(&self, _: Kind, _: &ListQuery) -> Result<ListPage, StoreError> {
            Ok(self.other())
        }
        async fn commit(&self, _: &[Change], _: &Operation) -> Result<Commit, StoreError> {
            Err(StoreError::Conflict)
        }
        async fn find_commit(&self, _: &Operation) -> Result<Option<Commit>, StoreError> {
            Ok(self.other())
        }
        async fn audit_entries(&self, _: &AuditQuery) -> Result<AuditPage, StoreError> {
            Ok(self.other())
        }
        async fn audit_stats(&self) -> Result<AuditStats, StoreError> {
            Ok(self.other())
        }
        async fn revision(&self) -> Result<Revision, StoreError> {
            self.revisions.fetch_add(1, Ordering::Relaxed);
            Ok(Revision::default())
        }
    }

    #[async_trait]
    impl SnapshotSource for Counting {
        async fn ids(&self, _: Kind) -> Result<Vec<String>, StoreError> {
            Ok(self.other())
        }
        async fn get_many(&self, _: &[DocumentKey]) -> Result<Documents, StoreError> {
            Ok(self.other())
        }
    }

    /// docs/operations.md has the cost of it, which `tests/it/costs.rs` computes from one revision.
    #[tokio::test(start_paused = true)]
    async fn an_idle_server_asks_for_twelve_revisions_an_hour_and_nothing_else() {
        let store = Arc::new(Counting::default());
        let cache = Arc::new(SnapshotCache::new(Arc::clone(&store) as _));
        let refreshing = Arc::clone(&cache);
        tokio::spawn(async move { refreshing.run_refresh().await });
        sleep(Duration::from_mins(10)).await;
        let counts = || {
            (
                store.revisions.load(Ordering::Relaxed),
                store.other_calls.load(Ordering::Relaxed),
            )
        };
        let (revisions, other_calls) = counts();

        sleep(Duration::from_hours(1)).await;

        assert_eq!(counts(), (revisions + 12, other_calls));
    }

    /// The pace of reading everything again that the documentation states.
    #[tokio::test(start_paused = true)]
    async fn documents_are_read_again_once_a_minute_however_often_they_are_listed() {
        let store = Arc::new(Counting::default());
        let cache = Arc::new(SnapshotCache::new(Arc::clone(&store) as _));
        cache.current().await.unwrap();
        let before = store.other_calls.load(Ordering::Relaxed);

        for _ in 0..10 * 60 {
            cache.current().await.unwrap();
            sleep(Duration::from_secs(1)).await;
        }

        let calls = store.other_calls.load(Ordering::Relaxed) - before;
        assert!(
            (9..=10).contains(&(calls / Kind::ALL.len())),
            "{calls} calls"
        );
    }
}

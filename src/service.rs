//! The use cases, shared by all transports and commands.
//!
//! Knows the store as a trait and no protocol. `StoreError` stops here: the edges see [`Error`],
//! whose text is meant for clients; what only an operator should see is logged here, or is the
//! error's source.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::Arc,
    time::Duration,
};

use tokio::sync::{Mutex, MutexGuard, Semaphore};
use uuid::Uuid;

use crate::{
    deadline::Deadline,
    domain::{
        Change, Current, DocumentKey, Operation, Origin, StoredEntry, Timestamp, WriteContext,
    },
    store::{
        Commit, HistoryImport, PlanStore, Repository, ResponseCache, SnapshotCache, Store,
        StoreError,
    },
};

mod adopt;
mod as_of;
mod authoring;
mod blame;
mod error;
mod many;
mod plans;
mod read;
mod undo;
mod update;
mod write;

pub use as_of::{Compared, Difference, LogPoint, PastPage};
pub use authoring::{CreateRequest, DeleteRequest};
pub use blame::DocumentBlame;
pub use error::Error;
pub use many::{ManyItem, UpdateManyRequest};
pub use plans::{ApplyRequest, KeptPlan, ShownPlan};
pub use read::{Fetched, Published, RESPONSE_TTL, ShownDocument};
pub use undo::{Selection, UndoRequest, Undone};
pub use update::{Mode, UpdateRequest, Updated};
pub use write::{WriteOptions, Written, WrittenDocument};

/// Queues for writers. Two documents may share a queue; then one waits a little for the other.
const WRITE_QUEUES: usize = 256;

/// How many calls search the log at once, and how many read a page without a filter.
const MAX_LOG_SEARCHES: usize = 2;
const MAX_LOG_PAGES: usize = 4;

/// The use cases.
pub struct ContentService {
    store: Arc<dyn Repository>,
    history: Arc<dyn HistoryImport>,
    plans: Arc<dyn PlanStore>,
    responses: Option<Arc<dyn ResponseCache>>,
    snapshot: Option<Arc<SnapshotCache>>,
    clock: fn() -> Timestamp,
    write_queues: Vec<Mutex<()>>,
    log_searches: Semaphore,
    log_pages: Semaphore,
}

/// What works at the moment.
#[derive(Debug)]
pub struct Health {
    /// Whether the store answers, or why not.
    pub store: Result<(), &'static str>,
    /// The age of the snapshot, if there is one.
    pub snapshot_age: Option<Duration>,
}

impl ContentService {
    /// The use cases on `store`, at the time of `clock`.
    #[must_use]
    pub fn new(store: impl Into<Store>, clock: fn() -> Timestamp) -> Self {
        let Store {
            repository: store,
            history,
            plans,
            responses,
            snapshot,
        } = store.into();
        let write_queues = std::iter::repeat_with(Mutex::default)
            .take(WRITE_QUEUES)
            .collect();
        Self {
            store,
            history,
            plans,
            responses,
            snapshot,
            clock,
            write_queues,
            log_searches: Semaphore::new(MAX_LOG_SEARCHES),
            log_pages: Semaphore::new(MAX_LOG_PAGES),
        }
    }

    /// Keeps the snapshot ready for an outage; never ends.
    pub async fn run_refresh(&self) {
        match &self.snapshot {
            Some(snapshot) => snapshot.run_refresh().await,
            None => std::future::pending().await,
        }
    }

    /// What works at the moment.
    pub async fn health(&self) -> Health {
        let revision = self.store.revision().await;
        Health {
            store: revision
                .map(drop)
                .map_err(|error| Error::from(error).reason()),
            snapshot_age: self.snapshot_age(),
        }
    }

    /// The age of the snapshot, if there is one.
    #[must_use]
    pub fn snapshot_age(&self) -> Option<Duration> {
        Some(self.snapshot.as_ref()?.last()?.age())
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// The store's name in answers.
    #[must_use]
    pub fn store_name(&self) -> &'static str {
        self.store.name()
    }

    /// What a write that happens now is recorded with.
    #[must_use]
    pub fn write_context(&self, origin: Origin, operation: Operation) -> WriteContext {
        WriteContext {
            origin,
            operation,
            entry_id: Uuid::new_v4().to_string(),
            now: self.now(),
        }
    }

    /// The newest state of a document, to make a change from.
    pub async fn get_for_update(&self, key: &DocumentKey) -> Result<Current, Error> {
        Ok(self.store.get_for_update(key).await?)
    }

    /// Writes the changes, all or none. A change of a document that was changed outside this server
    /// conflicts once: what was found is recorded, and the change has to be made again after that.
    pub async fn commit(
        &self,
        changes: Vec<Change>,
        operation: Operation,
        deadline: Deadline,
    ) -> Result<Commit, Error> {
        let conflict = |key| Error::Conflict {
            key,
            current: None,
            changed_since: Vec::new(),
            changed_outside: None,
        };
        if let Some(key) = self.adopt(&changes, deadline).await? {
            return Err(conflict(key));
        }
        let key = changes.first().map(|change| change.key().clone());
        match (self.commit_in_task(changes, operation).await, key) {
            (Err(StoreError::Conflict), Some(key)) => Err(conflict(key)),
            (commit, _) => Ok(commit?),
        }
    }

    /// Adds foreign audit entries to the log, and returns how many were new.
    pub async fn import_entries(&self, entries: &[StoredEntry]) -> Result<usize, Error> {
        Ok(self.history.import_entries(entries, self.now()).await?)
    }

    fn note_use(&self) {
        if let Some(snapshot) = &self.snapshot {
            snapshot.note_use();
        }
    }

    fn write_queue(&self, key: &DocumentKey) -> &Mutex<()> {
        static ANY: Mutex<()> = Mutex::const_new(());
        self.write_queues.get(queue_of(key)).unwrap_or(&ANY)
    }

    /// Waits in the queues of all these documents, in an order that every caller keeps.
    async fn write_turns(&self, keys: &[DocumentKey]) -> Vec<MutexGuard<'_, ()>> {
        let queues: BTreeSet<usize> = keys.iter().map(queue_of).collect();
        let mut turns = Vec::new();
        for queue in queues
            .iter()
            .filter_map(|queue| self.write_queues.get(*queue))
        {
            turns.push(queue.lock().await);
        }
        turns
    }
}

/// The queue of a document.
fn queue_of(key: &DocumentKey) -> usize {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
    usize::try_from(hash % WRITE_QUEUES as u64).unwrap_or_default()
}

//! The port: what the rest of the program asks of a place where documents and the audit log live.
//!
//! Knows the domain, and nothing of protocols or of content types by name.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::domain::{
    ApiPath, AuditPage, AuditQuery, AuditStats, Change, DocumentKey, Kind, ListPage, ListQuery,
    Operation, Record, StoredEntry, Timestamp,
};

mod breaker;
pub(crate) mod location;
pub(crate) mod redis;
mod resilient;
mod snapshot;
pub(crate) mod sqlite;

pub use location::{Authority, Location, RedisUrl};
pub use snapshot::{Snapshot, SnapshotCache};

/// A place where documents and the audit log live.
#[async_trait]
pub trait Repository: Send + Sync {
    /// What answers call this store: `redis` or `sqlite`.
    fn name(&self) -> &'static str;

    /// `None` if there is no such document; absence is not an error.
    async fn get(&self, key: &DocumentKey, purpose: Purpose) -> Result<Option<Record>, StoreError>;

    /// The document with its newest entry as this process remembers it, if reading it takes a round trip and the store answered a write
    /// just now.
    ///
    /// Good for making a change from, because the commit compares: one that is not so any more costs a try. But who does not read first may
    /// send a commit to a store that is gone, and not know what became of it.
    fn recall(&self, key: &DocumentKey) -> Option<Record>;

    /// The ids of every document of a kind, sorted.
    async fn ids(&self, kind: Kind) -> Result<Vec<String>, StoreError>;

    /// Every document of a kind that can be read, by id, and what cannot, in words.
    async fn all(&self, kind: Kind) -> Result<Documents, StoreError>;

    /// A page of the documents of a kind.
    async fn list(&self, kind: Kind, query: &ListQuery) -> Result<ListPage, StoreError>;

    /// Writes documents, indexes, audit entries and counters: all of them or none, once for each operation.
    ///
    /// Fails with `Conflict` if a stored document is not the one its change was made from.
    async fn commit(&self, changes: &[Change], operation: &Operation)
    -> Result<Commit, StoreError>;

    /// What an operation did when it was committed before; asked before anything is read or compared.
    async fn outcome(&self, operation: &Operation) -> Result<Option<Commit>, StoreError>;

    /// Adds entries of another store's log, unchanged and at their own time, and says how many were new; `seq` goes on after theirs.
    ///
    /// The only writing besides [`Repository::commit`]; it can add to history, and touch nothing else.
    async fn import_entries(
        &self,
        entries: &[StoredEntry],
        now: Timestamp,
    ) -> Result<usize, StoreError>;

    /// A page of the audit log, newest first.
    async fn audit_entries(&self, query: &AuditQuery) -> Result<AuditPage, StoreError>;

    /// The audit log in numbers.
    async fn audit_stats(&self) -> Result<AuditStats, StoreError>;

    /// What changes with every write, to be asked often.
    async fn revision(&self) -> Result<Revision, StoreError>;

    /// The website's answer that was kept, whoever did it, with the number of the newest write, asked after it; `None` where none are.
    async fn cached(&self, api_path: &ApiPath) -> Result<Option<CachedResponse>, StoreError>;

    /// Keeps the website's answer, of when `seq` was the number of the newest write, for `lasting`; does nothing if it is not that any more.
    async fn cache(
        &self,
        api_path: &ApiPath,
        seq: u64,
        answer: &str,
        lasting: Duration,
    ) -> Result<(), StoreError>;
}

/// All documents of a kind, as far as they can be read.
#[derive(Debug, Clone, Default)]
pub struct Documents {
    /// The documents, in no order.
    pub records: Vec<Record>,
    /// What is listed but cannot be read, in words.
    pub unreadable: Vec<String>,
}

/// Numbers that tell whether a store was written since they were read last.
///
/// The site's older programs do not raise `seq`, but they add to the log and to the indexes. What is changed by hand, without a trace in
/// either, shows in none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revision {
    /// The number of the newest write.
    pub seq: u64,
    /// How many entries the log holds.
    pub entries: u64,
    /// How many documents there are of each of [`Kind::ALL`].
    pub documents: [u64; 2],
}

/// An answer that may have been kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedResponse {
    /// What was kept, if anything. It may be another program's, or of an earlier state.
    pub answer: Option<String>,
    /// The number of the newest write.
    pub seq: u64,
}

/// What a document is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To be shown; may come from a replica.
    Show,
    /// To be changed: the newest state, with the document's newest audit entry.
    Change,
}

/// What a commit did, or had done before.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The entries of its changes, in their order.
    pub entries: Vec<StoredEntry>,
    /// Whether an earlier commit of the same operation did it.
    pub replayed: bool,
}

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// A stored document is not the one a change was made from; nothing was written.
    #[error("the document was changed by somebody else in the meantime")]
    Conflict,
    /// The store could not be reached; nothing was written.
    #[error("the store cannot be reached: {0}")]
    Unavailable(String),
    /// The store does not let this server in: its password or certificate is at fault, and asking again does not help; nothing was
    /// written.
    #[error("the store does not let this server in: {0}")]
    Refused(String),
    /// The store takes no writes from here or now; nothing was written.
    #[error("{0}")]
    ReadOnly(String),
    /// The store takes no writes for the moment; nothing was written.
    #[error("{reason}")]
    Paused {
        /// Why, and what to do.
        reason: String,
        /// When to ask again.
        retry_after: Duration,
    },
    /// The connection was lost during a commit, and repeating did not settle whether it was applied.
    #[error("the connection to the store was lost during the commit: {0}")]
    OutcomeUnknown(String),
    /// The operation's key was used for another request.
    #[error("the idempotency key was used before for a different request")]
    Mismatch,
    /// What is stored is not what belongs there.
    #[error("the value at `{key}` cannot be read: {problem}")]
    Corrupt {
        /// Where.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Anything else; nothing was written.
    #[error("{0}")]
    Failed(String),
}

impl StoreError {
    /// Whether the store could not be asked, which a saved copy may make up for.
    #[must_use]
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Refused(_))
    }

    /// A task of the store panicked. What it said stays where the panic is logged: it may repeat a document.
    pub(crate) fn ended() -> Self {
        Self::Failed("the work ended unexpectedly, and the server's log says where".to_owned())
    }
}

/// A store, ready for use.
pub struct Store {
    /// The store itself.
    pub repository: Arc<dyn Repository>,
    /// A copy of what a distant store holds, which answers lists, and reading while the store is away.
    pub snapshot: Option<Arc<SnapshotCache>>,
}

/// A store that needs no copy.
impl From<Arc<dyn Repository>> for Store {
    fn from(repository: Arc<dyn Repository>) -> Self {
        Self {
            repository,
            snapshot: None,
        }
    }
}

/// Makes the store at `location`; has to be called within a tokio runtime. Connects when it is first used, so that a program starts
/// with its store down.
///
/// # Errors
/// What is wrong with the location.
pub fn open(location: &Location) -> anyhow::Result<Store> {
    Ok(match location {
        Location::Redis {
            write,
            read,
            key_prefix,
        } => {
            let store = redis::RedisStore::new(write.as_ref(), read.as_ref(), key_prefix)?;
            let repository: Arc<dyn Repository> = Arc::new(resilient::Resilient::new(store));
            Store {
                snapshot: Some(Arc::new(SnapshotCache::of(Arc::clone(&repository)))),
                repository,
            }
        }
        Location::Sqlite(path) => Store {
            repository: Arc::new(sqlite::SqliteStore::new(path)),
            snapshot: None,
        },
    })
}

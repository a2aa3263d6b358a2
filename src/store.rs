//! The port: what the rest of the program asks of a place where documents and the audit log live.
//!
//! Knows the domain, and nothing of protocols or of content types by name.

use std::sync::Arc;

use async_trait::async_trait;

use crate::domain::{
    AuditPage, AuditQuery, AuditStats, Change, DocumentKey, Kind, ListPage, ListQuery, Operation, Record, StoredEntry, Timestamp,
};

mod cache;
pub mod examination;
mod location;
mod redis;
mod sqlite;

pub use location::{Authority, Location, RedisUrl};

/// A place where documents and the audit log live.
#[async_trait]
pub trait Repository: Send + Sync {
    /// What answers call this store: `redis` or `sqlite`.
    fn name(&self) -> &'static str;

    /// `None` if there is no such document; absence is not an error.
    async fn get(&self, key: &DocumentKey, purpose: Purpose) -> Result<Option<Record>, StoreError>;

    /// The ids of every document of a kind, sorted.
    async fn ids(&self, kind: Kind) -> Result<Vec<String>, StoreError>;

    /// A page of the documents of a kind.
    async fn list(&self, kind: Kind, query: &ListQuery) -> Result<ListPage, StoreError>;

    /// Writes documents, indexes, audit entries and counters: all of them or none, once for each operation.
    ///
    /// Fails with `Conflict` if a stored document is not the one its change was made from.
    async fn commit(&self, changes: &[Change], operation: &Operation) -> Result<Committed, StoreError>;

    /// What an operation did when it was committed before; asked before anything is read or compared.
    async fn outcome(&self, operation: &Operation) -> Result<Option<Committed>, StoreError>;

    /// Adds entries of another store's log, unchanged and at their own time, and says how many were new; `seq` goes on after theirs.
    ///
    /// The only writing besides [`Repository::commit`]; it can add to history, and touch nothing else.
    async fn carry(&self, entries: &[StoredEntry], now: Timestamp) -> Result<usize, StoreError>;

    /// A page of the audit log, newest first.
    async fn audit_entries(&self, query: &AuditQuery) -> Result<AuditPage, StoreError>;

    /// The audit log in numbers.
    async fn audit_stats(&self) -> Result<AuditStats, StoreError>;
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
pub struct Committed {
    /// The entries of its changes, in their order.
    pub entries: Vec<StoredEntry>,
    /// Whether an earlier commit of the same operation did it.
    pub replayed: bool,
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
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

/// Makes the store at `location`; has to be called within a tokio runtime. Connects when it is first used, so that a program starts
/// with its store down.
///
/// # Errors
/// What is wrong with the location.
pub fn open(location: &Location) -> anyhow::Result<Arc<dyn Repository>> {
    Ok(match location {
        Location::Redis { write, read, key_prefix } => Arc::new(redis::RedisStore::new(write.as_ref(), read.as_ref(), key_prefix)?),
        Location::Sqlite(path) => Arc::new(sqlite::SqliteStore::new(path)),
    })
}

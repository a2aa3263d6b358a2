//! The port: what the rest of the program asks of the store of documents and audit log.
//!
//! Knows the domain, and nothing of protocols or of content types by name.

use std::time::Duration;

use async_trait::async_trait;

use crate::domain::{
    ApiPath, AuditPage, AuditQuery, AuditStats, CachedResponse, Change, Current, DocumentKey,
    FoundDocument, History, Kind, ListPage, ListQuery, Operation, OutsideChange, Plan, Record,
    StoreState, StoredEntry, Timestamp,
};

mod breaker;
mod budget;
pub(crate) mod load;
pub(crate) mod location;
mod open;
pub(crate) mod redis;
pub(crate) mod resilient;
mod snapshot;
pub(crate) mod sqlite;

pub use location::{Authority, Location, RedisUrl};
pub use open::{Store, open};
pub use snapshot::{Snapshot, SnapshotCache};

/// Where documents and their audit log live. [`commit`](Self::commit) is the only way to write a
/// document.
///
/// There are no default methods, because a wrapper that forgets one would lose it in silence.
#[async_trait]
pub trait Repository: Send + Sync {
    /// The store's name in answers: `redis` or `sqlite`.
    fn name(&self) -> &'static str;

    /// The document for display, and whether it was changed outside this server. It may come from a
    /// replica, but never from before this process's own writes.
    async fn get(&self, key: &DocumentKey) -> Result<FoundDocument, StoreError>;

    /// The newest state of a document with its newest audit entry, from which a [`Change`] can be
    /// made.
    ///
    /// It may be the state that this process wrote last, without asking the store
    /// ([`Current::is_remembered`]); then the next call for the same document reads it.
    async fn get_for_update(&self, key: &DocumentKey) -> Result<Current, StoreError>;

    /// A page of the documents of a kind, in the order of [`ListQuery`]. A document that does not
    /// change while someone pages is on exactly one page.
    async fn list(&self, kind: Kind, query: &ListQuery) -> Result<ListPage, StoreError>;

    /// Writes documents, indexes, audit entries and counters: all of them or none, and once for
    /// each operation. A repeated operation is answered with its first outcome.
    ///
    /// Fails with `Conflict` if a stored document or its newest entry is not the one that its
    /// change was made from.
    async fn commit(&self, changes: &[Change], operation: &Operation)
    -> Result<Commit, StoreError>;

    /// What an operation did when it was committed; `None` if it never was, or its record has
    /// expired.
    async fn find_commit(&self, operation: &Operation) -> Result<Option<Commit>, StoreError>;

    /// A page of the audit log, newest first. Pages never repeat or skip an entry, whatever is
    /// added meanwhile.
    ///
    /// A call looks through a limited part of the log. If it ends before the page is full, the page
    /// says how far it came and where to go on.
    async fn audit_entries(&self, query: &AuditQuery) -> Result<AuditPage, StoreError>;

    /// The counters of the audit log. They add up to its number of entries, unless they are being
    /// counted again.
    async fn audit_stats(&self) -> Result<AuditStats, StoreError>;

    /// Changes with every write of this program. Cheap enough to be asked often.
    async fn revision(&self) -> Result<Revision, StoreError>;
}

/// Adds foreign audit entries, such as those of an export, to a store's log.
#[async_trait]
pub trait HistoryImport: Send + Sync {
    /// Adds entries unchanged and at their own time, and returns how many were new; `seq` continues
    /// after theirs.
    ///
    /// The only other way to write; it adds to the log and touches nothing else.
    async fn import_entries(
        &self,
        entries: &[StoredEntry],
        now: Timestamp,
    ) -> Result<usize, StoreError>;
}

/// Keeps the plans of dry runs until they are applied or expire.
#[async_trait]
pub trait PlanStore: Send + Sync {
    /// Keeps a plan, and drops the expired ones and those that are too many: the newest
    /// [`MAX_PLANS`](crate::domain::MAX_PLANS) stay, and of them at most
    /// [`MAX_PLAN_BYTES`](crate::domain::MAX_PLAN_BYTES). It changes no document and no log.
    async fn put_plan(&self, plan: &Plan) -> Result<(), StoreError>;

    /// The plan with this id; `None` if it was never kept or was dropped. It may have expired.
    async fn get_plan(&self, id: &str) -> Result<Option<Plan>, StoreError>;
}

/// A distant store, whose documents can be read as a whole, piece by piece.
#[async_trait]
pub trait SnapshotSource: Repository {
    /// The id of every document of a kind, in no order.
    async fn ids(&self, kind: Kind) -> Result<Vec<String>, StoreError>;

    /// Some documents in one reply. What does not exist is left out.
    async fn get_many(&self, keys: &[DocumentKey]) -> Result<Documents, StoreError>;
}

/// A cache of REST responses that all servers of a store share. A commit drops what it makes old.
///
/// Best effort: while the store has problems, nothing is found and nothing is kept.
#[async_trait]
pub trait ResponseCache: Send + Sync {
    /// The response for `path`, and the store's state read after it.
    async fn get(&self, path: &ApiPath) -> Result<CachedResponse, StoreError>;

    /// The same without the response, which may be large.
    async fn look_up(&self, path: &ApiPath) -> Result<CachedResponse, StoreError>;

    /// Keeps a response that was computed at `state`, for `ttl`, unless the store has another state by
    /// now; returns whether it did.
    async fn put(
        &self,
        path: &ApiPath,
        state: &StoreState,
        response: &str,
        ttl: Duration,
    ) -> Result<bool, StoreError>;
}

/// All documents of a kind, as far as they can be read.
#[derive(Debug, Clone, Default)]
pub struct Documents {
    /// The documents, in no order.
    pub records: Vec<Record>,
    /// One sentence for each document that is listed but cannot be read.
    pub unreadable: Vec<String>,
    /// Those among the requested documents that were changed outside this server.
    pub changed_outside: Vec<OutsideChange>,
}

/// What differs when a store was written in between.
///
/// The site's older programs do not continue the history, but they add to the log and to the
/// indexes. A change by hand, without a trace in either, shows in none of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revision {
    /// The writes of this program.
    pub history: History,
    /// How many entries the log holds.
    pub entries: u64,
    /// How many documents there are of each of [`Kind::ALL`].
    pub documents: [u64; 2],
}

/// The result of a commit.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The audit entries of its changes, in their order.
    pub entries: Vec<StoredEntry>,
    /// Whether an earlier commit of the same operation wrote them.
    pub replayed: bool,
}

impl Commit {
    /// Whether it wrote the entry with this audit id.
    #[must_use]
    pub fn has_entry(&self, audit_id: &str) -> bool {
        let mut ids = self.entries.iter().map(|entry| entry.text_of("id"));
        ids.any(|id| id == Some(audit_id))
    }
}

/// Why a store did not do what it was asked. Only `service` matches on it; operators see its text,
/// clients never do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// A stored document is not the one that a change was made from. Nothing was written.
    #[error("the document was changed in the meantime")]
    Conflict,
    /// The store did not answer. Nothing was written.
    #[error("the store cannot be reached: {0}")]
    Unavailable(String),
    /// The store refuses this server: its credentials, the store's certificate, or a quota. Trying
    /// again does not help. Nothing was written.
    #[error("{}", with_detail(reason, detail.as_deref()))]
    AccessDenied {
        /// Why, in words that a client may see.
        reason: String,
        /// What only the operator should see.
        detail: Option<String>,
    },
    /// The store accepts no writes from this server, or none now. Nothing was written.
    #[error("{}", with_detail(reason, detail.as_deref()))]
    ReadOnly {
        /// Why, in words that a client may see.
        reason: String,
        /// What only the operator should see.
        detail: Option<String>,
        /// When to try again, if that may help.
        retry_after: Option<Duration>,
    },
    /// The connection was lost during a commit, and retrying it did not show whether it was
    /// applied.
    #[error("the connection to the store was lost during the commit: {0}")]
    OutcomeUnknown(String),
    /// The operation's key was used for another request.
    #[error("the idempotency key was used before for a different request")]
    IdempotencyMismatch,
    /// The stored value is not a document.
    #[error("the value at `{key}` cannot be read: {problem}")]
    Corrupt {
        /// Where it is stored.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Anything else. Nothing was written.
    #[error("{0}")]
    Failed(String),
}

impl StoreError {
    /// A write that is refused until an operator acts.
    pub(crate) fn read_only(reason: impl Into<String>) -> Self {
        Self::ReadOnly {
            reason: reason.into(),
            detail: None,
            retry_after: None,
        }
    }

    /// A task of the store panicked. Its message may hold a part of a document, so it is only in
    /// the log.
    pub(crate) fn panicked() -> Self {
        Self::Failed(
            "the operation ended unexpectedly; the server's log has the details".to_owned(),
        )
    }
}

fn with_detail(reason: &str, detail: Option<&str>) -> String {
    match detail {
        Some(detail) => format!("{reason}: {detail}"),
        None => reason.to_owned(),
    }
}

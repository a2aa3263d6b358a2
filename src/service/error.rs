//! Why a use case failed, in the terms that the edges act on.

use std::time::Duration;

use tracing::{debug, warn};

use crate::{
    domain::{
        DocumentKey, HistoryGap, Kind, PlanApplication, StoredEntry, Timestamp, Version, Violation,
    },
    store::StoreError,
};

/// An error of the store, which only operators should see.
type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a use case was not carried out. Its text is for clients; the source, if any, is for
/// operators alone.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such document.
    #[error("there is no {key}")]
    NotFound {
        /// The requested document.
        key: DocumentKey,
        /// Ids that are near the requested one.
        similar: Vec<String>,
        /// The other kind, if a document of it has this id.
        found_as: Option<Kind>,
        /// The time of its newest entry, if it was deleted outside this server after that.
        deleted_outside: Option<Timestamp>,
    },
    /// There was no such document at a point in the past, or nobody knows what it was.
    #[error("{}", not_then(key, *gap))]
    NotThen {
        /// The requested document.
        key: DocumentKey,
        /// Why it is not known, if so.
        gap: Option<HistoryGap>,
    },
    /// The id of a document that was to be created is taken.
    #[error("there is a {key} already")]
    Exists {
        /// The requested document.
        key: DocumentKey,
        /// The version of the document that is there.
        current: Version,
    },
    /// The request or the change breaks rules.
    #[error("{} rules are broken", .0.len())]
    Invalid(Vec<Violation>),
    /// The document is not the version that the caller expects, or others kept changing it.
    #[error("{key} was changed in the meantime")]
    Conflict {
        /// Which document.
        key: DocumentKey,
        /// Its version now, if it is known.
        current: Option<Version>,
        /// The newest audit entries since the version that the caller expects, newest first, if the
        /// log tells.
        changed_since: Vec<StoredEntry>,
        /// The time of its newest entry, if it was changed outside this server after that.
        changed_outside: Option<Timestamp>,
    },
    /// There is no such plan: it has expired, never was, or was applied.
    #[error("there is no such plan")]
    PlanNotFound {
        /// When and by whom it was applied, if it was.
        applied: Option<PlanApplication>,
    },
    /// The idempotency key belongs to another request.
    #[error("the idempotency key was used before for a different request")]
    IdempotencyMismatch,
    /// The store accepts no writes from this server, or none now.
    #[error("{reason}")]
    ReadOnly {
        /// Why.
        reason: String,
        /// When to try again, if that may help.
        retry_after: Option<Duration>,
        /// The store's error.
        source: Source,
    },
    /// The store does not answer, and no snapshot could answer instead.
    #[error("the store cannot be reached")]
    Unavailable {
        /// The store's error.
        source: Source,
    },
    /// The documents are being read for the first time.
    #[error("the server is still reading the documents for the first time")]
    Loading,
    /// The store refuses this server until an operator acts.
    #[error("{reason}")]
    AccessDenied {
        /// Why.
        reason: String,
        /// The store's error.
        source: Source,
    },
    /// Other writes to the document took all the time of the call, so this one was not started.
    #[error("other writes to {key} took too long")]
    Busy {
        /// Which document.
        key: DocumentKey,
    },
    /// Other calls were reading the log all the time that this one could wait.
    #[error("other calls are reading the audit log")]
    LogBusy,
    /// The connection was lost during the commit; it may have been applied.
    #[error("the connection to the store was lost during the write")]
    OutcomeUnknown {
        /// The store's error.
        source: Source,
    },
    /// The stored value is not a document.
    #[error("the value at `{key}` cannot be read: {problem}")]
    Corrupt {
        /// Where it is stored.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Anything else.
    #[error("the store failed")]
    Internal {
        /// The store's error.
        source: Source,
    },
}

impl Error {
    /// Why the store is of no use at the moment, for anybody: one of a few sentences, into which
    /// nothing of the store or the configuration can get.
    #[must_use]
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Unavailable { .. }
            | Self::Loading
            | Self::Busy { .. }
            | Self::LogBusy
            | Self::OutcomeUnknown { .. } => "the store cannot be reached",
            Self::AccessDenied { .. } | Self::ReadOnly { .. } => "the store refuses this server",
            Self::NotFound { .. }
            | Self::NotThen { .. }
            | Self::Exists { .. }
            | Self::Invalid(_)
            | Self::Conflict { .. }
            | Self::PlanNotFound { .. }
            | Self::IdempotencyMismatch
            | Self::Corrupt { .. }
            | Self::Internal { .. } => "the store failed",
        }
    }
}

/// What is known of a document that cannot be shown as it was.
fn not_then(key: &DocumentKey, gap: Option<HistoryGap>) -> String {
    match gap {
        None => format!("there was no {key} then: it was created later, or deleted before"),
        Some(gap) => format!("what {key} was then is not known: {gap}"),
    }
}

/// Converts, and logs what the client must not see. A distant store logs its outages itself, once
/// and not for each call.
impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Corrupt { key, problem } => Self::Corrupt { key, problem },
            StoreError::IdempotencyMismatch => Self::IdempotencyMismatch,
            StoreError::ReadOnly {
                ref reason,
                retry_after,
                ..
            } => {
                // A pause is logged by the store, once and not for each call.
                if retry_after.is_some() {
                    debug!("write refused: {error}");
                } else {
                    warn!("write refused: {error}");
                }
                Self::ReadOnly {
                    reason: reason.clone(),
                    retry_after,
                    source: Box::new(error),
                }
            }
            StoreError::Unavailable(_) => {
                debug!("{error}");
                Self::Unavailable {
                    source: Box::new(error),
                }
            }
            StoreError::AccessDenied { ref reason, .. } => Self::AccessDenied {
                reason: reason.clone(),
                source: Box::new(error),
            },
            StoreError::OutcomeUnknown(_) => {
                warn!("the outcome of a commit is unknown: {error}");
                Self::OutcomeUnknown {
                    source: Box::new(error),
                }
            }
            StoreError::Conflict | StoreError::Failed(_) => {
                warn!("store error: {error}");
                Self::Internal {
                    source: Box::new(error),
                }
            }
        }
    }
}

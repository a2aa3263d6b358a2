//! The website API: what is requested, and what is cached for it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    history::History,
    kind::{DocumentKey, Kind},
};

/// All published documents of a kind, or one of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ApiPath {
    /// All documents of a kind.
    All(Kind),
    /// One document.
    One(DocumentKey),
}

impl ApiPath {
    /// The kind of the requested documents.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::All(kind) => *kind,
            Self::One(key) => key.kind,
        }
    }
}

/// What the response cache holds for a path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CachedResponse {
    /// The stored response, if any. Another program may have written it, or it may belong to an
    /// earlier state.
    pub response: Option<String>,
    /// For how long a response is still stored; `None` if there is none, or that is not known.
    pub ttl: Option<Duration>,
    /// The state of the store; `None` if the cache could not be asked.
    pub state: Option<StoreState>,
}

/// What identifies a state of the store, as far as this program's writes go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreState {
    /// The number of the newest write. An older version raises it without continuing the history.
    pub seq: u64,
    /// The history up to the newest write.
    #[serde(default)]
    pub history: History,
}

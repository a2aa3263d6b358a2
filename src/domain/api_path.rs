//! The website API: what is requested, and what is cached for it.

use serde::{Deserialize, Serialize};

use super::kind::{DocumentKey, Kind};

/// All published documents of a kind, or one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// The state of the store; `None` if the cache could not be asked.
    pub state: Option<StoreState>,
}

/// What identifies a state of the store, as far as this program's writes go.
///
/// The number alone does not: after a fail-over that lost a write, the next write has its number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreState {
    /// The number of the newest write.
    pub seq: u64,
    /// What identifies the newest commit; empty if there was none, or an older version made it.
    #[serde(default)]
    pub commit: String,
}

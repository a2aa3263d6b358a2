//! The website API: what is requested, and what is cached for it.

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
    /// The number of the newest write; `None` if the cache could not be asked.
    pub seq: Option<u64>,
}

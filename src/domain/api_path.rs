//! What a website asks for.

use super::{DocumentKey, Kind};

/// All published documents of a kind, or one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiPath {
    /// All of a kind.
    All(Kind),
    /// One.
    One(DocumentKey),
}

impl ApiPath {
    /// Of which kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::All(kind) => *kind,
            Self::One(key) => key.kind,
        }
    }
}

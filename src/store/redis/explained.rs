//! Which documents are known to be explained by their newest entry, although the checksum beside them
//! is another one or missing. Without this, each read of them would take two round trips.

use std::sync::Arc;

use quick_cache::sync::Cache;

use crate::domain::{DocumentKey, Record};

/// About this many documents are remembered.
const MAX_EXPLAINED: usize = 20_000;

/// Documents that their newest entry explains, or that have none.
pub(super) struct Explained(Cache<DocumentKey, Arc<Explanation>>);

struct Explanation {
    /// The checksum of the document.
    document: String,
    /// What was stored beside it.
    beside: Option<String>,
}

impl Default for Explained {
    fn default() -> Self {
        Self(Cache::new(MAX_EXPLAINED))
    }
}

impl Explained {
    pub(super) fn contains(&self, record: &Record, beside: Option<&str>) -> bool {
        self.0.get(record.key()).is_some_and(|explanation| {
            explanation.document == record.checksum() && explanation.beside.as_deref() == beside
        })
    }

    pub(super) fn insert(&self, record: &Record, beside: Option<String>) {
        let explanation = Explanation {
            document: record.checksum().to_owned(),
            beside,
        };
        self.0.insert(record.key().clone(), Arc::new(explanation));
    }
}

//! Which documents are known to be explained by their newest entry, although the checksum beside them
//! is another one or missing. Without this, each read of them would take two round trips.

use std::{sync::Arc, time::Duration};

use quick_cache::sync::Cache;
use tokio::time::Instant;

use crate::domain::{DocumentKey, Record};

/// About this many documents are remembered.
const MAX_EXPLAINED: usize = 20_000;
/// And for this long: version 0.1.0 may write an entry that leaves no trace in the checksum beside the
/// document, and somebody may put the old document back after that.
const EXPLAINED_TTL: Duration = Duration::from_mins(1);

/// Documents that their newest entry explains, or that have none.
pub(super) struct Explained(Cache<DocumentKey, Arc<Explanation>>);

struct Explanation {
    /// The checksum of the document.
    document: String,
    /// What was stored beside it.
    beside: Option<String>,
    /// When that was found.
    found: Instant,
}

impl Default for Explained {
    fn default() -> Self {
        Self(Cache::new(MAX_EXPLAINED))
    }
}

impl Explained {
    pub(super) fn contains(&self, record: &Record, beside: Option<&str>) -> bool {
        self.0.get(record.key()).is_some_and(|explanation| {
            explanation.document == record.checksum()
                && explanation.beside.as_deref() == beside
                && explanation.found.elapsed() < EXPLAINED_TTL
        })
    }

    pub(super) fn insert(&self, record: &Record, beside: Option<String>) {
        let explanation = Explanation {
            document: record.checksum().to_owned(),
            beside,
            found: Instant::now(),
        };
        self.0.insert(record.key().clone(), Arc::new(explanation));
    }
}

//! What this process wrote and its snapshot does not include yet.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::domain::{History, Record, StoredEntry};

/// How many bytes of writes are remembered. What does not fit is read from the store.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// One write.
#[derive(Debug)]
pub(super) struct OwnWrite {
    pub(super) entry: StoredEntry,
    pub(super) record: Record,
}

/// The writes of this process, by their numbers.
#[derive(Debug, Default)]
pub(super) struct OwnWrites(Mutex<BTreeMap<u64, OwnWrite>>);

impl OwnWrites {
    pub(super) fn note(&self, write: OwnWrite) {
        let Some(seq) = write.entry.seq() else {
            return;
        };
        let mut writes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // After a fail-over, another write may have had the number.
        writes.insert(seq, write);
        let bytes: usize = writes.values().map(OwnWrite::bytes).sum();
        if bytes > MAX_BYTES {
            writes.clear();
        }
    }

    /// The writes, oldest first, if exactly `added` of them lead from one history to the other.
    pub(super) fn between(
        &self,
        before: &History,
        after: &History,
        added: u64,
    ) -> Option<Vec<OwnWrite>> {
        let mut writes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What the snapshot includes is not needed again.
        *writes = writes.split_off(&(before.seq() + 1));
        let end = before.seq() + added;
        let reached = (before.seq() + 1..=end).try_fold(before.clone(), |history, seq| {
            history.followed_by(&writes.get(&seq)?.entry)
        })?;
        if reached != *after {
            return None;
        }
        let later = writes.split_off(&(end + 1));
        let found = std::mem::replace(&mut *writes, later);
        Some(found.into_values().collect())
    }
}

impl OwnWrite {
    fn bytes(&self) -> usize {
        self.entry.text().len() + self.record.text().len()
    }
}

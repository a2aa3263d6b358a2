//! What this process wrote and its snapshot does not include yet.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::domain::{DocumentKey, History, Record, StoredEntry};

/// How many bytes of writes are remembered. What does not fit is read from the store.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// One write.
#[derive(Debug)]
pub(super) struct OwnWrite {
    pub(super) entry: StoredEntry,
    pub(super) key: DocumentKey,
    /// The document after it; `None` if it was deleted.
    pub(super) record: Option<Record>,
}

/// The writes of this process.
#[derive(Debug, Default)]
pub(super) struct OwnWrites(Mutex<Numbered>);

#[derive(Debug, Default)]
struct Numbered {
    writes: BTreeMap<u64, OwnWrite>,
    bytes: usize,
}

impl OwnWrites {
    pub(super) fn note(&self, write: OwnWrite) {
        let Some(seq) = write.entry.seq() else {
            return;
        };
        let mut numbered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        numbered.bytes += write.bytes();
        // After a fail-over, another write may have had the number.
        if let Some(lost) = numbered.writes.insert(seq, write) {
            numbered.bytes -= lost.bytes();
        }
        if numbered.bytes > MAX_BYTES {
            *numbered = Numbered::default();
        }
    }

    /// The writes, oldest first, if exactly `added` of them lead from one history to the other.
    pub(super) fn between(
        &self,
        before: &History,
        after: &History,
        added: u64,
    ) -> Option<Vec<OwnWrite>> {
        let mut numbered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What the snapshot includes is not needed again.
        numbered.drop_first(before.seq() + 1);
        let end = before.seq() + added;
        let reached = (before.seq() + 1..=end).try_fold(before.clone(), |history, seq| {
            history.followed_by(&numbered.writes.get(&seq)?.entry)
        })?;
        (reached == *after).then(|| numbered.drop_first(end + 1).into_values().collect())
    }
}

impl Numbered {
    /// Removes and returns the writes before the number `first`.
    fn drop_first(&mut self, first: u64) -> BTreeMap<u64, OwnWrite> {
        let others = self.writes.split_off(&first);
        let removed = std::mem::replace(&mut self.writes, others);
        self.bytes -= removed.values().map(OwnWrite::bytes).sum::<usize>();
        removed
    }
}

impl OwnWrite {
    fn bytes(&self) -> usize {
        let record = self.record.as_ref().map_or(0, |record| record.text().len());
        self.entry.text().len() + record
    }
}

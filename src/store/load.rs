//! Reading all documents of a kind, in pieces that a slow network delivers in time.

use std::time::Duration;

use tokio::time::Instant;

use super::{Documents, SnapshotSource, StoreError};
use crate::domain::{DocumentKey, Kind};

/// The first piece, while nothing is known about the size of documents and the speed of the network.
const FIRST_KEYS: usize = 2;
const FIRST_PIECE_BYTES: usize = 32 * 1024;
const MIN_PIECE_BYTES: usize = 16 * 1024;
const MAX_PIECE_BYTES: usize = 1024 * 1024;
const MAX_KEYS: usize = 1000;
/// How many times more documents the next piece has at most: they may be larger than those before.
const MAX_GROWTH: usize = 4;
/// A piece that took less time than this is followed by one of twice the size.
const FAST_PIECE: Duration = Duration::from_millis(150);
/// A piece that took more time than this is followed by one of half the size: other replies must get
/// through between two pieces, and each must arrive in time.
const SLOW_PIECE: Duration = Duration::from_millis(500);

/// Passes every document of a kind to `take`, in no order. Takes as long as the network needs; each
/// piece has the store's own time limit.
pub(super) async fn load<S: SnapshotSource + ?Sized>(
    store: &S,
    kind: Kind,
    mut take: impl FnMut(Documents) + Send,
) -> Result<(), StoreError> {
    let mut keys: Vec<DocumentKey> = store
        .ids(kind)
        .await?
        .into_iter()
        .map(|id| DocumentKey::new(kind, id))
        .collect();
    keys.sort_unstable();
    let mut size = PieceSize::default();
    let mut rest = keys.as_slice();
    while !rest.is_empty() {
        let (piece, others) = rest.split_at(size.keys().min(rest.len()));
        let begun = Instant::now();
        let found = match store.get_many(piece).await {
            // It may have been too much: the network became slow, or these documents are larger.
            Err(StoreError::Unavailable(_)) if piece.len() > 1 => {
                size.failed(piece.len());
                continue;
            }
            found => found?,
        };
        let bytes = found.records.iter().map(|record| record.text().len()).sum();
        size.arrived(piece.len(), bytes, begun.elapsed());
        take(found);
        rest = others;
    }
    Ok(())
}

/// How much to ask for at once.
pub(crate) struct PieceSize {
    bytes: usize,
    /// Set while it is not known whether the documents that follow are as small as the others.
    max_keys: usize,
    read_keys: usize,
    read_bytes: usize,
}

impl Default for PieceSize {
    fn default() -> Self {
        Self {
            bytes: FIRST_PIECE_BYTES,
            max_keys: FIRST_KEYS,
            read_keys: 0,
            read_bytes: 0,
        }
    }
}

impl PieceSize {
    /// How many documents.
    pub(crate) fn keys(&self) -> usize {
        let average = self.read_bytes.checked_div(self.read_keys).unwrap_or(0);
        (self.bytes / average.max(1)).clamp(1, self.max_keys)
    }

    /// Notes how many documents and bytes a piece had, and how long it took.
    pub(crate) fn arrived(&mut self, keys: usize, bytes: usize, time: Duration) {
        self.read_keys += keys;
        self.read_bytes += bytes;
        self.max_keys = (self.max_keys * MAX_GROWTH).min(MAX_KEYS);
        if time < FAST_PIECE {
            self.bytes = (self.bytes * 2).min(MAX_PIECE_BYTES);
        } else if time > SLOW_PIECE {
            self.bytes = (self.bytes / 2).max(MIN_PIECE_BYTES);
        }
    }

    /// Makes the next piece much smaller, because one of `keys` documents did not arrive in time.
    pub(crate) fn failed(&mut self, keys: usize) {
        self.bytes = (self.bytes / MAX_GROWTH).max(MIN_PIECE_BYTES);
        self.max_keys = (keys / MAX_GROWTH).max(1);
    }
}

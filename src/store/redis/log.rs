//! Reading the log from the newest entry on, in pieces that a slow network delivers in time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use redis::{RedisError, cmd};
use tokio::time::{Instant, sleep};

use super::{
    connection::Connection,
    reply::{rounded_down, scored_exactly, upper_bound},
};
use crate::domain::{
    audit::{AuditPosition, Slot},
    sha256_hex,
};

/// The first piece has this many entries while nobody knows how large they are, and at most the
/// second number later. Each further one has at most [`MAX_GROWTH`] times as many as the one before.
const FIRST_ENTRIES: usize = 2;
const MAX_FIRST_ENTRIES: usize = 30;
const MAX_GROWTH: usize = 10;
const MAX_ENTRIES: usize = 4000;
/// How long a piece should take, so that others need not wait long for the same connection; how
/// much text that is follows from the pieces before.
const PIECE_MILLIS: usize = 400;
const FIRST_TARGET_BYTES: usize = 128 * 1024;
const MIN_TARGET_BYTES: usize = 32 * 1024;
const MAX_TARGET_BYTES: usize = 1024 * 1024;

/// How often it is checked whether other calls are reading.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The log in Redis, and the connection to read it over.
#[derive(Clone)]
pub(super) struct Log {
    pub(super) connection: Arc<Connection>,
    pub(super) key: String,
    pub(super) use_of: Arc<LogUse>,
}

/// What the readers of one log know of each other.
#[derive(Default)]
pub(super) struct LogUse {
    /// How many calls are reading.
    readers: AtomicUsize,
    /// The average size of the entries that were read last; 0 if that is not known.
    average_bytes: AtomicUsize,
}

/// A call is reading the log until this is dropped.
pub(super) struct Reading(Arc<LogUse>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Which part of the log to read, newest entry first.
#[derive(Debug, Clone, Default)]
pub(super) struct Range {
    /// Only entries of this millisecond and later ones.
    pub(super) since: Option<i64>,
    /// Only entries before this millisecond.
    pub(super) until: Option<i64>,
    /// Only entries after this position.
    pub(super) after: Option<AuditPosition>,
}

/// An entry, and where it is.
pub(super) struct Found {
    pub(super) slot: Slot,
    pub(super) score: f64,
    pub(super) text: String,
}

/// A range that is being read.
pub(super) struct Scan<'a> {
    log: &'a Log,
    range: Range,
    /// Whether the position to go on from was not where it had been, and is searched for among all
    /// entries of its millisecond.
    restarted: bool,
    ended: bool,
    size: PieceSize,
}

impl Log {
    /// Notes that a call is reading.
    pub(super) fn reading(&self) -> Reading {
        self.use_of.readers.fetch_add(1, Ordering::Relaxed);
        Reading(Arc::clone(&self.use_of))
    }

    /// Waits until no call is reading, or for a while.
    pub(super) async fn let_others_go_first(&self, longest: Duration) {
        let until = Instant::now() + longest;
        while self.use_of.readers.load(Ordering::Relaxed) > 0 && Instant::now() < until {
            sleep(LOOK_AGAIN).await;
        }
    }

    pub(super) fn scan(&self, mut range: Range) -> Scan<'_> {
        // A position after the range's begin is passed already.
        let until = range.until;
        range.after = range
            .after
            .filter(|after| until.is_none_or(|until| after.score < until));
        Scan {
            log: self,
            range,
            restarted: false,
            ended: false,
            size: PieceSize::new(self.use_of.average_bytes.load(Ordering::Relaxed)),
        }
    }
}

impl Scan<'_> {
    /// The next entries, at most `wanted` of them and maybe none; `None` at the end of the range.
    ///
    /// Each is returned once, whatever is added meanwhile. A call that is cancelled is as if it had
    /// not been made.
    pub(super) async fn next(&mut self, wanted: usize) -> Result<Option<Vec<Found>>, RedisError> {
        if self.ended {
            return Ok(None);
        }
        let count = self.size.next(wanted);
        // What was read last is read again: what others add before it moves it on.
        let (from, offset, count) = match (&self.range.after, self.range.until) {
            (Some(after), _) => (upper_bound(after.score), after.nth, count + 1),
            (None, Some(until)) => (exclusive(until), 0, count),
            (None, None) => ("+inf".to_owned(), 0, count),
        };
        let to = self
            .range
            .since
            .map_or("-inf".to_owned(), |since| since.to_string());
        let mut command = cmd("ZRANGE");
        command.arg(&self.log.key).arg(from).arg(to);
        command.arg("BYSCORE").arg("REV").arg("LIMIT").arg(offset);
        command.arg(count).arg("WITHSCORES");
        let begun = Instant::now();
        // If the reply never comes, because it is too large, the next one is to be small.
        let average = self.log.use_of.average_bytes.swap(0, Ordering::Relaxed);
        let found = scored_exactly(self.log.connection.send(&command).await?);
        self.size.note(&found, begun.elapsed());
        let average = if found.is_empty() {
            average
        } else {
            self.size.average
        };
        self.log
            .use_of
            .average_bytes
            .store(average, Ordering::Relaxed);
        self.ended = found.len() < count;
        Ok(Some(self.not_read(placed(
            offset,
            self.range.after.as_ref(),
            found,
        ))))
    }

    /// How far the range was read.
    pub(super) fn position(&self) -> Option<&AuditPosition> {
        self.range.after.as_ref()
    }

    /// The entries after the position that was reached, which moves to the last of them.
    fn not_read(&mut self, mut found: Vec<Found>) -> Vec<Found> {
        if let Some(after) = &mut self.range.after {
            let same = found
                .iter()
                .take_while(|entry| entry.slot.score == after.score)
                .count();
            let known = found
                .iter()
                .take(same)
                .position(|entry| sha256_hex(entry.text.as_bytes()).starts_with(&after.digest));
            match known {
                Some(known) => {
                    // It is read again if nothing follows it in this piece.
                    after.nth += known;
                    drop(found.drain(..=known));
                }
                None if same == found.len() && !self.ended => {
                    after.nth += same;
                    return Vec::new();
                }
                None if after.nth > 0 && !self.restarted => {
                    (self.restarted, self.ended, after.nth) = (true, false, 0);
                    return Vec::new();
                }
                // It is not in this log, or not any more.
                None => drop(found.drain(..same)),
            }
        }
        if let Some(last) = found.last() {
            let mut digest = sha256_hex(last.text.as_bytes());
            digest.truncate(16);
            self.range.after = Some(AuditPosition {
                score: last.slot.score,
                digest,
                nth: last.slot.nth,
            });
            self.restarted = false;
        }
        found
    }
}

/// The places of entries that were read from `offset` on.
fn placed(offset: usize, after: Option<&AuditPosition>, found: Vec<(String, f64)>) -> Vec<Found> {
    let mut next = after.map(|after| Slot {
        score: after.score,
        nth: offset,
    });
    found
        .into_iter()
        .map(|(text, score)| {
            let millis = rounded_down(score);
            let nth = next
                .filter(|next| next.score == millis)
                .map_or(0, |next| next.nth);
            next = Some(Slot {
                score: millis,
                nth: nth + 1,
            });
            Found {
                slot: Slot { score: millis, nth },
                score,
                text,
            }
        })
        .collect()
}

/// A range below a score, as Redis reads it.
fn exclusive(score: i64) -> String {
    format!("({score}")
}

/// How many entries the next piece should have.
pub(crate) struct PieceSize {
    first: usize,
    last: usize,
    bytes: usize,
    entries: usize,
    /// The average of all entries so far, or of the last piece if that is more.
    average: usize,
    target: usize,
}

impl PieceSize {
    /// For entries of about `average` bytes; 0 if that is not known.
    pub(crate) fn new(average: usize) -> Self {
        let fitting = FIRST_TARGET_BYTES.checked_div(average).unwrap_or(0);
        Self {
            first: fitting.clamp(FIRST_ENTRIES, MAX_FIRST_ENTRIES),
            last: 0,
            bytes: 0,
            entries: 0,
            average: 0,
            target: FIRST_TARGET_BYTES,
        }
    }

    pub(crate) fn next(&mut self, wanted: usize) -> usize {
        let most = match self.target.checked_div(self.average) {
            Some(fitting) => fitting.min(self.last * MAX_GROWTH).clamp(1, MAX_ENTRIES),
            None => self.first,
        };
        self.last = wanted.clamp(1, most);
        self.last
    }

    pub(crate) fn note<S>(&mut self, found: &[(String, S)], time: Duration) {
        let bytes: usize = found.iter().map(|(text, _)| text.len()).sum();
        self.bytes += bytes;
        self.entries += found.len();
        let average_of = |bytes: usize, entries: usize| bytes.checked_div(entries).unwrap_or(0);
        self.average = average_of(self.bytes, self.entries).max(average_of(bytes, found.len()));
        let millis = usize::try_from(time.as_millis())
            .unwrap_or(usize::MAX)
            .max(1);
        let in_time = bytes.saturating_mul(PIECE_MILLIS) / millis;
        self.target = in_time.clamp(MIN_TARGET_BYTES, MAX_TARGET_BYTES);
    }
}

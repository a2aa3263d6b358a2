//! How a page of the log is filled, which is the same for every store.

use std::ops::ControlFlow;

use super::{
    query::{AuditPage, AuditQuery, LookedAt},
    stored::{AuditPosition, Slot, StoredEntry},
};
use crate::domain::timestamp::Timestamp;

/// A call looks at this many entries at most; see CONTRACT.md, section 2.
pub const MAX_SCANNED_ENTRIES: usize = 10_000;
/// And at this much stored text: large entries take as long as many.
pub const MAX_SCANNED_BYTES: usize = 16 * 1024 * 1024;
/// When a page is full, this many more entries are looked at to find out whether it is the last
/// one, with this much stored text.
const MAX_LOOKAHEAD_ENTRIES: usize = 500;
const MAX_LOOKAHEAD_BYTES: usize = 128 * 1024;

/// A page that is being filled with entries in the order of the log.
///
/// What is on the page, and where the next one begins, depends only on the entries and not on the
/// pieces in which a store reads them.
#[derive(Debug)]
pub struct PageBuilder<'a> {
    query: &'a AuditQuery,
    /// Whether some of the entries that are looked at may not match.
    filtered: bool,
    entries: Vec<StoredEntry>,
    slots: Vec<Slot>,
    bytes: usize,
    scanned: LookedAt,
    lookahead: LookedAt,
    last: Option<Last>,
    end: Option<End>,
}

/// The last entry that was looked at.
#[derive(Debug)]
struct Last {
    slot: Slot,
    /// `None` if it is the last one on the page.
    entry: Option<StoredEntry>,
}

/// Why a page ends before the log does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Full,
    ScannedEnough,
}

impl LookedAt {
    fn add(&mut self, bytes: usize) {
        self.entries += 1;
        self.bytes += bytes;
    }
}

impl<'a> PageBuilder<'a> {
    /// An empty page for `query`.
    #[must_use]
    pub fn new(query: &'a AuditQuery) -> Self {
        Self::filling(query, query.is_filtered())
    }

    /// The same, to be filled with the entries that an index finds.
    #[must_use]
    pub fn of_lookup(query: &'a AuditQuery) -> Self {
        Self::filling(query, query.is_filtered_beyond_lookup())
    }

    fn filling(query: &'a AuditQuery, filtered: bool) -> Self {
        Self {
            query,
            filtered,
            entries: Vec::new(),
            slots: Vec::new(),
            bytes: 0,
            scanned: LookedAt::default(),
            lookahead: LookedAt::default(),
            last: None,
            end: None,
        }
    }

    /// Looks at the next entry of the query's time range; breaks when the page ends before it.
    pub fn look_at(&mut self, slot: Slot, entry: StoredEntry) -> ControlFlow<()> {
        let stored = entry.text().len();
        let matches = self.query.matches(&entry);
        let row = if matches {
            (self.query.row_bytes)(&entry)
        } else {
            0
        };
        self.end = if self.is_full() && (matches || self.looked_ahead_enough())
            || self.is_too_large(row)
        {
            Some(End::Full)
        } else if self.scanned_enough(stored) {
            Some(End::ScannedEnough)
        } else {
            None
        };
        if self.end.is_some() {
            return ControlFlow::Break(());
        }
        if self.is_full() {
            self.lookahead.add(stored);
        }
        self.scanned.add(stored);
        let passed = if matches {
            self.bytes += row;
            self.entries.push(entry);
            self.slots.push(slot);
            None
        } else {
            Some(entry)
        };
        self.last = Some(Last {
            slot,
            entry: passed,
        });
        ControlFlow::Continue(())
    }

    /// How many of the next entries are worth reading, as far as is known: those that may be on the
    /// page, and one that shows that more follow.
    #[must_use]
    pub fn remaining(&self) -> usize {
        let useful = match (self.is_full(), self.filtered) {
            (true, true) => MAX_LOOKAHEAD_ENTRIES.saturating_sub(self.lookahead.entries),
            (true, false) => 0,
            (false, true) => MAX_SCANNED_ENTRIES,
            (false, false) => {
                let average = self.bytes.checked_div(self.entries.len()).unwrap_or(0);
                let space = self.query.max_bytes.saturating_sub(self.bytes);
                let fitting = space.checked_div(average).unwrap_or(usize::MAX);
                fitting.min(self.query.limit.saturating_sub(self.entries.len()))
            }
        };
        let unscanned = MAX_SCANNED_ENTRIES.saturating_sub(self.scanned.entries);
        useful.min(unscanned).saturating_add(1)
    }

    /// The page, when there are no more entries.
    #[must_use]
    pub fn finish(self) -> AuditPage {
        let (next, searched_since) = match self.end {
            None => (None, None),
            Some(End::Full) => (self.position(), None),
            Some(End::ScannedEnough) => (self.position(), self.time()),
        };
        AuditPage {
            entries: self.entries,
            slots: self.slots,
            next,
            searched_since,
            looked_at: self.scanned,
            log_begins: None,
        }
    }

    /// The page, when there is no time to look further.
    #[must_use]
    pub fn stop(mut self) -> AuditPage {
        let end = if self.is_full() {
            End::Full
        } else {
            End::ScannedEnough
        };
        self.end.get_or_insert(end);
        self.finish()
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= self.query.limit
    }

    fn is_too_large(&self, row: usize) -> bool {
        !self.entries.is_empty() && self.bytes.saturating_add(row) > self.query.max_bytes
    }

    fn looked_ahead_enough(&self) -> bool {
        self.lookahead.entries >= MAX_LOOKAHEAD_ENTRIES
            || self.lookahead.bytes >= MAX_LOOKAHEAD_BYTES
    }

    fn scanned_enough(&self, next: usize) -> bool {
        self.scanned.entries >= MAX_SCANNED_ENTRIES
            || self.scanned.entries > 0
                && self.scanned.bytes.saturating_add(next) > MAX_SCANNED_BYTES
    }

    fn position(&self) -> Option<AuditPosition> {
        let last = self.last.as_ref()?;
        let entry = last.entry.as_ref().or(self.entries.last())?;
        Some(AuditPosition {
            score: last.slot.score,
            digest: entry.digest(),
            nth: last.slot.nth,
        })
    }

    fn time(&self) -> Option<Timestamp> {
        let last = self.last.as_ref()?;
        Some(Timestamp::from_millis(last.slot.score))
    }
}

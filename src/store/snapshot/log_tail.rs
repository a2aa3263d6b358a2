//! The newest entries of the audit log and its counters, for an outage.

use std::sync::Arc;

use crate::{
    domain::{
        AuditPage, AuditQuery, AuditStats, StoredEntry,
        audit::{PageBuilder, Slot},
    },
    store::{SnapshotSource, StoreError},
};

/// How many of the newest audit entries a snapshot holds at most, and how many bytes of them.
const MAX_ENTRIES: usize = 1000;
const MAX_BYTES: usize = 1024 * 1024;
/// How many entries one answer of the store holds at most.
const PAGE_ENTRIES: usize = 250;
/// How many more entries than expected are read, because others go on writing.
const EXTRA_ENTRIES: usize = 4;
/// How often reading the last few entries is tried while others go on writing.
const MAX_ATTEMPTS: usize = 3;
/// How many of the newest entries the statistics show.
const RECENT_ENTRIES: usize = 10;

/// The end of the log.
#[derive(Debug, Clone, Default)]
pub(super) struct LogTail {
    /// Newest first; at least one, if the log has any.
    entries: Vec<(Slot, Arc<StoredEntry>)>,
    /// How many entries the log had when the first one was the newest.
    total: Total,
    /// Counted when the log had as many entries as that, or more.
    stats: AuditStats,
}

/// A number of entries.
#[derive(Debug, Clone, Copy)]
enum Total {
    Exactly(u64),
    /// Others wrote while it was read.
    AtLeast(u64),
}

impl Default for Total {
    fn default() -> Self {
        Self::AtLeast(0)
    }
}

impl LogTail {
    /// Reads the newest entries.
    pub(super) async fn read(store: &dyn SnapshotSource) -> Result<Self, StoreError> {
        let mut log = Self {
            total: Total::AtLeast(store.revision().await?.entries),
            ..Self::default()
        };
        let mut query = page_of(PAGE_ENTRIES);
        while log.entries.len() < MAX_ENTRIES && query.max_bytes > 0 {
            let page = store.audit_entries(&query).await?;
            let bytes: usize = page.entries.iter().map(|entry| entry.text().len()).sum();
            query.max_bytes = query.max_bytes.saturating_sub(bytes);
            query.after.clone_from(&page.next);
            log.entries.extend(placed(page));
            if query.after.is_none() {
                break;
            }
        }
        log.truncate();
        Ok(log)
    }

    /// Reads the counters.
    pub(super) async fn count(&mut self, store: &dyn SnapshotSource) -> Result<(), StoreError> {
        self.stats = store.audit_stats().await?;
        Ok(())
    }

    /// Adds what was written since it was read and counted; returns whether that could be found out.
    /// Entries may also have been added among the older ones.
    pub(super) async fn catch_up(
        &mut self,
        store: &dyn SnapshotSource,
    ) -> Result<bool, StoreError> {
        for _ in 0..MAX_ATTEMPTS {
            let revision = store.revision().await?;
            let (Total::Exactly(total) | Total::AtLeast(total)) = self.total;
            let Some(expected) = revision
                .entries
                .checked_sub(total)
                .and_then(|expected| usize::try_from(expected).ok())
                .filter(|expected| *expected <= PAGE_ENTRIES)
            else {
                return Ok(false);
            };
            let page = store
                .audit_entries(&page_of(expected + EXTRA_ENTRIES))
                .await?;
            if store.revision().await? != revision {
                continue;
            }
            let added = match self.entries.first() {
                Some((_, newest)) => page.entries.iter().position(|entry| *entry == **newest),
                None => Some(page.entries.len()),
            };
            let fits = |added: &usize| match self.total {
                Total::Exactly(_) => *added == expected,
                Total::AtLeast(_) => true,
            };
            let Some(added) = added.filter(fits) else {
                return Ok(false);
            };
            self.entries.splice(0..0, placed(page).take(added));
            self.total = Total::Exactly(revision.entries);
            let uncounted = revision.entries.saturating_sub(self.stats.total);
            for (_, entry) in self
                .entries
                .iter()
                .take(usize::try_from(uncounted).unwrap_or(0))
            {
                self.stats.count(entry);
            }
            self.truncate();
            return Ok(true);
        }
        Ok(false)
    }

    /// Whether it has everything of a log with `total` entries that is new enough.
    pub(super) fn includes(&self, total: u64) -> bool {
        matches!(self.total, Total::Exactly(own) if own >= total)
    }

    /// This and newer entries, newest first, which were written when the log had `total` entries.
    pub(super) fn followed_by(&self, total: u64, newer: Vec<StoredEntry>) -> Self {
        let mut log = self.clone();
        for (entry, number) in newer.into_iter().rev().zip(total + 1..) {
            if number > log.stats.total {
                log.stats.count(&entry);
            }
            // It may have been read after that.
            if matches!(log.total, Total::Exactly(total) if total == number - 1) {
                log.total = Total::Exactly(number);
                let slot = Slot {
                    score: entry.position().score,
                    nth: 0,
                };
                log.entries.insert(0, (slot, Arc::new(entry)));
            }
        }
        log.truncate();
        log
    }

    /// Drops the oldest entries, until the others are few and small enough.
    fn truncate(&mut self) {
        let mut bytes = 0;
        let count = self
            .entries
            .iter()
            .take(MAX_ENTRIES)
            .take_while(|(_, entry)| {
                let first = bytes == 0;
                bytes += entry.text().len();
                first || bytes <= MAX_BYTES
            });
        let count = count.count();
        self.entries.truncate(count);
    }

    /// A page of the log. Where the log goes on and these entries do not, the page has a position to
    /// go on from, when the store answers again; a page from there on is `None`.
    pub(super) fn page(&self, query: &AuditQuery) -> Option<AuditPage> {
        let begin = query.after.as_ref().map_or(0, |position| {
            let known = self
                .entries
                .iter()
                .position(|(_, entry)| entry.digest() == position.digest);
            match known {
                Some(at) => at + 1,
                None => self
                    .entries
                    .iter()
                    .take_while(|(slot, _)| slot.score >= position.score)
                    .count(),
            }
        });
        let complete =
            matches!(self.total, Total::Exactly(total) if self.entries.len() as u64 >= total);
        if begin >= self.entries.len() && !complete {
            return None;
        }
        let mut page = PageBuilder::new(query);
        let mut looked_at_any = false;
        for (slot, entry) in self.entries.iter().skip(begin) {
            if !in_time(query, slot.score) {
                continue;
            }
            if page.look_at(*slot, StoredEntry::clone(entry)).is_break() {
                return Some(page.finish());
            }
            looked_at_any = true;
        }
        let reaches_back = query.since.is_some_and(|since| {
            let oldest = self.entries.last();
            oldest.is_some_and(|(slot, _)| slot.score < since.millis_ceil())
        });
        if complete || reaches_back {
            return Some(page.finish());
        }
        looked_at_any.then(|| page.stop())
    }

    /// The counters, with the newest entries.
    pub(super) fn stats(&self) -> (AuditStats, Vec<StoredEntry>) {
        let recent = self.entries.iter().take(RECENT_ENTRIES);
        let recent = recent.map(|(_, entry)| StoredEntry::clone(entry)).collect();
        (self.stats.clone(), recent)
    }
}

/// The newest entries, at most `limit`.
fn page_of(limit: usize) -> AuditQuery {
    AuditQuery {
        limit,
        max_bytes: MAX_BYTES,
        ..AuditQuery::default()
    }
}

fn placed(page: AuditPage) -> impl Iterator<Item = (Slot, Arc<StoredEntry>)> {
    page.slots
        .into_iter()
        .zip(page.entries.into_iter().map(Arc::new))
}

/// Whether a query asks for entries of this time.
fn in_time(query: &AuditQuery, millis: i64) -> bool {
    query
        .since
        .is_none_or(|since| millis >= since.millis_ceil())
        && query.until.is_none_or(|until| millis < until.millis_ceil())
}

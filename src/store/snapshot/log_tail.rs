//! The newest entries of the audit log and its counters, for an outage.

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
/// How many of the newest entries the statistics show.
const RECENT_ENTRIES: usize = 10;

/// The end of the log.
#[derive(Debug, Clone, Default)]
pub(super) struct LogTail {
    /// Newest first; at least one, if the log has any.
    entries: Vec<StoredEntry>,
    /// Of the log as it was before some of the entries, or after some more.
    stats: AuditStats,
}

impl LogTail {
    /// Reads the newest entries and the counters.
    pub(super) async fn read(store: &dyn SnapshotSource) -> Result<Self, StoreError> {
        let mut log = Self::default();
        let mut query = AuditQuery {
            limit: PAGE_ENTRIES,
            max_bytes: MAX_BYTES,
            ..AuditQuery::default()
        };
        while log.entries.len() < MAX_ENTRIES && query.max_bytes > 0 {
            let page = store.audit_entries(&query).await?;
            let bytes: usize = page.entries.iter().map(|entry| entry.text().len()).sum();
            query.max_bytes = query.max_bytes.saturating_sub(bytes);
            log.entries.extend(page.entries);
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
        log.truncate();
        log.stats = store.audit_stats().await?;
        Ok(log)
    }

    /// Adds what was written since it was read, when the log had `total` entries or more; returns
    /// whether that could be found out.
    pub(super) async fn catch_up(
        &mut self,
        store: &dyn SnapshotSource,
        total: u64,
    ) -> Result<bool, StoreError> {
        let query = AuditQuery {
            limit: PAGE_ENTRIES,
            max_bytes: MAX_BYTES,
            ..AuditQuery::default()
        };
        let page = store.audit_entries(&query).await?.entries;
        let known = match self.entries.first() {
            Some(newest) => page.iter().position(|entry| entry == newest),
            None => Some(page.len()),
        };
        let Some(known) = known else {
            return Ok(false);
        };
        self.entries.splice(0..0, page.into_iter().take(known));
        self.truncate();
        if self.stats.total < total {
            self.stats = store.audit_stats().await?;
        }
        Ok(true)
    }

    /// This and newer entries, newest first, which came when the log had `total` entries. Because it
    /// was read after that, it may have some of them, and its counters may count some.
    pub(super) fn followed_by(&self, total: u64, newer: Vec<StoredEntry>) -> Self {
        let mut log = self.clone();
        for (entry, number) in newer.into_iter().rev().zip(total + 1..) {
            if number > log.stats.total {
                log.stats.count(&entry);
            }
            if !log.entries.contains(&entry) {
                log.entries.insert(0, entry);
            }
        }
        log.truncate();
        log
    }

    /// Drops the oldest entries, until the others are few and small enough.
    fn truncate(&mut self) {
        let mut bytes = 0;
        let count = self.entries.iter().take(MAX_ENTRIES).take_while(|entry| {
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
            match self
                .entries
                .iter()
                .position(|entry| entry.digest() == position.digest)
            {
                Some(at) => at + 1,
                None => self
                    .entries
                    .iter()
                    .take_while(|entry| entry.position().score >= position.score)
                    .count(),
            }
        });
        let complete = self.entries.len() as u64 >= self.stats.total;
        if begin >= self.entries.len() && !complete {
            return None;
        }
        let mut page = PageBuilder::new(query);
        let mut looked_at_any = false;
        for entry in self.entries.iter().skip(begin) {
            let score = entry.position().score;
            if !in_time(query, score) {
                continue;
            }
            if page
                .look_at(Slot { score, nth: 0 }, entry.clone())
                .is_break()
            {
                return Some(page.finish());
            }
            looked_at_any = true;
        }
        let oldest = self.entries.last().map(|oldest| oldest.position().score);
        let reaches_back = query
            .since
            .is_some_and(|since| oldest.is_some_and(|oldest| oldest < since.millis_ceil()));
        if complete || reaches_back {
            return Some(page.finish());
        }
        looked_at_any.then(|| page.stop())
    }

    /// The counters, with the newest entries.
    pub(super) fn stats(&self) -> (AuditStats, Vec<StoredEntry>) {
        let recent = self.entries.iter().take(RECENT_ENTRIES).cloned();
        (self.stats.clone(), recent.collect())
    }
}

/// Whether a query asks for entries of this time.
fn in_time(query: &AuditQuery, millis: i64) -> bool {
    query
        .since
        .is_none_or(|since| millis >= since.millis_ceil())
        && query.until.is_none_or(|until| millis < until.millis_ceil())
}

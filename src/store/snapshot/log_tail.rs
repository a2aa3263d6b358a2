//! The newest entries of the audit log and its counters, for an outage.

use std::sync::Arc;

use crate::{
    domain::{
        AuditPage, AuditQuery, AuditStats, StoredEntry, Timestamp,
        audit::{PageBuilder, Slot},
    },
    store::{Revision, SnapshotSource, StoreError},
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

/// The end of the log.
#[derive(Debug, Clone, Default)]
pub(super) struct LogTail {
    /// Newest first; at least one, if the log has any.
    entries: Vec<(Slot, Arc<StoredEntry>)>,
    /// When the first one was the newest.
    revision: Revision,
    /// Counted when the log had as many entries as then, or more.
    stats: AuditStats,
    /// The time of the log's oldest entry, then or later.
    begins: Option<Timestamp>,
}

impl LogTail {
    /// Reads the newest entries; none if others write all the time.
    pub(super) async fn read(store: &dyn SnapshotSource) -> Result<Self, StoreError> {
        let mut log = Self::default();
        let Some((revision, page)) = newest(store, |_| Some(PAGE_ENTRIES)).await? else {
            return Ok(log);
        };
        (log.revision, log.begins) = (revision, page.log_begins);
        let mut query = page_of(PAGE_ENTRIES);
        let mut next = Some(page);
        while let Some(page) = next.take() {
            let bytes: usize = page.entries.iter().map(|entry| entry.text().len()).sum();
            query.max_bytes = query.max_bytes.saturating_sub(bytes);
            query.after.clone_from(&page.next);
            log.entries.extend(placed(page));
            if query.after.is_some() && query.max_bytes > 0 && log.entries.len() < MAX_ENTRIES {
                next = Some(store.audit_entries(&query).await?);
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

    /// Whether the counters are right.
    pub(super) fn is_counted(&self) -> bool {
        !self.stats.recounting
    }

    /// Adds what was written since it was read, and returns the revision that it has then; `None` if
    /// that cannot be found out. Entries may also have been added among the older ones, or be lost.
    pub(super) async fn catch_up(
        &mut self,
        store: &dyn SnapshotSource,
    ) -> Result<Option<Revision>, StoreError> {
        let before = self.revision.entries;
        let added = |now: &Revision| usize::try_from(now.entries.checked_sub(before)?).ok();
        let limit = |now: &Revision| {
            let added = added(now).filter(|added| *added <= PAGE_ENTRIES)?;
            Some(added + EXTRA_ENTRIES)
        };
        let Some((revision, page)) = newest(store, limit).await? else {
            return Ok(None);
        };
        let found = match self.entries.first() {
            Some((_, newest)) => page.entries.iter().position(|entry| *entry == **newest),
            None => Some(page.entries.len()),
        };
        let Some(added) = found.filter(|found| added(&revision) == Some(*found)) else {
            return Ok(None);
        };
        self.begins = page.log_begins;
        self.entries.splice(0..0, placed(page).take(added));
        let uncounted = revision.entries.saturating_sub(self.stats.total);
        let uncounted = usize::try_from(uncounted).unwrap_or(usize::MAX);
        for (_, entry) in self.entries.iter().take(uncounted) {
            self.stats.count(entry);
        }
        self.truncate();
        self.revision = revision.clone();
        Ok(Some(revision))
    }

    /// Whether it is the end of the log at a revision.
    pub(super) fn is_of(&self, revision: &Revision) -> bool {
        self.revision.history == revision.history && self.revision.entries == revision.entries
    }

    /// This and those of the entries, newest first, that it lacks. They lead from one revision to
    /// another one. It stays as it is if it is of none in between.
    pub(super) fn followed_by(
        &self,
        before: &Revision,
        after: &Revision,
        newer: Vec<StoredEntry>,
    ) -> Self {
        let mut log = self.clone();
        let mut reached = Some(before.history.clone());
        let mut follows = log.is_of(before);
        for (entry, number) in newer.into_iter().rev().zip(before.entries + 1..) {
            reached = reached.and_then(|history| history.followed_by(&entry));
            if !follows {
                follows = reached.as_ref() == Some(&log.revision.history)
                    && number == log.revision.entries;
                continue;
            }
            if number > log.stats.total {
                log.stats.count(&entry);
            }
            let slot = Slot {
                score: entry.position().score,
                nth: 0,
            };
            log.begins.get_or_insert(Timestamp::from_millis(slot.score));
            // A replica may have told an older revision than that of the log.
            if !log.entries.iter().any(|(_, known)| **known == entry) {
                log.entries.insert(0, (slot, Arc::new(entry)));
            }
        }
        if follows {
            log.truncate();
            log.revision = after.clone();
        }
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
        Some(AuditPage {
            log_begins: self.begins,
            ..self.found(query)?
        })
    }

    fn found(&self, query: &AuditQuery) -> Option<AuditPage> {
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
        let complete = self.entries.len() as u64 >= self.revision.entries;
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

    /// The counters, and the page for `newest`.
    pub(super) fn stats(&self, newest: &AuditQuery) -> Option<(AuditStats, AuditPage)> {
        Some((self.stats.clone(), self.page(newest)?))
    }
}

/// The newest entries, as many as `limit` asks for at the revision that they belong to; `None` if it
/// asks for none, or others write all the time.
async fn newest(
    store: &dyn SnapshotSource,
    limit: impl Fn(&Revision) -> Option<usize> + Send + Sync,
) -> Result<Option<(Revision, AuditPage)>, StoreError> {
    for _ in 0..MAX_ATTEMPTS {
        let revision = store.revision().await?;
        let Some(limit) = limit(&revision) else {
            return Ok(None);
        };
        let query = AuditQuery {
            with_log_begins: true,
            ..page_of(limit)
        };
        let page = store.audit_entries(&query).await?;
        if store.revision().await? == revision {
            return Ok(Some((revision, page)));
        }
    }
    Ok(None)
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

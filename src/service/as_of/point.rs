//! Which point in the log a time or an audit id stands for.

use std::collections::BTreeSet;

use crate::{
    deadline::Deadline,
    domain::{
        AuditPage, AuditQuery, DocumentKey, PointInTime, StoredEntry, Timestamp, Violation,
        audit::{AuditPosition, MAX_SCANNED_ENTRIES, Slot},
        text::truncate,
    },
    service::{ContentService, Error, read::in_time},
};

/// How many entries may lie between a point and the present; see CONTRACT.md, section 2. As many are
/// looked through for those of one document, or for one of them, where no index finds them.
pub(super) const MAX_ENTRIES: usize = 20_000;

/// A point in the log: after one of its entries, or before all of them.
#[derive(Debug, Clone)]
pub struct LogPoint {
    /// The argument that named it.
    pub(super) argument: &'static str,
    /// The last entry at or before it; `None` where the log begins later.
    pub(super) last: Option<(Slot, StoredEntry)>,
    /// Where there is no such entry, how the log begins.
    pub(super) log_begin: LogBegin,
}

/// How the log begins.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LogBegin {
    /// The time of its oldest entry.
    pub(super) time: Option<Timestamp>,
    /// Whether that is the first write of all, and not the first that is left.
    pub(super) is_first_write: bool,
}

impl LogPoint {
    /// The last entry at or before it; `None` where the log begins later.
    #[must_use]
    pub fn entry(&self) -> Option<&StoredEntry> {
        self.last.as_ref().map(|(_, entry)| entry)
    }

    /// Where its entry is in the log.
    pub(super) fn position(&self) -> Option<AuditPosition> {
        let (slot, entry) = self.last.as_ref()?;
        Some(AuditPosition {
            score: slot.score,
            digest: entry.digest(),
            nth: slot.nth,
        })
    }

    /// The time from which on entries may be newer than it.
    pub(super) fn since(&self) -> Option<Timestamp> {
        let (slot, _) = self.last.as_ref()?;
        Some(Timestamp::from_millis(slot.score))
    }

    /// Whether its entry is about this document.
    pub(super) fn is_of(&self, key: &DocumentKey) -> bool {
        let of = self.entry().and_then(StoredEntry::key);
        of.as_ref() == Some(key)
    }

    /// Why a call about it is refused.
    pub(super) fn refused(&self, rule: &'static str, message: impl Into<String>) -> Error {
        refused(self.argument, rule, message)
    }
}

impl ContentService {
    /// The point in the log that `argument` names.
    ///
    /// # Errors
    /// When it is in the future, or no entry has this audit id.
    pub async fn log_point(
        &self,
        point: &PointInTime,
        argument: &'static str,
        deadline: Deadline,
    ) -> Result<LogPoint, Error> {
        let last = match point {
            PointInTime::Time(time) => self.last_entry_at(*time, argument, deadline).await?,
            PointInTime::Entry(id) => Some(self.entry_named(id, argument, deadline).await?),
        };
        self.point_after(last, argument, deadline).await
    }

    /// The present: the point after the newest entry.
    pub async fn newest_point(
        &self,
        argument: &'static str,
        deadline: Deadline,
    ) -> Result<LogPoint, Error> {
        let query = AuditQuery {
            limit: 1,
            ..AuditQuery::default()
        };
        let last = first(self.log_page(&query, deadline).await?);
        self.point_after(last, argument, deadline).await
    }

    async fn point_after(
        &self,
        last: Option<(Slot, StoredEntry)>,
        argument: &'static str,
        deadline: Deadline,
    ) -> Result<LogPoint, Error> {
        // Entries without a time come before all others, whenever they were written.
        let last = last.filter(|(slot, _)| slot.score > 0);
        let log_begin = match last {
            Some(_) => LogBegin::default(),
            None => self.log_begin(deadline).await?,
        };
        Ok(LogPoint {
            argument,
            last,
            log_begin,
        })
    }

    async fn last_entry_at(
        &self,
        time: Timestamp,
        argument: &'static str,
        deadline: Deadline,
    ) -> Result<Option<(Slot, StoredEntry)>, Error> {
        if time.millis() > self.now().millis_ceil() {
            self.check_past(time, argument, deadline).await?;
        }
        let query = AuditQuery {
            until: Some(Timestamp::from_millis(time.millis() + 1)),
            limit: 1,
            ..AuditQuery::default()
        };
        Ok(first(self.log_page(&query, deadline).await?))
    }

    /// Refuses a time in the future. The clock of the store, or of another server, may be ahead of
    /// this one, so the time of the newest entry is past in any case.
    async fn check_past(
        &self,
        time: Timestamp,
        argument: &'static str,
        deadline: Deadline,
    ) -> Result<(), Error> {
        let newest = self.newest_point(argument, deadline).await?;
        let newest = newest.last.map_or(0, |(slot, _)| slot.score);
        if time.millis() <= newest {
            return Ok(());
        }
        let message = format!("this time is in the future; it is {} now", self.now());
        Err(refused(argument, "maximum", message))
    }

    async fn entry_named(
        &self,
        id: &str,
        argument: &'static str,
        deadline: Deadline,
    ) -> Result<(Slot, StoredEntry), Error> {
        let mut query = AuditQuery::by_ids(BTreeSet::from([id.to_owned()]));
        let _permit = self.log_permit(&query, deadline).await?;
        let mut passed = 0;
        loop {
            let mut page = self.log_page(&query, deadline).await?;
            query.after = page.next.take();
            passed += entries_passed(&page);
            if let Some(found) = first(page) {
                return Ok(found);
            }
            if query.after.is_none() {
                let message = format!("no entry of the audit log has the id `{}`", truncate(id));
                return Err(refused(argument, "unknown", message));
            }
            if passed >= MAX_ENTRIES {
                let message = format!(
                    "no entry with the id `{}` was found in the newest part of the audit log, and a call looks through {MAX_ENTRIES} entries at most; name a time instead",
                    truncate(id)
                );
                return Err(refused(argument, "maximum", message));
            }
        }
    }

    async fn log_begin(&self, deadline: Deadline) -> Result<LogBegin, Error> {
        let query = AuditQuery {
            with_log_begins: true,
            limit: 1,
            ..AuditQuery::default()
        };
        let Some(time) = self.log_page(&query, deadline).await?.log_begins else {
            return Ok(LogBegin::default());
        };
        let query = AuditQuery {
            until: Some(Timestamp::from_millis(time.millis() + 1)),
            limit: MAX_SCANNED_ENTRIES,
            ..AuditQuery::default()
        };
        let page = self.log_page(&query, deadline).await?;
        let oldest = page.entries.last().filter(|_| page.next.is_none());
        Ok(LogBegin {
            time: Some(time),
            is_first_write: oldest.and_then(StoredEntry::seq) == Some(1),
        })
    }

    pub(super) async fn log_page(
        &self,
        query: &AuditQuery,
        deadline: Deadline,
    ) -> Result<AuditPage, Error> {
        Ok(in_time(
            deadline.run(self.store.audit_entries(query)).await,
        )?)
    }
}

/// How many entries were looked at for a page that are not on it. A search that ended early counts as
/// the longest.
pub(super) fn entries_passed(page: &AuditPage) -> usize {
    let looked_at = match page.searched_since {
        Some(_) => MAX_SCANNED_ENTRIES,
        None => page.looked_at.entries,
    };
    looked_at.saturating_sub(page.entries.len())
}

/// The first entry of a page.
pub(super) fn first(page: AuditPage) -> Option<(Slot, StoredEntry)> {
    page.slots.into_iter().zip(page.entries).next()
}

fn refused(argument: &'static str, rule: &'static str, message: impl Into<String>) -> Error {
    Error::Invalid(vec![Violation::new(argument, rule, message)])
}

//! Reading pages of the audit log, and its counters.

use std::{sync::Arc, time::Duration};

use redis::{RedisError, Value, cmd};
use tokio::time::{Instant, timeout_at};

use super::{
    ReadFrom, RedisStore,
    error::read_error,
    log::{Log, Range, Scan},
    recount::Counter,
    reply::{pairs, scored, unwrap_reply},
};
use crate::{
    domain::{
        AuditPage, AuditQuery, AuditStats, StoredEntry, Timestamp,
        audit::{DATED_SCORES, PageBuilder},
    },
    store::StoreError,
};

/// How long a call may look through the log before it answers what it has found; see "Time budget
/// of a call" in docs/architecture.md.
const SCAN_TIMEOUT: Duration = Duration::from_millis(2500);

/// How far a part of the log was looked through for a page.
pub(super) enum Looked {
    /// To its end.
    AtAll,
    /// Until the page ended.
    UntilPageEnded,
    /// Until there was no time left.
    UntilTimeOver,
}

/// The score of the oldest entry, without the entry, which may be large.
const OLDEST_SCORE: &str = "return tonumber(redis.call('ZRANGE', KEYS[1], ARGV[1], ARGV[2], 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')[2])";

impl RedisStore {
    pub(super) async fn read_audit_entries(
        &self,
        query: &AuditQuery,
    ) -> Result<AuditPage, StoreError> {
        if !query.with_log_begins {
            return self.read_page(query).await;
        }
        // Both are sent at the same time, so this costs no round trip.
        let (log_begins, page) = tokio::join!(self.read_log_begins(), self.read_page(query));
        Ok(AuditPage {
            log_begins,
            ..page?
        })
    }

    /// The time of the oldest entry that has one, as far as Redis says it.
    async fn read_log_begins(&self) -> Option<Timestamp> {
        let (first, last) = DATED_SCORES.into_inner();
        let mut command;
        if self.write.is_some() {
            command = cmd("EVAL");
            command.arg(OLDEST_SCORE).arg(1);
            command.arg(self.keys.entries()).arg(first).arg(last);
        } else {
            // A read-only credential may run no script, and gets the entry too.
            command = cmd("ZRANGE");
            command.arg(self.keys.entries()).arg(first).arg(last);
            command.arg("BYSCORE").arg("LIMIT").arg(0).arg(1);
            command.arg("WITHSCORES");
        }
        let connection = self.read_connection(ReadFrom::Bulk);
        let score = match connection.send(&command).await.ok()? {
            Value::Int(score) => score,
            found => scored(found).first()?.1,
        };
        Some(Timestamp::from_millis(score))
    }

    async fn read_page(&self, query: &AuditQuery) -> Result<AuditPage, StoreError> {
        let stop_at = Instant::now() + SCAN_TIMEOUT;
        if let Some(page) = self.read_indexed(query, stop_at).await? {
            return Ok(page);
        }
        let log = self.log();
        let _reading = log.reading();
        let mut scan = log.scan(Range {
            since: query.since.map(Timestamp::millis_ceil),
            until: query.until.map(Timestamp::millis_ceil),
            after: query.after.clone(),
        });
        let mut page = PageBuilder::new(query);
        let looked = look_through(&mut scan, &mut page, stop_at).await;
        match looked.map_err(|error| read_error(&error))? {
            Looked::AtAll | Looked::UntilPageEnded => Ok(page.finish()),
            Looked::UntilTimeOver => {
                let mut page = page.stop();
                if page.next.is_none() {
                    // Not even the end of the page before was found again.
                    page.next = scan.position().cloned();
                }
                Ok(page)
            }
        }
    }

    pub(super) async fn read_audit_stats(&self) -> Result<AuditStats, StoreError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("ZCARD").arg(self.keys.entries());
        pipeline.cmd("HGETALL").arg(self.keys.stats());
        pipeline
            .cmd("HGETALL")
            .arg(self.keys.internal("unlabelled"));
        let values = self.read_all(ReadFrom::Any, &pipeline).await?;
        let mut values = values
            .into_iter()
            .map(unwrap_reply)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| read_error(&error))?
            .into_iter();
        let total = match values.next() {
            Some(Value::Int(total)) => u64::try_from(total).unwrap_or_default(),
            _ => 0,
        };
        let counters = values.next().map(pairs).unwrap_or_default();
        let unlabelled = values.next().map(pairs).unwrap_or_default();
        let stats = AuditStats::from_counters(total, &counters, &unlabelled);
        if stats.recounting {
            let counter = Counter {
                log: self.log(),
                write: self.write.clone(),
                keys: self.keys.clone(),
            };
            return Ok(self.recounts.join(counter, stats).await);
        }
        Ok(stats)
    }

    /// The log, over the connection for reading much.
    pub(super) fn log(&self) -> Log {
        Log {
            connection: Arc::clone(self.read_connection(ReadFrom::Bulk)),
            key: self.keys.entries(),
            use_of: Arc::clone(&self.log_use),
        }
    }
}

/// Looks through a part of the log until the page ends.
pub(super) async fn look_through(
    scan: &mut Scan<'_>,
    page: &mut PageBuilder<'_>,
    stop_at: Instant,
) -> Result<Looked, RedisError> {
    // Without a first piece there is nothing to answer, so that one may take longer.
    let mut found = scan.next(page.remaining()).await;
    loop {
        let Some(piece) = found? else {
            return Ok(Looked::AtAll);
        };
        for entry in piece {
            let looked = page.look_at(entry.slot, StoredEntry::parse(entry.text));
            if looked.is_break() {
                return Ok(Looked::UntilPageEnded);
            }
        }
        found = match timeout_at(stop_at, scan.next(page.remaining())).await {
            Ok(Err(error)) if error.is_timeout() => return Ok(Looked::UntilTimeOver),
            Ok(found) => found,
            Err(_) => return Ok(Looked::UntilTimeOver),
        };
    }
}

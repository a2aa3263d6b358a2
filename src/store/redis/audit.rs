//! Reading the audit log and its counters.

use std::collections::{HashMap, HashSet};

use redis::{Value, cmd};
use tracing::warn;

use super::{
    ReadFrom, RedisStore,
    error::{describe, read_error},
    reply::{pairs, scored, unwrap_reply, upper_bound},
};
use crate::{
    domain::{
        AuditPage, AuditQuery, AuditStats, StoredEntry, Timestamp,
        audit::{AuditPosition, Category},
        sha256_hex,
    },
    store::StoreError,
};

/// A scan of the log fetches this many entries first, and twice as many each time.
const FIRST_SCAN_ENTRIES: usize = 100;
const MAX_SCAN_ENTRIES: usize = 4000;

impl RedisStore {
    pub(super) async fn read_audit_entries(
        &self,
        query: &AuditQuery,
    ) -> Result<AuditPage, StoreError> {
        let before = query.until.map(|until| until.millis_ceil() - 1);
        let start = match (&query.after, before) {
            (Some(after), Some(before)) => Some(after.score.min(before)),
            (Some(after), None) => Some(after.score),
            (None, before) => before,
        };
        let mut passed = query.after.is_none();
        let (mut page, mut last_score) = (AuditPage::default(), 0);
        self.scan(
            start,
            query.since.map(Timestamp::millis_ceil),
            |score, member| {
                if let Some(after) = query.after.as_ref().filter(|_| !passed) {
                    if score == after.score {
                        // Everything of that millisecond up to the position itself was on earlier
                        // pages.
                        passed = sha256_hex(member.as_bytes()).starts_with(&after.digest);
                        return true;
                    }
                    passed = true;
                }
                let entry = StoredEntry::parse(member);
                if query.matches(&entry) {
                    if page.entries.len() == query.limit {
                        page.next = page.entries.last().map(|last| AuditPosition {
                            score: last_score,
                            digest: last.digest(),
                        });
                        return false;
                    }
                    last_score = score;
                    page.entries.push(entry);
                }
                true
            },
        )
        .await?;
        Ok(page)
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
        match AuditStats::from_counters(total, &counters, &unlabelled) {
            Some(stats) => Ok(stats),
            None => self.recount(&counters).await,
        }
    }

    /// Reads the log from the newest entry on, in growing steps, until `visit` returns false.
    /// Visits each entry once, whatever is added meanwhile.
    pub(super) async fn scan(
        &self,
        mut until: Option<i64>,
        since: Option<i64>,
        mut visit: impl FnMut(i64, String) -> bool + Send,
    ) -> Result<(), StoreError> {
        let mut step = FIRST_SCAN_ENTRIES;
        // What was visited of the millisecond that the next step begins with.
        let mut seen: HashSet<String> = HashSet::new();
        loop {
            let mut command = cmd("ZRANGE");
            let from = until.map_or("+inf".to_owned(), upper_bound);
            let to = since.map_or("-inf".to_owned(), |score| score.to_string());
            command.arg(self.keys.entries()).arg(from).arg(to);
            command
                .arg("BYSCORE")
                .arg("REV")
                .arg("LIMIT")
                .arg(seen.len())
                .arg(step)
                .arg("WITHSCORES");
            let found = scored(self.read(ReadFrom::Any, &command).await?);
            let count = found.len();
            for (member, score) in found {
                if until != Some(score) {
                    seen.clear();
                    until = Some(score);
                }
                if seen.insert(member.clone()) && !visit(score, member) {
                    return Ok(());
                }
            }
            if count < step {
                return Ok(());
            }
            step = (step * 2).min(MAX_SCAN_ENTRIES);
        }
    }

    /// Counts the log entry by entry, and corrects the counters if this server may write.
    async fn recount(&self, counters: &HashMap<String, String>) -> Result<AuditStats, StoreError> {
        let mut stats = AuditStats::default();
        self.scan(None, None, |_, member| {
            stats.count(&StoredEntry::parse(member));
            true
        })
        .await?;
        let Some(connection) = &self.write else {
            return Ok(stats);
        };
        let mut repair = redis::pipe();
        repair.atomic();
        let fields = stats.counters();
        for name in counters
            .keys()
            .filter(|name| is_counter(name) && !fields.contains_key(*name))
        {
            repair.cmd("HDEL").arg(self.keys.stats()).arg(name);
        }
        for (name, count) in &fields {
            repair
                .cmd("HSET")
                .arg(self.keys.stats())
                .arg(name)
                .arg(count);
        }
        for (category, unlabelled) in Category::ALL.into_iter().zip(stats.unlabelled()) {
            repair
                .cmd("HSET")
                .arg(self.keys.internal("unlabelled"))
                .arg(category.member())
                .arg(unlabelled);
        }
        if let Err(error) = connection.send_all(&repair, repair.len() + 1, 1).await {
            warn!(
                "could not correct the audit counters, so the whole log is counted each time: {}",
                describe(&error)
            );
        }
        Ok(stats)
    }
}

fn is_counter(name: &str) -> bool {
    Category::ALL.iter().any(|category| {
        name.strip_prefix(category.member())
            .is_some_and(|rest| rest.starts_with(':'))
    })
}

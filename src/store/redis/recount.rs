//! Counting the log entry by entry, when its counters disagree with it: older programs do not
//! always count what they write.
//!
//! A long log takes minutes over a slow network, so it is counted in the background, once for all
//! callers. What was counted is remembered, so that only newer entries are counted the next time.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use redis::{RedisError, Value, cmd};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use tracing::{debug, warn};

use super::{
    connection::Connection,
    error::describe,
    keys::Keys,
    log::{Log, Range},
};
use crate::domain::{AuditStats, StoredEntry, audit::Category, sha256_hex};

/// How long after its begin calls wait for the count; a log of a few thousand entries takes less.
const WAIT_TIMEOUT: Duration = Duration::from_millis(2500);
/// Entries that are written while others are counted are counted too, this many times.
const MAX_ROUNDS: usize = 5;
/// How long a piece waits at most while calls read the log.
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// How often reading a piece is tried.
const MAX_ATTEMPTS: usize = 3;
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Replaces the counters, unless the log has another number of entries by now.
const CORRECT: &str = r"
if redis.call('ZCARD', KEYS[1]) ~= tonumber(ARGV[1]) then return 0 end
local stored = redis.call('HGETALL', KEYS[2]) -- not HKEYS, which a user of the documented permissions may not run
for at = 1, #stored, 2 do
  local name = stored[at]
  for prefix = 2, 4 do
    if string.sub(name, 1, #ARGV[prefix]) == ARGV[prefix] then redis.call('HDEL', KEYS[2], name) end
  end
end
for at = 5, #ARGV, 3 do
  redis.call('HSET', KEYS[tonumber(ARGV[at])], ARGV[at + 1], ARGV[at + 2])
end
return 1";

/// The count that is under way, and the last one.
#[derive(Default)]
pub(super) struct Recounts {
    running: Mutex<Option<Running>>,
    counted: Arc<tokio::sync::Mutex<Option<Counted>>>,
}

#[derive(Clone)]
struct Running {
    begun: Instant,
    /// Closed without a result if it failed.
    result: watch::Receiver<Option<AuditStats>>,
}

/// What was counted, and the entries of its newest millisecond, which tell it from newer ones.
struct Counted {
    stats: AuditStats,
    newest: Option<i64>,
    digests: HashSet<String>,
}

/// Counts a log, and corrects its counters if there is a connection for writes.
pub(super) struct Counter {
    pub(super) log: Log,
    pub(super) write: Option<Arc<Connection>>,
    pub(super) keys: Keys,
}

impl Recounts {
    /// The counters as `counting` finds them, or `stored` if that takes longer than a call may wait.
    pub(super) async fn join(&self, counting: Counter, stored: AuditStats) -> AuditStats {
        let mut running = self.running(counting);
        let until = running.begun + WAIT_TIMEOUT;
        let done = timeout_at(until, running.result.wait_for(Option::is_some)).await;
        match done.ok().and_then(Result::ok).and_then(|done| done.clone()) {
            Some(counted) if counted.total >= stored.total => counted,
            _ => stored,
        }
    }

    /// The count that is under way, or a new one.
    fn running(&self, counting: Counter) -> Running {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = running.as_ref().filter(|running| {
            running.result.has_changed().is_ok() && running.result.borrow().is_none()
        }) {
            return running.clone();
        }
        let (sender, result) = watch::channel(None);
        let counted = Arc::clone(&self.counted);
        tokio::spawn(async move {
            let mut counted = counted.lock().await;
            match counting.count(counted.take()).await {
                Ok(done) => {
                    let stats = done.stats.clone();
                    *counted = Some(done);
                    let _ = sender.send(Some(stats));
                }
                Err(error) => debug!("could not count the audit log: {}", describe(&error)),
            }
        });
        let begun = Instant::now();
        running.insert(Running { begun, result }).clone()
    }
}

impl Counter {
    /// Counts what was not counted before, and corrects the counters if this server may write.
    async fn count(&self, known: Option<Counted>) -> Result<Counted, RedisError> {
        let known = match known {
            Some(known) => self.with_newer(known).await?,
            None => None,
        };
        let mut counted = match known {
            Some(known) if known.stats.total == self.total().await? => known,
            // Entries were also added among older ones.
            _ => self.count_all().await?,
        };
        for _ in 0..MAX_ROUNDS {
            if self.correct(&counted.stats).await {
                break;
            }
            counted = match self.with_newer(counted).await? {
                Some(counted) => counted,
                None => self.count_all().await?,
            };
        }
        Ok(counted)
    }

    async fn count_all(&self) -> Result<Counted, RedisError> {
        let mut counted = Counted {
            stats: AuditStats::default(),
            newest: None,
            digests: HashSet::new(),
        };
        self.visit(Range::default(), |score, entry| {
            if score >= *counted.newest.get_or_insert(score) {
                counted.digests.insert(entry.digest());
            }
            counted.stats.count(&entry);
        })
        .await?;
        Ok(counted)
    }

    /// Counts entries that were added after those that were counted; `None` if those are not in the
    /// log any more.
    async fn with_newer(&self, mut counted: Counted) -> Result<Option<Counted>, RedisError> {
        let Some(newest) = counted.newest else {
            return Ok(None);
        };
        let range = Range {
            since: Some(newest),
            ..Range::default()
        };
        let (mut top, mut digests, mut known) = (None, HashSet::new(), 0);
        self.visit(range, |score, entry| {
            let digest = sha256_hex(entry.text().as_bytes());
            let digest = digest.get(..16).unwrap_or_default().to_owned();
            if counted.digests.contains(&digest) {
                known += 1;
            } else {
                counted.stats.count(&entry);
            }
            if score >= *top.get_or_insert(score) {
                digests.insert(digest);
            }
        })
        .await?;
        let is_same_log = known == counted.digests.len();
        (counted.newest, counted.digests) = (top, digests);
        Ok(is_same_log.then_some(counted))
    }

    /// Reads a part of the log.
    async fn visit(
        &self,
        range: Range,
        mut visit: impl FnMut(i64, StoredEntry) + Send,
    ) -> Result<(), RedisError> {
        let (mut scan, mut attempts) = (self.log.scan(range), 0);
        loop {
            self.log.let_others_go_first(MAX_PAUSE).await;
            let begun = Instant::now();
            let piece = match scan.next(usize::MAX).await {
                Ok(Some(piece)) => piece,
                Ok(None) => return Ok(()),
                Err(_) if attempts < MAX_ATTEMPTS => {
                    attempts += 1;
                    tokio::time::sleep(RETRY_DELAY).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            attempts = 0;
            let pause = begun.elapsed();
            for entry in piece {
                visit(entry.slot.score, StoredEntry::parse(entry.text));
            }
            // Half of the network is for others.
            tokio::time::sleep(pause.min(MAX_PAUSE)).await;
        }
    }

    async fn total(&self) -> Result<u64, RedisError> {
        let mut command = cmd("ZCARD");
        command.arg(&self.log.key);
        match self.log.connection.send(&command).await? {
            Value::Int(total) => Ok(u64::try_from(total).unwrap_or_default()),
            _ => Ok(0),
        }
    }

    /// Writes the counters; returns whether there is nothing more to do.
    async fn correct(&self, stats: &AuditStats) -> bool {
        let Some(connection) = &self.write else {
            return true;
        };
        let mut command = cmd("EVAL");
        command.arg(CORRECT).arg(3).arg(&self.log.key);
        command
            .arg(self.keys.stats())
            .arg(self.keys.internal("unlabelled"))
            .arg(stats.total);
        for category in Category::ALL {
            command.arg(format!("{}:", category.member()));
        }
        for (name, count) in &stats.counters() {
            command.arg(2).arg(name).arg(count);
        }
        for (category, unlabelled) in Category::ALL.into_iter().zip(stats.unlabelled()) {
            command.arg(3).arg(category.member()).arg(unlabelled);
        }
        match connection.send(&command).await {
            Ok(Value::Int(corrected)) => corrected == 1,
            Ok(_) => true,
            Err(error) => {
                warn!(
                    "could not correct the audit counters, so they are counted again each time: {}",
                    describe(&error)
                );
                true
            }
        }
    }
}

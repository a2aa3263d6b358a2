//! Adding to the history index what it lacks: entries that other programs, older versions and
//! imports add to the log.
//!
//! What was added last is found at once, at the end of the log. A long log takes minutes over a slow
//! network, so it is read in the background, by one server at a time, and the next one goes on where
//! the last one stopped.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::{RedisError, Value, cmd};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tracing::debug;
use uuid::Uuid;

use super::members;
use crate::{
    domain::{StoredEntry, audit::AuditPosition},
    store::redis::{
        error::describe,
        keys::Keys,
        log::{Log, Range},
        reply::{array, lossy_text},
    },
};

/// A call waits this long for what the index lacks, if that is no more than this many entries.
const WAIT_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_AWAITED: u64 = 500;
/// How many entries are added at once, so that Redis is not kept from others for long.
const MAX_PIECE: usize = 1000;
/// How often the log is read to its end, because others add entries among older ones meanwhile.
const MAX_ROUNDS: usize = 3;
/// How long a piece waits at most while calls read the log.
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// After this time without a piece, another server takes over.
const LOCK_SECONDS: u64 = 10;
/// A wrong index is built again once in this time: when somebody has moved entries by hand. That it is
/// wrong again at once would be a fault of this program, which must not keep Redis busy. Nor must a log
/// that cannot be indexed, so it is not read in vain more often either.
const REBUILD_INTERVAL: Duration = Duration::from_mins(10);

/// Adds members, unless another server is at work.
///
/// The keys: the index, the log, the lock, the position. The arguments: who adds, how long the lock
/// lasts, the position that is reached (empty at the begin), and the members.
/// The reply: how many members the index lacks then, and the position; empty if another server is at
/// work.
const ADD: &str = r"
local INDEX, ENTRIES, LOCK, POSITION = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local owner = redis.call('GET', LOCK)
if owner and owner ~= ARGV[1] then return {} end
redis.call('SET', LOCK, ARGV[1], 'EX', ARGV[2])
for i = 4, #ARGV do redis.call('ZADD', INDEX, '0', ARGV[i]) end
if ARGV[3] ~= '' then redis.call('SET', POSITION, ARGV[3]) end
local lacks = 2 * redis.call('ZCARD', ENTRIES) - redis.call('ZCARD', INDEX)
if lacks == 0 then redis.call('DEL', LOCK, POSITION) end
return {lacks, redis.call('GET', POSITION) or ''}";

/// The work that is under way in this process, and what is known from before.
#[derive(Default)]
pub(crate) struct CatchUps {
    running: Mutex<Option<watch::Receiver<Option<Ended>>>>,
    past: Arc<Past>,
}

#[derive(Default)]
struct Past {
    /// What the index still lacked when the log had been read to its end, and when that was.
    in_vain: Mutex<Option<(i64, Instant)>>,
    /// When the index was deleted to build it again.
    rebuilt: Mutex<Option<Instant>>,
}

impl Past {
    /// Whether the index may be deleted now; notes that it is.
    fn allow_rebuild(&self) -> bool {
        let mut rebuilt = lock(&self.rebuilt);
        let allowed = rebuilt.is_none_or(|rebuilt| rebuilt.elapsed() >= REBUILD_INTERVAL);
        if allowed {
            *rebuilt = Some(Instant::now());
        }
        allowed
    }

    /// Whether the log was read in vain for what the index lacks, not long before `now`.
    fn was_in_vain(&self, lacks: i64, now: Instant) -> bool {
        lock(&self.in_vain).is_some_and(|(lacked, ended)| {
            lacked == lacks && now.duration_since(ended) < REBUILD_INTERVAL
        })
    }
}

/// How the work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The index lacks nothing.
    Complete,
    /// It lacks something, or another server is at work.
    Incomplete,
}

impl CatchUps {
    /// Adds to the index what it lacks, in the background, and returns whether it is complete now.
    /// Waits for that only if it lacks little.
    pub(super) async fn join(&self, catch_up: CatchUp, lacks: i64) -> bool {
        let Some(mut running) = self.running(catch_up, lacks) else {
            return false;
        };
        if lacks.unsigned_abs() > 2 * MAX_AWAITED {
            return false;
        }
        let ended = timeout(WAIT_TIMEOUT, running.wait_for(Option::is_some)).await;
        let ended = ended.ok().and_then(Result::ok).and_then(|ended| *ended);
        ended == Some(Ended::Complete)
    }

    /// Adds to the index what it lacks, in the background.
    pub(super) fn start(&self, catch_up: CatchUp, lacks: i64) {
        self.running(catch_up, lacks);
    }

    /// The work that is under way, or new work, unless the log was read in vain before.
    fn running(&self, catch_up: CatchUp, lacks: i64) -> Option<watch::Receiver<Option<Ended>>> {
        if self.past.was_in_vain(lacks, Instant::now()) {
            return None;
        }
        let mut running = lock(&self.running);
        if let Some(running) = running
            .as_ref()
            .filter(|running| running.has_changed().is_ok() && running.borrow().is_none())
        {
            return Some(running.clone());
        }
        let (sender, ended) = watch::channel(None);
        let past = Arc::clone(&self.past);
        tokio::spawn(async move {
            match catch_up.run(&past).await {
                Ok(ended) => drop(sender.send(Some(ended))),
                Err(error) => {
                    debug!("could not add to the history index: {}", describe(&error));
                }
            }
        });
        Some(running.insert(ended).clone())
    }

    /// Deletes the index, because it does not match the log; then it lacks everything.
    pub(super) fn delete_index(&self, catch_up: CatchUp) {
        if !self.past.allow_rebuild() {
            return;
        }
        debug!("the history index does not match the log, so it is built again");
        tokio::spawn(async move {
            if let Err(error) = catch_up.delete_index().await {
                debug!("could not delete the history index: {}", describe(&error));
            }
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads the log, newest entry first, and adds the members of its entries to the index.
pub(super) struct CatchUp {
    log: Log,
    keys: Keys,
    /// Tells servers at work apart.
    owner: String,
}

/// The state of the index, unless another server is at work.
struct Added {
    /// How many members it lacks; less than 0 if it has too many.
    lacks: i64,
    /// Where this or another server stopped.
    position: Option<AuditPosition>,
}

impl CatchUp {
    pub(super) fn new(log: Log, keys: Keys) -> Self {
        Self {
            log,
            keys,
            owner: Uuid::new_v4().to_string(),
        }
    }

    async fn run(&self, past: &Past) -> Result<Ended, RedisError> {
        let Some(begun) = self.add(None, Vec::new()).await? else {
            return Ok(Ended::Incomplete);
        };
        let (mut lacks, mut from) = (begun.lacks, begun.position);
        for _ in 0..MAX_ROUNDS {
            if lacks == 0 {
                return Ok(Ended::Complete);
            }
            if lacks < 0 {
                // Somebody took entries out of the log.
                if !past.allow_rebuild() {
                    self.release().await?;
                    return Ok(Ended::Incomplete);
                }
                self.delete_index().await?;
                from = None;
            }
            match self.walk(from.take()).await? {
                Some(left) => lacks = left,
                None => return Ok(Ended::Incomplete),
            }
        }
        if lacks == 0 {
            return Ok(Ended::Complete);
        }
        self.release().await?;
        *lock(&past.in_vain) = Some((lacks, Instant::now()));
        Ok(Ended::Incomplete)
    }

    /// Adds the entries from a position on, to the end of the log or until the index has as many
    /// members as it should have, and returns how many it lacks. `None` if another server is at work.
    async fn walk(&self, from: Option<AuditPosition>) -> Result<Option<i64>, RedisError> {
        let range = Range {
            after: from,
            ..Range::default()
        };
        let mut scan = self.log.scan(range);
        loop {
            self.log.let_others_go_first(MAX_PAUSE).await;
            let begun = Instant::now();
            let piece = scan.next(MAX_PIECE).await?;
            let ended = piece.is_none();
            let found = piece.into_iter().flatten();
            let members = found.flat_map(|found| {
                let entry = StoredEntry::parse(found.text);
                members(found.score, &entry)
            });
            let members = members.collect();
            let Some(added) = self.add(scan.position(), members).await? else {
                return Ok(None);
            };
            if ended || added.lacks <= 0 {
                return Ok(Some(added.lacks));
            }
            // Half of the network is for others.
            sleep(begun.elapsed().min(MAX_PAUSE)).await;
        }
    }

    /// Adds members; `None` if another server is at work.
    async fn add(
        &self,
        reached: Option<&AuditPosition>,
        members: Vec<Vec<u8>>,
    ) -> Result<Option<Added>, RedisError> {
        let keys = &self.keys;
        let mut command = cmd("EVAL");
        command.arg(ADD).arg(4);
        command.arg(keys.history_index()).arg(keys.entries());
        command.arg(keys.history_index_lock());
        command.arg(keys.history_index_position());
        command.arg(&self.owner).arg(LOCK_SECONDS);
        command.arg(reached.map(position_text).unwrap_or_default());
        for member in members {
            command.arg(member);
        }
        let mut reply = array(self.log.connection.send(&command).await?).into_iter();
        let Some(Value::Int(lacks)) = reply.next() else {
            return Ok(None);
        };
        let position = reply.next().map(lossy_text).unwrap_or_default();
        Ok(Some(Added {
            lacks,
            position: parse_position(&position),
        }))
    }

    /// Ends the work, so that the next one begins anew.
    async fn release(&self) -> Result<(), RedisError> {
        self.delete(&[
            self.keys.history_index_lock(),
            self.keys.history_index_position(),
        ])
        .await
    }

    async fn delete_index(&self) -> Result<(), RedisError> {
        self.delete(&[
            self.keys.history_index(),
            self.keys.history_index_position(),
        ])
        .await
    }

    async fn delete(&self, keys: &[String]) -> Result<(), RedisError> {
        let mut command = cmd("DEL");
        command.arg(keys);
        self.log.connection.send(&command).await?;
        Ok(())
    }
}

fn position_text(position: &AuditPosition) -> String {
    let AuditPosition { score, digest, nth } = position;
    format!("{score} {digest} {nth}")
}

fn parse_position(text: &str) -> Option<AuditPosition> {
    let mut parts = text.split(' ');
    Some(AuditPosition {
        score: parts.next()?.parse().ok()?,
        digest: parts.next()?.to_owned(),
        nth: parts.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_in_vain_is_read_again_later() {
        let (past, ended) = (Past::default(), Instant::now());
        *lock(&past.in_vain) = Some((2, ended));

        assert!(past.was_in_vain(2, ended));
        assert!(!past.was_in_vain(4, ended));
        assert!(!past.was_in_vain(2, ended + REBUILD_INTERVAL));
    }
}

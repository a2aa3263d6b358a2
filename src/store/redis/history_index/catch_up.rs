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

use redis::{Cmd, RedisError, Value, cmd};
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

/// Begins to work, unless another server is at work.
///
/// The keys of both scripts: the index, the log, what its ends were, the lock, the position. The
/// arguments: who works, how long the lock lasts.
/// The reply: `BUSY` if another server is at work; `COMPLETE`; `WRONG` if the index may have members of
/// entries that are gone; or `FROM` and the position to go on from.
const BEGIN: &str = concat!(
    include_str!("ends.lua"),
    r"
local INDEX, ENTRIES, ENDS, LOCK, POSITION = unpack(KEYS)
local owner = redis.call('GET', LOCK)
if owner and owner ~= ARGV[1] then return {'BUSY'} end
redis.call('SET', LOCK, ARGV[1], 'EX', ARGV[2])
local known, ends = redis.call('GET', ENDS) or '', ends_of(ENTRIES)
local members = redis.call('ZCARD', INDEX)
local lacks = 2 * redis.call('ZCARD', ENTRIES) - members
if lacks == 0 and known == ends then
  redis.call('DEL', LOCK, POSITION)
  return {'COMPLETE'}
end
if known == '' then -- the few members from before the index is built
  redis.call('DEL', INDEX, POSITION)
elseif members > 0 and (lacks <= 0 or string.sub(known, 1, DIGITS) ~= string.sub(ends, 1, DIGITS)) then
  return {'WRONG'}
end
if known ~= ends then -- others added entries at the end, where the position has passed
  redis.call('SET', ENDS, ends)
  redis.call('DEL', POSITION)
end
return {'FROM', redis.call('GET', POSITION) or ''}"
);

/// Adds members, unless another server is at work.
///
/// Further arguments: the position that is reached, and the members.
/// The reply: `BUSY`; `COMPLETE`; or `LACKS` and how many members the index lacks then.
const ADD: &str = concat!(
    include_str!("ends.lua"),
    r"
local INDEX, ENTRIES, ENDS, LOCK, POSITION = unpack(KEYS)
local owner = redis.call('GET', LOCK)
if owner and owner ~= ARGV[1] then return {'BUSY'} end
redis.call('SET', LOCK, ARGV[1], 'EX', ARGV[2])
for i = 4, #ARGV do redis.call('ZADD', INDEX, '0', ARGV[i]) end
if ARGV[3] ~= '' then redis.call('SET', POSITION, ARGV[3]) end
local lacks = 2 * redis.call('ZCARD', ENTRIES) - redis.call('ZCARD', INDEX)
if lacks == 0 and redis.call('GET', ENDS) == ends_of(ENTRIES) then
  redis.call('DEL', LOCK, POSITION)
  return {'COMPLETE'}
end
return {'LACKS', lacks}"
);

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

/// How work begins.
enum Begun {
    Complete,
    Busy,
    Wrong,
    From(Option<AuditPosition>),
}

/// What the index lacks after something was added.
enum Added {
    Nothing,
    Busy,
    /// This many members; less than 0 if it has too many, and 0 if others changed the log meanwhile.
    Lacks(i64),
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
        let mut lacks = 0;
        for round in 0..MAX_ROUNDS {
            let mut begun = self.begin().await?;
            if matches!(begun, Begun::Wrong) && past.allow_rebuild() {
                // Somebody took entries out of the log, or added some before all others.
                self.delete_index().await?;
                begun = self.begin().await?;
            }
            let from = match begun {
                Begun::Complete => return Ok(Ended::Complete),
                Begun::Busy => return Ok(Ended::Incomplete),
                Begun::Wrong => {
                    self.release().await?;
                    return Ok(Ended::Incomplete);
                }
                Begun::From(position) => position.filter(|_| round == 0),
            };
            match self.walk(from).await? {
                Added::Nothing => return Ok(Ended::Complete),
                Added::Busy => return Ok(Ended::Incomplete),
                Added::Lacks(left) => lacks = left,
            }
        }
        self.release().await?;
        *lock(&past.in_vain) = Some((lacks, Instant::now()));
        Ok(Ended::Incomplete)
    }

    /// Adds the entries from a position on, to the end of the log or until the index has as many
    /// members as it should have.
    async fn walk(&self, from: Option<AuditPosition>) -> Result<Added, RedisError> {
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
            match self.add(scan.position(), members).await? {
                Added::Lacks(lacks) if !ended && lacks > 0 => {}
                added => return Ok(added),
            }
            // Half of the network is for others.
            sleep(begun.elapsed().min(MAX_PAUSE)).await;
        }
    }

    async fn begin(&self) -> Result<Begun, RedisError> {
        let command = self.script(BEGIN);
        let mut reply = array(self.log.connection.send(&command).await?).into_iter();
        let status = reply.next().map(lossy_text).unwrap_or_default();
        Ok(match status.as_str() {
            "COMPLETE" => Begun::Complete,
            "WRONG" => Begun::Wrong,
            "FROM" => {
                let position = reply.next().map(lossy_text).unwrap_or_default();
                Begun::From(parse_position(&position))
            }
            _ => Begun::Busy,
        })
    }

    async fn add(
        &self,
        reached: Option<&AuditPosition>,
        members: Vec<Vec<u8>>,
    ) -> Result<Added, RedisError> {
        let mut command = self.script(ADD);
        command.arg(reached.map(position_text).unwrap_or_default());
        for member in members {
            command.arg(member);
        }
        let mut reply = array(self.log.connection.send(&command).await?).into_iter();
        let status = reply.next().map(lossy_text).unwrap_or_default();
        Ok(match (status.as_str(), reply.next()) {
            ("COMPLETE", _) => Added::Nothing,
            ("LACKS", Some(Value::Int(lacks))) => Added::Lacks(lacks),
            _ => Added::Busy,
        })
    }

    fn script(&self, script: &str) -> Cmd {
        let keys = &self.keys;
        let mut command = cmd("EVAL");
        command.arg(script).arg(5);
        command.arg(keys.history_index()).arg(keys.entries());
        command.arg(keys.history_index_ends());
        command.arg(keys.history_index_lock());
        command.arg(keys.history_index_position());
        command.arg(&self.owner).arg(LOCK_SECONDS);
        command
    }

    /// Ends the work, so that the next one begins anew.
    async fn release(&self) -> Result<(), RedisError> {
        self.delete(&[
            self.keys.history_index_lock(),
            self.keys.history_index_position(),
        ])
        .await
    }

    /// Deletes the index. Members that commits add from now on are from before it is built.
    async fn delete_index(&self) -> Result<(), RedisError> {
        self.delete(&[
            self.keys.history_index(),
            self.keys.history_index_ends(),
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

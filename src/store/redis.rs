//! The Redis store: connections, key names, one Lua call for each write.
//!
//! Works on the documents and entries that older programs left, under the same keys, and never touches others.
//! Two connection managers are shared by all callers: one for writes and what is read for them, one for reads. There
//! is no WATCH, which on a shared connection loses updates.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use redis::{
    Client, Cmd, ErrorKind, IntoConnectionInfo, Pipeline, ProtocolVersion, RedisError, Script, ServerErrorKind, Value,
    aio::{ConnectionManager, ConnectionManagerConfig},
    cmd,
    io::tcp::TcpSettings,
};
use tracing::{debug, warn};

use super::{Committed, Purpose, Repository, StoreError, cache::RecordCache, location::RedisUrl};
use crate::domain::{
    AuditPage, AuditQuery, AuditStats, Change, DocumentKey, Kind, ListPage, ListQuery, Operation, Record, StoredEntry, Timestamp,
    audit::{AuditPosition, Category, entry_text},
    document::sha256_hex,
};

const CONNECT: Duration = Duration::from_secs(3);
const RESPONSE: Duration = Duration::from_secs(2);
/// A command that has no answer by then is given up, so that a call's own time is never used up by one of them.
const COMMAND: Duration = Duration::from_secs(4);
/// How often a commit is sent before its outcome is given up on, and until when it is sent again.
const COMMIT_TRIES: u32 = 4;
const COMMIT: Duration = Duration::from_secs(4);
/// Documents are fetched so many at a time, and entries at first.
const CHUNK: usize = 100;
/// After a write of ours, reads go where the write went: a replica may be behind.
const OWN_WRITE: Duration = Duration::from_secs(5);

/// Documents and the audit log in a Redis database.
pub(super) struct RedisStore {
    write: Option<ConnectionManager>,
    read: ConnectionManager,
    keys: Keys,
    commit: Script,
    cache: Arc<RecordCache>,
    last_write: Mutex<Option<Instant>>,
}

impl RedisStore {
    /// A store that connects when it is first used.
    pub(super) fn new(write: Option<&RedisUrl>, read: Option<&RedisUrl>, key_prefix: &str) -> anyhow::Result<Self> {
        // Several may be linked in; the first call decides, and a second one changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let write_manager = write.map(connect).transpose()?;
        let read_manager = match (read, &write_manager) {
            (Some(url), _) => connect(url)?,
            (None, Some(_)) => write.map(connect).transpose()?.ok_or_else(|| anyhow::anyhow!("no Redis address"))?,
            (None, None) => anyhow::bail!("no Redis address"),
        };
        Ok(Self {
            write: write_manager,
            read: read_manager,
            keys: Keys { prefix: key_prefix.to_owned() },
            commit: Script::new(include_str!("commit.lua")),
            cache: Arc::default(),
            last_write: Mutex::new(None),
        })
    }

    fn writing(&self) -> Result<ConnectionManager, StoreError> {
        self.write.clone().ok_or_else(|| StoreError::ReadOnly("the server was given a read-only credential alone".to_owned()))
    }

    /// The connection for a read: that of our own recent write, or the one for reading.
    fn reading(&self, purpose: Purpose) -> ConnectionManager {
        let own = purpose == Purpose::Change || self.wrote_lately();
        match &self.write {
            Some(write) if own => write.clone(),
            _ => self.read.clone(),
        }
    }

    fn wrote_lately(&self) -> bool {
        let last_write = *self.last_write.lock().unwrap_or_else(PoisonError::into_inner);
        last_write.is_some_and(|instant| instant.elapsed() < OWN_WRITE)
    }

    async fn read(&self, purpose: Purpose, command: &Cmd) -> Result<Value, RedisError> {
        let mut connection = self.reading(purpose);
        match send(&mut connection, command).await {
            // The connection had ended unnoticed; the manager makes a new one, and reading twice harms nobody.
            Err(error) if error.is_connection_dropped() => send(&mut connection, command).await,
            result => result,
        }
    }

    async fn read_all(&self, purpose: Purpose, pipeline: &Pipeline, count: usize) -> Result<Vec<Value>, RedisError> {
        let mut connection = self.reading(purpose);
        match in_time(connection.send_packed_commands(pipeline, 0, count)).await {
            Err(error) if error.is_connection_dropped() => in_time(connection.send_packed_commands(pipeline, 0, count)).await,
            result => result,
        }
    }

    /// Why the value at `key` of the document is not one, asked when a bulk read left it out.
    async fn missing(&self, keys: &[DocumentKey]) -> Result<Vec<String>, StoreError> {
        let mut pipeline = redis::pipe();
        for key in keys {
            pipeline.cmd("TYPE").arg(self.keys.document(key));
        }
        let types = self.read_all(Purpose::Show, &pipeline, keys.len()).await.map_err(|error| unread(&error))?;
        Ok(keys
            .iter()
            .zip(types)
            .filter_map(|(key, kind)| match text(kind).ok().as_deref() {
                // An index names a document that is gone, such as one with a time to live: there is nothing to show.
                None | Some("none") => None,
                Some(other) => Some(unreadable(&self.keys.document(key), &format!("it is a Redis {other}, not a string"))),
            })
            .collect())
    }

    /// Every document of a kind that can be read, and what cannot, in words.
    async fn all(&self, kind: Kind) -> Result<(Vec<Record>, Vec<String>), StoreError> {
        let keys: Vec<DocumentKey> = self.ids(kind).await?.into_iter().map(|id| DocumentKey::new(kind, id)).collect();
        let mut texts = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(CHUNK) {
            let mut command = cmd("MGET");
            for key in chunk {
                command.arg(self.keys.document(key));
            }
            texts.extend(array(self.read(Purpose::Show, &command).await.map_err(|error| unread(&error))?));
        }
        let (mut present, mut absent) = (Vec::with_capacity(keys.len()), Vec::new());
        for (key, text) in keys.into_iter().zip(texts) {
            match text {
                Value::Nil => absent.push(key),
                value => present.push((self.keys.document(&key), key, value)),
            }
        }
        let mut unreadables = if absent.is_empty() { Vec::new() } else { self.missing(&absent).await? };
        // Thousands of documents take longer to parse than other calls should wait.
        let cache = Arc::clone(&self.cache);
        let parsed = tokio::task::spawn_blocking(move || {
            let mut records = Vec::with_capacity(present.len());
            let mut problems = Vec::new();
            for (name, key, value) in present {
                match text(value).and_then(|text| cache.record(key, text)) {
                    Ok(record) => records.push(record),
                    Err(problem) => problems.push(unreadable(&name, &problem)),
                }
            }
            (records, problems)
        });
        let (records, problems) = parsed.await.map_err(|error| StoreError::Failed(error.to_string()))?;
        unreadables.extend(problems);
        Ok((records, unreadables))
    }

    fn commit_command(&self, name: &str, code: &str, changes: &[Change], rests: &[String], operation: &Operation) -> Cmd {
        let now = changes.first().map_or(Timestamp::from_millis(0), Change::time);
        let texts = changes.iter().map(|change| change.text().len() + change.expected_text().map_or(0, str::len)).sum::<usize>();
        let bytes = code.len() + texts + rests.iter().map(String::len).sum::<usize>() + 1024 * changes.len();
        let mut command = Cmd::with_capacity(7 + 17 * changes.len(), bytes);
        command.arg(name).arg(code).arg(4 + 7 * changes.len());
        command.arg(self.keys.mark(operation)).arg(self.keys.entries()).arg(self.keys.stats()).arg(self.keys.internal("self-test"));
        for change in changes {
            let key = change.key();
            command.arg(self.keys.document(key)).arg(self.keys.latest(key));
            for index in ["all", "published", "featured"] {
                command.arg(self.keys.index(index, key.kind));
            }
            command.arg(self.keys.cache(key.kind)).arg(self.keys.cache_of(key));
        }
        command.arg(operation.fingerprint()).arg(operation.seconds()).arg(now.millis()).arg(changes.len());
        for (change, rest) in changes.iter().zip(rests) {
            let entry = change.entry();
            command
                .arg(change.expected_text().unwrap_or_default())
                .arg(change.expected_entry_prefix().unwrap_or_default())
                .arg(change.text())
                .arg(&change.key().id)
                .arg(u8::from(change.next().is_published()))
                .arg(u8::from(change.next().is_featured()))
                .arg(entry.action.as_str())
                .arg(entry.entity_type.singular())
                .arg(entry.source.as_str())
                .arg(rest);
        }
        command
    }

    /// Sends the commit until there is an answer; the operation's mark makes every sending after the first harmless.
    async fn send_commit(&self, changes: &[Change], rests: &[String], operation: &Operation) -> Result<Value, StoreError> {
        let mut connection = self.writing()?;
        let by_hash = self.commit_command("EVALSHA", self.commit.get_hash(), changes, rests, operation);
        let (begun, mut tries, mut perhaps_sent) = (Instant::now(), 0, false);
        loop {
            tries += 1;
            let mut result = send(&mut connection, &by_hash).await;
            // Not SCRIPT LOAD and again: behind a proxy of several servers the second may not know what the first loaded.
            if matches!(&result, Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)) {
                let by_text = self.commit_command("EVAL", include_str!("commit.lua"), changes, rests, operation);
                result = send(&mut connection, &by_text).await;
            }
            let error = match result {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            let transient = is_transient(&error);
            if !transient {
                let answer = refused(&error);
                // An earlier sending may have been applied before this one was refused.
                return Err(if perhaps_sent { StoreError::OutcomeUnknown(plain(&error)) } else { answer });
            }
            perhaps_sent |= error.is_io_error() && !error.is_connection_refusal();
            if tries == COMMIT_TRIES || begun.elapsed() > COMMIT {
                let problem = plain(&error);
                return Err(if perhaps_sent { StoreError::OutcomeUnknown(problem) } else { StoreError::Unavailable(problem) });
            }
            debug!(tries, "the commit got no answer and is sent again: {}", plain(&error));
            tokio::time::sleep(Self::pause(tries)).await;
        }
    }

    /// 50 ms at first, doubled each time, of which half is chance, so that writers do not return in step.
    fn pause(tries: u32) -> Duration {
        let step = Duration::from_millis(25 << tries.min(6));
        step / 2 + (step / 2).mul_f64(fastrand::f64())
    }

    /// The entries of a commit of earlier, by their numbers.
    async fn entries_at(&self, score: i64, first: u64, count: u64) -> Result<Vec<StoredEntry>, StoreError> {
        let mut command = cmd("ZRANGE");
        command.arg(self.keys.entries()).arg(score).arg(score).arg("BYSCORE");
        let found = array(self.read(Purpose::Change, &command).await.map_err(|error| unread(&error))?);
        let entries: Vec<StoredEntry> = found
            .into_iter()
            .filter_map(|value| text(value).ok())
            .map(StoredEntry::parse)
            .filter(|entry| entry.seq().is_some_and(|seq| (first..first + count).contains(&seq)))
            .collect();
        Ok(entries)
    }

    async fn replayed(&self, ms: &str, first: &str, count: &str) -> Result<Committed, StoreError> {
        let number = |text: &str| text.parse::<u64>().map_err(|_| StoreError::Failed(format!("the operation's mark is damaged: `{text}`")));
        let score = i64::try_from(number(ms)?).unwrap_or(i64::MAX);
        Ok(Committed { entries: self.entries_at(score, number(first)?, number(count)?).await?, replayed: true })
    }

    /// Reads the log from the newest entry on, in growing steps, until `visit` has enough; each entry once, whatever is added meanwhile.
    async fn scan(
        &self,
        mut until: Option<i64>,
        since: Option<i64>,
        mut visit: impl FnMut(i64, String) -> bool + Send,
    ) -> Result<(), StoreError> {
        let mut step = CHUNK;
        // What was seen of the millisecond that the next step begins with.
        let mut seen: HashSet<String> = HashSet::new();
        loop {
            let mut command = cmd("ZRANGE");
            let from = until.map_or("+inf".to_owned(), |score| score.to_string());
            let to = since.map_or("-inf".to_owned(), |score| score.to_string());
            command.arg(self.keys.entries()).arg(from).arg(to);
            command.arg("BYSCORE").arg("REV").arg("LIMIT").arg(seen.len()).arg(step).arg("WITHSCORES");
            let found = scored(self.read(Purpose::Show, &command).await.map_err(|error| unread(&error))?);
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
            step = (step * 2).min(4000);
        }
    }

    /// Counts the log entry by entry, and puts the counters right where this server may write.
    async fn recount(&self, counters: &HashMap<String, String>) -> Result<AuditStats, StoreError> {
        let mut stats = AuditStats::default();
        self.scan(None, None, |_, member| {
            stats.count(&StoredEntry::parse(member));
            true
        })
        .await?;
        let Some(mut connection) = self.write.clone() else { return Ok(stats) };
        let mut repair = redis::pipe();
        repair.atomic();
        let fields = stats.counters();
        for name in counters.keys().filter(|name| is_counter(name) && !fields.contains_key(*name)) {
            repair.cmd("HDEL").arg(self.keys.stats()).arg(name);
        }
        for (name, count) in &fields {
            repair.cmd("HSET").arg(self.keys.stats()).arg(name).arg(count);
        }
        for (category, unlabelled) in Category::ALL.into_iter().zip(stats.unlabelled()) {
            repair.cmd("HSET").arg(self.keys.internal("unlabelled")).arg(category.member()).arg(unlabelled);
        }
        if let Err(error) = connection.send_packed_commands(&repair, repair.len() + 1, 1).await {
            warn!("the audit counters could not be put right, so the log is counted each time: {}", plain(&error));
        }
        Ok(stats)
    }
}

#[async_trait]
impl Repository for RedisStore {
    fn name(&self) -> &'static str {
        "redis"
    }

    async fn get(&self, key: &DocumentKey, purpose: Purpose) -> Result<Option<Record>, StoreError> {
        let name = self.keys.document(key);
        let mut get = cmd("GET");
        get.arg(&name);
        let (value, latest) = match purpose {
            Purpose::Show => (self.read(purpose, &get).await, None),
            Purpose::Change => {
                let mut pipeline = redis::pipe();
                pipeline.add_command(get).cmd("GET").arg(self.keys.latest(key)).ignore_errors();
                let mut values = self.read_all(purpose, &pipeline, 2).await.map_err(|error| unread(&error))?.into_iter();
                let value = values.next().unwrap_or_default();
                (unwrapped(value), values.next().and_then(|value| text(value).ok()))
            }
        };
        let value = match value {
            Ok(Value::Nil) => return Ok(None),
            Ok(value) => value,
            Err(error) if error.code() == Some("WRONGTYPE") => {
                return Err(StoreError::Corrupt { key: name, problem: "it is not a Redis string".to_owned() });
            }
            Err(error) => return Err(unread(&error)),
        };
        match text(value).and_then(|text| self.cache.record(key.clone(), text)) {
            Ok(record) => Ok(Some(record.with_latest_entry(latest))),
            Err(problem) => Err(StoreError::Corrupt { key: name, problem }),
        }
    }

    async fn ids(&self, kind: Kind) -> Result<Vec<String>, StoreError> {
        let mut command = cmd("SMEMBERS");
        command.arg(self.keys.index("all", kind));
        let mut ids: Vec<String> = array(self.read(Purpose::Show, &command).await.map_err(|error| unread(&error))?)
            .into_iter()
            .filter_map(|id| text(id).ok())
            .collect();
        ids.sort_unstable();
        Ok(ids)
    }

    async fn list(&self, kind: Kind, query: &ListQuery) -> Result<ListPage, StoreError> {
        let (records, unreadable) = self.all(kind).await?;
        let query = query.clone();
        let page = tokio::task::spawn_blocking(move || {
            let (places, total, next) = query.page(records.iter().map(|record| record.listing().clone()));
            let mut records: HashMap<String, Record> = records.into_iter().map(|record| (record.key().id.clone(), record)).collect();
            let records = places.iter().filter_map(|place| records.remove(&place.id)).collect();
            ListPage { records, total, next, unreadable }
        });
        page.await.map_err(|error| StoreError::Failed(error.to_string()))
    }

    async fn commit(&self, changes: &[Change], operation: &Operation) -> Result<Committed, StoreError> {
        let rests: Vec<String> = changes.iter().map(Change::entry_rest).collect();
        let reply: Vec<String> =
            array(self.send_commit(changes, &rests, operation).await?).into_iter().filter_map(|part| text(part).ok()).collect();
        let parts: Vec<&str> = reply.iter().map(String::as_str).collect();
        match parts.as_slice() {
            ["OK", ms, first, _] => {
                *self.last_write.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                let timestamp = Timestamp::from_millis(ms.parse().unwrap_or_default());
                let mut entries = Vec::with_capacity(changes.len());
                for ((change, rest), seq) in changes.iter().zip(&rests).zip(first.parse::<u64>().unwrap_or_default()..) {
                    let text = entry_text(seq, timestamp, rest);
                    self.cache.remember(change.next().clone());
                    entries.push(StoredEntry::parse(text));
                }
                Ok(Committed { entries, replayed: false })
            }
            ["REPLAY", ms, first, count] => self.replayed(ms, first, count).await,
            ["CONFLICT"] => Err(StoreError::Conflict),
            ["MISMATCH"] => Err(StoreError::Mismatch),
            ["NOPERM", command] => Err(StoreError::ReadOnly(format!(
                "the Redis user may not run `{command}`, so nothing was written; grant it, or give the server a credential that may write"
            ))),
            _ => Err(StoreError::Failed("the commit script gave an unknown answer".to_owned())),
        }
    }

    async fn outcome(&self, operation: &Operation) -> Result<Option<Committed>, StoreError> {
        let mut command = cmd("GET");
        command.arg(self.keys.mark(operation));
        let mark = match self.read(Purpose::Change, &command).await.map_err(|error| unread(&error))? {
            Value::Nil => return Ok(None),
            value => text(value).map_err(StoreError::Failed)?,
        };
        match mark.split('|').collect::<Vec<_>>().as_slice() {
            [fingerprint, ms, first, count] if *fingerprint == operation.fingerprint() => self.replayed(ms, first, count).await.map(Some),
            _ => Err(StoreError::Mismatch),
        }
    }

    async fn carry(&self, entries: &[StoredEntry], now: Timestamp) -> Result<usize, StoreError> {
        let mut connection = self.writing()?;
        let mut added = 0;
        for chunk in entries.chunks(CHUNK) {
            let mut command = cmd("ZADD");
            command.arg(self.keys.entries()).arg("NX");
            for entry in chunk {
                command.arg(entry.carried_score(now)).arg(entry.text());
            }
            match send(&mut connection, &command).await.map_err(|error| refused(&error))? {
                Value::Int(count) => added += usize::try_from(count).unwrap_or_default(),
                other => return Err(StoreError::Failed(format!("ZADD gave an unknown answer of type {}", kind_of(&other)))),
            }
        }
        if let Some(greatest) = entries.iter().filter_map(StoredEntry::seq).filter(|seq| *seq < 1 << 53).max() {
            // Their numbers are taken, so the counter goes on after them; it never goes back.
            let raise = "if tonumber(ARGV[1]) > (tonumber(redis.call('HGET', KEYS[1], 'seq') or '0') or 0) then \
                         redis.call('HSET', KEYS[1], 'seq', ARGV[1]) end";
            let mut command = cmd("EVAL");
            command.arg(raise).arg(1).arg(self.keys.stats()).arg(greatest);
            send(&mut connection, &command).await.map_err(|error| refused(&error))?;
        }
        Ok(added)
    }

    async fn audit_entries(&self, query: &AuditQuery) -> Result<AuditPage, StoreError> {
        let before = query.until.map(|until| until.millis_ceil() - 1);
        let start = match (&query.after, before) {
            (Some(after), Some(before)) => Some(after.score.min(before)),
            (Some(after), None) => Some(after.score),
            (None, before) => before,
        };
        let mut passed = query.after.is_none();
        let (mut page, mut last) = (AuditPage::default(), None);
        self.scan(start, query.since.map(Timestamp::millis_ceil), |score, member| {
            if let Some(after) = query.after.as_ref().filter(|_| !passed) {
                if score == after.score {
                    // Everything of that millisecond up to and with the place itself was on earlier pages.
                    passed = sha256_hex(member.as_bytes()).starts_with(&after.digest);
                    return true;
                }
                passed = true;
            }
            let entry = StoredEntry::parse(member);
            if query.matches(&entry) {
                if page.entries.len() == query.limit {
                    page.next = last.take();
                    return false;
                }
                last = Some(AuditPosition { score, digest: digest(&entry) });
                page.entries.push(entry);
            }
            true
        })
        .await?;
        Ok(page)
    }

    async fn audit_stats(&self) -> Result<AuditStats, StoreError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("ZCARD").arg(self.keys.entries());
        pipeline.cmd("HGETALL").arg(self.keys.stats());
        pipeline.cmd("HGETALL").arg(self.keys.internal("unlabelled"));
        let values = self.read_all(Purpose::Show, &pipeline, 3).await.map_err(|error| unread(&error))?;
        let mut values = values.into_iter().map(unwrapped).collect::<Result<Vec<_>, _>>().map_err(|error| unread(&error))?.into_iter();
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
}

/// The keys of CONTRACT.md, section 4, and those of our own under `internal:`.
struct Keys {
    prefix: String,
}

impl Keys {
    /// Joined without `format!`, which takes twice as long: a commit names eleven keys.
    fn named(&self, parts: &[&str]) -> String {
        let mut key = String::with_capacity(100);
        key.push_str(&self.prefix);
        key.extend(parts.iter().copied());
        key
    }

    fn document(&self, key: &DocumentKey) -> String {
        self.named(&["data:", key.kind.plural(), ":", &key.id])
    }

    fn index(&self, name: &str, kind: Kind) -> String {
        self.named(&["index:", name, ":", kind.plural()])
    }

    fn cache(&self, kind: Kind) -> String {
        self.named(&["cache:api:", kind.plural()])
    }

    fn cache_of(&self, key: &DocumentKey) -> String {
        self.named(&["cache:api:", key.kind.plural(), ":", &key.id])
    }

    fn entries(&self) -> String {
        self.named(&["audit:entries"])
    }

    fn stats(&self) -> String {
        self.named(&["audit:stats"])
    }

    fn internal(&self, name: &str) -> String {
        self.named(&["internal:", name])
    }

    fn latest(&self, key: &DocumentKey) -> String {
        self.named(&["internal:latest:", key.kind.plural(), ":", &key.id])
    }

    fn mark(&self, operation: &Operation) -> String {
        self.named(&["internal:operation:", operation.key()])
    }
}

fn connect(url: &RedisUrl) -> anyhow::Result<ConnectionManager> {
    let info = url.secret().clone().into_connection_info()?;
    let says_protocol = url.secret().query_pairs().any(|(name, _)| name == "protocol");
    let settings = info.redis_settings().clone();
    let settings = if says_protocol { settings } else { settings.set_protocol(ProtocolVersion::RESP3) };
    let info = info.set_redis_settings(settings).set_tcp_settings(TcpSettings::default().set_nodelay(true));
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(Some(RESPONSE))
        .set_number_of_retries(1)
        .set_max_delay(Duration::from_millis(500));
    Ok(ConnectionManager::new_lazy_with_config(Client::open(info)?, config)?)
}

/// What a command answers, or that it did not in time.
async fn in_time<T>(answer: impl Future<Output = Result<T, RedisError>>) -> Result<T, RedisError> {
    let late = || RedisError::from(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time"));
    tokio::time::timeout(COMMAND, answer).await.unwrap_or_else(|_| Err(late()))
}

/// Sends a command; what the server refuses is an error like any other.
async fn send(connection: &mut ConnectionManager, command: &Cmd) -> Result<Value, RedisError> {
    in_time(connection.send_packed_command(command)).await.and_then(unwrapped)
}

/// Whether sending it again may help.
fn is_transient(error: &RedisError) -> bool {
    let server = [ServerErrorKind::BusyLoading, ServerErrorKind::TryAgain, ServerErrorKind::ClusterDown, ServerErrorKind::MasterDown];
    error.is_io_error() || server.iter().any(|kind| error.kind() == ErrorKind::Server(*kind))
}

/// A write that the server refused, before anything was written.
fn refused(error: &RedisError) -> StoreError {
    match (error.kind(), error.code()) {
        (ErrorKind::Server(ServerErrorKind::NoPerm), _) => {
            StoreError::ReadOnly(format!("the Redis user may not write: {}; give the server a credential that may", plain(error)))
        }
        (ErrorKind::Server(ServerErrorKind::ReadOnly), _) => {
            StoreError::ReadOnly("this Redis is a read-only replica; give the server the address of the primary".to_owned())
        }
        (_, Some("OOM")) => StoreError::ReadOnly("the Redis database is full; make room or enlarge it, then try again".to_owned()),
        (_, Some("WRONGTYPE")) => StoreError::Failed(
            "one of this program's keys (index:…, audit:…, internal:…) holds a value of another Redis type; the site's developer has to \
             rename or delete it"
                .to_owned(),
        ),
        (_, Some("MISCONF" | "NOREPLICAS")) => StoreError::ReadOnly(format!("Redis takes no writes at the moment: {}", plain(error))),
        _ => unread(error),
    }
}

/// A read that failed.
fn unread(error: &RedisError) -> StoreError {
    if error.kind() == ErrorKind::AuthenticationFailed || error.code() == Some("WRONGPASS") {
        let remedy = "Redis refuses the password; for a database whose REST token is not its password, set REDIS_URL";
        return StoreError::Unavailable(remedy.to_owned());
    }
    if is_transient(error) || error.is_unrecoverable_error() || error.kind() == ErrorKind::InvalidClientConfig {
        return StoreError::Unavailable(format!("{}; is the address right, and is Redis running?", plain(error)));
    }
    StoreError::Failed(format!("Redis answered: {}", plain(error)))
}

/// What an error says, in one line and without the values that were sent.
fn plain(error: &RedisError) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}

fn unreadable(key: &str, problem: &str) -> String {
    format!("left out the value at `{key}`: {problem}; restore it from a backup or delete the key")
}

fn is_counter(name: &str) -> bool {
    Category::ALL.iter().any(|category| name.strip_prefix(category.member()).is_some_and(|rest| rest.starts_with(':')))
}

fn digest(entry: &StoredEntry) -> String {
    let mut digest = sha256_hex(entry.text().as_bytes());
    digest.truncate(16);
    digest
}

fn unwrapped(value: Value) -> Result<Value, RedisError> {
    match value {
        Value::ServerError(error) => Err(error.into()),
        value => Ok(value),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Int(_) => "integer",
        Value::Array(_) | Value::Set(_) | Value::Map(_) => "collection",
        _ => "other",
    }
}

fn text(value: Value) -> Result<String, String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned()),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Ok(text),
        Value::Okay => Ok("OK".to_owned()),
        Value::Int(number) => Ok(number.to_string()),
        other => Err(format!("it is a Redis {}", kind_of(&other))),
    }
}

fn array(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) | Value::Set(items) => items,
        _ => Vec::new(),
    }
}

/// Members with their scores, which RESP3 gives as pairs and RESP2 one after the other.
fn scored(value: Value) -> Vec<(String, i64)> {
    let mut flat = Vec::new();
    for item in array(value) {
        match item {
            Value::Array(pair) => flat.extend(pair),
            item => flat.push(item),
        }
    }
    let mut items = flat.into_iter();
    let mut found = Vec::new();
    while let (Some(member), Some(score)) = (items.next(), items.next()) {
        let member = match member {
            Value::BulkString(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            other => text(other).unwrap_or_default(),
        };
        let score = match score {
            Value::Double(score) => score,
            other => text(other).ok().and_then(|text| text.parse().ok()).unwrap_or_default(),
        };
        #[expect(clippy::cast_possible_truncation, reason = "scores are milliseconds since 1970, far below 2^53")]
        found.push((member, score as i64));
    }
    found
}

/// A hash, which RESP3 gives as a map and RESP2 as a list.
fn pairs(value: Value) -> HashMap<String, String> {
    let pairs: Vec<(Value, Value)> = match value {
        Value::Map(pairs) => pairs,
        other => {
            let mut items = array(other).into_iter();
            std::iter::from_fn(|| Some((items.next()?, items.next()?))).collect()
        }
    };
    pairs.into_iter().filter_map(|(name, value)| Some((text(name).ok()?, text(value).ok()?))).collect()
}

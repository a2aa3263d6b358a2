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
    Client, Cmd, ErrorKind, IntoConnectionInfo, Pipeline, ProtocolVersion, RedisError, Script,
    ServerErrorKind, TlsCertificates, Value, cmd, io::tcp::TcpSettings,
};
use rustls::CertificateError;
use tracing::warn;

use super::{
    CachedResponse, Commit, Documents, Purpose, Repository, Revision, StoreError,
    cache::RecordCache,
    line::Line,
    location::{REMEDY, RedisUrl},
};
use crate::domain::{
    ApiPath, AuditPage, AuditQuery, AuditStats, Change, DocumentKey, Kind, ListPage, ListQuery,
    Operation, Record, StoredEntry, Timestamp,
    audit::{AuditPosition, Category, entry_text},
    document::sha256_hex,
    text::{sanitize, truncate},
};

mod examination;
mod smoke;

pub(super) use examination::examine;
pub(super) use smoke::smoke;

/// Documents are fetched so many at a time, and entries at first.
const CHUNK: usize = 100;
/// The first documents are fetched so many at a time, and then as many as make up these bytes: on a slow line an answer must still
/// come in time, and other answers between two of them.
const FIRST: usize = 8;
const PIECE: usize = 512 * 1024;
/// When to ask again for a write that the server does not take at the moment.
const FULL: Duration = Duration::from_secs(3);
/// After a write of ours, reads go where the write went: a replica may be behind.
const OWN_WRITE: Duration = Duration::from_secs(5);
/// So soon after the answer to a write the line is taken to be there still.
const BURST: Duration = Duration::from_millis(20);

/// Documents and the audit log in a Redis database.
pub(super) struct RedisStore {
    write: Option<Arc<Line>>,
    read: Arc<Line>,
    keys: Keys,
    commit: Script,
    cache: Arc<RecordCache>,
    last_write: Mutex<Option<Instant>>,
}

impl RedisStore {
    /// A store that connects when it is first used.
    pub(super) fn new(
        write: Option<&RedisUrl>,
        read: Option<&RedisUrl>,
        key_prefix: &str,
    ) -> anyhow::Result<Self> {
        let write = write.map(connect).transpose()?;
        let read = match (read, &write) {
            (Some(url), _) => connect(url)?,
            // A connection of its own, so that a read need not wait behind a large write.
            (None, Some((_, client))) => (Arc::new(Line::new(client.clone())?), client.clone()),
            (None, None) => anyhow::bail!("no Redis address"),
        };
        Ok(Self {
            write: write.map(|(line, _)| line),
            read: read.0,
            keys: Keys {
                prefix: key_prefix.to_owned(),
            },
            commit: Script::new(include_str!("commit.lua")),
            cache: Arc::default(),
            last_write: Mutex::new(None),
        })
    }

    fn writing(&self) -> Result<&Line, StoreError> {
        self.write.as_deref().ok_or_else(|| {
            StoreError::ReadOnly("the server was given a read-only credential alone".to_owned())
        })
    }

    /// The line for a read: that of our own recent write, or the one for reading.
    fn reading(&self, purpose: Purpose) -> &Line {
        let own = purpose == Purpose::Change || self.wrote_within(OWN_WRITE);
        match &self.write {
            Some(write) if own => write,
            _ => &self.read,
        }
    }

    fn wrote_within(&self, time: Duration) -> bool {
        let last_write = *self
            .last_write
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        last_write.is_some_and(|instant| instant.elapsed() < time)
    }

    async fn read(&self, purpose: Purpose, command: &Cmd) -> Result<Value, RedisError> {
        self.reading(purpose).send(command).await
    }

    async fn read_all(
        &self,
        purpose: Purpose,
        pipeline: &Pipeline,
        count: usize,
    ) -> Result<Vec<Value>, RedisError> {
        self.reading(purpose).send_all(pipeline, 0, count).await
    }

    /// Why the value at `key` of the document is not one, asked when a bulk read left it out.
    async fn missing(&self, keys: &[DocumentKey]) -> Result<Vec<String>, StoreError> {
        let mut pipeline = redis::pipe();
        for key in keys {
            pipeline.cmd("TYPE").arg(self.keys.document(key));
        }
        let types = self
            .read_all(Purpose::Show, &pipeline, keys.len())
            .await
            .map_err(|error| unread(&error))?;
        Ok(keys
            .iter()
            .zip(types)
            .filter_map(|(key, kind)| match text(kind).ok().as_deref() {
                // An index names a document that is gone, such as one with a time to live: there is nothing to show.
                None | Some("none") => None,
                Some(other) => Some(unreadable(
                    &self.keys.document(key),
                    &format!("it is a Redis {other}, not a string"),
                )),
            })
            .collect())
    }

    fn commit_command(
        &self,
        name: &str,
        code: &str,
        changes: &[Change],
        rests: &[String],
        operation: &Operation,
    ) -> Cmd {
        let now = changes
            .first()
            .map_or(Timestamp::from_millis(0), Change::time);
        let texts = changes
            .iter()
            .map(|change| change.text().len() + change.expected_text().map_or(0, str::len))
            .sum::<usize>();
        let bytes = code.len()
            + texts
            + rests.iter().map(String::len).sum::<usize>()
            + 1024 * changes.len();
        let mut command = Cmd::with_capacity(7 + 17 * changes.len(), bytes);
        command.arg(name).arg(code).arg(4 + 7 * changes.len());
        command
            .arg(self.keys.mark(operation))
            .arg(self.keys.entries())
            .arg(self.keys.stats())
            .arg(self.keys.internal("self-test"));
        for change in changes {
            let key = change.key();
            command
                .arg(self.keys.document(key))
                .arg(self.keys.latest(key));
            for index in ["all", "published", "featured"] {
                command.arg(self.keys.index(index, key.kind));
            }
            command
                .arg(self.keys.cache(key.kind))
                .arg(self.keys.cache_of(key));
        }
        command
            .arg(operation.fingerprint())
            .arg(operation.seconds())
            .arg(now.millis())
            .arg(changes.len());
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

    /// Sends the commit. The operation's mark makes every sending after the first harmless.
    async fn send_commit(
        &self,
        changes: &[Change],
        rests: &[String],
        operation: &Operation,
    ) -> Result<Value, StoreError> {
        let line = self.writing()?;
        let by_hash =
            self.commit_command("EVALSHA", self.commit.get_hash(), changes, rests, operation);
        let mut result = line.send(&by_hash).await;
        // Not SCRIPT LOAD and again: behind a proxy of several servers the second may not know what the first loaded.
        if matches!(&result, Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript))
        {
            let by_text = self.commit_command(
                "EVAL",
                include_str!("commit.lua"),
                changes,
                rests,
                operation,
            );
            result = line.send(&by_text).await;
        }
        result.map_err(|error| match refused(&error) {
            // A connection that was not made has carried nothing; trouble with TLS other than distrust may come in the middle of one.
            refused @ StoreError::Refused(_) if !error.is_io_error() || is_distrust(&error) => {
                refused
            }
            refused if is_reply(&error) || error.is_connection_refusal() => refused,
            // Lost, late or garbled: it may have been applied all the same.
            _ => StoreError::OutcomeUnknown(plain(&error)),
        })
    }

    /// The entries of a commit of earlier, by their numbers.
    async fn entries_at(
        &self,
        score: i64,
        first: u64,
        count: u64,
    ) -> Result<Vec<StoredEntry>, StoreError> {
        let mut command = cmd("ZRANGE");
        command
            .arg(self.keys.entries())
            .arg(score)
            .arg(score)
            .arg("BYSCORE");
        let found = array(
            self.read(Purpose::Change, &command)
                .await
                .map_err(|error| unread(&error))?,
        );
        let entries: Vec<StoredEntry> = found
            .into_iter()
            .filter_map(|value| text(value).ok())
            .map(StoredEntry::parse)
            .filter(|entry| {
                entry
                    .seq()
                    .is_some_and(|seq| (first..first + count).contains(&seq))
            })
            .collect();
        Ok(entries)
    }

    async fn replayed(&self, ms: &str, first: &str, count: &str) -> Result<Commit, StoreError> {
        let number = |text: &str| {
            text.parse::<u64>().map_err(|_| {
                StoreError::Failed(format!(
                    "the operation's mark is damaged: `{}`",
                    truncate(text)
                ))
            })
        };
        let score = i64::try_from(number(ms)?).unwrap_or(i64::MAX);
        Ok(Commit {
            entries: self
                .entries_at(score, number(first)?, number(count)?)
                .await?,
            replayed: true,
        })
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
            command
                .arg("BYSCORE")
                .arg("REV")
                .arg("LIMIT")
                .arg(seen.len())
                .arg(step)
                .arg("WITHSCORES");
            let found = scored(
                self.read(Purpose::Show, &command)
                    .await
                    .map_err(|error| unread(&error))?,
            );
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
        let Some(line) = &self.write else {
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
        if let Err(error) = line.send_all(&repair, repair.len() + 1, 1).await {
            warn!(
                "the audit counters could not be put right, so the log is counted each time: {}",
                plain(&error)
            );
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
                pipeline
                    .add_command(get)
                    .cmd("GET")
                    .arg(self.keys.latest(key))
                    .ignore_errors();
                let mut values = self
                    .read_all(purpose, &pipeline, 2)
                    .await
                    .map_err(|error| unread(&error))?
                    .into_iter();
                let value = values.next().unwrap_or_default();
                (
                    unwrapped(value),
                    values.next().and_then(|value| text(value).ok()),
                )
            }
        };
        let value = match value {
            Ok(Value::Nil) => return Ok(None),
            Ok(value) => value,
            Err(error) if error.code() == Some("WRONGTYPE") => {
                return Err(StoreError::Corrupt {
                    key: name,
                    problem: "it is not a Redis string".to_owned(),
                });
            }
            Err(error) => return Err(unread(&error)),
        };
        match text(value).and_then(|text| self.cache.record(key.clone(), text)) {
            Ok(record) => Ok(Some(record.with_latest_entry(latest))),
            Err(problem) => Err(StoreError::Corrupt { key: name, problem }),
        }
    }

    fn recall(&self, key: &DocumentKey) -> Option<Record> {
        self.wrote_within(BURST)
            .then(|| self.cache.recall(key))
            .flatten()
    }

    async fn ids(&self, kind: Kind) -> Result<Vec<String>, StoreError> {
        let mut command = cmd("SMEMBERS");
        command.arg(self.keys.index("all", kind));
        let mut ids: Vec<String> = array(
            self.read(Purpose::Show, &command)
                .await
                .map_err(|error| unread(&error))?,
        )
        .into_iter()
        .filter_map(|id| text(id).ok())
        .collect();
        ids.sort_unstable();
        Ok(ids)
    }

    async fn all(&self, kind: Kind) -> Result<Documents, StoreError> {
        let keys: Vec<DocumentKey> = self
            .ids(kind)
            .await?
            .into_iter()
            .map(|id| DocumentKey::new(kind, id))
            .collect();
        let (mut texts, mut bytes, mut size) = (Vec::with_capacity(keys.len()), 0, FIRST);
        while let Some(chunk) = keys
            .get(texts.len()..keys.len().min(texts.len() + size))
            .filter(|chunk| !chunk.is_empty())
        {
            let mut command = cmd("MGET");
            for key in chunk {
                command.arg(self.keys.document(key));
            }
            let values = array(
                self.read(Purpose::Show, &command)
                    .await
                    .map_err(|error| unread(&error))?,
            );
            if values.len() != chunk.len() {
                return Err(StoreError::Failed(
                    "Redis gave fewer documents than it was asked for".to_owned(),
                ));
            }
            bytes += values
                .iter()
                .map(|value| {
                    if let Value::BulkString(text) = value {
                        text.len()
                    } else {
                        0
                    }
                })
                .sum::<usize>();
            texts.extend(values);
            size = (PIECE / (bytes / texts.len()).max(1)).clamp(1, 10 * CHUNK);
        }
        let (mut present, mut absent) = (Vec::with_capacity(keys.len()), Vec::new());
        for (key, text) in keys.into_iter().zip(texts) {
            match text {
                Value::Nil => absent.push(key),
                value => present.push((self.keys.document(&key), key, value)),
            }
        }
        let mut unreadables = if absent.is_empty() {
            Vec::new()
        } else {
            self.missing(&absent).await?
        };
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
        let (records, problems) = parsed.await.map_err(|_| StoreError::ended())?;
        unreadables.extend(problems);
        Ok(Documents {
            records,
            unreadable: unreadables,
        })
    }

    async fn list(&self, kind: Kind, query: &ListQuery) -> Result<ListPage, StoreError> {
        let Documents {
            records,
            unreadable,
        } = self.all(kind).await?;
        let query = query.clone();
        let page = tokio::task::spawn_blocking(move || {
            let (places, total, next) = query.page(records.iter().map(Record::listing));
            let mut records: HashMap<String, Record> = records
                .into_iter()
                .map(|record| (record.key().id.clone(), record))
                .collect();
            let records = places
                .iter()
                .filter_map(|place| records.remove(&place.id))
                .collect();
            ListPage {
                records,
                total,
                next,
                unreadable,
            }
        });
        page.await.map_err(|_| StoreError::ended())
    }

    async fn commit(
        &self,
        changes: &[Change],
        operation: &Operation,
    ) -> Result<Commit, StoreError> {
        let rests: Vec<String> = changes.iter().map(Change::entry_rest).collect();
        let reply = text(self.send_commit(changes, &rests, operation).await?).unwrap_or_default();
        match reply.split(' ').collect::<Vec<_>>().as_slice() {
            ["OK", ms, first, _] => {
                *self
                    .last_write
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                let timestamp = Timestamp::from_millis(ms.parse().unwrap_or_default());
                let mut entries = Vec::with_capacity(changes.len());
                for ((change, rest), seq) in changes
                    .iter()
                    .zip(&rests)
                    .zip(first.parse::<u64>().unwrap_or_default()..)
                {
                    let text = entry_text(seq, timestamp, rest);
                    self.cache
                        .remember(change.next().clone().with_latest_entry(Some(text.as_str())));
                    entries.push(StoredEntry::parse(text));
                }
                Ok(Commit {
                    entries,
                    replayed: false,
                })
            }
            ["REPLAY", ms, first, count] => self.replayed(ms, first, count).await,
            ["CONFLICT"] => Err(StoreError::Conflict),
            ["MISMATCH"] => Err(StoreError::Mismatch),
            ["NOPERM", command @ ..] => Err(StoreError::ReadOnly(format!(
                "the Redis user may not run `{}`, so nothing was written; grant it, or give the server a credential that may write",
                command.join(" ")
            ))),
            _ => Err(StoreError::Failed(
                "the commit script gave an unknown answer".to_owned(),
            )),
        }
    }

    async fn outcome(&self, operation: &Operation) -> Result<Option<Commit>, StoreError> {
        let mut command = cmd("GET");
        command.arg(self.keys.mark(operation));
        let mark = match self
            .read(Purpose::Change, &command)
            .await
            .map_err(|error| unread(&error))?
        {
            Value::Nil => return Ok(None),
            value => text(value).map_err(StoreError::Failed)?,
        };
        match mark.split('|').collect::<Vec<_>>().as_slice() {
            [fingerprint, ms, first, count] if *fingerprint == operation.fingerprint() => {
                self.replayed(ms, first, count).await.map(Some)
            }
            _ => Err(StoreError::Mismatch),
        }
    }

    async fn import_entries(
        &self,
        entries: &[StoredEntry],
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        let line = self.writing()?;
        let mut added = 0;
        for chunk in entries.chunks(CHUNK) {
            let mut command = cmd("ZADD");
            command.arg(self.keys.entries()).arg("NX");
            for entry in chunk {
                command.arg(entry.import_score(now)).arg(entry.text());
            }
            match line.send(&command).await.map_err(|error| refused(&error))? {
                Value::Int(count) => added += usize::try_from(count).unwrap_or_default(),
                other => {
                    return Err(StoreError::Failed(format!(
                        "ZADD gave an unknown answer of type {}",
                        kind_of(&other)
                    )));
                }
            }
        }
        if let Some(greatest) = entries
            .iter()
            .filter_map(StoredEntry::seq)
            .filter(|seq| *seq < 1 << 53)
            .max()
        {
            // Their numbers are taken, so the counter goes on after them; it never goes back.
            let raise = "if tonumber(ARGV[1]) > (tonumber(redis.call('HGET', KEYS[1], 'seq') or '0') or 0) then \
                         redis.call('HSET', KEYS[1], 'seq', ARGV[1]) end";
            let mut command = cmd("EVAL");
            command
                .arg(raise)
                .arg(1)
                .arg(self.keys.stats())
                .arg(greatest);
            line.send(&command).await.map_err(|error| refused(&error))?;
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
        let (mut page, mut last_score) = (AuditPage::default(), 0);
        self.scan(
            start,
            query.since.map(Timestamp::millis_ceil),
            |score, member| {
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

    async fn audit_stats(&self) -> Result<AuditStats, StoreError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("ZCARD").arg(self.keys.entries());
        pipeline.cmd("HGETALL").arg(self.keys.stats());
        pipeline
            .cmd("HGETALL")
            .arg(self.keys.internal("unlabelled"));
        let values = self
            .read_all(Purpose::Show, &pipeline, 3)
            .await
            .map_err(|error| unread(&error))?;
        let mut values = values
            .into_iter()
            .map(unwrapped)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| unread(&error))?
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

    async fn revision(&self) -> Result<Revision, StoreError> {
        let mut pipeline = redis::pipe();
        pipeline
            .cmd("HGET")
            .arg(self.keys.stats())
            .arg("seq")
            .cmd("ZCARD")
            .arg(self.keys.entries());
        for kind in Kind::ALL {
            pipeline.cmd("SCARD").arg(self.keys.index("all", kind));
        }
        let answers = self
            .read_all(Purpose::Show, &pipeline, 4)
            .await
            .map_err(|error| unread(&error))?;
        let numbers: Vec<u64> = answers
            .into_iter()
            .map(|value| {
                text(value)
                    .ok()
                    .and_then(|text| text.parse().ok())
                    .unwrap_or_default()
            })
            .collect();
        let [seq, entries, projects, resources] = <[u64; 4]>::try_from(numbers).map_err(|_| {
            StoreError::Failed("Redis gave fewer answers than it was asked for".to_owned())
        })?;
        Ok(Revision {
            seq,
            entries,
            documents: [projects, resources],
        })
    }

    async fn cached(&self, api_path: &ApiPath) -> Result<Option<CachedResponse>, StoreError> {
        let mut pipeline = redis::pipe();
        pipeline
            .cmd("GET")
            .arg(self.keys.cached(api_path))
            .cmd("HGET")
            .arg(self.keys.stats())
            .arg("seq")
            .ignore_errors();
        let mut answers = self
            .read_all(Purpose::Show, &pipeline, 2)
            .await
            .map_err(|error| unread(&error))?
            .into_iter();
        // Whatever another program left there is no answer.
        let answer = answers.next().and_then(|value| text(value).ok());
        let seq =
            match unwrapped(answers.next().unwrap_or_default()).map_err(|error| unread(&error))? {
                Value::Nil => 0,
                value => text(value)
                    .ok()
                    .and_then(|text| text.parse().ok())
                    .ok_or_else(|| StoreError::Failed("`seq` is no number".to_owned()))?,
            };
        Ok(Some(CachedResponse { answer, seq }))
    }

    async fn cache(
        &self,
        api_path: &ApiPath,
        seq: u64,
        answer: &str,
        lasting: Duration,
    ) -> Result<(), StoreError> {
        let Some(line) = &self.write else {
            return Ok(());
        };
        // Nothing comes between the two commands of a script, so what a commit has made old is not put back after it.
        let keep = "if (redis.call('HGET', KEYS[2], 'seq') or '0') == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) end";
        let mut command = cmd("EVAL");
        command
            .arg(keep)
            .arg(2)
            .arg(self.keys.cached(api_path))
            .arg(self.keys.stats())
            .arg(seq)
            .arg(answer)
            .arg(lasting.as_secs());
        line.send(&command)
            .await
            .map(drop)
            .map_err(|error| refused(&error))
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

    fn cached(&self, api_path: &ApiPath) -> String {
        match api_path {
            ApiPath::All(kind) => self.cache(*kind),
            ApiPath::One(key) => self.cache_of(key),
        }
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

fn connect(url: &RedisUrl) -> anyhow::Result<(Arc<Line>, Client)> {
    let client = client(url)?;
    Ok((Arc::new(Line::new(client.clone())?), client))
}

/// What connects to `url`.
fn client(url: &RedisUrl) -> anyhow::Result<Client> {
    // Several may be linked in; the first call decides, and a second one changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let info = url.secret().clone().into_connection_info()?;
    let says_protocol = url
        .secret()
        .query_pairs()
        .any(|(name, _)| name == "protocol");
    let settings = info.redis_settings().clone();
    let settings = if says_protocol {
        settings
    } else {
        settings.set_protocol(ProtocolVersion::RESP3)
    };
    let info = info
        .set_redis_settings(settings)
        .set_tcp_settings(TcpSettings::default().set_nodelay(true));
    Ok(match url.authority() {
        Some(authority) => Client::build_with_tls(
            info,
            TlsCertificates {
                client_tls: None,
                root_cert: Some(authority.pem()),
            },
        )?,
        None => Client::open(info)?,
    })
}

/// Whether the server itself said it.
fn is_reply(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
}

/// Whether sending it again may help.
fn is_transient(error: &RedisError) -> bool {
    let server = [
        ServerErrorKind::BusyLoading,
        ServerErrorKind::TryAgain,
        ServerErrorKind::ClusterDown,
        ServerErrorKind::MasterDown,
    ];
    (error.is_io_error() && tls_error(error).is_none())
        || server
            .iter()
            .any(|kind| error.kind() == ErrorKind::Server(*kind))
}

/// A write that the server refused, before anything was written.
fn refused(error: &RedisError) -> StoreError {
    match (error.kind(), error.code()) {
        (ErrorKind::Server(ServerErrorKind::NoPerm), _) => {
            StoreError::ReadOnly(format!("the Redis user may not write: {}; give the server a credential that may", plain(error)))
        }
        (ErrorKind::Server(ServerErrorKind::ReadOnly), _) => {
            paused("this Redis is a read-only replica; give the server the address of the primary".to_owned())
        }
        _ if plain(error).to_lowercase().contains("capacity quota exceeded") => {
            paused("the database has used up its quota of space; make room or raise the plan's limit, then try again".to_owned())
        }
        (_, Some("OOM")) => paused("the Redis database is full; make room or enlarge it, then try again".to_owned()),
        (_, Some("WRONGTYPE")) => StoreError::Failed(
            "one of this program's keys (index:…, audit:…, internal:…) holds a value of another Redis type; the site's developer has to \
             rename or delete it"
                .to_owned(),
        ),
        (_, Some("MISCONF" | "NOREPLICAS")) => paused(format!("Redis takes no writes at the moment: {}", plain(error))),
        _ => unread(error),
    }
}

fn paused(reason: String) -> StoreError {
    StoreError::Paused {
        reason,
        retry_after: FULL,
    }
}

/// A read that failed.
fn unread(error: &RedisError) -> StoreError {
    if let Some(reason) = not_let_in(error) {
        return StoreError::Refused(reason);
    }
    // What Upstash says with no code of its own.
    let said = plain(error).to_lowercase();
    if said.contains("max requests limit exceeded") {
        let remedy = "wait for the next period or raise the plan's limit";
        return StoreError::Refused(format!(
            "the database's quota of requests is used up; {remedy}"
        ));
    }
    if said.contains("max concurrent connections") || error.code() == Some("BUSY") {
        return StoreError::Unavailable(plain(error));
    }
    if is_transient(error)
        || error.is_unrecoverable_error()
        || error.kind() == ErrorKind::InvalidClientConfig
    {
        return StoreError::Unavailable(format!("{}; {REMEDY}", plain(error)));
    }
    StoreError::Failed(format!("Redis answered: {}", plain(error)))
}

/// Whether the user may not do that.
fn is_permission(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm)
}

/// Why Redis, or its certificate, makes every further attempt useless until somebody has mended something.
fn not_let_in(error: &RedisError) -> Option<String> {
    if error.kind() == ErrorKind::AuthenticationFailed || error.code() == Some("WRONGPASS") {
        let remedy = "put the right one into the address; for a database whose REST token is not its password, set REDIS_URL";
        return Some(format!("Redis refuses the user or the password; {remedy}"));
    }
    if error.code() == Some("NOAUTH") {
        return Some("Redis wants a password, and the address has none; write it as `redis://USER:PASSWORD@HOST`".to_owned());
    }
    let error = match tls_error(error)? {
        rustls::Error::InvalidCertificate(error) => error,
        rustls::Error::InvalidMessage(_) => {
            return Some(
                "the port does not answer with TLS; use `redis://` if that is meant".to_owned(),
            );
        }
        other => {
            return Some(format!(
                "there is no TLS with Redis: {other}; see that it takes TLS 1.2 or 1.3 without a client's certificate"
            ));
        }
    };
    let remedy = match error {
        // Two authorities may have the same name.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "it is signed by nobody who is trusted; pass the PEM file of the authority that signed it as --ca-file (PORTFOLIO_CA_FILE)"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another host; use the host's name that the certificate has, and see that this is the right server"
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            "it is not valid at this time; renew it, or put this machine's clock right"
        }
        _ => "put another one in the server",
    };
    let shown: String = error.to_string().chars().take(200).collect();
    Some(format!(
        "the certificate of Redis is refused ({shown}): {remedy}"
    ))
}

/// Whether the server's certificate was refused, which is before anything is sent.
fn is_distrust(error: &RedisError) -> bool {
    matches!(tls_error(error), Some(rustls::Error::InvalidCertificate(_)))
}

/// What is wrong with TLS; redis-rs wraps it in an IO error, and that in an `Arc`.
fn tls_error(error: &RedisError) -> Option<&rustls::Error> {
    let wrapped = std::error::Error::source(error)?
        .downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>()?;
    wrapped
        .downcast_ref::<std::io::Error>()?
        .get_ref()?
        .downcast_ref()
}

/// What an error says, in one line and without the values that were sent, which some servers repeat.
fn plain(error: &RedisError) -> String {
    let text = error.to_string();
    let line = text
        .lines()
        .next()
        .unwrap_or_default()
        .split(", with args beginning with")
        .next()
        .unwrap_or_default();
    sanitize(line).chars().take(200).collect()
}

fn unreadable(key: &str, problem: &str) -> String {
    format!(
        "left out the value at `{}`: {problem}; restore it from a backup or delete the key",
        truncate(key)
    )
}

fn is_counter(name: &str) -> bool {
    Category::ALL.iter().any(|category| {
        name.strip_prefix(category.member())
            .is_some_and(|rest| rest.starts_with(':'))
    })
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
        Value::BulkString(bytes) => {
            String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
        }
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
            other => text(other)
                .ok()
                .and_then(|text| text.parse().ok())
                .unwrap_or_default(),
        };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "scores are milliseconds since 1970, far below 2^53"
        )]
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
    pairs
        .into_iter()
        .filter_map(|(name, value)| Some((text(name).ok()?, text(value).ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> RedisError {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        unwrapped(value).unwrap_err()
    }

    /// What Upstash says has no code of its own, and each calls for something else.
    #[test]
    fn a_used_up_quota_and_a_busy_server_are_told_apart() {
        let quota = said("ERR max requests limit exceeded. Limit: 500000, Usage: 500000");
        let connections = said("ERR max concurrent connections exceeded");
        let space = said("ERR DB capacity quota exceeded. Limit: 268435456");
        let busy = said(
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        );

        assert!(
            matches!(unread(&quota), StoreError::Refused(reason) if reason.contains("quota of requests"))
        );
        assert!(matches!(refused(&quota), StoreError::Refused(_)));
        assert!(matches!(unread(&connections), StoreError::Unavailable(_)));
        assert!(matches!(unread(&busy), StoreError::Unavailable(_)));
        assert!(
            matches!(refused(&space), StoreError::Paused { reason, .. } if reason.contains("quota of space"))
        );
    }
}

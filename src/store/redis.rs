//! The Redis store: connections, key names, one Lua call for each write.
//!
//! Works on the documents and entries that older programs left, under the same keys, and never touches others.
//! Two connection managers are shared by all callers: one for writes and what is read for them, one for reads. There
//! is no WATCH, which on a shared connection loses updates.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use redis::{Cmd, Pipeline, RedisError, Script, Value, cmd};

use super::{
    CachedResponse, Commit, Documents, Purpose, Repository, Revision, StoreError,
    location::RedisUrl,
};
use crate::domain::{
    ApiPath, AuditPage, AuditQuery, AuditStats, Change, DocumentKey, Kind, ListPage, ListQuery,
    Operation, Record, StoredEntry, Timestamp, audit::entry_text, text::truncate,
};

mod audit;
mod commit;
pub(crate) mod connection;
pub(crate) mod error;
pub(crate) mod keys;
mod record_cache;
pub(crate) mod reply;

use connection::{Connection, connect};
use error::{refused, unread};
use keys::Keys;
use record_cache::RecordCache;
use reply::{array, kind_of, text, unwrapped};

/// Documents are fetched so many at a time, and entries at first.
const CHUNK: usize = 100;
/// The first documents are fetched so many at a time, and then as many as make up these bytes: on a slow line an answer must still
/// come in time, and other answers between two of them.
const FIRST: usize = 8;
const PIECE: usize = 512 * 1024;
/// After a write of ours, reads go where the write went: a replica may be behind.
const OWN_WRITE: Duration = Duration::from_secs(5);
/// So soon after the answer to a write the line is taken to be there still.
const BURST: Duration = Duration::from_millis(20);

/// Documents and the audit log in a Redis database.
pub(crate) struct RedisStore {
    write: Option<Arc<Connection>>,
    read: Arc<Connection>,
    keys: Keys,
    commit: Script,
    cache: Arc<RecordCache>,
    last_write: Mutex<Option<Instant>>,
}

impl RedisStore {
    /// A store that connects when it is first used.
    pub(crate) fn new(
        write: Option<&RedisUrl>,
        read: Option<&RedisUrl>,
        key_prefix: &str,
    ) -> anyhow::Result<Self> {
        let write = write.map(connect).transpose()?;
        let read = match (read, &write) {
            (Some(url), _) => connect(url)?,
            // A connection of its own, so that a read need not wait behind a large write.
            (None, Some((_, client))) => {
                (Arc::new(Connection::new(client.clone())?), client.clone())
            }
            (None, None) => anyhow::bail!("no Redis address"),
        };
        Ok(Self {
            write: write.map(|(line, _)| line),
            read: read.0,
            keys: Keys {
                prefix: key_prefix.to_owned(),
            },
            commit: Script::new(commit::SCRIPT),
            cache: Arc::default(),
            last_write: Mutex::new(None),
        })
    }

    fn writing(&self) -> Result<&Connection, StoreError> {
        self.write.as_deref().ok_or_else(|| {
            StoreError::ReadOnly("the server was given a read-only credential alone".to_owned())
        })
    }

    /// The line for a read: that of our own recent write, or the one for reading.
    fn reading(&self, purpose: Purpose) -> &Connection {
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
            let (places, total, next) = query.page(records.iter().map(Record::index_entry));
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
        self.read_audit_entries(query).await
    }

    async fn audit_stats(&self) -> Result<AuditStats, StoreError> {
        self.read_audit_stats().await
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

fn unreadable(key: &str, problem: &str) -> String {
    format!(
        "left out the value at `{}`: {problem}; restore it from a backup or delete the key",
        truncate(key)
    )
}

//! The Redis store: one Lua call for each write, documents and entries under the keys that older
//! programs used.
//!
//! Three connections are shared by all callers: one for writes and what is read for them, one for
//! reads, and one for reading much. There is no WATCH, which on a shared connection loses updates. Foreign keys are never
//! touched.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use redis::{Cmd, Pipeline, RedisError, Script, Value, cmd};
use tracing::debug;

use super::{
    Commit, HistoryImport, Repository, Revision, StoreError, load::load, location::RedisUrl,
};
use crate::domain::{
    AuditPage, AuditQuery, AuditStats, Change, Current, DocumentKey, FoundDocument, History, Kind,
    ListPage, ListQuery, Operation, Record, StoredEntry, Timestamp, text::truncate,
};

mod audit;
mod commit;
pub(crate) mod connection;
pub(crate) mod error;
mod explained;
mod history_index;
pub(crate) mod keys;
mod load;
pub(crate) mod log;
mod outside;
mod plans;
mod record_cache;
mod recount;
pub(crate) mod reply;
mod response_cache;
mod script;

use connection::{Connection, connect};
use error::{is_permission_denied, read_error, write_error};
use explained::Explained;
use history_index::catch_up::CatchUps;
use keys::Keys;
use log::LogUse;
use record_cache::RecordCache;
use recount::Recounts;
use reply::{array, kind_of, text};

/// Entries to import are sent this many at a time.
const IMPORT_CHUNK: usize = 100;
/// After a write of ours, reads go where the write went for this long: a replica may be behind.
const OWN_WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that answered a write this recently is taken to be alive.
const ALIVE_TIMEOUT: Duration = Duration::from_millis(20);

/// Documents and the audit log in a Redis database.
pub(crate) struct RedisStore {
    write: Option<Arc<Connection>>,
    read: Arc<Connection>,
    bulk: Arc<Connection>,
    keys: Keys,
    commit: Script,
    cache: Arc<RecordCache>,
    explained: Explained,
    recounts: Recounts,
    catch_ups: CatchUps,
    log_use: Arc<LogUse>,
    last_write: Mutex<Option<Instant>>,
    /// Commits that were sent and not answered yet.
    committing: AtomicUsize,
    /// Whether the user may write everything but the schema version.
    schema_is_denied: AtomicBool,
    /// When the user was last refused the keys of our own beside documents.
    own_keys_denied: Mutex<Option<tokio::time::Instant>>,
}

/// Which connection a read uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadFrom {
    /// The one for reads, which may lead to a replica; after a write of ours, the one for writes.
    Any,
    /// The one for writes, which leads to the newest state.
    Primary,
    /// The one for reading much, behind which nothing else waits. It leads to the newest state where
    /// there is a connection for writes.
    Bulk,
}

impl RedisStore {
    /// A store that connects on first use.
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
        let (_, newest) = write.as_ref().unwrap_or(&read);
        let bulk = Arc::new(Connection::new(newest.clone())?);
        Ok(Self {
            write: write.map(|(connection, _)| connection),
            read: read.0,
            bulk,
            keys: Keys {
                prefix: key_prefix.to_owned(),
            },
            commit: script::commit(),
            cache: Arc::default(),
            explained: Explained::default(),
            recounts: Recounts::default(),
            catch_ups: CatchUps::default(),
            log_use: Arc::default(),
            last_write: Mutex::new(None),
            committing: AtomicUsize::new(0),
            schema_is_denied: AtomicBool::new(false),
            own_keys_denied: Mutex::new(None),
        })
    }

    fn write_connection(&self) -> Result<&Connection, StoreError> {
        self.write
            .as_deref()
            .ok_or_else(|| StoreError::read_only("the server has only a read-only credential"))
    }

    fn read_connection(&self, from: ReadFrom) -> &Arc<Connection> {
        let primary = match from {
            ReadFrom::Any => self.wrote_within(OWN_WRITE_TIMEOUT),
            ReadFrom::Primary => true,
            ReadFrom::Bulk => return &self.bulk,
        };
        match &self.write {
            Some(write) if primary => write,
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

    fn note_write(&self) {
        *self
            .last_write
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    async fn read(&self, from: ReadFrom, command: &Cmd) -> Result<Value, StoreError> {
        self.read_connection(from)
            .send(command)
            .await
            .map_err(|error| read_error(&error))
    }

    /// One reply for each command; a command that Redis refuses has its error there.
    async fn read_all(
        &self,
        from: ReadFrom,
        pipeline: &Pipeline,
    ) -> Result<Vec<Value>, StoreError> {
        self.read_connection(from)
            .send_all(pipeline, 0, pipeline.len())
            .await
            .map_err(|error| read_error(&error))
    }

    /// The document in the reply to a read of its key.
    fn record(
        &self,
        key: &DocumentKey,
        reply: Result<Value, RedisError>,
    ) -> Result<Option<Record>, StoreError> {
        let corrupt = |problem| StoreError::Corrupt {
            key: self.keys.document(key),
            problem,
        };
        match reply {
            Ok(Value::Nil) => Ok(None),
            Ok(value) => text(value)
                .and_then(|text| self.cache.parse(key.clone(), text))
                .map(Some)
                .map_err(corrupt),
            Err(error) if error.code() == Some("WRONGTYPE") => Err(self.not_a_string(key)),
            Err(error) => Err(read_error(&error)),
        }
    }

    fn not_a_string(&self, key: &DocumentKey) -> StoreError {
        StoreError::Corrupt {
            key: self.keys.document(key),
            problem: "it is not a Redis string".to_owned(),
        }
    }

    /// What this process wrote last at `key`, if reading it again is not worth a round trip: other
    /// commits are under way, and the connection answered one just now. A lone writer always reads,
    /// so that it learns of a lost connection before it sends anything that may change something.
    ///
    /// Measured with `compare.py --only update`, see docs/architecture.md, "The remembered
    /// document".
    fn remembered(&self, key: &DocumentKey) -> Option<Current> {
        if self.committing.load(Ordering::Relaxed) == 0 || !self.wrote_within(ALIVE_TIMEOUT) {
            return None;
        }
        self.cache.take_written(key)
    }
}

#[async_trait]
impl Repository for RedisStore {
    fn name(&self) -> &'static str {
        "redis"
    }

    async fn get(&self, key: &DocumentKey) -> Result<FoundDocument, StoreError> {
        self.read_document(key).await
    }

    async fn get_for_update(&self, key: &DocumentKey) -> Result<Current, StoreError> {
        if let Some(current) = self.remembered(key) {
            return Ok(current);
        }
        // Together, so that no commit between the two looks like a change outside this server.
        let mut command = cmd("MGET");
        command.arg(self.keys.document(key));
        command.arg(self.keys.latest(key));
        let reply = self.read_connection(ReadFrom::Primary).send(&command).await;
        let mut values = match reply {
            Err(error) if is_permission_denied(&error) => Vec::new(),
            values => array(values.map_err(|error| read_error(&error))?),
        }
        .into_iter();
        let record = self.record(key, Ok(values.next().unwrap_or_default()))?;
        let latest_entry = values.next().and_then(|value| text(value).ok());
        if record.is_some() {
            return Ok(Current::read(key.clone(), record, latest_entry));
        }
        let found = self.read_with_entry(ReadFrom::Primary, key).await?;
        Ok(Current::read(key.clone(), found.record, found.latest_entry))
    }

    async fn list(&self, kind: Kind, query: &ListQuery) -> Result<ListPage, StoreError> {
        let (mut records, mut unreadable, mut changed_outside) =
            (Vec::new(), Vec::new(), Vec::new());
        load(self, kind, |found| {
            records.extend(found.records);
            unreadable.extend(found.unreadable);
            changed_outside.extend(found.changed_outside);
        })
        .await?;
        let query = query.clone();
        let page = tokio::task::spawn_blocking(move || {
            let found = query.page(records.iter().map(Record::index_entry));
            let mut records: HashMap<String, Record> = records
                .into_iter()
                .map(|record| (record.key().id.clone(), record))
                .collect();
            ListPage {
                records: found
                    .positions
                    .iter()
                    .filter_map(|position| records.remove(&position.id))
                    .collect(),
                total: found.total,
                next: found.next,
                unreadable,
                changed_outside,
            }
        });
        page.await.map_err(|_| StoreError::panicked())
    }

    async fn commit(
        &self,
        changes: &[Change],
        operation: &Operation,
    ) -> Result<Commit, StoreError> {
        self.run_commit(changes, operation).await
    }

    async fn find_commit(&self, operation: &Operation) -> Result<Option<Commit>, StoreError> {
        self.read_commit(operation).await
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
            .cmd("GET")
            .arg(self.keys.history())
            .cmd("ZCARD")
            .arg(self.keys.entries());
        for kind in Kind::ALL {
            pipeline.cmd("SCARD").arg(self.keys.index("all", kind));
        }
        let mut replies = self.read_all(ReadFrom::Any, &pipeline).await?.into_iter();
        let history = replies.next().and_then(|value| text(value).ok());
        let numbers: Vec<u64> = replies
            .map(|value| {
                text(value)
                    .ok()
                    .and_then(|text| text.parse().ok())
                    .unwrap_or_default()
            })
            .collect();
        let [entries, projects, resources] = <[u64; 3]>::try_from(numbers).map_err(|_| {
            StoreError::Failed("Redis sent fewer replies than there were commands".to_owned())
        })?;
        Ok(Revision {
            history: history.map(History::parse).unwrap_or_default(),
            entries,
            documents: [projects, resources],
        })
    }
}

impl RedisStore {
    /// Says how the store is laid out, unless it says so already. No import fails for it.
    async fn mark_schema(&self, connection: &Connection) {
        let mut command = cmd("SET");
        command.arg(self.keys.schema_version()).arg("1").arg("NX");
        if let Err(error) = connection.send(&command).await {
            debug!("could not set the schema version: {error}");
        }
    }
}

/// Raises the counter of writes to a number; it never goes back.
const RAISE_SEQ: &str = "if tonumber(ARGV[1]) > (tonumber(redis.call('HGET', KEYS[1], 'seq') or '0') or 0) then \
                         redis.call('HSET', KEYS[1], 'seq', ARGV[1]) end";

#[async_trait]
impl HistoryImport for RedisStore {
    async fn import_entries(
        &self,
        entries: &[StoredEntry],
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        let connection = self.write_connection()?;
        let mut added = 0;
        for chunk in entries.chunks(IMPORT_CHUNK) {
            let mut command = cmd("ZADD");
            command.arg(self.keys.entries()).arg("NX");
            for entry in chunk {
                command.arg(entry.import_score(now)).arg(entry.text());
            }
            let reply = connection.send(&command).await;
            match reply.map_err(|error| write_error(&error))? {
                Value::Int(count) => added += usize::try_from(count).unwrap_or_default(),
                other => {
                    return Err(StoreError::Failed(format!(
                        "ZADD returned an unexpected reply of type {}",
                        kind_of(&other)
                    )));
                }
            }
        }
        let greatest = entries
            .iter()
            .filter_map(StoredEntry::seq)
            .filter(|seq| *seq < 1 << 53)
            .max();
        if let Some(greatest) = greatest {
            // Their numbers are taken, so the counter continues after them.
            let mut command = cmd("EVAL");
            command
                .arg(RAISE_SEQ)
                .arg(1)
                .arg(self.keys.stats())
                .arg(greatest);
            connection
                .send(&command)
                .await
                .map_err(|error| write_error(&error))?;
        }
        self.mark_schema(connection).await;
        Ok(added)
    }
}

/// One line about a listed value that is left out.
fn unreadable(key: &str, problem: &str) -> String {
    format!(
        "left out the value at `{}`: {problem}; keep a copy of what is stored there, then repair it",
        truncate(key)
    )
}

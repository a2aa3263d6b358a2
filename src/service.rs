//! The use cases, shared by every door to the program.
//!
//! Knows the store as a trait and no protocol. Writers queue here for a document, so that those of one process do not
//! race each other, and a write that lost a race against another process is computed again.

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Map, Value, json};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout_at},
};
use tracing::{debug, info};
use uuid::Uuid;

use crate::{
    domain::{
        ApiPath, AuditPage, AuditQuery, AuditStats, Change, DocumentKey, Kind, ListPage, ListQuery,
        Operation, Origin, Record, StoredEntry, Timestamp, Update, Version, Violation,
        WriteContext, diff, text::compact_json,
    },
    store::{
        CachedResponse, Commit, Purpose, Repository, Snapshot, SnapshotCache, Store, StoreError,
    },
};

/// How long an update may try to win a race; a call is answered within 10 seconds.
const RACE: Duration = Duration::from_secs(7);
/// How long the store may take for what the saved copy could answer, too.
const READING: Duration = Duration::from_secs(7);
/// How often the saved copy is compared with the store while calls come in, and how often while none do.
const CONFIRM: Duration = Duration::from_mins(1);
const IDLE: u32 = 5;
/// How soon after a write of ours the copy has it, at most once in that time.
const FOLLOW: Duration = Duration::from_secs(3);
/// The first call goes first.
const FIRST_COPY: Duration = Duration::from_millis(250);
/// How long the website's answers are kept where another program may change documents without a trace.
const KEPT: Duration = Duration::from_mins(1);
/// How soon that is tried again when it failed.
const CONFIRM_AGAIN: Duration = Duration::from_secs(5);
/// Queues for documents; two documents in one queue only wait a little.
const QUEUES: usize = 256;

/// Why a use case was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such document.
    #[error("there is no {key}")]
    NotFound {
        /// What was asked for.
        key: DocumentKey,
        /// Ids that are near it.
        similar: Vec<String>,
    },
    /// The request or the change breaks rules.
    #[error("{} rules are broken", .0.len())]
    Invalid(Vec<Violation>),
    /// The document is not the one that the caller knows, or others kept changing it.
    #[error("{key} was changed in the meantime")]
    Conflict {
        /// Which document.
        key: DocumentKey,
        /// Its version now, if it is known.
        current: Option<Version>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Error {
    /// Whether this is because the store could not be asked.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_away())
    }
}

/// What was read, and how old it is.
#[derive(Debug)]
pub struct Fetched<T> {
    /// What was read.
    pub value: T,
    /// How long ago the store confirmed it, when it is from the saved copy because the store is away.
    pub saved: Option<Duration>,
}

/// What works at the moment.
#[derive(Debug)]
pub struct Health {
    /// Whether the store answers, or why not.
    pub store: Result<(), String>,
    /// The age of the saved copy, when there is one.
    pub saved: Option<Duration>,
}

/// What an update is asked to do.
#[derive(Debug, Clone)]
pub struct UpdateRequest {
    /// Which document.
    pub key: DocumentKey,
    /// What to merge into it.
    pub patch: Map<String, Value>,
    /// The version that the caller has seen.
    pub expected_version: Option<String>,
    /// Whether to write.
    pub mode: Mode,
    /// The caller's name for this write, under which it may be repeated.
    pub idempotency_key: Option<String>,
    /// Who, how and why.
    pub origin: Origin,
}

/// Whether to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Write.
    Commit,
    /// Only show what would be written.
    DryRun,
}

/// What an update did, or would do.
#[derive(Debug)]
pub struct Updated {
    /// The document as it is now; in a dry run, as it would be.
    pub record: Record,
    /// The same document, if there is a tree of it to give away.
    pub document: Option<Map<String, Value>>,
    /// Its stored version; in a dry run, the one before.
    pub version: Version,
    /// The changes, as they were recorded.
    pub changes: Value,
    /// The audit entry, when one was written.
    pub audit_id: Option<String>,
    /// Whether an earlier call with the same key had done it.
    pub replayed: bool,
    /// Rules that the stored document broke before and still breaks.
    pub warnings: Vec<Violation>,
}

/// What an update finds.
enum Read {
    Document(Record),
    Done(Commit),
}

/// The use cases.
pub struct ContentService {
    store: Arc<dyn Repository>,
    snapshot: Option<Arc<SnapshotCache>>,
    clock: fn() -> Timestamp,
    queues: Vec<Mutex<()>>,
    /// Held by each update under way, so that they can be counted.
    writers: Arc<()>,
    used: AtomicBool,
    following: Arc<AtomicBool>,
}

impl ContentService {
    /// The use cases on `store`, at the time that `clock` tells.
    #[must_use]
    pub fn new(store: impl Into<Store>, clock: fn() -> Timestamp) -> Self {
        let Store {
            repository: store,
            snapshot,
        } = store.into();
        let queues = std::iter::repeat_with(Mutex::default)
            .take(QUEUES)
            .collect();
        Self {
            store,
            snapshot,
            clock,
            queues,
            writers: Arc::default(),
            used: AtomicBool::new(false),
            following: Arc::default(),
        }
    }

    /// Keeps the saved copy ready for the time when the store is away; never ends.
    pub async fn run_refresh(&self) {
        let Some(snapshot) = &self.snapshot else {
            return std::future::pending().await;
        };
        let mut rounds = 0;
        sleep(FIRST_COPY).await;
        loop {
            let pause = match snapshot.current().await {
                Ok(_) => CONFIRM,
                Err(_) => CONFIRM_AGAIN, // the store's breaker has said it
            };
            sleep(pause).await;
            rounds += 1;
            // Every comparison is billed, and most servers of desktop clients are idle most of the time.
            while !self.used.swap(false, Ordering::Relaxed)
                && pause == CONFIRM
                && rounds % IDLE != 0
            {
                sleep(CONFIRM).await;
                rounds += 1;
            }
        }
    }

    /// What works at the moment.
    pub async fn health(&self) -> Health {
        let store = self
            .store
            .revision()
            .await
            .map(drop)
            .map_err(|error| error.to_string());
        Health {
            store,
            saved: self.snapshot_age(),
        }
    }

    /// The age of the saved copy, when there is one.
    #[must_use]
    pub fn snapshot_age(&self) -> Option<Duration> {
        Some(self.snapshot.as_ref()?.last()?.age())
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// What answers call the store.
    #[must_use]
    pub fn store_name(&self) -> &'static str {
        self.store.name()
    }

    /// One document.
    pub async fn get(&self, key: DocumentKey) -> Result<Fetched<Record>, Error> {
        self.used.store(true, Ordering::Relaxed);
        match before(
            Instant::now() + READING,
            self.store.get(&key, Purpose::Show),
        )
        .await
        {
            Ok(Some(record)) => Ok(Fetched {
                value: record,
                saved: None,
            }),
            Ok(None) => Err(self.not_found(key).await),
            // That it is not in the copy does not prove that it is not there.
            Err(error) => self.saved(error, |copy| copy.get(&key)),
        }
    }

    /// A page of the documents of a kind.
    pub async fn list(&self, kind: Kind, query: &ListQuery) -> Result<Fetched<ListPage>, Error> {
        self.used.store(true, Ordering::Relaxed);
        let page = async {
            let Some(snapshot) = &self.snapshot else {
                return self.store.list(kind, query).await;
            };
            let (copy, query) = (snapshot.current().await?, query.clone());
            // Thousands of documents take longer to look through than other calls should wait.
            tokio::task::spawn_blocking(move || copy.list(kind, &query))
                .await
                .map_err(|_| StoreError::ended())
        };
        match before(Instant::now() + READING, page).await {
            Ok(page) => Ok(Fetched {
                value: page,
                saved: None,
            }),
            Err(error) => self.saved(error, |copy| Some(copy.list(kind, query))),
        }
    }

    /// Every published document of a kind, in the list's order.
    pub async fn published(&self, kind: Kind) -> Result<Fetched<Vec<Record>>, Error> {
        let query = ListQuery {
            status: Some("published".to_owned()),
            limit: usize::MAX,
            ..ListQuery::default()
        };
        self.list(kind, &query)
            .await
            .map(|Fetched { value, saved }| Fetched {
                value: value.records,
                saved,
            })
    }

    /// The website's answer that was kept, with the number of the newest write; `None` where none are, or when it cannot be had at once.
    pub async fn cached(&self, api_path: &ApiPath) -> Option<CachedResponse> {
        self.used.store(true, Ordering::Relaxed);
        self.store.cached(api_path).await.unwrap_or_else(|error| {
            debug!("no kept answer was looked for: {error}");
            None
        })
    }

    /// Keeps the website's answer, read after the newest write had the number `seq`; nobody waits for it.
    pub fn cache(&self, api_path: ApiPath, seq: u64, answer: String) {
        let store = Arc::clone(&self.store);
        tokio::spawn(async move {
            if let Err(error) = store.cache(&api_path, seq, &answer, KEPT).await {
                debug!("an answer was not kept: {error}");
            }
        });
    }

    /// A page of the audit log.
    pub async fn audit_entries(&self, query: &AuditQuery) -> Result<Fetched<AuditPage>, Error> {
        self.used.store(true, Ordering::Relaxed);
        match self.store.audit_entries(query).await {
            Ok(page) => Ok(Fetched {
                value: page,
                saved: None,
            }),
            Err(error) => self.saved(error, |copy| Some(copy.audit_entries(query))),
        }
    }

    /// The audit log in numbers, with its newest entries.
    pub async fn audit_stats(&self) -> Result<Fetched<(AuditStats, Vec<StoredEntry>)>, Error> {
        self.used.store(true, Ordering::Relaxed);
        let newest = AuditQuery {
            limit: 10,
            ..AuditQuery::default()
        };
        match tokio::try_join!(self.store.audit_stats(), self.store.audit_entries(&newest)) {
            Ok((stats, page)) => Ok(Fetched {
                value: (stats, page.entries),
                saved: None,
            }),
            Err(error) => self.saved(error, |copy| Some(copy.audit_stats())),
        }
    }

    /// What the saved copy says instead of a store that is away.
    fn saved<T>(
        &self,
        error: StoreError,
        answer: impl FnOnce(&Snapshot) -> Option<T>,
    ) -> Result<Fetched<T>, Error> {
        let copy = self
            .snapshot
            .as_ref()
            .and_then(|snapshot| snapshot.last())
            .filter(|_| error.is_away());
        let value = copy.as_ref().and_then(answer);
        match (copy, value) {
            (Some(copy), Some(value)) => Ok(Fetched {
                value,
                saved: Some(copy.age()),
            }),
            _ => Err(error.into()),
        }
    }

    /// Changes one document, or says what would change.
    ///
    /// Without an expected version a write that lost a race is computed again; the caller's patch says what to change,
    /// not what the document was.
    pub async fn update(&self, request: UpdateRequest) -> Result<Updated, Error> {
        self.used.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + RACE;
        let operation = match &request.idempotency_key {
            Some(key) => Operation::keyed(key, identity(&request)),
            None => Operation::once(&Uuid::new_v4().to_string(), identity(&request)),
        };
        let writing = Arc::clone(&self.writers);
        let Ok(_turn) = timeout_at(deadline, self.queue(&request.key).lock()).await else {
            let problem = format!(
                "other writes to {} took too long, so this one was not begun",
                request.key
            );
            return Err(StoreError::Unavailable(problem).into());
        };
        let mut pause = Duration::from_millis(5);
        // Among other writers, what this process remembers saves a round trip. A refusal that comes of it, or a conflict, is found out again
        // from what is stored. A lone writer always reads: that tells a lost line before anything is sent that may change something.
        let among_others = Arc::strong_count(&writing) > 2; // this call and the service itself
        let plain = request.mode == Mode::Commit && request.idempotency_key.is_none();
        let mut remembered = if plain && among_others {
            self.store.recall(&request.key)
        } else {
            None
        };
        loop {
            let recalled = remembered.take();
            let from_memory = recalled.is_some();
            let current = match recalled {
                Some(record) => record,
                None => match self.read_for(&request, &operation, deadline).await? {
                    Read::Document(record) => record,
                    Read::Done(done) => return self.replay(&request.key, done).await,
                },
            };
            if request
                .expected_version
                .as_ref()
                .is_some_and(|expected| expected != current.version().as_str())
            {
                if from_memory {
                    continue;
                }
                return Err(Error::Conflict {
                    key: request.key,
                    current: Some(current.version().clone()),
                });
            }
            let write_context = self.write_context(request.origin.clone(), operation.clone());
            let entry_id = write_context.entry_id.clone();
            let (change, warnings) = match Change::update(&current, &request.patch, write_context) {
                Ok(Update::Change(change, warnings)) => (change, warnings),
                _ if from_memory => continue,
                Ok(Update::Nothing) => return Ok(unchanged(current)),
                Err(violations) => return Err(Error::Invalid(violations)),
            };
            let fields = change.entry().changes.clone();
            let updated = Updated {
                record: change.next().clone(),
                document: None,
                version: change.next().version().clone(),
                changes: json!(fields),
                audit_id: None,
                replayed: false,
                warnings,
            };
            if request.mode == Mode::DryRun {
                return Ok(Updated {
                    version: current.version().clone(),
                    ..updated
                });
            }
            match self.commit(Arc::new([*change]), operation.clone()).await {
                Ok(done)
                    if done.replayed
                        && done
                            .entries
                            .iter()
                            .all(|entry| entry.text_of("id") != Some(&entry_id)) =>
                {
                    return self.replay(&request.key, done).await;
                }
                Ok(_) => {
                    // The old tree becomes the new one by the changes, which costs less than a copy.
                    let document = current.into_document().map(|old| diff::apply(old, &fields));
                    debug_assert!(
                        document
                            .as_ref()
                            .is_none_or(|tree| compact_json(tree) == updated.record.text())
                    );
                    return Ok(Updated {
                        document,
                        audit_id: Some(entry_id),
                        ..updated
                    });
                }
                Err(StoreError::Conflict | StoreError::Failed(_))
                    if from_memory && Instant::now() < deadline => {}
                Err(StoreError::Conflict)
                    if request.expected_version.is_some() || Instant::now() + pause > deadline =>
                {
                    let current = self
                        .store
                        .get(&request.key, Purpose::Change)
                        .await
                        .ok()
                        .flatten();
                    return Err(Error::Conflict {
                        key: request.key,
                        current: current.map(|record| record.version().clone()),
                    });
                }
                Err(StoreError::Conflict) => {
                    sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
                    pause = (pause * 2).min(Duration::from_millis(20));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The answer to a repeated request whose arguments are not worth checking, if it was done before.
    ///
    /// What was right when it was first asked is answered again, whatever the rules and the document are now.
    pub async fn settled(&self, request: &UpdateRequest) -> Result<Option<Updated>, Error> {
        let Some(key) = &request.idempotency_key else {
            return Ok(None);
        };
        match self
            .store
            .outcome(&Operation::keyed(key, identity(request)))
            .await?
        {
            Some(done) => self.replay(&request.key, done).await.map(Some),
            None => Ok(None),
        }
    }

    /// Commits changes in a task of their own: a caller who goes away takes the answer along, never half of a commit.
    pub async fn commit(
        &self,
        changes: Arc<[Change]>,
        operation: Operation,
    ) -> Result<Commit, StoreError> {
        let store = Arc::clone(&self.store);
        let commit = tokio::spawn(async move {
            let committed = store.commit(&changes, &operation).await;
            if let Ok(Commit {
                replayed: false, ..
            }) = &committed
            {
                for change in changes.iter() {
                    let (kind, id, count) = (
                        change.key().kind,
                        &change.key().id,
                        change.entry().changes.len(),
                    );
                    info!(document.kind = %kind, document.id = %id, "{} {}: {count} fields", change.entry().action.past(), change.key());
                }
            }
            committed
        });
        // What a panic says may repeat a document.
        let committed = commit.await;
        self.follow();
        committed.unwrap_or_else(|_| {
            Err(StoreError::OutcomeUnknown(
                "the commit ended unexpectedly".to_owned(),
            ))
        })
    }

    /// Brings the saved copy up to a write of ours, soon, so that an outage does not undo it for the reader.
    fn follow(&self) {
        let Some(snapshot) = self.snapshot.clone() else {
            return;
        };
        if self.following.swap(true, Ordering::Relaxed) {
            return;
        }
        let following = Arc::clone(&self.following);
        tokio::spawn(async move {
            sleep(FOLLOW).await;
            following.store(false, Ordering::Relaxed);
            let _ = snapshot.current().await; // a store that is away is met by others too
        });
    }

    /// What a write of now is recorded with.
    #[must_use]
    pub fn write_context(&self, origin: Origin, operation: Operation) -> WriteContext {
        WriteContext {
            origin,
            operation,
            entry_id: Uuid::new_v4().to_string(),
            now: self.now(),
        }
    }

    /// What is stored at `key`, to be changed.
    pub async fn stored(&self, key: &DocumentKey) -> Result<Option<Record>, StoreError> {
        self.store.get(key, Purpose::Change).await
    }

    /// Adds entries of another store's log to the history, and says how many were new.
    pub async fn import_entries(&self, entries: &[StoredEntry]) -> Result<usize, StoreError> {
        self.store.import_entries(entries, self.now()).await
    }

    /// Reads the document for an update, or finds that the update was done before.
    async fn read_for(
        &self,
        request: &UpdateRequest,
        operation: &Operation,
        deadline: Instant,
    ) -> Result<Read, Error> {
        // Read before the operation is looked up: a mark that is missing now proves that what was read is from before its commit.
        let read = before(deadline, self.store.get(&request.key, Purpose::Change)).await;
        if request.idempotency_key.is_some()
            && let Some(done) = before(deadline, self.store.outcome(operation)).await?
        {
            return Ok(Read::Done(done));
        }
        match read? {
            Some(record) => Ok(Read::Document(record)),
            None => Err(self.not_found(request.key.clone()).await),
        }
    }

    async fn replay(&self, key: &DocumentKey, done: Commit) -> Result<Updated, Error> {
        let entry = done
            .entries
            .into_iter()
            .find(|entry| entry.text_of("entityId") == Some(&key.id))
            .map(StoredEntry::into_json);
        let mut entry = entry.unwrap_or_default();
        let Some(record) = self.store.get(key, Purpose::Change).await? else {
            return Err(self.not_found(key.clone()).await);
        };
        let audit_id = entry
            .get("id")
            .and_then(Value::as_str)
            .map(ToOwned::to_owned);
        Ok(Updated {
            changes: entry.shift_remove("changes").unwrap_or_else(|| json!([])),
            audit_id,
            replayed: true,
            ..unchanged(record)
        })
    }

    async fn not_found(&self, key: DocumentKey) -> Error {
        let ids = self.store.ids(key.kind).await.unwrap_or_default();
        let wanted = key.id.to_lowercase();
        let mut near: Vec<(f64, String)> = ids
            .into_iter()
            .filter(|id| *id != key.id)
            .map(|id| {
                (
                    if id.contains(&wanted) {
                        1.0
                    } else {
                        strsim::jaro_winkler(&wanted, &id.to_lowercase())
                    },
                    id,
                )
            })
            .filter(|(nearness, _)| *nearness > 0.75)
            .collect();
        near.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        Error::NotFound {
            key,
            similar: near.into_iter().take(3).map(|(_, id)| id).collect(),
        }
    }

    fn queue(&self, key: &DocumentKey) -> &Mutex<()> {
        static ANY: Mutex<()> = Mutex::const_new(());
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
        usize::try_from(hash % QUEUES as u64)
            .ok()
            .and_then(|queue| self.queues.get(queue))
            .unwrap_or(&ANY)
    }
}

/// What a store answers before `deadline`: what runs out of time here has written nothing, and can say so.
async fn before<T>(
    deadline: Instant,
    answer: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let late = || StoreError::Unavailable("it did not answer in time".to_owned());
    timeout_at(deadline, answer)
        .await
        .unwrap_or_else(|_| Err(late()))
}

/// What makes two requests the same one.
fn identity(request: &UpdateRequest) -> Value {
    json!({
        "tool": format!("update_{}", request.key.kind),
        "id": request.key.id,
        "data": request.patch,
        "expectedVersion": request.expected_version,
    })
}

fn unchanged(record: Record) -> Updated {
    Updated {
        version: record.version().clone(),
        changes: json!([]),
        document: None,
        audit_id: None,
        replayed: false,
        warnings: record.violations().to_vec(),
        record,
    }
}

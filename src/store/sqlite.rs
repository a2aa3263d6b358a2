//! The embedded store: documents and the audit log in one SQLite file, which several processes share.
//!
//! A commit is one transaction, and that it is whole or not there is SQLite's work alone. Documents and entries are
//! stored as the texts that they are; the columns beside them only find them. Knows no content type by name and asks no
//! clock: changes bring their time, and operation marks expire by the clock that SQLite itself reads.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, params,
    params_from_iter, types::Value,
};
use serde_json::json;
use tokio::sync::Semaphore;
use tracing::warn;

use super::{CachedResponse, Commit, Documents, Purpose, Repository, Revision, StoreError};
use crate::domain::{
    ApiPath, AuditPage, AuditQuery, AuditStats, Change, DocumentKey, Kind, ListPage, ListQuery,
    Operation, Record, StoredEntry, Timestamp,
    audit::{AuditPosition, Category, entry_text},
    document::{sha256_hex, truncate},
    list::IndexEntry,
};

mod examination;

pub(super) use examination::examine;

/// How long a call waits for other writers, in this process and in others: half of the time that it has.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many read at once.
const READERS: usize = 8;
/// `pmcp`, which tells our files from other programs'.
const APPLICATION: i64 = 0x706d_6370;
const SCHEMA_VERSION: i64 = 1;

/// The tables; SQLite keeps the comments for whoever looks at the file.
///
/// Commits replace rows and never update one, so an UPDATE is somebody editing the file by hand.
const SCHEMA: &str = "
CREATE TABLE documents (
  kind TEXT NOT NULL, id TEXT NOT NULL,
  listed INTEGER NOT NULL DEFAULT 0, -- 1: the next five columns say what the text says
  status TEXT, featured INTEGER NOT NULL DEFAULT 0, updated INTEGER, tags TEXT NOT NULL DEFAULT '[]', searched TEXT NOT NULL DEFAULT '',
  text TEXT NOT NULL, -- the document
  PRIMARY KEY (kind, id)
) STRICT;
CREATE INDEX documents_listed ON documents (kind, listed, status, featured, updated, id);
CREATE TRIGGER documents_edited AFTER UPDATE OF kind, id, text ON documents BEGIN
  UPDATE documents SET listed = 0 WHERE kind = NEW.kind AND id = NEW.id;
END;
CREATE TABLE entries (
  seq INTEGER UNIQUE, -- NULL: carried here from another log
  number INTEGER, -- the seq that the text says, if JavaScript readers can tell it from the next one
  score INTEGER NOT NULL, -- milliseconds since 1970; the log is in the order of score, then text
  kind TEXT, entity_id TEXT, action TEXT, source TEXT, -- what the text says
  digest TEXT NOT NULL UNIQUE, -- SHA-256 of the text
  text TEXT NOT NULL -- the audit entry
) STRICT;
CREATE INDEX entries_by_number ON entries (number);
CREATE INDEX entries_by_score ON entries (score);
CREATE INDEX entries_by_kind ON entries (kind, score);
CREATE INDEX entries_by_entity_id ON entries (entity_id, kind, score);
CREATE INDEX entries_by_action ON entries (action, score);
CREATE INDEX entries_by_source ON entries (source, score);
CREATE TABLE operations (
  key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL,
  first INTEGER NOT NULL, last INTEGER NOT NULL, -- seq of its entries
  expires INTEGER NOT NULL -- seconds since 1970
) STRICT;
CREATE INDEX operations_by_expires ON operations (expires);
";

/// Documents and the audit log in a SQLite file.
pub(super) struct SqliteStore {
    database: Arc<Database>,
    /// Calls wait for their turn here, where they hold no thread and can still be dropped.
    read_turns: Arc<Semaphore>,
    write_turns: Arc<Semaphore>,
}

impl SqliteStore {
    /// A store that opens, or makes, its file when it is first used.
    pub(super) fn new(path: &Path) -> Self {
        // SQLite gives names such as `:memory:` and `file:…` a meaning; an absolute path has none.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Self {
            database: Arc::new(Database {
                path,
                writer: Mutex::new(None),
                readers: Mutex::new(Vec::new()),
            }),
            read_turns: Arc::new(Semaphore::new(READERS)),
            write_turns: Arc::new(Semaphore::new(1)),
        }
    }

    async fn read<T, F>(&self, ask: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Problem> + Send + 'static,
    {
        self.run(&self.read_turns, move |database| {
            database
                .read(ask)
                .map_err(|problem| database.unread(problem))
        })
        .await
    }

    /// Runs `work` on a thread that may block; once it has begun it comes to its end, even if nobody waits for it any more.
    async fn run<T, F>(&self, turns: &Arc<Semaphore>, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    {
        let database = Arc::clone(&self.database);
        let turn = Arc::clone(turns)
            .acquire_owned()
            .await
            .map_err(|error| StoreError::Failed(error.to_string()))?;
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work(&database)
        });
        done.await.map_err(|_| StoreError::ended())?
    }
}

#[async_trait]
impl Repository for SqliteStore {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    async fn get(&self, key: &DocumentKey, purpose: Purpose) -> Result<Option<Record>, StoreError> {
        let key = key.clone();
        self.read(move |snapshot| get(snapshot, &key, purpose))
            .await
    }

    fn recall(&self, _: &DocumentKey) -> Option<Record> {
        None
    }

    async fn ids(&self, kind: Kind) -> Result<Vec<String>, StoreError> {
        self.read(move |snapshot| {
            let mut statement =
                snapshot.prepare_cached("SELECT id FROM documents WHERE kind = ? ORDER BY id")?;
            let ids = statement
                .query_map([kind.singular()], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            Ok(ids)
        })
        .await
    }

    async fn all(&self, kind: Kind) -> Result<Documents, StoreError> {
        let page = self
            .list(
                kind,
                &ListQuery {
                    limit: usize::MAX,
                    ..ListQuery::default()
                },
            )
            .await?;
        Ok(Documents {
            records: page.records,
            unreadable: page.unreadable,
        })
    }

    async fn list(&self, kind: Kind, query: &ListQuery) -> Result<ListPage, StoreError> {
        let query = query.clone();
        self.read(move |snapshot| list(snapshot, kind, &query))
            .await
    }

    async fn commit(
        &self,
        changes: &[Change],
        operation: &Operation,
    ) -> Result<Commit, StoreError> {
        let (changes, operation) = (changes.to_vec(), operation.clone());
        let start = Instant::now();
        self.run(&self.write_turns, move |database| {
            let written = database.write(start, |transaction| {
                commit(transaction, &changes, &operation)
            });
            written.or_else(|problem| database.settle(problem, &operation))
        })
        .await
    }

    async fn outcome(&self, operation: &Operation) -> Result<Option<Commit>, StoreError> {
        let operation = operation.clone();
        self.read(move |snapshot| outcome(snapshot, &operation))
            .await
    }

    async fn import_entries(
        &self,
        entries: &[StoredEntry],
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        let (start, entries) = (Instant::now(), entries.to_vec());
        self.run(&self.write_turns, move |database| {
            let written = database.write(start, |transaction| {
                let mut added = 0;
                for entry in &entries {
                    added += insert_entry(transaction, None, entry.import_score(now), entry)?;
                }
                Ok(added)
            });
            written.map_err(|problem| database.refused(problem))
        })
        .await
    }

    async fn audit_entries(&self, query: &AuditQuery) -> Result<AuditPage, StoreError> {
        let query = query.clone();
        self.read(move |snapshot| audit_entries(snapshot, &query))
            .await
    }

    async fn audit_stats(&self) -> Result<AuditStats, StoreError> {
        self.read(audit_stats).await
    }

    /// The file is as near as a cache would be.
    async fn cached(&self, _: &ApiPath) -> Result<Option<CachedResponse>, StoreError> {
        Ok(None)
    }

    async fn cache(&self, _: &ApiPath, _: u64, _: &str, _: Duration) -> Result<(), StoreError> {
        Ok(())
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.read(|snapshot| {
            let number = |sql: &str, of: &[&str]| {
                let number: Option<i64> = snapshot
                    .prepare_cached(sql)?
                    .query_row(params_from_iter(of), |row| row.get(0))?;
                Ok::<_, Problem>(
                    number
                        .and_then(|number| u64::try_from(number).ok())
                        .unwrap_or_default(),
                )
            };
            let mut documents = [0; Kind::ALL.len()];
            for (count, kind) in documents.iter_mut().zip(Kind::ALL) {
                *count = number(
                    "SELECT count(*) FROM documents WHERE kind = ?",
                    &[kind.singular()],
                )?;
            }
            Ok(Revision {
                seq: number("SELECT max(number) FROM entries", &[])?,
                entries: number("SELECT count(*) FROM entries", &[])?,
                documents,
            })
        })
        .await
    }
}

/// The file, and the connections to it that nobody uses at the moment.
///
/// A connection that met a problem is not used again; closing it undoes what it had begun.
struct Database {
    path: PathBuf,
    writer: Mutex<Option<Connection>>,
    readers: Mutex<Vec<Connection>>,
}

impl Database {
    /// Gives `ask` one state of the file, whatever is written meanwhile.
    fn read<T>(&self, ask: impl FnOnce(&Connection) -> Result<T, Problem>) -> Result<T, Problem> {
        let idle = lock(&self.readers).pop();
        let mut connection = idle.map_or_else(|| self.open(), Ok)?;
        let answer = ask(&*connection.transaction()?)?;
        lock(&self.readers).push(connection);
        Ok(answer)
    }

    /// Does `work`, for which its caller waits since `start`, and makes it last, or leaves everything as it is.
    fn write<T>(
        &self,
        start: Instant,
        work: impl FnOnce(&Connection) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let idle = lock(&self.writer).take();
        let mut connection = idle.map_or_else(|| self.open(), Ok)?;
        connection.busy_timeout(PATIENCE.saturating_sub(start.elapsed()))?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = work(&transaction);
        match &done {
            Ok(_) => transaction.commit().map_err(Problem::Commit)?,
            // An answer such as a conflict says nothing against the connection.
            Err(Problem::Answer(_)) => transaction.rollback()?,
            Err(_) => return done,
        }
        *lock(&self.writer) = Some(connection);
        done
    }

    fn open(&self) -> Result<Connection, Problem> {
        self.make_file().map_err(|error| {
            let path = self.path.display();
            StoreError::Unavailable(format!(
                "`{path}` cannot be made: {error}; choose a place where this user may write"
            ))
        })?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(PATIENCE)?;
        // What was answered is on the disk; on a Mac, `fullfsync` alone means the disk and not its cache.
        connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA fullfsync = ON;")?;
        if !self.is_ready(&connection)? {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            // Another process may have made the tables while this one waited.
            if !self.is_ready(&transaction)? {
                transaction.execute_batch(SCHEMA)?;
                transaction.pragma_update(None, "application_id", APPLICATION)?;
                transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
            }
            transaction.commit()?;
        }
        use_write_ahead_log(&connection)?;
        Ok(connection)
    }

    /// Makes folder and file where there are none, for their owner alone: drafts and the audit log are private.
    fn make_file(&self) -> io::Result<()> {
        // Closing a file ends the locks that this process has on it, so nobody may open what is being made.
        static MAKING: Mutex<()> = Mutex::new(());
        let _making = lock(&MAKING);
        let (mut folder, mut file) = (fs::DirBuilder::new(), fs::OpenOptions::new());
        folder.recursive(true);
        file.write(true).create_new(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
            folder.mode(0o700);
            file.mode(0o600);
        }
        if let Some(parent) = self.path.parent() {
            folder.create(parent)?;
        }
        match file.open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result.map(drop),
        }
    }

    /// Whether the file has our tables; it is refused when it has others.
    fn is_ready(&self, connection: &Connection) -> Result<bool, Problem> {
        let sql = "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_schema) FROM pragma_application_id, pragma_user_version";
        let path = self.path.display();
        match connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))? {
            (APPLICATION, SCHEMA_VERSION, _) => Ok(true),
            (0, 0, 0) => Ok(false),
            (APPLICATION, other, _) => Err(StoreError::Failed(format!(
                "`{path}` was written by a newer version of this program (schema {other}, this one knows {SCHEMA_VERSION}); \
                 update this program"
            )))?,
            _ => Err(StoreError::Failed(format!(
                "`{path}` is the database of another program; choose another file"
            )))?,
        }
    }

    /// What to answer when a commit met a problem.
    fn settle(&self, problem: Problem, operation: &Operation) -> Result<Commit, StoreError> {
        let Problem::Commit(error) = &problem else {
            return Err(self.refused(problem));
        };
        // The transaction may have reached the disk or not: its mark tells, read by somebody who knows nothing of it.
        match self.open().and_then(|fresh| outcome(&fresh, operation)) {
            // Whose it is, the caller sees by the entries' ids.
            Ok(Some(committed)) => Ok(committed),
            Ok(None) => Err(self.refused(problem)),
            Err(_) => Err(StoreError::OutcomeUnknown(plain(error))),
        }
    }

    /// A write that was refused, before anything was written.
    fn refused(&self, problem: Problem) -> StoreError {
        let path = self.path.display();
        let reason = match &problem {
            Problem::Sqlite(error) | Problem::Commit(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => format!(
                    "the disk of `{path}` is full, so nothing was written; make room, then try again"
                ),
                Some(ErrorCode::ReadOnly) => format!(
                    "`{path}` may not be written; let this user write the file and its folder"
                ),
                Some(ErrorCode::SystemIoFailure) => format!(
                    "`{path}` could not be written: {}; make room on its disk, see that the disk is sound, then try again",
                    plain(error)
                ),
                _ => return self.unread(problem),
            },
            Problem::Answer(_) => return self.unread(problem),
        };
        StoreError::ReadOnly(reason)
    }

    /// A read that failed.
    fn unread(&self, problem: Problem) -> StoreError {
        let path = self.path.display();
        let error = match problem {
            Problem::Answer(answer) => return answer,
            Problem::Sqlite(error) | Problem::Commit(error) => error,
        };
        let answer = match error.sqlite_error_code() {
            Some(
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed,
            ) => {
                let seconds = PATIENCE.as_secs();
                StoreError::Unavailable(format!(
                    "`{path}` is busy: others were writing it for {seconds} s; try again"
                ))
            }
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                let remedy = "restore it from a backup, or move it away to begin with an empty one";
                StoreError::Failed(format!(
                    "`{path}` is not a sound SQLite database: {}; {remedy}",
                    plain(&error)
                ))
            }
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
                let remedy =
                    "see that it is a file, and that this user may write it and its folder";
                StoreError::Unavailable(format!(
                    "`{path}` cannot be opened: {}; {remedy}",
                    plain(&error)
                ))
            }
            Some(ErrorCode::SystemIoFailure | ErrorCode::DiskFull) => {
                let remedy = "see that its disk is sound and has room";
                StoreError::Unavailable(format!(
                    "`{path}` cannot be read: {}; {remedy}",
                    plain(&error)
                ))
            }
            _ => StoreError::Failed(format!("SQLite answered, for `{path}`: {}", plain(&error))),
        };
        warn!("{answer}");
        answer
    }
}

/// What kept a transaction from its end.
enum Problem {
    /// Nothing is wrong with the file: this is the answer.
    Answer(StoreError),
    /// Something was wrong before the end, so nothing was written.
    Sqlite(rusqlite::Error),
    /// Something was wrong with the end itself.
    Commit(rusqlite::Error),
}

impl From<StoreError> for Problem {
    fn from(answer: StoreError) -> Self {
        Self::Answer(answer)
    }
}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets reads and a write go on at once. The switch, which is needed once for each file, does not always wait for others.
fn use_write_ahead_log(connection: &Connection) -> rusqlite::Result<()> {
    let start = Instant::now();
    loop {
        match connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(())) {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && start.elapsed() < PATIENCE =>
            {
                thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}

/// What an error says, with SQLite's number for it.
fn plain(error: &rusqlite::Error) -> String {
    error.sqlite_extended_error_code().map_or_else(
        || error.to_string(),
        |code| format!("{error} (SQLite error {code})"),
    )
}

fn get(
    snapshot: &Connection,
    key: &DocumentKey,
    purpose: Purpose,
) -> Result<Option<Record>, Problem> {
    let Some(bytes) = stored(snapshot, key)? else {
        return Ok(None);
    };
    let latest_entry = match purpose {
        Purpose::Show => None,
        Purpose::Change => latest_entry(snapshot, key)?,
    };
    match parse(key.clone(), bytes) {
        Ok(record) => Ok(Some(record.with_latest_entry(latest_entry))),
        Err(problem) => Err(StoreError::Corrupt {
            key: place(key),
            problem,
        })?,
    }
}

/// What is stored for a document: bytes, because somebody may have put there what is no text.
fn stored(connection: &Connection, key: &DocumentKey) -> rusqlite::Result<Option<Vec<u8>>> {
    let mut statement =
        connection.prepare_cached("SELECT text FROM documents WHERE kind = ? AND id = ?")?;
    statement
        .query_row([key.kind.singular(), &key.id], |row| {
            Ok(row.get_ref(0)?.as_bytes()?.to_vec())
        })
        .optional()
}

/// The entry of the newest commit to a document. Scores never go back, so that the index of scores finds it.
fn latest_entry(connection: &Connection, key: &DocumentKey) -> rusqlite::Result<Option<String>> {
    let sql = "SELECT text FROM entries WHERE entity_id = ? AND kind = ? AND seq IS NOT NULL ORDER BY score DESC, seq DESC LIMIT 1";
    connection
        .prepare_cached(sql)?
        .query_row([&key.id, key.kind.singular()], |row| row.get(0))
        .optional()
}

fn parse(key: DocumentKey, bytes: Vec<u8>) -> Result<Record, String> {
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    Record::parse(key, text)
}

/// How messages name a document's row.
fn place(key: &DocumentKey) -> String {
    format!("documents/{}/{}", key.kind.singular(), key.id)
}

fn list(snapshot: &Connection, kind: Kind, query: &ListQuery) -> Result<ListPage, Problem> {
    // What is not searched is not read: without these two columns an index alone gives the list.
    let tags = if query.tag.is_some() { "tags" } else { "'[]'" };
    let searched = if query.words.is_empty() {
        "''"
    } else {
        "searched"
    };
    let sql = format!(
        "SELECT id, status, featured, updated, {tags}, {searched} FROM documents WHERE listed = 1 AND kind = ?"
    );
    let mut select = Select::new(sql, kind.singular().to_owned());
    if let Some(status) = &query.status {
        select.and("status = ?", [status.clone().into()]);
    }
    if let Some(featured) = query.featured {
        select.and("featured = ?", [featured.into()]);
    }
    let mut listings = select.all(snapshot, |row| {
        Ok(IndexEntry {
            id: row.get(0)?,
            status: row.get(1)?,
            featured: row.get(2)?,
            updated: row.get::<_, Option<i64>>(3)?.map(Timestamp::from_micros),
            tags: serde_json::from_str(row.get_ref(4)?.as_str()?).unwrap_or_default(),
            text: row.get(5)?,
        })
    })?;

    let mut page = ListPage::default();
    let unreadable = |key: &DocumentKey, problem: &str| {
        format!(
            "left out the document at `{}`: {problem}; restore it from a backup or delete its row",
            truncate(&place(key))
        )
    };
    // What somebody wrote by hand is read as it is, until a commit replaces it.
    let edited = Select::new(
        "SELECT id, text FROM documents WHERE listed = 0 AND kind = ?".to_owned(),
        kind.singular().to_owned(),
    );
    for (id, bytes) in edited.all(snapshot, |row| {
        Ok((
            row.get::<_, String>(0)?,
            row.get_ref(1)?.as_bytes()?.to_vec(),
        ))
    })? {
        let key = DocumentKey::new(kind, id);
        match parse(key.clone(), bytes) {
            Ok(record) => listings.push(record.listing().clone()),
            Err(problem) => page.unreadable.push(unreadable(&key, &problem)),
        }
    }

    let (places, total, next) = query.page(listings);
    (page.total, page.next) = (total, next);
    for found in places {
        let key = DocumentKey::new(kind, found.id);
        match stored(snapshot, &key)?.map(|bytes| parse(key.clone(), bytes)) {
            Some(Ok(record)) => page.records.push(record),
            Some(Err(problem)) => page.unreadable.push(unreadable(&key, &problem)),
            None => {}
        }
    }
    Ok(page)
}

fn commit(
    transaction: &Connection,
    changes: &[Change],
    operation: &Operation,
) -> Result<Commit, Problem> {
    if let Some(committed) = outcome(transaction, operation)? {
        return Ok(committed);
    }
    let newest_score: Option<i64> = transaction
        .prepare_cached("SELECT max(score) FROM entries")?
        .query_row([], |row| row.get(0))?;
    // A log that was carried here goes on with its own numbers.
    let greatest: Option<i64> = transaction
        .prepare_cached("SELECT max(number) FROM entries")?
        .query_row([], |row| row.get(0))?;
    let before = greatest
        .and_then(|seq| u64::try_from(seq).ok())
        .unwrap_or_default();
    let score = changes
        .first()
        .map_or(0, |change| change.time().millis())
        .max(newest_score.unwrap_or(i64::MIN));

    let mut committed = Commit {
        entries: Vec::with_capacity(changes.len()),
        replayed: false,
    };
    for (change, seq) in changes.iter().zip(before + 1..) {
        check_unchanged(transaction, change)?;
        replace_document(transaction, change)?;
        let entry = StoredEntry::parse(entry_text(
            seq,
            Timestamp::from_millis(score),
            &change.entry_rest(),
        ));
        insert_entry(transaction, Some(seq), score, &entry)?;
        committed.entries.push(entry);
    }

    transaction
        .prepare_cached("DELETE FROM operations WHERE expires <= unixepoch()")?
        .execute([])?;
    let mark = "REPLACE INTO operations (key, fingerprint, first, last, expires) VALUES (?, ?, ?, ?, unixepoch() + ?)";
    let first = integer(before + 1);
    let last = integer(before) + i64::try_from(changes.len()).unwrap_or_default();
    transaction.prepare_cached(mark)?.execute(params![
        operation.key(),
        operation.fingerprint(),
        first,
        last,
        operation.seconds()
    ])?;
    Ok(committed)
}

/// What an operation did that was committed before, and whose mark has not expired.
fn outcome(connection: &Connection, operation: &Operation) -> Result<Option<Commit>, Problem> {
    let mark =
        "SELECT fingerprint, first, last FROM operations WHERE key = ? AND expires > unixepoch()";
    let mark = connection
        .prepare_cached(mark)?
        .query_row([operation.key()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        });
    let Some((fingerprint, first, last)): Option<(String, i64, i64)> = mark.optional()? else {
        return Ok(None);
    };
    if fingerprint != operation.fingerprint() {
        return Err(StoreError::Mismatch.into());
    }
    let mut statement = connection
        .prepare_cached("SELECT text FROM entries WHERE seq BETWEEN ? AND ? ORDER BY seq")?;
    let entries = statement
        .query_map([first, last], |row| row.get(0).map(StoredEntry::parse))?
        .collect::<Result<_, _>>()?;
    Ok(Some(Commit {
        entries,
        replayed: true,
    }))
}

/// A conflict, if what is stored is not what the change was made from, or has come to be it again meanwhile.
fn check_unchanged(transaction: &Connection, change: &Change) -> Result<(), Problem> {
    let unchanged =
        stored(transaction, change.key())?.as_deref() == change.expected_text().map(str::as_bytes);
    let explained = change.expected_text().is_none()
        || match (
            latest_entry(transaction, change.key())?,
            change.expected_entry_prefix(),
        ) {
            (Some(entry), Some(prefix)) => entry.starts_with(prefix),
            (entry, prefix) => entry.is_none() && prefix.is_none(),
        };
    if unchanged && explained {
        Ok(())
    } else {
        Err(StoreError::Conflict.into())
    }
}

fn replace_document(transaction: &Connection, change: &Change) -> rusqlite::Result<usize> {
    let (key, listing) = (change.key(), change.next().listing());
    let sql = "REPLACE INTO documents (kind, id, listed, status, featured, updated, tags, searched, text) VALUES (?, ?, 1, ?, ?, ?, ?, ?, ?)";
    transaction.prepare_cached(sql)?.execute(params![
        key.kind.singular(),
        key.id,
        listing.status,
        listing.featured,
        listing.updated.map(Timestamp::micros),
        json!(listing.tags).to_string(),
        listing.text,
        change.text(),
    ])
}

/// Adds an entry to the log, and says whether it is new there: 1 or 0. One that a commit makes always is.
fn insert_entry(
    transaction: &Connection,
    seq: Option<u64>,
    score: i64,
    entry: &StoredEntry,
) -> rusqlite::Result<usize> {
    let sql = "INSERT INTO entries (seq, number, score, kind, entity_id, action, source, digest, text) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (digest) DO NOTHING";
    transaction.prepare_cached(sql)?.execute(params![
        seq.map(integer),
        entry.seq().filter(|number| *number < 1 << 53).map(integer),
        score,
        entry.label(Category::EntityType),
        entry.text_of("entityId"),
        entry.label(Category::Action),
        entry.label(Category::Source),
        sha256_hex(entry.text().as_bytes()),
        entry.text(),
    ])
}

/// As SQLite stores numbers.
fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn audit_entries(snapshot: &Connection, query: &AuditQuery) -> Result<AuditPage, Problem> {
    // The most telling first: its index is the one to use, which SQLite, knowing nothing of the values, cannot tell.
    let equal = [
        ("entity_id", query.entity_id.as_deref()),
        ("action", query.action.as_deref()),
        ("source", query.source.as_deref()),
        ("kind", query.kind.map(Kind::singular)),
    ];
    let telling = equal
        .iter()
        .find(|(_, wanted)| wanted.is_some())
        .map_or("score", |(column, _)| column);
    let sql =
        format!("SELECT score, text FROM entries INDEXED BY entries_by_{telling} WHERE score >= ?");
    let mut select = Select::new(sql, query.since.map_or(i64::MIN, Timestamp::millis_ceil));
    for (column, wanted) in equal {
        if let Some(wanted) = wanted {
            select.and(&format!("{column} = ?"), [wanted.to_owned().into()]);
        }
    }
    if let Some(until) = query.until {
        select.and("score < ?", [until.millis_ceil().into()]);
    }
    if let Some(after) = &query.after {
        // Of the place's own millisecond what has a lesser text follows; nothing, if the place is not in this log.
        let place = "SELECT text FROM entries WHERE score = ? AND substr(digest, 1, 16) = ?";
        let place = snapshot
            .prepare_cached(place)?
            .query_row(params![after.score, after.digest], |row| {
                row.get::<_, String>(0)
            })
            .optional()?;
        select.and("score <= ?", [after.score.into()]);
        select.and(
            "(score < ? OR text < ?)",
            [after.score.into(), place.unwrap_or_default().into()],
        );
    }
    select.end(
        "ORDER BY score DESC, text DESC LIMIT ?",
        i64::try_from(query.limit)
            .unwrap_or(i64::MAX)
            .saturating_add(1)
            .into(),
    );
    let mut found: Vec<(i64, String)> =
        select.all(snapshot, |row| Ok((row.get(0)?, row.get(1)?)))?;

    let more = found.len() > query.limit;
    found.truncate(query.limit);
    let last = found.last().filter(|_| more);
    let next = last.map(|(score, text)| AuditPosition {
        score: *score,
        digest: sha256_hex(text.as_bytes()).chars().take(16).collect(),
    });
    Ok(AuditPage {
        entries: found
            .into_iter()
            .map(|(_, text)| StoredEntry::parse(text))
            .collect(),
        next,
    })
}

fn audit_stats(snapshot: &Connection) -> Result<AuditStats, Problem> {
    let count = |row: &rusqlite::Row, column| {
        Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or_default())
    };
    let total = snapshot
        .prepare_cached("SELECT count(*) FROM entries")?
        .query_row([], |row| count(row, 0))?;
    let mut stats = AuditStats {
        total,
        ..AuditStats::default()
    };
    for (category, counts) in Category::ALL.into_iter().zip(&mut stats.counts) {
        let column = match category {
            Category::Action => "action",
            Category::EntityType => "kind",
            Category::Source => "source",
        };
        let sql = format!(
            "SELECT {column}, count(*) FROM entries WHERE {column} IS NOT NULL GROUP BY {column}"
        );
        let mut statement = snapshot.prepare_cached(&sql)?;
        *counts = statement
            .query_map([], |row| Ok((row.get(0)?, count(row, 1)?)))?
            .collect::<Result<_, _>>()?;
    }
    Ok(stats)
}

/// A question whose conditions depend on what is asked for; values never become part of its text.
struct Select {
    sql: String,
    values: Vec<Value>,
}

impl Select {
    fn new(sql: String, value: impl Into<Value>) -> Self {
        Self {
            sql,
            values: vec![value.into()],
        }
    }

    fn and<const N: usize>(&mut self, condition: &str, values: [Value; N]) {
        self.sql.push_str(" AND ");
        self.sql.push_str(condition);
        self.values.extend(values);
    }

    fn end(&mut self, clause: &str, value: Value) {
        self.sql.push(' ');
        self.sql.push_str(clause);
        self.values.push(value);
    }

    fn all<T>(
        self,
        connection: &Connection,
        read: impl FnMut(&rusqlite::Row) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        connection
            .prepare_cached(&self.sql)?
            .query_map(params_from_iter(self.values), read)?
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::domain::{Origin, Source, WriteContext};

    fn operation(key: &str) -> Operation {
        Operation::once(key, json!({}))
    }

    fn creation(id: &str, title: &str) -> Change {
        let document = Map::from_iter([
            ("id".to_owned(), json!(id)),
            ("title".to_owned(), json!(title)),
        ]);
        let write_context = WriteContext {
            origin: Origin::new(Source::Admin),
            operation: operation(id),
            entry_id: format!("entry-{id}"),
            now: Timestamp::from_millis(1_700_000_000_000),
        };
        Change::create(DocumentKey::new(Kind::Project, id), document, write_context)
    }

    async fn create(store: &SqliteStore, id: &str) -> Result<Commit, StoreError> {
        store.commit(&[creation(id, id)], &operation(id)).await
    }

    fn file() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("private/store.db");
        (folder, path)
    }

    /// Somebody else's connection to the file.
    fn by_hand(path: &Path, sql: &str) {
        Connection::open(path).unwrap().execute_batch(sql).unwrap();
    }

    async fn ids(store: &SqliteStore) -> Vec<String> {
        store.ids(Kind::Project).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn stores_that_race_to_make_the_file_make_it_once() {
        for _ in 0..10 {
            let (_folder, path) = file();

            let racers: Vec<_> = (0..8)
                .map(|number| {
                    let store = SqliteStore::new(&path);
                    tokio::spawn(async move {
                        create(&store, &format!("racer-{number}"))
                            .await
                            .map(|done| done.entries[0].seq())
                    })
                })
                .collect();
            let mut numbers = Vec::new();
            for racer in racers {
                numbers.push(racer.await.unwrap().unwrap().unwrap());
            }

            numbers.sort_unstable();
            assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8]);
            assert_eq!(ids(&SqliteStore::new(&path)).await.len(), 8);
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn what_it_makes_is_for_the_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let (_folder, path) = file();

        let store = SqliteStore::new(&path);
        assert!(!path.exists());
        create(&store, "a").await.unwrap();

        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(path.parent().unwrap()), mode(&path)), (0o700, 0o600));
        assert_eq!(mode(&path.with_extension("db-wal")), 0o600);
    }

    #[tokio::test]
    async fn a_file_that_is_not_ours_is_refused_and_left_alone() {
        let (folder, path) = file();
        create(&SqliteStore::new(&path), "a").await.unwrap();
        let newer = folder.path().join("newer.db");
        fs::copy(&path, &newer).unwrap();
        by_hand(&newer, "PRAGMA user_version = 2");
        let foreign = folder.path().join("foreign.db");
        by_hand(&foreign, "CREATE TABLE bookmarks (url TEXT)");
        let text = folder.path().join("text.db");
        fs::write(&text, "dear diary, this is not a database").unwrap();

        for (path, said) in [
            (newer, "newer version"),
            (foreign, "another program"),
            (text, "not a sound SQLite database"),
        ] {
            let before = fs::read(&path).unwrap();
            let store = SqliteStore::new(&path);

            let read = store.ids(Kind::Project).await.unwrap_err().to_string();
            let written = create(&store, "b").await.unwrap_err().to_string();

            for message in [read, written] {
                assert!(
                    message.contains(said) && message.contains(path.to_str().unwrap()),
                    "{message}"
                );
            }
            assert_eq!(fs::read(&path).unwrap(), before);
        }
    }

    #[tokio::test]
    async fn a_place_where_no_file_can_be_is_named() {
        let (folder, _) = file();
        fs::write(folder.path().join("a-file"), "").unwrap();

        for path in [
            folder.path().to_owned(),
            folder.path().join("a-file/store.db"),
        ] {
            let error = SqliteStore::new(&path)
                .ids(Kind::Project)
                .await
                .unwrap_err();

            assert!(
                matches!(&error, StoreError::Unavailable(said) if said.contains(path.to_str().unwrap())),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn a_full_disk_leaves_nothing_behind_and_no_harm() {
        let (_folder, path) = file();
        let store = SqliteStore::new(&path);
        create(&store, "before").await.unwrap();
        let full = lock(&store.database.writer).take().unwrap();
        let pages: i64 = full
            .query_row("PRAGMA page_count", [], |row| row.get(0))
            .unwrap();
        full.query_row(
            &format!("PRAGMA max_page_count = {}", pages + 2),
            [],
            |_| Ok(()),
        )
        .unwrap();
        *lock(&store.database.writer) = Some(full);
        let large = [
            creation("small", "small"),
            creation("large", &"x".repeat(100_000)),
        ];

        let error = store.commit(&large, &operation("large")).await.unwrap_err();

        assert!(
            matches!(&error, StoreError::ReadOnly(said) if said.contains("make room")),
            "{error}"
        );
        assert_eq!(ids(&store).await, ["before"]);
        assert_eq!(store.audit_stats().await.unwrap().total, 1);
        assert!(store.outcome(&operation("large")).await.unwrap().is_none());
        assert_eq!(
            store
                .commit(&large, &operation("large"))
                .await
                .unwrap()
                .entries[1]
                .seq(),
            Some(3)
        );
    }

    #[tokio::test]
    async fn a_writer_elsewhere_is_waited_for_and_readers_do_not_notice_it() {
        let (_folder, path) = file();
        let store = SqliteStore::new(&path);
        create(&store, "a").await.unwrap();
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();

        // The caller waits for longer than a writer may, so that no time is left when it is this one's turn.
        let start = Instant::now().checked_sub(PATIENCE).unwrap();
        let problem = store
            .database
            .write(start, |transaction| {
                commit(transaction, &[creation("b", "b")], &operation("b"))
            })
            .err()
            .unwrap();
        let error = store.database.settle(problem, &operation("b")).unwrap_err();

        assert!(
            matches!(&error, StoreError::Unavailable(said) if said.contains("busy")),
            "{error}"
        );
        assert_eq!(ids(&store).await, ["a"]);
        other.execute_batch("COMMIT").unwrap();
        create(&store, "b").await.unwrap();
    }

    #[tokio::test]
    async fn a_commit_whose_end_failed_is_settled_by_its_mark() {
        let (_folder, path) = file();
        let store = SqliteStore::new(&path);
        create(&store, "a").await.unwrap();
        let lost = || {
            Problem::Commit(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC),
                None,
            ))
        };

        let there = store.database.settle(lost(), &operation("a")).unwrap();
        let not_there = store.database.settle(lost(), &operation("b")).unwrap_err();
        fs::write(
            &path,
            "the disk is gone, and with it what was on it: nothing can be said any more",
        )
        .unwrap();
        let unknown = store.database.settle(lost(), &operation("b")).unwrap_err();

        assert_eq!((there.entries.len(), there.replayed), (1, true));
        assert!(matches!(not_there, StoreError::ReadOnly(_)), "{not_there}");
        assert!(
            matches!(unknown, StoreError::OutcomeUnknown(_)),
            "{unknown}"
        );
    }

    #[tokio::test]
    async fn an_expired_mark_counts_no_more_and_is_deleted_by_the_next_commit() {
        let (_folder, path) = file();
        let store = SqliteStore::new(&path);
        create(&store, "a").await.unwrap();
        let other_request = Operation::once("a", json!("another request"));
        assert!(matches!(
            store.outcome(&other_request).await,
            Err(StoreError::Mismatch)
        ));

        by_hand(&path, "UPDATE operations SET expires = unixepoch() - 1");

        assert!(store.outcome(&operation("a")).await.unwrap().is_none());
        create(&store, "b").await.unwrap();
        let left: i64 = Connection::open(&path)
            .unwrap()
            .query_row("SELECT count(*) FROM operations", [], |row| row.get(0))
            .unwrap();
        assert_eq!(left, 1);
        assert!(
            !store
                .commit(&[creation("c", "c")], &other_request)
                .await
                .unwrap()
                .replayed
        );
    }

    #[tokio::test]
    async fn what_somebody_wrote_by_hand_is_listed_as_it_is() {
        let (_folder, path) = file();
        let store = SqliteStore::new(&path);
        for id in ["good", "edited", "broken", "bytes"] {
            create(&store, id).await.unwrap();
        }

        by_hand(
            &path,
            r#"UPDATE documents SET text = '{"id":"edited","metadata":{"status":"draft"}}' WHERE id = 'edited';
               UPDATE documents SET text = '{"id":' WHERE id = 'broken';
               UPDATE documents SET text = CAST(x'7bff7d' AS TEXT) WHERE id = 'bytes';
               INSERT INTO documents (kind, id, text) VALUES ('project', 'added', '{"metadata":{"status":"draft"}}');"#,
        );
        let drafts = ListQuery {
            status: Some("draft".to_owned()),
            limit: 10,
            ..ListQuery::default()
        };
        let page = store.list(Kind::Project, &drafts).await.unwrap();
        let all = store
            .list(
                Kind::Project,
                &ListQuery {
                    limit: 10,
                    ..ListQuery::default()
                },
            )
            .await
            .unwrap();

        assert_eq!(
            page.records
                .iter()
                .map(|record| record.key().id.as_str())
                .collect::<Vec<_>>(),
            ["added", "edited"]
        );
        assert_eq!(
            (
                page.total,
                page.unreadable.len(),
                all.total,
                all.records.len()
            ),
            (2, 2, 3, 3)
        );
        assert!(
            page.unreadable
                .iter()
                .any(|said| said.contains("documents/project/broken")),
            "{:?}",
            page.unreadable
        );
        let key = DocumentKey::new(Kind::Project, "bytes");
        assert!(matches!(
            store.get(&key, Purpose::Show).await,
            Err(StoreError::Corrupt { .. })
        ));
    }
}

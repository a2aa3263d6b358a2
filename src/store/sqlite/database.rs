//! The SQLite file: opening it, its tables, and what its errors mean.

use std::{
    fs, io,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use tracing::warn;

use crate::store::StoreError;

/// How long a call waits for other writers, in this process and in others: half of the time that it has.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// `pmcp`, which tells our files from other programs'.
const APPLICATION: i64 = 0x706d_6370;
pub(crate) const SCHEMA_VERSION: i64 = 1;

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

/// The file, and the connections to it that nobody uses at the moment.
///
/// A connection that met a problem is not used again; closing it undoes what it had begun.
pub(crate) struct Database {
    pub(crate) path: PathBuf,
    pub(crate) writer: Mutex<Option<Connection>>,
    pub(crate) readers: Mutex<Vec<Connection>>,
}

impl Database {
    /// Gives `ask` one state of the file, whatever is written meanwhile.
    pub(crate) fn read<T>(
        &self,
        ask: impl FnOnce(&Connection) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let idle = lock(&self.readers).pop();
        let mut connection = idle.map_or_else(|| self.open(), Ok)?;
        let answer = ask(&*connection.transaction()?)?;
        lock(&self.readers).push(connection);
        Ok(answer)
    }

    /// Does `work`, for which its caller waits since `start`, and makes it last, or leaves everything as it is.
    pub(crate) fn write<T>(
        &self,
        start: Instant,
        work: impl FnOnce(&Connection) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let idle = lock(&self.writer).take();
        let mut connection = idle.map_or_else(|| self.open(), Ok)?;
        connection.busy_timeout(BUSY_TIMEOUT.saturating_sub(start.elapsed()))?;
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

    pub(crate) fn open(&self) -> Result<Connection, Problem> {
        self.make_file().map_err(|error| {
            let path = self.path.display();
            StoreError::Unavailable(format!(
                "`{path}` cannot be made: {error}; choose a place where this user may write"
            ))
        })?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
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

    /// A write that was refused, before anything was written.
    pub(crate) fn refused(&self, problem: Problem) -> StoreError {
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
    pub(crate) fn unread(&self, problem: Problem) -> StoreError {
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
                let seconds = BUSY_TIMEOUT.as_secs();
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
pub(crate) enum Problem {
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

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets reads and a write go on at once. The switch, which is needed once for each file, does not always wait for others.
fn use_write_ahead_log(connection: &Connection) -> rusqlite::Result<()> {
    let start = Instant::now();
    loop {
        match connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(())) {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && start.elapsed() < BUSY_TIMEOUT =>
            {
                thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}

/// What an error says, with SQLite's number for it.
pub(super) fn plain(error: &rusqlite::Error) -> String {
    error.sqlite_extended_error_code().map_or_else(
        || error.to_string(),
        |code| format!("{error} (SQLite error {code})"),
    )
}

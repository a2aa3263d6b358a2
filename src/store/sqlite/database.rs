//! The SQLite file: opening it, its tables, and what its errors mean.

use std::{
    fs, io, mem,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior};
use tracing::{debug, warn};

use super::{
    files::{FileState, Files},
    read_only::Reader,
};
use crate::store::StoreError;

/// How long a call waits for other writers, in this process and in others: half of its time.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// `pmcp`, which marks our files.
const APPLICATION: i64 = 0x706d_6370;
pub(crate) const SCHEMA_VERSION: i64 = 1;

/// The tables. SQLite keeps the comments, for people who look at the file.
///
/// Commits replace rows and never update one, so an UPDATE is a manual edit.
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

/// The audit id of an entry, as the index of them has it. Entries that are not JSON have none.
pub(super) const AUDIT_ID: &str = "CASE WHEN json_valid(text) THEN json_extract(text, '$.id') END";
const AUDIT_ID_INDEX: &str = "entries_by_audit_id";

/// The file, and its idle connections.
///
/// A connection that met an error is not used again; closing it rolls back what it had begun.
pub(crate) struct Database {
    pub(crate) path: PathBuf,
    pub(super) idle: Mutex<Idle>,
}

/// The idle connections, all of them to the files that were opened last: what is written over
/// another one is lost.
#[derive(Default)]
pub(super) struct Idle {
    files: Option<Files>,
    pub(super) writer: Option<Session>,
    readers: Vec<Session>,
}

/// A connection and the files that it uses.
pub(super) struct Session {
    pub(super) connection: Connection,
    files: Files,
}

impl Idle {
    /// Notes which files are used from now on, and closes the connections to others.
    fn use_files(&mut self, files: Option<Files>) {
        self.files = files;
        let (writer, readers) = (self.writer.take(), mem::take(&mut self.readers));
        if let Some(session) = writer {
            self.put_writer(session);
        }
        for session in readers {
            self.put_reader(session);
        }
    }

    /// Closes the connection if its file was replaced while it was in use.
    fn put_reader(&mut self, session: Session) {
        if self.is_current(&session) {
            self.readers.push(session);
        }
    }

    /// The same for the connection of a write.
    fn put_writer(&mut self, session: Session) {
        if self.is_current(&session) {
            self.writer = Some(session);
        }
    }

    fn is_current(&self, session: &Session) -> bool {
        self.files
            .is_some_and(|files| files.is_same(&session.files))
    }
}

impl Database {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            idle: Mutex::default(),
        }
    }

    /// Runs `read` on one state of the file, whatever is written meanwhile.
    pub(crate) fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        self.check_files()?;
        let idle = lock(&self.idle).readers.pop();
        let mut session = match idle.map_or_else(|| self.open_files(), Ok) {
            Err(Problem::Sqlite(error)) if is_unwritable(&error) => {
                return self.read_unwritable(error, read);
            }
            session => session?,
        };
        let answer = read(&*session.connection.transaction()?)?;
        lock(&self.idle).put_reader(session);
        Ok(answer)
    }

    /// The same for a file that could not be opened for writing because of `cause`. Each read opens
    /// it again: this lasts only until somebody makes room.
    fn read_unwritable<T>(
        &self,
        cause: rusqlite::Error,
        read: impl FnOnce(&Connection) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let Some(mut reader) = Reader::open(&self.path, BUSY_TIMEOUT) else {
            return Err(cause.into());
        };
        let transaction = reader.connection.transaction()?;
        self.check_ready(&transaction)?;
        let answer = read(&transaction)?;
        drop(transaction);
        if reader.is_consistent(&self.path) {
            Ok(answer)
        } else {
            Err(Problem::Replaced)
        }
    }

    /// Runs `work`, for which its caller has been waiting since `start`, and commits it, or leaves
    /// everything as it is.
    pub(crate) fn write<T>(
        &self,
        start: Instant,
        work: impl FnOnce(&Connection) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        self.check_files()?;
        let idle = lock(&self.idle).writer.take();
        let mut session = idle.map_or_else(|| self.open_files(), Ok)?;
        let connection = &mut session.connection;
        connection.busy_timeout(BUSY_TIMEOUT.saturating_sub(start.elapsed()))?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = work(&transaction);
        match &done {
            Ok(_) => transaction.commit().map_err(Problem::Commit)?,
            // A result such as a conflict is no fault of the connection.
            Err(Problem::Result(_)) => transaction.rollback()?,
            Err(_) => return done,
        }
        let used = session.files;
        lock(&self.idle).put_writer(session);
        // The file may have been replaced in the meantime, and what was written with it.
        match (&done, used.state(&self.path)) {
            (Ok(_), Ok(FileState::Same)) | (Err(_), _) => done,
            (Ok(_), _) => Err(Problem::Replaced),
        }
    }

    /// A new connection to the file, which is created if there was none so far.
    pub(crate) fn open(&self) -> Result<Connection, Problem> {
        self.check_files()?;
        Ok(self.open_files()?.connection)
    }

    /// Fails if the file that was opened is not there any more. If another one is in its place, its
    /// connections are closed, and that one is opened next.
    ///
    /// A deleted file is not created again: the person who deleted it would notice too late that the
    /// store is empty. Its connections stay open, because with the last one its content would be gone.
    fn check_files(&self) -> Result<(), Problem> {
        let mut idle = lock(&self.idle);
        let Some(known) = idle.files else {
            return Ok(());
        };
        let path = self.path.display();
        match known.state(&self.path) {
            Ok(FileState::Same) => Ok(()),
            Ok(FileState::Replaced) => {
                warn!("`{path}` was replaced; from now on the new file is used");
                idle.use_files(None);
                Ok(())
            }
            Ok(FileState::Deleted) => Err(StoreError::Unavailable(format!(
                "`{path}` was deleted or moved away while this server used it; put it back, or a backup of it; to begin with an empty store, restart the server"
            )))?,
            Ok(FileState::ReplacedBesideOldCompanions) => Err(StoreError::Unavailable(format!(
                "`{path}` was replaced while this server used it, but `{path}-wal` and `{path}-shm` belong to the old file and would damage the new one; move both to another folder"
            )))?,
            Err(error) => Err(StoreError::Unavailable(format!(
                "`{path}` cannot be accessed: {error}; give this user access to it and its folder"
            )))?,
        }
    }

    fn open_files(&self) -> Result<Session, Problem> {
        self.create_file().map_err(|error| {
            let path = self.path.display();
            StoreError::Unavailable(format!(
                "`{path}` cannot be created: {error}; choose a folder where this user may write"
            ))
        })?;
        let before = self.files_now()?;
        let connection = self.connect()?;
        let files = self.files_now()?;
        if !files.is_same(&before) {
            Err(Problem::Replaced)?;
        }
        lock(&self.idle).use_files(Some(files));
        Ok(Session { connection, files })
    }

    fn files_now(&self) -> Result<Files, StoreError> {
        Files::at(&self.path).map_err(|error| {
            let path = self.path.display();
            StoreError::Unavailable(format!("`{path}` cannot be accessed: {error}"))
        })
    }

    fn connect(&self) -> Result<Connection, Problem> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        // What was acknowledged is on the disk. On a Mac, only `fullfsync` means the disk and not
        // its cache.
        connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA fullfsync = ON;")?;
        if !self.is_ready(&connection)? {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            // Another process may have created the tables while this one waited.
            if !self.is_ready(&transaction)? {
                transaction.execute_batch(SCHEMA)?;
                create_audit_id_index(&transaction)?;
                transaction.pragma_update(None, "application_id", APPLICATION)?;
                transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
            }
            transaction.commit()?;
        }
        use_write_ahead_log(&connection)?;
        add_audit_id_index(&mut connection)?;
        // The first read in this mode makes the files beside the database.
        connection
            .query_row("SELECT 1 FROM documents LIMIT 1", [], |_| Ok(()))
            .optional()?;
        Ok(connection)
    }

    /// Creates folder and file if there are none, readable by their owner alone: drafts and the
    /// audit log are private.
    fn create_file(&self) -> io::Result<()> {
        // Closing a file ends the locks that this process has on it, so no other thread may open a
        // file that is being created.
        static CREATING: Mutex<()> = Mutex::new(());
        let _creating = lock(&CREATING);
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

    /// Fails unless the file has our tables.
    fn check_ready(&self, connection: &Connection) -> Result<(), Problem> {
        if self.is_ready(connection)? {
            return Ok(());
        }
        let path = self.path.display();
        Err(StoreError::Unavailable(format!(
            "`{path}` is empty, and its tables cannot be created: give this user write permission for it and its folder, and make room on the disk"
        )))?
    }

    /// Whether the file has our tables. A file with other tables is an error.
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

    /// A write that failed before anything was written.
    pub(crate) fn write_error(&self, problem: Problem) -> StoreError {
        let (Problem::Sqlite(error) | Problem::Commit(error)) = &problem else {
            return self.read_error(problem);
        };
        let path = self.path.display();
        let (reason, detail) = match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => (
                "the disk is full, so nothing was written; make room, then try again",
                format!("`{path}`"),
            ),
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => (
                "the server may not write its file or its folder",
                format!("give this user write permission for `{path}` and its folder"),
            ),
            Some(ErrorCode::SystemIoFailure) => (
                "the server could not write to its disk; make room, then try again",
                format!(
                    "`{path}`: {}; check that its disk is healthy",
                    describe(error)
                ),
            ),
            _ => return self.read_error(problem),
        };
        StoreError::ReadOnly {
            reason: reason.to_owned(),
            detail: Some(detail),
            retry_after: None,
        }
    }

    /// A read that failed.
    pub(crate) fn read_error(&self, problem: Problem) -> StoreError {
        let path = self.path.display();
        let error = match problem {
            Problem::Result(result) => return result,
            Problem::Replaced => {
                return StoreError::Unavailable(format!(
                    "`{path}` was replaced or changed by others during the call; try again"
                ));
            }
            Problem::Sqlite(error) | Problem::Commit(error) => error,
        };
        let text = describe(&error);
        match error.sqlite_error_code() {
            Some(
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed,
            ) => StoreError::Unavailable(format!(
                "`{path}` is busy: other processes were writing it for {} s; try again",
                BUSY_TIMEOUT.as_secs()
            )),
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                StoreError::Failed(format!(
                    "`{path}` is not a sound SQLite database: {text}; move it away, then restore a backup or start with an empty file"
                ))
            }
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
                StoreError::Unavailable(format!(
                    "`{path}` cannot be opened: {text}; check that it is a file, and that this user may write it and its folder"
                ))
            }
            Some(ErrorCode::SystemIoFailure | ErrorCode::DiskFull) => {
                StoreError::Unavailable(format!(
                    "`{path}` cannot be read: {text}; check that its disk is healthy and has room"
                ))
            }
            _ => StoreError::Failed(format!("SQLite error for `{path}`: {text}")),
        }
    }
}

/// Why a transaction did not commit.
pub(crate) enum Problem {
    /// Nothing is wrong with the file: this is the result.
    Result(StoreError),
    /// An error before the commit, so nothing was written.
    Sqlite(rusqlite::Error),
    /// An error of the commit itself.
    Commit(rusqlite::Error),
    /// Everything went well, but in a file that is not at its path any more.
    Replaced,
}

impl From<StoreError> for Problem {
    fn from(result: StoreError) -> Self {
        Self::Result(result)
    }
}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Whether writing is what failed, so that reading may work.
fn is_unwritable(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::ReadOnly
                | ErrorCode::CannotOpen
                | ErrorCode::PermissionDenied
                | ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
        )
    )
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets reads and a write happen at the same time. The switch is needed once for each file, and
/// does not always wait for other processes.
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

/// Adds the index of audit ids, which 0.1.0 did not make and keeps up to date all the same.
///
/// A file that takes no writes now is read without it.
fn add_audit_id_index(connection: &mut Connection) -> rusqlite::Result<()> {
    let exists = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = ?)";
    if connection.query_row(exists, [AUDIT_ID_INDEX], |row| row.get(0))? {
        return Ok(());
    }
    let created = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .and_then(|transaction| {
            create_audit_id_index(&transaction)?;
            transaction.commit()
        });
    if let Err(error) = created {
        debug!("could not add the index of audit ids: {}", describe(&error));
    }
    Ok(())
}

fn create_audit_id_index(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!(
        "CREATE INDEX IF NOT EXISTS {AUDIT_ID_INDEX} ON entries ({AUDIT_ID})"
    ))
}

/// The text of an error, with SQLite's number for it.
pub(super) fn describe(error: &rusqlite::Error) -> String {
    error.sqlite_extended_error_code().map_or_else(
        || error.to_string(),
        |code| format!("{error} (SQLite error {code})"),
    )
}

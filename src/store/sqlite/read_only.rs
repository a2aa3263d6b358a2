//! Reading a file that cannot be written: on a full disk, or in a folder where this user may not
//! write.
//!
//! SQLite reads a file in write-ahead mode with the help of two files beside it, which it cannot
//! make here. If they are there, it can read by itself. If they are not, nobody writes the file, and
//! SQLite may be told that it is immutable, as <https://www.sqlite.org/wal.html#readonly> describes.
//! Somebody may begin to write all the same, so it is checked afterwards that nobody did.
//!
//! Each read opens the file again: this lasts only until somebody makes room.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rusqlite::{Connection, OpenFlags};

use super::{
    database::{BUSY_TIMEOUT, Problem},
    files::{Files, companions},
};

/// Runs `read` on one state of the file at `path`, which could not be opened for writing because of
/// `cause`.
pub(super) fn read<T>(
    path: &Path,
    cause: rusqlite::Error,
    read: impl FnOnce(&Connection) -> Result<T, Problem>,
) -> Result<T, Problem> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if let Ok(mut connection) = Connection::open_with_flags(path, flags)
        && connection.busy_timeout(BUSY_TIMEOUT).is_ok()
        && is_readable(&connection)
    {
        return read(&*connection.transaction()?);
    }
    let Some(before) = Unchanging::of(path) else {
        return Err(cause.into());
    };
    let immutable = flags | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(immutable_uri(path), immutable)?;
    let answer = read(&connection)?;
    match Unchanging::of(path) {
        Some(after) if after.is_same(&before) => Ok(answer),
        _ => Err(Problem::Replaced),
    }
}

fn is_readable(connection: &Connection) -> bool {
    connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
        .is_ok()
}

/// A database that nobody writes, as far as can be seen: SQLite writes into the log first.
struct Unchanging {
    files: Files,
    length: u64,
    modified: Option<SystemTime>,
}

impl Unchanging {
    /// `None` if there is a log with something in it, or no database.
    fn of(path: &Path) -> Option<Self> {
        let [log, _] = companions(path);
        match fs::metadata(log) {
            Ok(log) if log.len() > 0 => return None,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => return None,
        }
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            files: Files::at(path).ok()?,
            length: metadata.len(),
            modified: metadata.modified().ok(),
        })
    }

    fn is_same(&self, other: &Self) -> bool {
        self.files.is_same(&other.files)
            && (self.length, self.modified) == (other.length, other.modified)
    }
}

/// The path as a URI, in which `?`, `#` and `%` have a meaning.
fn immutable_uri(path: &Path) -> PathBuf {
    let mut uri = String::from("file:");
    for c in path.to_string_lossy().chars() {
        match c {
            '?' => uri.push_str("%3f"),
            '#' => uri.push_str("%23"),
            '%' => uri.push_str("%25"),
            c => uri.push(c),
        }
    }
    uri.push_str("?immutable=1");
    uri.into()
}

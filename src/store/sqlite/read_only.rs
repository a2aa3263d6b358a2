//! Reading a file that cannot be written: on a full disk, or in a folder where this user may not
//! write.
//!
//! SQLite reads a file in write-ahead mode with the help of two files beside it, which it cannot
//! make here. If they are there, it can read by itself. If they are not, nobody writes the file, and
//! it can be opened as immutable, as <https://www.sqlite.org/wal.html#readonly> describes. Somebody
//! may begin to write all the same, so it is checked afterwards that nobody did.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags};

use super::files::{Files, companions};

/// A connection for one read.
pub(super) struct Reader {
    pub(super) connection: Connection,
    /// What has to be the same after the read; `None` if SQLite takes care of it.
    immutable: Option<Immutable>,
}

impl Reader {
    /// A connection to the file at `path`; `None` if it cannot be read either.
    pub(super) fn open(path: &Path, busy_timeout: Duration) -> Option<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).ok();
        if let Some(connection) =
            connection.filter(|connection| is_readable(connection, busy_timeout))
        {
            return Some(Self {
                connection,
                immutable: None,
            });
        }
        let immutable = Immutable::of(path)?;
        let flags = flags | OpenFlags::SQLITE_OPEN_URI;
        Some(Self {
            connection: Connection::open_with_flags(immutable_uri(path), flags).ok()?,
            immutable: Some(immutable),
        })
    }

    /// Whether what was read is one state of the file at `path`.
    pub(super) fn is_consistent(&self, path: &Path) -> bool {
        match &self.immutable {
            None => true,
            Some(before) => Immutable::of(path).is_some_and(|after| after.is_same(before)),
        }
    }
}

fn is_readable(connection: &Connection, busy_timeout: Duration) -> bool {
    connection.busy_timeout(busy_timeout).is_ok()
        && connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
            .is_ok()
}

/// A database that nobody writes, as far as can be seen: SQLite writes into the log first.
struct Immutable {
    files: Files,
    metadata: fs::Metadata,
}

impl Immutable {
    /// `None` if there is a log with something in it, or no database.
    fn of(path: &Path) -> Option<Self> {
        let [log, _] = companions(path);
        match fs::metadata(log) {
            Ok(log) if log.len() > 0 => return None,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => return None,
        }
        Some(Self {
            files: Files::at(path).ok()?,
            metadata: fs::metadata(path).ok()?,
        })
    }

    fn is_same(&self, other: &Self) -> bool {
        self.files.is_same(&other.files)
            && self.metadata.len() == other.metadata.len()
            && self.metadata.modified().ok() == other.metadata.modified().ok()
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

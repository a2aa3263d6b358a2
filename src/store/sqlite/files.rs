//! Which files are at the store's path. SQLite keeps using those that it opened, even if they were
//! deleted or replaced since, and then whatever it writes is lost.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

/// The database and the two files that SQLite keeps beside it while it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Files {
    database: Option<FileId>,
    companions: [Option<FileId>; 2],
}

/// What tells a file from another one at the same path, as long as one of them is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

/// What happened to the files since they were opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileState {
    Same,
    Deleted,
    Replaced,
    /// Only the database was replaced: SQLite would apply the old one's companions to it.
    ReplacedBesideOldCompanions,
}

impl Files {
    /// The files that are at `path` now.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        let [log, index] = companions(path).map(|path| id(&path));
        Ok(Self {
            database: id(path)?,
            companions: [log?, index?],
        })
    }

    /// What happened to these files, which were opened at `path`.
    pub(super) fn state(&self, path: &Path) -> io::Result<FileState> {
        let database = id(path)?;
        if self.database == database {
            return Ok(FileState::Same);
        }
        if database.is_none() {
            return Ok(FileState::Deleted);
        }
        let now = Self::at(path)?;
        let mut pairs = self.companions.iter().zip(&now.companions);
        Ok(if pairs.any(|(old, new)| old.is_some() && old == new) {
            FileState::ReplacedBesideOldCompanions
        } else {
            FileState::Replaced
        })
    }

    /// Whether these are the same database.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.database == other.database
    }
}

/// The write-ahead log of the database at `path`, and the index of that log.
pub(super) fn companions(path: &Path) -> [PathBuf; 2] {
    ["-wal", "-shm"].map(|suffix| {
        let mut name = OsString::from(path);
        name.push(suffix);
        name.into()
    })
}

/// The file at `path`; `None` if there is none. Elsewhere than on Unix every file is the same one:
/// Windows lets nobody replace a file that is open.
fn id(path: &Path) -> io::Result<Option<FileId>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(FileId::of(&metadata))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl FileId {
    #[cfg(unix)]
    fn of(metadata: &fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }

    #[cfg(not(unix))]
    fn of(_: &fs::Metadata) -> Self {
        Self {
            device: 0,
            inode: 0,
        }
    }
}

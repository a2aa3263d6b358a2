//! The stores that every contract test runs on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::FutureExt;
use portfolio_mcp::{
    domain::{DocumentKey, Kind},
    store::{HistoryImport, Location, Repository, open},
};
use redis::cmd;
use tempfile::TempDir;

use super::{
    history_index,
    program::{Home, PROGRAM},
    redis::RedisServer,
    soundness::{self, Log},
};

/// The prefix of a deployment that keeps one site in one slot of a Redis Cluster.
pub(crate) const SITE: &str = "{site}:";

/// A store and the server or folder that holds it.
pub(crate) struct Store {
    /// The store.
    pub(crate) repository: Arc<dyn Repository>,
    /// Imports audit entries into it.
    pub(crate) history: Arc<dyn HistoryImport>,
    backend: Backend,
    writers: Writers,
}

/// Which versions of the program write to a store.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writers {
    ThisVersion,
    /// 0.1.0 leaves the checksums beside the documents alone.
    OlderToo,
}

enum Backend {
    Redis {
        server: Arc<RedisServer>,
        prefix: &'static str,
    },
    Sqlite {
        folder: TempDir,
    },
}

impl Store {
    /// A store in a Redis server of its own.
    pub(crate) fn redis() -> Self {
        Self::on(&Arc::new(RedisServer::start()), "")
    }

    /// A store in a Redis server that others may use too.
    pub(crate) fn on(server: &Arc<RedisServer>, prefix: &'static str) -> Self {
        Self::at(Backend::Redis {
            server: Arc::clone(server),
            prefix,
        })
    }

    /// A store in a file of its own.
    pub(crate) fn sqlite() -> Self {
        Self::sqlite_in(TempDir::new().unwrap())
    }

    /// A store in a file in `folder`.
    pub(crate) fn sqlite_in(folder: TempDir) -> Self {
        Self::at(Backend::Sqlite { folder })
    }

    /// The same store, to which version 0.1.0 writes too.
    pub(crate) fn with_older_writers(self) -> Self {
        Self {
            writers: Writers::OlderToo,
            ..self
        }
    }

    fn at(backend: Backend) -> Self {
        let parts = open(&backend.location()).unwrap();
        Self {
            writers: Writers::ThisVersion,
            repository: parts.repository,
            history: parts.history,
            backend,
        }
    }

    /// One more handle on the same store, as another process has it.
    pub(crate) fn another(&self) -> Arc<dyn Repository> {
        self.open().repository
    }

    /// All parts of the same store, as another process has them.
    pub(crate) fn open(&self) -> portfolio_mcp::store::Store {
        open(&self.backend.location()).unwrap()
    }

    /// Closes the store and opens it again, as a restarted process does.
    pub(crate) fn reopen(&mut self) {
        let parts = self.open();
        self.repository = parts.repository;
        self.history = parts.history;
    }

    /// The arguments that start the program on this store.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let options = match &self.backend {
            Backend::Redis { server, prefix } => vec![
                ("--store", server.url()),
                ("--key-prefix", (*prefix).to_owned()),
            ],
            Backend::Sqlite { .. } => {
                vec![("--store", format!("sqlite:{}", self.file().display()))]
            }
        };
        options
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .flat_map(|(option, value)| [option.to_owned(), value])
            .collect()
    }

    /// The server of a Redis store.
    pub(crate) fn server(&self) -> &RedisServer {
        match &self.backend {
            Backend::Redis { server, .. } => server,
            Backend::Sqlite { .. } => panic!("{self} has no Redis server"),
        }
    }

    pub(crate) fn is_redis(&self) -> bool {
        matches!(self.backend, Backend::Redis { .. })
    }

    /// A key of a Redis store, with the deployment's prefix.
    pub(crate) fn key(&self, name: &str) -> String {
        match &self.backend {
            Backend::Redis { prefix, .. } => format!("{prefix}{name}"),
            Backend::Sqlite { .. } => panic!("{self} has no keys"),
        }
    }

    /// The file of an embedded store.
    pub(crate) fn file(&self) -> PathBuf {
        match self.backend.location() {
            Location::Sqlite(path) => path,
            Location::Redis { .. } => panic!("{self} is no file"),
        }
    }

    /// Stores bytes as a document, as another program might.
    pub(crate) fn put(&self, kind: Kind, id: &str, bytes: &[u8]) {
        match &self.backend {
            Backend::Sqlite { .. } => {
                let sql = "INSERT INTO documents (kind, id, text) VALUES (?, ?, CAST(? AS TEXT))";
                rusqlite::Connection::open(self.file())
                    .unwrap()
                    .execute(sql, rusqlite::params![kind.singular(), id, bytes])
                    .unwrap();
            }
            Backend::Redis { server, .. } => {
                let kind = kind.plural();
                let document = self.key(&format!("data:{kind}:{id}"));
                server.run::<()>(cmd("SET").arg(document).arg(bytes));
                let index = self.key(&format!("index:all:{kind}"));
                server.run::<()>(cmd("SADD").arg(index).arg(id));
            }
        }
    }

    /// Stores a text as a document, or deletes it, as a person by hand: without an entry.
    pub(crate) fn edit(&self, key: &DocumentKey, text: Option<&str>) {
        let Some(text) = text else {
            return self.delete(key);
        };
        let changed = match &self.backend {
            Backend::Redis { .. } => false,
            Backend::Sqlite { .. } => {
                let sql = "UPDATE documents SET text = ? WHERE kind = ? AND id = ?";
                let row = [text, key.kind.singular(), &key.id];
                let file = rusqlite::Connection::open(self.file()).unwrap();
                file.execute(sql, row).unwrap() > 0
            }
        };
        if !changed {
            self.put(key.kind, &key.id, text.as_bytes());
        }
    }

    fn delete(&self, key: &DocumentKey) {
        match &self.backend {
            Backend::Redis { server, .. } => {
                let document = self.key(&format!("data:{}:{}", key.kind.plural(), key.id));
                server.run::<()>(cmd("DEL").arg(document));
            }
            Backend::Sqlite { .. } => {
                let sql = "DELETE FROM documents WHERE kind = ? AND id = ?";
                let file = rusqlite::Connection::open(self.file()).unwrap();
                file.execute(sql, [key.kind.singular(), &key.id]).unwrap();
            }
        }
    }

    /// Imports a folder with the program.
    pub(crate) fn import(&self, folder: &Path) {
        let output = Home::new()
            .command(PROGRAM)
            .arg("import")
            .arg(folder)
            .args(self.arguments())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// Fails unless the store is sound, including its indexes and its file; gives its log.
    pub(crate) async fn assert_sound(&self) -> Log {
        self.assert_sound_but(&[]).await
    }

    /// The same for a store in which another program changed the documents at `foreign`.
    pub(crate) async fn assert_sound_but(&self, foreign: &[DocumentKey]) -> Log {
        let log = soundness::assert_sound_but(&*self.repository, foreign).await;
        match &self.backend {
            Backend::Redis { server, prefix } => {
                assert_indexed(server, prefix, &log, foreign);
                if self.writers == Writers::ThisVersion {
                    assert_checksums(server, prefix, &log, foreign);
                }
            }
            Backend::Sqlite { .. } => {
                let file = rusqlite::Connection::open(self.file()).unwrap();
                let verdict: String = file
                    .query_row("PRAGMA integrity_check", [], |row| row.get(0))
                    .unwrap();
                assert_eq!(verdict, "ok", "{self}");
            }
        }
        log
    }
}

impl Backend {
    fn location(&self) -> Location {
        match self {
            Self::Redis { server, prefix } => Location::Redis {
                write: Some(server.redis_url()),
                read: None,
                key_prefix: (*prefix).to_owned(),
            },
            Self::Sqlite { folder } => Location::Sqlite(folder.path().join("content.db")),
        }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.backend {
            Backend::Redis { prefix, .. } => write!(formatter, "Redis with the prefix `{prefix}`"),
            Backend::Sqlite { .. } => formatter.write_str("SQLite"),
        }
    }
}

/// Runs `check` on an empty store of each kind, and fails with the names of those that failed.
///
/// Both Redis stores are in one server, so neither may touch the other's keys.
pub(crate) async fn on_each_store(check: impl AsyncFn(&Store)) {
    let server = Arc::new(RedisServer::start());
    let mut failed = Vec::new();
    for store in [
        Store::on(&server, ""),
        Store::on(&server, SITE),
        Store::sqlite(),
    ] {
        println!("--- on {store}");
        if AssertUnwindSafe(check(&store))
            .catch_unwind()
            .await
            .is_err()
        {
            failed.push(store.to_string());
        }
    }
    assert!(failed.is_empty(), "failed on {}", failed.join(", "));
}

/// Fails unless each document has the checksum of its newest entry beside it.
fn assert_checksums(server: &RedisServer, prefix: &str, log: &Log, foreign: &[DocumentKey]) {
    for (document, state) in &log.documents {
        if !foreign.contains(document) {
            assert_eq!(
                checksum_of(server, prefix, document).as_deref(),
                state.newest.checksum(),
                "the checksum beside {document}"
            );
        }
    }
    for document in log.deleted.keys() {
        let checksum = checksum_of(server, prefix, document);
        assert_eq!(checksum, None, "the checksum beside {document}");
    }
}

/// The checksum beside a document.
fn checksum_of(server: &RedisServer, prefix: &str, key: &DocumentKey) -> Option<String> {
    let (kind, id) = (key.kind.plural(), &key.id);
    server.run(cmd("GET").arg(format!("{prefix}internal:checksum:{kind}:{id}")))
}

/// Fails unless the indexes, counters and newest entries in Redis match the documents and the log.
fn assert_indexed(server: &RedisServer, prefix: &str, log: &Log, foreign: &[DocumentKey]) {
    let key = |name: &str| format!("{prefix}{name}");
    for kind in Kind::ALL {
        let ours: BTreeMap<&DocumentKey, _> = log
            .documents
            .iter()
            .filter(|(key, _)| key.kind == kind && !foreign.contains(key))
            .collect();
        for (index, belongs) in [
            ("all", None),
            ("published", Some("published")),
            ("featured", Some("featured")),
        ] {
            let members: BTreeSet<String> =
                server.run(cmd("SMEMBERS").arg(key(&format!("index:{index}:{}", kind.plural()))));
            let members: BTreeSet<&str> = members
                .iter()
                .map(String::as_str)
                .filter(|id| !foreign.contains(&DocumentKey::new(kind, *id)))
                .collect();
            let expected: BTreeSet<&str> = ours
                .iter()
                .filter(|(_, state)| {
                    let metadata = state.document.get("metadata");
                    match belongs {
                        None => true,
                        Some("published") => {
                            metadata.is_some_and(|metadata| metadata["status"] == "published")
                        }
                        Some(_) => metadata.is_some_and(|metadata| metadata["featured"] == true),
                    }
                })
                .map(|(key, _)| key.id.as_str())
                .collect();
            assert_eq!(members, expected, "index:{index}:{}", kind.plural());
        }
        for (document, state) in ours {
            let latest: Option<String> = server.run(cmd("GET").arg(key(&format!(
                "internal:latest:{}:{}",
                kind.plural(),
                document.id
            ))));
            assert_eq!(
                latest.as_deref(),
                Some(state.newest.text()),
                "the newest entry of {document}"
            );
        }
    }
    history_index::assert_right(server, prefix);
    let seq: Option<u64> = server.run(cmd("HGET").arg(key("audit:stats")).arg("seq"));
    assert_eq!(seq.unwrap_or_default(), log.seq, "the counter of writes");
    let counters: BTreeMap<String, String> = server.run(cmd("HGETALL").arg(key("audit:stats")));
    for (name, count) in log.stats.counters() {
        assert_eq!(
            counters.get(&name).map(String::as_str),
            Some(count.to_string().as_str()),
            "the counter {name}"
        );
    }
    assert_eq!(
        server.run::<i64>(cmd("EXISTS").arg(key("internal:self-test"))),
        0,
        "a self-test left its key"
    );
}

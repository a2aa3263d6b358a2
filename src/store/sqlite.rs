//! The embedded store: documents and the audit log in one SQLite file, which several processes
//! share.
//!
//! A commit is one transaction; that it is whole or not there is SQLite's work alone. Documents and
//! entries are stored as text; the columns beside the text only serve to find them. Knows no
//! content type by name and reads no clock: changes bring their time, and idempotency records
//! expire by the clock that SQLite itself reads.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Instant,
};

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params_from_iter};
use tokio::sync::Semaphore;
use tracing::warn;

use super::{Commit, HistoryImport, Repository, Revision, StoreError};
use crate::domain::{
    AuditPage, AuditQuery, AuditStats, Change, Current, DocumentKey, FoundDocument, History, Kind,
    ListPage, ListQuery, Operation, StoredEntry, Timestamp,
};

mod commit;
pub(crate) mod database;
mod files;
mod plans;
pub(crate) mod queries;
mod read_only;

use commit::{commit, find_commit, insert_entry, resolve_commit};
use database::{Database, Problem};
use queries::{audit_entries, audit_stats, found, latest_entry, list, record};

/// How many read at once.
const READERS: usize = 8;

/// Documents and the audit log in a SQLite file.
pub(super) struct SqliteStore {
    database: Arc<Database>,
    /// Calls wait for their turn here, where they hold no thread and can still be dropped.
    read_turns: Arc<Semaphore>,
    write_turns: Arc<Semaphore>,
    logged_outage: Mutex<Option<String>>,
}

impl SqliteStore {
    /// A store that opens or creates its file when it is first used.
    pub(super) fn new(path: &Path) -> Self {
        // SQLite gives names such as `:memory:` and `file:…` a meaning; an absolute path has none.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Self {
            database: Arc::new(Database::new(path)),
            read_turns: Arc::new(Semaphore::new(READERS)),
            write_turns: Arc::new(Semaphore::new(1)),
            logged_outage: Mutex::default(),
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
                .map_err(|problem| database.read_error(problem))
        })
        .await
    }

    /// Logs that the file cannot be used, once until it is over: every call meets it.
    fn log_outage(&self, error: Option<&StoreError>) {
        let outage = match error {
            Some(error @ StoreError::Unavailable(_)) => Some(error.to_string()),
            _ => None,
        };
        let mut logged = database::lock(&self.logged_outage);
        if let Some(text) = outage.as_ref().filter(|_| *logged != outage) {
            warn!("{text}");
        }
        *logged = outage;
    }

    /// Runs `work` on a thread that may block. Once started it runs to its end, even if the caller
    /// has gone.
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
        let result = done.await.map_err(|_| StoreError::panicked())?;
        self.log_outage(result.as_ref().err());
        result
    }
}

#[async_trait]
impl Repository for SqliteStore {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    async fn get(&self, key: &DocumentKey) -> Result<FoundDocument, StoreError> {
        let key = key.clone();
        self.read(move |transaction| found(transaction, &key)).await
    }

    async fn get_for_update(&self, key: &DocumentKey) -> Result<Current, StoreError> {
        let key = key.clone();
        self.read(move |transaction| {
            let record = record(transaction, &key)?;
            let latest_entry = latest_entry(transaction, &key)?;
            Ok(Current::read(key, record, latest_entry))
        })
        .await
    }

    async fn list(&self, kind: Kind, query: &ListQuery) -> Result<ListPage, StoreError> {
        let query = query.clone();
        self.read(move |transaction| list(transaction, kind, &query))
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
            written.or_else(|problem| resolve_commit(database, problem, &operation))
        })
        .await
    }

    async fn find_commit(&self, operation: &Operation) -> Result<Option<Commit>, StoreError> {
        let operation = operation.clone();
        self.read(move |transaction| find_commit(transaction, &operation))
            .await
    }

    async fn audit_entries(&self, query: &AuditQuery) -> Result<AuditPage, StoreError> {
        let query = query.clone();
        self.read(move |transaction| audit_entries(transaction, &query))
            .await
    }

    async fn audit_stats(&self) -> Result<AuditStats, StoreError> {
        self.read(audit_stats).await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.read(|transaction| {
            let number = |sql: &str, of: &[&str]| {
                let number: Option<i64> = transaction
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
            let newest = "SELECT digest FROM entries ORDER BY score DESC, text DESC LIMIT 1";
            let newest: Option<String> = transaction
                .prepare_cached(newest)?
                .query_row([], |row| row.get(0))
                .optional()?;
            Ok(Revision {
                history: newest.map(History::parse).unwrap_or_default(),
                entries: number("SELECT count(*) FROM entries", &[])?,
                documents,
            })
        })
        .await
    }
}

#[async_trait]
impl HistoryImport for SqliteStore {
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
            written.map_err(|problem| database.write_error(problem))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use serde_json::{Map, json};

    use super::{
        database::{BUSY_TIMEOUT, lock},
        *,
    };
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
        let absent = Current::read(DocumentKey::new(Kind::Project, id), None, None::<&str>);
        Change::put(&absent, &document, write_context).unwrap()
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

    async fn list_ids(store: &SqliteStore) -> Result<Vec<String>, StoreError> {
        let query = ListQuery {
            limit: usize::MAX,
            ..ListQuery::default()
        };
        let page = store.list(Kind::Project, &query).await?;
        let mut ids: Vec<String> = page
            .records
            .iter()
            .map(|record| record.key().id.clone())
            .collect();
        ids.sort_unstable();
        Ok(ids)
    }

    async fn ids(store: &SqliteStore) -> Vec<String> {
        list_ids(store).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn concurrent_first_starts_create_one_file() {
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
    async fn files_and_folders_are_readable_by_their_owner_alone() {
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
    async fn a_foreign_file_is_refused_and_left_alone() {
        let (folder, path) = file();
        create(&SqliteStore::new(&path), "a").await.unwrap();
        let newer = folder.path().join("newer.db");
        fs::copy(&path, &newer).unwrap();
        by_hand(&newer, "PRAGMA user_version = 2");
        let foreign = folder.path().join("foreign.db");
        by_hand(&foreign, "CREATE TABLE bookmarks (url TEXT)");
        let text = folder.path().join("text.db");
        fs::write(&text, "dear diary, this is not a database").unwrap();

        for (path, expected) in [
            (newer, "newer version"),
            (foreign, "another program"),
            (text, "not a sound SQLite database"),
        ] {
            let before = fs::read(&path).unwrap();
            let store = SqliteStore::new(&path);

            let read = list_ids(&store).await.unwrap_err().to_string();
            let written = create(&store, "b").await.unwrap_err().to_string();

            for message in [read, written] {
                assert!(
                    message.contains(expected) && message.contains(path.to_str().unwrap()),
                    "{message}"
                );
            }
            assert_eq!(fs::read(&path).unwrap(), before);
        }
    }

    #[tokio::test]
    async fn an_impossible_path_is_named() {
        let (folder, _) = file();
        fs::write(folder.path().join("a-file"), "").unwrap();

        for path in [
            folder.path().to_owned(),
            folder.path().join("a-file/store.db"),
        ] {
            let error = list_ids(&SqliteStore::new(&path)).await.unwrap_err();

            assert!(
                matches!(&error, StoreError::Unavailable(message) if message.contains(path.to_str().unwrap())),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn a_full_disk_leaves_nothing_behind_and_no_harm() {
        let (_folder, path) = file();
        let store = SqliteStore::new(&path);
        create(&store, "before").await.unwrap();
        let full = lock(&store.database.idle).writer.take().unwrap();
        let pages: i64 = full
            .connection
            .query_row("PRAGMA page_count", [], |row| row.get(0))
            .unwrap();
        full.connection
            .query_row(
                &format!("PRAGMA max_page_count = {}", pages + 2),
                [],
                |_| Ok(()),
            )
            .unwrap();
        lock(&store.database.idle).writer = Some(full);
        let large = [
            creation("small", "small"),
            creation("large", &"x".repeat(100_000)),
        ];

        let error = store.commit(&large, &operation("large")).await.unwrap_err();

        assert!(
            matches!(&error, StoreError::ReadOnly { reason, .. } if reason.contains("make room")),
            "{error}"
        );
        assert_eq!(ids(&store).await, ["before"]);
        assert_eq!(store.audit_stats().await.unwrap().total, 1);
        assert!(
            store
                .find_commit(&operation("large"))
                .await
                .unwrap()
                .is_none()
        );
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
    async fn a_write_waits_for_other_processes_and_reads_do_not() {
        let (_folder, path) = file();
        let store = SqliteStore::new(&path);
        create(&store, "a").await.unwrap();
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();

        // The caller waits for longer than a writer may, so that no time is left when it is this
        // one's turn.
        let start = Instant::now().checked_sub(BUSY_TIMEOUT).unwrap();
        let problem = store
            .database
            .write(start, |transaction| {
                commit(transaction, &[creation("b", "b")], &operation("b"))
            })
            .err()
            .unwrap();
        let error = resolve_commit(&store.database, problem, &operation("b")).unwrap_err();

        assert!(
            matches!(&error, StoreError::Unavailable(message) if message.contains("busy")),
            "{error}"
        );
        assert_eq!(ids(&store).await, ["a"]);
        other.execute_batch("COMMIT").unwrap();
        create(&store, "b").await.unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_replaced_during_a_write_is_used_from_then_on() {
        let (folder, path) = file();
        let store = SqliteStore::new(&path);
        create(&store, "a").await.unwrap();
        let copy = folder.path().join("copy.db");
        let other = Connection::open(&path).unwrap();
        other
            .execute_batch(&format!("VACUUM INTO '{}'", copy.display()))
            .unwrap();
        let replace = || {
            for suffix in ["", "-wal", "-shm"] {
                let name = format!("{}{suffix}", path.display());
                fs::rename(&name, format!("{name}.old")).unwrap();
            }
            fs::rename(&copy, &path).unwrap();
            // A read is the first to see it.
            store.database.read(|_| Ok(())).map_err(|_| ()).unwrap();
        };

        let problem = store.database.write(Instant::now(), |transaction| {
            replace();
            commit(transaction, &[creation("lost", "lost")], &operation("lost"))
        });

        assert!(matches!(problem, Err(Problem::Replaced)));
        create(&store, "b").await.unwrap();
        assert_eq!(ids(&store).await, ["a", "b"]);
    }

    #[tokio::test]
    async fn a_failed_commit_is_resolved_by_its_idempotency_record() {
        let (_folder, path) = file();
        let store = SqliteStore::new(&path);
        create(&store, "a").await.unwrap();
        let lost = || {
            Problem::Commit(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC),
                None,
            ))
        };

        let there = resolve_commit(&store.database, lost(), &operation("a")).unwrap();
        let not_there = resolve_commit(&store.database, lost(), &operation("b")).unwrap_err();
        fs::write(
            &path,
            "the disk is gone, and with it what was on it: nothing can be message any more",
        )
        .unwrap();
        let unknown = resolve_commit(&store.database, lost(), &operation("b")).unwrap_err();

        assert_eq!((there.entries.len(), there.replayed), (1, true));
        assert!(
            matches!(not_there, StoreError::ReadOnly { .. }),
            "{not_there}"
        );
        assert!(
            matches!(unknown, StoreError::OutcomeUnknown(_)),
            "{unknown}"
        );
    }

    /// SQLite does not notice it: the old file is open.
    #[tokio::test]
    async fn a_commit_into_a_file_that_is_replaced_meanwhile_is_not_acknowledged() {
        for (companions, expected) in [(false, "try again"), (true, "lost during the commit")] {
            let (folder, path) = file();
            let store = SqliteStore::new(&path);
            create(&store, "a").await.unwrap();
            let copy = folder.path().join("copy.db");
            by_hand(&path, &format!("VACUUM INTO '{}'", copy.display()));

            let problem = store.database.write(Instant::now(), |transaction| {
                let commit = commit(transaction, &[creation("b", "b")], &operation("b"))?;
                fs::rename(&copy, &path).unwrap();
                for companion in files::companions(&path) {
                    if !companions {
                        fs::remove_file(companion).unwrap();
                    }
                }
                Ok(commit)
            });
            let error = resolve_commit(&store.database, problem.err().unwrap(), &operation("b"));

            let error = error.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[tokio::test]
    async fn expired_idempotency_records_are_ignored_and_deleted() {
        let (_folder, path) = file();
        let store = SqliteStore::new(&path);
        create(&store, "a").await.unwrap();
        let other_request = Operation::once("a", json!("another request"));
        assert!(matches!(
            store.find_commit(&other_request).await,
            Err(StoreError::IdempotencyMismatch)
        ));

        by_hand(&path, "UPDATE operations SET expires = unixepoch() - 1");

        assert!(store.find_commit(&operation("a")).await.unwrap().is_none());
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
    async fn manual_edits_are_listed() {
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
                .any(|message| message.contains("documents/project/broken")),
            "{:?}",
            page.unreadable
        );
        let key = DocumentKey::new(Kind::Project, "bytes");
        assert!(matches!(
            store.get(&key).await,
            Err(StoreError::Corrupt { .. })
        ));
    }
}

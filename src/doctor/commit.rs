//! Trial commits: the commit script on a document that does not exist, and a series of real commits
//! under a temporary prefix.

use std::{
    slice::from_ref,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::finding::{Fault, Finding};
use crate::{
    domain::{
        AuditQuery, Change, Current, DocumentKey, Kind, ListQuery, Operation, Origin, Record,
        Source, StoredEntry, Timestamp, WriteContext, text::truncate,
    },
    store::{
        self, Commit, Location, RedisUrl, Repository, StoreError,
        redis::{RedisStore, keys::Keys},
    },
};

/// Runs the commit script on a document that does not exist. The conflict that it reports proves
/// that it was loaded and ran; nothing is written.
pub(super) async fn run_script(url: &RedisUrl, keys: &Keys, clock: fn() -> Timestamp) -> Finding {
    let check = "commit script";
    let prefix = keys.internal(&format!("doctor:{}:", Uuid::new_v4()));
    match commit_to_missing_document(url, &prefix, clock).await {
        Err(StoreError::Conflict) => Finding::ok(check, "loads and runs"),
        Ok(_) => Finding::problem(
            Fault::Store,
            check,
            "replaced a document that does not exist",
            "do not write to this store, and report this to the developers",
        ),
        Err(error) => Finding::problem(
            Fault::Store,
            check,
            error.to_string(),
            "until this is fixed, writes fail",
        ),
    }
}

async fn commit_to_missing_document(
    url: &RedisUrl,
    prefix: &str,
    clock: fn() -> Timestamp,
) -> Result<Commit, StoreError> {
    let [kind, _] = Kind::ALL;
    // Without retries, so that the answer is the server's.
    let store = RedisStore::new(Some(url), None, prefix)
        .map_err(|error| StoreError::Unavailable(error.to_string()))?;
    let key = DocumentKey::new(kind, "doctor");
    let record = Record::parse(key.clone(), "{}".to_owned()).map_err(StoreError::Failed)?;
    let invented = Current::read(key, Some(record), None::<&str>);
    let operation = Operation::once(&Uuid::new_v4().to_string(), json!({}));
    let change = Change::put(
        &invented,
        &Map::from_iter([("id".to_owned(), json!("doctor"))]),
        write_context(&operation, clock()),
    );
    let changes: Vec<Change> = change.into_iter().collect();
    store.commit(&changes, &operation).await
}

/// Makes real commits, and checks conflicts, replays, idempotency, audit entries and indexes.
/// Returns how long an update took.
///
/// # Errors
/// The first check that failed.
pub(super) async fn run_all(
    write: &RedisUrl,
    prefix: &str,
    clock: fn() -> Timestamp,
) -> Result<Duration, String> {
    let location = Location::Redis {
        write: Some(write.clone()),
        read: None,
        key_prefix: prefix.to_owned(),
    };
    let store = store::open(&location).map_err(|error| error.to_string())?;
    let test = CommitTest {
        store: store.repository,
        key: document_key(),
        clock,
    };
    let [first, second, third] = operations(prefix, Request::Original);
    test.create(&first).await?;
    let draft = test.read().await?;
    let update = test.update(&draft, &second)?;
    let duration = test.commit_update(&update, &second).await?;
    test.expect_conflict(&draft, &third).await?;
    test.expect_replay(&update, &second).await?;
    let [_, other, _] = operations(prefix, Request::Other);
    test.expect_mismatch(&update, &other).await?;
    test.check_log().await?;
    test.check_counts().await?;
    Ok(duration)
}

struct CommitTest {
    store: Arc<dyn Repository>,
    key: DocumentKey,
    clock: fn() -> Timestamp,
}

impl CommitTest {
    async fn create(&self, operation: &Operation) -> Result<(), String> {
        let absent = self.store.get_for_update(&self.key).await;
        let change = Change::put(
            &absent.map_err(in_step("create"))?,
            &document("draft"),
            write_context(operation, (self.clock)()),
        )
        .ok_or("create: the document exists already")?;
        let commit = self.store.commit(&[change], operation).await;
        expect_applied("create", &commit.map_err(in_step("create"))?, 1)
    }

    async fn read(&self) -> Result<Current, String> {
        let current = self.store.get_for_update(&self.key).await;
        let current = current.map_err(in_step("read"))?;
        match current.record() {
            Some(_) => Ok(current),
            None => Err("read: the document that was written is missing".to_owned()),
        }
    }

    fn update(&self, draft: &Current, operation: &Operation) -> Result<Change, String> {
        let context = write_context(operation, (self.clock)());
        Change::put(draft, &document("published"), context).ok_or_else(|| {
            format!(
                "read: expected the document that was written, found `{}`",
                truncate(draft.record().map_or("", Record::text))
            )
        })
    }

    async fn commit_update(
        &self,
        update: &Change,
        operation: &Operation,
    ) -> Result<Duration, String> {
        let start = Instant::now();
        let commit = self.store.commit(from_ref(update), operation).await;
        let duration = start.elapsed();
        expect_applied("update", &commit.map_err(in_step("update"))?, 2)?;
        let read = self.read().await?;
        if read.record().map(Record::text) != update.text() {
            return Err("read: expected the document that was written, byte for byte".to_owned());
        }
        Ok(duration)
    }

    async fn expect_conflict(&self, draft: &Current, operation: &Operation) -> Result<(), String> {
        let outdated = self.update(draft, operation)?;
        match self.store.commit(&[outdated], operation).await {
            Err(StoreError::Conflict) => Ok(()),
            other => Err(format!(
                "conflict: a change to an old version was not refused: {}",
                outcome(&other)
            )),
        }
    }

    async fn expect_replay(&self, update: &Change, operation: &Operation) -> Result<(), String> {
        let commit = self.store.commit(from_ref(update), operation).await;
        let commit = commit.map_err(in_step("replay"))?;
        if sequence(&commit) == [Some(2)] && commit.replayed {
            return Ok(());
        }
        Err(format!(
            "replay: expected entry 2 of the first commit, found {:?}: {}",
            sequence(&commit),
            outcome(&Ok(commit))
        ))
    }

    async fn expect_mismatch(&self, update: &Change, other: &Operation) -> Result<(), String> {
        match self.store.commit(from_ref(update), other).await {
            Err(StoreError::IdempotencyMismatch) => Ok(()),
            result => Err(format!(
                "idempotency: another request with a used key was not refused: {}",
                outcome(&result)
            )),
        }
    }

    async fn check_log(&self) -> Result<(), String> {
        let query = AuditQuery::of(&self.key, 10);
        let page = self.store.audit_entries(&query).await;
        let entries = page.map_err(in_step("audit log"))?.entries;
        if entries.iter().map(StoredEntry::seq).eq([Some(2), Some(1)]) {
            return Ok(());
        }
        Err(format!(
            "audit log: expected entries 2 and 1, found {} entries",
            entries.len()
        ))
    }

    async fn check_counts(&self) -> Result<(), String> {
        let stats = self.store.audit_stats().await;
        let counted = stats.map_err(in_step("audit counters"))?.total;
        let query = ListQuery {
            limit: 10,
            ..ListQuery::default()
        };
        let page = self.store.list(self.key.kind, &query).await;
        let listed = page.map_err(in_step("index"))?.total;
        if (counted, listed) == (2, 1) {
            return Ok(());
        }
        Err(format!(
            "expected 2 counted entries and 1 listed document, found {counted} and {listed}"
        ))
    }
}

/// Two requests that use the same idempotency keys.
#[derive(Clone, Copy)]
enum Request {
    Original = 1,
    Other = 2,
}

fn operations(prefix: &str, request: Request) -> [Operation; 3] {
    [1, 2, 3].map(|number| {
        Operation::once(
            &format!("{prefix}{number}"),
            json!({ "smoke": request as u8 }),
        )
    })
}

/// Every key that the commits write.
pub(super) fn written_keys(prefix: &str) -> Vec<String> {
    let keys = Keys {
        prefix: prefix.to_owned(),
    };
    let document = document_key();
    let cache = keys.cache(document.kind);
    let mut written = vec![
        keys.document(&document),
        keys.latest(&document),
        keys.checksum(&document),
        format!("{cache}:{}", document.id),
        cache,
        keys.entries(),
        keys.stats(),
        keys.history(),
        keys.history_index(),
        keys.history_index_ends(),
        keys.history_index_lock(),
        keys.history_index_position(),
        keys.schema_version(),
    ];
    written.extend(["all", "published", "featured"].map(|index| keys.index(index, document.kind)));
    written.extend(["self-test", "unlabelled"].map(|name| keys.internal(name)));
    written.extend(
        operations(prefix, Request::Original)
            .iter()
            .map(|operation| keys.idempotency_record(operation)),
    );
    written
}

fn document_key() -> DocumentKey {
    let [kind, _] = Kind::ALL;
    DocumentKey::new(kind, "smoke")
}

fn document(status: &str) -> Map<String, Value> {
    let metadata = json!({ "status": status, "featured": status == "published" });
    Map::from_iter([
        ("id".to_owned(), json!("smoke")),
        ("empty".to_owned(), json!([])),
        ("metadata".to_owned(), metadata),
    ])
}

fn write_context(operation: &Operation, now: Timestamp) -> WriteContext {
    WriteContext {
        origin: Origin::new(Source::Admin),
        operation: operation.clone(),
        entry_id: Uuid::new_v4().to_string(),
        now,
    }
}

fn expect_applied(step: &str, commit: &Commit, seq: u64) -> Result<(), String> {
    if sequence(commit) == [Some(seq)] && !commit.replayed {
        return Ok(());
    }
    Err(format!(
        "{step}: expected entry {seq}, found {:?}, replayed: {}",
        sequence(commit),
        commit.replayed
    ))
}

fn sequence(commit: &Commit) -> Vec<Option<u64>> {
    commit.entries.iter().map(StoredEntry::seq).collect()
}

fn in_step(step: &'static str) -> impl Fn(StoreError) -> String {
    move |error| format!("{step}: {error}")
}

fn outcome(result: &Result<Commit, StoreError>) -> String {
    match result {
        Ok(commit) if commit.replayed => "it was answered as a repetition".to_owned(),
        Ok(_) => "it was applied".to_owned(),
        Err(error) => error.to_string(),
    }
}

//! Documents and audit entries for tests, and functions that store them.

use std::{
    fs,
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
};

use portfolio_mcp::{
    domain::{
        Change, Current, DocumentKey, Kind, ListQuery, Operation, Origin, Source, StoredEntry,
        Timestamp, Update, WriteContext,
    },
    store::{Commit, Repository, StoreError},
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

pub(crate) type Document = Map<String, Value>;

/// 2026-01-01T00:00:00Z, when the tests' clock begins.
const START: i64 = 1_767_225_600_000;

/// The tests' clock, which advances by a second with each call.
pub(crate) fn now() -> Timestamp {
    static SECONDS: AtomicI64 = AtomicI64::new(0);
    Timestamp::from_millis(START + 1000 * SECONDS.fetch_add(1, Ordering::Relaxed))
}

/// A string that no other call returns, in this process or another.
pub(crate) fn unique(name: &str) -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    format!(
        "{name}-{}-{}",
        std::process::id(),
        NUMBER.fetch_add(1, Ordering::Relaxed)
    )
}

pub(crate) fn project_key(id: &str) -> DocumentKey {
    DocumentKey::new(Kind::Project, id)
}

pub(crate) fn object(value: Value) -> Document {
    match value {
        Value::Object(members) => members,
        other => panic!("not an object: {other}"),
    }
}

/// A valid project.
pub(crate) fn project(id: &str) -> Document {
    object(json!({
        "id": id,
        "title": format!("The case of {id}"),
        "result": "Twice the bookings",
        "tags": ["web", "Café"],
        "image": "/images/a.png",
        "client": { "type": "Artisan", "size": "3 people", "objective": "More bookings" },
        "challenge": "Nobody found them",
        "solution": { "description": "A site", "tools": ["Astro"], "features": [], "screenshots": ["/images/b.png"] },
        "description": "What was done",
        "testimonial": { "text": "Merci !", "author": "Zoé", "avatar": "/images/z.png" },
        "results": ["+100 %"],
        "insight": { "title": "Less is more", "text": "Really" },
        "metadata": {
            "createdAt": "2025-01-01T00:00:00.000Z",
            "updatedAt": "2025-01-02T00:00:00.000Z",
            "featured": false,
            "status": "draft",
        },
    }))
}

/// A valid resource.
pub(crate) fn resource(id: &str) -> Document {
    object(json!({
        "id": id,
        "title": format!("The guide {id}"),
        "description": "A guide",
        "longDescription": "A long guide",
        "image": "/images/guide.png",
        "tags": ["pdf"],
        "price": "29€",
        "downloadLink": "https://example.com/guide.pdf",
        "gallery": [],
        "metadata": {
            "createdAt": "2025-01-01T00:00:00.000Z",
            "updatedAt": "2025-01-02T00:00:00.000Z",
            "featured": true,
            "status": "published",
        },
    }))
}

/// A valid document of either kind.
pub(crate) fn document(kind: Kind, id: &str) -> Document {
    match kind {
        Kind::Project => project(id),
        Kind::Resource => resource(id),
    }
}

/// The fields of a valid document of either kind, as a caller sends them to create it.
pub(crate) fn new_document(kind: Kind) -> Value {
    let mut fields = document(kind, "a");
    fields.shift_remove("id");
    fields.shift_remove("metadata");
    Value::Object(fields)
}

/// `document` with `patch` merged into it.
pub(crate) fn with(document: &Document, patch: Value) -> Document {
    portfolio_mcp::domain::patch::merge(document, &object(patch))
}

/// The documents of a folder of this repository, such as `tests/fixtures/published`, each with the
/// id to store it under.
pub(crate) fn folder(path: &str) -> Vec<(DocumentKey, Document)> {
    let read = |kind: Kind| {
        let file = format!(
            "{}/{path}/{}.json",
            env!("CARGO_MANIFEST_DIR"),
            kind.plural()
        );
        let documents: Vec<Document> =
            serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        documents
            .into_iter()
            .enumerate()
            .map(move |(index, document)| {
                let id = document
                    .get("id")
                    .and_then(Value::as_str)
                    .map_or_else(|| format!("nameless-{index}"), ToOwned::to_owned);
                (DocumentKey::new(kind, id), document)
            })
    };
    Kind::ALL.into_iter().flat_map(read).collect()
}

/// Entries of older programs, oldest first.
pub(crate) fn legacy_entries() -> Vec<StoredEntry> {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/legacy/audit.json"
    );
    let entries: Vec<Value> = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    entries
        .into_iter()
        .map(|entry| StoredEntry::parse(entry.to_string()))
        .collect()
}

/// An operation that is not repeated.
pub(crate) fn once() -> Operation {
    Operation::once(&unique("operation"), json!({}))
}

/// The context of a write that happens now.
pub(crate) fn write_context(operation: &Operation) -> WriteContext {
    WriteContext {
        origin: Origin::new(Source::Mcp),
        operation: operation.clone(),
        entry_id: Uuid::new_v4().to_string(),
        now: now(),
    }
}

pub(crate) fn creation(key: &DocumentKey, document: &Document) -> Change {
    let absent = Current::read(key.clone(), None, None::<&str>);
    Change::put(&absent, document, write_context(&once())).unwrap()
}

/// The change that `patch` makes to the stored document.
pub(crate) async fn change(repository: &dyn Repository, key: &DocumentKey, patch: Value) -> Change {
    change_for(repository, key, patch, &once()).await
}

/// The same for a given operation.
pub(crate) async fn change_for(
    repository: &dyn Repository,
    key: &DocumentKey,
    patch: Value,
    operation: &Operation,
) -> Change {
    let current = repository.get_for_update(key).await.unwrap();
    match Change::update(&current, &object(patch), &[], write_context(operation)) {
        Ok(Update::Change(change, _)) => *change,
        Ok(Update::Missing) => panic!("there is no {key}"),
        Ok(Update::Unchanged(_)) => panic!("the patch changes nothing"),
        Err(violations) => panic!("the patch is refused: {violations:?}"),
    }
}

/// Creates a document.
pub(crate) async fn create(
    repository: &dyn Repository,
    key: &DocumentKey,
    document: Document,
) -> Commit {
    repository
        .commit(&[creation(key, &document)], &once())
        .await
        .unwrap()
}

/// Creates a valid document of either kind.
pub(crate) async fn create_sound(repository: &dyn Repository, key: &DocumentKey) -> Commit {
    create(repository, key, document(key.kind, &key.id)).await
}

/// Updates the stored document.
pub(crate) async fn update(repository: &dyn Repository, key: &DocumentKey, patch: Value) -> Commit {
    try_update(repository, key, patch).await.unwrap()
}

pub(crate) async fn try_update(
    repository: &dyn Repository,
    key: &DocumentKey,
    patch: Value,
) -> Result<Commit, StoreError> {
    let change = change(repository, key, patch).await;
    repository.commit(&[change], &once()).await
}

/// The stored text of a document.
pub(crate) async fn stored(repository: &dyn Repository, key: &DocumentKey) -> Option<String> {
    repository
        .get(key)
        .await
        .unwrap()
        .record
        .map(|record| record.text().to_owned())
}

/// The ids of every document of a kind that can be read, sorted.
pub(crate) async fn ids_of(repository: &dyn Repository, kind: Kind) -> Vec<String> {
    try_ids(repository, kind).await.unwrap()
}

pub(crate) async fn try_ids(
    repository: &dyn Repository,
    kind: Kind,
) -> Result<Vec<String>, StoreError> {
    let query = ListQuery {
        limit: usize::MAX,
        ..ListQuery::default()
    };
    let page = repository.list(kind, &query).await?;
    let mut ids: Vec<String> = page
        .records
        .iter()
        .map(|record| record.key().id.clone())
        .collect();
    ids.sort_unstable();
    Ok(ids)
}

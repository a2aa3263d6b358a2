//! The proof that a store is sound: replaying the log from nothing gives everything else in it.

use std::collections::{BTreeMap, BTreeSet};

use portfolio_mcp::{
    domain::{
        AuditQuery, AuditStats, DocumentKey, Kind, ListQuery, StoredEntry,
        diff::{apply, revert},
        sha256_hex,
    },
    store::Repository,
};
use serde_json::Value;

use super::fixtures::{Document, ids_of};

/// The state of a store according to its log.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// Every entry, oldest first.
    pub(crate) entries: Vec<StoredEntry>,
    /// The number of the newest write; 0 if this program wrote nothing.
    pub(crate) seq: u64,
    /// Every document that this program wrote and did not delete.
    pub(crate) documents: BTreeMap<DocumentKey, State>,
    /// Every document that this program deleted, as an empty one.
    pub(crate) deleted: BTreeMap<DocumentKey, State>,
    /// The entries, counted.
    pub(crate) stats: AuditStats,
}

/// The state of one document according to the log.
#[derive(Debug)]
pub(crate) struct State {
    /// The document. If this program did not create it: the stored one, which the log must agree
    /// with.
    pub(crate) document: Document,
    /// Its newest entry.
    pub(crate) newest: StoredEntry,
    /// Whether the log has its creation.
    whole: bool,
}

impl Log {
    /// How many entries set `field` to each string.
    pub(crate) fn values_of(&self, field: &str) -> BTreeMap<String, usize> {
        let mut values = BTreeMap::new();
        for change in self
            .entries
            .iter()
            .flat_map(StoredEntry::changes)
            .filter(|change| change.field == field)
        {
            if let Some(Value::String(text)) = change.new_value {
                *values.entry(text).or_default() += 1;
            }
        }
        values
    }
}

/// Fails unless everything in the store follows from its log; gives the log.
pub(crate) async fn assert_sound(repository: &dyn Repository) -> Log {
    assert_sound_but(repository, &[]).await
}

/// The same for a store in which another program has changed the documents at `foreign`.
pub(crate) async fn assert_sound_but(repository: &dyn Repository, foreign: &[DocumentKey]) -> Log {
    let mut log = Log {
        entries: entries(repository, &AuditQuery::default()).await,
        ..Log::default()
    };
    let mut entry_ids = BTreeSet::new();
    for entry in &log.entries {
        log.stats.count(entry);
    }
    for entry in log.entries.iter().filter(|entry| entry.seq().is_some()) {
        log.seq += 1;
        assert_eq!(
            entry.seq(),
            Some(log.seq),
            "the numbers have no gap, and the log's order is theirs"
        );
        assert!(
            entry_ids.insert(entry.text_of("id").unwrap()),
            "two entries have the id of {}",
            entry.text()
        );
        let key = entry.key().unwrap();
        let before = log.documents.remove(&key).or(log.deleted.remove(&key));
        let after = replay(&key, before, entry, foreign, repository).await;
        let is_deleted = entry.json()["metadata"].get("versionAfter").is_none();
        let states = if is_deleted {
            &mut log.deleted
        } else {
            &mut log.documents
        };
        states.insert(key, after);
    }
    let times: Vec<_> = log
        .entries
        .iter()
        .filter(|entry| entry.seq().is_some())
        .map(StoredEntry::timestamp)
        .collect();
    assert!(times.is_sorted(), "the entries' times go back");

    for (key, state) in log
        .documents
        .iter()
        .filter(|(key, _)| !foreign.contains(key))
    {
        assert_stored(repository, key, state).await;
    }
    for (key, state) in log.deleted.iter().filter(|(key, _)| !foreign.contains(key)) {
        let current = repository.get_for_update(key).await.unwrap();
        assert!(current.record().is_none(), "{key} is there again");
        assert_eq!(current.latest_entry(), Some(state.newest.text()));
    }
    for kind in Kind::ALL {
        assert_listed(repository, kind, &log, foreign).await;
    }
    assert_eq!(
        repository.audit_stats().await.unwrap(),
        log.stats,
        "the statistics are those of the log"
    );
    log
}

/// The state of the document after one more entry.
async fn replay(
    key: &DocumentKey,
    before: Option<State>,
    entry: &StoredEntry,
    foreign: &[DocumentKey],
    repository: &dyn Repository,
) -> State {
    let metadata = &entry.json()["metadata"];
    let previous = before
        .as_ref()
        .map(|state| sha256_hex(state.newest.text().as_bytes()));
    assert_eq!(
        metadata["previous"].as_str(),
        previous.as_deref(),
        "`previous` is the hash of the entry before {}",
        entry.text()
    );
    let before = match before {
        Some(before) => {
            if !foreign.contains(key) {
                let after = before.newest.json()["metadata"].get("versionAfter");
                assert!(
                    metadata.get("versionBefore") == after || is_unexplained(entry),
                    "the versions of {key} are a chain: {}",
                    entry.text()
                );
            }
            before
        }
        None => State {
            document: first_state(key, entry, repository).await,
            newest: entry.clone(),
            whole: metadata.get("versionBefore").is_none(),
        },
    };
    check_action(entry);
    let is_adopted = entry.text_of("action") == Some("adopt");
    let state = if is_unexplained(entry) {
        State {
            document: apply(Document::new(), &entry.changes()),
            newest: entry.clone(),
            whole: true,
        }
    } else {
        State {
            document: apply(before.document, &entry.changes()),
            newest: entry.clone(),
            whole: before.whole,
        }
    };
    let Some(checksum) = metadata.get("checksum") else {
        assert_eq!(metadata.get("versionAfter"), None, "{}", entry.text());
        assert!(
            state.document.is_empty(),
            "{key} is gone after {}",
            entry.text()
        );
        return State {
            whole: true,
            ..state
        };
    };
    // What was found may be written in another way.
    if state.whole && !is_adopted && !foreign.contains(key) {
        let replayed = serde_json::to_string(&state.document).unwrap();
        assert_eq!(
            *checksum,
            sha256_hex(replayed.as_bytes()),
            "replaying gives the bytes of {key} after {}",
            entry.text()
        );
    }
    assert_eq!(
        metadata["versionAfter"].as_str(),
        checksum.as_str().unwrap().get(..16),
        "the version is the beginning of the checksum"
    );
    state
}

/// Whether an entry records a document whose state before is not known.
fn is_unexplained(entry: &StoredEntry) -> bool {
    let metadata = &entry.json()["metadata"];
    entry.text_of("action") == Some("adopt")
        && match metadata.get("versionAfter") {
            None => entry.changes().is_empty(),
            after => metadata.get("versionBefore") == after,
        }
}

/// What was there before the first entry: nothing, or a document that is older than the log, which
/// is computed back from the stored one.
async fn first_state(
    key: &DocumentKey,
    first: &StoredEntry,
    repository: &dyn Repository,
) -> Document {
    if first.json()["metadata"].get("versionBefore").is_none() {
        return Document::new();
    }
    let all = AuditQuery {
        kind: Some(key.kind),
        entity_id: Some(key.id.clone()),
        ..AuditQuery::default()
    };
    let stored = repository.get(key).await.unwrap();
    let stored = stored.record.map(|record| record.document().clone());
    let entries = entries(repository, &all).await;
    let ours = entries.iter().filter(|entry| entry.seq().is_some()).rev();
    ours.fold(stored.unwrap_or_default(), |document, entry| {
        revert(&document, &entry.changes())
    })
}

/// Fails unless an entry says what its action is.
fn check_action(entry: &StoredEntry) {
    let metadata = &entry.json()["metadata"];
    let (before, after) = (
        metadata.get("versionBefore").is_some(),
        metadata.get("versionAfter").is_some(),
    );
    let changes = entry.changes();
    let text = entry.text();
    match entry.text_of("action").unwrap() {
        "create" => {
            assert!(!before && after, "{text}");
            let added = changes.iter().all(|change| change.old_value.is_none());
            assert!(added, "nothing was before a creation: {text}");
        }
        "delete" => {
            assert!(before && !after, "{text}");
            let gone = changes.iter().all(|change| change.new_value.is_none());
            assert!(gone, "nothing is after a deletion: {text}");
        }
        "update" => {
            assert!(before && after, "{text}");
            assert!(!changes.is_empty(), "an entry without changes: {text}");
        }
        "revert" => {
            assert!(!changes.is_empty(), "an entry without changes: {text}");
            let reverts = metadata["reverts"].as_array();
            assert!(reverts.is_some_and(|ids| !ids.is_empty()), "{text}");
        }
        "adopt" => {
            assert_eq!(metadata["reason"], "found changed outside this server");
            assert_eq!(metadata.get("actor"), None, "{text}");
        }
        action => panic!("an entry of the action {action}"),
    }
}

/// Fails unless the stored document matches the log.
async fn assert_stored(repository: &dyn Repository, key: &DocumentKey, state: &State) {
    let current = repository.get_for_update(key).await.unwrap();
    let record = current.record().unwrap_or_else(|| panic!("{key} is gone"));
    if state.whole {
        let is_adopted = state.newest.text_of("action") == Some("adopt");
        assert_eq!(
            if is_adopted {
                record.compact()
            } else {
                record.text()
            },
            serde_json::to_string(&state.document).unwrap(),
            "{key} is what replaying gives"
        );
    } else {
        assert_eq!(
            record.document(),
            &state.document,
            "{key} is what its entries lead to"
        );
    }
    assert_eq!(
        state.newest.json()["metadata"]["checksum"],
        sha256_hex(record.text().as_bytes()),
        "the newest entry has the checksum of {key}"
    );
    assert_eq!(
        current.latest_entry(),
        Some(state.newest.text()),
        "{key} is read with its newest entry"
    );
}

/// Fails unless the lists have every document of the log once.
async fn assert_listed(
    repository: &dyn Repository,
    kind: Kind,
    log: &Log,
    foreign: &[DocumentKey],
) {
    let known = |id: &str| !foreign.contains(&DocumentKey::new(kind, id));
    let logged: BTreeSet<&str> = log
        .documents
        .keys()
        .filter(|key| key.kind == kind)
        .map(|key| key.id.as_str())
        .filter(|id| known(id))
        .collect();
    let ids = ids_of(repository, kind).await;
    let ids: BTreeSet<&str> = ids
        .iter()
        .map(String::as_str)
        .filter(|id| known(id))
        .collect();
    assert!(
        ids.is_superset(&logged),
        "ids without {:?}",
        logged.difference(&ids)
    );
    let is_deleted = |id: &&str| log.deleted.contains_key(&DocumentKey::new(kind, *id));
    let again: Vec<&&str> = ids.iter().filter(|id| is_deleted(id)).collect();
    assert!(again.is_empty(), "deleted and listed: {again:?}");

    let mut query = ListQuery {
        limit: 50,
        ..ListQuery::default()
    };
    let (mut listed, mut total) = (Vec::new(), 0);
    loop {
        let page = repository.list(kind, &query).await.unwrap();
        listed.extend(
            page.records
                .into_iter()
                .map(|record| record.key().id.clone()),
        );
        total = total.max(page.total);
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    let distinct: BTreeSet<&str> = listed
        .iter()
        .map(String::as_str)
        .filter(|id| known(id))
        .collect();
    assert_eq!(distinct, ids, "the list holds every {kind}");
    assert_eq!(total, listed.len(), "the list counts every {kind} once");
}

/// Every entry that matches `query`, oldest first, fetched in pages.
pub(crate) async fn entries(repository: &dyn Repository, query: &AuditQuery) -> Vec<StoredEntry> {
    let mut query = AuditQuery {
        limit: 500,
        ..query.clone()
    };
    let mut found = Vec::new();
    loop {
        let page = repository.audit_entries(&query).await.unwrap();
        found.extend(page.entries);
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    found.reverse();
    found
}

//! Which changes an undo is about, and how much one undo may do.

use std::collections::BTreeSet;

use futures::future::{join, join_all};
use portfolio_mcp::{
    domain::{AuditQuery, DocumentKey, StoredEntry, Timestamp},
    service::{ContentService, Error, Mode, Selection, UndoRequest, Undone},
};
use serde_json::{Value, json};

use super::service::{service_on, soon, undo_of, update_of};
use crate::support::{
    fixtures::{
        Document, create, creation, document, legacy_entries, now, once, project, project_key, with,
    },
    program::repository_path,
    soundness::entries,
    stores::{Store, on_each_store},
};

/// All changes from the beginning of the tests on that match.
fn matching(query: AuditQuery) -> Selection {
    Selection::Matching(Box::new(AuditQuery {
        since: Timestamp::parse("1990-01-01T00:00:00Z"),
        ..query
    }))
}

fn by(actor: &str) -> Selection {
    matching(AuditQuery {
        actor: Some(actor.to_owned()),
        ..AuditQuery::default()
    })
}

fn entry(id: &str) -> Selection {
    Selection::Entries(BTreeSet::from([id.to_owned()]))
}

async fn undo(service: &ContentService, selection: Selection) -> Undone {
    service.undo(undo_of(selection), soon()).await.unwrap()
}

async fn update(service: &ContentService, key: &DocumentKey, actor: &str, patch: Value) -> String {
    let updated = service.update(update_of(key, actor, patch), soon()).await;
    updated.unwrap().audit_id.unwrap()
}

async fn value(store: &Store, key: &DocumentKey, field: &str) -> Value {
    let found = store.repository.get(key).await.unwrap();
    found.record.unwrap().document()[field].clone()
}

async fn create_many(store: &Store, count: usize) -> Vec<DocumentKey> {
    let keys: Vec<DocumentKey> = (0..count)
        .map(|number| project_key(&format!("page-{number}")))
        .collect();
    for keys in keys.chunks(25) {
        let creations: Vec<_> = keys
            .iter()
            .map(|key| creation(key, &project(&key.id)))
            .collect();
        store.repository.commit(&creations, &once()).await.unwrap();
    }
    keys
}

#[tokio::test]
async fn all_that_one_actor_did_is_undone_in_one_transaction() {
    on_each_store(async |store| {
        let service = service_on(store);
        let keys = create_many(store, 2).await;
        update(&service, &keys[0], "AI", json!({ "result": "12" })).await;
        update(&service, &keys[0], "Marie", json!({ "result": "15" })).await;
        update(&service, &keys[0], "AI", json!({ "result": "20" })).await;
        update(
            &service,
            &keys[1],
            "AI",
            json!({ "title": "New", "result": "11" }),
        )
        .await;
        update(&service, &keys[1], "Marie", json!({ "result": "16" })).await;
        let before = entries(&*store.repository, &AuditQuery::default())
            .await
            .len();

        let request = UndoRequest {
            mode: Mode::DryRun,
            ..undo_of(by("AI"))
        };
        let shown = service.undo(request, soon()).await.unwrap();
        assert_eq!(value(store, &keys[0], "result").await, "20");
        let undone = undo(&service, by("AI")).await;

        assert_eq!(shown.counts, undone.counts);
        assert_eq!((undone.counts.undone, undone.counts.kept), (2, 1));
        assert_eq!(value(store, &keys[0], "result").await, "15");
        assert_eq!(value(store, &keys[1], "result").await, "16");
        assert_eq!(value(store, &keys[1], "title").await, "The case of page-1");
        let log = store.assert_sound().await;
        assert_eq!(log.entries.len(), before + 2);
        let [first, second] = &log.entries[before..] else {
            panic!("two entries")
        };
        assert_eq!(first.operation(), second.operation());
        let again = undo(&service, by("AI")).await;
        assert!(again.documents.is_empty());
        assert_eq!(store.assert_sound().await.entries.len(), before + 2);
    })
    .await;
}

#[tokio::test]
async fn an_import_undone_by_a_filter_deletes_nothing() {
    on_each_store(async |store| {
        store.import(&repository_path("examples/content"));
        let service = service_on(store);

        let undone = undo(&service, matching(AuditQuery::default())).await;

        assert!(undone.documents.is_empty() && undone.selected.is_empty());
        let log = store.assert_sound().await;
        assert_eq!(log.documents.len(), 6);
        let id = log.entries[0].text_of("id").unwrap();
        let kept = undo(&service, entry(id)).await;
        assert!(kept.documents.is_empty());
        assert!(kept.kept[0].1.is_creation);
    })
    .await;
}

#[tokio::test]
async fn entries_of_older_programs_are_never_written_into_a_page() {
    on_each_store(async |store| {
        let service = service_on(store);
        let foreign = legacy_entries();
        store.history.import_entries(&foreign, now()).await.unwrap();
        for key in foreign.iter().filter_map(StoredEntry::key) {
            if store.repository.get(&key).await.unwrap().record.is_none() {
                let document = document(key.kind, &key.id);
                create(&*store.repository, &key, document).await;
            }
        }
        let api = matching(AuditQuery {
            source: Some("api".to_owned()),
            ..AuditQuery::default()
        });

        let undone = undo(&service, api).await;

        assert!(undone.documents.is_empty() && undone.selected.is_empty());
        assert!(undone.unexplained > 0);
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn what_was_changed_outside_is_recorded_first_and_stays() {
    on_each_store(async |store| {
        let service = service_on(store);
        let key = create_many(store, 1).await.remove(0);
        let change = update(&service, &key, "AI", json!({ "title": "By the AI" })).await;
        let found = store.repository.get(&key).await.unwrap();
        let mut outside: Document = found.record.unwrap().document().clone();
        outside.insert("challenge".to_owned(), json!("From outside"));
        store.edit(&key, Some(&Value::Object(outside).to_string()));

        let request = UndoRequest {
            mode: Mode::DryRun,
            ..undo_of(entry(&change))
        };
        let shown = service.undo(request, soon()).await.unwrap();
        let undone = undo(&service, entry(&change)).await;

        assert_eq!(
            shown.documents[0].changes[0],
            undone.documents[0].changes[0]
        );
        assert!(undone.changed_outside.contains_key(&key));
        assert_eq!(value(store, &key, "title").await, "The case of page-0");
        assert_eq!(value(store, &key, "challenge").await, "From outside");
        let log = store.assert_sound().await;
        let actions = log
            .entries
            .iter()
            .filter_map(|entry| entry.text_of("action"));
        let actions: Vec<&str> = actions.collect();
        assert_eq!(actions, ["create", "update", "adopt", "revert"]);
    })
    .await;
}

#[tokio::test]
async fn a_document_that_was_deleted_outside_stays_away() {
    on_each_store(async |store| {
        let service = service_on(store);
        let key = create_many(store, 1).await.remove(0);
        let change = update(&service, &key, "AI", json!({ "title": "By the AI" })).await;
        store.edit(&key, None);

        let undone = undo(&service, entry(&change)).await;

        assert!(undone.documents.is_empty());
        assert_eq!(undone.counts.kept, 1);
        assert!(store.repository.get(&key).await.unwrap().record.is_none());
        store.assert_sound_but(&[key]).await;
    })
    .await;
}

#[tokio::test]
async fn too_much_is_refused_with_a_way_to_narrow_it() {
    let store = Store::sqlite();
    let service = service_on(&store);
    let keys = create_many(&store, 210).await;
    let message = async |selection: Selection| match service.undo(undo_of(selection), soon()).await
    {
        Err(Error::Invalid(violations)) => violations[0].to_string(),
        other => panic!("{other:?}"),
    };
    let everything = message(matching(AuditQuery::default())).await;
    assert!(everything.contains("200 documents"), "{everything}");
    let long = "x".repeat(100_000);
    for key in keys.iter().take(100) {
        update(&service, key, "AI", json!({ "challenge": long })).await;
    }

    let large = message(by("AI")).await;

    assert!(
        large.contains("bytes of documents") && large.contains("in parts"),
        "{large}"
    );
    for key in keys.iter().take(50) {
        update(&service, key, "AI", json!({ "challenge": "short" })).await;
    }
    let undone = undo(&service, by("AI")).await;
    assert_eq!(undone.counts.undone, 100);
    store.assert_sound().await;
}

#[tokio::test]
async fn an_undo_wins_against_other_writers() {
    on_each_store(async |store| {
        let service = service_on(store);
        let key = create_many(store, 1).await.remove(0);
        let change = update(&service, &key, "AI", json!({ "title": "By the AI" })).await;
        let writers = (0..4).map(async |writer: usize| {
            // As another process, which does not wait in this one's queue.
            let service = service_on(store);
            for number in 0..10 {
                let patch = json!({ "challenge": format!("{writer} {number}") });
                update(&service, &project_key("page-0"), "Marie", patch).await;
            }
        });

        join(undo(&service, entry(&change)), join_all(writers)).await;

        assert_eq!(value(store, &key, "title").await, "The case of page-0");
        assert_eq!(store.assert_sound().await.entries.len(), 43);
    })
    .await;
}

#[tokio::test]
async fn many_undos_at_once_undo_everything_once() {
    on_each_store(async |store| {
        let service = service_on(store);
        let keys = create_many(store, 5).await;
        let mut changes = Vec::new();
        for key in &keys {
            for field in ["title", "result", "challenge"] {
                changes.push(update(&service, key, "AI", json!({ field: "By the AI" })).await);
            }
        }
        let undos = changes.chunks(2).map(async |ids| {
            let service = service_on(store);
            let ids = Selection::Entries(ids.iter().cloned().collect());
            undo(&service, ids).await.counts.undone
        });

        let undone: usize = join_all(undos).await.into_iter().sum();

        assert_eq!(undone, 15);
        for key in &keys {
            assert_eq!(value(store, key, "result").await, "Twice the bookings");
        }
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn a_field_that_was_changed_outside_stays_and_names_nobody() {
    on_each_store(async |store| {
        let service = service_on(store);
        let key = create_many(store, 1).await.remove(0);
        let id = update(&service, &key, "AI", json!({ "result": "12" })).await;
        let found = store.repository.get(&key).await.unwrap();
        let mut outside: Document = found.record.unwrap().document().clone();
        outside.insert("result".to_owned(), json!("From outside"));
        store.edit(&key, Some(&Value::Object(outside).to_string()));

        let undone = undo(&service, entry(&id)).await;

        let (_, kept) = &undone.kept[0];
        assert_eq!(kept.field, "result");
        assert_eq!((&kept.actor, &kept.client_id), (&None, &None));
        assert_eq!((&kept.audit_id, &kept.timestamp), (&None, &None));
        assert_eq!(value(store, &key, "result").await, "From outside");
    })
    .await;
}

#[tokio::test]
async fn what_was_shown_names_the_version_of_every_document() {
    on_each_store(async |store| {
        let service = service_on(store);
        let keys = create_many(store, 2).await;
        let kept = update(&service, &keys[0], "AI", json!({ "result": "12" })).await;
        let marie = update(&service, &keys[0], "Marie", json!({ "result": "15" })).await;
        let gone = update(&service, &keys[1], "AI", json!({ "result": "11" })).await;
        let selection = Selection::Entries(BTreeSet::from([kept, gone]));
        let request = UndoRequest {
            mode: Mode::DryRun,
            ..undo_of(selection.clone())
        };
        let shown = service.undo(request, soon()).await.unwrap();
        assert_eq!(shown.documents.len(), 1);

        undo(&service, entry(&marie)).await;
        let request = UndoRequest {
            expected_versions: shown.versions,
            ..undo_of(selection)
        };
        let undone = service.undo(request, soon()).await;

        assert!(
            matches!(undone, Err(Error::Conflict { .. })),
            "the field that was shown to stay would go back: {undone:?}"
        );
        assert_eq!(value(store, &keys[1], "result").await, "11");
        store.assert_sound().await;
    })
    .await;
}

/// An entry of an older program, which does not say between which versions it is.
fn older_entry(id: &str, about: Value) -> StoredEntry {
    let entry = json!({
        "id": id, "timestamp": "2024-01-01T00:00:00.000Z", "action": "update", "source": "api",
        "changes": [{ "field": "title", "oldValue": "Old", "newValue": "New" }],
    });
    StoredEntry::parse(Value::Object(with(entry.as_object().unwrap(), about)).to_string())
}

#[tokio::test]
async fn what_cannot_be_undone_says_what_can_be_done_instead() {
    on_each_store(async |store| {
        let service = service_on(store);
        create_many(store, 1).await;
        let of = |id: &str| json!({ "entityType": "project", "entityId": id });
        let older = [
            older_entry("there", of("page-0")),
            older_entry("gone", of("page-1")),
            older_entry("nameless", json!({})),
        ];
        store.history.import_entries(&older, now()).await.unwrap();
        let message = async |id: &str| match service.undo(undo_of(entry(id)), soon()).await {
            Err(Error::Invalid(violations)) => violations[0].to_string(),
            other => panic!("{other:?}"),
        };

        let there = message("there").await;
        assert!(
            there.contains("set the old values with an update"),
            "{there}"
        );
        let gone = message("gone").await;
        assert!(gone.contains("there is no project `page-1` now"), "{gone}");
        assert!(!gone.contains("with an update"), "{gone}");
        let nameless = message("nameless").await;
        assert!(nameless.contains("it names no document"), "{nameless}");
        store.assert_sound().await;
    })
    .await;
}

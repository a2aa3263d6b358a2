//! Undos that others race against, and whose answers are lost.

use std::collections::BTreeSet;

use portfolio_mcp::{
    domain::DocumentKey,
    service::{ContentService, Error, Selection, UndoRequest, Undone},
    store::{Location, StoreError, open},
};
use serde_json::json;

use super::service::{service_on, soon, undo_of, update_of};
use crate::support::{
    contested::{Contested, Event},
    fixtures::{create_sound, now, project_key},
    proxy::{Mode, Proxy},
    soundness::Log,
    stores::{Store, on_each_store},
};

/// How often the races of these tests are lost.
const RACES: usize = 5;

/// Documents that one client has changed, and a request to undo all of it.
async fn changed_documents(store: &Store, count: usize) -> (Vec<DocumentKey>, UndoRequest) {
    let service = service_on(store);
    let (mut keys, mut ids) = (Vec::new(), BTreeSet::new());
    for number in 0..count {
        let key = project_key(&format!("page-{number}"));
        create_sound(&*store.repository, &key).await;
        let patch = json!({ "title": "By the AI" });
        let updated = service.update(update_of(&key, "AI", patch), soon()).await;
        ids.extend(updated.unwrap().audit_id);
        keys.push(key);
    }
    (keys, undo_of(Selection::Entries(ids)))
}

async fn title(service: &ContentService, key: &DocumentKey) -> String {
    let current = service.get_for_update(key).await.unwrap();
    let title = &current.record().unwrap().document()["title"];
    title.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn after_a_lost_race_only_the_documents_that_changed_are_planned_again() {
    on_each_store(async |store| {
        let (keys, request) = changed_documents(store, 20).await;
        let busy = &keys[7];
        let races = vec![Event::Race(busy.clone()); RACES];
        let contested = Contested::new(store, races);
        let service = contested.service(store);

        let undone = service.undo(request, soon()).await.unwrap();

        assert_eq!(undone.counts.undone, keys.len());
        assert_eq!(contested.events_left(), 0);
        assert_eq!(contested.histories(busy), 1 + RACES);
        for key in keys.iter().filter(|key| *key != busy) {
            assert_eq!(contested.histories(key), 1, "{key}");
            assert!(
                contested.reads(key) <= 2,
                "{key}: planned, and compared once"
            );
        }
        for key in &keys {
            assert!(
                title(&service, key).await.starts_with("The case of"),
                "{key}"
            );
        }
        let log = store.assert_sound().await;
        assert_eq!(log.entries.len(), 3 * keys.len() + RACES);
    })
    .await;
}

#[tokio::test]
async fn one_document_after_another_may_be_changed_meanwhile() {
    on_each_store(async |store| {
        let (keys, request) = changed_documents(store, RACES).await;
        let contested = Contested::new(store, keys.iter().cloned().map(Event::Race));
        let service = contested.service(store);

        let undone = service.undo(request, soon()).await.unwrap();

        assert_eq!(undone.counts.undone, keys.len());
        assert_eq!(contested.events_left(), 0);
        for key in &keys {
            assert_eq!(contested.histories(key), 2, "{key}");
        }
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn an_undo_that_loses_every_race_is_a_conflict() {
    let store = Store::sqlite();
    let (keys, request) = changed_documents(&store, 1).await;
    let [key] = &keys[..] else {
        panic!("one document")
    };
    let races = [Event::Race(key.clone()), Event::LastRace(key.clone())];
    let contested = Contested::new(&store, races);
    let service = contested.service(&store);

    let undone = service.undo(request, soon()).await;
    tokio::time::resume();

    assert_eq!(contested.events_left(), 0);
    assert!(
        matches!(&undone, Err(Error::Conflict { key: of, .. }) if of == key),
        "{undone:?}"
    );
    assert_eq!(title(&service, key).await, "By the AI");
    store.assert_sound().await;
}

#[tokio::test]
async fn an_unknown_outcome_after_a_lost_race_stays_unknown() {
    let store = Store::sqlite();
    let (keys, request) = changed_documents(&store, 1).await;
    let lost = StoreError::OutcomeUnknown("the reply was lost".to_owned());
    let events = [Event::Race(keys[0].clone()), Event::FailsLate(lost)];
    let contested = Contested::new(&store, events);
    let service = contested.service(&store);

    let undone = service.undo(request, soon()).await;
    tokio::time::resume();

    assert_eq!(contested.events_left(), 0);
    assert!(
        matches!(undone, Err(Error::OutcomeUnknown { .. })),
        "{undone:?}"
    );
    assert_eq!(title(&service, &keys[0]).await, "The case of page-0");
    store.assert_sound().await;
}

#[tokio::test]
async fn a_repeated_undo_settles_an_unknown_outcome() {
    on_each_store(async |store| {
        let (keys, request) = changed_documents(store, 2).await;
        let request = UndoRequest {
            idempotency_key: Some("once".to_owned()),
            ..request
        };
        let lost = StoreError::OutcomeUnknown("the reply was lost".to_owned());
        let contested = Contested::new(store, [Event::Fails(lost)]);
        let service = contested.service(store);

        let first = service.undo(request.clone(), soon()).await;
        let again = service.undo(request, soon()).await.unwrap();

        assert!(
            matches!(first, Err(Error::OutcomeUnknown { .. })),
            "{first:?}"
        );
        assert!(again.replayed);
        let log = store.assert_sound().await;
        assert_eq!(ids_of(&again), newest_ids(&log, keys.len()));
    })
    .await;
}

/// The reply to the commit is cut off: the store sends the commit again, and learns what was written.
#[tokio::test]
async fn an_undo_whose_reply_was_lost_is_answered_with_what_was_written() {
    for idempotency_key in [None, Some("once".to_owned())] {
        let store = Store::redis();
        let (keys, request) = changed_documents(&store, 3).await;
        let request = UndoRequest {
            idempotency_key,
            ..request
        };
        let mut proxy = Proxy::start(store.server().port()).await;
        let location = Location::Redis {
            write: Some(proxy.redis_url()),
            read: None,
            key_prefix: String::new(),
        };
        let service = ContentService::new(open(&location).unwrap(), now);

        proxy.set(Mode::CutReply).await;
        let undone = service.undo(request.clone(), soon()).await.unwrap();
        let again = service.undo(request.clone(), soon()).await.unwrap();

        assert_eq!(proxy.cuts(), 1);
        assert!(!undone.replayed, "the caller asked once");
        assert_eq!(undone.counts.undone, keys.len());
        let log = store.assert_sound().await;
        assert_eq!(log.entries.len(), 3 * keys.len());
        let written = newest_ids(&log, keys.len());
        assert_eq!(ids_of(&undone), written);
        match request.idempotency_key {
            Some(_) => assert_eq!((again.replayed, ids_of(&again)), (true, written)),
            None => assert_eq!(again.documents.len(), 0, "nothing is left to undo"),
        }
    }
}

/// The audit ids that an answer names.
fn ids_of(undone: &Undone) -> BTreeSet<String> {
    let documents = undone.documents.iter();
    documents.filter_map(|it| it.audit_id.clone()).collect()
}

/// The audit ids of the newest entries.
fn newest_ids(log: &Log, count: usize) -> BTreeSet<String> {
    let newest = log.entries.iter().rev().take(count);
    let ids = newest.map(|entry| entry.text_of("id").unwrap().to_owned());
    ids.collect()
}

//! How much of the log is looked through where no index finds the entries of a document: with a
//! credential that may only read.

use portfolio_mcp::{
    domain::{PointInTime, StoredEntry, Timestamp},
    service::{ContentService, Error},
    store::{self, Location},
};
use redis::cmd;
use serde_json::json;

use crate::{
    support::{
        fixtures::{create_sound, now, project_key},
        stores::Store,
    },
    undo::service::soon,
};

/// More than any call may look through, and more than fit between a point and the present.
const ENTRIES: i64 = 31_000;

/// The service on a store that it may only read.
fn reading_service_on(store: &Store) -> ContentService {
    let rules = ["~*", "+@read", "+@connection", "+info", "-@write"];
    let location = Location::Redis {
        write: None,
        read: Some(store.server().user("reader", &rules)),
        key_prefix: String::new(),
    };
    let parts = store::Store {
        snapshot: None,
        ..store::open(&location).unwrap()
    };
    ContentService::new(parts, now)
}

/// Adds entries of another document, all newer than what is in the log.
fn add_foreign_entries(store: &Store, newest: &StoredEntry) -> Timestamp {
    let newest = newest.timestamp().unwrap().millis();
    for first in (1..=ENTRIES).step_by(1000) {
        let mut command = cmd("ZADD");
        command.arg(store.key("audit:entries"));
        for number in first..first + 1000 {
            let entry = json!({
                "id": format!("old-{number}"), "action": "update", "entityType": "projects",
                "entityId": "other", "changes": { "title": "Foreign" },
            });
            command.arg(newest + number).arg(entry.to_string());
        }
        let added: i64 = store.server().run(&command);
        assert_eq!(added, 1000);
    }
    Timestamp::from_millis(newest)
}

#[tokio::test]
async fn blame_stops_where_a_call_has_looked_through_enough() {
    let store = Store::redis();
    let created = create_sound(&*store.repository, &project_key("a")).await;
    store.assert_sound().await;
    let oldest = add_foreign_entries(&store, &created.entries[0]);
    let service = reading_service_on(&store);

    let blame = service.blame(&project_key("a"), None, soon()).await;
    let blame = blame.unwrap();

    let searched_since = blame.searched_since.expect("it was not looked at all");
    assert!(searched_since > oldest, "{searched_since}");
    assert!(!blame.fields.is_empty());
    assert!(blame.fields.iter().all(|field| field.entry.is_none()));
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Invalid(violations)) => violations[0].to_string(),
        other => panic!("expected a refusal: {other:?}"),
    }
}

#[tokio::test]
async fn a_document_goes_back_over_20_000_entries_of_others_at_most() {
    let store = Store::redis();
    create_sound(&*store.repository, &project_key("a")).await;
    let last = create_sound(&*store.repository, &project_key("b")).await;
    store.assert_sound().await;
    let time = add_foreign_entries(&store, &last.entries[0]);
    let service = reading_service_on(&store);
    let at = async |millis: i64| {
        let point = PointInTime::Time(Timestamp::from_millis(millis));
        service.log_point(&point, "asOf", soon()).await.unwrap()
    };
    let before = at(time.millis()).await;
    let afterwards = at(time.millis() + ENTRIES - 1).await;

    let far = service.get_as_of(project_key("b"), &before, soon()).await;
    let near = service
        .get_as_of(project_key("a"), &afterwards, soon())
        .await;

    for refused in [refusal(far), refusal(near)] {
        assert!(refused.contains("asOf: "), "{refused}");
        assert!(refused.contains("more than 20000 entries"), "{refused}");
    }
}

#[tokio::test]
async fn an_audit_id_is_looked_for_among_20_000_entries_at_most() {
    let store = Store::redis();
    let created = create_sound(&*store.repository, &project_key("a")).await;
    store.assert_sound().await;
    add_foreign_entries(&store, &created.entries[0]);
    let service = reading_service_on(&store);
    let id = created.entries[0].text_of("id").unwrap().to_owned();

    let point = service
        .log_point(&PointInTime::Entry(id), "asOf", soon())
        .await;

    let refused = refusal(point);
    assert!(refused.contains("looks through 20000 entries"), "{refused}");
}

//! What the log does not explain is said and never guessed: entries of other programs, edits outside,
//! entries that are missing, and what was before the log begins.

use std::time::Duration;

use portfolio_mcp::{
    clock,
    deadline::Deadline,
    domain::{
        DocumentKey, HistoryGap, Kind, ListQuery, PointInTime, Record, StoredEntry, Timestamp,
    },
    service::{ContentService, Error, LogPoint, PastPage},
    store::Commit,
};
use redis::cmd;
use serde_json::{Value, json};

use crate::{
    support::{
        fixtures::{
            Document, create, create_sound, document, now, project, project_key, update, with,
        },
        stores::{Store, on_each_store},
        wait_until,
    },
    undo::service::{service_on, update_of},
};

fn soon() -> Deadline {
    Deadline::after(Duration::from_mins(1))
}

fn id_of(commit: &Commit) -> String {
    commit.entries[0].text_of("id").unwrap().to_owned()
}

fn time_of(commit: &Commit) -> Timestamp {
    commit.entries[0].timestamp().unwrap()
}

async fn after(service: &ContentService, commit: &Commit) -> LogPoint {
    at(service, PointInTime::Entry(id_of(commit))).await
}

async fn at(service: &ContentService, point: PointInTime) -> LogPoint {
    service.log_point(&point, "asOf", soon()).await.unwrap()
}

async fn list(service: &ContentService, point: &LogPoint) -> PastPage {
    let query = ListQuery {
        limit: 100,
        ..ListQuery::default()
    };
    let page = service.list_as_of(Kind::Project, &query, point, soon());
    page.await.unwrap()
}

/// What a document was, by itself and in the list; both have to agree.
async fn state(
    service: &ContentService,
    key: &DocumentKey,
    point: &LogPoint,
) -> Result<Document, Option<HistoryGap>> {
    let alone = service.get_as_of(key.clone(), point, soon()).await;
    let page = list(service, point).await;
    let listed = page.page.records.iter().find(|it| it.key() == key);
    let gap = page.unexplained.iter().find(|(of, _)| of == key);
    let document = |record: &Record| record.document().clone();
    match alone {
        Ok(record) => {
            assert_eq!(listed.map(document), Some(document(&record)), "{key}");
            Ok(document(&record))
        }
        Err(Error::NotThen { gap: alone, .. }) => {
            assert!(listed.is_none(), "{key}");
            let known_from = |gap: HistoryGap| gap.known_from;
            let listed = gap.map(|(_, gap)| known_from(*gap));
            assert_eq!(listed, alone.map(known_from), "{key}");
            Err(alone)
        }
        Err(Error::NotFound { .. }) => {
            assert!(listed.is_none() && gap.is_none(), "{key}");
            Err(None)
        }
        Err(error) => panic!("{error}"),
    }
}

fn known_from(time: Timestamp) -> HistoryGap {
    HistoryGap {
        known_from: Some(time),
        changed_outside: None,
    }
}

fn without_times(mut document: Document) -> Document {
    document.shift_remove("metadata");
    document
}

/// An entry as an older program may have written it.
fn foreign_entry(id: &str, time: Timestamp, document: &str) -> StoredEntry {
    let entry = json!({
        "id": id, "timestamp": time.to_string(), "action": "update", "entityType": "projects",
        "entityId": document, "source": "api", "changes": { "title": "Foreign" },
    });
    StoredEntry::parse(entry.to_string())
}

/// Takes an entry out of the log, as a damaged backup may lack it.
fn remove_entry(store: &Store, commit: &Commit) {
    let text = commit.entries[0].text();
    if store.is_redis() {
        let key = store.key("audit:entries");
        let removed: u64 = store.server().run(cmd("ZREM").arg(key).arg(text));
        assert_eq!(removed, 1);
    } else {
        let file = rusqlite::Connection::open(store.file()).unwrap();
        let removed = file.execute("DELETE FROM entries WHERE text = ?", [text]);
        assert_eq!(removed.unwrap(), 1);
    }
}

#[tokio::test]
async fn what_was_created_since_is_not_there_and_what_was_deleted_since_is() {
    on_each_store(async |store: &Store| {
        let (repository, service) = (&*store.repository, service_on(store));
        let (a, b) = (project_key("a"), project_key("b"));
        let first = create_sound(repository, &a).await;
        let second = create_sound(repository, &b).await;
        let current = repository.get_for_update(&a).await.unwrap();
        let operation = crate::support::fixtures::once();
        let context = crate::support::fixtures::write_context(&operation);
        let deletion = portfolio_mcp::domain::Change::delete(&current, context).unwrap();
        repository.commit(&[deletion], &operation).await.unwrap();

        let [first, second] = [
            after(&service, &first).await,
            after(&service, &second).await,
        ];
        let now = service.newest_point("asOf", soon()).await.unwrap();

        assert_eq!(state(&service, &a, &first).await, Ok(project("a")));
        assert_eq!(state(&service, &b, &first).await, Err(None));
        assert_eq!(state(&service, &a, &second).await, Ok(project("a")));
        assert_eq!(state(&service, &b, &second).await, Ok(project("b")));
        assert_eq!(state(&service, &a, &now).await, Err(None));
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn before_an_entry_of_another_program_nothing_is_known() {
    on_each_store(async |store: &Store| {
        let (repository, service) = (&*store.repository, service_on(store));
        let (a, b) = (project_key("a"), project_key("b"));
        let first = create_sound(repository, &a).await;
        let second = create_sound(repository, &b).await;
        let foreign = Timestamp::from_millis(time_of(&second).millis() + 1);
        wait_until("it is in the past", || (clock() > foreign).then_some(()));
        let last = update(repository, &a, json!({ "title": "New" })).await;
        let entries = [foreign_entry("foreign", foreign, "a")];
        store
            .history
            .import_entries(&entries, clock())
            .await
            .unwrap();

        let before = after(&service, &first).await;
        let between = at(&service, PointInTime::Entry("foreign".to_owned())).await;
        let afterwards = after(&service, &last).await;

        assert_eq!(
            state(&service, &a, &before).await,
            Err(Some(known_from(foreign)))
        );
        assert_eq!(state(&service, &b, &before).await, Err(None));
        let then = state(&service, &a, &between).await.unwrap();
        assert_eq!(then["title"], "The case of a");
        let then = state(&service, &a, &afterwards).await.unwrap();
        assert_eq!(then["title"], "New");
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn an_edit_by_hand_is_nowhere_in_the_past_until_it_is_recorded() {
    on_each_store(async |store: &Store| {
        let (repository, service) = (&*store.repository, service_on(store));
        let key = project_key("a");
        let first = create_sound(repository, &key).await;
        let edited = with(&project("a"), json!({ "title": "By hand" }));
        store.edit(&key, Some(&Value::Object(edited.clone()).to_string()));
        let point = after(&service, &first).await;

        let unrecorded = state(&service, &key, &point).await;
        let update = update_of(&key, "lise", json!({ "result": "More" }));
        let updated = service.update(update, soon()).await.unwrap();
        let recorded = state(&service, &key, &point).await;

        let gap = unrecorded.unwrap_err().unwrap();
        assert_eq!(gap.changed_outside, Some(time_of(&first)));
        assert_eq!(recorded, Ok(project("a")));
        let last = PointInTime::Entry(updated.audit_id.unwrap());
        let last = at(&service, last).await;
        let then = state(&service, &key, &last).await.unwrap();
        assert_eq!(
            (&then["title"], &then["result"]),
            (&json!("By hand"), &json!("More"))
        );
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn an_edit_that_was_never_recorded_hides_what_was_before() {
    on_each_store(async |store: &Store| {
        let (repository, service) = (&*store.repository, service_on(store));
        let key = project_key("a");
        let first = create_sound(repository, &key).await;
        let edited = with(&project("a"), json!({ "title": "By hand" }));
        store.edit(&key, Some(&Value::Object(edited).to_string()));
        // As version 0.1.0 does it: without recording what it found.
        let last = update(repository, &key, json!({ "result": "More" })).await;

        let before = after(&service, &first).await;
        let afterwards = after(&service, &last).await;

        assert_eq!(
            state(&service, &key, &before).await,
            Err(Some(known_from(time_of(&last))))
        );
        let then = state(&service, &key, &afterwards).await.unwrap();
        assert_eq!(then["title"], "By hand");
    })
    .await;
}

#[tokio::test]
async fn where_entries_are_missing_nothing_is_guessed() {
    on_each_store(async |store: &Store| {
        let (repository, service) = (&*store.repository, service_on(store));
        let [a, b, c] = ["a", "b", "c"].map(project_key);
        create_sound(repository, &a).await;
        create_sound(repository, &b).await;
        let third = create_sound(repository, &c).await;
        let missing = [
            update(repository, &a, json!({ "title": "Lost" })).await,
            update(repository, &b, json!({ "title": "Lost" })).await,
        ];
        let last = update(repository, &a, json!({ "title": "Last" })).await;
        for commit in &missing {
            remove_entry(store, commit);
        }

        let point = after(&service, &third).await;

        let gap = Some(known_from(time_of(&last)));
        assert_eq!(state(&service, &a, &point).await, Err(gap));
        let of_b = state(&service, &b, &point).await.unwrap_err().unwrap();
        assert_eq!(of_b.known_from, None);
        assert_eq!(state(&service, &c, &point).await, Ok(project("c")));
    })
    .await;
}

#[tokio::test]
async fn before_the_log_begins_only_a_whole_log_says_what_was_not_there() {
    on_each_store(async |store: &Store| {
        let (repository, service) = (&*store.repository, service_on(store));
        let early = now();
        let [a, b] = ["a", "b"].map(project_key);
        let first = create_sound(repository, &a).await;
        let second = create_sound(repository, &b).await;
        let point = at(&service, PointInTime::Time(early)).await;

        let whole = [
            state(&service, &a, &point).await,
            state(&service, &b, &point).await,
        ];
        remove_entry(store, &first);
        let point = at(&service, PointInTime::Time(early)).await;
        let capped = state(&service, &b, &point).await;

        assert_eq!(whole, [Err(None), Err(None)]);
        assert_eq!(capped, Err(Some(known_from(time_of(&second)))));
        assert!(point.entry().is_none());
    })
    .await;
}

#[tokio::test]
async fn a_log_of_older_programs_explains_nothing_before_it_ends() {
    on_each_store(async |store: &Store| {
        let service = service_on(store);
        let key = project_key("a");
        let first = create_sound(&*store.repository, &project_key("first")).await;
        let first = time_of(&first).millis();
        let [early, late] = [1, 2].map(|more| Timestamp::from_millis(first + more));
        store.put(
            Kind::Project,
            "a",
            Value::Object(project("a")).to_string().as_bytes(),
        );
        let entries = [
            foreign_entry("old-1", early, "a"),
            foreign_entry("old-2", late, "a"),
        ];
        wait_until("they are in the past", || (clock() > late).then_some(()));
        store
            .history
            .import_entries(&entries, clock())
            .await
            .unwrap();

        let before = at(&service, PointInTime::Entry("old-1".to_owned())).await;
        let afterwards = at(&service, PointInTime::Time(late)).await;

        assert_eq!(
            state(&service, &key, &before).await,
            Err(Some(known_from(late)))
        );
        assert_eq!(state(&service, &key, &afterwards).await, Ok(project("a")));
    })
    .await;
}

#[tokio::test]
async fn a_removed_field_comes_back_and_numbers_keep_their_digits() {
    on_each_store(async |store: &Store| {
        let (repository, service) = (&*store.repository, service_on(store));
        let key = project_key("a");
        let extra: Value = serde_json::from_str(
            r#"{ "rating": 4.50, "big": 12345678901234567890123, "solution": { "videoUrl": "/v.mp4" } }"#,
        )
        .unwrap();
        let first = create(repository, &key, with(&project("a"), extra)).await;
        let stored = repository.get(&key).await.unwrap().record.unwrap();
        update(repository, &key, json!({ "solution": { "videoUrl": null } })).await;

        let point = after(&service, &first).await;
        let then = service.get_as_of(key, &point, soon()).await.unwrap();

        assert_eq!(then.json(), stored.json());
        assert_eq!(then.version(), stored.version());
        assert!(then.compact().contains("4.50"), "{}", then.compact());
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn more_than_20_000_entries_are_not_gone_back_over() {
    let store = Store::sqlite();
    let service = service_on(&store);
    let first = create_sound(&*store.repository, &project_key("a")).await;
    let time = now();
    let entries: Vec<StoredEntry> = (0..20_001)
        .map(|number| foreign_entry(&format!("e{number}"), time, "other"))
        .collect();
    store.history.import_entries(&entries, now()).await.unwrap();
    let point = after(&service, &first).await;

    let query = ListQuery {
        limit: 10,
        ..ListQuery::default()
    };
    let listed = service.list_as_of(Kind::Project, &query, &point, soon());
    let Err(Error::Invalid(violations)) = listed.await else {
        panic!("expected a refusal")
    };
    let alone = service.get_as_of(project_key("a"), &point, soon()).await;

    assert_eq!(violations[0].path, "asOf");
    assert!(
        violations[0].message.contains("export FOLDER --as-of"),
        "{}",
        violations[0].message
    );
    let alone = without_times(alone.unwrap().document().clone());
    assert_eq!(alone, without_times(document(Kind::Project, "a")));
    store.assert_sound().await;
}

#[tokio::test]
async fn a_point_is_in_the_past_and_in_the_log() {
    let store = Store::sqlite();
    let service = service_on(&store);
    create_sound(&*store.repository, &project_key("a")).await;
    let future = Timestamp::parse("2999-01-01T00:00:00Z").unwrap();
    for point in [
        PointInTime::Time(future),
        PointInTime::Entry("no-such".to_owned()),
    ] {
        let refused = service.log_point(&point, "asOf", soon()).await;

        let Err(Error::Invalid(violations)) = refused else {
            panic!("{point:?} is not refused")
        };
        assert_eq!(violations[0].path, "asOf", "{point:?}");
    }
    store.assert_sound().await;
}

#[tokio::test]
async fn an_entry_that_a_document_was_read_hides_nothing() {
    on_each_store(async |store: &Store| {
        let (repository, service) = (&*store.repository, service_on(store));
        let key = project_key("a");
        let first = create_sound(repository, &key).await;
        super::wait_for_next_millisecond(&first);
        let second = update(repository, &key, json!({ "title": "Second" })).await;
        let read = json!({
            "id": "read", "timestamp": time_of(&second).to_string(), "action": "read",
            "entityType": "projects", "entityId": "a", "source": "api",
        });
        let read = StoredEntry::parse(read.to_string());
        store
            .history
            .import_entries(&[read], clock())
            .await
            .unwrap();
        update(repository, &key, json!({ "title": "Third" })).await;

        let before = after(&service, &first).await;
        let at_read = at(&service, PointInTime::Entry("read".to_owned())).await;

        let then = state(&service, &key, &before).await.unwrap();
        assert_eq!(then["title"], "The case of a");
        assert!(state(&service, &key, &at_read).await.is_ok());
    })
    .await;
}

//! Changes outside this server: each is reported when the document is read, and recorded before the
//! next write, once; nothing else is ever taken for one.

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::future::{join, join_all};
use portfolio_mcp::{
    deadline::Deadline,
    domain::{
        AuditPage, AuditQuery, AuditStats, Change, Current, DocumentKey, FoundDocument, Kind,
        ListPage, ListQuery, Operation, Origin, Source, StoredEntry, Timestamp, sha256_hex,
    },
    service::{ContentService, Error, Mode, UpdateRequest, Updated},
    store::{Commit, Location, Repository, Revision, Store as Parts, StoreError, open},
};
use redis::cmd;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::{
    sync::Notify,
    task::{JoinSet, yield_now},
    time::{advance, pause, resume},
};

use crate::support::{
    fixtures::{
        create, create_sound, now, object, once, project, project_key, stored, unique, update,
        write_context,
    },
    http,
    program::{Home, PROGRAM},
    redis::PASSWORD,
    server::HttpServer,
    soundness::entries,
    stdio::StdioClient,
    stores::{Store, on_each_store},
    wait::wait_until_async,
    wait_until,
};

/// How many edits there are in each store.
const EDITS: usize = 350;
const DOCUMENTS: [&str; 4] = ["a", "b", "c", "d"];

fn service_on(store: &Store) -> ContentService {
    ContentService::new(store.open(), now)
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}

fn titled(key: &DocumentKey, title: &str, mode: Mode) -> UpdateRequest {
    UpdateRequest {
        key: key.clone(),
        patch: object(json!({ "title": title })),
        edits: Vec::new(),
        expected_version: None,
        mode,
        idempotency_key: None,
        origin: Origin {
            actor: Some("marie".to_owned()),
            client_id: Some("client/1".to_owned()),
            ..Origin::new(Source::Mcp)
        },
    }
}

async fn retitle(
    service: &ContentService,
    key: &DocumentKey,
    title: &str,
) -> Result<Updated, Error> {
    service
        .update(titled(key, title, Mode::Commit), soon())
        .await
}

/// Creates a document, as `import` does.
async fn create_again(service: &ContentService, key: &DocumentKey, document: &Map<String, Value>) {
    loop {
        let current = service.get_for_update(key).await.unwrap();
        let operation = once();
        let change = Change::put(&current, document, write_context(&operation)).unwrap();
        match service.commit(vec![change], operation, soon()).await {
            Ok(_) => return,
            Err(Error::Conflict { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// The time of a document's newest entry.
async fn newest_time(store: &Store, key: &DocumentKey) -> Option<Timestamp> {
    let current = store.repository.get_for_update(key).await.unwrap();
    let entry = current.latest_entry()?;
    StoredEntry::parse(entry.to_owned()).timestamp()
}

/// Lets the clock of this test go on by `time`.
async fn pass(time: Duration) {
    pause();
    advance(time).await;
    resume();
}

/// What a document was reported as: `None` if nothing was reported.
async fn reported(service: &ContentService, key: &DocumentKey) -> Option<Timestamp> {
    match service.get(key.clone(), soon()).await {
        Ok(found) => found.value.changed_outside,
        Err(Error::NotFound {
            deleted_outside, ..
        }) => deleted_outside,
        Err(error) => panic!("{error:?}"),
    }
}

async fn actions(store: &Store, key: &DocumentKey) -> Vec<String> {
    let log = entries(&*store.repository, &AuditQuery::of(key, 100)).await;
    log.iter()
        .map(|entry| entry.text_of("action").unwrap().to_owned())
        .collect()
}

/// The actions of the two newest entries of the log, oldest first.
async fn newest_actions(store: &Store) -> Vec<String> {
    let query = AuditQuery {
        limit: 2,
        ..AuditQuery::default()
    };
    let page = store.repository.audit_entries(&query).await.unwrap();
    let entries = page.entries.iter().rev();
    entries
        .map(|entry| entry.text_of("action").unwrap().to_owned())
        .collect()
}

/// A JSON text with every character of its strings escaped.
fn with_escapes(value: &Value) -> String {
    let text = |text: &str| {
        let units = text.encode_utf16();
        let escapes: Vec<String> = units.map(|unit| format!("\\u{unit:04x}")).collect();
        format!("\"{}\"", escapes.concat())
    };
    match value {
        Value::String(string) => text(string),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(with_escapes).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(members) => {
            let members: Vec<String> = members
                .iter()
                .map(|(name, value)| format!("{}:{}", text(name), with_escapes(value)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        other => other.to_string(),
    }
}

/// The same document in another form, or another one.
fn edited(document: &Map<String, Value>, sort: usize) -> String {
    let mut other = document.clone();
    let compact = json!(document).to_string();
    match sort {
        0 => {
            other.insert("title".to_owned(), json!(unique("edited")));
        }
        1 => {
            other.insert(unique("field"), json!([1, { "deep.name": null }]));
        }
        2 => drop(other.shift_remove("tags")),
        3 => other = document.clone().into_iter().rev().collect(),
        4 => return serde_json::to_string_pretty(document).unwrap(),
        5 => return with_escapes(&json!(document)),
        6 => return json!(compact).to_string(),
        7 => return format!("{{\"title\":\"shadowed\",{}", &compact[1..]),
        8 => {
            let weight = document.get("weight").map(ToString::to_string);
            let next = if weight.as_deref() == Some("1.0") {
                "10e-1"
            } else {
                "1.0"
            };
            other.insert("weight".to_owned(), serde_json::from_str(next).unwrap());
        }
        9 => return format!("{compact}\n"),
        _ => return compact,
    }
    json!(other).to_string()
}

/// What is known of one document in the test.
#[derive(Default)]
struct Known {
    /// What the newest entry left.
    written: Option<String>,
    /// What is stored.
    stored: Option<String>,
}

struct EditTest<'a> {
    store: &'a Store,
    services: [ContentService; 2],
    random: fastrand::Rng,
    known: BTreeMap<DocumentKey, Known>,
    /// The actions that the log should have.
    log: Vec<&'static str>,
}

impl EditTest<'_> {
    async fn edit(&mut self, key: &DocumentKey) {
        let sort = self.random.usize(0..13);
        let current = self.store.repository.get(key).await.unwrap().record;
        let text = match &current {
            Some(_) if sort > 10 => None,
            Some(record) => Some(edited(record.document(), sort)),
            None => Some(edited(&project(&key.id), sort)),
        };
        self.store.edit(key, text.as_deref());
        let known = self.known.entry(key.clone()).or_default();
        known.stored = text;
        let is_changed = known.stored != known.written;

        let expected = newest_time(self.store, key).await.filter(|_| is_changed);
        let service = self.random.usize(0..2);
        assert_eq!(
            reported(&self.services[service], key).await,
            expected,
            "{key} after the edit {sort}: {:?}",
            known.stored
        );
    }

    async fn write(&mut self, key: &DocumentKey) {
        let known = &self.known[key];
        let (is_changed, exists) = (known.stored != known.written, known.stored.is_some());
        let service = &self.services[self.random.usize(0..2)];
        let action = if exists {
            let updated = retitle(service, key, &unique("title")).await.unwrap();
            assert_eq!(updated.changed_outside.is_some(), is_changed, "{key}");
            "update"
        } else {
            create_again(service, key, &project(&key.id)).await;
            "create"
        };
        self.log.extend(is_changed.then_some("adopt"));
        self.log.push(action);

        assert_eq!(
            newest_actions(self.store).await,
            self.log[self.log.len() - 2..]
        );
        let text = stored(&*self.store.repository, key).await;
        assert_eq!(reported(service, key).await, None, "{key}");
        self.known.insert(
            key.clone(),
            Known {
                written: text.clone(),
                stored: text,
            },
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_edit_is_reported_at_the_next_get_and_recorded_once() {
    on_each_store(async |store| {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut test = EditTest {
            store,
            services: [service_on(store), service_on(store)],
            random: fastrand::Rng::with_seed(seed),
            known: BTreeMap::new(),
            log: vec!["create"; DOCUMENTS.len()],
        };
        for id in DOCUMENTS {
            let key = project_key(id);
            create_sound(&*store.repository, &key).await;
            let created = stored(&*store.repository, &key).await;
            let known = Known {
                written: created.clone(),
                stored: created,
            };
            test.known.insert(key, known);
        }

        for _ in 0..EDITS {
            let key = project_key(DOCUMENTS[test.random.usize(0..DOCUMENTS.len())]);
            test.edit(&key).await;
            if test.random.bool() {
                test.write(&key).await;
            }
        }
        for id in DOCUMENTS {
            test.write(&project_key(id)).await;
        }

        let (log, expected) = (store.assert_sound().await, test.log.len());
        assert_eq!(log.entries.len(), expected);
        let unexplained = log.entries.iter().filter(|entry| {
            let changes = entry.changes();
            entry.text_of("action") == Some("adopt")
                && changes
                    .first()
                    .is_some_and(|change| change.field.is_empty() && change.old_value.is_none())
        });
        assert_eq!(unexplained.count(), 0, "the log explains every document");
    })
    .await;
}

/// The titles of an update by each of some writers, through a store of its own each.
async fn write_all(store: &Store, keys: &[DocumentKey], done: &AtomicBool) {
    const WRITERS: usize = 8;
    const WRITES: usize = 30;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let service = service_on(store);
        let keys = keys.to_vec();
        writers.spawn(async move {
            for number in 0..WRITES {
                let key = &keys[(writer + number) % keys.len()];
                let title = format!("writer {writer} number {number}");
                match retitle(&service, key, &title).await {
                    Ok(updated) => assert_eq!(updated.changed_outside, None),
                    Err(Error::Conflict { .. }) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        });
    }
    writers.join_all().await;
    done.store(true, Ordering::SeqCst);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_reported_while_eight_writers_write() {
    on_each_store(async |store| {
        let keys = ["a", "b", "c"].map(project_key);
        for key in &keys {
            create_sound(&*store.repository, key).await;
        }
        let done = AtomicBool::new(false);
        let reader = service_on(store);
        let read = async {
            let query = ListQuery {
                limit: 10,
                ..ListQuery::default()
            };
            let mut reads = 0;
            while !done.load(Ordering::SeqCst) {
                for key in &keys {
                    assert_eq!(reported(&reader, key).await, None);
                }
                // Directly, so that all documents are read each time.
                let page = store.repository.list(Kind::Project, &query).await.unwrap();
                assert_eq!(page.changed_outside, []);
                reads += 1;
            }
            assert!(reads > 0);
        };

        join(write_all(store, &keys, &done), read).await;

        let log = store.assert_sound().await;
        let adopted = log
            .entries
            .iter()
            .filter(|entry| entry.text_of("action") == Some("adopt"));
        assert_eq!(adopted.count(), 0);
    })
    .await;
}

/// Version 0.1.0 does not know the checksum beside the document.
#[tokio::test]
async fn what_version_0_1_0_writes_beside_is_not_reported() {
    let store = Store::redis();
    let (key, checksum) = (project_key("a"), store.key("internal:checksum:projects:a"));
    create_sound(&*store.repository, &key).await;
    let service = service_on(&store);
    let stale = "0".repeat(64);
    for command in [
        cmd("DEL").arg(&checksum),
        cmd("SET").arg(&checksum).arg(&stale),
    ] {
        store.server().run::<redis::Value>(command);

        assert_eq!(reported(&service, &key).await, None);
        let before = store.server().info("stats", "total_commands_processed");
        assert_eq!(reported(&service, &key).await, None);
        let after = store.server().info("stats", "total_commands_processed");
        assert!(after - before <= 3, "the verdict is remembered");
        let all = ListQuery::default();
        let page = service.list(Kind::Project, &all, soon());
        assert_eq!(page.await.unwrap().value.changed_outside, []);
    }

    let edited = edited(&project("a"), 0);
    store.edit(&key, Some(&edited));

    assert_eq!(
        reported(&service, &key).await,
        newest_time(&store, &key).await
    );
    retitle(&service, &key, "New").await.unwrap();
    assert_eq!(actions(&store, &key).await, ["create", "adopt", "update"]);
    store.assert_sound().await;
}

/// Version 0.1.0 writes in between, and only its entry shows that.
#[tokio::test]
async fn an_old_document_that_is_put_back_is_reported_after_a_minute() {
    let store = Store::redis();
    let (key, checksum) = (project_key("a"), store.key("internal:checksum:projects:a"));
    create_sound(&*store.repository, &key).await;
    let old = stored(&*store.repository, &key).await.unwrap();
    store.server().run::<()>(cmd("DEL").arg(&checksum));
    let service = service_on(&store);
    assert_eq!(reported(&service, &key).await, None);
    retitle(&service_on(&store), &key, "New").await.unwrap();
    store.server().run::<()>(cmd("DEL").arg(&checksum));
    store.edit(&key, Some(&old));
    assert_eq!(reported(&service, &key).await, None);

    pass(Duration::from_mins(1)).await;

    assert_eq!(
        reported(&service, &key).await,
        newest_time(&store, &key).await
    );
    retitle(&service, &key, "Newest").await.unwrap();
    store.assert_sound().await;
}

#[tokio::test]
async fn a_document_without_an_entry_of_this_program_is_never_reported() {
    on_each_store(async |store| {
        let key = project_key("legacy");
        assert!(stored(&*store.repository, &key).await.is_none());
        store.put(
            Kind::Project,
            "legacy",
            json!(project("legacy")).to_string().as_bytes(),
        );
        let service = service_on(store);
        assert_eq!(reported(&service, &key).await, None);

        store.edit(&key, Some(&edited(&project("legacy"), 0)));

        assert_eq!(reported(&service, &key).await, None);
        retitle(&service, &key, "New").await.unwrap();
        assert_eq!(actions(store, &key).await, ["update"]);
        store.assert_sound().await;
    })
    .await;
}

/// The first state of such a document is in no entry.
#[tokio::test]
async fn an_edit_of_a_document_that_is_older_than_the_log_is_recorded_as_it_was_found() {
    on_each_store(async |store| {
        let key = project_key("legacy");
        assert!(stored(&*store.repository, &key).await.is_none());
        store.put(
            Kind::Project,
            "legacy",
            json!(project("legacy")).to_string().as_bytes(),
        );
        let service = service_on(store);
        retitle(&service, &key, "One").await.unwrap();
        let found = edited(&project("legacy"), 0);
        store.edit(&key, Some(&found));

        retitle(&service, &key, "Two").await.unwrap();

        assert_eq!(actions(store, &key).await, ["update", "adopt", "update"]);
        let log = store.assert_sound().await;
        let changes = log.entries[1].changes();
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].old_value, None);
        assert_eq!(
            changes[0].new_value,
            Some(serde_json::from_str(&found).unwrap())
        );
    })
    .await;
}

#[tokio::test]
async fn what_this_program_deleted_is_not_reported_until_somebody_puts_it_back() {
    on_each_store(async |store| {
        let key = project_key("a");
        create_sound(&*store.repository, &key).await;
        let service = service_on(store);
        let current = service.get_for_update(&key).await.unwrap();
        let operation = once();
        let deletion = Change::delete(&current, write_context(&operation)).unwrap();
        service
            .commit(vec![deletion], operation, soon())
            .await
            .unwrap();
        assert_eq!(reported(&service, &key).await, None);

        let text = json!(project("a")).to_string();
        store.edit(&key, Some(&text));

        assert_eq!(
            reported(&service, &key).await,
            newest_time(store, &key).await
        );
        retitle(&service, &key, "New").await.unwrap();
        assert_eq!(
            actions(store, &key).await,
            ["create", "delete", "adopt", "update"]
        );
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn a_dry_run_and_a_repeated_call_record_nothing() {
    on_each_store(async |store| {
        let key = project_key("a");
        create_sound(&*store.repository, &key).await;
        let service = service_on(store);
        let keyed = UpdateRequest {
            idempotency_key: Some("key".to_owned()),
            ..titled(&key, "Once", Mode::Commit)
        };
        let first = service.update(keyed.clone(), soon()).await.unwrap();
        store.edit(&key, Some(&edited(&project("a"), 0)));

        let preview = service.update(titled(&key, "Never", Mode::DryRun), soon());
        let preview = preview.await.unwrap();
        let again = service.update(keyed, soon()).await.unwrap();

        assert!(preview.changed_outside.is_some());
        assert!(again.replayed);
        assert_eq!(again.audit_id, first.audit_id);
        assert_eq!(actions(store, &key).await, ["create", "update"]);
        retitle(&service, &key, "New").await.unwrap();
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn a_refused_write_records_nothing_and_a_version_is_that_of_the_edit() {
    on_each_store(async |store| {
        let key = project_key("a");
        create_sound(&*store.repository, &key).await;
        let service = service_on(store);
        store.edit(&key, Some(&edited(&project("a"), 0)));
        let shown = service.get(key.clone(), soon()).await.unwrap().value.record;
        let expecting = |version: &str| UpdateRequest {
            expected_version: Some(version.to_owned()),
            ..titled(&key, "New", Mode::Commit)
        };

        let refused = service.update(expecting("0123456789abcdef"), soon()).await;
        let refused_actions = actions(store, &key).await;
        let updated = service
            .update(expecting(shown.version().as_str()), soon())
            .await;

        assert!(
            matches!(
                refused,
                Err(Error::Conflict {
                    changed_outside: Some(_),
                    ..
                })
            ),
            "{refused:?}"
        );
        assert_eq!(refused_actions, ["create"]);
        assert!(updated.unwrap().changed_outside.is_some());
        assert_eq!(actions(store, &key).await, ["create", "adopt", "update"]);
        store.assert_sound().await;
    })
    .await;
}

/// A user who may read content and nothing else gets it, without a word about changes.
#[tokio::test]
async fn a_user_who_may_not_read_our_own_keys_reads_documents() {
    let store = Store::redis();
    create_sound(&*store.repository, &project_key("a")).await;
    let rules = ["~data:*", "~index:*", "~audit:*", "resetchannels", "+@read"];
    store.server().user("site", &rules);
    let port = store.server().port();
    let url = format!("redis://site:{PASSWORD}@127.0.0.1:{port}");
    let client = StdioClient::start_with(&["--store", &url, "--read-only"]).await;
    store.edit(&project_key("a"), Some(&edited(&project("a"), 0)));

    for _ in 0..2 {
        let shown = client.call("get_project", json!({ "id": "a" })).await;
        let listed = client.call("list_projects", json!({})).await;

        assert_eq!(shown["success"], true, "{shown}");
        assert_eq!(shown["meta"]["warnings"], Value::Null, "{shown}");
        assert_eq!(listed["meta"]["warnings"], Value::Null, "{listed}");
    }
    let updated = service_on(&store);
    retitle(&updated, &project_key("a"), "New").await.unwrap();
    store.assert_sound().await;
}

#[tokio::test]
async fn a_user_who_may_read_our_own_keys_later_is_told_of_changes() {
    let store = Store::redis();
    let key = project_key("a");
    create_sound(&*store.repository, &key).await;
    let rules = ["~data:*", "~index:*", "~audit:*", "resetchannels", "+@read"];
    let location = Location::Redis {
        write: None,
        read: Some(store.server().user("site", &rules)),
        key_prefix: String::new(),
    };
    let service = ContentService::new(open(&location).unwrap(), now);
    store.edit(&key, Some(&edited(&project("a"), 0)));
    assert_eq!(reported(&service, &key).await, None);
    let allow = ["ACL", "SETUSER", "site", "~internal:*"];
    store.server().run::<()>(cmd(allow[0]).arg(&allow[1..]));

    pass(Duration::from_mins(1)).await;

    assert_eq!(
        reported(&service, &key).await,
        newest_time(&store, &key).await
    );
    retitle(&service_on(&store), &key, "New").await.unwrap();
    store.assert_sound().await;
}

/// The warnings of an answer that contain `text`.
fn warnings(answer: &Value, text: &str) -> Vec<String> {
    let all = answer["meta"]["warnings"].as_array().cloned();
    all.unwrap_or_default()
        .iter()
        .map(|warning| warning.as_str().unwrap().to_owned())
        .filter(|warning| warning.contains(text))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tools_say_what_was_changed_outside_and_record_it() {
    on_each_store(async |store| {
        let (key, gone) = (project_key("a"), project_key("gone"));
        create_sound(&*store.repository, &key).await;
        create_sound(&*store.repository, &gone).await;
        let (time, gone_time) = (
            newest_time(store, &key).await.unwrap(),
            newest_time(store, &gone).await.unwrap(),
        );
        let read = store.repository.get(&key).await.unwrap().record.unwrap();
        let read = read.version().to_string();
        store.edit(&key, Some(&edited(&project("a"), 0)));
        store.edit(&gone, None);
        let client = StdioClient::start(store).await;

        let shown = client.call("get_project", json!({ "id": "a" })).await;
        let listed = client
            .call_until("list_projects", json!({}), |listed| {
                listed["success"] == true
            })
            .await;
        let missing = client
            .call_error("get_project", json!({ "id": "gone" }))
            .await;
        let patch = json!({ "id": "gone", "data": { "title": "New" } });
        let not_updated = client.call_error("update_project", patch).await;
        let patch = json!({ "id": "a", "data": { "title": "New" }, "expectedVersion": read });
        let conflict = client.call_error("update_project", patch).await;
        let patch = json!({ "id": "a", "data": { "title": "New" } });
        let updated = client.call("update_project", patch).await;
        let shown_again = client.call("get_project", json!({ "id": "a" })).await;

        let outside = format!("changed outside this server after {time}");
        assert_eq!(warnings(&shown, &outside).len(), 1, "{shown}");
        assert_eq!(warnings(&listed, &outside).len(), 1, "{listed}");
        assert_eq!(conflict["code"], "VERSION_CONFLICT", "{conflict}");
        assert_eq!(conflict["details"]["changedOutside"], time.to_string());
        let message = conflict["message"].as_str().unwrap();
        assert!(message.contains(&outside), "{message}");
        assert_eq!(warnings(&updated, &outside).len(), 1, "{updated}");
        assert_eq!(warnings(&shown_again, "outside").len(), 0, "{shown_again}");
        let deleted = format!("`gone` was deleted outside this server after {gone_time}");
        let listed_deletions = usize::from(store.is_redis());
        assert_eq!(
            warnings(&listed, &deleted).len(),
            listed_deletions,
            "{listed}"
        );
        for error in [missing, not_updated] {
            assert_eq!(error["code"], "PROJECT_NOT_FOUND", "{error}");
            assert_eq!(error["details"]["deletedOutside"], gone_time.to_string());
        }
        let log = entries(&*store.repository, &AuditQuery::of(&key, 100)).await;
        let adopted = &log[1];
        assert_eq!(adopted.text_of("action"), Some("adopt"));
        assert_eq!(adopted.text_of("source"), Some("mcp"));
        let metadata = &adopted.json()["metadata"];
        assert_eq!(metadata["reason"], "found changed outside this server");
        for unknown in ["actor", "clientId", "transport", "requestId"] {
            assert_eq!(metadata.get(unknown), None, "{metadata}");
        }
        store.assert_sound_but(&[gone]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_doctor_count_what_was_changed_outside() {
    on_each_store(async |store| {
        for id in ["a", "b", "gone", "unlisted"] {
            create_sound(&*store.repository, &project_key(id)).await;
        }
        store.edit(&project_key("a"), Some(&edited(&project("a"), 4)));
        store.edit(&project_key("gone"), None);
        let server = HttpServer::start(store, &[]);
        let counted = || {
            let metrics = http::send(server.address, "GET", "/metrics", &[], "").text();
            let line = "portfolio_documents_changed_outside ";
            let count = metrics.lines().find_map(|text| text.strip_prefix(line));
            count.and_then(|count| count.parse::<usize>().ok())
        };
        wait_until("the gauge counts", || (counted() == Some(2)).then_some(()));
        store.edit(&project_key("unlisted"), None);
        if store.is_redis() {
            let index = store.key("index:all:projects");
            let remove = &mut cmd("SREM");
            store.server().run::<()>(remove.arg(index).arg("unlisted"));
        }
        http::send(server.address, "GET", "/api/projects", &[], "");
        wait_until("the gauge counts what is in no index", || {
            (counted() == Some(3)).then_some(())
        });

        let output = Home::new()
            .command(PROGRAM)
            .arg("doctor")
            .args(store.arguments())
            .output()
            .unwrap();

        let report = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{report}");
        let line = report.lines().find(|line| line.contains("outside changes"));
        let line = line.unwrap_or_else(|| panic!("{report}"));
        for part in [
            "3 documents changed or deleted outside this server",
            "`a` changed after",
            "`gone` deleted after",
            "`unlisted` deleted after",
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
        let service = service_on(store);
        retitle(&service, &project_key("a"), "New").await.unwrap();
        for id in ["gone", "unlisted"] {
            create_again(&service, &project_key(id), &project(id)).await;
        }
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn an_import_records_what_it_replaces() {
    on_each_store(async |store| {
        let (key, gone) = (project_key("a"), project_key("gone"));
        create_sound(&*store.repository, &key).await;
        create_sound(&*store.repository, &gone).await;
        store.edit(&key, Some(&edited(&project("a"), 0)));
        store.edit(&gone, None);
        let folder = TempDir::new().unwrap();
        let documents = json!([project("a"), project("gone")]);
        fs::write(folder.path().join("projects.json"), documents.to_string()).unwrap();

        let output = Home::new()
            .command(PROGRAM)
            .arg("import")
            .arg(folder.path())
            .arg("--force")
            .args(store.arguments())
            .output()
            .unwrap();

        assert!(output.status.success(), "{output:?}");
        assert_eq!(actions(store, &key).await, ["create", "adopt", "update"]);
        assert_eq!(actions(store, &gone).await, ["create", "adopt", "create"]);
        let log = store.assert_sound().await;
        let adopted = log
            .entries
            .iter()
            .find(|entry| entry.text_of("action") == Some("adopt"));
        assert_eq!(adopted.unwrap().text_of("source"), Some("admin"));
    })
    .await;
}

/// A store whose process dies at the call with a certain number: that call never ends.
struct Dying {
    store: Arc<dyn Repository>,
    calls_left: AtomicUsize,
    died: Notify,
}

impl Dying {
    async fn live(&self) {
        let left = self
            .calls_left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            });
        if left.is_err() {
            self.died.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl Repository for Dying {
    fn name(&self) -> &'static str {
        self.store.name()
    }
    async fn get(&self, key: &DocumentKey) -> Result<FoundDocument, StoreError> {
        self.live().await;
        self.store.get(key).await
    }
    async fn get_for_update(&self, key: &DocumentKey) -> Result<Current, StoreError> {
        self.live().await;
        self.store.get_for_update(key).await
    }
    async fn list(&self, kind: Kind, query: &ListQuery) -> Result<ListPage, StoreError> {
        self.live().await;
        self.store.list(kind, query).await
    }
    async fn commit(
        &self,
        changes: &[Change],
        operation: &Operation,
    ) -> Result<Commit, StoreError> {
        self.live().await;
        self.store.commit(changes, operation).await
    }
    async fn find_commit(&self, operation: &Operation) -> Result<Option<Commit>, StoreError> {
        self.live().await;
        self.store.find_commit(operation).await
    }
    async fn audit_entries(&self, query: &AuditQuery) -> Result<AuditPage, StoreError> {
        self.live().await;
        self.store.audit_entries(query).await
    }
    async fn audit_stats(&self) -> Result<AuditStats, StoreError> {
        self.live().await;
        self.store.audit_stats().await
    }
    async fn revision(&self) -> Result<Revision, StoreError> {
        self.live().await;
        self.store.revision().await
    }
}

/// A process that dies at any step leaves a log that explains what is stored, and what was found is
/// recorded once.
#[tokio::test]
async fn a_process_that_dies_between_the_record_and_the_write_leaves_a_sound_store() {
    on_each_store(async |store| {
        let mut steps = 0;
        loop {
            let key = project_key(&format!("step-{steps}"));
            create_sound(&*store.repository, &key).await;
            update(&*store.repository, &key, json!({ "title": "Before" })).await;
            store.edit(&key, Some(&edited(&project(&key.id), 3)));
            let dying = Arc::new(Dying {
                store: store.another(),
                calls_left: AtomicUsize::new(steps),
                died: Notify::new(),
            });
            let parts = Parts {
                repository: Arc::clone(&dying) as _,
                ..store.open()
            };
            let parts = Parts {
                snapshot: None,
                ..parts
            };
            let service = ContentService::new(parts, now);

            let finished = tokio::select! {
                updated = retitle(&service, &key, "Doomed") => Some(updated.unwrap()),
                () = dying.died.notified() => None,
            };
            let adopted = actions(store, &key).await.len() > 2;
            if finished.is_none() {
                let survivor = service_on(store);
                assert_eq!(reported(&survivor, &key).await.is_none(), adopted);
                if adopted {
                    store.assert_sound().await;
                }
                retitle(&survivor, &key, "After").await.unwrap();
            }

            assert_eq!(
                actions(store, &key).await,
                ["create", "update", "adopt", "update"],
                "after {steps} steps"
            );
            store.assert_sound().await;
            if finished.is_some() {
                break;
            }
            steps += 1;
        }
        assert!(
            steps >= 4,
            "{steps} steps: read, history, record, read, write"
        );
    })
    .await;
}

/// The same with real processes, killed about when the record is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_after_the_record_leaves_a_sound_store() {
    const ROUNDS: usize = 20;
    for mut store in [Store::redis(), Store::sqlite()] {
        let key = project_key("a");
        create(&*store.repository, &key, project("a")).await;
        for round in 0..ROUNDS {
            store.reopen();
            let text = edited(&project("a"), 0);
            store.edit(&key, Some(&text));
            let before = actions(&store, &key).await.len();
            let server = StdioClient::start(&store).await;
            let patch = json!({ "id": "a", "data": { "title": format!("round {round}") } });
            let call = server.try_call("update_project", patch);
            let kill = async {
                wait_until_async("the record is there", async || {
                    (actions(&store, &key).await.len() > before).then_some(())
                })
                .await;
                for _ in 0..round {
                    yield_now().await;
                }
                server.kill9();
            };

            drop(join(call, kill).await);

            store.assert_sound().await;
            let new = actions(&store, &key).await.split_off(before);
            assert!(
                new == ["adopt"] || new == ["adopt", "update"],
                "round {round}: {new:?}"
            );
        }
    }
}

/// Servers that find the same edit record it once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_edit_that_many_writers_meet_is_recorded_once() {
    on_each_store(async |store| {
        let key = project_key("a");
        create_sound(&*store.repository, &key).await;
        let services: Vec<ContentService> = (0..6).map(|_| service_on(store)).collect();
        for round in 0..10 {
            let text = edited(&project("a"), 0);
            store.edit(&key, Some(&text));

            let writes = services.iter().enumerate().map(async |(writer, service)| {
                let title = format!("round {round} writer {writer}");
                loop {
                    match retitle(service, &key, &title).await {
                        Ok(_) => break,
                        Err(Error::Conflict { .. }) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                }
            });
            join_all(writes).await;

            let adopted = actions(store, &key).await;
            let adopted = adopted.iter().filter(|action| *action == "adopt").count();
            assert_eq!(adopted, round + 1);
            let text = stored(&*store.repository, &key).await.unwrap();
            let current = store.repository.get_for_update(&key).await.unwrap();
            let newest = StoredEntry::parse(current.latest_entry().unwrap().to_owned());
            assert_eq!(
                newest.checksum(),
                Some(sha256_hex(text.as_bytes()).as_str())
            );
        }
        store.assert_sound().await;
    })
    .await;
}

//! `update_many`: many documents change together or not at all.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::{join, join_all};
use portfolio_mcp::domain::{DocumentKey, Kind};
use serde_json::{Value, json};
use tokio::task::yield_now;

use crate::support::{
    fixtures::{self, create, create_sound, project_key},
    messages::tool_output,
    proxy::{Mode, Proxy},
    server::HttpServer,
    soundness::Log,
    stdio::StdioClient,
    stores::{Store, on_each_store},
};

/// CONTRACT.md, section 2.
const MAX_BYTES: usize = 32_000;
/// The most changes of one call.
const MAX_CHANGES: usize = 50;

fn change(id: &str, data: Value) -> Value {
    let mut change = json!({ "entityType": "project", "id": id });
    change["data"] = data;
    change
}

fn ids() -> Vec<String> {
    (0..MAX_CHANGES)
        .map(|number| format!("number-{number}"))
        .collect()
}

/// A change of each of 50 documents.
fn retitle_all(title: &str) -> Value {
    let changes: Vec<Value> = ids()
        .iter()
        .map(|id| change(id, json!({ "title": title })))
        .collect();
    json!({ "changes": changes })
}

async fn store_with(store: &Store, ids: &[impl AsRef<str>]) {
    for id in ids {
        create_sound(&*store.repository, &project_key(id.as_ref())).await;
    }
}

async fn read(client: &StdioClient, id: &str) -> Value {
    client.call("get_project", json!({ "id": id })).await
}

fn paths(error: &Value) -> Vec<&str> {
    let violations = error["details"]["violations"].as_array().unwrap();
    let mut paths: Vec<&str> = violations
        .iter()
        .map(|violation| violation["path"].as_str().unwrap())
        .collect();
    paths.sort_unstable();
    paths
}

#[tokio::test]
async fn documents_of_both_kinds_change_in_one_commit() {
    on_each_store(async |store: &Store| {
        store_with(store, &["a", "b", "same"]).await;
        let guide = DocumentKey::new(Kind::Resource, "a");
        create_sound(&*store.repository, &guide).await;
        let client = StdioClient::start_with_all_toolsets(store).await;
        let version = read(&client, "a").await["meta"]["version"].clone();
        let mut first = change("a", json!({ "title": "New", "client": { "size": "4 people" } }));
        first["expectedVersion"] = version.clone();
        let edits = json!([{ "path": "tags", "op": "append", "value": "new" }]);
        let request = json!({
            "changes": [
                first,
                { "entityType": "project", "id": "b", "edits": edits },
                change("same", json!({ "title": "The case of same" })),
                { "entityType": "resource", "id": "a", "data": { "price": "Gratuit" }, "edits": null },
            ],
            "reason": "asked",
        });
        let mut dry_run = request.clone();
        dry_run["dryRun"] = json!(true);

        let shown = client.call("update_many", dry_run).await;
        let before = read(&client, "a").await;
        let changed = client.call("update_many", request).await;

        assert_eq!(shown["meta"].as_object().unwrap().keys().next().unwrap(), "dryRun");
        assert_eq!(before["meta"]["version"], version);
        assert_eq!(shown["data"][0]["version"], version);
        assert_eq!(shown["data"][0].get("auditId"), None, "{shown}");
        for answer in [&shown, &changed] {
            let rows = answer["data"].as_array().unwrap();
            let named: Vec<String> = rows
                .iter()
                .map(|row| format!("{} {}", row["entityType"], row["entityId"]).replace('"', ""))
                .collect();
            assert_eq!(named, ["project a", "project b", "resource a"]);
            let warnings = answer["meta"]["warnings"].to_string();
            assert!(warnings.contains("project `same`"), "{answer}");
            let fields = rows[0]["changes"].as_array().unwrap();
            assert_eq!(fields[0]["field"], "title", "{answer}");
        }
        let after = read(&client, "a").await;
        assert_eq!(after["meta"]["version"], changed["data"][0]["version"]);
        assert_eq!(after["data"]["client"]["size"], "4 people");
        assert_eq!(read(&client, "b").await["data"]["tags"][2], "new");
        let log = client
            .call("get_audit_log", json!({ "action": "update", "detail": "full" }))
            .await;
        let entries = log["data"].as_array().unwrap();
        assert_eq!(entries.len(), 3);
        for entry in entries {
            assert_eq!(entry["metadata"]["reason"], "asked");
            assert_eq!(entry["metadata"]["operation"], entries[0]["metadata"]["operation"]);
        }
        assert_eq!(store.assert_sound().await.seq, 4 + 3);
    })
    .await;
}

#[tokio::test]
async fn what_changes_nothing_writes_nothing_and_says_so() {
    let store = Store::sqlite();
    store_with(&store, &["a", "b"]).await;
    let client = StdioClient::start_with_all_toolsets(&store).await;
    let same = |id: &str| change(id, json!({ "title": format!("The case of {id}") }));

    let answer = client
        .call("update_many", json!({ "changes": [same("a"), same("b")] }))
        .await;

    assert_eq!(answer["data"], json!([]), "{answer}");
    assert!(
        answer["meta"]["warnings"]
            .to_string()
            .contains("nothing was changed"),
        "{answer}"
    );
    assert_eq!(store.assert_sound().await.seq, 2);
}

#[tokio::test]
async fn one_mistake_refuses_all_and_every_mistake_is_named_with_its_change() {
    let store = Store::sqlite();
    store_with(&store, &["a", "b"]).await;
    let client = StdioClient::start_with_all_toolsets(&store).await;
    let good = || change("b", json!({ "title": "New" }));
    for (changes, expected) in [
        (json!(null), vec!["changes"]),
        (json!([]), vec!["changes"]),
        (json!("[]"), vec!["changes"]),
        (json!({}), vec!["changes"]),
        (json!([good(), 5]), vec!["changes[1]"]),
        (
            json!([{}]),
            vec!["changes[0].data", "changes[0].entityType", "changes[0].id"],
        ),
        (
            json!([{ "entityType": "project", "id": "a" }]),
            vec!["changes[0].data"],
        ),
        (
            json!([good(), { "entityType": "page", "id": "a", "data": {} }]),
            vec!["changes[1].entityType"],
        ),
        (json!([change("a", json!([]))]), vec!["changes[0].data"]),
        (json!([good(), good()]), vec!["changes[1].id"]),
        (
            json!([good(), { "entityType": "project", "id": "a", "data": {}, "dryRun": true }]),
            vec!["changes[1].dryRun"],
        ),
        (
            json!([
                change("a", json!({ "titel": "x", "tags": [""] })),
                good(),
                change("bb", json!({ "title": "x" }))
            ]),
            vec!["changes[0].tags[0]", "changes[0].titel", "changes[2].id"],
        ),
        (
            json!([good(), { "entityType": "project", "id": "a", "edits": [{ "path": "title", "op": "find", "value": "no-such", "with": "x" }] }]),
            vec!["changes[1].edits[0].value"],
        ),
        (
            json!([{ "entityType": "project", "id": "a", "edits": [{ "path": "title", "op": "find", "value": "x", "whith": "y" }] }]),
            vec!["changes[0].edits[0].whith"],
        ),
        // What the arguments break and what the changes break, at once.
        (
            json!([{ "slug": "a" }, change("a", json!({ "titel": "x" }))]),
            vec![
                "changes[0].data",
                "changes[0].entityType",
                "changes[0].id",
                "changes[0].slug",
                "changes[1].titel",
            ],
        ),
        (Value::from(vec![good(); MAX_CHANGES + 1]), vec!["changes"]),
    ] {
        let error = client
            .call_error("update_many", json!({ "changes": changes }))
            .await;

        assert_eq!(error["code"], "VALIDATION_FAILED", "{error}");
        let mut found = paths(&error);
        if expected == ["changes"] {
            found.truncate(1);
        }
        assert_eq!(found, expected, "{changes}: {error}");
    }
    assert_eq!(store.assert_sound().await.seq, 2);
}

#[tokio::test]
async fn a_mistake_suggests_what_was_meant() {
    let store = Store::sqlite();
    store_with(&store, &["rdv-artisan"]).await;
    let client = StdioClient::start_with_all_toolsets(&store).await;
    for (wrong, suggestion) in [
        (change("rdv-artisn", json!({ "title": "x" })), "rdv-artisan"),
        (change("rdv-artisan", json!({ "titel": "x" })), "title"),
        (
            change("rdv-artisan", json!({ "expectedVersion": "x" })),
            "expectedVersion",
        ),
        (
            json!({ "entityType": "project", "slug": "rdv-artisan", "data": {} }),
            "id",
        ),
        (
            json!({ "type": "project", "id": "rdv-artisan", "data": {} }),
            "entityType",
        ),
        (
            json!({ "entityType": "project", "id": "rdv-artisan", "title": "x", "data": {} }),
            "data.title",
        ),
    ] {
        let error = client
            .call_error("update_many", json!({ "changes": [wrong] }))
            .await;

        let violations = error["details"]["violations"].as_array().unwrap();
        let found = violations
            .iter()
            .any(|violation| violation["suggestion"] == suggestion);
        assert!(found, "{suggestion}: {error}");
    }
}

#[tokio::test]
async fn lists_and_objects_may_come_as_strings() {
    let store = Store::sqlite();
    store_with(&store, &["a", "b"]).await;
    let client = StdioClient::start_with_all_toolsets(&store).await;
    let first = json!({ "entityType": "project", "id": "a", "data": "{\"title\":\"New\"}", "expectedVersion": null });
    let edits = json!([{ "path": "tags", "op": "insert", "value": "x", "at": 0.0, "with": null }]);
    let second = json!({ "entityType": "project", "id": "b", "edits": edits.to_string() });
    let changes = json!([first.to_string(), second]).to_string();

    let answer = client
        .call("update_many", json!({ "changes": changes, "dryRun": null }))
        .await;

    assert_eq!(answer["data"].as_array().unwrap().len(), 2, "{answer}");
    assert_eq!(read(&client, "b").await["data"]["tags"][0], "x");
    store.assert_sound().await;
}

#[tokio::test]
async fn an_outdated_version_refuses_all_and_names_the_document() {
    on_each_store(async |store: &Store| {
        store_with(store, &["a", "b"]).await;
        let client = StdioClient::start_with_all_toolsets(store).await;
        let version = read(&client, "b").await["meta"]["version"].clone();
        let update = json!({ "id": "b", "data": { "title": "New" } });
        client.call("update_project", update).await;
        let mut outdated = change("b", json!({ "result": "New" }));
        outdated["expectedVersion"] = version;
        let changes = json!([change("a", json!({ "result": "New" })), outdated]);

        let conflict = client
            .call_error("update_many", json!({ "changes": changes }))
            .await;

        assert_eq!(conflict["code"], "VERSION_CONFLICT", "{conflict}");
        let message = conflict["message"].as_str().unwrap();
        for part in ["project `b`", "expectedVersion", "get_project"] {
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(
            conflict["details"]["changedSince"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
        assert_eq!(store.assert_sound().await.seq, 3);
    })
    .await;
}

#[tokio::test]
async fn a_required_version_is_required_of_each_change() {
    let store = Store::sqlite();
    store_with(&store, &["a", "b"]).await;
    let mut arguments = store.arguments();
    arguments.extend(["--toolsets=all", "--require-version"].map(ToOwned::to_owned));
    let client = StdioClient::start_with(&arguments).await;
    let mut versioned = change("a", json!({ "title": "New" }));
    versioned["expectedVersion"] = read(&client, "a").await["meta"]["version"].clone();
    let changes = json!([versioned, change("b", json!({ "title": "New" }))]);

    let error = client
        .call_error("update_many", json!({ "changes": changes }))
        .await;
    let alone = json!({ "changes": [versioned] });
    let answer = client.call("update_many", alone).await;

    assert_eq!(paths(&error), ["changes[1].expectedVersion"], "{error}");
    assert!(
        error["message"].as_str().unwrap().contains("get_project"),
        "{error}"
    );
    assert_eq!(answer["success"], true, "{answer}");
    store.assert_sound().await;
}

#[tokio::test]
async fn a_document_changed_by_hand_is_recorded_first() {
    on_each_store(async |store: &Store| {
        store_with(store, &["a", "b"]).await;
        let key = project_key("a");
        let by_hand = fixtures::with(&fixtures::project("a"), json!({ "result": "By hand" }));
        store.edit(&key, Some(&Value::Object(by_hand).to_string()));
        let client = StdioClient::start_with_all_toolsets(store).await;
        let title = || json!({ "title": "New" });

        let answer = client
            .call(
                "update_many",
                json!({ "changes": [change("a", title()), change("b", title())] }),
            )
            .await;

        assert!(
            answer["meta"]["warnings"]
                .to_string()
                .contains("before this change"),
            "{answer}"
        );
        assert_eq!(read(&client, "a").await["data"]["result"], "By hand");
        assert_eq!(store.assert_sound().await.seq, 2 + 1 + 2);
    })
    .await;
}

#[tokio::test]
async fn a_repeated_call_gets_the_first_answer_after_a_restart_too() {
    on_each_store(async |store: &Store| {
        store_with(store, &["a", "b"]).await;
        let client = StdioClient::start_with_all_toolsets(store).await;
        let request = |title: &str| {
            let changes = ["b", "a"].map(|id| change(id, json!({ "title": title })));
            json!({ "changes": changes, "idempotencyKey": "k1" })
        };

        let first = client.call("update_many", request("New")).await;
        assert!(client.finish().success());
        let client = StdioClient::start_with_all_toolsets(store).await;
        let newer = json!({ "id": "a", "data": { "title": "Newer" } });
        client.call("update_project", newer).await;
        let second = client.call("update_many", request("New")).await;
        let other = client.call_error("update_many", request("Other")).await;

        assert_eq!(second["meta"]["replayed"], true, "{second}");
        for (first, second) in first["data"]
            .as_array()
            .unwrap()
            .iter()
            .zip(second["data"].as_array().unwrap())
        {
            for member in ["entityId", "auditId", "changes"] {
                assert_eq!(first[member], second[member], "{second}");
            }
        }
        assert_eq!(second["data"][1]["title"], "Newer", "{second}");
        assert_eq!(other["code"], "IDEMPOTENCY_MISMATCH", "{other}");
        assert_eq!(store.assert_sound().await.seq, 2 + 2 + 1);
    })
    .await;
}

#[tokio::test]
async fn an_answer_about_fifty_long_changes_is_small() {
    let store = Store::sqlite();
    let long = "\u{a0}é".repeat(90);
    for id in ids() {
        let document = fixtures::with(&fixtures::project(&id), json!({ "title": long }));
        create(&*store.repository, &project_key(&id), document).await;
    }
    let server = HttpServer::start(&store, &["--toolsets=all"]);
    let data =
        json!({ "title": format!("{long}x"), "result": long, "challenge": long, "image": "/b" });
    let changes: Vec<Value> = ids().iter().map(|id| change(id, data.clone())).collect();

    let result = server.call("update_many", &json!({ "changes": changes }));

    let bytes = result["content"][0]["text"].as_str().unwrap().len();
    let answer = tool_output(&result);
    let rows = answer["data"].as_array().unwrap();
    assert!(bytes <= MAX_BYTES, "{bytes}");
    assert!(rows.len() > 10, "{}", rows.len());
    let more = answer["meta"]["more"].as_u64().unwrap_or_default();
    assert_eq!(more, (MAX_CHANGES - rows.len()) as u64);
    store.assert_sound().await;
}

/// Every document has the same title, and each title is in the log for each document once.
fn assert_together(log: &Log) {
    for (title, times) in log.values_of("title") {
        if title.starts_with("round") {
            assert_eq!(times, MAX_CHANGES, "{title}");
        }
    }
    let titles = log.documents.values().map(|state| &state.document["title"]);
    let titles: Vec<&Value> = titles.collect();
    assert!(titles.iter().all(|title| *title == titles[0]), "{titles:?}");
}

#[tokio::test]
async fn processes_that_change_the_same_documents_lose_no_change() {
    on_each_store(async |store: &Store| {
        store_with(store, &ids()).await;
        let clients = [
            StdioClient::start_with_all_toolsets(store).await,
            StdioClient::start_with_all_toolsets(store).await,
        ];
        let calls = (0..10).map(async |number| {
            let request = retitle_all(&format!("round {number}"));
            clients[number % 2]
                .call_until("update_many", request, |answer| answer["success"] == true)
                .await
        });

        join_all(calls).await;

        let log = store.assert_sound().await;
        assert_eq!(log.seq, 11 * MAX_CHANGES as u64);
        assert_together(&log);
    })
    .await;
}

#[tokio::test]
async fn a_lost_connection_changes_all_once() {
    let store = Store::redis();
    store_with(&store, &ids()).await;
    let mut proxy = Proxy::start(store.server().port()).await;
    let arguments = [
        "--store".to_owned(),
        proxy.url(),
        "--toolsets=all".to_owned(),
    ];
    let client = StdioClient::start_with(&arguments).await;
    let modes = [
        Mode::CutReply,
        Mode::CutRequest,
        Mode::CutAnyReply,
        Mode::CutMidReply,
    ];

    for (round, mode) in modes.into_iter().enumerate() {
        proxy.set(mode).await;
        let answer = client
            .call("update_many", retitle_all(&format!("round {round}")))
            .await;

        assert_eq!(answer["success"], true, "{mode:?}: {answer}");
        assert_eq!(answer["meta"].get("replayed"), None, "{answer}");
    }
    let log = store.assert_sound().await;
    assert_eq!(log.seq, (MAX_CHANGES * (1 + modes.len())) as u64);
    assert_together(&log);
}

/// Kills a server repeatedly while it changes fifty documents.
async fn check_kills(mut store: Store) {
    const ROUNDS: usize = 20;
    const CALLS: usize = 4;
    store_with(&store, &ids()).await;
    let server = StdioClient::start_with_all_toolsets(&store).await;
    server.call("update_many", retitle_all("round none")).await;
    let mut unanswered = 0;
    for round in 0..ROUNDS {
        // Close our connection to SQLite, so that the file is found as the killed server left it.
        store.reopen();
        let server = StdioClient::start_with_all_toolsets(&store).await;
        let answered = AtomicUsize::new(0);
        let calls = async {
            for number in 0..CALLS {
                let request = retitle_all(&format!("round {round} call {number}"));
                let Ok(answer) = server.try_call("update_many", request).await else {
                    break;
                };
                assert_eq!(answer["success"], true, "{answer}");
                answered.fetch_add(1, Ordering::SeqCst);
            }
        };
        // The kill comes at a different moment each time.
        let kill = async {
            while answered.load(Ordering::SeqCst) < round % CALLS {
                yield_now().await;
            }
            for _ in 0..round * 25 {
                yield_now().await;
            }
            server.kill9();
        };
        join(calls, kill).await;

        let log = store.assert_sound().await;
        assert_together(&log);
        let applied = log
            .values_of("title")
            .keys()
            .filter(|title| title.starts_with(&format!("round {round} ")))
            .count();
        let answered = answered.into_inner();
        assert!(
            applied >= answered,
            "{applied} of {answered} acknowledged calls are in the log"
        );
        unanswered += CALLS - answered;
    }
    assert!(unanswered > ROUNDS, "the kills met no writes: {unanswered}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_while_changing_fifty_documents_in_redis_changes_all_or_none() {
    check_kills(Store::redis()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_while_changing_fifty_documents_in_sqlite_changes_all_or_none() {
    check_kills(Store::sqlite()).await;
}

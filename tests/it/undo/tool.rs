//! `undo_changes`, as clients call it: arguments, dry run, what stays, repeated requests, and the size
//! of its answers.

use portfolio_mcp::domain::DocumentKey;
use serde_json::{Value, json};

use crate::support::{
    fixtures::{self, create, create_sound, project_key},
    messages::tool_output,
    server::HttpServer,
    stdio::StdioClient,
    stores::{Store, on_each_store},
};

/// CONTRACT.md, section 2.
const MAX_BYTES: usize = 32_000;

/// Before every change of these tests.
const SINCE: &str = "2025-01-01T00:00:00Z";

/// A client of the program with every toolset, that calls itself `name`.
async fn client(store: &Store, name: &str) -> StdioClient {
    let mut arguments = store.arguments();
    arguments.push("--toolsets=all".to_owned());
    let client = StdioClient::spawn_with(&arguments);
    client.initialize(name, "1.0").await;
    client
}

async fn update(client: &StdioClient, id: &str, data: Value) -> String {
    let arguments = json!({ "id": id, "data": data });
    let updated = client.call("update_project", arguments).await;
    updated["meta"]["auditId"].as_str().unwrap().to_owned()
}

async fn project(client: &StdioClient, id: &str) -> Value {
    let answer = client.call("get_project", json!({ "id": id })).await;
    answer["data"].clone()
}

async fn store_with(store: &Store, ids: &[&str]) -> Vec<DocumentKey> {
    let mut keys = Vec::new();
    for id in ids {
        let key = project_key(id);
        create_sound(&*store.repository, &key).await;
        keys.push(key);
    }
    keys
}

#[tokio::test]
async fn the_arguments_are_ids_or_a_time_with_filters() {
    let store = Store::sqlite();
    let client = client(&store, "it").await;
    for (arguments, path) in [
        (json!({}), "since"),
        (json!({ "dryRun": true }), "since"),
        (json!({ "clientId": "it" }), "since"),
        (json!({ "auditIds": ["a"], "since": SINCE }), "auditIds"),
        (json!({ "auditIds": ["a"], "actor": "lise" }), "auditIds"),
        (json!({ "auditIds": [] }), "auditIds"),
        (json!({ "auditIds": vec!["a"; 201] }), "auditIds"),
        (json!({ "auditIds": [5] }), "auditIds[0]"),
        (json!({ "auditIds": ["no-such"] }), "auditIds"),
        (json!({ "since": "yesterday" }), "since"),
        (json!({ "since": SINCE, "until": "x" }), "until"),
        (json!({ "since": SINCE, "actor": "" }), "actor"),
        (
            json!({ "since": SINCE, "entityType": "page" }),
            "entityType",
        ),
        (json!({ "since": SINCE, "client": "it" }), "client"),
        (json!({ "since": SINCE, "_dryRun": true }), "_dryRun"),
    ] {
        let error = client.call_error("undo_changes", arguments.clone()).await;

        assert_eq!(error["code"], "VALIDATION_FAILED", "{arguments}: {error}");
        let violation = &error["details"]["violations"][0];
        assert_eq!(violation["path"], path, "{arguments}: {error}");
    }
    let empty = client
        .call_error("undo_changes", json!({ "auditIds": [] }))
        .await;
    assert_eq!(
        empty["details"]["violations"][0]["message"],
        "expected a non-empty array"
    );
    let neither = client.call_error("undo_changes", json!({})).await;
    let message = neither["message"].to_string();
    assert!(
        message.contains("auditIds") && message.contains("since"),
        "{message}"
    );
}

#[tokio::test]
async fn what_one_client_did_is_undone_and_what_came_later_stays() {
    on_each_store(async |store: &Store| {
        store_with(store, &["a", "b", "c"]).await;
        let robot = client(store, "robot").await;
        let editor = client(store, "editor").await;
        update(&robot, "a", json!({ "title": "Robot", "result": "Robot" })).await;
        update(&robot, "b", json!({ "title": "Robot" })).await;
        let last = update(&editor, "a", json!({ "title": "Editor" })).await;
        update(&editor, "c", json!({ "title": "Editor" })).await;
        let filter = json!({ "since": SINCE, "clientId": "robot" });
        let mut dry_run = filter.clone();
        dry_run["dryRun"] = json!(true);

        let shown = editor.call("undo_changes", dry_run).await;
        let untouched = project(&editor, "b").await;
        let undone = editor.call("undo_changes", filter.clone()).await;
        let again = editor.call("undo_changes", filter).await;

        assert_eq!(untouched["title"], "Robot");
        assert_eq!(
            shown["meta"].as_object().unwrap().keys().next().unwrap(),
            "dryRun"
        );
        assert_eq!(undone["meta"].get("dryRun"), None);
        for answer in [&shown, &undone] {
            assert_eq!(
                answer["meta"]["counts"],
                json!({ "undone": 2, "kept": 1, "alreadyGone": 0 }),
                "{answer}"
            );
            let kept = &answer["meta"]["kept"][0];
            assert_eq!(kept["entityType"], "project", "{kept}");
            assert_eq!(kept["entityId"], "a", "{kept}");
            assert_eq!(kept["field"], "title", "{kept}");
            assert_eq!(kept["auditId"], last.as_str(), "{kept}");
            assert_eq!(kept["clientId"], "editor/1.0", "{kept}");
            assert!(
                kept["actor"].is_string() && kept["timestamp"].is_string(),
                "{kept}"
            );
            assert_eq!(answer["data"].as_array().unwrap().len(), 2, "{answer}");
        }
        assert_eq!(shown["data"][0].get("auditId"), None);
        let row = &undone["data"][0];
        assert_eq!(row["entityType"], "project", "{row}");
        assert_eq!(row["entityId"], "a", "{row}");
        assert_eq!(row["title"], "Editor", "{row}");
        let read = editor.call("get_project", json!({ "id": "a" })).await;
        assert_eq!(row["version"], read["meta"]["version"]);
        assert_eq!(read["data"]["title"], "Editor");
        assert_eq!(read["data"]["result"], "Twice the bookings");
        assert_eq!(project(&editor, "b").await["title"], "The case of b");
        assert_eq!(project(&editor, "c").await["title"], "Editor");
        assert_eq!(again["data"], json!([]), "{again}");
        assert!(
            again["meta"]["warnings"].to_string().contains("nothing"),
            "{again}"
        );
        let log = editor
            .call("get_audit_log", json!({ "action": "revert" }))
            .await;
        assert_eq!(log["data"].as_array().unwrap().len(), 2, "{log}");
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn changes_are_undone_by_their_ids_and_so_is_the_undo() {
    let store = Store::sqlite();
    store_with(&store, &["a", "b"]).await;
    let client = client(&store, "it").await;
    let first = update(&client, "a", json!({ "title": "New" })).await;
    let second = update(&client, "b", json!({ "title": "New" })).await;

    let undone = client
        .call(
            "undo_changes",
            json!({ "auditIds": [first, second], "reason": "wrong" }),
        )
        .await;
    let titles = [project(&client, "a").await, project(&client, "b").await];
    let ids: Vec<&Value> = undone["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["auditId"])
        .collect();
    let log = client
        .call("get_audit_log", json!({ "limit": 1, "detail": "full" }))
        .await;
    let as_text = json!(ids).to_string();
    client
        .call("undo_changes", json!({ "auditIds": as_text }))
        .await;

    assert_eq!(titles[0]["title"], "The case of a");
    assert_eq!(titles[1]["title"], "The case of b");
    assert_eq!(log["data"][0]["metadata"]["reason"], "wrong", "{log}");
    assert_eq!(project(&client, "a").await["title"], "New");
    store.assert_sound().await;
}

#[tokio::test]
async fn a_repeated_undo_gets_the_first_answer() {
    on_each_store(async |store: &Store| {
        store_with(store, &["a"]).await;
        let client = client(store, "it").await;
        let change = update(&client, "a", json!({ "title": "New" })).await;
        let request = json!({ "auditIds": [change], "idempotencyKey": "k1" });

        let first = client.call("undo_changes", request.clone()).await;
        update(&client, "a", json!({ "title": "Newer" })).await;
        let second = client.call("undo_changes", request).await;
        let other = json!({ "since": SINCE, "idempotencyKey": "k1" });
        let other = client.call_error("undo_changes", other).await;

        assert_eq!(second["meta"]["replayed"], true, "{second}");
        assert_eq!(second["data"][0]["auditId"], first["data"][0]["auditId"]);
        assert_eq!(second["data"][0]["changes"], first["data"][0]["changes"]);
        assert!(!second.to_string().contains("nothing"), "{second}");
        assert_eq!(other["code"], "IDEMPOTENCY_MISMATCH", "{other}");
        assert_eq!(project(&client, "a").await["title"], "Newer");
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn a_creation_stays_and_the_answer_says_why() {
    let store = Store::sqlite();
    store_with(&store, &["a"]).await;
    let mut arguments = store.arguments();
    arguments.push("--toolsets=content,history".to_owned());
    let client = StdioClient::start_with(&arguments).await;
    let log = client
        .call("get_audit_log", json!({ "action": "create" }))
        .await;
    let creation = log["data"][0]["auditId"].clone();

    let answer = client
        .call("undo_changes", json!({ "auditIds": [creation] }))
        .await;

    assert_eq!(answer["data"], json!([]), "{answer}");
    let kept = &answer["meta"]["kept"][0];
    assert!(
        kept["reason"].as_str().unwrap().contains("delete"),
        "{kept}"
    );
    assert_eq!(project(&client, "a").await["id"], "a");
    store.assert_sound().await;
}

#[tokio::test]
async fn a_change_from_outside_is_called_recorded_only_once_it_is() {
    let store = Store::sqlite();
    let key = store_with(&store, &["a"]).await.remove(0);
    let client = client(&store, "it").await;
    let change = update(&client, "a", json!({ "title": "New" })).await;
    let found = store.repository.get(&key).await.unwrap().record.unwrap();
    let outside = fixtures::with(found.document(), json!({ "title": "From outside" }));
    store.edit(&key, Some(&Value::Object(outside).to_string()));

    let request = json!({ "auditIds": [change] });
    let undone = client.call("undo_changes", request).await;

    assert_eq!(undone["data"], json!([]), "{undone}");
    let warnings = undone["meta"]["warnings"].to_string();
    assert!(warnings.contains("changed outside"), "{undone}");
    assert!(!warnings.contains("before this change"), "{undone}");
    store.assert_sound_but(&[key]).await;
}

#[tokio::test]
async fn an_answer_about_much_is_small_and_counts_the_rest() {
    let store = Store::sqlite();
    let server = HttpServer::start(&store, &["--toolsets=all", "--rate-limit=0"]);
    let long = "\u{a0}é".repeat(90);
    for number in 0..150 {
        let key = project_key(&format!("number-{number}"));
        let document = fixtures::with(&fixtures::project(&key.id), json!({ "title": long }));
        create(&*store.repository, &key, document).await;
        let kept = json!({ "result": "first", "title": "t", "challenge": long, "image": "/a" });
        let robot = &[("User-Agent", "robot/1.0")];
        let data = json!({ "id": key.id, "data": kept });
        tool_output(&server.call_with(robot, "update_project", &data));
        let data = json!({ "id": key.id, "data": { "result": "last", "image": "/b" } });
        tool_output(&server.call("update_project", &data));
    }
    let filter = json!({ "since": SINCE, "clientId": "robot" });

    let result = server.call("undo_changes", &filter);

    let bytes = result["content"][0]["text"].as_str().unwrap().len();
    let answer = tool_output(&result);
    let (rows, kept) = (&answer["data"], &answer["meta"]["kept"]);
    let (rows, kept) = (
        rows.as_array().unwrap().len(),
        kept.as_array().unwrap().len(),
    );
    assert!(bytes <= MAX_BYTES, "{bytes}");
    assert!(rows > 5 && kept > 10, "{rows} rows, {kept} kept");
    assert_eq!(answer["meta"]["more"], 150 - rows);
    assert_eq!(answer["meta"]["moreKept"], 300 - kept);
    assert_eq!(
        answer["meta"]["counts"],
        json!({ "undone": 300, "kept": 300, "alreadyGone": 0 })
    );
    store.assert_sound().await;
}

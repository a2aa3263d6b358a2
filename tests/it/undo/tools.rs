//! Undo through the tools, on every store.

use std::sync::Arc;

use portfolio_mcp::{
    clock,
    domain::{AuditQuery, StoredEntry},
    mcp::{ContentServer, Toolsets},
    service::ContentService,
};
use serde_json::{Value, json};

use crate::support::{
    fixtures::{
        Document, create, creation, document, legacy_entries, now, once, project, project_key, with,
    },
    program::repository_path,
    soundness::entries,
    stdio::StdioClient,
    stores::{Store, on_each_store},
};

/// A server on `store` that offers every tool.
fn server_on(store: &Store, read_only: Option<&str>) -> ContentServer {
    let content = Arc::new(ContentService::new(store.open(), clock));
    ContentServer::new(content, Some("owner"), read_only).with_toolsets(Toolsets::all())
}

/// A client that is called `name`.
async fn client_on(store: &Store, name: &str) -> StdioClient {
    let client = StdioClient::of(server_on(store, None));
    client.initialize(name, "1.0").await;
    client
}

async fn project_on(store: &Store, id: &str, patch: Value) {
    let document = with(&project(id), patch);
    create(&*store.repository, &project_key(id), document).await;
}

async fn update(client: &StdioClient, id: &str, data: Value) -> String {
    let updated = client
        .call("update_project", json!({ "id": id, "data": data }))
        .await;
    updated["meta"]["auditId"].as_str().unwrap().to_owned()
}

async fn value(client: &StdioClient, id: &str, field: &str) -> Value {
    client.call("get_project", json!({ "id": id })).await["data"][field].clone()
}

async fn newest_entry(store: &Store) -> StoredEntry {
    let all = entries(&*store.repository, &AuditQuery::default()).await;
    all.into_iter().next_back().unwrap()
}

fn violations(error: &Value) -> &Vec<Value> {
    assert_eq!(error["code"], "VALIDATION_FAILED", "{error}");
    error["details"]["violations"].as_array().unwrap()
}

#[tokio::test]
async fn everything_that_a_client_did_is_undone_in_one_transaction() {
    on_each_store(async |store| {
        let (ai, marie) = (
            client_on(store, "ai").await,
            client_on(store, "marie").await,
        );
        for id in ["a", "b"] {
            project_on(store, id, json!({ "result": "10" })).await;
        }
        update(&ai, "a", json!({ "result": "12" })).await;
        update(&marie, "a", json!({ "result": "15" })).await;
        update(&ai, "a", json!({ "result": "20" })).await;
        update(&ai, "b", json!({ "title": "By the AI", "result": "11" })).await;
        let kept_by = update(&marie, "b", json!({ "result": "16" })).await;
        let arguments =
            json!({ "since": "2020-01-01T00:00:00Z", "clientId": "ai", "reason": "wrong" });
        let with = |name: &str, value: Value| {
            let mut arguments = arguments.clone();
            arguments[name] = value;
            arguments
        };

        let before = entries(&*store.repository, &AuditQuery::default())
            .await
            .len();
        let shown = marie
            .call("undo_changes", with("dryRun", json!(true)))
            .await;
        assert_eq!(
            shown["meta"].as_object().unwrap().keys().next().unwrap(),
            "dryRun"
        );
        assert_eq!(
            entries(&*store.repository, &AuditQuery::default())
                .await
                .len(),
            before
        );
        let undone = marie
            .call("undo_changes", with("idempotencyKey", json!("once")))
            .await;
        let again = marie
            .call("undo_changes", with("idempotencyKey", json!("once")))
            .await;

        assert_eq!(value(&marie, "a", "result").await, "15");
        assert_eq!(value(&marie, "b", "result").await, "16");
        assert_eq!(value(&marie, "b", "title").await, "The case of b");
        let meta = &undone["meta"];
        assert_eq!(
            meta["counts"],
            json!({ "undone": 2, "kept": 1, "alreadyGone": 0 })
        );
        assert_eq!(meta["counts"], shown["meta"]["counts"]);
        let kept = &meta["kept"][0];
        assert_eq!(kept["entityType"], "project");
        assert_eq!(
            (&kept["entityId"], &kept["field"]),
            (&json!("b"), &json!("result"))
        );
        assert_eq!(kept["auditId"], kept_by.as_str());
        assert_eq!(
            (&kept["actor"], &kept["clientId"]),
            (&json!("owner"), &json!("marie/1.0"))
        );
        assert_eq!(undone["data"].as_array().unwrap().len(), 2);
        assert_eq!(undone["data"][0]["entityId"], "a");
        assert_eq!(undone["data"][0]["changes"][0]["newValue"], "15");
        assert_eq!(again["meta"]["replayed"], true);
        assert_eq!(again["data"][0]["auditId"], undone["data"][0]["auditId"]);
        let log = store.assert_sound().await;
        let ours: Vec<&StoredEntry> = log.entries.iter().rev().take(2).collect();
        for entry in &ours {
            assert_eq!(entry.text_of("action"), Some("revert"));
            assert_eq!(entry.origin_text("reason"), Some("wrong"));
            assert_eq!(entry.operation(), ours[0].operation());
        }
        assert_eq!(log.entries.len(), before + 2);
    })
    .await;
}

#[tokio::test]
async fn an_update_undoes_one_change() {
    on_each_store(async |store| {
        let client = client_on(store, "ai").await;
        project_on(store, "a", json!({ "result": "one" })).await;
        let first = update(&client, "a", json!({ "result": "two" })).await;
        let second = update(&client, "a", json!({ "result": "three" })).await;

        let mut arguments = json!({ "id": "a", "undo": second, "dryRun": true });
        let shown = client.call("update_project", arguments.clone()).await;
        assert_eq!(shown["meta"]["changes"][0]["newValue"], "two");
        assert_eq!(value(&client, "a", "result").await, "three");
        arguments["dryRun"] = Value::Null;
        let undone = client.call("update_project", arguments).await;
        assert_eq!(undone["meta"]["changes"][0]["newValue"], "two");
        assert_eq!(
            undone["meta"]["counts"],
            json!({ "undone": 1, "kept": 0, "alreadyGone": 0 })
        );
        client
            .call(
                "update_project",
                json!({ "id": "a", "undo": first, "data": {} }),
            )
            .await;

        assert_eq!(value(&client, "a", "result").await, "one");
        assert_eq!(
            newest_entry(store).await.reverts().collect::<Vec<_>>(),
            [first.as_str()]
        );
        let again = client
            .call("update_project", json!({ "id": "a", "undo": first }))
            .await;
        assert_eq!(again["meta"]["changes"], json!([]));
        assert!(again["meta"].get("auditId").is_none());
        assert!(
            again["meta"]["warnings"][0]
                .as_str()
                .unwrap()
                .contains("nothing is left to undo")
        );
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_undone_is_refused_with_the_reason() {
    on_each_store(async |store| {
        let client = client_on(store, "ai").await;
        project_on(store, "a", json!({})).await;
        project_on(store, "b", json!({})).await;
        let change = update(&client, "b", json!({ "title": "New" })).await;
        let older = json!({ "id": "older", "timestamp": "2024-01-01T00:00:00Z", "action": "update", "entityType": "project",
            "entityId": "a", "changes": [{ "field": "resource_data", "oldValue": "previous_state", "newValue": "x" }] });
        let imported = [StoredEntry::parse(older.to_string())];
        store.history.import_entries(&imported, now()).await.unwrap();

        for (tool, arguments, path, part) in [
            ("update_project", json!({ "id": "a", "undo": change }), "undo", "project `b`"),
            ("update_project", json!({ "id": "a", "undo": "no-such" }), "undo", "no entry"),
            ("update_project", json!({ "id": "a", "undo": "older" }), "undo", "older program"),
            ("update_project", json!({ "id": "a", "undo": change, "data": { "title": "x" } }), "undo", "without `data`"),
            ("undo_changes", json!({ "auditIds": [change, "no-such"] }), "auditIds", "no entry"),
            ("undo_changes", json!({ "auditIds": ["older"] }), "auditIds", "older program"),
            ("undo_changes", json!({}), "since", "either"),
            ("undo_changes", json!({ "clientId": "ai" }), "since", "either"),
            ("undo_changes", json!({ "auditIds": [change], "since": "2020-01-01T00:00:00Z" }), "auditIds", "either"),
            ("undo_changes", json!({ "auditIds": [] }), "auditIds", ""),
            ("undo_changes", json!({ "since": "yesterday" }), "since", "RFC 3339"),
        ] {
            let error = client.call_error(tool, arguments.clone()).await;

            let violation = &violations(&error)[0];
            assert_eq!(violation["path"], path, "{arguments}");
            let message = violation["message"].as_str().unwrap();
            assert!(message.contains(part), "{arguments}: {message}");
        }
        assert_eq!(value(&client, "b", "title").await, "New");
        let matching = json!({ "since": "2020-01-01T00:00:00Z", "entityId": "a" });
        let left_out = client.call("undo_changes", matching).await;
        assert_eq!(left_out["data"], json!([]));
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn entries_of_older_programs_are_never_written_into_a_page() {
    on_each_store(async |store| {
        let client = client_on(store, "ai").await;
        let foreign = legacy_entries();
        store.history.import_entries(&foreign, now()).await.unwrap();
        for entry in &foreign {
            let Some(key) = entry.key() else { continue };
            if store.repository.get(&key).await.unwrap().record.is_none() {
                create(&*store.repository, &key, document(key.kind, &key.id)).await;
            }
        }
        let before = entries(&*store.repository, &AuditQuery::default())
            .await
            .len();

        let all = json!({ "since": "1990-01-01T00:00:00Z", "source": "api" });
        let undone = client.call("undo_changes", all).await;

        assert_eq!(undone["data"], json!([]));
        assert_eq!(
            entries(&*store.repository, &AuditQuery::default())
                .await
                .len(),
            before
        );
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn an_import_undone_by_a_filter_deletes_nothing() {
    on_each_store(async |store| {
        store.import(&repository_path("examples/content"));
        let client = client_on(store, "ai").await;
        let all = json!({ "since": "1990-01-01T00:00:00Z" });

        let undone = client.call("undo_changes", all).await;

        assert_eq!(undone["data"], json!([]));
        let log = store.assert_sound().await;
        let created = log
            .entries
            .iter()
            .find(|entry| entry.text_of("action") == Some("create"));
        let id = created.unwrap().text_of("id").unwrap();
        let kept = client
            .call("undo_changes", json!({ "auditIds": [id] }))
            .await;
        assert_eq!(kept["data"], json!([]));
        assert_eq!(kept["meta"]["kept"][0]["auditId"], id);
        assert!(
            kept["meta"]["kept"][0]["why"]
                .as_str()
                .unwrap()
                .contains("delete")
        );
        assert_eq!(log.documents.len(), 6);
    })
    .await;
}

#[tokio::test]
async fn a_violation_that_comes_back_is_a_warning() {
    on_each_store(async |store| {
        let client = client_on(store, "ai").await;
        project_on(store, "a", json!({ "title": "" })).await;
        let repaired = update(&client, "a", json!({ "title": "Repaired" })).await;

        let undone = client
            .call("undo_changes", json!({ "auditIds": [repaired] }))
            .await;

        assert_eq!(value(&client, "a", "title").await, "");
        let warning = undone["meta"]["warnings"][0].as_str().unwrap();
        assert!(warning.contains("title"), "{warning}");
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn a_document_that_was_changed_outside_is_recorded_first() {
    on_each_store(async |store| {
        let client = client_on(store, "ai").await;
        project_on(store, "a", json!({})).await;
        let change = update(&client, "a", json!({ "title": "By the AI" })).await;
        let found = store.repository.get(&project_key("a")).await.unwrap();
        let mut outside: Document = found.record.unwrap().document().clone();
        outside.insert("challenge".to_owned(), json!("From outside"));
        store.edit(&project_key("a"), Some(&Value::Object(outside).to_string()));
        let arguments = |dry_run: bool| json!({ "auditIds": [change], "dryRun": dry_run });

        let shown = client.call("undo_changes", arguments(true)).await;
        let undone = client.call("undo_changes", arguments(false)).await;

        assert_eq!(
            shown["data"][0]["changes"][0],
            undone["data"][0]["changes"][0]
        );
        assert_eq!(value(&client, "a", "title").await, "The case of a");
        assert_eq!(value(&client, "a", "challenge").await, "From outside");
        let log = store.assert_sound().await;
        let actions: Vec<_> = log
            .entries
            .iter()
            .filter_map(|entry| entry.text_of("action"))
            .collect();
        assert_eq!(actions, ["create", "update", "adopt", "revert"]);
    })
    .await;
}

#[tokio::test]
async fn too_much_is_refused_with_a_way_to_narrow_it() {
    let store = Store::sqlite();
    let client = client_on(&store, "ai").await;
    let long = "x".repeat(100_000);
    for batch in 0..9 {
        let creations: Vec<_> = (0..25)
            .map(|number| project_key(&format!("p-{batch}-{number}")))
            .map(|key| creation(&key, &project(&key.id)))
            .collect();
        store.repository.commit(&creations, &once()).await.unwrap();
    }
    for number in 0..50 {
        let id = format!("p-{}-{}", number / 25, number % 25);
        update(&client, &id, json!({ "challenge": long })).await;
    }
    let all = json!({ "since": "1990-01-01T00:00:00Z" });
    let longest = json!({ "since": "1990-01-01T00:00:00Z", "clientId": "ai" });

    let documents = client.call_error("undo_changes", all).await;
    let bytes = client.call_error("undo_changes", longest.clone()).await;

    for (error, part) in [(documents, "200 documents"), (bytes, "bytes of documents")] {
        let message = violations(&error)[0]["message"].as_str().unwrap();
        assert!(
            message.contains(part) && message.contains("in parts"),
            "{message}"
        );
    }
    for number in 20..50 {
        let id = format!("p-{}-{}", number / 25, number % 25);
        update(&client, &id, json!({ "challenge": "short" })).await;
    }
    let undone = client.call("undo_changes", longest).await;
    assert_eq!(undone["meta"]["counts"]["undone"], 50);
    store.assert_sound().await;
}

#[tokio::test]
async fn a_long_answer_is_counted() {
    let store = Store::sqlite();
    let client = client_on(&store, "ai").await;
    let creations: Vec<_> = (0..150)
        .map(|number| project_key(&format!("p-{number}")))
        .map(|key| creation(&key, &project(&key.id)))
        .collect();
    store.repository.commit(&creations, &once()).await.unwrap();
    let text = "é".repeat(190);
    for number in 0..150 {
        let data = json!({ "challenge": text, "description": text, "title": text });
        update(&client, &format!("p-{number}"), data).await;
    }

    let arguments = json!({ "since": "1990-01-01T00:00:00Z", "clientId": "ai" });
    let undone = client.call("undo_changes", arguments).await;

    let rows = undone["data"].as_array().unwrap().len();
    assert_eq!(
        rows + usize::try_from(undone["meta"]["more"].as_u64().unwrap()).unwrap(),
        150
    );
    assert!(undone.to_string().len() <= 32_000);
    assert_eq!(undone["meta"]["counts"]["undone"], 450);
    store.assert_sound().await;
}

#[tokio::test]
async fn a_toolset_that_is_off_is_named() {
    let store = Store::sqlite();
    let content = Arc::new(ContentService::new(store.open(), clock));
    let client = StdioClient::of(ContentServer::new(content, None, None));

    let call = json!({ "name": "undo_changes", "arguments": { "auditIds": ["x"] } });
    let error = client.error("tools/call", call).await;

    assert_eq!(error["code"], -32602);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("--toolsets content,history"), "{message}");
    let tools = client.result("tools/list", json!({})).await;
    assert_eq!(tools["tools"].as_array().unwrap().len(), 8);
}

#[tokio::test]
async fn a_read_only_server_hides_undo_and_refuses_it() {
    let store = Store::sqlite();
    let client = StdioClient::of(server_on(&store, Some("read-only mode is on")));

    let tools = client.result("tools/list", json!({})).await.to_string();
    let error = client
        .call_error("undo_changes", json!({ "auditIds": ["x"] }))
        .await;

    assert!(!tools.contains("undo_changes"));
    assert_eq!(error["code"], "STORE_READ_ONLY");
}

#[tokio::test]
async fn an_undo_wins_against_other_writers() {
    on_each_store(async |store| {
        let client = client_on(store, "ai").await;
        project_on(store, "a", json!({})).await;
        let change = update(&client, "a", json!({ "title": "By the AI" })).await;
        let writers = (0..4).map(async |writer: usize| {
            let other = client_on(store, "marie").await;
            for number in 0..10 {
                let text = format!("{writer} {number}");
                update(&other, "a", json!({ "challenge": text })).await;
            }
        });

        let undo = client.call("undo_changes", json!({ "auditIds": [change] }));
        futures::future::join(undo, futures::future::join_all(writers)).await;

        assert_eq!(value(&client, "a", "title").await, "The case of a");
        let log = store.assert_sound().await;
        assert_eq!(log.entries.len(), 43);
    })
    .await;
}

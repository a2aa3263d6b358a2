//! `undo` of the update tools, on every store.

use portfolio_mcp::domain::{AuditQuery, Change, StoredEntry};
use serde_json::{Value, json};

use crate::support::{
    fixtures::{create, now, once, project, project_key, with, write_context},
    soundness::entries,
    stdio::StdioClient,
    stores::{Store, on_each_store},
};

async fn project_on(store: &Store, id: &str, patch: Value) {
    let document = with(&project(id), patch);
    create(&*store.repository, &project_key(id), document).await;
}

fn client_on(store: &Store) -> StdioClient {
    StdioClient::in_process(store.open(), None)
}

async fn update(client: &StdioClient, id: &str, data: Value) -> String {
    let arguments = json!({ "id": id, "data": data });
    let updated = client.call("update_project", arguments).await;
    updated["meta"]["auditId"].as_str().unwrap().to_owned()
}

async fn undo(client: &StdioClient, audit_id: &str) -> Value {
    let arguments = json!({ "id": "a", "undo": audit_id });
    client.call("update_project", arguments).await
}

async fn value(client: &StdioClient, id: &str, field: &str) -> Value {
    client.call("get_project", json!({ "id": id })).await["data"][field].clone()
}

#[tokio::test]
async fn one_change_is_undone_and_shown_first() {
    on_each_store(async |store| {
        let client = client_on(store);
        project_on(store, "a", json!({ "result": "one" })).await;
        let first = update(&client, "a", json!({ "result": "two" })).await;
        let second = update(&client, "a", json!({ "result": "three" })).await;

        let dry_run = json!({ "id": "a", "undo": second, "dryRun": true, "edits": [] });
        let shown = client.call("update_project", dry_run).await;
        assert_eq!(shown["meta"]["changes"][0]["newValue"], "two");
        assert_eq!(value(&client, "a", "result").await, "three");
        let undone = undo(&client, &second).await;
        assert_eq!(undone["meta"]["changes"][0], shown["meta"]["changes"][0]);
        assert_eq!(
            undone["meta"]["counts"],
            json!({ "undone": 1, "kept": 0, "alreadyGone": 0 })
        );
        assert_eq!(undone["data"]["result"], "two");
        let reason = json!({ "id": "a", "undo": first, "data": {}, "reason": "wrong" });
        client.call("update_project", reason).await;

        assert_eq!(value(&client, "a", "result").await, "one");
        let log = store.assert_sound().await;
        let entry = log.entries.last().unwrap();
        assert_eq!(entry.text_of("action"), Some("revert"));
        assert_eq!(entry.origin_text("reason"), Some("wrong"));
        assert_eq!(entry.reverts().collect::<Vec<_>>(), [first.as_str()]);
    })
    .await;
}

#[tokio::test]
async fn nothing_is_written_when_nothing_is_left_to_undo() {
    on_each_store(async |store| {
        let client = client_on(store);
        project_on(store, "a", json!({})).await;
        let change = update(&client, "a", json!({ "result": "two" })).await;
        undo(&client, &change).await;
        let before = entries(&*store.repository, &AuditQuery::default())
            .await
            .len();

        let again = undo(&client, &change).await;

        assert_eq!(again["meta"]["changes"], json!([]));
        assert!(again["meta"].get("auditId").is_none());
        let warning = again["meta"]["warnings"][0].as_str().unwrap();
        assert!(warning.contains("nothing is left to undo"), "{warning}");
        assert_eq!(store.assert_sound().await.entries.len(), before);
    })
    .await;
}

#[tokio::test]
async fn a_field_that_stays_is_named_with_its_last_change() {
    on_each_store(async |store| {
        let client = client_on(store);
        client.initialize("marie", "1.0").await;
        project_on(store, "a", json!({})).await;
        let change = update(&client, "a", json!({ "result": "two", "title": "New" })).await;
        let later = update(&client, "a", json!({ "result": "three" })).await;

        let undone = undo(&client, &change).await;

        let mut kept = undone["meta"]["kept"][0].clone();
        assert!(kept["timestamp"].take().is_string());
        assert_eq!(
            kept,
            json!({ "entityType": "project", "entityId": "a", "field": "result", "auditId": later,
                "actor": "owner", "clientId": "marie/1.0", "timestamp": null })
        );
        assert_eq!(
            undone["meta"]["counts"],
            json!({ "undone": 1, "kept": 1, "alreadyGone": 0 })
        );
        assert_eq!(value(&client, "a", "title").await, "The case of a");
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn a_repeated_undo_gets_the_first_answer() {
    on_each_store(async |store| {
        let client = client_on(store);
        project_on(store, "a", json!({})).await;
        let change = update(&client, "a", json!({ "result": "two" })).await;
        let arguments = json!({ "id": "a", "undo": change, "idempotencyKey": "once" });

        let first = client.call("update_project", arguments.clone()).await;
        update(&client, "a", json!({ "result": "three" })).await;
        let again = client.call("update_project", arguments).await;

        assert_eq!(again["meta"]["replayed"], true);
        assert_eq!(again["meta"]["auditId"], first["meta"]["auditId"]);
        assert_eq!(again["meta"]["changes"], first["meta"]["changes"]);
        assert_eq!(value(&client, "a", "result").await, "three");
        let other = json!({ "id": "a", "data": { "title": "x" }, "idempotencyKey": "once" });
        let error = client.call_error("update_project", other).await;
        assert_eq!(error["code"], "IDEMPOTENCY_MISMATCH");
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn an_outdated_version_is_a_conflict() {
    on_each_store(async |store| {
        let client = client_on(store);
        project_on(store, "a", json!({})).await;
        let change = update(&client, "a", json!({ "result": "two" })).await;
        let read = client.call("get_project", json!({ "id": "a" })).await;
        update(&client, "a", json!({ "title": "New" })).await;

        let arguments =
            json!({ "id": "a", "undo": change, "expectedVersion": read["meta"]["version"] });
        let error = client.call_error("update_project", arguments).await;

        assert_eq!(error["code"], "VERSION_CONFLICT");
        assert_eq!(error["details"]["changedSince"][0]["fields"][0], "title");
        assert_eq!(value(&client, "a", "result").await, "two");
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_undone_is_refused_with_the_reason() {
    on_each_store(async |store| {
        let client = client_on(store);
        project_on(store, "a", json!({})).await;
        project_on(store, "b", json!({})).await;
        let change = update(&client, "b", json!({ "title": "New" })).await;
        let older = json!({ "id": "older", "timestamp": "2024-01-01T00:00:00Z", "action": "update", "entityType": "project",
            "entityId": "a", "changes": [{ "field": "resource_data", "oldValue": "previous_state", "newValue": "x" }] });
        let imported = [StoredEntry::parse(older.to_string())];
        store.history.import_entries(&imported, now()).await.unwrap();
        let title = json!({ "title": "x" });
        let append = json!([{ "path": "tags", "op": "append", "value": "x" }]);

        for (arguments, part) in [
            (json!({ "id": "a", "undo": change }), "project `b`"),
            (json!({ "id": "a", "undo": "no-such" }), "no entry"),
            (json!({ "id": "a", "undo": "older" }), "older program"),
            (json!({ "id": "b", "undo": change, "data": title }), "without `data`"),
            (json!({ "id": "b", "undo": change, "edits": append }), "without `data`"),
        ] {
            let error = client.call_error("update_project", arguments.clone()).await;

            assert_eq!(error["code"], "VALIDATION_FAILED", "{arguments}: {error}");
            let violation = &error["details"]["violations"][0];
            assert_eq!(violation["path"], "undo", "{arguments}");
            let message = violation["message"].as_str().unwrap();
            assert!(message.contains(part), "{arguments}: {message}");
        }
        let missing = json!({ "id": "no-such", "undo": change });
        let missing = client.call_error("update_project", missing).await;
        assert_eq!(missing["code"], "VALIDATION_FAILED");
        assert_eq!(value(&client, "b", "title").await, "New");
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn the_creation_of_a_document_stays() {
    on_each_store(async |store| {
        let client = client_on(store);
        project_on(store, "a", json!({})).await;
        let log = entries(&*store.repository, &AuditQuery::default()).await;
        let created = log[0].text_of("id").unwrap();

        let undone = undo(&client, created).await;

        assert_eq!(undone["meta"]["changes"], json!([]));
        let kept = &undone["meta"]["kept"][0];
        assert_eq!(kept["auditId"], created);
        assert!(
            kept["reason"].as_str().unwrap().contains("delete"),
            "{kept}"
        );
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn a_deleted_document_comes_back_as_a_creation() {
    on_each_store(async |store| {
        let client = client_on(store);
        let key = project_key("a");
        project_on(store, "a", json!({})).await;
        let current = store.repository.get_for_update(&key).await.unwrap();
        let operation = once();
        let deletion = Change::delete(&current, write_context(&operation)).unwrap();
        let deleted = deletion.entry().id.clone();
        let changes = [deletion];
        store.repository.commit(&changes, &operation).await.unwrap();

        let dry_run = json!({ "id": "a", "undo": deleted, "dryRun": true });
        let shown = client.call("update_project", dry_run).await;
        let undone = undo(&client, &deleted).await;
        let log = client.call("get_audit_log", json!({ "limit": 1 })).await;

        let created = &undone["meta"]["changes"][0]["created"];
        assert_eq!(created["title"], "The case of a", "{undone}");
        assert_eq!(created["fields"][0], "id", "{undone}");
        assert_eq!(shown["meta"]["changes"], undone["meta"]["changes"]);
        assert_eq!(shown["meta"].get("version"), None, "{shown}");
        assert_eq!(shown["data"].get("version"), None, "{shown}");
        assert!(undone["meta"]["version"].is_string(), "{undone}");
        assert_eq!(log["data"][0]["action"], "revert");
        assert_eq!(log["data"][0]["changes"], undone["meta"]["changes"]);
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn fields_that_stay_and_are_not_listed_are_counted() {
    let store = Store::sqlite();
    let client = client_on(&store);
    project_on(&store, "a", json!({})).await;
    let key = project_key("a");
    let mut ids = Vec::new();
    for value in ["one", "two"] {
        let fields = (0..100).map(|number| (format!("field{number}"), json!(value)));
        let document = with(&project("a"), Value::Object(fields.collect()));
        let current = store.repository.get_for_update(&key).await.unwrap();
        let operation = once();
        let change = Change::put(&current, &document, write_context(&operation)).unwrap();
        ids.push(change.entry().id.clone());
        let changes = [change];
        store.repository.commit(&changes, &operation).await.unwrap();
    }

    let undone = undo(&client, &ids[0]).await;

    let listed = undone["meta"]["kept"].as_array().unwrap().len();
    let all = undone["meta"]["counts"]["kept"].as_u64().unwrap();
    assert!(listed > 10, "{undone}");
    assert_eq!(undone["meta"]["moreKept"], all - listed as u64, "{undone}");
    store.assert_sound().await;
}

#[tokio::test]
async fn a_violation_that_comes_back_is_a_warning() {
    on_each_store(async |store| {
        let client = client_on(store);
        project_on(store, "a", json!({ "title": "" })).await;
        let repaired = update(&client, "a", json!({ "title": "Repaired" })).await;

        let undone = undo(&client, &repaired).await;

        assert_eq!(value(&client, "a", "title").await, "");
        let warning = undone["meta"]["warnings"][0].as_str().unwrap();
        assert!(warning.contains("title"), "{warning}");
        store.assert_sound().await;
    })
    .await;
}

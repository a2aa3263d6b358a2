//! Repeated writes whose document cannot be shown any more: the first call wrote, and the answer
//! says so.

use std::sync::Arc;

use portfolio_mcp::mcp::ContentServer;
use serde_json::{Value, json};

use super::service::{service_on, soon, update_of};
use crate::support::{
    contested::Contested,
    fixtures::{create_sound, project_key},
    stdio::StdioClient,
    stores::{Store, on_each_store},
};

/// A client of every tool on the store.
fn client_on(store: &Store, contested: &Arc<Contested>) -> StdioClient {
    let content = Arc::new(contested.service(store));
    let server = ContentServer::new(content, Some("owner"), None);
    StdioClient::of(server.offering("all".parse().unwrap()))
}

/// Project `a`, and writes of it that can be repeated.
async fn repeatable_writes(store: &Store) -> [(&'static str, Value); 3] {
    let key = project_key("a");
    create_sound(&*store.repository, &key).await;
    let service = service_on(store);
    let update = async |patch: Value| {
        let updated = service.update(update_of(&key, "AI", patch), soon()).await;
        updated.unwrap().audit_id.unwrap()
    };
    let title = update(json!({ "title": "By the AI" })).await;
    let result = update(json!({ "result": "By the AI" })).await;
    [
        (
            "update_project",
            json!({ "id": "a", "data": { "challenge": "New" }, "idempotencyKey": "k1" }),
        ),
        (
            "update_project",
            json!({ "id": "a", "undo": result, "idempotencyKey": "k2" }),
        ),
        (
            "undo_changes",
            json!({ "auditIds": [title], "idempotencyKey": "k3" }),
        ),
    ]
}

/// What was written, as an update or an undo of several documents tells it.
fn written(answer: &Value) -> (&Value, &Value) {
    let row = match answer["data"].get(0) {
        Some(row) => row,
        None => &answer["meta"],
    };
    assert!(row["auditId"].is_string(), "{answer}");
    (&row["auditId"], &row["changes"])
}

#[tokio::test]
async fn a_repeated_write_is_answered_while_the_document_cannot_be_read() {
    on_each_store(async |store| {
        let contested = Contested::new(store, []);
        let client = client_on(store, &contested);
        let writes = repeatable_writes(store).await;
        let mut first = Vec::new();
        for (tool, arguments) in &writes {
            first.push(client.call(tool, arguments.clone()).await);
        }

        contested.set_unreadable();

        for ((tool, arguments), first) in writes.iter().zip(&first) {
            let again = client.call(tool, arguments.clone()).await;
            assert_eq!(again["success"], true, "{tool}: {again}");
            assert_eq!(again["meta"]["replayed"], true, "{tool}: {again}");
            assert_eq!(written(&again), written(first), "{tool}");
            let warning = again["meta"]["warnings"][0].to_string();
            assert!(warning.contains("cannot be read now"), "{tool}: {again}");
            assert_eq!(again["data"][0].get("deleted"), None, "{tool}: {again}");
        }
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn a_repeated_write_is_answered_after_the_document_was_deleted() {
    on_each_store(async |store| {
        let client = client_on(store, &Contested::new(store, []));
        let [update, undo, _] = repeatable_writes(store).await;
        let mut first = Vec::new();
        for (tool, arguments) in [&update, &undo] {
            first.push(client.call(tool, arguments.clone()).await);
        }

        store.edit(&project_key("a"), None);

        for ((tool, arguments), first) in [&update, &undo].into_iter().zip(&first) {
            let again = client.call(tool, arguments.clone()).await;
            assert_eq!(again["meta"]["replayed"], true, "{again}");
            assert_eq!(written(&again), written(first));
            let warning = again["meta"]["warnings"][0].to_string();
            assert!(warning.contains("deleted since"), "{again}");
        }
        store.assert_sound_but(&[project_key("a")]).await;
    })
    .await;
}

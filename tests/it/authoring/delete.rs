//! `delete_project` and `delete_resource`, and how a document comes back.

use portfolio_mcp::domain::{DocumentKey, Kind};
use serde_json::{Value, json};

use crate::support::{
    fixtures::{self, create, create_sound, new_document, project_key, stored},
    program::{Home, PROGRAM},
    server::HttpServer,
    stdio::StdioClient,
    stores::{Store, on_each_store},
};

async fn version(client: &StdioClient, id: &str) -> Value {
    let read = client.call("get_project", json!({ "id": id })).await;
    read["meta"]["version"].clone()
}

/// A stored text with another `metadata.updatedAt`.
fn without_time(text: &str) -> String {
    let mut document: Value = serde_json::from_str(text).unwrap();
    document["metadata"]["updatedAt"] = json!("");
    document.to_string()
}

#[tokio::test]
async fn a_deleted_document_comes_back_as_it_was() {
    on_each_store(async |store: &Store| {
        let key = project_key("a");
        let odd = fixtures::with(
            &fixtures::project("a"),
            json!({ "legacy": { "z": 1, "a": [1.50] }, "metadata": { "status": "published" } }),
        );
        create(&*store.repository, &key, odd).await;
        let before = stored(&*store.repository, &key).await.unwrap();
        let client = StdioClient::start_with_all_toolsets(store).await;
        let server = HttpServer::start(store, &[]);
        let request =
            json!({ "id": "a", "expectedVersion": version(&client, "a").await, "reason": "asked" });
        let mut dry_run = request.clone();
        dry_run["dryRun"] = json!(true);

        let shown = client.call("delete_project", dry_run).await;
        let status_before = server.get("/api/projects/a").status;
        let deleted = client.call("delete_project", request).await;
        let gone = server.get("/api/projects/a").status;
        let listed = client.call("list_projects", json!({})).await;
        let undo = json!({ "auditIds": [deleted["meta"]["auditId"]] });
        let undone = client.call("undo_changes", undo).await;

        assert_eq!(
            shown["meta"].as_object().unwrap().keys().next().unwrap(),
            "dryRun"
        );
        assert_eq!(shown["meta"]["version"], shown["data"]["version"]);
        assert_eq!(shown["meta"].get("auditId"), None);
        assert_eq!(status_before, 200);
        assert_eq!(deleted["data"]["title"], "The case of a", "{deleted}");
        assert_eq!(deleted["meta"].get("version"), None, "{deleted}");
        assert_eq!(
            deleted["meta"]["changes"][0]["deleted"]["title"],
            "The case of a"
        );
        let warnings = deleted["meta"]["warnings"].to_string();
        for part in [
            "undo_changes",
            "portfolio-mcp undo",
            deleted["meta"]["auditId"].as_str().unwrap(),
        ] {
            assert!(warnings.contains(part), "{part}: {warnings}");
        }
        assert_eq!(gone, 404);
        assert_eq!(listed["meta"]["total"], 0, "{listed}");
        assert_eq!(undone["data"][0]["entityId"], "a", "{undone}");
        let after = stored(&*store.repository, &key).await.unwrap();
        assert_eq!(without_time(&after), without_time(&before));
        assert_eq!(server.get("/api/projects/a").status, 200);
        let log = client
            .call(
                "get_audit_log",
                json!({ "action": "delete", "detail": "full" }),
            )
            .await;
        let entry = &log["data"][0];
        assert_eq!(entry["metadata"]["reason"], "asked", "{entry}");
        assert_eq!(entry["changes"].as_array().unwrap().len(), 14, "{entry}");
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn the_command_brings_a_deleted_document_back_too() {
    let store = Store::sqlite();
    let key = DocumentKey::new(Kind::Resource, "a");
    create_sound(&*store.repository, &key).await;
    let before = stored(&*store.repository, &key).await.unwrap();
    let mut arguments = store.arguments();
    arguments.push("--toolsets=content,authoring".to_owned());
    let client = StdioClient::start_with(&arguments).await;
    let read = client.call("get_resource", json!({ "id": "a" })).await;
    let request = json!({ "id": "a", "expectedVersion": read["meta"]["version"] });

    let deleted = client.call("delete_resource", request).await;
    let audit_id = deleted["meta"]["auditId"].as_str().unwrap();
    let home = Home::new();
    let mut command = home.command(PROGRAM);
    let undone = command
        .args(["undo", audit_id, "--yes"])
        .args(store.arguments())
        .output()
        .unwrap();

    let warnings = deleted["meta"]["warnings"].to_string();
    assert!(warnings.contains("toolset `history`"), "{warnings}");
    assert!(undone.status.success(), "{undone:?}");
    let after = stored(&*store.repository, &key).await.unwrap();
    assert_eq!(without_time(&after), without_time(&before));
    store.assert_sound().await;
}

#[tokio::test]
async fn only_the_version_that_was_read_is_deleted() {
    on_each_store(async |store: &Store| {
        create_sound(&*store.repository, &project_key("a")).await;
        let client = StdioClient::start_with_all_toolsets(store).await;
        let read = version(&client, "a").await;
        client
            .call(
                "update_project",
                json!({ "id": "a", "data": { "title": "New" } }),
            )
            .await;

        let outdated = json!({ "id": "a", "expectedVersion": read });
        let conflict = client.call_error("delete_project", outdated).await;
        let missing = json!({ "id": "aa", "expectedVersion": read });
        let missing = client.call_error("delete_project", missing).await;

        assert_eq!(conflict["code"], "VERSION_CONFLICT", "{conflict}");
        let details = &conflict["details"];
        assert_eq!(details["currentVersion"], version(&client, "a").await);
        assert_eq!(
            details["changedSince"].as_array().unwrap().len(),
            1,
            "{conflict}"
        );
        assert!(
            conflict["message"]
                .as_str()
                .unwrap()
                .contains("was not deleted"),
            "{conflict}"
        );
        assert_eq!(missing["code"], "PROJECT_NOT_FOUND", "{missing}");
        assert_eq!(missing["details"]["similar"], json!(["a"]), "{missing}");
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn invalid_arguments_are_refused_before_anything_is_read() {
    let store = Store::sqlite();
    let client = StdioClient::start_with_all_toolsets(&store).await;
    for (arguments, path) in [
        (json!({ "id": "a" }), "expectedVersion"),
        (
            json!({ "id": "a", "expectedVersion": null }),
            "expectedVersion",
        ),
        (
            json!({ "id": "a", "expectedVersion": "" }),
            "expectedVersion",
        ),
        (json!({ "expectedVersion": "x" }), "id"),
        (
            json!({ "id": "a", "expectedVersion": "x", "data": {} }),
            "data",
        ),
        (
            json!({ "id": "a", "expectedVersion": "x", "dryRun": "yes" }),
            "dryRun",
        ),
        (
            json!({ "id": "a", "expectedVersion": "x", "_dryRun": true }),
            "_dryRun",
        ),
    ] {
        let error = client.call_error("delete_project", arguments.clone()).await;

        assert_eq!(error["code"], "VALIDATION_FAILED", "{arguments}: {error}");
        assert_eq!(error["details"]["violations"][0]["path"], path, "{error}");
    }
}

#[tokio::test]
async fn a_repeated_deletion_gets_the_first_answer_after_a_restart_too() {
    on_each_store(async |store: &Store| {
        create_sound(&*store.repository, &project_key("a")).await;
        let client = StdioClient::start_with_all_toolsets(store).await;
        let version = version(&client, "a").await;
        let request = json!({ "id": "a", "expectedVersion": version, "idempotencyKey": "k1" });

        let first = client.call("delete_project", request.clone()).await;
        assert!(client.finish().success());
        let client = StdioClient::start_with_all_toolsets(store).await;
        let second = client.call("delete_project", request.clone()).await;
        let data = new_document(Kind::Project);
        client
            .call("create_project", json!({ "id": "a", "data": data }))
            .await;
        let third = client.call("delete_project", request).await;
        let other = json!({ "id": "b", "expectedVersion": version, "idempotencyKey": "k1" });
        let other = client.call_error("delete_project", other).await;

        for answer in [&second, &third] {
            assert_eq!(answer["meta"]["replayed"], true, "{answer}");
            assert_eq!(answer["meta"]["auditId"], first["meta"]["auditId"]);
            assert_eq!(answer["meta"]["changes"], first["meta"]["changes"]);
            assert_eq!(answer["data"], first["data"]);
        }
        assert!(
            third["meta"]["warnings"]
                .to_string()
                .contains("created again"),
            "{third}"
        );
        assert_eq!(other["code"], "IDEMPOTENCY_MISMATCH", "{other}");
        assert_eq!(store.assert_sound().await.seq, 3);
    })
    .await;
}

#[tokio::test]
async fn undoing_a_creation_deletes_the_document_where_that_is_offered() {
    on_each_store(async |store: &Store| {
        let client = StdioClient::start_with_all_toolsets(store).await;
        let data = new_document(Kind::Project);
        let created = client
            .call("create_project", json!({ "id": "a", "data": data }))
            .await;
        let id = &created["meta"]["auditId"];
        let mut arguments = store.arguments();
        arguments.push("--toolsets=content,history".to_owned());
        let without = StdioClient::start_with(&arguments).await;

        let kept = without
            .call("undo_changes", json!({ "auditIds": [id] }))
            .await;
        let filter = json!({ "since": "2025-01-01T00:00:00Z" });
        let filtered = client.call("undo_changes", filter).await;
        let undo = json!({ "id": "a", "undo": id });
        let by_update = client.call("update_project", undo).await;
        let undone = client
            .call("undo_changes", json!({ "auditIds": [id] }))
            .await;

        for answer in [&kept, &filtered, &by_update] {
            let reason = answer["meta"]["kept"][0]["reason"].as_str().unwrap();
            assert!(
                reason.contains("auditIds") && reason.contains("authoring"),
                "{answer}"
            );
        }
        assert_eq!(undone["data"][0]["deleted"], true, "{undone}");
        let gone = client.call_error("get_project", json!({ "id": "a" })).await;
        assert_eq!(gone["code"], "PROJECT_NOT_FOUND", "{gone}");
        store.assert_sound().await;
    })
    .await;
}

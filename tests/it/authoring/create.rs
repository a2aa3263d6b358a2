//! `create_project` and `create_resource`: what is stored, what is refused, repeated requests.

use portfolio_mcp::domain::{DocumentKey, Kind};
use serde_json::{Value, json};

use crate::support::{
    fixtures::{create_sound, new_document, object, project_key, stored},
    server::HttpServer,
    stdio::StdioClient,
    stores::{Store, on_each_store},
};

/// The arguments that create a valid project, with more fields.
fn project(id: &str, fields: Value) -> Value {
    let mut data = new_document(Kind::Project);
    let members = data.as_object_mut().unwrap();
    members.extend(object(fields));
    json!({ "id": id, "data": data })
}

fn with(mut arguments: Value, name: &str, value: Value) -> Value {
    arguments[name] = value;
    arguments
}

async fn entries(client: &StdioClient) -> Value {
    let log = client
        .call("get_audit_log", json!({ "detail": "full" }))
        .await;
    log["data"].clone()
}

#[tokio::test]
async fn a_new_document_is_a_draft_and_its_creation_is_recorded() {
    on_each_store(async |store: &Store| {
        let client = StdioClient::start_with_all_toolsets(store).await;
        for (kind, order) in [
            (
                Kind::Project,
                "id title result tags image client challenge solution description testimonial results insight metadata",
            ),
            (
                Kind::Resource,
                "id title description longDescription tags image price downloadLink gallery metadata",
            ),
        ] {
            let arguments = json!({ "id": "new-one", "data": new_document(kind), "reason": "asked" });
            let tool = format!("create_{kind}");

            let shown = client.call(&tool, with(arguments.clone(), "dryRun", json!(true))).await;
            let before = client.call_error(&format!("get_{kind}"), json!({ "id": "new-one" })).await;
            let created = client.call(&tool, arguments).await;

            assert_eq!(shown["meta"].as_object().unwrap().keys().next().unwrap(), "dryRun");
            assert_eq!(shown["meta"].get("version"), None, "{shown}");
            assert_eq!(shown["meta"].get("auditId"), None, "{shown}");
            assert!(before["code"].as_str().unwrap().ends_with("_NOT_FOUND"), "{before}");
            assert_eq!(shown["meta"]["changes"], created["meta"]["changes"]);
            assert_eq!(created["meta"].get("dryRun"), None);
            let read = client.call(&format!("get_{kind}"), json!({ "id": "new-one" })).await;
            assert_eq!(created["meta"]["version"], read["meta"]["version"]);
            assert_eq!(created["data"]["version"], read["meta"]["version"]);
            assert_eq!(created["data"]["status"], "draft");
            let document = read["data"].as_object().unwrap();
            let names: Vec<&str> = document.keys().map(String::as_str).collect();
            assert_eq!(names.join(" "), order);
            let metadata = &document["metadata"];
            assert_eq!(metadata["featured"], false);
            assert_eq!(metadata["createdAt"], metadata["updatedAt"]);
            let entry = &entries(&client).await[0];
            assert_eq!(entry["id"], created["meta"]["auditId"]);
            assert_eq!(entry["action"], "create");
            assert_eq!(entry["metadata"]["reason"], "asked");
            assert_eq!(entry["metadata"]["clientId"], "it/1.0");
            assert!(entry["metadata"]["actor"].is_string(), "{entry}");
        }
        assert_eq!(store.assert_sound().await.seq, 2);
    })
    .await;
}

#[tokio::test]
async fn a_published_document_is_on_the_site_at_once() {
    on_each_store(async |store: &Store| {
        let server = HttpServer::start(store, &["--toolsets=all"]);
        let metadata = json!({ "metadata": { "status": "published", "featured": true } });
        let empty = server.get("/api/projects").json();

        server.call("create_project", &project("new", metadata));

        assert_eq!(empty["meta"]["total"], 0, "{empty}");
        let listed = server.get("/api/projects?featured=true").json();
        assert_eq!(listed["data"][0]["id"], "new", "{listed}");
        assert_eq!(server.get("/api/projects/new").status, 200);
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn what_breaks_a_rule_is_refused_with_all_that_is_wrong() {
    let store = Store::sqlite();
    let client = StdioClient::start_with_all_toolsets(&store).await;
    let valid = || project("a", json!({}));
    let without = |name: &str| {
        let mut arguments = valid();
        arguments["data"]
            .as_object_mut()
            .unwrap()
            .shift_remove(name);
        arguments
    };
    for (arguments, expected) in [
        (json!({}), vec!["data", "id"]),
        (json!({ "id": "a" }), vec!["data"]),
        (json!({ "id": "a", "data": [] }), vec!["data"]),
        (project("A b", json!({})), vec!["id"]),
        (project("2024", json!({})), vec!["id"]),
        (project(&"a".repeat(101), json!({})), vec!["id"]),
        (project("", json!({})), vec!["id"]),
        (without("title"), vec!["title"]),
        (
            project("a", json!({ "client": { "type": "x" }, "title": null })),
            vec!["client.objective", "client.size", "title"],
        ),
        (project("a", json!({ "titel": "x" })), vec!["titel"]),
        (
            project(
                "a",
                json!({ "id": "b", "metadata": { "createdAt": "2020-01-01T00:00:00Z" } }),
            ),
            vec!["id", "metadata.createdAt"],
        ),
        (
            project(
                "a",
                json!({ "metadata": { "status": "live", "downloadCount": 1 } }),
            ),
            vec!["metadata.downloadCount", "metadata.status"],
        ),
        (
            project("a", json!({ "metadata": "draft" })),
            vec!["metadata"],
        ),
        (
            project("a", json!({ "image": "javascript:x" })),
            vec!["image"],
        ),
        (
            project("a", json!({ "challenge": "x".repeat(300_000) })),
            vec!["data"],
        ),
        (
            project("a", json!({ "expectedVersion": "x" })),
            vec!["expectedVersion"],
        ),
        (
            with(valid(), "expectedVersion", json!("x")),
            vec!["expectedVersion"],
        ),
        (with(valid(), "_dryRun", json!(true)), vec!["_dryRun"]),
        (
            with(valid(), "idempotencyKey", json!("a b")),
            vec!["idempotencyKey"],
        ),
        // What the arguments break and what the document breaks, at once.
        (
            with(
                project("A", json!({ "titel": "x" })),
                "reason",
                json!("x".repeat(501)),
            ),
            vec!["id", "reason", "titel"],
        ),
    ] {
        let error = client.call_error("create_project", arguments.clone()).await;

        assert_eq!(error["code"], "VALIDATION_FAILED", "{error}");
        let violations = error["details"]["violations"].as_array().unwrap();
        let mut paths: Vec<&str> = violations
            .iter()
            .map(|violation| violation["path"].as_str().unwrap())
            .collect();
        paths.sort_unstable();
        assert_eq!(paths, expected, "{error}");
    }
    let error = client
        .call_error("create_project", project("L'Été 2025", json!({})))
        .await;
    let violation = &error["details"]["violations"][0];
    assert_eq!(violation["suggestion"], "l-ete-2025", "{error}");
    assert!(
        error["message"].as_str().unwrap().contains("`l-ete-2025`"),
        "{error}"
    );
    let error = client
        .call_error("create_project", project("a", json!({ "titel": "x" })))
        .await;
    assert_eq!(
        error["details"]["violations"][0]["suggestion"], "title",
        "{error}"
    );
    assert_eq!(store.assert_sound().await.seq, 0);
}

#[tokio::test]
async fn arguments_may_come_as_strings_and_absent_ones_as_null() {
    let store = Store::sqlite();
    let client = StdioClient::start_with_all_toolsets(&store).await;
    let data = new_document(Kind::Project).to_string();

    let created = client
        .call(
            "create_project",
            json!({ "id": "a", "data": data, "dryRun": null, "reason": null, "idempotencyKey": null, "sessionId": "x" }),
        )
        .await;

    assert_eq!(created["success"], true, "{created}");
    assert!(
        created["meta"]["warnings"]
            .to_string()
            .contains("sessionId"),
        "{created}"
    );
    store.assert_sound().await;
}

#[tokio::test]
async fn a_taken_id_is_refused_and_one_that_was_deleted_is_free() {
    on_each_store(async |store: &Store| {
        create_sound(&*store.repository, &project_key("a")).await;
        let client = StdioClient::start_with_all_toolsets(store).await;
        let read = client.call("get_project", json!({ "id": "a" })).await;
        let version = &read["meta"]["version"];

        let refused = client
            .call_error("create_project", project("a", json!({})))
            .await;
        let shown = with(project("a", json!({})), "dryRun", json!(true));
        let dry_run = client.call_error("create_project", shown).await;
        let deletion = json!({ "id": "a", "expectedVersion": version });
        client.call("delete_project", deletion).await;
        let created = client
            .call("create_project", project("a", json!({ "title": "Again" })))
            .await;

        for error in [refused, dry_run] {
            assert_eq!(error["code"], "PROJECT_EXISTS", "{error}");
            assert_eq!(&error["details"]["currentVersion"], version);
            assert!(
                error["message"]
                    .as_str()
                    .unwrap()
                    .contains("update_project"),
                "{error}"
            );
        }
        assert_eq!(created["data"]["title"], "Again", "{created}");
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn a_document_deleted_by_hand_is_recorded_before_its_id_is_used_again() {
    on_each_store(async |store: &Store| {
        let key = project_key("a");
        create_sound(&*store.repository, &key).await;
        store.edit(&key, None);
        let client = StdioClient::start_with_all_toolsets(store).await;

        let created = client.call("create_project", project("a", json!({}))).await;

        assert!(
            created["meta"]["warnings"].to_string().contains("outside"),
            "{created}"
        );
        let entries = entries(&client).await;
        let actions: Vec<&str> = entries
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["action"].as_str().unwrap())
            .collect();
        assert_eq!(actions, ["create", "adopt", "create"]);
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn a_repeated_creation_gets_the_first_answer_after_a_restart_too() {
    on_each_store(async |store: &Store| {
        let client = StdioClient::start_with_all_toolsets(store).await;
        let request = with(project("a", json!({})), "idempotencyKey", json!("k1"));

        let first = client.call("create_project", request.clone()).await;
        assert!(client.finish().success());
        let client = StdioClient::start_with_all_toolsets(store).await;
        let second = client.call("create_project", request.clone()).await;
        let other = with(project("b", json!({})), "idempotencyKey", json!("k1"));
        let other = client.call_error("create_project", other).await;
        let deletion = json!({ "id": "a", "expectedVersion": first["meta"]["version"] });
        client.call("delete_project", deletion).await;
        let third = client.call("create_project", request).await;

        for answer in [&second, &third] {
            assert_eq!(answer["meta"]["replayed"], true, "{answer}");
            assert_eq!(answer["meta"]["auditId"], first["meta"]["auditId"]);
            assert_eq!(answer["meta"]["changes"], first["meta"]["changes"]);
            assert_eq!(answer["data"]["id"], "a");
        }
        assert!(
            third["meta"]["warnings"]
                .to_string()
                .contains("deleted since"),
            "{third}"
        );
        assert_eq!(other["code"], "IDEMPOTENCY_MISMATCH", "{other}");
        assert_eq!(store.assert_sound().await.seq, 2);
    })
    .await;
}

#[tokio::test]
async fn unknown_fields_of_a_resource_and_a_taken_id_have_their_own_errors() {
    let store = Store::sqlite();
    let key = DocumentKey::new(Kind::Resource, "a");
    create_sound(&*store.repository, &key).await;
    let client = StdioClient::start_with_all_toolsets(&store).await;
    let before = stored(&*store.repository, &key).await;

    let taken = json!({ "id": "a", "data": new_document(Kind::Resource) });
    let taken = client.call_error("create_resource", taken).await;
    let mut data = new_document(Kind::Resource);
    data["status"] = json!("published");
    let misplaced = client
        .call_error("create_resource", json!({ "id": "b", "data": data }))
        .await;

    assert_eq!(taken["code"], "RESOURCE_EXISTS", "{taken}");
    let violation = &misplaced["details"]["violations"][0];
    assert_eq!(violation["suggestion"], "metadata.status", "{misplaced}");
    assert_eq!(stored(&*store.repository, &key).await, before);
    store.assert_sound().await;
}

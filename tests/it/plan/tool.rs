//! `plan` in tools: one client plans, another one applies.

use std::fs;

use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::{
    fixtures::{create_sound, project_key},
    messages::tool_output,
    program::Home,
    server::HttpServer,
    stdio::StdioClient,
    stores::{Store, on_each_store},
};

const SINCE: &str = "2025-01-01T00:00:00Z";

/// A client of the program with every toolset, that calls itself `name`.
async fn client(store: &Store, name: &str) -> StdioClient {
    let mut arguments = store.arguments();
    arguments.push("--toolsets=all".to_owned());
    let client = StdioClient::spawn_with(&arguments);
    client.initialize(name, "1.0").await;
    client
}

/// Plans a change of a title; gives the plan's id.
async fn plan(client: &StdioClient, id: &str, title: &str) -> String {
    let arguments = json!({ "id": id, "data": { "title": title }, "dryRun": true });
    plan_of(&client.call("update_project", arguments).await)
}

fn plan_of(answer: &Value) -> String {
    let id = answer["meta"]["plan"]["id"].as_str();
    id.unwrap_or_else(|| panic!("no plan: {answer}")).to_owned()
}

async fn project(client: &StdioClient, id: &str) -> Value {
    let answer = client.call("get_project", json!({ "id": id })).await;
    answer["data"].clone()
}

fn of_plan(id: &str, plan: &str) -> Value {
    json!({ "id": id, "plan": plan })
}

#[tokio::test]
async fn another_client_applies_what_one_planned() {
    on_each_store(async |store: &Store| {
        create_sound(&*store.repository, &project_key("a")).await;
        let planner = client(store, "planner").await;
        let owner = client(store, "owner").await;
        let edit = json!({
            "id": "a", "data": { "title": "Planned" }, "dryRun": true, "reason": "asked by phone",
            "edits": [{ "path": "tags", "op": "append", "value": "planned" }]
        });

        let shown = planner.call("update_project", edit).await;
        let before = project(&owner, "a").await;
        let mut apply = of_plan("a", &plan_of(&shown));
        apply["reason"] = json!("approved");
        let applied = owner.call("update_project", apply.clone()).await;
        let again = owner.call_error("update_project", apply).await;

        let id = plan_of(&shown);
        assert_eq!(id.len(), 32);
        assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        assert_eq!(
            shown["meta"].as_object().unwrap().keys().next().unwrap(),
            "dryRun"
        );
        assert_ne!(before["title"], "Planned");
        let after = project(&planner, "a").await;
        assert_eq!(after["title"], "Planned");
        assert_eq!(after["tags"].as_array().unwrap().last().unwrap(), "planned");
        assert_eq!(applied["data"]["title"], "Planned");
        assert_eq!(applied["meta"].get("dryRun"), None);
        assert_eq!(again["code"], "PLAN_NOT_FOUND");
        assert_eq!(again["details"]["state"], "applied");
        assert_eq!(
            again["details"]["auditIds"],
            json!([applied["meta"]["auditId"]])
        );
        let log = store.assert_sound().await;
        let entry = log.entries.last().unwrap().json();
        let noted = &entry["metadata"]["plan"];
        assert_eq!(noted["id"], json!(id));
        assert_eq!(noted["clientId"], "planner/1.0");
        assert_eq!(entry["metadata"]["clientId"], "owner/1.0");
        assert_eq!(entry["metadata"]["reason"], "approved");
        assert_eq!(again["details"]["timestamp"], entry["timestamp"]);
    })
    .await;
}

#[tokio::test]
async fn a_plan_is_refused_after_any_change_of_its_document() {
    on_each_store(async |store: &Store| {
        create_sound(&*store.repository, &project_key("a")).await;
        let client = client(store, "it").await;
        let id = plan(&client, "a", "Planned").await;
        let other = json!({ "id": "a", "data": { "result": "Other" } });
        let written = client.call("update_project", other).await;

        let refused = client.call_error("update_project", of_plan("a", &id)).await;

        assert_eq!(refused["code"], "VERSION_CONFLICT");
        assert_eq!(
            refused["details"]["currentVersion"],
            written["meta"]["version"]
        );
        let since = &refused["details"]["changedSince"];
        assert_eq!(since[0]["auditId"], written["meta"]["auditId"]);
        assert!(
            refused["message"].as_str().unwrap().contains("dry run"),
            "{refused}"
        );

        // Back to the same bytes but for the time: it stays refused.
        let undo = json!({ "id": "a", "undo": written["meta"]["auditId"] });
        client.call("update_project", undo).await;
        let refused = client.call_error("update_project", of_plan("a", &id)).await;
        assert_eq!(refused["code"], "VERSION_CONFLICT");
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn a_plan_is_for_its_tool_and_its_document() {
    let store = Store::sqlite();
    for id in ["a", "b"] {
        create_sound(&*store.repository, &project_key(id)).await;
    }
    let client = client(&store, "it").await;
    let id = plan(&client, "a", "Planned").await;
    for (tool, arguments) in [
        ("update_project", of_plan("b", &id)),
        ("update_resource", of_plan("a", &id)),
        ("undo_changes", json!({ "plan": id })),
    ] {
        let refused = client.call_error(tool, arguments).await;

        assert_eq!(refused["code"], "VALIDATION_FAILED", "{tool}: {refused}");
        assert_eq!(
            refused["details"]["violations"][0]["path"], "plan",
            "{tool}"
        );
    }
    for unknown in ["0123456789abcdef0123456789abcdef", "nonsense", "ü"] {
        let refused = client
            .call_error("update_project", of_plan("a", unknown))
            .await;

        assert_eq!(refused["code"], "PLAN_NOT_FOUND", "{unknown}");
        assert_eq!(refused.get("details"), None, "{unknown}");
    }
    client.call("update_project", of_plan("a", &id)).await;
}

#[tokio::test]
async fn nothing_stands_beside_a_plan_but_who_asks_and_why() {
    let store = Store::sqlite();
    create_sound(&*store.repository, &project_key("a")).await;
    let client = client(&store, "it").await;
    let id = plan(&client, "a", "Planned").await;
    for (name, value) in [
        ("data", json!({ "title": "Other" })),
        ("data", json!({})),
        ("edits", json!([])),
        ("undo", json!("x")),
        ("expectedVersion", json!("0123456789abcdef")),
        ("dryRun", json!(true)),
    ] {
        let mut arguments = of_plan("a", &id);
        arguments[name] = value;

        let refused = client.call_error("update_project", arguments).await;

        assert_eq!(refused["code"], "VALIDATION_FAILED", "{name}: {refused}");
        assert_eq!(
            refused["details"]["violations"][0]["path"], name,
            "{refused}"
        );
    }
    let mut arguments = of_plan("a", &id);
    arguments["dryRun"] = json!(false);
    arguments["detail"] = json!("full");
    arguments["data"] = Value::Null;
    let applied = client.call("update_project", arguments).await;
    assert_eq!(
        applied["data"]["challenge"],
        project(&client, "a").await["challenge"]
    );
}

#[tokio::test]
async fn an_application_with_a_key_is_repeated_as_the_first_time() {
    on_each_store(async |store: &Store| {
        create_sound(&*store.repository, &project_key("a")).await;
        let client = client(store, "it").await;
        let id = plan(&client, "a", "Planned").await;
        let mut arguments = of_plan("a", &id);
        arguments["idempotencyKey"] = json!("apply-1");

        let first = client.call("update_project", arguments.clone()).await;
        let later = json!({ "id": "a", "data": { "result": "Later" } });
        client.call("update_project", later).await;
        let again = client.call("update_project", arguments.clone()).await;
        arguments["plan"] = json!("another");
        let other = client.call_error("update_project", arguments).await;

        assert_eq!(first["meta"].get("replayed"), None);
        assert_eq!(again["meta"]["replayed"], true);
        assert_eq!(again["meta"]["auditId"], first["meta"]["auditId"]);
        assert_eq!(again["meta"]["changes"], first["meta"]["changes"]);
        assert_eq!(other["code"], "IDEMPOTENCY_MISMATCH");
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn an_undo_of_many_documents_is_planned_and_applied() {
    on_each_store(async |store: &Store| {
        let ids: Vec<String> = (0..50).map(|number| format!("p-{number}")).collect();
        let client = client(store, "it").await;
        for id in &ids {
            create_sound(&*store.repository, &project_key(id)).await;
            let arguments = json!({ "id": id, "data": { "title": "Robot" } });
            client.call("update_project", arguments).await;
        }
        let undo = json!({ "since": SINCE, "clientId": "it", "dryRun": true });
        let shown = client.call("undo_changes", undo).await;
        let plan = plan_of(&shown);

        let applied = client.call("undo_changes", json!({ "plan": plan })).await;
        let again = client
            .call_error("undo_changes", json!({ "plan": plan }))
            .await;

        assert_eq!(applied["data"].as_array().unwrap().len(), 50);
        assert_eq!(applied["meta"].get("counts"), None);
        assert_eq!(again["code"], "PLAN_NOT_FOUND");
        assert_eq!(again["details"]["auditIds"].as_array().unwrap().len(), 50);
        for id in &ids {
            assert_ne!(project(&client, id).await["title"], "Robot", "{id}");
        }
        let log = store.assert_sound().await;
        let newest = log.entries.iter().rev().take(50);
        assert!(
            newest
                .clone()
                .all(|entry| entry.text_of("action") == Some("revert"))
        );
        assert!(newest.clone().all(|entry| entry.reverts().count() == 1));
    })
    .await;
}

#[tokio::test]
async fn without_a_change_there_is_no_plan() {
    let store = Store::sqlite();
    create_sound(&*store.repository, &project_key("a")).await;
    let client = client(&store, "it").await;
    let title = project(&client, "a").await["title"].clone();

    let arguments = json!({ "id": "a", "data": { "title": title }, "dryRun": true });
    let shown = client.call("update_project", arguments).await;
    let undo = json!({ "since": SINCE, "clientId": "nobody", "dryRun": true });
    let undone = client.call("undo_changes", undo).await;

    assert_eq!(shown["meta"].get("plan"), None);
    assert_eq!(undone["meta"].get("plan"), None);
}

#[tokio::test]
async fn roles_and_toolsets_hold_for_plans_too() {
    let store = Store::sqlite();
    create_sound(&*store.repository, &project_key("a")).await;
    let full = client(&store, "it").await;
    let id = plan(&full, "a", "Planned").await;
    let changed = json!({ "id": "a", "data": { "title": "Robot" } });
    full.call("update_project", changed).await;
    let undo = json!({ "since": SINCE, "clientId": "it", "dryRun": true });
    let of_undo = plan_of(&full.call("undo_changes", undo).await);
    let home = Home::new();
    let tokens = home.path().join("tokens");
    fs::write(&tokens, "reader:read:0123456789abcdef0123456789abcdef").unwrap();
    let tokens = tokens.to_string_lossy();
    let server = HttpServer::start(&store, &["--toolsets=all", "--token-file", &tokens]);
    let bearer = [("Authorization", "Bearer 0123456789abcdef0123456789abcdef")];
    let small = StdioClient::start_with(&store.arguments()).await;
    let of_undo = json!({ "name": "undo_changes", "arguments": { "plan": of_undo } });

    let answer = server.call_with(&bearer, "update_project", &of_plan("a", &id));
    let off = small.error("tools/call", of_undo).await;

    let read_only = tool_output(&answer);
    assert_eq!(read_only["error"]["code"], "STORE_READ_ONLY", "{answer}");
    assert_eq!(off["code"], -32602);
    assert!(
        off["message"].as_str().unwrap().contains("--toolsets"),
        "{off}"
    );
}

#[tokio::test]
async fn concurrent_calls_with_one_key_get_one_answer() {
    on_each_store(async |store: &Store| {
        create_sound(&*store.repository, &project_key("a")).await;
        let clients = join_all((0..3).map(|_| client(store, "it"))).await;
        let mut apply = of_plan("a", &plan(&clients[0], "a", "Planned").await);
        apply["idempotencyKey"] = json!("apply");
        let calls = (0..9).map(|number| clients[number % 3].call("update_project", apply.clone()));
        let applied = join_all(calls).await;
        let undo = json!({ "since": SINCE, "clientId": "it", "idempotencyKey": "undo" });
        let calls = (0..9).map(|number| clients[number % 3].call("undo_changes", undo.clone()));
        let undone = join_all(calls).await;

        for answer in &applied {
            assert_eq!(
                answer["meta"]["auditId"], applied[0]["meta"]["auditId"],
                "{answer}"
            );
        }
        for answer in &undone {
            let id = &undone[0]["data"][0]["auditId"];
            assert_eq!(answer["data"][0]["auditId"], *id, "{answer}");
        }
        assert_eq!(store.assert_sound().await.seq, 3);
    })
    .await;
}

#[tokio::test]
async fn a_plan_that_undoes_a_creation_needs_authoring() {
    let store = Store::sqlite();
    create_sound(&*store.repository, &project_key("a")).await;
    let full = client(&store, "it").await;
    let created = &store.assert_sound().await.entries[0];
    let undo = json!({ "auditIds": [created.text_of("id")], "dryRun": true });
    let plan = plan_of(&full.call("undo_changes", undo).await);
    let mut arguments = store.arguments();
    arguments.push("--toolsets=content,history".to_owned());
    let small = StdioClient::start_with(&arguments).await;

    let refused = small
        .call_error("undo_changes", json!({ "plan": plan }))
        .await;
    let applied = full.call("undo_changes", json!({ "plan": plan })).await;

    assert_eq!(refused["code"], "VALIDATION_FAILED");
    assert!(
        refused["message"].as_str().unwrap().contains("authoring"),
        "{refused}"
    );
    assert_eq!(applied["data"][0]["deleted"], true);
    store.assert_sound().await;
}

#[tokio::test]
async fn a_used_plan_is_known_however_often_its_document_changed_since() {
    on_each_store(async |store: &Store| {
        create_sound(&*store.repository, &project_key("a")).await;
        let client = client(store, "it").await;
        let id = plan(&client, "a", "Planned").await;
        let applied = client.call("update_project", of_plan("a", &id)).await;
        for number in 0..250 {
            let later = json!({ "id": "a", "data": { "title": format!("Later {number}") } });
            client.call("update_project", later).await;
        }

        let again = client.call_error("update_project", of_plan("a", &id)).await;

        assert_eq!(again["code"], "PLAN_NOT_FOUND", "{again}");
        assert_eq!(
            again["details"]["auditIds"],
            json!([applied["meta"]["auditId"]])
        );
    })
    .await;
}

#[tokio::test]
async fn an_edit_outside_before_the_plan_does_not_stop_it() {
    on_each_store(async |store: &Store| {
        let key = project_key("a");
        create_sound(&*store.repository, &key).await;
        let stored = store.repository.get(&key).await.unwrap().record.unwrap();
        let edited = stored.text().replace("\"image\"", " \"image\"");
        store.edit(&key, Some(&edited));
        let client = client(store, "it").await;
        let id = plan(&client, "a", "Planned").await;

        let applied = client.call("update_project", of_plan("a", &id)).await;
        let again = client.call_error("update_project", of_plan("a", &id)).await;

        assert_eq!(applied["data"]["title"], "Planned");
        let warnings = applied["meta"]["warnings"].to_string();
        assert!(warnings.contains("outside"), "{warnings}");
        assert_eq!(again["code"], "PLAN_NOT_FOUND");
        let log = store.assert_sound().await;
        let actions = log.entries.iter().map(|entry| entry.text_of("action"));
        assert_eq!(
            actions.collect::<Vec<_>>(),
            [Some("create"), Some("adopt"), Some("update")]
        );
    })
    .await;
}

#[tokio::test]
async fn every_writing_tool_plans_and_applies() {
    on_each_store(async |store: &Store| {
        for id in ["a", "b"] {
            create_sound(&*store.repository, &project_key(id)).await;
        }
        let client = client(store, "it").await;
        let mut data = project(&client, "a").await;
        for name in ["id", "metadata"] {
            data.as_object_mut().unwrap().shift_remove(name);
        }
        let version = client.call("get_project", json!({ "id": "b" })).await["meta"]["version"].clone();
        for (tool, asked, named) in [
            ("create_project", json!({ "id": "new", "data": data }), json!({ "id": "new" })),
            ("delete_project", json!({ "id": "b", "expectedVersion": version }), json!({ "id": "b" })),
            (
                "update_many",
                json!({ "changes": [{ "entityType": "project", "id": "a", "data": { "title": "Many" } }] }),
                json!({}),
            ),
        ] {
            let mut dry_run = asked.clone();
            dry_run["dryRun"] = json!(true);
            let plan = plan_of(&client.call(tool, dry_run).await);
            let before = client.call("list_projects", json!({})).await;
            let mut apply = named.clone();
            apply["plan"] = json!(plan);
            apply["idempotencyKey"] = json!(format!("apply-{tool}"));

            let applied = client.call(tool, apply.clone()).await;
            let repeated = client.call(tool, apply.clone()).await;
            apply.as_object_mut().unwrap().shift_remove("idempotencyKey");
            let again = client.call_error(tool, apply).await;
            let neither = client.call_error(tool, named).await;

            let after = client.call("list_projects", json!({})).await;
            assert_ne!(before["data"], after["data"], "{tool}");
            assert_eq!(applied["meta"].get("replayed"), None, "{tool}: {applied}");
            assert_eq!(repeated["meta"]["replayed"], true, "{tool}: {repeated}");
            assert_eq!(again["code"], "PLAN_NOT_FOUND", "{tool}: {again}");
            assert_eq!(neither["code"], "VALIDATION_FAILED", "{tool}");
            let message = &neither["details"]["violations"][0]["message"];
            assert!(message.as_str().unwrap().starts_with("missing"), "{neither}");
        }
        let new = project(&client, "new").await;
        assert_eq!(new["metadata"]["status"], "draft");
        assert_eq!(new["metadata"]["createdAt"], new["metadata"]["updatedAt"]);
        assert_eq!(project(&client, "a").await["title"], "Many");
        client.call_error("get_project", json!({ "id": "b" })).await;
        let log = store.assert_sound().await;
        let planned = log.entries.iter().filter(|entry| entry.plan_id().is_some());
        let actions: Vec<_> = planned.filter_map(|entry| entry.text_of("action")).collect();
        assert_eq!(actions, ["create", "delete", "update"]);
    })
    .await;
}

//! `asOf`, `get_history` and `compare_content`, as clients call them.

use portfolio_mcp::domain::Kind;
use serde_json::{Value, json};

use crate::support::{
    fixtures::{create, create_sound, document, project, project_key, update, with},
    stdio::StdioClient,
    stores::{Store, on_each_store},
};

/// CONTRACT.md, section 2.
const MAX_BYTES: usize = 32_000;

/// A client of the program with these arguments, that calls itself `name`.
async fn client_with(store: &Store, name: &str, more: &[&str]) -> StdioClient {
    let more = more.iter().map(|&argument| argument.to_owned());
    let arguments: Vec<String> = store.arguments().into_iter().chain(more).collect();
    let client = StdioClient::spawn_with(&arguments);
    client.initialize(name, "1.0").await;
    client
}

async fn client(store: &Store, name: &str) -> StdioClient {
    client_with(store, name, &["--toolsets=all"]).await
}

/// Changes a project; gives the audit id.
async fn change(client: &StdioClient, id: &str, data: Value) -> String {
    let arguments = json!({ "id": id, "data": data, "reason": format!("change {id}") });
    let updated = client.call("update_project", arguments).await;
    updated["meta"]["auditId"].as_str().unwrap().to_owned()
}

fn rows(answer: &Value) -> Vec<&Value> {
    answer["data"].as_array().unwrap().iter().collect()
}

fn ids(answer: &Value) -> Vec<&str> {
    let rows = rows(answer).into_iter();
    rows.map(|row| row["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn documents_and_lists_are_shown_as_they_were() {
    on_each_store(async |store: &Store| {
        for id in ["a", "b"] {
            create_sound(&*store.repository, &project_key(id)).await;
        }
        let client = client(store, "editor").await;
        let read = client.call("get_project", json!({ "id": "a" })).await;
        let first = change(&client, "b", json!({ "title": "Elephant" })).await;
        change(&client, "a", json!({ "title": "Later" })).await;
        let created = create_sound(&*store.repository, &project_key("c")).await;
        let as_of = json!({ "id": "a", "asOf": first });

        let then = client.call("get_project", as_of).await;
        let by_time = json!({ "id": "a", "asOf": then["meta"]["asOf"]["timestamp"] });
        let by_time = client.call("get_project", by_time).await;
        let listed = client.call("list_projects", json!({ "asOf": first })).await;
        let found = json!({ "asOf": first, "query": "elephant", "detail": "full" });
        let found = client.call("list_projects", found).await;
        let absent = json!({ "id": "c", "asOf": first });
        let absent = client.call_error("get_project", absent).await;
        let never = json!({ "id": "bb", "asOf": first });
        let never = client.call_error("get_project", never).await;

        assert_eq!(then["data"]["title"], "The case of a");
        assert_eq!(then["meta"]["version"], read["meta"]["version"]);
        assert_eq!(then["meta"]["asOf"]["auditId"], first.as_str());
        assert!(then["meta"]["asOf"]["timestamp"].is_string(), "{then}");
        assert_eq!(by_time["data"]["id"], "a");
        assert_eq!(ids(&listed), ["b", "a"]);
        assert_eq!(listed["meta"]["total"], 2);
        assert_eq!(rows(&listed)[1]["version"], read["meta"]["version"]);
        assert_eq!(ids(&found), ["b"], "{found}");
        assert_eq!(found["meta"]["asOf"]["auditId"], first.as_str());
        assert_eq!(absent["code"], "PROJECT_NOT_FOUND", "{absent}");
        assert_eq!(never["code"], "PROJECT_NOT_FOUND", "{never}");
        assert_eq!(created.entries.len(), 1);
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn cursors_are_bound_to_the_point_in_time() {
    let store = Store::sqlite();
    for number in 0..5 {
        create_sound(&*store.repository, &project_key(&format!("p{number}"))).await;
    }
    let client = client(&store, "editor").await;
    let first = change(&client, "p0", json!({ "title": "First" })).await;
    let second = change(&client, "p1", json!({ "title": "Second" })).await;
    let page = json!({ "asOf": first, "limit": 2 });

    let mut seen: Vec<String> = Vec::new();
    let mut answer = client.call("list_projects", page.clone()).await;
    let cursor = answer["meta"]["nextCursor"].clone();
    loop {
        seen.extend(ids(&answer).into_iter().map(ToOwned::to_owned));
        let Some(cursor) = answer["meta"].get("nextCursor") else {
            break;
        };
        change(&client, "p2", json!({ "title": format!("While {cursor}") })).await;
        let next = json!({ "asOf": first, "limit": 2, "cursor": cursor });
        answer = client.call("list_projects", next).await;
    }
    let other = json!({ "asOf": second, "limit": 2, "cursor": cursor });
    let other = client.call_error("list_projects", other).await;
    let without = json!({ "limit": 2, "cursor": cursor });
    let without = client.call_error("list_projects", without).await;

    assert_eq!(seen[0], "p0");
    seen.sort_unstable();
    assert_eq!(seen, ["p0", "p1", "p2", "p3", "p4"]);
    for error in [other, without] {
        assert_eq!(error["code"], "VALIDATION_FAILED", "{error}");
        assert_eq!(error["details"]["violations"][0]["path"], "cursor");
    }
    store.assert_sound().await;
}

#[tokio::test]
async fn a_wrong_point_in_time_is_refused_where_it_was_named() {
    let store = Store::sqlite();
    create_sound(&*store.repository, &project_key("a")).await;
    let client = client(&store, "editor").await;
    let id = change(&client, "a", json!({ "title": "New" })).await;
    for (tool, arguments, path) in [
        (
            "get_project",
            json!({ "id": "a", "asOf": "2999-01-01T00:00:00Z" }),
            "asOf",
        ),
        (
            "get_project",
            json!({ "id": "a", "asOf": "yesterday" }),
            "asOf",
        ),
        (
            "list_projects",
            json!({ "asOf": "2999-01-01T00:00:00Z" }),
            "asOf",
        ),
        ("compare_content", json!({}), "since"),
        ("compare_content", json!({ "since": "no-such" }), "since"),
        (
            "compare_content",
            json!({ "since": "2999-01-01T00:00:00Z" }),
            "since",
        ),
        (
            "compare_content",
            json!({ "since": id, "until": "2020-01-01T00:00:00Z" }),
            "until",
        ),
        ("get_history", json!({ "id": "a" }), "entityType"),
    ] {
        let error = client.call_error(tool, arguments.clone()).await;

        assert_eq!(error["code"], "VALIDATION_FAILED", "{arguments}: {error}");
        let violation = &error["details"]["violations"][0];
        assert_eq!(violation["path"], path, "{arguments}: {error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.starts_with(tool), "{message}");
        assert!(!message.contains("nothing was changed"), "{message}");
    }
    store.assert_sound().await;
}

#[tokio::test]
async fn without_its_toolset_as_of_is_an_unknown_argument() {
    let store = Store::sqlite();
    create_sound(&*store.repository, &project_key("a")).await;
    let off = client_with(&store, "it", &[]).await;
    let on = client(&store, "it").await;
    let properties = async |client: &StdioClient, tool: &str| {
        let listed = client.result("tools/list", json!({})).await;
        let tools = listed["tools"].as_array().unwrap().clone();
        let tool = tools.into_iter().find(|it| it["name"] == tool).unwrap();
        tool["inputSchema"]["properties"].clone()
    };
    for tool in [
        "get_project",
        "get_resource",
        "list_projects",
        "list_resources",
    ] {
        assert!(properties(&off, tool).await.get("asOf").is_none(), "{tool}");
        assert!(properties(&on, tool).await.get("asOf").is_some(), "{tool}");
    }

    let time = "2025-01-01T00:00:00Z";
    let error = off
        .call_error("get_project", json!({ "id": "a", "asOf": time }))
        .await;
    let empty = off
        .call("get_project", json!({ "id": "a", "asOf": "" }))
        .await;

    assert_eq!(error["code"], "VALIDATION_FAILED", "{error}");
    let violation = &error["details"]["violations"][0];
    assert_eq!(violation["path"], "asOf", "{error}");
    let message = violation["message"].as_str().unwrap();
    assert!(message.contains("--toolsets content,history"), "{message}");
    assert_eq!(empty["data"]["id"], "a");
    store.assert_sound().await;
}

#[tokio::test]
async fn what_the_log_does_not_explain_is_named() {
    let store = Store::sqlite();
    let repository = &*store.repository;
    create_sound(repository, &project_key("b")).await;
    let created = create_sound(repository, &project_key("a")).await;
    let edited = with(&project("a"), json!({ "title": "By hand" }));
    store.edit(&project_key("a"), Some(&Value::Object(edited).to_string()));
    let last = update(repository, &project_key("a"), json!({ "result": "More" })).await;
    let point = created.entries[0].text_of("id").unwrap();
    let from = last.entries[0].timestamp().unwrap().to_string();
    let client = client_with(&store, "it", &["--toolsets=all", "--read-only"]).await;

    let listed = client.call("list_projects", json!({ "asOf": point })).await;
    let error = json!({ "id": "a", "asOf": point });
    let error = client.call_error("get_project", error).await;
    let compared = client
        .call("compare_content", json!({ "since": point }))
        .await;

    assert_eq!(ids(&listed), ["b"]);
    for warnings in [&listed["meta"]["warnings"], &compared["meta"]["warnings"]] {
        let warning = warnings[0].as_str().unwrap();
        assert!(
            warning.contains("project `a`") && warning.contains(&from),
            "{warning}"
        );
    }
    assert_eq!(error["code"], "PROJECT_NOT_FOUND", "{error}");
    assert_eq!(error["details"]["knownFrom"], from.as_str(), "{error}");
    assert!(
        error["message"].as_str().unwrap().contains(&from),
        "{error}"
    );
    assert_eq!(compared["data"], json!([]));
}

#[tokio::test]
async fn the_history_names_the_author_of_each_field_and_every_version() {
    on_each_store(async |store: &Store| {
        create_sound(&*store.repository, &project_key("a")).await;
        let (robot, editor) = (client(store, "robot").await, client(store, "editor").await);
        let first = change(
            &robot,
            "a",
            json!({ "title": "Robot", "client": { "size": "9" } }),
        )
        .await;
        let second = change(&editor, "a", json!({ "title": "Editor" })).await;
        let arguments = json!({ "entityType": "project", "id": "a" });
        let of_field = json!({ "entityType": "project", "id": "a", "field": "client" });

        let history = editor.call("get_history", arguments.clone()).await;
        let size = editor.call("get_history", of_field).await;
        let mut first_page = arguments.clone();
        first_page["limit"] = json!(2);
        let page = editor.call("get_history", first_page.clone()).await;
        first_page["cursor"] = page["meta"]["nextCursor"].clone();
        let next = editor.call("get_history", first_page.clone()).await;
        first_page["id"] = json!("b");
        let other = editor.call_error("get_history", first_page).await;
        let missing = json!({ "entityType": "resource", "id": "a" });
        let missing = editor.call_error("get_history", missing).await;

        let author = |field: &str| {
            let fields = history["data"]["fields"].as_array().unwrap();
            fields.iter().find(|row| row["field"] == field).unwrap()
        };
        assert_eq!(author("title")["auditId"], second.as_str());
        assert_eq!(author("title")["clientId"], "editor/1.0");
        assert_eq!(author("title")["reason"], "change a");
        assert_eq!(author("client.size")["auditId"], first.as_str());
        assert_eq!(author("client.size")["clientId"], "robot/1.0");
        assert_ne!(author("client.type")["auditId"], first.as_str());
        assert!(author("client.type")["timestamp"].is_string());
        let versions = history["data"]["versions"].as_array().unwrap();
        assert_eq!(versions.len(), 3, "{history}");
        assert_eq!(versions[0]["auditId"], second.as_str());
        assert_eq!(versions[0]["action"], "update");
        assert_eq!(
            versions[0]["fields"],
            json!(["title", "metadata.updatedAt"])
        );
        assert!(versions[0]["version"].is_string());
        assert_eq!(versions[2]["action"], "create");
        let versions = size["data"]["versions"].as_array().unwrap();
        assert_eq!(versions.len(), 2, "{size}");
        assert_eq!(
            versions[0]["changes"],
            json!([{ "field": "client.size", "oldValue": "3 people", "newValue": "9" }])
        );
        assert_eq!(size["data"]["fields"].as_array().unwrap().len(), 3);
        assert_eq!(page["data"]["versions"].as_array().unwrap().len(), 2);
        assert_eq!(next["data"]["versions"].as_array().unwrap().len(), 1);
        assert_eq!(next["data"].get("fields"), None);
        assert_eq!(other["code"], "VALIDATION_FAILED", "{other}");
        assert_eq!(missing["code"], "RESOURCE_NOT_FOUND", "{missing}");
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn a_comparison_has_one_row_for_each_document_that_differs() {
    on_each_store(async |store: &Store| {
        let repository = &*store.repository;
        for id in ["a", "b"] {
            create_sound(repository, &project_key(id)).await;
        }
        let client = client(store, "editor").await;
        let since = change(&client, "b", json!({ "title": "Before" })).await;
        change(&client, "a", json!({ "title": "Twice" })).await;
        change(&client, "a", json!({ "title": "Thrice", "tags": ["x"] })).await;
        change(&client, "b", json!({ "title": "Back and forth" })).await;
        let until = change(&client, "b", json!({ "title": "Before" })).await;
        let key = portfolio_mcp::domain::DocumentKey::new(Kind::Resource, "r");
        create(repository, &key, document(Kind::Resource, "r")).await;

        let now = client
            .call("compare_content", json!({ "since": since }))
            .await;
        let then = json!({ "since": since, "until": until });
        let then = client.call("compare_content", then).await;
        let nothing = json!({ "since": until, "until": until });
        let nothing = client.call("compare_content", nothing).await;
        let first = json!({ "since": since, "limit": 1 });
        let first = client.call("compare_content", first).await;
        create_sound(repository, &project_key("z")).await;
        let rest = json!({ "since": since, "cursor": first["meta"]["nextCursor"] });
        let rest = client.call("compare_content", rest).await;
        let resources = json!({ "since": since, "entityType": "resource" });
        let resources = client.call("compare_content", resources).await;

        let [changed, created] = rows(&now)[..] else {
            panic!("expected two rows: {now}")
        };
        assert_eq!(changed["entityType"], "project");
        assert_eq!(changed["entityId"], "a");
        assert_eq!(changed["title"], "Thrice");
        assert_eq!(changed["action"], "update");
        assert_eq!(
            changed["changes"],
            json!([
                { "field": "title", "oldValue": "The case of a", "newValue": "Thrice" },
                { "field": "tags", "oldValue": ["web", "Café"], "newValue": ["x"] },
            ])
        );
        assert_eq!(created["action"], "create");
        assert_eq!(created["changes"][0]["created"]["title"], "The guide r");
        assert_eq!(now["meta"]["total"], 2);
        assert_eq!(now["meta"]["since"]["auditId"], since.as_str());
        assert_eq!(rows(&then), [changed]);
        assert_eq!(then["meta"]["until"]["auditId"], until.as_str());
        assert_eq!(nothing["data"], json!([]));
        assert_eq!(rows(&first), [changed]);
        assert_eq!(rows(&rest), [created], "as of the first page: {rest}");
        assert_eq!(rows(&resources), [created]);
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn answers_about_the_past_are_small() {
    let store = Store::sqlite();
    let repository = &*store.repository;
    let wide = "\u{a0}é".repeat(2000);
    let fields: serde_json::Map<String, Value> = (0..300)
        .map(|number| (format!("field-{number}-{}", "x".repeat(60)), json!(wide)))
        .collect();
    let large = |id: &str, title: &str| {
        with(
            &project(id),
            json!({ "title": title, "more": fields.iter().take(60).map(|(name, value)| (name.clone(), value.clone())).collect::<serde_json::Map<_, _>>() }),
        )
    };
    for number in 0..30 {
        let id = format!("p{number}");
        create(repository, &project_key(&id), large(&id, "One")).await;
    }
    let client = client(&store, "editor").await;
    let since = change(&client, "p0", json!({ "title": "Since" })).await;
    for number in 0..30 {
        let data = json!({ "description": format!("{number} {}", "d".repeat(990)), "challenge": wide, "title": "t".repeat(200) });
        change(&client, &format!("p{number}"), data).await;
    }
    let mut names = Vec::new();
    for (tool, mut arguments) in [
        ("compare_content", json!({ "since": since, "limit": 100 })),
        (
            "get_history",
            json!({ "entityType": "project", "id": "p0", "limit": 100 }),
        ),
        (
            "get_history",
            json!({ "entityType": "project", "id": "p0", "field": "more" }),
        ),
        ("list_projects", json!({ "asOf": since, "limit": 100 })),
    ] {
        let mut pages = 0;
        loop {
            let answer = client.call(tool, arguments.clone()).await;
            let bytes = answer.to_string().len();
            assert!(bytes <= MAX_BYTES, "{tool}: {bytes}");
            pages += 1;
            let Some(cursor) = answer["meta"].get("nextCursor") else {
                break;
            };
            arguments["cursor"] = cursor.clone();
        }
        names.push((tool, pages));
    }

    assert!(names.iter().any(|(_, pages)| *pages > 1), "{names:?}");
    store.assert_sound().await;
}

#[tokio::test]
async fn the_history_of_a_field_that_is_not_there_says_so() {
    let store = Store::sqlite();
    create_sound(&*store.repository, &project_key("a")).await;
    let client = client(&store, "editor").await;
    let of = |id: &str, field: &str| json!({ "entityType": "project", "id": id, "field": field });

    let missing = client.call_error("get_history", of("b", "title")).await;
    let unknown = client.call("get_history", of("a", "status")).await;
    let owned = client.call("get_history", of("a", "updated_at")).await;
    let known = client.call("get_history", of("a", "title")).await;

    assert_eq!(missing["code"], "PROJECT_NOT_FOUND", "{missing}");
    for (answer, meant) in [(unknown, "metadata.status"), (owned, "metadata.updatedAt")] {
        assert_eq!(answer["data"]["fields"], json!([]));
        let warning = answer["meta"]["warnings"][0].as_str().unwrap();
        assert!(
            warning.contains(&format!("did you mean `{meant}`?")),
            "{warning}"
        );
    }
    assert_eq!(known["meta"].get("warnings"), None, "{known}");
    store.assert_sound().await;
}

#[tokio::test]
async fn nobody_is_named_for_what_was_edited_outside() {
    on_each_store(async |store: &Store| {
        create_sound(&*store.repository, &project_key("a")).await;
        let client = client(store, "editor").await;
        let id = change(&client, "a", json!({ "title": "Mine", "result": "Mine" })).await;
        let key = project_key("a");
        let stored = store.repository.get(&key).await.unwrap().record.unwrap();
        let edited = with(stored.document(), json!({ "title": "By hand" }));
        store.edit(&key, Some(&Value::Object(edited).to_string()));

        let history = json!({ "entityType": "project", "id": "a" });
        let history = client.call("get_history", history).await;

        let row = |field: &str| {
            let fields = history["data"]["fields"].as_array().unwrap();
            fields.iter().find(|row| row["field"] == field).unwrap()
        };
        assert_eq!(row("title"), &json!({ "field": "title" }));
        assert_eq!(row("result")["auditId"], id.as_str());
    })
    .await;
}

#[tokio::test]
async fn a_store_whose_documents_were_deleted_is_not_called_the_wrong_one() {
    let store = Store::sqlite();
    let client = client(&store, "editor").await;
    let warning = async || {
        let listed = client.call("list_projects", json!({})).await;
        listed["meta"]["warnings"][0].as_str().unwrap().to_owned()
    };
    let unused = warning().await;
    create_sound(&*store.repository, &project_key("a")).await;
    let read = client.call("get_project", json!({ "id": "a" })).await;
    let version = &read["meta"]["version"];
    let arguments = json!({ "id": "a", "expectedVersion": version });
    client.call("delete_project", arguments).await;

    let deleted = warning().await;

    assert!(unused.contains("wrong store"), "{unused}");
    assert!(!deleted.contains("wrong store"), "{deleted}");
    assert!(deleted.contains("`undo_changes`"), "{deleted}");
    store.assert_sound().await;
}

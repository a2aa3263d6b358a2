//! Data as it is: what JavaScript programs leave is read and stored correctly by the next write, and
//! numbers keep their digits.

use std::fs;

use portfolio_mcp::domain::{DocumentKey, Kind, Version};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    fixtures::{create_sound, project, project_key, stored},
    messages::{client_hello, tool_output},
    program::{Home, PROGRAM},
    server::HttpServer,
    sse::SseSession,
    stdio::StdioClient,
    stores::{Store, on_each_store},
};

/// A published project as a JavaScript program may have left it, in its stored form.
fn published(id: &str) -> String {
    let mut document = project(id);
    document["metadata"]["status"] = json!("published");
    Value::Object(document).to_string()
}

/// Makes a store of which SQLite has the tables.
async fn prepare(store: &Store) {
    create_sound(
        &*store.repository,
        &DocumentKey::new(Kind::Resource, "sound"),
    )
    .await;
}

/// Projects with half of a surrogate pair, and encoded twice.
fn leftovers() -> [(&'static str, String, &'static str); 2] {
    let half = published("half").replace("Twice the bookings", r"Twice \ud83d");
    let twice = json!(published("twice")).to_string();
    [("half", half, "surrogate"), ("twice", twice, "JSON string")]
}

fn warnings(answer: &Value) -> String {
    answer["meta"]["warnings"].to_string()
}

#[tokio::test]
async fn leftovers_of_javascript_are_read_with_a_warning_and_stored_correctly_by_the_next_write() {
    on_each_store(async |store| {
        prepare(store).await;
        for (id, text, _) in leftovers() {
            store.put(Kind::Project, id, text.as_bytes());
        }
        let client = StdioClient::start(store).await;

        let listed = client.call("list_projects", json!({})).await;
        assert_eq!(listed["meta"]["total"], 2, "{listed}");
        for (id, text, says) in leftovers() {
            let read = client.call("get_project", json!({ "id": id })).await;
            assert_eq!(read["data"]["id"], id, "{read}");
            assert_eq!(
                read["meta"]["version"],
                Version::of(text.as_bytes()).as_str()
            );
            assert!(warnings(&read).contains(says), "{id}: {read}");
            assert!(warnings(&listed).contains(id), "{listed}");

            let patch = json!({ "id": id, "data": { "title": "New" } });
            let updated = client.call("update_project", patch).await;
            assert_eq!(updated["success"], true, "{updated}");

            let text = stored(&*store.repository, &project_key(id)).await.unwrap();
            let document: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(
                (&document["id"], &document["title"]),
                (&json!(id), &json!("New"))
            );
            let read = client.call("get_project", json!({ "id": id })).await;
            assert_eq!(read["meta"].get("warnings"), None, "{id}: {read}");
        }
        let text = stored(&*store.repository, &project_key("half"))
            .await
            .unwrap();
        assert!(text.contains("Twice \u{fffd}"), "{text}");
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn leftovers_of_javascript_are_on_the_website_and_no_problem_for_doctor() {
    on_each_store(async |store| {
        prepare(store).await;
        for (id, text, _) in leftovers() {
            store.put(Kind::Project, id, text.as_bytes());
        }
        let server = HttpServer::start(store, &[]);

        let list = server.get("/api/projects").json();
        assert_eq!(list["meta"]["total"], 2, "{list}");
        for (id, _, _) in leftovers() {
            let one = server.get(&format!("/api/projects/{id}")).json();
            assert_eq!(one["data"]["id"], id, "{one}");
        }
        let doctor = Home::new()
            .command(PROGRAM)
            .arg("doctor")
            .args(store.arguments())
            .output()
            .unwrap();
        let report = String::from_utf8(doctor.stdout).unwrap();
        assert!(report.contains("2 violations in 2 documents"), "{report}");
        assert!(!report.contains("cannot be read"), "{report}");
    })
    .await;
}

#[tokio::test]
async fn leftovers_in_import_files_and_audit_entries_are_read_with_a_warning() {
    on_each_store(async |store| {
        prepare(store).await;
        let folder = TempDir::new().unwrap();
        let [(_, half, _), (_, twice, _)] = leftovers();
        fs::write(folder.path().join("projects.json"), format!("[{half},{twice}]")).unwrap();
        let entry = |id: &str| {
            format!(
                r#"{{"id":"{id}","timestamp":"2025-01-01T00:00:00.000Z","action":"update","entityType":"project","entityId":"half","source":"admin","changes":[{{"field":"result","newValue":"cut \ud83d","oldValue":1.10}}]}}"#
            )
        };
        let lines = [entry("one"), json!(entry("two")).to_string()];
        fs::write(folder.path().join("audit.jsonl"), lines.join("\n")).unwrap();
        let import = Home::new()
            .command(PROGRAM)
            .arg("import")
            .arg(folder.path())
            .args(store.arguments())
            .output()
            .unwrap();
        let report = String::from_utf8(import.stdout).unwrap();
        assert!(report.contains("half of a character"), "{report}");
        assert!(report.contains("JSON string"), "{report}");
        assert!(report.contains("2 created"), "{report}");
        let client = StdioClient::start(store).await;

        for arguments in [
            json!({ "entityId": "half", "source": "admin", "action": "update" }),
            json!({ "entityId": "half", "action": "update", "detail": "full" }),
        ] {
            let log = client.call("get_audit_log", arguments).await;
            assert_eq!(log["data"].as_array().unwrap().len(), 2, "{log}");
            assert!(warnings(&log).contains("half of a character"), "{log}");
            let change = &log["data"][0]["changes"][0];
            assert_eq!(change["newValue"], "cut \u{fffd}", "{log}");
            assert_eq!(change["oldValue"].to_string(), "1.10", "{log}");
        }
        let stats = client.call("get_audit_stats", json!({})).await;
        assert_eq!(stats["data"]["entriesByAction"]["update"], 2, "{stats}");
        assert!(warnings(&stats).contains("half of a character"), "{stats}");
    })
    .await;
}

#[tokio::test]
async fn a_call_with_half_of_a_surrogate_pair_works_over_every_transport_and_says_so() {
    let store = Store::sqlite();
    prepare(&store).await;
    store.put(Kind::Project, "a", published("a").as_bytes());
    let server = HttpServer::start(&store, &[]);
    let stdio = StdioClient::start(&store).await;
    let mut sse = SseSession::open(server.address);
    sse.request("initialize", &client_hello("2024-11-05", "old", "1"));
    let call = |title: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"update_project","arguments":{{"id":"a","data":{{"title":"{title} \ud83d"}}}}}}}}"#
        )
    };

    let over_stdio = stdio.exchange(&call("stdio")).await;
    let over_http = server.post(&[], &call("http")).json();
    assert_eq!(sse.post(call("sse")).status, 202);
    let over_sse = sse.next_message().unwrap();

    for answer in [over_stdio, over_http, over_sse] {
        let output = tool_output(&answer["result"]);
        assert_eq!(output["success"], true, "{output}");
        assert!(
            warnings(&output).contains("`data.title` holds U+FFFD"),
            "{output}"
        );
    }
    let text = stored(&*store.repository, &project_key("a")).await.unwrap();
    assert!(text.contains("sse \u{fffd}"), "{text}");
    let encoded = json!({ "id": "a", "data": r#"{"title":"in a string \ud83d"}"# });
    let output = stdio.call("update_project", encoded).await;
    assert!(warnings(&output).contains("`data.title`"), "{output}");
}

const ODD_NUMBERS: &str = "[1.10,1e2,1E2,-0,1.0,12345678901234567890123,0.1e-7,1e400]";

#[tokio::test]
async fn numbers_in_untouched_fields_keep_their_digits_everywhere() {
    on_each_store(async |store| {
        prepare(store).await;
        let text = published("a").replacen('{', &format!(r#"{{"odd":{ODD_NUMBERS},"#), 1);
        store.put(Kind::Project, "a", text.as_bytes());
        let server = HttpServer::start(store, &[]);
        let client = StdioClient::start(store).await;

        let patch = json!({ "id": "a", "data": { "title": "New", "description": "Newer" } });
        client.call("update_project", patch).await;

        let updated = stored(&*store.repository, &project_key("a")).await.unwrap();
        assert!(updated.contains(ODD_NUMBERS), "{updated}");
        let rest = server.get("/api/projects/a").text();
        assert!(rest.contains(ODD_NUMBERS), "{rest}");
        let line = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"get_project","arguments":{"id":"a"}}}"#;
        let answer = server.post(&[], &line).text();
        assert_eq!(answer.matches(ODD_NUMBERS).count(), 2, "{answer}");
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn a_request_with_equal_numbers_is_a_repetition() {
    let store = Store::sqlite();
    prepare(&store).await;
    let client = StdioClient::start(&store).await;
    let call = |number: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"update_resource","arguments":{{"id":"sound","idempotencyKey":"k","data":{{"title":"New","metadata":{{"downloadCount":{number}}}}}}}}}}}"#
        )
    };

    let first = tool_output(&client.exchange(&call("1")).await["result"]);
    let again = tool_output(&client.exchange(&call("10e-1")).await["result"]);

    assert_eq!(first["success"], true, "{first}");
    assert_eq!(again["meta"]["replayed"], true, "{again}");
    assert_eq!(again["meta"]["auditId"], first["meta"]["auditId"]);
}

#[tokio::test]
async fn metadata_that_is_missing_or_broken_is_repaired_by_an_edit() {
    on_each_store(async |store| {
        prepare(store).await;
        for (id, metadata) in [
            ("missing", None),
            ("nothing", Some(json!(null))),
            ("text", Some(json!("draft"))),
            (
                "numeric",
                Some(json!({ "createdAt": 1_700_000_000_000_i64 })),
            ),
            (
                "half",
                Some(json!({ "updatedAt": "2025-01-01T00:00:00.000Z" })),
            ),
        ] {
            let mut document = project(id);
            document.shift_remove("metadata");
            if let Some(metadata) = metadata {
                document.insert("metadata".to_owned(), metadata);
            }
            store.put(
                Kind::Project,
                id,
                Value::Object(document).to_string().as_bytes(),
            );
        }
        let client = StdioClient::start(store).await;

        for id in ["missing", "nothing", "text", "numeric", "half"] {
            let unrelated = json!({ "id": id, "data": { "title": "New" } });
            let edited = client.call("update_project", unrelated).await;
            assert_eq!(edited["success"], true, "{edited}");
            let repair = json!({ "status": "draft", "featured": false });
            let repair = json!({ "id": id, "data": { "metadata": repair } });
            let repaired = client.call("update_project", repair).await;
            assert_eq!(repaired["meta"].get("warnings"), None, "{id}: {repaired}");
            let read = client.call("get_project", json!({ "id": id })).await;
            assert_eq!(read["meta"].get("warnings"), None, "{id}: {read}");
        }
        let numeric = client.call("get_project", json!({ "id": "numeric" })).await;
        assert_eq!(
            numeric["data"]["metadata"]["createdAt"],
            "2023-11-14T22:13:20.000Z"
        );
        store.assert_sound().await;
    })
    .await;
}

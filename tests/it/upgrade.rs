//! Stores of version 0.1.0 go on being used, by this version and by 0.1.0 beside it.

use futures::future::join_all;
use portfolio_mcp::domain::{AuditQuery, Kind};
use serde_json::{Value, json};

use crate::support::{old_version, soundness::entries, stdio::StdioClient, stores::Store};

/// How many entries version 0.1.0 left in its log, and how many of them a still older program.
const OLD_ENTRIES: usize = 22;
const OLDER_ENTRIES: usize = 8;

const WRITERS: usize = 3;
const UPDATES: usize = 10;

/// A client of version 0.1.0 on `store`.
async fn old_client(store: &Store) -> StdioClient {
    let program = [old_version::program().to_owned()];
    StdioClient::start_program(&program, &store.arguments()).await
}

/// Calls a tool that must succeed, and gives its output.
async fn call(client: &StdioClient, tool: &str, arguments: Value) -> Value {
    let output = client.call(tool, arguments).await;
    assert_eq!(output["success"], true, "{output}");
    output
}

/// The clients' sizes that the log records for a project, newest first.
async fn recorded_sizes(client: &StdioClient, id: &str) -> Vec<Value> {
    let filter = json!({ "entityType": "project", "entityId": id, "field": "client.size", "detail": "full" });
    let log = call(client, "get_audit_log", filter).await;
    let entries = log["data"].as_array().unwrap();
    entries
        .iter()
        .flat_map(|entry| entry["changes"].as_array().unwrap())
        .filter(|change| change["field"] == "client.size")
        .map(|change| change["newValue"].clone())
        .collect()
}

#[tokio::test]
async fn a_store_of_0_1_0_has_everything_that_was_in_it() {
    for store in old_version::stores() {
        let client = StdioClient::start(&store).await;

        for (kind, count) in [(Kind::Project, 5), (Kind::Resource, 4)] {
            let list = call(&client, &format!("list_{}", kind.plural()), json!({})).await;
            assert_eq!(list["meta"]["total"], count, "{store}: {list}");
        }
        let project = call(&client, "get_project", json!({ "id": "atelier-velo" })).await;
        assert_eq!(project["data"]["client"]["size"], "12 personnes", "{store}");
        assert_eq!(project["meta"]["warnings"], Value::Null, "{store}");

        let log = entries(&*store.repository, &AuditQuery::default()).await;
        let numbered = log.iter().filter(|entry| entry.seq().is_some()).count();
        assert_eq!(
            (log.len(), numbered),
            (OLD_ENTRIES, OLD_ENTRIES - OLDER_ENTRIES),
            "{store}"
        );
        store.assert_sound().await;
    }
}

#[tokio::test]
async fn a_store_of_0_1_0_is_extended_in_place() {
    for store in old_version::stores() {
        let client = StdioClient::start(&store).await;

        let edit = json!({ "id": "ancien-site", "data": { "client": { "size": "4" } } });
        call(&client, "update_project", edit).await;

        assert_eq!(
            recorded_sizes(&client, "ancien-site").await,
            [json!("4")],
            "{store}"
        );
        let log = store.assert_sound().await;
        assert_eq!(log.entries.len(), OLD_ENTRIES + 1, "{store}");
        assert_eq!(log.seq, 15, "{store}: the numbers go on");
    }
}

#[tokio::test]
async fn a_repeated_request_of_0_1_0_is_answered_by_this_version() {
    for store in old_version::stores() {
        let old = old_client(&store).await;
        let edit = json!({ "id": "atelier-velo", "data": { "client": { "size": "13" } }, "idempotencyKey": "size-13" });
        let first = call(&old, "update_project", edit.clone()).await;

        let repeated = call(&StdioClient::start(&store).await, "update_project", edit).await;

        assert_eq!(repeated["meta"]["replayed"], true, "{store}: {repeated}");
        assert_eq!(
            repeated["meta"]["auditId"], first["meta"]["auditId"],
            "{store}"
        );
        store.assert_sound().await;
    }
}

#[tokio::test]
async fn a_change_of_0_1_0_is_undone_while_0_1_0_goes_on() {
    for store in old_version::stores() {
        let (old, new) = (old_client(&store).await, StdioClient::start(&store).await);
        let id = "atelier-velo";
        let filter = json!({ "entityType": "project", "entityId": id, "field": "client.size", "detail": "full" });
        let log = call(&new, "get_audit_log", filter).await;
        let entry = &log["data"][0];
        let before = &entry["changes"][0]["oldValue"];
        let title = json!({ "id": id, "data": { "title": "Un autre titre" } });
        call(&old, "update_project", title).await;

        let undo = json!({ "id": id, "undo": entry["auditId"].as_str().or(entry["id"].as_str()) });
        call(&new, "update_project", undo).await;

        let read = call(&old, "get_project", json!({ "id": id })).await;
        assert_eq!(&read["data"]["client"]["size"], before, "{store}");
        assert_eq!(read["data"]["title"], "Un autre titre", "{store}");
        store.assert_sound().await;
    }
}

#[tokio::test]
async fn both_versions_see_what_the_other_wrote() {
    for store in old_version::stores() {
        let (old, new) = (old_client(&store).await, StdioClient::start(&store).await);
        let id = "atelier-velo";

        for size in 0..UPDATES {
            let (writer, reader) = if size % 2 == 0 {
                (&old, &new)
            } else {
                (&new, &old)
            };
            let edit = json!({ "id": id, "data": { "client": { "size": size.to_string() } } });
            call(writer, "update_project", edit).await;

            let read = call(reader, "get_project", json!({ "id": id })).await;
            assert_eq!(read["data"]["client"]["size"], size.to_string(), "{store}");
            assert_eq!(read["meta"]["warnings"], Value::Null, "{store}");
        }

        let mut sizes: Vec<Value> = (0..UPDATES)
            .rev()
            .map(|size| json!(size.to_string()))
            .collect();
        sizes.push(json!("12 personnes"));
        assert_eq!(recorded_sizes(&new, id).await, sizes, "{store}");
        assert_eq!(recorded_sizes(&old, id).await, sizes, "{store}");
        store.assert_sound().await;
    }
}

#[tokio::test]
async fn writers_of_both_versions_lose_nothing() {
    for store in old_version::stores() {
        let mut clients = Vec::new();
        for _ in 0..WRITERS {
            clients.push(old_client(&store).await);
            clients.push(StdioClient::start(&store).await);
        }

        let write = async |writer: usize, client: &StdioClient| {
            for update in 0..UPDATES {
                let edit = json!({ "id": "ancien-site", "data": { "client": { "size": format!("{writer}-{update}") } } });
                call(client, "update_project", edit).await;
            }
        };
        join_all(
            clients
                .iter()
                .enumerate()
                .map(|(writer, client)| write(writer, client)),
        )
        .await;

        let log = store.assert_sound().await;
        let sizes = log.values_of("client.size");
        for writer in 0..2 * WRITERS {
            for update in 0..UPDATES {
                let size = format!("{writer}-{update}");
                assert_eq!(sizes.get(&size), Some(&1), "{store}: {size}");
            }
        }
    }
}

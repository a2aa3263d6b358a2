//! The snapshot: what it shows and when, what it says during an outage, and what memory it takes.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use portfolio_mcp::domain::{DocumentKey, Kind};
use redis::cmd;
use serde_json::{Value, json};

use crate::support::{
    fixtures::{create, document, update, with},
    messages::tool_output,
    proxy::{Mode, Proxy},
    server::HttpServer,
    stores::Store,
    wait::wait_until,
};

/// How long an edit by hand may take to show: docs/operations.md promises a minute.
const PROMISED: Duration = Duration::from_mins(1);
/// For noticing it, on a busy machine.
const SLACK: Duration = Duration::from_secs(10);

fn key(id: &str) -> DocumentKey {
    DocumentKey::new(Kind::Project, id)
}

async fn publish(store: &Store, id: &str) {
    let published = json!({ "metadata": { "status": "published" } });
    create(
        &*store.repository,
        &key(id),
        with(&document(Kind::Project, id), published),
    )
    .await;
}

fn website_ids(server: &HttpServer) -> Vec<String> {
    let response = server.get("/api/projects");
    ids(&response.json()["data"])
}

fn ids(data: &Value) -> Vec<String> {
    let id = |document: &Value| document["id"].as_str().unwrap().to_owned();
    data.as_array().unwrap().iter().map(id).collect()
}

/// A plain `SET`, as a person with redis-cli does it: nothing in the log or in an index shows it.
#[tokio::test(flavor = "multi_thread")]
async fn an_edit_by_hand_shows_within_a_minute() {
    let store = Store::redis();
    publish(&store, "kept").await;
    publish(&store, "hidden").await;
    let server = HttpServer::start(&store, &["--rate-limit", "0"]);
    let listed = || {
        let published = json!({ "status": "published" });
        ids(&tool_output(&server.call("list_projects", &published))["data"])
    };
    assert_eq!(website_ids(&server).len(), 2);
    assert_eq!(listed().len(), 2);

    let draft = json!({ "metadata": { "status": "draft" } });
    let hidden = with(&document(Kind::Project, "hidden"), draft);
    let text = serde_json::to_string(&hidden).unwrap();
    store
        .server()
        .run::<redis::Value>(cmd("SET").arg("data:projects:hidden").arg(text));

    // Nobody asks for half a minute, so that nothing is read again before it is needed.
    let edited = Instant::now();
    thread::sleep(PROMISED / 2);
    while website_ids(&server).len() == 2 || listed().len() == 2 {
        assert!(
            edited.elapsed() < PROMISED + SLACK,
            "the edit does not show after {:?}",
            edited.elapsed()
        );
        thread::sleep(Duration::from_secs(1));
    }
    assert_eq!(website_ids(&server), ["kept"]);
    store.assert_sound_but(&[key("hidden")]).await;
}

/// Large entries: the snapshot holds fewer of them than the log has.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_shows_the_end_of_the_log_and_says_where_that_begins() {
    const UPDATES: usize = 40;
    let store = Store::redis();
    publish(&store, "a").await;
    for number in 0..UPDATES {
        let text = format!("{number} ").repeat(20_000);
        update(&*store.repository, &key("a"), json!({ "challenge": text })).await;
    }
    let mut proxy = Proxy::start(store.server().port()).await;
    let server = HttpServer::start_with(&["--store", &proxy.url(), "--rate-limit", "0"]);
    let read = || tool_output(&server.call("get_audit_log", &json!({ "limit": 100 })));
    proxy.traffic_at_rest(); // the snapshot has the log
    assert_ne!(read()["meta"]["stale"], true);

    proxy.set(Mode::Refuse).await;
    let page = wait_until("the snapshot answers", || {
        let page = read();
        (page["meta"]["stale"] == true).then_some(page)
    });

    let shown = page["data"].as_array().unwrap().len();
    assert!(shown > 0 && shown < UPDATES, "{shown} entries");
    assert!(
        page["meta"]["searchedSince"].is_string(),
        "{}",
        page["meta"]
    );
    let cursor = page["meta"]["nextCursor"].as_str().unwrap().to_owned();
    let rest = json!({ "limit": 100, "cursor": cursor });
    let beyond = server.call("get_audit_log", &rest);
    assert_eq!(beyond["isError"], true, "{beyond}");

    proxy.set(Mode::Pass).await;
    let mut seen = shown;
    let mut cursor = Some(cursor);
    while let Some(next) = cursor {
        let page = wait_until("the store answers again", || {
            let answer = server.call("get_audit_log", &json!({ "limit": 100, "cursor": next }));
            (answer["isError"] != true).then(|| tool_output(&answer))
        });
        seen += page["data"].as_array().unwrap().len();
        cursor = page["meta"]["nextCursor"].as_str().map(ToOwned::to_owned);
    }
    assert_eq!(seen, UPDATES + 1);
    store.assert_sound().await;
}

/// Older programs may leave entries without a time; their place in the log is their score.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_pages_through_entries_of_older_programs_where_they_are() {
    const ENTRIES: usize = 60;
    let store = Store::redis();
    publish(&store, "a").await;
    for number in 0..ENTRIES {
        let entry = json!({ "action": "update", "entityType": "project", "entityId": "a", "number": number });
        let add = cmd("ZADD")
            .arg("audit:entries")
            .arg(1_700_000_000_000_u64 + number as u64)
            .arg(entry.to_string())
            .clone();
        store.server().run::<redis::Value>(&add);
    }
    let mut proxy = Proxy::start(store.server().port()).await;
    let server = HttpServer::start_with(&["--store", &proxy.url(), "--rate-limit", "0"]);
    let page = |cursor: Option<&str>| {
        let arguments = json!({ "limit": 5, "cursor": cursor, "detail": "full" });
        let answer = server.call("get_audit_log", &arguments);
        (answer["isError"] != true).then(|| tool_output(&answer))
    };
    proxy.traffic_at_rest(); // the snapshot has the log
    let in_store = wait_until("the log is answered", || page(None));

    proxy.set(Mode::Refuse).await;
    let first = wait_until("the snapshot answers", || {
        page(None).filter(|page| page["meta"]["stale"] == true)
    });
    assert_eq!(first["data"], in_store["data"]);
    let begins = &first["meta"]["logBegins"];
    assert_eq!(*begins, "2023-11-14T22:13:20.000Z");
    assert_eq!(*begins, in_store["meta"]["logBegins"]);
    let found = json!({ "field": "title" });
    let found = tool_output(&server.call("get_audit_log", &found));
    assert_eq!(found["meta"]["stale"], true, "{found}");
    assert_eq!(found["data"].as_array().unwrap().len(), 1, "{found}");
    let stats = tool_output(&server.call("get_audit_stats", &json!({})));
    assert_eq!(stats["meta"]["logBegins"], *begins, "{stats}");
    let since = json!({ "since": "2024-01-01T00:00:00Z" });
    let recent = tool_output(&server.call("get_audit_log", &since));
    assert_eq!(recent["data"].as_array().unwrap().len(), 1, "{recent}");
    proxy.set(Mode::Pass).await;

    let mut seen = 5;
    let mut cursor = first["meta"]["nextCursor"].as_str().map(ToOwned::to_owned);
    while let Some(next) = cursor {
        let page = wait_until("the store answers again", || {
            page(Some(&next)).filter(|page| page["meta"]["stale"] != true)
        });
        seen += page["data"].as_array().unwrap().len();
        cursor = page["meta"]["nextCursor"].as_str().map(ToOwned::to_owned);
    }
    assert_eq!(seen, ENTRIES + 1);
}

/// Resident memory stays near the size of the documents, whatever was written and read.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn many_edits_of_large_documents_take_little_memory() {
    const DOCUMENTS: usize = 13;
    const UPDATES: usize = 600;
    const MIB: u64 = 1024 * 1024;
    let store = Store::redis();
    for number in 0..DOCUMENTS {
        publish(&store, &format!("p{number}")).await;
    }
    let server = HttpServer::start(&store, &["--rate-limit", "0"]);
    let begin = resident(&server);
    let size = 200 * 1024;

    thread::scope(|scope| {
        for writer in 0..4 {
            let server = &server;
            scope.spawn(move || {
                for number in (writer..UPDATES).step_by(4) {
                    let text = format!("{number:>8}").repeat(size / 8);
                    let id = format!("p{}", number % DOCUMENTS);
                    let arguments = json!({ "id": id, "data": { "challenge": text } });
                    let answer = server.call("update_project", &arguments);
                    assert_ne!(answer["isError"], true, "{answer}");
                    if number % 50 == 0 {
                        server.call("list_projects", &json!({}));
                    }
                }
            });
        }
    });
    let after_edits = resident(&server);
    for detail in ["full", "summary"] {
        let arguments = json!({ "limit": 500, "detail": detail });
        let answer = server.call("get_audit_log", &arguments);
        assert_ne!(answer["isError"], true, "{answer}");
    }
    let after_log = resident(&server);

    println!(
        "resident: {} MiB at the start, {} after {UPDATES} edits, {} after full pages of the log",
        begin / MIB,
        after_edits / MIB,
        after_log / MIB
    );
    let limit = 150 * MIB + (DOCUMENTS * size) as u64;
    assert!(
        after_edits < limit,
        "{} MiB after the edits",
        after_edits / MIB
    );
    assert!(after_log < limit, "{} MiB after the log", after_log / MIB);
}

/// The resident memory of a server in bytes.
#[cfg(target_os = "linux")]
fn resident(server: &HttpServer) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.process_id())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib * 1024
}

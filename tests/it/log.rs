//! The audit log when it is long, its entries are large or the line is slow: every call has a small
//! and true answer, and other calls do not notice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use portfolio_mcp::store::{Location, Store as StoreParts, open};
use redis::cmd;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::support::{
    fixtures::{create_sound, project_key},
    messages::tool_output,
    proxy::{Proxy, SlowNetwork},
    redis::RedisServer,
    server::HttpServer,
    stdio::StdioClient,
    stores::Store,
};

/// CONTRACT.md, section 2.
const MAX_ANSWER_BYTES: usize = 32_000;
/// A line over which the log of these tests takes longer than any call may.
const SLOW_LINE: SlowNetwork = SlowNetwork {
    bytes_per_second: 2_000_000,
    round_trip: Duration::from_millis(20),
};

/// Puts an entry of an older program into the log for each of these numbers, one a millisecond.
fn fill(server: &RedisServer, numbers: std::ops::Range<i64>, entry: impl Fn(i64) -> String) {
    let numbers: Vec<i64> = numbers.collect();
    for chunk in numbers.chunks(1000) {
        let mut add = cmd("ZADD");
        add.arg("audit:entries");
        for number in chunk {
            add.arg(1_600_000_000_000 + number).arg(entry(*number));
        }
        server.run::<i64>(&add);
    }
}

/// An entry of about 500 bytes.
fn entry_about(number: i64, id: &str) -> String {
    let text = "x".repeat(400);
    format!(
        r#"{{"id":{number},"action":"save","entityType":"projects","entityId":"{id}","source":"cms","text":"{text}"}}"#
    )
}

/// A log of `count` entries, of which the oldest and one of the newest are about `rare`.
fn long_log(count: i64) -> Store {
    let store = Store::redis();
    fill(store.server(), 0..count, |number| {
        let is_rare = number == 0 || number == count - 100;
        entry_about(number, if is_rare { "rare" } else { "other" })
    });
    store
}

fn rows(answer: &Value) -> &Vec<Value> {
    answer["data"]
        .as_array()
        .unwrap_or_else(|| panic!("{answer}"))
}

/// The number of an entry in a row, short or as stored.
fn number(row: &Value) -> i64 {
    let id = row.get("auditId").or(row.get("id"));
    id.and_then(Value::as_i64)
        .unwrap_or_else(|| panic!("{row}"))
}

/// The numbers of the entries on all pages, and how many pages there are.
async fn numbers_on_pages(client: &StdioClient, arguments: Value) -> (Vec<i64>, usize) {
    let (mut numbers, mut pages, mut arguments) = (Vec::new(), 0, arguments);
    loop {
        let answer = client.call("get_audit_log", arguments.clone()).await;
        assert_eq!(answer["meta"]["source"], "redis", "{answer}");
        let bytes = answer.to_string().len();
        assert!(
            bytes <= MAX_ANSWER_BYTES || rows(&answer).len() == 1,
            "{} entries in {bytes} bytes",
            rows(&answer).len()
        );
        numbers.extend(rows(&answer).iter().map(number));
        pages += 1;
        let meta = &answer["meta"];
        if meta["nextCursor"].is_null() {
            return (numbers, pages);
        }
        arguments["cursor"] = meta["nextCursor"].clone();
    }
}

/// The parts of a store behind a proxy, without a snapshot, which reads the log by itself.
fn parts_behind(proxy: &Proxy) -> StoreParts {
    let location = Location::Redis {
        write: Some(proxy.redis_url()),
        read: None,
        key_prefix: String::new(),
    };
    StoreParts {
        snapshot: None,
        ..open(&location).unwrap()
    }
}

fn client_behind(proxy: &Proxy) -> StdioClient {
    StdioClient::in_process(parts_behind(proxy), None)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_of_a_long_log_finds_every_match_over_a_slow_line() {
    let count = 25_000;
    let store = long_log(count);
    let proxy = Proxy::start_slow(store.server().port(), SLOW_LINE).await;
    let client = StdioClient::start_with(&["--store".to_owned(), proxy.url()]).await;

    let begun = Instant::now();
    let first = client
        .call("get_audit_log", json!({ "entityId": "rare" }))
        .await;
    let (found, pages) = numbers_on_pages(&client, json!({ "entityId": "rare" })).await;

    println!("{pages} pages, {:?}", begun.elapsed());
    assert_eq!(first["meta"]["stale"], Value::Null, "{first}");
    assert_eq!(first["data"][0]["auditId"], count - 100, "{first}");
    assert!(first["meta"]["nextCursor"].is_string(), "{first}");
    assert!(first["meta"]["searchedSince"].is_string(), "{first}");
    assert_eq!(found, [count - 100, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn searches_of_one_client_do_not_make_answers_of_others_stale() {
    let store = long_log(25_000);
    create_sound(&*store.repository, &project_key("a")).await;
    let proxy = Proxy::start_slow(store.server().port(), SLOW_LINE).await;
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    let [reader, writer] = [
        "reader-secret-000000000000000000",
        "writer-secret-000000000000000000",
    ];
    std::fs::write(
        &tokens,
        format!("reader:read:{reader}\nwriter:write:{writer}\n"),
    )
    .unwrap();
    let options = [
        "--token-file",
        tokens.to_str().unwrap(),
        "--rate-limit",
        "0",
    ];
    let mut arguments = vec!["--store".to_owned(), proxy.url()];
    arguments.extend(options.map(ToOwned::to_owned));
    let server = Arc::new(HttpServer::start_with(&arguments));
    let call = |token: &str, tool: &'static str, arguments: Value| {
        let (server, token) = (Arc::clone(&server), format!("Bearer {token}"));
        spawn_blocking(move || {
            let headers = [("Authorization", token.as_str())];
            tool_output(&server.call_with(&headers, tool, &arguments))
        })
    };
    let searching = AtomicBool::new(true);

    let searches = async {
        let calls = (0..4).map(|_| call(reader, "get_audit_log", json!({ "entityId": "rare" })));
        let found = join_all(calls).await;
        searching.store(false, Ordering::Relaxed);
        found
    };
    let reads = async {
        let mut answers = Vec::new();
        while searching.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let answer = call(writer, "get_project", json!({ "id": "a" }))
                .await
                .unwrap();
            answers.push((answer, begun.elapsed()));
        }
        answers
    };
    let (searches, reads) = tokio::join!(searches, reads);

    let slowest = reads.iter().map(|(_, time)| *time).max();
    println!("{} reads, the slowest took {slowest:?}", reads.len());
    assert!(reads.len() > 4);
    for (answer, _) in reads {
        assert_eq!(answer["meta"]["source"], "redis", "{}", answer["meta"]);
    }
    for answer in searches.into_iter().map(Result::unwrap) {
        assert_eq!(answer["meta"]["source"], "redis", "{answer}");
        assert_eq!(answer["data"][0]["entityId"], "rare", "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_without_room_among_others_says_so() {
    let store = long_log(25_000);
    let proxy = Proxy::start_slow(store.server().port(), SLOW_LINE).await;
    let client = client_behind(&proxy);

    let calls = (0..10).map(|_| client.call("get_audit_log", json!({ "entityId": "rare" })));
    let answers = join_all(calls).await;

    let busy: Vec<&Value> = answers
        .iter()
        .filter(|answer| answer["success"] == false)
        .collect();
    assert!(
        !busy.is_empty() && busy.len() <= 6,
        "{} were rejected",
        busy.len()
    );
    for answer in busy {
        let message = answer["error"]["message"].as_str().unwrap();
        assert_eq!(answer["error"]["code"], "STORE_UNAVAILABLE", "{answer}");
        assert!(
            message.contains("other calls are reading the audit log"),
            "{message}"
        );
    }
}

/// An entry that holds 400 KiB.
fn large_entry(number: i64) -> String {
    let text = "y".repeat(400 * 1024);
    let change = json!({ "field": "description", "oldValue": text });
    json!({ "id": number, "action": "save", "changes": [change] }).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_large_entries_are_small_and_have_each_once() {
    const ENTRIES: i64 = 40;
    let store = Store::redis();
    fill(store.server(), 0..ENTRIES, large_entry);
    let proxy = Proxy::start(store.server().port()).await;
    let client = client_behind(&proxy);

    let (numbers, pages) =
        numbers_on_pages(&client, json!({ "limit": 500, "detail": "full" })).await;

    assert_eq!(numbers, (0..ENTRIES).rev().collect::<Vec<_>>());
    let bytes = proxy.traffic().bytes / pages as u64;
    println!("{pages} pages, {bytes} bytes fetched for each");
    // The last entry of the page before, the one of this page, and the next one.
    assert!(
        bytes < 3 * 410 * 1024,
        "{bytes} bytes were fetched for a page"
    );

    let (numbers, _) = numbers_on_pages(&client, json!({ "limit": 500 })).await;

    assert_eq!(numbers, (0..ENTRIES).rev().collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_entry_is_read_without_many_others() {
    let store = Store::redis();
    fill(store.server(), 0..20, large_entry);
    let proxy = Proxy::start(store.server().port()).await;
    let client = client_behind(&proxy);

    let answer = client.call("get_audit_log", json!({ "limit": 1 })).await;

    assert_eq!(answer["data"][0]["auditId"], 19);
    let bytes = proxy.traffic().bytes;
    assert!(bytes < 3 * 400 * 1024, "{bytes} bytes were fetched");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statistics_of_large_entries_are_small() {
    let store = Store::redis();
    fill(store.server(), 0..12, |number| {
        let changes: Vec<Value> = (0..60)
            .map(|at| json!({ "field": format!("f{at}"), "newValue": "z".repeat(150) }))
            .collect();
        json!({ "id": number, "action": format!("{}", "a".repeat(3000)), "source": format!("s{number}"), "changes": changes })
            .to_string()
    });
    let client = StdioClient::start(&store).await;

    let stats = client.call("get_audit_stats", json!({})).await;

    let bytes = stats.to_string().len();
    assert!(bytes <= MAX_ANSWER_BYTES, "{bytes} bytes");
    assert_eq!(stats["data"]["totalEntries"], 12);
    assert_eq!(stats["data"]["recentActivity"][0]["auditId"], 11);
    assert_eq!(stats["data"]["latestEntry"]["auditId"], 11);
}

/// What older programs wrote without a time is all in one millisecond.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_within_one_millisecond_do_not_read_it_from_its_beginning() {
    const ENTRIES: i64 = 3000;
    let store = Store::redis();
    let mut add = cmd("ZADD");
    add.arg("audit:entries");
    for number in 0..ENTRIES {
        add.arg(5).arg(format!(
            r#"{{"id":{number:>6},"text":"{}"}}"#,
            "x".repeat(300)
        ));
    }
    store.server().run::<i64>(&add);
    let proxy = Proxy::start(store.server().port()).await;
    let client = client_behind(&proxy);

    let (numbers, pages) = numbers_on_pages(&client, json!({ "limit": 60 })).await;

    assert_eq!(numbers, (0..ENTRIES).rev().collect::<Vec<_>>());
    let read = proxy.traffic().bytes;
    println!("{pages} pages, {read} bytes");
    assert!(read < 2 * 3000 * 330, "{read} bytes were read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_that_disagree_with_a_long_log_are_counted_in_the_background() {
    let store = long_log(12_000);
    let proxy = Proxy::start_slow(store.server().port(), SLOW_LINE).await;
    let client = StdioClient::start_with(&["--store".to_owned(), proxy.url()]).await;

    let begun = Instant::now();
    let first = client.call("get_audit_stats", json!({})).await;

    assert_eq!(first["meta"]["source"], "redis", "{first}");
    assert_eq!(first["data"]["totalEntries"], 12_000, "{first}");
    let warning = first["meta"]["warnings"][0].as_str().unwrap_or_default();
    assert!(warning.contains("counted again"), "{first}");
    create_sound(&*store.repository, &project_key("meanwhile")).await;
    let counted = client
        .call_until("get_audit_stats", json!({}), |stats| {
            stats["meta"]["warnings"].is_null()
        })
        .await;
    println!("counted after {:?}", begun.elapsed());
    assert_eq!(counted["data"]["totalEntries"], 12_001);
    let by_action = json!({ "create": 1, "save": 12_000 });
    assert_eq!(counted["data"]["entriesByAction"], by_action);
    let stored: String = store
        .server()
        .run(cmd("HGET").arg("audit:stats").arg("action:save"));
    assert_eq!(stored, "12000");
}

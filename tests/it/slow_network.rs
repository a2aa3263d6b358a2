//! Reading over slow networks: whatever the log holds, everything is answered in time.

use std::time::Duration;

use futures::future::join_all;
use portfolio_mcp::domain::{DocumentKey, Kind, Timestamp, audit::entry_text};
use redis::cmd;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::support::{
    fixtures::{create, document, with},
    messages::tool_output,
    proxy::{Proxy, SlowNetwork},
    redis::RedisServer,
    server::HttpServer,
    stores::Store,
    wait::wait_until,
};

/// Bytes a second.
const LINES: [u32; 3] = [250_000, 1_000_000, 6_000_000];
const ROUND_TRIP: Duration = Duration::from_millis(40);
const PROJECTS: usize = 13;
/// The slowest of them.
pub(crate) const SLOWEST: SlowNetwork = SlowNetwork {
    bytes_per_second: LINES[0],
    round_trip: ROUND_TRIP,
};

/// A log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogOf {
    entries: usize,
    /// Of each entry.
    bytes: usize,
    program: Program,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    Ours,
    /// Its entries have no number, and it does not count them.
    Older,
}

/// A log of large entries.
pub(crate) const LARGE_ENTRIES: LogOf = LogOf {
    entries: 1000,
    bytes: 21_000,
    program: Program::Ours,
};

const LOGS: [LogOf; 5] = [
    LogOf {
        entries: 0,
        bytes: 0,
        program: Program::Ours,
    },
    LogOf {
        entries: 1600,
        bytes: 800,
        program: Program::Ours,
    },
    LogOf {
        entries: 1600,
        bytes: 21_000,
        program: Program::Ours,
    },
    LogOf {
        entries: 20_000,
        bytes: 800,
        program: Program::Ours,
    },
    LogOf {
        entries: 20_000,
        bytes: 400,
        program: Program::Older,
    },
];

impl LogOf {
    /// The text of an entry. The oldest and the newest one are about the document `rare`.
    fn entry(self, number: usize, time: Timestamp) -> String {
        let rare = number == 1 || number == self.entries;
        let rest = json!({
            "id": format!("00000000-0000-4000-8000-{number:012}"),
            "action": "update",
            "entityType": "project",
            "entityId": if rare { "rare".to_owned() } else { format!("p{}", number % PROJECTS) },
            "source": "mcp",
            "changes": [{ "field": "title", "oldValue": "x".repeat(self.bytes.saturating_sub(300)), "newValue": "b" }],
            "metadata": { "clientId": "tests/1" },
        });
        let rest = rest.to_string();
        match self.program {
            Program::Ours => entry_text(number as u64, time, &rest[1..]),
            Program::Older => format!(r#"{{"timestamp":"{time}",{}"#, &rest[1..]),
        }
    }

    pub(crate) fn store_in(self, server: &RedisServer) {
        let start = 1_600_000_000_000;
        let mut lines = redis::pipe();
        for number in 1..=self.entries {
            let time = Timestamp::from_millis(start + i64::try_from(number).unwrap());
            lines
                .cmd("ZADD")
                .arg("audit:entries")
                .arg(time.millis())
                .arg(self.entry(number, time))
                .ignore();
            if number % 200 == 0 {
                server.run_all(&lines);
                lines = redis::pipe();
            }
        }
        if lines.cmd_iter().next().is_some() {
            server.run_all(&lines);
        }
        if self.program == Program::Ours {
            for name in ["action:update", "entityType:project", "source:mcp"] {
                server.run::<redis::Value>(
                    cmd("HINCRBY")
                        .arg("audit:stats")
                        .arg(name)
                        .arg(self.entries),
                );
            }
        }
    }
}

/// One call after the other, as a client would make them.
fn use_server(server: &HttpServer, what: &str) {
    let call = |tool: &str, arguments: Value| {
        let answer = tool_output(&server.call(tool, &arguments));
        assert_eq!(
            answer["success"], true,
            "{what}: {tool} {arguments}: {answer}"
        );
        assert_ne!(
            answer["meta"]["stale"], true,
            "{what}: {tool} {arguments}: {answer}"
        );
        answer
    };
    let list = call("list_projects", json!({}));
    assert_eq!(list["meta"]["total"], PROJECTS, "{what}: {list}");
    let page = call("get_audit_log", json!({ "limit": 20 }));
    assert!(
        !page["data"].as_array().unwrap().is_empty(),
        "{what}: {page}"
    );
    let rare = call("get_audit_log", json!({ "entityId": "rare" }));
    assert!(
        rare["data"].as_array().unwrap().len() != 1 || rare["meta"]["nextCursor"].is_string(),
        "{what}: {rare}"
    );
    call("get_audit_stats", json!({}));
    let response = server.get("/api/projects");
    assert_eq!(response.status, 200, "{what}: {response:?}");
    assert_ne!(response.json()["meta"]["stale"], true, "{what}");
    call("get_project", json!({ "id": "p1" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_answered_over_every_network_whatever_the_log_holds() {
    join_all(LOGS.map(answered_over_every_network)).await;
}

async fn answered_over_every_network(log: LogOf) {
    let store = Store::redis();
    for number in 0..PROJECTS {
        let key = DocumentKey::new(Kind::Project, format!("p{number}"));
        let text = json!({ "challenge": "x".repeat(400), "metadata": { "status": "published" } });
        let document = with(&document(key.kind, &key.id), text);
        create(&*store.repository, &key, document).await;
    }
    log.store_in(store.server());
    join_all(LINES.map(async |bytes_per_second| {
        let line = SlowNetwork {
            bytes_per_second,
            round_trip: ROUND_TRIP,
        };
        let proxy = Proxy::start_slow(store.server().port(), line).await;
        let url = proxy.url();
        let what = format!("{log:?} at {bytes_per_second} B/s");
        let server = spawn_blocking(move || {
            let server = HttpServer::start_with(&["--store", &url, "--rate-limit", "0"]);
            use_server(&server, &what);
            server
        });
        let _server = server.await.unwrap();
        assert_falls_silent(&proxy).await;
    }))
    .await;
}

/// Nothing is read again and again.
async fn assert_falls_silent(proxy: &Proxy) {
    let (mut before, mut silent) = (proxy.traffic(), 0);
    while silent < 3 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let after = proxy.traffic();
        let is_silent = after.bytes - before.bytes < 5000;
        silent = if is_silent { silent + 1 } else { 0 };
        before = after;
    }
}

/// A store of published projects of 200 KiB.
pub(crate) async fn store_of_large_documents(count: usize) -> Store {
    let store = Store::redis();
    for number in 0..count {
        let key = DocumentKey::new(Kind::Project, format!("p{number}"));
        let text =
            json!({ "challenge": "x".repeat(200 * 1024), "metadata": { "status": "published" } });
        let document = with(&document(key.kind, &key.id), text);
        create(&*store.repository, &key, document).await;
    }
    store
}

/// A site of large documents: the first list takes longer than a call may wait, and all later ones
/// are answered.
#[tokio::test(flavor = "multi_thread")]
async fn large_documents_arrive_over_a_slow_network() {
    let store = store_of_large_documents(PROJECTS).await;
    let proxy = Proxy::start_slow(store.server().port(), SLOWEST).await;
    let server = HttpServer::start_with(&["--store", &proxy.url(), "--rate-limit", "0"]);

    let list = wait_until("the documents were read", || {
        let answer = server.call("list_projects", &json!({}));
        (answer["isError"] != true).then(|| tool_output(&answer))
    });

    assert_eq!(list["meta"]["total"], PROJECTS, "{list}");
    store.assert_sound().await;
}

/// Lists need documents only.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_the_wrong_type_does_not_stop_lists() {
    let store = Store::redis();
    for number in 0..PROJECTS {
        let key = DocumentKey::new(Kind::Project, format!("p{number}"));
        let text = json!({ "metadata": { "status": "published" } });
        create(
            &*store.repository,
            &key,
            with(&document(key.kind, &key.id), text),
        )
        .await;
    }
    store
        .server()
        .run::<redis::Value>(cmd("SET").arg("audit:entries").arg("not a sorted set"));
    let server = HttpServer::start(&store, &[]);

    let list = tool_output(&server.call("list_projects", &json!({})));
    let website = server.get("/api/projects");

    assert_eq!(list["meta"]["total"], PROJECTS, "{list}");
    assert_eq!(website.status, 200, "{website:?}");
    wait_until("the log names the cause", || {
        let log = server.log();
        (log.contains("could not read the end of the audit log") && log.contains("WRONGTYPE"))
            .then_some(())
    });
}

/// One index of the wrong type stops the lists of that kind only.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_the_wrong_type_stops_its_own_lists_only() {
    let store = Store::redis();
    let key = DocumentKey::new(Kind::Resource, "r1");
    create(&*store.repository, &key, document(key.kind, &key.id)).await;
    store
        .server()
        .run::<redis::Value>(cmd("SET").arg("index:all:projects").arg("not a set"));
    let server = HttpServer::start(&store, &[]);

    let resources = tool_output(&server.call("list_resources", &json!({})));
    let projects = server.call("list_projects", &json!({}));

    assert_eq!(resources["meta"]["total"], 1, "{resources}");
    assert_eq!(projects["isError"], true, "{projects}");
}

/// The large ones come last, when much is asked for at once because the others were small.
#[tokio::test(flavor = "multi_thread")]
async fn large_documents_after_many_small_ones_arrive_over_a_slow_network() {
    const SMALL: usize = 100;
    const LARGE: usize = 12;
    let store = Store::redis();
    for number in 0..SMALL + LARGE {
        let size = if number < SMALL { 10 } else { 200 * 1024 };
        let text = json!({ "id": format!("p{number:03}"), "challenge": "x".repeat(size) });
        let server = store.server();
        let key = format!("data:projects:p{number:03}");
        server.run::<redis::Value>(cmd("SET").arg(key).arg(text.to_string()));
        let mut index = cmd("SADD");
        index.arg("index:all:projects");
        server.run::<redis::Value>(index.arg(format!("p{number:03}")));
    }
    let network = SlowNetwork {
        bytes_per_second: 500_000,
        round_trip: ROUND_TRIP,
    };
    let proxy = Proxy::start_slow(store.server().port(), network).await;
    let server = HttpServer::start_with(&["--store", &proxy.url(), "--rate-limit", "0"]);

    let list = wait_until("the documents were read", || {
        let answer = server.call("list_projects", &json!({}));
        (answer["isError"] != true).then(|| tool_output(&answer))
    });

    assert_eq!(list["meta"]["total"], SMALL + LARGE, "{list}");
}

//! Every fault of the line to the store, met by every kind of call over every transport: an answer in time, of the right kind, and
//! a store that is sound afterwards.

#![expect(
    clippy::print_stdout,
    reason = "how soon the store is served again is worth seeing with --nocapture"
)]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::{
    support::{
        PATIENCE,
        content::{create_sound, project_key},
        mcp::{Mcp, said},
        program::Home,
        proxy::{Mode, Proxy},
        stores::Store,
        wait_until,
    },
    transport::{HttpServer, Session},
};

/// A call is answered within 10 seconds; the rest is for a machine that has much else to do.
const ANSWERED: Duration = Duration::from_secs(20);

/// Faults that pass by themselves, so that every call has to succeed.
const PASSING: [Mode; 3] = [Mode::CutAnyRequest, Mode::CutAnyReply, Mode::CutMidReply];
/// Faults that stay.
const LASTING: [Mode; 4] = [Mode::Slow, Mode::Trickle, Mode::Swallow, Mode::Refuse];

/// What is asked: a read, a list, the log, an update.
const TOOLS: [&str; 4] = [
    "get_project",
    "list_projects",
    "get_audit_log",
    "update_project",
];

/// A client over one of the transports.
enum Client {
    Stdio(Box<Mcp>),
    Http(HttpServer),
    Sse {
        _server: HttpServer,
        sessions: BTreeMap<&'static str, Mutex<Session>>,
    },
}

impl Client {
    async fn over(transport: &str, proxy: &Proxy) -> Self {
        let arguments = ["--store".to_owned(), proxy.url()];
        match transport {
            "stdio" => Self::Stdio(Box::new(Mcp::start_with(&arguments).await)),
            "http" => Self::Http(HttpServer::start_with(Home::new(), &arguments)),
            _ => {
                let server = HttpServer::start_with(Home::new(), &arguments);
                let sessions = TOOLS
                    .into_iter()
                    .map(|tool| (tool, Mutex::new(Session::open(server.address))))
                    .collect();
                Self::Sse {
                    _server: server,
                    sessions,
                }
            }
        }
    }

    /// Calls a tool; fails when the answer takes too long.
    async fn call(self: &Arc<Self>, tool: &'static str, arguments: Value) -> Value {
        let begun = Instant::now();
        let answer = match &**self {
            Self::Stdio(client) => client.call(tool, arguments).await,
            Self::Http(_) | Self::Sse { .. } => {
                let client = Arc::clone(self);
                let asked = spawn_blocking(move || match &*client {
                    Self::Http(server) => said(&server.call(tool, &arguments)),
                    Self::Sse { sessions, .. } => {
                        let call = json!({ "name": tool, "arguments": arguments });
                        said(&sessions[tool].lock().unwrap().request("tools/call", &call)["result"])
                    }
                    Self::Stdio(_) => unreachable!(),
                });
                asked.await.unwrap()
            }
        };
        assert!(
            begun.elapsed() < ANSWERED,
            "{tool} was answered after {:?}: {answer}",
            begun.elapsed()
        );
        answer
    }
}

/// What became of the updates.
#[derive(Default)]
struct Updates {
    number: usize,
    applied: Vec<String>,
    not_applied: Vec<String>,
    unknown: Vec<String>,
}

impl Updates {
    /// The arguments of a call; an update has a value of its own.
    fn arguments(&mut self, tool: &str) -> Value {
        match tool {
            "get_project" => json!({ "id": "a" }),
            "update_project" => {
                self.number += 1;
                json!({ "id": "a", "data": { "title": format!("update {}", self.number) } })
            }
            _ => json!({}),
        }
    }

    /// Checks that an answer is of the right kind: `may_fail` when the fault stays.
    fn check(&mut self, fault: Mode, tool: &str, arguments: &Value, answer: &Value) {
        let (code, place) = (
            answer["error"]["code"].as_str(),
            format!("{fault:?} x {tool}: {answer}"),
        );
        if let Some(title) = arguments["data"]["title"].as_str() {
            match code {
                None => self.applied.push(title.to_owned()),
                Some("STORE_UNAVAILABLE" | "STORE_READ_ONLY") => {
                    self.not_applied.push(title.to_owned())
                }
                Some("OUTCOME_UNKNOWN") => self.unknown.push(title.to_owned()),
                Some(_) => panic!("{place}"),
            }
            if code == Some("STORE_READ_ONLY") {
                assert!(
                    answer["error"]["details"]["retryAfterMs"]
                        .as_u64()
                        .is_some_and(|millis| millis > 0),
                    "{place}"
                );
            }
        }
        match fault {
            Mode::Slow | Mode::CutAnyRequest | Mode::CutAnyReply | Mode::CutMidReply => {
                assert_eq!(code, None, "{place}")
            }
            Mode::Refuse | Mode::Swallow if tool == "update_project" => {
                assert!(
                    matches!(code, Some("STORE_UNAVAILABLE" | "STORE_READ_ONLY")),
                    "{place}"
                );
            }
            // There is a saved copy, so that every read is answered.
            _ if tool != "update_project" => assert_eq!(code, None, "{place}"),
            _ => {}
        }
        if matches!(fault, Mode::Refuse | Mode::Swallow) && tool != "update_project" {
            let meta = &answer["meta"];
            assert_eq!(
                (&meta["source"], &meta["stale"]),
                (&json!("snapshot"), &json!(true)),
                "{place}"
            );
            assert!(meta["ageMs"].is_u64(), "{place}");
        }
    }
}

async fn every_fault_is_survived_over(transport: &str) {
    let store = Store::redis();
    let key = project_key("a");
    create_sound(&*store.repository, &key).await;
    let mut proxy = Proxy::start(store.server().port()).await;
    let client = Arc::new(Client::over(transport, &proxy).await);
    let mut updates = Updates::default();
    // A list fills the saved copy.
    assert_eq!(
        client.call("list_projects", json!({})).await["meta"]["source"],
        "redis"
    );

    for fault in PASSING {
        for tool in TOOLS {
            let arguments = updates.arguments(tool);
            proxy.set(fault).await;
            let answer = client.call(tool, arguments.clone()).await;
            updates.check(fault, tool, &arguments, &answer);
        }
    }
    for fault in LASTING {
        proxy.set(fault).await;
        let calls: Vec<_> = TOOLS
            .iter()
            .map(|tool| (*tool, updates.arguments(tool)))
            .collect();
        let answers = join_all(
            calls
                .iter()
                .map(|(tool, arguments)| client.call(tool, arguments.clone())),
        )
        .await;
        for ((tool, arguments), answer) in calls.iter().zip(&answers) {
            updates.check(fault, tool, arguments, answer);
        }

        proxy.set(Mode::Pass).await;
        let healed = Instant::now();
        loop {
            let arguments = updates.arguments("update_project");
            let answer = client.call("update_project", arguments.clone()).await;
            updates.check(Mode::Trickle, "update_project", &arguments, &answer);
            if answer["success"] == true {
                break;
            }
            assert!(healed.elapsed() < PATIENCE, "{fault:?}: {answer}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        println!(
            "{transport}: the first write {:?} after {fault:?} was over",
            healed.elapsed()
        );
        let fresh = loop {
            let answer = client.call("list_projects", json!({})).await;
            if answer["meta"]["source"] == "redis" {
                break answer;
            }
            assert!(healed.elapsed() < PATIENCE, "{fault:?}: {answer}");
        };
        assert_eq!(
            fresh["data"][0]["title"].as_str(),
            updates.applied.last().map(String::as_str)
        );
    }

    let titles = store.assert_sound().await.values_of("title");
    for title in &updates.applied {
        assert_eq!(titles.get(title), Some(&1), "{title} was acknowledged");
    }
    for title in &updates.not_applied {
        assert_eq!(
            titles.get(title),
            None,
            "{title} was said not to be written"
        );
    }
    assert!(
        updates
            .unknown
            .iter()
            .all(|title| titles.get(title).is_none_or(|times| *times == 1))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_the_line_is_survived_over_stdio() {
    every_fault_is_survived_over("stdio").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_the_line_is_survived_over_streamable_http() {
    every_fault_is_survived_over("http").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_the_line_is_survived_over_http_with_sse() {
    every_fault_is_survived_over("sse").await;
}

/// How often Redis was sent a command.
fn times(store: &Store, command: &str) -> u64 {
    let info: String = store.server().run(redis::cmd("INFO").arg("commandstats"));
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.and_then(|line| line.split(',').next()?.parse().ok())
        .unwrap_or_default()
}

/// A line that is only narrow is no outage: documents come in pieces that pass in time, and other answers between them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_documents_are_listed_over_a_narrow_line() {
    let store = Store::redis();
    for number in 0..300 {
        let document =
            json!({ "id": format!("p{number}"), "title": "x".repeat(10_000) }).to_string();
        store.server().run::<()>(
            redis::cmd("SET")
                .arg(format!("data:projects:p{number}"))
                .arg(document),
        );
        store.server().run::<()>(
            redis::cmd("SADD")
                .arg("index:all:projects")
                .arg(format!("p{number}")),
        );
    }
    let mut proxy = Proxy::start(store.server().port()).await;
    proxy.set(Mode::Narrow).await;
    let client = Mcp::start_with(&["--store".to_owned(), proxy.url()]).await;

    let listed = client
        .call_until("list_projects", json!({}), |answer| {
            answer["success"] == true
        })
        .await;
    let one = client.call("get_project", json!({ "id": "p7" })).await;

    assert_eq!(
        (&listed["meta"]["source"], &listed["meta"]["total"]),
        (&json!("redis"), &json!(300)),
        "{listed}"
    );
    assert_eq!(one["meta"]["source"], "redis", "{}", one["meta"]);
    assert!(
        !client.stderr().contains("does not serve"),
        "{}",
        client.stderr()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_saved_copy_has_the_servers_own_writes() {
    let store = Store::redis();
    create_sound(&*store.repository, &project_key("a")).await;
    let client = Mcp::start(&store).await;
    client.call("list_projects", json!({})).await;
    assert_eq!(
        client
            .call(
                "update_project",
                json!({ "id": "a", "data": { "title": "Mine" } })
            )
            .await["success"],
        true
    );

    let before = times(&store, "get");
    wait_until("the document is read again for the copy", || {
        (times(&store, "get") > before).then_some(())
    });
    store.server().stop();
    let copied = client.call("get_project", json!({ "id": "a" })).await;
    store.server().cont();

    assert_eq!(
        (&copied["meta"]["stale"], &copied["data"]["title"]),
        (&json!(true), &json!("Mine")),
        "{copied}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_database_is_said_once_however_often_it_is_written_to() {
    let store = Store::redis();
    create_sound(&*store.repository, &project_key("a")).await;
    let client = Mcp::start(&store).await;
    let scripts = || times(&store, "evalsha") + times(&store, "eval");
    let before = scripts();
    store
        .server()
        .run::<()>(redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(1));

    while scripts() < before + 3 {
        let full = client
            .call(
                "update_project",
                json!({ "id": "a", "data": { "title": "New" } }),
            )
            .await;
        assert_eq!(full["error"]["code"], "STORE_READ_ONLY", "{full}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let log = client.stderr();
    assert_eq!(log.matches("is full").count(), 1, "{log}");
    assert!(!log.contains("serves writes again"), "{log}");
}

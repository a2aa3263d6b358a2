//! Every fault of the connection to the store, with every kind of call over every transport: the
//! answer comes in time and is of the right kind, and the store is sound afterwards.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::support::{
    fixtures::{create_sound, project_key},
    messages::tool_output,
    proxy::{Mode, Proxy},
    server::HttpServer,
    sse::SseSession,
    stdio::StdioClient,
    stores::Store,
    wait::wait_until_async,
    wait_until,
};

/// A call is answered within 10 seconds; the rest is for a busy machine.
const MAX_RESPONSE_TIME: Duration = Duration::from_secs(20);

/// Faults that end by themselves, so every call has to succeed.
const TRANSIENT: [Mode; 3] = [Mode::CutAnyRequest, Mode::CutAnyReply, Mode::CutMidReply];
/// Faults that last.
const LASTING: [Mode; 4] = [Mode::Slow, Mode::Trickle, Mode::Swallow, Mode::Refuse];

/// A read, a list, the log, an update.
const TOOLS: [&str; 4] = [
    "get_project",
    "list_projects",
    "get_audit_log",
    "update_project",
];

/// A client over one of the transports.
enum Client {
    Stdio(Box<StdioClient>),
    Http(HttpServer),
    Sse {
        _server: HttpServer,
        sessions: BTreeMap<&'static str, Mutex<SseSession>>,
    },
}

impl Client {
    async fn over(transport: &str, proxy: &Proxy) -> Self {
        let arguments = ["--store".to_owned(), proxy.url()];
        match transport {
            "stdio" => Self::Stdio(Box::new(StdioClient::start_with(&arguments).await)),
            "http" => Self::Http(HttpServer::start_with(&arguments)),
            _ => {
                let server = HttpServer::start_with(&arguments);
                let sessions = TOOLS
                    .into_iter()
                    .map(|tool| (tool, Mutex::new(SseSession::open(server.address))))
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
        let start = Instant::now();
        let answer = match &**self {
            Self::Stdio(client) => client.call(tool, arguments).await,
            Self::Http(_) | Self::Sse { .. } => {
                let client = Arc::clone(self);
                let call = spawn_blocking(move || match &*client {
                    Self::Http(server) => tool_output(&server.call(tool, &arguments)),
                    Self::Sse { sessions, .. } => {
                        let call = json!({ "name": tool, "arguments": arguments });
                        let mut session = sessions[tool].lock().unwrap();
                        tool_output(&session.request("tools/call", &call)["result"])
                    }
                    Self::Stdio(_) => unreachable!(),
                });
                call.await.unwrap()
            }
        };
        assert!(
            start.elapsed() < MAX_RESPONSE_TIME,
            "{tool} was answered after {:?}: {answer}",
            start.elapsed()
        );
        answer
    }
}

/// The titles that the updates wrote, by their outcome.
#[derive(Default)]
struct Updates {
    number: usize,
    applied: Vec<String>,
    not_applied: Vec<String>,
    unknown: Vec<String>,
}

impl Updates {
    /// The arguments of a call. Every update writes a different title.
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

    /// Checks that an answer is of the right kind for the fault.
    fn check(&mut self, fault: Mode, tool: &str, arguments: &Value, answer: &Value) {
        let code = answer["error"]["code"].as_str();
        let context = format!("{fault:?} x {tool}: {answer}");
        if let Some(title) = arguments["data"]["title"].as_str() {
            match code {
                None => self.applied.push(title.to_owned()),
                Some("STORE_UNAVAILABLE" | "STORE_READ_ONLY") => {
                    self.not_applied.push(title.to_owned());
                }
                Some("OUTCOME_UNKNOWN") => self.unknown.push(title.to_owned()),
                Some(_) => panic!("{context}"),
            }
            if code == Some("STORE_READ_ONLY") {
                assert!(
                    answer["error"]["details"]["retryAfterMs"]
                        .as_u64()
                        .is_some_and(|millis| millis > 0),
                    "{context}"
                );
            }
        }
        match fault {
            Mode::Slow | Mode::CutAnyRequest | Mode::CutAnyReply | Mode::CutMidReply => {
                assert_eq!(code, None, "{context}");
            }
            Mode::Refuse | Mode::Swallow if tool == "update_project" => {
                assert!(
                    matches!(code, Some("STORE_UNAVAILABLE" | "STORE_READ_ONLY")),
                    "{context}"
                );
            }
            // The snapshot answers every read.
            _ if tool != "update_project" => assert_eq!(code, None, "{context}"),
            _ => {}
        }
        if matches!(fault, Mode::Refuse | Mode::Swallow) && tool != "update_project" {
            let meta = &answer["meta"];
            assert_eq!(meta["source"], "snapshot", "{context}");
            assert_eq!(meta["stale"], true, "{context}");
            assert!(meta["ageMs"].is_u64(), "{context}");
        }
    }
}

/// Waits until an outage would be survived: the snapshot has the end of the log, which is read in the
/// background, and Redis answers again.
async fn wait_until_ready(client: &Arc<Client>, proxy: &mut Proxy) {
    wait_until_async("the snapshot has the log", async || {
        proxy.set(Mode::Refuse).await;
        let log = client.call("get_audit_log", json!({})).await;
        proxy.set(Mode::Pass).await;
        wait_until_async("lists come from Redis", async || {
            let list = client.call("list_projects", json!({})).await;
            (list["meta"]["source"] == "redis").then_some(())
        })
        .await;
        (log["success"] == true).then_some(())
    })
    .await;
}

async fn survive_every_fault_over(transport: &str) {
    let store = Store::redis();
    let key = project_key("a");
    create_sound(&*store.repository, &key).await;
    let mut proxy = Proxy::start(store.server().port()).await;
    let client = Arc::new(Client::over(transport, &proxy).await);
    let mut updates = Updates::default();
    // A list fills the snapshot.
    assert_eq!(
        client.call("list_projects", json!({})).await["meta"]["source"],
        "redis"
    );

    for fault in TRANSIENT {
        for tool in TOOLS {
            let arguments = updates.arguments(tool);
            proxy.set(fault).await;
            let answer = client.call(tool, arguments.clone()).await;
            updates.check(fault, tool, &arguments, &answer);
        }
    }
    for fault in LASTING {
        wait_until_ready(&client, &mut proxy).await;
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
        wait_until_async("a write succeeds", async || {
            let arguments = updates.arguments("update_project");
            let answer = client.call("update_project", arguments.clone()).await;
            updates.check(Mode::Trickle, "update_project", &arguments, &answer);
            (answer["success"] == true).then_some(())
        })
        .await;
        println!(
            "{transport}: the first write {:?} after {fault:?} was over",
            healed.elapsed()
        );
        let fresh = wait_until_async("lists come from Redis", async || {
            let answer = client.call("list_projects", json!({})).await;
            (answer["meta"]["source"] == "redis").then_some(answer)
        })
        .await;
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
            "{title} was reported as not written"
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
async fn every_connection_fault_is_survived_over_stdio() {
    survive_every_fault_over("stdio").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_connection_fault_is_survived_over_streamable_http() {
    survive_every_fault_over("http").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_connection_fault_is_survived_over_http_with_sse() {
    survive_every_fault_over("sse").await;
}

/// A slow connection is not an outage: documents arrive in parts, and other answers between them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_documents_are_listed_over_a_slow_connection() {
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
    let client = StdioClient::start_with(&["--store".to_owned(), proxy.url()]).await;

    let listed = client
        .call_until("list_projects", json!({}), |answer| {
            answer["success"] == true
        })
        .await;
    let one = client.call("get_project", json!({ "id": "p7" })).await;

    assert_eq!(listed["meta"]["source"], "redis", "{listed}");
    assert_eq!(listed["meta"]["total"], 300, "{listed}");
    assert_eq!(one["meta"]["source"], "redis", "{}", one["meta"]);
    assert!(
        !client.stderr().contains("does not serve"),
        "{}",
        client.stderr()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_snapshot_has_the_servers_own_writes() {
    let store = Store::redis();
    create_sound(&*store.repository, &project_key("a")).await;
    let client = StdioClient::start(&store).await;
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

    let before = store.server().calls("get");
    wait_until("the document is read again for the snapshot", || {
        // The first GET asks for the revision.
        (store.server().calls("get") >= before + 2).then_some(())
    });
    store.server().stop();
    let read = client.call("get_project", json!({ "id": "a" })).await;
    store.server().cont();

    assert_eq!(read["meta"]["stale"], true, "{read}");
    assert_eq!(read["data"]["title"], "Mine", "{read}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_database_is_logged_once() {
    let store = Store::redis();
    create_sound(&*store.repository, &project_key("a")).await;
    let client = StdioClient::start(&store).await;
    let scripts = || store.server().calls("evalsha") + store.server().calls("eval");
    let before = scripts();
    store
        .server()
        .run::<()>(redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(1));

    wait_until_async("three commits were tried", async || {
        let update = json!({ "id": "a", "data": { "title": "New" } });
        let full = client.call("update_project", update).await;
        assert_eq!(full["error"]["code"], "STORE_READ_ONLY", "{full}");
        (scripts() >= before + 3).then_some(())
    })
    .await;

    let log = client.stderr();
    assert_eq!(log.matches("is full").count(), 1, "{log}");
    assert!(!log.contains("serves writes again"), "{log}");
}

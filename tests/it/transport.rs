//! The built program over stdio, Streamable HTTP and HTTP+SSE: the same answers, a clean end, nothing but protocol on stdout.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read, Write},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use serde_json::{Value, json};

use crate::support::{
    http::{self, Response},
    mcp::{Mcp, said},
    program::{Home, PROGRAM},
    redis_server::RedisServer,
    wait_until,
};

/// The program as an HTTP server.
pub(crate) struct HttpServer {
    child: Child,
    pub(crate) address: SocketAddr,
    home: Home,
    store: String,
}

impl HttpServer {
    /// A server of the sample content and the broken documents.
    fn start(arguments: &[&str]) -> Self {
        let home = Home::new();
        let store = format!("sqlite:{}", home.path().join("content.db").display());
        for folder in ["examples/content", "tests/fixtures/broken"] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
            let imported = home
                .command(PROGRAM)
                .args(["import", &folder.to_string_lossy(), "--store", &store])
                .output()
                .unwrap();
            assert!(
                imported.status.success(),
                "{}",
                String::from_utf8_lossy(&imported.stderr)
            );
        }
        let arguments = [&["--store", store.as_str()], arguments].concat();
        let mut server = Self::start_with(home, &arguments);
        server.store = store;
        server
    }

    /// A server started as `portfolio-mcp http …` on a port of its own.
    pub(crate) fn start_with(home: Home, arguments: &[impl AsRef<OsStr>]) -> Self {
        let mut command = home.command(PROGRAM);
        command
            .args(["http", "--listen", "127.0.0.1:0"])
            .args(arguments);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let address = loop {
            let mut line = String::new();
            assert!(
                log.read_line(&mut line).unwrap() > 0,
                "the server ended before it listened"
            );
            if let Some((_, rest)) = line.split_once("http://") {
                break rest
                    .split([',', ' ', '\n'])
                    .next()
                    .unwrap()
                    .parse()
                    .unwrap();
            }
        };
        // Read on, so that a full pipe never stops the server.
        thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self {
            child,
            address,
            home,
            store: String::new(),
        }
    }

    fn post(&self, headers: &[(&str, &str)], body: &str) -> Response {
        let usual = [
            ("Content-Type", "application/json"),
            ("Accept", "application/json, text/event-stream"),
        ];
        http::send(
            self.address,
            "POST",
            "/mcp",
            &[&usual, headers].concat(),
            body,
        )
    }

    pub(crate) fn request(&self, method: &str, params: &Value) -> Value {
        self.post(&[], &message(1, method, params)).json()
    }

    pub(crate) fn call(&self, tool: &str, arguments: &Value) -> Value {
        self.request(
            "tools/call",
            &json!({ "name": tool, "arguments": arguments }),
        )["result"]
            .clone()
    }

    /// Tells the server to stop and gives what it wrote to stdout.
    pub(crate) fn stop(mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        let status = wait_until("the server ends", || self.child.try_wait().unwrap());
        assert_eq!(status.code(), Some(0));
        let mut stdout = String::new();
        self.child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut stdout)
            .unwrap();
        stdout
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn message(id: u64, method: &str, params: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string()
}

/// A session of HTTP+SSE.
pub(crate) struct Session {
    address: SocketAddr,
    endpoint: String,
    stream: Response,
    text: String,
}

impl Session {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let stream = http::send(
            address,
            "GET",
            "/sse",
            &[("Accept", "text/event-stream")],
            "",
        );
        assert_eq!(stream.status, 200);
        let mut session = Self {
            address,
            endpoint: String::new(),
            stream,
            text: String::new(),
        };
        session.endpoint = session.event("endpoint");
        session
    }

    fn event(&mut self, kind: &str) -> String {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let event = event.to_owned();
                self.text = rest.to_owned();
                // Readers differ in what ends a line.
                assert!(
                    !event.contains(['\r', '\u{85}', '\u{2028}', '\u{2029}']),
                    "{event:?}"
                );
                let field = |name: &str| {
                    event
                        .lines()
                        .find_map(|line| line.strip_prefix(name))
                        .map(|value| value.trim().to_owned())
                };
                if field("event:").as_deref() == Some(kind) {
                    return field("data:").unwrap();
                }
                continue;
            }
            let chunk = self.stream.chunk().expect("the stream goes on");
            self.text += &String::from_utf8(chunk).unwrap();
        }
    }

    fn send(&self, body: &str) -> Response {
        http::send(
            self.address,
            "POST",
            &self.endpoint,
            &[("Content-Type", "application/json")],
            body,
        )
    }

    pub(crate) fn request(&mut self, method: &str, params: &Value) -> Value {
        assert_eq!(self.send(&message(1, method, params)).status, 202);
        serde_json::from_str(&self.event("message")).unwrap()
    }
}

/// An answer without what differs from call to call.
fn comparable(result: &Value) -> Value {
    let mut said = said(result);
    if let Some(meta) = said.get_mut("meta") {
        meta["timestamp"] = Value::Null;
    }
    if said["success"] == json!(false) {
        said["error"]["timestamp"] = Value::Null;
    }
    said
}

#[tokio::test]
async fn every_tool_answers_the_same_over_all_three_transports() {
    let server = HttpServer::start(&[]);
    let stdio = Mcp::start_with(&["--store", &server.store]).await;
    let mut sse = Session::open(server.address);
    let hello = json!({ "protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": { "name": "old", "version": "1" } });
    assert_eq!(
        sse.request("initialize", &hello)["result"]["protocolVersion"],
        "2024-11-05"
    );
    let calls = [
        ("list_projects", json!({})),
        (
            "list_projects",
            json!({ "detail": "full", "status": "published" }),
        ),
        ("list_projects", json!({ "limit": 0 })),
        ("get_project", json!({ "id": "rdv-artisan" })),
        ("get_project", json!({ "id": "broken-project" })),
        ("get_project", json!({ "id": "nobody" })),
        ("update_project", json!({ "id": "rdv-artisan", "data": {} })),
        (
            "update_project",
            json!({ "id": "rdv-artisan", "data": { "titel": "x" } }),
        ),
        (
            "update_project",
            json!({ "id": "rdv-artisan", "data": { "title": "x" }, "expectedVersion": "0" }),
        ),
        ("list_resources", json!({ "query": "guide" })),
        ("get_resource", json!({ "id": "broken-resource" })),
        (
            "update_resource",
            json!({ "id": "cahier-des-charges-web", "data": { "price": "" } }),
        ),
        ("get_audit_log", json!({ "limit": 3 })),
        ("get_audit_stats", json!({})),
    ];

    for (tool, arguments) in &calls {
        let call = json!({ "name": tool, "arguments": arguments });
        let over_stdio = comparable(
            &stdio
                .request("tools/call", call.clone())
                .await
                .unwrap()
                .unwrap(),
        );
        let over_http = comparable(&server.call(tool, arguments));
        let over_sse = comparable(&sse.request("tools/call", &call)["result"]);

        assert_eq!(over_stdio, over_http, "{tool} {arguments}");
        assert_eq!(over_stdio, over_sse, "{tool} {arguments}");
    }
    let tools = stdio
        .request("tools/list", json!({}))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        tools["tools"],
        server.request("tools/list", &json!({}))["result"]["tools"]
    );
    assert_eq!(
        tools["tools"],
        sse.request("tools/list", &json!({}))["result"]["tools"]
    );

    drop(sse);
    assert!(
        stdio.strays().is_empty(),
        "stdout holds more than answers: {:?}",
        stdio.strays()
    );
    assert_eq!(server.stop(), "", "an HTTP server writes nothing to stdout");
}

#[tokio::test]
async fn each_transport_says_who_called() {
    let server = HttpServer::start(&[]);
    let hello = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "named", "version": "3" } });
    let initialized = server.post(&[], &message(0, "initialize", &hello));
    let session_id = initialized.header("mcp-session-id").unwrap().to_owned();
    let update = |title: &str| json!({ "name": "update_project", "arguments": { "id": "rdv-artisan", "data": { "title": title } } });

    let by_session = message(7, "tools/call", &update("by session"));
    server
        .post(
            &[("Mcp-Session-Id", &session_id), ("User-Agent", "browser/1")],
            &by_session,
        )
        .json();
    server
        .post(
            &[("User-Agent", "browser/1")],
            &message(8, "tools/call", &update("by user agent")),
        )
        .json();
    let mut sse = Session::open(server.address);
    sse.request("initialize", &hello);
    sse.request("tools/call", &update("by connection"));

    let log = said(&server.call("get_audit_log", &json!({ "action": "update" })));
    let told: Vec<[&Value; 5]> = log["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            [
                "clientId",
                "transport",
                "userAgent",
                "ipAddress",
                "requestId",
            ]
            .map(|name| &entry["metadata"][name])
        })
        .collect();
    let none = &Value::Null;
    let (here, agent) = (&json!("127.0.0.1"), &json!("browser/1"));
    assert_eq!(
        told[0],
        [&json!("named/3"), &json!("sse"), none, here, &json!("1")]
    );
    assert_eq!(told[1], [agent, &json!("http"), agent, here, &json!("8")]);
    assert_eq!(
        told[2],
        [&json!("named/3"), &json!("http"), agent, here, &json!("7")]
    );
    assert_eq!(
        log["data"][0]["metadata"].get("actor"),
        None,
        "over HTTP nobody is the operating system's user"
    );
}

#[test]
fn wrong_messages_get_the_protocols_errors_over_http() {
    let server = HttpServer::start(&[]);
    let sse = Session::open(server.address);
    let huge = json!({ "x": "y".repeat(10 << 20) }).to_string();

    for (body, status, code) in [
        ("{ not json", 400, -32700),
        (r#"{"hello":1}"#, 400, -32600),
        ("[]", 400, -32600),
    ] {
        let answer = server.post(&[], body);
        assert_eq!(answer.status, status, "{body}");
        assert_eq!(answer.json()["error"]["code"], code, "{body}");
        assert_eq!(sse.send(body).status, 400, "{body}");
    }
    assert_eq!(server.post(&[], &huge).status, 413);
    assert_eq!(sse.send(&huge).status, 413);
    assert_eq!(
        http::send(
            server.address,
            "POST",
            "/sse",
            &[("Content-Type", "application/json")],
            "{}"
        )
        .status,
        405
    );
    assert_eq!(
        server.request("tools/call", &json!({ "name": "nope", "arguments": {} }))["error"]["code"],
        -32602
    );
}

#[test]
fn foreign_hosts_and_origins_are_turned_away_on_every_route() {
    let server = HttpServer::start(&[
        "--allowed-host",
        "cms.example.com",
        "--allowed-origin",
        "https://example.com",
    ]);

    for path in ["/mcp", "/sse", "/messages", "/nowhere"] {
        let foreign_host = http::send(
            server.address,
            "POST",
            path,
            &[("Host", "evil.example")],
            "{}",
        );
        assert_eq!(foreign_host.status, 403, "{path}");
        assert!(foreign_host.text().contains("--allowed-host"), "{path}");
        let foreign_origin = http::send(
            server.address,
            "POST",
            path,
            &[("Origin", "https://evil.example")],
            "{}",
        );
        assert_eq!(foreign_origin.status, 403, "{path}");
        assert!(foreign_origin.text().contains("--allowed-origin"), "{path}");
    }
    let allowed = [
        ("Host", "cms.example.com"),
        ("Origin", "https://example.com"),
    ];
    assert_eq!(
        server
            .post(&allowed, &message(1, "ping", &json!({})))
            .status,
        200
    );
}

#[test]
fn every_revision_of_the_protocol_is_served_without_a_session() {
    let server = HttpServer::start(&[]);

    for revision in ["2025-03-26", "2025-06-18", "2025-11-25"] {
        let hello = json!({ "protocolVersion": revision, "capabilities": {}, "clientInfo": { "name": "it", "version": "1" } });
        assert_eq!(
            server.request("initialize", &hello)["result"]["protocolVersion"],
            revision
        );
        let list = server
            .post(
                &[("MCP-Protocol-Version", revision)],
                &message(2, "tools/list", &json!({})),
            )
            .json();
        assert_eq!(
            list["result"]["tools"].as_array().unwrap().len(),
            8,
            "{revision}"
        );
    }
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { "name": "modern", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let headers = [
        ("MCP-Protocol-Version", "2026-07-28"),
        ("Mcp-Method", "tools/call"),
        ("Mcp-Name", "get_project"),
    ];
    let call =
        json!({ "name": "get_project", "arguments": { "id": "rdv-artisan" }, "_meta": meta });
    let answer = server
        .post(&headers, &message(3, "tools/call", &call))
        .json();
    assert_eq!(
        answer["result"]["structuredContent"]["data"]["id"],
        "rdv-artisan"
    );
}

#[test]
fn open_streams_end_with_the_server() {
    let server = HttpServer::start(&[]);
    let mut sessions: Vec<Session> = std::iter::repeat_with(|| Session::open(server.address))
        .take(5)
        .collect();

    server.stop();

    for session in &mut sessions {
        assert_eq!(session.stream.chunk(), None);
    }
}

/// A process that is fed `input`, told that it ends, and left to itself.
fn finished(home: &Home, arguments: &[&str], input: &str) -> (Option<i32>, Vec<Value>) {
    let mut command = home.command(PROGRAM);
    let mut child = command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    (
        output.status.code(),
        lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
    )
}

#[test]
fn the_end_of_input_ends_stdio_after_the_answers_that_are_due() {
    let server = HttpServer::start(&[]);
    let arguments = ["stdio", "--store", &server.store];
    let list = message(
        1,
        "tools/call",
        &json!({ "name": "list_projects", "arguments": {} }),
    );
    let update = json!({ "name": "update_project", "arguments": { "id": "rdv-artisan", "data": { "title": "Last" } } });

    let (nothing_sent, no_answers) = finished(&server.home, &arguments, "");
    // No handshake, and the last line lacks its end.
    let (two_sent, answers) = finished(
        &server.home,
        &arguments,
        &format!("{list}\n{}", message(2, "tools/call", &update)),
    );

    assert_eq!((nothing_sent, no_answers.len()), (Some(0), 0));
    assert_eq!((two_sent, answers.len()), (Some(0), 2));
    assert!(
        answers
            .iter()
            .all(|answer| answer["result"]["structuredContent"]["success"] == json!(true)),
        "{answers:?}"
    );
    assert_eq!(
        said(&server.call("get_project", &json!({ "id": "rdv-artisan" })))["data"]["title"],
        "Last"
    );
}

#[test]
fn without_a_command_and_a_terminal_it_serves_stdio() {
    let home = Home::new();

    let (code, answers) = finished(&home, &[], &message(1, "tools/list", &json!({})));

    assert_eq!(code, Some(0));
    assert_eq!(answers[0]["result"]["tools"].as_array().unwrap().len(), 8);
}

#[test]
fn a_stop_signal_ends_stdio_while_its_input_is_open() {
    let home = Home::new();
    let mut child = home
        .command(PROGRAM)
        .arg("stdio")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "{}", message(1, "tools/list", &json!({}))).unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();

    assert!(
        Command::new("kill")
            .args(["-TERM", &child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );

    let status = wait_until("the server ends", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    drop(stdin);
}

#[tokio::test]
async fn a_store_that_is_down_is_said_so_and_served_when_it_is_back() {
    let mut redis = RedisServer::start();
    let url = redis.url();
    redis.kill9();
    let client = Mcp::start_with(&["--store", &url]).await;

    let down = client.call("get_project", json!({ "id": "x" })).await;
    redis.restart();
    let back = client
        .call_until("get_project", json!({ "id": "x" }), |answer| {
            answer["error"]["code"] != "STORE_UNAVAILABLE"
        })
        .await;

    assert_eq!(down["error"]["code"], "STORE_UNAVAILABLE");
    assert!(
        down["error"]["message"]
            .as_str()
            .unwrap()
            .contains("try again")
    );
    assert_eq!(back["error"]["code"], "PROJECT_NOT_FOUND");
}

#[tokio::test]
async fn a_store_that_never_answers_gets_the_client_an_error_all_the_same() {
    let redis = RedisServer::start();
    let client = Mcp::start_with(&["--store", &redis.url()]).await;
    client.call("get_project", json!({ "id": "x" })).await;

    redis.stop();
    let answer = client
        .call(
            "update_project",
            json!({ "id": "x", "data": { "title": "x" } }),
        )
        .await;
    redis.cont();

    assert_eq!(answer["success"], json!(false));
    let back = client
        .call_until("get_project", json!({ "id": "x" }), |answer| {
            answer["error"]["code"] != "STORE_UNAVAILABLE"
        })
        .await;
    assert_eq!(back["error"]["code"], "PROJECT_NOT_FOUND");
}

/// What `mcp.json.example` says is what the program understands, and what its server serves.
#[tokio::test]
async fn the_example_configuration_starts_and_connects() {
    let example =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("mcp.json.example"))
            .unwrap();
    let example: Value = serde_json::from_str(&example).unwrap();
    let (stdio, sse) = (
        &example["mcpServers"]["portfolio"],
        &example["mcpServers"]["portfolio-sse"],
    );
    let arguments: Vec<&str> = stdio["args"]
        .as_array()
        .unwrap()
        .iter()
        .map(|argument| argument.as_str().unwrap())
        .collect();
    let server = HttpServer::start(&[]);
    let redis = RedisServer::start();
    let home = Home::new();

    assert_eq!(
        (&stdio["type"], &stdio["command"]),
        (&json!("stdio"), &json!("portfolio-mcp"))
    );
    let mut command = home.command(PROGRAM);
    for (name, value) in stdio["env"].as_object().unwrap() {
        assert!(value.as_str().unwrap().starts_with("rediss://"));
        command.env(name, redis.url());
    }
    let client = Mcp::spawn(home, {
        command.args(&arguments);
        command
    });
    assert_eq!(
        client.call("list_projects", json!({})).await["meta"]["source"],
        "redis"
    );

    let url = sse["url"].as_str().unwrap();
    assert_eq!(sse["type"], "sse");
    let path = url
        .strip_prefix("http://127.0.0.1:8787")
        .expect("the default address of `http`");
    let stream = http::send(
        server.address,
        "GET",
        path,
        &[("Accept", "text/event-stream")],
        "",
    );
    assert_eq!(stream.header("content-type"), Some("text/event-stream"));
}

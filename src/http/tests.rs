//! The HTTP side as clients meet it, over real sockets, with a handler of its own.

use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::http::request::Parts;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation,
        ServerCapabilities, ServerConfig, SubscriptionFilter,
    },
    service::{RequestContext, SubscriptionContext},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Semaphore, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{Limits, Settings, Tokens, connection::prepared, serve_within};
use crate::caller::{Caller, ClaimedClient, TransportKind};

const FOREVER: Duration = Duration::from_hours(1);
const MODERN: &str = "2026-07-28";
const TOKENS: &str = "marie:write:marie-0123456789abcdef\nsite:read:site-0123456789abcdef";
const MARIE: &str = "authorization: Bearer marie-0123456789abcdef";
const SITE: &str = "authorization: Bearer site-0123456789abcdef";

/// A handler whose tools show what reaches it: `whoami`, `fill` (an answer of so many bytes), `wait` (until the gate opens).
#[derive(Clone)]
struct DiagnosticConnection {
    gate: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

impl ServerHandler for DiagnosticConnection {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_resources()
            .enable_resources_subscribe()
            .build();
        ServerConfig::new(capabilities).with_server_info(Implementation::new("probe", "1"))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let text = match request.name.as_ref() {
            "whoami" => whoami(&context).to_string(),
            "fill" => "x".repeat(
                request.arguments.unwrap()["bytes"]
                    .as_u64()
                    .unwrap()
                    .try_into()
                    .unwrap(),
            ),
            "wait" => {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                self.gate.acquire().await.unwrap().forget();
                "waited".to_owned()
            }
            other => panic!("{other}"),
        };
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }

    fn accepted_subscription_filter(
        &self,
        requested: &SubscriptionFilter,
    ) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }

    async fn listen(&self, subscription: SubscriptionContext) -> Result<(), ErrorData> {
        subscription.cancelled().await;
        Ok(())
    }
}

fn whoami(context: &RequestContext<RoleServer>) -> Value {
    let parts = context.extensions.get::<Parts>().unwrap();
    json!({
        "door": parts.extensions.get::<TransportKind>().unwrap().as_str(),
        "address": parts.extensions.get::<SocketAddr>().unwrap().ip().to_string(),
        "claimed": parts.extensions.get::<ClaimedClient>().map(|client| format!("{}/{}", client.name, client.version)),
        "caller": parts.extensions.get::<Caller>().map(|caller| caller.name.to_string()),
        "peer": context.client_info().map(|client| client.name),
        "user_agent": parts.headers.get("user-agent").map(|value| value.to_str().unwrap()),
    })
}

struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    gate: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    async fn start() -> Self {
        Self::start_within(Limits::default()).await
    }

    async fn start_within(limits: Limits) -> Self {
        Self::start_with(limits, Settings::default()).await
    }

    /// A server that knows the tokens of `marie` and of `site`, and who may replace them.
    async fn start_guarded() -> (Self, watch::Sender<Tokens>) {
        let (sender, tokens) = watch::channel(Tokens::parse(TOKENS).unwrap());
        (
            Self::start_with(
                Limits::default(),
                Settings {
                    tokens: Some(tokens),
                    ..Settings::default()
                },
            )
            .await,
            sender,
        )
    }

    async fn start_with(limits: Limits, settings: Settings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let probe = DiagnosticConnection {
            gate: Arc::new(Semaphore::new(0)),
            waiting: Arc::default(),
        };
        let (gate, waiting) = (Arc::clone(&probe.gate), Arc::clone(&probe.waiting));
        let task = tokio::spawn(serve_within(
            limits,
            listener,
            probe,
            axum::Router::new(),
            settings,
            stop.clone(),
        ));
        Self {
            address,
            stop,
            gate,
            waiting,
            task,
        }
    }

    /// One request on its own connection.
    async fn ask(&self, line: &str, headers: &[&str], body: impl AsRef<[u8]>) -> Answer {
        let mut connection = self.send(line, headers, body).await;
        let mut answer = Vec::new();
        soon(connection.read_to_end(&mut answer)).await.unwrap();
        Answer::parse(&String::from_utf8(answer).unwrap())
    }

    /// The beginning of `ask`: the answer is left to be read, or not. A header without a value is left out.
    async fn send(&self, line: &str, headers: &[&str], body: impl AsRef<[u8]>) -> TcpStream {
        // A small window, so that a client that does not read is soon felt.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut connection = socket.connect(self.address).await.unwrap();
        let body = body.as_ref();
        let mut head = format!("{line} HTTP/1.1\r\ncontent-length: {}\r\n", body.len());
        let defaults = [
            "host: localhost",
            "connection: close",
            "content-type: application/json",
            "accept: application/json, text/event-stream",
        ];
        let name = |header: &str| header.split(':').next().unwrap().to_owned();
        let given: Vec<String> = headers.iter().copied().map(name).collect();
        let defaults = defaults
            .iter()
            .filter(|default| !given.contains(&name(default)));
        for header in defaults.chain(headers.iter().filter(|header| header.contains(':'))) {
            head.extend([header, "\r\n"]);
        }
        // A server that refuses may close before it took everything.
        let _ = connection
            .write_all(&[head.as_bytes(), b"\r\n", body].concat())
            .await;
        connection
    }

    async fn mcp(&self, headers: &[&str], message: &Value) -> Answer {
        self.ask("POST /mcp", headers, message.to_string()).await
    }

    async fn open(&self) -> Stream {
        Stream::of(self.send("GET /sse", &[], "").await).await
    }

    async fn waiting(&self, calls: usize) {
        until(async || self.waiting.load(Ordering::SeqCst) == calls).await;
    }

    async fn ended(self) {
        soon(self.task).await.unwrap().unwrap();
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let status = lines
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        let headers = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Self {
            status,
            headers,
            body: body.to_owned(),
        }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// An event stream.
struct Stream {
    lines: BufReader<TcpStream>,
    answer: Answer,
}

impl Stream {
    async fn of(connection: TcpStream) -> Self {
        let mut lines = BufReader::new(connection);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(soon(lines.read_line(&mut head)).await.unwrap(), 0, "{head}");
        }
        Self {
            lines,
            answer: Answer::parse(&head),
        }
    }

    /// The data of the next event, or `None` at the end.
    async fn next(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if soon(self.lines.read_line(&mut line)).await.unwrap() == 0 {
                return None;
            }
            if let Some(data) = line.strip_prefix("data: ") {
                return Some(data.trim_end().to_owned());
            }
        }
    }

    async fn message(&mut self) -> Value {
        serde_json::from_str(&self.next().await.unwrap()).unwrap()
    }
}

/// Nothing here takes long; a test that hangs fails instead.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_mins(1), future)
        .await
        .expect("it should have happened by now")
}

async fn until(condition: impl AsyncFn() -> bool) {
    soon(async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

fn initialize(version: &str) -> Value {
    let client = json!({ "name": "claude-code", "version": "2.1" });
    let params = json!({ "protocolVersion": version, "capabilities": {}, "clientInfo": client });
    json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params })
}

fn call(tool: &str, arguments: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": { "name": tool, "arguments": arguments } })
}

fn modern(mut message: Value) -> Value {
    message["params"]["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": { "name": "modern", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    message
}

fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"]
        .as_str()
        .unwrap_or_else(|| panic!("{answer}"))
}

fn said(answer: &Value) -> Value {
    serde_json::from_str(text(answer)).unwrap()
}

#[tokio::test]
async fn a_session_id_tells_later_calls_who_the_client_is() {
    let server = Server::start().await;

    let initialized = server.mcp(&[], &initialize("2025-06-18")).await;
    let id = format!("mcp-session-id: {}", initialized.headers["mcp-session-id"]);
    let answer = server
        .mcp(
            &[&id, "mcp-protocol-version: 2025-06-18", "user-agent: test"],
            &call("whoami", &json!({})),
        )
        .await;

    let who = said(&answer.json());
    assert_eq!(who["claimed"], "claude-code/2.1");
    assert_eq!(who["door"], "http");
    assert_eq!(who["address"], "127.0.0.1");
    assert_eq!(who["user_agent"], "test");
}

#[tokio::test]
async fn session_ids_of_others_are_ignored() {
    let server = Server::start().await;

    for headers in [
        &[][..],
        &["mcp-session-id: 0f2f7ac6-7d4c-4b1c-9a53-ab7f3a1b2c3d"],
        &["mcp-session-id: !"],
    ] {
        let answer = server.mcp(headers, &call("whoami", &json!({}))).await;

        assert_eq!(said(&answer.json())["claimed"], Value::Null, "{headers:?}");
    }
}

#[tokio::test]
async fn a_refused_initialize_gets_no_session_id() {
    let server = Server::start().await;

    let answer = server
        .mcp(
            &[],
            &json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {} }),
        )
        .await;

    assert!(answer.json()["error"].is_object(), "{answer:?}");
    assert!(!answer.headers.contains_key("mcp-session-id"), "{answer:?}");
}

#[tokio::test]
async fn every_revision_is_served_with_json_answers() {
    let server = Server::start().await;

    for version in ["2025-03-26", "2025-06-18", "2025-11-25"] {
        let initialized = server.mcp(&[], &initialize(version)).await;
        assert_eq!(initialized.json()["result"]["protocolVersion"], version);

        let header = format!("mcp-protocol-version: {version}");
        let answer = server.mcp(&[&header], &call("whoami", &json!({}))).await;
        assert_eq!(
            (answer.status, answer.headers["content-type"].as_str()),
            (200, "application/json"),
            "{version}"
        );
        said(&answer.json());
    }

    let headers = [
        "mcp-protocol-version: 2026-07-28",
        "mcp-method: tools/call",
        "mcp-name: whoami",
    ];
    let answer = server
        .mcp(&headers, &modern(call("whoami", &json!({}))))
        .await;
    assert_eq!(
        (answer.status, answer.headers["content-type"].as_str()),
        (200, "application/json")
    );
    assert_eq!(said(&answer.json())["peer"], "modern");
}

#[tokio::test]
async fn other_methods_are_not_allowed() {
    let server = Server::start().await;

    for (line, allowed) in [
        ("GET /mcp", "POST"),
        ("DELETE /mcp", "POST"),
        ("POST /sse", "GET,HEAD"),
        ("GET /messages", "POST"),
    ] {
        let answer = server.ask(line, &["mcp-session-id: abc"], "{}").await;

        assert_eq!(
            (answer.status, answer.headers["allow"].as_str()),
            (405, allowed),
            "{line}"
        );
    }
}

#[tokio::test]
async fn a_body_that_is_no_message_gets_a_json_rpc_error() {
    let server = Server::start().await;
    let mut stream = server.open().await;
    let messages = format!("POST {}", stream.next().await.unwrap());

    for line in ["POST /mcp", &messages] {
        for (body, code) in [
            ("", -32700),
            ("{", -32700),
            ("hello", -32700),
            (r#"{"jsonrpc":"2.0","id":1,"method":"ping"} x"#, -32700),
            ("{}", -32600),
            ("5", -32600),
            (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, -32600),
            (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, -32600),
            (r#" ["2.0",1,{}]"#, -32600),
        ] {
            let answer = server.ask(line, &[], body).await;

            assert_eq!(
                (answer.status, &answer.json()["error"]["code"]),
                (400, &json!(code)),
                "{line} {body}"
            );
            assert_eq!(answer.json()["id"], Value::Null);
        }
        let answer = server
            .ask(
                line,
                &[],
                b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"x\":\"\xff\"}",
            )
            .await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["code"]),
            (400, &json!(-32700)),
            "{line}"
        );
    }
}

#[tokio::test]
async fn a_body_of_another_type_or_too_long_is_refused() {
    let server = Server::start().await;
    let mut stream = server.open().await;
    let messages = format!("POST {}", stream.next().await.unwrap());

    for line in ["POST /mcp", &messages] {
        assert_eq!(
            server
                .ask(line, &["content-type: text/plain"], "{}")
                .await
                .status,
            415,
            "{line}"
        );
        assert_eq!(
            server.ask(line, &["content-type"], "{}").await.status,
            415,
            "{line}"
        );
        assert_eq!(
            server.ask(line, &[], vec![b'x'; 10_000_000]).await.status,
            413,
            "{line}"
        );
    }
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    assert_eq!(
        server
            .mcp(&["accept: application/json"], &ping)
            .await
            .status,
        406
    );
}

#[tokio::test]
async fn every_route_is_guarded_even_those_that_do_not_exist() {
    let server = Server::start().await;

    for line in [
        "POST /mcp",
        "GET /mcp",
        "GET /sse",
        "POST /sse",
        "POST /messages",
        "GET /messages",
        "POST /sse/messages",
        "GET /",
        "PUT /no",
    ] {
        assert_eq!(
            server.ask(line, &["host: evil.example"], "{}").await.status,
            403,
            "{line}"
        );
        assert_eq!(
            server.ask(line, &["origin: null"], "{}").await.status,
            403,
            "{line}"
        );
        assert_eq!(
            server.ask(line, &["host"], "{}").await.status,
            400,
            "{line}"
        );
    }
    assert_eq!(
        server
            .mcp(&["origin: http://localhost:5173"], &initialize(MODERN))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn a_session_answers_on_its_stream() {
    let server = Server::start().await;
    let mut stream = server.open().await;
    assert_eq!(
        (
            stream.answer.status,
            stream.answer.headers["content-type"].as_str()
        ),
        (200, "text/event-stream")
    );
    let endpoint = stream.next().await.unwrap();
    assert!(endpoint.starts_with("/messages?sessionId="), "{endpoint}");

    // Before `initialize`, as after a client's reconnection; under the names that some clients use.
    let renamed = endpoint.replace("sessionId", "session_id");
    for line in [
        format!("POST {endpoint}"),
        format!("POST /sse{endpoint}"),
        format!("POST {renamed}"),
    ] {
        let accepted = server
            .ask(
                &line,
                &["user-agent: test"],
                call("whoami", &json!({})).to_string(),
            )
            .await;

        assert_eq!(accepted.status, 202, "{line}");
        let expected = json!({ "door": "sse", "address": "127.0.0.1", "claimed": null, "caller": null, "peer": null, "user_agent": "test" });
        assert_eq!(said(&stream.message().await), expected);
    }

    let line = format!("POST {endpoint}");
    server
        .ask(&line, &[], initialize("2024-11-05").to_string())
        .await;
    assert_eq!(
        stream.message().await["result"]["protocolVersion"],
        "2024-11-05"
    );
    server
        .ask(&line, &[], call("whoami", &json!({})).to_string())
        .await;
    assert_eq!(said(&stream.message().await)["peer"], "claude-code");
}

#[tokio::test]
async fn sessions_that_are_unknown_or_badly_named_are_told_apart() {
    let server = Server::start().await;

    for (line, status) in [
        ("POST /messages", 400),
        ("POST /messages?sessionId=1", 400),
        (
            "POST /messages?sessionId=0f2f7ac6-7d4c-4b1c-9a53-ab7f3a1b2c3d",
            404,
        ),
    ] {
        assert_eq!(
            server
                .ask(line, &[], call("whoami", &json!({})).to_string())
                .await
                .status,
            status,
            "{line}"
        );
    }
}

#[tokio::test]
async fn no_more_sessions_are_served_than_allowed_until_one_leaves() {
    let server = Server::start_within(Limits {
        sessions: 2,
        ..Limits::default()
    })
    .await;
    let mut first = server.open().await;
    let second = server.open().await;

    let third = server.ask("GET /sse", &[], "").await;
    assert_eq!(third.status, 503);
    assert!(third.headers.contains_key("retry-after"));
    let endpoint = first.next().await.unwrap();
    drop((first, second));

    until(async || server.open().await.answer.status == 200).await;
    until(async || {
        server
            .ask(
                &format!("POST {endpoint}"),
                &[],
                initialize(MODERN).to_string(),
            )
            .await
            .status
            == 404
    })
    .await;
}

/// The session ends although its connection, stuck in a write, does not.
#[tokio::test]
async fn a_session_whose_client_does_not_read_makes_room_for_another() {
    let limits = Limits {
        sessions: 1,
        send: Duration::from_millis(50),
        write: FOREVER,
        ..Limits::default()
    };
    let server = Server::start_within(limits).await;
    let mut stuck = server.open().await;
    let line = format!("POST {}", stuck.next().await.unwrap());

    let fill = call("fill", &json!({ "bytes": 500_000 })).to_string();
    until(async || server.ask(&line, &[], &fill).await.status == 404).await;

    until(async || server.open().await.answer.status == 200).await;
    drop(stuck);
}

#[tokio::test]
async fn a_client_that_stops_reading_is_dropped_on_every_route() {
    const BYTES: usize = 20_000_000;
    let limits = Limits {
        send: FOREVER,
        write: Duration::from_millis(50),
        grace: FOREVER,
        ..Limits::default()
    };
    let server = Server::start_within(limits).await;
    let fill = call("fill", &json!({ "bytes": BYTES })).to_string();
    let stuck = server.send("POST /mcp", &[], &fill).await;
    let mut stream = server.open().await;
    server
        .ask(
            &format!("POST {}", stream.next().await.unwrap()),
            &[],
            &fill,
        )
        .await;

    server.stop.cancel();
    server.ended().await; // which it does not while a connection is open

    for mut connection in [stuck, stream.lines.into_inner()] {
        let mut received = Vec::new();
        let _ = soon(connection.read_to_end(&mut received)).await;
        assert!(received.len() < BYTES);
    }
}

#[tokio::test]
async fn stop_ends_streams_at_once_and_lets_calls_finish() {
    let server = Server::start().await;
    let wait = call("wait", &json!({})).to_string();
    let mut idle = server.open().await;
    let mut busy = server.open().await;
    server
        .ask(&format!("POST {}", busy.next().await.unwrap()), &[], &wait)
        .await;
    let filter = json!({ "resourceSubscriptions": ["test://one"] });
    let listen = json!({ "jsonrpc": "2.0", "id": 3, "method": "subscriptions/listen", "params": { "notifications": filter } });
    let headers = [
        "mcp-protocol-version: 2026-07-28",
        "mcp-method: subscriptions/listen",
    ];
    let mut listener = Stream::of(
        server
            .send("POST /mcp", &headers, modern(listen).to_string())
            .await,
    )
    .await;
    assert_eq!(
        listener.message().await["method"],
        "notifications/subscriptions/acknowledged"
    );
    let mut calling = server.send("POST /mcp", &[], &wait).await;
    server.waiting(2).await;

    server.stop.cancel();
    idle.next().await; // the endpoint
    assert_eq!(idle.next().await, None);
    assert_eq!(listener.next().await, None);
    server.gate.add_permits(2);

    assert_eq!(text(&busy.message().await), "waited");
    assert_eq!(busy.next().await, None);
    let mut answer = String::new();
    soon(calling.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(text(&Answer::parse(&answer).json()), "waited");
    server.ended().await;
}

#[tokio::test]
async fn stop_does_not_wait_for_ever() {
    let server = Server::start_within(Limits {
        grace: Duration::from_millis(50),
        ..Limits::default()
    })
    .await;
    let _calling = server
        .send("POST /mcp", &[], call("wait", &json!({})).to_string())
        .await;
    server.waiting(1).await;

    server.stop.cancel();

    server.ended().await;
}

#[tokio::test]
async fn answers_are_sent_without_delay() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();

    let (socket, _) = listener.accept().await.unwrap();

    assert!(prepared(socket, FOREVER).get_ref().nodelay().unwrap());
}

#[tokio::test]
async fn where_there_are_tokens_every_route_needs_one_but_those_that_are_open() {
    const WRONG: [&str; 3] = [
        "authorization: Bearer marie-0123456789abcdeF",
        "authorization: Basic abc",
        "authorization: Bearer",
    ];
    let (server, _tokens) = Server::start_guarded().await;

    for line in [
        "POST /mcp",
        "GET /mcp",
        "GET /sse",
        "POST /messages",
        "GET /",
        "PUT /no",
        "GET /mcp?access_token=marie-0123456789abcdef",
    ] {
        let answer = server.ask(line, &[], "{}").await;
        assert_eq!(
            (answer.status, answer.headers["www-authenticate"].as_str()),
            (401, r#"Bearer realm="portfolio-mcp""#),
            "{line}"
        );
        assert!(answer.body.contains("Authorization: Bearer"), "{answer:?}");
        for header in WRONG {
            let answer = server.ask(line, &[header], "{}").await;
            let challenge = r#"Bearer realm="portfolio-mcp", error="invalid_token""#;
            assert_eq!(
                (answer.status, answer.headers["www-authenticate"].as_str()),
                (401, challenge),
                "{line} {header}"
            );
        }
        let mut connection = BufReader::new(server.send(line, &[MARIE], "{}").await);
        let mut status = String::new();
        soon(connection.read_line(&mut status)).await.unwrap();
        assert!(
            !status.contains("401") && status.starts_with("HTTP/1.1"),
            "{line}: {status}"
        );
        assert_eq!(
            server
                .ask(line, &[MARIE, "host: evil.example"], "{}")
                .await
                .status,
            403,
            "{line}"
        );
    }
    for line in [
        "GET /healthz",
        "GET /readyz",
        "GET /.well-known/oauth-protected-resource",
        "GET /.well-known/oauth-authorization-server/mcp",
    ] {
        assert_eq!(server.ask(line, &[], "").await.status, 404, "{line}");
    }
}

#[tokio::test]
async fn the_handler_learns_whose_token_it_is_until_the_tokens_are_replaced() {
    let (server, tokens) = Server::start_guarded().await;
    let whoami = call("whoami", &json!({}));

    assert_eq!(
        said(&server.mcp(&[MARIE], &whoami).await.json())["caller"],
        "marie"
    );
    assert_eq!(
        said(&server.mcp(&[SITE], &whoami).await.json())["caller"],
        "site"
    );
    tokens.send_replace(Tokens::parse("other:read:marie-0123456789abcdef").unwrap());

    assert_eq!(
        said(&server.mcp(&[MARIE], &whoami).await.json())["caller"],
        "other"
    );
    assert_eq!(server.mcp(&[SITE], &whoami).await.status, 401);
}

#[tokio::test]
async fn a_session_belongs_to_the_token_that_opened_it() {
    let (server, _tokens) = Server::start_guarded().await;
    let mut stream = Stream::of(server.send("GET /sse", &[MARIE], "").await).await;
    let line = format!("POST {}", stream.next().await.unwrap());
    let whoami = call("whoami", &json!({})).to_string();

    let foreign = server.ask(&line, &[SITE], &whoami).await;
    let unknown = server
        .ask(
            "POST /messages?sessionId=0f2f7ac6-7d4c-4b1c-9a53-ab7f3a1b2c3d",
            &[SITE],
            &whoami,
        )
        .await;
    let own = server.ask(&line, &[MARIE], &whoami).await;

    assert_eq!((foreign.status, &foreign.body), (404, &unknown.body));
    assert_eq!(own.status, 202);
    assert_eq!(said(&stream.message().await)["caller"], "marie");
}

#[tokio::test]
async fn pages_that_may_call_may_read_every_answer() {
    let (server, _tokens) = Server::start_guarded().await;
    let origin = "origin: http://localhost:5173";

    for (line, headers, status) in [
        ("POST /mcp", &[origin, MARIE][..], 400),
        ("POST /mcp", &[origin], 401),
        ("GET /sse", &[origin], 401),
        ("GET /no", &[origin, MARIE], 404),
    ] {
        let answer = server.ask(line, headers, "{}").await;

        assert_eq!(
            (
                answer.status,
                answer.headers["access-control-allow-origin"].as_str()
            ),
            (status, "http://localhost:5173"),
            "{line}"
        );
        assert!(
            answer.headers["vary"].to_lowercase().contains("origin"),
            "{answer:?}"
        );
        let exposed = &answer.headers["access-control-expose-headers"];
        assert!(
            ["mcp-session-id", "etag"]
                .iter()
                .all(|name| exposed.contains(name)),
            "{exposed}"
        );
    }
    assert!(
        server.mcp(&[MARIE], &json!({})).await.headers["vary"]
            .to_lowercase()
            .contains("origin"),
        "also for who sent no origin"
    );
}

#[tokio::test]
async fn a_page_that_asks_before_it_calls_needs_no_token() {
    let (server, _tokens) = Server::start_guarded().await;
    let asks = [
        "access-control-request-method: POST",
        "access-control-request-headers: authorization",
    ];

    for path in ["/mcp", "/sse", "/messages"] {
        let line = format!("OPTIONS {path}");
        let answer = server
            .ask(
                &line,
                &[&asks[..], &["origin: http://localhost:5173"]].concat(),
                "",
            )
            .await;
        let foreign = server
            .ask(
                &line,
                &[&asks[..], &["origin: https://evil.example"]].concat(),
                "",
            )
            .await;

        assert_eq!(
            (
                answer.status,
                answer.headers["access-control-allow-origin"].as_str()
            ),
            (200, "http://localhost:5173"),
            "{path}"
        );
        let allowed = &answer.headers["access-control-allow-headers"];
        for name in [
            "authorization",
            "content-type",
            "mcp-protocol-version",
            "mcp-session-id",
            "accept",
            "last-event-id",
        ] {
            assert!(allowed.contains(name), "{name}: {allowed}");
        }
        assert!(answer.headers["access-control-allow-methods"].contains("POST"));
        assert_eq!(
            (
                foreign.status,
                foreign.headers.get("access-control-allow-origin")
            ),
            (403, None),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_message_that_is_nested_too_deep_is_not_parsed() {
    let server = Server::start().await;
    let mut stream = server.open().await;
    let messages = format!("POST {}", stream.next().await.unwrap());
    let nested = |depth: usize| {
        let value = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{value}}}"#)
    };

    for line in ["POST /mcp", &messages] {
        for depth in [64, 500_000] {
            let answer = server.ask(line, &[], nested(depth)).await;

            assert_eq!(
                (answer.status, &answer.json()["error"]["code"]),
                (400, &json!(-32600)),
                "{line} {depth}"
            );
            let message = answer.json()["error"]["message"].to_string();
            assert!(
                message.contains(&(depth + 1).to_string()) && message.contains("64"),
                "{message}"
            );
        }
    }
}

#[tokio::test]
async fn a_connection_on_which_no_request_comes_whole_is_closed() {
    let server = Server::start_within(Limits {
        head: Duration::from_millis(100),
        ..Limits::default()
    })
    .await;

    for beginning in [
        "",
        "G",
        "GET /no HTTP/1.1\r\nhost: local",
        "GET /no HTTP/1.1\r\nhost: localhost\r\n\r\n",
    ] {
        let mut connection = TcpStream::connect(server.address).await.unwrap();
        connection.write_all(beginning.as_bytes()).await.unwrap();

        let mut received = Vec::new();
        soon(connection.read_to_end(&mut received)).await.unwrap();

        assert_eq!(
            received.starts_with(b"HTTP/1.1 404"),
            beginning.ends_with("\r\n\r\n"),
            "{beginning:?}"
        );
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let server = Server::start_within(Limits {
        body: Duration::from_millis(100),
        ..Limits::default()
    })
    .await;
    let mut connection = TcpStream::connect(server.address).await.unwrap();
    let beginning = "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    connection.write_all(beginning.as_bytes()).await.unwrap();

    let mut received = String::new();
    soon(connection.read_to_string(&mut received))
        .await
        .unwrap();

    assert_eq!(Answer::parse(&received).status, 408);
}

#[tokio::test]
async fn no_more_connections_are_served_than_allowed_until_one_is_closed() {
    let server = Server::start_with(
        Limits::default(),
        Settings {
            connections: 2,
            ..Settings::default()
        },
    )
    .await;
    let (first, second) = (server.open().await, server.open().await);

    let mut third = TcpStream::connect(server.address).await.unwrap();
    let mut received = String::new();
    soon(third.read_to_string(&mut received)).await.unwrap();
    let refused = Answer::parse(&received);
    drop((first, second));

    assert_eq!(
        (refused.status, refused.headers["content-length"].parse()),
        (503, Ok(refused.body.len()))
    );
    assert!(refused.headers.contains_key("retry-after"));
    until(async || {
        let mut connection = server.send("GET /no", &[], "").await;
        let mut answer = String::new();
        soon(connection.read_to_string(&mut answer)).await.is_ok()
            && answer.starts_with("HTTP/1.1 404")
    })
    .await;
}

#[tokio::test]
async fn a_client_that_asks_too_often_is_told_when_to_try_again() {
    let (_sender, tokens) = watch::channel(Tokens::parse(TOKENS).unwrap());
    let settings = Settings {
        tokens: Some(tokens),
        rate_limit: Some(NonZeroU32::MIN),
        ..Settings::default()
    };
    let server = Server::start_with(Limits::default(), settings).await;

    let refused = soon(async {
        loop {
            let answer = server
                .ask("GET /no", &[MARIE, "origin: http://localhost:5173"], "")
                .await;
            if answer.status != 404 {
                return answer;
            }
        }
    })
    .await;

    assert_eq!(
        (refused.status, refused.headers["retry-after"].as_str()),
        (429, "1")
    );
    assert_eq!(
        refused.headers["access-control-allow-origin"], "http://localhost:5173",
        "a page can read it"
    );
    assert_eq!(
        server.ask("GET /no", &[SITE], "").await.status,
        404,
        "the others do not notice"
    );
}

//! The HTTP edge as clients see it, over real sockets, with a test handler.

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

use super::{Limits, Settings, Tokens, connection::prepare_socket, serve_with_limits};
use crate::caller::{Caller, ClaimedClient, TransportKind};

const FOREVER: Duration = Duration::from_hours(1);
const MODERN: &str = "2026-07-28";
const TOKENS: &str = "marie:write:marie-0123456789abcdef\nsite:read:site-0123456789abcdef";
const MARIE: &str = "authorization: Bearer marie-0123456789abcdef";
const SITE: &str = "authorization: Bearer site-0123456789abcdef";

/// Its tools are `whoami`, which shows what reaches the handler, `fill`, which returns `bytes`
/// bytes, and `wait`, which returns when the gate opens.
#[derive(Clone)]
struct TestHandler {
    gate: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

impl ServerHandler for TestHandler {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_resources()
            .enable_resources_subscribe()
            .build();
        ServerConfig::new(capabilities).with_server_info(Implementation::new("test", "1"))
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
    let claimed = parts.extensions.get::<ClaimedClient>();
    json!({
        "transport": parts.extensions.get::<TransportKind>().unwrap().as_str(),
        "address": parts.extensions.get::<SocketAddr>().unwrap().ip().to_string(),
        "claimed": claimed.map(|client| format!("{}/{}", client.name, client.version)),
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
    task: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        Self::start_with_limits(Limits::default()).await
    }

    async fn start_with_limits(limits: Limits) -> Self {
        Self::start_with(limits, Settings::default()).await
    }

    /// A server with the tokens of `marie` and `site`, and the channel that replaces them.
    async fn start_with_tokens() -> (Self, watch::Sender<Tokens>) {
        let (sender, tokens) = watch::channel(Tokens::parse(TOKENS).unwrap());
        let settings = Settings {
            tokens: Some(tokens),
            ..Settings::default()
        };
        (Self::start_with(Limits::default(), settings).await, sender)
    }

    async fn start_with(limits: Limits, settings: Settings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let handler = TestHandler {
            gate: Arc::new(Semaphore::new(0)),
            waiting: Arc::default(),
        };
        let (gate, waiting) = (Arc::clone(&handler.gate), Arc::clone(&handler.waiting));
        let task = tokio::spawn(serve_with_limits(
            limits,
            listener,
            handler,
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

    /// Sends one request on its own connection and reads the response.
    async fn request(&self, line: &str, headers: &[&str], body: impl AsRef<[u8]>) -> Response {
        let mut connection = self.send(line, headers, body).await;
        let mut response = Vec::new();
        in_time(connection.read_to_end(&mut response))
            .await
            .unwrap();
        Response::parse(&String::from_utf8(response).unwrap())
    }

    /// Sends one request and leaves the response unread. A header without a value removes the
    /// default header of that name.
    async fn send(&self, line: &str, headers: &[&str], body: impl AsRef<[u8]>) -> TcpStream {
        // A small window, so that the server soon notices a client that does not read.
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
        // A server that rejects the request may close the connection before it has read it all.
        let _ = connection
            .write_all(&[head.as_bytes(), b"\r\n", body].concat())
            .await;
        connection
    }

    async fn mcp(&self, headers: &[&str], message: &Value) -> Response {
        self.request("POST /mcp", headers, message.to_string())
            .await
    }

    async fn open_stream(&self) -> EventStream {
        EventStream::read_head(self.send("GET /sse", &[], "").await).await
    }

    async fn wait_for_calls(&self, calls: usize) {
        wait_until(async || self.waiting.load(Ordering::SeqCst) == calls).await;
    }

    async fn wait_for_end(self) {
        in_time(self.task).await.unwrap();
    }
}

#[derive(Debug)]
struct Response {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Response {
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

/// An open event stream.
struct EventStream {
    lines: BufReader<TcpStream>,
    response: Response,
}

impl EventStream {
    async fn read_head(connection: TcpStream) -> Self {
        let mut lines = BufReader::new(connection);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(
                in_time(lines.read_line(&mut head)).await.unwrap(),
                0,
                "{head}"
            );
        }
        Self {
            lines,
            response: Response::parse(&head),
        }
    }

    /// The data of the next event; `None` at the end of the stream.
    async fn next_data(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if in_time(self.lines.read_line(&mut line)).await.unwrap() == 0 {
                return None;
            }
            if let Some(data) = line.strip_prefix("data: ") {
                return Some(data.trim_end().to_owned());
            }
        }
    }

    async fn next_message(&mut self) -> Value {
        serde_json::from_str(&self.next_data().await.unwrap()).unwrap()
    }
}

/// Fails a test that hangs: nothing here takes long.
async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_mins(1), future)
        .await
        .expect("nothing here takes a minute")
}

async fn wait_until(condition: impl AsyncFn() -> bool) {
    in_time(async {
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
    let params = json!({ "name": tool, "arguments": arguments });
    json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params })
}

fn modern(mut message: Value) -> Value {
    message["params"]["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": { "name": "modern", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    message
}

fn tool_text(response: &Value) -> &str {
    response["result"]["content"][0]["text"]
        .as_str()
        .unwrap_or_else(|| panic!("{response}"))
}

fn tool_json(response: &Value) -> Value {
    serde_json::from_str(tool_text(response)).unwrap()
}

#[tokio::test]
async fn a_session_id_identifies_the_client_in_later_calls() {
    let server = Server::start().await;

    let initialized = server.mcp(&[], &initialize("2025-06-18")).await;
    let id = format!("mcp-session-id: {}", initialized.headers["mcp-session-id"]);
    let response = server
        .mcp(
            &[&id, "mcp-protocol-version: 2025-06-18", "user-agent: test"],
            &call("whoami", &json!({})),
        )
        .await;

    let who = tool_json(&response.json());
    assert_eq!(who["claimed"], "claude-code/2.1");
    assert_eq!(who["transport"], "http");
    assert_eq!(who["address"], "127.0.0.1");
    assert_eq!(who["user_agent"], "test");
}

#[tokio::test]
async fn foreign_session_ids_are_ignored() {
    let server = Server::start().await;

    for headers in [
        &[][..],
        &["mcp-session-id: 0f2f7ac6-7d4c-4b1c-9a53-ab7f3a1b2c3d"],
        &["mcp-session-id: !"],
    ] {
        let response = server.mcp(headers, &call("whoami", &json!({}))).await;

        assert_eq!(
            tool_json(&response.json())["claimed"],
            Value::Null,
            "{headers:?}"
        );
    }
}

#[tokio::test]
async fn a_failed_initialize_gets_no_session_id() {
    let server = Server::start().await;

    let response = server
        .mcp(
            &[],
            &json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {} }),
        )
        .await;

    assert!(response.json()["error"].is_object(), "{response:?}");
    assert!(
        !response.headers.contains_key("mcp-session-id"),
        "{response:?}"
    );
}

#[tokio::test]
async fn every_protocol_revision_gets_json_responses() {
    let server = Server::start().await;

    for version in ["2025-03-26", "2025-06-18", "2025-11-25"] {
        let initialized = server.mcp(&[], &initialize(version)).await;
        assert_eq!(initialized.json()["result"]["protocolVersion"], version);

        let header = format!("mcp-protocol-version: {version}");
        let response = server.mcp(&[&header], &call("whoami", &json!({}))).await;
        assert_eq!(response.status, 200, "{version}");
        assert_eq!(
            response.headers["content-type"], "application/json",
            "{version}"
        );
        tool_json(&response.json());
    }

    let headers = [
        "mcp-protocol-version: 2026-07-28",
        "mcp-method: tools/call",
        "mcp-name: whoami",
    ];
    let response = server
        .mcp(&headers, &modern(call("whoami", &json!({}))))
        .await;
    assert_eq!(response.status, 200);
    assert_eq!(response.headers["content-type"], "application/json");
    assert_eq!(tool_json(&response.json())["peer"], "modern");
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
        let response = server.request(line, &["mcp-session-id: abc"], "{}").await;

        assert_eq!(response.status, 405, "{line}");
        assert_eq!(response.headers["allow"], allowed, "{line}");
    }
}

#[tokio::test]
async fn a_body_that_is_not_a_message_gets_a_json_rpc_error() {
    let server = Server::start().await;
    let mut stream = server.open_stream().await;
    let messages = format!("POST {}", stream.next_data().await.unwrap());

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
            let response = server.request(line, &[], body).await;

            assert_eq!(response.status, 400, "{line} {body}");
            assert_eq!(
                &response.json()["error"]["code"],
                &json!(code),
                "{line} {body}"
            );
            assert_eq!(response.json()["id"], Value::Null);
        }
        let response = server
            .request(
                line,
                &[],
                b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"x\":\"\xff\"}",
            )
            .await;
        assert_eq!(response.status, 400, "{line}");
        assert_eq!(&response.json()["error"]["code"], &json!(-32700), "{line}");
    }
}

#[tokio::test]
async fn a_body_of_the_wrong_type_or_size_is_rejected() {
    let server = Server::start().await;
    let mut stream = server.open_stream().await;
    let messages = format!("POST {}", stream.next_data().await.unwrap());

    for line in ["POST /mcp", &messages] {
        assert_eq!(
            server
                .request(line, &["content-type: text/plain"], "{}")
                .await
                .status,
            415,
            "{line}"
        );
        assert_eq!(
            server.request(line, &["content-type"], "{}").await.status,
            415,
            "{line}"
        );
        assert_eq!(
            server
                .request(line, &[], vec![b'x'; 10_000_000])
                .await
                .status,
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
async fn every_path_is_guarded_even_unknown_ones() {
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
            server
                .request(line, &["host: evil.example"], "{}")
                .await
                .status,
            403,
            "{line}"
        );
        assert_eq!(
            server.request(line, &["origin: null"], "{}").await.status,
            403,
            "{line}"
        );
        assert_eq!(
            server.request(line, &["host"], "{}").await.status,
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
async fn a_session_answers_on_its_event_stream() {
    let server = Server::start().await;
    let mut stream = server.open_stream().await;
    assert_eq!(stream.response.status, 200);
    assert_eq!(stream.response.headers["content-type"], "text/event-stream");
    let endpoint = stream.next_data().await.unwrap();
    assert!(endpoint.starts_with("/messages?sessionId="), "{endpoint}");

    // Without `initialize`, as after a reconnection, and in the forms that some clients use.
    let renamed = endpoint.replace("sessionId", "session_id");
    for line in [
        format!("POST {endpoint}"),
        format!("POST /sse{endpoint}"),
        format!("POST {renamed}"),
    ] {
        let accepted = server
            .request(
                &line,
                &["user-agent: test"],
                call("whoami", &json!({})).to_string(),
            )
            .await;

        assert_eq!(accepted.status, 202, "{line}");
        let expected = json!({
            "transport": "sse",
            "address": "127.0.0.1",
            "claimed": null,
            "caller": null,
            "peer": null,
            "user_agent": "test",
        });
        assert_eq!(tool_json(&stream.next_message().await), expected);
    }

    let line = format!("POST {endpoint}");
    server
        .request(&line, &[], initialize("2024-11-05").to_string())
        .await;
    assert_eq!(
        stream.next_message().await["result"]["protocolVersion"],
        "2024-11-05"
    );
    server
        .request(&line, &[], call("whoami", &json!({})).to_string())
        .await;
    assert_eq!(
        tool_json(&stream.next_message().await)["peer"],
        "claude-code"
    );
}

#[tokio::test]
async fn unknown_and_malformed_session_ids_get_different_statuses() {
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
                .request(line, &[], call("whoami", &json!({})).to_string())
                .await
                .status,
            status,
            "{line}"
        );
    }
}

#[tokio::test]
async fn sessions_over_the_limit_are_rejected_until_one_closes() {
    let server = Server::start_with_limits(Limits {
        max_sse_sessions: 2,
        ..Limits::default()
    })
    .await;
    let mut first = server.open_stream().await;
    let second = server.open_stream().await;

    let third = server.request("GET /sse", &[], "").await;
    assert_eq!(third.status, 503);
    assert!(third.headers.contains_key("retry-after"));
    let endpoint = first.next_data().await.unwrap();
    drop((first, second));

    wait_until(async || server.open_stream().await.response.status == 200).await;
    wait_until(async || {
        server
            .request(
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

/// Its session ends and makes room for another, although its connection is stuck in a write.
#[tokio::test]
async fn a_client_that_does_not_read_loses_its_session() {
    let limits = Limits {
        max_sse_sessions: 1,
        send_timeout: Duration::from_millis(50),
        write_timeout: FOREVER,
        ..Limits::default()
    };
    let server = Server::start_with_limits(limits).await;
    let mut stuck = server.open_stream().await;
    let line = format!("POST {}", stuck.next_data().await.unwrap());

    let fill = call("fill", &json!({ "bytes": 500_000 })).to_string();
    wait_until(async || server.request(&line, &[], &fill).await.status == 404).await;

    wait_until(async || server.open_stream().await.response.status == 200).await;
    drop(stuck);
}

#[tokio::test]
async fn a_client_that_stops_reading_is_disconnected_on_every_route() {
    const BYTES: usize = 20_000_000;
    let limits = Limits {
        send_timeout: FOREVER,
        write_timeout: Duration::from_millis(50),
        grace_period: FOREVER,
        ..Limits::default()
    };
    let server = Server::start_with_limits(limits).await;
    let fill = call("fill", &json!({ "bytes": BYTES })).to_string();
    let stuck = server.send("POST /mcp", &[], &fill).await;
    let mut stream = server.open_stream().await;
    server
        .request(
            &format!("POST {}", stream.next_data().await.unwrap()),
            &[],
            &fill,
        )
        .await;

    server.stop.cancel();
    server.wait_for_end().await; // waits for open connections

    for mut connection in [stuck, stream.lines.into_inner()] {
        let mut received = Vec::new();
        let _ = in_time(connection.read_to_end(&mut received)).await;
        assert!(received.len() < BYTES);
    }
}

#[tokio::test]
async fn stop_ends_streams_at_once_and_lets_calls_finish() {
    let server = Server::start().await;
    let wait = call("wait", &json!({})).to_string();
    let mut idle = server.open_stream().await;
    let mut busy = server.open_stream().await;
    server
        .request(
            &format!("POST {}", busy.next_data().await.unwrap()),
            &[],
            &wait,
        )
        .await;
    let filter = json!({ "resourceSubscriptions": ["test://one"] });
    let listen = json!({
        "jsonrpc": "2.0",
        "id": 3,
        "method": "subscriptions/listen",
        "params": { "notifications": filter },
    });
    let headers = [
        "mcp-protocol-version: 2026-07-28",
        "mcp-method: subscriptions/listen",
    ];
    let mut listener = EventStream::read_head(
        server
            .send("POST /mcp", &headers, modern(listen).to_string())
            .await,
    )
    .await;
    assert_eq!(
        listener.next_message().await["method"],
        "notifications/subscriptions/acknowledged"
    );
    let mut calling = server.send("POST /mcp", &[], &wait).await;
    server.wait_for_calls(2).await;

    server.stop.cancel();
    idle.next_data().await; // the `endpoint` event
    assert_eq!(idle.next_data().await, None);
    assert_eq!(listener.next_data().await, None);
    server.gate.add_permits(2);

    assert_eq!(tool_text(&busy.next_message().await), "waited");
    assert_eq!(busy.next_data().await, None);
    let mut response = String::new();
    in_time(calling.read_to_string(&mut response))
        .await
        .unwrap();
    assert_eq!(tool_text(&Response::parse(&response).json()), "waited");
    server.wait_for_end().await;
}

#[tokio::test]
async fn stop_does_not_wait_forever() {
    let server = Server::start_with_limits(Limits {
        grace_period: Duration::from_millis(50),
        ..Limits::default()
    })
    .await;
    let _calling = server
        .send("POST /mcp", &[], call("wait", &json!({})).to_string())
        .await;
    server.wait_for_calls(1).await;

    server.stop.cancel();

    server.wait_for_end().await;
}

#[tokio::test]
async fn responses_are_sent_without_delay() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();

    let (socket, _) = listener.accept().await.unwrap();

    assert!(prepare_socket(socket, FOREVER).get_ref().nodelay().unwrap());
}

/// With tokens configured, all of these need one, even if nothing is there.
const PROTECTED: [&str; 7] = [
    "POST /mcp",
    "GET /mcp",
    "GET /sse",
    "POST /messages",
    "GET /",
    "PUT /no",
    "GET /mcp?access_token=marie-0123456789abcdef",
];

#[tokio::test]
async fn a_request_without_a_token_gets_a_challenge() {
    let (server, _tokens) = Server::start_with_tokens().await;

    for line in PROTECTED {
        let response = server.request(line, &[], "{}").await;

        let challenge = r#"Bearer realm="portfolio-mcp""#;
        assert_eq!(response.status, 401, "{line}");
        assert_eq!(response.headers["www-authenticate"], challenge, "{line}");
        assert!(response.body.contains("Authorization: Bearer"), "{line}");
    }
}

#[tokio::test]
async fn a_request_with_a_wrong_token_learns_that_it_is_invalid() {
    let (server, _tokens) = Server::start_with_tokens().await;

    for line in PROTECTED {
        for header in [
            "authorization: Bearer marie-0123456789abcdeF",
            "authorization: Basic abc",
            "authorization: Bearer",
        ] {
            let response = server.request(line, &[header], "{}").await;

            let challenge = r#"Bearer realm="portfolio-mcp", error="invalid_token""#;
            let request = format!("{line} {header}");
            assert_eq!(response.status, 401, "{request}");
            assert_eq!(response.headers["www-authenticate"], challenge, "{request}");
        }
    }
}

#[tokio::test]
async fn a_valid_token_is_accepted_but_does_not_replace_the_host_check() {
    let (server, _tokens) = Server::start_with_tokens().await;

    for line in PROTECTED {
        let mut connection = BufReader::new(server.send(line, &[MARIE], "{}").await);
        let mut status = String::new();
        in_time(connection.read_line(&mut status)).await.unwrap();
        let foreign = server
            .request(line, &[MARIE, "host: evil.example"], "{}")
            .await;

        assert!(status.starts_with("HTTP/1.1"), "{line}: {status}");
        assert!(!status.contains("401"), "{line}: {status}");
        assert_eq!(foreign.status, 403, "{line}");
    }
}

#[tokio::test]
async fn open_paths_need_no_token() {
    let (server, _tokens) = Server::start_with_tokens().await;

    for line in [
        "GET /healthz",
        "GET /readyz",
        "GET /.well-known/oauth-protected-resource",
        "GET /.well-known/oauth-authorization-server/mcp",
    ] {
        assert_eq!(server.request(line, &[], "").await.status, 404, "{line}");
    }
}

#[tokio::test]
async fn the_handler_sees_the_token_owner_and_tokens_can_be_replaced() {
    let (server, tokens) = Server::start_with_tokens().await;
    let whoami = call("whoami", &json!({}));

    assert_eq!(
        tool_json(&server.mcp(&[MARIE], &whoami).await.json())["caller"],
        "marie"
    );
    assert_eq!(
        tool_json(&server.mcp(&[SITE], &whoami).await.json())["caller"],
        "site"
    );
    tokens.send_replace(Tokens::parse("other:read:marie-0123456789abcdef").unwrap());

    assert_eq!(
        tool_json(&server.mcp(&[MARIE], &whoami).await.json())["caller"],
        "other"
    );
    assert_eq!(server.mcp(&[SITE], &whoami).await.status, 401);
}

#[tokio::test]
async fn a_session_belongs_to_the_token_that_opened_it() {
    let (server, _tokens) = Server::start_with_tokens().await;
    let mut stream = EventStream::read_head(server.send("GET /sse", &[MARIE], "").await).await;
    let line = format!("POST {}", stream.next_data().await.unwrap());
    let whoami = call("whoami", &json!({})).to_string();

    let foreign = server.request(&line, &[SITE], &whoami).await;
    let unknown = server
        .request(
            "POST /messages?sessionId=0f2f7ac6-7d4c-4b1c-9a53-ab7f3a1b2c3d",
            &[SITE],
            &whoami,
        )
        .await;
    let own = server.request(&line, &[MARIE], &whoami).await;

    assert_eq!((foreign.status, &foreign.body), (404, &unknown.body));
    assert_eq!(own.status, 202);
    assert_eq!(tool_json(&stream.next_message().await)["caller"], "marie");
}

#[tokio::test]
async fn allowed_pages_can_read_every_response() {
    let (server, _tokens) = Server::start_with_tokens().await;
    let origin = "origin: http://localhost:5173";

    for (line, headers, status) in [
        ("POST /mcp", &[origin, MARIE][..], 400),
        ("POST /mcp", &[origin], 401),
        ("GET /sse", &[origin], 401),
        ("GET /no", &[origin, MARIE], 404),
    ] {
        let response = server.request(line, headers, "{}").await;

        assert_eq!(response.status, status, "{line}");
        assert_eq!(
            response.headers["access-control-allow-origin"], "http://localhost:5173",
            "{line}"
        );
        assert!(
            response.headers["vary"].to_lowercase().contains("origin"),
            "{response:?}"
        );
        let exposed = &response.headers["access-control-expose-headers"];
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
        "also without an origin"
    );
}

#[tokio::test]
async fn preflight_requests_need_no_token() {
    let (server, _tokens) = Server::start_with_tokens().await;
    let preflight = [
        "access-control-request-method: POST",
        "access-control-request-headers: authorization",
    ];

    for path in ["/mcp", "/sse", "/messages"] {
        let line = format!("OPTIONS {path}");
        let response = server
            .request(
                &line,
                &[&preflight[..], &["origin: http://localhost:5173"]].concat(),
                "",
            )
            .await;
        let foreign = server
            .request(
                &line,
                &[&preflight[..], &["origin: https://evil.example"]].concat(),
                "",
            )
            .await;

        assert_eq!(response.status, 200, "{path}");
        assert_eq!(
            response.headers["access-control-allow-origin"], "http://localhost:5173",
            "{path}"
        );
        let allowed = &response.headers["access-control-allow-headers"];
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
        assert!(response.headers["access-control-allow-methods"].contains("POST"));
        assert_eq!(foreign.status, 403, "{path}");
        assert_eq!(
            foreign.headers.get("access-control-allow-origin"),
            None,
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_message_nested_too_deeply_is_not_parsed() {
    let server = Server::start().await;
    let mut stream = server.open_stream().await;
    let messages = format!("POST {}", stream.next_data().await.unwrap());
    let nested = |depth: usize| {
        let value = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{value}}}"#)
    };

    for line in ["POST /mcp", &messages] {
        for depth in [64, 500_000] {
            let response = server.request(line, &[], nested(depth)).await;

            assert_eq!(response.status, 400, "{line} {depth}");
            assert_eq!(
                &response.json()["error"]["code"],
                &json!(-32600),
                "{line} {depth}"
            );
            let message = response.json()["error"]["message"].to_string();
            assert!(
                message.contains(&(depth + 1).to_string()) && message.contains("64"),
                "{message}"
            );
        }
    }
}

#[tokio::test]
async fn a_connection_without_a_complete_request_is_closed() {
    let server = Server::start_with_limits(Limits {
        head_timeout: Duration::from_millis(100),
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
        in_time(connection.read_to_end(&mut received))
            .await
            .unwrap();

        assert_eq!(
            received.starts_with(b"HTTP/1.1 404"),
            beginning.ends_with("\r\n\r\n"),
            "{beginning:?}"
        );
    }
}

#[tokio::test]
async fn a_body_that_does_not_arrive_times_out() {
    let server = Server::start_with_limits(Limits {
        body_timeout: Duration::from_millis(100),
        ..Limits::default()
    })
    .await;
    let mut connection = TcpStream::connect(server.address).await.unwrap();
    let beginning = "POST /mcp HTTP/1.1\r\n\
        host: localhost\r\n\
        content-type: application/json\r\n\
        content-length: 100\r\n\
        \r\n\
        {";
    connection.write_all(beginning.as_bytes()).await.unwrap();

    let mut received = String::new();
    in_time(connection.read_to_string(&mut received))
        .await
        .unwrap();

    assert_eq!(Response::parse(&received).status, 408);
}

#[tokio::test]
async fn connections_over_the_limit_are_rejected_until_one_closes() {
    let server = Server::start_with(
        Limits::default(),
        Settings {
            max_connections: 2,
            ..Settings::default()
        },
    )
    .await;
    let (first, second) = (server.open_stream().await, server.open_stream().await);

    let mut third = TcpStream::connect(server.address).await.unwrap();
    let mut received = String::new();
    in_time(third.read_to_string(&mut received)).await.unwrap();
    let rejection = Response::parse(&received);
    drop((first, second));

    assert_eq!(rejection.status, 503);
    assert_eq!(
        rejection.headers["content-length"],
        rejection.body.len().to_string()
    );
    assert!(rejection.headers.contains_key("retry-after"));
    wait_until(async || {
        let mut connection = server.send("GET /no", &[], "").await;
        let mut response = String::new();
        in_time(connection.read_to_string(&mut response))
            .await
            .is_ok()
            && response.starts_with("HTTP/1.1 404")
    })
    .await;
}

#[tokio::test]
async fn a_client_over_the_rate_limit_learns_when_to_retry() {
    let (_sender, tokens) = watch::channel(Tokens::parse(TOKENS).unwrap());
    let settings = Settings {
        tokens: Some(tokens),
        rate_limit: Some(NonZeroU32::MIN),
        ..Settings::default()
    };
    let server = Server::start_with(Limits::default(), settings).await;

    let rejection = in_time(async {
        loop {
            let response = server
                .request("GET /no", &[MARIE, "origin: http://localhost:5173"], "")
                .await;
            if response.status != 404 {
                return response;
            }
        }
    })
    .await;

    assert_eq!(rejection.status, 429);
    assert_eq!(rejection.headers["retry-after"], "1");
    assert_eq!(
        rejection.headers["access-control-allow-origin"], "http://localhost:5173",
        "pages can read the rejection"
    );
    assert_eq!(
        server.request("GET /no", &[SITE], "").await.status,
        404,
        "other clients are not limited"
    );
}

//! The HTTP edge in this process, with a test handler: sessions, bodies, tokens, limits, shutdown.

use std::{
    net::{Shutdown, SocketAddr},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use axum::http::request::Parts;
use portfolio_mcp::{
    caller::{Caller, ClaimedClient, TransportKind},
    clock,
    http::{Settings, SiteRoutes, Tokens, serve},
    service::ContentService,
};
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
    net::TcpListener,
    runtime::{Builder, Runtime},
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::support::{
    WAIT_TIMEOUT,
    http::{self, Connection, Response, with_json_headers},
    messages::{self, MODERN, client_hello, modern_meta, tool_call},
    sse::{EventStream, SseSession},
    stores::Store,
    wait_until,
};

const TOKENS: &str = "marie:write:marie-0123456789abcdef\nsite:read:site-0123456789abcdef";
const MARIE: (&str, &str) = ("Authorization", "Bearer marie-0123456789abcdef");
const SITE: (&str, &str) = ("Authorization", "Bearer site-0123456789abcdef");
const WEB_ORIGIN: (&str, &str) = ("Origin", "http://localhost:5173");
const UNKNOWN_SESSION: &str = "0f2f7ac6-7d4c-4b1c-9a53-ab7f3a1b2c3d";

/// Its tools are `whoami`, which shows what reaches the handler, and `wait`, which returns when the
/// gate opens.
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

/// The HTTP edge on a runtime of its own, with an empty store.
struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    handler: TestHandler,
    task: JoinHandle<()>,
    runtime: Runtime,
    _store: Store,
}

impl Server {
    fn start() -> Self {
        Self::start_with(Settings::default())
    }

    /// A server with the tokens of `marie` and `site`, and the channel that replaces them.
    fn start_with_tokens() -> (Self, watch::Sender<Tokens>) {
        let (sender, tokens) = watch::channel(Tokens::parse(TOKENS).unwrap());
        let settings = Settings {
            tokens: Some(tokens),
            ..Settings::default()
        };
        (Self::start_with(settings), sender)
    }

    fn start_with(settings: Settings) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let store = Store::sqlite();
        let handler = TestHandler {
            gate: Arc::new(Semaphore::new(0)),
            waiting: Arc::default(),
        };
        let stop = CancellationToken::new();
        let (listener, content) = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            (listener, ContentService::new(store.open(), clock))
        });
        let address = listener.local_addr().unwrap();
        let site = SiteRoutes {
            content: Arc::new(content),
            metrics: None,
        };
        let task = runtime.spawn(serve(
            listener,
            handler.clone(),
            site,
            settings,
            stop.clone(),
        ));
        Self {
            address,
            stop,
            handler,
            task,
            runtime,
            _store: store,
        }
    }

    /// Sends a request with JSON headers on a connection of its own.
    fn send(
        &self,
        (method, path): (&str, &str),
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Response {
        let headers = with_json_headers(headers);
        http::send(self.address, method, path, &headers, body)
    }

    /// Posts a message to `/mcp`.
    fn mcp(&self, headers: &[(&str, &str)], message: &Value) -> Response {
        self.send(("POST", "/mcp"), headers, message.to_string())
    }

    fn open_session(&self) -> SseSession {
        SseSession::open(self.address)
    }

    fn wait_for_calls(&self, calls: usize) {
        wait_until("the calls reach the handler", || {
            (self.handler.waiting.load(Ordering::SeqCst) == calls).then_some(())
        });
    }

    fn wait_for_end(self) {
        self.runtime
            .block_on(async { timeout(WAIT_TIMEOUT, self.task).await })
            .expect("the server ends")
            .unwrap();
    }
}

fn initialize(version: &str) -> Value {
    messages::request(
        1,
        "initialize",
        &client_hello(version, "claude-code", "2.1"),
    )
}

fn whoami_call() -> Value {
    tool_call(2, "whoami", &json!({}))
}

fn whoami_call_with_id(id: u64) -> String {
    tool_call(id, "whoami", &json!({})).to_string()
}

fn modern(mut message: Value) -> Value {
    message["params"]["_meta"] = modern_meta("modern", "1");
    message
}

/// The text of a tool's result.
fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"]
        .as_str()
        .unwrap_or_else(|| panic!("{answer}"))
}

/// The JSON that `whoami` returns.
fn who(answer: &Value) -> Value {
    serde_json::from_str(text(answer)).unwrap()
}

#[test]
fn a_session_id_identifies_the_client_in_later_calls() {
    let server = Server::start();

    let initialized = server.mcp(&[], &initialize("2025-06-18"));
    let headers = [
        (
            "Mcp-Session-Id",
            initialized.header("mcp-session-id").unwrap(),
        ),
        ("MCP-Protocol-Version", "2025-06-18"),
        ("User-Agent", "test"),
    ];
    let response = server.mcp(&headers, &whoami_call());

    let who = who(&response.json());
    assert_eq!(who["claimed"], "claude-code/2.1");
    assert_eq!(who["transport"], "http");
    assert_eq!(who["address"], "127.0.0.1");
    assert_eq!(who["user_agent"], "test");
}

#[test]
fn foreign_session_ids_are_ignored() {
    let server = Server::start();

    for headers in [
        &[][..],
        &[("Mcp-Session-Id", UNKNOWN_SESSION)],
        &[("Mcp-Session-Id", "!")],
    ] {
        let response = server.mcp(headers, &whoami_call());

        assert_eq!(who(&response.json())["claimed"], Value::Null, "{headers:?}");
    }
}

#[test]
fn a_failed_initialize_gets_no_session_id() {
    let server = Server::start();

    let response = server.mcp(&[], &messages::request(1, "initialize", &json!({})));

    assert_eq!(response.header("mcp-session-id"), None);
    let answer = response.json();
    assert!(answer["error"].is_object(), "{answer}");
}

#[test]
fn a_refused_request_gets_a_json_error_with_its_id() {
    let server = Server::start();

    for headers in [
        [("MCP-Protocol-Version", "1999-01-01")],
        [("Accept", "text/html")],
    ] {
        for message in [
            initialize("2025-06-18"),
            messages::request(1, "ping", &json!({})),
        ] {
            let response = server.mcp(&headers, &message);

            assert!(
                (400..500).contains(&response.status),
                "{headers:?} {message}"
            );
            let answer = response.json();
            assert_eq!(answer["id"], 1, "{headers:?} {message}: {answer}");
            assert_eq!(
                answer["error"]["code"], -32600,
                "{headers:?} {message}: {answer}"
            );
        }
    }
}

#[test]
fn every_protocol_revision_gets_json_responses() {
    let server = Server::start();

    for version in ["2025-03-26", "2025-06-18", "2025-11-25"] {
        let initialized = server.mcp(&[], &initialize(version));
        assert_eq!(initialized.json()["result"]["protocolVersion"], version);

        let headers = [("MCP-Protocol-Version", version)];
        let response = server.mcp(&headers, &whoami_call());
        assert_eq!(response.status, 200, "{version}");
        assert_eq!(
            response.header("content-type"),
            Some("application/json"),
            "{version}"
        );
        who(&response.json());
    }

    let headers = [
        ("MCP-Protocol-Version", MODERN),
        ("Mcp-Method", "tools/call"),
        ("Mcp-Name", "whoami"),
    ];
    let response = server.mcp(&headers, &modern(whoami_call()));
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(who(&response.json())["peer"], "modern");
}

#[test]
fn other_methods_are_not_allowed() {
    let server = Server::start();

    for (route, allowed) in [
        (("GET", "/mcp"), "POST"),
        (("DELETE", "/mcp"), "POST"),
        (("POST", "/sse"), "GET,HEAD"),
        (("GET", "/messages"), "POST"),
    ] {
        let response = server.send(route, &[("Mcp-Session-Id", "abc")], "{}");

        assert_eq!(response.status, 405, "{route:?}");
        assert_eq!(response.header("allow"), Some(allowed), "{route:?}");
    }
}

#[test]
fn a_body_that_is_not_a_message_gets_a_json_rpc_error() {
    let server = Server::start();
    let session = server.open_session();

    for path in ["/mcp", session.endpoint()] {
        for (body, code, id) in [
            ("", -32700, Value::Null),
            ("\u{feff}", -32700, Value::Null),
            ("{", -32700, Value::Null),
            ("hello", -32700, Value::Null),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"ping"} x"#,
                -32700,
                Value::Null,
            ),
            ("{}", -32600, Value::Null),
            ("5", -32600, Value::Null),
            (
                r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
                -32600,
                json!(1),
            ),
            (
                r#"{"jsonrpc":"2.0","id":"a","method":7}"#,
                -32600,
                json!("a"),
            ),
            (
                r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#,
                -32600,
                Value::Null,
            ),
            (r#" ["2.0",1,{}]"#, -32600, Value::Null),
        ] {
            let response = server.send(("POST", path), &[], body);

            assert_eq!(response.status, 400, "{path} {body}");
            let answer = response.json();
            assert_eq!(answer["error"]["code"], code, "{path} {body}");
            assert_eq!(answer["id"], id, "{path} {body}");
        }
        let not_utf_8 = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"x\":\"\xff\"}";
        let response = server.send(("POST", path), &[], not_utf_8);
        assert_eq!(response.status, 400, "{path}");
        assert_eq!(response.json()["error"]["code"], -32700, "{path}");
    }
}

#[test]
fn a_body_of_the_wrong_type_or_size_is_rejected() {
    let server = Server::start();
    let session = server.open_session();

    for path in ["/mcp", session.endpoint()] {
        let text = server.send(("POST", path), &[("Content-Type", "text/plain")], "{}");
        assert_eq!(text.status, 415, "{path}");
        let accept = [("Accept", "application/json, text/event-stream")];
        let untyped = http::send(server.address, "POST", path, &accept, "{}");
        assert_eq!(untyped.status, 415, "{path}");
        let huge = server.send(("POST", path), &[], vec![b'x'; 10_000_000]);
        assert_eq!(huge.status, 413, "{path}");
        let long = messages::request(7, "ping", &json!({ "x": "y".repeat(2_000_000) }));
        let long = server.send(("POST", path), &[], long.to_string());
        assert_eq!(long.status, 413, "{path}");
        assert_eq!(long.json()["id"], 7, "{path}");
    }
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    let events_only = server.mcp(&[("Accept", "text/event-stream")], &ping);
    assert_eq!(events_only.status, 406);
    assert_eq!(events_only.json()["id"], 1);
}

#[test]
fn one_id_for_many_calls_of_a_session_is_answered_once_and_refused_otherwise() {
    const CALLS: usize = 20;
    let server = Server::start();
    let mut session = server.open_session();
    let wait = tool_call(7, "wait", &json!({})).to_string();

    let responses: Vec<Response> = (0..CALLS).map(|_| session.post(&wait)).collect();
    server.handler.gate.add_permits(CALLS);

    let mut statuses: Vec<u16> = Vec::new();
    for response in responses {
        statuses.push(response.status);
        if response.status != 202 {
            let answer = response.json();
            assert_eq!(answer["id"], 7, "{answer}");
            assert_eq!(answer["error"]["code"], -32600, "{answer}");
        }
    }
    assert_eq!(statuses.iter().filter(|status| **status == 202).count(), 1);
    assert_eq!(
        statuses.iter().filter(|status| **status == 400).count(),
        CALLS - 1
    );
    let answer = session.next_message().unwrap();
    assert_eq!(answer["id"], 7, "{answer}");
    // The id may be used again, and nothing else was answered.
    wait_until("the id is free", || {
        (session.post(whoami_call_with_id(7)).status == 202).then_some(())
    });
    assert_eq!(who(&session.next_message().unwrap())["transport"], "sse");
}

#[test]
fn a_message_nested_too_deeply_is_rejected_with_its_id() {
    let server = Server::start();
    let session = server.open_session();
    let nested = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let message = format!(r#"{{"jsonrpc":"2.0","id":"deep","method":"x","params":{nested}}}"#);

    for path in ["/mcp", session.endpoint()] {
        let answer = server.send(("POST", path), &[], &message).json();

        assert_eq!(answer["id"], "deep", "{path}");
    }
}

#[test]
fn a_message_may_begin_with_a_byte_order_mark() {
    let server = Server::start();
    let mut session = server.open_session();
    let body = format!("\u{feff}{}", whoami_call());

    let over_http = server.send(("POST", "/mcp"), &[], &body).json();
    let accepted = session.post(&body);

    assert_eq!(who(&over_http)["transport"], "http");
    assert_eq!(accepted.status, 202);
    assert_eq!(who(&session.next_message().unwrap())["transport"], "sse");
}

/// rmcp gives up running calls five seconds after the end of a session's messages.
#[test]
fn a_stop_waits_for_calls_that_take_long() {
    const LONG: Duration = Duration::from_secs(6);
    let server = Server::start();
    let mut session = server.open_session();
    for id in 0..4 {
        let wait = tool_call(id, "wait", &json!({})).to_string();
        assert_eq!(session.post(wait).status, 202);
    }
    let mut calling = Connection::open(server.address);
    let wait = tool_call(9, "wait", &json!({})).to_string();
    let headers = with_json_headers(&[]);
    calling.write(&http::request(
        "localhost",
        "POST",
        "/mcp",
        &headers,
        wait.as_bytes(),
    ));
    server.wait_for_calls(5);

    let stopped = Instant::now();
    server.stop.cancel();
    wait_until("the calls have taken long", || {
        (stopped.elapsed() > LONG).then_some(())
    });
    server.handler.gate.add_permits(5);

    for _ in 0..4 {
        assert_eq!(text(&session.next_message().unwrap()), "waited");
    }
    assert_eq!(session.next_message(), None);
    assert_eq!(text(&calling.read_response().json()), "waited");
    server.wait_for_end();
}

/// Writes `bytes`, closes the sending side, and reads all that comes.
fn send_and_half_close(address: SocketAddr, bytes: &[u8]) -> String {
    let mut connection = Connection::open(address);
    connection.write(bytes);
    connection.stream().shutdown(Shutdown::Write).unwrap();
    String::from_utf8(connection.read_to_end()).unwrap()
}

#[test]
fn a_client_that_closes_its_sending_side_gets_its_answer() {
    let server = Server::start();
    let mut session = server.open_session();
    let headers = with_json_headers(&[]);
    let post = |path: &str, body: &str| {
        http::request("localhost", "POST", path, &headers, body.as_bytes())
    };
    let whoami = whoami_call().to_string();

    let quick = send_and_half_close(server.address, &post("/mcp", &whoami));
    let accepted = send_and_half_close(server.address, &post(session.endpoint(), &whoami));
    let get = http::request("localhost", "GET", "/healthz", &[], b"");
    let got = send_and_half_close(server.address, &get);
    let whole = post("/mcp", &whoami);
    let incomplete = send_and_half_close(server.address, &whole[..whole.len() - 1]);

    assert!(
        quick.starts_with("HTTP/1.1 200") && quick.contains("127.0.0.1"),
        "{quick}"
    );
    assert!(accepted.starts_with("HTTP/1.1 202"), "{accepted}");
    assert_eq!(who(&session.next_message().unwrap())["transport"], "sse");
    assert!(got.starts_with("HTTP/1.1 200"), "{got}");
    assert!(!incomplete.starts_with("HTTP/1.1 2"), "{incomplete}");
}

#[test]
fn a_client_that_closes_its_sending_side_during_a_call_gets_its_answer() {
    let server = Server::start();
    let headers = with_json_headers(&[]);
    let wait = tool_call(1, "wait", &json!({})).to_string();
    let request = http::request("localhost", "POST", "/mcp", &headers, wait.as_bytes());

    let answer = thread::scope(|scope| {
        let client = scope.spawn(|| send_and_half_close(server.address, &request));
        server.wait_for_calls(1);
        server.handler.gate.add_permits(1);
        client.join().unwrap()
    });

    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("waited"),
        "{answer}"
    );
}

#[test]
fn every_path_checks_host_and_origin_even_unknown_ones() {
    let server = Server::start();

    for (method, path) in [
        ("POST", "/mcp"),
        ("GET", "/mcp"),
        ("GET", "/sse"),
        ("POST", "/sse"),
        ("POST", "/messages"),
        ("GET", "/messages"),
        ("POST", "/sse/messages"),
        ("GET", "/"),
        ("PUT", "/no"),
    ] {
        let host = server.send((method, path), &[("Host", "evil.example")], "{}");
        assert_eq!(host.status, 403, "{method} {path}");
        let origin = server.send((method, path), &[("Origin", "null")], "{}");
        assert_eq!(origin.status, 403, "{method} {path}");

        let mut connection = Connection::open(server.address);
        let without_host = format!("{method} {path} HTTP/1.1\r\nContent-Length: 2\r\n\r\n{{}}");
        connection.write(without_host.as_bytes());
        assert_eq!(connection.read_response().status, 400, "{method} {path}");
    }
    let allowed = server.mcp(&[WEB_ORIGIN], &initialize(MODERN));
    assert_eq!(allowed.status, 200);
}

#[test]
fn a_session_answers_on_its_event_stream() {
    let server = Server::start();
    let mut session = server.open_session();
    let endpoint = session.endpoint().to_owned();
    assert!(endpoint.starts_with("/messages?sessionId="), "{endpoint}");

    // Without `initialize`, as after a reconnection, and in the forms that some clients use.
    let renamed = endpoint.replace("sessionId", "session_id");
    for path in [&endpoint, &format!("/sse{endpoint}"), &renamed] {
        let headers = [("User-Agent", "test")];
        let accepted = server.send(("POST", path), &headers, whoami_call().to_string());

        assert_eq!(accepted.status, 202, "{path}");
        let expected = json!({
            "transport": "sse",
            "address": "127.0.0.1",
            "claimed": null,
            "caller": null,
            "peer": null,
            "user_agent": "test",
        });
        assert_eq!(who(&session.next_message().unwrap()), expected);
    }

    session.post(initialize("2024-11-05").to_string());
    let initialized = session.next_message().unwrap();
    assert_eq!(initialized["result"]["protocolVersion"], "2024-11-05");
    session.post(whoami_call().to_string());
    assert_eq!(who(&session.next_message().unwrap())["peer"], "claude-code");
}

#[test]
fn unknown_and_malformed_session_ids_get_different_statuses() {
    let server = Server::start();

    for (path, status) in [
        ("/messages", 400),
        ("/messages?sessionId=1", 400),
        (&format!("/messages?sessionId={UNKNOWN_SESSION}"), 404),
    ] {
        let response = server.send(("POST", path), &[], whoami_call().to_string());
        assert_eq!(response.status, status, "{path}");
    }
}

#[test]
fn a_stop_ends_streams_at_once_and_lets_calls_finish() {
    let server = Server::start();
    let wait = tool_call(2, "wait", &json!({})).to_string();
    let mut idle = server.open_session();
    let mut busy = server.open_session();
    assert_eq!(busy.post(&wait).status, 202);
    let filter = json!({ "resourceSubscriptions": ["test://one"] });
    let params = json!({ "notifications": filter });
    let listen = messages::request(3, "subscriptions/listen", &params);
    let headers = [
        ("MCP-Protocol-Version", MODERN),
        ("Mcp-Method", "subscriptions/listen"),
    ];
    let mut subscription = EventStream::new(server.mcp(&headers, &modern(listen)));
    assert_eq!(
        subscription.next_message().unwrap()["method"],
        "notifications/subscriptions/acknowledged"
    );
    let mut calling = Connection::open(server.address);
    calling.write(&http::request(
        "localhost",
        "POST",
        "/mcp",
        &with_json_headers(&[]),
        wait.as_bytes(),
    ));
    server.wait_for_calls(2);

    server.stop.cancel();
    assert_eq!(idle.next_message(), None);
    assert_eq!(subscription.next_message(), None);
    server.handler.gate.add_permits(2);

    assert_eq!(text(&busy.next_message().unwrap()), "waited");
    assert_eq!(busy.next_message(), None);
    assert_eq!(text(&calling.read_response().json()), "waited");
    server.wait_for_end();
}

/// With tokens configured, all of these need one, even if there is no such route.
const PROTECTED: [(&str, &str); 7] = [
    ("POST", "/mcp"),
    ("GET", "/mcp"),
    ("GET", "/sse"),
    ("POST", "/messages"),
    ("GET", "/"),
    ("PUT", "/no"),
    ("GET", "/mcp?access_token=marie-0123456789abcdef"),
];

#[test]
fn a_request_without_a_token_gets_a_challenge() {
    let (server, _tokens) = Server::start_with_tokens();

    for route in PROTECTED {
        let response = server.send(route, &[], "{}");

        let challenge = r#"Bearer realm="portfolio-mcp""#;
        assert_eq!(response.status, 401, "{route:?}");
        assert_eq!(
            response.header("www-authenticate"),
            Some(challenge),
            "{route:?}"
        );
        let body = response.text();
        assert!(body.contains("Authorization: Bearer"), "{route:?}: {body}");
    }
}

#[test]
fn a_request_with_a_wrong_token_learns_that_it_is_invalid() {
    let (server, _tokens) = Server::start_with_tokens();

    for route in PROTECTED {
        for credentials in ["Bearer marie-0123456789abcdeF", "Basic abc", "Bearer"] {
            let response = server.send(route, &[("Authorization", credentials)], "{}");

            let challenge = r#"Bearer realm="portfolio-mcp", error="invalid_token""#;
            assert_eq!(response.status, 401, "{route:?} {credentials}");
            assert_eq!(
                response.header("www-authenticate"),
                Some(challenge),
                "{route:?} {credentials}"
            );
        }
    }
}

#[test]
fn a_valid_token_is_accepted_but_does_not_replace_the_host_check() {
    let (server, _tokens) = Server::start_with_tokens();

    for route in PROTECTED {
        let accepted = server.send(route, &[MARIE], "{}");
        let foreign = server.send(route, &[MARIE, ("Host", "evil.example")], "{}");

        assert_ne!(accepted.status, 401, "{route:?}");
        assert_eq!(foreign.status, 403, "{route:?}");
    }
}

#[test]
fn open_paths_need_no_token() {
    let (server, _tokens) = Server::start_with_tokens();

    for (path, status) in [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/.well-known/oauth-protected-resource", 404),
        ("/.well-known/oauth-authorization-server/mcp", 404),
    ] {
        let response = server.send(("GET", path), &[], "");
        assert_eq!(response.status, status, "{path}");
    }
}

#[test]
fn the_handler_sees_the_token_owner_and_tokens_can_be_replaced() {
    let (server, tokens) = Server::start_with_tokens();
    let caller = |token| who(&server.mcp(&[token], &whoami_call()).json())["caller"].clone();

    assert_eq!(caller(MARIE), "marie");
    assert_eq!(caller(SITE), "site");
    tokens.send_replace(Tokens::parse("other:read:marie-0123456789abcdef").unwrap());

    assert_eq!(caller(MARIE), "other");
    assert_eq!(server.mcp(&[SITE], &whoami_call()).status, 401);
}

#[test]
fn a_session_belongs_to_the_token_that_opened_it() {
    let (server, _tokens) = Server::start_with_tokens();
    let mut session = SseSession::open_with(server.address, &[MARIE]);
    let whoami = whoami_call().to_string();

    let foreign = session.post_with(&[SITE], &whoami);
    let path = format!("/messages?sessionId={UNKNOWN_SESSION}");
    let unknown = server.send(("POST", &path), &[SITE], &whoami);
    let own = session.post_with(&[MARIE], &whoami);

    assert_eq!(foreign.status, 404);
    assert_eq!(foreign.text(), unknown.text());
    assert_eq!(own.status, 202);
    assert_eq!(who(&session.next_message().unwrap())["caller"], "marie");
}

fn varies_by_origin(response: &Response) -> bool {
    let vary = response.header("vary").unwrap_or_default();
    vary.to_lowercase().contains("origin")
}

#[test]
fn allowed_pages_can_read_every_response() {
    let (server, _tokens) = Server::start_with_tokens();

    for (route, headers, status) in [
        (("POST", "/mcp"), &[WEB_ORIGIN, MARIE][..], 400),
        (("POST", "/mcp"), &[WEB_ORIGIN], 401),
        (("GET", "/sse"), &[WEB_ORIGIN], 401),
        (("GET", "/no"), &[WEB_ORIGIN, MARIE], 404),
    ] {
        let response = server.send(route, headers, "{}");

        assert_eq!(response.status, status, "{route:?}");
        assert_eq!(
            response.header("access-control-allow-origin"),
            Some(WEB_ORIGIN.1),
            "{route:?}"
        );
        assert!(varies_by_origin(&response), "{response:?}");
        let exposed = response.header("access-control-expose-headers").unwrap();
        for name in ["mcp-session-id", "etag"] {
            assert!(exposed.contains(name), "{name}: {exposed}");
        }
    }
    let without_origin = server.mcp(&[MARIE], &json!({}));
    assert!(varies_by_origin(&without_origin), "{without_origin:?}");
}

#[test]
fn preflight_requests_need_no_token() {
    let (server, _tokens) = Server::start_with_tokens();
    let preflight = |path: &str, origin: &str| {
        let headers = [
            ("Origin", origin),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "authorization"),
        ];
        server.send(("OPTIONS", path), &headers, "")
    };

    for path in ["/mcp", "/sse", "/messages"] {
        let response = preflight(path, WEB_ORIGIN.1);
        let foreign = preflight(path, "https://evil.example");

        assert_eq!(response.status, 200, "{path}");
        assert_eq!(
            response.header("access-control-allow-origin"),
            Some(WEB_ORIGIN.1),
            "{path}"
        );
        let headers = response.header("access-control-allow-headers").unwrap();
        for name in [
            "authorization",
            "content-type",
            "mcp-protocol-version",
            "mcp-session-id",
            "accept",
            "last-event-id",
        ] {
            assert!(headers.contains(name), "{name}: {headers}");
        }
        let methods = response.header("access-control-allow-methods").unwrap();
        assert!(methods.contains("POST"), "{methods}");
        assert_eq!(foreign.status, 403, "{path}");
        assert_eq!(
            foreign.header("access-control-allow-origin"),
            None,
            "{path}"
        );
    }
}

#[test]
fn a_message_nested_too_deeply_is_not_parsed() {
    let server = Server::start();
    let session = server.open_session();
    let nested = |depth: usize| {
        let value = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{value}}}"#)
    };

    for path in ["/mcp", session.endpoint()] {
        for depth in [64, 500_000] {
            let response = server.send(("POST", path), &[], nested(depth));

            assert_eq!(response.status, 400, "{path} {depth}");
            let error = response.json()["error"].clone();
            assert_eq!(error["code"], -32600, "{path} {depth}");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains(&(depth + 1).to_string()), "{message}");
            assert!(message.contains("64"), "{message}");
        }
    }
}

#[test]
fn connections_over_the_limit_are_rejected_until_one_closes() {
    let server = Server::start_with(Settings {
        max_connections: 2,
        ..Settings::default()
    });
    let sessions = [server.open_session(), server.open_session()];

    // The server answers without waiting for a request.
    let rejection = Connection::open(server.address).read_response();
    drop(sessions);

    assert_eq!(rejection.status, 503);
    assert!(rejection.header("retry-after").is_some(), "{rejection:?}");
    let length: usize = rejection.header("content-length").unwrap().parse().unwrap();
    let (body, mut connection) = rejection.into_parts();
    assert_eq!(body.len(), length);
    assert_eq!(connection.read_to_end(), b"");
    wait_until("a connection is accepted", || {
        let request = http::request("localhost", "GET", "/no", &[("Connection", "close")], b"");
        let mut connection = Connection::open(server.address);
        connection.write(&request);
        connection
            .read_to_end()
            .starts_with(b"HTTP/1.1 404")
            .then_some(())
    });
}

#[test]
fn a_client_over_the_rate_limit_learns_when_to_retry() {
    let (_sender, tokens) = watch::channel(Tokens::parse(TOKENS).unwrap());
    let server = Server::start_with(Settings {
        tokens: Some(tokens),
        rate_limit: Some(NonZeroU32::MIN),
        ..Settings::default()
    });

    let rejection = wait_until("a request is rejected", || {
        let response = server.send(("GET", "/no"), &[MARIE, WEB_ORIGIN], "");
        (response.status != 404).then_some(response)
    });

    assert_eq!(rejection.status, 429);
    assert_eq!(rejection.header("retry-after"), Some("1"));
    assert_eq!(
        rejection.header("access-control-allow-origin"),
        Some(WEB_ORIGIN.1),
        "pages can read the rejection"
    );
    let other = server.send(("GET", "/no"), &[SITE], "");
    assert_eq!(other.status, 404, "other clients are not limited");
}

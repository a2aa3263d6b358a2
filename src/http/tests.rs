//! Limits of the HTTP edge that are too large to reach in a test, so these tests shorten them. All
//! other tests of the edge are in `tests/it/http.rs`.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock},
    service::RequestContext,
};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::{Builder, Runtime},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{Limits, Settings, connection::prepare_socket, serve_with_limits};

#[path = "../../tests/it/support"]
#[expect(dead_code, reason = "the integration tests use the rest of the kit")]
mod support {
    pub(super) mod http;
    pub(super) mod messages;
    pub(super) mod sse;
    pub(super) mod wait;
}

use support::{
    http::{self, Connection, Response, with_json_headers},
    messages::tool_call,
    sse::SseSession,
    wait::{WAIT_TIMEOUT, wait_until},
};

const FOREVER: Duration = Duration::from_hours(1);

/// Its tools are `fill`, which returns `bytes` bytes, and `wait`, which never returns.
#[derive(Clone, Default)]
struct TestHandler {
    waiting: Arc<AtomicUsize>,
}

impl ServerHandler for TestHandler {
    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        if request.name == "wait" {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
        let bytes = request.arguments.unwrap()["bytes"].as_u64().unwrap();
        let text = "x".repeat(bytes.try_into().unwrap());
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}

/// The HTTP edge on a runtime of its own.
struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    handler: TestHandler,
    task: JoinHandle<()>,
    runtime: Runtime,
}

impl Server {
    fn start(limits: Limits) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, handler) = (CancellationToken::new(), TestHandler::default());
        let task = runtime.spawn(serve_with_limits(
            limits,
            listener,
            handler.clone(),
            axum::Router::new(),
            Settings::default(),
            stop.clone(),
        ));
        Self {
            address,
            stop,
            handler,
            task,
            runtime,
        }
    }

    /// A connection with a small window, so that the server soon notices a client that does not
    /// read.
    fn connect(&self) -> Connection {
        let stream = self.runtime.block_on(async {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(4096).unwrap();
            socket.connect(self.address).await.unwrap()
        });
        let stream = stream.into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        Connection::over(stream)
    }

    /// Posts a message to `/mcp` and leaves the response unread.
    fn post_unread(&self, message: &str) -> Connection {
        let headers = with_json_headers(&[]);
        let mut connection = self.connect();
        connection.write(&http::request(
            "localhost",
            "POST",
            "/mcp",
            &headers,
            message.as_bytes(),
        ));
        connection
    }

    fn open_session(&self) -> SseSession {
        SseSession::over(self.connect(), &[])
    }

    fn try_open_session(&self) -> Response {
        self.connect().send("GET", "/sse", &[], "")
    }

    fn wait_for_end(self) {
        self.runtime
            .block_on(async { timeout(WAIT_TIMEOUT, self.task).await })
            .expect("the server ends")
            .unwrap();
    }
}

#[test]
fn sessions_over_the_limit_are_rejected_until_one_closes() {
    let server = Server::start(Limits {
        max_sse_sessions: 2,
        ..Limits::default()
    });
    let (first, second) = (server.open_session(), server.open_session());

    let third = server.try_open_session();
    assert_eq!(third.status, 503);
    assert!(third.header("retry-after").is_some(), "{third:?}");
    let endpoint = first.endpoint().to_owned();
    drop((first, second));

    wait_until("there is room for a session", || {
        (server.try_open_session().status == 200).then_some(())
    });
    wait_until("the closed session is unknown", || {
        let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
        let response = http::post_json(server.address, &endpoint, &[], ping);
        (response.status == 404).then_some(())
    });
}

/// Its session ends and makes room for another, although its connection is stuck in a write.
#[test]
fn a_client_that_does_not_read_loses_its_session() {
    let server = Server::start(Limits {
        max_sse_sessions: 1,
        send_timeout: Duration::from_millis(50),
        write_timeout: FOREVER,
        ..Limits::default()
    });
    let stuck = server.open_session();

    let fill = tool_call(2, "fill", &json!({ "bytes": 500_000 })).to_string();
    wait_until("the session ends", || {
        (stuck.post(&fill).status == 404).then_some(())
    });

    wait_until("there is room for a session", || {
        (server.try_open_session().status == 200).then_some(())
    });
    drop(stuck);
}

#[test]
fn a_client_that_stops_reading_is_disconnected_on_every_route() {
    const BYTES: usize = 20_000_000;
    let server = Server::start(Limits {
        send_timeout: FOREVER,
        write_timeout: Duration::from_millis(50),
        grace_period: FOREVER,
        ..Limits::default()
    });
    let fill = tool_call(2, "fill", &json!({ "bytes": BYTES })).to_string();
    let stuck = server.post_unread(&fill);
    let session = server.open_session();
    assert_eq!(session.post(&fill).status, 202);

    server.stop.cancel();
    server.wait_for_end(); // waits for open connections

    for mut connection in [stuck, session.into_events().into_connection()] {
        assert!(connection.read_to_end().len() < BYTES);
    }
}

/// It may take as long as it likes, as long as it reads.
#[test]
fn a_slow_reader_gets_every_answer() {
    const CALLS: u64 = 60;
    let server = Server::start(Limits::default());
    let mut session = server.open_session();
    let (address, endpoint) = (server.address, session.endpoint().to_owned());

    thread::scope(|scope| {
        scope.spawn(|| {
            for id in 0..CALLS {
                let fill = tool_call(id, "fill", &json!({ "bytes": 200_000 })).to_string();
                let accepted = http::post_json(address, &endpoint, &[], fill);
                assert_eq!(accepted.status, 202);
            }
        });
        let ids: BTreeSet<u64> = (0..CALLS)
            .map(|_| session.next_message().unwrap()["id"].as_u64().unwrap())
            .collect();
        assert_eq!(ids, (0..CALLS).collect());
    });
}

#[test]
fn the_slowest_sessions_are_closed_when_too_much_waits_for_all() {
    let server = Server::start(Limits {
        max_waiting_bytes: 3_000_000,
        ..Limits::default()
    });
    // Its answer is larger than what the system buffers, so it waits.
    let fill = tool_call(1, "fill", &json!({ "bytes": 2_900_000 })).to_string();
    let deaf = server.open_session();
    assert_eq!(deaf.post(&fill).status, 202);
    let mut reader = server.open_session();

    wait_until("the deaf session ends", || {
        assert_eq!(reader.post(&fill).status, 202);
        assert_eq!(reader.next_message().unwrap()["id"], 1);
        (deaf.post(&fill).status == 404).then_some(())
    });

    assert_eq!(reader.post(&fill).status, 202);
    assert_eq!(reader.next_message().unwrap()["id"], 1);
}

#[test]
fn a_call_that_outlasts_the_stop_gets_an_error() {
    let server = Server::start(Limits {
        grace_period: Duration::from_secs(2),
        ..Limits::default()
    });
    let wait = tool_call(7, "wait", &json!({})).to_string();
    let mut session = server.open_session();
    assert_eq!(session.post(&wait).status, 202);
    let calling = server.post_unread(&wait);
    wait_until("the calls reach the handler", || {
        (server.handler.waiting.load(Ordering::SeqCst) == 2).then_some(())
    });

    server.stop.cancel();

    let over_sse = session.next_message().unwrap();
    assert_eq!(session.next_message(), None);
    let over_http = calling.read_response().json();
    for answer in [over_sse, over_http] {
        assert_eq!(answer["id"], 7, "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains("may have been applied"), "{message}");
    }
    server.wait_for_end();
}

#[test]
fn a_stop_does_not_wait_forever() {
    let server = Server::start(Limits {
        grace_period: Duration::from_millis(50),
        ..Limits::default()
    });
    let _calling = server.post_unread(&tool_call(2, "wait", &json!({})).to_string());
    wait_until("the call reaches the handler", || {
        (server.handler.waiting.load(Ordering::SeqCst) == 1).then_some(())
    });

    server.stop.cancel();

    server.wait_for_end();
}

#[test]
fn a_connection_without_a_complete_request_is_closed() {
    let server = Server::start(Limits {
        head_timeout: Duration::from_millis(100),
        ..Limits::default()
    });

    for beginning in [
        "",
        "G",
        "GET /no HTTP/1.1\r\nhost: local",
        "GET /no HTTP/1.1\r\nhost: localhost\r\n\r\n",
    ] {
        let mut connection = server.connect();
        connection.write(beginning.as_bytes());

        let received = connection.read_to_end();

        assert_eq!(
            received.starts_with(b"HTTP/1.1 404"),
            beginning.ends_with("\r\n\r\n"),
            "{beginning:?}"
        );
    }
}

#[test]
fn a_body_that_does_not_arrive_times_out() {
    let server = Server::start(Limits {
        body_timeout: Duration::from_millis(100),
        ..Limits::default()
    });
    let headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", "100"),
    ];

    let response = server.connect().send("POST", "/mcp", &headers, "{");

    assert_eq!(response.status, 408);
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

//! A client of the HTTP+SSE transport.

use std::net::SocketAddr;

use serde_json::Value;

use super::{
    http::{self, Connection, Response},
    messages,
};

/// A session: messages are posted to its endpoint and answered on its event stream.
pub(crate) struct SseSession {
    address: SocketAddr,
    endpoint: String,
    events: EventStream,
}

impl SseSession {
    pub(crate) fn open(address: SocketAddr) -> Self {
        Self::open_with(address, &[])
    }

    pub(crate) fn open_with(address: SocketAddr, headers: &[(&str, &str)]) -> Self {
        Self::over(Connection::open(address), headers)
    }

    /// Opens a session at another path than `/sse`.
    pub(crate) fn open_at(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        Self::over_at(Connection::open(address), path, headers)
    }

    /// Opens a session on a connection that was made for it.
    pub(crate) fn over(connection: Connection, headers: &[(&str, &str)]) -> Self {
        Self::over_at(connection, "/sse", headers)
    }

    fn over_at(connection: Connection, path: &str, headers: &[(&str, &str)]) -> Self {
        let address = connection.stream().peer_addr().unwrap();
        let headers = [&[("Accept", "text/event-stream")], headers].concat();
        let response = connection.send("GET", path, &headers, "");
        assert_eq!(response.status, 200);
        assert_eq!(response.header("content-type"), Some("text/event-stream"));
        let mut events = EventStream::new(response);
        let endpoint = events.next().expect("the stream begins with an event");
        assert_eq!(endpoint.kind, "endpoint");
        Self {
            address,
            endpoint: endpoint.data,
            events,
        }
    }

    /// The path to post messages to.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(crate) fn post(&self, body: impl AsRef<[u8]>) -> Response {
        self.post_with(&[], body)
    }

    pub(crate) fn post_with(&self, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Response {
        http::post_json(self.address, &self.endpoint, headers, body)
    }

    /// The next message on the stream; `None` at its end.
    pub(crate) fn next_message(&mut self) -> Option<Value> {
        self.events.next_message()
    }

    /// Sends a request and gives the whole answer, `result` or `error`.
    pub(crate) fn request(&mut self, method: &str, params: &Value) -> Value {
        let message = messages::request(1, method, params);
        assert_eq!(self.post(message.to_string()).status, 202);
        self.next_message().expect("the session goes on")
    }

    pub(crate) fn into_events(self) -> EventStream {
        self.events
    }
}

/// One event of a stream.
#[derive(Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) kind: String,
    pub(crate) data: String,
}

/// The events of a response.
#[derive(Debug)]
pub(crate) struct EventStream {
    response: Response,
    received: String,
}

impl EventStream {
    pub(crate) fn new(response: Response) -> Self {
        Self {
            response,
            received: String::new(),
        }
    }

    /// The next message; `None` at the end of the stream.
    pub(crate) fn next_message(&mut self) -> Option<Value> {
        let event = self.next()?;
        assert_eq!(event.kind, "message", "{event:?}");
        Some(serde_json::from_str(&event.data).unwrap())
    }

    pub(crate) fn into_connection(self) -> Connection {
        self.response.connection
    }
}

impl Iterator for EventStream {
    type Item = Event;

    /// The next event that has data, which heartbeats do not have.
    fn next(&mut self) -> Option<Event> {
        loop {
            let Some((event, rest)) = self.received.split_once("\n\n") else {
                let chunk = self.response.chunk()?;
                self.received += &String::from_utf8(chunk).unwrap();
                continue;
            };
            let event = event.to_owned();
            self.received = rest.to_owned();
            // Some readers end a line at these too.
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
            if let Some(data) = field("data:") {
                let kind = field("event:").unwrap_or_else(|| "message".to_owned());
                return Some(Event { kind, data });
            }
        }
    }
}

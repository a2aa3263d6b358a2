//! An HTTP/1.1 client on a socket, low enough to send malformed requests byte by byte.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
};

use serde_json::Value;

use super::wait::WAIT_TIMEOUT;

/// What every client of `/mcp` sends.
pub(crate) const JSON_HEADERS: [(&str, &str); 2] = [
    ("Content-Type", "application/json"),
    ("Accept", "application/json, text/event-stream"),
];

/// An open connection. A read that takes longer than [`WAIT_TIMEOUT`] fails the test.
#[derive(Debug)]
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    /// Sends a request and reads the response up to its body. `Host` and `Content-Length` are added
    /// unless they are given.
    pub(crate) fn send(
        mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Response {
        let host = self.stream().peer_addr().unwrap().to_string();
        self.write(&request(&host, method, path, headers, body.as_ref()));
        self.read_response()
    }

    /// Writes bytes. A server that rejects a long body may close the connection before it has read
    /// all of it, so a failure is ignored: the response is what counts.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let _ = self.0.get_mut().write_all(bytes);
    }

    /// Reads a response up to its body.
    pub(crate) fn read_response(mut self) -> Response {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or_else(|| panic!("not an HTTP response: {line:?}"));
        let mut headers = Vec::new();
        loop {
            line.clear();
            self.0.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        Response {
            status,
            headers,
            connection: self,
        }
    }

    /// Reads until the server closes the connection or it fails.
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        let mut received = Vec::new();
        let _ = self.0.read_to_end(&mut received);
        received
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        self.0.get_ref()
    }

    pub(crate) fn into_stream(self) -> TcpStream {
        self.0.into_inner()
    }
}

/// A response whose body may still be arriving.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) connection: Connection,
}

impl Response {
    /// The first header with that name, in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The whole body.
    pub(crate) fn text(self) -> String {
        self.into_parts().0
    }

    /// The whole body, and the connection for the next request.
    pub(crate) fn into_parts(mut self) -> (String, Connection) {
        let mut body = Vec::new();
        if self
            .header("transfer-encoding")
            .is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
        {
            while let Some(chunk) = self.chunk() {
                body.extend(chunk);
            }
        } else if let Some(length) = self.header("content-length") {
            body.resize(length.parse().unwrap(), 0);
            self.connection.0.read_exact(&mut body).unwrap();
        } else {
            self.connection.0.read_to_end(&mut body).unwrap();
        }
        (String::from_utf8(body).unwrap(), self.connection)
    }

    /// The body as JSON.
    pub(crate) fn json(self) -> Value {
        let text = self.text();
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("a body that is not JSON ({error}): {text}"))
    }

    /// The next chunk of a chunked body; `None` at the end of the body or the connection.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let mut size = String::new();
        self.connection.0.read_line(&mut size).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        let mut chunk = vec![0; size + 2];
        self.connection.0.read_exact(&mut chunk).unwrap();
        chunk.truncate(size);
        (size > 0).then_some(chunk)
    }
}

/// Sends a request on a connection of its own and reads the response up to its body. `Host` and
/// `Content-Length` are added unless they are given.
pub(crate) fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl AsRef<[u8]>,
) -> Response {
    Connection::open(address).send(method, path, headers, body)
}

/// Sends JSON; [`JSON_HEADERS`] are added unless they are given.
pub(crate) fn post_json(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: impl AsRef<[u8]>,
) -> Response {
    send(address, "POST", path, &with_json_headers(headers), body)
}

/// `headers` and those of [`JSON_HEADERS`] that are not among them.
pub(crate) fn with_json_headers<'a>(headers: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut all = headers.to_vec();
    all.extend(
        JSON_HEADERS
            .iter()
            .filter(|(name, _)| !contains(headers, name)),
    );
    all
}

/// The bytes of a request. `Host` and `Content-Length` are added unless they are given.
pub(crate) fn request(
    host: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    let length = body.len().to_string();
    let defaults = [("Host", host), ("Content-Length", length.as_str())];
    let defaults = defaults.iter().filter(|(name, _)| !contains(headers, name));
    for (name, value) in defaults.chain(headers) {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

fn contains(headers: &[(&str, &str)], name: &str) -> bool {
    headers
        .iter()
        .any(|(given, _)| given.eq_ignore_ascii_case(name))
}

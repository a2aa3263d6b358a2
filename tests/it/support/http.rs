//! HTTP/1.1 on a socket: enough to say right and wrong things to a server, byte by byte.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
};

use serde_json::Value;

use super::PATIENCE;

/// An answer, whose body may still be coming.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    /// What follows the headers, as it comes from the wire.
    pub(crate) rest: BufReader<TcpStream>,
}

impl Response {
    /// The first header of that name, whatever its case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The whole body, in its parts or not.
    pub(crate) fn text(mut self) -> String {
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
            self.rest.read_exact(&mut body).unwrap();
        } else {
            self.rest.read_to_end(&mut body).unwrap();
        }
        String::from_utf8(body).unwrap()
    }

    /// The body as JSON.
    pub(crate) fn json(self) -> Value {
        let text = self.text();
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("a body that is not JSON ({error}): {text}"))
    }

    /// The next part of a chunked body; `None` at its end, or when the connection ends.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let mut size = String::new();
        self.rest.read_line(&mut size).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        let mut chunk = vec![0; size + 2];
        self.rest.read_exact(&mut chunk).unwrap();
        chunk.truncate(size);
        (size > 0).then_some(chunk)
    }
}

/// Sends a request and reads the answer up to its body. `Host` and `Content-Length` are added unless they are given.
pub(crate) fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Response {
    let mut request = format!("{method} {path} HTTP/1.1\r\n");
    let own = [
        ("Host", address.to_string()),
        ("Content-Length", body.len().to_string()),
    ];
    for (name, value) in own.iter().filter(|(name, _)| {
        !headers
            .iter()
            .any(|(given, _)| given.eq_ignore_ascii_case(name))
    }) {
        let _ = write!(request, "{name}: {value}\r\n");
    }
    for (name, value) in headers {
        let _ = write!(request, "{name}: {value}\r\n");
    }
    send_raw(address, format!("{request}\r\n{body}").as_bytes())
}

/// Sends bytes as they are and reads the answer up to its body.
pub(crate) fn send_raw(address: SocketAddr, request: &[u8]) -> Response {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // A server may refuse a long body before it has read it all; its answer counts.
    let _ = stream.write_all(request);
    let mut rest = BufReader::new(stream);
    let mut line = String::new();
    rest.read_line(&mut line).unwrap();
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_else(|| panic!("no HTTP answer: {line:?}"));
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        rest.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    Response {
        status,
        headers,
        rest,
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    /// What a server that answers `answer` was asked, and what it was understood to say.
    fn check(answer: &'static str) -> (String, Response) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![0; 1000];
            let length = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let response = send(address, "POST", "/x", &[("host", "example.com")], "{}");
        (server.join().unwrap(), response)
    }

    #[test]
    fn a_request_holds_each_header_once_and_the_body() {
        let (request, response) = check("HTTP/1.1 202 Accepted\r\n\r\n");

        assert_eq!(
            request,
            "POST /x HTTP/1.1\r\nContent-Length: 2\r\nhost: example.com\r\n\r\n{}"
        );
        assert_eq!((response.status, response.text().as_str()), (202, ""));
    }

    #[test]
    fn a_body_is_read_by_its_length_or_in_its_chunks() {
        let (_, by_length) = check("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1}beyond");
        let (_, chunked) = check(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n",
        );

        assert_eq!(by_length.json(), chunked.json());
    }
}

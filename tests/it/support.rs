//! The test kit: servers and clients, stores, a faulty proxy, documents, and the proof that a store
//! is sound.

pub(crate) mod contested;
pub(crate) mod fixtures;
pub(crate) mod history_index;
pub(crate) mod http;
pub(crate) mod messages;
pub(crate) mod old_version;
pub(crate) mod prefix_proxy;
pub(crate) mod process;
pub(crate) mod program;
pub(crate) mod proxy;
pub(crate) mod redis;
pub(crate) mod server;
pub(crate) mod soundness;
pub(crate) mod sse;
pub(crate) mod stdio;
pub(crate) mod stores;
pub(crate) mod wait;

pub(crate) use wait::{WAIT_TIMEOUT, wait_until};

mod tests {
    //! The HTTP client's own tests.

    use std::{
        io::{Read, Write},
        net::TcpListener,
        thread,
    };

    use super::http::{self, Response};

    /// Sends a request to a server that answers `response`; gives the request and the response as
    /// they arrive.
    fn exchange(response: &'static str) -> (String, Response) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![0; 1000];
            let length = stream.read(&mut request).unwrap();
            stream.write_all(response.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let response = http::send(address, "POST", "/x", &[("host", "example.com")], "{}");
        (server.join().unwrap(), response)
    }

    #[test]
    fn a_request_has_each_header_once_and_the_body() {
        let (request, response) = exchange("HTTP/1.1 202 Accepted\r\n\r\n");

        assert_eq!(
            request,
            "POST /x HTTP/1.1\r\nContent-Length: 2\r\nhost: example.com\r\n\r\n{}"
        );
        assert_eq!(response.status, 202);
        assert_eq!(response.text(), "");
    }

    #[test]
    fn a_body_is_read_by_its_length_or_in_chunks() {
        let (_, by_length) =
            exchange("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1}beyond");
        let (_, chunked) = exchange(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n",
        );

        assert_eq!(by_length.json(), chunked.json());
    }
}

//! Bodies of POST requests: reading them within limits, and rejecting those that are not messages.

use std::time::Duration;

use axum::{
    body::{Body, Bytes, HttpBody as _},
    http::{HeaderMap, HeaderValue, StatusCode, header},
};
use futures::StreamExt as _;
use serde::de::IgnoredAny;
use serde_json::json;
use tokio::time::timeout;

use super::rejection::Rejection;
use crate::domain::check_depth;
pub(super) use crate::mcp::MAX_MESSAGE_BYTES as MAX_BODY_BYTES;

/// How much of an oversized body is read and discarded, because most clients look for the response
/// only after they sent everything.
const MAX_DISCARDED_BYTES: usize = 16 * 1024 * 1024;

const PARSE_ERROR: i32 = -32700;
const INVALID_REQUEST: i32 = -32600;

pub(super) fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

/// Reads the whole body. It is safe to parse: neither too long nor nested too deeply.
pub(super) async fn read(body: Body, limit: Duration) -> Result<Bytes, Rejection> {
    let Ok(read) = timeout(limit, read_whole(body)).await else {
        let text =
            format!("the request body did not arrive within {limit:?}; send it without pauses");
        return Err(Rejection::new(StatusCode::REQUEST_TIMEOUT, text)
            .with_header(header::CONNECTION, HeaderValue::from_static("close")));
    };
    let body = read?;
    match check_depth(&body) {
        Ok(()) => Ok(body),
        Err(too_deep) => Err(json_rpc_error(
            INVALID_REQUEST,
            &format!("the message was not read: {too_deep}"),
        )),
    }
}

async fn read_whole(body: Body) -> Result<Bytes, Rejection> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > MAX_DISCARDED_BYTES {
        return Err(too_large());
    }
    let mut whole = Vec::new();
    let mut length = 0;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            Rejection::new(
                StatusCode::BAD_REQUEST,
                format!("could not read the request body: {error}"),
            )
        })?;
        length += chunk.len();
        if length <= MAX_BODY_BYTES {
            whole.extend_from_slice(&chunk);
        } else if length > MAX_DISCARDED_BYTES {
            break;
        }
    }
    if length > MAX_BODY_BYTES {
        Err(too_large())
    } else {
        Ok(whole.into())
    }
}

fn too_large() -> Rejection {
    Rejection::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("the request body is larger than {MAX_BODY_BYTES} bytes; send smaller messages"),
    )
}

/// The rejection of a body that is not a JSON-RPC message; its text names the problem.
pub(super) fn not_a_message(body: &[u8]) -> Rejection {
    match check_json(body) {
        Err(error) => json_rpc_error(PARSE_ERROR, &format!("the body is not JSON: {error}")),
        Ok(()) if is_array(body) => json_rpc_error(
            INVALID_REQUEST,
            "batches are not supported; send one message per request",
        ),
        Ok(()) => json_rpc_error(
            INVALID_REQUEST,
            "the body is JSON, but not a JSON-RPC 2.0 request, notification or response",
        ),
    }
}

/// Whether JSON text holds an array, which in JSON-RPC is a batch.
pub(super) fn is_array(body: &[u8]) -> bool {
    body.trim_ascii_start().first() == Some(&b'[')
}

fn check_json(body: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
    serde_json::from_str::<IgnoredAny>(text)
        .map(|_| ())
        .map_err(|error| error.to_string())
}

fn json_rpc_error(code: i32, message: &str) -> Rejection {
    let error = json!({
        "jsonrpc": "2.0",
        "id": null,
        "error": { "code": code, "message": message },
    });
    Rejection::new(StatusCode::BAD_REQUEST, error.to_string()).with_header(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn a_body_up_to_the_limit_is_read_whole() {
        let text = "x".repeat(MAX_BODY_BYTES);

        assert_eq!(
            read(Body::from(text.clone()), LIMIT).await.unwrap(),
            text.as_bytes()
        );
    }

    #[tokio::test]
    async fn a_larger_body_is_rejected() {
        for length in [
            MAX_BODY_BYTES + 1,
            MAX_DISCARDED_BYTES,
            MAX_DISCARDED_BYTES + 1,
        ] {
            let rejection = read(Body::from("x".repeat(length)), LIMIT)
                .await
                .unwrap_err();

            assert_eq!(rejection.status, StatusCode::PAYLOAD_TOO_LARGE, "{length}");
        }
    }

    #[tokio::test]
    async fn a_larger_body_of_unknown_length_is_rejected() {
        let chunks = futures::stream::iter(
            (0..100).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; MAX_BODY_BYTES / 2]))),
        );

        let rejection = read(Body::from_stream(chunks), LIMIT).await.unwrap_err();

        assert_eq!(rejection.status, StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn a_body_that_does_not_arrive_times_out() {
        let first = Ok::<_, std::io::Error>(Bytes::from_static(b"{"));
        let stuck = futures::stream::iter([first]).chain(futures::stream::pending());

        let rejection = read(Body::from_stream(stuck), Duration::from_millis(10))
            .await
            .unwrap_err();

        assert_eq!(rejection.status, StatusCode::REQUEST_TIMEOUT);
        assert_eq!(
            rejection.headers,
            [(header::CONNECTION, HeaderValue::from_static("close"))]
        );
    }

    fn code(body: &[u8]) -> i64 {
        let rejection = not_a_message(body);
        assert_eq!(rejection.status, StatusCode::BAD_REQUEST);
        let json: serde_json::Value = serde_json::from_str(&rejection.text).unwrap();
        assert!(json["id"].is_null());
        json["error"]["code"].as_i64().unwrap()
    }

    #[test]
    fn invalid_json_and_invalid_messages_get_different_codes() {
        for body in [
            &b""[..],
            b"{",
            b"{\"a\":}",
            b"hello",
            b"{} {}",
            b"{\"a\":\"\xff\"}",
        ] {
            assert_eq!(code(body), -32700, "{body:?}");
        }
        for body in [
            &b"{}"[..],
            b" [ ]",
            b"5",
            b"null",
            b"\"text\"",
            b"{\"method\":5}",
        ] {
            assert_eq!(code(body), -32600, "{body:?}");
        }
    }
}

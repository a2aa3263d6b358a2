//! Bodies of POST requests: how much of them is read, and what is said of those that are no message.

use std::time::Duration;

use axum::{
    body::{Body, Bytes, HttpBody as _},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::StreamExt as _;
use serde::de::IgnoredAny;
use tokio::time::timeout;

use crate::domain::check_depth;
pub(super) use crate::mcp::MAX_MESSAGE_BYTES as LONGEST;

/// So much of a body that is too long is read and thrown away, because most clients look for an answer only after they sent everything.
const DISCARDED: usize = 16 * 1024 * 1024;

/// Whether the headers announce JSON.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

/// The whole body, or the answer that refuses it. What it gives may be parsed: it is neither too long nor nested too deep.
pub(super) async fn read(body: Body, limit: Duration) -> Result<Bytes, Response> {
    let Ok(read) = timeout(limit, read_whole(body)).await else {
        let text = format!("the body did not come within {limit:?}; send it without a pause");
        return Err((
            StatusCode::REQUEST_TIMEOUT,
            [(header::CONNECTION, "close")],
            text,
        )
            .into_response());
    };
    let body = read?;
    match check_depth(&body) {
        Ok(()) => Ok(body),
        Err(too_deep) => Err(refuse(
            -32600,
            &format!("the message was not read: {too_deep}"),
        )),
    }
}

async fn read_whole(body: Body) -> Result<Bytes, Response> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > DISCARDED {
        return Err(too_long());
    }
    let mut whole = Vec::new();
    let mut length = 0;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            (
                StatusCode::BAD_REQUEST,
                format!("the body broke off: {error}"),
            )
                .into_response()
        })?;
        length += chunk.len();
        if length <= LONGEST {
            whole.extend_from_slice(&chunk);
        } else if length > DISCARDED {
            break;
        }
    }
    if length > LONGEST {
        Err(too_long())
    } else {
        Ok(whole.into())
    }
}

fn too_long() -> Response {
    (
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("the body is longer than {LONGEST} bytes; send less in one message"),
    )
        .into_response()
}

/// The answer to a body that is no JSON-RPC message.
pub(super) fn refusal(body: &[u8]) -> Response {
    match json_syntax(body) {
        Err(error) => refuse(-32700, &format!("the body is not JSON: {error}")),
        Ok(()) if is_array(body) => refuse(
            -32600,
            "batches are not supported; send each message by itself",
        ),
        Ok(()) => refuse(
            -32600,
            "the body is JSON, but no JSON-RPC 2.0 request, notification or response",
        ),
    }
}

/// Whether JSON text holds an array, which in JSON-RPC is a batch.
pub(super) fn is_array(body: &[u8]) -> bool {
    body.trim_ascii_start().first() == Some(&b'[')
}

fn json_syntax(body: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
    serde_json::from_str::<IgnoredAny>(text)
        .map(|_| ())
        .map_err(|error| error.to_string())
}

fn refuse(code: i32, message: &str) -> Response {
    let error = serde_json::json!({ "jsonrpc": "2.0", "id": null, "error": { "code": code, "message": message } });
    (
        StatusCode::BAD_REQUEST,
        [(header::CONTENT_TYPE, "application/json")],
        error.to_string(),
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn a_body_up_to_the_limit_is_read_whole() {
        let text = "x".repeat(LONGEST);

        assert_eq!(
            read(Body::from(text.clone()), LIMIT).await.unwrap(),
            text.as_bytes()
        );
    }

    #[tokio::test]
    async fn a_longer_body_is_refused() {
        for length in [LONGEST + 1, DISCARDED, DISCARDED + 1] {
            let refused = read(Body::from("x".repeat(length)), LIMIT)
                .await
                .unwrap_err();

            assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE, "{length}");
        }
    }

    #[tokio::test]
    async fn a_longer_body_without_announced_length_is_refused() {
        let chunks = futures::stream::iter(
            (0..100).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; LONGEST / 2]))),
        );

        let refused = read(Body::from_stream(chunks), LIMIT).await.unwrap_err();

        assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_given_up() {
        let first = Ok::<_, std::io::Error>(Bytes::from_static(b"{"));
        let stuck = futures::stream::iter([first]).chain(futures::stream::pending());

        let refused = read(Body::from_stream(stuck), Duration::from_millis(10))
            .await
            .unwrap_err();

        assert_eq!(
            (
                refused.status(),
                refused.headers()[header::CONNECTION].as_bytes()
            ),
            (StatusCode::REQUEST_TIMEOUT, &b"close"[..])
        );
    }

    async fn code(body: &[u8]) -> i64 {
        let response = refusal(body);
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        let text = axum::body::to_bytes(response.into_body(), LONGEST)
            .await
            .unwrap();
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert!(json["id"].is_null());
        json["error"]["code"].as_i64().unwrap()
    }

    #[tokio::test]
    async fn a_refusal_tells_syntax_from_meaning() {
        for body in [
            &b""[..],
            b"{",
            b"{\"a\":}",
            b"hello",
            b"{} {}",
            b"{\"a\":\"\xff\"}",
        ] {
            assert_eq!(code(body).await, -32700, "{body:?}");
        }
        for body in [
            &b"{}"[..],
            b" [ ]",
            b"5",
            b"null",
            b"\"text\"",
            b"{\"method\":5}",
        ] {
            assert_eq!(code(body).await, -32600, "{body:?}");
        }
    }
}

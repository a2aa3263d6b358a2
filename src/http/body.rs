//! Bodies of POST requests: reading them within limits, and rejecting those that are not messages.

use std::{borrow::Cow, time::Duration};

use axum::{
    body::{Body, Bytes, HttpBody as _},
    http::{HeaderMap, HeaderValue, StatusCode, header},
};
use futures::StreamExt as _;
use rmcp::model::{ClientJsonRpcMessage, ErrorCode};
use tokio::time::timeout;

use super::rejection::Rejection;
pub(super) use crate::mcp::MAX_MESSAGE_BYTES as MAX_BODY_BYTES;
use crate::{
    domain::json::without_halves,
    mcp::incoming::{self, Incoming, classify},
};

/// How much of an oversized body is read and discarded, because most clients look for the response
/// only after they sent everything.
const MAX_DISCARDED_BYTES: usize = 16 * 1024 * 1024;

pub(super) fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

/// Rejects a request whose body is not said to be JSON.
pub(super) fn require_json(headers: &HeaderMap) -> Result<(), Rejection> {
    if is_json(headers) {
        return Ok(());
    }
    Err(Rejection::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "the content type must be `application/json`",
    ))
}

/// Reads the whole body, which is not too long, without a byte order mark and in a form that every
/// JSON parser reads.
pub(super) async fn read(body: Body, limit: Duration) -> Result<Bytes, Rejection> {
    let Ok(read) = timeout(limit, read_whole(body)).await else {
        let text =
            format!("the request body did not arrive within {limit:?}; send it without pauses");
        return Err(Rejection::new(StatusCode::REQUEST_TIMEOUT, text)
            .with_header(header::CONNECTION, HeaderValue::from_static("close")));
    };
    let body = read?;
    let json = incoming::trim(&body);
    Ok(match without_halves(json) {
        Cow::Borrowed(json) => body.slice_ref(json),
        Cow::Owned(json) => json.into(),
    })
}

async fn read_whole(body: Body) -> Result<Bytes, Rejection> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > MAX_DISCARDED_BYTES {
        return Err(too_large(&[]));
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
        Err(too_large(&whole))
    } else {
        Ok(whole.into())
    }
}

/// The rejection of a body of which only the beginning was read.
fn too_large(beginning: &[u8]) -> Rejection {
    json_rpc(
        StatusCode::PAYLOAD_TOO_LARGE,
        incoming::Rejection::too_long(beginning, MAX_BODY_BYTES),
    )
}

/// The message with this method in the form that rmcp reads.
pub(super) fn normalize(body: &Bytes, method: &str) -> Result<Bytes, Rejection> {
    match incoming::normalize(body, method).map_err(bad_request)? {
        Cow::Borrowed(_) => Ok(body.clone()),
        Cow::Owned(normalized) => Ok(normalized.into()),
    }
}

/// The message in a body that was read.
pub(super) fn parse(body: &[u8]) -> Result<ClientJsonRpcMessage, Rejection> {
    match classify(body) {
        Incoming::Message(message) => Ok(*message),
        Incoming::Blank => Err(bad_request(incoming::Rejection::empty())),
        Incoming::Invalid(rejection) | Incoming::InvalidNotification(rejection) => {
            Err(bad_request(rejection))
        }
    }
}

/// Rejects a body that is nested too deeply to be parsed.
pub(super) fn check_nesting(body: &[u8]) -> Result<(), Rejection> {
    incoming::check_nesting(body).map_err(bad_request)
}

/// The rejection of a body that is not a JSON-RPC message; its text names the problem.
pub(super) fn not_a_message(body: &[u8]) -> Rejection {
    match parse(body) {
        Err(rejection) => rejection,
        Ok(_) => refusal(StatusCode::BAD_REQUEST, body, "the message is not valid"),
    }
}

/// Whether JSON text holds an array, which in JSON-RPC is a batch.
pub(super) fn is_array(body: &[u8]) -> bool {
    body.first() == Some(&b'[')
}

/// The rejection of the request in `body`, under its id.
pub(super) fn refusal(status: StatusCode, body: &[u8], problem: impl Into<String>) -> Rejection {
    let code = if status.is_server_error() {
        ErrorCode::INTERNAL_ERROR
    } else {
        ErrorCode::INVALID_REQUEST
    };
    let id = incoming::parse_id(body);
    json_rpc(status, incoming::Rejection::new(id, code, problem.into()))
}

pub(super) fn bad_request(rejection: incoming::Rejection) -> Rejection {
    json_rpc(StatusCode::BAD_REQUEST, rejection)
}

fn json_rpc(status: StatusCode, rejection: incoming::Rejection) -> Rejection {
    Rejection::new(status, rejection.into_json().to_string()).with_header(
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

//! Streamable HTTP at `/mcp`: rmcp's stateless service, and around it what rmcp leaves out.
//!
//! Bodies that are no message get a JSON-RPC error, and `initialize` a session id that says who the client is.

use std::{borrow::Cow, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use futures::StreamExt as _;
use rmcp::{
    ServerHandler,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::never::NeverSessionManager,
    },
};
use serde::{Deserialize, de::IgnoredAny};
use tokio_util::sync::CancellationToken;

use crate::{
    caller::{ClaimedClient, TransportKind},
    http::{Limits, body, tag_transport},
};

const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

/// Streams end with `stop`; requests under way are given up with `abort`.
pub(super) fn routes<S: ServerHandler + Clone>(
    server: S,
    limits: Limits,
    stop: CancellationToken,
    abort: CancellationToken,
) -> Router {
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_max_request_body_bytes(body::LONGEST)
        .disable_allowed_hosts() // our guard stands before every route
        .with_cancellation_token(abort);
    let service = StreamableHttpService::new(
        move || Ok(server.clone()),
        Arc::new(NeverSessionManager::default()),
        config,
    );
    Router::new()
        .route("/mcp", any(answer::<S>))
        .with_state(Arc::new(Endpoint {
            service,
            limits,
            stop,
        }))
}

struct Endpoint<S> {
    service: StreamableHttpService<S, NeverSessionManager>,
    limits: Limits,
    stop: CancellationToken,
}

impl<S: ServerHandler> Endpoint<S> {
    async fn reply(&self, request: Request) -> Response {
        let response = self.service.handle(request).await.map(Body::new);
        if response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| value == "text/event-stream")
        {
            return response.map(|stream| {
                Body::from_stream(
                    stream
                        .into_data_stream()
                        .take_until(self.stop.clone().cancelled_owned()),
                )
            });
        }
        response
    }
}

/// As much of a message as must be known here; the rest is skipped, not kept.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    method: Cow<'a, str>,
}

async fn answer<S: ServerHandler>(
    State(endpoint): State<Arc<Endpoint<S>>>,
    request: Request,
) -> Response {
    if request.method() != Method::POST || !body::is_json(request.headers()) {
        return endpoint.reply(request).await; // rmcp refuses these: 405, 406, 415
    }

    let (mut parts, body) = request.into_parts();
    let body = match body::read(body, endpoint.limits.body).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let envelope = match serde_json::from_slice::<Envelope<'_>>(&body) {
        Ok(envelope) if !body::is_array(&body) => envelope,
        _ => return body::refusal(&body),
    };

    tag_transport(&mut parts, TransportKind::Http);
    if let Some(claimed) = parts
        .headers
        .get(SESSION_ID)
        .and_then(|id| ClaimedClient::from_session_id(id.as_bytes()))
    {
        parts.extensions.insert(claimed);
    }
    let response = endpoint
        .reply(Request::from_parts(parts, Body::from(body.clone())))
        .await;

    // The content type was right, so rmcp says this of a body that it could not read as a message.
    if response.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        return body::refusal(&body);
    }
    if envelope.method == "initialize" {
        return with_session_id(response, &body).await;
    }
    response
}

#[derive(Deserialize)]
struct Initialize {
    params: InitializeParams,
}

#[derive(Deserialize)]
struct InitializeParams {
    #[serde(rename = "clientInfo")]
    client: ClaimedClient,
}

/// A JSON-RPC answer that is not an error.
#[derive(Deserialize)]
struct Success {
    #[serde(rename = "result")]
    _result: IgnoredAny,
}

async fn with_session_id(response: Response, request: &Bytes) -> Response {
    let (mut parts, answer) = response.into_parts();
    let Ok(answer) = to_bytes(answer, usize::MAX).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    if serde_json::from_slice::<Success>(&answer).is_ok()
        && let Ok(Initialize { params }) = serde_json::from_slice(request)
        && let Ok(id) = params.client.session_id()
        && let Ok(id) = HeaderValue::try_from(id)
    {
        parts.headers.insert(SESSION_ID, id);
    }
    Response::from_parts(parts, Body::from(answer))
}

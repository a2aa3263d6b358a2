//! Streamable HTTP at `/mcp`: rmcp's stateless service, and what it lacks.
//!
//! Bodies that are not messages get a JSON-RPC error, and `initialize` gets a session id that
//! carries the client's name.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    response::Response,
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
use serde_json::Value;
use tracing::error;

use super::{
    accept, body,
    limits::Limits,
    rejection::Rejection,
    stages::{STOPPED, Stages},
};
use crate::{
    caller::{ClaimedClient, TransportKind},
    domain::text::truncate_words,
    mcp::incoming::Outline,
};

const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// The longest text with which rmcp refuses a request: it may repeat the body.
const MAX_REFUSAL_BYTES: usize = 2 * body::MAX_BODY_BYTES;

const NOT_ACCEPTABLE: &str = "the client must accept `application/json`: name it in the header `Accept`, or leave that header out";

/// See [`Stages`] for when streams and requests end.
pub(super) fn routes<S: ServerHandler + Clone>(
    server: S,
    limits: Limits,
    stages: Stages,
) -> Router {
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_max_request_body_bytes(body::MAX_BODY_BYTES)
        .disable_allowed_hosts() // our guard checks every route
        .with_cancellation_token(stages.abort.clone());
    let service = StreamableHttpService::new(
        move || Ok(server.clone()),
        Arc::new(NeverSessionManager::default()),
        config,
    );
    Router::new()
        .route("/mcp", any(serve_request::<S>))
        .with_state(Arc::new(Endpoint {
            service,
            limits,
            stages,
        }))
}

struct Endpoint<S> {
    service: StreamableHttpService<S, NeverSessionManager>,
    limits: Limits,
    stages: Stages,
}

async fn serve_request<S: ServerHandler>(
    State(endpoint): State<Arc<Endpoint<S>>>,
    request: Request,
) -> Result<Response, Rejection> {
    if request.method() != Method::POST {
        return Ok(endpoint.forward(request).await); // rmcp rejects these: 405
    }
    body::require_json(request.headers())?;

    let (mut parts, body) = request.into_parts();
    let reads_json = accept::complete(&mut parts.headers);
    let body = body::read(body, endpoint.limits.body_timeout).await?;
    body::check_nesting(&body)?;
    let Outline { method } = match serde_json::from_slice(&body) {
        Ok(outline) if !body::is_array(&body) => outline,
        _ => return Err(body::not_a_message(&body)),
    };
    let body = body::normalize(&body, &method)?;
    if !reads_json {
        let status = StatusCode::NOT_ACCEPTABLE;
        return Err(body::refusal(status, &body, NOT_ACCEPTABLE));
    }

    parts.extensions.insert(TransportKind::Http);
    if let Some(claimed) = parts
        .headers
        .get(SESSION_ID)
        .and_then(|id| ClaimedClient::from_session_id(id.as_bytes()))
    {
        parts.extensions.insert(claimed);
    }
    let request = Request::from_parts(parts, Body::from(body.clone()));
    let response = tokio::select! {
        response = endpoint.forward(request) => response,
        () = endpoint.stages.overdue.cancelled() => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return Err(body::refusal(status, &body, STOPPED));
        }
    };

    // The content type was right, so this is how rmcp answers a body that is not a message.
    if response.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        return Err(body::not_a_message(&body));
    }
    let response = with_request_id(response, &body).await?;
    if method == "initialize" {
        return with_session_id(response, &body).await;
    }
    Ok(response)
}

impl<S: ServerHandler> Endpoint<S> {
    /// The response of rmcp; if it is an event stream, it ends with `stop`.
    async fn forward(&self, request: Request) -> Response {
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
                        .take_until(self.stages.stop.clone().cancelled_owned()),
                )
            });
        }
        response
    }
}

/// rmcp refuses some requests in plain text, and its messages repeat what they refuse, however long.
async fn with_request_id(response: Response, request: &[u8]) -> Result<Response, Rejection> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let (mut parts, refusal) = response.into_parts();
    let refusal = to_bytes(refusal, MAX_REFUSAL_BYTES).await;
    let refusal = refusal.unwrap_or_default();
    if !body::is_json(&parts.headers) {
        let text = truncate_words(&String::from_utf8_lossy(&refusal));
        return Err(body::refusal(status, request, text));
    }
    let Ok(mut error) = serde_json::from_slice::<Value>(&refusal) else {
        return Err(body::refusal(status, request, "the request was refused"));
    };
    if let Some(message) = error.pointer_mut("/error/message")
        && let Some(text) = message.as_str()
    {
        *message = truncate_words(text).into();
    }
    parts.headers.remove(header::CONTENT_LENGTH);
    Ok(Response::from_parts(parts, Body::from(error.to_string())))
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

/// A JSON-RPC response that is not an error.
#[derive(Deserialize)]
struct Success {
    #[serde(rename = "result")]
    _result: IgnoredAny,
}

async fn with_session_id(response: Response, request: &Bytes) -> Result<Response, Rejection> {
    let (mut parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.map_err(|error| {
        error!("could not read the response to `initialize`: {error}");
        Rejection::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "could not answer `initialize`; send it again",
        )
    })?;
    if serde_json::from_slice::<Success>(&body).is_ok()
        && let Ok(Initialize { params }) = serde_json::from_slice(request)
        && !params.client.name.is_empty()
        && let Ok(id) = params.client.session_id()
        && let Ok(id) = HeaderValue::try_from(id)
    {
        parts.headers.insert(SESSION_ID, id);
    }
    Ok(Response::from_parts(parts, Body::from(body)))
}

//! HTTP+SSE of protocol revision 2024-11-05: a stream at `/sse` carries the answers, `/messages` takes the messages.
//!
//! rmcp has no server for it any more, so this is one, on its `Transport` trait. A session lives as long as its stream.
//! Its task ends it, not the stream's owner: hyper, stuck writing to a client that does not read, would never get to it.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Extension, Router,
    extract::{Query, Request, State, rejection::QueryRejection},
    http::{HeaderName, StatusCode, header},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
    routing::{get, post},
};
use futures::{Stream, StreamExt as _, stream};
use rmcp::{
    RoleServer, ServerHandler,
    model::{ClientJsonRpcMessage, ServerJsonRpcMessage},
    service::serve_directly_with_ct,
    transport::Transport,
};
use serde::Deserialize;
use tokio::{
    sync::mpsc::{self, error::SendTimeoutError},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::{
    caller::{Caller, TransportKind},
    domain::text::escape_line_breaks,
    http::{Limits, body, tag_transport},
};

/// Messages that wait for one another, in each direction of a session.
const QUEUE: usize = 64;
/// Clients give a silent stream up, the first of them after 30 seconds.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// When a client may ask again, in seconds, if there is no room for it.
const RETRY_AFTER: &str = "5";

/// Sessions end with `stop`, after the answers to what was asked before, and with `abort`, before them.
pub(super) fn routes<S: ServerHandler + Clone>(
    server: S,
    limits: Limits,
    stop: CancellationToken,
    abort: CancellationToken,
) -> Router {
    let sessions = Arc::new(Sessions {
        server,
        limits,
        stop,
        abort,
        open: Mutex::default(),
    });
    Router::new()
        .route("/sse", get(open::<S>)) // POST is 405, by which clients find out that this is no Streamable HTTP
        .route("/messages", post(accept::<S>))
        .route("/sse/messages", post(accept::<S>)) // some clients resolve the endpoint relative to `/sse`
        .with_state(sessions)
}

type Inbox = mpsc::Sender<ClientJsonRpcMessage>;

/// Where a session takes its messages, and whose they are.
struct Session {
    inbox: Inbox,
    owner: Option<Caller>,
}

struct Sessions<S> {
    server: S,
    limits: Limits,
    stop: CancellationToken,
    abort: CancellationToken,
    open: Mutex<HashMap<Uuid, Session>>,
}

impl<S: ServerHandler + Clone> Sessions<S> {
    /// A new session and the messages for its client, or `None` if there are too many already.
    fn start(
        self: &Arc<Self>,
        owner: Option<Caller>,
    ) -> Option<(Uuid, impl Stream<Item = ServerJsonRpcMessage> + use<S>)> {
        let id = Uuid::new_v4();
        let (inbox, incoming) = mpsc::channel(QUEUE);
        let (outgoing, outbox) = mpsc::channel(QUEUE);
        {
            let mut open = self.open();
            if open.len() >= self.limits.sessions {
                return None;
            }
            open.insert(id, Session { inbox, owner });
            metrics::gauge!("portfolio_sse_sessions").increment(1.0);
            debug!("a session of /sse began; {} are open", open.len());
        }

        let gone = self.abort.child_token();
        let transport = SseTransport {
            incoming,
            outgoing,
            send_limit: self.limits.send,
            gone: gone.clone(),
            stop: self.stop.clone(),
        };
        // A token of its own, because rmcp cancels the one it is given when it ends, while its last answer may still be on the way.
        // Without the handshake, because a client that reconnects gets a new session and does not initialize it.
        let running =
            serve_directly_with_ct(self.server.clone(), transport, None, gone.child_token());
        let sessions = Arc::clone(self);
        tokio::spawn(async move {
            // The error would repeat what a panic said, perhaps of a document.
            if running.waiting().await.is_err() {
                warn!("a session of /sse broke; its client has to open another");
            }
            let mut open = sessions.open();
            open.remove(&id);
            metrics::gauge!("portfolio_sse_sessions").decrement(1.0);
            debug!("a session of /sse ended; {} are open", open.len());
        });

        let hang_up = gone.clone().drop_guard();
        let messages = stream::unfold((outbox, hang_up), async |(mut outbox, hang_up)| {
            let message = outbox.recv().await?;
            Some((message, (outbox, hang_up)))
        });
        Some((id, messages.take_until(gone.cancelled_owned())))
    }
}

impl<S> Sessions<S> {
    /// Where `caller` sends messages of a session. To another caller than its owner there is no such session.
    fn inbox(&self, id: &Uuid, caller: Option<&Caller>) -> Option<Inbox> {
        let open = self.open();
        let session = open
            .get(id)
            .filter(|session| session.owner.as_ref() == caller)?;
        (!session.inbox.is_closed()).then(|| session.inbox.clone())
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Uuid, Session>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server's end of a session.
struct SseTransport {
    incoming: mpsc::Receiver<ClientJsonRpcMessage>,
    outgoing: mpsc::Sender<ServerJsonRpcMessage>,
    send_limit: Duration,
    /// The client left, or does not read.
    gone: CancellationToken,
    stop: CancellationToken,
}

impl Transport<RoleServer> for SseTransport {
    /// A client that left is an ordinary end, and rmcp would only log it as an error.
    type Error = Infallible;

    fn send(
        &mut self,
        message: ServerJsonRpcMessage,
    ) -> impl Future<Output = Result<(), Infallible>> + Send + 'static {
        let (outgoing, gone, limit) = (self.outgoing.clone(), self.gone.clone(), self.send_limit);
        async move {
            let sent = gone
                .run_until_cancelled(outgoing.send_timeout(message, limit))
                .await;
            if let Some(Err(SendTimeoutError::Timeout(_))) = sent {
                give_up(&gone);
            }
            Ok(())
        }
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        // While the client does not take its answers nothing more is asked of the handler: each answer is a task that waits.
        match timeout(self.send_limit, self.outgoing.reserve()).await {
            Ok(Ok(_room)) => {}
            Ok(Err(_)) => return None,
            Err(_) => {
                give_up(&self.gone);
                return None;
            }
        }
        tokio::select! {
            message = self.incoming.recv() => return message,
            () = self.stop.cancelled() => self.incoming.close(),
        }
        self.incoming.recv().await // what was accepted before the stop, then the end
    }

    async fn close(&mut self) -> Result<(), Infallible> {
        self.incoming.close();
        Ok(())
    }
}

fn give_up(gone: &CancellationToken) {
    debug!("a client of /sse does not read its stream; its session ends");
    gone.cancel();
}

async fn open<S: ServerHandler + Clone>(
    State(sessions): State<Arc<Sessions<S>>>,
    caller: Option<Extension<Caller>>,
) -> Response {
    let Some((id, messages)) = sessions.start(caller.map(|Extension(caller)| caller)) else {
        let text = format!(
            "{} streams are open, and no more are served; close one or try again later",
            sessions.limits.sessions
        );
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            [(header::RETRY_AFTER, RETRY_AFTER)],
            text,
        )
            .into_response();
    };
    // Without scheme and host, which a proxy may have changed.
    let endpoint = Event::default()
        .event("endpoint")
        .data(format!("/messages?sessionId={id}"));
    let events = stream::iter([Ok(endpoint)]).chain(messages.map(|message| event(&message)));
    let unbuffered = [(HeaderName::from_static("x-accel-buffering"), "no")];
    (
        unbuffered,
        Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)),
    )
        .into_response()
}

fn event(message: &ServerJsonRpcMessage) -> Result<Event, serde_json::Error> {
    Ok(Event::default()
        .event("message")
        .data(escape_line_breaks(serde_json::to_string(message)?)))
}

#[derive(Deserialize)]
struct SessionQuery {
    #[serde(rename = "sessionId", alias = "session_id")]
    session_id: String,
}

async fn accept<S>(
    State(sessions): State<Arc<Sessions<S>>>,
    query: Result<Query<SessionQuery>, QueryRejection>,
    request: Request,
) -> Response {
    const UNKNOWN: (StatusCode, &str) = (
        StatusCode::NOT_FOUND,
        "there is no such session; open a new one with GET /sse",
    );

    let Some(id) = query
        .ok()
        .and_then(|Query(query)| Uuid::try_parse(&query.session_id).ok())
    else {
        return (
            StatusCode::BAD_REQUEST,
            "`sessionId` must be in the query, as the stream's `endpoint` event gave it",
        )
            .into_response();
    };
    if !body::is_json(request.headers()) {
        return (
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the content type must be `application/json`",
        )
            .into_response();
    }
    let Some(inbox) = sessions.inbox(&id, request.extensions().get()) else {
        return UNKNOWN.into_response();
    };

    let (mut parts, body) = request.into_parts();
    let body = match body::read(body, sessions.limits.body).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let mut message: ClientJsonRpcMessage = match serde_json::from_slice(&body) {
        Ok(message) if !body::is_array(&body) => message,
        _ => return body::refusal(&body),
    };
    tag_transport(&mut parts, TransportKind::Sse);
    message.insert_extension(parts);

    match timeout(sessions.limits.send, inbox.send(message)).await {
        Ok(Ok(())) => (StatusCode::ACCEPTED, "Accepted").into_response(),
        Ok(Err(_)) => UNKNOWN.into_response(),
        Err(_) => {
            let text =
                "the session has too many unanswered messages; read its stream and try again";
            (
                StatusCode::SERVICE_UNAVAILABLE,
                [(header::RETRY_AFTER, RETRY_AFTER)],
                text,
            )
                .into_response()
        }
    }
}

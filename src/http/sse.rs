//! HTTP+SSE of protocol revision 2024-11-05: clients read responses from an event stream at `/sse`
//! and post their messages to `/messages`.
//!
//! rmcp dropped its server for this transport, so this is one, on its `Transport` trait. A session
//! lives as long as its stream. The session's own task ends it, not the owner of the stream: hyper,
//! stuck writing to a client that does not read, would never get to it.

use std::{
    borrow::Cow,
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Extension, Router,
    extract::{Query, Request, State, rejection::QueryRejection},
    http::{HeaderName, StatusCode},
    response::{
        IntoResponse, Sse,
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

use super::{body, limits::Limits, rejection::Rejection};
use crate::{
    caller::{Caller, TransportKind},
    domain::text::escape_line_breaks,
};

/// How many messages may wait in each direction of a session.
const QUEUE_CAPACITY: usize = 64;
/// Clients give up on a silent stream, the most impatient ones after 30 seconds.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);
const RETRY_AFTER_SECONDS: u64 = 5;

/// Sessions end with `stop`, after answering the messages they accepted, and with `abort`, at once.
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
        by_id: Mutex::default(),
    });
    Router::new()
        // POST is 405, which tells clients that this is not Streamable HTTP.
        .route("/sse", get(open_stream::<S>))
        .route("/messages", post(accept_message::<S>))
        // Some clients resolve the endpoint relative to `/sse`.
        .route("/sse/messages", post(accept_message::<S>))
        .with_state(sessions)
}

type Inbox = mpsc::Sender<ClientJsonRpcMessage>;

struct Session {
    inbox: Inbox,
    owner: Option<Caller>,
}

struct Sessions<S> {
    server: S,
    limits: Limits,
    stop: CancellationToken,
    abort: CancellationToken,
    by_id: Mutex<HashMap<Uuid, Session>>,
}

async fn open_stream<S: ServerHandler + Clone>(
    State(sessions): State<Arc<Sessions<S>>>,
    caller: Option<Extension<Caller>>,
) -> Result<impl IntoResponse, Rejection> {
    let (id, messages) = sessions.start(caller.map(|Extension(caller)| caller))?;
    // Without scheme and host, which a proxy may have changed.
    let endpoint = Event::default()
        .event("endpoint")
        .data(format!("/messages?sessionId={id}"));
    let events = stream::iter([Ok(endpoint)]).chain(messages.map(|message| event(&message)));
    let unbuffered = [(HeaderName::from_static("x-accel-buffering"), "no")];
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE_INTERVAL);
    Ok((unbuffered, Sse::new(events).keep_alive(keep_alive)))
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

async fn accept_message<S>(
    State(sessions): State<Arc<Sessions<S>>>,
    query: Result<Query<SessionQuery>, QueryRejection>,
    request: Request,
) -> Result<(StatusCode, &'static str), Rejection> {
    let id = session_id(query)?;
    if !body::is_json(request.headers()) {
        return Err(Rejection::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the content type must be `application/json`",
        ));
    }
    let inbox = sessions
        .inbox(&id, request.extensions().get())
        .ok_or_else(unknown_session)?;

    let (mut parts, body) = request.into_parts();
    let body = body::read(body, sessions.limits.body_timeout).await?;
    let mut message = body::parse(&body)?;
    parts.extensions.insert(TransportKind::Sse);
    message.insert_extension(parts);

    match timeout(sessions.limits.send_timeout, inbox.send(message)).await {
        Ok(Ok(())) => Ok((StatusCode::ACCEPTED, "Accepted")),
        Ok(Err(_)) => Err(unknown_session()),
        Err(_) => Err(unavailable(
            "the session has too many unanswered messages; read its event stream, then retry",
        )),
    }
}

fn session_id(query: Result<Query<SessionQuery>, QueryRejection>) -> Result<Uuid, Rejection> {
    query
        .ok()
        .and_then(|Query(query)| Uuid::try_parse(&query.session_id).ok())
        .ok_or_else(|| {
            Rejection::new(
                StatusCode::BAD_REQUEST,
                "the query parameter `sessionId` is missing or invalid; post to the address in the \
                 stream's `endpoint` event",
            )
        })
}

fn unknown_session() -> Rejection {
    Rejection::new(
        StatusCode::NOT_FOUND,
        "there is no session with this id; open a new one with GET /sse",
    )
}

fn unavailable(text: impl Into<Cow<'static, str>>) -> Rejection {
    Rejection::new(StatusCode::SERVICE_UNAVAILABLE, text).retry_after(RETRY_AFTER_SECONDS)
}

impl<S: ServerHandler + Clone> Sessions<S> {
    /// Starts a session and returns its id and the messages for its client.
    fn start(
        self: &Arc<Self>,
        owner: Option<Caller>,
    ) -> Result<(Uuid, impl Stream<Item = ServerJsonRpcMessage> + use<S>), Rejection> {
        let id = Uuid::new_v4();
        let (inbox, incoming) = mpsc::channel(QUEUE_CAPACITY);
        let (outgoing, outbox) = mpsc::channel(QUEUE_CAPACITY);
        self.insert(id, Session { inbox, owner })?;

        let closed = self.abort.child_token();
        let transport = SseTransport {
            incoming,
            outgoing,
            send_timeout: self.limits.send_timeout,
            closed: closed.clone(),
            stop: self.stop.clone(),
        };
        self.spawn(id, transport);

        let close_on_drop = closed.clone().drop_guard();
        let messages = stream::unfold((outbox, close_on_drop), async |(mut outbox, guard)| {
            let message = outbox.recv().await?;
            Some((message, (outbox, guard)))
        });
        Ok((id, messages.take_until(closed.cancelled_owned())))
    }

    /// Runs the handler on `transport` until the session ends.
    fn spawn(self: &Arc<Self>, id: Uuid, transport: SseTransport) {
        // A separate token: rmcp cancels the token it gets when it ends, and its last response may
        // still be on the way then.
        let token = transport.closed.child_token();
        // Without the handshake, because a client that reconnects gets a new session and does not
        // initialize it.
        let running = serve_directly_with_ct(self.server.clone(), transport, None, token);
        let sessions = Arc::clone(self);
        tokio::spawn(async move {
            // Not logged: the error would repeat a panic's message, which may quote a document.
            if running.waiting().await.is_err() {
                warn!("SSE session failed; the client must reconnect");
            }
            sessions.remove(&id);
        });
    }
}

impl<S> Sessions<S> {
    fn insert(&self, id: Uuid, session: Session) -> Result<(), Rejection> {
        let mut sessions = self.lock();
        if sessions.len() >= self.limits.max_sse_sessions {
            return Err(unavailable(format!(
                "all {} event streams of this server are in use; close one or retry later",
                self.limits.max_sse_sessions
            )));
        }
        sessions.insert(id, session);
        metrics::gauge!("portfolio_sse_sessions").increment(1.0);
        debug!("SSE session opened; {} open", sessions.len());
        Ok(())
    }

    fn remove(&self, id: &Uuid) {
        let mut sessions = self.lock();
        sessions.remove(id);
        metrics::gauge!("portfolio_sse_sessions").decrement(1.0);
        debug!("SSE session closed; {} open", sessions.len());
    }

    /// The queue for messages to a session. Only the session's owner gets it.
    fn inbox(&self, id: &Uuid, caller: Option<&Caller>) -> Option<Inbox> {
        let sessions = self.lock();
        let session = sessions
            .get(id)
            .filter(|session| session.owner.as_ref() == caller)?;
        (!session.inbox.is_closed()).then(|| session.inbox.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Session>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server's end of a session.
struct SseTransport {
    incoming: mpsc::Receiver<ClientJsonRpcMessage>,
    outgoing: mpsc::Sender<ServerJsonRpcMessage>,
    send_timeout: Duration,
    /// Cancelled when the client disconnected or does not read.
    closed: CancellationToken,
    stop: CancellationToken,
}

impl Transport<RoleServer> for SseTransport {
    /// A disconnected client is not an error, and rmcp would only log it as one.
    type Error = Infallible;

    fn send(
        &mut self,
        message: ServerJsonRpcMessage,
    ) -> impl Future<Output = Result<(), Infallible>> + Send + 'static {
        let (outgoing, closed) = (self.outgoing.clone(), self.closed.clone());
        let send_timeout = self.send_timeout;
        async move {
            let sent = closed
                .run_until_cancelled(outgoing.send_timeout(message, send_timeout))
                .await;
            if let Some(Err(SendTimeoutError::Timeout(_))) = sent {
                close_stalled(&closed);
            }
            Ok(())
        }
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        // The handler gets no more messages while the client does not read its responses: each
        // response is a task that waits.
        match timeout(self.send_timeout, self.outgoing.reserve()).await {
            Ok(Ok(_room)) => {}
            Ok(Err(_)) => return None,
            Err(_) => {
                close_stalled(&self.closed);
                return None;
            }
        }
        tokio::select! {
            message = self.incoming.recv() => return message,
            () = self.stop.cancelled() => self.incoming.close(),
        }
        // The messages that were accepted before the stop, then `None`.
        self.incoming.recv().await
    }

    async fn close(&mut self) -> Result<(), Infallible> {
        self.incoming.close();
        Ok(())
    }
}

fn close_stalled(closed: &CancellationToken) {
    debug!("an SSE client is not reading its stream; closing its session");
    closed.cancel();
}

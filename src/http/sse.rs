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
    body::{Body, Bytes, HttpBody as _},
    extract::{Query, Request, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::IntoResponse,
    routing::{get, post},
};
use futures::{Stream, StreamExt as _, stream};
use rmcp::{
    RoleServer, ServerHandler,
    model::{ClientJsonRpcMessage, ErrorCode, ServerJsonRpcMessage},
    service::serve_directly_with_ct,
    transport::Transport,
};
use serde::Deserialize;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

mod outbox;

use super::{
    body,
    limits::Limits,
    public_path::PublicPath,
    rejection::Rejection,
    stages::{STOPPED, Stages},
};
use crate::{
    caller::{Caller, TransportKind},
    mcp::{incoming, pending::PendingRequests},
};
use outbox::{Outbox, Stalled, Totals, event};

/// How many bytes of messages a session accepts before it has answered some of them.
const MAX_ACCEPTED_BYTES: usize = 2 * body::MAX_BODY_BYTES;
/// A message counts as this many bytes at least, which limits their number.
const MIN_MESSAGE_BYTES: usize = 32 * 1024;
const MAX_ACCEPTED_MESSAGES: usize = MAX_ACCEPTED_BYTES / MIN_MESSAGE_BYTES;
const RETRY_AFTER_SECONDS: u64 = 5;

/// After a stop, sessions end when they have answered the messages they accepted.
pub(super) fn routes<S: ServerHandler + Clone>(
    server: S,
    public_path: Arc<Option<PublicPath>>,
    limits: Limits,
    stages: Stages,
) -> Router {
    let sessions = Arc::new(Sessions {
        server,
        public_path,
        limits,
        stages,
        registry: Arc::default(),
    });
    Router::new()
        // POST is 405, which tells clients that this is not Streamable HTTP.
        .route("/sse", get(open_stream::<S>))
        .route("/messages", post(accept_message::<S>))
        // Some clients resolve the endpoint relative to `/sse`.
        .route("/sse/messages", post(accept_message::<S>))
        .with_state(sessions)
}

/// What a POST needs of a session.
#[derive(Clone)]
struct Session {
    inbox: mpsc::Sender<ClientJsonRpcMessage>,
    room: Arc<Semaphore>,
    pending: PendingRequests,
    outbox: Outbox,
    owner: Option<Caller>,
}

struct Sessions<S> {
    server: S,
    public_path: Arc<Option<PublicPath>>,
    limits: Limits,
    stages: Stages,
    registry: Arc<Registry>,
}

/// The open sessions.
#[derive(Default)]
struct Registry {
    by_id: Mutex<HashMap<Uuid, Session>>,
    totals: Arc<Totals>,
}

async fn open_stream<S: ServerHandler + Clone>(
    State(sessions): State<Arc<Sessions<S>>>,
    caller: Option<Extension<Caller>>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Rejection> {
    let (id, messages) = sessions.start(caller.map(|Extension(caller)| caller))?;
    // Without scheme and host, which a proxy may have changed.
    let prefix = PublicPath::of_request(Option::as_ref(&sessions.public_path), &headers);
    let endpoint = event("endpoint", &format!("{prefix}/messages?sessionId={id}"));
    let events = stream::iter([endpoint]).chain(messages);
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Body::from_stream(events.map(Ok::<_, Infallible>))))
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
    body::require_json(request.headers())?;
    let session = sessions
        .registry
        .find(&id, request.extensions().get())
        .ok_or_else(unknown_session)?;

    let (mut parts, body) = request.into_parts();
    // Before the body is read, so that what waits takes no memory.
    let room = session
        .reserve_room(body.size_hint().upper(), sessions.limits.send_timeout)
        .await?;
    let body = body::read(body, sessions.limits.body_timeout).await?;
    let mut message = body::parse(&body)?;
    // Before the request becomes pending: a session that ends does not answer it.
    let slot = session.inbox.reserve().await;
    let slot = slot.map_err(|_| body::refusal(StatusCode::NOT_FOUND, &body, NO_SESSION))?;
    let duplicate = session.pending.track(&message);
    duplicate.map_err(|id| body::bad_request(incoming::Rejection::duplicate_id(id)))?;
    parts.extensions.insert(TransportKind::Sse);
    parts.extensions.insert(Arc::new(room)); // until the message is handled
    message.insert_extension(parts);
    slot.send(message);
    Ok((StatusCode::ACCEPTED, "Accepted"))
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

const NO_SESSION: &str = "there is no session with this id; open a new one with GET /sse";

fn unknown_session() -> Rejection {
    Rejection::new(StatusCode::NOT_FOUND, NO_SESSION)
}

fn unavailable(text: impl Into<Cow<'static, str>>) -> Rejection {
    Rejection::new(StatusCode::SERVICE_UNAVAILABLE, text).retry_after(RETRY_AFTER_SECONDS)
}

impl Session {
    /// Room for a message of this many bytes, if the client announced them. The room is free again
    /// when the result is dropped.
    async fn reserve_room(
        &self,
        bytes: Option<u64>,
        patience: Duration,
    ) -> Result<OwnedSemaphorePermit, Rejection> {
        let bytes = bytes
            .and_then(|bytes| usize::try_from(bytes).ok())
            .unwrap_or(body::MAX_BODY_BYTES)
            .clamp(MIN_MESSAGE_BYTES, body::MAX_BODY_BYTES);
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let acquire = Arc::clone(&self.room).acquire_many_owned(permits);
        match timeout(patience, acquire).await {
            Ok(Ok(room)) => Ok(room),
            Ok(Err(_)) => Err(unknown_session()),
            Err(_) => Err(unavailable(
                "the session has too many unanswered messages; read its event stream, then retry",
            )),
        }
    }
}

impl<S: ServerHandler + Clone> Sessions<S> {
    /// Starts a session and returns its id and the messages for its client.
    fn start(
        &self,
        owner: Option<Caller>,
    ) -> Result<(Uuid, impl Stream<Item = Bytes> + use<S>), Rejection> {
        let id = Uuid::new_v4();
        let closed = self.stages.abort.child_token();
        let (inbox, incoming) = mpsc::channel(MAX_ACCEPTED_MESSAGES);
        let totals = Arc::clone(&self.registry.totals);
        let session = Session {
            inbox,
            room: Arc::new(Semaphore::new(MAX_ACCEPTED_BYTES)),
            pending: PendingRequests::default(),
            outbox: Outbox::new(totals, closed.clone()),
            owner,
        };
        let transport = SseTransport {
            incoming,
            outbox: session.outbox.clone(),
            pending: session.pending.clone(),
            registry: Arc::clone(&self.registry),
            limits: self.limits,
            stages: self.stages.clone(),
        };
        let messages = session.outbox.clone().into_events();
        self.registry
            .insert(id, session, self.limits.max_sse_sessions)?;
        self.spawn(id, transport, &closed);
        Ok((id, messages))
    }

    /// Runs the handler on `transport` until the session ends.
    fn spawn(&self, id: Uuid, transport: SseTransport, closed: &CancellationToken) {
        // A separate token: rmcp cancels the token it gets when it ends, and its last response may
        // still be on the way then.
        let token = closed.child_token();
        // Without the handshake, because a client that reconnects gets a new session and does not
        // initialize it.
        let running = serve_directly_with_ct(self.server.clone(), transport, None, token);
        let registry = Arc::clone(&self.registry);
        tokio::spawn(async move {
            // Not logged: the error would repeat a panic's message, which may quote a document.
            if running.waiting().await.is_err() {
                warn!("SSE session failed; the client must reconnect");
            }
            registry.remove(&id);
        });
    }
}

impl Registry {
    fn insert(&self, id: Uuid, session: Session, max_sessions: usize) -> Result<(), Rejection> {
        let mut sessions = self.lock();
        if sessions.len() >= max_sessions {
            return Err(unavailable(format!(
                "all {max_sessions} event streams of this server are in use; close one or retry later"
            )));
        }
        sessions.insert(id, session);
        metrics::gauge!("portfolio_sse_sessions").increment(1.0);
        debug!("SSE session opened; {} open", sessions.len());
        Ok(())
    }

    fn remove(&self, id: &Uuid) {
        let mut sessions = self.lock();
        if let Some(session) = sessions.remove(id) {
            session.room.close();
        }
        metrics::gauge!("portfolio_sse_sessions").decrement(1.0);
        debug!("SSE session closed; {} open", sessions.len());
    }

    /// A session, but only for its owner.
    fn find(&self, id: &Uuid, caller: Option<&Caller>) -> Option<Session> {
        let sessions = self.lock();
        let session = sessions
            .get(id)
            .filter(|session| session.owner.as_ref() == caller)?;
        (!session.inbox.is_closed()).then(|| session.clone())
    }

    /// Disconnects the clients that have read nothing for the longest time, until no more than
    /// `max_bytes` wait for all of them.
    fn disconnect_slowest(&self, max_bytes: usize) {
        while self.totals.waiting_bytes() > max_bytes {
            let sessions = self.lock();
            let slowest = sessions
                .values()
                .filter_map(|session| Some((session.outbox.waiting_since()?, &session.outbox)))
                .min_by_key(|(since, _)| *since);
            let Some((_, outbox)) = slowest else {
                return;
            };
            warn!("more than {max_bytes} bytes wait for SSE clients; closing the slowest session");
            outbox.disconnect();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Session>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server's end of a session.
struct SseTransport {
    incoming: mpsc::Receiver<ClientJsonRpcMessage>,
    outbox: Outbox,
    pending: PendingRequests,
    registry: Arc<Registry>,
    limits: Limits,
    stages: Stages,
}

impl SseTransport {
    /// The next message for the handler. After a stop, the last ones, and `None` when all are
    /// answered.
    async fn next_message(&mut self) -> Option<ClientJsonRpcMessage> {
        let patience = self.limits.send_timeout;
        let room = self.outbox.wait_for_room(patience);
        let room = match self.stages.stop.run_until_cancelled(room).await {
            Some(room) => room,
            None => self.outbox.wait_for_reader(patience).await,
        };
        if let Err(Stalled) = room {
            debug!("an SSE client is not reading its stream; closing its session");
            self.outbox.disconnect();
            return None;
        }
        let message = tokio::select! {
            message = self.incoming.recv() => message,
            () = self.stages.stop.cancelled() => {
                self.incoming.close();
                self.incoming.recv().await // what was accepted before the stop, then the end
            }
        };
        match &message {
            Some(message) => self.outbox.begin(message),
            // rmcp would give up calls that run for 5 more seconds.
            None => self.pending.wait_until_empty().await,
        }
        message
    }

    /// Answers all pending requests with an error.
    fn answer_overdue(&self) {
        for id in self.pending.take() {
            let error = incoming::Rejection::new(
                Some(id.clone()),
                ErrorCode::INTERNAL_ERROR,
                STOPPED.to_owned(),
            );
            self.outbox.push_json(&error.into_json(), Some(&id));
        }
        self.outbox.end();
    }
}

impl Transport<RoleServer> for SseTransport {
    /// A disconnected client is not an error, and rmcp would only log it as one.
    type Error = Infallible;

    fn send(
        &mut self,
        message: ServerJsonRpcMessage,
    ) -> impl Future<Output = Result<(), Infallible>> + Send + 'static {
        self.outbox.push(&message);
        self.pending.remove_answered(&message);
        self.registry
            .disconnect_slowest(self.limits.max_waiting_bytes);
        std::future::ready(Ok(()))
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        let overdue = self.stages.overdue.clone();
        if let Some(message) = overdue.run_until_cancelled(self.next_message()).await {
            return message;
        }
        self.answer_overdue();
        None
    }

    async fn close(&mut self) -> Result<(), Infallible> {
        self.incoming.close();
        Ok(())
    }
}

impl Drop for SseTransport {
    fn drop(&mut self) {
        self.outbox.end();
    }
}

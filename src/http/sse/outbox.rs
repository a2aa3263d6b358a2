//! The messages of one session that wait for its client, and how many more its handler may make.
//!
//! A client decides how fast it reads, so what waits for it is limited in bytes, in each session
//! and in all of them.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::body::Bytes;
use futures::{Stream, StreamExt as _, stream};
use rmcp::model::{ClientJsonRpcMessage, JsonRpcMessage, RequestId, ServerJsonRpcMessage};
use serde::Serialize;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::text::escape_line_breaks,
    mcp::pending::{answered_id, cancelled_id},
};

/// How many bytes may wait for a client before its handler gets no more messages. The answers to
/// the messages that the handler has count too, with the size that is expected of them.
const MAX_WAITING_BYTES: usize = 512 * 1024;
/// How large the first answer of a process is expected to be.
const FIRST_EXPECTED_BYTES: usize = 128 * 1024;
const MIN_EXPECTED_BYTES: usize = 4 * 1024;
/// Clients give up on a silent stream, the most impatient ones after 30 seconds.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEP_ALIVE: &[u8] = b":\n\n";

/// What the sessions of a process share.
#[derive(Debug)]
pub(super) struct Totals {
    waiting_bytes: AtomicUsize,
    /// For sessions that have answered nothing yet.
    expected_bytes: AtomicUsize,
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            waiting_bytes: AtomicUsize::new(0),
            expected_bytes: AtomicUsize::new(FIRST_EXPECTED_BYTES),
        }
    }
}

impl Totals {
    /// The bytes that wait for the clients of all sessions.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes.load(Ordering::SeqCst)
    }
}

/// The messages that wait for a client. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Outbox {
    state: Arc<watch::Sender<State>>,
    totals: Arc<Totals>,
    /// Cancelled when the client disconnected or does not read.
    closed: CancellationToken,
}

#[derive(Debug)]
struct State {
    queue: VecDeque<Bytes>,
    /// In the queue, and of the event that is being sent.
    bytes: usize,
    sending_bytes: usize,
    /// The requests that the handler has.
    running: HashSet<RequestId>,
    /// How large the next answer is expected to be, once there was one.
    expected_bytes: Option<usize>,
    /// Since when the client has taken nothing, if something waits for it.
    waiting_since: Option<Instant>,
    /// Nothing more is queued.
    ended: bool,
}

impl State {
    fn has_room(&self, totals: &Totals) -> bool {
        let expected_bytes = self.expected_bytes(totals);
        self.bytes + self.running.len() * expected_bytes < MAX_WAITING_BYTES
    }

    fn expected_bytes(&self, totals: &Totals) -> usize {
        self.expected_bytes
            .unwrap_or_else(|| totals.expected_bytes.load(Ordering::SeqCst))
    }

    fn push(&mut self, event: Bytes) {
        self.waiting_since.get_or_insert_with(Instant::now);
        self.bytes += event.len();
        self.queue.push_back(event);
    }

    /// The next event, and how many bytes of the one before it are sent now.
    fn pop(&mut self) -> (Option<Bytes>, usize) {
        let sent = std::mem::take(&mut self.sending_bytes);
        self.bytes -= sent;
        let event = self.queue.pop_front();
        self.sending_bytes = event.as_ref().map_or(0, Bytes::len);
        self.waiting_since = event.is_some().then(Instant::now);
        (event, sent)
    }

    /// Notes how large an answer is. Large ones count at once, small ones only after some.
    fn finish(&mut self, id: &RequestId, bytes: usize, totals: &Totals) {
        self.running.remove(id);
        let expected = bytes
            .max(self.expected_bytes(totals) / 2)
            .max(MIN_EXPECTED_BYTES);
        self.expected_bytes = Some(expected);
        totals.expected_bytes.store(expected, Ordering::SeqCst);
    }
}

impl Outbox {
    pub(super) fn new(totals: Arc<Totals>, closed: CancellationToken) -> Self {
        Self {
            state: Arc::new(watch::Sender::new(State {
                queue: VecDeque::new(),
                bytes: 0,
                sending_bytes: 0,
                running: HashSet::new(),
                expected_bytes: None,
                waiting_since: None,
                ended: false,
            })),
            totals,
            closed,
        }
    }

    /// Waits until the handler may get another message.
    ///
    /// # Errors
    /// When the client reads nothing for `patience`.
    pub(super) async fn wait_for_room(&self, patience: Duration) -> Result<(), Stalled> {
        self.wait_for(patience, |state| state.has_room(&self.totals))
            .await
    }

    /// Waits until the client has read enough, whatever the handler does: after a stop, calls have
    /// no time to wait for each other.
    ///
    /// # Errors
    /// When the client reads nothing for `patience`.
    pub(super) async fn wait_for_reader(&self, patience: Duration) -> Result<(), Stalled> {
        self.wait_for(patience, |state| state.bytes < MAX_WAITING_BYTES)
            .await
    }

    async fn wait_for(
        &self,
        patience: Duration,
        condition: impl Fn(&State) -> bool,
    ) -> Result<(), Stalled> {
        loop {
            let mut state = self.state.subscribe();
            let fulfilled = timeout(patience, state.wait_for(&condition)).await;
            if let Ok(fulfilled) = fulfilled {
                return fulfilled.map(|_| ()).map_err(|_| Stalled);
            }
            let waiting_since = self.waiting_since();
            if waiting_since.is_some_and(|since| since.elapsed() >= patience) {
                return Err(Stalled);
            }
        }
    }

    /// Notes that the handler gets `message`.
    pub(super) fn begin(&self, message: &ClientJsonRpcMessage) {
        if let JsonRpcMessage::Request(request) = message {
            self.state.send_modify(|state| {
                state.running.insert(request.id.clone());
            });
        } else if let Some(id) = cancelled_id(message) {
            // It gets no answer.
            self.state
                .send_if_modified(|state| state.running.remove(id));
        }
    }

    /// Queues what the handler sends.
    pub(super) fn push(&self, message: &ServerJsonRpcMessage) {
        let answered = answered_id(message);
        self.push_json(message, answered);
    }

    /// Queues JSON, the answer to the request `answered` if it is one. It is lost if the session
    /// has ended.
    pub(super) fn push_json(&self, message: &impl Serialize, answered: Option<&RequestId>) {
        let Ok(json) = serde_json::to_string(message) else {
            return;
        };
        let event = event("message", &escape_line_breaks(json));
        let bytes = event.len();
        self.state.send_modify(|state| {
            if let Some(id) = answered {
                state.finish(id, bytes, &self.totals);
            }
            if !state.ended {
                self.totals.waiting_bytes.fetch_add(bytes, Ordering::SeqCst);
                state.push(event);
            }
        });
    }

    /// Queues nothing more. What is queued is still sent.
    pub(super) fn end(&self) {
        self.state.send_modify(|state| state.ended = true);
    }

    /// Drops what is queued and ends the session: hyper, stuck writing to a client that does not
    /// read, would keep it.
    pub(super) fn disconnect(&self) {
        self.state.send_modify(|state| {
            state.ended = true;
            state.queue = VecDeque::new();
            state.waiting_since = None;
            state.sending_bytes = 0;
            let bytes = std::mem::take(&mut state.bytes);
            self.totals.waiting_bytes.fetch_sub(bytes, Ordering::SeqCst);
        });
        self.closed.cancel();
    }

    /// Since when the client has taken nothing, if something waits for it.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        self.state.borrow().waiting_since
    }

    /// The events for the client, and comments while there are none. Dropping them disconnects it.
    pub(super) fn into_events(self) -> impl Stream<Item = Bytes> {
        let closed = self.closed.clone().cancelled_owned();
        stream::unfold(DisconnectOnDrop(self), async |guard| {
            let event = match timeout(KEEP_ALIVE_INTERVAL, guard.0.pop()).await {
                Ok(event) => event?,
                Err(_) => Bytes::from_static(KEEP_ALIVE),
            };
            Some((event, guard))
        })
        .take_until(closed)
    }

    /// The next event; `None` at the end.
    async fn pop(&self) -> Option<Bytes> {
        let mut changes = self.state.subscribe();
        loop {
            let mut popped = None;
            self.state.send_if_modified(|state| {
                let (event, sent) = state.pop();
                self.totals.waiting_bytes.fetch_sub(sent, Ordering::SeqCst);
                popped = event;
                sent > 0 || popped.is_some()
            });
            if popped.is_some() {
                return popped;
            }
            // Not marked as seen: an event may have been queued meanwhile.
            if self.state.borrow().ended {
                return None;
            }
            changes.changed().await.ok()?;
        }
    }
}

/// An event of a stream. `text` is a single line.
pub(super) fn event(kind: &str, text: &str) -> Bytes {
    format!("event: {kind}\ndata: {text}\n\n").into()
}

/// A client that does not read its stream.
#[derive(Debug)]
pub(super) struct Stalled;

struct DisconnectOnDrop(Outbox);

impl Drop for DisconnectOnDrop {
    fn drop(&mut self) {
        self.0.disconnect();
    }
}

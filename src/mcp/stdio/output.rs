//! What is on its way to the client: requests without a response, and responses that wait until the
//! client reads.

use std::{collections::HashSet, io, time::Duration};

use rmcp::model::RequestId;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::{Mutex, watch},
    time::timeout,
};

use crate::{domain::text::escape_line_breaks, mcp::server::MAX_CONCURRENT_CALLS};

/// How many requests may have no response before the next message is read: as many calls as run at
/// once in a process.
const MAX_PENDING: usize = MAX_CONCURRENT_CALLS;
/// How many bytes may wait for the client to read before the next message is read.
const MAX_WAITING_BYTES: usize = 8 * 1024 * 1024;

/// The client's end of a connection.
pub(super) struct Output<W> {
    writer: Mutex<W>,
    traffic: watch::Sender<Traffic>,
}

#[derive(Default)]
struct Traffic {
    /// The ids of the requests that have no response yet.
    pending: HashSet<RequestId>,
    /// How many bytes wait to be written.
    waiting_bytes: usize,
    /// How many bytes were written since the start.
    written_bytes: u64,
}

impl Traffic {
    fn is_full(&self) -> bool {
        self.pending.len() >= MAX_PENDING || self.waiting_bytes >= MAX_WAITING_BYTES
    }

    fn has_room(&self) -> bool {
        self.pending.len() <= MAX_PENDING * 3 / 4 && self.waiting_bytes < MAX_WAITING_BYTES
    }
}

impl<W: AsyncWrite + Send + Unpin> Output<W> {
    pub(super) fn new(writer: W) -> Self {
        Self {
            writer: Mutex::new(writer),
            traffic: watch::Sender::default(),
        }
    }

    /// Adds a request.
    ///
    /// # Errors
    /// The id, when a request with this id is already pending: nothing would distinguish their
    /// responses.
    pub(super) fn add_pending(&self, id: &RequestId) -> Result<(), RequestId> {
        if self
            .traffic
            .send_if_modified(|traffic| traffic.pending.insert(id.clone()))
        {
            Ok(())
        } else {
            Err(id.clone())
        }
    }

    /// Removes a request that has its response, or gets none.
    pub(super) fn remove_pending(&self, id: &RequestId) {
        self.traffic.send_modify(|traffic| {
            traffic.pending.remove(id);
        });
    }

    /// Writes a message as one line.
    pub(super) async fn write(&self, message: impl serde::Serialize) -> io::Result<()> {
        let mut line = escape_line_breaks(serde_json::to_string(&message)?);
        drop(message); // a tree is several times larger than its text
        line.push('\n');
        let mut waiting = line.as_bytes();
        self.traffic
            .send_modify(|traffic| traffic.waiting_bytes += waiting.len());
        let written = self.write_bytes(&mut waiting).await;
        self.traffic
            .send_modify(|traffic| traffic.waiting_bytes -= waiting.len());
        written
    }

    /// Writes bytes and takes what is written off `waiting`.
    async fn write_bytes(&self, waiting: &mut &[u8]) -> io::Result<()> {
        let mut writer = self.writer.lock().await;
        while !waiting.is_empty() {
            let length = writer.write(waiting).await?;
            if length == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            *waiting = waiting.get(length..).unwrap_or_default();
            self.traffic.send_modify(|traffic| {
                traffic.waiting_bytes -= length;
                traffic.written_bytes += length as u64;
            });
        }
        writer.flush().await
    }

    /// Waits until more messages may be read. Once there are too many requests, for several
    /// responses, because to wait for each one again costs more than a short call.
    pub(super) async fn room(&self) {
        if self.traffic.borrow().is_full() {
            self.until(Traffic::has_room).await;
        }
    }

    /// Waits until every request has its response.
    pub(super) async fn all_answered(&self) {
        self.until(|traffic| traffic.pending.is_empty()).await;
    }

    /// Waits until nothing is written for `patience`.
    pub(super) async fn stuck(&self, patience: Duration) {
        let mut traffic = self.traffic.subscribe();
        loop {
            let written = traffic.borrow().written_bytes;
            let progress = traffic.wait_for(|traffic| traffic.written_bytes != written);
            if timeout(patience, progress).await.is_err() {
                return;
            }
        }
    }

    /// How many requests have no response yet.
    pub(super) fn pending(&self) -> usize {
        self.traffic.borrow().pending.len()
    }

    async fn until(&self, condition: impl FnMut(&Traffic) -> bool) {
        // An error means that the sender is gone, but it is here.
        let _ = self.traffic.subscribe().wait_for(condition).await;
    }
}

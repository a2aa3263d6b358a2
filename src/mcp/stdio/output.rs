//! What is on its way to the client: requests without a response, and responses that wait until the
//! client reads.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::{Mutex, watch},
    time::timeout,
};

use crate::{
    domain::text::escape_line_breaks,
    mcp::{pending::PendingRequests, server::MAX_CONCURRENT_CALLS},
};

/// How many requests may have no response before the next message is read: as many calls as run at
/// once in a process.
const MAX_PENDING: usize = MAX_CONCURRENT_CALLS;
/// How many bytes may wait for the client to read before the next message is read.
const MAX_WAITING_BYTES: usize = 8 * 1024 * 1024;

/// The client's end of a connection.
pub(super) struct Output<W> {
    pub(super) pending: PendingRequests,
    writer: Mutex<W>,
    traffic: watch::Sender<Traffic>,
}

#[derive(Default)]
struct Traffic {
    /// How many bytes wait to be written.
    waiting_bytes: usize,
    /// How many bytes were written since the start.
    written_bytes: u64,
}

impl<W: AsyncWrite + Send + Unpin> Output<W> {
    pub(super) fn new(writer: W) -> Self {
        Self {
            pending: PendingRequests::default(),
            writer: Mutex::new(writer),
            traffic: watch::Sender::default(),
        }
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
        if self.pending.count() >= MAX_PENDING {
            self.pending.wait_until_at_most(MAX_PENDING * 3 / 4).await;
        }
        // An error means that the sender is gone, but it is here.
        let _ = self
            .traffic
            .subscribe()
            .wait_for(|traffic| traffic.waiting_bytes < MAX_WAITING_BYTES)
            .await;
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
}

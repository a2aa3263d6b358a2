//! MCP over standard input and output: one JSON message per line.
//!
//! rmcp has a transport for this too, but that one drops lines it cannot read, loses a last line
//! without an end, and does not wait for running calls at the end of the input.

use std::{io, sync::Arc, time::Duration};

use rmcp::{
    RoleServer,
    model::{ClientJsonRpcMessage, ServerJsonRpcMessage},
    service::{QuitReason, serve_directly_with_ct},
    transport::{Transport, io::stdio_pipes},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    sync::{Mutex, mpsc},
};
use tokio_util::sync::CancellationToken;

use super::{
    MAX_MESSAGE_BYTES,
    incoming::{Incoming, Rejection, classify},
    pending::PendingRequests,
    server::ContentServer,
};
use crate::domain::text::escape_line_breaks;

/// The longest line that is read, its end included.
const MAX_LINE_BYTES: u64 = MAX_MESSAGE_BYTES as u64 + 1;
const READ_BUFFER_BYTES: usize = 64 * 1024;
/// How many messages may wait for rmcp.
const MAX_WAITING_MESSAGES: usize = 64;
/// How long running calls may take after the end of the input: longer than any call's deadline.
const END_OF_INPUT_TIMEOUT: Duration = Duration::from_secs(12);
/// How long running calls may take after a stop: the process must end within 10 seconds.
const STOP_TIMEOUT: Duration = Duration::from_secs(9);

/// Serves the client on this process's standard streams until the input ends, or until `stop` is
/// cancelled and the running calls are answered.
///
/// # Errors
/// When the task that serves it fails.
pub async fn serve(server: ContentServer, stop: CancellationToken) -> io::Result<()> {
    let (input, output) = stdio_pipes();
    serve_on(server, input, output, stop).await
}

/// Serves the client on any two streams.
///
/// # Errors
/// When the task that serves it fails.
pub async fn serve_on(
    server: ContentServer,
    input: impl AsyncRead + Send + Unpin + 'static,
    output: impl AsyncWrite + Send + Unpin + 'static,
    stop: CancellationToken,
) -> io::Result<()> {
    // rmcp does not get `stop`, because it aborts running calls when its token is cancelled.
    let abort = CancellationToken::new();
    let _abort_at_the_end = abort.clone().drop_guard();
    tokio::spawn(abort_after_stop(abort.clone(), stop.clone()));
    let transport = StdioTransport::new(input, output, stop);
    let service = serve_directly_with_ct(server, transport, None, abort.child_token());
    match service.waiting().await {
        Ok(QuitReason::JoinError(error)) | Err(error) => Err(io::Error::other(error)),
        Ok(_) => Ok(()),
    }
}

async fn abort_after_stop(abort: CancellationToken, stop: CancellationToken) {
    let timeout_after_stop = async {
        stop.cancelled().await;
        tokio::time::sleep(STOP_TIMEOUT).await;
    };
    abort.run_until_cancelled(timeout_after_stop).await;
    abort.cancel();
}

struct StdioTransport<W> {
    messages: mpsc::Receiver<ClientJsonRpcMessage>,
    output: Arc<Mutex<W>>,
    pending: PendingRequests,
    stop: CancellationToken,
}

impl<W: AsyncWrite + Send + Unpin + 'static> StdioTransport<W> {
    fn new(
        input: impl AsyncRead + Send + Unpin + 'static,
        output: W,
        stop: CancellationToken,
    ) -> Self {
        let (output, pending) = (Arc::new(Mutex::new(output)), PendingRequests::default());
        let (sender, messages) = mpsc::channel(MAX_WAITING_MESSAGES);
        tokio::spawn(read_messages(
            input,
            Arc::clone(&output),
            pending.clone(),
            sender,
        ));
        Self {
            messages,
            output,
            pending,
            stop,
        }
    }
}

impl<W: AsyncWrite + Send + Unpin + 'static> Transport<RoleServer> for StdioTransport<W> {
    type Error = io::Error;

    fn send(
        &mut self,
        message: ServerJsonRpcMessage,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let (output, pending) = (Arc::clone(&self.output), self.pending.clone());
        async move {
            let written = write_line(&output, &message).await;
            pending.remove_answered(&message);
            written
        }
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        let message = tokio::select! {
            message = self.messages.recv() => message,
            () = self.stop.cancelled() => {
                self.messages.close();
                self.messages.recv().await // what was read before the stop, then the end
            }
        };
        if message.is_none() {
            let all_answered = self.pending.wait_until_empty();
            let _ = tokio::time::timeout(END_OF_INPUT_TIMEOUT, all_answered).await;
        }
        message
    }

    async fn close(&mut self) -> io::Result<()> {
        self.messages.close();
        self.output.lock().await.flush().await
    }
}

/// Passes on messages until the input ends, and answers lines that are none.
async fn read_messages<W: AsyncWrite + Send + Unpin>(
    input: impl AsyncRead + Send + Unpin,
    output: Arc<Mutex<W>>,
    pending: PendingRequests,
    messages: mpsc::Sender<ClientJsonRpcMessage>,
) {
    let mut input = BufReader::with_capacity(READ_BUFFER_BYTES, input);
    let mut line = Vec::new();
    while let Ok(Some(incoming)) = read_line(&mut input, &mut line).await {
        let rejection = match incoming {
            Incoming::Blank => continue,
            Incoming::Invalid(rejection) => rejection,
            Incoming::Message(message) => {
                // Before the request becomes pending: after a stop it gets no response.
                let Ok(slot) = messages.reserve().await else {
                    return;
                };
                match pending.track(&message) {
                    Ok(()) => {
                        slot.send(*message);
                        continue;
                    }
                    Err(id) => Rejection::duplicate_id(id),
                }
            }
        };
        if write_line(&output, &rejection.into_json()).await.is_err() {
            return;
        }
    }
}

/// Reads a line into `line`, which is reused; `None` at the end of the input.
async fn read_line(
    input: &mut (impl AsyncBufReadExt + Unpin),
    line: &mut Vec<u8>,
) -> io::Result<Option<Incoming>> {
    line.clear();
    if (&mut *input)
        .take(MAX_LINE_BYTES)
        .read_until(b'\n', line)
        .await?
        == 0
    {
        return Ok(None);
    }
    if line.len() as u64 == MAX_LINE_BYTES && !line.ends_with(b"\n") {
        skip_line(input).await?;
        let rejection = Rejection::too_long(line, MAX_MESSAGE_BYTES);
        return Ok(Some(Incoming::Invalid(rejection)));
    }
    Ok(Some(classify(line)))
}

/// Skips the rest of a line.
async fn skip_line(input: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<()> {
    loop {
        let available = input.fill_buf().await?;
        if available.is_empty() {
            return Ok(());
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let length = end.map_or(available.len(), |end| end + 1);
        input.consume(length);
        if end.is_some() {
            return Ok(());
        }
    }
}

async fn write_line<W: AsyncWrite + Send + Unpin>(
    output: &Mutex<W>,
    message: &impl serde::Serialize,
) -> io::Result<()> {
    let mut line = escape_line_breaks(serde_json::to_string(message)?);
    line.push('\n');
    let mut output = output.lock().await;
    output.write_all(line.as_bytes()).await?;
    output.flush().await
}

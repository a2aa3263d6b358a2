//! MCP over standard input and output: one JSON message a line.
//!
//! Its own transport, because rmcp's drops what it cannot read in silence: here a line that is not JSON is answered,
//! the last line may lack its end, and the end of input waits for the answers that are still due.

use std::{collections::HashSet, io, sync::Arc, time::Duration};

use rmcp::{
    ErrorData, RoleServer,
    model::{ClientJsonRpcMessage, ClientNotification, ErrorCode, JsonRpcMessage, RequestId, ServerJsonRpcMessage},
    service::{QuitReason, serve_directly_with_ct},
    transport::{Transport, io::stdio_pipes},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    sync::{Mutex, mpsc, watch},
};
use tokio_util::sync::CancellationToken;

use super::ContentServer;

/// Longest line that is read, in bytes; the largest document in a call is far below.
const LONGEST_LINE: u64 = 4 * 1024 * 1024;
/// How long the end of input waits for answers: longer than a call may take.
const LAST_ANSWERS: Duration = Duration::from_secs(12);

/// Serves the client at the other end of this process's standard streams until it ends, or until `stop`.
///
/// # Errors
/// When the task that serves it fails.
pub async fn serve(server: ContentServer, stop: CancellationToken) -> io::Result<()> {
    let (input, output) = stdio_pipes();
    serve_on(server, input, output, stop).await
}

/// Serves the client at the other end of any two streams.
///
/// # Errors
/// When the task that serves it fails.
pub async fn serve_on(
    server: ContentServer,
    input: impl AsyncRead + Send + Unpin + 'static,
    output: impl AsyncWrite + Send + Unpin + 'static,
    stop: CancellationToken,
) -> io::Result<()> {
    let quit = serve_directly_with_ct(server, Lines::new(input, output), None, stop).waiting().await;
    match quit {
        Ok(QuitReason::JoinError(error)) | Err(error) => Err(io::Error::other(error)),
        Ok(_) => Ok(()),
    }
}

/// Messages as lines.
struct Lines<W> {
    messages: mpsc::Receiver<ClientJsonRpcMessage>,
    output: Arc<Mutex<W>>,
    due: Arc<watch::Sender<HashSet<RequestId>>>,
}

impl<W: AsyncWrite + Send + Unpin + 'static> Lines<W> {
    fn new(input: impl AsyncRead + Send + Unpin + 'static, output: W) -> Self {
        let output = Arc::new(Mutex::new(output));
        let (sender, messages) = mpsc::channel(64);
        tokio::spawn(read(input, Arc::clone(&output), sender));
        Self { messages, output, due: Arc::new(watch::Sender::default()) }
    }
}

impl<W: AsyncWrite + Send + Unpin + 'static> Transport<RoleServer> for Lines<W> {
    type Error = io::Error;

    fn send(&mut self, message: ServerJsonRpcMessage) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let (output, due) = (Arc::clone(&self.output), Arc::clone(&self.due));
        async move {
            let written = write(&output, &message).await;
            let id = match message {
                JsonRpcMessage::Response(response) => Some(response.id),
                JsonRpcMessage::Error(error) => error.id,
                JsonRpcMessage::Request(_) | JsonRpcMessage::Notification(_) => None,
            };
            if let Some(id) = id {
                due.send_modify(|due| {
                    due.remove(&id);
                });
            }
            written
        }
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        let Some(message) = self.messages.recv().await else {
            let _ = tokio::time::timeout(LAST_ANSWERS, self.due.subscribe().wait_for(HashSet::is_empty)).await;
            return None;
        };
        match &message {
            JsonRpcMessage::Request(request) => self.due.send_modify(|due| {
                due.insert(request.id.clone());
            }),
            // A cancelled request is not answered.
            JsonRpcMessage::Notification(notification) => {
                if let ClientNotification::CancelledNotification(cancelled) = &notification.notification
                    && let Some(id) = &cancelled.params.request_id
                {
                    self.due.send_modify(|due| {
                        due.remove(id);
                    });
                }
            }
            JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => {}
        }
        Some(message)
    }

    async fn close(&mut self) -> io::Result<()> {
        self.messages.close();
        self.output.lock().await.flush().await
    }
}

/// Reads lines until the input ends, and answers those that are no messages.
async fn read<W: AsyncWrite + Send + Unpin>(
    input: impl AsyncRead + Send + Unpin,
    output: Arc<Mutex<W>>,
    messages: mpsc::Sender<ClientJsonRpcMessage>,
) {
    let mut input = BufReader::with_capacity(64 * 1024, input);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut input).take(LONGEST_LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let complete = line.ends_with(b"\n");
        let content = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line).trim_ascii();
        if content.is_empty() {
            continue;
        }
        let problem = if !complete && line.len() as u64 == LONGEST_LINE {
            if skip_line(&mut input).await.is_err() {
                return;
            }
            ErrorData::new(ErrorCode::INVALID_REQUEST, format!("the line is longer than {LONGEST_LINE} bytes and was not read"), None)
        } else {
            match serde_json::from_slice::<ClientJsonRpcMessage>(content) {
                Ok(message) => match messages.send(message).await {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                Err(_) if serde_json::from_slice::<serde::de::IgnoredAny>(content).is_ok() => {
                    ErrorData::new(ErrorCode::INVALID_REQUEST, "the line is JSON, but no JSON-RPC 2.0 message", None)
                }
                Err(error) => ErrorData::new(ErrorCode::PARSE_ERROR, format!("the line is not JSON: {error}"), None),
            }
        };
        let answer = serde_json::json!({ "jsonrpc": "2.0", "id": null, "error": problem });
        if write(&output, &answer).await.is_err() {
            return;
        }
    }
}

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

async fn write<W: AsyncWrite + Send + Unpin>(output: &Mutex<W>, message: &impl serde::Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    let mut output = output.lock().await;
    output.write_all(&line).await?;
    output.flush().await
}

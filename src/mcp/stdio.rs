//! MCP over standard input and output: one JSON message a line.
//!
//! Its own transport, because rmcp's drops what it cannot read in silence: here a line that is not JSON is answered,
//! the last line may lack its end, and the end of input waits for the answers that are still due.

use std::{collections::HashSet, io, sync::Arc, time::Duration};

use rmcp::{
    ErrorData, RoleServer,
    model::{
        ClientJsonRpcMessage, ClientNotification, ErrorCode, JsonRpcMessage, RequestId,
        ServerJsonRpcMessage,
    },
    service::{QuitReason, serve_directly_with_ct},
    transport::{Transport, io::stdio_pipes},
};
use serde::{Deserialize, de::IgnoredAny};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    sync::{Mutex, mpsc, watch},
};
use tokio_util::sync::CancellationToken;

use super::{ContentServer, MAX_MESSAGE_BYTES};
use crate::domain::check_depth;
use crate::domain::text::escape_line_breaks;

/// Longest line that is read, in bytes, its end included.
const LONGEST_LINE: u64 = MAX_MESSAGE_BYTES as u64 + 1;
/// How long the end of input waits for answers: longer than a call may take.
const LAST_ANSWERS: Duration = Duration::from_secs(12);
/// How long a stop waits for them: the process has to be gone within 10 seconds.
const GRACE: Duration = Duration::from_secs(9);

/// Serves the client at the other end of this process's standard streams until it ends, or until `stop` and the answers to what
/// is under way.
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
    // rmcp does not get `stop`, because it gives up what is under way when its token is cancelled.
    let abort = CancellationToken::new();
    let (_ended, aborting, stopped) = (abort.clone().drop_guard(), abort.clone(), stop.clone());
    tokio::spawn(async move {
        let grace_over = async {
            stopped.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        aborting.run_until_cancelled(grace_over).await;
        aborting.cancel();
    });
    let quit = serve_directly_with_ct(
        server,
        Lines::new(input, output, stop),
        None,
        abort.child_token(),
    )
    .waiting()
    .await;
    match quit {
        Ok(QuitReason::JoinError(error)) | Err(error) => Err(io::Error::other(error)),
        Ok(_) => Ok(()),
    }
}

/// The requests whose answers are due.
type Due = Arc<watch::Sender<HashSet<RequestId>>>;

/// Messages as lines.
struct Lines<W> {
    messages: mpsc::Receiver<ClientJsonRpcMessage>,
    output: Arc<Mutex<W>>,
    due: Due,
    stop: CancellationToken,
}

impl<W: AsyncWrite + Send + Unpin + 'static> Lines<W> {
    fn new(
        input: impl AsyncRead + Send + Unpin + 'static,
        output: W,
        stop: CancellationToken,
    ) -> Self {
        let (output, due) = (Arc::new(Mutex::new(output)), Due::default());
        let (sender, messages) = mpsc::channel(64);
        tokio::spawn(read(input, Arc::clone(&output), Arc::clone(&due), sender));
        Self {
            messages,
            output,
            due,
            stop,
        }
    }
}

impl<W: AsyncWrite + Send + Unpin + 'static> Transport<RoleServer> for Lines<W> {
    type Error = io::Error;

    fn send(
        &mut self,
        message: ServerJsonRpcMessage,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
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
        let message = tokio::select! {
            message = self.messages.recv() => message,
            () = self.stop.cancelled() => {
                self.messages.close();
                self.messages.recv().await // what was read before the stop, then the end
            }
        };
        if message.is_none() {
            let _ = tokio::time::timeout(
                LAST_ANSWERS,
                self.due.subscribe().wait_for(HashSet::is_empty),
            )
            .await;
        }
        message
    }

    async fn close(&mut self) -> io::Result<()> {
        self.messages.close();
        self.output.lock().await.flush().await
    }
}

/// Reads lines until the input ends, and answers those that cannot be served.
async fn read<W: AsyncWrite + Send + Unpin>(
    input: impl AsyncRead + Send + Unpin,
    output: Arc<Mutex<W>>,
    due: Due,
    messages: mpsc::Sender<ClientJsonRpcMessage>,
) {
    let mut input = BufReader::with_capacity(64 * 1024, input);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut input)
            .take(LONGEST_LINE)
            .read_until(b'\n', &mut line)
            .await
        {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if line.len() as u64 == LONGEST_LINE && !line.ends_with(b"\n") {
            if skip_line(&mut input).await.is_err() {
                return;
            }
            let problem = format!(
                "the message is longer than {MAX_MESSAGE_BYTES} bytes and was not read; send less in one message"
            );
            if refuse(
                &output,
                beginning_id(&line),
                ErrorCode::INVALID_REQUEST,
                problem,
            )
            .await
            .is_err()
            {
                return;
            }
            continue;
        }
        let content = line
            .strip_prefix(b"\xef\xbb\xbf")
            .unwrap_or(&line)
            .trim_ascii();
        if content.is_empty() {
            continue;
        }
        if let Err(too_deep) = check_depth(content) {
            let problem = format!("the message was not read: {too_deep}");
            // Reading the id alone is not recursive.
            let id = serde_json::from_slice::<Envelope>(content)
                .ok()
                .and_then(|envelope| envelope.id);
            if refuse(&output, id, ErrorCode::INVALID_REQUEST, problem)
                .await
                .is_err()
            {
                return;
            }
            continue;
        }
        let refused = match serde_json::from_slice::<ClientJsonRpcMessage>(content) {
            Ok(message) => {
                // Before the answer is expected: to what comes after a stop there is none.
                let Ok(room) = messages.reserve().await else {
                    return;
                };
                match expect_answer(&due, &message) {
                    Ok(()) => {
                        room.send(message);
                        continue;
                    }
                    Err(id) => {
                        refuse(
                            &output,
                            Some(id),
                            ErrorCode::INVALID_REQUEST,
                            "another request with this id is under way; use a new id".to_owned(),
                        )
                        .await
                    }
                }
            }
            Err(error) => match parsed::<Envelope>(content) {
                Some(envelope) => {
                    let problem = format!(
                        "the line is JSON, but no JSON-RPC 2.0 message that can be read: {error}"
                    );
                    refuse(&output, envelope.id, ErrorCode::INVALID_REQUEST, problem).await
                }
                None if parsed::<IgnoredAny>(content).is_some() => {
                    refuse(
                        &output,
                        None,
                        ErrorCode::INVALID_REQUEST,
                        "the line is JSON, but no JSON-RPC 2.0 message".to_owned(),
                    )
                    .await
                }
                None => {
                    refuse(
                        &output,
                        None,
                        ErrorCode::PARSE_ERROR,
                        format!("the line is not JSON: {error}"),
                    )
                    .await
                }
            },
        };
        if refused.is_err() {
            return;
        }
    }
}

/// Reads JSON. A text is made first, because bytes that are skipped are not checked to be UTF-8.
fn parsed<'a, T: Deserialize<'a>>(content: &'a [u8]) -> Option<T> {
    serde_json::from_str(std::str::from_utf8(content).ok()?).ok()
}

/// As much of a message as an answer needs.
#[derive(Deserialize)]
struct Envelope {
    id: Option<RequestId>,
}

/// The id of a message of which only the beginning was read, if it is there.
fn beginning_id(line: &[u8]) -> Option<RequestId> {
    let beginning = line.get(..1024).unwrap_or(line);
    let place = beginning.windows(5).position(|bytes| bytes == b"\"id\":")?;
    serde_json::Deserializer::from_slice(beginning.get(place + 5..)?)
        .into_iter()
        .next()?
        .ok()
}

/// Notes whose answer is due, and whose is not any more because it was cancelled.
///
/// # Errors
/// The id, when a request with it is under way: there would be one answer for two.
fn expect_answer(due: &Due, message: &ClientJsonRpcMessage) -> Result<(), RequestId> {
    match message {
        JsonRpcMessage::Request(request) => {
            if due.send_if_modified(|due| due.insert(request.id.clone())) {
                Ok(())
            } else {
                Err(request.id.clone())
            }
        }
        JsonRpcMessage::Notification(notification) => {
            if let ClientNotification::CancelledNotification(cancelled) = &notification.notification
                && let Some(id) = &cancelled.params.request_id
            {
                due.send_modify(|due| {
                    due.remove(id);
                });
            }
            Ok(())
        }
        JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => Ok(()),
    }
}

async fn refuse<W: AsyncWrite + Send + Unpin>(
    output: &Mutex<W>,
    id: Option<RequestId>,
    code: ErrorCode,
    problem: String,
) -> io::Result<()> {
    let error = ErrorData::new(code, problem, None);
    write(
        output,
        &serde_json::json!({ "jsonrpc": "2.0", "id": id, "error": error }),
    )
    .await
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

async fn write<W: AsyncWrite + Send + Unpin>(
    output: &Mutex<W>,
    message: &impl serde::Serialize,
) -> io::Result<()> {
    let mut line = escape_line_breaks(serde_json::to_string(message)?);
    line.push('\n');
    let mut output = output.lock().await;
    output.write_all(line.as_bytes()).await?;
    output.flush().await
}

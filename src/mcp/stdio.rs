//! MCP over standard input and output: one JSON message per line.
//!
//! rmcp has a transport for this too, but that one drops lines it cannot read, loses a last line
//! without an end, and does not wait for running calls at the end of the input.

use std::{io, pin::pin, sync::Arc, time::Duration};

use rmcp::{
    RoleServer,
    model::{ClientJsonRpcMessage, ServerJsonRpcMessage},
    service::{QuitReason, serve_directly_with_ct},
    transport::{Transport, io::stdio_pipes},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, BufReader},
    sync::mpsc,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::warn;

mod hangup;
mod output;

use super::{
    MAX_MESSAGE_BYTES,
    incoming::{Incoming, Rejection, classify},
    pending::answered_id,
    server::ContentServer,
};
use hangup::stdin_hangup;
use output::Output;

/// The longest line that is read, its end included.
const MAX_LINE_BYTES: u64 = MAX_MESSAGE_BYTES as u64 + 1;
const READ_BUFFER_BYTES: usize = 64 * 1024;
/// How many messages may wait for rmcp.
const MAX_WAITING_MESSAGES: usize = 64;
/// How long the client may read nothing, or calls may run, after the end of the input: longer than
/// any call's deadline.
const END_OF_INPUT_TIMEOUT: Duration = Duration::from_secs(12);
/// How long running calls may take after a stop: the process must end within 10 seconds.
const STOP_TIMEOUT: Duration = Duration::from_secs(9);

/// Serves the client on this process's standard streams until the input ends, or until `stop` is
/// cancelled and the running calls are answered. A client that does not read the answers delays
/// the end only for a time.
///
/// # Errors
/// When the task that serves it fails.
pub async fn serve(server: ContentServer, stop: CancellationToken) -> io::Result<()> {
    let (input, output) = stdio_pipes();
    serve_streams(server, input, output, stdin_hangup, stop).await
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
    serve_streams(server, input, output, std::future::pending, stop).await
}

/// Serves the client on two streams; `hangup` resolves when the client has closed the input.
async fn serve_streams<H: Future<Output = ()> + Send + 'static>(
    server: ContentServer,
    input: impl AsyncRead + Send + Unpin + 'static,
    output: impl AsyncWrite + Send + Unpin + 'static,
    hangup: impl Fn() -> H + Send + Sync + 'static,
    stop: CancellationToken,
) -> io::Result<()> {
    let output = Arc::new(Output::new(output));
    let input_ended = CancellationToken::new();
    let (sender, messages) = mpsc::channel(MAX_WAITING_MESSAGES);
    let reader = Reader {
        output: Arc::clone(&output),
        input_ended: input_ended.clone(),
        hangup,
    };
    let transport = StdioTransport {
        messages,
        output: Arc::clone(&output),
        stop: stop.clone(),
        _reader: AbortOnDropHandle::new(tokio::spawn(reader.run(input, sender))),
    };
    // rmcp does not get `stop`, because it aborts running calls when its token is cancelled. It
    // does so when this returns, too, because it cancels its token when it is dropped.
    let service = serve_directly_with_ct(server, transport, None, CancellationToken::new());
    let stuck_after_end = async {
        input_ended.cancelled().await;
        output.stuck(END_OF_INPUT_TIMEOUT).await;
    };
    let timeout_after_stop = async {
        stop.cancelled().await;
        tokio::time::sleep(STOP_TIMEOUT).await;
    };
    tokio::select! {
        ended = service.waiting() => {
            return match ended {
                Ok(QuitReason::JoinError(error)) | Err(error) => Err(io::Error::other(error)),
                Ok(_) => Ok(()),
            };
        }
        () = stuck_after_end => {}
        () = timeout_after_stop => {}
    }
    warn!(
        "ended before everything was answered: a call took too long, or the client did not read \
         (requests without a response: {})",
        output.pending.count()
    );
    Ok(())
}

struct StdioTransport<W> {
    messages: mpsc::Receiver<ClientJsonRpcMessage>,
    output: Arc<Output<W>>,
    stop: CancellationToken,
    _reader: AbortOnDropHandle<()>,
}

impl<W: AsyncWrite + Send + Unpin + 'static> Transport<RoleServer> for StdioTransport<W> {
    type Error = io::Error;

    fn send(
        &mut self,
        message: ServerJsonRpcMessage,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let output = Arc::clone(&self.output);
        async move {
            let id = answered_id(&message).cloned();
            let written = output.write(message).await;
            if let Some(id) = id {
                output.pending.remove(&id);
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
            self.output.pending.wait_until_empty().await;
        }
        message
    }

    /// Each message was flushed when it was written, and one that is still being written may never
    /// end.
    async fn close(&mut self) -> io::Result<()> {
        self.messages.close();
        Ok(())
    }
}

/// Reads messages no faster than the client reads the answers.
struct Reader<W, F> {
    output: Arc<Output<W>>,
    /// Cancelled when the client has sent everything.
    input_ended: CancellationToken,
    hangup: F,
}

impl<W, F, H> Reader<W, F>
where
    W: AsyncWrite + Send + Unpin,
    F: Fn() -> H,
    H: Future<Output = ()>,
{
    async fn run(
        self,
        input: impl AsyncRead + Send + Unpin,
        messages: mpsc::Sender<ClientJsonRpcMessage>,
    ) {
        self.read_messages(input, messages).await;
        self.input_ended.cancel();
    }

    /// Passes on messages until the input ends, and answers lines that are none.
    async fn read_messages(
        &self,
        input: impl AsyncRead + Send + Unpin,
        messages: mpsc::Sender<ClientJsonRpcMessage>,
    ) {
        let mut input = BufReader::with_capacity(READ_BUFFER_BYTES, input);
        let mut line = Vec::new();
        loop {
            self.notice_hangup(self.output.room()).await;
            let Ok(Some(incoming)) = read_line(&mut input, &mut line).await else {
                return;
            };
            let rejection = match incoming {
                Incoming::Blank | Incoming::InvalidNotification(_) => continue,
                Incoming::Invalid(rejection) => rejection,
                Incoming::Message(message) => {
                    // Before the request becomes pending: after a stop it gets no response.
                    let Ok(slot) = messages.reserve().await else {
                        return;
                    };
                    match self.output.pending.track(&message) {
                        Ok(()) => {
                            slot.send(*message);
                            continue;
                        }
                        Err(id) => Rejection::duplicate_id(id),
                    }
                }
            };
            let written = self.output.write(rejection.into_json());
            if self.notice_hangup(written).await.is_err() {
                return;
            }
        }
    }

    /// Waits for a client that has to read first. Nothing is read meanwhile, so the end of the
    /// input is noticed in another way.
    async fn notice_hangup<T>(&self, waiting: impl Future<Output = T>) -> T {
        let mut waiting = pin!(waiting);
        tokio::select! {
            biased; // mostly there is nothing to wait for
            done = &mut waiting => return done,
            () = (self.hangup)() => self.input_ended.cancel(),
        }
        waiting.await
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

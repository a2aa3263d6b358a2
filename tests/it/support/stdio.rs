//! A client of the stdio transport: JSON-RPC, one message a line, to a process or over a pipe.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ChildStderr, ChildStdin, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use portfolio_mcp::mcp::{ContentServer, stdio};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, DuplexStream, WriteHalf},
    sync::{Notify, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    messages::{self, tool_output},
    process::{Lines, signal},
    wait::{WAIT_TIMEOUT, wait_until, wait_until_async},
};

/// The server ended, or was killed, before it answered.
#[derive(Debug, PartialEq)]
pub(crate) struct ServerEnded;

/// A client and its server. Calls may overlap. A server process is killed when this is dropped.
pub(crate) struct StdioClient {
    input: tokio::sync::Mutex<Input>,
    answers: Arc<Answers>,
    next_id: AtomicU64,
    process: Option<Process>,
}

/// Where messages to the server go.
enum Input {
    Process(ChildStdin),
    Pipe(WriteHalf<DuplexStream>),
    Closed,
}

struct Process {
    child: Mutex<Child>,
    stderr: Lines,
    _home: TempDir,
}

impl StdioClient {
    /// A client of the server process that `command` starts. `home` is deleted after the process.
    /// The handshake is left to [`Self::initialize`].
    pub(crate) fn spawn(home: TempDir, command: Command) -> Self {
        let (mut client, stderr) = Self::spawn_unread(home, command);
        client.read_stderr(stderr);
        client
    }

    /// The same, but nobody reads the server's standard error.
    pub(crate) fn spawn_unread(home: TempDir, mut command: Command) -> (Self, ChildStderr) {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = Arc::new(Answers::default());
        let stdout = child.stdout.take().unwrap();
        thread::spawn({
            let answers = Arc::clone(&answers);
            move || answers.read(stdout)
        });
        let stderr = child.stderr.take().unwrap();
        let client = Self {
            input: tokio::sync::Mutex::new(Input::Process(child.stdin.take().unwrap())),
            answers,
            next_id: AtomicU64::new(1),
            process: Some(Process {
                stderr: Lines::default(),
                child: Mutex::new(child),
                _home: home,
            }),
        };
        (client, stderr)
    }

    /// Begins to read the server's standard error.
    pub(crate) fn read_stderr(&mut self, stderr: ChildStderr) {
        if let Some(process) = &mut self.process {
            process.stderr = Lines::collect(stderr);
        }
    }

    /// A client of a server in this process, which others may use too.
    pub(crate) fn of(server: ContentServer) -> Self {
        let (client_end, server_end) = tokio::io::duplex(1 << 20);
        let (input, output) = tokio::io::split(server_end);
        let stop = CancellationToken::new();
        tokio::spawn(stdio::serve_on(server, input, output, stop));
        Self::over(client_end)
    }

    /// A client of a server in this process that reads and writes the other end of `pipe`.
    pub(crate) fn over(pipe: DuplexStream) -> Self {
        let (output, input) = tokio::io::split(pipe);
        let answers = Arc::new(Answers::default());
        tokio::spawn({
            let answers = Arc::clone(&answers);
            async move {
                let mut lines = tokio::io::BufReader::new(output).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    answers.deliver(line);
                }
                answers.end();
            }
        });
        Self {
            input: tokio::sync::Mutex::new(Input::Pipe(input)),
            answers,
            next_id: AtomicU64::new(1),
            process: None,
        }
    }

    /// The handshake, as client `name/version`.
    pub(crate) async fn initialize(&self, name: &str, version: &str) {
        let hello = messages::client_hello("2025-11-25", name, version);
        self.result("initialize", hello).await;
        let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        self.send(&initialized.to_string()).await;
    }

    /// Calls a tool and gives its output: `{ "success": …, … }`.
    pub(crate) async fn call(&self, tool: &str, arguments: Value) -> Value {
        let output = self.try_call(tool, arguments).await;
        output.unwrap_or_else(|ServerEnded| {
            panic!(
                "the server ended during {tool}; standard error:\n{}",
                self.stderr()
            )
        })
    }

    /// Calls a tool of a server that may be killed meanwhile.
    pub(crate) async fn try_call(
        &self,
        tool: &str,
        arguments: Value,
    ) -> Result<Value, ServerEnded> {
        let params = json!({ "name": tool, "arguments": arguments });
        let result = self
            .request("tools/call", params)
            .await?
            .unwrap_or_else(|error| panic!("{tool} got a JSON-RPC error: {error}"));
        Ok(tool_output(&result))
    }

    /// Calls a tool that must fail, and gives the error.
    pub(crate) async fn call_error(&self, tool: &str, arguments: Value) -> Value {
        let output = self.call(tool, arguments).await;
        assert_eq!(output["success"], json!(false), "{output}");
        output["error"].clone()
    }

    /// Calls a tool until `done` accepts its output.
    pub(crate) async fn call_until(
        &self,
        tool: &str,
        arguments: Value,
        done: impl Fn(&Value) -> bool,
    ) -> Value {
        wait_until_async(&format!("{tool} gives the expected output"), async || {
            Some(self.call(tool, arguments.clone()).await).filter(&done)
        })
        .await
    }

    /// The `result` of a request, or its `error` as `Err`.
    pub(crate) async fn request(
        &self,
        method: &str,
        params: Value,
    ) -> Result<Result<Value, Value>, ServerEnded> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let answer = self.answers.expect(id)?;
        let message = messages::request(id, method, &params);
        self.send(&message.to_string()).await;
        let Ok(answer) = timeout(WAIT_TIMEOUT, answer).await else {
            panic!(
                "no answer to {method} in {WAIT_TIMEOUT:?}; standard error:\n{}",
                self.stderr()
            );
        };
        let mut answer = answer.map_err(|_| ServerEnded)?;
        Ok(match answer.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => Err(answer["error"].take()),
        })
    }

    /// The `result` of a request that must succeed.
    pub(crate) async fn result(&self, method: &str, params: Value) -> Value {
        match self.request(method, params).await {
            Ok(Ok(result)) => result,
            problem => panic!("{method}: {problem:?}\n{}", self.stderr()),
        }
    }

    /// The `error` of a request that must fail.
    pub(crate) async fn error(&self, method: &str, params: Value) -> Value {
        match self.request(method, params).await {
            Ok(Err(error)) => error,
            problem => panic!("{method} does not fail: {problem:?}\n{}", self.stderr()),
        }
    }

    /// Sends a line as it is and gives the next message that answers none of [`Self::request`].
    pub(crate) async fn exchange(&self, line: &str) -> Value {
        self.send(line).await;
        self.next_unexpected().await
    }

    /// Sends a line as it is. A server that has ended does not read it.
    pub(crate) async fn send(&self, line: &str) {
        // One write for each message: a kill must not leave half of one before the next.
        let line = format!("{line}\n");
        match &mut *self.input.lock().await {
            Input::Process(stdin) => {
                let _ = stdin.write_all(line.as_bytes());
                let _ = stdin.flush();
            }
            Input::Pipe(pipe) => {
                let _ = pipe.write_all(line.as_bytes()).await;
            }
            Input::Closed => panic!("the input is closed"),
        }
    }

    /// Takes the oldest of [`Self::unexpected`], or waits for it.
    pub(crate) async fn next_unexpected(&self) -> Value {
        let next = async {
            loop {
                if let Some(line) = self.answers.unexpected.lock().unwrap().pop_front() {
                    return line;
                }
                self.answers.arrived.notified().await;
            }
        };
        let line = timeout(WAIT_TIMEOUT, next)
            .await
            .expect("there is a message");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}"))
    }

    /// What came on standard output and answers none of [`Self::request`].
    pub(crate) fn unexpected(&self) -> Vec<String> {
        self.answers
            .unexpected
            .lock()
            .unwrap()
            .iter()
            .cloned()
            .collect()
    }

    /// What the server process has written to standard error so far.
    pub(crate) fn stderr(&self) -> String {
        self.process
            .as_ref()
            .map(|process| process.stderr.text())
            .unwrap_or_default()
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.process().child.lock().unwrap().id()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.process_id(), name);
    }

    /// Kills the server at once.
    pub(crate) fn kill9(&self) {
        let mut child = self.process().child.lock().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Closes the server's input and waits for its end.
    pub(crate) fn finish(mut self) -> ExitStatus {
        *self.input.get_mut() = Input::Closed;
        self.wait()
    }

    /// Waits for the server to end.
    pub(crate) fn wait(&self) -> ExitStatus {
        wait_until("the server ends", || {
            self.process().child.lock().unwrap().try_wait().unwrap()
        })
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("the server is a process")
    }
}

impl Drop for StdioClient {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill9();
        }
    }
}

impl fmt::Debug for StdioClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("StdioClient")
            .finish_non_exhaustive()
    }
}

/// What the server sends.
struct Answers {
    /// The requests that wait for an answer; `None` when the server has ended.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Value>>>>,
    unexpected: Mutex<VecDeque<String>>,
    arrived: Notify,
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            waiting: Mutex::new(Some(HashMap::new())),
            unexpected: Mutex::default(),
            arrived: Notify::new(),
        }
    }
}

impl Answers {
    /// The answer to the request with this id, which must not have been sent yet.
    fn expect(&self, id: u64) -> Result<oneshot::Receiver<Value>, ServerEnded> {
        let (sender, answer) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap();
        waiting.as_mut().ok_or(ServerEnded)?.insert(id, sender);
        Ok(answer)
    }

    fn read(&self, stdout: impl Read) {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            self.deliver(line);
        }
        self.end();
    }

    fn deliver(&self, line: String) {
        let message: Value = serde_json::from_str(&line).unwrap_or_default();
        let id = message["id"]
            .as_u64()
            .filter(|_| message.get("method").is_none());
        let waiter = id.and_then(|id| self.waiting.lock().unwrap().as_mut()?.remove(&id));
        if let Some(waiter) = waiter {
            let _ = waiter.send(message);
        } else {
            self.unexpected.lock().unwrap().push_back(line);
            self.arrived.notify_one();
        }
    }

    fn end(&self) {
        *self.waiting.lock().unwrap() = None;
    }
}

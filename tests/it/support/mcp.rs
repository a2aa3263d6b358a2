//! A client of the built program over stdio: JSON-RPC, one message a line.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fmt,
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use serde_json::{Value, json};
use tokio::{sync::oneshot, time::timeout};

use super::{
    PATIENCE,
    program::{Home, PROGRAM},
    stores::Store,
    wait_until,
};

/// The program ended, or was killed, before it answered.
#[derive(Debug, PartialEq)]
pub(crate) struct Gone;

/// A running server and a client of it. Calls may be made at once; the server is killed when this is dropped.
pub(crate) struct Mcp {
    child: Mutex<Child>,
    stdin: Option<Mutex<ChildStdin>>,
    waiting: Arc<Mutex<Waiting>>,
    next: AtomicU64,
    strays: Arc<Mutex<Vec<String>>>,
    stderr: Arc<Mutex<String>>,
    _home: Home,
}

/// Who waits for the answer to which request; `None` when the server has ended.
type Waiting = Option<HashMap<u64, oneshot::Sender<Value>>>;

impl Mcp {
    /// A server on `store`, ready for calls.
    pub(crate) async fn start(store: &Store) -> Self {
        Self::start_with(&store.arguments()).await
    }

    /// A server started as `portfolio-mcp stdio …`, ready for calls.
    pub(crate) async fn start_with(arguments: &[impl AsRef<OsStr>]) -> Self {
        let home = Home::new();
        let mut command = home.command(PROGRAM);
        command.arg("stdio").args(arguments);
        Self::ready(home, command).await
    }

    /// Calls a tool again and again until its answer is as it should be; a store that is back has to be noticed within 5 s.
    pub(crate) async fn call_until(
        &self,
        tool: &str,
        arguments: Value,
        done: impl Fn(&Value) -> bool,
    ) -> Value {
        let begun = std::time::Instant::now();
        loop {
            let answer = self.call(tool, arguments.clone()).await;
            if done(&answer) {
                return answer;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "{tool} goes on answering {answer}"
            );
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// A server on `store` that cannot make a file longer than `blocks` blocks of 512 bytes (in some shells, 1024).
    pub(crate) async fn start_with_file_limit(store: &Store, blocks: u64) -> Self {
        let home = Home::new();
        let mut command = home.command("sh");
        let script = format!(r#"trap "" XFSZ; ulimit -f {blocks}; exec "$0" "$@""#);
        command
            .args(["-c", &script, PROGRAM, "stdio"])
            .args(store.arguments());
        Self::ready(home, command).await
    }

    async fn ready(home: Home, command: Command) -> Self {
        let client = Self::spawn(home, command);
        let hello = json!({
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": { "name": "it", "version": "1.0" },
        });
        if let Err(problem) = client
            .request("initialize", hello)
            .await
            .map(|answer| answer.expect("initialize is refused"))
        {
            panic!("the server did not start: {problem:?}\n{}", client.stderr());
        }
        client.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        client
    }

    /// Starts `command`, without the first messages of the protocol.
    pub(crate) fn spawn(home: Home, mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let (strays, stderr) = (
            Arc::new(Mutex::new(Vec::new())),
            Arc::new(Mutex::new(String::new())),
        );
        let stdout = child.stdout.take().unwrap();
        thread::spawn({
            let (waiting, strays) = (Arc::clone(&waiting), Arc::clone(&strays));
            move || deliver(stdout, &waiting, &strays)
        });
        let log = child.stderr.take().unwrap();
        thread::spawn({
            let stderr = Arc::clone(&stderr);
            move || {
                for line in BufReader::new(log).lines().map_while(Result::ok) {
                    let mut stderr = stderr.lock().unwrap();
                    stderr.push_str(&line);
                    stderr.push('\n');
                }
            }
        });
        let stdin = child.stdin.take().map(Mutex::new);
        Self {
            child: Mutex::new(child),
            stdin,
            waiting,
            next: AtomicU64::new(1),
            strays,
            stderr,
            _home: home,
        }
    }

    /// What the server has said on standard error so far.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// What came on standard output that answers no request: notifications, and what is not protocol.
    pub(crate) fn strays(&self) -> Vec<String> {
        self.strays.lock().unwrap().clone()
    }

    /// Sends one message; a server that has gone does not read it.
    pub(crate) fn send(&self, message: &Value) {
        self.send_line(&message.to_string());
    }

    /// Sends a line as it is.
    pub(crate) fn send_line(&self, line: &str) {
        let mut stdin = self
            .stdin
            .as_ref()
            .expect("the input was closed")
            .lock()
            .unwrap();
        // One write for each message, so that a kill cannot leave half a line of one behind a whole one of another.
        let _ = stdin.write_all(format!("{line}\n").as_bytes());
        let _ = stdin.flush();
    }

    /// The `result` of a request, or its `error` as `Err`.
    pub(crate) async fn request(
        &self,
        method: &str,
        params: Value,
    ) -> Result<Result<Value, Value>, Gone> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answered, answer) = oneshot::channel();
        self.waiting
            .lock()
            .unwrap()
            .as_mut()
            .ok_or(Gone)?
            .insert(id, answered);
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        let Ok(answer) = timeout(PATIENCE, answer).await else {
            panic!(
                "no answer to {method} in {PATIENCE:?}; standard error:\n{}",
                self.stderr()
            );
        };
        let mut answer = answer.map_err(|_| Gone)?;
        Ok(match answer.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => Err(answer["error"].take()),
        })
    }

    /// Calls a tool and gives what it says: `{ "success": …, … }`.
    pub(crate) async fn call(&self, tool: &str, arguments: Value) -> Value {
        let answer = self.try_call(tool, arguments).await;
        answer.unwrap_or_else(|Gone| {
            panic!(
                "the server ended during {tool}; standard error:\n{}",
                self.stderr()
            )
        })
    }

    /// Calls a tool of a server that may be killed meanwhile.
    pub(crate) async fn try_call(&self, tool: &str, arguments: Value) -> Result<Value, Gone> {
        let answer = self
            .request(
                "tools/call",
                json!({ "name": tool, "arguments": arguments }),
            )
            .await?;
        let result =
            answer.unwrap_or_else(|error| panic!("{tool} was refused by the protocol: {error}"));
        Ok(said(&result))
    }

    /// Kills the server at once.
    pub(crate) fn kill9(&self) {
        let mut child = self.child.lock().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Closes the server's input and waits for its end.
    pub(crate) fn finish(mut self) -> ExitStatus {
        self.stdin = None;
        wait_until("the server ends after its input has", || {
            self.child.lock().unwrap().try_wait().unwrap()
        })
    }
}

impl Drop for Mcp {
    fn drop(&mut self) {
        self.kill9();
    }
}

impl fmt::Debug for Mcp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "the server with process id {}",
            self.child.lock().unwrap().id()
        )
    }
}

/// What a tool says in its result, which every result must say in the contract's form: structured and as text when it
/// succeeds, as text alone when it fails.
pub(crate) fn said(result: &Value) -> Value {
    let text = result["content"][0]["text"]
        .as_str()
        .unwrap_or_else(|| panic!("a result without text: {result}"));
    let said: Value = serde_json::from_str(text)
        .unwrap_or_else(|error| panic!("a text that is not JSON ({error}): {text}"));
    if result["isError"] == json!(true) {
        assert_eq!(
            result.get("structuredContent"),
            None,
            "a failure has no structured content"
        );
        assert_eq!(said["success"], json!(false), "{said}");
    } else {
        assert_eq!(
            result["structuredContent"], said,
            "the text is the structured content"
        );
        assert_eq!(said["success"], json!(true), "{said}");
    }
    said
}

/// Gives each answer to who waits for it, until the server ends.
fn deliver(stdout: impl Read, waiting: &Mutex<Waiting>, strays: &Mutex<Vec<String>>) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        let message: Value = serde_json::from_str(&line).unwrap_or_default();
        let id = message["id"]
            .as_u64()
            .filter(|_| message.get("method").is_none());
        let waiter = id.and_then(|id| waiting.lock().unwrap().as_mut()?.remove(&id));
        match waiter {
            Some(waiter) => drop(waiter.send(message)),
            None => strays.lock().unwrap().push(line),
        }
    }
    *waiting.lock().unwrap() = None;
}

//! The built program as a server, over HTTP and over stdio.

use std::{
    ffi::OsStr,
    io::{self, BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, ChildStderr, Command, Stdio},
    sync::Arc,
};

use portfolio_mcp::{clock, mcp::ContentServer, service::ContentService, store};
use serde_json::Value;

use super::{
    http::{self, Response},
    messages,
    process::{self, Lines},
    program::{Home, PROGRAM},
    stdio::StdioClient,
    stores::Store,
    wait::wait_until,
};

/// The program as an HTTP server, killed when this is dropped.
pub(crate) struct HttpServer {
    pub(crate) address: SocketAddr,
    child: Child,
    log: Lines,
    _home: Home,
}

impl HttpServer {
    /// A server on `store`, with more arguments.
    pub(crate) fn start(store: &Store, arguments: &[&str]) -> Self {
        let mut all = store.arguments();
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        Self::start_with(&all)
    }

    /// A server started as `portfolio-mcp http …` on a port of its own.
    pub(crate) fn start_with(arguments: &[impl AsRef<OsStr>]) -> Self {
        let home = Home::new();
        let mut command = home.command(PROGRAM);
        command
            .args(["http", "--listen", "127.0.0.1:0"])
            .args(arguments);
        Self::spawn(home, command)
    }

    /// A server that `command` starts. `home` is deleted after it.
    pub(crate) fn spawn(home: Home, mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Lines::collect(child.stderr.take().unwrap());
        let address = wait_until("the server listens", || {
            let ended = child.try_wait().unwrap();
            assert_eq!(ended, None, "the server ended: {}", log.text());
            listen_address(&log.text())
        });
        Self {
            address,
            child,
            log,
            _home: home,
        }
    }

    /// A server on `store` whose standard error nobody reads once it listens.
    pub(crate) fn start_unread(store: &Store) -> (Self, BufReader<ChildStderr>) {
        let home = Home::new();
        let mut child = home
            .command(PROGRAM)
            .args(["http", "--listen", "127.0.0.1:0"])
            .args(store.arguments())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut start = String::new();
        let address = loop {
            let length = stderr.read_line(&mut start).unwrap();
            assert_ne!(length, 0, "the server ended: {start}");
            if let Some(address) = listen_address(&start) {
                break address;
            }
        };
        let server = Self {
            address,
            child,
            log: Lines::collect(io::empty()),
            _home: home,
        };
        (server, stderr)
    }

    /// Begins to read the server's standard error.
    pub(crate) fn read_stderr(&mut self, stderr: BufReader<ChildStderr>) {
        self.log = Lines::collect(stderr);
    }

    /// The response to a `GET` on a connection of its own.
    pub(crate) fn get(&self, path: &str) -> Response {
        http::send(self.address, "GET", path, &[("Connection", "close")], "")
    }

    /// Posts a message to `/mcp`.
    pub(crate) fn post(&self, headers: &[(&str, &str)], message: &impl ToString) -> Response {
        http::post_json(self.address, "/mcp", headers, message.to_string())
    }

    /// The whole answer to a request, `result` or `error`.
    pub(crate) fn request(&self, method: &str, params: &Value) -> Value {
        self.request_with(&[], method, params)
    }

    pub(crate) fn request_with(
        &self,
        headers: &[(&str, &str)],
        method: &str,
        params: &Value,
    ) -> Value {
        self.post(headers, &messages::request(1, method, params))
            .json()
    }

    /// The result of a tool call.
    pub(crate) fn call(&self, tool: &str, arguments: &Value) -> Value {
        self.call_with(&[], tool, arguments)
    }

    pub(crate) fn call_with(
        &self,
        headers: &[(&str, &str)],
        tool: &str,
        arguments: &Value,
    ) -> Value {
        let call = messages::tool_call(1, tool, arguments);
        self.post(headers, &call).json()["result"].clone()
    }

    /// What the server has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.text()
    }

    /// How often the log contains `text`.
    pub(crate) fn count_in_log(&self, text: &str) -> usize {
        self.log().matches(text).count()
    }

    /// How many sessions of `/sse` are open, according to the log at level `debug`.
    pub(crate) fn sse_sessions(&self) -> Option<usize> {
        let log = self.log();
        let line = log
            .lines()
            .rev()
            .find(|line| line.contains("SSE session"))?;
        line.split_once("; ")?.1.split(' ').next()?.parse().ok()
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        process::signal(self.child.id(), name);
    }

    /// Waits for the server to end and gives its exit code. The log is complete then.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let status = wait_until("the server ends", || self.child.try_wait().unwrap());
        self.log.wait();
        status.code()
    }

    /// Stops the server, which must end well, and gives what it wrote to standard output.
    pub(crate) fn stop(mut self) -> String {
        self.signal("-TERM");
        assert_eq!(self.wait(), Some(0), "{}", self.log());
        let mut stdout = String::new();
        let output = self.child.stdout.as_mut().unwrap();
        output.read_to_string(&mut stdout).unwrap();
        stdout
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address that the start line names.
fn listen_address(log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once("listening on http://")?;
    let (address, _) = rest.split_once(['/', ','])?;
    Some(address.parse().unwrap())
}

impl StdioClient {
    /// A client of the program on `store`, ready for calls.
    pub(crate) async fn start(store: &Store) -> Self {
        Self::start_with(&store.arguments()).await
    }

    /// A client of `portfolio-mcp stdio …`, ready for calls.
    pub(crate) async fn start_with(arguments: &[impl AsRef<OsStr>]) -> Self {
        let home = Home::new();
        let mut command = home.command(PROGRAM);
        command.arg("stdio").args(arguments);
        Self::start_command(home, command).await
    }

    /// A client of the program on `store` with every toolset, ready for calls.
    pub(crate) async fn start_with_all_toolsets(store: &Store) -> Self {
        let mut arguments = store.arguments();
        arguments.push("--toolsets=all".to_owned());
        Self::start_with(&arguments).await
    }

    /// A client of the program on `store`, before the handshake.
    pub(crate) fn spawn_on(store: &Store) -> Self {
        Self::spawn_with(&store.arguments())
    }

    /// A client of `portfolio-mcp stdio …`, before the handshake.
    pub(crate) fn spawn_with(arguments: &[impl AsRef<OsStr>]) -> Self {
        let home = Home::new();
        let mut command = home.command(PROGRAM);
        command.arg("stdio").args(arguments);
        Self::spawn(home.into(), command)
    }

    /// A client of the program on `store` that cannot make a file longer than `blocks` blocks of
    /// 512 bytes (in some shells, 1024).
    pub(crate) async fn start_with_file_limit(store: &Store, blocks: u64) -> Self {
        let home = Home::new();
        let mut command = home.command("sh");
        let script = format!(r#"trap "" XFSZ; ulimit -S -f {blocks}; exec "$0" "$@""#);
        command
            .args(["-c", &script, PROGRAM, "stdio"])
            .args(store.arguments());
        Self::start_command(home, command).await
    }

    /// A client of the program that the words of `command` start.
    pub(crate) async fn start_program(command: &[String], arguments: &[String]) -> Self {
        let home = Home::new();
        let mut program = home.command(&command[0]);
        program.args(&command[1..]).arg("stdio").args(arguments);
        Self::start_command(home, program).await
    }

    /// A client of a server in this process, whose actor is `owner`. The handshake is left to the
    /// test.
    pub(crate) fn in_process(store: impl Into<store::Store>, read_only: Option<&str>) -> Self {
        let content = Arc::new(ContentService::new(store, clock));
        Self::of(ContentServer::new(content, Some("owner"), read_only))
    }

    async fn start_command(home: Home, command: Command) -> Self {
        let client = Self::spawn(home.into(), command);
        client.initialize("it", "1.0").await;
        client
    }
}

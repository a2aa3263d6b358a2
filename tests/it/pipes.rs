//! Clients that do not read what the server writes: it answers, stays small, and ends all the same.

#![cfg(unix)]

use std::{
    collections::HashSet,
    fs,
    net::TcpListener,
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    process::{Child, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::{UnixStream, unix::pipe},
    time::timeout,
};

use super::support::{
    WAIT_TIMEOUT, http,
    messages::{request, tool_call},
    process::signal,
    program::{Home, PROGRAM, repository_path},
    server::HttpServer,
    stdio::StdioClient,
    stores::Store,
    wait_until,
};

/// How many calls a client sends without reading an answer.
const FLOOD: u64 = 30_000;
/// After this long without a byte accepted, the server is taken to read no more.
const STUCK: Duration = Duration::from_secs(2);
/// How much larger a server may become while its answers are not read.
const MAX_GROWTH_MIB: u64 = 150;

/// How a client connects to the standard streams of its server.
#[derive(Clone, Copy, Debug)]
enum Streams {
    /// As most programs do.
    Pipes,
    /// As Node.js does.
    Sockets,
}

/// A server over stdio whose output is read only when the test does.
struct Unread {
    child: Child,
    input: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    output: Box<dyn AsyncBufRead + Send + Unpin>,
    start_mib: u64,
    _home: Home,
}

impl Unread {
    /// A server that has answered once, so that it is ready for signals.
    async fn start(store: &Store, streams: Streams, stderr: Stdio) -> Self {
        let home = Home::new();
        let mut command = home.command(PROGRAM);
        command
            .args(["stdio", "--log", "debug"])
            .args(store.arguments())
            .stderr(stderr);
        let (child, input, output) = match streams {
            Streams::Pipes => {
                let mut child = command
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap();
                let input = OwnedFd::from(child.stdin.take().unwrap());
                let output = OwnedFd::from(child.stdout.take().unwrap());
                let input = pipe::Sender::from_owned_fd(input).unwrap();
                let output = pipe::Receiver::from_owned_fd(output).unwrap();
                let (input, output): (Box<dyn AsyncWrite + Send + Unpin>, _) =
                    (Box::new(input), boxed(output));
                (child, input, output)
            }
            Streams::Sockets => {
                let (input, stdin) = socket_pair();
                let (output, stdout) = socket_pair();
                let child = command.stdin(stdin).stdout(stdout).spawn().unwrap();
                // It holds the server's ends.
                drop(command);
                let (input, output): (Box<dyn AsyncWrite + Send + Unpin>, _) =
                    (Box::new(input), boxed(output));
                (child, input, output)
            }
        };
        let mut server = Self {
            child,
            input: Some(input),
            output,
            start_mib: 0,
            _home: home,
        };
        server
            .send(&request(0, "ping", &json!({})).to_string())
            .await;
        assert_eq!(server.next_answer().await.unwrap()["id"], 0);
        server.start_mib = server.resident_mib();
        server
    }

    async fn send(&mut self, line: &str) {
        let line = format!("{line}\n");
        let input = self.input.as_mut().unwrap();
        input.write_all(line.as_bytes()).await.unwrap();
    }

    /// Sends lines until the server reads no more; gives how many were sent whole.
    async fn flood(&mut self, lines: impl Iterator<Item = String>) -> u64 {
        let mut sent = 0;
        for line in lines {
            if timeout(STUCK, self.send(&line)).await.is_err() {
                break;
            }
            sent += 1;
        }
        sent
    }

    /// Makes calls until their log lines fill a pipe.
    async fn fill_log(&mut self) {
        for call in calls(2_000) {
            self.send(&call).await;
            self.next_answer().await.unwrap();
        }
    }

    async fn next_answer(&mut self) -> Option<Value> {
        let mut line = String::new();
        let read = timeout(WAIT_TIMEOUT, self.output.read_line(&mut line)).await;
        let length = read.expect("an answer, or the end").unwrap();
        (length > 0).then(|| serde_json::from_str(&line).unwrap())
    }

    fn close_input(&mut self) {
        self.input = None;
    }

    fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// The memory that the server occupies.
    fn resident_mib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.unwrap().split_whitespace().nth(1).unwrap();
        kib.parse::<u64>().unwrap() / 1024
    }

    fn wait(&mut self) -> ExitStatus {
        wait_until("the server ends", || self.child.try_wait().unwrap())
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn boxed(
    output: impl tokio::io::AsyncRead + Send + Unpin + 'static,
) -> Box<dyn AsyncBufRead + Send + Unpin> {
    Box::new(BufReader::new(output))
}

/// A client's end and a server's.
fn socket_pair() -> (UnixStream, OwnedFd) {
    let (client, server) = StdUnixStream::pair().unwrap();
    client.set_nonblocking(true).unwrap();
    (UnixStream::from_std(client).unwrap(), server.into())
}

fn filled_store() -> Store {
    let store = Store::sqlite();
    store.import(&repository_path("examples/content"));
    store
}

fn calls(count: u64) -> impl Iterator<Item = String> {
    (1..=count).map(|id| tool_call(id, "get_project", &json!({ "id": "rdv-artisan" })).to_string())
}

#[tokio::test]
async fn every_call_is_answered_while_standard_error_is_not_read() {
    let store = filled_store();
    let home = Home::new();
    let mut command = home.command(PROGRAM);
    command
        .args(["stdio", "--log", "debug"])
        .args(store.arguments());
    let (client, _unread) = StdioClient::spawn_unread(home.into(), command);

    for number in 0..700 {
        let data = json!({ "title": format!("Title {number}") });
        let update = json!({ "id": "rdv-artisan", "data": data });
        let updated = client.call("update_project", update).await;
        assert_eq!(updated["success"], json!(true), "{updated}");
    }
    client.signal("-TERM");

    assert_eq!(client.wait().code(), Some(0));
}

/// Sends requests that a server rejects and logs.
fn send_foreign_hosts(server: &HttpServer, count: usize) {
    let host = format!("{}.example", "evil".repeat(15));
    for _ in 0..count {
        let response = http::send(server.address, "POST", "/mcp", &[("Host", &host)], "{}");
        assert_eq!(response.status, 403);
    }
}

#[test]
fn rejected_requests_do_not_stop_a_server_whose_log_is_not_read() {
    let store = filled_store();
    let (mut server, _unread) = HttpServer::start_unread(&store);

    send_foreign_hosts(&server, 1_000);
    let health = http::send(server.address, "GET", "/healthz", &[], "");
    server.signal("-TERM");

    assert_eq!(health.status, 200);
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn a_log_that_is_read_late_is_complete() {
    let store = filled_store();
    let (mut server, stderr) = HttpServer::start_unread(&store);

    send_foreign_hosts(&server, 1_000);
    server.read_stderr(stderr);

    wait_until("the log is complete", || {
        (server.count_in_log("rejected a request") == 1_000).then_some(())
    });
}

/// The queue holds one megabyte, as much again is being written, and a line has 280 bytes.
#[test]
fn a_log_that_is_read_too_late_says_how_much_is_missing() {
    const COUNT: usize = 10_000;
    let store = filled_store();
    let (mut server, stderr) = HttpServer::start_unread(&store);

    send_foreign_hosts(&server, COUNT);
    server.read_stderr(stderr);

    let dropped = wait_until("the log is complete", || {
        let log = server.log();
        let (before, _) = log.split_once(" log lines dropped here")?;
        let dropped: usize = before.rsplit(' ').next()?.parse().unwrap();
        let logged = server.count_in_log("rejected a request");
        (logged + dropped == COUNT).then_some(dropped)
    });
    assert!(dropped > 0);
}

#[test]
fn an_error_is_the_last_line_of_the_log() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let home = Home::new();

    let output = home
        .command(PROGRAM)
        .args(["--log", "debug", "http", "--listen"])
        .arg(taken.local_addr().unwrap().to_string())
        .output()
        .unwrap();

    let log = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(output.status.code(), Some(3), "{log}");
    assert!(lines[0].contains("content is in"), "{log}");
    let last = lines[lines.len() - 1];
    assert!(last.starts_with("portfolio-mcp: "), "{log}");
}

/// Sends calls whose answers are not read, then `end`s the server.
async fn flood_and_end(streams: Streams, stderr: Stdio, end: impl FnOnce(&mut Unread)) {
    let store = filled_store();
    let mut server = Unread::start(&store, streams, stderr).await;
    server.fill_log().await;

    let sent = server.flood(calls(FLOOD)).await;
    let growth = server.resident_mib().saturating_sub(server.start_mib);
    let start = Instant::now();
    end(&mut server);
    let status = server.wait();

    // Shown with a failure, or with --nocapture.
    let took = start.elapsed();
    println!("{streams:?}: {sent} calls sent, grown by {growth} MiB, ended within {took:?}");
    assert_eq!(status.code(), Some(0));
    assert!(growth < MAX_GROWTH_MIB, "{growth} MiB after {sent} calls");
}

fn sigterm(server: &mut Unread) {
    server.signal("-TERM");
}

fn sigint(server: &mut Unread) {
    server.signal("-INT");
}

#[tokio::test]
async fn sigterm_ends_stdio_while_its_output_is_full() {
    flood_and_end(Streams::Pipes, Stdio::null(), sigterm).await;
}

#[tokio::test]
async fn sigint_ends_stdio_while_its_output_is_full() {
    flood_and_end(Streams::Pipes, Stdio::null(), sigint).await;
}

#[tokio::test]
async fn end_of_input_ends_stdio_while_its_output_is_full() {
    flood_and_end(Streams::Pipes, Stdio::null(), Unread::close_input).await;
}

#[tokio::test]
async fn sigterm_ends_stdio_while_its_output_and_log_are_full() {
    flood_and_end(Streams::Pipes, Stdio::piped(), sigterm).await;
}

#[tokio::test]
async fn end_of_input_ends_stdio_while_its_output_and_log_are_full() {
    flood_and_end(Streams::Pipes, Stdio::piped(), Unread::close_input).await;
}

#[tokio::test]
async fn sigterm_ends_stdio_while_its_sockets_are_full() {
    flood_and_end(Streams::Sockets, Stdio::piped(), sigterm).await;
}

#[tokio::test]
async fn end_of_input_ends_stdio_while_its_sockets_are_full() {
    flood_and_end(Streams::Sockets, Stdio::piped(), Unread::close_input).await;
}

#[test]
fn the_end_of_a_file_ends_stdio_while_its_output_is_full() {
    let store = filled_store();
    let home = Home::new();
    let file = home.path().join("calls");
    let lines: Vec<String> = calls(3_000).collect();
    fs::write(&file, lines.join("\n")).unwrap();

    let mut child = home
        .command(PROGRAM)
        .arg("stdio")
        .args(store.arguments())
        .stdin(fs::File::open(&file).unwrap())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();

    let status = wait_until("the server ends", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn end_of_input_ends_stdio_while_rejections_are_not_read() {
    let store = filled_store();
    let mut server = Unread::start(&store, Streams::Pipes, Stdio::null()).await;
    let lines = std::iter::repeat_n("not JSON".to_owned(), 30_000);

    server.flood(lines).await;
    server.close_input();

    assert_eq!(server.wait().code(), Some(0));
}

/// Sends calls, and reads the answers only when the server reads no more.
async fn read_late(streams: Streams) {
    const COUNT: u64 = 3_000;
    let store = filled_store();
    let mut server = Unread::start(&store, streams, Stdio::null()).await;

    let sent = server.flood(calls(COUNT)).await;
    let mut input = server.input.take().unwrap();
    let rest = tokio::spawn(async move {
        // The call that got stuck may have been sent in part; a line end makes it a whole line.
        input.write_all(b"\n").await.unwrap();
        for call in calls(COUNT).skip(usize::try_from(sent).unwrap()) {
            input.write_all(call.as_bytes()).await.unwrap();
            input.write_all(b"\n").await.unwrap();
        }
    });
    let mut answered = HashSet::new();
    while let Some(answer) = server.next_answer().await {
        answered.insert(answer["id"].as_u64());
    }
    rest.await.unwrap();

    assert!(sent < COUNT, "the server read everything");
    assert_eq!(server.wait().code(), Some(0));
    let missing: Vec<u64> = (1..=COUNT)
        .filter(|id| !answered.contains(&Some(*id)))
        .collect();
    assert_eq!(missing, Vec::<u64>::new());
}

#[tokio::test]
async fn a_client_that_reads_late_gets_every_answer_through_pipes() {
    read_late(Streams::Pipes).await;
}

#[tokio::test]
async fn a_client_that_reads_late_gets_every_answer_through_sockets() {
    read_late(Streams::Sockets).await;
}

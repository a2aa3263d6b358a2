//! Clients that are strangers: who is let in, whose answer is whose, and what is left of those that vanish.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    io::{
        AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader as AsyncBufReader,
    },
    net::TcpStream,
    task::JoinSet,
};

use crate::support::{
    content::project,
    http::{self, Response},
    mcp::said,
    program::{Home, PROGRAM},
    stores::Store,
    wait_until,
};

const MARIE: (&str, &str) = ("Authorization", "Bearer marie-0123456789abcdef");
const SITE: (&str, &str) = ("Authorization", "Bearer site-0123456789abcdef");
const TOKENS: &str =
    "# of this site\nmarie:write:marie-0123456789abcdef\n\nsite:read:site-0123456789abcdef\n";

/// The program as an HTTP server, and what it logs.
struct Server {
    child: Child,
    address: SocketAddr,
    log: Arc<Mutex<String>>,
}

impl Server {
    fn start(home: &Home, store: &Store, arguments: &[&str]) -> Self {
        let mut command = home.command(PROGRAM);
        command
            .args(["http", "--listen", "127.0.0.1:0", "--log", "debug"])
            .args(store.arguments())
            .args(arguments);
        Self::spawn(&mut command)
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, kept) = (
            BufReader::new(child.stderr.take().unwrap()),
            Arc::clone(&log),
        );
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let mut log = kept.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let address = wait_until("the server listens", || {
            assert_eq!(
                child.try_wait().unwrap(),
                None,
                "the server ended: {}",
                log.lock().unwrap()
            );
            log.lock()
                .unwrap()
                .split_once("listening on http://")?
                .1
                .split_once(',')
                .map(|(address, _)| address.parse().unwrap())
        });
        Self {
            child,
            address,
            log,
        }
    }

    fn post(&self, headers: &[(&str, &str)], body: &Value) -> Response {
        let usual = [
            ("Content-Type", "application/json"),
            ("Accept", "application/json, text/event-stream"),
        ];
        http::send(
            self.address,
            "POST",
            "/mcp",
            &[&usual, headers].concat(),
            &body.to_string(),
        )
    }

    fn request(&self, token: (&str, &str), method: &str, params: &Value) -> Value {
        self.post(&[token], &message(1, method, params)).json()
    }

    fn logged(&self, text: &str) -> usize {
        self.log.lock().unwrap().matches(text).count()
    }

    fn signal(&self, signal: &str) {
        assert!(
            Command::new("kill")
                .args([signal, &self.child.id().to_string()])
                .status()
                .unwrap()
                .success()
        );
    }

    /// The sessions of `/sse` that are open, as the log tells.
    fn sessions(&self) -> Option<usize> {
        let log = self.log.lock().unwrap();
        let line = log
            .lines()
            .rev()
            .find(|line| line.contains("SSE session"))?;
        line.split_once("; ")?.1.split(' ').next()?.parse().ok()
    }

    fn ended(&mut self) -> Option<i32> {
        wait_until("the server ends", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process holds, where the system tells.
#[derive(Debug, Clone, Copy)]
struct SnapshotData {
    descriptors: usize,
    threads: usize,
    kilobytes: usize,
}

/// `None` where there is no `/proc`: there the sessions in the log are all that can be counted.
fn held(process: u32) -> Option<SnapshotData> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let number = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    };
    let descriptors = fs::read_dir(format!("/proc/{process}/fd")).ok()?.count();
    Some(SnapshotData {
        descriptors,
        threads: number("Threads:")?,
        kilobytes: number("VmRSS:")?,
    })
}

fn message(id: usize, method: &str, params: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

fn call(id: usize, tool: &str, arguments: &Value) -> Value {
    message(
        id,
        "tools/call",
        &json!({ "name": tool, "arguments": arguments }),
    )
}

fn token_file(home: &Home, text: &str) -> PathBuf {
    let file = home.path().join("tokens");
    fs::write(&file, text).unwrap();
    file
}

/// A store with so many projects, `client-0` and so on.
fn stocked(home: &Home, store: &Store, projects: usize) {
    let folder = home.path().join("content");
    fs::create_dir_all(&folder).unwrap();
    let documents: Vec<Value> = (0..projects)
        .map(|number| Value::Object(project(&format!("client-{number}"))))
        .collect();
    fs::write(folder.join("projects.json"), json!(documents).to_string()).unwrap();
    let imported = home
        .command(PROGRAM)
        .arg("import")
        .arg(&folder)
        .args(store.arguments())
        .output()
        .unwrap();
    assert!(
        imported.status.success(),
        "{}",
        String::from_utf8_lossy(&imported.stdout)
    );
}

#[tokio::test]
async fn a_token_says_who_writes_and_who_only_reads() {
    let (home, store) = (Home::new(), Store::sqlite());
    stocked(&home, &store, 1);
    let server = Server::start(
        &home,
        &store,
        &["--token-file", &token_file(&home, TOKENS).to_string_lossy()],
    );
    let update = json!({ "name": "update_project", "arguments": { "id": "client-0", "data": { "title": "New" } } });
    let hello = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "it", "version": "1" } });
    let tools = |token| {
        let list = server.request(token, "tools/list", &json!({}));
        let names = list["result"]["tools"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tool| tool["name"].as_str().unwrap().to_owned());
        names.collect::<BTreeSet<_>>()
    };
    let instructions = |token| {
        server.request(token, "initialize", &hello)["result"]["instructions"]
            .as_str()
            .unwrap()
            .to_owned()
    };

    let refused = said(&server.request(SITE, "tools/call", &update)["result"]);
    let written = said(&server.request(MARIE, "tools/call", &update)["result"]);
    let log = said(
        &server.request(
            SITE,
            "tools/call",
            &json!({ "name": "get_audit_log", "arguments": { "action": "update" } }),
        )["result"],
    );

    assert_eq!(
        server
            .post(&[], &call(1, "list_projects", &json!({})))
            .status,
        401
    );
    assert_eq!(refused["error"]["code"], "STORE_READ_ONLY");
    assert!(
        refused["error"]["message"]
            .as_str()
            .unwrap()
            .contains("`site`"),
        "{refused}"
    );
    assert_eq!(written["success"], json!(true));
    assert_eq!(
        (
            log["data"].as_array().unwrap().len(),
            &log["data"][0]["metadata"]["actor"]
        ),
        (1, &json!("marie"))
    );
    assert_eq!(tools(MARIE).len(), 8);
    assert_eq!(
        tools(MARIE)
            .difference(&tools(SITE))
            .map(String::as_str)
            .collect::<Vec<_>>(),
        ["update_project", "update_resource"]
    );
    assert_ne!(instructions(MARIE), instructions(SITE));
    assert!(instructions(SITE).contains("Nothing can be changed"));
    store.assert_sound().await;
}

#[test]
fn a_list_that_depends_on_the_token_is_not_to_be_shared() {
    let (home, store) = (Home::new(), Store::sqlite());
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { "name": "modern", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let asked = |server: &Server, method: &str| {
        let headers = [
            MARIE,
            ("MCP-Protocol-Version", "2026-07-28"),
            ("Mcp-Method", method),
        ];
        server
            .post(&headers, &message(1, method, &json!({ "_meta": meta })))
            .json()["result"]
            .clone()
    };

    let open = Server::start(&home, &store, &[]);
    let guarded = Server::start(
        &home,
        &store,
        &["--token-file", &token_file(&home, TOKENS).to_string_lossy()],
    );

    assert_eq!(asked(&open, "tools/list")["cacheScope"], "public");
    assert_eq!(asked(&guarded, "tools/list")["cacheScope"], "private");
    assert_eq!(asked(&guarded, "server/discover")["cacheScope"], "private");
}

#[test]
fn new_tokens_count_after_a_signal_and_wrong_ones_never() {
    let (home, store) = (Home::new(), Store::sqlite());
    let file = token_file(&home, TOKENS);
    let server = Server::start(&home, &store, &["--token-file", &file.to_string_lossy()]);
    let status = |token| {
        server
            .post(&[token], &message(1, "ping", &json!({})))
            .status
    };
    let next = ("Authorization", "Bearer next-0123456789abcdef");
    assert_eq!((status(MARIE), status(next)), (200, 401));

    fs::write(&file, "marie:write:next-0123456789abcdef\nbad:line\n").unwrap();
    server.signal("-HUP");
    wait_until("the wrong file is told", || {
        (server.logged("kept the old tokens") > 0).then_some(())
    });
    assert_eq!((status(MARIE), status(next)), (200, 401));

    fs::write(&file, "marie:write:next-0123456789abcdef\n").unwrap();
    server.signal("-HUP");
    wait_until("the new token counts", || {
        (status(next) == 200).then_some(())
    });
    assert_eq!((status(MARIE), status(SITE)), (401, 401));
    assert_eq!(server.logged("0123456789abcdef"), 0, "no token is logged");
}

#[test]
fn listening_beyond_loopback_takes_tokens() {
    let home = Home::new();
    let (bad, good) = (
        token_file(&home, "marie:write:short\nmarie:owner:0123456789abcdef\n"),
        home.path().join("good"),
    );
    fs::write(&good, TOKENS).unwrap();
    let refused = |arguments: &[&str], tokens: Option<&str>| {
        let mut command = home.command(PROGRAM);
        command
            .arg("http")
            .args(arguments)
            .envs(tokens.map(|tokens| ("PORTFOLIO_TOKENS", tokens)));
        let output = command.output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };

    let (code, stderr) = refused(&["--listen", "0.0.0.0:0"], None);
    assert_eq!(code, Some(2));
    assert!(
        stderr.contains("--listen")
            && stderr.contains("--token-file")
            && stderr.contains("PORTFOLIO_TOKENS"),
        "{stderr}"
    );
    for (arguments, tokens) in [
        (
            vec![
                "--listen",
                "0.0.0.0:0",
                "--token-file",
                bad.to_str().unwrap(),
            ],
            None,
        ),
        (
            vec!["--listen", "0.0.0.0:0"],
            Some("marie:write:short\nmarie:owner:0123456789abcdef"),
        ),
    ] {
        let (code, stderr) = refused(&arguments, tokens);
        assert_eq!(code, Some(2));
        assert!(
            stderr.contains("line 1") && stderr.contains("line 2"),
            "{stderr}"
        );
        assert!(
            !stderr.contains("0123456789abcdef") && !stderr.contains("short"),
            "{stderr}"
        );
    }
    assert_eq!(
        refused(
            &["--token-file", home.path().join("no").to_str().unwrap()],
            None
        )
        .0,
        Some(2)
    );

    let mut command = home.command(PROGRAM);
    let server = Server::spawn(
        command
            .args(["http", "--listen", "0.0.0.0:0"])
            .env("PORTFOLIO_TOKENS", TOKENS),
    );
    let here = SocketAddr::new([127, 0, 0, 1].into(), server.address.port());
    let list = |headers: &[(&str, &str)]| http::send(here, "GET", "/nowhere", headers, "").status;
    assert_eq!((list(&[]), list(&[MARIE])), (401, 404));
}

/// A client of `/mcp` on a connection of its own, which it keeps.
struct KeptConnection(AsyncBufReader<TcpStream>);

impl KeptConnection {
    async fn open(address: SocketAddr) -> Self {
        Self(AsyncBufReader::new(
            TcpStream::connect(address).await.unwrap(),
        ))
    }

    async fn ask(&mut self, body: &str) -> String {
        let head = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n";
        let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        self.0.write_all(request.as_bytes()).await.unwrap();
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            assert_ne!(
                self.0.read_line(&mut line).await.unwrap(),
                0,
                "the connection was closed"
            );
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.unwrap();
        String::from_utf8(body).unwrap()
    }
}

/// `scripts/bench.sh` makes 100,000 calls of the release build; here it is fewer, because a debug build answers 10 times slower.
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_reaches_another_client() {
    const CLIENTS: usize = 500;
    const CALLS: usize = 20;
    let (home, store) = (Home::new(), Store::sqlite());
    stocked(&home, &store, CLIENTS);
    let server = Server::start(&home, &store, &[]);
    let mut clients = JoinSet::new();

    for number in 0..CLIENTS {
        let mut connection = KeptConnection::open(server.address).await;
        clients.spawn(async move {
            let own = format!("client-{number}");
            // Every client uses the same ids.
            for id in 0..CALLS {
                let answer = loop {
                    let answer = connection
                        .ask(&call(id, "get_project", &json!({ "id": own })).to_string())
                        .await;
                    let answer: Value = serde_json::from_str(&answer).unwrap();
                    // On a slow machine too many calls are under way, or a read takes too long; the server says so, and is asked again.
                    // Any other failure of the store is one here, too.
                    let slow = |message: &str| {
                        [
                            "was not started",
                            "the store cannot be reached",
                            "did not answer within",
                        ]
                        .iter()
                        .any(|said| message.contains(said))
                    };
                    if !said(&answer["result"])["error"]["message"]
                        .as_str()
                        .is_some_and(slow)
                    {
                        break answer;
                    }
                    assert_eq!(answer["id"], json!(id));
                };
                assert_eq!(
                    (
                        &answer["id"],
                        &answer["result"]["structuredContent"]["data"]["id"]
                    ),
                    (&json!(id), &json!(own)),
                    "{answer}"
                );
            }
        });
    }

    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
}

/// How a client goes away.
#[derive(Debug, Clone, Copy)]
enum Leaving {
    /// With a reset, as a killed program does.
    Reset,
    /// It says that it sends no more, and goes only when the server does.
    HalfClosed,
    /// In the usual way.
    Closed,
}

/// Opens a session, makes a call, and leaves before the answer.
async fn come_and_go(address: SocketAddr, leaving: Leaving) {
    let mut stream = AsyncBufReader::new(TcpStream::connect(address).await.unwrap());
    stream
        .write_all(b"GET /sse HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
        .await
        .unwrap();
    let mut line = String::new();
    while !line.starts_with("data: ") {
        line.clear();
        assert_ne!(
            stream.read_line(&mut line).await.unwrap(),
            0,
            "the stream ended"
        );
    }
    let endpoint = line.trim_start_matches("data: ").trim_end();
    let body = call(1, "get_project", &json!({ "id": "client-0" })).to_string();
    let head = format!(
        "POST {endpoint} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
    );
    let mut poster = TcpStream::connect(address).await.unwrap();
    poster
        .write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    poster.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    match leaving {
        Leaving::Reset => stream.into_inner().set_zero_linger().unwrap(),
        Leaving::HalfClosed => {
            stream.shutdown().await.unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        }
        Leaving::Closed => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_clients_that_vanish_during_a_call() {
    const ROUNDS: usize = 10;
    const CLIENTS: usize = 100;
    let (home, store) = (Home::new(), Store::redis());
    stocked(&home, &store, 1);
    let server = Server::start(&home, &store, &[]);
    let process = server.child.id();
    let before = held(process);
    let mut warm = None;

    for round in 0..ROUNDS {
        // The calls are under way while the store does not answer.
        store.server().stop();
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let leaving = [Leaving::Reset, Leaving::HalfClosed, Leaving::Closed][number % 3];
            clients.spawn(come_and_go(server.address, leaving));
        }
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
        store.server().cont();
        wait_until("no session is left", || {
            (server.sessions() == Some(0)).then_some(())
        });
        if round == 1 {
            warm = held(process);
        }
    }

    assert_eq!(server.logged("SSE session opened"), ROUNDS * CLIENTS);
    if let (Some(before), Some(warm)) = (before, warm) {
        let after = wait_until("descriptors and threads are given back", || {
            held(process).filter(|now| {
                now.descriptors <= before.descriptors + 4 && now.threads <= before.threads + 4
            })
        });
        // 800 sessions later: a leak of 10 KB in each would show.
        assert!(
            after.kilobytes < warm.kilobytes + 8 * 1024,
            "{before:?}, {warm:?}, {after:?}"
        );
    }
    assert_eq!(
        server
            .post(&[], &call(1, "get_project", &json!({ "id": "client-0" })))
            .status,
        200
    );
    store.assert_sound().await;
}

#[tokio::test]
async fn no_process_is_left_of_clients_that_are_killed_during_a_call() {
    const ROUNDS: usize = 10;
    const CLIENTS: usize = 20;
    let (home, store) = (Home::new(), Store::sqlite());
    stocked(&home, &store, 1);

    for round in 0..ROUNDS {
        let mut children: Vec<Child> = (0..CLIENTS)
            .map(|_| {
                let mut command = home.command(PROGRAM);
                command.arg("stdio").args(store.arguments());
                command
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for (number, child) in children.iter_mut().enumerate() {
            let mut stdin = child.stdin.take().unwrap();
            let title =
                json!({ "id": "client-0", "data": { "title": format!("{round} {number}") } });
            for id in 0..5 {
                send(&mut stdin, &call(id, "update_project", &title));
            }
            if number % 2 == 0 {
                // Killed in the middle of a message, after its answers have begun to come.
                let mut line = String::new();
                BufReader::new(child.stdout.as_mut().unwrap())
                    .read_line(&mut line)
                    .unwrap();
                stdin.write_all(b"{\"jsonrpc\":").unwrap();
            }
            // Both pipes break at once.
            drop((stdin, child.stdout.take()));
        }
        for mut child in children {
            wait_until("the process ends with its client", || {
                child.try_wait().unwrap()
            });
        }
    }

    store.assert_sound().await;
}

fn send(stdin: &mut ChildStdin, message: &Value) {
    stdin.write_all(format!("{message}\n").as_bytes()).unwrap();
}

#[tokio::test]
async fn a_stop_finishes_what_is_under_way_and_ends_within_ten_seconds() {
    for signal in ["-TERM", "-INT"] {
        let (home, store) = (Home::new(), Store::redis());
        stocked(&home, &store, 1);
        let mut server = Server::start(&home, &store, &[]);
        let update = |by: &str| {
            call(
                1,
                "update_project",
                &json!({ "id": "client-0", "data": { "title": format!("by {by}") } }),
            )
        };
        let mut stream = http::send(server.address, "GET", "/sse", &[], "");
        let endpoint = String::from_utf8(stream.chunk().unwrap()).unwrap();
        let endpoint = endpoint.split_once("data: ").unwrap().1.trim().to_owned();
        let mut idle: Vec<Response> = (0..5)
            .map(|_| http::send(server.address, "GET", "/sse", &[], ""))
            .collect();
        let mut command = home.command(PROGRAM);
        command
            .arg("stdio")
            .args(store.arguments())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (mut stdin, mut stdout) = (
            child.stdin.take().unwrap(),
            BufReader::new(child.stdout.take().unwrap()),
        );
        let mut line = String::new();

        store.server().stop();
        let accepted = http::send(
            server.address,
            "POST",
            &endpoint,
            &[("Content-Type", "application/json")],
            &update("sse").to_string(),
        );
        assert_eq!(accepted.status, 202);
        send(&mut stdin, &update("stdio"));
        send(&mut stdin, &message(2, "ping", &json!({})));
        stdout.read_line(&mut line).unwrap(); // what came before the ping was read, too
        let stopped = Instant::now();
        server.signal(signal);
        assert!(
            Command::new("kill")
                .args([signal, &child.id().to_string()])
                .status()
                .unwrap()
                .success()
        );
        for stream in &mut idle {
            while stream.chunk().is_some() {}
        }
        store.server().cont();

        line.clear();
        stdout.read_line(&mut line).unwrap();
        assert!(
            said(&serde_json::from_str::<Value>(&line).unwrap()["result"])["success"]
                == json!(true),
            "{line}"
        );
        let answer = String::from_utf8(stream.chunk().unwrap()).unwrap();
        assert!(
            answer.contains("event: message") && answer.contains(r#""isError":false"#),
            "{answer}"
        );
        assert_eq!(stream.chunk(), None);
        assert_eq!(server.ended(), Some(0));
        assert_eq!(
            wait_until("stdio ends, its input open", || child.try_wait().unwrap()).code(),
            Some(0)
        );
        assert!(
            stopped.elapsed() < Duration::from_secs(10),
            "{:?}",
            stopped.elapsed()
        );
        drop(stdin);
        store.assert_sound().await;
    }
}

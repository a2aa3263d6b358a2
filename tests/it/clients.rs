//! Clients that share one server: each has its own permissions and answers, and leaves nothing
//! behind.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr},
    path::PathBuf,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    fixtures::project,
    http::{self, Connection, with_json_headers},
    messages::{self, MODERN, client_hello, modern_meta, tool_call, tool_output},
    program::{Home, PROGRAM},
    server::HttpServer,
    sse::SseSession,
    stdio::StdioClient,
    stores::Store,
    wait_until,
};

const MARIE: (&str, &str) = ("Authorization", "Bearer marie-0123456789abcdef");
const SITE: (&str, &str) = ("Authorization", "Bearer site-0123456789abcdef");
const TOKENS: &str =
    "# of this site\nmarie:write:marie-0123456789abcdef\n\nsite:read:site-0123456789abcdef\n";

/// What a process uses.
#[derive(Debug, Clone, Copy)]
struct Usage {
    descriptors: usize,
    threads: usize,
    kilobytes: usize,
}

/// `None` on systems without `/proc`, where only the sessions in the log can be counted.
fn usage(process: u32) -> Option<Usage> {
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
    Some(Usage {
        descriptors,
        threads: number("Threads:")?,
        kilobytes: number("VmRSS:")?,
    })
}

/// A server that logs its sessions.
fn serve(store: &Store, arguments: &[&str]) -> HttpServer {
    HttpServer::start(store, &[&["--log", "debug"], arguments].concat())
}

fn token_file(home: &Home, text: &str) -> PathBuf {
    let file = home.path().join("tokens");
    fs::write(&file, text).unwrap();
    file
}

/// Imports projects with the ids `client-0`, `client-1`, …
fn import_projects(store: &Store, count: usize) {
    let home = Home::new();
    let documents: Vec<Value> = (0..count)
        .map(|number| Value::Object(project(&format!("client-{number}"))))
        .collect();
    let file = home.path().join("projects.json");
    fs::write(file, json!(documents).to_string()).unwrap();
    store.import(home.path());
}

#[tokio::test]
async fn a_read_token_cannot_write() {
    let (home, store) = (Home::new(), Store::sqlite());
    import_projects(&store, 1);
    let tokens = token_file(&home, TOKENS);
    let server = serve(&store, &["--token-file", &tokens.to_string_lossy()]);
    let update = json!({ "id": "client-0", "data": { "title": "New" } });
    let hello = client_hello("2025-06-18", "it", "1");
    let tools = |token| {
        let list = server.request_with(&[token], "tools/list", &json!({}));
        let names = list["result"]["tools"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tool| tool["name"].as_str().unwrap().to_owned());
        names.collect::<BTreeSet<_>>()
    };
    let instructions = |token| {
        server.request_with(&[token], "initialize", &hello)["result"]["instructions"]
            .as_str()
            .unwrap()
            .to_owned()
    };

    let rejected = tool_output(&server.call_with(&[SITE], "update_project", &update));
    let written = tool_output(&server.call_with(&[MARIE], "update_project", &update));
    let updates = json!({ "action": "update" });
    let log = tool_output(&server.call_with(&[SITE], "get_audit_log", &updates));

    let list = tool_call(1, "list_projects", &json!({}));
    assert_eq!(server.post(&[], &list).status, 401);
    assert_eq!(rejected["error"]["code"], "STORE_READ_ONLY");
    assert!(
        rejected["error"]["message"]
            .as_str()
            .unwrap()
            .contains("`site`"),
        "{rejected}"
    );
    assert_eq!(written["success"], json!(true));
    assert_eq!(log["data"].as_array().unwrap().len(), 1);
    assert_eq!(log["data"][0]["actor"], "marie");
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
fn lists_that_depend_on_the_token_are_marked_private() {
    let (home, store) = (Home::new(), Store::sqlite());
    let tokens = token_file(&home, TOKENS);
    let scope = |server: &HttpServer, method: &str| {
        let headers = [
            MARIE,
            ("MCP-Protocol-Version", MODERN),
            ("Mcp-Method", method),
        ];
        let params = json!({ "_meta": modern_meta("modern", "1") });
        server.request_with(&headers, method, &params)["result"]["cacheScope"].clone()
    };

    let open = serve(&store, &[]);
    let guarded = serve(&store, &["--token-file", &tokens.to_string_lossy()]);

    assert_eq!(scope(&open, "tools/list"), "public");
    assert_eq!(scope(&guarded, "tools/list"), "private");
    assert_eq!(scope(&guarded, "server/discover"), "private");
}

#[test]
fn new_tokens_are_read_after_a_signal_unless_the_file_is_invalid() {
    let (home, store) = (Home::new(), Store::sqlite());
    let file = token_file(&home, TOKENS);
    let server = serve(&store, &["--token-file", &file.to_string_lossy()]);
    let status = |token| {
        let ping = messages::request(1, "ping", &json!({}));
        server.post(&[token], &ping).status
    };
    let next = ("Authorization", "Bearer next-0123456789abcdef");
    assert_eq!(status(MARIE), 200);
    assert_eq!(status(next), 401);

    fs::write(&file, "marie:write:next-0123456789abcdef\nbad:line\n").unwrap();
    server.signal("-HUP");
    wait_until("the invalid file is logged", || {
        (server.count_in_log("kept the old tokens") > 0).then_some(())
    });
    assert_eq!(status(MARIE), 200);
    assert_eq!(status(next), 401);

    fs::write(&file, "marie:write:next-0123456789abcdef\n").unwrap();
    server.signal("-HUP");
    wait_until("the new token is accepted", || {
        (status(next) == 200).then_some(())
    });
    assert_eq!(status(MARIE), 401);
    assert_eq!(status(SITE), 401);
    assert_eq!(
        server.count_in_log("0123456789abcdef"),
        0,
        "no token is logged"
    );
}

#[test]
fn a_non_loopback_address_requires_tokens() {
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
    command
        .args(["http", "--listen", "0.0.0.0:0"])
        .env("PORTFOLIO_TOKENS", TOKENS);
    let server = HttpServer::spawn(home, command);
    let here = SocketAddr::new([127, 0, 0, 1].into(), server.address.port());
    let status = |headers: &[(&str, &str)]| http::send(here, "GET", "/nowhere", headers, "").status;
    assert_eq!(status(&[]), 401);
    assert_eq!(status(&[MARIE]), 404);
}

/// Calls `get_project` with `id` on its connection until the server has time for it. A slow machine
/// may have too many calls in progress, or take too long for a read; then the server says so. Any
/// other failure of the store fails the test.
fn get_project(connection: &mut Option<Connection>, request_id: u64, id: &str) -> Value {
    let busy = |message: &str| {
        [
            "was not started",
            "the store cannot be reached",
            "did not answer within",
        ]
        .iter()
        .any(|reason| message.contains(reason))
    };
    let call = tool_call(request_id, "get_project", &json!({ "id": id })).to_string();
    loop {
        let open = connection.take().unwrap();
        let response = open.send("POST", "/mcp", &with_json_headers(&[]), &call);
        let (body, open) = response.into_parts();
        *connection = Some(open);
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["id"], json!(request_id), "{answer}");
        let output = tool_output(&answer["result"]);
        if !output["error"]["message"].as_str().is_some_and(busy) {
            return output;
        }
    }
}

/// `scripts/bench.sh` makes 100,000 calls of the release build. This makes fewer, because a debug
/// build answers 10 times slower.
#[test]
fn no_answer_reaches_another_client() {
    const CLIENTS: usize = 500;
    const CALLS: u64 = 20;
    let store = Store::sqlite();
    import_projects(&store, CLIENTS);
    let server = serve(&store, &[]);

    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let mut connection = Some(Connection::open(server.address));
            scope.spawn(move || {
                let own = format!("client-{number}");
                // Every client uses the same request ids.
                for id in 0..CALLS {
                    let output = get_project(&mut connection, id, &own);
                    assert_eq!(output["data"]["id"], json!(own), "{output}");
                }
            });
        }
    });
}

/// How a client disconnects.
#[derive(Debug, Clone, Copy)]
enum Disconnect {
    /// With a reset, as a killed program does.
    Reset,
    /// It sends no more, and closes only when the server does.
    HalfClose,
    /// In the usual way.
    Close,
}

/// Opens a session, makes a call, and disconnects before the answer.
fn call_and_disconnect(address: SocketAddr, disconnect: Disconnect) {
    let session = SseSession::open(address);
    let call = tool_call(1, "get_project", &json!({ "id": "client-0" }));
    let accepted = session.post_with(&[("Connection", "close")], call.to_string());
    assert_eq!(accepted.status, 202);
    let mut stream = session.into_events().into_connection().into_stream();
    match disconnect {
        Disconnect::Reset => {
            stream.set_nonblocking(true).unwrap();
            let stream = tokio::net::TcpStream::from_std(stream).unwrap();
            stream.set_zero_linger().unwrap();
        }
        Disconnect::HalfClose => {
            stream.shutdown(Shutdown::Write).unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        }
        Disconnect::Close => {}
    }
}

#[tokio::test]
async fn disconnected_clients_leak_nothing() {
    const ROUNDS: usize = 10;
    const CLIENTS: usize = 100;
    let store = Store::redis();
    import_projects(&store, 1);
    let server = serve(&store, &[]);
    let process = server.process_id();
    let before = usage(process);
    let mut warm = None;
    let runtime = tokio::runtime::Handle::current();

    for round in 0..ROUNDS {
        // The calls are in progress while the store does not answer.
        store.server().stop();
        thread::scope(|scope| {
            for number in 0..CLIENTS {
                let disconnect =
                    [Disconnect::Reset, Disconnect::HalfClose, Disconnect::Close][number % 3];
                let (address, runtime) = (server.address, &runtime);
                scope.spawn(move || {
                    let _entered = runtime.enter();
                    call_and_disconnect(address, disconnect);
                });
            }
        });
        store.server().cont();
        wait_until("no session is left", || {
            (server.sse_sessions() == Some(0)).then_some(())
        });
        if round == 1 {
            warm = usage(process);
        }
    }

    assert_eq!(server.count_in_log("SSE session opened"), ROUNDS * CLIENTS);
    if let (Some(before), Some(warm)) = (before, warm) {
        let after = wait_until("descriptors and threads are freed", || {
            usage(process).filter(|now| {
                now.descriptors <= before.descriptors + 4 && now.threads <= before.threads + 4
            })
        });
        // 800 sessions later, a leak of 10 KB for each would show.
        assert!(
            after.kilobytes < warm.kilobytes + 8 * 1024,
            "{before:?}, {warm:?}, {after:?}"
        );
    }
    let get = tool_call(1, "get_project", &json!({ "id": "client-0" }));
    assert_eq!(server.post(&[], &get).status, 200);
    store.assert_sound().await;
}

/// A session whose client sends many calls and reads neither its stream nor the responses to its
/// posts.
fn open_deaf_session(address: SocketAddr, calls: u64) -> (SseSession, Connection) {
    let session = SseSession::open(address);
    let mut poster = Connection::open(address);
    let headers = with_json_headers(&[]);
    for id in 0..calls {
        let call = match id % 2 {
            0 => tool_call(id, "get_project", &json!({ "id": "large" })),
            _ => tool_call(id, "list_projects", &json!({ "detail": "full" })),
        };
        let body = call.to_string();
        poster.write(&http::request(
            "localhost",
            "POST",
            session.endpoint(),
            &headers,
            body.as_bytes(),
        ));
    }
    (session, poster)
}

#[test]
fn sessions_that_never_read_take_little_memory() {
    const SESSIONS: usize = 40;
    const CALLS: u64 = 300;
    const MAX_KILOBYTES: usize = 150 * 1024;
    const STEADY: Duration = Duration::from_secs(3);
    let (home, store) = (Home::new(), Store::sqlite());
    let mut large = project("large");
    large.insert("notes".to_owned(), json!("x \"y\" ".repeat(200 * 1024 / 6)));
    let file = home.path().join("projects.json");
    fs::write(file, json!([large]).to_string()).unwrap();
    store.import(home.path());
    let server = HttpServer::start(&store, &[]);
    server.call("get_project", &json!({ "id": "large" }));
    let Some(before) = usage(server.process_id()) else {
        return;
    };

    let deaf: Vec<_> = (0..SESSIONS)
        .map(|_| open_deaf_session(server.address, CALLS))
        .collect();
    let (mut most, mut since) = (0, Instant::now());
    wait_until("the memory grows no more", || {
        let kilobytes = usage(server.process_id()).unwrap().kilobytes;
        if kilobytes > most {
            (most, since) = (kilobytes, Instant::now());
        }
        (since.elapsed() > STEADY).then_some(())
    });

    let growth = most - before.kilobytes;
    println!("{SESSIONS} sessions that never read take {growth} KiB");
    assert!(growth < MAX_KILOBYTES, "{growth} KiB");
    // Other clients are served meanwhile, and nothing stays afterwards.
    let mut other = SseSession::open(server.address);
    let get = json!({ "name": "get_project", "arguments": { "id": "large" } });
    assert_eq!(
        tool_output(&other.request("tools/call", &get)["result"])["success"],
        true
    );
    drop((deaf, other));
    assert_eq!(server.stop(), "");
}

#[tokio::test]
async fn clients_killed_during_a_call_leave_no_process_behind() {
    const ROUNDS: usize = 10;
    const CLIENTS: usize = 20;
    let (home, store) = (Home::new(), Store::sqlite());
    import_projects(&store, 1);

    for round in 0..ROUNDS {
        let mut children: Vec<Child> = (0..CLIENTS)
            .map(|_| {
                let mut command = home.command(PROGRAM);
                command
                    .arg("stdio")
                    .args(store.arguments())
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
                writeln!(stdin, "{}", tool_call(id, "update_project", &title)).unwrap();
            }
            if number % 2 == 0 {
                // These are killed in the middle of a message, after the first answer.
                let mut line = String::new();
                BufReader::new(child.stdout.as_mut().unwrap())
                    .read_line(&mut line)
                    .unwrap();
                stdin.write_all(b"{\"jsonrpc\":").unwrap();
            }
            // Both pipes break at the same time.
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

#[tokio::test]
async fn a_stop_finishes_calls_in_progress_and_ends_within_ten_seconds() {
    for signal in ["-TERM", "-INT"] {
        let store = Store::redis();
        import_projects(&store, 1);
        let mut server = serve(&store, &[]);
        let update = |transport: &str| {
            let title = format!("by {transport}");
            let arguments = json!({ "id": "client-0", "data": { "title": title } });
            tool_call(1000, "update_project", &arguments).to_string()
        };
        let mut session = SseSession::open(server.address);
        let mut idle: Vec<SseSession> = (0..5).map(|_| SseSession::open(server.address)).collect();
        let stdio = StdioClient::start(&store).await;

        store.server().stop();
        assert_eq!(session.post(update("sse")).status, 202);
        stdio.send(&update("stdio")).await;
        // The server reads in order, so after this answer it has read the update too.
        stdio.request("ping", json!({})).await.unwrap().unwrap();
        let stopped = Instant::now();
        server.signal(signal);
        stdio.signal(signal);
        for session in &mut idle {
            assert_eq!(session.next_message(), None);
        }
        store.server().cont();

        let over_stdio = tool_output(&stdio.next_unexpected().await["result"]);
        assert_eq!(over_stdio["success"], true, "{over_stdio}");
        let answer = session.next_message().expect("the update is answered");
        let over_sse = tool_output(&answer["result"]);
        assert_eq!(over_sse["success"], true, "{over_sse}");
        assert_eq!(session.next_message(), None);
        assert_eq!(server.wait(), Some(0));
        // Its input is still open.
        assert_eq!(stdio.wait().code(), Some(0));
        assert!(
            stopped.elapsed() < Duration::from_secs(10),
            "{:?}",
            stopped.elapsed()
        );
        store.assert_sound().await;
    }
}

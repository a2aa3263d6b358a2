//! The manners of the command line: pipes that close, Ctrl-C, a terminal, a port in use.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use crate::support::{
    process::signal,
    program::{Home, PROGRAM},
    server::HttpServer,
    stores::Store,
    wait_until,
};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn spawn(command: &mut Command) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs a command whose reader leaves before the first line is written.
fn run_unread(command: &mut Command) -> Output {
    let mut child = spawn(command);
    drop(child.stdout.take());
    child.wait_with_output().unwrap()
}

fn content() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/content");
    path.to_string_lossy().into_owned()
}

#[test]
fn a_reader_that_leaves_ends_no_command_badly() {
    let home = Home::new();
    let content = content();
    for arguments in [
        &["doctor", "--store=sqlite:x.db"][..],
        &["doctor", "--store=sqlite:x.db", "--format=json"],
        &["import", &content, "--store=sqlite:x.db"],
        &["import", &content, "--store=sqlite:x.db", "--dry-run"],
        &["--help"],
        &["help", "http"],
        &["--version"],
    ] {
        let output = run_unread(home.command(PROGRAM).args(arguments));

        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {stderr}");
        assert!(
            !stderr.contains("panicked") && !stderr.contains("pipe"),
            "{stderr}"
        );
    }
}

#[test]
fn an_import_whose_reader_leaves_is_complete() {
    let home = Home::new();
    run_unread(
        home.command(PROGRAM)
            .args(["import", &content(), "--store=sqlite:x.db"]),
    );

    let mut again = home.command(PROGRAM);
    let output = again
        .args(["import", &content(), "--store=sqlite:x.db"])
        .output()
        .unwrap();

    assert!(
        text(&output.stdout).contains("0 created, 0 replaced, 6 unchanged"),
        "{output:?}"
    );
}

/// A store that accepts a connection and never answers.
fn silent_store() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    (listener, url)
}

#[test]
fn commands_that_ctrl_c_interrupts_end_with_130() {
    let (home, content) = (Home::new(), content());
    for arguments in [
        &["import", &content][..],
        &["doctor"],
        &["doctor", "--smoke"],
    ] {
        let (listener, url) = silent_store();
        let child = spawn(
            home.command(PROGRAM)
                .args(arguments)
                .args(["--store", &url]),
        );
        let _connection: TcpStream = listener.accept().unwrap().0;

        signal(child.id(), "-INT");

        let output = child.wait_with_output().unwrap();
        let written = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{arguments:?}: {written}");
        assert!(written.contains("interrupted"), "{arguments:?}: {written}");
    }
}

#[cfg(unix)]
#[test]
fn an_import_that_waits_for_a_file_can_be_interrupted() {
    let home = Home::new();
    let folder = home.path().join("folder");
    fs::create_dir(&folder).unwrap();
    let pipe = folder.join("projects.json");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let mut command = home.command(PROGRAM);
    command
        .arg("import")
        .arg(&folder)
        .arg("--store=sqlite:x.db");
    let child = spawn(&mut command);
    // Returns when the program has opened it too.
    let _writer = fs::OpenOptions::new().write(true).open(&pipe).unwrap();

    signal(child.id(), "-INT");

    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
}

#[test]
fn an_interrupted_import_leaves_whole_documents() {
    let home = Home::new();
    let folder = home.path().join("many");
    fs::create_dir(&folder).unwrap();
    let projects: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(format!("{}/projects.json", content())).unwrap())
            .unwrap();
    let many: Vec<serde_json::Value> = (0..2000)
        .map(|number| {
            let mut project = projects[0].clone();
            project["id"] = format!("project-{number}").into();
            project
        })
        .collect();
    fs::write(
        folder.join("projects.json"),
        serde_json::to_string(&many).unwrap(),
    )
    .unwrap();
    let store = Store::sqlite();
    let arguments = store.arguments();
    let mut command = home.command(PROGRAM);
    command.arg("import").arg(&folder).args(&arguments);
    let child = spawn(&mut command);
    wait_until("something is imported", || {
        let documents = rusqlite::Connection::open(store.file())
            .ok()?
            .query_row("SELECT count(*) FROM documents", [], |row| {
                row.get::<_, i64>(0)
            })
            .ok()?;
        (documents > 0).then_some(())
    });

    signal(child.id(), "-INT");

    let output = child.wait_with_output().unwrap();
    assert!(matches!(output.status.code(), Some(130 | 0)), "{output:?}");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let log = runtime.block_on(store.assert_sound());
    assert_eq!(log.documents.len() % 25, 0, "batches are whole");
}

#[test]
fn a_port_in_use_says_what_to_do() {
    let home = Home::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();

    let output = home
        .command(PROGRAM)
        .args(["http", "--store=sqlite:x.db", "--listen", &address])
        .output()
        .unwrap();

    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    for part in [&address, "another program", "--listen", "PORTFOLIO_LISTEN"] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
}

#[test]
fn http_prints_the_whole_addresses() {
    let server = HttpServer::start(&Store::sqlite(), &[]);

    let address = server.address;
    for path in ["/mcp", "/sse", "/api/projects", "/api/resources"] {
        wait_until("the address is printed", || {
            let log = server.log();
            log.contains(&format!("http://{address}{path} "))
                .then_some(())
        });
    }
}

/// On a terminal of its own, whose keyboard sends the end of input.
#[cfg(target_os = "linux")]
fn on_a_terminal(home: &Home, command: &str) -> (Option<i32>, String) {
    let output = home
        .command("script")
        .args(["-qec", &format!("{PROGRAM} {command}"), "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (output.status.code(), text(&output.stdout))
}

#[cfg(target_os = "linux")]
#[test]
fn stdio_on_a_terminal_says_that_it_waits_for_a_client() {
    let home = Home::new();

    let (code, screen) = on_a_terminal(&home, "stdio --store=sqlite:x.db");
    let (_, help) = on_a_terminal(&home, "");

    assert_eq!(code, Some(0), "{screen}");
    for part in [
        "waiting for an MCP client",
        "Ctrl-C",
        "portfolio-mcp http",
        "portfolio-mcp doctor",
    ] {
        assert!(screen.contains(part), "{part}: {screen}");
    }
    assert!(
        help.contains("Usage") && !help.contains("waiting"),
        "{help}"
    );
}

#[test]
fn stdio_of_a_client_does_not_speak_of_a_terminal() {
    let home = Home::new();
    let mut child = spawn(home.command(PROGRAM).args(["stdio", "--store=sqlite:x.db"]));

    let stderr = BufReader::new(child.stderr.take().unwrap());
    let lines: Vec<String> = stderr.lines().map(Result::unwrap).collect();

    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!lines.concat().contains("waiting"), "{lines:?}");
}

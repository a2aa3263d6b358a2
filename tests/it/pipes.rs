//! Clients that do not read what the server writes: it answers, and ends all the same.

use std::net::TcpListener;

use serde_json::json;

use super::support::{
    http,
    program::{Home, PROGRAM, repository_path},
    server::HttpServer,
    stdio::StdioClient,
    stores::Store,
    wait_until,
};

fn filled_store() -> Store {
    let store = Store::sqlite();
    store.import(&repository_path("examples/content"));
    store
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

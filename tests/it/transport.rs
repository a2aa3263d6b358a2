//! The program over stdio, Streamable HTTP and HTTP+SSE: the same answers, a clean end, only
//! protocol on stdout.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::support::{
    http,
    messages::{self, MODERN, client_hello, modern_meta, tool_call, tool_output},
    process::run_with_input,
    program::{Home, PROGRAM, repository_path},
    redis::RedisServer,
    server::HttpServer,
    sse::SseSession,
    stdio::StdioClient,
    stores::Store,
};

/// A store with the sample content and the broken documents.
fn filled_store() -> Store {
    let store = Store::sqlite();
    for folder in ["examples/content", "tests/fixtures/broken"] {
        store.import(&repository_path(folder));
    }
    store
}

/// The output of a call without its times, which differ from call to call.
fn comparable(result: &Value) -> Value {
    let mut output = tool_output(result);
    if let Some(meta) = output.get_mut("meta") {
        meta["timestamp"] = Value::Null;
    }
    if output["success"] == json!(false) {
        output["error"]["timestamp"] = Value::Null;
    }
    output
}

#[tokio::test]
async fn every_tool_answers_the_same_over_all_three_transports() {
    let store = filled_store();
    let server = HttpServer::start(&store, &[]);
    let stdio = StdioClient::start(&store).await;
    let mut sse = SseSession::open(server.address);
    let hello = client_hello("2024-11-05", "old", "1");
    assert_eq!(
        sse.request("initialize", &hello)["result"]["protocolVersion"],
        "2024-11-05"
    );
    let calls = [
        ("list_projects", json!({})),
        (
            "list_projects",
            json!({ "detail": "full", "status": "published" }),
        ),
        ("list_projects", json!({ "limit": 0 })),
        ("get_project", json!({ "id": "rdv-artisan" })),
        ("get_project", json!({ "id": "broken-project" })),
        ("get_project", json!({ "id": "nobody" })),
        ("update_project", json!({ "id": "rdv-artisan", "data": {} })),
        (
            "update_project",
            json!({ "id": "rdv-artisan", "data": { "titel": "x" } }),
        ),
        (
            "update_project",
            json!({ "id": "rdv-artisan", "data": { "title": "x" }, "expectedVersion": "0" }),
        ),
        ("list_resources", json!({ "query": "guide" })),
        ("get_resource", json!({ "id": "broken-resource" })),
        (
            "update_resource",
            json!({ "id": "cahier-des-charges-web", "data": { "price": "" } }),
        ),
        ("get_audit_log", json!({ "limit": 3 })),
        ("get_audit_stats", json!({})),
    ];

    for (tool, arguments) in &calls {
        let call = json!({ "name": tool, "arguments": arguments });
        let over_stdio = comparable(
            &stdio
                .request("tools/call", call.clone())
                .await
                .unwrap()
                .unwrap(),
        );
        let over_http = comparable(&server.call(tool, arguments));
        let over_sse = comparable(&sse.request("tools/call", &call)["result"]);

        assert_eq!(over_stdio, over_http, "{tool} {arguments}");
        assert_eq!(over_stdio, over_sse, "{tool} {arguments}");
    }
    let tools = stdio
        .request("tools/list", json!({}))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        tools["tools"],
        server.request("tools/list", &json!({}))["result"]["tools"]
    );
    assert_eq!(
        tools["tools"],
        sse.request("tools/list", &json!({}))["result"]["tools"]
    );

    drop(sse);
    assert_eq!(
        stdio.unexpected(),
        Vec::<String>::new(),
        "stdout holds answers only"
    );
    assert_eq!(server.stop(), "", "an HTTP server writes nothing to stdout");
}

#[tokio::test]
async fn the_log_names_the_client_of_every_transport() {
    let store = filled_store();
    let server = HttpServer::start(&store, &[]);
    let hello = client_hello("2025-06-18", "named", "3");
    let initialized = server.post(&[], &messages::request(0, "initialize", &hello));
    let session_id = initialized.header("mcp-session-id").unwrap().to_owned();
    let update = |title: &str| json!({ "id": "rdv-artisan", "data": { "title": title } });

    server
        .post(
            &[("Mcp-Session-Id", &session_id), ("User-Agent", "browser/1")],
            &tool_call(7, "update_project", &update("by session")),
        )
        .json();
    server
        .post(
            &[("User-Agent", "browser/1")],
            &tool_call(8, "update_project", &update("by user agent")),
        )
        .json();
    let mut sse = SseSession::open(server.address);
    sse.request("initialize", &hello);
    let call = json!({ "name": "update_project", "arguments": update("by connection") });
    sse.request("tools/call", &call);

    let log = tool_output(&server.call(
        "get_audit_log",
        &json!({ "action": "update", "detail": "full" }),
    ));
    let origins: Vec<[&Value; 5]> = log["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            [
                "clientId",
                "transport",
                "userAgent",
                "ipAddress",
                "requestId",
            ]
            .map(|name| &entry["metadata"][name])
        })
        .collect();
    let none = &Value::Null;
    let (here, agent) = (&json!("127.0.0.1"), &json!("browser/1"));
    assert_eq!(
        origins[0],
        [&json!("named/3"), &json!("sse"), none, here, &json!("1")]
    );
    assert_eq!(
        origins[1],
        [agent, &json!("http"), agent, here, &json!("8")]
    );
    assert_eq!(
        origins[2],
        [&json!("named/3"), &json!("http"), agent, here, &json!("7")]
    );
    assert_eq!(
        log["data"][0]["metadata"].get("actor"),
        None,
        "over HTTP the actor is not the operating system's user"
    );
}

#[test]
fn invalid_messages_get_json_rpc_errors_over_http() {
    let store = filled_store();
    let server = HttpServer::start(&store, &[]);
    let sse = SseSession::open(server.address);
    let huge = json!({ "x": "y".repeat(10 << 20) }).to_string();

    for (body, status, code) in [
        ("{ not json", 400, -32700),
        (r#"{"hello":1}"#, 400, -32600),
        ("[]", 400, -32600),
    ] {
        let answer = server.post(&[], &body);
        assert_eq!(answer.status, status, "{body}");
        assert_eq!(answer.json()["error"]["code"], code, "{body}");
        assert_eq!(sse.post(body).status, 400, "{body}");
    }
    assert_eq!(server.post(&[], &huge).status, 413);
    assert_eq!(sse.post(&huge).status, 413);
    assert_eq!(
        http::send(
            server.address,
            "POST",
            "/sse",
            &[("Content-Type", "application/json")],
            "{}"
        )
        .status,
        405
    );
    assert_eq!(
        server.request("tools/call", &json!({ "name": "nope", "arguments": {} }))["error"]["code"],
        -32602
    );
}

#[test]
fn every_route_rejects_unknown_hosts_and_origins() {
    let options = [
        "--allowed-host",
        "cms.example.com",
        "--allowed-origin",
        "https://example.com",
    ];
    let store = filled_store();
    let server = HttpServer::start(&store, &options);

    for path in ["/mcp", "/sse", "/messages", "/nowhere"] {
        let foreign_host = http::send(
            server.address,
            "POST",
            path,
            &[("Host", "evil.example")],
            "{}",
        );
        assert_eq!(foreign_host.status, 403, "{path}");
        assert!(foreign_host.text().contains("--allowed-host"), "{path}");
        let foreign_origin = http::send(
            server.address,
            "POST",
            path,
            &[("Origin", "https://evil.example")],
            "{}",
        );
        assert_eq!(foreign_origin.status, 403, "{path}");
        assert!(foreign_origin.text().contains("--allowed-origin"), "{path}");
    }
    let allowed = [
        ("Host", "cms.example.com"),
        ("Origin", "https://example.com"),
    ];
    let ping = messages::request(1, "ping", &json!({}));
    assert_eq!(server.post(&allowed, &ping).status, 200);
}

#[test]
fn every_protocol_revision_works_without_a_session() {
    let store = filled_store();
    let server = HttpServer::start(&store, &[]);

    for revision in ["2025-03-26", "2025-06-18", "2025-11-25"] {
        let hello = client_hello(revision, "it", "1");
        assert_eq!(
            server.request("initialize", &hello)["result"]["protocolVersion"],
            revision
        );
        let version = [("MCP-Protocol-Version", revision)];
        let list = server.request_with(&version, "tools/list", &json!({}));
        assert_eq!(
            list["result"]["tools"].as_array().unwrap().len(),
            8,
            "{revision}"
        );
    }
    let headers = [
        ("MCP-Protocol-Version", MODERN),
        ("Mcp-Method", "tools/call"),
        ("Mcp-Name", "get_project"),
    ];
    let call = json!({
        "name": "get_project",
        "arguments": { "id": "rdv-artisan" },
        "_meta": modern_meta("modern", "1"),
    });
    let answer = server.request_with(&headers, "tools/call", &call);
    assert_eq!(
        answer["result"]["structuredContent"]["data"]["id"],
        "rdv-artisan"
    );
}

/// Since 2026-07-28 there is no `initialize`, so an older revision is agreed on, and in that one
/// `ping` is a method.
#[tokio::test]
async fn the_agreed_protocol_revision_counts_not_the_requested_one() {
    let store = filled_store();
    let server = HttpServer::start(&store, &[]);

    for requested in [MODERN, "2099-01-01"] {
        let hello = client_hello(requested, "it", "1");
        let mut sse = SseSession::open(server.address);
        let stdio = StdioClient::spawn_on(&store);

        let over_sse = sse.request("initialize", &hello);
        let over_stdio = stdio.request("initialize", hello).await.unwrap().unwrap();

        assert_eq!(over_sse["result"]["protocolVersion"], "2025-11-25");
        assert_eq!(over_stdio["protocolVersion"], "2025-11-25");
        assert_eq!(sse.request("ping", &json!({}))["result"], json!({}));
        assert_eq!(
            stdio.request("ping", json!({})).await.unwrap(),
            Ok(json!({}))
        );
    }
}

#[test]
fn open_streams_end_with_the_server() {
    let store = filled_store();
    let server = HttpServer::start(&store, &[]);
    let mut sessions: Vec<SseSession> = std::iter::repeat_with(|| SseSession::open(server.address))
        .take(5)
        .collect();

    server.stop();

    for session in &mut sessions {
        assert_eq!(session.next_message(), None);
    }
}

/// Runs the program to the end of `input`; gives its exit code and its answers.
fn run(arguments: &[String], input: &str) -> (Option<i32>, Vec<Value>) {
    let home = Home::new();
    let output = run_with_input(home.command(PROGRAM).args(arguments), input);
    let lines = String::from_utf8(output.stdout).unwrap();
    let answers = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    (output.status.code(), answers)
}

#[test]
fn at_the_end_of_its_input_stdio_ends_after_the_last_answer() {
    let store = filled_store();
    let server = HttpServer::start(&store, &[]);
    let arguments = [vec!["stdio".to_owned()], store.arguments()].concat();
    let list = tool_call(1, "list_projects", &json!({}));
    let update = json!({ "id": "rdv-artisan", "data": { "title": "Last" } });
    let update = tool_call(2, "update_project", &update);

    let (code_of_none, none) = run(&arguments, "");
    // There is no handshake, and the last line has no line end.
    let (code_of_two, two) = run(&arguments, &format!("{list}\n{update}"));

    assert_eq!(code_of_none, Some(0));
    assert_eq!(none.len(), 0);
    assert_eq!(code_of_two, Some(0));
    assert_eq!(two.len(), 2);
    assert!(
        two.iter()
            .all(|answer| answer["result"]["structuredContent"]["success"] == json!(true)),
        "{two:?}"
    );
    let stored = tool_output(&server.call("get_project", &json!({ "id": "rdv-artisan" })));
    assert_eq!(stored["data"]["title"], "Last");
}

#[test]
fn without_a_command_and_a_terminal_the_program_serves_stdio() {
    let list = messages::request(1, "tools/list", &json!({}));

    let (code, answers) = run(&[], &list.to_string());

    assert_eq!(code, Some(0));
    assert_eq!(answers[0]["result"]["tools"].as_array().unwrap().len(), 8);
}

#[tokio::test]
async fn a_stop_signal_ends_stdio_while_its_input_is_open() {
    let home = Home::new();
    let mut command = home.command(PROGRAM);
    command.arg("stdio");
    let client = StdioClient::spawn(home.into(), command);
    let list = client.request("tools/list", json!({})).await.unwrap();
    assert!(list.is_ok(), "{list:?}");

    client.signal("-TERM");

    assert_eq!(client.wait().code(), Some(0));
}

#[tokio::test]
async fn a_store_that_is_down_is_reported_and_used_again_when_it_is_back() {
    let mut redis = RedisServer::start();
    let url = redis.url();
    redis.kill9();
    let client = StdioClient::start_with(&["--store", &url]).await;

    let down = client.call("get_project", json!({ "id": "x" })).await;
    redis.restart();
    let back = client
        .call_until("get_project", json!({ "id": "x" }), |answer| {
            answer["error"]["code"] != "STORE_UNAVAILABLE"
        })
        .await;

    assert_eq!(down["error"]["code"], "STORE_UNAVAILABLE");
    assert!(
        down["error"]["message"]
            .as_str()
            .unwrap()
            .contains("try again")
    );
    assert_eq!(back["error"]["code"], "PROJECT_NOT_FOUND");
}

#[tokio::test]
async fn a_store_that_never_answers_gives_the_client_an_error() {
    let redis = RedisServer::start();
    let client = StdioClient::start_with(&["--store", &redis.url()]).await;
    client.call("get_project", json!({ "id": "x" })).await;

    redis.stop();
    let answer = client
        .call(
            "update_project",
            json!({ "id": "x", "data": { "title": "x" } }),
        )
        .await;
    redis.cont();

    assert_eq!(answer["success"], json!(false));
    let back = client
        .call_until("get_project", json!({ "id": "x" }), |answer| {
            answer["error"]["code"] != "STORE_UNAVAILABLE"
        })
        .await;
    assert_eq!(back["error"]["code"], "PROJECT_NOT_FOUND");
}

/// The program accepts the commands of `mcp.json.example` and serves its addresses.
#[tokio::test]
async fn the_example_configuration_starts_and_connects() {
    let example = std::fs::read_to_string(repository_path("mcp.json.example")).unwrap();
    let example: Value = serde_json::from_str(&example).unwrap();
    let server = &example["mcpServers"]["portfolio"];
    let arguments: Vec<&str> = server["args"]
        .as_array()
        .unwrap()
        .iter()
        .map(|argument| argument.as_str().unwrap())
        .collect();
    let (redis, home) = (RedisServer::start(), Home::new());
    let folder = home.path().join(".config/portfolio-mcp");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("store"), redis.url()).unwrap();
    std::fs::set_permissions(folder.join("store"), PermissionsExt::from_mode(0o600)).unwrap();

    let mut command = home.command(PROGRAM);
    command.args(&arguments);
    let client = StdioClient::spawn(home.into(), command);

    assert_eq!(
        client.call("list_projects", json!({})).await["meta"]["source"],
        "redis"
    );
}

//! What client programs really send: arguments of their own, empty values, other headers and paths.

use portfolio_mcp::domain::{DocumentKey, Kind};
use serde_json::{Value, json};
use url::Url;

use crate::support::{
    fixtures::{create, create_sound, project, project_key, with},
    http::{self, Response},
    messages::{self, MODERN, client_hello, modern_meta, tool_call, tool_output},
    prefix_proxy,
    program::repository_path,
    server::HttpServer,
    sse::SseSession,
    stdio::StdioClient,
    stores::Store,
};

const RESOURCE: &str = "cahier-des-charges-web";

fn samples() -> Store {
    let store = Store::sqlite();
    store.import(&repository_path("examples/content"));
    store
}

fn client_of_samples() -> (Store, StdioClient) {
    let store = samples();
    let client = StdioClient::in_process(store.open(), None);
    (store, client)
}

/// A call of each tool.
fn calls() -> [(&'static str, Value); 8] {
    [
        ("list_projects", json!({})),
        ("get_project", json!({ "id": "rdv-artisan" })),
        (
            "update_project",
            json!({ "id": "rdv-artisan", "data": { "title": "A" } }),
        ),
        ("list_resources", json!({})),
        ("get_resource", json!({ "id": RESOURCE })),
        (
            "update_resource",
            json!({ "id": RESOURCE, "data": { "price": "5€" } }),
        ),
        ("get_audit_log", json!({})),
        ("get_audit_stats", json!({})),
    ]
}

/// The arguments with those of n8n.
fn as_n8n_sends(arguments: &Value) -> Value {
    let mut all = arguments.clone();
    for (name, value) in [
        ("sessionId", json!("8d1f")),
        ("action", json!("sendMessage")),
        ("chatInput", json!("x".repeat(5000))),
        ("toolCallId", json!("call_1")),
        ("tool", json!({ "name": "portfolio" })),
    ] {
        all[name] = value;
    }
    all
}

fn warnings(output: &Value) -> String {
    output["meta"]["warnings"].to_string()
}

fn violation<'a>(error: &'a Value, path: &str) -> &'a Value {
    let violations = error["details"]["violations"].as_array();
    violations
        .and_then(|all| all.iter().find(|violation| violation["path"] == path))
        .unwrap_or_else(|| panic!("nothing about {path}: {error}"))
}

#[tokio::test]
async fn every_tool_serves_n8n_and_names_what_it_ignores() {
    let store = samples();
    let server = HttpServer::start(&store, &[]);
    let stdio = StdioClient::start(&store).await;

    for (tool, arguments) in calls() {
        let sent = as_n8n_sends(&arguments);
        let over_stdio = stdio.call(tool, sent.clone()).await;
        let over_http = tool_output(&server.call(tool, &sent));

        for output in [over_stdio, over_http] {
            assert_eq!(output["success"], true, "{tool}: {output}");
            let warnings = warnings(&output);
            for name in ["toolCallId", "sessionId", "chatInput", "tool", "action"] {
                assert!(
                    warnings.contains(&format!("`{name}`")),
                    "{tool}: {warnings}"
                );
            }
            assert!(warnings.len() < 1000, "{tool}: {warnings}");
        }
    }
    let log = stdio.call("get_audit_log", json!({})).await;
    assert!(!log.to_string().contains("chatInput"));
    store.assert_sound().await;
}

#[tokio::test]
async fn other_clients_add_arguments_too() {
    let (_store, client) = client_of_samples();

    for (tool, mut arguments) in calls() {
        arguments["wait_for_previous"] = json!(true);
        arguments["_sessionID"] = json!("20260101");
        arguments["__proto__"] = json!({});
        let output = client.call(tool, arguments).await;

        assert_eq!(output["success"], true, "{tool}: {output}");
        for name in ["wait_for_previous", "_sessionID", "__proto__"] {
            assert!(warnings(&output).contains(name), "{tool}: {output}");
        }
    }
    for (tool, mut arguments) in calls() {
        arguments["waitForPrevious"] = json!(true);
        let error = client.call_error(tool, arguments).await;

        violation(&error, "waitForPrevious");
    }
}

#[tokio::test]
async fn an_action_filters_the_log_unless_n8n_sent_another_one() {
    let (_store, client) = client_of_samples();
    client
        .call(
            "update_project",
            json!({ "id": "rdv-artisan", "data": { "title": "A" } }),
        )
        .await;
    let count = async |arguments: Value| {
        let log = client.call("get_audit_log", arguments).await;
        log["data"].as_array().unwrap().len()
    };

    assert_eq!(count(json!({ "action": "update" })).await, 1);
    assert_eq!(
        count(json!({ "action": "update", "sessionId": "x" })).await,
        1
    );
    assert_eq!(count(json!({ "action": "publish" })).await, 0);
    assert!(count(json!({ "action": "publish", "toolCallId": "x" })).await > 1);
    let output = client
        .call(
            "get_audit_log",
            json!({ "action": "Update", "sessionId": "x" }),
        )
        .await;
    let warnings = warnings(&output);
    assert!(warnings.contains("does not have: `sessionId`;"));
    assert!(warnings.contains("none of the log's actions"), "{warnings}");
}

#[tokio::test]
async fn the_warning_about_ignored_arguments_is_short_whatever_their_names() {
    let (_store, client) = client_of_samples();

    for filler in ["\u{a0}", "\u{202f}", "\"", "x"] {
        let mut arguments = json!({});
        for number in 0..100 {
            arguments[format!("_{number}{}", filler.repeat(79))] = json!(1);
        }
        let answer = client
            .result(
                "tools/call",
                json!({ "name": "get_audit_stats", "arguments": arguments }),
            )
            .await;

        let text = answer["content"][0]["text"].as_str().unwrap();
        assert!(text.contains(" more"), "{text}");
        let data = answer["structuredContent"]["data"].to_string();
        assert!(text.len() < data.len() + 1500, "{text}");
    }
}

#[tokio::test]
async fn an_underscored_argument_of_a_writing_tool_is_refused() {
    let (store, client) = client_of_samples();
    let before = client.call("get_audit_stats", json!({})).await;

    for name in ["_dryRun", "_dry_run", "__dryRun", "_expectedVersion"] {
        let mut arguments = json!({ "id": "rdv-artisan", "data": { "title": "A" } });
        arguments[name] = json!(true);
        let error = client.call_error("update_project", arguments).await;

        let violation = violation(&error, name);
        assert_eq!(error["code"], "VALIDATION_FAILED");
        assert!(
            violation["message"].to_string().contains("may mean"),
            "{violation}"
        );
        assert!(violation["suggestion"].is_string(), "{violation}");
    }
    let read = client
        .call("get_project", json!({ "id": "rdv-artisan", "_id": "x" }))
        .await;

    assert_eq!(read["success"], true);
    assert_eq!(
        client.call("get_audit_stats", json!({})).await["data"],
        before["data"]
    );
    store.assert_sound().await;
}

#[tokio::test]
async fn ignored_arguments_and_the_reason_do_not_make_another_request() {
    let (store, client) = client_of_samples();
    let request = |more: Value| {
        let request =
            json!({ "id": "rdv-artisan", "data": { "title": "Once" }, "idempotencyKey": "k" });
        Value::Object(with(request.as_object().unwrap(), more))
    };

    let first = client
        .call("update_project", request(json!({ "toolCallId": "1" })))
        .await;
    let again = client
        .call(
            "update_project",
            request(json!({ "toolCallId": "2", "_x": 1, "reason": "again" })),
        )
        .await;
    let invalid = client
        .call("update_project", request(json!({ "reason": 5, "_x": 2 })))
        .await;

    assert_eq!(again["meta"]["replayed"], true);
    assert_eq!(again["meta"]["auditId"], first["meta"]["auditId"]);
    assert!(warnings(&again).contains("`_x`"));
    assert_eq!(invalid["meta"]["auditId"], first["meta"]["auditId"]);
    store.assert_sound().await;
}

#[tokio::test]
async fn null_and_in_reading_tools_an_empty_string_are_like_nothing() {
    let (_store, client) = client_of_samples();
    let tools = client.result("tools/list", json!({})).await;

    for tool in tools["tools"].as_array().unwrap() {
        let name = tool["name"].as_str().unwrap();
        let (_, arguments) = calls().into_iter().find(|(tool, _)| *tool == name).unwrap();
        let properties = tool["inputSchema"]["properties"].as_object().unwrap();
        let optional = properties
            .keys()
            .filter(|argument| arguments.get(argument.as_str()).is_none());
        let (mut nulls, mut empty) = (arguments.clone(), arguments.clone());
        for argument in optional {
            nulls[argument] = Value::Null;
            empty[argument] = json!("");
        }

        let with_nulls = client.call(name, nulls).await;
        assert_eq!(with_nulls["success"], true, "{name}: {with_nulls}");
        if tool["annotations"]["readOnlyHint"] == true {
            let with_empty = client.call(name, empty).await;
            assert_eq!(with_empty["success"], true, "{name}: {with_empty}");
            assert_eq!(
                with_empty["data"],
                client.call(name, arguments).await["data"]
            );
        } else {
            let error = client.call_error(name, empty).await;
            violation(&error, "expectedVersion");
        }
    }
    let error = client.call_error("get_project", json!({ "id": "" })).await;
    violation(&error, "id");
}

#[tokio::test]
async fn data_may_be_a_string_and_an_unreadable_one_is_called_what_it_is() {
    let (_store, client) = client_of_samples();
    let update = |data: &str| json!({ "id": "rdv-artisan", "data": data });

    let updated = client
        .call("update_project", update(" {\"title\":\"As text\"}\n"))
        .await;
    assert_eq!(updated["data"]["title"], "As text");
    for (data, says) in [
        (r#"{"title":"x""#, "not valid JSON"),
        (r#"{"title": NaN}"#, "not valid JSON"),
        (
            &format!(r#"{{"a":{}{}}}"#, "[".repeat(70), "]".repeat(70)),
            "nested",
        ),
        ("title: x", "found the string"),
        ("[1]", "found the string"),
    ] {
        let error = client.call_error("update_project", update(data)).await;
        let message = violation(&error, "data")["message"].to_string();
        assert!(message.contains(says), "{data}: {message}");
    }
}

#[tokio::test]
async fn what_php_sends_for_an_empty_object_is_served_on_every_transport() {
    let store = samples();
    let server = HttpServer::start(&store, &[]);
    let stdio = StdioClient::start(&store).await;
    let mut sse = SseSession::open(server.address);
    let mut hello = client_hello("2025-06-18", "php", "1");
    hello["capabilities"] = json!([]);

    for (method, params) in [
        ("initialize", hello),
        ("ping", json!([])),
        ("tools/list", json!([])),
        (
            "tools/call",
            json!({ "name": "list_projects", "arguments": [] }),
        ),
        (
            "tools/call",
            json!({ "name": "get_audit_stats", "arguments": [], "_meta": [] }),
        ),
    ] {
        let over_stdio = stdio.request(method, params.clone()).await.unwrap();
        let over_http = server.request(method, &params);
        let over_sse = sse.request(method, &params);

        assert!(over_stdio.is_ok(), "{method} {params}: {over_stdio:?}");
        for answer in [over_http, over_sse] {
            assert!(answer["result"].is_object(), "{method} {params}: {answer}");
        }
    }
}

#[tokio::test]
async fn initialize_is_served_whatever_a_client_says_about_itself() {
    let store = samples();
    let server = HttpServer::start(&store, &[]);

    for (number, described) in [
        json!({}),
        json!({ "capabilities": null, "clientInfo": null }),
        json!({ "capabilities": [], "clientInfo": [], "_meta": [] }),
        json!({ "capabilities": { "sampling": true, "roots": [] }, "clientInfo": { "name": "odd" } }),
        json!({ "capabilities": {}, "clientInfo": { "name": 5, "version": 1.0, "icons": "x" } }),
        json!({ "capabilities": "all", "clientInfo": "me", "more": 1 }),
    ]
    .into_iter()
    .enumerate()
    {
        let mut params = described.clone();
        params["protocolVersion"] = json!("2025-06-18");
        let stdio = StdioClient::in_process(store.open(), None);
        let mut sse = SseSession::open(server.address);

        let over_stdio = stdio.result("initialize", params.clone()).await;
        let over_http = server.request("initialize", &params)["result"].clone();
        let over_sse = sse.request("initialize", &params)["result"].clone();

        for result in [over_stdio, over_http, over_sse] {
            assert_eq!(result["protocolVersion"], "2025-06-18", "{described}");
        }
        let title = format!("Title {number}");
        let update = json!({ "id": "rdv-artisan", "data": { "title": title } });
        stdio.call("update_project", update).await;
    }
    let stdio = StdioClient::in_process(store.open(), None);
    let log = stdio
        .call(
            "get_audit_log",
            json!({ "action": "update", "detail": "full" }),
        )
        .await;
    let clients: Vec<&Value> = log["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| &entry["metadata"]["clientId"])
        .collect();
    let nobody = &Value::Null;
    assert_eq!(
        clients,
        [nobody, nobody, &json!("odd"), nobody, nobody, nobody]
    );
    store.assert_sound().await;
}

/// A client that tries both ways takes any other answer for a server of an older revision.
#[tokio::test]
async fn a_revision_without_sessions_has_no_initialize() {
    let server = HttpServer::start(&samples(), &[]);
    let headers = [
        ("MCP-Protocol-Version", MODERN),
        ("Mcp-Method", "initialize"),
    ];
    let params = json!({ "_meta": modern_meta("modern", "1") });

    let response = post(
        &server,
        "/mcp",
        &headers,
        &messages::request(1, "initialize", &params),
    );

    assert_eq!(response.status, 404);
    assert_eq!(response.json()["error"]["code"], -32601);
}

#[tokio::test]
async fn params_of_a_known_method_that_do_not_fit_name_the_member() {
    let store = samples();
    let server = HttpServer::start(&store, &[]);
    let stdio = StdioClient::in_process(store.open(), None);
    let long = "x".repeat(3000);

    for (method, params, names) in [
        ("initialize", json!({}), "`protocolVersion`"),
        (
            "initialize",
            json!({ "protocolVersion": 5 }),
            "`protocolVersion`",
        ),
        ("tools/call", json!([1]), "`params`"),
        ("tools/call", json!({}), "`name`"),
        ("tools/call", json!({ "name": [long] }), "`name`"),
        (
            "tools/call",
            json!({ "name": "get_project", "arguments": long }),
            "`arguments`",
        ),
        (
            "tools/call",
            json!({ "name": "get_project", "_meta": 5 }),
            "`_meta`",
        ),
        ("tools/list", json!({ "cursor": 5 }), "`cursor`"),
        ("tools/list", json!("x"), "`params`"),
        ("ping", json!("x"), "`params`"),
        ("server/discover", json!(5), "`params`"),
    ] {
        let over_stdio = stdio.error(method, params.clone()).await;
        let over_http = server.request(method, &params)["error"].clone();

        for error in [over_stdio, over_http] {
            assert_eq!(error["code"], -32602, "{method} {params}: {error}");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains(names), "{method} {params}: {message}");
            assert!(message.len() < 200, "{message}");
        }
    }
    for method in ["prompts/list", "resources/list"] {
        for params in [json!("x"), json!({}), json!({ "cursor": "a" })] {
            let over_stdio = stdio.error(method, params.clone()).await;
            let over_http = server.request(method, &params)["error"].clone();

            for error in [over_stdio, over_http] {
                let says = format!("this server has no method `{method}`");
                assert_eq!(error, json!({ "code": -32601, "message": says }));
            }
        }
    }
}

#[tokio::test]
async fn a_notification_gets_no_response_whatever_its_params() {
    let (_store, client) = client_of_samples();
    let server = HttpServer::start(&samples(), &[]);
    for params in ["[1]", "5", r#""x""#] {
        let line = format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/initialized","params":{params}}}"#
        );

        client.send(&line).await;
        let over_http = http::post_json(server.address, "/mcp", &[], &line);

        assert_eq!(over_http.status, 400, "{params}");
    }
    client.result("ping", json!({})).await;
    assert_eq!(client.unexpected(), Vec::<String>::new());
}

#[tokio::test]
async fn another_name_of_the_id_is_pointed_to_it() {
    let (_store, client) = client_of_samples();

    for name in ["slug", "key", "projectId"] {
        let error = client
            .call_error("get_project", json!({ (name): "rdv-artisan" }))
            .await;

        let found = violation(&error, name);
        assert_eq!(found["suggestion"], "id", "{name}");
    }
}

#[test]
fn refusals_over_http_do_not_repeat_long_values() {
    let server = HttpServer::start(&samples(), &[]);
    let long = "x".repeat(3000);
    let hello =
        |version: &str| messages::request(1, "initialize", &client_hello(version, "a", "1"));

    for (headers, message) in [
        (
            vec![("MCP-Protocol-Version", long.as_str())],
            messages::request(1, "ping", &json!({})),
        ),
        (vec![("MCP-Protocol-Version", "2025-06-18")], hello(&long)),
        (
            vec![("MCP-Protocol-Version", long.as_str())],
            hello("2025-06-18"),
        ),
        (vec![("Host", long.as_str())], hello("2025-06-18")),
        (vec![("Origin", long.as_str())], hello("2025-06-18")),
        (vec![("Accept", long.as_str())], hello("2025-06-18")),
    ] {
        let refused = server.post(&headers, &message);
        assert!(refused.status >= 400, "{headers:?}");
        let text = refused.text();
        assert!(!text.contains(&long[..81]), "{headers:?}: {text}");
        assert!(text.len() < 1000, "{text}");
    }
}

/// A request with these headers only.
fn post(server: &HttpServer, path: &str, headers: &[(&str, &str)], body: &Value) -> Response {
    let headers = [&[("Content-Type", "application/json")], headers].concat();
    http::send(server.address, "POST", path, &headers, body.to_string())
}

#[test]
fn clients_that_read_json_are_served_whatever_they_accept() {
    let store = samples();
    let server = HttpServer::start(&store, &[]);
    let call = tool_call(1, "get_project", &json!({ "id": "rdv-artisan" }));
    let mut modern = call.clone();
    modern["params"]["_meta"] = modern_meta("modern", "1");
    let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });

    for accept in [
        None,
        Some("*/*"),
        Some("application/json"),
        Some("application/*"),
        Some("text/html, application/json;q=0.9"),
    ] {
        let accept: Vec<(&str, &str)> = accept.map(|value| ("Accept", value)).into_iter().collect();
        for version in ["2025-03-26", "2025-06-18", "2025-11-25"] {
            let hello = messages::request(1, "initialize", &client_hello(version, "it", "1"));
            let hello = post(&server, "/mcp", &accept, &hello);
            assert_eq!(hello.status, 200, "{accept:?}");
            assert_eq!(hello.header("content-type"), Some("application/json"));
            assert!(hello.header("mcp-session-id").is_some());
            assert_eq!(hello.json()["result"]["protocolVersion"], version);

            let headers = [&[("MCP-Protocol-Version", version)], &accept[..]].concat();
            let answer = post(&server, "/mcp/", &headers, &call);
            assert_eq!(answer.status, 200, "{accept:?}");
            assert_eq!(tool_output(&answer.json()["result"])["success"], true);
            let notified = post(&server, "/mcp", &headers, &initialized);
            assert_eq!(notified.status, 202, "{accept:?}");
        }
        let headers = [
            &[
                ("MCP-Protocol-Version", MODERN),
                ("Mcp-Method", "tools/call"),
                ("Mcp-Name", "get_project"),
            ],
            &accept[..],
        ]
        .concat();
        let answer = post(&server, "/mcp", &headers, &modern);
        assert_eq!(answer.status, 200, "{accept:?}");
    }
    for accept in [
        "text/html",
        "text/event-stream",
        "application/json;q=0",
        "application/json;q=0, text/event-stream",
    ] {
        let refused = post(&server, "/mcp", &[("Accept", accept)], &call);
        assert_eq!(refused.status, 406, "{accept}");
        let refused = refused.json();
        assert_eq!(refused["id"], 1);
        let message = refused["error"]["message"].as_str().unwrap();
        assert!(
            message.starts_with("the client must accept `application/json`: "),
            "{accept}: {message}"
        );
    }
    assert_eq!(server.get("/mcp").status, 405);
}

#[test]
fn a_body_of_another_type_is_refused_with_the_type_that_is_needed() {
    let server = HttpServer::start(&samples(), &[]);
    let session = SseSession::open(server.address);
    let ping = messages::request(1, "ping", &json!({})).to_string();
    let types = [
        &[][..],
        &[("Content-Type", "application/x-www-form-urlencoded")],
        &[("Content-Type", "text/plain")],
        &[("Content-Type", "application/jsonx")],
    ];

    for content_type in types {
        for accept in [
            &[][..],
            &[("Accept", "*/*")],
            &[("Accept", "text/html")],
            &[("Accept", "application/json, text/event-stream")],
        ] {
            for path in ["/mcp", session.endpoint()] {
                let headers = [content_type, accept].concat();
                let refused = http::send(server.address, "POST", path, &headers, ping.as_str());

                assert_eq!(refused.status, 415, "{path} {headers:?}");
                assert_eq!(
                    refused.text().trim_end(),
                    "the content type must be `application/json`",
                    "{path} {headers:?}"
                );
            }
        }
    }
}

#[test]
fn a_slash_too_many_in_a_path_means_nothing() {
    let store = samples();
    let server = HttpServer::start(&store, &[]);

    for path in [
        "/healthz",
        "/readyz",
        "/metrics",
        "/api/projects",
        "/api/resources",
        "/api/projects/rdv-artisan",
    ] {
        let response = server.get(&format!("{path}/"));
        assert_eq!(response.status, 200, "{path}/");
        if path.starts_with("/api") {
            let etag = response.header("etag").unwrap().to_owned();
            assert_eq!(
                server.get(path).header("etag"),
                Some(etag.as_str()),
                "{path}"
            );
        }
    }
    for (path, status) in [
        ("//healthz", 200),
        ("//api/projects", 200),
        ("//api//", 404),
    ] {
        assert_eq!(server.get(path).status, status, "{path}");
    }
    let hello = messages::request(1, "initialize", &client_hello("2025-06-18", "it", "1"));
    assert_eq!(post(&server, "//mcp", &[], &hello).status, 200);
    let session = SseSession::open(server.address);
    let ping = messages::request(1, "ping", &json!({})).to_string();
    let posted = session.endpoint().replace("/messages?", "/messages/?");
    assert_eq!(
        http::post_json(server.address, &posted, &[], &ping).status,
        202
    );
    let stream = http::send(server.address, "GET", "/sse/", &[], "");
    assert_eq!(stream.header("content-type"), Some("text/event-stream"));
}

#[test]
fn a_path_that_is_not_served_names_those_that_are() {
    let store = samples();
    let server = HttpServer::start(&store, &[]);
    let hello = messages::request(1, "initialize", &client_hello("2025-06-18", "it", "1"));

    let posted = post(&server, "/", &[], &hello);
    assert_eq!(posted.status, 404);
    let text = posted.text();
    assert!(text.contains("MCP is not at `/`, but at `/mcp`"), "{text}");
    for path in ["/", "/api", "/mcp/x", "/v1/projects"] {
        let missing = server.get(path);
        assert_eq!(missing.status, 404, "{path}");
        let text = missing.text();
        for route in [
            "/mcp",
            "/sse",
            "/messages",
            "/api/projects",
            "/api/resources",
            "/healthz",
            "/readyz",
            "/metrics",
        ] {
            assert!(text.contains(route), "{path}: {text}");
        }
    }
}

#[test]
fn the_start_line_has_whole_addresses() {
    let server = HttpServer::start(&samples(), &[]);

    for path in ["/mcp", "/sse", "/api/projects"] {
        let address = format!("http://{}{path}", server.address);
        assert_eq!(server.count_in_log(&address), 1, "{}", server.log());
    }
}

/// What a client of `/sse` does that knows the address `base`: it resolves the endpoint against it,
/// as the protocol says and as every client does.
fn call_over_sse(base: &str) -> Value {
    let base: Url = base.parse().unwrap();
    let address = *base.socket_addrs(|| None).unwrap().first().unwrap();
    let mut session = SseSession::open_at(address, base.path(), &[]);
    let endpoint = base.join(session.endpoint()).unwrap();
    let target = format!("{}?{}", endpoint.path(), endpoint.query().unwrap());
    let call = tool_call(1, "get_project", &json!({ "id": "rdv-artisan" }));
    let posted = http::post_json(address, &target, &[], call.to_string());
    assert_eq!(posted.status, 202, "{target}");
    tool_output(&session.next_message().unwrap()["result"])
}

#[test]
fn clients_behind_a_path_prefix_post_to_the_prefixed_path() {
    let store = samples();
    let plain = HttpServer::start(&store, &[]);
    let configured = HttpServer::start(&store, &["--public-path", "/cms/site"]);
    let silent = prefix_proxy::start(configured.address, "/cms/site", None);
    let naming = prefix_proxy::start(plain.address, "/cms", Some("/cms"));
    let wrong = prefix_proxy::start(configured.address, "/cms/site", Some("/other"));

    for base in [
        format!("http://{silent}/cms/site/sse"),
        format!("http://{silent}/cms/site/sse/"),
        format!("http://{naming}/cms/sse"),
        format!("http://{wrong}/cms/site/sse"),
        format!("http://{}/sse", plain.address),
    ] {
        assert_eq!(call_over_sse(&base)["success"], true, "{base}");
    }
    let mcp = http::post_json(
        naming,
        "/cms/mcp/",
        &[],
        tool_call(1, "list_projects", &json!({})).to_string(),
    );
    assert_eq!(tool_output(&mcp.json()["result"])["success"], true);
    let text = http::post_json(naming, "/cms/", &[], "{}").text();
    assert!(text.contains("at `/cms/mcp`"), "{text}");
    // A proxy may leave its own path in place.
    let base = format!("http://{}/cms/site/sse", configured.address);
    assert_eq!(call_over_sse(&base)["success"], true);
    let api = configured.get("/cms/site/api/projects/");
    assert_eq!(api.status, 200);
}

#[test]
fn a_malformed_forwarded_prefix_is_ignored() {
    let server = HttpServer::start(&samples(), &[]);

    for prefix in [
        "cms",
        "/cms/",
        "//evil.example",
        "/a b",
        "/a,/b",
        "https://x/",
    ] {
        let headers = [("X-Forwarded-Prefix", prefix)];
        let session = SseSession::open_with(server.address, &headers);

        assert!(session.endpoint().starts_with("/messages?"), "{prefix}");
    }
}

#[test]
fn a_long_forwarded_prefix_is_not_repeated() {
    let server = HttpServer::start(&samples(), &[]);
    let longest = format!("/{}", "a".repeat(199));

    for (prefix, repeated) in [
        (longest.clone(), true),
        (format!("{longest}a"), false),
        (format!("/{}", "a".repeat(3000)), false),
    ] {
        let headers = [("X-Forwarded-Prefix", prefix.as_str())];
        let missing = http::send(server.address, "GET", "/zz", &headers, "");
        let session = SseSession::open_with(server.address, &headers);

        assert_eq!(missing.status, 404);
        let text = missing.text();
        assert_eq!(text.contains(&longest), repeated, "{text}");
        assert!(text.len() < 2500, "{text}");
        assert_eq!(session.endpoint().starts_with(&prefix), repeated);
    }
}

#[test]
fn a_public_path_like_a_route_hides_no_route() {
    let store = samples();
    let hello = messages::request(1, "initialize", &client_hello("2025-06-18", "it", "1"));

    for public_path in ["/mcp", "/api", "/sse", "/healthz", "/metrics", "/messages"] {
        let server = HttpServer::start(&store, &["--public-path", public_path]);

        for below in ["", public_path] {
            let path = |route: &str| format!("{below}{route}");
            for route in ["/mcp", "/mcp/"] {
                let answer = post(&server, &path(route), &[], &hello);
                assert_eq!(answer.status, 200, "{public_path}: {}", path(route));
            }
            for route in [
                "/healthz",
                "/readyz",
                "/metrics",
                "/api/projects",
                "/api/projects/rdv-artisan",
                "/api/resources/",
            ] {
                let answer = server.get(&path(route));
                assert_eq!(answer.status, 200, "{public_path}: {}", path(route));
            }
            let base = format!("http://{}{}", server.address, path("/sse"));
            assert_eq!(call_over_sse(&base)["success"], true, "{base}");
        }
    }
}

#[tokio::test]
async fn what_is_left_when_a_client_strips_null_names_nothing() {
    let (store, client) = client_of_samples();
    let update = |data: Value| json!({ "id": "rdv-artisan", "data": data });
    let empty = client.call("update_project", update(json!({}))).await;

    for data in [
        json!({ "solution": {} }),
        json!({ "insight": { "resourceLink": {} }, "client": {} }),
    ] {
        let output = client.call("update_project", update(data.clone())).await;
        assert_eq!(output["meta"]["changes"], json!([]), "{data}");
        assert_eq!(
            output["meta"]["warnings"], empty["meta"]["warnings"],
            "{data}"
        );
        assert_eq!(output["meta"].get("auditId"), None, "{data}");
    }
    let mixed = json!({ "title": "New", "solution": {} });
    let mixed = client.call("update_project", update(mixed)).await;
    assert_eq!(mixed["meta"]["changes"].as_array().unwrap().len(), 2);
    assert!(warnings(&mixed).contains("`solution`"), "{mixed}");
    for (data, path) in [
        (json!({ "tags": {} }), "tags"),
        (json!({ "foo": {} }), "foo"),
    ] {
        let error = client.call_error("update_project", update(data)).await;
        violation(&error, path);
    }
    store.assert_sound().await;
}

#[tokio::test]
async fn an_empty_string_for_an_optional_field_says_how_to_remove_it() {
    let (_store, client) = client_of_samples();
    let data = json!({
        "image": "",
        "solution": { "videoUrl": "", "demoLink": "", "screenshots": [""] },
        "insight": { "resourceLink": "" },
    });

    let error = client
        .call_error(
            "update_project",
            json!({ "id": "rdv-artisan", "data": data }),
        )
        .await;

    for path in [
        "solution.videoUrl",
        "solution.demoLink",
        "insight.resourceLink",
    ] {
        let message = violation(&error, path)["message"].to_string();
        assert!(message.contains("`null` removes it"), "{path}: {message}");
    }
    for path in ["image", "solution.screenshots[0]"] {
        let message = violation(&error, path)["message"].to_string();
        assert!(!message.contains("null"), "{path}: {message}");
    }
}

#[tokio::test]
async fn a_field_at_the_wrong_place_is_suggested_at_the_right_one() {
    let (store, client) = client_of_samples();
    let document = with(
        &project("foreign"),
        json!({ "legacy": { "x": 1 }, "published": false }),
    );
    create(&*store.repository, &project_key("foreign"), document).await;
    create_sound(
        &*store.repository,
        &DocumentKey::new(Kind::Resource, "guide"),
    )
    .await;

    let data = json!({
        "status": "draft", "client.size": "2", "long_description": "x", "dryRun": true,
        "legacy": {}, "published": true, "metadata": { "createdAt": "x" },
    });
    let error = client
        .call_error("update_project", json!({ "id": "foreign", "data": data }))
        .await;
    let beside = client
        .call_error(
            "update_resource",
            json!({ "id": "guide", "title": "x", "status": "draft", "long_description": "x", "dry_run": true, "expected_version": "x" }),
        )
        .await;

    for (error, path, suggestion) in [
        (&error, "status", json!("metadata.status")),
        (&error, "client.size", json!("client.size")),
        (&error, "long_description", json!("description")),
        (&error, "dryRun", json!("dryRun")),
        (&error, "published", json!("metadata.status")),
        (&error, "legacy", Value::Null),
        (&beside, "title", json!("data.title")),
        (&beside, "status", json!("data.metadata.status")),
        (&beside, "long_description", json!("data.longDescription")),
        (&beside, "dry_run", json!("dryRun")),
        (&beside, "expected_version", json!("expectedVersion")),
    ] {
        let violation = violation(error, path);
        let found = violation.get("suggestion").cloned().unwrap_or_default();
        assert_eq!(found, suggestion, "{violation}");
    }
    let says = |path: &str| {
        violation(&error, path)["message"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert!(says("client.size").contains(r#"{"client":{"size":…}}"#));
    assert!(says("legacy").contains("the document has this field"));
    assert!(says("dryRun").contains("beside `data`"));
    assert!(says("metadata.createdAt").contains("set by the server"));
    store.assert_sound().await;
}

#[tokio::test]
async fn no_message_repeats_a_long_value() {
    let (_store, client) = client_of_samples();
    let long = "long".repeat(100);

    let mut answers = Vec::new();
    for (tool, mut arguments) in calls() {
        arguments[&long] = json!(&long);
        arguments["id"] = json!(&long);
        answers.push(client.call_error(tool, arguments).await.to_string());
    }
    let data = json!({ &long: 1, "image": &long, "metadata": { "status": &long }, "client": { &long: 1 } });
    let update = json!({ "id": "rdv-artisan", "data": data });
    answers.push(
        client
            .call_error("update_project", update)
            .await
            .to_string(),
    );
    let mut named = json!({});
    named[format!("_{long}")] = json!(1);
    answers.push(client.call("list_projects", named).await["meta"].to_string());
    for line in [
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{long}"}}"#),
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{long}"}}}}"#),
        format!(r#"{{"jsonrpc":"{long}","id":1,"method":"ping"}}"#),
        long.clone(),
    ] {
        answers.push(client.exchange(&line).await.to_string());
    }

    for answer in answers {
        assert!(!answer.contains(&long[..81]), "{answer}");
    }
}

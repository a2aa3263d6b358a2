//! Which tools a server offers: over stdio and over HTTP, with `--toolsets`, its variable, and where
//! nothing may be written.

use std::collections::BTreeSet;

use portfolio_mcp::domain::Kind;
use serde_json::{Value, json};

use crate::support::{
    fixtures::{create_sound, new_document, project_key},
    messages::{client_hello, tool_output},
    process::run_with_input,
    program::{Home, PROGRAM},
    server::HttpServer,
    stdio::StdioClient,
    stores::{Store, on_each_store},
};

const READING: [&str; 6] = [
    "get_audit_log",
    "get_audit_stats",
    "get_project",
    "get_resource",
    "list_projects",
    "list_resources",
];
const EDITING: [&str; 2] = ["update_project", "update_resource"];
const HISTORY: [&str; 1] = ["undo_changes"];
const PAST: [&str; 2] = ["compare_content", "get_history"];
const AUTHORING: [&str; 4] = [
    "create_project",
    "create_resource",
    "delete_project",
    "delete_resource",
];
const BATCH: [&str; 1] = ["update_many"];

fn undo() -> Value {
    json!({ "since": "2025-01-01T00:00:00Z", "dryRun": true })
}

fn with(store: &Store, arguments: &[&str]) -> Vec<String> {
    let more = arguments.iter().map(|&argument| argument.to_owned());
    store.arguments().into_iter().chain(more).collect()
}

fn names(listed: &Value) -> BTreeSet<String> {
    let tools = listed["tools"].as_array().unwrap();
    let names = tools.iter().map(|tool| tool["name"].as_str().unwrap());
    names.map(ToOwned::to_owned).collect()
}

fn set(names: &[&[&str]]) -> BTreeSet<String> {
    names.concat().into_iter().map(ToOwned::to_owned).collect()
}

/// Runs `portfolio-mcp stdio` without input; gives its exit code and standard error.
fn start(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
    let home = Home::new();
    let mut command = home.command(PROGRAM);
    command
        .args(["stdio", "--store", "sqlite:x.db"])
        .args(arguments)
        .envs(variables.iter().copied());
    let output = run_with_input(&mut command, "");
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[tokio::test]
async fn a_server_lists_the_tools_of_its_toolsets_alone() {
    let store = Store::sqlite();
    for (arguments, expected) in [
        (&[][..], set(&[&READING, &EDITING])),
        (&["--toolsets", "content"], set(&[&READING, &EDITING])),
        (
            &["--toolsets", " history, content,history"],
            set(&[&READING, &EDITING, &HISTORY, &PAST]),
        ),
        (
            &["--toolsets=all"],
            set(&[&READING, &EDITING, &HISTORY, &PAST, &AUTHORING, &BATCH]),
        ),
        (&["--toolsets=history"], set(&[&HISTORY, &PAST])),
        (&["--toolsets=batch,authoring"], set(&[&AUTHORING, &BATCH])),
        (&["--toolsets=all", "--read-only"], set(&[&READING, &PAST])),
        (&["--toolsets=history", "--read-only"], set(&[&PAST])),
    ] {
        let client = StdioClient::start_with(&with(&store, arguments)).await;
        let server = HttpServer::start(&store, arguments);

        let over_stdio = client.result("tools/list", json!({})).await;
        let over_http = server.request("tools/list", &json!({}))["result"].clone();

        assert_eq!(names(&over_stdio), expected, "{arguments:?}");
        assert_eq!(names(&over_http), expected, "{arguments:?}");
    }
}

#[tokio::test]
async fn a_tool_of_a_toolset_that_is_off_names_the_option() {
    let store = Store::sqlite();
    for (arguments, tool, named) in [
        (&[][..], "undo_changes", "--toolsets content,history"),
        (
            &["--read-only"],
            "undo_changes",
            "--toolsets content,history",
        ),
        (
            &["--toolsets=history"],
            "get_project",
            "--toolsets content,history",
        ),
        (&[][..], "create_project", "--toolsets content,authoring"),
        (&[][..], "delete_resource", "--toolsets content,authoring"),
        (&[][..], "update_many", "--toolsets content,batch"),
    ] {
        let client = StdioClient::start_with(&with(&store, arguments)).await;
        let server = HttpServer::start(&store, arguments);
        let params = json!({ "name": tool, "arguments": undo() });

        let over_stdio = client.error("tools/call", params.clone()).await;
        let over_http = server.request("tools/call", &params)["error"].clone();

        for error in [over_stdio, over_http] {
            assert_eq!(error["code"], -32602, "{error}");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains(tool), "{message}");
            assert!(message.contains(named), "{message}");
        }
    }
}

#[tokio::test]
async fn what_is_on_but_may_not_write_says_why() {
    on_each_store(async |store: &Store| {
        create_sound(&*store.repository, &project_key("a")).await;
        let home = Home::new();
        let arguments = with(store, &["--toolsets=all", "--read-only"]);
        let client = StdioClient::start_with(&arguments).await;
        let mut command = home.command(PROGRAM);
        command
            .args(["http", "--listen", "127.0.0.1:0", "--toolsets=all"])
            .args(store.arguments())
            .env(
                "PORTFOLIO_TOKENS",
                "lise:read:0123456789abcdef0123\nmarie:write:fedcba98765432109876",
            );
        let server = HttpServer::spawn(home, command);
        let as_user = |token: &str| [("Authorization", format!("Bearer {token}"))];
        let [lise, marie] = ["0123456789abcdef0123", "fedcba98765432109876"].map(as_user);
        let headers = |user: &'static str| if user == "lise" { &lise } else { &marie };
        let call = |user, tool: &str, arguments: &Value| {
            let [(name, value)] = headers(user);
            tool_output(&server.call_with(&[(name, value)], tool, arguments))
        };
        let version = client.call("get_project", json!({ "id": "a" })).await;
        let version = &version["meta"]["version"];
        let change = json!({ "entityType": "project", "id": "a", "data": { "title": "New" } });
        for (tool, arguments) in [
            ("undo_changes", undo()),
            (
                "update_many",
                json!({ "changes": [change], "dryRun": true }),
            ),
            (
                "create_project",
                json!({ "id": "b", "data": new_document(Kind::Project) }),
            ),
            (
                "delete_project",
                json!({ "id": "a", "expectedVersion": version }),
            ),
        ] {
            let read_only = client.call_error(tool, arguments.clone()).await;
            let reader = call("lise", tool, &arguments);
            let writer = call("marie", tool, &arguments);

            assert_eq!(read_only["code"], "STORE_READ_ONLY", "{read_only}");
            assert_eq!(reader["error"]["code"], "STORE_READ_ONLY", "{reader}");
            assert_eq!(writer["success"], true, "{writer}");
        }
        store.assert_sound().await;
    })
    .await;
}

#[test]
fn unknown_toolsets_are_refused_with_the_known_ones() {
    let by_flag = start(&["--toolsets", "content,histroy,bach"], &[]);
    let by_variable = start(&[], &[("PORTFOLIO_TOOLSETS", "everything")]);
    let misspelt = start(&[], &[("PORTFOLIO_TOOLSET", "all")]);

    for ((code, stderr), unknown) in [(by_flag, "histroy"), (by_variable, "everything")] {
        assert_eq!(code, 2, "{stderr}");
        for part in [
            "--toolsets (PORTFOLIO_TOOLSETS)",
            unknown,
            "content, history",
            "all",
        ] {
            assert!(stderr.contains(part), "{part}: {stderr}");
        }
    }
    assert_eq!(misspelt.0, 2, "{}", misspelt.1);
    assert!(
        misspelt.1.contains("use PORTFOLIO_TOOLSETS"),
        "{}",
        misspelt.1
    );
}

#[test]
fn doctor_shows_the_toolsets() {
    let home = Home::new();
    let mut command = home.command(PROGRAM);
    command
        .args(["doctor", "--store", "sqlite:x.db"])
        .env("PORTFOLIO_TOOLSETS", "content,history");

    let report = String::from_utf8(command.output().unwrap().stdout).unwrap();

    assert!(
        report.contains("toolsets: content,history (PORTFOLIO_TOOLSETS)"),
        "{report}"
    );
}

#[tokio::test]
async fn the_instructions_speak_of_what_is_offered() {
    let store = Store::sqlite();
    for (arguments, offered) in [
        (&[][..], &["get_project", "dryRun"][..]),
        (
            &["--toolsets=all"],
            &[
                "get_project",
                "dryRun",
                "undo_changes",
                "update_many",
                "Create or delete",
            ],
        ),
        (
            &["--toolsets=content,authoring"],
            &["get_project", "dryRun", "Create or delete"],
        ),
        (&["--toolsets=history"], &["undo_changes"]),
        (&["--toolsets=all", "--read-only"], &["get_project"]),
        (
            &["--toolsets=content", "--require-version"],
            &["get_project", "dryRun"],
        ),
        (
            &["--toolsets=all", "--require-version"],
            &[
                "get_project",
                "dryRun",
                "undo_changes",
                "update_many",
                "Create or delete",
            ],
        ),
    ] {
        let server = HttpServer::start(&store, arguments);

        let hello = client_hello("2025-11-25", "it", "1");
        let initialized = server.request("initialize", &hello);

        let text = initialized["result"]["instructions"].as_str().unwrap();
        for word in [
            "get_project",
            "dryRun",
            "undo_changes",
            "update_many",
            "Create or delete",
        ] {
            assert_eq!(
                text.contains(word),
                offered.contains(&word),
                "{arguments:?}: {text}"
            );
        }
        assert!(text.len().div_ceil(4) <= 250, "{arguments:?}: {text}");
    }
}

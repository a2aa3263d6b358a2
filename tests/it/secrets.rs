//! The program never writes a secret, an argument or content except in answers. Canaries are
//! searched in everything it writes.

use std::{fs, path::Path, process::Command};

use clap::Parser;
use portfolio_mcp::{
    cli::Cli,
    settings::{Environment, Settings},
};
use serde_json::{Value, json};

use crate::support::{
    fixtures, http,
    messages::client_hello,
    process::run_with_input,
    program::{Home, PROGRAM},
    redis::RedisServer,
    server::HttpServer,
    sse::SseSession,
};

/// The password of a Redis user.
const PASSWORD: &str = "canary-password-4f1c";
/// In the form of a token of an Upstash database or of a client.
const TOKEN: &str = "canary-token-8d27AbCdEfGh";
const KEY: &str = "canary-key-77ab";
const CONTENT: &str = "canary-content-0c3e";
const ARGUMENT: &str = "canary-argument-91d0";
const REASON: &str = "canary-reason-5b6a";

/// None of these may be found. Each new one has to be used somewhere below.
const CANARIES: [&str; 6] = [PASSWORD, TOKEN, KEY, CONTENT, ARGUMENT, REASON];

/// Fails if what was written contains a canary.
fn assert_silent(origin: &str, written: &str) {
    let lower = written.to_lowercase();
    for canary in CANARIES {
        assert!(
            !lower.contains(&canary.to_lowercase()),
            "{origin} contains {canary}:\n{written}"
        );
    }
}

/// Options for a log at trace level in either format.
const LOGS: [[&str; 4]; 2] = [
    ["--log", "trace", "--log-format", "text"],
    ["--log", "trace", "--log-format", "json"],
];

/// Runs a command to its end. Nothing it writes may contain a canary, except its answers over
/// stdio.
fn run(command: &mut Command, input: &[String]) -> (i32, String) {
    let origin = format!("{:?}", command.get_args().collect::<Vec<_>>());
    let protocol =
        command.get_args().any(|argument| argument == "stdio") && !origin.contains("--help");
    let output = run_with_input(command, &input.join("\n"));
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert_silent(&format!("stderr of {origin}"), &stderr);
    if !protocol {
        assert_silent(&format!("stdout of {origin}"), &stdout);
    }
    for secret in [PASSWORD, TOKEN] {
        assert!(
            !stdout.contains(secret),
            "an answer of {origin} contains {secret}: {stdout}"
        );
    }
    (output.status.code().unwrap(), stdout)
}

/// Valid and invalid messages with canaries wherever a client can put them.
fn messages() -> Vec<String> {
    let call = |tool: &str, arguments: Value| json!({ "method": "tools/call", "params": { "name": tool, "arguments": arguments } });
    let hello = client_hello("2025-11-25", ARGUMENT, ARGUMENT);
    let update = |data: Value| json!({ "id": "kept", "data": data, "reason": REASON, "idempotencyKey": KEY });
    let requests = [
        json!({ "method": "initialize", "params": hello }),
        call("get_project", json!({ "id": "kept" })),
        call(
            "list_projects",
            json!({ "query": ARGUMENT, "tag": ARGUMENT, "detail": "full" }),
        ),
        call("update_project", update(json!({ "title": CONTENT }))),
        call("update_project", update(json!({ "title": CONTENT }))),
        call("update_project", update(json!({ "title": ARGUMENT }))),
        call(
            "update_project",
            json!({ "id": "kept", "data": { CONTENT: CONTENT, "metadata": { "status": CONTENT } }, "reason": REASON }),
        ),
        call(
            "update_project",
            json!({ "id": "kept", "data": { "challenge": CONTENT }, "expectedVersion": ARGUMENT, "dryRun": true }),
        ),
        call(
            "update_project",
            json!({ "id": "nobody", "data": { "title": CONTENT } }),
        ),
        call(
            "update_project",
            json!({ "id": "kept", "data": { "result": format!("{CONTENT} 2") }, "reason": REASON }),
        ),
        call(
            "get_audit_log",
            json!({ "action": ARGUMENT, "cursor": ARGUMENT, "since": ARGUMENT }),
        ),
        call("get_audit_log", json!({ "detail": "full" })),
        call("get_audit_stats", json!({ ARGUMENT: ARGUMENT })),
        call(ARGUMENT, json!({})),
        json!({ "method": ARGUMENT, "params": { "x": ARGUMENT } }),
        json!({ "method": "tools/call", "params": ARGUMENT }),
        json!({ "method": 5, "params": ARGUMENT }),
    ];
    let numbered = requests.into_iter().enumerate().map(|(id, mut request)| {
        (request["jsonrpc"], request["id"]) = (json!("2.0"), json!(id));
        request.to_string()
    });
    numbered
        .chain([
            format!("not JSON: {ARGUMENT}"),
            format!("[\"{ARGUMENT}\"]"),
            format!("{{\"id\":\"{ARGUMENT}\",\"x\":\"{CONTENT}\"}}"),
        ])
        .collect()
}

/// A folder of valid content.
fn folder(home: &Home, title: &str) -> String {
    let folder = home.path().join(title);
    fs::create_dir(&folder).unwrap();
    let project = fixtures::with(
        &fixtures::project("kept"),
        json!({ "title": title, "description": CONTENT, "results": [CONTENT] }),
    );
    fs::write(folder.join("projects.json"), json!([project]).to_string()).unwrap();
    fs::write(
        folder.join("audit.jsonl"),
        json!({ "id": "old", "action": "create", "changes": CONTENT }).to_string(),
    )
    .unwrap();
    folder.to_string_lossy().into_owned()
}

/// Store addresses, each with a password.
struct Addresses {
    good: String,
    wrong: String,
    down: String,
    _server: RedisServer,
}

impl Addresses {
    fn new() -> Self {
        let server = RedisServer::start();
        let create = ["reset", "on", &format!(">{PASSWORD}"), "~*", "&*", "+@all"];
        server.run::<()>(redis::cmd("ACL").arg("SETUSER").arg("owner").arg(&create));
        let port = server.port();
        Self {
            good: format!("redis://owner:{PASSWORD}@127.0.0.1:{port}"),
            wrong: format!("redis://owner:{TOKEN}@127.0.0.1:{port}"),
            down: format!("redis://owner:{PASSWORD}@127.0.0.1:1"),
            _server: server,
        }
    }
}

#[test]
fn a_server_over_stdio_logs_no_secrets_and_no_content() {
    let addresses = Addresses::new();
    for log in LOGS {
        let home = Home::new();
        run(
            home.command(PROGRAM)
                .args([
                    "import",
                    &folder(&home, "first"),
                    "--store",
                    &addresses.good,
                ])
                .args(log),
            &[],
        );
        for store in [&addresses.good, &addresses.wrong, &addresses.down] {
            let (code, output) = run(
                home.command(PROGRAM)
                    .args(["stdio", "--store", store])
                    .args(log),
                &messages(),
            );
            assert_eq!(code, 0, "{output}");
            assert_eq!(output.lines().count(), messages().len(), "{output}");

            let (code, by_variable) = run(
                home.command(PROGRAM)
                    .arg("stdio")
                    .env("REDIS_URL", store)
                    .args(log),
                &messages(),
            );
            assert_eq!(code, 0);
            assert_eq!(by_variable.lines().count(), messages().len());
        }
        let rest = [
            ("KV_REST_API_URL", "https://127.255.255.254"),
            ("KV_REST_API_TOKEN", TOKEN),
            ("KV_REST_API_READ_ONLY_TOKEN", TOKEN),
        ];
        let (code, _) = run(
            home.command(PROGRAM).arg("stdio").envs(rest).args(log),
            &messages(),
        );
        assert_eq!(code, 0);
    }
}

#[test]
fn a_server_over_http_logs_no_secrets_and_no_content() {
    let addresses = Addresses::new();
    for (log, store) in LOGS
        .into_iter()
        .flat_map(|log| [(log, &addresses.good), (log, &addresses.wrong)])
    {
        let home = Home::new();
        let mut command = home.command(PROGRAM);
        command
            .args(["http", "--listen", "127.0.0.1:0", "--store", store])
            .args(log);
        let mut server = HttpServer::spawn(home, command);
        let address = server.address;

        let bearer = format!("Bearer {TOKEN}");
        let agent = [
            ("User-Agent", ARGUMENT),
            ("Authorization", bearer.as_str()),
            ("Cookie", TOKEN),
            ("Mcp-Session-Id", TOKEN),
        ];
        let session = SseSession::open_with(address, &agent);
        let endpoint = session.endpoint();
        for message in messages() {
            for path in [
                "/mcp",
                endpoint,
                "/messages",
                "/nowhere",
                &format!("/mcp?token={TOKEN}"),
            ] {
                let answer = http::post_json(address, path, &agent, &message).text();
                assert!(
                    !answer.contains(TOKEN) && !answer.contains(PASSWORD),
                    "{answer}"
                );
            }
        }
        for path in [
            "/metrics",
            "/readyz",
            "/healthz",
            &format!("/api/projects/{KEY}"),
            &format!("/api/resources/{ARGUMENT}"),
            "/api/projects",
        ] {
            let answer = http::send(address, "GET", path, &agent, "").text();
            assert!(
                !answer.contains(TOKEN) && !answer.contains(PASSWORD) && !answer.contains(REASON),
                "{answer}"
            );
            assert!(
                path.starts_with("/api/") || !answer.contains("canary"),
                "{answer}"
            );
        }
        // Of a rejected request only the host and the origin are logged.
        for (name, value) in [("Host", "evil.example"), ("Origin", "https://evil.example")] {
            http::send(
                address,
                "POST",
                &format!("/mcp?token={TOKEN}"),
                &[&agent[..], &[(name, value)]].concat(),
                ARGUMENT,
            )
            .text();
        }

        drop(session);
        server.signal("-TERM");
        let code = server.wait();
        let log = server.log();
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("content is in redis://owner:***@"), "{log}");
        assert_silent(&format!("the log of http with {}", log.len()), &log);
    }
}

/// The answer of `/readyz`, which needs no token, on a store that does not work.
fn reason_on(store: &str) -> String {
    let server = HttpServer::start_with(&["--store", store]);
    let answer = http::send(server.address, "GET", "/readyz", &[], "");
    assert_eq!(answer.status, 503, "{store}");
    answer.json()["reason"].as_str().unwrap().to_owned()
}

#[test]
fn readyz_tells_no_path_and_no_message_of_a_library() {
    let home = Home::new();
    let path = |name: &str| home.path().join(name).display().to_string();
    let damaged = path("damaged.db");
    fs::write(&damaged, vec![b'x'; 9000]).unwrap();
    let server = RedisServer::start();
    server.user("owner", &["~*", "+@all"]);
    let port = server.port();
    // It does not speak TLS.
    let web = HttpServer::start_with(&["--store", &format!("sqlite:{}", path("web.db"))]);

    for (store, reason) in [
        (format!("sqlite:{damaged}"), "the store failed"),
        (
            format!("sqlite:{damaged}/x.db"),
            "the store cannot be reached",
        ),
        (
            format!("redis://owner:wr0ng@127.0.0.1:{port}"),
            "the store refuses this server",
        ),
        (
            format!("rediss://{}", web.address),
            "the store refuses this server",
        ),
        (
            "redis://127.0.0.1:1".to_owned(),
            "the store cannot be reached",
        ),
    ] {
        assert_eq!(reason_on(&store), reason, "{store}");
    }
}

/// A URL or a token where a path is expected.
#[test]
fn an_error_does_not_repeat_what_stands_in_place_of_a_path() {
    let home = Home::new();
    let url = format!("redis://owner:{PASSWORD}@localhost:1");
    let token = format!("site:write:{TOKEN}");
    for arguments in [
        ["import", &url].as_slice(),
        &["http", "--token-file", &url],
        &["http", "--token-file", &token],
        &["stdio", "--ca-file", &url],
        &["doctor", "--token-file", &url],
        &["doctor", "--token-file", &token],
        &["doctor", "--listen", &url],
        &["doctor", "--log", &url],
        &["doctor", "--store", &url, "--rate-limit", &url],
        &["doctor", "--store-file", &url],
        &["stdio", "--store-file", &url],
    ] {
        let (code, _) = run(home.command(PROGRAM).args(arguments), &[]);

        assert_ne!(code, 0, "{arguments:?}");
    }
}

#[test]
fn an_import_names_fields_but_shows_no_values() {
    let addresses = Addresses::new();
    for log in LOGS {
        let home = Home::new();
        let (first, second) = (folder(&home, "first"), folder(&home, "second"));
        let other = fixtures::with(
            &fixtures::project("kept"),
            json!({ "description": format!("another {CONTENT}") }),
        );
        fs::write(
            Path::new(&second).join("projects.json"),
            json!([other]).to_string(),
        )
        .unwrap();
        let store = format!("sqlite:{}", home.path().join("store.db").display());

        for (store, codes) in [
            (&store, [0, 0, 1, 0]),
            (&addresses.wrong, [3; 4]),
            (&addresses.down, [3; 4]),
        ] {
            for (arguments, code) in [
                vec![&first, "--dry-run"],
                vec![&first],
                vec![&second],
                vec![&second, "--force"],
            ]
            .iter()
            .zip(codes)
            {
                let (found, output) = run(
                    home.command(PROGRAM)
                        .arg("import")
                        .args(arguments)
                        .args(["--store", store])
                        .args(log),
                    &[],
                );
                assert_eq!(found, code, "{arguments:?} {store}: {output}");
            }
        }
        // The errors of this server repeat the commands it got.
        let crippled = RedisServer::start_with(&["--rename-command", "ZADD", "", "--save", ""]);
        assert_eq!(
            run(
                home.command(PROGRAM)
                    .args(["import", &first, "--store", &crippled.url()])
                    .args(log),
                &[]
            )
            .0,
            3
        );
        for invalid in [
            format!("[{{\"id\":\"a\", {CONTENT}"),
            format!("{{\"{CONTENT}\": 1}}"),
            format!("[\"{CONTENT}\"]"),
        ] {
            fs::write(Path::new(&second).join("projects.json"), invalid).unwrap();
            fs::write(
                Path::new(&second).join("audit.jsonl"),
                format!("{CONTENT}\n\"{CONTENT}\"\n"),
            )
            .unwrap();
            assert_eq!(
                run(
                    home.command(PROGRAM)
                        .args(["import", &second, "--store", &store])
                        .args(log),
                    &[]
                )
                .0,
                1
            );
        }
    }
}

#[test]
fn usage_errors_contain_no_address() {
    let home = Home::new();
    let url = format!("redis://owner:{PASSWORD}@127.0.0.1:1");
    let with = |text: &str| text.replace("URL", &url).replace("PASSWORD", PASSWORD);
    for arguments in [
        "stdio --stroe URL",
        "stdio --stroe=URL",
        "stdio -s URL",
        "stdio -sURL",
        "stdio URL",
        "URL",
        "URL stdio",
        "stdio --store",
        "stdio --store URL URL",
        "stdio --store URL --store URL",
        "stdio --store=URL --shout",
        "stdio --read-only URL",
        "stdio --read-only=URL",
        "stdio --log URL --log-format URL",
        "stdio --log=URL --log-format=URL",
        "import folder --dry-run=URL",
        "import folder --force=URL",
        "import URL URL",
        "http --listen URL --allowed-host URL --allowed-origin URL --store URL",
        "http --listen=URL",
        "http --public-api URL",
        "http --public-api=URL",
        "stdio --store redis//owner:PASSWORD@127.0.0.1:1",
        "stdio --store redis:/owner:PASSWORD@127.0.0.1:1",
        "stdio --store http://owner:PASSWORD@127.0.0.1:1",
        "stdio --store redis://owner:PASSWORD@",
        "stdio --store redis://owner:PASSWORD@127.0.0.1:notaport",
        "stdio --store redis://owner:1/PASSWORD@127.0.0.1:1",
        "stdio --store redis://owner:1?PASSWORD@127.0.0.1:1",
        "stdio --store redis://owner:1#PASSWORD@127.0.0.1:1",
        "stdio --store :PASSWORD@127.0.0.1:1",
        "stdio --store sqlite:URL",
        "stdio owner:PASSWORD@127.0.0.1:1",
        "stdio --stroe=owner:PASSWORD@127.0.0.1:1",
        "--password PASSWORD stdio",
    ] {
        let arguments: Vec<String> = arguments.split(' ').map(&with).collect();
        let (code, _) = run(home.command(PROGRAM).args(&arguments), &[]);
        assert_eq!(code, 2, "{arguments:?}");
    }
    for name in [
        "PORTFOLIO_STORE",
        "REDIS_URL",
        "KV_REST_API_URL",
        "PORTFOLIO_LISTEN",
        "PORTFOLIO_READ_ONLY",
        "PORTFOLIO_LOG",
    ] {
        let value = format!("http//owner:{PASSWORD}@127.0.0.1:1");
        let variables = [
            (name, value.as_str()),
            ("KV_REST_API_TOKEN", TOKEN),
            ("PORTFOLIO_TOKENS", TOKEN),
        ];
        let (code, _) = run(
            home.command(PROGRAM)
                .args(["http", "--listen="])
                .envs(variables),
            &[],
        );
        assert_eq!(code, 2, "{name}");
    }
}

#[test]
fn help_shows_no_secret_of_the_environment() {
    let home = Home::new();
    let url = format!("redis://owner:{PASSWORD}@127.0.0.1:1");
    let variables = [
        "PORTFOLIO_STORE",
        "REDIS_URL",
        "REDIS_REDIS_URL",
        "REDIS_KV_URL",
        "KV_URL",
    ]
    .map(|name| (name, url.as_str()));
    let tokens = [
        "PORTFOLIO_TOKENS",
        "KV_REST_API_TOKEN",
        "UPSTASH_REDIS_REST_READ_ONLY_TOKEN",
    ]
    .map(|name| (name, TOKEN));
    for arguments in [
        &["--help"][..],
        &["-h"],
        &["help"],
        &["stdio", "--help"],
        &["http", "--help"],
        &["import", "--help"],
        &["--version"],
    ] {
        let (code, _) = run(
            home.command(PROGRAM)
                .args(arguments)
                .envs(variables)
                .envs(tokens),
            &[],
        );
        assert_eq!(code, 0, "{arguments:?}");
    }
}

#[test]
fn printed_settings_contain_no_secret() {
    let url = format!("redis://owner:{PASSWORD}@127.0.0.1:1/0");
    let (arguments, none) = (
        Cli::parse_from(["portfolio-mcp", "stdio", "--store", &url]),
        Cli::parse_from(["portfolio-mcp", "stdio"]),
    );
    let rest = [
        ("KV_REST_API_URL", "https://a.upstash.io"),
        ("KV_REST_API_TOKEN", TOKEN),
        ("KV_REST_API_READ_ONLY_TOKEN", TOKEN),
    ];
    for (cli, environment) in [
        (arguments, Environment::default()),
        (none, rest.into_iter().collect()),
    ] {
        let settings = Settings::resolve(&cli, &environment).unwrap();

        assert_silent("the arguments", &format!("{cli:?}"));
        assert_silent(
            "the settings",
            &format!(
                "{settings:?} {} {:?}",
                settings.store.location, settings.store
            ),
        );
    }
}

//! Which store is used: what people paste, what clients leave out, and what must not happen
//! silently.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::support::{
    fixtures::{create_sound, project_key},
    messages::client_hello,
    process::run_with_input,
    program::{Home, PROGRAM},
    redis::RedisServer,
    stdio::StdioClient,
    stores::{Store, on_each_store},
};

/// No message may show it.
const SECRET: &str = "s3cret";

/// The exit code of the program and what it wrote, on standard output and standard error.
fn run(command: &mut Command) -> (i32, String, String) {
    let output = run_with_input(command, "");
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(
        !stdout.contains(SECRET) && !stderr.contains(SECRET),
        "{stdout}\n{stderr}"
    );
    (output.status.code().unwrap(), stdout, stderr)
}

fn stdio(home: &Home, arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
    let mut command = home.command(PROGRAM);
    command
        .arg("stdio")
        .args(arguments)
        .envs(variables.iter().copied());
    let (code, _, stderr) = run(&mut command);
    (code, stderr)
}

/// A client of a server that was given no store, as most clients start it.
fn client_without_store(home: Home, arguments: &[&str]) -> StdioClient {
    let mut command = home.command(PROGRAM);
    command.arg("stdio").args(arguments);
    StdioClient::spawn(home.into(), command)
}

fn import(home: &Home, arguments: &[&str]) {
    let content = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/content");
    let mut command = home.command(PROGRAM);
    let (code, stdout, stderr) = run(command.arg("import").arg(content).args(arguments));
    assert_eq!(code, 0, "{stdout}{stderr}");
}

#[tokio::test]
async fn every_answer_says_when_nobody_chose_the_store() {
    let home = Home::new();
    let file = home.path().join("data/portfolio-mcp/portfolio.db");
    import(&home, &[]);
    let client = client_without_store(home, &[]);

    let hello = client_hello("2025-11-25", "it", "1");
    let instructions = client.result("initialize", hello).await["instructions"].to_string();
    let update = json!({ "id": "rdv-artisan", "data": { "solution": {} }, "dryRun": true });
    let calls = [
        ("list_projects", json!({})),
        ("list_resources", json!({ "detail": "full" })),
        ("get_project", json!({ "id": "rdv-artisan" })),
        ("get_resource", json!({ "id": "missing" })),
        ("update_project", update),
        (
            "update_project",
            json!({ "id": "rdv-artisan", "data": { "title": "New" } }),
        ),
        (
            "update_resource",
            json!({ "id": "missing", "data": { "title": "New" } }),
        ),
        ("get_audit_log", json!({})),
        ("get_audit_stats", json!({})),
    ];

    let fact = format!(
        "no Redis is configured: this is the local file {}",
        file.display()
    );
    assert!(
        instructions.contains(&fact) && instructions.len() < 1200,
        "{instructions}"
    );
    for (tool, arguments) in calls {
        let answer = client.call(tool, arguments).await;
        let warnings = if answer["success"] == true {
            &answer["meta"]["warnings"]
        } else {
            &answer["error"]["details"]["warnings"]
        };
        let first = warnings[0].as_str().unwrap_or_default();
        assert!(
            first.contains(&fact)
                && first.contains("do not reach the site")
                && first.contains("REDIS_URL"),
            "{tool}: {answer}"
        );
    }
}

#[tokio::test]
async fn the_notice_comes_before_other_warnings_and_is_the_same_in_both_forms() {
    let client = client_without_store(Home::new(), &[]);
    client.initialize("it", "1").await;

    let params = json!({ "name": "list_projects", "arguments": {} });
    let result = client.result("tools/call", params).await;

    let text: Value = serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap();
    let warnings = result["structuredContent"]["meta"]["warnings"]
        .as_array()
        .unwrap();
    assert_eq!(text, result["structuredContent"]);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings[1].to_string().contains("the store is empty"),
        "{warnings:?}"
    );
}

#[tokio::test]
async fn a_store_that_somebody_chose_needs_no_notice() {
    let home = Home::new();
    import(&home, &["--store", "sqlite:content.db"]);
    let client = client_without_store(home, &["--store", "sqlite:content.db"]);

    let hello = client_hello("2025-11-25", "it", "1");
    let instructions = client.result("initialize", hello).await["instructions"].to_string();
    let answer = client.call("list_projects", json!({})).await;

    assert!(!instructions.contains("no Redis"), "{instructions}");
    assert!(answer["meta"].get("warnings").is_none(), "{answer}");
}

#[tokio::test]
async fn an_empty_store_is_named_as_empty_and_one_without_matches_is_not() {
    on_each_store(async |store: &Store| {
        let client = StdioClient::start(store).await;
        let is_named = |answer: &Value| answer["meta"]["warnings"].to_string().contains("is empty");

        let projects = client.call("list_projects", json!({})).await;
        let resources = client.call("list_resources", json!({ "tag": "x" })).await;
        assert!(
            is_named(&projects) && is_named(&resources),
            "{projects} {resources}"
        );

        create_sound(&*store.repository, &project_key("a")).await;
        let client = StdioClient::start(store).await;
        let resources = client.call("list_resources", json!({})).await;
        let matching = client
            .call("list_projects", json!({ "tag": "none has it" }))
            .await;
        assert!(
            !is_named(&resources) && !is_named(&matching),
            "{resources} {matching}"
        );
    })
    .await;
}

#[test]
fn unknown_variables_near_a_known_one_are_refused_all_at_once() {
    let home = Home::new();

    let variables = [
        ("PORTFOLIO_READONLY", "1"),
        ("PORTFOLIO_TOKEN_FILE", SECRET),
        ("PORTFOLIO_ALLOWED_HOST", "x"),
        ("portfolio_log", "debug"),
        ("PORTFOLIO_LOG_FORMAT", "loud"),
    ];
    let (code, stderr) = stdio(&home, &["--store=sqlite:x.db"], &variables);

    assert_eq!((code, stderr.lines().count()), (2, 5), "{stderr}");
    for (name, known) in [
        ("PORTFOLIO_READONLY", "PORTFOLIO_READ_ONLY"),
        ("PORTFOLIO_TOKEN_FILE", "PORTFOLIO_TOKENS"),
        ("PORTFOLIO_ALLOWED_HOST", "PORTFOLIO_ALLOWED_HOSTS"),
        ("portfolio_log", "PORTFOLIO_LOG"),
    ] {
        let is_named = |line: &str| {
            line.contains(&format!("{name}: ")) && line.contains(&format!("use {known},"))
        };
        assert!(stderr.lines().any(is_named), "{name}: {stderr}");
    }
}

#[test]
fn variables_of_kubernetes_and_of_others_are_a_warning() {
    let home = Home::new();
    let variables = [
        ("PORTFOLIO_PORT", "tcp://10.0.0.1:8787"),
        ("PORTFOLIO_SERVICE_HOST", "10.0.0.1"),
        ("PORTFOLIO_SERVICE_PORT", "8787"),
        ("PORTFOLIO_PORT_8787_TCP", "tcp://10.0.0.1:8787"),
        ("PORTFOLIO_PORT_8787_TCP_ADDR", "10.0.0.1"),
        ("PORTFOLIO_STORE_SERVICE_HOST", "10.0.0.2"),
        ("PORTFOLIO_STORE_PORT", "tcp://10.0.0.2:6379"),
        ("PORTFOLIO_STORE_PORT_6379_TCP", "tcp://10.0.0.2:6379"),
        ("PORTFOLIO_MCP_PORT", "tcp://10.0.0.3:8787"),
        ("PORTFOLIO_MCP_SERVICE_HOST", "10.0.0.3"),
        ("PORTFOLIO_MCP_PORT_8787_TCP", "tcp://10.0.0.3:8787"),
        ("PORTFOLIO_THEME", SECRET),
    ];

    let (code, stderr) = stdio(&home, &["--store=sqlite:x.db"], &variables);
    let mut doctor = home.command(PROGRAM);
    let (checked, stdout, _) = run(doctor
        .args(["doctor", "--store=sqlite:x.db"])
        .envs(variables));

    assert_eq!((code, checked), (0, 0), "{stderr}{stdout}");
    for (name, _) in variables {
        assert!(
            stderr.contains(name) && stdout.contains(name),
            "{name}: {stderr}{stdout}"
        );
    }
    assert!(stdout.contains("warning  variables"), "{stdout}");
}

#[test]
fn the_start_line_shows_the_absolute_path() {
    let home = Home::new();
    for (store, file) in [
        ("sqlite:content.db", "content.db"),
        ("sqlite:~/content.db", "content.db"),
        ("sqlite:./a/../content.db", "content.db"),
        ("sqlite:", ""),
    ] {
        let (code, stderr) = stdio(&home, &["--store", store], &[]);
        if file.is_empty() {
            assert_eq!(code, 2, "{stderr}");
            continue;
        }
        let folder = fs::canonicalize(home.path()).unwrap();
        let shown = stderr.lines().any(|line| {
            line.contains("content is in sqlite:/")
                && (line.contains(&folder.join(file).display().to_string())
                    || line.contains(&home.path().join(file).display().to_string())
                    || line.contains("/a/../content.db"))
        });
        assert!(code == 0 && shown, "{store}: {stderr}");
    }
    let (code, stderr) = stdio(&home, &[], &[]);
    let file = home.path().join("data/portfolio-mcp/portfolio.db");
    assert_eq!(code, 0);
    assert!(
        stderr.contains(&format!("sqlite:{}", file.display())),
        "{stderr}"
    );
}

#[test]
fn no_file_is_made_of_a_path_that_was_not_meant() {
    let home = Home::new();
    let before = names(home.path());

    for store in [
        "sqlite://content.db",
        "sqlite:///content.db",
        "sqlite:content.db?mode=ro",
        "sqlite:My%20Files.db",
        "sqlite::memory:",
        "sqlite:file:content.db",
        "sqlite:~other/content.db",
        "sqlite:$HOME/content.db",
        "sqlite:C:\\Users\\content.db",
        "content.db",
        "file:content.db",
        "./content.db",
        "sqlite:.",
        "sqlite:folder/",
        "sqlite:'content.db'",
    ] {
        let (code, stderr) = stdio(&home, &["--store", store], &[]);
        assert_eq!(code, 2, "{store}: {stderr}");
        assert!(
            stderr.contains("found") && stderr.contains("expected"),
            "{store}: {stderr}"
        );
    }

    let after = names(home.path());
    assert_eq!(
        before.len() + 1,
        after.len(),
        "only the home's data folder: {after:?}"
    );
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect()
}

/// What people paste, and what has to be said about it.
const PASTED: [(&str, &str); 26] = [
    ("\"redis://default:s3cret@h:6379\"", "quotation marks"),
    ("'redis://default:s3cret@h:6379'", "quotation marks"),
    ("“redis://default:s3cret@h:6379”", "quotation marks"),
    ("redis://default:s3#s3cret@h:6379", "`#`"),
    ("redis://default:s3%s3cret@h:6379", "`%`"),
    ("redis://default:s3/s3cret@h:6379", "`/`"),
    ("redis://default:s3?s3cret@h:6379", "`?`"),
    ("h:6379", "without a scheme"),
    ("default:s3cret@h:6379", "without a scheme"),
    ("${REDIS_URL}", "a placeholder"),
    ("redis://default:<s3cret>@h:6379", "a placeholder"),
    ("undefined", "`undefined`"),
    ("null", "`null`"),
    (
        "redis-cli --tls -u redis://default:s3cret@h:6379",
        "a command line",
    ),
    ("REDIS_URL=redis://default:s3cret@h:6379", "an assignment"),
    (
        "export REDIS_URL=\"redis://default:s3cret@h:6379\"",
        "found",
    ),
    ("https://eu1-s3cret.upstash.io", "REST address"),
    ("redis://default:s3cret@h:99999", "99999"),
    ("redis://default:s3cret@", "no host"),
    ("redis://default:********@h:6379", "hidden"),
    ("redis://default:s3cret@h:6379?db=5", "/5`"),
    ("redis://default:s3cret@h:6379?ssl=true", "`rediss://`"),
    ("rediss://default:s3cret@h:6379#insecure", "`#`"),
    (
        "redis://default:s3cret@h:6379/99999999999999999999",
        "too large",
    ),
    ("redis://default:s3cret@undefined:6379", "`undefined`"),
    ("redis://default:s3cret@h:6379\u{200b}", "invisible"),
];

#[test]
fn what_people_paste_is_named_for_every_way_to_give_an_address() {
    let home = Home::new();
    let file = home.path().join("store");
    let file_name = file.to_string_lossy().into_owned();
    for (text, found) in PASTED {
        fs::write(&file, format!("{text}\n")).unwrap();
        restrict(&file, 0o600);
        let outcomes = [
            stdio(&home, &[&format!("--store={text}")], &[]),
            stdio(&home, &[], &[("PORTFOLIO_STORE", text)]),
            stdio(&home, &[], &[("REDIS_URL", text)]),
            stdio(&home, &[], &[("KV_URL", text)]),
            stdio(&home, &["--store-file", &file_name], &[]),
            stdio(&home, &[], &[("PORTFOLIO_STORE_FILE", &file_name)]),
        ];
        for (code, stderr) in outcomes {
            assert_eq!(code, 2, "{text}: {stderr}");
            assert!(
                stderr.contains(found) && stderr.contains("expected"),
                "{text}: {stderr}"
            );
        }
    }
}

#[test]
fn the_variables_of_upstash_are_checked_in_the_same_way() {
    let home = Home::new();
    for (url, token, found) in [
        (
            "\"https://a.upstash.io\"",
            SECRET,
            "KV_REST_API_URL: found quotation marks",
        ),
        (
            "https://a.upstash.io",
            "'s3cret'",
            "KV_REST_API_TOKEN: found quotation marks",
        ),
        (
            "https://a.upstash.io",
            "${TOKEN}",
            "KV_REST_API_TOKEN: found a placeholder",
        ),
        (
            "https://a.upstash.io",
            "undefined",
            "KV_REST_API_TOKEN: found `undefined`",
        ),
        (
            "https://a.upstash.io",
            "Bearer s3cret",
            "KV_REST_API_TOKEN: found a space",
        ),
        ("a.upstash.io", SECRET, "KV_REST_API_URL: found no scheme"),
        (
            "rediss://default:s3cret@a.upstash.io",
            SECRET,
            "belongs in REDIS_URL",
        ),
    ] {
        let variables = [("KV_REST_API_URL", url), ("KV_REST_API_TOKEN", token)];
        let (code, stderr) = stdio(&home, &[], &variables);

        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.contains(found), "{found}: {stderr}");
    }
}

#[test]
fn an_empty_variable_does_not_choose_the_local_file() {
    let home = Home::new();

    let (alone, stderr) = stdio(&home, &[], &[("REDIS_URL", "")]);
    let (_, both) = stdio(&home, &[], &[("REDIS_URL", ""), ("KV_URL", "")]);
    let (beside, _) = stdio(&home, &["--store=sqlite:x.db"], &[("REDIS_URL", "")]);

    assert_eq!((alone, beside), (2, 0), "{stderr}");
    assert!(
        stderr.contains("REDIS_URL: found nothing in it,"),
        "{stderr}"
    );
    assert!(
        both.contains("REDIS_URL, KV_URL: found nothing in them,"),
        "{both}"
    );
}

#[test]
fn the_start_line_shows_the_key_prefix_and_a_placeholder_is_refused() {
    let home = Home::new();
    let server = RedisServer::start();
    let start = |prefix: &str| {
        let variables = [("PORTFOLIO_KEY_PREFIX", prefix)];
        stdio(&home, &["--store", &server.url()], &variables)
    };

    let (with, shown) = start(" {site}:\n");
    let (without, none) = start("");
    let (refused, placeholder) = start("${PREFIX}");

    assert_eq!((with, without, refused), (0, 0, 2), "{placeholder}");
    assert!(
        shown.contains("under the key prefix `{site}:` (set by"),
        "{shown}"
    );
    assert!(!none.contains("key prefix"), "{none}");
    assert!(
        placeholder.contains("PORTFOLIO_KEY_PREFIX): found a placeholder"),
        "{placeholder}"
    );
}

#[cfg(unix)]
fn restrict(file: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
}

#[cfg(unix)]
#[test]
fn a_token_file_that_others_may_write_is_refused() {
    let home = Home::new();
    let file = home.path().join("tokens");
    fs::write(&file, "site:read:s3cret-of-thirty-two-characters\n").unwrap();
    let doctor = |mode: u32| {
        restrict(&file, mode);
        let mut command = home.command(PROGRAM);
        let output = command
            .args(["doctor", "--token-file", "~/tokens"])
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };

    let (private, writable) = (doctor(0o600), doctor(0o620));

    let refusal = "can be changed by other users, who could add a token";
    assert!(writable.contains(refusal), "{writable}");
    assert!(!private.contains("other users"), "{private}");
    assert!(!writable.contains("s3cret"), "{writable}");
}

#[cfg(unix)]
#[test]
fn a_store_file_holds_the_address_and_others_must_not_write_it() {
    let home = Home::new();
    let server = RedisServer::start();
    let file = home.path().join("store");
    let start = |mode: u32, text: &str, arguments: &[&str]| {
        fs::write(&file, text).unwrap();
        restrict(&file, mode);
        stdio(
            &home,
            &[&["--store-file", "~/store"], arguments].concat(),
            &[],
        )
    };
    let text = format!("\u{feff}{}\r\nthe owner's store\n", server.url());

    let (private, line) = start(0o600, &text, &[]);
    let (readable, warning) = start(0o644, &text, &[]);
    let (writable, refusal) = start(0o620, &text, &[]);
    let (both, contradiction) = start(0o600, &text, &["--store=redis://h"]);
    let (empty, nothing) = start(0o600, "\nredis://u:s3cret@h\n", &[]);

    assert_eq!((private, readable, writable, both, empty), (0, 0, 2, 2, 2));
    assert!(
        line.contains("set by --store-file") && !line.contains("WARN"),
        "{line}"
    );
    assert!(warning.contains("can be read by other users"), "{warning}");
    assert!(
        refusal.contains("can be changed by other users"),
        "{refusal}"
    );
    assert!(
        contradiction.contains("--store and --store-file"),
        "{contradiction}"
    );
    assert!(
        nothing.contains("found nothing in the first line"),
        "{nothing}"
    );
}

#[tokio::test]
async fn updates_without_a_version_are_refused_where_it_is_required() {
    on_each_store(async |store: &Store| {
        create_sound(&*store.repository, &project_key("a")).await;
        let home = Home::new();
        let mut command = home.command(PROGRAM);
        command
            .arg("stdio")
            .args(store.arguments())
            .env("PORTFOLIO_REQUIRE_VERSION", "1");
        let client = StdioClient::spawn(home.into(), command);
        client.initialize("it", "1").await;
        let version = client.call("get_project", json!({ "id": "a" })).await["meta"]["version"].clone();
        let update = |version: Value, key: &str| {
            json!({ "id": "a", "data": { "title": "New" }, "expectedVersion": version, "idempotencyKey": key })
        };

        let refused = client.call_error("update_project", update(Value::Null, "k1")).await;
        let done = client.call("update_project", update(version, "k2")).await;
        let dry = json!({ "id": "a", "data": { "title": "Other" }, "dryRun": true });
        let dry = client.call_error("update_project", dry).await;

        for error in [refused, dry] {
            assert_eq!(error["code"], "VALIDATION_FAILED", "{error}");
            let violation = &error["details"]["violations"][0];
            assert_eq!(violation["path"], "expectedVersion");
            let message = violation["message"].to_string();
            assert!(message.contains("get_project") && message.contains("meta.version"), "{error}");
        }
        assert_eq!(done["success"], true, "{done}");
        store.assert_sound().await;
    })
    .await;
}

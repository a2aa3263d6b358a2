//! `doctor`: its findings in stores that are healthy, damaged and unreachable, and that it leaves
//! them unchanged.

use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Output},
    sync::Arc,
    time::{Duration, Instant},
};

use portfolio_mcp::{
    clock,
    doctor::{Finding, Verdict, diagnose, smoke_test},
    domain::{AuditQuery, Change, DocumentKey, StoredEntry, Timestamp, Update, WriteContext},
    store::Location,
};
use redis::cmd;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::slow_network::{LARGE_ENTRIES, SLOWEST, store_of_large_documents};
use crate::support::{
    fixtures::{
        change, create_sound, object, once, project, project_key, resource, stored, unique, update,
        write_context,
    },
    history_index,
    process::signal,
    program::{Home, PROGRAM, repository_path},
    proxy::{Mode, Proxy, SlowNetwork},
    redis::{PASSWORD, READ_ONLY, RedisServer},
    stdio::StdioClient,
    stores::{SITE, Store, on_each_store},
    wait_until,
};

/// Whatever is wrong with a store, `doctor` ends within this time.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// What `doctor` printed.
struct Report {
    code: i32,
    lines: Vec<String>,
}

impl Report {
    fn of(output: &Output) -> Self {
        let (stdout, stderr) = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(
            !stdout.contains(PASSWORD) && !stderr.contains(PASSWORD) && !stdout.contains("wr0ng"),
            "{stdout}\n{stderr}"
        );
        Self {
            code: output.status.code().unwrap(),
            lines: stdout.lines().map(ToOwned::to_owned).collect(),
        }
    }

    fn with(&self, verdict: &str) -> Vec<&String> {
        self.lines
            .iter()
            .filter(|line| line.starts_with(verdict))
            .collect()
    }

    /// Fails unless exactly one line with this verdict contains all of `parts`.
    fn assert_line(&self, verdict: &str, parts: &[&str]) {
        let found = self
            .with(verdict)
            .into_iter()
            .filter(|line| parts.iter().all(|part| line.contains(part)))
            .count();
        assert_eq!(found, 1, "{verdict} {parts:?} in {:#?}", self.lines);
    }

    fn assert_exit(&self, code: i32) {
        assert_eq!(self.code, code, "{:#?}", self.lines);
    }
}

fn command(home: &Home, arguments: &[impl AsRef<str>]) -> Command {
    let mut command = home.command(PROGRAM);
    command
        .arg("doctor")
        .args(arguments.iter().map(AsRef::as_ref));
    command
}

fn doctor(arguments: &[impl AsRef<str>]) -> Report {
    let home = Home::new();
    let start = Instant::now();
    let output = command(&home, arguments).output().unwrap();
    assert!(
        start.elapsed() < TIME_LIMIT,
        "it took {:?}",
        start.elapsed()
    );
    Report::of(&output)
}

fn doctor_as(server: &RedisServer, user: &str, password: &str, arguments: &[&str]) -> Report {
    let url = format!("redis://{user}:{password}@127.0.0.1:{}", server.port());
    doctor(&[&["--store", &url], arguments].concat())
}

fn smoke_report(store: &Store) -> Report {
    doctor(&[store.arguments(), vec!["--smoke".to_owned()]].concat())
}

/// How many writes there were so far, including deletions.
fn writes(server: &RedisServer) -> u64 {
    server.info("persistence", "rdb_changes_since_last_save")
}

async fn filled(store: &Store) {
    create_sound(&*store.repository, &project_key("a")).await;
    update(
        &*store.repository,
        &project_key("a"),
        json!({ "metadata": { "status": "published", "featured": true } }),
    )
    .await;
    create_sound(&*store.repository, &project_key("b")).await;
}

#[tokio::test]
async fn a_healthy_redis_has_no_problems_and_is_not_written_to() {
    let server = Arc::new(RedisServer::start());
    for store in [Store::on(&server, ""), Store::on(&server, SITE)] {
        filled(&store).await;
        let before = writes(&server);

        let report = doctor(&store.arguments());

        report.assert_exit(0);
        assert_eq!(
            report.with("ok").len(),
            report.lines.len() - 1,
            "{:#?}",
            report.lines
        );
        report.assert_line("ok", &["project documents: 2, 1 published, 1 featured"]);
        report.assert_line("ok", &["commit script", "loads and runs"]);
        report.assert_line("ok", &["round trip", "ms"]);
        report.assert_line("ok", &["history index: complete"]);
        assert!(
            report
                .lines
                .last()
                .unwrap()
                .ends_with("0 warnings, 0 problems: the server would start and work")
        );
        assert_eq!(writes(&server), before);
    }
}

#[tokio::test]
async fn the_report_can_be_json() {
    let home = Home::new();
    let server = RedisServer::start();
    server.run::<()>(cmd("SET").arg("meta:schema:version").arg("2"));

    let output = command(&home, &["--store", &server.url(), "--format", "json"])
        .output()
        .unwrap();

    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (output.status.code(), &report["exitCode"]),
        (Some(1), &json!(1))
    );
    let checks = report["checks"].as_array().unwrap();
    let schema = checks
        .iter()
        .find(|check| check["check"] == "schema version")
        .unwrap();
    assert_eq!(
        (&schema["verdict"], &schema["fault"]),
        (&json!("problem"), &json!("content"))
    );
    assert!(schema["message"].as_str().unwrap().contains('2') && schema["remedy"].is_string());
}

#[test]
fn every_setting_is_listed_with_its_source_and_without_its_secret() {
    let home = Home::new();
    let mut command = command(&home, &["--key-prefix", "site:", "--log=info"]);
    command
        .env("KV_REST_API_URL", "https://127.0.0.1")
        .env("KV_REST_API_TOKEN", PASSWORD)
        .env("KV_REST_API_READ_ONLY_TOKEN", PASSWORD);
    command.env(
        "PORTFOLIO_TOKENS",
        format!("site:write:{PASSWORD}-of-at-least-thirty-two-characters"),
    );
    command
        .env("UPSTASH_REDIS_REST_URL", "https://other")
        .env("PORTFOLIO_LISTEN", "everywhere")
        .env("PORTFOLIO_READ_ONLY", "false");

    let report = Report::of(&command.output().unwrap());

    report.assert_exit(3);
    report.assert_line(
        "ok",
        &[
            "store: rediss://default:***@127.0.0.1:6379",
            "KV_REST_API_URL and KV_REST_API_TOKEN",
        ],
    );
    report.assert_line(
        "ok",
        &[
            "store, for reading: rediss://default_ro:***@127.0.0.1:6379",
            "KV_REST_API_READ_ONLY_TOKEN",
        ],
    );
    report.assert_line("ok", &["store, not used: UPSTASH_REDIS_REST_URL"]);
    report.assert_line("ok", &["key prefix: site: (--key-prefix)"]);
    report.assert_line("ok", &["read-only: false (PORTFOLIO_READ_ONLY)"]);
    report.assert_line("ok", &["log format: text (default)"]);
    report.assert_line("ok", &["http: tokens: set, not shown (PORTFOLIO_TOKENS)"]);
    report.assert_line("problem", &["http", "PORTFOLIO_LISTEN", "127.0.0.1:8787"]);
}

#[test]
fn malformed_settings_are_findings_beside_the_checks_of_the_store() {
    let home = Home::new();
    let url = format!("redis://u:{PASSWORD}@h:99999");
    let malformed = |arguments: &[&str]| {
        let mut command = command(&home, arguments);
        command
            .env("PORTFOLIO_READONLY", "1")
            .env("REDIS_URL", &url);
        command.output().unwrap()
    };

    let text = Report::of(&malformed(&[]));
    let json = malformed(&["--format=json", "--log=loud", "--read-only=perhaps"]);
    let store = Report::of(&malformed(&["--store=sqlite:x.db", "--log=loud"]));

    text.assert_exit(1);
    text.assert_line("problem", &["settings: REDIS_URL: found port 99999"]);
    text.assert_line(
        "problem",
        &["settings: PORTFOLIO_READONLY", "PORTFOLIO_READ_ONLY"],
    );
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    let problems: Vec<&Value> = json["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["verdict"] == "problem")
        .collect();
    assert_eq!(
        (&json["exitCode"], problems.len()),
        (&json!(1), 4),
        "{json:#}"
    );
    store.assert_line("problem", &["settings: --log"]);
    store.assert_line("ok", &["file:", "does not exist yet"]);
}

#[tokio::test]
async fn an_empty_store_is_a_warning() {
    on_each_store(async |store: &Store| {
        doctor(&store.arguments()).assert_line("warning", &["content: the store is empty"]);

        create_sound(&*store.repository, &project_key("a")).await;

        let filled = doctor(&store.arguments());
        assert!(
            filled.lines.iter().all(|line| !line.contains("is empty")),
            "{:#?}",
            filled.lines
        );
    })
    .await;
}

/// Runs git in the home of a test.
fn git(home: &Home, arguments: &[&str]) {
    let status = home.command("git").args(arguments).status().unwrap();
    assert!(status.success(), "git {arguments:?}");
}

#[test]
fn a_secret_in_a_client_configuration_that_git_tracks_is_a_warning() {
    let home = Home::new();
    let url = format!("redis://default:{PASSWORD}@h:6379");
    let json = format!(r#"{{"mcpServers":{{"p":{{"env":{{"REDIS_URL":"{url}"}}}}}}}}"#);
    let toml = format!("[mcp_servers.p]\nenv = {{ KV_REST_API_TOKEN = \"{PASSWORD}\" }}\n");
    let bearer = format!(r#"{{"headers":{{"Authorization":"Bearer {PASSWORD}-0123456789"}}}}"#);
    let files = [
        (".mcp.json", &json, "the password of a Redis URL"),
        (".cursor/mcp.json", &json, "the password of a Redis URL"),
        (".vscode/mcp.json", &bearer, "a bearer token"),
        (".gemini/settings.json", &bearer, "a bearer token"),
        (".codex/config.toml", &toml, "a token"),
    ];
    for (file, text, _) in files {
        let path = home.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let report = || Report::of(&command(&home, &["--store=sqlite:x.db"]).output().unwrap());

    let outside = report();
    git(&home, &["init", "-q"]);
    let untracked = report();
    git(
        &home,
        &[
            "add",
            ".mcp.json",
            ".cursor",
            ".vscode",
            ".gemini",
            ".codex",
        ],
    );
    let tracked = report();
    let mut without_git = command(&home, &["--store=sqlite:x.db"]);
    let unknown = Report::of(&without_git.env("PATH", home.path()).output().unwrap());

    for report in [&outside, &untracked] {
        assert!(
            report
                .lines
                .iter()
                .all(|line| !line.contains("client configuration"))
        );
    }
    for (file, _, found) in files {
        let parts = [
            &format!("`{file}` holds {found}, and git tracks"),
            "--store-file",
        ];
        tracked.assert_line("warning", &parts);
        unknown.assert_line(
            "warning",
            &[&format!("`{file}` holds {found}"), "cannot be asked"],
        );
    }
    tracked.assert_exit(0);
}

#[cfg(unix)]
#[test]
fn files_with_secrets_that_others_may_read_are_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    let write = |name: &str, text: &str, mode: u32| {
        let path = home.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let report = |mode: u32| {
        write(
            "tokens",
            &format!("site:read:{PASSWORD}-of-thirty-two-characters"),
            mode,
        );
        write("store", "sqlite:x.db", mode);
        let arguments = ["--store-file=store", "--token-file=~/tokens"];
        Report::of(&command(&home, &arguments).output().unwrap())
    };

    let readable = report(0o644);
    let private = report(0o600);

    for file in ["store", "~/tokens"] {
        readable.assert_line("warning", &[&format!("file access: `{file}`"), "chmod 600"]);
        assert!(
            private
                .lines
                .iter()
                .all(|line| !line.contains("file access"))
        );
    }
    readable.assert_line("ok", &["store file: store (--store-file)"]);
}

#[cfg(unix)]
#[test]
fn a_database_that_others_may_write_is_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let store = Store::sqlite();
    store.import(&repository_path("examples/content"));
    let report = |mode: u32| {
        fs::set_permissions(store.file(), fs::Permissions::from_mode(mode)).unwrap();
        doctor(&store.arguments())
    };

    let writable = report(0o664);
    let private = report(0o644);

    writable.assert_line(
        "warning",
        &["file access", "can be changed by other users", "chmod 600"],
    );
    let access = |line: &String| line.contains("file access");
    assert!(!private.lines.iter().any(access), "{:?}", private.lines);
}

#[test]
fn each_setting_is_listed_once() {
    let report = doctor(&[] as &[&str]);

    let settings: Vec<&String> = report
        .lines
        .iter()
        .filter(|line| line.contains("(default"))
        .collect();
    let distinct: BTreeSet<&String> = settings.iter().copied().collect();
    assert_eq!(settings.len(), distinct.len(), "{settings:#?}");
}

#[test]
fn the_options_of_http_are_checked_too() {
    let home = Home::new();
    let tokens = home.path().join("tokens");
    fs::write(&tokens, "site:owner:wr0ng-wr0ng-wr0ng-wr0ng").unwrap();
    let (tokens, missing) = (
        tokens.to_string_lossy().into_owned(),
        home.path().join("missing").to_string_lossy().into_owned(),
    );

    let right = doctor(&["--listen", "[::1]:0", "--rate-limit=0"]);
    let wrong = doctor(&["--listen=0.0.0.0:0", "--rate-limit=many"]);
    let wrong_tokens = doctor(&["--listen=0.0.0.0:0", "--token-file", &tokens]);
    let no_file = doctor(&["--token-file", &missing]);

    right.assert_exit(0);
    right.assert_line("ok", &["http: listen: [::1]:0 (--listen)"]);
    wrong.assert_exit(1);
    wrong.assert_line("problem", &["http: --listen", "--token-file"]);
    wrong.assert_line("problem", &["http: --rate-limit"]);
    wrong_tokens.assert_exit(1);
    wrong_tokens.assert_line("problem", &["http: --token-file", "line 1", "role"]);
    assert_eq!(wrong_tokens.with("problem").len(), 1);
    no_file.assert_line("problem", &["http: --token-file", "cannot be read"]);
}

#[test]
fn unreachable_silent_and_rejecting_stores_are_each_reported_once() {
    let stopped = RedisServer::start();
    stopped.stop();
    let guarded = RedisServer::start();
    guarded.user("site", &["~*", "+@all"]);

    let unreachable = doctor(&["--store", "redis://127.0.0.1:1", "--smoke"]);
    let silent = doctor(&["--store", &stopped.url()]);
    let rejecting = doctor_as(&guarded, "site", "wr0ng", &[]);

    for (report, message) in [
        (&unreachable, "check that Redis is running"),
        (&silent, "Redis is not running"),
        (&rejecting, "wrong user name or password"),
    ] {
        report.assert_exit(3);
        report.assert_line("problem  connection", &[message]);
        assert_eq!(
            report
                .with("problem")
                .iter()
                .filter(|line| !line.contains("smoke"))
                .count(),
            1,
            "{:#?}",
            report.lines
        );
    }
    stopped.cont();
}

#[tokio::test]
async fn a_read_only_user_is_a_problem_unless_the_server_is_read_only() {
    let store = Store::redis();
    filled(&store).await;
    store.server().user("reader", &READ_ONLY);
    let before = store.server().dump();

    let writable = doctor_as(store.server(), "reader", PASSWORD, &[]);
    let read_only = doctor_as(store.server(), "reader", PASSWORD, &["--read-only"]);

    writable.assert_exit(1);
    writable.assert_line(
        "problem",
        &["writing", "EVAL", "--read-only", "STORE_READ_ONLY"],
    );
    read_only.assert_exit(0);
    read_only.assert_line("ok", &["writing: not checked"]);
    read_only.assert_line("ok", &["project documents: 2"]);
    read_only.assert_line("warning", &["eviction", "unknown"]);
    assert_eq!(store.server().dump(), before);
}

#[tokio::test]
async fn a_missing_permission_is_named_without_writing_anything() {
    let store = Store::redis();
    filled(&store).await;
    let before = writes(store.server());

    for (rules, named) in [
        (["~*", "+@all", "-zadd"].as_slice(), "ZADD audit:entries"),
        (&["~*", "+@all", "-hdel"], "HDEL audit:stats"),
        (
            &[
                "~data:*",
                "~audit:*",
                "~index:*",
                "~internal:*",
                "~meta:*",
                "+@all",
            ],
            "DEL cache:api:projects",
        ),
    ] {
        store.server().user("limited", rules);
        let report = doctor_as(store.server(), "limited", PASSWORD, &[]);
        report.assert_exit(1);
        report.assert_line("problem", &["writing", named]);
    }
    store
        .server()
        .user("limited", &["~*", "+@all", "-smembers"]);
    let report = doctor_as(store.server(), "limited", PASSWORD, &[]);
    report.assert_exit(3);
    report.assert_line("problem", &["reading", "SMEMBERS index:all:projects"]);
    assert_eq!(writes(store.server()), before);
}

#[tokio::test]
async fn the_schema_version_is_set_by_the_first_write_or_reported() {
    let server = RedisServer::start();
    let report = || doctor_as(&server, "limited", PASSWORD, &[]);
    let ours = ["~data:*", "~index:*", "~audit:*", "~cache:*", "~internal:*"];
    server.user("limited", &["~*", "+@all"]);
    report().assert_line(
        "ok",
        &["schema version", "not set; the first write sets it"],
    );
    server.run::<()>(cmd("RPUSH").arg("meta:schema:version").arg("1"));
    report().assert_line("problem", &["schema version", "not a string"]);
    report().assert_exit(1);

    server.user("limited", &[&ours[..], &["+@all"]].concat());

    report().assert_line("ok", &["schema version", "may not read"]);
    report().assert_line("ok", &["writing", "all required commands are allowed"]);
    report().assert_line("ok", &["commit script", "loads and runs"]);
}

/// A server that cannot check permissions: the commands are tested on a temporary key.
#[tokio::test]
async fn an_older_server_is_tested_and_left_unchanged() {
    let store = Store::redis();
    filled(&store).await;
    let mut proxy = Proxy::start(store.server().port()).await;
    proxy.set(Mode::Older).await;
    let before = store.server().dump();
    let diagnosed = async |name: &str| {
        diagnose(
            &Location::Redis {
                write: Some(proxy.redis_url_of(name)),
                read: None,
                key_prefix: String::new(),
            },
            clock,
        )
        .await
    };

    store.server().user("limited", &["~*", "+@all"]);
    let all = diagnosed("limited").await;
    store.server().user("limited", &["~*", "+@all", "-srem"]);
    let lacking = diagnosed("limited").await;

    assert!(problems(&all).is_empty(), "{all:#?}");
    assert!(
        all.iter()
            .any(|finding| finding.message.contains("tested on a temporary key")),
        "{all:#?}"
    );
    assert!(
        problems(&lacking)
            .iter()
            .any(|finding| finding.message.contains("SREM")),
        "{lacking:#?}"
    );
    assert_eq!(store.server().dump(), before);
}

/// Runs `doctor` behind a slow network.
async fn doctor_over(network: SlowNetwork, store: &Store) -> Report {
    let proxy = Proxy::start_slow(store.server().port(), network).await;
    let url = proxy.url();
    spawn_blocking(move || doctor(&["--store", &url]))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_a_list_cannot_wait_for_are_the_only_finding_on_a_slow_network() {
    let store = store_of_large_documents(13).await;
    LARGE_ENTRIES.store_in(store.server());

    let report = doctor_over(SLOWEST, &store).await;

    report.assert_exit(0);
    report.assert_line(
        "warning",
        &[
            "reading all documents: 13 documents, 2.7 MB",
            "MB/s",
            "after a start lists fail",
            "run the server closer to the store",
        ],
    );
    assert_eq!(report.with("warning").len(), 1, "{:#?}", report.lines);
    report.assert_line("ok", &["project documents: 13, 13 published"]);
    report.assert_line("ok", &["audit log: 1013 entries"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_documents_than_arrive_in_time_are_not_all_checked() {
    let store = store_of_large_documents(60).await;

    let report = doctor_over(SLOWEST, &store).await;

    report.assert_exit(0);
    report.assert_line(
        "warning",
        &[
            "reading all documents: stopped after",
            "of 60 documents",
            "all would take about",
        ],
    );
    assert_eq!(report.with("warning").len(), 1, "{:#?}", report.lines);
    report.assert_line("ok", &["project documents", " of 60 read"]);
    report.assert_line("ok", &["index", "match the documents that were read"]);
    store.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_the_server_cannot_wait_for_is_a_problem() {
    let store = store_of_large_documents(2).await;
    let network = SlowNetwork {
        bytes_per_second: 60_000,
        ..SLOWEST
    };

    let report = doctor_over(network, &store).await;

    report.assert_exit(3);
    report.assert_line(
        "problem",
        &[
            "reading all documents: `data:projects:p",
            "and the server waits 2 s for a reply",
            "lists fail",
        ],
    );
    assert_eq!(report.with("problem").len(), 1, "{:#?}", report.lines);
    store.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_does_not_arrive_is_named_instead_of_the_connection() {
    let store = store_of_large_documents(2).await;
    let network = SlowNetwork {
        bytes_per_second: 30_000,
        ..SLOWEST
    };

    let report = doctor_over(network, &store).await;

    report.assert_exit(3);
    report.assert_line(
        "problem",
        &[
            "reading all documents: `data:projects:p0` did not arrive within 5 s",
            "the network is very slow",
        ],
    );
    report.assert_line("problem", &["audit log: one of the newest entries"]);
    assert_eq!(report.with("problem").len(), 2, "{:#?}", report.lines);
    store.assert_sound().await;
}

fn problems(findings: &[Finding]) -> Vec<&Finding> {
    findings
        .iter()
        .filter(|finding| matches!(finding.verdict, Verdict::Problem(_)))
        .collect()
}

/// Leaves what other programs and edits by hand may leave.
fn damage(server: &RedisServer) {
    let key = |name: &str| format!("{SITE}{name}");
    let set = |name: &str, value: &str| server.run::<()>(cmd("SET").arg(key(name)).arg(value));
    server.run::<()>(
        cmd("SADD")
            .arg(key("index:all:projects"))
            .arg("gone")
            .arg("list")
            .arg("html"),
    );
    server.run::<()>(
        cmd("SADD")
            .arg(key("index:published:projects"))
            .arg("b")
            .arg("\u{1b}[2J"),
    );
    server.run::<()>(cmd("SREM").arg(key("index:featured:projects")).arg("a"));
    server.run::<()>(cmd("SET").arg(key("index:featured:resources")).arg("text"));
    set(
        "data:resources:unlisted",
        &json!(resource("unlisted")).to_string(),
    );
    server.run::<()>(cmd("RPUSH").arg(key("data:projects:list")).arg("x"));
    set("data:projects:html", "<html>");
    let mut invalid = project("b");
    invalid.insert("title".to_owned(), json!(""));
    set("data:projects:b", &json!(invalid).to_string());
    set("meta:schema:version", "2");
    let tomorrow = clock().millis() + 86_400_000;
    server.run::<()>(
        cmd("ZADD")
            .arg(key("audit:entries"))
            .arg(tomorrow)
            .arg("{\"action\":\"save\"}"),
    );
    server.run::<()>(
        cmd("CONFIG")
            .arg("SET")
            .arg("maxmemory-policy")
            .arg("allkeys-lru"),
    );
}

#[tokio::test]
async fn drifted_indexes_unexpected_values_and_a_wrong_log_are_reported_with_a_remedy() {
    let store = Store::on(&Arc::new(RedisServer::start()), SITE);
    filled(&store).await;
    let server = store.server();
    damage(server);
    let before = server.dump();

    let report = doctor(&store.arguments());

    report.assert_exit(1);
    report.assert_line(
        "problem",
        &[
            "project documents",
            "`{site}:data:projects:list` (it is a Redis list)",
            "`{site}:data:projects:html` (it is not JSON",
        ],
    );
    report.assert_line(
        "warning",
        &[
            "project documents",
            "1 violation in 1 document: b",
            "get_project",
        ],
    );
    report.assert_line(
        "warning",
        &[
            "index:all:projects` has 1 id without a document: gone",
            "SREM",
        ],
    );
    report.assert_line(
        "problem",
        &[
            "index:all:resources` lacks 1 document: unlisted",
            "SADD {site}:index:all:resources unlisted",
        ],
    );
    report.assert_line(
        "warning",
        &[
            "index:published:projects` has 2 ids that should not be in it",
            "\u{fffd}[2J",
            "SREM",
        ],
    );
    report.assert_line(
        "warning",
        &[
            "index:featured:projects` lacks 1 document: a",
            "SADD {site}:index:featured:projects a",
        ],
    );
    report.assert_line(
        "problem",
        &[
            "keys",
            "`{site}:index:featured:resources` is a string, not a set",
        ],
    );
    report.assert_line("problem", &["schema version", "`2`"]);
    report.assert_line(
        "warning",
        &[
            "audit log",
            "the entry `{\"action\":\"save\"}` is",
            "in the future",
        ],
    );
    report.assert_line("warning", &["audit counters", "harmless"]);
    report.assert_line("ok", &["history index: lacks "]);
    report.assert_line("problem", &["eviction", "allkeys-lru", "noeviction"]);
    assert!(!report.lines.concat().contains('\u{1b}'));
    assert_eq!(server.dump(), before);
}

/// The part of a line between the only `before` in it and the next `after`.
fn between<'a>(line: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = line.split_once(before).unwrap();
    rest.split_once(after).unwrap().0
}

/// A change that a program with a wrong clock makes.
async fn update_at(store: &Store, key: &DocumentKey, time: Timestamp) {
    let operation = once();
    let current = store.repository.get_for_update(key).await.unwrap();
    let context = WriteContext {
        now: time,
        ..write_context(&operation)
    };
    let patch = object(json!({ "title": "From the future" }));
    let Ok(Update::Change(change, _)) = Change::update(&current, &patch, &[], context) else {
        panic!("no change")
    };
    let changes = [*change];
    store.repository.commit(&changes, &operation).await.unwrap();
}

fn a_year_ahead() -> Timestamp {
    Timestamp::from_millis(clock().millis() + 365 * 86_400_000)
}

/// How far the time of the next entry is ahead of the clock.
async fn next_entry_ahead(store: &Store) -> i64 {
    let patch = json!({ "title": unique("title") });
    let committed = update(&*store.repository, &project_key("b"), patch).await;
    committed.entries[0].timestamp().unwrap().millis() - clock().millis()
}

/// The numbers of all entries, in the order of the log. Their times go back, so the store is not
/// sound.
async fn numbers(store: &Store) -> Vec<u64> {
    let query = AuditQuery {
        limit: 100,
        ..AuditQuery::default()
    };
    let page = store.repository.audit_entries(&query).await.unwrap();
    page.entries.iter().filter_map(StoredEntry::seq).collect()
}

#[tokio::test]
async fn an_entry_of_the_future_in_redis_is_named_and_its_correction_works() {
    let store = Store::on(&Arc::new(RedisServer::start()), SITE);
    filled(&store).await;
    let future = a_year_ahead().millis();
    let entries = format!("{SITE}audit:entries");
    let texts: Vec<String> = store
        .server()
        .run(cmd("ZRANGE").arg(&entries).arg(0).arg(-1));
    for text in &texts[1..] {
        store
            .server()
            .run::<()>(cmd("ZADD").arg(&entries).arg(future).arg(text));
    }
    let operation = once();
    let changes = [change(
        &*store.repository,
        &project_key("a"),
        json!({ "title": "Late" }),
    )
    .await];
    let late = store.repository.commit(&changes, &operation).await.unwrap();

    let report = doctor(&store.arguments());
    let line = report.with("warning")[0].clone();
    let script = between(&line, "EVAL \"", "\" 2 ");
    let keys = between(&line, "\" 2 '", "'`");
    let keys: Vec<&str> = keys.split("' '").collect();
    store
        .server()
        .run::<()>(cmd("EVAL").arg(script).arg(2).arg(keys));

    report.assert_exit(0);
    report.assert_line(
        "warning",
        &[
            "audit log: entry 2 (id ",
            " of project `a` is ",
            "in the future, at ",
        ],
    );
    assert!(next_entry_ahead(&store).await < 60_000);
    doctor(&store.arguments()).assert_line("ok", &["audit log: 5 entries"]);
    let replayed = store.another().commit(&changes, &operation).await.unwrap();
    assert_eq!(replayed.entries, late.entries);
    assert_eq!(numbers(&store).await, [5, 4, 3, 2, 1]);
    history_index::assert_right(store.server(), SITE);
}

#[tokio::test]
async fn an_entry_of_the_future_in_sqlite_is_named_and_its_correction_works() {
    let store = Store::sqlite();
    filled(&store).await;
    update_at(&store, &project_key("a"), a_year_ahead()).await;
    update(
        &*store.repository,
        &project_key("b"),
        json!({ "title": "Later" }),
    )
    .await;

    let report = doctor(&store.arguments());
    report.assert_exit(0);
    report.assert_line(
        "warning",
        &[
            "audit log: entry 4 (id ",
            " of project `a` is ",
            "in the future, at ",
        ],
    );
    report.assert_line(
        "warning",
        &["project documents: `metadata.updatedAt` is in the future in 1 document: a"],
    );
    let line = report
        .lines
        .iter()
        .find(|line| line.contains("UPDATE entries"))
        .unwrap();
    let sql = between(line, "' \"", "\"`");
    rusqlite::Connection::open(store.file())
        .unwrap()
        .execute_batch(sql)
        .unwrap();

    assert!(next_entry_ahead(&store).await < 60_000);
    assert_eq!(numbers(&store).await, [6, 5, 4, 3, 2, 1]);
}

#[tokio::test]
async fn a_document_of_the_future_is_corrected_by_an_import() {
    let store = Store::sqlite();
    filled(&store).await;
    let future = a_year_ahead();
    update_at(&store, &project_key("a"), future).await;
    let text = stored(&*store.repository, &project_key("a")).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let right = text.replace(&future.to_string(), &clock().to_string());
    fs::write(folder.path().join("projects.json"), format!("[{right}]")).unwrap();

    let imported = Home::new()
        .command(PROGRAM)
        .args(["import", "--force"])
        .arg(folder.path())
        .args(store.arguments())
        .output()
        .unwrap();

    assert!(imported.status.success(), "{imported:?}");
    assert_eq!(
        stored(&*store.repository, &project_key("a")).await,
        Some(right)
    );
    let report = doctor(&store.arguments());
    assert!(
        !report
            .lines
            .iter()
            .any(|line| line.contains("`metadata.updatedAt`")),
        "{:#?}",
        report.lines
    );
}

#[tokio::test]
async fn a_score_that_is_no_time_is_named() {
    let (redis, sqlite) = (Store::redis(), Store::sqlite());
    for store in [&redis, &sqlite] {
        filled(store).await;
    }
    let entries: Vec<String> = redis
        .server()
        .run(cmd("ZRANGE").arg("audit:entries").arg(0).arg(-1));
    for (score, entry) in ["-inf", "inf"].into_iter().zip(&entries) {
        redis
            .server()
            .run::<()>(cmd("ZADD").arg("audit:entries").arg(score).arg(entry));
    }
    rusqlite::Connection::open(sqlite.file())
        .unwrap()
        .execute_batch("UPDATE entries SET score = 1770000000000000 WHERE seq = 2")
        .unwrap();

    let (in_redis, in_sqlite) = (doctor(&redis.arguments()), doctor(&sqlite.arguments()));

    in_redis.assert_line(
        "warning",
        &[
            "entry 1 (id ",
            "of project `a` has the score -inf",
            "harmless",
        ],
    );
    in_redis.assert_line(
        "warning",
        &[
            "entry 2 (id ",
            "of project `a` has the score inf, which is no time",
            "EVAL",
        ],
    );
    in_sqlite.assert_line(
        "warning",
        &[
            "entry 2 (id ",
            "has the score 1770000000000000",
            "UPDATE entries",
        ],
    );
}

#[tokio::test]
async fn a_sqlite_file_is_checked_and_not_created() {
    let store = Store::sqlite();
    let file = store.file();
    let missing = doctor(&store.arguments());
    missing.assert_exit(0);
    missing.assert_line("ok", &["does not exist yet"]);
    assert!(!file.exists());

    filled(&store).await;
    let sound = doctor(&store.arguments());
    sound.assert_exit(0);
    for message in [
        "integrity: no damage found",
        "write-ahead log: on",
        "writing: is possible",
        "project documents: 2",
        "audit log: 3 entries",
    ] {
        sound.assert_line("ok", &[message]);
    }

    let connection = rusqlite::Connection::open(&file).unwrap();
    connection
        .execute("UPDATE documents SET text = '<html>' WHERE id = 'b'", [])
        .unwrap();
    let garbled = doctor(&store.arguments());
    garbled.assert_exit(1);
    garbled.assert_line("problem", &["`documents/project/b` (it is not JSON"]);

    let others = file.with_file_name("others.db");
    rusqlite::Connection::open(&others)
        .unwrap()
        .execute_batch("CREATE TABLE t (x)")
        .unwrap();
    let foreign = doctor(&["--store", &format!("sqlite:{}", others.display())]);
    foreign.assert_exit(3);
    foreign.assert_line("problem", &["another program", "choose another file"]);
    let folder = doctor(&[
        "--store",
        &format!("sqlite:{}", file.parent().unwrap().display()),
    ]);
    folder.assert_exit(1);
    folder.assert_line("problem", &["--store: found a folder"]);
    fs::write(&others, vec![b'x'; 9000]).unwrap();
    doctor(&["--store", &format!("sqlite:{}", others.display())]).assert_exit(3);
    let smoked = command(
        &Home::new(),
        &["--smoke", "--store", &format!("sqlite:{}", file.display())],
    )
    .output()
    .unwrap();
    assert_eq!(smoked.status.code(), Some(2));
}

#[tokio::test]
async fn a_smoke_test_checks_everything_and_leaves_nothing_behind() {
    let server = Arc::new(RedisServer::start());
    for prefix in ["", SITE, "a*[b]?\\:"] {
        let store = Store::on(&server, prefix);
        filled(&store).await;
        let before = server.dump();

        let report = smoke_report(&store);

        report.assert_exit(0);
        for check in [
            "login",
            "HELLO 3",
            "TIME in a script",
            "errors of redis.pcall",
            "string.format",
            "unpack",
            "PUBLISH in a script",
            "push",
            "EVALSHA from a second connection",
            "latency",
            "commit",
            "tidying up",
        ] {
            report.assert_line("ok       smoke", &[&format!("smoke: {check}: ")]);
        }
        // Every key was deleted by its name, which works even if a replica does not have it yet.
        assert!(
            report
                .lines
                .iter()
                .any(|line| line.ends_with("nothing is left behind")),
            "{:#?}",
            report.lines
        );
        assert_eq!(server.dump(), before);
    }
}

#[tokio::test]
async fn a_failing_smoke_test_says_what_follows_and_leaves_nothing_behind() {
    let store = Store::redis();
    filled(&store).await;
    let before = store.server().dump();

    for (missing, verdict, parts) in [
        (
            "-zadd",
            "problem",
            ["smoke: commit", "ZADD", "do not write"],
        ),
        (
            "-time",
            "warning",
            ["smoke: TIME in a script", "found `", "clocks"],
        ),
        (
            "-publish",
            "warning",
            ["smoke: PUBLISH in a script", "refused", "no effect today"],
        ),
        (
            "-evalsha",
            "problem",
            ["smoke: commit", "evalsha", "do not write"],
        ),
        (
            "-del",
            "problem",
            [
                "smoke: tidying up",
                "could not be deleted",
                "nothing was tested",
            ],
        ),
        (
            "-scan",
            "problem",
            [
                "smoke: tidying up",
                "could not be deleted",
                "nothing was tested",
            ],
        ),
    ] {
        store
            .server()
            .user("limited", &["~*", "&*", "+@all", missing]);
        let report = doctor_as(store.server(), "limited", PASSWORD, &["--smoke"]);
        report.assert_line(verdict, &parts);
        assert_eq!(store.server().dump(), before, "{missing}");
    }
}

#[tokio::test]
async fn a_smoke_test_lists_what_the_read_only_credential_allows() {
    let store = Store::redis();
    filled(&store).await;
    let before = store.server().dump();
    let reader = store.server().user("reader", &READ_ONLY);
    let location = Location::Redis {
        write: Some(store.server().redis_url()),
        read: Some(reader),
        key_prefix: String::new(),
    };

    let diagnosed = diagnose(&location, clock).await;
    let tested = smoke_test(&location, clock, None, CancellationToken::new())
        .await
        .unwrap();

    assert!(
        problems(&diagnosed).is_empty() && problems(&tested).is_empty(),
        "{diagnosed:#?} {tested:#?}"
    );
    let reports = |text: &str| {
        tested.iter().any(|finding| {
            finding.check == "smoke: read-only credential" && finding.message.contains(text)
        })
    };
    assert!(
        reports("allowed: SCAN, GET, SMEMBERS, ZRANGE, HGETALL; not allowed: PING, TIME, EVAL_RO"),
        "{tested:#?}"
    );
    assert!(reports("writing is not allowed"), "{tested:#?}");
    assert_eq!(store.server().dump(), before);
}

#[tokio::test]
async fn an_interrupted_smoke_test_cleans_up() {
    let store = Store::redis();
    filled(&store).await;
    let before = store.server().dump();
    let home = Home::new();
    let mut command = command(
        &home,
        &[
            store.arguments(),
            ["--smoke", "--idle", "600"].map(ToOwned::to_owned).to_vec(),
        ]
        .concat(),
    );
    let child = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();

    wait_until("the test has written something", || {
        (store.server().dump() != before).then_some(())
    });
    signal(child.id(), "-TERM");
    let report = Report::of(&child.wait_with_output().unwrap());

    report.assert_exit(3);
    report.assert_line("problem", &["smoke: interrupted"]);
    report.assert_line("ok", &["smoke: tidying up: nothing is left behind"]);
    assert_eq!(store.server().dump(), before);
}

#[tokio::test]
async fn a_smoke_test_on_a_bad_connection_leaves_nothing_behind() {
    let store = Store::redis();
    filled(&store).await;
    let before = store.server().dump();
    let mut proxy = Proxy::start(store.server().port()).await;
    proxy.set(Mode::CutReply).await;
    let location = Location::Redis {
        write: Some(proxy.redis_url()),
        read: None,
        key_prefix: String::new(),
    };

    let tested = smoke_test(&location, clock, None, CancellationToken::new())
        .await
        .unwrap();

    assert!(
        tested
            .iter()
            .any(|finding| finding.message == "nothing is left behind"),
        "{tested:#?}"
    );
    assert_eq!(store.server().dump(), before);
}

/// A node of a cluster never takes another one for dead, however busy the machine is: then it would
/// answer that the cluster is down.
const CLUSTER_NODE: [&str; 6] = [
    "--cluster-enabled",
    "yes",
    "--cluster-node-timeout",
    "3600000",
    "--save",
    "",
];

/// Two nodes of a cluster: the first has no slots, and knows that the second has all of them.
fn cluster() -> (RedisServer, RedisServer) {
    let (empty, full) = (
        RedisServer::start_with(&CLUSTER_NODE),
        RedisServer::start_with(&CLUSTER_NODE),
    );
    let slots: Vec<String> = (0..16_384).map(|slot| slot.to_string()).collect();
    full.run::<()>(cmd("CLUSTER").arg("ADDSLOTS").arg(&slots));
    empty.run::<()>(cmd("CLUSTER").arg("MEET").arg("127.0.0.1").arg(full.port()));
    wait_until("the first node knows the second", || {
        let reply = empty.try_run::<Option<String>>(cmd("GET").arg("a"));
        reply
            .is_err_and(|error| error.code() == Some("MOVED"))
            .then_some(())
    });
    wait_until("the second node serves its slots", || {
        let reply = full.try_run::<Option<String>>(cmd("GET").arg("a"));
        reply.ok()
    });
    (empty, full)
}

#[tokio::test]
async fn a_node_of_a_cluster_is_named() {
    let alone = RedisServer::start_with(&CLUSTER_NODE);
    let (empty, full) = cluster();

    for (node, reply) in [(&alone, "Hash slot not served"), (&empty, "Moved")] {
        let report = doctor(&["--store", &node.url()]);
        report.assert_exit(3);
        report.assert_line("problem", &["connection", "node of a Redis Cluster", reply]);

        let client = StdioClient::start_with(&["--store", &node.url()]).await;
        let names_it = |answer: &Value| {
            let message = answer["error"]["message"].as_str();
            message.is_some_and(|message| message.contains("Redis Cluster"))
        };
        let read = json!({ "id": "a" });
        let read = client.call_until("get_project", read, names_it).await;
        let patch = json!({ "id": "a", "data": { "title": "New" } });
        let written = client.call_until("update_project", patch, names_it).await;
        for answer in [read, written] {
            let message = answer["error"]["message"].as_str().unwrap();
            assert!(!message.contains("127.0.0.1"), "{answer}");
        }
        wait_until("the log has the reply of Redis", || {
            client.stderr().contains(reply).then_some(())
        });
    }
    let report = doctor(&["--store", &full.url()]);
    report.assert_exit(3);
    report.assert_line("problem", &["commit script", "node of a Redis Cluster"]);
}

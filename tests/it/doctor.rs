//! `doctor`: what it finds in stores that are sound, ill and gone, what it says about it, and that it leaves them as they are.

use std::{
    fs,
    process::{Command, Output},
    sync::Arc,
    time::{Duration, Instant},
};

use portfolio_mcp::{
    clock,
    store::{
        Location,
        examination::{Finding, Verdict, examine, smoke},
    },
};
use redis::cmd;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::{
    fixtures::{create_sound, project, project_key, resource, update},
    process::signal,
    program::{Home, PROGRAM},
    proxy::{Mode, Proxy},
    redis::{PASSWORD, READ_ONLY, RedisServer},
    stores::{SITE, Store},
    wait_until,
};

/// However ill a store is, an examination ends by then.
const LONGEST: Duration = Duration::from_secs(30);

/// What `doctor` said.
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

    /// Fails unless there is just one line with this verdict that says all of `parts`.
    fn assert_says(&self, verdict: &str, parts: &[&str]) {
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
    assert!(start.elapsed() < LONGEST, "it took {:?}", start.elapsed());
    Report::of(&output)
}

fn doctor_as(server: &RedisServer, user: &str, password: &str, arguments: &[&str]) -> Report {
    let url = format!("redis://{user}:{password}@127.0.0.1:{}", server.port());
    doctor(&[&["--store", &url], arguments].concat())
}

fn smoked(store: &Store) -> Report {
    doctor(&[store.arguments(), vec!["--smoke".to_owned()]].concat())
}

/// How often anything was written so far, deletions included.
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
async fn a_sound_redis_is_found_well_and_not_written_to() {
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
        report.assert_says("ok", &["project documents: 2, 1 published, 1 featured"]);
        report.assert_says("ok", &["commit script", "runs"]);
        report.assert_says("ok", &["round trip", "ms"]);
        assert!(
            report
                .lines
                .last()
                .unwrap()
                .ends_with("0 warnings, 0 problems: the server would serve")
        );
        assert_eq!(writes(&server), before);
    }
}

#[tokio::test]
async fn the_report_is_json_where_that_is_asked_for() {
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
fn every_setting_is_told_with_its_origin_and_without_its_secret() {
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
    report.assert_says(
        "ok",
        &[
            "store: rediss://default:***@127.0.0.1:6379",
            "KV_REST_API_URL and KV_REST_API_TOKEN",
        ],
    );
    report.assert_says(
        "ok",
        &[
            "store, for reading: rediss://default_ro:***@127.0.0.1:6379",
            "KV_REST_API_READ_ONLY_TOKEN",
        ],
    );
    report.assert_says("ok", &["store, not used: UPSTASH_REDIS_REST_URL"]);
    report.assert_says("ok", &["key prefix: site: (--key-prefix)"]);
    report.assert_says("ok", &["read-only: false (PORTFOLIO_READ_ONLY)"]);
    report.assert_says("ok", &["log format: text (default)"]);
    report.assert_says("ok", &["http: tokens: set, not shown (PORTFOLIO_TOKENS)"]);
    report.assert_says("problem", &["http", "PORTFOLIO_LISTEN", "127.0.0.1:8787"]);
}

#[test]
fn a_store_that_is_gone_deaf_or_refuses_is_told_once_in_time_with_what_to_do() {
    let deaf = RedisServer::start();
    deaf.stop();
    let guarded = RedisServer::start();
    guarded.user("site", &["~*", "+@all"]);

    let gone = doctor(&["--store", "redis://127.0.0.1:1", "--smoke"]);
    let silent = doctor(&["--store", &deaf.url()]);
    let refused = doctor_as(&guarded, "site", "wr0ng", &[]);

    for (report, says) in [
        (&gone, "is Redis running?"),
        (&silent, "is Redis running?"),
        (&refused, "wrong user name or password"),
    ] {
        report.assert_exit(3);
        report.assert_says("problem  connection", &[says]);
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
    deaf.cont();
}

#[tokio::test]
async fn a_reading_user_makes_a_server_that_cannot_write_or_is_asked_not_to() {
    let store = Store::redis();
    filled(&store).await;
    store.server().user("reader", &READ_ONLY);
    let before = store.server().dump();

    let asked_to_write = doctor_as(store.server(), "reader", PASSWORD, &[]);
    let read_only = doctor_as(store.server(), "reader", PASSWORD, &["--read-only"]);

    asked_to_write.assert_exit(1);
    asked_to_write.assert_says(
        "problem",
        &["writing", "EVAL", "--read-only", "STORE_READ_ONLY"],
    );
    read_only.assert_exit(0);
    read_only.assert_says("ok", &["writing: not examined"]);
    read_only.assert_says("ok", &["project documents: 2"]);
    read_only.assert_says("warning", &["eviction", "cannot be asked for"]);
    assert_eq!(store.server().dump(), before);
}

#[tokio::test]
async fn a_right_that_is_missing_is_named_and_nothing_is_written_to_find_it() {
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
        report.assert_says("problem", &["writing", named]);
    }
    store
        .server()
        .user("limited", &["~*", "+@all", "-smembers"]);
    let report = doctor_as(store.server(), "limited", PASSWORD, &[]);
    report.assert_exit(3);
    report.assert_says("problem", &["reading", "SMEMBERS index:all:projects"]);
    assert_eq!(writes(store.server()), before);
}

/// A server that cannot be asked for permissions: they are tried on a key of our own, which goes again.
#[tokio::test]
async fn an_older_server_is_tried_and_nothing_stays() {
    let store = Store::redis();
    filled(&store).await;
    let mut line = Proxy::start(store.server().port()).await;
    line.set(Mode::Older).await;
    let before = store.server().dump();
    let examined = async |name: &str| {
        examine(
            &Location::Redis {
                write: Some(line.redis_url_of(name)),
                read: None,
                key_prefix: String::new(),
            },
            clock,
        )
        .await
    };

    store.server().user("limited", &["~*", "+@all"]);
    let all = examined("limited").await;
    store.server().user("limited", &["~*", "+@all", "-srem"]);
    let lacking = examined("limited").await;

    assert!(problems(&all).is_empty(), "{all:#?}");
    assert!(
        all.iter()
            .any(|finding| finding.says.contains("as tried on a key of our own")),
        "{all:#?}"
    );
    assert!(
        problems(&lacking)
            .iter()
            .any(|finding| finding.says.contains("SREM")),
        "{lacking:#?}"
    );
    assert_eq!(store.server().dump(), before);
}

fn problems(findings: &[Finding]) -> Vec<&Finding> {
    findings
        .iter()
        .filter(|finding| matches!(finding.verdict, Verdict::Problem(_)))
        .collect()
}

#[tokio::test]
async fn drifted_indexes_strange_values_and_a_wrong_log_are_told_with_what_to_do() {
    let store = Store::on(&Arc::new(RedisServer::start()), SITE);
    filled(&store).await;
    let server = store.server();
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
    let mut broken = project("b");
    broken.insert("title".to_owned(), json!(""));
    set("data:projects:b", &json!(broken).to_string());
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
    let before = server.dump();

    let report = doctor(&store.arguments());

    report.assert_exit(1);
    report.assert_says(
        "problem",
        &[
            "project documents",
            "`{site}:data:projects:list` (it is a Redis list)",
            "`{site}:data:projects:html` (it is not JSON",
        ],
    );
    report.assert_says(
        "warning",
        &["project documents", "1 break 1 rules: b", "get_project"],
    );
    report.assert_says(
        "warning",
        &[
            "index:all:projects` names 1 documents that are not there: gone",
            "SREM",
        ],
    );
    report.assert_says(
        "problem",
        &[
            "index:all:resources` lacks 1 documents: unlisted",
            "SADD {site}:index:all:resources unlisted",
        ],
    );
    report.assert_says(
        "warning",
        &[
            "index:published:projects` names too much: 2 documents",
            "\u{fffd}[2J",
            "SREM",
        ],
    );
    report.assert_says(
        "warning",
        &[
            "index:featured:projects` lacks 1 documents, such as a",
            "SADD {site}:index:featured:projects a",
        ],
    );
    report.assert_says(
        "problem",
        &[
            "keys",
            "`{site}:index:featured:resources` is a string, not a set",
        ],
    );
    report.assert_says("problem", &["schema version", "`2`"]);
    report.assert_says("warning", &["audit log", "in the future"]);
    report.assert_says("warning", &["audit counters", "harmless"]);
    report.assert_says("problem", &["eviction", "allkeys-lru", "noeviction"]);
    assert!(!report.lines.concat().contains('\u{1b}'));
    assert_eq!(server.dump(), before);
}

#[tokio::test]
async fn a_sqlite_file_is_examined_and_not_made() {
    let store = Store::sqlite();
    let file = store.file();
    let missing = doctor(&store.arguments());
    missing.assert_exit(0);
    missing.assert_says("ok", &["is not there yet"]);
    assert!(!file.exists());

    filled(&store).await;
    let sound = doctor(&store.arguments());
    sound.assert_exit(0);
    for says in [
        "integrity: the file is whole",
        "write-ahead log: on",
        "writing: is possible",
        "project documents: 2",
        "audit log: 3 entries",
    ] {
        sound.assert_says("ok", &[says]);
    }

    let connection = rusqlite::Connection::open(&file).unwrap();
    connection
        .execute("UPDATE documents SET text = '<html>' WHERE id = 'b'", [])
        .unwrap();
    let garbled = doctor(&store.arguments());
    garbled.assert_exit(1);
    garbled.assert_says("problem", &["`documents/project/b` (it is not JSON"]);

    let others = file.with_file_name("others.db");
    rusqlite::Connection::open(&others)
        .unwrap()
        .execute_batch("CREATE TABLE t (x)")
        .unwrap();
    let foreign = doctor(&["--store", &format!("sqlite:{}", others.display())]);
    foreign.assert_exit(3);
    foreign.assert_says("problem", &["another program", "choose another file"]);
    let folder = doctor(&[
        "--store",
        &format!("sqlite:{}", file.parent().unwrap().display()),
    ]);
    folder.assert_exit(3);
    folder.assert_says("problem", &["is no file"]);
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
async fn a_smoke_test_tries_everything_and_leaves_nothing_behind() {
    let server = Arc::new(RedisServer::start());
    for prefix in ["", SITE, "a*[b]?\\:"] {
        let store = Store::on(&server, prefix);
        filled(&store).await;
        let before = server.dump();

        let report = smoked(&store);

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
            report.assert_says("ok       smoke", &[&format!("smoke: {check}: ")]);
        }
        // Every key was deleted by its name, which does not depend on a replica that knows it already.
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
async fn a_smoke_test_says_what_failed_and_what_follows_and_leaves_nothing_behind() {
    let store = Store::redis();
    filled(&store).await;
    let before = store.server().dump();

    for (missing, verdict, says) in [
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
            ["smoke: PUBLISH in a script", "refused", "nothing today"],
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
                "nothing was tried",
            ],
        ),
        (
            "-scan",
            "problem",
            [
                "smoke: tidying up",
                "could not be deleted",
                "nothing was tried",
            ],
        ),
    ] {
        store
            .server()
            .user("limited", &["~*", "&*", "+@all", missing]);
        let report = doctor_as(store.server(), "limited", PASSWORD, &["--smoke"]);
        report.assert_says(verdict, &says);
        assert_eq!(store.server().dump(), before, "{missing}");
    }
}

#[tokio::test]
async fn a_smoke_test_says_what_the_read_only_credential_may() {
    let store = Store::redis();
    filled(&store).await;
    let before = store.server().dump();
    let reader = store.server().user("reader", &READ_ONLY);
    let location = Location::Redis {
        write: Some(store.server().redis_url()),
        read: Some(reader),
        key_prefix: String::new(),
    };

    let examined = examine(&location, clock).await;
    let tried = smoke(&location, clock, None, CancellationToken::new())
        .await
        .unwrap();

    assert!(
        problems(&examined).is_empty() && problems(&tried).is_empty(),
        "{examined:#?} {tried:#?}"
    );
    let says = |text: &str| {
        tried.iter().any(|finding| {
            finding.check == "smoke: read-only credential" && finding.says.contains(text)
        })
    };
    assert!(
        says("may GET, SMEMBERS, ZRANGE, HGETALL; may not PING, TIME, EVAL_RO")
            || says("may not PING, TIME, EVAL_RO"),
        "{tried:#?}"
    );
    assert!(says("may not write"), "{tried:#?}");
    assert_eq!(store.server().dump(), before);
}

#[tokio::test]
async fn a_smoke_test_that_is_told_to_stop_tidies_up() {
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

    wait_until("the trial is under way", || {
        (store.server().dump() != before).then_some(())
    });
    signal(child.id(), "-TERM");
    let report = Report::of(&child.wait_with_output().unwrap());

    report.assert_exit(3);
    report.assert_says("problem", &["smoke: broken off", "told to stop"]);
    report.assert_says("ok", &["smoke: tidying up: nothing is left behind"]);
    assert_eq!(store.server().dump(), before);
}

#[tokio::test]
async fn a_smoke_test_on_a_bad_line_leaves_nothing_behind() {
    let store = Store::redis();
    filled(&store).await;
    let before = store.server().dump();
    let mut line = Proxy::start(store.server().port()).await;
    line.set(Mode::CutReply).await;
    let location = Location::Redis {
        write: Some(line.redis_url()),
        read: None,
        key_prefix: String::new(),
    };

    let tried = smoke(&location, clock, None, CancellationToken::new())
        .await
        .unwrap();

    assert!(
        tried
            .iter()
            .any(|finding| finding.says == "nothing is left behind"),
        "{tried:#?}"
    );
    assert_eq!(store.server().dump(), before);
}

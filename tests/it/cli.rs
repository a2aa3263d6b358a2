//! The command line: exit codes, messages, help, and the one command that writes, `import`.

use std::{
    env,
    fmt::Write,
    fs,
    net::TcpListener,
    path::Path,
    process::{Output, Stdio},
};

use clap::CommandFactory;
use portfolio_mcp::{cli::Cli, settings::OPTIONS};
use serde_json::{Value, json};

use crate::support::{
    process::signal,
    program::{Home, PROGRAM},
    stdio::StdioClient,
};

/// Runs the program and gives its exit code, stdout and stderr.
fn run(home: &Home, arguments: &[&str]) -> (i32, String, String) {
    outcome(&home.command(PROGRAM).args(arguments).output().unwrap())
}

fn outcome(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn folder(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(name)
        .to_string_lossy()
        .into_owned()
}

fn store(home: &Home) -> String {
    format!("sqlite:{}", home.path().join("store.db").display())
}

#[test]
fn all_wrong_options_are_reported_at_once_without_secrets() {
    let home = Home::new();

    let arguments = [
        "http",
        "--listen",
        "0.0.0.0:80",
        "--log",
        "loud",
        "--store",
        "redis://:s3cret@",
        "--allowed-host",
        "a/b",
    ];
    let (code, stdout, stderr) = run(&home, &arguments);
    let (unknown, _, _) = run(&home, &["stdio", "--shout"]);

    assert_eq!((code, stdout.as_str(), unknown), (2, "", 2));
    for name in ["--listen", "--log", "--store", "--allowed-host"] {
        assert!(stderr.contains(name), "{name} is not reported: {stderr}");
    }
    assert!(!stderr.contains("s3cret"));
}

#[test]
fn help_shows_no_secret_of_the_environment() {
    let home = Home::new();

    let mut command = home.command(PROGRAM);
    let (code, stdout, _) = outcome(
        &command
            .args(["stdio", "--help"])
            .env("PORTFOLIO_STORE", "redis://:s3cret@host")
            .output()
            .unwrap(),
    );

    assert_eq!(code, 0);
    assert!(stdout.contains("--key-prefix") && !stdout.contains("s3cret"));
}

#[test]
fn a_flag_wins_over_its_variable() {
    let home = Home::new();

    let mut command = home.command(PROGRAM);
    command
        .args(["doctor", "--rate-limit=7"])
        .env("PORTFOLIO_RATE_LIMIT", "many")
        .env("PORTFOLIO_LOG", "debug");
    let (code, stdout, _) = outcome(&command.output().unwrap());

    assert_eq!(code, 0, "{stdout}");
    for line in [
        "http: rate limit: 7 (--rate-limit)",
        "log: debug (PORTFOLIO_LOG)",
        "http: listen: 127.0.0.1:8787 (default)",
    ] {
        assert!(stdout.contains(line), "{line}: {stdout}");
    }
}

#[test]
fn a_public_path_is_checked_at_the_start_and_reported() {
    let home = Home::new();
    let doctor = |path: &str| {
        let mut command = home.command(PROGRAM);
        command.args(["doctor", "--public-path", path]);
        outcome(&command.output().unwrap())
    };

    let (_, reported, _) = doctor("/cms/");
    assert!(
        reported.contains("http: public path: /cms/ (--public-path)"),
        "{reported}"
    );
    for path in ["cms", "/a b", "https://example.com/cms"] {
        let (code, stderr) = {
            let mut command = home.command(PROGRAM);
            command
                .args(["http", "--listen", "127.0.0.1:0"])
                .env("PORTFOLIO_PUBLIC_PATH", path);
            let (code, _, stderr) = outcome(&command.output().unwrap());
            (code, stderr)
        };
        assert_eq!(code, 2, "{path}: {stderr}");
        assert!(
            stderr
                .contains("--public-path (PORTFOLIO_PUBLIC_PATH): expected a path such as `/cms`"),
            "{path}: {stderr}"
        );
    }
}

#[test]
fn the_readme_has_the_table_of_options() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let (before, rest) = readme
        .split_once("<!-- options: made by `UPDATE_TOOLS=1 cargo test table_of_options` -->\n")
        .expect("README.md has a place for the table of options");
    let (found, after) = rest
        .split_once("<!-- /options -->")
        .expect("the table of options in README.md has an end");

    let table = table_of_options();

    if env::var_os("UPDATE_TOOLS").is_some() {
        let marker = &readme[before.len()..readme.len() - rest.len()];
        let updated = format!("{before}{marker}{table}<!-- /options -->{after}");
        fs::write(&path, updated).unwrap();
    } else {
        assert_eq!(
            found, table,
            "the table of options in README.md differs; accept it with UPDATE_TOOLS=1 cargo test table_of_options"
        );
    }
}

/// Every option with its variable, default and help.
fn table_of_options() -> String {
    let command = Cli::command();
    let http = command.find_subcommand("http").unwrap();
    let mut table = "| option | variable | default | meaning |\n|---|---|---|---|\n".to_owned();
    for option in OPTIONS {
        let name = option.flag.strip_prefix("--");
        let (prefix, arg) = [("", &command), ("http ", http)]
            .into_iter()
            .find_map(|(prefix, command)| {
                let mut args = command.get_arguments();
                Some((prefix, args.find(|arg| arg.get_long() == name)?))
            })
            .unwrap();
        let value = match arg.get_value_names() {
            Some([value]) if !arg.is_require_equals_set() => format!(" {value}"),
            _ => String::new(),
        };
        writeln!(
            table,
            "| `{prefix}{}{value}` | `{}` | {} | {} |",
            option.flag,
            option.variable,
            option.default,
            arg.get_help().unwrap()
        )
        .unwrap();
    }
    table
}

#[test]
fn invalid_and_unsupported_variables_are_rejected() {
    let home = Home::new();

    let mut command = home.command(PROGRAM);
    command
        .arg("stdio")
        .env("PORTFOLIO_READ_ONLY", "perhaps")
        .env("PORTFOLIO_MIRROR", "json:x")
        .env("REDIS_URL", "http://x");
    let (code, _, stderr) = outcome(&command.output().unwrap());

    assert_eq!(code, 2);
    for name in ["PORTFOLIO_READ_ONLY", "PORTFOLIO_MIRROR", "REDIS_URL"] {
        assert!(stderr.contains(name), "{name} is not reported: {stderr}");
    }
}

#[test]
fn an_import_keeps_documents_and_repeating_it_changes_nothing() {
    let home = Home::new();
    let arguments = [
        "import",
        &folder("examples/content"),
        "--store",
        &store(&home),
    ];

    let (dry, would, _) = run(&home, &[&arguments[..], &["--dry-run"]].concat());
    let (first, created, stderr) = run(&home, &arguments);
    let (second, unchanged, _) = run(&home, &arguments);

    assert_eq!((dry, first, second), (0, 0, 0), "{stderr}");
    assert!(
        would.contains("would create project `rdv-artisan`")
            && would.contains("nothing was written: 6 to create"),
        "{would}"
    );
    assert!(
        created.contains("6 created, 0 replaced, 0 unchanged"),
        "{created}"
    );
    assert!(
        unchanged.contains("0 created, 0 replaced, 6 unchanged"),
        "{unchanged}"
    );
    assert!(stderr.contains("content is in sqlite:"), "{stderr}");
}

#[tokio::test]
async fn documents_that_differ_are_skipped_unless_forced_and_replaced_values_stay_in_the_log() {
    let home = Home::new();
    let changed = home.path().join("changed");
    fs::create_dir(&changed).unwrap();
    let text = fs::read_to_string(folder("examples/content/projects.json")).unwrap();
    let mut projects: Value = serde_json::from_str(&text).unwrap();
    projects[0]["title"] = json!("Replaced");
    fs::write(changed.join("projects.json"), projects.to_string()).unwrap();
    let (store, changed) = (store(&home), changed.to_string_lossy().into_owned());
    run(
        &home,
        &["import", &folder("examples/content"), "--store", &store],
    );

    let (skipped, listed, _) = run(&home, &["import", &changed, "--store", &store]);
    let (forced, replaced, _) = run(&home, &["import", &changed, "--store", &store, "--force"]);

    assert_eq!((skipped, forced), (1, 0));
    assert!(
        listed.contains("differs") && listed.contains("title") && listed.contains("--force"),
        "{listed}"
    );
    assert!(replaced.contains("1 replaced, 2 unchanged"), "{replaced}");
    let client = StdioClient::start_with(&["--store", &store]).await;
    let log = client
        .call("get_audit_log", json!({ "action": "update" }))
        .await;
    assert_eq!(log["data"][0]["changes"][0]["newValue"], "Replaced");
    assert_eq!(
        (&log["data"][0]["source"], &log["data"][0]["transport"]),
        (&json!("admin"), &json!("cli"))
    );
}

#[test]
fn a_folder_with_invalid_ids_is_rejected_with_every_reason() {
    let home = Home::new();

    let (code, stdout, _) = run(
        &home,
        &[
            "import",
            &folder("tests/fixtures/refused"),
            "--store",
            &store(&home),
        ],
    );

    assert_eq!(code, 1);
    for problem in [
        "missing",
        "duplicate",
        "Bad_ID",
        "123",
        "true",
        "../etc",
        "nothing was imported",
    ] {
        assert!(
            stdout.contains(problem),
            "{problem} is not reported: {stdout}"
        );
    }
}

#[test]
fn files_that_are_nested_too_deep_are_rejected() {
    let home = Home::new();
    let folder = home.path().join("deep");
    fs::create_dir(&folder).unwrap();
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    fs::write(folder.join("projects.json"), format!("[{deep}]")).unwrap();
    fs::write(
        folder.join("audit.jsonl"),
        format!("{{}}\n{{\"id\":{deep}}}\n"),
    )
    .unwrap();

    let (code, stdout, _) = run(
        &home,
        &[
            "import",
            &folder.to_string_lossy(),
            "--store",
            &store(&home),
        ],
    );

    assert_eq!(code, 1);
    for file in ["projects.json", "audit.jsonl, line 2"] {
        let reported = stdout
            .lines()
            .any(|line| line.contains(file) && line.contains("10001 levels deep, and at most 64"));
        assert!(reported, "{file}: {stdout}");
    }
}

#[tokio::test]
async fn audit_entries_of_older_programs_are_imported_once_and_unchanged() {
    let home = Home::new();
    let (legacy, store) = (folder("tests/fixtures/legacy"), store(&home));

    let (first, imported, _) = run(&home, &["import", &legacy, "--store", &store]);
    let (second, again, _) = run(&home, &["import", &legacy, "--store", &store]);

    assert_eq!((first, second), (0, 0));
    assert!(imported.contains("8 of 8 audit entries"), "{imported}");
    assert!(again.contains("0 of 8 audit entries"), "{again}");
    let client = StdioClient::start_with(&["--store", &store]).await;
    let log = client
        .call("get_audit_log", json!({ "detail": "full" }))
        .await;
    let entries: Value =
        serde_json::from_str(&fs::read_to_string(Path::new(&legacy).join("audit.json")).unwrap())
            .unwrap();
    for entry in entries.as_array().unwrap() {
        assert!(
            log["data"].as_array().unwrap().contains(entry),
            "{entry} is not in the log"
        );
    }
    assert_eq!(
        client.call("get_audit_stats", json!({})).await["data"]["totalEntries"],
        8
    );
}

#[test]
fn a_store_that_cannot_be_reached_is_the_systems_fault() {
    let home = Home::new();

    let (code, _, stderr) = run(
        &home,
        &[
            "import",
            &folder("examples/content"),
            "--store",
            "redis://127.0.0.1:1",
        ],
    );
    let (nowhere, message, _) = run(
        &home,
        &[
            "import",
            &home.path().join("nowhere").to_string_lossy(),
            "--store",
            &store(&home),
        ],
    );

    assert_eq!(code, 3);
    assert!(stderr.contains("cannot be reached"), "{stderr}");
    assert_eq!(nowhere, 1);
    assert!(message.contains("does not exist"), "{message}");
}

#[test]
fn an_import_can_be_interrupted() {
    let (home, silent) = (Home::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    let url = format!("redis://{}", silent.local_addr().unwrap());
    let mut command = home.command(PROGRAM);
    command.args(["import", &folder("examples/content"), "--store", &url]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _connection = silent.accept().unwrap();

    signal(child.id(), "-TERM");

    let (code, _, stderr) = outcome(&child.wait_with_output().unwrap());
    assert!(
        stderr.contains("interrupted: what was imported so far is kept"),
        "{stderr}"
    );
    assert_eq!(code, 3);
}

//! `portfolio-mcp show` and `portfolio-mcp diff`: what they print, and their exit codes.

use serde_json::{Value, json};

use super::wait_for_next_millisecond;

use crate::support::{
    fixtures::{create_sound, project, project_key, update, with},
    process::run_with_input,
    program::{Home, PROGRAM},
    stores::{Store, on_each_store},
};

/// Runs the program; gives its exit code, standard output and standard error.
fn run(store: &Store, arguments: &[&str]) -> (i32, String, String) {
    let home = Home::new();
    let mut command = home.command(PROGRAM);
    command.args(arguments).args(store.arguments());
    let output = run_with_input(&mut command, "");
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    // Every command says first which store it uses.
    let stderr = match stderr.split_once('\n') {
        Some((line, rest)) if line.contains("content is in") => rest.to_owned(),
        _ => stderr,
    };
    (output.status.code().unwrap(), stdout, stderr)
}

fn id_of(commit: &portfolio_mcp::store::Commit) -> String {
    commit.entries[0].text_of("id").unwrap().to_owned()
}

fn time_of(commit: &portfolio_mcp::store::Commit) -> String {
    commit.entries[0].timestamp().unwrap().to_string()
}

#[tokio::test]
async fn a_document_is_printed_as_it_is_and_as_it_was() {
    on_each_store(async |store: &Store| {
        let first = create_sound(&*store.repository, &project_key("a")).await;
        wait_for_next_millisecond(&first);
        update(
            &*store.repository,
            &project_key("a"),
            json!({ "title": "New" }),
        )
        .await;
        let (id, time) = (id_of(&first), time_of(&first));

        let now = run(store, &["show", "project", "a"]);
        let by_time = run(store, &["show", "project", "a", "--as-of", &time]);
        let by_id = run(store, &["show", "project", "a", "--as-of", &id]);

        let mut titles = Vec::new();
        for (code, stdout, stderr) in [&now, &by_time, &by_id] {
            assert_eq!(*code, 0, "{stderr}");
            assert_eq!(stderr, "");
            assert!(stdout.starts_with("{\n  \"id\": \"a\",\n"), "{stdout}");
            assert!(stdout.ends_with("\n}\n"), "{stdout}");
            let shown: Value = serde_json::from_str(stdout).unwrap();
            titles.push(shown["title"].clone());
        }
        assert_eq!(titles, ["New", "The case of a", "The case of a"]);
        assert_eq!(by_time.1, by_id.1);
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_shown_is_said_with_exit_code_1() {
    let store = Store::sqlite();
    let repository = &*store.repository;
    let first = create_sound(repository, &project_key("a")).await;
    create_sound(repository, &project_key("b")).await;
    let edited = with(&project("a"), json!({ "title": "By hand" }));
    store.edit(&project_key("a"), Some(&Value::Object(edited).to_string()));
    let last = update(repository, &project_key("a"), json!({ "result": "More" })).await;
    let (id, from) = (id_of(&first), time_of(&last));
    for (arguments, part) in [
        (&["show", "project", "c"][..], "there is no project `c`"),
        (
            &["show", "project", "b", "--as-of", &id],
            "there was no project `b` then",
        ),
        (&["show", "project", "a", "--as-of", &id], &from),
        (
            &["show", "project", "a", "--as-of", "2999-01-01T00:00:00Z"],
            "future",
        ),
        (
            &["show", "project", "a", "--as-of", "yesterday"],
            "expected an RFC 3339 time",
        ),
        (
            &[
                "show",
                "project",
                "a",
                "--as-of",
                "0b5c8f3e-5a44-4c0e-9d43-1f2e3d4c5b6a",
            ],
            "no entry of the audit log",
        ),
        (&["diff", "yesterday"], "SINCE: "),
        (&["diff", "2999-01-01T00:00:00Z"], "future"),
        (&["diff", &id, "no-such"], "UNTIL: "),
        (&["diff", &from, &id], "UNTIL: "),
    ] {
        let (code, stdout, stderr) = run(&store, arguments);

        assert_eq!(code, 1, "{arguments:?}: {stderr}");
        assert_eq!(stdout, "", "{arguments:?}");
        assert!(stderr.contains(part), "{arguments:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
    }
}

#[test]
fn wrong_usage_is_exit_code_2_and_a_store_that_is_away_3() {
    let store = Store::sqlite();
    for arguments in [
        &["show"][..],
        &["show", "project"],
        &["show", "page", "a"],
        &["show", "project", "a", "b"],
        &["diff"],
        &["diff", "a", "b", "c"],
    ] {
        let (code, stdout, stderr) = run(&store, arguments);

        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}: {stderr}");
    }
    for arguments in [
        &["show", "project", "a"][..],
        &["diff", "2026-01-01T00:00:00Z"],
    ] {
        let home = Home::new();
        let mut command = home.command(PROGRAM);
        command
            .args(arguments)
            .args(["--store", "redis://127.0.0.1:1"]);
        let output = run_with_input(&mut command, "");

        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        assert!(!output.stderr.is_empty(), "{output:?}");
    }
}

#[tokio::test]
async fn differences_are_shown_field_by_field() {
    on_each_store(async |store: &Store| {
        let repository = &*store.repository;
        let first = create_sound(repository, &project_key("a")).await;
        update(repository, &project_key("a"), json!({ "title": "Twice" })).await;
        let last = update(repository, &project_key("a"), json!({ "title": "Thrice" })).await;
        wait_for_next_millisecond(&last);
        create_sound(repository, &project_key("b")).await;
        let (since, until) = (id_of(&first), time_of(&last));

        let (code, now, stderr) = run(store, &["diff", &since]);
        let (_, then, _) = run(store, &["diff", &since, &until]);
        let (none, nothing, _) = run(store, &["diff", &until, &until]);

        assert_eq!((code, stderr.as_str()), (0, ""));
        let expected = "project `a`: Thrice\n  title\n    - \"The case of a\"\n    + \"Thrice\"\n";
        assert_eq!(
            now,
            format!("{expected}project `b`: The case of b\n  the document was created\n2 documents differ\n")
        );
        assert_eq!(then, format!("{expected}1 document differs\n"));
        assert_eq!((none, nothing.as_str()), (0, "nothing differs\n"));
        store.assert_sound().await;
    })
    .await;
}

/// On a terminal, what goes is red and what comes is green.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn on_a_terminal_differences_have_colours() {
    let store = Store::sqlite();
    let first = create_sound(&*store.repository, &project_key("a")).await;
    update(
        &*store.repository,
        &project_key("a"),
        json!({ "title": "New" }),
    )
    .await;
    let home = Home::new();
    let line = format!(
        "{PROGRAM} diff {} {}",
        id_of(&first),
        store.arguments().join(" ")
    );
    let mut command = home.command("script");
    command
        .args(["-qec", &line, "/dev/null"])
        .env("TERM", "xterm");

    let output = run_with_input(&mut command, "");

    let screen = String::from_utf8(output.stdout).unwrap();
    assert!(screen.contains("\u{1b}[1m\u{1b}[31m    - "), "{screen:?}");
    assert!(screen.contains("\u{1b}[32m    + \"New\""), "{screen:?}");
    store.assert_sound().await;
}

#[test]
fn commands_that_read_create_no_file() {
    let home = Home::new();
    let file = home.path().join("typo.db");
    for arguments in [
        &["show", "project", "a"][..],
        &["diff", "2026-01-01T00:00:00Z"],
        &["plan", "show", "0"],
    ] {
        let mut command = home.command(PROGRAM);
        command.args(arguments).arg("--store");
        command.arg(format!("sqlite:{}", file.display()));
        let output = run_with_input(&mut command, "");

        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {stderr}");
        assert!(
            stderr.contains("there is no file"),
            "{arguments:?}: {stderr}"
        );
        assert!(!file.exists(), "{arguments:?}");
    }
}

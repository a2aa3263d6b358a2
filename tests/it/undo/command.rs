//! `portfolio-mcp undo`: shows, asks, undoes; its exit codes, on a pipe and on a terminal.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{
    fixtures::{create, create_sound, project, project_key, with},
    process::run_with_input,
    program::{Home, PROGRAM},
    stdio::StdioClient,
    stores::{Store, on_each_store},
};

const SINCE: &str = "--since=2025-01-01T00:00:00Z";

/// A client of the program that calls itself `name`.
async fn client(store: &Store, name: &str) -> StdioClient {
    let client = StdioClient::spawn_on(store);
    client.initialize(name, "1.0").await;
    client
}

/// Changes a project; gives the audit id.
async fn update(client: &StdioClient, id: &str, data: Value) -> String {
    let updated = client
        .call("update_project", json!({ "id": id, "data": data }))
        .await;
    updated["meta"]["auditId"].as_str().unwrap().to_owned()
}

async fn title(client: &StdioClient, id: &str) -> String {
    let answer = client.call("get_project", json!({ "id": id })).await;
    answer["data"]["title"]
        .as_str()
        .unwrap_or("none")
        .to_owned()
}

/// The exit code of a command, what it printed, and its errors.
fn outcome(command: &mut Command, input: &str) -> (i32, String, String) {
    let output = run_with_input(command, input);
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.code().unwrap(), stdout, stderr)
}

/// Runs `undo` without a terminal.
fn undo(store: &Store, arguments: &[&str]) -> (i32, String, String) {
    let home = Home::new();
    let mut command = home.command(PROGRAM);
    command.arg("undo").args(store.arguments()).args(arguments);
    outcome(&mut command, "y\n")
}

/// Runs `undo` on a terminal of 80 columns, whose user types `input`.
#[cfg(target_os = "linux")]
fn undo_on_a_terminal(store: &Store, arguments: &[&str], input: &str) -> (i32, String) {
    let home = Home::new();
    let words = store.arguments().join(" ");
    let line = format!(
        "stty cols 80 rows 24 -echo; {PROGRAM} undo {words} {}",
        arguments.join(" ")
    );
    let mut command = home.command("script");
    command
        .args(["-qec", &line, "/dev/null"])
        .env("TERM", "xterm");
    let (code, screen, _) = outcome(&mut command, input);
    (code, screen)
}

#[tokio::test]
async fn all_that_a_client_did_is_shown_and_undone() {
    on_each_store(async |store: &Store| {
        for id in ["a", "b"] {
            create_sound(&*store.repository, &project_key(id)).await;
        }
        let (robot, editor) = (client(store, "robot").await, client(store, "editor").await);
        update(
            &robot,
            "a",
            json!({ "title": "Robot", "tags": ["x", "web"] }),
        )
        .await;
        update(&robot, "b", json!({ "title": "Robot" })).await;
        let last = update(&editor, "b", json!({ "title": "Editor" })).await;
        let filter = ["--client=robot", SINCE, "--reason=robot was wrong"];

        let (code, shown, stderr) = undo(store, &filter);
        let untouched = title(&editor, "a").await;
        let (done, report, _) = undo(store, &[&filter[..], &["--yes"]].concat());

        assert_eq!(code, 2, "{shown}{stderr}");
        assert!(stderr.contains("--yes"), "{stderr}");
        assert_eq!(untouched, "Robot");
        for text in [&shown, &report] {
            for part in [
                "project `a`",
                "title",
                "- \"Robot\"",
                "+ \"The case of a\"",
                "editor/1.0",
                &last,
            ] {
                assert!(text.contains(part), "{part}: {text}");
            }
            assert!(!text.contains('\u{1b}'), "this is a pipe: {text}");
            assert!(!text.contains("updatedAt"), "{text}");
        }
        assert_eq!(done, 0, "{report}");
        assert_eq!(title(&editor, "a").await, "The case of a");
        assert_eq!(title(&editor, "b").await, "Editor");
        let log = editor.call("get_audit_log", json!({ "limit": 1 })).await;
        let entry = &log["data"][0];
        assert_eq!(entry["action"], "revert");
        assert_eq!(entry["transport"], "cli");
        assert_eq!(entry["source"], "admin");
        assert_eq!(entry["reason"], "robot was wrong");
        assert!(
            report.contains(entry["auditId"].as_str().unwrap()),
            "{report}"
        );
        let (again, nothing, _) = undo(store, &filter);
        assert_eq!(again, 0, "{nothing}");
        assert!(nothing.contains("nothing is left to undo"), "{nothing}");
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn an_undo_by_its_id_is_undone_like_any_change() {
    let store = Store::sqlite();
    create_sound(&*store.repository, &project_key("a")).await;
    let client = client(&store, "it").await;
    let change = update(&client, "a", json!({ "title": "New" })).await;

    let (code, report, stderr) = undo(&store, &[&change, "--yes"]);
    let undone = title(&client, "a").await;
    let command = report
        .lines()
        .find_map(|line| line.split_once("`portfolio-mcp undo "));
    let id = command.unwrap().1.trim_end_matches('`').to_owned();
    let (again, _, _) = undo(&store, &[&id, "--yes"]);

    assert_eq!((code, again), (0, 0), "{report}{stderr}");
    assert_eq!(undone, "The case of a");
    assert_eq!(title(&client, "a").await, "New");
    store.assert_sound().await;
}

#[tokio::test]
async fn a_named_creation_is_deleted_and_a_filter_deletes_nothing() {
    on_each_store(async |store: &Store| {
        create_sound(&*store.repository, &project_key("a")).await;
        let client = client(store, "it").await;
        let log = client.call("get_audit_log", json!({})).await;
        let creation = log["data"][0]["auditId"].as_str().unwrap();

        let (filtered, _, _) = undo(store, &[SINCE, "--yes"]);
        let kept = title(&client, "a").await;
        let (code, shown, _) = undo(store, &[creation]);
        let (done, report, _) = undo(store, &[creation, "--yes"]);

        assert_eq!((filtered, kept.as_str()), (0, "The case of a"));
        assert_eq!(code, 2);
        assert!(shown.contains("delete"), "{shown}");
        assert_eq!(done, 0, "{report}");
        let gone = client.call_error("get_project", json!({ "id": "a" })).await;
        assert_eq!(gone["code"], "PROJECT_NOT_FOUND");
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn wrong_requests_exit_with_their_codes() {
    let store = Store::sqlite();
    create_sound(&*store.repository, &project_key("a")).await;
    for (arguments, expected, named) in [
        (&["no-such-id", "--yes"][..], 1, "no-such-id"),
        (&[], 2, "--since"),
        (&["--client=it"], 2, "--since"),
        (&["some-id", SINCE], 2, "--since"),
        (&["--since=yesterday"], 2, "RFC 3339"),
        (&[SINCE, "--until=x"], 2, "--until"),
        (&[SINCE, "--kind=page"], 2, "--kind"),
        (&[SINCE, "--yes", "--read-only"], 2, "read-only"),
    ] {
        let (code, stdout, stderr) = undo(&store, arguments);

        let text = format!("{stdout}{stderr}");
        assert_eq!(code, expected, "{arguments:?}: {text}");
        assert!(text.contains(named), "{arguments:?}: {text}");
    }
    let home = Home::new();
    let mut unreachable = home.command(PROGRAM);
    unreachable.args(["undo", SINCE, "--store=redis://127.0.0.1:1"]);
    let (code, _, stderr) = outcome(&mut unreachable, "");
    assert_eq!(code, 3, "{stderr}");
    assert!(stderr.contains("cannot be reached"), "{stderr}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_terminal_is_asked_and_no_is_no() {
    let store = Store::sqlite();
    create_sound(&*store.repository, &project_key("a")).await;
    let client = client(&store, "it").await;
    let change = update(&client, "a", json!({ "title": "New" })).await;

    let (no, refused) = undo_on_a_terminal(&store, &[&change], "\n");
    let after_no = title(&client, "a").await;
    let (yes, screen) = undo_on_a_terminal(&store, &[&change], "y\n");

    assert_eq!(no, 1, "{refused}");
    assert!(refused.contains("[y/N]"), "{refused}");
    assert!(refused.contains("nothing was undone"), "{refused}");
    assert_eq!(after_no, "New");
    assert_eq!(yes, 0, "{screen}");
    assert!(
        screen.contains("\u{1b}["),
        "a terminal shows colours: {screen}"
    );
    assert_eq!(title(&client, "a").await, "The case of a");
    store.assert_sound().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn long_texts_show_what_differs_and_fit_on_the_terminal() {
    let store = Store::sqlite();
    let before = "Un centre de formation perdait ses dossiers entre trois outils. ".repeat(40);
    let after = before.replacen("trois outils", "quatre outils", 1);
    let tags = json!([
        "web",
        "a-very-long-tag-that-fits-on-no-line-of-any-narrow-terminal-of-80-columns",
        "é"
    ]);
    let patch = json!({ "challenge": before, "title": "t".repeat(200), "tags": tags });
    create(
        &*store.repository,
        &project_key("a"),
        with(&project("a"), patch),
    )
    .await;
    let client = client(&store, "it").await;
    let data = json!({ "challenge": after, "title": "New", "tags": ["web"] });
    let change = update(&client, "a", data).await;

    let (code, screen) = undo_on_a_terminal(&store, &[&change], "n\n");

    assert_eq!(code, 1, "{screen}");
    assert!(
        screen.contains("quatre") && screen.contains("trois"),
        "{screen}"
    );
    let plain = anstream::adapter::strip_str(&screen).to_string();
    for line in plain.lines().filter(|line| !line.contains(" INFO ")) {
        assert!(line.trim_end().chars().count() <= 80, "{line}: {screen}");
    }
    assert!(plain.lines().count() < 40, "{plain}");
    store.assert_sound().await;
}

//! `portfolio-mcp undo`: shows, asks, undoes; its exit codes, on a pipe and on a terminal.

use std::process::Command;
#[cfg(target_os = "linux")]
use std::{
    io::{Read, Write},
    process::{Child, Stdio},
};

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
    let long_reason = format!("--reason={}", "é".repeat(501));
    for (arguments, expected, named) in [
        (&["no-such-id", "--yes"][..], 1, "no-such-id"),
        (&[], 2, "--since"),
        (&["--client=it"], 2, "--since"),
        (&["some-id", SINCE], 2, "--since"),
        (&["--since=yesterday"], 2, "RFC 3339"),
        (&[SINCE, "--until=x"], 2, "--until"),
        (&[SINCE, "--kind=page"], 2, "--kind"),
        (&[], 2, "audit ids"),
        (&[SINCE, &long_reason], 2, "found 501"),
        (&[SINCE, "--yes", "--read-only"], 2, "read-only"),
    ] {
        let (code, stdout, stderr) = undo(&store, arguments);

        let text = format!("{stdout}{stderr}");
        assert_eq!(code, expected, "{arguments:?}: {text}");
        assert!(text.contains(named), "{arguments:?}: {text}");
    }
    let home = Home::new();
    let mut wrong = home.command(PROGRAM);
    wrong.args(["undo", "--since=yesterday"]);
    let (code, _, stderr) = outcome(&mut wrong, "");
    assert_eq!(code, 2, "{stderr}");
    assert!(
        !stderr.contains("content is in"),
        "nothing is opened: {stderr}"
    );
    let mut unreachable = home.command(PROGRAM);
    unreachable.args(["undo", SINCE, "--store=redis://127.0.0.1:1"]);
    let (code, _, stderr) = outcome(&mut unreachable, "");
    assert_eq!(code, 3, "{stderr}");
    assert!(stderr.contains("cannot be reached"), "{stderr}");
}

#[tokio::test]
async fn a_change_from_outside_is_named_and_counts_read_well() {
    let store = Store::sqlite();
    let key = project_key("a");
    create_sound(&*store.repository, &key).await;
    let client = client(&store, "it").await;
    let change = update(&client, "a", json!({ "title": "New" })).await;
    let found = store.repository.get(&key).await.unwrap().record.unwrap();
    let outside = with(found.document(), json!({ "challenge": "From outside" }));
    store.edit(&key, Some(&Value::Object(outside).to_string()));

    let (code, report, stderr) = undo(&store, &[&change, "--yes"]);

    assert_eq!(code, 0, "{report}{stderr}");
    let report = report.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "project `a` was changed outside this program after",
        "1 field of 1 document to undo; left as others changed them: 0; as before already: 0",
    ] {
        assert!(report.contains(part), "{part}: {report}");
    }
    assert_eq!(title(&client, "a").await, "The case of a");
    store.assert_sound().await;
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
async fn ctrl_c_at_the_question_undoes_nothing() {
    let store = Store::sqlite();
    create_sound(&*store.repository, &project_key("a")).await;
    let client = client(&store, "it").await;
    let change = update(&client, "a", json!({ "title": "New" })).await;

    let (code, screen) = Asked::undo(&store, &change).answer("\u{3}");

    assert_eq!(code, 130, "{screen}");
    assert!(screen.contains("nothing was undone"), "{screen}");
    assert_eq!(title(&client, "a").await, "New");
    store.assert_sound().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_was_changed_after_it_was_shown_is_not_undone() {
    on_each_store(async |store: &Store| {
        create_sound(&*store.repository, &project_key("a")).await;
        let client = client(store, "it").await;
        let change = update(&client, "a", json!({ "title": "New" })).await;

        let asked = Asked::undo(store, &change);
        update(&client, "a", json!({ "result": "Newer" })).await;
        let (code, screen) = asked.answer("y\n");

        assert_eq!(code, 1, "{screen}");
        assert!(screen.contains("changed since it was shown"), "{screen}");
        assert_eq!(title(&client, "a").await, "New");
        store.assert_sound().await;
    })
    .await;
}

/// `undo` on a terminal, which has asked and waits for the answer.
#[cfg(target_os = "linux")]
struct Asked {
    child: Child,
    screen: Vec<u8>,
    _home: Home,
}

#[cfg(target_os = "linux")]
impl Asked {
    fn undo(store: &Store, audit_id: &str) -> Self {
        let home = Home::new();
        let line = format!("{PROGRAM} undo {} {audit_id}", store.arguments().join(" "));
        let mut child = home
            .command("script")
            .args(["-qec", &line, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut screen = Vec::new();
        let mut byte = [0];
        while !screen.ends_with(b"[y/N] ") {
            let read = child.stdout.as_mut().unwrap().read(&mut byte).unwrap();
            assert_eq!(read, 1, "no question: {}", String::from_utf8_lossy(&screen));
            screen.extend(byte);
        }
        Self {
            child,
            screen,
            _home: home,
        }
    }

    /// Types the answer; gives the exit code and all that was shown.
    fn answer(mut self, answer: &str) -> (i32, String) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(answer.as_bytes()).unwrap();
        let stdout = self.child.stdout.as_mut().unwrap();
        stdout.read_to_end(&mut self.screen).unwrap();
        let code = self.child.wait().unwrap().code().unwrap();
        (code, String::from_utf8(self.screen).unwrap())
    }
}

#[tokio::test]
async fn no_text_of_a_document_acts_on_the_terminal() {
    let store = Store::sqlite();
    let evil = "\u{1b}[2Jx\u{202e}\u{9b}1m";
    let patch = json!({ "title": evil, "challenge": evil.repeat(20), "tags": [evil] });
    create(
        &*store.repository,
        &project_key("a"),
        with(&project("a"), patch),
    )
    .await;
    let client = client(&store, "it").await;
    let data = json!({ "title": "New", "challenge": "New ".repeat(20), "tags": ["web"] });
    let change = update(&client, "a", data).await;

    let home = Home::new();
    let mut command = home.command(PROGRAM);
    command
        .args(["undo", &change])
        .args(store.arguments())
        .env("CLICOLOR_FORCE", "1");
    let (_, shown, _) = outcome(&mut command, "");

    assert!(shown.contains("\u{1b}[32m"), "colours are on: {shown}");
    for hidden in ["\u{1b}[2J", "\u{202e}", "\u{9b}"] {
        assert!(!shown.contains(hidden), "{shown:?}");
    }
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

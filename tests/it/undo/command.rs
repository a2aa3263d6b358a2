//! `portfolio-mcp undo`.

use std::process::{Output, Stdio};

use portfolio_mcp::domain::AuditQuery;
use serde_json::json;

use super::service::{service_on, soon, update_of};
use crate::support::{
    fixtures::{create, project, project_key, stored},
    program::{Home, PROGRAM, repository_path},
    soundness::entries,
    stores::{Store, on_each_store},
};

/// Runs `undo` as a script does.
fn undo(store: &Store, arguments: &[&str]) -> Output {
    Home::new()
        .command(PROGRAM)
        .arg("undo")
        .args(arguments)
        .args(store.arguments())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A project that an AI changed; gives the audit id.
async fn changed_on(store: &Store) -> String {
    let key = project_key("a");
    create(&*store.repository, &key, project("a")).await;
    let long =
        "The site was rebuilt from the ground up in three weeks, and visitors find it at once.";
    let patch =
        json!({ "challenge": long, "tags": ["web", "AI"], "client": { "size": "9 people" } });
    let service = service_on(store);
    service
        .update(update_of(&key, "AI", patch), soon())
        .await
        .unwrap();
    let shorter = json!({ "challenge": long.replace("three", "two") });
    let updated = service.update(update_of(&key, "AI", shorter), soon()).await;
    updated.unwrap().audit_id.unwrap()
}

#[tokio::test]
async fn a_script_needs_yes_and_is_shown_what_would_change() {
    on_each_store(async |store| {
        changed_on(store).await;
        let key = project_key("a");
        let before = stored(&*store.repository, &key).await;
        let filter = ["--actor", "AI", "--since", "2020-01-01T00:00:00Z"];

        let asked = undo(store, &filter);

        assert_eq!(asked.status.code(), Some(2), "{asked:?}");
        let shown = text(&asked.stdout);
        for line in [
            "project `a`: The case of a",
            "    - \"9 people\"",
            "    + \"3 people\"",
            "    - \"AI\"",
            "    + \"Café\"",
            "3 fields of 1 document to undo",
        ] {
            assert!(shown.contains(line), "{line}: {shown}");
        }
        assert!(text(&asked.stderr).contains("--yes"), "{asked:?}");
        assert_eq!(stored(&*store.repository, &key).await, before);

        let done = undo(
            store,
            &[&filter[..], &["--yes", "--reason", "wrong"]].concat(),
        );
        assert_eq!(done.status.code(), Some(0), "{done:?}");
        let log = entries(&*store.repository, &AuditQuery::default()).await;
        let entry = log.last().unwrap();
        assert_eq!(entry.text_of("action"), Some("revert"));
        assert_eq!(entry.text_of("source"), Some("admin"));
        assert_eq!(entry.origin_text("transport"), Some("cli"));
        assert_eq!(entry.origin_text("reason"), Some("wrong"));
        let id = entry.text_of("id").unwrap();
        assert!(text(&done.stdout).contains(id), "{done:?}");
        let again = undo(store, &[&filter[..], &["--yes"]].concat());
        assert_eq!(again.status.code(), Some(0), "{again:?}");
        assert!(
            text(&again.stdout).contains("nothing is left to undo"),
            "{again:?}"
        );

        let back = undo(store, &[id, "--yes"]);
        assert_eq!(back.status.code(), Some(0), "{back:?}");
        assert!(text(&back.stdout).contains("+ \"9 people\""), "{back:?}");
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn the_changed_words_of_a_long_text_are_marked() {
    let store = Store::sqlite();
    let id = changed_on(&store).await;

    let shown = text(&undo(&store, &[&id]).stdout);

    assert!(shown.contains("[-two-]{+three+}"), "{shown}");
    assert!(shown.contains("1 field of 1 document"), "{shown}");
}

#[tokio::test]
async fn a_creation_named_by_its_id_is_deleted() {
    on_each_store(async |store| {
        store.import(&repository_path("examples/content"));
        let log = entries(&*store.repository, &AuditQuery::default()).await;
        let created = log[0].text_of("id").unwrap();

        let shown = undo(store, &[created]);
        let done = undo(store, &[created, "--yes"]);

        assert!(
            text(&shown.stdout).contains("the document is deleted"),
            "{shown:?}"
        );
        assert_eq!(done.status.code(), Some(0), "{done:?}");
        let log = store.assert_sound().await;
        assert_eq!(log.documents.len(), 5);
        let id = log.entries.last().unwrap().text_of("id").unwrap();
        assert_eq!(undo(store, &[id, "--yes"]).status.code(), Some(0));
        assert_eq!(store.assert_sound().await.documents.len(), 6);
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_undone_exits_with_1_and_wrong_usage_with_2() {
    let store = Store::sqlite();
    changed_on(&store).await;

    for (arguments, code, part) in [
        (&["no-such-id", "--yes"][..], 1, "no entry of the audit log"),
        (&[], 2, "required"),
        (
            &["x", "--since", "2020-01-01T00:00:00Z"],
            2,
            "cannot be used with",
        ),
        (&["--client", "x"], 2, "--since"),
        (&["--since", "yesterday"], 2, "RFC 3339"),
        (&["x", "--read-only"], 2, "read-only"),
    ] {
        let output = undo(&store, arguments);

        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {output:?}"
        );
        let written = text(&output.stdout) + &text(&output.stderr);
        assert!(written.contains(part), "{arguments:?}: {written}");
    }
    store.assert_sound().await;
}

/// On a terminal of its own, whose keyboard sends `answer`.
#[cfg(target_os = "linux")]
fn on_a_terminal(store: &Store, arguments: &str, answer: &str) -> (Option<i32>, String) {
    let all = store.arguments().join(" ");
    let script =
        format!("printf '{answer}\\n' | script -qec '{PROGRAM} undo {arguments} {all}' /dev/null");
    let output = Home::new()
        .command("sh")
        .args(["-c", &script])
        .env("TERM", "xterm")
        .output()
        .unwrap();
    (output.status.code(), text(&output.stdout))
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn on_a_terminal_it_asks_in_colour() {
    let store = Store::sqlite();
    let id = changed_on(&store).await;
    let before = stored(&*store.repository, &project_key("a")).await;

    let (_, no) = on_a_terminal(&store, &id, "n");
    assert!(
        no.contains("Undo this? [y/N]") && no.contains("nothing was undone"),
        "{no}"
    );
    assert!(no.contains("\u{1b}[") && no.contains("[-two-]"), "{no}");
    assert_eq!(stored(&*store.repository, &project_key("a")).await, before);
    let (code, yes) = on_a_terminal(&store, &id, "y");

    assert_eq!(code, Some(0), "{yes}");
    assert_ne!(stored(&*store.repository, &project_key("a")).await, before);
    store.assert_sound().await;
}

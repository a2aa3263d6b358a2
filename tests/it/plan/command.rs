//! `portfolio-mcp plan show` and `plan apply`: how an owner approves a change.

use std::process::Command;

use serde_json::json;

use crate::support::{
    fixtures::{create_sound, project_key},
    process::run_with_input,
    program::{Home, PROGRAM},
    stdio::StdioClient,
    stores::{Store, on_each_store},
};

/// The exit code of a command, what it printed, and its errors.
fn plan(store: &Store, arguments: &[&str]) -> (i32, String, String) {
    let home = Home::new();
    let mut command: Command = home.command(PROGRAM);
    command.arg("plan").args(arguments).args(store.arguments());
    let output = run_with_input(&mut command, "y\n");
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.code().unwrap(), stdout, stderr)
}

/// A store with a project, and the id of a plan to change it.
async fn planned(store: &Store) -> (StdioClient, String) {
    create_sound(&*store.repository, &project_key("a")).await;
    let client = StdioClient::spawn_on(store);
    client.initialize("planner", "1.0").await;
    let dry = json!({ "id": "a", "data": { "title": "Planned" }, "dryRun": true });
    let shown = client.call("update_project", dry).await;
    let id = shown["meta"]["plan"]["id"].as_str().unwrap().to_owned();
    (client, id)
}

#[tokio::test]
async fn a_plan_is_shown_and_applied_once() {
    on_each_store(async |store: &Store| {
        let (client, id) = planned(store).await;

        let (shown, out, _) = plan(store, &["show", &id]);
        let (unasked, shown_too, problem) = plan(store, &["apply", &id]);
        let before = client.call("get_project", json!({ "id": "a" })).await;
        let (applied, done, _) = plan(store, &["apply", &id, "--yes", "--reason", "looks right"]);
        let (again, refused, _) = plan(store, &["apply", &id, "--yes"]);

        assert_eq!(shown, 0, "{out}");
        for part in [
            "made with update_project",
            "planner/1.0",
            "project `a`",
            "+ \"Planned\"",
        ] {
            assert!(out.contains(part), "{part}: {out}");
        }
        assert!(!out.contains("updatedAt"), "{out}");
        assert_eq!(unasked, 2);
        assert!(shown_too.contains("+ \"Planned\""), "{shown_too}");
        assert!(problem.contains("--yes"), "{problem}");
        assert_ne!(before["data"]["title"], "Planned");
        assert_eq!(applied, 0, "{done}");
        assert!(done.contains("portfolio-mcp undo "), "{done}");
        assert_eq!(again, 1);
        assert!(refused.contains("was applied already"), "{refused}");
        let log = store.assert_sound().await;
        let metadata = &log.entries.last().unwrap().json()["metadata"];
        assert_eq!(metadata["transport"], "cli");
        assert_eq!(metadata["reason"], "looks right");
        assert_eq!(metadata["plan"]["clientId"], "planner/1.0");
    })
    .await;
}

#[tokio::test]
async fn a_plan_that_cannot_be_applied_says_why() {
    let store = Store::sqlite();
    let (client, id) = planned(&store).await;
    let other = json!({ "id": "a", "data": { "result": "Other" } });
    client.call("update_project", other).await;

    let (code, out, _) = plan(&store, &["apply", &id, "--yes"]);
    let (unknown, missing, _) = plan(&store, &["show", "no-such-plan"]);
    let (read_only, _, problem) = plan(&store, &["apply", &id, "--yes", "--read-only"]);

    assert_eq!(code, 1);
    assert!(
        out.contains("project `a` was changed since the plan was made"),
        "{out}"
    );
    assert_eq!(unknown, 1);
    assert!(missing.contains("there is no such plan"), "{missing}");
    assert_eq!(read_only, 2);
    assert!(problem.contains("nothing was changed"), "{problem}");
}

#[tokio::test]
async fn a_plan_to_create_a_document_shows_all_of_it() {
    let store = Store::sqlite();
    create_sound(&*store.repository, &project_key("a")).await;
    let mut arguments = store.arguments();
    arguments.push("--toolsets=all".to_owned());
    let client = StdioClient::start_with(&arguments).await;
    let mut data = client.call("get_project", json!({ "id": "a" })).await["data"].clone();
    for name in ["id", "metadata"] {
        data.as_object_mut().unwrap().shift_remove(name);
    }
    let dry = json!({ "id": "new", "data": data, "dryRun": true });
    let shown = client.call("create_project", dry).await;
    let id = shown["meta"]["plan"]["id"].as_str().unwrap();

    let (code, out, _) = plan(&store, &["show", id]);
    let long = "x".repeat(501);
    let (too_long, _, problem) = plan(&store, &["apply", id, "--yes", "--reason", &long]);

    assert_eq!(code, 0);
    assert!(out.contains("the document is created"), "{out}");
    assert!(out.contains("Twice the bookings"), "{out}");
    assert_eq!(too_long, 2);
    assert!(problem.contains("--reason"), "{problem}");
}

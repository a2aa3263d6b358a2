//! A SQLite file that exists where nothing can be written: reads work, writes say why not, and
//! both work as soon as there is room.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    fixtures::{create_sound, project_key, update},
    program::PROGRAM,
    stdio::StdioClient,
    stores::Store,
};

async fn title(client: &StdioClient) -> Value {
    let answer = client.call("get_project", json!({ "id": "a" })).await;
    assert_eq!(answer["success"], true, "{answer}");
    answer["data"]["title"].clone()
}

async fn updated(client: &StdioClient, title: &str) -> Value {
    let arguments = json!({ "id": "a", "data": { "title": title } });
    client.call("update_project", arguments).await
}

/// Checks that everything is read and that a write is refused with `reason`.
async fn check_read_only(client: &StdioClient, reason: &str) {
    for (tool, arguments) in [
        ("list_projects", json!({})),
        ("get_project", json!({ "id": "a" })),
        ("get_audit_log", json!({})),
        ("get_audit_stats", json!({})),
    ] {
        let answer = client.call(tool, arguments).await;
        assert_eq!(answer["success"], true, "{tool}: {answer}");
    }
    let refused = updated(client, "Refused").await;
    assert_eq!(refused["error"]["code"], "STORE_READ_ONLY", "{refused}");
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(message.contains(reason), "{refused}");
}

/// A store that no process has open, in a file of its own with odd characters in its path.
async fn closed_store() -> Store {
    let folder = tempfile::Builder::new().prefix("50% of #1 ").tempdir();
    let mut store = Store::sqlite_in(folder.unwrap());
    create_sound(&*store.repository, &project_key("a")).await;
    store.reopen();
    store
}

/// A limit on the length of files leaves no room for the files that SQLite needs beside its own.
#[tokio::test]
async fn a_server_that_starts_on_a_full_disk_reads_and_later_writes() {
    let store = closed_store().await;
    let client = StdioClient::start_with_file_limit(&store, 8).await;

    check_read_only(&client, "make room").await;
    let raised = Command::new("prlimit")
        .args(["--fsize=unlimited", "--pid"])
        .arg(client.process_id().to_string())
        .status();
    if !raised.is_ok_and(|status| status.success()) {
        println!("the limit cannot be raised here, so going on was not tested");
        return;
    }

    let answer = updated(&client, "There is room").await;
    assert_eq!(answer["success"], true, "{answer}");
    store.assert_sound().await;
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The program as a user who may only read the store. The superuser may always write, so the
/// program runs as another user then.
fn command_of_a_reader(folder: &TempDir) -> Vec<String> {
    let is_superuser = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    if !is_superuser {
        return vec![PROGRAM.to_owned()];
    }
    let program = folder.path().join("program");
    fs::copy(PROGRAM, &program).unwrap();
    set_mode(folder.path(), 0o755);
    let program = program.to_str().unwrap();
    [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        program,
    ]
    .map(ToOwned::to_owned)
    .to_vec()
}

#[tokio::test]
async fn a_server_that_may_not_write_the_folder_reads_what_others_write() {
    let store = closed_store().await;
    let (file, programs) = (store.file(), TempDir::new().unwrap());
    let folder = file.parent().unwrap();
    set_mode(folder, 0o555);
    set_mode(&file, 0o444);
    let client =
        StdioClient::start_program(&command_of_a_reader(&programs), &store.arguments()).await;

    check_read_only(&client, "may not write").await;
    set_mode(folder, 0o755);
    set_mode(&file, 0o644);
    update(
        &*store.repository,
        &project_key("a"),
        json!({"title": "Theirs"}),
    )
    .await;
    set_mode(folder, 0o555);
    for suffix in ["", "-wal", "-shm"] {
        set_mode(&folder.join(format!("content.db{suffix}")), 0o444);
    }

    check_read_only(&client, "may not write").await;
    assert_eq!(title(&client).await, "Theirs");
    set_mode(folder, 0o755);
}

//! What only the embedded file can have: somebody who edits it by hand, and tables beside ours.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use portfolio_mcp::{
    domain::{Kind, ListQuery, Version},
    store::StoreError,
};
use rusqlite::Connection;
use serde_json::json;

use crate::support::{
    fixtures::{
        change, create_sound, creation, now, once, project, project_key, stored, unique, update,
    },
    program::{Home, PROGRAM, repository_path},
    stores::Store,
    wait_until,
};

/// Runs statements as another program would.
fn by_hand(store: &Store, sql: &str) {
    Connection::open(store.file())
        .unwrap()
        .execute_batch(sql)
        .unwrap();
}

/// Checks the error for a stored text that is not a document, for each way of reading one.
async fn check_corrupt(sql_value: &str, expected: &str) {
    let store = Store::sqlite();
    for id in ["bad", "sound"] {
        create_sound(&*store.repository, &project_key(id)).await;
    }
    by_hand(
        &store,
        &format!("UPDATE documents SET text = {sql_value} WHERE id = 'bad'"),
    );

    let key = project_key("bad");
    for error in [
        store.repository.get(&key).await.unwrap_err(),
        store.repository.get_for_update(&key).await.unwrap_err(),
    ] {
        let StoreError::Corrupt { key, problem } = error else {
            panic!("not corrupt: {error:?}");
        };
        assert!(key.contains("bad"), "{key}");
        assert!(problem.contains(expected), "{problem}");
    }
    let page = store
        .repository
        .list(
            Kind::Project,
            &ListQuery {
                limit: 10,
                ..ListQuery::default()
            },
        )
        .await
        .unwrap();
    assert_eq!(page.records.len(), 1, "a list leaves it out");
    assert_eq!(page.total, 1, "a list leaves it out");
    assert_eq!(page.unreadable.len(), 1);
    assert!(
        page.unreadable[0].contains("bad"),
        "and names it: {:?}",
        page.unreadable
    );
}

#[tokio::test]
async fn a_text_that_is_not_json_is_corrupt() {
    check_corrupt("'<html>'", "not JSON").await;
}

#[tokio::test]
async fn a_text_that_is_not_a_json_object_is_corrupt() {
    check_corrupt("'[{}]'", "not an object").await;
}

#[tokio::test]
async fn a_text_that_is_not_utf_8_is_corrupt() {
    check_corrupt("CAST(x'7b22ff227d' AS TEXT)", "not UTF-8").await;
}

#[tokio::test]
async fn manual_edits_are_read_versioned_and_listed() {
    let store = Store::sqlite();
    let key = project_key("a");
    create_sound(&*store.repository, &key).await;
    store.repository.get(&key).await.unwrap();
    let text = r#" {"id":"a", "n":1.0, "tags":["Mine"], "metadata":{"status":"archived"}} "#;

    by_hand(
        &store,
        &format!("UPDATE documents SET text = '{text}' WHERE id = 'a'"),
    );

    let current = store.repository.get_for_update(&key).await.unwrap();
    let record = current.record().unwrap();
    assert_eq!(record.text(), text);
    assert_eq!(record.version(), &Version::of(text.as_bytes()));
    for query in [
        ListQuery {
            status: Some("archived".to_owned()),
            ..ListQuery::default()
        },
        ListQuery {
            tag: Some("mine".to_owned()),
            ..ListQuery::default()
        },
    ] {
        assert_eq!(
            store
                .repository
                .list(Kind::Project, &ListQuery { limit: 10, ..query })
                .await
                .unwrap()
                .total,
            1
        );
    }
    let drafts = ListQuery {
        status: Some("draft".to_owned()),
        limit: 10,
        ..ListQuery::default()
    };
    assert_eq!(
        store
            .repository
            .list(Kind::Project, &drafts)
            .await
            .unwrap()
            .total,
        0
    );
}

#[tokio::test]
async fn changing_a_manually_edited_text_conflicts() {
    let store = Store::sqlite();
    let key = project_key("a");
    create_sound(&*store.repository, &key).await;
    let late = change(&*store.repository, &key, json!({"title": "Late"})).await;
    by_hand(&store, "UPDATE documents SET text = text || ' '");

    let result = store.repository.commit(&[late], &once()).await;

    assert!(matches!(result, Err(StoreError::Conflict)), "{result:?}");
    assert_eq!(
        stored(&*store.repository, &key).await,
        Some(format!("{} ", json!(project("a"))))
    );
    update(
        &*store.repository,
        &key,
        json!({"title": "On the new text"}),
    )
    .await;
    assert_eq!(store.assert_sound_but(&[key]).await.seq, 2);
}

#[tokio::test]
async fn changing_a_manually_deleted_row_conflicts() {
    let store = Store::sqlite();
    let key = project_key("a");
    create_sound(&*store.repository, &key).await;
    let late = change(&*store.repository, &key, json!({"title": "Late"})).await;
    by_hand(&store, "DELETE FROM documents");

    let result = store.repository.commit(&[late], &once()).await;

    assert!(matches!(result, Err(StoreError::Conflict)), "{result:?}");
    assert_eq!(stored(&*store.repository, &key).await, None);
}

#[tokio::test]
async fn a_score_that_is_no_time_breaks_neither_times_nor_the_chain_of_entries() {
    for timeless in ["9223372036854775807", "253402300800000"] {
        let (store, key) = (Store::sqlite(), project_key("a"));
        create_sound(&*store.repository, &key).await;
        update(&*store.repository, &key, json!({"title": "Scored"})).await;
        by_hand(
            &store,
            &format!("UPDATE entries SET score = {timeless} WHERE seq = 2"),
        );

        let committed = update(&*store.repository, &key, json!({"title": "New"})).await;
        by_hand(&store, "UPDATE entries SET score = 1770000000000");

        let ahead = committed.entries[0].timestamp().unwrap().millis() - now().millis();
        assert!(ahead.abs() < 86_400_000, "{timeless}: {ahead} ms");
        store.assert_sound().await;
    }
}

#[tokio::test]
async fn tables_of_other_programs_in_the_file_are_never_touched() {
    let store = Store::sqlite();
    create_sound(&*store.repository, &project_key("a")).await;
    by_hand(
        &store,
        "CREATE TABLE notes (text TEXT); INSERT INTO notes VALUES ('theirs')",
    );

    update(
        &*store.repository,
        &project_key("a"),
        json!({"title": "New"}),
    )
    .await;

    store.assert_sound().await;
    let notes: String = Connection::open(store.file())
        .unwrap()
        .query_row("SELECT text FROM notes", [], |row| row.get(0))
        .unwrap();
    assert_eq!(notes, "theirs");
}

#[tokio::test]
async fn readers_and_a_writer_do_not_block_each_other() {
    let store = Store::sqlite();
    create_sound(&*store.repository, &project_key("a")).await;

    let writer = Connection::open(store.file()).unwrap();
    writer
        .execute_batch("BEGIN IMMEDIATE; DELETE FROM documents")
        .unwrap();

    assert!(
        stored(&*store.repository, &project_key("a"))
            .await
            .is_some(),
        "what is not committed is not read"
    );

    writer.execute_batch("ROLLBACK").unwrap();
    store.assert_sound().await;
}

/// Only the file has to be copied to move the store to another machine.
#[tokio::test]
async fn a_closed_file_is_complete_by_itself() {
    let mut store = Store::sqlite();
    for id in ["a", "b"] {
        create_sound(&*store.repository, &project_key(id)).await;
        update(
            &*store.repository,
            &project_key(id),
            json!({"title": "New"}),
        )
        .await;
    }
    store.reopen();
    let moved = Store::sqlite();

    std::fs::copy(store.file(), moved.file()).unwrap();

    assert_eq!(moved.assert_sound().await.seq, 4);
}

/// A copy of the store, as a backup has it, and changes of the store since.
async fn backed_up() -> (Store, PathBuf) {
    let (store, key) = (Store::sqlite(), project_key("a"));
    create_sound(&*store.repository, &key).await;
    let copy = store.file().with_file_name("copy.db");
    by_hand(&store, &format!("VACUUM INTO '{}'", copy.display()));
    update(&*store.repository, &key, json!({"title": "Later"})).await;
    (store, copy)
}

/// The files that SQLite keeps beside the store's while it is open.
fn companions(store: &Store) -> [PathBuf; 2] {
    ["-wal", "-shm"].map(|suffix| format!("{}{suffix}", store.file().display()).into())
}

fn move_companions_away(store: &Store) {
    for companion in companions(store) {
        fs::rename(&companion, companion.with_extension("old")).unwrap();
    }
}

/// The error of a read and of a write.
async fn errors(store: &Store) -> [StoreError; 2] {
    let change = creation(&project_key("b"), &project("b"));
    [
        store.repository.get(&project_key("a")).await.unwrap_err(),
        store
            .repository
            .commit(&[change], &once())
            .await
            .unwrap_err(),
    ]
}

#[tokio::test]
async fn a_file_that_replaces_the_stores_is_used_from_then_on() {
    let (store, copy) = backed_up().await;

    move_companions_away(&store);
    fs::rename(&copy, store.file()).unwrap();

    let text = stored(&*store.repository, &project_key("a")).await;
    assert_eq!(text, Some(json!(project("a")).to_string()));
    update(
        &*store.repository,
        &project_key("a"),
        json!({"title": "New"}),
    )
    .await;
    let log = store.assert_sound().await;
    assert_eq!(log.seq, 2);
}

#[tokio::test]
async fn a_file_beside_the_log_of_the_one_it_replaced_is_left_alone() {
    let (store, copy) = backed_up().await;
    let bytes = fs::read(&copy).unwrap();

    fs::rename(&copy, store.file()).unwrap();
    let errors = errors(&store).await;

    for error in errors {
        assert!(
            matches!(&error, StoreError::Unavailable(message) if message.contains("-wal` and")),
            "{error:?}"
        );
    }
    assert_eq!(fs::read(store.file()).unwrap(), bytes);
    move_companions_away(&store);
    update(
        &*store.repository,
        &project_key("a"),
        json!({"title": "New"}),
    )
    .await;
    store.assert_sound().await;
}

#[tokio::test]
async fn a_deleted_file_is_reported_and_not_created_anew() {
    let (store, copy) = backed_up().await;

    fs::remove_file(store.file()).unwrap();
    let errors = errors(&store).await;

    for error in errors {
        assert!(
            matches!(&error, StoreError::Unavailable(message) if message.contains("was deleted")),
            "{error:?}"
        );
    }
    assert!(!store.file().exists());
    move_companions_away(&store);
    fs::rename(&copy, store.file()).unwrap();
    update(
        &*store.repository,
        &project_key("a"),
        json!({"title": "New"}),
    )
    .await;
    store.assert_sound().await;
}

#[tokio::test]
async fn a_file_that_is_moved_away_and_back_is_used_as_before() {
    let (store, _) = backed_up().await;
    let away = store.file().with_file_name("away.db");

    fs::rename(store.file(), &away).unwrap();
    errors(&store).await;
    fs::rename(&away, store.file()).unwrap();

    update(
        &*store.repository,
        &project_key("a"),
        json!({"title": "New"}),
    )
    .await;
    let log = store.assert_sound().await;
    assert_eq!(log.seq, 3);
}

/// The commands in the code blocks of docs/operations.md under "Back up and restore", "SQLite".
fn documented_commands() -> Vec<String> {
    let text = fs::read_to_string(repository_path("docs/operations.md")).unwrap();
    let (_, section) = text.split_once("\n## Back up and restore\n").unwrap();
    let (_, section) = section.split_once("\n### SQLite\n").unwrap();
    let (section, _) = section.split_once("\n### ").unwrap();
    section
        .split("```sh\n")
        .skip(1)
        .map(|block| block.split_once("```").unwrap().0.to_owned())
        .collect()
}

/// Runs documented commands in the folder of the store.
fn run_documented(store: &Store, commands: &str) {
    let script = commands
        .replace("portfolio.db", "content.db")
        .replace("portfolio-mcp doctor", &format!("'{PROGRAM}' doctor"));
    let has_shell = Command::new("sqlite3").arg("--version").output().is_ok();
    if script.contains("sqlite3 ") && !has_shell {
        println!("there is no sqlite3 here, so its statement is run without it");
        let statement = script.split('"').nth(1).unwrap();
        let copy = store.file().with_file_name("copy.db");
        let statement = statement.replace("copy.db", copy.to_str().unwrap());
        return by_hand(store, &statement);
    }
    let output = Home::new()
        .command("sh")
        .args(["-ec", &script])
        .current_dir(store.file().parent().unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{script}\n{output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_backup_ends_under_steady_writes_and_can_be_restored() {
    let (mut store, key) = (Store::sqlite(), project_key("a"));
    create_sound(&*store.repository, &key).await;
    let commands = documented_commands();
    let [back_up, restore] = commands.as_slice() else {
        panic!("other commands are documented: {commands:?}")
    };
    let (writer, count) = (store.another(), Arc::new(AtomicU64::new(0)));
    let done = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn({
        let (key, count, done) = (key.clone(), Arc::clone(&count), Arc::clone(&done));
        async move {
            while !done.load(Ordering::Relaxed) {
                update(&*writer, &key, json!({ "title": unique("title") })).await;
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let more_writes = || {
        let before = count.load(Ordering::Relaxed);
        wait_until("the writer writes", || {
            (count.load(Ordering::Relaxed) > before).then_some(())
        });
    };

    more_writes();
    run_documented(&store, back_up);
    more_writes();
    done.store(true, Ordering::Relaxed);
    writing.await.unwrap();
    let newest = update(&*store.repository, &key, json!({ "title": "After it" })).await;
    run_documented(&store, restore);
    store.reopen();

    let log = store.assert_sound().await;
    assert!((2..newest.entries[0].seq().unwrap()).contains(&log.seq));
}

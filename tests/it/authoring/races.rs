//! Creating and deleting at the same time from several processes, and over a bad connection.

use futures::future::{join, join_all};
use portfolio_mcp::domain::Kind;
use serde_json::{Value, json};

use crate::support::{
    fixtures::{create_sound, new_document, project_key},
    proxy::{Mode, Proxy},
    stdio::StdioClient,
    stores::{Store, on_each_store},
};

const ROUNDS: usize = 8;

fn creation(id: &str) -> Value {
    json!({ "id": id, "data": new_document(Kind::Project) })
}

#[tokio::test]
async fn of_two_processes_that_create_one_id_one_wins() {
    on_each_store(async |store: &Store| {
        let clients = [
            StdioClient::start_with_all_toolsets(store).await,
            StdioClient::start_with_all_toolsets(store).await,
        ];

        for round in 0..ROUNDS {
            let arguments = creation(&format!("number-{round}"));
            let calls =
                (0..6).map(|number| clients[number % 2].call("create_project", arguments.clone()));
            let answers = join_all(calls).await;

            let won = answers.iter().filter(|answer| answer["success"] == true);
            assert_eq!(won.count(), 1, "{answers:?}");
            let lost = answers
                .iter()
                .filter(|answer| answer["error"]["code"] == "PROJECT_EXISTS");
            assert_eq!(lost.count(), 5, "{answers:?}");
        }
        assert_eq!(store.assert_sound().await.seq, ROUNDS as u64);
    })
    .await;
}

#[tokio::test]
async fn a_deletion_that_loses_the_race_against_an_update_is_a_conflict() {
    on_each_store(async |store: &Store| {
        let editor = StdioClient::start_with_all_toolsets(store).await;
        let other = StdioClient::start_with_all_toolsets(store).await;

        for round in 0..ROUNDS {
            let id = format!("number-{round}");
            create_sound(&*store.repository, &project_key(&id)).await;
            let read = editor.call("get_project", json!({ "id": id })).await;
            let update = json!({ "id": id, "data": { "title": "New" } });
            let delete = json!({ "id": id, "expectedVersion": read["meta"]["version"] });

            let (updated, deleted) = join(
                editor.call("update_project", update),
                other.call("delete_project", delete),
            )
            .await;

            let (code, lost) = if deleted["success"] == true {
                ("PROJECT_NOT_FOUND", &updated)
            } else {
                ("VERSION_CONFLICT", &deleted)
            };
            assert_eq!(lost["error"]["code"], code, "{updated} {deleted}");
        }
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn a_lost_connection_creates_and_deletes_nothing_twice() {
    let store = Store::redis();
    let mut proxy = Proxy::start(store.server().port()).await;
    let arguments = [
        "--store".to_owned(),
        proxy.url(),
        "--toolsets=all".to_owned(),
    ];
    let client = StdioClient::start_with(&arguments).await;

    for (round, mode) in [Mode::CutReply, Mode::CutRequest]
        .into_iter()
        .cycle()
        .take(ROUNDS)
        .enumerate()
    {
        let id = format!("number-{round}");
        proxy.set(mode).await;
        let created = client.call("create_project", creation(&id)).await;
        proxy.set(mode).await;
        let request = json!({ "id": id, "expectedVersion": created["meta"]["version"] });
        let deleted = client.call("delete_project", request).await;

        for answer in [&created, &deleted] {
            assert_eq!(answer["success"], true, "{answer}");
            assert_eq!(answer["meta"].get("replayed"), None, "{answer}");
        }
        assert_eq!(proxy.cuts(), 2 * (round + 1));
    }
    assert_eq!(store.assert_sound().await.seq, 2 * ROUNDS as u64);
}

#[tokio::test]
async fn nothing_is_created_while_the_store_is_away() {
    let store = Store::redis();
    let mut proxy = Proxy::start(store.server().port()).await;
    let arguments = [
        "--store".to_owned(),
        proxy.url(),
        "--toolsets=all".to_owned(),
    ];
    let client = StdioClient::start_with(&arguments).await;
    proxy.set(Mode::Refuse).await;

    let refused = client.call_error("create_project", creation("a")).await;
    proxy.set(Mode::Pass).await;
    let created = client
        .call_until("create_project", creation("a"), |answer| {
            answer["success"] == true
        })
        .await;

    let code = refused["code"].as_str().unwrap();
    assert!(
        ["STORE_UNAVAILABLE", "STORE_READ_ONLY"].contains(&code),
        "{refused}"
    );
    assert_eq!(created["data"]["id"], "a");
    assert_eq!(store.assert_sound().await.seq, 1);
}

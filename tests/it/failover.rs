//! A fail-over, or a restore, that loses acknowledged writes: afterwards no server shows what the
//! surviving history does not hold.

use std::time::Duration;

use portfolio_mcp::domain::{DocumentKey, Kind};
use redis::cmd;
use serde_json::{Value, json};

use crate::support::{
    fixtures::{create, document, update, with},
    messages::tool_output,
    proxy::{Proxy, SlowNetwork},
    redis::RedisServer,
    server::HttpServer,
    stores::Store,
    wait::wait_until,
};

/// How often writes are lost. The wrong content was seen in every such fail-over.
const ROUNDS: usize = 200;
const DOCUMENTS: usize = 4;

/// Everything that a Redis server holds.
struct Saved(Vec<(Vec<u8>, i64, Vec<u8>)>);

impl Saved {
    fn of(server: &RedisServer) -> Self {
        let keys: Vec<Vec<u8>> = server.run(cmd("KEYS").arg("*"));
        let values = keys.into_iter().map(|key| {
            let ttl: i64 = server.run(cmd("PTTL").arg(&key));
            let value: Vec<u8> = server.run(cmd("DUMP").arg(&key));
            (key, ttl.max(0), value)
        });
        Self(values.collect())
    }

    /// Makes the server hold this and nothing else, in one transaction.
    fn restore(&self, server: &RedisServer) {
        let mut lines = redis::pipe();
        lines.atomic().cmd("FLUSHALL").ignore();
        for (key, ttl, value) in &self.0 {
            lines.cmd("RESTORE").arg(key).arg(ttl).arg(value).ignore();
        }
        server.run_all(&lines);
    }
}

fn published(server: &HttpServer) -> Vec<(String, String)> {
    wait_until("the website gets what is stored now", || {
        let response = server.get("/api/projects");
        let answer = response.json();
        (answer["meta"]["stale"] != true).then(|| titles(&answer["data"]))
    })
}

fn listed(server: &HttpServer) -> Vec<(String, String)> {
    wait_until("the server answers with what is stored now", || {
        let answer = tool_output(&server.call("list_projects", &json!({ "status": "published" })));
        (answer["meta"]["stale"] != true).then(|| titles(&answer["data"]))
    })
}

/// Ids and titles, sorted.
fn titles(data: &Value) -> Vec<(String, String)> {
    let text = |document: &Value, name: &str| document[name].as_str().unwrap().to_owned();
    let mut found: Vec<_> = data
        .as_array()
        .unwrap()
        .iter()
        .map(|document| (text(document, "id"), text(document, "title")))
        .collect();
    found.sort();
    found
}

/// What is really stored.
async fn stored(store: &Store) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for number in 0..DOCUMENTS {
        let key = key(number);
        let record = store.another().get(&key).await.unwrap().record.unwrap();
        if record.is_published() {
            let title = record.document()["title"].as_str().unwrap().to_owned();
            found.push((key.id, title));
        }
    }
    found
}

fn key(number: usize) -> DocumentKey {
    DocumentKey::new(Kind::Project, format!("p{number}"))
}

/// Writes to documents at random: another title, published or not.
async fn write(store: &Store, count: usize, name: &str) {
    for number in 0..count {
        let key = key(fastrand::usize(..DOCUMENTS));
        let status = fastrand::choice(["published", "published", "draft"]).unwrap();
        let patch =
            json!({ "title": format!("{name} {number}"), "metadata": { "status": status } });
        update(&*store.another(), &key, patch).await;
    }
}

/// Each time, the other one of two Redis servers takes over, which lacks the last writes; then come
/// as many other ones, so that every number is the same.
#[tokio::test(flavor = "multi_thread")]
async fn writes_that_a_fail_over_lost_are_not_shown_by_any_server() {
    let stores = [Store::redis(), Store::redis()];
    let (mut active, mut standby) = (&stores[0], &stores[1]);
    let proxy = Proxy::start(active.server().port()).await;
    for number in 0..DOCUMENTS {
        let published = json!({ "metadata": { "status": "published" } });
        let document = with(&document(Kind::Project, &key(number).id), published);
        create(&*active.repository, &key(number), document).await;
    }
    let url = proxy.url();
    let start = || HttpServer::start_with(&["--store", &url, "--rate-limit", "0"]);
    let servers = [start(), start()];
    for round in 0..ROUNDS {
        Saved::of(active.server()).restore(standby.server());
        let count = fastrand::usize(1..4);
        write(active, count, &format!("lost {round}")).await;
        // Both servers have seen the lost writes, and one has cached a response with them.
        for server in &servers {
            assert_eq!(listed(server), stored(active).await, "round {round}");
        }
        published(&servers[round % 2]);

        std::mem::swap(&mut active, &mut standby);
        proxy.fail_over(active.server().port());
        write(active, count, &format!("kept {round}")).await;

        let expected = stored(active).await;
        for server in &servers {
            assert_eq!(listed(server), expected, "round {round}, list_projects");
            assert_eq!(published(server), expected, "round {round}, /api");
        }
    }
    active.assert_sound().await;
}

/// A write lands while a server reads all documents, and is lost afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_during_the_first_load_is_not_shown_after_it_was_lost() {
    let store = Store::redis();
    let text = json!({ "challenge": "x".repeat(200_000), "metadata": { "status": "published" } });
    for number in 0..DOCUMENTS {
        let document = with(&document(Kind::Project, &key(number).id), text.clone());
        create(&*store.repository, &key(number), document).await;
    }
    let network = SlowNetwork {
        bytes_per_second: 300_000,
        round_trip: Duration::from_millis(10),
    };
    let proxy = Proxy::start_slow(store.server().port(), network).await;
    let server = HttpServer::start_with(&["--store", &proxy.url(), "--rate-limit", "0"]);
    wait_until("the documents are being read", || {
        (proxy.traffic().bytes > 100_000).then_some(())
    });

    let before = Saved::of(store.server());
    let last = key(DOCUMENTS - 1);
    update(&*store.another(), &last, json!({ "title": "lost" })).await;
    wait_until("the documents were read", || {
        let answer = server.call("list_projects", &json!({}));
        (answer["isError"] != true).then_some(())
    });
    before.restore(store.server());

    assert_eq!(listed(&server), stored(&store).await);
    assert_eq!(published(&server), stored(&store).await);
}

/// A client repeats a write that a fail-over lost, with its idempotency key.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_write_that_is_repeated_is_another_write() {
    let store = Store::redis();
    for number in 0..2 {
        let published = json!({ "metadata": { "status": "published" } });
        let document = with(&document(Kind::Project, &key(number).id), published);
        create(&*store.repository, &key(number), document).await;
    }
    let (reader, writer) = (
        HttpServer::start(&store, &[]),
        HttpServer::start(&store, &[]),
    );
    let repeated = json!({ "id": "p0", "data": { "title": "again" }, "idempotencyKey": "k1" });
    let before = Saved::of(store.server());
    assert_ne!(writer.call("update_project", &repeated)["isError"], true);
    listed(&reader);

    before.restore(store.server());
    assert_ne!(writer.call("update_project", &repeated)["isError"], true);
    update(&*store.another(), &key(1), json!({ "title": "next" })).await;

    let list = tool_output(&reader.call("list_projects", &json!({})));
    for row in list["data"].as_array().unwrap() {
        let id = json!({ "id": row["id"] });
        let stored = tool_output(&reader.call("get_project", &id));
        assert_eq!(row["version"], stored["meta"]["version"], "{row}");
    }
    store.assert_sound().await;
}

/// An older state is put back into the same server, as from a backup.
#[tokio::test(flavor = "multi_thread")]
async fn writes_that_a_restore_lost_are_not_shown() {
    let store = Store::redis();
    let published_status = json!({ "metadata": { "status": "published" } });
    let first = with(&document(Kind::Project, "p0"), published_status.clone());
    create(&*store.repository, &key(0), first).await;
    for number in 1..DOCUMENTS {
        let document = with(
            &document(Kind::Project, &key(number).id),
            published_status.clone(),
        );
        create(&*store.repository, &key(number), document).await;
    }
    let server = HttpServer::start(&store, &["--rate-limit", "0"]);
    for round in 0..ROUNDS / 10 {
        let before = Saved::of(store.server());
        write(&store, 2, &format!("lost {round}")).await;
        assert_eq!(listed(&server), stored(&store).await, "round {round}");
        published(&server);

        before.restore(store.server());
        write(&store, 2, &format!("kept {round}")).await;

        let expected = stored(&store).await;
        assert_eq!(listed(&server), expected, "round {round}, list_projects");
        assert_eq!(published(&server), expected, "round {round}, /api");
    }
    store.assert_sound().await;
}

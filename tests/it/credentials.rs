//! Redis users with limited permissions, through the program: permitted calls work, the others fail
//! with the reason.

use std::{collections::BTreeMap, fs};

use redis::cmd;
use serde_json::{Value, json};

use crate::support::{
    fixtures::{create_sound, project_key},
    http,
    program::repository_path,
    redis::{PASSWORD, READ_ONLY},
    server::HttpServer,
    stdio::StdioClient,
    stores::Store,
    wait_until,
};

/// A store with a project, and a client of the program on it as a user with `rules`.
async fn started_as(rules: &[&str]) -> (Store, StdioClient) {
    let store = Store::redis();
    create_sound(&*store.repository, &project_key("a")).await;
    store.server().user("limited", rules);
    let url = format!(
        "redis://limited:{PASSWORD}@127.0.0.1:{}",
        store.server().port()
    );
    let client = StdioClient::start_with(&["--store", &url]).await;
    (store, client)
}

async fn updated(client: &StdioClient) -> Value {
    let patch = json!({ "metadata": { "status": "published", "featured": true } });
    client
        .call("update_project", json!({ "id": "a", "data": patch }))
        .await
}

/// Checks that every reading tool works as for a user with all permissions.
async fn check_reads(client: &StdioClient) {
    let reads = [
        ("list_projects", json!({})),
        ("list_resources", json!({})),
        ("get_project", json!({ "id": "a" })),
        ("get_audit_log", json!({})),
        ("get_audit_stats", json!({})),
    ];
    for (tool, arguments) in reads {
        let answer = client.call(tool, arguments).await;
        assert_eq!(answer["success"], true, "{tool}: {answer}");
    }
    assert_eq!(
        client.call("get_resource", json!({ "id": "no" })).await["error"]["code"],
        "RESOURCE_NOT_FOUND"
    );
}

#[tokio::test]
async fn a_read_only_user_can_read_everything_and_write_nothing() {
    let (store, client) = started_as(&READ_ONLY).await;
    let before = store.server().dump();

    check_reads(&client).await;
    let refused = updated(&client).await;

    assert_eq!(refused["error"]["code"], "STORE_READ_ONLY", "{refused}");
    assert!(
        refused["error"]["message"]
            .as_str()
            .unwrap()
            .contains("the server's Redis user may not write"),
        "{refused}"
    );
    assert_eq!(store.server().dump(), before);
    assert!(
        ![client.stderr(), refused.to_string()]
            .iter()
            .any(|text| text.contains(PASSWORD))
    );
}

#[tokio::test]
async fn a_missing_permission_is_named_and_nothing_is_written() {
    for (missing, named) in [
        ("-zadd", "ZADD"),
        ("-hset", "HSET"),
        ("-sadd", "SADD"),
        ("-del", "DEL"),
    ] {
        let (store, client) =
            started_as(&["~*", "resetchannels", "+@all", "-@dangerous", missing]).await;
        let before = store.server().dump();

        let refused = updated(&client).await;

        assert_eq!(
            refused["error"]["code"], "STORE_READ_ONLY",
            "{missing}: {refused}"
        );
        assert!(
            refused["error"]["message"]
                .as_str()
                .unwrap()
                .contains(named),
            "{missing}: {refused}"
        );
        check_reads(&client).await;
        assert_eq!(store.server().dump(), before, "{missing}");
        store.assert_sound().await;
    }
}

/// The commands that docs/operations.md says the user needs, as rules of a user.
fn documented_permissions() -> Vec<String> {
    let text = fs::read_to_string(repository_path("docs/operations.md")).unwrap();
    let sentence = text
        .lines()
        .find(|line| line.starts_with("The user needs `"))
        .expect("docs/operations.md names the commands that the user needs");
    sentence
        .split('`')
        .skip(1)
        .step_by(2)
        .map(|command| format!("+{}", command.to_lowercase()))
        .collect()
}

/// The commands that the server refused, except those that the client library sends on connecting
/// and `PTTL`, which is documented as optional.
fn refused(store: &Store) -> Vec<String> {
    let log: Vec<BTreeMap<String, redis::Value>> = store.server().run(cmd("ACL").arg("LOG"));
    log.into_iter()
        .filter_map(|mut refusal| redis::from_redis_value(refusal.remove("object")?).ok())
        .filter(|command: &String| command != "pttl" && !command.starts_with("client|"))
        .collect()
}

#[test]
fn the_documented_permissions_are_enough_for_everything() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    let store = Store::redis();
    runtime.block_on(create_sound(&*store.repository, &project_key("a")));
    let permissions = documented_permissions();
    let rules =
        "~data:* ~index:* ~audit:* ~cache:* ~meta:schema:version ~internal:* resetchannels -@all";
    let rules: Vec<&str> = rules
        .split(' ')
        .chain(permissions.iter().map(String::as_str))
        .collect();
    store.server().user("limited", &rules);
    // Written by a program that does not count, so that the counters are wrong.
    store.server().run::<()>(
        cmd("ZADD")
            .arg("audit:entries")
            .arg(1_600_000_000_000_u64)
            .arg(r#"{"action":"save","source":"cms","entityType":"projects","entityId":"a"}"#),
    );
    store
        .server()
        .run::<()>(cmd("HSET").arg("audit:stats").arg("action:lost").arg(7));
    let url = format!(
        "redis://limited:{PASSWORD}@127.0.0.1:{}",
        store.server().port()
    );
    let server = HttpServer::start_with(&["--store", &url]);

    let published = json!({ "metadata": { "status": "published", "featured": true } });
    for (tool, arguments) in [
        (
            "update_project",
            json!({ "id": "a", "data": published, "idempotencyKey": "k" }),
        ),
        (
            "update_project",
            json!({ "id": "a", "data": published, "idempotencyKey": "k" }),
        ),
        ("get_project", json!({ "id": "a" })),
        ("list_projects", json!({})),
        ("list_resources", json!({})),
        ("get_audit_log", json!({})),
        ("get_audit_log", json!({ "entityId": "a" })),
        ("get_audit_stats", json!({})),
    ] {
        let answer = &server.call(tool, &arguments)["structuredContent"];
        assert_eq!(answer["success"], true, "{tool}: {answer}");
    }
    for path in [
        "/api/projects",
        "/api/projects",
        "/api/projects/a",
        "/readyz",
    ] {
        assert_eq!(
            http::send(server.address, "GET", path, &[], "").status,
            200,
            "{path}"
        );
    }
    wait_until("the counters are corrected", || {
        let lost: Option<u64> = store
            .server()
            .run(cmd("HGET").arg("audit:stats").arg("action:lost"));
        lost.is_none().then_some(())
    });

    assert_eq!(refused(&store), Vec::<String>::new());
    let log = server.stop();
    assert!(!log.contains("WARN") && !log.contains("NOPERM"), "{log}");
}

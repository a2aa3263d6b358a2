//! Redis users with limited permissions, through the program: permitted calls work, the others fail
//! with the reason.

use serde_json::{Value, json};

use crate::support::{
    fixtures::{create_sound, project_key},
    redis::{PASSWORD, READ_ONLY},
    stdio::StdioClient,
    stores::Store,
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

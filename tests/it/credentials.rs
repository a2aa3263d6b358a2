//! Credentials that may less than all, through the program: what they may is served, the rest is refused with its reason.

use serde_json::{Value, json};

use crate::support::{
    content::{create_sound, project_key},
    mcp::Mcp,
    redis_server::PASSWORD,
    stores::Store,
};

/// What Upstash gives `default_ro`: no PING, no TIME, no scripts, no channels.
const READ_ONLY: [&str; 4] = ["~*", "resetchannels", "+@read", "-@dangerous"];

/// A store with a project, and the program on it as a user with `rules`.
async fn started_as(rules: &[&str]) -> (Store, Mcp) {
    let store = Store::redis();
    create_sound(&*store.repository, &project_key("a")).await;
    store.server().user("limited", rules);
    let url = format!(
        "redis://limited:{PASSWORD}@127.0.0.1:{}",
        store.server().port()
    );
    let client = Mcp::start_with(&["--store", &url]).await;
    (store, client)
}

async fn updated(client: &Mcp) -> Value {
    let patch = json!({ "metadata": { "status": "published", "featured": true } });
    client
        .call("update_project", json!({ "id": "a", "data": patch }))
        .await
}

/// Every reading tool answers as for a user with all rights.
async fn check_reads(client: &Mcp) {
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
async fn a_reading_user_is_served_all_reads_and_refused_all_writes() {
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
async fn a_writing_user_who_lacks_one_command_is_told_which_and_nothing_is_written() {
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

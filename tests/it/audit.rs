//! `get_audit_log` and `get_audit_stats` as a model sees them: short rows, filters, and pages that
//! fit.

use portfolio_mcp::{
    clock,
    domain::{Change, DocumentKey, Kind, StoredEntry},
};
use serde_json::{Value, json};

use crate::support::{
    fixtures::{
        create_sound, creation, document, legacy_entries, once, project, project_key, update, with,
    },
    messages::tool_output,
    soundness::entries,
    stdio::StdioClient,
    stores::{Store, on_each_store},
};

/// CONTRACT.md, section 2.
const MAX_ANSWER_BYTES: usize = 32_000;

/// A client in this process, which does not see the store go away.
fn client_of(store: &Store) -> StdioClient {
    StdioClient::in_process(store.open(), None)
}

/// The text of an answer, which is what a model reads, and the same as JSON.
async fn read(client: &StdioClient, tool: &str, arguments: &Value) -> (String, Value) {
    let params = json!({ "name": tool, "arguments": arguments });
    let result = client.result("tools/call", params).await;
    let text = result["content"][0]["text"].as_str().unwrap().to_owned();
    (text, tool_output(&result))
}

fn rows(answer: &Value) -> &Vec<Value> {
    answer["data"]
        .as_array()
        .unwrap_or_else(|| panic!("{answer}"))
}

/// The rows of all pages. Each page fits, unless it has one row alone.
async fn all_rows(client: &StdioClient, mut arguments: Value) -> Vec<Value> {
    let mut found = Vec::new();
    loop {
        let (text, page) = read(client, "get_audit_log", &arguments).await;
        assert!(
            text.len() <= MAX_ANSWER_BYTES || rows(&page).len() == 1,
            "{} rows in {} bytes",
            rows(&page).len(),
            text.len()
        );
        found.extend(rows(&page).iter().cloned());
        if page["meta"]["nextCursor"].is_null() {
            return found;
        }
        arguments["cursor"] = page["meta"]["nextCursor"].clone();
    }
}

/// As after a migration: 103 documents like those of the site, in one import.
async fn migrated(store: &Store) {
    let commits: Vec<Change> = (0..103)
        .map(|number| {
            let kind = if number % 3 == 0 {
                Kind::Resource
            } else {
                Kind::Project
            };
            let key = DocumentKey::new(kind, format!("document-{number}"));
            let text = "Une phrase d’environ quarante lettres. ".repeat(20);
            let document = with(&document(kind, &key.id), json!({ "description": text }));
            creation(&key, &document)
        })
        .collect();
    store.repository.commit(&commits, &once()).await.unwrap();
}

#[tokio::test]
async fn the_log_after_a_migration_fits_and_pages_through_whole() {
    on_each_store(async |store| {
        migrated(store).await;
        let client = client_of(store);

        let (text, page) = read(&client, "get_audit_log", &json!({})).await;

        println!("{} bytes for {} rows", text.len(), rows(&page).len());
        assert!(text.len() < MAX_ANSWER_BYTES, "{} bytes", text.len());
        assert_eq!(rows(&page).len(), 20);
        assert_eq!(all_rows(&client, json!({})).await.len(), 103);
        let full = all_rows(&client, json!({ "detail": "full", "limit": 500 })).await;
        let mut log = entries(&*store.repository, &Default::default()).await;
        log.reverse();
        let stored: Vec<Value> = log
            .iter()
            .map(|entry| serde_json::from_str(entry.text()).unwrap())
            .collect();
        assert_eq!(full, stored);
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn a_row_says_who_changed_what_and_why() {
    let store = Store::sqlite();
    create_sound(&*store.repository, &project_key("a")).await;
    let client = client_of(&store);
    client.initialize("claude-code", "2.1.0").await;
    let change =
        json!({ "id": "a", "data": { "client": { "size": "5" } }, "reason": "two joined" });
    let updated = client.call("update_project", change).await;

    let log = client.call("get_audit_log", json!({})).await;

    let row = log["data"][0].as_object().unwrap();
    let names: Vec<&str> = row.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "seq",
            "auditId",
            "timestamp",
            "action",
            "entityType",
            "entityId",
            "source",
            "actor",
            "clientId",
            "transport",
            "reason",
            "changes"
        ]
    );
    assert_eq!(row["auditId"], updated["meta"]["auditId"]);
    assert_eq!(
        [
            &row["actor"],
            &row["clientId"],
            &row["transport"],
            &row["reason"]
        ],
        ["owner", "claude-code/2.1.0", "stdio", "two joined"]
    );
    assert_eq!(row["changes"][0]["field"], "client.size");
    assert_eq!(row["changes"][0]["newValue"], "5");
    let created = &log["data"][1];
    assert_eq!(
        created["actor"],
        Value::Null,
        "left out where it is unknown"
    );
    let fields: Vec<String> = project("a").keys().cloned().collect();
    assert_eq!(
        created["changes"],
        json!([{ "created": { "title": "The case of a", "fields": fields } }])
    );
}

#[tokio::test]
async fn the_log_is_searched_by_actor_client_and_field() {
    on_each_store(async |store| {
        create_sound(&*store.repository, &project_key("a")).await;
        store
            .history
            .import_entries(&legacy_entries(), clock())
            .await
            .unwrap();
        let client = client_of(store);
        client.initialize("claude-code", "2.1.0").await;
        for size in ["5", "6"] {
            let change = json!({ "id": "a", "data": { "client": { "size": size } } });
            client.call("update_project", change).await;
        }

        for (filters, count) in [
            (json!({ "actor": "owner" }), 2),
            (json!({ "actor": "paul" }), 0),
            (json!({ "clientId": "claude-code" }), 2),
            (json!({ "clientId": "claude-code/2.1.0" }), 2),
            (json!({ "clientId": "claude-code/2" }), 0),
            (json!({ "field": "client.size" }), 3),
            (json!({ "field": "client" }), 3),
            (json!({ "field": "client.type" }), 1),
            (json!({ "field": "price" }), 1),
            (json!({ "field": "client", "actor": "owner", "clientId": "claude-code", "action": "update", "limit": 1 }), 2),
        ] {
            let found = all_rows(&client, filters.clone()).await;
            assert_eq!(found.len(), count, "{filters}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_cursor_of_the_log_is_bound_to_every_filter() {
    let store = Store::sqlite();
    let key = project_key("a");
    create_sound(&*store.repository, &key).await;
    update(&*store.repository, &key, json!({ "title": "New" })).await;
    let client = client_of(&store);
    let first = client
        .call("get_audit_log", json!({ "limit": 1, "field": "title" }))
        .await;
    let cursor = &first["meta"]["nextCursor"];

    for other in ["actor", "clientId", "field"] {
        let arguments = json!({ "limit": 1, "cursor": cursor, other: "marie" });
        let error = client.call_error("get_audit_log", arguments).await;
        let message = error["details"]["violations"][0]["message"].to_string();
        assert!(message.contains("different filters"), "{other}: {error}");
    }
    let next = json!({ "limit": 5, "field": "title", "cursor": cursor, "detail": "full" });
    let next = client.call("get_audit_log", next).await;
    assert_eq!(rows(&next).len(), 1, "{next}");
}

#[tokio::test]
async fn a_filter_that_is_null_or_too_long_is_treated_like_those_before() {
    let store = Store::sqlite();
    create_sound(&*store.repository, &project_key("a")).await;
    let client = client_of(&store);

    let nulls = json!({ "actor": null, "clientId": null, "field": null });
    let all = client.call("get_audit_log", nulls).await;
    let long = "x".repeat(501);
    let long = json!({ "actor": long, "clientId": long, "field": long });
    let refused = client.call_error("get_audit_log", long).await;

    assert_eq!(rows(&all).len(), 1);
    assert_eq!(
        refused["details"]["violations"].as_array().unwrap().len(),
        3
    );
}

/// Escapes make a text up to six times as long as what is stored.
#[tokio::test]
async fn pages_are_measured_as_they_are_sent() {
    on_each_store(async |store| {
        let key = project_key("a");
        create_sound(&*store.repository, &key).await;
        for number in 0..60 {
            let text = format!("{number}{}", "\u{202f}\"".repeat(95));
            update(&*store.repository, &key, json!({ "description": text })).await;
        }
        let client = client_of(store);

        for detail in ["summary", "full"] {
            let arguments = json!({ "detail": detail, "limit": 500 });
            let (text, page) = read(&client, "get_audit_log", &arguments).await;

            println!(
                "{detail}: {} rows in {} bytes",
                rows(&page).len(),
                text.len()
            );
            assert!(text.contains("\\u202f"), "{text}");
            assert!(text.len() > MAX_ANSWER_BYTES * 3 / 4, "pages are full");
            assert_eq!(all_rows(&client, arguments).await.len(), 61);
        }
    })
    .await;
}

#[tokio::test]
async fn older_entries_of_any_shape_have_a_row_and_break_no_filter() {
    on_each_store(async |store| {
        let long = "x".repeat(5000);
        let foreign = [
            json!({ "timestamp": "2025-01-01T00:00:00Z", "id": 7, "action": "save", "actor": "lise", "changes": { "text": long } }),
            json!({ "timestamp": "2025-01-02T00:00:00Z", "metadata": [long], "changes": [5, null, ["x"], { "field": 5 }] }),
            json!({ "timestamp": "2025-01-03T00:00:00Z", "action": 5, "entityId": { "x": long }, "changes": long }),
            json!(["not", "an", "entry"]),
        ];
        let entries: Vec<StoredEntry> = foreign
            .iter()
            .map(|entry| StoredEntry::parse(entry.to_string()))
            .collect();
        store
            .history
            .import_entries(&entries, clock())
            .await
            .unwrap();
        let client = client_of(store);

        let (text, log) = read(&client, "get_audit_log", &json!({})).await;
        let (_, found) = read(&client, "get_audit_log", &json!({ "actor": "lise", "field": "text" })).await;
        let (_, none) = read(&client, "get_audit_log", &json!({ "field": "x", "clientId": "x" })).await;
        let (_, stats) = read(&client, "get_audit_stats", &json!({})).await;

        assert!(text.len() < 4000, "{} bytes", text.len());
        assert_eq!(rows(&log).len(), 4);
        assert_eq!(log["data"][3]["unreadable"], r#"["not","an","entry"]"#);
        assert_eq!(rows(&found).len(), 1);
        assert_eq!(found["data"][0]["auditId"], 7);
        assert_eq!(found["data"][0]["changes"]["text"]["characters"], 5000);
        assert_eq!(rows(&none).len(), 0);
        assert_eq!(stats["data"]["recentActivity"][2]["changes"], json!(["text"]));
        let full = all_rows(&client, json!({ "detail": "full" })).await;
        assert_eq!(full[..3], [&foreign[2], &foreign[1], &foreign[0]].map(Clone::clone));
    })
    .await;
}

#[tokio::test]
async fn the_log_and_the_statistics_say_when_the_log_begins() {
    on_each_store(async |store| {
        let client = client_of(store);
        let empty = client.call("get_audit_log", json!({})).await;
        assert_eq!(empty["meta"].get("logBegins"), None);
        store
            .history
            .import_entries(&legacy_entries(), clock())
            .await
            .unwrap();
        create_sound(&*store.repository, &project_key("a")).await;

        let found = client
            .call("get_audit_log", json!({ "field": "price", "limit": 1 }))
            .await;
        let stats = client.call("get_audit_stats", json!({})).await;

        assert_eq!(found["meta"]["logBegins"], "2024-11-22T10:15:30.123Z");
        assert_eq!(stats["meta"]["logBegins"], "2024-11-22T10:15:30.123Z");
    })
    .await;
}

#[tokio::test]
async fn the_statistics_are_small_and_name_the_changed_fields() {
    on_each_store(async |store| {
        migrated(store).await;
        let key = DocumentKey::new(Kind::Project, "document-1");
        let text = "Une autre phrase d’environ cinquante lettres. ".repeat(20);
        update(
            &*store.repository,
            &key,
            json!({ "description": text, "client": { "size": "5" } }),
        )
        .await;
        let client = client_of(store);

        let (text, stats) = read(&client, "get_audit_stats", &json!({})).await;

        println!("{} bytes", text.len());
        assert!(text.len() < 6000, "{} bytes", text.len());
        let recent = stats["data"]["recentActivity"].as_array().unwrap();
        assert_eq!(recent.len(), 10);
        assert_eq!(recent[0], stats["data"]["latestEntry"]);
        assert_eq!(
            recent[0]["changes"],
            json!(["client.size", "description", "metadata.updatedAt"])
        );
        assert_eq!(recent[0]["entityId"], "document-1");
        assert!(
            recent[1]["changes"]
                .as_array()
                .unwrap()
                .contains(&json!("title"))
        );
        assert_eq!(stats["data"]["totalEntries"], 104);
    })
    .await;
}

//! An entry of the log as a row of an answer.
//!
//! A row of a summary holds what an entry has under these names, by whichever program it was written.

use serde_json::{Map, Value, json};

use super::changes::{shorten, summarize_changes};
use crate::domain::{StoredEntry, audit::Category};

/// A row of the statistics names this many changed fields.
const MAX_NAMES: usize = 20;

/// The row with its changes, long values being shortened.
pub(super) fn summary_row(entry: &StoredEntry) -> Value {
    let changes = entry.json().get("changes").map(|changes| {
        let action = entry.text_of(Category::Action.member());
        let kind = entry.key().map(|key| key.kind);
        summarize_changes(kind, action, changes.clone())
    });
    row(entry, changes)
}

/// The row with the names of the changed fields.
pub(super) fn names_row(entry: &StoredEntry) -> Value {
    let mut fields = entry.changed_fields();
    let mut names: Vec<Value> = fields.by_ref().take(MAX_NAMES).map(Value::from).collect();
    names.iter_mut().for_each(shorten);
    match fields.count() {
        0 => {}
        more => names.push(json!(format!("and {more} more"))),
    }
    let changes = entry.json().contains_key("changes");
    row(entry, changes.then_some(Value::Array(names)))
}

fn row(entry: &StoredEntry, changes: Option<Value>) -> Value {
    let own = |member: &str| entry.json().get(member).cloned();
    let origin = |member: &str| entry.origin(member).cloned();
    let members = [
        ("seq", own("seq")),
        ("auditId", own("id")),
        ("timestamp", own("timestamp")),
        ("action", own("action")),
        ("entityType", own("entityType")),
        ("entityId", own("entityId")),
        ("source", own("source")),
        ("actor", origin("actor")),
        ("clientId", origin("clientId")),
        ("transport", origin("transport")),
        ("reason", origin("reason")),
        ("unreadable", own("unreadable")),
    ];
    let mut row: Map<String, Value> = members
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value.filter(|it| !it.is_null())?)))
        .collect();
    row.values_mut().for_each(shorten);
    if let Some(changes) = changes {
        row.insert("changes".to_owned(), changes);
    }
    Value::Object(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(entry: &Value) -> [Value; 2] {
        let entry = StoredEntry::parse(entry.to_string());
        [summary_row(&entry), names_row(&entry)]
    }

    #[test]
    fn a_row_holds_who_did_what_and_leaves_out_what_is_absent() {
        let entry = json!({
            "seq": 7, "timestamp": "2026-01-02T03:04:05.678Z", "id": "e7", "action": "update",
            "entityType": "project", "entityId": "a", "source": "mcp",
            "changes": [{ "field": "title", "oldValue": "A", "newValue": "b".repeat(201) }],
            "metadata": { "clientId": "claude-code/2.1.0", "transport": "stdio", "operation": "0123", "checksum": "45", "reason": "r".repeat(300) }
        });

        let [summary, names] = rows(&entry);

        let mut expected = json!({
            "seq": 7, "auditId": "e7", "timestamp": "2026-01-02T03:04:05.678Z", "action": "update",
            "entityType": "project", "entityId": "a", "source": "mcp",
            "clientId": "claude-code/2.1.0", "transport": "stdio",
            "reason": { "excerpt": "r".repeat(200), "characters": 300 },
            "changes": [{ "field": "title", "oldValue": "A", "newValue": { "excerpt": "b".repeat(200), "characters": 201 } }]
        });
        assert_eq!(summary.to_string(), expected.to_string());
        expected["changes"] = json!(["title"]);
        assert_eq!(names.to_string(), expected.to_string());
    }

    #[test]
    fn a_row_of_an_older_entry_holds_what_it_has() {
        for (entry, expected) in [
            (
                json!({ "action": "read", "entityType": "projects", "entityId": "a", "actor": "lise", "user": { "name": "lise" }, "metadata": "x" }),
                json!({ "action": "read", "entityType": "projects", "entityId": "a", "actor": "lise" }),
            ),
            (
                json!({ "id": 5, "timestamp": 1_737_327_600_000_i64, "reason": null }),
                json!({ "auditId": 5, "timestamp": 1_737_327_600_000_i64 }),
            ),
            (json!("damaged"), json!({ "unreadable": "\"damaged\"" })),
        ] {
            for row in rows(&entry) {
                assert_eq!(row, expected);
            }
        }
        let foreign = json!({ "action": "save", "changes": { "image": "x", "tags": ["y"] } });
        let [summary, names] = rows(&foreign);
        assert_eq!(summary, foreign);
        assert_eq!(names["changes"], json!(["image", "tags"]));
    }

    #[test]
    fn many_changed_fields_are_counted() {
        let fields: Vec<Value> = (0..50)
            .map(|at| json!({ "field": format!("f{at}") }))
            .collect();

        let [_, names] = rows(&json!({ "changes": fields }));

        assert_eq!(names["changes"].as_array().unwrap().len(), MAX_NAMES + 1);
        assert_eq!(names["changes"][MAX_NAMES], "and 30 more");
    }
}

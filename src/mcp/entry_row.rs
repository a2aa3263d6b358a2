//! An entry of the log as a row of an answer.
//!
//! A row of a summary holds what an entry has under these names, by whichever program it was written.

use serde_json::{Map, Value, json};

use super::changes::{fitting_changes, limit_names, shorten, summarize_changes};
use crate::domain::{StoredEntry, audit::Category, overlap};

/// The changes of one row. More are only counted; the whole entry has them.
const MAX_CHANGE_BYTES: usize = 8000;

/// The row with its changes, long values being shortened.
pub(super) fn summary_row(entry: &StoredEntry) -> Value {
    let Some(changes) = entry.json().get("changes") else {
        return row(entry, None, 0);
    };
    let action = entry.text_of(Category::Action.member());
    let kind = entry.key().map(|key| key.kind);
    let changes = summarize_changes(kind, action, changes.clone());
    let (changes, more) = fitting_changes(changes, MAX_CHANGE_BYTES);
    row(entry, Some(changes), more)
}

/// The row with the names of the changed fields.
pub(super) fn names_row(entry: &StoredEntry) -> Value {
    let changes = entry.json().contains_key("changes");
    row(entry, changes.then(|| changed_names(entry)), 0)
}

/// Who changed which fields.
pub(super) fn change_row(entry: &StoredEntry) -> Value {
    let mut row = members([
        ("auditId", entry.json().get("id")),
        ("timestamp", entry.json().get("timestamp")),
        ("actor", entry.origin("actor")),
        ("clientId", entry.origin("clientId")),
        ("action", entry.json().get("action")),
    ]);
    row.insert("fields".to_owned(), changed_names(entry));
    Value::Object(row)
}

/// Who wrote a field, when and why.
pub(super) fn author_row(field: &str, entry: Option<&StoredEntry>) -> Value {
    let mut row = Map::from_iter([("field".to_owned(), json!(field))]);
    row.values_mut().for_each(shorten);
    row.extend(entry.into_iter().flat_map(|entry| {
        members([
            ("auditId", entry.json().get("id")),
            ("timestamp", entry.json().get("timestamp")),
            ("actor", entry.origin("actor")),
            ("clientId", entry.origin("clientId")),
            ("reason", entry.origin("reason")),
        ])
    }));
    Value::Object(row)
}

/// A version of a document: who wrote it, and which fields were changed.
pub(super) fn version_row(entry: &StoredEntry) -> Value {
    let mut row = version_members(entry);
    row.insert("fields".to_owned(), changed_names(entry));
    Value::Object(row)
}

/// The same with the changes of one field, and of those above and below it.
pub(super) fn version_row_of(entry: &StoredEntry, field: &str) -> Value {
    let mut row = version_members(entry);
    let changes: Vec<Value> = entry
        .changes()
        .into_iter()
        .filter(|change| overlap(&change.field, field))
        .map(|change| json!(change))
        .collect();
    let kind = entry.key().map(|key| key.kind);
    let changes = summarize_changes(kind, None, Value::Array(changes));
    let (changes, more) = fitting_changes(changes, MAX_CHANGE_BYTES);
    row.insert("changes".to_owned(), changes);
    if more > 0 {
        row.insert("more".to_owned(), json!(more));
    }
    Value::Object(row)
}

fn version_members(entry: &StoredEntry) -> Map<String, Value> {
    let metadata = entry.json().get("metadata");
    members([
        ("version", metadata.and_then(|it| it.get("versionAfter"))),
        ("auditId", entry.json().get("id")),
        ("timestamp", entry.json().get("timestamp")),
        ("action", entry.json().get("action")),
        ("actor", entry.origin("actor")),
        ("clientId", entry.origin("clientId")),
        ("reason", entry.origin("reason")),
    ])
}

fn changed_names(entry: &StoredEntry) -> Value {
    Value::Array(limit_names(entry.changed_fields()))
}

fn row(entry: &StoredEntry, changes: Option<Value>, more: usize) -> Value {
    let own = |member: &str| entry.json().get(member);
    let origin = |member: &str| entry.origin(member);
    let mut row = members([
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
    ]);
    if let Some(changes) = changes {
        row.insert("changes".to_owned(), changes);
    }
    if more > 0 {
        row.insert("more".to_owned(), json!(more));
    }
    Value::Object(row)
}

/// The members that there are, long values being shortened.
fn members<const N: usize>(members: [(&str, Option<&Value>); N]) -> Map<String, Value> {
    let mut row: Map<String, Value> = members
        .into_iter()
        .filter_map(|(name, value)| {
            let value = value.filter(|value| !value.is_null())?;
            Some((name.to_owned(), value.clone()))
        })
        .collect();
    row.values_mut().for_each(shorten);
    row
}

#[cfg(test)]
mod tests {
    use super::{super::output::answer_text, *};

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

        assert_eq!(names["changes"].as_array().unwrap().len(), 21);
        assert_eq!(names["changes"][20], "and 30 more");
    }

    #[test]
    fn a_row_is_small_however_much_changed() {
        let wide = "\u{a0}".repeat(1000);
        let members: Map<String, Value> = (0..500)
            .map(|at| (format!("f{at}{wide}"), json!(wide)))
            .collect();
        let change = |at: usize| json!({ "field": format!("f{at}"), "newValue": wide });
        let changes: Vec<Value> = (0..500).map(change).collect();
        for entry in [
            json!({ "action": "update", "changes": changes }),
            json!({ "action": "create", "changes": changes }),
            json!({ "action": "create", "changes": [{ "field": "", "newValue": members }] }),
            json!({ "action": "save", "changes": members }),
            json!({ "action": "save", "changes": [members] }),
        ] {
            for row in rows(&entry) {
                let bytes = answer_text(&row).len();
                assert!(bytes < 30_000, "{bytes}");
            }
        }
        let [few, _] = rows(&json!({ "changes": [change(1)] }));
        let [many, _] = rows(&json!({ "action": "update", "changes": changes }));
        assert_eq!(few.get("more"), None);
        let listed = many["changes"].as_array().unwrap().len();
        assert_eq!(many["more"], 500 - listed);
        assert!(listed > 1);
    }
}

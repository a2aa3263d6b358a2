//! Blame: for each field of a document, the last entry that gave it its value.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{
    audit::{Category, StoredEntry},
    diff::{FieldChange, is_nameable},
    field_path::{self, is_within, join, overlap},
    number::is_same_member,
};

/// The action of entries that changed nothing.
const READ_ACTION: &str = "read";

/// The fields of a document, and who wrote them, as far as its entries were looked at.
#[derive(Debug, Clone)]
pub struct Blame {
    fields: Vec<BlamedField>,
}

/// A field and the last entry that changed it.
#[derive(Debug, Clone)]
pub struct BlamedField {
    /// Its path.
    pub field: String,
    /// `None` while no entry is known to have changed it.
    pub entry: Option<Arc<StoredEntry>>,
}

impl Blame {
    /// The fields of `document`: members of objects one by one, everything else whole, as entries
    /// record them. With `within` only those at, above or below that path.
    #[must_use]
    pub fn of(document: &Map<String, Value>, within: Option<&str>) -> Self {
        let mut paths = Vec::new();
        collect_paths(document, "", &mut paths);
        paths.retain(|path| within.is_none_or(|within| overlap(path, within)));
        let blamed = |field| BlamedField { field, entry: None };
        Self {
            fields: paths.into_iter().map(blamed).collect(),
        }
    }

    /// Looks at the document's next entry, newest first.
    pub fn look_at(&mut self, entry: &Arc<StoredEntry>) {
        if entry.text_of(Category::Action.member()) == Some(READ_ACTION) {
            return;
        }
        let changes = entry.changes();
        for blamed in self.fields.iter_mut().filter(|it| it.entry.is_none()) {
            let is_changed = if changes.is_empty() {
                // Older programs stored names, or what they were sent.
                entry
                    .changed_fields()
                    .any(|path| overlap(path, &blamed.field))
            } else {
                changes
                    .iter()
                    .any(|change| changes_field(change, &blamed.field))
            };
            if is_changed {
                blamed.entry = Some(Arc::clone(entry));
            }
        }
    }

    /// Whether an entry is known for every field.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.fields.iter().all(|blamed| blamed.entry.is_some())
    }

    /// The fields, in the document's order.
    #[must_use]
    pub fn into_fields(self) -> Vec<BlamedField> {
        self.fields
    }
}

/// Whether a change gave the field at `path` another value. A change of what is above it may have
/// left it as it was.
fn changes_field(change: &FieldChange, path: &str) -> bool {
    if !is_within(path, &change.field) {
        return is_within(&change.field, path);
    }
    let below = path.strip_prefix(change.field.as_str()).unwrap_or(path);
    let below = below.strip_prefix('.').unwrap_or(below);
    let [old, new] = [&change.old_value, &change.new_value].map(|value| match value {
        Some(value) if below.is_empty() => Some(value),
        Some(value) => field_path::field(value.as_object()?, below),
        None => None,
    });
    !is_same_member(old, new)
}

fn collect_paths(members: &Map<String, Value>, path: &str, paths: &mut Vec<String>) {
    for (name, value) in members {
        let at = join(path, name);
        match value {
            Value::Object(below)
                if !below.is_empty() && below.keys().all(|name| is_nameable(name)) =>
            {
                collect_paths(below, &at, paths);
            }
            _ => paths.push(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn blamed(document: &Value, entries: &[Value]) -> Vec<(String, Option<String>)> {
        let mut blame = Blame::of(document.as_object().unwrap(), None);
        for entry in entries {
            blame.look_at(&Arc::new(StoredEntry::parse(entry.to_string())));
        }
        let id = |entry: Arc<StoredEntry>| entry.text_of("id").unwrap().to_owned();
        let fields = blame.into_fields().into_iter();
        fields.map(|it| (it.field, it.entry.map(id))).collect()
    }

    fn rows(rows: &[(&str, Option<&str>)]) -> Vec<(String, Option<String>)> {
        let owned = rows.iter();
        owned
            .map(|(field, id)| ((*field).to_owned(), id.map(ToOwned::to_owned)))
            .collect()
    }

    #[test]
    fn a_field_is_blamed_on_the_last_entry_that_changed_its_value() {
        let document = json!({ "title": "B", "client": { "size": "2", "type": "x" }, "tags": [1] });
        let entries = [
            json!({ "id": "e3", "changes": [{ "field": "client", "oldValue": { "size": "1", "type": "x" }, "newValue": { "size": "2", "type": "x" } }] }),
            json!({ "id": "e2", "changes": [{ "field": "title", "oldValue": "A", "newValue": "B" }] }),
            json!({ "id": "e1", "changes": [
                { "field": "title", "newValue": "A" },
                { "field": "client", "newValue": { "size": "1", "type": "x" } },
            ] }),
        ];

        assert_eq!(
            blamed(&document, &entries),
            rows(&[
                ("title", Some("e2")),
                ("client.size", Some("e3")),
                ("client.type", Some("e1")),
                ("tags", None),
            ])
        );
    }

    #[test]
    fn entries_of_older_programs_count_by_the_names_they_have() {
        let document = json!({ "title": "B", "client": { "size": "2" } });
        let entries = [
            json!({ "id": "e3", "action": "read", "changes": ["title"] }),
            json!({ "id": "e2", "changes": ["client"] }),
            json!({ "id": "e1", "changes": { "title": "B" } }),
        ];

        assert_eq!(
            blamed(&document, &entries),
            rows(&[("title", Some("e1")), ("client.size", Some("e2"))])
        );
    }
}

//! Blame: for each field of a document, the last entry that gave it its value.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{
    audit::StoredEntry,
    diff::{FieldChange, is_nameable},
    field_path::{self, is_within, join, overlap},
    number::is_same_member,
};

/// The fields of a document, and who wrote them, as far as its entries were looked at.
#[derive(Debug, Clone)]
pub struct Blame {
    fields: Vec<Field>,
}

#[derive(Debug, Clone)]
struct Field {
    blamed: BlamedField,
    /// As it is stored.
    value: Value,
    /// Whether the last change of it was found. If that left another value, the field was changed
    /// outside since, and nobody is blamed.
    is_settled: bool,
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
        let mut fields = Vec::new();
        collect_fields(document, "", &mut fields);
        fields.retain(|(path, _)| within.is_none_or(|within| overlap(path, within)));
        let field = |(field, value): (String, &Value)| Field {
            blamed: BlamedField { field, entry: None },
            value: value.clone(),
            is_settled: false,
        };
        Self {
            fields: fields.into_iter().map(field).collect(),
        }
    }

    /// Looks at the document's next entry, newest first.
    pub fn look_at(&mut self, entry: &Arc<StoredEntry>) {
        if entry.is_read() {
            return;
        }
        let changes = entry.changes();
        for field in self.fields.iter_mut().filter(|it| !it.is_settled) {
            let path = field.blamed.field.as_str();
            let mut left_value = true;
            if changes.is_empty() {
                // Older programs stored names, or what they were sent.
                field.is_settled = entry.changed_fields().any(|of| overlap(of, path));
            }
            for change in changes.iter().filter(|change| changes_field(change, path)) {
                field.is_settled = true;
                left_value &= leaves_value(change, path, &field.value);
            }
            if field.is_settled && left_value {
                field.blamed.entry = Some(Arc::clone(entry));
            }
        }
    }

    /// Whether the last change of every field was found.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.fields.iter().all(|field| field.is_settled)
    }

    /// The fields, in the document's order.
    #[must_use]
    pub fn into_fields(self) -> Vec<BlamedField> {
        self.fields.into_iter().map(|field| field.blamed).collect()
    }
}

/// Whether a change gave the field at `path` another value. A change of what is above it may have
/// left it as it was.
fn changes_field(change: &FieldChange, path: &str) -> bool {
    if !is_within(path, &change.field) {
        return is_within(&change.field, path);
    }
    let below = below(path, &change.field);
    let [old, new] =
        [&change.old_value, &change.new_value].map(|value| member(value.as_ref(), below));
    !is_same_member(old, new)
}

/// Whether a change of the field at `path`, of what is above it or of what is below it left it as
/// `value`.
fn leaves_value(change: &FieldChange, path: &str, value: &Value) -> bool {
    let new = change.new_value.as_ref();
    if is_within(path, &change.field) {
        return is_same_member(member(new, below(path, &change.field)), Some(value));
    }
    is_same_member(member(Some(value), below(&change.field, path)), new)
}

/// The path of a field within one above it.
fn below<'a>(path: &'a str, above: &str) -> &'a str {
    let below = path.strip_prefix(above).unwrap_or(path);
    below.strip_prefix('.').unwrap_or(below)
}

fn member<'a>(value: Option<&'a Value>, path: &str) -> Option<&'a Value> {
    if path.is_empty() {
        return value;
    }
    field_path::field(value?.as_object()?, path)
}

fn collect_fields<'a>(
    members: &'a Map<String, Value>,
    path: &str,
    fields: &mut Vec<(String, &'a Value)>,
) {
    for (name, value) in members {
        let at = join(path, name);
        match value {
            Value::Object(below)
                if !below.is_empty() && below.keys().all(|name| is_nameable(name)) =>
            {
                collect_fields(below, &at, fields);
            }
            _ => fields.push((at, value)),
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
    fn nobody_is_blamed_for_a_value_that_no_entry_left() {
        let document = json!({ "title": "Outside", "client": { "size": "2", "type": "Outside" } });
        let entries = [
            json!({ "id": "e2", "changes": [{ "field": "title", "oldValue": "Outside", "newValue": "B" }] }),
            json!({ "id": "e1", "changes": [
                { "field": "title", "newValue": "Outside" },
                { "field": "client", "newValue": { "size": "2", "type": "x" } },
            ] }),
        ];

        assert_eq!(
            blamed(&document, &entries),
            rows(&[
                ("title", None),
                ("client.size", Some("e1")),
                ("client.type", None),
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

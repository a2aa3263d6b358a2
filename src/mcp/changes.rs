//! Values and changes as summaries show them: written once for the log and for updates.

use serde_json::{Value, json};

use crate::domain::audit::Action;

/// Summaries hold only the beginning of longer values.
const MAX_VALUE_CHARS: usize = 200;

/// The changes of an entry with this action: a creation is one object with the title and the names
/// of the fields; other changes hold only the beginning of long values.
pub(super) fn summarize_changes(action: Option<&str>, mut changes: Value) -> Value {
    if action == Some(Action::Create.as_str())
        && let Some(created) = creation(&changes)
    {
        return json!([{ "created": created }]);
    }
    shorten(&mut changes);
    changes
}

/// Replaces long strings, and long arrays and objects among the changed values, by their beginning.
pub(super) fn shorten(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some(beginning) = beginning(text) {
                *value = beginning;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(shorten),
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                if matches!(name.as_str(), "oldValue" | "newValue") {
                    shorten_whole(member);
                } else {
                    shorten(member);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Replaces a long value by its beginning; an array or object by that of its JSON text.
pub(super) fn shorten_whole(value: &mut Value) {
    let beginning = match &*value {
        Value::String(text) => beginning(text),
        Value::Array(_) | Value::Object(_) | Value::Number(_) => beginning(&value.to_string()),
        Value::Null | Value::Bool(_) => None,
    };
    if let Some(beginning) = beginning {
        *value = beginning;
    }
}

/// The beginning of a long text, as an object: no string field accepts an object, so a model cannot
/// write it back by mistake.
fn beginning(text: &str) -> Option<Value> {
    let (end, _) = text.char_indices().nth(MAX_VALUE_CHARS)?;
    Some(json!({ "excerpt": text.get(..end), "characters": text.chars().count() }))
}

/// What a creation made, if its changes have the form that this program writes: each top-level field
/// whole, or the whole document at an empty path.
fn creation(changes: &Value) -> Option<Value> {
    let (mut title, mut fields) = (None, Vec::new());
    for change in changes.as_array()? {
        let field = change.get("field")?.as_str()?;
        if change.get("oldValue").is_some_and(|old| !old.is_null()) {
            return None;
        }
        let value = change.get("newValue")?;
        if field.is_empty() {
            let document = value.as_object()?;
            title = document.get("title");
            fields.extend(document.keys().map(String::as_str));
        } else {
            fields.push(field);
            title = title.or_else(|| (field == "title").then_some(value));
        }
    }
    let mut created = json!({ "fields": fields });
    if let (Some(title), Some(created)) = (title, created.as_object_mut()) {
        let mut title = title.clone();
        shorten_whole(&mut title);
        created.shift_insert(0, "title".to_owned(), title);
    }
    Some(created)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_creation_is_its_title_and_the_names_of_its_fields() {
        let fields =
            json!([{ "field": "id", "newValue": "a" }, { "field": "title", "newValue": "A" }]);
        let whole = json!([{ "field": "", "newValue": { "id": "a", "title": "A" } }]);

        for changes in [fields, whole] {
            assert_eq!(
                summarize_changes(Some("create"), changes),
                json!([{ "created": { "title": "A", "fields": ["id", "title"] } }])
            );
        }
    }

    #[test]
    fn changes_of_another_form_are_only_shortened() {
        let added = json!([{ "field": "title", "newValue": "A" }]);
        assert_eq!(summarize_changes(Some("update"), added.clone()), added);
        for foreign in [
            json!({ "title": "A" }),
            json!([{ "field": "title" }]),
            json!(5),
        ] {
            assert_eq!(summarize_changes(Some("create"), foreign.clone()), foreign);
        }
    }

    #[test]
    fn only_values_over_200_characters_are_shortened() {
        let (longest, longer) = ("é".repeat(200), "é".repeat(201));
        let list = json!([longest]);
        let changes = json!([{ "field": "a", "oldValue": longest, "newValue": longer }, { "field": "b", "newValue": list }]);

        let short = summarize_changes(Some("update"), changes);

        assert_eq!(short[0]["oldValue"], longest.as_str());
        assert_eq!(
            short[0]["newValue"],
            json!({ "excerpt": longest, "characters": 201 })
        );
        assert_eq!(short[1]["newValue"]["characters"], 204);
    }
}

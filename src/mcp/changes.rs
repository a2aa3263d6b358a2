//! Values and changes as summaries show them: written once for the log and for updates.

use serde_json::{Map, Value, json};

use super::output::answer_text;
use crate::domain::{Kind, content_type::rules, edit_to_take_back, text::compact_json};

/// Summaries hold only the beginning of longer values.
const MAX_VALUE_CHARS: usize = 200;

/// A summary names this many fields.
const MAX_NAMES: usize = 20;

/// The first names, and the number of the others.
pub(super) fn limit_names(mut names: impl Iterator<Item = impl Into<Value>>) -> Vec<Value> {
    let first = names.by_ref().take(MAX_NAMES).map(Into::into);
    let mut limited: Vec<Value> = first.collect();
    limited.iter_mut().for_each(shorten);
    match names.count() {
        0 => {}
        more => limited.push(json!(format!("and {more} more"))),
    }
    limited
}

/// The first changes that fit in `room` bytes, and the number of the others. Older programs stored
/// an object of fields in their place.
pub(super) fn fitting_changes(changes: Value, room: usize) -> (Value, usize) {
    let mut bytes = 0;
    let mut fits = |text: String| {
        bytes += text.len() + 1;
        bytes <= room
    };
    match changes {
        Value::Array(mut items) => {
            let fitting = items.iter().take_while(|item| fits(answer_text(item)));
            let (count, all) = (fitting.count(), items.len());
            items.truncate(count);
            (Value::Array(items), all - count)
        }
        Value::Object(members) => {
            let all = members.len();
            let fitting: Map<String, Value> = members
                .into_iter()
                .take_while(|member| fits(answer_text(member)))
                .collect();
            let more = all - fitting.len();
            (Value::Object(fitting), more)
        }
        other => (other, 0),
    }
}

/// The changes of an entry about a document of this kind, with this action: a creation or a deletion,
/// which an undo or what was found may be too, is one object with the title and the names of the
/// fields; other changes hold only the beginning of long values, or the edit that takes back the
/// change of a long text.
pub(super) fn summarize_changes(
    kind: Option<Kind>,
    action: Option<&str>,
    mut changes: Value,
) -> Value {
    let created = || {
        let created = whole_document(&changes, "newValue", "oldValue")?;
        Some(json!([{ "created": created }]))
    };
    let deleted = || {
        let deleted = whole_document(&changes, "oldValue", "newValue")?;
        Some(json!([{ "deleted": deleted }]))
    };
    let whole = match action {
        Some("create") => created(),
        Some("delete") => deleted(),
        Some("revert") if names(&changes, &["", "id"]) => created().or_else(deleted),
        // At an empty path is what was found of a document that nobody knows from before.
        Some("adopt") if names(&changes, &["id"]) => created().or_else(deleted),
        _ => None,
    };
    whole.unwrap_or_else(|| {
        shorten_members(kind, &mut changes);
        changes
    })
}

/// Whether these changes, as [`summarize_changes`] shows them, create the document.
pub(super) fn is_creation(changes: &Value) -> bool {
    let first = changes.get(0);
    first.is_some_and(|change| change.get("created").is_some())
}

/// Whether one of these fields was changed. The id comes and goes with the document.
fn names(changes: &Value, fields: &[&str]) -> bool {
    let mut changes = changes.as_array().into_iter().flatten();
    changes.any(|change| {
        let field = change.get("field").and_then(Value::as_str);
        field.is_some_and(|field| fields.contains(&field))
    })
}

/// Replaces long values by their beginning, in a list of changes or in what an older program stored
/// in its place.
fn shorten_members(kind: Option<Kind>, changes: &mut Value) {
    match changes {
        Value::Array(items) => {
            for item in items {
                match item {
                    Value::Object(members) => {
                        if let Some(undo) = kind.and_then(|kind| undo_edit(kind, members)) {
                            *item = undo;
                        } else {
                            members.values_mut().for_each(shorten);
                        }
                    }
                    item => shorten(item),
                }
            }
        }
        Value::Object(members) => members.values_mut().for_each(shorten),
        other => shorten(other),
    }
}

/// The change of a long text as the edit that takes it back, if the text changed in one place and may
/// be edited.
fn undo_edit(kind: Kind, change: &Map<String, Value>) -> Option<Value> {
    let text = |name: &str| change.get(name)?.as_str();
    let (path, old, new) = (text("field")?, text("oldValue")?, text("newValue")?);
    let is_long = |text: &str| text.chars().nth(MAX_VALUE_CHARS).is_some();
    if rules(kind).editable_type(path)? != "string" || !(is_long(old) || is_long(new)) {
        return None;
    }
    let edit = edit_to_take_back(path, old, new, MAX_VALUE_CHARS)?;
    Some(json!({ "field": path, "undoEdit": edit }))
}

/// Replaces a long value by its beginning; an array or object by that of its JSON text.
pub(super) fn shorten(value: &mut Value) {
    let beginning = match &*value {
        Value::String(text) => beginning(text),
        Value::Array(_) | Value::Object(_) | Value::Number(_) => beginning(&compact_json(value)),
        Value::Null | Value::Bool(_) => None,
    };
    if let Some(beginning) = beginning {
        *value = beginning;
    }
}

/// The beginning of a long text, as an object: no string field accepts an object, so a model cannot
/// write it back by mistake.
fn beginning(text: &str) -> Option<Value> {
    if text.len() <= MAX_VALUE_CHARS {
        return None; // a character has at least one byte
    }
    let (end, _) = text.char_indices().nth(MAX_VALUE_CHARS)?;
    Some(json!({ "excerpt": text.get(..end), "characters": text.chars().count() }))
}

/// The title and the names of the fields of a document that was written or deleted whole, if its
/// changes have the form that this program writes: each top-level field, or the whole document at an
/// empty path. Its values are those of the member `at`, and there is no `other`.
fn whole_document(changes: &Value, at: &str, other: &str) -> Option<Value> {
    let (mut title, mut fields) = (None, Vec::new());
    for change in changes.as_array().filter(|changes| !changes.is_empty())? {
        let field = change.get("field")?.as_str()?;
        if change.get(other).is_some_and(|value| !value.is_null()) {
            return None;
        }
        let value = change.get(at)?;
        if field.is_empty() {
            let document = value.as_object()?;
            title = document.get("title");
            fields.extend(document.keys().map(String::as_str));
        } else {
            fields.push(field);
            title = title.or_else(|| (field == "title").then_some(value));
        }
    }
    let mut found = json!({ "fields": limit_names(fields.into_iter()) });
    if let (Some(title), Some(found)) = (title, found.as_object_mut()) {
        let mut title = title.clone();
        shorten(&mut title);
        found.shift_insert(0, "title".to_owned(), title);
    }
    Some(found)
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
                summarize_changes(Some(Kind::Project), Some("create"), changes),
                json!([{ "created": { "title": "A", "fields": ["id", "title"] } }])
            );
        }
    }

    #[test]
    fn a_deletion_is_what_was_deleted() {
        let changes =
            json!([{ "field": "id", "oldValue": "a" }, { "field": "title", "oldValue": "A" }]);

        assert_eq!(
            summarize_changes(Some(Kind::Project), Some("delete"), changes.clone()),
            json!([{ "deleted": { "title": "A", "fields": ["id", "title"] } }])
        );
        assert_eq!(
            summarize_changes(Some(Kind::Project), Some("create"), changes.clone()),
            changes
        );
    }

    #[test]
    fn an_undo_creates_or_deletes_a_document_if_it_changes_the_id() {
        let reverted = |changes: &Value| {
            summarize_changes(Some(Kind::Project), Some("revert"), changes.clone())
        };
        let back =
            json!([{ "field": "id", "newValue": "a" }, { "field": "title", "newValue": "A" }]);
        let gone =
            json!([{ "field": "id", "oldValue": "a" }, { "field": "title", "oldValue": "A" }]);
        let field = json!([{ "field": "image", "newValue": "/a.png" }]);

        let summary = json!({ "title": "A", "fields": ["id", "title"] });
        assert_eq!(reverted(&back), json!([{ "created": summary }]));
        assert_eq!(reverted(&gone), json!([{ "deleted": summary }]));
        assert_eq!(reverted(&field), field);
    }

    #[test]
    fn a_document_that_appeared_or_disappeared_outside_is_shown_like_a_creation_or_a_deletion() {
        let adopted = |changes: &Value| {
            summarize_changes(Some(Kind::Project), Some("adopt"), changes.clone())
        };
        let found =
            json!([{ "field": "id", "newValue": "a" }, { "field": "title", "newValue": "A" }]);
        let gone =
            json!([{ "field": "id", "oldValue": "a" }, { "field": "title", "oldValue": "A" }]);
        let edited = json!([{ "field": "image", "newValue": "/a.png" }]);
        let of_unknown_origin = json!([{ "field": "", "newValue": { "id": "a" } }]);

        let summary = json!({ "title": "A", "fields": ["id", "title"] });
        assert_eq!(adopted(&found), json!([{ "created": summary }]));
        assert_eq!(adopted(&gone), json!([{ "deleted": summary }]));
        assert_eq!(adopted(&edited), edited);
        assert_eq!(adopted(&of_unknown_origin), of_unknown_origin);
    }

    #[test]
    fn what_older_programs_stored_as_changes_is_shortened_too() {
        let long = json!(vec!["a"; 1000]);
        let stored = [
            json!({ "results": long, "image": "x" }),
            json!([{ "path": "image", "before": "x", "after": long }]),
            json!([long, "image"]),
            json!("x".repeat(201)),
        ];

        for changes in stored {
            let short = summarize_changes(Some(Kind::Project), Some("save"), changes);

            assert!(short.to_string().len() < 400, "{short}");
            assert!(short.to_string().contains("characters"), "{short}");
        }
        assert_eq!(
            summarize_changes(Some(Kind::Project), Some("delete"), json!({})),
            json!({})
        );
    }

    #[test]
    fn changes_of_another_form_are_only_shortened() {
        let added = json!([{ "field": "title", "newValue": "A" }]);
        assert_eq!(
            summarize_changes(Some(Kind::Project), Some("update"), added.clone()),
            added
        );
        for foreign in [
            json!({ "title": "A" }),
            json!([{ "field": "title" }]),
            json!(5),
        ] {
            assert_eq!(
                summarize_changes(Some(Kind::Project), Some("create"), foreign.clone()),
                foreign
            );
        }
    }

    #[test]
    fn only_values_over_200_characters_are_shortened() {
        let (longest, longer) = ("é".repeat(200), "é".repeat(201));
        let list = json!([longest]);
        let changes = json!([{ "field": "a", "oldValue": longest, "newValue": longer }, { "field": "b", "newValue": list }]);

        let short = summarize_changes(Some(Kind::Project), Some("update"), changes);

        assert_eq!(short[0]["oldValue"], longest.as_str());
        assert_eq!(
            short[0]["newValue"],
            json!({ "excerpt": longest, "characters": 201 })
        );
        assert_eq!(short[1]["newValue"]["characters"], 204);
    }
}

//! A document or its absence, the values in it, and the fields that the server sets by itself.

use serde_json::{Map, Value};

use crate::domain::{
    change::STATUSES,
    diff::{self, FieldChange},
    number::is_same,
};

/// A document; `None` where there is none.
pub(in crate::domain) type State = Option<Value>;

/// The times that the server keeps in `metadata`.
pub(super) const TIMES: [&str; 2] = ["createdAt", "updatedAt"];

/// The value at a dotted path; the empty path is the whole document.
pub(in crate::domain) fn value_at<'a>(state: &'a State, path: &str) -> Option<&'a Value> {
    let document = state.as_ref()?;
    if path.is_empty() {
        return Some(document);
    }
    path.split('.')
        .try_fold(document, |value, name| value.get(name))
}

/// Sets or removes the value at a dotted path, whose parent is there.
pub(super) fn set(state: &mut State, path: &str, value: Option<&Value>) {
    if path.is_empty() {
        *state = value.cloned();
        return;
    }
    let (above, name) = path.rsplit_once('.').unwrap_or(("", path));
    let mut names = above.split('.').filter(|name| !name.is_empty());
    let parent = state
        .as_mut()
        .and_then(|document| names.try_fold(document, |value, name| value.get_mut(name)));
    if let Some(Value::Object(members)) = parent {
        match value {
            Some(value) => members.insert(name.to_owned(), value.clone()),
            None => members.shift_remove(name),
        };
    }
}

/// Whether the server made this change by itself, and not because somebody asked for it; `after` is
/// the document that it led to.
pub(super) fn is_server_set(change: &FieldChange, after: &State) -> bool {
    let replaced = change.old_value.is_some() && change.new_value.is_some();
    let metadata = |name: &str| value_at(after, "metadata").and_then(|it| it.get(name));
    match change.field.as_str() {
        "metadata.createdAt" | "metadata.updatedAt" => true,
        "published" => {
            let status = metadata("status").and_then(Value::as_str);
            replaced && status.is_some_and(|status| STATUSES.contains(&status))
        }
        "createdAt" | "updatedAt" => replaced && metadata(&change.field).is_some(),
        "metadata" => match (
            without_times(change.old_value.as_ref()),
            without_times(change.new_value.as_ref()),
        ) {
            (Some(old), Some(new)) => is_same(&old, &new),
            _ => false,
        },
        _ => false,
    }
}

/// What a value of `metadata` says beside the times, where absence says nothing; `None` if it is no
/// object.
fn without_times(metadata: Option<&Value>) -> Option<Value> {
    let mut members = match metadata {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(members)) => members.clone(),
        Some(_) => return None,
    };
    for name in TIMES {
        members.shift_remove(name);
    }
    Some(Value::Object(members))
}

/// What differs between two states, but for what the server sets by itself.
pub(in crate::domain) fn differences(before: &State, after: &State) -> Vec<FieldChange> {
    let mut changes = match (before, after) {
        (Some(Value::Object(before)), Some(Value::Object(after))) => diff::diff(before, after),
        (None, None) => Vec::new(),
        _ => vec![FieldChange {
            field: String::new(),
            old_value: before.clone(),
            new_value: after.clone(),
        }],
    };
    changes.retain(|change| !is_server_set(change, after));
    changes
}

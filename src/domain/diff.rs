//! Differences of JSON objects: dotted paths with the value before and after.
//!
//! The new document follows from the old one and the difference, and the old one from the new.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::number::{is_same, is_same_member};

/// One field that a write changed; an absent value means that the field was not there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldChange {
    /// Dotted path of the field; empty for the whole document.
    pub field: String,
    /// The value before.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    pub old_value: Option<Value>,
    /// The value after.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    pub new_value: Option<Value>,
}

impl FieldChange {
    /// The change that a member of an entry's `changes` records, if it has the form of one. serde
    /// would pass the numbers on by their value, and not as they are written.
    #[must_use]
    pub fn of_json(json: &Value) -> Option<Self> {
        Some(Self {
            field: json.get("field")?.as_str()?.to_owned(),
            old_value: json.get("oldValue").cloned(),
            new_value: json.get("newValue").cloned(),
        })
    }
}

/// Keeps `null` apart from absence.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Every difference between two documents: objects member by member, everything else whole. Equal
/// numbers are no difference, however they are written.
///
/// A member whose name holds a dot, or is empty, has no path of its own, so its parent is compared
/// whole.
#[must_use]
pub fn diff(old: &Map<String, Value>, new: &Map<String, Value>) -> Vec<FieldChange> {
    diff_among(old, new, |_| true)
}

/// As [`diff`], but only for the top-level members that `may_differ`; all others are known to be
/// equal.
#[must_use]
pub fn diff_among(
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    may_differ: impl Fn(&str) -> bool,
) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    diff_members(old, new, "", &may_differ, &mut changes);
    changes
}

/// Whether a dotted path can contain this name.
pub(super) fn is_nameable(name: &str) -> bool {
    !unnameable(name)
}

/// Whether a dotted path cannot contain this name.
fn unnameable(name: &str) -> bool {
    name.is_empty() || name.contains('.')
}

fn diff_members(
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    path: &str,
    may_differ: &dyn Fn(&str) -> bool,
    changes: &mut Vec<FieldChange>,
) {
    if old
        .keys()
        .chain(new.keys())
        .any(|name| unnameable(name) && !is_same_member(old.get(name), new.get(name)))
    {
        changes.push(FieldChange {
            field: path.to_owned(),
            old_value: Some(Value::Object(old.clone())),
            new_value: Some(Value::Object(new.clone())),
        });
        return;
    }
    let at = |name: &str| {
        if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        }
    };
    for (name, before) in old.iter().filter(|(name, _)| may_differ(name)) {
        match (before, new.get(name)) {
            (_, Some(after)) if is_same(before, after) => {}
            (Value::Object(before), Some(Value::Object(after))) => {
                diff_members(before, after, &at(name), &|_| true, changes);
            }
            (_, after) => changes.push(FieldChange {
                field: at(name),
                old_value: Some(before.clone()),
                new_value: after.cloned(),
            }),
        }
    }
    for (name, after) in new.iter().filter(|(name, _)| may_differ(name)) {
        if !old.contains_key(name) {
            changes.push(FieldChange {
                field: at(name),
                old_value: None,
                new_value: Some(after.clone()),
            });
        }
    }
}

/// The change of a document as a whole.
#[must_use]
pub fn whole(old: Option<&Map<String, Value>>, new: Option<&Map<String, Value>>) -> FieldChange {
    let value = |document: &Map<String, Value>| Value::Object(document.clone());
    FieldChange {
        field: String::new(),
        old_value: old.map(value),
        new_value: new.map(value),
    }
}

/// Every top-level field of a document that was not there before, whole; or the document whole, if
/// a name has no path.
#[must_use]
pub fn creation(document: &Map<String, Value>) -> Vec<FieldChange> {
    if document.keys().any(|name| unnameable(name)) {
        return vec![whole(None, Some(document))];
    }
    document
        .iter()
        .map(|(name, value)| FieldChange {
            field: name.clone(),
            old_value: None,
            new_value: Some(value.clone()),
        })
        .collect()
}

/// Every top-level field of a document that is not there any more, whole; or the document whole, if
/// a name has no path.
#[must_use]
pub fn deletion(document: &Map<String, Value>) -> Vec<FieldChange> {
    let gone = |change: FieldChange| FieldChange {
        field: change.field,
        old_value: change.new_value,
        new_value: None,
    };
    creation(document).into_iter().map(gone).collect()
}

/// The document that an update's `changes` lead to. New fields come last, as merging a patch puts
/// them.
#[must_use]
pub fn apply(mut document: Map<String, Value>, changes: &[FieldChange]) -> Map<String, Value> {
    for change in changes {
        set(&mut document, &change.field, change.new_value.as_ref());
    }
    document
}

/// The document that an update's `changes` came from.
#[must_use]
pub fn revert(document: &Map<String, Value>, changes: &[FieldChange]) -> Map<String, Value> {
    let mut result = document.clone();
    for change in changes.iter().rev() {
        set(&mut result, &change.field, change.old_value.as_ref());
    }
    result
}

fn set(document: &mut Map<String, Value>, path: &str, value: Option<&Value>) {
    if path.is_empty() {
        *document = value
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        return;
    }
    match (path.split_once('.'), value) {
        (Some((name, below)), _) => {
            if let Some(Value::Object(members)) = document.get_mut(name) {
                set(members, below, value);
            }
        }
        (None, Some(value)) => {
            document.insert(path.to_owned(), value.clone());
        }
        (None, None) => {
            document.shift_remove(path);
        }
    }
}

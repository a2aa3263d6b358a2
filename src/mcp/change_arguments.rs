//! The argument `changes`: a list of updates, each with arguments of its own.

use std::collections::HashMap;

use rmcp::model::JsonObject;
use serde_json::Value;

use crate::domain::{Violation, patch::parse_json_string, text::truncate};

/// Its name.
const CHANGES: &str = "changes";

/// Reads a list of updates as clients send it: it or its elements as strings, and `null` for what is
/// absent. `normalize` does the rest for the members of each.
pub(super) fn normalize(arguments: &mut JsonObject, normalize: impl Fn(&mut JsonObject)) {
    let Some(changes) = arguments.get_mut(CHANGES) else {
        return;
    };
    parse_json_string(changes, Value::is_array);
    for change in changes.as_array_mut().into_iter().flatten() {
        parse_json_string(change, Value::is_object);
        if let Some(members) = change.as_object_mut() {
            members.retain(|_, value| !value.is_null());
            normalize(members);
        }
    }
}

/// The path of one update, and the rest of a path within it: `changes[3]` and `edits[0].at`.
pub(super) fn split(path: &str) -> Option<(&str, &str)> {
    let (index, rest) = path.strip_prefix(CHANGES)?.split_once("].")?;
    index.strip_prefix('[')?.parse::<usize>().ok()?;
    let change = path.get(..path.len() - rest.len() - 1)?;
    Some((change, rest))
}

/// What the schema of a tool's arguments declares for an update of the list.
pub(super) fn properties(schema: &JsonObject) -> Option<&JsonObject> {
    let changes = schema.get("properties")?.get(CHANGES)?;
    changes.get("items")?.get("properties")?.as_object()
}

/// What no schema says: each update changes something, and each another document.
pub(super) fn violations(arguments: &Value) -> Vec<Violation> {
    let changes = arguments.get(CHANGES).and_then(Value::as_array);
    let (mut found, mut first) = (Vec::new(), HashMap::new());
    for (index, change) in changes.into_iter().flatten().enumerate() {
        if change.is_object() && change.get("data").is_none() && change.get("edits").is_none() {
            let message = "missing; send the fields to change as `data`, or `edits` of their parts";
            found.push(Violation::new(
                format!("{CHANGES}[{index}].data"),
                "required",
                message,
            ));
        }
        let text = |name: &str| change.get(name).and_then(Value::as_str);
        let (Some(kind), Some(id)) = (text("entityType"), text("id")) else {
            continue;
        };
        let earlier = *first.entry((kind, id)).or_insert(index);
        if earlier != index {
            let message = format!(
                "{} `{}` is in {CHANGES}[{earlier}] too; send all changes of a document as one",
                truncate(kind),
                truncate(id)
            );
            found.push(Violation::new(
                format!("{CHANGES}[{index}].id"),
                "unique",
                message,
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_within_a_change_is_split_from_it() {
        assert_eq!(
            split("changes[12].edits[0].at"),
            Some(("changes[12]", "edits[0].at"))
        );
        assert_eq!(split("changes[0].a].b"), Some(("changes[0]", "a].b")));
        for path in [
            "changes",
            "changes[0]",
            "changes[x].id",
            "data.id",
            "changesx[0].id",
        ] {
            assert_eq!(split(path), None, "{path}");
        }
    }
}

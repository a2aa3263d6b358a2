//! Dotted paths of fields: `client.size`.

use serde_json::{Map, Value};

/// The time of creation.
pub(super) const CREATED_AT: &str = "metadata.createdAt";

/// Fields that the server owns. Callers cannot set them, so no caller is refused for them.
const READ_ONLY_FIELDS: [&str; 3] = ["id", CREATED_AT, "metadata.updatedAt"];

/// Whether the server owns the field at `path`.
#[must_use]
pub(super) fn is_owned(path: &str) -> bool {
    READ_ONLY_FIELDS.contains(&path)
}

/// The path of the member `name` of what is at `path`.
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// Whether the field at `path` is the one at `above`, or a part of it. The empty path is the whole
/// document.
pub(super) fn is_within(path: &str, above: &str) -> bool {
    above.is_empty()
        || path
            .strip_prefix(above)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Whether two dotted paths are the same, or one leads to the other.
#[must_use]
pub fn overlap(path: &str, other: &str) -> bool {
    is_within(path, other) || is_within(other, path)
}

/// The last name of a path.
pub(super) fn last_name(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// What a document has at `path`.
pub(super) fn field<'a>(document: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    match path.split_once('.') {
        Some((name, below)) => field(document.get(name)?.as_object()?, below),
        None => document.get(path),
    }
}

/// The same, to be changed.
pub(super) fn field_mut<'a>(
    document: &'a mut Map<String, Value>,
    path: &str,
) -> Option<&'a mut Value> {
    match path.split_once('.') {
        Some((name, below)) => field_mut(document.get_mut(name)?.as_object_mut()?, below),
        None => document.get_mut(path),
    }
}

/// What `schema` declares at `path`.
pub(super) fn declared<'a>(schema: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.')
        .try_fold(schema, |schema, name| properties(schema)?.get(name))
}

/// The members that `schema` declares for an object.
pub(super) fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    schema.get("properties")?.as_object()
}

/// Every path that `schema` declares, at every depth, in its order.
pub(super) fn declared_paths(schema: &Value) -> Vec<String> {
    let mut paths = Vec::new();
    collect_paths(schema, "", &mut paths);
    paths
}

fn collect_paths(schema: &Value, path: &str, paths: &mut Vec<String>) {
    for (name, property) in properties(schema).into_iter().flatten() {
        let at = join(path, name);
        paths.push(at.clone());
        collect_paths(property, &at, paths);
    }
}

/// Whether `schema` declares an optional field at `path`.
pub(super) fn is_optional(schema: &Value, path: &str) -> bool {
    let (name, rest) = path
        .split_once('.')
        .map_or((path, None), |(name, rest)| (name, Some(rest)));
    let Some(property) = properties(schema).and_then(|properties| properties.get(name)) else {
        return false;
    };
    match rest {
        Some(rest) => is_optional(property, rest),
        None => !is_required(schema, name),
    }
}

pub(super) fn is_required(schema: &Value, name: &str) -> bool {
    let required = schema.get("required").and_then(Value::as_array);
    required.is_some_and(|required| required.iter().any(|entry| entry == name))
}

/// Whether `patch` names no field of its own: it has no members, or only objects without any, where
/// `schema` declares objects.
pub(super) fn names_nothing(schema: &Value, patch: &Map<String, Value>) -> bool {
    patch.iter().all(|(name, value)| {
        let property = properties(schema).and_then(|properties| properties.get(name));
        match (property, value) {
            (Some(property), Value::Object(members)) => {
                properties(property).is_some() && names_nothing(property, members)
            }
            _ => false,
        }
    })
}

/// `members` in the order in which `schema` declares them, at every depth; the others come last.
pub(super) fn ordered(schema: &Value, mut members: Map<String, Value>) -> Map<String, Value> {
    let mut ordered_members = Map::with_capacity(members.len());
    for (name, property) in properties(schema).into_iter().flatten() {
        let Some(value) = members.shift_remove(name) else {
            continue;
        };
        let value = match value {
            Value::Object(below) => Value::Object(ordered(property, below)),
            other => other,
        };
        ordered_members.insert(name.clone(), value);
    }
    ordered_members.extend(members);
    ordered_members
}

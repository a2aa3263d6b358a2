//! Fields of a patch that nobody may set: unknown ones, with the field that was meant, and those of
//! the server or of other programs.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::{
    field_path::{
        CREATED_AT, declared, declared_paths, field, is_owned, join, last_name, properties,
    },
    number::is_same,
    similar::{is_same_name, is_typo, nearest, with_same_end},
    timestamp::Timestamp,
    violation::Violation,
};

/// A message names this many fields that may have been meant.
const MAX_CANDIDATES: usize = 3;

/// What older programs derived from `metadata` at the top level, and from what.
const DERIVED_STATUS: (&str, &str) = ("published", "metadata.status");

const UNKNOWN: &str = "unknown field";
const LEAVE_OUT: &str = "set by the server; leave it out";

const REPAIR: &str = "the stored time cannot be read; send an RFC 3339 time such as `2026-11-22T10:15:30Z`, or leave it out";

/// The members of `patch` that `schema` does not declare, or that only the server sets.
///
/// A member that is equal to the stored one is accepted: clients send back whole documents.
pub(super) fn unknown_fields(
    schema: &Value,
    patch: &Map<String, Value>,
    stored: &Map<String, Value>,
) -> Vec<Violation> {
    let mut search = Search {
        schema,
        found: Vec::new(),
    };
    search.visit(schema, patch, Some(stored), "");
    search.found
}

/// Why no edit may change the field at `path`, which `schema` does not declare or the server owns.
pub(super) fn not_editable(schema: &Value, path: &str, document: &Map<String, Value>) -> Violation {
    if is_owned(path) {
        return Violation::new(path, "owned", "set by the server; no tool changes it");
    }
    let search = Search {
        schema,
        found: Vec::new(),
    };
    let Some((parent, name, siblings)) = siblings_of(schema, path) else {
        return Violation::new(path, "unknown", UNKNOWN);
    };
    if field(document, path).is_some() {
        return search.foreign(path.to_owned(), name);
    }
    let candidates = search.candidates(parent, name, siblings);
    if candidates.is_empty() {
        return search.unknown(path.to_owned(), parent, name, siblings);
    }
    Violation {
        suggestion: candidates.first().cloned(),
        ..Violation::new(path, "unknown", did_you_mean(&candidates))
    }
}

/// The other field that a reader of the one at `path` may have meant.
pub(super) fn meant(schema: &Value, path: &str) -> Option<String> {
    let search = Search {
        schema,
        found: Vec::new(),
    };
    let (parent, name, siblings) = siblings_of(schema, path)?;
    let candidates = search.candidates(parent, name, siblings);
    let meant = candidates.into_iter().next();
    meant
        .or_else(|| search.owned_name(name))
        .filter(|meant| meant != path)
}

/// Where a field belongs: the path of its parent, if that is declared, its name, and what is declared
/// beside it.
fn siblings_of<'a>(
    schema: &'a Value,
    path: &'a str,
) -> Option<(&'a str, &'a str, &'a Map<String, Value>)> {
    let nested = path.rsplit_once('.').and_then(|(parent, name)| {
        let members = declared(schema, parent).and_then(properties)?;
        Some((parent, name, members))
    });
    nested.or_else(|| Some(("", path, properties(schema)?)))
}

struct Search<'a> {
    /// That of the whole document.
    schema: &'a Value,
    found: Vec<Violation>,
}

impl Search<'_> {
    fn visit(
        &mut self,
        schema: &Value,
        named: &Map<String, Value>,
        stored: Option<&Map<String, Value>>,
        path: &str,
    ) {
        let Some(properties) = properties(schema) else {
            return;
        };
        for (name, value) in named {
            let (there, at) = (stored.and_then(|stored| stored.get(name)), join(path, name));
            if there.is_some_and(|there| is_same(there, value)) {
                continue;
            }
            match (properties.get(name), value) {
                _ if at == "id" => self.add_owned(at, "an id never changes; leave it out"),
                _ if at == CREATED_AT && there.is_some_and(is_unreadable_time) => {
                    if !value.as_str().is_some_and(is_time) {
                        self.add_owned(at, REPAIR);
                    }
                }
                _ if is_owned(&at) => self.add_owned(at, LEAVE_OUT),
                (None, _) => {
                    let violation = match there {
                        Some(_) => self.foreign(at, name),
                        None => self.unknown(at, path, name, properties),
                    };
                    self.found.push(violation);
                }
                (Some(property), Value::Object(members)) => {
                    self.visit(property, members, there.and_then(Value::as_object), &at);
                }
                (Some(_), _) => {}
            }
        }
    }

    fn add_owned(&mut self, path: String, message: &str) {
        self.found.push(Violation::new(path, "owned", message));
    }

    /// A field that the document has, and that is not declared.
    fn foreign(&self, path: String, name: &str) -> Violation {
        if path == DERIVED_STATUS.0 {
            return derived_status(path);
        }
        if path == name && self.owned_name(name).is_some() {
            return Violation::new(path, "owned", LEAVE_OUT);
        }
        let message = "the document has this field, but this tool does not edit it; leave it out";
        Violation::new(path, "foreign", message)
    }

    fn unknown(
        &self,
        path: String,
        parent: &str,
        name: &str,
        siblings: &Map<String, Value>,
    ) -> Violation {
        let candidates = self.candidates(parent, name, siblings);
        if !candidates.is_empty() {
            return misplaced(path, parent, &candidates);
        }
        if path == DERIVED_STATUS.0 {
            return derived_status(path);
        }
        match self.owned_name(name) {
            Some(owned) => {
                let message = format!("`{owned}` is set by the server; leave it out");
                Violation::new(path, "owned", message)
            }
            None => Violation::new(path, "unknown", UNKNOWN),
        }
    }

    /// The field of the server that has this name, other than `id`.
    fn owned_name(&self, name: &str) -> Option<String> {
        declared_paths(self.schema)
            .into_iter()
            .find(|path| path != "id" && is_owned(path) && is_same_name(name, last_name(path)))
    }

    /// The fields that may have been meant by `name` below `parent`, the most likely first.
    fn candidates(&self, parent: &str, name: &str, siblings: &Map<String, Value>) -> Vec<String> {
        let name = without_index(name);
        let siblings: Vec<&str> = siblings
            .keys()
            .map(String::as_str)
            .filter(|sibling| !is_owned(&join(parent, sibling)))
            .collect();
        let sibling = |name: Option<&str>| name.map(|name| vec![join(parent, name)]);
        let same = siblings
            .iter()
            .copied()
            .find(|sibling| is_same_name(name, sibling));
        let elsewhere: Vec<String> = declared_paths(self.schema)
            .into_iter()
            .filter(|path| !is_owned(path))
            .collect();
        sibling(same)
            .or_else(|| equally_named(&elsewhere, parent, name))
            .or_else(|| sibling(nearest(name, siblings.iter().copied()).as_deref()))
            .or_else(|| similarly_named(&elsewhere, name))
            .unwrap_or_default()
    }
}

/// A time that the server cannot keep up, so that a caller may replace it.
fn is_unreadable_time(value: &Value) -> bool {
    !value.is_null() && Timestamp::from_json(value).is_none()
}

fn is_time(text: &str) -> bool {
    Timestamp::parse(text).is_some()
}

/// The fields elsewhere that have this whole path, else this name, the least nested first.
fn equally_named(paths: &[String], parent: &str, name: &str) -> Option<Vec<String>> {
    let whole = join(parent, name);
    let matching = |matches: &dyn Fn(&str) -> bool| -> Option<Vec<String>> {
        let mut found: Vec<String> = paths
            .iter()
            .filter(|path| matches(path))
            .take(MAX_CANDIDATES)
            .cloned()
            .collect();
        found.sort_by_key(|path| path.matches('.').count());
        (!found.is_empty()).then_some(found)
    };
    matching(&|path| is_same_name(&whole, path))
        .or_else(|| matching(&|path| is_same_name(name, path)))
        .or_else(|| matching(&|path| is_same_name(name, last_name(path))))
}

fn similarly_named(paths: &[String], name: &str) -> Option<Vec<String>> {
    let typo = paths.iter().find(|path| is_typo(name, last_name(path)));
    let found = typo.cloned().or_else(|| {
        let names = paths.iter().map(|path| last_name(path));
        let end = with_same_end(name, names)?;
        paths.iter().find(|path| last_name(path) == end).cloned()
    });
    found.map(|path| vec![path])
}

/// `tags` for `tags[0]` and `tags.0`.
fn without_index(name: &str) -> &str {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let indexed = name
        .strip_suffix(']')
        .and_then(|rest| rest.rsplit_once('['))
        .or_else(|| name.rsplit_once('.'));
    match indexed {
        Some((list, index)) if digits(index) => list,
        _ => name,
    }
}

fn derived_status(path: String) -> Violation {
    let (_, status) = DERIVED_STATUS;
    Violation {
        suggestion: Some(status.to_owned()),
        ..Violation::new(path, "foreign", format!("follows `{status}`; change that"))
    }
}

/// An unknown field, with the fields that may have been meant.
fn misplaced(path: String, parent: &str, candidates: &[String]) -> Violation {
    let mut message = did_you_mean(candidates);
    if let [candidate] = candidates
        && !is_member_of(parent, candidate)
    {
        let _ = write!(message, " Send `{}`", nested(candidate));
    }
    if without_index(&path) != path {
        message += " A list is replaced whole";
    }
    Violation {
        suggestion: candidates.first().cloned(),
        ..Violation::new(path, "unknown", message)
    }
}

fn did_you_mean(candidates: &[String]) -> String {
    let names: Vec<String> = candidates
        .iter()
        .map(|candidate| format!("`{candidate}`"))
        .collect();
    format!("{UNKNOWN}; did you mean {}?", names.join(" or "))
}

fn is_member_of(parent: &str, path: &str) -> bool {
    path.rsplit_once('.').map_or("", |(above, _)| above) == parent
}

/// How a patch names the field at `path`: `{"client":{"size":…}}`.
fn nested(path: &str) -> String {
    path.rsplit('.').fold("…".to_owned(), |below, name| {
        format!("{{\"{name}\":{below}}}")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::{content_type::rules, kind::Kind};

    /// What is said about `patch` of a project that is stored as `stored`.
    fn violations(patch: &Value, stored: &Value) -> Vec<Violation> {
        let object = |value: &Value| value.as_object().unwrap().clone();
        rules(Kind::Project).unknown_fields(&object(patch), &object(stored))
    }

    fn suggestion(patch: &Value) -> Option<String> {
        let found = violations(patch, &json!({}));
        assert_eq!(found.len(), 1, "{patch}: {found:?}");
        found[0].suggestion.clone()
    }

    #[test]
    fn a_field_that_was_meant_is_suggested_with_its_path() {
        for (patch, meant) in [
            (json!({ "titel": 1 }), "title"),
            (json!({ "TITLE": 1 }), "title"),
            (json!({ "tag": 1 }), "tags"),
            (json!({ "status": 1 }), "metadata.status"),
            (json!({ "Status": 1 }), "metadata.status"),
            (json!({ "client.size": 1 }), "client.size"),
            (json!({ "client/size": 1 }), "client.size"),
            (json!({ "clientSize": 1 }), "client.size"),
            (json!({ "client_size": 1 }), "client.size"),
            (json!({ "size": 1 }), "client.size"),
            (json!({ "video_url": 1 }), "solution.videoUrl"),
            (json!({ "screenshot": 1 }), "solution.screenshots"),
            (
                json!({ "solution": { "Features[0]": 1 } }),
                "solution.features",
            ),
            (json!({ "tags[0]": 1 }), "tags"),
            (json!({ "solution.features.1": 1 }), "solution.features"),
            (json!({ "client": { "title": 1 } }), "title"),
            (json!({ "client": { "client.size": 1 } }), "client.size"),
            (json!({ "client": { "siez": 1 } }), "client.size"),
            (
                json!({ "metadata": { "isFeatured": 1 } }),
                "metadata.featured",
            ),
            (json!({ "isFeatured": 1 }), "metadata.featured"),
            (json!({ "coverImage": 1 }), "image"),
            (json!({ "text": 1 }), "testimonial.text"),
            (
                json!({ "insight.resourceLink.url": 1 }),
                "insight.resourceLink.url",
            ),
            (json!({ "published": true }), "metadata.status"),
        ] {
            assert_eq!(suggestion(&patch).as_deref(), Some(meant), "{patch}");
        }
        for name in ["constructor", "toString", "", ".", "foo"] {
            assert_eq!(suggestion(&json!({ name: 1 })), None, "{name}");
        }
    }

    #[test]
    fn the_message_says_how_to_send_it_and_names_every_place() {
        let message = |patch: &Value| violations(patch, &json!({}))[0].message.clone();

        assert_eq!(
            message(&json!({ "client.size": 1 })),
            "unknown field; did you mean `client.size`? Send `{\"client\":{\"size\":…}}`"
        );
        assert!(message(&json!({ "text": 1 })).contains("`testimonial.text` or `insight.text`"));
        assert!(message(&json!({ "tags[0]": 1 })).contains("replaced whole"));
    }

    #[test]
    fn fields_of_others_are_not_called_unknown() {
        let stored =
            json!({ "legacy": 1, "published": true, "createdAt": "x", "client": { "vat": "1" } });
        let found = violations(
            &json!({ "legacy": 2, "published": false, "createdAt": "y", "client": { "vat": "2" }, "updated_at": "z" }),
            &stored,
        );

        let rules: Vec<&str> = found.iter().map(|violation| &*violation.rule).collect();
        assert_eq!(rules, ["foreign", "foreign", "owned", "foreign", "owned"]);
        for violation in &found {
            assert!(!violation.message.contains("unknown"), "{violation}");
        }
        assert!(found[4].message.contains("`metadata.updatedAt`"));
    }
}

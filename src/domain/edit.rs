//! Edits of what a merge patch can only replace whole: the elements of a list, and a place in a text.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    field_path::{field, field_mut},
    json::type_name,
    number::is_same,
    rules::Rules,
    search::fold,
    text::{compact_json, truncate},
    violation::Violation,
};
use find::{MAX_COMPARED_CHARS, MAX_COUNTED, nearest_point, occurrences, surroundings};

mod find;
mod take_back;

pub use take_back::edit_to_take_back;

/// One edit, with the members that a client sends. Their doc comments are not published: the
/// description of the argument has all of it in fewer words.
///
/// `value` and `with` may be any JSON, because a stored list may hold any. They are published as
/// strings, which is what the rules allow in each list: some clients refuse every tool if a member
/// of one has no type.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline, description = "")]
pub struct Edit {
    /// A field, such as `solution.tools`; for `find` also an element, such as `results[0]`.
    #[schemars(description = "")]
    pub path: String,
    /// What to do.
    #[schemars(description = "")]
    pub op: Op,
    /// The element of a list, or a part of a text.
    #[schemars(description = "", with = "String")]
    pub value: Value,
    /// What `replace` and `find` put in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(description = "", with = "Option<String>")]
    pub with: Option<Value>,
    /// Where to `insert`, from 0, or which of equal elements to `remove` or `replace`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(description = "")]
    pub at: Option<u32>,
}

/// An update has no more edits.
pub const MAX_EDITS: usize = 50;
/// An error names the indexes of this many equal elements.
const MAX_NAMED: usize = 10;
/// What comes nearest is looked for only for this many edits that match nothing.
const MAX_NEAREST: usize = 3;
/// And among this many elements.
const MAX_COMPARED_ELEMENTS: usize = 1000;

/// What an edit does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline, description = "")]
#[expect(
    missing_docs,
    reason = "a doc comment on a variant would turn the plain list of values into a list of schemas"
)]
pub enum Op {
    Append,
    Prepend,
    Insert,
    Remove,
    Replace,
    Find,
}

/// Whether an operation uses a member of its edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Needed,
    Optional,
    Unused,
}

impl Op {
    fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Prepend => "prepend",
            Self::Insert => "insert",
            Self::Remove => "remove",
            Self::Replace => "replace",
            Self::Find => "find",
        }
    }

    fn use_of_with(self) -> Use {
        match self {
            Self::Replace | Self::Find => Use::Needed,
            Self::Append | Self::Prepend | Self::Insert | Self::Remove => Use::Unused,
        }
    }

    fn use_of_at(self) -> Use {
        match self {
            Self::Insert => Use::Needed,
            Self::Remove | Self::Replace => Use::Optional,
            Self::Append | Self::Prepend | Self::Find => Use::Unused,
        }
    }
}

/// Applies the edits in their order, and returns what is wrong with those that cannot be applied.
pub(super) fn apply(
    document: &mut Map<String, Value>,
    edits: &[Edit],
    rules: &Rules,
) -> Vec<Violation> {
    let mut rejected = Vec::new();
    let mut unmatched = 0;
    for (index, edit) in edits.iter().enumerate() {
        let mut found = edit.violations_of_form();
        if found.is_empty() {
            match edit.apply(document, rules) {
                Ok(()) => {}
                Err(Failure::Violation(violation)) => found.push(violation),
                Err(Failure::NoMatch) => {
                    unmatched += 1;
                    let violation = edit.no_match(document);
                    found.push(if unmatched <= MAX_NEAREST {
                        edit.with_nearest(violation, document, rules)
                    } else {
                        violation
                    });
                }
            }
        }
        rejected.extend(found.into_iter().map(|violation| Violation {
            path: format!("edits[{index}].{}", violation.path),
            ..violation
        }));
    }
    rejected
}

/// Why an edit cannot be applied.
enum Failure {
    /// Nothing is equal to `value`.
    NoMatch,
    Violation(Violation),
}

impl From<Violation> for Failure {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

/// The field that a path names, without the index of an element, and that index.
fn split_index(path: &str) -> (&str, Option<usize>) {
    let indexed = path
        .strip_suffix(']')
        .and_then(|rest| rest.rsplit_once('['))
        .and_then(|(list, index)| Some((list, index.parse().ok()?)));
    indexed.map_or((path, None), |(list, index)| (list, Some(index)))
}

impl Edit {
    /// The field that it changes: a text or a list.
    #[must_use]
    pub fn field(&self) -> &str {
        split_index(&self.path).0
    }

    /// The top-level field that it changes, or a part of it.
    #[must_use]
    pub fn top_level_field(&self) -> &str {
        let field = self.field();
        field.split_once('.').map_or(field, |(first, _)| first)
    }

    /// The members that its operation needs and lacks, or does not use.
    fn violations_of_form(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut check = |name: &'static str, used: Use, is_there: bool| {
            let message = match (used, is_there) {
                (Use::Needed, false) => format!("missing, and `{}` needs it", self.op.name()),
                (Use::Unused, true) => format!("not used by `{}`; leave it out", self.op.name()),
                (Use::Needed, true) | (Use::Optional, _) | (Use::Unused, false) => return,
            };
            found.push(Violation::new(name, "edit", message));
        };
        // Some clients send an empty string for what they leave out.
        let is_empty = self.with.as_ref().is_some_and(|with| with == "");
        let with = self.op.use_of_with();
        check(
            "with",
            with,
            self.with.is_some() && (with == Use::Needed || !is_empty),
        );
        check("at", self.op.use_of_at(), self.at.is_some());
        if self.op == Op::Find {
            if self.value.as_str().is_none_or(str::is_empty) {
                found.push(expected_string("value", "a non-empty string", &self.value));
            }
            if let Some(with) = self.with.as_ref().filter(|with| !with.is_string()) {
                found.push(expected_string("with", "a string", with));
            }
        }
        found
    }

    fn apply(&self, document: &mut Map<String, Value>, rules: &Rules) -> Result<(), Failure> {
        self.check_path(document, rules)?;
        match self.op {
            Op::Append => self.insert(document, None)?,
            Op::Prepend => self.insert(document, Some(0))?,
            Op::Insert => self.insert(document, self.index())?,
            Op::Remove => self.replace_element(document, None)?,
            Op::Replace => self.replace_element(document, self.with.as_ref())?,
            Op::Find => self.replace_text(document)?,
        }
        Ok(())
    }

    fn index(&self) -> Option<usize> {
        self.at.map(|at| at as usize)
    }

    /// Whether the operation works on what the path names.
    fn check_path(&self, document: &Map<String, Value>, rules: &Rules) -> Result<(), Violation> {
        let (field, index) = split_index(&self.path);
        let Some(declared) = rules.editable_type(field) else {
            return Err(Violation {
                path: "path".to_owned(),
                ..rules.not_editable(field, document)
            });
        };
        let finds = self.op == Op::Find;
        let message = match (declared, index) {
            ("array", None) => return Ok(()),
            ("array", Some(_)) | ("string", None) if finds => return Ok(()),
            ("array", Some(_)) => format!("expected a list; name it as `{field}`"),
            ("string", _) if finds => format!("`{field}` is a string and has no elements"),
            ("string", _) => "expected a list; `find` changes a part of a string".to_owned(),
            _ if finds => format!("expected a string or a list; change `{field}` with `data`"),
            _ => format!("expected a list; change `{field}` with `data`"),
        };
        Err(Violation::new("path", "edit", message))
    }

    /// Puts the element before that of this index, or at the end. A list that is not there is empty.
    fn insert(
        &self,
        document: &mut Map<String, Value>,
        index: Option<usize>,
    ) -> Result<(), Violation> {
        let length = match field(document, &self.path) {
            None | Some(Value::Null) => 0,
            Some(Value::Array(list)) => list.len(),
            Some(other) => return Err(not_a_list(other)),
        };
        let index = index.unwrap_or(length);
        if index > length {
            let message =
                format!("expected at most {length}, the length of the list, found {index}");
            return Err(Violation::new("at", "edit", message));
        }
        let Some(list) = list_at(document, &self.path) else {
            let message = "a field above it is not an object; replace that with `data`";
            return Err(Violation::new("path", "edit", message));
        };
        list.insert(index, self.value.clone());
        Ok(())
    }

    /// Puts `with` in the place of the element that is equal to `value`, or takes that out.
    fn replace_element(
        &self,
        document: &mut Map<String, Value>,
        with: Option<&Value>,
    ) -> Result<(), Failure> {
        let list = match field_mut(document, &self.path) {
            Some(Value::Array(list)) => list,
            None | Some(Value::Null) => return Err(self.absent("list").into()),
            Some(other) => return Err(not_a_list(other).into()),
        };
        let index = self.index_of_value(list)?;
        match (with, list.get_mut(index)) {
            (Some(with), Some(element)) => element.clone_from(with),
            _ => {
                list.remove(index);
            }
        }
        Ok(())
    }

    /// The index of the element that is equal to `value`: the only one, or the one that `at` names.
    fn index_of_value(&self, list: &[Value]) -> Result<usize, Failure> {
        let equal: Vec<usize> = (0..list.len())
            .filter(|index| list.get(*index).is_some_and(|it| is_same(it, &self.value)))
            .collect();
        let named: Vec<String> = equal
            .iter()
            .take(MAX_NAMED)
            .map(ToString::to_string)
            .collect();
        let named = named.join(", ");
        let (name, message) = match (self.index(), equal.as_slice()) {
            (_, []) => return Err(Failure::NoMatch),
            (None, [only]) => return Ok(*only),
            (Some(at), all) if all.contains(&at) => return Ok(at),
            (None, all) => {
                let count = all.len();
                let message =
                    format!("{count} elements are equal to it, at {named}; say which with `at`");
                ("value", message)
            }
            (Some(_), _) => (
                "at",
                format!("expected the index of an element equal to `value`: {named}"),
            ),
        };
        Err(Violation::new(name, "edit", message).into())
    }

    /// Puts `with` in the place of the text `value`, which has to occur once: in the text, in this
    /// element of a list, or in all its elements.
    fn replace_text(&self, document: &mut Map<String, Value>) -> Result<(), Failure> {
        let wanted = self.value.as_str().unwrap_or_default();
        let texts = texts_at(document, &self.path);
        if texts.is_empty() {
            return Err(self.absent("string").into());
        }
        let found = occurrences(&texts, wanted);
        let only = match found.as_slice() {
            [only] => only.clone(),
            [] => return Err(Failure::NoMatch),
            [first, ..] => {
                let count = match found.len() {
                    count if count > MAX_COUNTED => format!("more than {MAX_COUNTED}"),
                    count => count.to_string(),
                };
                let text = texts.get(first.text).copied().unwrap_or_default();
                let message = format!(
                    "it occurs {count} times, first in `{}`; send more of the text around the one that is meant",
                    surroundings(text, first.range.start)
                );
                return Err(Violation::new("value", "edit", message).into());
            }
        };
        let with = self.with.as_ref().and_then(Value::as_str);
        if let Some(text) = text_mut(document, &self.path, only.text) {
            text.replace_range(only.range, with.unwrap_or_default());
        }
        Ok(())
    }

    /// That nothing is equal to `value`.
    fn no_match(&self, document: &Map<String, Value>) -> Violation {
        let message = match field(document, &self.path) {
            Some(Value::Array(list)) if self.op != Op::Find => {
                format!("0 of {} elements are equal to it", list.len())
            }
            _ => "it does not occur".to_owned(),
        };
        Violation::new("value", "edit", message)
    }

    /// The same, with what comes nearest to `value`.
    fn with_nearest(
        &self,
        no_match: Violation,
        document: &Map<String, Value>,
        rules: &Rules,
    ) -> Violation {
        let elsewhere = self.only_field_with_text(document, rules);
        let nearest = match (&elsewhere, field(document, &self.path)) {
            (Some(path), _) => format!(" here, but once in `{path}`"),
            (None, Some(Value::Array(list))) if self.op != Op::Find => self.nearest_element(list),
            (None, _) => self.nearest_place(document),
        };
        Violation {
            message: no_match.message + &nearest,
            suggestion: elsewhere,
            ..no_match
        }
    }

    /// The first other field in which the text to be found occurs once.
    fn only_field_with_text(&self, document: &Map<String, Value>, rules: &Rules) -> Option<String> {
        let wanted = self.value.as_str().filter(|_| self.op == Op::Find)?;
        rules.editable_paths().into_iter().find(|path| {
            path != self.field() && occurrences(&texts_at(document, path), wanted).len() == 1
        })
    }

    fn nearest_element(&self, list: &[Value]) -> String {
        let wanted = fold(&beginning(&self.value));
        let nearest = list
            .iter()
            .take(MAX_COMPARED_ELEMENTS)
            .map(beginning)
            .enumerate()
            .map(|(index, text)| {
                let likeness = strsim::sorensen_dice(&wanted, &fold(&text));
                (likeness, index, text)
            })
            .max_by(|(one, ..), (other, ..)| one.total_cmp(other));
        nearest.map_or_else(String::new, |(_, index, text)| {
            let path = &self.path;
            format!("; the nearest is `{path}[{index}]`: `{}`", truncate(&text))
        })
    }

    fn nearest_place(&self, document: &Map<String, Value>) -> String {
        let texts = texts_at(document, &self.path);
        let wanted = self.value.as_str().unwrap_or_default();
        match nearest_point(&texts, wanted) {
            Some((text, point)) => {
                let text = texts.get(text).copied().unwrap_or_default();
                format!("; the nearest place is `{}`", surroundings(text, point))
            }
            None => ", and nothing similar does".to_owned(),
        }
    }

    fn absent(&self, what: &str) -> Violation {
        let message = format!("the document has no {what} at `{}`", truncate(&self.path));
        Violation::new("path", "edit", message)
    }
}

/// What an element is compared by: the beginning of its text, or of its JSON.
fn beginning(element: &Value) -> String {
    let first = |text: &str| text.chars().take(MAX_COMPARED_CHARS).collect();
    match element.as_str() {
        Some(text) => first(text),
        None => first(&compact_json(element)),
    }
}

fn expected_string(name: &'static str, expected: &str, found: &Value) -> Violation {
    let found = match found.as_str() {
        Some("") => "an empty string",
        _ => type_name(found),
    };
    Violation::new(name, "edit", format!("expected {expected}, found {found}"))
}

fn not_a_list(found: &Value) -> Violation {
    let message = format!(
        "expected a list, found {}; replace it with `data`",
        type_name(found)
    );
    Violation::new("path", "edit", message)
}

/// The list at a path, which is made where there is none; `None` if something above it is not an
/// object.
fn list_at<'a>(members: &'a mut Map<String, Value>, path: &str) -> Option<&'a mut Vec<Value>> {
    let (name, below) = match path.split_once('.') {
        Some((name, below)) => (name, Some(below)),
        None => (path, None),
    };
    let member = members.entry(name).or_insert(Value::Null);
    if member.is_null() {
        *member = below.map_or_else(|| json!([]), |_| json!({}));
    }
    match below {
        Some(below) => list_at(member.as_object_mut()?, below),
        None => member.as_array_mut(),
    }
}

/// The texts at a path: of a text itself, of an element, or of all elements, where those that are no
/// text are empty.
fn texts_at<'a>(document: &'a Map<String, Value>, path: &str) -> Vec<&'a str> {
    let (name, index) = split_index(path);
    match (field(document, name), index) {
        (Some(Value::String(text)), None) => vec![text],
        (Some(Value::Array(list)), Some(index)) => list
            .get(index)
            .and_then(Value::as_str)
            .into_iter()
            .collect(),
        (Some(Value::Array(list)), None) => list
            .iter()
            .map(|element| element.as_str().unwrap_or_default())
            .collect(),
        _ => Vec::new(),
    }
}

/// The text of this number among [`texts_at`] the path.
fn text_mut<'a>(
    document: &'a mut Map<String, Value>,
    path: &str,
    number: usize,
) -> Option<&'a mut String> {
    let (name, index) = split_index(path);
    let text = match field_mut(document, name)? {
        Value::Array(list) => list.get_mut(index.unwrap_or(number))?,
        text => text,
    };
    match text {
        Value::String(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{Kind, content_type};

    fn edit(json: Value) -> Edit {
        serde_json::from_value(json).unwrap()
    }

    fn object(json: Value) -> Map<String, Value> {
        serde_json::from_value(json).unwrap()
    }

    /// A project after the edits.
    fn edited(document: &Value, edits: Value) -> Result<Value, Vec<Violation>> {
        let mut document = object(document.clone());
        let edits: Vec<Edit> = serde_json::from_value(edits).unwrap();
        let rejected = apply(&mut document, &edits, content_type::rules(Kind::Project));
        if rejected.is_empty() {
            Ok(Value::Object(document))
        } else {
            Err(rejected)
        }
    }

    /// The only violation of one edit, as text.
    fn problem(document: &Value, edit: &Value) -> String {
        let rejected = edited(document, json!([edit])).unwrap_err();
        assert_eq!(rejected.len(), 1, "{edit}: {rejected:?}");
        rejected[0].to_string()
    }

    #[test]
    fn every_list_holds_what_the_published_type_of_an_element_says() {
        for kind in Kind::ALL {
            let rules = content_type::rules(kind);
            let lists: Vec<String> = rules
                .editable_paths()
                .into_iter()
                .filter(|path| rules.editable_type(path) == Some("array"))
                .collect();

            assert!(lists.len() >= 2, "{lists:?}");
            for list in lists {
                let path = format!(
                    "/properties/{}/items/type",
                    list.replace('.', "/properties/")
                );
                assert_eq!(
                    rules.patch_schema().pointer(&path),
                    Some(&json!("string")),
                    "{list}"
                );
            }
        }
    }

    #[test]
    fn edits_are_applied_in_their_order() {
        let document =
            json!({ "tags": ["a"], "solution": { "tools": ["x"], "description": "One. Two." } });

        let result = edited(
            &document,
            json!([
                { "path": "tags", "op": "append", "value": "b" },
                { "path": "tags", "op": "prepend", "value": "c" },
                { "path": "tags", "op": "insert", "value": "d", "at": 3 },
                { "path": "tags", "op": "remove", "value": "a" },
                { "path": "solution.tools", "op": "replace", "value": "x", "with": "y" },
                { "path": "solution.description", "op": "find", "value": "Two", "with": "Three" },
                { "path": "solution.description", "op": "find", "value": "Three", "with": "Four" },
            ]),
        );

        assert_eq!(
            result.unwrap(),
            json!({ "tags": ["c", "b", "d"], "solution": { "tools": ["y"], "description": "One. Four." } })
        );
    }

    #[test]
    fn a_list_that_is_not_there_is_made() {
        for op in ["append", "prepend", "insert"] {
            let mut edit = json!({ "path": "solution.tools", "op": op, "value": "x" });
            if op == "insert" {
                edit["at"] = json!(0);
            }
            for document in [
                json!({}),
                json!({ "solution": null }),
                json!({ "solution": { "tools": null } }),
            ] {
                let result = edited(&document, json!([edit])).unwrap();
                assert_eq!(result, json!({ "solution": { "tools": ["x"] } }));
            }
        }
        let far = json!({ "path": "tags", "op": "insert", "value": "x", "at": 1 });
        assert!(problem(&json!({}), &far).contains("expected at most 0"));
        let none = json!({ "path": "tags", "op": "remove", "value": "x" });
        assert!(problem(&json!({}), &none).contains("has no list"));
    }

    #[test]
    fn one_of_equal_elements_is_named_by_its_index() {
        let document = json!({ "tags": ["a", "b", "a", 1.0, {"x": [1]}] });
        let remove = |value: Value, at: Value| json!({ "path": "tags", "op": "remove", "value": value, "at": at });
        let tags = |edit: Value| edited(&document, json!([edit])).unwrap()["tags"].clone();

        assert_eq!(
            tags(remove(json!("a"), json!(2))),
            json!(["a", "b", 1.0, {"x": [1]}])
        );
        assert_eq!(
            tags(remove(json!("b"), json!(1))),
            json!(["a", "a", 1.0, {"x": [1]}])
        );
        assert_eq!(
            tags(remove(json!(1), Value::Null)),
            json!(["a", "b", "a", {"x": [1]}])
        );
        assert_eq!(
            tags(remove(json!({"x": [1.0]}), Value::Null)),
            json!(["a", "b", "a", 1.0])
        );
        let many = problem(&document, &remove(json!("a"), Value::Null));
        assert!(
            many.contains("2 elements") && many.contains("at 0, 2"),
            "{many}"
        );
        for at in [1, 9] {
            let other = problem(&document, &remove(json!("a"), json!(at)));
            assert!(other.contains("0, 2"), "{other}");
        }
        let none = problem(&document, &remove(json!("B "), Value::Null));
        assert!(
            none.contains("0 of 5") && none.contains("`tags[1]`: `b`"),
            "{none}"
        );
    }

    #[test]
    fn a_text_is_found_by_its_plain_spelling_and_the_rest_stays() {
        let text = "Avant\u{a0}: l’été\u{202f}! «\u{a0}L’œuvre de 2\u{202f}400\u{a0}€\u{a0}» e\u{301}t l’\u{200b}hiver\u{a0}; “fin”.";
        for (value, found) in [
            ("l'été !", "l’été\u{202f}!"),
            (
                "\" L'œuvre de 2 400 € \"",
                "«\u{a0}L’œuvre de 2\u{202f}400\u{a0}€\u{a0}»",
            ),
            ("« L'œuvre", "«\u{a0}L’œuvre"),
            ("ét l' hiver", "e\u{301}t l’\u{200b}hiver"),
            ("l'hiver ;", "l’\u{200b}hiver\u{a0};"),
            ("\"fin\"", "“fin”"),
            ("L‘œuvre de 2 400 €", "L’œuvre de 2\u{202f}400\u{a0}€"),
        ] {
            let edits = json!([{ "path": "challenge", "op": "find", "value": value, "with": "«x’\u{a0}»" }]);

            let result = edited(&json!({ "challenge": text }), edits).unwrap();

            assert_eq!(
                result["challenge"],
                text.replacen(found, "«x’\u{a0}»", 1),
                "{value}"
            );
        }
    }

    #[test]
    fn a_line_break_is_found_by_another_one_or_by_a_space() {
        for (text, value, result) in [
            ("One\r\nTwo\r\n\r\nThree", "One\nTwo\n\nThree", "x"),
            ("One\nTwo", "One\r\nTwo", "x"),
            ("One\nTwo\r\nThree", "One Two", "x\r\nThree"),
            ("One\r\nTwo", " Two", "Onex"),
            ("One\rTwo", "One Two", "x"),
        ] {
            let edits = json!([{ "path": "challenge", "op": "find", "value": value, "with": "x" }]);

            let edited = edited(&json!({ "challenge": text }), edits).unwrap();

            assert_eq!(edited["challenge"], result, "{text:?}");
        }
        let paragraphs = json!({ "path": "challenge", "op": "find", "value": "a b", "with": "" });
        let message = problem(&json!({ "challenge": "a\n\nb" }), &paragraphs);
        assert!(message.contains("does not occur"), "{message}");
    }

    #[test]
    fn exact_text_comes_first_and_letters_keep_their_marks() {
        let find = |text: &str, value: &str| {
            let edits = json!([{ "path": "challenge", "op": "find", "value": value, "with": "" }]);
            edited(&json!({ "challenge": text }), edits).map(|it| it["challenge"].clone())
        };

        assert_eq!(find("l’a l'a", "l'a").unwrap(), "l’a ");
        assert!(find("l’a l‘a", "l'a").is_err());
        assert!(find("l’e\u{301}te\u{301}", "l'e").is_err());
        assert!(find("l’\u{e9}t\u{e9}", "l'e").is_err());
        assert!(find("aaa", "aa").is_err(), "it occurs twice");
        assert!(find("a", "\u{200b}").is_err());
    }

    #[test]
    fn a_text_in_a_list_is_found_by_the_list_or_by_its_element() {
        let document = json!({ "results": ["one and two", 5, "two"] });
        let find = |path: &str, value: &str| json!({ "path": path, "op": "find", "value": value, "with": "x" });
        let results = |edit: Value| edited(&document, json!([edit])).unwrap()["results"].clone();

        assert_eq!(
            results(find("results", "one")),
            json!(["x and two", 5, "two"])
        );
        assert_eq!(
            results(find("results[2]", "two")),
            json!(["one and two", 5, "x"])
        );
        assert!(problem(&document, &find("results", "two")).contains("2 times"));
        for absent in ["results[1]", "results[3]", "challenge"] {
            assert!(
                problem(&document, &find(absent, "two")).contains("no string"),
                "{absent}"
            );
        }
        assert!(problem(&document, &find("results[]", "two")).contains("did you mean `results`?"));
    }

    #[test]
    fn the_nearest_place_is_shown_and_no_more() {
        let long = "x".repeat(300);
        let text =
            format!("{long} Nous avons créé un site pour 38 entreprises du bâtiment. {long}");
        let document = json!({ "challenge": text, "result": "Un succès" });
        let find =
            |value: &str| json!({ "path": "challenge", "op": "find", "value": value, "with": "" });

        for value in [
            "nous avions créé un site",
            "Le site pour 38 entreprises",
            "entreprises du batiment",
        ] {
            let message = problem(&document, &find(value));
            assert!(
                message.contains("it does not occur; the nearest"),
                "{message}"
            );
            assert!(
                message.contains("pour 38 entreprises") || message.contains("Nous av"),
                "{message}"
            );
            assert!(message.len() < 200, "{message}");
        }
        assert!(
            problem(&document, &find("Rien à voir"))
                .contains("it does not occur, and nothing similar does")
        );
        assert!(
            problem(&document, &find("Un succès"))
                .contains("it does not occur here, but once in `result`")
        );
        let often = problem(&document, &find("x"));
        assert!(
            often.contains("more than 100 times") && often.len() < 200,
            "{often}"
        );
    }

    #[test]
    fn an_operation_says_which_members_it_needs() {
        let document = json!({ "tags": ["a"], "title": "a", "metadata": { "featured": true } });
        for (edit, path) in [
            (
                json!({ "path": "tags", "op": "append", "value": "b", "with": "c" }),
                "edits[0].with",
            ),
            (
                json!({ "path": "tags", "op": "append", "value": "b", "at": 0 }),
                "edits[0].at",
            ),
            (
                json!({ "path": "tags", "op": "insert", "value": "b" }),
                "edits[0].at",
            ),
            (
                json!({ "path": "tags", "op": "replace", "value": "a" }),
                "edits[0].with",
            ),
            (
                json!({ "path": "title", "op": "find", "value": "a" }),
                "edits[0].with",
            ),
            (
                json!({ "path": "title", "op": "find", "value": "", "with": "" }),
                "edits[0].value",
            ),
            (
                json!({ "path": "title", "op": "find", "value": 5, "with": "" }),
                "edits[0].value",
            ),
            (
                json!({ "path": "title", "op": "find", "value": "a", "with": 5 }),
                "edits[0].with",
            ),
            (
                json!({ "path": "title", "op": "append", "value": "a" }),
                "edits[0].path",
            ),
            (
                json!({ "path": "tags[0]", "op": "remove", "value": "a" }),
                "edits[0].path",
            ),
            (
                json!({ "path": "title[0]", "op": "find", "value": "a", "with": "" }),
                "edits[0].path",
            ),
            (
                json!({ "path": "metadata.featured", "op": "find", "value": "t", "with": "" }),
                "edits[0].path",
            ),
            (
                json!({ "path": "client", "op": "append", "value": "a" }),
                "edits[0].path",
            ),
        ] {
            let rejected = edited(&document, json!([edit])).unwrap_err();
            let paths: Vec<&str> = rejected.iter().map(|it| it.path.as_str()).collect();
            assert_eq!(paths, [path], "{edit}");
        }
        let empty = json!({ "path": "title", "op": "find", "value": "", "with": "" });
        assert!(problem(&document, &empty).contains("found an empty string"));
        let both = json!([{ "path": "tags", "op": "append", "value": "b", "with": "" }]);
        assert!(
            edited(&document, both).is_ok(),
            "an empty string is as if absent"
        );
    }

    #[test]
    fn a_path_that_cannot_be_edited_is_named_with_what_was_meant() {
        let document = json!({ "legacy": ["x"], "published": true });
        for (path, suggestion, says) in [
            ("tag", Some("tags"), "unknown"),
            ("tools", Some("solution.tools"), "unknown"),
            ("solution/features", Some("solution.features"), "unknown"),
            ("solution.toolz", Some("solution.tools"), "unknown"),
            ("foo", None, "unknown"),
            ("", None, "unknown"),
            ("id", None, "set by the server"),
            ("metadata.updatedAt", None, "set by the server"),
            ("legacy", None, "the document has this field"),
            ("published", Some("metadata.status"), "metadata.status"),
        ] {
            let edits = json!([{ "path": path, "op": "append", "value": "x" }]);

            let rejected = edited(&document, edits).unwrap_err();

            assert_eq!(rejected[0].path, "edits[0].path");
            assert_eq!(rejected[0].suggestion.as_deref(), suggestion, "{path}");
            assert!(rejected[0].message.contains(says), "{}", rejected[0]);
            assert!(!rejected[0].message.contains("Send"), "{}", rejected[0]);
        }
    }

    #[test]
    fn all_wrong_edits_are_reported() {
        let edits = json!([
            { "path": "tags", "op": "remove", "value": "z" },
            { "path": "tags", "op": "append", "value": "b" },
            { "path": "title", "op": "find", "value": "no", "with": "" },
            { "path": "nothing", "op": "append", "value": "b", "at": 1, "with": "c" },
        ]);

        let rejected = edited(&json!({ "tags": ["a"], "title": "t" }), edits).unwrap_err();

        let paths: Vec<&str> = rejected.iter().map(|it| it.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "edits[0].value",
                "edits[2].value",
                "edits[3].with",
                "edits[3].at"
            ]
        );
    }

    #[test]
    fn the_nearest_is_looked_for_in_the_first_edits_and_elements_only() {
        let mut tags = vec!["x"; MAX_COMPARED_ELEMENTS];
        tags.push("almost");
        let document = json!({ "tags": tags, "challenge": "Almost nothing is found." });
        for (edit, nearest) in [
            (
                json!({ "path": "tags", "op": "remove", "value": "almos" }),
                "the nearest is `tags[999]`",
            ),
            (
                json!({ "path": "challenge", "op": "find", "value": "Almost never", "with": "" }),
                "Almost nothing",
            ),
        ] {
            let rejected = edited(&document, json!(vec![edit; 5])).unwrap_err();

            let have_nearest: Vec<bool> = rejected
                .iter()
                .map(|violation| violation.message.contains(nearest))
                .collect();
            assert_eq!(
                have_nearest,
                [true, true, true, false, false],
                "{rejected:?}"
            );
        }
    }

    /// What each operation means, in a few words.
    fn reference(list: &mut Vec<Value>, edit: &Edit) -> bool {
        let equal: Vec<usize> = (0..list.len())
            .filter(|at| list[*at] == edit.value)
            .collect();
        let at = edit.at.map(|at| at as usize);
        let chosen = match at {
            Some(at) => equal.contains(&at).then_some(at),
            None => Some(equal.clone())
                .filter(|it| it.len() == 1)
                .map(|it| it[0]),
        };
        match (edit.op, chosen) {
            (Op::Append, _) => list.push(edit.value.clone()),
            (Op::Prepend, _) => list.insert(0, edit.value.clone()),
            (Op::Insert, _) if at.is_some_and(|at| at <= list.len()) => {
                list.insert(at.unwrap(), edit.value.clone());
            }
            (Op::Remove, Some(at)) => drop(list.remove(at)),
            (Op::Replace, Some(at)) => list[at] = edit.with.clone().unwrap(),
            _ => return false,
        }
        true
    }

    fn list_edit() -> impl Strategy<Value = Edit> {
        let op = prop_oneof![
            Just(Op::Append),
            Just(Op::Prepend),
            Just(Op::Insert),
            Just(Op::Remove),
            Just(Op::Replace),
        ];
        (op, "[a-c]", "[a-c]", prop::option::of(0..5_u32)).prop_map(|(op, value, with, at)| Edit {
            path: "tags".to_owned(),
            op,
            value: json!(value),
            with: (op == Op::Replace).then(|| json!(with)),
            at: match op.use_of_at() {
                Use::Needed => at.or(Some(0)),
                Use::Optional => at,
                Use::Unused => None,
            },
        })
    }

    /// Texts in which much occurs more than once.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ab]{0,12}",
            "[ab ’'\u{a0}é\u{301}«🦀]{0,30}",
            "(le chat |l’été\u{a0}|e\u{301}){0,12}"
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn lists_are_edited_as_the_reference_says(
            list in prop::collection::vec("[a-c]", 0..6),
            edits in prop::collection::vec(list_edit(), 1..6),
        ) {
            let document = json!({ "tags": list, "other": [1.10] });
            let mut expected: Vec<Value> = list.into_iter().map(Value::from).collect();
            let refused: Vec<String> = edits
                .iter()
                .enumerate()
                .filter(|(_, edit)| !reference(&mut expected, edit))
                .map(|(index, _)| format!("edits[{index}]"))
                .collect();

            let mut result = object(document);
            let rejected = apply(&mut result, &edits, content_type::rules(Kind::Project));

            let named: Vec<String> = rejected
                .iter()
                .map(|violation| violation.path.split('.').next().unwrap().to_owned())
                .collect();
            prop_assert_eq!(named, refused);
            prop_assert_eq!(Value::Object(result), json!({ "tags": expected, "other": [1.10] }));
        }

        #[test]
        fn a_found_text_is_replaced_and_the_rest_stays(before in text(), middle in text(), after in text(), with in text()) {
            let whole = [before.as_str(), &middle, &after].concat();
            let count = whole
                .char_indices()
                .filter(|(at, _)| !middle.is_empty() && whole[*at..].starts_with(&middle))
                .count();
            let edits = json!([{ "path": "challenge", "op": "find", "value": middle, "with": with }]);

            match edited(&json!({ "challenge": whole }), edits) {
                Ok(result) => {
                    prop_assert_eq!(count, 1);
                    prop_assert_eq!(&result["challenge"], &json!([before.as_str(), &with, &after].concat()));
                }
                Err(rejected) => {
                    prop_assert_ne!(count, 1);
                    let says = format!("{count} times");
                    prop_assert!(count == 0 || rejected[0].message.contains(&says));
                }
            }
        }

        #[test]
        fn plain_spelling_finds_one_place_or_none(
            before in text(),
            middle in "[a-z]{1,3}[ \u{a0}\u{202f}\u{2009}][a-z]{1,3}[’'‘ʼ][a-z]{1,3}[«»“\"][a-z]",
            after in text(),
        ) {
            let plain: String = middle
                .chars()
                .map(|c| match c {
                    '\u{a0}' | '\u{202f}' | '\u{2009}' => ' ',
                    '’' | '‘' | 'ʼ' => '\'',
                    '«' | '»' | '“' => '"',
                    c => c,
                })
                .collect();
            // A mark that follows belongs to the last letter.
            prop_assume!(!after.starts_with('\u{301}'));
            let whole = [before.as_str(), &middle, &after].concat();
            let edits = json!([{ "path": "challenge", "op": "find", "value": plain, "with": "X" }]);

            let result = edited(&json!({ "challenge": whole }), edits).unwrap();

            prop_assert_eq!(&result["challenge"], &json!([before.as_str(), "X", &after].concat()));
        }

        #[test]
        fn the_edit_that_takes_a_change_back_restores_the_text(before in text(), old in text(), new in text(), after in text(), max in 0..40_usize) {
            let (old, new) = ([before.as_str(), &old, &after].concat(), [before.as_str(), &new, &after].concat());
            prop_assume!(old != new);
            let edit = edit_to_take_back("challenge", &old, &new, max);
            // Of all parts of the new text that hold the difference, the shortest that occurs once.
            let smallest = smallest_part(&old, &new, max);
            prop_assert_eq!(edit.as_ref().map(|edit| edit.value.as_str().unwrap().chars().count()), smallest);
            let Some(edit) = edit else { return Ok(()) };

            let edits = json!([serde_json::to_value(&edit).unwrap()]);
            let restored = edited(&json!({ "challenge": new }), edits).unwrap();

            prop_assert_eq!(&restored["challenge"], &json!(old));
            for part in [&edit.value, edit.with.as_ref().unwrap()] {
                prop_assert!(part.as_str().unwrap().chars().count() <= max);
            }
        }
    }

    fn smallest_part(old: &str, new: &str, max: usize) -> Option<usize> {
        let (old, new): (Vec<char>, Vec<char>) = (old.chars().collect(), new.chars().collect());
        let shorter = old.len().min(new.len());
        let start = (0..shorter).take_while(|at| old[*at] == new[*at]).count();
        let end = (0..shorter - start)
            .take_while(|at| old[old.len() - 1 - at] == new[new.len() - 1 - at])
            .count();
        let mut lengths = Vec::new();
        for from in 0..=start {
            for to in new.len() - end..=new.len() {
                let part = &new[from..to];
                let before = part.len() + old.len() - new.len();
                let is_once = !part.is_empty()
                    && new.windows(part.len()).filter(|it| *it == part).count() == 1;
                if is_once && part.len() <= max && before <= max {
                    lengths.push(part.len());
                }
            }
        }
        lengths.into_iter().min()
    }

    #[test]
    fn an_edit_is_what_a_client_sent() {
        let sent = json!({ "path": "tags", "op": "insert", "value": "a", "at": 0 });

        assert_eq!(serde_json::to_value(edit(sent.clone())).unwrap(), sent);
    }
}

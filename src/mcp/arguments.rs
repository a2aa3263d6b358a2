//! Checks of a call's arguments: accepts what clients write differently, and finds every broken
//! rule.

use std::collections::HashMap;

use jsonschema::Validator;
use rmcp::model::JsonObject;
use serde_json::{Value, json};

use super::{
    change_arguments,
    client_arguments::{self, KnownArguments},
    cursor,
    params::checked_schema,
    tool_name::{Effect, ToolName},
};
use crate::domain::{
    Kind, Timestamp, Violation, check_depth, content_type::rules as rules_of,
    patch::parse_json_string, rules, similar::is_same_name, text::truncate,
};

/// The arguments that a call with `plan` may have.
const BESIDE_PLAN: [&str; 5] = ["plan", "id", "reason", "idempotencyKey", "detail"];

/// Of each tool without alternatives, what it needs if it is not to apply a plan.
const UNLESS_PLAN: [(ToolName, &str); 5] = [
    (ToolName::Create(Kind::Project), "data"),
    (ToolName::Create(Kind::Resource), "data"),
    (ToolName::Delete(Kind::Project), "expectedVersion"),
    (ToolName::Delete(Kind::Resource), "expectedVersion"),
    (ToolName::UpdateMany, "changes"),
];

/// Floats below this become integers without loss.
const MAX_INTEGER_FLOAT: f64 = 1e15;

/// What other programs call an id.
const NAMES_OF_ID: [&str; 5] = ["slug", "key", "uid", "identifier", "uuid"];
/// And the type of a document.
const NAMES_OF_TYPE: [&str; 2] = ["type", "kind"];

/// What other programs call further arguments, and members of an edit.
const OTHER_NAMES: [(&str, &[&str]); 10] = [
    (
        "data",
        &["body", "changes", "content", "document", "fields", "patch"],
    ),
    ("dryRun", &["preview", "simulate"]),
    ("limit", &["count", "max", "pageSize", "perPage", "size"]),
    ("op", &["action", "operation", "type"]),
    ("path", &["field", "key", "name"]),
    (
        "query",
        &["keyword", "keywords", "q", "search", "term", "text"],
    ),
    ("reason", &["comment", "message", "note", "why"]),
    ("since", &["after", "begin", "from", "start"]),
    ("until", &["before", "end", "to"]),
    ("with", &["new", "newText", "newValue", "replacement"]),
];

/// The checks of all tools, made from the declarations that the published schemas are made from.
pub(super) struct ToolChecks(HashMap<&'static str, ToolCheck>);

/// The check of one tool's arguments.
pub(super) struct ToolCheck {
    validator: Validator,
    known: KnownArguments,
    /// The document's fields that `data` may hold.
    fields: Vec<String>,
    /// The members of an edit.
    edit_members: Vec<String>,
    /// Arguments that are times.
    times: &'static [&'static str],
    /// What it needs if it is not to apply a plan.
    unless_plan: Option<&'static str>,
    /// The members of an update, where the tool takes several.
    change_members: Vec<String>,
}

/// Arguments in their published form.
pub(super) struct Normalized {
    pub(super) arguments: JsonObject,
    /// The names of what the client added, which was left out.
    pub(super) ignored: Vec<String>,
}

impl ToolChecks {
    pub(super) fn new(tools: impl IntoIterator<Item = ToolName>) -> Self {
        let checks = tools
            .into_iter()
            .map(|tool| (tool.as_str(), ToolCheck::new(tool)));
        Self(checks.collect())
    }

    /// The check of a tool's arguments; `None` if there is no such tool.
    pub(super) fn get(&self, tool: &str) -> Option<&ToolCheck> {
        self.0.get(tool)
    }
}

impl ToolCheck {
    fn new(tool: ToolName) -> Self {
        let schema = checked_schema(tool);
        let properties = schema.get("properties").and_then(Value::as_object);
        let required = schema.get("required").and_then(Value::as_array);
        let change = change_arguments::properties(&schema);
        Self {
            validator: rules::validator(&with_open_parts(&schema)),
            edit_members: names(change.or(properties).and_then(edit_properties)),
            change_members: names(change),
            known: KnownArguments {
                names: names(properties),
                required: required
                    .into_iter()
                    .flatten()
                    .filter_map(|name| name.as_str().map(ToOwned::to_owned))
                    .collect(),
                effect: tool.effect(),
            },
            times: if tool.takes_points_in_time() {
                &[]
            } else {
                &["since", "until"]
            },
            unless_plan: UNLESS_PLAN
                .iter()
                .find_map(|(needing, name)| (*needing == tool).then_some(*name)),
            fields: written_fields(tool),
        }
    }

    /// The arguments in their published form: clients also add some of their own, and send `null`
    /// or, Cursor to reading tools, `""` for an absent argument, objects and lists as strings, and
    /// 20.0 for 20.
    pub(super) fn normalize(&self, mut arguments: JsonObject) -> Normalized {
        let ignored = client_arguments::take(&mut arguments, &self.known);
        arguments.retain(|name, value| !self.is_absent(name, value));
        normalize_update(&mut arguments);
        change_arguments::normalize(&mut arguments, normalize_update);
        if let Some(ids) = arguments.get_mut("auditIds") {
            parse_json_string(ids, Value::is_array);
        }
        arguments.values_mut().for_each(normalize_integer);
        Normalized { arguments, ignored }
    }

    /// Whether an argument is sent as if it were not.
    fn is_absent(&self, name: &str, value: &Value) -> bool {
        match value {
            Value::Null => self.known.has(name),
            Value::String(text) => {
                text.is_empty()
                    && self.known.effect == Effect::Reads
                    && self.known.is_optional(name)
            }
            _ => false,
        }
    }

    /// Every rule that the arguments break. Of `data` this checks only that it is an object: its
    /// fields are checked together with the stored document.
    pub(super) fn violations(&self, arguments: &Value) -> Vec<Violation> {
        let mut found = rules::violations(&self.validator, arguments);
        for violation in found
            .iter_mut()
            .filter(|violation| violation.rule == "unknown")
        {
            let change = change_arguments::split(&violation.path)
                .filter(|_| !self.change_members.is_empty());
            let name = change.map_or(violation.path.as_str(), |(_, name)| name);
            let of_edit = name.strip_prefix("edits[");
            *violation = match (of_edit.and_then(|rest| rest.split_once("].")), change) {
                (Some((_, name)), _) => {
                    let names = self.edit_members.iter().map(String::as_str);
                    let path = violation.path.clone();
                    let unknown = Violation::unknown(path, "member of an edit", name, names);
                    with_other_name(unknown, name, &self.edit_members)
                }
                (None, Some((change, name))) => self.unknown_member(change, name),
                (None, None) => self.unknown_argument(&violation.path),
            };
        }
        found.extend(self.beside_plan(arguments));
        found.extend(change_arguments::violations(arguments));
        if self.known.has("edits")
            && ["data", "edits", "undo", "plan"]
                .iter()
                .all(|name| arguments.get(name).is_none())
        {
            let message = "missing; send the fields to change as `data`, or `edits` of their parts, or `undo`";
            found.push(Violation::new("data", "required", message));
        }
        if let Some(text) = string_argument(arguments, "data")
            && let Some(violation) = found.iter_mut().find(|violation| violation.path == "data")
            && let Some(problem) = unreadable_object(text)
        {
            violation.message = format!("expected an object, found a string: {problem}");
        }
        for name in self.times.iter().copied() {
            if let Some(text) = string_argument(arguments, name)
                && Timestamp::parse(text).is_none()
            {
                let message = format!(
                    "expected an RFC 3339 time such as `2026-11-22T10:15:30Z`, found `{}`",
                    truncate(text)
                );
                found.push(Violation::new(name, "date-time", message));
            }
        }
        if let Some(cursor) = string_argument(arguments, "cursor")
            && let Err(violation) = cursor::decode_any(cursor)
        {
            found.push(violation);
        }
        found
    }

    /// What is wrong with a call that applies a plan and has these arguments, or does not and lacks
    /// what it needs then.
    fn beside_plan(&self, arguments: &Value) -> Vec<Violation> {
        if !self.known.has("plan") {
            return Vec::new();
        }
        if arguments.get("plan").is_none() {
            let missing = self
                .unless_plan
                .filter(|name| arguments.get(name).is_none());
            let missing = missing.map(|name| Violation::new(name, "required", "missing"));
            return missing.into_iter().collect();
        }
        let named = arguments.as_object().into_iter().flatten();
        let others = named.filter(|(name, value)| {
            let is_default = *name == "dryRun" && **value == Value::Bool(false);
            !is_default && !BESIDE_PLAN.contains(&name.as_str())
        });
        let refused = others.map(|(name, _)| {
            let message = "send `plan` without it: a plan is applied as it was shown; for another change, make a new dry run";
            Violation::new(name.as_str(), "alone", message)
        });
        refused.collect()
    }

    /// An argument that the tool does not have, with the argument or the field that was meant.
    fn unknown_argument(&self, name: &str) -> Violation {
        if let Some(meant) = self.known.meant_by_underscored(name) {
            let message = format!(
                "not ignored, because it may mean `{meant}`; send `{meant}`, or leave it out"
            );
            return Violation {
                suggestion: Some(meant.to_owned()),
                ..Violation::new(name, "unknown", message)
            };
        }
        self.unknown_name("argument", name, &self.known.names)
    }

    /// The same for a member of an update, where the tool takes several.
    fn unknown_member(&self, change: &str, name: &str) -> Violation {
        let mut violation = self.unknown_name("member of a change", name, &self.change_members);
        if NAMES_OF_TYPE.iter().any(|other| is_same_name(name, other)) {
            "unknown member of a change; did you mean `entityType`?"
                .clone_into(&mut violation.message);
            violation.suggestion = Some("entityType".to_owned());
        }
        violation.path = format!("{change}.{}", violation.path);
        violation
    }

    fn unknown_name(&self, what: &str, name: &str, known: &[String]) -> Violation {
        let is_name_of_id = NAMES_OF_ID.iter().any(|other| is_same_name(name, other));
        if is_name_of_id && known.iter().any(|known| known == "id") {
            let message = format!("unknown {what}; did you mean `id`?");
            return Violation {
                suggestion: Some("id".to_owned()),
                ..Violation::new(name, "unknown", message)
            };
        }
        let unknown = Violation::unknown(name, what, name, known.iter().map(String::as_str));
        let field = || {
            self.fields
                .iter()
                .find(|path| is_same_name(name, path))
                .or_else(|| self.fields.iter().find(|path| is_field_name(name, path)))
        };
        match &unknown.suggestion {
            None => match field() {
                Some(path) => misplaced_field(name, path),
                None => with_other_name(unknown, name, &self.known.names),
            },
            // A field of exactly this name is nearer.
            Some(meant) if !is_same_name(name, meant) => {
                field().map_or(unknown, |path| misplaced_field(name, path))
            }
            Some(_) => unknown,
        }
    }

    /// Points out unknown fields that are arguments of the tool: they belong beside `data`.
    pub(super) fn point_out_arguments(&self, violations: &mut [Violation]) {
        for violation in violations
            .iter_mut()
            .filter(|violation| violation.rule == "unknown")
        {
            let (names, path) = match change_arguments::split(&violation.path) {
                Some((_, path)) => (&self.change_members, path),
                None => (&self.known.names, violation.path.as_str()),
            };
            let argument = names
                .iter()
                .find(|name| *name != "data" && is_same_name(path, name));
            if let Some(argument) = argument {
                violation.message = format!(
                    "an argument of the tool, not a field; send `{argument}` beside `data`"
                );
                violation.suggestion = Some(argument.clone());
            }
        }
    }
}

/// Why a string that looks like a JSON object was not read as one.
fn unreadable_object(text: &str) -> Option<String> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    if let Err(too_deep) = check_depth(text.as_bytes()) {
        return Some(too_deep.to_string());
    }
    let parsed = serde_json::from_str::<Value>(text);
    Some(format!("it is not valid JSON ({})", parsed.err()?))
}

fn is_field_name(name: &str, path: &str) -> bool {
    path.rsplit('.')
        .next()
        .is_some_and(|last| is_same_name(name, last))
}

/// An unknown name, with the known one that other programs call so.
fn with_other_name(unknown: Violation, name: &str, known: &[String]) -> Violation {
    if unknown.suggestion.is_some() {
        return unknown;
    }
    let meant = OTHER_NAMES.iter().find(|(meant, others)| {
        known.iter().any(|known| known == meant)
            && others.iter().any(|other| is_same_name(name, other))
    });
    match meant {
        Some((meant, _)) => Violation {
            message: format!("{}; did you mean `{meant}`?", unknown.message),
            suggestion: Some((*meant).to_owned()),
            ..unknown
        },
        None => unknown,
    }
}

/// A field of the document that was sent beside `data`.
fn misplaced_field(name: &str, path: &str) -> Violation {
    let meant = format!("data.{path}");
    let message = format!("unknown argument; did you mean `{meant}`? Fields belong in `data`");
    Violation {
        suggestion: Some(meant),
        ..Violation::new(name, "unknown", message)
    }
}

fn string_argument<'a>(arguments: &'a Value, name: &str) -> Option<&'a str> {
    arguments.get(name).and_then(Value::as_str)
}

/// Reads a list of edits as clients send it: it or its elements as strings, and absent members as
/// `null` or, where that can be no value, as `""`.
fn normalize_edits(edits: &mut Value) {
    parse_json_string(edits, Value::is_array);
    for edit in edits.as_array_mut().into_iter().flatten() {
        parse_json_string(edit, Value::is_object);
        let Some(members) = edit.as_object_mut() else {
            continue;
        };
        members.retain(|name, value| match name.as_str() {
            "with" => !value.is_null(),
            "at" => !value.is_null() && value != "",
            _ => true,
        });
        members
            .get_mut("at")
            .into_iter()
            .for_each(normalize_integer);
    }
}

fn normalize_integer(value: &mut Value) {
    let integer = value.as_f64().filter(|number| {
        value.is_f64() && number.fract() == 0.0 && number.abs() < MAX_INTEGER_FLOAT
    });
    if let Some(number) = integer {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "has no fraction and is far below 2^63"
        )]
        let number = number as i64;
        *value = json!(number);
    }
}

/// The arguments of one update as clients send them: objects and lists as strings.
fn normalize_update(arguments: &mut JsonObject) {
    if let Some(data) = arguments.get_mut("data") {
        parse_json_string(data, Value::is_object);
    }
    if let Some(edits) = arguments.get_mut("edits") {
        normalize_edits(edits);
    }
}

/// The fields that `data` of a tool may hold.
fn written_fields(tool: ToolName) -> Vec<String> {
    match tool {
        ToolName::Update(kind) | ToolName::Create(kind) => rules_of(kind).editable_paths(),
        ToolName::UpdateMany => Kind::ALL
            .into_iter()
            .flat_map(|kind| rules_of(kind).editable_paths())
            .collect(),
        ToolName::List(_)
        | ToolName::Get(_)
        | ToolName::Delete(_)
        | ToolName::AuditLog
        | ToolName::AuditStats
        | ToolName::UndoChanges
        | ToolName::History
        | ToolName::Compare => Vec::new(),
    }
}

/// The names of what a schema declares.
fn names(properties: Option<&JsonObject>) -> Vec<String> {
    properties
        .into_iter()
        .flat_map(|names| names.keys().cloned())
        .collect()
}

/// What the arguments of an update declare for an edit.
fn edit_properties(properties: &JsonObject) -> Option<&JsonObject> {
    let edits = properties.get("edits")?;
    edits.get("items")?.get("properties")?.as_object()
}

/// The schema of a tool's arguments, with any object allowed as `data`, and any JSON as the values of
/// edits.
fn with_open_parts(schema: &JsonObject) -> Value {
    let mut schema = Value::Object(schema.clone());
    for update in ["", "/properties/changes/items"] {
        for (part, open) in [
            ("/properties/data", json!({ "type": "object" })),
            ("/properties/edits/items/properties/value", json!({})),
            ("/properties/edits/items/properties/with", json!({})),
        ] {
            if let Some(part) = schema.pointer_mut(&format!("{update}{part}")) {
                *part = open;
            }
        }
    }
    schema
}

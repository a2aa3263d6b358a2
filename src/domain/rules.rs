//! A content type's rules: made from its declaration, they check, publish and explain it.
//!
//! One declaration gives the check of documents, the schema of patches that clients see, and the
//! description of answers, so that a rule is written once. Rules that a schema cannot state are
//! checked beside it.

use std::{collections::HashSet, fmt::Write};

use jsonschema::{
    ValidationError, Validator,
    error::{TypeKind, ValidationErrorKind},
    paths::LocationSegment,
};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    field_path::{
        CREATED_AT, declared, declared_paths, is_optional, is_owned, is_required, join,
        names_nothing, ordered,
    },
    kind::DocumentKey,
    number::{is_integer_beyond, is_same},
    text::truncate,
    timestamp::Timestamp,
    unknown_field::{meant, not_editable, unknown_fields},
    violation::Violation,
};

/// Absolute http(s) URL, or a site path; never `//host`, which leaves the site, nor another scheme.
pub const LINK: &str = r"^([hH][tT][tT][pP][sS]?://[^\s/?#\\][^\x00-\x1f\x7f]*|/([^\s/\\\x00-\x1f\x7f][^\x00-\x1f\x7f]*)?)$";
/// Absolute http(s) URL.
pub const URL: &str = r"^[hH][tT][tT][pP][sS]?://[^\s/?#\\][^\x00-\x1f\x7f]*$";
/// Lower-case words joined by hyphens, with at least one letter (`is_slug` checks the rest).
pub const SLUG: &str = r"^[a-z0-9]+(-[a-z0-9]+)*$";

/// A caller's name for a write.
pub const KEY: &str = r"^[!-~]{1,128}$";

/// Largest stored document, in bytes (CONTRACT.md, section 1).
pub const MAX_BYTES: usize = 256 * 1024;

/// What to do about a time of creation that cannot be read, which the server does not replace.
const REPAIR_OF_CREATED_AT: &str =
    "; an update may set it to an RFC 3339 time, because the stored one cannot be read";

/// Integers beyond this lose digits in JavaScript, which shares the data: 2^53.
const MAX_INTEGER: u64 = 1 << 53;

/// Publication states.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase", inline)]
#[expect(
    missing_docs,
    reason = "a doc comment on a variant would turn the plain list of values into a list of schemas"
)]
pub enum Status {
    Published,
    Draft,
    Archived,
}

/// The rules of one content type.
pub struct Rules {
    document: Value,
    check: Validator,
    patch: Value,
    described: Value,
}

impl Rules {
    /// The rules that `D` declares.
    #[must_use]
    pub fn of<D: JsonSchema>() -> Self {
        let document = schema_of::<D>();
        let mut patch = document.clone();
        publish_patch(&mut patch, "");
        leave_out_text_rules(&mut patch);
        Self {
            check: validator(&document),
            described: describe_fields(&document),
            document,
            patch,
        }
    }

    /// The schema of a patch, as published: nothing required, nothing that the server owns, and no
    /// more rules than [`leave_out_text_rules`] leaves.
    #[must_use]
    pub fn patch_schema(&self) -> &Value {
        &self.patch
    }

    /// The fields of a document with their descriptions and without types, which older documents
    /// may not have.
    #[must_use]
    pub fn described(&self) -> &Value {
        &self.described
    }

    /// The top-level fields that every document has.
    pub fn required_fields(&self) -> impl Iterator<Item = &str> {
        let required = self.document.get("required").and_then(Value::as_array);
        required.into_iter().flatten().filter_map(Value::as_str)
    }

    /// Every declared rule that `document` breaks.
    #[must_use]
    pub fn violations(&self, document: &Value) -> Vec<Violation> {
        violations(&self.check, document)
    }

    /// Every rule that `document` breaks when it is stored at `key` in `bytes` bytes.
    #[must_use]
    pub fn violations_at(
        &self,
        key: &DocumentKey,
        document: &Value,
        bytes: usize,
    ) -> Vec<Violation> {
        let mut found = self.violations(document);
        match document.get("id") {
            Some(Value::String(id)) if *id != key.id => {
                found.push(Violation::new(
                    "id",
                    "key",
                    format!(
                        "expected `{}`, the id that the document is stored under, found `{}`",
                        truncate(&key.id),
                        truncate(id)
                    ),
                ));
            }
            _ => {}
        }
        for name in ["createdAt", "updatedAt"] {
            if let Some(Value::String(text)) = document
                .get("metadata")
                .and_then(|metadata| metadata.get(name))
                && Timestamp::parse(text).is_none()
            {
                let message = format!(
                    "expected an RFC 3339 time such as `2026-11-22T10:15:30.123Z`, found `{}`",
                    truncate(text)
                );
                found.push(Violation::new(
                    format!("metadata.{name}"),
                    "date-time",
                    message,
                ));
            }
        }
        let created = document.pointer("/metadata/createdAt");
        if created.is_some_and(|time| !time.is_null() && Timestamp::from_json(time).is_none()) {
            let of_it = found.iter_mut().filter(|it| it.path == CREATED_AT);
            of_it.for_each(|violation| violation.message.push_str(REPAIR_OF_CREATED_AT));
        }
        // Searched without paths first, at a fifth of the cost.
        if holds_large_integer(document) {
            large_integers(document, &mut String::new(), &mut found);
        }
        if bytes > MAX_BYTES {
            found.push(Violation::new(
                "",
                "size",
                format!("expected at most {MAX_BYTES} bytes of JSON, found {bytes}"),
            ));
        }
        found
    }

    /// `patch` without the members that equal the stored ones.
    #[must_use]
    pub fn pruned(
        &self,
        patch: &Map<String, Value>,
        stored: &Map<String, Value>,
    ) -> Map<String, Value> {
        pruned(&self.document, patch, Some(stored))
    }

    /// The members of `patch` that this content type does not know, or that only the server sets.
    ///
    /// A member that is equal to the stored one is accepted: clients send back whole documents.
    #[must_use]
    pub fn unknown_fields(
        &self,
        patch: &Map<String, Value>,
        stored: &Map<String, Value>,
    ) -> Vec<Violation> {
        unknown_fields(&self.document, patch, stored)
    }

    /// The JSON type of the field at `path`, if an update may change it.
    #[must_use]
    pub fn editable_type(&self, path: &str) -> Option<&str> {
        let field = declared(&self.document, path).filter(|_| !is_owned(path))?;
        field.get("type")?.as_str()
    }

    /// Why no update may change the field at `path`, with the field that was meant.
    #[must_use]
    pub fn not_editable(&self, path: &str, document: &Map<String, Value>) -> Violation {
        not_editable(&self.document, path, document)
    }

    /// The other field that a reader of the one at `path` may have meant.
    #[must_use]
    pub fn meant(&self, path: &str) -> Option<String> {
        meant(&self.document, path)
    }

    /// Whether `patch` names no field: what is left of one when a client leaves out every `null`.
    #[must_use]
    pub fn names_nothing(&self, patch: &Map<String, Value>) -> bool {
        names_nothing(&self.document, patch)
    }

    /// `document` with its members in the order in which they are declared.
    #[must_use]
    pub fn ordered(&self, document: Map<String, Value>) -> Map<String, Value> {
        ordered(&self.document, document)
    }

    /// Whether the field at `path` may be removed.
    #[must_use]
    pub fn is_optional(&self, path: &str) -> bool {
        is_optional(&self.document, path)
    }

    /// Every field of the document, at every depth, that a patch may set.
    #[must_use]
    pub fn editable_paths(&self) -> Vec<String> {
        let mut paths = declared_paths(&self.document);
        paths.retain(|path| !is_owned(path));
        paths
    }
}

/// A patch without the members that equal the stored ones: merging a stored `null` again would
/// remove it.
///
/// A `null` for a declared optional field stays, also where `null` is stored: it is meant to remove
/// the field.
fn pruned(
    schema: &Value,
    patch: &Map<String, Value>,
    stored: Option<&Map<String, Value>>,
) -> Map<String, Value> {
    let properties = schema.get("properties").and_then(Value::as_object);
    let removable = |name: &String| {
        properties.is_some_and(|properties| properties.contains_key(name))
            && !is_required(schema, name)
    };
    let mut left = Map::new();
    for (name, value) in patch {
        let there = stored.and_then(|stored| stored.get(name));
        let value = match (
            value,
            there,
            properties.and_then(|properties| properties.get(name)),
        ) {
            (value, Some(there), _)
                if is_same(value, there) && !(value.is_null() && removable(name)) =>
            {
                continue;
            }
            (Value::Object(members), Some(Value::Object(there)), Some(property)) => {
                Value::Object(pruned(property, members, Some(there)))
            }
            (value, _, _) => value.clone(),
        };
        left.insert(name.clone(), value);
    }
    left
}

/// The schema of `T`, self-contained and with plain types.
#[must_use]
pub fn schema_of<T: JsonSchema + ?Sized>() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    settings.meta_schema = None;
    let mut schema = settings
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value();
    flatten_types(&mut schema);
    if let Some(root) = schema.as_object_mut() {
        root.shift_remove("title");
    }
    schema
}

/// The check of a schema that this program publishes.
#[must_use]
pub fn validator(schema: &Value) -> Validator {
    jsonschema::draft202012::new(schema)
        .unwrap_or_else(|error| unreachable!("tests check the published schemas: {error}"))
}

/// Gives every optional member its plain type: `required` says what may be absent, not `null`.
fn flatten_types(schema: &mut Value) {
    let Value::Object(members) = schema else {
        if let Value::Array(items) = schema {
            items.iter_mut().for_each(flatten_types);
        }
        return;
    };
    if let Some(Value::Array(types)) = members.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            members.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = members.get_mut("enum") {
        choices.retain(|choice| !choice.is_null());
    }
    if let Some(Value::Array(choices)) = members.shift_remove("anyOf") {
        for choice in choices {
            if let Value::Object(choice) = choice
                && choice.get("type") != Some(&json!("null"))
            {
                for (name, member) in choice {
                    members.entry(name).or_insert(member);
                }
            }
        }
    }
    members.shift_remove("format");
    members.shift_remove("default");
    if let Some(Value::String(description)) = members.get_mut("description") {
        *description = description.replace('\n', " ");
    }
    for member in members.values_mut() {
        flatten_types(member);
    }
}

/// Turns the schema of a document into that of a patch.
fn publish_patch(schema: &mut Value, path: &str) {
    let Value::Object(members) = schema else {
        return;
    };
    let required = members.shift_remove("required").unwrap_or_default();
    let Some(Value::Object(properties)) = members.get_mut("properties") else {
        return;
    };
    properties.retain(|name, _| !is_owned(&join(path, name)));
    for (name, property) in properties {
        if !required
            .as_array()
            .is_some_and(|required| required.iter().any(|entry| entry == name))
            && let Some(Value::String(description)) = property.get_mut("description")
        {
            description.push_str(" `null` removes it.");
        }
        publish_patch(property, &join(path, name));
    }
}

/// Removes the rules that words say in less space: patterns, and that a text is not empty. Types,
/// choices, counts and lengths stay.
pub fn leave_out_text_rules(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            // A field may have the name of a rule, but then its value is an object.
            members.retain(|name, rule| {
                rule.is_object() || !matches!(name.as_str(), "pattern" | "minLength")
            });
            members.values_mut().for_each(leave_out_text_rules);
        }
        Value::Array(items) => items.iter_mut().for_each(leave_out_text_rules),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The top-level fields of a document, described and otherwise open.
fn describe_fields(document: &Value) -> Value {
    let mut fields = Map::new();
    if let Some(Value::Object(properties)) = document.get("properties") {
        for (name, property) in properties {
            let description = property.get("description");
            fields.insert(name.clone(), json!({ "description": description }));
        }
    }
    Value::Object(fields)
}

/// Every violation that `check` finds in `instance`, in our own words: the library's repeat whole
/// values.
#[must_use]
pub fn violations(check: &Validator, instance: &Value) -> Vec<Violation> {
    if check.is_valid(instance) {
        return Vec::new();
    }
    let mut found: Vec<Violation> = check
        .iter_errors(instance)
        .flat_map(|error| explain(&error))
        .collect();
    // A value of the wrong type also breaks the rules for its type. The type is what has to be
    // fixed.
    let mistyped: HashSet<String> = found
        .iter()
        .filter(|violation| violation.rule == "type")
        .map(|violation| violation.path.clone())
        .collect();
    found.retain(|violation| violation.rule == "type" || !mistyped.contains(&violation.path));
    found
}

fn path_of(error: &ValidationError<'_>) -> String {
    let segments = error.instance_path().into_iter();
    segments.fold(String::new(), |path, segment| match segment {
        LocationSegment::Property(name) => join(&path, &name),
        LocationSegment::Index(index) => format!("{path}[{index}]"),
    })
}

fn explain(error: &ValidationError<'_>) -> Vec<Violation> {
    let path = path_of(error);
    let rule = error.kind().keyword().to_owned();
    let found = describe(error.instance());
    let length = || {
        error
            .instance()
            .as_str()
            .map_or(0, |text| text.chars().count())
    };
    let items = || error.instance().as_array().map_or(0, Vec::len);
    let message = match error.kind() {
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            return vec![Violation::new(
                join(&path, name),
                rule,
                "missing, but required",
            )];
        }
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            return unexpected
                .iter()
                .map(|name| Violation::new(join(&path, name), "unknown", "unknown"))
                .collect();
        }
        ValidationErrorKind::Type { kind } => {
            format!("expected {}, found {found}", type_name(kind))
        }
        ValidationErrorKind::Enum { options } => {
            format!("expected {}, found {found}", alternatives(options))
        }
        ValidationErrorKind::MinLength { limit: 1 } => "expected a non-empty string".to_owned(),
        ValidationErrorKind::MinLength { limit } => {
            format!("expected at least {limit} characters, found {}", length())
        }
        ValidationErrorKind::MaxLength { limit } => {
            format!("expected at most {limit} characters, found {}", length())
        }
        ValidationErrorKind::MinItems { limit: 1 } => "expected a non-empty array".to_owned(),
        ValidationErrorKind::MaxItems { limit } => {
            format!("expected at most {limit} items, found {}", items())
        }
        ValidationErrorKind::Minimum { limit } => {
            format!("expected {limit} or more, found {found}")
        }
        ValidationErrorKind::Maximum { limit } => {
            format!("expected {limit} or less, found {found}")
        }
        ValidationErrorKind::Pattern { pattern } => {
            format!("expected {}, found {found}", pattern_name(pattern))
        }
        other => format!("breaks the rule `{}`, found {found}", other.keyword()),
    };
    vec![Violation::new(path, rule, message)]
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => format!("`{}`", truncate(&value.to_string())),
        Value::String(text) => format!("the string `{}`", truncate(text)),
        Value::Array(items) => format!("an array of {} items", items.len()),
        Value::Object(_) => "an object".to_owned(),
    }
}

fn type_name(kind: &TypeKind) -> String {
    let TypeKind::Single(kind) = kind else {
        return "another type".to_owned();
    };
    match kind.to_string().as_str() {
        kind @ ("array" | "object" | "integer") => format!("an {kind}"),
        kind => format!("a {kind}"),
    }
}

fn alternatives(options: &Value) -> String {
    let names: Vec<String> = options
        .as_array()
        .into_iter()
        .flatten()
        .map(|option| format!("`{}`", option.as_str().unwrap_or("?")))
        .collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((only, _)) => only.clone(),
        None => "nothing".to_owned(),
    }
}

fn pattern_name(pattern: &str) -> &str {
    match pattern {
        LINK => "an absolute http(s) URL or a site path such as `/images/a.png`",
        URL => "an absolute http(s) URL",
        KEY => "1 to 128 visible ASCII characters without spaces",
        SLUG => "lower-case words joined by hyphens, such as `rdv-artisan`",
        other => other,
    }
}

fn holds_large_integer(value: &Value) -> bool {
    match value {
        Value::Number(number) => is_integer_beyond(number, MAX_INTEGER),
        Value::Array(items) => items.iter().any(holds_large_integer),
        Value::Object(members) => members.values().any(holds_large_integer),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

/// Finds integers that JavaScript readers would change.
fn large_integers(value: &Value, path: &mut String, found: &mut Vec<Violation>) {
    let length = path.len();
    match value {
        Value::Number(number) => {
            if is_integer_beyond(number, MAX_INTEGER) {
                let message = format!(
                    "expected an integer within ±2^53, which JavaScript can represent, found `{}`",
                    truncate(number.as_str())
                );
                found.push(Violation::new(path.clone(), "integer", message));
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let _ = write!(path, "[{index}]");
                large_integers(item, path, found);
                path.truncate(length);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(name);
                large_integers(member, path, found);
                path.truncate(length);
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

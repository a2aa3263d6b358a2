//! What the two content types have in common: kinds, ids, stored records and broken rules.
//!
//! Documents stay JSON trees; nothing here turns one into a typed struct.

use std::{
    borrow::Cow,
    fmt::{self, Write},
    sync::{Arc, OnceLock},
};

use serde::Serialize;
use serde_json::{Map, Number, Value};
use sha2::{Digest, Sha256};

pub use super::text::truncate;
use super::{list::IndexEntry, project::Project, resource::Resource, rules::Rules};

/// Largest stored document, in bytes (CONTRACT.md, section 1).
pub const MAX_BYTES: usize = 256 * 1024;

/// Integers beyond this lose digits in JavaScript, which shares the data: 2^53.
const MAX_INTEGER: u64 = 1 << 53;

/// A content type: what `Project` and `Resource` have in common.
///
/// The struct declares the fields and their rules; documents themselves stay JSON trees.
pub trait Document: schemars::JsonSchema + Send + Sync + 'static {
    /// Names the keys, the file and the audit entries of this type.
    const KIND: Kind;

    /// The rules that the declaration turns into, made once.
    fn rules() -> &'static Rules;
}

/// The content types there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A client case study.
    Project,
    /// A downloadable good.
    Resource,
}

impl Kind {
    /// Every kind, in the order in which files and reports show them.
    pub const ALL: [Self; 2] = [Self::Project, Self::Resource];

    /// `project`, as the audit log writes it.
    #[must_use]
    pub fn singular(self) -> &'static str {
        match self {
            Self::Project => "project",
            Self::Resource => "resource",
        }
    }

    /// `projects`, as keys, files and tools write it.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::Project => "projects",
            Self::Resource => "resources",
        }
    }

    /// Reads what any program, old or new, wrote for a kind.
    #[must_use]
    pub fn from_stored(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| text == kind.singular() || text == kind.plural())
    }

    /// The rules of this kind's documents.
    #[must_use]
    pub fn rules(self) -> &'static Rules {
        match self {
            Self::Project => Project::rules(),
            Self::Resource => Resource::rules(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.singular())
    }
}

/// Where a document is: its kind and its id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentKey {
    /// The content type.
    pub kind: Kind,
    /// The id, which older programs did not always make a slug.
    pub id: String,
}

impl DocumentKey {
    /// The place of the document `id` among those of `kind`.
    #[must_use]
    pub fn new(kind: Kind, id: impl Into<String>) -> Self {
        Self {
            kind,
            id: id.into(),
        }
    }
}

impl fmt::Display for DocumentKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} `{}`", self.kind, truncate(&self.id))
    }
}

/// The rule that binds every new id: lower-case words joined by hyphens.
///
/// The website's client reads set members as JSON, so `123`, `true` and `null` would change type on the way.
#[must_use]
pub fn is_slug(id: &str) -> bool {
    id.len() <= 100
        && id.split('-').all(|word| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        })
        && id.bytes().any(|byte| byte.is_ascii_lowercase())
        && !matches!(id, "true" | "false" | "null")
}

/// The version of a document: the first 16 hexadecimal digits of the SHA-256 of its stored bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, schemars::JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Version(String);

impl Version {
    /// The version of a document that is stored as `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::of_checksum(&sha256_hex(bytes))
    }

    fn of_checksum(checksum: &str) -> Self {
        Self(checksum.chars().take(16).collect())
    }

    /// The 16 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The SHA-256 of `bytes` in lower-case hexadecimal digits.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0'));
    let mut digits = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        digits.push(digit(byte >> 4));
        digits.push(digit(byte & 15));
    }
    digits
}

/// A document as it is stored: the bytes, and the JSON object that they say. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Record {
    content: Arc<Content>,
    latest_entry: Option<Arc<str>>,
}

#[derive(Debug)]
struct Content {
    key: DocumentKey,
    text: String,
    document: Value,
    checksum: String,
    version: Version,
    compact: OnceLock<Option<String>>,
    violations: OnceLock<Vec<Violation>>,
    listing: OnceLock<IndexEntry>,
}

impl Record {
    /// Reads what is stored at `key`.
    ///
    /// # Errors
    /// What is wrong with it, when it is not a JSON object.
    pub fn parse(key: DocumentKey, text: String) -> Result<Self, String> {
        let document = match serde_json::from_str(&text) {
            Ok(document @ Value::Object(_)) => document,
            Ok(_) => return Err("it is JSON, but not an object".to_owned()),
            Err(error) => return Err(format!("it is not JSON: {error}")),
        };
        Ok(Self::new(key, text, document, OnceLock::new()))
    }

    /// The record that storing `document` at `key` gives.
    #[must_use]
    pub fn of(key: DocumentKey, document: Map<String, Value>) -> Self {
        let document = Value::Object(document);
        Self::new(key, compact_json(&document), document, OnceLock::from(None))
    }

    fn new(
        key: DocumentKey,
        text: String,
        document: Value,
        compact: OnceLock<Option<String>>,
    ) -> Self {
        let checksum = sha256_hex(text.as_bytes());
        let version = Version::of_checksum(&checksum);
        let content = Content {
            key,
            text,
            document,
            checksum,
            version,
            compact,
            violations: OnceLock::new(),
            listing: OnceLock::new(),
        };
        Self {
            content: Arc::new(content),
            latest_entry: None,
        }
    }

    /// Adds this document's newest audit entry, whose hash the next entry carries.
    #[must_use]
    pub fn with_latest_entry(mut self, latest_entry: Option<impl Into<Arc<str>>>) -> Self {
        self.latest_entry = latest_entry.map(Into::into);
        self
    }

    /// Where it is stored; the id in here is the one that finds it again.
    #[must_use]
    pub fn key(&self) -> &DocumentKey {
        &self.content.key
    }

    /// The stored text, byte for byte.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.content.text
    }

    /// The document as compact JSON, which is mostly the stored text.
    #[must_use]
    pub fn compact(&self) -> &str {
        let other = self.content.compact.get_or_init(|| {
            Some(compact_json(&self.content.document)).filter(|text| *text != self.content.text)
        });
        other.as_deref().unwrap_or(&self.content.text)
    }

    /// The document as JSON.
    #[must_use]
    pub fn json(&self) -> &Value {
        &self.content.document
    }

    /// The document.
    #[must_use]
    pub fn document(&self) -> &Map<String, Value> {
        // `parse` lets nothing else through.
        self.content
            .document
            .as_object()
            .unwrap_or_else(|| unreachable!("a record's document is an object"))
    }

    /// The document, given away; `None` if this is not the last handle on it.
    #[must_use]
    pub fn into_document(self) -> Option<Map<String, Value>> {
        match Arc::into_inner(self.content)?.document {
            Value::Object(document) => Some(document),
            _ => None,
        }
    }

    /// What `expectedVersion` is compared with.
    #[must_use]
    pub fn version(&self) -> &Version {
        &self.content.version
    }

    /// SHA-256 of the stored bytes, in hexadecimal digits.
    #[must_use]
    pub fn checksum(&self) -> &str {
        &self.content.checksum
    }

    /// The stored text of this document's newest audit entry, when it was read along.
    #[must_use]
    pub fn latest_entry(&self) -> Option<&str> {
        self.latest_entry.as_deref()
    }

    /// The rules that this document breaks.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        self.content.violations.get_or_init(|| {
            violations(
                &self.content.key,
                &self.content.document,
                self.content.text.len(),
            )
        })
    }

    fn metadata(&self, name: &str) -> Option<&Value> {
        self.document().get("metadata")?.get(name)
    }

    /// Whether the website shows this document.
    #[must_use]
    pub fn is_published(&self) -> bool {
        self.metadata("status").and_then(Value::as_str) == Some("published")
    }

    /// Whether this document is featured.
    #[must_use]
    pub fn is_featured(&self) -> bool {
        self.metadata("featured") == Some(&Value::Bool(true))
    }

    /// What lists need of this document.
    #[must_use]
    pub fn listing(&self) -> &IndexEntry {
        self.content
            .listing
            .get_or_init(|| IndexEntry::of(&self.content.key, self.document()))
    }
}

/// Compact JSON of a value whose maps have texts for names; half the cost of `Value::to_string`, which checks every piece of text again.
#[must_use]
pub fn compact_json(value: &impl Serialize) -> String {
    serde_json::to_string(value)
        .unwrap_or_else(|error| unreachable!("these have texts for names: {error}"))
}

/// A broken rule: where, which, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Dotted path of the value (`client.type`, `tags[2]`); empty for the whole document.
    #[serde(serialize_with = "shortened")]
    pub path: String,
    /// What is expected, and what was found instead.
    pub message: String,
    /// For an unknown name, the nearest known one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
    /// The name of the rule, which with the path tells two violations apart.
    #[serde(skip)]
    pub rule: Cow<'static, str>,
}

fn shortened<S: serde::Serializer>(path: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&truncate(path))
}

impl Violation {
    /// A violation of `rule` at `path`.
    pub fn new(
        path: impl Into<String>,
        rule: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
            suggestion: None,
            rule: rule.into(),
        }
    }

    /// A name that nothing knows, with the nearest of those that exist.
    pub fn unknown<'a>(
        path: impl Into<String>,
        what: &str,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let suggestion = nearest(name, known);
        let hint = suggestion
            .as_ref()
            .map(|name| format!("; did you mean `{name}`?"))
            .unwrap_or_default();
        Self {
            suggestion,
            ..Self::new(path, "unknown", format!("unknown {what}{hint}"))
        }
    }

    /// Whether both are the same rule at the same place.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        self.path == other.path && self.rule == other.rule
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            formatter.write_str(&self.message)
        } else {
            write!(formatter, "{}: {}", truncate(&self.path), self.message)
        }
    }
}

/// The nearest of the `known` names, if one is near enough to be meant.
fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    if name.len() > 100 {
        return None;
    }
    let folded = name.to_lowercase();
    known
        .into_iter()
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&folded, &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, candidate)| *distance <= 1 + candidate.chars().count() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate.to_owned())
}

/// Every rule that `document` breaks when it is stored at `key` in `bytes` bytes.
fn violations(key: &DocumentKey, document: &Value, bytes: usize) -> Vec<Violation> {
    let mut found = key.kind.rules().violations(document);
    match document.get("id") {
        Some(Value::String(id)) if *id != key.id => {
            found.push(Violation::new(
                "id",
                "key",
                format!(
                    "expected `{}`, the id it is stored under, found `{}`",
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
            && super::Timestamp::parse(text).is_none()
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
    // Looked for without paths first, which is a fifth of the cost.
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

/// Whether JavaScript readers would change this number.
fn is_large_integer(number: &Number) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "2^53 is exact")]
    match number
        .as_i64()
        .map(i64::unsigned_abs)
        .or_else(|| number.as_u64())
    {
        Some(magnitude) => magnitude > MAX_INTEGER,
        // Integers of more than 64 bits are read as floats.
        None => number
            .as_f64()
            .is_some_and(|float| float.fract() == 0.0 && float.abs() > MAX_INTEGER as f64),
    }
}

fn holds_large_integer(value: &Value) -> bool {
    match value {
        Value::Number(number) => is_large_integer(number),
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
            if is_large_integer(number) {
                let message = format!(
                    "expected an integer within ±2^53, which every reader keeps, found `{number}`"
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_lower_case_words_with_a_letter() {
        for id in ["rdv-artisan", "a", "2024-review", "x1"] {
            assert!(is_slug(id), "{id}");
        }
        for id in [
            "",
            "Rdv",
            "a--b",
            "-a",
            "a-",
            "../x",
            "123",
            "true",
            "null",
            "é",
            "a b",
            &"a".repeat(101),
        ] {
            assert!(!is_slug(id), "{id}");
        }
    }

    #[test]
    fn the_version_is_the_beginning_of_the_sha_256_of_the_bytes() {
        assert_eq!(Version::of(b"abc").as_str(), "ba7816bf8f01cfea");
    }
}

//! A stored document: its text, and the JSON object that the text holds.
//!
//! Documents stay JSON trees; nothing here turns one into a typed struct.

use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value};

use super::{
    content_type::rules,
    json::{Repairs, parse_object},
    kind::DocumentKey,
    list::IndexEntry,
    text::compact_json,
    version::{Version, sha256_hex},
    violation::Violation,
};

/// A document as it is stored: the bytes, and the JSON object that they say. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Record {
    content: Arc<Content>,
}

#[derive(Debug)]
struct Content {
    key: DocumentKey,
    text: String,
    document: Value,
    repairs: Repairs,
    checksum: String,
    version: Version,
    compact: OnceLock<Option<String>>,
    violations: OnceLock<Vec<Violation>>,
    index_entry: OnceLock<IndexEntry>,
}

impl Record {
    /// Parses the text that is stored at `key`. What JavaScript programs leave is read, and is among
    /// the [violations](Self::violations).
    ///
    /// # Errors
    /// What is wrong with it, when it is not a JSON object.
    pub fn parse(key: DocumentKey, text: String) -> Result<Self, String> {
        let (document, repairs) = parse_object(&text)?;
        let document = Value::Object(document);
        Ok(Self::new(key, text, document, repairs, OnceLock::new()))
    }

    /// The record that storing `document` at `key` gives.
    #[must_use]
    pub fn of(key: DocumentKey, document: Map<String, Value>) -> Self {
        let document = Value::Object(document);
        let text = compact_json(&document);
        Self::new(
            key,
            text,
            document,
            Repairs::default(),
            OnceLock::from(None),
        )
    }

    /// The document as it was when it had `version`, computed from the log. It is the same JSON, but
    /// its members may be in another order than they were in the stored text.
    #[must_use]
    pub(super) fn past(key: DocumentKey, document: Map<String, Value>, version: Version) -> Self {
        let document = Value::Object(document);
        let text = compact_json(&document);
        let compact = OnceLock::from(None);
        let checksum = sha256_hex(text.as_bytes());
        let read = (document, Repairs::default());
        Self::with_version(key, text, read, compact, (checksum, version))
    }

    fn new(
        key: DocumentKey,
        text: String,
        document: Value,
        repairs: Repairs,
        compact: OnceLock<Option<String>>,
    ) -> Self {
        let checksum = sha256_hex(text.as_bytes());
        let version = Version::of_checksum(&checksum);
        Self::with_version(key, text, (document, repairs), compact, (checksum, version))
    }

    fn with_version(
        key: DocumentKey,
        text: String,
        (document, repairs): (Value, Repairs),
        compact: OnceLock<Option<String>>,
        (checksum, version): (String, Version),
    ) -> Self {
        let content = Content {
            key,
            text,
            document,
            repairs,
            checksum,
            version,
            compact,
            violations: OnceLock::new(),
            index_entry: OnceLock::new(),
        };
        Self {
            content: Arc::new(content),
        }
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

    /// The rules that this document breaks, and what is stored differently from how it is read.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        self.content.violations.get_or_init(|| {
            let content = &self.content;
            let rules = rules(content.key.kind);
            let found = rules.violations_at(&content.key, &content.document, content.text.len());
            content.repairs.violations().chain(found).collect()
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
    pub fn index_entry(&self) -> &IndexEntry {
        self.content
            .index_entry
            .get_or_init(|| IndexEntry::of(&self.content.key, self.document()))
    }
}

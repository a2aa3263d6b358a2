//! The form of successful answers, and the schemas that promise it.
//!
//! They promise only what every stored document satisfies: the envelope is typed, documents are described and open,
//! because a strict client refuses to show a document that breaks the promised schema.

use std::{borrow::Cow, collections::BTreeMap, marker::PhantomData, sync::Arc, time::Duration};

use rmcp::{
    ErrorData,
    handler::server::tool::IntoCallToolResult,
    model::{CallToolResponse, CallToolResult, ContentBlock, JsonObject},
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::domain::{Document, Record, Version, Violation, rules, text::compact_json};

/// A list carries so many warnings at most; the rest is counted.
const MOST_WARNINGS: usize = 20;

/// The published schema of answer `A`.
pub(super) fn schema<A: JsonSchema>() -> Arc<JsonObject> {
    match rules::schema_of::<A>() {
        Value::Object(mut schema) => {
            schema.shift_remove("description");
            Arc::new(schema)
        }
        _ => Arc::default(),
    }
}

/// A successful answer.
#[derive(JsonSchema)]
pub(super) struct ToolOutput<T, M> {
    /// Always true; a failed call has isError instead.
    success: bool,
    data: T,
    /// About this answer.
    meta: M,
}

impl<T, M> ToolOutput<T, M> {
    pub(super) fn new(data: T, meta: M) -> Self {
        Self {
            success: true,
            data,
            meta,
        }
    }
}

impl<T> ToolOutput<T, UpdateMeta> {
    /// Adds a remark.
    pub(super) fn warn(&mut self, warning: &str) {
        self.meta.warnings.push(warning.to_owned());
    }
}

/// What an answer is about: as JSON, and as the text of the same JSON.
pub(super) trait Content {
    fn text(&self) -> Cow<'_, str>;
    fn into_json(self) -> Value;
}

/// Structured content, and the same JSON, compact, as text.
impl<T: Content, M: Serialize> IntoCallToolResult for ToolOutput<T, M> {
    fn into_call_tool_result(self) -> Result<CallToolResponse, ErrorData> {
        let meta = json!(self.meta);
        let (data, about) = (self.data.text(), compact_json(&meta));
        let text = [
            "{\"success\":",
            if self.success { "true" } else { "false" },
            ",\"data\":",
            &data,
            ",\"meta\":",
            &about,
            "}",
        ]
        .concat();
        let mut answer = Map::with_capacity(3);
        answer.insert("success".to_owned(), Value::Bool(self.success));
        answer.insert("data".to_owned(), self.data.into_json());
        answer.insert("meta".to_owned(), meta);
        let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
        result.structured_content = Some(Value::Object(answer));
        Ok(result.into())
    }
}

/// A whole document of type `D`, with its compact text, which is mostly at hand: printing it again costs as much as all else.
pub(super) struct DocumentBody<D> {
    record: Record,
    kind: PhantomData<fn() -> D>,
}

impl<D> DocumentBody<D> {
    pub(super) fn new(record: &Record) -> Self {
        Self {
            record: record.clone(),
            kind: PhantomData,
        }
    }
}

impl<D> Content for DocumentBody<D> {
    fn text(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.record.compact())
    }

    fn into_json(self) -> Value {
        self.record.json().clone()
    }
}

impl<D: Document> JsonSchema for DocumentBody<D> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        D::schema_name()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        open(D::rules().described())
    }
}

/// Documents of type `D`, whole or as summary rows.
pub(super) struct SummaryRows<D>(Value, PhantomData<fn() -> D>);

impl<D> SummaryRows<D> {
    pub(super) fn new(rows: Vec<Map<String, Value>>) -> Self {
        Self(rows.into_iter().map(Value::Object).collect(), PhantomData)
    }
}

impl<D> Content for SummaryRows<D> {
    fn text(&self) -> Cow<'_, str> {
        Cow::Owned(compact_json(&self.0))
    }

    fn into_json(self) -> Value {
        self.0
    }
}

impl<D: Document> JsonSchema for SummaryRows<D> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Owned(format!("{}Rows", D::schema_name()))
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut fields = D::rules().described().clone();
        for (name, description) in [
            ("status", "In a summary: `metadata.status`."),
            ("featured", "In a summary: `metadata.featured`."),
            ("updatedAt", "In a summary: `metadata.updatedAt`."),
            (
                "version",
                "In a summary: the version, to pass as expectedVersion.",
            ),
        ] {
            if let Some(fields) = fields.as_object_mut() {
                fields.insert(name.to_owned(), json!({ "description": description }));
            }
        }
        let row = open(&fields);
        schemars::json_schema!({ "type": "array", "items": row })
    }
}

/// Entries of the audit log, by whichever program they were written.
pub(super) struct Entries(Value);

impl Entries {
    pub(super) fn new(entries: Vec<Value>) -> Self {
        Self(Value::Array(entries))
    }
}

impl Content for Entries {
    fn text(&self) -> Cow<'_, str> {
        Cow::Owned(compact_json(&self.0))
    }

    fn into_json(self) -> Value {
        self.0
    }
}

impl JsonSchema for Entries {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Entries")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let entry = open(&entry_fields());
        schemars::json_schema!({ "type": "array", "items": entry })
    }
}

/// The audit log in numbers.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stats {
    /// How many entries the log holds.
    pub total_entries: u64,
    /// How many of each action.
    pub entries_by_action: BTreeMap<String, u64>,
    /// How many for each kind of document.
    pub entries_by_entity_type: BTreeMap<String, u64>,
    /// How many from each source.
    pub entries_by_source: BTreeMap<String, u64>,
    /// The newest entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Map<String, Value>>")]
    pub latest_entry: Option<Value>,
    /// The newest ten entries.
    #[schemars(with = "Vec<Map<String, Value>>")]
    pub recent_activity: Vec<Value>,
}

impl Content for Stats {
    fn text(&self) -> Cow<'_, str> {
        Cow::Owned(compact_json(&json!(self)))
    }

    fn into_json(self) -> Value {
        json!(self)
    }
}

/// Where an answer comes from.
pub(super) struct Freshness {
    pub source: String,
    pub stale: bool,
    pub age_ms: Option<u64>,
}

impl Freshness {
    /// That of what the store called `store` was asked for, or of a copy that is so old.
    pub(super) fn of(store: &str, saved: Option<Duration>) -> Self {
        let age_ms = saved.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        Self {
            source: if saved.is_some() { "snapshot" } else { store }.to_owned(),
            stale: saved.is_some(),
            age_ms,
        }
    }
}

/// About a list.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListMeta {
    /// When it was answered.
    pub timestamp: String,
    /// Where it comes from: `redis`, `sqlite` or `snapshot`.
    pub source: String,
    /// The store is away: this is the server's copy of what it held.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(default)]
    pub stale: bool,
    /// How old that copy is, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
    /// How many match, on all pages.
    pub total: usize,
    /// Pass it as cursor to get the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// Stored documents that break rules or cannot be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub warnings: Vec<String>,
}

/// About one document.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DocumentMeta {
    /// When it was answered.
    pub timestamp: String,
    /// Where it comes from: `redis`, `sqlite` or `snapshot`.
    pub source: String,
    /// The store is away: this is the server's copy of what it held.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(default)]
    pub stale: bool,
    /// How old that copy is, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
    /// The document's version, to pass as expectedVersion.
    pub version: Version,
    /// Rules that the stored document breaks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub warnings: Vec<String>,
}

/// About an update.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct UpdateMeta {
    /// When it was answered.
    pub timestamp: String,
    /// Where it went: `redis` or `sqlite`.
    pub source: String,
    /// The document's version; in a dry run, the stored one.
    pub version: Version,
    /// The entry in the audit log; absent when nothing was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit_id: Option<String>,
    /// What was changed, or would be; empty when the document was already so.
    #[schemars(with = "Vec<Map<String, Value>>")]
    pub changes: Value,
    /// Nothing was written: this is what would be.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(default)]
    pub dry_run: bool,
    /// An earlier call with the same idempotencyKey did it; nothing was written again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(default)]
    pub replayed: bool,
    /// Rules that the stored document broke before and still breaks, and other remarks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub warnings: Vec<String>,
}

/// About a page of the audit log.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LogMeta {
    /// When it was answered.
    pub timestamp: String,
    /// Where it comes from: `redis`, `sqlite` or `snapshot`.
    pub source: String,
    /// The store is away: this is the server's copy of what it held.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(default)]
    pub stale: bool,
    /// How old that copy is, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
    /// Pass it as cursor to get older entries; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Violations as warnings.
pub(super) fn warnings(violations: &[Violation]) -> Vec<String> {
    limited(violations.iter().map(ToString::to_string).collect())
}

/// At most as many warnings as a reader wants to see.
pub(super) fn limited(mut warnings: Vec<String>) -> Vec<String> {
    if warnings.len() > MOST_WARNINGS {
        let more = warnings.len() - MOST_WARNINGS;
        warnings.truncate(MOST_WARNINGS);
        warnings.push(format!("and {more} more"));
    }
    warnings
}

fn open(fields: &Value) -> Schema {
    schemars::json_schema!({ "type": "object", "properties": fields, "additionalProperties": true })
}

fn entry_fields() -> Value {
    json!({
        "id": { "description": "Unique id of the entry." },
        "seq": { "description": "Number among all writes." },
        "timestamp": { "description": "When it was written." },
        "action": { "description": "create, update, delete, read or revert." },
        "entityType": { "description": "project or resource." },
        "entityId": { "description": "Id of the document." },
        "source": { "description": "mcp, api or admin." },
        "changes": { "description": "Each changed field with oldValue and newValue; an absent value means that the field was not there." },
        "metadata": { "description": "Who, how and why, as far as it is known." },
    })
}

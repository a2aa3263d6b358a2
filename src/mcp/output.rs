//! Successful tool results and their published schemas.
//!
//! The schemas type the envelope only. Documents are described but left open, because old documents
//! may break any rule and strict clients reject results that do not match the schema.

use std::{borrow::Cow, collections::BTreeMap, marker::PhantomData, sync::Arc};

use rmcp::{
    ErrorData,
    handler::server::tool::IntoCallToolResult,
    model::{CallToolResponse, CallToolResult, ContentBlock, JsonObject},
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::meta::UpdateMeta;
use crate::domain::{
    Document, Kind, Record, rules,
    text::{compact_json, escape_special_spaces},
};

/// An answer has no more text than this, unless one document or one entry alone is larger; see
/// CONTRACT.md, section 2.
pub(super) const MAX_ANSWER_BYTES: usize = 32_000;

/// What an answer needs beside its rows, its changes and its known `meta`: the envelope, and warnings
/// that are added to every answer.
pub(super) const RESERVED_BYTES: usize = 1500;

/// A value as the text of an answer writes it, so that its length can be counted.
pub(super) fn answer_text(value: &impl Serialize) -> String {
    escape_special_spaces(compact_json(value))
}

/// What an answer has room for beside its document and the `meta` so far.
///
/// A document that leaves no room for the rest of an answer counts as one that is larger than an
/// answer by itself: it stays whole, and what is beside it may fill an answer.
pub(super) fn room_beside(document: &impl ToolData, meta: &impl Serialize) -> usize {
    let room = MAX_ANSWER_BYTES - RESERVED_BYTES;
    let room = room.checked_sub(document.text_len()).unwrap_or(room);
    room.saturating_sub(answer_text(meta).len())
}

/// The published schema of the result `O`.
pub(super) fn schema<O: JsonSchema>() -> Arc<JsonObject> {
    match rules::schema_of::<O>() {
        Value::Object(mut schema) => {
            schema.shift_remove("description");
            Arc::new(schema)
        }
        _ => Arc::default(),
    }
}

/// A successful result.
#[derive(JsonSchema)]
pub(super) struct ToolOutput<T, M> {
    /// Always true. A failed call returns isError instead.
    success: bool,
    data: T,
    /// About this result.
    pub(super) meta: M,
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
    pub(super) fn add_warning(&mut self, warning: &str) {
        self.meta.warnings.push(warning.to_owned());
    }
}

/// The `data` member of a result.
pub(super) trait ToolData {
    /// Compact JSON.
    fn text(&self) -> Cow<'_, str>;
    /// The same JSON as a value.
    fn into_json(self) -> Value;
    /// The length of the text as it is sent.
    fn text_len(&self) -> usize {
        escape_special_spaces(self.text().into_owned()).len()
    }
}

/// Structured content, and the same JSON as text.
impl<T: ToolData, M: Serialize> IntoCallToolResult for ToolOutput<T, M> {
    fn into_call_tool_result(self) -> Result<CallToolResponse, ErrorData> {
        let meta = json!(self.meta);
        let text = escape_special_spaces(format!(
            r#"{{"success":{},"data":{},"meta":{}}}"#,
            self.success,
            self.data.text(),
            compact_json(&meta)
        ));
        let mut structured = Map::with_capacity(3);
        structured.insert("success".to_owned(), Value::Bool(self.success));
        structured.insert("data".to_owned(), self.data.into_json());
        structured.insert("meta".to_owned(), meta);
        let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
        result.structured_content = Some(Value::Object(structured));
        Ok(result.into())
    }
}

/// A whole document of type `D`. Keeps the record for its compact text: serializing the document
/// again would cost as much as the rest of the call.
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

impl<D> ToolData for DocumentBody<D> {
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
        open_object(D::rules().described())
    }
}

/// The document that an update leaves: its summary row, or the whole document.
pub(super) enum UpdatedDocument<D> {
    Row(Value),
    Full(DocumentBody<D>),
}

impl<D> UpdatedDocument<D> {
    pub(super) fn row(row: JsonObject) -> Self {
        Self::Row(Value::Object(row))
    }

    pub(super) fn full(record: &Record) -> Self {
        Self::Full(DocumentBody::new(record))
    }
}

impl<D> ToolData for UpdatedDocument<D> {
    fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Row(row) => Cow::Owned(compact_json(row)),
            Self::Full(document) => document.text(),
        }
    }

    fn into_json(self) -> Value {
        match self {
            Self::Row(row) => row,
            Self::Full(document) => document.into_json(),
        }
    }
}

impl<D: Document> JsonSchema for UpdatedDocument<D> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Owned(format!("{}Updated", D::schema_name()))
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        open_object(&row_fields::<D>())
    }
}

/// A listed document, whole or as a summary, and how much text it is.
pub(super) struct Row {
    value: Value,
    text: String,
}

impl Row {
    pub(super) fn new(members: JsonObject) -> Self {
        let value = Value::Object(members);
        Self {
            text: answer_text(&value),
            value,
        }
    }

    /// What it adds to the text of an answer, with the comma after it.
    pub(super) fn bytes(&self) -> usize {
        self.text.len() + 1
    }
}

/// Documents of type `D`, whole or as summary rows.
pub(super) struct SummaryRows<D>(Vec<Row>, PhantomData<fn() -> D>);

impl<D> SummaryRows<D> {
    pub(super) fn new(rows: Vec<Row>) -> Self {
        Self(rows, PhantomData)
    }
}

impl<D> ToolData for SummaryRows<D> {
    fn text(&self) -> Cow<'_, str> {
        let texts: Vec<&str> = self.0.iter().map(|row| row.text.as_str()).collect();
        Cow::Owned(format!("[{}]", texts.join(",")))
    }

    fn into_json(self) -> Value {
        self.0.into_iter().map(|row| row.value).collect()
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
        let row = open_object(&row_fields::<D>());
        schemars::json_schema!({ "type": "array", "items": row })
    }
}

/// The fields of documents of type `D`, and those that only a summary row has.
fn row_fields<D: Document>() -> Value {
    let mut fields = D::rules().described().clone();
    for (name, description) in [
        ("status", "Summary rows only: `metadata.status`."),
        ("featured", "Summary rows only: `metadata.featured`."),
        ("updatedAt", "Summary rows only: `metadata.updatedAt`."),
        (
            "version",
            "Summary rows only: the version, to send as expectedVersion.",
        ),
        (
            "downloadCount",
            "Summary rows only: `metadata.downloadCount`.",
        ),
    ] {
        if name == "downloadCount" && D::KIND == Kind::Project {
            continue;
        }
        if let Some(fields) = fields.as_object_mut() {
            fields.insert(name.to_owned(), json!({ "description": description }));
        }
    }
    fields
}

/// Entries of the audit log. Other programs may have written them, so they are left open too.
pub(super) struct AuditEntries(Value);

impl AuditEntries {
    pub(super) fn new(entries: Vec<Value>) -> Self {
        Self(Value::Array(entries))
    }
}

impl ToolData for AuditEntries {
    fn text(&self) -> Cow<'_, str> {
        Cow::Owned(compact_json(&self.0))
    }

    fn into_json(self) -> Value {
        self.0
    }
}

impl JsonSchema for AuditEntries {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Entries")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let entry = open_object(&entry_fields());
        schemars::json_schema!({ "type": "array", "items": entry })
    }
}

/// The documents that a call changed together.
pub(super) struct ChangedDocuments(Value);

impl ChangedDocuments {
    pub(super) fn new(rows: Vec<Value>) -> Self {
        Self(Value::Array(rows))
    }
}

impl ToolData for ChangedDocuments {
    fn text(&self) -> Cow<'_, str> {
        Cow::Owned(compact_json(&self.0))
    }

    fn into_json(self) -> Value {
        self.0
    }
}

impl JsonSchema for ChangedDocuments {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("ChangedDocuments")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let row = open_object(&json!({
            "entityType": { "description": "project or resource." },
            "entityId": { "description": "Id of the document." },
            "title": { "description": "Its title." },
            "deleted": { "description": "true: the document is deleted." },
            "auditId": { "description": "Id of the audit log entry; absent if nothing was written." },
            "version": { "description": "The document's version; in a dry run, the stored version." },
            "changes": { "description": "Every changed field with oldValue and newValue, as in the audit log." },
            "more": { "description": "Number of changes that are not listed." },
        }));
        schemars::json_schema!({ "type": "array", "items": row })
    }
}

/// The documents that a comparison found to differ.
pub(super) struct DifferingDocuments(Value);

impl DifferingDocuments {
    pub(super) fn new(rows: Vec<Value>) -> Self {
        Self(Value::Array(rows))
    }
}

impl ToolData for DifferingDocuments {
    fn text(&self) -> Cow<'_, str> {
        Cow::Owned(compact_json(&self.0))
    }

    fn into_json(self) -> Value {
        self.0
    }
}

impl JsonSchema for DifferingDocuments {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("DifferingDocuments")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let row = open_object(&json!({
            "entityType": { "description": "project or resource." },
            "entityId": { "description": "Id of the document." },
            "title": { "description": "Its title." },
            "action": { "description": "create, delete or update: what all changes between the two points together amount to." },
            "changes": { "description": "Every field that differs, with oldValue and newValue, as in the audit log." },
            "more": { "description": "Number of changes that are not listed." },
        }));
        schemars::json_schema!({ "type": "array", "items": row })
    }
}

/// Counters of the audit log, and its newest entries.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AuditCounts {
    /// Number of all entries.
    pub total_entries: u64,
    /// Number of entries for each action.
    pub entries_by_action: BTreeMap<String, u64>,
    /// Number of entries for each kind of document.
    pub entries_by_entity_type: BTreeMap<String, u64>,
    /// Number of entries for each source.
    pub entries_by_source: BTreeMap<String, u64>,
    /// The newest entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Map<String, Value>>")]
    pub latest_entry: Option<Value>,
    /// The newest entries, up to ten, with the names of the changed fields.
    #[schemars(with = "Vec<Map<String, Value>>")]
    pub recent_activity: Vec<Value>,
}

impl ToolData for AuditCounts {
    fn text(&self) -> Cow<'_, str> {
        Cow::Owned(compact_json(&json!(self)))
    }

    fn into_json(self) -> Value {
        json!(self)
    }
}

/// The schema of an object with these fields, and any others.
fn open_object(fields: &Value) -> Schema {
    schemars::json_schema!({ "type": "object", "properties": fields, "additionalProperties": true })
}

fn entry_fields() -> Value {
    json!({
        "seq": { "description": "Number of the write; increases by one with each write." },
        "auditId": { "description": "Unique id of the entry." },
        "timestamp": { "description": "When it was written." },
        "action": { "description": "create, update, delete, read or revert." },
        "entityType": { "description": "project or resource." },
        "entityId": { "description": "Id of the document." },
        "source": { "description": "mcp, api or admin." },
        "actor": { "description": "Who made the change: a token's name, or a user of the system." },
        "clientId": { "description": "With which client." },
        "transport": { "description": "How the call arrived: stdio, http, sse or cli." },
        "reason": { "description": "Why, in the caller's words." },
        "changes": { "description": "Every changed field with oldValue and newValue; one of them is absent if the field did not exist. A creation is its title and field names." },
        "more": { "description": "Number of changes that are not listed; detail `full` has them." },
        "id": { "description": "With detail `full`: unique id of the entry." },
        "metadata": { "description": "With detail `full`: who, with which client and why, as far as known, and the versions." },
    })
}

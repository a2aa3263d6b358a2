//! The tools' arguments. Doc comments on members are published as descriptions for models.

use std::sync::Arc;

use rmcp::model::JsonObject;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::{Document, Kind, Patch, rules};

/// The published schema of arguments `P`: self-contained, with plain types.
pub(super) fn schema<P: JsonSchema>() -> Arc<JsonObject> {
    let mut schema = match rules::schema_of::<P>() {
        serde_json::Value::Object(schema) => schema,
        _ => JsonObject::new(),
    };
    schema.shift_remove("description");
    schema
        .entry("properties")
        .or_insert_with(|| JsonObject::new().into());
    Arc::new(schema)
}

/// Publication states to filter by.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum Status {
    Published,
    Draft,
    Archived,
}

/// How much of each document or value to return.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum Detail {
    #[default]
    Summary,
    Full,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ListParams {
    /// Only documents with this status.
    pub status: Option<Status>,
    /// true: only featured documents; false: only the others.
    pub featured: Option<bool>,
    /// Only documents with this tag, ignoring case.
    #[schemars(length(min = 1, max = 200))]
    pub tag: Option<String>,
    /// Only documents with all these words in id, title, tags, description, result or price,
    /// ignoring case and accents.
    #[schemars(length(max = 200))]
    pub query: Option<String>,
    /// `summary` (default): one short row per document; `full`: whole documents.
    pub detail: Option<Detail>,
    /// Documents per page; default 20.
    #[schemars(range(min = 1, max = 100))]
    pub limit: Option<u32>,
    /// `meta.nextCursor` of the previous page; filters must be the same.
    pub cursor: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GetParams {
    /// Id of the document, such as `rdv-artisan`.
    #[schemars(length(min = 1, max = 500))]
    pub id: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, bound = "")]
pub(super) struct UpdateParams<D: Document> {
    /// Id of the document, such as `rdv-artisan`.
    #[schemars(length(min = 1, max = 500))]
    pub id: String,
    /// Only the fields to change. Objects are merged: `{"client":{"size":"20 people"}}` keeps the
    /// rest of `client`. Arrays and strings are replaced whole. `null` removes an optional field.
    pub data: Patch<D>,
    /// `meta.version` of the document you read; the change is refused if the document has changed
    /// since.
    #[schemars(length(min = 1, max = 100))]
    pub expected_version: Option<String>,
    /// true: check the change and show the result, but write nothing.
    pub dry_run: Option<bool>,
    /// Why the change is made, for the audit log.
    #[schemars(length(max = 500))]
    pub reason: Option<String>,
    /// A key you choose for this change (1 to 128 visible ASCII characters). Repeating the call
    /// with the same key within 24 hours returns the first result and writes nothing again.
    #[schemars(regex(pattern = rules::KEY))]
    pub idempotency_key: Option<String>,
}

/// Content types to filter by.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum EntityType {
    Project,
    Resource,
}

impl EntityType {
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Project => Kind::Project,
            Self::Resource => Kind::Resource,
        }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct AuditParams {
    /// Entries per page; default 20.
    #[schemars(range(min = 1, max = 500))]
    pub limit: Option<u32>,
    /// Only entries of this kind of document.
    pub entity_type: Option<EntityType>,
    /// Only entries of the document with this id.
    #[schemars(length(min = 1, max = 500))]
    pub entity_id: Option<String>,
    /// Only entries with this action: `create`, `update`, `delete`, `read`, `revert`, or one of an
    /// older program.
    #[schemars(length(min = 1, max = 50))]
    pub action: Option<String>,
    /// Only entries with this source: `mcp`, `api` or `admin`.
    #[schemars(length(min = 1, max = 50))]
    pub source: Option<String>,
    /// Only by this actor: a token's name, or a user of the system.
    #[schemars(length(min = 1, max = 200))]
    pub actor: Option<String>,
    /// Only by this client, such as `claude-code`, in any version.
    #[schemars(length(min = 1, max = 200))]
    pub client_id: Option<String>,
    /// Only changes of this field, such as `client.size`, or of one above or below it.
    #[schemars(length(min = 1, max = 500))]
    pub field: Option<String>,
    /// Only entries at or after this time, in RFC 3339 such as `2026-11-22T00:00:00Z`.
    pub since: Option<String>,
    /// Only entries before this time, in RFC 3339.
    pub until: Option<String>,
    /// `summary` (default): values over 200 characters become `{excerpt, characters}`; `full`:
    /// entries as stored.
    pub detail: Option<Detail>,
    /// `meta.nextCursor` of the previous page; filters must be the same.
    pub cursor: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NoParams {}

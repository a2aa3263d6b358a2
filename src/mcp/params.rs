//! The tools' arguments. Doc comments are read by models, as descriptions.

use rmcp::model::JsonObject;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::{Document, Kind, Patch, rules};
use std::sync::Arc;

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

/// How much of each document or value to answer.
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
    /// Only featured documents (true), or only the others (false).
    pub featured: Option<bool>,
    /// Only documents with this tag, whatever its case.
    #[schemars(length(min = 1, max = 200))]
    pub tag: Option<String>,
    /// Words that all occur in id, title, tags, description, result or price, whatever their case and accents.
    #[schemars(length(max = 200))]
    pub query: Option<String>,
    /// `summary` (the default) gives one short row a document, `full` whole documents.
    pub detail: Option<Detail>,
    /// Rows on a page, 1 to 100; 20 if left out.
    #[schemars(range(min = 1, max = 100))]
    pub limit: Option<u32>,
    /// `meta.nextCursor` of the page before, with the same filters.
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
    /// Only the fields to change. Objects are merged, so `{"client":{"size":"20 people"}}` leaves the rest of `client` as it is; lists and
    /// texts are replaced whole; `null` removes an optional field.
    pub data: Patch<D>,
    /// `meta.version` of the document as you read it: the change is refused if somebody changed it since.
    #[schemars(length(min = 1, max = 100))]
    pub expected_version: Option<String>,
    /// true checks the change and shows its result without writing anything.
    pub dry_run: Option<bool>,
    /// Why the change is made, for the audit log; up to 500 characters.
    #[schemars(length(max = 500))]
    pub reason: Option<String>,
    /// A name of your own for this change (1 to 128 visible ASCII characters): repeating the call with the same name within 24 hours
    /// answers as the first time and changes nothing again.
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
    /// Entries on a page, 1 to 500; 50 if left out.
    #[schemars(range(min = 1, max = 500))]
    pub limit: Option<u32>,
    /// Only changes of this kind of document.
    pub entity_type: Option<EntityType>,
    /// Only changes of the document with this id.
    #[schemars(length(min = 1, max = 500))]
    pub entity_id: Option<String>,
    /// Only this action: `create`, `update`, `delete`, `read`, `revert`, or what an older program wrote.
    #[schemars(length(min = 1, max = 50))]
    pub action: Option<String>,
    /// Only changes that came through `mcp`, `api` or `admin`.
    #[schemars(length(min = 1, max = 50))]
    pub source: Option<String>,
    /// Only entries of this time or later, as RFC 3339 such as `2026-11-22T00:00:00Z`.
    pub since: Option<String>,
    /// Only entries before this time, as RFC 3339.
    pub until: Option<String>,
    /// `summary` (the default) shows values of over 200 characters as `{excerpt, characters}`, `full` shows them whole.
    pub detail: Option<Detail>,
    /// `meta.nextCursor` of the page before, with the same filters.
    pub cursor: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NoParams {}

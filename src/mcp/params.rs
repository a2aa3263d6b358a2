//! The tools' arguments. Doc comments on members are published as descriptions for models.

use std::{borrow::Cow, sync::Arc};

use rmcp::model::JsonObject;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::tool_name::ToolName;
use crate::{
    domain::{
        Creations, Document, DocumentKey, Edit, Kind, MAX_EDITS, Origin, Patch, Project, Resource,
        rules,
    },
    service::{ApplyRequest, Mode, WriteOptions},
};

/// One undo names this many changes.
const MAX_AUDIT_IDS: usize = 200;
/// One call changes this many documents.
pub(super) const MAX_CHANGES: usize = 50;

/// The published schema of arguments `P`: self-contained, with plain types, and without the rules
/// that are checked all the same.
pub(super) fn schema<P: JsonSchema>() -> Arc<JsonObject> {
    let mut schema = rules::schema_of::<P>();
    rules::leave_out_text_rules(&mut schema);
    object(schema)
}

/// Every rule of a tool's arguments.
pub(super) fn checked_schema(tool: ToolName) -> Arc<JsonObject> {
    object(match tool {
        ToolName::List(_) => rules::schema_of::<ListParams>(),
        ToolName::Get(_) => rules::schema_of::<GetParams>(),
        ToolName::Update(Kind::Project) => rules::schema_of::<UpdateParams<Project>>(),
        ToolName::Update(Kind::Resource) => rules::schema_of::<UpdateParams<Resource>>(),
        ToolName::AuditLog => rules::schema_of::<AuditParams>(),
        ToolName::AuditStats => rules::schema_of::<NoParams>(),
        ToolName::UndoChanges => rules::schema_of::<UndoParams>(),
        ToolName::History => rules::schema_of::<HistoryParams>(),
        ToolName::Compare => rules::schema_of::<CompareParams>(),
        ToolName::Create(_) => rules::schema_of::<CreateParams>(),
        ToolName::Delete(_) => rules::schema_of::<DeleteParams>(),
        ToolName::UpdateMany => rules::schema_of::<ManyParams>(),
    })
}

fn object(schema: Value) -> Arc<JsonObject> {
    let mut schema = match schema {
        Value::Object(schema) => schema,
        _ => JsonObject::new(),
    };
    schema.shift_remove("description");
    schema
        .entry("properties")
        .or_insert_with(|| JsonObject::new().into());
    Arc::new(schema)
}

/// What the argument `dryRun` asks for.
pub(super) fn mode(dry_run: Option<bool>) -> Mode {
    match dry_run {
        Some(true) => Mode::DryRun,
        Some(false) | None => Mode::Commit,
    }
}

/// What the arguments of every write ask for.
pub(super) fn write_options(
    dry_run: Option<bool>,
    reason: Option<String>,
    idempotency_key: Option<String>,
    origin: Origin,
) -> WriteOptions {
    WriteOptions {
        mode: mode(dry_run),
        idempotency_key,
        origin: Origin {
            reason: reason.filter(|reason| !reason.is_empty()),
            ..origin
        },
    }
}

/// What a call that applies a plan asks for.
pub(super) fn apply_request(
    plan_id: String,
    tool: ToolName,
    key: Option<DocumentKey>,
    reason: Option<String>,
    idempotency_key: Option<String>,
    origin: Origin,
) -> ApplyRequest {
    ApplyRequest {
        plan_id,
        tool: Some(tool.as_str()),
        creations: Creations::Keep,
        key,
        idempotency_key,
        origin: Origin {
            reason: reason.filter(|reason| !reason.is_empty()),
            ..origin
        },
    }
}

/// Publication states to filter by.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline, description = "")]
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

impl Detail {
    /// What arguments that break rules ask for, as far as they can be understood.
    pub(super) fn of_arguments(arguments: &JsonObject) -> Self {
        if arguments
            .get("detail")
            .is_some_and(|detail| detail == "full")
        {
            Self::Full
        } else {
            Self::Summary
        }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ListParams {
    pub status: Option<Status>,
    pub featured: Option<bool>,
    #[schemars(length(min = 1, max = 200))]
    pub tag: Option<String>,
    /// All these words, anywhere in id, tags and texts (not in results and insight), whatever case
    /// and accents.
    #[schemars(length(max = 200))]
    pub query: Option<String>,
    /// `summary` (default): short rows; `full`: whole documents.
    pub detail: Option<Detail>,
    /// Default 20.
    #[schemars(range(min = 1, max = 100))]
    pub limit: Option<u32>,
    /// `meta.nextCursor` of the last page; same filters.
    pub cursor: Option<String>,
    /// As of a time (RFC 3339) or an audit id.
    #[schemars(length(min = 1, max = 200))]
    pub as_of: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct GetParams {
    /// Such as `rdv-artisan`.
    #[schemars(length(min = 1, max = 500))]
    pub id: String,
    /// As of a time (RFC 3339) or an audit id.
    #[schemars(length(min = 1, max = 200))]
    pub as_of: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, bound = "")]
pub(super) struct UpdateParams<D: Document> {
    /// Such as `rdv-artisan`.
    #[schemars(length(min = 1, max = 500))]
    pub id: String,
    /// The fields to change. Objects are merged: `{"metadata":{"featured":true}}` keeps the rest.
    /// Lists and texts are replaced whole; for a part use `edits`. `null` removes an optional
    /// field; no text may be empty. Links: http(s) URL or site path (`/images/a.png`).
    pub data: Option<Patch<D>>,
    /// Parts of lists (`solution.tools`) and texts, after `data`. `insert` needs `at` (from 0);
    /// `replace`, `find`: `with`. `find` takes a piece of text that occurs once; plain spaces and
    /// quotes match all kinds.
    #[schemars(length(max = MAX_EDITS))]
    pub edits: Option<Vec<Edit>>,
    /// Audit id of one change of this document, to undo it; no `data`, no `edits`.
    #[schemars(length(min = 1, max = 200))]
    pub undo: Option<String>,
    /// `meta.version` that you read; refused if outdated.
    #[schemars(length(min = 1, max = 100))]
    pub expected_version: Option<String>,
    /// true: show the change, write nothing.
    pub dry_run: Option<bool>,
    /// `meta.plan.id` of a dry run, to make exactly that change.
    #[schemars(length(min = 1, max = 100))]
    pub plan: Option<String>,
    /// `full`: answer with the whole document.
    pub detail: Option<Detail>,
    /// Why, for the audit log.
    #[schemars(length(max = 500))]
    pub reason: Option<String>,
    /// Your key: a repeat in 24 hours gets the first result.
    #[schemars(regex(pattern = rules::KEY))]
    pub idempotency_key: Option<String>,
}

/// Content types to filter by.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline, description = "")]
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
    /// Default 20.
    #[schemars(range(min = 1, max = 500))]
    pub limit: Option<u32>,
    pub entity_type: Option<EntityType>,
    #[schemars(length(min = 1, max = 500))]
    pub entity_id: Option<String>,
    /// `create`, `update`, `delete`, `read`, `revert`, `adopt`, or one of an older program.
    #[schemars(length(min = 1, max = 50))]
    pub action: Option<String>,
    /// `mcp`, `api` or `admin`.
    #[schemars(length(min = 1, max = 50))]
    pub source: Option<String>,
    /// Who: a token's name, or a user of the system.
    #[schemars(length(min = 1, max = 200))]
    pub actor: Option<String>,
    /// Such as `claude-code` (any version) or `claude-code/2.0`.
    #[schemars(length(min = 1, max = 200))]
    pub client_id: Option<String>,
    /// Such as `client.size`; also finds changes above and below it.
    #[schemars(length(min = 1, max = 500))]
    pub field: Option<String>,
    /// From this time on, in RFC 3339: `2026-11-22T00:00:00Z`.
    pub since: Option<String>,
    /// Before this time.
    pub until: Option<String>,
    /// `summary` (default): values over 200 characters shortened; `full`: entries as stored.
    pub detail: Option<Detail>,
    /// `meta.nextCursor` of the last page; same filters.
    pub cursor: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct UndoParams {
    /// Which changes; then no filters.
    #[schemars(length(min = 1, max = MAX_AUDIT_IDS), inner(length(max = 200)))]
    pub audit_ids: Option<Vec<String>>,
    /// All matching changes from this time on (RFC 3339), but for what commands wrote.
    pub since: Option<String>,
    /// Before this time.
    pub until: Option<String>,
    /// A token's name, or a user of the system.
    #[schemars(length(min = 1, max = 200))]
    pub actor: Option<String>,
    /// Such as `claude-code` (any version).
    #[schemars(length(min = 1, max = 200))]
    pub client_id: Option<String>,
    /// `mcp`, `api` or `admin`.
    #[schemars(length(min = 1, max = 50))]
    pub source: Option<String>,
    pub entity_type: Option<EntityType>,
    #[schemars(length(min = 1, max = 500))]
    pub entity_id: Option<String>,
    /// true: show the changes, write nothing.
    pub dry_run: Option<bool>,
    /// `meta.plan.id` of a dry run, to make exactly those changes.
    #[schemars(length(min = 1, max = 100))]
    pub plan: Option<String>,
    /// Why, for the audit log.
    #[schemars(length(max = 500))]
    pub reason: Option<String>,
    /// Your key: a repeat in 24 hours gets the first result.
    #[schemars(regex(pattern = rules::KEY))]
    pub idempotency_key: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct HistoryParams {
    pub entity_type: EntityType,
    #[schemars(length(min = 1, max = 500))]
    pub id: String,
    /// Only this field, and those above and below it, with their values.
    #[schemars(length(min = 1, max = 500))]
    pub field: Option<String>,
    /// Default 20.
    #[schemars(range(min = 1, max = 100))]
    pub limit: Option<u32>,
    /// `meta.nextCursor` of the last page; same filters.
    pub cursor: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CompareParams {
    /// A time (RFC 3339) or an audit id.
    #[schemars(length(min = 1, max = 200))]
    pub since: String,
    /// The same; default: now.
    #[schemars(length(min = 1, max = 200))]
    pub until: Option<String>,
    pub entity_type: Option<EntityType>,
    /// Default 20.
    #[schemars(range(min = 1, max = 100))]
    pub limit: Option<u32>,
    /// `meta.nextCursor` of the last page; same filters.
    pub cursor: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CreateParams {
    /// Slug, such as `rdv-artisan`; it never changes.
    #[schemars(length(min = 1, max = 500))]
    pub id: String,
    /// All fields that `data` of the update tool has; those that `null` removes, and `metadata`, may
    /// be left out.
    #[schemars(with = "Option<OpenObject>")]
    pub data: Option<JsonObject>,
    /// true: write nothing.
    pub dry_run: Option<bool>,
    /// `meta.plan.id` of a dry run, to make exactly that change.
    #[schemars(length(min = 1, max = 100))]
    pub plan: Option<String>,
    #[schemars(length(max = 500))]
    pub reason: Option<String>,
    /// Your key: a repeat only gets the first result.
    #[schemars(regex(pattern = rules::KEY))]
    pub idempotency_key: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DeleteParams {
    #[schemars(length(min = 1, max = 500))]
    pub id: String,
    /// `meta.version` that you read; required, unless you send `plan`.
    #[schemars(length(min = 1, max = 100))]
    pub expected_version: Option<String>,
    /// true: write nothing.
    pub dry_run: Option<bool>,
    /// `meta.plan.id` of a dry run, to make exactly that change.
    #[schemars(length(min = 1, max = 100))]
    pub plan: Option<String>,
    #[schemars(length(max = 500))]
    pub reason: Option<String>,
    /// Your key: a repeat only gets the first result.
    #[schemars(regex(pattern = rules::KEY))]
    pub idempotency_key: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ManyParams {
    /// Each for another document, with `data`, `edits` and `expectedVersion` as in the update tool of
    /// its type.
    #[schemars(length(min = 1, max = MAX_CHANGES))]
    pub changes: Option<Vec<ChangeParams>>,
    /// true: write nothing.
    pub dry_run: Option<bool>,
    /// `meta.plan.id` of a dry run, to make exactly those changes.
    #[schemars(length(min = 1, max = 100))]
    pub plan: Option<String>,
    #[schemars(length(max = 500))]
    pub reason: Option<String>,
    /// Your key: a repeat only gets the first result.
    #[schemars(regex(pattern = rules::KEY))]
    pub idempotency_key: Option<String>,
}

/// One of many updates.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(inline, description = "")]
pub(super) struct ChangeParams {
    pub entity_type: EntityType,
    #[schemars(length(min = 1, max = 500))]
    pub id: String,
    #[schemars(with = "Option<OpenObject>")]
    pub data: Option<JsonObject>,
    #[schemars(length(max = MAX_EDITS))]
    pub edits: Option<Vec<Edit>>,
    #[schemars(length(min = 1, max = 100))]
    pub expected_version: Option<String>,
}

/// An object that is published without its members, which another tool publishes.
pub(super) struct OpenObject;

impl JsonSchema for OpenObject {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("OpenObject")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": "object" })
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NoParams {}

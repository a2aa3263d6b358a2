//! The `meta` member of successful tool results. Its doc comments are published as descriptions.

use std::{ops::Not, time::Duration};

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::domain::{
    Timestamp, Version,
    text::{compact_json, escape_special_spaces},
};

/// More warnings than this, or more text of warnings, are only counted.
const MAX_WARNINGS: usize = 20;
const MAX_WARNING_BYTES: usize = 4000;

/// When and where a result was read.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Freshness {
    /// When the server answered.
    pub timestamp: String,
    /// Where the data comes from: `redis`, `sqlite` or `snapshot`.
    pub source: String,
    /// true: the store could not be reached; the data is the server's last snapshot of it.
    #[serde(skip_serializing_if = "Not::not")]
    #[schemars(default)]
    pub stale: bool,
    /// Age of that snapshot in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
}

impl Freshness {
    /// The freshness of what was read from `store`, or from a snapshot of this age.
    pub(super) fn new(store: &str, snapshot_age: Option<Duration>, now: Timestamp) -> Self {
        let age_ms = snapshot_age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let source = match snapshot_age {
            Some(_) => "snapshot",
            None => store,
        };
        Self {
            timestamp: now.to_string(),
            source: source.to_owned(),
            stale: snapshot_age.is_some(),
            age_ms,
        }
    }
}

/// The last change up to a point in time.
#[derive(Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub(super) struct LastChange {
    /// Its audit id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit_id: Option<String>,
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
}

/// About a list.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListMeta {
    #[serde(flatten)]
    pub freshness: Freshness,
    /// Number of matching documents on all pages.
    pub total: usize,
    /// Send it as cursor to get the next page; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// With detail `full`: for each id the version, to send as expectedVersion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub versions: Option<Map<String, Value>>,
    /// With `asOf`: the last change that the content of then includes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_of: Option<LastChange>,
    /// Stored documents that break rules, cannot be read or were changed outside this server; with
    /// `asOf` also those whose content of then is not known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub warnings: Vec<String>,
}

/// About one document.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DocumentMeta {
    #[serde(flatten)]
    pub freshness: Freshness,
    /// The document's version, to send as expectedVersion; with `asOf`, its version of then.
    pub version: Version,
    /// With `asOf`: the last change that the content of then includes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_of: Option<LastChange>,
    /// The address of a published document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Rules that the stored document breaks, and whether it was changed outside this server.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub warnings: Vec<String>,
}

/// About an update.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct UpdateMeta {
    /// true: nothing was written; data and changes show what the update would do.
    #[serde(skip_serializing_if = "Not::not")]
    #[schemars(default)]
    pub dry_run: bool,
    /// When the server answered.
    pub timestamp: String,
    /// The store: `redis` or `sqlite`.
    pub source: String,
    /// The document's version; in a dry run, the stored version, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// In a dry run: the plan that makes exactly this change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanMeta>,
    /// The address of a published document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Id of the audit log entry; absent if nothing was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit_id: Option<String>,
    /// Every changed field with its old and new value, of which long ones are
    /// `{excerpt, characters}`, or with `undoEdit`, which takes the change back when it is sent in
    /// `edits`; empty if the document already had these values.
    #[schemars(with = "Vec<Map<String, Value>>")]
    pub changes: Vec<Value>,
    /// Number of changes that are not listed.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(default)]
    pub more: usize,
    /// With `undo`: the fields that stay, each with the last change of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, with = "Vec<Map<String, Value>>")]
    pub kept: Vec<Value>,
    /// With `undo`: the number of fields that stay and are not listed.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(default)]
    pub more_kept: usize,
    /// With `undo`: the fields, counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counts: Option<UndoCounters>,
    /// true: an earlier call with the same idempotencyKey made this change; nothing was written
    /// now.
    #[serde(skip_serializing_if = "Not::not")]
    #[schemars(default)]
    pub replayed: bool,
    /// Rules that the document broke before this update and still breaks, and other remarks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub warnings: Vec<String>,
}

/// About the creation or deletion of a document.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AuthoringMeta {
    /// true: nothing was written; data and changes show what the call would do.
    #[serde(skip_serializing_if = "Not::not")]
    #[schemars(default)]
    pub dry_run: bool,
    /// When the server answered.
    pub timestamp: String,
    /// The store: `redis` or `sqlite`.
    pub source: String,
    /// The document's version, if there is one; in a dry run, the stored version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// The address of a published document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// In a dry run: the plan that makes exactly this change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanMeta>,
    /// Id of the audit log entry; absent if nothing was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit_id: Option<String>,
    /// `created` or `deleted`, with the title and the names of the fields.
    #[schemars(with = "Vec<Map<String, Value>>")]
    pub changes: Value,
    /// true: an earlier call with the same idempotencyKey did this; nothing was written now.
    #[serde(skip_serializing_if = "Not::not")]
    #[schemars(default)]
    pub replayed: bool,
    /// What to know about this result.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub warnings: Vec<String>,
}

/// About updates of many documents.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ManyMeta {
    /// true: nothing was written; data shows what the updates would do.
    #[serde(skip_serializing_if = "Not::not")]
    #[schemars(default)]
    pub dry_run: bool,
    /// When the server answered.
    pub timestamp: String,
    /// The store: `redis` or `sqlite`.
    pub source: String,
    /// In a dry run: the plan that makes exactly these changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanMeta>,
    /// Number of changed documents that are not listed.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(default)]
    pub more: usize,
    /// true: an earlier call with the same idempotencyKey did this; nothing was written now.
    #[serde(skip_serializing_if = "Not::not")]
    #[schemars(default)]
    pub replayed: bool,
    /// Documents that were left out, rules that were broken before and still are, other remarks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub warnings: Vec<String>,
}

/// About an undo.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct UndoMeta {
    /// true: nothing was written; data shows what the undo would do.
    #[serde(skip_serializing_if = "Not::not")]
    #[schemars(default)]
    pub dry_run: bool,
    /// When the server answered.
    pub timestamp: String,
    /// The store: `redis` or `sqlite`.
    pub source: String,
    /// In a dry run: the plan that makes exactly these changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanMeta>,
    /// The fields of all documents, counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counts: Option<UndoCounters>,
    /// The fields that stay, each with the last change of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, with = "Vec<Map<String, Value>>")]
    pub kept: Vec<Value>,
    /// Number of fields that stay and are not listed.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(default)]
    pub more_kept: usize,
    /// Number of changed documents that are not listed.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(default)]
    pub more: usize,
    /// true: an earlier call with the same idempotencyKey did this; nothing was written now.
    #[serde(skip_serializing_if = "Not::not")]
    #[schemars(default)]
    pub replayed: bool,
    /// Rules that the documents break now, and other remarks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub warnings: Vec<String>,
}

/// What becomes of the fields whose changes are undone.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub(super) struct UndoCounters {
    /// They go back.
    pub undone: usize,
    /// A later change keeps them.
    pub kept: usize,
    /// They have the value already.
    pub already_gone: usize,
}

/// The plan of a dry run.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub(super) struct PlanMeta {
    /// Send it as plan to make exactly this change.
    pub id: String,
    /// Until when.
    pub expires_at: String,
}

/// What a dry run says of its plan.
#[derive(Default)]
pub(super) struct PlanRemarks {
    pub plan: Option<PlanMeta>,
    pub warning: Option<String>,
}

impl PlanRemarks {
    /// Adds them to an answer's plan and warnings.
    pub(super) fn add_to(self, plan: &mut Option<PlanMeta>, warnings: &mut Vec<String>) {
        *plan = self.plan;
        warnings.extend(self.warning);
    }
}

/// About the history of a document.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct HistoryMeta {
    #[serde(flatten)]
    pub freshness: Freshness,
    /// Send it as cursor to get older versions; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// The search for versions has reached this time and is not finished. Send the cursor to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub searched_since: Option<String>,
    /// The search for the authors of the fields ended at this time: fields without one were written
    /// before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blame_searched_since: Option<String>,
    /// Number of fields that are not listed; `field` shows one of them.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(default)]
    pub more_fields: usize,
    /// The time of the log's oldest entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_begins: Option<String>,
    /// What to know about this result.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub warnings: Vec<String>,
}

/// About a comparison.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CompareMeta {
    #[serde(flatten)]
    pub freshness: Freshness,
    /// Number of documents that differ, on all pages.
    pub total: usize,
    /// The last change up to `since`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<LastChange>,
    /// The last change up to `until`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<LastChange>,
    /// Send it as cursor to get the next page; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// The documents that are left out, because the log does not say what they were.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub warnings: Vec<String>,
}

/// About a page of the audit log.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LogMeta {
    #[serde(flatten)]
    pub freshness: Freshness,
    /// Send it as cursor to get older entries; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// The search has reached this time and is not finished: older entries may match too. Send the
    /// cursor to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub searched_since: Option<String>,
    /// The time of the log's oldest entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_begins: Option<String>,
    /// What to know about this result.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub warnings: Vec<String>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// The first warnings, and the number of the others.
pub(super) fn limit_warnings(warnings: impl Iterator<Item = String>) -> Vec<String> {
    fitting_warnings(warnings, MAX_WARNING_BYTES)
}

/// The first warnings that fit in `room` bytes, and the number of the others.
pub(super) fn fitting_warnings(
    mut warnings: impl Iterator<Item = String>,
    room: usize,
) -> Vec<String> {
    let room = room.min(MAX_WARNING_BYTES);
    let (mut limited, mut bytes) = (Vec::new(), 0);
    let mut more = 0;
    for warning in warnings.by_ref() {
        bytes += escape_special_spaces(compact_json(&warning)).len() + 1;
        if limited.len() == MAX_WARNINGS || bytes > room {
            more = 1;
            break;
        }
        limited.push(warning);
    }
    more += warnings.count();
    if more > 0 {
        limited.push(format!("and {more} more"));
    }
    limited
}

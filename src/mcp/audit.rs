//! The tools for the audit log.

use rmcp::{handler::server::wrapper::Parameters, tool, tool_router};
use serde_json::{Value, json};

use super::{
    cursor,
    error::ToolError,
    meta::LogMeta,
    output::{self, AuditCounts, AuditEntries, ToolOutput},
    params::{self, AuditParams, Detail, EntityType, NoParams},
    server::ContentServer,
    tool_name::ToolName,
};
use crate::{
    deadline::Deadline,
    domain::{AuditQuery, StoredEntry, Timestamp, Violation, audit::AuditPosition},
};

/// Summaries have excerpts of longer values.
const MAX_SUMMARY_VALUE_CHARS: usize = 200;

/// Entries on a page, if the call has no limit.
const DEFAULT_LIMIT: usize = 50;

#[tool_router(router = audit_tools, vis = "pub(super)")]
impl ContentServer {
    /// Reads the audit log, newest entry first: who changed which document, when and with which
    /// client, and every value before and after.
    #[tool(
        title = "Get audit log",
        annotations(title = "Get audit log", read_only_hint = true, destructive_hint = false, idempotent_hint = true, open_world_hint = false),
        input_schema = params::schema::<AuditParams>(),
        output_schema = output::schema::<ToolOutput<AuditEntries, LogMeta>>()
    )]
    async fn get_audit_log(
        &self,
        Parameters(params): Parameters<AuditParams>,
        deadline: Deadline,
    ) -> Result<ToolOutput<AuditEntries, LogMeta>, ToolError> {
        let filters = json!([
            params.entity_type,
            params.entity_id,
            params.action,
            params.source,
            params.since,
            params.until
        ]);
        let detail = params.detail.unwrap_or_default();
        let query = audit_query(params, &filters).map_err(|violation| {
            ToolError::invalid_arguments(ToolName::AuditLog, &[violation], self.content.now())
        })?;
        let page = self.content.audit_entries(&query, deadline).await;
        let fetched = page.map_err(|error| self.read_error(ToolName::AuditLog, error))?;
        let meta = LogMeta {
            freshness: self.freshness(fetched.snapshot_age),
            next_cursor: fetched
                .value
                .next
                .map(|position| cursor::encode(&filters, &(position.score, position.digest))),
        };
        let entries = fetched.value.entries.into_iter();
        let rows = entries.map(|entry| entry_row(entry, detail)).collect();
        Ok(ToolOutput::new(AuditEntries::new(rows), meta))
    }

    /// Counts audit log entries by action, kind of document and source, and returns the ten newest
    /// entries.
    #[tool(
        title = "Get audit statistics",
        annotations(title = "Get audit statistics", read_only_hint = true, destructive_hint = false, idempotent_hint = true, open_world_hint = false),
        input_schema = params::schema::<NoParams>(),
        output_schema = output::schema::<ToolOutput<AuditCounts, LogMeta>>()
    )]
    async fn get_audit_stats(
        &self,
        Parameters(NoParams {}): Parameters<NoParams>,
        deadline: Deadline,
    ) -> Result<ToolOutput<AuditCounts, LogMeta>, ToolError> {
        let stats = self.content.audit_stats(deadline).await;
        let fetched = stats.map_err(|error| self.read_error(ToolName::AuditStats, error))?;
        let meta = LogMeta {
            freshness: self.freshness(fetched.snapshot_age),
            next_cursor: None,
        };
        let (stats, newest) = fetched.value;
        let recent: Vec<Value> = newest
            .into_iter()
            .map(|entry| entry_row(entry, Detail::Summary))
            .collect();
        let [by_action, by_entity_type, by_source] = stats.counts;
        let data = AuditCounts {
            total_entries: stats.total,
            entries_by_action: by_action,
            entries_by_entity_type: by_entity_type,
            entries_by_source: by_source,
            latest_entry: recent.first().cloned(),
            recent_activity: recent,
        };
        Ok(ToolOutput::new(data, meta))
    }
}

fn audit_query(params: AuditParams, filters: &Value) -> Result<AuditQuery, Violation> {
    let cursor = params.cursor.as_deref();
    let after = cursor.map(|cursor| cursor::decode::<(i64, String)>(filters, cursor));
    // The check of the arguments has parsed them before.
    let parse_time = |text: Option<String>| text.and_then(|text| Timestamp::parse(&text));
    Ok(AuditQuery {
        kind: params.entity_type.map(EntityType::kind),
        entity_id: params.entity_id,
        action: params.action,
        source: params.source,
        since: parse_time(params.since),
        until: parse_time(params.until),
        after: after
            .transpose()?
            .map(|(score, digest)| AuditPosition { score, digest }),
        limit: params.limit.map_or(DEFAULT_LIMIT, |limit| limit as usize),
    })
}

/// An entry as stored, or with excerpts of its long values.
fn entry_row(entry: StoredEntry, detail: Detail) -> Value {
    let mut entry = Value::Object(entry.into_json());
    if detail == Detail::Summary {
        shorten(&mut entry);
    }
    entry
}

/// Replaces long strings, and long arrays and objects among the changed values, by excerpts.
fn shorten(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some(shortened) = shorten_text(text) {
                *value = shortened;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(shorten),
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                if matches!(name.as_str(), "oldValue" | "newValue")
                    && (member.is_array() || member.is_object())
                {
                    if let Some(shortened) = shorten_text(&member.to_string()) {
                        *member = shortened;
                    }
                } else {
                    shorten(member);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The beginning of a long text, as an object: no string field accepts an object, so a model cannot
/// write it back by mistake.
fn shorten_text(text: &str) -> Option<Value> {
    let (end, _) = text.char_indices().nth(MAX_SUMMARY_VALUE_CHARS)?;
    Some(json!({ "excerpt": text.get(..end), "characters": text.chars().count() }))
}

//! The two tools for the audit log.

use rmcp::{handler::server::wrapper::Parameters, tool, tool_router};
use serde_json::{Value, json};

use super::{
    ContentServer, ToolError,
    answer::{self, Entries, Freshness, LogMeta, Stats, ToolOutput},
    cursor,
    params::{self, AuditParams, Detail, NoParams},
    tool::ToolName,
};
use crate::deadline::Deadline;
use crate::domain::{AuditQuery, StoredEntry, Timestamp, Violation, audit::AuditPosition};

/// A summary has excerpts of values that are longer than this, in characters.
const MAX_SUMMARY_VALUE: usize = 200;

#[tool_router(router = audit_tools, vis = "pub(super)")]
impl ContentServer {
    /// Reads the audit log, newest first: who changed which document when, through what, with every value before and after. Filter by
    /// document, kind, action, source and time; pass `meta.nextCursor` as cursor for older entries.
    #[tool(
        title = "Get audit log",
        annotations(title = "Get audit log", read_only_hint = true, destructive_hint = false, idempotent_hint = true, open_world_hint = false),
        input_schema = params::schema::<AuditParams>(),
        output_schema = answer::schema::<ToolOutput<Entries, LogMeta>>()
    )]
    async fn get_audit_log(
        &self,
        Parameters(params): Parameters<AuditParams>,
        deadline: Deadline,
    ) -> Result<ToolOutput<Entries, LogMeta>, ToolError> {
        let identity = json!([
            params.entity_type,
            params.entity_id,
            params.action,
            params.source,
            params.since,
            params.until
        ]);
        let query = query(&params, &identity).map_err(|found| {
            ToolError::invalid_arguments(ToolName::AuditLog, &[found], self.content.now())
        })?;
        let page = self.content.audit_entries(&query, deadline).await;
        let fetched = page.map_err(|error| self.failed(ToolName::AuditLog, error))?;
        let (
            page,
            Freshness {
                source,
                stale,
                age_ms,
            },
        ) = (fetched.value, self.freshness(fetched.snapshot_age));
        let meta = LogMeta {
            timestamp: self.content.now().to_string(),
            source,
            stale,
            age_ms,
            next_cursor: page
                .next
                .map(|place| cursor::encode(&identity, &(place.score, place.digest))),
        };
        let detail = params.detail.unwrap_or_default();
        Ok(ToolOutput::new(
            Entries::new(
                page.entries
                    .into_iter()
                    .map(|entry| shown(entry, detail))
                    .collect(),
            ),
            meta,
        ))
    }

    /// Counts the audit log's entries by action, kind of document and source, and gives the newest ten.
    #[tool(
        title = "Get audit statistics",
        annotations(title = "Get audit statistics", read_only_hint = true, destructive_hint = false, idempotent_hint = true, open_world_hint = false),
        input_schema = params::schema::<NoParams>(),
        output_schema = answer::schema::<ToolOutput<Stats, LogMeta>>()
    )]
    async fn get_audit_stats(
        &self,
        Parameters(NoParams {}): Parameters<NoParams>,
        deadline: Deadline,
    ) -> Result<ToolOutput<Stats, LogMeta>, ToolError> {
        let stats = self.content.audit_stats(deadline).await;
        let fetched = stats.map_err(|error| self.failed(ToolName::AuditStats, error))?;
        let (
            (stats, newest),
            Freshness {
                source,
                stale,
                age_ms,
            },
        ) = (fetched.value, self.freshness(fetched.snapshot_age));
        let recent: Vec<Value> = newest
            .into_iter()
            .map(|entry| shown(entry, Detail::Summary))
            .collect();
        let [by_action, by_entity_type, by_source] = stats.counts;
        let data = Stats {
            total_entries: stats.total,
            entries_by_action: by_action,
            entries_by_entity_type: by_entity_type,
            entries_by_source: by_source,
            latest_entry: recent.first().cloned(),
            recent_activity: recent,
        };
        let meta = LogMeta {
            timestamp: self.content.now().to_string(),
            source,
            stale,
            age_ms,
            next_cursor: None,
        };
        Ok(ToolOutput::new(data, meta))
    }
}

fn query(params: &AuditParams, identity: &Value) -> Result<AuditQuery, Violation> {
    // That they are times was checked with the other arguments.
    let time = |text: Option<&String>| text.and_then(|text| Timestamp::parse(text));
    let (since, until) = (time(params.since.as_ref()), time(params.until.as_ref()));
    let after = params
        .cursor
        .as_deref()
        .map(|cursor| cursor::decode::<(i64, String)>(identity, cursor))
        .transpose()?;
    let after = after.map(|(score, digest)| AuditPosition { score, digest });
    Ok(AuditQuery {
        kind: params.entity_type.map(super::params::EntityType::kind),
        entity_id: params.entity_id.clone(),
        action: params.action.clone(),
        source: params.source.clone(),
        since,
        until,
        after,
        limit: params.limit.map_or(50, |limit| limit as usize),
    })
}

/// An entry as it is answered: unchanged, or with excerpts of its long values.
fn shown(entry: StoredEntry, detail: Detail) -> Value {
    let mut entry = Value::Object(entry.into_json());
    if detail == Detail::Summary {
        shorten(&mut entry);
    }
    entry
}

fn shorten(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some(truncate) = truncate(text) {
                *value = truncate;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(shorten),
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                if matches!(name.as_str(), "oldValue" | "newValue")
                    && (member.is_array() || member.is_object())
                {
                    if let Some(truncate) = truncate(&member.to_string()) {
                        *member = truncate;
                    }
                } else {
                    shorten(member);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The beginning of a long text, as an object: no text field accepts one, so a model cannot write it back by mistake.
fn truncate(text: &str) -> Option<Value> {
    let (end, _) = text.char_indices().nth(MAX_SUMMARY_VALUE)?;
    Some(json!({ "excerpt": text.get(..end), "characters": text.chars().count() }))
}

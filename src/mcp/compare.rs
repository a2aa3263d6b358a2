//! What differs between the content of two points in time.

use rmcp::{handler::server::wrapper::Parameters, tool, tool_router};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    as_of::{identity, last_change, left_out},
    audit::row_bytes,
    changes::{fitting_changes, shorten, summarize_changes},
    cursor,
    error::ToolError,
    meta::{CompareMeta, limit_warnings},
    output::{self, DifferingDocuments, MAX_ANSWER_BYTES, RESERVED_BYTES, ToolOutput, answer_text},
    params::{self, CompareParams, EntityType},
    server::ContentServer,
    tool_name::ToolName,
};
use crate::{
    deadline::Deadline,
    domain::{DocumentKey, Kind, PointInTime, Violation, audit::Action},
    service::{Compared, Difference, LogPoint},
};

/// Documents on a page, if the call has no limit.
const DEFAULT_LIMIT: usize = 20;
/// How much text of an answer may be about the changes of one document. More are only counted.
const MAX_CHANGE_BYTES: usize = 8000;

/// Where a page begins: after the last document of the page before, in the content of its `until`.
#[derive(Serialize, Deserialize)]
struct Position {
    until: Option<String>,
    kind: String,
    id: String,
}

#[tool_router(router = compare_tools, vis = "pub(super)")]
impl ContentServer {
    /// Compares the content of two points in time: one row for each document that was created, deleted
    /// or differs, with the net changes of its fields.
    #[tool(
        title = "Compare content",
        annotations(title = "Compare content", read_only_hint = true, destructive_hint = false, idempotent_hint = true, open_world_hint = false),
        input_schema = params::schema::<CompareParams>(),
        output_schema = output::schema::<ToolOutput<DifferingDocuments, CompareMeta>>()
    )]
    async fn compare_content(
        &self,
        Parameters(params): Parameters<CompareParams>,
        deadline: Deadline,
    ) -> Result<ToolOutput<DifferingDocuments, CompareMeta>, ToolError> {
        let tool = ToolName::Compare;
        let since = self
            .log_point(tool, "since", &params.since, deadline)
            .await?;
        let mut filters = json!([tool.as_str(), identity(&since), params.entity_type]);
        let until = params.until.as_deref();
        let named_until = match until {
            Some(until) => Some(self.log_point(tool, "until", until, deadline).await?),
            None => None,
        };
        if let (Some(until), Some(filters)) = (&named_until, filters.as_array_mut()) {
            filters.push(json!(identity(until)));
        }
        let after = decode_position(&filters, params.cursor.as_deref()).map_err(|violation| {
            ToolError::invalid_arguments(tool, &[violation], self.content.now())
        })?;
        let until = match named_until {
            Some(until) => until,
            None => self.newest_point(after.as_ref(), deadline).await?,
        };
        let kinds = params.entity_type.map(EntityType::kind);
        let kinds = kinds.map_or_else(|| Kind::ALL.to_vec(), |kind| vec![kind]);
        let compared = self.content.compare(&kinds, &since, &until, deadline).await;
        let compared = compared.map_err(|error| self.read_error(tool, error))?;
        let limit = params.limit.map_or(DEFAULT_LIMIT, |limit| limit as usize);
        let page = Page {
            after: after.map(|after| (after.kind, after.id)),
            limit,
            filters: &filters,
        };
        Ok(self.compare_output(&compared, [&since, &until], &page))
    }
}

/// Which rows to show.
struct Page<'a> {
    after: Option<(String, String)>,
    limit: usize,
    filters: &'a Value,
}

impl ContentServer {
    /// The present: on a later page, that of the first.
    async fn newest_point(
        &self,
        after: Option<&Position>,
        deadline: Deadline,
    ) -> Result<LogPoint, ToolError> {
        let point = match after.and_then(|after| after.until.clone()) {
            Some(until) => {
                let until = PointInTime::Entry(until);
                self.content.log_point(&until, "cursor", deadline).await
            }
            None => self.content.newest_point("until", deadline).await,
        };
        point.map_err(|error| self.read_error(ToolName::Compare, error))
    }

    fn compare_output(
        &self,
        compared: &Compared,
        [since, until]: [&LogPoint; 2],
        page: &Page<'_>,
    ) -> ToolOutput<DifferingDocuments, CompareMeta> {
        let unexplained = compared.unexplained.iter().map(left_out);
        let unreadable = compared.unreadable.iter().cloned();
        let mut meta = CompareMeta {
            freshness: self.freshness(None),
            total: compared.differences.len(),
            since: last_change(since),
            until: last_change(until),
            next_cursor: None,
            warnings: limit_warnings(unexplained.chain(unreadable)),
        };
        let is_later = |difference: &&Difference| {
            let position = (difference.key.kind.singular(), difference.key.id.as_str());
            page.after
                .as_ref()
                .is_none_or(|(kind, id)| position > (kind.as_str(), id.as_str()))
        };
        let mut room = MAX_ANSWER_BYTES - RESERVED_BYTES - answer_text(&meta).len();
        let mut rest = compared.differences.iter().filter(is_later).peekable();
        let (mut rows, mut last) = (Vec::new(), None);
        while rows.len() < page.limit
            && let Some(difference) = rest.peek()
        {
            let row = row(difference);
            match room.checked_sub(row_bytes(&row)) {
                Some(left) => room = left,
                None if rows.is_empty() => room = 0,
                None => break,
            }
            rows.push(row);
            last = Some(difference.key.clone());
            rest.next();
        }
        let last = last.filter(|_| rest.peek().is_some());
        meta.next_cursor = last.map(|key| encode_position(page.filters, until, key));
        ToolOutput::new(DifferingDocuments::new(rows), meta)
    }
}

fn encode_position(filters: &Value, until: &LogPoint, key: DocumentKey) -> String {
    let until = until.entry().and_then(|entry| entry.text_of("id"));
    let position = Position {
        until: until.map(ToOwned::to_owned),
        kind: key.kind.singular().to_owned(),
        id: key.id,
    };
    cursor::encode(filters, &position)
}

fn decode_position(filters: &Value, cursor: Option<&str>) -> Result<Option<Position>, Violation> {
    let position = cursor.map(|cursor| cursor::decode(filters, cursor));
    position.transpose()
}

/// A document that differs.
fn row(difference: &Difference) -> Value {
    let action = match (&difference.before, &difference.after) {
        (None, _) => Action::Create,
        (_, None) => Action::Delete,
        (Some(_), Some(_)) => Action::Update,
    };
    let named = difference.after.as_ref().or(difference.before.as_ref());
    let title = named.and_then(|record| record.document().get("title").cloned());
    let key = &difference.key;
    let mut row: Map<String, Value> = [
        ("entityType", Some(json!(key.kind))),
        ("entityId", Some(json!(key.id))),
        ("title", title),
        ("action", Some(json!(action.as_str()))),
    ]
    .into_iter()
    .filter_map(|(name, value)| {
        let mut value = value?;
        shorten(&mut value);
        Some((name.to_owned(), value))
    })
    .collect();
    let changes = json!(difference.changes);
    let changes = summarize_changes(Some(key.kind), Some(action.as_str()), changes);
    let (changes, more) = fitting_changes(changes, MAX_CHANGE_BYTES);
    row.insert("changes".to_owned(), changes);
    if more > 0 {
        row.insert("more".to_owned(), json!(more));
    }
    Value::Object(row)
}

//! The tools that list documents: rows, and pages that fit in an answer.

use rmcp::model::JsonObject;
use serde_json::{Value, json};

use super::{
    changes::shorten,
    cursor,
    error::ToolError,
    meta::{ListMeta, limit_warnings},
    output::{MAX_ANSWER_BYTES, RESERVED_BYTES, Row, SummaryRows, ToolOutput, answer_text},
    outside,
    params::{Detail, ListParams},
    server::ContentServer,
    tool_name::ToolName,
};
use crate::{
    deadline::Deadline,
    domain::{
        Document, Kind, ListPage, ListQuery, OutsideChange, Record, Timestamp, Version, Violation,
        list::ListPosition,
        search::{SEARCHED_FIELDS, fold_tag},
        text::truncate,
    },
    service::Fetched,
};

/// Documents on a page, if the call has no limit.
const DEFAULT_LIMIT: usize = 20;

/// A warning about a document names this many of its invalid fields.
const MAX_NAMED_FIELDS: usize = 5;

const EMPTY_STORE: &str = "the store is empty: it holds no projects and no resources. If there should be some, it is the wrong store or key prefix (`portfolio-mcp doctor` says which one is used, and why), or they have not been imported yet (`portfolio-mcp import FOLDER`)";

impl ContentServer {
    pub(super) async fn list<D: Document>(
        &self,
        params: ListParams,
        deadline: Deadline,
    ) -> Result<ToolOutput<SummaryRows<D>, ListMeta>, ToolError> {
        let tool = ToolName::List(D::KIND);
        let filters = json!([
            D::KIND.plural(),
            params.status,
            params.featured,
            params.tag,
            params.query
        ]);
        let detail = params.detail.unwrap_or_default();
        let query = list_query(params, &filters).map_err(|violation| {
            ToolError::invalid_arguments(tool, &[violation], self.content.now())
        })?;
        let page = self.content.list(D::KIND, &query, deadline).await;
        let fetched = page.map_err(|error| self.read_error(tool, error))?;

        let is_empty = fetched.value.total == 0 && self.content.is_empty(deadline).await;
        let mut rows = fitting_rows(&fetched.value.records, detail);
        loop {
            let mut meta = self.list_meta(&fetched, rows.len(), detail, &filters);
            if is_empty {
                meta.warnings.insert(0, EMPTY_STORE.to_owned());
            } else if meta.total == 0 && !query.words.is_empty() {
                meta.warnings.insert(0, nothing_found(D::KIND));
            }
            let bytes: usize = rows.iter().map(Row::bytes).sum();
            if rows.len() <= 1
                || bytes + answer_text(&meta).len() + RESERVED_BYTES <= MAX_ANSWER_BYTES
            {
                return Ok(ToolOutput::new(SummaryRows::new(rows), meta));
            }
            rows.pop();
        }
    }

    /// About a page of which the first documents are shown.
    fn list_meta(
        &self,
        fetched: &Fetched<ListPage>,
        shown: usize,
        detail: Detail,
        filters: &Value,
    ) -> ListMeta {
        let page = &fetched.value;
        let records = page.records.get(..shown).unwrap_or(&page.records);
        let next = if shown < page.records.len() {
            records.last().map(|record| record.index_entry().position())
        } else {
            page.next.clone()
        };
        let versions = records
            .iter()
            .map(|record| (record.key().id.clone(), json!(record.version())))
            .collect();
        let invalid = records.iter().filter_map(invalid_fields_warning);
        let is_shown = |change: &&OutsideChange| {
            change.is_deleted || records.iter().any(|record| *record.key() == change.key)
        };
        let outside = page.changed_outside.iter().filter(is_shown);
        let outside = outside.map(outside::listed);
        ListMeta {
            freshness: self.freshness(fetched.snapshot_age),
            total: page.total,
            next_cursor: next.map(|position| {
                let updated = position.updated.0.map(Timestamp::micros);
                cursor::encode(filters, &(updated, position.id))
            }),
            versions: match detail {
                Detail::Summary => None,
                Detail::Full => Some(versions),
            },
            warnings: limit_warnings(
                page.unreadable
                    .iter()
                    .cloned()
                    .chain(outside)
                    .chain(invalid),
            ),
        }
    }
}

fn list_query(params: ListParams, filters: &Value) -> Result<ListQuery, Violation> {
    let cursor = params.cursor.as_deref();
    let after = cursor.map(|cursor| cursor::decode::<(Option<i64>, String)>(filters, cursor));
    let status = params
        .status
        .and_then(|status| json!(status).as_str().map(ToOwned::to_owned));
    Ok(ListQuery {
        status,
        featured: params.featured,
        tag: params.tag.as_deref().map(fold_tag),
        words: ListQuery::words_of(&params.query.unwrap_or_default()),
        after: after.transpose()?.map(|(updated, id)| ListPosition {
            updated: std::cmp::Reverse(updated.map(Timestamp::from_micros)),
            id,
        }),
        limit: params.limit.map_or(DEFAULT_LIMIT, |limit| limit as usize),
        with_deleted_outside: false,
    })
}

/// The rows of the first documents, as many as fit in an answer by themselves, but at least one.
fn fitting_rows(records: &[Record], detail: Detail) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut bytes = 0;
    for record in records {
        let row = Row::new(match detail {
            Detail::Summary => summary_row(record, Some(record.version())),
            Detail::Full => record.document().clone(),
        });
        bytes += row.bytes();
        if bytes > MAX_ANSWER_BYTES && !rows.is_empty() {
            break;
        }
        rows.push(row);
    }
    rows
}

fn nothing_found(kind: Kind) -> String {
    format!(
        "no {kind} matches; `query` looks for every word in {}",
        SEARCHED_FIELDS.join(", ")
    )
}

/// What a reader needs to choose a document, and its version. Only the id is whole whatever its
/// length: without it, the document could not be read.
pub(super) fn summary_row(record: &Record, version: Option<&Version>) -> JsonObject {
    let short = |value: Option<&Value>| {
        let mut value = value?.clone();
        shorten(&mut value);
        Some(value)
    };
    let field = |name: &str| short(record.document().get(name));
    let metadata = |name: &str| short(record.document().get("metadata")?.get(name));
    let own_fields = match record.key().kind {
        Kind::Project => [("result", field("result")), ("", None)],
        Kind::Resource => [
            ("price", field("price")),
            ("downloadCount", metadata("downloadCount")),
        ],
    };
    [
        ("id", Some(json!(record.key().id))),
        ("title", field("title")),
        ("status", metadata("status")),
        ("featured", metadata("featured")),
        ("tags", field("tags")),
        ("updatedAt", metadata("updatedAt")),
        ("version", version.map(|version| json!(version))),
    ]
    .into_iter()
    .chain(own_fields)
    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
    .collect()
}

/// One line about a listed document that breaks rules.
fn invalid_fields_warning(record: &Record) -> Option<String> {
    let violations = record.violations().iter();
    let mut paths: Vec<&str> = violations
        .map(
            |violation| match (violation.rule.as_ref(), violation.path.as_str()) {
                ("encoding", _) => "(encoded twice)",
                (_, "") => "(whole document)",
                (_, path) => path,
            },
        )
        .collect();
    paths.dedup();
    if paths.is_empty() {
        return None;
    }
    let (key, kind) = (record.key(), record.key().kind);
    let named: Vec<_> = paths
        .iter()
        .take(MAX_NAMED_FIELDS)
        .map(|path| truncate(path))
        .collect();
    let more = match paths.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "{key} has invalid fields: {}{more}; get_{kind} says what is wrong with each",
        named.join(", ")
    ))
}

//! The tools that list documents: rows, and pages that fit in an answer.

use rmcp::model::JsonObject;
use serde_json::{Value, json};

use super::{
    as_of::{self, AS_OF},
    changes::shorten,
    cursor,
    error::ToolError,
    meta::{LastChange, ListMeta, limit_warnings},
    output::{MAX_ANSWER_BYTES, RESERVED_BYTES, Row, SummaryRows, ToolOutput, answer_text},
    outside,
    params::{Detail, ListParams},
    server::ContentServer,
    tool_name::ToolName,
};
use crate::{
    deadline::Deadline,
    domain::{
        AuditQuery, Document, Kind, ListPage, ListQuery, OutsideChange, Record, Timestamp, Version,
        Violation,
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

const ALL_DELETED: &str = "the store is empty now: its projects and resources were deleted, and the audit log says when. `undo_changes` or `portfolio-mcp undo` with the audit ids of the deletions brings them back";

/// The documents that a list is about, and what it says of them.
struct Found {
    fetched: Fetched<ListPage>,
    /// What its cursors are bound to.
    filters: Value,
    as_of: Option<LastChange>,
    /// One sentence for each document that is left out, because it is not known what it was.
    left_out: Vec<String>,
    nothing: Nothing,
}

/// What is said of a list that is empty.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nothing {
    NotSaid,
    EmptyStore,
    AllDeleted,
    NoMatch,
}

impl ContentServer {
    pub(super) async fn list<D: Document>(
        &self,
        params: ListParams,
        deadline: Deadline,
    ) -> Result<ToolOutput<SummaryRows<D>, ListMeta>, ToolError> {
        let detail = params.detail.unwrap_or_default();
        let found = self.find::<D>(params, deadline).await?;
        let mut rows = fitting_rows(&found.fetched.value.records, detail);
        loop {
            let mut meta = self.list_meta(&found, rows.len(), detail);
            match found.nothing {
                Nothing::EmptyStore => meta.warnings.insert(0, EMPTY_STORE.to_owned()),
                Nothing::AllDeleted => meta.warnings.insert(0, ALL_DELETED.to_owned()),
                Nothing::NoMatch => meta.warnings.insert(0, nothing_found(D::KIND)),
                Nothing::NotSaid => {}
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

    async fn find<D: Document>(
        &self,
        mut params: ListParams,
        deadline: Deadline,
    ) -> Result<Found, ToolError> {
        let tool = ToolName::List(D::KIND);
        let mut filters = json!([
            D::KIND.plural(),
            params.status,
            params.featured,
            params.tag,
            params.query
        ]);
        let as_of = params.as_of.take();
        let point = match &as_of {
            Some(as_of) => Some(self.log_point(tool, AS_OF, as_of, deadline).await?),
            None => None,
        };
        if let (Some(point), Some(filters)) = (&point, filters.as_array_mut()) {
            filters.push(json!({ AS_OF: as_of::identity(point) }));
        }
        let query = list_query(params, &filters).map_err(|violation| {
            ToolError::invalid_arguments(tool, &[violation], self.content.now())
        })?;
        let (fetched, left_out) = match &point {
            None => (
                self.content.list(D::KIND, &query, deadline).await,
                Vec::new(),
            ),
            Some(point) => {
                let past = self.content.list_as_of(D::KIND, &query, point, deadline);
                let past = past.await.map_err(|error| self.read_error(tool, error))?;
                let left_out = past.unexplained.iter().map(as_of::left_out).collect();
                let fetched = Fetched {
                    value: past.page,
                    snapshot_age: None,
                };
                (Ok(fetched), left_out)
            }
        };
        let fetched = fetched.map_err(|error| self.read_error(tool, error))?;
        let has_none = fetched.value.total == 0;
        let is_now = point.is_none();
        let nothing = if has_none && is_now && self.content.is_empty(deadline).await {
            let newest = AuditQuery {
                limit: 1,
                ..AuditQuery::default()
            };
            match self.content.audit_entries(&newest, deadline).await {
                Ok(page) if !page.value.entries.is_empty() => Nothing::AllDeleted,
                Ok(_) | Err(_) => Nothing::EmptyStore,
            }
        } else if has_none && !query.words.is_empty() {
            Nothing::NoMatch
        } else {
            Nothing::NotSaid
        };
        Ok(Found {
            fetched,
            filters,
            as_of: point.as_ref().and_then(as_of::last_change),
            left_out,
            nothing,
        })
    }

    /// About a page of which the first documents are shown.
    fn list_meta(&self, found: &Found, shown: usize, detail: Detail) -> ListMeta {
        let page = &found.fetched.value;
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
            freshness: self.freshness(found.fetched.snapshot_age),
            total: page.total,
            next_cursor: next.map(|position| {
                let updated = position.updated.0.map(Timestamp::micros);
                cursor::encode(&found.filters, &(updated, position.id))
            }),
            versions: match detail {
                Detail::Summary => None,
                Detail::Full => Some(versions),
            },
            as_of: found.as_of.clone(),
            warnings: limit_warnings(
                found
                    .left_out
                    .iter()
                    .chain(&page.unreadable)
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

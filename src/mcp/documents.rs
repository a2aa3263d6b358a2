//! What the tools of both content types do, written once.

use rmcp::{
    ErrorData,
    handler::server::tool::IntoCallToolResult,
    model::{CallToolResponse, JsonObject},
};
use serde_json::{Map, Value, json};

use super::{
    cursor,
    error::{CallOptions, ToolError},
    meta::{DocumentMeta, ListMeta, UpdateMeta, limit_warnings, violation_warnings},
    output::{DocumentBody, SummaryRows, ToolOutput},
    params::{Detail, GetParams, ListParams, UpdateParams},
    server::ContentServer,
    tool_name::ToolName,
};
use crate::{
    deadline::Deadline,
    domain::{
        Document, DocumentKey, Kind, ListPage, ListQuery, Origin, Project, Record, Resource,
        Timestamp, Violation, list::ListPosition, text::truncate,
    },
    service::{Error, Mode, UpdateRequest, Updated},
};

/// A page of whole documents ends at this size, so that it does not fill a model's context.
const MAX_PAGE_BYTES: usize = 256 * 1024;

/// Documents on a page, if the call has no limit.
const DEFAULT_LIMIT: usize = 20;

const EMPTY_STORE: &str = "the store is empty: it holds no projects and no resources. If there should be some, it is the wrong store or key prefix (`portfolio-mcp doctor` says which one is used, and why), or they have not been imported yet (`portfolio-mcp import FOLDER`)";

/// A warning about a document names this many of its invalid fields.
const MAX_NAMED_FIELDS: usize = 5;

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
        let page = match detail {
            Detail::Summary => fetched.value,
            Detail::Full => fit_page(fetched.value),
        };
        let is_empty = page.total == 0 && self.content.is_empty(deadline).await;
        let empty = is_empty.then(|| EMPTY_STORE.to_owned());
        let invalid = page.records.iter().filter_map(invalid_fields_warning);
        let meta = ListMeta {
            freshness: self.freshness(fetched.snapshot_age),
            total: page.total,
            next_cursor: page.next.map(|position| {
                let updated = position.updated.0.map(Timestamp::micros);
                cursor::encode(&filters, &(updated, position.id))
            }),
            warnings: limit_warnings(empty.into_iter().chain(page.unreadable).chain(invalid)),
        };
        let rows = page.records.iter().map(|record| match detail {
            Detail::Summary => summary_row(record),
            Detail::Full => record.document().clone(),
        });
        Ok(ToolOutput::new(SummaryRows::new(rows.collect()), meta))
    }

    pub(super) async fn get<D: Document>(
        &self,
        params: GetParams,
        deadline: Deadline,
    ) -> Result<ToolOutput<DocumentBody<D>, DocumentMeta>, ToolError> {
        let key = DocumentKey::new(D::KIND, params.id);
        let record = self.content.get(key, deadline).await;
        let fetched = record.map_err(|error| self.read_error(ToolName::Get(D::KIND), error))?;
        let record = fetched.value;
        let meta = DocumentMeta {
            freshness: self.freshness(fetched.snapshot_age),
            version: record.version().clone(),
            warnings: violation_warnings(record.violations()),
        };
        Ok(ToolOutput::new(DocumentBody::new(&record), meta))
    }

    pub(super) async fn update<D: Document>(
        &self,
        params: UpdateParams<D>,
        mut origin: Origin,
        deadline: Deadline,
    ) -> Result<ToolOutput<DocumentBody<D>, UpdateMeta>, ToolError> {
        origin.reason = params.reason.filter(|reason| !reason.is_empty());
        let key = DocumentKey::new(D::KIND, params.id);
        let mode = if params.dry_run == Some(true) {
            Mode::DryRun
        } else {
            Mode::Commit
        };
        let request = UpdateRequest {
            key: key.clone(),
            patch: params.data.into_members(),
            expected_version: params.expected_version,
            mode,
            idempotency_key: params.idempotency_key,
            origin,
        };
        let is_empty = request.patch.is_empty();
        let options = CallOptions::of_request(&request);
        let (tool, now) = (ToolName::Update(D::KIND), || self.content.now());
        match self.content.update(request, deadline).await {
            Ok(updated) => {
                let mut output = self.update_output(updated, mode);
                if is_empty {
                    output.add_warning("`data` is empty, so nothing was changed; put the fields to change in `data`");
                }
                Ok(output)
            }
            Err(Error::Invalid(violations)) => {
                Err(ToolError::invalid_change(tool, &key, &violations, now()))
            }
            Err(error) => Err(ToolError::new(tool, error, options, now())),
        }
    }

    /// The response to arguments that break rules: the first result, if this repeats a request that
    /// was valid then; otherwise all violations, those of the change included.
    pub(super) async fn reject_or_replay(
        &self,
        tool: ToolName,
        arguments: &JsonObject,
        mut violations: Vec<Violation>,
        deadline: Deadline,
    ) -> Result<CallToolResponse, ErrorData> {
        let now = || self.content.now();
        let Some(kind) = tool.written_kind() else {
            return ToolError::invalid_arguments(tool, &violations, now()).into_response();
        };
        let mut request = UpdateRequest::from_arguments(kind, arguments);
        match self.content.replay_if_done(&request, deadline).await {
            Ok(None) => {
                (request.mode, request.idempotency_key) = (Mode::DryRun, None);
                if let Err(Error::Invalid(more)) = self.content.update(request, deadline).await {
                    violations.extend(more);
                }
                ToolError::invalid_arguments(tool, &violations, now()).into_response()
            }
            Ok(Some(updated)) => match kind {
                Kind::Project => self
                    .update_output::<Project>(updated, Mode::Commit)
                    .into_call_tool_result(),
                Kind::Resource => self
                    .update_output::<Resource>(updated, Mode::Commit)
                    .into_call_tool_result(),
            },
            Err(error) => {
                let options = CallOptions::of_arguments(arguments);
                ToolError::new(tool, error, options, now()).into_response()
            }
        }
    }

    fn update_output<D: Document>(
        &self,
        updated: Updated,
        mode: Mode,
    ) -> ToolOutput<DocumentBody<D>, UpdateMeta> {
        let meta = UpdateMeta {
            timestamp: self.content.now().to_string(),
            source: self.content.store_name().to_owned(),
            version: updated.version,
            audit_id: updated.audit_id,
            changes: updated.changes,
            dry_run: mode == Mode::DryRun && !updated.replayed,
            replayed: updated.replayed,
            warnings: violation_warnings(&updated.warnings),
        };
        ToolOutput::new(DocumentBody::new(&updated.record), meta)
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
        tag: params.tag.map(|tag| tag.to_lowercase()),
        words: ListQuery::words_of(&params.query.unwrap_or_default()),
        after: after.transpose()?.map(|(updated, id)| ListPosition {
            updated: std::cmp::Reverse(updated.map(Timestamp::from_micros)),
            id,
        }),
        limit: params.limit.map_or(DEFAULT_LIMIT, |limit| limit as usize),
    })
}

/// The first documents of the page that fit in the maximum size, but at least one.
fn fit_page(mut page: ListPage) -> ListPage {
    let mut bytes = 0;
    let fitting = page.records.iter().take_while(|record| {
        bytes += record.text().len();
        bytes <= MAX_PAGE_BYTES
    });
    let count = fitting.count().max(1);
    if count < page.records.len() {
        page.records.truncate(count);
        page.next = page
            .records
            .last()
            .map(|record| record.index_entry().position());
    }
    page
}

/// What a reader needs to choose a document, and its version.
fn summary_row(record: &Record) -> Map<String, Value> {
    let field = |name: &str| record.document().get(name).cloned();
    let metadata = |name: &str| record.document().get("metadata")?.get(name).cloned();
    let own_field = match record.key().kind {
        Kind::Project => "result",
        Kind::Resource => "price",
    };
    [
        ("id", Some(json!(record.key().id))),
        ("title", field("title")),
        ("status", metadata("status")),
        ("featured", metadata("featured")),
        ("tags", field("tags")),
        ("updatedAt", metadata("updatedAt")),
        ("version", Some(json!(record.version()))),
        (own_field, field(own_field)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
    .collect()
}

/// One line about a listed document that breaks rules.
fn invalid_fields_warning(record: &Record) -> Option<String> {
    let violations = record.violations().iter();
    let mut paths: Vec<&str> = violations
        .map(|violation| violation.path.as_str())
        .collect();
    paths.dedup();
    if paths.is_empty() {
        return None;
    }
    let (key, kind) = (record.key(), record.key().kind);
    let named: Vec<_> = paths
        .iter()
        .take(MAX_NAMED_FIELDS)
        .map(|path| match *path {
            "" => "(whole document)".into(),
            path => truncate(path),
        })
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

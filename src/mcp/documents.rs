//! What the tools of both content types do, written once.

use std::time::Duration;

use rmcp::{
    ErrorData,
    handler::server::tool::IntoCallToolResult,
    model::{CallToolResponse, JsonObject},
};
use serde_json::{Map, Value, json};

use super::{
    ContentServer, ToolError,
    answer::{
        DocumentBody, DocumentMeta, Freshness, ListMeta, SummaryRows, ToolOutput, UpdateMeta,
        limited, warnings,
    },
    cursor,
    error::{Keyed, failed},
    params::{Detail, GetParams, ListParams, UpdateParams},
    tool::ToolName,
};
use crate::{
    deadline::Deadline,
    domain::{
        Document, DocumentKey, Kind, ListPage, ListQuery, Origin, Project, Record, Resource,
        Timestamp, Violation, list::ListPosition, text::truncate,
    },
    service::{Error, Mode, UpdateRequest, Updated},
};

/// A page of whole documents stops growing here, in bytes, so that it does not flood a model's context.
const PAGE_BYTES: usize = 256 * 1024;

impl ContentServer {
    pub(super) async fn list<D: Document>(
        &self,
        params: ListParams,
        deadline: Deadline,
    ) -> Result<ToolOutput<SummaryRows<D>, ListMeta>, ToolError> {
        let identity = json!([
            D::KIND.plural(),
            params.status,
            params.featured,
            params.tag,
            params.query
        ]);
        let place = params
            .cursor
            .as_deref()
            .map(|cursor| cursor::decode::<(Option<i64>, String)>(&identity, cursor))
            .transpose();
        let place = place.map_err(|violation| {
            ToolError::invalid_arguments(ToolName::List(D::KIND), &[violation], self.content.now())
        })?;
        let query = ListQuery {
            status: params
                .status
                .and_then(|status| json!(status).as_str().map(ToOwned::to_owned)),
            featured: params.featured,
            tag: params.tag.map(|tag| tag.to_lowercase()),
            words: ListQuery::words_of(&params.query.unwrap_or_default()),
            after: place.map(|(updated, id)| ListPosition {
                updated: std::cmp::Reverse(updated.map(Timestamp::from_micros)),
                id,
            }),
            limit: params.limit.map_or(20, |limit| limit as usize),
        };
        let fetched = self
            .content
            .list(D::KIND, &query, deadline)
            .await
            .map_err(|error| self.failed(ToolName::List(D::KIND), error))?;
        let (
            page,
            Freshness {
                source,
                stale,
                age_ms,
            },
        ) = (fetched.value, self.freshness(fetched.snapshot_age));
        let detail = params.detail.unwrap_or_default();
        let page = if detail == Detail::Full {
            fit_page(page)
        } else {
            page
        };
        let meta = ListMeta {
            timestamp: self.content.now().to_string(),
            source,
            stale,
            age_ms,
            total: page.total,
            next_cursor: page.next.map(|place| {
                cursor::encode(
                    &identity,
                    &(place.updated.0.map(Timestamp::micros), place.id),
                )
            }),
            warnings: limited(
                page.unreadable
                    .into_iter()
                    .chain(page.records.iter().filter_map(broken))
                    .collect(),
            ),
        };
        let row = |record: Record| match detail {
            Detail::Summary => summary(&record),
            Detail::Full => record.document().clone(),
        };
        Ok(ToolOutput::new(
            SummaryRows::new(page.records.into_iter().map(row).collect()),
            meta,
        ))
    }

    pub(super) async fn get<D: Document>(
        &self,
        params: GetParams,
        deadline: Deadline,
    ) -> Result<ToolOutput<DocumentBody<D>, DocumentMeta>, ToolError> {
        let fetched = self
            .content
            .get(DocumentKey::new(D::KIND, params.id), deadline)
            .await
            .map_err(|error| self.failed(ToolName::Get(D::KIND), error))?;
        let (
            record,
            Freshness {
                source,
                stale,
                age_ms,
            },
        ) = (fetched.value, self.freshness(fetched.snapshot_age));
        let meta = DocumentMeta {
            timestamp: self.content.now().to_string(),
            source,
            stale,
            age_ms,
            version: record.version().clone(),
            warnings: warnings(record.violations()),
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
        let nothing_named = request.patch.is_empty();
        let keyed = match request.idempotency_key {
            Some(_) => Keyed::Yes,
            None => Keyed::No,
        };
        let (tool, now) = (ToolName::Update(D::KIND), || self.content.now());
        match self.content.update(request, deadline).await {
            Ok(updated) => {
                let mut answer = self.updated(updated, mode);
                if nothing_named {
                    answer
                        .warn("`data` is empty, so nothing was changed; name the fields to change");
                }
                Ok(answer)
            }
            Err(Error::Invalid(violations)) => {
                Err(ToolError::invalid_change(tool, &key, &violations, now()))
            }
            Err(error) => Err(ToolError::new(tool, error, keyed, now())),
        }
    }

    /// The answer to arguments that break rules: that of the first time, if this repeats a request that was right then, else
    /// everything that is wrong.
    pub(super) async fn reject_or_replay(
        &self,
        tool: ToolName,
        arguments: &JsonObject,
        mut violations: Vec<Violation>,
        deadline: Deadline,
    ) -> Result<CallToolResponse, ErrorData> {
        let now = || self.content.now();
        let Some(kind) = tool.written_kind() else {
            return failed(ToolError::invalid_arguments(tool, &violations, now()));
        };
        let mut request = UpdateRequest::from_arguments(kind, arguments);
        match self.content.replay_if_done(&request).await {
            Ok(None) => {
                (request.mode, request.idempotency_key) = (Mode::DryRun, None);
                if let Err(Error::Invalid(more)) = self.content.update(request, deadline).await {
                    violations.extend(more);
                }
                failed(ToolError::invalid_arguments(tool, &violations, now()))
            }
            Ok(Some(updated)) => match kind {
                Kind::Project => self
                    .updated::<Project>(updated, Mode::Commit)
                    .into_call_tool_result(),
                Kind::Resource => self
                    .updated::<Resource>(updated, Mode::Commit)
                    .into_call_tool_result(),
            },
            Err(error) => failed(ToolError::new(tool, error, Keyed::of(arguments), now())),
        }
    }

    /// The answer to an update that was done, or done before, or only tried.
    pub(super) fn updated<D: Document>(
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
            warnings: warnings(&updated.warnings),
        };
        ToolOutput::new(DocumentBody::new(&updated.record), meta)
    }

    /// Where an answer comes from that is so old, if it is from the saved copy.
    pub(super) fn freshness(&self, saved: Option<Duration>) -> Freshness {
        Freshness::of(self.content.store_name(), saved)
    }

    /// The answer to an error that a reading tool met.
    pub(super) fn failed(&self, tool: ToolName, error: Error) -> ToolError {
        ToolError::new(tool, error, Keyed::No, self.content.now())
    }
}

/// As many of the page's documents as a reader can take at once, but at least one.
fn fit_page(mut page: ListPage) -> ListPage {
    let mut bytes = 0;
    let fitting = page.records.iter().take_while(|record| {
        bytes += record.text().len();
        bytes <= PAGE_BYTES
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

/// One short row: what a reader needs to choose a document, and its version.
fn summary(record: &Record) -> Map<String, Value> {
    let (document, metadata) = (record.document(), record.document().get("metadata"));
    let of = |value: Option<&Value>| value.cloned();
    let last = match record.key().kind {
        Kind::Project => "result",
        Kind::Resource => "price",
    };
    [
        ("id", Some(json!(record.key().id))),
        ("title", of(document.get("title"))),
        (
            "status",
            of(metadata.and_then(|metadata| metadata.get("status"))),
        ),
        (
            "featured",
            of(metadata.and_then(|metadata| metadata.get("featured"))),
        ),
        ("tags", of(document.get("tags"))),
        (
            "updatedAt",
            of(metadata.and_then(|metadata| metadata.get("updatedAt"))),
        ),
        ("version", Some(json!(record.version()))),
        (last, of(document.get(last))),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
    .collect()
}

/// One line about a listed document that breaks rules.
fn broken(record: &Record) -> Option<String> {
    let violations = record.violations();
    let mut paths: Vec<&str> = violations
        .iter()
        .map(|violation| violation.path.as_str())
        .collect();
    paths.dedup();
    let (count, shown) = (
        paths.len(),
        paths
            .iter()
            .take(5)
            .map(|path| truncate(path))
            .collect::<Vec<_>>()
            .join(", "),
    );
    let more = if count > 5 { ", …" } else { "" };
    let kind = record.key().kind;
    (count > 0).then(|| {
        format!(
            "{} breaks rules at {count} places ({shown}{more}); get_{kind} says which",
            record.key()
        )
    })
}

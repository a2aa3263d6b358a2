//! The tools that create and delete a document.

use rmcp::{handler::server::wrapper::Parameters, model::JsonObject, tool, tool_router};
use serde_json::{Value, json};

use super::{
    changes::summarize_changes,
    documents::{UNREAD, point_out_arguments},
    error::{CallOptions, ToolError},
    list::summary_row,
    meta::{AuthoringMeta, fitting_warnings},
    output::{self, ToolOutput, UpdatedDocument, room_beside},
    outside,
    params::{self, CreateParams, DeleteParams},
    server::ContentServer,
    tool_name::ToolName,
    toolset::Toolset,
};
use crate::{
    deadline::Deadline,
    domain::{
        Document, DocumentKey, Kind, Origin, Project, Record, Resource, Source, Version, Violation,
        audit::Action,
    },
    service::{ApplyRequest, CreateRequest, DeleteRequest, Error, Mode, Written, WrittenDocument},
};

/// What a repeated request says about a document that is not as it left it.
const CREATED_SINCE: &str = "a document with this id was created again since";
const DELETED_SINCE: &str = "the document was deleted since";

/// What the tools of this file answer.
type Authored<D> = Result<ToolOutput<UpdatedDocument<D>, AuthoringMeta>, ToolError>;

#[tool_router(router = authoring_tools, vis = "pub(super)")]
impl ContentServer {
    /// Creates a project (client case study), as a draft unless `metadata` says otherwise. If anything
    /// is unclear, first show the owner a `dryRun`.
    #[tool(
        title = "Create project",
        annotations(title = "Create project", read_only_hint = false, destructive_hint = false, idempotent_hint = false, open_world_hint = false),
        input_schema = params::schema::<CreateParams>(),
        output_schema = output::schema::<ToolOutput<UpdatedDocument<Project>, AuthoringMeta>>()
    )]
    async fn create_project(
        &self,
        Parameters(params): Parameters<CreateParams>,
        origin: Origin,
        deadline: Deadline,
    ) -> Authored<Project> {
        self.create(params, origin, deadline).await
    }

    /// Creates a resource (download), as a draft unless `metadata` says otherwise. If anything is
    /// unclear, first show the owner a `dryRun`.
    #[tool(
        title = "Create resource",
        annotations(title = "Create resource", read_only_hint = false, destructive_hint = false, idempotent_hint = false, open_world_hint = false),
        input_schema = params::schema::<CreateParams>(),
        output_schema = output::schema::<ToolOutput<UpdatedDocument<Resource>, AuthoringMeta>>()
    )]
    async fn create_resource(
        &self,
        Parameters(params): Parameters<CreateParams>,
        origin: Origin,
        deadline: Deadline,
    ) -> Authored<Resource> {
        self.create(params, origin, deadline).await
    }

    /// Deletes a project. To only hide it, set `metadata.status` to `archived`. `undo_changes` or
    /// `portfolio-mcp undo` brings it back.
    #[tool(
        title = "Delete project",
        annotations(title = "Delete project", read_only_hint = false, destructive_hint = true, idempotent_hint = false, open_world_hint = false),
        input_schema = params::schema::<DeleteParams>(),
        output_schema = output::schema::<ToolOutput<UpdatedDocument<Project>, AuthoringMeta>>()
    )]
    async fn delete_project(
        &self,
        Parameters(params): Parameters<DeleteParams>,
        origin: Origin,
        deadline: Deadline,
    ) -> Authored<Project> {
        self.delete(params, origin, deadline).await
    }

    /// Deletes a resource. To only hide it, set `metadata.status` to `archived`. `undo_changes` or
    /// `portfolio-mcp undo` brings it back.
    #[tool(
        title = "Delete resource",
        annotations(title = "Delete resource", read_only_hint = false, destructive_hint = true, idempotent_hint = false, open_world_hint = false),
        input_schema = params::schema::<DeleteParams>(),
        output_schema = output::schema::<ToolOutput<UpdatedDocument<Resource>, AuthoringMeta>>()
    )]
    async fn delete_resource(
        &self,
        Parameters(params): Parameters<DeleteParams>,
        origin: Origin,
        deadline: Deadline,
    ) -> Authored<Resource> {
        self.delete(params, origin, deadline).await
    }
}

impl ContentServer {
    async fn create<D: Document>(
        &self,
        params: CreateParams,
        origin: Origin,
        deadline: Deadline,
    ) -> Authored<D> {
        let (tool, now) = (ToolName::Create(D::KIND), || self.content.now());
        let key = DocumentKey::new(D::KIND, params.id);
        if let Some(plan_id) = params.plan {
            let request = params::apply_request(
                plan_id,
                tool,
                Some(key),
                params.reason,
                params.idempotency_key,
                origin,
            );
            return self.apply_authored(tool, request, deadline).await;
        }
        let request = CreateRequest {
            key,
            data: params.data.unwrap_or_default(),
            options: params::write_options(
                params.dry_run,
                params.reason,
                params.idempotency_key,
                origin,
            ),
        };
        let (key, mode) = (request.key.clone(), request.options.mode);
        let options = CallOptions::of_write(&request.options);
        match self.content.create(request, deadline).await {
            Ok(written) => Ok(self.authored(tool, &key, written, mode, deadline).await),
            Err(Error::Invalid(mut violations)) => {
                point_out_arguments(tool, &mut violations);
                Err(ToolError::invalid_change(tool, &key, &violations, now()))
            }
            Err(error) => Err(ToolError::new(tool, error, options, now())),
        }
    }

    async fn delete<D: Document>(
        &self,
        params: DeleteParams,
        origin: Origin,
        deadline: Deadline,
    ) -> Authored<D> {
        let tool = ToolName::Delete(D::KIND);
        let key = DocumentKey::new(D::KIND, params.id);
        if let Some(plan_id) = params.plan {
            let request = params::apply_request(
                plan_id,
                tool,
                Some(key),
                params.reason,
                params.idempotency_key,
                origin,
            );
            return self.apply_authored(tool, request, deadline).await;
        }
        let request = DeleteRequest {
            key,
            // The check of the arguments requires it.
            expected_version: params.expected_version.unwrap_or_default(),
            options: params::write_options(
                params.dry_run,
                params.reason,
                params.idempotency_key,
                origin,
            ),
        };
        let (key, mode) = (request.key.clone(), request.options.mode);
        let options = CallOptions::of_write(&request.options).expecting_version();
        match self.content.delete(request, deadline).await {
            Ok(written) => Ok(self.authored(tool, &key, written, mode, deadline).await),
            Err(error) => Err(ToolError::new(tool, error, options, self.content.now())),
        }
    }

    /// What is wrong with the fields of a creation whose arguments break rules too.
    pub(super) async fn creation_violations(
        &self,
        kind: Kind,
        arguments: &JsonObject,
        deadline: Deadline,
    ) -> Vec<Violation> {
        let id = arguments.get("id").and_then(Value::as_str);
        let data = arguments.get("data").and_then(Value::as_object);
        let (Some(id), Some(data)) = (id, data) else {
            return Vec::new();
        };
        let request = CreateRequest {
            key: DocumentKey::new(kind, id),
            data: data.clone(),
            options: params::write_options(Some(true), None, None, Origin::new(Source::Mcp)),
        };
        match self.content.create(request, deadline).await {
            Err(Error::Invalid(mut violations)) => {
                point_out_arguments(ToolName::Create(kind), &mut violations);
                violations
            }
            _ => Vec::new(),
        }
    }

    /// Creates or deletes a document as planned.
    async fn apply_authored<D: Document>(
        &self,
        tool: ToolName,
        request: ApplyRequest,
        deadline: Deadline,
    ) -> Authored<D> {
        let key = request.key.clone();
        let written = self.apply(tool, request, deadline).await?;
        let key = key.unwrap_or_else(|| DocumentKey::new(D::KIND, ""));
        Ok(self.authoring_output(tool, &key, written, Mode::Commit))
    }

    /// The answer, in a dry run with its plan.
    async fn authored<D: Document>(
        &self,
        tool: ToolName,
        key: &DocumentKey,
        written: Written,
        mode: Mode,
        deadline: Deadline,
    ) -> ToolOutput<UpdatedDocument<D>, AuthoringMeta> {
        let plan = self.keep_plan(tool, &written.planned, deadline).await;
        let mut output = self.authoring_output(tool, key, written, mode);
        plan.add_to(&mut output.meta.plan, &mut output.meta.warnings);
        output
    }

    fn authoring_output<D: Document>(
        &self,
        tool: ToolName,
        key: &DocumentKey,
        written: Written,
        mode: Mode,
    ) -> ToolOutput<UpdatedDocument<D>, AuthoringMeta> {
        let Some(document) = written.documents.into_iter().next() else {
            unreachable!("a creation or deletion changes its document");
        };
        let (shown, action, way_back) = if matches!(tool, ToolName::Delete(_)) {
            let way_back = self.way_back(document.audit_id.as_deref());
            let shown = Shown::deleted(&document, mode);
            (shown, Action::Delete, Some(way_back))
        } else {
            (Shown::created(&document, mode), Action::Create, None)
        };
        let data = UpdatedDocument::row(shown.row(&key.id));
        let outside = written.changed_outside.get(key);
        let outside = outside.map(|after| match &document.audit_id {
            Some(_) => outside::recorded(*after),
            None => outside::shown(*after),
        });
        let since = shown.since.map(ToOwned::to_owned);
        let mut meta = AuthoringMeta {
            dry_run: mode == Mode::DryRun,
            timestamp: self.content.now().to_string(),
            source: self.content.store_name().to_owned(),
            version: shown.version(),
            url: shown.url.and_then(|record| self.public_url(record)),
            changes: summarize_changes(Some(key.kind), Some(action.as_str()), document.changes),
            plan: None,
            audit_id: document.audit_id,
            replayed: written.replayed,
            warnings: Vec::new(),
        };
        let remarks = [way_back, since, outside].into_iter().flatten();
        meta.warnings = fitting_warnings(remarks, room_beside(&data, &meta));
        ToolOutput::new(data, meta)
    }

    /// How a deleted document comes back.
    fn way_back(&self, audit_id: Option<&str>) -> String {
        let by_tool = if self.toolsets.have(Toolset::History) {
            "`undo_changes`"
        } else {
            "`undo_changes` (where the toolset `history` is on)"
        };
        match audit_id {
            Some(id) => format!(
                "to bring it back, undo the deletion: {by_tool} with this auditId, or `portfolio-mcp undo {id}`"
            ),
            None => format!("a deletion can be undone, by {by_tool} or `portfolio-mcp undo`"),
        }
    }
}

/// A document as the answer shows it.
struct Shown<'a> {
    /// The document; `None` if it is not known any more.
    record: Option<&'a Record>,
    /// Whether this is what is stored now.
    is_stored: bool,
    /// The document that visitors can find.
    url: Option<&'a Record>,
    /// What became of it, if this is a repeated request.
    since: Option<&'static str>,
}

impl<'a> Shown<'a> {
    fn created(document: &'a WrittenDocument, mode: Mode) -> Self {
        let record = document.record.as_ref();
        Self {
            record,
            is_stored: mode == Mode::Commit,
            url: record,
            since: match record {
                Some(_) => None,
                None if document.is_unread => Some(UNREAD),
                None => Some(DELETED_SINCE),
            },
        }
    }

    fn deleted(document: &'a WrittenDocument, mode: Mode) -> Self {
        Self {
            record: document.before.as_ref(),
            is_stored: mode == Mode::DryRun,
            url: None,
            since: document.record.as_ref().map(|_| CREATED_SINCE),
        }
    }

    fn version(&self) -> Option<Version> {
        let stored = self.record.filter(|_| self.is_stored)?;
        Some(stored.version().clone())
    }

    fn row(&self, id: &str) -> JsonObject {
        match self.record {
            Some(record) => summary_row(record, self.version().as_ref()),
            None => JsonObject::from_iter([("id".to_owned(), json!(id))]),
        }
    }
}

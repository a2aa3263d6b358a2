//! The three tools for projects.

use rmcp::{handler::server::wrapper::Parameters, tool, tool_router};

use super::{
    ContentServer, ToolError,
    answer::{self, DocumentBody, DocumentMeta, ListMeta, SummaryRows, ToolOutput, UpdateMeta},
    params::{self, GetParams, ListParams, UpdateParams},
};
use crate::deadline::Deadline;
use crate::domain::{Origin, Project};

#[tool_router(router = project_tools, vis = "pub(super)")]
impl ContentServer {
    /// Lists the projects (client case studies), newest change first, as summary rows with id, title, status and version. Filter with
    /// status, featured, tag and query; pass `meta.nextCursor` as cursor for more.
    #[tool(
        title = "List projects",
        annotations(title = "List projects", read_only_hint = true, destructive_hint = false, idempotent_hint = true, open_world_hint = false),
        input_schema = params::schema::<ListParams>(),
        output_schema = answer::schema::<ToolOutput<SummaryRows<Project>, ListMeta>>()
    )]
    async fn list_projects(
        &self,
        Parameters(params): Parameters<ListParams>,
        deadline: Deadline,
    ) -> Result<ToolOutput<SummaryRows<Project>, ListMeta>, ToolError> {
        self.list(params, deadline).await
    }

    /// Reads one project whole. `meta.version` is what `update_project` takes as `expectedVersion`; `meta.warnings` names rules that the stored
    /// document breaks.
    #[tool(
        title = "Get project",
        annotations(title = "Get project", read_only_hint = true, destructive_hint = false, idempotent_hint = true, open_world_hint = false),
        input_schema = params::schema::<GetParams>(),
        output_schema = answer::schema::<ToolOutput<DocumentBody<Project>, DocumentMeta>>()
    )]
    async fn get_project(
        &self,
        Parameters(params): Parameters<GetParams>,
        deadline: Deadline,
    ) -> Result<ToolOutput<DocumentBody<Project>, DocumentMeta>, ToolError> {
        self.get(params, deadline).await
    }

    /// Changes fields of one project on the live website. Fields left out keep their value; `null` removes an optional field. Read the
    /// project first and pass its version as `expectedVersion`; use `dryRun` to show the change before making it. Every change is recorded
    /// in the audit log.
    #[tool(
        title = "Update project",
        annotations(title = "Update project", read_only_hint = false, destructive_hint = true, idempotent_hint = true, open_world_hint = false),
        input_schema = params::schema::<UpdateParams<Project>>(),
        output_schema = answer::schema::<ToolOutput<DocumentBody<Project>, UpdateMeta>>()
    )]
    async fn update_project(
        &self,
        Parameters(params): Parameters<UpdateParams<Project>>,
        origin: Origin,
        deadline: Deadline,
    ) -> Result<ToolOutput<DocumentBody<Project>, UpdateMeta>, ToolError> {
        self.update(params, origin, deadline).await
    }
}

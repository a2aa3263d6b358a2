//! The three tools for resources.

use rmcp::{handler::server::wrapper::Parameters, tool, tool_router};

use super::{
    ContentServer, ToolError,
    answer::{self, DocumentBody, DocumentMeta, ListMeta, SummaryRows, ToolOutput, UpdateMeta},
    params::{self, GetParams, ListParams, UpdateParams},
};
use crate::deadline::Deadline;
use crate::domain::{Origin, Resource};

#[tool_router(router = resource_tools, vis = "pub(super)")]
impl ContentServer {
    /// Lists the resources (downloadable goods), newest change first, as summary rows with id, title, status and version. Filter with
    /// status, featured, tag and query; pass `meta.nextCursor` as cursor for more.
    #[tool(
        title = "List resources",
        annotations(title = "List resources", read_only_hint = true, destructive_hint = false, idempotent_hint = true, open_world_hint = false),
        input_schema = params::schema::<ListParams>(),
        output_schema = answer::schema::<ToolOutput<SummaryRows<Resource>, ListMeta>>()
    )]
    async fn list_resources(
        &self,
        Parameters(params): Parameters<ListParams>,
        deadline: Deadline,
    ) -> Result<ToolOutput<SummaryRows<Resource>, ListMeta>, ToolError> {
        self.list(params, deadline).await
    }

    /// Reads one resource whole. `meta.version` is what `update_resource` takes as `expectedVersion`; `meta.warnings` names rules that the stored
    /// document breaks.
    #[tool(
        title = "Get resource",
        annotations(title = "Get resource", read_only_hint = true, destructive_hint = false, idempotent_hint = true, open_world_hint = false),
        input_schema = params::schema::<GetParams>(),
        output_schema = answer::schema::<ToolOutput<DocumentBody<Resource>, DocumentMeta>>()
    )]
    async fn get_resource(
        &self,
        Parameters(params): Parameters<GetParams>,
        deadline: Deadline,
    ) -> Result<ToolOutput<DocumentBody<Resource>, DocumentMeta>, ToolError> {
        self.get(params, deadline).await
    }

    /// Changes fields of one resource on the live website. Fields left out keep their value; `null` removes an optional field. Read the
    /// resource first and pass its version as `expectedVersion`; use `dryRun` to show the change before making it. Every change is recorded
    /// in the audit log.
    #[tool(
        title = "Update resource",
        annotations(title = "Update resource", read_only_hint = false, destructive_hint = true, idempotent_hint = true, open_world_hint = false),
        input_schema = params::schema::<UpdateParams<Resource>>(),
        output_schema = answer::schema::<ToolOutput<DocumentBody<Resource>, UpdateMeta>>()
    )]
    async fn update_resource(
        &self,
        Parameters(params): Parameters<UpdateParams<Resource>>,
        origin: Origin,
        deadline: Deadline,
    ) -> Result<ToolOutput<DocumentBody<Resource>, UpdateMeta>, ToolError> {
        self.update(params, origin, deadline).await
    }
}

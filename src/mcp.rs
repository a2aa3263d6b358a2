//! The MCP server: one handler for all transports, typed tools, and what surrounds every
//! call.
//!
//! **Architecture invariant:** knows the service and rmcp; neither Redis nor files nor HTTP.

use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CacheScope, CallToolRequestParams, CallToolResponse, CompleteRequestParams, CompleteResult,
        CustomRequest, CustomResult, DiscoverResult, GetPromptRequestParams, GetPromptResponse,
        Implementation, InitializeRequestParams, InitializeResult, ListPromptsResult,
        ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, PaginatedRequestParams,
        ReadResourceRequestParams, ReadResourceResponse, ServerCapabilities, ServerConfig, Tool,
    },
    service::RequestContext,
    tool_handler,
};
use tokio::time::Instant;

mod arguments;
mod as_of;
mod audit;
mod authoring;
mod call;
mod change_arguments;
mod changes;
mod client_arguments;
mod compare;
pub mod cursor;
mod discovery;
mod documents;
mod entry_row;
mod error;
mod history;
pub(crate) mod incoming;
mod instructions;
mod invalid_params;
mod list;
mod many;
mod meta;
mod metrics;
mod notice;
mod origin;
mod output;
mod outside;
mod params;
pub(crate) mod pending;
mod plans;
mod projects;
mod public_url;
mod rejection;
mod resources;
mod router;
mod server;
pub mod stdio;
mod tool_name;
mod toolset;
mod undo;
mod warnings;

pub use error::ToolError;
pub use notice::StoreNotice;
pub use public_url::PublicUrl;
pub use server::ContentServer;
pub use toolset::{Toolset, Toolsets};

use invalid_params::no_method;
use metrics::{count_call, record_duration};
use router::{ROUTER, toolset_is_off, unknown_tool};
use tool_name::{Effect, ToolName};

/// The longest message that any transport reads, in bytes. A document has at most 256 KiB.
pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// How long clients may cache the list of tools.
const TOOL_LIST_TTL_MS: u64 = 300_000;

impl ContentServer {
    fn read_only_reason_in(&self, context: &RequestContext<RoleServer>) -> Option<String> {
        self.read_only_reason(origin::caller(context))
    }

    /// The tools that the caller may use.
    fn offered_tools(&self, context: &RequestContext<RoleServer>) -> Vec<Tool> {
        let mut tools = Self::tools(&self.toolsets);
        if self.read_only_reason_in(context).is_some() {
            let reads = |tool: ToolName| tool.effect() == Effect::Reads;
            tools.retain(|tool| ToolName::parse(&tool.name).is_none_or(reads));
        }
        tools
    }

    /// The instructions depend on whether the caller may write.
    fn with_instructions_for(
        &self,
        config: ServerConfig,
        context: &RequestContext<RoleServer>,
    ) -> ServerConfig {
        config.with_instructions(self.instructions(origin::caller(context)))
    }

    async fn call_or_reject(
        &self,
        tool: Option<ToolName>,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(tool) = tool else {
            return Err(unknown_tool(&request.name, &self.offered_tools(&context)));
        };
        if let Some((toolset, with_it)) = self.toolsets.missing_for(tool) {
            return Err(toolset_is_off(tool, toolset, &with_it));
        }
        if tool.effect() == Effect::Writes
            && let Some(reason) = self.read_only_reason_in(&context)
        {
            let now = self.content.now();
            return ToolError::read_only(tool, &reason, None, now).into_response();
        }
        self.run_call(tool, request, context).await
    }
}

#[tool_handler(router = ROUTER)]
impl ServerHandler for ContentServer {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(
                Implementation::new("portfolio-mcp", env!("CARGO_PKG_VERSION"))
                    .with_title("Portfolio content"),
            )
            .with_instructions(self.instructions(None))
    }

    async fn initialize(
        &self,
        mut request: InitializeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        let config = self.negotiate_initialize(&request)?;
        // What was agreed counts from here on, not what the client asked for.
        request.protocol_version = config.protocol_version.clone();
        context.peer.set_peer_info(request);
        Ok(self.with_instructions_for(config, &context))
    }

    async fn discover(
        &self,
        context: RequestContext<RoleServer>,
    ) -> Result<DiscoverResult, ErrorData> {
        let versions = self.supported_protocol_versions().into_owned();
        let config = self.with_instructions_for(self.get_info(), &context);
        Ok(DiscoverResult::from_server_info(versions, config))
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        // With tokens, the list depends on the caller.
        let scope = match origin::caller(&context) {
            Some(_) => CacheScope::Private,
            None => CacheScope::Public,
        };
        Ok(
            ListToolsResult::with_all_items(self.offered_tools(&context))
                .with_ttl_ms(TOOL_LIST_TTL_MS)
                .with_cache_scope(scope),
        )
    }

    // rmcp answers these with the method's name and nothing else.
    async fn complete(
        &self,
        _: CompleteRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        Err(no_method("completion/complete"))
    }

    async fn get_prompt(
        &self,
        _: GetPromptRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        Err(no_method("prompts/get"))
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        Err(no_method("prompts/list"))
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Err(no_method("resources/list"))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Err(no_method("resources/templates/list"))
    }

    async fn read_resource(
        &self,
        _: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        Err(no_method("resources/read"))
    }

    /// rmcp also calls this for a known method with invalid params.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        context: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        let params = request.params.as_ref();
        // From 2026-07-28 on, each request names its revision, and none of them has `initialize`.
        if request.method == "initialize" && context.meta.protocol_version().is_some() {
            return Err(invalid_params::no_initialize());
        }
        Err(invalid_params::error(&request.method, params))
    }

    // Boxed, because rmcp moves this future several times: that saves a dozen copies of some
    // kilobytes for each call.
    fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> impl Future<Output = Result<CallToolResponse, ErrorData>> + Send {
        let (tool, started) = (ToolName::parse(&request.name), Instant::now());
        let label = tool.map_or("unknown", ToolName::as_str);
        Box::pin(async move {
            let mut response = self.call_or_reject(tool, request, context).await;
            if let (Some(notice), Ok(response)) = (&self.store_notice, &mut response) {
                notice.add_to(response);
            }
            match &response {
                // A `ToolError`, which was counted when it was rendered.
                Ok(CallToolResponse::Complete(result)) if result.is_error == Some(true) => {}
                Ok(_) => count_call(label, "ok"),
                Err(_) => count_call(label, "refused"),
            }
            record_duration(label, started.elapsed());
            response
        })
    }
}

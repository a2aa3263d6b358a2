//! All tools, and the checks of their arguments.

use std::sync::LazyLock;

use rmcp::{ErrorData, handler::server::router::tool::ToolRouter, model::Tool};

use super::{
    arguments::ToolChecks,
    as_of, discovery,
    server::ContentServer,
    tool_name::ToolName,
    toolset::{Toolset, Toolsets},
};
use crate::domain::{Violation, text::truncate};

pub(super) static ROUTER: LazyLock<ToolRouter<ContentServer>> = LazyLock::new(|| {
    let mut router = ContentServer::project_tools()
        + ContentServer::resource_tools()
        + ContentServer::audit_tools()
        + ContentServer::undo_tools()
        + ContentServer::history_tools()
        + ContentServer::compare_tools()
        + ContentServer::authoring_tools()
        + ContentServer::batch_tools();
    for route in router.map.values_mut() {
        // rmcp keeps the line breaks of doc comments.
        route.attr.description = route
            .attr
            .description
            .take()
            .map(|text| text.replace('\n', " ").into());
        route.attr.meta = ToolName::parse(&route.attr.name).map(discovery::meta);
    }
    router
});

pub(super) static CHECKS: LazyLock<ToolChecks> = LazyLock::new(|| ToolChecks::new(ToolName::all()));

impl ContentServer {
    /// The tools of these toolsets as published, the writing tools included.
    #[must_use]
    pub fn tools(toolsets: &Toolsets) -> Vec<Tool> {
        let mut tools: Vec<Tool> = toolsets.iter().flat_map(tools_of).collect();
        if !toolsets.have(Toolset::History) {
            tools.iter_mut().for_each(as_of::leave_out);
        }
        tools
    }
}

fn tools_of(toolset: Toolset) -> Vec<Tool> {
    let mut tools = ROUTER.list_all();
    tools.retain(|tool| {
        let name = ToolName::parse(&tool.name);
        name.is_some_and(|name| toolset.tools().contains(&name))
    });
    tools
}

/// The protocol error for a tool of a toolset that this server does not offer.
pub(super) fn toolset_is_off(tool: ToolName, toolset: Toolset, with_it: &str) -> ErrorData {
    let message = format!(
        "the tool `{}` is not offered, because the toolset `{}` is off; to turn it on, start the server with `--toolsets {with_it}` (or PORTFOLIO_TOOLSETS)",
        tool.as_str(),
        toolset.as_str()
    );
    ErrorData::invalid_params(message, None)
}

/// The protocol error for a tool that does not exist; `offered` are the tools that the caller sees.
pub(super) fn unknown_tool(name: &str, offered: &[Tool]) -> ErrorData {
    let names: Vec<&str> = offered.iter().map(|tool| &*tool.name).collect();
    let violation = Violation::unknown("", "tool", name, names.iter().copied());
    let suggestion = violation
        .suggestion
        .map_or_else(String::new, |name| format!("; did you mean `{name}`?"));
    let message = format!(
        "unknown tool `{}`{suggestion} (available tools: {})",
        truncate(name),
        names.join(", ")
    );
    ErrorData::invalid_params(message, None)
}

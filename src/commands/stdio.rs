//! `stdio`: one MCP client, which started this process and ends it by closing its input.

use std::{
    io::{IsTerminal, stdin},
    process::ExitCode,
    sync::Arc,
};

use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::server::server;
use crate::{logs::print_line, mcp::stdio, service::ContentService, settings::Settings};

/// For somebody who typed the command, and would wait for it in vain.
const WAITING: [&str; 2] = [
    "waiting for an MCP client on standard input; usually a client starts this command itself. Ctrl-C ends it",
    "to serve clients over HTTP, run `portfolio-mcp http`; to check the configuration and the store, `portfolio-mcp doctor`",
];

/// Serves until standard input ends, or until `stop`.
///
/// # Errors
/// When standard input or output fails.
pub async fn run(
    content: Arc<ContentService>,
    settings: &Settings,
    stop: CancellationToken,
) -> anyhow::Result<ExitCode> {
    if stdin().is_terminal() {
        for line in WAITING {
            print_line(line);
        }
    }
    let actor = whoami::username().ok();
    let _refresh = AbortOnDropHandle::new(tokio::spawn({
        let content = Arc::clone(&content);
        async move { content.run_refresh().await }
    }));
    let server = server(content, actor.as_deref(), settings);
    stdio::serve(server, stop).await?;
    Ok(ExitCode::SUCCESS)
}

//! `http`: many MCP clients over the network.

use std::{
    io::{Write, stderr},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{cli::Settings, http, mcp::ContentServer, service::ContentService};

/// Serves until the process is told to stop.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn run(content: Arc<ContentService>, settings: &Settings, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let listener = TcpListener::bind(settings.listen).await.with_context(|| format!("cannot listen on {}", settings.listen))?;
    // Whatever is logged: whoever chose port 0 has to learn which one it became.
    writeln!(stderr(), "listening on http://{}, MCP at /mcp and /sse", listener.local_addr()?)?;
    let _copy = AbortOnDropHandle::new(tokio::spawn({
        let content = Arc::clone(&content);
        async move { content.keep_copy().await }
    }));
    // Over the network nobody is the operating system's user.
    let server = ContentServer::new(content, None, settings.read_only.as_deref());
    http::serve(listener, server, settings.http.clone(), stop).await?;
    Ok(ExitCode::SUCCESS)
}

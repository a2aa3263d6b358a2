//! `stdio`: one MCP client, which started this process and ends it by closing its input.

use std::{process::ExitCode, sync::Arc};

use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    mcp::{ContentServer, stdio},
    service::ContentService,
    settings::Settings,
};

/// Serves until standard input ends, or until `stop`.
///
/// # Errors
/// When standard input or output fails.
pub async fn run(
    content: Arc<ContentService>,
    settings: &Settings,
    stop: CancellationToken,
) -> anyhow::Result<ExitCode> {
    let actor = whoami::username().ok();
    let _refresh = AbortOnDropHandle::new(tokio::spawn({
        let content = Arc::clone(&content);
        async move { content.run_refresh().await }
    }));
    let server = ContentServer::new(content, actor.as_deref(), settings.read_only.as_deref());
    stdio::serve(server, stop).await?;
    Ok(ExitCode::SUCCESS)
}

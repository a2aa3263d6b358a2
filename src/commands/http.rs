//! `http`: many MCP clients over the network.

use std::{process::ExitCode, sync::Arc};

use tokio_util::sync::CancellationToken;

use crate::{
    cli::{HttpArgs, Settings},
    service::ContentService,
};

/// Serves until the process is told to stop.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn run(
    _content: Arc<ContentService>,
    _settings: &Settings,
    _arguments: &HttpArgs,
    _stop: CancellationToken,
) -> anyhow::Result<ExitCode> {
    anyhow::bail!("being written")
}

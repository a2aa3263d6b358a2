//! `http`: many MCP clients over the network.

use std::{
    fs,
    io::{Write, stderr},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{info, warn};

use crate::{
    cli::{Settings, TokenSource, UsageError},
    http::{self, Tokens},
    mcp::ContentServer,
    service::ContentService,
};

/// Descriptors that connections leave for the store, the listener, and whatever else the process opens; half of them where there
/// are few.
const RESERVED: u64 = 128;

/// Serves until the process is told to stop.
///
/// # Errors
/// When the tokens cannot be read or the address cannot be listened on.
pub async fn run(content: Arc<ContentService>, settings: &Settings, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let mut http = settings.http.clone();
    http.tokens = match &settings.tokens {
        None => None,
        Some(TokenSource::Variable(tokens)) => Some(watch::channel(tokens.clone()).1),
        Some(TokenSource::File(file)) => Some(follow(file.clone())?),
    };
    let descriptors = rlimit::increase_nofile_limit(u64::MAX).context("raising the limit of open files")?;
    let left = descriptors.saturating_sub(RESERVED).max(descriptors / 2);
    http.connections = http.connections.min(usize::try_from(left).unwrap_or(usize::MAX));

    let listener = TcpListener::bind(settings.listen).await.with_context(|| format!("cannot listen on {}", settings.listen))?;
    if !settings.listen.ip().to_canonical().is_loopback() && http.allowed_hosts.is_empty() {
        warn!("only requests for `localhost` are served; name with --allowed-host how others reach this machine");
    }
    // Whatever is logged: whoever chose port 0 has to learn which one it became.
    writeln!(stderr(), "listening on http://{}, MCP at /mcp and /sse", listener.local_addr()?)?;
    let _copy = AbortOnDropHandle::new(tokio::spawn({
        let content = Arc::clone(&content);
        async move { content.keep_copy().await }
    }));
    // Over the network nobody is the operating system's user.
    let server = ContentServer::new(content, None, settings.read_only.as_deref());
    http::serve(listener, server, http, stop).await?;
    Ok(ExitCode::SUCCESS)
}

/// The tokens of a file, now and after each SIGHUP.
fn follow(file: PathBuf) -> anyhow::Result<watch::Receiver<Tokens>> {
    let name = |problem: &String| format!("--token-file {}{problem}", file.display());
    let tokens = read(&file).map_err(|problems| UsageError(problems.iter().map(name).collect()))?;
    info!("{} tokens are in {}", tokens.count(), file.display());
    let (sender, receiver) = watch::channel(tokens);
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        // Before anything is served, because a signal that nobody waits for ends the process.
        let mut hangup = signal(SignalKind::hangup()).context("waiting for SIGHUP")?;
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                match read(&file) {
                    Ok(tokens) => {
                        info!("read {} again: {} tokens", file.display(), tokens.count());
                        sender.send_replace(tokens);
                    }
                    Err(problems) => {
                        for problem in problems {
                            warn!("kept the old tokens, because the new ones are wrong: {}{problem}", file.display());
                        }
                    }
                }
            }
        });
    }
    Ok(receiver)
}

/// The tokens of a file, or what is wrong, to be said after the file's name.
fn read(file: &Path) -> Result<Tokens, Vec<String>> {
    let text = fs::read_to_string(file).map_err(|error| vec![format!(" cannot be read: {error}")])?;
    Tokens::parse(&text).map_err(|problems| problems.into_iter().map(|problem| format!(", {problem}")).collect())
}

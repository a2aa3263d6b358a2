//! `http`: many MCP clients over the network. Reads its tokens again on SIGHUP.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{info, warn};

use super::server::server as mcp_server;
use crate::{
    http::{self, SiteRoutes, Tokens},
    logs::print_line,
    service::ContentService,
    settings::{HttpSettings, Settings, TokenSource, read_tokens},
};

mod prometheus;

/// File descriptors that connections leave for the store, the listener and everything else; half of
/// them if there are only few.
const RESERVED_DESCRIPTORS: u64 = 128;

/// How often measured values are sorted into their buckets while nobody reads the metrics. Until
/// then each value takes memory.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Serves until `stop`.
///
/// # Errors
/// When the settings of `http` are wrong, or the address cannot be listened on.
pub async fn run(
    content: Arc<ContentService>,
    settings: Settings,
    stop: CancellationToken,
) -> anyhow::Result<ExitCode> {
    // Not the user who runs this process: callers are other people.
    let handler = mcp_server(Arc::clone(&content), None, &settings);
    let HttpSettings {
        listen,
        mut server,
        tokens,
    } = settings.http?;
    server.tokens = match tokens {
        None => None,
        Some(TokenSource::Variable(tokens)) => Some(watch::channel(tokens).1),
        Some(TokenSource::File { path, tokens }) => Some(follow(path, tokens)?),
    };
    server.max_connections = server.max_connections.min(max_connections()?);

    let listener = TcpListener::bind(listen)
        .await
        .map_err(|error| cannot_listen(listen, &error))?;
    if !listen.ip().to_canonical().is_loopback() && server.allowed_hosts.is_empty() {
        warn!(
            "only the host name `localhost` is accepted; add every public host name with --allowed-host"
        );
    }
    print_addresses(listener.local_addr()?);
    let _refresh = AbortOnDropHandle::new(tokio::spawn({
        let content = Arc::clone(&content);
        async move { content.run_refresh().await }
    }));
    let metrics = prometheus::start(content.store_name())?;
    let _upkeep = AbortOnDropHandle::new(tokio::spawn(run_upkeep(metrics.clone())));
    let site = SiteRoutes {
        content,
        metrics: Some(metrics),
    };
    http::serve(listener, handler, site, server, stop).await;
    Ok(ExitCode::SUCCESS)
}

fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> anyhow::Error {
    let port = address.port();
    let remedy = match error.kind() {
        ErrorKind::AddrInUse => format!(
            "another program listens on port {port}, perhaps another portfolio-mcp; end that program, or choose another port with --listen (PORTFOLIO_LISTEN), such as `--listen {}`",
            SocketAddr::new(address.ip(), port.checked_add(1).unwrap_or(8787))
        ),
        ErrorKind::PermissionDenied => format!(
            "port {port} needs more rights than this user has; choose one from 1024 on with --listen (PORTFOLIO_LISTEN)"
        ),
        ErrorKind::AddrNotAvailable => {
            "this machine does not have that address; choose another one with --listen (PORTFOLIO_LISTEN)"
                .to_owned()
        }
        _ => "choose another address with --listen (PORTFOLIO_LISTEN)".to_owned(),
    };
    anyhow::anyhow!("cannot listen on {address} ({error}): {remedy}")
}

/// Not log lines: with port 0 this is the only way to learn the address.
fn print_addresses(listening: SocketAddr) {
    print_line(&format!("listening on http://{listening}, with:"));
    // Nobody can call the address that stands for all addresses.
    let mut shown = listening;
    if shown.ip().is_unspecified() {
        shown.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    for (what, path) in [
        ("MCP, Streamable HTTP", "/mcp"),
        ("MCP, HTTP+SSE", "/sse"),
        ("website", "/api/projects"),
        ("website", "/api/resources"),
    ] {
        print_line(&format!("  http://{shown}{path} ({what})"));
    }
}

/// As many connections as the system's limit of open files allows.
fn max_connections() -> anyhow::Result<usize> {
    let descriptors =
        rlimit::increase_nofile_limit(u64::MAX).context("raising the limit of open files")?;
    let free = descriptors
        .saturating_sub(RESERVED_DESCRIPTORS)
        .max(descriptors / 2);
    Ok(usize::try_from(free).unwrap_or(usize::MAX))
}

async fn run_upkeep(metrics: PrometheusHandle) {
    loop {
        tokio::time::sleep(UPKEEP_INTERVAL).await;
        metrics.run_upkeep();
    }
}

/// The tokens of a file, now and after each SIGHUP. A file with errors leaves the old tokens in
/// place.
fn follow(file: PathBuf, tokens: Tokens) -> anyhow::Result<watch::Receiver<Tokens>> {
    let name = file.display().to_string();
    info!("read the token file {name} (tokens: {})", tokens.count());
    let (sender, receiver) = watch::channel(tokens);
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        // Before anything is served: without a handler the signal ends the process.
        let mut hangup = signal(SignalKind::hangup()).context("waiting for SIGHUP")?;
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                match read_tokens(&file) {
                    Ok(tokens) => {
                        info!(
                            "read the token file {name} again (tokens: {})",
                            tokens.count()
                        );
                        sender.send_replace(tokens);
                    }
                    Err(problems) => {
                        for problem in problems {
                            warn!(
                                "kept the old tokens, because the token file has errors: {problem}"
                            );
                        }
                    }
                }
            }
        });
    }
    Ok(receiver)
}

//! `http`: many MCP clients over the network.

use std::{
    fs,
    io::{Write, stderr},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{info, warn};

use crate::{
    cli::{Settings, TokenSource, UsageError},
    http::{self, SiteRoutes, Tokens},
    mcp::ContentServer,
    service::ContentService,
};

/// Descriptors that connections leave for the store, the listener, and whatever else the process opens; half of them where there
/// are few.
const RESERVED: u64 = 128;

/// How often what was measured is sorted into its buckets when nobody asks for it; until then each value takes its own place.
const SORTED: Duration = Duration::from_secs(5);

/// Upper ends of the buckets of durations, in seconds.
const DURATIONS: [f64; 13] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Serves until the process is told to stop.
///
/// # Errors
/// When the tokens cannot be read or the address cannot be listened on.
pub async fn run(
    content: Arc<ContentService>,
    settings: &Settings,
    stop: CancellationToken,
) -> anyhow::Result<ExitCode> {
    let mut http = settings.http.clone();
    http.tokens = match &settings.tokens {
        None => None,
        Some(TokenSource::Variable(tokens)) => Some(watch::channel(tokens.clone()).1),
        Some(TokenSource::File(file)) => Some(follow(file.clone())?),
    };
    let descriptors =
        rlimit::increase_nofile_limit(u64::MAX).context("raising the limit of open files")?;
    let left = descriptors.saturating_sub(RESERVED).max(descriptors / 2);
    http.max_connections = http
        .max_connections
        .min(usize::try_from(left).unwrap_or(usize::MAX));

    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("cannot listen on {}", settings.listen))?;
    if !settings.listen.ip().to_canonical().is_loopback() && http.allowed_hosts.is_empty() {
        warn!(
            "only requests for `localhost` are served; name with --allowed-host how others reach this machine"
        );
    }
    // Whatever is logged: whoever chose port 0 has to learn which one it became.
    writeln!(
        stderr(),
        "listening on http://{}, MCP at /mcp and /sse",
        listener.local_addr()?
    )?;
    let _copy = AbortOnDropHandle::new(tokio::spawn({
        let content = Arc::clone(&content);
        async move { content.run_refresh().await }
    }));
    let metrics = start_counting(&content)?;
    let _sorting = AbortOnDropHandle::new(tokio::spawn({
        let metrics = metrics.clone();
        async move {
            loop {
                tokio::time::sleep(SORTED).await;
                metrics.run_upkeep();
            }
        }
    }));
    // Over the network nobody is the operating system's user.
    let server = ContentServer::new(Arc::clone(&content), None, settings.read_only.as_deref());
    http::serve(
        listener,
        server,
        SiteRoutes {
            content,
            metrics: Some(metrics),
        },
        http,
        stop,
    )
    .await;
    Ok(ExitCode::SUCCESS)
}

/// Counts from here on what the parts of the program report, and says what it means.
fn start_counting(content: &ContentService) -> anyhow::Result<PrometheusHandle> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_duration_seconds".to_owned()), &DURATIONS)
        .context("the buckets of the metrics")?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).context("starting the metrics")?;

    describe_gauge!(
        "portfolio_build_info",
        Unit::Count,
        "Always 1; the version is a label."
    );
    describe_counter!(
        "portfolio_tool_calls_total",
        Unit::Count,
        "Calls of tools, by tool and outcome: ok, an error code, or refused."
    );
    describe_histogram!(
        "portfolio_tool_duration_seconds",
        Unit::Seconds,
        "How long calls of tools took, in seconds, by tool."
    );
    describe_counter!(
        "portfolio_rest_answers_total",
        Unit::Count,
        "Answers to the website, by kind and by what they were made from."
    );
    describe_histogram!(
        "portfolio_store_duration_seconds",
        Unit::Seconds,
        "How long the store took, in seconds, by operation."
    );
    describe_counter!(
        "portfolio_store_retries_total",
        Unit::Count,
        "Operations that were sent to the store again."
    );
    describe_counter!(
        "portfolio_store_reconnects_total",
        Unit::Count,
        "Connections to the store that fell silent and were replaced."
    );
    describe_gauge!(
        "portfolio_breaker_open",
        Unit::Count,
        "1 while reads, or writes, are kept from a store that does not answer, else 0."
    );
    describe_counter!(
        "portfolio_breaker_opened_total",
        Unit::Count,
        "How often reads, or writes, began to be kept from the store."
    );
    describe_gauge!(
        "portfolio_snapshot_age_seconds",
        Unit::Seconds,
        "Seconds since the store last confirmed the saved copy."
    );
    describe_gauge!(
        "portfolio_sse_sessions",
        Unit::Count,
        "Open sessions of HTTP+SSE."
    );
    describe_gauge!(
        "portfolio_http_connections",
        Unit::Count,
        "Open connections."
    );

    // What begins with 0 is seen when it becomes 1.
    gauge!("portfolio_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!("portfolio_sse_sessions").set(0.0);
    if content.store_name() == "redis" {
        counter!("portfolio_store_reconnects_total").absolute(0);
        for breaker in ["reads", "writes"] {
            gauge!("portfolio_breaker_open", "breaker" => breaker).set(0.0);
            counter!("portfolio_breaker_opened_total", "breaker" => breaker).absolute(0);
        }
    }
    Ok(handle)
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
                            warn!(
                                "kept the old tokens, because the new ones are wrong: {}{problem}",
                                file.display()
                            );
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
    let text =
        fs::read_to_string(file).map_err(|error| vec![format!(" cannot be read: {error}")])?;
    Tokens::parse(&text).map_err(|problems| {
        problems
            .into_iter()
            .map(|problem| format!(", {problem}"))
            .collect()
    })
}

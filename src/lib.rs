//! Read and edit a website's case studies and downloads from any MCP client, with every change on record.
//!
//! The map, in reading order. A write goes down this list, a read skips the domain:

pub mod caller;
pub mod cli;
/// One file per subcommand: what each does with the parts below, and its exit code.
pub mod commands {
    pub mod doctor;
    pub mod http;
    pub mod import;
    pub mod stdio;
}
pub mod deadline;
pub mod domain;
pub mod folder;
pub mod http;
mod logs;
pub mod mcp;
pub mod service;
pub mod store;

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use clap::CommandFactory;
use tokio_util::sync::CancellationToken;
use tracing::{info, level_filters::LevelFilter};
use tracing_subscriber::{filter::Targets, prelude::*};

use cli::{Cli, Command, Environment, LogFormat, Settings};
use domain::Timestamp;
use service::ContentService;

/// Runs the command that `cli` asks for and says how it went.
///
/// # Errors
/// A [`cli::UsageError`], or why the store or the system did not do its part.
pub fn run(cli: &Cli, environment: Environment<'_>) -> anyhow::Result<ExitCode> {
    if cli.command.is_none() && std::io::stdin().is_terminal() {
        Cli::command().print_help()?;
        return Ok(ExitCode::SUCCESS);
    }
    let settings = cli.settings(environment)?;
    start_logs(&settings);
    info!(
        "content is in {} ({})",
        settings.location, settings.chosen_by
    );

    let mut runtime = match workers() {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = runtime.worker_threads(workers()).enable_all().build()?;
    let result = runtime.block_on(async {
        if let Some(Command::Doctor(arguments)) = &cli.command {
            // It looks at the store by itself, before anything that serves has touched it.
            let origins = cli.origins(&settings, environment);
            return commands::doctor::run(&settings, origins, arguments, stop_on_signals(), &mut std::io::stdout().lock()).await;
        }
        let content = Arc::new(ContentService::new(store::open(&settings.location)?, clock));
        let stop = stop_on_signals();
        match &cli.command {
            None | Some(Command::Stdio | Command::Doctor(_)) => commands::stdio::run(content, &settings, stop).await,
            Some(Command::Http(_)) => commands::http::run(content, &settings, stop).await,
            Some(Command::Import(arguments)) => {
                let mut out = std::io::stdout();
                tokio::select! {
                    done = commands::import::run(&content, &settings, arguments, &mut out) => done,
                    () = stop.cancelled() => anyhow::bail!("interrupted: what was imported so far is kept; run it again for the rest"),
                }
            }
        }
    });
    // A read of standard input that nobody answers any more must not keep the process.
    runtime.shutdown_background();
    let _ = std::io::stderr().flush();
    result
}

/// One worker for every two processors: calls mostly wait, and passing them between workers costs more than it gains while the
/// store or the client runs on the same machine. With two workers on two processors an update took a fifth more time of the processor; one
/// worker alone is the main thread, which hands the store what several calls ask of it at once, and takes a tenth less.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| processors.get().div_ceil(2))
}

/// The clock of the process, the only one.
#[must_use]
pub fn clock() -> Timestamp {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that is passed in everywhere else"
    )]
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX))
}

/// Logs to stderr. What rmcp logs are whole messages, with content, and every refused request a second time; it is silent.
fn start_logs(settings: &Settings) {
    let level: LevelFilter = settings.log.parse().unwrap_or(LevelFilter::INFO);
    let targets = Targets::new()
        .with_target("portfolio_mcp", level)
        .with_target("rmcp", LevelFilter::OFF)
        .with_default(level.min(LevelFilter::WARN));
    let format = settings.log_format;
    let out = move || logs::Lines {
        out: std::io::stderr(),
        format,
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(out)
        .with_target(false)
        .with_ansi(false);
    let registry = tracing_subscriber::registry().with(targets);
    // A second start in one process, as tests do it, keeps the first one's logs.
    let _ = match format {
        LogFormat::Text => registry.with(lines).try_init(),
        LogFormat::Json => registry.with(lines.json()).try_init(),
    };
    logs::log_panics();
}

/// A token that Ctrl-C and SIGTERM cancel.
fn stop_on_signals() -> CancellationToken {
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        // Before anything is begun that a signal must not break off.
        let (Ok(mut terminate), Ok(mut interrupt)) = (
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
        ) else {
            return stop;
        };
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            stopping.cancel();
        });
    }
    #[cfg(not(unix))]
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        stopping.cancel();
    });
    stop
}

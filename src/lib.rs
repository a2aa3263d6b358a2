//! Read and edit a website's case studies and downloads from any MCP client, with every change on
//! record.
//!
//! # The modules, in the order in which a write passes them
//!
//! 1. [`cli`]: the command line as clap structs, with the help texts.
//! 2. [`settings`]: what flags, variables and defaults say together, and which store that chooses.
//! 3. [`commands`]: one file per subcommand; `commands/http.rs` also handles SIGHUP.
//! 4. [`http`]: the HTTP server: authentication, limits, both MCP transports, the website's API.
//! 5. [`mcp`]: the MCP handler: tools, arguments, results, errors in words, the stdio transport.
//! 6. [`service`]: the use cases, such as an update that is repeated after a conflict.
//! 7. [`domain`]: pure values: documents and their rules, patches, changes, audit entries.
//! 8. [`store`]: the port to documents and the audit log, and its implementations for Redis and
//!    SQLite.
//!
//! A read takes the same path without a change. Beside the path:
//!
//! - [`folder`]: the JSON folder that `import` reads.
//! - [`doctor`]: the checks of `doctor`, one file per subject.
//! - [`logs`]: the log on stderr, whose reader may read late or not at all.
//! - [`style`]: colours on a terminal.
//! - [`caller`]: who calls over HTTP, for both edges; [`deadline`]: the time that a call has left.
//!
//! # Where to change what
//!
//! | to change | look at |
//! |---|---|
//! | an option, its variable, its default | `OPTIONS` in `settings.rs` |
//! | the order in which a store is chosen | `fn choose` in `settings/location.rs` |
//! | what happens on SIGHUP | `hangup` in `commands/http.rs` |
//! | a tool, its description | `fn update_project` in `mcp/projects.rs` |
//! | the text of an error, such as a conflict | `fn conflict` in `mcp/error.rs` |
//! | the format of a cursor | `fn encode` in `mcp/cursor.rs` |
//! | a rule of a field, such as `price` | `price` in `domain/resource.rs` |
//! | what an audit entry records | `fn update` in `domain/change.rs` |
//! | how long a response of the website's API is cached | `RESPONSE_TTL` in `service/read.rs` |
//! | the retry budget | `MAX_TENTHS` in `store/budget.rs` |
//! | a Redis key, such as an index | `fn index` in `store/redis/keys.rs` |
//! | how Redis applies a commit | `redis.call` in `store/redis/commit.lua` |
//! | the tables of the SQLite file | `SCHEMA` in `store/sqlite/database.rs` |
//! | what `doctor` says, such as about eviction | `fn eviction` in `doctor/redis.rs` |

pub mod caller;
pub mod cli;
/// One file per subcommand: what it does with the modules below, and its exit code.
pub mod commands {
    pub mod doctor;
    pub mod http;
    pub mod import;
    pub mod stdio;
}
pub mod deadline;
pub mod doctor;
pub mod domain;
pub mod folder;
pub mod http;
pub mod logs;
pub mod mcp;
pub mod service;
pub mod settings;
pub mod store;
pub mod style;

use std::{
    io::IsTerminal,
    process::ExitCode,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::bail;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use tracing::info;

use cli::{Cli, Command, ImportArgs};
use domain::Timestamp;
use service::ContentService;
use settings::{Environment, Settings};

/// Runs the command that `cli` asks for.
///
/// # Errors
/// A [`settings::UsageError`], or why the store or the system failed.
pub fn run(cli: &Cli, environment: Environment<'_>) -> anyhow::Result<ExitCode> {
    let command = match &cli.command {
        Some(command) => command,
        None if std::io::stdin().is_terminal() => {
            settings::command().print_help()?;
            return Ok(ExitCode::SUCCESS);
        }
        None => &Command::Stdio,
    };
    let settings = Settings::resolve(cli, environment)?;
    logs::start(&settings, reader(command));
    info!(
        "content is in {} ({})",
        settings.location, settings.chosen_by
    );

    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let stop = stop_on_signals();
        match command {
            Command::Stdio => commands::stdio::run(open(&settings)?, &settings, stop).await,
            Command::Http(_) => commands::http::run(open(&settings)?, settings, stop).await,
            Command::Import(arguments) => import(&settings, arguments, stop).await,
            Command::Doctor(arguments) => {
                let reported = settings.report(cli, environment);
                let mut out = style::styled_stdout();
                commands::doctor::run(&settings, reported, arguments, clock, stop, &mut out).await
            }
        }
    });
    // A pending read of standard input must not keep the process alive.
    runtime.shutdown_background();
    result
}

/// Who reads the log of a command.
fn reader(command: &Command) -> logs::Reader {
    match command {
        Command::Stdio | Command::Http(_) => logs::Reader::Operator,
        Command::Import(_) | Command::Doctor(_) => logs::Reader::Person,
    }
}

/// The use cases on the store that the settings name.
fn open(settings: &Settings) -> anyhow::Result<Arc<ContentService>> {
    let store = store::open(&settings.location)?;
    Ok(Arc::new(ContentService::new(store, clock)))
}

async fn import(
    settings: &Settings,
    arguments: &ImportArgs,
    stop: CancellationToken,
) -> anyhow::Result<ExitCode> {
    let content = open(settings)?;
    let mut out = style::styled_stdout();
    tokio::select! {
        done = commands::import::run(&content, settings, arguments, &mut out) => done,
        () = stop.cancelled() => {
            bail!("interrupted: what was imported so far is kept; run the command again to import the rest")
        }
    }
}

/// One worker for every two processors: calls mostly wait, and passing them between workers costs
/// more than it gains while the store or the client runs on the same machine. With two workers on
/// two processors an update took a fifth more processor time; a single worker is the main thread,
/// which sends the store the commands of several calls at once, and takes a tenth less.
fn runtime() -> std::io::Result<Runtime> {
    let workers =
        std::thread::available_parallelism().map_or(1, |processors| processors.get().div_ceil(2));
    let mut builder = match workers {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.worker_threads(workers).enable_all().build()
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

/// A token that Ctrl-C and SIGTERM cancel.
fn stop_on_signals() -> CancellationToken {
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        // Registered here and not in the task, so that a signal is never missed once this returns.
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

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    /// The map is how a newcomer begins, so what it names has to be where it says.
    #[test]
    fn everything_the_map_names_is_there() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let map = fs::read_to_string(source.join("lib.rs")).unwrap();
        let rows: Vec<Vec<&str>> = map
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .filter(|line| line.starts_with("//! | ") && line.contains("` in `"))
            .map(|row| row.rsplit('|').nth(1).unwrap().split('`').collect())
            .collect();

        assert!(rows.len() > 10, "{rows:?}");
        for row in rows {
            let [_, name, _, file, _] = row.as_slice() else {
                panic!("expected `name` in `file`: {row:?}");
            };
            let code = fs::read_to_string(source.join(file)).unwrap_or_default();
            assert!(code.contains(name), "`{name}` is not in {file}");
        }
    }
}

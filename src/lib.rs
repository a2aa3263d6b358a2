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
//! - [`logs`]: the log on stderr, whose reader may read late or not at all; `report_output`: the
//!   stdout of commands, whose reader may leave.
//! - [`signals`]: Ctrl-C and SIGTERM.
//! - [`style`]: colours on a terminal.
//! - [`caller`]: who calls over HTTP, for both edges; [`deadline`]: the time that a call has left.
//!
//! # Where to change what
//!
//! | to change | look at |
//! |---|---|
//! | an option, its variable, its default | `OPTIONS` in `settings.rs` |
//! | the order in which a store is chosen | `fn choose` in `settings/location.rs` |
//! | which mistakes in an address are named | `fn check` in `settings/pasted.rs` |
//! | which unknown variables are refused | `fn nearest` in `settings/unknown.rs` |
//! | what happens on SIGHUP | `hangup` in `commands/http.rs` |
//! | which tool is in which toolset | `fn tools` in `mcp/toolset.rs` |
//! | a tool, its description | `fn update_project` in `mcp/projects.rs` |
//! | the instructions for models | `EDITING` in `mcp/instructions.rs` |
//! | how `undo` and `diff` show a change on a terminal | `fn lines` in `commands/changes.rs` |
//! | the text of an error, such as a conflict | `impl Conflict` in `mcp/error.rs` |
//! | how several documents are written at once | `fn write` in `service/write.rs` |
//! | the address of a document in answers | `fn of` in `mcp/public_url.rs` |
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
    mod changes;
    mod confirm;
    pub mod diff;
    pub mod doctor;
    pub mod http;
    pub mod import;
    pub mod plan;
    mod server;
    pub mod show;
    pub mod stdio;
    pub mod undo;
}
pub mod deadline;
pub mod doctor;
pub mod domain;
pub mod folder;
pub mod http;
pub mod logs;
pub mod mcp;
mod report_output;
pub mod service;
pub mod settings;
pub mod signals;
pub mod store;
pub mod style;

use std::{
    io::IsTerminal,
    ops::ControlFlow,
    process::ExitCode,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::bail;
use tokio::runtime::{Builder, Runtime};
use tracing::{info, warn};

use cli::{Cli, Command, DiffArgs, DoctorArgs, ImportArgs, PlanArgs, ShowArgs, UndoArgs};
use domain::{Timestamp, text::truncate};
use report_output::{ReportOutput, unless_closed};
use service::ContentService;
use settings::{Draft, Environment, Settings, StoreChoice, StoreSource};
use signals::{INTERRUPTED, Interrupted, Signals};
use store::Location;

/// Runs the command that `cli` asks for.
///
/// # Errors
/// A [`settings::UsageError`], an [`Interrupted`], or why the store or the system failed.
pub fn run(cli: &Cli, environment: &Environment) -> anyhow::Result<ExitCode> {
    let command = match &cli.command {
        Some(command) => command,
        None if std::io::stdin().is_terminal() => {
            unless_closed(settings::command().print_help(), ())?;
            return Ok(ExitCode::SUCCESS);
        }
        None => &Command::Stdio,
    };
    let draft = Draft::new(cli, environment);
    logs::start(&draft.log, draft.log_format, reader(command));
    if let Command::Doctor(arguments) = command {
        let reported = draft.report(cli, environment);
        return block_on(async |signals| doctor(&draft, reported, arguments, signals).await);
    }
    let settings = draft.into_settings(cli)?;
    if let Command::Undo(arguments) = command {
        commands::undo::check(arguments)?;
    }
    log_start(&settings);
    block_on(async |signals| match command {
        Command::Stdio => commands::stdio::run(open(&settings)?, &settings, signals.stop()).await,
        Command::Http(_) => commands::http::run(open(&settings)?, settings, signals.stop()).await,
        Command::Import(arguments) => import(&settings, arguments, signals).await,
        Command::Undo(arguments) => undo(&settings, arguments, signals).await,
        Command::Plan(arguments) => plan(&settings, arguments, signals).await,
        Command::Show(arguments) => show(&settings, arguments, signals).await,
        Command::Diff(arguments) => diff(&settings, arguments, signals).await,
        Command::Doctor(_) => unreachable!("it has run above"),
    })
}

/// Runs a command until it ends.
fn block_on(
    command: impl AsyncFnOnce(Signals) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    let runtime = runtime()?;
    let result = runtime.block_on(async { command(Signals::listen()).await });
    // A pending read of standard input must not keep the process alive.
    runtime.shutdown_background();
    result
}

/// Says which store was chosen and why, and what somebody should look at.
fn log_start(settings: &Settings) {
    let StoreChoice {
        location,
        chosen_by,
    } = &settings.store;
    let prefix = match location {
        Location::Redis { key_prefix, .. } if !key_prefix.is_empty() => {
            format!(" under the key prefix `{}`", truncate(key_prefix))
        }
        Location::Redis { .. } | Location::Sqlite(_) => String::new(),
    };
    match chosen_by {
        StoreSource::Default => warn!("content is in {location}{prefix} ({chosen_by})"),
        StoreSource::Name(_) | StoreSource::Rest(_) => {
            info!("content is in {location}{prefix} ({chosen_by})");
        }
    }
    for warning in &settings.warnings {
        warn!("{}: {}; {}", warning.name, warning.message, warning.remedy);
    }
}

/// Who reads the log of a command.
fn reader(command: &Command) -> logs::Reader {
    match command {
        Command::Stdio | Command::Http(_) => logs::Reader::Operator,
        Command::Import(_)
        | Command::Undo(_)
        | Command::Show(_)
        | Command::Diff(_)
        | Command::Plan(_)
        | Command::Doctor(_) => logs::Reader::Person,
    }
}

/// The use cases on the store that the settings name.
fn open(settings: &Settings) -> anyhow::Result<Arc<ContentService>> {
    let store = store::open(&settings.store.location)?;
    Ok(Arc::new(ContentService::new(store, clock)))
}

/// The same for commands that are about what is stored. Opening a SQLite file would create it.
fn open_existing(settings: &Settings) -> anyhow::Result<Arc<ContentService>> {
    if let Location::Sqlite(path) = &settings.store.location
        && let Ok(false) = path.try_exists()
    {
        bail!(
            "there is no file `{}`; name the store with `--store`",
            truncate(&path.display().to_string())
        );
    }
    open(settings)
}

async fn import(
    settings: &Settings,
    arguments: &ImportArgs,
    signals: Signals,
) -> anyhow::Result<ExitCode> {
    let content = open(settings)?;
    let mut out = ReportOutput::new();
    let import = commands::import::run(&content, settings, arguments, &mut out);
    let kept = "what was imported so far is kept; run the command again to import the rest";
    unless_stopped(&signals, kept, import).await
}

async fn undo(
    settings: &Settings,
    arguments: &UndoArgs,
    signals: Signals,
) -> anyhow::Result<ExitCode> {
    let content = open(settings)?;
    let mut out = ReportOutput::new();
    let confirmed = commands::undo::confirm(&content, settings, arguments, &mut out);
    match unless_stopped(&signals, "nothing was undone", confirmed).await? {
        // Not interrupted: that takes seconds, and somebody waits for what came of it.
        ControlFlow::Continue(request) => commands::undo::commit(&content, request, &mut out).await,
        ControlFlow::Break(code) => Ok(code),
    }
}

async fn plan(
    settings: &Settings,
    arguments: &PlanArgs,
    signals: Signals,
) -> anyhow::Result<ExitCode> {
    let content = open_existing(settings)?;
    let mut out = ReportOutput::new();
    let shown = commands::plan::show(&content, settings, arguments, &mut out);
    match unless_stopped(&signals, "nothing was changed", shown).await? {
        // Not interrupted, as an undo is not.
        ControlFlow::Continue(request) => commands::plan::apply(&content, request, &mut out).await,
        ControlFlow::Break(code) => Ok(code),
    }
}

async fn show(
    settings: &Settings,
    arguments: &ShowArgs,
    signals: Signals,
) -> anyhow::Result<ExitCode> {
    let content = open_existing(settings)?;
    let mut out = ReportOutput::new();
    let shown = commands::show::run(&content, arguments, &mut out);
    unless_stopped(&signals, "nothing was shown", shown).await
}

async fn diff(
    settings: &Settings,
    arguments: &DiffArgs,
    signals: Signals,
) -> anyhow::Result<ExitCode> {
    let content = open_existing(settings)?;
    let mut out = ReportOutput::new();
    let shown = commands::diff::run(&content, arguments, &mut out);
    unless_stopped(&signals, "nothing was shown", shown).await
}

/// What a command gives, unless a signal stops it; `kept` says what it leaves behind then.
async fn unless_stopped<T>(
    signals: &Signals,
    kept: &'static str,
    command: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::select! {
        done = command => return done,
        () = signals.stop().cancelled_owned() => {}
    }
    if signals.interrupted() {
        return Err(Interrupted(kept).into());
    }
    bail!("interrupted: {kept}")
}

async fn doctor(
    draft: &Draft,
    reported: Vec<settings::ReportedSetting>,
    arguments: &DoctorArgs,
    signals: Signals,
) -> anyhow::Result<ExitCode> {
    let mut out = ReportOutput::new();
    let stop = signals.stop();
    let code = commands::doctor::run(draft, reported, arguments, clock, stop, &mut out).await?;
    Ok(if signals.interrupted() {
        ExitCode::from(INTERRUPTED)
    } else {
        code
    })
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

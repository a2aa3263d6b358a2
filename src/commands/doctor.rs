//! `doctor`: checks the configuration and the store as a server would use them, and prints a
//! report.

use std::{io::Write, process::ExitCode, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    cli::{DoctorArgs, ReportFormat},
    doctor::{Fault, Finding, Report, diagnose, smoke_test},
    domain::Timestamp,
    settings::{ReportedSetting, Settings, UsageError},
    store::Location,
};

/// Checks, and reports to `out`. The exit code is 0 if a server would work, 1 if content or
/// configuration have problems, 3 if the store has.
///
/// # Errors
/// When the report cannot be written, or `--smoke` cannot test this kind of store.
pub async fn run(
    settings: &Settings,
    reported: Vec<ReportedSetting>,
    arguments: &DoctorArgs,
    clock: fn() -> Timestamp,
    stop: CancellationToken,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let mut findings: Vec<Finding> = reported.into_iter().map(setting).collect();
    if let Err(UsageError(problems)) = &settings.http {
        let remedy = "until this is fixed, `portfolio-mcp http` does not start";
        findings.extend(
            problems
                .iter()
                .map(|problem| Finding::problem(Fault::Content, "http", problem, remedy)),
        );
    }
    let location = as_server_uses_it(settings);
    tokio::select! {
        found = diagnose(&location, clock) => findings.extend(found),
        () = stop.cancelled() => {
            findings.push(Finding::problem(Fault::Store, "doctor", "interrupted", "run it again"));
        }
    }
    if arguments.smoke && !stop.is_cancelled() {
        let idle = arguments
            .idle
            .map(|seconds| Duration::from_secs(seconds.into()));
        let tested = smoke_test(&settings.location, clock, idle, stop).await;
        findings.extend(tested.map_err(|problem| UsageError(vec![format!("--smoke {problem}")]))?);
    }
    let report = Report { findings };
    let text = match arguments.format {
        ReportFormat::Text => report.to_text(),
        ReportFormat::Json => report.to_json(),
    };
    writeln!(out, "{text}")?;
    Ok(ExitCode::from(report.exit_code()))
}

fn setting(setting: ReportedSetting) -> Finding {
    let ReportedSetting {
        name,
        value,
        source,
    } = setting;
    Finding::ok(name, format!("{value} ({source})"))
}

/// A read-only server needs no permission to write.
fn as_server_uses_it(settings: &Settings) -> Location {
    match &settings.location {
        Location::Redis {
            write,
            read,
            key_prefix,
        } if settings.read_only.is_some() => Location::Redis {
            write: None,
            read: read.clone().or_else(|| write.clone()),
            key_prefix: key_prefix.clone(),
        },
        location => location.clone(),
    }
}

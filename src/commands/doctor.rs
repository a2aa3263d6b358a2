//! `doctor`: checks the configuration and the store as a server would use them, and prints a
//! report.

use std::{io::Write, process::ExitCode, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    cli::{DoctorArgs, ReportFormat},
    doctor::{Fault, Finding, Report, check_client_files, diagnose, smoke_test},
    domain::Timestamp,
    settings::{Draft, ReportedSetting, SettingWarning, StoreChoice, UsageError},
    store::Location,
};

/// Checks, and reports to `out`. The exit code is 0 if a server would work, 1 if content or
/// configuration have problems, 3 if the store has.
///
/// # Errors
/// When the report cannot be written, or `--smoke` cannot test this kind of store.
pub async fn run(
    draft: &Draft,
    reported: Vec<ReportedSetting>,
    arguments: &DoctorArgs,
    clock: fn() -> Timestamp,
    stop: CancellationToken,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let mut findings: Vec<Finding> = reported.into_iter().map(setting).collect();
    findings.extend(about_settings(draft));
    tokio::select! {
        found = check_client_files() => findings.extend(found),
        () = stop.cancelled() => {}
    }
    if let Some(store) = &draft.store {
        let location = as_server_uses_it(draft, store);
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
            let tested = smoke_test(&store.location, clock, idle, stop).await;
            findings
                .extend(tested.map_err(|problem| UsageError(vec![format!("--smoke {problem}")]))?);
        }
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

/// What is wrong with the settings, and what somebody should look at.
fn about_settings(draft: &Draft) -> Vec<Finding> {
    let problem = |check: &'static str, remedy: &'static str| {
        move |problem: &String| Finding::problem(Fault::Content, check, problem, remedy)
    };
    let server = problem("settings", "until this is fixed, no server starts");
    let mut findings: Vec<Finding> = draft.problems.iter().map(server).collect();
    if let Err(UsageError(problems)) = &draft.http {
        let remedy = "until this is fixed, `portfolio-mcp http` does not start";
        findings.extend(problems.iter().map(problem("http", remedy)));
    }
    if let Some(store) = draft.store.as_ref().and_then(StoreChoice::default_store) {
        findings.push(Finding::warning("store", store.fact, store.remedy));
    }
    let warnings = draft.warnings.iter().map(
        |SettingWarning {
             name,
             message,
             remedy,
         }| Finding::warning(*name, message, *remedy),
    );
    findings.extend(warnings);
    findings
}

/// A read-only server needs no permission to write.
fn as_server_uses_it(draft: &Draft, store: &StoreChoice) -> Location {
    match &store.location {
        Location::Redis {
            write,
            read,
            key_prefix,
        } if draft.read_only.is_some() => Location::Redis {
            write: None,
            read: read.clone().or_else(|| write.clone()),
            key_prefix: key_prefix.clone(),
        },
        location => location.clone(),
    }
}

//! `doctor`: examines configuration and store as the server would meet them, and says whether it would serve.

use std::{io::Write, process::ExitCode, time::Duration};

use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    cli::{DoctorArgs, ReportFormat, Setting, Settings, UsageError},
    clock,
    domain::text::{escape_invisible, sanitize},
    store::{
        Location,
        examination::{Fault, Finding, Verdict, examine, smoke},
    },
};

/// Examines, and reports to `out`: one line a check. Exits with 0 if the server would serve, 1 if content or configuration are at fault,
/// 3 if the store is.
///
/// # Errors
/// When nothing can be reported, or the store is none that `--smoke` can try.
pub async fn run(
    settings: &Settings,
    origins: (Vec<Setting>, Vec<String>),
    arguments: &DoctorArgs,
    stop: CancellationToken,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let mut findings = configuration(origins);
    let location = as_served(settings);
    tokio::select! {
        found = examine(&location, clock) => findings.extend(found),
        () = stop.cancelled() => {
            findings.push(Finding::problem(Fault::Store, "doctor", "broken off: it was told to stop", "run it again"));
        }
    }
    if arguments.smoke && !stop.is_cancelled() {
        let idle = arguments
            .idle
            .map(|seconds| Duration::from_secs(seconds.into()));
        let tried = smoke(&settings.location, clock, idle, stop).await;
        findings.extend(tried.map_err(|problem| UsageError(vec![format!("--smoke {problem}")]))?);
    }
    let (code, summary) = summary(&findings);
    match arguments.format {
        ReportFormat::Text => {
            for finding in &findings {
                writeln!(out, "{}", line(finding))?;
            }
            writeln!(out, "{summary}")?;
        }
        ReportFormat::Json => {
            let checks: Vec<_> = findings
                .iter()
                .map(|finding| {
                    let fault = match finding.verdict {
                        Verdict::Problem(Fault::Content) => Some("content"),
                        Verdict::Problem(Fault::Store) => Some("store"),
                        Verdict::Ok | Verdict::Warning => None,
                    };
                    json!({
                        "check": finding.check,
                        "verdict": word(finding.verdict),
                        "message": finding.says,
                        "remedy": finding.remedy,
                        "fault": fault,
                    })
                })
                .collect();
            let report = json!({ "summary": summary, "exitCode": code, "checks": checks });
            writeln!(out, "{}", escape_invisible(format!("{report:#}")))?;
        }
    }
    Ok(ExitCode::from(code))
}

/// Where each setting comes from; what only `http` would refuse is a problem of the configuration.
fn configuration((settings, problems): (Vec<Setting>, Vec<String>)) -> Vec<Finding> {
    let shown = settings.into_iter().map(
        |Setting {
             name,
             value,
             origin,
         }| Finding::ok(name, format!("{value} ({origin})")),
    );
    let refused = problems.into_iter().map(|problem| {
        let remedy = "set it right; until then `http` does not start";
        Finding::problem(Fault::Content, "http", problem, remedy)
    });
    shown.chain(refused).collect()
}

/// A server that is asked not to write needs no rights to.
fn as_served(settings: &Settings) -> Location {
    match &settings.location {
        Location::Redis {
            write,
            read,
            key_prefix,
        } if settings.read_only.is_some() => {
            let read = read.clone().or_else(|| write.clone());
            Location::Redis {
                write: None,
                read,
                key_prefix: key_prefix.clone(),
            }
        }
        location => location.clone(),
    }
}

fn summary(findings: &[Finding]) -> (u8, String) {
    let count = |verdict: Verdict| {
        findings
            .iter()
            .filter(|finding| finding.verdict == verdict)
            .count()
    };
    let (content, store) = (
        count(Verdict::Problem(Fault::Content)),
        count(Verdict::Problem(Fault::Store)),
    );
    let counted =
        |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let (warnings, problems) = (
        counted(count(Verdict::Warning), "warning"),
        counted(content + store, "problem"),
    );
    let counts = format!("{} ok, {warnings}, {problems}", count(Verdict::Ok));
    match (content, store) {
        (0, 0) => (0, format!("{counts}: the server would serve")),
        (_, 0) => (
            1,
            format!("{counts}: the server would serve, but not all of it, or not as asked"),
        ),
        _ => (
            3,
            format!("{counts}: the server would not serve, or should not"),
        ),
    }
}

/// One line, without anything that could move a terminal's cursor.
fn line(finding: &Finding) -> String {
    let Finding {
        check,
        verdict,
        says,
        remedy,
    } = finding;
    let remedy = remedy
        .as_ref()
        .map(|remedy| format!("; {remedy}"))
        .unwrap_or_default();
    let text = format!("{:<8} {check}: {says}{remedy}", word(*verdict));
    sanitize(&text).into_owned()
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Warning => "warning",
        Verdict::Problem(_) => "problem",
    }
}

//! Diagnostics: what an operator wants to know about a store before trusting it, each finding with
//! what to do.
//!
//! Checks change nothing; only [`smoke_test`] writes, to temporary keys that it deletes. Every
//! check ends in time, also with a store that does not answer. Never on the path of a call.

use std::time::Duration;

use anstyle::Style;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{
        Timestamp,
        text::{escape_invisible, sanitize},
    },
    store::Location,
    style::{BAD, GOOD, WARNING, paint},
};

mod client_files;
mod commit;
mod connection;
mod finding;
mod redis;
mod redis_content;
mod redis_documents;
mod redis_outside;
mod smoke;
mod sqlite;
mod times;

pub use client_files::check_client_files;
pub use finding::{Fault, Finding, Verdict};

use finding::counted;

/// How long the checks of a store may take.
const DIAGNOSIS_TIMEOUT: Duration = Duration::from_secs(25);

/// Checks the store at `location`, as a server would use it.
pub async fn diagnose(location: &Location, clock: fn() -> Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    let checks = async {
        match location {
            Location::Redis {
                write,
                read,
                key_prefix,
            } => {
                let (write, read) = (write.as_ref(), read.as_ref());
                redis::diagnose(write, read, key_prefix, clock, &mut findings).await;
            }
            Location::Sqlite(path) => sqlite::diagnose(path, clock, &mut findings).await,
        }
    };
    if timeout(DIAGNOSIS_TIMEOUT, checks).await.is_err() {
        findings.push(Finding::problem(
            Fault::Store,
            "time",
            format!(
                "stopped after {} s: the store responds too slowly",
                DIAGNOSIS_TIMEOUT.as_secs()
            ),
            "find out whether it is busy or far away, and run doctor again",
        ));
    }
    findings
}

/// Tests on the Redis at `location` what this program relies on, with temporary keys. Deletes them
/// in any case, also when `stop` is cancelled.
///
/// With `idle`, it also waits that long to see whether the store closes idle connections.
///
/// # Errors
/// Why this store cannot be tested; to be put after the name of the option.
pub async fn smoke_test(
    location: &Location,
    clock: fn() -> Timestamp,
    idle: Option<Duration>,
    stop: CancellationToken,
) -> Result<Vec<Finding>, String> {
    match location {
        Location::Redis {
            write: Some(write),
            read,
            key_prefix,
        } => Ok(smoke::run(write, read.as_ref(), key_prefix, clock, idle, stop).await),
        Location::Redis { write: None, .. } => Err(
            "needs a credential that may write, but only a read-only one is configured".to_owned(),
        ),
        Location::Sqlite(_) => Err("tests Redis, but the store is a SQLite file".to_owned()),
    }
}

/// All findings, and what follows from them.
#[derive(Debug, Default)]
pub struct Report {
    /// In the order in which they were made.
    pub findings: Vec<Finding>,
}

impl Report {
    /// 0 if the server would work, 1 if the content or the configuration has problems, 3 if the
    /// store has.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if self.count(Verdict::Problem(Fault::Store)) > 0 {
            3
        } else {
            u8::from(self.count(Verdict::Problem(Fault::Content)) > 0)
        }
    }

    /// How many findings there are of each sort, and what they mean for a server.
    #[must_use]
    pub fn summary(&self) -> String {
        let problems = self.count(Verdict::Problem(Fault::Content))
            + self.count(Verdict::Problem(Fault::Store));
        let outcome = match self.exit_code() {
            0 => "the server would start and work",
            1 => "some settings or documents have problems; see above",
            _ => "the server would not work, or should not be used",
        };
        format!(
            "{} ok, {}, {}: {outcome}",
            self.count(Verdict::Ok),
            counted(self.count(Verdict::Warning), "warning"),
            counted(problems, "problem")
        )
    }

    /// One line per finding, with its verdict in colour, then the summary. Nothing that was found can
    /// act on a terminal.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            let verdict = format!("{:<8}", verdict_name(finding.verdict));
            text.push_str(&paint(style_of(finding.verdict), &verdict));
            text.push(' ');
            text.push_str(&sanitize(&line(finding)));
            text.push('\n');
        }
        text + &self.summary()
    }

    /// One JSON object.
    #[must_use]
    pub fn to_json(&self) -> String {
        let report = json!({
            "summary": self.summary(),
            "exitCode": self.exit_code(),
            "checks": self.findings.iter().map(object).collect::<Vec<_>>(),
        });
        escape_invisible(format!("{report:#}"))
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.verdict == verdict)
            .count()
    }
}

fn line(finding: &Finding) -> String {
    let Finding {
        check,
        message,
        remedy,
        ..
    } = finding;
    match remedy {
        Some(remedy) => format!("{check}: {message}; {remedy}"),
        None => format!("{check}: {message}"),
    }
}

fn object(finding: &Finding) -> Value {
    let fault = match finding.verdict {
        Verdict::Problem(Fault::Content) => Some("content"),
        Verdict::Problem(Fault::Store) => Some("store"),
        Verdict::Ok | Verdict::Warning => None,
    };
    json!({
        "check": finding.check,
        "verdict": verdict_name(finding.verdict),
        "message": finding.message,
        "remedy": finding.remedy,
        "fault": fault,
    })
}

fn style_of(verdict: Verdict) -> Style {
    match verdict {
        Verdict::Ok => GOOD,
        Verdict::Warning => WARNING,
        Verdict::Problem(_) => BAD,
    }
}

fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Warning => "warning",
        Verdict::Problem(_) => "problem",
    }
}

//! What an operator wants to know about a store before trusting it: findings, each with what to do.
//!
//! Looks and leaves everything as it is; only [`smoke`] writes, under keys of its own that it deletes again. Everything
//! ends in time, also with a store that answers nothing.

use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Location, redis, sqlite};
use crate::domain::{Kind, Record, Timestamp, text::truncate};

/// An examination that has not come to its end by then is broken off.
const EXAMINATION: Duration = Duration::from_secs(25);
/// A clock that is further from the store's is told.
const CLOCKS: i64 = 2000;

/// What one check found.
#[derive(Debug, Clone)]
pub struct Finding {
    /// What was checked.
    pub check: String,
    /// How it stands.
    pub verdict: Verdict,
    /// What was found.
    pub says: String,
    /// What to do about it, or what follows from it.
    pub remedy: Option<String>,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// The server would serve, but somebody should look.
    Warning,
    /// Something has to be done.
    Problem(Fault),
}

/// Whose a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The content's or the configuration's: the server would serve, not all of it or not as asked.
    Content,
    /// The store's or the system's: the server would not serve.
    Store,
}

impl Finding {
    /// All is well.
    #[must_use]
    pub fn ok(check: impl Into<String>, says: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            verdict: Verdict::Ok,
            says: says.into(),
            remedy: None,
        }
    }

    /// Somebody should look.
    #[must_use]
    pub fn warning(
        check: impl Into<String>,
        says: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            verdict: Verdict::Warning,
            remedy: Some(remedy.into()),
            ..Self::ok(check, says)
        }
    }

    /// Something has to be done.
    #[must_use]
    pub fn problem(
        fault: Fault,
        check: impl Into<String>,
        says: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            verdict: Verdict::Problem(fault),
            ..Self::warning(check, says, remedy)
        }
    }
}

/// Examines the store at `location`, as a server would use it.
pub async fn examine(location: &Location, clock: fn() -> Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    let examination = async {
        match location {
            Location::Redis {
                write,
                read,
                key_prefix,
            } => {
                redis::examine(
                    write.as_ref(),
                    read.as_ref(),
                    key_prefix,
                    clock,
                    &mut findings,
                )
                .await;
            }
            Location::Sqlite(path) => sqlite::examine(path, clock, &mut findings).await,
        }
    };
    if timeout(EXAMINATION, examination).await.is_err() {
        let says = format!(
            "broken off after {} s, because the store answers too slowly",
            EXAMINATION.as_secs()
        );
        findings.push(Finding::problem(
            Fault::Store,
            "time",
            says,
            "see what keeps it busy or far away, and examine it again",
        ));
    }
    findings
}

/// Tries on the Redis at `location` what this program relies on, in keys of its own, and deletes them; also when it is told to `stop`.
///
/// With `idle`, it also waits so long to see whether the store closes idle connections.
///
/// # Errors
/// Why nothing can be tried there.
pub async fn smoke(
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
        } => Ok(redis::smoke(write, read.as_ref(), key_prefix, clock, idle, stop).await),
        Location::Redis { write: None, .. } => {
            Err("needs a credential that may write; there is only a read-only one".to_owned())
        }
        Location::Sqlite(_) => {
            Err("tries what a Redis can do; the store is a SQLite file".to_owned())
        }
    }
}

/// What is found in the documents of a kind, and in what cannot be read as one.
pub(super) fn documents(kind: Kind, records: &[Record], unreadable: &[String]) -> Vec<Finding> {
    let check = format!("{} documents", kind.singular());
    let count = |is: fn(&Record) -> bool| records.iter().filter(|record| is(record)).count();
    let says = format!(
        "{}, {} published, {} featured",
        records.len(),
        count(Record::is_published),
        count(Record::is_featured)
    );
    let mut findings = vec![Finding::ok(&check, says)];
    if !unreadable.is_empty() {
        let remedy = "they are left out of lists; restore them from a backup or delete them";
        findings.push(Finding::problem(
            Fault::Content,
            &check,
            format!("cannot be read: {}", few(unreadable, "; ")),
            remedy,
        ));
    }
    let broken: Vec<&Record> = records
        .iter()
        .filter(|record| !record.violations().is_empty())
        .collect();
    if !broken.is_empty() {
        let rules: usize = broken.iter().map(|record| record.violations().len()).sum();
        let ids: Vec<&str> = broken
            .iter()
            .map(|record| record.key().id.as_str())
            .collect();
        let remedy = format!(
            "they are served all the same; get_{} names the rules in `meta.warnings`",
            kind.singular()
        );
        findings.push(Finding::warning(
            &check,
            format!("{} break {rules} rules: {}", broken.len(), few(&ids, ", ")),
            remedy,
        ));
    }
    findings
}

/// How far the store's clock is ahead of this machine's.
pub(super) fn clocks(ahead_ms: i64) -> Finding {
    let shown = format!(
        "the store's is {:+.1} s from this machine's",
        precise(ahead_ms)
    );
    if ahead_ms.abs() <= CLOCKS {
        return Finding::ok("clock", shown);
    }
    let remedy = "let both be set from the network: times in documents come from this machine, those in the audit log from the store";
    Finding::warning("clock", shown, remedy)
}

/// How the newest entry's time stands to the clock that the next one will be stamped by.
pub(super) fn newest_entry(score: i64, now: Timestamp) -> Option<Finding> {
    let ahead = score - now.millis();
    (ahead > CLOCKS).then(|| {
        let says = format!("the newest entry is {:.0} s in the future, at {}", precise(ahead), Timestamp::from_millis(score));
        let remedy = "new entries get that time too until it has come, in their right order; find the program whose clock was wrong";
        Finding::warning("audit log", says, remedy)
    })
}

fn precise(ms: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "it is shown with one digit")]
    let seconds = ms as f64 / 1000.0;
    seconds
}

/// The first few of many, each cut to what a line can hold.
pub(super) fn few(names: &[impl AsRef<str>], between: &str) -> String {
    const FEW: usize = 3;
    let shown: Vec<_> = names
        .iter()
        .take(FEW)
        .map(|name| truncate(name.as_ref()))
        .collect();
    let more = if names.len() > FEW {
        format!(" and {} more", names.len() - FEW)
    } else {
        String::new()
    };
    shown.join(between) + &more
}

//! Checks of times: the store's clock, and what a wrong clock has left in the log and in documents.

use super::finding::{Finding, counted, sample};
use crate::domain::{Kind, Record, StoredEntry, Timestamp, text::truncate};

/// A larger difference between two clocks, in milliseconds, is a warning.
const MAX_CLOCK_SKEW: i64 = 2000;

/// Compares the store's clock with this machine's.
pub(super) fn clock_skew(ahead_ms: i64) -> Finding {
    let direction = if ahead_ms < 0 { "behind" } else { "ahead of" };
    let message = format!(
        "the store's clock is {:.1} s {direction} this machine's",
        seconds(ahead_ms.abs())
    );
    if ahead_ms.abs() <= MAX_CLOCK_SKEW {
        return Finding::ok("clock", message);
    }
    Finding::warning(
        "clock",
        message,
        "synchronize both clocks over the network (NTP): times in documents come from this machine, those in the audit log from the store",
    )
}

/// Entries of a log that are not in the past, each with its score.
#[derive(Debug, Default)]
pub(super) struct UntimelyEntries {
    /// The oldest one of the future.
    pub(super) future: Option<(StoredEntry, i64)>,
    /// Some with a score that is no time.
    pub(super) timeless: Vec<(StoredEntry, i64)>,
}

/// The first score that is in the future, whichever of two synchronized clocks gave it.
pub(super) fn first_future_score(now: Timestamp) -> i64 {
    now.millis() + MAX_CLOCK_SKEW + 1
}

impl UntimelyEntries {
    /// `correction` is the command that gives all of them the present time.
    pub(super) fn findings(&self, now: Timestamp, correction: &str) -> Vec<Finding> {
        let check = "audit log";
        let mut findings = Vec::new();
        if let Some((entry, score)) = &self.future {
            let ahead = seconds(score - now.millis());
            findings.push(Finding::warning(
                check,
                format!(
                    "{} is {ahead:.0} s in the future, at {}: a clock was ahead when it was written, and until then no later entry gets an earlier time",
                    entry_name(entry),
                    Timestamp::from_millis(*score)
                ),
                format!(
                    "correct that clock, then order the entries of the future as if they had been written now, which keeps their text: {correction}"
                ),
            ));
        }
        for (entry, score) in &self.timeless {
            let (what, remedy) = if *score < 0 {
                ("before 1970", "harmless: the log shows it last".to_owned())
            } else {
                (
                    "no time",
                    format!(
                        "later entries get the right time, but the log shows it first; order it as if it had been written now, which keeps its text: {correction}"
                    ),
                )
            };
            let score = match *score {
                i64::MAX => "inf".to_owned(),
                i64::MIN => "-inf".to_owned(),
                score => score.to_string(),
            };
            findings.push(Finding::warning(
                check,
                format!(
                    "{} has the score {score}, which is {what}",
                    entry_name(entry)
                ),
                remedy,
            ));
        }
        findings
    }
}

/// An entry of any program, by its number, its id and its document, as far as it has them.
fn entry_name(entry: &StoredEntry) -> String {
    let number = entry.seq().map(|seq| format!(" {seq}"));
    let id = entry
        .text_of("id")
        .map(|id| format!(" (id {})", truncate(id)));
    let kind = entry.text_of("entityType").unwrap_or("document");
    let document = entry
        .text_of("entityId")
        .map(|id| format!(" of {} `{}`", truncate(kind), truncate(id)));
    let name = [number, id, document]
        .into_iter()
        .flatten()
        .collect::<String>();
    if name.is_empty() {
        return format!("the entry `{}`", truncate(entry.text()));
    }
    format!("entry{name}")
}

/// Documents that are updated in the future, if there are any.
pub(super) fn updated_in_the_future(
    kind: Kind,
    records: &[Record],
    now: Timestamp,
) -> Option<Finding> {
    let late: Vec<&str> = records
        .iter()
        .filter(|record| {
            let updated = record.index_entry().updated;
            updated.is_some_and(|updated| updated.millis() >= first_future_score(now))
        })
        .map(|record| record.key().id.as_str())
        .collect();
    (!late.is_empty()).then(|| {
        Finding::warning(
            format!("{} documents", kind.singular()),
            format!(
                "`metadata.updatedAt` is in the future in {}: {}",
                counted(late.len(), "document"),
                sample(&late, ", ")
            ),
            format!(
                "lists show them first, and updates give them a later time still; put them with the right time into {}.json in a folder and run `portfolio-mcp import FOLDER --force`, which the log records",
                kind.plural()
            ),
        )
    })
}

fn seconds(ms: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "it is shown with one digit")]
    let seconds = ms as f64 / 1000.0;
    seconds
}

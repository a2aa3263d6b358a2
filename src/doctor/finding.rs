//! What a check found, and the check of documents that both stores share.

use crate::domain::{Kind, OutsideChange, Record, text::truncate};

/// What one check found.
#[derive(Debug, Clone)]
pub struct Finding {
    /// What was checked.
    pub check: String,
    /// The result.
    pub verdict: Verdict,
    /// What was found.
    pub message: String,
    /// What to do about it, or what follows from it.
    pub remedy: Option<String>,
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// The server would work, but someone should look at it.
    Warning,
    /// Someone has to fix it.
    Problem(Fault),
}

/// Where a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// In the content or the configuration: the server would start, but not everything would work.
    Content,
    /// In the store or the system: the server would not work.
    Store,
}

impl Finding {
    /// A check that passed.
    #[must_use]
    pub fn ok(check: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            verdict: Verdict::Ok,
            message: message.into(),
            remedy: None,
        }
    }

    /// Something that someone should look at.
    #[must_use]
    pub fn warning(
        check: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            verdict: Verdict::Warning,
            remedy: Some(remedy.into()),
            ..Self::ok(check, message)
        }
    }

    /// Something that someone has to fix.
    #[must_use]
    pub fn problem(
        fault: Fault,
        check: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            verdict: Verdict::Problem(fault),
            ..Self::warning(check, message, remedy)
        }
    }
}

/// Checks the documents of a kind; `unreadable` describes stored values that are not documents, and
/// `skipped` is how many were not read.
pub(super) fn documents(
    kind: Kind,
    records: &[Record],
    unreadable: &[String],
    skipped: usize,
) -> Vec<Finding> {
    let check = format!("{} documents", kind.singular());
    let count = |is: fn(&Record) -> bool| records.iter().filter(|record| is(record)).count();
    let of_all = if skipped > 0 {
        format!(" of {} read", records.len() + skipped)
    } else {
        String::new()
    };
    let totals = format!(
        "{}{of_all}, {} published, {} featured",
        records.len(),
        count(Record::is_published),
        count(Record::is_featured)
    );
    let mut findings = vec![Finding::ok(&check, totals)];
    if !unreadable.is_empty() {
        findings.push(Finding::problem(
            Fault::Content,
            &check,
            format!("cannot be read: {}", sample(unreadable, "; ")),
            "lists leave them out; keep a copy of what is stored, then repair it",
        ));
    }
    findings.extend(violations(kind, records));
    findings
}

/// Documents that were changed outside this server, if there are any.
pub(super) fn changed_outside(changes: &[OutsideChange]) -> Option<Finding> {
    if changes.is_empty() {
        return None;
    }
    let named: Vec<String> = changes
        .iter()
        .map(|change| {
            let what = if change.is_deleted {
                "deleted"
            } else {
                "changed"
            };
            format!("{} {what} after {}", change.key, change.after)
        })
        .collect();
    Some(Finding::warning(
        "outside changes",
        format!(
            "{} changed or deleted outside this server: {}",
            counted(changes.len(), "document"),
            sample(&named, "; ")
        ),
        "the audit log does not say what was changed, or by whom; the next write of each records what was found",
    ))
}

/// A store without any document, which is probably not the one that was meant.
pub(super) fn empty_store() -> Finding {
    Finding::warning(
        "content",
        "the store is empty: it holds no projects and no resources",
        "if there should be some, check the address of the store and the key prefix above, or import them with `portfolio-mcp import FOLDER`",
    )
}

/// Documents that break rules, if there are any.
fn violations(kind: Kind, records: &[Record]) -> Option<Finding> {
    let invalid: Vec<&Record> = records
        .iter()
        .filter(|record| !record.violations().is_empty())
        .collect();
    if invalid.is_empty() {
        return None;
    }
    let violations: usize = invalid.iter().map(|record| record.violations().len()).sum();
    let ids: Vec<&str> = invalid
        .iter()
        .map(|record| record.key().id.as_str())
        .collect();
    Some(Finding::warning(
        format!("{} documents", kind.singular()),
        format!(
            "{} in {}: {}",
            counted(violations, "violation"),
            counted(invalid.len(), "document"),
            sample(&ids, ", ")
        ),
        format!(
            "they are served anyway; get_{} lists the violations in `meta.warnings`",
            kind.singular()
        ),
    ))
}

/// `1 document`, `2 documents`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// The first three of `names`, each truncated, and how many more there are.
pub(super) fn sample(names: &[impl AsRef<str>], separator: &str) -> String {
    const SAMPLE_SIZE: usize = 3;
    let shown: Vec<_> = names
        .iter()
        .take(SAMPLE_SIZE)
        .map(|name| truncate(name.as_ref()))
        .collect();
    let rest = match names.len().checked_sub(SAMPLE_SIZE) {
        None | Some(0) => String::new(),
        Some(more) => format!(" and {more} more"),
    };
    shown.join(separator) + &rest
}

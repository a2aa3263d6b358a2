//! `import`: brings a JSON folder into the store, through the same door as every other write.

use std::{collections::HashSet, io::Write, process::ExitCode, time::Duration};

use anyhow::Context;
use futures::future::join_all;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{
    cli::{ImportArgs, Settings, UsageError},
    deadline::Deadline,
    domain::{
        AuditQuery, Change, DocumentKey, Operation, Origin, Source, StoredEntry, text::sanitize,
        text::truncate,
    },
    folder::Folder,
    service::{ContentService, Error},
};

/// Documents that are written together, so that a distant store costs a round trip for many.
const BATCH: usize = 25;
/// How long reading a page of the log may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a batch is tried when others write at the same time.
const TRIES: u32 = 5;

/// What to do with a document that the store has with another content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnDifference {
    Permit,
    Replace,
}

/// Whether to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    Dry,
    Real,
}

#[derive(Debug, Default)]
struct Report {
    created: usize,
    replaced: usize,
    unchanged: usize,
    left: usize,
    lines: Vec<String>,
}

/// Imports, and reports to `out`.
///
/// # Errors
/// When the store fails; what the content does wrong is reported and exits with 1.
pub async fn run(
    content: &ContentService,
    settings: &Settings,
    arguments: &ImportArgs,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let folder = match Folder::read(&arguments.folder) {
        Ok(folder) => folder,
        Err(error) => {
            for problem in &error.0 {
                writeln!(out, "refused    {}", sanitize(problem))?;
            }
            writeln!(
                out,
                "nothing was imported; mend what is refused and run it again"
            )?;
            return Ok(ExitCode::from(1));
        }
    };
    if let (Some(reason), false) = (&settings.read_only, arguments.dry_run) {
        return Err(UsageError(vec![format!("nothing was imported: {reason}")]).into());
    }
    let run = if arguments.dry_run {
        Run::Dry
    } else {
        Run::Real
    };
    let on_difference = if arguments.force {
        OnDifference::Replace
    } else {
        OnDifference::Permit
    };

    // History first, so that what is written now comes after it.
    let new = new_entries(content, &folder.entries)
        .await
        .context("reading the audit log")?;
    let carried = match run {
        Run::Real if !new.is_empty() => content
            .import_entries(&new)
            .await
            .context("carrying over the audit log")?,
        Run::Real => 0,
        Run::Dry => new.len(),
    };
    let progress = ProgressBar::new(folder.documents.len() as u64);
    progress.set_style(
        ProgressStyle::with_template("importing {bar:30} {pos}/{len}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let mut report = Report::default();
    for batch in folder.documents.chunks(BATCH) {
        let part = import(content, batch, on_difference, run)
            .await
            .with_context(|| {
                let kept = report.created + report.replaced;
                if kept == 0 {
                    "nothing was imported".to_owned()
                } else {
                    format!("after {kept} documents, which are kept; run it again for the rest")
                }
            })?;
        report.created += part.created;
        report.replaced += part.replaced;
        report.unchanged += part.unchanged;
        report.left += part.left;
        report.lines.extend(part.lines);
        progress.inc(batch.len() as u64);
    }
    progress.finish_and_clear();
    for line in &report.lines {
        writeln!(out, "{}", sanitize(line))?;
    }
    let would = if run == Run::Dry {
        "dry run, nothing was written: "
    } else {
        ""
    };
    let Report {
        created,
        replaced,
        unchanged,
        left,
        ..
    } = report;
    writeln!(
        out,
        "{would}{created} created, {replaced} replaced, {unchanged} unchanged, {left} left as they are"
    )?;
    if !folder.entries.is_empty() {
        let were = if run == Run::Dry { "would be" } else { "were" };
        writeln!(
            out,
            "{carried} of {} audit entries {were} carried over, the others are there already",
            folder.entries.len()
        )?;
    }
    if left > 0 {
        writeln!(
            out,
            "hint: --force replaces the documents that differ; every replaced value stays in the audit log"
        )?;
    }
    Ok(ExitCode::from(u8::from(left > 0)))
}

/// The entries that the log does not have yet, each once, however it is printed.
async fn new_entries(
    content: &ContentService,
    entries: &[StoredEntry],
) -> Result<Vec<StoredEntry>, Error> {
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let mut known = HashSet::new();
    let mut query = AuditQuery {
        limit: 1000,
        ..AuditQuery::default()
    };
    loop {
        let page = content
            .audit_entries(&query, Deadline::after(PAGE_TIMEOUT))
            .await?
            .value;
        known.extend(page.entries.iter().map(StoredEntry::identity));
        match page.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
    }
    Ok(entries
        .iter()
        .filter(|entry| known.insert(entry.identity()))
        .cloned()
        .collect())
}

/// Imports some documents, all together or none.
async fn import(
    content: &ContentService,
    documents: &[(DocumentKey, Map<String, Value>)],
    on_difference: OnDifference,
    run: Run,
) -> Result<Report, Error> {
    let mut tries = 0;
    loop {
        let ids: Vec<&str> = documents.iter().map(|(key, _)| key.id.as_str()).collect();
        let operation = Operation::once(&Uuid::new_v4().to_string(), json!({ "import": ids }));
        let origin = Origin {
            actor: whoami::username().ok(),
            transport: Some("cli"),
            ..Origin::new(Source::Admin)
        };
        let stored = join_all(documents.iter().map(|(key, _)| content.get_for_update(key))).await;
        let (mut report, mut changes) = (Report::default(), Vec::new());
        for ((key, document), stored) in documents.iter().zip(stored) {
            let stored = match stored {
                Err(error @ Error::Corrupt { .. }) => {
                    report.left += 1;
                    report.lines.push(format!("refused    {key}: {error}; restore it from a backup or delete it, then import again"));
                    continue;
                }
                stored => stored?,
            };
            let write_context = content.write_context(origin.clone(), operation.clone());
            let Some(change) = Change::put(&stored, document, write_context) else {
                report.unchanged += 1;
                continue;
            };
            let fields: Vec<_> = change
                .entry()
                .changes
                .iter()
                .map(|change| truncate(&change.field))
                .collect();
            if change.expected_text().is_none() {
                report.created += 1;
                report.lines.push(format!(
                    "{} {key}",
                    if run == Run::Dry {
                        "would create"
                    } else {
                        "created   "
                    }
                ));
            } else if on_difference == OnDifference::Replace {
                report.replaced += 1;
                report.lines.push(format!(
                    "{} {key}: {}",
                    if run == Run::Dry {
                        "would replace"
                    } else {
                        "replaced  "
                    },
                    fields.join(", ")
                ));
            } else {
                report.left += 1;
                report
                    .lines
                    .push(format!("differs    {key}: {}", fields.join(", ")));
                continue;
            }
            for violation in change.next().violations() {
                report.lines.push(format!("warning    {key}: {violation}"));
            }
            changes.push(change);
        }
        if run == Run::Dry || changes.is_empty() {
            return Ok(report);
        }
        match content.commit(changes, operation).await {
            Ok(_) => return Ok(report),
            Err(Error::Conflict { .. }) if tries < TRIES => {
                tries += 1;
                tokio::time::sleep(
                    Duration::from_millis(20).mul_f64(f64::from(tries) + fastrand::f64()),
                )
                .await;
            }
            Err(error) => return Err(error),
        }
    }
}

//! `import`: writes the documents and audit entries of a JSON folder to the store, through the same
//! service as every other write.

use std::{collections::HashSet, io::Write, process::ExitCode, time::Duration};

use anyhow::Context;
use futures::future::join_all;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{
    cli::ImportArgs,
    deadline::Deadline,
    domain::{
        AuditQuery, Change, Current, DocumentKey, Operation, Origin, Source, StoredEntry,
        text::sanitize,
    },
    folder::Folder,
    logs::show_progress,
    service::{ContentService, Error},
    settings::{Settings, UsageError},
    style::{BAD, paint},
};

mod report;

use report::{Mode, OnDifference, Report};

/// How many documents are written together, so that a distant store takes few round trips.
const BATCH_SIZE: usize = 25;
/// How long recording what was changed outside this server may take before a batch is written.
const ADOPTION_TIMEOUT: Duration = Duration::from_secs(30);
/// How long reading a page of the log may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a batch is repeated when others write at the same time.
const MAX_RETRIES: u32 = 5;

struct Import<'a> {
    content: &'a ContentService,
    on_difference: OnDifference,
    mode: Mode,
}

/// Imports, and reports to `out`.
///
/// # Errors
/// When the store fails. Problems of the content are reported, and exit with 1.
pub async fn run(
    content: &ContentService,
    settings: &Settings,
    arguments: &ImportArgs,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    // In a task of its own, so that Ctrl-C also ends the reading of a slow or endless file.
    let path = arguments.folder.clone();
    let read = tokio::task::spawn_blocking(move || Folder::read(&path)).await?;
    let folder = match read {
        Ok(folder) => folder,
        Err(error) => {
            for problem in &error.0 {
                writeln!(out, "{} {}", paint(BAD, "error     "), sanitize(problem))?;
            }
            writeln!(
                out,
                "nothing was imported; fix the problems above and run the command again"
            )?;
            return Ok(ExitCode::from(1));
        }
    };
    if let (Some(reason), false) = (&settings.read_only, arguments.dry_run) {
        return Err(UsageError(vec![format!("nothing was imported: {reason}")]).into());
    }
    let import = Import {
        content,
        on_difference: if arguments.force {
            OnDifference::Replace
        } else {
            OnDifference::Skip
        },
        mode: if arguments.dry_run {
            Mode::DryRun
        } else {
            Mode::Write
        },
    };
    // History first, so that the entries of this import come after it.
    let imported_entries = import.entries(&folder.entries).await?;
    let report = import.documents(&folder.documents).await?;
    report.write(out, &folder, import.mode)?;
    if !folder.entries.is_empty() {
        let line = entries_line(imported_entries, folder.entries.len(), import.mode);
        writeln!(out, "{line}")?;
    }
    if report.has_differing() {
        writeln!(
            out,
            "hint: --force overwrites the documents that differ; the audit log keeps every replaced value"
        )?;
    }
    Ok(ExitCode::from(u8::from(report.skipped() > 0)))
}

impl Import<'_> {
    /// Imports the entries that the log does not have yet, and returns how many these were.
    async fn entries(&self, entries: &[StoredEntry]) -> anyhow::Result<usize> {
        let new = self
            .new_entries(entries)
            .await
            .context("reading the audit log")?;
        match self.mode {
            Mode::DryRun => Ok(new.len()),
            Mode::Write if new.is_empty() => Ok(0),
            Mode::Write => self
                .content
                .import_entries(&new)
                .await
                .context("importing audit entries"),
        }
    }

    /// The entries that the log does not have, each once, even if its text is formatted
    /// differently.
    async fn new_entries(&self, entries: &[StoredEntry]) -> Result<Vec<StoredEntry>, Error> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let mut known = HashSet::new();
        let mut query = AuditQuery {
            limit: 1000,
            ..AuditQuery::default()
        };
        loop {
            let deadline = Deadline::after(PAGE_TIMEOUT);
            let page = self.content.audit_entries(&query, deadline).await?.value;
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

    async fn documents(
        &self,
        documents: &[(DocumentKey, Map<String, Value>)],
    ) -> anyhow::Result<Report> {
        let progress = ProgressBar::new(documents.len() as u64);
        progress.set_style(
            ProgressStyle::with_template("importing {bar:30} {pos}/{len}")
                .unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        let _shown = show_progress(&progress);
        let mut report = Report::default();
        for batch in documents.chunks(BATCH_SIZE) {
            let part = self.batch(batch).await.with_context(|| {
                match report.written() {
                    0 => "nothing was imported".to_owned(),
                    written => format!(
                        "stopped after {written} documents, which are imported; run the command again to import the rest"
                    ),
                }
            })?;
            report.add(part);
            progress.inc(batch.len() as u64);
        }
        progress.finish_and_clear();
        Ok(report)
    }

    /// Imports some documents, all of them or none.
    async fn batch(
        &self,
        documents: &[(DocumentKey, Map<String, Value>)],
    ) -> Result<Report, Error> {
        let mut retries = 0;
        loop {
            let ids: Vec<&str> = documents.iter().map(|(key, _)| key.id.as_str()).collect();
            let operation = Operation::once(&Uuid::new_v4().to_string(), json!({ "import": ids }));
            let (report, changes) = self.plan(documents, &operation).await?;
            if self.mode == Mode::DryRun || changes.is_empty() {
                return Ok(report);
            }
            let deadline = Deadline::after(ADOPTION_TIMEOUT);
            match self.content.commit(changes, operation, deadline).await {
                Ok(_) => return Ok(report),
                Err(Error::Conflict { .. }) if retries < MAX_RETRIES => {
                    retries += 1;
                    let jitter = f64::from(retries) + fastrand::f64();
                    tokio::time::sleep(Duration::from_millis(20).mul_f64(jitter)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn plan(
        &self,
        documents: &[(DocumentKey, Map<String, Value>)],
        operation: &Operation,
    ) -> Result<(Report, Vec<Change>), Error> {
        let (mut report, mut changes) = (Report::default(), Vec::new());
        let keys = documents.iter().map(|(key, _)| key);
        let stored = join_all(keys.map(|key| self.content.get_for_update(key))).await;
        for ((key, document), stored) in documents.iter().zip(stored) {
            match stored {
                Ok(stored) => {
                    let change = self.change(document, &stored, operation);
                    changes.extend(report.record(key, change, self.on_difference));
                }
                Err(error @ Error::Corrupt { .. }) => {
                    let remedy = "keep a copy of what is stored, repair it, then import again";
                    report.record_unreadable(key, format!("{error}; {remedy}"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok((report, changes))
    }

    /// The change that makes `stored` the `document`; `None` if they are equal.
    fn change(
        &self,
        document: &Map<String, Value>,
        stored: &Current,
        operation: &Operation,
    ) -> Option<Change> {
        let origin = Origin {
            actor: whoami::username().ok(),
            transport: Some("cli"),
            ..Origin::new(Source::Admin)
        };
        let context = self.content.write_context(origin, operation.clone());
        Change::put(stored, document, context)
    }
}

fn entries_line(imported: usize, total: usize, mode: Mode) -> String {
    let done = match mode {
        Mode::Write => "imported",
        Mode::DryRun => "to import",
    };
    if imported < total {
        format!("{imported} of {total} audit entries {done}; the log already has the others")
    } else {
        format!("{imported} of {total} audit entries {done}")
    }
}

//! `undo`: shows what undoing changes would change, asks, and undoes them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{IsTerminal, Write, stdin},
    process::ExitCode,
    time::Duration,
};

use super::changes;
use crate::{
    cli::{DocumentKind, UndoArgs},
    deadline::Deadline,
    domain::{
        AuditQuery, Creations, DocumentKey, FieldChange, Kept, Kind, Origin, Source, Timestamp,
        Violation, text::sanitize,
    },
    service::{ContentService, Error, Mode, Selection, UndoRequest, Undone, UndoneDocument},
    settings::{Settings, UsageError},
    style::{BAD, WARNING, paint},
};

/// How long reading and planning, or the undo, may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Undoes, and reports to `out`.
///
/// # Errors
/// When the command line is wrong, or the store fails. Changes that cannot be undone are reported,
/// and exit with 1.
pub async fn run(
    content: &ContentService,
    settings: &Settings,
    arguments: &UndoArgs,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    if let Some(reason) = &settings.read_only {
        return Err(UsageError(vec![format!("nothing was undone: {reason}")]).into());
    }
    let selection = selection(arguments)?;
    let request = UndoRequest {
        // Only an id says that a creation is meant.
        creations: match &selection {
            Selection::Entries(_) | Selection::EntryOf(..) => Creations::Undo,
            Selection::Matching(_) => Creations::Keep,
        },
        selection,
        expected_versions: BTreeMap::new(),
        mode: Mode::DryRun,
        idempotency_key: None,
        origin: Origin {
            actor: whoami::username().ok(),
            transport: Some("cli"),
            reason: arguments.reason.clone(),
            ..Origin::new(Source::Admin)
        },
    };
    let planned = match content
        .undo(request.clone(), Deadline::after(TIMEOUT))
        .await
    {
        Ok(planned) => planned,
        Err(error) => return refused(error, out),
    };
    show(&planned, out)?;
    if planned.documents.is_empty() {
        writeln!(out, "nothing is left to undo, so nothing was changed")?;
        return Ok(ExitCode::SUCCESS);
    }
    if !arguments.yes && !confirmed(&planned, out).await? {
        writeln!(out, "nothing was undone")?;
        return Ok(ExitCode::from(1));
    }
    let request = UndoRequest {
        mode: Mode::Commit,
        expected_versions: versions(&planned),
        selection: Selection::Entries(planned.selected),
        ..request
    };
    match content.undo(request, Deadline::after(TIMEOUT)).await {
        Ok(undone) => {
            report(&undone, out)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => refused(error, out),
    }
}

/// Which changes the arguments name.
fn selection(arguments: &UndoArgs) -> Result<Selection, UsageError> {
    let Some(since) = &arguments.since else {
        return Ok(Selection::Entries(BTreeSet::from_iter(
            arguments.audit_ids.iter().cloned(),
        )));
    };
    let time = |option: &str, text: &str| {
        Timestamp::parse(text).ok_or_else(|| {
            UsageError(vec![format!(
                "{option}: expected an RFC 3339 time such as `2026-11-22T10:15:30Z`, found `{}`",
                sanitize(text)
            )])
        })
    };
    let until = arguments.until.as_deref();
    Ok(Selection::Matching(Box::new(AuditQuery {
        since: Some(time("--since", since)?),
        until: until.map(|until| time("--until", until)).transpose()?,
        actor: arguments.actor.clone(),
        client_id: arguments.client.clone(),
        source: arguments.source.clone(),
        kind: arguments.kind.map(|kind| match kind {
            DocumentKind::Project => Kind::Project,
            DocumentKind::Resource => Kind::Resource,
        }),
        entity_id: arguments.id.clone(),
        ..AuditQuery::default()
    })))
}

/// The versions that were shown, so that nothing else is undone than what was shown.
fn versions(planned: &Undone) -> BTreeMap<DocumentKey, Option<String>> {
    let version = |document: &UndoneDocument| {
        let before = document.before.as_ref();
        let version = before.map(|record| record.version().as_str().to_owned());
        (document.key.clone(), version)
    };
    planned.documents.iter().map(version).collect()
}

/// Shows what goes back, what stays, and why.
fn show(planned: &Undone, out: &mut impl Write) -> std::io::Result<()> {
    for document in &planned.documents {
        writeln!(out, "{}", title(document))?;
        match (&document.before, &document.record) {
            (_, None) => writeln!(out, "  {}", paint(BAD, "the document is deleted"))?,
            (None, Some(_)) => writeln!(out, "  the document comes back")?,
            (Some(_), Some(_)) => {
                for change in field_changes(document) {
                    for line in changes::shown(&change) {
                        writeln!(out, "{line}")?;
                    }
                }
            }
        }
        for violation in &document.warnings {
            writeln!(
                out,
                "  {} {}",
                paint(WARNING, "warning"),
                sanitize(&violation.to_string())
            )?;
        }
    }
    for (key, kept) in &planned.kept {
        writeln!(out, "{}", stays(key, kept))?;
    }
    if planned.unexplained > 0 {
        writeln!(
            out,
            "{} matching entries are left out: the log does not show how they join the other versions of their documents",
            planned.unexplained
        )?;
    }
    let counts = planned.counts;
    writeln!(
        out,
        "{} of {} to undo; {} stay as others changed them, {} are as before already",
        counted(counts.undone, "field"),
        counted(planned.documents.len(), "document"),
        counts.kept,
        counts.already_gone
    )
}

fn title(document: &UndoneDocument) -> String {
    let record = document.record.as_ref().or(document.before.as_ref());
    let title = record.and_then(|record| record.document().get("title")?.as_str());
    let title = title.map_or_else(String::new, |title| format!(": {title}"));
    sanitize(&format!("{}{title}", document.key)).into_owned()
}

/// The recorded changes, but for the time of the undo itself.
fn field_changes(document: &UndoneDocument) -> Vec<FieldChange> {
    let changes = document.changes.as_array().into_iter().flatten();
    let changes = changes.filter_map(FieldChange::of_json);
    changes
        .filter(|change| change.field != "metadata.updatedAt")
        .collect()
}

fn stays(key: &DocumentKey, kept: &Kept) -> String {
    let field = match kept.field.as_str() {
        "" => "the document".to_owned(),
        field => format!("`{field}`"),
    };
    let why = if kept.is_creation {
        "undoing its creation would delete the document; name the audit id of the creation to do that".to_owned()
    } else {
        let by = [&kept.actor, &kept.client_id].into_iter().flatten();
        let by: Vec<&str> = by.map(String::as_str).collect();
        format!(
            "changed later by {} at {}, audit id {}",
            if by.is_empty() {
                "an unknown actor".to_owned()
            } else {
                by.join(" with ")
            },
            kept.timestamp.as_deref().unwrap_or("an unknown time"),
            kept.audit_id.as_deref().unwrap_or("unknown")
        )
    };
    sanitize(&format!("{key}: {field} stays: {why}")).into_owned()
}

fn counted(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

/// Asks whether to undo what was shown.
async fn confirmed(planned: &Undone, out: &mut impl Write) -> anyhow::Result<bool> {
    if !stdin().is_terminal() {
        let problem = "nothing was undone: standard input is no terminal, so nobody can be asked; add --yes to undo what is shown above";
        return Err(UsageError(vec![problem.to_owned()]).into());
    }
    let deleted = planned
        .documents
        .iter()
        .filter(|it| it.record.is_none())
        .count();
    let question = match deleted {
        0 => "Undo this? [y/N] ".to_owned(),
        _ => format!(
            "Undo this, and delete {}? [y/N] ",
            counted(deleted, "document")
        ),
    };
    write!(out, "{question}")?;
    out.flush()?;
    // In a task of its own, so that Ctrl-C also ends the waiting.
    let line = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        stdin().read_line(&mut line).map(|_| line)
    });
    let answer = line.await??.trim().to_lowercase();
    Ok(answer == "y" || answer == "yes")
}

/// Says what was undone, and how to undo that.
fn report(undone: &Undone, out: &mut impl Write) -> std::io::Result<()> {
    let ids = undone
        .documents
        .iter()
        .filter_map(|it| it.audit_id.as_deref());
    let ids: Vec<&str> = ids.collect();
    writeln!(
        out,
        "undone; to take this back, run `portfolio-mcp undo {}`",
        ids.join(" ")
    )
}

/// Says why nothing was undone, if the request is at fault.
fn refused(error: Error, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let problems: Vec<String> = if let Error::Invalid(violations) = &error {
        violations.iter().map(message).collect()
    } else if let Error::Conflict { key, .. } = &error {
        vec![format!(
            "{key} was changed since it was shown; run the command again"
        )]
    } else {
        return Err(error.into());
    };
    for problem in problems {
        writeln!(out, "{} {}", paint(BAD, "error"), sanitize(&problem))?;
    }
    writeln!(out, "nothing was undone")?;
    Ok(ExitCode::from(1))
}

/// A violation without the name of a tool's argument.
fn message(violation: &Violation) -> String {
    violation.message.clone()
}

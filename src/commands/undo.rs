//! `undo`: shows what undoing changes would change, asks, and undoes them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    ops::ControlFlow,
    process::ExitCode,
    time::Duration,
};

use super::confirm::is_confirmed;
use crate::{
    cli::{DocumentKind, UndoArgs},
    deadline::Deadline,
    domain::{
        AuditQuery, Creations, Kind, Origin, Source, Timestamp,
        text::{sanitize, truncate},
    },
    service::{ContentService, Error, Mode, Selection, UndoRequest, Undone},
    settings::{Settings, UsageError},
    style::{BAD, paint, stdout_columns, wrap},
};

mod report;

use report::{counted, lines};

/// How long reading and planning, or the undo, may take.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Of how many characters a reason may be; the tools accept as many.
const MAX_REASON_CHARS: usize = 500;

const NOTHING_NAMED: &str = "which changes? name their audit ids, as in `portfolio-mcp undo ID`, or a time, as in `portfolio-mcp undo --since TIME`";
const NOBODY_TO_ASK: &str = "nothing was undone: standard input is no terminal, so nobody can be asked; add --yes to undo what is shown above";

/// Checks the arguments before anything is opened.
///
/// # Errors
/// When they are wrong; says everything that is.
pub fn check(arguments: &UndoArgs) -> Result<(), UsageError> {
    request(arguments).map(|_| ())
}

/// Shows what would change, and asks. Continues with the request that undoes what was shown and
/// nothing else.
///
/// # Errors
/// When the command line is wrong, nobody can be asked, or the store fails. Changes that cannot be
/// undone are reported, and exit with 1.
pub async fn confirm(
    content: &ContentService,
    settings: &Settings,
    arguments: &UndoArgs,
    out: &mut impl Write,
) -> anyhow::Result<ControlFlow<ExitCode, UndoRequest>> {
    if let Some(reason) = &settings.read_only {
        return Err(UsageError(vec![format!("nothing was undone: {reason}")]).into());
    }
    let request = request(arguments)?;
    let shown = content.undo(request.clone(), Deadline::after(TIMEOUT));
    let shown = match shown.await {
        Ok(shown) => shown,
        Err(error) => return refused(error, out).map(ControlFlow::Break),
    };
    for line in lines(&shown) {
        writeln!(out, "{}", wrap(&line, stdout_columns()))?;
    }
    if shown.documents.is_empty() {
        writeln!(out, "nothing is left to undo, so nothing was changed")?;
        return Ok(ControlFlow::Break(ExitCode::SUCCESS));
    }
    if !arguments.yes && !is_confirmed(question(&shown), NOBODY_TO_ASK).await? {
        writeln!(out, "nothing was undone")?;
        return Ok(ControlFlow::Break(ExitCode::from(1)));
    }
    Ok(ControlFlow::Continue(UndoRequest {
        mode: Mode::Commit,
        expected_versions: shown.versions,
        selection: Selection::Entries(shown.selected),
        ..request
    }))
}

/// Undoes what was shown, and reports to `out`.
///
/// # Errors
/// When the store fails. If a document was changed since it was shown, that is reported, and exits
/// with 1.
pub async fn commit(
    content: &ContentService,
    request: UndoRequest,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let undone = match content.undo(request, Deadline::after(TIMEOUT)).await {
        Ok(undone) => undone,
        Err(error) => return refused(error, out),
    };
    let documents = undone.documents.iter();
    let ids: Vec<&str> = documents.filter_map(|it| it.audit_id.as_deref()).collect();
    let ids = ids.join(" ");
    writeln!(
        out,
        "undone; to take this back, run `portfolio-mcp undo {ids}`"
    )?;
    Ok(ExitCode::SUCCESS)
}

/// The request that shows what the arguments ask for.
fn request(arguments: &UndoArgs) -> Result<UndoRequest, UsageError> {
    let reason = arguments.reason.as_deref();
    let mut problems: Vec<String> = reason.and_then(long_reason).into_iter().collect();
    let selection = match selection(arguments) {
        Ok(selection) if problems.is_empty() => selection,
        Ok(_) => return Err(UsageError(problems)),
        Err(UsageError(more)) => {
            problems.extend(more);
            return Err(UsageError(problems));
        }
    };
    Ok(UndoRequest {
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
    })
}

/// What is wrong with a reason that the tools would refuse too.
pub(super) fn long_reason(reason: &str) -> Option<String> {
    let characters = reason.chars().count();
    (characters > MAX_REASON_CHARS).then(|| {
        format!("--reason: expected at most {MAX_REASON_CHARS} characters, found {characters}")
    })
}

/// Which changes the arguments name.
fn selection(arguments: &UndoArgs) -> Result<Selection, UsageError> {
    let Some(since) = &arguments.since else {
        if arguments.audit_ids.is_empty() {
            return Err(UsageError(vec![NOTHING_NAMED.to_owned()]));
        }
        let ids: BTreeSet<String> = arguments.audit_ids.iter().cloned().collect();
        return Ok(Selection::Entries(ids));
    };
    let mut problems = Vec::new();
    let mut time = |option: &str, text: &str| {
        let time = Timestamp::parse(text);
        if time.is_none() {
            problems.push(format!(
                "{option}: expected an RFC 3339 time such as `2026-11-22T10:15:30Z`, found `{}`",
                truncate(text)
            ));
        }
        time
    };
    let since = time("--since", since);
    let until = arguments.until.as_deref();
    let until = until.and_then(|until| time("--until", until));
    if !problems.is_empty() {
        return Err(UsageError(problems));
    }
    Ok(Selection::Matching(Box::new(AuditQuery {
        since,
        until,
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

/// What to ask before what was shown is undone.
fn question(shown: &Undone) -> String {
    let documents = shown.documents.iter();
    match documents.filter(|it| it.record.is_none()).count() {
        0 => "Undo this?".to_owned(),
        deleted => format!("Undo this, and delete {}?", counted(deleted, "document")),
    }
}

/// Says why nothing was undone, if the request is at fault.
fn refused(error: Error, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let problems: Vec<String> = if let Error::Invalid(violations) = &error {
        let violations = violations.iter();
        violations.map(|it| it.message.clone()).collect()
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

//! `plan show` and `plan apply`: how an owner approves what a client planned.

use std::{io::Write, ops::ControlFlow, process::ExitCode, time::Duration};

use super::{changes, confirm::is_confirmed, undo::long_reason};
use crate::{
    cli::{PlanArgs, PlanCommand},
    deadline::Deadline,
    domain::{Creations, Origin, Source, text::sanitize},
    service::{ApplyRequest, ContentService, Error, ShownPlan},
    settings::{Settings, UsageError},
    style::{BAD, paint, stdout_columns, wrap},
};

/// How long reading the plan, or applying it, may take.
const TIMEOUT: Duration = Duration::from_mins(1);

const NOBODY_TO_ASK: &str = "nothing was changed: standard input is no terminal, so nobody can be asked; add --yes to apply what is shown above";

/// Shows the plan. Continues with the request that applies it, if that is asked for and confirmed.
///
/// # Errors
/// When nobody can be asked, or the store fails. A plan that cannot be applied is reported, and exits
/// with 1.
pub async fn show(
    content: &ContentService,
    settings: &Settings,
    arguments: &PlanArgs,
    out: &mut impl Write,
) -> anyhow::Result<ControlFlow<ExitCode, ApplyRequest>> {
    let (id, apply) = match &arguments.command {
        PlanCommand::Show { id } => (id, None),
        PlanCommand::Apply { id, reason, yes } => (id, Some((reason, *yes))),
    };
    if let Some((Some(reason), _)) = apply
        && let Some(problem) = long_reason(reason)
    {
        return Err(UsageError(vec![problem]).into());
    }
    if let (Some(reason), Some(_)) = (&settings.read_only, apply) {
        return Err(UsageError(vec![format!("nothing was changed: {reason}")]).into());
    }
    let shown = match content.plan(id, Deadline::after(TIMEOUT)).await {
        Ok(shown) => shown,
        Err(error) => return refused(error, out).map(ControlFlow::Break),
    };
    for line in lines(&shown) {
        writeln!(out, "{}", wrap(&line, stdout_columns()))?;
    }
    let Some((reason, yes)) = apply else {
        return Ok(ControlFlow::Break(ExitCode::SUCCESS));
    };
    if !yes && !is_confirmed("Apply this plan?".to_owned(), NOBODY_TO_ASK).await? {
        writeln!(out, "nothing was changed")?;
        return Ok(ControlFlow::Break(ExitCode::from(1)));
    }
    Ok(ControlFlow::Continue(ApplyRequest {
        plan_id: id.clone(),
        tool: None,
        creations: Creations::Undo,
        key: None,
        idempotency_key: None,
        origin: Origin {
            actor: whoami::username().ok(),
            transport: Some("cli"),
            reason: reason.clone(),
            ..Origin::new(Source::Admin)
        },
    }))
}

/// Applies the plan that was shown, and reports to `out`.
///
/// # Errors
/// When the store fails. A plan that cannot be applied any more is reported, and exits with 1.
pub async fn apply(
    content: &ContentService,
    request: ApplyRequest,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let applied = content.apply_plan(request, Deadline::after(TIMEOUT));
    let applied = match applied.await {
        Ok(applied) => applied,
        Err(error) => return refused(error, out),
    };
    let documents = applied.documents.iter();
    let ids: Vec<&str> = documents.filter_map(|it| it.audit_id.as_deref()).collect();
    let ids = ids.join(" ");
    writeln!(
        out,
        "applied; to take this back, run `portfolio-mcp undo {ids}`"
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Who made the plan, and what it would change.
fn lines(shown: &ShownPlan) -> Vec<String> {
    let reference = &shown.plan.reference;
    let by = [&reference.actor, &reference.client_id];
    let by: Vec<&str> = by.into_iter().flatten().map(String::as_str).collect();
    let by = match by.as_slice() {
        [] => String::new(),
        by => format!(" by {}", by.join(" with ")),
    };
    let first = format!(
        "made with {}{by} at {}; can be applied until {}",
        shown.plan.tool,
        reference.timestamp,
        shown.plan.expires_at()
    );
    let documents = shown.documents.iter().flat_map(changes::document);
    [sanitize(&first).into_owned()]
        .into_iter()
        .chain(documents)
        .collect()
}

/// Says why the plan cannot be applied, if it is at fault.
fn refused(error: Error, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let problem = match &error {
        Error::PlanNotFound { applied: None } => {
            "there is no such plan, or it has expired (plans last 24 hours)".to_owned()
        }
        Error::PlanNotFound {
            applied: Some(applied),
        } => {
            let by = applied.actor.as_ref();
            let by = by.map_or_else(String::new, |actor| format!(" by {actor}"));
            let at = applied.timestamp;
            let at = at.map_or_else(String::new, |time| format!(" at {time}"));
            let ids = applied.audit_ids.join(" ");
            format!("this plan was applied already{by}{at} (audit ids: {ids})")
        }
        Error::Conflict { key, .. } => {
            format!("{key} was changed since the plan was made; ask for a new plan")
        }
        _ => return Err(error.into()),
    };
    writeln!(out, "{} {}", paint(BAD, "error"), sanitize(&problem))?;
    writeln!(out, "nothing was changed")?;
    Ok(ExitCode::from(1))
}

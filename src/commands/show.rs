//! `show`: prints a document as it is or as it was.

use std::{io::Write, process::ExitCode, time::Duration};

use crate::{
    cli::{DocumentKind, ShowArgs},
    deadline::Deadline,
    domain::{DocumentKey, Kind, PointInTime, Record, text::escape_invisible},
    logs::print_error,
    service::{ContentService, Error, LogPoint},
};

/// How long reading may take.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Prints the document to `out`.
///
/// # Errors
/// When the store fails. A document that is not there is reported, and exits with 1.
pub async fn run(
    content: &ContentService,
    arguments: &ShowArgs,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    match read(content, arguments).await {
        Ok(record) => {
            let text = serde_json::to_string_pretty(record.json())?;
            writeln!(out, "{}", escape_invisible(text))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => refused(error),
    }
}

async fn read(content: &ContentService, arguments: &ShowArgs) -> Result<Record, Error> {
    let kind = match arguments.kind {
        DocumentKind::Project => Kind::Project,
        DocumentKind::Resource => Kind::Resource,
    };
    let key = DocumentKey::new(kind, &arguments.id);
    let deadline = Deadline::after(TIMEOUT);
    let Some(as_of) = &arguments.as_of else {
        let shown = content.get(key, deadline).await?;
        return Ok(shown.value.record);
    };
    let point = point(content, as_of, "--as-of", deadline).await?;
    content.get_as_of(key, &point, deadline).await
}

/// The point in time that an argument names.
pub(super) async fn point(
    content: &ContentService,
    text: &str,
    argument: &'static str,
    deadline: Deadline,
) -> Result<LogPoint, Error> {
    let point = PointInTime::parse(text, argument);
    let point = point.map_err(|violation| Error::Invalid(vec![violation]))?;
    content.log_point(&point, argument, deadline).await
}

/// Says on standard error why nothing can be shown, if the request is at fault.
pub(super) fn refused(error: Error) -> anyhow::Result<ExitCode> {
    let problems: Vec<String> = match &error {
        Error::Invalid(violations) => violations.iter().map(ToString::to_string).collect(),
        Error::NotFound {
            deleted_outside: Some(after),
            ..
        } => vec![format!(
            "{error}: it was deleted outside this program after {after}"
        )],
        Error::NotFound { similar, .. } if !similar.is_empty() => {
            vec![format!("{error}; did you mean `{}`?", similar.join("`, `"))]
        }
        Error::NotFound { .. } | Error::NotThen { .. } | Error::Corrupt { .. } => {
            vec![error.to_string()]
        }
        _ => return Err(error.into()),
    };
    for problem in problems {
        print_error("portfolio-mcp: ", &problem);
    }
    Ok(ExitCode::from(1))
}

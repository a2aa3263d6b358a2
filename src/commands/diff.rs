//! `diff`: shows what differs in the content between two points in time.

use std::{io::Write, process::ExitCode, time::Duration};

use super::{
    changes,
    show::{point, refused},
};
use crate::{
    cli::DiffArgs,
    deadline::Deadline,
    domain::{Kind, text::sanitize},
    service::{Compared, ContentService, Difference, Error},
    style::{BAD, GOOD, WARNING, paint, stdout_columns, wrap},
};

/// How long reading may take.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Shows the differences on `out`.
///
/// # Errors
/// When the store fails. A time or an audit id that is none is reported, and exits with 1.
pub async fn run(
    content: &ContentService,
    arguments: &DiffArgs,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let compared = match compare(content, arguments).await {
        Ok(compared) => compared,
        Err(error) => return refused(error),
    };
    for line in lines(&compared) {
        writeln!(out, "{}", wrap(&line, stdout_columns()))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn compare(content: &ContentService, arguments: &DiffArgs) -> Result<Compared, Error> {
    let deadline = Deadline::after(TIMEOUT);
    let since = point(content, &arguments.since, "SINCE", deadline).await?;
    let until = match &arguments.until {
        Some(until) => point(content, until, "UNTIL", deadline).await?,
        None => content.newest_point("UNTIL", deadline).await?,
    };
    content.compare(&Kind::ALL, &since, &until, deadline).await
}

fn lines(compared: &Compared) -> Vec<String> {
    let mut lines: Vec<String> = compared.differences.iter().flat_map(document).collect();
    let unexplained = compared.unexplained.iter();
    let unexplained =
        unexplained.map(|(key, gap)| format!("{key} is left out: what it was is not known; {gap}"));
    let warnings = unexplained.chain(compared.unreadable.iter().cloned());
    let warning = paint(WARNING, "warning");
    lines.extend(warnings.map(|text| format!("{warning} {}", sanitize(&text))));
    lines.push(match compared.differences.len() {
        0 => "nothing differs".to_owned(),
        1 => "1 document differs".to_owned(),
        count => format!("{count} documents differ"),
    });
    lines
}

fn document(difference: &Difference) -> Vec<String> {
    let (before, after) = (difference.before.as_ref(), difference.after.as_ref());
    let title = after.or(before);
    let title = title.and_then(|record| record.document().get("title")?.as_str());
    let title = title.map_or_else(String::new, |title| format!(": {title}"));
    let mut lines = vec![sanitize(&format!("{}{title}", difference.key)).into_owned()];
    match (before, after) {
        (_, None) => lines.push(paint(BAD, "  the document was deleted")),
        (None, Some(_)) => lines.push(paint(GOOD, "  the document was created")),
        (Some(_), Some(_)) => lines.extend(difference.changes.iter().flat_map(changes::lines)),
    }
    lines
}

//! What an undo would change, as lines for people.

use crate::{
    commands::changes,
    domain::{DocumentKey, FieldChange, Kept, Timestamp, text::sanitize},
    service::{Undone, WrittenDocument},
    style::{BAD, GOOD, WARNING, paint},
};

/// The time of the undo itself, which every undo sets.
const SET_BY_UNDO: [&str; 2] = ["metadata.updatedAt", "updatedAt"];

/// What goes back, what stays, and why.
pub(super) fn lines(shown: &Undone) -> Vec<String> {
    let mut lines: Vec<String> = shown.documents.iter().flat_map(document).collect();
    lines.extend(shown.kept.iter().map(|(key, kept)| stays(key, kept)));
    let outside = shown.changed_outside.iter();
    lines.extend(outside.map(|(key, after)| changed_outside(key, *after)));
    if shown.unexplained > 0 {
        lines.push(format!(
            "left out: {}; the log does not show how such a change joins the other versions of its document",
            counted(shown.unexplained, "matching change")
        ));
    }
    let counts = shown.counts;
    lines.push(format!(
        "{} of {} to undo; left as others changed them: {}; as before already: {}",
        counted(counts.undone, "field"),
        counted(shown.documents.len(), "document"),
        counts.kept,
        counts.already_gone
    ));
    lines
}

pub(super) fn counted(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

fn document(document: &WrittenDocument) -> Vec<String> {
    let mut lines = vec![name(document)];
    match (&document.before, &document.record) {
        (_, None) => lines.push(paint(BAD, "  the document is deleted")),
        (None, Some(_)) => lines.push(paint(GOOD, "  the document comes back")),
        (Some(_), Some(_)) => {
            let changes = document.changes.as_array().into_iter().flatten();
            let changes = changes.filter_map(FieldChange::of_json);
            let changes = changes.filter(|it| !SET_BY_UNDO.contains(&it.field.as_str()));
            lines.extend(changes.flat_map(|change| changes::lines(&change)));
        }
    }
    let warning = paint(WARNING, "warning");
    let warnings = document.warnings.iter().map(ToString::to_string);
    lines.extend(warnings.map(|text| format!("  {warning} {}", sanitize(&text))));
    lines
}

fn name(document: &WrittenDocument) -> String {
    let record = document.record.as_ref().or(document.before.as_ref());
    let title = record.and_then(|record| record.document().get("title")?.as_str());
    let title = title.map_or_else(String::new, |title| format!(": {title}"));
    sanitize(&format!("{}{title}", document.key)).into_owned()
}

fn changed_outside(key: &DocumentKey, after: Timestamp) -> String {
    let text = format!(
        "{key} was changed outside this program after {after}: the log does not say what was changed, or by whom"
    );
    sanitize(&text).into_owned()
}

fn stays(key: &DocumentKey, kept: &Kept) -> String {
    let field = match kept.field.as_str() {
        "" => "the document".to_owned(),
        field => format!("`{field}`"),
    };
    let why = if kept.is_creation {
        "undoing its creation would delete the document; to do that, name the audit id of the creation".to_owned()
    } else {
        let by = [&kept.actor, &kept.client_id].into_iter().flatten();
        let by: Vec<&str> = by.map(String::as_str).collect();
        format!(
            "changed later by {} at {}",
            if by.is_empty() {
                "somebody unknown".to_owned()
            } else {
                by.join(" with ")
            },
            kept.timestamp.as_deref().unwrap_or("an unknown time"),
        )
    };
    let id = kept.audit_id.as_deref().unwrap_or("unknown");
    let text = format!("{key}: {field} stays: {why} (audit id {id})");
    sanitize(&text).into_owned()
}

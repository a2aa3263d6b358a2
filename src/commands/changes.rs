//! Changes as people read them on a terminal: what goes is red, what comes is green.

use std::time::Duration;

use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use crate::{
    domain::{
        FieldChange,
        text::{compact_json, escape_invisible, escape_special_spaces, is_invisible, sanitize},
    },
    service::WrittenDocument,
    style::{BAD, GOOD, WARNING, paint},
};

/// A longer text is shown in one piece, with its changes marked.
const MAX_LINE_CHARS: usize = 60;
/// How much of a text is shown around a change.
const CONTEXT_CHARS: usize = 30;
/// Of longer values and changed parts, the beginning is shown.
const MAX_VALUE_CHARS: usize = 400;
/// Comparing two long texts word by word takes no longer; then they are shown as more different.
const DIFF_TIMEOUT: Duration = Duration::from_millis(500);

/// The time of the change itself, which every change sets.
const SET_BY_SERVER: [&str; 2] = ["metadata.updatedAt", "updatedAt"];

/// The lines that show what a change does to a document.
pub(super) fn document(document: &WrittenDocument) -> Vec<String> {
    let mut shown = vec![name(document)];
    match (&document.before, &document.record) {
        (_, None) => shown.push(paint(BAD, "  the document is deleted")),
        (None, Some(_)) if document.is_revert => {
            shown.push(paint(GOOD, "  the document comes back"));
        }
        (None, Some(_)) => {
            shown.push(paint(GOOD, "  the document is created"));
            shown.extend(changed_fields(document));
        }
        (Some(_), Some(_)) => shown.extend(changed_fields(document)),
    }
    let warning = paint(WARNING, "warning");
    let warnings = document.warnings.iter().map(ToString::to_string);
    shown.extend(warnings.map(|text| format!("  {warning} {}", sanitize(&text))));
    shown
}

fn name(document: &WrittenDocument) -> String {
    let record = document.record.as_ref().or(document.before.as_ref());
    let title = record.and_then(|record| record.document().get("title")?.as_str());
    let title = title.map_or_else(String::new, |title| format!(": {title}"));
    sanitize(&format!("{}{title}", document.key)).into_owned()
}

fn changed_fields(document: &WrittenDocument) -> Vec<String> {
    let changes = document.changes.as_array().into_iter().flatten();
    let changes = changes.filter_map(FieldChange::of_json);
    let changes = changes.filter(|it| !SET_BY_SERVER.contains(&it.field.as_str()));
    changes.flat_map(|change| lines(&change)).collect()
}

/// The lines that show a change of a field.
pub(super) fn lines(change: &FieldChange) -> Vec<String> {
    let field = match change.field.as_str() {
        "" => "(the whole document)",
        field => field,
    };
    let mut lines = vec![format!("  {}", sanitize(field))];
    let (old, new) = (change.old_value.as_ref(), change.new_value.as_ref());
    match (old, new) {
        (Some(Value::String(old)), Some(Value::String(new)))
            if old.chars().count().max(new.chars().count()) > MAX_LINE_CHARS =>
        {
            lines.push(format!("    {}", marked_text(old, new)));
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            lines.extend(changed_elements(old, new));
        }
        (old, new) => {
            let [old, new] = [old, new].map(|value| value.map(shown_value));
            let [old, new] = distinguishable(old, new);
            lines.extend(old.map(|text| line(ChangeTag::Delete, &text)));
            lines.extend(new.map(|text| line(ChangeTag::Insert, &text)));
        }
    }
    lines
}

/// Two texts that only look the same, with their special spaces written as escapes.
fn distinguishable(old: Option<String>, new: Option<String>) -> [Option<String>; 2] {
    let look = |text: &Option<String>| {
        let text = text
            .as_deref()
            .unwrap_or_default()
            .replace(is_invisible, "");
        text.replace(char::is_whitespace, " ")
    };
    if look(&old) != look(&new) {
        return [old, new];
    }
    [old, new].map(|text| text.map(escape_special_spaces))
}

/// The elements that differ.
fn changed_elements(old: &[Value], new: &[Value]) -> Vec<String> {
    let [old, new] = [old, new].map(|list| list.iter().map(shown_value).collect::<Vec<_>>());
    let [old, new] = [&old, &new].map(|list| list.iter().map(String::as_str).collect::<Vec<_>>());
    let diff = TextDiff::from_slices(&old, &new);
    let lines: Vec<String> = diff
        .iter_all_changes()
        .filter(|element| element.tag() != ChangeTag::Equal)
        .map(|element| line(element.tag(), element.value()))
        .collect();
    if lines.is_empty() {
        return vec!["    (an element differs after its beginning)".to_owned()];
    }
    lines
}

fn line(tag: ChangeTag, text: &str) -> String {
    match tag {
        ChangeTag::Delete => paint(BAD, &format!("    - {text}")),
        ChangeTag::Insert => paint(GOOD, &format!("    + {text}")),
        ChangeTag::Equal => format!("      {text}"),
    }
}

/// A text with its changed words marked, and some of it around them.
fn marked_text(old: &str, new: &str) -> String {
    let diff = TextDiff::configure()
        .timeout(DIFF_TIMEOUT)
        .diff_words(old, new);
    let mut parts: Vec<(ChangeTag, String)> = Vec::new();
    for change in diff.iter_all_changes() {
        match parts.last_mut() {
            Some((tag, text)) if *tag == change.tag() => text.push_str(change.value()),
            _ => parts.push((change.tag(), change.value().to_owned())),
        }
    }
    let last = parts.len().saturating_sub(1);
    let shown = parts
        .iter()
        .enumerate()
        .map(|(number, (tag, text))| match tag {
            ChangeTag::Delete => paint(BAD, &format!("[-{}-]", changed_part(text))),
            ChangeTag::Insert => paint(GOOD, &format!("{{+{}+}}", changed_part(text))),
            ChangeTag::Equal => one_line(&around(text, number == 0, number == last)),
        });
    shown.collect()
}

fn changed_part(text: &str) -> String {
    escape_special_spaces(one_line(&beginning(text.to_owned())))
}

/// The ends of a text between changes that are near them.
fn around(text: &str, is_first: bool, is_last: bool) -> String {
    let count = text.chars().count();
    if count <= 2 * CONTEXT_CHARS {
        return text.to_owned();
    }
    let beginning: String = text.chars().take(CONTEXT_CHARS).collect();
    let end: String = text.chars().skip(count - CONTEXT_CHARS).collect();
    match (is_first, is_last) {
        (true, _) => format!("…{end}"),
        (_, true) => format!("{beginning}…"),
        (false, false) => format!("{beginning}…{end}"),
    }
}

fn one_line(text: &str) -> String {
    sanitize(&text.replace('\n', "⏎")).into_owned()
}

/// A value as JSON, of which only the beginning is shown if it is long.
fn shown_value(value: &Value) -> String {
    beginning(escape_invisible(compact_json(value)))
}

fn beginning(text: String) -> String {
    match text.char_indices().nth(MAX_VALUE_CHARS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

//! The JSON folder: the format of import, export and backup.
//!
//! Knows files and the form of documents; not what happens to them.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use crate::domain::{DocumentKey, Kind, StoredEntry, check_depth, is_slug, text::truncate};

/// What a folder holds.
#[derive(Debug)]
pub struct Folder {
    /// The documents, each under its id, in the order of the files.
    pub documents: Vec<(DocumentKey, Map<String, Value>)>,
    /// The entries of an audit log, oldest first or as they come.
    pub entries: Vec<StoredEntry>,
}

/// Why a folder cannot be taken in: every problem, each with its place.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct FolderError(pub Vec<String>);

impl Folder {
    /// Reads the folder whole, before anything is done with it.
    ///
    /// # Errors
    /// Every file that is not what it should be, and every missing, duplicate or non-slug id.
    pub fn read(path: &Path) -> Result<Self, FolderError> {
        if path.is_file() {
            return Err(FolderError(vec![format!(
                "{} is a file; name the folder that holds it",
                path.display()
            )]));
        }
        let mut problems = Vec::new();
        let (mut documents, mut found_any) = (Vec::new(), false);
        for kind in Kind::ALL {
            let file = path.join(format!("{}.json", kind.plural()));
            if let Some(items) = read_array(&file, &mut problems) {
                found_any = true;
                documents.extend(keyed(kind, &file, items, &mut problems));
            }
        }
        let mut entries = Vec::new();
        let (lines, array) = (path.join("audit.jsonl"), path.join("audit.json"));
        if let Some(text) = read_text(&lines, &mut problems) {
            found_any = true;
            for (number, line) in text
                .lines()
                .enumerate()
                .filter(|(_, line)| !line.trim().is_empty())
            {
                if let Err(too_deep) = check_depth(line.as_bytes()) {
                    problems.push(format!(
                        "{}, line {}: {too_deep}",
                        lines.display(),
                        number + 1
                    ));
                    continue;
                }
                match serde_json::from_str::<Map<String, Value>>(line) {
                    // The line itself, so that hashes of it stay true.
                    Ok(_) => entries.push(StoredEntry::parse(line.to_owned())),
                    Err(_) => problems.push(format!(
                        "{}, line {}: expected a JSON object",
                        lines.display(),
                        number + 1
                    )),
                }
            }
        }
        if let Some(items) = read_array(&array, &mut problems) {
            found_any = true;
            for (index, item) in items.into_iter().enumerate() {
                match item {
                    Value::Object(_) => entries.push(StoredEntry::parse(item.to_string())),
                    _ => problems.push(format!(
                        "{}, entry {}: expected a JSON object",
                        array.display(),
                        index + 1
                    )),
                }
            }
        }
        if !found_any && problems.is_empty() {
            problems.push(format!(
                "{} holds none of projects.json, resources.json, audit.jsonl and audit.json",
                path.display()
            ));
        }
        if problems.is_empty() {
            Ok(Self { documents, entries })
        } else {
            Err(FolderError(problems))
        }
    }
}

/// The documents of a file under their ids.
fn keyed(
    kind: Kind,
    file: &Path,
    items: Vec<Value>,
    problems: &mut Vec<String>,
) -> Vec<(DocumentKey, Map<String, Value>)> {
    let (mut documents, mut seen) = (Vec::new(), HashSet::new());
    for (index, item) in items.into_iter().enumerate() {
        let place = format!("{}, {kind} {}", file.display(), index + 1);
        let Value::Object(document) = item else {
            problems.push(format!("{place}: expected a JSON object"));
            continue;
        };
        match document.get("id") {
            None => problems.push(format!("{place}: `id` is missing")),
            Some(Value::String(id)) if !is_slug(id) => problems.push(format!(
                "{place}: the id `{}` is not a slug: lower-case words joined by hyphens, with a letter, such as `rdv-artisan`",
                truncate(id)
            )),
            Some(Value::String(id)) => {
                if seen.insert(id.clone()) {
                    documents.push((DocumentKey::new(kind, id.clone()), document));
                } else {
                    problems.push(format!("{place}: the id `{}` is there twice", truncate(id)));
                }
            }
            Some(_) => problems.push(format!("{place}: `id` is not a text")),
        }
    }
    documents
}

fn read_array(file: &PathBuf, problems: &mut Vec<String>) -> Option<Vec<Value>> {
    let text = read_text(file, problems)?;
    if let Err(too_deep) = check_depth(text.as_bytes()) {
        problems.push(format!("{}: {too_deep}", file.display()));
        return None;
    }
    match serde_json::from_str(&text) {
        Ok(Value::Array(items)) => Some(items),
        Ok(_) => {
            problems.push(format!("{}: expected a JSON array", file.display()));
            None
        }
        Err(error) => {
            problems.push(format!("{}: not JSON: {error}", file.display()));
            None
        }
    }
}

/// The text of a file, or `None` where there is none.
fn read_text(file: &PathBuf, problems: &mut Vec<String>) -> Option<String> {
    match fs::read_to_string(file) {
        Ok(text) => Some(
            text.strip_prefix('\u{feff}')
                .map(ToOwned::to_owned)
                .unwrap_or(text),
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            problems.push(format!("{}: cannot be read: {error}", file.display()));
            None
        }
    }
}

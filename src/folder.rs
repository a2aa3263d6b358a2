//! The JSON folder: the format of import, export and backup.
//!
//! Knows files and the form of documents, but not what happens to them.

use std::{collections::HashSet, fs, io, path::Path};

use serde_json::{Map, Value};

use crate::domain::{DocumentKey, Kind, StoredEntry, check_depth, is_slug, text::truncate};

/// The content of a folder.
#[derive(Debug)]
pub struct Folder {
    /// The documents with their keys, in the order of the files.
    pub documents: Vec<(DocumentKey, Map<String, Value>)>,
    /// The audit entries, in the order of the files.
    pub entries: Vec<StoredEntry>,
}

/// Everything that is wrong with a folder.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct FolderError(pub Vec<String>);

impl Folder {
    /// Reads the whole folder.
    ///
    /// # Errors
    /// Every file that cannot be read or has another form, and every missing, duplicate or invalid
    /// id.
    pub fn read(path: &Path) -> Result<Self, FolderError> {
        let name = path.to_string_lossy();
        if name.contains("://") && !path.exists() {
            return Err(FolderError(vec![
                "expected a folder and found a URL; name the folder that contains the JSON files, and the store with --store".to_owned(),
            ]));
        }
        if path.is_file() {
            return Err(FolderError(vec![format!(
                "{} is a file; expected the folder that contains it",
                path.display()
            )]));
        }
        let mut reader = Reader::default();
        let mut documents = Vec::new();
        for kind in Kind::ALL {
            documents.extend(reader.documents(kind, &path.join(format!("{}.json", kind.plural()))));
        }
        let mut entries = reader.entry_lines(&path.join("audit.jsonl"));
        entries.extend(reader.entry_array(&path.join("audit.json")));
        if !reader.found_any && reader.problems.is_empty() {
            reader.problems.push(format!(
                "{} contains none of projects.json, resources.json, audit.jsonl and audit.json",
                path.display()
            ));
        }
        if reader.problems.is_empty() {
            Ok(Self { documents, entries })
        } else {
            Err(FolderError(reader.problems))
        }
    }
}

/// Reads files, and collects everything that is wrong with them.
#[derive(Default)]
struct Reader {
    /// Whether there was at least one of the files.
    found_any: bool,
    problems: Vec<String>,
}

impl Reader {
    fn documents(&mut self, kind: Kind, file: &Path) -> Vec<(DocumentKey, Map<String, Value>)> {
        let (mut documents, mut ids) = (Vec::new(), HashSet::new());
        for (item, number) in self.array(file).into_iter().zip(1_usize..) {
            let problem = match with_key(kind, item) {
                Ok((key, _)) if ids.contains(&key.id) => {
                    format!("duplicate id `{}`", truncate(&key.id))
                }
                Ok((key, document)) => {
                    ids.insert(key.id.clone());
                    documents.push((key, document));
                    continue;
                }
                Err(problem) => problem,
            };
            self.problems
                .push(format!("{}, {kind} {number}: {problem}", file.display()));
        }
        documents
    }

    /// Audit entries, one JSON object per line.
    fn entry_lines(&mut self, file: &Path) -> Vec<StoredEntry> {
        let text = self.text(file).unwrap_or_default();
        let mut entries = Vec::new();
        for (line, number) in text.lines().zip(1_usize..) {
            if line.trim().is_empty() {
                continue;
            }
            match parse_object(line) {
                // The line itself, so that hashes of it stay valid.
                Ok(_) => entries.push(StoredEntry::parse(line.to_owned())),
                Err(problem) => self
                    .problems
                    .push(format!("{}, line {number}: {problem}", file.display())),
            }
        }
        entries
    }

    /// Audit entries as older programs left them: one JSON array.
    fn entry_array(&mut self, file: &Path) -> Vec<StoredEntry> {
        let mut entries = Vec::new();
        for (item, number) in self.array(file).into_iter().zip(1_usize..) {
            if item.is_object() {
                entries.push(StoredEntry::parse(item.to_string()));
            } else {
                self.problems.push(format!(
                    "{}, entry {number}: expected a JSON object",
                    file.display()
                ));
            }
        }
        entries
    }

    fn array(&mut self, file: &Path) -> Vec<Value> {
        let Some(text) = self.text(file) else {
            return Vec::new();
        };
        parse_array(&text).unwrap_or_else(|problem| {
            self.problems.push(format!("{}: {problem}", file.display()));
            Vec::new()
        })
    }

    /// The text of a file; `None` if there is no such file.
    fn text(&mut self, file: &Path) -> Option<String> {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                self.problems
                    .push(format!("{}: cannot be read: {error}", file.display()));
                return None;
            }
        };
        self.found_any = true;
        match text.strip_prefix('\u{feff}') {
            Some(without_mark) => Some(without_mark.to_owned()),
            None => Some(text),
        }
    }
}

/// A document and its key, or why it has none.
fn with_key(kind: Kind, item: Value) -> Result<(DocumentKey, Map<String, Value>), String> {
    let Value::Object(document) = item else {
        return Err("expected a JSON object".to_owned());
    };
    match document.get("id") {
        None => Err("`id` is missing".to_owned()),
        Some(Value::String(id)) if is_slug(id) => {
            Ok((DocumentKey::new(kind, id.clone()), document))
        }
        Some(Value::String(id)) => Err(format!(
            "the id `{}` is not a slug; expected lower-case words joined by hyphens, with at least one letter, such as `rdv-artisan`",
            truncate(id)
        )),
        Some(_) => Err("`id` is not a string".to_owned()),
    }
}

fn parse_array(text: &str) -> Result<Vec<Value>, String> {
    check_depth(text.as_bytes()).map_err(|too_deep| too_deep.to_string())?;
    match serde_json::from_str(text) {
        Ok(Value::Array(items)) => Ok(items),
        Ok(_) => Err("expected a JSON array".to_owned()),
        Err(error) => Err(format!("not JSON: {error}")),
    }
}

fn parse_object(line: &str) -> Result<Map<String, Value>, String> {
    check_depth(line.as_bytes()).map_err(|too_deep| too_deep.to_string())?;
    serde_json::from_str(line).map_err(|_| "expected a JSON object".to_owned())
}

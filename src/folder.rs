//! The JSON folder: the format of import, export and backup.
//!
//! Knows files and the form of documents, but not what happens to them.

use std::{collections::HashSet, fs, io, path::Path};

use serde_json::{Map, Value};

use crate::domain::{
    DocumentKey, Kind, StoredEntry, check_depth,
    content_type::rules,
    is_slug,
    json::{Repairs, parse, parse_object, type_name},
    text::{sanitize, truncate},
};

mod problems;
mod text;

use problems::Problems;

/// Other names under which programs keep what is `id` here.
const ID_NAMES: [&str; 6] = ["slug", "_id", "ID", "Id", "key", "uid"];

/// When this many required fields are missing in every document, it is not about single fields.
const MIN_MISSING_FIELDS: usize = 3;

/// The content of a folder.
#[derive(Debug)]
pub struct Folder {
    /// The documents with their keys, in the order of the files.
    pub documents: Vec<(DocumentKey, Map<String, Value>)>,
    /// The audit entries, in the order of the files.
    pub entries: Vec<StoredEntry>,
    /// What was read differently from how it stands in the files.
    pub remarks: Vec<String>,
    /// Kinds of which no document looks like one.
    pub misshapen: Vec<Misshapen>,
}

/// Documents that all lack the same required fields.
#[derive(Debug)]
pub struct Misshapen {
    /// What they should be.
    pub kind: Kind,
    /// How many there are.
    pub count: usize,
    /// How many documents there are in all.
    total: usize,
    /// The fields.
    pub missing: Vec<String>,
}

impl Misshapen {
    /// Most of the documents, if they lack the same fields.
    fn find(kind: Kind, documents: &[Map<String, Value>]) -> Option<Self> {
        let missing_in = |document: &Map<String, Value>| -> Vec<&str> {
            let required = rules(kind).required_fields();
            required
                .filter(|name| !document.contains_key(*name))
                .collect()
        };
        let lacking = documents.iter().map(missing_in);
        let mut lacking = lacking.filter(|missing| missing.len() >= MIN_MISSING_FIELDS);
        let (mut missing, mut count) = (lacking.next()?, 1);
        for other in lacking {
            missing.retain(|name| other.contains(name));
            count += 1;
        }
        let is_clear =
            count > 1 && count * 2 > documents.len() && missing.len() >= MIN_MISSING_FIELDS;
        is_clear.then(|| Self {
            kind,
            count,
            total: documents.len(),
            missing: missing.into_iter().map(ToOwned::to_owned).collect(),
        })
    }

    /// One line about it.
    #[must_use]
    pub fn summary(&self) -> String {
        let Self { count, total, .. } = self;
        let (plural, missing) = (self.kind.plural(), self.missing.join(", "));
        let what = match self.kind {
            Kind::Project => "case studies",
            Kind::Resource => "downloadable goods",
        };
        if count == total {
            format!("none of the {total} {plural} has {missing}: these do not look like {what}")
        } else {
            format!(
                "{count} of the {total} {plural} have none of {missing}: those do not look like {what}"
            )
        }
    }
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
    /// id; equal causes once.
    pub fn read(path: &Path) -> Result<Self, FolderError> {
        check_path(path).map_err(|problem| FolderError(vec![problem]))?;
        let mut reader = Reader::default();
        let mut documents = Vec::new();
        for kind in Kind::ALL {
            documents.extend(reader.documents(kind, &path.join(format!("{}.json", kind.plural()))));
        }
        let mut entries = reader.entry_lines(&path.join("audit.jsonl"));
        entries.extend(reader.entry_array(&path.join("audit.json")));
        if !reader.found_any && reader.problems.is_empty() {
            reader.problems.add_file(
                path,
                "contains none of projects.json, resources.json, audit.jsonl and audit.json",
            );
        }
        if reader.problems.is_empty() {
            return Ok(Self {
                documents,
                entries,
                remarks: reader.remarks.lines(),
                misshapen: reader.misshapen,
            });
        }
        let shapes = reader.misshapen.iter().map(Misshapen::summary);
        Err(FolderError(shapes.chain(reader.problems.lines()).collect()))
    }
}

/// Checks that there is a folder.
fn check_path(path: &Path) -> Result<(), String> {
    let name = path.to_string_lossy();
    if path.is_dir() {
        return Ok(());
    }
    if path.exists() {
        return Err(format!(
            "{} is a file; expected the folder that contains it",
            path.display()
        ));
    }
    if name.contains("://") {
        return Err(
            "expected a folder and found a URL; name the folder that contains the JSON files, and the store with --store".to_owned(),
        );
    }
    Err(format!("the folder {} does not exist", path.display()))
}

/// Reads files, and collects everything that is wrong with them.
#[derive(Default)]
struct Reader {
    /// Whether there was at least one of the files.
    found_any: bool,
    problems: Problems,
    remarks: Problems,
    misshapen: Vec<Misshapen>,
}

impl Reader {
    fn documents(&mut self, kind: Kind, file: &Path) -> Vec<(DocumentKey, Map<String, Value>)> {
        let (mut read, mut ids) = (Vec::new(), HashSet::new());
        let mut objects = Vec::new();
        for (item, number) in self.array(file, kind.plural()).into_iter().zip(1_usize..) {
            let what = kind.singular();
            let Some(document) = self.object(file, what, number, item) else {
                continue;
            };
            match key_of(kind, &document) {
                Ok(key) if ids.insert(key.id.clone()) => read.push((key, document.clone())),
                Ok(key) => {
                    let label = label(number, &key.id);
                    self.problems.add(file, what, "duplicate id", label);
                }
                Err((problem, shown)) => {
                    self.problems
                        .add(file, what, &problem, label(number, &shown));
                }
            }
            objects.push(document);
        }
        self.misshapen.extend(Misshapen::find(kind, &objects));
        read
    }

    /// Audit entries, one JSON object per line.
    fn entry_lines(&mut self, file: &Path) -> Vec<StoredEntry> {
        let text = self.text(file).unwrap_or_default();
        let mut entries = Vec::new();
        for (line, number) in text.lines().zip(1_usize..) {
            if line.trim().is_empty() {
                continue;
            }
            match check_depth(line.as_bytes())
                .map_err(|too_deep| too_deep.to_string())
                .and_then(|()| parse_object(line))
            {
                // The line itself, so that hashes of it stay valid.
                Ok(_) => entries.push(StoredEntry::parse(line.to_owned())),
                Err(problem) => {
                    self.problems
                        .add(file, "line", &problem, number.to_string());
                }
            }
        }
        entries
    }

    /// Audit entries as older programs left them: one JSON array.
    fn entry_array(&mut self, file: &Path) -> Vec<StoredEntry> {
        let mut entries = Vec::new();
        for (item, number) in self.array(file, "entries").into_iter().zip(1_usize..) {
            if let Some(entry) = self.object(file, "entry", number, item) {
                entries.push(StoredEntry::parse(Value::Object(entry).to_string()));
            }
        }
        entries
    }

    /// The object that is an item of an array, also if it was encoded twice.
    fn object(
        &mut self,
        file: &Path,
        what: &'static str,
        number: usize,
        item: Value,
    ) -> Option<Map<String, Value>> {
        let found = match item {
            Value::Object(object) => return Some(object),
            Value::String(text) => match parse_object(&text) {
                Ok((object, repairs)) => {
                    self.remark_halves(file, &format!("at [{}].", number - 1), &repairs);
                    let remark =
                        "was a JSON string that holds the object, and was read as the object";
                    self.remarks.add(file, what, remark, number.to_string());
                    return Some(object);
                }
                Err(_) => "a string",
            },
            other => type_name(&other),
        };
        let problem = format!("expected a JSON object, found {found}");
        self.problems.add(file, what, &problem, number.to_string());
        None
    }

    fn array(&mut self, file: &Path, name: &str) -> Vec<Value> {
        let Some(text) = self.text(file) else {
            return Vec::new();
        };
        match parse_array(&text, name) {
            Ok((items, repairs)) => {
                self.remark_halves(file, "at ", &repairs);
                items
            }
            Err(problem) => {
                self.problems.add_file(file, &problem);
                Vec::new()
            }
        }
    }

    /// Remarks where characters could not be read; `before` begins each path.
    fn remark_halves(&mut self, file: &Path, before: &str, repairs: &Repairs) {
        for half in repairs.halves() {
            let path = format!("{before}{}", truncate(half));
            let remark =
                "half of a character (an unpaired surrogate such as `\\ud83d`) was read as U+FFFD";
            self.remarks.add(file, "string", remark, path);
        }
    }

    /// The text of a file; `None` if there is no such file, or no text in it.
    fn text(&mut self, file: &Path) -> Option<String> {
        let bytes = match fs::read(file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                self.problems
                    .add_file(file, &format!("cannot be read: {error}"));
                return None;
            }
        };
        self.found_any = true;
        text::decode(bytes)
            .map_err(|problem| self.problems.add_file(file, &problem))
            .ok()
    }
}

/// How an item is named: its number, and what a person knows it by.
fn label(number: usize, name: &str) -> String {
    match name {
        "" => number.to_string(),
        name => format!("{number} “{}”", truncate(name)),
    }
}

/// The key of a document; or why it has none, and what it is known by.
fn key_of(kind: Kind, document: &Map<String, Value>) -> Result<DocumentKey, (String, String)> {
    let title = || {
        let names = ["title", "name"].iter().chain(&ID_NAMES);
        let mut names = names.filter_map(|name| document.get(*name)?.as_str());
        names.next().unwrap_or_default().to_owned()
    };
    match document.get("id") {
        None => {
            let other = ID_NAMES.iter().find(|name| document.contains_key(**name));
            let hint = other.map_or_else(String::new, |name| {
                format!(", but there is `{name}`: name it `id`")
            });
            Err((format!("`id` is missing{hint}"), title()))
        }
        Some(Value::String(id)) if is_slug(id) => Ok(DocumentKey::new(kind, id.clone())),
        Some(Value::String(id)) => Err((
            "the id is not a slug; expected lower-case words joined by hyphens, with at least one letter and not a number, such as `rdv-artisan`".to_owned(),
            sanitize(id).into_owned(),
        )),
        Some(other) => Err((
            format!("`id` is not a string, but {}", type_name(other)),
            title(),
        )),
    }
}

fn parse_array(text: &str, name: &str) -> Result<(Vec<Value>, Repairs), String> {
    if text.trim().is_empty() {
        return Err(
            "the file is empty; expected a JSON array, `[]` if there is nothing".to_owned(),
        );
    }
    check_depth(text.as_bytes()).map_err(|too_deep| too_deep.to_string())?;
    match parse(text) {
        Ok((Value::Array(items), repairs)) => Ok((items, repairs)),
        // A list that was encoded twice, or what stands in its place.
        Ok((Value::String(encoded), _)) if encoded.trim_start().starts_with(['[', '{']) => {
            parse_array(&encoded, name)
        }
        Ok((other, _)) => Err(text::not_an_array(&other, name)),
        Err(error) => Err(text::not_json(text, &error)),
    }
}

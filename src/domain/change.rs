//! The only thing that a store can be asked to write.

use serde_json::{Map, Value, json};

use super::{
    audit::{Action, AuditEntry, EntryMetadata, Origin},
    content_type::rules,
    diff::{self, FieldChange},
    kind::DocumentKey,
    operation::Operation,
    patch,
    record::Record,
    rules::{MAX_BYTES, is_owned},
    text::compact_json,
    timestamp::Timestamp,
    version::sha256_hex,
    violation::Violation,
};

/// So many bytes of an entry tell it from every other: its number, its time and its id.
const ENTRY_BEGINNING: usize = 106;

/// What older programs derived from `metadata`, at the top level.
const DERIVED: [&str; 3] = ["published", "createdAt", "updatedAt"];

/// What is known of a write besides its content.
#[derive(Debug, Clone)]
pub struct WriteContext {
    /// Who, how and why.
    pub origin: Origin,
    /// Its name.
    pub operation: Operation,
    /// The id of its audit entry.
    pub entry_id: String,
    /// The time, as the process sees it.
    pub now: Timestamp,
}

/// What came of a patch.
#[derive(Debug)]
pub enum Update {
    /// The document is already as the patch wants it.
    Nothing,
    /// A change, with the broken rules that it found and leaves.
    Change(Box<Change>, Vec<Violation>),
}

/// One write, whole: the new document and the audit entry that explains it.
///
/// The fields are private and every constructor is in this file, so a document cannot reach a store without its entry,
/// and the entry cannot lie: it is the difference between the two documents it was made from.
///
/// ```compile_fail
/// use portfolio_mcp::domain::{Change, DocumentKey, Kind, Record};
/// let record = Record::parse(DocumentKey::new(Kind::Project, "x"), "{}".to_owned()).unwrap();
/// let forged = Change { expected: None, next: record };
/// ```
#[must_use = "a change does nothing until a repository commits it"]
#[derive(Debug, Clone)]
pub struct Change {
    expected: Option<Record>,
    next: Record,
    entry: AuditEntry,
    time: Timestamp,
}

impl Change {
    /// The change that `patch` makes to `current`.
    ///
    /// # Errors
    /// Every rule that the change breaks, not what was broken before.
    pub fn update(
        current: &Record,
        patch: &Map<String, Value>,
        write_context: WriteContext,
    ) -> Result<Update, Vec<Violation>> {
        let bytes = compact_json(patch).len();
        if bytes > MAX_BYTES {
            let message = format!(
                "expected at most {MAX_BYTES} bytes of JSON, as for a whole document, found {bytes}"
            );
            return Err(vec![Violation::new("data", "size", message)]);
        }
        let mut refused = rules(current.key().kind).unknown_fields(patch, current.document());
        let mut document = patch::merge(
            current.document(),
            &rules(current.key().kind).pruned(patch, current.document()),
        );
        if refused.is_empty()
            && patch
                .keys()
                .all(|name| document.get(name) == current.document().get(name))
        {
            return Ok(Update::Nothing);
        }
        touch(&mut document, write_context.now);
        // Comparing the rest would cost more than all that is compared here.
        let may_differ =
            |name: &str| patch.contains_key(name) || name == "metadata" || DERIVED.contains(&name);
        let changes = diff::diff_among(current.document(), &document, may_differ);
        debug_assert_eq!(changes, diff::diff(current.document(), &document));
        let next = Record::of(current.key().clone(), document);

        let mut left = Vec::new();
        if !next.violations().is_empty() {
            let (before, named) = (current.violations(), patch::paths_set(patch));
            for mut violation in next.violations().iter().cloned() {
                let named = named.iter().any(|path| at_or_below(&violation.path, path));
                if named && violation.rule == "required" {
                    "required, so `null` cannot remove it".clone_into(&mut violation.message);
                }
                let new = !before.iter().any(|old| old.same_as(&violation));
                if (named || new) && !is_owned(&violation.path) {
                    refused.push(violation);
                } else {
                    left.push(violation);
                }
            }
        }
        if !refused.is_empty() {
            return Err(refused);
        }
        Ok(Update::Change(
            Box::new(Self::new(Some(current), next, changes, write_context)),
            left,
        ))
    }

    /// The change that stores `document`, as it is, where there is none.
    pub fn create(
        key: DocumentKey,
        document: Map<String, Value>,
        write_context: WriteContext,
    ) -> Self {
        let changes = diff::creation(&document);
        Self::new(None, Record::of(key, document), changes, write_context)
    }

    /// The change that stores `document`, as it is, in the place of `current`; `None` when they are equal.
    ///
    /// The order of members stays that of `current`, so that replaying the log gives the stored bytes.
    #[must_use]
    pub fn replace(
        current: &Record,
        document: &Map<String, Value>,
        write_context: WriteContext,
    ) -> Option<Self> {
        let changes = diff::diff(current.document(), document);
        if changes.is_empty() {
            return None;
        }
        let next = Record::of(
            current.key().clone(),
            diff::apply(current.document().clone(), &changes),
        );
        Some(Self::new(Some(current), next, changes, write_context))
    }

    fn new(
        current: Option<&Record>,
        next: Record,
        changes: Vec<FieldChange>,
        write_context: WriteContext,
    ) -> Self {
        let entry = AuditEntry {
            id: write_context.entry_id,
            action: if current.is_some() {
                Action::Update
            } else {
                Action::Create
            },
            entity_type: next.key().kind,
            entity_id: next.key().id.clone(),
            source: write_context.origin.source,
            changes,
            metadata: EntryMetadata {
                origin: write_context.origin,
                operation: write_context.operation.fingerprint().to_owned(),
                version_before: current.map(|current| current.version().clone()),
                version_after: next.version().clone(),
                checksum: next.checksum().to_owned(),
                previous: current
                    .and_then(Record::latest_entry)
                    .map(|entry| sha256_hex(entry.as_bytes())),
            },
        };
        Self {
            expected: current.cloned(),
            next,
            entry,
            time: write_context.now,
        }
    }

    /// Where the document is.
    #[must_use]
    pub fn key(&self) -> &DocumentKey {
        self.next.key()
    }

    /// The stored text that the change was made from; `None` where the document must not exist yet.
    #[must_use]
    pub fn expected_text(&self) -> Option<&str> {
        self.expected.as_ref().map(Record::text)
    }

    /// How the document's newest audit entry began when the change was made.
    #[must_use]
    pub fn expected_entry_prefix(&self) -> Option<&str> {
        let entry = self.expected.as_ref()?.latest_entry()?;
        Some(entry.get(..ENTRY_BEGINNING).unwrap_or(entry))
    }

    /// The document as it will be.
    #[must_use]
    pub fn next(&self) -> &Record {
        &self.next
    }

    /// The text to store.
    #[must_use]
    pub fn text(&self) -> &str {
        self.next.text()
    }

    /// The entry that explains the change.
    #[must_use]
    pub fn entry(&self) -> &AuditEntry {
        &self.entry
    }

    /// When the change was made, as the process sees it; a store whose own clock is shared may record another time.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// The stored text of the entry without its beginning, which the store's transaction puts before it.
    #[must_use]
    pub fn entry_rest(&self) -> String {
        let text = compact_json(&self.entry);
        text.strip_prefix('{').unwrap_or(&text).to_owned()
    }
}

/// Sets what the server owns: the time of the change, and the fields that older programs derived at the top level.
fn touch(document: &mut Map<String, Value>, now: Timestamp) {
    let Some(Value::Object(metadata)) = document.get_mut("metadata") else {
        return;
    };
    let previous = metadata
        .get("updatedAt")
        .and_then(Value::as_str)
        .and_then(Timestamp::parse);
    metadata.insert(
        "updatedAt".to_owned(),
        json!(now.after(previous).to_string()),
    );

    let published = json!(metadata.get("status").and_then(Value::as_str) == Some("published"));
    let derived = DERIVED.map(|name| {
        (
            name,
            if name == "published" {
                Some(published.clone())
            } else {
                metadata.get(name).cloned()
            },
        )
    });
    for (name, value) in derived {
        if let (Some(member), Some(value)) = (document.get_mut(name), value) {
            *member = value;
        }
    }
}

fn at_or_below(path: &str, named: &str) -> bool {
    path.strip_prefix(named)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Kind, Source};

    fn write_context() -> WriteContext {
        let operation = Operation::once("key", json!({}));
        WriteContext {
            origin: Origin::new(Source::Mcp),
            operation,
            entry_id: "entry".to_owned(),
            now: Timestamp::from_millis(1),
        }
    }

    fn record(document: &Value) -> Record {
        Record::parse(DocumentKey::new(Kind::Project, "a"), document.to_string()).unwrap()
    }

    fn object(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn update(document: &Value, patch: &Value) -> Result<Update, Vec<Violation>> {
        Change::update(
            &record(document),
            patch.as_object().unwrap(),
            write_context(),
        )
    }

    #[test]
    fn what_is_sent_back_as_it_is_stored_changes_nothing_even_where_it_is_null() {
        let document = json!({"id":"a","legacy":null,"extra":{"x":null,"y":1},"solution":{"codename":null},"metadata":{"updatedAt":"x"}});

        assert!(matches!(update(&document, &document), Ok(Update::Nothing)));
    }

    #[test]
    fn a_stored_null_for_an_optional_field_can_be_removed() {
        let document = json!({"id":"a","solution":{"videoUrl":null,"demoLink":"/x"}});

        let Ok(Update::Change(change, _)) =
            update(&document, &json!({"solution":{"videoUrl":null}}))
        else {
            panic!("no change")
        };

        assert_eq!(change.text(), r#"{"id":"a","solution":{"demoLink":"/x"}}"#);
    }

    #[test]
    fn a_change_is_refused_for_what_it_breaks_and_not_for_what_was_broken() {
        let document = json!({"id":"a","title":"","tags":[""],"client":"nobody"});

        let Ok(Update::Change(_, left)) = update(&document, &json!({"result":"better"})) else {
            panic!("refused")
        };
        let Err(refused) = update(&document, &json!({"tags":["",""],"client":{"size":"3"}})) else {
            panic!("accepted")
        };

        assert!(left.iter().any(|violation| violation.path == "title"));
        let mut paths: Vec<&str> = refused
            .iter()
            .map(|violation| violation.path.as_str())
            .collect();
        paths.sort_unstable();
        assert_eq!(
            paths,
            ["client.objective", "client.type", "tags[0]", "tags[1]"]
        );
    }

    #[test]
    fn the_beginning_that_is_compared_ends_with_the_id_of_the_entry() {
        let entry_id = "0".repeat(36);
        let write_context = WriteContext {
            entry_id: entry_id.clone(),
            ..write_context()
        };
        let document = object(&json!({"id":"a"}));
        let created = Change::create(
            DocumentKey::new(Kind::Project, "a"),
            document,
            write_context.clone(),
        );
        let entry = crate::domain::audit::entry_text(
            u64::MAX >> 11,
            write_context.now,
            &created.entry_rest(),
        );
        let stored = created.next().clone().with_latest_entry(Some(entry));

        let Some(changed) = Change::replace(&stored, &object(&json!({"id":"b"})), write_context)
        else {
            panic!("no change")
        };

        let beginning = changed.expected_entry_prefix().unwrap();
        assert!(
            beginning.ends_with(&format!("\"id\":\"{entry_id}\"")),
            "{beginning}"
        );
    }

    #[test]
    fn a_huge_patch_is_refused_before_it_is_checked() {
        let Err(refused) = update(&json!({"id":"a"}), &json!({"tags": vec![""; 150_000]})) else {
            panic!("accepted")
        };

        assert_eq!(
            (
                refused.len(),
                refused.first().map(|violation| violation.path.as_str())
            ),
            (1, Some("data"))
        );
    }

    #[test]
    fn the_fields_of_older_programs_stay_in_step() {
        let document = json!({"published":false,"updatedAt":"old","createdAt":"another","metadata":{"status":"draft","createdAt":"2020-01-01T00:00:00Z","updatedAt":"2020-01-01T00:00:00Z","featured":false}});

        let Ok(Update::Change(change, _)) =
            update(&document, &json!({"metadata":{"status":"published"}}))
        else {
            panic!("refused")
        };

        let next = change.next().document();
        assert_eq!(next.get("published"), Some(&json!(true)));
        for time in ["createdAt", "updatedAt"] {
            assert_eq!(
                next.get(time),
                next.get("metadata").and_then(|metadata| metadata.get(time))
            );
        }
        let recorded: Vec<&str> = change
            .entry()
            .changes
            .iter()
            .map(|change| change.field.as_str())
            .collect();
        assert_eq!(
            recorded,
            [
                "published",
                "updatedAt",
                "createdAt",
                "metadata.status",
                "metadata.updatedAt"
            ]
        );
    }
}

//! The only thing that a store can be asked to write.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::{
    audit::{
        Action, AuditEntry, ENTRY_PREFIX_LEN, EntryMetadata, Origin, PlanReference, StoredEntry,
    },
    content_type::rules,
    creation::new_record,
    current::Current,
    depth::check_depth,
    diff::{self, FieldChange},
    edit::{self, Edit},
    field_path::{field, field_mut, is_owned},
    kind::DocumentKey,
    last_known::LastKnown,
    number::{canonical_text, is_same, is_same_member},
    operation::Operation,
    patch,
    plan::PlannedDocument,
    record::Record,
    rules::MAX_BYTES,
    text::compact_json,
    timestamp::Timestamp,
    version::{Version, sha256_hex},
    violation::Violation,
};

/// The states of a document, as `metadata.status` names them.
pub(super) const STATUSES: [&str; 3] = ["published", "draft", "archived"];
/// What older programs derived from `metadata`, at the top level.
const DERIVED: [&str; 3] = ["published", "createdAt", "updatedAt"];

/// The surroundings of a write: what its audit entry holds besides the change.
#[derive(Debug, Clone)]
pub struct WriteContext {
    /// Who asked for it, how and why.
    pub origin: Origin,
    /// The operation that it belongs to.
    pub operation: Operation,
    /// The id of its audit entry.
    pub entry_id: String,
    /// The time by the process's clock.
    pub now: Timestamp,
}

/// The result of applying a patch.
#[derive(Debug)]
pub enum Update {
    /// There is no document to change.
    Missing,
    /// The document already is as the patch wants it.
    Unchanged(Record),
    /// A change, with the broken rules that it found and leaves.
    Change(Box<Change>, Vec<Violation>),
}

/// One write, whole: the new document, or its absence, and the audit entry that explains it.
///
/// The fields are private and every constructor is in this file, so a document cannot reach a store
/// without its entry, and the entry cannot lie: it is the difference between the two documents it
/// was made from.
///
/// ```compile_fail,E0451
/// use portfolio_mcp::domain::{Change, Current, DocumentKey, Kind, Record};
/// let record = Record::parse(DocumentKey::new(Kind::Project, "x"), "{}".to_owned()).unwrap();
/// let forged = Change { current: Current::remembered(record.clone(), "".into()), next: Some(record) };
/// ```
///
/// A change cannot be made from a record that was read for display, only from what `get_for_update`
/// returns:
///
/// ```compile_fail,E0308
/// use portfolio_mcp::domain::{Change, DocumentKey, Kind, Record, WriteContext};
/// fn change(shown: &Record, context: WriteContext) {
///     let _ = Change::update(shown, &serde_json::Map::new(), &[], context);
/// }
/// ```
#[must_use = "a change does nothing until a repository commits it"]
#[derive(Debug, Clone)]
pub struct Change {
    current: Current,
    next: Option<Record>,
    entry: AuditEntry,
    time: Timestamp,
}

impl Change {
    /// The change that `patch`, and `edits` after it, make to `current`.
    ///
    /// # Errors
    /// Every rule that the change breaks, not what was broken before, and every edit that cannot be
    /// applied.
    pub fn update(
        current: &Current,
        patch: &Map<String, Value>,
        edits: &[Edit],
        context: WriteContext,
    ) -> Result<Update, Vec<Violation>> {
        let Some(record) = current.record() else {
            return Ok(Update::Missing);
        };
        check_size(patch, edits)?;
        let (stored, rules) = (record.document(), rules(record.key().kind));
        if rules.names_nothing(patch) && edits.is_empty() {
            return Ok(Update::Unchanged(record.clone()));
        }
        let mut rejected = rules.unknown_fields(patch, stored);
        let mut data = rules.pruned(patch, stored);
        write_time_of_creation(&mut data);
        let mut document = patch::merge(stored, &data);
        rejected.extend(edit::apply(&mut document, edits, rules));
        keep_equal_fields(&mut document, stored, edits);
        let edited: Vec<&str> = edits.iter().map(Edit::top_level_field).collect();
        let mut named = patch.keys().map(String::as_str).chain(edited.clone());
        if rejected.is_empty()
            && named.all(|name| is_same_member(document.get(name), stored.get(name)))
        {
            return Ok(Update::Unchanged(record.clone()));
        }
        touch(&mut document, context.now);
        // Comparing the other members would cost more than everything else here.
        let may_differ = |name: &str| {
            patch.contains_key(name)
                || edited.contains(&name)
                || name == "metadata"
                || DERIVED.contains(&name)
        };
        let changes = diff::diff_among(stored, &document, may_differ);
        debug_assert_eq!(changes, diff::diff(stored, &document));
        let next = Record::of(record.key().clone(), document);

        let (broken_now, broken_before) = judge(record, &next, patch, edits);
        rejected.extend(broken_now);
        if !rejected.is_empty() {
            return Err(rejected);
        }
        let change = Self::new(current, Action::Update, (Some(next), changes), context);
        Ok(Update::Change(Box::new(change), broken_before))
    }

    /// The change that creates the document from the fields that a caller sends; `None` if there is
    /// one already.
    ///
    /// # Errors
    /// Every rule that the new document breaks, its id included.
    pub fn create(
        current: &Current,
        data: &Map<String, Value>,
        context: WriteContext,
    ) -> Result<Option<Self>, Vec<Violation>> {
        if current.record().is_some() {
            return Ok(None);
        }
        check_size(data, &[])?;
        let record = new_record(current.key(), data, context.now)?;
        let changes = diff::creation(record.document());
        let step = (Some(record), changes);
        Ok(Some(Self::new(current, Action::Create, step, context)))
    }

    /// The change that stores `document` as it is, whether there is one or not; `None` when it is
    /// stored already.
    ///
    /// Where there is one, its order of members stays, so that replaying the log gives the stored
    /// bytes.
    #[must_use]
    pub fn put(
        current: &Current,
        document: &Map<String, Value>,
        context: WriteContext,
    ) -> Option<Self> {
        let action = match current.record() {
            Some(_) => Action::Update,
            None => Action::Create,
        };
        let step = step(current, Some(document))?;
        Some(Self::new(current, action, step, context))
    }

    /// The change that deletes the document; `None` when there is none.
    #[must_use]
    pub fn delete(current: &Current, context: WriteContext) -> Option<Self> {
        let step = step(current, None)?;
        Some(Self::new(current, Action::Delete, step, context))
    }

    /// The change that brings `document`, or its absence, back by undoing the changes of the entries
    /// `reverts`; `None` when everything is as it was already.
    ///
    /// What was there before may come back, whatever rules it breaks.
    ///
    /// # Errors
    /// The limits of every stored document, if the one to bring back is beyond them.
    pub fn revert(
        current: &Current,
        document: Option<&Map<String, Value>>,
        reverts: Vec<String>,
        context: WriteContext,
    ) -> Result<Option<Self>, Vec<Violation>> {
        if step(current, document).is_none() {
            return Ok(None);
        }
        let mut document = document.cloned();
        if let Some(document) = &mut document {
            touch(document, context.now);
        }
        let Some(step) = step(current, document.as_ref()) else {
            return Ok(None);
        };
        if let Some(next) = &step.0 {
            check_limits(current.record(), next)?;
        }
        let mut change = Self::new(current, Action::Revert, step, context);
        change.entry.metadata.reverts = reverts;
        Ok(Some(change))
    }

    /// The change that a plan made, at the time of `context`; `None` if the document is not what the
    /// plan was made from.
    #[must_use]
    pub fn planned(
        current: &Current,
        planned: &PlannedDocument,
        plan: &PlanReference,
        context: WriteContext,
    ) -> Option<Self> {
        if !planned.is_made_from(current) {
            return None;
        }
        let mut document = planned.document();
        let action = match (current.record(), &document) {
            _ if !planned.reverts().is_empty() => Action::Revert,
            (None, _) => Action::Create,
            (Some(_), Some(_)) => Action::Update,
            (Some(_), None) => Action::Delete,
        };
        if let Some(document) = &mut document {
            if action == Action::Create {
                remove_times(document);
            }
            touch(document, context.now);
        }
        let step = step(current, document.as_ref())?;
        let mut change = Self::new(current, action, step, context);
        change.entry.metadata.reverts = planned.reverts().to_vec();
        change.entry.metadata.plan = Some(plan.clone());
        Some(change)
    }

    /// The change that records what was changed outside this server after `known`: the document, or
    /// its absence, stays as it was found. `None` when there is nothing to record.
    #[must_use]
    pub fn adopt(current: &Current, known: &LastKnown, context: WriteContext) -> Option<Self> {
        current.changed_outside()?;
        let newest = StoredEntry::parse(current.latest_entry()?.to_owned());
        let found = current.record();
        let changes = match (known, found) {
            (LastKnown::Document(known), Some(found)) => differences(known, found),
            (LastKnown::Document(known), None) => diff::deletion(known),
            (LastKnown::Absent, Some(found)) => diff::creation(found.document()),
            (LastKnown::Unknown, Some(found)) => vec![diff::whole(None, Some(found.document()))],
            (LastKnown::Absent | LastKnown::Unknown, None) => Vec::new(),
        };
        let step = (found.cloned(), changes);
        let mut change = Self::new(current, Action::Adopt, step, context);
        // Where the log does not say what was before, no entry may seem to lead here.
        change.entry.metadata.version_before = match known {
            LastKnown::Document(_) => newest.checksum().map(Version::of_checksum),
            LastKnown::Absent => None,
            LastKnown::Unknown => found.map(|found| found.version().clone()),
        };
        Some(change)
    }

    fn new(
        current: &Current,
        action: Action,
        (next, changes): Step,
        context: WriteContext,
    ) -> Self {
        let key = current.key();
        let entry = AuditEntry {
            id: context.entry_id,
            action,
            entity_type: key.kind,
            entity_id: key.id.clone(),
            source: context.origin.source,
            changes,
            metadata: EntryMetadata {
                origin: context.origin,
                operation: context.operation.fingerprint().to_owned(),
                plan: None,
                reverts: Vec::new(),
                version_before: current.version().cloned(),
                version_after: next.as_ref().map(|next| next.version().clone()),
                checksum: next.as_ref().map(|next| next.checksum().to_owned()),
                previous: current
                    .latest_entry()
                    .map(|entry| sha256_hex(entry.as_bytes())),
            },
        };
        Self {
            current: current.clone(),
            next,
            entry,
            time: context.now,
        }
    }

    /// What it was made from.
    #[must_use]
    pub fn current(&self) -> &Current {
        &self.current
    }

    /// The same change as a plan keeps it.
    #[must_use]
    pub fn to_planned(&self) -> PlannedDocument {
        PlannedDocument::new(&self.current, self.text(), &self.entry.metadata.reverts)
    }

    /// Which document it changes.
    #[must_use]
    pub fn key(&self) -> &DocumentKey {
        self.current.key()
    }

    /// The stored text that the change was made from; `None` if the document must not exist yet.
    #[must_use]
    pub fn expected_text(&self) -> Option<&str> {
        self.current.record().map(Record::text)
    }

    /// How the document's newest audit entry began when the change was made; `None` if the document
    /// must have none.
    #[must_use]
    pub fn expected_entry_prefix(&self) -> Option<&str> {
        let entry = self.current.latest_entry()?;
        Some(entry.get(..ENTRY_PREFIX_LEN).unwrap_or(entry))
    }

    /// The document as it will be; `None` if it will be deleted.
    #[must_use]
    pub fn next(&self) -> Option<&Record> {
        self.next.as_ref()
    }

    /// The text to store; `None` if the document is to be deleted.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.next.as_ref().map(Record::text)
    }

    /// The entry that explains the change.
    #[must_use]
    pub fn entry(&self) -> &AuditEntry {
        &self.entry
    }

    /// When the change was made, by the process's clock. A store whose own clock is shared may
    /// record another time.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.time
    }
}

/// The document that a change leads to, if it leaves one, and what differs from the one before.
type Step = (Option<Record>, Vec<FieldChange>);

/// The step from the current document to another one, or to none; `None` where nothing differs.
///
/// The order of members stays, so that replaying the log gives the stored bytes.
fn step(current: &Current, document: Option<&Map<String, Value>>) -> Option<Step> {
    let (next, changes) = match (current.record(), document) {
        (None, None) => return None,
        (None, Some(document)) => (Some(document.clone()), diff::creation(document)),
        (Some(record), None) => (None, diff::deletion(record.document())),
        (Some(record), Some(document)) => {
            let changes = diff::diff(record.document(), document);
            if changes.is_empty() {
                return None;
            }
            let next = diff::apply(record.document().clone(), &changes);
            (Some(next), changes)
        }
    };
    let next = next.map(|document| Record::of(current.key().clone(), document));
    Some((next, changes))
}

/// The differences between a document and one that was found; both whole, where the differences do
/// not give what was found with its order of members and its notation of numbers.
fn differences(known: &Map<String, Value>, found: &Record) -> Vec<FieldChange> {
    let changes = diff::diff(known, found.document());
    let reached = diff::apply(known.clone(), &changes);
    if compact_json(&reached) == found.compact() {
        return changes;
    }
    vec![diff::whole(Some(known), Some(found.document()))]
}

/// Neither a patch nor all edits are larger than a whole document may be.
fn check_size(patch: &Map<String, Value>, edits: &[Edit]) -> Result<(), Vec<Violation>> {
    for (name, bytes) in [
        ("data", compact_json(patch).len()),
        ("edits", compact_json(&edits).len()),
    ] {
        if bytes > MAX_BYTES {
            let message = format!(
                "expected at most {MAX_BYTES} bytes of JSON, as for a whole document, found {bytes}"
            );
            return Err(vec![Violation::new(name, "size", message)]);
        }
    }
    Ok(())
}

/// Leaves an edited field as it is stored where the two are equal: no change would record that its
/// numbers are written in another way.
fn keep_equal_fields(
    document: &mut Map<String, Value>,
    stored: &Map<String, Value>,
    edits: &[Edit],
) {
    for edit in edits {
        if let (Some(edited), Some(stored)) = (
            field_mut(document, edit.field()),
            field(stored, edit.field()),
        ) && is_same(edited, stored)
        {
            edited.clone_from(stored);
        }
    }
}

/// A document that is brought back is no larger and no deeper than any other, unless the stored one
/// is too.
fn check_limits(stored: Option<&Record>, next: &Record) -> Result<(), Vec<Violation>> {
    let is_limit = |violation: &Violation| violation.rule == "size";
    if stored.is_some_and(|stored| stored.violations().iter().any(is_limit)) {
        return Ok(());
    }
    let size = next
        .violations()
        .iter()
        .find(|violation| is_limit(violation));
    let depth = check_depth(next.text().as_bytes()).err();
    let depth = depth.map(|depth| Violation::new("", "depth", depth.to_string()));
    match size.cloned().or(depth) {
        Some(violation) => Err(vec![violation]),
        None => Ok(()),
    }
}

/// The violations of `next` that a patch is rejected for, and those that were there before.
fn judge(
    before: &Record,
    next: &Record,
    patch: &Map<String, Value>,
    edits: &[Edit],
) -> (Vec<Violation>, Vec<Violation>) {
    let (mut rejected, mut left) = (Vec::new(), Vec::new());
    if next.violations().is_empty() {
        return (rejected, left);
    }
    let (old, set) = (before.violations(), patch::paths_set(patch));
    let mut moved = MovedElements::of(before, edits);
    for mut violation in next.violations().iter().cloned() {
        let is_set = set.iter().any(|path| at_or_below(&violation.path, path));
        let was_missing =
            violation.rule == "required" && is_within_missing(&violation.path, old, &set);
        if is_set && violation.rule == "required" {
            "required, so `null` cannot remove it; leave it out to keep it"
                .clone_into(&mut violation.message);
        }
        if is_set && let Some(field) = emptied_field(&violation.path, next) {
            let hint = if field == violation.path {
                "; `null` removes it".to_owned()
            } else {
                format!("; `null` for `{field}` removes it")
            };
            violation.message.push_str(&hint);
        }
        let is_new = match moved.take(&violation, next) {
            Some(was_there) => !was_there,
            None => {
                !old.iter().any(|old| old.same_as(&violation))
                    || is_edited_link(&violation, before, next, edits)
            }
        };
        if (is_set || is_new && !was_missing) && !is_owned(&violation.path) {
            rejected.push(violation);
        } else {
            left.push(violation);
        }
    }
    (rejected, left)
}

/// Whether an edit made one invalid link of another. What a browser would run, such as a `javascript:`
/// link, must not come from an edit, whatever stood there.
fn is_edited_link(violation: &Violation, before: &Record, next: &Record, edits: &[Edit]) -> bool {
    let link = |record: &Record| field(record.document(), &violation.path).cloned();
    violation.rule == "pattern"
        && edits.iter().any(|edit| edit.field() == violation.path)
        && link(before) != link(next)
}

/// The violations of elements in edited lists, wherever the elements have moved to.
struct MovedElements<'a> {
    lists: Vec<&'a str>,
    /// How many elements of the stored document have this violation.
    left: HashMap<String, usize>,
}

impl<'a> MovedElements<'a> {
    fn of(before: &Record, edits: &'a [Edit]) -> Self {
        let mut found = Self {
            lists: edits.iter().map(Edit::field).collect(),
            left: HashMap::new(),
        };
        for violation in before.violations().iter().filter(|_| !edits.is_empty()) {
            if let Some(name) = found.name_of(violation, before) {
                *found.left.entry(name).or_default() += 1;
            }
        }
        found
    }

    /// Whether an equal element had this violation before, each counted once; `None` if it is not
    /// about an element of an edited list.
    fn take(&mut self, violation: &Violation, next: &Record) -> Option<bool> {
        let name = self.name_of(violation, next)?;
        let Some(left) = self.left.get_mut(&name).filter(|left| **left > 0) else {
            return Some(false);
        };
        *left -= 1;
        Some(true)
    }

    /// The violation with the element itself in the place of its index.
    fn name_of(&self, violation: &Violation, record: &Record) -> Option<String> {
        self.lists.iter().find_map(|list| {
            let (index, rest) = violation
                .path
                .strip_prefix(list)?
                .strip_prefix('[')?
                .split_once(']')?;
            let elements = field(record.document(), list)?.as_array()?;
            let element = elements.get(index.parse::<usize>().ok()?)?.clone();
            let (rule, element) = (&violation.rule, canonical_text(element));
            Some(format!("{list} {rest} {rule} {element}"))
        })
    }
}

/// The optional field at or above `path` that holds nothing but blanks, which is how some clients
/// remove one.
fn emptied_field<'a>(path: &'a str, next: &Record) -> Option<&'a str> {
    let above = |path: &&'a str| path.rsplit_once('.').map(|(above, _)| above);
    std::iter::successors(Some(path), above).find(|path| {
        field(next.document(), path).is_some_and(is_blank)
            && rules(next.key().kind).is_optional(path)
    })
}

fn is_blank(value: &Value) -> bool {
    match value {
        Value::String(text) => text.trim().is_empty(),
        Value::Object(members) => !members.is_empty() && members.values().all(is_blank),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => false,
    }
}

/// Gives a time of creation that repairs an unreadable one the form in which times are written.
fn write_time_of_creation(patch: &mut Map<String, Value>) {
    let metadata = patch.get_mut("metadata");
    if let Some(Value::String(text)) = metadata.and_then(|metadata| metadata.get_mut("createdAt"))
        && let Some(time) = Timestamp::parse(text)
    {
        *text = time.to_string();
    }
}

/// Empties the times of a document that a plan creates: they are those of its application.
fn remove_times(document: &mut Map<String, Value>) {
    let Some(Value::Object(metadata)) = document.get_mut("metadata") else {
        return;
    };
    for name in ["createdAt", "updatedAt"] {
        if let Some(time) = metadata.get_mut(name) {
            *time = Value::Null;
        }
    }
}

/// Sets what the server owns: the time of the change, a time of creation where there is none that
/// can be read, and the fields that older programs derived at the top level.
fn touch(document: &mut Map<String, Value>, now: Timestamp) {
    let created = document.get("createdAt").and_then(Timestamp::from_json);
    // What else stands here is content, and stays until somebody replaces it.
    if document.get("metadata").is_none_or(Value::is_null) {
        document.insert("metadata".to_owned(), json!({}));
    }
    let Some(Value::Object(metadata)) = document.get_mut("metadata") else {
        return;
    };
    let updated = now.after(metadata.get("updatedAt").and_then(Timestamp::from_json));
    let created = match metadata.get("createdAt") {
        None | Some(Value::Null) => Some(created.unwrap_or(updated)),
        Some(Value::String(text)) if Timestamp::parse(text).is_some() => None,
        Some(other) => Timestamp::from_json(other),
    };
    if let Some(created) = created {
        metadata.insert("createdAt".to_owned(), json!(created.to_string()));
    }
    metadata.insert("updatedAt".to_owned(), json!(updated.to_string()));

    // Without a status this field is all that says whether the website shows the document.
    let status = metadata.get("status").and_then(Value::as_str);
    let published = status
        .filter(|status| STATUSES.contains(status))
        .map(|status| json!(status == "published"));
    let derived = DERIVED.map(|name| match name {
        "published" => (name, published.clone()),
        _ => (name, metadata.get(name).cloned()),
    });
    for (name, value) in derived {
        if let (Some(member), Some(value)) = (document.get_mut(name), value) {
            *member = value;
        }
    }
}

/// Whether a required field was missing before, because the object that would hold it was. Where
/// `metadata` is missing, a write adds it with its times, and not with what only a person can say.
fn is_within_missing(path: &str, old: &[Violation], set: &[String]) -> bool {
    old.iter().any(|violation| {
        violation.path == "metadata"
            && path.starts_with("metadata.")
            && !set.iter().any(|path| at_or_below(path, "metadata"))
    })
}

fn at_or_below(path: &str, named: &str) -> bool {
    path.strip_prefix(named)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    fn current(document: &Value) -> Current {
        let key = DocumentKey::new(Kind::Project, "a");
        let record = Record::parse(key.clone(), document.to_string()).unwrap();
        Current::read(key, Some(record), None::<&str>)
    }

    fn object(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn update(document: &Value, patch: &Value) -> Result<Update, Vec<Violation>> {
        Change::update(
            &current(document),
            patch.as_object().unwrap(),
            &[],
            write_context(),
        )
    }

    #[test]
    fn what_is_sent_back_as_it_is_stored_changes_nothing_even_where_it_is_null() {
        let document = json!({"id":"a","legacy":null,"extra":{"x":null,"y":1},"solution":{"codename":null},"metadata":{"updatedAt":"x"}});

        assert!(matches!(
            update(&document, &document),
            Ok(Update::Unchanged(_))
        ));
    }

    #[test]
    fn a_stored_null_for_an_optional_field_can_be_removed() {
        let document = json!({"id":"a","solution":{"videoUrl":null,"demoLink":"/x"}});

        let Ok(Update::Change(change, _)) =
            update(&document, &json!({"solution":{"videoUrl":null}}))
        else {
            panic!("no change")
        };

        assert_eq!(
            change.next().unwrap().document()["solution"],
            json!({"demoLink":"/x"})
        );
    }

    /// The metadata that an update of another field, or of `metadata`, leaves.
    fn metadata_after(document: &Value, patch: &Value) -> Value {
        match update(document, patch) {
            Ok(Update::Change(change, _)) => change.next().unwrap().document()["metadata"].clone(),
            other => panic!("no change: {other:?}"),
        }
    }

    #[test]
    fn missing_times_are_set_by_any_write() {
        let now = "1970-01-01T00:00:00.001Z";
        for document in [
            json!({"id":"a"}),
            json!({"id":"a","metadata":null}),
            json!({"id":"a","metadata":{}}),
            json!({"id":"a","metadata":{"createdAt":null}}),
        ] {
            assert_eq!(
                metadata_after(&document, &json!({"title":"New"})),
                json!({"createdAt":now,"updatedAt":now}),
                "{document}"
            );
        }
    }

    #[test]
    fn a_time_that_is_a_number_becomes_the_time_that_it_means() {
        for number in [
            json!(1_700_000_000_000_i64),
            json!(1_700_000_000),
            json!(1.7e12),
        ] {
            let document = json!({"id":"a","metadata":{"createdAt":number,"updatedAt":number}});

            let metadata = metadata_after(&document, &json!({"title":"New"}));

            assert_eq!(
                metadata["createdAt"], "2023-11-14T22:13:20.000Z",
                "{number}"
            );
            assert_eq!(
                metadata["updatedAt"], "2023-11-14T22:13:20.001Z",
                "{number}"
            );
        }
    }

    #[test]
    fn a_time_of_another_form_becomes_the_time_that_it_means() {
        for (stored, time) in [
            (json!("1700000000000"), "2023-11-14T22:13:20.000Z"),
            (json!("2025-01-20"), "2025-01-20T00:00:00.000Z"),
            (
                json!({ "$date": "2025-01-20T10:00:00Z" }),
                "2025-01-20T10:00:00.000Z",
            ),
        ] {
            let document = json!({"id":"a","metadata":{"createdAt":stored}});

            let metadata = metadata_after(&document, &json!({"title":"New"}));

            assert_eq!(metadata["createdAt"], time, "{stored}");
        }
        for unreadable in [json!("NaN"), json!(""), json!(true), json!({})] {
            let document = json!({"id":"a","metadata":{"createdAt":unreadable}});

            let metadata = metadata_after(&document, &json!({"title":"New"}));

            assert_eq!(metadata["createdAt"], unreadable);
        }
    }

    /// It may be the only record that the page is live.
    #[test]
    fn a_field_that_says_published_stays_where_there_is_no_status() {
        for metadata in [
            json!(null),
            json!({}),
            json!({ "featured": true }),
            json!({ "status": "Published" }),
        ] {
            let document = json!({"id":"a","published":true,"metadata":metadata});

            let Ok(Update::Change(change, _)) = update(&document, &json!({"title":"New"})) else {
                panic!("no change: {metadata}");
            };

            assert_eq!(
                change.next().unwrap().document()["published"],
                true,
                "{metadata}"
            );
        }
    }

    #[test]
    fn the_time_of_creation_that_older_programs_left_is_taken() {
        let document = json!({"id":"a","createdAt":"2020-01-01T00:00:00Z"});

        let metadata = metadata_after(&document, &json!({"title":"New"}));

        assert_eq!(metadata["createdAt"], "2020-01-01T00:00:00.000Z");
    }

    #[test]
    fn metadata_that_is_no_object_stays_until_an_edit_replaces_it() {
        let document = json!({"id":"a","metadata":"draft"});
        let edit = json!({"metadata":{"status":"draft","featured":false}});

        assert_eq!(metadata_after(&document, &json!({"title":"New"})), "draft");
        let metadata = metadata_after(&document, &edit);
        assert_eq!(metadata["status"], "draft");
        assert!(metadata["createdAt"].is_string());
    }

    #[test]
    fn a_time_of_creation_that_cannot_be_read_stays() {
        let document = json!({"id":"a","metadata":{"createdAt":"spring"}});

        let metadata = metadata_after(&document, &json!({"title":"New"}));

        assert_eq!(metadata["createdAt"], "spring");
    }

    #[test]
    fn a_time_of_creation_that_cannot_be_read_can_be_set() {
        let repair = |time: &str| json!({"metadata":{"createdAt":time}});
        for unreadable in [
            json!("spring"),
            json!(true),
            json!(""),
            json!({"at": 1}),
            json!([]),
        ] {
            let document =
                json!({"id":"a","createdAt":unreadable,"metadata":{"createdAt":unreadable}});

            let Ok(Update::Change(change, left)) =
                update(&document, &repair("2020-05-01T02:00:00+02:00"))
            else {
                panic!("rejected: {unreadable}");
            };

            let next = change.next().unwrap().document();
            assert_eq!(next["metadata"]["createdAt"], "2020-05-01T00:00:00.000Z");
            assert_eq!(next["createdAt"], "2020-05-01T00:00:00.000Z");
            assert!(!left.iter().any(|left| left.path == "metadata.createdAt"));
            let stored = Record::parse(change.key().clone(), document.to_string()).unwrap();
            let mut found = stored.violations().iter();
            let found = found.find(|violation| violation.path == "metadata.createdAt");
            assert!(found.unwrap().message.contains("an update may set it"));
        }
    }

    #[test]
    fn a_time_of_creation_is_set_only_where_none_can_be_read_and_only_to_a_time() {
        let refusal = |stored: &Value, value: Value| {
            let document = json!({"id":"a","metadata":{"createdAt":stored}});
            let rejected = update(&document, &json!({"metadata":{"createdAt":value}})).unwrap_err();
            rejected[0].to_string()
        };

        for value in [json!("autumn"), json!(5), Value::Null] {
            assert!(refusal(&json!("spring"), value).contains("send an RFC 3339 time"));
        }
        for stored in [json!("2020-01-01T00:00:00Z"), json!(1_700_000_000)] {
            let message = refusal(&stored, json!("2021-01-01T00:00:00Z"));
            assert!(message.contains("set by the server"), "{message}");
        }
    }

    #[test]
    fn a_blank_optional_field_is_told_how_to_be_removed() {
        for (patch, path, hint) in [
            (
                json!({"solution":{"videoUrl":" "}}),
                "solution.videoUrl",
                "; `null` removes it",
            ),
            (
                json!({"insight":{"resourceLink":{"url":"","text":""}}}),
                "insight.resourceLink.url",
                "; `null` for `insight.resourceLink` removes it",
            ),
            (
                json!({"insight":{"resourceLink":{"url":"\t","text":""}}}),
                "insight.resourceLink.text",
                "; `null` for `insight.resourceLink` removes it",
            ),
        ] {
            let rejected = update(&json!({"id":"a"}), &patch).unwrap_err();

            let found = rejected.iter().find(|violation| violation.path == path);
            assert!(found.unwrap().message.ends_with(hint), "{rejected:?}");
        }
        let half = json!({"insight":{"resourceLink":{"url":"","text":"Guide"}}});
        for violation in update(&json!({"id":"a"}), &half).unwrap_err() {
            assert!(!violation.message.contains("removes it"), "{violation}");
        }
    }

    #[test]
    fn an_equal_number_is_no_change() {
        let document = json!({"id":"a","metadata":{"downloadCount":10},"extra":[1.5]});
        let patch: Value =
            serde_json::from_str(r#"{"metadata":{"downloadCount":1.0e1},"extra":[15e-1]}"#)
                .unwrap();

        assert!(matches!(
            update(&document, &patch),
            Ok(Update::Unchanged(_))
        ));
    }

    #[test]
    fn a_change_is_rejected_for_what_it_breaks_and_not_for_what_was_broken() {
        let document = json!({"id":"a","title":"","tags":[""],"client":"nobody"});

        let Ok(Update::Change(_, left)) = update(&document, &json!({"result":"better"})) else {
            panic!("rejected")
        };
        let Err(rejected) = update(&document, &json!({"tags":["",""],"client":{"size":"3"}}))
        else {
            panic!("accepted")
        };

        assert!(left.iter().any(|violation| violation.path == "title"));
        let mut paths: Vec<&str> = rejected
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
    fn the_compared_prefix_ends_with_the_id_of_the_entry() {
        let entry_id = "0".repeat(36);
        let context = WriteContext {
            entry_id: entry_id.clone(),
            ..write_context()
        };
        let key = DocumentKey::new(Kind::Project, "a");
        let created = Change::put(
            &Current::read(key.clone(), None, None::<&str>),
            &object(&json!({"id":"a"})),
            context.clone(),
        )
        .unwrap();
        let entry =
            crate::domain::audit::entry_text(u64::MAX >> 11, context.now, &created.entry().rest());
        let stored = Current::read(key, Some(created.next().unwrap().clone()), Some(entry));

        let changed = Change::put(&stored, &object(&json!({"id":"b"})), context).unwrap();

        let prefix = changed.expected_entry_prefix().unwrap();
        assert!(
            prefix.ends_with(&format!("\"id\":\"{entry_id}\"")),
            "{prefix}"
        );
    }

    #[test]
    fn a_huge_patch_is_rejected_before_it_is_checked() {
        let Err(rejected) = update(&json!({"id":"a"}), &json!({"tags": vec![""; 150_000]})) else {
            panic!("accepted")
        };

        assert_eq!(
            (
                rejected.len(),
                rejected.first().map(|violation| violation.path.as_str())
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
            panic!("rejected")
        };

        let next = change.next().unwrap().document();
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

    /// JSON with numbers in every form.
    fn odd_json() -> impl Strategy<Value = String> {
        let number = prop_oneof![
            "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?",
            Just("-0".to_owned()),
            Just("1e2".to_owned()),
        ];
        let leaf = prop_oneof![number, "\"[a-z0-9e:, ]{0,6}\"", Just("null".to_owned())];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4)
                    .prop_map(|items| format!("[{}]", items.join(","))),
                prop::collection::vec(inner, 0..4).prop_map(|members| {
                    let members = members.iter().enumerate();
                    let members: Vec<String> = members
                        .map(|(index, member)| format!("\"m{index}\":{member}"))
                        .collect();
                    format!("{{{}}}", members.join(","))
                }),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn an_update_keeps_every_byte_of_other_fields(odd in odd_json(), odder in odd_json()) {
            let text = |title: &str, time: &str| format!(
                r#"{{"id":"a","odd":{odd},"title":"{title}","metadata":{{"createdAt":"{time}","odder":{odder},"updatedAt":"{time}"}}}}"#
            );
            let key = DocumentKey::new(Kind::Project, "a");
            let record = Record::parse(key.clone(), text("Old", "2020-01-01T00:00:00.000Z")).unwrap();
            let current = Current::read(key, Some(record), None::<&str>);
            let Ok(Update::Change(change, _)) =
                Change::update(&current, &object(&json!({"title":"New"})), &[], write_context())
            else {
                panic!("rejected")
            };

            let next = change.text().unwrap().replace("2020-01-01T00:00:00.001Z", "2020-01-01T00:00:00.000Z");
            prop_assert_eq!(next, text("New", "2020-01-01T00:00:00.000Z"));
        }
    }
}

//! What a document was after its newest entry, computed from its entries.

use serde_json::{Map, Value};

use super::{
    audit::{Action, StoredEntry},
    diff,
    text::compact_json,
    version::sha256_hex,
};

/// What a document was after its newest entry.
#[derive(Debug, Clone, PartialEq)]
pub enum LastKnown {
    /// This document.
    Document(Map<String, Value>),
    /// Nothing: the entry deleted it.
    Absent,
    /// The entries do not say it: the document is older than they are, or they do not lead to the
    /// checksum of the newest one.
    Unknown,
}

/// The entries of one document, followed from its newest one back to one that holds the whole
/// document. Each is the one whose hash the entry after it has in `previous`, so entries of other
/// programs and of other logs are passed over.
#[derive(Debug)]
pub struct EntryChain {
    /// Newest first.
    entries: Vec<StoredEntry>,
    bytes: usize,
}

impl EntryChain {
    /// A chain that begins with the document's newest entry.
    #[must_use]
    pub fn from_newest(entry: &str) -> Self {
        Self {
            bytes: entry.len(),
            entries: vec![StoredEntry::parse(entry.to_owned())],
        }
    }

    /// How many entries it has.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.entries.len()
    }

    /// How much stored text they are.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether no older entry is needed, or there is none.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.is_deletion() || self.is_whole() || self.previous().is_none()
    }

    /// Adds an entry of the log, if it is the one before the oldest here.
    pub fn offer(&mut self, entry: StoredEntry) {
        if self.is_complete() {
            return;
        }
        if self.previous() == Some(sha256_hex(entry.text().as_bytes()).as_str()) {
            self.bytes += entry.text().len();
            self.entries.push(entry);
        }
    }

    /// What the document was after the newest entry.
    #[must_use]
    pub fn last_known(&self) -> LastKnown {
        if self.is_deletion() {
            return LastKnown::Absent;
        }
        if !self.is_whole() {
            return LastKnown::Unknown;
        }
        // What an adoption found may be written in another way than this program writes.
        let adopts = |entry: &StoredEntry| entry.text_of("action") == Some(Action::Adopt.as_str());
        let proof = self.entries.iter().position(|entry| !adopts(entry));
        let mut document = Map::new();
        for (index, entry) in self.entries.iter().enumerate().rev() {
            document = diff::apply(document, &entry.changes());
            if proof == Some(index) {
                let checksum = sha256_hex(compact_json(&document).as_bytes());
                if entry.checksum() != Some(checksum.as_str()) {
                    return LastKnown::Unknown;
                }
            }
        }
        LastKnown::Document(document)
    }

    /// Whether the newest entry left no document.
    fn is_deletion(&self) -> bool {
        let newest = self.entries.first();
        newest.is_some_and(|entry| entry.checksum().is_none())
    }

    /// Whether the oldest entry holds the whole document: there was none before it, or it replaced
    /// the document whole.
    fn is_whole(&self) -> bool {
        let Some(oldest) = self.entries.last() else {
            return false;
        };
        let changes = oldest.changes();
        let replaces = changes
            .first()
            .is_some_and(|change| change.field.is_empty() && change.new_value.is_some());
        replaces || metadata(oldest, "versionBefore").is_none()
    }

    /// The hash of the entry before the oldest here.
    fn previous(&self) -> Option<&str> {
        metadata(self.entries.last()?, "previous")
    }
}

fn metadata<'a>(entry: &'a StoredEntry, member: &str) -> Option<&'a str> {
    entry.json().get("metadata")?.get(member)?.as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::{
        Change, Current, DocumentKey, Kind, Operation, Origin, Record, Source, Timestamp,
        WriteContext, audit::entry_text,
    };

    fn context() -> WriteContext {
        WriteContext {
            origin: Origin::new(Source::Mcp),
            operation: Operation::once("key", json!({})),
            entry_id: "entry".to_owned(),
            now: Timestamp::from_millis(1),
        }
    }

    fn object(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    /// A document and its entries, oldest first.
    struct Written {
        current: Current,
        entries: Vec<StoredEntry>,
    }

    impl Written {
        fn new() -> Self {
            let key = DocumentKey::new(Kind::Project, "a");
            Self {
                current: Current::read(key, None, None::<&str>),
                entries: Vec::new(),
            }
        }

        fn then(mut self, change: impl FnOnce(&Current) -> Option<Change>) -> Self {
            let change = change(&self.current).unwrap();
            let seq = self.entries.len() as u64 + 1;
            let text = entry_text(seq, change.time(), &change.entry().rest());
            let key = self.current.key().clone();
            self.current = Current::read(key, change.next().cloned(), Some(text.as_str()));
            self.entries.push(StoredEntry::parse(text));
            self
        }

        fn put(self, document: &Value) -> Self {
            self.then(|current| Change::put(current, &object(document), context()))
        }

        /// Stores a text without an entry.
        fn edited(self, text: &str) -> Self {
            let key = self.current.key().clone();
            let record = Record::parse(key.clone(), text.to_owned()).unwrap();
            let current = Current::read(key, Some(record), self.current.latest_entry());
            Self { current, ..self }
        }

        fn adopted(self) -> Self {
            let known = self.last_known();
            self.then(|current| Change::adopt(current, &known, context()))
        }

        fn last_known(&self) -> LastKnown {
            let newest = self.current.latest_entry().unwrap();
            let mut chain = EntryChain::from_newest(newest);
            for entry in self.entries.iter().rev() {
                chain.offer(entry.clone());
            }
            chain.last_known()
        }

        fn newest(&self) -> &StoredEntry {
            self.entries.last().unwrap()
        }
    }

    #[test]
    fn the_entries_since_the_creation_give_the_document() {
        let written = Written::new()
            .put(&json!({"id":"a","title":"One"}))
            .put(&json!({"id":"a","title":"Two"}))
            .put(&json!({"id":"a","title":"Two","tags":[1]}));

        let expected = object(&json!({"id":"a","title":"Two","tags":[1]}));
        assert_eq!(written.last_known(), LastKnown::Document(expected));
    }

    #[test]
    fn after_a_deletion_nothing_is_known_to_be_there() {
        let written = Written::new()
            .put(&json!({"id":"a"}))
            .then(|current| Change::delete(current, context()));

        assert_eq!(written.last_known(), LastKnown::Absent);
        let again = written.edited("{}").adopted().newest().changes();
        assert_eq!(again, []);
    }

    #[test]
    fn without_the_creation_nothing_is_known() {
        let mut written = Written::new()
            .put(&json!({"id":"a","title":"One"}))
            .put(&json!({"id":"a","title":"Two"}));
        written.entries.remove(0);

        assert_eq!(written.last_known(), LastKnown::Unknown);
    }

    #[test]
    fn entries_that_do_not_give_the_checksum_are_not_believed() {
        // As version 0.1.0 left it: an update of a document that was edited before.
        let written = Written::new()
            .put(&json!({"id":"a","title":"One"}))
            .edited(r#"{"id":"a","title":"Edited"}"#)
            .put(&json!({"id":"a","title":"Edited","tags":[]}));

        assert_eq!(written.last_known(), LastKnown::Unknown);
    }

    #[test]
    fn an_adoption_holds_the_differences() {
        let written = Written::new()
            .put(&json!({"id":"a","title":"One","client":{"size":"1"}}))
            .edited("{\"id\":\"a\",\"title\":\"Two\",\n\"client\":{\"size\":\"1\"},\"tags\":[]}")
            .adopted();

        let entry = written.newest();
        let fields: Vec<String> = entry
            .changes()
            .into_iter()
            .map(|change| change.field)
            .collect();
        assert_eq!(fields, ["title", "tags"]);
        assert_eq!(
            metadata(entry, "versionBefore"),
            metadata(&written.entries[0], "versionAfter")
        );
        assert_eq!(
            metadata(entry, "versionAfter"),
            written
                .current
                .version()
                .map(crate::domain::Version::as_str)
        );
    }

    #[test]
    fn an_adoption_of_another_order_or_notation_holds_both_documents() {
        for found in [
            r#"{"n":1,"id":"a"}"#,
            r#"{"id":"a","n":1.0}"#,
            r#"{"id":"a","n":10e-1}"#,
        ] {
            let before = json!({"id":"a","n":1});
            let written = Written::new().put(&before).edited(found).adopted();

            let changes = written.newest().changes();
            assert_eq!(changes.len(), 1, "{found}");
            assert_eq!(changes[0].field, "", "{found}");
            assert_eq!(changes[0].old_value, Some(before), "{found}");
            let after = compact_json(changes[0].new_value.as_ref().unwrap());
            assert_eq!(after, found);
        }
    }

    #[test]
    fn an_adoption_after_an_adoption_knows_the_document_before() {
        let written = Written::new()
            .put(&json!({"id":"a","title":"One"}))
            .edited("{ \"id\": \"a\", \"title\": \"Two\" }")
            .adopted()
            .edited("{ \"id\": \"a\", \"title\": \"Three\" }")
            .adopted();

        let changes = written.newest().changes();
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].old_value, Some(json!("Two")));
        assert_eq!(changes[0].new_value, Some(json!("Three")));
    }

    #[test]
    fn an_adoption_of_what_is_not_explained_does_not_claim_what_was_before() {
        let mut written = Written::new()
            .put(&json!({"id":"a","title":"One"}))
            .put(&json!({"id":"a","title":"Two"}))
            .edited(r#"{"id":"a","title":"Three"}"#);
        written.entries.remove(0);
        let written = written.adopted();

        let (entry, changes) = (written.newest(), written.newest().changes());
        assert_eq!(changes.len(), 1);
        assert_eq!(
            (changes[0].field.as_str(), &changes[0].old_value),
            ("", &None)
        );
        assert_eq!(
            metadata(entry, "versionBefore"),
            metadata(entry, "versionAfter")
        );
        let expected = object(&json!({"id":"a","title":"Three"}));
        assert_eq!(written.last_known(), LastKnown::Document(expected));
    }

    #[test]
    fn an_adopted_deletion_holds_every_field_as_it_was() {
        let written = Written::new().put(&json!({"id":"a","title":"One"}));
        let key = written.current.key().clone();
        let current = Current::read(key, None, written.current.latest_entry());
        let written = Written { current, ..written }.adopted();

        let entry = written.newest();
        assert_eq!(entry.text_of("action"), Some("adopt"));
        assert_eq!(metadata(entry, "versionAfter"), None);
        let changes = entry.changes();
        let old: Vec<_> = changes.iter().map(|change| &change.old_value).collect();
        assert_eq!(old, [&Some(json!("a")), &Some(json!("One"))]);
        assert_eq!(written.last_known(), LastKnown::Absent);
    }
}

//! A document and its log without a store, written by the program's own changes.

use std::collections::BTreeSet;

use portfolio_mcp::domain::{
    Change, Creations, Current, DocumentKey, Operation, Origin, Record, Source, StoredEntry,
    Timeline, Undo, Update, Violation, WriteContext, audit::entry_text,
};
use serde_json::{Value, json};

use crate::support::fixtures::{Document, now, object, project, project_key, unique};

/// A document and its log.
pub(crate) struct Page {
    key: DocumentKey,
    record: Option<Record>,
    /// Newest first.
    pub(crate) log: Vec<StoredEntry>,
}

impl Page {
    /// A document that the log does not explain.
    pub(crate) fn of(document: Document) -> Self {
        let key = project_key("page");
        let text = Value::Object(document).to_string();
        Self {
            record: Some(Record::parse(key.clone(), text).unwrap()),
            key,
            log: Vec::new(),
        }
    }

    /// A valid project that the log does not explain.
    pub(crate) fn project() -> Self {
        Self::of(project("page"))
    }

    pub(crate) fn document(&self) -> Option<&Document> {
        self.record.as_ref().map(Record::document)
    }

    pub(crate) fn value(&self, path: &str) -> Option<&Value> {
        let mut names = path.split('.');
        let first = self.document()?.get(names.next()?)?;
        names.try_fold(first, |value, name| value.get(name))
    }

    /// Changes fields; gives the audit id, if anything changed.
    pub(crate) fn try_update(&mut self, actor: &str, patch: Value) -> Option<String> {
        match Change::update(&self.current(), &object(patch), &[], context(actor)) {
            Ok(Update::Change(change, _)) => Some(self.commit(&change)),
            Ok(Update::Unchanged(_) | Update::Missing) => None,
            Err(violations) => panic!("{violations:?}"),
        }
    }

    pub(crate) fn update(&mut self, actor: &str, patch: Value) -> String {
        self.try_update(actor, patch).unwrap()
    }

    /// Stores a document whole, as an import does.
    pub(crate) fn put(&mut self, actor: &str, document: &Document) -> String {
        let change = Change::put(&self.current(), document, context(actor));
        self.commit(&change.unwrap())
    }

    pub(crate) fn delete(&mut self, actor: &str) -> String {
        let change = Change::delete(&self.current(), context(actor));
        self.commit(&change.unwrap())
    }

    /// Changes the stored text without an entry, as another program does.
    pub(crate) fn change_outside(&mut self, document: Document) {
        self.record = Some(Record::of(self.key.clone(), document));
    }

    /// What undoing would lead to.
    pub(crate) fn plan(&self, ids: &[&str], creations: Creations) -> Undo {
        let ids = ids.iter().map(|id| (*id).to_owned()).collect();
        Timeline::of(self.record.as_ref(), &self.log).undo(&ids, creations)
    }

    /// Undoes changes; gives what that led to, and the audit id, if anything changed.
    pub(crate) fn undo(&mut self, ids: &[&str]) -> (Undo, Option<String>) {
        let undo = self.plan(ids, Creations::Undo);
        let id = self
            .try_revert(&undo)
            .unwrap()
            .map(|change| self.commit(&change));
        (undo, id)
    }

    /// Whether what undoing leads to could be written.
    pub(crate) fn try_revert(&self, undo: &Undo) -> Result<Option<Change>, Vec<Violation>> {
        let (document, reverts) = (undo.document.as_ref(), undo.reverts.clone());
        Change::revert(&self.current(), document, reverts, context("undo"))
    }

    /// The version of a document as it is stored.
    pub(crate) fn version_of(document: &Document) -> String {
        let record = Record::of(project_key("page"), document.clone());
        record.version().as_str().to_owned()
    }

    fn current(&self) -> Current {
        let latest = self.log.first().map(StoredEntry::text);
        Current::read(self.key.clone(), self.record.clone(), latest)
    }

    fn commit(&mut self, change: &Change) -> String {
        let seq = self.log.len() as u64 + 1;
        let text = entry_text(seq, change.time(), &change.entry().rest());
        self.log.insert(0, StoredEntry::parse(text));
        self.record = change.next().cloned();
        change.entry().id.clone()
    }
}

fn context(actor: &str) -> WriteContext {
    let id = unique("entry");
    WriteContext {
        origin: Origin {
            actor: Some(actor.to_owned()),
            ..Origin::new(Source::Mcp)
        },
        operation: Operation::once(&id, json!({})),
        entry_id: id,
        now: now(),
    }
}

/// A document without the times that the server sets.
pub(crate) fn without_times(document: Option<&Document>) -> Option<Document> {
    let mut document = document?.clone();
    if let Some(Value::Object(metadata)) = document.get_mut("metadata") {
        metadata.shift_remove("updatedAt");
    }
    Some(document)
}

/// The fields that an undo keeps.
pub(crate) fn kept_fields(undo: &Undo) -> BTreeSet<&str> {
    undo.kept.iter().map(|kept| kept.field.as_str()).collect()
}

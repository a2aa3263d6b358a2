//! Which entries an undo is about.

use std::collections::{BTreeMap, BTreeSet};

use super::request::{MAX_DOCUMENTS, Selection};
use crate::{
    deadline::Deadline,
    domain::{AuditPage, AuditQuery, Current, DocumentKey, StoredEntry, Violation, text::truncate},
    service::{ContentService, Error, read::in_time},
};

/// Entries that are read at once, and how much text of them.
const PAGE_ENTRIES: usize = 500;
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// How many entries one undo may select.
const MAX_ENTRIES: usize = 10_000;

/// The entries that an undo is about, by document.
#[derive(Debug, Default)]
pub(super) struct Selected {
    /// Their audit ids.
    pub(super) ids: BTreeMap<DocumentKey, BTreeSet<String>>,
    /// The argument that named each of them, if they were named.
    pub(super) argument: Option<&'static str>,
    /// Entries that match, but are of no document or have no id.
    pub(super) unexplained: usize,
}

impl Selected {
    pub(super) fn keys(&self) -> Vec<DocumentKey> {
        self.ids.keys().cloned().collect()
    }

    fn count(&self) -> usize {
        self.ids.values().map(BTreeSet::len).sum()
    }

    /// Adds an entry; returns whether it can be.
    fn add(&mut self, entry: &StoredEntry) -> bool {
        match (entry.key(), entry.text_of("id")) {
            (Some(key), Some(id)) => {
                self.ids.entry(key).or_default().insert(id.to_owned());
                true
            }
            _ => false,
        }
    }
}

impl ContentService {
    pub(super) async fn select(
        &self,
        selection: &Selection,
        deadline: Deadline,
    ) -> Result<Selected, Error> {
        let selected = match selection {
            Selection::Entries(ids) => self.select_named(ids, "auditIds", deadline).await?,
            Selection::EntryOf(key, id) => {
                let ids = BTreeSet::from([id.clone()]);
                let selected = self.select_named(&ids, "undo", deadline).await?;
                check_document(&selected, key)?;
                selected
            }
            Selection::Matching(query) => self.select_matching(query, deadline).await?,
        };
        if selected.ids.len() > MAX_DOCUMENTS {
            let argument = selected.argument.unwrap_or("since");
            let message = format!(
                "expected changes of at most {MAX_DOCUMENTS} documents, found {}; undo them in parts",
                selected.ids.len()
            );
            return Err(refused(argument, "maxItems", message));
        }
        Ok(selected)
    }

    async fn select_named(
        &self,
        ids: &BTreeSet<String>,
        argument: &'static str,
        deadline: Deadline,
    ) -> Result<Selected, Error> {
        let mut selected = Selected {
            argument: Some(argument),
            ..Selected::default()
        };
        let (mut missing, mut violations) = (ids.clone(), Vec::new());
        let mut query = AuditQuery::by_ids(ids.clone());
        loop {
            let page = self.page(&query, deadline).await?;
            for entry in &page.entries {
                if let Some(id) = entry.text_of("id") {
                    missing.remove(id);
                }
                if !selected.add(entry) {
                    let id = truncate(entry.text_of("id").unwrap_or_default());
                    let message = format!("`{id}` cannot be undone: it names no document");
                    violations.push(Violation::new(argument, "history", message));
                }
            }
            query.after = page.next;
            if missing.is_empty() || query.after.is_none() {
                break;
            }
        }
        let missing = missing.iter().map(|id| {
            let message = format!("no entry of the audit log has the id `{}`", truncate(id));
            Violation::new(argument, "unknown", message)
        });
        violations.extend(missing);
        if violations.is_empty() {
            Ok(selected)
        } else {
            Err(Error::Invalid(violations))
        }
    }

    async fn select_matching(
        &self,
        query: &AuditQuery,
        deadline: Deadline,
    ) -> Result<Selected, Error> {
        let mut selected = Selected::default();
        let mut query = AuditQuery {
            limit: PAGE_ENTRIES,
            max_bytes: PAGE_BYTES,
            ..query.clone()
        };
        loop {
            let page = self.page(&query, deadline).await?;
            let by_tools = page
                .entries
                .iter()
                .filter(|entry| entry.origin_text("transport") != Some("cli"));
            for entry in by_tools {
                selected.unexplained += usize::from(!selected.add(entry));
            }
            if selected.count() > MAX_ENTRIES {
                let message = format!(
                    "more than {MAX_ENTRIES} changes match; undo a shorter time, or one document"
                );
                return Err(refused("since", "maximum", message));
            }
            query.after = page.next;
            if query.after.is_none() {
                return Ok(selected);
            }
        }
    }

    async fn page(&self, query: &AuditQuery, deadline: Deadline) -> Result<AuditPage, Error> {
        let _permit = self.log_permit(query, deadline).await?;
        let page = deadline.run(self.store.audit_entries(query)).await;
        Ok(in_time(page)?)
    }
}

/// An undo that is refused for one argument.
pub(super) fn refused(argument: &str, rule: &'static str, message: String) -> Error {
    Error::Invalid(vec![Violation::new(argument, rule, message)])
}

/// Why a named entry of a document cannot be undone, and what can be done instead.
pub(super) fn unexplained(argument: &str, id: &str, current: &Current) -> Violation {
    let remedy = match current.record() {
        Some(_) => "set the old values with an update".to_owned(),
        None => format!(
            "there is no {} now, so no update can set the old values either",
            current.key()
        ),
    };
    let message = format!(
        "`{}` cannot be undone: the log does not show how it joins the document's other versions (an older program or another log wrote it, or the document was changed beside the log since); {remedy}",
        truncate(id)
    );
    Violation::new(argument, "history", message)
}

fn check_document(selected: &Selected, key: &DocumentKey) -> Result<(), Error> {
    match selected.ids.keys().find(|other| *other != key) {
        None => Ok(()),
        Some(other) => {
            let message = format!(
                "this is a change of {} `{}`; undo it there",
                other.kind,
                truncate(&other.id)
            );
            Err(refused("undo", "entity", message))
        }
    }
}

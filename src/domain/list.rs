//! Lists: which documents a query matches, and in which order.
//!
//! Both stores follow this one rule; a store may use indexes of its own, but this code decides.

use std::{borrow::Borrow, cmp::Reverse, collections::BTreeSet};

use serde_json::{Map, Value};

use super::{
    kind::DocumentKey,
    search::{fold, fold_tag, search_text},
    timestamp::Timestamp,
};

/// What lists and indexes need of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// The id that it is stored under.
    pub id: String,
    /// `metadata.status`, if it is a string.
    pub status: Option<String>,
    /// Whether `metadata.featured` is true.
    pub featured: bool,
    /// `metadata.updatedAt`, when it can be read.
    pub updated: Option<Timestamp>,
    /// The tags, as [`fold_tag`] makes them.
    pub tags: Vec<String>,
    /// The text of all searched fields, folded.
    pub search_text: String,
}

impl IndexEntry {
    /// What lists need of `document`.
    #[must_use]
    pub fn of(key: &DocumentKey, document: &Map<String, Value>) -> Self {
        let metadata = document.get("metadata");
        let status = metadata
            .and_then(|metadata| metadata.get("status"))
            .and_then(Value::as_str);
        let tags = document.get("tags").and_then(Value::as_array);
        let tags = tags.into_iter().flatten().filter_map(Value::as_str);
        Self {
            id: key.id.clone(),
            status: status.map(ToOwned::to_owned),
            featured: metadata.and_then(|metadata| metadata.get("featured"))
                == Some(&Value::Bool(true)),
            updated: metadata
                .and_then(|metadata| metadata.get("updatedAt"))
                .and_then(Value::as_str)
                .and_then(Timestamp::parse),
            tags: tags.map(fold_tag).collect(),
            search_text: search_text(key, document),
        }
    }

    /// Whether the website shows the document.
    #[must_use]
    pub fn is_published(&self) -> bool {
        self.status.as_deref() == Some("published")
    }

    /// The position in every list: newest first, unreadable times last, then by id.
    #[must_use]
    pub fn position(&self) -> ListPosition {
        ListPosition {
            updated: Reverse(self.updated),
            id: self.id.clone(),
        }
    }
}

/// A position in a list. Positions sort as the list does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListPosition {
    /// Newest first; `None`, which is the least, comes last.
    pub updated: Reverse<Option<Timestamp>>,
    /// Breaks ties.
    pub id: String,
}

/// Which documents to list.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Only with this status.
    pub status: Option<String>,
    /// Only featured ones, or only others.
    pub featured: Option<bool>,
    /// Only with this tag, as [`fold_tag`] makes it: every edge that filters by tag compares them
    /// in this way.
    pub tag: Option<String>,
    /// Only where each of these words occurs, as [`ListQuery::words_of`] makes them.
    pub words: BTreeSet<String>,
    /// Only documents after this position.
    pub after: Option<ListPosition>,
    /// The length of a page.
    pub limit: usize,
    /// Whether the page is to name deletions outside this server where they have to be looked for.
    pub with_deleted_outside: bool,
}

impl ListQuery {
    /// The words of a search text, as [`ListQuery::words`] wants them.
    #[must_use]
    pub fn words_of(text: &str) -> BTreeSet<String> {
        fold(text)
            .split_whitespace()
            .map(ToOwned::to_owned)
            .collect()
    }

    /// Whether the document is in the list.
    #[must_use]
    pub fn matches(&self, entry: &IndexEntry) -> bool {
        self.status
            .as_ref()
            .is_none_or(|status| entry.status.as_ref() == Some(status))
            && self
                .featured
                .is_none_or(|featured| entry.featured == featured)
            && self.tag.as_ref().is_none_or(|tag| entry.tags.contains(tag))
            && self
                .words
                .iter()
                .all(|word| entry.search_text.contains(word))
    }

    /// The page that this query asks for, out of all documents.
    pub fn page<E: Borrow<IndexEntry>>(&self, entries: impl IntoIterator<Item = E>) -> Page {
        let matching = entries
            .into_iter()
            .filter(|entry| self.matches(entry.borrow()));
        let mut positions: Vec<ListPosition> =
            matching.map(|entry| entry.borrow().position()).collect();
        let total = positions.len();
        if let Some(after) = &self.after {
            positions.retain(|position| position > after);
        }
        positions.sort_unstable();
        let more = positions.len() > self.limit;
        positions.truncate(self.limit);
        let next = if more {
            positions.last().cloned()
        } else {
            None
        };
        Page {
            positions,
            total,
            next,
        }
    }
}

/// Where the documents of a page are in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In the list's order.
    pub positions: Vec<ListPosition>,
    /// How many documents match, on all pages.
    pub total: usize,
    /// The position of the last one, when more follow.
    pub next: Option<ListPosition>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::Kind;

    fn index_entry(id: &str, updated: &str) -> IndexEntry {
        let document = json!({"title":"Éléphant sur le Œuvre","tags":["Café"],"metadata":{"updatedAt":updated,"status":"draft","featured":true}});
        IndexEntry::of(
            &DocumentKey::new(Kind::Project, id),
            document.as_object().unwrap(),
        )
    }

    #[test]
    fn words_match_whatever_their_case_and_accents() {
        let entry = index_entry("a", "2025-01-01T00:00:00Z");

        for text in ["elephant", "ÉLÉPHANT œuvre", "cafe", "a oeuvre"] {
            assert!(
                ListQuery {
                    words: ListQuery::words_of(text),
                    ..ListQuery::default()
                }
                .matches(&entry),
                "{text}"
            );
        }
        assert!(
            !ListQuery {
                words: ListQuery::words_of("elephant giraffe"),
                ..ListQuery::default()
            }
            .matches(&entry)
        );
    }

    #[test]
    fn lists_are_newest_first_by_instant_then_by_id_with_unreadable_times_last() {
        let entries = [
            index_entry("z", "whenever"),
            index_entry("b", "2025-01-01T00:30:00+01:00"),
            index_entry("a", "2025-01-01T00:00:00Z"),
            index_entry("d", "2025-01-01T00:00:00.000Z"),
            index_entry("y", "never"),
        ];

        let page = ListQuery {
            limit: 10,
            ..ListQuery::default()
        }
        .page(entries);

        assert_eq!(
            page.positions
                .iter()
                .map(|position| position.id.as_str())
                .collect::<Vec<_>>(),
            ["a", "d", "b", "y", "z"]
        );
        assert_eq!((page.total, page.next), (5, None));
    }
}

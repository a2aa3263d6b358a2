//! Lists: what is asked for, what matches, and in which order.
//!
//! The one rule for both stores; a store may use its own indexes, but asks here in the end.

use std::{borrow::Borrow, cmp::Reverse, collections::BTreeSet};

use serde_json::{Map, Value};
use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

use super::{kind::DocumentKey, timestamp::Timestamp};

/// What lists and indexes need of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// The id that it is stored under.
    pub id: String,
    /// `metadata.status`, when it is a text.
    pub status: Option<String>,
    /// Whether `metadata.featured` is true.
    pub featured: bool,
    /// `metadata.updatedAt`, when it can be read.
    pub updated: Option<Timestamp>,
    /// The tags, in lower case.
    pub tags: Vec<String>,
    /// Everything that is searched, without case and accents.
    pub text: String,
}

impl IndexEntry {
    /// What lists need of `document`.
    #[must_use]
    pub fn of(key: &DocumentKey, document: &Map<String, Value>) -> Self {
        let metadata = document.get("metadata");
        let status = metadata
            .and_then(|metadata| metadata.get("status"))
            .and_then(Value::as_str);
        let tags: Vec<&str> = document
            .get("tags")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let searched = ["title", "description", "result", "price"]
            .into_iter()
            .filter_map(|name| document.get(name).and_then(Value::as_str));
        let text: Vec<String> = std::iter::once(key.id.as_str())
            .chain(searched)
            .chain(tags.iter().copied())
            .map(folded)
            .collect();
        Self {
            id: key.id.clone(),
            status: status.map(ToOwned::to_owned),
            featured: metadata.and_then(|metadata| metadata.get("featured"))
                == Some(&Value::Bool(true)),
            updated: metadata
                .and_then(|metadata| metadata.get("updatedAt"))
                .and_then(Value::as_str)
                .and_then(Timestamp::parse),
            tags: tags.into_iter().map(str::to_lowercase).collect(),
            text: text.join("\n"),
        }
    }

    /// Whether the website shows it.
    #[must_use]
    pub fn is_published(&self) -> bool {
        self.status.as_deref() == Some("published")
    }

    /// Its place in every list: newest first, unreadable times last, then by id.
    #[must_use]
    pub fn position(&self) -> ListPosition {
        ListPosition {
            updated: Reverse(self.updated),
            id: self.id.clone(),
        }
    }
}

/// A place in a list; sorts as the list does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListPosition {
    /// Newest first; `None`, which is the least, comes last.
    pub updated: Reverse<Option<Timestamp>>,
    /// Breaks ties.
    pub id: String,
}

/// Which documents are asked for.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Only with this status.
    pub status: Option<String>,
    /// Only featured ones, or only others.
    pub featured: Option<bool>,
    /// Only with this tag, in lower case.
    pub tag: Option<String>,
    /// Only where each of these words occurs; without case and accents.
    pub words: BTreeSet<String>,
    /// Only what comes after this place.
    pub after: Option<ListPosition>,
    /// At most so many.
    pub limit: usize,
}

impl ListQuery {
    /// The words of a search text, as [`ListQuery::words`] wants them.
    #[must_use]
    pub fn words_of(text: &str) -> BTreeSet<String> {
        folded(text)
            .split_whitespace()
            .map(ToOwned::to_owned)
            .collect()
    }

    /// Whether the document is in the list.
    #[must_use]
    pub fn matches(&self, listing: &IndexEntry) -> bool {
        self.status
            .as_ref()
            .is_none_or(|status| listing.status.as_ref() == Some(status))
            && self
                .featured
                .is_none_or(|featured| listing.featured == featured)
            && self
                .tag
                .as_ref()
                .is_none_or(|tag| listing.tags.contains(tag))
            && self.words.iter().all(|word| listing.text.contains(word))
    }

    /// The places of the page that this query asks for, out of all documents, with the number of all matches and the
    /// place after which more follow.
    pub fn page<L: Borrow<IndexEntry>>(
        &self,
        listings: impl IntoIterator<Item = L>,
    ) -> (Vec<ListPosition>, usize, Option<ListPosition>) {
        let matching = listings
            .into_iter()
            .filter(|listing| self.matches(listing.borrow()));
        let mut places: Vec<ListPosition> = matching
            .map(|listing| listing.borrow().position())
            .collect();
        let total = places.len();
        if let Some(after) = &self.after {
            places.retain(|place| place > after);
        }
        places.sort_unstable();
        let more = places.len() > self.limit;
        places.truncate(self.limit);
        let next = if more { places.last().cloned() } else { None };
        (places, total, next)
    }
}

/// A text without case and accents, in which `é` and `É` are `e` and `œ` is `oe`.
fn folded(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for c in text
        .nfkd()
        .filter(|c| !is_combining_mark(*c))
        .flat_map(char::to_lowercase)
    {
        match c {
            'œ' => folded.push_str("oe"),
            'æ' => folded.push_str("ae"),
            'ß' => folded.push_str("ss"),
            'ø' => folded.push('o'),
            'ł' => folded.push('l'),
            'đ' => folded.push('d'),
            c => folded.push(c),
        }
    }
    folded
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::Kind;

    fn listing(id: &str, updated: &str) -> IndexEntry {
        let document = json!({"title":"Éléphant sur le Œuvre","tags":["Café"],"metadata":{"updatedAt":updated,"status":"draft","featured":true}});
        IndexEntry::of(
            &DocumentKey::new(Kind::Project, id),
            document.as_object().unwrap(),
        )
    }

    #[test]
    fn words_match_whatever_their_case_and_accents() {
        let listing = listing("a", "2025-01-01T00:00:00Z");

        for text in ["elephant", "ÉLÉPHANT œuvre", "cafe", "a oeuvre"] {
            assert!(
                ListQuery {
                    words: ListQuery::words_of(text),
                    ..ListQuery::default()
                }
                .matches(&listing),
                "{text}"
            );
        }
        assert!(
            !ListQuery {
                words: ListQuery::words_of("elephant giraffe"),
                ..ListQuery::default()
            }
            .matches(&listing)
        );
    }

    #[test]
    fn lists_are_newest_first_by_instant_then_by_id_with_unreadable_times_last() {
        let listings = [
            listing("z", "whenever"),
            listing("b", "2025-01-01T00:30:00+01:00"),
            listing("a", "2025-01-01T00:00:00Z"),
            listing("d", "2025-01-01T00:00:00.000Z"),
            listing("y", "never"),
        ];

        let (places, total, next) = ListQuery {
            limit: 10,
            ..ListQuery::default()
        }
        .page(listings);

        assert_eq!(
            places
                .iter()
                .map(|place| place.id.as_str())
                .collect::<Vec<_>>(),
            ["a", "d", "b", "y", "z"]
        );
        assert_eq!((total, next), (5, None));
    }
}

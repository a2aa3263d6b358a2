//! The content types there are, and where a document of one is.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::text::truncate;

/// The content types there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A client case study.
    Project,
    /// A downloadable good.
    Resource,
}

impl Kind {
    /// Every kind, in the order in which files and reports show them.
    pub const ALL: [Self; 2] = [Self::Project, Self::Resource];

    /// `project`, as the audit log writes it.
    #[must_use]
    pub fn singular(self) -> &'static str {
        match self {
            Self::Project => "project",
            Self::Resource => "resource",
        }
    }

    /// `projects`, as keys, files and tools write it.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::Project => "projects",
            Self::Resource => "resources",
        }
    }

    /// The kind in an entry of any program, old or new.
    #[must_use]
    pub fn from_stored(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| text == kind.singular() || text == kind.plural())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.singular())
    }
}

/// What identifies a document: its kind and its id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentKey {
    /// The content type.
    pub kind: Kind,
    /// The id, which older programs did not always make a slug.
    pub id: String,
}

impl DocumentKey {
    /// The key of the document `id` of a kind.
    #[must_use]
    pub fn new(kind: Kind, id: impl Into<String>) -> Self {
        Self {
            kind,
            id: id.into(),
        }
    }
}

impl fmt::Display for DocumentKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} `{}`", self.kind, truncate(&self.id))
    }
}

/// The rule that binds every new id: lower-case words joined by hyphens.
///
/// The website's client reads set members as JSON, so `123`, `1e-7`, `true` and `null` would change
/// type on the way.
#[must_use]
pub fn is_slug(id: &str) -> bool {
    id.len() <= 100
        && id.split('-').all(|word| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        })
        && id.bytes().any(|byte| byte.is_ascii_lowercase())
        && !matches!(id, "true" | "false" | "null")
        && !is_number(id)
}

/// Whether a slug is a number to who reads it as one: `1e7`. Rust also reads `inf` and `nan`.
fn is_number(id: &str) -> bool {
    id.starts_with(|c: char| c.is_ascii_digit()) && id.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_lower_case_words_with_a_letter() {
        for id in ["rdv-artisan", "a", "2024-review", "x1", "1e", "nan", "e7"] {
            assert!(is_slug(id), "{id}");
        }
        for id in [
            "",
            "Rdv",
            "a--b",
            "-a",
            "a-",
            "../x",
            "123",
            "true",
            "null",
            "1e7",
            "1e-7",
            "é",
            "a b",
            &"a".repeat(101),
        ] {
            assert!(!is_slug(id), "{id}");
        }
    }
}

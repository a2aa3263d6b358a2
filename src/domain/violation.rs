//! Broken rules: where, which, and what to do about it.

use std::{borrow::Cow, fmt};

use serde::Serialize;

use super::{similar::nearest, text::truncate};

/// A broken rule: where, which, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Dotted path of the value (`client.type`, `tags[2]`); empty for the whole document.
    #[serde(serialize_with = "truncated")]
    pub path: String,
    /// What is expected, and what was found instead.
    pub message: String,
    /// For an unknown name, the nearest known one; for an id that is no slug, the slug that was meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
    /// The name of the rule. With the path it identifies the violation.
    #[serde(skip)]
    pub rule: Cow<'static, str>,
}

fn truncated<S: serde::Serializer>(path: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&truncate(path))
}

impl Violation {
    /// A violation of `rule` at `path`.
    pub fn new(
        path: impl Into<String>,
        rule: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
            suggestion: None,
            rule: rule.into(),
        }
    }

    /// An unknown name, with the nearest known one.
    pub fn unknown<'a>(
        path: impl Into<String>,
        what: &str,
        name: &str,
        known: impl IntoIterator<Item = &'a str, IntoIter: Clone>,
    ) -> Self {
        let suggestion = nearest(name, known);
        let hint = suggestion
            .as_ref()
            .map(|name| format!("; did you mean `{name}`?"))
            .unwrap_or_default();
        Self {
            suggestion,
            ..Self::new(path, "unknown", format!("unknown {what}{hint}"))
        }
    }

    /// Whether both are the same rule at the same path.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        self.path == other.path && self.rule == other.rule
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            formatter.write_str(&self.message)
        } else {
            write!(formatter, "{}: {}", truncate(&self.path), self.message)
        }
    }
}

//! The toolsets: which tools a server offers.

use std::fmt;

/// Tools that are offered together. [`ToolName::toolset`](super::tool_name::ToolName::toolset) says
/// which tool is in which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Toolset {
    /// Reading and updating documents, and the audit log.
    Content,
    /// What the audit log makes possible.
    History,
}

impl Toolset {
    /// All of them, in the order in which they are named.
    pub const ALL: [Self; 2] = [Self::Content, Self::History];

    /// The name, as `--toolsets` takes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Content => "content",
            Self::History => "history",
        }
    }
}

/// The toolsets that a server offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolsets(Vec<Toolset>);

/// What a server offers unless it is told otherwise.
impl Default for Toolsets {
    fn default() -> Self {
        Self(vec![Toolset::Content])
    }
}

impl Toolsets {
    /// Stands for all toolsets.
    const EVERY: &str = "all";

    /// The toolsets that a list of names says, in any order and with duplicates.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(list: &str) -> Result<Self, String> {
        let known = || Toolset::ALL.map(Toolset::as_str).join(", ");
        let names = list.split(',').map(str::trim);
        let names: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
        if names.is_empty() {
            return Err(format!(
                "expected at least one of {}, {}",
                known(),
                Self::EVERY
            ));
        }
        let is_known = |name: &str| {
            name == Self::EVERY || Toolset::ALL.iter().any(|toolset| toolset.as_str() == name)
        };
        if let Some(unknown) = names.iter().find(|name| !is_known(name)) {
            return Err(format!(
                "there is no toolset `{unknown}`; the toolsets are {}, or `{}` for every one",
                known(),
                Self::EVERY
            ));
        }
        let is_named =
            |toolset: &Toolset| names.contains(&Self::EVERY) || names.contains(&toolset.as_str());
        Ok(Self(Toolset::ALL.into_iter().filter(is_named).collect()))
    }

    /// Every toolset.
    #[must_use]
    pub fn all() -> Self {
        Self(Toolset::ALL.to_vec())
    }

    /// Whether this toolset is offered.
    #[must_use]
    pub fn contains(&self, toolset: Toolset) -> bool {
        self.0.contains(&toolset)
    }

    /// The same with one more.
    pub(super) fn with(&self, toolset: Toolset) -> Self {
        let is_wanted = |other: &Toolset| self.contains(*other) || *other == toolset;
        Self(Toolset::ALL.into_iter().filter(is_wanted).collect())
    }
}

/// As `--toolsets` takes them.
impl fmt::Display for Toolsets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(|toolset| toolset.as_str()).collect();
        formatter.write_str(&names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_duplicates_do_not_matter() {
        for (list, toolsets) in [
            ("content", "content"),
            (" history , content", "content,history"),
            ("content,history,content,", "content,history"),
            ("history", "history"),
            ("all", "content,history"),
            ("all,history", "content,history"),
        ] {
            assert_eq!(
                Toolsets::parse(list).unwrap().to_string(),
                toolsets,
                "{list}"
            );
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        for list in ["histories", "content,write", "Content"] {
            let problem = Toolsets::parse(list).unwrap_err();
            assert!(problem.contains("content, history"), "{problem}");
        }
        for list in ["", " , "] {
            assert!(
                Toolsets::parse(list).unwrap_err().contains("at least one"),
                "{list}"
            );
        }
    }
}

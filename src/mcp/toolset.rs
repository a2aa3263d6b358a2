//! The toolsets: groups of tools that a server offers or not. `tools/list`, the checks of arguments,
//! `tools/` and the table in README.md all come from [`Toolset::tools`].

use std::{str::FromStr, sync::Arc};

use super::tool_name::ToolName;
use crate::domain::{Kind, text::truncate};

/// A group of tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Toolset {
    /// Reads and edits documents, and reads the log.
    Content,
    /// Shows the past and undoes changes, as the log tells.
    History,
    /// Creates and deletes documents.
    Authoring,
    /// Changes many documents at once.
    Batch,
}

impl Toolset {
    /// Every toolset.
    pub const ALL: [Self; 4] = [Self::Content, Self::History, Self::Authoring, Self::Batch];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Content => "content",
            Self::History => "history",
            Self::Authoring => "authoring",
            Self::Batch => "batch",
        }
    }

    pub(super) fn tools(self) -> &'static [ToolName] {
        match self {
            Self::Content => &[
                ToolName::List(Kind::Project),
                ToolName::Get(Kind::Project),
                ToolName::Update(Kind::Project),
                ToolName::List(Kind::Resource),
                ToolName::Get(Kind::Resource),
                ToolName::Update(Kind::Resource),
                ToolName::AuditLog,
                ToolName::AuditStats,
            ],
            Self::History => &[ToolName::History, ToolName::Compare, ToolName::UndoChanges],
            Self::Authoring => &[
                ToolName::Create(Kind::Project),
                ToolName::Delete(Kind::Project),
                ToolName::Create(Kind::Resource),
                ToolName::Delete(Kind::Resource),
            ],
            Self::Batch => &[ToolName::UpdateMany],
        }
    }

    pub(super) fn of(tool: ToolName) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|toolset| toolset.tools().contains(&tool))
    }
}

impl ToolName {
    /// The tools of all toolsets.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let toolsets = Toolset::ALL.into_iter();
        toolsets.flat_map(|toolset| toolset.tools().iter().copied())
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::all().find(|tool| tool.as_str() == name)
    }
}

/// The toolsets that a server offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolsets(Arc<[Toolset]>);

impl Toolsets {
    pub(super) fn iter(&self) -> impl Iterator<Item = Toolset> {
        self.0.iter().copied()
    }

    pub(super) fn have(&self, toolset: Toolset) -> bool {
        self.0.contains(&toolset)
    }

    /// The toolset of a tool that is not offered, and the value of `--toolsets` that adds it.
    pub(super) fn missing_for(&self, tool: ToolName) -> Option<(Toolset, String)> {
        let missing = Toolset::of(tool).filter(|toolset| !self.have(*toolset))?;
        Some((missing, self.with(missing)))
    }

    /// The value of `--toolsets` that adds a toolset to these.
    pub(super) fn with(&self, added: Toolset) -> String {
        let names = Toolset::ALL
            .into_iter()
            .filter(|toolset| *toolset == added || self.have(*toolset))
            .map(Toolset::as_str);
        names.collect::<Vec<_>>().join(",")
    }

    fn of(offered: impl Fn(Toolset) -> bool) -> Self {
        let toolsets = Toolset::ALL.into_iter();
        Self(toolsets.filter(|toolset| offered(*toolset)).collect())
    }
}

impl Default for Toolsets {
    fn default() -> Self {
        Self::of(|toolset| toolset == Toolset::Content)
    }
}

/// A list of names separated by commas, in any order; an empty one means the default.
impl FromStr for Toolsets {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.to_lowercase();
        let names: Vec<&str> = text
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .collect();
        let is_known = |name: &&str| {
            *name == "all" || Toolset::ALL.iter().any(|toolset| toolset.as_str() == *name)
        };
        let unknown: Vec<String> = names
            .iter()
            .filter(|name| !is_known(name))
            .map(|name| format!("`{}`", truncate(name)))
            .collect();
        if !unknown.is_empty() {
            let known = Toolset::ALL.map(Toolset::as_str).join(", ");
            return Err(format!(
                "unknown: {}; expected names of toolsets separated by commas ({known}), or all",
                unknown.join(", ")
            ));
        }
        if names.is_empty() {
            return Ok(Self::default());
        }
        Ok(Self::of(|toolset| {
            names.contains(&"all") || names.contains(&toolset.as_str())
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<&'static str>, String> {
        let toolsets: Toolsets = text.parse()?;
        Ok(toolsets.iter().map(Toolset::as_str).collect())
    }

    #[test]
    fn order_case_blanks_and_duplicates_do_not_matter() {
        for text in ["content,history", " History , content,,content"] {
            assert_eq!(parse(text).unwrap(), ["content", "history"], "{text}");
        }
        for text in ["all", "history,all", "batch,authoring,history,content"] {
            let every = ["content", "history", "authoring", "batch"];
            assert_eq!(parse(text).unwrap(), every, "{text}");
        }
        assert_eq!(parse("history").unwrap(), ["history"]);
        for text in ["content", "", " , "] {
            assert_eq!(parse(text).unwrap(), ["content"], "{text}");
        }
    }

    #[test]
    fn unknown_names_are_refused_together_with_the_known_ones() {
        let problem = parse("content,histroy,bach").unwrap_err();

        assert!(
            problem.starts_with("unknown: `histroy`, `bach`; "),
            "{problem}"
        );
        assert!(
            problem.contains("(content, history, authoring, batch), or all"),
            "{problem}"
        );
    }

    #[test]
    fn every_tool_is_in_one_toolset() {
        let tools: Vec<&str> = ToolName::all().map(ToolName::as_str).collect();
        let mut distinct = tools.clone();
        distinct.sort_unstable();
        distinct.dedup();

        assert_eq!(tools.len(), distinct.len(), "{tools:?}");
    }
}

//! The tools' names, and what depends on them.

use super::toolset::Toolset;
use crate::domain::Kind;

/// The name of a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ToolName {
    List(Kind),
    Get(Kind),
    Update(Kind),
    AuditLog,
    AuditStats,
    UndoChanges,
}

impl ToolName {
    pub(super) const ALL: [Self; 9] = [
        Self::List(Kind::Project),
        Self::Get(Kind::Project),
        Self::Update(Kind::Project),
        Self::List(Kind::Resource),
        Self::Get(Kind::Resource),
        Self::Update(Kind::Resource),
        Self::AuditLog,
        Self::AuditStats,
        Self::UndoChanges,
    ];

    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tool| tool.as_str() == name)
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::List(Kind::Project) => "list_projects",
            Self::List(Kind::Resource) => "list_resources",
            Self::Get(Kind::Project) => "get_project",
            Self::Get(Kind::Resource) => "get_resource",
            Self::Update(Kind::Project) => "update_project",
            Self::Update(Kind::Resource) => "update_resource",
            Self::AuditLog => "get_audit_log",
            Self::AuditStats => "get_audit_stats",
            Self::UndoChanges => "undo_changes",
        }
    }

    /// The code of errors that have no code of their own.
    pub(super) fn error_code(self) -> &'static str {
        match self {
            Self::List(Kind::Project) => "LIST_PROJECTS_ERROR",
            Self::List(Kind::Resource) => "LIST_RESOURCES_ERROR",
            Self::Get(Kind::Project) => "GET_PROJECT_ERROR",
            Self::Get(Kind::Resource) => "GET_RESOURCE_ERROR",
            Self::Update(Kind::Project) => "UPDATE_PROJECT_ERROR",
            Self::Update(Kind::Resource) => "UPDATE_RESOURCE_ERROR",
            Self::AuditLog => "AUDIT_LOG_ERROR",
            Self::AuditStats => "AUDIT_STATS_ERROR",
            Self::UndoChanges => "TOOL_ERROR",
        }
    }

    /// The toolset that it belongs to.
    pub(super) fn toolset(self) -> Toolset {
        match self {
            Self::List(_) | Self::Get(_) | Self::Update(_) | Self::AuditLog | Self::AuditStats => {
                Toolset::Content
            }
            Self::UndoChanges => Toolset::History,
        }
    }

    /// Whether it is a writing tool.
    pub(super) fn writes(self) -> bool {
        match self {
            Self::Update(_) | Self::UndoChanges => true,
            Self::List(_) | Self::Get(_) | Self::AuditLog | Self::AuditStats => false,
        }
    }

    /// The kind of document that the tool writes, if it writes one.
    pub(super) fn written_kind(self) -> Option<Kind> {
        match self {
            Self::Update(kind) => Some(kind),
            Self::List(_)
            | Self::Get(_)
            | Self::AuditLog
            | Self::AuditStats
            | Self::UndoChanges => None,
        }
    }
}

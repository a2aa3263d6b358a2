//! The tools' names, and what depends on them.

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
    History,
    Compare,
    Create(Kind),
    Delete(Kind),
    UpdateMany,
}

/// What a call of a tool may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Reads,
    Writes,
}

impl ToolName {
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
            Self::History => "get_history",
            Self::Compare => "compare_content",
            Self::Create(Kind::Project) => "create_project",
            Self::Create(Kind::Resource) => "create_resource",
            Self::Delete(Kind::Project) => "delete_project",
            Self::Delete(Kind::Resource) => "delete_resource",
            Self::UpdateMany => "update_many",
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
            Self::UndoChanges
            | Self::History
            | Self::Compare
            | Self::Create(_)
            | Self::Delete(_)
            | Self::UpdateMany => "TOOL_ERROR",
        }
    }

    pub(super) fn effect(self) -> Effect {
        match self {
            Self::Update(_)
            | Self::UndoChanges
            | Self::Create(_)
            | Self::Delete(_)
            | Self::UpdateMany => Effect::Writes,
            Self::List(_)
            | Self::Get(_)
            | Self::AuditLog
            | Self::AuditStats
            | Self::History
            | Self::Compare => Effect::Reads,
        }
    }

    /// The kind of the one document that the tool writes, if it is such a tool.
    pub(super) fn written_kind(self) -> Option<Kind> {
        match self {
            Self::Update(kind) | Self::Create(kind) | Self::Delete(kind) => Some(kind),
            Self::List(_)
            | Self::Get(_)
            | Self::AuditLog
            | Self::AuditStats
            | Self::UndoChanges
            | Self::History
            | Self::Compare
            | Self::UpdateMany => None,
        }
    }

    /// Whether it takes `asOf`, where the toolset is on that reads the past.
    pub(super) fn takes_as_of(self) -> bool {
        matches!(self, Self::List(_) | Self::Get(_))
    }

    /// Whether its `since` and `until` may be audit ids, and not only times.
    pub(super) fn takes_points_in_time(self) -> bool {
        self == Self::Compare
    }
}

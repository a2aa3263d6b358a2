//! The answer to arguments that break rules: every violation at once, those of the change included.

use rmcp::{
    ErrorData,
    model::{CallToolResponse, JsonObject},
};

use super::{error::ToolError, server::ContentServer, tool_name::ToolName};
use crate::{deadline::Deadline, domain::Violation};

impl ContentServer {
    pub(super) async fn reject(
        &self,
        tool: ToolName,
        arguments: &JsonObject,
        mut violations: Vec<Violation>,
        deadline: Deadline,
    ) -> Result<CallToolResponse, ErrorData> {
        match tool {
            _ if arguments.contains_key("plan") => {}
            ToolName::Update(kind) if !arguments.contains_key("undo") => {
                return self
                    .reject_or_replay(kind, arguments, violations, deadline)
                    .await;
            }
            ToolName::Create(kind) => {
                let more = self.creation_violations(kind, arguments, deadline);
                add(&mut violations, more.await);
            }
            ToolName::UpdateMany => {
                let more = self.many_violations(arguments, deadline);
                add(&mut violations, more.await);
            }
            ToolName::Update(_)
            | ToolName::Delete(_)
            | ToolName::List(_)
            | ToolName::Get(_)
            | ToolName::AuditLog
            | ToolName::AuditStats
            | ToolName::UndoChanges
            | ToolName::History
            | ToolName::Compare => {}
        }
        ToolError::invalid_arguments(tool, &violations, self.content.now()).into_response()
    }
}

/// Adds what is wrong with the change. What the arguments break at the same path is the nearer cause.
fn add(violations: &mut Vec<Violation>, mut more: Vec<Violation>) {
    more.retain(|violation| !violations.iter().any(|other| other.path == violation.path));
    violations.append(&mut more);
}

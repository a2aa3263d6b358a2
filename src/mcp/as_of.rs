//! `asOf`: the reading tools on the content of the past, where the toolset `history` is on.

use std::sync::Arc;

use rmcp::model::{JsonObject, Tool};
use serde_json::Value;

use super::{
    error::ToolError,
    meta::{DocumentMeta, LastChange, fitting_warnings},
    output::{DocumentBody, ToolOutput, room_beside},
    server::ContentServer,
    tool_name::ToolName,
    toolset::Toolset,
};
use crate::{
    deadline::Deadline,
    domain::{Document, DocumentKey, HistoryGap, PointInTime, StoredEntry, Violation},
    service::LogPoint,
};

/// The argument.
pub(super) const AS_OF: &str = "asOf";

impl ContentServer {
    /// What is wrong with arguments that ask for the past where it is not offered.
    pub(super) fn as_of_is_off(&self, tool: ToolName, arguments: &JsonObject) -> Option<Violation> {
        let is_off = tool.takes_as_of()
            && arguments.contains_key(AS_OF)
            && !self.toolsets.have(Toolset::History);
        is_off.then(|| {
            let message = format!(
                "unknown argument, because the toolset `{}` is off; to turn it on, start the server with `--toolsets {}` (or PORTFOLIO_TOOLSETS)",
                Toolset::History.as_str(),
                self.toolsets.with(Toolset::History)
            );
            Violation::new(AS_OF, "unknown", message)
        })
    }

    /// The point in time that an argument names.
    pub(super) async fn log_point(
        &self,
        tool: ToolName,
        argument: &'static str,
        text: &str,
        deadline: Deadline,
    ) -> Result<LogPoint, ToolError> {
        let point = PointInTime::parse(text, argument).map_err(|violation| {
            ToolError::invalid_arguments(tool, &[violation], self.content.now())
        })?;
        let point = self.content.log_point(&point, argument, deadline).await;
        point.map_err(|error| self.read_error(tool, error))
    }

    /// One document as it was.
    pub(super) async fn get_as_of<D: Document>(
        &self,
        key: DocumentKey,
        as_of: &str,
        deadline: Deadline,
    ) -> Result<ToolOutput<DocumentBody<D>, DocumentMeta>, ToolError> {
        let tool = ToolName::Get(D::KIND);
        let point = self.log_point(tool, AS_OF, as_of, deadline).await?;
        let record = self.content.get_as_of(key, &point, deadline).await;
        let record = record.map_err(|error| self.read_error(tool, error))?;
        let mut meta = DocumentMeta {
            freshness: self.freshness(None),
            version: record.version().clone(),
            as_of: last_change(&point),
            url: None,
            warnings: Vec::new(),
        };
        let document = DocumentBody::new(&record);
        if !record.violations().is_empty() {
            let violations = record.violations().iter().map(ToString::to_string);
            meta.warnings = fitting_warnings(violations, room_beside(&document, &meta));
        }
        Ok(ToolOutput::new(document, meta))
    }
}

/// The last change up to a point.
pub(super) fn last_change(point: &LogPoint) -> Option<LastChange> {
    let entry = point.entry()?;
    Some(LastChange {
        audit_id: entry.text_of("id").map(ToOwned::to_owned),
        timestamp: entry.timestamp().map(|time| time.to_string()),
    })
}

/// What cursors of the content of a point are bound to.
pub(super) fn identity(point: &LogPoint) -> Option<String> {
    point.entry().map(StoredEntry::digest)
}

/// About a document that is left out, because the log does not say what it was.
pub(super) fn left_out((key, gap): &(DocumentKey, HistoryGap)) -> String {
    format!("{key} is left out: what it was then is not known; {gap}")
}

/// Takes the argument out of a tool where it is not offered.
pub(super) fn leave_out(tool: &mut Tool) {
    if !ToolName::parse(&tool.name).is_some_and(ToolName::takes_as_of) {
        return;
    }
    let mut schema = JsonObject::clone(&tool.input_schema);
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.shift_remove(AS_OF);
    }
    tool.input_schema = Arc::new(schema);
}

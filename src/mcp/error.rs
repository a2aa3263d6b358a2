//! Errors as a model reads them: what was asked, what is wrong, what to do.
//!
//! A failed tool answers with text alone: strict clients check structured content against the output schema even then.

use std::{borrow::Cow, time::Duration};

use rmcp::{
    ErrorData,
    handler::server::tool::IntoCallToolResult,
    model::{CallToolResponse, ContentBlock, IntoContents},
};
use serde_json::{Value, json};

use super::{metrics::count_call, tool::ToolName};
use crate::{
    domain::{
        DocumentKey, Kind, Timestamp, Version, Violation,
        text::{escape_invisible, truncate},
    },
    service::Error,
};

/// A message lists this many violations; the details list all.
const MAX_LISTED_VIOLATIONS: usize = 50;

/// A failed call of a tool, in the contract's form.
#[derive(Debug)]
pub struct ToolError {
    tool: ToolName,
    code: Cow<'static, str>,
    message: String,
    details: Option<Value>,
    timestamp: Timestamp,
}

impl ToolError {
    /// The answer to an error of the service. `keyed` says whether the call had an idempotency key.
    pub(super) fn new(tool: ToolName, error: Error, keyed: Keyed, timestamp: Timestamp) -> Self {
        let unchanged = match tool.written_kind() {
            Some(_) => ", so nothing was changed",
            None => "",
        };
        let simple = |code: &'static str, message: String| (Cow::Borrowed(code), message, None);
        let (code, message, details) = match error {
            Error::Invalid(violations) => {
                return Self::invalid(tool, "nothing was changed", &violations, timestamp);
            }
            Error::NotFound { key, similar } => not_found(&key, &similar),
            Error::Conflict { key, current } => conflict(&key, current.as_ref()),
            Error::IdempotencyMismatch => simple(
                "IDEMPOTENCY_MISMATCH",
                "nothing was changed: this idempotencyKey was used before for a different request; use a new key for a new request"
                    .to_owned(),
            ),
            Error::ReadOnly {
                reason,
                retry_after,
                ..
            } => read_only(&reason, retry_after),
            Error::Unavailable { .. } => simple(
                "STORE_UNAVAILABLE",
                format!(
                    "the store cannot be reached{unchanged}; try again in a moment{}",
                    keyed.hint()
                ),
            ),
            Error::AccessDenied { reason, .. } => simple(
                "STORE_UNAVAILABLE",
                format!(
                    "{reason}{unchanged}; ask whoever runs this server to fix it (the server's log has the details){}",
                    keyed.hint()
                ),
            ),
            Error::Busy { key } => simple(
                "STORE_UNAVAILABLE",
                format!(
                    "other writes to {key} took too long, so this one was not started and nothing was changed; try again in a moment{}",
                    keyed.hint()
                ),
            ),
            Error::OutcomeUnknown { .. } => {
                simple("OUTCOME_UNKNOWN", outcome_unknown(tool, keyed))
            }
            Error::Corrupt { key, problem } => (
                Cow::Borrowed(tool.error_code()),
                format!(
                    "the value at `{}` cannot be used: {problem}; ask the site's developer to restore it from a backup or delete the key",
                    truncate(&key)
                ),
                Some(json!({ "key": truncate(&key) })),
            ),
            Error::Internal { .. } => simple(
                tool.error_code(),
                format!(
                    "the store failed{unchanged}; if it happens again, ask whoever runs this server (the server's log has the details)"
                ),
            ),
        };
        Self {
            tool,
            code,
            message,
            details,
            timestamp,
        }
    }

    /// A patch that breaks rules.
    pub(super) fn invalid_change(
        tool: ToolName,
        key: &DocumentKey,
        violations: &[Violation],
        timestamp: Timestamp,
    ) -> Self {
        Self::invalid(
            tool,
            &format!("{key} was not changed"),
            violations,
            timestamp,
        )
    }

    /// Arguments that break rules.
    pub(super) fn invalid_arguments(
        tool: ToolName,
        violations: &[Violation],
        timestamp: Timestamp,
    ) -> Self {
        Self::invalid(
            tool,
            &format!("{} was not carried out", tool.as_str()),
            violations,
            timestamp,
        )
    }

    /// A call of a writing tool where nothing can be written.
    pub(super) fn read_only(tool: ToolName, reason: &str, timestamp: Timestamp) -> Self {
        let (code, message, details) = read_only(reason, None);
        Self {
            tool,
            code,
            message,
            details,
            timestamp,
        }
    }

    /// A call that panicked. A commit has a task of its own, so if it was started, it is whole.
    pub(super) fn panicked(tool: ToolName, timestamp: Timestamp) -> Self {
        let message = format!(
            "{} failed unexpectedly; try again, and if it fails again, tell the site's developer (the server's log has the details)",
            tool.as_str()
        );
        Self {
            tool,
            code: Cow::Borrowed(tool.error_code()),
            message,
            details: None,
            timestamp,
        }
    }

    /// A call that ran out of time. What precedes a commit has a deadline of its own, so a write that comes here was started.
    pub(super) fn timed_out(tool: ToolName, keyed: Keyed, timestamp: Timestamp) -> Self {
        let (code, message) = match tool.written_kind() {
            Some(_) => ("OUTCOME_UNKNOWN", outcome_unknown(tool, keyed)),
            None => (
                "STORE_UNAVAILABLE",
                "the store did not answer within 10 seconds; try again in a moment".to_owned(),
            ),
        };
        Self {
            tool,
            code: Cow::Borrowed(code),
            message,
            details: None,
            timestamp,
        }
    }

    /// A call for which there was no permit.
    pub(super) fn busy(tool: ToolName, calls: usize, timestamp: Timestamp) -> Self {
        let message = format!(
            "the server is busy with {calls} other calls, so {} was not started and nothing was changed; try again in a moment",
            tool.as_str()
        );
        Self {
            tool,
            code: Cow::Borrowed("STORE_UNAVAILABLE"),
            message,
            details: None,
            timestamp,
        }
    }

    fn invalid(
        tool: ToolName,
        headline: &str,
        violations: &[Violation],
        timestamp: Timestamp,
    ) -> Self {
        let count = violations.len();
        let mut message = format!(
            "{headline}, {count} problem{}:",
            if count == 1 { "" } else { "s" }
        );
        for violation in violations.iter().take(MAX_LISTED_VIOLATIONS) {
            message.push_str("\n  ");
            message.push_str(&violation.to_string());
        }
        if count > MAX_LISTED_VIOLATIONS {
            message.push_str("\n  and more, all in details.violations");
        }
        Self {
            tool,
            code: Cow::Borrowed("VALIDATION_FAILED"),
            message,
            details: Some(json!({ "violations": violations })),
            timestamp,
        }
    }
}

/// Whether a call had an idempotency key, on which the advice depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keyed {
    Yes,
    No,
}

impl Keyed {
    /// Whether `arguments` have a key.
    pub(super) fn of(arguments: &serde_json::Map<String, Value>) -> Self {
        match arguments.get("idempotencyKey") {
            Some(Value::String(_)) => Self::Yes,
            _ => Self::No,
        }
    }

    /// Of this call it is certain that nothing was changed, but the key may be one of an earlier call.
    fn hint(self) -> &'static str {
        match self {
            Self::Yes => {
                ". If an earlier call with this idempotencyKey had no clear answer, it may have been carried out: repeat it"
            }
            Self::No => "",
        }
    }
}

type Parts = (Cow<'static, str>, String, Option<Value>);

fn not_found(key: &DocumentKey, similar: &[String]) -> Parts {
    let hint = if similar.is_empty() {
        format!("list_{} lists the ids", key.kind.plural())
    } else {
        let ids: Vec<String> = similar
            .iter()
            .map(|id| format!("`{}`", truncate(id)))
            .collect();
        format!("did you mean {}?", ids.join(", "))
    };
    let code = match key.kind {
        Kind::Project => "PROJECT_NOT_FOUND",
        Kind::Resource => "RESOURCE_NOT_FOUND",
    };
    (
        Cow::Borrowed(code),
        format!("there is no {key}; {hint}"),
        Some(json!({ "similar": similar })),
    )
}

fn conflict(key: &DocumentKey, current: Option<&Version>) -> Parts {
    let now = current.map_or_else(String::new, |version| {
        format!(" (its version is now `{version}`)")
    });
    let message = format!(
        "{key} was not changed: someone changed it after you read it{now}. Read it again with get_{}, check that the change still fits, and repeat it with the new version",
        key.kind
    );
    let details = current.map(|version| json!({ "currentVersion": version }));
    (Cow::Borrowed("VERSION_CONFLICT"), message, details)
}

fn read_only(reason: &str, retry_after: Option<Duration>) -> Parts {
    let code = Cow::Borrowed("STORE_READ_ONLY");
    let Some(pause) = retry_after else {
        return (code, format!("nothing was changed: {reason}"), None);
    };
    let millis = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX).max(1);
    (
        code,
        format!("nothing was changed: {reason}; try again after {millis} ms"),
        Some(json!({ "retryAfterMs": millis })),
    )
}

fn outcome_unknown(tool: ToolName, keyed: Keyed) -> String {
    let get = tool
        .written_kind()
        .map_or_else(|| "the get tool".to_owned(), |kind| format!("get_{kind}"));
    let remedy = match keyed {
        Keyed::Yes => "Repeat the call with the same idempotencyKey".to_owned(),
        Keyed::No => format!("Call {get} and compare before you try again"),
    };
    format!(
        "the connection to the store was lost during the write, so the change may or may not have been made. {remedy}"
    )
}

/// The result of a failed call.
pub(super) fn failed(error: ToolError) -> Result<CallToolResponse, ErrorData> {
    Err::<(), _>(error).into_call_tool_result()
}

/// Rendering is the one moment that every failed call passes once, so it is counted here.
impl IntoContents for ToolError {
    fn into_contents(self) -> Vec<ContentBlock> {
        count_call(self.tool.as_str(), self.code.clone());
        let mut error = json!({ "code": self.code, "message": self.message, "timestamp": self.timestamp.to_string() });
        if let (Some(members), Some(details)) = (error.as_object_mut(), self.details) {
            members.insert("details".to_owned(), details);
        }
        // Ids that are similar to the requested one are given as they are, because they are to be used; nothing in them may
        // hide.
        vec![ContentBlock::text(escape_invisible(
            json!({ "success": false, "error": error }).to_string(),
        ))]
    }
}

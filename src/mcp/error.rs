//! Errors as a model reads them: what was asked, what is wrong, what to do.
//!
//! A failed tool answers with text alone: strict clients check structured content against the output schema even then.

use rmcp::model::{CallToolResponse, ContentBlock, IntoContents};
use serde_json::{Value, json};
use tracing::warn;

use crate::{
    domain::{DocumentKey, Kind, Timestamp, Violation, text::escaped, text::truncate},
    service::Error,
    store::StoreError,
};

/// A message tells so many violations; the details tell all.
const MOST_LINES: usize = 50;

/// A refusal or failure of a tool, in the contract's form.
#[derive(Debug)]
pub struct ToolError {
    code: String,
    message: String,
    details: Option<Value>,
    timestamp: Timestamp,
}

impl ToolError {
    /// The answer to `error`, which a tool that does `verb` to documents of `kind` met.
    pub(super) fn new(verb: &str, kind: Kind, error: Error, timestamp: Timestamp) -> Self {
        let upper = kind.singular().to_uppercase();
        let fallback = if verb == "LIST" {
            format!("LIST_{upper}S_ERROR")
        } else {
            format!("{verb}_{upper}_ERROR")
        };
        Self::of(&fallback, Some(kind), error, timestamp)
    }

    /// The answer to `error`, which an audit tool met.
    pub(super) fn audit(code: &str, error: Error, timestamp: Timestamp) -> Self {
        Self::of(code, None, error, timestamp)
    }

    /// A patch that breaks rules.
    pub(super) fn invalid_change(
        key: &DocumentKey,
        violations: &[Violation],
        timestamp: Timestamp,
    ) -> Self {
        Self::invalid(&format!("{key} was not changed"), violations, timestamp)
    }

    /// Arguments that break rules.
    pub(super) fn invalid_arguments(
        tool: &str,
        violations: &[Violation],
        timestamp: Timestamp,
    ) -> Self {
        Self::invalid(
            &format!("{tool} was not carried out"),
            violations,
            timestamp,
        )
    }

    /// A call that panicked. A commit has a task of its own, so it is whole, if it was begun.
    pub(super) fn panicked(tool: &str, timestamp: Timestamp) -> Self {
        let code = match tool {
            "get_audit_log" => "AUDIT_LOG_ERROR".to_owned(),
            "get_audit_stats" => "AUDIT_STATS_ERROR".to_owned(),
            other => format!("{}_ERROR", other.to_uppercase()),
        };
        let message = format!(
            "{tool} failed unexpectedly; try again, and tell the site's developer, whose log says more, if it fails again"
        );
        Self {
            code,
            message,
            details: None,
            timestamp,
        }
    }

    /// A call that ran out of time. What precedes a commit has a time of its own, so a write that comes here was begun.
    pub(super) fn late(tool: &str, kind: Option<Kind>, timestamp: Timestamp) -> Self {
        let error = match kind {
            Some(_) => StoreError::OutcomeUnknown("no answer within 10 seconds".to_owned()),
            None => StoreError::Unavailable("no answer within 10 seconds".to_owned()),
        };
        Self::of(tool, kind, error.into(), timestamp)
    }

    /// A call that found no place among those under way.
    pub(super) fn busy(tool: &str, calls: usize, timestamp: Timestamp) -> Self {
        warn!("{tool} was turned away: {calls} calls are under way");
        let message = format!(
            "the server is busy with {calls} other calls, so {tool} was not begun and nothing was changed; try again in a moment"
        );
        Self {
            code: "STORE_UNAVAILABLE".to_owned(),
            message,
            details: None,
            timestamp,
        }
    }

    /// The same with something more to say.
    pub(super) fn with_hint(mut self, hint: &str) -> Self {
        self.message.push_str(hint);
        self
    }

    fn invalid(headline: &str, violations: &[Violation], timestamp: Timestamp) -> Self {
        let count = violations.len();
        let mut message = format!(
            "{headline}, {count} problem{}:",
            if count == 1 { "" } else { "s" }
        );
        for violation in violations.iter().take(MOST_LINES) {
            message.push_str("\n  ");
            message.push_str(&violation.to_string());
        }
        if count > MOST_LINES {
            message.push_str("\n  and more, all in details.violations");
        }
        Self {
            code: "VALIDATION_FAILED".to_owned(),
            message,
            details: Some(json!({ "violations": violations })),
            timestamp,
        }
    }

    fn of(fallback: &str, kind: Option<Kind>, error: Error, timestamp: Timestamp) -> Self {
        let tools = |verb: &str| {
            kind.map_or_else(|| "the tool".to_owned(), |kind| format!("{verb}_{kind}"))
        };
        let (code, message, details) = match error {
            Error::Invalid(violations) => {
                return Self::invalid("nothing was changed", &violations, timestamp);
            }
            Error::NotFound { key, similar } => {
                let hint = match similar.as_slice() {
                    [] => format!("list_{} gives the ids there are", key.kind.plural()),
                    ids => format!(
                        "did you mean {}?",
                        ids.iter()
                            .map(|id| format!("`{}`", truncate(id)))
                            .collect::<Vec<_>>()
                            .join(", ")
                    ),
                };
                let code = format!("{}_NOT_FOUND", key.kind.singular().to_uppercase());
                (
                    code,
                    format!("there is no {key}; {hint}"),
                    Some(json!({ "similar": similar })),
                )
            }
            Error::Conflict { key, current } => {
                let remedy = format!(
                    "read it again with {}, check that the change still fits, and repeat it with the new version",
                    tools("get")
                );
                let details = current.map(|version| json!({ "currentVersion": version }));
                (
                    "VERSION_CONFLICT".to_owned(),
                    format!(
                        "{key} was not changed: it is not, or no longer, the version that this change was made for; {remedy}"
                    ),
                    details,
                )
            }
            Error::Store(error) => match error {
                StoreError::Conflict => (
                    "VERSION_CONFLICT".to_owned(),
                    "the document was changed in the meantime; read it again".to_owned(),
                    None,
                ),
                StoreError::Mismatch => {
                    let message = "nothing was changed: this idempotencyKey was used before for a different request; use a new key for a new request";
                    ("IDEMPOTENCY_MISMATCH".to_owned(), message.to_owned(), None)
                }
                StoreError::ReadOnly(reason) => (
                    "STORE_READ_ONLY".to_owned(),
                    format!("nothing was changed: {reason}"),
                    None,
                ),
                StoreError::Paused {
                    reason,
                    retry_after,
                } => {
                    let millis = u64::try_from(retry_after.as_millis())
                        .unwrap_or(u64::MAX)
                        .max(1);
                    let message =
                        format!("nothing was changed: {reason}; try again after {millis} ms");
                    (
                        "STORE_READ_ONLY".to_owned(),
                        message,
                        Some(json!({ "retryAfterMs": millis })),
                    )
                }
                // These two are logged by the store, once for each outage and not for each call.
                StoreError::Unavailable(problem) => (
                    "STORE_UNAVAILABLE".to_owned(),
                    format!(
                        "the store cannot be reached: {problem}; nothing was written, try again in a moment"
                    ),
                    None,
                ),
                error @ StoreError::Refused(_) => (
                    "STORE_UNAVAILABLE".to_owned(),
                    format!("{error}; nothing was written"),
                    None,
                ),
                StoreError::OutcomeUnknown(problem) => {
                    warn!("the outcome of a commit is unknown: {problem}");
                    let message = format!(
                        "the connection to the store was lost while writing; the change may or may not be there. \
                         Repeat the call with the same idempotencyKey, or call {} and compare before trying again",
                        tools("get")
                    );
                    ("OUTCOME_UNKNOWN".to_owned(), message, None)
                }
                StoreError::Corrupt { key, problem } => {
                    let message = format!(
                        "the value at `{}` cannot be used: {problem}; the site's developer has to restore it from a backup or delete the key",
                        truncate(&key)
                    );
                    (
                        fallback.to_owned(),
                        message,
                        Some(json!({ "key": truncate(&key) })),
                    )
                }
                StoreError::Failed(problem) => {
                    warn!("the store failed: {problem}");
                    (
                        fallback.to_owned(),
                        format!("the store failed: {problem}; nothing was changed"),
                        None,
                    )
                }
            },
        };
        Self {
            code,
            message,
            details,
            timestamp,
        }
    }
}

/// The code of a failed tool's answer. It is read from the answer, so that what is counted is what the client was told.
pub(super) fn code(answer: &CallToolResponse) -> Option<String> {
    let CallToolResponse::Complete(result) = answer else {
        return None;
    };
    let text = &result
        .content
        .first()
        .filter(|_| result.is_error == Some(true))?
        .as_text()?
        .text;
    let said: Value = serde_json::from_str(text).ok()?;
    said.pointer("/error/code")?.as_str().map(ToOwned::to_owned)
}

impl IntoContents for ToolError {
    fn into_contents(self) -> Vec<ContentBlock> {
        let mut error = json!({ "code": self.code, "message": self.message, "timestamp": self.timestamp.to_string() });
        if let (Some(members), Some(details)) = (error.as_object_mut(), self.details) {
            members.insert("details".to_owned(), details);
        }
        // Ids near the one that was asked for are told as they are, because they are to be used; nothing in them may hide.
        vec![ContentBlock::text(escaped(
            json!({ "success": false, "error": error }).to_string(),
        ))]
    }
}

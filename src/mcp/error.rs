//! Failed tool calls, in words for the model: what was asked, what is wrong, what to do.
//!
//! A failed call returns text only, because strict clients check structured content against the
//! output schema even then.

use std::time::Duration;

use rmcp::{
    ErrorData,
    handler::server::tool::IntoCallToolResult,
    model::{CallToolResponse, ContentBlock, IntoContents, JsonObject},
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    entry_row::change_row,
    metrics::count_call,
    output::MAX_ANSWER_BYTES,
    outside,
    tool_name::{Effect, ToolName},
};
use crate::{
    domain::{
        DocumentKey, HistoryGap, Kind, PlanApplication, StoredEntry, Timestamp, Version, Violation,
        text::{compact_json, escape_all, truncate},
    },
    service::{ApplyRequest, Error, UndoRequest, UpdateRequest, WriteOptions},
};

/// An error lists this many violations and counts the rest: a call of 230 KB can have 50,000.
const MAX_LISTED_VIOLATIONS: usize = 50;
/// And this much text of violations; the rest of an answer has room beside it.
const MAX_LISTED_BYTES: usize = MAX_ANSWER_BYTES - 1000;

const MISMATCH: &str = "nothing was changed: this idempotencyKey was used before for a different request; send a new key with a new request";
const WAIT: &str = "try again in a moment";
const REPORT: &str = "report this to the server's administrator (details are in the server's log)";

/// A failed call of a tool, in the contract's form.
#[derive(Debug)]
pub struct ToolError {
    tool: ToolName,
    code: &'static str,
    message: String,
    details: Option<Value>,
    timestamp: Timestamp,
}

/// Which optional arguments a call has. The advice in a message depends on them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct CallOptions {
    idempotency_key: bool,
    expected_version: bool,
    plan: bool,
}

impl CallOptions {
    pub(super) fn of_arguments(arguments: &JsonObject) -> Self {
        let has = |name: &str| arguments.get(name).is_some_and(Value::is_string);
        Self {
            idempotency_key: has("idempotencyKey"),
            expected_version: has("expectedVersion"),
            plan: has("plan"),
        }
    }

    pub(super) fn of_request(request: &UpdateRequest) -> Self {
        Self {
            idempotency_key: request.idempotency_key.is_some(),
            expected_version: request.expected_version.is_some(),
            plan: false,
        }
    }

    pub(super) fn of_write(options: &WriteOptions) -> Self {
        Self {
            idempotency_key: options.idempotency_key.is_some(),
            expected_version: false,
            plan: false,
        }
    }

    /// The same for a call that says which version it has read.
    pub(super) fn expecting_version(self) -> Self {
        Self {
            expected_version: true,
            ..self
        }
    }

    pub(super) fn of_undo(request: &UndoRequest) -> Self {
        Self {
            idempotency_key: request.idempotency_key.is_some(),
            expected_version: !request.expected_versions.is_empty(),
            plan: false,
        }
    }

    pub(super) fn of_plan(request: &ApplyRequest) -> Self {
        Self {
            idempotency_key: request.idempotency_key.is_some(),
            plan: true,
            ..Self::default()
        }
    }

    /// This call certainly changed nothing, but an earlier call with its key may have.
    fn retry_hint(self) -> &'static str {
        if self.idempotency_key {
            ". Keep the idempotencyKey when you try again: if an earlier call with it succeeded, you get that call's result"
        } else {
            ""
        }
    }
}

impl ToolError {
    /// The error of the service, for a call with these options.
    pub(super) fn new(
        tool: ToolName,
        error: Error,
        options: CallOptions,
        timestamp: Timestamp,
    ) -> Self {
        let failure = |code, message| Self::without_details(tool, code, message, timestamp);
        let (unchanged, hint) = (unchanged(tool), options.retry_hint());
        let unavailable = |problem: &str, remedy: &str| {
            let message = format!("{problem}{unchanged}; {remedy}{hint}");
            failure("STORE_UNAVAILABLE", message)
        };
        match error {
            Error::Invalid(violations) => {
                Self::invalid(tool, "nothing was changed", &violations, timestamp)
            }
            Error::NotFound {
                key,
                similar,
                found_as,
                deleted_outside,
            } => {
                let message = not_found(&key, &similar, found_as, deleted_outside);
                let mut details = json!({ "similar": similar });
                if let (Some(details), Some(kind)) = (details.as_object_mut(), found_as) {
                    details.insert("foundAs".to_owned(), json!(kind));
                }
                if let (Some(details), Some(after)) = (details.as_object_mut(), deleted_outside) {
                    details.insert("deletedOutside".to_owned(), json!(after.to_string()));
                }
                failure(not_found_code(key.kind), message).with_details(details)
            }
            Error::NotThen { ref key, gap } => {
                failure(not_found_code(key.kind), error.to_string()).with_details(not_then(gap))
            }
            Error::Exists { key, current } => failure(exists_code(key.kind), exists(&key))
                .with_details(json!({ "currentVersion": current })),
            Error::Conflict {
                key,
                current,
                changed_since,
                changed_outside,
            } => {
                let conflict = Conflict {
                    tool,
                    key: &key,
                    current: current.as_ref(),
                    changed_outside,
                };
                let message = conflict.message(options);
                let mut error = failure("VERSION_CONFLICT", message);
                error.details = conflict_details(current, &changed_since, changed_outside);
                error
            }
            Error::PlanNotFound { applied } => {
                let message = plan_not_found(applied.as_ref());
                let mut error = failure("PLAN_NOT_FOUND", message);
                error.details = applied.map(application_details);
                error
            }
            Error::IdempotencyMismatch => failure("IDEMPOTENCY_MISMATCH", MISMATCH.to_owned()),
            Error::ReadOnly {
                reason,
                retry_after,
                ..
            } => {
                let mut error = Self::read_only(tool, &reason, retry_after, timestamp);
                if retry_after.is_some() {
                    error.message.push_str(hint);
                }
                error
            }
            Error::Unavailable { .. } => unavailable("the store cannot be reached", WAIT),
            error @ Error::Loading => unavailable(&error.to_string(), WAIT),
            Error::AccessDenied { reason, .. } => unavailable(&reason, REPORT),
            Error::Busy { key } => {
                unavailable(&format!("other writes to {key} took too long"), WAIT)
            }
            Error::LogBusy => unavailable("too many other calls are reading the audit log", WAIT),
            Error::OutcomeUnknown { .. } => {
                let message = outcome_unknown("the store did not confirm the write", tool, options);
                failure("OUTCOME_UNKNOWN", message)
            }
            Error::Corrupt { key, problem } => {
                failure(tool.error_code(), corrupt(&key, &problem, tool))
                    .with_details(json!({ "key": truncate(&key) }))
            }
            Error::Internal { .. } => {
                let message = format!(
                    "the store failed{unchanged}; try again, and if it fails again, {REPORT}"
                );
                failure(tool.error_code(), message)
            }
        }
    }

    /// A change that breaks rules.
    pub(super) fn invalid_change(
        tool: ToolName,
        key: &DocumentKey,
        violations: &[Violation],
        timestamp: Timestamp,
    ) -> Self {
        let headline = format!("{key} was not {}", past(tool));
        Self::invalid(tool, &headline, violations, timestamp)
    }

    /// Arguments that break rules.
    pub(super) fn invalid_arguments(
        tool: ToolName,
        violations: &[Violation],
        timestamp: Timestamp,
    ) -> Self {
        let headline = format!("{} was not run", tool.as_str());
        Self::invalid(tool, &headline, violations, timestamp)
    }

    /// A call of a writing tool when nothing can be written.
    pub(super) fn read_only(
        tool: ToolName,
        reason: &str,
        retry_after: Option<Duration>,
        timestamp: Timestamp,
    ) -> Self {
        let failure = |message| Self::without_details(tool, "STORE_READ_ONLY", message, timestamp);
        let Some(pause) = retry_after else {
            return failure(format!("nothing was changed: {reason}"));
        };
        let millis = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX).max(1);
        failure(format!(
            "nothing was changed: {reason}; try again after {millis} ms"
        ))
        .with_details(json!({ "retryAfterMs": millis }))
    }

    /// A call that panicked. A commit runs in a task of its own, so it may have been completed.
    pub(super) fn panicked(tool: ToolName, options: CallOptions, timestamp: Timestamp) -> Self {
        let name = tool.as_str();
        let problem = format!("{name} failed unexpectedly");
        let message = match tool.effect() {
            Effect::Writes => outcome_unknown(&problem, tool, options),
            Effect::Reads => format!("{problem}; try again"),
        };
        let message = format!("{message}. If it fails again, {REPORT}");
        Self::without_details(tool, tool.error_code(), message, timestamp)
    }

    /// A call that was not finished within `time`. All steps before a commit have a shorter
    /// deadline, so a write that gets here was started.
    pub(super) fn timed_out(
        tool: ToolName,
        options: CallOptions,
        time: Duration,
        timestamp: Timestamp,
    ) -> Self {
        let problem = format!("the store did not answer within {} seconds", time.as_secs());
        let (code, message) = match tool.effect() {
            Effect::Writes => ("OUTCOME_UNKNOWN", outcome_unknown(&problem, tool, options)),
            Effect::Reads => ("STORE_UNAVAILABLE", format!("{problem}; {WAIT}")),
        };
        Self::without_details(tool, code, message, timestamp)
    }

    /// A call that got no permit while `calls` others were running.
    pub(super) fn busy(tool: ToolName, calls: usize, timestamp: Timestamp) -> Self {
        let unchanged = match tool.effect() {
            Effect::Writes => " and nothing was changed",
            Effect::Reads => "",
        };
        let message = format!(
            "the server is busy with {calls} other calls, so {} was not started{unchanged}; {WAIT}",
            tool.as_str()
        );
        Self::without_details(tool, "STORE_UNAVAILABLE", message, timestamp)
    }

    /// The response to the call.
    pub(super) fn into_response(self) -> Result<CallToolResponse, ErrorData> {
        Err::<(), _>(self).into_call_tool_result()
    }

    fn invalid(
        tool: ToolName,
        headline: &str,
        violations: &[Violation],
        timestamp: Timestamp,
    ) -> Self {
        let count = violations.len();
        let problems = match count {
            1 => "this problem".to_owned(),
            _ => format!("these {count} problems"),
        };
        let headline = format!(
            "{headline}. Fix {problems} and call {} again:",
            tool.as_str()
        );
        let mut bytes = 0;
        let fitting = violations.iter().take_while(|violation| {
            bytes += text_len(violation) + text_len(&format!("\n  {violation}"));
            bytes <= MAX_LISTED_BYTES
        });
        let listed: Vec<&Violation> = fitting.take(MAX_LISTED_VIOLATIONS).collect();
        let mut lines: Vec<String> = [headline]
            .into_iter()
            .chain(listed.iter().map(ToString::to_string))
            .collect();
        let details = match count - listed.len() {
            0 => json!({ "violations": listed }),
            more => {
                lines.push(format!("and {more} more"));
                json!({ "violations": listed, "more": more })
            }
        };
        let message = lines.join("\n  ");
        Self::without_details(tool, "VALIDATION_FAILED", message, timestamp).with_details(details)
    }

    fn without_details(
        tool: ToolName,
        code: &'static str,
        message: String,
        timestamp: Timestamp,
    ) -> Self {
        Self {
            tool,
            code,
            message,
            details: None,
            timestamp,
        }
    }

    fn with_details(self, details: Value) -> Self {
        Self {
            details: Some(details),
            ..self
        }
    }
}

/// How much a value adds to the text of the answer.
fn text_len(value: &impl Serialize) -> usize {
    escape_all(compact_json(value)).len()
}

/// What to add to the message of a call that certainly wrote nothing.
fn unchanged(tool: ToolName) -> &'static str {
    match tool.effect() {
        Effect::Writes => ", so nothing was changed",
        Effect::Reads => "",
    }
}

fn not_found_code(kind: Kind) -> &'static str {
    match kind {
        Kind::Project => "PROJECT_NOT_FOUND",
        Kind::Resource => "RESOURCE_NOT_FOUND",
    }
}

fn not_found(
    key: &DocumentKey,
    similar: &[String],
    found_as: Option<Kind>,
    deleted_outside: Option<Timestamp>,
) -> String {
    if let Some(after) = deleted_outside {
        return outside::deleted(key, after);
    }
    if let Some(kind) = found_as {
        return format!(
            "there is no {key}, but a {kind} of this id; use the tools for {}",
            kind.plural()
        );
    }
    if similar.is_empty() {
        return format!(
            "there is no {key}; call list_{} to see all ids",
            key.kind.plural()
        );
    }
    let ids: Vec<String> = similar
        .iter()
        .map(|id| format!("`{}`", truncate(id)))
        .collect();
    format!("there is no {key}; did you mean {}?", ids.join(", "))
}

fn plan_not_found(applied: Option<&PlanApplication>) -> String {
    let Some(applied) = applied else {
        return "nothing was changed: there is no such plan, or it has expired (plans last 24 hours); make a new dry run and send the id in its `meta.plan`".to_owned();
    };
    let by = applied
        .actor
        .as_deref()
        .map_or_else(String::new, |actor| format!(" by {}", truncate(actor)));
    let at = applied
        .timestamp
        .map_or_else(String::new, |time| format!(" at {time}"));
    format!(
        "nothing was changed now: this plan was applied already{by}{at}; `details.auditIds` names what it changed"
    )
}

fn application_details(applied: PlanApplication) -> Value {
    let mut details = JsonObject::new();
    details.insert("state".to_owned(), json!("applied"));
    details.insert("auditIds".to_owned(), json!(applied.audit_ids));
    if let Some(timestamp) = applied.timestamp {
        details.insert("timestamp".to_owned(), json!(timestamp));
    }
    if let Some(actor) = applied.actor {
        details.insert("actor".to_owned(), json!(actor));
    }
    Value::Object(details)
}

/// From when on a document is known that cannot be shown as it was.
fn not_then(gap: Option<HistoryGap>) -> Value {
    let known_from = gap.and_then(|gap| gap.known_from);
    match known_from {
        Some(from) => json!({ "similar": [], "knownFrom": from.to_string() }),
        None => json!({ "similar": [] }),
    }
}

fn exists_code(kind: Kind) -> &'static str {
    match kind {
        Kind::Project => "PROJECT_EXISTS",
        Kind::Resource => "RESOURCE_EXISTS",
    }
}

fn exists(key: &DocumentKey) -> String {
    format!(
        "nothing was created: there is a {key} already. Choose another id, or read it with get_{kind} and change it with update_{kind}",
        kind = key.kind
    )
}

/// What a tool does to a document, as a sentence about it says.
fn past(tool: ToolName) -> &'static str {
    match tool {
        ToolName::Create(_) => "created",
        ToolName::Delete(_) => "deleted",
        ToolName::List(_)
        | ToolName::Get(_)
        | ToolName::Update(_)
        | ToolName::AuditLog
        | ToolName::AuditStats
        | ToolName::UndoChanges
        | ToolName::History
        | ToolName::Compare
        | ToolName::UpdateMany => "changed",
    }
}

/// A document that does not have the version that a call expected, or that others kept changing.
struct Conflict<'a> {
    tool: ToolName,
    key: &'a DocumentKey,
    current: Option<&'a Version>,
    changed_outside: Option<Timestamp>,
}

impl Conflict<'_> {
    fn message(&self, options: CallOptions) -> String {
        let (key, past) = (self.key, past(self.tool));
        if options.plan {
            return format!(
                "nothing was changed: {key} was changed since the plan was made; make a new dry run, show it, and apply that plan"
            );
        }
        let subject = if self.tool == ToolName::UpdateMany {
            format!("nothing was changed, because of {key}")
        } else {
            format!("{key} was not {past}")
        };
        if !options.expected_version {
            return format!(
                "{subject}: other programs kept changing it at the same time; try again in a moment"
            );
        }
        let version = self.current;
        let version = version.map_or_else(String::new, |version| format!(", `{version}`"));
        let cause = self.changed_outside.map_or_else(
            || "It may have changed since you read it".to_owned(),
            outside::conflicting,
        );
        let check = if matches!(self.tool, ToolName::Delete(_)) {
            "check that it is still to be deleted, and send the new version"
        } else {
            "check that your change still fits, and send it with the new version"
        };
        format!(
            "{subject}: the expectedVersion you sent is not its current version{version}. {cause}, so read it again with get_{}, {check}",
            key.kind
        )
    }
}

/// The version now, and who changed which fields since the expected one.
fn conflict_details(
    current: Option<Version>,
    changed_since: &[StoredEntry],
    changed_outside: Option<Timestamp>,
) -> Option<Value> {
    let mut bytes = 0;
    let rows = changed_since.iter().map(change_row);
    let fitting = rows.take_while(|row| {
        bytes += text_len(row);
        bytes <= MAX_LISTED_BYTES
    });
    let rows: Vec<Value> = fitting.collect();
    let mut details = JsonObject::new();
    if let Some(version) = current {
        details.insert("currentVersion".to_owned(), json!(version));
    }
    if !rows.is_empty() {
        details.insert("changedSince".to_owned(), json!(rows));
    }
    if let Some(after) = changed_outside {
        details.insert("changedOutside".to_owned(), json!(after.to_string()));
    }
    (!details.is_empty()).then_some(Value::Object(details))
}

fn corrupt(key: &str, problem: &str, tool: ToolName) -> String {
    format!(
        "the value stored at `{}` is not a valid document: {problem}{}; report this to the site's developer, who can keep a copy of it and repair it",
        truncate(key),
        unchanged(tool)
    )
}

/// The message of a write that may have been done.
fn outcome_unknown(problem: &str, tool: ToolName, options: CallOptions) -> String {
    let remedy = if options.idempotency_key {
        "Repeat the call with the same idempotencyKey: it is not applied twice".to_owned()
    } else {
        let read = match tool.written_kind() {
            Some(kind) => format!("the document with get_{kind}"),
            None => "the documents".to_owned(),
        };
        format!("Read {read} to find out before you try again")
    };
    format!("{problem}, so the change may or may not have been made. {remedy}")
}

/// Every failed call is rendered exactly once, so it is counted here.
impl IntoContents for ToolError {
    fn into_contents(self) -> Vec<ContentBlock> {
        count_call(self.tool.as_str(), self.code);
        let mut error = json!({ "code": self.code, "message": self.message, "timestamp": self.timestamp.to_string() });
        if let (Some(members), Some(details)) = (error.as_object_mut(), self.details) {
            members.insert("details".to_owned(), details);
        }
        // Similar ids in the details are not sanitized, so that a model can use them. Escapes show
        // what is hidden in them.
        vec![ContentBlock::text(escape_all(
            json!({ "success": false, "error": error }).to_string(),
        ))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPDATE: ToolName = ToolName::Update(Kind::Project);
    const GET: ToolName = ToolName::Get(Kind::Project);
    const NO_OPTIONS: CallOptions = CallOptions {
        idempotency_key: false,
        expected_version: false,
        plan: false,
    };
    const WITH_KEY: CallOptions = CallOptions {
        idempotency_key: true,
        ..NO_OPTIONS
    };

    fn message(tool: ToolName, error: Error, options: CallOptions) -> String {
        ToolError::new(tool, error, options, Timestamp::from_micros(0)).message
    }

    fn busy() -> Error {
        Error::Busy {
            key: DocumentKey::new(Kind::Project, "a"),
        }
    }

    fn conflict() -> Error {
        Error::Conflict {
            key: DocumentKey::new(Kind::Project, "a"),
            current: None,
            changed_since: Vec::new(),
            changed_outside: None,
        }
    }

    #[test]
    fn only_writes_mention_that_nothing_was_changed() {
        assert!(!message(GET, busy(), NO_OPTIONS).contains("changed"));
        assert!(message(UPDATE, busy(), NO_OPTIONS).contains("nothing was changed"));
    }

    #[test]
    fn only_calls_with_an_idempotency_key_get_advice_about_it() {
        for message in [
            |options| message(UPDATE, busy(), options),
            |options| outcome_unknown("it failed", UPDATE, options),
        ] {
            assert!(!message(NO_OPTIONS).contains("idempotencyKey"));
            assert!(message(WITH_KEY).contains("idempotencyKey"));
        }
    }

    #[test]
    fn only_calls_with_an_expected_version_are_compared_with_it() {
        let expected = CallOptions {
            expected_version: true,
            ..NO_OPTIONS
        };

        assert!(!message(UPDATE, conflict(), NO_OPTIONS).contains("expectedVersion"));
        assert!(message(UPDATE, conflict(), expected).contains("expectedVersion"));
    }

    #[test]
    fn a_long_list_of_problems_is_counted() {
        let violations = vec![Violation::new("a", "type", "expected a string"); 53];

        let error = ToolError::invalid_arguments(UPDATE, &violations, Timestamp::from_micros(0));

        assert!(
            error.message.starts_with(
                "update_project was not run. Fix these 53 problems and call update_project again:\n  a: expected"
            ),
            "{}",
            error.message
        );
        assert!(
            error.message.ends_with("\n  and 3 more"),
            "{}",
            error.message
        );
    }
}

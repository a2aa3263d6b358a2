//! What surrounds every call: a permit, a deadline, checked arguments, and an answer even after a
//! panic.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;
use rmcp::{
    ErrorData, RoleServer,
    handler::server::{common::FromContextPart, tool::ToolCallContext},
    model::{CallToolRequestParams, CallToolResponse, JsonObject},
    service::RequestContext,
};
use serde_json::Value;
use tracing::{debug, error, info, warn};

use super::{
    arguments::Normalized,
    client_arguments,
    error::{CallOptions, ToolError},
    router::{CHECKS, ROUTER},
    server::{ContentServer, MAX_CONCURRENT_CALLS},
    tool_name::ToolName,
    warnings::add_warnings,
};
use crate::{
    deadline::Deadline,
    domain::{json::find_replacement, text::truncate},
};

/// Every call is answered within this time; see "Time budget of a call" in docs/architecture.md.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a call waits for a permit.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(2);

impl ContentServer {
    /// Runs a call within its limits. The caller has checked that it may write, if the tool writes.
    pub(super) async fn run_call(
        &self,
        tool: ToolName,
        mut request: CallToolRequestParams,
        mut context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let name = tool.as_str();
        let deadline = Deadline::after(CALL_TIMEOUT);
        let permit = deadline.capped(PERMIT_TIMEOUT);
        let Ok(Ok(_permit)) = permit.run(self.call_permits.acquire()).await else {
            warn!("{name} rejected: {MAX_CONCURRENT_CALLS} calls are already running");
            let now = self.content.now();
            return ToolError::busy(tool, MAX_CONCURRENT_CALLS, now).into_response();
        };
        context.extensions.insert(deadline);
        let arguments = request.arguments.take().unwrap_or_default();
        let options = CallOptions::of_arguments(&arguments);
        let call = AssertUnwindSafe(self.run_checked(tool, request, arguments, context));
        match deadline.run(call.catch_unwind()).await {
            Ok(Ok(response)) => {
                debug!(tool.name = %name, "{name} finished");
                response
            }
            Ok(Err(_)) => {
                error!(tool.name = %name, "{name} panicked; the client got an error");
                ToolError::panicked(tool, options, self.content.now()).into_response()
            }
            Err(_) => {
                info!(tool.name = %name, "{name} timed out; the client got an error");
                ToolError::timed_out(tool, options, CALL_TIMEOUT, self.content.now())
                    .into_response()
            }
        }
    }

    /// Checks the arguments and runs the tool.
    async fn run_checked(
        &self,
        tool: ToolName,
        mut request: CallToolRequestParams,
        arguments: JsonObject,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(check) = CHECKS.get(tool.as_str()) else {
            unreachable!("there is a check for each tool");
        };
        let Normalized { arguments, ignored } = check.normalize(arguments);
        let arguments = Value::Object(arguments);
        let mut violations = check.violations(&arguments);
        let unreadable = find_replacement(&arguments);
        let Value::Object(arguments) = arguments else {
            unreachable!("it was made from an object");
        };
        violations.extend(self.missing_versions(tool, &arguments));
        violations.extend(self.as_of_is_off(tool, &arguments));
        let mut response = if violations.is_empty() {
            request.arguments = Some(arguments);
            ROUTER
                .call(ToolCallContext::new(self, request, context))
                .await?
        } else {
            // Boxed, so that the rare case does not make the common one larger.
            let deadline = deadline_of(&context);
            Box::pin(self.reject(tool, &arguments, violations, deadline)).await?
        };
        if let Some(path) = unreadable {
            add_warnings(&mut response, &[unreadable_argument(&path)]);
        }
        if !ignored.is_empty() {
            add_warnings(&mut response, &[client_arguments::warning(&ignored)]);
        }
        Ok(response)
    }
}

fn unreadable_argument(path: &str) -> String {
    format!(
        "`{}` holds U+FFFD, which stands for a character that could not be read, such as half of a surrogate pair (`\\ud83d`); it was taken as it is",
        truncate(path)
    )
}

/// Tools take their deadline as an argument.
impl FromContextPart<ToolCallContext<'_, ContentServer>> for Deadline {
    fn from_context_part(call: &mut ToolCallContext<'_, ContentServer>) -> Result<Self, ErrorData> {
        Ok(deadline_of(&call.request_context))
    }
}

/// The deadline that `run_call` gave to a call.
fn deadline_of(context: &RequestContext<RoleServer>) -> Deadline {
    let deadline = context.extensions.get::<Deadline>().copied();
    deadline.unwrap_or_else(|| Deadline::after(CALL_TIMEOUT))
}

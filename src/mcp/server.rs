//! The handler of one connection or request. It holds handles, never state, because it is created
//! again for each.

use std::{sync::Arc, time::Duration};

use rmcp::model::JsonObject;
use tokio::sync::Semaphore;

use super::{
    error::{CallOptions, ToolError},
    meta::Freshness,
    notice::StoreNotice,
    tool_name::ToolName,
    toolset::Toolsets,
};
use crate::{
    caller::{Caller, Role},
    domain::Violation,
    service::{ContentService, Error},
};

/// How many calls run at once in a process.
pub(super) const MAX_CONCURRENT_CALLS: usize = 256;

/// The handler of one connection or request.
#[derive(Clone)]
pub struct ContentServer {
    pub(super) content: Arc<ContentService>,
    pub(super) actor: Option<Arc<str>>,
    pub(super) call_permits: Arc<Semaphore>,
    pub(super) store_notice: Option<Arc<StoreNotice>>,
    pub(super) requires_version: bool,
    pub(super) toolsets: Toolsets,
    read_only: Option<Arc<str>>,
}

impl ContentServer {
    /// A server of `content` with the default toolsets.
    ///
    /// `actor` is the operating system's user if that is the only caller. `read_only` is the reason
    /// why the server offers no writing tools, if it offers none.
    #[must_use]
    pub fn new(content: Arc<ContentService>, actor: Option<&str>, read_only: Option<&str>) -> Self {
        Self {
            content,
            actor: actor.map(Into::into),
            call_permits: Arc::new(Semaphore::new(MAX_CONCURRENT_CALLS)),
            store_notice: None,
            requires_version: false,
            toolsets: Toolsets::default(),
            read_only: read_only.map(Into::into),
        }
    }

    /// The same server, whose instructions and answers say something about its store.
    #[must_use]
    pub fn with_store_notice(self, notice: StoreNotice) -> Self {
        Self {
            store_notice: Some(Arc::new(notice)),
            ..self
        }
    }

    /// The same server, which refuses updates without `expectedVersion`.
    #[must_use]
    pub fn requiring_version(self) -> Self {
        Self {
            requires_version: true,
            ..self
        }
    }

    /// The same server, which offers these toolsets.
    #[must_use]
    pub fn offering(self, toolsets: Toolsets) -> Self {
        Self { toolsets, ..self }
    }

    /// What is wrong with the arguments of an update that does not say which version it changes.
    pub(super) fn missing_version(
        &self,
        tool: ToolName,
        arguments: &JsonObject,
    ) -> Option<Violation> {
        let kind = tool.written_kind().filter(|_| self.requires_version)?;
        let is_missing =
            !arguments.contains_key("expectedVersion") && !arguments.contains_key("plan");
        is_missing.then(|| {
            let message = format!(
                "missing, and this server requires it: read the document with get_{} and send its `meta.version`",
                kind.singular()
            );
            Violation::new("expectedVersion", "required", message)
        })
    }

    /// Why `caller` cannot write, if so.
    pub(super) fn read_only_reason(&self, caller: Option<&Caller>) -> Option<String> {
        if let Some(reason) = &self.read_only {
            return Some(reason.to_string());
        }
        let caller = caller?;
        match caller.role {
            Role::Read => Some(format!(
                "the token `{}` has the role `read`; ask the server's administrator for a token with the role `write`",
                caller.name
            )),
            Role::Write => None,
        }
    }

    /// The freshness of what was read from the store, or from a snapshot of this age.
    pub(super) fn freshness(&self, snapshot_age: Option<Duration>) -> Freshness {
        Freshness::new(self.content.store_name(), snapshot_age, self.content.now())
    }

    /// The error of a reading tool.
    pub(super) fn read_error(&self, tool: ToolName, error: Error) -> ToolError {
        let now = self.content.now();
        match error {
            Error::Invalid(violations) => ToolError::invalid_arguments(tool, &violations, now),
            error => ToolError::new(tool, error, CallOptions::default(), now),
        }
    }
}

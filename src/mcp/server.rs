//! The handler of one connection or request. It holds handles, never state, because it is created
//! again for each.

use std::{sync::Arc, time::Duration};

use rmcp::model::JsonObject;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::{
    error::{CallOptions, ToolError},
    meta::Freshness,
    notice::StoreNotice,
    public_url::PublicUrl,
    tool_name::ToolName,
    toolset::Toolsets,
};
use crate::{
    caller::{Caller, Role},
    domain::{Record, Violation, text::truncate},
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
    public_url: Option<Arc<PublicUrl>>,
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
            public_url: None,
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

    /// The same server, which says where the website shows a published document.
    #[must_use]
    pub fn with_public_url(self, template: PublicUrl) -> Self {
        Self {
            public_url: Some(Arc::new(template)),
            ..self
        }
    }

    /// The same server, which offers these toolsets.
    #[must_use]
    pub fn offering(self, toolsets: Toolsets) -> Self {
        Self { toolsets, ..self }
    }

    /// What is wrong with the arguments of updates that do not say which version they change.
    pub(super) fn missing_versions(
        &self,
        tool: ToolName,
        arguments: &JsonObject,
    ) -> Vec<Violation> {
        if !self.requires_version {
            return Vec::new();
        }
        let is_missing = |arguments: &JsonObject| {
            !arguments.contains_key("expectedVersion") && !arguments.contains_key("plan")
        };
        if let ToolName::Update(kind) = tool
            && is_missing(arguments)
        {
            return vec![missing_version("expectedVersion", kind.singular())];
        }
        // Only one tool has this argument.
        let changes = arguments.get("changes").and_then(Value::as_array);
        let changes = changes.into_iter().flatten().enumerate();
        let missing = changes.filter_map(|(index, change)| {
            let change = change.as_object().filter(|change| is_missing(change))?;
            let kind = change.get("entityType").and_then(Value::as_str);
            let path = format!("changes[{index}].expectedVersion");
            Some(missing_version(&path, kind.unwrap_or("project")))
        });
        missing.collect()
    }

    /// Where visitors find a published document, if the server knows.
    pub(super) fn public_url(&self, record: &Record) -> Option<String> {
        let template = self.public_url.as_ref()?;
        record.is_published().then(|| template.of(record.key()))
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

fn missing_version(path: &str, kind: &str) -> Violation {
    let message = format!(
        "missing, and this server requires it: read the document with get_{} and send its `meta.version`",
        truncate(kind)
    );
    Violation::new(path, "required", message)
}

//! The MCP server, as the settings describe it.

use std::sync::Arc;

use crate::{
    mcp::{ContentServer, StoreNotice},
    service::ContentService,
    settings::Settings,
};

/// The server of `content`. `actor` is the operating system's user if that is the only caller.
pub(super) fn server(
    content: Arc<ContentService>,
    actor: Option<&str>,
    settings: &Settings,
) -> ContentServer {
    let mut server = ContentServer::new(content, actor, settings.read_only.as_deref())
        .offering(settings.toolsets.clone());
    if let Some(store) = settings.default_store() {
        server = server.with_store_notice(StoreNotice {
            fact: store.fact,
            remedy: store.remedy.to_owned(),
        });
    }
    if settings.require_version {
        server = server.requiring_version();
    }
    if let Some(template) = &settings.public_url {
        server = server.with_public_url(template.clone());
    }
    server
}

//! Who calls, as far as the protocol and the transport tell, as the audit log records it.
//!
//! `clientId` is what a client says of itself, `actor` is what the server knows; neither is mixed into the other.

use std::net::SocketAddr;

use http::{header, request::Parts};
use rmcp::{
    ErrorData, RoleServer,
    handler::server::{common::FromContextPart, tool::ToolCallContext},
    model::Implementation,
    service::RequestContext,
};

use super::ContentServer;
use crate::{
    caller::{Caller, ClaimedClient, TransportKind},
    domain::{Origin, Source},
};

/// Longer texts of clients are cut, so that nobody fills the audit log with a header.
const LONGEST: usize = 200;

/// Whose token a call carries.
pub(super) fn caller(context: &RequestContext<RoleServer>) -> Option<&Caller> {
    context.extensions.get::<Parts>()?.extensions.get()
}

/// Tools take it as an argument: rmcp gives them a whole context as a copy only, headers and all.
impl FromContextPart<ToolCallContext<'_, ContentServer>> for Origin {
    fn from_context_part(call: &mut ToolCallContext<'_, ContentServer>) -> Result<Self, ErrorData> {
        Ok(of(&call.request_context, call.service.actor.as_deref()))
    }
}

/// The origin of a call; `actor` is the operating system's user, where that is who calls.
fn of(context: &RequestContext<RoleServer>, actor: Option<&str>) -> Origin {
    let parts = context.extensions.get::<Parts>();
    let door = parts
        .and_then(|parts| parts.extensions.get::<TransportKind>().copied())
        .unwrap_or(TransportKind::Stdio);
    let user_agent = parts.and_then(|parts| parts.headers.get(header::USER_AGENT)?.to_str().ok());
    let connection = match door {
        TransportKind::Stdio | TransportKind::Sse => context
            .peer
            .peer_info()
            .map(|peer| named(&peer.client_info)),
        // There is no connection: what rmcp knows of the peer is a constant of its own.
        TransportKind::Http => None,
    };
    let claimed = || {
        parts?
            .extensions
            .get::<ClaimedClient>()
            .map(|client| format!("{}/{}", client.name, client.version))
    };
    let request = context.meta.client_info().as_ref().map(named);
    let client_id = request
        .or(connection)
        .or_else(claimed)
        .or_else(|| user_agent.map(ToOwned::to_owned));
    Origin {
        client_id: client_id.as_deref().map(cut),
        actor: caller(context)
            .map(|caller| &*caller.name)
            .or(actor)
            .map(ToOwned::to_owned),
        transport: Some(door.as_str()),
        user_agent: user_agent.map(cut),
        ip_address: parts
            .and_then(|parts| parts.extensions.get::<SocketAddr>())
            .map(|address| address.ip().to_string()),
        request_id: Some(cut(&context.id.to_string())),
        ..Origin::new(Source::Mcp)
    }
}

fn named(client: &Implementation) -> String {
    format!("{}/{}", client.name, client.version)
}

fn cut(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(LONGEST)
        .collect()
}

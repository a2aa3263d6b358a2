//! Who made a call, as the audit log records it.
//!
//! `clientId` is what the client claims to be; `actor` is what the server knows. Neither is ever
//! taken from the other.

use std::net::SocketAddr;

use http::{header, request::Parts};
use rmcp::{
    ErrorData, RoleServer,
    handler::server::{common::FromContextPart, tool::ToolCallContext},
    model::Implementation,
    service::RequestContext,
};

use super::server::ContentServer;
use crate::{
    caller::{Caller, ClaimedClient, TransportKind},
    domain::{Origin, Source},
};

/// Longer values from clients are truncated, so that nobody can fill the audit log with a header.
const MAX_CLIENT_VALUE_CHARS: usize = 200;

/// The owner of the bearer token that a call carries.
pub(super) fn caller(context: &RequestContext<RoleServer>) -> Option<&Caller> {
    context.extensions.get::<Parts>()?.extensions.get()
}

/// Tools take their origin as an argument, because rmcp would only give them a copy of the whole
/// context with all headers.
impl FromContextPart<ToolCallContext<'_, ContentServer>> for Origin {
    fn from_context_part(call: &mut ToolCallContext<'_, ContentServer>) -> Result<Self, ErrorData> {
        Ok(origin_of(
            &call.request_context,
            call.service.actor.as_deref(),
        ))
    }
}

/// The origin of a call. `actor` is the operating system's user, if that is the caller.
fn origin_of(context: &RequestContext<RoleServer>, actor: Option<&str>) -> Origin {
    let parts = context.extensions.get::<Parts>();
    let transport = parts
        .and_then(|parts| parts.extensions.get::<TransportKind>().copied())
        .unwrap_or(TransportKind::Stdio);
    let user_agent = parts.and_then(|parts| parts.headers.get(header::USER_AGENT)?.to_str().ok());
    let client_id = client_id(context, transport);
    let client_id = client_id.as_deref().or(user_agent);
    let actor = caller(context).map(|caller| &*caller.name).or(actor);
    Origin {
        client_id: client_id.map(sanitize_client_value),
        actor: actor.map(ToOwned::to_owned),
        transport: Some(transport.as_str()),
        user_agent: user_agent.map(sanitize_client_value),
        ip_address: parts
            .and_then(|parts| parts.extensions.get::<SocketAddr>())
            .map(|address| address.ip().to_string()),
        request_id: Some(sanitize_client_value(&context.id.to_string())),
        ..Origin::new(Source::Mcp)
    }
}

/// What the client claims to be: in the request, in this connection's `initialize`, or in the
/// session id.
fn client_id(context: &RequestContext<RoleServer>, transport: TransportKind) -> Option<String> {
    if let Some(client) = context.meta.client_info() {
        return Some(name_and_version(&client));
    }
    let initialized = match transport {
        TransportKind::Stdio | TransportKind::Sse => context.peer.peer_info(),
        // Without a connection, rmcp returns a constant of its own.
        TransportKind::Http => None,
    };
    if let Some(peer) = initialized
        && !peer.client_info.name.is_empty()
    {
        return Some(name_and_version(&peer.client_info));
    }
    let parts = context.extensions.get::<Parts>()?;
    let claimed = parts.extensions.get::<ClaimedClient>()?;
    Some(format!("{}/{}", claimed.name, claimed.version))
}

fn name_and_version(client: &Implementation) -> String {
    match client.version.as_str() {
        "" => client.name.clone(),
        version => format!("{}/{version}", client.name),
    }
}

fn sanitize_client_value(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(MAX_CLIENT_VALUE_CHARS)
        .collect()
}

//! Who calls, as far as the protocol and the transport tell.
//!
//! `clientId` is what a client says of itself, `actor` is what the server knows; neither is mixed into the other.

use std::net::IpAddr;

use rmcp::{RoleServer, model::Implementation, service::RequestContext};

use crate::domain::{Origin, Source};

/// Longer texts of clients are cut, so that nobody fills the audit log with a header.
const LONGEST: usize = 200;

/// Through which transport a call came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Standard input and output of a child process.
    Stdio,
    /// Streamable HTTP, on which no connection belongs to a client.
    Http,
    /// HTTP+SSE of 2024-11-05.
    Sse,
}

impl Door {
    fn name(self) -> &'static str {
        match self {
            Self::Stdio => "stdio",
            Self::Http => "http",
            Self::Sse => "sse",
        }
    }
}

/// What a client of Streamable HTTP called itself when it was initialised, as its session id carries it: name/version.
#[derive(Debug, Clone)]
pub struct ClaimedClient(pub String);

/// The address that a request came from.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddress(pub IpAddr);

/// The origin of a call.
pub(super) fn of(context: &RequestContext<RoleServer>, door: Door, actor: Option<&str>) -> Origin {
    let parts = context.extensions.get::<http::request::Parts>();
    let user_agent = parts.and_then(|parts| parts.headers.get(http::header::USER_AGENT)?.to_str().ok());
    let claimed = parts.and_then(|parts| parts.extensions.get::<ClaimedClient>()).map(|claimed| claimed.0.clone());
    // On stateless HTTP, what rmcp knows of the peer is a constant of its own.
    let initialised = match door {
        Door::Stdio | Door::Sse => context.peer.peer_info().map(|peer| named(&peer.client_info)),
        Door::Http => None,
    };
    let client_id =
        context.meta.client_info().as_ref().map(named).or(initialised).or(claimed).or_else(|| user_agent.map(ToOwned::to_owned));
    Origin {
        client_id: client_id.as_deref().map(cut),
        actor: actor.map(ToOwned::to_owned),
        transport: Some(door.name()),
        user_agent: user_agent.map(cut),
        ip_address: parts.and_then(|parts| parts.extensions.get::<PeerAddress>()).map(|peer| peer.0.to_string()),
        request_id: Some(cut(&context.id.to_string())),
        ..Origin::new(Source::Mcp)
    }
}

fn named(client: &Implementation) -> String {
    format!("{}/{}", client.name, client.version)
}

fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}

//! Who made an HTTP request: what the HTTP edge adds to a request's extensions and the MCP edge
//! reads from them.
//!
//! Depends on no web framework. Only [`Caller`] is verified, by its bearer token; everything else
//! is what the client claims.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Longer client names and versions are truncated in a session id.
const MAX_NAME_CHARS: usize = 100;
/// Every session id of ours fits: two strings of 100 characters, up to six bytes each when escaped,
/// a nonce, and a third on top for base64.
const MAX_SESSION_ID_BYTES: usize = 2048;

/// The transport of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportKind {
    /// The standard streams of a child process.
    Stdio,
    /// Streamable HTTP, `/mcp`.
    Http,
    /// HTTP+SSE, `/sse` and `/messages`.
    Sse,
}

impl TransportKind {
    /// The name in audit entries.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdio => "stdio",
            Self::Http => "http",
            Self::Sse => "sse",
        }
    }
}

/// The owner of a request's bearer token. Requests have none where no tokens are configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The token's name, not the client's.
    pub name: Arc<str>,
    /// What the owner may do.
    pub role: Role,
}

/// What a bearer token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The reading tools.
    Read,
    /// Every tool.
    Write,
}

/// What a client of `/mcp` called itself in its `initialize`, as its `Mcp-Session-Id` repeats it.
///
/// The id carries all there is to know about the session: the server keeps no session state.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ClaimedClient {
    /// The client program's name, at most 100 characters.
    pub name: String,
    /// The client program's version, at most 100 characters.
    pub version: String,
}

#[derive(Serialize)]
struct SessionId<'a> {
    name: &'a str,
    version: &'a str,
    nonce: String,
}

impl ClaimedClient {
    /// A new session id that carries name and version.
    pub(crate) fn session_id(&self) -> serde_json::Result<String> {
        let id = SessionId {
            name: truncate_name(&self.name),
            version: truncate_name(&self.version),
            nonce: Uuid::new_v4().to_string(),
        };
        Ok(URL_SAFE_NO_PAD.encode(serde_json::to_vec(&id)?))
    }

    /// The client that a session id names; `None` if the id is not one of ours.
    pub(crate) fn from_session_id(id: &[u8]) -> Option<Self> {
        if id.len() > MAX_SESSION_ID_BYTES {
            return None;
        }
        let json = URL_SAFE_NO_PAD.decode(id).ok()?;
        let claimed: Self = serde_json::from_slice(&json).ok()?;
        if claimed.name.is_empty() {
            return None;
        }
        Some(Self {
            name: truncate_name(&claimed.name).to_owned(),
            version: truncate_name(&claimed.version).to_owned(),
        })
    }
}

fn truncate_name(text: &str) -> &str {
    text.char_indices()
        .nth(MAX_NAME_CHARS)
        .and_then(|(end, _)| text.get(..end))
        .unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(name: &str, version: &str) -> ClaimedClient {
        ClaimedClient {
            name: name.to_owned(),
            version: version.to_owned(),
        }
    }

    #[test]
    fn a_session_id_carries_name_and_version() {
        let claude = client("claude-code", "2.1.303");

        let id = claude.session_id().unwrap();

        assert_eq!(ClaimedClient::from_session_id(id.as_bytes()), Some(claude));
    }

    #[test]
    fn two_session_ids_of_one_client_differ() {
        let claude = client("claude-code", "2.1.303");

        assert_ne!(claude.session_id().unwrap(), claude.session_id().unwrap());
    }

    #[test]
    fn a_session_id_is_compact_json_with_a_nonce() {
        let id = client("é", "1").session_id().unwrap();

        let json = String::from_utf8(URL_SAFE_NO_PAD.decode(id).unwrap()).unwrap();

        assert!(
            json.starts_with(r#"{"name":"é","version":"1","nonce":""#),
            "{json}"
        );
    }

    #[test]
    fn the_longest_session_id_is_still_accepted() {
        for character in ["\u{1}", "\u{1F600}", "\"", "é"] {
            let id = client(&character.repeat(500), &character.repeat(101))
                .session_id()
                .unwrap();

            let truncated = character.repeat(100);
            assert_eq!(
                ClaimedClient::from_session_id(id.as_bytes()),
                Some(client(&truncated, &truncated))
            );
        }
    }

    #[test]
    fn foreign_session_ids_are_ignored() {
        let json = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let ids = [
            String::new(),
            "0f2f7ac6-7d4c-4b1c-9a53-ab7f3a1b2c3d".to_owned(),
            "not base64!".to_owned(),
            json("{}"),
            json(r#"{"name":1,"version":"1"}"#),
            json(r#"{"name":"","version":"1"}"#),
            json(&format!(
                r#"{{"name":"{}","version":"1"}}"#,
                "x".repeat(4000)
            )),
        ];
        for id in ids {
            assert_eq!(ClaimedClient::from_session_id(id.as_bytes()), None, "{id}");
        }
    }
}

//! Who is calling, as far as HTTP tells: what the transport puts into the extensions of a request's parts.
//!
//! Knows no framework. Only [`Caller`] is authority; of the rest a client says what it likes.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Longest name and version that a session id carries, in characters.
const LONGEST: usize = 100;
/// No session id of ours is longer: two texts of 100 characters, six bytes each when escaped, a nonce, and a third for base64.
const LONGEST_ID: usize = 2048;

/// Through which door a request came.
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
    /// As audit entries write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdio => "stdio",
            Self::Http => "http",
            Self::Sse => "sse",
        }
    }
}

/// Whose bearer token a request carries; there is none where no tokens are configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Of the token, not the client.
    pub name: Arc<str>,
    /// What its owner may do.
    pub role: Role,
}

/// What a bearer token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The reading tools.
    Read,
    /// Every tool.
    Write,
}

/// What a client of `/mcp` called itself in its `initialize`, as its `Mcp-Session-Id` repeats it.
///
/// The id is the whole memory of the session: the server keeps none.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ClaimedClient {
    /// Of the client program, at most 100 characters.
    pub name: String,
    /// Of the client program, at most 100 characters.
    pub version: String,
}

#[derive(Serialize)]
struct SessionId<'a> {
    name: &'a str,
    version: &'a str,
    nonce: String,
}

impl ClaimedClient {
    /// A new session id that says so.
    pub(crate) fn session_id(&self) -> serde_json::Result<String> {
        let id = SessionId {
            name: cut(&self.name),
            version: cut(&self.version),
            nonce: Uuid::new_v4().to_string(),
        };
        Ok(URL_SAFE_NO_PAD.encode(serde_json::to_vec(&id)?))
    }

    /// What a session id says, when it is one of ours.
    pub(crate) fn from_session_id(id: &[u8]) -> Option<Self> {
        if id.len() > LONGEST_ID {
            return None;
        }
        let json = URL_SAFE_NO_PAD.decode(id).ok()?;
        let claimed: Self = serde_json::from_slice(&json).ok()?;
        if claimed.name.is_empty() {
            return None;
        }
        Some(Self {
            name: cut(&claimed.name).to_owned(),
            version: cut(&claimed.version).to_owned(),
        })
    }
}

fn cut(text: &str) -> &str {
    text.char_indices()
        .nth(LONGEST)
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
    fn a_session_id_says_name_and_version() {
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
    fn the_longest_session_id_is_still_read() {
        for character in ["\u{1}", "\u{1F600}", "\"", "é"] {
            let id = client(&character.repeat(500), &character.repeat(101))
                .session_id()
                .unwrap();

            let cut = character.repeat(100);
            assert_eq!(
                ClaimedClient::from_session_id(id.as_bytes()),
                Some(client(&cut, &cut))
            );
        }
    }

    #[test]
    fn foreign_session_ids_say_nothing() {
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

//! Bearer tokens: which there are, and the check that a request carries one of them.
//!
//! Knows the tokens' text but not where it comes from. Kept are hashes alone, and all of them are compared each time, so
//! that the time an answer takes tells nothing about any.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::watch;
use tracing::warn;

use crate::{
    http::rate::Rates,
    mcp::{Caller, Role},
};

/// Paths that need no token, because those who ask have none: whatever watches over the process.
const OPEN_PATHS: [&str; 2] = ["/healthz", "/readyz"];
/// Needs none where the website may be anybody.
const API: &str = "/api/";
/// Nothing is there, and clients that look for an authorization server have to learn that, not be told to authorize.
const WELL_KNOWN: &str = "/.well-known/";

/// Shorter tokens could be guessed.
const SHORTEST: usize = 16;
/// Longer lines are no tokens but a mistake.
const LONGEST: usize = 512;
const LONGEST_NAME: usize = 64;

/// The tokens of a deployment.
#[derive(Clone)]
pub struct Tokens(Vec<Token>);

#[derive(Clone)]
struct Token {
    digest: [u8; 32],
    caller: Caller,
}

/// Names alone: even the hash of a token is nobody's business.
impl fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.0.iter().map(|token| &token.caller.name)).finish()
    }
}

impl Tokens {
    /// Reads `name:role:token` lines; empty ones and those that begin with `#` are skipped.
    ///
    /// # Errors
    /// Everything that is wrong, by line. No text of a line is repeated, because any part of it may be the secret.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let (mut tokens, mut problems) = (Vec::new(), Vec::new());
        let (mut names, mut digests) = (HashMap::new(), HashMap::new());
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text.lines().map(str::trim).zip(1_usize..).filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
        for (line, number) in lines {
            match parse_line(line) {
                Ok(token) => {
                    if let Some(first) = names.insert(Arc::clone(&token.caller.name), number) {
                        problems.push(format!("line {number}: the name of line {first} again; each token needs a name of its own"));
                    }
                    if let Some(first) = digests.insert(token.digest, number) {
                        problems.push(format!("line {number}: the token of line {first} again; each name needs a token of its own"));
                    }
                    tokens.push(token);
                }
                Err(problem) => problems.push(format!("line {number}: {problem}")),
            }
        }
        if tokens.is_empty() && problems.is_empty() {
            problems.push("there is no token in it; expected lines of the form name:role:token".to_owned());
        }
        if problems.is_empty() { Ok(Self(tokens)) } else { Err(problems) }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whose token this is.
    fn caller(&self, presented: &[u8]) -> Option<&Caller> {
        let digest: [u8; 32] = Sha256::digest(presented).into();
        let mut found = None;
        for token in &self.0 {
            if bool::from(token.digest.ct_eq(&digest)) {
                found = Some(&token.caller);
            }
        }
        found
    }
}

fn parse_line(line: &str) -> Result<Token, String> {
    let mut parts = line.splitn(3, ':');
    let (Some(name), Some(role), Some(token)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("expected name:role:token".to_owned());
    };
    let good = |c: char| c.is_alphanumeric() || "-_.@+".contains(c);
    if name.is_empty() || name.chars().count() > LONGEST_NAME || !name.chars().all(good) {
        return Err(format!("the name must be 1 to {LONGEST_NAME} letters, digits or `-_.@+`"));
    }
    let role = match role {
        "read" => Role::Read,
        "write" => Role::Write,
        _ => return Err("the role must be `read` or `write`".to_owned()),
    };
    if !(SHORTEST..=LONGEST).contains(&token.len()) {
        return Err(format!("the token must have {SHORTEST} to {LONGEST} characters; `openssl rand -hex 32` makes a good one"));
    }
    // What RFC 6750 lets a client send.
    if !token.trim_end_matches('=').chars().all(|c| c.is_ascii_alphanumeric() || "-._~+/".contains(c)) {
        return Err("a token consists of ASCII letters, digits and `-._~+/`, with `=` only at its end".to_owned());
    }
    Ok(Token { digest: Sha256::digest(token).into(), caller: Caller { name: name.into(), role } })
}

/// What a request says in its `Authorization`.
#[derive(Debug, PartialEq, Eq)]
enum Presented<'a> {
    Nothing,
    Token(&'a [u8]),
    /// Another scheme, or several.
    Wrong,
}

fn presented(headers: &HeaderMap) -> Presented<'_> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Presented::Nothing };
    if values.next().is_some() {
        return Presented::Wrong;
    }
    match value.as_bytes().split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => Presented::Token(token.trim_ascii()),
        _ => Presented::Wrong,
    }
}

/// What the check of a request needs.
pub(super) struct Entrance {
    pub(super) tokens: Option<watch::Receiver<Tokens>>,
    pub(super) public_api: bool,
    pub(super) rates: Arc<Rates>,
}

/// Why a request carries nobody's token: what tells programs, and what tells people.
struct Stranger {
    challenge: &'static str,
    problem: &'static str,
}

impl Entrance {
    /// Notes whose token a request carries, and counts it; the answer when it needs a good token or is one too many.
    fn refusal(&self, request: &mut Request) -> Option<Response> {
        let address = request.extensions().get::<SocketAddr>().map(SocketAddr::ip);
        let caller = match &self.tokens {
            Some(tokens) if !self.is_open(request.uri().path()) => match identify(tokens, request.headers()) {
                Ok(caller) => Some(caller),
                Err(stranger) => return Some(self.turned_away(&stranger, address)),
            },
            // Without tokens everybody may call.
            _ => None,
        };
        let refused = self.rates.count(caller.as_ref(), address);
        if let Some(caller) = caller {
            request.extensions_mut().insert(caller);
        }
        refused
    }

    fn is_open(&self, path: &str) -> bool {
        OPEN_PATHS.contains(&path) || path.starts_with(WELL_KNOWN) || (self.public_api && path.starts_with(API))
    }

    fn turned_away(&self, Stranger { challenge, problem }: &Stranger, address: Option<IpAddr>) -> Response {
        if let Some(refused) = address.and_then(|address| self.rates.count_failure(address)) {
            return refused;
        }
        warn!("refused a request from {}: {problem}", address.map_or_else(|| "nowhere".to_owned(), |address| address.to_string()));
        let text = format!(
            "{problem}; send one as `Authorization: Bearer TOKEN`, which the client's configuration has to say, and ask who runs the \
             server for it"
        );
        (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, *challenge)], text).into_response()
    }
}

fn identify(tokens: &watch::Receiver<Tokens>, headers: &HeaderMap) -> Result<Caller, Stranger> {
    const NEEDED: &str = r#"Bearer realm="portfolio-mcp""#;
    const INVALID: &str = r#"Bearer realm="portfolio-mcp", error="invalid_token""#;
    let (challenge, problem) = match presented(headers) {
        Presented::Token(token) => match tokens.borrow().caller(token) {
            Some(caller) => return Ok(caller.clone()),
            None => (INVALID, "the token is not one of this server's"),
        },
        Presented::Nothing => (NEEDED, "this server needs a token"),
        Presented::Wrong => (INVALID, "the `Authorization` header holds no bearer token"),
    };
    Err(Stranger { challenge, problem })
}

/// Lets a request through, or answers why not.
pub(super) async fn check(State(entrance): State<Arc<Entrance>>, mut request: Request, next: Next) -> Response {
    match entrance.refusal(&mut request) {
        None => next.run(request).await,
        Some(refused) => refused,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const MARIE: &str = "0123456789abcdef";

    #[test]
    fn lines_hold_name_role_and_token() {
        let text = format!("\u{feff}# the owner\r\n\r\nmarie:write:{MARIE}\n  site : ignored\n")
            .replace("  site : ignored\n", "site:read:aB-._~+/0123456789==\n");
        let tokens = Tokens::parse(&text).unwrap();

        assert_eq!(tokens.count(), 2);
        assert_eq!(tokens.caller(MARIE.as_bytes()), Some(&Caller { name: "marie".into(), role: Role::Write }));
        assert_eq!(tokens.caller(b"aB-._~+/0123456789==").unwrap().role, Role::Read);
        for other in [&b""[..], b"0123456789abcde", b"0123456789abcdef0", b"0123456789abcdeF"] {
            assert_eq!(tokens.caller(other), None);
        }
        assert!(!format!("{tokens:?}").contains(MARIE));
    }

    #[test]
    fn everything_wrong_is_told_at_once_by_line_and_without_the_line() {
        let text = "s3cret-s3cret-s3cret\na:admin:s3cret-s3cret-s3cret\n:read:s3cret-s3cret-s3cret\nb:read:s3cret\nc:read:s3cret s3cret s3cret\n\
                    d:read:s3cret-s3cret-s3cret-1\nd:read:s3cret-s3cret-s3cret-2\ne:write:s3cret-s3cret-s3cret-1";

        let problems = Tokens::parse(text).unwrap_err();

        let lines: Vec<&str> = problems.iter().map(|problem| problem.split(':').next().unwrap()).collect();
        assert_eq!(lines, ["line 1", "line 2", "line 3", "line 4", "line 5", "line 7", "line 8"]);
        assert!(!problems.concat().contains("s3cret"), "{problems:?}");
        assert!(Tokens::parse("# nothing\n").unwrap_err()[0].contains("no token"));
    }

    #[test]
    fn a_token_is_presented_as_a_bearer_token_once() {
        let of = |values: &[&str]| {
            let values = values.iter().map(|value| (header::AUTHORIZATION, HeaderValue::from_str(value).unwrap()));
            let headers = values.collect::<Vec<_>>();
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(name, value);
            }
            match presented(&map) {
                Presented::Token(token) => String::from_utf8(token.to_vec()).unwrap(),
                other => format!("{other:?}"),
            }
        };

        assert_eq!(of(&[]), "Nothing");
        assert_eq!(of(&["Bearer abc"]), "abc");
        assert_eq!(of(&["bEARER   abc "]), "abc");
        for wrong in [&["Basic abc"][..], &["Bearer"], &["abc"], &["Bearer abc", "Bearer abc"]] {
            assert_eq!(of(wrong), "Wrong", "{wrong:?}");
        }
    }
}

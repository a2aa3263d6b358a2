//! Who comes in: a request carries a good token, where there are tokens, and its client does not ask too often.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::sync::watch;
use tracing::warn;

use super::{rate::Rates, token::Tokens};
use crate::caller::Caller;

/// Paths that need no token, because those who ask have none: whatever watches over the process.
const OPEN_PATHS: [&str; 2] = ["/healthz", "/readyz"];
/// Needs none where the website may be anybody.
const API: &str = "/api/";
/// Nothing is there, and clients that look for an authorization server have to learn that, not be told to authorize.
const WELL_KNOWN: &str = "/.well-known/";

/// What a request says in its `Authorization`.
#[derive(Debug, PartialEq, Eq)]
enum Credentials<'a> {
    Nothing,
    Token(&'a [u8]),
    /// Another scheme, or several.
    Wrong,
}

fn presented(headers: &HeaderMap) -> Credentials<'_> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Credentials::Nothing;
    };
    if values.next().is_some() {
        return Credentials::Wrong;
    }
    match value.as_bytes().split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => {
            Credentials::Token(token.trim_ascii())
        }
        _ => Credentials::Wrong,
    }
}

/// What the check of a request needs.
pub(super) struct Auth {
    pub(super) tokens: Option<watch::Receiver<Tokens>>,
    pub(super) public_api: bool,
    pub(super) rates: Arc<Rates>,
}

/// Why a request carries nobody's token: what tells programs, and what tells people.
struct Unauthorized {
    challenge: &'static str,
    problem: &'static str,
}

impl Auth {
    /// Notes whose token a request carries, and counts it; the answer when it needs a good token or is one too many.
    fn refusal(&self, request: &mut Request) -> Option<Response> {
        let address = request.extensions().get::<SocketAddr>().map(SocketAddr::ip);
        let caller = match &self.tokens {
            Some(tokens) if !self.is_open(request.uri().path()) => {
                match identify(tokens, request.headers()) {
                    Ok(caller) => Some(caller),
                    Err(unauthorized) => return Some(self.turned_away(&unauthorized, address)),
                }
            }
            // Without tokens everybody may call.
            _ => None,
        };
        if let Some(refused) = self.rates.count(caller.as_ref(), address) {
            return Some(refused);
        }
        if let Some(caller) = caller {
            request.extensions_mut().insert(caller);
        }
        None
    }

    fn is_open(&self, path: &str) -> bool {
        OPEN_PATHS.contains(&path)
            || path.starts_with(WELL_KNOWN)
            || (self.public_api && path.starts_with(API))
    }

    fn turned_away(
        &self,
        Unauthorized { challenge, problem }: &Unauthorized,
        address: Option<IpAddr>,
    ) -> Response {
        if let Some(refused) = address.and_then(|address| self.rates.count_failure(address)) {
            return refused;
        }
        warn!(
            "refused a request from {}: {problem}",
            address.map_or_else(|| "nowhere".to_owned(), |address| address.to_string())
        );
        let text = format!(
            "{problem}; send one as `Authorization: Bearer TOKEN`, which the client's configuration has to say, and ask who runs the \
             server for it"
        );
        (
            StatusCode::UNAUTHORIZED,
            [(header::WWW_AUTHENTICATE, *challenge)],
            text,
        )
            .into_response()
    }
}

fn identify(tokens: &watch::Receiver<Tokens>, headers: &HeaderMap) -> Result<Caller, Unauthorized> {
    const NEEDED: &str = r#"Bearer realm="portfolio-mcp""#;
    const INVALID: &str = r#"Bearer realm="portfolio-mcp", error="invalid_token""#;
    let (challenge, problem) = match presented(headers) {
        Credentials::Token(token) => match tokens.borrow().caller(token) {
            Some(caller) => return Ok(caller.clone()),
            None => (INVALID, "the token is not one of this server's"),
        },
        Credentials::Nothing => (NEEDED, "this server needs a token"),
        Credentials::Wrong => (INVALID, "the `Authorization` header holds no bearer token"),
    };
    Err(Unauthorized { challenge, problem })
}

/// Lets a request through, or answers why not.
pub(super) async fn check(
    State(entrance): State<Arc<Auth>>,
    mut request: Request,
    next: Next,
) -> Response {
    match entrance.refusal(&mut request) {
        None => next.run(request).await,
        Some(refused) => refused,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_token_is_presented_as_a_bearer_token_once() {
        let of = |values: &[&str]| {
            let values = values
                .iter()
                .map(|value| (header::AUTHORIZATION, HeaderValue::from_str(value).unwrap()));
            let headers = values.collect::<Vec<_>>();
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(name, value);
            }
            match presented(&map) {
                Credentials::Token(token) => String::from_utf8(token.to_vec()).unwrap(),
                other => format!("{other:?}"),
            }
        };

        assert_eq!(of(&[]), "Nothing");
        assert_eq!(of(&["Bearer abc"]), "abc");
        assert_eq!(of(&["bEARER   abc "]), "abc");
        for wrong in [
            &["Basic abc"][..],
            &["Bearer"],
            &["abc"],
            &["Bearer abc", "Bearer abc"],
        ] {
            assert_eq!(of(wrong), "Wrong", "{wrong:?}");
        }
    }
}

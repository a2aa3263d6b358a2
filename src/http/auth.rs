//! Authentication: a request carries a valid token, where tokens are configured, and its client
//! stays within the rate limit.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    middleware::Next,
    response::Response,
};
use tokio::sync::watch;
use tracing::warn;

use super::{rate::Rates, rejection::Rejection, token::Tokens, view::View};
use crate::caller::Caller;

/// Open to monitoring probes, which have no token.
const OPEN_PATHS: [&str; 2] = ["/healthz", "/readyz"];
/// Open with `--public-api`, but for the content of the past and after a plan.
const API_PREFIX: &str = "/api/";
/// Nothing is served here. A client that looks for an authorization server must get a 404: a 401
/// would send it looking for one again.
const WELL_KNOWN_PREFIX: &str = "/.well-known/";

/// `WWW-Authenticate` of a request without a token, and of one with a wrong token.
const TOKEN_NEEDED: &str = r#"Bearer realm="portfolio-mcp""#;
const TOKEN_INVALID: &str = r#"Bearer realm="portfolio-mcp", error="invalid_token""#;

const SET_HEADER: &str = "Set the header `Authorization: Bearer TOKEN` in your client's \
    configuration; ask the server's administrator for a token";
const CHECK_TOKEN: &str = "Check the token in your client's configuration, or ask the server's \
    administrator for a new one";

/// The content of a request's `Authorization` header.
#[derive(Debug, PartialEq, Eq)]
enum Credentials<'a> {
    Missing,
    Token(&'a [u8]),
    /// Another scheme, or more than one header.
    Invalid,
}

impl<'a> Credentials<'a> {
    // By hand, because the `headers` crate takes the first of several `Authorization` headers.
    fn from_headers(headers: &'a HeaderMap) -> Self {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let Some(value) = values.next() else {
            return Self::Missing;
        };
        if values.next().is_some() {
            return Self::Invalid;
        }
        match value.as_bytes().split_at_checked(7) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => {
                Self::Token(token.trim_ascii())
            }
            _ => Self::Invalid,
        }
    }
}

/// What it takes to check a request.
pub(super) struct Auth {
    pub(super) tokens: Option<watch::Receiver<Tokens>>,
    pub(super) public_api: bool,
    pub(super) rates: Arc<Rates>,
}

/// Why a request is not authenticated: `challenge` for programs, the rest for people.
struct Unauthorized {
    challenge: &'static str,
    problem: &'static str,
    remedy: &'static str,
}

/// Passes on requests that [`Auth`] accepts.
pub(super) async fn enforce(
    State(auth): State<Arc<Auth>>,
    mut request: Request,
    next: Next,
) -> Result<Response, Rejection> {
    auth.authorize(&mut request)?;
    Ok(next.run(request).await)
}

impl Auth {
    /// Adds the request's [`Caller`] to its extensions, if it has one.
    fn authorize(&self, request: &mut Request) -> Result<(), Rejection> {
        let address = request.extensions().get::<SocketAddr>().map(SocketAddr::ip);
        let caller = self.authenticate(request, address)?;
        self.rates.check(caller.as_ref(), address)?;
        if let Some(caller) = caller {
            request.extensions_mut().insert(caller);
        }
        Ok(())
    }

    /// The owner of the request's token; `None` where no token is needed.
    fn authenticate(
        &self,
        request: &Request,
        address: Option<IpAddr>,
    ) -> Result<Option<Caller>, Rejection> {
        let Some(tokens) = &self.tokens else {
            return Ok(None);
        };
        if self.is_open(request.uri()) {
            return Ok(None);
        }
        match identify(&tokens.borrow(), request.headers()) {
            Ok(caller) => Ok(Some(caller)),
            Err(reason) => {
                if let Some(address) = address {
                    self.rates.check_failure(address)?;
                }
                let from = address.map_or_else(|| "unknown address".to_owned(), |a| a.to_string());
                warn!("rejected a request from {from}: {}", reason.problem);
                Err(unauthorized(&reason))
            }
        }
    }

    fn is_open(&self, uri: &Uri) -> bool {
        let path = uri.path();
        OPEN_PATHS.contains(&path)
            || path.starts_with(WELL_KNOWN_PREFIX)
            || (self.public_api && path.starts_with(API_PREFIX) && !View::is_asked_for(uri))
    }
}

fn identify(tokens: &Tokens, headers: &HeaderMap) -> Result<Caller, Unauthorized> {
    match Credentials::from_headers(headers) {
        Credentials::Token(token) => match tokens.find_caller(token) {
            Some(caller) => Ok(caller.clone()),
            None => Err(Unauthorized {
                challenge: TOKEN_INVALID,
                problem: "unknown bearer token",
                remedy: CHECK_TOKEN,
            }),
        },
        Credentials::Missing => Err(Unauthorized {
            challenge: TOKEN_NEEDED,
            problem: "missing bearer token",
            remedy: SET_HEADER,
        }),
        Credentials::Invalid => Err(Unauthorized {
            challenge: TOKEN_INVALID,
            problem: "the `Authorization` header is not a single bearer token",
            remedy: SET_HEADER,
        }),
    }
}

fn unauthorized(reason: &Unauthorized) -> Rejection {
    Rejection::new(
        StatusCode::UNAUTHORIZED,
        format!("{}. {}", reason.problem, reason.remedy),
    )
    .with_header(
        header::WWW_AUTHENTICATE,
        HeaderValue::from_static(reason.challenge),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_single_bearer_token_counts_as_credentials() {
        let parsed = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            match Credentials::from_headers(&headers) {
                Credentials::Token(token) => String::from_utf8(token.to_vec()).unwrap(),
                other => format!("{other:?}"),
            }
        };

        assert_eq!(parsed(&[]), "Missing");
        assert_eq!(parsed(&["Bearer abc"]), "abc");
        assert_eq!(parsed(&["bEARER   abc "]), "abc");
        for invalid in [
            &["Basic abc"][..],
            &["Bearer"],
            &["abc"],
            &["Bearer abc", "Bearer abc"],
        ] {
            assert_eq!(parsed(invalid), "Invalid", "{invalid:?}");
        }
    }
}

//! The guard before every route: it turns away what reaches this server by another name or from a foreign web page.
//!
//! A page can make a browser call loopback addresses, under a host name of the page's own choosing (DNS rebinding).
//! `Host` and `Origin` give that away. This is no protection from programs, which send what they like.

use std::{str::FromStr, sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::warn;

use crate::{domain::text::truncate, http::Settings};

/// How long a browser need not ask again whether it may call.
const PREFLIGHT: Duration = Duration::from_hours(1);

/// A name under which the server may be reached: `example.com`, on any port, or `example.com:8443`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedHost(Place);

/// A web page's origin that may call: `https://example.com` or `https://example.com:8443`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedOrigin(Origin);

/// A text that names no host.
#[derive(Debug, thiserror::Error)]
#[error("expected a host such as `example.com` or `example.com:8443`")]
pub struct NotAHost;

/// A text that names no origin.
#[derive(Debug, thiserror::Error)]
#[error(
    "expected an origin such as `https://example.com` or `http://example.com:8080`, without a path"
)]
pub struct NotAnOrigin;

impl FromStr for AllowedHost {
    type Err = NotAHost;

    fn from_str(text: &str) -> Result<Self, NotAHost> {
        Place::parse(text).map(Self).ok_or(NotAHost)
    }
}

impl FromStr for AllowedOrigin {
    type Err = NotAnOrigin;

    fn from_str(text: &str) -> Result<Self, NotAnOrigin> {
        Origin::parse(text).map(Self).ok_or(NotAnOrigin)
    }
}

/// A host and perhaps a port, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    host: String,
    port: Option<u16>,
}

impl Place {
    fn parse(text: &str) -> Option<Self> {
        let authority: Authority = text.parse().ok()?;
        let after_host = authority.as_str().strip_prefix(authority.host())?; // nothing if there is a user before the host
        let port = match after_host.strip_prefix(':') {
            None | Some("") => None,
            Some(port) => Some(port.parse().ok()?),
        };
        Some(Self {
            host: authority.host().to_ascii_lowercase(),
            port,
        })
    }

    fn is_loopback(&self) -> bool {
        matches!(self.host.as_str(), "localhost" | "127.0.0.1" | "[::1]")
    }
}

/// A scheme and a place, in lower case; the scheme's own port is written out.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    scheme: String,
    place: Place,
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, place) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let mut place = Place::parse(place)?;
        place.port = place.port.or(match scheme.as_str() {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        });
        Some(Self { scheme, place })
    }

    fn is_loopback(&self) -> bool {
        matches!(self.scheme.as_str(), "http" | "https") && self.place.is_loopback()
    }
}

/// Why a request is turned away.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// It does not say, or not clearly, whom it wants.
    BadHost,
    /// It wants somebody else.
    ForeignHost(String),
    /// It comes from a page that may not call.
    ForeignOrigin(String),
}

/// What is let through.
#[derive(Debug)]
pub(super) struct Guard {
    hosts: Vec<AllowedHost>,
    origins: Vec<AllowedOrigin>,
}

impl Guard {
    pub(super) fn new(settings: &Settings) -> Arc<Self> {
        Arc::new(Self {
            hosts: settings.allowed_hosts.clone(),
            origins: settings.allowed_origins.clone(),
        })
    }

    fn examine(&self, target: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Err(Refusal::BadHost);
        };
        let host = host.to_str().map_err(|_| Refusal::BadHost)?;
        // A target in absolute form outranks the header (RFC 9112, section 3.2.2).
        let host = target.authority().map_or(host, Authority::as_str);
        let place = Place::parse(host).ok_or(Refusal::BadHost)?;
        if !self.allows_host(&place) {
            return Err(Refusal::ForeignHost(place.host));
        }

        for value in headers.get_all(header::ORIGIN) {
            if !self.allows_origin(value) {
                return Err(Refusal::ForeignOrigin(
                    String::from_utf8_lossy(value.as_bytes()).into_owned(),
                ));
            }
        }
        Ok(())
    }

    fn allows_host(&self, place: &Place) -> bool {
        place.is_loopback()
            || self.hosts.iter().any(|AllowedHost(allowed)| {
                allowed.host == place.host && (allowed.port.is_none() || allowed.port == place.port)
            })
    }

    fn allows_origin(&self, value: &HeaderValue) -> bool {
        let origin = value.to_str().ok().and_then(Origin::parse);
        origin.is_some_and(|origin| {
            origin.is_loopback()
                || self
                    .origins
                    .iter()
                    .any(|AllowedOrigin(allowed)| *allowed == origin)
        })
    }
}

/// Tells browsers that the pages that may call may also read the answers, and answers what they ask before they call.
pub(super) fn cors(guard: Arc<Guard>) -> CorsLayer {
    let own = HeaderName::from_static;
    let session_id = own("mcp-session-id");
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(move |origin, _| {
            guard.allows_origin(origin)
        }))
        .allow_methods([Method::GET, Method::POST, Method::DELETE, Method::OPTIONS])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::ACCEPT,
            header::IF_NONE_MATCH,
            own("last-event-id"),
            own("mcp-protocol-version"),
            own("mcp-method"),
            own("mcp-name"),
            session_id.clone(),
        ])
        .expose_headers([
            session_id,
            header::ETAG,
            header::RETRY_AFTER,
            header::WWW_AUTHENTICATE,
            own("x-request-id"),
        ])
        .max_age(PREFLIGHT)
}

/// Lets a request through or answers why not.
pub(super) async fn check(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Response {
    match guard.examine(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            let (status, text) = explain(&refusal);
            warn!("refused a request: {text}");
            (status, text).into_response()
        }
    }
}

fn explain(refusal: &Refusal) -> (StatusCode, String) {
    match refusal {
        Refusal::BadHost => (
            StatusCode::BAD_REQUEST,
            "the request must have one `Host` header that names a host".to_owned(),
        ),
        Refusal::ForeignHost(host) => {
            let host = truncate(host);
            let text = format!(
                "the host `{host}` is not one of this server's; if it should be, start it with `--allowed-host {host}`"
            );
            (StatusCode::FORBIDDEN, text)
        }
        Refusal::ForeignOrigin(origin) => {
            let origin = truncate(origin);
            let text = if Origin::parse(&origin).is_some() {
                format!(
                    "pages of `{origin}` are turned away; if they should not be, start it with `--allowed-origin {origin}`"
                )
            } else {
                format!(
                    "the origin `{origin}` may not call this server; `--allowed-origin ORIGIN` allows one like `https://example.com`"
                )
            };
            (StatusCode::FORBIDDEN, text)
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[derive(Debug, PartialEq, Eq, Clone, Copy)]
    enum Verdict {
        Passes,
        Forbidden,
        Bad,
    }
    use Verdict::{Bad, Forbidden, Passes};

    fn guard() -> Arc<Guard> {
        Guard::new(&Settings {
            allowed_hosts: vec![
                "example.com".parse().unwrap(),
                "Cms.Example.org:8443".parse().unwrap(),
            ],
            allowed_origins: [
                "https://app.example.com",
                "http://example.com:8080",
                "https://tls.example.com:443",
                "vscode-webview://abc",
            ]
            .map(|origin| origin.parse().unwrap())
            .to_vec(),
            ..Settings::default()
        })
    }

    fn verdict(target: &str, headers: &[(header::HeaderName, &[u8])]) -> Verdict {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_bytes(value).unwrap()))
            .collect();
        match guard().examine(&target.parse().unwrap(), &headers) {
            Ok(()) => Passes,
            Err(refusal) => match explain(&refusal).0 {
                StatusCode::FORBIDDEN => Forbidden,
                StatusCode::BAD_REQUEST => Bad,
                other => panic!("{other}"),
            },
        }
    }

    #[test]
    fn hosts_are_loopback_names_or_allowed_ones() {
        for (host, expected) in [
            ("localhost", Passes),
            ("LOCALHOST:1", Passes),
            ("localhost:", Passes),
            ("127.0.0.1:8787", Passes),
            ("[::1]", Passes),
            ("[::1]:8787", Passes),
            ("example.com", Passes),
            ("Example.COM:9", Passes),
            ("cms.example.org:8443", Passes),
            ("cms.example.org", Forbidden),
            ("cms.example.org:443", Forbidden),
            ("evil.com", Forbidden),
            ("localhost.evil.com", Forbidden),
            ("evil.com:8787", Forbidden),
            ("sub.example.com", Forbidden),
            ("127.0.0.2", Forbidden),
            ("0.0.0.0:8787", Forbidden),
            ("localhost.", Forbidden),
            ("::1", Bad),
            ("", Bad),
            ("evil.com@localhost", Bad),
            ("localhost@evil.com", Bad),
            ("localhost:99999", Bad),
            ("localhost:http", Bad),
            ("localhost/evil", Bad),
            ("local host", Bad),
            ("localhost, evil.com", Bad),
        ] {
            assert_eq!(
                verdict("/mcp", &[(header::HOST, host.as_bytes())]),
                expected,
                "{host}"
            );
        }
    }

    #[test]
    fn a_request_has_exactly_one_host() {
        assert_eq!(verdict("/mcp", &[]), Bad);
        assert_eq!(
            verdict(
                "/mcp",
                &[(header::HOST, b"localhost"), (header::HOST, b"localhost")]
            ),
            Bad
        );
        assert_eq!(verdict("/mcp", &[(header::HOST, b"\xff")]), Bad);
    }

    #[test]
    fn an_absolute_target_outranks_the_host_header() {
        for (target, host, expected) in [
            ("http://localhost:8787/mcp", "evil.com", Passes),
            ("http://evil.com/mcp", "localhost", Forbidden),
            ("http://EXAMPLE.com/mcp", "localhost", Passes),
        ] {
            assert_eq!(
                verdict(target, &[(header::HOST, host.as_bytes())]),
                expected,
                "{target}"
            );
        }
        assert_eq!(verdict("http://localhost/mcp", &[]), Bad);
    }

    #[test]
    fn origins_are_loopback_ones_or_allowed_ones() {
        for (origin, expected) in [
            ("http://localhost", Passes),
            ("https://localhost:5173", Passes),
            ("HTTP://LocalHost:1", Passes),
            ("http://127.0.0.1:6274", Passes),
            ("http://[::1]:6274", Passes),
            ("https://app.example.com", Passes),
            ("https://APP.example.com:443", Passes),
            ("https://tls.example.com", Passes),
            ("http://example.com:8080", Passes),
            ("vscode-webview://abc", Passes),
            ("http://app.example.com", Forbidden),
            ("https://app.example.com:8443", Forbidden),
            ("http://example.com", Forbidden),
            ("https://example.com:8080", Forbidden),
            ("https://evil.com", Forbidden),
            ("http://localhost.evil.com", Forbidden),
            ("http://localhost@evil.com", Forbidden),
            ("http://evil.com@localhost", Forbidden),
            ("http://localhost/", Forbidden),
            ("ftp://localhost", Forbidden),
            ("vscode-webview://localhost", Forbidden),
            ("localhost", Forbidden),
            ("null", Forbidden),
            ("", Forbidden),
            ("http://localhost http://evil.com", Forbidden),
        ] {
            assert_eq!(
                verdict(
                    "/mcp",
                    &[
                        (header::HOST, b"localhost"),
                        (header::ORIGIN, origin.as_bytes())
                    ]
                ),
                expected,
                "{origin}"
            );
        }
    }

    #[test]
    fn every_origin_of_several_must_be_allowed() {
        let headers: &[(header::HeaderName, &[u8])] = &[
            (header::HOST, b"localhost"),
            (header::ORIGIN, b"http://localhost"),
            (header::ORIGIN, b"https://evil.com"),
        ];

        assert_eq!(verdict("/mcp", headers), Forbidden);
        assert_eq!(
            verdict(
                "/mcp",
                &[
                    (header::HOST, b"localhost"),
                    (header::ORIGIN, b"http://localhost\xff")
                ]
            ),
            Forbidden
        );
    }

    #[test]
    fn a_refusal_names_the_flag_that_would_allow() {
        let text = |refusal: Refusal| explain(&refusal).1;

        assert!(
            text(Refusal::ForeignHost("cms.example.net".to_owned()))
                .ends_with("`--allowed-host cms.example.net`")
        );
        assert!(
            text(Refusal::ForeignOrigin("https://a.example".to_owned()))
                .ends_with("`--allowed-origin https://a.example`")
        );
        assert!(
            text(Refusal::ForeignOrigin("null".to_owned())).contains("`--allowed-origin ORIGIN`")
        );
        assert!(text(Refusal::ForeignHost("x".repeat(1000))).len() < 400);
    }

    #[test]
    fn settings_that_could_never_match_are_refused() {
        for host in [
            "",
            "https://example.com",
            "example.com/mcp",
            "me@example.com",
            "example.com:port",
        ] {
            assert!(host.parse::<AllowedHost>().is_err(), "{host}");
        }
        for origin in [
            "",
            "null",
            "*",
            "example.com",
            "https://example.com/",
            "https://example.com/app",
            "https://",
        ] {
            assert!(origin.parse::<AllowedOrigin>().is_err(), "{origin}");
        }
    }
}

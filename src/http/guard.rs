//! The guard before every route: rejects requests that name a foreign host or come from a foreign
//! web page.
//!
//! A page can make a browser call loopback addresses, under a host name of the page's own choosing
//! (DNS rebinding). `Host` and `Origin` reveal that. This does not protect from programs, which can
//! send any header.

use std::{str::FromStr, sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header, uri::Authority},
    middleware::Next,
    response::Response,
};
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::warn;

use super::rejection::Rejection;
use crate::domain::text::truncate;

/// How long a browser may reuse the answer to a preflight request.
const PREFLIGHT_TTL: Duration = Duration::from_hours(1);

/// A host name of this server: `example.com`, on any port, or `example.com:8443`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedHost(HostPort);

/// The origin of a web page that may call: `https://example.com` or `https://example.com:8443`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedOrigin(WebOrigin);

/// A string that is not a host.
#[derive(Debug, thiserror::Error)]
#[error("expected a host such as `example.com` or `example.com:8443`")]
pub struct NotAHost;

/// A string that is not an origin.
#[derive(Debug, thiserror::Error)]
#[error(
    "expected an origin such as `https://example.com` or `http://example.com:8080`, without a path"
)]
pub struct NotAnOrigin;

impl FromStr for AllowedHost {
    type Err = NotAHost;

    fn from_str(text: &str) -> Result<Self, NotAHost> {
        HostPort::parse(text).map(Self).ok_or(NotAHost)
    }
}

impl FromStr for AllowedOrigin {
    type Err = NotAnOrigin;

    fn from_str(text: &str) -> Result<Self, NotAnOrigin> {
        WebOrigin::parse(text).map(Self).ok_or(NotAnOrigin)
    }
}

/// A host in lower case, and its port if one is given.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HostPort {
    host: String,
    port: Option<u16>,
}

impl HostPort {
    fn parse(text: &str) -> Option<Self> {
        let authority: Authority = text.parse().ok()?;
        // Fails if a user name precedes the host.
        let after_host = authority.as_str().strip_prefix(authority.host())?;
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

/// A web page's origin in lower case. The default port of `http` and `https` is filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct WebOrigin {
    scheme: String,
    host_port: HostPort,
}

impl WebOrigin {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, host_port) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let mut host_port = HostPort::parse(host_port)?;
        host_port.port = host_port.port.or(match scheme.as_str() {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        });
        Some(Self { scheme, host_port })
    }

    fn is_loopback(&self) -> bool {
        matches!(self.scheme.as_str(), "http" | "https") && self.host_port.is_loopback()
    }
}

/// The hosts and origins that are allowed in addition to loopback ones.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) hosts: Vec<AllowedHost>,
    pub(super) origins: Vec<AllowedOrigin>,
}

/// Passes on requests that the [`Guard`] accepts.
pub(super) async fn enforce(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Result<Response, Rejection> {
    if let Err(rejection) = guard.check(request.uri(), request.headers()) {
        warn!("rejected a request: {}", rejection.text);
        return Err(rejection);
    }
    Ok(next.run(request).await)
}

/// Lets browsers show responses to the pages that may call, and answers preflight requests.
pub(super) fn cors(guard: Arc<Guard>) -> CorsLayer {
    let name = HeaderName::from_static;
    let session_id = name("mcp-session-id");
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
            name("last-event-id"),
            name("mcp-protocol-version"),
            name("mcp-method"),
            name("mcp-name"),
            session_id.clone(),
        ])
        .expose_headers([
            session_id,
            header::ETAG,
            header::RETRY_AFTER,
            header::WWW_AUTHENTICATE,
            name("x-request-id"),
        ])
        .max_age(PREFLIGHT_TTL)
}

impl Guard {
    fn check(&self, target: &Uri, headers: &HeaderMap) -> Result<(), Rejection> {
        let host = requested_host(target, headers).ok_or_else(bad_host)?;
        if !self.allows_host(&host) {
            return Err(foreign_host(&host.host));
        }
        for origin in headers.get_all(header::ORIGIN) {
            if !self.allows_origin(origin) {
                return Err(foreign_origin(&String::from_utf8_lossy(origin.as_bytes())));
            }
        }
        Ok(())
    }

    fn allows_host(&self, host: &HostPort) -> bool {
        host.is_loopback()
            || self.hosts.iter().any(|AllowedHost(allowed)| {
                allowed.host == host.host && (allowed.port.is_none() || allowed.port == host.port)
            })
    }

    fn allows_origin(&self, value: &HeaderValue) -> bool {
        let origin = value.to_str().ok().and_then(WebOrigin::parse);
        origin.is_some_and(|origin| {
            origin.is_loopback()
                || self
                    .origins
                    .iter()
                    .any(|AllowedOrigin(allowed)| *allowed == origin)
        })
    }
}

/// `None` if the request does not have exactly one `Host` header, or if that is not a host.
fn requested_host(target: &Uri, headers: &HeaderMap) -> Option<HostPort> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return None;
    };
    let host = host.to_str().ok()?;
    // A target in absolute form takes precedence over the header (RFC 9112, section 3.2.2).
    HostPort::parse(target.authority().map_or(host, Authority::as_str))
}

fn bad_host() -> Rejection {
    Rejection::new(
        StatusCode::BAD_REQUEST,
        "the request must have exactly one `Host` header, and it must be a valid host",
    )
}

fn foreign_host(host: &str) -> Rejection {
    let host = truncate(host);
    let text = format!(
        "requests for the host `{host}` are not allowed. To allow them, start the server with \
         `--allowed-host {host}`"
    );
    Rejection::new(StatusCode::FORBIDDEN, text)
}

fn foreign_origin(origin: &str) -> Rejection {
    let origin = truncate(origin);
    let text = if WebOrigin::parse(&origin).is_some() {
        format!(
            "requests from the origin `{origin}` are not allowed. To allow them, start the server \
             with `--allowed-origin {origin}`"
        )
    } else {
        format!(
            "requests from the origin `{origin}` are not allowed. `--allowed-origin ORIGIN` allows \
             an origin such as `https://example.com`"
        )
    };
    Rejection::new(StatusCode::FORBIDDEN, text)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[derive(Debug, PartialEq, Eq, Clone, Copy)]
    enum Verdict {
        Allowed,
        Forbidden,
        Bad,
    }
    use Verdict::{Allowed, Bad, Forbidden};

    fn guard() -> Guard {
        Guard {
            hosts: vec![
                "example.com".parse().unwrap(),
                "Cms.Example.org:8443".parse().unwrap(),
            ],
            origins: [
                "https://app.example.com",
                "http://example.com:8080",
                "https://tls.example.com:443",
                "vscode-webview://abc",
            ]
            .map(|origin| origin.parse().unwrap())
            .to_vec(),
        }
    }

    fn verdict(target: &str, headers: &[(header::HeaderName, &[u8])]) -> Verdict {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_bytes(value).unwrap()))
            .collect();
        match guard().check(&target.parse().unwrap(), &headers) {
            Ok(()) => Allowed,
            Err(rejection) => match rejection.status {
                StatusCode::FORBIDDEN => Forbidden,
                StatusCode::BAD_REQUEST => Bad,
                other => panic!("{other}"),
            },
        }
    }

    #[test]
    fn only_loopback_and_allowed_hosts_are_served() {
        for (host, expected) in [
            ("localhost", Allowed),
            ("LOCALHOST:1", Allowed),
            ("localhost:", Allowed),
            ("127.0.0.1:8787", Allowed),
            ("[::1]", Allowed),
            ("[::1]:8787", Allowed),
            ("example.com", Allowed),
            ("Example.COM:9", Allowed),
            ("cms.example.org:8443", Allowed),
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
    fn a_request_must_have_exactly_one_host() {
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
    fn an_absolute_target_takes_precedence_over_the_host_header() {
        for (target, host, expected) in [
            ("http://localhost:8787/mcp", "evil.com", Allowed),
            ("http://evil.com/mcp", "localhost", Forbidden),
            ("http://EXAMPLE.com/mcp", "localhost", Allowed),
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
    fn only_loopback_and_allowed_origins_are_served() {
        for (origin, expected) in [
            ("http://localhost", Allowed),
            ("https://localhost:5173", Allowed),
            ("HTTP://LocalHost:1", Allowed),
            ("http://127.0.0.1:6274", Allowed),
            ("http://[::1]:6274", Allowed),
            ("https://app.example.com", Allowed),
            ("https://APP.example.com:443", Allowed),
            ("https://tls.example.com", Allowed),
            ("http://example.com:8080", Allowed),
            ("vscode-webview://abc", Allowed),
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
    fn every_one_of_several_origins_must_be_allowed() {
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
    fn a_rejection_names_the_option_that_allows_the_request() {
        assert!(
            foreign_host("cms.example.net")
                .text
                .ends_with("`--allowed-host cms.example.net`")
        );
        assert!(
            foreign_origin("https://a.example")
                .text
                .ends_with("`--allowed-origin https://a.example`")
        );
        assert!(
            foreign_origin("null")
                .text
                .contains("`--allowed-origin ORIGIN`")
        );
        assert!(foreign_host(&"x".repeat(1000)).text.len() < 400);
    }

    #[test]
    fn settings_that_can_never_match_are_rejected() {
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

//! Requests for paths that are no route: a slash too many, a proxy's own path, or one that is not
//! served.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{Method, StatusCode, Uri, uri::PathAndQuery},
    response::{IntoResponse, Response},
};

use super::{public_path::PublicPath, rejection::Rejection};

/// The paths that are served, besides those of the documents below [`LISTS`].
const ROUTES: [&str; 9] = [
    "/mcp",
    "/sse",
    "/sse/messages",
    "/messages",
    "/api/projects",
    "/api/resources",
    "/healthz",
    "/readyz",
    "/metrics",
];
const LISTS: [&str; 2] = ["/api/projects/", "/api/resources/"];

/// A request with the path that a route has: `/mcp/` is `/mcp`, and a proxy may have left
/// the path of its own before it.
pub(super) fn normalize<B>(
    mut request: axum::http::Request<B>,
    public_path: Option<&PublicPath>,
) -> axum::http::Request<B> {
    if let Some(uri) = normalized(request.uri(), public_path) {
        *request.uri_mut() = uri;
    }
    request
}

/// `None` if the path stays.
fn normalized(uri: &Uri, public_path: Option<&PublicPath>) -> Option<Uri> {
    let sent = without_slash(with_one_slash(uri.path()));
    // A proxy may serve under `/mcp` or `/api` what it forwards without that path.
    let below = public_path
        .filter(|_| !is_route(sent))
        .and_then(|public_path| public_path.below(uri.path()));
    let path = below.map_or(sent, without_slash);
    if path == uri.path() {
        return None;
    }
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(target).ok()?);
    Uri::from_parts(parts).ok()
}

/// `/mcp` for `//mcp`, which clients make of a base URL that ends with a slash.
fn with_one_slash(path: &str) -> &str {
    let name = path.trim_start_matches('/');
    path.get(path.len() - name.len() - usize::from(path.starts_with('/'))..)
        .unwrap_or(path)
}

fn without_slash(path: &str) -> &str {
    let trimmed = path.strip_suffix('/').filter(|path| !path.is_empty());
    trimmed.unwrap_or(path)
}

fn is_route(path: &str) -> bool {
    let is_document = |list: &&str| {
        path.strip_prefix(*list)
            .is_some_and(|slug| !slug.is_empty() && !slug.contains('/'))
    };
    ROUTES.contains(&path) || LISTS.iter().any(is_document)
}

/// The answer where nothing is served.
pub(super) async fn not_found(
    State(public_path): State<Arc<Option<PublicPath>>>,
    request: Request,
) -> Response {
    let prefix = PublicPath::of_request(Option::as_ref(&public_path), request.headers());
    let beginning = match (request.method(), request.uri().path()) {
        (&Method::POST, "/") => format!(
            "MCP is not at `/`, but at `{prefix}/mcp`: put that path into the client's configuration. This server has: "
        ),
        _ => "there is nothing at this path. This server has: ".to_owned(),
    };
    let text = format!("{beginning}{}\n", served(&prefix));
    Rejection::new(StatusCode::NOT_FOUND, text).into_response()
}

fn served(prefix: &PublicPath) -> String {
    format!(
        "{prefix}/mcp (MCP over Streamable HTTP), {prefix}/sse (MCP over HTTP+SSE, with \
         {prefix}/messages), {prefix}/api/projects and {prefix}/api/resources (the website's API), \
         {prefix}/healthz, {prefix}/readyz and {prefix}/metrics"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_path_and_one_slash_at_the_end_are_removed() {
        let cms: PublicPath = "/cms".parse().unwrap();
        for (sent, served) in [
            ("/mcp/", Some("/mcp")),
            (
                "/api/projects/?featured=true",
                Some("/api/projects?featured=true"),
            ),
            ("http://localhost/mcp/", Some("http://localhost/mcp")),
            ("/mcp//", Some("/mcp/")),
            ("//mcp", Some("/mcp")),
            ("///mcp/?x", Some("/mcp?x")),
            ("//", Some("/")),
            ("//cms/mcp", Some("/cms/mcp")),
            ("/", None),
            ("/?a/", None),
            ("/mcp", None),
            ("/mcp?x=/", None),
            ("/cms/mcp", Some("/mcp")),
            ("/cms/api/projects/?tag=x", Some("/api/projects?tag=x")),
            ("/cms/", Some("/")),
            ("/cms", Some("/")),
            ("/cmsx/mcp", None),
        ] {
            let uri: Uri = sent.parse().unwrap();

            let found = normalized(&uri, Some(&cms)).map(|uri| uri.to_string());

            assert_eq!(found.as_deref(), served, "{sent}");
        }
    }

    #[test]
    fn a_route_is_served_as_it_is_under_a_public_path_like_it() {
        for (public_path, sent, served) in [
            ("/mcp", "/mcp", "/mcp"),
            ("/mcp", "/mcp/", "/mcp"),
            ("/mcp", "/mcp?x", "/mcp?x"),
            ("/mcp", "/mcp/mcp", "/mcp"),
            ("/mcp", "/mcp/messages?sessionId=x", "/messages?sessionId=x"),
            ("/mcp", "/healthz", "/healthz"),
            ("/api", "/api", "/"),
            ("/api", "/api/projects", "/api/projects"),
            ("/api", "/api/projects/one/", "/api/projects/one"),
            ("/api", "/api/api/projects/one", "/api/projects/one"),
            ("/api", "/api/mcp", "/mcp"),
            ("/sse", "/sse/sse", "/sse"),
            ("/sse", "/sse/messages", "/sse/messages"),
            (
                "/api/projects",
                "/api/projects/api/projects",
                "/api/projects",
            ),
        ] {
            let public_path: PublicPath = public_path.parse().unwrap();
            let uri: Uri = sent.parse().unwrap();

            let found = normalized(&uri, Some(&public_path)).unwrap_or(uri);

            assert_eq!(found.to_string(), served, "{public_path}: {sent}");
        }
    }
}

//! Requests for paths that are no route: a slash too many, or a path that is not served.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{Method, StatusCode, Uri, uri::PathAndQuery},
    response::{IntoResponse, Response},
};

use super::{public_path::PublicPath, rejection::Rejection};

/// `/mcp/` is `/mcp`: the slash at the end of a path means nothing here.
pub(super) fn without_trailing_slash<B>(
    mut request: axum::http::Request<B>,
) -> axum::http::Request<B> {
    if let Some(uri) = trimmed(request.uri()) {
        *request.uri_mut() = uri;
    }
    request
}

fn trimmed(uri: &Uri) -> Option<Uri> {
    let path = uri
        .path()
        .strip_suffix('/')
        .filter(|path| !path.is_empty())?;
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(target).ok()?);
    Uri::from_parts(parts).ok()
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
    fn one_slash_at_the_end_of_a_path_is_removed() {
        for (sent, served) in [
            ("/mcp/", Some("/mcp")),
            (
                "/api/projects/?featured=true",
                Some("/api/projects?featured=true"),
            ),
            ("http://localhost/mcp/", Some("http://localhost/mcp")),
            ("/mcp//", Some("/mcp/")),
            ("/", None),
            ("/?a/", None),
            ("/mcp", None),
            ("/mcp?x=/", None),
        ] {
            let uri: Uri = sent.parse().unwrap();

            let found = trimmed(&uri).map(|uri| uri.to_string());

            assert_eq!(found.as_deref(), served, "{sent}");
        }
    }
}

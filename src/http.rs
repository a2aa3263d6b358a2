//! The HTTP side: who is mounted where, the limits that every route shares, and the graceful end.
//!
//! Generic over the MCP handler; it knows neither tools nor stores, and the website's content through the service alone.

use std::{io, num::NonZeroU32, sync::Arc, time::Duration};

use axum::{Router, http::request::Parts, middleware};
use metrics_exporter_prometheus::PrometheusHandle;
use rmcp::ServerHandler;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{caller::TransportKind, service::ContentService};

mod body;
mod connection;
mod entrance;
mod guard;
mod health;
mod rate;
mod rest;
mod sse;
mod streamable;
#[cfg(test)]
mod tests;
mod token;

pub use guard::{AllowedHost, AllowedOrigin, NotAHost, NotAnOrigin};
pub use token::Tokens;

/// What a deployment decides; the defaults serve whoever calls by a loopback name.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Names under which the server is reached, besides loopback ones.
    pub allowed_hosts: Vec<AllowedHost>,
    /// Web pages that may call it, besides loopback ones.
    pub allowed_origins: Vec<AllowedOrigin>,
    /// Bearer tokens, of which a request needs one; they may be replaced at any time. Without any, everybody may call.
    pub tokens: Option<watch::Receiver<Tokens>>,
    /// Whether what is published may be read without a token.
    pub public_api: bool,
    /// Requests a second that a client may make.
    pub rate_limit: Option<NonZeroU32>,
    /// Connections that are open at once.
    pub connections: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            tokens: None,
            public_api: false,
            rate_limit: None,
            connections: 4096,
        }
    }
}

/// What is shown besides MCP.
#[derive(Clone)]
pub struct Site {
    /// What is published, and how its store is.
    pub content: Arc<ContentService>,
    /// What was counted, if it was.
    pub metrics: Option<PrometheusHandle>,
}

impl Site {
    fn routes(self, settings: &Settings, stop: CancellationToken) -> Router {
        let audience = match settings.tokens {
            Some(_) if !settings.public_api => rest::Audience::TokenHolders,
            _ => rest::Audience::Everybody,
        };
        rest::routes(Arc::clone(&self.content), audience).merge(health::routes(
            self.content,
            self.metrics,
            stop,
        ))
    }
}

/// Serves `/mcp`, `/sse` and `/messages`, and the `site` beside them, until `stop`: then streams end at once and requests under way are answered.
///
/// A clone of `server` answers each request of `/mcp` and each session of `/sse`, so it should hold handles only. It finds
/// a [`TransportKind`], the peer's [`SocketAddr`](std::net::SocketAddr) and perhaps a [`Caller`](crate::caller::Caller) and a
/// [`ClaimedClient`](crate::caller::ClaimedClient) in the extensions of the request's parts.
///
/// # Errors
/// When the listener has no address.
pub async fn serve<S: ServerHandler + Clone>(
    listener: TcpListener,
    server: S,
    site: Site,
    settings: Settings,
    stop: CancellationToken,
) -> io::Result<()> {
    let site = site.routes(&settings, stop.clone());
    serve_within(Limits::default(), listener, server, site, settings, stop).await
}

/// How much and how long; tests make them smaller.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Open `/sse` streams.
    sessions: usize,
    /// How long a message waits for room in its session's queue.
    send: Duration,
    /// How long the head of a request may take to come, from the connection's beginning or the last answer on: so long a
    /// connection may be idle, too.
    head: Duration,
    /// How long the body of a request may take to come.
    body: Duration,
    /// How long a socket may take no bytes while there are some to write.
    write: Duration,
    /// How long requests under way may take after `stop`: the process has to be gone within 10 seconds.
    grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions: 1000,
            send: Duration::from_secs(30),
            head: Duration::from_secs(30),
            body: Duration::from_secs(30),
            write: Duration::from_secs(30),
            grace: Duration::from_secs(9),
        }
    }
}

async fn serve_within<S: ServerHandler + Clone>(
    limits: Limits,
    listener: TcpListener,
    server: S,
    site: Router,
    settings: Settings,
    stop: CancellationToken,
) -> io::Result<()> {
    // Cancelled at the very end. rmcp does not get `stop`, because it would answer the requests under way with an error.
    let abort = CancellationToken::new();
    let _abort = abort.clone().drop_guard();

    let rates = Arc::new(rate::Rates::new(settings.rate_limit));
    tokio::spawn(Arc::clone(&rates).forget_the_silent(abort.clone()));
    let entrance = Arc::new(entrance::Auth {
        tokens: settings.tokens.clone(),
        public_api: settings.public_api,
        rates,
    });
    let guard = guard::Guard::new(&settings);

    let app = Router::new()
        .merge(streamable::routes(
            server.clone(),
            limits,
            stop.clone(),
            abort.clone(),
        ))
        .merge(sse::routes(server, limits, stop.clone(), abort))
        .merge(site)
        // In this order: whom the request wants and from which page it comes; then who asks, and how often. One layer, because every
        // layer copies for each request what is below it.
        .layer((
            middleware::from_fn_with_state(Arc::clone(&guard), guard::check),
            guard::cors(guard),
            middleware::from_fn_with_state(entrance, entrance::check),
        ));
    connection::serve(listener, app, settings.connections, limits, stop).await;
    Ok(())
}

/// Tells the handler through which door a request comes.
fn tag_transport(parts: &mut Parts, door: TransportKind) {
    parts.extensions.insert(door);
}

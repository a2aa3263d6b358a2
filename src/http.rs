//! The HTTP edge: the routes, the checks that every route shares, and the graceful shutdown.
//!
//! Generic over the MCP handler. It knows neither tools nor stores; it reads the website's content
//! through the service.

use std::sync::Arc;

use axum::{Router, middleware, routing::any};
use metrics_exporter_prometheus::PrometheusHandle;
use rmcp::ServerHandler;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::service::ContentService;

mod accept;
mod auth;
mod body;
mod connection;
mod filter;
mod guard;
mod half_close;
mod health;
mod limits;
mod paths;
mod payload;
mod public_path;
mod rate;
mod recent_responses;
mod rejection;
mod response_cache;
mod rest;
mod settings;
mod sse;
mod stages;
mod streamable;
#[cfg(test)]
mod tests;
mod token;
mod view;

pub use guard::{AllowedHost, AllowedOrigin, NotAHost, NotAnOrigin};
pub use public_path::{NotAPath, PublicPath};
pub use settings::Settings;
pub use token::Tokens;

use limits::Limits;
use stages::Stages;

/// The routes that are not MCP: the website API, health and metrics.
#[derive(Clone)]
pub struct SiteRoutes {
    /// The published content, and the health of its store.
    pub content: Arc<ContentService>,
    /// The metrics, if any are recorded.
    pub metrics: Option<PrometheusHandle>,
}

impl SiteRoutes {
    fn into_router(self, settings: &Settings, stop: CancellationToken) -> Router {
        let audience = match settings.tokens {
            Some(_) if !settings.public_api => rest::Audience::TokenHolders,
            _ => rest::Audience::Public,
        };
        rest::routes(Arc::clone(&self.content), audience).merge(health::routes(
            self.content,
            self.metrics,
            stop,
        ))
    }
}

/// Serves `/mcp`, `/sse`, `/messages` and the `site` routes until `stop`: then idle streams end at
/// once, and requests that have begun are answered.
///
/// A clone of `server` answers each request to `/mcp` and each session of `/sse`, so it should hold
/// handles only. In the extensions of a request's parts it finds a [`TransportKind`], the peer's
/// [`SocketAddr`], and, where known, a [`Caller`] and a [`ClaimedClient`].
///
/// [`TransportKind`]: crate::caller::TransportKind
/// [`SocketAddr`]: std::net::SocketAddr
/// [`Caller`]: crate::caller::Caller
/// [`ClaimedClient`]: crate::caller::ClaimedClient
pub async fn serve<S: ServerHandler + Clone>(
    listener: TcpListener,
    server: S,
    site: SiteRoutes,
    settings: Settings,
    stop: CancellationToken,
) {
    let site = site.into_router(&settings, stop.clone());
    serve_with_limits(Limits::default(), listener, server, site, settings, stop).await;
}

async fn serve_with_limits<S: ServerHandler + Clone>(
    limits: Limits,
    listener: TcpListener,
    server: S,
    site: Router,
    settings: Settings,
    stop: CancellationToken,
) {
    let stages = Stages::new(stop.clone(), limits.grace_period);
    let _abort = stages.abort.clone().drop_guard();

    let rates = Arc::new(rate::Rates::new(settings.rate_limit));
    tokio::spawn(Arc::clone(&rates).evict_idle(stages.abort.clone()));
    let auth = Arc::new(auth::Auth {
        tokens: settings.tokens,
        public_api: settings.public_api,
        rates,
    });
    let guard = Arc::new(guard::Guard {
        hosts: settings.allowed_hosts,
        origins: settings.allowed_origins,
    });

    let public_path = Arc::new(settings.public_path);
    let not_found = any(paths::not_found).with_state(Arc::clone(&public_path));
    let app = Router::new()
        .merge(streamable::routes(server.clone(), limits, stages.clone()))
        .merge(sse::routes(
            server,
            Arc::clone(&public_path),
            limits,
            stages,
        ))
        .merge(site)
        .fallback_service(not_found)
        // In this order: host and origin first, then the token and the rate. One layer, because
        // every layer copies what is below it for each request.
        .layer((
            middleware::from_fn_with_state(Arc::clone(&guard), guard::enforce),
            guard::cors(guard),
            middleware::from_fn_with_state(auth, auth::enforce),
        ));
    connection::serve(
        listener,
        app,
        public_path,
        settings.max_connections,
        limits,
        stop,
    )
    .await;
}

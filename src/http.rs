//! The HTTP side: who is mounted where, the limits that every route shares, and the graceful end.
//!
//! Generic over the MCP handler; it knows neither tools nor stores.

use std::{io, net::SocketAddr, pin::Pin, time::Duration};

use axum::{
    Router,
    extract::ConnectInfo,
    http::request::Parts,
    middleware,
    serve::{ListenerExt as _, TapIo},
};
use rmcp::ServerHandler;
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::mcp::Door;

mod body;
mod guard;
mod sse;
mod streamable;
#[cfg(test)]
mod tests;

pub use guard::{AllowedHost, AllowedOrigin, NotAHost, NotAnOrigin};

/// What a deployment may add to the defaults, which serve loopback names only.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Names under which the server is reached.
    pub allowed_hosts: Vec<AllowedHost>,
    /// Web pages that may call it.
    pub allowed_origins: Vec<AllowedOrigin>,
}

/// Serves `/mcp`, `/sse` and `/messages` until `stop`: then streams end at once and requests under way are answered.
///
/// A clone of `server` answers each request of `/mcp` and each session of `/sse`, so it should hold handles only. It finds
/// a [`Door`], the peer's [`SocketAddr`] and perhaps a [`ClaimedClient`](crate::mcp::ClaimedClient) in the extensions of the
/// request's parts.
pub async fn serve<S: ServerHandler + Clone>(
    listener: TcpListener,
    server: S,
    settings: Settings,
    stop: CancellationToken,
) -> io::Result<()> {
    serve_within(Limits::default(), listener, server, settings, stop).await
}

/// How much and how long; tests make them smaller.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Open `/sse` streams.
    sessions: usize,
    /// How long a message waits for room in its session's queue.
    send: Duration,
    /// How long a socket may take no bytes while there are some to write.
    write: Duration,
    /// How long requests under way may take after `stop`.
    grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { sessions: 1000, send: Duration::from_secs(30), write: Duration::from_secs(30), grace: Duration::from_secs(10) }
    }
}

async fn serve_within<S: ServerHandler + Clone>(
    limits: Limits,
    listener: TcpListener,
    server: S,
    settings: Settings,
    stop: CancellationToken,
) -> io::Result<()> {
    // Cancelled at the very end. rmcp does not get `stop`, because it would answer the requests under way with an error.
    let abort = CancellationToken::new();
    let _abort = abort.clone().drop_guard();

    let app = Router::new()
        .merge(streamable::routes(server.clone(), stop.clone(), abort.clone()))
        .merge(sse::routes(server, limits, stop.clone(), abort))
        .layer(middleware::from_fn_with_state(guard::Guard::new(settings), guard::check));

    let serving = axum::serve(sockets(listener, limits.write), app.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(stop.clone().cancelled_owned());

    let grace_over = async {
        stop.cancelled().await;
        tokio::time::sleep(limits.grace).await;
    };
    tokio::select! {
        ended = serving.into_future() => ended,
        () = grace_over => {
            warn!("dropped the connections that were still open {:?} after the stop", limits.grace);
            Ok(())
        }
    }
}

/// Tells the handler through which door and from which address a request comes.
fn introduce(parts: &mut Parts, door: Door) {
    parts.extensions.insert(door);
    if let Some(ConnectInfo(address)) = parts.extensions.get::<ConnectInfo<SocketAddr>>().copied() {
        parts.extensions.insert(address); // bare, so that the handler need not know axum
    }
}

type Socket = Pin<Box<TimeoutStream<TcpStream>>>;

fn sockets(listener: TcpListener, limit: Duration) -> TapIo<WriteTimeout, fn(&mut Socket)> {
    WriteTimeout { listener, limit }.tap_io(|socket| {
        // Otherwise every streamed answer waits for the client's delayed acknowledgement, 40 ms.
        if let Err(error) = socket.get_ref().set_nodelay(true) {
            debug!("cannot set TCP_NODELAY: {error}");
        }
    })
}

/// A listener whose sockets fail when the other side takes no bytes, so that a client that stops reading is dropped on every route.
struct WriteTimeout {
    listener: TcpListener,
    limit: Duration,
}

impl axum::serve::Listener for WriteTimeout {
    type Io = Socket;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (socket, address) = axum::serve::Listener::accept(&mut self.listener).await;
        let mut socket = TimeoutStream::new(socket);
        socket.set_write_timeout(Some(self.limit));
        (Box::pin(socket), address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

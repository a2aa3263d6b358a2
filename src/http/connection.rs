//! Connections: how many there are, what each may cost, and how they end.
//!
//! An accept loop of its own, because axum's sets no timeouts: a client that opens a connection and says nothing, or one byte
//! at a time, must not keep it.

use std::{io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use axum::Router;
use hyper::{
    Request, body::Incoming, server::conn::http1, service::Service as _, service::service_fn,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::http::Limits;

/// So much is kept of a connection at most, the head of a request included.
const BUFFER: usize = 64 * 1024;
/// How long accepting pauses when the system refuses, as it does when the process has no descriptors left.
const PAUSE: Duration = Duration::from_secs(1);
/// What a connection gets for which there is no room.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\nconnection: close\r\ncontent-type: text/plain\r\ncontent-length: 47\r\n\r\n\
      the server has too many connections; try later\n";

/// Serves `app`, which finds the peer's [`SocketAddr`] in the extensions of a request, until `stop`, and then what is under way.
pub(super) async fn serve(
    listener: TcpListener,
    app: Router,
    connections: usize,
    limits: Limits,
    stop: CancellationToken,
) {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(BUFFER);
    let (app, graceful) = (TowerToHyperService::new(app), GracefulShutdown::new());
    let places = Arc::new(Semaphore::new(connections));
    let mut full = false;

    while let Some((socket, address)) = stop.run_until_cancelled(accept(&listener)).await {
        let Some(place) = Place::take(&places) else {
            if !std::mem::replace(&mut full, true) {
                warn!(
                    "{connections} connections are open; more are turned away until one is closed"
                );
            }
            let _ = socket.try_write(FULL);
            continue;
        };
        full = false;
        let app = app.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(address);
            app.call(request)
        });
        let connection = graceful
            .watch(builder.serve_connection(TokioIo::new(prepared(socket, limits.write)), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!("a connection broke: {error}");
            }
            drop(place);
        });
    }

    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = sleep(limits.grace) => warn!("dropped the connections that were still open {:?} after the stop", limits.grace),
    }
}

/// A connection's place, counted while it is held.
struct Place(
    #[expect(dead_code, reason = "gives the place back when dropped")] OwnedSemaphorePermit,
);

impl Place {
    fn take(places: &Arc<Semaphore>) -> Option<Self> {
        let place = Arc::clone(places).try_acquire_owned().ok()?;
        metrics::gauge!("portfolio_http_connections").increment(1.0);
        Some(Self(place))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::gauge!("portfolio_http_connections").decrement(1.0);
    }
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                ) =>
            {
                debug!("a client left before it was served: {error}");
            }
            Err(error) => {
                warn!("cannot accept connections, trying again in {PAUSE:?}: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}

/// A socket that fails when the other side takes no bytes, so that a client that stops reading is dropped on every route.
pub(super) fn prepared(
    socket: TcpStream,
    write_limit: Duration,
) -> Pin<Box<TimeoutStream<TcpStream>>> {
    // Otherwise every streamed answer waits for the client's delayed acknowledgement, 40 ms.
    if let Err(error) = socket.set_nodelay(true) {
        debug!("cannot set TCP_NODELAY: {error}");
    }
    let mut socket = TimeoutStream::new(socket);
    socket.set_write_timeout(Some(write_limit));
    Box::pin(socket)
}

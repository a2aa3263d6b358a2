//! The accept loop: limits the number of connections and what each may cost, and closes them.
//!
//! By hand, because axum's loop sets no timeouts: a client that opens a connection and sends
//! nothing, or one byte at a time, must not keep it.

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

use super::{
    half_close::{Input, RequestBody, Socket},
    limits::Limits,
    paths,
    public_path::PublicPath,
};

/// Buffer of one connection; the head of a request must fit into it.
const MAX_BUFFER_BYTES: usize = 64 * 1024;
/// The pause after the system could not accept a connection, for example because the process has no
/// file descriptors left.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// The response to a connection over the limit.
const SERVER_FULL_RESPONSE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    retry-after: 5\r\n\
    connection: close\r\n\
    content-type: text/plain\r\n\
    content-length: 39\r\n\
    \r\n\
    too many open connections; retry later\n";

/// Serves `app` until `stop`, then finishes the open requests.
///
/// The extensions of each request hold the peer's [`SocketAddr`].
pub(super) async fn serve(
    listener: TcpListener,
    app: Router,
    public_path: Arc<Option<PublicPath>>,
    max_connections: usize,
    limits: Limits,
    stop: CancellationToken,
) {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(MAX_BUFFER_BYTES);
    let (app, graceful) = (TowerToHyperService::new(app), GracefulShutdown::new());
    let permits = Arc::new(Semaphore::new(max_connections));
    let mut full = false;

    while let Some((socket, address)) = stop.run_until_cancelled(accept(&listener)).await {
        let Some(permit) = ConnectionPermit::try_acquire(&permits) else {
            if !std::mem::replace(&mut full, true) {
                warn!(
                    "all {max_connections} connections are in use; \
                     rejecting new ones until one closes"
                );
            }
            let _ = socket.try_write(SERVER_FULL_RESPONSE);
            continue;
        };
        full = false;
        let (app, input) = (app.clone(), Arc::new(Input::default()));
        let public_path = Arc::clone(&public_path);
        let io = TokioIo::new(Socket {
            stream: prepare_socket(socket, limits.write_timeout),
            input: Arc::clone(&input),
        });
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(address);
            let answering = input.begin_answer();
            let input = Arc::clone(&input);
            let request = paths::normalize(request, Option::as_ref(&public_path));
            let response = app.call(request.map(|body| RequestBody { body, input }));
            async move {
                response
                    .await
                    .map(|response| answering.extend_over(response))
            }
        });
        let connection = graceful.watch(builder.serve_connection(io, service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!("a connection failed: {error}");
            }
            drop(permit);
        });
    }

    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = sleep(limits.grace_period) => {
            warn!("closed the connections still open {:?} after the stop", limits.grace_period);
        }
    }
}

/// Permission for one open connection; the gauge counts those that are held.
struct ConnectionPermit(
    #[expect(dead_code, reason = "releases the permit when dropped")] OwnedSemaphorePermit,
);

impl ConnectionPermit {
    fn try_acquire(permits: &Arc<Semaphore>) -> Option<Self> {
        let permit = Arc::clone(permits).try_acquire_owned().ok()?;
        metrics::gauge!("portfolio_http_connections").increment(1.0);
        Some(Self(permit))
    }
}

impl Drop for ConnectionPermit {
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
                debug!("a client disconnected before its connection was accepted: {error}");
            }
            Err(error) => {
                warn!("cannot accept connections, retrying in {ACCEPT_RETRY_INTERVAL:?}: {error}");
                sleep(ACCEPT_RETRY_INTERVAL).await;
            }
        }
    }
}

/// Makes writes fail when the other side accepts no bytes, so that a client that stops reading is
/// disconnected on every route.
pub(super) fn prepare_socket(
    socket: TcpStream,
    write_timeout: Duration,
) -> Pin<Box<TimeoutStream<TcpStream>>> {
    // Otherwise each part of a stream waits for the client's delayed acknowledgement, 40 ms.
    if let Err(error) = socket.set_nodelay(true) {
        debug!("cannot set TCP_NODELAY: {error}");
    }
    let mut socket = TimeoutStream::new(socket);
    socket.set_write_timeout(Some(write_timeout));
    Box::pin(socket)
}

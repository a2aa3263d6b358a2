//! Whether the client has closed its end of standard input, without reading what it sent before.

/// Resolves when the client has closed its end of this process's standard input: at once for a
/// file, which the system does not watch because it never waits for more.
#[cfg(unix)]
pub(super) async fn stdin_hangup() {
    use tokio::io::{Interest, unix::AsyncFd};

    // The descriptor is only watched: others read it, and it stays as blocking as it is.
    #[expect(
        deprecated,
        reason = "the successor is unsafe, because a descriptor may change; that of stdin does not"
    )]
    let Ok(stdin) = AsyncFd::with_interest(std::io::stdin(), Interest::READABLE) else {
        return;
    };
    while let Ok(mut ready) = stdin.readable().await {
        if ready.ready().is_read_closed() {
            return;
        }
        ready.clear_ready();
    }
}

/// Never resolves.
#[cfg(not(unix))]
pub(super) async fn stdin_hangup() {
    std::future::pending().await
}

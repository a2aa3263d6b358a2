//! Timeouts and sizes that all routes share.

use std::time::Duration;

/// Tests make them smaller.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) max_sse_sessions: usize,
    /// How long a message waits for room in its session, and how long a client may read nothing
    /// while its session has no room.
    pub(super) send_timeout: Duration,
    /// For the head of a request, from when the connection opened or the last response ended. So it
    /// also limits how long a connection may be idle.
    pub(super) head_timeout: Duration,
    pub(super) body_timeout: Duration,
    /// How many bytes may wait for the clients of all sessions.
    pub(super) max_waiting_bytes: usize,
    /// How long a socket may accept no bytes while there are bytes to write.
    pub(super) write_timeout: Duration,
    /// How long open requests may run after `stop`: the process must be gone within 10 seconds.
    pub(super) grace_period: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_sse_sessions: 1000,
            send_timeout: Duration::from_secs(30),
            head_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            max_waiting_bytes: 64 * 1024 * 1024,
            write_timeout: Duration::from_secs(30),
            grace_period: Duration::from_secs(9),
        }
    }
}

//! What the tests stand on: servers, a faulty line, stores, documents, and the proof that a store is sound.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test's helpers fail loudly, as tests do; clippy only knows functions that are tests themselves"
)]

pub(crate) mod content;
pub(crate) mod http;
pub(crate) mod mcp;
pub(crate) mod program;
pub(crate) mod proxy;
pub(crate) mod redis_server;
pub(crate) mod soundness;
pub(crate) mod stores;

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long a condition may take to come true, on a machine that has much else to do.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until `condition` gives something; fails, naming `what`, when it never does.
pub(crate) fn wait_until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "waited {PATIENCE:?} in vain until {what}"
        );
        thread::sleep(Duration::from_millis(2));
    }
}

//! Waiting for a condition, with a bound.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long a condition may take to become true on a busy machine.
pub(crate) const WAIT_TIMEOUT: Duration = Duration::from_mins(1);

/// Polls `condition` until it returns a value. Panics with `what` if it never does.
pub(crate) fn wait_until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(
            start.elapsed() < WAIT_TIMEOUT,
            "waited {WAIT_TIMEOUT:?} in vain until {what}"
        );
        thread::sleep(Duration::from_millis(2));
    }
}

/// The same for a condition that has to be awaited.
pub(crate) async fn wait_until_async<T>(
    what: &str,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(
            start.elapsed() < WAIT_TIMEOUT,
            "waited {WAIT_TIMEOUT:?} in vain until {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

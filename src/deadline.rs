//! The time that a call has left.

use std::time::Duration;

use tokio::time::{Instant, error::Elapsed, timeout_at};

/// When a call has to be answered. It is passed down from the edge, and each layer may only shorten
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline of a call that begins now and may take `time`.
    #[must_use]
    pub fn after(time: Duration) -> Self {
        Self(Instant::now() + time)
    }

    /// The earlier of this deadline and `time` from now.
    #[must_use]
    pub fn capped(self, time: Duration) -> Self {
        self.min(Self::after(time))
    }

    /// Whether the deadline is less than `time` away.
    #[must_use]
    pub fn is_within(self, time: Duration) -> bool {
        self.0 < Instant::now() + time
    }

    /// Runs `future` until the deadline.
    ///
    /// # Errors
    /// When the deadline has passed first.
    pub async fn run<T>(self, future: impl Future<Output = T>) -> Result<T, Elapsed> {
        timeout_at(self.0, future).await
    }
}

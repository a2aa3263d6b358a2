//! The retry budget: a limit on the load that retries add.

use std::sync::atomic::{AtomicI64, Ordering};

/// The budget is counted in tenths of a retry. Each call deposits one tenth, so that in an outage
/// retries do not double the load, and a retry withdraws ten.
const RETRY_TENTHS: i64 = 10;
/// At most 30 retries can be saved up: a short fault hits many calls at once.
const MAX_TENTHS: i64 = 300;

/// Allows retries as long as they are few in comparison with calls.
#[derive(Debug)]
pub(super) struct Budget {
    tenths: AtomicI64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            tenths: AtomicI64::new(MAX_TENTHS),
        }
    }
}

impl Budget {
    /// Adds a call's share of a retry.
    pub(super) fn deposit(&self) {
        self.change(|tenths| (tenths < MAX_TENTHS).then_some(tenths + 1));
    }

    /// Takes one retry, if there is one; returns whether there was.
    pub(super) fn withdraw(&self) -> bool {
        self.change(|tenths| (tenths >= RETRY_TENTHS).then_some(tenths - RETRY_TENTHS))
    }

    fn change(&self, next: impl Fn(i64) -> Option<i64>) -> bool {
        self.tenths
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .is_ok()
    }
}

//! A circuit breaker: after some failures in a row it rejects calls for a moment, then lets one
//! probe through.
//!
//! Kept by hand: the breakers of other crates reject without the reason and the time to retry,
//! which answers need. Knows only success and failure; the user of the breaker decides which a call
//! was.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::debug;

/// This many failures in a row open the breaker.
const MAX_FAILURES: u32 = 5;
/// How long it stays open. Up to half of it is taken off at random, so that processes do not return
/// in step. A store that is back is noticed within this time and one call.
const OPEN_TIMEOUT: Duration = Duration::from_secs(1);

/// Permits calls, or rejects them.
#[derive(Debug)]
pub(super) struct Breaker {
    name: &'static str,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        until: Instant,
        reason: Reason,
    },
    /// One call probes the store; the others are rejected until it has ended.
    HalfOpen {
        reason: Reason,
    },
}

/// Why calls fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reason {
    /// In full, for operators.
    pub(super) text: String,
    /// In words that a client may see, if there are such.
    pub(super) public: Option<String>,
}

impl From<&str> for Reason {
    fn from(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            public: None,
        }
    }
}

/// The breaker is open.
#[derive(Debug)]
pub(super) struct Rejected {
    /// The failure that opened it.
    pub(super) reason: Reason,
    /// When to try again.
    pub(super) retry_after: Duration,
}

/// Permission for one call. Dropping it without reporting an outcome (the caller was cancelled)
/// counts neither way.
#[derive(Debug)]
#[must_use = "report the outcome of the call"]
pub(super) struct Permit<'a> {
    breaker: &'a Breaker,
    probe: bool,
    reported: bool,
}

impl Breaker {
    /// A closed breaker; `name` is for logs and metrics.
    pub(super) fn new(name: &'static str) -> Self {
        metrics::gauge!("portfolio_breaker_open", "breaker" => name).set(0.0);
        Self {
            name,
            state: Mutex::new(State::Closed { failures: 0 }),
        }
    }

    /// Which calls it guards: `reads` or `writes`.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Whether all calls are permitted.
    pub(super) fn is_closed(&self) -> bool {
        matches!(*self.lock(), State::Closed { .. })
    }

    /// Why no call is permitted; `None` if one is, even if only as a probe.
    pub(super) fn rejection(&self) -> Option<Rejected> {
        match &*self.lock() {
            State::Closed { .. } => None,
            State::Open { until, reason } => {
                let retry_after = until.saturating_duration_since(Instant::now());
                (!retry_after.is_zero()).then(|| Rejected {
                    reason: reason.clone(),
                    retry_after,
                })
            }
            State::HalfOpen { reason } => Some(Rejected {
                reason: reason.clone(),
                retry_after: OPEN_TIMEOUT,
            }),
        }
    }

    /// A permit for one call, unless the breaker is open.
    pub(super) fn try_acquire(&self) -> Result<Permit<'_>, Rejected> {
        let mut state = self.lock();
        let rejected = |reason: &Reason, retry_after| Rejected {
            reason: reason.clone(),
            retry_after,
        };
        let probe = match &*state {
            State::Closed { .. } => false,
            State::Open { until, reason } => {
                let left = until.saturating_duration_since(Instant::now());
                if !left.is_zero() {
                    return Err(rejected(reason, left));
                }
                true
            }
            State::HalfOpen { reason } => return Err(rejected(reason, OPEN_TIMEOUT)),
        };
        if probe && let State::Open { reason, .. } = &*state {
            *state = State::HalfOpen {
                reason: reason.clone(),
            };
        }
        Ok(Permit {
            breaker: self,
            probe,
            reported: false,
        })
    }

    /// Opens the breaker for `pause`.
    fn open(&self, state: &mut State, reason: Reason, pause: Duration) {
        if matches!(state, State::Closed { .. }) {
            debug!("breaker of {} opened", self.name);
            metrics::gauge!("portfolio_breaker_open", "breaker" => self.name).set(1.0);
            metrics::counter!("portfolio_breaker_opened_total", "breaker" => self.name)
                .increment(1);
        }
        let until = Instant::now() + pause.mul_f64(1.0 - fastrand::f64() / 2.0);
        *state = State::Open { until, reason };
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit<'_> {
    /// The store answered, even if it refused what the caller asked.
    pub(super) fn success(mut self) {
        self.reported = true;
        let mut state = self.breaker.lock();
        // A call from before the breaker opened says nothing about now.
        if self.probe {
            debug!("breaker of {} closed", self.breaker.name);
            metrics::gauge!("portfolio_breaker_open", "breaker" => self.breaker.name).set(0.0);
            *state = State::Closed { failures: 0 };
        } else if let State::Closed { failures } = &mut *state {
            *failures = 0;
        }
    }

    /// The store did not answer.
    pub(super) fn failure(mut self, reason: impl Into<Reason>) {
        self.reported = true;
        let mut state = self.breaker.lock();
        match &mut *state {
            State::Closed { failures } => {
                *failures += 1;
                if *failures >= MAX_FAILURES {
                    self.breaker.open(&mut state, reason.into(), OPEN_TIMEOUT);
                }
            }
            State::HalfOpen { .. } if self.probe => {
                self.breaker.open(&mut state, reason.into(), OPEN_TIMEOUT);
            }
            State::Open { .. } | State::HalfOpen { .. } => {}
        }
    }

    /// Calling again is of no use for `pause`: opens the breaker at once. A call from before it
    /// opened does not make the pause longer.
    pub(super) fn open_for(mut self, reason: impl Into<Reason>, pause: Duration) {
        self.reported = true;
        let mut state = self.breaker.lock();
        if self.probe || matches!(*state, State::Closed { .. }) {
            self.breaker.open(&mut state, reason.into(), pause);
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if !self.reported && self.probe {
            let mut state = self.breaker.lock();
            if let State::HalfOpen { reason } = &*state {
                *state = State::Open {
                    until: Instant::now(),
                    reason: reason.clone(),
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(breaker: &Breaker) {
        breaker.try_acquire().unwrap().failure("it is away");
    }

    fn open_breaker() -> Breaker {
        let breaker = Breaker::new("tests");
        for _ in 0..MAX_FAILURES {
            fail(&breaker);
        }
        breaker
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_failures_in_a_row_and_says_when_to_retry() {
        let breaker = Breaker::new("tests");
        for _ in 1..MAX_FAILURES {
            fail(&breaker);
        }
        breaker.try_acquire().unwrap().success();
        for _ in 0..MAX_FAILURES {
            fail(&breaker);
        }

        let rejected = breaker.try_acquire().unwrap_err();

        assert_eq!(rejected.reason.text, "it is away");
        assert!(
            rejected.retry_after > OPEN_TIMEOUT.mul_f64(0.4)
                && rejected.retry_after <= OPEN_TIMEOUT,
            "{:?}",
            rejected.retry_after
        );
    }

    #[tokio::test(start_paused = true)]
    async fn one_probe_is_permitted_and_other_calls_are_rejected() {
        let breaker = open_breaker();
        tokio::time::advance(OPEN_TIMEOUT).await;

        let probe = breaker.try_acquire().unwrap();
        assert!(breaker.try_acquire().is_err());
        probe.success();

        breaker.try_acquire().unwrap().success();
        breaker.try_acquire().unwrap().success();
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_probe_keeps_it_open() {
        let breaker = open_breaker();
        tokio::time::advance(OPEN_TIMEOUT).await;

        breaker.try_acquire().unwrap().failure("still away");

        assert_eq!(breaker.try_acquire().unwrap_err().reason.text, "still away");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_probe_makes_room_for_another() {
        let breaker = open_breaker();
        tokio::time::advance(OPEN_TIMEOUT).await;

        drop(breaker.try_acquire().unwrap());

        breaker.try_acquire().unwrap().success();
    }

    #[tokio::test(start_paused = true)]
    async fn calls_from_before_it_opened_do_not_close_it() {
        let breaker = Breaker::new("tests");
        let slow = breaker.try_acquire().unwrap();
        for _ in 0..MAX_FAILURES {
            fail(&breaker);
        }

        slow.success();

        assert!(breaker.try_acquire().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_at_once_when_the_store_asks_for_a_pause() {
        let breaker = Breaker::new("tests");

        breaker
            .try_acquire()
            .unwrap()
            .open_for("it is full", Duration::from_secs(8));

        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(breaker.try_acquire().unwrap_err().reason.text, "it is full");
    }

    #[tokio::test(start_paused = true)]
    async fn calls_from_before_it_opened_do_not_make_the_pause_longer() {
        let pause = Duration::from_secs(4);
        let breaker = Breaker::new("tests");
        let slow = breaker.try_acquire().unwrap();
        breaker.try_acquire().unwrap().open_for("no login", pause);
        tokio::time::advance(pause / 4).await;

        slow.open_for("no login", pause);

        tokio::time::advance(pause * 3 / 4).await;
        breaker.try_acquire().unwrap().success();
    }
}

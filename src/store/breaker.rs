//! A circuit breaker: after some failures in a row nothing is sent for a moment, then one attempt finds out whether it helps again.
//!
//! Knows only success and failure; what counts as which is its user's to say.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::debug;

/// Failures in a row that open it.
const FAILURES: u32 = 5;
/// How long it stays open, of which up to half is taken off by chance, so that processes do not return in step. A store that is
/// back is noticed within this time and one attempt.
const OPEN: Duration = Duration::from_secs(1);

/// Lets attempts through, or keeps them off.
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
        reason: String,
    },
    /// One attempt is on its way; the others are kept off until it is back.
    HalfOpen {
        reason: String,
    },
}

/// Why an attempt was kept off.
#[derive(Debug)]
pub(super) struct Rejected {
    /// What failed before.
    pub(super) reason: String,
    /// When to ask again.
    pub(super) retry_after: Duration,
}

/// Leave for one attempt. Who drops it without a verdict, because the caller went away, has shown nothing.
#[derive(Debug)]
#[must_use = "the breaker learns from how the attempt ends"]
pub(super) struct Permit<'a> {
    breaker: &'a Breaker,
    probe: bool,
    settled: bool,
}

impl Breaker {
    /// A closed breaker; `name` says in the log what is kept off.
    pub(super) fn new(name: &'static str) -> Self {
        metrics::gauge!("portfolio_breaker_open", "breaker" => name).set(0.0);
        Self {
            name,
            state: Mutex::new(State::Closed { failures: 0 }),
        }
    }

    /// What it holds back: `reads` or `writes`.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Whether everything is let through.
    pub(super) fn is_closed(&self) -> bool {
        matches!(*self.lock(), State::Closed { .. })
    }

    /// Leave for an attempt, or why there is none.
    pub(super) fn leave(&self) -> Result<Permit<'_>, Rejected> {
        let mut state = self.lock();
        let rejected = |reason: &String, retry_after| Rejected {
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
            State::HalfOpen { reason } => return Err(rejected(reason, OPEN)),
        };
        if probe && let State::Open { reason, .. } = &*state {
            *state = State::HalfOpen {
                reason: reason.clone(),
            };
        }
        Ok(Permit {
            breaker: self,
            probe,
            settled: false,
        })
    }

    /// Opens it at once, for `pause`, whatever went before.
    fn open(&self, state: &mut State, reason: &str, pause: Duration) {
        if matches!(state, State::Closed { .. }) {
            debug!("{} are held back", self.name);
            metrics::gauge!("portfolio_breaker_open", "breaker" => self.name).set(1.0);
            metrics::counter!("portfolio_breaker_opened_total", "breaker" => self.name)
                .increment(1);
        }
        let until = Instant::now() + pause.mul_f64(1.0 - fastrand::f64() / 2.0);
        *state = State::Open {
            until,
            reason: reason.to_owned(),
        };
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit<'_> {
    /// The store answered, be it with a refusal that was the caller's making.
    pub(super) fn answered(mut self) {
        self.settled = true;
        let mut state = self.breaker.lock();
        // An attempt from before it opened proves nothing about now.
        if self.probe {
            debug!("{} go on", self.breaker.name);
            metrics::gauge!("portfolio_breaker_open", "breaker" => self.breaker.name).set(0.0);
            *state = State::Closed { failures: 0 };
        } else if let State::Closed { failures } = &mut *state {
            *failures = 0;
        }
    }

    /// The store did not answer.
    pub(super) fn failed(mut self, reason: &str) {
        self.settled = true;
        let mut state = self.breaker.lock();
        match &mut *state {
            State::Closed { failures } => {
                *failures += 1;
                if *failures >= FAILURES {
                    self.breaker.open(&mut state, reason, OPEN);
                }
            }
            State::HalfOpen { .. } if self.probe => self.breaker.open(&mut state, reason, OPEN),
            State::Open { .. } | State::HalfOpen { .. } => {}
        }
    }

    /// The store said that asking again is no use for `pause`.
    pub(super) fn turned_away(mut self, reason: &str, pause: Duration) {
        self.settled = true;
        let mut state = self.breaker.lock();
        self.breaker.open(&mut state, reason, pause);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if !self.settled && self.probe {
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
        breaker.leave().unwrap().failed("it is away");
    }

    fn opened() -> Breaker {
        let breaker = Breaker::new("tests");
        for _ in 0..FAILURES {
            fail(&breaker);
        }
        breaker
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_failures_in_a_row_and_says_when_to_come_back() {
        let breaker = Breaker::new("tests");
        for _ in 1..FAILURES {
            fail(&breaker);
        }
        breaker.leave().unwrap().answered();
        for _ in 0..FAILURES {
            fail(&breaker);
        }

        let rejected = breaker.leave().unwrap_err();

        assert_eq!(rejected.reason, "it is away");
        assert!(
            rejected.retry_after > OPEN.mul_f64(0.4) && rejected.retry_after <= OPEN,
            "{:?}",
            rejected.retry_after
        );
    }

    #[tokio::test(start_paused = true)]
    async fn one_attempt_goes_ahead_and_the_others_wait_for_it() {
        let breaker = opened();
        tokio::time::advance(OPEN).await;

        let probe = breaker.leave().unwrap();
        assert!(breaker.leave().is_err());
        probe.answered();

        breaker.leave().unwrap().answered();
        breaker.leave().unwrap().answered();
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_fails_keeps_it_open() {
        let breaker = opened();
        tokio::time::advance(OPEN).await;

        breaker.leave().unwrap().failed("still away");

        assert_eq!(breaker.leave().unwrap_err().reason, "still away");
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_whose_caller_went_away_makes_room_for_another() {
        let breaker = opened();
        tokio::time::advance(OPEN).await;

        drop(breaker.leave().unwrap());

        breaker.leave().unwrap().answered();
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_from_before_it_opened_do_not_close_it() {
        let breaker = Breaker::new("tests");
        let slow = breaker.leave().unwrap();
        for _ in 0..FAILURES {
            fail(&breaker);
        }

        slow.answered();

        assert!(breaker.leave().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_store_itself_puts_off_is_put_off_at_once() {
        let breaker = Breaker::new("tests");

        breaker
            .leave()
            .unwrap()
            .turned_away("it is full", Duration::from_secs(8));

        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(breaker.leave().unwrap_err().reason, "it is full");
    }
}

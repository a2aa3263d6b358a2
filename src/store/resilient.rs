//! Timeouts, retries and circuit breakers around a store across the internet.
//!
//! Reads may always be repeated, and so may a commit, because its operation is applied once however
//! often it is sent. Knows the port and no backend.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use backon::{BackoffBuilder, ExponentialBuilder, Retryable};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info, warn};

use super::{
    Commit, Documents, HistoryImport, PlanStore, Repository, ResponseCache, Revision,
    SnapshotSource, StoreError,
    breaker::{Breaker, Permit, Reason, Rejected},
    budget::Budget,
    location::TIMEOUT_HINT,
};
use crate::domain::{
    ApiPath, AuditPage, AuditQuery, AuditStats, CachedResponse, Change, Current, DocumentKey,
    FoundDocument, Kind, ListPage, ListQuery, Operation, Plan, StoreState, StoredEntry, Timestamp,
};

/// How long a read, with its retries, may take; see "Time budget of a call" in
/// docs/architecture.md.
const READ_TIMEOUT: Duration = Duration::from_millis(4500);
/// How long a page of the log may take, with its retries. A store ends its search by itself before
/// half of this, so that the last retry has time for one.
const LOG_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a commit, with its retries, may take.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);
/// A cache that is slower than this saves no time.
const CACHE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long keeping a plan may take: the dry run has its answer without one.
const PLAN_TIMEOUT: Duration = Duration::from_secs(2);
/// How long importing entries may take. It takes long over a slow network, and no call waits for it.
const IMPORT_TIMEOUT: Duration = Duration::from_mins(1);
/// The first backoff is a random part of this, the next one of twice as much, and so on (full
/// jitter).
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// How often one call is retried at most.
const MAX_RETRIES: usize = 3;
/// How long a store that refuses the credentials is left alone. Once they are right, calls go on
/// within 5 seconds: this and one call.
const ACCESS_DENIED_PAUSE: Duration = Duration::from_secs(4);

/// Adds timeouts, retries and circuit breakers to a store.
pub(crate) struct Resilient<R> {
    store: R,
    reads: Breaker,
    writes: Breaker,
    budget: Budget,
    /// The problems that were logged and are not over, with the breaker that met each.
    logged: Mutex<BTreeMap<String, &'static str>>,
}

/// What a kind of call looks like to retries and breakers.
#[derive(Clone, Copy)]
struct Policy<'a> {
    /// For metrics.
    operation: &'static str,
    breaker: &'a Breaker,
    outcome: Outcome,
    timeout: Duration,
}

/// What the outcome of a call says about the calls that its breaker guards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Whether they work.
    Counts,
    /// Only that they do not: a store that is full answers reads made for a write.
    FailureCounts,
    /// Nothing: reading much may take too long without a fault of the store. Such a call is rejected
    /// like the others, but neither opens a breaker for them nor probes the store for them.
    Ignored,
}

/// Why a call has no answer.
enum Failure {
    /// The breaker is open, so the store was not called.
    Rejected(Rejected),
    /// The store's error.
    Store(StoreError),
}

impl<R> Resilient<R> {
    pub(crate) fn new(store: R) -> Self {
        Self {
            store,
            reads: Breaker::new("reads"),
            writes: Breaker::new("writes"),
            budget: Budget::default(),
            logged: Mutex::default(),
        }
    }

    /// The policy of a call for display.
    fn read(&self, operation: &'static str) -> Policy<'_> {
        Policy {
            operation,
            breaker: &self.reads,
            outcome: Outcome::Counts,
            timeout: READ_TIMEOUT,
        }
    }

    /// The policy of reading a piece of the log or of all documents.
    fn read_much(&self, operation: &'static str) -> Policy<'_> {
        Policy {
            outcome: Outcome::Ignored,
            timeout: LOG_TIMEOUT,
            ..self.read(operation)
        }
    }

    /// The policy of a read that a write needs.
    fn read_for_write(&self, operation: &'static str) -> Policy<'_> {
        Policy {
            breaker: &self.writes,
            outcome: Outcome::FailureCounts,
            ..self.read(operation)
        }
    }

    /// The policy of a commit. A sending without a reply may have been applied, which only a later
    /// one can show.
    fn write(&self) -> Policy<'_> {
        Policy {
            operation: "commit",
            breaker: &self.writes,
            outcome: Outcome::Counts,
            timeout: COMMIT_TIMEOUT,
        }
    }

    /// Calls the store, and again while the error is temporary and the budget allows it.
    async fn retry<T, F>(
        &self,
        policy: Policy<'_>,
        call: impl Fn() -> F + Send + Sync,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let times = Times::of(policy.timeout);
        self.budget.deposit();
        let attempt = || self.attempt(policy, times.deadline, call(), read_timed_out);
        let mut met = None;
        let answer = attempt
            .retry(backoff())
            .sleep(tokio::time::sleep)
            .when(|failure| {
                let Failure::Store(error @ StoreError::Unavailable(_)) = failure else {
                    return false;
                };
                met = Some(error.clone());
                times.allow_retry() && policy.breaker.is_closed() && self.budget.withdraw()
            })
            .notify(|_, _| count_retry(policy.operation))
            .await;
        match (answer, met) {
            // The error that this call met says more than that others met one.
            (Err(Failure::Rejected(_)), Some(error)) => Err(Failure::Store(error)),
            (answer, _) => answer,
        }
    }

    /// One call, whose outcome is reported to the breaker.
    async fn attempt<T>(
        &self,
        policy: Policy<'_>,
        deadline: Instant,
        call: impl Future<Output = Result<T, StoreError>>,
        timed_out: fn() -> StoreError,
    ) -> Result<T, Failure> {
        let breaker = policy.breaker;
        let permit = match policy.outcome {
            Outcome::Ignored => match breaker.rejection() {
                Some(rejected) => return Err(Failure::Rejected(rejected)),
                None => None,
            },
            Outcome::Counts | Outcome::FailureCounts => {
                Some(breaker.try_acquire().map_err(Failure::Rejected)?)
            }
        };
        let begun = Instant::now();
        let result = timeout_at(deadline, call)
            .await
            .unwrap_or_else(|_| Err(timed_out()));
        record_duration(policy.operation, begun);
        match permit {
            Some(permit) => self.report(policy, permit, &result),
            None => {
                if let Err(StoreError::Unavailable(reason)) = &result {
                    debug!("reading much from the store failed: {reason}");
                }
            }
        }
        result.map_err(Failure::Store)
    }

    /// Reports the outcome of a call to its breaker, and logs what begins or ends with it.
    fn report<T>(&self, policy: Policy<'_>, permit: Permit<'_>, result: &Result<T, StoreError>) {
        let breaker = policy.breaker;
        match result {
            Err(StoreError::Unavailable(reason) | StoreError::OutcomeUnknown(reason)) => {
                self.log_problem(breaker, reason);
                permit.failure(reason.as_str());
            }
            Err(error @ StoreError::AccessDenied { reason, .. }) => {
                let reason = reason_of(error, reason);
                self.log_problem(breaker, &reason.text);
                permit.open_for(reason, ACCESS_DENIED_PAUSE);
            }
            Err(
                error @ StoreError::ReadOnly {
                    reason,
                    retry_after: Some(pause),
                    ..
                },
            ) => {
                let reason = reason_of(error, reason);
                self.log_problem(breaker, &reason.text);
                permit.open_for(reason, *pause);
            }
            Ok(_)
            | Err(
                StoreError::Conflict
                | StoreError::ReadOnly {
                    retry_after: None, ..
                }
                | StoreError::IdempotencyMismatch
                | StoreError::Corrupt { .. }
                | StoreError::Failed(_),
            ) => {
                if policy.outcome == Outcome::Counts {
                    permit.success();
                    self.log_recovery(breaker);
                }
            }
        }
    }

    /// Best effort: one short attempt, skipped while the breaker is open. The result does not
    /// affect the breaker.
    async fn best_effort<T: Default>(
        &self,
        operation: &'static str,
        breaker: &Breaker,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        if !breaker.is_closed() {
            return Ok(T::default());
        }
        let begun = Instant::now();
        let result = timeout_at(begun + CACHE_TIMEOUT, call)
            .await
            .unwrap_or_else(|_| Err(read_timed_out()));
        record_duration(operation, begun);
        result
    }

    /// Logs a problem once until it is over: every call meets an outage.
    fn log_problem(&self, breaker: &Breaker, reason: &str) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if !logged.contains_key(reason) {
            warn!("store {} failing: {reason}", breaker.name());
            logged.insert(reason.to_owned(), breaker.name());
        }
    }

    fn log_recovery(&self, breaker: &Breaker) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let before = logged.len();
        logged.retain(|_, name| *name != breaker.name());
        if logged.len() < before {
            info!("store {} working again", breaker.name());
        }
    }
}

#[async_trait]
impl<R: Repository> Repository for Resilient<R> {
    fn name(&self) -> &'static str {
        self.store.name()
    }

    async fn get(&self, key: &DocumentKey) -> Result<FoundDocument, StoreError> {
        self.retry(self.read("get"), || self.store.get(key))
            .await
            .map_err(Failure::of_read)
    }

    async fn get_for_update(&self, key: &DocumentKey) -> Result<Current, StoreError> {
        let read = || self.store.get_for_update(key);
        match self.retry(self.read_for_write("get"), read).await {
            // The store answers and takes no writes, which a commit is told. A dry run needs none.
            Err(Failure::Rejected(rejected)) if rejected.reason.public.is_some() => {
                let policy = Policy {
                    outcome: Outcome::Ignored,
                    ..self.read("get")
                };
                self.retry(policy, read).await.map_err(Failure::of_write)
            }
            read => read.map_err(Failure::of_write),
        }
    }

    async fn list(&self, kind: Kind, query: &ListQuery) -> Result<ListPage, StoreError> {
        self.retry(self.read("list"), || self.store.list(kind, query))
            .await
            .map_err(Failure::of_read)
    }

    async fn commit(
        &self,
        changes: &[Change],
        operation: &Operation,
    ) -> Result<Commit, StoreError> {
        let (policy, times) = (self.write(), Times::of(COMMIT_TIMEOUT));
        self.budget.deposit();
        // Whether an earlier sending was applied is known from the idempotency record that a later
        // one finds, or not at all.
        let unknown = AtomicU32::new(0);
        let attempt = || {
            self.attempt(
                policy,
                times.deadline,
                self.store.commit(changes, operation),
                commit_timed_out,
            )
        };
        let may_retry = || times.allow_retry() && self.writes.is_closed();
        let commit = attempt
            .retry(backoff())
            .sleep(tokio::time::sleep)
            .when(|failure| match failure {
                Failure::Store(StoreError::OutcomeUnknown(_)) => {
                    // It is sent once more in any case, to learn its outcome.
                    let first = unknown.fetch_add(1, Ordering::Relaxed) == 0;
                    may_retry() && (first || self.budget.withdraw())
                }
                Failure::Store(StoreError::Unavailable(_)) => may_retry() && self.budget.withdraw(),
                Failure::Store(_) | Failure::Rejected(_) => false,
            })
            .notify(|_, _| count_retry(policy.operation))
            .await;
        commit.map_err(|failure| match failure.of_write() {
            // The script looks for the idempotency record first, so these prove that no earlier
            // sending was applied.
            error @ (StoreError::Conflict
            | StoreError::IdempotencyMismatch
            | StoreError::OutcomeUnknown(_)) => error,
            error if unknown.load(Ordering::Relaxed) > 0 => {
                StoreError::OutcomeUnknown(error.to_string())
            }
            error => error,
        })
    }

    async fn find_commit(&self, operation: &Operation) -> Result<Option<Commit>, StoreError> {
        self.retry(self.read_for_write("outcome"), || {
            self.store.find_commit(operation)
        })
        .await
        .map_err(Failure::of_write)
    }

    async fn audit_entries(&self, query: &AuditQuery) -> Result<AuditPage, StoreError> {
        self.retry(self.read_much("audit_entries"), || {
            self.store.audit_entries(query)
        })
        .await
        .map_err(Failure::of_read)
    }

    async fn audit_stats(&self) -> Result<AuditStats, StoreError> {
        self.retry(self.read("audit_stats"), || self.store.audit_stats())
            .await
            .map_err(Failure::of_read)
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.retry(self.read("pulse"), || self.store.revision())
            .await
            .map_err(Failure::of_read)
    }
}

#[async_trait]
impl<R: HistoryImport> HistoryImport for Resilient<R> {
    async fn import_entries(
        &self,
        entries: &[StoredEntry],
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        let policy = Policy {
            operation: "carry",
            timeout: IMPORT_TIMEOUT,
            ..self.write()
        };
        self.retry(policy, || self.store.import_entries(entries, now))
            .await
            .map_err(Failure::of_write)
    }
}

#[async_trait]
impl<R: PlanStore> PlanStore for Resilient<R> {
    async fn put_plan(&self, plan: &Plan) -> Result<(), StoreError> {
        let policy = Policy {
            operation: "plan",
            timeout: PLAN_TIMEOUT,
            ..self.write()
        };
        self.retry(policy, || self.store.put_plan(plan))
            .await
            .map_err(Failure::of_write)
    }

    async fn get_plan(&self, id: &str) -> Result<Option<Plan>, StoreError> {
        self.retry(self.read("plan"), || self.store.get_plan(id))
            .await
            .map_err(Failure::of_read)
    }
}

#[async_trait]
impl<R: SnapshotSource> SnapshotSource for Resilient<R> {
    async fn ids(&self, kind: Kind) -> Result<Vec<String>, StoreError> {
        self.retry(self.read_much("all"), || self.store.ids(kind))
            .await
            .map_err(Failure::of_read)
    }

    async fn get_many(&self, keys: &[DocumentKey]) -> Result<Documents, StoreError> {
        let (policy, call) = (self.read_much("all"), || self.store.get_many(keys));
        let found = if keys.len() > 1 {
            // If it is too much at once, the caller asks for less.
            let deadline = Instant::now() + policy.timeout;
            self.attempt(policy, deadline, call(), read_timed_out).await
        } else {
            self.retry(policy, call).await
        };
        found.map_err(Failure::of_read)
    }
}

#[async_trait]
impl<R: ResponseCache> ResponseCache for Resilient<R> {
    async fn get(&self, path: &ApiPath) -> Result<CachedResponse, StoreError> {
        self.best_effort("cached", &self.reads, self.store.get(path))
            .await
    }

    async fn look_up(&self, path: &ApiPath) -> Result<CachedResponse, StoreError> {
        self.best_effort("cached", &self.reads, self.store.look_up(path))
            .await
    }

    async fn put(
        &self,
        path: &ApiPath,
        state: &StoreState,
        response: &str,
        ttl: Duration,
    ) -> Result<bool, StoreError> {
        self.best_effort(
            "cache",
            &self.writes,
            self.store.put(path, state, response, ttl),
        )
        .await
    }
}

impl Failure {
    fn of_read(self) -> StoreError {
        match self {
            Self::Rejected(Rejected {
                reason: Reason { text, public: None },
                ..
            }) => StoreError::Unavailable(text),
            Self::Rejected(Rejected {
                reason:
                    Reason {
                        text,
                        public: Some(public),
                    },
                ..
            }) => StoreError::AccessDenied {
                reason: public,
                detail: Some(text),
            },
            Self::Store(error) => error,
        }
    }

    fn of_write(self) -> StoreError {
        match self {
            Self::Rejected(Rejected {
                reason,
                retry_after,
            }) => StoreError::ReadOnly {
                reason: match reason.public {
                    Some(public) => format!("writes are paused: {public}"),
                    None => "writes are paused because the store does not answer".to_owned(),
                },
                detail: Some(reason.text),
                retry_after: Some(retry_after),
            },
            Self::Store(error) => error,
        }
    }
}

/// The reason for pausing calls, from the store's error and the part of it that a client may see.
fn reason_of(error: &StoreError, public: &str) -> Reason {
    Reason {
        text: error.to_string(),
        public: Some(public.to_owned()),
    }
}

/// When a call ends, and until when it may be retried.
#[derive(Clone, Copy)]
struct Times {
    last_retry: Instant,
    deadline: Instant,
}

impl Times {
    fn of(timeout: Duration) -> Self {
        let now = Instant::now();
        Self {
            // An attempt that begins in the second half might be cut off, and its error would not
            // be known.
            last_retry: now + timeout / 2,
            deadline: now + timeout,
        }
    }

    fn allow_retry(&self) -> bool {
        Instant::now() < self.last_retry
    }
}

fn read_timed_out() -> StoreError {
    StoreError::Unavailable(format!("it did not answer in time; {TIMEOUT_HINT}"))
}

fn commit_timed_out() -> StoreError {
    StoreError::OutcomeUnknown("it did not answer in time".to_owned())
}

/// Random parts of growing pauses, so that callers do not return in step.
fn backoff() -> impl BackoffBuilder {
    let growing = ExponentialBuilder::default()
        .with_min_delay(BACKOFF_MIN)
        .with_factor(2.0)
        .with_max_times(MAX_RETRIES)
        .build();
    growing.map(|pause| pause.mul_f64(fastrand::f64()))
}

fn record_duration(operation: &'static str, begun: Instant) {
    metrics::histogram!("portfolio_store_duration_seconds", "operation" => operation)
        .record(begun.elapsed());
}

fn count_retry(operation: &'static str) {
    metrics::counter!("portfolio_store_retries_total", "operation" => operation).increment(1);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// A store in which every n-th call fails, and which counts them.
    struct Flaky {
        every: usize,
        calls: AtomicUsize,
    }

    impl Flaky {
        fn call<T: Default>(&self) -> Result<T, StoreError> {
            let calls = self.calls.fetch_add(1, Ordering::Relaxed);
            if calls.is_multiple_of(self.every) {
                Err(StoreError::Unavailable("it is away".to_owned()))
            } else {
                Ok(T::default())
            }
        }
    }

    #[async_trait]
    impl Repository for Flaky {
        fn name(&self) -> &'static str {
            "flaky"
        }
        async fn get(&self, _: &DocumentKey) -> Result<FoundDocument, StoreError> {
            self.call()
        }
        async fn get_for_update(&self, key: &DocumentKey) -> Result<Current, StoreError> {
            self.call::<()>()?;
            Ok(Current::read(key.clone(), None, None::<&str>))
        }
        async fn list(&self, _: Kind, _: &ListQuery) -> Result<ListPage, StoreError> {
            self.call()
        }
        async fn commit(&self, _: &[Change], _: &Operation) -> Result<Commit, StoreError> {
            Err(StoreError::Conflict)
        }
        async fn find_commit(&self, _: &Operation) -> Result<Option<Commit>, StoreError> {
            self.call()
        }
        async fn audit_entries(&self, _: &AuditQuery) -> Result<AuditPage, StoreError> {
            self.call()
        }
        async fn audit_stats(&self) -> Result<AuditStats, StoreError> {
            self.call()
        }
        async fn revision(&self) -> Result<Revision, StoreError> {
            self.call::<()>()?;
            Ok(Revision::default())
        }
    }

    fn failing_every(every: usize) -> Resilient<Flaky> {
        Resilient::new(Flaky {
            every,
            calls: AtomicUsize::new(0),
        })
    }

    fn calls(store: &Resilient<Flaky>) -> f64 {
        f64::from(u32::try_from(store.store.calls.load(Ordering::Relaxed)).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn rare_faults_are_hidden_and_cost_less_than_a_tenth() {
        let store = failing_every(50);

        for _ in 0..5000 {
            store.revision().await.unwrap();
        }

        assert!(
            calls(&store) < 5000.0 * 1.1,
            "{} calls of the store for 5000 calls",
            calls(&store)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_does_not_double_the_load() {
        let store = failing_every(1);

        // A call arrives whenever the breaker permits one, which is the most that it ever permits.
        for _ in 0..1000 {
            store.revision().await.unwrap_err();
            tokio::time::advance(Duration::from_secs(1)).await;
        }

        assert!(
            calls(&store) < 2.0 * 1000.0,
            "{} calls of the store for 1000 calls",
            calls(&store)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_is_rejected_without_a_call_while_the_store_is_away() {
        let store = failing_every(1);
        let key = DocumentKey::new(Kind::ALL[0], "a");
        while !matches!(
            store.get_for_update(&key).await,
            Err(StoreError::ReadOnly { .. })
        ) {}
        let before = calls(&store);

        let rejected = store.get_for_update(&key).await;

        assert!(
            matches!(&rejected, Err(StoreError::ReadOnly { retry_after: Some(pause), .. }) if !pause.is_zero()),
            "{rejected:?}"
        );
        assert!(
            (calls(&store) - before).abs() < f64::EPSILON,
            "the store was called"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn conflicts_do_not_open_a_breaker() {
        let store = failing_every(usize::MAX);

        for _ in 0..50 {
            let operation = Operation::once("key", serde_json::Value::Null);
            assert!(matches!(
                store.commit(&[], &operation).await,
                Err(StoreError::Conflict)
            ));
        }

        assert!(store.writes.is_closed());
    }
}

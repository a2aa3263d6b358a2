//! What a store across the internet needs around it: deadlines, repetition of what may be repeated, and breakers.
//!
//! Reads may always be repeated, and a commit may because its operation is applied once, however often it is sent. Knows the
//! port and no backend.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use backon::{BackoffBuilder, ExponentialBuilder, Retryable};
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::{
    CachedResponse, Commit, Documents, Purpose, Repository, Revision, StoreError,
    breaker::{Breaker, Rejected},
    location::CONNECTION_HINT,
};
use crate::domain::{
    ApiPath, AuditPage, AuditQuery, AuditStats, Change, DocumentKey, Kind, ListPage, ListQuery,
    Operation, Record, StoredEntry, Timestamp,
};

/// Until when a read is repeated, and a commit. Together they leave a call, which has 10 seconds, time to answer.
const READ: Duration = Duration::from_millis(4500);
const COMMIT: Duration = Duration::from_secs(5);
/// A cache that is slower than this saves no time.
const CACHE: Duration = Duration::from_secs(1);
/// Reading everything takes its time over a slow line, and nobody waits for it alone.
const LOAD: Duration = Duration::from_mins(1);
/// The first pause is a random part of this, the next one of its double, and so on (full jitter).
const PAUSE: Duration = Duration::from_millis(50);
/// How often something is repeated at most.
const REPETITIONS: usize = 3;
/// How long a store that does not let us in is left alone.
const REFUSED: Duration = Duration::from_secs(10);

/// A store that is asked again when that may help, and left alone when it does not.
pub(super) struct Resilient<R> {
    store: R,
    reads: Breaker,
    writes: Breaker,
    budget: Budget,
    /// What was logged and is not over, with the name of the breaker that met it.
    said: Mutex<BTreeMap<String, &'static str>>,
}

impl<R: Repository> Resilient<R> {
    pub(super) fn new(store: R) -> Self {
        Self {
            store,
            reads: Breaker::new("reads"),
            writes: Breaker::new("writes"),
            budget: Budget::default(),
            said: Mutex::default(),
        }
    }

    /// Asks for something that is to be shown.
    async fn read<T, F>(
        &self,
        operation: &'static str,
        ask: impl Fn() -> F + Send + Sync,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        self.ask(operation, &self.reads, Proves::ItServes, READ, ask)
            .await
            .map_err(|failure| match failure {
                Failure::Rejected(rejected) => StoreError::Unavailable(rejected.reason),
                Failure::Store(error) => error,
            })
    }

    /// Asks for something that a write needs, or writes what may be written twice.
    async fn prepare<T, F>(
        &self,
        operation: &'static str,
        ask: impl Fn() -> F + Send + Sync,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        self.ask(operation, &self.writes, Proves::Nothing, READ, ask)
            .await
            .map_err(Failure::of_a_write)
    }

    async fn ask<T, F>(
        &self,
        operation: &'static str,
        breaker: &Breaker,
        proves: Proves,
        within: Duration,
        ask: impl Fn() -> F + Send + Sync,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        // One that begins in the second half might be cut off, and what it met would not be known.
        let (last, deadline) = (Instant::now() + within / 2, Instant::now() + within);
        self.budget.deposit();
        let late =
            || StoreError::Unavailable(format!("it did not answer in time; {CONNECTION_HINT}"));
        let attempt = || self.attempt(operation, breaker, proves, deadline, ask(), late);
        let mut met = None;
        let answer = attempt
            .retry(pauses())
            .sleep(tokio::time::sleep)
            .when(|failure| {
                let Failure::Store(error @ StoreError::Unavailable(_)) = failure else {
                    return false;
                };
                met = Some(error.clone());
                Instant::now() < last && breaker.is_closed() && self.budget.withdraw()
            })
            .notify(|_, _| count_retry(operation))
            .await;
        match (answer, met) {
            // What it met itself says more than that others met the same.
            (Err(Failure::Rejected(_)), Some(error)) => Err(Failure::Store(error)),
            (answer, _) => answer,
        }
    }

    /// Asks for something that is not worth a wait: once, briefly, and not at all while `breaker` holds back what is. It learns nothing.
    async fn once<T: Default>(
        &self,
        operation: &'static str,
        breaker: &Breaker,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        if !breaker.is_closed() {
            return Ok(T::default());
        }
        let begun = Instant::now();
        let late = || StoreError::Unavailable("it did not answer in time".to_owned());
        let result = timeout_at(begun + CACHE, answer)
            .await
            .unwrap_or_else(|_| Err(late()));
        metrics::histogram!("portfolio_store_duration_seconds", "operation" => operation)
            .record(begun.elapsed());
        result
    }

    /// One attempt, from which the breaker learns.
    async fn attempt<T>(
        &self,
        operation: &'static str,
        breaker: &Breaker,
        proves: Proves,
        deadline: Instant,
        answer: impl Future<Output = Result<T, StoreError>>,
        late: impl FnOnce() -> StoreError,
    ) -> Result<T, Failure> {
        let leave = breaker.leave().map_err(Failure::Rejected)?;
        let begun = Instant::now();
        let result = timeout_at(deadline, answer)
            .await
            .unwrap_or_else(|_| Err(late()));
        metrics::histogram!("portfolio_store_duration_seconds", "operation" => operation)
            .record(begun.elapsed());
        match &result {
            Err(StoreError::Unavailable(reason) | StoreError::OutcomeUnknown(reason)) => {
                self.say(breaker, reason);
                leave.failed(reason);
            }
            Err(error @ StoreError::Refused(_)) => {
                self.say(breaker, &error.to_string());
                leave.turned_away(&error.to_string(), REFUSED);
            }
            Err(StoreError::Paused {
                reason,
                retry_after,
            }) => {
                self.say(breaker, reason);
                leave.turned_away(reason, *retry_after);
            }
            Ok(_)
            | Err(
                StoreError::Conflict
                | StoreError::ReadOnly(_)
                | StoreError::Mismatch
                | StoreError::Corrupt { .. }
                | StoreError::Failed(_),
            ) => {
                if proves == Proves::ItServes {
                    leave.answered();
                    self.recover(breaker);
                }
            }
        }
        result.map_err(Failure::Store)
    }

    /// Logs what is wrong, once until it is over: an outage is met by every call.
    fn say(&self, breaker: &Breaker, reason: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if !said.contains_key(reason) {
            warn!("the store does not serve {}: {reason}", breaker.name());
            said.insert(reason.to_owned(), breaker.name());
        }
    }

    fn recover(&self, breaker: &Breaker) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let before = said.len();
        said.retain(|_, name| *name != breaker.name());
        if said.len() < before {
            info!("the store serves {} again", breaker.name());
        }
    }
}

#[async_trait]
impl<R: Repository> Repository for Resilient<R> {
    fn name(&self) -> &'static str {
        self.store.name()
    }

    async fn get(&self, key: &DocumentKey, purpose: Purpose) -> Result<Option<Record>, StoreError> {
        match purpose {
            Purpose::Show => self.read("get", || self.store.get(key, purpose)).await,
            Purpose::Change => self.prepare("get", || self.store.get(key, purpose)).await,
        }
    }

    fn recall(&self, key: &DocumentKey) -> Option<Record> {
        self.writes
            .is_closed()
            .then(|| self.store.recall(key))
            .flatten()
    }

    async fn ids(&self, kind: Kind) -> Result<Vec<String>, StoreError> {
        self.read("ids", || self.store.ids(kind)).await
    }

    async fn all(&self, kind: Kind) -> Result<Documents, StoreError> {
        let all = self
            .ask("all", &self.reads, Proves::ItServes, LOAD, || {
                self.store.all(kind)
            })
            .await;
        all.map_err(|failure| match failure {
            Failure::Rejected(rejected) => StoreError::Unavailable(rejected.reason),
            Failure::Store(error) => error,
        })
    }

    async fn list(&self, kind: Kind, query: &ListQuery) -> Result<ListPage, StoreError> {
        self.read("list", || self.store.list(kind, query)).await
    }

    async fn commit(
        &self,
        changes: &[Change],
        operation: &Operation,
    ) -> Result<Commit, StoreError> {
        let (last, deadline) = (Instant::now() + COMMIT / 2, Instant::now() + COMMIT);
        self.budget.deposit();
        // What an earlier sending may have done is told by the mark of a later one, or not at all.
        let unsettled = AtomicU32::new(0);
        let late = || StoreError::OutcomeUnknown("it did not answer in time".to_owned());
        let attempt = || {
            self.attempt(
                "commit",
                &self.writes,
                Proves::ItServes,
                deadline,
                self.store.commit(changes, operation),
                late,
            )
        };
        let committed = attempt
            .retry(pauses())
            .sleep(tokio::time::sleep)
            .when(|failure| match failure {
                Failure::Store(StoreError::OutcomeUnknown(_)) => {
                    // To be settled it is sent once more in any case.
                    let first = unsettled.fetch_add(1, Ordering::Relaxed) == 0;
                    Instant::now() < last
                        && self.writes.is_closed()
                        && (first || self.budget.withdraw())
                }
                Failure::Store(StoreError::Unavailable(_)) => {
                    Instant::now() < last && self.writes.is_closed() && self.budget.withdraw()
                }
                Failure::Store(_) | Failure::Rejected(_) => false,
            })
            .notify(|_, _| count_retry("commit"))
            .await;
        committed.map_err(|failure| match Failure::of_a_write(failure) {
            // The script looks at the mark first, so these prove that no sending before was applied.
            error @ (StoreError::Conflict
            | StoreError::Mismatch
            | StoreError::OutcomeUnknown(_)) => error,
            error if unsettled.load(Ordering::Relaxed) > 0 => {
                StoreError::OutcomeUnknown(error.to_string())
            }
            error => error,
        })
    }

    async fn outcome(&self, operation: &Operation) -> Result<Option<Commit>, StoreError> {
        self.prepare("outcome", || self.store.outcome(operation))
            .await
    }

    async fn import_entries(
        &self,
        entries: &[StoredEntry],
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        let carried = self
            .ask("carry", &self.writes, Proves::ItServes, LOAD, || {
                self.store.import_entries(entries, now)
            })
            .await;
        carried.map_err(Failure::of_a_write)
    }

    async fn audit_entries(&self, query: &AuditQuery) -> Result<AuditPage, StoreError> {
        self.read("audit_entries", || self.store.audit_entries(query))
            .await
    }

    async fn audit_stats(&self) -> Result<AuditStats, StoreError> {
        self.read("audit_stats", || self.store.audit_stats()).await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.read("pulse", || self.store.revision()).await
    }

    async fn cached(&self, api_path: &ApiPath) -> Result<Option<CachedResponse>, StoreError> {
        self.once("cached", &self.reads, self.store.cached(api_path))
            .await
    }

    async fn cache(
        &self,
        api_path: &ApiPath,
        seq: u64,
        answer: &str,
        lasting: Duration,
    ) -> Result<(), StoreError> {
        self.once(
            "cache",
            &self.writes,
            self.store.cache(api_path, seq, answer, lasting),
        )
        .await
    }
}

/// What an answer says of the things that a breaker lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proves {
    /// The store does them.
    ItServes,
    /// Nothing: a store that is full answers what is read for a write.
    Nothing,
}

/// Why there is no answer.
enum Failure {
    /// The breaker is open, so the store was not asked.
    Rejected(Rejected),
    /// What the store said.
    Store(StoreError),
}

impl Failure {
    fn of_a_write(self) -> StoreError {
        match self {
            Self::Rejected(Rejected {
                reason,
                retry_after,
            }) => StoreError::Paused {
                reason: format!("no writes are sent for the moment, because {reason}"),
                retry_after,
            },
            Self::Store(error) => error,
        }
    }
}

/// Random parts of growing pauses, so that callers do not return in step.
fn pauses() -> impl BackoffBuilder {
    let growing = ExponentialBuilder::default()
        .with_min_delay(PAUSE)
        .with_factor(2.0)
        .with_max_times(REPETITIONS)
        .build();
    growing.map(|pause| pause.mul_f64(fastrand::f64()))
}

fn count_retry(operation: &'static str) {
    metrics::counter!("portfolio_store_retries_total", "operation" => operation).increment(1);
}

/// Leave to repeat: each call earns a tenth of a repetition, so that in an outage repeating does not double the load.
#[derive(Debug)]
struct Budget {
    tenths: AtomicI64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            tenths: AtomicI64::new(Self::MOST),
        }
    }
}

impl Budget {
    /// So many tenths may be saved up: a short fault meets many calls at once.
    const MOST: i64 = 300;
    const REPETITION: i64 = 10;

    fn deposit(&self) {
        let _ = self
            .tenths
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tenths| {
                (tenths < Self::MOST).then_some(tenths + 1)
            });
    }

    fn withdraw(&self) -> bool {
        let withdrawn = self
            .tenths
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tenths| {
                (tenths >= Self::REPETITION).then_some(tenths - Self::REPETITION)
            });
        withdrawn.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// A store of which every so many-th asking fails, and which counts them.
    struct Flaky {
        every: usize,
        asked: AtomicUsize,
    }

    impl Flaky {
        fn ask<T: Default>(&self) -> Result<T, StoreError> {
            let asked = self.asked.fetch_add(1, Ordering::Relaxed);
            if asked.is_multiple_of(self.every) {
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
        async fn get(&self, _: &DocumentKey, _: Purpose) -> Result<Option<Record>, StoreError> {
            self.ask()
        }
        fn recall(&self, _: &DocumentKey) -> Option<Record> {
            None
        }
        async fn ids(&self, _: Kind) -> Result<Vec<String>, StoreError> {
            self.ask()
        }
        async fn all(&self, _: Kind) -> Result<Documents, StoreError> {
            self.ask()
        }
        async fn list(&self, _: Kind, _: &ListQuery) -> Result<ListPage, StoreError> {
            self.ask()
        }
        async fn commit(&self, _: &[Change], _: &Operation) -> Result<Commit, StoreError> {
            Err(StoreError::Conflict)
        }
        async fn outcome(&self, _: &Operation) -> Result<Option<Commit>, StoreError> {
            self.ask()
        }
        async fn import_entries(
            &self,
            _: &[StoredEntry],
            _: Timestamp,
        ) -> Result<usize, StoreError> {
            self.ask()
        }
        async fn audit_entries(&self, _: &AuditQuery) -> Result<AuditPage, StoreError> {
            self.ask()
        }
        async fn audit_stats(&self) -> Result<AuditStats, StoreError> {
            self.ask()
        }
        async fn revision(&self) -> Result<Revision, StoreError> {
            self.ask::<()>()?;
            Ok(Revision {
                seq: 0,
                entries: 0,
                documents: [0; 2],
            })
        }
        async fn cached(&self, _: &ApiPath) -> Result<Option<CachedResponse>, StoreError> {
            self.ask()
        }
        async fn cache(&self, _: &ApiPath, _: u64, _: &str, _: Duration) -> Result<(), StoreError> {
            self.ask()
        }
    }

    fn failing_every(every: usize) -> Resilient<Flaky> {
        Resilient::new(Flaky {
            every,
            asked: AtomicUsize::new(0),
        })
    }

    fn asked(store: &Resilient<Flaky>) -> f64 {
        f64::from(u32::try_from(store.store.asked.load(Ordering::Relaxed)).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_now_and_then_is_not_seen_and_costs_less_than_a_tenth() {
        let store = failing_every(50);

        for _ in 0..5000 {
            store.ids(Kind::ALL[0]).await.unwrap();
        }

        assert!(
            asked(&store) < 5000.0 * 1.1,
            "{} askings for 5000 calls",
            asked(&store)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_does_not_double_the_load() {
        let store = failing_every(1);

        // Calls that come in whenever the breaker lets one through, which is the most that it ever lets through.
        for _ in 0..1000 {
            store.ids(Kind::ALL[0]).await.unwrap_err();
            tokio::time::advance(Duration::from_secs(1)).await;
        }

        assert!(
            asked(&store) < 2.0 * 1000.0,
            "{} askings for 1000 calls",
            asked(&store)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_is_put_off_without_asking_while_the_store_is_away() {
        let store = failing_every(1);
        let key = DocumentKey::new(Kind::ALL[0], "a");
        while !matches!(
            store.get(&key, Purpose::Change).await,
            Err(StoreError::Paused { .. })
        ) {}
        let before = asked(&store);

        let put_off = store.get(&key, Purpose::Change).await;

        assert!(
            matches!(&put_off, Err(StoreError::Paused { retry_after, .. }) if !retry_after.is_zero()),
            "{put_off:?}"
        );
        assert!(
            (asked(&store) - before).abs() < f64::EPSILON,
            "the store was asked"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn answers_of_the_callers_making_open_nothing() {
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

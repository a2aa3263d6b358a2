//! Reading: documents, lists, the audit log and cached REST responses, with the snapshot as a
//! fallback.

use std::time::Duration;

use tokio::{sync::SemaphorePermit, time::error::Elapsed};
use tracing::debug;

use super::{ContentService, Error};
use crate::{
    deadline::Deadline,
    domain::{
        ApiPath, AuditPage, AuditQuery, AuditStats, CachedResponse, DocumentKey, Kind, ListPage,
        ListQuery, Record, StoreState, Timestamp,
    },
    store::{Snapshot, StoreError},
};

/// How long the store may take to answer what the snapshot could answer too; see "Time budget of a
/// call" in docs/architecture.md.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(7);
/// How long a call waits while others read the log.
const LOG_PERMIT_TIMEOUT: Duration = Duration::from_millis(3500);
/// How long looking for similar ids may take.
const SIMILAR_TIMEOUT: Duration = Duration::from_secs(2);
/// How long REST responses are cached at most, since another program may change documents without a
/// trace.
pub const RESPONSE_TTL: Duration = Duration::from_mins(1);
/// And while the documents are read again for longer than a visitor waits, so that not every visitor
/// waits.
const EXPIRED_RESPONSE_TTL: Duration = Duration::from_secs(5);
/// How many similar ids are suggested, and from which similarity on (1 is equal).
const MAX_SIMILAR: usize = 3;
const MIN_SIMILARITY: f64 = 0.75;

/// What was read, and how old it is.
#[derive(Debug)]
pub struct Fetched<T> {
    /// What was read.
    pub value: T,
    /// During an outage it comes from the snapshot, which the store confirmed this long ago.
    pub snapshot_age: Option<Duration>,
}

/// A document, and what is known of how it came about.
#[derive(Debug)]
pub struct ShownDocument {
    /// The document.
    pub record: Record,
    /// The time of its newest entry, if it was changed outside this server after that.
    pub changed_outside: Option<Timestamp>,
}

/// What the website shows of a kind.
#[derive(Debug)]
pub struct Published {
    /// The published documents.
    pub documents: Vec<Record>,
    /// How long it may be shown: edits by programs that leave no trace in the log are found after
    /// that.
    pub fresh_for: Duration,
}

impl<T> Fetched<T> {
    fn from_store(value: T) -> Self {
        Self {
            value,
            snapshot_age: None,
        }
    }
}

impl ContentService {
    /// One document.
    pub async fn get(
        &self,
        key: DocumentKey,
        deadline: Deadline,
    ) -> Result<Fetched<ShownDocument>, Error> {
        self.note_use();
        let deadline = deadline.capped(READ_TIMEOUT);
        let found = match in_time(deadline.run(self.store.get(&key)).await) {
            Ok(found) => Fetched::from_store(found),
            // That a document is not in the snapshot does not prove that it does not exist.
            Err(error) => self.answer_from_snapshot(error, |snapshot| snapshot.get(&key))?,
        };
        let changed_outside = found.value.changed_outside;
        let Some(record) = found.value.record else {
            return Err(self.not_found(key, changed_outside, deadline).await);
        };
        Ok(Fetched {
            value: ShownDocument {
                record,
                changed_outside,
            },
            snapshot_age: found.snapshot_age,
        })
    }

    /// A page of the documents of a kind.
    pub async fn list(
        &self,
        kind: Kind,
        query: &ListQuery,
        deadline: Deadline,
    ) -> Result<Fetched<ListPage>, Error> {
        self.note_use();
        let page = async {
            let Some(cache) = &self.snapshot else {
                return self.store.list(kind, query).await;
            };
            list_snapshot(cache.current().await?, kind, query.clone()).await
        };
        match in_time(deadline.capped(READ_TIMEOUT).run(page).await) {
            Ok(page) => Ok(Fetched::from_store(page)),
            Err(error) => self
                .answer_from_snapshot(error, |snapshot| snapshot.list(kind, query).ok())
                .map_err(|error| self.unless_loading(error)),
        }
    }

    /// Whether there is no document of any kind, as far as that is known without asking a distant
    /// store.
    pub async fn is_empty(&self, deadline: Deadline) -> bool {
        let query = ListQuery {
            limit: 1,
            ..ListQuery::default()
        };
        let has_none = |page: ListPage| page.total == 0 && page.unreadable.is_empty();
        if let Some(cache) = &self.snapshot {
            return cache.last().is_some_and(|snapshot| {
                let list = |kind| snapshot.list(kind, &query).is_ok_and(has_none);
                Kind::ALL.into_iter().all(list)
            });
        }
        for kind in Kind::ALL {
            let page = in_time(deadline.run(self.store.list(kind, &query)).await);
            if !page.is_ok_and(has_none) {
                return false;
            }
        }
        true
    }

    /// How many documents are known to have been changed outside this server; `None` while that is
    /// not known.
    pub async fn count_changed_outside(&self, deadline: Deadline) -> Option<usize> {
        if let Some(cache) = &self.snapshot {
            return Some(cache.last()?.count_changed_outside());
        }
        let query = ListQuery {
            limit: 1,
            with_deleted_outside: true,
            ..ListQuery::default()
        };
        let mut count = 0;
        for kind in Kind::ALL {
            let page = in_time(deadline.run(self.store.list(kind, &query)).await).ok()?;
            count += page.changed_outside.len();
        }
        Some(count)
    }

    /// Every published document of a kind, in the list's order.
    pub async fn published(
        &self,
        kind: Kind,
        deadline: Deadline,
    ) -> Result<Fetched<Published>, Error> {
        self.note_use();
        let query = ListQuery {
            status: Some("published".to_owned()),
            limit: usize::MAX,
            ..ListQuery::default()
        };
        let page = async {
            let Some(cache) = &self.snapshot else {
                let page = self.store.list(kind, &query).await?;
                return Ok((page, RESPONSE_TTL));
            };
            let snapshot = cache.unexpired().await?;
            let fresh_for = snapshot.fresh_for();
            let page = list_snapshot(snapshot, kind, query.clone()).await?;
            Ok((page, fresh_for))
        };
        let published = |(page, fresh_for): (ListPage, Duration)| Published {
            documents: page.records,
            fresh_for: match fresh_for {
                Duration::ZERO => EXPIRED_RESPONSE_TTL,
                fresh_for => fresh_for.min(RESPONSE_TTL),
            },
        };
        match in_time(deadline.capped(READ_TIMEOUT).run(page).await) {
            Ok(page) => Ok(Fetched::from_store(published(page))),
            Err(error) => self
                .answer_from_snapshot(error, |snapshot| {
                    let page = snapshot.list(kind, &query).ok()?;
                    Some(published((page, Duration::ZERO)))
                })
                .map_err(|error| self.unless_loading(error)),
        }
    }

    /// The cached REST response for `path`, and the number of the newest write. Both are missing
    /// where nothing is cached, or when the cache does not answer at once.
    pub async fn cached_response(&self, path: &ApiPath) -> CachedResponse {
        self.note_use();
        let Some(responses) = &self.responses else {
            return CachedResponse::default();
        };
        found(responses.get(path).await)
    }

    /// What the cache holds for `path`, without the response: enough to know whether one that was
    /// read before is still valid.
    pub async fn look_up_response(&self, path: &ApiPath) -> CachedResponse {
        self.note_use();
        let Some(responses) = &self.responses else {
            return CachedResponse::default();
        };
        found(responses.look_up(path).await)
    }

    /// Caches a REST response that was read in the state `state` or later; returns whether the store
    /// still has that state and keeps it.
    pub async fn cache_response(
        &self,
        path: &ApiPath,
        state: &StoreState,
        response: &str,
        ttl: Duration,
    ) -> bool {
        let Some(responses) = &self.responses else {
            return false;
        };
        let kept = responses.put(path, state, response, ttl).await;
        kept.unwrap_or_else(|error| {
            debug!("could not cache a response: {error}");
            false
        })
    }

    /// A page of the audit log.
    pub async fn audit_entries(
        &self,
        query: &AuditQuery,
        deadline: Deadline,
    ) -> Result<Fetched<AuditPage>, Error> {
        self.note_use();
        let deadline = deadline.capped(READ_TIMEOUT);
        let _permit = self.log_permit(query, deadline).await?;
        match in_time(deadline.run(self.store.audit_entries(query)).await) {
            Ok(page) => Ok(Fetched::from_store(page)),
            Err(error) => {
                self.answer_from_snapshot(error, |snapshot| snapshot.audit_entries(query))
            }
        }
    }

    /// The counters of the audit log, and its page for `newest`.
    pub async fn audit_stats(
        &self,
        newest: &AuditQuery,
        deadline: Deadline,
    ) -> Result<Fetched<(AuditStats, AuditPage)>, Error> {
        self.note_use();
        let deadline = deadline.capped(READ_TIMEOUT);
        let _permit = self.log_permit(newest, deadline).await?;
        let both =
            async { tokio::try_join!(self.store.audit_stats(), self.store.audit_entries(newest)) };
        match in_time(deadline.run(both).await) {
            Ok(both) => Ok(Fetched::from_store(both)),
            Err(error) => self.answer_from_snapshot(error, |snapshot| snapshot.audit_stats(newest)),
        }
    }

    /// Permission to read the log. A call may read much of it, so few do at once, and the others
    /// wait for a while. A page without a filter need not wait behind searches.
    pub(super) async fn log_permit(
        &self,
        query: &AuditQuery,
        deadline: Deadline,
    ) -> Result<SemaphorePermit<'_>, Error> {
        let permits = if query.is_filtered() {
            &self.log_searches
        } else {
            &self.log_pages
        };
        let deadline = deadline.capped(LOG_PERMIT_TIMEOUT);
        let permit = deadline.run(permits.acquire()).await;
        permit.ok().and_then(Result::ok).ok_or(Error::LogBusy)
    }

    /// The snapshot's answer during an outage, or the error.
    fn answer_from_snapshot<T>(
        &self,
        error: StoreError,
        answer: impl FnOnce(&Snapshot) -> Option<T>,
    ) -> Result<Fetched<T>, Error> {
        let is_outage = matches!(
            error,
            StoreError::Unavailable(_) | StoreError::AccessDenied { .. }
        );
        let snapshot = self
            .snapshot
            .as_ref()
            .filter(|_| is_outage)
            .and_then(|cache| cache.last());
        let answered = snapshot.and_then(|snapshot| {
            Some(Fetched {
                value: answer(&snapshot)?,
                snapshot_age: Some(snapshot.age()),
            })
        });
        answered.ok_or_else(|| error.into())
    }

    /// The error of a list, unless it only came too early: many documents take a while over a slow
    /// network.
    fn unless_loading(&self, error: Error) -> Error {
        match &self.snapshot {
            Some(cache)
                if matches!(error, Error::Unavailable { .. })
                    && cache.last().is_none()
                    && cache.is_refreshing() =>
            {
                Error::Loading
            }
            _ => error,
        }
    }

    /// The error for a document that does not exist, with the ids that the caller may have meant.
    pub async fn not_found(
        &self,
        key: DocumentKey,
        deleted_outside: Option<Timestamp>,
        deadline: Deadline,
    ) -> Error {
        let ids = deadline
            .capped(SIMILAR_TIMEOUT)
            .run(self.ids(key.kind))
            .await;
        let similar = similar(&key.id, ids.unwrap_or_default());
        let mut found_as = None;
        if similar.is_empty() && deleted_outside.is_none() {
            found_as = self.other_kind_of(&key, deadline).await;
        }
        Error::NotFound {
            key,
            similar,
            found_as,
            deleted_outside,
        }
    }

    /// The other kind, if a document of it has this id.
    async fn other_kind_of(&self, key: &DocumentKey, deadline: Deadline) -> Option<Kind> {
        let other = Kind::ALL.into_iter().find(|kind| *kind != key.kind)?;
        let search = deadline.capped(SIMILAR_TIMEOUT);
        let ids = search.run(self.ids(other)).await.ok()?;
        ids.contains(&key.id).then_some(other)
    }

    async fn ids(&self, kind: Kind) -> Vec<String> {
        if let Some(cache) = &self.snapshot {
            let snapshot = match cache.last() {
                Some(snapshot) => Some(snapshot),
                None => cache.current().await.ok(),
            };
            return snapshot.map_or_else(Vec::new, |snapshot| {
                snapshot.ids(kind).map(ToOwned::to_owned).collect()
            });
        }
        let query = ListQuery {
            limit: usize::MAX,
            ..ListQuery::default()
        };
        let page = self.store.list(kind, &query).await.unwrap_or_default();
        page.records
            .into_iter()
            .map(|record| record.key().id.clone())
            .collect()
    }
}

/// What the response cache holds, which is nothing while it does not answer.
fn found(answer: Result<CachedResponse, StoreError>) -> CachedResponse {
    answer.unwrap_or_else(|error| {
        debug!("could not read the response cache: {error}");
        CachedResponse::default()
    })
}

/// Searching thousands of documents takes longer than other calls should wait.
pub(super) async fn list_snapshot(
    snapshot: Snapshot,
    kind: Kind,
    query: ListQuery,
) -> Result<ListPage, StoreError> {
    tokio::task::spawn_blocking(move || snapshot.list(kind, &query))
        .await
        .unwrap_or_else(|_| Err(StoreError::panicked()))
}

/// The store's answer, or that it came too late; nothing was written.
pub(super) fn in_time<T>(answer: Result<Result<T, StoreError>, Elapsed>) -> Result<T, StoreError> {
    answer.unwrap_or_else(|_| {
        Err(StoreError::Unavailable(
            "it did not answer in time".to_owned(),
        ))
    })
}

/// The ids that are most similar to a wanted one, most similar first.
fn similar(wanted: &str, ids: Vec<String>) -> Vec<String> {
    let lower = wanted.to_lowercase();
    let similarity = |id: &str| {
        if id.contains(&lower) {
            1.0
        } else {
            strsim::jaro_winkler(&lower, &id.to_lowercase())
        }
    };
    let mut near: Vec<(f64, String)> = ids
        .into_iter()
        .filter(|id| id != wanted)
        .map(|id| (similarity(&id), id))
        .filter(|(similarity, _)| *similarity > MIN_SIMILARITY)
        .collect();
    near.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    near.into_iter()
        .take(MAX_SIMILAR)
        .map(|(_, id)| id)
        .collect()
}

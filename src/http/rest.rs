//! The website API: the published documents of CONTRACT.md, section 3, with the headers that caches
//! on the way to the visitors need.
//!
//! Responses are cached in the store where it has a response cache, and the recent ones in this
//! process too, so that a visit does not fetch the whole response again. One rule decides for all
//! processes which cached response is current: the store's state, which is asked for each visit.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Path, Query, State, rejection::PathRejection},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use tracing::debug;
use uuid::Uuid;

use super::{
    filter::Filter, payload::Payload, recent_responses::RecentResponses, response_cache, view::View,
};
use crate::{
    deadline::Deadline,
    domain::{
        ApiPath, CachedResponse, DocumentKey, Kind, ListQuery, PointInTime, Record, StoreState,
        Timestamp, is_slug, text::compact_json,
    },
    service::{ContentService, Error, Fetched, LogPoint},
};

/// Every request is answered within 10 seconds, whatever the store does.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(9);
/// A larger response is not cached: fetching it would take longer than making it.
const MAX_CACHED_BYTES: usize = 1024 * 1024;
/// Longer ids are not looked up.
const MAX_ID_BYTES: usize = 200;
/// Caches may reuse a response for a minute, and for five more while they fetch a new one.
const CACHE_PUBLIC: HeaderValue =
    HeaderValue::from_static("public, max-age=0, s-maxage=60, stale-while-revalidate=300");
const CACHE_PRIVATE: HeaderValue =
    HeaderValue::from_static("private, max-age=0, stale-while-revalidate=300");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// The content of the past, or after a plan, is for those who ask for it alone.
const PRIVATE: [(HeaderName, HeaderValue); 2] = [
    (
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, no-store"),
    ),
    (header::VARY, HeaderValue::from_static("Authorization")),
];
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Who may read the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    Public,
    TokenHolders,
}

/// `/api/projects`, `/api/resources`, and each document below them.
pub(super) fn routes(content: Arc<ContentService>, audience: Audience) -> Router {
    let mut routes = Router::new();
    for kind in Kind::ALL {
        let list_path = format!("/api/{}", kind.plural());
        let list = async move |State(rest): State<Arc<RestState>>,
                               Query(parameters): Query<Vec<(String, String)>>,
                               headers: HeaderMap| {
            let filter = Filter::of_query(&parameters);
            let view = View::of_query(&parameters);
            rest.respond(ApiPath::All(kind), view, &filter, &headers)
                .await
        };
        let document = async move |State(rest): State<Arc<RestState>>,
                                   slug: Result<Path<String>, PathRejection>,
                                   Query(parameters): Query<Vec<(String, String)>>,
                                   headers: HeaderMap| {
            match slug {
                Ok(Path(id)) => {
                    let path = ApiPath::One(DocumentKey::new(kind, id));
                    let view = View::of_query(&parameters);
                    rest.respond(path, view, &Filter::default(), &headers).await
                }
                // The slug is not UTF-8.
                Err(_) => rest.error_response(
                    &ApiPath::One(DocumentKey::new(kind, "")),
                    &RestError::InvalidSlug,
                    &Uuid::new_v4().to_string(),
                ),
            }
        };
        routes = routes
            .route(&format!("{list_path}/{{slug}}"), get(document))
            .route(&list_path, get(list));
    }
    routes.with_state(Arc::new(RestState {
        content,
        audience,
        recent: Arc::default(),
    }))
}

struct RestState {
    content: Arc<ContentService>,
    audience: Audience,
    recent: Arc<RecentResponses>,
}

/// What the caches hold for a path.
enum Lookup {
    Found(Arc<Payload>),
    /// No valid response, but the store's state, unless the store did not answer.
    Missing(Option<StoreState>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum RestError {
    InvalidSlug,
    /// What is wrong with the query.
    InvalidQuery(String),
    NotFound,
    /// The document was not there at a point in the past, or nobody knows what it was.
    NotThen(String),
    NotPublished,
    /// Why a plan cannot be shown.
    PlanNotFound(String),
    FetchFailed,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Meta<'a> {
    timestamp: String,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<usize>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    snapshot: Option<SnapshotMeta>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SnapshotMeta {
    source: &'static str,
    stale: bool,
    age_ms: u64,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    success: bool,
    error: ErrorMember,
    meta: Meta<'a>,
}

#[derive(Serialize)]
struct ErrorMember {
    code: String,
    message: String,
}

impl RestState {
    async fn respond(
        &self,
        api_path: ApiPath,
        view: Result<View, String>,
        filter: &Filter,
        headers: &HeaderMap,
    ) -> Response {
        let request_id = Uuid::new_v4().to_string();
        let deadline = Deadline::after(RESPONSE_TIMEOUT);
        let is_now = view == Ok(View::Now);
        let read = async {
            match view {
                Ok(View::Now) => self.fetch(&api_path, filter, deadline).await,
                Ok(View::AsOf(time)) => {
                    let past = Past::new(&self.content, time, deadline).await?;
                    past.read(&api_path, filter).await.map(Arc::new)
                }
                Ok(View::Plan(id)) => {
                    let shown = self.read_planned(&id, &api_path, filter, deadline).await;
                    shown.map(Arc::new)
                }
                Err(problem) => Err(RestError::InvalidQuery(problem)),
            }
        };
        let response = match deadline.run(read).await {
            Ok(Ok(payload)) => self.success_response(&payload, headers, &request_id),
            Ok(Err(error)) => self.error_response(&api_path, &error, &request_id),
            Err(_) => {
                debug!("an API request timed out");
                self.error_response(&api_path, &RestError::FetchFailed, &request_id)
            }
        };
        if is_now {
            return response;
        }
        (PRIVATE, response).into_response()
    }

    /// What is published: from the response cache, the store, or, while the store is unavailable,
    /// the snapshot.
    async fn fetch(
        &self,
        api_path: &ApiPath,
        filter: &Filter,
        deadline: Deadline,
    ) -> Result<Arc<Payload>, RestError> {
        // Documents that older programs stored under other ids are shown too, but not cached:
        // otherwise requests for made-up ids would fill the cache. The same holds for filters, and
        // a cached response has no other.
        let state = match api_path {
            ApiPath::One(key) if !is_slug(&key.id) => None,
            ApiPath::All(_) if !filter.is_empty() => None,
            ApiPath::One(_) | ApiPath::All(_) => match self.look_up(api_path).await {
                Lookup::Found(payload) => {
                    record_answer(api_path, "cache");
                    return Ok(payload);
                }
                Lookup::Missing(state) => state,
            },
        };
        let read = self.read(api_path, filter, deadline).await.map(Arc::new);
        match &read {
            Ok(payload) if payload.snapshot_age.is_some() => record_answer(api_path, "snapshot"),
            Ok(payload) => {
                record_answer(api_path, "store");
                if let Some(state) = state {
                    self.cache(api_path, state, payload);
                }
            }
            Err(_) => record_answer(api_path, "none"),
        }
        read
    }

    /// A valid response from this process or from the store; else the store's state, if it is known.
    async fn look_up(&self, api_path: &ApiPath) -> Lookup {
        if let Some(recent) = self.recent.get(api_path) {
            let time_left = recent.time_left();
            let stored = self.content.look_up_response(api_path).await;
            // If somebody deleted the stored one, another one may have taken its place, for longer.
            let is_same = stored.ttl.is_some_and(|ttl| ttl <= time_left);
            match stored.state {
                Some(state) if state != recent.state => return Lookup::Missing(Some(state)),
                None => return Lookup::Missing(None),
                Some(_) if is_same => return Lookup::Found(recent.payload),
                Some(_) => self.recent.remove(api_path),
            }
        }
        let CachedResponse {
            response,
            ttl,
            state,
        } = self.content.cached_response(api_path).await;
        let (Some(response), Some(state)) = (response, &state) else {
            return Lookup::Missing(state);
        };
        match response_cache::decode(&response, state) {
            Some(payload) => {
                let payload = Arc::new(payload);
                if let Some(ttl) = ttl {
                    self.recent.insert(api_path, state, &payload, ttl);
                }
                Lookup::Found(payload)
            }
            None => Lookup::Missing(Some(state.clone())),
        }
    }

    /// Keeps a response that was read in the state `state` or later: a write since then makes it
    /// invalid.
    fn cache(&self, api_path: &ApiPath, state: StoreState, payload: &Arc<Payload>) {
        // Redis counts whole seconds.
        let ttl = Duration::from_secs(payload.ttl.as_secs());
        if payload.data.len() > MAX_CACHED_BYTES || ttl.is_zero() {
            return;
        }
        let (content, recent) = (Arc::clone(&self.content), Arc::clone(&self.recent));
        let (api_path, payload) = (api_path.clone(), Arc::clone(payload));
        tokio::spawn(async move {
            let stored = response_cache::encode(&payload, &state, content.now().to_string());
            // Otherwise it may hold a later write, which may be lost.
            if content
                .cache_response(&api_path, &state, &stored, ttl)
                .await
            {
                recent.insert(&api_path, &state, &payload, ttl);
            }
        });
    }

    async fn read(
        &self,
        api_path: &ApiPath,
        filter: &Filter,
        deadline: Deadline,
    ) -> Result<Payload, RestError> {
        match api_path {
            ApiPath::All(kind) => self.read_list(*kind, filter, deadline).await,
            ApiPath::One(key) => self.read_document(key, deadline).await,
        }
    }

    async fn read_list(
        &self,
        kind: Kind,
        filter: &Filter,
        deadline: Deadline,
    ) -> Result<Payload, RestError> {
        let published = self.content.published(kind, deadline).await;
        let Fetched {
            value,
            snapshot_age,
        } = published.map_err(|error| fetch_failed(&error))?;
        Ok(Payload {
            snapshot_age,
            ttl: value.fresh_for,
            ..list_payload(&value.documents, filter)
        })
    }

    async fn read_document(
        &self,
        key: &DocumentKey,
        deadline: Deadline,
    ) -> Result<Payload, RestError> {
        let valid = is_slug(&key.id);
        if !valid && key.id.len() > MAX_ID_BYTES {
            return Err(RestError::InvalidSlug);
        }
        match self.content.get(key.clone(), deadline).await {
            Ok(Fetched { value, .. }) if !value.record.is_published() => {
                Err(RestError::NotPublished)
            }
            Ok(Fetched {
                value,
                snapshot_age,
            }) => Ok(Payload {
                snapshot_age,
                ..Payload::new(value.record.compact().to_owned(), None)
            }),
            Err(_) if !valid => Err(RestError::InvalidSlug),
            Err(Error::NotFound { .. }) => Err(RestError::NotFound),
            Err(error) => Err(fetch_failed(&error)),
        }
    }

    /// What would be published after a plan.
    async fn read_planned(
        &self,
        plan_id: &str,
        api_path: &ApiPath,
        filter: &Filter,
        deadline: Deadline,
    ) -> Result<Payload, RestError> {
        let shown = self.content.plan(plan_id, deadline).await;
        let documents = shown.map_err(|error| plan_problem(&error))?.documents;
        match api_path {
            ApiPath::All(kind) => {
                let published = self.content.published(*kind, deadline).await;
                let published = published.map_err(|error| fetch_failed(&error))?;
                let is_planned = |record: &Record| {
                    let mut planned = documents.iter();
                    planned.any(|document| document.key == *record.key())
                };
                // A plan is applied later than everything else was changed.
                let planned = documents
                    .iter()
                    .filter_map(|document| document.record.clone());
                let planned = planned.filter(|it| it.key().kind == *kind && it.is_published());
                let others = published.value.documents.iter().cloned();
                let others = others.filter(|record| !is_planned(record));
                let all: Vec<Record> = planned.chain(others).collect();
                Ok(list_payload(&all, filter))
            }
            ApiPath::One(key) => {
                let Some(document) = documents.into_iter().find(|it| it.key == *key) else {
                    return self.read_document(key, deadline).await;
                };
                let record = document.record.ok_or(RestError::NotFound)?;
                if !record.is_published() {
                    return Err(RestError::NotPublished);
                }
                Ok(Payload::new(record.compact().to_owned(), None))
            }
        }
    }

    fn success_response(
        &self,
        payload: &Payload,
        headers: &HeaderMap,
        request_id: &str,
    ) -> Response {
        let cache_control = match self.audience {
            Audience::Public => CACHE_PUBLIC,
            Audience::TokenHolders => CACHE_PRIVATE,
        };
        let response_headers = [
            (REQUEST_ID, header_value(request_id)),
            (header::ETAG, header_value(&payload.etag)),
            (header::CACHE_CONTROL, cache_control),
        ];
        if matches_etag(headers, &payload.etag) {
            return (StatusCode::NOT_MODIFIED, response_headers).into_response();
        }
        let meta = Meta {
            total: payload.total,
            snapshot: payload.snapshot_age.map(|age| SnapshotMeta {
                source: "snapshot",
                stale: true,
                age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            }),
            ..self.meta(request_id)
        };
        (
            response_headers,
            [(header::CONTENT_TYPE, JSON)],
            payload.with_meta(&meta),
        )
            .into_response()
    }

    fn error_response(&self, api_path: &ApiPath, error: &RestError, request_id: &str) -> Response {
        let body = ErrorBody {
            success: false,
            error: ErrorMember {
                code: error.code(api_path),
                message: error.message(api_path),
            },
            meta: self.meta(request_id),
        };
        let response_headers = [
            (REQUEST_ID, header_value(request_id)),
            (header::CACHE_CONTROL, NO_STORE),
            (header::CONTENT_TYPE, JSON),
        ];
        (error.status(), response_headers, compact_json(&body)).into_response()
    }

    fn meta<'a>(&self, request_id: &'a str) -> Meta<'a> {
        Meta {
            timestamp: self.content.now().to_string(),
            request_id,
            total: None,
            snapshot: None,
        }
    }
}

/// The published content of a time in the past. It is in no cache.
struct Past<'a> {
    content: &'a ContentService,
    point: LogPoint,
    deadline: Deadline,
}

impl<'a> Past<'a> {
    async fn new(
        content: &'a ContentService,
        time: Timestamp,
        deadline: Deadline,
    ) -> Result<Self, RestError> {
        let point = PointInTime::Time(time);
        let point = content.log_point(&point, "asOf", deadline).await;
        Ok(Self {
            content,
            point: point.map_err(refused)?,
            deadline,
        })
    }

    async fn read(&self, api_path: &ApiPath, filter: &Filter) -> Result<Payload, RestError> {
        match api_path {
            ApiPath::All(kind) => {
                let query = ListQuery {
                    status: Some("published".to_owned()),
                    limit: usize::MAX,
                    ..ListQuery::default()
                };
                let past = self
                    .content
                    .list_as_of(*kind, &query, &self.point, self.deadline);
                let past = past.await.map_err(refused)?;
                Ok(list_payload(&past.page.records, filter))
            }
            ApiPath::One(key) if !is_slug(&key.id) && key.id.len() > MAX_ID_BYTES => {
                Err(RestError::InvalidSlug)
            }
            ApiPath::One(key) => {
                let record = self
                    .content
                    .get_as_of(key.clone(), &self.point, self.deadline);
                let record = match record.await {
                    Err(_) if !is_slug(&key.id) => return Err(RestError::InvalidSlug),
                    record => record.map_err(refused)?,
                };
                if !record.is_published() {
                    return Err(RestError::NotPublished);
                }
                Ok(Payload::new(record.compact().to_owned(), None))
            }
        }
    }
}

/// All documents that a filter lets pass.
fn list_payload(documents: &[Record], filter: &Filter) -> Payload {
    let documents: Vec<&str> = documents
        .iter()
        .filter(|record| filter.matches(record))
        .map(Record::compact)
        .collect();
    let data = format!("[{}]", documents.join(","));
    Payload::new(data, Some(documents.len()))
}

/// Why the content of the past cannot be shown.
fn refused(error: Error) -> RestError {
    match error {
        Error::Invalid(violations) => {
            let problems: Vec<String> = violations.iter().map(ToString::to_string).collect();
            RestError::InvalidQuery(problems.join("; "))
        }
        Error::NotFound { .. } => RestError::NotFound,
        Error::NotThen { .. } => RestError::NotThen(error.to_string()),
        error => fetch_failed(&error),
    }
}

impl RestError {
    fn status(&self) -> StatusCode {
        match self {
            Self::InvalidSlug | Self::InvalidQuery(_) => StatusCode::BAD_REQUEST,
            Self::NotFound | Self::NotThen(_) | Self::NotPublished | Self::PlanNotFound(_) => {
                StatusCode::NOT_FOUND
            }
            Self::FetchFailed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn code(&self, api_path: &ApiPath) -> String {
        let kind = api_path.kind().singular().to_uppercase();
        match (self, api_path) {
            (Self::InvalidSlug, _) => "INVALID_SLUG".to_owned(),
            (Self::InvalidQuery(_), _) => "INVALID_QUERY".to_owned(),
            (Self::NotFound | Self::NotThen(_), _) => format!("{kind}_NOT_FOUND"),
            (Self::PlanNotFound(_), _) => "PLAN_NOT_FOUND".to_owned(),
            (Self::NotPublished, _) => format!("{kind}_NOT_PUBLISHED"),
            (Self::FetchFailed, ApiPath::One(_)) => format!("{kind}_FETCH_ERROR"),
            (Self::FetchFailed, ApiPath::All(_)) => format!("{kind}S_FETCH_ERROR"),
        }
    }

    fn message(&self, api_path: &ApiPath) -> String {
        let name = match api_path {
            ApiPath::One(key) => key.to_string(),
            ApiPath::All(kind) => kind.plural().to_owned(),
        };
        match self {
            Self::InvalidSlug => "a slug consists of lowercase words and numbers joined by \
                                  hyphens, such as `rdv-artisan`"
                .to_owned(),
            Self::InvalidQuery(problem) | Self::NotThen(problem) | Self::PlanNotFound(problem) => {
                problem.clone()
            }
            Self::NotFound => format!("there is no {name}"),
            Self::NotPublished => format!("{name} is not published"),
            Self::FetchFailed => format!("{name} could not be read; try again in a moment"),
        }
    }
}

/// Why the content after a plan cannot be shown.
fn plan_problem(error: &Error) -> RestError {
    match error {
        Error::PlanNotFound { applied: None } => RestError::PlanNotFound(
            "there is no such plan, or it has expired (plans last 24 hours)".to_owned(),
        ),
        Error::PlanNotFound { applied: Some(_) } => RestError::PlanNotFound(
            "this plan was applied: leave `plan` out to see the website as it is".to_owned(),
        ),
        Error::Conflict { key, .. } => RestError::PlanNotFound(format!(
            "{key} was changed since the plan was made, so it cannot be applied any more"
        )),
        error => fetch_failed(error),
    }
}

/// Logs why the content could not be read. Visitors do not see the reason, and an outage is logged
/// by the store.
fn fetch_failed(error: &Error) -> RestError {
    // `service` has logged what an operator should know.
    debug!("an API request failed: {error}");
    RestError::FetchFailed
}

fn record_answer(api_path: &ApiPath, from: &'static str) {
    metrics::counter!(
        "portfolio_rest_answers_total",
        "kind" => api_path.kind().singular(),
        "from" => from
    )
    .increment(1);
}

/// Whether the client already has the content that `etag` stands for. Weak tags match too, because
/// a cache on the way may have made ours weak (RFC 9110, section 13.1.2).
///
/// By hand, because `headers` 0.4.2 was tried: it skips a whole list that is not ASCII, panics in
/// debug builds on a space in a tag, and brings eight crates.
fn matches_etag(headers: &HeaderMap, etag: &str) -> bool {
    headers.get_all(header::IF_NONE_MATCH).iter().any(|value| {
        let list = String::from_utf8_lossy(value.as_bytes());
        // A tag holds no quote, so each second piece between quotes is one.
        list.trim() == "*"
            || list
                .split('"')
                .skip(1)
                .step_by(2)
                .any(|tag| tag == etag.trim_matches('"'))
    })
}

fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text)
        .unwrap_or_else(|error| unreachable!("ids and tags are hexadecimal digits: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_if_none_match_is_understood() {
        let matches = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(
                    header::IF_NONE_MATCH,
                    HeaderValue::from_bytes(value.as_bytes()).unwrap(),
                );
            }
            matches_etag(&headers, "\"abc\"")
        };

        for matching in [
            &["\"abc\""][..],
            &["W/\"abc\""],
            &["*"],
            &[" * "],
            &["\"x\", W/\"abc\" ,\"y\""],
            &["\"x\"", "\"abc\""],
            &["\"é\",\"abc\""],
        ] {
            assert!(matches(matching), "{matching:?}");
        }
        for other in [
            &[][..],
            &[""],
            &["abc"],
            &["\"abcd\""],
            &["\"x,abc\""],
            &["\"x\", \"*\""],
            &["\"x\" abc \"y\""],
        ] {
            assert!(!matches(other), "{other:?}");
        }
    }
}

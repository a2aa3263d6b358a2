//! What a website reads: the published documents of CONTRACT.md, section 3, with what caches between it and its visitors need.
//!
//! Knows the service and no store. Answers are kept for other readers where the service can do that. Such an answer is looked for
//! first, also for a list that this process has a copy of: a hit costs one round trip, as asking whether the copy is current would,
//! and one rule, the number of the newest write, says for both kinds of answer and for all processes what is current.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::{
    deadline::Deadline,
    domain::{ApiPath, DocumentKey, Kind, Record, is_slug, sha256_hex, text::compact_json},
    service::{CachedResponse, ContentService, Error, Fetched},
};

/// How long answering a request may take.
const REQUEST_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// Every request is answered within 10 seconds, whatever the store does.
const DEADLINE: Duration = Duration::from_secs(9);
/// A longer answer is not kept: it would take longer to fetch than to make.
const LONGEST_KEPT: usize = 1024 * 1024;
/// Longer ids are not looked up.
const LONGEST_ID: usize = 200;
/// A copy for a minute, and an old one for five while it is renewed.
const PUBLIC: HeaderValue =
    HeaderValue::from_static("public, max-age=0, s-maxage=60, stale-while-revalidate=300");
const PRIVATE: HeaderValue =
    HeaderValue::from_static("private, max-age=0, stale-while-revalidate=300");
const NO_COPY: HeaderValue = HeaderValue::from_static("no-store");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// How an answer begins, and what follows its data.
const BEGIN: &str = r#"{"success":true,"data":"#;
const META: &str = r#","meta":"#;

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    Everybody,
    TokenHolders,
}

/// `/api/projects`, `/api/resources`, and each document below.
pub(super) fn routes(content: Arc<ContentService>, audience: Audience) -> Router {
    let mut routes = Router::new();
    for kind in Kind::ALL {
        let list = format!("/api/{}", kind.plural());
        let all = async move |State(site): State<Arc<Site>>, headers: HeaderMap| {
            site.answer(ApiPath::All(kind), &headers).await
        };
        let one = async move |State(site): State<Arc<Site>>,
                              slug: Result<Path<String>, PathRejection>,
                              headers: HeaderMap| match slug {
            Ok(Path(id)) => {
                site.answer(ApiPath::One(DocumentKey::new(kind, id)), &headers)
                    .await
            }
            // It is not UTF-8.
            Err(_) => site.refuse(
                &ApiPath::One(DocumentKey::new(kind, "")),
                Refusal::InvalidSlug,
                &Uuid::new_v4().to_string(),
            ),
        };
        routes = routes
            .route(&format!("{list}/{{slug}}"), get(one))
            .route(&list, get(all));
    }
    routes.with_state(Arc::new(Site { content, audience }))
}

struct Site {
    content: Arc<ContentService>,
    audience: Audience,
}

/// What is published, as JSON text.
#[derive(Debug, PartialEq, Eq)]
struct Page {
    data: String,
    etag: String,
    total: Option<usize>,
    /// How old it is, if it is from the saved copy because the store is away.
    saved: Option<Duration>,
}

/// Why nothing is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    InvalidSlug,
    NotFound,
    NotPublished,
    Failed,
}

/// About an answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Meta<'a> {
    timestamp: String,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<usize>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    saved: Option<SavedMeta>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SavedMeta {
    source: &'static str,
    stale: bool,
    age_ms: u64,
}

/// About an answer that is kept.
#[derive(Serialize, Deserialize)]
struct KeptMeta {
    timestamp: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    total: Option<usize>,
    seq: u64,
    etag: String,
}

#[derive(Serialize)]
struct Failure<'a> {
    success: bool,
    error: FailureText<'a>,
    meta: Meta<'a>,
}

#[derive(Serialize)]
struct FailureText<'a> {
    code: String,
    message: &'a str,
}

impl Site {
    async fn answer(&self, api_path: ApiPath, headers: &HeaderMap) -> Response {
        let id = Uuid::new_v4().to_string();
        match timeout(DEADLINE, self.page(&api_path)).await {
            Ok(Ok(page)) => self.show(&page, headers, &id),
            Ok(Err(refusal)) => self.refuse(&api_path, refusal, &id),
            Err(_) => {
                debug!("a request of the website was not answered in time");
                self.refuse(&api_path, Refusal::Failed, &id)
            }
        }
    }

    /// What is published, from the cache or the store, or from the saved copy when the store is away.
    async fn page(&self, api_path: &ApiPath) -> Result<Page, Refusal> {
        // What older programs stored under another id is shown all the same, but nobody keeps an answer for every text that is asked for.
        let kept = match api_path {
            ApiPath::One(key) if !is_slug(&key.id) => CachedResponse::default(),
            ApiPath::One(_) | ApiPath::All(_) => self.content.cached_response(api_path).await,
        };
        if let (Some(response), Some(seq)) = (&kept.response, kept.seq)
            && let Some(page) = Page::of_kept(response, seq)
        {
            count(api_path, "cache");
            return Ok(page);
        }
        let page = self.read(api_path).await;
        match &page {
            Ok(Page { saved: Some(_), .. }) => count(api_path, "snapshot"),
            Ok(page) => {
                count(api_path, "store");
                // Its `seq` was asked before anything was read, so whoever wrote since keeps this from being kept.
                if let Some(seq) = kept.seq.filter(|_| page.data.len() <= LONGEST_KEPT) {
                    self.content.cache_response(
                        api_path.clone(),
                        seq,
                        page.to_keep(seq, self.content.now().to_string()),
                    );
                }
            }
            Err(_) => count(api_path, "none"),
        }
        page
    }

    async fn read(&self, api_path: &ApiPath) -> Result<Page, Refusal> {
        let deadline = Deadline::after(REQUEST_TIMEOUT);
        match api_path {
            ApiPath::All(kind) => match self.content.published(*kind, deadline).await {
                Ok(Fetched {
                    value,
                    snapshot_age: saved,
                }) => {
                    let documents: Vec<&str> = value.iter().map(Record::compact).collect();
                    Ok(Page::new(
                        format!("[{}]", documents.join(",")),
                        Some(value.len()),
                        saved,
                    ))
                }
                Err(error) => Err(failed(&error)),
            },
            ApiPath::One(key) => {
                let invalid = !is_slug(&key.id);
                if invalid && key.id.len() > LONGEST_ID {
                    return Err(Refusal::InvalidSlug);
                }
                match self.content.get(key.clone(), deadline).await {
                    Ok(Fetched { value, .. }) if !value.is_published() => {
                        Err(Refusal::NotPublished)
                    }
                    Ok(Fetched {
                        value,
                        snapshot_age: saved,
                    }) => Ok(Page::new(value.compact().to_owned(), None, saved)),
                    Err(Error::NotFound { .. }) if !invalid => Err(Refusal::NotFound),
                    Err(_) if invalid => Err(Refusal::InvalidSlug),
                    Err(error) => Err(failed(&error)),
                }
            }
        }
    }

    fn show(&self, page: &Page, headers: &HeaderMap, request_id: &str) -> Response {
        let copies = match self.audience {
            Audience::Everybody => PUBLIC,
            Audience::TokenHolders => PRIVATE,
        };
        let known = has(headers, &page.etag);
        let about = [
            (REQUEST_ID, header_value(request_id)),
            (header::ETAG, header_value(&page.etag)),
            (header::CACHE_CONTROL, copies),
        ];
        if known {
            return (StatusCode::NOT_MODIFIED, about).into_response();
        }
        let meta = Meta {
            timestamp: self.content.now().to_string(),
            request_id,
            total: page.total,
            saved: page.saved.map(|age| SavedMeta {
                source: "snapshot",
                stale: true,
                age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            }),
        };
        (
            about,
            [(header::CONTENT_TYPE, JSON)],
            with_meta(&page.data, &meta),
        )
            .into_response()
    }

    fn refuse(&self, api_path: &ApiPath, refusal: Refusal, request_id: &str) -> Response {
        let kind = api_path.kind();
        let upper = kind.singular().to_uppercase();
        let (status, code, message) = match (refusal, api_path) {
            (Refusal::InvalidSlug, _) => {
                let message = "a slug is made of lower-case words and numbers joined by hyphens, such as `rdv-artisan`";
                (
                    StatusCode::BAD_REQUEST,
                    "INVALID_SLUG".to_owned(),
                    message.to_owned(),
                )
            }
            (Refusal::NotFound, ApiPath::One(key)) => (
                StatusCode::NOT_FOUND,
                format!("{upper}_NOT_FOUND"),
                format!("there is no {key}"),
            ),
            (Refusal::NotPublished, ApiPath::One(key)) => (
                StatusCode::NOT_FOUND,
                format!("{upper}_NOT_PUBLISHED"),
                format!("{key} is not published"),
            ),
            (Refusal::Failed, ApiPath::One(_)) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("{upper}_FETCH_ERROR"),
                format!("the {kind} cannot be read; try again in a moment"),
            ),
            (_, ApiPath::All(_)) => {
                let message = format!(
                    "the {} cannot be read; try again in a moment",
                    kind.plural()
                );
                (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    format!("{upper}S_FETCH_ERROR"),
                    message,
                )
            }
        };
        let meta = Meta {
            timestamp: self.content.now().to_string(),
            request_id,
            total: None,
            saved: None,
        };
        let failure = Failure {
            success: false,
            error: FailureText {
                code,
                message: &message,
            },
            meta,
        };
        let about = [
            (REQUEST_ID, header_value(request_id)),
            (header::CACHE_CONTROL, NO_COPY),
            (header::CONTENT_TYPE, JSON),
        ];
        (status, about, compact_json(&failure)).into_response()
    }
}

impl Page {
    fn new(data: String, total: Option<usize>, saved: Option<Duration>) -> Self {
        Self {
            etag: etag_of(&data),
            data,
            total,
            saved,
        }
    }

    /// The page that is kept as `answer`, if this program made it when `seq` was the number of the newest write.
    fn of_kept(answer: &str, seq: u64) -> Option<Self> {
        let (data, meta) = answer
            .strip_prefix(BEGIN)?
            .strip_suffix('}')?
            .rsplit_once(META)?;
        let meta: KeptMeta = serde_json::from_str(meta).ok()?;
        // The tag is made of the data, so this finds out whether the data is as it was, too.
        (meta.seq == seq && meta.etag == etag_of(data)).then(|| Self {
            data: data.to_owned(),
            etag: meta.etag,
            total: meta.total,
            saved: None,
        })
    }

    fn to_keep(&self, seq: u64, timestamp: String) -> String {
        with_meta(
            &self.data,
            &KeptMeta {
                timestamp,
                total: self.total,
                seq,
                etag: self.etag.clone(),
            },
        )
    }
}

/// What the log has to say of a failure that the visitor is not told: an outage is logged where it is met.
fn failed(error: &Error) -> Refusal {
    if error.is_outage() {
        debug!("the website was not answered: {error}");
    } else {
        warn!("the website was not answered: {error}");
    }
    Refusal::Failed
}

fn count(api_path: &ApiPath, from: &'static str) {
    metrics::counter!("portfolio_rest_answers_total", "kind" => api_path.kind().singular(), "from" => from).increment(1);
}

/// A tag for what is shown, whenever and to whomever.
fn etag_of(data: &str) -> String {
    let hash = sha256_hex(data.as_bytes());
    format!("\"{}\"", hash.get(..32).unwrap_or(&hash))
}

/// Whether the client says that it has what `etag` is for. Weak tags count, because a cache on the way may have made ours weak
/// (RFC 9110, section 13.1.2).
fn has(headers: &HeaderMap, etag: &str) -> bool {
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

fn with_meta(data: &str, meta: &impl Serialize) -> String {
    format!("{BEGIN}{data}{META}{}}}", compact_json(meta))
}

fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text)
        .unwrap_or_else(|error| unreachable!("ids and tags are hexadecimal digits: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_answer_counts_for_its_own_write_and_as_it_was_made() {
        let page = Page::new(
            r#"[{"id":"a","text":",\"meta\":{}"}]"#.to_owned(),
            Some(1),
            None,
        );
        let kept = page.to_keep(7, "2026-01-01T00:00:00.000Z".to_owned());

        assert_eq!(Page::of_kept(&kept, 7), Some(page));
        assert_eq!(Page::of_kept(&kept, 8), None);
        assert_eq!(
            Page::of_kept(&kept.replace(r#""id":"a""#, r#""id":"b""#), 7),
            None
        );
        for foreign in [
            "",
            "{}",
            "null",
            r#"{"success":true,"data":[],"meta":{}}"#,
            r#"{"success":true,"data":[],"meta":{"seq":7}}"#,
        ] {
            assert_eq!(Page::of_kept(foreign, 7), None, "{foreign}");
        }
    }

    #[test]
    fn a_client_says_what_it_has_in_every_form_that_http_knows() {
        let has = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(
                    header::IF_NONE_MATCH,
                    HeaderValue::from_bytes(value.as_bytes()).unwrap(),
                );
            }
            super::has(&headers, "\"abc\"")
        };

        for known in [
            &["\"abc\""][..],
            &["W/\"abc\""],
            &["*"],
            &[" * "],
            &["\"x\", W/\"abc\" ,\"y\""],
            &["\"x\"", "\"abc\""],
            &["\"é\",\"abc\""],
        ] {
            assert!(has(known), "{known:?}");
        }
        for unknown in [
            &[][..],
            &[""],
            &["abc"],
            &["\"abcd\""],
            &["\"x,abc\""],
            &["\"x\", \"*\""],
            &["\"x\" abc \"y\""],
        ] {
            assert!(!has(unknown), "{unknown:?}");
        }
    }
}

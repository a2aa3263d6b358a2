//! What watches over the process: whether it is up, whether its store answers, and what it has counted.
//!
//! Nobody needs a token for the first two, so they tell nothing of content; the third takes one where tokens exist.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::service::{ContentService, Health};

/// Whoever asks whether the server is ready is answered within this time.
const READY: Duration = Duration::from_secs(3);
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROMETHEUS: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const NO_COPY: HeaderValue = HeaderValue::from_static("no-store");

/// `/healthz`, `/readyz`, and `/metrics` if there is what counts.
pub(super) fn routes(
    content: Arc<ContentService>,
    metrics: Option<PrometheusHandle>,
    stop: CancellationToken,
) -> Router {
    let counted = metrics.map(|metrics| {
        let content = Arc::clone(&content);
        Router::new().route("/metrics", get(async move || numbers(&content, &metrics)))
    });
    Router::new()
        .route(
            "/healthz",
            get(async || said(StatusCode::OK, &json!({ "status": "ok" }))),
        )
        .route("/readyz", get(ready))
        .with_state((content, stop))
        .merge(counted.unwrap_or_default())
}

async fn ready(
    State((content, stop)): State<(Arc<ContentService>, CancellationToken)>,
) -> Response {
    let health = timeout(READY, content.health()).await;
    let Health {
        store,
        snapshot_age,
    } = health.unwrap_or_else(|_| Health {
        store: Err(format!(
            "the store did not answer within {} seconds",
            READY.as_secs()
        )),
        snapshot_age: content.snapshot_age(),
    });
    let name = content.store_name();
    match store {
        _ if stop.is_cancelled() => said(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({ "status": "stopping", "store": name }),
        ),
        Ok(()) => said(StatusCode::OK, &json!({ "status": "ready", "store": name })),
        Err(reason) => {
            let reading = snapshot_age.map_or_else(
                || json!({ "source": Value::Null }),
                |age| json!({ "source": "snapshot", "stale": true, "ageMs": u64::try_from(age.as_millis()).unwrap_or(u64::MAX) }),
            );
            let what = json!({ "status": "unavailable", "store": name, "reason": reason, "reading": reading, "writing": false });
            said(StatusCode::SERVICE_UNAVAILABLE, &what)
        }
    }
}

fn numbers(content: &ContentService, metrics: &PrometheusHandle) -> Response {
    if let Some(age) = content.snapshot_age() {
        metrics::gauge!("portfolio_snapshot_age_seconds").set(age);
    }
    (
        [
            (header::CONTENT_TYPE, PROMETHEUS),
            (header::CACHE_CONTROL, NO_COPY),
        ],
        metrics.render(),
    )
        .into_response()
}

fn said(status: StatusCode, what: &Value) -> Response {
    (
        status,
        [
            (header::CONTENT_TYPE, JSON),
            (header::CACHE_CONTROL, NO_COPY),
        ],
        what.to_string(),
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock,
        store::{Location, open},
    };

    #[tokio::test]
    async fn a_server_that_was_told_to_stop_is_not_ready() {
        let folder = tempfile::TempDir::new().unwrap();
        let content = Arc::new(ContentService::new(
            open(&Location::Sqlite(folder.path().join("content.db"))).unwrap(),
            clock,
        ));
        let stop = CancellationToken::new();

        let before = ready(State((Arc::clone(&content), stop.clone()))).await;
        stop.cancel();
        let after = ready(State((content, stop))).await;

        assert_eq!(
            (before.status(), after.status()),
            (StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE)
        );
    }
}

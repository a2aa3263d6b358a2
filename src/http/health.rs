//! Monitoring: whether the process is up, whether its store answers, and its metrics.
//!
//! The first two need no token, so they reveal nothing about content; the third needs one where
//! tokens are configured.

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

use crate::{
    deadline::Deadline,
    service::{ContentService, Health},
};

/// `/readyz` answers within this time.
const READY_TIMEOUT: Duration = Duration::from_secs(3);
/// How long counting may take for `/metrics`; then the last number stays.
const METRICS_TIMEOUT: Duration = Duration::from_secs(3);
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROMETHEUS: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// `/healthz`, `/readyz`, and `/metrics` if metrics are recorded.
pub(super) fn routes(
    content: Arc<ContentService>,
    metrics: Option<PrometheusHandle>,
    stop: CancellationToken,
) -> Router {
    let metrics_route = metrics.map(|metrics| {
        let content = Arc::clone(&content);
        Router::new().route(
            "/metrics",
            get(async move || render_metrics(&content, &metrics).await),
        )
    });
    Router::new()
        .route(
            "/healthz",
            get(async || json_response(StatusCode::OK, &json!({ "status": "ok" }))),
        )
        .route("/readyz", get(check_ready))
        .with_state((content, stop))
        .merge(metrics_route.unwrap_or_default())
}

async fn check_ready(
    State((content, stop)): State<(Arc<ContentService>, CancellationToken)>,
) -> Response {
    let health = timeout(READY_TIMEOUT, content.health()).await;
    let health = health.unwrap_or_else(|_| Health {
        store: Err("the store did not answer in time"),
        snapshot_age: content.snapshot_age(),
    });
    readiness(&health, content.store_name(), &stop)
}

fn readiness(health: &Health, store: &str, stop: &CancellationToken) -> Response {
    if stop.is_cancelled() {
        return json_response(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({ "status": "stopping", "store": store }),
        );
    }
    let Err(reason) = &health.store else {
        return json_response(
            StatusCode::OK,
            &json!({ "status": "ready", "store": store }),
        );
    };
    let reading = match health.snapshot_age {
        None => json!({ "source": Value::Null }),
        Some(age) => {
            let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            json!({ "source": "snapshot", "stale": true, "ageMs": age_ms })
        }
    };
    json_response(
        StatusCode::SERVICE_UNAVAILABLE,
        &json!({
            "status": "unavailable",
            "store": store,
            "reason": reason,
            "reading": reading,
            "writing": false,
        }),
    )
}

async fn render_metrics(content: &ContentService, metrics: &PrometheusHandle) -> Response {
    let deadline = Deadline::after(METRICS_TIMEOUT);
    if let Some(count) = content.count_changed_outside(deadline).await {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        metrics::gauge!("portfolio_documents_changed_outside").set(f64::from(count));
    }
    if let Some(age) = content.snapshot_age() {
        metrics::gauge!("portfolio_snapshot_age_seconds").set(age);
    }
    (
        [
            (header::CONTENT_TYPE, PROMETHEUS),
            (header::CACHE_CONTROL, NO_STORE),
        ],
        metrics.render(),
    )
        .into_response()
}

fn json_response(status: StatusCode, body: &Value) -> Response {
    (
        status,
        [
            (header::CONTENT_TYPE, JSON),
            (header::CACHE_CONTROL, NO_STORE),
        ],
        body.to_string(),
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopping_server_is_not_ready() {
        let healthy = Health {
            store: Ok(()),
            snapshot_age: None,
        };
        let stop = CancellationToken::new();

        let before = readiness(&healthy, "sqlite", &stop);
        stop.cancel();
        let after = readiness(&healthy, "sqlite", &stop);

        assert_eq!(before.status(), StatusCode::OK);
        assert_eq!(after.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}

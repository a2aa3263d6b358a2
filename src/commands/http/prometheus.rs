//! What `http` measures, as Prometheus reads it.

use anyhow::Context;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Upper ends of the buckets of durations, in seconds.
const DURATION_BUCKETS: [f64; 13] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Counters, each with its description.
const COUNTERS: [(&str, &str); 5] = [
    (
        "portfolio_tool_calls_total",
        "Tool calls, by tool and outcome: ok, an error code, or refused.",
    ),
    (
        "portfolio_rest_answers_total",
        "Responses of the website's API, by kind of document and by source.",
    ),
    (
        "portfolio_store_retries_total",
        "Operations that were sent to the store again.",
    ),
    (
        "portfolio_store_reconnects_total",
        "Connections to the store that stopped responding and were replaced.",
    ),
    (
        "portfolio_breaker_opened_total",
        "How often the circuit breaker of reads or writes opened.",
    ),
];

/// Histograms of durations, each with its description.
const HISTOGRAMS: [(&str, &str); 2] = [
    (
        "portfolio_tool_duration_seconds",
        "Duration of tool calls in seconds, by tool.",
    ),
    (
        "portfolio_store_duration_seconds",
        "Duration of store operations in seconds, by operation.",
    ),
];

/// Gauges, each with its unit and description.
const GAUGES: [(&str, Unit, &str); 6] = [
    (
        "portfolio_build_info",
        Unit::Count,
        "Always 1; the version is a label.",
    ),
    (
        "portfolio_breaker_open",
        Unit::Count,
        "1 while the circuit breaker of reads or writes is open, else 0.",
    ),
    (
        "portfolio_snapshot_age_seconds",
        Unit::Seconds,
        "Seconds since the snapshot was last known to be current.",
    ),
    (
        "portfolio_documents_changed_outside",
        Unit::Count,
        "Documents that were changed outside this server and not written since.",
    ),
    (
        "portfolio_sse_sessions",
        Unit::Count,
        "Open HTTP+SSE sessions.",
    ),
    (
        "portfolio_http_connections",
        Unit::Count,
        "Open HTTP connections.",
    ),
];

/// Starts recording, for a store of this name.
pub(super) fn start(store_name: &str) -> anyhow::Result<PrometheusHandle> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(
            Matcher::Suffix("_duration_seconds".to_owned()),
            &DURATION_BUCKETS,
        )
        .context("setting the buckets of the metrics")?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).context("starting the metrics")?;
    for (name, description) in COUNTERS {
        describe_counter!(name, Unit::Count, description);
    }
    for (name, description) in HISTOGRAMS {
        describe_histogram!(name, Unit::Seconds, description);
    }
    for (name, unit, description) in GAUGES {
        describe_gauge!(name, unit, description);
    }

    // A metric that begins at 0 is seen to change when it becomes 1.
    gauge!("portfolio_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!("portfolio_sse_sessions").set(0.0);
    if store_name == "redis" {
        counter!("portfolio_store_reconnects_total").absolute(0);
        for breaker in ["reads", "writes"] {
            gauge!("portfolio_breaker_open", "breaker" => breaker).set(0.0);
            counter!("portfolio_breaker_opened_total", "breaker" => breaker).absolute(0);
        }
    }
    Ok(handle)
}

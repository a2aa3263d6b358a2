//! `/metrics`, parsed as strictly as a scraper may: every line is well-formed, there are no unknown
//! labels, and the numbers follow what happens.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::support::{
    fixtures::{create_sound, project_key},
    http,
    messages::tool_output,
    proxy::{Mode, Proxy},
    server::HttpServer,
    sse::SseSession,
    stores::Store,
    wait_until,
};

/// Every sample by its name and labels. Fails on text that is not Prometheus' format 0.0.4.
fn scrape(server: &HttpServer) -> BTreeMap<String, f64> {
    let response = http::send(server.address, "GET", "/metrics", &[], "");
    assert_eq!(response.status, 200);
    assert_eq!(
        response.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let text = response.text();
    assert!(text.ends_with('\n'));
    let (mut kinds, mut described, mut samples) =
        (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help
                .split_once(' ')
                .unwrap_or_else(|| panic!("no text: {line}"));
            assert!(
                text.ends_with('.') && described.insert(name.to_owned()),
                "{line}"
            );
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(
                kinds.insert(name.to_owned(), kind.to_owned()).is_none(),
                "{line}"
            );
        } else {
            let (series, value) = line
                .rsplit_once(' ')
                .unwrap_or_else(|| panic!("no value: {line}"));
            let value: f64 = value
                .parse()
                .unwrap_or_else(|_| panic!("no number: {line}"));
            let (name, labels) = match series.split_once('{') {
                Some((name, labels)) => (
                    name,
                    labels
                        .strip_suffix('}')
                        .unwrap_or_else(|| panic!("labels do not end: {line}")),
                ),
                None => (series, ""),
            };
            assert!(
                name.starts_with("portfolio_")
                    && name.chars().all(|c| c.is_ascii_lowercase() || c == '_'),
                "{line}"
            );
            for label in labels.split(',').filter(|label| !label.is_empty()) {
                let (name, value) = label
                    .split_once('=')
                    .unwrap_or_else(|| panic!("no label: {line}"));
                assert!(
                    [
                        "tool",
                        "outcome",
                        "kind",
                        "from",
                        "operation",
                        "breaker",
                        "version",
                        "le"
                    ]
                    .contains(&name),
                    "{line}"
                );
                let value = value
                    .strip_prefix('"')
                    .and_then(|value| value.strip_suffix('"'))
                    .unwrap_or_else(|| panic!("no value: {line}"));
                assert!(
                    !value.is_empty()
                        && value
                            .chars()
                            .all(|c| c.is_ascii_alphanumeric() || "_.+".contains(c)),
                    "{line}"
                );
            }
            let histogram = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end))
                .filter(|name| kinds.contains_key(*name));
            let family = histogram.unwrap_or(name);
            assert!(
                kinds.contains_key(family) && described.contains(family),
                "{family} is not described before {line}"
            );
            assert_eq!(histogram.is_some(), kinds[family] == "histogram", "{line}");
            assert!(
                samples.insert(series.to_owned(), value).is_none(),
                "twice: {line}"
            );
        }
    }
    samples
}

fn at(samples: &BTreeMap<String, f64>, series: &str) -> f64 {
    samples.get(series).copied().unwrap_or_default()
}

/// Fails unless `series` rose by `by`.
fn assert_rose(
    before: &BTreeMap<String, f64>,
    after: &BTreeMap<String, f64>,
    series: &str,
    by: f64,
) {
    assert!(
        (at(after, series) - at(before, series) - by).abs() < 0.5,
        "{series}: {} then {}",
        at(before, series),
        at(after, series)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_counted_by_tool_and_outcome_and_timed() {
    let store = Store::sqlite();
    create_sound(&*store.repository, &project_key("a")).await;
    let server = HttpServer::start_with(&store.arguments());
    let before = scrape(&server);

    for _ in 0..3 {
        tool_output(&server.call("get_project", &json!({ "id": "a" })));
    }
    tool_output(&server.call("get_project", &json!({ "id": "canary" })));
    tool_output(&server.call(
        "update_project",
        &json!({ "id": "a", "data": { "canary": 1 } }),
    ));
    server.request("tools/call", &json!({ "name": "canary", "arguments": {} }));
    http::send(server.address, "GET", "/api/projects/canary", &[], "");
    let session = SseSession::open(server.address);
    let after = scrape(&server);

    assert_rose(
        &before,
        &after,
        r#"portfolio_tool_calls_total{tool="get_project",outcome="ok"}"#,
        3.0,
    );
    assert_rose(
        &before,
        &after,
        r#"portfolio_tool_calls_total{tool="get_project",outcome="PROJECT_NOT_FOUND"}"#,
        1.0,
    );
    assert_rose(
        &before,
        &after,
        r#"portfolio_tool_calls_total{tool="update_project",outcome="VALIDATION_FAILED"}"#,
        1.0,
    );
    assert_rose(
        &before,
        &after,
        r#"portfolio_tool_calls_total{tool="unknown",outcome="refused"}"#,
        1.0,
    );
    assert_rose(
        &before,
        &after,
        r#"portfolio_tool_duration_seconds_count{tool="get_project"}"#,
        4.0,
    );
    assert_rose(
        &before,
        &after,
        r#"portfolio_tool_duration_seconds_bucket{tool="get_project",le="+Inf"}"#,
        4.0,
    );
    assert!(
        at(
            &after,
            r#"portfolio_tool_duration_seconds_sum{tool="get_project"}"#
        ) > 0.0
    );
    for bound in ["0.001", "10"] {
        assert!(
            after.contains_key(&format!(
                r#"portfolio_tool_duration_seconds_bucket{{tool="get_project",le="{bound}"}}"#
            )),
            "{bound}"
        );
    }
    assert_rose(
        &before,
        &after,
        r#"portfolio_rest_answers_total{kind="project",from="none"}"#,
        1.0,
    );
    assert_rose(&before, &after, "portfolio_sse_sessions", 1.0);
    assert!(at(&after, "portfolio_http_connections") >= 2.0);
    assert!(
        (at(
            &after,
            concat!(
                "portfolio_build_info{version=\"",
                env!("CARGO_PKG_VERSION"),
                "\"}"
            )
        ) - 1.0)
            .abs()
            < f64::EPSILON
    );
    assert!(!after.keys().any(|series| series.contains("canary")));

    drop(session);
    wait_until("the session has ended", || {
        (at(&scrape(&server), "portfolio_sse_sessions") < 0.5).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_and_its_end_are_visible() {
    let store = Store::redis();
    create_sound(&*store.repository, &project_key("a")).await;
    let mut proxy = Proxy::start(store.server().port()).await;
    let server = HttpServer::start_with(&["--store".to_owned(), proxy.url()]);
    let (reads, open_breakers) = (
        r#"portfolio_breaker_open{breaker="reads"}"#,
        r#"portfolio_breaker_opened_total{breaker="reads"}"#,
    );
    let retries = r#"portfolio_store_retries_total{operation="get"}"#;
    let read = || tool_output(&server.call("get_project", &json!({ "id": "a" })));
    wait_until("there is a snapshot", || {
        scrape(&server)
            .get("portfolio_snapshot_age_seconds")
            .copied()
    });
    read();
    let before = scrape(&server);
    assert!(
        before.contains_key(reads) && before.contains_key(open_breakers),
        "a counter starts at 0"
    );
    assert!(
        at(
            &before,
            r#"portfolio_store_duration_seconds_count{operation="get"}"#
        ) >= 1.0
    );
    http::send(server.address, "GET", "/api/projects/a", &[], "");
    assert!(
        at(
            &scrape(&server),
            r#"portfolio_store_duration_seconds_count{operation="cached"}"#
        ) >= 1.0
    );

    proxy.set(Mode::Refuse).await;
    wait_until("the read breaker opens", || {
        read();
        (at(&scrape(&server), reads) > 0.5).then_some(())
    });

    let during = scrape(&server);
    assert!(at(&during, open_breakers) >= 1.0);
    assert!(
        at(&during, retries) > at(&before, retries),
        "there were no retries"
    );
    assert!(at(&during, "portfolio_snapshot_age_seconds") > 0.0);

    proxy.set(Mode::Pass).await;
    wait_until("the read breaker closes", || {
        read();
        (at(&scrape(&server), reads) < 0.5).then_some(())
    });
    let after = scrape(&server);
    for (series, value) in before
        .iter()
        .filter(|(series, _)| series.contains("_total") || series.contains("_count"))
    {
        assert!(
            after[series] >= *value,
            "{series} fell from {value} to {}",
            after[series]
        );
    }
}

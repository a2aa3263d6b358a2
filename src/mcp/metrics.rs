//! Metrics of tool calls.

use std::time::Duration;

/// Counts a call by its outcome: `ok`, `refused` or an error code. Labels are never taken from a
/// request.
pub(super) fn count_call(tool: &'static str, outcome: &'static str) {
    metrics::counter!("portfolio_tool_calls_total", "tool" => tool, "outcome" => outcome)
        .increment(1);
}

/// Records how long a call took.
pub(super) fn record_duration(tool: &'static str, duration: Duration) {
    metrics::histogram!("portfolio_tool_duration_seconds", "tool" => tool).record(duration);
}

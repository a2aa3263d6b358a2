//! Counts calls of tools.

use std::{borrow::Cow, time::Duration};

/// Counts a call by its outcome: `ok`, an error code, or `refused`. The labels are names of ours, never what a client sent.
pub(super) fn count_call(tool: &'static str, outcome: impl Into<Cow<'static, str>>) {
    let outcome: Cow<'static, str> = outcome.into();
    metrics::counter!("portfolio_tool_calls_total", "tool" => tool, "outcome" => outcome)
        .increment(1);
}

/// Records how long a call took.
pub(super) fn record_duration(tool: &'static str, duration: Duration) {
    metrics::histogram!("portfolio_tool_duration_seconds", "tool" => tool).record(duration);
}

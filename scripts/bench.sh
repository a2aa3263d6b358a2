#!/usr/bin/env bash
# Measures what a well-behaved client notices of badly behaved ones, on a temporary SQLite store.
#
#   scripts/bench.sh [PROGRAM]    default: target/release/portfolio-mcp, which is built if it does not exist
#
# It measures the latency of a client alone and beside 2,000 bad connections, half of them idle and half sending one byte at
# a time, and the server's memory. Then 500 clients make 100,000 calls with the same JSON-RPC ids, and each must get its own
# answers.
#
# The exit code is 1 if a client got another client's answer, or if the latency beside the bad connections (p99, median of
# the rounds) is more than twice the latency alone.
set -euo pipefail
cd "$(dirname "$0")/.."

program=${1:-${CARGO_TARGET_DIR:-target}/release/portfolio-mcp}
if [ ! -x "$program" ]; then
  cargo build --release --locked
fi
exec python3 scripts/bench.py "$program"

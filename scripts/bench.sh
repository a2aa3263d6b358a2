#!/usr/bin/env bash
# What a good client notices of bad ones. On a temporary SQLite store: its latency alone and beside 2,000 connections, half of
# them idle and half sending one byte at a time, with the server's memory; then 100,000 calls of 500 clients that all use the
# same JSON-RPC ids, each of which must get its own answers. Exit code 1 if an answer went astray, or if the latency beside
# them (p99, median of the rounds) is more than twice that alone.
#
#   scripts/bench.sh [PROGRAM]    target/release/portfolio-mcp if nothing is said; it is built when it is not there
set -euo pipefail
cd "$(dirname "$0")/.."

program=${1:-${CARGO_TARGET_DIR:-target}/release/portfolio-mcp}
if [ ! -x "$program" ]; then
  cargo build --release --locked
fi
exec python3 scripts/bench.py "$program"

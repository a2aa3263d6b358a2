//! The integration tests: one binary, because each one links the world again.
//!
//! Redis tests start a private server on a free port; `scripts/ensure-redis.sh` finds or fetches it. The suite runs on
//! another server with `REDIS_SERVER_BIN=/path/to/redis-server cargo test`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests and their helpers fail loudly; clippy only knows functions that are tests themselves"
)]

mod cli;
mod clients;
mod credentials;
mod doctor;
mod faults;
mod hostile;
mod house;
mod http;
mod metrics;
mod races;
mod repository;
mod rest;
mod secrets;
mod seeds;
mod support;
mod tls;
mod tools;
mod transport;

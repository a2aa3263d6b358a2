//! The integration tests, in one binary because each binary links everything again.
//!
//! Redis tests start a private server on a free port; `scripts/ensure-redis.sh` finds or fetches
//! it. The suite runs on another server with `REDIS_SERVER_BIN=/path/to/redis-server cargo test`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests and their helpers fail loudly, and their output is shown with a failure; clippy exempts only functions that are tests themselves"
)]

mod answers;
mod architecture;
mod audit;
mod authoring;
mod batch;
mod cli;
mod clients;
mod costs;
mod credentials;
mod doctor;
mod documents;
mod edits;
mod evals;
mod examples;
mod failover;
mod faults;
mod fixable_errors;
mod forms;
mod hostile;
mod house;
mod http;
mod import;
mod leftovers;
mod log;
mod manners;
mod metrics;
mod outside;
mod past;
mod pipes;
mod plan;
mod races;
mod repository;
mod rest;
mod secrets;
mod seeds;
mod settings;
mod site_url;
mod slow_network;
mod snapshot;
mod support;
mod tls;
mod tools;
mod toolsets;
mod transport;
mod undo;
#[cfg(unix)]
mod unwritable;
mod upgrade;
mod words;

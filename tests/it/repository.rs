//! The port's contract, function by function, on both stores.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test's helpers fail loudly, as tests do, and what they print is shown with a failure"
)]

mod audit;
mod commit;
mod read;
mod redis;
mod sqlite;

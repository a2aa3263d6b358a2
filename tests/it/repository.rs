//! The port's contract, function by function, on both stores.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's helpers fail loudly, as tests do")]

mod audit;
mod commit;
mod read;
mod redis;
mod sqlite;

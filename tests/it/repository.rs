//! The port's contract, function by function, on both stores.

mod audit;
mod commit;
mod read;
mod redis;
mod sqlite;

//! The port's contract, function by function, on both stores.

mod audit;
mod commit;
mod history_index;
mod read;
mod redis;
mod sqlite;

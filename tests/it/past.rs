//! The content of the past: what the log explains, and nothing else.

mod command;
mod limits;
mod model;
mod rest;
mod rules;
mod tool;

use portfolio_mcp::{clock, store::Commit};

use crate::support::wait_until;

/// Waits until what is written next has a later time. Redis has a clock of its own, which is the real
/// one; the tests' clock, which is the time in other stores, is far behind it.
fn wait_for_next_millisecond(commit: &Commit) {
    let time = commit.entries[0].timestamp().unwrap().millis();
    wait_until("the next millisecond", || {
        (clock().millis() > time).then_some(())
    });
}

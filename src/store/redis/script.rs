//! The script that writes a commit.

use redis::Script;

/// The text of the script.
pub(super) const COMMIT_SCRIPT: &str = concat!(
    include_str!("history_index/ends.lua"),
    include_str!("commit.lua")
);

/// The script, with the hash that Redis knows it by.
pub(super) fn commit() -> Script {
    Script::new(COMMIT_SCRIPT)
}

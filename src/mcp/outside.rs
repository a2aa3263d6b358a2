//! What the tools say about a document that was changed outside this server.

use crate::domain::{DocumentKey, OutsideChange, Timestamp};

/// About a document that is shown as it was found.
pub(super) fn shown(after: Timestamp) -> String {
    format!(
        "changed outside this server after {after}: the audit log does not say what was changed, or by whom. The next change through this server first records what was found, in an entry with the action `adopt`"
    )
}

/// About a document that was found so and is changed now.
pub(super) fn recorded(after: Timestamp) -> String {
    format!(
        "before this change, the document was found changed outside this server after {after}. That is recorded in an entry of its own with the action `adopt`, which get_audit_log shows"
    )
}

/// Why a document does not have the expected version.
pub(super) fn conflicting(after: Timestamp) -> String {
    format!("It was changed outside this server after {after}")
}

/// About a document of a list.
pub(super) fn listed(change: &OutsideChange) -> String {
    let (key, after) = (&change.key, change.after);
    if change.is_deleted {
        format!("{key} was deleted outside this server after {after}")
    } else {
        format!("{key} was changed outside this server after {after}")
    }
}

/// About a document that is gone.
pub(super) fn deleted(key: &DocumentKey, after: Timestamp) -> String {
    format!(
        "there is no {key} any more: it was deleted outside this server after {after}; get_audit_log with its entityId shows what it was"
    )
}

//! What differs between two states of a document, however many writes lie between them.

use super::{
    diff::{self, FieldChange},
    record::Record,
    undo::state::differences,
};

/// Every difference between two states of a document, as an entry of the log would record it, but
/// for what the server sets by itself: a document that went back to what it was does not differ.
#[must_use]
pub fn net_changes(before: Option<&Record>, after: Option<&Record>) -> Vec<FieldChange> {
    match (before, after) {
        (Some(before), Some(after)) if before.version() == after.version() => Vec::new(),
        (Some(before), Some(after)) => {
            let state = |record: &Record| Some(record.json().clone());
            differences(&state(before), &state(after))
        }
        (Some(before), None) => diff::deletion(before.document()),
        (None, Some(after)) => diff::creation(after.document()),
        (None, None) => Vec::new(),
    }
}

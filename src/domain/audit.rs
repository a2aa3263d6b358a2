//! The audit log: entries as they are written, entries as they are found, and queries.

mod entry;
mod page;
mod query;
mod stored;

pub(super) use entry::entry_checksum;
pub use entry::{
    Action, AuditEntry, ENTRY_PREFIX_FORMAT, ENTRY_PREFIX_LEN, EntryMetadata, Origin,
    PlanReference, Source, entry_text, numbered_beginning,
};
pub use page::{MAX_SCANNED_BYTES, MAX_SCANNED_ENTRIES, PageBuilder};
pub use query::{AuditPage, AuditQuery, AuditStats, LookedAt, Lookup};
pub use stored::{AuditPosition, Category, DATED_SCORES, Slot, StoredEntry};

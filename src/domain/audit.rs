//! The audit log: what is written into it, what is found in it, and questions to it.

mod entry;
mod query;
mod stored;

pub use entry::{
    Action, AuditEntry, ENTRY_PREFIX_FORMAT, ENTRY_PREFIX_LEN, EntryMetadata, Origin, Source,
    entry_text,
};
pub use query::{AuditPage, AuditQuery, AuditStats};
pub use stored::{AuditPosition, Category, StoredEntry};

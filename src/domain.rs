//! The vocabulary: documents, patches, changes and the audit log.
//!
//! Pure values and functions. No IO, no clock, no logging below this line.

pub mod audit;
pub mod change;
pub mod depth;
pub mod document;
pub mod list;
pub mod patch;
pub mod project;
mod publication;
pub mod resource;
pub mod rules;
pub mod text;
mod timestamp;

pub use audit::{AuditPage, AuditQuery, AuditStats, Origin, Source, StoredEntry};
pub use change::{Change, Circumstances, Operation, Update};
pub use depth::{TooDeep, check_depth};
pub use document::{Document, DocumentKey, Kind, Record, Version, Violation};
pub use list::{ListPage, ListQuery};
pub use patch::{FieldChange, Patch};
pub use project::Project;
pub use publication::Publication;
pub use resource::Resource;
pub use timestamp::Timestamp;

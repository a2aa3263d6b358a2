//! The vocabulary: documents, patches, changes and the audit log.
//!
//! Pure values and functions. No IO, no clock, no logging below this line.

mod api_path;
pub mod audit;
pub mod change;
pub mod depth;
pub mod document;
pub mod list;
pub mod patch;
pub mod project;
pub mod resource;
pub mod rules;
pub mod text;
mod timestamp;

pub use api_path::ApiPath;
pub use audit::{AuditPage, AuditQuery, AuditStats, Origin, Source, StoredEntry};
pub use change::{Change, Operation, Update, WriteContext};
pub use depth::{TooDeep, check_depth};
pub use document::{Document, DocumentKey, Kind, Record, Version, Violation};
pub use list::{ListPage, ListQuery};
pub use patch::{FieldChange, Patch};
pub use project::Project;
pub use resource::Resource;
pub use timestamp::Timestamp;

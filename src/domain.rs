//! The vocabulary: documents, patches, changes and the audit log.
//!
//! Pure values and functions. No IO, no clock, no logging below this line.

mod api_path;
pub mod audit;
mod change;
pub mod content_type;
mod current;
pub mod depth;
pub mod diff;
mod edit;
mod field_path;
mod history;
pub mod json;
mod kind;
mod last_known;
pub mod list;
pub mod number;
mod operation;
mod outside;
mod page;
pub mod patch;
mod project;
mod record;
mod resource;
pub mod rules;
pub mod search;
pub mod similar;
pub mod text;
mod timestamp;
mod undo;
mod unknown_field;
mod version;
mod violation;

pub use api_path::{ApiPath, CachedResponse, StoreState};
pub use audit::{AuditPage, AuditQuery, AuditStats, Origin, Source, StoredEntry};
pub use change::{Change, Update, WriteContext};
pub use content_type::Document;
pub use current::Current;
pub use depth::{TooDeep, check_depth};
pub use diff::FieldChange;
pub use edit::{Edit, MAX_EDITS, Op, edit_to_take_back};
pub use history::History;
pub use kind::{DocumentKey, Kind, is_slug};
pub use last_known::{EntryChain, LastKnown};
pub use list::ListQuery;
pub use operation::Operation;
pub use outside::{FoundDocument, OutsideChange, changed_outside};
pub use page::ListPage;
pub use patch::Patch;
pub use project::Project;
pub use record::Record;
pub use resource::Resource;
pub use timestamp::Timestamp;
pub use undo::{Creations, Kept, Timeline, Undo, UndoCounts};
pub use version::{Version, sha256_hex};
pub use violation::Violation;

//! A page of documents.

use super::{list::ListPosition, outside::OutsideChange, record::Record};

/// A page of documents.
#[derive(Debug, Clone, Default)]
pub struct ListPage {
    /// The documents, in the list's order.
    pub records: Vec<Record>,
    /// How many match, on all pages.
    pub total: usize,
    /// The position of the last one, when more follow.
    pub next: Option<ListPosition>,
    /// One sentence for each document that is listed but cannot be read.
    pub unreadable: Vec<String>,
    /// The documents of this kind, on the page or not, that were changed outside this server, as far
    /// as that is known without reading them again. Those that were deleted may be missing, unless
    /// the query asks for them.
    pub changed_outside: Vec<OutsideChange>,
}

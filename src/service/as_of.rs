//! Reading the content of the past: what is stored now, and back from there through the log.
//!
//! Documents and log are read one after the other, while others write. What a document was when it
//! was read is found among its entries by its version, so every document goes back from the right
//! one, and all of them to the same point in the log.

use std::collections::BTreeMap;

use super::{ContentService, Error, read::in_time};
use crate::{
    deadline::Deadline,
    domain::{
        DocumentKey, HistoryGap, Kind, ListPage, ListQuery, PastState, Record, list::IndexEntry,
    },
    store::StoreError,
};

mod compare;
mod point;
mod rewind;

pub use compare::{Compared, Difference};
pub use point::LogPoint;

/// A page of the documents of the past.
#[derive(Debug, Default)]
pub struct PastPage {
    /// The documents as they were.
    pub page: ListPage,
    /// The documents of this kind that are left out, because the log does not say what they were.
    pub unexplained: Vec<(DocumentKey, HistoryGap)>,
}

impl ContentService {
    /// One document as it was.
    pub async fn get_as_of(
        &self,
        key: DocumentKey,
        point: &LogPoint,
        deadline: Deadline,
    ) -> Result<Record, Error> {
        self.note_use();
        let found = in_time(deadline.run(self.store.get(&key)).await)?;
        let is_stored = found.record.is_some();
        let rewound = self.rewind_one(&key, found, point, deadline).await?;
        match rewound.state {
            PastState::Document(record) => Ok(record),
            PastState::Absent | PastState::Unexplained(_) if !is_stored && !rewound.has_entries => {
                Err(self.not_found(key, None, deadline).await)
            }
            PastState::Absent => Err(Error::NotThen { key, gap: None }),
            PastState::Unexplained(gap) => Err(Error::NotThen {
                key,
                gap: Some(gap),
            }),
        }
    }

    /// A page of the documents of a kind as they were.
    pub async fn list_as_of(
        &self,
        kind: Kind,
        query: &ListQuery,
        point: &LogPoint,
        deadline: Deadline,
    ) -> Result<PastPage, Error> {
        self.note_use();
        let mut contents = self.contents_at(&[kind], &[point], deadline).await?;
        let content = contents.pop().unwrap_or_default();
        let query = query.clone();
        // Searching thousands of documents takes longer than other calls should wait.
        let page = tokio::task::spawn_blocking(move || page_of(&content.documents, &query));
        let page = page.await.map_err(|_| StoreError::panicked())?;
        Ok(PastPage {
            page: ListPage {
                unreadable: content.unreadable,
                ..page.page
            },
            ..page
        })
    }
}

/// The page that a query asks for, out of all documents of a kind.
fn page_of(documents: &BTreeMap<DocumentKey, PastState>, query: &ListQuery) -> PastPage {
    let (mut records, mut unexplained) = (BTreeMap::new(), Vec::new());
    for (key, state) in documents {
        match state {
            PastState::Document(record) => {
                records.insert(key.id.as_str(), record);
            }
            PastState::Absent => {}
            PastState::Unexplained(gap) => unexplained.push((key.clone(), *gap)),
        }
    }
    let entries = records.values().map(|record| record.index_entry());
    let page = query.page::<&IndexEntry>(entries);
    let positions = page.positions.iter();
    PastPage {
        page: ListPage {
            records: positions
                .filter_map(|position| records.get(position.id.as_str()))
                .map(|record| Record::clone(record))
                .collect(),
            total: page.total,
            next: page.next,
            ..ListPage::default()
        },
        unexplained,
    }
}

//! Reads documents, and the entries that lead back from them.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};

use super::point::{LogPoint, MAX_ENTRIES, entries_passed, first};
use crate::{
    deadline::Deadline,
    domain::{
        AuditQuery, DocumentKey, FoundDocument, HistoryGap, Kind, ListQuery, PastState, Rewind,
        StoredEntry,
    },
    service::{
        ContentService, Error,
        read::{in_time, list_snapshot},
    },
    store::StoreError,
};

/// Entries that are read at once, and how much text of them.
const PAGE_ENTRIES: usize = 500;
const PAGE_BYTES: usize = 2 * 1024 * 1024;
/// How many documents' histories are read at once, so that a distant store takes few round trips.
const CONCURRENT_HISTORIES: usize = 16;

/// One document at a point.
pub(super) struct Rewound {
    pub(super) state: PastState,
    /// Whether the log has any entry of it.
    pub(super) has_entries: bool,
}

/// All documents of some kinds at a point.
#[derive(Debug, Default)]
pub(super) struct PastContent {
    pub(super) documents: BTreeMap<DocumentKey, PastState>,
    /// One sentence for each document that cannot be read now.
    pub(super) unreadable: Vec<String>,
}

/// What is stored now.
#[derive(Default)]
struct Stored {
    documents: BTreeMap<DocumentKey, FoundDocument>,
    unreadable: Vec<String>,
}

/// The documents that were written since a point, on their way back to it.
#[derive(Clone, Default)]
struct Rewinds {
    of_written: BTreeMap<DocumentKey, Rewind>,
    /// The number of the last entry that was gone back over.
    seq: Option<u64>,
    /// Whether numbers are missing: then other documents may have been written too.
    has_gap: bool,
}

impl ContentService {
    /// A document at a point; `found` was read before.
    pub(super) async fn rewind_one(
        &self,
        key: &DocumentKey,
        found: FoundDocument,
        point: &LogPoint,
        deadline: Deadline,
    ) -> Result<Rewound, Error> {
        let mut query = AuditQuery {
            since: point.since(),
            max_bytes: PAGE_BYTES,
            ..AuditQuery::of(key, PAGE_ENTRIES)
        };
        let _permit = self.log_permit(&query, deadline).await?;
        let mut passed = 0;
        let earlier = self.entry_before(key, point, &mut passed, deadline).await?;
        let mut rewind = Rewind::from_stored(key.clone(), found);
        let mut count = 0;
        'pages: loop {
            let page = self.log_page(&query, deadline).await?;
            for entry in &page.entries {
                if earlier.as_ref() == Some(entry) {
                    break 'pages;
                }
                count += 1;
                check_count(count, point)?;
                rewind.go_back_over(entry);
            }
            passed += entries_passed(&page);
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
            check_passed(passed, point)?;
        }
        let has_entries = count > 0 || earlier.is_some();
        Ok(Rewound {
            state: finish(rewind, earlier.as_ref(), point),
            has_entries,
        })
    }

    /// All documents of these kinds at each of the points, the newest of which comes first.
    pub(super) async fn contents_at(
        &self,
        kinds: &[Kind],
        points: &[&LogPoint],
        deadline: Deadline,
    ) -> Result<Vec<PastContent>, Error> {
        let _permit = self.log_permit(&AuditQuery::default(), deadline).await?;
        let stored = in_time(deadline.run(self.stored_documents(kinds)).await)?;
        let rewinds = self.rewind_all(kinds, &stored, points, deadline).await?;
        let mut contents = Vec::new();
        for (point, rewinds) in points.iter().zip(rewinds) {
            contents.push(self.content_at(&stored, rewinds, point, deadline).await?);
        }
        Ok(contents)
    }

    async fn stored_documents(&self, kinds: &[Kind]) -> Result<Stored, StoreError> {
        let query = ListQuery {
            limit: usize::MAX,
            with_deleted_outside: true,
            ..ListQuery::default()
        };
        let mut stored = Stored::default();
        for kind in kinds {
            let page = match &self.snapshot {
                Some(cache) => list_snapshot(cache.current().await?, *kind, query.clone()).await?,
                None => self.store.list(*kind, &query).await?,
            };
            for record in page.records {
                let found = stored.documents.entry(record.key().clone()).or_default();
                found.record = Some(record);
            }
            for change in page.changed_outside {
                let found = stored.documents.entry(change.key).or_default();
                found.changed_outside = Some(change.after);
            }
            stored.unreadable.extend(page.unreadable);
        }
        Ok(stored)
    }

    /// Takes the documents back to each of the points.
    async fn rewind_all(
        &self,
        kinds: &[Kind],
        stored: &Stored,
        points: &[&LogPoint],
        deadline: Deadline,
    ) -> Result<Vec<Rewinds>, Error> {
        let (mut rewinds, mut reached) = (Rewinds::default(), Vec::new());
        let mut query = AuditQuery {
            since: points.last().and_then(|point| point.since()),
            limit: PAGE_ENTRIES,
            max_bytes: PAGE_BYTES,
            ..AuditQuery::default()
        };
        let mut count = 0;
        loop {
            let page = self.log_page(&query, deadline).await?;
            for entry in &page.entries {
                reach(points, Some(entry), &mut rewinds, &mut reached)?;
                let Some(point) = points.get(reached.len()) else {
                    return Ok(reached);
                };
                count += 1;
                check_count(count, point)?;
                rewinds.go_back_over(entry, kinds, stored);
            }
            query.after = page.next;
            if query.after.is_none() {
                reach(points, None, &mut rewinds, &mut reached)?;
                return Ok(reached);
            }
        }
    }

    async fn content_at(
        &self,
        stored: &Stored,
        rewinds: Rewinds,
        point: &LogPoint,
        deadline: Deadline,
    ) -> Result<PastContent, Error> {
        let (mut unwritten, mut documents) = (Vec::new(), BTreeMap::new());
        for (key, found) in &stored.documents {
            if !rewinds.of_written.contains_key(key) {
                unwritten.push((key, Rewind::from_stored(key.clone(), found.clone())));
            }
        }
        let mut rewound: Vec<(&DocumentKey, Rewind)> = Vec::new();
        if rewinds.has_gap {
            rewound.append(&mut unwritten);
        }
        for (key, rewind) in unwritten {
            documents.insert(key.clone(), finish(rewind, None, point));
        }
        let written = rewinds.of_written.iter();
        rewound.extend(written.map(|(key, rewind)| (key, rewind.clone())));
        let mut finished = Vec::new();
        for (key, rewind) in rewound {
            finished.push(self.finish_at(key, rewind, point, deadline));
        }
        let finished: Vec<_> = stream::iter(finished)
            .buffered(CONCURRENT_HISTORIES)
            .try_collect()
            .await?;
        documents.extend(finished);
        Ok(PastContent {
            documents,
            unreadable: stored.unreadable.clone(),
        })
    }

    async fn finish_at(
        &self,
        key: &DocumentKey,
        rewind: Rewind,
        point: &LogPoint,
        deadline: Deadline,
    ) -> Result<(DocumentKey, PastState), Error> {
        let earlier = self.entry_before(key, point, &mut 0, deadline).await?;
        Ok((key.clone(), finish(rewind, earlier.as_ref(), point)))
    }

    /// The last entry of a document at or before a point; `passed` counts the entries of others that
    /// were looked at.
    async fn entry_before(
        &self,
        key: &DocumentKey,
        point: &LogPoint,
        passed: &mut usize,
        deadline: Deadline,
    ) -> Result<Option<StoredEntry>, Error> {
        if point.is_of(key) {
            let entry = point.entry().filter(|entry| !entry.is_read());
            if let Some(entry) = entry {
                return Ok(Some(entry.clone()));
            }
        }
        let mut query = AuditQuery {
            after: point.position(),
            ..AuditQuery::of(key, 1)
        };
        while query.after.is_some() {
            let mut page = self.log_page(&query, deadline).await?;
            query.after = page.next.take();
            *passed += entries_passed(&page);
            if let Some((_, entry)) = first(page)
                && !entry.is_read()
            {
                return Ok(Some(entry));
            }
            if query.after.is_some() {
                check_passed(*passed, point)?;
            }
        }
        Ok(None)
    }
}

impl Rewinds {
    fn go_back_over(&mut self, entry: &StoredEntry, kinds: &[Kind], stored: &Stored) {
        self.count(entry);
        let Some(key) = entry.key().filter(|key| kinds.contains(&key.kind)) else {
            return;
        };
        let rewind = self.of_written.entry(key).or_insert_with_key(|key| {
            let found = stored.documents.get(key).cloned();
            Rewind::from_stored(key.clone(), found.unwrap_or_default())
        });
        rewind.go_back_over(entry);
    }

    /// Writes have consecutive numbers. Entries of older programs have none.
    fn count(&mut self, entry: &StoredEntry) {
        if let Some(seq) = entry.seq() {
            self.has_gap |= self
                .seq
                .is_some_and(|later| seq.checked_add(1) != Some(later));
            self.seq = Some(seq);
        }
    }
}

/// Keeps the documents for each point that is reached before `entry` is gone back over; all points
/// are, at the end of the log.
fn reach(
    points: &[&LogPoint],
    entry: Option<&StoredEntry>,
    rewinds: &mut Rewinds,
    reached: &mut Vec<Rewinds>,
) -> Result<(), Error> {
    let is_at = |point: &LogPoint| entry.is_none() || point.entry() == entry;
    while let Some(point) = points.get(reached.len()) {
        if !is_at(point) {
            break;
        }
        if let Some(entry) = entry {
            let mut at = rewinds.clone();
            at.count(entry);
            reached.push(at);
        } else {
            reached.push(rewinds.clone());
        }
    }
    match points.get(reached.len()..) {
        Some([later, rest @ ..]) if rest.iter().any(|point| is_at(point)) => {
            Err(later.refused("minimum", "this is earlier than `since`"))
        }
        _ => Ok(()),
    }
}

fn check_count(count: usize, point: &LogPoint) -> Result<(), Error> {
    if count <= MAX_ENTRIES {
        return Ok(());
    }
    let message = format!(
        "more than {MAX_ENTRIES} changes were made since; `portfolio-mcp export FOLDER --as-of TIME` goes back further"
    );
    Err(point.refused("maximum", message))
}

fn check_passed(passed: usize, point: &LogPoint) -> Result<(), Error> {
    if passed < MAX_ENTRIES {
        return Ok(());
    }
    let message = format!(
        "the history index cannot be used now, and more than {MAX_ENTRIES} entries of the audit log would have to be looked through; `portfolio-mcp export FOLDER --as-of TIME` goes back further"
    );
    Err(point.refused("maximum", message))
}

/// What a document was at a point. Before the log begins, only a document that was created since
/// then is known not to have been there, and only if the log has every write.
fn finish(rewind: Rewind, earlier: Option<&StoredEntry>, point: &LogPoint) -> PastState {
    let state = rewind.finish(earlier);
    let begin = point.log_begin;
    match state {
        PastState::Document(_) | PastState::Absent
            if point.last.is_none()
                && !(begin.is_first_write && matches!(state, PastState::Absent)) =>
        {
            PastState::Unexplained(HistoryGap {
                known_from: begin.time,
                changed_outside: None,
            })
        }
        state => state,
    }
}

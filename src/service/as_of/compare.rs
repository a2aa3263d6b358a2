//! What differs between the content of two points in time.

use std::collections::BTreeMap;

use super::{point::LogPoint, rewind::PastContent};
use crate::{
    deadline::Deadline,
    domain::{DocumentKey, FieldChange, HistoryGap, Kind, PastState, Record, net_changes},
    service::{ContentService, Error},
};

/// How the content differs.
#[derive(Debug, Default)]
pub struct Compared {
    /// The documents that differ, by kind and id.
    pub differences: Vec<Difference>,
    /// The documents that the log does not explain at one of the points.
    pub unexplained: Vec<(DocumentKey, HistoryGap)>,
    /// One sentence for each document that cannot be read now.
    pub unreadable: Vec<String>,
}

/// A document that differs.
#[derive(Debug)]
pub struct Difference {
    /// Which document.
    pub key: DocumentKey,
    /// As it was at the earlier point.
    pub before: Option<Record>,
    /// As it was at the later one.
    pub after: Option<Record>,
    /// Every difference but for what the server sets by itself, as an entry of the log would record
    /// it.
    pub changes: Vec<FieldChange>,
}

impl ContentService {
    /// What differs in the content of these kinds between two points.
    pub async fn compare(
        &self,
        kinds: &[Kind],
        since: &LogPoint,
        until: &LogPoint,
        deadline: Deadline,
    ) -> Result<Compared, Error> {
        self.note_use();
        let contents = self.contents_at(kinds, &[until, since], deadline).await?;
        let [after, before] = <[PastContent; 2]>::try_from(contents).unwrap_or_default();
        Ok(compared(before, after))
    }
}

fn compared(before: PastContent, mut after: PastContent) -> Compared {
    let mut compared = Compared {
        unreadable: before.unreadable,
        ..Compared::default()
    };
    let mut both: BTreeMap<DocumentKey, [PastState; 2]> = BTreeMap::new();
    for (key, before) in before.documents {
        let after = after.documents.remove(&key).unwrap_or(PastState::Absent);
        both.insert(key, [before, after]);
    }
    for (key, after) in after.documents {
        both.insert(key, [PastState::Absent, after]);
    }
    for (key, states) in both {
        let (before, after) = match states {
            [PastState::Unexplained(gap), _] | [_, PastState::Unexplained(gap)] => {
                compared.unexplained.push((key, gap));
                continue;
            }
            [before, after] => (document(before), document(after)),
        };
        compared
            .differences
            .extend(Difference::between(key, before, after));
    }
    compared
}

impl Difference {
    /// `None` if nothing differs.
    fn between(key: DocumentKey, before: Option<Record>, after: Option<Record>) -> Option<Self> {
        let changes = net_changes(before.as_ref(), after.as_ref());
        (!changes.is_empty()).then_some(Self {
            key,
            before,
            after,
            changes,
        })
    }
}

fn document(state: PastState) -> Option<Record> {
    match state {
        PastState::Document(record) => Some(record),
        PastState::Absent | PastState::Unexplained(_) => None,
    }
}

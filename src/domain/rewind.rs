//! A document as it was: back from what is stored now, through its entries, newest first.
//!
//! Each entry has to lead to the version that was reached. Where one does not, nobody knows what the
//! document was before it: an older program or another log wrote the entry, entries are missing, or
//! the document was changed beside the log.

use std::fmt;

use serde_json::Value;

use super::{
    audit::StoredEntry,
    kind::DocumentKey,
    outside::FoundDocument,
    record::Record,
    timestamp::Timestamp,
    undo::{state::State, step::Step},
    version::Version,
};

/// What a document was at a point in the past.
#[derive(Debug, Clone)]
pub enum PastState {
    /// This document, with the version of then.
    Document(Record),
    /// There was no document.
    Absent,
    /// The log does not say it.
    Unexplained(HistoryGap),
}

/// Why the log does not say what a document was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HistoryGap {
    /// From this time on it is known.
    pub known_from: Option<Timestamp>,
    /// The time of its newest entry, if the document was changed outside this server after that.
    pub changed_outside: Option<Timestamp>,
}

impl fmt::Display for HistoryGap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.changed_outside, self.known_from) {
            (Some(after), _) => write!(
                formatter,
                "it was changed outside this server after {after}, and the audit log does not say when"
            ),
            (None, Some(from)) => write!(formatter, "the audit log explains it from {from} on"),
            (None, None) => formatter.write_str("the audit log does not explain it"),
        }
    }
}

/// A document on the way back through its entries.
#[derive(Debug, Clone)]
pub struct Rewind {
    key: DocumentKey,
    /// As it was read.
    record: Option<Record>,
    state: State,
    /// The version of `state`.
    version: Option<String>,
    progress: Progress,
    /// The time of the last entry that was gone back over.
    reverted: Option<Timestamp>,
}

/// How far the way back has come.
#[derive(Debug, Clone)]
enum Progress {
    /// No entry has led to the document as it was read.
    AsRead,
    /// All entries so far were written after the document was read; the oldest of them was made from
    /// this version.
    BeforeReading(Option<String>),
    /// The document is the one before the last entry.
    Back,
    /// What it was before is not known.
    Lost(HistoryGap),
}

impl Rewind {
    /// Begins with a document as it is stored.
    #[must_use]
    pub fn from_stored(key: DocumentKey, found: FoundDocument) -> Self {
        let version = found.record.as_ref().map(Record::version);
        let progress = match found.changed_outside {
            None => Progress::AsRead,
            changed_outside => Progress::Lost(HistoryGap {
                known_from: None,
                changed_outside,
            }),
        };
        Self {
            key,
            version: version.map(|version| version.as_str().to_owned()),
            state: found.record.as_ref().map(|record| record.json().clone()),
            record: found.record,
            progress,
            reverted: None,
        }
    }

    /// Goes back over the next entry of the document.
    ///
    /// The log is read after the document, so its newest entries may be newer than the document.
    pub fn go_back_over(&mut self, entry: &StoredEntry) {
        if matches!(self.progress, Progress::Lost(_)) || entry.is_read() {
            return;
        }
        let Some(step) = Step::of(entry) else {
            let known_from = match self.progress {
                Progress::AsRead | Progress::Back => entry.timestamp(),
                Progress::BeforeReading(_) | Progress::Lost(_) => None,
            };
            return self.lose(known_from);
        };
        if step.after != self.version.as_deref() {
            match self.progress {
                Progress::AsRead | Progress::BeforeReading(_) => {
                    let before = step.before.map(ToOwned::to_owned);
                    self.progress = Progress::BeforeReading(before);
                }
                Progress::Back | Progress::Lost(_) => self.lose(self.reverted),
            }
            return;
        }
        if !step.is_known() || !step.leads_to(&self.state) {
            return self.lose(entry.timestamp());
        }
        step.revert(&mut self.state);
        self.version = step.before.map(ToOwned::to_owned);
        self.progress = Progress::Back;
        self.reverted = entry.timestamp();
    }

    /// What the document was before the entries that were gone back over. `earlier` is the entry
    /// before those, if there is one: what it left has to be what was reached.
    #[must_use]
    pub fn finish(self, earlier: Option<&StoredEntry>) -> PastState {
        let earlier = earlier.and_then(Step::of);
        let is_explained = match (&self.progress, earlier) {
            (Progress::Lost(gap), _) => return PastState::Unexplained(*gap),
            (_, Some(earlier)) => earlier.after == self.version.as_deref(),
            (Progress::BeforeReading(before), None) => *before == self.version,
            (Progress::AsRead | Progress::Back, None) => true,
        };
        if !is_explained {
            return PastState::Unexplained(HistoryGap {
                known_from: self.reverted,
                changed_outside: None,
            });
        }
        match (self.progress, self.record) {
            (Progress::Back, _) => past(self.key, self.state, self.version.as_deref()),
            (_, Some(record)) => PastState::Document(record),
            (_, None) => PastState::Absent,
        }
    }

    fn lose(&mut self, known_from: Option<Timestamp>) {
        self.progress = Progress::Lost(HistoryGap {
            known_from,
            changed_outside: None,
        });
    }
}

fn past(key: DocumentKey, state: State, version: Option<&str>) -> PastState {
    match (state, version) {
        (Some(Value::Object(document)), Some(version)) => {
            let version = Version::of_checksum(version);
            PastState::Document(Record::past(key, document, version))
        }
        _ => PastState::Absent,
    }
}

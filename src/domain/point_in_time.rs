//! A point in the past, as callers name it.

use super::timestamp::Timestamp;

/// A point in the past. The content of then is what all writes up to it, itself included, had led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PointInTime {
    /// A time.
    Time(Timestamp),
    /// The write with this audit id.
    Entry(String),
}

impl PointInTime {
    /// What is not an RFC 3339 time is an audit id.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match Timestamp::parse(text) {
            Some(time) => Self::Time(time),
            None => Self::Entry(text.to_owned()),
        }
    }
}

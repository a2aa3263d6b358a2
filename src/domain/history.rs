//! What identifies the history of a store: all of its writes, up to the newest one.
//!
//! Numbers do not: after a fail-over that lost a write, the next write has its number. So each write
//! is mixed into what identified the history before it, and two histories that ever differed differ
//! for good. That also proves, without reading anything, that a history goes on with certain writes.

use serde::{Deserialize, Serialize};

use super::audit::StoredEntry;

/// The factor of the mixing: odd, so that different values stay different; and small enough for the
/// exact integers of Lua's numbers.
const FACTOR: u64 = 1_000_003;
const MODULUS: u64 = 1 << 32;

/// Numbers of writes are exact in Lua and in JavaScript below this.
const MAX_SEQ: u64 = 1 << 53;

/// Identifies a history; empty before the first write.
///
/// The text is `MILLIS|SEQ|OPERATION|MIX` of the newest entry. The commit script writes the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History(String);

impl History {
    /// Reads what a store holds. Any text identifies a history, also one of an older version.
    #[must_use]
    pub fn parse(text: String) -> Self {
        Self(text)
    }

    /// As it is stored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The history after one more entry; `None` if this program did not write the entry.
    #[must_use]
    pub fn followed_by(&self, entry: &StoredEntry) -> Option<Self> {
        let (millis, seq) = (entry.timestamp()?.millis(), entry.seq()?);
        let operation = entry.operation()?;
        let part = |range| u64::from_str_radix(operation.get(range)?, 16).ok();
        // The time too: the same operation may be repeated after a fail-over that lost it.
        let values = [
            u64::try_from(millis).ok()? % MODULUS,
            part(0..8)?,
            part(8..16)?,
        ];
        let mixed = values.iter().fold(self.mixed(), |mixed, value| {
            (mixed * FACTOR + value) % MODULUS
        });
        Some(Self(format!("{millis}|{seq}|{operation}|{mixed}")))
    }

    /// The number of its newest write; 0 if it is not known.
    #[must_use]
    pub fn seq(&self) -> u64 {
        let seq = self.0.split('|').nth(1);
        seq.and_then(|seq| seq.parse().ok())
            .filter(|seq| *seq < MAX_SEQ)
            .unwrap_or_default()
    }

    /// The last of the four parts; 0 for any other text.
    fn mixed(&self) -> u64 {
        match self.0.split('|').collect::<Vec<_>>().as_slice() {
            [_, _, _, mixed] => mixed.parse::<u32>().map_or(0, u64::from),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: u64, operation: &str) -> StoredEntry {
        StoredEntry::parse(format!(
            r#"{{"seq":{seq:>16},"timestamp":"2026-01-01T00:00:00.001Z","metadata":{{"operation":"{operation}"}}}}"#
        ))
    }

    #[test]
    fn a_lost_write_shows_in_every_later_history() {
        let (lost, kept, next) = (
            entry(1, "0123456789abcdef01"),
            entry(1, "0123456789abcdee01"),
            entry(2, "aaaaaaaabbbbbbbbcc"),
        );
        let after = |entries: [&StoredEntry; 2]| {
            entries
                .into_iter()
                .fold(History::default(), |history, entry| {
                    history.followed_by(entry).unwrap()
                })
        };

        let history = after([&kept, &next]);

        assert_ne!(history, after([&lost, &next]));
        assert_eq!(history, after([&kept, &next]));
        assert!(
            history
                .as_str()
                .starts_with("1767225600001|2|aaaaaaaabbbbbbbbcc|"),
            "{history:?}"
        );
    }

    #[test]
    fn entries_of_other_programs_do_not_continue_a_history() {
        for foreign in ["{}", r#"{"seq":1}"#, "not JSON"] {
            let entry = StoredEntry::parse(foreign.to_owned());
            assert_eq!(History::default().followed_by(&entry), None, "{foreign}");
        }
        assert_eq!(History::default().followed_by(&entry(1, "short")), None);
    }
}

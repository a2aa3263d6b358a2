//! An audit entry as it is found in the log, by whichever program it was written.
//!
//! Such an entry may be older than our type, so it stays JSON with typed getters.

use std::{ops::RangeInclusive, sync::OnceLock};

use serde_json::{Map, Value};

use super::entry::{entry_checksum, entry_seq};
use crate::domain::{
    diff::FieldChange,
    json::{Repairs, parse_object},
    kind::{DocumentKey, Kind},
    number::canonical_text,
    timestamp::Timestamp,
    version::sha256_hex,
};

/// An entry of the log, by whichever program it was written.
#[derive(Debug, Clone)]
pub struct StoredEntry {
    text: String,
    json: OnceLock<(Map<String, Value>, Repairs)>,
}

/// Entries are equal if their stored text is.
impl PartialEq for StoredEntry {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl StoredEntry {
    /// Reads a stored entry; one that is not a JSON object is shown as `{ "unreadable": … }`,
    /// because nothing is dropped from the log.
    #[must_use]
    pub fn parse(text: String) -> Self {
        Self {
            text,
            json: OnceLock::new(),
        }
    }

    /// The stored text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The entry as JSON.
    #[must_use]
    pub fn json(&self) -> &Map<String, Value> {
        &self.parsed().0
    }

    /// What is stored differently from how it is read.
    #[must_use]
    pub fn repairs(&self) -> &Repairs {
        &self.parsed().1
    }

    fn parsed(&self) -> &(Map<String, Value>, Repairs) {
        self.json.get_or_init(|| parsed(&self.text))
    }

    /// The entry as JSON, given away.
    #[must_use]
    pub fn into_json(self) -> Map<String, Value> {
        let json = self.json.into_inner();
        json.unwrap_or_else(|| parsed(&self.text)).0
    }

    /// The value of a member that is a string.
    #[must_use]
    pub fn text_of(&self, member: &str) -> Option<&str> {
        self.json().get(member).and_then(Value::as_str)
    }

    /// What it holds about where the write came from, such as `actor`; older programs wrote that
    /// beside the other members.
    #[must_use]
    pub fn origin(&self, member: &str) -> Option<&Value> {
        let json = self.json();
        let metadata = json.get("metadata").and_then(|it| it.get(member));
        metadata.or_else(|| json.get(member))
    }

    /// The same, if it is a string.
    #[must_use]
    pub fn origin_text(&self, member: &str) -> Option<&str> {
        self.origin(member)?.as_str()
    }

    /// Whether it only says that a document was read. Older programs wrote such entries.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.text_of(Category::Action.member()) == Some("read")
    }

    /// The paths of the fields that it says were changed. Where an older program stored what it was
    /// sent, or names alone, these are the names.
    pub fn changed_fields(&self) -> impl Iterator<Item = &str> {
        let changes = self.json().get("changes");
        let items = changes.and_then(Value::as_array).into_iter().flatten();
        let names = changes.and_then(Value::as_object).into_iter().flatten();
        items
            .filter_map(|item| item.as_str().or_else(|| item.get("field")?.as_str()))
            .chain(names.map(|(name, _)| name.as_str()))
    }

    /// The number among all writes, which older programs did not give.
    #[must_use]
    pub fn seq(&self) -> Option<u64> {
        // Entries of this program begin with it; to parse the rest takes longer than a write should.
        if self.json.get().is_none()
            && let Some(seq) = entry_seq(&self.text)
        {
            return Some(seq);
        }
        self.json().get("seq").and_then(Value::as_u64)
    }

    /// The operation that wrote it, which older programs did not name.
    #[must_use]
    pub fn operation(&self) -> Option<&str> {
        self.json().get("metadata")?.get("operation")?.as_str()
    }

    /// The checksum of the document after it; `None` after a deletion, and in entries of other
    /// programs.
    #[must_use]
    pub fn checksum(&self) -> Option<&str> {
        // To parse the entry takes longer than a read should.
        entry_checksum(&self.text)
            .or_else(|| self.json().get("metadata")?.get("checksum")?.as_str())
    }

    /// The id of the plan that it came of.
    #[must_use]
    pub fn plan_id(&self) -> Option<&str> {
        self.json()
            .get("metadata")?
            .get("plan")?
            .get("id")?
            .as_str()
    }

    /// SHA-256 of the document's entry before it; `None` if there was none, and in entries of other
    /// programs.
    #[must_use]
    pub fn previous(&self) -> Option<&str> {
        self.json().get("metadata")?.get("previous")?.as_str()
    }

    /// The ids of the entries that it undid.
    pub fn reverts(&self) -> impl Iterator<Item = &str> {
        let metadata = self.json().get("metadata");
        let reverts = metadata.and_then(|it| it.get("reverts")?.as_array());
        reverts.into_iter().flatten().filter_map(Value::as_str)
    }

    /// When it was written, as a time or in milliseconds since 1970.
    #[must_use]
    pub fn timestamp(&self) -> Option<Timestamp> {
        match self.json().get("timestamp")? {
            Value::String(text) => Timestamp::parse(text),
            Value::Number(millis) => millis.as_i64().map(Timestamp::from_millis),
            _ => None,
        }
    }

    /// The document that it is about, if it names one of a known kind.
    #[must_use]
    pub fn key(&self) -> Option<DocumentKey> {
        let kind = Kind::from_stored(self.text_of(Category::EntityType.member())?)?;
        Some(DocumentKey::new(kind, self.text_of("entityId")?))
    }

    /// The beginning of its text's SHA-256, which distinguishes it from others of the same
    /// millisecond.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut digest = sha256_hex(self.text.as_bytes());
        digest.truncate(16);
        digest
    }

    /// Its position in a log that holds it at its own time.
    #[must_use]
    pub fn position(&self) -> AuditPosition {
        AuditPosition {
            score: self.timestamp().map_or(0, Timestamp::millis),
            digest: self.digest(),
            nth: 0,
        }
    }

    /// The changes, if they have the form that this program writes.
    #[must_use]
    pub fn changes(&self) -> Vec<FieldChange> {
        let changes = self.json().get("changes").and_then(Value::as_array);
        let changes = changes.into_iter().flatten().map(FieldChange::of_json);
        changes.collect::<Option<_>>().unwrap_or_default()
    }

    /// The label under which this entry is counted in `category`, old spellings of a kind being the
    /// kind.
    #[must_use]
    pub fn label(&self, category: Category) -> Option<&str> {
        self.text_of(category.member())
            .map(|text| folded(category, text))
    }

    /// Two entries with the same identity are one entry, however they are formatted: the id, or the
    /// whole content.
    #[must_use]
    pub fn identity(&self) -> String {
        self.text_of("id").map_or_else(
            || canonical_text(Value::Object(self.json().clone())),
            ToOwned::to_owned,
        )
    }

    /// The time to put it at in the log of another store, in milliseconds since 1970: its own, but
    /// never later than `now`, because a log whose newest entry is of the future would date all
    /// that follow like it.
    #[must_use]
    pub fn import_score(&self, now: Timestamp) -> i64 {
        self.timestamp()
            .map_or(0, Timestamp::millis)
            .clamp(0, now.millis())
    }
}

/// The label that old spellings of a kind are counted under.
pub(super) fn folded(category: Category, label: &str) -> &str {
    match category {
        Category::EntityType => match Kind::from_stored(label) {
            Some(kind) => kind.singular(),
            None => label,
        },
        Category::Action | Category::Source => label,
    }
}

fn parsed(text: &str) -> (Map<String, Value>, Repairs) {
    parse_object(text).unwrap_or_else(|_| {
        let unreadable = ("unreadable".to_owned(), Value::String(text.to_owned()));
        (Map::from_iter([unreadable]), Repairs::default())
    })
}

/// What the log is counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Category {
    /// What was done.
    Action,
    /// To which kind of document.
    EntityType,
    /// Which part of the program it came through.
    Source,
}

impl Category {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Action, Self::EntityType, Self::Source];

    /// The member of an entry, and the beginning of its counters' names.
    #[must_use]
    pub fn member(self) -> &'static str {
        match self {
            Self::Action => "action",
            Self::EntityType => "entityType",
            Self::Source => "source",
        }
    }
}

/// The scores that are times, in milliseconds since 1970. Entries without a time have the score 0.
pub const DATED_SCORES: RangeInclusive<i64> = 1..=Timestamp::LAST.millis();

/// Where an entry is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Milliseconds since 1970.
    pub score: i64,
    /// How many entries of the same millisecond come before it, or 0 if that was not counted.
    pub nth: usize,
}

/// A position in the log: an entry's score and the beginning of its text's SHA-256.
///
/// Entries are never moved or deleted, so pages that begin after a position never repeat or skip
/// one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditPosition {
    /// Milliseconds since 1970.
    pub score: i64,
    /// Tells entries of the same millisecond apart.
    pub digest: String,
    /// At least this many entries of the same millisecond come before it, so they need not be read
    /// again to find it; 0 where that was not counted.
    pub nth: usize,
}

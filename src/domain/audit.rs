//! The audit log: what is written into it, and questions to what is found in it.
//!
//! Written entries are typed. Found entries may be older than the type, so they stay JSON with typed questions.

use std::{
    collections::{BTreeMap, HashMap},
    sync::OnceLock,
};

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    Timestamp,
    document::{DocumentKey, Kind, Version, sha256_hex},
    patch::FieldChange,
};

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The document was not there before.
    Create,
    /// The document was changed.
    Update,
}

impl Action {
    /// As the entry and the counters write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
        }
    }

    /// As logs say it.
    #[must_use]
    pub fn past(self) -> &'static str {
        match self {
            Self::Create => "created",
            Self::Update => "updated",
        }
    }
}

/// Through which door a write came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A tool call.
    Mcp,
    /// A command of this program.
    Admin,
}

impl Source {
    /// As the entry and the counters write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mcp => "mcp",
            Self::Admin => "admin",
        }
    }
}

/// Who asked for a write, how and why, as far as it is known.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// The door.
    #[serde(skip)]
    pub source: Source,
    /// What the client calls itself: name/version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Who it is, as far as the server knows: a token's name, or the operating system's user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// `stdio`, `http`, `sse` or `cli`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<&'static str>,
    /// The HTTP header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// The peer's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<String>,
    /// The id of the JSON-RPC request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The caller's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Origin {
    /// An origin of which nothing but the door is known.
    #[must_use]
    pub fn new(source: Source) -> Self {
        Self {
            source,
            client_id: None,
            actor: None,
            transport: None,
            user_agent: None,
            ip_address: None,
            request_id: None,
            reason: None,
        }
    }
}

/// What the entry holds besides the change itself.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EntryMetadata {
    /// Who, how and why.
    #[serde(flatten)]
    pub origin: Origin,
    /// Hash of the idempotency key and the request.
    pub operation: String,
    /// The document's version before the write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_before: Option<Version>,
    /// The document's version after the write.
    pub version_after: Version,
    /// SHA-256 of the stored bytes after the write.
    pub checksum: String,
    /// SHA-256 of this document's stored entry before this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
}

/// One write, as it is recorded. The store adds `seq` and `timestamp`, which only its transaction knows.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// Unique for ever.
    pub id: String,
    /// What was done.
    pub action: Action,
    /// To which kind of document.
    pub entity_type: Kind,
    /// To which document.
    pub entity_id: String,
    /// Through which door.
    pub source: Source,
    /// Every difference.
    pub changes: Vec<FieldChange>,
    /// Everything else.
    pub metadata: EntryMetadata,
}

/// How a stored entry begins: its number, padded with blanks so that the log's byte order is the order of writing.
#[must_use]
fn entry_prefix(seq: u64) -> String {
    format!("{{\"seq\":{seq:>16},")
}

/// The stored text of an entry, from its number, its time and what [`AuditEntry`] renders to.
#[must_use]
pub fn entry_text(seq: u64, timestamp: Timestamp, rest: &str) -> String {
    format!("{}\"timestamp\":\"{timestamp}\",{rest}", entry_prefix(seq))
}

/// An entry of the log, by whichever program it was written.
#[derive(Debug, Clone)]
pub struct StoredEntry {
    text: String,
    json: OnceLock<Map<String, Value>>,
}

/// Entries are equal when their stored texts are.
impl PartialEq for StoredEntry {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl StoredEntry {
    /// Reads a stored entry; one that is not a JSON object is shown as `{ "unreadable": … }`, because nothing is dropped from the log.
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
        self.json.get_or_init(|| parsed(&self.text))
    }

    /// The entry as JSON, given away.
    #[must_use]
    pub fn into_json(self) -> Map<String, Value> {
        self.json.into_inner().unwrap_or_else(|| parsed(&self.text))
    }

    /// The text of a member, when it is one.
    #[must_use]
    pub fn text_of(&self, member: &str) -> Option<&str> {
        self.json().get(member).and_then(Value::as_str)
    }

    /// The number among all writes, which older programs did not give.
    #[must_use]
    pub fn seq(&self) -> Option<u64> {
        self.json().get("seq").and_then(Value::as_u64)
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

    /// The document that it is about, when it names one of a kind there is.
    #[must_use]
    pub fn key(&self) -> Option<DocumentKey> {
        let kind = Kind::from_stored(self.text_of(Category::EntityType.member())?)?;
        Some(DocumentKey::new(kind, self.text_of("entityId")?))
    }

    /// The beginning of its text's SHA-256, which tells it from others of the same millisecond.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut digest = sha256_hex(self.text.as_bytes());
        digest.truncate(16);
        digest
    }

    /// Its place in a log that has it at its own time.
    #[must_use]
    pub fn position(&self) -> AuditPosition {
        AuditPosition {
            score: self.timestamp().map_or(0, Timestamp::millis),
            digest: self.digest(),
        }
    }

    /// The changes, when they are written as this program writes them.
    #[must_use]
    pub fn changes(&self) -> Vec<FieldChange> {
        self.json()
            .get("changes")
            .and_then(|changes| serde_json::from_value(changes.clone()).ok())
            .unwrap_or_default()
    }

    /// The label under which this entry is counted in `category`, old spellings of a kind being the kind.
    #[must_use]
    pub fn label(&self, category: Category) -> Option<&str> {
        self.text_of(category.member())
            .map(|text| folded(category, text))
    }

    /// What makes two entries the same one, however they are printed: the id, or all they say.
    #[must_use]
    pub fn identity(&self) -> String {
        self.text_of("id").map_or_else(
            || {
                let mut json = Value::Object(self.json().clone());
                json.sort_all_objects();
                json.to_string()
            },
            ToOwned::to_owned,
        )
    }

    /// The time to put it at in the log of another store, in milliseconds since 1970: its own, but never later than `now`, because a log
    /// whose newest entry is of the future would date all that follow like it.
    #[must_use]
    pub fn import_score(&self, now: Timestamp) -> i64 {
        self.timestamp()
            .map_or(0, Timestamp::millis)
            .clamp(0, now.millis())
    }
}

/// The label that old spellings of a kind are counted under.
fn folded(category: Category, label: &str) -> &str {
    match category {
        Category::EntityType => match Kind::from_stored(label) {
            Some(kind) => kind.singular(),
            None => label,
        },
        Category::Action | Category::Source => label,
    }
}

fn parsed(text: &str) -> Map<String, Value> {
    match serde_json::from_str(text) {
        Ok(Value::Object(json)) => json,
        _ => Map::from_iter([("unreadable".to_owned(), Value::String(text.to_owned()))]),
    }
}

/// What the log is counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Category {
    /// What was done.
    Action,
    /// To which kind of document.
    EntityType,
    /// Through which door.
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

/// Which entries are asked for; newest first.
#[derive(Debug, Clone, Default)]
pub struct AuditQuery {
    /// Only of this kind.
    pub kind: Option<Kind>,
    /// Only of this document.
    pub entity_id: Option<String>,
    /// Only this action.
    pub action: Option<String>,
    /// Only this source.
    pub source: Option<String>,
    /// Not before this instant.
    pub since: Option<Timestamp>,
    /// Before this instant.
    pub until: Option<Timestamp>,
    /// Only what comes after this place in the log.
    pub after: Option<AuditPosition>,
    /// At most so many.
    pub limit: usize,
}

impl AuditQuery {
    /// Whether `entry` is asked for, as far as its stored values tell; times are the store's to compare.
    #[must_use]
    pub fn matches(&self, entry: &StoredEntry) -> bool {
        let is = |category: Category, wanted: Option<&str>| {
            wanted.is_none_or(|wanted| entry.label(category) == Some(wanted))
        };
        is(Category::EntityType, self.kind.map(Kind::singular))
            && is(Category::Action, self.action.as_deref())
            && is(Category::Source, self.source.as_deref())
            && self
                .entity_id
                .as_deref()
                .is_none_or(|id| entry.text_of("entityId") == Some(id))
    }

    /// The entries of one document.
    #[must_use]
    pub fn of(key: &DocumentKey, limit: usize) -> Self {
        Self {
            kind: Some(key.kind),
            entity_id: Some(key.id.clone()),
            limit,
            ..Self::default()
        }
    }
}

/// A place in the log: an entry's score and the beginning of its text's SHA-256.
///
/// Entries are never moved or deleted, so pages that begin after a place never repeat or skip one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditPosition {
    /// Milliseconds since 1970.
    pub score: i64,
    /// Tells entries of the same millisecond apart.
    pub digest: String,
}

/// A page of the log, newest first.
#[derive(Debug, Clone, Default)]
pub struct AuditPage {
    /// The entries.
    pub entries: Vec<StoredEntry>,
    /// The last one's place, when more follow.
    pub next: Option<AuditPosition>,
}

/// The log in numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AuditStats {
    /// How many entries the log holds.
    pub total: u64,
    /// How many of each label, for each of [`Category::ALL`]; labels in alphabetical order.
    pub counts: [BTreeMap<String, u64>; 3],
}

impl AuditStats {
    /// Reads counters named `action:update` and so on; `None` when they disagree with the number of entries.
    ///
    /// `unlabelled` says for each category how many entries have no label, which old programs left.
    #[must_use]
    pub fn from_counters(
        total: u64,
        counters: &HashMap<String, String>,
        unlabelled: &HashMap<String, String>,
    ) -> Option<Self> {
        let mut stats = Self {
            total,
            ..Self::default()
        };
        for (category, counts) in Category::ALL.into_iter().zip(&mut stats.counts) {
            let mut counted: u64 = unlabelled
                .get(category.member())
                .map_or(Some(0), |count| count.parse().ok())?;
            for (name, count) in counters {
                if let Some(label) = name
                    .strip_prefix(category.member())
                    .and_then(|rest| rest.strip_prefix(':'))
                {
                    let count: u64 = count.parse().ok()?;
                    counted = counted.checked_add(count)?;
                    if count > 0 {
                        *counts
                            .entry(folded(category, label).to_owned())
                            .or_default() += count;
                    }
                }
            }
            if counted != total {
                return None;
            }
        }
        Some(stats)
    }

    /// The counters under their names.
    #[must_use]
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let named = |(category, counts): (Category, &BTreeMap<String, u64>)| {
            counts
                .iter()
                .map(|(label, count)| (format!("{}:{label}", category.member()), *count))
                .collect::<Vec<_>>()
        };
        Category::ALL
            .into_iter()
            .zip(&self.counts)
            .flat_map(named)
            .collect()
    }

    /// How many entries have no label, for each of [`Category::ALL`].
    #[must_use]
    pub fn unlabelled(&self) -> [u64; 3] {
        self.counts
            .each_ref()
            .map(|counts| self.total - counts.values().sum::<u64>())
    }

    /// Counts one more entry.
    pub fn count(&mut self, entry: &StoredEntry) {
        self.total += 1;
        for (category, counts) in Category::ALL.into_iter().zip(&mut self.counts) {
            if let Some(label) = entry.label(category) {
                *counts.entry(label.to_owned()).or_default() += 1;
            }
        }
    }
}

//! Audit entries as this program writes them.

use serde::{Deserialize, Serialize};

use crate::domain::{
    diff::FieldChange, kind::Kind, text::compact_json, timestamp::Timestamp, version::Version,
};

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The document was not there before.
    Create,
    /// The document was changed.
    Update,
    /// The document was deleted.
    Delete,
    /// Earlier changes were undone.
    Revert,
    /// What was changed outside this server was recorded.
    Adopt,
}

impl Action {
    /// As the entry and the counters write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Revert => "revert",
            Self::Adopt => "adopt",
        }
    }

    /// As logs say it.
    #[must_use]
    pub fn past(self) -> &'static str {
        match self {
            Self::Create => "created",
            Self::Update => "updated",
            Self::Delete => "deleted",
            Self::Revert => "reverted",
            Self::Adopt => "adopted",
        }
    }
}

/// Which part of the program a write came through.
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

/// Who asked for a write, how, and why, as far as that is known.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// Which part of the program it came through.
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
    /// An origin of which nothing but the source is known.
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

/// Names a plan; the entries that come of it hold this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanReference {
    /// 128 random bits, in hexadecimal digits.
    pub id: String,
    /// Who made it, as far as the server knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// With which client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// When.
    pub timestamp: Timestamp,
}

/// What the entry holds besides the change itself.
///
/// `checksum` and `previous` come last: the checksum is found from the end of the text.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EntryMetadata {
    /// Who, how and why.
    #[serde(flatten)]
    pub origin: Origin,
    /// Hash of the idempotency key and the request.
    pub operation: String,
    /// The plan that was applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanReference>,
    /// The ids of the entries whose changes it undoes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reverts: Vec<String>,
    /// The document's version before the write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_before: Option<Version>,
    /// The document's version after the write; absent after a deletion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_after: Option<Version>,
    /// SHA-256 of the stored bytes after the write; absent after a deletion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// SHA-256 of this document's stored entry before this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
}

/// One write, as it is recorded. The store adds `seq` and `timestamp`, which only its transaction
/// knows.
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
    /// Which part of the program it came through.
    pub source: Source,
    /// Every difference.
    pub changes: Vec<FieldChange>,
    /// Everything else.
    pub metadata: EntryMetadata,
}

impl AuditEntry {
    /// The stored text of the entry from its id on: what follows [the prefix](ENTRY_PREFIX_FORMAT).
    #[must_use]
    pub fn rest(&self) -> String {
        let mut text = compact_json(self);
        text.remove(0); // the brace is in the prefix
        text
    }
}

/// How the stored text of an entry begins, in the notation of C's `printf`: its number, padded with
/// blanks so that the log's order of bytes is the order of writing, then its time.
///
/// The commit script is given this format, and [`entry_text`] writes the same. Nothing else knows
/// it.
pub const ENTRY_PREFIX_FORMAT: &str = r#"{"seq":%16.0f,"timestamp":"%s","#;

/// The length of an entry's prefix together with its id, which distinguish it from every other
/// entry.
pub const ENTRY_PREFIX_LEN: usize = r#"{"seq":1234567890123456,"timestamp":"2026-11-22T10:15:30.123Z","id":"00000000-0000-0000-0000-000000000000""#.len();

/// The stored text of an entry, from its number, its time and [its rest](AuditEntry::rest).
#[must_use]
pub fn entry_text(seq: u64, timestamp: Timestamp, rest: &str) -> String {
    format!(r#"{{"seq":{seq:>16},"timestamp":"{timestamp}",{rest}"#)
}

/// The part of an entry's text up to its number, if it begins as [`entry_text`] writes it. It orders
/// the entries of one score.
#[must_use]
pub fn numbered_beginning(text: &str) -> Option<&str> {
    entry_seq(text)?;
    let (beginning, _) = text.split_once(',')?;
    Some(beginning)
}

/// The number of an entry whose text begins as [`entry_text`] writes it.
#[must_use]
pub(super) fn entry_seq(text: &str) -> Option<u64> {
    let (seq, _) = text
        .strip_prefix(r#"{"seq":"#)?
        .split_once(r#","timestamp":""#)?;
    seq.trim_start().parse().ok()
}

/// The checksum of an entry whose text ends as this program writes it, if it has one.
#[must_use]
pub(in crate::domain) fn entry_checksum(text: &str) -> Option<&str> {
    const DIGITS: usize = 64;
    let digest = |text: &'_ str| text.len().checked_sub(DIGITS);
    let text = text.strip_suffix(r#""}}"#)?;
    let (rest, _) = text.split_at_checked(digest(text)?)?;
    let text = rest.strip_suffix(r#"","previous":""#).unwrap_or(text);
    let (rest, checksum) = text.split_at_checked(digest(text)?)?;
    rest.ends_with(r#","checksum":""#).then_some(checksum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_begins_as_the_format_says() {
        let timestamp = Timestamp::from_millis(1_771_000_000_123);

        let text = entry_text(42, timestamp, "rest");

        let prefix = ENTRY_PREFIX_FORMAT
            .replace("%16.0f", &format!("{:>16}", 42))
            .replace("%s", &timestamp.to_string());
        assert_eq!(text, format!("{prefix}rest"));
        assert_eq!(entry_seq(&text), Some(42));
        assert_eq!(
            numbered_beginning(&text),
            Some(format!(r#"{{"seq":{:>16}"#, 42).as_str())
        );
    }

    #[test]
    fn the_checksum_is_found_at_the_end() {
        let (checksum, other) = ("c".repeat(64), "d".repeat(64));
        for (end, expected) in [
            (format!(r#","checksum":"{checksum}"}}}}"#), Some(&checksum)),
            (
                format!(r#","checksum":"{checksum}","previous":"{other}"}}}}"#),
                Some(&checksum),
            ),
            (
                format!(r#","versionBefore":"","previous":"{other}"}}}}"#),
                None,
            ),
            (format!(r#","checksum":"{checksum}","more":1}}}}"#), None),
            ("}}".to_owned(), None),
        ] {
            let text = format!(r#"{{"id":"x","metadata":{{"operation":"é"{end}"#);

            assert_eq!(entry_checksum(&text), expected.map(String::as_str), "{end}");
        }
    }
}

//! Plans: changes that a dry run showed, kept so that they can be applied exactly as they were
//! shown.
//!
//! A plan says what the documents and their newest entries were when it was made. Whether it was
//! applied is not noted anywhere but in the log, whose entries name it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    audit::{Action, PlanReference, StoredEntry},
    current::Current,
    json::parse_object,
    kind::{DocumentKey, Kind},
    record::Record,
    text::compact_json,
    timestamp::Timestamp,
    version::{Version, sha256_hex},
};

/// How long a plan can be applied.
pub const PLAN_TTL: Duration = Duration::from_hours(24);
/// How many plans a store keeps: the newest ones.
pub const MAX_PLANS: usize = 500;
/// And how many bytes of them.
pub const MAX_PLAN_BYTES: usize = 16 * 1024 * 1024;

/// Changes that were shown and not made.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Which plan, by whom and when.
    pub reference: PlanReference,
    /// The tool that it was made with, and that applies it.
    pub tool: String,
    /// The documents that it changes.
    pub documents: Vec<PlannedDocument>,
}

/// What a plan does to one document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedDocument {
    kind: Kind,
    id: String,
    /// The version that it was made from; `None` if there was no document.
    version: Option<String>,
    /// SHA-256 of the document's newest entry then, if it had one.
    newest_entry: Option<String>,
    /// The ids of the entries whose changes it undoes.
    reverts: Vec<String>,
    /// The text of the document as it will be, but for its times; `None` if it will be deleted.
    text: Option<String>,
}

/// When and by whom a plan was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanApplication {
    /// The entries that came of it.
    pub audit_ids: Vec<String>,
    /// When.
    pub timestamp: Option<Timestamp>,
    /// By whom, as far as the server knows.
    pub actor: Option<String>,
}

impl Plan {
    /// The plan in what [`text`](Self::text) gave; `None` if it is something else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// As a store keeps it.
    #[must_use]
    pub fn text(&self) -> String {
        compact_json(self)
    }

    /// From when on it cannot be applied any more.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.reference.timestamp.plus(PLAN_TTL)
    }

    /// Whether it undoes creations, which deletes their documents.
    #[must_use]
    pub fn undoes_creations(&self) -> bool {
        let mut documents = self.documents.iter();
        documents.any(|document| !document.reverts.is_empty() && document.text.is_none())
    }

    /// Whether an entry came of this plan.
    #[must_use]
    pub fn led_to(&self, entry: &StoredEntry) -> bool {
        entry.plan_id() == Some(&self.reference.id)
    }
}

impl PlannedDocument {
    /// What is planned for the document at `current`: to become `text`, or to be deleted, by undoing
    /// the changes of the entries `reverts`.
    #[must_use]
    pub fn new(current: &Current, text: Option<&str>, reverts: &[String]) -> Self {
        let key = current.key();
        Self {
            kind: key.kind,
            id: key.id.clone(),
            version: current.version().map(ToString::to_string),
            newest_entry: current.latest_entry().map(|it| sha256_hex(it.as_bytes())),
            reverts: reverts.to_vec(),
            text: text.map(ToOwned::to_owned),
        }
    }

    /// Which document it is.
    #[must_use]
    pub fn key(&self) -> DocumentKey {
        DocumentKey::new(self.kind, self.id.clone())
    }

    /// The version that it was made from; `None` if there was no document.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// SHA-256 of the document's newest entry when the plan was made, if it had one.
    #[must_use]
    pub fn newest_entry(&self) -> Option<&str> {
        self.newest_entry.as_deref()
    }

    /// The ids of the entries whose changes it undoes.
    #[must_use]
    pub fn reverts(&self) -> &[String] {
        &self.reverts
    }

    /// The document as it will be, but for its times; `None` if it will be deleted.
    #[must_use]
    pub fn document(&self) -> Option<Map<String, Value>> {
        let (document, _) = parse_object(self.text.as_deref()?).ok()?;
        Some(document)
    }

    /// Whether the document is what the plan was made from. That what was done outside this server
    /// before the plan was made has been recorded since does not matter.
    #[must_use]
    pub fn is_made_from(&self, current: &Current) -> bool {
        if current.version().map(Version::as_str) != self.version() {
            return false;
        }
        let Some(newest) = current.latest_entry() else {
            return self.newest_entry.is_none();
        };
        if Some(sha256_hex(newest.as_bytes()).as_str()) == self.newest_entry() {
            return true;
        }
        let newest = StoredEntry::parse(newest.to_owned());
        newest.text_of("action") == Some(Action::Adopt.as_str())
            && newest.previous() == self.newest_entry()
            && newest.checksum() == current.record().map(Record::checksum)
    }
}

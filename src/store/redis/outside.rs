//! Whether what is stored is what the newest entry left, for the price of one small key in the same
//! command.
//!
//! Version 0.1.0 does not write that key, and documents that this program never wrote have none. So
//! where the key is another one, or missing, the newest entry itself decides.

use std::{sync::PoisonError, time::Duration};

use redis::{Value, cmd};
use tokio::time::Instant;

use super::{
    ReadFrom, RedisStore,
    error::{is_permission_denied, read_error},
    reply::{array, text, unwrap_reply},
};
use crate::{
    domain::{DocumentKey, FoundDocument, OutsideChange, Record, changed_outside},
    store::StoreError,
};

/// How many newest entries are read at once, and how many documents together with theirs.
const ENTRIES_AT_ONCE: usize = 100;
const DOCUMENTS_AT_ONCE: usize = 10;
/// A user who may not read our own keys may be allowed to: that is tried again after this time.
const DENIED_RETRY_INTERVAL: Duration = Duration::from_mins(1);

/// A document as it was read, with the checksum beside it.
pub(super) struct WithChecksum {
    pub(super) key: DocumentKey,
    pub(super) record: Option<Record>,
    pub(super) checksum: Option<String>,
}

/// A document with its newest entry, as they were at one moment.
pub(super) struct WithEntry {
    pub(super) record: Option<Record>,
    pub(super) latest_entry: Option<String>,
    checksum: Option<String>,
}

impl RedisStore {
    /// The document for display.
    pub(super) async fn read_document(
        &self,
        key: &DocumentKey,
    ) -> Result<FoundDocument, StoreError> {
        let names = [self.keys.document(key), self.keys.checksum(key)];
        let Some(values) = self.read_own(ReadFrom::Any, &names).await? else {
            let mut command = cmd("GET");
            command.arg(self.keys.document(key));
            let reply = self.read_connection(ReadFrom::Any).send(&command).await;
            return Ok(FoundDocument {
                record: self.record(key, reply)?,
                changed_outside: None,
            });
        };
        let mut values = values.into_iter();
        let mut next = || values.next().unwrap_or_default();
        let (document, checksum) = (next(), text(next()).ok());
        match self.record(key, Ok(document))? {
            Some(record) if self.is_explained(&record, checksum.as_deref()) => Ok(FoundDocument {
                record: Some(record),
                changed_outside: None,
            }),
            _ => self.check_document(key).await,
        }
    }

    /// Whether the checksum beside a document shows that it was not changed outside this server.
    pub(super) fn is_explained(&self, record: &Record, beside: Option<&str>) -> bool {
        beside == Some(record.checksum()) || self.explained.contains(record, beside)
    }

    /// Reads a document again, and compares it with its newest entry.
    async fn check_document(&self, key: &DocumentKey) -> Result<FoundDocument, StoreError> {
        let found = self.read_with_entry(ReadFrom::Any, key).await?;
        let changed_outside = changed_outside(found.record.as_ref(), found.latest_entry.as_deref());
        if let (Some(record), None) = (&found.record, changed_outside) {
            self.explained.insert(record, found.checksum);
        }
        Ok(FoundDocument {
            record: found.record,
            changed_outside,
        })
    }

    /// A document with its newest entry. Where there is none, the type of the key tells whether
    /// something else is there.
    pub(super) async fn read_with_entry(
        &self,
        from: ReadFrom,
        key: &DocumentKey,
    ) -> Result<WithEntry, StoreError> {
        let document = self.keys.document(key);
        let (checksum, latest) = (self.keys.checksum(key), self.keys.latest(key));
        let mut pipeline = redis::pipe();
        pipeline.cmd("MGET").arg(&[&document, &checksum, &latest]);
        pipeline.cmd("TYPE").arg(&document).ignore_errors();
        let mut replies = self.read_all(from, &pipeline).await?.into_iter();
        let values = match unwrap_reply(replies.next().unwrap_or_default()) {
            Err(error) if is_permission_denied(&error) => {
                return self.read_one_by_one(from, key).await;
            }
            values => array(values.map_err(|error| read_error(&error))?),
        };
        let kind = replies.next().and_then(|kind| text(kind).ok());
        let mut values = values.into_iter();
        let mut next = || values.next().unwrap_or_default();
        let record = self.record(key, Ok(next()))?;
        if record.is_none() && kind.is_some_and(|kind| !matches!(kind.as_str(), "none" | "string"))
        {
            return Err(self.not_a_string(key));
        }
        Ok(WithEntry {
            record,
            checksum: text(next()).ok(),
            latest_entry: text(next()).ok(),
        })
    }

    /// The same for a user who may not read all of them together.
    async fn read_one_by_one(
        &self,
        from: ReadFrom,
        key: &DocumentKey,
    ) -> Result<WithEntry, StoreError> {
        let mut pipeline = redis::pipe();
        for name in [self.keys.document(key), self.keys.latest(key)] {
            pipeline.cmd("GET").arg(name);
        }
        pipeline.ignore_errors();
        let mut replies = self.read_all(from, &pipeline).await?.into_iter();
        Ok(WithEntry {
            record: self.record(key, unwrap_reply(replies.next().unwrap_or_default()))?,
            checksum: None,
            latest_entry: replies.next().and_then(|value| text(value).ok()),
        })
    }

    /// Those of some documents that were changed outside this server, as far as their entries can be
    /// read.
    pub(super) async fn changed_outside(&self, read: &[WithChecksum]) -> Vec<OutsideChange> {
        let mut suspects = Vec::new();
        for chunk in read.chunks(ENTRIES_AT_ONCE) {
            let names: Vec<String> = chunk
                .iter()
                .map(|document| self.keys.latest(&document.key))
                .collect();
            let Ok(Some(entries)) = self.read_own(ReadFrom::Bulk, &names).await else {
                continue;
            };
            for (document, entry) in chunk.iter().zip(entries) {
                let entry = text(entry).ok();
                match (
                    changed_outside(document.record.as_ref(), entry.as_deref()),
                    &document.record,
                ) {
                    (Some(_), _) => suspects.push(document.key.clone()),
                    (None, Some(record)) => {
                        self.explained.insert(record, document.checksum.clone());
                    }
                    (None, None) => {}
                }
            }
        }
        let mut found = Vec::new();
        for chunk in suspects.chunks(DOCUMENTS_AT_ONCE) {
            found.extend(self.check_again(chunk).await.unwrap_or_default());
        }
        found
    }

    /// Those of some documents that were changed outside this server, each compared with its newest
    /// entry of the same moment. What somebody wrote while they were read is no such change.
    async fn check_again(&self, keys: &[DocumentKey]) -> Result<Vec<OutsideChange>, StoreError> {
        let names: Vec<String> = keys
            .iter()
            .flat_map(|key| [self.keys.document(key), self.keys.latest(key)])
            .collect();
        let Some(values) = self.read_own(ReadFrom::Bulk, &names).await? else {
            return Ok(Vec::new());
        };
        let mut values = values.into_iter();
        let mut found = Vec::new();
        for key in keys {
            let mut next = || values.next().unwrap_or_default();
            let (document, entry) = (next(), text(next()).ok());
            let Ok(record) = self.record(key, Ok(document)) else {
                continue; // the list says that it cannot be read
            };
            let changed_outside = changed_outside(record.as_ref(), entry.as_deref());
            let document = FoundDocument {
                record,
                changed_outside,
            };
            found.extend(OutsideChange::of(key, &document));
        }
        Ok(found)
    }

    /// The values of keys at one moment, some of which are our own; `None` if this user may not read
    /// those.
    pub(super) async fn read_own(
        &self,
        from: ReadFrom,
        names: &[String],
    ) -> Result<Option<Vec<Value>>, StoreError> {
        let denied = *self
            .own_keys_denied
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if denied.is_some_and(|denied| denied.elapsed() < DENIED_RETRY_INTERVAL) {
            return Ok(None);
        }
        let mut command = cmd("MGET");
        command.arg(names);
        match self.read_connection(from).send(&command).await {
            Ok(values) => Ok(Some(array(values))),
            Err(error) if is_permission_denied(&error) => {
                *self
                    .own_keys_denied
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                Ok(None)
            }
            Err(error) => Err(read_error(&error)),
        }
    }
}

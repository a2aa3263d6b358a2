//! Changing one document: precondition, plan, commit, report.
//!
//! Writers of this process queue for a document, so that they do not race each other. A write that
//! lost a race against another process is planned again from the new state.

use std::{slice, time::Duration};

use serde_json::{Map, Value, json};
use tokio::time::sleep;
use tracing::info;
use uuid::Uuid;

use super::{ContentService, Error, read::in_time};
use crate::{
    deadline::Deadline,
    domain::{
        AuditQuery, Change, Current, DocumentKey, Edit, Kind, Operation, Origin, Record, Source,
        StoredEntry, Timestamp, Update, Version, Violation, WriteContext,
    },
    store::{Commit, StoreError},
};

/// How long an update may take before its last commit; see "Time budget of a call" in
/// docs/architecture.md.
const UPDATE_TIMEOUT: Duration = Duration::from_secs(7);
/// A conflict names this many of the writes that led to it, and waits this long for them.
const MAX_CHANGED_SINCE: usize = 20;
const MAX_CHANGED_SINCE_BYTES: usize = 4 * 1024 * 1024;
const CHANGED_SINCE_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause after a lost race: a random part of it, twice as much the next time, up to the
/// maximum.
pub(super) const BACKOFF_MIN: Duration = Duration::from_millis(5);
pub(super) const BACKOFF_MAX: Duration = Duration::from_millis(20);

/// A requested update.
#[derive(Debug, Clone)]
pub struct UpdateRequest {
    /// Which document.
    pub key: DocumentKey,
    /// What to merge into it.
    pub patch: Map<String, Value>,
    /// What to change after that.
    pub edits: Vec<Edit>,
    /// The version that the caller has read.
    pub expected_version: Option<String>,
    /// Whether to write.
    pub mode: Mode,
    /// The caller's name for this update, under which it may be repeated.
    pub idempotency_key: Option<String>,
    /// Who asks for it, how and why.
    pub origin: Origin,
}

impl UpdateRequest {
    /// What arguments that break rules ask for, as far as they can be understood.
    #[must_use]
    pub fn from_arguments(kind: Kind, arguments: &Map<String, Value>) -> Self {
        let text = |name: &str| {
            arguments
                .get(name)
                .and_then(Value::as_str)
                .map(ToOwned::to_owned)
        };
        let patch = arguments.get("data").and_then(Value::as_object);
        let edits = arguments.get("edits").cloned();
        let edits = edits.and_then(|edits| serde_json::from_value(edits).ok());
        let mode = match arguments.get("dryRun") {
            None | Some(Value::Null | Value::Bool(false)) => Mode::Commit,
            Some(_) => Mode::DryRun,
        };
        Self {
            key: DocumentKey::new(kind, text("id").unwrap_or_default()),
            patch: patch.cloned().unwrap_or_default(),
            edits: edits.unwrap_or_default(),
            expected_version: text("expectedVersion"),
            mode,
            idempotency_key: text("idempotencyKey"),
            origin: Origin::new(Source::Mcp),
        }
    }

    /// The key under which an earlier call may have done this. A dry run is another request.
    fn key_of_write(&self) -> Option<&str> {
        match self.mode {
            Mode::Commit => self.idempotency_key.as_deref(),
            Mode::DryRun => None,
        }
    }
}

/// Whether to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Write.
    Commit,
    /// Only show what would be written.
    DryRun,
}

/// What an update did, or would do.
#[derive(Debug)]
pub struct Updated {
    /// The document as it is now; in a dry run, as it would be. `None` only if an earlier call did
    /// this, and the document was deleted since or cannot be read.
    pub record: Option<Record>,
    /// Whether the document cannot be read.
    pub is_unread: bool,
    /// Its stored version, if there is one; in a dry run, the one before.
    pub version: Option<Version>,
    /// The recorded changes.
    pub changes: Value,
    /// The id of the audit entry, if one was written.
    pub audit_id: Option<String>,
    /// Whether an earlier call with the same idempotency key did it.
    pub replayed: bool,
    /// Rules that the stored document broke before and still breaks.
    pub warnings: Vec<Violation>,
    /// The time of the document's newest entry, if it was found changed outside this server after
    /// that. A write has recorded it before its own entry.
    pub changed_outside: Option<Timestamp>,
    /// In a dry run, the change.
    pub planned: Option<Box<Change>>,
}

/// What an update finds.
enum Found {
    /// The document's state.
    Current(Current),
    /// An earlier call with the same idempotency key did it.
    Done(Commit),
}

/// What to do about a request, given the state of the document.
enum Plan {
    /// There is no document.
    Missing,
    /// It is not the expected version.
    VersionConflict,
    /// The change breaks rules.
    Refuse(Vec<Violation>),
    /// The document already is as requested.
    Unchanged(Record),
    /// Show the change.
    Preview(Box<Change>, Vec<Violation>),
    /// Write the change.
    Commit(Box<Change>, Vec<Violation>),
}

/// How a commit ended.
enum Outcome {
    /// The change was written, with the audit entry of this id.
    Written(String),
    /// An earlier call with the same idempotency key had written it.
    Replayed(Commit),
    /// The stored document is not the one that the change was made from.
    LostRace,
}

/// One update under way.
struct UpdateCall {
    request: UpdateRequest,
    operation: Operation,
    deadline: Deadline,
    backoff: Duration,
    changed_outside: Option<Timestamp>,
}

impl ContentService {
    /// Changes one document, or shows what would change.
    ///
    /// Without an expected version, an update that lost a race is planned again: the caller's patch
    /// says what to change, not what the document was.
    pub async fn update(
        &self,
        request: UpdateRequest,
        deadline: Deadline,
    ) -> Result<Updated, Error> {
        self.note_use();
        let mut call = UpdateCall::new(request, deadline.capped(UPDATE_TIMEOUT));
        let queue = self.write_queue(call.key());
        let Ok(_turn) = call.deadline.run(queue.lock()).await else {
            return Err(Error::Busy {
                key: call.request.key,
            });
        };
        loop {
            let current = match self.read_for_update(&call).await? {
                Found::Current(current) => current,
                Found::Done(commit) => return Ok(self.replay(&call, commit).await),
            };
            call.changed_outside = current.changed_outside().or(call.changed_outside);
            let context = self.write_context(call.request.origin.clone(), call.operation.clone());
            let plan = call.plan(&current, context);
            // Only a commit compares with the stored state. The next read does not return the
            // remembered one.
            if current.is_remembered() && !matches!(plan, Plan::Commit(..)) {
                continue;
            }
            match plan {
                Plan::Commit(change, warnings) => {
                    let adopted = self.adopt(slice::from_ref(&change), call.deadline);
                    if adopted.await?.is_some() {
                        continue;
                    }
                    let updated = call.report(Updated::by(&change, warnings));
                    match self.commit_update(&call, *change, &current).await? {
                        Outcome::Written(audit_id) => return Ok(updated.recorded(audit_id)),
                        Outcome::Replayed(commit) => return Ok(self.replay(&call, commit).await),
                        Outcome::LostRace => self.prepare_retry(&mut call, &current).await?,
                    }
                }
                Plan::Missing => return Err(self.missing(&call, &current).await),
                Plan::VersionConflict => return Err(self.conflict(&call, Some(&current)).await),
                Plan::Refuse(violations) => return Err(Error::Invalid(violations)),
                Plan::Unchanged(record) => return Ok(call.report(Updated::unchanged(record))),
                Plan::Preview(change, warnings) => {
                    let updated = call.report(Updated::by(&change, warnings));
                    return Ok(updated.preview(&current, change));
                }
            }
        }
    }

    async fn missing(&self, call: &UpdateCall, current: &Current) -> Error {
        let (key, deleted) = (call.key().clone(), current.changed_outside());
        self.not_found(key, deleted, call.deadline).await
    }

    /// The first result of a repeated request, if it was carried out, whatever the rules and the
    /// document are now.
    pub async fn replay_if_done(
        &self,
        request: &UpdateRequest,
        deadline: Deadline,
    ) -> Result<Option<Updated>, Error> {
        if request.key_of_write().is_none() {
            return Ok(None);
        }
        let call = UpdateCall::new(request.clone(), deadline.capped(UPDATE_TIMEOUT));
        let commit = call.deadline.run(self.store.find_commit(&call.operation));
        match in_time(commit.await)? {
            Some(commit) => Ok(Some(self.replay(&call, commit).await)),
            None => Ok(None),
        }
    }

    /// Reads the document, or finds that the update was done before.
    async fn read_for_update(&self, call: &UpdateCall) -> Result<Found, Error> {
        // Read before the idempotency record is looked up: if the record is missing now, what was
        // read is from before its commit.
        let read = in_time(
            call.deadline
                .run(self.store.get_for_update(call.key()))
                .await,
        );
        if call.request.key_of_write().is_some() {
            let record = call.deadline.run(self.store.find_commit(&call.operation));
            if let Some(commit) = in_time(record.await)? {
                return Ok(Found::Done(commit));
            }
        }
        Ok(Found::Current(read?))
    }

    /// The stored state, never a remembered one.
    pub(super) async fn read_stored(&self, key: &DocumentKey) -> Result<Current, StoreError> {
        loop {
            let current = self.store.get_for_update(key).await?;
            if !current.is_remembered() {
                return Ok(current);
            }
        }
    }

    async fn commit_update(
        &self,
        call: &UpdateCall,
        change: Change,
        current: &Current,
    ) -> Result<Outcome, Error> {
        let entry_id = change.entry().id.clone();
        let commit = self
            .commit_in_task(vec![change], call.operation.clone())
            .await;
        match commit {
            Ok(commit) if commit.replayed && !commit.has_entry(&entry_id) => {
                Ok(Outcome::Replayed(commit))
            }
            Ok(_) => Ok(Outcome::Written(entry_id)),
            Err(StoreError::Conflict) => Ok(Outcome::LostRace),
            // The value may have another type by now, which reading it tells.
            Err(StoreError::Failed(_)) if current.is_remembered() => Ok(Outcome::LostRace),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits before the next attempt, or gives up: the caller expects another version, or the time
    /// is over.
    async fn prepare_retry(&self, call: &mut UpdateCall, current: &Current) -> Result<(), Error> {
        if current.is_remembered() && !call.deadline.is_within(Duration::ZERO) {
            return Ok(());
        }
        if call.request.expected_version.is_some() || call.deadline.is_within(call.backoff) {
            let newest = self.read_stored(call.key()).await.ok();
            return Err(self.conflict(call, newest.as_ref()).await);
        }
        sleep(call.backoff.mul_f64(0.5 + fastrand::f64())).await;
        call.backoff = (call.backoff * 2).min(BACKOFF_MAX);
        Ok(())
    }

    /// The error for a document that has another version, with who changed it, as far as that is
    /// known.
    async fn conflict(&self, call: &UpdateCall, current: Option<&Current>) -> Error {
        let changed_since = match &call.request.expected_version {
            Some(expected) => {
                self.changed_since(call.key(), expected, call.deadline)
                    .await
            }
            None => Vec::new(),
        };
        Error::Conflict {
            key: call.key().clone(),
            current: current.and_then(Current::version).cloned(),
            changed_since,
            changed_outside: current.and_then(Current::changed_outside),
        }
    }

    /// The entries of the document after a version of it, newest first; none if that is not among
    /// the last few versions, or the store does not tell soon.
    pub(super) async fn changed_since(
        &self,
        key: &DocumentKey,
        version: &str,
        deadline: Deadline,
    ) -> Vec<StoredEntry> {
        let query = AuditQuery {
            max_bytes: MAX_CHANGED_SINCE_BYTES,
            ..AuditQuery::of(key, MAX_CHANGED_SINCE + 1)
        };
        let deadline = deadline.capped(CHANGED_SINCE_TIMEOUT);
        let page = deadline.run(self.store.audit_entries(&query)).await;
        let mut entries = page.ok().and_then(Result::ok).unwrap_or_default().entries;
        let is_version = |entry: &StoredEntry, member| entry.origin_text(member) == Some(version);
        let later = entries
            .iter()
            .position(|entry| is_version(entry, "versionAfter"));
        // The version may be older than the first entry.
        let first = entries
            .iter()
            .position(|entry| is_version(entry, "versionBefore"));
        entries.truncate(later.or(first.map(|first| first + 1)).unwrap_or_default());
        entries
    }

    /// The result of an update that an earlier call did.
    async fn replay(&self, call: &UpdateCall, commit: Commit) -> Updated {
        let key = call.key();
        let entry = commit
            .entries
            .into_iter()
            .find(|entry| entry.text_of("entityId") == Some(&key.id))
            .map(StoredEntry::into_json);
        let mut entry = entry.unwrap_or_default();
        let read = self.read_written(key, call.deadline).await;
        let is_unread = read.is_err();
        let record = read.ok().flatten();
        let audit_id = entry
            .get("id")
            .and_then(Value::as_str)
            .map(ToOwned::to_owned);
        Updated {
            changes: entry.shift_remove("changes").unwrap_or_else(|| json!([])),
            audit_id,
            replayed: true,
            is_unread,
            version: record.as_ref().map(|record| record.version().clone()),
            warnings: violations_of(record.as_ref()),
            changed_outside: None,
            planned: None,
            record,
        }
    }

    /// A document that an earlier call wrote, as it is now, for the answer. Whether it can be read
    /// changes nothing about what was written.
    pub(super) async fn read_written(
        &self,
        key: &DocumentKey,
        deadline: Deadline,
    ) -> Result<Option<Record>, Error> {
        let current = in_time(deadline.run(self.read_stored(key)).await)?;
        Ok(current.record().cloned())
    }

    /// Commits in a task of its own, so that a cancelled call leaves all of a commit or nothing.
    pub(super) async fn commit_in_task(
        &self,
        changes: Vec<Change>,
        operation: Operation,
    ) -> Result<Commit, StoreError> {
        let store = std::sync::Arc::clone(&self.store);
        let snapshot = self.snapshot.clone();
        let note = move |changes: &[Change], entries: &[StoredEntry]| {
            if let Some(snapshot) = &snapshot {
                snapshot.note_write(changes, entries);
            }
        };
        let task = tokio::spawn(async move {
            let commit = store.commit(&changes, &operation).await;
            match &commit {
                Ok(Commit {
                    entries,
                    replayed: false,
                }) => {
                    changes.iter().for_each(log_write);
                    note(&changes, entries);
                }
                // What was written, if anything, the log tells.
                _ => note(&[], &[]),
            }
            commit
        });
        let commit = task.await;
        // The message of a panic may hold a part of a document.
        commit.unwrap_or_else(|_| {
            Err(StoreError::OutcomeUnknown(
                "the commit ended unexpectedly".to_owned(),
            ))
        })
    }
}

fn log_write(change: &Change) {
    let (key, entry) = (change.key(), change.entry());
    let count = entry.changes.len();
    info!(document.kind = %key.kind, document.id = %key.id, "{} {key}: {count} fields", entry.action.past());
}

impl UpdateCall {
    fn new(request: UpdateRequest, deadline: Deadline) -> Self {
        let operation = match request.key_of_write() {
            Some(key) => Operation::keyed(key, identity(&request)),
            None => Operation::once(&Uuid::new_v4().to_string(), identity(&request)),
        };
        Self {
            request,
            operation,
            deadline,
            backoff: BACKOFF_MIN,
            changed_outside: None,
        }
    }

    /// The result, with what was found.
    fn report(&self, updated: Updated) -> Updated {
        Updated {
            changed_outside: self.changed_outside,
            ..updated
        }
    }

    fn key(&self) -> &DocumentKey {
        &self.request.key
    }

    fn plan(&self, current: &Current, context: WriteContext) -> Plan {
        let expected = self.request.expected_version.as_deref();
        if let (Some(expected), Some(version)) = (expected, current.version())
            && expected != version.as_str()
        {
            return Plan::VersionConflict;
        }
        match Change::update(current, &self.request.patch, &self.request.edits, context) {
            Ok(Update::Missing) => Plan::Missing,
            Ok(Update::Unchanged(record)) => Plan::Unchanged(record),
            Ok(Update::Change(change, warnings)) => match self.request.mode {
                Mode::DryRun => Plan::Preview(change, warnings),
                Mode::Commit => Plan::Commit(change, warnings),
            },
            Err(violations) => Plan::Refuse(violations),
        }
    }
}

impl Updated {
    fn unchanged(record: Record) -> Self {
        Self {
            version: Some(record.version().clone()),
            changes: json!([]),
            audit_id: None,
            replayed: false,
            warnings: record.violations().to_vec(),
            changed_outside: None,
            planned: None,
            record: Some(record),
            is_unread: false,
        }
    }

    fn by(change: &Change, warnings: Vec<Violation>) -> Self {
        let Some(record) = change.next() else {
            unreachable!("an update leaves a document")
        };
        Self {
            record: Some(record.clone()),
            is_unread: false,
            version: Some(record.version().clone()),
            changes: json!(change.entry().changes),
            audit_id: None,
            replayed: false,
            warnings,
            changed_outside: None,
            planned: None,
        }
    }

    fn recorded(self, audit_id: String) -> Self {
        Self {
            audit_id: Some(audit_id),
            ..self
        }
    }

    fn preview(self, current: &Current, change: Box<Change>) -> Self {
        Self {
            version: current.version().cloned().or(self.version),
            planned: Some(change),
            ..self
        }
    }
}

/// The rules that a document breaks, if there is one.
pub(super) fn violations_of(record: Option<&Record>) -> Vec<Violation> {
    record.map_or_else(Vec::new, |record| record.violations().to_vec())
}

/// What makes two requests the same one. Stored idempotency records depend on it.
fn identity(request: &UpdateRequest) -> Value {
    let mut identity = json!({
        "tool": format!("update_{}", request.key.kind),
        "id": request.key.id,
        "data": request.patch,
        "expectedVersion": request.expected_version,
    });
    // Only where there are any, so that requests without edits are the same as those of 0.1.0.
    if let Some(members) = identity
        .as_object_mut()
        .filter(|_| !request.edits.is_empty())
    {
        members.insert("edits".to_owned(), json!(request.edits));
    }
    identity
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Op;

    #[test]
    fn a_request_without_edits_is_the_same_as_for_0_1_0() {
        let arguments = json!({ "id": "a", "data": { "title": "New" }, "expectedVersion": "1" });
        let mut request =
            UpdateRequest::from_arguments(Kind::Project, arguments.as_object().unwrap());

        assert_eq!(
            identity(&request).to_string(),
            r#"{"tool":"update_project","id":"a","data":{"title":"New"},"expectedVersion":"1"}"#
        );

        request.edits.push(Edit {
            path: "tags".to_owned(),
            op: Op::Append,
            value: json!("x"),
            with: None,
            at: None,
        });
        let edits = json!([{ "path": "tags", "op": "append", "value": "x" }]);
        assert_eq!(identity(&request)["edits"], edits);
    }
}

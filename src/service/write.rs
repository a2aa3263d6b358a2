//! Writing documents in one commit: read them, plan a change of each, commit, report.
//!
//! Creating, deleting and updating many documents are this with a plan of their own. A write that
//! lost a race is planned again from what is stored then, like an update.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Map, Value, json};
use tokio::{task::yield_now, time::sleep};
use uuid::Uuid;

use super::{
    ContentService, Error, Mode,
    read::in_time,
    update::{BACKOFF_MAX, BACKOFF_MIN},
};
use crate::{
    deadline::Deadline,
    domain::{
        Change, Current, DocumentKey, FieldChange, Operation, Origin, Record, StoredEntry,
        Timestamp, Version, Violation, WriteContext, audit::Action, diff,
    },
    store::{Commit, StoreError},
};

/// How long a write may take before its last commit; see "Time budget of a call" in
/// docs/architecture.md.
const WRITE_TIMEOUT: Duration = Duration::from_secs(7);
/// How many documents are read at once: fewer than the failures in a row that open the circuit
/// breaker, because one lost connection fails all of them. So they are retried.
const CONCURRENT_READS: usize = 4;
/// How long it may take to find out which document lost the last race.
const LOST_RACE_TIMEOUT: Duration = Duration::from_millis(500);
/// One commit holds at most this much text of documents, before and after it.
pub(super) const MAX_TEXT_BYTES: usize = 8 * 1024 * 1024;

/// What every write is asked for beside its documents.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// Whether to write.
    pub mode: Mode,
    /// The caller's name for this write, under which it may be repeated.
    pub idempotency_key: Option<String>,
    /// Who asks for it, how and why.
    pub origin: Origin,
}

impl WriteOptions {
    /// The key under which an earlier call may have done this. A dry run is another request.
    fn key_of_write(&self) -> Option<&str> {
        match self.mode {
            Mode::Commit => self.idempotency_key.as_deref(),
            Mode::DryRun => None,
        }
    }
}

/// What a write did, or would do.
#[derive(Debug, Default)]
pub struct Written {
    /// The documents that were changed.
    pub documents: Vec<WrittenDocument>,
    /// The documents that already were as requested.
    pub unchanged: Vec<DocumentKey>,
    /// The documents that were found changed outside this server, each with the time of the newest
    /// entry before that. A write has recorded it before its own entry.
    pub changed_outside: BTreeMap<DocumentKey, Timestamp>,
    /// In a dry run, the changes.
    pub planned: Vec<Change>,
    /// Whether an earlier call with the same idempotency key did it.
    pub replayed: bool,
}

/// A document that was changed.
#[derive(Debug)]
pub struct WrittenDocument {
    /// Which one.
    pub key: DocumentKey,
    /// The document as it is now, or would be; `None` if it is deleted or cannot be read.
    pub record: Option<Record>,
    /// Whether an earlier call did this, and the document cannot be read now.
    pub is_unread: bool,
    /// Whether the change undoes earlier ones.
    pub is_revert: bool,
    /// The one before; `None` if there was none, or a repeated request does not tell.
    pub before: Option<Record>,
    /// The recorded changes.
    pub changes: Value,
    /// The id of the audit entry, if one was written.
    pub audit_id: Option<String>,
    /// The rules that the document breaks now.
    pub warnings: Vec<Violation>,
}

/// What is planned for one document.
pub(super) enum Plan {
    /// Write this change, which leaves these rules broken.
    Change(Box<Change>, Vec<Violation>),
    /// The document already is as requested.
    Unchanged,
    /// Write nothing, to any document.
    Refuse(Refusal),
}

/// Why a document is not written.
pub(super) enum Refusal {
    /// There is no such document.
    Missing,
    /// There is one, and none was expected.
    Exists,
    /// It does not have this version, which was expected.
    OtherVersion(String),
    /// The change breaks rules.
    Invalid(Vec<Violation>),
}

/// A document that is not written.
pub(super) struct Refused {
    /// Its number among the requested ones.
    pub(super) index: usize,
    pub(super) current: Current,
    pub(super) refusal: Refusal,
}

/// Why nothing was written.
pub(super) enum Failure {
    /// Because of these documents.
    Refused(Vec<Refused>),
    Error(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Error(error.into())
    }
}

/// One write under way.
pub(super) struct WriteCall {
    keys: Vec<DocumentKey>,
    options: WriteOptions,
    operation: Operation,
    pub(super) deadline: Deadline,
    changed_outside: BTreeMap<DocumentKey, Timestamp>,
}

impl WriteCall {
    /// A write of the documents `keys`. `identity` is what makes two requests the same one.
    pub(super) fn new(
        keys: Vec<DocumentKey>,
        options: WriteOptions,
        identity: Value,
        deadline: Deadline,
    ) -> Self {
        let operation = match options.key_of_write() {
            Some(key) => Operation::keyed(key, identity),
            None => Operation::once(&Uuid::new_v4().to_string(), identity),
        };
        Self {
            keys,
            options,
            operation,
            deadline: deadline.capped(WRITE_TIMEOUT),
            changed_outside: BTreeMap::new(),
        }
    }
}

/// What a write finds.
enum Found {
    /// The documents' states, in the order of the keys.
    States(Vec<Current>),
    /// An earlier call with the same idempotency key did it.
    Done(Commit),
}

/// How one attempt ended.
enum Attempt {
    Done(Written),
    /// A document was changed outside this server. That is recorded now.
    Adopted,
    /// One of these states is not the stored one any more.
    LostRace(Vec<Current>),
}

impl ContentService {
    /// Writes what `plan` gives for each document, all or none, or shows it. `plan` gets the number
    /// and the state of a document, and is asked again after a lost race.
    pub(super) async fn write(
        &self,
        call: &mut WriteCall,
        plan: impl Fn(usize, &Current, WriteContext) -> Plan + Send + Sync,
    ) -> Result<Written, Failure> {
        self.note_use();
        let turns = call.deadline.run(self.write_turns(&call.keys));
        let Ok(_turns) = turns.await else {
            let key = call.keys.first().cloned();
            return Err(key.map_or_else(no_document, |key| Error::Busy { key }.into()));
        };
        let (mut lost_race, mut backoff) = (None, BACKOFF_MIN);
        loop {
            let is_late = |call: &WriteCall| call.deadline.is_within(backoff);
            match self.try_write(call, &plan).await {
                Ok(Attempt::Done(written)) => return Ok(written),
                Ok(Attempt::Adopted) => {}
                Ok(Attempt::LostRace(states)) if is_late(call) => {
                    return Err(self.lost_race(&states).await);
                }
                Ok(Attempt::LostRace(states)) => {
                    lost_race = Some(states);
                    sleep(backoff.mul_f64(0.5 + fastrand::f64())).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
                // Then the races took the time, and not a slow store. The outcome of a commit is
                // never covered up.
                Err(Failure::Error(Error::Unavailable { .. }))
                    if is_late(call) && lost_race.is_some() =>
                {
                    return Err(self.lost_race(&lost_race.unwrap_or_default()).await);
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn try_write(
        &self,
        call: &mut WriteCall,
        plan: &(impl Fn(usize, &Current, WriteContext) -> Plan + Sync),
    ) -> Result<Attempt, Failure> {
        let states = match self.read_states(call).await? {
            Found::States(states) => states,
            Found::Done(commit) => return self.replay_write(call, commit).await,
        };
        let outside = states.iter().filter_map(|state| {
            let after = state.changed_outside()?;
            Some((state.key().clone(), after))
        });
        call.changed_outside.extend(outside);
        let (changes, written) = self.plan_write(call, &states, plan).await?;
        if changes.is_empty() || call.options.mode == Mode::DryRun {
            return Ok(Attempt::Done(written.unwritten(changes)));
        }
        if self.adopt(&changes, call.deadline).await?.is_some() {
            return Ok(Attempt::Adopted);
        }
        match self.commit_in_task(changes, call.operation.clone()).await {
            Ok(commit) if commit.replayed && !written.is_in(&commit) => {
                self.replay_write(call, commit).await
            }
            Ok(_) => Ok(Attempt::Done(written)),
            Err(StoreError::Conflict) => Ok(Attempt::LostRace(states)),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the documents, or finds that the write was done before.
    async fn read_states(&self, call: &WriteCall) -> Result<Found, StoreError> {
        // Read before the idempotency record is looked up: if the record is missing now, what was
        // read is from before its commit.
        let read = self.read_all(&call.keys, call.deadline).await;
        if call.options.key_of_write().is_some() {
            let record = call.deadline.run(self.store.find_commit(&call.operation));
            if let Some(commit) = in_time(record.await)? {
                return Ok(Found::Done(commit));
            }
        }
        Ok(Found::States(read?))
    }

    async fn read_all(
        &self,
        keys: &[DocumentKey],
        deadline: Deadline,
    ) -> Result<Vec<Current>, StoreError> {
        let mut reads = Vec::with_capacity(keys.len());
        for key in keys {
            reads.push(self.read_stored(key));
        }
        let read = stream::iter(reads).buffered(CONCURRENT_READS).try_collect();
        in_time(deadline.run(read).await)
    }

    /// The changes of all documents, and what they lead to.
    async fn plan_write(
        &self,
        call: &WriteCall,
        states: &[Current],
        plan: &(impl Fn(usize, &Current, WriteContext) -> Plan + Sync),
    ) -> Result<(Vec<Change>, Written), Failure> {
        let (mut changes, mut refused) = (Vec::new(), Vec::new());
        let mut written = Written {
            changed_outside: call.changed_outside.clone(),
            ..Written::default()
        };
        for (index, current) in states.iter().enumerate() {
            let origin = call.options.origin.clone();
            match plan(
                index,
                current,
                self.write_context(origin, call.operation.clone()),
            ) {
                Plan::Change(change, warnings) => {
                    written
                        .documents
                        .push(WrittenDocument::by(&change, warnings));
                    changes.push(*change);
                }
                Plan::Unchanged => written.unchanged.push(current.key().clone()),
                Plan::Refuse(refusal) => refused.push(Refused {
                    index,
                    current: current.clone(),
                    refusal,
                }),
            }
            // Large documents take milliseconds each.
            yield_now().await;
        }
        if !refused.is_empty() {
            return Err(Failure::Refused(refused));
        }
        check_size(&changes)?;
        Ok((changes, written))
    }

    /// The result of a write that an earlier call did.
    async fn replay_write(&self, call: &WriteCall, commit: Commit) -> Result<Attempt, Failure> {
        Ok(Attempt::Done(Written {
            documents: self.replayed_documents(commit, call.deadline).await,
            replayed: true,
            ..Written::default()
        }))
    }

    /// The documents that an earlier commit changed, as they are now, with the changes it recorded.
    pub(super) async fn replayed_documents(
        &self,
        commit: Commit,
        deadline: Deadline,
    ) -> Vec<WrittenDocument> {
        let entries = commit.entries.into_iter();
        let entries: Vec<(DocumentKey, StoredEntry)> = entries
            .filter_map(|entry| Some((entry.key()?, entry)))
            .collect();
        let mut reads = Vec::with_capacity(entries.len());
        for (key, _) in &entries {
            reads.push(self.read_written(key, deadline));
        }
        let reads: Vec<_> = stream::iter(reads)
            .buffered(CONCURRENT_READS)
            .collect()
            .await;
        let documents = entries.into_iter().zip(reads);
        documents
            .map(|((key, entry), read)| WrittenDocument {
                is_unread: read.is_err(),
                ..WrittenDocument::of_entry(key, entry, read.ok().flatten())
            })
            .collect()
    }

    /// The error for a race that could not be won in time, with the document that others changed.
    async fn lost_race(&self, states: &[Current]) -> Failure {
        let keys: Vec<DocumentKey> = states.iter().map(|state| state.key().clone()).collect();
        let newest = self
            .read_all(&keys, Deadline::after(LOST_RACE_TIMEOUT))
            .await;
        let newest = newest.unwrap_or_default();
        let mut pairs = states.iter().zip(&newest);
        let changed = pairs.find(|(before, now)| {
            before.version() != now.version() || before.latest_entry() != now.latest_entry()
        });
        let named = changed.map(|(_, now)| now).or(states.first());
        named.map_or_else(no_document, |named| {
            Failure::Error(Error::Conflict {
                key: named.key().clone(),
                current: named.version().cloned(),
                changed_since: Vec::new(),
                changed_outside: named.changed_outside(),
            })
        })
    }

    /// The error for the one document that a write was about.
    pub(super) async fn refusal(&self, failure: Failure, deadline: Deadline) -> Error {
        let refused = match failure {
            Failure::Error(error) => return error,
            Failure::Refused(refused) => refused.into_iter().next(),
        };
        match refused {
            Some(refused) => self.refusal_of(refused, deadline).await,
            None => Error::Invalid(Vec::new()),
        }
    }

    /// The error for a document that is not written.
    pub(super) async fn refusal_of(&self, refused: Refused, deadline: Deadline) -> Error {
        let current = refused.current;
        let key = current.key().clone();
        match (refused.refusal, current.version()) {
            (Refusal::Invalid(violations), _) => Error::Invalid(violations),
            (Refusal::Exists, Some(version)) => Error::Exists {
                key,
                current: version.clone(),
            },
            (Refusal::OtherVersion(expected), version) => Error::Conflict {
                changed_since: self.changed_since(&key, &expected, deadline).await,
                key,
                current: version.cloned(),
                changed_outside: current.changed_outside(),
            },
            (Refusal::Missing | Refusal::Exists, _) => {
                self.not_found(key, current.changed_outside(), deadline)
                    .await
            }
        }
    }
}

/// The failure of a write of no document, which nobody asks for.
fn no_document() -> Failure {
    Failure::Refused(Vec::new())
}

/// Only a set of changes can be too large: each document has a limit of its own.
fn check_size(changes: &[Change]) -> Result<(), Error> {
    let texts = changes
        .iter()
        .flat_map(|change| [change.expected_text(), change.text()]);
    let bytes: usize = texts.flatten().map(str::len).sum();
    if bytes <= MAX_TEXT_BYTES {
        return Ok(());
    }
    let message = format!(
        "expected at most {MAX_TEXT_BYTES} bytes of documents before and after, found {bytes}; send the changes in parts"
    );
    Err(Error::Invalid(vec![Violation::new(
        "changes", "size", message,
    )]))
}

/// The plan to refuse a document that does not have the version that the caller has read.
pub(super) fn other_version(current: &Current, expected: Option<&str>) -> Option<Plan> {
    let (expected, version) = (expected?, current.version()?);
    (expected != Version::as_str(version))
        .then(|| Plan::Refuse(Refusal::OtherVersion(expected.to_owned())))
}

impl Written {
    /// The same, of which nothing was written.
    fn unwritten(mut self, changes: Vec<Change>) -> Self {
        self.planned = changes;
        for document in &mut self.documents {
            document.audit_id = None;
        }
        self
    }

    /// Whether a commit wrote this, and not an earlier call.
    pub(super) fn is_in(&self, commit: &Commit) -> bool {
        let first = self.documents.first().and_then(|it| it.audit_id.as_deref());
        first.is_some_and(|id| commit.has_entry(id))
    }
}

impl WrittenDocument {
    /// The document as a change leaves it, with all the rules that it breaks.
    pub(super) fn of(change: &Change) -> Self {
        let warnings = change.next().map(|next| next.violations().to_vec());
        Self::by(change, warnings.unwrap_or_default())
    }

    fn by(change: &Change, warnings: Vec<Violation>) -> Self {
        Self {
            key: change.key().clone(),
            record: change.next().cloned(),
            is_unread: false,
            is_revert: change.entry().action == Action::Revert,
            before: change.current().record().cloned(),
            changes: json!(change.entry().changes),
            audit_id: Some(change.entry().id.clone()),
            warnings,
        }
    }

    /// What the entry of an earlier write says; `record` is the document as it is now.
    fn of_entry(key: DocumentKey, entry: StoredEntry, record: Option<Record>) -> Self {
        let is_deletion = entry.text_of("action") == Some(Action::Delete.as_str());
        let is_revert = entry.text_of("action") == Some(Action::Revert.as_str());
        let audit_id = entry.text_of("id").map(ToOwned::to_owned);
        let changes = entry.into_json().shift_remove("changes");
        let changes = changes.unwrap_or_else(|| json!([]));
        let before = is_deletion.then(|| {
            let changes = changes.as_array().into_iter().flatten();
            let changes: Vec<FieldChange> = changes.filter_map(FieldChange::of_json).collect();
            Record::of(key.clone(), diff::revert(&Map::new(), &changes))
        });
        Self {
            key,
            record,
            is_unread: false,
            is_revert,
            before,
            changes,
            audit_id,
            warnings: Vec::new(),
        }
    }
}

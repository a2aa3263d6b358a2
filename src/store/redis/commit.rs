//! The commit: one call of `commit.lua`, and what its reply means.

use std::{
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
};

use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value, cmd};

use super::{
    ReadFrom, RedisStore,
    connection::Connection,
    error::{
        describe, is_permission_denied, is_reply, is_untrusted_certificate, read_error, write_error,
    },
    history_index::OwnMembers,
    log,
    reply::{array, text},
    script,
};
use crate::{
    domain::{
        Change, Operation, Record, StoredEntry, Timestamp,
        audit::{ENTRY_PREFIX_FORMAT, MAX_SCANNED_ENTRIES, entry_text},
        text::truncate,
    },
    store::{Commit, StoreError},
};

/// How many keys and arguments the script takes, and how many of each for a document.
const FIXED_KEYS: usize = 8;
const KEYS_PER_DOCUMENT: usize = 8;
const FIXED_ARGUMENTS: usize = 5;
const ARGUMENTS_PER_DOCUMENT: usize = 14;

impl RedisStore {
    pub(super) async fn run_commit(
        &self,
        changes: &[Change],
        operation: &Operation,
    ) -> Result<Commit, StoreError> {
        let rests: Vec<String> = changes.iter().map(|change| change.entry().rest()).collect();
        let reply = self.send_commit(changes, &rests, operation).await?;
        let reply = text(reply).unwrap_or_default();
        match reply.split(' ').collect::<Vec<_>>().as_slice() {
            ["OK", ms, first, _, lacks] => {
                self.note_write();
                match lacks.parse() {
                    Ok(0) | Err(_) => {}
                    Ok(lacks) => self.start_catching_up(lacks),
                }
                Ok(self.committed(changes, &rests, ms, first))
            }
            ["REPLAY", ms, first, count] => self.replayed(ms, first, count).await,
            ["CONFLICT"] => Err(StoreError::Conflict),
            ["MISMATCH"] => Err(StoreError::IdempotencyMismatch),
            ["NOPERM", command @ ..] => Err(StoreError::read_only(format!(
                "the server's Redis user may not run `{}`; grant it the permission, or give the server a credential that may write",
                command.join(" ")
            ))),
            _ => Err(StoreError::Failed(
                "the commit script returned an unexpected reply".to_owned(),
            )),
        }
    }

    /// The entries that the script wrote, and a cache that knows what is stored now.
    fn committed(&self, changes: &[Change], rests: &[String], ms: &str, first: &str) -> Commit {
        let timestamp = Timestamp::from_millis(ms.parse().unwrap_or_default());
        let numbers = first.parse::<u64>().unwrap_or_default()..;
        let entries = changes.iter().zip(rests).zip(numbers);
        Commit {
            entries: entries
                .map(|((change, rest), seq)| {
                    let text = entry_text(seq, timestamp, rest);
                    match change.next() {
                        Some(next) => self.cache.written(next.clone(), &text),
                        None => self.cache.remove(change.key()),
                    }
                    StoredEntry::parse(text)
                })
                .collect(),
            replayed: false,
        }
    }

    /// What an operation did, if its idempotency record is still there.
    pub(super) async fn read_commit(
        &self,
        operation: &Operation,
    ) -> Result<Option<Commit>, StoreError> {
        let mut command = cmd("GET");
        command.arg(self.keys.idempotency_record(operation));
        let record = match self.read(ReadFrom::Primary, &command).await? {
            Value::Nil => return Ok(None),
            value => text(value).map_err(StoreError::Failed)?,
        };
        match record.split('|').collect::<Vec<_>>().as_slice() {
            [fingerprint, ms, first, count] if *fingerprint == operation.fingerprint() => {
                self.replayed(ms, first, count).await.map(Some)
            }
            _ => Err(StoreError::IdempotencyMismatch),
        }
    }

    /// Sends the commit. The idempotency record makes every sending after the first harmless.
    async fn send_commit(
        &self,
        changes: &[Change],
        rests: &[String],
        operation: &Operation,
    ) -> Result<Value, StoreError> {
        let connection = self.write_connection()?;
        let _committing = Counted::new(&self.committing);
        let send = async |schema| {
            let call = Call {
                changes,
                rests,
                operation,
                schema,
            };
            self.send_script(connection, &call).await
        };
        // A user may have access to all keys but that of the schema version, which version 0.1.0 did
        // not name. Then Redis does not even begin with the script.
        let unmarked = || self.keys.internal("self-test");
        let result = if self.schema_is_denied.load(Ordering::Relaxed) {
            send(unmarked()).await
        } else {
            match send(self.keys.schema_version()).await {
                Err(error) if is_permission_denied(&error) => {
                    let result = send(unmarked()).await;
                    self.schema_is_denied
                        .store(result.is_ok(), Ordering::Relaxed);
                    result
                }
                result => result,
            }
        };
        result.map_err(|error| commit_error(&error))
    }

    async fn send_script(
        &self,
        connection: &Connection,
        script: &Call<'_>,
    ) -> Result<Value, RedisError> {
        let by_hash = self.commit_command("EVALSHA", self.commit.get_hash(), script);
        let result = connection.send(&by_hash).await;
        // Not SCRIPT LOAD and EVALSHA again: behind a proxy of several servers the second may not
        // know what the first loaded.
        if matches!(&result, Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript))
        {
            let by_text = self.commit_command("EVAL", script::COMMIT_SCRIPT, script);
            return connection.send(&by_text).await;
        }
        result
    }

    fn commit_command(&self, name: &str, code: &str, script: &Call<'_>) -> Cmd {
        let Call {
            changes,
            rests,
            operation,
            ref schema,
        } = *script;
        let count = FIXED_KEYS + KEYS_PER_DOCUMENT * changes.len();
        let arguments = FIXED_ARGUMENTS + ARGUMENTS_PER_DOCUMENT * changes.len();
        let mut command =
            Cmd::with_capacity(3 + count + arguments, command_bytes(code, changes, rests));
        command.arg(name).arg(code).arg(count);
        command
            .arg(self.keys.idempotency_record(operation))
            .arg(self.keys.entries())
            .arg(self.keys.stats())
            .arg(self.keys.internal("self-test"))
            .arg(self.keys.history())
            .arg(schema)
            .arg(self.keys.history_index())
            .arg(self.keys.history_index_ends());
        for change in changes {
            let key = change.key();
            command
                .arg(self.keys.document(key))
                .arg(self.keys.latest(key));
            for index in ["all", "published", "featured"] {
                command.arg(self.keys.index(index, key.kind));
            }
            command
                .arg(self.keys.cache(key.kind))
                .arg(self.keys.cache_of(key))
                .arg(self.keys.checksum(key));
        }
        let now = changes
            .first()
            .map_or(Timestamp::from_millis(0), Change::time);
        command
            .arg(operation.fingerprint())
            .arg(operation.ttl_seconds())
            .arg(now.millis())
            .arg(changes.len())
            .arg(ENTRY_PREFIX_FORMAT);
        for (change, rest) in changes.iter().zip(rests) {
            let (entry, next) = (change.entry(), change.next());
            let members = OwnMembers::new(entry.entity_type, &entry.entity_id, &entry.id);
            command
                .arg(change.expected_text().unwrap_or_default())
                .arg(change.expected_entry_prefix().unwrap_or_default())
                .arg(change.text().unwrap_or_default())
                .arg(&change.key().id)
                .arg(u8::from(next.is_some_and(Record::is_published)))
                .arg(u8::from(next.is_some_and(Record::is_featured)))
                .arg(entry.action.as_str())
                .arg(entry.entity_type.singular())
                .arg(entry.source.as_str())
                .arg(rest)
                .arg(members.document)
                .arg(members.id)
                .arg(members.tail)
                .arg(next.map(Record::checksum).unwrap_or_default());
        }
        command
    }

    /// The outcome of a commit that an earlier sending wrote, from its idempotency record.
    async fn replayed(&self, ms: &str, first: &str, count: &str) -> Result<Commit, StoreError> {
        let number = |text: &str| {
            text.parse::<u64>().map_err(|_| {
                StoreError::Failed(format!(
                    "the idempotency record is damaged: `{}`",
                    truncate(text)
                ))
            })
        };
        let first = number(first)?;
        let numbers = first..first.saturating_add(number(count)?);
        let mut entries = match ms.parse::<i64>() {
            Ok(score) => self.entries_at(score, &numbers).await?,
            Err(_) => Vec::new(),
        };
        let wanted = usize::try_from(numbers.end - numbers.start).unwrap_or(usize::MAX);
        if entries.len() < wanted {
            entries = self.entries_numbered(&numbers, wanted).await?;
        }
        Ok(Commit {
            entries,
            replayed: true,
        })
    }

    /// The entries with one score that have one of these numbers, in their order.
    async fn entries_at(
        &self,
        score: i64,
        numbers: &Range<u64>,
    ) -> Result<Vec<StoredEntry>, StoreError> {
        let mut command = cmd("ZRANGE");
        command
            .arg(self.keys.entries())
            .arg(score)
            .arg(score)
            .arg("BYSCORE");
        Ok(array(self.read(ReadFrom::Primary, &command).await?)
            .into_iter()
            .filter_map(|value| text(value).ok())
            .map(StoredEntry::parse)
            .filter(|entry| entry.seq().is_some_and(|seq| numbers.contains(&seq)))
            .collect())
    }

    /// The same, whatever their scores: somebody may have corrected a score in the future.
    ///
    /// Ends after as many entries as a search of the log. That an entry has a smaller number does not
    /// mean that all after it do: imported entries have the numbers of another log, and one whose
    /// score is no time is the newest until it is corrected.
    async fn entries_numbered(
        &self,
        numbers: &Range<u64>,
        wanted: usize,
    ) -> Result<Vec<StoredEntry>, StoreError> {
        let (mut entries, mut unscanned) = (Vec::new(), MAX_SCANNED_ENTRIES);
        let entire = self.log();
        let mut scan = entire.scan(log::Range::default());
        while entries.len() < wanted
            && unscanned > 0
            && let Some(piece) = scan
                .next(unscanned)
                .await
                .map_err(|error| read_error(&error))?
        {
            unscanned = unscanned.saturating_sub(piece.len());
            let found = piece
                .into_iter()
                .map(|found| StoredEntry::parse(found.text));
            entries.extend(
                found.filter(|entry| entry.seq().is_some_and(|seq| numbers.contains(&seq))),
            );
        }
        entries.sort_unstable_by_key(StoredEntry::seq);
        Ok(entries)
    }
}

/// What the script is to commit.
struct Call<'a> {
    changes: &'a [Change],
    rests: &'a [String],
    operation: &'a Operation,
    /// The key of the schema version, or the scratch key to leave it alone.
    schema: String,
}

/// About how long the command is, so that it is built without growing.
fn command_bytes(code: &str, changes: &[Change], rests: &[String]) -> usize {
    let texts: usize = changes
        .iter()
        .flat_map(|change| [change.text(), change.expected_text()])
        .map(|text| text.map_or(0, str::len))
        .sum();
    let rests: usize = rests.iter().map(String::len).sum();
    code.len() + texts + rests + 1024 * changes.len()
}

/// A commit that failed: nothing was written, or the outcome is unknown.
fn commit_error(cause: &RedisError) -> StoreError {
    match write_error(cause) {
        // A connection that was refused has carried nothing. Other TLS errors may happen after the
        // commit was sent.
        denied @ StoreError::AccessDenied { .. }
            if !cause.is_io_error() || is_untrusted_certificate(cause) =>
        {
            denied
        }
        error if is_reply(cause) || cause.is_connection_refusal() => error,
        // Lost, late or garbled: the commit may have been applied all the same.
        _ => StoreError::OutcomeUnknown(describe(cause)),
    }
}

/// Counts something while it lasts.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

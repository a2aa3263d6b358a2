//! The commit: one transaction that compares, replaces documents, and adds their audit entries.

use rusqlite::{Connection, OptionalExtension, params};
use serde_json::json;

use super::{
    database::{Database, Problem, describe},
    queries::{latest_entry, marked, stored},
};
use crate::{
    domain::{
        Change, Operation, StoredEntry, Timestamp,
        audit::{Category, entry_text},
        sha256_hex,
    },
    store::{Commit, StoreError},
};

pub(super) fn commit(
    transaction: &Connection,
    changes: &[Change],
    operation: &Operation,
) -> Result<Commit, Problem> {
    if let Some(committed) = find_commit(transaction, operation)? {
        return Ok(committed);
    }
    // A higher score is no time but a mistake, which later entries must not repeat.
    let newest_score: Option<i64> = transaction
        .prepare_cached("SELECT max(score) FROM entries WHERE score <= ?")?
        .query_row([Timestamp::LAST.millis()], |row| row.get(0))?;
    // After an imported log the numbers continue.
    let greatest: Option<i64> = transaction
        .prepare_cached("SELECT max(number) FROM entries")?
        .query_row([], |row| row.get(0))?;
    let before = greatest
        .and_then(|seq| u64::try_from(seq).ok())
        .unwrap_or_default();
    let score = changes
        .first()
        .map_or(0, |change| change.time().millis())
        .max(newest_score.unwrap_or(i64::MIN));

    let mut committed = Commit {
        entries: Vec::with_capacity(changes.len()),
        replayed: false,
    };
    for (change, seq) in changes.iter().zip(before + 1..) {
        check_unchanged(transaction, change)?;
        replace_document(transaction, change)?;
        let entry = StoredEntry::parse(entry_text(
            seq,
            Timestamp::from_millis(score),
            &change.entry().rest(),
        ));
        insert_entry(transaction, Some(seq), score, &entry)?;
        committed.entries.push(entry);
    }

    transaction
        .prepare_cached("DELETE FROM operations WHERE expires <= unixepoch()")?
        .execute([])?;
    let record = "REPLACE INTO operations (key, fingerprint, first, last, expires) VALUES (?, ?, ?, ?, unixepoch() + ?)";
    let first = integer(before + 1);
    let last = integer(before) + i64::try_from(changes.len()).unwrap_or_default();
    transaction.prepare_cached(record)?.execute(params![
        operation.key(),
        operation.fingerprint(),
        first,
        last,
        operation.ttl_seconds()
    ])?;
    Ok(committed)
}

/// What an operation did that was committed before, and whose record has not expired.
pub(super) fn find_commit(
    connection: &Connection,
    operation: &Operation,
) -> Result<Option<Commit>, Problem> {
    let record =
        "SELECT fingerprint, first, last FROM operations WHERE key = ? AND expires > unixepoch()";
    let record = connection
        .prepare_cached(record)?
        .query_row([operation.key()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        });
    let Some((fingerprint, first, last)): Option<(String, i64, i64)> = record.optional()? else {
        return Ok(None);
    };
    if fingerprint != operation.fingerprint() {
        return Err(StoreError::IdempotencyMismatch.into());
    }
    let mut statement = connection
        .prepare_cached("SELECT text FROM entries WHERE seq BETWEEN ? AND ? ORDER BY seq")?;
    let entries = statement
        .query_map([first, last], |row| row.get(0).map(StoredEntry::parse))?
        .collect::<Result<_, _>>()?;
    Ok(Some(Commit {
        entries,
        replayed: true,
    }))
}

/// The outcome of a commit that met a problem.
pub(super) fn resolve_commit(
    database: &Database,
    problem: Problem,
    operation: &Operation,
) -> Result<Commit, StoreError> {
    let text = match &problem {
        Problem::Commit(error) => describe(error),
        Problem::Replaced => "the file was replaced during the commit".to_owned(),
        Problem::Result(_) | Problem::Sqlite(_) => return Err(database.write_error(problem)),
    };
    // The transaction may have reached the disk, and the file that is there now, or not. Its idempotency record tells, read through
    // a fresh connection.
    match database
        .open()
        .and_then(|fresh| find_commit(&fresh, operation))
    {
        // Whose it is, the caller sees by the entries' ids.
        Ok(Some(commit)) => Ok(commit),
        Ok(None) => Err(database.write_error(problem)),
        Err(_) => Err(StoreError::OutcomeUnknown(text)),
    }
}

/// Fails with a conflict if the stored document or its newest entry is not the one that the change
/// was made from. The entry is compared too, because the document may have changed and changed back
/// meanwhile.
fn check_unchanged(transaction: &Connection, change: &Change) -> Result<(), Problem> {
    let unchanged =
        stored(transaction, change.key())?.as_deref() == change.expected_text().map(str::as_bytes);
    let explained = match (
        latest_entry(transaction, change.key())?,
        change.expected_entry_prefix(),
    ) {
        (Some(entry), Some(prefix)) => entry.starts_with(prefix),
        (entry, prefix) => entry.is_none() && prefix.is_none(),
    };
    if unchanged && explained {
        Ok(())
    } else {
        Err(StoreError::Conflict.into())
    }
}

fn replace_document(transaction: &Connection, change: &Change) -> rusqlite::Result<usize> {
    let key = change.key();
    let Some(next) = change.next() else {
        let sql = "DELETE FROM documents WHERE kind = ? AND id = ?";
        let row = [key.kind.singular(), &key.id];
        return transaction.prepare_cached(sql)?.execute(row);
    };
    let index = next.index_entry();
    let sql = "REPLACE INTO documents (kind, id, listed, status, featured, updated, tags, searched, text) VALUES (?, ?, 1, ?, ?, ?, ?, ?, ?)";
    transaction.prepare_cached(sql)?.execute(params![
        key.kind.singular(),
        key.id,
        index.status,
        index.featured,
        index.updated.map(Timestamp::micros),
        json!(index.tags).to_string(),
        marked(&index.search_text),
        next.text(),
    ])
}

/// Adds an entry to the log, and returns how many are new there: 1 or 0. An entry of a commit
/// always is.
pub(super) fn insert_entry(
    transaction: &Connection,
    seq: Option<u64>,
    score: i64,
    entry: &StoredEntry,
) -> rusqlite::Result<usize> {
    let sql = "INSERT INTO entries (seq, number, score, kind, entity_id, action, source, digest, text) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (digest) DO NOTHING";
    transaction.prepare_cached(sql)?.execute(params![
        seq.map(integer),
        entry.seq().filter(|number| *number < 1 << 53).map(integer),
        score,
        entry.label(Category::EntityType),
        entry.text_of("entityId"),
        entry.label(Category::Action),
        entry.label(Category::Source),
        sha256_hex(entry.text().as_bytes()),
        entry.text(),
    ])
}

/// A number as SQLite stores it.
fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

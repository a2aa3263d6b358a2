//! What is read from the tables: documents, lists, the audit log and its counters.

use rusqlite::{Connection, OptionalExtension, params, params_from_iter, types::Value};

use super::database::{AUDIT_ID, Problem};
use crate::{
    domain::{
        AuditPage, AuditQuery, AuditStats, DocumentKey, FoundDocument, Kind, ListPage, ListQuery,
        OutsideChange, Record, StoredEntry, Timestamp,
        audit::{
            AuditPosition, Category, DATED_SCORES, Lookup, MAX_SCANNED_ENTRIES, PageBuilder, Slot,
        },
        changed_outside,
        list::IndexEntry,
        text::truncate,
    },
    store::StoreError,
};

/// The document at `key`.
pub(super) fn record(
    transaction: &Connection,
    key: &DocumentKey,
) -> Result<Option<Record>, Problem> {
    let Some(bytes) = stored(transaction, key)? else {
        return Ok(None);
    };
    parse(key.clone(), bytes).map(Some).map_err(|problem| {
        let key = row_path(key);
        StoreError::Corrupt { key, problem }.into()
    })
}

/// The document at `key`, and whether it was changed outside this server.
pub(crate) fn found(transaction: &Connection, key: &DocumentKey) -> Result<FoundDocument, Problem> {
    let record = record(transaction, key)?;
    let latest_entry = latest_entry(transaction, key)?;
    let changed_outside = changed_outside(record.as_ref(), latest_entry.as_deref());
    Ok(FoundDocument {
        record,
        changed_outside,
    })
}

/// The stored bytes of a document, which after a manual edit may not be text.
pub(super) fn stored(
    connection: &Connection,
    key: &DocumentKey,
) -> rusqlite::Result<Option<Vec<u8>>> {
    let mut statement =
        connection.prepare_cached("SELECT text FROM documents WHERE kind = ? AND id = ?")?;
    statement
        .query_row([key.kind.singular(), &key.id], |row| {
            Ok(row.get_ref(0)?.as_bytes()?.to_vec())
        })
        .optional()
}

/// The entry of the newest commit to a document. Scores that are times never go back, so that the
/// index of scores finds it; entries with other scores are compared by their number.
pub(super) fn latest_entry(
    connection: &Connection,
    key: &DocumentKey,
) -> rusqlite::Result<Option<String>> {
    let sql = "SELECT text FROM (
        SELECT seq, text FROM (SELECT seq, text FROM entries WHERE entity_id = ?1 AND kind = ?2 AND score <= ?3 AND seq IS NOT NULL ORDER BY score DESC, seq DESC LIMIT 1)
        UNION ALL
        SELECT seq, text FROM entries WHERE entity_id = ?1 AND kind = ?2 AND score > ?3 AND seq IS NOT NULL
        ) ORDER BY seq DESC LIMIT 1";
    connection
        .prepare_cached(sql)?
        .query_row(
            params![key.id, key.kind.singular(), Timestamp::LAST.millis()],
            |row| row.get(0),
        )
        .optional()
}

pub(crate) fn parse(key: DocumentKey, bytes: Vec<u8>) -> Result<Record, String> {
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    Record::parse(key, text)
}

/// How messages name the row of a document.
pub(crate) fn row_path(key: &DocumentKey) -> String {
    format!("documents/{}/{}", key.kind.singular(), key.id)
}

/// A page of the documents of a kind.
pub(super) fn list(
    transaction: &Connection,
    kind: Kind,
    query: &ListQuery,
) -> Result<ListPage, Problem> {
    let mut index_entries = indexed(transaction, kind, query)?;
    let mut page = ListPage::default();
    for document in edited(transaction, kind)? {
        match document {
            Ok(record) => {
                index_entries.push(record.index_entry().clone());
                let outside = outside_change(transaction, &record)?;
                page.changed_outside.extend(outside);
            }
            Err(problem) => page.unreadable.push(problem),
        }
    }
    if query.with_deleted_outside {
        let deleted = deleted_outside(transaction, kind)?;
        page.changed_outside.extend(deleted);
    }
    let found = query.page(index_entries);
    (page.total, page.next) = (found.total, found.next);
    for position in found.positions {
        let key = DocumentKey::new(kind, position.id);
        match stored(transaction, &key)?.map(|bytes| parse(key.clone(), bytes)) {
            Some(Ok(record)) => page.records.push(record),
            Some(Err(problem)) => page.unreadable.push(unreadable(&key, &problem)),
            None => {}
        }
    }
    Ok(page)
}

/// Begins the column `searched` where it and `tags` have the form of this version. 0.1.0 wrote fewer
/// fields, and tags of any Unicode composition; it goes on working with the mark.
const MARK: char = '\u{2}';

/// What the column `searched` holds.
pub(super) fn marked(search_text: &str) -> String {
    format!("{MARK}{search_text}")
}

/// The index entries of documents that commits wrote, as far as the columns can filter them.
fn indexed(
    transaction: &Connection,
    kind: Kind,
    query: &ListQuery,
) -> rusqlite::Result<Vec<IndexEntry>> {
    // Columns that are not searched are not read: without these, an index alone gives the list.
    let columns = if query.tag.is_none() && query.words.is_empty() {
        "'[]', char(2), ''"
    } else {
        "tags, searched, CASE WHEN substr(searched, 1, 1) = char(2) THEN '' ELSE text END"
    };
    let sql = format!(
        "SELECT id, status, featured, updated, {columns} FROM documents WHERE listed = 1 AND kind = ?"
    );
    let mut select = Select::new(sql, kind.singular().to_owned());
    if let Some(status) = &query.status {
        select.and("status = ?", [status.clone().into()]);
    }
    if let Some(featured) = query.featured {
        select.and("featured = ?", [featured.into()]);
    }
    let found = select.all(transaction, |row| {
        let id: String = row.get(0)?;
        let searched = row.get_ref(5)?.as_str()?;
        let Some(search_text) = searched.strip_prefix(MARK) else {
            let bytes = row.get_ref(6)?.as_bytes()?.to_vec();
            return Ok(indexed_by_older_version(DocumentKey::new(kind, id), bytes));
        };
        Ok(Some(IndexEntry {
            id,
            status: row.get(1)?,
            featured: row.get(2)?,
            updated: row.get::<_, Option<i64>>(3)?.map(Timestamp::from_micros),
            tags: serde_json::from_str(row.get_ref(4)?.as_str()?).unwrap_or_default(),
            search_text: search_text.to_owned(),
        }))
    })?;
    Ok(found.into_iter().flatten().collect())
}

/// The index entry of a document whose columns 0.1.0 wrote. It is made here until a commit replaces
/// the row.
fn indexed_by_older_version(key: DocumentKey, bytes: Vec<u8>) -> Option<IndexEntry> {
    let record = parse(key, bytes).ok()?;
    Some(record.index_entry().clone())
}

/// Whether a document was changed outside this server.
pub(crate) fn outside_change(
    connection: &Connection,
    record: &Record,
) -> rusqlite::Result<Option<OutsideChange>> {
    let latest_entry = latest_entry(connection, record.key())?;
    let changed_outside = changed_outside(Some(record), latest_entry.as_deref());
    Ok(changed_outside.map(|after| OutsideChange {
        key: record.key().clone(),
        after,
        is_deleted: false,
    }))
}

/// Documents that are gone, although their newest entry did not delete them.
///
/// Goes from each id in the log to the next one, however many entries that has.
pub(crate) fn deleted_outside(
    connection: &Connection,
    kind: Kind,
) -> Result<Vec<OutsideChange>, Problem> {
    let sql = "WITH RECURSIVE ids (id) AS (
        SELECT min(entity_id) FROM entries
        UNION ALL
        SELECT (SELECT min(entity_id) FROM entries WHERE entity_id > ids.id) FROM ids WHERE ids.id IS NOT NULL
        ) SELECT id FROM ids WHERE NOT EXISTS (SELECT 1 FROM documents WHERE kind = ?1 AND documents.id = ids.id)
        AND EXISTS (SELECT 1 FROM entries WHERE entity_id = ids.id AND kind = ?1)";
    let mut statement = connection.prepare_cached(sql)?;
    let ids = statement.query_map([kind.singular()], |row| row.get::<_, String>(0))?;
    let mut deleted = Vec::new();
    for id in ids {
        let key = DocumentKey::new(kind, id?);
        deleted.extend(OutsideChange::of(&key, &found(connection, &key)?));
    }
    Ok(deleted)
}

/// Documents that were edited by hand, or why one cannot be read. They are parsed here until a
/// commit replaces them.
fn edited(transaction: &Connection, kind: Kind) -> rusqlite::Result<Vec<Result<Record, String>>> {
    let select = Select::new(
        "SELECT id, text FROM documents WHERE listed = 0 AND kind = ?".to_owned(),
        kind.singular().to_owned(),
    );
    select.all(transaction, |row| {
        let key = DocumentKey::new(kind, row.get::<_, String>(0)?);
        let bytes = row.get_ref(1)?.as_bytes()?.to_vec();
        Ok(parse(key.clone(), bytes).map_err(|problem| unreadable(&key, &problem)))
    })
}

/// One line about a listed document that is left out.
fn unreadable(key: &DocumentKey, problem: &str) -> String {
    format!(
        "left out the document at `{}`: {problem}; keep a copy of its text, then repair it",
        truncate(&row_path(key))
    )
}

/// A page of the audit log. Its rows are read one by one, until the page is full.
pub(super) fn audit_entries(
    transaction: &Connection,
    query: &AuditQuery,
) -> Result<AuditPage, Problem> {
    let select = select_entries(transaction, query)?;
    let mut page = PageBuilder::of_lookup(query);
    let mut statement = transaction.prepare_cached(&select.sql)?;
    let mut rows = statement.query(params_from_iter(select.values))?;
    while let Some(row) = rows.next()? {
        let slot = Slot {
            score: row.get(0)?,
            nth: 0,
        };
        let entry = StoredEntry::parse(row.get(1)?);
        if page.look_at(slot, entry).is_break() {
            break;
        }
    }
    let mut page = page.finish();
    if query.with_log_begins {
        page.log_begins = log_begins(transaction)?;
    }
    Ok(page)
}

/// The entries to look at for a page, in the log's order.
fn select_entries(transaction: &Connection, query: &AuditQuery) -> rusqlite::Result<Select> {
    let mut select = match query.lookup() {
        Some(lookup) => found_by(lookup),
        // The log's order, and not an index of what is searched for: a page ends where it would end
        // in any other store.
        None => Select {
            sql: "SELECT score, text FROM entries INDEXED BY entries_by_score WHERE TRUE"
                .to_owned(),
            values: Vec::new(),
        },
    };
    let since = query.since.map_or(i64::MIN, Timestamp::millis_ceil);
    select.and("score >= ?", [since.into()]);
    if let Some(until) = query.until {
        select.and("score < ?", [until.millis_ceil().into()]);
    }
    if let Some(after) = &query.after {
        after_position(transaction, after, &mut select)?;
    }
    let most = i64::try_from(MAX_SCANNED_ENTRIES).unwrap_or(i64::MAX);
    select.end(
        "ORDER BY score DESC, text DESC LIMIT ?",
        most.saturating_add(1).into(),
    );
    Ok(select)
}

/// The entries that an index finds.
fn found_by(lookup: Lookup<'_>) -> Select {
    match lookup {
        Lookup::AuditIds(ids) => {
            let parameters = vec!["?"; ids.len()].join(", ");
            Select {
                sql: format!("SELECT score, text FROM entries WHERE {AUDIT_ID} IN ({parameters})"),
                values: ids.iter().map(|id| id.clone().into()).collect(),
            }
        }
        Lookup::Document { id, kind } => {
            let sql = "SELECT score, text FROM entries INDEXED BY entries_by_entity_id WHERE entity_id = ?";
            let mut select = Select::new(sql.to_owned(), id.to_owned());
            if let Some(kind) = kind {
                select.and("kind = ?", [kind.singular().to_owned().into()]);
            }
            select
        }
    }
}

/// The time of the oldest entry that has one.
fn log_begins(connection: &Connection) -> rusqlite::Result<Option<Timestamp>> {
    let oldest: Option<i64> = connection
        .prepare_cached("SELECT min(score) FROM entries WHERE score BETWEEN ? AND ?")?
        .query_row([DATED_SCORES.start(), DATED_SCORES.end()], |row| row.get(0))?;
    Ok(oldest.map(Timestamp::from_millis))
}

/// Only entries after a position. Those of the same millisecond follow in the order of their texts;
/// none do if the position is not in this log.
fn after_position(
    transaction: &Connection,
    after: &AuditPosition,
    select: &mut Select,
) -> rusqlite::Result<()> {
    let text = transaction
        .prepare_cached("SELECT text FROM entries WHERE score = ? AND substr(digest, 1, 16) = ?")?
        .query_row(params![after.score, after.digest], |row| {
            row.get::<_, String>(0)
        })
        .optional()?;
    select.and("score <= ?", [after.score.into()]);
    select.and(
        "(score < ? OR text < ?)",
        [after.score.into(), text.unwrap_or_default().into()],
    );
    Ok(())
}

/// The counters of the log.
pub(super) fn audit_stats(transaction: &Connection) -> Result<AuditStats, Problem> {
    let count = |row: &rusqlite::Row, column| {
        Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or_default())
    };
    let total = transaction
        .prepare_cached("SELECT count(*) FROM entries")?
        .query_row([], |row| count(row, 0))?;
    let mut stats = AuditStats {
        total,
        ..AuditStats::default()
    };
    for (category, counts) in Category::ALL.into_iter().zip(&mut stats.counts) {
        let column = match category {
            Category::Action => "action",
            Category::EntityType => "kind",
            Category::Source => "source",
        };
        let sql = format!(
            "SELECT {column}, count(*) FROM entries WHERE {column} IS NOT NULL GROUP BY {column}"
        );
        let mut statement = transaction.prepare_cached(&sql)?;
        *counts = statement
            .query_map([], |row| Ok((row.get(0)?, count(row, 1)?)))?
            .collect::<Result<_, _>>()?;
    }
    Ok(stats)
}

/// A SELECT whose conditions depend on the query. Values never become part of its text.
struct Select {
    sql: String,
    values: Vec<Value>,
}

impl Select {
    fn new(sql: String, value: impl Into<Value>) -> Self {
        Self {
            sql,
            values: vec![value.into()],
        }
    }

    fn and<const N: usize>(&mut self, condition: &str, values: [Value; N]) {
        self.sql.push_str(" AND ");
        self.sql.push_str(condition);
        self.values.extend(values);
    }

    fn end(&mut self, clause: &str, value: Value) {
        self.sql.push(' ');
        self.sql.push_str(clause);
        self.values.push(value);
    }

    fn all<T>(
        self,
        connection: &Connection,
        read: impl FnMut(&rusqlite::Row) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        connection
            .prepare_cached(&self.sql)?
            .query_map(params_from_iter(self.values), read)?
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::database::Database, *};

    /// Without its index, a query would read every entry of the log, or sort them.
    #[test]
    fn each_query_of_the_log_uses_an_index() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::new(folder.path().join("store.db"));
        let Ok(connection) = database.open() else {
            panic!("the file cannot be opened");
        };
        let key = DocumentKey::new(Kind::Project, "a");
        let of_any_kind = AuditQuery {
            kind: None,
            since: Some(Timestamp::from_millis(5)),
            ..AuditQuery::of(&key, 5)
        };
        let by_ids = AuditQuery::by_ids(["x", "y"].map(str::to_owned).into());
        for (query, index) in [
            (AuditQuery::default(), "entries_by_score"),
            (AuditQuery::of(&key, 5), "entries_by_entity_id"),
            (of_any_kind, "entries_by_entity_id"),
            (by_ids, "entries_by_audit_id"),
        ] {
            let select = select_entries(&connection, &query).unwrap();

            let sql = format!("EXPLAIN QUERY PLAN {}", select.sql);
            let mut statement = connection.prepare(&sql).unwrap();
            let plan: Vec<String> = statement
                .query_map(params_from_iter(select.values), |row| row.get(3))
                .unwrap()
                .collect::<Result<_, _>>()
                .unwrap();
            assert!(
                plan[0].starts_with("SEARCH") && plan[0].contains(index),
                "{plan:?}"
            );
        }
    }
}

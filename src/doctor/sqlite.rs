//! Checks of a SQLite file: whether the server could read and write it, and whether it is damaged.
//!
//! Creates and changes nothing: the transaction that tests writing is rolled back.

use std::{
    fs, io,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, TransactionBehavior, params};
use uuid::Uuid;

use super::{
    finding::{Fault, Finding, Verdict, changed_outside, documents, empty_store, sample},
    times::{UntimelyEntries, first_future_score, updated_in_the_future},
};
use crate::{
    domain::{DocumentKey, Kind, OutsideChange, StoredEntry, Timestamp, text::truncate},
    settings::file_access,
    store::sqlite::{
        database::{Database, Problem, SCHEMA_VERSION},
        queries::{deleted_outside, outside_change, parse, row_path},
    },
};

/// Checks the file at `path`.
pub(super) async fn diagnose(path: &Path, clock: fn() -> Timestamp, findings: &mut Vec<Finding>) {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let checks = tokio::task::spawn_blocking(move || {
        let (writable, this_user) = folder(&path);
        let mut findings = vec![writable];
        match file(&path) {
            ControlFlow::Continue(finding) => {
                findings.push(finding);
                findings.extend(others(&path, this_user));
                database(path, clock, &mut findings);
            }
            ControlFlow::Break(finding) => {
                let is_empty = finding.verdict == Verdict::Ok;
                findings.push(finding);
                findings.extend(is_empty.then(empty_store));
            }
        }
        findings
    });
    match checks.await {
        Ok(found) => findings.extend(found),
        Err(error) => findings.push(Finding::problem(
            Fault::Store,
            "file",
            error.to_string(),
            "run doctor again",
        )),
    }
}

/// Whether files can be created in the folder: SQLite keeps two more beside its own. If the folder
/// does not exist yet, its nearest parent is checked. Also the user that files are created for.
fn folder(path: &Path) -> (Finding, Option<u32>) {
    let folder = path
        .ancestors()
        .skip(1)
        .find(|folder| folder.exists())
        .unwrap_or(path);
    let name = folder.display();
    let probe = folder.join(format!(".portfolio-mcp-doctor-{}", Uuid::new_v4()));
    let created = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&probe);
    let this_user = file_access::owner(&probe);
    let finding = match created.and_then(|_| fs::remove_file(&probe)) {
        Ok(()) => Finding::ok("folder", format!("`{name}` is writable")),
        Err(error) => Finding::problem(
            Fault::Store,
            "folder",
            format!("`{name}` is not writable: {error}"),
            "give this user write access, or choose another path with --store sqlite:PATH",
        ),
    };
    (finding, this_user)
}

/// What other users may do to the content, whatever the server allows.
fn others(path: &Path, this_user: Option<u32>) -> Option<Finding> {
    let name = path.display();
    if file_access::others_may_write(path) {
        return Some(Finding::warning(
            "file access",
            format!("`{name}` can be changed by other users of this machine"),
            "run `chmod 600` on it, unless the server runs as one of them",
        ));
    }
    let owner = file_access::owner(path)?;
    (owner != this_user?).then(|| {
        Finding::warning(
            "file access",
            format!("`{name}` belongs to another user (number {owner})"),
            "run doctor and the server as that user, or give the file to this one with `chown`",
        )
    })
}

/// `Break` if there is no database to check.
fn file(path: &Path) -> ControlFlow<Finding, Finding> {
    let name = path.display();
    let problem = |message, remedy| {
        ControlFlow::Break(Finding::problem(Fault::Store, "file", message, remedy))
    };
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.len() > 0 => {
            let size = metadata.len().div_ceil(1024);
            ControlFlow::Continue(Finding::ok("file", format!("`{name}`, {size} KB")))
        }
        Ok(metadata) if metadata.is_file() => ControlFlow::Break(Finding::ok(
            "file",
            format!("`{name}` is empty; its tables are created on first use"),
        )),
        Ok(_) => problem(
            format!("`{name}` is not a file"),
            "choose another path with --store sqlite:PATH",
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => ControlFlow::Break(Finding::ok(
            "file",
            format!("`{name}` does not exist yet; it is created on first use"),
        )),
        Err(error) => problem(
            format!("`{name}` cannot be accessed: {error}"),
            "give this user access to the file and its folder",
        ),
    }
}

fn database(path: PathBuf, clock: fn() -> Timestamp, findings: &mut Vec<Finding>) {
    let database = Database::new(path);
    let checked = database.open().and_then(|mut connection| {
        findings.push(Finding::ok("schema version", SCHEMA_VERSION.to_string()));
        findings.push(writing(&database, &mut connection));
        findings.push(write_ahead_log(&connection)?);
        findings.push(integrity(&connection)?);
        let mut outside = Vec::new();
        for kind in Kind::ALL {
            findings.extend(content(&connection, kind, clock(), &mut outside)?);
        }
        findings.extend(changed_outside(&outside));
        findings.extend(is_empty(&connection)?.then(empty_store));
        findings.push(audit_log(&connection)?);
        let untimely = untimely_entries(&connection, clock())?;
        let correction = move_to_the_present(&database.path);
        findings.extend(untimely.findings(clock(), &correction));
        Ok(())
    });
    if let Err(problem) = checked {
        findings.push(Finding::problem(
            Fault::Store,
            "file",
            database.read_error(problem).to_string(),
            "until this is fixed, all tools fail",
        ));
    }
}

fn writing(database: &Database, connection: &mut Connection) -> Finding {
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .and_then(rusqlite::Transaction::rollback);
    match transaction {
        Ok(()) => Finding::ok("writing", "is possible"),
        Err(error) => Finding::problem(
            Fault::Content,
            "writing",
            database.write_error(Problem::Sqlite(error)).to_string(),
            "until this is fixed, all writes fail; if that is intended, start the server with --read-only",
        ),
    }
}

fn write_ahead_log(connection: &Connection) -> Result<Finding, Problem> {
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    Ok(if mode == "wal" {
        Finding::ok("write-ahead log", "on")
    } else {
        Finding::warning(
            "write-ahead log",
            format!("off: the journal mode is `{}`", truncate(&mode)),
            "move the file to a local disk; until then reads and writes block each other",
        )
    })
}

fn integrity(connection: &Connection) -> Result<Finding, Problem> {
    let mut check = connection.prepare("PRAGMA quick_check(10)")?;
    let lines: Vec<String> = check
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok(if lines.iter().all(|line| line == "ok") {
        Finding::ok("integrity", "no damage found")
    } else {
        Finding::problem(
            Fault::Store,
            "integrity",
            format!("the file is damaged: {}", sample(&lines, "; ")),
            "keep a copy of it; then restore a backup, or save what can be read with `sqlite3 FILE .recover`",
        )
    })
}

fn content(
    connection: &Connection,
    kind: Kind,
    now: Timestamp,
    outside: &mut Vec<OutsideChange>,
) -> Result<Vec<Finding>, Problem> {
    let mut statement =
        connection.prepare("SELECT id, text FROM documents WHERE kind = ? ORDER BY id")?;
    let mut rows = statement.query([kind.singular()])?;
    let (mut records, mut unreadable) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        let key = DocumentKey::new(kind, row.get::<_, String>(0)?);
        let text = row.get_ref(1)?.as_bytes().map_err(rusqlite::Error::from)?;
        match parse(key.clone(), text.to_vec()) {
            Ok(record) => records.push(record),
            Err(problem) => unreadable.push(format!("`{}` ({problem})", truncate(&row_path(&key)))),
        }
    }
    for record in &records {
        outside.extend(outside_change(connection, record)?);
    }
    outside.extend(deleted_outside(connection, kind)?);
    let mut findings = documents(kind, &records, &unreadable, 0);
    findings.extend(updated_in_the_future(kind, &records, now));
    Ok(findings)
}

fn is_empty(connection: &Connection) -> Result<bool, Problem> {
    let exists = connection.query_row("SELECT EXISTS (SELECT 1 FROM documents)", [], |row| {
        row.get(0)
    });
    exists.map(|exists: bool| !exists).map_err(Problem::from)
}

fn audit_log(connection: &Connection) -> Result<Finding, Problem> {
    let entries: i64 =
        connection.query_row("SELECT count(*) FROM entries", [], |row| row.get(0))?;
    Ok(Finding::ok("audit log", format!("{entries} entries")))
}

/// Entries that a wrong clock or somebody's hand has scored.
fn untimely_entries(connection: &Connection, now: Timestamp) -> Result<UntimelyEntries, Problem> {
    const SHOWN: i64 = 3;
    let between = |from: i64, to: i64, limit: i64| {
        let sql = "SELECT text, score FROM entries WHERE score BETWEEN ? AND ? ORDER BY score, text LIMIT ?";
        connection
            .prepare(sql)?
            .query_map(params![from, to, limit], |row| {
                Ok((StoredEntry::parse(row.get(0)?), row.get(1)?))
            })?
            .collect::<Result<Vec<_>, _>>()
    };
    let last = Timestamp::LAST.millis();
    let mut timeless = between(last + 1, i64::MAX, SHOWN)?;
    timeless.extend(between(i64::MIN, -1, SHOWN)?);
    Ok(UntimelyEntries {
        future: between(first_future_score(now), last, 1)?.pop(),
        timeless,
    })
}

/// The command that gives all entries of the future the present time; those with the same time are
/// in the order of their numbers.
fn move_to_the_present(path: &Path) -> String {
    format!(
        "`sqlite3 '{}' \"UPDATE entries SET score = unixepoch() * 1000 WHERE score > unixepoch() * 1000\"`",
        path.display()
    )
}

//! What `doctor` finds in a SQLite file: whether the server could read and write it, and whether it is whole.
//!
//! Makes no file and changes none; what it tries to write, it takes back.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Mutex,
};

use rusqlite::{Connection, TransactionBehavior};
use uuid::Uuid;

use super::{
    database::{Database, Problem, SCHEMA_VERSION},
    queries::{parse, row_path},
};
use crate::{
    domain::{DocumentKey, Kind, Timestamp, text::truncate},
    store::examination::{Fault, Finding, documents, few, newest_entry},
};

/// Examines the file at `path`.
pub(in crate::store) async fn examine(
    path: &Path,
    clock: fn() -> Timestamp,
    findings: &mut Vec<Finding>,
) {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let examined = tokio::task::spawn_blocking(move || {
        let mut findings = Vec::new();
        look(path, clock, &mut findings);
        findings
    });
    match examined.await {
        Ok(found) => findings.extend(found),
        Err(error) => findings.push(Finding::problem(
            Fault::Store,
            "file",
            error.to_string(),
            "examine it again",
        )),
    }
}

fn look(path: PathBuf, clock: fn() -> Timestamp, findings: &mut Vec<Finding>) {
    let shown = path.display().to_string();
    findings.push(folder(&path));
    match fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() && metadata.len() > 0 => {
            findings.push(Finding::ok(
                "file",
                format!("`{shown}`, {} KB", metadata.len().div_ceil(1024)),
            ));
        }
        Ok(metadata) if metadata.is_file() => {
            findings.push(Finding::ok(
                "file",
                format!("`{shown}` is empty; the first use makes its tables"),
            ));
            return;
        }
        Ok(_) => {
            findings.push(Finding::problem(
                Fault::Store,
                "file",
                format!("`{shown}` is no file"),
                "choose another path with --store sqlite:PATH",
            ));
            return;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            findings.push(Finding::ok(
                "file",
                format!("`{shown}` is not there yet; the first use makes it"),
            ));
            return;
        }
        Err(error) => {
            let remedy = "see that this user may read the file and its folder";
            findings.push(Finding::problem(
                Fault::Store,
                "file",
                format!("`{shown}` cannot be looked at: {error}"),
                remedy,
            ));
            return;
        }
    }
    let database = Database {
        path,
        writer: Mutex::new(None),
        readers: Mutex::new(Vec::new()),
    };
    let asked = database.open().and_then(|mut connection| {
        findings.push(Finding::ok("schema version", SCHEMA_VERSION.to_string()));
        findings.push(
            match connection.transaction_with_behavior(TransactionBehavior::Immediate).and_then(rusqlite::Transaction::rollback) {
                Ok(()) => Finding::ok("writing", "is possible"),
                Err(error) => {
                    let remedy = "until this is mended writes are refused; start the server with --read-only if that is meant";
                    Finding::problem(Fault::Content, "writing", database.write_error(Problem::Sqlite(error)).to_string(), remedy)
                }
            },
        );
        ask(&connection, clock(), findings)
    });
    if let Err(problem) = asked {
        let remedy = "mend this first; until then tools fail";
        findings.push(Finding::problem(
            Fault::Store,
            "file",
            database.read_error(problem).to_string(),
            remedy,
        ));
    }
}

/// Whether the folder, or the nearest one that there is, takes a file: SQLite keeps two more beside its own.
fn folder(path: &Path) -> Finding {
    let folder = path
        .ancestors()
        .skip(1)
        .find(|folder| folder.exists())
        .unwrap_or(path);
    let shown = folder.display();
    let probe = folder.join(format!(".portfolio-mcp-doctor-{}", Uuid::new_v4()));
    let made = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&probe)
        .and_then(|_| fs::remove_file(&probe));
    match made {
        Ok(()) => Finding::ok("folder", format!("`{shown}` can be written")),
        Err(error) => {
            let remedy = "let this user write it, or choose another place with --store sqlite:PATH";
            Finding::problem(
                Fault::Store,
                "folder",
                format!("`{shown}` cannot be written: {error}"),
                remedy,
            )
        }
    }
}

fn ask(
    connection: &Connection,
    now: Timestamp,
    findings: &mut Vec<Finding>,
) -> Result<(), Problem> {
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    findings.push(if mode == "wal" {
        Finding::ok("write-ahead log", "on")
    } else {
        let remedy =
            "put the file on a local disk: reads and writes wait for each other until then";
        Finding::warning(
            "write-ahead log",
            format!("off: the journal mode is `{}`", truncate(&mode)),
            remedy,
        )
    });
    let mut check = connection.prepare("PRAGMA quick_check(10)")?;
    let wrong: Vec<String> = check
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    findings.push(if wrong.iter().all(|line| line == "ok") {
        Finding::ok("integrity", "the file is whole")
    } else {
        Finding::problem(
            Fault::Store,
            "integrity",
            format!("the file is damaged: {}", few(&wrong, "; ")),
            "restore it from a backup",
        )
    });
    for kind in Kind::ALL {
        let mut statement =
            connection.prepare("SELECT id, text FROM documents WHERE kind = ? ORDER BY id")?;
        let mut rows = statement.query([kind.singular()])?;
        let (mut records, mut unreadable) = (Vec::new(), Vec::new());
        while let Some(row) = rows.next()? {
            let key = DocumentKey::new(kind, row.get::<_, String>(0)?);
            match parse(
                key.clone(),
                row.get_ref(1)?
                    .as_bytes()
                    .map_err(rusqlite::Error::from)?
                    .to_vec(),
            ) {
                Ok(record) => records.push(record),
                Err(problem) => {
                    unreadable.push(format!("`{}` ({problem})", truncate(&row_path(&key))));
                }
            }
        }
        findings.extend(documents(kind, &records, &unreadable));
    }
    let (entries, newest): (i64, Option<i64>) =
        connection.query_row("SELECT count(*), max(score) FROM entries", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    findings.push(Finding::ok("audit log", format!("{entries} entries")));
    findings.extend(newest.and_then(|score| newest_entry(score, now)));
    Ok(())
}

//! Checks of what a Redis database contains: key types, documents, indexes, the audit log.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use redis::{RedisError, Value, cmd};

use super::{
    connection::DiagnosticConnection,
    finding::{Fault, Finding, changed_outside, counted, documents, empty_store, sample},
    redis_documents::{DocumentReader, PIECE_TIMEOUT, not_arrived},
    redis_outside,
    times::{UntimelyEntries, first_future_score, updated_in_the_future},
};
use crate::{
    deadline::Deadline,
    domain::{
        AuditStats, DocumentKey, Kind, OutsideChange, Record, StoredEntry, Timestamp,
        text::truncate,
    },
    store::redis::{
        error::is_permission_denied,
        keys::Keys,
        log::PieceSize,
        reply::{array, pairs, scored, text},
    },
};

/// How many of the newest audit entries are read at most.
const NEWEST_ENTRIES: usize = 100;
/// After this many bytes of them no more are read.
const NEWEST_BYTES: usize = 128 * 1024;
/// How many entries with a score that is no time are shown.
const SHOWN_ENTRIES: usize = 3;
/// Scores all entries of the future, in their order, with the milliseconds from now on, and deletes
/// the history index, which the server builds again. Without quotation marks that a shell would end
/// its argument at.
const MOVE_TO_THE_PRESENT: &str = "local now = redis.call('TIME')[1] * 1000 \
local late = redis.call('ZRANGE', KEYS[1], '(' .. now, '+inf', 'BYSCORE') \
for i, entry in ipairs(late) do redis.call('ZADD', KEYS[1], 'XX', now + i, entry) end \
redis.call('DEL', KEYS[2]) \
return #late";
/// A search for documents that are in no index goes through every key of the database, so it ends
/// after this time.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(6);
/// Upstash limits a record to 100 MB, and the audit log is one record.
const MAX_LOG_BYTES: u64 = 80_000_000;

/// Checks the content; `now` is the store's time. Reads documents until `deadline`.
pub(super) async fn diagnose(
    keys: &Keys,
    connection: &mut DiagnosticConnection,
    now: Timestamp,
    deadline: Deadline,
    findings: &mut Vec<Finding>,
) -> Result<(), RedisError> {
    connection.set_response_timeout(PIECE_TIMEOUT);
    let mut checks = ContentChecks {
        keys,
        connection,
        reader: DocumentReader::until(deadline),
        outside: Vec::new(),
        findings,
    };
    checks.schema_version().await?;
    checks.key_types().await?;
    checks.documents(now).await?;
    checks.audit_log().await?;
    checks.entry_times(now).await
}

struct ContentChecks<'a> {
    keys: &'a Keys,
    connection: &'a mut DiagnosticConnection,
    reader: DocumentReader,
    outside: Vec<OutsideChange>,
    findings: &'a mut Vec<Finding>,
}

/// What is stored under the ids of a kind.
#[derive(Default)]
struct StoredDocuments {
    records: Vec<Record>,
    /// What cannot be read as a document, in words.
    unreadable: Vec<String>,
    /// Ids without a document.
    absent: BTreeSet<String>,
    /// Ids of documents that were not read.
    skipped: BTreeSet<String>,
}

impl ContentChecks<'_> {
    async fn schema_version(&mut self) -> Result<(), RedisError> {
        let check = "schema version";
        let key = self.keys.schema_version();
        let finding = match self.connection.send(cmd("GET").arg(&key)).await.map(text) {
            Ok(Ok(version)) if version == "1" => Finding::ok(check, version),
            Ok(Ok(version)) => Finding::problem(
                Fault::Content,
                check,
                format!("`{}`; this program supports 1", truncate(&version)),
                format!(
                    "another program may have changed how the content is stored; find out which one, and set `{key}` to 1 if nothing else changed"
                ),
            ),
            Ok(Err(_)) => Finding::ok(check, "not set; the first write sets it"),
            Err(error) if is_permission_denied(&error) => Finding::ok(
                check,
                format!("not checked: this user may not read `{key}`, so no write sets it"),
            ),
            Err(error) if error.is_io_error() => return Err(error),
            Err(_) => Finding::problem(
                Fault::Content,
                check,
                format!("`{key}` is not a string"),
                "find out which program wrote it, and rename the key",
            ),
        };
        self.findings.push(finding);
        Ok(())
    }

    async fn key_types(&mut self) -> Result<(), RedisError> {
        let mut expected = vec![
            (self.keys.entries(), "zset"),
            (self.keys.stats(), "hash"),
            (self.keys.internal("unlabelled"), "hash"),
            (self.keys.history_index(), "zset"),
        ];
        for kind in Kind::ALL {
            expected.extend(
                ["all", "published", "featured"].map(|index| (self.keys.index(index, kind), "set")),
            );
        }
        let mut pipeline = redis::pipe();
        for (key, _) in &expected {
            pipeline.cmd("TYPE").arg(key);
        }
        let replies = self.connection.send_all(&pipeline).await?;
        let found = replies.into_iter().map(|reply| {
            reply
                .ok()
                .and_then(|value| text(value).ok())
                .unwrap_or_default()
        });
        let wrong: Vec<String> = expected
            .iter()
            .zip(found)
            .filter(|((_, kind), found)| !found.is_empty() && found != "none" && found != kind)
            .map(|((key, kind), found)| format!("`{key}` is a {found}, not a {kind}"))
            .collect();
        self.findings.push(if wrong.is_empty() {
            Finding::ok("keys", "all have the expected Redis type")
        } else {
            Finding::problem(
                Fault::Content,
                "keys",
                sample(&wrong, "; "),
                "rename these keys; until then writes fail, and so does reading what belongs there",
            )
        });
        Ok(())
    }

    async fn documents(&mut self, now: Timestamp) -> Result<(), RedisError> {
        let stored = self.search().await?;
        let mut is_empty = true;
        for kind in Kind::ALL {
            let indexed = self.index("all", kind).await?;
            let ids = indexed
                .iter()
                .chain(stored.get(&kind).into_iter().flatten())
                .cloned()
                .collect();
            let found = self.fetch(kind, ids).await?;
            let skipped = found.skipped.len();
            is_empty &= found.records.is_empty() && found.unreadable.is_empty() && skipped == 0;
            self.findings
                .extend(documents(kind, &found.records, &found.unreadable, skipped));
            self.findings
                .extend(updated_in_the_future(kind, &found.records, now));

            let absent = found.absent.iter();
            let absent: Vec<_> = absent.map(|id| DocumentKey::new(kind, id)).collect();
            let (keys, connection) = (self.keys, &mut *self.connection);
            let outside = redis_outside::changes(keys, connection, &found.records, &absent);
            self.outside.extend(outside.await?);

            let mut drift = self.index_of_all(kind, &indexed, &found);
            drift.extend(
                self.secondary_index("published", kind, &found, Record::is_published)
                    .await?,
            );
            drift.extend(
                self.secondary_index("featured", kind, &found, Record::is_featured)
                    .await?,
            );
            if drift.is_empty() {
                drift.push(Finding::ok(
                    "index",
                    format!(
                        "the indexes of {} match the documents{}",
                        kind.plural(),
                        if skipped > 0 { " that were read" } else { "" }
                    ),
                ));
            }
            self.findings.append(&mut drift);
        }
        self.findings.extend(changed_outside(&self.outside));
        self.findings.extend(is_empty.then(empty_store));
        self.findings.extend(self.reader.findings());
        Ok(())
    }

    /// Checks the index that lists are made from.
    fn index_of_all(
        &self,
        kind: Kind,
        indexed: &BTreeSet<String>,
        found: &StoredDocuments,
    ) -> Vec<Finding> {
        let name = self.keys.index("all", kind);
        let existing = ids_of(&found.records, |_| true);
        let missing: Vec<&String> = existing.difference(indexed).collect();
        let dangling: Vec<&String> = found.absent.intersection(indexed).collect();
        let mut findings = Vec::new();
        if !missing.is_empty() {
            findings.push(Finding::problem(
                Fault::Content,
                "index",
                lacks(&name, &missing),
                format!(
                    "lists do not show them; update each of them once, or run {}",
                    repair("SADD", &name, &missing)
                ),
            ));
        }
        if !dangling.is_empty() {
            findings.push(Finding::warning(
                "index",
                format!(
                    "`{name}` has {} without a document: {}",
                    counted(dangling.len(), "id"),
                    sample(&dangling, ", ")
                ),
                format!(
                    "harmless: lists skip them; to remove them, run {}",
                    repair("SREM", &name, &dangling)
                ),
            ));
        }
        findings
    }

    /// Checks an index that this program writes for the website.
    async fn secondary_index(
        &mut self,
        index: &str,
        kind: Kind,
        found: &StoredDocuments,
        belongs: fn(&Record) -> bool,
    ) -> Result<Vec<Finding>, RedisError> {
        let name = self.keys.index(index, kind);
        let members = self.index(index, kind).await?;
        let expected = ids_of(&found.records, belongs);
        let missing: Vec<&String> = expected.difference(&members).collect();
        let extra: Vec<&String> = members
            .difference(&expected)
            .filter(|id| !found.skipped.contains(*id))
            .collect();
        let warning = |message, command, ids: &[&String]| {
            let remedy = format!(
                "harmless for this program, but the website may use the index; update each document once, or run {}",
                repair(command, &name, ids)
            );
            Finding::warning("index", message, remedy)
        };
        let mut findings = Vec::new();
        if !missing.is_empty() {
            findings.push(warning(lacks(&name, &missing), "SADD", &missing));
        }
        if !extra.is_empty() {
            let message = format!(
                "`{name}` has {} that should not be in it: {}",
                counted(extra.len(), "id"),
                sample(&extra, ", ")
            );
            findings.push(warning(message, "SREM", &extra));
        }
        Ok(findings)
    }

    async fn index(&mut self, index: &str, kind: Kind) -> Result<BTreeSet<String>, RedisError> {
        let key = self.keys.index(index, kind);
        match self.connection.send(cmd("SMEMBERS").arg(key)).await {
            Ok(members) => Ok(array(members)
                .into_iter()
                .filter_map(|id| text(id).ok())
                .collect()),
            Err(error) if error.is_io_error() => Err(error),
            // An earlier check reported missing permissions and keys of another type.
            Err(_) => Ok(BTreeSet::new()),
        }
    }

    /// The ids of all documents, also of those that are in no index, and of those that had a document
    /// once.
    async fn search(&mut self) -> Result<BTreeMap<Kind, BTreeSet<String>>, RedisError> {
        let mut found: BTreeMap<Kind, BTreeSet<String>> = BTreeMap::new();
        let start = Instant::now();
        for (kind, prefix) in Kind::ALL.into_iter().flat_map(|kind| {
            let every = DocumentKey::new(kind, "");
            [self.keys.document(&every), self.keys.checksum(&every)].map(|prefix| (kind, prefix))
        }) {
            let mut cursor = "0".to_owned();
            loop {
                let (next, keys) = match self.connection.scan(&prefix, &cursor).await {
                    Ok(page) => page,
                    Err(error) if is_permission_denied(&error) => {
                        self.findings.push(Finding::ok(
                            "index",
                            "did not look for documents that are in no index: this user may not run SCAN",
                        ));
                        return Ok(found);
                    }
                    Err(error) => return Err(error),
                };
                let ids = keys
                    .iter()
                    .filter_map(|key| key.strip_prefix(&prefix).map(ToOwned::to_owned));
                found.entry(kind).or_default().extend(ids);
                if next == "0" {
                    break;
                }
                if start.elapsed() > SEARCH_TIMEOUT {
                    self.findings.push(Finding::warning(
                        "index",
                        format!(
                            "stopped looking for documents that are in no index after {} s: the database has too many keys",
                            SEARCH_TIMEOUT.as_secs()
                        ),
                        "give the site its own database",
                    ));
                    return Ok(found);
                }
                cursor = next;
            }
        }
        Ok(found)
    }

    async fn fetch(
        &mut self,
        kind: Kind,
        ids: BTreeSet<String>,
    ) -> Result<StoredDocuments, RedisError> {
        let mut found = StoredDocuments::default();
        let keys: Vec<DocumentKey> = ids
            .into_iter()
            .map(|id| DocumentKey::new(kind, id))
            .collect();
        let names: Vec<String> = keys.iter().map(|key| self.keys.document(key)).collect();
        let mut next = 0;
        while let Some(rest) = names.get(next..).filter(|rest| !rest.is_empty()) {
            let values = match self.reader.next(self.connection, rest).await {
                Ok(Some(values)) if !values.is_empty() => values,
                Err(error) if !is_permission_denied(&error) => return Err(error),
                // An earlier check reported missing permissions.
                _ => break,
            };
            for ((key, name), value) in keys.iter().zip(&names).skip(next).zip(values) {
                self.sort(&mut found, key, name, value).await?;
                next += 1;
            }
        }
        found.skipped = keys.into_iter().skip(next).map(|key| key.id).collect();
        Ok(found)
    }

    /// Adds what is stored under `name`, the name of `key`, to where it belongs.
    async fn sort(
        &mut self,
        found: &mut StoredDocuments,
        key: &DocumentKey,
        name: &str,
        value: Value,
    ) -> Result<(), RedisError> {
        let stored = match value {
            Value::Nil => self
                .type_of(name)
                .await?
                .map(|other| Err(format!("it is a Redis {other}"))),
            value => Some(text(value).and_then(|text| Record::parse(key.clone(), text))),
        };
        match stored {
            Some(Ok(record)) => found.records.push(record),
            Some(Err(problem)) => found
                .unreadable
                .push(format!("`{}` ({problem})", truncate(name))),
            None => {
                found.absent.insert(key.id.clone());
            }
        }
        Ok(())
    }

    /// The type of a key for which `MGET` returned nothing; `None` if there is no such key.
    async fn type_of(&mut self, key: &str) -> Result<Option<String>, RedisError> {
        let name = text(self.connection.send(cmd("TYPE").arg(key)).await?);
        Ok(name
            .ok()
            .filter(|name| !matches!(name.as_str(), "none" | "string")))
    }

    async fn audit_log(&mut self) -> Result<(), RedisError> {
        // Read before the counters, which a write in between moves on.
        let newest = self.newest_entries().await?;
        let mut pipeline = redis::pipe();
        pipeline.cmd("ZCARD").arg(self.keys.entries());
        pipeline.cmd("HGETALL").arg(self.keys.stats());
        pipeline
            .cmd("HGETALL")
            .arg(self.keys.internal("unlabelled"));
        pipeline.cmd("ZCARD").arg(self.keys.history_index());
        pipeline.cmd("MEMORY").arg("USAGE").arg(self.keys.entries());
        let mut replies = self
            .connection
            .send_all(&pipeline)
            .await?
            .into_iter()
            .map(Result::unwrap_or_default);
        let mut next = || replies.next().unwrap_or_default();
        let number = |value| match value {
            Value::Int(number) => u64::try_from(number).unwrap_or_default(),
            _ => 0,
        };
        let total = number(next());
        let (counters, unlabelled) = (pairs(next()), pairs(next()));
        let indexed = number(next());
        self.findings.push(log_size(total, &newest, &next()));
        let Some((entry, _)) = newest.first() else {
            return Ok(());
        };
        self.findings.push(history_index(total, indexed));

        let check = "audit counters";
        let counter = counters.get("seq").and_then(|seq| seq.parse::<u64>().ok());
        let counts_match = !AuditStats::from_counters(total, &counters, &unlabelled).recounting;
        self.findings.push(if !counts_match {
            Finding::warning(
                check,
                "do not match the log, as older programs leave them",
                "harmless: get_audit_stats counts the log itself, and corrects the counters where it may write",
            )
        } else if StoredEntry::parse(entry.clone()).seq() > counter {
            Finding::warning(
                check,
                "`seq` is behind the newest entry",
                "harmless: the next write continues after the newest entry",
            )
        } else {
            Finding::ok(check, "match the log")
        });
        Ok(())
    }

    /// The newest entries, newest first, in pieces as the server reads them: some of them, because
    /// they may be large and the network slow.
    async fn newest_entries(&mut self) -> Result<Vec<(String, i64)>, RedisError> {
        let (mut size, mut bytes, mut found) = (PieceSize::new(0), 0, Vec::new());
        while found.len() < NEWEST_ENTRIES && bytes < NEWEST_BYTES {
            // The first piece is one entry, whose size is not known.
            let wanted = if found.is_empty() {
                1
            } else {
                NEWEST_ENTRIES - found.len()
            };
            let count = size.next(wanted);
            let mut range = cmd("ZRANGE");
            range.arg(self.keys.entries()).arg(found.len());
            range.arg(found.len() + count - 1).arg("REV");
            let begun = Instant::now();
            let piece = match self.connection.send(range.arg("WITHSCORES")).await {
                Ok(reply) => scored(reply),
                Err(error) if error.is_timeout() => {
                    self.connection.reopen(PIECE_TIMEOUT).await?;
                    self.findings
                        .push(not_arrived("audit log", "one of the newest entries"));
                    break;
                }
                Err(error) if error.is_io_error() => return Err(error),
                // An earlier check reported missing permissions and keys of another type.
                Err(_) => break,
            };
            size.note(&piece, begun.elapsed());
            bytes += piece.iter().map(|(entry, _)| entry.len()).sum::<usize>();
            let ended = piece.len() < count;
            found.extend(piece);
            if ended {
                break;
            }
        }
        Ok(found)
    }

    /// Looks for entries that a wrong clock or another program has scored.
    async fn entry_times(&mut self, now: Timestamp) -> Result<(), RedisError> {
        let last = Timestamp::LAST.millis();
        let ranges = [
            (first_future_score(now).to_string(), last.to_string(), 1),
            (format!("({last}"), "+inf".to_owned(), SHOWN_ENTRIES),
            ("-inf".to_owned(), "(0".to_owned(), SHOWN_ENTRIES),
        ];
        let mut pipeline = redis::pipe();
        for (from, to, count) in ranges {
            let range = pipeline.cmd("ZRANGE").arg(self.keys.entries());
            range.arg(from).arg(to).arg("BYSCORE");
            range.arg("LIMIT").arg(0).arg(count).arg("WITHSCORES");
        }
        let mut found = self.connection.send_all(&pipeline).await?.into_iter();
        let mut next = || {
            let reply = found.next().and_then(Result::ok).unwrap_or_default();
            let entries = scored(reply).into_iter();
            entries
                .map(|(text, score)| (StoredEntry::parse(text), score))
                .collect::<Vec<_>>()
        };
        let mut untimely = UntimelyEntries {
            future: next().pop(),
            timeless: next(),
        };
        untimely.timeless.extend(next());
        let correction = move_to_the_present(self.keys);
        self.findings.extend(untimely.findings(now, &correction));
        Ok(())
    }
}

/// `members` is the size of the history index, which has two for each entry of the log.
fn history_index(entries: u64, members: u64) -> Finding {
    let message = match (2 * entries).checked_sub(members) {
        Some(0) => "complete".to_owned(),
        Some(missing) => format!(
            "lacks {} of {entries} entries, which the server adds when it reads a history or writes",
            missing.div_ceil(2)
        ),
        None => {
            "does not match the log, and is built again when the server reads a history".to_owned()
        }
    };
    Finding::ok("history index", message)
}

/// The command that gives all entries of the future the present time, in their order.
fn move_to_the_present(keys: &Keys) -> String {
    format!(
        "`redis-cli -u \"$REDIS_URL\" EVAL \"{MOVE_TO_THE_PRESENT}\" 2 '{}' '{}'`",
        truncate(&keys.entries()),
        truncate(&keys.history_index())
    )
}

/// `memory` is the reply to `MEMORY USAGE`, which not every server and user has; without it the
/// newest entries give an estimate.
fn log_size(total: u64, newest: &[(String, i64)], memory: &Value) -> Finding {
    /// What Redis adds to each entry, roughly.
    const OVERHEAD: usize = 64;
    let (bytes, about) = if let Value::Int(bytes) = memory {
        (u64::try_from(*bytes).unwrap_or_default(), "")
    } else {
        let sum: usize = newest.iter().map(|(entry, _)| entry.len() + OVERHEAD).sum();
        let average = u64::try_from(sum / newest.len().max(1)).unwrap_or_default();
        (total * average, "about ")
    };
    #[expect(clippy::cast_precision_loss, reason = "it is shown with one digit")]
    let megabytes = bytes as f64 / 1e6;
    let message = format!("{total} entries, {about}{megabytes:.1} MB");
    if bytes <= MAX_LOG_BYTES {
        return Finding::ok("audit log", message);
    }
    Finding::warning(
        "audit log",
        message,
        "Upstash limits a record to 100 MB and then refuses writes; before that, have the limit raised or move to another Redis",
    )
}

fn ids_of(records: &[Record], belongs: fn(&Record) -> bool) -> BTreeSet<String> {
    records
        .iter()
        .filter(|record| belongs(record))
        .map(|record| record.key().id.clone())
        .collect()
}

fn lacks(index: &str, ids: &[&String]) -> String {
    format!(
        "`{index}` lacks {}: {}",
        counted(ids.len(), "document"),
        sample(ids, ", ")
    )
}

/// The command that corrects an index, with as many ids as a line has room for.
fn repair(command: &str, index: &str, ids: &[&String]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<_> = ids.iter().take(SHOWN).map(|id| truncate(id)).collect();
    let rest = if ids.len() > SHOWN {
        ", and the same for the other ids"
    } else {
        ""
    };
    format!("`{command} {index} {}`{rest}", shown.join(" "))
}

//! `doctor --smoke`: tries on a Redis what this program relies on and cannot know, such as what scripts may do on Upstash.
//!
//! Everything happens under `internal:smoke:` and a text of its own, and is deleted at the end, whatever happened before.

use std::{
    slice::from_ref,
    time::{Duration, Instant},
};

use redis::{AsyncConnectionConfig, Cmd, PushInfo, PushKind, RedisError, Script, Value, cmd};
use serde_json::{Map, json};
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    RedisStore,
    error::{describe, is_permission_denied, read_error},
    examination::{DiagnosticConnection, described, literal, write_context},
    keys::Keys,
    reply::{array, kind_of, text},
};
use crate::{
    domain::{
        AuditQuery, Change, Current, DocumentKey, Kind, ListQuery, Operation, Record, StoredEntry,
        Timestamp, text::truncate,
    },
    store::{
        Commit, RedisUrl, Repository, StoreError,
        examination::{Fault, Finding, Verdict},
        resilient::Resilient,
    },
};

/// What is not done by then, besides waiting, is broken off.
const TRIAL: Duration = Duration::from_secs(40);
/// How long a published message may be on its way.
const MESSAGE: Duration = Duration::from_secs(3);
/// How often the deleting is tried.
const DELETIONS: u32 = 3;
/// Keys that are not part of a commit go by themselves, should this process be killed.
const SECONDS: u32 = 600;

/// Tries the Redis that these credentials lead to.
pub(in crate::store) async fn smoke(
    write: &RedisUrl,
    read: Option<&RedisUrl>,
    key_prefix: &str,
    clock: fn() -> Timestamp,
    idle: Option<Duration>,
    stop: CancellationToken,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let keys = Keys {
        prefix: key_prefix.to_owned(),
    };
    let prefix = keys.internal(&format!("smoke:{}:", Uuid::new_v4().simple()));
    let mut trial = SmokeTest {
        write,
        read,
        prefix: &prefix,
        clock,
        begun: false,
        findings: &mut findings,
    };
    let broken_off = tokio::select! {
        done = timeout(TRIAL + idle.unwrap_or_default(), trial.run(idle)) => done.is_err().then_some("the store answers too slowly"),
        () = stop.cancelled() => Some("it was told to stop"),
    };
    let begun = trial.begun;
    if let Some(reason) = broken_off {
        findings.push(Finding::problem(
            Fault::Store,
            "smoke",
            format!("broken off: {reason}"),
            "run it again",
        ));
    }
    if begun {
        if findings
            .iter()
            .any(|finding| matches!(finding.verdict, Verdict::Problem(_)))
        {
            // What was sent last may be on its way yet, and would come after the deletion.
            sleep(Duration::from_secs(1)).await;
        }
        findings.push(tidied(write, &prefix).await);
    }
    findings
}

struct SmokeTest<'a> {
    write: &'a RedisUrl,
    read: Option<&'a RedisUrl>,
    /// Before every key that is written.
    prefix: &'a str,
    clock: fn() -> Timestamp,
    /// Whether there may be something to delete.
    begun: bool,
    findings: &'a mut Vec<Finding>,
}

impl SmokeTest<'_> {
    async fn run(&mut self, idle: Option<Duration>) {
        let (sender, pushes) = unbounded_channel();
        let config = AsyncConnectionConfig::new().set_push_sender(sender);
        let mut line = match DiagnosticConnection::open_with(
            self.write,
            "writing credential",
            config,
        )
        .await
        {
            Ok(line) => line,
            Err(error) => {
                let remedy = "set REDIS_URL to the address and password that the store's console shows; nothing was tried";
                self.findings.push(Finding::problem(
                    Fault::Store,
                    "smoke: login",
                    error.to_string(),
                    remedy,
                ));
                return;
            }
        };
        self.findings.push(Finding::ok(
            "smoke: login",
            format!("{} is let in, the password is right", self.write),
        ));
        if let Err(error) = delete(&mut line, self.prefix).await {
            let says = format!("keys could not be deleted again: {error}");
            self.fails(
                "smoke: tidying up",
                says,
                "give this user SCAN and DEL for the trial, or use another one; nothing was tried",
            );
            return;
        }
        self.begun = true;
        if let Err(error) = self.tries(&mut line, pushes).await {
            self.fails(
                "smoke: connection",
                read_error(&error).to_string(),
                "the rest was not tried; run it again when the line is better",
            );
            return;
        }
        self.commits().await;
        self.reader().await;
        if let Some(idle) = idle {
            self.idle(&mut line, idle).await;
        }
    }

    async fn tries(
        &mut self,
        line: &mut DiagnosticConnection,
        pushes: UnboundedReceiver<PushInfo>,
    ) -> Result<(), RedisError> {
        self.hello(line).await?;
        self.scripts(line).await?;
        self.messages(line, pushes).await?;
        self.second_connection(line).await?;
        self.latency(line).await
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn fails(&mut self, check: &str, says: impl Into<String>, consequence: &str) {
        self.findings
            .push(Finding::problem(Fault::Store, check, says, consequence));
    }

    /// Runs a script: `ok` if it gives the expected texts, else `otherwise`, with what follows from it.
    async fn expect(
        &mut self,
        line: &mut DiagnosticConnection,
        code: &str,
        expected: &[&str],
        otherwise: Finding,
    ) -> Result<(), RedisError> {
        let found = match line
            .ask(cmd("EVAL").arg(code).arg(1).arg(self.key("script")))
            .await
        {
            Err(error) if error.is_io_error() => return Err(error),
            Err(error) => describe(&error),
            Ok(value) => {
                let parts = array(value)
                    .into_iter()
                    .map(|part| text(part).unwrap_or_else(|problem| problem));
                parts.collect::<Vec<_>>().join(", ")
            }
        };
        let expected = expected.join(", ");
        self.findings.push(if found == expected {
            Finding::ok(otherwise.check, "as expected")
        } else {
            Finding {
                says: format!(
                    "expected `{}`, found `{}`",
                    truncate(&expected),
                    truncate(&found)
                ),
                ..otherwise
            }
        });
        Ok(())
    }

    async fn hello(&mut self, line: &mut DiagnosticConnection) -> Result<(), RedisError> {
        let check = "smoke: HELLO 3";
        let protocol = match line.ask(cmd("HELLO").arg(3)).await {
            Ok(Value::Map(members)) => {
                let is_protocol =
                    |name: &Value| text(name.clone()).is_ok_and(|name| name == "proto");
                members
                    .into_iter()
                    .find(|(name, _)| is_protocol(name))
                    .map(|(_, value)| described(&value))
                    .unwrap_or_default()
            }
            Ok(other) => format!("a {}", kind_of(&other)),
            Err(error) if error.is_io_error() => return Err(error),
            Err(error) => describe(&error),
        };
        if protocol == "3" {
            self.findings.push(Finding::ok(check, "RESP3 is spoken"));
        } else {
            let consequence = "add `?protocol=resp2` to the address; a connection that the store closed is then noticed by the next call only";
            self.fails(
                check,
                format!("expected protocol 3, found {protocol}"),
                consequence,
            );
        }
        Ok(())
    }

    /// What the commit script relies on, each in a script of its own.
    async fn scripts(&mut self, line: &mut DiagnosticConnection) -> Result<(), RedisError> {
        let failed =
            |check: &str, consequence: &str| Finding::problem(Fault::Store, check, "", consequence);

        let code =
            "local t = redis.call('TIME') return {type(t), tostring(#t), type(t[1]), type(t[2])}";
        let consequence = "entries are stamped by this machine's clock; several servers then need clocks that agree";
        let otherwise = Finding::warning("smoke: TIME in a script", "", consequence);
        self.expect(line, code, &["table", "2", "string", "string"], otherwise)
            .await?;

        let code = format!(
            "redis.call('SET', KEYS[1], 'x', 'EX', '{SECONDS}') local r = redis.pcall('SADD', KEYS[1], 'm') \
             return {{type(r), type(r) == 'table' and type(r.err) or '', type(r) == 'table' and string.match(r.err or '', 'WRONGTYPE') or ''}}"
        );
        let consequence = "a refusal in the middle of a commit may go unnoticed; do not write with this server, and tell its developers";
        self.expect(
            line,
            &code,
            &["table", "string", "WRONGTYPE"],
            failed("smoke: errors of redis.pcall", consequence),
        )
        .await?;

        let code = "return {string.format('%.0f', 1770000000123456), '[' .. string.format('%16.0f', 7) .. ']'}";
        let consequence = "numbers and order of audit entries would be wrong; do not write with this server, and tell its developers";
        self.expect(
            line,
            code,
            &["1770000000123456", "[               7]"],
            failed("smoke: string.format", consequence),
        )
        .await?;

        let code =
            "local t = {} for i = 1, 500 do t[i] = i end return {tostring(select('#', unpack(t)))}";
        self.expect(
            line,
            code,
            &["500"],
            failed(
                "smoke: unpack",
                "commits fail, imports first; tell the server's developers",
            ),
        )
        .await?;

        let says = match line
            .ask(cmd("EVAL").arg("return type(redis.acl_check_cmd)").arg(0))
            .await
        {
            Ok(kind) if described(&kind) == "`function`" => {
                "the server can be asked, so each commit asks first"
            }
            Err(error) if error.is_io_error() => return Err(error),
            _ => {
                "the server cannot be asked, so each commit tries its commands on a key of its own first"
            }
        };
        self.findings.push(Finding::ok("smoke: permissions", says));
        Ok(())
    }

    /// Messages of the store, which tell other servers of a write.
    async fn messages(
        &mut self,
        line: &mut DiagnosticConnection,
        mut pushes: UnboundedReceiver<PushInfo>,
    ) -> Result<(), RedisError> {
        let channel = self.key("channel");
        let consequence = "nothing today; once servers tell each other of writes, they have to ask the store instead";
        let subscribed = line.subscribe(&channel).await;
        if let Err(error) = subscribed {
            self.findings.push(Finding::warning(
                "smoke: push",
                format!("SUBSCRIBE is refused: {}", describe(&error)),
                consequence,
            ));
            return Ok(());
        }
        let publish = "local r = redis.pcall('PUBLISH', ARGV[1], 'hello') return type(r) == 'table' and r.err or tostring(r)";
        let published = line
            .ask(cmd("EVAL").arg(publish).arg(0).arg(&channel))
            .await;
        let count = published
            .as_ref()
            .ok()
            .and_then(|value| text(value.clone()).ok())
            .unwrap_or_default();
        if count.parse::<u64>().is_ok() {
            self.findings
                .push(Finding::ok("smoke: PUBLISH in a script", "as expected"));
        } else {
            let says = published.map_or_else(|error| describe(&error), |value| described(&value));
            self.findings.push(Finding::warning(
                "smoke: PUBLISH in a script",
                format!("is refused: {says}"),
                consequence,
            ));
        }
        let arrived = async {
            while let Some(push) = pushes.recv().await {
                if push.kind == PushKind::Message {
                    return true;
                }
            }
            false
        };
        self.findings.push(match timeout(MESSAGE, arrived).await {
            Ok(true) => Finding::ok("smoke: push", "a published message arrives"),
            _ => Finding::warning(
                "smoke: push",
                "a published message does not arrive",
                consequence,
            ),
        });
        Ok(())
    }

    /// Another connection may reach another server, which does not know the script.
    async fn second_connection(
        &mut self,
        line: &mut DiagnosticConnection,
    ) -> Result<(), RedisError> {
        let check = "smoke: EVALSHA from a second connection";
        let script = Script::new(&format!("return '{}'", self.prefix));
        line.ask(cmd("EVAL").arg(format!("return '{}'", self.prefix)).arg(0))
            .await?;
        let mut second = match DiagnosticConnection::open(self.write, "second connection").await {
            Ok(second) => second,
            Err(error) => {
                self.fails(
                    check,
                    error.to_string(),
                    "this program needs two to four connections; see the store's limit",
                );
                return Ok(());
            }
        };
        self.findings.push(match second.ask(cmd("EVALSHA").arg(script.get_hash()).arg(0)).await {
            Ok(_) => Finding::ok(check, "knows what EVAL loaded"),
            Err(error) if error.is_io_error() => return Err(error),
            Err(error) => {
                let consequence = "the whole script is then sent, which makes a write a round trip longer and changes nothing else";
                Finding::warning(check, describe(&error), consequence)
            }
        });
        Ok(())
    }

    async fn latency(&mut self, line: &mut DiagnosticConnection) -> Result<(), RedisError> {
        const TIMES: usize = 21;
        let median = line.round_trip(&self.key("nothing"), TIMES).await?;
        self.findings.push(Finding::ok(
            "smoke: latency",
            format!(
                "{:.1} ms, the median of {TIMES}",
                median.as_secs_f64() * 1000.0
            ),
        ));
        Ok(())
    }

    /// The real commit, on keys with a prefix of their own: all that a store promises of it.
    async fn commits(&mut self) {
        let check = "smoke: commit";
        let consequence =
            "do not write with this server before that is understood; tell its developers";
        match self.committed().await {
            Ok(took) => {
                let says = format!(
                    "create, update, conflict, replay and mismatch are as they should be, with entries and indexes; one took {:.1} ms",
                    took.as_secs_f64() * 1000.0
                );
                self.findings.push(Finding::ok(check, says));
            }
            Err(problem) => self.fails(check, problem, consequence),
        }
    }

    async fn committed(&self) -> Result<Duration, String> {
        let store = Resilient::new(
            RedisStore::new(Some(self.write), None, self.prefix)
                .map_err(|error| error.to_string())?,
        );
        let key = document_key();
        let said = |step: &'static str| move |error: StoreError| format!("{step}: {error}");
        let document = |status: &str| {
            let metadata = json!({ "status": status, "featured": status == "published" });
            Map::from_iter([
                ("id".to_owned(), json!("smoke")),
                ("empty".to_owned(), json!([])),
                ("metadata".to_owned(), metadata),
            ])
        };
        let [first, second, third] = operations(self.prefix, 1);
        let read = async || -> Result<Current, String> {
            let current = store.get_for_update(&key).await.map_err(said("read"))?;
            match current.record() {
                Some(_) => Ok(current),
                None => Err("read: the written document is not there".to_owned()),
            }
        };

        let absent = store.get_for_update(&key).await.map_err(said("read"))?;
        let creation = Change::put(
            &absent,
            &document("draft"),
            write_context(&first, (self.clock)()),
        )
        .ok_or("create: the document is there already")?;
        expect(
            "create",
            &store
                .commit(&[creation], &first)
                .await
                .map_err(said("create"))?,
            1,
            false,
        )?;
        let drafted = read().await?;
        let update = |operation: &Operation| {
            let change = Change::put(
                &drafted,
                &document("published"),
                write_context(operation, (self.clock)()),
            );
            change.ok_or_else(|| {
                format!(
                    "read: expected the document that was written, found `{}`",
                    truncate(drafted.record().map_or("", Record::text))
                )
            })
        };
        let change = update(&second)?;
        let start = Instant::now();
        let updated = store
            .commit(from_ref(&change), &second)
            .await
            .map_err(said("update"))?;
        let took = start.elapsed();
        expect("update", &updated, 2, false)?;
        if read().await?.record().map(Record::text) != Some(change.text()) {
            return Err("read: expected the document that was written, byte for byte".to_owned());
        }
        match store.commit(&[update(&third)?], &third).await {
            Err(StoreError::Conflict) => {}
            other => {
                return Err(format!(
                    "conflict: a write on an old state was not refused, but {}",
                    outcome(&other)
                ));
            }
        }
        let replayed = store
            .commit(from_ref(&change), &second)
            .await
            .map_err(said("replay"))?;
        expect("replay", &replayed, 2, true)?;
        let [_, other, _] = operations(self.prefix, 2);
        match store.commit(&[change], &other).await {
            Err(StoreError::IdempotencyMismatch) => {}
            other => {
                return Err(format!(
                    "idempotency: another request under a used key was not refused, but {}",
                    outcome(&other)
                ));
            }
        }
        let entries = store
            .audit_entries(&AuditQuery::of(&key, 10))
            .await
            .map_err(said("audit log"))?
            .entries;
        if entries.iter().map(StoredEntry::seq).ne([Some(2), Some(1)]) {
            return Err(format!(
                "audit log: expected entries 2 and 1, found {} entries",
                entries.len()
            ));
        }
        let stats = store.audit_stats().await.map_err(said("audit counters"))?;
        let listed = store
            .list(
                key.kind,
                &ListQuery {
                    limit: 10,
                    ..ListQuery::default()
                },
            )
            .await
            .map_err(said("index"))?;
        if (stats.total, listed.total) != (2, 1) {
            return Err(format!(
                "expected 2 entries counted and 1 document listed, found {} and {}",
                stats.total, listed.total
            ));
        }
        Ok(took)
    }

    /// What the read-only credential may; what it may not is no fault, but has to be known.
    async fn reader(&mut self) {
        let check = "smoke: read-only credential";
        let Some(url) = self.read else {
            self.findings.push(Finding::ok(
                check,
                "none is configured, so reads use the other one",
            ));
            return;
        };
        let mut line = match DiagnosticConnection::open(url, "reading credential").await {
            Ok(line) => line,
            Err(error) => {
                let consequence = "leave the read-only token out, or set REDIS_URL, and reads use the other credential";
                self.fails(check, error.to_string(), consequence);
                return;
            }
        };
        let key = self.key("reader");
        let tries = [
            ("PING", cmd("PING")),
            ("TIME", cmd("TIME")),
            ("EVAL_RO", cmd("EVAL_RO").arg("return 1").arg(0).clone()),
            (
                "SCAN",
                cmd("SCAN").arg("0").arg("MATCH").arg(literal(&key)).clone(),
            ),
            ("GET", cmd("GET").arg(&key).clone()),
            ("SMEMBERS", cmd("SMEMBERS").arg(&key).clone()),
            ("ZRANGE", cmd("ZRANGE").arg(&key).arg(0).arg(-1).clone()),
            ("HGETALL", cmd("HGETALL").arg(&key).clone()),
        ];
        let (mut may, mut may_not) = (Vec::new(), Vec::new());
        for (name, command) in &tries {
            match line.ask(command).await {
                Ok(_) => may.push(*name),
                Err(_) => may_not.push(*name),
            }
        }
        let says = format!(
            "is let in; may {}; may not {}",
            may.join(", "),
            if may_not.is_empty() {
                "nothing of these".to_owned()
            } else {
                may_not.join(", ")
            }
        );
        let lacks = ["GET", "SMEMBERS", "ZRANGE", "HGETALL"]
            .iter()
            .any(|name| may_not.contains(name));
        self.findings.push(if lacks {
            Finding::problem(
                Fault::Store,
                check,
                says,
                "reads fail; leave the read-only token out",
            )
        } else {
            Finding::ok(check, says)
        });
        let written = line
            .ask(cmd("SET").arg(&key).arg("x").arg("EX").arg(SECONDS))
            .await;
        self.findings.push(match written {
            Err(error) if is_permission_denied(&error) => Finding::ok(check, "may not write"),
            Err(error) => Finding::warning(
                check,
                format!("a write is refused with `{}`", describe(&error)),
                "nothing; it should be NOPERM",
            ),
            Ok(_) => Finding::warning(
                check,
                "may write",
                "it is no read-only credential: a server with it alone could change content",
            ),
        });
    }

    async fn idle(&mut self, line: &mut DiagnosticConnection, idle: Duration) {
        let check = "smoke: idle connection";
        sleep(idle).await;
        self.findings.push(match line.ask(cmd("GET").arg(self.key("nothing"))).await {
            Ok(_) => Finding::ok(check, format!("is still open after {} s", idle.as_secs())),
            Err(error) => {
                let says = format!("was closed within {} s: {}", idle.as_secs(), describe(&error));
                Finding::warning(check, says, "the server connects again by itself, and the first call after a pause is a little slower")
            }
        });
    }
}

fn expect(step: &str, committed: &Commit, seq: u64, replayed: bool) -> Result<(), String> {
    let numbers: Vec<Option<u64>> = committed.entries.iter().map(StoredEntry::seq).collect();
    if numbers == [Some(seq)] && committed.replayed == replayed {
        return Ok(());
    }
    Err(format!(
        "{step}: expected entry {seq}, replayed {replayed}; found {numbers:?}, replayed {}",
        committed.replayed
    ))
}

fn outcome(result: &Result<Commit, StoreError>) -> String {
    match result {
        Ok(committed) if committed.replayed => "answered as a replay".to_owned(),
        Ok(_) => "applied".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// Deletes every key under `prefix`, and looks whether one is left.
async fn tidied(write: &RedisUrl, prefix: &str) -> Finding {
    let check = "smoke: tidying up";
    let mut problem = String::new();
    for tries in 0..DELETIONS {
        if tries > 0 {
            sleep(Duration::from_secs(1)).await;
        }
        let deleted = match DiagnosticConnection::open(write, "writing credential").await {
            Ok(mut line) => delete(&mut line, prefix).await,
            Err(error) => Err(error.to_string()),
        };
        match deleted {
            Ok(unexpected) => {
                let besides = if unexpected == 0 {
                    String::new()
                } else {
                    format!(", although {unexpected} keys were there that it does not write")
                };
                return Finding::ok(check, format!("nothing is left behind{besides}"));
            }
            Err(error) => problem = error,
        }
    }
    let remedy = format!("delete the keys that begin with `{prefix}` by hand");
    Finding::problem(
        Fault::Store,
        check,
        format!("keys may be left behind: {problem}"),
        remedy,
    )
}

/// Deletes what a trial writes, and what else is there, and says how much the latter was. With nothing there, it shows that it could.
async fn delete(line: &mut DiagnosticConnection, prefix: &str) -> Result<usize, String> {
    // By name first: where reads come from a replica, looking finds only what has reached it.
    line.ask(cmd("DEL").arg(written(prefix)))
        .await
        .map_err(|error| describe(&error))?;
    let unexpected = found(line, prefix)
        .await
        .map_err(|error| describe(&error))?;
    if unexpected.is_empty() {
        return Ok(0);
    }
    line.ask(cmd("DEL").arg(&unexpected))
        .await
        .map_err(|error| describe(&error))?;
    let left = found(line, prefix)
        .await
        .map_err(|error| describe(&error))?;
    if left.is_empty() {
        Ok(unexpected.len())
    } else {
        Err(format!("{} were not deleted", left.len()))
    }
}

/// The document that a trial writes.
fn document_key() -> DocumentKey {
    let [kind, _] = Kind::ALL;
    DocumentKey::new(kind, "smoke")
}

/// The writes of a trial. Those of another request have the same keys.
fn operations(prefix: &str, request: u8) -> [Operation; 3] {
    [1, 2, 3]
        .map(|number| Operation::once(&format!("{prefix}{number}"), json!({ "smoke": request })))
}

/// Every key that a trial writes.
fn written(prefix: &str) -> Vec<String> {
    let keys = Keys {
        prefix: prefix.to_owned(),
    };
    let document = document_key();
    let cache = keys.cache(document.kind);
    let mut written = vec![
        keys.document(&document),
        keys.latest(&document),
        format!("{cache}:{}", document.id),
        cache,
        keys.entries(),
        keys.stats(),
    ];
    written.extend(["all", "published", "featured"].map(|index| keys.index(index, document.kind)));
    written.extend(["self-test", "unlabelled"].map(|name| keys.internal(name)));
    written.extend(
        operations(prefix, 1)
            .iter()
            .map(|operation| keys.idempotency_record(operation)),
    );
    written.extend(["script", "reader"].map(|name| format!("{prefix}{name}")));
    written
}

async fn found(line: &mut DiagnosticConnection, prefix: &str) -> Result<Vec<String>, RedisError> {
    let (mut cursor, mut keys) = ("0".to_owned(), Vec::new());
    loop {
        let mut scan: Cmd = cmd("SCAN");
        scan.arg(&cursor)
            .arg("MATCH")
            .arg(format!("{}*", literal(prefix)))
            .arg("COUNT")
            .arg(1000);
        let mut parts = array(line.ask(&scan).await?).into_iter();
        cursor = parts
            .next()
            .and_then(|cursor| text(cursor).ok())
            .unwrap_or_else(|| "0".to_owned());
        keys.extend(
            parts
                .next()
                .map(array)
                .unwrap_or_default()
                .into_iter()
                .filter_map(|key| text(key).ok()),
        );
        if cursor == "0" {
            return Ok(keys);
        }
    }
}

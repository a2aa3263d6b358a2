//! What `doctor` finds in a Redis: whether it lets the server in and lets it do its work, and whether the keys agree with each other.
//!
//! Everything is read, or asked for as a permission; only a server that cannot be asked is tried, on a key of our own.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use redis::{
    AsyncConnectionConfig, Cmd, Pipeline, RedisError, Value, aio::MultiplexedConnection, cmd,
};
use serde_json::{Map, json};
use uuid::Uuid;

use super::{
    CHUNK, RedisStore,
    connection::{CONNECT_TIMEOUT, RESPONSE_TIMEOUT, client},
    error::{describe, is_permission_denied, read_error},
    keys::Keys,
    reply::{array, kind_of, pairs, scored, text, unwrap_reply},
};
use crate::{
    domain::{
        AuditStats, Change, Current, DocumentKey, Kind, Operation, Origin, Record, Source,
        StoredEntry, Timestamp, WriteContext, text::truncate,
    },
    store::{
        RedisUrl, Repository, StoreError,
        examination::{Fault, Finding, clocks, documents, few, newest_entry},
    },
};

/// How often a round trip is measured.
const ROUND_TRIPS: usize = 5;
/// A round trip that takes longer makes every call slow.
const SLOW: Duration = Duration::from_millis(500);
/// Looking for documents that no index names goes through every key of the database; so long at most.
const SEARCH: Duration = Duration::from_secs(6);
/// Upstash takes no record of over 100 MB, and the audit log is one; near it, somebody has to act.
const LARGE_LOG: u64 = 80_000_000;

/// What the Redis user may do of `ARGV`, each a command with its arguments, one a line; nil if this server cannot say.
const PERMISSIONS: &str = r"
local missing = {}
if redis.acl_check_cmd then
  for _, command in ipairs(ARGV) do
    local words = {}
    for word in string.gmatch(command, '[^\n]+') do words[#words + 1] = word end
    local known, allowed = pcall(redis.acl_check_cmd, unpack(words))
    if not (known and allowed) then missing[#missing + 1] = words[1] .. ' ' .. (words[2] or '') end
  end
  return missing
end
return false";

/// A connection of its own, so that what is found is the server's doing and not that of retries.
pub(super) struct DiagnosticConnection {
    connection: MultiplexedConnection,
    pub(super) name: &'static str,
}

impl DiagnosticConnection {
    pub(super) async fn open(url: &RedisUrl, name: &'static str) -> Result<Self, StoreError> {
        Self::open_with(url, name, AsyncConnectionConfig::new()).await
    }

    pub(super) async fn open_with(
        url: &RedisUrl,
        name: &'static str,
        config: AsyncConnectionConfig,
    ) -> Result<Self, StoreError> {
        let client = client(url).map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let config = config
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        let connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|error| read_error(&error))?;
        Ok(Self { connection, name })
    }

    pub(super) async fn ask(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        self.connection
            .send_packed_command(command)
            .await
            .and_then(unwrap_reply)
    }

    /// An answer for each command of the pipeline, refusals among them.
    pub(super) async fn ask_all(
        &mut self,
        pipeline: &Pipeline,
    ) -> Result<Vec<Result<Value, RedisError>>, RedisError> {
        let mut pipeline = pipeline.clone();
        pipeline.ignore_errors();
        let answers = self
            .connection
            .send_packed_commands(&pipeline, 0, pipeline.len())
            .await?;
        Ok(answers.into_iter().map(unwrap_reply).collect())
    }

    /// The median time of a command that every user may run.
    pub(super) async fn round_trip(
        &mut self,
        key: &str,
        times: usize,
    ) -> Result<Duration, RedisError> {
        let mut took = Vec::with_capacity(times);
        for _ in 0..times {
            let start = Instant::now();
            self.ask(cmd("GET").arg(key)).await?;
            took.push(start.elapsed());
        }
        took.sort_unstable();
        Ok(took.get(times / 2).copied().unwrap_or_default())
    }

    pub(super) async fn subscribe(&mut self, channel: &str) -> Result<(), RedisError> {
        self.connection.subscribe(channel).await
    }
}

/// Examines the Redis that these credentials lead to.
pub(in crate::store) async fn examine(
    write: Option<&RedisUrl>,
    read: Option<&RedisUrl>,
    key_prefix: &str,
    clock: fn() -> Timestamp,
    findings: &mut Vec<Finding>,
) {
    let names = if write.is_some() && read.is_some() {
        ["writing credential", "reading credential"]
    } else {
        ["connection"; 2]
    };
    let [name_of_writing, name_of_reading] = names;
    let opened =
        async |url: Option<&RedisUrl>, name| Some(DiagnosticConnection::open(url?, name).await);
    let (writing, reading) = tokio::join!(
        opened(write, name_of_writing),
        opened(read, name_of_reading)
    );
    let can_write = matches!(writing, Some(Ok(_)));
    let mut lines = Vec::new();
    for ((url, line), name) in [(write, writing), (read, reading)].into_iter().zip(names) {
        match (url, line) {
            (Some(url), Some(Ok(line))) => {
                findings.push(Finding::ok(name, format!("{url} lets it in")));
                lines.push(line);
            }
            (Some(url), Some(Err(error))) => {
                let remedy = "mend this first; until then tools answer STORE_UNAVAILABLE";
                findings.push(Finding::problem(
                    Fault::Store,
                    name,
                    format!("{url}: {error}"),
                    remedy,
                ));
            }
            _ => {}
        }
    }
    let examination = Diagnostics {
        keys: Keys {
            prefix: key_prefix.to_owned(),
        },
        clock,
        read_only: write.is_none(),
        findings,
    };
    examination.run(lines, write.filter(|_| can_write)).await;
}

struct Diagnostics<'a> {
    keys: Keys,
    clock: fn() -> Timestamp,
    read_only: bool,
    findings: &'a mut Vec<Finding>,
}

impl Diagnostics<'_> {
    /// The first line is the one that may do more.
    async fn run(mut self, mut lines: Vec<DiagnosticConnection>, write: Option<&RedisUrl>) {
        for line in &mut lines {
            let checked = async {
                self.speed(line).await?;
                self.reading(line).await
            };
            if let Err(error) = checked.await {
                self.failed(line.name, &error);
                return;
            }
        }
        let Some(line) = lines.first_mut() else {
            return;
        };
        if let Err(error) = self.all(line, write).await {
            self.failed("connection", &error);
        }
    }

    async fn all(
        &mut self,
        line: &mut DiagnosticConnection,
        write: Option<&RedisUrl>,
    ) -> Result<(), RedisError> {
        self.version(line).await?;
        match write {
            Some(url) if self.writing(line).await? => self.script(url).await,
            None if self.read_only => self.findings.push(Finding::ok(
                "writing",
                "not examined: the server would be a read-only one",
            )),
            _ => {}
        }
        let now = self.clocks(line).await?;
        self.schema(line).await?;
        self.types(line).await?;
        self.documents(line).await?;
        self.log(line, now).await?;
        self.eviction(line).await
    }

    fn failed(&mut self, check: &str, error: &RedisError) {
        let remedy = "the examination ends here; mend this and examine it again";
        self.findings.push(Finding::problem(
            Fault::Store,
            check,
            read_error(error).to_string(),
            remedy,
        ));
    }

    async fn speed(&mut self, line: &mut DiagnosticConnection) -> Result<(), RedisError> {
        let check = "round trip";
        match line
            .round_trip(&self.keys.internal("self-test"), ROUND_TRIPS)
            .await
        {
            Ok(median) => {
                let says = format!(
                    "{:.1} ms with the {}, the median of {ROUND_TRIPS}",
                    median.as_secs_f64() * 1000.0,
                    line.name
                );
                self.findings.push(if median <= SLOW {
                    Finding::ok(check, says)
                } else {
                    Finding::warning(
                        check,
                        says,
                        "a call needs two or three of them; run the server nearer to its store",
                    )
                });
            }
            // What is not permitted is told by the next check.
            Err(error) if is_permission_denied(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// What the server reads with, tried for real.
    async fn reading(&mut self, line: &mut DiagnosticConnection) -> Result<(), RedisError> {
        let mut commands: Vec<Cmd> = Vec::new();
        for kind in Kind::ALL {
            let document = DocumentKey::new(kind, "x");
            for command in ["GET", "MGET", "TYPE"] {
                commands.push(cmd(command).arg(self.keys.document(&document)).clone());
            }
            commands.push(cmd("GET").arg(self.keys.latest(&document)).clone());
            commands.push(cmd("SMEMBERS").arg(self.keys.index("all", kind)).clone());
            commands.push(cmd("SCARD").arg(self.keys.index("all", kind)).clone());
        }
        commands.push(cmd("ZRANGE").arg(self.keys.entries()).arg(0).arg(0).clone());
        commands.push(cmd("ZCARD").arg(self.keys.entries()).clone());
        commands.push(cmd("HGET").arg(self.keys.stats()).arg("seq").clone());
        commands.push(cmd("HGETALL").arg(self.keys.stats()).clone());
        commands.push(cmd("HGETALL").arg(self.keys.internal("unlabelled")).clone());
        let mut pipeline = redis::pipe();
        for command in &commands {
            pipeline.add_command(command.clone());
        }
        let answers = line.ask_all(&pipeline).await?;
        let refused =
            |answer: &Result<Value, RedisError>| answer.as_ref().is_err_and(is_permission_denied);
        let missing: Vec<String> = commands
            .iter()
            .zip(&answers)
            .filter(|(_, answer)| refused(answer))
            .map(|(command, _)| shown(command))
            .collect();
        let check = format!("{}: reading", line.name);
        self.findings.push(if missing.is_empty() {
            Finding::ok(check, "may run all that is needed")
        } else {
            let remedy = "grant it, such as with `ACL SETUSER … +@read ~*`";
            Finding::problem(
                Fault::Store,
                check,
                format!("may not run {}", few(&missing, ", ")),
                remedy,
            )
        });
        Ok(())
    }

    async fn version(&mut self, line: &mut DiagnosticConnection) -> Result<(), RedisError> {
        let check = "version";
        let about = match line.ask(cmd("INFO").arg("server")).await {
            Ok(about) => text(about).unwrap_or_default(),
            Err(error) if error.is_io_error() => return Err(error),
            Err(_) => {
                self.findings
                    .push(Finding::ok(check, "this user may not ask for it"));
                return Ok(());
            }
        };
        let member = |name: &str| {
            about
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map(|value| truncate(value.trim()).into_owned())
        };
        let version = member("valkey_version:").map(|version| format!("Valkey {version}"));
        let (name, redis) = (version, member("redis_version:").unwrap_or_default());
        let mut numbers = redis
            .split('.')
            .map(|number| number.parse::<u32>().unwrap_or_default());
        let parsed = (
            numbers.next().unwrap_or_default(),
            numbers.next().unwrap_or_default(),
        );
        let says = name.unwrap_or_else(|| {
            if redis.is_empty() {
                "not told".to_owned()
            } else {
                format!("Redis {redis}")
            }
        });
        self.findings.push(if redis.is_empty() || parsed >= (6, 2) {
            Finding::ok(check, says)
        } else {
            Finding::problem(
                Fault::Store,
                check,
                says,
                "this program needs Redis 6.2, or Valkey; update it",
            )
        });
        Ok(())
    }

    /// Whether the user may do all that a write does; asked where the server can be asked, else tried on a key of our own.
    async fn writing(&mut self, line: &mut DiagnosticConnection) -> Result<bool, RedisError> {
        let check = format!("{}: writing", line.name);
        let remedy = "grant it, give the server another credential, or start it with --read-only; until then writes answer STORE_READ_ONLY";
        let mut eval = cmd("EVAL");
        eval.arg(PERMISSIONS).arg(0).arg(self.needed());
        let (missing, how) = match line.ask(&eval).await {
            Ok(Value::Nil) => (
                self.tried(line).await?,
                "may run all that is needed, as tried on a key of our own",
            ),
            Ok(missing) => {
                let missing = array(missing)
                    .into_iter()
                    .filter_map(|command| text(command).ok())
                    .collect();
                (missing, "may run all that is needed")
            }
            Err(error) if is_permission_denied(&error) => (vec!["EVAL".to_owned()], ""),
            Err(error) if error.is_io_error() => return Err(error),
            Err(error) => {
                let says = format!("cannot be asked for: {}", describe(&error));
                self.findings
                    .push(Finding::warning(check, says, "`doctor --smoke` tries it"));
                return Ok(true);
            }
        };
        let allowed = missing.is_empty();
        self.findings.push(if allowed {
            Finding::ok(check, how)
        } else {
            Finding::problem(
                Fault::Content,
                check,
                format!("may not run {}", few(&missing, ", ")),
                remedy,
            )
        });
        Ok(allowed)
    }

    /// What a write does, each command with its arguments, one a line.
    fn needed(&self) -> Vec<String> {
        let mut needed = Vec::new();
        let mut need = |words: &[&str]| needed.push(words.join("\n"));
        for kind in Kind::ALL {
            let document = DocumentKey::new(kind, "x");
            let (data, latest, cache) = (
                self.keys.document(&document),
                self.keys.latest(&document),
                self.keys.cache(kind),
            );
            need(&["GET", &data]);
            need(&["SET", &data, "x"]);
            need(&["SET", &latest, "x"]);
            need(&["DEL", &cache, &format!("{cache}:x")]);
            for index in ["all", "published", "featured"].map(|name| self.keys.index(name, kind)) {
                need(&["SISMEMBER", &index, "x"]);
                need(&["SADD", &index, "x"]);
                need(&["SREM", &index, "x"]);
            }
        }
        let (entries, stats) = (self.keys.entries(), self.keys.stats());
        need(&["ZRANGE", &entries, "-1", "-1", "WITHSCORES"]);
        need(&["ZADD", &entries, "0", "x"]);
        need(&["HMGET", &stats, "seq"]);
        need(&["HSET", &stats, "seq", "1"]);
        need(&["HDEL", &stats, "seq"]);
        need(&["SET", &self.keys.internal("operation:x"), "x", "EX", "1"]);
        need(&["SET", &self.keys.internal("self-test"), "x", "XX"]);
        need(&["EVALSHA", "x", "0"]);
        need(&["MULTI"]);
        need(&["EXEC"]);
        needed
    }

    async fn tried(&mut self, line: &mut DiagnosticConnection) -> Result<Vec<String>, RedisError> {
        let key = self.keys.internal(&format!("self-test:{}", Uuid::new_v4()));
        let mut pipeline = redis::pipe();
        let tries: [&[&str]; 10] = [
            &["SET", "x", "EX", "60"],
            &["DEL"],
            &["SADD", "x"],
            &["SREM", "x"],
            &["DEL"],
            &["ZADD", "0", "x"],
            &["DEL"],
            &["HSET", "x", "0"],
            &["HDEL", "x"],
            &["DEL"],
        ];
        for words in tries {
            if let [command, arguments @ ..] = words {
                pipeline.add_command(cmd(command).arg(&key).arg(arguments).clone());
            }
        }
        let answers = line.ask_all(&pipeline).await?;
        let failed = tries
            .iter()
            .zip(&answers)
            .filter(|(_, answer)| answer.is_err());
        let missing: BTreeSet<String> = failed
            .filter_map(|(words, _)| words.first().map(|word| (*word).to_owned()))
            .collect();
        Ok(missing.into_iter().collect())
    }

    /// The commit script is run on a document that is not there; that it says so proves that it was loaded and ran, and it writes nothing.
    async fn script(&mut self, url: &RedisUrl) {
        let [kind, _] = Kind::ALL;
        let run = async {
            let prefix = self.keys.internal(&format!("doctor:{}:", Uuid::new_v4()));
            let store = RedisStore::new(Some(url), None, &prefix)
                .map_err(|error| StoreError::Unavailable(error.to_string()))?;
            let key = DocumentKey::new(kind, "doctor");
            let record = Record::parse(key.clone(), "{}".to_owned()).map_err(StoreError::Failed)?;
            let current = Current::read(key, Some(record), None::<&str>);
            let operation = Operation::once(&Uuid::new_v4().to_string(), json!({}));
            let change = Change::put(
                &current,
                &Map::from_iter([("id".to_owned(), json!("doctor"))]),
                write_context(&operation, (self.clock)()),
            );
            let changes: Vec<Change> = change.into_iter().collect();
            store.commit(&changes, &operation).await
        };
        let check = "commit script";
        let remedy = "until this is mended writes are refused";
        let finding = match run.await {
            Err(StoreError::Conflict) => Finding::ok(check, "is loaded and runs"),
            Ok(_) => Finding::problem(
                Fault::Store,
                check,
                "wrote over a document that was not there",
                "do not write with this server",
            ),
            Err(error) => Finding::problem(Fault::Store, check, error.to_string(), remedy),
        };
        self.findings.push(finding);
    }

    /// The store's time, or this machine's where the store's cannot be had.
    async fn clocks(&mut self, line: &mut DiagnosticConnection) -> Result<Timestamp, RedisError> {
        let before = (self.clock)();
        let answer = line.ask(&cmd("TIME")).await;
        let after = (self.clock)();
        let parts: Vec<i64> = match answer {
            Ok(answer) => array(answer)
                .into_iter()
                .filter_map(|part| text(part).ok()?.parse().ok())
                .collect(),
            Err(error) if error.is_io_error() => return Err(error),
            Err(_) => Vec::new(),
        };
        let [seconds, micros] = parts.as_slice() else {
            self.findings.push(Finding::ok(
                "clock",
                "the store's cannot be asked for by this user, so it was not compared",
            ));
            return Ok(after);
        };
        let now = Timestamp::from_micros(seconds * 1_000_000 + micros);
        let here = before.millis().midpoint(after.millis());
        self.findings.push(clocks(now.millis() - here));
        Ok(now)
    }

    async fn schema(&mut self, line: &mut DiagnosticConnection) -> Result<(), RedisError> {
        let check = "schema version";
        let key = format!("{}meta:schema:version", self.keys.prefix);
        let finding = match line.ask(cmd("GET").arg(&key)).await.map(text) {
            Ok(Ok(version)) if version == "1" => Finding::ok(check, version),
            Ok(Ok(version)) => {
                let remedy = format!(
                    "another program may have changed how the content is kept; see which, and set `{key}` to 1 if it is right"
                );
                Finding::problem(
                    Fault::Content,
                    check,
                    format!("`{}`; this program knows 1", truncate(&version)),
                    remedy,
                )
            }
            Ok(Err(_)) => Finding::ok(check, "not set, which is fine"),
            Err(error) if is_permission_denied(&error) => {
                Finding::ok(check, "not readable by this user, so it was not compared")
            }
            Err(error) if error.is_io_error() => return Err(error),
            Err(_) => Finding::problem(
                Fault::Content,
                check,
                format!("`{key}` is not a string"),
                "see which program wrote it",
            ),
        };
        self.findings.push(finding);
        Ok(())
    }

    /// Keys whose type is another one than the contract's.
    async fn types(&mut self, line: &mut DiagnosticConnection) -> Result<(), RedisError> {
        let mut expected = vec![
            (self.keys.entries(), "zset"),
            (self.keys.stats(), "hash"),
            (self.keys.internal("unlabelled"), "hash"),
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
        let found = line.ask_all(&pipeline).await?.into_iter().map(|answer| {
            answer
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
            Finding::ok("keys", "are of the types they should be")
        } else {
            let remedy = "rename or delete what is there; until then writes are refused, and what it is for cannot be read";
            Finding::problem(Fault::Content, "keys", few(&wrong, "; "), remedy)
        });
        Ok(())
    }

    async fn documents(&mut self, line: &mut DiagnosticConnection) -> Result<(), RedisError> {
        let stored = self.search(line).await?;
        for kind in Kind::ALL {
            let indexed = self.members(line, "all", kind).await?;
            let ids: BTreeSet<String> = indexed
                .iter()
                .chain(stored.get(&kind).into_iter().flatten())
                .cloned()
                .collect();
            let (records, unreadable, absent) = self.records(line, kind, ids).await?;
            self.findings.extend(documents(kind, &records, &unreadable));

            let name = self.keys.index("all", kind);
            let here: BTreeSet<String> = records
                .iter()
                .map(|record| record.key().id.clone())
                .collect();
            let unlisted: Vec<&String> = here.difference(&indexed).collect();
            let gone: Vec<&String> = absent.iter().filter(|id| indexed.contains(*id)).collect();
            let mut drift = Vec::new();
            if !unlisted.is_empty() {
                let remedy = format!(
                    "no list shows them; update them once, or run `SADD {name} {}` and so on",
                    few(&unlisted, " ")
                );
                let says = format!(
                    "`{name}` lacks {} documents: {}",
                    unlisted.len(),
                    few(&unlisted, ", ")
                );
                drift.push(Finding::problem(Fault::Content, "index", says, remedy));
            }
            if !gone.is_empty() {
                let remedy = format!(
                    "harmless here, the lists leave them out; `SREM {name} {}` and so on removes them",
                    few(&gone, " ")
                );
                let says = format!(
                    "`{name}` names {} documents that are not there: {}",
                    gone.len(),
                    few(&gone, ", ")
                );
                drift.push(Finding::warning("index", says, remedy));
            }
            for (index, belongs) in [
                ("published", Record::is_published as fn(&Record) -> bool),
                ("featured", Record::is_featured),
            ] {
                let members = self.members(line, index, kind).await?;
                let name = self.keys.index(index, kind);
                let expected: BTreeSet<String> = records
                    .iter()
                    .filter(|record| belongs(record))
                    .map(|record| record.key().id.clone())
                    .collect();
                for (verb, command, ids) in [
                    (
                        "lacks",
                        "SADD",
                        expected.difference(&members).collect::<Vec<_>>(),
                    ),
                    (
                        "names too much:",
                        "SREM",
                        members.difference(&expected).collect(),
                    ),
                ] {
                    if !ids.is_empty() {
                        let remedy = format!(
                            "harmless here, but the website may use it; an update of each puts it right, or `{command} {name} {}` and so on",
                            few(&ids, " ")
                        );
                        let says = format!(
                            "`{name}` {verb} {} documents, such as {}",
                            ids.len(),
                            few(&ids, ", ")
                        );
                        drift.push(Finding::warning("index", says, remedy));
                    }
                }
            }
            if drift.is_empty() {
                drift.push(Finding::ok(
                    "index",
                    format!("those of the {} agree with the documents", kind.plural()),
                ));
            }
            self.findings.append(&mut drift);
        }
        Ok(())
    }

    async fn members(
        &mut self,
        line: &mut DiagnosticConnection,
        index: &str,
        kind: Kind,
    ) -> Result<BTreeSet<String>, RedisError> {
        match line
            .ask(cmd("SMEMBERS").arg(self.keys.index(index, kind)))
            .await
        {
            Ok(members) => Ok(array(members)
                .into_iter()
                .filter_map(|id| text(id).ok())
                .collect()),
            Err(error) if error.is_io_error() => Err(error),
            // What it may not, and what is not a set, was told before.
            Err(_) => Ok(BTreeSet::new()),
        }
    }

    /// The ids of all documents, whether an index names them or not.
    async fn search(
        &mut self,
        line: &mut DiagnosticConnection,
    ) -> Result<BTreeMap<Kind, BTreeSet<String>>, RedisError> {
        let mut found: BTreeMap<Kind, BTreeSet<String>> = BTreeMap::new();
        let start = Instant::now();
        for kind in Kind::ALL {
            let beginning = self.keys.document(&DocumentKey::new(kind, ""));
            let mut cursor = "0".to_owned();
            loop {
                let mut scan = cmd("SCAN");
                scan.arg(&cursor)
                    .arg("MATCH")
                    .arg(format!("{}*", literal(&beginning)))
                    .arg("COUNT")
                    .arg(1000);
                let answer = match line.ask(&scan).await {
                    Ok(answer) => answer,
                    Err(error) if is_permission_denied(&error) => {
                        let says = "this user may not run SCAN, so documents that no index names were not looked for";
                        self.findings.push(Finding::ok("index", says));
                        return Ok(found);
                    }
                    Err(error) => return Err(error),
                };
                let mut parts = array(answer).into_iter();
                cursor = parts
                    .next()
                    .and_then(|cursor| text(cursor).ok())
                    .unwrap_or_else(|| "0".to_owned());
                let keys = parts.next().map(array).unwrap_or_default();
                let ids = keys.into_iter().filter_map(|key| {
                    text(key)
                        .ok()?
                        .strip_prefix(&beginning)
                        .map(ToOwned::to_owned)
                });
                found.entry(kind).or_default().extend(ids);
                if cursor == "0" {
                    break;
                }
                if start.elapsed() > SEARCH {
                    let says = format!(
                        "the database has too many keys to look at within {} s for documents that no index names",
                        SEARCH.as_secs()
                    );
                    self.findings.push(Finding::warning(
                        "index",
                        says,
                        "give the site a database of its own",
                    ));
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }

    /// The documents with these ids, what cannot be read as one, and the ids of those that are not there.
    async fn records(
        &mut self,
        line: &mut DiagnosticConnection,
        kind: Kind,
        ids: BTreeSet<String>,
    ) -> Result<(Vec<Record>, Vec<String>, BTreeSet<String>), RedisError> {
        let (mut records, mut unreadable, mut absent) = (Vec::new(), Vec::new(), BTreeSet::new());
        let keys: Vec<DocumentKey> = ids
            .into_iter()
            .map(|id| DocumentKey::new(kind, id))
            .collect();
        for chunk in keys.chunks(CHUNK) {
            let names: Vec<String> = chunk.iter().map(|key| self.keys.document(key)).collect();
            let values = match line.ask(cmd("MGET").arg(&names)).await {
                Ok(values) => array(values),
                Err(error) if is_permission_denied(&error) => {
                    return Ok((records, unreadable, absent));
                }
                Err(error) => return Err(error),
            };
            for ((key, name), value) in chunk.iter().zip(names).zip(values) {
                let problem = match value {
                    Value::Nil => match text(line.ask(cmd("TYPE").arg(&name)).await?).as_deref() {
                        Ok("none" | "string") | Err(_) => {
                            absent.insert(key.id.clone());
                            continue;
                        }
                        Ok(other) => format!("it is a Redis {other}"),
                    },
                    value => match text(value).and_then(|text| Record::parse(key.clone(), text)) {
                        Ok(record) => {
                            records.push(record);
                            continue;
                        }
                        Err(problem) => problem,
                    },
                };
                unreadable.push(format!("`{}` ({problem})", truncate(&name)));
            }
        }
        Ok((records, unreadable, absent))
    }

    async fn log(
        &mut self,
        line: &mut DiagnosticConnection,
        now: Timestamp,
    ) -> Result<(), RedisError> {
        let check = "audit log";
        let mut pipeline = redis::pipe();
        pipeline.cmd("ZCARD").arg(self.keys.entries());
        pipeline
            .cmd("ZRANGE")
            .arg(self.keys.entries())
            .arg(-100)
            .arg(-1)
            .arg("WITHSCORES");
        pipeline.cmd("HGETALL").arg(self.keys.stats());
        pipeline
            .cmd("HGETALL")
            .arg(self.keys.internal("unlabelled"));
        pipeline.cmd("MEMORY").arg("USAGE").arg(self.keys.entries());
        let mut answers = line
            .ask_all(&pipeline)
            .await?
            .into_iter()
            .map(Result::unwrap_or_default);
        let mut next = || answers.next().unwrap_or_default();
        let total = match next() {
            Value::Int(total) => u64::try_from(total).unwrap_or_default(),
            _ => 0,
        };
        let newest = scored(next());
        let (counters, unlabelled, memory) = (pairs(next()), pairs(next()), next());
        let length: usize = newest.iter().map(|(member, _)| member.len() + 64).sum();
        let (bytes, measured) = match memory {
            Value::Int(bytes) => (u64::try_from(bytes).unwrap_or_default(), ""),
            _ => (
                total * u64::try_from(length / newest.len().max(1)).unwrap_or_default(),
                "about ",
            ),
        };
        let says = format!("{total} entries, {measured}{:.1} MB", megabytes(bytes));
        self.findings.push(if bytes <= LARGE_LOG {
            Finding::ok(check, says)
        } else {
            let remedy = "Upstash takes no record of over 100 MB, and then no write; back the log up, and remove its oldest entries with ZREMRANGEBYRANK";
            Finding::warning(check, says, remedy)
        });
        let Some((member, score)) = newest.last() else {
            return Ok(());
        };
        self.findings.extend(newest_entry(*score, now));

        let check = "audit counters";
        let numbered = StoredEntry::parse(member.clone()).seq();
        let counter = counters.get("seq").and_then(|seq| seq.parse::<u64>().ok());
        self.findings.push(if AuditStats::from_counters(total, &counters, &unlabelled).is_none() {
            let remedy = "harmless: get_audit_stats counts the log itself, and puts them right where it may write";
            Finding::warning(check, "disagree with the log, as older programs leave them", remedy)
        } else if numbered > counter {
            Finding::warning(check, "`seq` is behind the newest entry", "harmless: the next write goes on after the newest entry")
        } else {
            Finding::ok(check, "agree with the log")
        });
        Ok(())
    }

    async fn eviction(&mut self, line: &mut DiagnosticConnection) -> Result<(), RedisError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("CONFIG").arg("GET").arg("maxmemory-policy");
        pipeline.cmd("INFO").arg("memory");
        let mut answers = line
            .ask_all(&pipeline)
            .await?
            .into_iter()
            .map(Result::unwrap_or_default);
        let configured = answers
            .next()
            .map(pairs)
            .and_then(|mut pairs| pairs.remove("maxmemory-policy"));
        let policy = configured.or_else(|| {
            let memory = text(answers.next()?).ok()?;
            memory
                .lines()
                .find_map(|line| line.strip_prefix("maxmemory_policy:"))
                .map(|policy| policy.trim().to_owned())
        });
        let remedy = "set maxmemory-policy to noeviction (Upstash: switch Eviction off): a full store must refuse writes, not delete documents";
        self.findings.push(match policy.as_deref() {
            Some("noeviction") => Finding::ok("eviction", "off"),
            Some(other) => Finding::problem(
                Fault::Content,
                "eviction",
                format!("`{}`", truncate(other)),
                remedy,
            ),
            None => Finding::warning(
                "eviction",
                "cannot be asked for with this credential",
                format!("see for yourself that it is off; {remedy}"),
            ),
        });
        Ok(())
    }
}

/// What an examination's own writes are recorded with.
pub(super) fn write_context(operation: &Operation, now: Timestamp) -> WriteContext {
    WriteContext {
        origin: Origin::new(Source::Admin),
        operation: operation.clone(),
        entry_id: Uuid::new_v4().to_string(),
        now,
    }
}

/// A text as SCAN's pattern for itself.
pub(super) fn literal(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            ['\\']
                .into_iter()
                .filter(move |_| "*?[]\\^".contains(c))
                .chain([c])
        })
        .collect()
}

fn megabytes(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "it is shown with one digit")]
    let megabytes = bytes as f64 / 1e6;
    megabytes
}

fn shown(command: &Cmd) -> String {
    let words = command
        .args_iter()
        .take(2)
        .filter_map(|argument| match argument {
            redis::Arg::Simple(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        });
    words.collect::<Vec<_>>().join(" ")
}

/// What a value is, for a message about one that is not as expected.
pub(super) fn described(value: &Value) -> String {
    match value {
        Value::Int(number) => number.to_string(),
        Value::BulkString(_) | Value::SimpleString(_) => text(value.clone()).map_or_else(
            |_| "bytes".to_owned(),
            |text| format!("`{}`", truncate(&text)),
        ),
        other => kind_of(other).to_owned(),
    }
}

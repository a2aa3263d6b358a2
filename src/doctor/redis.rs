//! Checks of a Redis server: whether the credentials work, what the user may do, and how the server
//! is configured.
//!
//! Nothing is changed: permissions are asked for in a script. Only where the server cannot answer
//! that, commands are tested on a temporary key.

use std::{collections::BTreeSet, time::Duration};

use redis::{Cmd, RedisError, Value, cmd};
use uuid::Uuid;

use super::{
    commit,
    connection::DiagnosticConnection,
    finding::{Fault, Finding, sample},
    redis_content,
    times::clock_skew,
};
use crate::{
    deadline::Deadline,
    domain::{DocumentKey, Kind, Timestamp, text::truncate},
    store::{
        RedisUrl,
        redis::{
            error::{describe, is_permission_denied, read_error},
            keys::Keys,
            reply::{array, pairs, text},
        },
    },
};

/// How long after the start of the checks documents are still read: the checks after that take a few
/// seconds, and all must end in time.
const READING_TIMEOUT: Duration = Duration::from_secs(18);
/// How many round trips are measured.
const ROUND_TRIPS: usize = 5;
/// A slower round trip makes every call slow.
const MAX_ROUND_TRIP: Duration = Duration::from_millis(500);

/// Which of the commands in `ARGV`, each with its arguments on lines of their own, the Redis user
/// may not run; nil if this server cannot say.
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

/// Checks the Redis server that these credentials lead to.
pub(super) async fn diagnose(
    write: Option<&RedisUrl>,
    read: Option<&RedisUrl>,
    key_prefix: &str,
    clock: fn() -> Timestamp,
    findings: &mut Vec<Finding>,
) {
    let deadline = Deadline::after(READING_TIMEOUT);
    let names = if write.is_some() && read.is_some() {
        ["writing credential", "reading credential"]
    } else {
        ["connection"; 2]
    };
    let [write_name, read_name] = names;
    let open =
        async |url: Option<&RedisUrl>, name| Some(DiagnosticConnection::open(url?, name).await);
    let (writing, reading) = tokio::join!(open(write, write_name), open(read, read_name));
    let can_write = matches!(writing, Some(Ok(_)));
    let mut connections = Vec::new();
    for ((url, connection), name) in [(write, writing), (read, reading)].into_iter().zip(names) {
        match (url, connection) {
            (Some(url), Some(Ok(connection))) => {
                findings.push(Finding::ok(name, format!("logged in to {url}")));
                connections.push(connection);
            }
            (Some(url), Some(Err(error))) => findings.push(Finding::problem(
                Fault::Store,
                name,
                format!("{url}: {error}"),
                "until this is fixed, tools fail with STORE_UNAVAILABLE",
            )),
            _ => {}
        }
    }
    let diagnostics = Diagnostics {
        keys: Keys {
            prefix: key_prefix.to_owned(),
        },
        clock,
        deadline,
        read_only: write.is_none(),
        findings,
    };
    diagnostics
        .run(connections, write.filter(|_| can_write))
        .await;
}

struct Diagnostics<'a> {
    keys: Keys,
    clock: fn() -> Timestamp,
    /// Until when documents are read.
    deadline: Deadline,
    read_only: bool,
    findings: &'a mut Vec<Finding>,
}

impl Diagnostics<'_> {
    /// The first connection is the one with more permissions.
    async fn run(mut self, mut connections: Vec<DiagnosticConnection>, write: Option<&RedisUrl>) {
        for connection in &mut connections {
            let checks = async {
                self.speed(connection).await?;
                self.reading(connection).await
            };
            if let Err(error) = checks.await {
                self.fail(connection.name, &error);
                return;
            }
        }
        let Some(connection) = connections.first_mut() else {
            return;
        };
        if let Err(error) = self.check_server(connection, write).await {
            self.fail("connection", &error);
        }
    }

    async fn check_server(
        &mut self,
        connection: &mut DiagnosticConnection,
        write: Option<&RedisUrl>,
    ) -> Result<(), RedisError> {
        self.version(connection).await?;
        match write {
            Some(url) if self.writing(connection).await? => {
                let finding = commit::run_script(url, &self.keys, self.clock).await;
                self.findings.push(finding);
            }
            None if self.read_only => self.findings.push(Finding::ok(
                "writing",
                "not checked: the server would be read-only",
            )),
            _ => {}
        }
        let now = self.clock(connection).await?;
        redis_content::diagnose(&self.keys, connection, now, self.deadline, self.findings).await?;
        self.eviction(connection).await
    }

    /// Records that a check failed, which ends the checks.
    fn fail(&mut self, check: &str, error: &RedisError) {
        self.findings.push(Finding::problem(
            Fault::Store,
            check,
            read_error(error).to_string(),
            "the remaining checks were skipped; fix this and run doctor again",
        ));
    }

    async fn speed(&mut self, connection: &mut DiagnosticConnection) -> Result<(), RedisError> {
        let check = "round trip";
        let key = self.keys.internal("self-test");
        match connection.round_trip(&key, ROUND_TRIPS).await {
            Ok(median) => {
                let message = format!(
                    "{:.1} ms, median of {ROUND_TRIPS} ({})",
                    median.as_secs_f64() * 1000.0,
                    connection.name
                );
                self.findings.push(if median <= MAX_ROUND_TRIP {
                    Finding::ok(check, message)
                } else {
                    Finding::warning(
                        check,
                        message,
                        "each call needs two or three round trips; run the server closer to its store",
                    )
                });
            }
            // The next check reports missing permissions.
            Err(error) if is_permission_denied(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Runs every command that the server reads with.
    async fn reading(&mut self, connection: &mut DiagnosticConnection) -> Result<(), RedisError> {
        let commands = read_commands(&self.keys);
        let mut pipeline = redis::pipe();
        for command in &commands {
            pipeline.add_command(command.clone());
        }
        let replies = connection.send_all(&pipeline).await?;
        let missing: Vec<String> = commands
            .iter()
            .zip(&replies)
            .filter(|(_, reply)| reply.as_ref().is_err_and(is_permission_denied))
            .map(|(command, _)| first_words(command))
            .collect();
        let check = format!("{}: reading", connection.name);
        self.findings.push(if missing.is_empty() {
            Finding::ok(check, "all required commands are allowed")
        } else {
            Finding::problem(
                Fault::Store,
                check,
                not_allowed(&missing),
                "grant them, for example with `ACL SETUSER … +@read ~*`",
            )
        });
        Ok(())
    }

    async fn version(&mut self, connection: &mut DiagnosticConnection) -> Result<(), RedisError> {
        let check = "version";
        let info = match connection.send(cmd("INFO").arg("server")).await {
            Ok(info) => text(info).unwrap_or_default(),
            Err(error) if error.is_io_error() => return Err(error),
            Err(_) => {
                let finding = Finding::ok(check, "unknown: this user may not run INFO");
                self.findings.push(finding);
                return Ok(());
            }
        };
        let redis = info_field(&info, "redis_version");
        let message = match (info_field(&info, "valkey_version"), &redis) {
            (Some(version), _) => format!("Valkey {version}"),
            (None, Some(version)) => format!("Redis {version}"),
            (None, None) => "unknown".to_owned(),
        };
        self.findings
            .push(if redis.is_none_or(|version| is_supported(&version)) {
                Finding::ok(check, message)
            } else {
                Finding::problem(
                    Fault::Store,
                    check,
                    message,
                    "Redis 6.2 or later, or Valkey, is required; upgrade the server",
                )
            });
        Ok(())
    }

    /// Whether the user may run everything that a write needs.
    async fn writing(&mut self, connection: &mut DiagnosticConnection) -> Result<bool, RedisError> {
        let check = format!("{}: writing", connection.name);
        let mut eval = cmd("EVAL");
        eval.arg(PERMISSIONS).arg(0).arg(write_commands(&self.keys));
        let (missing, allowed_message) = match connection.send(&eval).await {
            Ok(Value::Nil) => (
                self.try_write_commands(connection).await?,
                "all required commands are allowed (tested on a temporary key)",
            ),
            Ok(missing) => {
                let missing = array(missing)
                    .into_iter()
                    .filter_map(|command| text(command).ok())
                    .collect();
                (missing, "all required commands are allowed")
            }
            Err(error) if is_permission_denied(&error) => (vec!["EVAL".to_owned()], ""),
            Err(error) if error.is_io_error() => return Err(error),
            Err(error) => {
                self.findings.push(Finding::warning(
                    check,
                    format!("the permissions could not be checked: {}", describe(&error)),
                    "run `doctor --smoke` to test them",
                ));
                return Ok(true);
            }
        };
        let allowed = missing.is_empty();
        self.findings.push(if allowed {
            Finding::ok(check, allowed_message)
        } else {
            Finding::problem(
                Fault::Content,
                check,
                not_allowed(&missing),
                "grant them, use another credential, or start the server with --read-only; until then writes fail with STORE_READ_ONLY",
            )
        });
        Ok(allowed)
    }

    /// Runs the write commands on a temporary key, and returns those that failed.
    async fn try_write_commands(
        &mut self,
        connection: &mut DiagnosticConnection,
    ) -> Result<Vec<String>, RedisError> {
        const COMMANDS: [&[&str]; 10] = [
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
        let key = self.keys.internal(&format!("self-test:{}", Uuid::new_v4()));
        let mut pipeline = redis::pipe();
        for words in COMMANDS {
            if let [command, arguments @ ..] = words {
                pipeline.add_command(cmd(command).arg(&key).arg(arguments).clone());
            }
        }
        let replies = connection.send_all(&pipeline).await?;
        let failed: BTreeSet<String> = COMMANDS
            .iter()
            .zip(&replies)
            .filter(|(_, reply)| reply.is_err())
            .filter_map(|(words, _)| words.first().map(|word| (*word).to_owned()))
            .collect();
        Ok(failed.into_iter().collect())
    }

    /// The store's time, or this machine's if the store's cannot be read.
    async fn clock(
        &mut self,
        connection: &mut DiagnosticConnection,
    ) -> Result<Timestamp, RedisError> {
        let before = (self.clock)();
        let reply = connection.send(&cmd("TIME")).await;
        let after = (self.clock)();
        let parts: Vec<i64> = match reply {
            Ok(reply) => array(reply)
                .into_iter()
                .filter_map(|part| text(part).ok()?.parse().ok())
                .collect(),
            Err(error) if error.is_io_error() => return Err(error),
            Err(_) => Vec::new(),
        };
        let [seconds, micros] = parts.as_slice() else {
            self.findings.push(Finding::ok(
                "clock",
                "not compared: this user may not run TIME",
            ));
            return Ok(after);
        };
        let now = Timestamp::from_micros(seconds * 1_000_000 + micros);
        let here = before.millis().midpoint(after.millis());
        self.findings.push(clock_skew(now.millis() - here));
        Ok(now)
    }

    async fn eviction(&mut self, connection: &mut DiagnosticConnection) -> Result<(), RedisError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("CONFIG").arg("GET").arg("maxmemory-policy");
        pipeline.cmd("INFO").arg("memory");
        let mut replies = connection
            .send_all(&pipeline)
            .await?
            .into_iter()
            .map(Result::unwrap_or_default);
        let configured = replies
            .next()
            .map(pairs)
            .and_then(|mut pairs| pairs.remove("maxmemory-policy"));
        let policy =
            configured.or_else(|| info_field(&text(replies.next()?).ok()?, "maxmemory_policy"));
        let check = "eviction";
        let remedy = "set maxmemory-policy to noeviction (on Upstash: turn Eviction off), so that a full database refuses writes instead of deleting documents";
        self.findings.push(match policy.as_deref() {
            Some("noeviction") => Finding::ok(check, "off"),
            Some(other) => Finding::problem(
                Fault::Content,
                check,
                format!("maxmemory-policy is `{}`", truncate(other)),
                remedy,
            ),
            None => Finding::warning(
                check,
                "unknown: this credential may not read the setting",
                format!("make sure that it is off: {remedy}"),
            ),
        });
        Ok(())
    }
}

fn read_commands(keys: &Keys) -> Vec<Cmd> {
    let mut commands: Vec<Cmd> = Vec::new();
    for kind in Kind::ALL {
        let document = DocumentKey::new(kind, "x");
        for command in ["GET", "MGET", "TYPE"] {
            commands.push(cmd(command).arg(keys.document(&document)).clone());
        }
        commands.push(cmd("GET").arg(keys.latest(&document)).clone());
        commands.push(cmd("GET").arg(keys.checksum(&document)).clone());
        commands.push(cmd("SMEMBERS").arg(keys.index("all", kind)).clone());
        commands.push(cmd("SCARD").arg(keys.index("all", kind)).clone());
    }
    // An empty range: an entry may be large.
    commands.push(cmd("ZRANGE").arg(keys.entries()).arg(1).arg(0).clone());
    commands.push(cmd("ZCARD").arg(keys.entries()).clone());
    commands.push(cmd("HGET").arg(keys.stats()).arg("seq").clone());
    commands.push(cmd("HGETALL").arg(keys.stats()).clone());
    commands.push(cmd("HGETALL").arg(keys.internal("unlabelled")).clone());
    commands
}

/// The commands of a write, each with its arguments on lines of their own.
fn write_commands(keys: &Keys) -> Vec<String> {
    let mut commands = Vec::new();
    let mut need = |words: &[&str]| commands.push(words.join("\n"));
    for kind in Kind::ALL {
        let document = DocumentKey::new(kind, "x");
        let data = keys.document(&document);
        let cache = keys.cache(kind);
        need(&["GET", &data]);
        need(&["SET", &data, "x"]);
        need(&["SET", &keys.latest(&document), "x"]);
        need(&["SET", &keys.checksum(&document), "x"]);
        need(&["DEL", &data, &keys.checksum(&document)]);
        need(&["DEL", &cache, &format!("{cache}:x")]);
        for index in ["all", "published", "featured"].map(|name| keys.index(name, kind)) {
            need(&["SISMEMBER", &index, "x"]);
            need(&["SADD", &index, "x"]);
            need(&["SREM", &index, "x"]);
        }
    }
    let (entries, stats) = (keys.entries(), keys.stats());
    need(&["ZRANGE", &entries, "-1", "-1", "WITHSCORES"]);
    need(&["ZADD", &entries, "0", "x"]);
    let index = keys.history_index();
    need(&["ZRANGE", &index, "1", "0"]);
    need(&["ZCARD", &index]);
    need(&["ZADD", &index, "0", "x"]);
    need(&["DEL", &index]);
    need(&["HMGET", &stats, "seq"]);
    need(&["HSET", &stats, "seq", "1"]);
    need(&["HDEL", &stats, "seq"]);
    need(&["SET", &keys.internal("operation:x"), "x", "EX", "1"]);
    need(&["SET", &keys.internal("self-test"), "x", "XX"]);
    need(&["SET", &keys.history(), "x"]);
    need(&["GET", &keys.history_index_ends()]);
    need(&["SET", &keys.history_index_ends(), "x"]);
    need(&["SET", &keys.history_index_lock(), "x", "EX", "1"]);
    need(&["SET", &keys.history_index_position(), "x"]);
    need(&["EVALSHA", "x", "0"]);
    need(&["MULTI"]);
    need(&["EXEC"]);
    commands
}

fn not_allowed(commands: &[String]) -> String {
    format!("not allowed: {}", sample(commands, ", "))
}

/// A command and its first argument.
fn first_words(command: &Cmd) -> String {
    let words = command
        .args_iter()
        .take(2)
        .filter_map(|argument| match argument {
            redis::Arg::Simple(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        });
    words.collect::<Vec<_>>().join(" ")
}

/// A field of a reply to `INFO`.
fn info_field(info: &str, name: &str) -> Option<String> {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(|value| truncate(value.trim()).into_owned())
}

fn is_supported(redis_version: &str) -> bool {
    let mut numbers = redis_version
        .split('.')
        .map(|number| number.parse::<u32>().unwrap_or_default());
    let major = numbers.next().unwrap_or_default();
    let minor = numbers.next().unwrap_or_default();
    (major, minor) >= (6, 2)
}

//! The smoke test: checks on a live Redis what this program relies on and cannot find out
//! otherwise, such as what scripts may do on Upstash.
//!
//! Everything it writes has a random prefix under `internal:smoke:`, and is deleted at the end,
//! whatever happened before.

use std::time::Duration;

use redis::{AsyncConnectionConfig, PushInfo, PushKind, RedisError, Script, Value, cmd};
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    commit,
    connection::{DiagnosticConnection, describe_value, escape_pattern},
    finding::{Fault, Finding, Verdict},
};
use crate::{
    domain::{Timestamp, text::truncate},
    store::{
        RedisUrl,
        redis::{
            error::{describe, is_permission_denied, read_error},
            keys::Keys,
            reply::{array, kind_of, text},
        },
    },
};

mod clean_up;

use clean_up::{clean_up, delete_keys};

/// How long the test may take, in addition to the time for an idle connection.
const TEST_TIMEOUT: Duration = Duration::from_secs(40);
/// How long a published message may take.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(3);
/// How many round trips are measured.
const ROUND_TRIPS: usize = 21;
/// Keys that are not part of a commit expire by themselves, in case this process is killed.
const KEY_TTL_SECONDS: u32 = 600;

/// Tests the Redis server that these credentials lead to.
pub(super) async fn run(
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
    let mut test = SmokeTest {
        write,
        read,
        prefix: &prefix,
        clock,
        has_written: false,
        findings: &mut findings,
    };
    let time = TEST_TIMEOUT + idle.unwrap_or_default();
    let interruption = tokio::select! {
        done = timeout(time, test.run(idle)) => {
            done.is_err().then_some("stopped: the store responds too slowly")
        }
        () = stop.cancelled() => Some("interrupted"),
    };
    let has_written = test.has_written;
    if let Some(message) = interruption {
        findings.push(Finding::problem(
            Fault::Store,
            "smoke",
            message,
            "run it again",
        ));
    }
    if has_written {
        if findings
            .iter()
            .any(|finding| matches!(finding.verdict, Verdict::Problem(_)))
        {
            // The last command may still be on its way, and would come after the deletion.
            sleep(Duration::from_secs(1)).await;
        }
        findings.push(clean_up(write, &prefix).await);
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
    has_written: bool,
    findings: &'a mut Vec<Finding>,
}

impl SmokeTest<'_> {
    async fn run(&mut self, idle: Option<Duration>) {
        let (sender, pushes) = unbounded_channel();
        let config = AsyncConnectionConfig::new().set_push_sender(sender);
        let login = DiagnosticConnection::open_with(self.write, "writing credential", config).await;
        let mut connection = match login {
            Ok(connection) => connection,
            Err(error) => {
                return self.fail(
                    "smoke: login",
                    error.to_string(),
                    "set REDIS_URL to the address and password that the store's console shows; nothing was tested",
                );
            }
        };
        self.findings.push(Finding::ok(
            "smoke: login",
            format!("logged in to {}", self.write),
        ));
        if let Err(error) = delete_keys(&mut connection, self.prefix).await {
            return self.fail(
                "smoke: tidying up",
                format!("keys could not be deleted: {error}"),
                "allow this user SCAN and DEL for the test, or use another user; nothing was tested",
            );
        }
        self.has_written = true;
        if let Err(error) = self.server(&mut connection, pushes).await {
            return self.fail(
                "smoke: connection",
                read_error(&error).to_string(),
                "the remaining tests were skipped; run it again when the connection is stable",
            );
        }
        self.commits().await;
        self.reader().await;
        if let Some(idle) = idle {
            self.idle(&mut connection, idle).await;
        }
    }

    async fn server(
        &mut self,
        connection: &mut DiagnosticConnection,
        pushes: UnboundedReceiver<PushInfo>,
    ) -> Result<(), RedisError> {
        self.hello(connection).await?;
        self.scripts(connection).await?;
        self.permission_check(connection).await?;
        self.messages(connection, pushes).await?;
        self.second_connection(connection).await?;
        self.latency(connection).await
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn fail(&mut self, check: &str, message: impl Into<String>, consequence: &str) {
        self.findings
            .push(Finding::problem(Fault::Store, check, message, consequence));
    }

    async fn hello(&mut self, connection: &mut DiagnosticConnection) -> Result<(), RedisError> {
        let check = "smoke: HELLO 3";
        let protocol = match connection.send(cmd("HELLO").arg(3)).await {
            Ok(Value::Map(members)) => {
                let is_protocol =
                    |name: &Value| text(name.clone()).is_ok_and(|name| name == "proto");
                members
                    .into_iter()
                    .find(|(name, _)| is_protocol(name))
                    .map(|(_, value)| describe_value(&value))
                    .unwrap_or_default()
            }
            Ok(other) => format!("a reply of type {}", kind_of(&other)),
            Err(error) if error.is_io_error() => return Err(error),
            Err(error) => describe(&error),
        };
        if protocol == "3" {
            self.findings
                .push(Finding::ok(check, "the server supports RESP3"));
        } else {
            self.fail(
                check,
                format!("expected protocol 3, found {protocol}"),
                "add `?protocol=resp2` to the address; then only the next call notices that the store closed a connection",
            );
        }
        Ok(())
    }

    /// What the commit script relies on, each in a script of its own.
    async fn scripts(&mut self, connection: &mut DiagnosticConnection) -> Result<(), RedisError> {
        let problem =
            |check: &str, consequence: &str| Finding::problem(Fault::Store, check, "", consequence);
        self.expect(
            connection,
            "local t = redis.call('TIME') return {type(t), tostring(#t), type(t[1]), type(t[2])}",
            &["table", "2", "string", "string"],
            Finding::warning(
                "smoke: TIME in a script",
                "",
                "audit entries get this machine's time; if you run several servers, synchronize their clocks",
            ),
        )
        .await?;
        let wrong_type = format!(
            "redis.call('SET', KEYS[1], 'x', 'EX', '{KEY_TTL_SECONDS}') local r = redis.pcall('SADD', KEYS[1], 'm') \
             return {{type(r), type(r) == 'table' and type(r.err) or '', type(r) == 'table' and string.match(r.err or '', 'WRONGTYPE') or ''}}"
        );
        self.expect(
            connection,
            &wrong_type,
            &["table", "string", "WRONGTYPE"],
            problem(
                "smoke: errors of redis.pcall",
                "an error in the middle of a commit could go unnoticed; do not write to this store, and report this to the developers",
            ),
        )
        .await?;
        self.expect(
            connection,
            "return {string.format('%.0f', 1770000000123456), '[' .. string.format('%16.0f', 7) .. ']'}",
            &["1770000000123456", "[               7]"],
            problem(
                "smoke: string.format",
                "audit entries would have wrong numbers and a wrong order; do not write to this store, and report this to the developers",
            ),
        )
        .await?;
        self.expect(
            connection,
            "local t = {} for i = 1, 500 do t[i] = i end return {tostring(select('#', unpack(t)))}",
            &["500"],
            problem(
                "smoke: unpack",
                "large commits, such as imports, would fail; report this to the developers",
            ),
        )
        .await
    }

    /// Runs a script, and records that it returned the expected texts; else records `otherwise`.
    async fn expect(
        &mut self,
        connection: &mut DiagnosticConnection,
        code: &str,
        expected: &[&str],
        otherwise: Finding,
    ) -> Result<(), RedisError> {
        let key = self.key("script");
        let found = match connection.send(cmd("EVAL").arg(code).arg(1).arg(key)).await {
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
                message: format!(
                    "expected `{}`, found `{}`",
                    truncate(&expected),
                    truncate(&found)
                ),
                ..otherwise
            }
        });
        Ok(())
    }

    async fn permission_check(
        &mut self,
        connection: &mut DiagnosticConnection,
    ) -> Result<(), RedisError> {
        let script = "return type(redis.acl_check_cmd)";
        let message = match connection.send(cmd("EVAL").arg(script).arg(0)).await {
            Ok(kind) if describe_value(&kind) == "`function`" => {
                "the server can check permissions, so each commit starts with that"
            }
            Err(error) if error.is_io_error() => return Err(error),
            _ => {
                "the server cannot check permissions, so each commit starts by testing its commands on a temporary key"
            }
        };
        self.findings
            .push(Finding::ok("smoke: permissions", message));
        Ok(())
    }

    /// Publishing and subscribing, with which servers could announce writes to each other.
    async fn messages(
        &mut self,
        connection: &mut DiagnosticConnection,
        mut pushes: UnboundedReceiver<PushInfo>,
    ) -> Result<(), RedisError> {
        let consequence = "no effect today; a later version may announce writes this way, and would have to poll the store instead";
        let channel = self.key("channel");
        if let Err(error) = connection.subscribe(&channel).await {
            self.findings.push(Finding::warning(
                "smoke: push",
                format!("SUBSCRIBE is refused: {}", describe(&error)),
                consequence,
            ));
            return Ok(());
        }
        let publish = "local r = redis.pcall('PUBLISH', ARGV[1], 'hello') return type(r) == 'table' and r.err or tostring(r)";
        let published = connection
            .send(cmd("EVAL").arg(publish).arg(0).arg(&channel))
            .await;
        let receivers = published
            .as_ref()
            .ok()
            .and_then(|value| text(value.clone()).ok())
            .unwrap_or_default();
        let check = "smoke: PUBLISH in a script";
        self.findings.push(if receivers.parse::<u64>().is_ok() {
            Finding::ok(check, "as expected")
        } else {
            let reply =
                published.map_or_else(|error| describe(&error), |value| describe_value(&value));
            Finding::warning(check, format!("is refused: {reply}"), consequence)
        });
        let arrival = async {
            while let Some(push) = pushes.recv().await {
                if push.kind == PushKind::Message {
                    return true;
                }
            }
            false
        };
        let arrived = timeout(MESSAGE_TIMEOUT, arrival).await;
        self.findings.push(if arrived == Ok(true) {
            Finding::ok("smoke: push", "a published message arrives")
        } else {
            Finding::warning(
                "smoke: push",
                "a published message does not arrive",
                consequence,
            )
        });
        Ok(())
    }

    /// Another connection may reach another server, which does not know the script.
    async fn second_connection(
        &mut self,
        connection: &mut DiagnosticConnection,
    ) -> Result<(), RedisError> {
        let check = "smoke: EVALSHA from a second connection";
        let code = format!("return '{}'", self.prefix);
        connection.send(cmd("EVAL").arg(&code).arg(0)).await?;
        let mut second = match DiagnosticConnection::open(self.write, "second connection").await {
            Ok(second) => second,
            Err(error) => {
                self.fail(
                    check,
                    error.to_string(),
                    "this program needs two to four connections; check the store's limit",
                );
                return Ok(());
            }
        };
        let script = Script::new(&code);
        let reply = second
            .send(cmd("EVALSHA").arg(script.get_hash()).arg(0))
            .await;
        self.findings.push(match reply {
            Ok(_) => Finding::ok(check, "knows the script that EVAL loaded"),
            Err(error) if error.is_io_error() => return Err(error),
            Err(error) => Finding::warning(
                check,
                describe(&error),
                "harmless: the whole script is sent again, which makes a write one round trip longer",
            ),
        });
        Ok(())
    }

    async fn latency(&mut self, connection: &mut DiagnosticConnection) -> Result<(), RedisError> {
        let median = connection
            .round_trip(&self.key("nothing"), ROUND_TRIPS)
            .await?;
        self.findings.push(Finding::ok(
            "smoke: latency",
            format!(
                "{:.1} ms, median of {ROUND_TRIPS}",
                median.as_secs_f64() * 1000.0
            ),
        ));
        Ok(())
    }

    async fn commits(&mut self) {
        let check = "smoke: commit";
        match commit::run_all(self.write, self.prefix, self.clock).await {
            Ok(duration) => self.findings.push(Finding::ok(
                check,
                format!(
                    "create, update, conflict, replay and idempotency work, with audit entries and indexes; an update took {:.1} ms",
                    duration.as_secs_f64() * 1000.0
                ),
            )),
            Err(problem) => self.fail(
                check,
                problem,
                "do not write to this store until the cause is known; report this to the developers",
            ),
        }
    }

    /// What the read-only credential allows. Most of what it does not allow is not needed.
    async fn reader(&mut self) {
        let check = "smoke: read-only credential";
        let Some(url) = self.read else {
            self.findings.push(Finding::ok(
                check,
                "not configured; reads use the other credential",
            ));
            return;
        };
        let mut connection = match DiagnosticConnection::open(url, "reading credential").await {
            Ok(connection) => connection,
            Err(error) => {
                return self.fail(
                    check,
                    error.to_string(),
                    "remove the read-only token, or set REDIS_URL; then reads use the other credential",
                );
            }
        };
        self.reader_commands(check, &mut connection).await;
        let key = self.key("reader");
        let write = connection
            .send(cmd("SET").arg(&key).arg("x").arg("EX").arg(KEY_TTL_SECONDS))
            .await;
        self.findings.push(match write {
            Err(error) if is_permission_denied(&error) => {
                Finding::ok(check, "writing is not allowed, as it should be")
            }
            Err(error) => Finding::warning(
                check,
                format!("a write fails with `{}`", describe(&error)),
                "harmless; the usual error is NOPERM",
            ),
            Ok(_) => Finding::warning(
                check,
                "writing is allowed",
                "this is not a read-only credential: a server that has only this one could change content",
            ),
        });
    }

    async fn reader_commands(&mut self, check: &str, connection: &mut DiagnosticConnection) {
        const NEEDED: [&str; 4] = ["GET", "SMEMBERS", "ZRANGE", "HGETALL"];
        let key = self.key("reader");
        let pattern = escape_pattern(&key);
        let commands = [
            ("PING", cmd("PING")),
            ("TIME", cmd("TIME")),
            ("EVAL_RO", cmd("EVAL_RO").arg("return 1").arg(0).clone()),
            (
                "SCAN",
                cmd("SCAN").arg("0").arg("MATCH").arg(pattern).clone(),
            ),
            ("GET", cmd("GET").arg(&key).clone()),
            ("SMEMBERS", cmd("SMEMBERS").arg(&key).clone()),
            ("ZRANGE", cmd("ZRANGE").arg(&key).arg(0).arg(-1).clone()),
            ("HGETALL", cmd("HGETALL").arg(&key).clone()),
        ];
        let (mut allowed, mut refused) = (Vec::new(), Vec::new());
        for (name, command) in &commands {
            match connection.send(command).await {
                Ok(_) => allowed.push(*name),
                Err(_) => refused.push(*name),
            }
        }
        let or_none = |names: &[&str]| match names {
            [] => "none".to_owned(),
            names => names.join(", "),
        };
        let message = format!(
            "allowed: {}; not allowed: {}",
            or_none(&allowed),
            or_none(&refused)
        );
        if NEEDED.iter().any(|name| refused.contains(name)) {
            self.fail(
                check,
                message,
                "reads would fail; remove the read-only token",
            );
        } else {
            self.findings.push(Finding::ok(check, message));
        }
    }

    async fn idle(&mut self, connection: &mut DiagnosticConnection, idle: Duration) {
        let check = "smoke: idle connection";
        let seconds = idle.as_secs();
        sleep(idle).await;
        let reply = connection.send(cmd("GET").arg(self.key("nothing"))).await;
        self.findings.push(match reply {
            Ok(_) => Finding::ok(check, format!("still open after {seconds} s")),
            Err(error) => Finding::warning(
                check,
                format!("closed within {seconds} s: {}", describe(&error)),
                "harmless: the server reconnects, and the first call after a pause is a little slower",
            ),
        });
    }
}

//! A private Redis server with its own port and directory, which ends with the test.

use std::{
    collections::BTreeMap,
    env, fmt, fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    str::FromStr,
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU16, Ordering},
    },
};

use portfolio_mcp::store::RedisUrl;
use redis::{Cmd, Connection, FromRedisValue, Value, cmd};
use tempfile::TempDir;

use super::{process::signal, wait::wait_until};

/// The password of every user that a test makes.
pub(crate) const PASSWORD: &str = "secret";

/// The permissions of `default_ro` at Upstash: no PING, no TIME, no scripts, no channels.
pub(crate) const READ_ONLY: [&str; 4] = ["~*", "resetchannels", "+@read", "-@dangerous"];

/// A running server, killed when this is dropped.
pub(crate) struct RedisServer {
    child: Child,
    port: u16,
    directory: TempDir,
    arguments: Vec<String>,
    admin: Mutex<Option<Connection>>,
}

impl RedisServer {
    /// A server without persistence.
    pub(crate) fn start() -> Self {
        Self::start_with(&["--save", "", "--appendonly", "no"])
    }

    /// A server with `arguments`; each option and each value is one of them.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let arguments: Vec<String> = arguments
            .iter()
            .map(|&argument| argument.to_owned())
            .collect();
        // Another process may take the port first.
        for _ in 0..20 {
            let port = free_port();
            if let Some((child, admin)) = spawn(port, directory.path(), &arguments) {
                return Self {
                    child,
                    port,
                    directory,
                    arguments,
                    admin: Mutex::new(Some(admin)),
                };
            }
        }
        panic!(
            "no Redis server started on any of 20 ports; the last one said:\n{}",
            log(directory.path())
        );
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The address for the user with all permissions.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The same for a store.
    pub(crate) fn redis_url(&self) -> RedisUrl {
        RedisUrl::parse(&self.url()).unwrap()
    }

    /// Makes a user with `rules` in the form of `ACL SETUSER`, and gives its address.
    pub(crate) fn user(&self, name: &str, rules: &[&str]) -> RedisUrl {
        self.run::<()>(
            cmd("ACL")
                .arg("SETUSER")
                .arg(name)
                .arg("reset")
                .arg("on")
                .arg(format!(">{PASSWORD}"))
                .arg(rules),
        );
        RedisUrl::parse(&format!(
            "redis://{name}:{PASSWORD}@127.0.0.1:{}",
            self.port
        ))
        .unwrap()
    }

    /// Runs a command as the user with all permissions.
    pub(crate) fn run<T: FromRedisValue>(&self, command: &Cmd) -> T {
        self.try_run(command).unwrap_or_else(|error| {
            panic!(
                "{:?} failed: {error}",
                command.args_iter().collect::<Vec<_>>()
            )
        })
    }

    pub(crate) fn try_run<T: FromRedisValue>(&self, command: &Cmd) -> redis::RedisResult<T> {
        let mut admin = self.admin.lock().unwrap();
        let connection = admin.get_or_insert_with(|| {
            connect(self.port).expect("the server that just answered takes no connection")
        });
        command.query(connection)
    }

    /// Runs a transaction as the administrator.
    pub(crate) fn run_all(&self, pipeline: &redis::Pipeline) {
        let mut admin = self.admin.lock().unwrap();
        let connection = admin.as_mut().expect("the server was used before");
        pipeline.exec(connection).unwrap();
    }

    /// How often the server has run a command, such as `get`.
    pub(crate) fn calls(&self, command: &str) -> u64 {
        let calls: Option<String> =
            self.find_info("commandstats", &format!("cmdstat_{command}:calls="));
        calls
            .and_then(|line| line.split(',').next()?.parse().ok())
            .unwrap_or_default()
    }

    /// A number from a section of `INFO`.
    pub(crate) fn info(&self, section: &str, name: &str) -> u64 {
        self.find_info(section, &format!("{name}:"))
            .unwrap_or_else(|| panic!("INFO {section} has no number {name}"))
    }

    /// What follows `prefix` on its line in a section of `INFO`.
    fn find_info<T: FromStr>(&self, section: &str, prefix: &str) -> Option<T> {
        let info: String = self.run(cmd("INFO").arg(section));
        let line = info.lines().find_map(|line| line.strip_prefix(prefix))?;
        line.trim().parse().ok()
    }

    /// Everything that is stored, as text, to compare and show.
    pub(crate) fn dump(&self) -> BTreeMap<String, String> {
        let keys: Vec<Vec<u8>> = self.run(cmd("KEYS").arg("*"));
        keys.into_iter()
            .map(|key| (as_text(&key), self.value_as_text(&key)))
            .collect()
    }

    fn value_as_text(&self, key: &[u8]) -> String {
        let kind: String = self.run(cmd("TYPE").arg(key));
        let ttl: i64 = self.run(cmd("TTL").arg(key));
        let expires = if ttl < 0 { "" } else { " with a TTL" };
        let mut parts: Vec<Vec<u8>> = match kind.as_str() {
            "string" => vec![self.run(cmd("GET").arg(key))],
            "set" => self.run(cmd("SMEMBERS").arg(key)),
            "zset" => self.run(cmd("ZRANGE").arg(key).arg(0).arg(-1).arg("WITHSCORES")),
            "list" => self.run(cmd("LRANGE").arg(key).arg(0).arg(-1)),
            "hash" => {
                let fields: BTreeMap<Vec<u8>, Vec<u8>> = self.run(cmd("HGETALL").arg(key));
                fields
                    .into_iter()
                    .flat_map(|(name, value)| [name, value])
                    .collect()
            }
            _ => vec![self.run(cmd("DUMP").arg(key))],
        };
        if kind == "set" {
            parts.sort_unstable();
        }
        format!(
            "{kind}{expires} {:?}",
            parts.iter().map(|part| as_text(part)).collect::<Vec<_>>()
        )
    }

    /// Kills the server, as a power cut would.
    pub(crate) fn kill9(&mut self) {
        *self.admin.lock().unwrap() = None;
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again after [`Self::kill9`], on the same port and directory.
    ///
    /// It also writes the append-only file anew, because a kill can leave half a transaction in it.
    /// Redis 7.0 ignores that half when it starts, but keeps it in the file without its end, so at
    /// the next start the following transaction is part of it (Valkey fixed this in August 2026,
    /// <https://github.com/valkey-io/valkey/pull/4342>).
    pub(crate) fn restart(&mut self) {
        let (child, mut admin) = wait_until("the killed Redis server runs again", || {
            spawn(self.port, self.directory.path(), &self.arguments)
        });
        self.child = child;
        if self
            .arguments
            .windows(2)
            .any(|pair| pair == ["--appendonly", "yes"])
        {
            let _: Value = cmd("BGREWRITEAOF").query(&mut admin).unwrap();
            wait_until("the append-only file is written anew", || {
                let about: String = cmd("INFO").arg("persistence").query(&mut admin).unwrap();
                let done = ["aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0"];
                done.iter().all(|field| about.contains(field)).then_some(())
            });
        }
        *self.admin.lock().unwrap() = Some(admin);
    }

    /// Stops the process: connections are still accepted, but nothing is answered.
    pub(crate) fn stop(&self) {
        signal(self.child.id(), "-STOP");
    }

    /// Ends [`Self::stop`].
    pub(crate) fn cont(&self) {
        signal(self.child.id(), "-CONT");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl fmt::Debug for RedisServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the Redis server on port {}", self.port)
    }
}

/// A free port, below those that the system gives to outgoing connections, so that it stays free
/// while a killed server is down.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST_PORT: u16 = 15_000;
    const COUNT: u16 = 16_000;
    // Test processes that run at the same time begin with different ports.
    let start = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap();
    wait_until("a port is free", || {
        let port = FIRST_PORT
            + start
                .wrapping_mul(7)
                .wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed))
                % COUNT;
        TcpListener::bind(("127.0.0.1", port))
            .is_ok()
            .then_some(port)
    })
}

/// The server program, found or downloaded once for each test process.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<Result<String, String>> = OnceLock::new();
    let found = PROGRAM.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/ensure-redis.sh");
        let output = Command::new(script)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("{script}: {error}"))?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(format!(
                "{script} found no Redis server:\n{}",
                String::from_utf8_lossy(&output.stderr)
            ))
        }
    });
    match found {
        Ok(path) => Path::new(path),
        Err(problem) => panic!("{problem}"),
    }
}

/// The server with a connection to it; `None` if it ended because its port is taken.
fn spawn(port: u16, directory: &Path, arguments: &[String]) -> Option<(Child, Connection)> {
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(directory.join("log"))
        .unwrap();
    let mut child = Command::new(program())
        .args([
            "--bind",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--daemonize",
            "no",
            "--dir",
        ])
        .arg(directory)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let connection = wait_until("the Redis server answers", || {
        if child.try_wait().unwrap().is_some() {
            return Some(None);
        }
        // Another server may be answering on this port, while ours is about to fail.
        let mut connection = connect(port).ok()?;
        let about: String = cmd("INFO").arg("server").query(&mut connection).ok()?;
        about
            .contains(&format!("process_id:{}\r\n", child.id()))
            .then_some(Some(connection))
    });
    connection.map(|connection| (child, connection))
}

fn connect(port: u16) -> redis::RedisResult<Connection> {
    let mut connection =
        redis::Client::open(format!("redis://127.0.0.1:{port}"))?.get_connection()?;
    cmd("PING").query::<Value>(&mut connection)?;
    Ok(connection)
}

fn log(directory: &Path) -> String {
    let text = fs::read_to_string(directory.join("log")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

fn as_text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.escape_ascii().to_string(),
    }
}

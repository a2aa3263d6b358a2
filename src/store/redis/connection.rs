//! A connection to Redis that notices when nobody is at the other end any more.
//!
//! redis-rs's connection manager makes a new connection when the old one was closed, but it waits for ever on one that fell silent,
//! as behind a router that forgot it. A few answers in a row that do not come in time end such a connection here.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use redis::{
    Client, Cmd, IntoConnectionInfo, Pipeline, ProtocolVersion, RedisError, TlsCertificates, Value,
    aio::{ConnectionManager, ConnectionManagerConfig},
    io::tcp::TcpSettings,
};
use tokio::time::timeout;
use tracing::debug;

use crate::store::RedisUrl;

/// How long a connection may take to be made: name, TCP, TLS and password.
pub(crate) const CONNECT: Duration = Duration::from_secs(2);
/// How long a command may take.
pub(crate) const RESPONSE: Duration = Duration::from_secs(2);
/// So many answers in a row that did not come replace the connection.
const SILENT: u32 = 2;

/// What callers send at the same time goes out in one piece of about so many bytes: a commit alone is larger than the usual 8 KiB, and
/// would be a piece, and a system call, of its own. The price: so much is sent although its callers gave up in the meantime.
const TOGETHER: usize = 128 * 1024;

/// One connection, shared by all callers, and what it takes to make another.
pub(crate) struct Connection {
    client: Client,
    config: ConnectionManagerConfig,
    current: Mutex<Current>,
    unanswered: AtomicU32,
}

struct Current {
    manager: ConnectionManager,
    number: u64,
}

impl Connection {
    /// A line that connects when it is first used; has to be called within a tokio runtime.
    pub(crate) fn new(client: Client) -> Result<Self, RedisError> {
        // Repeating is done where it is known what may be repeated.
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(RESPONSE))
            .set_number_of_retries(0)
            .set_write_backpressure_boundary(TOGETHER);
        let manager = ConnectionManager::new_lazy_with_config(client.clone(), config.clone())?;
        Ok(Self {
            client,
            config,
            current: Mutex::new(Current { manager, number: 0 }),
            unanswered: AtomicU32::new(0),
        })
    }

    /// What a command answers; what the server refuses is an error like any other.
    pub(crate) async fn send(&self, command: &Cmd) -> Result<Value, RedisError> {
        let answer = self
            .ask(|mut manager| async move { manager.send_packed_command(command).await })
            .await?;
        match answer {
            Value::ServerError(error) => Err(error.into()),
            value => Ok(value),
        }
    }

    /// What `count` commands answer, from the one at `offset` on.
    pub(crate) async fn send_all(
        &self,
        commands: &Pipeline,
        offset: usize,
        count: usize,
    ) -> Result<Vec<Value>, RedisError> {
        self.ask(|mut manager| async move {
            manager.send_packed_commands(commands, offset, count).await
        })
        .await
    }

    async fn ask<T, F>(&self, send: impl FnOnce(ConnectionManager) -> F) -> Result<T, RedisError>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let (manager, number) = {
            let current = self.lock();
            (current.manager.clone(), current.number)
        };
        let late = || {
            RedisError::from(std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                "no answer in time",
            ))
        };
        let answer = timeout(CONNECT + RESPONSE, send(manager))
            .await
            .unwrap_or_else(|_| Err(late()));
        match &answer {
            Err(error) if error.is_timeout() => {
                if self.unanswered.fetch_add(1, Ordering::Relaxed) + 1 >= SILENT
                    && self.replace(number)
                {
                    debug!("the connection to Redis fell silent and is replaced");
                }
            }
            // One that was closed is the manager's to replace.
            Err(error) if error.is_io_error() => {}
            Ok(_) => self.unanswered.store(0, Ordering::Relaxed),
            // What the server says to a command is an answer, so it was the connection that it refused, such as with a wrong password. The
            // manager would repeat that for ever, also when it is not true any more.
            Err(_) => {
                self.replace(number);
            }
        }
        answer
    }

    /// Replaces the connection `number`, and says whether; somebody else may have done so already.
    fn replace(&self, number: u64) -> bool {
        let mut current = self.lock();
        if current.number != number {
            return false;
        }
        // The old one goes with its last user.
        let Ok(manager) =
            ConnectionManager::new_lazy_with_config(self.client.clone(), self.config.clone())
        else {
            return false;
        };
        metrics::counter!("portfolio_store_reconnects_total").increment(1);
        *current = Current {
            manager,
            number: number + 1,
        };
        self.unanswered.store(0, Ordering::Relaxed);
        true
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn connect(url: &RedisUrl) -> anyhow::Result<(Arc<Connection>, Client)> {
    let client = client(url)?;
    Ok((Arc::new(Connection::new(client.clone())?), client))
}

/// What connects to `url`.
pub(crate) fn client(url: &RedisUrl) -> anyhow::Result<Client> {
    // Several may be linked in; the first call decides, and a second one changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let info = url.secret().clone().into_connection_info()?;
    let says_protocol = url
        .secret()
        .query_pairs()
        .any(|(name, _)| name == "protocol");
    let settings = info.redis_settings().clone();
    let settings = if says_protocol {
        settings
    } else {
        settings.set_protocol(ProtocolVersion::RESP3)
    };
    let info = info
        .set_redis_settings(settings)
        .set_tcp_settings(TcpSettings::default().set_nodelay(true));
    Ok(match url.authority() {
        Some(authority) => Client::build_with_tls(
            info,
            TlsCertificates {
                client_tls: None,
                root_cert: Some(authority.pem()),
            },
        )?,
        None => Client::open(info)?,
    })
}

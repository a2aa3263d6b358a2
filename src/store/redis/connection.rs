//! A connection to Redis that is replaced when the other end has fallen silent.
//!
//! redis-rs's connection manager reconnects after a connection was closed, but it waits forever on
//! one that fell silent, such as behind a router that forgot it. Here, a few missing replies in a
//! row end such a connection.

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

use super::error::is_refused;
use crate::store::RedisUrl;

/// How long connecting may take: name resolution, TCP, TLS and login.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a reply may take.
pub(crate) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
/// This many missing replies in a row replace the connection.
const MAX_UNANSWERED: u32 = 2;

/// Commands that are sent at the same time leave in pieces of about this many bytes. A commit alone
/// is larger than the usual 8 KiB and would be a piece, and a system call, of its own. The price:
/// this much is sent although its callers have given up in the meantime.
const WRITE_BUFFER_BYTES: usize = 128 * 1024;

/// One connection, shared by all callers, which can be replaced.
pub(crate) struct Connection {
    client: Client,
    config: ConnectionManagerConfig,
    current: Mutex<Current>,
    unanswered: AtomicU32,
}

struct Current {
    manager: ConnectionManager,
    number: u64,
    kept: Kept,
}

/// Whether the error that a call meets when it connects may be from an attempt before the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    No,
    Maybe,
}

impl Connection {
    /// A connection that is made on first use. Has to be called within a tokio runtime.
    pub(crate) fn new(client: Client) -> Result<Self, RedisError> {
        // `Resilient` retries: it knows what may be repeated.
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_number_of_retries(0)
            .set_write_backpressure_boundary(WRITE_BUFFER_BYTES);
        let manager = ConnectionManager::new_lazy_with_config(client.clone(), config.clone())?;
        Ok(Self {
            client,
            config,
            current: Mutex::new(Current {
                manager,
                number: 0,
                kept: Kept::No,
            }),
            unanswered: AtomicU32::new(0),
        })
    }

    /// The reply to a command. An error that the server sends is an error.
    pub(crate) async fn send(&self, command: &Cmd) -> Result<Value, RedisError> {
        let answer = self
            .call(|mut manager| async move { manager.send_packed_command(command).await })
            .await?;
        match answer {
            Value::ServerError(error) => Err(error.into()),
            value => Ok(value),
        }
    }

    /// The replies to `count` commands, from the one at `offset` on. Errors that the server sends
    /// are replies.
    pub(crate) async fn send_all(
        &self,
        commands: &Pipeline,
        offset: usize,
        count: usize,
    ) -> Result<Vec<Value>, RedisError> {
        self.call(|mut manager| async move {
            manager.send_packed_commands(commands, offset, count).await
        })
        .await
    }

    /// A connection that was lost is made again at once, and how that ended is kept for the next
    /// call. So if it was refused then, it is tried once more: the server may be back, or the password
    /// right, by now.
    async fn call<T, F>(&self, send: impl Fn(ConnectionManager) -> F) -> Result<T, RedisError>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let (answer, kept) = self.call_once(&send).await;
        match (answer, kept) {
            (Err(error), Kept::Maybe) if is_refused(&error) || error.is_connection_refusal() => {
                self.call_once(&send).await.0
            }
            (answer, _) => answer,
        }
    }

    async fn call_once<T, F>(
        &self,
        send: impl Fn(ConnectionManager) -> F,
    ) -> (Result<T, RedisError>, Kept)
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let (manager, number, kept) = {
            let current = self.lock();
            (current.manager.clone(), current.number, current.kept)
        };
        let late = || {
            RedisError::from(std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                "no answer in time",
            ))
        };
        let answer = timeout(CONNECT_TIMEOUT + RESPONSE_TIMEOUT, send(manager))
            .await
            .unwrap_or_else(|_| Err(late()));
        match &answer {
            Err(error) if error.is_timeout() => {
                if self.unanswered.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_UNANSWERED
                    && self.replace(number)
                {
                    debug!("replacing the connection to Redis, which fell silent");
                }
            }
            // The manager would give the next call the same error, or that of an attempt which it
            // makes now, even after the password or the certificate was corrected.
            Err(error) if is_refused(error) => {
                self.replace(number);
            }
            // The manager replaces a closed connection.
            Err(error) if error.is_io_error() => self.keep(number),
            Ok(_) => {
                self.unanswered.store(0, Ordering::Relaxed);
                self.keep(number);
            }
            // Not the reply to a command, so the connection cannot be used.
            Err(_) => {
                self.replace(number);
            }
        }
        (answer, kept)
    }

    /// From now on the manager of the connection `number` makes it again by itself.
    fn keep(&self, number: u64) {
        let mut current = self.lock();
        if current.number == number {
            current.kept = Kept::Maybe;
        }
    }

    /// Replaces the connection `number`, unless another call has done so already; returns whether
    /// it did.
    fn replace(&self, number: u64) -> bool {
        let mut current = self.lock();
        if current.number != number {
            return false;
        }
        // The old one is closed when its last call has ended.
        let Ok(manager) =
            ConnectionManager::new_lazy_with_config(self.client.clone(), self.config.clone())
        else {
            return false;
        };
        metrics::counter!("portfolio_store_reconnects_total").increment(1);
        *current = Current {
            manager,
            number: number + 1,
            kept: Kept::No,
        };
        self.unanswered.store(0, Ordering::Relaxed);
        true
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection to `url`, made on first use, and the client that makes it.
pub(crate) fn connect(url: &RedisUrl) -> anyhow::Result<(Arc<Connection>, Client)> {
    let client = client(url)?;
    Ok((Arc::new(Connection::new(client.clone())?), client))
}

/// A client that connects to `url`.
pub(crate) fn client(url: &RedisUrl) -> anyhow::Result<Client> {
    // The first call installs the provider; later ones do nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let info = url.secret().clone().into_connection_info()?;
    let names_protocol = url
        .secret()
        .query_pairs()
        .any(|(name, _)| name == "protocol");
    let settings = info.redis_settings().clone();
    let settings = if names_protocol {
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

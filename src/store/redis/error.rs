//! What a Redis error means for the caller: which `StoreError` it is, and what to do about it.

use std::{sync::Arc, time::Duration};

use redis::{ErrorKind, RedisError, ServerErrorKind};
use rustls::CertificateError;

use crate::{
    domain::text::sanitize,
    store::{
        StoreError,
        location::{CONNECTION_HINT, TIMEOUT_HINT},
    },
};

/// When to try a write again that the server does not accept at the moment.
const WRITE_PAUSE: Duration = Duration::from_secs(3);

/// A write that the server refused, before anything was written.
pub(crate) fn write_error(error: &RedisError) -> StoreError {
    if describe(error)
        .to_lowercase()
        .contains("capacity quota exceeded")
    {
        return paused(
            "the database has used up its storage quota; make room or raise the plan's limit, then try again",
            None,
        );
    }
    if is_permission_denied(error) {
        return StoreError::ReadOnly {
            reason: "the server's Redis user may not write".to_owned(),
            detail: Some(format!(
                "{}; grant it the permission, or give the server a credential that may write",
                describe(error)
            )),
            retry_after: None,
        };
    }
    match (error.kind(), error.code()) {
        (ErrorKind::Server(ServerErrorKind::ReadOnly), _) => paused(
            "this Redis is a read-only replica",
            Some("give the server the address of the primary".to_owned()),
        ),
        (_, Some("OOM")) => paused(
            "the Redis database is full; make room or enlarge it, then try again",
            None,
        ),
        (_, Some("MISCONF" | "NOREPLICAS")) => paused(
            "Redis accepts no writes at the moment",
            Some(describe(error)),
        ),
        (_, Some("WRONGTYPE")) => StoreError::Failed(
            "one of this program's keys (index:…, audit:…, internal:…) holds a value of another Redis type; rename the key"
                .to_owned(),
        ),
        _ => read_error(error),
    }
}

fn paused(reason: &str, detail: Option<String>) -> StoreError {
    StoreError::ReadOnly {
        reason: reason.to_owned(),
        detail,
        retry_after: Some(WRITE_PAUSE),
    }
}

/// A read that failed.
pub(crate) fn read_error(error: &RedisError) -> StoreError {
    if let Some(denied) = access_denied(error) {
        return denied;
    }
    let text = describe(error);
    // Upstash sends this without a code of its own.
    if text.to_lowercase().contains("max concurrent connections") || error.code() == Some("BUSY") {
        return StoreError::Unavailable(text);
    }
    if error.is_timeout() {
        return StoreError::Unavailable(format!("{text}; {TIMEOUT_HINT}"));
    }
    if error.kind() == ErrorKind::Parse {
        return StoreError::Unavailable(format!(
            "what answers there does not answer like Redis; {CONNECTION_HINT}"
        ));
    }
    if is_transient(error)
        || error.is_unrecoverable_error()
        || error.kind() == ErrorKind::InvalidClientConfig
    {
        return StoreError::Unavailable(format!("{text}; {CONNECTION_HINT}"));
    }
    StoreError::Failed(format!("Redis replied: {text}"))
}

/// Why Redis refuses this server until an operator acts: its quota, a credential, a certificate, or
/// that it is only a part of the store.
fn access_denied(error: &RedisError) -> Option<StoreError> {
    if describe(error)
        .to_lowercase()
        .contains("max requests limit exceeded")
    {
        return Some(StoreError::AccessDenied {
            reason: "the database has used up its quota of requests; wait for the next period or raise the plan's limit"
                .to_owned(),
            detail: None,
        });
    }
    if error.kind() == ErrorKind::AuthenticationFailed || error.code() == Some("WRONGPASS") {
        return Some(StoreError::AccessDenied {
            reason: "could not log in to Redis: wrong user name or password".to_owned(),
            detail: Some(
                "fix the credentials in the store's address; for a database whose REST token is not its password, set REDIS_URL"
                    .to_owned(),
            ),
        });
    }
    if error.code() == Some("NOAUTH") {
        return Some(StoreError::AccessDenied {
            reason: "could not log in to Redis: it requires a password, and the store's address has none"
                .to_owned(),
            detail: Some("write the address as `redis://USER:PASSWORD@HOST`".to_owned()),
        });
    }
    if describe(error).contains("DB index") {
        return Some(StoreError::AccessDenied {
            reason: "the Redis server has no database with the number in the store's address"
                .to_owned(),
            detail: Some(
                "write another number after the host, or none for the database 0, as in `redis://HOST:6379`"
                    .to_owned(),
            ),
        });
    }
    if let Some("MOVED" | "ASK" | "CLUSTERDOWN" | "CROSSSLOT") = error.code() {
        return Some(StoreError::AccessDenied {
            reason: "this Redis is a node of a Redis Cluster, which is not supported".to_owned(),
            detail: Some(format!(
                "it replied `{}`; give the server the address of a Redis that is not in cluster mode",
                describe(error)
            )),
        });
    }
    tls_error(error).map(tls_failure)
}

fn tls_failure(error: &rustls::Error) -> StoreError {
    let (reason, detail) = match error {
        rustls::Error::InvalidCertificate(error) => (
            "the certificate of Redis is not trusted",
            certificate_problem(error),
        ),
        rustls::Error::InvalidMessage(_) => (
            "the TLS handshake with Redis failed",
            "the port does not speak TLS; use `redis://` if that is intended".to_owned(),
        ),
        other => (
            "the TLS handshake with Redis failed",
            format!(
                "{other}; the server must accept TLS 1.2 or 1.3 and must not require a client certificate"
            ),
        ),
    };
    StoreError::AccessDenied {
        reason: reason.to_owned(),
        detail: Some(detail),
    }
}

fn certificate_problem(error: &CertificateError) -> String {
    let remedy = match error {
        // Two authorities may have the same name.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "unknown certificate authority; pass the CA's PEM file with --ca-file (PORTFOLIO_CA_FILE)"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another host; check that this is the right server, and use the host name in the certificate"
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            "it is not valid at this time; renew it, or correct this machine's clock"
        }
        _ => "install a valid certificate on the server",
    };
    let text: String = error.to_string().chars().take(200).collect();
    format!("{remedy} ({text})")
}

/// Whether the server itself sent this error as its reply.
pub(crate) fn is_reply(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
}

/// Whether the Redis user lacks the permission.
pub(crate) fn is_permission_denied(error: &RedisError) -> bool {
    // A refused command of a script has no code of its own, and one of two texts.
    let in_script = || {
        let text = describe(error);
        text.contains("ACL failure in script") || text.contains("can't run this command")
    };
    error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) || (is_reply(error) && in_script())
}

/// Whether the connection was refused for its credentials or a certificate, so before any command
/// was sent.
pub(super) fn is_refused(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("WRONGPASS" | "NOAUTH"))
        || tls_error(error).is_some()
}

/// Whether the server's certificate was refused, which happens before anything is sent.
pub(crate) fn is_untrusted_certificate(error: &RedisError) -> bool {
    matches!(tls_error(error), Some(rustls::Error::InvalidCertificate(_)))
}

/// The text of an error, in one line and without the values that were sent, which some servers
/// repeat.
pub(crate) fn describe(error: &RedisError) -> String {
    let text = error.to_string();
    let line = text
        .lines()
        .next()
        .unwrap_or_default()
        .split(", with args beginning with")
        .next()
        .unwrap_or_default();
    sanitize(line).chars().take(200).collect()
}

/// Whether sending the command again may help.
fn is_transient(error: &RedisError) -> bool {
    let server = [
        ServerErrorKind::BusyLoading,
        ServerErrorKind::TryAgain,
        ServerErrorKind::MasterDown,
    ];
    (error.is_io_error() && tls_error(error).is_none())
        || server
            .iter()
            .any(|kind| error.kind() == ErrorKind::Server(*kind))
}

/// The TLS error inside: redis-rs wraps it in an IO error, and that in an `Arc`.
fn tls_error(error: &RedisError) -> Option<&rustls::Error> {
    let wrapped = std::error::Error::source(error)?
        .downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>()?;
    wrapped
        .downcast_ref::<std::io::Error>()?
        .get_ref()?
        .downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::redis::reply::unwrap_reply;

    fn reply_error(line: &str) -> RedisError {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        unwrap_reply(value).unwrap_err()
    }

    /// Upstash's errors have no code of their own, and each calls for a different reaction.
    #[test]
    fn quota_errors_and_a_busy_server_are_distinguished() {
        let quota = reply_error("ERR max requests limit exceeded. Limit: 500000, Usage: 500000");
        let connections = reply_error("ERR max concurrent connections exceeded");
        let space = reply_error("ERR DB capacity quota exceeded. Limit: 268435456");
        let busy = reply_error(
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        );

        assert!(
            matches!(read_error(&quota), StoreError::AccessDenied { reason, .. } if reason.contains("quota of requests"))
        );
        assert!(matches!(
            write_error(&quota),
            StoreError::AccessDenied { .. }
        ));
        assert!(matches!(
            read_error(&connections),
            StoreError::Unavailable(_)
        ));
        assert!(matches!(read_error(&busy), StoreError::Unavailable(_)));
        assert!(
            matches!(write_error(&space), StoreError::ReadOnly { reason, retry_after: Some(_), .. } if reason.contains("storage quota"))
        );
    }
}

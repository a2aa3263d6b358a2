//! What a Redis error means for the caller: which `StoreError` it is, and what to do about it.

use std::{sync::Arc, time::Duration};

use redis::{ErrorKind, RedisError, ServerErrorKind};
use rustls::CertificateError;

use crate::{
    domain::text::sanitize,
    store::{StoreError, location::CONNECTION_HINT},
};

/// When to ask again for a write that the server does not take at the moment.
const FULL: Duration = Duration::from_secs(3);

/// Whether the server itself said it.
pub(crate) fn is_reply(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
}

/// A write that the server refused, before anything was written.
pub(crate) fn refused(error: &RedisError) -> StoreError {
    match (error.kind(), error.code()) {
        (ErrorKind::Server(ServerErrorKind::NoPerm), _) => {
            StoreError::ReadOnly(format!("the Redis user may not write: {}; give the server a credential that may", plain(error)))
        }
        (ErrorKind::Server(ServerErrorKind::ReadOnly), _) => {
            paused("this Redis is a read-only replica; give the server the address of the primary".to_owned())
        }
        _ if plain(error).to_lowercase().contains("capacity quota exceeded") => {
            paused("the database has used up its quota of space; make room or raise the plan's limit, then try again".to_owned())
        }
        (_, Some("OOM")) => paused("the Redis database is full; make room or enlarge it, then try again".to_owned()),
        (_, Some("WRONGTYPE")) => StoreError::Failed(
            "one of this program's keys (index:…, audit:…, internal:…) holds a value of another Redis type; the site's developer has to \
             rename or delete it"
                .to_owned(),
        ),
        (_, Some("MISCONF" | "NOREPLICAS")) => paused(format!("Redis takes no writes at the moment: {}", plain(error))),
        _ => unread(error),
    }
}

/// A read that failed.
pub(crate) fn unread(error: &RedisError) -> StoreError {
    if let Some(reason) = not_let_in(error) {
        return StoreError::Refused(reason);
    }
    // What Upstash says with no code of its own.
    let said = plain(error).to_lowercase();
    if said.contains("max requests limit exceeded") {
        let remedy = "wait for the next period or raise the plan's limit";
        return StoreError::Refused(format!(
            "the database's quota of requests is used up; {remedy}"
        ));
    }
    if said.contains("max concurrent connections") || error.code() == Some("BUSY") {
        return StoreError::Unavailable(plain(error));
    }
    if is_transient(error)
        || error.is_unrecoverable_error()
        || error.kind() == ErrorKind::InvalidClientConfig
    {
        return StoreError::Unavailable(format!("{}; {CONNECTION_HINT}", plain(error)));
    }
    StoreError::Failed(format!("Redis answered: {}", plain(error)))
}

/// Whether the user may not do that.
pub(crate) fn is_permission(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm)
}

/// Whether the server's certificate was refused, which is before anything is sent.
pub(crate) fn is_distrust(error: &RedisError) -> bool {
    matches!(tls_error(error), Some(rustls::Error::InvalidCertificate(_)))
}

/// What an error says, in one line and without the values that were sent, which some servers repeat.
pub(crate) fn plain(error: &RedisError) -> String {
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

/// Whether sending it again may help.
fn is_transient(error: &RedisError) -> bool {
    let server = [
        ServerErrorKind::BusyLoading,
        ServerErrorKind::TryAgain,
        ServerErrorKind::ClusterDown,
        ServerErrorKind::MasterDown,
    ];
    (error.is_io_error() && tls_error(error).is_none())
        || server
            .iter()
            .any(|kind| error.kind() == ErrorKind::Server(*kind))
}

fn paused(reason: String) -> StoreError {
    StoreError::Paused {
        reason,
        retry_after: FULL,
    }
}

/// Why Redis, or its certificate, makes every further attempt useless until somebody has mended something.
fn not_let_in(error: &RedisError) -> Option<String> {
    if error.kind() == ErrorKind::AuthenticationFailed || error.code() == Some("WRONGPASS") {
        let remedy = "put the right one into the address; for a database whose REST token is not its password, set REDIS_URL";
        return Some(format!("Redis refuses the user or the password; {remedy}"));
    }
    if error.code() == Some("NOAUTH") {
        return Some("Redis wants a password, and the address has none; write it as `redis://USER:PASSWORD@HOST`".to_owned());
    }
    let error = match tls_error(error)? {
        rustls::Error::InvalidCertificate(error) => error,
        rustls::Error::InvalidMessage(_) => {
            return Some(
                "the port does not answer with TLS; use `redis://` if that is meant".to_owned(),
            );
        }
        other => {
            return Some(format!(
                "there is no TLS with Redis: {other}; see that it takes TLS 1.2 or 1.3 without a client's certificate"
            ));
        }
    };
    let remedy = match error {
        // Two authorities may have the same name.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "it is signed by nobody who is trusted; pass the PEM file of the authority that signed it as --ca-file (PORTFOLIO_CA_FILE)"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another host; use the host's name that the certificate has, and see that this is the right server"
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            "it is not valid at this time; renew it, or put this machine's clock right"
        }
        _ => "put another one in the server",
    };
    let shown: String = error.to_string().chars().take(200).collect();
    Some(format!(
        "the certificate of Redis is refused ({shown}): {remedy}"
    ))
}

/// What is wrong with TLS; redis-rs wraps it in an IO error, and that in an `Arc`.
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
    use crate::store::redis::reply::unwrapped;

    fn said(line: &str) -> RedisError {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        unwrapped(value).unwrap_err()
    }

    /// What Upstash says has no code of its own, and each calls for something else.
    #[test]
    fn a_used_up_quota_and_a_busy_server_are_told_apart() {
        let quota = said("ERR max requests limit exceeded. Limit: 500000, Usage: 500000");
        let connections = said("ERR max concurrent connections exceeded");
        let space = said("ERR DB capacity quota exceeded. Limit: 268435456");
        let busy = said(
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        );

        assert!(
            matches!(unread(&quota), StoreError::Refused(reason) if reason.contains("quota of requests"))
        );
        assert!(matches!(refused(&quota), StoreError::Refused(_)));
        assert!(matches!(unread(&connections), StoreError::Unavailable(_)));
        assert!(matches!(unread(&busy), StoreError::Unavailable(_)));
        assert!(
            matches!(refused(&space), StoreError::Paused { reason, .. } if reason.contains("quota of space"))
        );
    }
}

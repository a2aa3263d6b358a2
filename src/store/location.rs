//! Where a store is: a Redis URL with its credentials, or a file.

use std::{fmt, path::PathBuf, sync::Arc};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use url::Url;

/// Hint for replies that do not come. With the wrong scheme both sides wait for each other without an
/// error.
pub(super) const TIMEOUT_HINT: &str = "the network to it may be slow or broken, or Redis is not running, or the address is wrong (`rediss://` if the port uses TLS, `redis://` if not)";
/// Hint for connection failures.
pub(super) const CONNECTION_HINT: &str = "check that Redis is running and that the address is right (`rediss://` if the port uses TLS, `redis://` if not)";

/// Hint for URLs that an unescaped password may have broken.
const ESCAPE_HINT: &str =
    "; in a password, write `/` as %2F, `?` as %3F, `#` as %23 and `@` as %40";

/// Where documents and the audit log live.
#[derive(Debug, Clone)]
pub enum Location {
    /// A Redis database. At least one of the two URLs is there; without `write`, nothing can be
    /// written.
    Redis {
        /// For writing, and for reading what is about to be changed.
        write: Option<RedisUrl>,
        /// For reading, if that has a credential of its own.
        read: Option<RedisUrl>,
        /// Comes before every key.
        key_prefix: String,
    },
    /// One SQLite file.
    Sqlite(PathBuf),
}

impl Location {
    /// Why nothing can be written here, if so.
    #[must_use]
    pub fn read_only_reason(&self) -> Option<&'static str> {
        match self {
            Self::Redis { write: None, .. } => Some("only a read-only credential is configured"),
            Self::Redis { .. } | Self::Sqlite(_) => None,
        }
    }

    /// The same location, with a certificate that `authority` has to have signed.
    ///
    /// # Errors
    /// Why this location has no certificate.
    pub fn with_authority(self, authority: &Authority) -> Result<Self, String> {
        let with_authority = |url: RedisUrl| match url.url.scheme() {
            "rediss" => Ok(RedisUrl {
                authority: Some(authority.clone()),
                ..url
            }),
            _ => Err(
                "the store's address does not use TLS; use `rediss://…`, or remove the option"
                    .to_owned(),
            ),
        };
        match self {
            Self::Redis {
                write,
                read,
                key_prefix,
            } => Ok(Self::Redis {
                write: write.map(with_authority).transpose()?,
                read: read.map(with_authority).transpose()?,
                key_prefix,
            }),
            Self::Sqlite(_) => Err(
                "a SQLite file has no certificate; remove the option, or choose a Redis store"
                    .to_owned(),
            ),
        }
    }
}

/// Shows no password.
impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redis { write, read, .. } => match write.as_ref().or(read.as_ref()) {
                Some(url) => url.fmt(formatter),
                None => formatter.write_str("redis"),
            },
            Self::Sqlite(path) => write!(formatter, "sqlite:{}", path.display()),
        }
    }
}

/// The address and credential of a Redis database. `Debug` and `Display` hide the password.
#[derive(Clone)]
pub struct RedisUrl {
    url: Box<Url>,
    authority: Option<Authority>,
}

/// A private certificate authority, trusted instead of the public ones: PEM text with one or more
/// certificates.
#[derive(Clone)]
pub struct Authority(Arc<[u8]>);

impl Authority {
    /// Reads PEM text. Checked here, because a connection ignores certificates that it cannot read,
    /// and then trusts nothing.
    ///
    /// # Errors
    /// What is wrong with it, to be put after the name of the file.
    pub fn parse(pem: &[u8]) -> Result<Self, String> {
        let expected = "expected the PEM file of the authority that signed the store's certificate (`-----BEGIN CERTIFICATE-----`)";
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate =
                certificate.map_err(|error| format!("is not valid PEM: {error}; {expected}"))?;
            roots.add(certificate).map_err(|error| {
                format!("contains a certificate that cannot be used: {error}; {expected}")
            })?;
        }
        if roots.is_empty() {
            Err(format!("contains no certificate; {expected}"))
        } else {
            Ok(Self(pem.into()))
        }
    }

    /// The PEM text.
    pub(super) fn pem(&self) -> Vec<u8> {
        self.0.to_vec()
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a private authority")
    }
}

impl RedisUrl {
    /// Reads `redis://…` or `rediss://…` (with TLS).
    ///
    /// Upstash accepts TLS only, so a URL without TLS, which older integrations left behind,
    /// becomes one with TLS.
    ///
    /// # Errors
    /// What is wrong with it, without repeating it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut url = Url::parse(text).map_err(|error| {
            // The host looks wrong when a password is not escaped.
            let hint = if text.contains('@') { ESCAPE_HINT } else { "" };
            format!("invalid URL: {error}{hint}")
        })?;
        if !matches!(url.scheme(), "redis" | "rediss") {
            return Err("expected `redis://…` or `rediss://…`".to_owned());
        }
        let Some(host) = url
            .host_str()
            .filter(|host| !host.is_empty())
            .map(ToOwned::to_owned)
        else {
            return Err("the URL has no host".to_owned());
        };
        // A password with such a character ends the host part early. One half of it would be shown
        // as a path or a port.
        let (path, rest) = (
            url.path().trim_start_matches('/'),
            url.query().into_iter().chain(url.fragment()),
        );
        if path.bytes().any(|byte| !byte.is_ascii_digit())
            || rest.into_iter().any(|text| text.contains('@'))
        {
            return Err(format!(
                "expected only a database number after the host{ESCAPE_HINT}"
            ));
        }
        if url.scheme() == "redis" && host.ends_with(".upstash.io") && !host.starts_with("fly-") {
            let _ = url.set_scheme("rediss");
        }
        Ok(Self {
            url: Box::new(url),
            authority: None,
        })
    }

    /// The Redis address of an Upstash database, derived from its REST address and token: same
    /// host, port 6379, TLS; the token is the password of `user`.
    ///
    /// # Errors
    /// What is wrong with the REST address.
    pub fn from_rest(rest_url: &str, user: &str, token: &str) -> Result<Self, String> {
        let rest = Url::parse(rest_url).map_err(|error| format!("invalid URL: {error}"))?;
        let host = rest.host_str().ok_or("the URL has no host")?;
        let mut url = Url::parse(&format!("rediss://{host}:6379"))
            .map_err(|error| format!("the URL has an invalid host: {error}"))?;
        if url.set_username(user).is_err() || url.set_password(Some(token)).is_err() {
            return Err("the URL cannot contain a credential".to_owned());
        }
        Ok(Self {
            url: Box::new(url),
            authority: None,
        })
    }

    /// The URL with its password, for connecting only.
    pub(super) fn secret(&self) -> &Url {
        &self.url
    }

    /// The authority that has to have signed the server's certificate; `None` for the public ones.
    pub(super) fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.url.clone();
        if shown.password().is_some() {
            let _ = shown.set_password(Some("***"));
        } else if !shown.username().is_empty() {
            // A token in the place of the user name.
            let _ = shown.set_username("***");
        }
        shown.set_query(None);
        shown.set_fragment(None);
        write!(formatter, "{shown}")
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        for url in [
            "redis://user:s3cret@localhost:1/0?password=s3cret",
            "redis://s3cret@localhost:1",
            "redis://localhost:1#s3cret",
        ] {
            let url = RedisUrl::parse(url).unwrap();

            assert!(!format!("{url} {url:?}").contains("s3cret"), "{url}");
        }
    }

    #[test]
    fn an_unescaped_password_is_an_error_that_does_not_show_it() {
        for url in [
            "redis://u:12/s3cret@localhost:1",
            "redis://u:12?s3cret@localhost",
            "redis://u:1#s3cret@localhost",
            "redis://u:s3/cret@h",
        ] {
            let problem = RedisUrl::parse(url).unwrap_err();

            assert!(
                !problem.contains("s3") && !problem.contains("12"),
                "{problem}"
            );
        }
        for url in [
            "redis://localhost/1",
            "redis://localhost:1/",
            "rediss://u:p%2Fw@localhost/0?protocol=resp2",
        ] {
            assert!(RedisUrl::parse(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn the_rest_variables_of_upstash_give_its_redis_address() {
        let url =
            RedisUrl::from_rest("https://eu1-abc.upstash.io", "default_ro", "a=b/c+d").unwrap();

        assert_eq!(
            url.secret().as_str(),
            "rediss://default_ro:a%3Db%2Fc+d@eu1-abc.upstash.io:6379"
        );
        assert_eq!(
            RedisUrl::parse("redis://x.upstash.io")
                .unwrap()
                .secret()
                .scheme(),
            "rediss"
        );
    }
}

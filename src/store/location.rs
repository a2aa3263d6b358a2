//! Where a store is, as the command line and the environment say it.

use std::{fmt, path::PathBuf, sync::Arc};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use url::Url;

/// What to ask oneself about an address where nobody answers. A port that speaks TLS and one that does not wait for each other in silence.
pub(super) const CONNECTION_HINT: &str = "is the address right (`rediss://` where the port speaks TLS, `redis://` where not), and is Redis running?";

/// Where documents and the audit log live.
#[derive(Debug, Clone)]
pub enum Location {
    /// A Redis database. At least one of the two is there; without `write`, nothing can be written.
    Redis {
        /// For writing, and for reading what is about to be changed.
        write: Option<RedisUrl>,
        /// For reading, when it has a credential of its own.
        read: Option<RedisUrl>,
        /// Put before every key.
        key_prefix: String,
    },
    /// One SQLite file.
    Sqlite(PathBuf),
}

impl Location {
    /// Why nothing can be written here, when only a read-only credential is known.
    #[must_use]
    pub fn read_only_reason(&self) -> Option<&'static str> {
        match self {
            Self::Redis { write: None, .. } => {
                Some("the server was given a read-only credential alone")
            }
            Self::Redis { .. } | Self::Sqlite(_) => None,
        }
    }

    /// The same place, whose certificate has to be signed by `authority`.
    ///
    /// # Errors
    /// Why this place shows no certificate.
    pub fn trusting(self, authority: &Authority) -> Result<Self, String> {
        let trusting = |url: RedisUrl| {
            match url.url.scheme() {
            "rediss" => Ok(RedisUrl { authority: Some(authority.clone()), ..url }),
            _ => Err("the store's address is without TLS, where nothing is checked; use `rediss://…`, or leave this out".to_owned()),
        }
        };
        match self {
            Self::Redis {
                write,
                read,
                key_prefix,
            } => Ok(Self::Redis {
                write: write.map(trusting).transpose()?,
                read: read.map(trusting).transpose()?,
                key_prefix,
            }),
            Self::Sqlite(_) => Err(
                "a SQLite file shows no certificate; leave this out or choose a Redis".to_owned(),
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

/// The address and credential of a Redis database; `Debug` and `Display` hide the password.
#[derive(Clone)]
pub struct RedisUrl {
    url: Box<Url>,
    authority: Option<Authority>,
}

/// Who signs the certificates that are trusted, instead of the public authorities: PEM text with one certificate or several.
#[derive(Clone)]
pub struct Authority(Arc<[u8]>);

impl Authority {
    /// Reads PEM text. Here, because a connection would pass over what it cannot read, and then trust nobody.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(pem: &[u8]) -> Result<Self, String> {
        let remedy = "expected the PEM file of the authority that signed the store's certificate (`-----BEGIN CERTIFICATE-----`)";
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate =
                certificate.map_err(|error| format!("is not sound PEM: {error}; {remedy}"))?;
            roots.add(certificate).map_err(|error| {
                format!(
                    "holds a certificate that nothing can be checked against: {error}; {remedy}"
                )
            })?;
        }
        if roots.is_empty() {
            Err(format!("holds no certificate; {remedy}"))
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
    /// Upstash serves TLS only, so a plain URL to it, as older integrations left them, becomes one with TLS.
    ///
    /// # Errors
    /// What is wrong with it, without repeating it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
        if !matches!(url.scheme(), "redis" | "rediss") {
            return Err("expected `redis://…` or `rediss://…`".to_owned());
        }
        let Some(host) = url
            .host_str()
            .filter(|host| !host.is_empty())
            .map(ToOwned::to_owned)
        else {
            return Err("names no host".to_owned());
        };
        // Such a password ends the address where it stands, and its rest would be shown, as a path, or its beginning, as a port.
        let (path, rest) = (
            url.path().trim_start_matches('/'),
            url.query().into_iter().chain(url.fragment()),
        );
        if path.bytes().any(|byte| !byte.is_ascii_digit())
            || rest.into_iter().any(|text| text.contains('@'))
        {
            return Err(
                "expected nothing but the number of a database after the host; in a password, write `/` as %2F, `?` as %3F, `#` as %23 \
                        and `@` as %40"
                    .to_owned(),
            );
        }
        if url.scheme() == "redis" && host.ends_with(".upstash.io") && !host.starts_with("fly-") {
            let _ = url.set_scheme("rediss");
        }
        Ok(Self {
            url: Box::new(url),
            authority: None,
        })
    }

    /// The TCP address of an Upstash database, from its REST address and token: same host, port 6379, TLS, the token
    /// being the password of `user`.
    ///
    /// # Errors
    /// What is wrong with the REST address.
    pub fn from_rest(rest_url: &str, user: &str, token: &str) -> Result<Self, String> {
        let rest = Url::parse(rest_url).map_err(|error| format!("is not a URL: {error}"))?;
        let host = rest.host_str().ok_or("names no host")?;
        let mut url = Url::parse(&format!("rediss://{host}:6379"))
            .map_err(|error| format!("names a strange host: {error}"))?;
        if url.set_username(user).is_err() || url.set_password(Some(token)).is_err() {
            return Err("takes no credential".to_owned());
        }
        Ok(Self {
            url: Box::new(url),
            authority: None,
        })
    }

    /// The URL with its password, for the connection alone.
    pub(super) fn secret(&self) -> &Url {
        &self.url
    }

    /// Who has to have signed the server's certificate; `None`: a public authority.
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
            // A token that was put where the user's name belongs.
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
    fn a_password_that_ends_the_address_is_refused_and_not_shown() {
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
    fn the_rest_variables_of_upstash_give_its_tcp_address() {
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

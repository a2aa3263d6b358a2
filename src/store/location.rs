//! Where a store is: a Redis URL with its credentials, or a file.

use std::{fmt, path::PathBuf, sync::Arc};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use url::Url;

use crate::domain::text::truncate;

/// Hint for replies that do not come. With the wrong scheme both sides wait for each other without an
/// error.
pub(super) const TIMEOUT_HINT: &str = "the network to it may be slow or broken, or Redis is not running, or the address is wrong (`rediss://` if the port uses TLS, `redis://` if not)";
/// Hint for connection failures.
pub(super) const CONNECTION_HINT: &str = "check that Redis is running and that the address is right (`rediss://` if the port uses TLS, `redis://` if not)";

/// Hint for URLs that an unescaped password may have broken.
const ESCAPE_HINT: &str =
    "; in a password, write `/` as %2F, `?` as %3F, `#` as %23, `%` as %25 and `@` as %40";

/// What a URL should look like.
const EXPECTED: &str =
    "expected `redis://USER:PASSWORD@HOST:PORT`, or the same with `rediss://` for TLS";

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
        check_syntax(text)?;
        let mut url = Url::parse(text)
            .map_err(|error| format!("found a URL that is not valid ({error}); {EXPECTED}"))?;
        if !matches!(url.scheme(), "redis" | "rediss") {
            return Err(EXPECTED.to_owned());
        }
        let Some(host) = url
            .host_str()
            .filter(|host| !host.is_empty())
            .map(ToOwned::to_owned)
        else {
            return Err(format!("found no host; {EXPECTED}"));
        };
        check_database(url.path())?;
        check_options(&url)?;
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
        const EXPECTED: &str = "expected the REST address of the database, `https://…`";
        let scheme = rest_url.split_once("://").map(|(scheme, _)| scheme);
        match scheme.map(str::to_lowercase).as_deref() {
            Some("http" | "https") => {}
            Some("redis" | "rediss") => {
                return Err(format!(
                    "found the address of a Redis database, which belongs in REDIS_URL; {EXPECTED}"
                ));
            }
            Some(_) => return Err(format!("found another scheme; {EXPECTED}")),
            None => return Err(format!("found no scheme; {EXPECTED}")),
        }
        let rest = Url::parse(rest_url)
            .map_err(|error| format!("found a URL that is not valid ({error}); {EXPECTED}"))?;
        let host = rest
            .host_str()
            .ok_or_else(|| format!("found no host; {EXPECTED}"))?;
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

/// Names what the parser of URLs would misunderstand, or describe in its own words.
fn check_syntax(text: &str) -> Result<(), String> {
    let Some((_, rest)) = text.split_once("://") else {
        return Err(EXPECTED.to_owned());
    };
    if rest.contains("://") {
        return Err(format!("found two schemes; {EXPECTED}"));
    }
    // The last `@` ends a password, so that others may be in it.
    let (credential, rest) = match rest.rsplit_once('@') {
        Some((credential, rest)) => (Some(credential), rest),
        None => (None, rest),
    };
    check_credential(credential.unwrap_or_default())?;
    let address = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !address.ends_with(']') => (host, Some(port)),
        _ => (address, None),
    };
    if host.is_empty() {
        return Err(format!("found no host; {EXPECTED}"));
    }
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err(format!(
            "found more than one `:` after the host; {EXPECTED}; an IPv6 address needs brackets, such as `[::1]`"
        ));
    }
    let Some(port) = port else {
        return Ok(());
    };
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!(
            "found a port that is not a number; {EXPECTED}{ESCAPE_HINT}"
        ));
    }
    match port.parse::<u16>() {
        Ok(1..) => Ok(()),
        _ if port.is_empty() => Ok(()),
        // Without a credential it may be one, with its host missing.
        Ok(0) | Err(_) if credential.is_some() || host.contains('.') || host == "localhost" => {
            let port = truncate(port);
            Err(format!("found port {port}; expected one from 1 to 65535"))
        }
        Ok(0) | Err(_) => Err(format!(
            "found a port that does not exist (they go from 1 to 65535); {EXPECTED}"
        )),
    }
}

/// Refuses a path that names no database. The text is not repeated: it may be half of a password
/// that was not escaped.
fn check_database(path: &str) -> Result<(), String> {
    let number = path.strip_prefix('/').unwrap_or(path);
    if number.bytes().any(|byte| !byte.is_ascii_digit()) {
        return Err(format!(
            "found more than a database number after the host; {EXPECTED}, and `/NUMBER` at the end for another database than 0{ESCAPE_HINT}"
        ));
    }
    // Redis numbers its databases with 32 bits.
    if !number.is_empty() && number.parse::<i32>().is_err() {
        return Err(format!(
            "found a database number that is too large; expected one from 0 to {}, such as `redis://HOST:6379/5`",
            i32::MAX
        ));
    }
    Ok(())
}

/// Refuses what other clients read after `?` and `#`: it would have no effect, and the content would
/// be in another database, or be sent without TLS.
fn check_options(url: &Url) -> Result<(), String> {
    if url.fragment().is_some() {
        return Err(format!(
            "found `#` and more at the end, which has no meaning here; {EXPECTED}, and nothing after it (`--ca-file` names a private certificate authority){ESCAPE_HINT}"
        ));
    }
    for (name, value) in url.query_pairs() {
        let expected = match name.to_lowercase().as_str() {
            "protocol" if matches!(&*value, "2" | "3" | "resp2" | "resp3") => continue,
            "protocol" => "expected `protocol=resp2` or `protocol=resp3`",
            "db" | "database" => {
                "expected the number of the database after the host, such as `redis://HOST:6379/5`"
            }
            "ssl" | "tls" => "expected `rediss://` at the start for TLS, or `redis://` without it",
            _ => {
                "expected no option there but `protocol`; the number of a database belongs after the host (`redis://HOST:6379/5`), and TLS is `rediss://`"
            }
        };
        return Err(format!(
            "found an option after `?` that would have no effect; {expected}"
        ));
    }
    Ok(())
}

/// Characters that have to be escaped in a user name or a password.
fn check_credential(credential: &str) -> Result<(), String> {
    let is_escape = |at: usize| {
        let digits = credential.get(at + 1..at + 3);
        digits.is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
    };
    let mut raw: Vec<(char, &str)> = [('/', "%2F"), ('?', "%3F"), ('#', "%23")]
        .into_iter()
        .filter(|(character, _)| credential.contains(*character))
        .collect();
    if credential.match_indices('%').any(|(at, _)| !is_escape(at)) {
        raw.push(('%', "%25"));
    }
    if raw.is_empty() {
        return Ok(());
    }
    let found: Vec<String> = raw.iter().map(|(raw, _)| format!("`{raw}`")).collect();
    let expected: Vec<&str> = raw.iter().map(|(_, escape)| *escape).collect();
    Err(format!(
        "found {} in the user name or password, where it has a meaning of its own; expected the escape {}",
        found.join(" and "),
        expected.join(" and ")
    ))
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
            "redis://user:s3cret@localhost:1/0?protocol=resp2",
            "redis://s3cret@localhost:1",
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
        for (url, found) in [
            ("redis://u:p#w@h:1", "`#`"),
            ("redis://u:50%off@h", "%25"),
            ("redis://u:p/w?@h", "`/` and `?`"),
            ("redis://u:pw@h.example:99999", "99999"),
            ("redis://h:99999", "from 1 to 65535"),
            ("redis://u:pw@h:0", "port 0"),
            ("redis://u:pw@h:one", "not a number"),
            ("redis://u:pw@", "no host"),
            ("redis://:6379", "no host"),
            ("redis://u:pw@::1:6379", "brackets"),
            ("redis://https://h", "two schemes"),
            ("redis://h/staging", "database number"),
        ] {
            let problem = RedisUrl::parse(url).unwrap_err();

            assert!(
                problem.contains(found) && problem.contains("expected"),
                "{url}: {problem}"
            );
        }
        for url in [
            "redis://u:p@w@localhost",
            "redis://[::1]",
            "redis://localhost/1",
            "redis://localhost:1/",
            "rediss://u:p%2Fw@localhost/0?protocol=resp2",
        ] {
            assert!(RedisUrl::parse(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn what_would_have_no_effect_after_the_host_is_refused() {
        for (url, expected) in [
            ("redis://h:6379?db=5", "`redis://HOST:6379/5`"),
            ("redis://h:6379/?DB=5", "`redis://HOST:6379/5`"),
            ("redis://h/0?database=5", "`redis://HOST:6379/5`"),
            ("redis://h?ssl=true", "`rediss://`"),
            ("redis://h?tls=true", "`rediss://`"),
            ("redis://h?protocol=resp2&db=3", "`redis://HOST:6379/5`"),
            ("redis://h?password=s3cret", "no option there"),
            ("redis://h?s3cret", "no option there"),
            ("redis://h?protocol=s3cret", "`protocol=resp2`"),
            ("rediss://h#insecure", "`#`"),
            ("redis://h#", "`#`"),
            ("redis://h#s3cret", "`#`"),
            ("redis://h//5", "`/NUMBER`"),
            ("redis://h/5/", "`/NUMBER`"),
            ("redis://h/5/s3cret", "`/NUMBER`"),
            ("redis://h/-1", "`/NUMBER`"),
            ("redis://h/99999999999999999999", "too large"),
            ("redis://h/2147483648", "too large"),
        ] {
            let problem = RedisUrl::parse(url).unwrap_err();

            assert!(
                problem.starts_with("found") && problem.contains(expected),
                "{url}: {problem}"
            );
            assert_eq!(problem.matches("expected").count(), 1, "{problem}");
            assert!(!problem.contains("s3cret"), "{problem}");
        }
        for url in ["redis://h", "redis://h/", "redis://h/15?protocol=3"] {
            assert!(RedisUrl::parse(url).is_ok(), "{url}");
        }
        let port = RedisUrl::parse("redis://h:99999").unwrap_err();
        assert_eq!(port.matches("expected").count(), 1, "{port}");
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

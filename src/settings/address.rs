//! The address of a store, as people write it: `redis://…`, `rediss://…` or `sqlite:PATH`.
//!
//! A message says what was found and what is expected, and repeats nothing of the text: any part of
//! it may be a password.

use std::path::{Path, PathBuf};

use super::{pasted, sqlite_path};
use crate::store::RedisUrl;

/// Which addresses an option or a variable accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accepted {
    /// Of any store.
    AnyStore,
    /// Of a Redis database.
    Redis,
}

/// A store's address, understood.
#[derive(Debug)]
pub(super) enum Address {
    Redis(RedisUrl),
    Sqlite(PathBuf),
}

impl Accepted {
    fn describe(self) -> &'static str {
        match self {
            Self::AnyStore => {
                "`redis://USER:PASSWORD@HOST:PORT`, the same with `rediss://` for TLS, or `sqlite:PATH`"
            }
            Self::Redis => {
                "`redis://USER:PASSWORD@HOST:PORT`, or the same with `rediss://` for TLS"
            }
        }
    }
}

/// Reads an address. `home` is the user's home directory.
///
/// # Errors
/// What was found and what is expected.
pub(super) fn parse(
    text: &str,
    accepted: Accepted,
    home: Option<&Path>,
) -> Result<Address, String> {
    let text = text.trim();
    match sqlite_part(text) {
        Some(_) if accepted == Accepted::Redis => Err(format!(
            "found a SQLite file; expected {}. Name the file with --store or PORTFOLIO_STORE",
            accepted.describe()
        )),
        Some(path) => sqlite_path::parse(path, home).map(Address::Sqlite),
        None => {
            pasted::check(text)?;
            redis(text, accepted).map(Address::Redis)
        }
    }
}

/// What follows `sqlite:`.
fn sqlite_part(text: &str) -> Option<&str> {
    let (scheme, path) = text.split_once(':')?;
    scheme.eq_ignore_ascii_case("sqlite").then_some(path)
}

fn redis(text: &str, accepted: Accepted) -> Result<RedisUrl, String> {
    let lower = text.to_lowercase();
    let found = match lower.split_once("://") {
        Some(("redis" | "rediss", _)) => return RedisUrl::parse(text),
        Some((scheme, rest)) => other_scheme(scheme, rest),
        None => no_scheme(&lower),
    };
    Err(format!("found {found}; expected {}", accepted.describe()))
}

fn other_scheme(scheme: &str, rest: &str) -> String {
    const DATABASES: [&str; 12] = [
        "memcached",
        "mongodb",
        "mongodb+srv",
        "mysql",
        "postgres",
        "postgresql",
        "redis+unix",
        "redis-sentinel",
        "rediss+sentinel",
        "tcp",
        "unix",
        "ws",
    ];
    match scheme {
        "http" | "https" if rest.contains("upstash.io") => "the REST address of an Upstash database (for which UPSTASH_REDIS_REST_URL and UPSTASH_REDIS_REST_TOKEN are the variables)".to_owned(),
        "http" | "https" => format!("`{scheme}://`, the address of a web server"),
        "valkey" => "`valkey://` (write `redis://`)".to_owned(),
        "valkeys" | "redis+tls" | "redis+ssl" | "redis-tls" => {
            "the scheme of a Redis with TLS in another form (write `rediss://`)".to_owned()
        }
        "file" | "sqlite3" => format!("`{scheme}:` (write `sqlite:PATH` for a SQLite file)"),
        scheme if DATABASES.contains(&scheme) => format!("`{scheme}://`"),
        _ => "another scheme before `://`".to_owned(),
    }
}

fn no_scheme(lower: &str) -> String {
    let found = if lower.starts_with("redis:") || lower.starts_with("rediss:") {
        "a scheme that `//` does not follow"
    } else if lower.starts_with("redis//") || lower.starts_with("rediss//") {
        "a scheme that `:` does not follow"
    } else if lower.contains(":memory:") {
        "`:memory:`, which would lose the content at the end"
    } else if is_path(lower) {
        "the path of a file without `sqlite:` before it"
    } else {
        "an address without a scheme (write `redis://` before it, or `rediss://` if the server uses TLS, as Upstash always does)"
    };
    found.to_owned()
}

fn is_path(text: &str) -> bool {
    const STARTS: [&str; 6] = ["/", "./", "../", "~", ".\\", "\\"];
    const ENDS: [&str; 4] = [".db", ".sqlite", ".sqlite3", ".db3"];
    STARTS.iter().any(|start| text.starts_with(start))
        || (ENDS.iter().any(|end| text.ends_with(end)) && !text.contains('@'))
        || text.starts_with("file:")
        || text.starts_with("sqlite3:")
        || sqlite_path::is_of_windows(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        parse(text, Accepted::AnyStore, None).unwrap_err()
    }

    #[test]
    fn what_is_no_address_is_named_with_what_is_expected() {
        for (text, found) in [
            ("host:6379", "without a scheme"),
            ("default:s3cret@host:6379", "without a scheme"),
            ("redis:host", "`//` does not follow"),
            ("redis//host", "`:` does not follow"),
            ("https://eu1-abc.upstash.io", "REST address"),
            ("https://u:s3cret@example.com", "web server"),
            ("valkeys://u:s3cret@h", "write `rediss://`"),
            ("postgres://u:s3cret@h", "`postgres://`"),
            ("s3cret://h", "another scheme"),
            ("/srv/content.db", "without `sqlite:`"),
            ("~/content.db", "without `sqlite:`"),
            ("content.sqlite3", "without `sqlite:`"),
            ("C:\\Users\\me\\content.db", "without `sqlite:`"),
            ("file:content.db", "without `sqlite:`"),
            ("file:///srv/content.db", "`sqlite:PATH`"),
            (":memory:", "would lose"),
            ("redis://u:s3#cret@h:6379", "`#`"),
            ("redis://u:s3%cret@h:6379", "`%`"),
            ("redis://u:s3cret@h:99999", "99999"),
            ("\"redis://u:s3cret@h\"", "quotation marks"),
        ] {
            let problem = problem(text);

            assert!(problem.contains(found), "{text}: {problem}");
            assert!(problem.contains("expected"), "{text}: {problem}");
            assert!(
                !problem.contains("s3cret") && !problem.contains("cret@"),
                "{problem}"
            );
        }
    }

    #[test]
    fn spaces_and_line_ends_around_an_address_are_ignored() {
        for text in ["redis://h:1\n", "  redis://h:1\r\n", "REDIS://h:1"] {
            let parsed = parse(text, Accepted::Redis, None);

            assert!(
                matches!(&parsed, Ok(Address::Redis(url)) if url.to_string() == "redis://h:1"),
                "{parsed:?}"
            );
        }
    }

    #[test]
    fn a_variable_of_redis_accepts_no_file() {
        let problem = parse("sqlite:x.db", Accepted::Redis, None).unwrap_err();

        assert!(problem.contains("PORTFOLIO_STORE"), "{problem}");
    }
}

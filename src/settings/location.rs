//! Which store, and why: the order of CONTRACT.md, section 6.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use super::{CA_FILE, KEY_PREFIX, STORE, resolver::Resolver};
use crate::{
    domain::text::shown_path,
    store::{Authority, Location, RedisUrl},
};

/// Variables with the address of a Redis database. The first one that is set is used.
pub(super) const URL_VARIABLES: [&str; 4] =
    ["REDIS_URL", "REDIS_REDIS_URL", "REDIS_KV_URL", "KV_URL"];
/// Prefixes of the variables of an Upstash database; `URL`, `TOKEN` and `READ_ONLY_TOKEN` follow.
pub(super) const REST_PREFIXES: [&str; 3] =
    ["REDIS_KV_REST_API_", "KV_REST_API_", "UPSTASH_REDIS_REST_"];

/// The store, and what chose it.
#[derive(Debug)]
pub(super) struct StoreChoice {
    pub(super) location: Location,
    pub(super) chosen_by: StoreSource,
}

/// What chose the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreSource {
    /// A flag or a variable with the address.
    Name(&'static str),
    /// The variables of an Upstash database, with this prefix.
    Rest(&'static str),
    /// Nothing, so that it is a file in the user's data directory.
    Default,
}

impl StoreSource {
    /// The flag or variable that has the address, if any.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        match self {
            Self::Name(name) => Some((*name).to_owned()),
            Self::Rest(prefix) => Some(format!("{prefix}URL")),
            Self::Default => None,
        }
    }
}

/// Says why this store was chosen.
impl fmt::Display for StoreSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(formatter, "set by {name}"),
            None => formatter.write_str("default, because no Redis is configured"),
        }
    }
}

/// Chooses the store. `None` if that is not possible; the problem is then recorded.
pub(super) fn choose(resolver: &mut Resolver<'_>) -> Option<StoreChoice> {
    let authority = certificate_authority(resolver);
    let choice = from_option(resolver)
        .or_else(|| from_url_variables(resolver))
        .or_else(|| from_rest_variables(resolver))
        .unwrap_or_else(|| in_data_directory(resolver));
    let choice = choice
        .map_err(|problem| resolver.add_problem(problem))
        .ok()?;
    let Some(authority) = authority else {
        return Some(choice);
    };
    match choice.location.with_authority(&authority) {
        Ok(location) => Some(StoreChoice { location, ..choice }),
        Err(problem) => {
            resolver.reject(&CA_FILE, problem);
            None
        }
    }
}

fn from_option(resolver: &Resolver<'_>) -> Option<Result<StoreChoice, String>> {
    let (text, source) = resolver.given(&STORE);
    let text = text?;
    let chosen_by = StoreSource::Name(STORE.source_name(source));
    let expected = |what: &str| Err(format!("{}: expected {what}", STORE.label()));
    Some(match text.strip_prefix("sqlite:") {
        Some(path) if path.is_empty() || path.contains("://") => expected("a path after `sqlite:`"),
        Some(path) => sqlite(PathBuf::from(path), chosen_by, resolver),
        None if text.contains("://") => redis(&text, &STORE.label(), chosen_by, resolver),
        None => expected("`redis://…`, `rediss://…` or `sqlite:PATH`"),
    })
}

fn from_url_variables(resolver: &Resolver<'_>) -> Option<Result<StoreChoice, String>> {
    let (name, url) = URL_VARIABLES
        .into_iter()
        .find_map(|name| Some((name, resolver.variable(name)?)))?;
    Some(redis(&url, name, StoreSource::Name(name), resolver))
}

fn from_rest_variables(resolver: &Resolver<'_>) -> Option<Result<StoreChoice, String>> {
    REST_PREFIXES
        .into_iter()
        .find_map(|prefix| upstash(prefix, resolver))
}

/// An Upstash database: its REST host is its Redis host, and its tokens are passwords.
fn upstash(prefix: &'static str, resolver: &Resolver<'_>) -> Option<Result<StoreChoice, String>> {
    let names = ["URL", "TOKEN", "READ_ONLY_TOKEN"].map(|name| format!("{prefix}{name}"));
    let [url_name, token_name, read_only_token_name] = &names;
    let [url, token, read_only_token] = names.each_ref().map(|name| resolver.variable(name));
    let url = match (url, &token, &read_only_token) {
        (None, None, None) => return None,
        (None, Some(_), _) => return Some(Err(missing_url(token_name, url_name))),
        (None, None, Some(_)) => return Some(Err(missing_url(read_only_token_name, url_name))),
        (Some(_), None, None) => {
            return Some(Err(format!(
                "{url_name} is set, but neither {token_name} nor {read_only_token_name} is; set one of them"
            )));
        }
        (Some(url), _, _) => url,
    };
    let derive = |user: &str, token: Option<String>| {
        token
            .map(|token| RedisUrl::from_rest(&url, user, &token))
            .transpose()
            .map_err(|problem| format!("{url_name}: {problem}"))
    };
    let location = derive("default", token).and_then(|write| {
        Ok(Location::Redis {
            write,
            read: derive("default_ro", read_only_token)?,
            key_prefix: key_prefix(resolver),
        })
    });
    Some(location.map(|location| StoreChoice {
        location,
        chosen_by: StoreSource::Rest(prefix),
    }))
}

fn missing_url(token_name: &str, url_name: &str) -> String {
    format!(
        "{token_name} is set, but {url_name} is not; set it to the REST URL of the same database"
    )
}

fn in_data_directory(resolver: &Resolver<'_>) -> Result<StoreChoice, String> {
    let directory = data_directory(resolver).ok_or(
        "no store is configured, and there is no home directory for a SQLite file; pass --store",
    )?;
    let path = directory.join("portfolio-mcp").join("portfolio.db");
    sqlite(path, StoreSource::Default, resolver)
}

/// `label` is what a message calls the source of `url`.
fn redis(
    url: &str,
    label: &str,
    chosen_by: StoreSource,
    resolver: &Resolver<'_>,
) -> Result<StoreChoice, String> {
    let url = RedisUrl::parse(url).map_err(|problem| format!("{label}: {problem}"))?;
    Ok(StoreChoice {
        location: Location::Redis {
            write: Some(url),
            read: None,
            key_prefix: key_prefix(resolver),
        },
        chosen_by,
    })
}

fn sqlite(
    path: PathBuf,
    chosen_by: StoreSource,
    resolver: &Resolver<'_>,
) -> Result<StoreChoice, String> {
    if key_prefix(resolver).is_empty() {
        Ok(StoreChoice {
            location: Location::Sqlite(path),
            chosen_by,
        })
    } else {
        Err(format!(
            "{}: applies to Redis only, and the store is a SQLite file; remove the option or choose a Redis store",
            KEY_PREFIX.label()
        ))
    }
}

fn key_prefix(resolver: &Resolver<'_>) -> String {
    resolver.given(&KEY_PREFIX).0.unwrap_or_default()
}

fn certificate_authority(resolver: &mut Resolver<'_>) -> Option<Authority> {
    let (path, _) = resolver.given(&CA_FILE);
    let path = path?;
    read_authority(Path::new(&path))
        .map_err(|problem| resolver.reject(&CA_FILE, format!("`{}` {problem}", shown_path(&path))))
        .ok()
}

fn read_authority(path: &Path) -> Result<Authority, String> {
    let pem = fs::read(path)
        .map_err(|error| format!("cannot be read: {error}; expected the path of a PEM file"))?;
    Authority::parse(&pem)
}

/// Where programs keep a user's data.
fn data_directory(resolver: &Resolver<'_>) -> Option<PathBuf> {
    let home = || resolver.variable("HOME").map(PathBuf::from);
    if cfg!(windows) {
        resolver.variable("APPDATA").map(PathBuf::from)
    } else if cfg!(target_os = "macos") {
        home().map(|home| home.join("Library").join("Application Support"))
    } else {
        resolver
            .variable("XDG_DATA_HOME")
            .map(PathBuf::from)
            .or_else(|| home().map(|home| home.join(".local").join("share")))
    }
}

//! Which store, and why: the order of CONTRACT.md, section 6.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use super::{
    CA_FILE, KEY_PREFIX, OptionSpec, STORE, STORE_FILE,
    address::{self, Accepted, Address},
    pasted,
    resolver::Resolver,
    store_file,
};
use crate::{
    domain::text::{sanitize, shown_path},
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
pub struct StoreChoice {
    /// Where the content is.
    pub location: Location,
    /// What chose it.
    pub chosen_by: StoreSource,
}

/// What clients have to know about a store that nobody chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultStore {
    /// What it is, and what that means.
    pub fact: String,
    /// What to do about it.
    pub remedy: &'static str,
}

impl StoreChoice {
    /// What clients have to know, if nobody chose the store.
    #[must_use]
    pub fn default_store(&self) -> Option<DefaultStore> {
        let Location::Sqlite(path) = &self.location else {
            return None;
        };
        (self.chosen_by == StoreSource::Default).then(|| DefaultStore {
            fact: format!(
                "no Redis is configured: this is the local file {}; changes here do not reach the site",
                sanitize(&path.to_string_lossy())
            ),
            remedy: "tell the site's owner before you go on; to work on the site, set REDIS_URL or PORTFOLIO_STORE_FILE for this server in the client's configuration (`env`; many clients pass no other variables) and restart it; to use this file on purpose, name it with --store sqlite:PATH",
        })
    }
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
    let prefix = pasted::check_prefix(&key_prefix(resolver));
    let prefix = prefix.map_err(|problem| resolver.reject(&KEY_PREFIX, problem));
    let choice = from_options(resolver)
        .or_else(|| from_url_variables(resolver))
        .or_else(|| from_rest_variables(resolver))
        .or_else(|| blank(resolver).map(Err))
        .unwrap_or_else(|| in_data_directory(resolver));
    let choice = choice
        .map_err(|problem| resolver.add_problem(problem))
        .ok()?;
    prefix.ok()?;
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

/// The flags first, then their variables.
fn from_options(resolver: &mut Resolver<'_>) -> Option<Result<StoreChoice, String>> {
    let [store, file] = [&STORE, &STORE_FILE].map(|option| resolver.flag(option));
    if store.is_some() && file.is_some() {
        let problem = "--store and --store-file: both say where the content is; pass one of them";
        return Some(Err(problem.to_owned()));
    }
    let set = |option: &OptionSpec| resolver.variable(option.variable);
    let (text, file, name) = match (store, file) {
        (Some(text), _) => (Some(text), None, STORE.flag),
        (None, Some(file)) => (None, Some(file), STORE_FILE.flag),
        (None, None) => match (set(&STORE), set(&STORE_FILE)) {
            (Some(text), _) => (Some(text), None, STORE.variable),
            (None, file) => (None, file, STORE_FILE.variable),
        },
    };
    let read = match (text, file) {
        (Some(text), _) => Ok(text),
        (None, file) => store_file::read(&file?, resolver),
    };
    Some(read.map_or_else(
        |problem| Err(format!("{name}: {problem}")),
        |text| at_address(&text, Accepted::AnyStore, name, resolver),
    ))
}

fn from_url_variables(resolver: &Resolver<'_>) -> Option<Result<StoreChoice, String>> {
    let (name, url) = URL_VARIABLES
        .into_iter()
        .find_map(|name| Some((name, resolver.variable(name)?)))?;
    Some(at_address(&url, Accepted::Redis, name, resolver))
}

/// The store at an address that the flag or variable `name` gives.
fn at_address(
    text: &str,
    accepted: Accepted,
    name: &'static str,
    resolver: &Resolver<'_>,
) -> Result<StoreChoice, String> {
    let home = resolver.home();
    let address = address::parse(text, accepted, home.as_deref())
        .map_err(|problem| format!("{name}: {problem}"))?;
    let chosen_by = StoreSource::Name(name);
    match address {
        Address::Redis(url) => Ok(StoreChoice {
            location: Location::Redis {
                write: Some(url),
                read: None,
                key_prefix: key_prefix(resolver),
            },
            chosen_by,
        }),
        Address::Sqlite(path) => sqlite(path, chosen_by, resolver),
    }
}

/// Something that should choose the store is empty. Then a local file would be used, and nobody
/// would notice.
fn blank(resolver: &Resolver<'_>) -> Option<String> {
    let rest = REST_PREFIXES
        .map(|prefix| ["URL", "TOKEN", "READ_ONLY_TOKEN"].map(|name| format!("{prefix}{name}")));
    let variables = [STORE.variable, STORE_FILE.variable]
        .into_iter()
        .chain(URL_VARIABLES)
        .map(ToOwned::to_owned)
        .chain(rest.into_iter().flatten())
        .filter(|name| resolver.is_blank_variable(name));
    let flags = [&STORE, &STORE_FILE]
        .into_iter()
        .filter(|option| resolver.is_blank_flag(option))
        .map(|option| option.flag.to_owned());
    let names: Vec<String> = flags.chain(variables).collect();
    let (them, unset) = match names.len() {
        1 => ("it", "it is"),
        _ => ("them", "they are"),
    };
    (!names.is_empty()).then(|| {
        format!(
            "{}: found nothing in {them}, and nothing else chooses a store; expected the address of the content, such as `rediss://…`, or that {unset} not set at all. For a local file, pass --store sqlite:PATH",
            names.join(", ")
        )
    })
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
    let values = [&url, &token, &read_only_token];
    for (name, value) in names.iter().zip(values) {
        if let Err(problem) = pasted::check(value.as_deref().unwrap_or_default().trim()) {
            return Some(Err(format!("{name}: {problem}")));
        }
    }
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
            .map(|token| RedisUrl::from_rest(url.trim(), user, token.trim()))
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

/// The prefix, without the blanks and line ends that come along when it is pasted.
fn key_prefix(resolver: &Resolver<'_>) -> String {
    let (prefix, _) = resolver.given(&KEY_PREFIX);
    prefix.unwrap_or_default().trim().to_owned()
}

fn certificate_authority(resolver: &mut Resolver<'_>) -> Option<Authority> {
    let (path, _) = resolver.given(&CA_FILE);
    let path = path?;
    read_authority(&resolver.path(&path))
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
    // A relative path is to be ignored, says the XDG Base Directory Specification: it would be
    // another folder in each working directory.
    let set = |name| {
        resolver
            .variable(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    if cfg!(windows) {
        set("APPDATA")
    } else if cfg!(target_os = "macos") {
        let home = resolver.home()?;
        Some(home.join("Library").join("Application Support"))
    } else {
        set("XDG_DATA_HOME").or_else(|| Some(resolver.home()?.join(".local").join("share")))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{cli::Cli, settings::Environment};

    /// The prefix of the store that is chosen, or what is wrong.
    fn prefix_of(store: &str, prefix: &str) -> Result<String, Vec<String>> {
        let cli = Cli::parse_from(["portfolio-mcp", "stdio", "--store", store]);
        let environment: Environment = [(KEY_PREFIX.variable, prefix)].into_iter().collect();
        let mut resolver = Resolver::new(&cli, &environment);
        let choice = choose(&mut resolver);
        let (problems, _) = resolver.finish();
        match choice.map(|choice| choice.location) {
            Some(Location::Redis { key_prefix, .. }) => Ok(key_prefix),
            Some(Location::Sqlite(_)) | None => Err(problems),
        }
    }

    #[test]
    fn a_key_prefix_is_trimmed_and_checked() {
        for (text, prefix) in [
            ("site:", "site:"),
            (" site:\r\n", "site:"),
            ("{site}:", "{site}:"),
            ("{site}", "{site}"),
            ("a*[b]?\\:", "a*[b]?\\:"),
            (" \n", ""),
        ] {
            assert_eq!(prefix_of("redis://h", text).as_deref(), Ok(prefix));
        }
        for (text, found) in [
            ("${PREFIX}", "a placeholder"),
            ("{{ prefix }}", "a placeholder"),
            ("\"site:\"", "quotation marks"),
            ("undefined:", "`undefined`"),
            ("redis://u:s3cret@h", "an address"),
        ] {
            for store in ["redis://h", "redis://h:0"] {
                let problems = prefix_of(store, text).unwrap_err();
                let named = format!("{}: found {found}", KEY_PREFIX.label());

                assert!(problems[0].starts_with(&named), "{text}: {problems:?}");
                assert!(!problems[0].contains("s3cret"), "{problems:?}");
            }
        }
    }

    #[test]
    fn variables_that_are_empty_are_named_together() {
        let cli = Cli::parse_from(["portfolio-mcp", "stdio"]);
        for (names, found) in [
            (&["REDIS_URL"][..], "REDIS_URL: found nothing in it,"),
            (
                &["REDIS_URL", "KV_URL"],
                "REDIS_URL, KV_URL: found nothing in them,",
            ),
        ] {
            let environment: Environment = names.iter().map(|name| (*name, " ")).collect();
            let problem = blank(&Resolver::new(&cli, &environment)).unwrap();

            assert!(problem.starts_with(found), "{problem}");
        }
    }
}

//! Every flag, environment variable and help text, and what they mean together.
//!
//! Nothing else reads the environment. All problems are reported at once, before anything is opened.

use std::{
    fmt, fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    http,
    store::{Authority, Location, RedisUrl},
};

/// How messages name the option.
const CA_FILE: &str = "--ca-file (PORTFOLIO_CA_FILE)";
/// Where `http` listens if nothing else is said.
const DEFAULT_LISTEN: &str = "127.0.0.1:8787";

/// How many requests a second `http` serves each client if nothing else is said.
const DEFAULT_RATE_LIMIT: &str = "50";
/// Variables with the address of a Redis, the first one that is set wins.
const URL_VARIABLES: [&str; 4] = ["REDIS_URL", "REDIS_REDIS_URL", "REDIS_KV_URL", "KV_URL"];
/// Else those that begin like this: `URL`, `TOKEN` and `READ_ONLY_TOKEN` of an Upstash database.
const REST_PREFIXES: [&str; 3] = ["REDIS_KV_REST_API_", "KV_REST_API_", "UPSTASH_REDIS_REST_"];

/// Reads a variable of the environment; an empty one counts as absent.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Read and edit a website's case studies and downloads from any MCP client, with every change on record.
///
/// Without a command: `stdio` when standard input is not a terminal, else this help.
#[derive(Debug, Parser)]
#[command(name = "portfolio-mcp", version, about, long_about = None, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of every command.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve one MCP client over standard input and output, as desktop clients and editors start it
    Stdio,
    /// Serve MCP clients over HTTP: Streamable HTTP at /mcp, HTTP+SSE at /sse
    Http(HttpArgs),
    /// Bring a JSON folder into the store: projects.json, resources.json, audit.jsonl or audit.json
    ///
    /// Documents are kept as they are. Those that the store has with another content are left and listed, unless --force is given.
    Import(ImportArgs),
    /// Examine configuration and store: what is wrong, and what to do about it
    ///
    /// Changes nothing. Exits with 0 if the server would serve, 1 if configuration or content are at fault, 3 if the store is.
    Doctor(DoctorArgs),
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    /// Where the content is: `redis://…`, `rediss://…` (with TLS) or `sqlite:PATH`
    ///
    /// Else `REDIS_URL`, `REDIS_REDIS_URL`, `REDIS_KV_URL`, `KV_URL`, or the `…_REST_API_…` variables of an Upstash database; else a SQLite
    /// file in the user's data directory.
    #[arg(
        long,
        value_name = "URL",
        env = "PORTFOLIO_STORE",
        hide_env_values = true,
        global = true
    )]
    pub store: Option<Secret>,
    /// Put this before every Redis key; `{site}:` keeps one site in one Redis Cluster slot
    #[arg(long, value_name = "P", env = "PORTFOLIO_KEY_PREFIX", global = true)]
    pub key_prefix: Option<String>,
    /// Trust the certificate authority in this PEM file, instead of the public ones, for `rediss://…`
    #[arg(long, value_name = "F", env = "PORTFOLIO_CA_FILE", global = true)]
    pub ca_file: Option<PathBuf>,
    /// Offer no writing tool
    #[arg(
        long,
        value_name = "BOOL",
        env = "PORTFOLIO_READ_ONLY",
        num_args = 0..=1,
        default_missing_value = "true",
        require_equals = true,
        global = true
    )]
    pub read_only: Option<String>,
    /// Log to stderr from this level on: error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL", env = "PORTFOLIO_LOG", global = true)]
    pub log: Option<String>,
    /// Log as text or as JSON lines [default: text]
    #[arg(
        long,
        value_name = "FORMAT",
        env = "PORTFOLIO_LOG_FORMAT",
        global = true
    )]
    pub log_format: Option<String>,
}

/// A text that may hold a password, which `Debug` does not show.
#[derive(Clone)]
pub struct Secret(pub String);

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

/// Options of `http`.
#[derive(Debug, Args)]
pub struct HttpArgs {
    /// Address and port to listen on; port 0 takes a free one, and the address is printed on stderr
    #[arg(long, value_name = "ADDR", env = "PORTFOLIO_LISTEN", default_value = DEFAULT_LISTEN)]
    pub listen: String,
    /// Accept requests for this host name too, besides localhost; may be repeated
    #[arg(
        long = "allowed-host",
        value_name = "H",
        env = "PORTFOLIO_ALLOWED_HOSTS",
        value_delimiter = ','
    )]
    pub allowed_hosts: Vec<String>,
    /// Do not turn away requests of web pages from this origin, besides those of localhost; may be repeated
    #[arg(
        long = "allowed-origin",
        value_name = "O",
        env = "PORTFOLIO_ALLOWED_ORIGINS",
        value_delimiter = ','
    )]
    pub allowed_origins: Vec<String>,
    /// Serve only who presents a bearer token of this file; needed to listen beyond loopback
    ///
    /// One a line, `name:role:token`, with the role `write` or `read`; the name is what the audit log says. The file is read again on
    /// SIGHUP. The variable `PORTFOLIO_TOKENS` holds such lines itself, and is not looked at if there is a file.
    #[arg(long, value_name = "F")]
    pub token_file: Option<PathBuf>,
    /// Let everybody read what is published, at /api, without a token
    #[arg(
        long,
        value_name = "BOOL",
        env = "PORTFOLIO_PUBLIC_API",
        num_args = 0..=1,
        default_missing_value = "true",
        require_equals = true
    )]
    pub public_api: Option<String>,
    /// Serve each client so many requests a second, four times as many at once; 0 for any number
    #[arg(long, value_name = "N", env = "PORTFOLIO_RATE_LIMIT", default_value = DEFAULT_RATE_LIMIT)]
    pub rate_limit: String,
}

/// Options of `import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The folder with the JSON files
    pub folder: PathBuf,
    /// Show what would be written, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Replace documents that differ
    #[arg(long)]
    pub force: bool,
}

/// Options of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Also try what this program relies on, on a Redis, in keys of its own under `internal:smoke:`, which are deleted again
    #[arg(long)]
    pub smoke: bool,
    /// With --smoke, see whether the store closes a connection that says nothing for so long
    #[arg(long, value_name = "SECONDS", requires = "smoke", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub idle: Option<u32>,
    /// Report as text or as JSON
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: ReportFormat,
}

/// How `doctor` reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// One line a check.
    Text,
    /// One JSON object.
    Json,
}

/// A setting, what it is, and what said so.
#[derive(Debug)]
pub struct Setting {
    /// What is set.
    pub name: &'static str,
    /// To what, without secrets.
    pub value: String,
    /// By which option or variable, or that nothing did.
    pub origin: String,
}

/// What all commands need to know, made of arguments and environment.
#[derive(Debug)]
pub struct Settings {
    /// Where the content is.
    pub location: Location,
    /// Which argument or variable said so.
    pub chosen_by: String,
    /// Why nothing can be written, if so.
    pub read_only: Option<String>,
    /// Least level that is logged.
    pub log: String,
    /// How it is logged.
    pub log_format: LogFormat,
    /// Where `http` listens.
    pub listen: SocketAddr,
    /// Whom `http` lets in.
    pub http: http::Settings,
    /// Where the tokens of `http` come from, if there are any.
    pub tokens: Option<TokenSource>,
}

/// Where tokens come from.
#[derive(Debug)]
pub enum TokenSource {
    /// A file, which has yet to be read.
    File(PathBuf),
    /// The environment.
    Variable(http::Tokens),
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs, one object a line.
    Json,
}

/// Everything that is wrong with arguments and environment.
#[derive(Debug)]
pub struct UsageError(pub Vec<String>);

impl std::error::Error for UsageError {}

impl fmt::Display for UsageError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.join("\n"))
    }
}

impl Cli {
    /// What arguments and environment say together.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn settings(&self, environment: Environment<'_>) -> Result<Settings, UsageError> {
        let mut problems = Vec::new();
        let common = &self.common;
        let log = common
            .log
            .clone()
            .filter(|level| !level.is_empty())
            .unwrap_or_else(|| "info".to_owned())
            .to_lowercase();
        if !["error", "warn", "info", "debug", "trace"].contains(&log.as_str()) {
            problems.push(
                "--log (PORTFOLIO_LOG): expected error, warn, info, debug or trace".to_owned(),
            );
        }
        let log_format = match common.log_format.as_deref().unwrap_or_default() {
            "" | "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            _ => {
                problems
                    .push("--log-format (PORTFOLIO_LOG_FORMAT): expected text or json".to_owned());
                LogFormat::Text
            }
        };
        let asked_read_only = is_true(
            common.read_only.as_deref(),
            "--read-only (PORTFOLIO_READ_ONLY)",
            &mut problems,
        );
        if environment("PORTFOLIO_MIRROR").is_some() {
            problems.push(
                "PORTFOLIO_MIRROR: this version has no support for a mirror; unset the variable"
                    .to_owned(),
            );
        }
        let (mut listen, mut http) = (
            SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            http::Settings::default(),
        );
        let mut tokens = None;
        if let Some(Command::Http(arguments)) = &self.command {
            let variable = environment("PORTFOLIO_TOKENS");
            let audience = if arguments.token_file.is_some() || variable.is_some() {
                Audience::TokenHolders
            } else {
                Audience::ThisMachine
            };
            listen = listen_address(&arguments.listen, audience, &mut problems);
            tokens = token_source(arguments.token_file.clone(), variable, &mut problems);
            http.public_api = is_true(
                arguments.public_api.as_deref(),
                "--public-api (PORTFOLIO_PUBLIC_API)",
                &mut problems,
            );
            http.rate_limit = rate_limit(&arguments.rate_limit, &mut problems);
            http.allowed_hosts = parsed(
                &arguments.allowed_hosts,
                "--allowed-host (PORTFOLIO_ALLOWED_HOSTS)",
                &mut problems,
            );
            http.allowed_origins = parsed(
                &arguments.allowed_origins,
                "--allowed-origin (PORTFOLIO_ALLOWED_ORIGINS)",
                &mut problems,
            );
        }
        let key_prefix = common.key_prefix.clone().unwrap_or_default();
        let store = common
            .store
            .as_ref()
            .map(|Secret(store)| store)
            .filter(|store| !store.is_empty());
        let authority = common
            .ca_file
            .as_deref()
            .filter(|path| !path.as_os_str().is_empty());
        let authority = authority.and_then(|path| {
            certificate_authority(path)
                .map_err(|problem| problems.push(problem))
                .ok()
        });
        let located = locate(store.map(String::as_str), &key_prefix, environment).and_then(
            |(location, chosen_by)| match &authority {
                Some(authority) => match location.trusting(authority) {
                    Ok(location) => Ok((location, chosen_by)),
                    Err(problem) => Err(vec![format!("{CA_FILE}: {problem}")]),
                },
                None => Ok((location, chosen_by)),
            },
        );
        match located {
            Ok((location, chosen_by)) if problems.is_empty() => {
                let read_only = location.read_only_reason().map(ToOwned::to_owned);
                let read_only = read_only.or_else(|| {
                    asked_read_only
                        .then(|| "--read-only (PORTFOLIO_READ_ONLY) was asked for".to_owned())
                });
                Ok(Settings {
                    location,
                    chosen_by,
                    read_only,
                    log,
                    log_format,
                    listen,
                    http,
                    tokens,
                })
            }
            Ok(_) => Err(UsageError(problems)),
            Err(more) => {
                problems.extend(more);
                Err(UsageError(problems))
            }
        }
    }
}

impl Cli {
    /// What `settings` are and where they come from, those of `http` included; and what is wrong with the latter.
    #[must_use]
    pub fn origins(
        &self,
        settings: &Settings,
        environment: Environment<'_>,
    ) -> (Vec<Setting>, Vec<String>) {
        let common = &self.common;
        let ca_file = common
            .ca_file
            .as_ref()
            .map(|path| path.display().to_string());
        let mut found = self.store_origins(settings, environment);
        let http = Self::try_parse_from(["portfolio-mcp", "http"])
            .ok()
            .and_then(|cli| cli.command);
        let (mut listen, mut hosts, mut origins, mut public_api, mut rate_limit) =
            (None, None, None, None, None);
        if let Some(Command::Http(arguments)) = &http {
            listen = Some(arguments.listen.clone());
            hosts = Some(arguments.allowed_hosts.join(","));
            origins = Some(arguments.allowed_origins.join(","));
            public_api.clone_from(&arguments.public_api);
            rate_limit = Some(arguments.rate_limit.clone());
            public_api.clone_from(&arguments.public_api);
        }
        let options = [
            (
                "key prefix",
                &common.key_prefix,
                "--key-prefix",
                "PORTFOLIO_KEY_PREFIX",
                "none",
            ),
            (
                "certificate authority",
                &ca_file,
                "--ca-file",
                "PORTFOLIO_CA_FILE",
                "the public ones",
            ),
            (
                "read-only",
                &common.read_only,
                "--read-only",
                "PORTFOLIO_READ_ONLY",
                "false",
            ),
            ("log", &common.log, "--log", "PORTFOLIO_LOG", "info"),
            (
                "log format",
                &common.log_format,
                "--log-format",
                "PORTFOLIO_LOG_FORMAT",
                "text",
            ),
            (
                "http: listen",
                &listen,
                "--listen",
                "PORTFOLIO_LISTEN",
                DEFAULT_LISTEN,
            ),
            (
                "http: allowed hosts",
                &hosts,
                "--allowed-host",
                "PORTFOLIO_ALLOWED_HOSTS",
                "localhost",
            ),
            (
                "http: allowed origins",
                &origins,
                "--allowed-origin",
                "PORTFOLIO_ALLOWED_ORIGINS",
                "localhost",
            ),
            (
                "http: public API",
                &public_api,
                "--public-api",
                "PORTFOLIO_PUBLIC_API",
                "false",
            ),
            (
                "http: rate limit",
                &rate_limit,
                "--rate-limit",
                "PORTFOLIO_RATE_LIMIT",
                DEFAULT_RATE_LIMIT,
            ),
            (
                "http: public API",
                &public_api,
                "--public-api",
                "PORTFOLIO_PUBLIC_API",
                "false",
            ),
        ];
        for (name, value, option, variable, default) in options {
            let value = value.as_deref().filter(|value| !value.is_empty());
            let origin = match (value, environment(variable)) {
                (Some(value), Some(said)) if value == said => variable,
                (Some(value), _) if value != default => option,
                _ => "default",
            };
            found.push(Setting {
                name,
                value: value.unwrap_or(default).to_owned(),
                origin: origin.to_owned(),
            });
        }
        let (tokens, origin) = match environment("PORTFOLIO_TOKENS") {
            Some(_) => ("set, not shown", "PORTFOLIO_TOKENS"),
            None => ("none, unless --token-file says so", "default"),
        };
        found.push(Setting {
            name: "http: tokens",
            value: tokens.to_owned(),
            origin: origin.to_owned(),
        });
        let as_http = Self {
            command: http,
            common: common.clone(),
        };
        let problems = as_http
            .settings(environment)
            .err()
            .map(|error| error.0)
            .unwrap_or_default();
        (found, problems)
    }

    fn store_origins(&self, settings: &Settings, environment: Environment<'_>) -> Vec<Setting> {
        let chosen_by = match self.common.store.as_ref().map(|Secret(store)| store) {
            Some(store)
                if !store.is_empty() && environment("PORTFOLIO_STORE").as_ref() == Some(store) =>
            {
                "PORTFOLIO_STORE"
            }
            Some(store) if !store.is_empty() => "--store",
            _ => &settings.chosen_by,
        };
        let setting = |name, value: String, origin: String| Setting {
            name,
            value,
            origin,
        };
        let mut found = Vec::new();
        match &settings.location {
            Location::Redis { write, read, .. } => {
                // The token's variable stands beside that of the REST address.
                let token = |name: &str| {
                    chosen_by
                        .strip_suffix("URL")
                        .filter(|prefix| prefix.contains("REST_"))
                        .map(|prefix| format!("{prefix}{name}"))
                };
                let origin = |name: &str| {
                    token(name).map_or_else(
                        || chosen_by.to_owned(),
                        |token| format!("{chosen_by} and {token}"),
                    )
                };
                found.extend(
                    write
                        .as_ref()
                        .map(|url| setting("store", url.to_string(), origin("TOKEN"))),
                );
                let name = if write.is_some() {
                    "store, for reading"
                } else {
                    "store"
                };
                found.extend(
                    read.as_ref()
                        .map(|url| setting(name, url.to_string(), origin("READ_ONLY_TOKEN"))),
                );
            }
            Location::Sqlite(_) => found.push(setting(
                "store",
                settings.location.to_string(),
                chosen_by.to_owned(),
            )),
        }
        let names = URL_VARIABLES
            .into_iter()
            .map(ToOwned::to_owned)
            .chain(REST_PREFIXES.map(|prefix| format!("{prefix}URL")));
        let unused: Vec<String> = names
            .filter(|name| *name != chosen_by && environment(name).is_some())
            .collect();
        if !unused.is_empty() {
            found.push(setting(
                "store, not used",
                unused.join(", "),
                format!("set, but {chosen_by} comes first"),
            ));
        }
        found
    }
}

/// What the parser of arguments says, without the URLs in it: it repeats what it does not understand, and a URL in the wrong place may
/// hold a password.
#[must_use]
pub fn without_urls(message: &str, arguments: &[String]) -> String {
    let values = arguments.iter().map(|argument| {
        argument
            .split_once('=')
            .map_or(argument.as_str(), |(_, value)| value)
    });
    let wholes = arguments.iter().map(String::as_str);
    let urls = wholes
        .chain(values)
        .filter(|text| text.contains("://") || text.contains('@'));
    urls.fold(message.to_owned(), |message, url| {
        message.replace(url, "(a URL)")
    })
}

fn is_true(text: Option<&str>, name: &str, problems: &mut Vec<String>) -> bool {
    match text.unwrap_or_default().to_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => true,
        "" | "false" | "0" | "no" | "off" => false,
        _ => {
            problems.push(format!("{name}: expected true or false"));
            false
        }
    }
}

fn parsed<T: FromStr<Err: fmt::Display>>(
    texts: &[String],
    name: &str,
    problems: &mut Vec<String>,
) -> Vec<T> {
    let mut values = Vec::new();
    for text in texts
        .iter()
        .map(|text| text.trim())
        .filter(|text| !text.is_empty())
    {
        match text.parse() {
            Ok(value) => values.push(value),
            Err(problem) => problems.push(format!("{name}: {problem}")),
        }
    }
    values
}

fn certificate_authority(path: &Path) -> Result<Authority, String> {
    let shown = path.display();
    let pem = fs::read(path).map_err(|error| {
        format!("{CA_FILE}: `{shown}` cannot be read: {error}; give the path of a PEM file")
    })?;
    Authority::parse(&pem).map_err(|problem| format!("{CA_FILE}: `{shown}` {problem}"))
}

/// Who may reach the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Audience {
    ThisMachine,
    TokenHolders,
}

fn token_source(
    file: Option<PathBuf>,
    variable: Option<String>,
    problems: &mut Vec<String>,
) -> Option<TokenSource> {
    if let Some(file) = file {
        return Some(TokenSource::File(file));
    }
    match http::Tokens::parse(&variable?) {
        Ok(tokens) => Some(TokenSource::Variable(tokens)),
        Err(wrong) => {
            problems.extend(
                wrong
                    .into_iter()
                    .map(|problem| format!("PORTFOLIO_TOKENS, {problem}")),
            );
            None
        }
    }
}

fn rate_limit(text: &str, problems: &mut Vec<String>) -> Option<NonZeroU32> {
    let text = if text.is_empty() {
        DEFAULT_RATE_LIMIT
    } else {
        text
    };
    if let Ok(number) = text.parse() {
        return NonZeroU32::new(number);
    }
    problems.push("--rate-limit (PORTFOLIO_RATE_LIMIT): expected a number of requests a second, or 0 for no limit".to_owned());
    None
}

fn listen_address(text: &str, audience: Audience, problems: &mut Vec<String>) -> SocketAddr {
    let text = if text.is_empty() {
        DEFAULT_LISTEN
    } else {
        text
    };
    let local = text
        .strip_prefix("localhost:")
        .map(|port| format!("127.0.0.1:{port}"));
    let address: Option<SocketAddr> = local.as_deref().unwrap_or(text).parse().ok();
    match address {
        Some(address) if audience == Audience::TokenHolders || address.ip().to_canonical().is_loopback() => return address,
        Some(_) => problems.push(
            "--listen (PORTFOLIO_LISTEN): listening beyond loopback needs tokens, so that not everybody may write; \
             give them with --token-file or PORTFOLIO_TOKENS, or listen on 127.0.0.1 or [::1]"
                .to_owned(),
        ),
        None => problems.push("--listen (PORTFOLIO_LISTEN): expected an address with a port, such as 127.0.0.1:8787".to_owned()),
    }
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)
}

/// The store, and what chose it, in the order of CONTRACT.md, section 6.
fn locate(
    store: Option<&str>,
    key_prefix: &str,
    environment: Environment<'_>,
) -> Result<(Location, String), Vec<String>> {
    let redis = |url: &str, name: &str| match RedisUrl::parse(url) {
        Ok(url) => Ok((
            Location::Redis {
                write: Some(url),
                read: None,
                key_prefix: key_prefix.to_owned(),
            },
            name.to_owned(),
        )),
        Err(problem) => Err(vec![format!("{name}: {problem}")]),
    };
    if let Some(store) = store {
        let name = "--store (PORTFOLIO_STORE)";
        return match store.strip_prefix("sqlite:") {
            Some(path) if path.is_empty() || path.contains("://") => {
                Err(vec![format!("{name}: expected a path after `sqlite:`")])
            }
            Some(path) => sqlite(PathBuf::from(path), key_prefix, name),
            None if store.contains("://") => redis(store, name),
            None => Err(vec![format!(
                "{name}: expected `redis://…`, `rediss://…` or `sqlite:PATH`"
            )]),
        };
    }
    for name in URL_VARIABLES {
        if let Some(url) = environment(name) {
            return redis(&url, name);
        }
    }
    for prefix in REST_PREFIXES {
        let names = ["URL", "TOKEN", "READ_ONLY_TOKEN"].map(|name| format!("{prefix}{name}"));
        let [url, token, read_only_token] = names.each_ref().map(|name| environment(name));
        let [url_name, token_name, read_only_token_name] = &names;
        let Some(url) = url else {
            if token.is_some() || read_only_token.is_some() {
                return Err(vec![format!(
                    "a token of {prefix}… is set, but not {url_name}; without it there is no telling which database is meant"
                )]);
            }
            continue;
        };
        if token.is_none() && read_only_token.is_none() {
            return Err(vec![format!(
                "{url_name} is set, but neither {token_name} nor {read_only_token_name}"
            )]);
        }
        let derive = |user: &str, token: Option<String>| {
            token
                .map(|token| RedisUrl::from_rest(&url, user, &token))
                .transpose()
                .map_err(|problem| vec![format!("{url_name}: {problem}")])
        };
        let (write, read) = (
            derive("default", token)?,
            derive("default_ro", read_only_token)?,
        );
        return Ok((
            Location::Redis {
                write,
                read,
                key_prefix: key_prefix.to_owned(),
            },
            url_name.clone(),
        ));
    }
    match data_directory(environment) {
        Some(directory) => sqlite(
            directory.join("portfolio-mcp").join("portfolio.db"),
            key_prefix,
            "no Redis is configured",
        ),
        None => Err(vec![
            "no store is configured, and there is no home directory for a file; pass --store"
                .to_owned(),
        ]),
    }
}

fn sqlite(
    path: PathBuf,
    key_prefix: &str,
    chosen_by: &str,
) -> Result<(Location, String), Vec<String>> {
    if key_prefix.is_empty() {
        Ok((Location::Sqlite(path), chosen_by.to_owned()))
    } else {
        Err(vec![
            "--key-prefix (PORTFOLIO_KEY_PREFIX): a SQLite file has no keys to put it before; leave it out or choose a Redis".to_owned(),
        ])
    }
}

/// Where programs keep a user's data.
fn data_directory(environment: Environment<'_>) -> Option<PathBuf> {
    let home = || environment("HOME").map(PathBuf::from);
    if cfg!(windows) {
        environment("APPDATA").map(PathBuf::from)
    } else if cfg!(target_os = "macos") {
        home().map(|home| home.join("Library").join("Application Support"))
    } else {
        environment("XDG_DATA_HOME")
            .map(PathBuf::from)
            .or_else(|| home().map(|home| home.join(".local").join("share")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(variables: &[(&str, &str)], arguments: &[&str]) -> Result<(String, String), String> {
        let cli = Cli::parse_from([&["portfolio-mcp"], arguments].concat());
        let environment = |name: &str| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        };
        let settings = cli
            .settings(&environment)
            .map_err(|error| error.to_string())?;
        Ok((settings.location.to_string(), settings.chosen_by))
    }

    #[test]
    fn the_store_is_found_in_the_order_of_the_contract() {
        let rest = [
            ("KV_REST_API_URL", "https://a.upstash.io"),
            ("KV_REST_API_TOKEN", "t"),
            ("HOME", "/home/u"),
            ("XDG_DATA_HOME", "/data"),
        ];
        let url = [
            ("KV_URL", "redis://kv:1"),
            ("REDIS_KV_URL", "redis://rkv:1"),
            rest[0],
            rest[1],
        ];

        assert_eq!(
            chosen(&rest, &["stdio"]).unwrap(),
            (
                "rediss://default:***@a.upstash.io:6379".into(),
                "KV_REST_API_URL".into()
            )
        );
        assert_eq!(chosen(&url, &["stdio"]).unwrap().1, "REDIS_KV_URL");
        assert_eq!(
            chosen(&url, &["stdio", "--store", "sqlite:x.db"])
                .unwrap()
                .0,
            "sqlite:x.db"
        );
        assert!(
            chosen(&rest[2..], &["stdio"])
                .unwrap()
                .0
                .ends_with("portfolio.db")
        );
    }

    #[test]
    fn a_read_only_token_alone_gives_a_read_only_server() {
        let cli = Cli::parse_from(["portfolio-mcp", "stdio"]);
        let environment = |name: &str| match name {
            "UPSTASH_REDIS_REST_URL" => Some("https://a.upstash.io".to_owned()),
            "UPSTASH_REDIS_REST_READ_ONLY_TOKEN" => Some("t".to_owned()),
            _ => None,
        };

        assert!(
            cli.settings(&environment)
                .unwrap()
                .read_only
                .unwrap()
                .contains("read-only credential")
        );
    }

    #[test]
    fn every_problem_is_reported_at_once_and_no_secret_is() {
        let arguments = [
            "http",
            "--listen",
            "0.0.0.0:1",
            "--log",
            "loud",
            "--store",
            "http://u:s3cret@h",
            "--read-only=perhaps",
            "--allowed-origin",
            "x",
            "--rate-limit",
            "many",
        ];

        let problems = chosen(&[], &arguments).unwrap_err();
        let with_tokens = chosen(
            &[("PORTFOLIO_TOKENS", "s3cret\nme:write:s3cret")],
            &arguments,
        )
        .unwrap_err();

        assert_eq!(problems.lines().count(), 6, "{problems}");
        assert_eq!(
            with_tokens.lines().count(),
            5 + 2,
            "with tokens it may listen anywhere: {with_tokens}"
        );
        assert!(!problems.contains("s3cret") && !with_tokens.contains("s3cret"));
    }
}

//! All settings of a run, or everything that is wrong with arguments and environment.

use std::fmt;

use super::{
    Environment, LOG, LOG_FORMAT, READ_ONLY,
    http::HttpSettings,
    location::{self, StoreChoice, StoreSource},
    report::{self, ReportedSetting},
    resolver::Resolver,
};
use crate::{
    cli::{Cli, Command},
    store::Location,
};

/// Levels of the log, quietest first.
const LOG_LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// What the commands need to know.
#[derive(Debug)]
pub struct Settings {
    /// Where the content is.
    pub location: Location,
    /// What chose the store.
    pub chosen_by: StoreSource,
    /// Why nothing can be written, if so.
    pub read_only: Option<String>,
    /// The lowest level that is logged.
    pub log: String,
    /// How it is logged.
    pub log_format: LogFormat,
    /// The settings of `http`, or what is wrong with them. Never an error if `http` is the command.
    pub http: Result<HttpSettings, UsageError>,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one object per line.
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

impl Settings {
    /// What arguments and environment say together.
    ///
    /// # Errors
    /// Everything that is wrong, at once. Wrong options of `http` count only if that is the
    /// command.
    pub fn resolve(cli: &Cli, environment: Environment<'_>) -> Result<Self, UsageError> {
        let mut resolver = Resolver::new(cli, environment);
        let log = log_level(&mut resolver);
        let log_format = log_format(&mut resolver);
        let read_only = resolver.bool(&READ_ONLY);
        if resolver.variable("PORTFOLIO_MIRROR").is_some() {
            resolver.add_problem(
                "PORTFOLIO_MIRROR: this version does not support a mirror; unset the variable"
                    .to_owned(),
            );
        }
        let store = location::choose(&mut resolver);
        let (_, read_only_source) = resolver.given(&READ_ONLY);
        let mut problems = resolver.into_problems();
        let mut http = HttpSettings::resolve(cli, environment).map_err(UsageError);
        if let (Some(Command::Http(_)), Err(UsageError(more))) = (&cli.command, &mut http) {
            problems.append(more);
        }
        match store {
            Some(StoreChoice {
                location,
                chosen_by,
            }) if problems.is_empty() => Ok(Self {
                read_only: location
                    .read_only_reason()
                    .map(ToOwned::to_owned)
                    .or_else(|| {
                        let name = READ_ONLY.source_name(read_only_source);
                        read_only.then(|| format!("read-only mode is on ({name})"))
                    }),
                location,
                chosen_by,
                log,
                log_format,
                http,
            }),
            _ => Err(UsageError(problems)),
        }
    }

    /// Every setting, with the flag or variable that set it.
    #[must_use]
    pub fn report(&self, cli: &Cli, environment: Environment<'_>) -> Vec<ReportedSetting> {
        report::report(cli, &self.location, &self.chosen_by, environment)
    }
}

fn log_level(resolver: &mut Resolver<'_>) -> String {
    let level = resolver.text(&LOG).to_lowercase();
    if !LOG_LEVELS.contains(&level.as_str()) {
        resolver.reject(&LOG, "expected error, warn, info, debug or trace");
    }
    level
}

fn log_format(resolver: &mut Resolver<'_>) -> LogFormat {
    match resolver.text(&LOG_FORMAT).as_str() {
        "text" => LogFormat::Text,
        "json" => LogFormat::Json,
        _ => {
            resolver.reject(&LOG_FORMAT, "expected text or json");
            LogFormat::Text
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn chosen(variables: &[(&str, &str)], arguments: &[&str]) -> Result<(String, String), String> {
        let cli = Cli::parse_from([&["portfolio-mcp"], arguments].concat());
        let environment = |name: &str| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        };
        let settings = Settings::resolve(&cli, &environment).map_err(|error| error.to_string())?;
        Ok((
            settings.location.to_string(),
            settings.chosen_by.name().unwrap_or_default(),
        ))
    }

    #[test]
    fn the_store_is_chosen_in_the_order_of_the_contract() {
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
    fn a_read_only_token_alone_makes_the_server_read_only() {
        let cli = Cli::parse_from(["portfolio-mcp", "stdio"]);
        let environment = |name: &str| match name {
            "UPSTASH_REDIS_REST_URL" => Some("https://a.upstash.io".to_owned()),
            "UPSTASH_REDIS_REST_READ_ONLY_TOKEN" => Some("t".to_owned()),
            _ => None,
        };

        assert!(
            Settings::resolve(&cli, &environment)
                .unwrap()
                .read_only
                .unwrap()
                .contains("read-only credential")
        );
    }

    #[test]
    fn all_problems_are_reported_at_once_without_secrets() {
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
            "with tokens it may listen on any address: {with_tokens}"
        );
        assert!(!problems.contains("s3cret") && !with_tokens.contains("s3cret"));
    }
}

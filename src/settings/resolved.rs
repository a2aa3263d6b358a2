//! All settings of a run, or everything that is wrong with arguments and environment.

use std::fmt;

use super::{
    Environment, LOG, LOG_FORMAT, READ_ONLY, REQUIRE_VERSION, SITE_URL, SettingWarning, TOOLSETS,
    http::HttpSettings,
    location::{self, DefaultStore, StoreChoice},
    report::{self, ReportedSetting},
    resolver::Resolver,
    unknown,
};
use crate::{
    cli::{Cli, Command},
    mcp::{PublicUrl, Toolsets},
};

/// Levels of the log, quietest first.
const LOG_LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// What the commands need to know.
#[derive(Debug)]
pub struct Settings {
    /// Where the content is, and why there.
    pub store: StoreChoice,
    /// Which tools are offered.
    pub toolsets: Toolsets,
    /// Why nothing can be written, if so.
    pub read_only: Option<String>,
    /// Whether updates without `expectedVersion` are refused.
    pub require_version: bool,
    /// Where the website shows a document, if that is known.
    pub public_url: Option<PublicUrl>,
    /// The lowest level that is logged.
    pub log: String,
    /// How it is logged.
    pub log_format: LogFormat,
    /// The settings of `http`, or what is wrong with them. Never an error if `http` is the command.
    pub http: Result<HttpSettings, UsageError>,
    /// What somebody should look at.
    pub warnings: Vec<SettingWarning>,
}

/// What arguments and environment say as far as it can be understood, and what is wrong with the
/// rest. `doctor` reports it; the other commands need [`Settings`].
#[derive(Debug)]
pub struct Draft {
    /// Where the content is, and why there; absent if that cannot be understood.
    pub store: Option<StoreChoice>,
    /// Why nothing can be written, if so.
    pub read_only: Option<String>,
    /// The lowest level that is logged.
    pub log: String,
    /// How it is logged.
    pub log_format: LogFormat,
    /// The settings of `http`, or what is wrong with them.
    pub http: Result<HttpSettings, UsageError>,
    /// What is wrong, but with the settings of `http`.
    pub problems: Vec<String>,
    /// What somebody should look at.
    pub warnings: Vec<SettingWarning>,
    toolsets: Toolsets,
    require_version: bool,
    public_url: Option<PublicUrl>,
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
    pub fn resolve(cli: &Cli, environment: &Environment) -> Result<Self, UsageError> {
        Draft::new(cli, environment).into_settings(cli)
    }

    /// What clients have to know, if nobody chose the store.
    #[must_use]
    pub fn default_store(&self) -> Option<DefaultStore> {
        self.store.default_store()
    }
}

impl Draft {
    /// Reads arguments and environment.
    #[must_use]
    pub fn new(cli: &Cli, environment: &Environment) -> Self {
        let mut resolver = Resolver::new(cli, environment);
        let log = log_level(&mut resolver);
        let log_format = log_format(&mut resolver);
        let toolsets = toolsets(&mut resolver);
        let is_read_only = resolver.bool(&READ_ONLY);
        let require_version = resolver.bool(&REQUIRE_VERSION);
        let public_url = public_url(&mut resolver);
        unknown::check(environment, &mut resolver);
        if resolver.variable("PORTFOLIO_MIRROR").is_some() {
            resolver.add_problem(
                "PORTFOLIO_MIRROR: this version does not support a mirror; unset the variable"
                    .to_owned(),
            );
        }
        let store = location::choose(&mut resolver);
        let (_, source) = resolver.given(&READ_ONLY);
        let by_option = is_read_only.then(|| {
            let name = READ_ONLY.source_name(source);
            format!("read-only mode is on ({name})")
        });
        let by_credential = store
            .as_ref()
            .and_then(|store| store.location.read_only_reason());
        let (problems, mut warnings) = resolver.finish();
        let (http, more) = HttpSettings::resolve(cli, environment);
        warnings.extend(more);
        Self {
            read_only: by_credential.map(ToOwned::to_owned).or(by_option),
            store,
            log,
            log_format,
            http: http.map_err(UsageError),
            problems,
            warnings,
            toolsets,
            require_version,
            public_url,
        }
    }

    /// The settings of a command.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn into_settings(mut self, cli: &Cli) -> Result<Settings, UsageError> {
        if let (Some(Command::Http(_)), Err(UsageError(more))) = (&cli.command, &mut self.http) {
            self.problems.append(more);
        }
        match self.store {
            Some(store) if self.problems.is_empty() => Ok(Settings {
                store,
                toolsets: self.toolsets,
                read_only: self.read_only,
                require_version: self.require_version,
                public_url: self.public_url,
                log: self.log,
                log_format: self.log_format,
                http: self.http,
                warnings: self.warnings,
            }),
            _ => Err(UsageError(self.problems)),
        }
    }

    /// Every setting, with the flag or variable that set it.
    #[must_use]
    pub fn report(&self, cli: &Cli, environment: &Environment) -> Vec<ReportedSetting> {
        let mut problems = self.problems.clone();
        if let Err(UsageError(more)) = &self.http {
            problems.extend_from_slice(more);
        }
        report::report(cli, self.store.as_ref(), environment, &problems)
    }
}

fn toolsets(resolver: &mut Resolver<'_>) -> Toolsets {
    resolver.text(&TOOLSETS).parse().unwrap_or_else(|problem| {
        resolver.reject(&TOOLSETS, problem);
        Toolsets::default()
    })
}

fn public_url(resolver: &mut Resolver<'_>) -> Option<PublicUrl> {
    let (text, _) = resolver.given(&SITE_URL);
    match text.filter(|text| !text.trim().is_empty())?.parse() {
        Ok(template) => Some(template),
        Err(problem) => {
            resolver.reject(&SITE_URL, problem);
            None
        }
    }
}

fn log_level(resolver: &mut Resolver<'_>) -> String {
    let level = resolver.text(&LOG).to_lowercase();
    if !LOG_LEVELS.contains(&level.as_str()) {
        resolver.reject(&LOG, "expected error, warn, info, debug or trace");
        return LOG.default.to_owned();
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
        let environment = variables.iter().copied().collect();
        let settings = Settings::resolve(&cli, &environment).map_err(|error| error.to_string())?;
        Ok((
            settings.store.location.to_string(),
            settings.store.chosen_by.name().unwrap_or_default(),
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
            chosen(&url, &["stdio", "--store", "sqlite:/no-such/x.db"])
                .unwrap()
                .0,
            "sqlite:/no-such/x.db"
        );
        assert!(
            chosen(&rest[2..], &["stdio"])
                .unwrap()
                .0
                .ends_with("portfolio.db")
        );
    }

    #[test]
    fn an_empty_store_variable_is_refused_only_where_nothing_else_chooses() {
        let home = ("HOME", "/home/u");
        for variables in [
            [("REDIS_URL", ""), home],
            [("PORTFOLIO_STORE", " \n"), home],
            [("KV_REST_API_TOKEN", ""), home],
        ] {
            let problem = chosen(&variables, &["stdio"]).unwrap_err();
            assert!(
                problem.contains(variables[0].0) && problem.contains("expected"),
                "{problem}"
            );
        }
        assert!(
            chosen(&[home], &["stdio", "--store="])
                .unwrap_err()
                .contains("--store")
        );

        let others = [
            ("PORTFOLIO_STORE", ""),
            ("REDIS_URL", ""),
            ("KV_URL", "redis://kv:1"),
        ];
        assert_eq!(chosen(&others, &["stdio", "--store="]).unwrap().1, "KV_URL");
    }

    #[test]
    fn a_flag_goes_before_variables_and_two_flags_contradict_each_other() {
        let variables = [
            ("PORTFOLIO_STORE", "redis://a"),
            ("PORTFOLIO_STORE_FILE", "/no-such"),
        ];

        let flag = chosen(&variables, &["stdio", "--store-file", "/no-such/file"]).unwrap_err();
        let both = chosen(
            &variables,
            &["stdio", "--store=redis://b", "--store-file=x"],
        )
        .unwrap_err();

        assert!(
            flag.starts_with("--store-file: `/no-such/file` cannot be read"),
            "{flag}"
        );
        assert_eq!(chosen(&variables, &["stdio"]).unwrap().1, "PORTFOLIO_STORE");
        assert!(
            chosen(&variables[1..], &["stdio"])
                .unwrap_err()
                .starts_with("PORTFOLIO_STORE_FILE")
        );
        assert!(both.starts_with("--store and --store-file"), "{both}");
    }

    #[test]
    fn a_read_only_token_alone_makes_the_server_read_only() {
        let cli = Cli::parse_from(["portfolio-mcp", "stdio"]);
        let environment = [
            ("UPSTASH_REDIS_REST_URL", "https://a.upstash.io"),
            ("UPSTASH_REDIS_REST_READ_ONLY_TOKEN", "t"),
        ]
        .into_iter()
        .collect();

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

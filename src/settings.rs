//! What flags, environment variables and defaults say together.
//!
//! [`OPTIONS`] is the only list of options: it resolves them, tells `doctor` where each value comes
//! from, completes the help, and makes the table in README.md. Nothing else reads the environment.
//! All problems are reported at once, before anything is opened.

use crate::cli::{Cli, Command, HttpArgs, Secret};

mod address;
mod environment;
pub(crate) mod file_access;
mod help;
mod http;
mod location;
mod pasted;
mod report;
mod resolved;
mod resolver;
mod sqlite_path;
mod store_file;
mod unknown;

pub use environment::Environment;
pub use help::command;
pub use http::{HttpSettings, TokenSource, read_tokens};
pub use location::{DefaultStore, StoreChoice, StoreSource};
pub use report::ReportedSetting;
pub use resolved::{Draft, LogFormat, Settings, UsageError};

/// One option. A flag wins over the variable, the variable over the default.
#[derive(Debug)]
pub struct OptionSpec {
    /// What `doctor` calls the setting.
    pub name: &'static str,
    /// The flag, with its dashes.
    pub flag: &'static str,
    /// The environment variable.
    pub variable: &'static str,
    /// The default: the value, or a description if there is none.
    pub default: &'static str,
    /// The value of the flag; `None` if the flag is absent.
    flag_value: fn(&Cli) -> Option<String>,
}

/// What does not keep the program from starting, but should be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingWarning {
    /// What it is about.
    pub name: &'static str,
    /// What was found.
    pub message: String,
    /// What to do about it.
    pub remedy: &'static str,
}

/// What set an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The flag.
    Flag,
    /// The environment variable.
    Variable,
    /// Neither, so that it has its default.
    Default,
}

/// Every option that has a variable, in the order of `doctor` and of the table in README.md.
pub const OPTIONS: [OptionSpec; 17] = [
    STORE,
    STORE_FILE,
    KEY_PREFIX,
    CA_FILE,
    TOOLSETS,
    READ_ONLY,
    REQUIRE_VERSION,
    SITE_URL,
    LOG,
    LOG_FORMAT,
    LISTEN,
    ALLOWED_HOSTS,
    ALLOWED_ORIGINS,
    PUBLIC_PATH,
    TOKENS,
    PUBLIC_API,
    RATE_LIMIT,
];

/// `--store`. Its default depends on other variables: see `settings/location.rs`.
const STORE: OptionSpec = OptionSpec {
    name: "store",
    flag: "--store",
    variable: "PORTFOLIO_STORE",
    default: "REDIS_URL or a similar variable, else a SQLite file in the user's data directory",
    flag_value: |cli| cli.common.store.clone().map(|Secret(store)| store),
};

const STORE_FILE: OptionSpec = OptionSpec {
    name: "store file",
    flag: "--store-file",
    variable: "PORTFOLIO_STORE_FILE",
    default: "none",
    flag_value: |cli| cli.common.store_file.clone(),
};

const KEY_PREFIX: OptionSpec = OptionSpec {
    name: "key prefix",
    flag: "--key-prefix",
    variable: "PORTFOLIO_KEY_PREFIX",
    default: "none",
    flag_value: |cli| cli.common.key_prefix.clone(),
};

const CA_FILE: OptionSpec = OptionSpec {
    name: "certificate authority",
    flag: "--ca-file",
    variable: "PORTFOLIO_CA_FILE",
    default: "the public ones",
    flag_value: |cli| cli.common.ca_file.clone(),
};

const TOOLSETS: OptionSpec = OptionSpec {
    name: "toolsets",
    flag: "--toolsets",
    variable: "PORTFOLIO_TOOLSETS",
    default: "content",
    flag_value: |cli| cli.common.toolsets.clone(),
};

const READ_ONLY: OptionSpec = OptionSpec {
    name: "read-only",
    flag: "--read-only",
    variable: "PORTFOLIO_READ_ONLY",
    default: "false",
    flag_value: |cli| cli.common.read_only.clone(),
};

const REQUIRE_VERSION: OptionSpec = OptionSpec {
    name: "require version",
    flag: "--require-version",
    variable: "PORTFOLIO_REQUIRE_VERSION",
    default: "false",
    flag_value: |cli| cli.common.require_version.clone(),
};

const SITE_URL: OptionSpec = OptionSpec {
    name: "site URL",
    flag: "--site-url",
    variable: "PORTFOLIO_SITE_URL",
    default: "none",
    flag_value: |cli| cli.common.site_url.clone(),
};

const LOG: OptionSpec = OptionSpec {
    name: "log",
    flag: "--log",
    variable: "PORTFOLIO_LOG",
    default: "info",
    flag_value: |cli| cli.common.log.clone(),
};

const LOG_FORMAT: OptionSpec = OptionSpec {
    name: "log format",
    flag: "--log-format",
    variable: "PORTFOLIO_LOG_FORMAT",
    default: "text",
    flag_value: |cli| cli.common.log_format.clone(),
};

const LISTEN: OptionSpec = OptionSpec {
    name: "http: listen",
    flag: "--listen",
    variable: "PORTFOLIO_LISTEN",
    default: "127.0.0.1:8787",
    flag_value: |cli| http_args(cli)?.listen.clone(),
};

const ALLOWED_HOSTS: OptionSpec = OptionSpec {
    name: "http: allowed hosts",
    flag: "--allowed-host",
    variable: "PORTFOLIO_ALLOWED_HOSTS",
    default: "localhost",
    flag_value: |cli| Some(http_args(cli)?.allowed_hosts.as_ref()?.join(",")),
};

const ALLOWED_ORIGINS: OptionSpec = OptionSpec {
    name: "http: allowed origins",
    flag: "--allowed-origin",
    variable: "PORTFOLIO_ALLOWED_ORIGINS",
    default: "localhost",
    flag_value: |cli| Some(http_args(cli)?.allowed_origins.as_ref()?.join(",")),
};

const PUBLIC_PATH: OptionSpec = OptionSpec {
    name: "http: public path",
    flag: "--public-path",
    variable: "PORTFOLIO_PUBLIC_PATH",
    default: "`X-Forwarded-Prefix` of the request, else /",
    flag_value: |cli| http_args(cli)?.public_path.clone(),
};

/// `http --token-file`. The flag names a file; the variable contains the lines of such a file.
const TOKENS: OptionSpec = OptionSpec {
    name: "http: tokens",
    flag: "--token-file",
    variable: "PORTFOLIO_TOKENS",
    default: "none",
    flag_value: |cli| http_args(cli)?.token_file.clone(),
};

const PUBLIC_API: OptionSpec = OptionSpec {
    name: "http: public API",
    flag: "--public-api",
    variable: "PORTFOLIO_PUBLIC_API",
    default: "false",
    flag_value: |cli| http_args(cli)?.public_api.clone(),
};

const RATE_LIMIT: OptionSpec = OptionSpec {
    name: "http: rate limit",
    flag: "--rate-limit",
    variable: "PORTFOLIO_RATE_LIMIT",
    default: "50",
    flag_value: |cli| http_args(cli)?.rate_limit.clone(),
};

impl OptionSpec {
    /// The value, unless it is the default, and what set it.
    ///
    /// An empty flag means the default, even if the variable is set.
    #[must_use]
    pub fn resolve(&self, cli: &Cli, environment: &Environment) -> (Option<String>, Source) {
        let (text, source) = if let Some(text) = (self.flag_value)(cli) {
            (Some(text), Source::Flag)
        } else {
            let value = environment.get(self.variable);
            (value.map(ToOwned::to_owned), Source::Variable)
        };
        match text.filter(|text| !text.is_empty()) {
            Some(text) => (Some(text), source),
            None => (None, Source::Default),
        }
    }

    /// What `source` is called for this option.
    #[must_use]
    pub fn source_name(&self, source: Source) -> &'static str {
        match source {
            Source::Flag => self.flag,
            Source::Variable => self.variable,
            Source::Default => "default",
        }
    }

    /// How messages name the option.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{} ({})", self.flag, self.variable)
    }
}

/// The options of `http`, if the command takes them.
fn http_args(cli: &Cli) -> Option<&HttpArgs> {
    match cli.command.as_ref()? {
        Command::Http(http) => Some(http),
        Command::Doctor(doctor) => Some(&doctor.http),
        Command::Stdio
        | Command::Import(_)
        | Command::Undo(_)
        | Command::Show(_)
        | Command::Diff(_)
        | Command::Plan(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::Parser;

    use super::*;

    #[test]
    fn a_flag_wins_over_the_variable_and_an_empty_flag_means_the_default() {
        let resolved = |arguments: &[&str], variable: Option<&str>| {
            let cli = Cli::parse_from([&["portfolio-mcp", "stdio"], arguments].concat());
            let variables = variable.map(|value| (LOG.variable, value));
            LOG.resolve(&cli, &variables.into_iter().collect())
        };

        let debug = Some("debug".to_owned());
        let trace = Some("trace".to_owned());
        assert_eq!(
            resolved(&["--log=debug"], Some("trace")),
            (debug, Source::Flag)
        );
        assert_eq!(resolved(&[], Some("trace")), (trace, Source::Variable));
        assert_eq!(resolved(&[], None), (None, Source::Default));
        assert_eq!(
            resolved(&["--log="], Some("trace")),
            (None, Source::Default)
        );
    }

    #[test]
    fn no_two_options_share_a_name_a_flag_or_a_variable() {
        for part in [
            OPTIONS.map(|option| option.name),
            OPTIONS.map(|option| option.flag),
            OPTIONS.map(|option| option.variable),
        ] {
            let distinct: BTreeSet<&str> = part.into_iter().collect();
            assert_eq!(distinct.len(), OPTIONS.len(), "{part:?}");
        }
    }
}

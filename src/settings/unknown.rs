//! Variables with our prefix that are no option: refused where the name is near a known one, because
//! the option would be ignored silently, and else a warning.
//!
//! Kubernetes sets variables for each Service, such as `PORTFOLIO_PORT` for one called `portfolio`.
//! These are never refused.

use strsim::osa_distance;

use super::{Environment, OPTIONS, resolver::Resolver};
use crate::domain::text::truncate;

const PREFIX: &str = "PORTFOLIO_";
/// What people append to the name of an option without an underscore.
const SUFFIXES: [&str; 10] = [
    "ADDR", "ADDRESS", "FILE", "LEVEL", "LIST", "MODE", "PATH", "URI", "URL", "VALUE",
];
/// Words that people put before or after the name of an option.
const EXTRA_WORDS: [&str; 6] = ["ENABLED", "HTTP", "MCP", "ONLY", "REDIS", "SERVER"];
/// Other names that people give an option.
const ALIASES: [(&str, &str); 2] = [
    ("RO", "PORTFOLIO_READ_ONLY"),
    ("REDIS_URL", "PORTFOLIO_STORE"),
];
/// Names of at least this length are near each other with one typing error, and with two if twice as
/// long.
const MIN_LENGTH_PER_ERROR: usize = 4;

/// Checks the names of all variables.
pub(super) fn check(environment: &Environment, resolver: &mut Resolver<'_>) {
    let mut others = Vec::new();
    for name in environment.names() {
        let upper = name.to_uppercase();
        let Some(suffix) = upper.strip_prefix(PREFIX) else {
            continue;
        };
        // It has a message of its own.
        if OPTIONS.iter().any(|option| option.variable == name) || name == "PORTFOLIO_MIRROR" {
            continue;
        }
        match nearest(suffix).filter(|_| !is_of_a_service(suffix)) {
            Some(known) => resolver.add_problem(format!(
                "{}: there is no such variable, and it would have no effect; use {known}, or unset it",
                truncate(name)
            )),
            None => others.push(truncate(name).into_owned()),
        }
    }
    if !others.is_empty() {
        resolver.warn(
            "variables",
            format!("not known, and without effect: {}", others.join(", ")),
            "check their names with `portfolio-mcp help`, unless other programs use them",
        );
    }
}

/// The variable that `suffix` probably means.
fn nearest(suffix: &str) -> Option<&'static str> {
    OPTIONS
        .iter()
        .filter_map(|option| {
            let known = option.variable.strip_prefix(PREFIX)?.to_owned();
            // The variable may be named after the flag: `PORTFOLIO_TOKEN_FILE`.
            let flag = option.flag.trim_start_matches('-').replace('-', "_");
            let aliases = ALIASES
                .iter()
                .filter(|(_, variable)| *variable == option.variable)
                .map(|(alias, _)| (*alias).to_owned());
            let distance = [known, flag.to_uppercase()]
                .into_iter()
                .chain(aliases)
                .filter_map(|known| distance(suffix, &known))
                .min()?;
            Some((distance, option.variable))
        })
        .min()
        .map(|(_, variable)| variable)
}

/// How far two names are apart, if they are near each other. Names with typing errors are nearer
/// than names with more words, and of these the ones that have more in common.
fn distance(name: &str, known: &str) -> Option<usize> {
    let (whole, known) = (words(name).concat(), words(known).concat());
    let shorter = whole.len().min(known.len());
    let errors = osa_distance(&whole, &known);
    if errors <= shorter / MIN_LENGTH_PER_ERROR && errors <= 2 {
        return Some(errors);
    }
    has_words_of(name, &known).then_some(usize::MAX - known.len())
}

/// Whether some words of the name, one after the other, are the known name, also with one of
/// [`SUFFIXES`], and the others say nothing else: `LOG_DIR` is a variable of another program.
fn has_words_of(name: &str, known: &str) -> bool {
    let words = words(name);
    let is_known = |text: &str| {
        let end = text.strip_prefix(known);
        end.is_some_and(|end| {
            end.is_empty() || SUFFIXES.iter().any(|suffix| singular(suffix) == end)
        })
    };
    let is_extra = |word: &&str| {
        let mut extra = SUFFIXES.iter().chain(&EXTRA_WORDS);
        extra.any(|extra| singular(extra) == *word)
    };
    (0..words.len()).any(|start| {
        let (before, rest) = words.split_at(start);
        (1..=rest.len()).any(|length| {
            let (run, after) = rest.split_at(length);
            is_known(&run.concat()) && before.iter().chain(after).all(is_extra)
        })
    })
}

/// The words of a name as people write them: singular or plural.
fn words(name: &str) -> Vec<&str> {
    name.split('_').map(singular).collect()
}

fn singular(word: &str) -> &str {
    word.trim_end_matches('S')
}

/// Whether Kubernetes makes such a name: `PORT`, `SERVICE_HOST`, `PORT_8787_TCP_ADDR`, also after
/// the rest of the Service's name, as in `MCP_PORT`.
fn is_of_a_service(suffix: &str) -> bool {
    let words: Vec<&str> = suffix.split('_').collect();
    let service = words
        .windows(2)
        .any(|pair| matches!(pair, ["SERVICE", "HOST" | "PORT"]));
    let port = words.last() == Some(&"PORT")
        || words.windows(3).any(|three| match three {
            ["PORT", number, "TCP" | "UDP" | "SCTP"] => number.bytes().all(|b| b.is_ascii_digit()),
            _ => false,
        });
    service || port
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(suffix: &str) -> Option<&'static str> {
        nearest(suffix).filter(|_| !is_of_a_service(suffix))
    }

    #[test]
    fn a_name_near_a_known_one_is_recognized() {
        for (name, known) in [
            ("READONLY", "PORTFOLIO_READ_ONLY"),
            ("READ_ONLYY", "PORTFOLIO_READ_ONLY"),
            ("STORE_URL", "PORTFOLIO_STORE"),
            ("STOER", "PORTFOLIO_STORE"),
            ("STOREFILE", "PORTFOLIO_STORE_FILE"),
            ("TOKEN", "PORTFOLIO_TOKENS"),
            ("TOKEN_FILE", "PORTFOLIO_TOKENS"),
            ("TOKENS_FILE", "PORTFOLIO_TOKENS"),
            ("ALLOWED_HOST", "PORTFOLIO_ALLOWED_HOSTS"),
            ("ALLOWED_ORIGIN", "PORTFOLIO_ALLOWED_ORIGINS"),
            ("ALOWED_ORIGINS", "PORTFOLIO_ALLOWED_ORIGINS"),
            ("LOG_LEVEL", "PORTFOLIO_LOG"),
            ("LOGFORMAT", "PORTFOLIO_LOG_FORMAT"),
            ("LISTEN_ADDR", "PORTFOLIO_LISTEN"),
            ("REQUIRE_VERSIONS", "PORTFOLIO_REQUIRE_VERSION"),
            ("RATELIMIT", "PORTFOLIO_RATE_LIMIT"),
            ("SITEURL", "PORTFOLIO_SITE_URL"),
            ("READ_ONLY_MODE", "PORTFOLIO_READ_ONLY"),
            ("READONLY_MODE", "PORTFOLIO_READ_ONLY"),
            ("MCP_READ_ONLY", "PORTFOLIO_READ_ONLY"),
            ("MCP_READONLY", "PORTFOLIO_READ_ONLY"),
            ("MCP_READ_ONLY_MODE", "PORTFOLIO_READ_ONLY"),
            ("TOOLSET", "PORTFOLIO_TOOLSETS"),
            ("RO", "PORTFOLIO_READ_ONLY"),
            ("STORE_URI", "PORTFOLIO_STORE"),
            ("REDIS_URL", "PORTFOLIO_STORE"),
            ("MCP_STORE", "PORTFOLIO_STORE"),
            ("MCP_STORE_URL", "PORTFOLIO_STORE"),
            ("STOREURL", "PORTFOLIO_STORE"),
            ("STORE_FILE_PATH", "PORTFOLIO_STORE_FILE"),
            ("LOGLEVEL", "PORTFOLIO_LOG"),
            ("MCP_LOG_FORMAT", "PORTFOLIO_LOG_FORMAT"),
            ("MCP_TOKEN", "PORTFOLIO_TOKENS"),
            ("REDIS_KEY_PREFIX", "PORTFOLIO_KEY_PREFIX"),
        ] {
            assert_eq!(near(name), Some(known), "{name}");
        }
    }

    #[test]
    fn names_of_kubernetes_and_of_other_programs_are_near_none() {
        for name in [
            "PORT",
            "SERVICE_HOST",
            "SERVICE_PORT",
            "SERVICE_PORT_HTTP",
            "PORT_8787_TCP",
            "PORT_8787_TCP_PROTO",
            "PORT_8787_TCP_PORT",
            "PORT_8787_TCP_ADDR",
            "STORE_PORT",
            "STORE_SERVICE_HOST",
            "MCP_PORT",
            "MCP_SERVICE_HOST",
            "MCP_SERVICE_PORT",
            "MCP_SERVICE_PORT_HTTP",
            "MCP_PORT_8787_TCP",
            "MCP_PORT_8787_TCP_ADDR",
            "MCP_PORT_8787_TCP_PORT",
            "MCP_PORT_8787_TCP_PROTO",
            "MCP_PORT_8787_UDP_ADDR",
            "STORE_SERVICE_PORT",
            "STORE_SERVICE_PORT_REDIS",
            "STORE_PORT_6379_TCP",
            "STORE_PORT_6379_TCP_ADDR",
            "STORE_PORT_6379_TCP_PORT",
            "STORE_PORT_6379_TCP_PROTO",
            "LOG_SERVICE_PORT",
            "ENV",
            "NAME",
            "STAGE",
            "DOG",
            "STOREFRONT",
            "BLOG",
            "ROLE",
            "THEME_URL",
        ] {
            assert_eq!(near(name), None, "{name}");
        }
    }
}

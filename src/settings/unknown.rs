//! Variables with our prefix that are no option: refused where the name is near a known one, because
//! the option would be ignored silently, and else a warning.
//!
//! Kubernetes sets variables for each Service, such as `PORTFOLIO_PORT` for one called `portfolio`.
//! These are never refused.

use strsim::osa_distance;

use super::{Environment, OPTIONS, resolver::Resolver};
use crate::domain::text::truncate;

const PREFIX: &str = "PORTFOLIO_";
/// What people append to the name of an option.
const SUFFIXES: [&str; 8] = [
    "ADDR", "ADDRESS", "FILE", "LEVEL", "LIST", "PATH", "URL", "VALUE",
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
    let name = normalized(suffix);
    let distance = |known: &str| {
        let known = normalized(known);
        let shorter = name.len().min(known.len());
        let distance = osa_distance(&name, &known);
        (distance <= shorter / MIN_LENGTH_PER_ERROR && distance <= 2).then_some(distance)
    };
    let without_end = suffix
        .rsplit_once('_')
        .filter(|(_, end)| SUFFIXES.contains(end))
        .map(|(start, _)| normalized(start));
    OPTIONS
        .iter()
        .filter_map(|option| {
            let known = option.variable.strip_prefix(PREFIX)?;
            // The variable may be named after the flag: `PORTFOLIO_TOKEN_FILE`.
            let flag = option.flag.trim_start_matches('-').replace('-', "_");
            let distance = [known, &flag.to_uppercase()]
                .into_iter()
                .filter_map(distance)
                .min();
            let is_start = without_end.as_ref() == Some(&normalized(known));
            let distance = distance.or(is_start.then_some(usize::MAX))?;
            Some((distance, option.variable))
        })
        .min()
        .map(|(_, variable)| variable)
}

/// The name as people write it: with or without underscores, singular or plural.
fn normalized(name: &str) -> String {
    let words = name.split('_').map(|word| word.trim_end_matches('S'));
    words.collect()
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
            "MCP_PORT_8787_UDP_ADDR",
            "LOG_SERVICE_PORT",
            "ENV",
            "NAME",
            "STAGE",
            "DOG",
            "SITE_URL",
            "TOOLSETS",
        ] {
            assert_eq!(near(name), None, "{name}");
        }
    }
}

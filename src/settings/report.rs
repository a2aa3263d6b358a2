//! Where each setting comes from, for `doctor`.

use super::{
    CA_FILE, Environment, OPTIONS, STORE, STORE_FILE, Source, TOKENS,
    location::{REST_PREFIXES, StoreChoice, StoreSource, URL_VARIABLES},
};
use crate::{cli::Cli, domain::text::shown_path, store::Location};

/// One setting as `doctor` shows it.
#[derive(Debug)]
pub struct ReportedSetting {
    /// What is set.
    pub name: &'static str,
    /// Its value, without secrets.
    pub value: String,
    /// The flag or variable that set it, or why it has this value.
    pub source: String,
}

/// Every setting, with its source. A value with a problem is not shown: it may be a secret in the
/// wrong place.
pub(super) fn report(
    cli: &Cli,
    choice: Option<&StoreChoice>,
    environment: &Environment,
    problems: &[String],
) -> Vec<ReportedSetting> {
    let mut settings = Vec::new();
    if let Some(StoreChoice {
        location,
        chosen_by,
    }) = choice
    {
        settings.extend(store(location, chosen_by));
        settings.extend(unused_variables(chosen_by, environment));
    }
    let is_invalid = |label: &str| problems.iter().any(|problem| problem.starts_with(label));
    for option in OPTIONS {
        let (value, source) = option.resolve(cli, environment);
        let value = match (option.name, source) {
            // Reported above, without its password.
            (name, _) if name == STORE.name => continue,
            (name, Source::Variable) if name == TOKENS.name => "set, not shown".to_owned(),
            _ if is_invalid(&option.label()) => "not valid, not shown".to_owned(),
            (name, _)
                if [TOKENS.name, CA_FILE.name, STORE_FILE.name].contains(&name)
                    && value.is_some() =>
            {
                shown_path(&value.unwrap_or_default()).into_owned()
            }
            _ => value.map_or_else(
                || option.default.to_owned(),
                |value| value.trim().to_owned(),
            ),
        };
        settings.push(ReportedSetting {
            name: option.name,
            value,
            source: option.source_name(source).to_owned(),
        });
    }
    settings
}

/// The store: two lines if reads have a credential of their own.
fn store(location: &Location, chosen_by: &StoreSource) -> Vec<ReportedSetting> {
    let name = chosen_by.name();
    let with_token = |token: &str| match (chosen_by, &name) {
        (StoreSource::Rest(prefix), Some(name)) => format!("{name} and {prefix}{token}"),
        (_, Some(name)) => name.clone(),
        (_, None) => chosen_by.to_string(),
    };
    match location {
        Location::Redis { write, read, .. } => {
            let write_setting = write.as_ref().map(|url| ReportedSetting {
                name: "store",
                value: url.to_string(),
                source: with_token("TOKEN"),
            });
            let read_setting = read.as_ref().map(|url| ReportedSetting {
                name: match write {
                    Some(_) => "store, for reading",
                    None => "store",
                },
                value: url.to_string(),
                source: with_token("READ_ONLY_TOKEN"),
            });
            write_setting.into_iter().chain(read_setting).collect()
        }
        Location::Sqlite(_) => vec![ReportedSetting {
            name: "store",
            value: location.to_string(),
            source: with_token(""),
        }],
    }
}

/// Variables with the address of a Redis database that another one takes precedence over.
fn unused_variables(chosen_by: &StoreSource, environment: &Environment) -> Option<ReportedSetting> {
    let chosen = chosen_by.name()?;
    let unused: Vec<String> = [STORE.variable, STORE_FILE.variable]
        .into_iter()
        .chain(URL_VARIABLES)
        .map(ToOwned::to_owned)
        .chain(REST_PREFIXES.map(|prefix| format!("{prefix}URL")))
        .filter(|name| *name != chosen && environment.get(name).is_some())
        .collect();
    (!unused.is_empty()).then(|| ReportedSetting {
        name: "store, not used",
        value: unused.join(", "),
        source: format!("set, but {chosen} takes precedence"),
    })
}

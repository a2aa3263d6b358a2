//! The help of the command line, completed from the table of options.

use clap::CommandFactory;

use super::{OPTIONS, OptionSpec};
use crate::cli::Cli;

/// The command line with the default and the variable of each option in its help.
#[must_use]
pub fn command() -> clap::Command {
    let complete = |arg: clap::Arg| match option_of(&arg) {
        Some(option) => with_sources(arg, option),
        None => arg,
    };
    Cli::command()
        .mut_args(complete)
        .mut_subcommands(|command| command.mut_args(complete))
}

fn option_of(arg: &clap::Arg) -> Option<&'static OptionSpec> {
    let flag = arg.get_long()?;
    OPTIONS
        .iter()
        .find(|option| option.flag.strip_prefix("--") == Some(flag))
}

fn with_sources(arg: clap::Arg, option: &OptionSpec) -> clap::Arg {
    let default = format!("[default: {}]", option.default);
    let variable = format!("[env: {}]", option.variable);
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let long_help = arg.get_long_help().map(ToString::to_string);
    arg.help(format!("{help} {default} {variable}"))
        .long_help(format!(
            "{}\n\n{default}\n{variable}",
            long_help.unwrap_or(help)
        ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_shows_the_default_and_the_variable_of_every_option() {
        let mut command = command();
        command.build();

        let doctor = command.find_subcommand("doctor").unwrap();
        for option in OPTIONS {
            let arg = doctor
                .get_arguments()
                .find(|arg| arg.get_long() == option.flag.strip_prefix("--"))
                .unwrap();
            let [short, long] =
                [arg.get_help(), arg.get_long_help()].map(|help| help.unwrap().to_string());
            for part in [option.default, option.variable] {
                assert!(
                    short.contains(part) && long.contains(part),
                    "{part}: {long}"
                );
            }
        }
    }

    #[test]
    fn every_option_of_http_is_in_the_table() {
        let mut command = Cli::command();
        command.build();

        let http = command.find_subcommand("http").unwrap();
        let missing: Vec<&str> = http
            .get_arguments()
            .filter(|arg| option_of(arg).is_none())
            .map(|arg| arg.get_id().as_str())
            .collect();
        assert_eq!(missing, ["help"]);
    }
}

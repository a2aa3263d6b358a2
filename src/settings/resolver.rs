//! Reads options as the types they stand for, and collects everything that is wrong with them.

use std::{fmt::Display, path::PathBuf, str::FromStr};

use super::{Environment, OptionSpec, SettingWarning, Source};
use crate::cli::Cli;

/// Arguments and environment, and the problems found in them so far.
pub(super) struct Resolver<'a> {
    cli: &'a Cli,
    environment: &'a Environment,
    problems: Vec<String>,
    warnings: Vec<SettingWarning>,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(cli: &'a Cli, environment: &'a Environment) -> Self {
        Self {
            cli,
            environment,
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The value of an option, unless it is the default, and what set it.
    pub(super) fn given(&self, option: &OptionSpec) -> (Option<String>, Source) {
        option.resolve(self.cli, self.environment)
    }

    /// The value of an option, or its default.
    pub(super) fn text(&self, option: &OptionSpec) -> String {
        let (text, _) = self.given(option);
        let text = text.unwrap_or_else(|| option.default.to_owned());
        text.trim().to_owned()
    }

    /// The value of an option that is on or off.
    pub(super) fn bool(&mut self, option: &OptionSpec) -> bool {
        match self.text(option).to_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => true,
            "false" | "0" | "no" | "off" => false,
            _ => {
                self.reject(option, "expected true or false");
                false
            }
        }
    }

    /// The values of an option that is a list, separated by commas.
    pub(super) fn list<T: FromStr<Err: Display>>(&mut self, option: &OptionSpec) -> Vec<T> {
        let (texts, _) = self.given(option);
        let texts = texts.unwrap_or_default();
        let mut values = Vec::new();
        for text in texts
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
        {
            match text.parse() {
                Ok(value) => values.push(value),
                Err(problem) => self.reject(option, problem),
            }
        }
        values
    }

    /// The value of a flag, unless it is blank.
    pub(super) fn flag(&self, option: &OptionSpec) -> Option<String> {
        (option.flag_value)(self.cli).filter(|value| !value.trim().is_empty())
    }

    pub(super) fn is_blank_flag(&self, option: &OptionSpec) -> bool {
        (option.flag_value)(self.cli).is_some_and(|value| value.trim().is_empty())
    }

    /// The value of a variable, unless it is blank.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        let value = self.environment.get(name)?;
        (!value.trim().is_empty()).then(|| value.to_owned())
    }

    pub(super) fn is_blank_variable(&self, name: &str) -> bool {
        self.environment.is_blank(name)
    }

    /// The user's home directory.
    pub(super) fn home(&self) -> Option<PathBuf> {
        let name = if cfg!(windows) { "USERPROFILE" } else { "HOME" };
        let home = PathBuf::from(self.variable(name)?);
        home.is_absolute().then_some(home)
    }

    /// The path of a file that an option names. Clients do not expand `~` as a shell does.
    pub(super) fn path(&self, text: &str) -> PathBuf {
        let in_home = |rest| Some(self.home()?.join(rest));
        text.strip_prefix("~/")
            .and_then(in_home)
            .unwrap_or_else(|| PathBuf::from(text))
    }

    /// Records what is wrong with an option.
    pub(super) fn reject(&mut self, option: &OptionSpec, problem: impl Display) {
        self.problems.push(format!("{}: {problem}", option.label()));
    }

    /// Records what is wrong with something else.
    pub(super) fn add_problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    /// Records what somebody should look at.
    pub(super) fn warn(&mut self, name: &'static str, message: String, remedy: &'static str) {
        self.warnings.push(SettingWarning {
            name,
            message,
            remedy,
        });
    }

    /// What is wrong, and what somebody should look at.
    pub(super) fn finish(self) -> (Vec<String>, Vec<SettingWarning>) {
        (self.problems, self.warnings)
    }
}

//! Reads options as the types they stand for, and collects everything that is wrong with them.

use std::{fmt::Display, str::FromStr};

use super::{Environment, OptionSpec, Source};
use crate::cli::Cli;

/// Arguments and environment, and the problems found in them so far.
pub(super) struct Resolver<'a> {
    cli: &'a Cli,
    environment: Environment<'a>,
    problems: Vec<String>,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(cli: &'a Cli, environment: Environment<'a>) -> Self {
        Self {
            cli,
            environment,
            problems: Vec::new(),
        }
    }

    /// The value of an option, unless it is the default, and what set it.
    pub(super) fn given(&self, option: &OptionSpec) -> (Option<String>, Source) {
        option.resolve(self.cli, self.environment)
    }

    /// The value of an option, or its default.
    pub(super) fn text(&self, option: &OptionSpec) -> String {
        let (text, _) = self.given(option);
        text.unwrap_or_else(|| option.default.to_owned())
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

    /// A variable that is not in the table of options.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        (self.environment)(name)
    }

    /// Records what is wrong with an option.
    pub(super) fn reject(&mut self, option: &OptionSpec, problem: impl Display) {
        self.problems.push(format!("{}: {problem}", option.label()));
    }

    /// Records what is wrong with something else.
    pub(super) fn add_problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    pub(super) fn into_problems(self) -> Vec<String> {
        self.problems
    }
}

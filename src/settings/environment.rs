//! The environment variables, as they were when the program started.

use std::collections::BTreeMap;

/// The environment variables. Has no `Debug`, because their values may be secrets.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The value of a variable; an empty one counts as absent.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let value = self.0.get(name).map(String::as_str);
        value.filter(|value| !value.is_empty())
    }

    /// Whether a variable is set to nothing but spaces, or to nothing at all.
    pub(super) fn is_blank(&self, name: &str) -> bool {
        self.0
            .get(name)
            .is_some_and(|value| value.trim().is_empty())
    }

    /// The names of the variables that have a value.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let set = self.0.iter().filter(|(_, value)| !value.is_empty());
        set.map(|(name, _)| name.as_str())
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let named = |name: N| {
            let name: String = name.into();
            // There, the case of a name does not matter.
            if cfg!(windows) {
                name.to_uppercase()
            } else {
                name
            }
        };
        let variables = variables.into_iter();
        Self(
            variables
                .map(|(name, value)| (named(name), value.into()))
                .collect(),
        )
    }
}

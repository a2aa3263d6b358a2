//! What the changes in effect lead to, after each entry of a history.

use super::state::{State, set, value_at};

/// The document after the last entry, and what each entry replaced, so that the document after any
/// earlier one is found by going back only over those between.
#[derive(Debug)]
pub(super) struct Effect {
    base: State,
    state: State,
    /// One for each entry: what it replaced, in its order.
    replaced: Vec<Vec<Replaced>>,
}

/// A value that an entry replaced.
#[derive(Debug)]
struct Replaced {
    path: String,
    value: State,
}

impl Effect {
    /// Before the first entry.
    pub(super) fn new(base: State) -> Self {
        Self {
            state: base.clone(),
            base,
            replaced: Vec::new(),
        }
    }

    /// After the last entry.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// After the first `entries` entries. Members that come back are the last ones of their objects,
    /// except before the first entry.
    pub(super) fn after(&self, entries: usize) -> State {
        if entries == 0 {
            return self.base.clone();
        }
        let mut state = self.state.clone();
        let later = self.replaced.get(entries..).unwrap_or_default();
        for replaced in later.iter().flatten().rev() {
            set(&mut state, &replaced.path, replaced.value.as_ref());
        }
        state
    }

    /// Adds an entry that has changed nothing yet.
    pub(super) fn begin_entry(&mut self) {
        self.replaced.push(Vec::new());
    }

    /// Sets a value, as a part of the last entry.
    pub(super) fn set(&mut self, path: &str, value: Option<&serde_json::Value>) {
        self.note(path);
        set(&mut self.state, path, value);
    }

    /// Goes on with another document, as a part of the last entry; it differs at these paths alone.
    pub(super) fn replace(&mut self, state: State, paths: Vec<&str>) {
        for path in paths {
            if value_at(&self.state, path) != value_at(&state, path) {
                self.note(path);
            }
        }
        self.state = state;
    }

    /// Notes what is at `path` before it is replaced.
    fn note(&mut self, path: &str) {
        let value = value_at(&self.state, path).cloned();
        if let Some(replaced) = self.replaced.last_mut() {
            replaced.push(Replaced {
                path: path.to_owned(),
                value,
            });
        }
    }
}

//! The steps of a document's history: entries that join up, back from the present.

use serde_json::{Map, Value};

use super::state::{State, is_server_set, set, value_at};
use crate::domain::{
    audit::StoredEntry,
    diff::{self, FieldChange},
    number::is_same_member,
    record::Record,
};

/// An entry of this program, with the versions of the document before and after it.
pub(in crate::domain) struct Step<'a> {
    pub(super) entry: &'a StoredEntry,
    pub(in crate::domain) before: Option<&'a str>,
    pub(in crate::domain) after: Option<&'a str>,
    changes: Vec<FieldChange>,
}

/// One changed field of one entry.
#[derive(Debug, Clone)]
pub(super) struct Item {
    /// The number of its entry.
    pub(super) entry: usize,
    /// The path of the field; empty for the whole document.
    pub(super) path: String,
    pub(super) old: Option<Value>,
    pub(super) new: Option<Value>,
    pub(super) role: Role,
}

/// How an item counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Role {
    /// Somebody gave the field this value.
    Content,
    /// An undo within a list that was changed since. It counts like a change of the list, but stands
    /// for nobody's.
    Merge,
    /// The server set it by itself.
    ServerSet,
    /// It undid these items: while it is in effect, neither they nor it count.
    Undo(Vec<usize>),
}

impl Role {
    /// Whether it gave the field the value that it has after it.
    pub(super) fn is_change(&self) -> bool {
        matches!(self, Self::Content | Self::Merge)
    }
}

/// The document before the oldest step, and the steps that lead from it to the current one, oldest
/// first.
///
/// Back from the present, each step must lead to the version that was reached. Between such steps
/// may be entries of other programs, which explain nothing.
pub(super) fn explained<'a>(
    current: Option<&Record>,
    newest_first: &'a [StoredEntry],
) -> (State, Vec<Step<'a>>) {
    let mut reached = current.map(|record| record.version().as_str().to_owned());
    let mut state = current.map(|record| record.json().clone());
    let mut steps = Vec::new();
    for entry in newest_first {
        let Some(step) = Step::of(entry) else {
            continue;
        };
        if step.after != reached.as_deref() {
            continue;
        }
        if !step.leads_to(&state) {
            break;
        }
        step.revert(&mut state);
        reached = step.before.map(ToOwned::to_owned);
        steps.push(step);
    }
    steps.reverse();
    (state, steps)
}

impl<'a> Step<'a> {
    /// The step that an entry records; `None` if it names no version.
    pub(in crate::domain) fn of(entry: &'a StoredEntry) -> Option<Self> {
        let metadata = entry.json().get("metadata")?;
        let version = |name: &str| metadata.get(name).and_then(Value::as_str);
        let (before, after) = (version("versionBefore"), version("versionAfter"));
        before.or(after)?;
        Some(Self {
            entry,
            before,
            after,
            changes: entry.changes(),
        })
    }

    /// Whether its changes are known. They are not where it only records what was found.
    pub(in crate::domain) fn is_known(&self) -> bool {
        self.before != self.after
    }

    /// Whether every value that it wrote is in the document that it led to.
    pub(in crate::domain) fn leads_to(&self, after: &State) -> bool {
        self.after.is_none()
            || self.changes.iter().all(|change| {
                is_same_member(change.new_value.as_ref(), value_at(after, &change.field))
            })
    }

    /// The document before a deletion.
    fn deleted(&self) -> State {
        let mut state = Some(Value::Object(Map::new()));
        for change in &self.changes {
            set(&mut state, &change.field, change.old_value.as_ref());
        }
        state
    }

    /// Turns the document after this step into the one before it.
    pub(in crate::domain) fn revert(&self, state: &mut State) {
        if !self.is_known() {
            return;
        }
        match (self.before, self.after) {
            (None, _) => *state = None,
            (Some(_), None) => *state = self.deleted(),
            (Some(_), Some(_)) => {
                for change in self.changes.iter().rev() {
                    set(state, &change.field, change.old_value.as_ref());
                }
            }
        }
    }

    /// Turns the document before this step into the one after it.
    pub(super) fn apply(&self, state: &mut State) {
        if !self.is_known() {
            return;
        }
        if self.before.is_none() {
            *state = Some(Value::Object(Map::new()));
        }
        for change in &self.changes {
            set(state, &change.field, change.new_value.as_ref());
        }
        if self.after.is_none() {
            *state = None;
        }
    }

    /// Its changes, field by field; `entry` is its number, `after` the document that it led to. A
    /// creation or a deletion is one change of the whole document.
    pub(super) fn items(&self, entry: usize, after: &State) -> Vec<Item> {
        let item = |change: FieldChange| Item {
            entry,
            role: if is_server_set(&change, after) {
                Role::ServerSet
            } else {
                Role::Content
            },
            path: change.field,
            old: change.old_value,
            new: change.new_value,
        };
        let whole = |old_value: State, new_value: State| FieldChange {
            field: String::new(),
            old_value,
            new_value,
        };
        let changes = match (self.before, self.after) {
            _ if !self.is_known() => Vec::new(),
            (None, _) => vec![whole(None, after.clone())],
            (_, None) => vec![whole(self.deleted(), None)],
            (Some(_), Some(_)) => self.changes.iter().flat_map(by_field).collect(),
        };
        changes.into_iter().map(item).collect()
    }
}

/// A change of the whole document field by field.
fn by_field(change: &FieldChange) -> Vec<FieldChange> {
    match (&change.old_value, &change.new_value) {
        (Some(Value::Object(old)), Some(Value::Object(new))) if change.field.is_empty() => {
            diff::diff(old, new)
        }
        _ => vec![change.clone()],
    }
}

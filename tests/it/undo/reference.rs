//! A plain reference for undo, written from the contract's text: one field at a time, from the
//! states of the document after each change.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::support::fixtures::Document;

/// The fields that the model changes. Each is changed whole or in one of its members, so that all
/// its changes are of one field.
pub(crate) const FIELDS: [&str; 8] = [
    "title",
    "result",
    "client.size",
    "client.type",
    "metadata.status",
    "insight.resourceLink",
    "tags",
    "results",
];

/// The history of a document: its states, and the changes between them.
pub(crate) struct Reference {
    /// The document before the first change, and after each.
    pub(crate) states: Vec<Document>,
    pub(crate) changes: Vec<Recorded>,
}

/// A change that was recorded.
pub(crate) struct Recorded {
    pub(crate) id: String,
    /// Which of the fields it changed.
    pub(crate) fields: BTreeSet<&'static str>,
    /// What it undid, if it was an undo.
    pub(crate) reverts: BTreeSet<String>,
    /// The fields that it did not set back, but merged.
    pub(crate) merged: BTreeSet<&'static str>,
}

/// What becomes of a field.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Becomes {
    pub(crate) value: Option<Value>,
    /// The last change of the field, if it stays because of that one.
    pub(crate) kept_by: Option<String>,
    pub(crate) is_merged: bool,
}

impl Reference {
    /// What becomes of a field if the changes with these ids are undone.
    pub(crate) fn without(&self, field: &str, ids: &BTreeSet<String>) -> Becomes {
        self.until(self.changes.len(), field, ids)
    }

    /// The same, when only the first `count` changes had been made.
    fn until(&self, count: usize, field: &str, ids: &BTreeSet<String>) -> Becomes {
        let is_undone = |change: &usize| ids.contains(&self.changes[*change].id);
        let now = self.value(count, field);
        let stays = |kept_by: Option<&usize>| Becomes {
            value: now.clone(),
            kept_by: kept_by.map(|change| self.changes[*change].id.clone()),
            is_merged: false,
        };
        // Undos in effect count only if they are to be undone.
        let (made, undos) = self.counting(count, field, &BTreeSet::new());
        let undos = undos.into_iter().filter(is_undone);
        let counting: BTreeSet<usize> = made.into_iter().chain(undos).collect();
        let Some(last) = counting.last() else {
            return stays(None);
        };
        let Some(last_undone) = counting.iter().rfind(|change| is_undone(change)) else {
            return stays(None);
        };
        if last == last_undone {
            let (outside, _) = self.counting(count, field, ids);
            return match outside.last() {
                Some(change) => Becomes {
                    kept_by: None,
                    ..self.until(change + 1, field, ids)
                },
                None => Becomes {
                    value: self.value(self.first(field), field),
                    ..stays(None)
                },
            };
        }
        let back = self.until(last_undone + 1, field, ids).value;
        let base = self.value(last_undone + 1, field);
        if let Some(merged) = merge(base.as_ref(), back.as_ref(), now.as_ref()) {
            return Becomes {
                is_merged: Some(&merged) != now.as_ref(),
                value: Some(merged),
                kept_by: None,
            };
        }
        // An undo within a list stands for nobody's change.
        let mut later = counting.range(last_undone + 1..);
        let made = later.rfind(|change| !self.changes[**change].merged.contains(field));
        stays(Some(made.unwrap_or(last)))
    }

    /// Of the first `count` changes of a field, those that count as made, and the undos in effect,
    /// when some changes had never been made.
    fn counting(
        &self,
        count: usize,
        field: &str,
        never_made: &BTreeSet<String>,
    ) -> (BTreeSet<usize>, BTreeSet<usize>) {
        let (mut made, mut undos) = (BTreeSet::new(), BTreeSet::new());
        // By which undo in effect a change was undone.
        let mut undone = BTreeMap::new();
        for (number, change) in self.changes[..count].iter().enumerate().rev() {
            if !change.fields.contains(field) || never_made.contains(&change.id) {
                continue;
            }
            // The field did not go back to before it if a later change counted then.
            let undo = undone.get(&change.id);
            if undo.is_some_and(|undo| made.range(number..*undo).next().is_none()) {
                continue;
            }
            if change.reverts.is_empty() || change.merged.contains(field) {
                made.insert(number);
            } else {
                undos.insert(number);
                undone.extend(change.reverts.iter().map(|id| (id.clone(), number)));
            }
        }
        (made, undos)
    }

    fn first(&self, field: &str) -> usize {
        let mut changes = self.changes.iter();
        changes
            .position(|change| change.fields.contains(field))
            .unwrap()
    }

    fn value(&self, count: usize, field: &str) -> Option<Value> {
        value(&self.states[count], field)
    }
}

/// The value of a field.
pub(crate) fn value(document: &Document, field: &str) -> Option<Value> {
    let mut names = field.split('.');
    let first = document.get(names.next().unwrap())?;
    names
        .try_fold(first, |value, name| value.get(name))
        .cloned()
}

/// What differs between two lists: from where to where in the old one, and what stands there now.
type Parts = BTreeMap<(usize, usize), Vec<Value>>;

/// `base` with what differs in both lists; `None` where the parts overlap or touch, or where one is
/// no list.
fn merge(base: Option<&Value>, back: Option<&Value>, now: Option<&Value>) -> Option<Value> {
    let [base, back, now] = [base, back, now].map(|list| list?.as_array());
    let (base, back, now) = (base?, back?, now?);
    let (back, theirs) = (parts(base, back), parts(base, now));
    if back
        .iter()
        .all(|part| theirs.iter().any(|their| their == part))
    {
        return Some(Value::Array(now.clone()));
    }
    for (from, to) in back.keys() {
        if theirs.keys().any(|(start, end)| from <= end && start <= to) {
            return None;
        }
    }
    let all: Parts = back.into_iter().chain(theirs).collect();
    let mut merged = base.clone();
    for ((from, to), with) in all.into_iter().rev() {
        merged.splice(from..to, with);
    }
    Some(Value::Array(merged))
}

/// No element occurs twice, and the common ones are in the same order.
fn parts(old: &[Value], new: &[Value]) -> Parts {
    let (mut parts, mut from, mut start) = (Parts::new(), 0, 0);
    let common = old
        .iter()
        .enumerate()
        .filter(|(_, value)| new.contains(value));
    let ends = common.map(|(at, value)| {
        let there = new.iter().position(|other| other == value).unwrap();
        (at, there)
    });
    for (to, end) in ends.chain([(old.len(), new.len())]) {
        assert!(end >= start, "{old:?} and {new:?} differ in their order");
        if to > from || end > start {
            parts.insert((from, to), new[start..end].to_vec());
        }
        (from, start) = (to + 1, end + 1);
    }
    parts
}

//! The changes that lead to a document, as far as its log explains them, and which of them count.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    effect::Effect,
    fate::{Fate, Fates, Reach},
    list,
    state::{State, TIMES, differences, set, value_at},
    step::{Item, Role, Step, explained},
};
use crate::domain::{
    audit::StoredEntry,
    field_path::{is_within, overlap},
    number::is_same_member,
    record::Record,
};

/// How often a list is merged, one later change after another. Beyond that it is one value.
const MAX_MERGES: usize = 100;

/// The changes that lead to a document. Older ones than the first lead to `base`.
#[derive(Debug)]
pub struct Timeline<'a> {
    pub(super) current: Option<&'a Record>,
    pub(super) entries: Vec<&'a StoredEntry>,
    pub(super) items: Vec<Item>,
    /// The numbers of the entries with an audit id.
    numbers: BTreeMap<&'a str, Vec<usize>>,
    effect: Effect,
}

/// What a document would be if some entries had never been made.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) fates: Fates,
    pub(super) state: State,
}

impl<'a> Timeline<'a> {
    /// The timeline of a document, from its entries, newest first. Entries that do not join up are
    /// left out.
    #[must_use]
    pub fn of(current: Option<&'a Record>, newest_first: &'a [StoredEntry]) -> Self {
        let (base, steps) = explained(current, newest_first);
        let mut state = base.clone();
        let mut timeline = Self {
            current,
            entries: Vec::new(),
            items: Vec::new(),
            numbers: BTreeMap::new(),
            effect: Effect::new(base),
        };
        for step in steps {
            timeline.add(&step, &mut state);
        }
        timeline
    }

    /// The entry with this audit id, if it is explained.
    #[must_use]
    pub fn entry(&self, audit_id: &str) -> Option<&'a StoredEntry> {
        let number = self.numbers.get(audit_id)?.first()?;
        self.entries.get(*number).copied()
    }

    /// The numbers of the entries with these audit ids.
    pub(super) fn numbers_of(&self, audit_ids: &BTreeSet<String>) -> BTreeSet<usize> {
        let numbers = audit_ids.iter();
        let numbers = numbers.filter_map(|id| self.numbers.get(id.as_str()));
        numbers.flatten().copied().collect()
    }

    /// Adds a step; `state` is the document before it, and then the one after it.
    fn add(&mut self, step: &Step<'a>, state: &mut State) {
        let reverts: BTreeSet<String> = step.entry.reverts().map(ToOwned::to_owned).collect();
        let before = (!reverts.is_empty()).then(|| state.clone());
        step.apply(state);
        let number = self.entries.len();
        let items = step.items(number, state);
        self.effect.begin_entry();
        match before {
            Some(before) => self.add_undo(&reverts, items, &before, state),
            None => self.add_changes(items),
        }
        if let Some(id) = step.entry.text_of("id") {
            self.numbers.entry(id).or_default().push(number);
        }
        self.entries.push(step.entry);
    }

    /// Adds items that are in effect, and leave all others in effect.
    fn add_changes(&mut self, items: Vec<Item>) {
        for item in &items {
            if counts(item, Fate::Stands, self.effect.state()) {
                self.effect.set(&item.path, item.new.as_ref());
            }
        }
        self.items.extend(items);
    }

    /// Adds the items of an undo: those that it undid do not count from here on, where its fields
    /// went back as they would now. Otherwise it is a change like any other.
    fn add_undo(
        &mut self,
        reverts: &BTreeSet<String>,
        items: Vec<Item>,
        before: &State,
        after: &State,
    ) {
        let undone = self.numbers_of(reverts);
        let (server_set, content): (Vec<Item>, Vec<Item>) = items
            .into_iter()
            .partition(|item| item.role == Role::ServerSet);
        let mut added = self.undo_items(&undone, &content, before, after);
        added.extend(server_set);
        added.extend(times_of(self.entries.len(), after));
        let count = self.items.len();
        self.items.extend(added);
        let fates = Fates::of(&self.items, &BTreeSet::new(), Reach::From(count));
        let state = self.replay(&fates);
        if differences(&state, after).is_empty() {
            let reached = self.items.get(fates.first()..).unwrap_or_default();
            let paths = topmost(reached.iter().map(|item| item.path.as_str()));
            self.effect.replace(state, paths);
        } else {
            self.items.truncate(count);
            self.add_changes(content);
        }
    }

    /// The items of an undo of these entries, whose changes are `content`.
    fn undo_items(
        &self,
        undone: &BTreeSet<usize>,
        content: &[Item],
        before: &State,
        after: &State,
    ) -> Vec<Item> {
        let fates = self.without(undone, Reach::From(self.items.len())).fates;
        let gone = fates
            .of_each(&self.items)
            .filter(|(_, item, fate)| match fate {
                Fate::Gone => true,
                Fate::GoneBefore => undone.contains(&item.entry),
                Fate::Kept(last) => self.goes_back(&fates, &item.path, *last),
                Fate::Stands | Fate::Merged => false,
            });
        let gone: BTreeSet<&str> = gone.map(|(_, item, _)| item.path.as_str()).collect();
        let own = content.iter().map(|item| item.path.as_str());
        let mut added = Vec::new();
        for top in topmost(own.chain(gone.iter().copied())) {
            let own = content.iter().filter(|item| is_within(&item.path, top));
            let own: Vec<Item> = own.cloned().collect();
            let is_within_top = |item: &Item| is_within(&item.path, top);
            let mut merged = fates.of_each(&self.items);
            let is_merged =
                merged.any(|(_, item, fate)| fate == Fate::Merged && is_within_top(item));
            match own.first() {
                Some(first) if !is_merged && gone.iter().any(|path| is_within(path, top)) => {
                    let cancelled = fates.of_each(&self.items).filter(|(_, item, _)| {
                        undone.contains(&item.entry)
                            && item.role != Role::ServerSet
                            && is_within_top(item)
                    });
                    added.push(Item {
                        entry: first.entry,
                        path: top.to_owned(),
                        old: value_at(before, top).cloned(),
                        new: value_at(after, top).cloned(),
                        role: Role::Undo(cancelled.map(|(number, ..)| number).collect()),
                    });
                }
                _ if is_merged => added.extend(own.into_iter().map(|item| Item {
                    role: Role::Merge,
                    ..item
                })),
                _ => added.extend(own),
            }
        }
        added
    }

    /// Whether the field at `path`, which the item `last` keeps, goes back all the same with a later
    /// change of it.
    pub(super) fn goes_back(&self, fates: &Fates, path: &str, last: usize) -> bool {
        let later = fates.of_each_from(last + 1, &self.items);
        let mut going = later.filter(|(.., fate)| matches!(fate, Fate::Gone | Fate::Merged));
        going.any(|(_, item, _)| overlap(&item.path, path))
    }

    /// The document if these entries had never been made.
    pub(super) fn without(&self, undone: &BTreeSet<usize>, reach: Reach) -> Outcome {
        let mut fates = Fates::of(&self.items, undone, reach);
        let mut state = self.replay(&fates);
        let kept = fates.of_each(&self.items);
        let kept: BTreeSet<&str> = kept
            .filter(|(.., fate)| matches!(fate, Fate::Kept(_)))
            .map(|(_, item, _)| item.path.as_str())
            .collect();
        for path in kept {
            let list = self.merged_list(undone, &fates, &state, path, MAX_MERGES, reach);
            let Some(list) = list else {
                continue;
            };
            let changes = !is_same_member(Some(&list), value_at(&state, path));
            set(&mut state, path, Some(&list));
            let merged = if changes {
                Fate::Merged
            } else {
                Fate::GoneBefore
            };
            fates.merge(path, &self.items, merged);
        }
        Outcome { fates, state }
    }

    /// The document that the items lead to that stay in effect.
    fn replay(&self, fates: &Fates) -> State {
        let mut state = self.effect.after(match self.items.get(fates.first()) {
            _ if fates.first() == 0 => 0,
            Some(item) => item.entry,
            None => self.entries.len(),
        });
        for (_, item, fate) in fates.of_each(&self.items) {
            if counts(item, fate, &state) {
                set(&mut state, &item.path, item.new.as_ref());
            }
        }
        state
    }

    /// The list at `path` with the changes that are to be undone taken out of it, where later changes
    /// of the list allow it: the base is the list after the last of them, one side is the list to go
    /// back to, the other is the list now.
    fn merged_list(
        &self,
        undone: &BTreeSet<usize>,
        fates: &Fates,
        now: &State,
        path: &str,
        merges: usize,
        reach: Reach,
    ) -> Option<Value> {
        let merges = merges.checked_sub(1)?;
        let (last, item, _) = fates
            .of_each(&self.items)
            .rfind(|(_, item, fate)| item.path == path && matches!(fate, Fate::Kept(_)))?;
        // Looked at first: to go back costs much more.
        let (base, now) = (
            item.new.as_ref()?.as_array()?,
            value_at(now, path)?.as_array()?,
        );
        let mut later = fates.of_each_from(last + 1, &self.items);
        if later.any(|(_, item, fate)| {
            item.role.is_change()
                && fate == Fate::Stands
                && item.path != path
                && overlap(&item.path, path)
        }) {
            return None;
        }
        let first = self.items.get(..=last)?;
        let before = Fates::of(first, undone, reach);
        let mut back = self.replay(&before);
        if let Some(list) = self.merged_list(undone, &before, &back, path, merges, reach) {
            set(&mut back, path, Some(&list));
        }
        list::merge(base, value_at(&back, path)?.as_array()?, now).map(Value::Array)
    }
}

/// Whether an item changes the document that the items before it lead to.
fn counts(item: &Item, fate: Fate, before: &State) -> bool {
    match (&item.role, fate) {
        (Role::Content | Role::Merge, Fate::Stands | Fate::Kept(_)) => true,
        (Role::Content | Role::Merge, Fate::Gone | Fate::GoneBefore | Fate::Merged)
        | (Role::Undo(_), _) => false,
        // The server replaces what is there, and adds its times.
        (Role::ServerSet, _) => match item.path.as_str() {
            "metadata" => !value_at(before, "metadata").is_some_and(Value::is_object),
            path => item.old.is_none() || value_at(before, path).is_some(),
        },
    }
}

/// The times in a document's `metadata`, which an undo leaves even where it removes the rest.
fn times_of(entry: usize, state: &State) -> Option<Item> {
    let mut times = value_at(state, "metadata")?.as_object()?.clone();
    times.retain(|name, _| TIMES.contains(&name.as_str()));
    Some(Item {
        entry,
        path: "metadata".to_owned(),
        old: None,
        new: Some(Value::Object(times)),
        role: Role::ServerSet,
    })
}

/// The paths that are not below another one.
pub(super) fn topmost<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let sorted: BTreeSet<&str> = paths.collect();
    let mut topmost: Vec<&str> = Vec::new();
    for path in sorted {
        if !topmost.iter().any(|above| is_within(path, above)) {
            topmost.push(path);
        }
    }
    topmost
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::kind::{DocumentKey, Kind};

    /// A document with `count` entries. Every second one undoes the one before it, or all but the
    /// first do, each the one before it.
    fn history(count: usize, is_undo: fn(usize) -> bool) -> (Record, Vec<StoredEntry>) {
        let titles = ["one", "two"];
        let document = |entry: usize| json!({ "id": "a", "title": titles[(entry + 1) % 2] });
        let text = document(count - 1).to_string();
        let record = Record::parse(DocumentKey::new(Kind::Project, "a"), text).unwrap();
        let version = |entry: usize| match entry {
            last if last == count => record.version().to_string(),
            entry => format!("version {entry}"),
        };
        let entry = |entry: usize| {
            let reverts: Vec<String> = is_undo(entry)
                .then(|| (entry - 1).to_string())
                .into_iter()
                .collect();
            let change = json!({ "field": "title", "oldValue": titles[entry % 2], "newValue": titles[(entry + 1) % 2] });
            let metadata = json!({ "versionBefore": version(entry), "versionAfter": version(entry + 1), "reverts": reverts });
            let entry =
                json!({ "id": entry.to_string(), "changes": [change], "metadata": metadata });
            StoredEntry::parse(entry.to_string())
        };
        let newest_first = (0..count).rev().map(entry).collect();
        (record.clone(), newest_first)
    }

    #[test]
    fn planning_looks_at_what_an_undo_reaches_and_not_at_the_whole_history() {
        const ENTRIES: usize = 200;
        for is_undo in [|entry| entry % 2 == 1, |entry| entry > 0] {
            let (record, log) = history(ENTRIES, is_undo);
            let timeline = Timeline::of(Some(&record), &log);
            assert_eq!(timeline.entries.len(), ENTRIES);

            let looked_at = |entry: usize| {
                let items = timeline.items.iter().take_while(|item| item.entry <= entry);
                let items: Vec<Item> = items.cloned().collect();
                let own = items.partition_point(|item| item.entry < entry);
                [[].into(), [entry].into()].map(|undone| {
                    items.len() - Fates::of(&items, &undone, Reach::From(own)).first()
                })
            };
            let looked_at: usize = (0..ENTRIES).flat_map(looked_at).sum();

            assert!(looked_at <= 10 * ENTRIES, "{looked_at} for {ENTRIES}");
        }
    }
}

//! The changes that lead to a document, as far as its log explains them, and which of them count.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
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
    base: State,
}

/// What becomes of an item when some entries are undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It stays in effect.
    Stands,
    /// It is undone, and no later change builds on it.
    Gone,
    /// An earlier undo has undone it already.
    GoneBefore,
    /// It is to be undone, but stays: this item is the last change of the field.
    Kept(usize),
    /// It is undone within a list that was changed later.
    Merged,
}

/// What a document would be if some entries had never been made.
#[derive(Debug)]
pub(super) struct Outcome {
    /// One for each item.
    pub(super) fates: Vec<Fate>,
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
            base,
        };
        for step in steps {
            timeline.add(&step, &mut state);
        }
        timeline
    }

    /// The entry with this audit id, if it is explained.
    #[must_use]
    pub fn entry(&self, audit_id: &str) -> Option<&'a StoredEntry> {
        let mut entries = self.entries.iter();
        entries
            .find(|entry| entry.text_of("id") == Some(audit_id))
            .copied()
    }

    /// The numbers of the entries with these audit ids.
    pub(super) fn numbers_of(&self, audit_ids: &BTreeSet<String>) -> BTreeSet<usize> {
        let is_named = |entry: &StoredEntry| {
            let id = entry.text_of("id");
            id.is_some_and(|id| audit_ids.contains(id))
        };
        let numbered = self.entries.iter().enumerate();
        numbered
            .filter(|(_, entry)| is_named(entry))
            .map(|(number, _)| number)
            .collect()
    }

    /// Adds a step; `state` is the document before it, and then the one after it.
    fn add(&mut self, step: &Step<'a>, state: &mut State) {
        let reverts: BTreeSet<String> = step.entry.reverts().map(ToOwned::to_owned).collect();
        let before = (!reverts.is_empty()).then(|| state.clone());
        step.apply(state);
        let items = step.items(self.entries.len(), state);
        match before {
            Some(before) => self.add_undo(&reverts, items, &before, state),
            None => self.items.extend(items),
        }
        self.entries.push(step.entry);
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
        let fates = self.without(&undone).fates;
        let (server_set, content): (Vec<Item>, Vec<Item>) = items
            .into_iter()
            .partition(|item| item.role == Role::ServerSet);
        let there = || self.items.iter().zip(&fates).enumerate();
        let gone = there().filter(|(_, (item, fate))| match fate {
            Fate::Gone => true,
            Fate::GoneBefore => undone.contains(&item.entry),
            Fate::Kept(last) => self.goes_back(&fates, &item.path, *last),
            Fate::Stands | Fate::Merged => false,
        });
        let gone = gone.map(|(_, (item, _))| item.path.as_str());
        let own = content.iter().map(|item| item.path.as_str());
        let mut added = Vec::new();
        for top in topmost(own.chain(gone.clone())) {
            let own = content.iter().filter(|item| is_within(&item.path, top));
            let own: Vec<Item> = own.cloned().collect();
            let is_within_top = |item: &Item| is_within(&item.path, top);
            let is_merged =
                there().any(|(_, (item, fate))| *fate == Fate::Merged && is_within_top(item));
            match own.first() {
                Some(first) if !is_merged && gone.clone().any(|path| is_within(path, top)) => {
                    let cancelled = there().filter(|(_, (item, _))| {
                        undone.contains(&item.entry)
                            && item.role != Role::ServerSet
                            && is_within_top(item)
                    });
                    added.push(Item {
                        entry: first.entry,
                        path: top.to_owned(),
                        old: value_at(before, top).cloned(),
                        new: value_at(after, top).cloned(),
                        role: Role::Undo(cancelled.map(|(number, _)| number).collect()),
                    });
                }
                _ if is_merged => added.extend(own.into_iter().map(|item| Item {
                    role: Role::Merge,
                    ..item
                })),
                _ => added.extend(own),
            }
        }
        added.extend(server_set);
        added.extend(times_of(self.entries.len(), after));
        let count = self.items.len();
        self.items.extend(added);
        if !differences(
            &self.replay(&self.fates(self.items.len(), &BTreeSet::new())),
            after,
        )
        .is_empty()
        {
            self.items.truncate(count);
            self.items.extend(content);
        }
    }

    /// Whether the field at `path`, which the item `last` keeps, goes back all the same with a later
    /// change of it.
    pub(super) fn goes_back(&self, fates: &[Fate], path: &str, last: usize) -> bool {
        let later = self.items.iter().zip(fates).skip(last + 1);
        let mut going = later.filter(|(_, fate)| matches!(fate, Fate::Gone | Fate::Merged));
        going.any(|(item, _)| overlap(&item.path, path))
    }

    /// The document if these entries had never been made.
    pub(super) fn without(&self, undone: &BTreeSet<usize>) -> Outcome {
        let mut fates = self.fates(self.items.len(), undone);
        let mut state = self.replay(&fates);
        let kept = self.items.iter().zip(&fates);
        let kept: BTreeSet<&str> = kept
            .filter(|(_, fate)| matches!(fate, Fate::Kept(_)))
            .map(|(item, _)| item.path.as_str())
            .collect();
        for path in kept {
            let list = self.merged_list(undone, &fates, &state, path, MAX_MERGES);
            let Some(list) = list else {
                continue;
            };
            let changes = !is_same_member(Some(&list), value_at(&state, path));
            set(&mut state, path, Some(&list));
            let merged_fate = if changes {
                Fate::Merged
            } else {
                Fate::GoneBefore
            };
            let there = self.items.iter().zip(&mut fates);
            for (_, fate) in there.filter(|(item, _)| item.path == path) {
                if matches!(fate, Fate::Kept(_)) {
                    *fate = merged_fate;
                }
            }
        }
        Outcome { fates, state }
    }

    /// What becomes of each of the first `count` items, as if there were no others. Looked at from the
    /// newest to the oldest: an item that is to be undone stays if a later one that stays overlaps
    /// it.
    pub(super) fn fates(&self, count: usize, undone: &BTreeSet<usize>) -> Vec<Fate> {
        let mut fates = Vec::with_capacity(count);
        let mut standing = Standing::default();
        // For each item the undo in effect that undid it.
        let mut cancelled: BTreeMap<usize, usize> = BTreeMap::new();
        for (number, item) in self.items.iter().enumerate().take(count).rev() {
            let is_undone = undone.contains(&item.entry);
            // What came after an earlier undo builds on it.
            let (before, gone) = match cancelled.get(&number) {
                Some(undo) => (*undo, Fate::GoneBefore),
                None => (count, Fate::Gone),
            };
            let fate = if item.role == Role::ServerSet || !is_undone && gone == Fate::Gone {
                Fate::Stands
            } else {
                match standing.last_over(&item.path, before) {
                    None => gone,
                    Some(last) if is_undone => Fate::Kept(last),
                    Some(_) => Fate::Stands,
                }
            };
            fates.push(fate);
            match (&item.role, fate) {
                (_, Fate::Gone | Fate::GoneBefore | Fate::Merged) | (Role::ServerSet, _) => {}
                (Role::Undo(items), _) => {
                    cancelled.extend(items.iter().map(|item| (*item, number)));
                }
                (Role::Content | Role::Merge, Fate::Stands) => {
                    standing.add(&item.path, number, number);
                }
                (Role::Content | Role::Merge, Fate::Kept(last)) => {
                    standing.add(&item.path, number, last);
                }
            }
        }
        fates.reverse();
        fates
    }

    /// The document that the items lead to that stay in effect.
    pub(super) fn replay(&self, fates: &[Fate]) -> State {
        let mut state = self.base.clone();
        for (item, fate) in self.items.iter().zip(fates) {
            let counts = match (&item.role, fate) {
                (Role::Content | Role::Merge, Fate::Stands | Fate::Kept(_)) => true,
                (Role::Content | Role::Merge, Fate::Gone | Fate::GoneBefore | Fate::Merged)
                | (Role::Undo(_), _) => false,
                // The server replaces what is there, and adds its times.
                (Role::ServerSet, _) => match item.path.as_str() {
                    "metadata" => !value_at(&state, "metadata").is_some_and(Value::is_object),
                    path => item.old.is_none() || value_at(&state, path).is_some(),
                },
            };
            if counts {
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
        fates: &[Fate],
        now: &State,
        path: &str,
        merges: usize,
    ) -> Option<Value> {
        let merges = merges.checked_sub(1)?;
        let items = || self.items.iter().zip(fates).enumerate();
        let (last, (item, _)) = items()
            .rfind(|(_, (item, fate))| item.path == path && matches!(fate, Fate::Kept(_)))?;
        // Looked at first: to go back costs much more.
        let (base, now) = (
            item.new.as_ref()?.as_array()?,
            value_at(now, path)?.as_array()?,
        );
        let mut later = items().skip(last + 1).map(|(_, later)| later);
        if later.any(|(item, fate)| {
            item.role.is_change()
                && *fate == Fate::Stands
                && item.path != path
                && overlap(&item.path, path)
        }) {
            return None;
        }
        let before = self.fates(last + 1, undone);
        let mut back = self.replay(&before);
        if let Some(list) = self.merged_list(undone, &before, &back, path, merges) {
            set(&mut back, path, Some(&list));
        }
        list::merge(base, value_at(&back, path)?.as_array()?, now).map(Value::Array)
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

/// The items that stay, as far as they were looked at, from the newest on.
#[derive(Default)]
struct Standing<'a> {
    /// For each path the oldest of them, and the last change that keeps the field.
    paths: BTreeMap<&'a str, (usize, usize)>,
}

impl<'a> Standing<'a> {
    fn add(&mut self, path: &'a str, number: usize, last: usize) {
        let (oldest, newest) = self.paths.entry(path).or_insert((number, last));
        *oldest = number;
        *newest = last.max(*newest);
    }

    /// The last change that keeps the field at `path`, if there is a change before the item `before`
    /// that does.
    fn last_over(&self, path: &str, before: usize) -> Option<usize> {
        let over = self
            .paths
            .iter()
            .filter(|(other, (oldest, _))| *oldest < before && overlap(other, path));
        over.map(|(_, (_, last))| *last).max()
    }
}

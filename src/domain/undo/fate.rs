//! What becomes of the changes of a document when some entries are undone.

use std::collections::{BTreeMap, BTreeSet};

use super::step::{Item, Role};
use crate::domain::field_path::overlap;

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

/// Which items are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// All, so that members come back in the order in which they were.
    All,
    /// Those from this number on, and the older ones that what is undone reaches; all others are as
    /// they were before. So a history with many undos is planned in little time.
    From(usize),
}

/// What becomes of the items from the first one on that was looked at. None of the older ones is
/// undone.
#[derive(Debug)]
pub(super) struct Fates {
    first: usize,
    fates: Vec<Fate>,
}

impl Fates {
    /// What becomes of each of these items. Looked at from the newest to the oldest: an item that is to
    /// be undone stays if a later one that stays overlaps it.
    pub(super) fn of(items: &[Item], undone: &BTreeSet<usize>, reach: Reach) -> Self {
        let count = items.len();
        let start_of = |entry: usize| items.partition_point(|item| item.entry < entry);
        let mut first = match reach {
            Reach::All => 0,
            Reach::From(number) => {
                let oldest = undone.first().map_or(count, |entry| start_of(*entry));
                oldest.min(number)
            }
        };
        let mut fates = Vec::new();
        let mut standing = Standing::default();
        // For each item the undo in effect that undid it.
        let mut cancelled: BTreeMap<usize, usize> = BTreeMap::new();
        for (number, item) in items.iter().enumerate().rev() {
            if number < first {
                break;
            }
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
                (Role::Undo(undone), _) => {
                    let oldest = undone.iter().min().and_then(|item| items.get(*item));
                    first = first.min(oldest.map_or(first, |item| start_of(item.entry)));
                    cancelled.extend(undone.iter().map(|item| (*item, number)));
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
        Self { first, fates }
    }

    /// The number of the first item that was looked at.
    pub(super) fn first(&self) -> usize {
        self.first
    }

    /// Those of the items that were looked at, each with its number and what becomes of it.
    pub(super) fn of_each<'a>(
        &self,
        items: &'a [Item],
    ) -> impl DoubleEndedIterator<Item = (usize, &'a Item, Fate)> {
        self.of_each_from(self.first, items)
    }

    /// The same, from this number on.
    pub(super) fn of_each_from<'a>(
        &self,
        number: usize,
        items: &'a [Item],
    ) -> impl DoubleEndedIterator<Item = (usize, &'a Item, Fate)> {
        let skipped = number.saturating_sub(self.first);
        let first = self.first + skipped;
        let fates = self.fates.get(skipped..).unwrap_or_default();
        let items = items.get(first..).unwrap_or_default();
        let both = items.iter().zip(fates).enumerate();
        both.map(move |(offset, (item, fate))| (first + offset, item, *fate))
    }

    /// Replaces the fate of the kept items at `path`: they are merged.
    pub(super) fn merge(&mut self, path: &str, items: &[Item], merged: Fate) {
        let items = items.get(self.first..).unwrap_or_default();
        let both = items.iter().zip(&mut self.fates);
        for (_, fate) in both.filter(|(item, _)| item.path == path) {
            if matches!(fate, Fate::Kept(_)) {
                *fate = merged;
            }
        }
    }
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

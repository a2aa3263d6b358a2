//! The edit that takes a change of a text back.

use std::iter;

use serde_json::Value;

use super::{Edit, Op, find::occurrences_in};

/// Looking for the smallest part compares no more characters. A text that does not repeat itself needs
/// few more than it has.
const MAX_COMPARED_CHARS: usize = 500_000;

/// The edit that turns the text `new` at `path` back into `old`. It finds the smallest part of `new`
/// that holds the difference and occurs once. `None` if that, or what was there before, has more than
/// `max_chars` characters, or if the text repeats itself so much that finding it takes too long.
#[must_use]
pub fn edit_to_take_back(path: &str, old: &str, new: &str, max_chars: usize) -> Option<Edit> {
    // Nothing can be found in an empty text.
    if new.is_empty() {
        return None;
    }
    let texts = Difference::between(old, new);
    let changed = texts
        .added
        .chars()
        .count()
        .max(texts.removed.chars().count());
    let room = max_chars.checked_sub(changed)?;
    let (left, right) = texts.smallest_context(room)?;
    let part = |changed: &str| Value::String([left, changed, right].concat());
    Some(Edit {
        path: path.to_owned(),
        op: Op::Find,
        value: part(texts.added),
        with: Some(part(texts.removed)),
        at: None,
    })
}

/// Two texts, taken apart: what they begin with, what one has and the other has not, and what they
/// end with.
struct Difference<'a> {
    new: &'a str,
    before: &'a str,
    removed: &'a str,
    added: &'a str,
    after: &'a str,
}

impl<'a> Difference<'a> {
    fn between(old: &'a str, new: &'a str) -> Self {
        let bytes = |equal: usize, chars: &mut dyn Iterator<Item = char>| -> usize {
            chars.take(equal).map(char::len_utf8).sum()
        };
        let start = bytes(common(old.chars(), new.chars()), &mut new.chars());
        let (before, new_rest) = new.split_at(start);
        let (_, old_rest) = old.split_at(start);
        let equal = common(old_rest.chars().rev(), new_rest.chars().rev());
        let end = bytes(equal, &mut new_rest.chars().rev());
        let (added, after) = new_rest.split_at(new_rest.len() - end);
        let (removed, _) = old_rest.split_at(old_rest.len() - end);
        Self {
            new,
            before,
            removed,
            added,
            after,
        }
    }

    /// The shortest texts around the difference, together no longer than `room` characters, with
    /// which it occurs once in the new text and is not empty.
    fn smallest_context(&self, room: usize) -> Option<(&'a str, &'a str)> {
        let shared = self.longest_shared_after(room)?;
        let before = ends_of(self.before.chars().rev());
        let after = ends_of(self.after.chars());
        let pairs = before
            .zip(shared)
            .enumerate()
            .filter_map(|(left, (bytes, shared))| {
                // One character more than what every other place shares.
                let right = shared.map_or(0, |shared| shared + 1);
                (left + right <= room).then_some((left + right, bytes, right))
            });
        let feasible = pairs.filter_map(|(chars, left, right)| {
            let right = after.clone().nth(right)?;
            Some((chars, self.before.len() - left, right))
        });
        let (_, start, end) = feasible.min_by_key(|(chars, ..)| *chars)?;
        Some((self.before.get(start..)?, self.after.get(..end)?))
    }

    /// For each number of characters before the difference: how many after it the new text has in
    /// common with another place that also has those before it; `None` if there is no such place.
    /// Nothing at all if it takes too long.
    fn longest_shared_after(&self, room: usize) -> Option<Vec<Option<usize>>> {
        let mut shared = vec![None; room + 1];
        let mut compared = 0;
        for start in self.other_places() {
            let (before, rest) = self.new.split_at(start);
            let after = rest.get(self.added.len()..).unwrap_or_default();
            let left = common(before.chars().rev(), self.before.chars().rev().take(room));
            let right = common(after.chars(), self.after.chars().take(room));
            compared += left + right + 1;
            if compared > MAX_COMPARED_CHARS {
                return None;
            }
            if let Some(longest) = shared.get_mut(left) {
                *longest = (*longest).max(Some(right));
            }
        }
        for left in (0..room).rev() {
            let more = shared.get(left + 1).copied().flatten();
            if let Some(longest) = shared.get_mut(left) {
                *longest = (*longest).max(more);
            }
        }
        Some(shared)
    }

    /// Where else in the new text the added part occurs.
    fn other_places(&self) -> Vec<usize> {
        let here = self.before.len();
        let all: Vec<usize> = if self.added.is_empty() {
            ends_of(self.new.chars()).collect()
        } else {
            occurrences_in(self.new, self.added)
                .map(|range| range.start)
                .collect()
        };
        all.into_iter().filter(|start| *start != here).collect()
    }
}

/// How many characters two texts begin with in common.
fn common(one: impl Iterator<Item = char>, other: impl Iterator<Item = char>) -> usize {
    one.zip(other)
        .take_while(|(one, other)| one == other)
        .count()
}

/// How many bytes the first 0, 1, 2, … characters have.
fn ends_of(chars: impl Iterator<Item = char> + Clone) -> impl Iterator<Item = usize> + Clone {
    let ends = chars.scan(0, |bytes, c| {
        *bytes += c.len_utf8();
        Some(*bytes)
    });
    iter::once(0).chain(ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deletion_from_a_long_text_that_repeats_itself_offers_no_edit() {
        let value = |before: &str| {
            let new = format!("{before}b");
            let edit = edit_to_take_back("challenge", &format!("{before}xb"), &new, 200)?;
            edit.value.as_str().map(str::to_owned)
        };
        let numbers: Vec<String> = (0..40_000).map(|number| number.to_string()).collect();

        assert_eq!(value(&numbers.join(" ")).as_deref(), Some("b"));
        assert_eq!(value(&"a".repeat(1_000)).as_deref(), Some("b"));
        assert_eq!(value(&"a".repeat(240_000)), None);
    }
}

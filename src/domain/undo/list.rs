//! Merging two changes of a list, element by element (diff3).

use std::{collections::HashMap, ops::Range};

use serde_json::Value;
use similar::{Algorithm, DiffOp, capture_diff_slices};

use crate::domain::number::canonical_text;

/// Comparing takes up to the product of the lengths. Longer lists are not compared, but count as one
/// value; those of a real site have some dozen elements.
const MAX_COMPARISONS: usize = 4_000_000;

/// A part of a list that was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    /// Where it was.
    at: Range<usize>,
    /// What stands there now, each element by its number.
    with: Vec<usize>,
}

impl Part {
    fn touches(&self, other: &Self) -> bool {
        self.at.start <= other.at.end && other.at.start <= self.at.end
    }
}

/// `base` with the changes that lead from it to `one` and those that lead to `other`; `None` where
/// changed parts overlap or touch. What changed in the same way in both is changed once, if `one`
/// has no other changes.
pub(super) fn merge(base: &[Value], one: &[Value], other: &[Value]) -> Option<Vec<Value>> {
    let mut numbers = Numbers::default();
    // Numbers stay as they are written in `other`.
    let [other, base, one] = [other, base, one].map(|list| numbers.of(list));
    let (ours, theirs) = (parts(&base, &one)?, parts(&base, &other)?);
    if ours.iter().all(|part| theirs.contains(part)) {
        return Some(numbers.values(&other));
    }
    let touch = |part: &Part| theirs.iter().any(|their| their.touches(part));
    if ours.iter().any(touch) {
        return None;
    }
    let mut all = [ours, theirs].concat();
    all.sort_by_key(|part| part.at.start);
    let mut merged = base;
    for part in all.into_iter().rev() {
        merged.splice(part.at, part.with);
    }
    Some(numbers.values(&merged))
}

/// The parts of `old` that differ in `new`; `None` if the lists are too long.
fn parts(old: &[usize], new: &[usize]) -> Option<Vec<Part>> {
    if old.len().saturating_mul(new.len()) > MAX_COMPARISONS {
        return None;
    }
    let changed = |operation: DiffOp| {
        let (tag, at, with) = operation.as_tag_tuple();
        (tag != similar::DiffTag::Equal).then(|| Part {
            at,
            with: new.get(with).unwrap_or_default().to_vec(),
        })
    };
    let operations = capture_diff_slices(Algorithm::Myers, old, new);
    let mut parts: Vec<Part> = Vec::new();
    for part in operations.into_iter().filter_map(changed) {
        match parts.last_mut() {
            Some(last) if last.at.end == part.at.start => {
                last.at.end = part.at.end;
                last.with.extend(part.with);
            }
            _ => parts.push(part),
        }
    }
    Some(parts)
}

/// Equal elements have the same number, however they are written.
#[derive(Default)]
struct Numbers {
    numbers: HashMap<String, usize>,
    values: Vec<Value>,
}

impl Numbers {
    fn of(&mut self, list: &[Value]) -> Vec<usize> {
        let number = |value: &Value| {
            let next = self.values.len();
            let number = *self
                .numbers
                .entry(canonical_text(value.clone()))
                .or_insert(next);
            if number == next {
                self.values.push(value.clone());
            }
            number
        };
        list.iter().map(number).collect()
    }

    fn values(&self, numbers: &[usize]) -> Vec<Value> {
        let value = |number: &usize| self.values.get(*number).cloned();
        numbers.iter().filter_map(value).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list(text: &str) -> Vec<Value> {
        text.split_whitespace().map(|word| json!(word)).collect()
    }

    #[test]
    fn changes_that_neither_overlap_nor_touch_are_merged() {
        for (base, one, other, merged) in [
            ("x a b", "a b", "x a b y", Some("a b y")),
            ("a x b c", "a b c", "a x b d", Some("a b d")),
            ("a b c d e", "a B c d e", "a b c D e f", Some("a B c D e f")),
            // Nothing is between them.
            ("x a", "a", "x b", None),
            ("a b", "a b x", "a b y", None),
            ("a", "x a", "y a", None),
            ("x a b", "a b", "b", None),
            // The same change.
            ("x a b", "a b", "a b y", Some("a b y")),
            ("x a b z", "a b", "a b z", None),
            ("a", "a", "b", Some("b")),
            ("a b", "", "", Some("")),
        ] {
            assert_eq!(
                merge(&list(base), &list(one), &list(other)),
                merged.map(list),
                "{base} -> {one} | {other}"
            );
        }
    }

    #[test]
    fn equal_numbers_are_equal_elements() {
        let parse = |text: &str| serde_json::from_str::<Vec<Value>>(text).unwrap();

        let merged = merge(&parse("[0,1.0,2]"), &parse("[1,2]"), &parse("[0,1.00,2,3]"));

        assert_eq!(json!(merged).to_string(), "[1.00,2,3]");
    }

    #[test]
    fn long_lists_are_not_compared() {
        let long = |from: usize| -> Vec<Value> { (from..from + 2500).map(Value::from).collect() };

        assert_eq!(merge(&long(0), &long(5000), &long(10_000)), None);
    }
}

//! Where texts hold another one: exactly, or as it is typed on a plain keyboard.

use std::{iter, ops::Range};

use unicode_normalization::char::{decompose_canonical, is_combining_mark};

use crate::domain::{
    search::fold_char,
    text::{is_invisible, sanitize},
};

/// More occurrences are not counted.
pub(super) const MAX_COUNTED: usize = 100;

/// The nearest place is looked for with no more of what was to be found.
pub(super) const MAX_COMPARED_CHARS: usize = 200;
/// And in no more text, where each text counts for as much more as is compared with it.
const MAX_COMPARED_BYTES: usize = 64 * 1024;
/// And it has this many characters in common, or is none.
const MIN_COMMON_CHARS: usize = 4;
/// An error shows this many characters on each side of a place.
const MAX_SHOWN_CHARS: usize = 38;

/// Where a text occurs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Occurrence {
    /// The index of the text that holds it.
    pub(super) text: usize,
    pub(super) range: Range<usize>,
}

/// Where `wanted` occurs in the texts, also where it overlaps with itself. If it occurs nowhere,
/// characters that look alike are taken for equal, then those that cannot be seen are left out.
pub(super) fn occurrences(texts: &[&str], wanted: &str) -> Vec<Occurrence> {
    let exact = collect(texts, |text| occurrences_in(text, wanted));
    if !exact.is_empty() {
        return exact;
    }
    let folds: [Fold; 2] = [plain, plain_without_invisible];
    let mut found = folds.into_iter().map(|fold| {
        let wanted = Folded::of(wanted, fold).text;
        collect(texts, |text| {
            Folded::of(text, fold).origins_of(&wanted).into_iter()
        })
    });
    found.find(|found| !found.is_empty()).unwrap_or_default()
}

fn collect<'a, I: Iterator<Item = Range<usize>>>(
    texts: &[&'a str],
    find: impl Fn(&'a str) -> I,
) -> Vec<Occurrence> {
    let all = texts
        .iter()
        .enumerate()
        .flat_map(|(text, content)| find(content).map(move |range| Occurrence { text, range }));
    all.take(MAX_COUNTED + 1).collect()
}

/// Where a text that is not empty occurs in another one, also where it overlaps with itself. This is
/// the algorithm of Knuth, Morris and Pratt: it reads each text once, however often one occurs.
pub(super) fn occurrences_in(text: &str, wanted: &str) -> impl Iterator<Item = Range<usize>> {
    let wanted = if wanted.len() > text.len() {
        ""
    } else {
        wanted
    }
    .as_bytes();
    let borders = borders(wanted);
    let mut matched = 0;
    text.bytes().enumerate().filter_map(move |(at, byte)| {
        matched = matched_with(byte, matched, wanted, &borders);
        let end = at + 1;
        (matched > 0 && matched == wanted.len()).then(|| end - matched..end)
    })
}

/// For each beginning of a text: the length of the longest shorter beginning that it ends with.
fn borders(wanted: &[u8]) -> Vec<usize> {
    let (mut borders, mut border) = (Vec::with_capacity(wanted.len()), 0);
    for (at, byte) in wanted.iter().enumerate() {
        if at > 0 {
            border = matched_with(*byte, border, wanted, &borders);
        }
        borders.push(border);
    }
    borders
}

/// How many bytes of `wanted` are matched when one byte follows those that were.
fn matched_with(byte: u8, mut matched: usize, wanted: &[u8], borders: &[usize]) -> usize {
    while wanted.get(matched) != Some(&byte) {
        let Some(last) = matched.checked_sub(1) else {
            return 0;
        };
        matched = borders.get(last).copied().unwrap_or_default();
    }
    matched + 1
}

/// Appends what a character is compared as.
type Fold = fn(char, &mut String);

/// One kind of space (a line break is one), of apostrophe and of quotation mark, whatever the Unicode composition.
fn plain(c: char, folded: &mut String) {
    match c {
        '\t'..='\r'
        | '\u{85}'
        | '\u{a0}'
        | '\u{1680}'
        | '\u{2000}'..='\u{200f}'
        | '\u{2028}'
        | '\u{2029}'
        | '\u{202f}'
        | '\u{205f}'
        | '\u{2060}'
        | '\u{3000}'
        | '\u{feff}' => folded.push(' '),
        '`'
        | '´'
        | '\u{2b9}'
        | '\u{2bb}'..='\u{2bd}'
        | '\u{2018}'..='\u{201b}'
        | '\u{2032}'
        | '\u{2035}'
        | '\u{ff07}' => folded.push('\''),
        '«'
        | '»'
        | '\u{201c}'..='\u{201f}'
        | '\u{2033}'
        | '\u{2036}'
        | '\u{2039}'
        | '\u{203a}'
        | '\u{301d}'..='\u{301f}'
        | '\u{ff02}' => folded.push('"'),
        c => decompose_canonical(c, |part| folded.push(part)),
    }
}

fn plain_without_invisible(c: char, folded: &mut String) {
    if !is_invisible(c) {
        plain(c, folded);
    }
}

/// A text as it is compared, and where each part of it comes from.
struct Folded {
    text: String,
    letters: Vec<Letter>,
}

/// A character with the marks that follow it, or the two of a line break, which are never separated.
struct Letter {
    /// Where it begins in the folded text.
    at: usize,
    /// What it is in the original text.
    origin: Range<usize>,
}

impl Folded {
    fn of(original: &str, fold: Fold) -> Self {
        let mut text = String::with_capacity(original.len());
        let mut letters: Vec<Letter> = Vec::with_capacity(original.len());
        for (start, c) in original.char_indices() {
            let (at, end) = (text.len(), start + c.len_utf8());
            let ends_line_break =
                c == '\n' && original.get(..start).is_some_and(|it| it.ends_with('\r'));
            if !ends_line_break {
                fold(c, &mut text);
            }
            match letters.last_mut() {
                Some(last) if ends_line_break || is_combining_mark(c) => last.origin.end = end,
                _ if text.len() == at => {}
                _ => letters.push(Letter {
                    at,
                    origin: start..end,
                }),
            }
        }
        Self { text, letters }
    }

    /// Where a folded text occurs in the original one.
    fn origins_of(&self, wanted: &str) -> Vec<Range<usize>> {
        occurrences_in(&self.text, wanted)
            .filter_map(|range| self.origin_of(&range))
            .take(MAX_COUNTED + 1)
            .collect()
    }

    /// What a part of the folded text comes from, if it begins and ends with whole letters.
    fn origin_of(&self, range: &Range<usize>) -> Option<Range<usize>> {
        let number = |at| {
            self.letters
                .binary_search_by_key(at, |letter| letter.at)
                .ok()
        };
        let end = if range.end == self.text.len() {
            self.letters.len()
        } else {
            number(&range.end)?
        };
        let first = self.letters.get(number(&range.start)?)?;
        let last = self.letters.get(end.checked_sub(1)?)?;
        Some(first.origin.start..last.origin.end)
    }
}

/// The place in the texts that has most in common with `wanted`, whatever case and accents: the
/// index of the text, and where the two part.
pub(super) fn nearest_point(texts: &[&str], wanted: &str) -> Option<(usize, usize)> {
    let beginning: String = wanted.chars().take(MAX_COMPARED_CHARS).collect();
    let wanted = Folded::of(&beginning, fold_char).text;
    let rests: Vec<(&str, Vec<usize>)> = words_and_what_follows(&wanted)
        .map(|rest| (rest, ends_of_chars(rest)))
        .collect();
    let (mut room, mut longest, mut nearest) = (MAX_COMPARED_BYTES, MIN_COMMON_CHARS - 1, None);
    for (index, text) in texts.iter().enumerate() {
        let compared = text
            .get(..text.floor_char_boundary(room))
            .unwrap_or_default();
        room = room.saturating_sub(compared.len() + wanted.len());
        let folded = Folded::of(compared, fold_char);
        for (rest, ends) in &rests {
            let part = |chars: usize| ends.get(chars - 1).and_then(|end| rest.get(..*end));
            // Most words have no longer part in common.
            if !part(longest + 1).is_some_and(|part| folded.text.contains(part)) {
                continue;
            }
            longest = ends.partition_point(|end| {
                rest.get(..*end)
                    .is_some_and(|part| folded.text.contains(part))
            });
            let common = part(longest).unwrap_or_default();
            let start = folded.text.find(common).unwrap_or_default();
            let parted = folded
                .letters
                .partition_point(|letter| letter.at < start + common.len());
            let point = folded
                .letters
                .get(parted)
                .map_or(compared.len(), |letter| letter.origin.start);
            nearest = Some((index, point));
        }
    }
    nearest
}

/// How many bytes the first 1, 2, 3, … characters have.
fn ends_of_chars(text: &str) -> Vec<usize> {
    text.char_indices()
        .map(|(at, c)| at + c.len_utf8())
        .collect()
}

/// The text from each of its words to its end.
fn words_and_what_follows(text: &str) -> impl Iterator<Item = &str> {
    let starts = text.match_indices(' ').map(|(at, _)| at + 1);
    iter::once(0)
        .chain(starts)
        .filter_map(|start| text.get(start..))
}

/// What is around a place in a text.
pub(super) fn surroundings(text: &str, at: usize) -> String {
    let (before, after) = text.split_at_checked(at).unwrap_or((text, ""));
    let start = before.char_indices().rev().nth(MAX_SHOWN_CHARS - 1);
    let start = start.map_or(0, |(start, _)| start);
    let end = after.char_indices().nth(MAX_SHOWN_CHARS);
    let end = end.map_or(text.len(), |(end, _)| at + end);
    let dots = |is_more: bool| if is_more { "…" } else { "" };
    format!(
        "{}{}{}",
        dots(start > 0),
        sanitize(text.get(start..end).unwrap_or_default()),
        dots(end < text.len())
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_text_occurs_wherever_another_one_goes_on_with_it(text in "[abé\u{301}]{0,40}", wanted in "[abé\u{301}]{0,6}") {
            let expected: Vec<Range<usize>> = text
                .char_indices()
                .filter(|(at, _)| !wanted.is_empty() && text[*at..].starts_with(&wanted))
                .map(|(at, _)| at..at + wanted.len())
                .collect();

            let found: Vec<Range<usize>> = occurrences_in(&text, &wanted).collect();

            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn each_text_takes_room_from_the_search_for_the_nearest_place() {
        let texts = |others: usize| [vec!["x"; others], vec!["almost"]].concat();
        let wanted = "almost ".repeat(20);
        let others = MAX_COMPARED_BYTES / wanted.len();

        assert_eq!(
            nearest_point(&texts(others / 2), &wanted),
            Some((others / 2, 6))
        );
        assert_eq!(nearest_point(&texts(others), &wanted), None);
    }

    /// Nearly every letter is a place where the wanted text occurs, but in the middle of a letter.
    /// Comparing all of it at each of them would take hours.
    #[test]
    fn a_long_text_is_searched_in_one_pass() {
        let text = "\u{e9}".repeat(500_000);
        let inside = format!("\u{301}{}", "\u{e9}".repeat(250_000));

        assert_eq!(occurrences(&[&text], &inside), []);
        assert_eq!(occurrences(&[&text], &text).len(), 1);
    }
}

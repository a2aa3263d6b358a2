//! What it means that a text holds a word, and that two tags are the same.

use serde_json::{Map, Value};
use unicode_normalization::{
    UnicodeNormalization,
    char::{decompose_compatible, is_combining_mark},
};

use super::{kind::DocumentKey, text::is_invisible};

/// The fields that a search looks into, with all that is in them. The id is the one that the
/// document is stored under.
pub const SEARCHED_FIELDS: [&str; 11] = [
    "id",
    "title",
    "tags",
    "description",
    "result",
    "price",
    "client",
    "challenge",
    "solution",
    "testimonial",
    "longDescription",
];

/// The text of a document that is searched: one line for each value, as [`fold`] makes it.
pub(super) fn search_text(key: &DocumentKey, document: &Map<String, Value>) -> String {
    let mut folded = String::new();
    fold_into(&key.id, &mut folded);
    for name in SEARCHED_FIELDS.into_iter().filter(|name| *name != "id") {
        if let Some(value) = document.get(name) {
            fold_values(value, &mut folded);
        }
    }
    folded
}

fn fold_values(value: &Value, folded: &mut String) {
    match value {
        Value::String(text) => {
            folded.push('\n');
            fold_into(text, folded);
        }
        // Older programs wrote prices as numbers.
        Value::Number(number) => {
            folded.push('\n');
            folded.push_str(&number.to_string());
        }
        Value::Array(items) => items.iter().for_each(|item| fold_values(item, folded)),
        Value::Object(members) => members
            .values()
            .for_each(|member| fold_values(member, folded)),
        Value::Null | Value::Bool(_) => {}
    }
}

/// A text for comparison: without case, accents, quotation marks and invisible characters, with one
/// form of apostrophe and hyphen, whatever the Unicode composition. `É` is `e`, `œ` is `oe`, `ß` is `ss`,
/// and a full-width letter is the letter.
///
/// No language's own rules apply: `İ` and `ı` are `i`, so that a search finds more rather than
/// less.
pub(super) fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    fold_into(text, &mut folded);
    folded
}

fn fold_into(text: &str, folded: &mut String) {
    folded.reserve(text.len());
    text.chars().for_each(|c| fold_char(c, folded));
}

/// Appends what a character is compared as.
pub(super) fn fold_char(c: char, folded: &mut String) {
    match c {
        '`' => folded.push('\''),
        '"' => {}
        c if c.is_ascii() => folded.push(c.to_ascii_lowercase()),
        // Decomposed, an acute accent would become a space.
        '´' => folded.push('\''),
        c if is_invisible(c) => {}
        // The order of marks does not matter, because they are left out.
        c => decompose_compatible(c, |part| fold_part(part, folded)),
    }
}

/// Folds a character that cannot be decomposed further.
fn fold_part(c: char, folded: &mut String) {
    match c {
        '"' | '«' | '»' | '\u{201c}'..='\u{201f}' | '\u{301d}'..='\u{301f}' => {}
        c if is_combining_mark(c) => {}
        '`' | '\u{2018}'..='\u{201b}' | '\u{2032}' | '\u{2b9}' | '\u{2bb}' | '\u{2bc}' => {
            folded.push('\'');
        }
        '\u{2010}'..='\u{2015}' | '\u{2212}' => folded.push('-'),
        'œ' | 'Œ' => folded.push_str("oe"),
        'æ' | 'Æ' => folded.push_str("ae"),
        'ø' | 'Ø' => folded.push('o'),
        'ł' | 'Ł' => folded.push('l'),
        'đ' | 'Đ' => folded.push('d'),
        c => folded.extend(without_case(c)),
    }
}

/// A tag for comparison: without case and Unicode composition. Accents make a difference.
#[must_use]
pub fn fold_tag(tag: &str) -> String {
    // Composed again, because some capitals are composed where their small letters are not.
    tag.nfc().flat_map(without_case).nfc().collect()
}

/// By way of upper case, so that `ß` and `ẞ` are `ss` as `SS` is, and `ς` is `σ`.
fn without_case(c: char) -> impl Iterator<Item = char> {
    let upper = c.to_lowercase().flat_map(char::to_uppercase);
    upper.flat_map(char::to_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_folded_whatever_their_form() {
        for (text, folded) in [
            (
                "L’ÉTAGE l‘étage lʼétage l`étage l´étage l'étage",
                "l'etage l'etage l'etage l'etage l'etage l'etage",
            ),
            ("e\u{301}te\u{301} \u{e9}t\u{e9}", "ete ete"),
            (
                "\"Devis\" “devis” „devis“ «devis» « devis »",
                "devis devis devis devis  devis ",
            ),
            ("Œuvre œuvre Æ ø Ł Đ", "oeuvre oeuvre ae o l d"),
            ("Straße STRASSE ẞ", "strasse strasse ss"),
            ("ﬁn ﬂux", "fin flux"),
            ("ＦＵＬＬ　ｗｉｄｔｈ＇", "full width'"),
            ("İstanbul ISPARTA ısı", "istanbul isparta isi"),
            ("ΣΟΦΟΣ σοφος σοφός", "σοφοσ σοφοσ σοφοσ"),
            ("infra\u{ad}struc\u{200b}ture", "infrastructure"),
            ("29\u{a0}€ 29\u{202f}€", "29 € 29 €"),
            ("e‑commerce e–commerce", "e-commerce e-commerce"),
            ("\u{1112}\u{1161}\u{11ab}", "\u{1112}\u{1161}\u{11ab}"),
            ("\u{d55c}", "\u{1112}\u{1161}\u{11ab}"),
            ("a\nb\tc\u{2028}d", "a\nb\tc\u{2028}d"),
        ] {
            assert_eq!(fold(text), folded, "{text}");
        }
    }

    #[test]
    fn tags_are_equal_whatever_case_and_composition_but_not_without_accents() {
        for (one, other) in [
            ("Caf\u{e9}", "CAFE\u{301}"),
            ("straße", "STRASSE"),
            ("ΣΟΦΟΣ", "σοφος"),
            ("\u{1f0}", "J\u{30c}"),
            ("İ", "i\u{307}"),
        ] {
            assert_eq!(fold_tag(one), fold_tag(other), "{one} {other}");
        }
        assert_ne!(fold_tag("café"), fold_tag("cafe"));
    }
}

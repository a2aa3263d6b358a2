//! Foreign text inside ours: in messages, on terminals, in JSON lines.
//!
//! Documents pass unchanged. This is for sentences that quote a part of one, and for the bytes
//! around them.

use std::{
    borrow::Cow,
    fmt::{self, Write},
};

use memchr::memchr3_iter;
use serde::Serialize;

/// Whether a character has an effect without being visible: it moves the cursor, reverses the text,
/// ends a line, or hides.
///
/// Control characters (C0, C1), line and paragraph separators, and Unicode's default-ignorable
/// characters: bidi controls, zero-width characters, tags, fillers, selectors. The two selectors
/// that choose between an emoji and a sign (U+FE0E, U+FE0F) are harmless.
#[must_use]
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0d}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{13430}'..='\u{13455}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// Whether a character of a text takes no room: it is hidden, and neither a space nor a control
/// character.
#[must_use]
pub fn is_invisible(c: char) -> bool {
    is_hidden(c) && !c.is_control() && !c.is_whitespace()
}

/// The text in one line, with every hidden character replaced.
#[must_use]
pub fn sanitize(text: &str) -> Cow<'_, str> {
    let is_ascii = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if !is_ascii && text.contains(is_hidden) {
        Cow::Owned(text.replace(is_hidden, "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// Text for a message: sanitized, and only its beginning if it has more than 80 characters.
#[must_use]
pub fn truncate(text: &str) -> Cow<'_, str> {
    const MAX_CHARACTERS: usize = 80;
    if text.chars().nth(MAX_CHARACTERS).is_none() {
        return sanitize(text);
    }
    let beginning: String = text.chars().take(MAX_CHARACTERS - 20).collect();
    Cow::Owned(format!("{}…", sanitize(&beginning)))
}

/// A message of somebody else's, with each of its words that has more than 80 characters truncated.
#[must_use]
pub fn truncate_words(message: &str) -> String {
    let words: Vec<Cow<'_, str>> = message.split(' ').map(truncate).collect();
    words.join(" ")
}

/// The name of a file or folder for a message, unless it is what somebody gave in its place: the
/// address of a store or a line of tokens, which may hold a secret.
#[must_use]
pub fn shown_path(path: &str) -> Cow<'_, str> {
    let is_token_line = [":write:", ":read:"].iter().any(|role| path.contains(role));
    if path.contains("://") {
        Cow::Borrowed("(a URL)")
    } else if is_token_line {
        Cow::Borrowed("(a token)")
    } else {
        sanitize(path)
    }
}

/// The same JSON with every hidden character written as an escape.
///
/// Line ends and tabs stay: in JSON they stand only between values.
#[must_use]
pub fn escape_invisible(json: String) -> String {
    escape_where(json, |c| is_hidden(c) && !c.is_ascii_whitespace())
}

/// The same JSON as one line for every reader: Python's `splitlines` and others also end a line at
/// U+0085, U+2028 and U+2029.
#[must_use]
pub fn escape_line_breaks(json: String) -> String {
    escape_rare(json, |c| matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}'))
}

/// The same JSON with every no-break and zero-width space written as an escape: a model that copies
/// text would write a plain space in its place.
#[must_use]
pub fn escape_special_spaces(json: String) -> String {
    escape_rare(json, is_special_space)
}

/// The no-break and zero-width spaces of CONTRACT.md, section 2, which look like a plain space or
/// like nothing.
fn is_special_space(c: char) -> bool {
    matches!(
        c,
        '\u{a0}'
            | '\u{2009}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{2029}'
            | '\u{202f}'
            | '\u{feff}'
    )
}

/// The same JSON with both kinds of character written as escapes: hidden ones and special spaces.
#[must_use]
pub fn escape_all(json: String) -> String {
    escape_special_spaces(escape_invisible(json))
}

/// In JSON such characters stand only within strings, where an escape means the same.
fn escape_where(json: String, wanted: impl Fn(char) -> bool) -> String {
    if !json.contains(&wanted) {
        return json;
    }
    let mut result = String::with_capacity(json.len() + json.len() / 8);
    for c in json.chars() {
        if wanted(c) {
            let _ = escape(c, &mut result);
        } else {
            result.push(c);
        }
    }
    result
}

/// The same for characters below U+00C0, in U+2000 to U+2FFF or from U+F000 on, by the bytes with
/// which they begin. Every answer passes here, and nearly none has such a character.
fn escape_rare(json: String, wanted: impl Fn(char) -> bool) -> String {
    let mut result = String::new();
    let mut copied = 0;
    for at in memchr3_iter(0xc2, 0xe2, 0xef, json.as_bytes()) {
        let c = json.get(at..).and_then(|rest| rest.chars().next());
        if let Some(c) = c.filter(|c| wanted(*c)) {
            result.push_str(json.get(copied..at).unwrap_or_default());
            let _ = escape(c, &mut result);
            copied = at + c.len_utf8();
        }
    }
    if copied == 0 {
        return json;
    }
    result.push_str(json.get(copied..).unwrap_or_default());
    result
}

fn escape(c: char, out: &mut String) -> fmt::Result {
    c.encode_utf16(&mut [0; 2])
        .iter()
        .try_for_each(|unit| write!(out, "\\u{unit:04x}"))
}

/// Compact JSON of a value whose maps have string keys. Half the cost of `Value::to_string`, which
/// checks every piece of text again.
#[must_use]
pub fn compact_json(value: &impl Serialize) -> String {
    serde_json::to_string(value)
        .unwrap_or_else(|error| unreachable!("the maps have string keys: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_truncated() {
        assert_eq!(truncate("short"), "short");
        assert_eq!(
            truncate_words(&format!("header ({}) is long", "x".repeat(81))),
            format!("header ({}… is long", "x".repeat(59))
        );
        assert!(truncate(&"é".repeat(81)).chars().count() <= 80);
        assert_eq!(
            truncate(&"\u{202e}".repeat(81)),
            format!("{}…", "\u{fffd}".repeat(60))
        );
    }

    #[test]
    fn hidden_characters_are_replaced_and_visible_ones_stay() {
        for hidden in [
            "\0",
            "\t",
            "\n",
            "\r",
            "\u{1b}",
            "\u{7f}",
            "\u{85}",
            "\u{9b}",
            "\u{ad}",
            "\u{34f}",
            "\u{61c}",
            "\u{180e}",
            "\u{200b}",
            "\u{200d}",
            "\u{200e}",
            "\u{200f}",
            "\u{2028}",
            "\u{2029}",
            "\u{202a}",
            "\u{202e}",
            "\u{2060}",
            "\u{2066}",
            "\u{2069}",
            "\u{3164}",
            "\u{feff}",
            "\u{fff9}",
            "\u{1d173}",
            "\u{e0001}",
            "\u{e0061}",
            "\u{e0100}",
        ] {
            assert_eq!(
                sanitize(&format!("a{hidden}b")),
                "a\u{fffd}b",
                "{}",
                hidden.escape_unicode()
            );
        }
        for read in [
            "rdv-artisan",
            "Café à 29 €",
            "e\u{301}",
            "❤\u{fe0f}",
            "שלום",
            "日本",
            "a\u{a0}b",
            "\u{fffd}",
        ] {
            assert_eq!(sanitize(read), read);
        }
    }

    #[test]
    fn special_spaces_are_escaped_and_other_characters_stay() {
        for space in
            "\u{a0}\u{202f}\u{2009}\u{200b}\u{200c}\u{200d}\u{200e}\u{200f}\u{2028}\u{2029}\u{feff}"
                .chars()
        {
            let value = serde_json::json!({ "a": format!("29{space}€"), "b": space.to_string() });

            let json = escape_special_spaces(value.to_string());

            assert!(!json.contains(space), "{json:?}");
            assert!(json.contains(&format!("29\\u{:04x}€", space as u32)));
            assert_eq!(
                serde_json::from_str::<serde_json::Value>(&json).unwrap(),
                value
            );
        }
        let plain = r#"{"a":"l’été à 29 €\u3000— « œuvre » …\t"}"#;
        assert_eq!(escape_special_spaces(plain.to_owned()), plain);
    }

    #[test]
    fn escaped_json_means_the_same_and_hides_nothing() {
        let value = serde_json::json!({ "a\u{202e}": ["\u{1b}[31m", "\\\u{2028}", "\u{e0061}é", "\u{85}\t"] });

        let pretty = serde_json::to_string_pretty(&value).unwrap();
        let (all, line) = (
            escape_invisible(pretty.clone()),
            escape_line_breaks(value.to_string()),
        );

        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&all).unwrap(),
            value
        );
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&line).unwrap(),
            value
        );
        assert!(
            !all.contains(|c: char| is_hidden(c) && c != '\n'),
            "{all:?}"
        );
        assert!(
            !line.contains(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'])
                && line.contains('\u{202e}'),
            "{line:?}"
        );
        assert_eq!(escape_invisible("[\n1]".to_owned()), "[\n1]");
    }
}

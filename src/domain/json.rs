//! Where text becomes JSON: documents, audit entries, import files and the arguments of calls.
//!
//! Numbers keep their digits. What JavaScript programs leave is read, and remembered, so that
//! answers can say so: half of a surrogate pair, which `JSON.stringify` writes as `"\ud83d"` where a
//! text was cut in the middle of an emoji, and objects that were encoded twice.

use std::{borrow::Cow, collections::HashSet, fmt::Write};

use memchr::memchr_iter;
use serde_json::{Error, Map, Number, Value};

use super::{number::is_same_number, violation::Violation};

/// An object may have been encoded this often.
const MAX_ENCODINGS: usize = 4;

/// What stands for a character that cannot be read.
const REPLACEMENT: char = '\u{fffd}';

/// A half is remembered by its mark and this many hexadecimal digits.
const CODE_DIGITS: usize = 4;

/// How `serde_json` begins the names of its own values.
const PRIVATE: &[u8] = b"$serde_json::private::";

/// What was read differently from how it is stored. The next write stores it as it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repairs {
    /// The dotted paths of the strings that held half of a surrogate pair.
    halves: Vec<String>,
    /// Whether it was a string that held the JSON object.
    encoded_twice: bool,
}

impl Repairs {
    /// Whether nothing was read differently.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.halves.is_empty() && !self.encoded_twice
    }

    /// The dotted paths of the strings that held half of a surrogate pair.
    #[must_use]
    pub fn halves(&self) -> &[String] {
        &self.halves
    }

    /// What to say about a stored document.
    pub fn violations(&self) -> impl Iterator<Item = Violation> {
        let whole = self.encoded_twice.then(|| {
            Violation::new(
                "",
                "encoding",
                "stored as a JSON string that holds the JSON object; it is read as that object, and the next change of the document stores it as one",
            )
        });
        let halves = self.halves.iter().map(|path| {
            Violation::new(
                path.clone(),
                "surrogate",
                "stored with half of a character (an unpaired surrogate such as `\\ud83d`), which is read as U+FFFD; the next change of the document stores it so",
            )
        });
        whole.into_iter().chain(halves)
    }
}

/// Reads any JSON.
///
/// # Errors
/// When the text is not JSON.
pub fn parse(text: &str) -> Result<(Value, Repairs), Error> {
    let mut repairs = Repairs::default();
    let error = match parse_exactly(text) {
        Ok(value) => return Ok((value, repairs)),
        Err(error) => error,
    };
    let Some(mark) = unused_character(text) else {
        return Err(error);
    };
    let with_code = |half: u16| format!("{mark}{half:x}");
    let Cow::Owned(marked) = replace_halves(text, with_code) else {
        return Err(error);
    };
    let mut value = parse_exactly(&marked)?;
    replace_marks(&mut value, mark, &mut String::new(), &mut repairs.halves);
    Ok((value, repairs))
}

/// Reads a JSON object, also one that was encoded twice.
///
/// # Errors
/// What is wrong with the text.
pub fn parse_object(text: &str) -> Result<(Map<String, Value>, Repairs), String> {
    let (mut value, mut repairs) =
        parse(text).map_err(|error| format!("it is not JSON: {error}"))?;
    for _ in 1..MAX_ENCODINGS {
        let Value::String(encoded) = &value else {
            break;
        };
        let Ok((decoded, below)) = parse(encoded) else {
            break;
        };
        value = decoded;
        repairs.encoded_twice = true;
        repairs.halves = below.halves;
    }
    match value {
        Value::Object(object) => Ok((object, repairs)),
        _ => Err("it is JSON, but not an object".to_owned()),
    }
}

/// The same JSON with U+FFFD for each half of a surrogate pair, which other readers refuse.
#[must_use]
pub fn without_halves(json: &[u8]) -> Cow<'_, [u8]> {
    if !holds_surrogate(json) {
        return Cow::Borrowed(json);
    }
    match str::from_utf8(json).map(|text| replace_halves(text, |_| REPLACEMENT.to_string())) {
        Ok(Cow::Owned(text)) => Cow::Owned(text.into_bytes()),
        _ => Cow::Borrowed(json),
    }
}

/// The path of the first string that holds U+FFFD, where a character could not be read.
#[must_use]
pub fn find_replacement(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => text.contains(REPLACEMENT).then(String::new),
        Value::Array(items) => items.iter().enumerate().find_map(|(index, item)| {
            find_replacement(item).map(|below| format!("[{index}]{}", dotted(&below)))
        }),
        Value::Object(members) => members.iter().find_map(|(name, member)| {
            if name.contains(REPLACEMENT) {
                return Some(name.clone());
            }
            find_replacement(member).map(|below| format!("{name}{}", dotted(&below)))
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

/// The type of a value with its article, for messages.
#[must_use]
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// A path that continues another one.
fn dotted(below: &str) -> Cow<'_, str> {
    if below.is_empty() || below.starts_with('[') {
        Cow::Borrowed(below)
    } else {
        Cow::Owned(format!(".{below}"))
    }
}

/// Parses JSON whose numbers are then written as they stand in the text.
fn parse_exactly(text: &str) -> Result<Value, Error> {
    check_names(text.as_bytes())?;
    let mut value = serde_json::from_str(text)?;
    if holds_exponent(&value) {
        restore_numbers(text, &mut value);
    }
    Ok(value)
}

/// Refuses the names by which `serde_json` marks its own values: it would read an object with one of
/// them as a number or as other JSON.
///
/// # Errors
/// When the text may hold one of them.
pub fn check_names(json: &[u8]) -> Result<(), Error> {
    let begins = |at| json.get(at..).unwrap_or_default().starts_with(PRIVATE);
    if memchr_iter(b'$', json).any(begins) {
        return Err(serde::de::Error::custom(
            "a name begins with `$serde_json::private::`, which this program cannot read",
        ));
    }
    Ok(())
}

/// Whether a number was written with an exponent, which `serde_json` spells in its own way: `1E2` as
/// `1e+2`. All others keep their form.
fn holds_exponent(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_str().contains('e'),
        Value::Array(items) => items.iter().any(holds_exponent),
        Value::Object(members) => members.values().any(holds_exponent),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

/// Whether JSON may hold the escape of a surrogate. Nearly none does, so this has to be quick.
#[expect(
    clippy::needless_bitwise_bool,
    reason = "without branches many bytes are compared at a time"
)]
fn holds_surrogate(json: &[u8]) -> bool {
    let from = |at: usize| json.get(at..).unwrap_or_default();
    json.iter()
        .zip(from(1))
        .zip(from(2))
        .fold(false, |found, ((backslash, u), digit)| {
            found | (*backslash == b'\\') & (*u == b'u') & (digit | 0x20 == b'd')
        })
}

/// Gives the numbers of `value`, which was parsed from `text`, the form that they have there.
///
/// Where a member stands twice in the text, numbers are lost: then all keep the form of
/// `serde_json`, which has the same digits.
fn restore_numbers(text: &str, value: &mut Value) {
    let mut numbers = Vec::new();
    collect_numbers(value, &mut numbers);
    let tokens = number_tokens(text);
    if numbers.len() != tokens.len() {
        return;
    }
    for (number, token) in numbers.into_iter().zip(tokens) {
        // The only way to a number that `serde_json` would write differently; a test holds it.
        let exact = Number::from_string_unchecked(token.to_owned());
        if is_same_number(number, &exact) {
            *number = exact;
        }
    }
}

fn collect_numbers<'a>(value: &'a mut Value, found: &mut Vec<&'a mut Number>) {
    match value {
        Value::Number(number) => found.push(number),
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| collect_numbers(item, found)),
        Value::Object(members) => members
            .values_mut()
            .for_each(|member| collect_numbers(member, found)),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// The numbers in valid JSON, as they are written.
fn number_tokens(json: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = json;
    while let Some(start) = rest.find(|c: char| matches!(c, '"' | '-' | '0'..='9')) {
        rest = rest.split_at(start).1;
        if let Some(string) = rest.strip_prefix('"') {
            rest = after_string(string);
            continue;
        }
        let end = rest.find(|c: char| !matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E'));
        let (token, after) = rest.split_at(end.unwrap_or(rest.len()));
        tokens.push(token);
        rest = after;
    }
    tokens
}

/// What follows a string of which the opening quotation mark was read.
fn after_string(text: &str) -> &str {
    let mut rest = text;
    while let Some(at) = rest.find(['"', '\\']) {
        let (special, after) = rest.split_at(at).1.split_at(1);
        if special == "\"" {
            return after;
        }
        rest = after.get(1..).unwrap_or_default();
    }
    ""
}

/// The text with another one for each half of a surrogate pair. JSON has backslashes only in strings.
fn replace_halves(text: &str, other: impl Fn(u16) -> String) -> Cow<'_, str> {
    let mut result = String::new();
    let (mut copied, mut at) = (0, 0);
    while let Some(found) = text.get(at..).and_then(|rest| rest.find('\\')) {
        let escape = at + found;
        let length = match (code_unit(text, escape), code_unit(text, escape + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(half @ 0xd800..=0xdfff), _) => {
                result.push_str(text.get(copied..escape).unwrap_or_default());
                result.push_str(&other(half));
                copied = escape + 6;
                6
            }
            _ => 2,
        };
        at = escape + length;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    result.push_str(text.get(copied..).unwrap_or_default());
    Cow::Owned(result)
}

/// The UTF-16 code unit of the escape `\uXXXX` that begins here.
fn code_unit(text: &str, at: usize) -> Option<u16> {
    let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
    u16::from_str_radix(digits, 16).ok()
}

/// A character that the text holds neither as it is nor as an escape. It must not be one that
/// documents use, so it is one of those that Unicode keeps for the inside of programs.
fn unused_character(text: &str) -> Option<char> {
    let escapes = text.to_ascii_lowercase();
    ('\u{fdd0}'..='\u{fdef}')
        .find(|&c| !text.contains(c) && !escapes.contains(&format!("{:x}", u32::from(c))))
}

/// The text with U+FFFD for each mark and the code that follows it.
fn without_marks(text: &str, mark: char) -> String {
    let mut parts = text.split(mark);
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        result.push(REPLACEMENT);
        result.push_str(part.get(CODE_DIGITS..).unwrap_or_default());
    }
    result
}

/// Replaces each marked half by U+FFFD, and adds the paths where it stood.
fn replace_marks(value: &mut Value, mark: char, path: &mut String, found: &mut Vec<String>) {
    let length = path.len();
    match value {
        Value::String(text) => {
            if text.contains(mark) {
                *text = without_marks(text, mark);
                found.push(path.clone());
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                let _ = write!(path, "[{index}]");
                replace_marks(item, mark, path, found);
                path.truncate(length);
            }
        }
        Value::Object(members) => {
            let marked = std::mem::take(members);
            let mut names = ReadableNames::new(&marked, mark);
            for (name, mut member) in marked {
                let is_marked = name.contains(mark);
                let readable = if is_marked { names.add(&name) } else { name };
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&readable);
                if is_marked {
                    found.push(path.clone());
                }
                replace_marks(&mut member, mark, path, found);
                path.truncate(length);
                members.insert(readable, member);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The names of one object. Those that differ only in halves stay different, so that no member is
/// lost: the second one gets a number.
struct ReadableNames {
    taken: HashSet<String>,
    mark: char,
    number: usize,
}

impl ReadableNames {
    fn new(members: &Map<String, Value>, mark: char) -> Self {
        let is_marked = |name: &String| name.contains(mark);
        let taken = if members.keys().any(is_marked) {
            let readable = members.keys().filter(|name| !is_marked(name));
            readable.cloned().collect()
        } else {
            HashSet::new()
        };
        Self {
            taken,
            mark,
            number: 1,
        }
    }

    /// The readable form of a marked name.
    fn add(&mut self, name: &str) -> String {
        let readable = without_marks(name, self.mark);
        let mut unique = readable.clone();
        while !self.taken.insert(unique.clone()) {
            self.number += 1;
            unique = format!("{readable} {}", self.number);
        }
        unique
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn half_of_a_surrogate_pair_is_read_as_u_fffd_and_its_field_named() {
        let text = r#"{"title":"cut \ud83d","tags":["\ude00 \ud83d\ude00","\\ud83d"],"a":{"\uD83D":1},"known":"\ufffd"}"#;

        let (object, repairs) = parse_object(text).unwrap();

        assert_eq!(
            Value::Object(object),
            json!({"title":"cut \u{fffd}","tags":["\u{fffd} 😀","\\ud83d"],"a":{"\u{fffd}":1},"known":"\u{fffd}"})
        );
        assert_eq!(repairs.halves, ["title", "tags[0]", "a.\u{fffd}"]);
        assert!(!repairs.encoded_twice);
    }

    #[test]
    fn names_that_differ_only_in_halves_stay_different_members() {
        for (text, expected) in [
            (
                r#"{"\ud83d":1,"\uD83E":2,"\ud83f":3}"#,
                r#"{"?":1,"? 2":2,"? 3":3}"#,
            ),
            (
                r#"{"x":{"a\ud83d":1,"a\ufffd":2,"a\ufffd 2":3,"a\ude00b":4}}"#,
                r#"{"x":{"a? 3":1,"a?":2,"a? 2":3,"a?b":4}}"#,
            ),
            (r#"{"\ud83d":1,"\uD83D":2}"#, r#"{"?":2}"#),
        ] {
            let (value, repairs) = parse(text).unwrap();

            assert_eq!(value.to_string(), expected.replace('?', "\u{fffd}"));
            assert!(!repairs.halves.is_empty(), "{text}");
        }
    }

    #[test]
    fn text_that_holds_every_mark_is_not_read_as_another_text() {
        let marks: String = ('\u{fdd0}'..='\u{fdef}').collect();

        assert!(parse(&format!(r#""{marks}\ud83d""#)).is_err());
        assert_eq!(parse(&format!(r#""{marks}""#)).unwrap().0, json!(marks));
    }

    #[test]
    fn a_name_that_serde_json_reserves_is_no_number() {
        let text = r#"{"x":{"$serde_json::private::Number":"12"}}"#;

        let error = parse(text).unwrap_err();

        assert!(error.to_string().contains("a name begins with"), "{error}");
    }

    #[test]
    fn halves_beside_pairs_are_told_apart() {
        for (text, expected) in [
            (r#""\ud83d\ud83d\ude00""#, "\u{fffd}😀"),
            (r#""\ude00\ud83d""#, "\u{fffd}\u{fffd}"),
            (r#""\ud83dx\ude00""#, "\u{fffd}x\u{fffd}"),
            (r#""\\\ud83d""#, "\\\u{fffd}"),
        ] {
            assert_eq!(parse(text).unwrap().0, expected, "{text}");
            let repaired: Value = serde_json::from_slice(&without_halves(text.as_bytes())).unwrap();
            assert_eq!(repaired, expected, "{text}");
        }
    }

    #[test]
    fn an_object_that_was_encoded_twice_is_read_as_the_object() {
        let once = r#"{"title":"cut \ud83d","n":1.10}"#;
        let twice = json!(once).to_string();

        let (object, repairs) = parse_object(&twice).unwrap();

        assert_eq!(object["title"], "cut \u{fffd}");
        assert_eq!(object["n"].to_string(), "1.10");
        assert!(repairs.encoded_twice);
        assert_eq!(repairs.halves, ["title"]);
        let (_, thrice) = parse_object(&json!(twice).to_string()).unwrap();
        assert!(thrice.encoded_twice);
    }

    #[test]
    fn what_is_no_object_is_refused_as_what_it_is() {
        for (text, problem) in [
            ("", "not JSON"),
            ("[object Object]", "not JSON"),
            (r#"{"a":"\ud83d""#, "not JSON"),
            (r#""text""#, "not an object"),
            (r#""[1]""#, "not an object"),
            ("[1]", "not an object"),
        ] {
            let error = parse_object(text).unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn every_number_keeps_its_digits() {
        let text = r#"{"a":[1.10,1e2,1E2,1e+2,-0,1.0,-0.0,12345678901234567890123,0.1e-7,1e400],"b":"1e2","c":{"d":3E-5},"e":"a \" 7e1"}"#;

        assert_eq!(parse(text).unwrap().0.to_string(), text);
    }

    #[test]
    fn a_hash_is_not_taken_for_a_number_with_an_exponent() {
        let holds = |text: &str| holds_exponent(&serde_json::from_str(text).unwrap());

        assert!(!holds(r#"{"id":"3e4f-12e","n":[12,1.5]}"#));
        for number in ["12e3", "1E2", "1e+2", "1E-2"] {
            assert!(holds(&format!(r#"{{"n":[{number}]}}"#)), "{number}");
        }
    }

    #[test]
    fn a_member_that_stands_twice_is_read_as_the_last_one() {
        let (value, _) = parse(r#"{"a":1e2,"b":2E1,"a":7}"#).unwrap();

        assert_eq!(value["a"], json!(7));
        assert_eq!(value["b"].as_f64(), Some(20.0));
    }

    #[test]
    fn the_place_of_an_unreadable_character_is_found() {
        let value = json!({"id":"a","data":{"tags":["ok",{"x":"\u{fffd}"}]}});

        assert_eq!(find_replacement(&value).as_deref(), Some("data.tags[1].x"));
        assert_eq!(find_replacement(&json!({"a":["b"]})), None);
    }
}

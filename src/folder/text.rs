//! The text of a file, and what it is when it is not the JSON array that was expected.

use serde_json::{Error, Map, Value};

use crate::domain::json::type_name;

/// The text of a file in UTF-8, with or without a byte order mark.
///
/// # Errors
/// In which format or encoding it seems to be.
pub(super) fn decode(bytes: Vec<u8>) -> Result<String, String> {
    if let Some(format) = binary_format(&bytes) {
        return Err(format!(
            "is {format}, not JSON; put the JSON file that is in it in its place"
        ));
    }
    if let Some(encoding) = wide_encoding(&bytes) {
        return Err(format!("is {encoding}; save it as UTF-8"));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes().get(..error.utf8_error().valid_up_to());
        let line = 1 + before
            .unwrap_or_default()
            .split(|byte| *byte == b'\n')
            .count()
            - 1;
        format!("is not UTF-8 (line {line}), perhaps Latin-1 or Windows-1252; save it as UTF-8")
    })?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(without_mark) => without_mark.to_owned(),
        None => text,
    })
}

/// A file that is packed, or that another program wrote.
fn binary_format(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [b'P', b'K', 3 | 5, 4 | 6, ..] => {
            Some("a ZIP archive (or a document of an office program)")
        }
        [0x1f, 0x8b, ..] => Some("a gzip archive"),
        [b'B', b'Z', b'h', ..]
        | [0xfd, b'7', b'z', b'X', ..]
        | [b'7', b'z', 0xbc, 0xaf, ..]
        | [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("an archive"),
        bytes if bytes.starts_with(b"SQLite format 3\0") => Some("a SQLite database"),
        bytes if bytes.starts_with(b"%PDF-") => Some("a PDF document"),
        _ => None,
    }
}

/// UTF-16 or UTF-32, with a byte order mark or without: JSON begins with an ASCII character, which
/// has zeros around it there.
fn wide_encoding(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, ..] | [_, 0, 0, 0, ..] => Some("UTF-32"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, ..] | [_, 0, ..] => Some("UTF-16"),
        _ => None,
    }
}

/// What stands in the place of an array, and what to do about it.
pub(super) fn not_an_array(found: &Value, name: &str) -> String {
    let Value::Object(object) = found else {
        return format!("expected a JSON array, found {}", type_name(found));
    };
    if let Some(list) = list_in(object, name) {
        return format!(
            "expected a JSON array, found an object with `{list}`: put that list alone in the file"
        );
    }
    if object.contains_key("id") || object.contains_key("title") {
        return "expected a JSON array, found one object: put it in brackets, `[…]`".to_owned();
    }
    let below = object.iter().find_map(|(member, value)| {
        let list = list_in(value.as_object()?, name)?;
        Some(format!("{member}.{list}"))
    });
    if let Some(path) = below {
        return format!(
            "expected a JSON array, found an object with `{path}`: put that list alone in the file"
        );
    }
    if object.len() > 1 && object.values().all(Value::is_object) {
        return format!(
            "expected a JSON array, found an object whose {} members are objects: make them a list, each with its name as `id`",
            object.len()
        );
    }
    "expected a JSON array, found an object".to_owned()
}

/// The member that holds the list: the one of this name, or the only list.
fn list_in<'a>(object: &'a Map<String, Value>, name: &'a str) -> Option<&'a str> {
    if object.get(name).is_some_and(Value::is_array) {
        return Some(name);
    }
    let mut lists = object.iter().filter(|(_, value)| {
        value
            .as_array()
            .is_some_and(|items| items.iter().any(Value::is_object))
    });
    match (lists.next(), lists.next()) {
        (Some((only, _)), None) if !object.contains_key("id") => Some(only),
        _ => None,
    }
}

/// How a file of JavaScript begins.
const JAVASCRIPT: [&str; 7] = [
    "export ",
    "module.exports",
    "exports.",
    "const ",
    "let ",
    "var ",
    "import ",
];

/// Why a text is not JSON, and what it is, where that is plain to see.
pub(super) fn not_json(text: &str, error: &Error) -> String {
    match hint(text, error) {
        Some(hint) => format!("not JSON: {error}; {hint}"),
        None => format!("not JSON: {error}"),
    }
}

/// Rows of the same number of columns, below their names.
fn is_table(text: &str) -> bool {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let is_name = |c: char| c.is_alphabetic() || c == '_' || c == '"';
    let (Some(names), Some(_)) = (lines.next(), lines.next()) else {
        return false;
    };
    [',', ';', '\t'].iter().any(|separator| {
        let mut columns = names.split(*separator);
        names.contains(*separator)
            && columns
                .all(|name| name.trim().starts_with(is_name) && !name.contains(['{', '[', ':']))
    })
}

fn hint(text: &str, error: &Error) -> Option<&'static str> {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let is_object = |line: &str| serde_json::from_str::<Map<String, Value>>(line).is_ok();
    if let (Some(first), Some(second)) = (lines.next(), lines.next())
        && is_object(first)
        && is_object(second)
    {
        return Some(
            "this is JSON Lines, an object on each line: make them one array, `[{…}, {…}]`",
        );
    }
    let beginning = text.trim_start();
    if JAVASCRIPT.iter().any(|word| beginning.starts_with(word)) {
        return Some("this is JavaScript: keep the list alone, as JSON");
    }
    if ["<!", "<?", "<html"]
        .iter()
        .any(|tag| beginning.starts_with(tag))
    {
        return Some("this is HTML or XML, perhaps the page of an error");
    }
    if is_table(text) {
        return Some("this is a table (CSV): make each row an object, `[{…}, {…}]`");
    }
    if error.is_eof() {
        return Some("the file ends in the middle: it may have been cut off");
    }
    let line = text.lines().nth(error.line().saturating_sub(1))?;
    let at = error.column().saturating_sub(1);
    let rest = line.get(at..).unwrap_or_default();
    if rest.trim() == ";" {
        return Some("this is JavaScript: take out the `;` at the end");
    }
    if rest.starts_with('/') {
        return Some("JSON has no comments: take them out");
    }
    if error.to_string().starts_with("trailing comma") {
        return Some("take out the comma before the bracket");
    }
    if ["undefined", "None", "True", "False", "NaN"]
        .iter()
        .any(|word| rest.starts_with(word))
    {
        return Some("JSON has `null`, `true` and `false`, and no other words for values");
    }
    let is_name = |c: char| c == '\'' || c == '_' || c.is_alphabetic();
    let problem = error.to_string();
    let expects_text = problem.starts_with("key must be") || problem.starts_with("expected value");
    (rest.starts_with(is_name) && expects_text)
        .then_some("in JSON, names and texts are in double quotation marks")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str, bytes_of: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes_of).collect()
    }

    #[test]
    fn utf_8_is_read_with_and_without_a_mark() {
        for text in ["[]", "\u{feff}[]"] {
            assert_eq!(decode(text.as_bytes().to_vec()).unwrap(), "[]");
        }
    }

    #[test]
    fn other_encodings_are_named() {
        let cases = [
            (utf16("[]", u16::to_le_bytes), "UTF-16"),
            (utf16("[]", u16::to_be_bytes), "UTF-16"),
            (utf16("\u{feff}[]", u16::to_le_bytes), "UTF-16"),
            (utf16("\u{feff}[]", u16::to_be_bytes), "UTF-16"),
            (b"[\0\0\0]\0\0\0".to_vec(), "UTF-32"),
            (b"[\n\"caf\xe9\"]".to_vec(), "line 2), perhaps Latin-1"),
        ];
        for (bytes, name) in cases {
            let problem = decode(bytes.clone()).unwrap_err();
            assert!(problem.contains(name), "{bytes:?}: {problem}");
        }
    }

    #[test]
    fn archives_and_databases_are_named() {
        for (bytes, name) in [
            (&b"PK\x03\x04\x14\0\0\0"[..], "a ZIP archive"),
            (b"\x1f\x8b\x08\0", "a gzip archive"),
            (b"SQLite format 3\0\x10\0", "a SQLite database"),
            (b"%PDF-1.7\n", "a PDF"),
        ] {
            let problem = decode(bytes.to_vec()).unwrap_err();
            assert!(problem.contains(name), "{bytes:?}: {problem}");
        }
        assert_eq!(decode(b"PK".to_vec()).unwrap(), "PK");
    }

    #[test]
    fn what_is_nearly_json_is_named() {
        for (text, named) in [
            ("{\"id\":1}\n{\"id\":2}\n", "JSON Lines"),
            ("[1,]", "comma"),
            ("[\n  // first\n  1]", "comments"),
            ("[{id: 1}]", "double quotation marks"),
            ("['a']", "double quotation marks"),
            ("export default []", "JavaScript"),
            ("let projects = []", "JavaScript"),
            ("[{\"id\": 1}];\n", "take out the `;`"),
            ("id,title\na,A\n", "CSV"),
            ("\"id\";\"title\"\r\n\"a\";\"A\"", "CSV"),
            ("id\ttitle\na\tA", "CSV"),
            ("<!DOCTYPE html>", "HTML"),
            (r#"[{"id":"a","title":"caf"#, "cut off"),
            (r#"[{"id": None}]"#, "`null`"),
        ] {
            let error = serde_json::from_str::<Value>(text).unwrap_err();
            let problem = not_json(text, &error);
            assert!(problem.contains(named), "{text}: {problem}");
        }
    }

    #[test]
    fn what_stands_in_the_place_of_an_array_is_named() {
        for (text, named) in [
            (r#"{"projects":[]}"#, "`projects`: put that list alone"),
            (
                r#"{"meta":{},"items":[{}]}"#,
                "`items`: put that list alone",
            ),
            (
                r#"{"data":{"projects":[]}}"#,
                "`data.projects`: put that list alone",
            ),
            (r#"{"id":"a"}"#, "in brackets"),
            (r#"{"a":{},"b":{}}"#, "whose 2 members are objects"),
            ("5", "found a number"),
        ] {
            let found: Value = serde_json::from_str(text).unwrap();
            let problem = not_an_array(&found, "projects");
            assert!(problem.contains(named), "{text}: {problem}");
        }
    }
}

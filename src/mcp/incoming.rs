//! What a line of input or the body of a request is: a message, nothing, or a mistake with its
//! response.

use std::borrow::Cow;

use rmcp::{
    ErrorData,
    model::{ClientJsonRpcMessage, ErrorCode, RequestId},
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};

use super::invalid_params;
use crate::domain::{
    check_depth,
    json::{check_names, without_halves},
};

mod forms;
mod problem;

use problem::Problem;

/// How far into a line that is too long its id is searched.
const ID_SEARCH_BYTES: usize = 1024;

/// A classified line or body.
#[derive(Debug)]
pub(crate) enum Incoming {
    Blank,
    Message(Box<ClientJsonRpcMessage>),
    Invalid(Rejection),
    /// A notification that cannot be read. JSON-RPC has no response to it, but HTTP has.
    InvalidNotification(Rejection),
}

/// The response to what cannot be served.
#[derive(Debug)]
pub(crate) struct Rejection {
    id: Option<RequestId>,
    error: Box<ErrorData>,
}

impl Rejection {
    /// The response to the request with this id, if it is known.
    pub(crate) fn new(id: Option<RequestId>, code: ErrorCode, problem: String) -> Self {
        Self {
            id,
            error: Box::new(ErrorData::new(code, problem, None)),
        }
    }

    pub(crate) fn invalid_request(id: Option<RequestId>, problem: String) -> Self {
        Self::new(id, ErrorCode::INVALID_REQUEST, problem)
    }

    fn parse_error(problem: String) -> Self {
        Self::new(None, ErrorCode::PARSE_ERROR, problem)
    }

    /// The response to a body that is empty.
    pub(crate) fn empty() -> Self {
        Self::parse_error("the body is empty; send a JSON-RPC message".to_owned())
    }

    /// The response to a message of more than `max_bytes` bytes, of which this is the beginning.
    pub(crate) fn too_long(beginning: &[u8], max_bytes: usize) -> Self {
        Self::invalid_request(
            find_id(beginning),
            format!(
                "the message has more than {max_bytes} bytes, so it was not read; send a shorter one"
            ),
        )
    }

    /// The response to a request whose id another running request has.
    pub(crate) fn duplicate_id(id: RequestId) -> Self {
        Self::invalid_request(
            Some(id),
            "another request with this id is still running; use a new id".to_owned(),
        )
    }

    /// The response as JSON-RPC. `ServerJsonRpcMessage` would leave out an unknown id, which has to
    /// be `null`.
    pub(crate) fn into_json(self) -> Value {
        json!({ "jsonrpc": "2.0", "id": self.id, "error": self.error })
    }
}

/// As much of a message as a response to it needs.
#[derive(Deserialize)]
struct Envelope {
    id: Option<RequestId>,
}

/// What a message asks for. Parsing skips the rest.
#[derive(Deserialize)]
pub(crate) struct Outline<'a> {
    /// Empty in a response.
    #[serde(borrow, default)]
    pub(crate) method: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Request {
    id: RequestId,
    method: String,
    params: Value,
}

/// The text without a byte order mark before it and without the white space around it.
pub(crate) fn trim(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(text)
        .trim_ascii()
}

/// Classifies a whole line or body.
pub(crate) fn classify(text: &[u8]) -> Incoming {
    let json = without_halves(trim(text));
    let json = json.as_ref();
    if json.is_empty() {
        return Incoming::Blank;
    }
    match read(json) {
        Ok(message) => Incoming::Message(Box::new(message)),
        Err(rejection) if problem::is_notification(json) => {
            Incoming::InvalidNotification(rejection)
        }
        Err(rejection) => Incoming::Invalid(rejection),
    }
}

fn read(json: &[u8]) -> Result<ClientJsonRpcMessage, Rejection> {
    check_nesting(json)?;
    if json.starts_with(b"[") {
        return Err(reject_array(json));
    }
    let outline = serde_json::from_slice::<Outline<'_>>(json);
    let method = outline.map(|outline| outline.method).unwrap_or_default();
    let normalized = normalize(json, &method)?;
    serde_json::from_slice(&normalized).map_err(|error| reject(json, &error))
}

/// The message with this method in the form that rmcp reads.
///
/// # Errors
/// The response to a request whose params do not fit, where rmcp would not notice.
pub(crate) fn normalize<'a>(json: &'a [u8], method: &str) -> Result<Cow<'a, [u8]>, Rejection> {
    forms::normalize(json, method).ok_or_else(|| {
        reject_params(json).unwrap_or_else(|| {
            Rejection::invalid_request(parse_id(json), "its params do not fit".to_owned())
        })
    })
}

/// Checks that a message is not nested too deeply to be parsed, and holds no name that would be read
/// as something else.
///
/// # Errors
/// The response to a message that is, or does.
pub(crate) fn check_nesting(json: &[u8]) -> Result<(), Rejection> {
    check_depth(json).map_err(|too_deep| {
        // Parsing the id alone is not recursive.
        Rejection::invalid_request(
            parse_id(json),
            format!("the message was not read: {too_deep}"),
        )
    })?;
    check_names(json).map_err(|problem| {
        Rejection::invalid_request(
            parse_id(json),
            format!("the message was not read: {problem}"),
        )
    })
}

/// The id of a request, even of one that is not valid otherwise.
pub(crate) fn parse_id(json: &[u8]) -> Option<RequestId> {
    parse_envelope(json)?.id
}

/// The response to an array: serde would read some as the members of a message.
fn reject_array(json: &[u8]) -> Rejection {
    match parse::<IgnoredAny>(json) {
        Some(_) => {
            let problem = "batches are not supported; send one message at a time".to_owned();
            Rejection::invalid_request(None, problem)
        }
        None => match serde_json::from_slice::<Vec<IgnoredAny>>(json) {
            Err(error) => reject(json, &error),
            Ok(_) => Rejection::parse_error("the message is not UTF-8".to_owned()),
        },
    }
}

/// The response to what is not a message, because of `error`.
fn reject(json: &[u8], error: &serde_json::Error) -> Rejection {
    match problem::describe(json, error) {
        Problem::NotJson(problem) => Rejection::parse_error(format!("the message is {problem}")),
        Problem::NotAMessage(problem) => {
            Rejection::invalid_request(parse_id(json), format!("the message is {problem}"))
        }
        Problem::Unreadable(problem) => reject_params(json).unwrap_or_else(|| {
            Rejection::invalid_request(parse_id(json), format!("the message is {problem}"))
        }),
    }
}

/// The response to a request that rmcp does not read at all, because its params or their `_meta` are
/// no object.
fn reject_params(json: &[u8]) -> Option<Rejection> {
    let Request { id, method, params } = parse(json)?;
    Some(Rejection {
        id: Some(id),
        error: Box::new(invalid_params::error(&method, Some(&params))),
    })
}

/// serde would read an array as the members of the struct, so that `[1]` had the id 1.
fn parse_envelope(json: &[u8]) -> Option<Envelope> {
    if json.starts_with(b"[") {
        return None;
    }
    parse(json)
}

/// Parses JSON. The check for UTF-8 comes first, because `serde_json` does not check the strings
/// that it skips.
fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Option<T> {
    serde_json::from_str(std::str::from_utf8(json).ok()?).ok()
}

/// The id of a message of which only the beginning was read, if the beginning has it.
fn find_id(line: &[u8]) -> Option<RequestId> {
    let value = find_id_value(trim(line.get(..ID_SEARCH_BYTES).unwrap_or(line)))?;
    let mut values = serde_json::Deserializer::from_slice(value).into_iter();
    let id = values.next()?.ok()?;
    // At the end of the beginning, a number may lack digits.
    (values.byte_offset() < value.len()).then_some(id)
}

/// The text from the value of the member `id` on. Arguments have members of that name too, so only
/// those of the outermost object count.
fn find_id_value(json: &[u8]) -> Option<&[u8]> {
    let mut rest = json.strip_prefix(b"{")?;
    let mut depth = 1;
    while depth > 0 {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b'"' => {
                let (string, after) = split_string(rest)?;
                rest = after;
                if let (1, b"id") = (depth, string)
                    && let Some(value) = rest.trim_ascii_start().strip_prefix(b":")
                {
                    return Some(value);
                }
            }
            _ => {}
        }
    }
    None
}

/// The string that has begun, and the text after its end.
fn split_string(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut after_backslash = false;
    let end = text.iter().position(|&byte| {
        let ends = byte == b'"' && !after_backslash;
        after_backslash = byte == b'\\' && !after_backslash;
        ends
    })?;
    Some((text.get(..end)?, text.get(end + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The response to an invalid line.
    fn rejection(line: &[u8]) -> Value {
        match classify(line) {
            Incoming::Invalid(rejection) => rejection.into_json(),
            accepted => panic!("accepted: {accepted:?}"),
        }
    }

    #[test]
    fn blank_lines_are_skipped() {
        for line in ["\n", "\r\n", " \t\n", "\u{feff}\n"] {
            assert!(
                matches!(classify(line.as_bytes()), Incoming::Blank),
                "{line:?}"
            );
        }
    }

    #[test]
    fn a_message_may_have_a_byte_order_mark_and_any_line_end() {
        let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

        for line in [
            ping.to_owned(),
            format!("{ping}\r\n"),
            format!("\u{feff}{ping}\n"),
        ] {
            assert!(
                matches!(classify(line.as_bytes()), Incoming::Message(_)),
                "{line:?}"
            );
        }
    }

    #[test]
    fn half_of_a_surrogate_pair_does_not_make_a_message_unreadable() {
        let line = r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":{"a":"\ud83d"}}}"#;

        assert!(matches!(classify(line.as_bytes()), Incoming::Message(_)));
    }

    #[test]
    fn what_is_not_json_is_a_parse_error_without_id() {
        for line in [&b"{ this is not json"[..], b"\"\xff\"", b"{\"id\":1"] {
            let response = rejection(line);

            assert_eq!(response["id"], Value::Null);
            assert_eq!(response["error"]["code"], -32700);
        }
    }

    #[test]
    fn json_that_is_not_a_message_is_an_invalid_request_with_its_id() {
        for (line, id) in [
            (r#"{"hello":"world"}"#, Value::Null),
            ("[1]", Value::Null),
            (r#"["2.0",1,"ping"]"#, Value::Null),
            (r#"{"jsonrpc":"2.0","id":78,"method":5}"#, json!(78)),
        ] {
            let response = rejection(line.as_bytes());

            assert_eq!(response["id"], id, "{line}");
            assert_eq!(response["error"]["code"], -32600, "{line}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_called_what_it_is() {
        for (line, says) in [
            (
                r#"{"jsonrpc":"2.0","id":7,"method":"ping","params":{"a":NaN}}"#,
                "JSON has no `NaN`",
            ),
            (
                r#"{"jsonrpc":"2.0","id":7,"method":"ping","params":{"a":-Infinity}}"#,
                "JSON has no `Infinity`",
            ),
            ("{\n\"a\": None}", "JSON has no `None`"),
            ("hello", "not valid JSON"),
            (
                r#"{"jsonrpc":"2.0","id":7,"id":8,"method":"ping"}"#,
                "has `id` more than once",
            ),
            (r#"{"id":7,"method":"ping"}"#, r#"`jsonrpc` must be "2.0""#),
            (r#"{"jsonrpc":"2.0","id":7}"#, "`method` is missing"),
            (
                r#"{"jsonrpc":"2.0","id":7.5,"method":"ping"}"#,
                "`id` must be",
            ),
            (
                r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
                "`id` must be",
            ),
            (
                r#"{"jsonrpc":"2.0","id":7,"method":5}"#,
                "`method` must be a string",
            ),
            (
                r#"{"jsonrpc":"2.0","id":7,"method":"ping","result":{}}"#,
                "also `result`",
            ),
            ("5", "JSON, but a number"),
            (r#""x""#, "JSON, but a string"),
            ("null", "JSON, but null"),
            ("[1]", "batches are not supported"),
            ("[1,", "not valid JSON"),
            ("{\0\"\0", "UTF-16"),
        ] {
            let message = rejection(line.as_bytes())["error"]["message"].to_string();

            assert!(
                message.replace('\\', "").contains(says),
                "{line}: {message}"
            );
        }
        let utf_16: Vec<u8> = "{\"é\":1}"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        assert!(
            rejection(&utf_16)["error"]["message"]
                .to_string()
                .contains("UTF-16")
        );
    }

    #[test]
    fn a_notification_that_cannot_be_read_is_told_from_a_request() {
        for line in [
            r#"{"jsonrpc":"2.0","method":"notifications/initialized","params":[1]}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":5}"#,
            r#"{"method":"notifications/x","params":"x","jsonrpc":"2.0"}"#,
        ] {
            let found = classify(line.as_bytes());
            assert!(
                matches!(found, Incoming::InvalidNotification(_)),
                "{line}: {found:?}"
            );
        }
        for line in [
            r#"{"jsonrpc":"2.0","id":null,"method":"ping","params":[1]}"#,
            r#"{"method":"notifications/initialized","params":[1]}"#,
            r#"{"jsonrpc":"2.0","method":5}"#,
            r#"{"jsonrpc":"2.0","method":"x","params":NaN}"#,
        ] {
            let found = classify(line.as_bytes());
            assert!(matches!(found, Incoming::Invalid(_)), "{line}: {found:?}");
        }
    }

    #[test]
    fn a_deep_message_is_rejected_with_its_id() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let line = format!(r#"{{"jsonrpc":"2.0","id":"a","method":"x","params":{deep}}}"#);

        let response = rejection(line.as_bytes());

        assert_eq!(response["id"], "a");
        assert_eq!(response["error"]["code"], -32600);
    }

    #[test]
    fn the_id_of_a_long_message_is_found_in_its_beginning() {
        for (beginning, id) in [
            (r#"{"jsonrpc":"2.0","id":6,"method":"#, json!(6)),
            (r#"{"jsonrpc":"2.0","id": "long","method":"#, json!("long")),
            (r#" { "id" : 7 , "method":"#, json!(7)),
            (r#"{"params":[{"id":"p1"},["}"]],"id":5,"#, json!(5)),
            (r#"{"params":{"text":"\\\"id\":1,\\"},"id":5,"#, json!(5)),
            (r#"{"jsonrpc":"2.0","method":"#, Value::Null),
            (r#"{"params":{"arguments":{"id":"p1","data":"#, Value::Null),
            (r#"{"params":{"text":"\"id\":1,"#, Value::Null),
            (r#"{"method":"id","params":"#, Value::Null),
            (r#"[{"id":1,"method":"#, Value::Null),
            (r#"{}{"id":1,"method":"#, Value::Null),
            (r#"{"id":12"#, Value::Null),
        ] {
            let response = Rejection::too_long(beginning.as_bytes(), 10).into_json();

            assert_eq!(response["id"], id, "{beginning}");
        }
    }
}

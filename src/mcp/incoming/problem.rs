//! What is wrong with a message that cannot be read, in words for the author of the client.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::domain::text::truncate;

/// The members of a message outside its params.
const MEMBERS: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];
/// What programs write for values that JSON does not have.
const NOT_JSON: [&str; 6] = ["NaN", "Infinity", "undefined", "None", "True", "False"];

/// What is wrong with a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// It is not JSON.
    NotJson(String),
    /// It is JSON, but not a message.
    NotAMessage(String),
    /// It is a message outside its params.
    Unreadable(String),
}

/// What is wrong with the text that a parser of messages refused with `error`.
pub(super) fn describe(json: &[u8], error: &serde_json::Error) -> Problem {
    let Ok(text) = std::str::from_utf8(json) else {
        return Problem::NotJson(not_utf_8(json).to_owned());
    };
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        return Problem::NotJson(not_json(text, &error));
    }
    let Ok(Members(members)) = serde_json::from_str::<Members<'_>>(text) else {
        return Problem::NotAMessage(format!("JSON, but {}", not_an_object(text)));
    };
    match invalid_member(&members) {
        Some(problem) => Problem::NotAMessage(problem),
        // A number or an escape that the parser cannot represent, or params of another form.
        None => Problem::Unreadable(format!(
            "JSON, but it cannot be read: {}",
            truncate(&error.to_string())
        )),
    }
}

/// Whether this is a notification, whatever its params: it has a method and no id.
pub(super) fn is_notification(json: &[u8]) -> bool {
    let text = std::str::from_utf8(json).unwrap_or_default();
    let Ok(Members(members)) = serde_json::from_str::<Members<'_>>(text) else {
        return false;
    };
    let has = |name: &str| members.iter().any(|(found, _)| found == name);
    has("method") && !has("id") && invalid_member(&members).is_none()
}

fn not_utf_8(json: &[u8]) -> &'static str {
    if json.starts_with(b"\xff\xfe") || json.starts_with(b"\xfe\xff") || json.contains(&0) {
        "UTF-16, and must be UTF-8"
    } else {
        "not UTF-8"
    }
}

fn not_json(text: &str, error: &serde_json::Error) -> String {
    if text.contains('\0') {
        return "not valid JSON: it holds zero bytes, as UTF-16 does; send UTF-8".to_owned();
    }
    let found = NOT_JSON
        .iter()
        .find(|word| is_at(text, error, word))
        .map(|word| format!("; JSON has no `{word}`"));
    format!("not valid JSON: {error}{}", found.unwrap_or_default())
}

/// Whether `word` stands where the parser stopped, which may be a sign or a letter after its
/// beginning.
fn is_at(text: &str, error: &serde_json::Error, word: &str) -> bool {
    let line = text.split('\n').nth(error.line().saturating_sub(1));
    let line = line.unwrap_or_default().as_bytes();
    let stopped = error.column().saturating_sub(1);
    (stopped.saturating_sub(1)..=stopped).any(|start| {
        line.get(start..)
            .is_some_and(|rest| rest.starts_with(word.as_bytes()))
    })
}

fn not_an_object(text: &str) -> &'static str {
    match text.as_bytes().first() {
        Some(b'"') => "a string, not a JSON-RPC object",
        Some(b't' | b'f') => "a boolean, not a JSON-RPC object",
        Some(b'n') => "null, not a JSON-RPC object",
        Some(b'{') => "its members cannot be read",
        _ => "a number, not a JSON-RPC object",
    }
}

fn invalid_member(members: &[(String, &RawValue)]) -> Option<String> {
    let all = |name: &str| {
        let named = members.iter().filter(move |(found, _)| found == name);
        named.map(|(_, value)| value.get()).collect::<Vec<_>>()
    };
    if let Some(name) = MEMBERS.iter().find(|name| all(name).len() > 1) {
        return Some(format!("JSON, but it has `{name}` more than once"));
    }
    let value = |name| all(name).first().copied();
    let not_json_rpc = |problem: &str| Some(format!("JSON, but not valid JSON-RPC 2.0: {problem}"));
    if value("jsonrpc") != Some(r#""2.0""#) {
        return not_json_rpc(r#"`jsonrpc` must be "2.0""#);
    }
    if value("id").is_some_and(|id| !is_id(id)) {
        return not_json_rpc("`id` must be a string or an integer of at most 64 bits");
    }
    match (value("method"), value("result").or(value("error"))) {
        (None, None) => not_json_rpc("`method` is missing"),
        (Some(method), _) if !method.starts_with('"') => not_json_rpc("`method` must be a string"),
        (Some(_), Some(_)) => not_json_rpc("it has `method` and also `result` or `error`"),
        _ => None,
    }
}

fn is_id(value: &str) -> bool {
    value.starts_with('"') || value.parse::<i64>().is_ok()
}

/// The members of an object, equal names included.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}

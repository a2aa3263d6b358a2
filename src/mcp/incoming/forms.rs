//! The forms in which clients write a message's params: PHP sends `[]` for an empty object, and
//! some clients describe themselves in `initialize` in ways of their own.
//!
//! Such a message is rewritten before rmcp reads it, because rmcp would take its method for an
//! unknown one.

use std::borrow::Cow;

use memchr::memchr_iter;
use rmcp::model::{ClientCapabilities, Implementation};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::domain::text::compact_json;

const INITIALIZE: &str = "initialize";
const DISCOVER: &str = "server/discover";
const LIST: &str = "tools/list";

/// The message in the form that rmcp reads; unchanged if it has that form, or none that is known.
/// `None` if rmcp would leave out a member that does not fit.
pub(super) fn normalize<'a>(json: &'a [u8], method: &str) -> Option<Cow<'a, [u8]>> {
    let has_own_forms = matches!(method, INITIALIZE | DISCOVER | LIST);
    if method.is_empty() || !has_own_forms && !holds_empty_array(json) {
        return Some(Cow::Borrowed(json)); // most messages: no more is read of them
    }
    let Ok(mut message) = serde_json::from_slice::<Map<String, Value>>(json) else {
        return Some(Cow::Borrowed(json));
    };
    if method == LIST && has_odd_cursor(&message) {
        return None;
    }
    if rewrite(&mut message, method) {
        Some(Cow::Owned(compact_json(&message).into_bytes()))
    } else {
        Some(Cow::Borrowed(json))
    }
}

/// Whether there is an empty array somewhere, or a string that looks like one.
fn holds_empty_array(json: &[u8]) -> bool {
    let after = |at| json.get(at + 1..).unwrap_or_default();
    memchr_iter(b'[', json).any(|at| after(at).trim_ascii_start().starts_with(b"]"))
}

fn has_odd_cursor(message: &Map<String, Value>) -> bool {
    let cursor = message
        .get("params")
        .and_then(|params| params.get("cursor"));
    cursor.is_some_and(|cursor| !cursor.is_string() && !cursor.is_null())
}

/// Whether anything was rewritten.
fn rewrite(message: &mut Map<String, Value>, method: &str) -> bool {
    let mut rewritten = remove_empty_array(message, "params");
    // rmcp wants params here, even empty ones.
    if method == DISCOVER && message.get("params").is_none_or(Value::is_null) {
        message.insert("params".to_owned(), json!({}));
    }
    if let Some(Value::Object(params)) = message.get_mut("params") {
        rewritten |= remove_empty_array(params, "arguments");
        rewritten |= remove_empty_array(params, "_meta");
        match method {
            INITIALIZE => rewrite_initialize(params),
            DISCOVER => params.retain(|name, _| name == "_meta"),
            _ => {}
        }
    }
    rewritten || matches!(method, INITIALIZE | DISCOVER)
}

/// Removes what PHP writes for an empty object. Whether it was there.
fn remove_empty_array(object: &mut Map<String, Value>, name: &str) -> bool {
    let is_there = object.get(name) == Some(&json!([]));
    if is_there {
        object.shift_remove(name);
    }
    is_there
}

/// Leaves out what does not have the form of the protocol: nothing here depends on it. Only the
/// protocol version is needed.
fn rewrite_initialize(params: &mut Map<String, Value>) {
    if params.get("_meta").is_some_and(|meta| !meta.is_object()) {
        params.shift_remove("_meta");
    }
    let capabilities = readable::<ClientCapabilities>(params.get("capabilities"), &Map::new());
    let nobody = Map::from_iter([
        ("name".to_owned(), json!("")),
        ("version".to_owned(), json!("")),
    ]);
    let client = readable::<Implementation>(params.get("clientInfo"), &nobody);
    params.insert("capabilities".to_owned(), capabilities);
    params.insert("clientInfo".to_owned(), client);
}

/// The members of `value` that a `T` may have, and those of `defaults` that it lacks.
fn readable<T: DeserializeOwned>(value: Option<&Value>, defaults: &Map<String, Value>) -> Value {
    let mut known = Value::Object(defaults.clone());
    for (name, member) in value.and_then(Value::as_object).into_iter().flatten() {
        let before = known.clone();
        if let Some(members) = known.as_object_mut() {
            members.insert(name.clone(), member.clone());
        }
        if T::deserialize(&known).is_err() {
            known = before;
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use rmcp::model::{ClientJsonRpcMessage, ClientRequest};

    use super::*;

    fn normalize(json: &[u8]) -> Option<Cow<'_, [u8]>> {
        let message: Value = serde_json::from_slice(json).unwrap();
        super::normalize(json, message["method"].as_str().unwrap())
    }

    fn request(json: &Value) -> ClientRequest {
        let text = json.to_string();
        match serde_json::from_slice(&normalize(text.as_bytes()).unwrap()).unwrap() {
            ClientJsonRpcMessage::Request(request) => request.request,
            other => panic!("{other:?}"),
        }
    }

    fn message(method: &str, params: &Value) -> Value {
        json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params })
    }

    #[test]
    fn an_ordinary_message_is_not_rewritten() {
        for params in [
            json!({}),
            json!(null),
            json!({ "name": "x", "arguments": { "n": 1e2 }, "_meta": {} }),
            json!({ "name": "x", "arguments": null, "_meta": null }),
            json!({ "name": "x", "arguments": { "data": { "tags": [] } } }),
            json!({ "name": "x", "arguments": { "reason": "[ ]" } }),
        ] {
            let text = message("tools/call", &params).to_string();

            assert!(
                matches!(normalize(text.as_bytes()), Some(Cow::Borrowed(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn an_empty_array_is_like_an_absent_object() {
        for (method, params) in [
            ("ping", json!([])),
            ("tools/list", json!([])),
            ("tools/list", json!({ "_meta": [] })),
            ("server/discover", json!([])),
            (
                "tools/call",
                json!({ "name": "x", "arguments": [], "_meta": [] }),
            ),
        ] {
            let request = request(&message(method, &params));

            assert!(
                !matches!(request, ClientRequest::CustomRequest(_)),
                "{request:?}"
            );
        }
        for (method, params) in [
            ("ping", json!([1])),
            ("tools/call", json!({ "name": "x", "arguments": [1] })),
        ] {
            let text = message(method, &params).to_string();
            let read = serde_json::from_slice(&normalize(text.as_bytes()).unwrap());

            // rmcp does not read it, or takes its method for an unknown one.
            if let Ok(ClientJsonRpcMessage::Request(read)) = read {
                assert!(
                    matches!(read.request, ClientRequest::CustomRequest(_)),
                    "{text}"
                );
            }
        }
        let odd_cursor = message("tools/list", &json!({ "cursor": 5 })).to_string();
        assert!(normalize(odd_cursor.as_bytes()).is_none());
    }

    #[test]
    fn initialize_is_read_whatever_the_client_says_about_itself() {
        for described in [
            json!({}),
            json!({ "capabilities": [], "clientInfo": [], "_meta": [] }),
            json!({ "capabilities": null, "clientInfo": "me", "_meta": 5 }),
            json!({ "capabilities": { "roots": true, "sampling": [], "elicitation": { "form": 5 } } }),
            json!({ "clientInfo": { "name": 5, "version": 6, "icons": "x", "title": [] } }),
        ] {
            let mut params = described.clone();
            params["protocolVersion"] = json!("2025-06-18");

            let ClientRequest::InitializeRequest(request) =
                request(&message("initialize", &params))
            else {
                panic!("not read: {described}");
            };

            assert_eq!(request.params.protocol_version.as_str(), "2025-06-18");
        }
    }

    #[test]
    fn what_is_readable_of_a_client_is_kept() {
        let params = json!({
            "protocolVersion": "2025-06-18",
            "capabilities": { "roots": { "listChanged": true }, "sampling": 5 },
            "clientInfo": { "name": "php", "title": 5, "websiteUrl": "https://example.com" },
        });

        let ClientRequest::InitializeRequest(request) = request(&message("initialize", &params))
        else {
            panic!("not read");
        };

        assert!(request.params.capabilities.roots.is_some());
        assert_eq!(request.params.client_info.name, "php");
        assert_eq!(request.params.client_info.version, "");
        assert!(request.params.client_info.website_url.is_some());
    }
}

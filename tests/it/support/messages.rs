//! JSON-RPC messages, and the results of tool calls.

use serde_json::{Value, json};

/// The protocol revision in which each request carries the client's name and capabilities.
pub(crate) const MODERN: &str = "2026-07-28";

pub(crate) fn request(id: u64, method: &str, params: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

pub(crate) fn tool_call(id: u64, tool: &str, arguments: &Value) -> Value {
    let params = json!({ "name": tool, "arguments": arguments });
    request(id, "tools/call", &params)
}

/// The `params` of `initialize` from a client `name/version`.
pub(crate) fn client_hello(protocol: &str, name: &str, version: &str) -> Value {
    json!({
        "protocolVersion": protocol,
        "capabilities": {},
        "clientInfo": { "name": name, "version": version },
    })
}

/// The `_meta` of a request of revision [`MODERN`] from a client `name/version`.
pub(crate) fn modern_meta(name: &str, version: &str) -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": { "name": name, "version": version },
        "io.modelcontextprotocol/clientCapabilities": {},
    })
}

/// The JSON in a tool's result. Panics unless the result has the contract's form: structured and
/// as text after a success, text only after a failure.
pub(crate) fn tool_output(result: &Value) -> Value {
    let text = result["content"][0]["text"]
        .as_str()
        .unwrap_or_else(|| panic!("a result without text: {result}"));
    let output: Value = serde_json::from_str(text)
        .unwrap_or_else(|error| panic!("a text that is not JSON ({error}): {text}"));
    if result["isError"] == json!(true) {
        assert_eq!(
            result.get("structuredContent"),
            None,
            "a failure has no structured content"
        );
        assert_eq!(output["success"], json!(false), "{output}");
    } else {
        assert_eq!(
            result["structuredContent"], output,
            "the text is the structured content"
        );
        assert_eq!(output["success"], json!(true), "{output}");
    }
    output
}

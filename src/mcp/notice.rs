//! What every client has to know about the store, in every answer: as the first of the warnings.
//!
//! A server whose client passes it no variables works on a local file. Without this, a model would
//! report changes of the site that nobody will see there.

use rmcp::model::{CallToolResponse, CallToolResult, ContentBlock};
use serde_json::{Map, Value, json};

use super::output::answer_text;
use crate::domain::text::{compact_json, escape_all};

/// What clients have to know about the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreNotice {
    /// What the store is, and what that means.
    pub fact: String,
    /// What to do about it.
    pub remedy: String,
}

impl StoreNotice {
    /// Puts the notice before the warnings of an answer: into `meta.warnings`, and into the details
    /// of an error, which has no `meta`.
    pub(super) fn add_to(&self, response: &mut CallToolResponse) {
        let CallToolResponse::Complete(result) = response else {
            return;
        };
        let warning = Value::String(format!("{}; {}", self.fact, self.remedy));
        if result.is_error == Some(true) {
            add_to_error(result, warning);
        } else {
            add_to_success(result, warning);
        }
    }
}

fn add_to_success(result: &mut CallToolResult, warning: Value) {
    let Some(structured) = &mut result.structured_content else {
        return;
    };
    let Some(meta) = structured.get_mut("meta").and_then(Value::as_object_mut) else {
        return;
    };
    insert(meta, warning);
    let text = answer_text(structured);
    result.content = vec![ContentBlock::text(text)];
}

fn add_to_error(result: &mut CallToolResult, warning: Value) {
    let text = result.content.first().and_then(ContentBlock::as_text);
    let Some(mut output) = text.and_then(|text| serde_json::from_str::<Value>(&text.text).ok())
    else {
        return;
    };
    let Some(error) = output.get_mut("error").and_then(Value::as_object_mut) else {
        return;
    };
    let details = error.entry("details").or_insert_with(|| json!({}));
    if let Some(details) = details.as_object_mut() {
        insert(details, warning);
    }
    let text = escape_all(compact_json(&output));
    result.content = vec![ContentBlock::text(text)];
}

fn insert(members: &mut Map<String, Value>, warning: Value) {
    let warnings = members.entry("warnings").or_insert_with(|| json!([]));
    if let Some(warnings) = warnings.as_array_mut() {
        warnings.insert(0, warning);
    }
}

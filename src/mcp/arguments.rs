//! Checks of a call's arguments: accepts what clients write differently, and finds every broken
//! rule.

use std::collections::HashMap;

use jsonschema::Validator;
use rmcp::model::JsonObject;
use serde_json::{Value, json};

use super::{cursor, params::checked_schema, tool_name::ToolName};
use crate::domain::{Timestamp, Violation, patch::parse_json_string, rules, text::truncate};

/// Floats below this become integers without loss.
const MAX_INTEGER_FLOAT: f64 = 1e15;

/// The checks of all tools, made from the declarations that the published schemas are made from.
pub(super) struct ToolChecks(HashMap<&'static str, ToolCheck>);

/// The check of one tool's arguments.
pub(super) struct ToolCheck {
    validator: Validator,
    names: Vec<String>,
}

impl ToolChecks {
    pub(super) fn new(tools: impl IntoIterator<Item = ToolName>) -> Self {
        let checks = tools
            .into_iter()
            .map(|tool| (tool.as_str(), ToolCheck::new(&checked_schema(tool))));
        Self(checks.collect())
    }

    /// The check of a tool's arguments; `None` if there is no such tool.
    pub(super) fn get(&self, tool: &str) -> Option<&ToolCheck> {
        self.0.get(tool)
    }
}

impl ToolCheck {
    fn new(schema: &JsonObject) -> Self {
        let properties = schema.get("properties");
        let names = properties.and_then(Value::as_object);
        Self {
            validator: rules::validator(&with_open_data(schema)),
            names: names
                .into_iter()
                .flat_map(|names| names.keys().cloned())
                .collect(),
        }
    }

    fn knows(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }

    /// The arguments in their published form: clients also send `null` for an absent argument,
    /// objects as strings, and 20.0 for
    /// 20.
    pub(super) fn normalize(&self, mut arguments: JsonObject) -> JsonObject {
        arguments.retain(|name, value| !value.is_null() || !self.knows(name));
        if let Some(data) = arguments.get_mut("data") {
            parse_json_string(data);
        }
        for value in arguments.values_mut() {
            let integer = value.as_f64().filter(|number| {
                value.is_f64() && number.fract() == 0.0 && number.abs() < MAX_INTEGER_FLOAT
            });
            if let Some(number) = integer {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "has no fraction and is far below 2^63"
                )]
                let number = number as i64;
                *value = json!(number);
            }
        }
        arguments
    }

    /// Every rule that the arguments break. Of `data` this checks only that it is an object: its
    /// fields are checked together with the stored document.
    pub(super) fn violations(&self, arguments: &Value) -> Vec<Violation> {
        let mut found = rules::violations(&self.validator, arguments);
        for violation in found
            .iter_mut()
            .filter(|violation| violation.rule == "unknown")
        {
            let names = self.names.iter().map(String::as_str);
            *violation =
                Violation::unknown(violation.path.clone(), "argument", &violation.path, names);
        }
        for name in ["since", "until"] {
            if let Some(text) = string_argument(arguments, name)
                && Timestamp::parse(text).is_none()
            {
                let message = format!(
                    "expected an RFC 3339 time such as `2026-11-22T10:15:30Z`, found `{}`",
                    truncate(text)
                );
                found.push(Violation::new(name, "date-time", message));
            }
        }
        if let Some(cursor) = string_argument(arguments, "cursor")
            && let Err(violation) = cursor::decode_any(cursor)
        {
            found.push(violation);
        }
        found
    }
}

fn string_argument<'a>(arguments: &'a Value, name: &str) -> Option<&'a str> {
    arguments.get(name).and_then(Value::as_str)
}

/// The schema of a tool's arguments, with any object allowed as `data`.
fn with_open_data(schema: &JsonObject) -> Value {
    let mut schema = schema.clone();
    if let Some(data) = schema
        .get_mut("properties")
        .and_then(|properties| properties.get_mut("data"))
    {
        *data = json!({ "type": "object" });
    }
    Value::Object(schema)
}

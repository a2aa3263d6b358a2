//! Requests whose method or params this server does not have, in words: which member of a known
//! method's params does not fit.

use rmcp::{ErrorData, model::ErrorCode};
use serde_json::{Map, Value};

use crate::domain::{json::type_name, text::truncate};

/// A member of a method's params.
struct Member {
    name: &'static str,
    form: Form,
    presence: Presence,
}

#[derive(Clone, Copy)]
enum Form {
    Text,
    Object,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    Required,
    Optional,
}

const META: Member = Member {
    name: "_meta",
    form: Form::Object,
    presence: Presence::Optional,
};

/// The members of the params of each method, in the order in which they are checked.
fn members_of(method: &str) -> Option<&'static [Member]> {
    const INITIALIZE: &[Member] = &[
        Member {
            name: "protocolVersion",
            form: Form::Text,
            presence: Presence::Required,
        },
        META,
    ];
    const CALL: &[Member] = &[
        Member {
            name: "name",
            form: Form::Text,
            presence: Presence::Required,
        },
        Member {
            name: "arguments",
            form: Form::Object,
            presence: Presence::Optional,
        },
        META,
        Member {
            name: "inputResponses",
            form: Form::Object,
            presence: Presence::Optional,
        },
        Member {
            name: "requestState",
            form: Form::Text,
            presence: Presence::Optional,
        },
    ];
    const LIST: &[Member] = &[
        Member {
            name: "cursor",
            form: Form::Text,
            presence: Presence::Optional,
        },
        META,
    ];
    match method {
        "initialize" => Some(INITIALIZE),
        "tools/call" => Some(CALL),
        "tools/list" => Some(LIST),
        "ping" | "server/discover" => Some(&[META]),
        _ => None,
    }
}

/// The error of a request whose params could not be read as those of its method, or whose method is
/// not known.
pub(super) fn error(method: &str, params: Option<&Value>) -> ErrorData {
    if let Some(problem) = describe(method, params) {
        return ErrorData::invalid_params(problem, None);
    }
    no_method(method)
}

/// The error of a method that is not known.
pub(super) fn no_method(method: &str) -> ErrorData {
    let message = format!("this server has no method `{}`", truncate(method));
    ErrorData::new(ErrorCode::METHOD_NOT_FOUND, message, None)
}

/// The error of `initialize` in a protocol revision without it.
pub(super) fn no_initialize() -> ErrorData {
    let message = "this protocol revision has no method `initialize`; send `server/discover`";
    ErrorData::new(ErrorCode::METHOD_NOT_FOUND, message, None)
}

/// What is wrong with the params; `None` if the method is not known.
fn describe(method: &str, params: Option<&Value>) -> Option<String> {
    let members = members_of(method)?;
    let nothing = Map::new();
    let params = match params {
        None | Some(Value::Null) => &nothing,
        Some(Value::Object(params)) => params,
        Some(other) => {
            let found = type_name(other);
            return Some(format!(
                "`params` of {method} must be an object, found {found}"
            ));
        }
    };
    let problem = members.iter().find_map(|member| member.problem(params));
    Some(match problem {
        Some(problem) => format!("{problem} in the params of {method}"),
        None => format!("the params of {method} do not have the form of the protocol"),
    })
}

impl Member {
    fn problem(&self, params: &Map<String, Value>) -> Option<String> {
        let name = self.name;
        let wanted = match self.form {
            Form::Text => "a string",
            Form::Object => "an object",
        };
        match (params.get(name), self.form) {
            (None, _) if self.presence == Presence::Required => {
                Some(format!("`{name}` is missing (expected {wanted})"))
            }
            (None, _)
            | (Some(Value::String(_)), Form::Text)
            | (Some(Value::Object(_)), Form::Object) => None,
            (Some(Value::Null), _) if self.presence == Presence::Optional => None,
            (Some(other), _) => {
                let found = type_name(other);
                Some(format!("`{name}` must be {wanted}, found {found},"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_member_that_does_not_fit_is_named() {
        for (method, params, says) in [
            (
                "tools/call",
                json!("x"),
                "`params` of tools/call must be an object, found a string",
            ),
            (
                "tools/call",
                json!({}),
                "`name` is missing (expected a string)",
            ),
            (
                "tools/call",
                json!({ "name": null }),
                "`name` must be a string, found null",
            ),
            (
                "tools/call",
                json!({ "name": "x", "arguments": [1] }),
                "`arguments` must be an object, found an array",
            ),
            (
                "tools/call",
                json!({ "name": "x", "_meta": 5 }),
                "`_meta` must be an object, found a number",
            ),
            (
                "tools/list",
                json!({ "cursor": 5 }),
                "`cursor` must be a string, found a number",
            ),
            ("initialize", json!({}), "`protocolVersion` is missing"),
            ("ping", json!([1]), "`params` of ping must be an object"),
            ("tools/call", json!({ "name": "x" }), "form of the protocol"),
        ] {
            let described = describe(method, Some(&params)).unwrap();

            assert!(described.contains(says), "{described}");
        }
        assert_eq!(describe("prompts/list", Some(&json!(5))), None);
    }
}

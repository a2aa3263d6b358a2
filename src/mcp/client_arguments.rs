//! Arguments that client programs add to every call of their own accord: they are ignored and named,
//! because the model that made the call cannot leave them out.

use rmcp::model::JsonObject;
use serde_json::Value;

use crate::domain::{similar::is_same_name, text::truncate};

/// What n8n (the first four) and Gemini CLI add.
const ADDED: [&str; 5] = [
    "toolCallId",
    "sessionId",
    "chatInput",
    "tool",
    "wait_for_previous",
];
/// n8n adds these together with an `action` of its own.
const BESIDE_ACTION: [&str; 3] = ["toolCallId", "chatInput", "sessionId"];
/// The actions that the log has.
const LOG_ACTIONS: [&str; 6] = ["create", "update", "delete", "read", "revert", "adopt"];

/// A warning names this many arguments and counts the rest.
const MAX_NAMED: usize = 8;

/// Takes out of the arguments what a client added, and returns the names; `known` are the tool's own.
pub(super) fn take(arguments: &mut JsonObject, tool: &KnownArguments) -> Vec<String> {
    let with_action = BESIDE_ACTION
        .iter()
        .any(|name| arguments.contains_key(*name));
    let mut taken = Vec::new();
    arguments.retain(|name, value| {
        let ignored = if tool.has(name) {
            name == "action" && with_action && !is_log_action(value)
        } else {
            tool.is_added(name)
        };
        if ignored {
            taken.push(name.clone());
        }
        !ignored
    });
    taken
}

fn is_log_action(value: &Value) -> bool {
    value
        .as_str()
        .is_some_and(|action| LOG_ACTIONS.contains(&action))
}

/// The arguments of a tool.
pub(super) struct KnownArguments {
    pub(super) names: Vec<String>,
    pub(super) required: Vec<String>,
    pub(super) effect: Effect,
}

/// What a call of a tool may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Reads,
    Writes,
}

impl KnownArguments {
    pub(super) fn has(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }

    pub(super) fn is_optional(&self, name: &str) -> bool {
        self.has(name) && !self.required.iter().any(|required| required == name)
    }

    /// The argument that an underscored name may mean, on a tool where ignoring it would write what
    /// was only to be tried.
    pub(super) fn meant_by_underscored(&self, name: &str) -> Option<&str> {
        if self.effect == Effect::Reads || !name.starts_with('_') {
            return None;
        }
        let known = self.names.iter().find(|known| is_same_name(name, known));
        known.map(String::as_str)
    }

    /// Whether a client adds this argument, which the tool does not have.
    fn is_added(&self, name: &str) -> bool {
        ADDED.contains(&name)
            || name == "action"
            || (name.starts_with('_') && self.meant_by_underscored(name).is_none())
    }
}

/// The warning that names the ignored arguments.
pub(super) fn warning(ignored: &[String]) -> String {
    let named: Vec<String> = ignored
        .iter()
        .take(MAX_NAMED)
        .map(|name| format!("`{}`", truncate(name)))
        .collect();
    let more = match ignored.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "ignored arguments that this tool does not have: {}{more}",
        named.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn taken(effect: Effect, known: &[&str], arguments: &Value) -> Vec<String> {
        let tool = KnownArguments {
            names: known.iter().map(ToString::to_string).collect(),
            required: Vec::new(),
            effect,
        };
        take(&mut arguments.as_object().unwrap().clone(), &tool)
    }

    #[test]
    fn the_filter_action_is_kept_unless_n8n_sent_it() {
        let taken = |arguments: &Value| taken(Effect::Reads, &["action", "limit"], arguments);

        assert!(taken(&json!({ "action": "sendMessage" })).is_empty());
        assert!(taken(&json!({ "action": "publish", "tool": "x" })).len() == 1);
        assert_eq!(
            taken(&json!({ "action": "update", "sessionId": "1" })),
            ["sessionId"]
        );
        for beside in BESIDE_ACTION {
            let arguments = json!({ "action": "sendMessage", beside: "x", "limit": 1 });
            assert_eq!(taken(&arguments), ["action", beside]);
        }
        assert_eq!(
            taken(&json!({ "action": 5, "chatInput": "x" })),
            ["action", "chatInput"]
        );
    }

    #[test]
    fn a_writing_tool_does_not_ignore_what_may_mean_one_of_its_arguments() {
        let names = ["id", "dryRun"];
        let sent = json!({ "_dryRun": true, "_dry_run": true, "__dryRun": true, "_id": "x", "_": 1, "_sessionID": 1 });

        assert_eq!(taken(Effect::Writes, &names, &sent), ["_", "_sessionID"]);
        assert_eq!(taken(Effect::Reads, &names, &sent).len(), 6);
    }

    #[test]
    fn an_argument_of_the_tool_is_never_taken() {
        let sent = json!({ "tool": "x", "sessionId": "y", "_x": 1 });

        assert!(taken(Effect::Reads, &["tool", "sessionId", "_x"], &sent).is_empty());
    }

    #[test]
    fn a_warning_names_a_few_and_counts_the_rest() {
        let names: Vec<String> = (0..10).map(|number| format!("_{number}")).collect();

        assert!(warning(&names).ends_with("`_7` and 2 more"));
    }
}

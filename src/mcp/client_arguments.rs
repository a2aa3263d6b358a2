//! Arguments that client programs add to every call of their own accord: they are ignored and named,
//! because the model that made the call cannot leave them out.

use rmcp::model::JsonObject;
use serde_json::Value;

use super::{output::answer_text, tool_name::Effect};
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

/// Stands among the names of the ignored arguments for the `action` of a tool that has one. No
/// argument that is ignored has this name.
const OWN_ACTION: &str = "action of the tool";

/// A warning names this many arguments and counts the rest.
const MAX_NAMED: usize = 8;
/// The length of those names in the text of an answer.
const MAX_NAMED_BYTES: usize = 600;

/// Takes out of the arguments what a client added, and returns the names for [`warning`].
pub(super) fn take(arguments: &mut JsonObject, tool: &KnownArguments) -> Vec<String> {
    let with_action = BESIDE_ACTION
        .iter()
        .any(|name| arguments.contains_key(*name));
    let mut taken = Vec::new();
    arguments.retain(|name, value| {
        let ignored = if tool.has(name) {
            let is_foreign = name == "action" && with_action && !is_log_action(value);
            is_foreign.then_some(OWN_ACTION)
        } else {
            tool.is_added(name).then_some(name.as_str())
        };
        taken.extend(ignored.map(ToOwned::to_owned));
        ignored.is_none()
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

/// The warning that names the ignored arguments, which [`take`] returned.
pub(super) fn warning(ignored: &[String]) -> String {
    let (own, unknown): (Vec<&str>, Vec<&str>) = ignored
        .iter()
        .map(String::as_str)
        .partition(|name| *name == OWN_ACTION);
    let mut parts = Vec::new();
    if !unknown.is_empty() {
        let names = list(&unknown);
        parts.push(format!(
            "ignored arguments that this tool does not have: {names}"
        ));
    }
    if !own.is_empty() {
        parts.push(
            "ignored `action`: its value is none of the log's actions and was taken for the client's own; to filter by action, send one such as `update`"
                .to_owned(),
        );
    }
    parts.join("; ")
}

/// The first names, and how many more there are.
fn list(names: &[&str]) -> String {
    let mut shown = Vec::new();
    let mut room = MAX_NAMED_BYTES;
    for name in names.iter().take(MAX_NAMED) {
        let name = format!("`{}`", truncate(name));
        // The comma and the space are as long as the quotation marks.
        let Some(rest) = room.checked_sub(answer_text(&name).len()) else {
            break;
        };
        room = rest;
        shown.push(name);
    }
    match names.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
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
            assert_eq!(taken(&arguments), [OWN_ACTION, beside]);
        }
        assert_eq!(
            taken(&json!({ "action": 5, "chatInput": "x" })),
            [OWN_ACTION, "chatInput"]
        );
    }

    #[test]
    fn a_warning_does_not_deny_an_argument_that_the_tool_has() {
        let warning_of = |known: &[&str], arguments: &Value| {
            let taken = taken(Effect::Reads, known, arguments);
            warning(&taken)
        };
        let sent = json!({ "action": "Update", "sessionId": "x" });

        let of_log = warning_of(&["action"], &sent);
        let of_list = warning_of(&["limit"], &sent);

        assert!(
            of_log.starts_with(
                "ignored arguments that this tool does not have: `sessionId`; ignored `action`: "
            ),
            "{of_log}"
        );
        assert!(of_log.contains("such as `update`"), "{of_log}");
        assert!(
            of_list.ends_with(" have: `action`, `sessionId`"),
            "{of_list}"
        );
    }

    #[test]
    fn a_warning_is_short_as_an_answer_writes_it() {
        for filler in ["\u{a0}", "\u{202f}", "\"", "é", "😀", "\u{1}", "x"] {
            for length in [20, 79, 500] {
                let names: Vec<String> = (0..100)
                    .map(|number| format!("_{number}{}", filler.repeat(length)))
                    .collect();

                let warning = warning(&names);
                let written = answer_text(&warning);

                assert!(written.len() < 700, "{written}");
                assert!(warning.contains("`_0"), "{warning}");
                assert!(warning.ends_with(" more"), "{warning}");
            }
        }
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

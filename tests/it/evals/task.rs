//! The tasks of the evaluation, as `tests/evals/tasks` declares them.

use std::{collections::BTreeMap, fs, path::PathBuf};

use portfolio_mcp::domain::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The files with the tasks, in the order of the tasks' numbers.
const FILES: [&str; 4] = ["content", "history", "authoring", "batch"];

/// A request of a site's owner, the content it is made on, and what is right at the end.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Task {
    pub(crate) id: String,
    /// What the owner says.
    pub(crate) request: String,
    /// What the owner says after the first reply. Nothing may be written before.
    pub(crate) then: Option<String>,
    #[serde(default = "default_toolsets")]
    pub(crate) toolsets: String,
    /// What others did before.
    #[serde(default)]
    pub(crate) setup: Vec<Step>,
    /// What somebody else does right after the model's first call.
    pub(crate) meanwhile: Option<Step>,
    pub(crate) expect: Expectation,
    /// The least number of calls that do what the owner says, with the care that the server asks for.
    pub(crate) least_calls: usize,
    /// Calls and replies that solve the task.
    pub(crate) reference: Vec<Turn>,
}

/// A call of somebody else.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Step {
    /// How long before the task begins, such as `3 hours`.
    pub(crate) ago: Option<String>,
    pub(crate) actor: String,
    /// The client and its version.
    pub(crate) client: String,
    pub(crate) tool: String,
    pub(crate) arguments: Value,
}

/// What is right at the end. Whatever it does not name has to stay as it was.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Expectation {
    /// For each document that differs: what differs from the start. `null`: it is gone.
    #[serde(default)]
    pub(crate) documents: BTreeMap<String, Value>,
    /// The actions that the new entries of the log may have.
    #[serde(default = "default_actions")]
    pub(crate) actions: Vec<String>,
    /// The most entries; otherwise as many as `documents`.
    pub(crate) most_writes: Option<usize>,
    /// What the reason in the log has to mention.
    #[serde(default)]
    pub(crate) reason_mentions: Vec<String>,
    /// Whether a dry run has to come before the first reply.
    #[serde(default)]
    pub(crate) previewed: bool,
    #[serde(default, rename = "answer")]
    pub(crate) reply: ReplyExpectation,
}

/// What the last reply to the owner has to be like.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReplyExpectation {
    /// It asks something.
    #[serde(default)]
    pub(crate) asks: bool,
    /// It says that something cannot be done.
    #[serde(default)]
    pub(crate) refuses: bool,
    /// One of each group occurs in it.
    #[serde(default)]
    pub(crate) mentions: Vec<Vec<String>>,
    /// None of these occurs in it.
    #[serde(default)]
    pub(crate) lacks: Vec<String>,
}

/// What a model does next.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(untagged)]
pub(crate) enum Turn {
    Call {
        tool: String,
        arguments: Value,
        /// What came of it when it was recorded: `ok`, or the code of the error.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        outcome: Option<String>,
    },
    Reply {
        #[serde(rename = "answer")]
        text: String,
    },
}

fn default_toolsets() -> String {
    "content".to_owned()
}

fn default_actions() -> Vec<String> {
    vec!["update".to_owned()]
}

/// A path in `tests/evals`.
pub(crate) fn evals_path(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/evals")
        .join(path)
}

/// Every task, in the order of its number.
pub(crate) fn tasks() -> Vec<Task> {
    let read = |name| read_list::<Task>(&format!("tasks/{name}.json"));
    FILES.into_iter().flat_map(read).collect()
}

/// What happened in the weeks before every task.
pub(crate) fn history() -> Vec<Step> {
    read_list("content/history.json")
}

fn read_list<T: serde::de::DeserializeOwned>(path: &str) -> Vec<T> {
    let text = fs::read_to_string(evals_path(path)).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("tests/evals/{path}: {error}"))
}

/// The time that lies this long before `start`: `3 hours`, `90 seconds`.
pub(crate) fn ago(start: Timestamp, duration: &str) -> Option<Timestamp> {
    let (number, unit) = duration.split_once(' ')?;
    let seconds = match unit.trim_end_matches('s') {
        "second" => 1,
        "minute" => 60,
        "hour" => 3600,
        "day" => 24 * 3600,
        _ => return None,
    };
    let number: i64 = number.parse().ok()?;
    Some(Timestamp::from_millis(
        start.millis() - 1000 * seconds * number,
    ))
}

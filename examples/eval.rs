//! The evaluation in `tests/evals`: the command line through which a language model does what the
//! owner of a website asks for. The model sees what a client shows of the server, and nothing else.
//!
//! ```text
//! cargo build --locked --bins --example eval
//! eval start RUN               prepares all tasks in the new folder RUN
//! eval task RUN N              shows what the owner says, the instructions and the tools
//! eval call RUN N TOOL         makes a call, with the arguments from standard input
//! eval answer RUN N            replies to the owner, with the text from standard input
//! eval score RUN               says which tasks are solved
//! eval record RUN              keeps the calls in tests/evals/recordings
//! ```
use std::{
    collections::BTreeMap,
    env,
    error::Error,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use anstream::println;
use portfolio_mcp::{
    clock,
    domain::Timestamp,
    store::{self, Location, Store},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use evals::{
    check::{Done, problems},
    recording::{RecordedTask, Recording},
    reference::Results,
    session::{Called, Offer, call},
    start,
    state::State,
    task::{Task, Turn, evals_path, tasks},
};
use support::stdio::StdioClient;

#[path = "../tests/it/evals"]
#[expect(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "shared with the tests, which use the rest of it"
)]
mod evals {
    pub(crate) mod check;
    pub(crate) mod recording;
    pub(crate) mod reference;
    pub(crate) mod session;
    pub(crate) mod start;
    pub(crate) mod state;
    pub(crate) mod task;
}

#[path = "../tests/it/support"]
#[expect(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the kit is for tests, which use the rest of it"
)]
mod support {
    pub(crate) mod fixtures;
    pub(crate) mod messages;
    pub(crate) mod process;
    pub(crate) mod soundness;
    pub(crate) mod stdio;
    pub(crate) mod wait;
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Characters in a token.
const TOKEN: usize = 4;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let open = |run: &str, number: &str| OneTask::open(Path::new(run), number);
    match words.as_slice() {
        ["start", run] => start_run(Path::new(run)).await,
        ["task", run, number] => {
            println!("{}", open(run, number)?.shown());
            Ok(())
        }
        ["call", run, number, tool] => make_call(&open(run, number)?, tool).await,
        ["answer", run, number] => reply(&open(run, number)?).await,
        ["score", run] => score(Path::new(run)).await,
        ["record", run] => record(Path::new(run)).await,
        _ => Err("expected: start RUN, task RUN N, call RUN N TOOL < ARGUMENTS, answer RUN N < TEXT, score RUN, or record RUN".into()),
    }
}

/// A task of a run, in a folder of its own.
struct OneTask {
    task: Task,
    folder: PathBuf,
    begin: Begin,
    turns: Vec<Logged>,
}

/// What a task begins with.
#[derive(Deserialize, Serialize)]
struct Begin {
    /// Milliseconds since 1970.
    start: i64,
    offer: Offer,
    setup: Vec<Value>,
    state: State,
}

/// A turn as it is kept in the folder of its task.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Logged {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    call: Option<LoggedCall>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reply: Option<LoggedReply>,
}

#[derive(Deserialize, Serialize)]
struct LoggedCall {
    tool: String,
    arguments: Value,
    called: Called,
}

#[derive(Deserialize, Serialize)]
struct LoggedReply {
    text: String,
    /// The number of entries in the log at that moment.
    entries: usize,
    /// What the owner says to it.
    owner: Option<String>,
}

async fn start_run(run: &Path) -> Result<()> {
    fs::create_dir_all(run)?;
    let run = run.canonicalize()?;
    let mut offers: BTreeMap<String, Offer> = BTreeMap::new();
    for (index, task) in tasks().into_iter().enumerate() {
        let folder = run.join(format!("{:02}", index + 1));
        fs::create_dir(&folder)?;
        let now = clock();
        let store = open_store(&folder)?;
        let repository = store.repository.clone();
        let setup = start::fill(store, &task, now).await;
        let offer = match offers.get(&task.toolsets) {
            Some(offer) => offer.clone(),
            None => Offer::from(&connect(&folder, &task.toolsets)?).await,
        };
        offers.insert(task.toolsets.clone(), offer.clone());
        let begin = Begin {
            start: now.millis(),
            offer,
            setup,
            state: State::of(&*repository).await,
        };
        fs::write(folder.join("begin.json"), serde_json::to_string(&begin)?)?;
    }
    println!("{} tasks are prepared in {}", tasks().len(), run.display());
    Ok(())
}

impl OneTask {
    fn open(run: &Path, number: &str) -> Result<Self> {
        let index = number.parse::<usize>()?.checked_sub(1);
        let task = index.and_then(|index| tasks().into_iter().nth(index));
        let task = task.ok_or("there is no task of this number")?;
        let folder = run.join(format!("{number:0>2}")).canonicalize()?;
        let begin = serde_json::from_str(&fs::read_to_string(folder.join("begin.json"))?)?;
        let turns = fs::read_to_string(folder.join("turns.jsonl")).unwrap_or_default();
        let turns: std::result::Result<_, _> = turns.lines().map(serde_json::from_str).collect();
        Ok(Self {
            task,
            folder,
            begin,
            turns: turns?,
        })
    }

    fn calls(&self) -> impl Iterator<Item = &LoggedCall> {
        self.turns.iter().filter_map(|turn| turn.call.as_ref())
    }

    fn replies(&self) -> impl Iterator<Item = &LoggedReply> {
        self.turns.iter().filter_map(|turn| turn.reply.as_ref())
    }

    /// Whether the owner has nothing more to say.
    fn is_closed(&self) -> bool {
        self.replies()
            .last()
            .is_some_and(|reply| reply.owner.is_none())
    }

    /// What the owner says to a reply, if anything.
    fn owner(&self, reply: &str, entries: usize) -> Option<String> {
        if self.replies().count() > 0 {
            return None;
        }
        if let Some(then) = &self.task.then {
            return Some(then.clone());
        }
        let is_pending = !self.task.expect.documents.is_empty()
            && entries == self.begin.state.entries.len() + usize::from(self.was_interfered());
        let agreed = if self.task.id.ends_with("-fr") {
            "Oui, vas-y."
        } else {
            "Yes, please go ahead."
        };
        (is_pending && reply.contains('?')).then(|| agreed.to_owned())
    }

    fn was_interfered(&self) -> bool {
        self.task.meanwhile.is_some() && self.calls().count() > 0
    }

    fn results(&self) -> Results {
        Results {
            start: Timestamp::from_millis(self.begin.start),
            setup: self.begin.setup.clone(),
            calls: Vec::new(),
        }
    }

    fn add(&self, turn: &Logged) -> Result<()> {
        let path = self.folder.join("turns.jsonl");
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        writeln!(file, "{}", serde_json::to_string(turn)?)?;
        Ok(())
    }

    /// What the model sees before its first call.
    fn shown(&self) -> String {
        let request = self.results().resolve_text(&self.task.request);
        let mut text = format!(
            "The owner of the website says:\n\n{request}\n\nIt is {} now. You work with the MCP server `portfolio-mcp`. Its instructions:\n\n{}\n\nIts tools:\n",
            Timestamp::from_millis(self.begin.start),
            self.begin.offer.instructions
        );
        for tool in &self.begin.offer.tools {
            let part = |name: &str| tool[name].as_str().unwrap_or_default();
            let (name, description) = (part("name"), part("description"));
            let arguments = &tool["inputSchema"];
            let tool = format!("\n## {name}\n{description}\nArguments: {arguments}\n");
            text.push_str(&tool);
        }
        text
    }

    /// What a model read and wrote, in tokens.
    fn tokens(&self) -> usize {
        let calls = self.calls().map(|call| {
            let written = call.tool.len() + call.arguments.to_string().chars().count();
            written + call.called.text.chars().count()
        });
        let replies = self.replies().map(|reply| reply.text.chars().count());
        let shown = self.shown().chars().count();
        (shown + calls.sum::<usize>() + replies.sum::<usize>()).div_ceil(TOKEN)
    }

    async fn problems(&self) -> Result<Vec<String>> {
        let state = State::of(&*open_store(&self.folder)?.repository).await;
        let done: Vec<Done> = self
            .turns
            .iter()
            .filter_map(|turn| match turn {
                Logged {
                    call: Some(call), ..
                } => Some(Done::Call {
                    arguments: call.arguments.clone(),
                    called: call.called.clone(),
                }),
                Logged {
                    reply: Some(reply), ..
                } => Some(Done::Reply {
                    text: reply.text.clone(),
                    entries: reply.entries,
                }),
                Logged { .. } => None,
            })
            .collect();
        Ok(problems(&self.task, &self.begin.state, &state, &done))
    }

    /// The turns, without what differs each time.
    fn turns(&self) -> Vec<Turn> {
        let mut results = self.results();
        let mut turns = Vec::new();
        for turn in &self.turns {
            if let Some(call) = &turn.call {
                turns.push(Turn::Call {
                    tool: call.tool.clone(),
                    arguments: results.refer(&call.arguments),
                    outcome: Some(call.called.outcome()),
                });
                results.calls.push(call.called.result.clone());
            }
            if let Some(reply) = &turn.reply {
                turns.push(Turn::Reply {
                    text: reply.text.clone(),
                });
            }
        }
        turns
    }
}

async fn make_call(task: &OneTask, tool: &str) -> Result<()> {
    if task.is_closed() {
        return Err("the task is closed".into());
    }
    let text = io::read_to_string(io::stdin())?;
    let text = if text.trim().is_empty() { "{}" } else { &text };
    let arguments: Value = serde_json::from_str(text)
        .map_err(|error| format!("the arguments on standard input are not JSON: {error}"))?;
    let client = connect(&task.folder, &task.task.toolsets)?;
    Offer::from(&client).await;
    let called = call(&client, tool, &arguments).await;
    drop(client);
    println!("{}", called.text);
    task.add(&Logged {
        call: Some(LoggedCall {
            tool: tool.to_owned(),
            arguments,
            called,
        }),
        reply: None,
    })?;
    if let (0, Some(step)) = (task.calls().count(), &task.task.meanwhile) {
        start::interfere(open_store(&task.folder)?, step).await;
    }
    Ok(())
}

async fn reply(task: &OneTask) -> Result<()> {
    if task.is_closed() {
        return Err("the task is closed".into());
    }
    let text = io::read_to_string(io::stdin())?.trim().to_owned();
    let state = State::of(&*open_store(&task.folder)?.repository).await;
    let entries = state.entries.len();
    let owner = task.owner(&text, entries);
    match &owner {
        Some(owner) => println!("The owner says:\n\n{owner}"),
        None => println!("The task is closed."),
    }
    let reply = LoggedReply {
        text,
        entries,
        owner,
    };
    task.add(&Logged {
        call: None,
        reply: Some(reply),
    })
}

/// The numbers of the tasks.
fn numbers() -> impl Iterator<Item = String> {
    (1..=tasks().len()).map(|number| number.to_string())
}

/// Every task of a run, and whether it is solved.
async fn recorded(run: &Path) -> Result<Recording> {
    let mut recording = Recording {
        solved: 0,
        calls: 0,
        tokens: 0,
        tasks: Vec::new(),
    };
    for number in numbers() {
        let task = OneTask::open(run, &number)?;
        let problems = task.problems().await?;
        recording.solved += usize::from(problems.is_empty());
        recording.calls += task.calls().count();
        recording.tokens += task.tokens();
        recording.tasks.push(RecordedTask {
            id: task.task.id.clone(),
            hash: task.begin.offer.hash(),
            problems,
            turns: task.turns(),
        });
    }
    Ok(recording)
}

async fn score(run: &Path) -> Result<()> {
    let recording = recorded(run).await?;
    let mut least = 0;
    for (number, recorded) in numbers().zip(&recording.tasks) {
        let task = OneTask::open(run, &number)?;
        let verdict = if recorded.problems.is_empty() {
            "pass".to_owned()
        } else {
            format!("FAIL: {}", recorded.problems.join("; "))
        };
        least += task.task.least_calls;
        println!(
            "{number:>2} {:<22} {} calls (least {}), {} tokens: {verdict}",
            recorded.id,
            task.calls().count(),
            task.task.least_calls,
            task.tokens(),
        );
    }
    println!(
        "{} calls (least {least}), {} tokens",
        recording.calls, recording.tokens
    );
    println!("{} of {}", recording.solved, recording.tasks.len());
    Ok(())
}

async fn record(run: &Path) -> Result<()> {
    let run = run.canonicalize()?;
    let name = run.file_name().ok_or("the folder has no name")?;
    let path = evals_path("recordings").join(name).with_extension("json");
    let recording = recorded(&run).await?;
    recording.write(&path)?;
    println!("recorded in {}", path.display());
    Ok(())
}

fn open_store(folder: &Path) -> Result<Store> {
    Ok(store::open(&Location::Sqlite(folder.join("content.db")))?)
}

/// A client of the server that was built with this program, before the handshake.
fn connect(folder: &Path, toolsets: &str) -> Result<StdioClient> {
    let this = env::current_exe()?;
    let server = this.parent().and_then(Path::parent);
    let server = server.ok_or("this program is in no folder")?;
    let server = server.join(format!("portfolio-mcp{}", env::consts::EXE_SUFFIX));
    if !server.exists() {
        let build = "cargo build --locked --bins --example eval";
        return Err(format!("there is no {}; run {build}", server.display()).into());
    }
    let home = tempfile::tempdir()?;
    let mut command = Command::new(server);
    command
        .env_clear()
        .env("HOME", home.path())
        .args(["stdio", "--toolsets", toolsets, "--store"])
        .arg(format!("sqlite:{}", folder.join("content.db").display()));
    Ok(StdioClient::spawn(home, command))
}

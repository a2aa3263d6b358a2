//! The evaluation with language models in `tests/evals`: its tasks can be solved, and what models did
//! in the recorded runs is done again.
//!
//! `examples/eval.rs` is the command line through which a model works.

use std::{
    io::{self, Write as _},
    path::Path,
    sync::mpsc,
    thread,
};

use portfolio_mcp::{clock, domain::Timestamp};
use tempfile::TempDir;

use self::{
    check::{Done, problems},
    recording::{RecordedTask, Recording},
    reference::Results,
    session::{Offer, call},
    state::State,
    task::{Task, Turn, tasks},
};
use crate::support::{
    program::{Home, PROGRAM},
    stdio::StdioClient,
    stores::Store,
};

mod check;
mod recording;
mod reference;
mod session;
mod start;
mod state;
mod task;

/// How many tasks are played at once.
const THREADS: usize = 2;

/// What came of the turns of a task.
struct Played {
    /// What a model sees of the server.
    offer: Offer,
    outcomes: Vec<String>,
    /// Why the task is not solved.
    problems: Vec<String>,
}

/// Does the turns of a task on content of its own.
async fn play(task: &Task, turns: &[Turn]) -> Played {
    let store = Store::sqlite();
    let now = clock();
    let mut results = Results {
        start: now,
        setup: start::fill(store.open(), task, now).await,
        calls: Vec::new(),
    };
    let request = results.resolve_text(&task.request);
    assert!(!request.contains("${"), "{request}");
    let before = State::of(&*store.repository).await;
    let client = connect(&store, &task.toolsets);
    let offer = Offer::from(&client).await;
    let (mut done, mut outcomes) = (Vec::new(), Vec::new());
    for turn in turns {
        match turn {
            Turn::Call {
                tool, arguments, ..
            } => {
                let arguments = results.resolve(arguments);
                let called = call(&client, tool, &arguments).await;
                outcomes.push(called.outcome());
                results.calls.push(called.result.clone());
                done.push(Done::Call { arguments, called });
                if let (1, Some(step)) = (results.calls.len(), &task.meanwhile) {
                    start::interfere(store.open(), step).await;
                }
            }
            Turn::Reply { text } => {
                let entries = State::of(&*store.repository).await.entries.len();
                done.push(Done::Reply {
                    text: text.clone(),
                    entries,
                });
            }
        }
    }
    let after = State::of(&*store.repository).await;
    store.assert_sound().await;
    Played {
        offer,
        outcomes,
        problems: problems(task, &before, &after, &done),
    }
}

/// Fills an empty store with the content of the tasks.
pub(crate) async fn fill_with_content(store: &Store, now: Timestamp) {
    start::fill(store.open(), &tasks()[0], now).await;
}

/// A client of the program, before the handshake.
fn connect(store: &Store, toolsets: &str) -> StdioClient {
    let home = Home::new();
    let mut command = home.command(PROGRAM);
    command
        .args(["stdio", "--toolsets", toolsets])
        .args(store.arguments());
    StdioClient::spawn(TempDir::from(home), command)
}

/// Checks each item, several at once; gives what is said of them, sorted.
fn check_all<T: Sync>(items: &[T], check: impl AsyncFn(&T) -> Vec<String> + Sync) -> Vec<String> {
    let (sender, found) = mpsc::channel();
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (sender, check) = (sender.clone(), &check);
            scope.spawn(move || {
                let mut builder = tokio::runtime::Builder::new_current_thread();
                let runtime = builder.enable_all().build().unwrap();
                for item in items.iter().skip(number).step_by(THREADS) {
                    sender.send(runtime.block_on(check(item))).unwrap();
                }
            });
        }
    });
    drop(sender);
    let mut found: Vec<String> = found.into_iter().flatten().collect();
    found.sort();
    found
}

#[test]
fn there_are_forty_tasks_in_two_languages() {
    let tasks = tasks();
    let in_language = |end: &str| tasks.iter().filter(|task| task.id.ends_with(end)).count();
    let mut ids: Vec<&str> = tasks.iter().map(|task| task.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();

    assert_eq!(ids.len(), 40);
    assert_eq!((in_language("-fr"), in_language("-en")), (20, 20));
}

#[test]
fn every_task_can_be_solved_with_the_least_calls() {
    let failed = check_all(&tasks(), async |task: &Task| {
        let played = play(task, &task.reference).await;
        let mut failed = Vec::new();
        if played.outcomes.len() != task.least_calls {
            let (made, least) = (played.outcomes.len(), task.least_calls);
            failed.push(format!("{made} calls instead of {least}"));
        }
        let lacks = played.offer.lacks(task);
        if !lacks.is_empty() {
            failed.push(format!("the server does not offer {lacks:?}"));
        }
        let outcomes = played.outcomes.join(", ");
        failed.extend(played.problems);
        let described = failed.into_iter();
        described
            .map(|it| format!("{}: {it} (calls: {outcomes})", task.id))
            .collect()
    });

    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn doing_nothing_solves_no_task() {
    let solved = check_all(&tasks(), async |task: &Task| {
        let nothing = [Turn::Reply {
            text: "Done.".to_owned(),
        }];
        let played = play(task, &nothing).await;
        let is_solved = played.problems.is_empty();
        is_solved.then(|| task.id.clone()).into_iter().collect()
    });

    assert!(solved.is_empty(), "{solved:?}");
}

/// What is wrong with a recorded task, or that it is stale.
enum Replayed {
    Same,
    Stale,
    Wrong(String),
}

async fn replay(task: &Task, recorded: &RecordedTask) -> Replayed {
    let played = play(task, &recorded.turns).await;
    if played.offer.hash() != recorded.hash {
        return Replayed::Stale;
    }
    let outcomes = recorded.turns.iter().filter_map(|turn| match turn {
        Turn::Call { outcome, .. } => outcome.clone(),
        Turn::Reply { .. } => None,
    });
    let outcomes: Vec<String> = outcomes.collect();
    if outcomes != played.outcomes {
        let outcomes = (played.outcomes, outcomes);
        return Replayed::Wrong(format!("{:?} instead of {:?}", outcomes.0, outcomes.1));
    }
    if played.problems.is_empty() != recorded.problems.is_empty() {
        let problems = (played.problems, &recorded.problems);
        return Replayed::Wrong(format!("{:?} instead of {:?}", problems.0, problems.1));
    }
    Replayed::Same
}

/// Says it also where the tests pass, whose output is otherwise hidden.
fn report(line: &str) {
    let line = format!("{line}\n");
    io::stderr().write_all(line.as_bytes()).unwrap();
}

#[test]
fn recorded_calls_have_the_same_outcome_again() {
    let tasks = tasks();
    let recordings = Recording::all();
    if recordings.is_empty() {
        report("evals: no run is recorded in tests/evals/recordings");
        return;
    }
    let mut wrong = Vec::new();
    for (name, recording) in &recordings {
        let found = check_all(&recording.tasks, async |recorded: &RecordedTask| {
            let task = tasks.iter().find(|task| task.id == recorded.id);
            let Some(task) = task else {
                return vec![format!("wrong: {name}: there is no task {}", recorded.id)];
            };
            match replay(task, recorded).await {
                Replayed::Same => Vec::new(),
                Replayed::Stale => vec![format!("stale: {name}: {}", task.id)],
                Replayed::Wrong(problem) => {
                    vec![format!("wrong: {name}: {}: {problem}", task.id)]
                }
            }
        });
        let stale = found.iter().filter(|it| it.starts_with("stale")).count();
        let all = recording.tasks.len();
        let solved = recording.solved;
        report(&format!(
            "evals: {name}: {solved} of {all} solved, {stale} of {all} stale"
        ));
        wrong.extend(found.into_iter().filter(|it| it.starts_with("wrong")));
    }

    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_recording_survives_its_file() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("recordings/run.json");
    let reference = |task: &Task| RecordedTask {
        id: task.id.clone(),
        hash: "0123456789abcdef".to_owned(),
        problems: Vec::new(),
        turns: task.reference.clone(),
    };
    let recording = Recording {
        solved: 40,
        calls: 70,
        tokens: 200_000,
        tasks: tasks().iter().map(reference).collect(),
    };

    recording.write(&path).unwrap();

    assert_eq!(read(&path), serde_json::to_value(&recording).unwrap());
}

fn read(path: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

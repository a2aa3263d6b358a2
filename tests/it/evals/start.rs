//! The content that a task begins with: that of `tests/evals/content`, with a history of some weeks.

use std::{cell::Cell, sync::Arc};

use portfolio_mcp::{
    clock,
    domain::{Change, Current, Operation, Origin, Source, Timestamp, WriteContext},
    mcp::ContentServer,
    service::ContentService,
    store::Repository,
};
use serde_json::{Value, json};

use super::{
    reference::Results,
    session::call,
    task::{Step, Task, ago, history},
};
use crate::support::{fixtures, stdio::StdioClient};

/// When the content was imported.
const IMPORTED: &str = "60 days";

thread_local! {
    /// The time of the step that runs on this thread.
    static STEP_TIME: Cell<Option<Timestamp>> = const { Cell::new(None) };
}

fn step_clock() -> Timestamp {
    STEP_TIME.get().unwrap_or_else(clock)
}

/// Fills an empty store; gives the results of the task's setup.
pub(crate) async fn fill(
    store: portfolio_mcp::store::Store,
    task: &Task,
    start: Timestamp,
) -> Vec<Value> {
    import(&*store.repository, ago(start, IMPORTED).unwrap()).await;
    let content = Arc::new(ContentService::new(store, step_clock));
    for step in history() {
        run_at(&content, &step, start, &step.arguments).await;
    }
    let mut results = Results {
        start,
        setup: Vec::new(),
        calls: Vec::new(),
    };
    for step in &task.setup {
        let arguments = results.resolve(&step.arguments);
        let result = run_at(&content, step, start, &arguments).await;
        results.setup.push(result);
    }
    results.setup
}

/// Does what somebody else does meanwhile.
pub(crate) async fn interfere(store: portfolio_mcp::store::Store, step: &Step) {
    let content = Arc::new(ContentService::new(store, step_clock));
    run(&content, step, &step.arguments).await;
}

async fn import(repository: &dyn Repository, now: Timestamp) {
    let operation = Operation::once("import of the evaluation", json!({}));
    let changes: Vec<Change> = fixtures::folder("tests/evals/content")
        .into_iter()
        .map(|(key, document)| {
            let context = WriteContext {
                origin: Origin {
                    transport: Some("cli"),
                    ..Origin::new(Source::Admin)
                },
                operation: operation.clone(),
                entry_id: fixtures::unique("import"),
                now,
            };
            let absent = Current::read(key, None, None::<&str>);
            Change::put(&absent, &document, context).unwrap()
        })
        .collect();
    repository.commit(&changes, &operation).await.unwrap();
}

async fn run_at(
    content: &Arc<ContentService>,
    step: &Step,
    start: Timestamp,
    arguments: &Value,
) -> Value {
    let duration = step.ago.as_deref().unwrap_or("0 seconds");
    STEP_TIME.set(Some(ago(start, duration).unwrap()));
    let result = run(content, step, arguments).await;
    STEP_TIME.set(None);
    result
}

/// Makes the call of a step, which has to succeed.
async fn run(content: &Arc<ContentService>, step: &Step, arguments: &Value) -> Value {
    let server = ContentServer::new(Arc::clone(content), Some(&step.actor), None);
    let client = StdioClient::of(server.offering("all".parse().unwrap()));
    let (name, version) = step.client.split_once('/').unwrap();
    client.initialize(name, version).await;
    let called = call(&client, &step.tool, arguments).await;
    assert_eq!(called.outcome(), "ok", "{step:?}: {}", called.text);
    called.result
}

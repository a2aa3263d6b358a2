//! Concurrent writers, lost connections, killed processes and a full disk: no acknowledged write is
//! lost, none is applied twice.

use std::{
    fs,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::{join, join_all, join3};
use portfolio_mcp::{
    deadline::Deadline,
    domain::{DocumentKey, Operation, Origin, Source, Version},
    service::{ContentService, Error, Mode as UpdateMode, UpdateRequest, Updated},
    store::{self, Location, StoreError, open},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    task::{JoinSet, yield_now},
    time::sleep,
};

use crate::support::{
    fixtures::{change_for, create_sound, now, object, project_key, unique},
    proxy::{Mode, Proxy},
    redis::RedisServer,
    soundness::{self, Log},
    stdio::{ServerEnded, StdioClient},
    stores::{SITE, Store, on_each_store},
    wait::wait_until_async,
    wait_until,
};

const TASKS: usize = 16;
const UPDATES: usize = 40;
/// How often a connection is cut or a process killed.
const ROUNDS: usize = 50;

/// The service on a store, as in a server process, but without a snapshot, whose reads would be
/// counted too.
fn service_on(store: store::Store) -> Arc<ContentService> {
    let store = store::Store {
        snapshot: None,
        ..store
    };
    Arc::new(ContentService::new(store, now))
}

/// The deadline of a call that starts now.
fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}

/// A request to give the document `key` a title.
fn titled(key: &DocumentKey, title: &str) -> UpdateRequest {
    UpdateRequest {
        key: key.clone(),
        patch: object(json!({ "title": title })),
        edits: Vec::new(),
        expected_version: None,
        mode: UpdateMode::Commit,
        idempotency_key: None,
        origin: Origin::new(Source::Mcp),
    }
}

async fn retitle(
    service: &ContentService,
    key: &DocumentKey,
    title: &str,
) -> Result<Updated, Error> {
    service.update(titled(key, title), soon()).await
}

fn title_of(task: usize, number: usize) -> String {
    format!("task {task} update {number}")
}

/// Every update of every task is in the log once.
fn assert_all_applied(log: &Log) {
    assert_eq!(log.seq, 1 + (TASKS * UPDATES) as u64);
    let titles = log.values_of("title");
    for task in 0..TASKS {
        for number in 0..UPDATES {
            assert_eq!(
                titles.get(&title_of(task, number)),
                Some(&1),
                "{}",
                title_of(task, number)
            );
        }
    }
}

/// On a busy machine, writers in different processes may lose races until their deadline; they get
/// a conflict and try again. That must be rare.
fn assert_few_lost_races(lost: usize) {
    println!("{lost} races were lost until the deadline");
    assert!(
        lost <= TASKS,
        "{lost} of {} races were lost until the deadline",
        TASKS * UPDATES
    );
}

/// All tasks change one document at once, each through one of `services`.
async fn check_tasks(store: &Store, services: &[Arc<ContentService>]) {
    let key = project_key("contended");
    create_sound(&*store.repository, &key).await;
    let lost = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (service, key, lost) = (
            Arc::clone(&services[task % services.len()]),
            key.clone(),
            Arc::clone(&lost),
        );
        tasks.spawn(async move {
            let mut number = 0;
            while number < UPDATES {
                match retitle(&service, &key, &title_of(task, number)).await {
                    Ok(updated) => {
                        assert!(!updated.replayed && updated.audit_id.is_some());
                        number += 1;
                    }
                    Err(Error::Conflict { .. }) => drop(lost.fetch_add(1, Ordering::SeqCst)),
                    Err(other) => panic!("{other:?}"),
                }
            }
        });
    }
    tasks.join_all().await;

    let lost = lost.load(Ordering::SeqCst);
    if services.len() == 1 {
        assert_eq!(lost, 0, "writers in one process queue for a document");
    }
    assert_few_lost_races(lost);
    assert_all_applied(&store.assert_sound().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixteen_tasks_lose_no_update_of_one_document_on_redis() {
    let store = Store::redis();
    check_tasks(&store, &[service_on(store.open())]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixteen_tasks_lose_no_update_of_one_document_on_sqlite() {
    let store = Store::sqlite();
    check_tasks(&store, &[service_on(store.open())]).await;
}

/// Separate services have separate queues, so they conflict.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn four_services_lose_no_update_of_one_document_on_redis() {
    let store = Store::on(&Arc::new(RedisServer::start()), SITE);
    let services: Vec<_> = (0..4).map(|_| service_on(store.open())).collect();
    check_tasks(&store, &services).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn four_services_lose_no_update_of_one_document_on_sqlite() {
    let store = Store::sqlite();
    let services: Vec<_> = (0..4).map(|_| service_on(store.open())).collect();
    check_tasks(&store, &services).await;
}

/// All tasks change one document at once, each through one of three server processes.
async fn check_processes(store: &Store) {
    let key = project_key("contended");
    create_sound(&*store.repository, &key).await;
    let servers = [
        StdioClient::start(store).await,
        StdioClient::start(store).await,
        StdioClient::start(store).await,
    ];

    let lost = AtomicUsize::new(0);
    join_all((0..TASKS).map(async |task| {
        let mut number = 0;
        while number < UPDATES {
            let arguments = json!({ "id": key.id, "data": { "title": title_of(task, number) } });
            let answer = servers[task % servers.len()]
                .call("update_project", arguments)
                .await;
            if answer["error"]["code"] == "VERSION_CONFLICT" {
                lost.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            assert_eq!(answer["success"], true, "{answer}");
            number += 1;
        }
    }))
    .await;

    assert_few_lost_races(lost.into_inner());
    for server in servers {
        assert!(server.unexpected().is_empty(), "{:?}", server.unexpected());
        assert!(server.finish().success());
    }
    assert_all_applied(&store.assert_sound().await);
}

#[tokio::test]
async fn three_processes_lose_no_update_of_one_document_on_sqlite() {
    check_processes(&Store::sqlite()).await;
}

#[tokio::test]
async fn three_processes_lose_no_update_of_one_document_on_redis() {
    check_processes(&Store::redis()).await;
}

/// A service whose connection to Redis can be cut.
struct Connected {
    store: Store,
    proxy: Proxy,
    service: Arc<ContentService>,
    key: DocumentKey,
}

impl Connected {
    async fn new() -> Self {
        let store = Store::redis();
        let proxy = Proxy::start(store.server().port()).await;
        let location = Location::Redis {
            write: Some(proxy.redis_url()),
            read: None,
            key_prefix: String::new(),
        };
        let key = project_key("a");
        create_sound(&*store.repository, &key).await;
        Self {
            service: service_on(open(&location).unwrap()),
            store,
            proxy,
            key,
        }
    }
}

/// How many writers a burst has.
const WRITERS: usize = 4;

/// A service that is busy enough to try updates on its remembered documents first, and another
/// service that changes the same documents.
struct Burst {
    store: Store,
    busy: Arc<ContentService>,
    other: Arc<ContentService>,
    key: DocumentKey,
    stop: Arc<AtomicBool>,
    writers: JoinSet<()>,
}

impl Burst {
    async fn begin() -> Self {
        let store = Store::redis();
        let (busy, other) = (service_on(store.open()), service_on(store.open()));
        let (key, stop) = (project_key("a"), Arc::new(AtomicBool::new(false)));
        create_sound(&*store.repository, &key).await;
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let own = project_key(&format!("writer-{writer}"));
            create_sound(&*store.repository, &own).await;
            let (busy, stop) = (Arc::clone(&busy), Arc::clone(&stop));
            writers.spawn(async move {
                for number in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    retitle(&busy, &own, &title_of(writer, number))
                        .await
                        .unwrap();
                }
            });
        }
        Self {
            store,
            busy,
            other,
            key,
            stop,
            writers,
        }
    }

    async fn end(self) -> Log {
        self.stop.store(true, Ordering::SeqCst);
        self.writers.join_all().await;
        self.store.assert_sound().await
    }
}

/// A decision based on an outdated remembered document is made again from the stored one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_outdated_remembered_document_decides_nothing() {
    let burst = Burst::begin().await;
    let result = |text: &str| UpdateRequest {
        patch: object(json!({ "result": text })),
        ..titled(&burst.key, "")
    };
    for round in 0..ROUNDS {
        let (first, elsewhere) = (format!("first {round}"), format!("elsewhere {round}"));
        burst.busy.update(result(&first), soon()).await.unwrap();
        burst
            .other
            .update(result(&elsewhere), soon())
            .await
            .unwrap();

        // This equals the remembered document but changes the stored one.
        let changed = burst.busy.update(result(&first), soon()).await.unwrap();
        assert_eq!(changed.changes[0]["oldValue"], json!(elsewhere));

        // The expected version is the stored one, then the remembered one.
        let known = burst
            .other
            .update(result(&elsewhere), soon())
            .await
            .unwrap()
            .version
            .unwrap();
        let expecting = |version: &Version| UpdateRequest {
            expected_version: Some(version.to_string()),
            ..result("expected")
        };
        let expected = burst.busy.update(expecting(&known), soon()).await.unwrap();
        let now = burst
            .other
            .update(result(&elsewhere), soon())
            .await
            .unwrap()
            .version;
        let conflict = burst
            .busy
            .update(expecting(&expected.version.unwrap()), soon())
            .await
            .unwrap_err();
        assert!(
            matches!(&conflict, Error::Conflict { current, .. } if *current == now),
            "{conflict:?}"
        );

        // This changes the remembered document but equals the stored one.
        burst.other.update(result(&first), soon()).await.unwrap();
        let already = burst.busy.update(result(&first), soon()).await.unwrap();
        assert_eq!(already.audit_id, None);
        assert_eq!(already.changes, json!([]));
    }

    burst.end().await;
}

/// A commit gets three values from Redis; a read before it gets two more.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_writers_do_not_read_before_they_write() {
    let burst = Burst::begin().await;
    burst
        .store
        .server()
        .run::<()>(redis::cmd("CONFIG").arg("RESETSTAT"));

    wait_until("a commit was made from a remembered document", || {
        let commits = burst.store.server().calls("evalsha");
        // A document is read for a write together with its newest entry.
        let reads = burst.store.server().calls("mget");
        // Each writer may have read before the statistics were reset.
        (reads > 0 && commits > reads + 2 * WRITERS as u64).then_some(())
    });

    burst.end().await;
}

/// Cuts the connection at each of `ROUNDS` updates: each is applied and logged once, and its caller
/// gets the result.
async fn check_cuts(mode: Mode) {
    let mut connected = Connected::new().await;

    for round in 0..ROUNDS {
        connected.proxy.set(mode).await;
        let updated = retitle(
            &connected.service,
            &connected.key,
            &format!("round {round}"),
        )
        .await
        .unwrap();
        assert!(!updated.replayed, "the caller asked once");
        assert_eq!(connected.proxy.cuts(), round + 1);
    }

    let log = connected.store.assert_sound().await;
    assert_eq!(log.seq, 1 + ROUNDS as u64);
    let titles = log.values_of("title");
    for round in 0..ROUNDS {
        assert_eq!(titles.get(&format!("round {round}")), Some(&1));
    }
}

#[tokio::test]
async fn a_reply_lost_after_the_commit_applies_nothing_twice() {
    check_cuts(Mode::CutReply).await;
}

#[tokio::test]
async fn a_request_lost_before_the_commit_loses_nothing() {
    check_cuts(Mode::CutRequest).await;
}

/// The connection is cut repeatedly under writers who commit from remembered documents: every
/// answer matches the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_writers_on_a_cut_connection_lose_nothing_and_apply_nothing_twice() {
    let mut connected = Connected::new().await;
    let (done, stop) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (service, own) = (
            Arc::clone(&connected.service),
            project_key(&format!("writer-{writer}")),
        );
        create_sound(&*connected.store.repository, &own).await;
        let (done, stop) = (Arc::clone(&done), Arc::clone(&stop));
        writers.spawn(async move {
            let mut outcomes = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                let title = title_of(writer, outcomes.len());
                let outcome = retitle(&service, &own, &title).await;
                match &outcome {
                    Ok(_) => drop(done.fetch_add(1, Ordering::SeqCst)),
                    Err(_) => sleep(Duration::from_millis(20)).await,
                }
                outcomes.push((title, outcome));
            }
            outcomes
        });
    }
    for (round, mode) in [Mode::CutReply, Mode::CutRequest]
        .into_iter()
        .cycle()
        .take(ROUNDS)
        .enumerate()
    {
        connected.proxy.set(mode).await;
        wait_until("the connection was cut", || {
            (connected.proxy.cuts() > round).then_some(())
        });
        let before = done.load(Ordering::SeqCst);
        wait_until("the writers write again", || {
            (done.load(Ordering::SeqCst) > before + 2 * WRITERS).then_some(())
        });
    }
    stop.store(true, Ordering::SeqCst);
    let outcomes: Vec<_> = writers.join_all().await.into_iter().flatten().collect();

    let log = connected.store.assert_sound().await;
    let titles = log.values_of("title");
    let unknown = outcomes
        .iter()
        .filter(|(_, outcome)| matches!(outcome, Err(Error::OutcomeUnknown { .. })))
        .count();
    println!(
        "{} cuts under {} updates, {unknown} of unknown outcome",
        connected.proxy.cuts(),
        outcomes.len()
    );
    for (title, outcome) in &outcomes {
        let times = titles.get(title).copied().unwrap_or_default();
        match outcome {
            Ok(updated) => {
                assert_eq!(times, 1, "{title}");
                assert!(!updated.replayed, "{title}");
            }
            Err(Error::OutcomeUnknown { .. }) => {
                assert!(times <= 1, "{title} was applied {times} times");
            }
            Err(Error::Unavailable { .. } | Error::ReadOnly { .. }) => {
                assert_eq!(times, 0, "{title}");
            }
            Err(other) => panic!("{title}: {other:?}"),
        }
    }
}

/// It is the entry that was written, not one that was prepared for a retry.
#[tokio::test]
async fn after_a_lost_reply_the_answer_names_the_entry_in_the_log() {
    let mut connected = Connected::new().await;
    connected.proxy.set(Mode::CutReply).await;

    let updated = retitle(&connected.service, &connected.key, "New")
        .await
        .unwrap();

    let log = connected.store.assert_sound().await;
    let entry = log.entries.last().unwrap();
    assert_eq!(updated.audit_id.as_deref(), entry.text_of("id"));
    assert_eq!(updated.changes, entry.json()["changes"]);
    assert_eq!(
        updated.version.unwrap().as_str(),
        entry.json()["metadata"]["versionAfter"]
    );
}

#[tokio::test]
async fn nothing_is_written_while_the_connection_is_down() {
    let mut connected = Connected::new().await;
    retitle(&connected.service, &connected.key, "before")
        .await
        .unwrap();
    connected.proxy.set(Mode::Refuse).await;

    let refused = retitle(&connected.service, &connected.key, "meanwhile")
        .await
        .unwrap_err();
    assert!(matches!(&refused, Error::Unavailable { .. }), "{refused:?}");

    connected.proxy.set(Mode::Pass).await;
    retitle(&connected.service, &connected.key, "after")
        .await
        .unwrap();
    let log = connected.store.assert_sound().await;
    assert_eq!(log.seq, 3);
    assert_eq!(log.values_of("title").get("meanwhile"), None);
}

/// Redis hangs during the commit, so its outcome is unknown until the same commit is sent again.
#[tokio::test]
async fn repeating_a_commit_resolves_an_unknown_outcome() {
    let store = Store::redis();
    let (key, operation) = (
        project_key("a"),
        Operation::keyed(&unique("key"), json!({})),
    );
    create_sound(&*store.repository, &key).await;
    let change = [change_for(
        &*store.repository,
        &key,
        json!({ "title": "New" }),
        &operation,
    )
    .await];
    store.server().stop();

    let unknown = store
        .repository
        .commit(&change, &operation)
        .await
        .unwrap_err();
    assert!(
        matches!(&unknown, StoreError::OutcomeUnknown(_)),
        "{unknown:?}"
    );

    store.server().cont();
    let resolved = store.repository.commit(&change, &operation).await.unwrap();
    assert_eq!(resolved.entries.len(), 1);
    let log = store.assert_sound().await;
    assert_eq!(log.seq, 2);
    assert_eq!(log.values_of("title")["New"], 1);
    assert_eq!(log.entries.last(), resolved.entries.last());
}

#[tokio::test]
async fn a_hanging_redis_cannot_be_read_until_it_continues() {
    let store = Store::redis();
    let key = project_key("a");
    create_sound(&*store.repository, &key).await;
    store.server().stop();

    let hung = store.repository.get(&key).await;
    assert!(matches!(&hung, Err(StoreError::Unavailable(_))), "{hung:?}");

    store.server().cont();
    store.assert_sound().await;
}

/// The arguments of an update that its caller may repeat.
fn keyed(key: &str, title: &str) -> Value {
    json!({ "id": "a", "data": { "title": title }, "idempotencyKey": key })
}

#[tokio::test]
async fn an_idempotency_key_is_honoured_across_restarts_and_processes() {
    on_each_store(async |store| {
        create_sound(&*store.repository, &project_key("a")).await;
        let (server, arguments) = (StdioClient::start(store).await, keyed("once-only", "New"));
        let first = server.call("update_project", arguments.clone()).await;
        assert_eq!(first["meta"].get("replayed"), None, "{first}");
        let other = StdioClient::start(store).await;
        other
            .call(
                "update_project",
                json!({ "id": "a", "data": { "title": "Newer" } }),
            )
            .await;
        assert!(server.finish().success());
        let restarted = StdioClient::start(store).await;

        for server in [&other, &restarted, &other] {
            let again = server.call("update_project", arguments.clone()).await;

            assert_eq!(again["meta"]["replayed"], true, "{again}");
            assert_eq!(again["meta"]["auditId"], first["meta"]["auditId"]);
            assert_eq!(again["meta"]["changes"], first["meta"]["changes"]);
            assert_eq!(
                again["data"]["title"], "Newer",
                "the document is answered as it is now"
            );
        }
        let refused = restarted
            .call("update_project", keyed("once-only", "Other"))
            .await;
        assert_eq!(
            refused["error"]["code"], "IDEMPOTENCY_MISMATCH",
            "{refused}"
        );
        let log = store.assert_sound().await;
        assert_eq!(log.seq, 3);
        assert_eq!(log.values_of("title")["New"], 1);
    })
    .await;
}

#[tokio::test]
async fn a_key_used_by_two_processes_at_once_is_applied_once() {
    on_each_store(async |store| {
        create_sound(&*store.repository, &project_key("a")).await;
        let servers = [
            StdioClient::start(store).await,
            StdioClient::start(store).await,
        ];

        for round in 0..10 {
            let arguments = keyed(&format!("key-{round}"), &format!("round {round}"));
            let calls =
                (0..6).map(|number| servers[number % 2].call("update_project", arguments.clone()));
            let answers = join_all(calls).await;

            let replayed = answers
                .iter()
                .filter(|answer| answer["meta"]["replayed"] == true)
                .count();
            assert_eq!(replayed, 5, "{answers:?}");
            assert!(
                answers
                    .iter()
                    .all(|answer| answer["meta"]["auditId"] == answers[0]["meta"]["auditId"]),
                "{answers:?}"
            );
        }
        assert_eq!(store.assert_sound().await.seq, 11);
    })
    .await;
}

/// The titles that were written to something that is killed, by their outcome.
#[derive(Default)]
struct Writes {
    acknowledged: Vec<String>,
    unknown: Vec<String>,
}

impl Writes {
    /// Acknowledged writes are in the log once, and no write is there twice.
    fn assert_kept(&self, log: &Log) {
        let titles = log.values_of("title");
        for title in &self.acknowledged {
            assert_eq!(
                titles.get(title),
                Some(&1),
                "the acknowledged write `{title}`"
            );
        }
        for title in &self.unknown {
            assert!(
                titles.get(title).is_none_or(|times| *times == 1),
                "the write `{title}` with an unknown outcome"
            );
        }
    }
}

/// Kills a server repeatedly while it writes.
async fn check_kills(mut store: Store) {
    const WRITERS: usize = 8;
    let keys = ["a", "b", "c"].map(project_key);
    for key in &keys {
        create_sound(&*store.repository, key).await;
    }

    let mut all_unknown = 0;
    for round in 0..ROUNDS {
        // Close our connection to SQLite, so that the file is found as the killed server left it.
        store.reopen();
        let server = StdioClient::start(&store).await;
        let (answered, writes) = (AtomicUsize::new(0), Mutex::new(Writes::default()));
        let calls = (0..WRITERS).map(async |number| {
            let title = format!("round {round} write {number}");
            let arguments =
                json!({ "id": keys[number % keys.len()].id, "data": { "title": title } });
            match server.try_call("update_project", arguments).await {
                Ok(answer) => {
                    assert_eq!(answer["success"], true, "{answer}");
                    answered.fetch_add(1, Ordering::SeqCst);
                    writes.lock().unwrap().acknowledged.push(title);
                }
                Err(ServerEnded) => writes.lock().unwrap().unknown.push(title),
            }
        });
        // The kill comes at a different moment each time.
        let kill = async {
            while answered.load(Ordering::SeqCst) < round % WRITERS {
                yield_now().await;
            }
            for _ in 0..round * 7 {
                yield_now().await;
            }
            server.kill9();
        };
        join(join_all(calls), kill).await;

        let (log, writes) = (store.assert_sound().await, writes.into_inner().unwrap());
        assert_eq!(writes.acknowledged.len() + writes.unknown.len(), WRITERS);
        writes.assert_kept(&log);
        all_unknown += writes.unknown.len();
    }
    assert!(
        all_unknown > ROUNDS,
        "the kills met no writes: {all_unknown}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_while_writing_to_redis_loses_nothing_and_applies_nothing_twice() {
    check_kills(Store::redis()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_while_writing_to_sqlite_loses_nothing_and_applies_nothing_twice() {
    check_kills(Store::sqlite()).await;
}

/// The first server creates the file, and may be killed while it does.
#[tokio::test]
async fn concurrent_or_killed_first_starts_leave_a_usable_file() {
    for round in 0..10 {
        let store = Store::sqlite();
        let servers = join_all((0..3).map(|_| StdioClient::start(&store))).await;
        let doomed = StdioClient::start(&store).await;
        let calls = servers
            .iter()
            .map(|server| server.call("list_projects", json!({})));
        let kill = async {
            for _ in 0..round * 20 {
                yield_now().await;
            }
            doomed.kill9();
        };

        let (answers, _, ()) = join3(
            join_all(calls),
            doomed.try_call("list_projects", json!({})),
            kill,
        )
        .await;

        for answer in answers {
            assert_eq!(answer["meta"]["total"], 0, "{answer}");
        }
        create_sound(&*store.repository, &project_key("a")).await;
        let answer = servers[0].call("get_project", json!({ "id": "a" })).await;
        assert_eq!(answer["success"], true, "{answer}");
        store.assert_sound().await;
    }
}

/// This Redis writes every change to disk before it answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_killed_during_writes_loses_nothing_and_applies_nothing_twice() {
    const WRITERS: usize = 8;
    let mut server = RedisServer::start_with(&[
        "--save",
        "",
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
    ]);
    let location = Location::Redis {
        write: Some(server.redis_url()),
        read: None,
        key_prefix: String::new(),
    };
    let repository = open(&location).unwrap().repository;
    let keys: Vec<DocumentKey> = (0..WRITERS)
        .map(|writer| project_key(&format!("p{writer}")))
        .collect();
    for key in &keys {
        create_sound(&*repository, key).await;
    }

    for round in 0..10 {
        let service = service_on(open(&location).unwrap());
        let (answered, killed) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let mut tasks = JoinSet::new();
        for key in &keys {
            let (service, key) = (Arc::clone(&service), key.clone());
            let (answered, killed) = (Arc::clone(&answered), Arc::clone(&killed));
            tasks.spawn(async move {
                let mut writes = Writes::default();
                for number in 0.. {
                    let title = format!("round {round} write {number} to {}", key.id);
                    match retitle(&service, &key, &title).await {
                        Ok(_) => writes.acknowledged.push(title),
                        Err(Error::OutcomeUnknown { .. }) => writes.unknown.push(title),
                        // These say that nothing was written; the log decides.
                        Err(Error::Unavailable { .. } | Error::ReadOnly { .. }) => {}
                        Err(other) => panic!("{other:?}"),
                    }
                    answered.fetch_add(1, Ordering::SeqCst);
                    if killed.load(Ordering::SeqCst) {
                        break;
                    }
                }
                writes
            });
        }
        wait_until("there are writes", || {
            (answered.load(Ordering::SeqCst) > 5 + round * 3).then_some(())
        });
        server.kill9();
        server.restart();
        killed.store(true, Ordering::SeqCst);
        let writes = tasks.join_all().await;

        // A single writer may have none: the kill can come before its first write is sent.
        assert!(writes.iter().any(|writes| !writes.acknowledged.is_empty()));
        let log = soundness::assert_sound(&*repository).await;
        for writes in writes {
            writes.assert_kept(&log);
        }
    }
}

/// Updates until the disk is full, then makes room with `make_room`, which gives the server to
/// continue with.
async fn check_full_disk(
    store: &Store,
    server: StdioClient,
    make_room: impl AsyncFnOnce(StdioClient) -> StdioClient,
) {
    let update = async |server: &StdioClient, title: &str| {
        let padding = "x".repeat(2000);
        server.call("update_project", json!({ "id": "a", "data": { "title": title, "challenge": padding, "result": title } })).await
    };
    let mut writes = Writes::default();
    let rejection = loop {
        let title = format!("write {}", writes.acknowledged.len());
        let answer = update(&server, &title).await;
        if answer["success"] == false {
            writes.unknown.push(title);
            break answer;
        }
        writes.acknowledged.push(title);
        assert!(
            writes.acknowledged.len() < 5000,
            "the disk does not become full"
        );
    };
    println!(
        "{} writes were acknowledged before the disk was full",
        writes.acknowledged.len()
    );

    assert_eq!(rejection["error"]["code"], "STORE_READ_ONLY", "{rejection}");
    assert!(
        rejection["error"]["message"]
            .as_str()
            .unwrap()
            .contains("make room"),
        "{rejection}"
    );
    for number in 0..5 {
        let title = format!("on a full disk {number}");
        let answer = update(&server, &title).await;
        // A smaller write may still fit.
        let list = if answer["success"] == true {
            &mut writes.acknowledged
        } else {
            &mut writes.unknown
        };
        list.push(title);
    }
    let shown = server.call("get_project", json!({ "id": "a" })).await;
    assert_eq!(
        shown["data"]["title"].as_str(),
        writes.acknowledged.last().map(String::as_str),
        "what is stored can be read"
    );

    let server = make_room(server).await;
    let answer = update(&server, "there is room again").await;
    assert_eq!(answer["success"], true, "{answer}");
    writes.acknowledged.push("there is room again".to_owned());
    let log = store.assert_sound().await;
    writes.assert_kept(&log);
    let titles = log.values_of("title");
    for title in &writes.unknown {
        assert_eq!(titles.get(title), None, "`{title}` was refused");
    }
}

#[tokio::test]
async fn a_file_at_its_size_limit_loses_nothing_and_works_again_with_more_room() {
    check_file_limit().await;
}

/// A limit on the file size imitates a full disk wherever there is a shell.
async fn check_file_limit() {
    let store = Store::sqlite();
    create_sound(&*store.repository, &project_key("a")).await;
    let length = fs::metadata(store.file()).unwrap().len();
    let server = StdioClient::start_with_file_limit(&store, length.div_ceil(512) + 1000).await;

    check_full_disk(&store, server, async |limited| {
        assert!(limited.finish().success());
        StdioClient::start(&store).await
    })
    .await;
}

/// A small disk in memory, if this user may mount one; unmounted when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn of(size: &str) -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "none"])
            .arg(folder.path())
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then(|| Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Uses a small disk where the test may mount one, and the limit on file sizes elsewhere.
#[tokio::test]
async fn a_full_disk_loses_nothing_and_the_same_server_continues_with_more_room() {
    let Some(disk) = SmallDisk::of("4m") else {
        println!(
            "no small disk can be mounted here; a limit on the length of files is used instead"
        );
        return check_file_limit().await;
    };
    println!("a tmpfs of 4 MiB is used");
    let ballast = disk.0.path().join("ballast");
    fs::write(&ballast, vec![0; 1024 * 1024]).unwrap();
    let store = Store::sqlite_in(TempDir::new_in(disk.0.path()).unwrap());
    create_sound(&*store.repository, &project_key("a")).await;
    let server = StdioClient::start(&store).await;

    check_full_disk(&store, server, async |server| {
        fs::remove_file(&ballast).unwrap();
        server
    })
    .await;
}

/// Lists come from a snapshot in each process. None may be older than the writes acknowledged
/// before the call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_never_older_than_any_acknowledged_write() {
    const NOISE: usize = 4;
    /// A log that fell behind is read again so soon, or a little later on a busy machine.
    const LOG_READ_DELAY: Duration = Duration::from_secs(7);
    let store = Store::redis();
    let key = project_key("watched");
    create_sound(&*store.repository, &key).await;
    for number in 0..NOISE {
        create_sound(&*store.repository, &project_key(&format!("noise-{number}"))).await;
    }
    let (writer, reader) = (
        StdioClient::start(&store).await,
        StdioClient::start(&store).await,
    );
    let over = AtomicBool::new(false);
    let noise = join_all((0..NOISE).map(async |number| {
        let mut updates = 0;
        while !over.load(Ordering::SeqCst) {
            updates += 1;
            let arguments = json!({ "id": format!("noise-{number}"), "data": { "title": format!("noise {updates}") } });
            assert_eq!(writer.call("update_project", arguments).await["success"], true);
        }
    }));
    let watch = async {
        for round in 0..40 {
            let title = format!("round {round}");
            let arguments = json!({ "id": key.id, "data": { "title": title } });
            assert_eq!(
                writer.call("update_project", arguments).await["success"],
                true
            );

            let listed = reader
                .call("list_projects", json!({ "query": "watched" }))
                .await;

            assert_eq!(listed["data"][0]["title"], json!(title), "{listed}");
            assert_eq!(listed["meta"]["total"], 1, "{listed}");
        }
        over.store(true, Ordering::SeqCst);
    };
    join(noise, watch).await;

    // While the store is down, the snapshot's log has every entry of the store once.
    let expected = store.assert_sound().await.seq;
    let (stats, log) = wait_until_async("the reader has the end of the log", async || {
        reader.call("list_projects", json!({})).await;
        store.server().stop();
        let (stats, log) = join(
            reader.call("get_audit_stats", json!({})),
            reader.call("get_audit_log", json!({ "limit": 500 })),
        )
        .await;
        store.server().cont();
        if stats["success"] == true && log["success"] == true {
            return Some((stats, log));
        }
        sleep(LOG_READ_DELAY).await; // it cannot be read while the store is down
        None
    })
    .await;
    assert_eq!(stats["meta"]["source"], "snapshot", "{stats}");
    assert_eq!(stats["data"]["totalEntries"], json!(expected), "{stats}");
    let numbers: Vec<u64> = log["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(
        numbers,
        (0..numbers.len() as u64)
            .map(|older| expected - older)
            .collect::<Vec<_>>()
    );
}

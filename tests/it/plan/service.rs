//! Plans through the service and from several processes: applied once, whole, in time, and few kept.

use std::{
    env,
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use futures::future::{join, join_all};
use portfolio_mcp::{
    clock,
    deadline::Deadline,
    domain::{Change, Creations, DocumentKey, Origin, Source, Timestamp},
    service::{ApplyRequest, ContentService, Error, KeptPlan, Mode, UpdateRequest},
    store::{self, Location, open},
};
use redis::cmd;
use serde_json::{Value, json};
use tokio::task::yield_now;

use crate::support::{
    fixtures::{create_sound, object, project_key},
    proxy::{self, Proxy},
    stdio::{ServerEnded, StdioClient},
    stores::{Store, on_each_store},
};

const TOOL: &str = "update_project";

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

fn service_on(parts: store::Store, clock: fn() -> Timestamp) -> ContentService {
    let parts = store::Store {
        snapshot: None,
        ..parts
    };
    ContentService::new(parts, clock)
}

fn titled(key: &DocumentKey, title: &str, mode: Mode) -> UpdateRequest {
    UpdateRequest {
        key: key.clone(),
        patch: object(json!({ "title": title })),
        edits: Vec::new(),
        expected_version: None,
        mode,
        idempotency_key: None,
        origin: Origin::new(Source::Mcp),
    }
}

/// The change that a dry run shows.
async fn change(service: &ContentService, key: &DocumentKey, title: &str) -> Change {
    let shown = service.update(titled(key, title, Mode::DryRun), soon());
    *shown.await.unwrap().planned.unwrap()
}

async fn plan(service: &ContentService, key: &DocumentKey, title: &str) -> String {
    let change = change(service, key, title).await;
    match service.keep_plan(TOOL, &[change], soon()).await {
        KeptPlan::Kept { id, .. } => id,
        KeptPlan::NotKept(reason) => panic!("{reason}"),
    }
}

fn apply_of(plan_id: &str, idempotency_key: Option<&str>) -> ApplyRequest {
    ApplyRequest {
        plan_id: plan_id.to_owned(),
        tool: Some(TOOL),
        creations: Creations::Keep,
        key: None,
        idempotency_key: idempotency_key.map(ToOwned::to_owned),
        origin: Origin::new(Source::Mcp),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_fifty_concurrent_applications_from_several_processes_succeeds() {
    on_each_store(async |store: &Store| {
        let key = project_key("a");
        create_sound(&*store.repository, &key).await;
        let id = plan(&service_on(store.open(), clock), &key, "Planned").await;
        let servers = join_all((0..5).map(|_| StdioClient::start(store))).await;
        let arguments = json!({ "id": "a", "plan": id });

        let calls = (0..50).map(|number| servers[number % 5].call(TOOL, arguments.clone()));
        let answers = join_all(calls).await;

        let (done, refused): (Vec<Value>, Vec<Value>) = answers
            .into_iter()
            .partition(|answer| answer["success"] == true);
        assert_eq!(done.len(), 1, "{done:?}, then {}", refused[0]);
        for answer in refused {
            let error = &answer["error"];
            assert_eq!(error["code"], "PLAN_NOT_FOUND", "{error}");
            assert_eq!(
                error["details"]["auditIds"],
                json!([done[0]["meta"]["auditId"]])
            );
        }
        assert_eq!(store.assert_sound().await.seq, 2);
    })
    .await;
}

/// The clock of the test below, in milliseconds since 1970.
static CLOCK: AtomicI64 = AtomicI64::new(0);

fn test_clock() -> Timestamp {
    Timestamp::from_millis(CLOCK.load(Ordering::SeqCst))
}

#[tokio::test]
async fn a_plan_expires_after_24_hours() {
    on_each_store(async |store: &Store| {
        let key = project_key("a");
        create_sound(&*store.repository, &key).await;
        CLOCK.store(clock().millis(), Ordering::SeqCst);
        let service = service_on(store.open(), test_clock);
        let [early, late] = [
            plan(&service, &key, "Early").await,
            plan(&service, &key, "Late").await,
        ];
        let day = 24 * 60 * 60 * 1000;

        CLOCK.fetch_add(day - 1, Ordering::SeqCst);
        let in_time = service.apply_plan(apply_of(&early, None), soon()).await;
        CLOCK.fetch_add(1, Ordering::SeqCst);
        let too_late = service.apply_plan(apply_of(&late, None), soon()).await;

        assert!(in_time.is_ok(), "{in_time:?}");
        assert!(
            matches!(too_late, Err(Error::PlanNotFound { applied: None })),
            "{too_late:?}"
        );
    })
    .await;
}

/// How many dry runs are made; 10,000 were, once.
fn dry_runs() -> usize {
    env::var("PLAN_DRY_RUNS").map_or(700, |count| count.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_500_plans_are_kept() {
    on_each_store(async |store: &Store| {
        let key = project_key("a");
        create_sound(&*store.repository, &key).await;
        let service = service_on(store.open(), clock);
        let mut ids = Vec::new();
        for number in 0..dry_runs() {
            ids.push(plan(&service, &key, &format!("Planned {number}")).await);
        }

        let kept = join_all(ids.iter().map(|id| service.plan(id, soon()))).await;

        let kept: Vec<bool> = kept.into_iter().map(|plan| plan.is_ok()).collect();
        let dropped = dry_runs() - 500;
        assert_eq!(kept.iter().filter(|kept| **kept).count(), 500);
        // Within one millisecond the order is not known.
        assert!(kept[dropped + 100..].iter().all(|kept| *kept));
        assert_eq!(stored_plans(store), 500);
        assert_eq!(store.assert_sound().await.seq, 1);
    })
    .await;
}

/// How many plans the store holds.
fn stored_plans(store: &Store) -> usize {
    if store.is_redis() {
        let key = store.key("internal:plans");
        let count: usize = store.server().run(cmd("HLEN").arg(key));
        let key = store.key("internal:plans:times");
        let times: usize = store.server().run(cmd("ZCARD").arg(key));
        assert_eq!(count, times);
        return count;
    }
    let file = rusqlite::Connection::open(store.file()).unwrap();
    let count: i64 = file
        .query_row("SELECT count(*) FROM plans", [], |row| row.get(0))
        .unwrap();
    usize::try_from(count).unwrap()
}

#[tokio::test]
async fn large_plans_make_room_for_newer_ones() {
    on_each_store(async |store: &Store| {
        let mut keys = Vec::new();
        for number in 0..8 {
            let key = project_key(&format!("p-{number}"));
            create_sound(&*store.repository, &key).await;
            keys.push(key);
        }
        let service = service_on(store.open(), clock);
        let mut ids = Vec::new();
        for number in 0..12 {
            let mut changes = Vec::new();
            for key in &keys {
                let mut request = titled(key, &format!("Planned {number}"), Mode::DryRun);
                let challenge = "x".repeat(220 * 1024);
                request
                    .patch
                    .insert("challenge".to_owned(), json!(challenge));
                let shown = service.update(request, soon()).await.unwrap();
                changes.push(*shown.planned.unwrap());
            }
            match service.keep_plan(TOOL, &changes, soon()).await {
                KeptPlan::Kept { id, .. } => ids.push(id),
                KeptPlan::NotKept(reason) => panic!("{reason}"),
            }
        }

        let kept = join_all(ids.iter().map(|id| service.plan(id, soon()))).await;

        let kept: Vec<bool> = kept.into_iter().map(|plan| plan.is_ok()).collect();
        let count = kept.iter().filter(|kept| **kept).count();
        assert!((8..=9).contains(&count), "{kept:?}");
        assert!(kept.is_sorted(), "the newest are kept: {kept:?}");
    })
    .await;
}

#[tokio::test]
async fn a_plan_survives_a_restart() {
    on_each_store(async |store: &Store| {
        create_sound(&*store.repository, &project_key("a")).await;
        let first = StdioClient::start(store).await;
        let dry = json!({ "id": "a", "data": { "title": "Planned" }, "dryRun": true });
        let shown = first.call(TOOL, dry).await;
        first.kill9();
        let second = StdioClient::start(store).await;

        let arguments = json!({ "id": "a", "plan": shown["meta"]["plan"]["id"] });
        let applied = second.call(TOOL, arguments).await;

        assert_eq!(applied["data"]["title"], "Planned");
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn a_lost_reply_of_an_application_is_answered_right() {
    let store = Store::redis();
    let mut proxy = Proxy::start(store.server().port()).await;
    let location = Location::Redis {
        write: Some(proxy.redis_url()),
        read: None,
        key_prefix: String::new(),
    };
    let service = service_on(open(&location).unwrap(), clock);
    let key = project_key("a");
    create_sound(&*store.repository, &key).await;
    for idempotency_key in [None, Some("apply")] {
        let id = plan(&service, &key, &format!("Planned {idempotency_key:?}")).await;

        proxy.set(proxy::Mode::CutReply).await;
        let first = service.apply_plan(apply_of(&id, idempotency_key), soon());
        let first = first.await.unwrap();
        let again = service.apply_plan(apply_of(&id, idempotency_key), soon());
        let again = again.await;

        let audit_id = first.documents[0].audit_id.clone().unwrap();
        match (idempotency_key, again) {
            (None, Err(Error::PlanNotFound { applied })) => {
                assert_eq!(applied.unwrap().audit_ids, [audit_id]);
            }
            (Some(_), Ok(again)) => {
                assert!(again.replayed);
                assert_eq!(again.documents[0].audit_id, Some(audit_id));
            }
            (_, again) => panic!("{again:?}"),
        }
    }
    assert_eq!(store.assert_sound().await.seq, 3);
}

/// How often a server is killed while it applies a plan.
const ROUNDS: usize = 12;

/// A server that is killed while it applies a plan of 50 documents has changed all of them or none.
async fn check_kills(mut store: Store) {
    let keys: Vec<DocumentKey> = (0..50)
        .map(|number| project_key(&format!("p-{number}")))
        .collect();
    for key in &keys {
        create_sound(&*store.repository, key).await;
    }
    let (mut applied, mut unapplied) = (0, 0);
    for round in 0..ROUNDS {
        let before = store.assert_sound().await.seq;
        let service = service_on(store.open(), clock);
        let mut changes = Vec::new();
        for key in &keys {
            changes.push(change(&service, key, &format!("Round {round}")).await);
        }
        let kept = service.keep_plan(TOOL, &changes, soon()).await;
        let KeptPlan::Kept { id, .. } = kept else {
            panic!("{kept:?}");
        };
        drop(service);
        let server = StdioClient::start(&store).await;
        let call = server.try_call(TOOL, json!({ "id": "p-0", "plan": id }));
        let kill = async {
            for _ in 0..round * 25 {
                yield_now().await;
            }
            server.kill9();
        };

        let (answer, ()) = join(call, kill).await;

        store.reopen();
        let written = store.assert_sound().await.seq - before;
        match answer {
            Ok(answer) => assert_eq!((&answer["success"], written), (&json!(true), 50)),
            Err(ServerEnded) => assert!(written == 0 || written == 50, "{written} of 50"),
        }
        let service = service_on(store.open(), clock);
        let again = service.apply_plan(apply_of(&id, None), soon()).await;
        match (written, again) {
            (0, Ok(_)) => unapplied += 1,
            (
                50,
                Err(Error::PlanNotFound {
                    applied: Some(done),
                }),
            ) => {
                assert_eq!(done.audit_ids.len(), 50);
                applied += 1;
            }
            (written, again) => panic!("{written} written, then {again:?}"),
        }
    }
    println!("{applied} plans were applied before the kill, {unapplied} were not");
    assert!(unapplied > 0, "the kills met no plan under way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_is_applied_whole_or_not_when_the_server_is_killed_on_redis() {
    check_kills(Store::redis()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_is_applied_whole_or_not_when_the_server_is_killed_on_sqlite() {
    check_kills(Store::sqlite()).await;
}

#[tokio::test]
async fn while_writes_are_refused_a_dry_run_answers_without_a_plan() {
    let store = Store::redis();
    create_sound(&*store.repository, &project_key("a")).await;
    let client = StdioClient::start(&store).await;
    let limit = |bytes: &str| {
        let mut command = cmd("CONFIG");
        command.arg("SET").arg("maxmemory").arg(bytes);
        let _: String = store.server().run(&command);
    };
    let update =
        |dry_run: bool| json!({ "id": "a", "data": { "title": "New" }, "dryRun": dry_run });
    limit("1");
    // Before the server knows that the store is full, too.
    let first = client.call(TOOL, update(true)).await;
    assert_eq!(first["meta"].get("plan"), None, "{first}");

    let refused = client.call_error(TOOL, update(false)).await;
    let shown = client.call(TOOL, update(true)).await;
    limit("0");
    let planned = client
        .call_until(TOOL, update(true), |answer| {
            answer["meta"].get("plan").is_some()
        })
        .await;

    assert_eq!(refused["code"], "STORE_READ_ONLY");
    assert_eq!(shown["data"]["title"], "New");
    assert_eq!(shown["meta"].get("plan"), None);
    let warnings = shown["meta"]["warnings"].to_string();
    assert!(warnings.contains("no plan"), "{warnings}");
    assert_eq!(planned["data"]["title"], "New");
}

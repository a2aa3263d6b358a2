//! The history of one document, and entries by their audit ids: found by an index, and equal to what
//! looking through the log finds.

use std::{collections::BTreeSet, sync::Arc};

use portfolio_mcp::{
    clock,
    domain::{AuditPage, AuditQuery, DocumentKey, Kind, StoredEntry, Timestamp},
    store::{Location, RedisUrl, Repository, StoreError, open},
};
use redis::{Cmd, cmd};
use serde_json::json;

use crate::support::{
    fixtures::{
        change, create, create_sound, once, project, project_key, try_update, unique, update,
    },
    history_index::{assert_right, is_right, lacks},
    redis::{READ_ONLY, RedisServer},
    soundness::entries,
    stores::{Store, on_each_store},
    wait::wait_until_async,
};

const INDEX: &str = "internal:history-index";
const ENDS: &str = "internal:history-index:ends";
const LOCK: &str = "internal:history-index:lock";
const POSITION: &str = "internal:history-index:position";

fn store_for(write: Option<RedisUrl>, read: Option<RedisUrl>) -> Arc<dyn Repository> {
    let location = Location::Redis {
        write,
        read,
        key_prefix: String::new(),
    };
    open(&location).unwrap().repository
}

/// The same store for a credential that can only read, which looks through the log.
fn scanning(store: &Store) -> Arc<dyn Repository> {
    store_for(None, Some(store.server().user("reader", &READ_ONLY)))
}

/// Adds an entry as another program does, at any score.
fn add(server: &RedisServer, score: impl redis::ToRedisArgs, text: impl redis::ToRedisArgs) {
    server.run::<()>(cmd("ZADD").arg("audit:entries").arg(score).arg(text));
}

/// An entry as another program writes it.
fn foreign(id: &str, number: i64) -> String {
    json!({
        "id": unique("foreign"),
        "timestamp": 1_700_000_000_000_i64 + number,
        "action": "save",
        "entityType": "projects",
        "entityId": id,
        "n": number,
    })
    .to_string()
}

async fn history(repository: &dyn Repository, key: &DocumentKey) -> Vec<StoredEntry> {
    let mut found = entries(repository, &AuditQuery::of(key, 500)).await;
    found.reverse();
    found
}

/// Reads until the index is complete.
async fn complete(store: &Store) {
    wait_until_async("the history index is complete", async || {
        let query = AuditQuery::of(&project_key("a"), 1);
        store.repository.audit_entries(&query).await.unwrap();
        (lacks(store.server(), "") == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_is_found_however_long_the_log_is() {
    let entry = |number: i64| {
        let id = if number % 5000 == 3 { "rare" } else { "other" };
        StoredEntry::parse(format!(
            r#"{{"id":"e{number}","timestamp":{},"entityType":"project","entityId":"{id}"}}"#,
            1_600_000_000_000 + number
        ))
    };
    let log: Vec<StoredEntry> = (0..10_050).map(entry).collect();
    let rare = [log[10_003].clone(), log[5_003].clone(), log[3].clone()];
    let ids: BTreeSet<String> = ["e10003", "e3", "unknown"].map(str::to_owned).into();
    on_each_store(async |store| {
        store.history.import_entries(&log, clock()).await.unwrap();

        let find = async |query: AuditQuery| {
            wait_until_async("the history is found", async || {
                let page = store.repository.audit_entries(&query).await.unwrap();
                page.searched_since.is_none().then_some(page)
            })
            .await
        };
        let document = find(AuditQuery::of(&project_key("rare"), 20)).await;
        let any_kind = find(AuditQuery {
            kind: None,
            ..AuditQuery::of(&project_key("rare"), 20)
        })
        .await;
        let other_kind = find(AuditQuery::of(
            &DocumentKey::new(Kind::Resource, "rare"),
            20,
        ))
        .await;
        let by_ids = find(AuditQuery::by_ids(ids.clone())).await;

        assert_eq!(document.entries, rare);
        assert_eq!(any_kind.entries, rare);
        assert_eq!(other_kind.entries, []);
        assert_eq!(by_ids.entries, [rare[0].clone(), rare[2].clone()]);
        assert_eq!(by_ids.next, None);
    })
    .await;
}

/// What Redis has to do for a history does not depend on the length of the log.
#[tokio::test]
async fn reading_a_history_of_twenty_among_two_hundred_thousand_entries_reads_twenty() {
    const FILL: &str = concat!(
        include_str!("../../../src/store/redis/history_index/ends.lua"),
        r#"
        for i = 1, 200000 do
          local id = i % 10000 == 0 and 'rare' or 'other'
          local ms = 1700000000000 + math.floor(i / 3)
          local beginning = string.format('{"seq":%16.0f', i)
          local uuid = string.format('%08d-0000-4000-8000-000000000000', i)
          local entry = beginning .. ',"timestamp":"2026-01-01T00:00:00.000Z","id":"' .. uuid
            .. '","action":"update","entityType":"project","entityId":"' .. id .. '","source":"mcp"}'
          local place = string.format('%016.0f', ms) .. beginning .. '\np' .. string.sub(uuid, 1, 8) .. '\n'
          redis.call('ZADD', KEYS[1], string.format('%.0f', ms), entry)
          redis.call('ZADD', KEYS[2], 0, 'd\n' .. id .. '\n' .. place, 0, 'i\n' .. uuid .. '\n' .. place)
        end
        redis.call('SET', KEYS[3], ends_of(KEYS[1]))"#
    );
    let store = Store::redis();
    let fill = cmd("EVAL")
        .arg(FILL)
        .arg(3)
        .arg("audit:entries")
        .arg(INDEX)
        .arg(ENDS)
        .clone();
    store.server().run::<()>(&fill);
    let before = (
        store.server().calls("zrange"),
        store.server().info("stats", "total_net_output_bytes"),
    );

    let query = AuditQuery::of(&project_key("rare"), 100);
    let page = store.repository.audit_entries(&query).await.unwrap();

    let commands = store.server().calls("zrange") - before.0;
    let bytes = store.server().info("stats", "total_net_output_bytes") - before.1;
    let seqs: Vec<_> = page.entries.iter().filter_map(StoredEntry::seq).collect();
    let expected: Vec<u64> = (1..=20).rev().map(|nth| nth * 10_000).collect();
    assert_eq!(seqs, expected);
    assert_eq!((page.next, page.searched_since), (None, None));
    // Both ends of the log, and for each entry: it, and up to three of the same millisecond.
    assert!(commands <= 3 + 20 * 4, "{commands} commands");
    assert!(bytes < 20 * 600 + 20_000, "{bytes} bytes");
    assert_eq!(lacks(store.server(), ""), 0);
}

/// Entries of all programs, with scores of all sorts, in one millisecond and in many.
fn fill(server: &RedisServer, random: &mut fastrand::Rng) {
    let scores = [
        "inf",
        "-inf",
        "1e300",
        "1e16",
        "9999999999999998",
        "-1.5",
        "-7",
        "-0",
        "0",
        "0.5",
        "1700000000000.25",
        "1700000000000.75",
        "5",
        "5",
        "1700000000000",
        "1700000000000",
        "1700000000000",
        "1700000000001",
    ];
    for number in 0..400 {
        let score = scores[random.usize(..scores.len())];
        let mut entry = json!({ "n": number });
        for (member, values) in [
            ("action", ["save", "update", "delete"]),
            ("entityType", ["projects", "project", "resource"]),
            ("entityId", ["a", "b", "a\nb"]),
            ("id", ["x", "y", "z"]),
        ] {
            if let Some(value) = values.get(random.usize(..4)) {
                entry[member] = json!(value);
            }
        }
        // Long equal beginnings, and texts that are the beginning of another one.
        let padding = "p".repeat([0, 90, 150][random.usize(..3)]);
        let text = match random.u8(..8) {
            0 => format!(
                r#"{{"padding":"{padding}",{}"#,
                entry.to_string().get(1..).unwrap()
            ),
            1 => format!(
                r#"{{"seq":{number:>16},"timestamp":"2026-01-01T00:00:00.000Z",{}"#,
                entry.to_string().get(1..).unwrap()
            ),
            2 => format!("{entry} "),
            _ => entry.to_string(),
        };
        add(server, score, text.as_bytes());
        if random.u8(..20) == 0 {
            add(server, score, [text.as_bytes(), b" \xff"].concat());
        }
    }
}

fn random_query(random: &mut fastrand::Rng) -> AuditQuery {
    let ids = ["x", "y", "none"].map(str::to_owned);
    let time = |random: &mut fastrand::Rng| {
        let times = [-10, 0, 1, 5, 6, 1_700_000_000_000, 1_700_000_000_001];
        (random.u8(..4) == 0).then(|| Timestamp::from_millis(times[random.usize(..times.len())]))
    };
    let mut query = AuditQuery {
        kind: Kind::ALL.get(random.usize(..4)).copied(),
        action: ["save", "update"]
            .get(random.usize(..6))
            .map(|&action| action.to_owned()),
        since: time(random),
        until: time(random),
        limit: [1, 2, 7, 30, 500][random.usize(..5)],
        max_bytes: [usize::MAX, 300, 5000][random.usize(..3)],
        ..AuditQuery::default()
    };
    if random.u8(..3) == 0 {
        query.audit_ids = Some(ids.into_iter().take(random.usize(1..4)).collect());
    } else {
        query.entity_id = Some(["a", "b", "a\nb"][random.usize(..3)].to_owned());
    }
    query
}

/// All pages of a query, from both stores in turn, beginning with the first.
async fn paged(stores: [&dyn Repository; 2], mut query: AuditQuery) -> Vec<StoredEntry> {
    let mut found = Vec::new();
    for store in stores.into_iter().cycle().take(2000) {
        let page = store.audit_entries(&query).await.unwrap();
        assert!(page.entries.len() <= query.limit);
        found.extend(page.entries);
        query.after = page.next;
        if query.after.is_none() {
            return found;
        }
    }
    panic!("the pages have no end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_through_the_index_have_what_looking_through_the_log_finds() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let store = Store::redis();
    create_sound(&*store.repository, &project_key("a")).await;
    fill(store.server(), &mut random);
    for number in 0..10 {
        update(
            &*store.repository,
            &project_key("a"),
            json!({ "title": number.to_string() }),
        )
        .await;
    }
    complete(&store).await;
    assert_right(store.server(), "");
    let (indexed, scanning) = (&*store.repository, scanning(&store));

    for _ in 0..30 {
        let query = random_query(&mut random);
        let expected = paged([&*scanning, &*scanning], query.clone()).await;

        for stores in [
            [indexed, indexed],
            [indexed, &*scanning],
            [&*scanning, indexed],
        ] {
            let found = paged(stores, query.clone()).await;
            assert!(
                found == expected,
                "{} instead of {} entries for {query:?}",
                found.len(),
                expected.len()
            );
        }
    }
    assert_eq!(
        lacks(store.server(), ""),
        0,
        "the index was used all the time"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_of_thousands_is_read_in_pages_of_any_size() {
    let store = Store::redis();
    let key = project_key("a");
    let log: Vec<StoredEntry> = (0..3000)
        .map(|number| {
            let id = if number % 2 == 0 { "a" } else { "b" };
            StoredEntry::parse(foreign(id, number / 7))
        })
        .collect();
    store.history.import_entries(&log, clock()).await.unwrap();
    complete(&store).await;
    let scanning = scanning(&store);
    let expected = history(&*scanning, &key).await;
    assert_eq!(expected.len(), 1500);

    for limit in [1, 99, 100, 101, 1500, 5000] {
        let found = paged([&*store.repository; 2], AuditQuery::of(&key, limit)).await;

        assert!(found == expected, "pages of {limit}");
    }
}

/// Thousands of entries without a time have the same score, among which each is searched for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_is_found_among_thousands_with_its_score() {
    let store = Store::redis();
    for number in 0..3000 {
        let text = format!(
            r#"{{"n":{number},"entityType":"project","entityId":"e{}"}}"#,
            number % 500
        );
        add(store.server(), 0, text);
    }
    complete(&store).await;
    let before = store.server().calls("zrange");

    let found = history(&*store.repository, &project_key("e7")).await;

    let numbers: Vec<_> = found
        .iter()
        .map(|entry| entry.json()["n"].clone())
        .collect();
    assert_eq!(numbers, [7, 507, 2507, 2007, 1507, 1007].map(|n| json!(n)));
    let commands = store.server().calls("zrange") - before;
    assert!(commands <= 3 + 6 * 2 * 13, "{commands} commands");
}

#[tokio::test]
async fn what_others_add_is_found_at_the_next_read() {
    let (store, key) = (Store::redis(), project_key("a"));
    create_sound(&*store.repository, &key).await;
    let scanning = scanning(&store);
    for number in 0..20 {
        // Version 0.1.0 and the site's own writers add to the log alone.
        for more in 0..number {
            add(
                store.server(),
                "1900000000000",
                foreign("a", 100 * number + more),
            );
        }

        let found = history(&*store.repository, &key).await;

        assert!(found == history(&*scanning, &key).await);
        assert_eq!(lacks(store.server(), ""), 0, "what is lacking was little");
        assert_right(store.server(), "");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_log_is_indexed_in_the_background_after_a_write() {
    let (store, key) = (Store::redis(), project_key("a"));
    create_sound(&*store.repository, &key).await;
    for number in 0..3000 {
        add(
            store.server(),
            1_600_000_000_000_i64 + number,
            foreign("b", number),
        );
    }
    store.server().run::<()>(cmd("DEL").arg(INDEX));

    update(&*store.repository, &key, json!({ "title": "New" })).await;

    wait_until_async("the history index is complete", async || {
        (lacks(store.server(), "") == 0).then_some(())
    })
    .await;
    assert_right(store.server(), "");
    for left in [LOCK, POSITION] {
        assert_eq!(
            store.server().run::<i64>(cmd("EXISTS").arg(left)),
            0,
            "{left}"
        );
    }
    store.assert_sound().await;
}

fn trim(server: &RedisServer) {
    server.run::<()>(cmd("ZREMRANGEBYRANK").arg("audit:entries").arg(0).arg(4));
}

fn trim_and_add(server: &RedisServer) {
    trim(server);
    for number in 0..5 {
        add(server, 1_600_000_000_000_i64 + number, foreign("a", number));
    }
}

fn move_newest(server: &RedisServer) {
    let newest: Vec<String> = server.run(cmd("ZRANGE").arg("audit:entries").arg(-1).arg(-1));
    let mut command = cmd("ZADD");
    command.arg("audit:entries").arg("XX").arg("1800000000000");
    server.run::<()>(command.arg(newest));
}

/// Entries that somebody took out of the log, or moved, leave members that lead nowhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_does_not_match_the_log_is_built_again() {
    for change in [trim, trim_and_add, move_newest] {
        let (store, key) = (Store::redis(), project_key("a"));
        create_sound(&*store.repository, &key).await;
        for number in 0..10 {
            update(
                &*store.repository,
                &key,
                json!({ "title": number.to_string() }),
            )
            .await;
        }
        change(store.server());
        let expected = history(&*scanning(&store), &key).await;

        let found = history(&*store.repository, &key).await;

        assert!(found == expected);
        wait_until_async("the history index is right again", async || {
            assert!(history(&*store.repository, &key).await == expected);
            is_right(store.server(), "").then_some(())
        })
        .await;
    }
}

/// One entry that is not in the index and one that is gone from the log cancel out in its size.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_in_a_log_that_another_program_caps_is_found() {
    for own_writes_after in [0, 3] {
        let (store, key, other) = (Store::redis(), project_key("a"), project_key("beta"));
        create_sound(&*store.repository, &key).await;
        let write = async |number: i32| {
            let patch = json!({ "title": number.to_string() });
            update(&*store.repository, &key, patch).await;
        };
        for number in 0..5 {
            write(number).await;
        }
        add(store.server(), 1_900_000_000_000_i64, foreign("beta", 1));
        store
            .server()
            .run::<()>(cmd("ZREMRANGEBYRANK").arg("audit:entries").arg(0).arg(0));
        for number in 0..own_writes_after {
            write(10 + number).await;
        }
        assert_eq!(lacks(store.server(), ""), 0);
        let expected = history(&*scanning(&store), &key).await;

        assert_eq!(history(&*store.repository, &other).await.len(), 1);
        assert!(history(&*store.repository, &key).await == expected);

        wait_until_async("the history index is right again", async || {
            assert_eq!(history(&*store.repository, &other).await.len(), 1);
            is_right(store.server(), "").then_some(())
        })
        .await;
    }
}

/// Building the index again is refused for some minutes after the last time, and not for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_was_not_built_again_is_built_when_it_may_be() {
    let (store, key) = (Store::redis(), project_key("a"));
    create_sound(&*store.repository, &key).await;
    for number in 0..12 {
        let patch = json!({ "title": number.to_string() });
        update(&*store.repository, &key, patch).await;
    }
    let rebuilt = async || {
        wait_until_async("the history index is right", async || {
            history(&*store.repository, &key).await;
            is_right(store.server(), "").then_some(())
        })
        .await;
    };
    trim(store.server());
    rebuilt().await;
    trim(store.server());
    for _ in 0..3 {
        assert_eq!(history(&*store.repository, &key).await.len(), 3);
    }
    assert_eq!(lacks(store.server(), ""), -10);

    // Without it, the index is that of a store which never had a complete one.
    store.server().run::<()>(cmd("DEL").arg(ENDS));

    rebuilt().await;
}

/// Half of the entries twice in the log, but for their score: their members would be the same.
#[tokio::test]
async fn a_log_that_cannot_be_indexed_is_looked_through() {
    let (store, key) = (Store::redis(), project_key("a"));
    create_sound(&*store.repository, &key).await;
    for rest in ["", " "] {
        let text = format!(
            r#"{{"seq":{:>16},"timestamp":"2026-01-01T00:00:00.000Z","id":"same","entityType":"project","entityId":"a"}}{rest}"#,
            7
        );
        add(store.server(), 1_700_000_000_000_i64, text);
    }
    let expected = history(&*scanning(&store), &key).await;
    assert_eq!(expected.len(), 3);

    for _ in 0..3 {
        assert!(history(&*store.repository, &key).await == expected);
    }

    assert_eq!(lacks(store.server(), ""), 2);
    assert_eq!(
        store
            .server()
            .run::<i64>(cmd("EXISTS").arg(&[LOCK, POSITION])),
        0
    );
}

#[tokio::test]
async fn one_server_at_a_time_builds_the_index() {
    let (store, key) = (Store::redis(), project_key("a"));
    create_sound(&*store.repository, &key).await;
    add(store.server(), 1_600_000_000_000_i64, foreign("a", 1));
    store
        .server()
        .run::<()>(cmd("SET").arg(LOCK).arg("another server"));

    let found = history(&*store.repository, &key).await;

    assert_eq!(found.len(), 2);
    assert_eq!(lacks(store.server(), ""), 2, "another server is at work");
    store.server().run::<()>(cmd("DEL").arg(LOCK));
    assert_eq!(history(&*store.repository, &key).await.len(), 2);
    assert_eq!(lacks(store.server(), ""), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_servers_build_one_index_while_others_write() {
    let (store, key) = (Store::redis(), project_key("a"));
    create_sound(&*store.repository, &key).await;
    for number in 0..5000 {
        add(
            store.server(),
            1_600_000_000_000_i64 + number,
            foreign("b", number),
        );
    }
    let servers: Vec<_> = (0..3).map(|_| store.another()).collect();
    let reads = servers.iter().map(async |server| {
        wait_until_async("the history index is complete", async || {
            let _ = try_update(&**server, &key, json!({ "title": unique("title") })).await;
            history(&**server, &key).await;
            (lacks(store.server(), "") == 0).then_some(())
        })
        .await;
    });

    futures::future::join_all(reads).await;

    assert_right(store.server(), "");
    store.assert_sound().await;
}

/// As after `kill -9`: the lock of the killed server is still there until its time is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_server_goes_on_where_a_killed_one_stopped() {
    const ENTRIES: i64 = 6000;
    let store = Store::redis();
    let padding = "x".repeat(1500);
    for number in 0..ENTRIES {
        let text =
            json!({ "n": number, "entityId": "a", "entityType": "project", "padding": padding });
        add(
            store.server(),
            1_600_000_000_000_i64 + number,
            text.to_string(),
        );
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let url = store.server().redis_url();
    runtime.spawn(async move {
        let killed = store_for(Some(url), None);
        killed
            .audit_entries(&AuditQuery::of(&project_key("a"), 1))
            .await
            .unwrap();
        std::future::pending::<()>().await;
    });
    let missing = || lacks(store.server(), "");
    wait_until_async("half of the log is indexed", async || {
        (missing() < ENTRIES).then_some(())
    })
    .await;
    runtime.shutdown_background();
    wait_until_async("the killed server has stopped", async || {
        let before = missing();
        let ping: String = store.server().run(&cmd("PING"));
        (ping == "PONG" && before == missing()).then_some(())
    })
    .await;
    let left = missing() / 2;
    assert!(left > 0, "it was killed too late");
    store.server().run::<()>(cmd("DEL").arg(LOCK));
    let before = store.server().info("stats", "total_net_output_bytes");

    // Few entries are read for a page without a filter by document.
    let next = store.another();
    let mut query = AuditQuery::of(&project_key("none"), 1);
    query.since = Some(Timestamp::from_millis(1_600_000_000_000 + ENTRIES));
    wait_until_async("the history index is complete", async || {
        next.audit_entries(&query).await.unwrap();
        (missing() == 0).then_some(())
    })
    .await;

    let bytes = store.server().info("stats", "total_net_output_bytes") - before;
    let entry = padding.len() as u64 + 200;
    let left = u64::try_from(left).unwrap();
    assert!(
        bytes < (left + 100) * entry + 500_000,
        "{bytes} bytes for {left} entries"
    );
    assert_right(store.server(), "");
}

#[tokio::test]
async fn a_user_without_access_to_the_index_reads_and_does_not_write() {
    let (store, key) = (Store::redis(), project_key("a"));
    create_sound(&*store.repository, &key).await;
    let change = [change(&*store.repository, &key, json!({ "title": "New" })).await];
    let keys = "~data:* ~index:* ~audit:* ~cache:* ~internal:latest:* ~internal:operation:* ~internal:history ~internal:self-test ~internal:unlabelled resetchannels +@all";
    let user = store
        .server()
        .user("limited", &keys.split(' ').collect::<Vec<_>>());
    let limited = store_for(Some(user), None);
    let before = store.server().dump();

    let found = history(&*limited, &key).await;
    let refused = limited.commit(&change, &once()).await.unwrap_err();

    assert_eq!(found.len(), 1);
    assert!(
        matches!(refused, StoreError::ReadOnly { .. }),
        "{refused:?}"
    );
    assert_eq!(store.server().dump(), before);
    store.assert_sound().await;
}

#[tokio::test]
async fn a_commit_of_many_documents_is_indexed() {
    on_each_store(async |store| {
        let keys: Vec<DocumentKey> = (0..200)
            .map(|number| project_key(&format!("p{number}")))
            .collect();
        let creations: Vec<_> = keys
            .iter()
            .map(|key| crate::support::fixtures::creation(key, &project(&key.id)))
            .collect();
        let commit = store.repository.commit(&creations, &once()).await.unwrap();
        update(&*store.repository, &keys[7], json!({ "title": "New" })).await;

        let found = history(&*store.repository, &keys[7]).await;

        assert_eq!(found.len(), 2);
        assert_eq!(found[1], commit.entries[7]);
        let ids = commit
            .entries
            .iter()
            .filter_map(|entry| entry.text_of("id"));
        let query = AuditQuery::by_ids(ids.map(ToOwned::to_owned).collect());
        let AuditPage { entries, next, .. } = store.repository.audit_entries(&query).await.unwrap();
        let newest_first: Vec<_> = commit.entries.iter().rev().cloned().collect();
        assert!(entries == newest_first);
        assert_eq!(next, None);
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn an_index_of_another_type_is_not_used() {
    let (store, key) = (Store::redis(), project_key("a"));
    create(&*store.repository, &key, project("a")).await;
    let plant: Cmd = cmd("RPUSH").arg(INDEX).arg("x").clone();
    store.server().run::<()>(cmd("DEL").arg(INDEX));
    store.server().run::<()>(&plant);

    assert_eq!(history(&*store.repository, &key).await.len(), 1);

    store.server().run::<()>(cmd("DEL").arg(INDEX));
    assert_eq!(history(&*store.repository, &key).await.len(), 1);
    store.assert_sound().await;
}

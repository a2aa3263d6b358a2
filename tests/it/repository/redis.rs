//! What only Redis has: keys of other types, users with limited permissions, and other programs
//! that use the same keys.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use portfolio_mcp::{
    clock,
    domain::{
        AuditQuery, Change, Current, DocumentKey, Kind, ListQuery, Operation, Timestamp, Update,
    },
    store::{Location, RedisUrl, Repository, StoreError, open},
};
use redis::{Cmd, cmd};
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;

use crate::support::{
    fixtures::{
        change, change_for, create, create_sound, creation, legacy_entries, object, once, project,
        project_key, resource, stored, try_ids, try_update, unique, update, write_context,
    },
    proxy::{Mode, Proxy},
    redis::{PASSWORD, READ_ONLY, RedisServer},
    soundness,
    stores::{SITE, Store},
    wait::wait_until_async,
    wait_until,
};

/// The store with these credentials.
fn store_for(write: Option<RedisUrl>, read: Option<RedisUrl>) -> Arc<dyn Repository> {
    parts_for(write, read).repository
}

/// The same with all its parts.
fn parts_for(write: Option<RedisUrl>, read: Option<RedisUrl>) -> portfolio_mcp::store::Store {
    open(&Location::Redis {
        write,
        read,
        key_prefix: String::new(),
    })
    .unwrap()
}

fn set(key: &str, value: impl redis::ToRedisArgs) -> Cmd {
    let mut set = cmd("SET");
    set.arg(key).arg(value);
    set
}

/// The document that the store remembers after one of our writes, while others commit.
async fn remembered(store: &Store, key: &DocumentKey) -> Current {
    let others = (0..4).map(|number| {
        let (repository, key) = (
            Arc::clone(&store.repository),
            project_key(&format!("other-{number}")),
        );
        tokio::spawn(async move {
            create_sound(&*repository, &key).await;
            for number in 0.. {
                let patch = json!({ "title": format!("title {number}") });
                let _ = try_update(&*repository, &key, patch).await;
            }
        })
    });
    let others: Vec<_> = others.map(AbortOnDropHandle::new).collect();
    for number in 0..1000 {
        let patch = json!({ "title": format!("title {number}") });
        let _ = try_update(&*store.repository, key, patch).await;
        let current = store.repository.get_for_update(key).await.unwrap();
        if current.is_remembered() {
            drop(others);
            return current;
        }
    }
    panic!("the store never remembers")
}

#[tokio::test]
async fn a_remembered_document_equals_the_stored_one() {
    let (store, key) = (Store::redis(), project_key("a"));
    create_sound(&*store.repository, &key).await;

    let remembered = remembered(&store, &key).await;

    let read = store.another().get_for_update(&key).await.unwrap();
    assert!(!read.is_remembered(), "another process remembers nothing");
    let again = store.repository.get_for_update(&key).await.unwrap();
    assert!(!again.is_remembered(), "it is remembered once");
    assert_eq!(
        remembered.record().unwrap().text(),
        read.record().unwrap().text()
    );
    assert_eq!(remembered.latest_entry(), read.latest_entry());
}

/// The next entry contains the hash of this one, so a text that is not stored must not be used.
#[tokio::test]
async fn a_remembered_entry_that_differs_from_the_stored_one_is_a_conflict() {
    let (store, key) = (Store::redis(), project_key("a"));
    create_sound(&*store.repository, &key).await;
    let remembered = remembered(&store, &key).await;
    // As after a fail-over that lost our entry.
    let latest = "internal:latest:projects:a";
    let other = remembered.latest_entry().unwrap().replace('2', "3");
    store.server().run::<()>(&set(latest, other));

    let operation = once();
    let Ok(Update::Change(change, _)) = Change::update(
        &remembered,
        &object(json!({ "title": "New" })),
        &[],
        write_context(&operation),
    ) else {
        panic!("no change")
    };
    let conflict = store
        .repository
        .commit(&[*change], &operation)
        .await
        .unwrap_err();

    assert!(matches!(conflict, StoreError::Conflict), "{conflict:?}");
}

/// Checks the error for a stored value that is not a document, for each way of reading one.
async fn check_corrupt(plant: Cmd, expected: &str) {
    let store = Store::redis();
    create_sound(&*store.repository, &project_key("sound")).await;
    store.server().run::<()>(&plant);
    store
        .server()
        .run::<()>(cmd("SADD").arg("index:all:projects").arg("bad"));
    let before = store.server().dump();

    let key = project_key("bad");
    for error in [
        store.repository.get(&key).await.unwrap_err(),
        store.repository.get_for_update(&key).await.unwrap_err(),
    ] {
        let StoreError::Corrupt { key, problem } = error else {
            panic!("not corrupt: {error:?}");
        };
        assert_eq!(key, "data:projects:bad");
        assert!(problem.contains(expected), "{problem}");
    }
    let page = store
        .repository
        .list(
            Kind::Project,
            &ListQuery {
                limit: 10,
                ..ListQuery::default()
            },
        )
        .await
        .unwrap();
    assert_eq!(page.records.len(), 1, "a list leaves it out");
    assert_eq!(page.total, 1, "a list leaves it out");
    assert_eq!(page.unreadable.len(), 1);
    assert!(
        page.unreadable[0].contains("data:projects:bad"),
        "and names it: {:?}",
        page.unreadable
    );
    assert_eq!(store.server().dump(), before, "reading changes nothing");
    store.assert_sound_but(&[project_key("bad")]).await;
}

#[tokio::test]
async fn a_value_that_is_not_json_is_corrupt() {
    check_corrupt(set("data:projects:bad", "<html>"), "not JSON").await;
}

#[tokio::test]
async fn a_value_that_is_not_a_json_object_is_corrupt() {
    check_corrupt(set("data:projects:bad", "[{}]"), "not an object").await;
}

#[tokio::test]
async fn an_empty_value_is_corrupt() {
    check_corrupt(set("data:projects:bad", ""), "not JSON").await;
}

#[tokio::test]
async fn a_value_that_is_not_utf_8_is_corrupt() {
    check_corrupt(
        set("data:projects:bad", b"{\"title\":\"\xff\"}".as_slice()),
        "not UTF-8",
    )
    .await;
}

#[tokio::test]
async fn a_value_of_another_redis_type_is_corrupt() {
    check_corrupt(
        cmd("HSET")
            .arg("data:projects:bad")
            .arg("title")
            .arg("x")
            .clone(),
        "not a Redis string",
    )
    .await;
}

#[tokio::test]
async fn documents_of_other_programs_are_read_and_versioned_unchanged() {
    let store = Store::redis();
    let text = " {\"id\" : \"a\", \"n\":1.0, \"big\":12345678901234567890123, \"s\":\"\\u00e9\\/\", \"n\":2,\n\"metadata\":{\"status\":\"published\"}}\n";
    store.server().run::<()>(&set("data:projects:a", text));
    store
        .server()
        .run::<()>(cmd("SADD").arg("index:all:projects").arg("a"));

    let current = store
        .repository
        .get_for_update(&project_key("a"))
        .await
        .unwrap();

    assert_eq!(current.record().unwrap().text(), text);
    assert_eq!(current.latest_entry(), None);
    assert_eq!(
        stored(&*store.repository, &project_key("a"))
            .await
            .as_deref(),
        Some(text)
    );
}

/// The document is older than this program, and its index is wrong.
#[tokio::test]
async fn the_first_update_of_an_older_programs_document_corrects_its_indexes() {
    for prefix in ["", SITE] {
        let store = Store::on(&Arc::new(RedisServer::start()), prefix);
        let (server, key) = (store.server(), |name: &str| format!("{prefix}{name}"));
        server.run::<()>(&set(
            &key("data:projects:a"),
            json!(project("a")).to_string(),
        ));
        server.run::<()>(cmd("SADD").arg(key("index:published:projects")).arg("a"));
        server.run::<()>(cmd("SADD").arg(key("index:featured:projects")).arg("a"));

        let committed = update(
            &*store.repository,
            &project_key("a"),
            json!({"title": "New"}),
        )
        .await;

        assert_eq!(
            committed.entries[0].json()["metadata"].get("previous"),
            None
        );
        store.assert_sound().await;
    }
}

#[tokio::test]
async fn an_indexed_id_without_a_document_is_left_out() {
    let store = Store::redis();
    create_sound(&*store.repository, &project_key("a")).await;
    store
        .server()
        .run::<()>(cmd("SADD").arg("index:all:projects").arg("gone"));

    let page = store
        .repository
        .list(
            Kind::Project,
            &ListQuery {
                limit: 10,
                ..ListQuery::default()
            },
        )
        .await
        .unwrap();

    assert_eq!(page.records.len(), 1);
    assert_eq!(page.total, 1);
    assert_eq!(page.unreadable.len(), 0);
    assert!(
        store
            .repository
            .get(&project_key("gone"))
            .await
            .unwrap()
            .record
            .is_none()
    );
    store.assert_sound_but(&[project_key("gone")]).await;
}

#[tokio::test]
async fn two_prefixes_in_one_database_are_independent() {
    let server = Arc::new(RedisServer::start());
    let (plain, site) = (Store::on(&server, ""), Store::on(&server, SITE));
    create_sound(&*plain.repository, &project_key("a")).await;
    let operation = once();
    let creation = [creation(&project_key("a"), &project("a"))];

    assert_eq!(stored(&*site.repository, &project_key("a")).await, None);
    plain
        .repository
        .commit(&creation, &operation)
        .await
        .unwrap_err();
    assert_eq!(
        site.repository
            .commit(&creation, &operation)
            .await
            .unwrap()
            .entries[0]
            .seq(),
        Some(1)
    );

    plain.assert_sound().await;
    site.assert_sound().await;
    let of_site = server
        .dump()
        .into_keys()
        .filter(|key| key.starts_with(SITE))
        .count();
    assert!(of_site >= 5, "the site's keys have its prefix");
}

#[tokio::test]
async fn a_change_of_bytes_that_leaves_the_json_equal_conflicts() {
    let store = Store::redis();
    let key = project_key("a");
    create_sound(&*store.repository, &key).await;
    let late = change(&*store.repository, &key, json!({"title": "Late"})).await;
    let text = stored(&*store.repository, &key).await.unwrap();
    store
        .server()
        .run::<()>(&set("data:projects:a", text.replace(":{", ": {")));
    let before = store.server().dump();

    let result = store.repository.commit(&[late], &once()).await;

    assert!(matches!(result, Err(StoreError::Conflict)), "{result:?}");
    assert_eq!(store.server().dump(), before);
}

#[tokio::test]
async fn changing_a_deleted_document_conflicts() {
    let store = Store::redis();
    let key = project_key("a");
    create_sound(&*store.repository, &key).await;
    let late = change(&*store.repository, &key, json!({"title": "Late"})).await;
    store.server().run::<()>(cmd("DEL").arg("data:projects:a"));
    let before = store.server().dump();

    let result = store.repository.commit(&[late], &once()).await;

    assert!(matches!(result, Err(StoreError::Conflict)), "{result:?}");
    assert_eq!(store.server().dump(), before);
}

/// Another program wrote in between, so the chain of versions has a visible gap; the rest is sound.
#[tokio::test]
async fn an_update_of_another_programs_write_records_its_version() {
    let store = Store::redis();
    let key = project_key("a");
    create_sound(&*store.repository, &key).await;
    store.server().run::<()>(&set(
        "data:projects:a",
        json!(object(json!({"id": "a", "title": "Theirs"}))).to_string(),
    ));
    let theirs = store.repository.get(&key).await.unwrap().record.unwrap();
    let patch = project("a");
    let ours = portfolio_mcp::domain::Change::put(
        &store.repository.get_for_update(&key).await.unwrap(),
        &patch,
        crate::support::fixtures::write_context(&once()),
    );

    let committed = store
        .repository
        .commit(&[ours.unwrap()], &once())
        .await
        .unwrap();

    let metadata = &committed.entries[0].json()["metadata"];
    assert_eq!(metadata["versionBefore"], theirs.version().as_str());
    store.assert_sound_but(&[key]).await;
}

/// Puts a value of the wrong type at `key`: nothing is written, and everything works again after
/// its removal.
async fn check_wrong_type(key: &str, plant: &[&str]) {
    let store = Store::redis();
    let document = project_key("a");
    create_sound(&*store.repository, &document).await;
    let operation = Operation::keyed("one", json!({}));
    let mut before = store.server().dump();
    let change = [change_for(
        &*store.repository,
        &document,
        json!({"title": "New", "metadata": {"status": "published", "featured": true}}),
        &operation,
    )
    .await];
    let key = key.replace("{operation}", operation.key());
    store.server().run::<()>(cmd("COPY").arg(&key).arg("saved"));
    store.server().run::<()>(cmd("DEL").arg(&key));
    store
        .server()
        .run::<()>(cmd(plant[0]).arg(&key).arg(&plant[1..]));
    let planted = store.server().dump();

    let result = store.repository.commit(&change, &operation).await;

    assert!(result.is_err(), "{key}: {result:?}");
    assert_eq!(store.server().dump(), planted, "{key}");

    store.server().run::<()>(cmd("DEL").arg(&key));
    let _: redis::RedisResult<()> = store.server().try_run(cmd("RENAME").arg("saved").arg(&key));
    assert_eq!(store.server().dump(), before, "{key}");
    store.repository.commit(&change, &operation).await.unwrap();
    before.clear();
    store.assert_sound().await;
}

#[tokio::test]
async fn a_value_of_the_wrong_type_stops_a_commit_before_it_writes() {
    let (list, text) = (["RPUSH", "x"], ["SET", "x"]);
    let plants = [
        ("internal:operation:{operation}", list),
        ("audit:entries", list),
        ("audit:entries", text),
        ("audit:stats", list),
        ("audit:stats", text),
        ("internal:history-index", list),
        ("internal:history-index", text),
        ("data:projects:a", list),
        ("internal:latest:projects:a", list),
        ("index:all:projects", list),
        ("index:all:projects", text),
        ("index:published:projects", list),
        ("index:featured:projects", list),
    ];
    for (key, plant) in plants {
        println!("--- {} at {key}", plant[0]);
        check_wrong_type(key, &[plant[0], plant[1]]).await;
    }
}

/// Keys that are only deleted or only used temporarily may have any type.
#[tokio::test]
async fn a_value_of_the_wrong_type_at_an_unread_key_stops_nothing() {
    for proof in [Proof::Asked, Proof::Tried] {
        let store = Store::redis();
        create_sound(&*store.repository, &project_key("a")).await;
        for key in [
            "cache:api:projects",
            "cache:api:projects:a",
            "internal:self-test",
        ] {
            store.server().run::<()>(cmd("RPUSH").arg(key).arg("x"));
        }
        let proxy = proxy_to(store.server(), proof).await;

        let result = try_update(
            &*store_for(Some(proxy.redis_url()), None),
            &project_key("a"),
            json!({"title": "New"}),
        )
        .await;

        assert!(result.is_ok(), "{proof:?}: {result:?}");
        let _: i64 = store.server().run(cmd("DEL").arg("internal:self-test"));
        store.assert_sound().await;
    }
}

#[tokio::test]
async fn a_value_of_the_wrong_type_at_a_read_key_is_an_error() {
    let store = Store::redis();
    for key in ["index:all:projects", "audit:entries", "audit:stats"] {
        store.server().run::<()>(&set(key, "x"));
    }

    let listed = store
        .repository
        .list(
            Kind::Project,
            &ListQuery {
                limit: 10,
                ..ListQuery::default()
            },
        )
        .await;
    let entries = store
        .repository
        .audit_entries(&AuditQuery {
            limit: 10,
            ..AuditQuery::default()
        })
        .await;
    let stats = store.repository.audit_stats().await;

    assert!(listed.is_err(), "{listed:?}");
    assert!(try_ids(&*store.repository, Kind::Project).await.is_err());
    assert!(entries.is_err(), "{entries:?}");
    assert!(stats.is_err(), "{stats:?}");
}

#[tokio::test]
async fn foreign_keys_are_never_touched() {
    for prefix in ["", SITE] {
        let store = Store::on(&Arc::new(RedisServer::start()), prefix);
        let (server, key) = (store.server(), |name: &str| format!("{prefix}{name}"));
        let foreign = [
            cmd("SET").arg(key("access:projects:a")).arg("5").clone(),
            cmd("SET").arg(key("migration:flags")).arg("{}").clone(),
            cmd("SET").arg(key("meta:schema:version")).arg("1").clone(),
            cmd("SET")
                .arg(key("data:projects:api-connection-test"))
                .arg("ping")
                .arg("EX")
                .arg(1000)
                .clone(),
            cmd("SET").arg(key("data:posts:a")).arg("{}").clone(),
            cmd("SADD").arg(key("index:all:posts")).arg("a").clone(),
            cmd("SADD").arg(key("index:updated")).arg("a").clone(),
            cmd("RPUSH").arg(key("queue")).arg("a").clone(),
            cmd("XADD")
                .arg(key("stream"))
                .arg("1-1")
                .arg("a")
                .arg("b")
                .clone(),
            cmd("SET").arg(key("cache:api:posts")).arg("[]").clone(),
            cmd("SET")
                .arg(key("cache:api:resources:a"))
                .arg("[]")
                .clone(),
            cmd("SET")
                .arg(key("cache:api:projects:other"))
                .arg("[]")
                .clone(),
            cmd("SET")
                .arg("elsewhere:data:projects:a")
                .arg("{}")
                .clone(),
        ];
        for command in &foreign {
            server.run::<redis::Value>(command);
        }
        let before = server.dump();

        create_sound(&*store.repository, &project_key("a")).await;
        update(
            &*store.repository,
            &project_key("a"),
            json!({"metadata": {"status": "published"}}),
        )
        .await;
        store
            .history
            .import_entries(&legacy_entries(), clock())
            .await
            .unwrap();
        store.assert_sound().await;

        let after = server.dump();
        for (key, value) in before {
            assert_eq!(after.get(&key), Some(&value), "{key}");
        }
    }
}

#[tokio::test]
async fn foreign_fields_of_the_counters_are_kept() {
    let store = Store::redis();
    create_sound(&*store.repository, &project_key("a")).await;
    for (name, value) in [
        ("lastReset", "2025-01-01"),
        ("total", "17"),
        ("actions:update", "x"),
    ] {
        store
            .server()
            .run::<()>(cmd("HSET").arg("audit:stats").arg(name).arg(value));
    }
    store
        .server()
        .run::<()>(cmd("HSET").arg("audit:stats").arg("action:create").arg(7));

    store.assert_sound().await;
    update(
        &*store.repository,
        &project_key("a"),
        json!({"title": "New"}),
    )
    .await;
    store.assert_sound().await;

    let fields: BTreeMap<String, String> = store.server().run(cmd("HGETALL").arg("audit:stats"));
    assert_eq!(fields["lastReset"].as_str(), "2025-01-01");
    assert_eq!(fields["total"].as_str(), "17");
    assert_eq!(fields["actions:update"].as_str(), "x");
}

#[tokio::test]
async fn a_write_drops_the_cached_responses_of_the_document() {
    for prefix in ["", SITE] {
        let store = Store::on(&Arc::new(RedisServer::start()), prefix);
        let (server, key) = (store.server(), |name: &str| format!("{prefix}{name}"));
        let cached = [
            "cache:api:projects",
            "cache:api:projects:a",
            "cache:api:projects:b",
            "cache:api:resources",
            "cache:api:resources:a",
        ];
        let fill = || {
            for name in cached {
                server.run::<()>(cmd("SET").arg(key(name)).arg("[]").arg("EX").arg(300));
            }
        };
        let left = || {
            cached
                .into_iter()
                .filter(|name| server.run::<bool>(cmd("EXISTS").arg(key(name))))
                .collect::<Vec<_>>()
        };

        fill();
        create_sound(&*store.repository, &project_key("a")).await;
        assert_eq!(
            left(),
            [
                "cache:api:projects:b",
                "cache:api:resources",
                "cache:api:resources:a"
            ]
        );

        fill();
        update(
            &*store.repository,
            &project_key("a"),
            json!({"title": "New"}),
        )
        .await;
        assert_eq!(
            left(),
            [
                "cache:api:projects:b",
                "cache:api:resources",
                "cache:api:resources:a"
            ]
        );

        fill();
        create(
            &*store.repository,
            &DocumentKey::new(Kind::Resource, "a"),
            resource("a"),
        )
        .await;
        assert_eq!(
            left(),
            [
                "cache:api:projects",
                "cache:api:projects:a",
                "cache:api:projects:b"
            ]
        );
    }
}

#[tokio::test]
async fn an_idempotency_record_lasts_a_day_for_a_callers_key_and_less_otherwise() {
    let store = Store::redis();
    let key = project_key("a");
    create_sound(&*store.repository, &key).await;
    let cases = [
        (Operation::keyed(&unique("key"), json!({})), 86_400),
        (once(), 900),
    ];

    for (operation, seconds) in cases {
        let change = change_for(
            &*store.repository,
            &key,
            json!({"title": unique("title")}),
            &operation,
        )
        .await;
        store
            .repository
            .commit(&[change], &operation)
            .await
            .unwrap();

        let left: i64 = store
            .server()
            .run(cmd("TTL").arg(format!("internal:operation:{}", operation.key())));
        assert!(
            (seconds - 60..=seconds).contains(&left),
            "{left} of {seconds}"
        );
    }
}

#[tokio::test]
async fn a_lost_counter_continues_after_the_newest_entry() {
    let store = Store::redis();
    let key = project_key("a");
    create_sound(&*store.repository, &key).await;
    for lost in [
        cmd("HDEL").arg("audit:stats").arg("seq").clone(),
        cmd("DEL").arg("audit:stats").clone(),
        cmd("HSET").arg("audit:stats").arg("seq").arg("1").clone(),
        cmd("HSET")
            .arg("audit:stats")
            .arg("seq")
            .arg("many")
            .clone(),
    ] {
        update(&*store.repository, &key, json!({"title": unique("before")})).await;
        store.server().run::<()>(&lost);

        update(&*store.repository, &key, json!({"title": unique("after")})).await;
    }

    assert_eq!(store.repository.audit_stats().await.unwrap().total, 9);
    store.assert_sound().await;
}

/// The website that shares the database adds entries without a number.
#[tokio::test]
async fn a_lost_counter_continues_even_if_the_newest_entry_is_foreign() {
    let store = Store::redis();
    let key = project_key("a");
    create_sound(&*store.repository, &key).await;
    update(&*store.repository, &key, json!({"title": "2"})).await;
    let newest: Vec<(String, f64)> = store.server().run(
        cmd("ZRANGE")
            .arg("audit:entries")
            .arg(-1)
            .arg(-1)
            .arg("WITHSCORES"),
    );
    let theirs = r#"{"timestamp":"2027-01-01T00:00:00.000Z","action":"save","entityType":"projects","entityId":"a","source":"admin"}"#;
    store.server().run::<()>(
        cmd("ZADD")
            .arg("audit:entries")
            .arg(newest[0].1 + 1.0)
            .arg(theirs),
    );
    store.server().run::<()>(cmd("DEL").arg("audit:stats"));

    let committed = update(&*store.repository, &key, json!({"title": "3"})).await;

    assert_eq!(committed.entries[0].seq(), Some(3));
    assert_eq!(store.repository.audit_stats().await.unwrap().total, 4);
    store.assert_sound().await;
}

#[tokio::test]
async fn a_counter_ahead_of_the_newest_entry_is_trusted() {
    let store = Store::redis();
    let key = project_key("a");
    create_sound(&*store.repository, &key).await;
    store
        .server()
        .run::<()>(cmd("HSET").arg("audit:stats").arg("seq").arg(41));

    assert_eq!(
        update(&*store.repository, &key, json!({"title": "New"}))
            .await
            .entries[0]
            .seq(),
        Some(42)
    );
}

/// A wrong clock has left an entry in the future.
#[tokio::test]
async fn times_never_go_back_before_an_entry_of_the_future() {
    let store = Store::redis();
    let key = project_key("a");
    let future = 4_102_444_800_123_i64;
    store.server().run::<()>(
        cmd("ZADD")
            .arg("audit:entries")
            .arg(future)
            .arg(r#"{"action":"save"}"#),
    );

    create_sound(&*store.repository, &key).await;
    let committed = update(&*store.repository, &key, json!({"title": "New"})).await;

    assert_eq!(
        committed.entries[0].timestamp(),
        Some(Timestamp::from_millis(future))
    );
    store.assert_sound().await;
}

/// What is no time in milliseconds: an infinite number, microseconds, and more than the year 9999.
const TIMELESS: [&str; 5] = [
    "inf",
    "1e300",
    "1e19",
    "1770000000000000",
    "253402300800000",
];

fn score(score: &str, entry: &str) -> Cmd {
    let mut score_entry = cmd("ZADD");
    score_entry.arg("audit:entries").arg(score).arg(entry);
    score_entry
}

#[tokio::test]
async fn a_score_that_is_no_time_breaks_neither_times_nor_replays() {
    for timeless in TIMELESS {
        let (store, key) = (Store::redis(), project_key("a"));
        create_sound(&*store.repository, &key).await;
        let foreign = format!(r#"{{"action":"save","score":"{timeless}"}}"#);
        store.server().run::<()>(&score(timeless, &foreign));
        let operation = once();
        let change = change(&*store.repository, &key, json!({"title": "New"})).await;

        let changes = [change];
        let committed = store.repository.commit(&changes, &operation).await.unwrap();
        let replayed = store.another().commit(&changes, &operation).await.unwrap();
        let found = store.another().find_commit(&operation).await.unwrap();

        let time = committed.entries[0].timestamp().unwrap();
        let ahead = time.millis() - clock().millis();
        assert!(ahead.abs() < 60_000, "{timeless}: {time}");
        assert!(replayed.replayed, "{timeless}");
        assert_eq!(replayed.entries, committed.entries, "{timeless}");
        assert_eq!(found.unwrap().entries, committed.entries, "{timeless}");
        store.assert_sound().await;
    }
}

#[tokio::test]
async fn a_lost_counter_continues_after_entries_whose_scores_are_no_times() {
    let (store, key) = (Store::redis(), project_key("a"));
    create_sound(&*store.repository, &key).await;
    let first = update(&*store.repository, &key, json!({"title": "2"})).await;
    update(&*store.repository, &key, json!({"title": "3"})).await;
    store
        .server()
        .run::<()>(&score("inf", first.entries[0].text()));
    store.server().run::<()>(cmd("DEL").arg("audit:stats"));

    let committed = update(&*store.repository, &key, json!({"title": "4"})).await;

    assert_eq!(committed.entries[0].seq(), Some(4));
}

/// Version 0.1.0 recorded an infinite time after an entry with such a score.
#[tokio::test]
async fn an_idempotency_record_with_an_infinite_time_is_replayed() {
    let (store, operation) = (Store::redis(), once());
    let change = creation(&project_key("a"), &project("a"));
    let changes = [change];
    let committed = store.repository.commit(&changes, &operation).await.unwrap();
    let record = format!("internal:operation:{}", operation.key());
    let infinite = format!("{}|inf|1|1", operation.fingerprint());
    store.server().run::<()>(&set(&record, infinite));

    let replayed = store.another().commit(&changes, &operation).await.unwrap();

    assert!(replayed.replayed);
    assert_eq!(replayed.entries, committed.entries);
    store.assert_sound().await;
}

/// The record stays the proof that the operation was done, although its entry is too far away.
#[tokio::test]
async fn a_replay_looks_through_a_part_of_a_long_log() {
    let (store, operation) = (Store::redis(), once());
    let changes = [creation(&project_key("a"), &project("a"))];
    store.repository.commit(&changes, &operation).await.unwrap();
    let record = format!("internal:operation:{}", operation.key());
    let infinite = format!("{}|inf|1|1", operation.fingerprint());
    store.server().run::<()>(&set(&record, infinite));
    let later = clock().millis() + 60_000;
    for first in (0..20_000).step_by(1000) {
        let mut add = cmd("ZADD");
        add.arg("audit:entries");
        for number in first..first + 1000 {
            add.arg(later + number)
                .arg(format!(r#"{{"action":"save","n":{number}}}"#));
        }
        store.server().run::<()>(&add);
    }
    let before = store.server().info("stats", "total_net_output_bytes");

    let replayed = store.another().commit(&changes, &operation).await.unwrap();

    let read = store.server().info("stats", "total_net_output_bytes") - before;
    assert!(replayed.replayed);
    assert!(replayed.entries.is_empty());
    assert!(read < 15_000 * 60, "{read} bytes");
}

#[tokio::test]
async fn entries_whose_scores_are_no_whole_times_are_read_once() {
    let store = Store::redis();
    let mut texts = BTreeSet::new();
    for number in 0..300 {
        let scores = [
            "inf",
            "1e300",
            "1770000000000000",
            "1700000000000.5",
            "-1.5",
            "-inf",
        ];
        let text = format!(r#"{{"number":{number}}}"#);
        store
            .server()
            .run::<()>(&score(scores[number % scores.len()], &text));
        texts.insert(text);
    }

    let mut found = Vec::new();
    let mut query = AuditQuery {
        limit: 110,
        ..AuditQuery::default()
    };
    loop {
        let page = store.repository.audit_entries(&query).await.unwrap();
        found.extend(page.entries.iter().map(|entry| entry.text().to_owned()));
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }

    assert_eq!(found.len(), texts.len());
    assert_eq!(BTreeSet::from_iter(found), texts);
}

#[tokio::test]
async fn counters_that_disagree_with_the_log_are_corrected() {
    let entry = |number: i64| {
        cmd("ZADD")
            .arg("audit:entries")
            .arg(number)
            .arg(format!(
                r#"{{"action":"save","entityType":"projects","n":{number}}}"#
            ))
            .clone()
    };
    let disturbances = [
        vec![
            cmd("HSET")
                .arg("audit:stats")
                .arg("action:update")
                .arg(99)
                .clone(),
        ],
        vec![
            cmd("HSET")
                .arg("audit:stats")
                .arg("action:update")
                .arg("many")
                .clone(),
        ],
        vec![
            cmd("HSET")
                .arg("audit:stats")
                .arg("source:cms")
                .arg(1)
                .clone(),
        ],
        vec![
            cmd("HSET")
                .arg("audit:stats")
                .arg("source:mcp")
                .arg(-1)
                .clone(),
        ],
        vec![
            cmd("HINCRBY")
                .arg("audit:stats")
                .arg("action:save")
                .arg(1)
                .clone(),
            entry(1),
        ],
        vec![entry(2), entry(3)],
        vec![
            cmd("HDEL")
                .arg("audit:stats")
                .arg("entityType:project")
                .clone(),
        ],
        vec![cmd("DEL").arg("audit:stats").clone()],
        vec![
            cmd("ZADD")
                .arg("audit:entries")
                .arg(7)
                .arg(b"{\"action\":\"\xff\"}")
                .clone(),
        ],
    ];
    let store = Store::redis();
    let key = project_key("a");
    create_sound(&*store.repository, &key).await;

    for disturbance in disturbances {
        println!(
            "--- {:?}",
            disturbance
                .iter()
                .map(|command| String::from_utf8_lossy(&command.get_packed_command()).into_owned())
                .collect::<Vec<_>>()
        );
        for command in &disturbance {
            store.server().run::<redis::Value>(command);
        }
        let log = soundness::entries(&*store.repository, &AuditQuery::default()).await;
        let total: u64 = store.server().run(cmd("ZCARD").arg("audit:entries"));
        assert_eq!(log.len() as u64, total, "nothing is dropped from the log");

        soundness::assert_sound(&*store.repository).await;
        update(&*store.repository, &key, json!({"title": unique("title")})).await;
        store.assert_sound().await;
    }
}

/// Two entries have no label, so the counts of `action` are correctly lower than the number of
/// entries.
#[tokio::test]
async fn counters_of_entries_without_labels_are_counted_once_and_then_trusted() {
    let store = Store::redis();
    store
        .history
        .import_entries(&legacy_entries(), clock())
        .await
        .unwrap();
    let first = store.repository.audit_stats().await.unwrap();
    let counted: BTreeMap<String, String> = store
        .server()
        .run(cmd("HGETALL").arg("internal:unlabelled"));
    assert_eq!(
        counted
            .values()
            .map(|count| count.parse::<u64>().unwrap())
            .sum::<u64>(),
        2,
        "{counted:?}"
    );
    store.server().run::<()>(cmd("CONFIG").arg("RESETSTAT"));

    assert_eq!(store.repository.audit_stats().await.unwrap(), first);

    assert_eq!(store.server().calls("zrange"), 0, "the log was read again");
}

/// How a commit finds out its user's permissions.
#[derive(Debug, Clone, Copy)]
enum Proof {
    /// It asks the server, if that is recent enough.
    Asked,
    /// It tries the commands, as on a server that cannot be asked.
    Tried,
}

/// A proxy to a server without our script, through which commits find out in this way.
async fn proxy_to(server: &RedisServer, proof: Proof) -> Proxy {
    // What the server remembers of the script is not what it gets over an ageing line.
    server.run::<()>(cmd("SCRIPT").arg("FLUSH"));
    let mut proxy = Proxy::start(server.port()).await;
    let mode = match proof {
        Proof::Asked => Mode::Pass,
        Proof::Tried => Mode::Older,
    };
    proxy.set(mode).await;
    proxy
}

/// Checks that a user with these permissions gets an error for a commit, and that nothing is
/// written.
async fn check_refused(rules: &[&str], proof: Proof) {
    println!("--- {rules:?}, {proof:?}");
    let store = Store::redis();
    let key = project_key("a");
    create_sound(&*store.repository, &key).await;
    let patch = json!({"title": "New", "metadata": {"status": "published", "featured": true}});
    let change = [change(&*store.repository, &key, patch).await];
    let proxy = proxy_to(store.server(), proof).await;
    store.server().user("limited", rules);
    let limited = store_for(Some(proxy.redis_url_of("limited")), None);
    let before = store.server().dump();

    let result = limited.commit(&change, &once()).await;

    assert!(
        matches!(&result, Err(StoreError::ReadOnly { reason, .. }) if !reason.is_empty()),
        "{rules:?}, {proof:?}: {result:?}"
    );
    assert_eq!(store.server().dump(), before, "{rules:?}, {proof:?}");

    // With all rights the same commit applies, so it is the missing one that was noticed.
    store.server().user("limited", &["~*", "+@all"]);
    limited.commit(&change, &once()).await.unwrap();
    assert_eq!(proxy.changed_scripts() > 0, matches!(proof, Proof::Tried));
    store.assert_sound().await;
}

#[tokio::test]
async fn a_user_without_a_command_that_commits_gets_an_error_and_writes_nothing() {
    for command in [
        "-set",
        "-hset",
        "-zadd",
        "-sadd",
        "-srem",
        "-del",
        "-@write",
        "-get",
        "-sismember",
        "-zcard",
        "-zrange",
        "-hmget",
    ] {
        for proof in [Proof::Asked, Proof::Tried] {
            check_refused(&["~*", "resetchannels", "+@all", command], proof).await;
        }
    }
}

#[tokio::test]
async fn a_missing_permission_is_reported_with_the_whole_key_prefix() {
    let store = Store::redis();
    for command in ["zadd", "zcard"] {
        let rules = ["~*", "+@all", &format!("-{command}")];
        let user = store.server().user("limited", &rules);
        let location = Location::Redis {
            write: Some(user),
            read: None,
            key_prefix: "my  site :".to_owned(),
        };

        let result = open(&location)
            .unwrap()
            .repository
            .commit(&[creation(&project_key("a"), &project("a"))], &once())
            .await;

        let Err(StoreError::ReadOnly { reason, .. }) = result else {
            panic!("{result:?}")
        };
        let expected = format!("`{} my  site :audit:entries`", command.to_uppercase());
        assert!(reason.contains(&expected), "{reason}");
    }
}

#[tokio::test]
async fn a_user_without_scripts_gets_an_error_and_writes_nothing() {
    for commands in [
        ["-evalsha", "-eval"].as_slice(),
        &["-evalsha"],
        &["-eval"],
        &["-@scripting"],
    ] {
        check_refused(
            &[["~*", "+@all"].as_slice(), commands].concat(),
            Proof::Asked,
        )
        .await;
    }
}

/// The script also reads; it must not take a rejected read for an absent value.
#[tokio::test]
async fn a_user_without_a_reading_command_writes_nothing() {
    let store = Store::redis();
    let key = project_key("a");
    create_sound(&*store.repository, &key).await;
    for command in ["get", "sismember", "zrange", "zcard", "hmget"] {
        let change = [change(&*store.repository, &key, json!({"title": command})).await];
        let user = store
            .server()
            .user("limited", &["~*", "+@all", &format!("-{command}")]);
        let before = store.server().dump();

        let result = store_for(Some(user), None).commit(&change, &once()).await;

        assert!(result.is_err(), "without {command}: {result:?}");
        assert_eq!(store.server().dump(), before, "without {command}");
    }
    store.assert_sound().await;
}

#[tokio::test]
async fn a_user_without_access_to_a_key_gets_an_error_and_writes_nothing() {
    let all = ["~data:*", "~index:*", "~audit:*", "~cache:*", "~internal:*"];
    for missing in all {
        let rules: Vec<&str> = all
            .into_iter()
            .filter(|pattern| *pattern != missing)
            .chain(["+@all"])
            .collect();
        for proof in [Proof::Asked, Proof::Tried] {
            check_refused(&rules, proof).await;
        }
    }
}

/// Exactly what the documentation tells an operator: these commands on these keys, no channels, and
/// no TIME.
#[tokio::test]
async fn the_documented_permissions_are_enough() {
    let store = Store::redis();
    let commands = "+get +mget +set +del +type +sadd +srem +sismember +smembers +zadd +zrange +zcard +hset +hmget +hgetall +hdel +eval +evalsha +multi +exec";
    let rules =
        "~data:* ~index:* ~audit:* ~cache:* ~meta:schema:version ~internal:* resetchannels -@all";
    let rules: Vec<&str> = rules.split(' ').chain(commands.split(' ')).collect();
    let parts = parts_for(Some(store.server().user("limited", &rules)), None);
    let (limited, key) = (parts.repository, project_key("a"));

    create_sound(&*limited, &key).await;
    update(
        &*limited,
        &key,
        json!({"metadata": {"status": "published", "featured": true}}),
    )
    .await;
    parts
        .history
        .import_entries(&legacy_entries(), clock())
        .await
        .unwrap();
    update(
        &*limited,
        &key,
        json!({"metadata": {"status": "draft", "featured": false}}),
    )
    .await;

    soundness::assert_sound(&*limited).await;
    store.assert_sound().await;
}

fn schema_version(store: &Store) -> Option<String> {
    store
        .server()
        .run(cmd("GET").arg(store.key("meta:schema:version")))
}

#[tokio::test]
async fn the_first_write_sets_the_schema_version() {
    for prefix in ["", SITE] {
        let (server, key) = (Arc::new(RedisServer::start()), project_key("a"));
        let store = Store::on(&server, prefix);
        store.repository.get(&key).await.unwrap();
        assert_eq!(schema_version(&store), None, "reading writes nothing");

        let commit = [creation(&key, &project("a"))];
        store.repository.commit(&commit, &once()).await.unwrap();

        assert_eq!(schema_version(&store).as_deref(), Some("1"));
        store.assert_sound().await;
    }
}

/// Version 0.1.0 never set it.
#[tokio::test]
async fn a_later_write_sets_a_schema_version_that_is_missing() {
    let (store, key) = (Store::redis(), project_key("a"));
    create_sound(&*store.repository, &key).await;
    store
        .server()
        .run::<()>(cmd("DEL").arg("meta:schema:version"));

    update(&*store.repository, &key, json!({"title": "New"})).await;

    assert_eq!(schema_version(&store).as_deref(), Some("1"));
    store.assert_sound().await;
}

#[tokio::test]
async fn importing_entries_sets_the_schema_version() {
    let (store, entries) = (Store::redis(), legacy_entries());

    let imported = store.history.import_entries(&entries, clock()).await;

    assert_eq!(imported.unwrap(), entries.len());

    assert_eq!(schema_version(&store).as_deref(), Some("1"));
}

#[tokio::test]
async fn a_foreign_schema_version_is_left_alone() {
    let foreign = [
        cmd("SET").arg("meta:schema:version").arg("2").clone(),
        cmd("SET").arg("meta:schema:version").arg("").clone(),
        cmd("RPUSH").arg("meta:schema:version").arg("1").clone(),
    ];
    for command in foreign {
        let (store, key) = (Store::redis(), project_key("a"));
        store.server().run::<redis::Value>(&command);
        let value = || {
            let dump: Vec<u8> = store.server().run(cmd("DUMP").arg("meta:schema:version"));
            dump
        };
        let before = value();

        create_sound(&*store.repository, &key).await;
        let entries = legacy_entries();
        let imported = store.history.import_entries(&entries, clock()).await;
        imported.unwrap();

        assert_eq!(value(), before);
        store.assert_sound().await;
    }
}

/// No conflict, no refusal and no repeated commit is a first write.
#[tokio::test]
async fn a_commit_that_writes_nothing_sets_no_schema_version() {
    let (store, key) = (Store::redis(), project_key("a"));
    let (commit, operation) = ([creation(&key, &project("a"))], once());
    store.repository.commit(&commit, &operation).await.unwrap();
    store
        .server()
        .run::<()>(cmd("DEL").arg("meta:schema:version"));

    store.repository.commit(&commit, &operation).await.unwrap();
    store.repository.commit(&commit, &once()).await.unwrap_err();

    assert_eq!(schema_version(&store), None);
}

/// Version 0.1.0 did not name this key, so operators may not have granted access to it.
#[tokio::test]
async fn a_user_without_access_to_the_schema_version_can_write() {
    const OURS: &str = "~data:* ~index:* ~audit:* ~cache:* ~internal:*";
    for others in ["", "%R~meta:*"] {
        for proof in [Proof::Asked, Proof::Tried] {
            let (store, key) = (Store::redis(), project_key("a"));
            let rules = OURS.split(' ').chain([others, "resetchannels", "+@all"]);
            let rules: Vec<&str> = rules.filter(|rule| !rule.is_empty()).collect();
            let proxy = proxy_to(store.server(), proof).await;
            store.server().user("limited", &rules);
            let limited = store_for(Some(proxy.redis_url_of("limited")), None);

            create_sound(&*limited, &key).await;
            update(&*limited, &key, json!({"title": "New"})).await;

            assert_eq!(schema_version(&store), None);
            // A restarted server sets it, once it may.
            store.server().user("limited", &["~*", "+@all"]);
            let restarted = store_for(Some(proxy.redis_url_of("limited")), None);
            update(&*restarted, &key, json!({"title": "Newer"})).await;
            assert_eq!(schema_version(&store).as_deref(), Some("1"));
            store.assert_sound().await;
        }
    }
}

#[tokio::test]
async fn a_user_without_channels_can_write() {
    let store = Store::redis();
    let limited = store_for(
        Some(store.server().user(
            "limited",
            &["~*", "resetchannels", "+@all", "-publish", "-@pubsub"],
        )),
        None,
    );

    create_sound(&*limited, &project_key("a")).await;
    update(&*limited, &project_key("a"), json!({"title": "New"})).await;

    store.assert_sound().await;
}

/// A store with all kinds of content.
async fn filled() -> Store {
    let store = Store::redis();
    for id in ["a", "b"] {
        create_sound(&*store.repository, &project_key(id)).await;
        update(
            &*store.repository,
            &project_key(id),
            json!({"title": "New"}),
        )
        .await;
    }
    store
        .history
        .import_entries(&legacy_entries(), clock())
        .await
        .unwrap();
    store.repository.audit_stats().await.unwrap();
    store
}

#[tokio::test]
async fn a_read_only_user_can_read_everything() {
    let store = filled().await;
    let reader = store_for(None, Some(store.server().user("reader", &READ_ONLY)));
    let before = store.server().dump();

    let log = soundness::assert_sound(&*reader).await;

    assert_eq!(log.seq, 4);
    let operation = once();
    assert!(reader.find_commit(&operation).await.unwrap().is_none());
    let words = ListQuery {
        words: ListQuery::words_of("new"),
        limit: 10,
        ..ListQuery::default()
    };
    assert_eq!(reader.list(Kind::Project, &words).await.unwrap().total, 2);
    assert_eq!(store.server().dump(), before);
}

#[tokio::test]
async fn a_read_only_user_gets_correct_statistics_without_correcting_the_counters() {
    let store = filled().await;
    store
        .server()
        .run::<()>(cmd("HSET").arg("audit:stats").arg("action:update").arg(99));
    let before = store.server().dump();

    for reader in [
        store_for(None, Some(store.server().user("reader", &READ_ONLY))),
        store_for(Some(store.server().user("reader", &READ_ONLY)), None),
    ] {
        soundness::assert_sound(&*reader).await;
    }

    assert_eq!(store.server().dump(), before);
}

#[tokio::test]
async fn a_store_with_only_a_read_only_user_rejects_writes() {
    let store = filled().await;
    let before = store.server().dump();
    let user = || store.server().user("reader", &READ_ONLY);

    for reader in [parts_for(None, Some(user())), parts_for(Some(user()), None)] {
        let key = project_key("a");
        let written = try_update(&*reader.repository, &key, json!({"title": "Newer"})).await;
        let carried = reader
            .history
            .import_entries(
                &[portfolio_mcp::domain::StoredEntry::parse("{}".to_owned())],
                clock(),
            )
            .await;

        assert!(
            matches!(&written, Err(StoreError::ReadOnly { .. })),
            "{written:?}"
        );
        assert!(
            matches!(&carried, Err(StoreError::ReadOnly { .. })),
            "{carried:?}"
        );
    }
    assert_eq!(store.server().dump(), before);
}

#[tokio::test]
async fn a_reading_and_a_writing_user_can_do_everything_together() {
    let store = Store::redis();
    let reader = store.server().user("reader", &READ_ONLY);
    let both = store_for(Some(store.server().redis_url()), Some(reader));
    let key = project_key("a");

    assert_eq!(stored(&*both, &key).await, None);
    create_sound(&*both, &key).await;
    update(&*both, &key, json!({"title": "New"})).await;

    assert!(stored(&*both, &key).await.unwrap().contains("New"));
    soundness::assert_sound(&*both).await;
    store.assert_sound().await;
}

#[tokio::test]
async fn a_wrong_password_is_reported_and_is_not_an_unknown_outcome() {
    let store = Store::redis();
    create_sound(&*store.repository, &project_key("a")).await;
    let change = change(
        &*store.repository,
        &project_key("a"),
        json!({"title": "New"}),
    )
    .await;
    store.server().user("known", &["~*", "+@all"]);
    let url = RedisUrl::parse(&format!(
        "redis://known:wr0ng@127.0.0.1:{}",
        store.server().port()
    ))
    .unwrap();
    let stranger = store_for(Some(url), None);

    let read = stranger.get(&project_key("a")).await.unwrap_err();
    let written = stranger.commit(&[change], &once()).await.unwrap_err();

    for error in [read, written] {
        assert!(
            matches!(&error, StoreError::AccessDenied { reason: problem, .. } if problem.contains("password") && !problem.contains("wr0ng")),
            "{error:?}"
        );
    }
}

/// A user whose password in the address is right or wrong.
fn set_password(server: &RedisServer, name: &str, password: &str) {
    let rules = ["SETUSER", name, "resetpass", &format!(">{password}")];
    server.run::<()>(cmd("ACL").arg(&rules));
}

/// The first success of `call`, which has to come within the promised time.
async fn within_five_seconds(what: &str, call: impl AsyncFn() -> bool) {
    let start = Instant::now();
    wait_until_async(what, async || call().await.then_some(())).await;
    let elapsed = start.elapsed();
    assert!(elapsed < Duration::from_secs(5), "{what} after {elapsed:?}");
}

#[tokio::test]
async fn reads_and_writes_go_on_within_five_seconds_of_a_corrected_password() {
    let (store, key) = (Store::redis(), project_key("a"));
    create_sound(&*store.repository, &key).await;
    let url = store.server().user("site", &["~*", "+@all"]);
    set_password(store.server(), "site", "other");
    let site = store_for(Some(url), None);
    let change = change(&*store.repository, &key, json!({"title": "New"})).await;
    let (changes, operation) = ([change], once());
    site.get(&key).await.unwrap_err();
    site.commit(&changes, &operation).await.unwrap_err();

    set_password(store.server(), "site", PASSWORD);

    let read = within_five_seconds("reads go on", async || site.get(&key).await.is_ok());
    let written = within_five_seconds("writes go on", async || {
        site.commit(&changes, &operation).await.is_ok()
    });
    tokio::join!(read, written);
    store.assert_sound().await;
}

/// The connection is made again at once, in vain, and the next call must not be told of that.
#[tokio::test]
async fn a_password_that_was_wrong_between_two_calls_is_not_noticed() {
    let (store, key) = (Store::redis(), project_key("a"));
    create_sound(&*store.repository, &key).await;
    let server = store.server();
    let site = store_for(Some(server.user("site", &["~*", "+@all"])), None);
    let refuse_once = async || {
        let errors = server.info("stats", "total_error_replies");
        set_password(server, "site", "other");
        server.run::<()>(cmd("CLIENT").arg("KILL").arg("USER").arg("site"));
        wait_until_async("the lost connection was refused", async || {
            (server.info("stats", "total_error_replies") > errors).then_some(())
        })
        .await;
        set_password(server, "site", PASSWORD);
    };

    site.get(&key).await.unwrap();
    refuse_once().await;
    site.get(&key).await.unwrap();

    let title =
        async |title: &str| change(&*store.repository, &key, json!({ "title": title })).await;
    let first = title("First").await;
    site.commit(&[first], &once()).await.unwrap();
    let second = title("Second").await;
    refuse_once().await;
    site.commit(&[second], &once()).await.unwrap();
    store.assert_sound().await;
}

#[tokio::test]
async fn a_replica_rejects_writes_and_answers_reads() {
    let primary = RedisServer::start_with(&["--save", "", "--repl-diskless-sync-delay", "0"]);
    let replica = RedisServer::start_with(&[
        "--save",
        "",
        "--replicaof",
        "127.0.0.1",
        &primary.port().to_string(),
    ]);
    let on_primary = store_for(Some(primary.redis_url()), None);
    let key = project_key("a");
    create_sound(&*on_primary, &key).await;
    wait_until("the replica has the primary's content", || {
        (replica.dump() == primary.dump()).then_some(())
    });
    let before = replica.dump();

    for proof in [Proof::Asked, Proof::Tried] {
        let proxy = proxy_to(&replica, proof).await;
        let on_replica = store_for(Some(proxy.redis_url()), None);

        let result = try_update(&*on_replica, &key, json!({"title": "New"})).await;

        assert!(
            matches!(&result, Err(StoreError::ReadOnly { reason, retry_after: Some(_), .. }) if reason.contains("replica")),
            "{proof:?}: {result:?}"
        );
        assert_eq!(replica.dump(), before, "{proof:?}");
        assert!(on_replica.get(&key).await.unwrap().record.is_some());
        // Its own writes wait a moment now, and so does what is read for them.
        let another = store_for(Some(replica.redis_url()), None);
        assert_eq!(soundness::assert_sound(&*another).await.seq, 1);
    }
}

#[tokio::test]
async fn a_full_database_rejects_writes_and_answers_reads() {
    for proof in [Proof::Asked, Proof::Tried] {
        let store = Store::redis();
        let key = project_key("a");
        create_sound(&*store.repository, &key).await;
        let proxy = proxy_to(store.server(), proof).await;
        let repository = store_for(Some(proxy.redis_url()), None);
        let change = [change(&*repository, &key, json!({"title": "New"})).await];
        let before = store.server().dump();
        store
            .server()
            .run::<()>(cmd("CONFIG").arg("SET").arg("maxmemory").arg(1));

        let result = repository.commit(&change, &once()).await;

        assert!(
            matches!(&result, Err(StoreError::ReadOnly { reason, retry_after: Some(_), .. }) if reason.contains("full")),
            "{proof:?}: {result:?}"
        );
        assert_eq!(store.server().dump(), before, "{proof:?}");

        store
            .server()
            .run::<()>(cmd("CONFIG").arg("SET").arg("maxmemory").arg(0));
        let waiting = repository.commit(&change, &once()).await;
        assert!(
            matches!(
                &waiting,
                Err(StoreError::ReadOnly {
                    retry_after: Some(_),
                    ..
                })
            ),
            "writes are not tried again at once: {waiting:?}"
        );
        wait_until_async("writes are tried again", async || {
            match repository.commit(&change, &once()).await {
                Err(StoreError::ReadOnly { retry_after, .. }) => {
                    assert!(retry_after.is_some(), "{proof:?}");
                    None
                }
                result => Some(result.unwrap()),
            }
        })
        .await;
        assert_eq!(store.assert_sound().await.seq, 2);
    }
}

/// The self-test on an older server leaves nothing behind, and commits are as sound.
#[tokio::test]
async fn a_server_that_cannot_check_permissions_is_still_written_to() {
    let store = Store::redis();
    let proxy = proxy_to(store.server(), Proof::Tried).await;
    let repository = store_for(Some(proxy.redis_url()), None);
    let key = project_key("a");

    create_sound(&*repository, &key).await;
    update(
        &*repository,
        &key,
        json!({"metadata": {"status": "published", "featured": true}}),
    )
    .await;

    assert!(proxy.changed_scripts() > 0);
    assert_eq!(store.assert_sound().await.seq, 2);
}

/// A restart and SCRIPT FLUSH both remove the script.
#[tokio::test]
async fn a_server_that_lost_the_script_gets_it_again() {
    let store = Store::redis();
    let key = project_key("a");
    create_sound(&*store.repository, &key).await;
    for title in ["1", "2", "3"] {
        store.server().run::<()>(cmd("SCRIPT").arg("FLUSH"));
        update(&*store.repository, &key, json!({"title": title})).await;
    }

    assert_eq!(store.assert_sound().await.seq, 4);
}

/// Old servers, and proxies in front of new ones, use the older protocol.
#[tokio::test]
async fn the_older_redis_protocol_gives_the_same_results() {
    let store = filled().await;
    store
        .server()
        .run::<()>(cmd("ZADD").arg("audit:entries").arg(5).arg("not JSON"));
    let older = store_for(
        Some(RedisUrl::parse(&format!("{}/?protocol=resp2", store.server().url())).unwrap()),
        None,
    );

    update(&*older, &project_key("a"), json!({"title": "Over RESP2"})).await;

    let (old, new) = (
        soundness::assert_sound(&*older).await,
        store.assert_sound().await,
    );
    assert_eq!(old.entries, new.entries);
    assert_eq!(old.stats, new.stats);
}

#[tokio::test]
async fn a_store_can_be_opened_before_its_server_runs() {
    let mut server = RedisServer::start();
    let store = store_for(Some(server.redis_url()), None);
    server.kill9();

    let read = store.get(&project_key("a")).await;
    let written = store
        .commit(&[creation(&project_key("a"), &project("a"))], &once())
        .await;

    assert!(matches!(&read, Err(StoreError::Unavailable(_))), "{read:?}");
    assert!(
        matches!(&written, Err(StoreError::Unavailable(_))),
        "nothing was sent, and that is known: {written:?}"
    );

    server.restart();
    create_sound(&*store, &project_key("a")).await;
    assert_eq!(soundness::assert_sound(&*store).await.seq, 1);
}

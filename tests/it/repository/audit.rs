//! `audit_entries`, `audit_stats` and `carry`.

use std::collections::BTreeMap;

use portfolio_mcp::{
    clock,
    domain::{
        AuditQuery, AuditStats, Change, DocumentKey, Kind, Origin, Source, StoredEntry, Timestamp,
        WriteContext, audit::Category,
    },
    store::Repository,
};
use serde_json::{Value, json};

use crate::support::{
    fixtures::{
        create, create_sound, creation, legacy_entries, now, object, once, project, project_key,
        unique, update, with, write_context,
    },
    soundness::entries,
    stores::{Store, on_each_store},
};

/// The ids of the entries that match `query`, newest first.
async fn found(repository: &dyn Repository, query: AuditQuery) -> Vec<String> {
    let page = repository
        .audit_entries(&AuditQuery {
            limit: 100,
            ..query
        })
        .await
        .unwrap();
    page.entries
        .iter()
        .map(|entry| entry.text_of("id").unwrap_or("-").to_owned())
        .collect()
}

fn ids(committed: &[StoredEntry]) -> Vec<String> {
    committed
        .iter()
        .map(|entry| entry.text_of("id").unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn the_log_of_an_empty_store_is_empty() {
    on_each_store(async |store| {
        let page = store
            .repository
            .audit_entries(&AuditQuery {
                limit: 10,
                ..AuditQuery::default()
            })
            .await
            .unwrap();

        assert_eq!(page.entries.len(), 0);
        assert_eq!(page.next, None);
        assert_eq!(
            store.repository.audit_stats().await.unwrap(),
            AuditStats::default()
        );
        assert_eq!(store.assert_sound().await.seq, 0);
    })
    .await;
}

#[tokio::test]
async fn the_log_is_newest_first() {
    on_each_store(async |store| {
        let key = project_key("a");
        let first = create_sound(&*store.repository, &key).await;
        let second = update(&*store.repository, &key, json!({"title": "2"})).await;
        let third = update(&*store.repository, &key, json!({"title": "3"})).await;

        let expected = [
            ids(&third.entries),
            ids(&second.entries),
            ids(&first.entries),
        ]
        .concat();
        assert_eq!(
            found(&*store.repository, AuditQuery::default()).await,
            expected
        );
    })
    .await;
}

#[tokio::test]
async fn an_entry_has_everything_known_about_the_write() {
    on_each_store(async |store| {
        let key = project_key("a");
        create_sound(&*store.repository, &key).await;
        let current = store.repository.get_for_update(&key).await.unwrap();
        let origin = Origin {
            client_id: Some("claude/1.0".to_owned()),
            actor: Some("zoé".to_owned()),
            transport: Some("stdio"),
            reason: Some("because".to_owned()),
            ..Origin::new(Source::Admin)
        };
        let operation = once();
        let write_context = WriteContext {
            origin,
            operation: operation.clone(),
            entry_id: unique("entry"),
            now: now(),
        };
        let entry_id = write_context.entry_id.clone();
        let document = object(json!({"id": "a", "title": "Other"}));
        let change = Change::put(&current, &document, write_context).unwrap();
        store
            .repository
            .commit(&[change], &operation)
            .await
            .unwrap();

        let log = store.assert_sound().await;

        let entry = log.entries.last().unwrap();
        let metadata = &entry.json()["metadata"];
        assert_eq!(entry.text_of("id"), Some(entry_id.as_str()));
        assert_eq!(entry.text_of("action"), Some("update"));
        assert_eq!(entry.text_of("source"), Some("admin"));
        assert_eq!(entry.text_of("entityType"), Some("project"));
        assert_eq!(entry.text_of("entityId"), Some("a"));
        assert_eq!(entry.json()["seq"], 2);
        assert_eq!(metadata["clientId"], "claude/1.0");
        assert_eq!(metadata["actor"], "zoé");
        assert_eq!(metadata["transport"], "stdio");
        assert_eq!(metadata["reason"], "because");
        assert_eq!(metadata["operation"], operation.fingerprint());
        assert_eq!(
            metadata["versionBefore"],
            current.version().unwrap().as_str()
        );
    })
    .await;
}

#[tokio::test]
async fn a_commit_returns_its_entries_as_they_are_in_the_log() {
    on_each_store(async |store| {
        let (a, b) = (project_key("a"), DocumentKey::new(Kind::Resource, "b"));
        let changes = [
            creation(&a, &project("a")),
            creation(&b, &crate::support::fixtures::resource("b")),
        ];

        let committed = store.repository.commit(&changes, &once()).await.unwrap();

        let log = store.assert_sound().await;
        assert_eq!(committed.entries, log.entries);
        let texts = |entries: &[StoredEntry]| {
            entries
                .iter()
                .map(|entry| entry.text().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(texts(&committed.entries), texts(&log.entries));
    })
    .await;
}

#[tokio::test]
async fn entries_are_found_by_their_audit_ids() {
    on_each_store(async |store| {
        mixed(store).await;
        let all = entries(&*store.repository, &AuditQuery::default()).await;
        let foreign = all.iter().find(|entry| entry.seq().is_none()).unwrap();
        let wanted = [all.last().unwrap(), all.get(9).unwrap(), foreign]
            .map(|entry| entry.text_of("id").unwrap_or("-").to_owned());
        let ids = wanted.iter().cloned().chain(["unknown".to_owned()]);

        let page = store
            .repository
            .audit_entries(&AuditQuery::by_ids(ids.collect()))
            .await
            .unwrap();

        let expected = all.iter().rev().filter(|entry| {
            let id = entry.text_of("id");
            id.is_some_and(|id| wanted.iter().any(|wanted| wanted == id))
        });
        assert_eq!(page.entries, expected.cloned().collect::<Vec<_>>());
        assert_eq!(page.next, None);
        store.assert_sound().await;
    })
    .await;
}

/// Legacy entries beside our own on three documents.
async fn mixed(store: &Store) {
    store
        .history
        .import_entries(&legacy_entries(), clock())
        .await
        .unwrap();
    for key in [
        project_key("atelier-velo"),
        project_key("a"),
        DocumentKey::new(Kind::Resource, "a"),
    ] {
        create_sound(&*store.repository, &key).await;
        update(&*store.repository, &key, json!({"title": "New"})).await;
    }
}

#[tokio::test]
async fn the_log_applies_every_filter() {
    on_each_store(async |store| {
        mixed(store).await;
        let all = entries(&*store.repository, &AuditQuery::default()).await;
        assert_eq!(all.len(), 14);
        let kind = |kind| AuditQuery {
            kind: Some(kind),
            ..AuditQuery::default()
        };
        let action = |action: &str| AuditQuery {
            action: Some(action.to_owned()),
            ..AuditQuery::default()
        };
        let source = |source: &str| AuditQuery {
            source: Some(source.to_owned()),
            ..AuditQuery::default()
        };
        let id = |id: &str| AuditQuery {
            entity_id: Some(id.to_owned()),
            ..AuditQuery::default()
        };
        let cases = [
            // Old programs wrote `projects`, and once nothing at all.
            (kind(Kind::Project), 5 + 4),
            (kind(Kind::Resource), 2 + 2),
            (action("save"), 2),
            (action("update"), 3 + 3),
            (action("revert"), 0),
            (source("admin"), 4),
            (source("cms"), 1),
            (source("mcp"), 1 + 6),
            (id("atelier-velo"), 1 + 2),
            (id("a"), 4),
            (AuditQuery::of(&project_key("a"), 10), 2),
            (
                AuditQuery {
                    action: Some("update".to_owned()),
                    source: Some("mcp".to_owned()),
                    ..kind(Kind::Resource)
                },
                2,
            ),
            (
                AuditQuery {
                    action: Some("save".to_owned()),
                    ..id("a")
                },
                0,
            ),
        ];

        for (query, count) in cases {
            let found = entries(&*store.repository, &query).await;
            assert_eq!(found.len(), count, "{query:?}");
            let expected: Vec<&StoredEntry> =
                all.iter().filter(|entry| query.matches(entry)).collect();
            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{query:?}");
        }
        store.assert_sound().await;
    })
    .await;
}

/// An update by `actor` with `client`, committed as such.
async fn update_by(store: &Store, actor: &str, client: &str, patch: Value) -> String {
    let key = project_key("a");
    let operation = once();
    let origin = Origin {
        actor: Some(actor.to_owned()),
        client_id: Some(client.to_owned()),
        ..Origin::new(Source::Mcp)
    };
    let current = store.repository.get_for_update(&key).await.unwrap();
    let document = with(current.record().unwrap().document(), patch);
    let context = WriteContext {
        origin,
        ..write_context(&operation)
    };
    let change = Change::put(&current, &document, context).unwrap();
    let commit = store.repository.commit(&[change], &operation).await;
    ids(&commit.unwrap().entries).remove(0)
}

#[tokio::test]
async fn entries_are_found_by_actor_client_and_field() {
    on_each_store(async |store| {
        store
            .history
            .import_entries(&legacy_entries(), clock())
            .await
            .unwrap();
        let created = create_sound(&*store.repository, &project_key("a")).await;
        let created = ids(&created.entries).remove(0);
        let size = json!({"client": {"size": "5"}});
        let by_zoe = update_by(store, "zoé", "claude-code/2.1.0", size).await;
        let by_lise = update_by(store, "lise", "claude-code/3.0", json!({"title": "T"})).await;
        let actor = |actor: &str| AuditQuery {
            actor: Some(actor.to_owned()),
            ..AuditQuery::default()
        };
        let client = |client: &str| AuditQuery {
            client_id: Some(client.to_owned()),
            ..AuditQuery::default()
        };
        let field = |field: &str| AuditQuery {
            field: Some(field.to_owned()),
            ..AuditQuery::default()
        };
        let cases = [
            (actor("zoé"), vec![&*by_zoe]),
            (actor("Zoé"), vec![]),
            (client("claude-code"), vec![&by_lise, &by_zoe]),
            (client("claude-code/2.1.0"), vec![&by_zoe]),
            (client("claude"), vec![]),
            (field("client"), vec![&by_zoe, &created]),
            (field("client.size"), vec![&by_zoe, &created]),
            (field("client.type"), vec![&created]),
            (field("title"), vec![&by_lise, &created, "-"]),
            (field("price"), vec!["-"]),
            (field("longDescription.x"), vec!["a-0007"]),
            (
                AuditQuery {
                    actor: Some("lise".to_owned()),
                    client_id: Some("claude-code".to_owned()),
                    ..field("title")
                },
                vec![&by_lise],
            ),
            (
                AuditQuery {
                    actor: Some("lise".to_owned()),
                    ..field("client.size")
                },
                vec![],
            ),
        ];

        for (query, expected) in cases {
            assert_eq!(
                found(&*store.repository, query.clone()).await,
                expected,
                "{query:?}"
            );
        }
        let last = AuditQuery {
            limit: 1,
            ..actor("zoé")
        };
        let page = store.repository.audit_entries(&last).await.unwrap();
        assert_eq!(
            ids(&page.entries),
            [by_zoe],
            "the filter comes before the limit"
        );
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn a_page_says_when_the_log_begins() {
    on_each_store(async |store| {
        let begins = async |query: AuditQuery| {
            let page = store.repository.audit_entries(&query).await.unwrap();
            page.log_begins.map(|time| time.to_string())
        };
        let all = AuditQuery {
            limit: 2,
            with_log_begins: true,
            ..AuditQuery::default()
        };
        assert_eq!(begins(all.clone()).await, None);
        let undated = StoredEntry::parse(r#"{"action":"save"}"#.to_owned());
        store
            .history
            .import_entries(&[undated], clock())
            .await
            .unwrap();
        assert_eq!(begins(all.clone()).await, None, "no entry has a time");
        create_sound(&*store.repository, &project_key("a")).await;
        store
            .history
            .import_entries(&legacy_entries(), clock())
            .await
            .unwrap();

        let none = AuditQuery {
            action: Some("nothing".to_owned()),
            since: Some(clock()),
            ..all.clone()
        };
        let page = store.repository.audit_entries(&all).await.unwrap();
        let second = AuditQuery {
            after: page.next,
            ..all.clone()
        };
        for query in [all, none, second] {
            assert_eq!(
                begins(query).await.as_deref(),
                Some("2024-11-22T10:15:30.123Z")
            );
        }
    })
    .await;
}

#[tokio::test]
async fn filters_apply_before_the_limit() {
    on_each_store(async |store| {
        create_sound(&*store.repository, &project_key("old")).await;
        let others: Vec<Change> = (0..120)
            .map(|number| creation(&project_key(&format!("p{number}")), &project("p")))
            .collect();
        store.repository.commit(&others, &once()).await.unwrap();

        let query = AuditQuery {
            limit: 1,
            ..AuditQuery::of(&project_key("old"), 1)
        };
        let page = store.repository.audit_entries(&query).await.unwrap();

        assert_eq!(page.entries.len(), 1);
        assert_eq!(page.entries[0].text_of("entityId"), Some("old"));
        assert_eq!(page.next, None);
    })
    .await;
}

#[tokio::test]
async fn since_is_inclusive_and_until_exclusive() {
    on_each_store(async |store| {
        let entry = |millis: i64| {
            StoredEntry::parse(json!({"id": millis.to_string(), "timestamp": Timestamp::from_millis(millis).to_string()}).to_string())
        };
        store.history.import_entries(&[1000, 1001, 1002, 1003].map(entry), clock()).await.unwrap();
        let at = |micros: i64| Some(Timestamp::from_micros(micros));
        let cases = [
            (at(1_001_000), None, vec!["1003", "1002", "1001"]),
            (at(1_000_001), None, vec!["1003", "1002", "1001"]),
            (None, at(1_002_000), vec!["1001", "1000"]),
            (None, at(1_001_001), vec!["1001", "1000"]),
            (at(1_001_000), at(1_002_000), vec!["1001"]),
            (at(1_001_001), at(1_002_000), vec![]),
            (at(1_003_000), at(1_001_000), vec![]),
            (at(-1_000_000), at(0), vec![]),
            (at(-1), at(i64::MAX), vec!["1003", "1002", "1001", "1000"]),
        ];

        for (since, until, expected) in cases {
            let query = AuditQuery { since, until, ..AuditQuery::default() };
            assert_eq!(found(&*store.repository, query).await, expected, "{since:?} {until:?}");
        }
    })
    .await;
}

/// Every entry that pages of `limit` show, newest first.
async fn paged(repository: &dyn Repository, query: AuditQuery) -> Vec<StoredEntry> {
    let mut query = query;
    let mut seen = Vec::new();
    loop {
        let page = repository.audit_entries(&query).await.unwrap();
        assert!(page.entries.len() <= query.limit);
        seen.extend(page.entries);
        query.after = page.next;
        if query.after.is_none() {
            return seen;
        }
        assert!(seen.len() < 10_000, "the pages have no end");
    }
}

/// All entries of a commit have the same time; imported entries may too.
#[tokio::test]
async fn pages_have_every_entry_of_one_millisecond_exactly_once() {
    on_each_store(async |store| {
        let changes: Vec<Change> = (0..60)
            .map(|number| {
                creation(
                    &project_key(&format!("p{number}")),
                    &object(json!({"n": number})),
                )
            })
            .collect();
        store.repository.commit(&changes, &once()).await.unwrap();
        let time = Timestamp::from_millis(1_500_000_000_000).to_string();
        let carried: Vec<StoredEntry> = (0..60)
            .map(|number| {
                StoredEntry::parse(
                    json!({"timestamp": time, "action": "save", "n": number}).to_string(),
                )
            })
            .collect();
        store
            .history
            .import_entries(&carried, clock())
            .await
            .unwrap();
        let mut all = entries(&*store.repository, &AuditQuery::default()).await;
        all.reverse();
        assert_eq!(all.len(), 120);

        for limit in [1, 7, 60, 119, 120, 121] {
            assert_eq!(
                paged(
                    &*store.repository,
                    AuditQuery {
                        limit,
                        ..AuditQuery::default()
                    }
                )
                .await,
                all,
                "pages of {limit}"
            );
        }
        let saves = paged(
            &*store.repository,
            AuditQuery {
                limit: 7,
                action: Some("save".to_owned()),
                ..AuditQuery::default()
            },
        )
        .await;
        assert_eq!(saves.len(), 60);
        let seqs: Vec<u64> = all.iter().filter_map(StoredEntry::seq).collect();
        assert_eq!(seqs, (1..=60).rev().collect::<Vec<_>>());
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn entries_written_between_pages_move_nothing() {
    on_each_store(async |store| {
        let key = project_key("a");
        create_sound(&*store.repository, &key).await;
        for number in 0..9 {
            update(
                &*store.repository,
                &key,
                json!({"title": format!("{number}")}),
            )
            .await;
        }
        let mut before = entries(&*store.repository, &AuditQuery::default()).await;
        before.reverse();

        let mut query = AuditQuery {
            limit: 2,
            ..AuditQuery::default()
        };
        let mut seen = Vec::new();
        loop {
            let page = store.repository.audit_entries(&query).await.unwrap();
            seen.extend(page.entries);
            update(&*store.repository, &key, json!({"title": unique("later")})).await;
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }

        assert_eq!(seen, before);
    })
    .await;
}

#[tokio::test]
async fn a_page_begins_after_its_position_within_its_time_range() {
    on_each_store(async |store| {
        let entry = |millis: i64| {
            StoredEntry::parse(json!({"id": millis.to_string(), "timestamp": Timestamp::from_millis(millis).to_string()}).to_string())
        };
        store.history.import_entries(&(1000..1020).map(entry).collect::<Vec<_>>(), clock()).await.unwrap();

        let query = AuditQuery {
            since: Some(Timestamp::from_millis(1005)),
            until: Some(Timestamp::from_millis(1015)),
            limit: 3,
            ..AuditQuery::default()
        };

        let seen: Vec<String> =
            paged(&*store.repository, query).await.iter().map(|entry| entry.text_of("id").unwrap().to_owned()).collect();
        assert_eq!(seen, (1005..1015).rev().map(|millis| millis.to_string()).collect::<Vec<_>>());
    })
    .await;
}

/// Cursors of a SQLite store, of version 0.1.0 and of the history index do not count the entries of
/// the same millisecond.
#[tokio::test]
async fn a_page_begins_after_a_position_whose_place_was_not_counted() {
    let log: Vec<StoredEntry> = (0..40)
        .map(|n| StoredEntry::parse(format!(r#"{{"n":{n:>2},"timestamp":1000}}"#)))
        .collect();
    on_each_store(async |store| {
        store.history.import_entries(&log, clock()).await.unwrap();
        for (at, limit) in [(38, 1), (38, 2), (20, 1), (20, 7), (1, 1)] {
            let query = AuditQuery {
                after: Some(log[at].position()),
                limit,
                ..AuditQuery::default()
            };

            let page = store.repository.audit_entries(&query).await.unwrap();

            let next: Vec<_> = log[..at].iter().rev().take(limit).cloned().collect();
            assert_eq!(page.entries, next, "{limit} after {at}");
            assert_eq!(page.searched_since, None);
        }
    })
    .await;
}

#[tokio::test]
async fn entries_of_older_programs_are_returned_unchanged() {
    on_each_store(async |store| {
        let legacy = legacy_entries();

        store
            .history
            .import_entries(&legacy, clock())
            .await
            .unwrap();

        let mut found = entries(&*store.repository, &AuditQuery::default()).await;
        assert!(
            found.is_sorted_by_key(StoredEntry::timestamp),
            "each is at its own time"
        );
        let texts = |entries: &mut Vec<StoredEntry>| {
            entries.sort_by_key(|entry| entry.text().to_owned());
            entries
                .iter()
                .map(|entry| entry.text().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(texts(&mut found), texts(&mut legacy.clone()));
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn imported_entries_are_counted_once() {
    on_each_store(async |store| {
        create_sound(&*store.repository, &project_key("a")).await;
        let legacy = legacy_entries();

        assert_eq!(
            store
                .history
                .import_entries(&legacy, clock())
                .await
                .unwrap(),
            legacy.len()
        );
        assert_eq!(
            store
                .history
                .import_entries(&legacy, clock())
                .await
                .unwrap(),
            0
        );
        assert_eq!(
            store
                .open()
                .history
                .import_entries(&legacy[..3], clock())
                .await
                .unwrap(),
            0
        );
        let doubled = [
            StoredEntry::parse(r#"{"action":"save","timestamp":5}"#.to_owned()),
            StoredEntry::parse(r#"{"action":"save","timestamp":5}"#.to_owned()),
        ];
        assert_eq!(
            store
                .history
                .import_entries(&doubled, clock())
                .await
                .unwrap(),
            1
        );

        assert_eq!(
            store.repository.audit_stats().await.unwrap().total,
            1 + legacy.len() as u64 + 1
        );
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn importing_entries_changes_no_document_and_no_number() {
    on_each_store(async |store| {
        let key = project_key("suivi-chantier");
        create_sound(&*store.repository, &key).await;

        store
            .history
            .import_entries(&legacy_entries(), clock())
            .await
            .unwrap();
        let committed = update(&*store.repository, &key, json!({"title": "Next"})).await;

        assert_eq!(committed.entries[0].seq(), Some(2));
        store.assert_sound().await;
    })
    .await;
}

/// A backup contains entries that the log still has.
#[tokio::test]
async fn entries_already_in_the_log_are_not_imported_again() {
    on_each_store(async |store| {
        mixed(store).await;
        let log = store.assert_sound().await;

        assert_eq!(
            store
                .history
                .import_entries(&log.entries, clock())
                .await
                .unwrap(),
            0
        );

        assert_eq!(store.assert_sound().await.entries, log.entries);
    })
    .await;
}

/// When a store is moved, its documents are imported after its log, so their numbers follow the
/// log's.
#[tokio::test]
async fn an_imported_log_continues_with_its_own_numbers() {
    let old = Store::sqlite();
    for id in ["a", "b", "c"] {
        create_sound(&*old.repository, &project_key(id)).await;
    }
    let log = old.assert_sound().await;
    on_each_store(async |store| {
        store
            .history
            .import_entries(&log.entries, clock())
            .await
            .unwrap();

        let committed = create(&*store.repository, &project_key("d"), project("d")).await;

        assert_eq!(committed.entries[0].seq(), Some(4));
        let seqs: Vec<_> = entries(&*store.repository, &AuditQuery::default())
            .await
            .iter()
            .map(StoredEntry::seq)
            .collect();
        assert_eq!(seqs, [Some(1), Some(2), Some(3), Some(4)]);
    })
    .await;
}

#[tokio::test]
async fn importing_no_entries_does_nothing() {
    on_each_store(async |store| {
        assert_eq!(store.history.import_entries(&[], clock()).await.unwrap(), 0);
    })
    .await;
}

#[tokio::test]
async fn hundreds_of_imported_entries_are_found() {
    on_each_store(async |store| {
        let entry = |number: i64| {
            StoredEntry::parse(
                json!({"timestamp": 1_000_000 + number / 3, "source": "cms", "n": number})
                    .to_string(),
            )
        };
        let many: Vec<StoredEntry> = (0..730).map(entry).collect();

        assert_eq!(
            store.history.import_entries(&many, clock()).await.unwrap(),
            730
        );

        assert_eq!(
            paged(
                &*store.repository,
                AuditQuery {
                    limit: 100,
                    ..AuditQuery::default()
                }
            )
            .await
            .len(),
            730
        );
        assert_eq!(store.repository.audit_stats().await.unwrap().total, 730);
    })
    .await;
}

#[tokio::test]
async fn an_entry_that_is_not_a_json_object_is_shown_unchanged() {
    on_each_store(async |store| {
        let strange = ["not JSON", "[1,2]", "null", "\"text\"", "{\"a\":"];

        store
            .history
            .import_entries(
                &strange.map(|text| StoredEntry::parse(text.to_owned())),
                clock(),
            )
            .await
            .unwrap();

        let found = entries(&*store.repository, &AuditQuery::default()).await;
        assert_eq!(found.len(), strange.len());
        for text in strange {
            assert!(
                found
                    .iter()
                    .any(|entry| entry.json().get("unreadable") == Some(&json!(text))),
                "{text}"
            );
        }
        assert_eq!(
            store.repository.audit_stats().await.unwrap().total,
            strange.len() as u64
        );
    })
    .await;
}

#[tokio::test]
async fn the_statistics_count_every_label_of_every_entry() {
    on_each_store(async |store| {
        mixed(store).await;

        let stats = store.repository.audit_stats().await.unwrap();

        let count = |pairs: &[(&str, u64)]| {
            pairs
                .iter()
                .map(|(label, count)| ((*label).to_owned(), *count))
                .collect::<BTreeMap<_, _>>()
        };
        let by = |category: Category| {
            &stats.counts[Category::ALL
                .iter()
                .position(|other| *other == category)
                .unwrap()]
        };
        assert_eq!(stats.total, 14);
        assert_eq!(
            by(Category::Action),
            &count(&[
                ("create", 4),
                ("delete", 1),
                ("read", 1),
                ("save", 2),
                ("update", 6)
            ])
        );
        assert_eq!(
            by(Category::EntityType),
            &count(&[("project", 9), ("resource", 4)])
        );
        assert_eq!(
            by(Category::Source),
            &count(&[("admin", 4), ("api", 1), ("cms", 1), ("mcp", 7)])
        );
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn the_statistics_follow_every_write() {
    on_each_store(async |store| {
        let key = project_key("a");
        create(&*store.repository, &key, project("a")).await;
        for number in 1..5_u64 {
            assert_eq!(store.repository.audit_stats().await.unwrap().total, number);
            let current = store.repository.get_for_update(&key).await.unwrap();
            let document = object(json!({"id": "a", "n": Value::from(number)}));
            let change = Change::put(&current, &document, write_context(&once())).unwrap();
            store.repository.commit(&[change], &once()).await.unwrap();
        }
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn writes_continue_the_numbers_of_an_imported_log() {
    let numbered = |text: &str| StoredEntry::parse(text.to_owned());
    let log = [
        numbered(r#"{"id":"x","seq":5,"timestamp":"2020-01-01T00:00:00.000Z"}"#),
        numbered(r#"{"seq":9007199254740993,"timestamp":"2020-01-02T00:00:00.000Z"}"#),
        numbered(r#"{"timestamp":"2020-01-03T00:00:00.000Z","action":"save"}"#),
    ];

    on_each_store(async |store| {
        store.history.import_entries(&log, clock()).await.unwrap();
        let key = project_key("a");
        create_sound_after(&*store.repository, &key).await;

        assert_eq!(
            update(&*store.repository, &key, json!({"title": "Seven"}))
                .await
                .entries[0]
                .seq(),
            Some(7)
        );
    })
    .await;
}

#[tokio::test]
async fn an_imported_entry_of_the_future_does_not_affect_later_times() {
    let future = [
        r#"{"timestamp":"9999-01-01T00:00:00Z"}"#,
        r#"{"timestamp":1700000000000000000}"#,
    ]
    .map(|text| StoredEntry::parse(text.to_owned()));

    on_each_store(async |store| {
        store
            .history
            .import_entries(&future, clock())
            .await
            .unwrap();
        let key = project_key("a");

        let entry = create_sound_after(&*store.repository, &key).await;

        let year = 365 * 24 * 60 * 60 * 1000;
        assert!(
            entry.timestamp().unwrap().millis() < clock().millis() + year,
            "{}",
            entry.text()
        );
    })
    .await;
}

/// A first document in a store whose log began elsewhere.
async fn create_sound_after(repository: &dyn Repository, key: &DocumentKey) -> StoredEntry {
    let committed = repository
        .commit(&[creation(key, &project(&key.id))], &once())
        .await
        .unwrap();
    committed.entries[0].clone()
}

#[tokio::test]
async fn entries_added_during_a_read_are_not_returned_twice() {
    let store = Store::redis();
    let old: Vec<StoredEntry> = (0..3000)
        .map(|n| {
            StoredEntry::parse(format!(
                r#"{{"n":{n},"action":"save","timestamp":{}}}"#,
                1_600_000_000_000_i64 + n / 3
            ))
        })
        .collect();
    store.history.import_entries(&old, clock()).await.unwrap();
    let (key, writer) = (project_key("a"), store.another());
    create_sound_after(&*writer, &key).await;
    let stop = std::sync::atomic::AtomicBool::new(false);

    let writing = async {
        let mut number = 0;
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            number += 1;
            update(&*writer, &key, json!({"title": format!("{number}")})).await;
        }
    };
    let reading = async {
        for _ in 0..5 {
            let query = AuditQuery {
                action: Some("save".to_owned()),
                limit: 3000,
                ..AuditQuery::default()
            };
            let page = store.repository.audit_entries(&query).await.unwrap();
            let distinct: std::collections::HashSet<&str> =
                page.entries.iter().map(StoredEntry::text).collect();
            assert_eq!(page.entries.len(), 3000);
            assert_eq!(distinct.len(), 3000);
            assert_eq!(
                store.repository.audit_stats().await.unwrap().counts[0]["save"],
                3000
            );
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    tokio::join!(writing, reading);
}

/// The log as it is stored, newest first, with the scores.
fn raw_log(store: &Store) -> Vec<(i64, String)> {
    if store.is_redis() {
        let found: Vec<(String, i64)> = store.server().run(
            redis::cmd("ZRANGE")
                .arg(store.key("audit:entries"))
                .arg("+inf")
                .arg("-inf")
                .arg("BYSCORE")
                .arg("REV")
                .arg("WITHSCORES"),
        );
        return found
            .into_iter()
            .map(|(text, score)| (score, text))
            .collect();
    }
    let file = rusqlite::Connection::open(store.file()).unwrap();
    let mut all = file
        .prepare("SELECT score, text FROM entries ORDER BY score DESC, text DESC")
        .unwrap();
    all.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap()
}

/// A log of entries like those of older programs: some without a time, some of the future, some of
/// one millisecond, some large.
fn random_entry(random: &mut fastrand::Rng, number: usize) -> StoredEntry {
    let size = match random.u8(..10) {
        0 => random.usize(20_000..60_000),
        1..4 => random.usize(500..3000),
        _ => random.usize(..100),
    };
    let mut entry = json!({ "n": number, "text": "t".repeat(size) });
    match random.u8(..10) {
        0 => {}
        1 => entry["timestamp"] = json!("2999-01-01T00:00:00Z"),
        2..5 => entry["timestamp"] = json!(1_600_000_000_000_i64),
        _ => entry["timestamp"] = json!(1_600_000_000_000_i64 + random.i64(..40)),
    }
    for (member, values) in [
        ("action", ["save", "update", "delete"]),
        ("source", ["cms", "api", "mcp"]),
        ("entityType", ["projects", "project", "resources"]),
        ("entityId", ["a", "b", "rare"]),
    ] {
        let at = random.usize(..5);
        if let Some(value) = values.get(at) {
            entry[member] = json!(value);
        }
    }
    StoredEntry::parse(entry.to_string())
}

fn random_query(random: &mut fastrand::Rng) -> AuditQuery {
    let one_of = |random: &mut fastrand::Rng, values: [&str; 3]| {
        values
            .get(random.usize(..9))
            .map(|value| (*value).to_owned())
    };
    let time = |random: &mut fastrand::Rng| {
        (random.u8(..3) == 0)
            .then(|| Timestamp::from_millis(1_600_000_000_000 + random.i64(-5..45)))
    };
    AuditQuery {
        kind: Kind::ALL.get(random.usize(..8)).copied(),
        entity_id: one_of(random, ["a", "b", "rare"]),
        action: one_of(random, ["save", "update", "delete"]),
        source: one_of(random, ["cms", "api", "mcp"]),
        since: time(random),
        until: time(random),
        limit: [1, 7, 30, 60][random.usize(..4)],
        max_bytes: [usize::MAX, 500, 5000, 100_000][random.usize(..4)],
        ..AuditQuery::default()
    }
}

/// The texts on all pages, each of which keeps the query's limits.
async fn texts_on_pages(repository: &dyn Repository, mut query: AuditQuery) -> Vec<String> {
    let mut texts = Vec::new();
    for _ in 0..10_000 {
        let page = repository.audit_entries(&query).await.unwrap();
        let bytes: usize = page.entries.iter().map(|entry| entry.text().len()).sum();
        assert!(page.entries.len() <= query.limit);
        assert!(bytes <= query.max_bytes || page.entries.len() == 1);
        assert_eq!(page.searched_since, None, "the log is short");
        texts.extend(page.entries.iter().map(|entry| entry.text().to_owned()));
        query.after = page.next;
        if query.after.is_none() {
            return texts;
        }
    }
    panic!("the pages have no end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_any_query_have_each_match_once_while_others_write() {
    on_each_store(async |store| {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let log: Vec<StoredEntry> = (0..200)
            .map(|number| random_entry(&mut random, number))
            .collect();
        store.history.import_entries(&log, clock()).await.unwrap();
        let key = project_key("a");
        create_sound_after(&*store.repository, &key).await;
        let before = raw_log(store);
        let (writer, importer) = (store.another(), store.open().history);
        let done = std::sync::atomic::AtomicBool::new(false);

        let writing = async {
            // A writer without an end would be faster than a reader of small pages.
            let mut number = 1000;
            while number < 1200 && !done.load(std::sync::atomic::Ordering::Relaxed) {
                update(&*writer, &key, json!({ "title": unique("title") })).await;
                let mut random = fastrand::Rng::with_seed(number as u64);
                let entry = random_entry(&mut random, number);
                importer.import_entries(&[entry], clock()).await.unwrap();
                number += 1;
                tokio::task::yield_now().await;
            }
        };
        let reading = async {
            for _ in 0..20 {
                let query = random_query(&mut random);
                let in_time = |score: i64| {
                    query.since.is_none_or(|since| score >= since.millis())
                        && query.until.is_none_or(|until| score < until.millis())
                };
                let expected: Vec<&String> = before
                    .iter()
                    .filter(|(score, text)| {
                        in_time(*score) && query.matches(&StoredEntry::parse(text.clone()))
                    })
                    .map(|(_, text)| text)
                    .collect();

                let found = texts_on_pages(&*store.repository, query.clone()).await;

                let distinct: std::collections::HashSet<&String> = found.iter().collect();
                assert_eq!(distinct.len(), found.len(), "{query:?}");
                let known: std::collections::HashSet<&String> =
                    before.iter().map(|(_, text)| text).collect();
                let old: Vec<&String> = found.iter().filter(|text| known.contains(text)).collect();
                assert!(
                    old == expected,
                    "{} instead of {} entries for {query:?}",
                    old.len(),
                    expected.len()
                );
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        };
        tokio::join!(writing, reading);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_looks_through_ten_thousand_entries_and_says_how_far_it_came() {
    let entry = |number: i64| {
        let action = if number == 3 { "rare" } else { "other" };
        StoredEntry::parse(format!(
            r#"{{"n":{number},"timestamp":{},"action":"{action}"}}"#,
            1_600_000_000_000 + number
        ))
    };
    let log: Vec<StoredEntry> = (0..10_050).map(entry).collect();
    on_each_store(async |store| {
        store.history.import_entries(&log, clock()).await.unwrap();
        let mut query = AuditQuery {
            action: Some("rare".to_owned()),
            limit: 5,
            ..AuditQuery::default()
        };

        let first = store.repository.audit_entries(&query).await.unwrap();
        query.after = first.next.clone();
        let second = store.repository.audit_entries(&query).await.unwrap();

        assert_eq!(first.entries, []);
        let last = Timestamp::from_millis(1_600_000_000_050);
        assert_eq!(first.searched_since, Some(last));
        let position = first.next.unwrap();
        assert_eq!(position.score, last.millis());
        assert_eq!(position.digest, log[50].digest());
        assert_eq!(second.entries, [log[3].clone()]);
        assert_eq!((second.next, second.searched_since), (None, None));
    })
    .await;
}

/// A site's log is searched for the newest change of some kind much more often than for all.
#[tokio::test]
async fn a_full_page_is_not_held_up_by_the_search_for_one_more_match() {
    let entry = |number: i64| {
        let action = if number == 1999 { "rare" } else { "other" };
        StoredEntry::parse(format!(
            r#"{{"n":{number},"timestamp":{number},"action":"{action}"}}"#
        ))
    };
    let log: Vec<StoredEntry> = (1000..2000).map(entry).collect();
    on_each_store(async |store| {
        store.history.import_entries(&log, clock()).await.unwrap();
        let query = AuditQuery {
            action: Some("rare".to_owned()),
            limit: 1,
            ..AuditQuery::default()
        };

        let page = store.repository.audit_entries(&query).await.unwrap();

        assert_eq!(page.entries.len(), 1);
        assert_eq!(page.next.unwrap().score, 1499);
        assert_eq!(page.searched_since, None);
    })
    .await;
}

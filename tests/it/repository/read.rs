//! `get`, `ids` and `list`.

use std::collections::{BTreeMap, BTreeSet};

use portfolio_mcp::{
    domain::{Change, DocumentKey, Kind, ListQuery, Version},
    store::Repository,
};
use proptest::{
    prelude::{Just, Strategy, any, prop, prop_oneof},
    strategy::ValueTree,
    test_runner::TestRunner,
};
use serde_json::{Value, json};

use crate::support::{
    fixtures::{
        Document, change, create, create_sound, creation, document, folder, ids_of, object, once,
        project, project_key, resource, stored, update, with, write_context,
    },
    stores::{Store, on_each_store},
};

#[tokio::test]
async fn a_missing_document_is_none() {
    on_each_store(async |store| {
        let key = project_key("nobody");
        let shown = store.repository.get(&key).await.unwrap().record;
        let current = store.repository.get_for_update(&key).await.unwrap();

        assert!(shown.is_none());
        assert!(current.record().is_none());
    })
    .await;
}

#[tokio::test]
async fn a_document_is_read_byte_for_byte() {
    on_each_store(async |store| {
        let (key, document) = (project_key("a"), project("a"));
        create(&*store.repository, &key, document.clone()).await;

        let shown = store.repository.get(&key).await.unwrap().record;
        let current = store.repository.get_for_update(&key).await.unwrap();

        for record in [shown, current.record().cloned()] {
            let record = record.unwrap();

            assert_eq!(record.key(), &key);
            assert_eq!(record.text(), json!(document).to_string());
            assert_eq!(record.version(), &Version::of(record.text().as_bytes()));
        }
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn get_for_update_returns_the_newest_entry() {
    on_each_store(async |store| {
        let (a, b) = (project_key("a"), project_key("b"));
        create_sound(&*store.repository, &a).await;
        let committed = update(&*store.repository, &a, json!({"title": "New"})).await;
        create_sound(&*store.repository, &b).await;

        let current = store.repository.get_for_update(&a).await.unwrap();

        assert_eq!(current.latest_entry(), Some(committed.entries[0].text()));
    })
    .await;
}

#[tokio::test]
async fn the_two_kinds_have_separate_ids() {
    on_each_store(async |store| {
        let (project_a, resource_a) = (project_key("a"), DocumentKey::new(Kind::Resource, "a"));
        create(&*store.repository, &project_a, project("a")).await;

        assert_eq!(stored(&*store.repository, &resource_a).await, None);

        create(&*store.repository, &resource_a, resource("a")).await;
        assert_eq!(
            stored(&*store.repository, &project_a).await,
            Some(json!(project("a")).to_string())
        );
        assert_eq!(
            stored(&*store.repository, &resource_a).await,
            Some(json!(resource("a")).to_string())
        );
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn ids_need_not_be_slugs() {
    on_each_store(async |store| {
        let ids = [
            "Rdv Artisan",
            "a:b",
            "été",
            "../../etc/passwd",
            "123",
            "true",
            "'; DROP TABLE documents; --",
            "*",
            "%",
            "_",
            "a\nb",
            "\u{0}",
        ];
        for id in ids {
            create_sound(&*store.repository, &project_key(id)).await;
        }

        for id in ids {
            let expected = json!(project(id)).to_string();
            assert_eq!(
                stored(&*store.repository, &project_key(id)).await,
                Some(expected)
            );
        }
        assert_eq!(
            ids_of(&*store.repository, Kind::Project).await.len(),
            ids.len()
        );
        store.assert_sound().await;
    })
    .await;
}

/// Real content, content with violations, and content that no rule allows: a store keeps all of it.
#[tokio::test]
async fn every_fixture_survives_creation_and_update_byte_for_byte() {
    on_each_store(async |store| {
        let mut documents = BTreeMap::new();
        for path in [
            "tests/fixtures/published",
            "tests/fixtures/refused",
            "tests/fixtures/broken",
            "examples/content",
        ] {
            documents.extend(folder(path));
        }
        for (key, document) in &documents {
            create(&*store.repository, key, document.clone()).await;
        }

        for (key, document) in &documents {
            assert_eq!(
                stored(&*store.repository, key).await,
                Some(json!(document).to_string()),
                "{key}"
            );
            update(&*store.repository, key, json!({"title": "A new title"})).await;
        }
        let log = store.assert_sound().await;
        assert_eq!(log.seq, 2 * documents.len() as u64);
    })
    .await;
}

/// Trees with everything that JSON allows, and values that stores have been seen to change: `[]`,
/// `1.0`, `/`, 2^53 + 1.
fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("JSON has no infinities", |number| number.is_finite())
            .prop_map(Value::from),
        Just(json!(1.0)),
        Just(json!([])),
        Just(json!({})),
        any::<String>().prop_map(Value::from),
        Just(json!("</a>\u{2028}\"\\ \u{0}'")),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn any_document() -> impl Strategy<Value = Document> {
    prop::collection::vec((any::<String>(), tree()), 0..6)
        .prop_map(|members| members.into_iter().collect())
}

#[tokio::test]
async fn every_json_object_survives_creation_and_replacement_byte_for_byte() {
    on_each_store(async |store| {
        let (mut runner, documents) = (TestRunner::deterministic(), any_document());
        for number in 0..60 {
            let key = project_key(&format!("p{number}"));
            let first = documents.new_tree(&mut runner).unwrap().current();
            create(&*store.repository, &key, first.clone()).await;
            assert_eq!(
                stored(&*store.repository, &key).await,
                Some(json!(first).to_string())
            );

            let second = documents.new_tree(&mut runner).unwrap().current();
            let current = store.repository.get_for_update(&key).await.unwrap();
            let Some(change) = Change::put(&current, &second, write_context(&once())) else {
                continue;
            };
            store.repository.commit(&[change], &once()).await.unwrap();
            let current = store.repository.get_for_update(&key).await.unwrap();
            assert_eq!(current.record().unwrap().document(), &second);
        }
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn a_document_of_the_maximum_size_can_be_stored() {
    on_each_store(async |store| {
        let key = project_key("big");
        let document = with(
            &project("big"),
            json!({"challenge": "é".repeat(126 * 1024)}),
        );
        create(&*store.repository, &key, document.clone()).await;

        update(
            &*store.repository,
            &key,
            json!({"challenge": "ü".repeat(126 * 1024)}),
        )
        .await;

        assert_eq!(
            stored(&*store.repository, &key).await.unwrap().len(),
            json!(document).to_string().len()
        );
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn ids_are_sorted_and_of_one_kind() {
    on_each_store(async |store| {
        for id in ["b", "a10", "a9", "é"] {
            create_sound(&*store.repository, &project_key(id)).await;
        }
        create_sound(&*store.repository, &DocumentKey::new(Kind::Resource, "c")).await;

        assert_eq!(
            ids_of(&*store.repository, Kind::Project).await,
            ["a10", "a9", "b", "é"]
        );
        assert_eq!(ids_of(&*store.repository, Kind::Resource).await, ["c"]);
    })
    .await;
}

#[tokio::test]
async fn the_list_of_an_empty_store_is_empty() {
    on_each_store(async |store| {
        let page = store
            .repository
            .list(
                Kind::Project,
                &ListQuery {
                    limit: 20,
                    ..ListQuery::default()
                },
            )
            .await
            .unwrap();

        assert_eq!(page.records.len(), 0);
        assert_eq!(page.total, 0);
        assert_eq!(page.next, None);
        assert_eq!(page.unreadable.len(), 0);
        assert!(ids_of(&*store.repository, Kind::Project).await.is_empty());
    })
    .await;
}

/// The ids of a page, and the number of all matches.
async fn listed(repository: &dyn Repository, query: ListQuery) -> (Vec<String>, usize) {
    let page = repository.list(Kind::Project, &query).await.unwrap();
    (
        page.records
            .into_iter()
            .map(|record| record.key().id.clone())
            .collect(),
        page.total,
    )
}

/// Documents that differ in everything that a list filters by.
async fn filtered(store: &Store) {
    let variants = [
        (
            "alpha",
            json!({"metadata": {"status": "published", "featured": true, "updatedAt": "2025-01-05T00:00:00Z"}, "tags": ["Café", "web"]}),
        ),
        (
            "beta",
            json!({"metadata": {"status": "published", "updatedAt": "2025-01-04T00:00:00Z"}, "tags": [], "title": "L’Éléphant"}),
        ),
        (
            "gamma",
            json!({"metadata": {"status": "draft", "featured": true, "updatedAt": "2025-01-03T00:00:00Z"}, "tags": ["CAFÉ"]}),
        ),
        (
            "delta",
            json!({"metadata": {"status": "archived", "updatedAt": "2025-01-02T00:00:00Z"}, "tags": ["café au lait"], "result": "50 % plus d’éléphants"}),
        ),
        (
            "epsilon",
            json!({"metadata": {"status": "live", "featured": "true", "updatedAt": "2025-01-01T00:00:00Z"}, "tags": "café"}),
        ),
        ("zeta", json!({"metadata": null, "tags": ["café", 7]})),
    ];
    for (id, patch) in variants {
        create(
            &*store.repository,
            &project_key(id),
            with(&project(id), patch),
        )
        .await;
    }
    create_sound(
        &*store.repository,
        &DocumentKey::new(Kind::Resource, "alpha"),
    )
    .await;
}

#[tokio::test]
async fn a_list_applies_every_filter() {
    on_each_store(async |store| {
        filtered(store).await;
        let status = |status: &str| ListQuery {
            status: Some(status.to_owned()),
            ..ListQuery::default()
        };
        let featured = |featured| ListQuery {
            featured: Some(featured),
            ..ListQuery::default()
        };
        let tag = |tag: &str| ListQuery {
            tag: Some(tag.to_owned()),
            ..ListQuery::default()
        };
        let words = |text: &str| ListQuery {
            words: ListQuery::words_of(text),
            ..ListQuery::default()
        };
        let cases = [
            (
                ListQuery::default(),
                vec!["alpha", "beta", "gamma", "delta", "epsilon", "zeta"],
            ),
            (status("published"), vec!["alpha", "beta"]),
            (status("live"), vec!["epsilon"]),
            (status("publis"), vec![]),
            (featured(true), vec!["alpha", "gamma"]),
            (featured(false), vec!["beta", "delta", "epsilon", "zeta"]),
            (tag("café"), vec!["alpha", "gamma", "zeta"]),
            (tag("cafe"), vec![]),
            (words("elephant"), vec!["beta", "delta"]),
            (words("PLUS éléphants"), vec!["delta"]),
            (words("alpha"), vec!["alpha"]),
            (words("%"), vec!["delta"]),
            (words("café lait"), vec!["delta"]),
            (
                ListQuery {
                    status: Some("published".to_owned()),
                    featured: Some(true),
                    ..tag("café")
                },
                vec!["alpha"],
            ),
        ];

        for (query, expected) in cases {
            let query = ListQuery { limit: 20, ..query };
            assert_eq!(
                listed(&*store.repository, query.clone()).await,
                (
                    expected.iter().map(ToString::to_string).collect(),
                    expected.len()
                ),
                "{query:?}"
            );
        }
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn a_list_counts_all_matches_and_not_the_page() {
    on_each_store(async |store| {
        filtered(store).await;

        let page = store
            .repository
            .list(
                Kind::Project,
                &ListQuery {
                    limit: 2,
                    ..ListQuery::default()
                },
            )
            .await
            .unwrap();

        assert_eq!(page.records.len(), 2);
        assert_eq!(page.total, 6);
        assert!(page.next.is_some());
    })
    .await;
}

#[tokio::test]
async fn the_last_page_has_no_next_one() {
    on_each_store(async |store| {
        filtered(store).await;

        let page = store
            .repository
            .list(
                Kind::Project,
                &ListQuery {
                    limit: 6,
                    ..ListQuery::default()
                },
            )
            .await
            .unwrap();

        assert_eq!(page.records.len(), 6);
        assert_eq!(page.next, None);
    })
    .await;
}

#[tokio::test]
async fn a_list_is_newest_first_by_instant_then_by_id_with_unreadable_times_last() {
    on_each_store(async |store| {
        let times = [
            ("z", json!("2025-06-01T12:00:00Z")),
            ("newest", json!("2026-01-01T00:00:00.000Z")),
            ("a", json!("2025-06-01T14:00:00+02:00")),
            ("between", json!("2025-06-01T12:00:00.000001Z")),
            ("nothing", Value::Null),
            ("never", json!("soon")),
            ("ancient", json!("1969-12-31T23:59:59Z")),
        ];
        for (id, time) in times {
            create(
                &*store.repository,
                &project_key(id),
                with(&project(id), json!({"metadata": {"updatedAt": time}})),
            )
            .await;
        }

        let (ids, _) = listed(
            &*store.repository,
            ListQuery {
                limit: 20,
                ..ListQuery::default()
            },
        )
        .await;

        assert_eq!(
            ids,
            ["newest", "between", "a", "z", "ancient", "never", "nothing"]
        );
    })
    .await;
}

#[tokio::test]
async fn a_list_has_the_documents_with_their_versions() {
    on_each_store(async |store| {
        create_sound(&*store.repository, &project_key("a")).await;

        let page = store
            .repository
            .list(
                Kind::Project,
                &ListQuery {
                    limit: 1,
                    ..ListQuery::default()
                },
            )
            .await
            .unwrap();

        let record = &page.records[0];
        assert_eq!(record.text(), json!(project("a")).to_string());
        assert_eq!(record.version(), &Version::of(record.text().as_bytes()));
    })
    .await;
}

/// Every page of two, with an edit between any two pages.
#[tokio::test]
async fn an_unchanged_document_appears_on_exactly_one_page() {
    on_each_store(async |store| {
        let ids: Vec<String> = (0..20).map(|number| format!("p{number:02}")).collect();
        let changes: Vec<Change> = ids
            .iter()
            .enumerate()
            // Five of one instant each, so that ties cross pages.
            .map(|(number, id)| {
                let time = format!("2025-01-{:02}T00:00:00Z", 1 + number / 5);
                creation(
                    &project_key(id),
                    &with(&project(id), json!({"metadata": {"updatedAt": time}})),
                )
            })
            .collect();
        store.repository.commit(&changes, &once()).await.unwrap();
        let edited = ["p19", "p00", "p07", "p12", "p03"];

        let mut query = ListQuery {
            limit: 2,
            ..ListQuery::default()
        };
        let (mut seen, mut edits) = (BTreeMap::new(), edited.iter());
        loop {
            let page = store.repository.list(Kind::Project, &query).await.unwrap();
            assert_eq!(page.total, ids.len());
            for record in page.records {
                *seen.entry(record.key().id.clone()).or_insert(0) += 1;
            }
            if let Some(id) = edits.next() {
                update(
                    &*store.repository,
                    &project_key(id),
                    json!({"title": "Edited"}),
                )
                .await;
            }
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }

        for id in ids.iter().filter(|id| !edited.contains(&id.as_str())) {
            assert_eq!(seen.get(id), Some(&1), "{id}");
        }
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn a_list_of_hundreds_is_complete() {
    on_each_store(async |store| {
        let ids: BTreeSet<String> = (0..250).map(|number| format!("p{number}")).collect();
        let changes: Vec<Change> = ids
            .iter()
            .map(|id| {
                creation(
                    &project_key(id),
                    &object(json!({"id": id, "metadata": {"updatedAt": null}})),
                )
            })
            .collect();
        store.repository.commit(&changes, &once()).await.unwrap();

        let (listed, total) = listed(
            &*store.repository,
            ListQuery {
                limit: 1000,
                ..ListQuery::default()
            },
        )
        .await;

        assert_eq!(total, 250);
        assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), ids);
        assert_eq!(ids_of(&*store.repository, Kind::Project).await.len(), 250);
    })
    .await;
}

#[tokio::test]
async fn another_connection_reads_a_write_at_once() {
    on_each_store(async |store| {
        let (other, key) = (store.another(), project_key("a"));
        assert_eq!(stored(&*other, &key).await, None);

        create_sound(&*store.repository, &key).await;
        assert_eq!(
            stored(&*other, &key).await,
            Some(json!(document(Kind::Project, "a")).to_string())
        );

        let change = change(&*other, &key, json!({"title": "From the other"})).await;
        other.commit(&[change], &once()).await.unwrap();
        let (ids, _) = listed(
            &*store.repository,
            ListQuery {
                words: ListQuery::words_of("other"),
                limit: 1,
                ..ListQuery::default()
            },
        )
        .await;
        assert_eq!(ids, ["a"]);
        store.assert_sound().await;
    })
    .await;
}

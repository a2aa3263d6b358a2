//! `commit` and `outcome`.

use std::sync::Arc;

use portfolio_mcp::{
    domain::{Change, Current, DocumentKey, Kind, Operation, Record, StoredEntry, diff::diff},
    store::{Repository, StoreError},
};
use serde_json::json;

use crate::support::{
    fixtures::{
        change, change_for, create, create_sound, creation, ids_of, once, project, project_key,
        resource, stored, unique, update, write_context,
    },
    stores::{Store, on_each_store},
};

/// Everything that can be read from a store, to check that nothing was written.
async fn state(repository: &dyn Repository) -> String {
    let mut state = String::new();
    for kind in Kind::ALL {
        for id in ids_of(repository, kind).await {
            state.push_str(
                &stored(repository, &DocumentKey::new(kind, &id))
                    .await
                    .unwrap(),
            );
        }
    }
    let log = crate::support::soundness::entries(
        repository,
        &portfolio_mcp::domain::AuditQuery::default(),
    )
    .await;
    state.extend(log.iter().map(StoredEntry::text));
    format!("{state} {:?}", repository.audit_stats().await.unwrap())
}

fn is_conflict<T: std::fmt::Debug>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Conflict))
}

#[tokio::test]
async fn a_creation_stores_the_document_and_its_entry() {
    on_each_store(async |store| {
        let key = project_key("a");

        let committed = create(&*store.repository, &key, project("a")).await;

        assert!(!committed.replayed);
        assert_eq!(committed.entries.len(), 1);
        assert_eq!(committed.entries[0].seq(), Some(1));
        assert_eq!(committed.entries[0].changes().len(), project("a").len());
        let log = store.assert_sound().await;
        assert_eq!(log.entries, committed.entries);
    })
    .await;
}

#[tokio::test]
async fn creating_an_existing_document_conflicts() {
    on_each_store(async |store| {
        let key = project_key("a");
        create_sound(&*store.repository, &key).await;
        let before = state(&*store.repository).await;

        let result = store
            .repository
            .commit(&[creation(&key, &project("a"))], &once())
            .await;

        assert!(is_conflict(&result), "{result:?}");
        assert_eq!(state(&*store.repository).await, before);
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn an_update_moves_the_document_between_the_lists() {
    on_each_store(async |store| {
        let (key, query) = (project_key("a"), |status: &str, featured| {
            portfolio_mcp::domain::ListQuery {
                status: Some(status.to_owned()),
                featured: Some(featured),
                limit: 10,
                ..portfolio_mcp::domain::ListQuery::default()
            }
        });
        create_sound(&*store.repository, &key).await;
        let states = [
            ("published", true),
            ("published", false),
            ("draft", true),
            ("archived", false),
            ("published", true),
        ];

        for (status, featured) in states {
            update(
                &*store.repository,
                &key,
                json!({"metadata": {"status": status, "featured": featured}}),
            )
            .await;

            assert_eq!(
                store
                    .repository
                    .list(Kind::Project, &query(status, featured))
                    .await
                    .unwrap()
                    .total,
                1
            );
            assert_eq!(
                store
                    .repository
                    .list(Kind::Project, &query(status, !featured))
                    .await
                    .unwrap()
                    .total,
                0
            );
            store.assert_sound().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_outdated_change_conflicts() {
    on_each_store(async |store| {
        let key = project_key("a");
        create_sound(&*store.repository, &key).await;
        let late = change(&*store.repository, &key, json!({"title": "Late"})).await;
        update(&*store.another(), &key, json!({"title": "Early"})).await;
        let before = state(&*store.repository).await;

        let result = store.repository.commit(&[late], &once()).await;

        assert!(is_conflict(&result), "{result:?}");
        assert_eq!(state(&*store.repository).await, before);
        store.assert_sound().await;
    })
    .await;
}

/// The bytes and the version are as before, but the history is not.
#[tokio::test]
async fn a_change_after_a_change_and_its_reversal_keeps_the_chain() {
    on_each_store(async |store| {
        let key = project_key("a");
        create_sound(&*store.repository, &key).await;
        let late = change(&*store.repository, &key, json!({"title": "Late"})).await;
        let original = store.repository.get(&key).await.unwrap().record.unwrap();
        update(&*store.repository, &key, json!({"title": "Meanwhile"})).await;
        let current = store.repository.get_for_update(&key).await.unwrap();
        let back = Change::put(&current, original.document(), write_context(&once())).unwrap();
        store.repository.commit(&[back], &once()).await.unwrap();
        assert_eq!(
            stored(&*store.repository, &key).await.as_deref(),
            Some(original.text())
        );

        let result = store.repository.commit(&[late], &once()).await;

        assert!(is_conflict(&result), "{result:?}");
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn a_deletion_leaves_no_document_and_its_entry() {
    on_each_store(async |store| {
        let (key, other) = (project_key("a"), project_key("b"));
        create_sound(&*store.repository, &other).await;
        create_sound(&*store.repository, &key).await;
        let patch = json!({"metadata": {"status": "published", "featured": true}});
        update(&*store.repository, &key, patch).await;
        let current = store.repository.get_for_update(&key).await.unwrap();
        let deletion = Change::delete(&current, write_context(&once())).unwrap();

        let committed = store.repository.commit(&[deletion], &once()).await.unwrap();

        assert_eq!(stored(&*store.repository, &key).await, None);
        assert_eq!(ids_of(&*store.repository, Kind::Project).await, ["b"]);
        assert_eq!(committed.entries[0].text_of("action"), Some("delete"));
        let log = store.assert_sound().await;
        assert_eq!(log.entries.last(), committed.entries.last());
    })
    .await;
}

#[tokio::test]
async fn what_was_deleted_is_created_again_after_the_deletion() {
    on_each_store(async |store| {
        let key = project_key("a");
        create_sound(&*store.repository, &key).await;
        let late = change(&*store.repository, &key, json!({"title": "Late"})).await;
        let original = store.repository.get_for_update(&key).await.unwrap();
        let deletion = Change::delete(&original, write_context(&once())).unwrap();
        let deletion = store.repository.commit(&[deletion], &once()).await.unwrap();
        let deleted = store.repository.get_for_update(&key).await.unwrap();
        let document = original.record().map(Record::document);
        let reverts = vec![deletion.entries[0].text_of("id").unwrap().to_owned()];
        let back = Change::revert(&deleted, document, reverts, write_context(&once()));
        let back = back.unwrap().unwrap();

        let result = store
            .repository
            .commit(&[creation(&key, &project("a"))], &once())
            .await;
        store.repository.commit(&[back], &once()).await.unwrap();
        let too_late = store.repository.commit(&[late], &once()).await;

        assert!(
            is_conflict(&result),
            "made without the newest entry: {result:?}"
        );
        assert!(is_conflict(&too_late), "{too_late:?}");
        let found = store.repository.get(&key).await.unwrap().record.unwrap();
        let changes = diff(original.record().unwrap().document(), found.document());
        let fields = changes.iter().map(|change| change.field.as_str());
        assert_eq!(fields.collect::<Vec<_>>(), ["metadata.updatedAt"]);
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn changing_a_document_that_was_never_stored_conflicts() {
    on_each_store(async |store| {
        let elsewhere = Store::sqlite();
        let key = project_key("a");
        create_sound(&*elsewhere.repository, &key).await;
        let change = change(&*elsewhere.repository, &key, json!({"title": "New"})).await;

        let result = store.repository.commit(&[change], &once()).await;

        assert!(is_conflict(&result), "{result:?}");
        assert_eq!(store.assert_sound().await.seq, 0);
    })
    .await;
}

#[tokio::test]
async fn several_changes_are_numbered_in_their_order() {
    on_each_store(async |store| {
        let (a, b, c) = (
            project_key("a"),
            DocumentKey::new(Kind::Resource, "b"),
            project_key("c"),
        );
        create_sound(&*store.repository, &c).await;
        let changes = [
            creation(&a, &project("a")),
            change(&*store.repository, &c, json!({"title": "New"})).await,
            creation(&b, &resource("b")),
        ];

        let committed = store.repository.commit(&changes, &once()).await.unwrap();

        let numbers: Vec<_> = committed
            .entries
            .iter()
            .map(|entry| (entry.seq().unwrap(), entry.text_of("entityId").unwrap()))
            .collect();
        assert_eq!(numbers, [(2, "a"), (3, "c"), (4, "b")]);
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn one_conflicting_change_stops_the_whole_commit() {
    on_each_store(async |store| {
        for key in [project_key("b"), project_key("c")] {
            create_sound(&*store.repository, &key).await;
        }
        let stale = change(
            &*store.repository,
            &project_key("b"),
            json!({"title": "Stale"}),
        )
        .await;
        update(
            &*store.repository,
            &project_key("b"),
            json!({"title": "Fresh"}),
        )
        .await;
        let before = state(&*store.repository).await;
        let operation = once();
        let changes = [
            creation(&project_key("a"), &project("a")),
            stale,
            change(
                &*store.repository,
                &project_key("c"),
                json!({"title": "New"}),
            )
            .await,
        ];

        let result = store.repository.commit(&changes, &operation).await;

        assert!(is_conflict(&result), "{result:?}");
        assert_eq!(state(&*store.repository).await, before);
        assert!(
            store
                .repository
                .find_commit(&operation)
                .await
                .unwrap()
                .is_none(),
            "a refusal leaves no mark"
        );
        store.assert_sound().await;
    })
    .await;
}

/// The second change was not made from the result of the first, so it cannot be applied to it.
#[tokio::test]
async fn two_changes_of_one_document_in_one_commit_are_rejected() {
    on_each_store(async |store| {
        let key = project_key("a");
        create_sound(&*store.repository, &key).await;
        let changes = [
            change(&*store.repository, &key, json!({"title": "One"})).await,
            change(&*store.repository, &key, json!({"result": "Two"})).await,
        ];
        let before = state(&*store.repository).await;

        assert!(store.repository.commit(&changes, &once()).await.is_err());
        assert_eq!(state(&*store.repository).await, before);

        let twice = [
            creation(&project_key("b"), &project("b")),
            creation(&project_key("b"), &project("b")),
        ];

        assert!(store.repository.commit(&twice, &once()).await.is_err());
        assert_eq!(state(&*store.repository).await, before);
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn a_commit_of_nothing_writes_nothing() {
    on_each_store(async |store| {
        create_sound(&*store.repository, &project_key("a")).await;
        let before = state(&*store.repository).await;

        let result = store.repository.commit(&[], &once()).await;

        assert!(result.is_err() || result.is_ok_and(|committed| committed.entries.is_empty()));
        assert_eq!(state(&*store.repository).await, before);
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn a_commit_of_five_hundred_documents_is_one_commit() {
    on_each_store(async |store| {
        let changes: Vec<Change> = (0..500)
            .map(|number| creation(&project_key(&format!("p{number}")), &project("p")))
            .collect();
        let operation = once();

        let committed = store.repository.commit(&changes, &operation).await.unwrap();
        let again = store.repository.commit(&changes, &operation).await.unwrap();

        assert_eq!(committed.entries.len(), 500);
        assert!(again.replayed);
        assert_eq!(again.entries, committed.entries);
        assert_eq!(store.assert_sound().await.seq, 500);
    })
    .await;
}

#[tokio::test]
async fn a_repeated_commit_is_applied_once() {
    on_each_store(async |store| {
        let (key, operation) = (project_key("a"), once());
        create_sound(&*store.repository, &key).await;
        let change = [change_for(
            &*store.repository,
            &key,
            json!({"title": "New"}),
            &operation,
        )
        .await];

        let first = store.repository.commit(&change, &operation).await.unwrap();
        let again = store.another().commit(&change, &operation).await.unwrap();

        assert!(!first.replayed);
        assert!(again.replayed);
        assert_eq!(again.entries, first.entries);
        assert_eq!(store.assert_sound().await.seq, 2);
    })
    .await;
}

#[tokio::test]
async fn a_repeated_commit_returns_its_own_entries_after_other_writes() {
    on_each_store(async |store| {
        let (key, operation) = (project_key("a"), once());
        create_sound(&*store.repository, &key).await;
        let batch = [
            change_for(
                &*store.repository,
                &key,
                json!({"title": "New"}),
                &operation,
            )
            .await,
            Change::put(
                &Current::read(project_key("b"), None, None::<&str>),
                &project("b"),
                write_context(&operation),
            )
            .unwrap(),
        ];
        let first = store.repository.commit(&batch, &operation).await.unwrap();
        for title in ["Newer", "Newest"] {
            update(&*store.repository, &key, json!({"title": title})).await;
        }

        let again = store.repository.commit(&batch, &operation).await.unwrap();

        assert!(again.replayed);
        assert_eq!(again.entries, first.entries);
        assert!(
            stored(&*store.repository, &key)
                .await
                .unwrap()
                .contains("Newest")
        );
        assert_eq!(store.assert_sound().await.seq, 5);
    })
    .await;
}

#[tokio::test]
async fn an_operation_is_found_after_its_commit_and_not_before() {
    on_each_store(async |store| {
        let (key, operation) = (
            project_key("a"),
            Operation::keyed(&unique("key"), json!({"title": "New"})),
        );
        create_sound(&*store.repository, &key).await;
        let change = change_for(
            &*store.repository,
            &key,
            json!({"title": "New"}),
            &operation,
        )
        .await;
        assert!(
            store
                .repository
                .find_commit(&operation)
                .await
                .unwrap()
                .is_none()
        );

        let committed = store
            .repository
            .commit(&[change], &operation)
            .await
            .unwrap();

        for handle in [Arc::clone(&store.repository), store.another()] {
            let outcome = handle.find_commit(&operation).await.unwrap().unwrap();
            assert!(outcome.replayed);
            assert_eq!(outcome.entries, committed.entries);
        }
    })
    .await;
}

#[tokio::test]
async fn an_idempotency_key_of_another_request_is_a_mismatch() {
    on_each_store(async |store| {
        let (key, name) = (project_key("a"), unique("key"));
        let (first, other) = (
            Operation::keyed(&name, json!({"title": "1"})),
            Operation::keyed(&name, json!({"title": "2"})),
        );
        create_sound(&*store.repository, &key).await;
        let done = change_for(&*store.repository, &key, json!({"title": "1"}), &first).await;
        store.repository.commit(&[done], &first).await.unwrap();
        let change = change_for(&*store.repository, &key, json!({"title": "2"}), &other).await;
        let before = state(&*store.repository).await;

        let asked = store.repository.find_commit(&other).await;
        let committed = store.repository.commit(&[change], &other).await;

        assert!(
            matches!(asked, Err(StoreError::IdempotencyMismatch)),
            "{asked:?}"
        );
        assert!(
            matches!(committed, Err(StoreError::IdempotencyMismatch)),
            "{committed:?}"
        );
        assert_eq!(state(&*store.repository).await, before);
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn the_order_of_members_does_not_make_a_different_request() {
    on_each_store(async |store| {
        let (key, name) = (project_key("a"), unique("key"));
        let first = Operation::keyed(
            &name,
            json!({"data": {"title": "1", "result": "2"}, "id": "a"}),
        );
        let same = Operation::keyed(
            &name,
            json!({"id": "a", "data": {"result": "2", "title": "1"}}),
        );
        create_sound(&*store.repository, &key).await;
        let change = change_for(
            &*store.repository,
            &key,
            json!({"title": "1", "result": "2"}),
            &first,
        )
        .await;

        let committed = store.repository.commit(&[change], &first).await.unwrap();

        assert_eq!(
            store
                .repository
                .find_commit(&same)
                .await
                .unwrap()
                .unwrap()
                .entries,
            committed.entries
        );
    })
    .await;
}

#[tokio::test]
async fn an_operation_can_be_retried_after_a_conflict() {
    on_each_store(async |store| {
        let (key, operation) = (
            project_key("a"),
            Operation::keyed(&unique("key"), json!({})),
        );
        create_sound(&*store.repository, &key).await;
        let stale = change_for(
            &*store.repository,
            &key,
            json!({"title": "Mine"}),
            &operation,
        )
        .await;
        update(&*store.repository, &key, json!({"title": "Yours"})).await;
        assert!(is_conflict(
            &store.repository.commit(&[stale], &operation).await
        ));
        assert!(
            store
                .repository
                .find_commit(&operation)
                .await
                .unwrap()
                .is_none()
        );

        let fresh = change_for(
            &*store.repository,
            &key,
            json!({"title": "Mine"}),
            &operation,
        )
        .await;
        let committed = store.repository.commit(&[fresh], &operation).await.unwrap();

        assert!(!committed.replayed);
        assert_eq!(store.assert_sound().await.seq, 3);
    })
    .await;
}

#[tokio::test]
async fn concurrent_commits_of_different_documents_all_apply() {
    on_each_store(async |store| {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..20 {
            let repository = if number % 2 == 0 {
                Arc::clone(&store.repository)
            } else {
                store.another()
            };
            tasks.spawn(async move {
                let key = project_key(&format!("p{number}"));
                create_sound(&*repository, &key).await;
                update(&*repository, &key, json!({"title": "New"})).await;
            });
        }
        tasks.join_all().await;

        assert_eq!(store.assert_sound().await.seq, 40);
    })
    .await;
}

/// Of several changes made from the same bytes, exactly one may apply.
#[tokio::test]
async fn one_of_several_concurrent_commits_from_the_same_bytes_applies() {
    on_each_store(async |store| {
        let key = project_key("a");
        create_sound(&*store.repository, &key).await;
        let mut changes = Vec::new();
        for number in 0..10 {
            changes.push(
                change(
                    &*store.repository,
                    &key,
                    json!({"title": format!("{number}")}),
                )
                .await,
            );
        }
        let mut tasks = tokio::task::JoinSet::new();
        for change in changes {
            let repository = store.another();
            tasks.spawn(async move { repository.commit(&[change], &once()).await });
        }
        let results = tasks.join_all().await;

        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        assert_eq!(
            results.iter().filter(|result| is_conflict(result)).count(),
            9,
            "{results:?}"
        );
        assert_eq!(store.assert_sound().await.seq, 2);
    })
    .await;
}

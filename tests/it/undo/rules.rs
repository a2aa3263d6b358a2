//! The rules of the contract, one by one.

use portfolio_mcp::domain::{Creations, StoredEntry, Timeline, UndoCounts};
use serde_json::{Value, json};

use super::page::{Page, kept_fields, without_times};
use crate::support::fixtures::{object, project, with};

fn counts(undone: usize, kept: usize, already_gone: usize) -> UndoCounts {
    UndoCounts {
        undone,
        kept,
        already_gone,
    }
}

/// A page whose `result` is a number in words.
fn page(result: &str) -> Page {
    Page::of(with(&project("page"), json!({ "result": result })))
}

#[test]
fn a_field_gets_the_last_value_that_somebody_else_gave_it() {
    let mut page = page("10");
    let first = page.update("AI", json!({ "result": "12" }));
    page.update("Marie", json!({ "result": "15" }));
    let second = page.update("AI", json!({ "result": "20" }));

    let (undo, _) = page.undo(&[&first, &second]);

    assert_eq!(page.value("result"), Some(&json!("15")));
    assert_eq!(undo.counts, counts(1, 0, 0));
    assert_eq!(undo.reverts, [first, second]);
}

#[test]
fn the_last_change_and_then_the_one_before_it_can_be_undone() {
    let mut page = page("one");
    let first = page.update("AI", json!({ "result": "two" }));
    let second = page.update("Marie", json!({ "result": "three" }));

    page.undo(&[&second]);
    assert_eq!(page.value("result"), Some(&json!("two")));
    page.undo(&[&first]);

    assert_eq!(page.value("result"), Some(&json!("one")));
}

#[test]
fn a_field_that_somebody_else_changed_later_stays_and_is_named() {
    let mut page = page("one");
    let ours = page.update("AI", json!({ "result": "two", "title": "By the AI" }));
    let theirs = page.update("Marie", json!({ "result": "three" }));

    let (undo, _) = page.undo(&[&ours]);

    assert_eq!(page.value("result"), Some(&json!("three")));
    assert_eq!(page.value("title"), Some(&json!("The case of page")));
    assert_eq!(undo.counts, counts(1, 1, 0));
    let kept = &undo.kept[0];
    assert_eq!(kept.field, "result");
    assert_eq!(kept.audit_id, Some(theirs));
    assert_eq!(kept.actor.as_deref(), Some("Marie"));
    assert!(kept.timestamp.is_some());
}

#[test]
fn undoing_an_undo_gives_the_document_back() {
    let mut page = page("one");
    let change = page.update(
        "AI",
        json!({ "result": "two", "solution": { "videoUrl": "/v" } }),
    );
    let before = without_times(page.document());

    let (_, undo) = page.undo(&[&change]);
    let (_, again) = page.undo(&[undo.as_deref().unwrap()]);
    assert_eq!(without_times(page.document()), before);
    let (_, third) = page.undo(&[again.as_deref().unwrap()]);

    assert_eq!(page.value("result"), Some(&json!("one")));
    assert_eq!(page.value("solution.videoUrl"), None);
    page.undo(&[third.as_deref().unwrap()]);
    assert_eq!(without_times(page.document()), before);
    page.undo(&[&change]);
    assert_eq!(page.value("result"), Some(&json!("one")));
}

#[test]
fn what_was_undone_is_not_undone_again() {
    let mut page = page("one");
    let change = page.update("AI", json!({ "result": "two" }));
    page.undo(&[&change]);

    let (undo, id) = page.undo(&[&change]);

    assert_eq!(id, None);
    assert_eq!(undo.counts, counts(0, 0, 1));
    page.update("Marie", json!({ "result": "three" }));
    assert_eq!(
        page.plan(&[&change], Creations::Keep).counts,
        counts(0, 0, 1)
    );
}

#[test]
fn only_the_fields_that_went_back_count_as_undone() {
    let mut page = page("one");
    let ours = page.update("AI", json!({ "result": "two", "title": "By the AI" }));
    let theirs = page.update("Marie", json!({ "result": "three" }));
    page.undo(&[&ours]);

    page.undo(&[&theirs]);

    assert_eq!(page.value("result"), Some(&json!("two")));
}

#[test]
fn fields_above_and_below_each_other_are_one_field() {
    let link =
        |url: &str| json!({ "insight": { "resourceLink": { "text": "Guide", "url": url } } });
    let mut page = Page::project();
    let added = page.update("AI", link("/a"));
    let changed = page.update("Marie", link("/b"));

    let (undo, id) = page.undo(&[&added]);
    assert_eq!(id, None);
    assert_eq!(undo.kept[0].audit_id.as_ref(), Some(&changed));
    assert_eq!(kept_fields(&undo), ["insight.resourceLink"].into());
    page.undo(&[&added, &changed]);

    assert_eq!(page.value("insight.resourceLink"), None);
}

#[test]
fn a_part_that_was_changed_before_the_whole_went_goes_back_too() {
    let mut page = Page::project();
    let link = |url: &str, text: &str| json!({ "insight": { "resourceLink": { "text": text, "url": url } } });
    page.update("Marie", link("/a", "Guide"));
    let url = page.update("AI", link("/b", "Guide"));
    page.update("Marie", link("/b", "The guide"));
    let removed = page.update("AI", json!({ "insight": { "resourceLink": null } }));

    page.undo(&[&url, &removed]);

    assert_eq!(
        page.value("insight.resourceLink"),
        Some(&json!({ "text": "The guide", "url": "/a" }))
    );
}

#[test]
fn a_list_is_merged_where_the_changes_do_not_touch() {
    let tags = |tags: &str| json!({ "tags": tags.split(' ').collect::<Vec<_>>() });
    for (steps, expected, kept) in [
        (
            ["a b", "AI: x a b", "Marie: x a b y"].as_slice(),
            "a b y",
            0,
        ),
        (&["a", "AI: x a", "Marie: x b"], "x b", 1),
        (
            &["a b", "AI: x a b", "Marie: x a b y", "AI: x a b z"],
            "a b y",
            0,
        ),
        (
            &[
                "a b",
                "AI: x a b",
                "Marie: x a b y",
                "AI: x a b y w",
                "Marie: x a y w",
            ],
            "a y",
            0,
        ),
        (
            &[
                "a b",
                "AI: a b x",
                "Marie: a b x y",
                "AI: w a b x y",
                "Marie: w a x y",
            ],
            "a x y",
            0,
        ),
        (
            &[
                "a b c",
                "AI: b c",
                "Marie: b c d",
                "AI: b c d e",
                "Marie: b f c d e",
            ],
            "a b f c d",
            0,
        ),
    ] {
        let mut page = Page::project();
        let mut ai = Vec::new();
        for step in steps {
            let (actor, list) = step.split_once(": ").unwrap_or(("", step));
            let id = page.update(actor, tags(list));
            ai.extend((actor == "AI").then_some(id));
        }
        let ids: Vec<&str> = ai.iter().map(String::as_str).collect();

        let (undo, _) = page.undo(&ids);

        assert_eq!(
            page.value("tags"),
            Some(&tags(expected)["tags"]),
            "{steps:?}"
        );
        assert_eq!(undo.counts.kept, kept, "{steps:?}");
    }
}

#[test]
fn a_merged_list_can_be_undone_and_changed_like_any_other() {
    let tags = |tags: &str| json!({ "tags": tags.split(' ').collect::<Vec<_>>() });
    let mut page = Page::project();
    page.update("Marie", tags("a b"));
    let first = page.update("AI", tags("x a b"));
    let second = page.update("Marie", tags("x a b y"));
    let (_, merged) = page.undo(&[&first]);
    assert_eq!(page.value("tags"), Some(&json!(["a", "b", "y"])));

    page.undo(&[&second]);
    assert_eq!(page.value("tags"), Some(&json!(["a", "b"])));
    page.undo(&[merged.as_deref().unwrap()]);

    assert_eq!(page.value("tags"), Some(&json!(["x", "a", "b"])));
    let (undo, _) = page.undo(&[&second]);
    assert_eq!(undo.counts, counts(0, 0, 1));
}

#[test]
fn a_list_that_stays_after_a_merge_names_the_person_who_changed_it() {
    let tags = |tags: &str| json!({ "tags": tags.split(' ').collect::<Vec<_>>() });
    let mut page = Page::project();
    page.update("Marie", tags("a b"));
    let first = page.update("AI", tags("x a b"));
    let second = page.update("AI", tags("x a b y"));
    let theirs = page.update("Marie", tags("x a b y z"));
    page.undo(&[&first]);
    assert_eq!(page.value("tags"), Some(&json!(["a", "b", "y", "z"])));

    let undo = page.plan(&[&second], Creations::Keep);

    assert_eq!(kept_fields(&undo), ["tags"].into());
    assert_eq!(undo.kept[0].audit_id, Some(theirs));
    assert_eq!(undo.kept[0].actor.as_deref(), Some("Marie"));
}

#[test]
fn what_the_server_sets_is_left_out() {
    let mut legacy = project("page");
    legacy.insert("published".to_owned(), json!(false));
    legacy.insert("updatedAt".to_owned(), json!("2025-01-02T00:00:00.000Z"));
    let mut page = Page::of(legacy);
    let published = page.update("AI", json!({ "metadata": { "status": "published" } }));
    page.update("Marie", json!({ "title": "By Marie" }));

    let (undo, _) = page.undo(&[&published]);

    assert_eq!(undo.counts, counts(1, 0, 0));
    assert_eq!(page.value("metadata.status"), Some(&json!("draft")));
    assert_eq!(page.value("published"), Some(&json!(false)));
    assert_eq!(page.value("updatedAt"), page.value("metadata.updatedAt"));
}

#[test]
fn metadata_that_goes_keeps_its_times() {
    let mut legacy = project("page");
    legacy.shift_remove("metadata");
    let mut page = Page::of(legacy);
    let named = page.update("AI", json!({ "title": "By the AI" }));
    let created = page.value("metadata.createdAt").cloned();
    let status = page.update(
        "AI",
        json!({ "metadata": { "status": "draft", "featured": true } }),
    );

    page.undo(&[&named, &status]);

    let metadata = page.value("metadata").unwrap().as_object().unwrap();
    assert_eq!(metadata.get("createdAt"), created.as_ref());
    assert_eq!(metadata.len(), 2);
    assert_eq!(page.value("title"), Some(&json!("The case of page")));
}

#[test]
fn a_violation_that_was_there_before_comes_back() {
    let mut legacy = project("page");
    legacy.insert("title".to_owned(), json!(""));
    let mut page = Page::of(legacy);
    let repaired = page.update("AI", json!({ "title": "Repaired" }));

    page.undo(&[&repaired]);

    assert_eq!(page.value("title"), Some(&json!("")));
}

#[test]
fn a_document_that_would_be_too_large_does_not_come_back() {
    let mut page = Page::project();
    let long = "x".repeat(200_000);
    page.update("Marie", json!({ "challenge": long }));
    let shorter = page.update("AI", json!({ "challenge": "short" }));
    page.update("Marie", json!({ "solution": { "description": long } }));

    let undo = page.plan(&[&shorter], Creations::Keep);

    let refused = page.try_revert(&undo).unwrap_err();
    assert_eq!(refused[0].rule, "size");
}

#[test]
fn a_deletion_is_undone() {
    let mut page = Page::project();
    let title = page.update("AI", json!({ "title": "By the AI" }));
    let before = page.document().cloned();
    let deleted = page.delete("AI");

    assert!(page.plan(&[&title], Creations::Undo).document.is_none());
    assert_eq!(
        page.plan(&[&title], Creations::Undo).kept[0]
            .audit_id
            .as_ref(),
        Some(&deleted)
    );
    let (undo, id) = page.undo(&[&deleted]);

    assert_eq!(
        without_times(page.document()),
        without_times(before.as_ref())
    );
    assert_eq!(undo.counts, counts(before.unwrap().len(), 0, 0));
    page.undo(&[id.as_deref().unwrap()]);
    assert!(page.document().is_none());
    page.undo(&[&deleted, &title]);
    assert_eq!(page.value("title"), Some(&json!("The case of page")));
}

#[test]
fn undoing_a_creation_deletes_only_where_that_is_wanted() {
    let mut page = Page::project();
    page.delete("Marie");
    let created = page.put("AI", &project("page"));
    let title = page.update("AI", json!({ "title": "By the AI" }));

    let kept = page.plan(&[&created, &title], Creations::Keep);
    assert_eq!(kept.document.as_ref().unwrap()["title"], "The case of page");
    assert!(kept.kept[0].is_creation);
    assert_eq!(kept.kept[0].audit_id.as_ref(), Some(&created));
    assert_eq!(kept.counts, counts(1, 1, 0));

    page.undo(&[&created, &title]);
    assert!(page.document().is_none());
}

#[test]
fn a_creation_stays_while_later_changes_by_others_do() {
    let mut page = Page::project();
    page.delete("Marie");
    let created = page.put("AI", &project("page"));
    let title = page.update("Marie", json!({ "title": "By Marie" }));

    let (undo, id) = page.undo(&[&created]);

    assert_eq!(id, None);
    assert_eq!(undo.kept[0].audit_id, Some(title));
    assert!(!undo.kept[0].is_creation);
}

#[test]
fn an_import_over_a_document_is_undone_field_by_field() {
    let mut page = Page::project();
    let before = without_times(page.document());
    let imported = page.put(
        "import",
        &with(
            &project("page"),
            json!({ "title": "Imported", "extra": { "a.b": 1 } }),
        ),
    );

    page.undo(&[&imported]);

    assert_eq!(without_times(page.document()), before);
}

#[test]
fn entries_that_do_not_join_up_are_never_undone() {
    let mut page = page("one");
    let before = page.update("AI", json!({ "result": "two" }));
    page.change_outside(with(
        page.document().unwrap(),
        json!({ "title": "From outside" }),
    ));
    let after = page.update("AI", json!({ "challenge": "New" }));
    let older = json!({ "id": "old-1", "action": "update", "entityType": "project", "entityId": "page",
        "changes": [{ "field": "resource_data", "oldValue": "previous_state", "newValue": "x" }] });
    page.log.insert(1, StoredEntry::parse(older.to_string()));

    let undo = page.plan(&[&before, &after, "old-1"], Creations::Undo);

    assert_eq!(undo.document.as_ref().unwrap()["result"], "two");
    assert_eq!(
        undo.document.as_ref().unwrap()["challenge"],
        "Nobody found them"
    );
    assert_eq!(undo.reverts, [after]);
    assert_eq!(undo.counts, counts(1, 0, 0));
}

#[test]
fn an_undo_that_another_log_explains_is_a_change_like_any_other() {
    let mut page = page("one");
    let change = page.update("AI", json!({ "result": "two" }));
    let (_, undo) = page.undo(&[&change]);
    // As if the undone entry were beyond what was read.
    page.log.truncate(1);

    let plan = page.plan(&[undo.as_deref().unwrap()], Creations::Keep);

    assert_eq!(plan.document.unwrap()["result"], "two");
}

#[test]
fn a_log_that_does_not_fit_the_document_explains_nothing() {
    let mut page = page("one");
    let change = page.update("AI", json!({ "result": "two" }));
    let forged = page.log[0].text().replace("\"two\"", "\"forged\"");
    page.log[0] = StoredEntry::parse(forged);

    let undo = page.plan(&[&change], Creations::Undo);

    assert_eq!(undo.document.as_ref(), page.document());
    assert_eq!(undo.counts, counts(0, 0, 0));
    assert!(Timeline::of(None, &page.log).entry(&change).is_none());
}

#[test]
fn an_entry_that_records_what_was_found_explains_nothing_before_it() {
    let found = object(json!({ "id": "page", "result": "found" }));
    let mut page = Page::of(found.clone());
    let version = Page::version_of(&found);
    let adopted = json!({ "id": "adopted", "action": "adopt", "entityType": "project", "entityId": "page",
        "changes": [{ "field": "", "newValue": found }],
        "metadata": { "versionBefore": version, "versionAfter": version } });
    page.log.push(StoredEntry::parse(adopted.to_string()));
    let change = page.update("AI", json!({ "result": "new" }));

    let undo = page.plan(&["adopted", &change], Creations::Undo);

    assert_eq!(undo.document.unwrap()["result"], Value::from("found"));
    assert_eq!(undo.reverts, [change]);
}

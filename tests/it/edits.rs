//! Edits of parts: each operation through the protocol, on every store, and what an answer offers to
//! take a change back.

use serde_json::{Value, json};

use crate::support::{
    fixtures::{self, create, project_key, with},
    program::{Home, PROGRAM},
    stdio::StdioClient,
    stores::{Store, on_each_store},
};

/// As a French writer's program stores it.
const FRENCH: &str = "Avant\u{a0}: l’agence perdait 2\u{202f}400\u{a0}€ par mois. «\u{a0}On n’y croyait plus\u{a0}», dit-elle\u{202f}! Aujourd’hui, l’équipe gère 38\u{a0}entreprises et répond en 5\u{202f}minutes à chaque appel d’un client, jour et nuit, sans une seule erreur depuis le mois de mars.";

/// A project whose lists and texts are worth editing, and a client.
async fn client_of(store: &Store) -> StdioClient {
    let document = with(
        &fixtures::project("a"),
        json!({
            "tags": ["web", "sms", "web"],
            "challenge": FRENCH,
            "solution": { "features": ["Agenda", "Rappels"] },
            "results": ["+40\u{a0}% de réservations", "2 h gagnées"],
        }),
    );
    create(&*store.repository, &project_key("a"), document).await;
    StdioClient::in_process(store.open(), None)
}

fn update(edits: &Value) -> Value {
    json!({ "id": "a", "edits": edits, "detail": "full" })
}

fn find(path: &str, value: &str, with: &str) -> Value {
    json!({ "path": path, "op": "find", "value": value, "with": with })
}

fn paths(error: &Value) -> Vec<&str> {
    let violations = error["details"]["violations"].as_array().unwrap();
    violations
        .iter()
        .map(|violation| violation["path"].as_str().unwrap())
        .collect()
}

/// A number with its digits.
fn as_written(number: &str) -> Value {
    serde_json::from_str(number).unwrap()
}

async fn document(client: &StdioClient) -> Value {
    client.call("get_project", json!({ "id": "a" })).await["data"].clone()
}

#[tokio::test]
async fn every_operation_works_after_data_and_in_order() {
    on_each_store(async |store| {
        let client = client_of(store).await;
        let mut arguments = update(&json!([
            { "path": "tags", "op": "append", "value": "new" },
            { "path": "tags", "op": "remove", "value": "web", "at": 2 },
            { "path": "tags", "op": "prepend", "value": "first" },
            { "path": "solution.features", "op": "insert", "value": "Paiement", "at": 1 },
            { "path": "results", "op": "replace", "value": "2 h gagnées", "with": "3 h gagnées" },
            { "path": "results", "op": "find", "value": "+40 %", "with": "+45\u{a0}%" },
            { "path": "title", "op": "find", "value": "old", "with": "new" },
        ]));
        arguments["data"] = json!({ "title": "An old title", "solution": { "tools": ["x"] } });

        let mut preview = arguments.clone();
        preview["dryRun"] = json!(true);
        let before = document(&client).await;
        let shown = client.call("update_project", preview).await;
        assert_eq!(document(&client).await, before);
        let updated = client.call("update_project", arguments).await;

        let data = &updated["data"];
        assert_eq!(data["tags"], json!(["first", "web", "sms", "new"]));
        assert_eq!(
            data["solution"]["features"],
            json!(["Agenda", "Paiement", "Rappels"])
        );
        assert_eq!(data["solution"]["tools"], json!(["x"]));
        assert_eq!(
            data["results"],
            json!(["+45\u{a0}% de réservations", "3 h gagnées"])
        );
        assert_eq!(data["title"], "An new title");
        assert_eq!(document(&client).await, *data);
        let fields = |answer: &Value| -> Vec<Value> {
            let changes = answer["meta"]["changes"].as_array().unwrap();
            changes
                .iter()
                .map(|change| change["field"].clone())
                .collect()
        };
        assert_eq!(fields(&shown), fields(&updated));
        assert_eq!(shown["meta"]["dryRun"], true);
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn a_french_text_is_found_by_its_plain_spelling() {
    on_each_store(async |store| {
        let client = client_of(store).await;

        for (value, found, with) in [
            (
                "l'équipe gère 38 entreprises",
                "l’équipe gère 38\u{a0}entreprises",
                "l’équipe en gère 40",
            ),
            (
                "perdait 2 400 €",
                "perdait 2\u{202f}400\u{a0}€",
                "perdait 2\u{202f}900\u{a0}€",
            ),
            (
                "\" On n'y croyait plus \"",
                "«\u{a0}On n’y croyait plus\u{a0}»",
                "“Non”",
            ),
        ] {
            let before = document(&client).await;
            let before = before["challenge"].as_str().unwrap();

            let updated = client
                .call(
                    "update_project",
                    update(&json!([find("challenge", value, with)])),
                )
                .await;

            assert_eq!(
                updated["data"]["challenge"],
                before.replacen(found, with, 1),
                "{value}"
            );
        }
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn all_wrong_edits_are_reported_and_nothing_is_written() {
    on_each_store(async |store| {
        let client = client_of(store).await;
        let before = document(&client).await;
        let mut arguments = update(&json!([
            find("challenge", "l'équipe gère 39 entreprises", "x"),
            { "path": "tags", "op": "remove", "value": "web" },
            { "path": "tags", "op": "append", "value": "ok" },
            { "path": "tagz", "op": "append", "value": "x" },
            { "path": "metadata.createdAt", "op": "find", "value": "2", "with": "3" },
            { "path": "solution.screenshots", "op": "append", "value": "javascript:alert(1)" },
        ]));
        arguments["data"] = json!({ "titel": "x" });

        let error = client.call_error("update_project", arguments).await;

        assert_eq!(error["code"], "VALIDATION_FAILED");
        assert_eq!(
            paths(&error),
            [
                "titel",
                "edits[0].value",
                "edits[1].value",
                "edits[3].path",
                "edits[4].path",
                "solution.screenshots[1]"
            ]
        );
        let message = error["message"].as_str().unwrap();
        for says in [
            "it does not occur; the nearest place is",
            "gère 38\u{a0}entreprises",
            "at 0, 2",
            "did you mean `tags`?",
            "set by the server",
        ] {
            assert!(message.contains(says), "{says}: {message}");
        }
        assert_eq!(document(&client).await, before);
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn an_edit_makes_no_invalid_link_of_another() {
    on_each_store(async |store| {
        let document = with(
            &fixtures::project("a"),
            json!({
                "image": "ftp://example.com/a.png",
                "solution": { "screenshots": ["ftp://example.com/b.png"] },
                "testimonial": { "avatar": "www.example.com/c.png" },
            }),
        );
        create(&*store.repository, &project_key("a"), document).await;
        let client = StdioClient::in_process(store.open(), None);
        let before = self::document(&client).await;
        for (edit, path) in [
            (
                find("image", "ftp://example.com/a.png", "javascript:alert(1)"),
                "image",
            ),
            (find("image", "ftp", "javascript"), "image"),
            (
                find("solution.screenshots[0]", "ftp:", "data:"),
                "solution.screenshots[0]",
            ),
            (
                find("testimonial.avatar", "www.", "javascript:"),
                "testimonial.avatar",
            ),
        ] {
            let error = client
                .call_error("update_project", update(&json!([edit])))
                .await;

            assert_eq!(error["code"], "VALIDATION_FAILED", "{edit}: {error}");
            assert_eq!(paths(&error), [path], "{edit}");
        }
        assert_eq!(self::document(&client).await, before);

        let repair = json!([find("image", "ftp:", "https:")]);
        let repaired = client.call("update_project", update(&repair)).await;
        assert_eq!(repaired["data"]["image"], "https://example.com/a.png");
        let other = json!([find("title", "The case", "The story")]);
        let other = client.call("update_project", update(&other)).await;
        assert_eq!(
            other["success"], true,
            "other fields can be edited: {other}"
        );
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn versions_and_keys_hold_for_edits() {
    on_each_store(async |store| {
        let client = client_of(store).await;
        let read = client.call("get_project", json!({ "id": "a" })).await;
        let append = |value: &str| json!([{ "path": "tags", "op": "append", "value": value }]);
        let mut keyed = update(&append("x"));
        keyed["idempotencyKey"] = json!("k");
        keyed["expectedVersion"] = read["meta"]["version"].clone();

        let first = client.call("update_project", keyed.clone()).await;
        let mut as_text = keyed.clone();
        as_text["edits"] = json!(append("x").to_string());
        let again = client.call("update_project", as_text).await;
        // What breaks a rule now may have been valid then.
        let mut invalid = keyed.clone();
        invalid["detail"] = json!("everything");
        let invalid = client.call("update_project", invalid).await;
        let mut other = keyed.clone();
        other["edits"] = append("y");
        let other = client.call_error("update_project", other).await;
        let mut stale = update(&append("z"));
        stale["expectedVersion"] = read["meta"]["version"].clone();
        let stale = client.call_error("update_project", stale).await;

        assert_eq!(first["data"]["tags"], json!(["web", "sms", "web", "x"]));
        for replayed in [again, invalid] {
            assert_eq!(replayed["meta"]["replayed"], true, "{replayed}");
            assert_eq!(replayed["meta"]["auditId"], first["meta"]["auditId"]);
        }
        assert_eq!(other["code"], "IDEMPOTENCY_MISMATCH");
        assert_eq!(stale["code"], "VERSION_CONFLICT");
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn edits_need_a_version_where_it_is_required() {
    on_each_store(async |store| {
        create(
            &*store.repository,
            &project_key("a"),
            fixtures::project("a"),
        )
        .await;
        let home = Home::new();
        let mut command = home.command(PROGRAM);
        command
            .arg("stdio")
            .args(store.arguments())
            .arg("--require-version");
        let client = StdioClient::spawn(home.into(), command);
        client.initialize("it", "1").await;
        let read = client.call("get_project", json!({ "id": "a" })).await;
        let mut edit = update(&json!([{ "path": "tags", "op": "append", "value": "new" }]));

        let refused = client.call_error("update_project", edit.clone()).await;
        edit["expectedVersion"] = read["meta"]["version"].clone();
        let updated = client.call("update_project", edit.clone()).await;
        let stale = client.call_error("update_project", edit).await;

        assert_eq!(refused["code"], "VALIDATION_FAILED");
        assert_eq!(paths(&refused), ["expectedVersion"]);
        let tags = updated["data"]["tags"].as_array().unwrap();
        assert_eq!(tags.iter().filter(|tag| **tag == "new").count(), 1);
        assert_eq!(stale["code"], "VERSION_CONFLICT");
        assert_eq!(document(&client).await["tags"], updated["data"]["tags"]);
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn edits_arrive_in_the_forms_that_clients_send() {
    let store = Store::sqlite();
    let client = client_of(&store).await;
    let append = json!({ "path": "tags", "op": "append", "value": "x" });
    let filled = json!({ "path": "tags", "op": "insert", "value": "y", "with": null, "at": 1.0 });
    let empty = json!({ "path": "tags", "op": "remove", "value": "y", "with": "", "at": "" });

    for edits in [
        json!([append, filled, empty]),
        json!([append.to_string(), filled.to_string(), empty]),
        json!(json!([append, filled, empty]).to_string()),
    ] {
        let mut arguments = update(&edits);
        arguments["data"] = Value::Null;
        arguments["dryRun"] = json!(true);
        let updated = client.call("update_project", arguments).await;

        assert_eq!(
            updated["data"]["tags"],
            json!(["web", "sms", "web", "x"]),
            "{updated}"
        );
    }
    let data = json!({ "id": "a", "data": { "title": "New" }, "edits": null, "dryRun": true });
    assert_eq!(client.call("update_project", data).await["success"], true);
    store.assert_sound().await;
}

#[tokio::test]
async fn edits_that_cannot_be_read_are_named() {
    let store = Store::sqlite();
    let client = client_of(&store).await;

    for (edits, path, says) in [
        (Value::Null, "data", "`edits`"),
        (json!({}), "edits", "expected an array"),
        (json!("tags"), "edits", "expected an array"),
        (json!(["tags"]), "edits[0]", "expected an object"),
        (
            json!([{ "path": "tags", "op": "add", "value": "x" }]),
            "edits[0].op",
            "`append`",
        ),
        (
            json!([{ "path": "tags", "op": "append" }]),
            "edits[0].value",
            "missing",
        ),
        (
            json!([{ "op": "append", "value": "x" }]),
            "edits[0].path",
            "missing",
        ),
        (
            json!([{ "paths": "tags", "path": "tags", "op": "append", "value": "x" }]),
            "edits[0].paths",
            "did you mean `path`?",
        ),
        (
            json!([{ "path": "tags", "op": "insert", "value": "x", "at": -1 }]),
            "edits[0].at",
            "0 or more",
        ),
        (
            json!([{ "path": "tags", "op": "insert", "value": "x", "at": "1" }]),
            "edits[0].at",
            "expected an integer",
        ),
        (
            json!(vec![
                json!({ "path": "results", "op": "append", "value": "x" });
                51
            ]),
            "edits",
            "at most 50",
        ),
        (
            json!([{ "path": "tags", "op": "append", "value": "x".repeat(262_144) }]),
            "edits",
            "262144 bytes",
        ),
    ] {
        let error = client
            .call_error("update_project", json!({ "id": "a", "edits": edits }))
            .await;

        assert_eq!(error["code"], "VALIDATION_FAILED");
        assert_eq!(paths(&error), [path], "{error}");
        assert!(error["message"].as_str().unwrap().contains(says), "{error}");
    }
    store.assert_sound().await;
}

#[tokio::test]
async fn edits_that_change_nothing_write_nothing() {
    let store = Store::sqlite();
    let client = client_of(&store).await;
    let before = client.call("get_audit_stats", json!({})).await["data"].clone();

    let none = client.call("update_project", update(&json!([]))).await;
    let same = client
        .call(
            "update_project",
            update(&json!([
                { "path": "tags", "op": "append", "value": "x" },
                { "path": "tags", "op": "remove", "value": "x" },
            ])),
        )
        .await;

    for answer in [&none, &same] {
        assert_eq!(answer["meta"]["changes"], json!([]), "{answer}");
        assert_eq!(answer["meta"].get("auditId"), None);
    }
    assert!(
        none["meta"]["warnings"][0]
            .as_str()
            .unwrap()
            .contains("`edits`")
    );
    assert_eq!(same["meta"].get("warnings"), None);
    assert_eq!(
        client.call("get_audit_stats", json!({})).await["data"],
        before
    );
    store.assert_sound().await;
}

/// What is in a list already is not the fault of an edit, wherever it moves to.
#[tokio::test]
async fn an_edit_is_refused_only_for_violations_that_were_not_there() {
    on_each_store(async |store| {
        let many: Vec<String> = (0..12).map(|number| format!("tag {number}")).collect();
        let legacy = with(
            &fixtures::project("a"),
            json!({
                "tags": many,
                "title": "",
                "description": "long ".repeat(250),
                "results": ["a", as_written("1.10"), "", as_written("1.10")],
                "solution": { "screenshots": ["/a.png", "b.png", "c.png"] },
            }),
        );
        create(&*store.repository, &project_key("a"), legacy).await;
        let client = StdioClient::in_process(store.open(), None);

        let updated = client
            .call(
                "update_project",
                update(&json!([
                    { "path": "tags", "op": "remove", "value": "tag 3" },
                    { "path": "description", "op": "find", "value": "long ".repeat(250), "with": "longer ".repeat(250) },
                    { "path": "results", "op": "remove", "value": "a" },
                    { "path": "results", "op": "prepend", "value": "b" },
                    { "path": "results", "op": "prepend", "value": "c" },
                    { "path": "results", "op": "remove", "value": 1.1, "at": 2 },
                    { "path": "solution.screenshots", "op": "remove", "value": "/a.png" },
                ])),
            )
            .await;
        let refused = client
            .call_error(
                "update_project",
                update(&json!([
                    { "path": "solution.screenshots", "op": "prepend", "value": "b.png" },
                    { "path": "results", "op": "append", "value": 1.1 },
                ])),
            )
            .await;

        assert_eq!(updated["success"], true, "{updated}");
        assert_eq!(updated["data"]["results"].to_string(), r#"["c","b","",1.10]"#);
        assert_eq!(paths(&refused), ["solution.screenshots[1]", "results[4]"]);
        store.assert_sound().await;
    })
    .await;
}

/// Equal numbers are no change, so the document keeps the form that they have.
#[tokio::test]
async fn a_number_that_is_written_in_another_way_stays_as_it_is_stored() {
    let store = Store::sqlite();
    let legacy = with(
        &fixtures::project("a"),
        json!({ "results": [as_written("1.10"), "x"] }),
    );
    create(&*store.repository, &project_key("a"), legacy).await;
    let client = StdioClient::in_process(store.open(), None);
    let mut arguments = update(&json!([
        { "path": "results", "op": "replace", "value": 1.1, "with": as_written("1.100") },
        { "path": "results", "op": "find", "value": "x", "with": "x" },
    ]));
    arguments["data"] = json!({ "title": "New" });

    let updated = client.call("update_project", arguments).await;

    assert_eq!(updated["data"]["results"].to_string(), r#"[1.10,"x"]"#);
    store.assert_sound().await;
}

#[tokio::test]
async fn what_an_answer_offers_takes_the_change_back() {
    on_each_store(async |store| {
        let client = client_of(store).await;
        let edits = json!([find(
            "challenge",
            "Aujourd'hui, l'équipe",
            "Désormais,\u{a0}l’équipe"
        )]);

        let updated = client.call("update_project", update(&edits)).await;
        let log = client.call("get_audit_log", json!({ "limit": 1 })).await;

        let change = &updated["meta"]["changes"][0];
        assert_eq!(change["field"], "challenge");
        assert_eq!(log["data"][0]["changes"][0], *change);
        let undo = &change["undoEdit"];
        assert_eq!(undo["op"], "find");
        assert_eq!(undo["with"], "Aujourd’hui, ");
        assert_eq!(undo["value"], "Désormais,\u{a0}");
        let restored = client.call("update_project", update(&json!([undo]))).await;
        assert_eq!(restored["data"]["challenge"], FRENCH);
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test]
async fn a_change_in_many_places_or_of_a_field_that_is_not_edited_offers_no_edit() {
    let store = Store::sqlite();
    let long = "a b ".repeat(100);
    let legacy = with(&fixtures::project("a"), json!({ "legacy": long }));
    create(&*store.repository, &project_key("a"), legacy).await;
    let client = StdioClient::in_process(store.open(), None);
    let mut foreign = fixtures::project("a");
    foreign.insert("legacy".to_owned(), json!(format!("{long}!")));
    let current = store
        .repository
        .get_for_update(&project_key("a"))
        .await
        .unwrap();
    let operation = fixtures::once();
    let context = fixtures::write_context(&operation);
    let change = portfolio_mcp::domain::Change::put(&current, &foreign, context).unwrap();
    store
        .repository
        .commit(&[change], &operation)
        .await
        .unwrap();

    let data = json!({ "challenge": "c d ".repeat(100), "description": "short" });
    let rewritten = client
        .call("update_project", json!({ "id": "a", "data": data }))
        .await;
    let entries = client
        .call("get_audit_log", json!({ "field": "legacy", "limit": 1 }))
        .await;

    for change in rewritten["meta"]["changes"].as_array().unwrap() {
        assert_eq!(change.get("undoEdit"), None, "{change}");
    }
    let legacy = &entries["data"][0]["changes"][0];
    assert_eq!(legacy["newValue"]["characters"], 401, "{legacy}");
    store.assert_sound().await;
}

/// An edit says what to change, so one that lost a race is applied to the new document.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn edits_of_many_writers_all_arrive() {
    on_each_store(async |store| {
        let one = client_of(store).await;
        let other = StdioClient::in_process(store.open(), None);
        let append = async |client: &StdioClient, name: &str| {
            for number in 0..20 {
                let value = format!("{name} {number}");
                let edits = json!([{ "path": "results", "op": "append", "value": value }]);
                let updated = client.call("update_project", update(&edits)).await;
                assert_eq!(updated["success"], true, "{updated}");
            }
        };

        tokio::join!(append(&one, "one"), append(&other, "other"));

        let results = document(&one).await["results"].clone();
        for name in ["one", "other"] {
            for number in 0..20 {
                let value = json!(format!("{name} {number}"));
                let found = results
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter(|it| **it == value);
                assert_eq!(found.count(), 1, "{value}");
            }
        }
        store.assert_sound().await;
    })
    .await;
}

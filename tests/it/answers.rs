//! How large answers are, and what a list and an update answer with.

use portfolio_mcp::domain::{DocumentKey, Kind};
use redis::cmd;
use serde_json::{Value, json};

use crate::support::{
    fixtures::{self, create, project_key},
    messages::tool_output,
    stdio::StdioClient,
    stores::{Store, on_each_store},
};

/// CONTRACT.md, section 2.
const MAX_BYTES: usize = 32_000;

fn client_of(store: &Store) -> StdioClient {
    StdioClient::in_process(store.open(), None)
}

/// The text block of an answer as it is sent, and the answer.
async fn text_of(client: &StdioClient, tool: &str, arguments: Value) -> (String, Value) {
    let params = json!({ "name": tool, "arguments": arguments });
    let result = client.result("tools/call", params).await;
    let text = result["content"][0]["text"].as_str().unwrap().to_owned();
    (text, tool_output(&result))
}

/// All pages of a list, each within the limit.
async fn pages(client: &StdioClient, tool: &str, mut arguments: Value) -> Vec<Value> {
    let mut pages = Vec::new();
    loop {
        let (text, page) = text_of(client, tool, arguments.clone()).await;
        assert!(text.len() <= MAX_BYTES, "{} bytes", text.len());
        let cursor = page["meta"]["nextCursor"].clone();
        pages.push(page);
        if cursor.is_null() {
            return pages;
        }
        arguments["cursor"] = cursor;
    }
}

fn rows(pages: &[Value]) -> Vec<&Value> {
    let rows = pages
        .iter()
        .flat_map(|page| page["data"].as_array().unwrap());
    rows.collect()
}

/// Texts whose length is the same as characters, and six times as much as it is sent.
fn wide(characters: usize) -> String {
    "\u{a0}".repeat(characters)
}

#[tokio::test]
async fn a_list_is_pages_that_fit_and_every_document_is_on_one() {
    on_each_store(async |store| {
        for number in 0..110 {
            let key = project_key(&format!("number-{number}"));
            let patch = json!({
                "title": wide(200),
                "result": wide(250),
                "challenge": "word ".repeat(number * 10),
            });
            let document = fixtures::with(&fixtures::project(&key.id), patch);
            create(&*store.repository, &key, document).await;
        }
        let client = client_of(store);

        for detail in ["summary", "full"] {
            let pages = pages(
                &client,
                "list_projects",
                json!({ "detail": detail, "limit": 100 }),
            )
            .await;

            let mut ids: Vec<&str> = rows(&pages)
                .iter()
                .map(|row| row["id"].as_str().unwrap())
                .collect();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(rows(&pages).len(), 110, "{store}");
            assert_eq!(ids.len(), 110, "{store}");
            assert!(pages.iter().all(|page| page["meta"]["total"] == 110));
            // A page is not shorter than it has to be.
            let sent = |json: String| json.len() + json.matches('\u{a0}').count() * 4;
            let (first, next) = (pages[0].to_string(), pages[1]["data"][0].to_string());
            assert!(sent(first) + sent(next) > MAX_BYTES - 2000, "{store}");
        }
    })
    .await;
}

#[tokio::test]
async fn whole_documents_have_their_versions_in_meta() {
    let store = Store::sqlite();
    for id in ["a", "b"] {
        create(&*store.repository, &project_key(id), fixtures::project(id)).await;
    }
    let client = client_of(&store);

    let full = client
        .call("list_projects", json!({ "detail": "full" }))
        .await;
    let summary = client.call("list_projects", json!({})).await;

    for row in summary["data"].as_array().unwrap() {
        let id = row["id"].as_str().unwrap();
        assert_eq!(full["meta"]["versions"][id], row["version"]);
    }
    assert_eq!(full["data"][0].get("version"), None);
    assert_eq!(summary["meta"].get("versions"), None);
}

#[tokio::test]
async fn a_document_larger_than_an_answer_is_a_page_of_its_own() {
    let store = Store::sqlite();
    for id in ["a", "b", "c"] {
        let mut document = fixtures::project(id);
        if id == "b" {
            document.insert("challenge".to_owned(), json!("x".repeat(40_000)));
        }
        create(&*store.repository, &project_key(id), document).await;
    }
    let client = client_of(&store);

    let (mut found, mut cursor) = (Vec::new(), Value::Null);
    for _ in 0..3 {
        let arguments = json!({ "detail": "full", "cursor": cursor });
        let page = client.call("list_projects", arguments).await;
        found.push(page["data"].as_array().unwrap().clone());
        cursor = page["meta"]["nextCursor"].clone();
    }

    assert_eq!(cursor, Value::Null);
    assert!(found.iter().all(|page| page.len() == 1));
    assert_eq!(found[1][0]["challenge"].as_str().unwrap().len(), 40_000);
}

#[tokio::test]
async fn a_list_with_many_unreadable_documents_fits() {
    let store = Store::redis();
    create(
        &*store.repository,
        &project_key("sound"),
        fixtures::project("sound"),
    )
    .await;
    for number in 0..100 {
        let id = format!("{}{number}", "\u{a0}".repeat(70));
        store
            .server()
            .run::<()>(cmd("SET").arg(format!("data:projects:{id}")).arg("{"));
        store
            .server()
            .run::<()>(cmd("SADD").arg("index:all:projects").arg(&id));
    }
    let client = client_of(&store);

    for detail in ["summary", "full"] {
        let arguments = json!({ "detail": detail, "limit": 100 });
        let (text, page) = text_of(&client, "list_projects", arguments).await;

        assert!(text.len() <= MAX_BYTES, "{} bytes", text.len());
        assert_eq!(page["data"][0]["id"], "sound");
        let warnings = page["meta"]["warnings"].as_array().unwrap();
        let more = warnings.last().unwrap().as_str().unwrap();
        assert_eq!(more, format!("and {} more", 101 - warnings.len()));
    }
}

#[tokio::test]
async fn a_list_of_many_invalid_documents_fits() {
    let store = Store::sqlite();
    for number in 0..100 {
        let key = project_key(&format!("invalid-{number}"));
        let bad = json!({ "title": wide(300), "tags": [5], "image": wide(90), "client": wide(250), "result": 5 });
        let document = fixtures::with(&fixtures::project(&key.id), bad);
        create(&*store.repository, &key, document).await;
    }
    let client = client_of(&store);

    let pages = pages(&client, "list_projects", json!({ "limit": 100 })).await;

    assert_eq!(rows(&pages).len(), 100);
}

#[tokio::test]
async fn a_summary_row_has_what_is_needed_to_choose_a_document() {
    let store = Store::sqlite();
    let (project, resource) = (project_key("p"), DocumentKey::new(Kind::Resource, "r"));
    let long = json!({ "result": "é".repeat(201) });
    let document = fixtures::with(&fixtures::project("p"), long);
    create(&*store.repository, &project, document).await;
    let counted = json!({ "metadata": { "downloadCount": 7 } });
    let document = fixtures::with(&fixtures::resource("r"), counted);
    create(&*store.repository, &resource, document).await;
    let client = client_of(&store);

    let projects = client.call("list_projects", json!({})).await;
    let resources = client.call("list_resources", json!({})).await;

    let names = |page: &Value| -> Vec<String> {
        page["data"][0]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect()
    };
    let common = [
        "id",
        "title",
        "status",
        "featured",
        "tags",
        "updatedAt",
        "version",
    ];
    assert_eq!(names(&projects), [&common[..], &["result"]].concat());
    assert_eq!(
        names(&resources),
        [&common[..], &["price", "downloadCount"]].concat()
    );
    assert_eq!(
        projects["data"][0]["result"],
        json!({ "excerpt": "é".repeat(200), "characters": 201 })
    );
    assert_eq!(resources["data"][0]["downloadCount"], 7);
}

#[tokio::test]
async fn an_update_answers_with_its_changes_and_the_summary_row() {
    let store = Store::sqlite();
    create(
        &*store.repository,
        &project_key("a"),
        fixtures::project("a"),
    )
    .await;
    let client = client_of(&store);
    let data = json!({ "challenge": "é".repeat(201) });
    let with = |more: Value| {
        let mut arguments = json!({ "id": "a", "data": data });
        let members = arguments.as_object_mut().unwrap();
        members.extend(more.as_object().unwrap().clone());
        arguments
    };

    let (text, dry) = text_of(&client, "update_project", with(json!({ "dryRun": true }))).await;
    let before = client.call("list_projects", json!({})).await;
    let key = json!({ "idempotencyKey": "k" });
    let done = client.call("update_project", with(key.clone())).await;
    let replayed = client.call("update_project", with(key)).await;
    let unchanged = client.call("update_project", with(json!({}))).await;
    let full = client
        .call("update_project", with(json!({ "detail": "full" })))
        .await;

    assert!(text.contains(r#""meta":{"dryRun":true,"#), "{text}");
    assert_eq!(dry["data"]["version"], before["data"][0]["version"]);
    let after = client.call("list_projects", json!({})).await;
    for answer in [&done, &replayed, &unchanged] {
        assert_eq!(answer["data"], after["data"][0]);
    }
    for answer in [&dry, &done, &replayed] {
        let change = &answer["meta"]["changes"][0];
        assert_eq!(change["field"], "challenge");
        assert_eq!(change["oldValue"], "Nobody found them");
        assert_eq!(change["newValue"]["characters"], 201);
    }
    assert_eq!(replayed["meta"]["replayed"], true);
    assert_eq!(unchanged["meta"]["changes"], json!([]));
    let whole = client.call("get_project", json!({ "id": "a" })).await;
    assert_eq!(full["data"], whole["data"]);
}

#[tokio::test]
async fn a_repeated_request_may_ask_for_another_detail() {
    let store = Store::sqlite();
    create(
        &*store.repository,
        &project_key("a"),
        fixtures::project("a"),
    )
    .await;
    let client = client_of(&store);
    let arguments = json!({ "id": "a", "data": { "title": "New" }, "idempotencyKey": "k" });
    client.call("update_project", arguments.clone()).await;

    let mut full = arguments.clone();
    full["detail"] = json!("full");
    let replayed = client.call("update_project", full.clone()).await;
    // Arguments of which one breaks a rule are compared too.
    full["reason"] = json!(5);
    let invalid = client.call("update_project", full).await;

    for answer in [replayed, invalid] {
        assert_eq!(answer["meta"]["replayed"], true);
        assert_eq!(answer["data"]["client"]["size"], "3 people");
    }
}

#[tokio::test]
async fn warnings_and_changes_fit_beside_a_document() {
    let store = Store::sqlite();
    let client = client_of(&store);
    for bytes in [20_000, 27_000, 29_500, 30_400] {
        let (id, tag) = (format!("of-{bytes}"), format!("{}é", "long".repeat(20)));
        let mut document = fixtures::project(&id);
        document.insert("tags".to_owned(), json!(vec![""; 30]));
        document.insert(
            "solution".to_owned(),
            json!({ (tag): 1, "videoUrl": "ftp://x" }),
        );
        document.extend(["title", "result"].map(|name| (name.to_owned(), json!(wide(190)))));
        let sent = json!(document).to_string().replace('\u{a0}', "\\u00a0");
        let rest = bytes - sent.len() - r#","legacy":"""#.len();
        document.insert("legacy".to_owned(), json!("x".repeat(rest)));
        create(&*store.repository, &project_key(&id), document).await;

        let (get, other) = (json!({ "id": id }), "\u{202f}".repeat(190));
        let update = json!({ "id": id, "data": { "title": other, "result": other }, "dryRun": true, "detail": "full" });
        for (tool, arguments) in [("get_project", get), ("update_project", update)] {
            let (text, answer) = text_of(&client, tool, arguments).await;

            assert!(text.len() <= MAX_BYTES, "{tool}, {bytes}: {}", text.len());
            let warnings = answer["meta"]["warnings"].as_array().unwrap();
            assert!(!warnings.is_empty(), "{tool}, {bytes}");
        }
    }
    store.assert_sound().await;
}

#[tokio::test]
async fn an_update_lists_the_changes_that_fit_and_counts_the_rest() {
    let store = Store::sqlite();
    create(
        &*store.repository,
        &project_key("a"),
        fixtures::project("a"),
    )
    .await;
    let client = client_of(&store);
    let texts = |text: &str| {
        json!({
            "title": text, "result": text, "challenge": text, "description": text, "tags": [text],
            "client": { "type": text, "size": text, "objective": text },
            "solution": { "description": text, "tools": [text], "features": [text] },
            "testimonial": { "text": text, "author": text },
            "results": [text],
            "insight": { "title": text, "text": text, "resourceLink": { "text": text, "url": "/a" } },
        })
    };
    let first = json!({ "id": "a", "data": texts(&wide(190)) });
    client.call("update_project", first).await;

    for detail in ["summary", "full"] {
        let arguments = json!({ "id": "a", "data": texts(&format!("{}{detail}", wide(190))), "detail": detail });
        let (text, answer) = text_of(&client, "update_project", arguments).await;

        assert!(text.len() <= MAX_BYTES, "{} bytes", text.len());
        let listed = answer["meta"]["changes"].as_array().unwrap().len();
        let more = answer["meta"]["more"].as_u64().unwrap();
        assert!(listed > 0);
        assert_eq!(listed as u64 + more, 18);
    }
    store.assert_sound().await;
}

#[tokio::test]
async fn an_error_with_many_long_violations_fits() {
    let store = Store::sqlite();
    create(
        &*store.repository,
        &project_key("a"),
        fixtures::project("a"),
    )
    .await;
    let client = client_of(&store);
    let unknown = (0..60).map(|number| (format!("{number}{}", wide(75)), json!(1)));
    let data = Value::Object(unknown.collect());

    let arguments = json!({ "id": "a", "data": data });
    let (text, answer) = text_of(&client, "update_project", arguments).await;

    assert!(text.len() <= MAX_BYTES, "{} bytes", text.len());
    let details = &answer["error"]["details"];
    let listed = details["violations"].as_array().unwrap().len() as u64;
    assert!(listed > 10);
    assert_eq!(listed + details["more"].as_u64().unwrap(), 60);
}

#[tokio::test]
async fn special_spaces_are_escapes_in_every_text() {
    let store = Store::sqlite();
    let spaces = "\u{a0}\u{202f}\u{2009}\u{200b}\u{200f}\u{2028}\u{2029}\u{feff}";
    let title = json!({ "title": format!("29{spaces}€") });
    let document = fixtures::with(&fixtures::project("a"), title);
    create(&*store.repository, &project_key("a"), document).await;
    let client = client_of(&store);
    let data = json!({ "title": format!("30{spaces}€") });

    for (tool, arguments) in [
        ("get_project", json!({ "id": "a" })),
        ("list_projects", json!({})),
        ("list_projects", json!({ "detail": "full" })),
        ("update_project", json!({ "id": "a", "data": data })),
        ("get_audit_log", json!({})),
        ("get_audit_log", json!({ "detail": "full" })),
        ("get_audit_stats", json!({})),
        ("get_project", json!({ "id": format!("b{spaces}") })),
    ] {
        let (text, answer) = text_of(&client, tool, arguments).await;

        assert!(!text.contains(|c| spaces.contains(c)), "{tool}: {text:?}");
        let holds_them = answer.to_string().contains('\u{a0}');
        assert_eq!(text.contains(r"\u00a0"), holds_them, "{tool}: {text:?}");
        // The structured content is compared by `tool_output`, parsed.
    }
}

#[tokio::test]
async fn a_query_looks_into_every_text_in_any_form() {
    on_each_store(async |store| {
        let texts = json!({
            "title": "Le palier de l’étage",
            "tags": ["Cafe\u{301}"],
            "description": "Ein Straßenfest",
            "result": "+40\u{a0}% de réservations",
            "client": { "type": "Menuiserie", "size": "61 personnes", "objective": "Grandir" },
            "challenge": "Trop d‘appels",
            "solution": { "description": "Un calendrier", "tools": ["Astro"], "features": ["Rappels"] },
            "testimonial": { "text": "Formidable", "author": "Zoé" },
        });
        let document = fixtures::with(&fixtures::project("found"), texts);
        create(&*store.repository, &project_key("found"), document).await;
        let resource = fixtures::with(
            &fixtures::resource("guide"),
            json!({ "longDescription": "Chapitres", "price": "29\u{202f}€" }),
        );
        create(&*store.repository, &DocumentKey::new(Kind::Resource, "guide"), resource).await;
        let client = client_of(store);
        let total = async |tool: &str, filter: Value| -> Value {
            client.call(tool, filter).await["meta"]["total"].clone()
        };

        for query in [
            "l'étage", "L’ETAGE", "l‘étage", "lʼétage", "l`étage", "l´étage", "l'e\u{301}tage",
            "FOUND", "café", "strassenfest", "40 % réservations", "menuiserie 61 grandir",
            "d'appels", "calendrier astro rappels", "formidable zoe",
        ] {
            assert_eq!(total("list_projects", json!({ "query": query })).await, 1, "{query} on {store}");
        }
        for query in ["chapitres", "29 €"] {
            assert_eq!(total("list_resources", json!({ "query": query })).await, 1, "{query} on {store}");
        }
        for tag in ["Caf\u{e9}", "CAFE\u{301}"] {
            assert_eq!(total("list_projects", json!({ "tag": tag })).await, 1, "{tag:?} on {store}");
        }
        assert_eq!(total("list_projects", json!({ "tag": "cafe" })).await, 0, "{store}");
    })
    .await;
}

#[tokio::test]
async fn a_query_that_matches_nothing_names_the_searched_fields() {
    let store = Store::sqlite();
    create(
        &*store.repository,
        &project_key("a"),
        fixtures::project("a"),
    )
    .await;
    let client = client_of(&store);

    let nothing = client
        .call("list_projects", json!({ "query": "giraffe" }))
        .await;
    let found = client
        .call("list_projects", json!({ "query": "merci" }))
        .await;
    let no_draft = client
        .call("list_projects", json!({ "status": "archived" }))
        .await;

    let warning = nothing["meta"]["warnings"][0].as_str().unwrap();
    for field in [
        "id",
        "title",
        "tags",
        "description",
        "result",
        "price",
        "client",
        "challenge",
        "solution",
        "testimonial",
        "longDescription",
    ] {
        assert!(warning.contains(field), "{field}: {warning}");
    }
    assert_eq!(found["meta"].get("warnings"), None);
    assert_eq!(no_draft["meta"].get("warnings"), None);
}

/// 0.1.0 wrote fewer fields into the columns that are searched, and tags as they were.
#[tokio::test]
async fn documents_that_0_1_0_wrote_are_found_by_every_field() {
    let store = Store::sqlite();
    for id in ["old", "new"] {
        let tags = json!({ "tags": ["Cafe\u{301}"] });
        let document = fixtures::with(&fixtures::project(id), tags);
        create(&*store.repository, &project_key(id), document).await;
    }
    rusqlite::Connection::open(store.file())
        .unwrap()
        .execute(
            "UPDATE documents SET searched = ?, tags = ? WHERE id = 'old'",
            ["old\nthe case of old", "[\"cafe\u{301}\"]"],
        )
        .unwrap();
    let client = client_of(&store);

    let by_word = client
        .call("list_projects", json!({ "query": "merci" }))
        .await;
    let by_tag = client
        .call("list_projects", json!({ "tag": "caf\u{e9}" }))
        .await;
    let by_id = client
        .call("list_projects", json!({ "query": "case old" }))
        .await;

    assert_eq!(by_word["meta"]["total"], 2);
    assert_eq!(by_tag["meta"]["total"], 2);
    assert_eq!(by_id["meta"]["total"], 1);
}

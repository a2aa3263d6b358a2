//! `?asOf=TIME` of the website's API: published documents as they were, for holders of a token where
//! there are tokens, and never from or in a cache.

use portfolio_mcp::domain::{DocumentKey, Kind};
use redis::cmd;
use serde_json::{Value, json};

use super::wait_for_next_millisecond;
use crate::support::{
    fixtures::{create, document, project, project_key, update, with},
    http::{self, Response},
    program::Home,
    server::HttpServer,
    stores::{Store, on_each_store},
};

const TOKEN: &str = "site-0123456789abcdef";

fn get_with(server: &HttpServer, path: &str, headers: &[(&str, &str)]) -> Response {
    let headers = [&[("Connection", "close")], headers].concat();
    http::send(server.address, "GET", path, &headers, "")
}

fn with_token(server: &HttpServer, path: &str) -> Response {
    let token = format!("Bearer {TOKEN}");
    get_with(server, path, &[("Authorization", &token)])
}

fn ids(answer: &Value) -> Vec<&str> {
    let documents = answer["data"].as_array().unwrap().iter();
    documents.map(|it| it["id"].as_str().unwrap()).collect()
}

fn is_private(response: &Response) -> bool {
    let has = |name: &str, value: &str| {
        response
            .header(name)
            .is_some_and(|found| found.contains(value))
    };
    has("cache-control", "private, no-store") && has("vary", "Authorization")
}

/// Published at first: `old`, which is a draft now, and `both`; `new` was published later, `draft`
/// never. Gives a time in between.
async fn publish(store: &Store) -> String {
    let repository = &*store.repository;
    let status = |status: &str| json!({ "metadata": { "status": status } });
    for (id, is) in [
        ("old", "published"),
        ("both", "published"),
        ("new", "draft"),
        ("draft", "draft"),
    ] {
        create(repository, &project_key(id), with(&project(id), status(is))).await;
    }
    let guide = DocumentKey::new(Kind::Resource, "guide");
    let last = create(repository, &guide, document(Kind::Resource, "guide")).await;
    wait_for_next_millisecond(&last);
    update(repository, &project_key("old"), status("draft")).await;
    update(repository, &project_key("new"), status("published")).await;
    update(
        repository,
        &project_key("both"),
        json!({ "title": "Later" }),
    )
    .await;
    last.entries[0].timestamp().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_published_then_is_shown() {
    on_each_store(async |store: &Store| {
        let time = publish(store).await;
        let server = HttpServer::start(store, &[]);
        let get = |path: &str| get_with(&server, path, &[]);

        let now = get("/api/projects").json();
        let then = get(&format!("/api/projects?asOf={time}"));
        let filtered = get(&format!("/api/projects?asOf={time}&tag=none"));
        let both = get(&format!("/api/projects/both?asOf={time}"));
        let resources = get(&format!("/api/resources?asOf={time}"));
        let early = get("/api/projects?asOf=2000-01-01T00:00:00Z");

        assert_eq!(ids(&now), ["both", "new"]);
        for response in [&then, &both, &early] {
            assert_eq!(response.status, 200);
            assert!(is_private(response));
        }
        let then = then.json();
        assert_eq!(ids(&then), ["both", "old"]);
        assert_eq!(then["meta"]["total"], 2);
        assert_eq!(filtered.json()["data"], json!([]));
        assert_eq!(both.json()["data"]["title"], "The case of both");
        assert_eq!(ids(&resources.json()), ["guide"]);
        assert_eq!(ids(&early.json()), Vec::<&str>::new());
        for (id, code) in [
            ("old", "200"),
            ("new", "PROJECT_NOT_PUBLISHED"),
            ("draft", "PROJECT_NOT_PUBLISHED"),
            ("nothing", "PROJECT_NOT_FOUND"),
            ("Bad Slug", "INVALID_SLUG"),
        ] {
            let id = id.replace(' ', "%20");
            let response = get(&format!("/api/projects/{id}?asOf={time}"));
            assert!(is_private(&response), "{id}");
            let status = response.status.to_string();
            let answer = response.json();
            let found = answer["error"]["code"].as_str().unwrap_or(&status);
            assert_eq!(found, code, "{answer}");
        }
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_time_is_an_invalid_query() {
    let store = Store::sqlite();
    let time = publish(&store).await;
    let server = HttpServer::start(&store, &[]);
    let many = format!("asOf={time}&asOf={time}");
    for query in [
        "asOf=",
        "asOf=yesterday",
        "asOf=2999-01-01T00:00:00Z",
        &many,
    ] {
        for path in [
            "/api/projects",
            "/api/projects/both",
            "/api/resources",
            "/api/resources/guide",
        ] {
            let response = get_with(&server, &format!("{path}?{query}"), &[]);

            assert_eq!(response.status, 400, "{path}?{query}");
            assert!(is_private(&response), "{path}?{query}");
            let answer = response.json();
            assert_eq!(answer["error"]["code"], "INVALID_QUERY", "{answer}");
            assert!(
                answer["error"]["message"]
                    .as_str()
                    .unwrap()
                    .contains("asOf"),
                "{answer}"
            );
        }
    }
    store.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_are_tokens_the_past_needs_one() {
    let store = Store::sqlite();
    let time = publish(&store).await;
    let home = Home::new();
    let tokens = home.path().join("tokens");
    std::fs::write(&tokens, format!("site:read:{TOKEN}")).unwrap();
    let tokens = format!("--token-file={}", tokens.display());
    for (arguments, has_tokens, is_public) in [
        (&[][..], false, true),
        (&["--public-api"], false, true),
        (&[&tokens], true, false),
        (&[&tokens, "--public-api"], true, true),
    ] {
        let server = HttpServer::start(&store, arguments);
        for path in [
            "/api/projects",
            "/api/projects/both",
            "/api/resources",
            "/api/resources/guide",
        ] {
            let queries = [
                format!("asOf={time}"),
                format!("tag=x&as%4Ff={time}"),
                "asOf=yesterday".to_owned(),
            ];
            for query in &queries {
                let past = format!("{path}?{query}");
                let found = if query.contains("yesterday") {
                    400
                } else {
                    200
                };
                let without = get_with(&server, &past, &[]).status;
                let wrong = get_with(&server, &past, &[("Authorization", "Bearer wrong")]);

                assert_eq!(
                    with_token(&server, &past).status,
                    found,
                    "{arguments:?} {past}"
                );
                let refused = if has_tokens { 401 } else { found };
                assert_eq!(without, refused, "{arguments:?} {past}");
                assert_eq!(wrong.status, refused, "{arguments:?} {past}");
            }
            let now = get_with(&server, path, &[]).status;
            assert_eq!(
                now,
                if is_public { 200 } else { 401 },
                "{arguments:?} {path}"
            );
        }
    }
    store.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_past_is_in_the_response_cache() {
    let store = Store::redis();
    let time = publish(&store).await;
    let server = HttpServer::start(&store, &[]);
    let keys = || -> Vec<String> {
        let mut keys: Vec<String> = store.server().run(cmd("KEYS").arg("cache:api:*"));
        keys.sort_unstable();
        keys
    };

    for _ in 0..3 {
        for path in ["/api/projects", "/api/projects/both", "/api/projects/old"] {
            let response = get_with(&server, &format!("{path}?asOf={time}"), &[]);
            assert_eq!(response.status, 200, "{path}");
        }
    }
    let after_the_past = keys();
    let now = get_with(&server, "/api/projects", &[]).json();
    crate::support::wait_until("the present is cached", || {
        (keys() == ["cache:api:projects"]).then_some(())
    });
    let then = get_with(&server, &format!("/api/projects?asOf={time}"), &[]).json();
    let again = get_with(&server, "/api/projects", &[]).json();

    assert_eq!(after_the_past, Vec::<String>::new());
    assert_eq!(ids(&now), ["both", "new"]);
    assert_eq!(ids(&then), ["both", "old"]);
    assert_eq!(again["data"], now["data"]);
    assert_eq!(keys(), ["cache:api:projects"]);
    store.assert_sound().await;
}

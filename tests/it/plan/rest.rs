//! `?plan=ID` of the website's API: published documents as a plan would leave them, for holders of a
//! token where there are tokens, and never from or in a cache.

use std::fs;

use serde_json::{Value, json};

use crate::support::{
    fixtures::{create_sound, project_key},
    http::{self, Response},
    program::Home,
    server::HttpServer,
    stdio::StdioClient,
    stores::{Store, on_each_store},
};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn get(server: &HttpServer, path: &str, token: Option<&str>) -> Response {
    let authorization = token.map(|token| format!("Bearer {token}"));
    let mut headers = vec![("Connection", "close")];
    headers.extend(
        authorization
            .iter()
            .map(|it| ("Authorization", it.as_str())),
    );
    http::send(server.address, "GET", path, &headers, "")
}

fn is_private(response: &Response) -> bool {
    response.header("cache-control") == Some("private, no-store")
        && response.header("vary") == Some("Authorization")
}

fn titles(answer: &Value) -> Vec<&str> {
    let documents = answer["data"].as_array().unwrap().iter();
    documents.map(|it| it["title"].as_str().unwrap()).collect()
}

/// Two published projects; gives the plan that retitles `a` and the one that hides `b`.
async fn planned(store: &Store) -> (StdioClient, String, String) {
    for id in ["a", "b"] {
        create_sound(&*store.repository, &project_key(id)).await;
    }
    let client = StdioClient::start(store).await;
    let publish = json!({ "metadata": { "status": "published" } });
    for id in ["a", "b"] {
        let arguments = json!({ "id": id, "data": publish });
        client.call("update_project", arguments).await;
    }
    let plan = async |id: &str, data: Value| {
        let arguments = json!({ "id": id, "data": data, "dryRun": true });
        let shown = client.call("update_project", arguments).await;
        shown["meta"]["plan"]["id"].as_str().unwrap().to_owned()
    };
    let retitle = plan("a", json!({ "title": "Planned" })).await;
    let hide = plan("b", json!({ "metadata": { "status": "draft" } })).await;
    (client, retitle, hide)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_website_is_shown_as_a_plan_would_leave_it() {
    on_each_store(async |store: &Store| {
        let (client, retitle, hide) = planned(store).await;
        let server = HttpServer::start(store, &[]);
        let show = |path: &str| get(&server, path, None);

        let list = show(&format!("/api/projects?plan={retitle}"));
        let one = show(&format!("/api/projects/a?plan={retitle}"));
        let other = show(&format!("/api/projects/b?plan={retitle}"));
        let now = show("/api/projects/a");
        let hidden = show(&format!("/api/projects/b?plan={hide}"));
        let rest = show(&format!("/api/projects?plan={hide}"));
        let both = show(&format!(
            "/api/projects?plan={hide}&asOf=2026-01-01T00:00:00Z"
        ));
        let applied = json!({ "id": "a", "plan": retitle });
        client.call("update_project", applied).await;
        let late = show(&format!("/api/projects?plan={retitle}"));

        for response in [&list, &one, &other, &hidden, &rest, &both, &late] {
            assert!(is_private(response), "{}", response.status);
        }
        let list = list.json();
        assert_eq!(list["meta"]["total"], 2);
        assert_eq!(titles(&list)[0], "Planned");
        assert_eq!(one.json()["data"]["title"], "Planned");
        assert_eq!(other.status, 200);
        assert_ne!(now.json()["data"]["title"], "Planned");
        assert_eq!(hidden.json()["error"]["code"], "PROJECT_NOT_PUBLISHED");
        assert_eq!(rest.json()["meta"]["total"], 1);
        assert_eq!(
            (both.status, &both.json()["error"]["code"]),
            (400, &json!("INVALID_QUERY"))
        );
        assert_eq!(
            (late.status, &late.json()["error"]["code"]),
            (404, &json!("PLAN_NOT_FOUND"))
        );
        store.assert_sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_are_shown_to_holders_of_a_token_alone() {
    let store = Store::sqlite();
    let (_client, retitle, _) = planned(&store).await;
    let home = Home::new();
    let tokens = home.path().join("tokens");
    fs::write(&tokens, format!("site:read:{TOKEN}")).unwrap();
    let tokens = tokens.to_string_lossy();
    for public in [&[][..], &["--public-api"]] {
        let arguments = [&["--token-file", &tokens], public].concat();
        let server = HttpServer::start(&store, &arguments);
        for path in ["/api/projects", "/api/projects/a"] {
            let path = format!("{path}?plan={retitle}");

            assert_eq!(get(&server, &path, None).status, 401, "{public:?}");
            assert_eq!(get(&server, &path, Some("wrong")).status, 401, "{public:?}");
            assert_eq!(get(&server, &path, Some(TOKEN)).status, 200, "{public:?}");
        }
    }
}

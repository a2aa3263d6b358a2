//! The website API: only published documents, never older than the last acknowledged write,
//! whatever the store does.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use portfolio_mcp::{
    domain::{ApiPath, CachedResponse, DocumentKey, Kind, StoreState},
    store::{Location, Repository, open},
};
use redis::cmd;
use serde_json::{Value, json};

use crate::support::{
    fixtures::{create, create_sound, document, project, project_key, update, with},
    http::{self, Response},
    messages::tool_output,
    program::Home,
    proxy::{Mode, Proxy},
    redis::free_port,
    server::HttpServer,
    stores::Store,
    wait::wait_until_async,
    wait_until,
};

const PUBLIC: &str = "public, max-age=0, s-maxage=60, stale-while-revalidate=300";
/// A request is answered within 10 seconds; the rest is for a busy machine.
const MAX_RESPONSE_TIME: Duration = Duration::from_secs(20);

fn request(server: &HttpServer, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    let start = Instant::now();
    let response = http::send(
        server.address,
        method,
        path,
        &[&[("Connection", "close")], headers].concat(),
        "",
    );
    assert!(
        start.elapsed() < MAX_RESPONSE_TIME,
        "{method} {path} was answered after {:?}",
        start.elapsed()
    );
    response
}

fn get(server: &HttpServer, path: &str) -> Response {
    request(server, "GET", path, &[])
}

/// The JSON of a request that must succeed.
fn get_json(server: &HttpServer, path: &str) -> Value {
    let response = get(server, path);
    let (status, answer) = (response.status, response.json());
    assert_eq!(status, 200, "{path}: {answer}");
    assert_eq!(answer["success"], true, "{path}: {answer}");
    answer
}

/// The ids of a list.
fn ids(answer: &Value) -> Vec<&str> {
    answer["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|document| document["id"].as_str().unwrap())
        .collect()
}

/// Status and code of an error, which must have the contract's form and must not be cached.
fn get_error(server: &HttpServer, path: &str) -> (u16, String) {
    let response = get(server, path);
    assert_eq!(response.header("cache-control"), Some("no-store"), "{path}");
    let (status, id) = (
        response.status,
        response.header("x-request-id").map(ToOwned::to_owned),
    );
    let answer = response.json();
    assert_eq!(answer["success"], json!(false), "{answer}");
    assert_eq!(
        answer["meta"]["requestId"].as_str(),
        id.as_deref(),
        "{answer}"
    );
    assert_eq!(names(&answer), ["error", "meta", "success"]);
    assert_eq!(names(&answer["error"]), ["code", "message"]);
    assert_eq!(names(&answer["meta"]), ["requestId", "timestamp"]);
    (status, answer["error"]["code"].as_str().unwrap().to_owned())
}

fn names(value: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    names.sort_unstable();
    names
}

fn serve(store: &Store) -> HttpServer {
    HttpServer::start_with(&store.arguments())
}

/// Two published documents of each kind, a draft and an archived one; the draft's text is `SECRET`.
async fn publish(repository: &dyn Repository) {
    for kind in Kind::ALL {
        for (id, status, day) in [
            ("old", "published", 1),
            ("new", "published", 2),
            ("draft", "draft", 3),
            ("gone", "archived", 4),
        ] {
            let mut document = document(kind, id);
            document.insert("kept".to_owned(), json!({ "unknown": [1.50, null] }));
            let metadata = json!({ "metadata": { "status": status, "updatedAt": format!("2025-02-0{day}T00:00:00.000Z") } });
            let title = if status == "published" {
                json!({})
            } else {
                json!({ "title": "SECRET" })
            };
            create(
                repository,
                &DocumentKey::new(kind, id),
                with(&with(&document, metadata), title),
            )
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_published_documents_are_served() {
    for store in [Store::redis(), Store::sqlite()] {
        publish(&*store.repository).await;
        let server = serve(&store);
        let mut requests = BTreeSet::new();
        // The second round is answered from the response cache, if the store has one.
        for _ in 0..2 {
            for kind in Kind::ALL {
                let (path, upper) = (
                    format!("/api/{}", kind.plural()),
                    kind.singular().to_uppercase(),
                );

                let list = get_json(&server, &path);
                let one = get_json(&server, &format!("{path}/new"));

                assert_eq!(ids(&list), ["new", "old"], "{store}");
                assert_eq!(list["meta"]["total"], json!(2));
                assert_eq!(names(&list["meta"]), ["requestId", "timestamp", "total"]);
                assert_eq!(names(&one["meta"]), ["requestId", "timestamp"]);
                assert_eq!(one["data"], list["data"][0]);
                assert_eq!(
                    one["data"]["kept"],
                    json!({ "unknown": [1.50, null] }),
                    "unknown members are served too"
                );
                assert!(!list.to_string().contains("SECRET"), "{list}");
                for answer in [&list, &one] {
                    assert!(
                        requests.insert(answer["meta"]["requestId"].to_string()),
                        "a request id is used twice"
                    );
                }
                for (id, code) in [
                    ("draft", "NOT_PUBLISHED"),
                    ("gone", "NOT_PUBLISHED"),
                    ("nothing", "NOT_FOUND"),
                ] {
                    assert_eq!(
                        get_error(&server, &format!("{path}/{id}")),
                        (404, format!("{upper}_{code}")),
                        "{store}"
                    );
                    assert!(
                        !get(&server, &format!("{path}/{id}"))
                            .text()
                            .contains("SECRET"),
                        "{store}: {id}"
                    );
                }
                for id in [
                    "Bad",
                    "a_b",
                    "-a",
                    "12",
                    "null",
                    "%ff",
                    "%20",
                    "a%2fb",
                    &"a".repeat(101),
                    &"-".repeat(5000),
                ] {
                    assert_eq!(
                        get_error(&server, &format!("{path}/{id}")),
                        (400, "INVALID_SLUG".to_owned()),
                        "{store}: {id}"
                    );
                }
                for method in ["POST", "PUT", "PATCH", "DELETE"] {
                    assert_eq!(request(&server, method, &path, &[]).status, 405, "{method}");
                    assert_eq!(
                        request(&server, method, &format!("{path}/new"), &[]).status,
                        405,
                        "{method}"
                    );
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_matching_etag_gets_304() {
    for store in [Store::redis(), Store::sqlite()] {
        publish(&*store.repository).await;
        let server = serve(&store);
        for path in ["/api/projects", "/api/resources/new"] {
            let whole = get(&server, path);
            let (tag, type_) = (
                whole.header("etag").unwrap().to_owned(),
                whole.header("content-type").unwrap().to_owned(),
            );
            assert_eq!(whole.header("cache-control"), Some(PUBLIC));
            assert!(tag.starts_with('"') && tag.len() > 20, "{tag}");
            assert_eq!(type_, "application/json");
            let length = whole.text().len();

            let head = request(&server, "HEAD", path, &[]);
            assert_eq!(head.status, 200);
            assert_eq!(head.header("etag"), Some(tag.as_str()));
            assert_eq!(head.header("content-type"), Some(type_.as_str()));
            assert_eq!(
                head.header("content-length"),
                Some(length.to_string().as_str()),
                "the length of ids and times does not vary"
            );
            for known in [
                tag.clone(),
                format!("W/{tag}"),
                format!("\"x\", {tag}"),
                "*".to_owned(),
            ] {
                for method in ["GET", "HEAD"] {
                    let same = request(&server, method, path, &[("If-None-Match", &known)]);
                    assert_eq!(same.status, 304);
                    assert_eq!(same.header("etag"), Some(tag.as_str()));
                    assert_eq!(same.header("cache-control"), Some(PUBLIC));
                    assert!(same.header("x-request-id").is_some());
                }
            }
            assert_eq!(
                request(&server, "GET", path, &[("If-None-Match", "\"x\"")]).status,
                200
            );
        }
        // `*` matches only what exists.
        assert_eq!(
            request(
                &server,
                "GET",
                "/api/projects/draft",
                &[("If-None-Match", "*")]
            )
            .status,
            404
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_documents_are_served_and_unreadable_ones_left_out() {
    let store = Store::redis();
    publish(&*store.repository).await;
    let plant = |id: &str, text: &str| {
        store
            .server()
            .run::<()>(cmd("SET").arg(format!("data:projects:{id}")).arg(text));
        store
            .server()
            .run::<()>(cmd("SADD").arg("index:all:projects").arg(id));
    };
    plant(
        "rule-breaker",
        r#"{"id":"rule-breaker","tags":5,"metadata":{"status":"published","updatedAt":"whenever"}}"#,
    );
    plant(
        "Old_One",
        r#"{"id":"Old_One","metadata":{"status":"published"}}"#,
    );
    plant("unreadable", "SECRET {");
    let server = serve(&store);

    assert_eq!(
        ids(&get_json(&server, "/api/projects")),
        ["new", "old", "Old_One", "rule-breaker"]
    );
    assert_eq!(
        get_json(&server, "/api/projects/rule-breaker")["data"]["tags"],
        json!(5)
    );
    assert_eq!(
        get_json(&server, "/api/projects/Old_One")["data"]["id"],
        json!("Old_One")
    );
    assert_eq!(
        get_error(&server, "/api/projects/unreadable"),
        (500, "PROJECT_FETCH_ERROR".to_owned())
    );
    let text = get(&server, "/api/projects/unreadable").text();
    assert!(
        !text.contains("SECRET") && !text.contains("data:projects"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_read_after_an_update_shows_it() {
    for store in [Store::redis(), Store::sqlite()] {
        publish(&*store.repository).await;
        let server = serve(&store);
        for number in 0..20 {
            let tags = ["/api/projects", "/api/projects/new"]
                .map(|path| (path, get(&server, path).header("etag").unwrap().to_owned()));
            let title = format!("title {number}");

            let answer = tool_output(&server.call(
                "update_project",
                &json!({ "id": "new", "data": { "title": title } }),
            ));

            assert_eq!(answer["success"], json!(true));
            for (path, tag) in tags {
                let fresh = request(&server, "GET", path, &[("If-None-Match", &tag)]);
                assert_eq!(fresh.status, 200, "{store}: {path} is unchanged");
                assert!(fresh.text().contains(&title), "{store}: {path}");
            }
        }
        tool_output(&server.call(
            "update_project",
            &json!({ "id": "new", "data": { "metadata": { "status": "draft" } } }),
        ));
        assert_eq!(
            get_error(&server, "/api/projects/new"),
            (404, "PROJECT_NOT_PUBLISHED".to_owned())
        );
        assert_eq!(ids(&get_json(&server, "/api/projects")), ["old"], "{store}");
        store.assert_sound().await;
    }
}

/// The cached response at a key.
fn cached(store: &Store, key: &str) -> Option<Value> {
    let text: Option<String> = store.server().run(cmd("GET").arg(key));
    text.map(|text| serde_json::from_str(&text).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_is_cached_for_a_minute_or_until_the_next_commit() {
    let store = Store::redis();
    publish(&*store.repository).await;
    let server = serve(&store);
    let keys = [
        ("/api/projects", "cache:api:projects"),
        ("/api/projects/new", "cache:api:projects:new"),
    ];
    for (path, key) in keys {
        let answer = get_json(&server, path);
        let cached = wait_until("the response is cached", || cached(&store, key));

        assert_eq!(cached["success"], true);
        assert_eq!(cached["data"], answer["data"]);
        assert_eq!(cached["meta"]["seq"], json!(8));
        assert_eq!(
            cached["meta"]["etag"].as_str(),
            get(&server, path).header("etag")
        );
        let ttl: i64 = store.server().run(cmd("TTL").arg(key));
        assert!((1..=60).contains(&ttl), "{ttl}");
        // The next reader gets the cached response.
        let before = answer["data"].to_string();
        let again = get_json(&server, path);
        assert_eq!(again["data"].to_string(), before);
        assert_ne!(again["meta"]["requestId"], answer["meta"]["requestId"]);
    }
    get_error(&server, "/api/projects/draft");
    get_error(&server, "/api/projects/nothing");
    assert!(
        tool_output(&server.call("get_project", &json!({ "id": "draft" })))["success"]
            .as_bool()
            .unwrap()
    );

    update(
        &*store.repository,
        &project_key("new"),
        json!({ "title": "Another" }),
    )
    .await;

    let left: Vec<String> = store.server().run(cmd("KEYS").arg("cache:*"));
    assert!(left.is_empty(), "{left:?}");
}

/// Publishes projects with an id, tags, and whether they are featured.
async fn publish_tagged(repository: &dyn Repository, projects: &[(&str, &[&str], bool)]) {
    for (id, tags, featured) in projects {
        let patch =
            json!({ "tags": tags, "metadata": { "featured": featured, "status": "published" } });
        create(repository, &project_key(id), with(&project(id), patch)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_filtered_by_featured_and_tag() {
    for store in [Store::redis(), Store::sqlite()] {
        let projects: [(&str, &[&str], bool); 4] = [
            ("a", &["SaaS", "C++"], true),
            ("b", &["saas"], false),
            ("c", &["Café & co"], true),
            ("d", &[], false),
        ];
        publish_tagged(&*store.repository, &projects).await;
        let draft = with(
            &project("e"),
            json!({ "tags": ["SaaS"], "metadata": { "featured": true } }),
        );
        create(&*store.repository, &project_key("e"), draft).await;
        let server = serve(&store);

        for (query, found) in [
            ("", "a b c d"),
            ("featured=true", "a c"),
            ("featured=1", "a c"),
            ("featured=false", "b d"),
            ("tag=SAAS", "a b"),
            ("tag=saas&featured=true", "a"),
            ("tag=SaaS&tag=c%2b%2b", "a"),
            ("tag=SaaS&tag=x", ""),
            ("tag=Caf%C3%A9+%26+CO", "c"),
            ("tag=Caf%C3%A9%20%26%20co", "c"),
            ("tag=x", ""),
            // What means nothing filters nothing.
            ("tag=", "a b c d"),
            ("featured=", "a b c d"),
            ("featured", "a b c d"),
            ("featured=maybe", "a b c d"),
            ("page=2&status=draft&utm_source=x", "a b c d"),
            ("%ff=%zz&&=", "a b c d"),
        ] {
            for path in [
                format!("/api/projects?{query}"),
                format!("/api/projects/?{query}"),
            ] {
                let answer = get_json(&server, &path);
                let mut ids = ids(&answer);
                ids.sort_unstable();
                assert_eq!(ids.join(" "), found, "{path}");
                assert_eq!(answer["meta"]["total"], ids.len(), "{path}");
            }
        }
        assert_eq!(
            get_json(&server, "/api/projects/b?featured=true")["data"]["id"],
            "b"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filtered_answer_is_never_taken_for_the_whole_list() {
    let store = Store::redis();
    publish_tagged(
        &*store.repository,
        &[("a", &["x"], true), ("b", &[], false)],
    )
    .await;
    let server = serve(&store);
    let cached = || cached(&store, "cache:api:projects");

    let filtered = get(&server, "/api/projects?featured=true");
    let etag = filtered.header("etag").unwrap().to_owned();
    assert_eq!(filtered.json()["meta"]["total"], 1);
    assert_eq!(cached(), None, "a filtered answer is not cached");
    let all = get_json(&server, "/api/projects");
    assert_eq!(ids(&all).len(), 2);
    let in_cache = wait_until("the whole list is cached", cached);

    for _ in 0..2 {
        assert_eq!(
            get_json(&server, "/api/projects?featured=true")["meta"]["total"],
            1
        );
        assert_eq!(get_json(&server, "/api/projects")["data"], all["data"]);
    }
    assert_eq!(in_cache["data"], all["data"]);
    let known = [("If-None-Match", etag.as_str())];
    assert_eq!(
        request(&server, "GET", "/api/projects?featured=true", &known).status,
        304
    );
    assert_eq!(request(&server, "GET", "/api/projects", &known).status, 200);
    update(
        &*store.repository,
        &project_key("b"),
        json!({ "metadata": { "featured": true } }),
    )
    .await;
    assert_eq!(
        request(&server, "GET", "/api/projects?featured=true", &known).status,
        200
    );
    assert_eq!(
        get_json(&server, "/api/projects?featured=true")["meta"]["total"],
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn cache_entries_of_other_programs_are_not_served() {
    let store = Store::redis();
    publish(&*store.repository).await;
    let server = serve(&store);
    let key = "cache:api:projects:new";
    let own = {
        get_json(&server, "/api/projects/new");
        wait_until("the response is cached", || {
            store.server().run::<Option<String>>(cmd("GET").arg(key))
        })
    };
    let forged = [
        "SECRET".to_owned(),
        json!({ "success": true, "data": { "id": "SECRET" } }).to_string(),
        json!({ "success": true, "data": { "id": "SECRET" }, "meta": { "seq": 8, "etag": "x", "timestamp": "" } }).to_string(),
        own.replace("\"seq\":8", "\"seq\":7").replace("\"id\":\"new\"", "\"id\":\"SECRET\""),
        own.replace("\"id\":\"new\"", "\"id\":\"SECRET\""),
    ];
    for text in forged {
        store.server().run::<()>(cmd("SET").arg(key).arg(&text));
        assert_eq!(
            get_json(&server, "/api/projects/new")["data"]["id"],
            json!("new"),
            "{text}"
        );
        wait_until("it is replaced", || {
            (store.server().run::<String>(cmd("GET").arg(key)) != text).then_some(())
        });
    }

    store.server().run::<()>(cmd("DEL").arg(key));
    store
        .server()
        .run::<()>(cmd("RPUSH").arg(key).arg("SECRET"));
    assert_eq!(
        get_json(&server, "/api/projects/new")["data"]["id"],
        json!("new")
    );
}

#[tokio::test]
async fn a_reader_overtaken_by_a_commit_caches_nothing() {
    let store = Store::redis();
    let (cache, key) = (store.open().responses.unwrap(), project_key("a"));
    create_sound(&*store.repository, &key).await;
    let ttl = Duration::from_mins(1);
    for api_path in [ApiPath::One(key.clone()), ApiPath::All(Kind::Project)] {
        let CachedResponse {
            response, state, ..
        } = cache.get(&api_path).await.unwrap();
        let state = state.unwrap();
        let seq = state.seq;
        assert_eq!(response, None);

        // A write comes between the read and the put.
        update(
            &*store.repository,
            &key,
            json!({ "title": format!("after {seq}") }),
        )
        .await;
        let kept = cache.put(&api_path, &state, "old", ttl).await.unwrap();
        assert!(!kept, "what a write has overtaken");

        let now = cache.get(&api_path).await.unwrap();
        let next = now.state.unwrap();
        assert_eq!(now.response, None);
        assert_eq!(next.seq, seq + 1);
        let other_history = StoreState {
            history: state.history,
            ..next.clone()
        };
        cache
            .put(&api_path, &other_history, "lost", ttl)
            .await
            .unwrap();
        assert_eq!(cache.get(&api_path).await.unwrap().response, None);
        assert!(cache.put(&api_path, &next, "new", ttl).await.unwrap());
        assert_eq!(
            cache.get(&api_path).await.unwrap().response.as_deref(),
            Some("new")
        );

        // A write of another document keeps the entry, but it is outdated then.
        create_sound(
            &*store.repository,
            &DocumentKey::new(Kind::Resource, format!("b-{seq}")),
        )
        .await;
        let outdated = cache.get(&api_path).await.unwrap();
        assert_eq!(outdated.response.as_deref(), Some("new"));
        assert_eq!(outdated.state.unwrap().seq, seq + 2);
        update(
            &*store.repository,
            &key,
            json!({ "title": format!("again {seq}") }),
        )
        .await;
        assert_eq!(cache.get(&api_path).await.unwrap().response, None);
    }
    store.assert_sound().await;
}

#[tokio::test]
async fn a_read_only_user_reads_the_cache_and_does_not_write_it() {
    let store = Store::redis();
    create_sound(&*store.repository, &project_key("a")).await;
    let read = store
        .server()
        .user("reader", &["~*", "+@read", "+@connection"]);
    let reader = open(&Location::Redis {
        write: None,
        read: Some(read),
        key_prefix: String::new(),
    })
    .unwrap()
    .responses
    .unwrap();
    let api_path = ApiPath::One(project_key("a"));

    let state = reader.get(&api_path).await.unwrap().state.unwrap();
    reader
        .put(&api_path, &state, "mine", Duration::from_mins(1))
        .await
        .unwrap();
    let cached = reader.get(&api_path).await.unwrap();
    assert_eq!(cached.response, None);
    assert_eq!(state.seq, 1);
    let writer = store.open().responses.unwrap();
    writer
        .put(&api_path, &state, "theirs", Duration::from_mins(1))
        .await
        .unwrap();
    let cached = reader.get(&api_path).await.unwrap();
    assert_eq!(cached.response.as_deref(), Some("theirs"));
    assert_eq!(cached.state, Some(state));
}

/// As docs/operations.md says, for a person who edits a document by hand.
#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_cached_response_shows_an_edit_by_hand_on_every_server() {
    let store = Store::redis();
    let published = json!({ "title": "old", "metadata": { "status": "published" } });
    create(
        &*store.repository,
        &project_key("a"),
        with(&project("a"), published.clone()),
    )
    .await;
    let servers = [serve(&store), serve(&store)];
    let title = |server: &HttpServer| get_json(server, "/api/projects/a")["data"]["title"].clone();
    for server in &servers {
        wait_until("the server has the response in its memory", || {
            title(server);
            let before = store.server().calls("get");
            title(server);
            (store.server().calls("get") == before + 1).then_some(())
        });
    }

    let edited = with(&with(&project("a"), published), json!({ "title": "new" }));
    let text = serde_json::to_string(&edited).unwrap();
    store
        .server()
        .run::<redis::Value>(cmd("SET").arg("data:projects:a").arg(text));
    store
        .server()
        .run::<redis::Value>(cmd("DEL").arg("cache:api:projects:a"));

    for server in &servers {
        assert_eq!(title(server), "new");
    }
    store.assert_sound_but(&[project_key("a")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_is_older_than_the_last_acknowledged_write() {
    const WRITES: u64 = 150;
    let store = Store::redis();
    for id in ["a", "b"] {
        create(
            &*store.repository,
            &project_key(id),
            with(
                &project(id),
                json!({ "title": "0", "metadata": { "status": "published" } }),
            ),
        )
        .await;
    }
    let servers = Arc::new([serve(&store), serve(&store)]);
    let acknowledged = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let over = Arc::new(AtomicBool::new(false));

    let readers: Vec<_> = (0..4)
        .map(|reader| {
            let (servers, acknowledged, over) = (
                Arc::clone(&servers),
                Arc::clone(&acknowledged),
                Arc::clone(&over),
            );
            thread::spawn(move || {
                let number =
                    |document: &Value| document["title"].as_str().unwrap().parse::<u64>().unwrap();
                let mut reads = 0;
                while !over.load(Ordering::SeqCst) {
                    let server = &servers[reader % 2];
                    for (index, id) in ["a", "b"].into_iter().enumerate() {
                        let before = acknowledged[index].load(Ordering::SeqCst);
                        let one = get_json(server, &format!("/api/projects/{id}"));
                        assert!(
                            number(&one["data"]) >= before,
                            "{id} is shown as of write {}, not {before}: {}",
                            number(&one["data"]),
                            one["meta"]
                        );
                        let before = acknowledged[index].load(Ordering::SeqCst);
                        let list = get_json(server, "/api/projects");
                        let listed = list["data"]
                            .as_array()
                            .unwrap()
                            .iter()
                            .find(|document| document["id"] == json!(id))
                            .unwrap();
                        assert!(
                            number(listed) >= before,
                            "{id} is listed as of write {}, not {before}: {}",
                            number(listed),
                            list["meta"]
                        );
                        reads += 2;
                    }
                }
                reads
            })
        })
        .collect();
    let writers: Vec<_> = ["a", "b"]
        .into_iter()
        .enumerate()
        .map(|(index, id)| {
            let (servers, acknowledged) = (Arc::clone(&servers), Arc::clone(&acknowledged));
            thread::spawn(move || {
                for number in 1..=WRITES {
                    let arguments = json!({ "id": id, "data": { "title": number.to_string() } });
                    let answer = tool_output(&servers[index].call("update_project", &arguments));
                    assert_eq!(answer["success"], json!(true), "{answer}");
                    acknowledged[index].store(number, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    over.store(true, Ordering::SeqCst);

    let reads: u64 = readers
        .into_iter()
        .map(|reader| reader.join().unwrap())
        .sum();
    println!("{reads} reads during {} writes", 2 * WRITES);
    assert!(reads > 0);
    store.assert_sound().await;
}

/// A server that reaches `store` through a proxy and has a snapshot.
async fn serve_through(store: &Store) -> (Proxy, HttpServer) {
    let proxy = Proxy::start(store.server().port()).await;
    let server = HttpServer::start_with(&["--store".to_owned(), proxy.url()]);
    wait_until_async("there is a snapshot", async || {
        get(&server, "/metrics")
            .text()
            .contains("\nportfolio_snapshot_age_seconds ")
            .then_some(())
    })
    .await;
    (proxy, server)
}

const READING: [(&str, &str); 6] = [
    ("list_projects", "{}"),
    ("list_resources", "{}"),
    ("get_project", r#"{"id":"new"}"#),
    ("get_resource", r#"{"id":"new"}"#),
    ("get_audit_log", "{}"),
    ("get_audit_stats", "{}"),
];

/// `before` is the list of projects and `tag` its entity tag before the outage.
fn check_snapshot_is_served(server: &HttpServer, before: &Value, tag: &str) {
    // The first request waits, but not for long.
    let asked = Instant::now();
    assert_eq!(get(server, "/readyz").status, 503);
    assert!(
        asked.elapsed() < Duration::from_secs(3) + MAX_RESPONSE_TIME / 4,
        "/readyz was answered after {:?}",
        asked.elapsed()
    );
    let list = get_json(server, "/api/projects");
    let one = get_json(server, "/api/projects/old");
    assert_eq!(list["data"], before["data"]);
    for (answer, total) in [(&list, true), (&one, false)] {
        let meta = &answer["meta"];
        assert_eq!(meta["source"], "snapshot", "{meta}");
        assert_eq!(meta["stale"], true, "{meta}");
        assert!(
            meta["ageMs"].is_u64() && meta.get("total").is_some() == total,
            "{meta}"
        );
    }
    assert_eq!(
        request(server, "GET", "/api/projects", &[("If-None-Match", tag)]).status,
        304
    );
    assert_eq!(
        get_error(server, "/api/projects/draft"),
        (404, "PROJECT_NOT_PUBLISHED".to_owned())
    );
    // A document that is missing in the snapshot may exist in the store.
    assert_eq!(
        get_error(server, "/api/projects/nothing"),
        (500, "PROJECT_FETCH_ERROR".to_owned())
    );
    assert_eq!(
        get_error(server, "/api/projects/Not_A_Slug"),
        (400, "INVALID_SLUG".to_owned())
    );
    for (tool, arguments) in READING {
        let answer = tool_output(&server.call(tool, &serde_json::from_str(arguments).unwrap()));
        assert_eq!(answer["meta"]["source"], "snapshot", "{tool}: {answer}");
        assert_eq!(answer["meta"]["stale"], true, "{tool}: {answer}");
    }
    let ready = get(server, "/readyz");
    assert_eq!(ready.status, 503);
    let ready = ready.json();
    assert_eq!(ready["reading"]["source"], "snapshot", "{ready}");
    assert_eq!(ready["writing"], false, "{ready}");
    assert!(
        ready["reading"]["ageMs"].is_u64() && ready["reason"].is_string(),
        "{ready}"
    );
    assert_eq!(get(server, "/healthz").json(), json!({ "status": "ok" }));
}

async fn check_website_during(fault: Mode) {
    let store = Store::redis();
    publish(&*store.repository).await;
    let (mut proxy, server) = serve_through(&store).await;
    let tools = server.request("tools/list", &json!({}));
    let (before, tag) = (
        get_json(&server, "/api/projects"),
        get(&server, "/api/projects")
            .header("etag")
            .unwrap()
            .to_owned(),
    );
    assert_eq!(names(&before["meta"]), ["requestId", "timestamp", "total"]);

    proxy.set(fault).await;

    check_snapshot_is_served(&server, &before, &tag);
    assert_eq!(server.request("tools/list", &json!({})), tools);

    update(
        &*store.repository,
        &project_key("new"),
        json!({ "title": "Written elsewhere meanwhile" }),
    )
    .await;
    proxy.set(Mode::Pass).await;

    let recovered = Instant::now();
    let (list, one) = wait_until("the website gets the store's content", || {
        let list = get_json(&server, "/api/projects");
        let one = get_json(&server, "/api/projects/new");
        let fresh = list["meta"].get("source").is_none() && one["meta"].get("source").is_none();
        fresh.then_some((list, one))
    });
    assert_eq!(list["data"][0], one["data"]);
    assert_eq!(one["data"]["title"], "Written elsewhere meanwhile");
    println!(
        "{fault:?}: fresh {:?} after the connection recovered",
        recovered.elapsed()
    );
    assert!(
        recovered.elapsed() < Duration::from_secs(5) + MAX_RESPONSE_TIME / 2,
        "fresh only {:?} after the connection recovered",
        recovered.elapsed()
    );
    wait_until("the server is ready", || {
        (get(&server, "/readyz").status == 200).then_some(())
    });
    for (tool, arguments) in READING {
        let answer = tool_output(&server.call(tool, &serde_json::from_str(arguments).unwrap()));
        assert_eq!(answer["meta"]["source"], "redis", "{tool}: {answer}");
        assert_eq!(answer["meta"].get("stale"), None, "{tool}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_website_reads_the_snapshot_while_the_store_rejects_connections() {
    check_website_during(Mode::Refuse).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_website_reads_the_snapshot_while_the_store_is_silent() {
    check_website_during(Mode::Swallow).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_website_is_answered_over_every_faulty_connection() {
    let store = Store::redis();
    publish(&*store.repository).await;
    let (mut proxy, server) = serve_through(&store).await;
    for fault in [
        Mode::CutAnyRequest,
        Mode::CutAnyReply,
        Mode::CutMidReply,
        Mode::Slow,
        Mode::Trickle,
    ] {
        for path in ["/api/projects", "/api/projects/new", "/api/resources"] {
            // A write by another process, so that the snapshot has to be refreshed.
            update(
                &*store.repository,
                &project_key("new"),
                json!({ "title": format!("{fault:?} before {path}") }),
            )
            .await;
            proxy.set(fault).await;
            let answer = get_json(&server, path);
            let fresh = answer["meta"].get("source").is_none();
            assert!(
                fresh || answer["meta"]["stale"] == json!(true),
                "{fault:?}: {answer}"
            );
            assert!(
                !fresh
                    || path == "/api/resources"
                    || answer
                        .to_string()
                        .contains(&format!("{fault:?} before {path}")),
                "{fault:?}: {answer}"
            );
        }
        proxy.set(Mode::Pass).await;
        wait_until("the server is ready", || {
            (get(&server, "/readyz").status == 200).then_some(())
        });
    }
}

#[test]
fn without_a_store_or_a_snapshot_the_website_gets_errors_in_time() {
    let url = format!("redis://somebody:canary-password@127.0.0.1:{}", free_port());
    let server = HttpServer::start_with(&["--store", &url]);

    assert_eq!(
        get_error(&server, "/api/projects"),
        (500, "PROJECTS_FETCH_ERROR".to_owned())
    );
    assert_eq!(
        get_error(&server, "/api/resources"),
        (500, "RESOURCES_FETCH_ERROR".to_owned())
    );
    assert_eq!(
        get_error(&server, "/api/projects/a"),
        (500, "PROJECT_FETCH_ERROR".to_owned())
    );
    assert_eq!(
        get_error(&server, "/api/resources/a"),
        (500, "RESOURCE_FETCH_ERROR".to_owned())
    );
    assert_eq!(get(&server, "/healthz").status, 200);
    let ready = get(&server, "/readyz");
    assert_eq!(ready.status, 503);
    assert_eq!(ready.header("cache-control"), Some("no-store"));
    let ready = ready.json();
    assert_eq!(ready["reading"]["source"], Value::Null, "{ready}");
    assert_eq!(ready["writing"], false, "{ready}");
    assert!(!ready.to_string().contains("canary"), "{ready}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_needs_a_token_unless_it_is_public() {
    let store = Store::sqlite();
    publish(&*store.repository).await;
    let home = Home::new();
    let tokens = home.path().join("tokens");
    std::fs::write(&tokens, "site:read:site-0123456789abcdef").unwrap();
    let arguments = [
        store.arguments(),
        vec!["--token-file".to_owned(), tokens.display().to_string()],
    ]
    .concat();
    let closed = HttpServer::start_with(&arguments);
    let public =
        HttpServer::start_with(&[arguments.clone(), vec!["--public-api".to_owned()]].concat());
    let token = [("Authorization", "Bearer site-0123456789abcdef")];

    for path in [
        "/api/projects",
        "/api/projects/new",
        "/api/projects/draft",
        "/metrics",
    ] {
        assert_eq!(get(&closed, path).status, 401, "{path}");
    }
    let served = request(&closed, "GET", "/api/projects", &token);
    assert_eq!(served.status, 200);
    assert!(
        served
            .header("cache-control")
            .unwrap()
            .starts_with("private, ")
    );
    assert_eq!(request(&closed, "GET", "/metrics", &token).status, 200);

    let served = get(&public, "/api/projects");
    assert_eq!(served.status, 200);
    assert_eq!(served.header("cache-control"), Some(PUBLIC));
    for path in ["/metrics", "/mcp", "/sse"] {
        assert_eq!(get(&public, path).status, 401, "{path}");
    }
    for server in [&closed, &public] {
        for path in ["/healthz", "/readyz"] {
            assert_eq!(get(server, path).status, 200, "{path}");
        }
    }
}

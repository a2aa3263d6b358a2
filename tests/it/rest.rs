//! What a website reads: published documents alone, never older than what was acknowledged before, whatever the store does.

#![expect(
    clippy::print_stdout,
    reason = "what a test prints is shown with a failure"
)]

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
    domain::{ApiPath, CachedResponse, DocumentKey, Kind},
    store::{Location, Repository, open},
};
use redis::cmd;
use serde_json::{Value, json};

use crate::{
    support::{
        PATIENCE,
        content::{create, create_sound, document, project, project_key, update, with},
        http::{self, Response},
        mcp::said,
        program::Home,
        proxy::{Mode, Proxy},
        redis_server::free_port,
        stores::Store,
        wait_until,
    },
    transport::HttpServer,
};

const PUBLIC: &str = "public, max-age=0, s-maxage=60, stale-while-revalidate=300";
/// A request is answered within 10 seconds; the rest is for a machine that has much else to do.
const ANSWERED: Duration = Duration::from_secs(20);

fn ask(server: &HttpServer, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    let begun = Instant::now();
    let response = http::send(
        server.address,
        method,
        path,
        &[&[("Connection", "close")], headers].concat(),
        "",
    );
    assert!(
        begun.elapsed() < ANSWERED,
        "{method} {path} was answered after {:?}",
        begun.elapsed()
    );
    response
}

fn get(server: &HttpServer, path: &str) -> Response {
    ask(server, "GET", path, &[])
}

/// What a successful answer says.
fn shown(server: &HttpServer, path: &str) -> Value {
    let response = get(server, path);
    let (status, answer) = (response.status, response.json());
    assert_eq!(
        (status, &answer["success"]),
        (200, &json!(true)),
        "{path}: {answer}"
    );
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

/// Status and code of a refusal, which has the contract's form and is not to be stored by anybody.
fn refusal(server: &HttpServer, path: &str) -> (u16, String) {
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
    HttpServer::start_with(Home::new(), &store.arguments())
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
async fn published_documents_are_shown_and_no_others() {
    for store in [Store::redis(), Store::sqlite()] {
        publish(&*store.repository).await;
        let server = serve(&store);
        let mut requests = BTreeSet::new();
        // The second round is answered from what the first left, where something keeps answers.
        for _ in 0..2 {
            for kind in Kind::ALL {
                let (path, upper) = (
                    format!("/api/{}", kind.plural()),
                    kind.singular().to_uppercase(),
                );

                let list = shown(&server, &path);
                let one = shown(&server, &format!("{path}/new"));

                assert_eq!(ids(&list), ["new", "old"], "{store}");
                assert_eq!(list["meta"]["total"], json!(2));
                assert_eq!(names(&list["meta"]), ["requestId", "timestamp", "total"]);
                assert_eq!(names(&one["meta"]), ["requestId", "timestamp"]);
                assert_eq!(one["data"], list["data"][0]);
                assert_eq!(
                    one["data"]["kept"],
                    json!({ "unknown": [1.50, null] }),
                    "what this program does not know is shown too"
                );
                assert!(!list.to_string().contains("SECRET"), "{list}");
                for answer in [&list, &one] {
                    assert!(
                        requests.insert(answer["meta"]["requestId"].to_string()),
                        "a request's id comes twice"
                    );
                }
                for (id, code) in [
                    ("draft", "NOT_PUBLISHED"),
                    ("gone", "NOT_PUBLISHED"),
                    ("nothing", "NOT_FOUND"),
                ] {
                    assert_eq!(
                        refusal(&server, &format!("{path}/{id}")),
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
                        refusal(&server, &format!("{path}/{id}")),
                        (400, "INVALID_SLUG".to_owned()),
                        "{store}: {id}"
                    );
                }
                for method in ["POST", "PUT", "PATCH", "DELETE"] {
                    assert_eq!(ask(&server, method, &path, &[]).status, 405, "{method}");
                    assert_eq!(
                        ask(&server, method, &format!("{path}/new"), &[]).status,
                        405,
                        "{method}"
                    );
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_an_answer_is_not_sent_it_again() {
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

            let head = ask(&server, "HEAD", path, &[]);
            assert_eq!(
                (
                    head.status,
                    head.header("etag"),
                    head.header("content-type")
                ),
                (200, Some(tag.as_str()), Some(type_.as_str()))
            );
            assert_eq!(
                head.header("content-length"),
                Some(length.to_string().as_str()),
                "ids and times have one length"
            );
            for known in [
                tag.clone(),
                format!("W/{tag}"),
                format!("\"x\", {tag}"),
                "*".to_owned(),
            ] {
                for method in ["GET", "HEAD"] {
                    let same = ask(&server, method, path, &[("If-None-Match", &known)]);
                    assert_eq!(
                        (
                            same.status,
                            same.header("etag"),
                            same.header("cache-control")
                        ),
                        (304, Some(tag.as_str()), Some(PUBLIC))
                    );
                    assert!(same.header("x-request-id").is_some());
                }
            }
            assert_eq!(
                ask(&server, "GET", path, &[("If-None-Match", "\"x\"")]).status,
                200
            );
        }
        // A tag is for what is there.
        assert_eq!(
            ask(
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
async fn what_breaks_rules_is_shown_and_what_cannot_be_read_is_left_out() {
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
        ids(&shown(&server, "/api/projects")),
        ["new", "old", "Old_One", "rule-breaker"]
    );
    assert_eq!(
        shown(&server, "/api/projects/rule-breaker")["data"]["tags"],
        json!(5)
    );
    assert_eq!(
        shown(&server, "/api/projects/Old_One")["data"]["id"],
        json!("Old_One")
    );
    assert_eq!(
        refusal(&server, "/api/projects/unreadable"),
        (500, "PROJECT_FETCH_ERROR".to_owned())
    );
    let text = get(&server, "/api/projects/unreadable").text();
    assert!(
        !text.contains("SECRET") && !text.contains("data:projects"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_very_next_read_after_an_update_shows_it() {
    for store in [Store::redis(), Store::sqlite()] {
        publish(&*store.repository).await;
        let server = serve(&store);
        for number in 0..20 {
            let tags = ["/api/projects", "/api/projects/new"]
                .map(|path| (path, get(&server, path).header("etag").unwrap().to_owned()));
            let title = format!("title {number}");

            let answer = said(&server.call(
                "update_project",
                &json!({ "id": "new", "data": { "title": title } }),
            ));

            assert_eq!(answer["success"], json!(true));
            for (path, tag) in tags {
                let fresh = ask(&server, "GET", path, &[("If-None-Match", &tag)]);
                assert_eq!(fresh.status, 200, "{store}: {path} is said to be as it was");
                assert!(fresh.text().contains(&title), "{store}: {path}");
            }
        }
        said(&server.call(
            "update_project",
            &json!({ "id": "new", "data": { "metadata": { "status": "draft" } } }),
        ));
        assert_eq!(
            refusal(&server, "/api/projects/new"),
            (404, "PROJECT_NOT_PUBLISHED".to_owned())
        );
        assert_eq!(ids(&shown(&server, "/api/projects")), ["old"], "{store}");
        store.assert_sound().await;
    }
}

/// What is kept at a key.
fn kept(store: &Store, key: &str) -> Option<Value> {
    let text: Option<String> = store.server().run(cmd("GET").arg(key));
    text.map(|text| serde_json::from_str(&text).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_kept_for_a_minute_and_dropped_by_the_commit() {
    let store = Store::redis();
    publish(&*store.repository).await;
    let server = serve(&store);
    let keys = [
        ("/api/projects", "cache:api:projects"),
        ("/api/projects/new", "cache:api:projects:new"),
    ];
    for (path, key) in keys {
        let answer = shown(&server, path);
        let kept = wait_until("an answer is kept", || kept(&store, key));

        assert_eq!(
            (&kept["success"], &kept["data"]),
            (&json!(true), &answer["data"])
        );
        assert_eq!(kept["meta"]["seq"], json!(8));
        assert_eq!(
            kept["meta"]["etag"].as_str(),
            get(&server, path).header("etag")
        );
        let lasts: i64 = store.server().run(cmd("TTL").arg(key));
        assert!((1..=60).contains(&lasts), "{lasts}");
        // Another reader is shown what was kept: here, what this test made of it.
        let before = answer["data"].to_string();
        let again = shown(&server, path);
        assert_eq!(again["data"].to_string(), before);
        assert_ne!(again["meta"]["requestId"], answer["meta"]["requestId"]);
    }
    refusal(&server, "/api/projects/draft");
    refusal(&server, "/api/projects/nothing");
    assert!(
        said(&server.call("get_project", &json!({ "id": "draft" })))["success"]
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

#[tokio::test(flavor = "multi_thread")]
async fn what_other_programs_left_in_the_cache_is_not_shown() {
    let store = Store::redis();
    publish(&*store.repository).await;
    let server = serve(&store);
    let key = "cache:api:projects:new";
    let own = {
        shown(&server, "/api/projects/new");
        wait_until("an answer is kept", || {
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
            shown(&server, "/api/projects/new")["data"]["id"],
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
        shown(&server, "/api/projects/new")["data"]["id"],
        json!("new")
    );
}

#[tokio::test]
async fn a_reader_that_a_commit_overtook_keeps_nothing() {
    let store = Store::redis();
    let (cache, key) = (store.open().responses.unwrap(), project_key("a"));
    create_sound(&*store.repository, &key).await;
    let ttl = Duration::from_mins(1);
    for api_path in [ApiPath::One(key.clone()), ApiPath::All(Kind::Project)] {
        let CachedResponse { response, seq } = cache.get(&api_path).await.unwrap();
        let seq = seq.unwrap();
        assert_eq!(response, None);

        // It has read, and pauses; somebody writes; it goes on.
        update(
            &*store.repository,
            &key,
            json!({ "title": format!("after {seq}") }),
        )
        .await;
        cache.put(&api_path, seq, "old", ttl).await.unwrap();

        let now = cache.get(&api_path).await.unwrap();
        assert_eq!(
            now,
            CachedResponse {
                response: None,
                seq: Some(seq + 1)
            }
        );
        cache.put(&api_path, seq + 1, "new", ttl).await.unwrap();
        assert_eq!(
            cache.get(&api_path).await.unwrap().response.as_deref(),
            Some("new")
        );

        // A write of something else leaves it, and makes it count no more.
        create_sound(
            &*store.repository,
            &DocumentKey::new(Kind::Resource, format!("b-{seq}")),
        )
        .await;
        assert_eq!(
            cache.get(&api_path).await.unwrap(),
            CachedResponse {
                response: Some("new".to_owned()),
                seq: Some(seq + 2)
            }
        );
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
async fn a_read_only_credential_keeps_nothing_and_reads_what_is_kept() {
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

    reader
        .put(&api_path, 1, "mine", Duration::from_mins(1))
        .await
        .unwrap();
    assert_eq!(
        reader.get(&api_path).await.unwrap(),
        CachedResponse {
            response: None,
            seq: Some(1)
        }
    );
    let writer = store.open().responses.unwrap();
    writer
        .put(&api_path, 1, "theirs", Duration::from_mins(1))
        .await
        .unwrap();
    assert_eq!(
        reader.get(&api_path).await.unwrap(),
        CachedResponse {
            response: Some("theirs".to_owned()),
            seq: Some(1)
        }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_reader_sees_less_than_what_was_acknowledged_before_it_asked() {
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
                    for (place, id) in ["a", "b"].into_iter().enumerate() {
                        let before = acknowledged[place].load(Ordering::SeqCst);
                        let one = shown(server, &format!("/api/projects/{id}"));
                        assert!(
                            number(&one["data"]) >= before,
                            "{id} is shown as of write {}, not {before}: {}",
                            number(&one["data"]),
                            one["meta"]
                        );
                        let before = acknowledged[place].load(Ordering::SeqCst);
                        let list = shown(server, "/api/projects");
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
        .map(|(place, id)| {
            let (servers, acknowledged) = (Arc::clone(&servers), Arc::clone(&acknowledged));
            thread::spawn(move || {
                for number in 1..=WRITES {
                    let arguments = json!({ "id": id, "data": { "title": number.to_string() } });
                    let answer = said(&servers[place].call("update_project", &arguments));
                    assert_eq!(answer["success"], json!(true), "{answer}");
                    acknowledged[place].store(number, Ordering::SeqCst);
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

/// A server on `store` through a line, with a saved copy.
async fn serve_through(store: &Store) -> (Proxy, HttpServer) {
    let proxy = Proxy::start(store.server().port()).await;
    let server = HttpServer::start_with(Home::new(), &["--store".to_owned(), proxy.url()]);
    let begun = Instant::now();
    while !get(&server, "/metrics")
        .text()
        .contains("\nportfolio_snapshot_age_seconds ")
    {
        assert!(begun.elapsed() < PATIENCE, "there is no saved copy");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
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

async fn the_website_goes_on_through(fault: Mode) {
    let store = Store::redis();
    publish(&*store.repository).await;
    let (mut proxy, server) = serve_through(&store).await;
    let tools = server.request("tools/list", &json!({}));
    let (before, tag) = (
        shown(&server, "/api/projects"),
        get(&server, "/api/projects")
            .header("etag")
            .unwrap()
            .to_owned(),
    );
    assert_eq!(names(&before["meta"]), ["requestId", "timestamp", "total"]);

    proxy.set(fault).await;

    // The first one to ask waits, but not for long.
    let asked = Instant::now();
    assert_eq!(get(&server, "/readyz").status, 503);
    assert!(
        asked.elapsed() < Duration::from_secs(3) + ANSWERED / 4,
        "/readyz was answered after {:?}",
        asked.elapsed()
    );
    let list = shown(&server, "/api/projects");
    let one = shown(&server, "/api/projects/old");
    assert_eq!(list["data"], before["data"]);
    for (answer, total) in [(&list, true), (&one, false)] {
        let meta = &answer["meta"];
        assert_eq!(
            (&meta["source"], &meta["stale"]),
            (&json!("snapshot"), &json!(true)),
            "{meta}"
        );
        assert!(
            meta["ageMs"].is_u64() && meta.get("total").is_some() == total,
            "{meta}"
        );
    }
    assert_eq!(
        ask(&server, "GET", "/api/projects", &[("If-None-Match", &tag)]).status,
        304
    );
    assert_eq!(
        refusal(&server, "/api/projects/draft"),
        (404, "PROJECT_NOT_PUBLISHED".to_owned())
    );
    // That it is not in the copy does not prove that it is not there.
    assert_eq!(
        refusal(&server, "/api/projects/nothing"),
        (500, "PROJECT_FETCH_ERROR".to_owned())
    );
    assert_eq!(
        refusal(&server, "/api/projects/Not_A_Slug"),
        (400, "INVALID_SLUG".to_owned())
    );
    for (tool, arguments) in READING {
        let answer = said(&server.call(tool, &serde_json::from_str(arguments).unwrap()));
        assert_eq!(
            (&answer["meta"]["source"], &answer["meta"]["stale"]),
            (&json!("snapshot"), &json!(true)),
            "{tool}: {answer}"
        );
    }
    assert_eq!(server.request("tools/list", &json!({})), tools);
    let ready = get(&server, "/readyz");
    assert_eq!(ready.status, 503);
    let ready = ready.json();
    assert_eq!(
        (&ready["reading"]["source"], &ready["writing"]),
        (&json!("snapshot"), &json!(false)),
        "{ready}"
    );
    assert!(
        ready["reading"]["ageMs"].is_u64() && ready["reason"].is_string(),
        "{ready}"
    );
    assert_eq!(get(&server, "/healthz").json(), json!({ "status": "ok" }));

    update(
        &*store.repository,
        &project_key("new"),
        json!({ "title": "Written elsewhere meanwhile" }),
    )
    .await;
    proxy.set(Mode::Pass).await;

    let healed = Instant::now();
    loop {
        let (list, one) = (
            shown(&server, "/api/projects"),
            shown(&server, "/api/projects/new"),
        );
        if list["meta"].get("source").is_none() && one["meta"].get("source").is_none() {
            assert_eq!(
                (&list["data"][0], &one["data"]["title"]),
                (&one["data"], &json!("Written elsewhere meanwhile"))
            );
            break;
        }
        assert!(
            healed.elapsed() < PATIENCE,
            "the website is still shown the saved copy"
        );
    }
    println!(
        "{fault:?}: fresh {:?} after the line healed",
        healed.elapsed()
    );
    assert!(
        healed.elapsed() < Duration::from_secs(5) + ANSWERED / 2,
        "fresh only {:?} after the line healed",
        healed.elapsed()
    );
    wait_until("the server is ready", || {
        (get(&server, "/readyz").status == 200).then_some(())
    });
    for (tool, arguments) in READING {
        let answer = said(&server.call(tool, &serde_json::from_str(arguments).unwrap()));
        assert_eq!(
            (&answer["meta"]["source"], answer["meta"].get("stale")),
            (&json!("redis"), None),
            "{tool}: {answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_website_goes_on_reading_from_the_saved_copy_while_the_store_refuses() {
    the_website_goes_on_through(Mode::Refuse).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_website_goes_on_reading_from_the_saved_copy_while_the_store_is_silent() {
    the_website_goes_on_through(Mode::Swallow).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_website_is_answered_over_every_bad_line() {
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
            // A write elsewhere, so that the copy has something to ask for.
            update(
                &*store.repository,
                &project_key("new"),
                json!({ "title": format!("{fault:?} before {path}") }),
            )
            .await;
            proxy.set(fault).await;
            let answer = shown(&server, path);
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
fn without_a_store_and_without_a_copy_the_website_is_told_so_in_time() {
    let url = format!("redis://somebody:canary-password@127.0.0.1:{}", free_port());
    let server = HttpServer::start_with(Home::new(), &["--store", &url]);

    assert_eq!(
        refusal(&server, "/api/projects"),
        (500, "PROJECTS_FETCH_ERROR".to_owned())
    );
    assert_eq!(
        refusal(&server, "/api/resources"),
        (500, "RESOURCES_FETCH_ERROR".to_owned())
    );
    assert_eq!(
        refusal(&server, "/api/projects/a"),
        (500, "PROJECT_FETCH_ERROR".to_owned())
    );
    assert_eq!(
        refusal(&server, "/api/resources/a"),
        (500, "RESOURCE_FETCH_ERROR".to_owned())
    );
    assert_eq!(get(&server, "/healthz").status, 200);
    let ready = get(&server, "/readyz");
    assert_eq!(
        (ready.status, ready.header("cache-control")),
        (503, Some("no-store"))
    );
    let ready = ready.json();
    assert_eq!(
        (&ready["reading"]["source"], &ready["writing"]),
        (&Value::Null, &json!(false)),
        "{ready}"
    );
    assert!(!ready.to_string().contains("canary"), "{ready}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_needed_unless_what_is_published_is_public() {
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
    let closed = HttpServer::start_with(Home::new(), &arguments);
    let public = HttpServer::start_with(
        Home::new(),
        &[arguments.clone(), vec!["--public-api".to_owned()]].concat(),
    );
    let token = [("Authorization", "Bearer site-0123456789abcdef")];

    for path in [
        "/api/projects",
        "/api/projects/new",
        "/api/projects/draft",
        "/metrics",
    ] {
        assert_eq!(get(&closed, path).status, 401, "{path}");
    }
    let shown = ask(&closed, "GET", "/api/projects", &token);
    assert_eq!(shown.status, 200);
    assert!(
        shown
            .header("cache-control")
            .unwrap()
            .starts_with("private, ")
    );
    assert_eq!(ask(&closed, "GET", "/metrics", &token).status, 200);

    let shown = get(&public, "/api/projects");
    assert_eq!(
        (shown.status, shown.header("cache-control")),
        (200, Some(PUBLIC))
    );
    for path in ["/metrics", "/mcp", "/sse"] {
        assert_eq!(get(&public, path).status, 401, "{path}");
    }
    for server in [&closed, &public] {
        for path in ["/healthz", "/readyz"] {
            assert_eq!(get(server, path).status, 200, "{path}");
        }
    }
}

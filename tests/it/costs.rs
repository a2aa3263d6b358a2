//! What the server asks of Redis and how many bytes that is: the table in docs/operations.md.
//!
//! Hosted Redis is billed by both.

use std::{thread, time::Duration};

use portfolio_mcp::domain::{DocumentKey, Kind};
use serde_json::json;

use crate::support::{
    fixtures::{create, document, update, with},
    messages::tool_output,
    proxy::{Proxy, Traffic},
    server::HttpServer,
    stores::Store,
};

const DOCS: &str = include_str!("../../docs/operations.md");

/// The documents of the site, 13 kB together, and the length of its log.
const PROJECTS: usize = 8;
const RESOURCES: usize = 5;
const ENTRIES: usize = 1000;

/// The traffic of what `run` does, and of what the server does afterwards because of it.
fn traffic_of(proxy: &Proxy, run: impl FnOnce()) -> Traffic {
    let before = proxy.traffic_at_rest();
    run();
    let after = proxy.traffic_at_rest();
    Traffic {
        commands: after.commands - before.commands,
        bytes: after.bytes - before.bytes,
    }
}

/// A row of the table in the documentation: at most so many commands and bytes.
fn promised(what: &str) -> Traffic {
    let number = |cell: &str| cell.trim().replace(',', "").parse().unwrap();
    let row = DOCS
        .lines()
        .find(|line| line.starts_with(&format!("| {what} |")))
        .unwrap_or_else(|| panic!("docs/operations.md has no costs of `{what}`"));
    let cells: Vec<&str> = row.split('|').collect();
    Traffic {
        commands: number(cells[2]),
        bytes: number(cells[3]),
    }
}

/// What was measured, to be compared with the documentation at the end.
#[derive(Default)]
struct Costs(Vec<String>);

impl Costs {
    /// The documentation promises no less than what was measured, and not much more.
    fn check(&mut self, what: &str, measured: Traffic) {
        let Traffic { commands, bytes } = measured;
        println!("| {what} | {commands} | {bytes} |");
        let promised = promised(what);
        let within = |promised: u64, measured: u64, slack: u64| {
            (measured..=2 * measured + slack).contains(&promised)
        };
        if !within(promised.commands, commands, 2) || !within(promised.bytes, bytes, 500) {
            self.0
                .push(format!("{what}: {measured:?}, promised {promised:?}"));
        }
    }
}

async fn site() -> Store {
    let store = Store::redis();
    let text = "A document of about 1 kB. ".repeat(15);
    let published = json!({ "description": text, "metadata": { "status": "published" } });
    for number in 0..PROJECTS {
        let key = DocumentKey::new(Kind::Project, format!("p{number}"));
        let document = with(&document(key.kind, &key.id), published.clone());
        create(&*store.repository, &key, document).await;
    }
    for number in 0..RESOURCES {
        let key = DocumentKey::new(Kind::Resource, format!("r{number}"));
        let document = with(&document(key.kind, &key.id), published.clone());
        create(&*store.repository, &key, document).await;
    }
    for number in PROJECTS + RESOURCES..ENTRIES {
        let key = DocumentKey::new(Kind::Project, format!("p{}", number % PROJECTS));
        let patch = json!({ "title": format!("Title {number}") });
        update(&*store.repository, &key, patch).await;
    }
    store
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_costs_what_the_documentation_says() {
    let store = site().await;
    let proxy = Proxy::start(store.server().port()).await;
    let mut costs = Costs::default();
    let server = HttpServer::start_with(&["--store", &proxy.url(), "--rate-limit", "0"]);
    costs.check("start", proxy.traffic_at_rest());
    let call = |tool: &str, arguments: serde_json::Value| {
        let answer = tool_output(&server.call(tool, &arguments));
        assert_eq!(answer["success"], true, "{answer}");
        assert_ne!(answer["meta"]["stale"], true, "{answer}");
    };
    let visit = || {
        let response = server.get("/api/projects");
        assert_eq!(response.status, 200, "{response:?}");
    };

    let measured = traffic_of(&proxy, || call("get_project", json!({ "id": "p1" })));
    costs.check("get of a document of 1 kB", measured);
    let measured = traffic_of(&proxy, || call("list_projects", json!({})));
    costs.check("list", measured);
    let measured = traffic_of(&proxy, || call("get_audit_log", json!({ "limit": 20 })));
    costs.check("page of 20 entries of the log", measured);
    let measured = traffic_of(&proxy, visit);
    costs.check(
        "visit of the website, the first after a write or a minute",
        measured,
    );
    let measured = traffic_of(&proxy, visit);
    costs.check("visit of the website, each other", measured);
    let measured = traffic_of(&proxy, || {
        call(
            "update_project",
            json!({ "id": "p1", "data": { "title": "New" } }),
        );
    });
    costs.check("update of a document of 1 kB", measured);
    let ready = traffic_of(&proxy, || {
        let response = server.get("/readyz");
        assert_eq!(response.status, 200, "{response:?}");
    });
    // The server asks the same every five minutes; a test of the snapshot counts how often.
    let hour = Traffic {
        commands: 12 * ready.commands,
        bytes: 12 * ready.bytes,
    };
    costs.check("idle hour", hour);

    // What an edit by hand may take to show has passed.
    thread::sleep(Duration::from_mins(1));
    let measured = traffic_of(&proxy, || call("list_projects", json!({})));
    costs.check("list, once a minute", measured);

    assert_eq!(costs.0, Vec::<String>::new());
    store.assert_sound().await;
}

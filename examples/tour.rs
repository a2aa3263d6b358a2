//! A tour: imports sample content into a temporary store, starts the server, and calls its tools as
//! a client does.
//!
//! `cargo run --release --example tour` needs no Redis and leaves nothing behind.
#![expect(
    clippy::indexing_slicing,
    reason = "indexing a JSON value gives null where there is nothing"
)]

use std::{
    env,
    error::Error,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anstream::println;
use anstyle::Style;
use portfolio_mcp::style::{BAD, GOOD};
use serde_json::{Value, json};
use support::stdio::StdioClient;

#[path = "../tests/it/support"]
#[expect(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the kit is for tests, which use the rest of it"
)]
mod support {
    pub(crate) mod messages;
    pub(crate) mod process;
    pub(crate) mod stdio;
    pub(crate) mod wait;
}

/// What a terminal shows in a line.
const COLUMNS: usize = 80;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let binary = build()?;
    let folder = tempfile::tempdir()?;
    let store = format!("sqlite:{}", folder.path().join("tour.db").display());

    import(&binary, &store)?;
    let toolsets = ["--toolsets", "content,history"];
    let server = [&["stdio", "--store", &store], &toolsets[..]].concat();
    let server = command(&binary, &server);
    let client = StdioClient::spawn(folder, server);
    client.initialize("tour", env!("CARGO_PKG_VERSION")).await;

    list(&client).await;
    let edited = edit(&client).await;
    edit_parts(&client).await;
    be_refused(&client).await;
    edit_once(&client).await;
    audit(&client).await;
    undo(&client, &edited).await;
    count(&client).await;

    let exit = client.finish();
    if !exit.success() {
        return Err(format!("the server ended with {exit}").into());
    }
    println!();
    show(
        "The temporary store is deleted. README.md says how to point a client at your own content.",
    );
    Ok(())
}

fn import(binary: &Path, store: &str) -> Result<()> {
    step("1. Import the sample content into a temporary store");
    let content = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/content");
    let imported = command(
        binary,
        &["import", &content.to_string_lossy(), "--store", store],
    )
    .output()?;
    for line in String::from_utf8_lossy(&imported.stdout).lines() {
        show(&format!("  {line}"));
    }
    if !imported.status.success() {
        return Err(String::from_utf8_lossy(&imported.stderr).into());
    }
    Ok(())
}

async fn list(client: &StdioClient) {
    step("2. list_projects and list_resources: short rows, newest first");
    for (tool, last) in [("list_projects", "result"), ("list_resources", "price")] {
        for row in client.call(tool, json!({})).await["data"]
            .as_array()
            .into_iter()
            .flatten()
        {
            show(&format!(
                "  {:<30} {:<10} {}",
                text(&row["id"]),
                text(&row["status"]),
                text(&row[last])
            ));
        }
    }
    let found = client
        .call(
            "list_projects",
            json!({ "query": "BATIMENT artisans", "tag": "sms" }),
        )
        .await;
    show(&format!(
        "  searched for `BATIMENT artisans`, tag `sms`, whatever case and accents: {} found",
        found["meta"]["total"]
    ));
}

/// Edits a project; gives the audit id of the change.
async fn edit(client: &StdioClient) -> Value {
    step("3. get_project: one document and its version");
    let project = client
        .call("get_project", json!({ "id": "rdv-artisan" }))
        .await;
    let version = project["meta"]["version"].clone();
    show(&format!(
        "  {}\n  for {}, {}",
        text(&project["data"]["title"]),
        text(&project["data"]["client"]["type"]),
        text(&project["data"]["client"]["size"])
    ));
    show(&format!("  version {}", text(&version)));

    step("4. update_project with dryRun: what would change");
    let patch = json!({ "client": { "size": "40 entreprises, 118 salariés" }, "metadata": { "featured": false } });
    let preview = client
        .call(
            "update_project",
            json!({ "id": "rdv-artisan", "data": patch, "dryRun": true }),
        )
        .await;
    show_changes(&preview);

    step("5. update_project: the edit, guarded by the version, with a reason for the record");
    let arguments = json!({ "id": "rdv-artisan", "data": patch, "expectedVersion": version, "reason": "two companies joined" });
    let updated = client.call("update_project", arguments).await;
    show_changes(&updated);
    show(&format!(
        "  recorded as {}",
        text(&updated["meta"]["auditId"])
    ));
    updated["meta"]["auditId"].clone()
}

async fn edit_parts(client: &StdioClient) {
    step("6. update_project with edits: parts of a text and of a list");
    let edits = json!([
        { "path": "challenge", "op": "find", "value": "un sur trois n'était", "with": "un sur quatre n’était" },
        { "path": "tags", "op": "append", "value": "agenda" },
    ]);
    let arguments = json!({ "id": "rdv-artisan", "edits": edits });
    let updated = client.call("update_project", arguments).await;
    show("  found by its plain spelling, though the text has a typographic apostrophe");
    show_changes(&updated);
}

async fn be_refused(client: &StdioClient) {
    step("7. update_project with mistakes: rejected, every reason at once, nothing written");
    let mistakes = json!({ "titel": "Artisans", "metadata": { "status": "live" }, "testimonial": null, "image": "javascript:alert(1)" });
    let rejected = client
        .call(
            "update_project",
            json!({ "id": "rdv-artisan", "data": mistakes }),
        )
        .await;
    show_error(&rejected);

    step("8. update_project with an old version: a conflict, so nobody's work is overwritten");
    let stale = json!({ "id": "rdv-artisan", "data": { "title": "Artisans" }, "expectedVersion": "0123456789abcdef" });
    show_error(&client.call("update_project", stale).await);
}

async fn edit_once(client: &StdioClient) {
    step("9. get_resource and update_resource, sent twice with one idempotencyKey: applied once");
    let resource = client
        .call(
            "get_resource",
            json!({ "id": "calculateur-tarif-freelance" }),
        )
        .await;
    show(&format!(
        "  {} costs {}",
        text(&resource["data"]["title"]),
        text(&resource["data"]["price"])
    ));
    for attempt in ["first ", "second"] {
        let arguments = json!({ "id": "calculateur-tarif-freelance", "data": { "price": "Gratuit" }, "idempotencyKey": "tour-free" });
        let answer = client.call("update_resource", arguments).await;
        show(&format!(
            "  {attempt} call: recorded as {}, replayed: {}",
            text(&answer["meta"]["auditId"]),
            answer["meta"]["replayed"] == json!(true)
        ));
    }
}

async fn audit(client: &StdioClient) {
    step("10. get_audit_log: who changed what, before and after");
    for entry in client
        .call("get_audit_log", json!({ "action": "update" }))
        .await["data"]
        .as_array()
        .into_iter()
        .flatten()
    {
        show(&format!(
            "  #{} {} {} {} `{}` by {} through {} over {}, reason: {}",
            entry["seq"],
            text(&entry["timestamp"]),
            text(&entry["action"]),
            text(&entry["entityType"]),
            text(&entry["entityId"]),
            text(&entry["actor"]),
            text(&entry["clientId"]),
            text(&entry["transport"]),
            text(&entry["reason"]),
        ));
        show_difference(&entry["changes"]);
    }
}

async fn undo(client: &StdioClient, edited: &Value) {
    step("11. update_project with undo: step 5 is taken back, step 6 stays");
    let arguments = json!({ "id": "rdv-artisan", "undo": edited });
    show_changes(&client.call("update_project", arguments).await);

    step("12. undo_changes with dryRun: what undoing all that this client did would change");
    let arguments = json!({ "since": "2025-01-01T00:00:00Z", "clientId": "tour", "dryRun": true });
    let undone = client.call("undo_changes", arguments).await;
    for document in undone["data"].as_array().into_iter().flatten() {
        show(&format!("  {}", text(&document["title"])));
        show_difference(&document["changes"]);
    }
    let counts = &undone["meta"]["counts"];
    show(&format!(
        "  {} fields go back, {} stay, {} have gone back already",
        counts["undone"], counts["kept"], counts["alreadyGone"]
    ));
}

async fn count(client: &StdioClient) {
    step("13. get_audit_stats");
    let stats = client.call("get_audit_stats", json!({})).await["data"].clone();
    show(&format!(
        "  {} entries, by action {}, by kind {}, by source {}",
        stats["totalEntries"],
        stats["entriesByAction"],
        stats["entriesByEntityType"],
        stats["entriesBySource"]
    ));
}

/// Builds the server, because `cargo run --example` builds only the example.
fn build() -> Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // `cargo run` sets these for this example. A build script that depends on them would run again,
    // and all that depends on it would be built again, for minutes.
    for (name, _) in env::vars_os() {
        let shown = name.to_string_lossy();
        if shown.starts_with("CARGO_PKG_") || shown.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    let built = command
        .args([
            "build",
            "--release",
            "--bin",
            "portfolio-mcp",
            "--message-format=json-render-diagnostics",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()?;
    if !built.status.success() {
        return Err("the server could not be built".into());
    }
    let messages = String::from_utf8(built.stdout)?;
    let executables = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut found =
        executables.filter_map(|message| message["executable"].as_str().map(PathBuf::from));
    found
        .next_back()
        .ok_or_else(|| "cargo did not say where the server is".into())
}

/// The server, without variables of this process that choose a store.
fn command(binary: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary);
    command.args(arguments).env("PORTFOLIO_LOG", "warn");
    for (name, _) in
        env::vars().filter(|(name, _)| name.starts_with("PORTFOLIO_") && name != "PORTFOLIO_LOG")
    {
        command.env_remove(name);
    }
    command
}

fn step(title: &str) {
    println!();
    show(title);
}

/// Prints a line, in several that fit on a terminal if it is longer.
fn show(line: &str) {
    show_styled(Style::new(), line);
}

fn show_styled(style: Style, line: &str) {
    for line in wrap(line) {
        println!("{style}{line}{style:#}");
    }
}

/// The lines of a text; those after the first are indented further.
fn wrap(text: &str) -> Vec<String> {
    let indent = text.len() - text.trim_start().len() + 2;
    let mut lines = vec![String::new()];
    for word in text.split_inclusive(' ') {
        let mut rest = word;
        while !rest.is_empty() {
            let line = lines.last().map_or(0, |line| line.chars().count());
            let length = rest.trim_end().chars().count();
            if line + length <= COLUMNS {
                lines
                    .iter_mut()
                    .next_back()
                    .into_iter()
                    .for_each(|line| line.push_str(rest));
                break;
            }
            let is_full = line > indent;
            if is_full {
                lines.push(" ".repeat(indent));
                continue;
            }
            // A word that fits on no line.
            let end = rest
                .char_indices()
                .nth(COLUMNS - line)
                .map_or(rest.len(), |(end, _)| end);
            let (part, after) = rest.split_at(end);
            lines
                .iter_mut()
                .next_back()
                .into_iter()
                .for_each(|line| line.push_str(part));
            lines.push(" ".repeat(indent));
            rest = after;
        }
    }
    lines
        .into_iter()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn show_changes(answer: &Value) {
    show_difference(&answer["meta"]["changes"]);
}

fn show_difference(changes: &Value) {
    for change in changes.as_array().into_iter().flatten() {
        show(&format!("  {}", text(&change["field"])));
        // The change of a long text is shown as the edit that takes it back.
        let undo = change.get("undoEdit");
        let (old, new) = undo.map_or((change.get("oldValue"), change.get("newValue")), |edit| {
            (edit.get("with"), edit.get("value"))
        });
        for (style, sign, value) in [(BAD, "-", old), (GOOD, "+", new)] {
            if let Some(value) = value {
                show_styled(style, &format!("    {sign} {value}"));
            }
        }
    }
}

fn show_error(answer: &Value) {
    let error = &answer["error"];
    show(&format!("  {}", text(&error["code"])));
    for line in text(&error["message"]).lines() {
        show(&format!("  {line}"));
    }
}

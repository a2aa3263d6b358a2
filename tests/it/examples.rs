//! The examples in the documents: they parse, hold no password, name options and files that exist,
//! and work in their order.

use std::{
    collections::BTreeSet,
    env, fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Output},
};

use clap::{CommandFactory, Parser, error::ErrorKind};
use portfolio_mcp::cli::Cli;
use serde_json::{Value, json};

use crate::support::{
    http,
    program::{Home, PROGRAM, repository_path},
    server::HttpServer,
    stdio::StdioClient,
};

const DOCUMENTS: [&str; 5] = [
    "README.md",
    "CONTRIBUTING.md",
    "docs/architecture.md",
    "docs/clients.md",
    "docs/operations.md",
];

/// A block of code in a document.
#[derive(Debug)]
struct Block {
    document: &'static str,
    heading: String,
    language: String,
    text: String,
}

#[test]
fn examples_of_configurations_parse_and_start_one_server() {
    for block in configurations() {
        let servers = ["mcpServers", "servers", "mcp_servers"]
            .iter()
            .find_map(|name| block.value[name].as_object())
            .unwrap_or_else(|| panic!("no server is configured in: {block:?}"));

        assert_eq!(
            servers.len(),
            1,
            "two servers offer the same tools twice: {block:?}"
        );
    }
}

#[test]
fn examples_hold_no_password() {
    let mut texts: Vec<String> = blocks().into_iter().map(|block| block.text).collect();
    texts.push(read("mcp.json.example"));

    for text in texts {
        for word in text.split_whitespace() {
            let credentials = word
                .split_once("://")
                .is_some_and(|(_, rest)| rest.contains('@'));
            assert!(!credentials, "a password is in the example: {text}");
        }
        for (_, token) in text
            .match_indices("Bearer ")
            .map(|(at, found)| text.split_at(at + found.len()))
        {
            assert!(
                token.trim_start_matches('"').starts_with('$'),
                "a token is in the example, not a variable: {text}"
            );
        }
    }
}

#[test]
fn the_program_takes_every_command_of_the_examples() {
    let commands = program_commands();
    assert!(commands.len() > 20, "found only: {commands:?}");

    for command in commands {
        if let Err(error) = Cli::try_parse_from(&command) {
            let prints = [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion];
            assert!(
                prints.contains(&error.kind()),
                "{}: {error}",
                command.join(" ")
            );
        }
    }
}

#[test]
fn every_option_that_is_named_exists() {
    let own = options(&Cli::command());
    let foreign: BTreeSet<String> = shell_commands()
        .into_iter()
        .flat_map(|words| words.into_iter().take_while(|word| word != "portfolio-mcp"))
        .filter(|word| word.starts_with("--"))
        .collect();

    for document in ["README.md", "docs/clients.md", "docs/operations.md"] {
        for span in code_spans(&read(document)) {
            let Some(name) = span
                .split_whitespace()
                .find(|word| word.starts_with("--") && word.len() > 2)
            else {
                continue;
            };
            assert!(
                own.contains(name) || foreign.contains(name),
                "{document} names the option `{name}`, which does not exist"
            );
        }
    }
}

#[test]
fn every_file_that_is_named_exists() {
    let top = [
        ".ci/",
        ".github/",
        "docs/",
        "examples/",
        "fuzz/",
        "scripts/",
        "src/",
        "tests/",
        "tools/",
    ];
    for document in DOCUMENTS {
        let markdown = read(document);
        let spans = code_spans(&markdown);
        let words = shell_commands_of(document).into_iter().flatten();
        for path in spans.into_iter().chain(words) {
            let path = path.trim_end_matches('/');
            // `fuzz/artifacts` is what a fuzzer writes.
            let named = top.iter().any(|folder| path.starts_with(folder))
                && !path.contains([' ', '{', '*', '…'])
                && path != "fuzz/artifacts";
            assert!(
                !named || repository_path(path).exists(),
                "{document} names {path}, which does not exist"
            );
        }
    }
}

#[test]
fn cargo_keeps_to_the_lock_file() {
    for words in shell_commands() {
        let builds = ["build", "clippy", "doc", "install", "run", "test"];
        if words[0] == "cargo" && builds.contains(&words[1].as_str()) {
            assert!(
                words.iter().any(|word| word == "--locked"),
                "add --locked: {}",
                words.join(" ")
            );
        }
    }
}

#[test]
fn the_quick_start_works_as_it_is_written() {
    let clone = FreshClone::new();
    let lines = lines_under("README.md", "Quick start");
    let [import, serve, read] = &lines[..] else {
        panic!("the quick start has other commands now: {lines:?}");
    };

    clone.run(import);
    let server = clone.serve(serve);
    let document = server.get(&path_of(read));

    assert_eq!(document.status, 200, "{read}");
    let [again] = &lines_under("README.md", "Website API")[..] else {
        panic!("the website's API has more than one example");
    };
    let response = server.get(&path_of(again));
    assert_eq!(response.status, 200, "{again}");
}

#[test]
fn the_file_with_the_address_of_the_store_works_as_it_is_written() {
    for (document, heading) in [
        ("README.md", "Connect a client"),
        ("docs/clients.md", "Before you start"),
    ] {
        let clone = FreshClone::new();
        let lines = lines_under(document, heading);
        let [make, check, ..] = &lines[..] else {
            panic!("{document}, {heading} has other commands now: {lines:?}");
        };

        clone.run(make);
        clone.name_a_store();
        clone.run(check);
    }
}

#[test]
fn the_tokens_of_the_examples_work_as_they_are_written() {
    let clone = FreshClone::new();
    clone.run(&lines_under("docs/clients.md", "Before you start")[0]);
    clone.name_a_store();
    let lines = lines_under("docs/clients.md", "Serve clients over HTTP");
    let [_, make, serve, export, read] = &lines[..] else {
        panic!("other commands now: {lines:?}");
    };

    clone.run(make);
    let server = clone.serve(serve);
    let token = clone.run(&format!("{export}; printf %s \"$SITE_TOKEN\""));
    let token = String::from_utf8(token.stdout).unwrap();
    let authorization = format!("Bearer {token}");
    let headers = [("Authorization", authorization.as_str())];
    let response = http::send(server.address, "GET", &path_of(read), &headers, "");

    assert_eq!(response.status, 200, "{read}: {token}");
    assert_eq!(server.get(&path_of(read)).status, 401);
}

#[tokio::test]
async fn approving_works_as_it_is_written() {
    let clone = FreshClone::new();
    clone.run("portfolio-mcp import examples/content --store sqlite:demo.db");
    let store = format!("sqlite:{}", clone.home.path().join("demo.db").display());
    let client = StdioClient::start_with(&["--store", &store]).await;
    let dry = json!({ "id": "rdv-artisan", "data": { "title": "Planned" }, "dryRun": true });
    let shown = client.call("update_project", dry).await;
    let plan = shown["meta"]["plan"]["id"].as_str().unwrap();
    let lines = lines_under("README.md", "Approve a change before it happens");
    let [show, apply] = &lines[..] else {
        panic!("other commands now: {lines:?}");
    };
    let run = |line: &str| {
        let line = line.replace("PLAN_ID", plan);
        clone.run(&format!("PORTFOLIO_STORE=sqlite:demo.db {line}"))
    };

    let output = String::from_utf8(run(show).stdout).unwrap();
    run(&apply.replace("PLAN_ID", "PLAN_ID --yes"));

    assert!(output.contains("Planned"), "{output}");
    let project = client.call("get_project", json!({ "id": "rdv-artisan" }));
    assert_eq!(project.await["data"]["title"], "Planned");
}

#[tokio::test]
async fn undoing_works_as_it_is_written() {
    let clone = FreshClone::new();
    clone.run("portfolio-mcp import examples/content --store sqlite:demo.db");
    let store = format!("sqlite:{}", clone.home.path().join("demo.db").display());
    let client = StdioClient::spawn_with(&["--store", &store]);
    client.initialize("claude-code", "2.1.0").await;
    let project = async || {
        let project = client.call("get_project", json!({ "id": "rdv-artisan" }));
        project.await["data"].clone()
    };
    let update = async |data: Value| {
        let arguments = json!({ "id": "rdv-artisan", "data": data });
        let updated = client.call("update_project", arguments).await;
        updated["meta"]["auditId"].as_str().unwrap().to_owned()
    };
    let lines = lines_under("README.md", "When the AI got it wrong");
    let [one, all] = &lines[..] else {
        panic!("other commands now: {lines:?}");
    };
    let run = |line: &str| clone.run(&format!("PORTFOLIO_STORE=sqlite:demo.db {line} --yes"));
    let before = project().await;

    let first = update(json!({ "client": { "size": "wrong" } })).await;
    update(json!({ "result": "wrong" })).await;
    run(&one.replace("AUDIT_ID", &first));
    let between = project().await;
    run(all);

    assert_eq!(between["client"], before["client"]);
    assert_eq!(between["result"], "wrong");
    assert_eq!(project().await["result"], before["result"]);
}

/// A folder with the examples, as a fresh clone has them, which is the home of its user too.
struct FreshClone {
    home: Home,
}

impl FreshClone {
    fn new() -> Self {
        let home = Home::new();
        symlink(repository_path("examples"), home.path().join("examples")).unwrap();
        Self { home }
    }

    /// Imports the sample content, and writes the address of its store into the file for it.
    fn name_a_store(&self) {
        self.run("portfolio-mcp import examples/content --store sqlite:demo.db");
        let file = self.home.path().join(".config/portfolio-mcp/store");
        let store = self.home.path().join("demo.db");
        fs::write(file, format!("sqlite:{}\n", store.display())).unwrap();
    }

    /// Runs a line in a shell, which must succeed.
    fn run(&self, line: &str) -> Output {
        let folder = Path::new(PROGRAM).parent().unwrap();
        let path = format!(
            "{}:{}",
            folder.display(),
            env::var("PATH").unwrap_or_default()
        );
        let output = self
            .home
            .command("sh")
            .env("PATH", path)
            .args(["-c", line])
            .output()
            .unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
        output
    }

    /// Starts the server of a line on a port of its own, in this folder.
    fn serve(&self, line: &str) -> HttpServer {
        let home = format!(" {}/", self.home.path().display());
        let words = shlex::split(&line.replace(" ~/", &home)).unwrap();
        assert_eq!(words[..2], ["portfolio-mcp", "http"], "{line}");
        let mut command = Command::new(PROGRAM);
        command
            .env_clear()
            .env("PORTFOLIO_LISTEN", "127.0.0.1:0")
            .current_dir(self.home.path())
            .args(&words[1..]);
        HttpServer::spawn(Home::new(), command)
    }
}

/// The path of the address in a `curl` line.
fn path_of(line: &str) -> String {
    let words = shlex::split(line).unwrap();
    assert_eq!(words[0], "curl", "{line}");
    let path = words
        .last()
        .unwrap()
        .strip_prefix("http://127.0.0.1:8787")
        .unwrap();
    path.to_owned()
}

/// An example of a client's configuration.
#[derive(Debug)]
struct Configuration {
    document: &'static str,
    value: Value,
}

fn configurations() -> Vec<Configuration> {
    let mut found = vec![Configuration {
        document: "mcp.json.example",
        value: serde_json::from_str(&read("mcp.json.example")).unwrap(),
    }];
    for block in blocks() {
        let value = match block.language.as_str() {
            "json" => serde_json::from_str(&block.text).map_err(|error| error.to_string()),
            "toml" => toml::from_str(&block.text).map_err(|error| error.to_string()),
            _ => continue,
        };
        let value = value.unwrap_or_else(|error| panic!("{error}: {block:?}"));
        found.push(Configuration {
            document: block.document,
            value,
        });
    }
    assert!(found.len() > 10, "found only: {found:?}");
    found
}

/// How the examples start this program: in the shell, by another program, and in configurations.
fn program_commands() -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for words in shell_commands() {
        if let Some(start) = words.iter().position(|word| word == "portfolio-mcp") {
            found.push(words[start..].to_vec());
        }
    }
    // Without what another program takes before `--`: `claude mcp add portfolio -- portfolio-mcp stdio`.
    found.retain(|words| words.get(1).is_some_and(|word| word != "--"));
    for configuration in configurations() {
        let servers = ["mcpServers", "servers", "mcp_servers"]
            .iter()
            .filter_map(|name| configuration.value[name].as_object())
            .flat_map(|servers| servers.values());
        for server in servers {
            let command = server["command"].as_str().unwrap_or_default();
            if !command.trim_end_matches(".exe").ends_with("portfolio-mcp") {
                continue;
            }
            let arguments = server["args"].as_array().unwrap().iter();
            let mut words = vec!["portfolio-mcp".to_owned()];
            words.extend(arguments.map(|word| word.as_str().unwrap().to_owned()));
            assert!(
                words.len() > 1,
                "no command is in {}: {server}",
                configuration.document
            );
            found.push(words);
        }
    }
    found
}

/// The options of a command and its subcommands.
fn options(command: &clap::Command) -> BTreeSet<String> {
    let mut found: BTreeSet<String> = command
        .get_arguments()
        .filter_map(|argument| Some(format!("--{}", argument.get_long()?)))
        .chain(["--help".to_owned(), "--version".to_owned()])
        .collect();
    for subcommand in command.get_subcommands() {
        found.extend(options(subcommand));
    }
    found
}

fn shell_commands() -> Vec<Vec<String>> {
    DOCUMENTS.into_iter().flat_map(shell_commands_of).collect()
}

/// The words of each command in the shell blocks of a document.
fn shell_commands_of(document: &'static str) -> Vec<Vec<String>> {
    let lines = blocks()
        .into_iter()
        .filter(|block| block.document == document && block.language == "sh")
        .flat_map(|block| lines(&block.text));
    let mut found = Vec::new();
    for line in lines {
        let separated = line.replace("&&", "\n").replace([';', '(', ')', '|'], "\n");
        for command in separated.lines() {
            // Half a quotation, of a command in a command, has no words.
            let words = shlex::split(command).unwrap_or_default();
            if !words.is_empty() {
                found.push(words);
            }
        }
    }
    found
}

/// The lines of the shell blocks under a heading.
fn lines_under(document: &str, heading: &str) -> Vec<String> {
    blocks()
        .into_iter()
        .filter(|block| {
            block.document == document && block.heading == heading && block.language == "sh"
        })
        .flat_map(|block| lines(&block.text))
        .collect()
}

/// The lines of a shell block without comments.
fn lines(text: &str) -> Vec<String> {
    text.lines()
        .map(|line| line.split(" # ").next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(ToOwned::to_owned)
        .collect()
}

fn blocks() -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    for document in DOCUMENTS {
        let mut heading = String::new();
        let mut open = false;
        for line in read(document).lines().map(str::trim) {
            if let Some(language) = line.strip_prefix("```") {
                open = !open;
                if open {
                    found.push(Block {
                        document,
                        heading: heading.clone(),
                        language: language.to_owned(),
                        text: String::new(),
                    });
                }
            } else if open {
                let block = found.last_mut().unwrap();
                block.text.push_str(line);
                block.text.push('\n');
            } else if line.starts_with('#') {
                line.trim_start_matches('#').trim().clone_into(&mut heading);
            }
        }
        assert!(!open, "a block of code in {document} has no end");
    }
    found
}

/// What stands between backticks, outside blocks of code.
fn code_spans(markdown: &str) -> Vec<String> {
    let mut open = false;
    markdown
        .lines()
        .filter(|line| {
            let fence = line.trim_start().starts_with("```");
            open ^= fence;
            !fence && !open
        })
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .map(ToOwned::to_owned)
        .collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(repository_path(path)).unwrap()
}

//! The Markdown documents: their links lead somewhere, the tests they name exist, and each line
//! holds one sentence.

use std::{
    fs,
    path::{Path, PathBuf},
};

const DOCUMENTS: [&str; 6] = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/architecture.md",
    "docs/clients.md",
    "docs/operations.md",
];

#[test]
fn every_relative_link_leads_to_a_file_and_a_heading() {
    for document in DOCUMENTS {
        for target in links(&read(document)) {
            if target.contains("://") {
                continue;
            }
            let (path, heading) = target.split_once('#').unwrap_or((&target, ""));
            let folder = Path::new(document).parent().unwrap();
            let path = if path.is_empty() {
                PathBuf::from(document)
            } else {
                folder.join(path)
            };

            assert!(
                root().join(&path).exists(),
                "{document} links to {target}, which does not exist"
            );
            assert!(
                heading.is_empty() || anchors(&read(path)).iter().any(|a| a == heading),
                "{document} links to {target}, which has no such heading"
            );
        }
    }
}

#[test]
fn every_promise_names_a_test_file_that_exists() {
    let operations = read("docs/operations.md");
    let (_, promises) = operations
        .split_once("| promise | test |\n|---|---|\n")
        .expect("docs/operations.md has a table of promises");
    let mut count = 0;

    for row in promises.lines().take_while(|line| line.starts_with('|')) {
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let files: Vec<&str> = tests
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|name| Path::new(name).extension().is_some_and(|end| end == "rs"))
            .collect();

        assert!(!files.is_empty(), "no test is named in: {row}");
        for file in files {
            let path = root().join("tests/it").join(file);
            assert!(path.is_file(), "tests/it/{file} does not exist: {row}");
        }
        count += 1;
    }

    assert!(count > 0, "the table of promises is empty");
}

#[test]
fn the_readme_leads_to_the_setup_of_each_client() {
    let readme = links(&read("README.md"));

    for heading in anchors(&read("docs/clients.md")) {
        let about_a_client = ![
            "connect-a-client",
            "before-you-start",
            "check-that-it-works",
        ]
        .contains(&heading.as_str());
        let target = format!("docs/clients.md#{heading}");
        assert!(
            !about_a_client || readme.contains(&target),
            "README.md does not link to {target}"
        );
    }
}

#[test]
fn the_readme_says_what_the_tools_cannot_do() {
    let readme = read("README.md");
    let sentence = readme
        .lines()
        .find(|line| line.contains("**cannot**"))
        .expect("README.md says what the tools cannot do");

    for task in ["create", "delete", "rename", "upload"] {
        assert!(sentence.contains(task), "not a word of {task}: {sentence}");
    }
}

/// Cursor, Codex and, on Windows, Claude Desktop break an argument with a space in it.
#[test]
fn no_argument_for_mcp_remote_holds_a_space() {
    let clients = read("docs/clients.md");
    let examples: Vec<Vec<String>> = clients
        .lines()
        .filter(|line| line.contains(r#""mcp-remote""#))
        .map(|line| {
            let list = line.trim().trim_start_matches(r#""args":"#);
            serde_json::from_str(list.trim_end_matches(',')).unwrap()
        })
        .collect();

    assert!(examples.len() >= 2, "found only: {examples:?}");
    for argument in examples.iter().flatten() {
        assert!(!argument.contains(' '), "{argument}");
    }
}

#[test]
fn every_line_holds_at_most_one_sentence() {
    for document in DOCUMENTS {
        for line in prose(&read(document)) {
            let text = line.trim_start_matches(|c: char| c.is_ascii_digit() || " -.".contains(c));
            let second = text.match_indices(['.', '?', '!']).any(|(at, _)| {
                let mut rest = text[at + 1..].chars();
                rest.next() == Some(' ') && rest.next().is_some_and(char::is_uppercase)
            });
            assert!(
                !second,
                "{document}: start a new line for each sentence of: {line}"
            );
        }
    }
}

/// The lines outside code blocks and tables.
fn prose(markdown: &str) -> Vec<&str> {
    let mut in_code = false;
    markdown
        .lines()
        .filter(|line| {
            let fence = line.trim_start().starts_with("```");
            in_code ^= fence;
            !fence && !in_code && !line.starts_with('|')
        })
        .collect()
}

fn links(markdown: &str) -> Vec<String> {
    markdown
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.to_owned())
        .collect()
}

/// The anchors that GitHub gives to the headings of a document.
fn anchors(markdown: &str) -> Vec<String> {
    prose(markdown)
        .into_iter()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .replace(' ', "-")
                .chars()
                .filter(|c| c.is_alphanumeric() || "-_".contains(*c))
                .collect()
        })
        .collect()
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

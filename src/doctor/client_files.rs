//! Secrets in the configuration of clients that git tracks, and so shows to everybody who reads the
//! repository.

use std::{fs, path::Path, process::Command};

use super::finding::Finding;

/// The files of the working directory in which clients look for servers.
const FILES: [&str; 5] = [
    ".mcp.json",
    ".cursor/mcp.json",
    ".vscode/mcp.json",
    ".gemini/settings.json",
    ".codex/config.toml",
];
/// Shorter tokens are words, such as in `Bearer authentication`.
const MIN_TOKEN_LENGTH: usize = 16;
/// The quotation marks of each format.
const JSON: &[char] = &['"'];
const TOML: &[char] = &['"', '\''];
const HOW_TO_REPLACE_IT: &str = "replace it by a variable that the client expands, or name a file with --store-file; then change it, because git keeps the old one";

/// Checks the files of the working directory. Without git, it says what it could not find out.
pub async fn check_client_files() -> Vec<Finding> {
    let checks = tokio::task::spawn_blocking(|| check(Path::new(".")));
    checks.await.unwrap_or_default()
}

fn check(folder: &Path) -> Vec<Finding> {
    let with_secret: Vec<(&str, &str)> = FILES
        .into_iter()
        .filter_map(|file| {
            let text = fs::read(folder.join(file)).ok()?;
            let is_toml = Path::new(file).extension().is_some_and(|end| end == "toml");
            let marks = if is_toml { TOML } else { JSON };
            Some((file, secret_in(&String::from_utf8_lossy(&text), marks)?))
        })
        .collect();
    if with_secret.is_empty() {
        return Vec::new();
    }
    let tracked = match tracked_files(folder) {
        Tracked::Files(files) => files,
        Tracked::NoRepository => return Vec::new(),
        Tracked::Unknown => {
            return with_secret
                .into_iter()
                .map(|(file, secret)| {
                    Finding::warning(
                        "client configuration",
                        format!("`{file}` holds {secret}, and git cannot be asked whether it tracks the file"),
                        "make sure that it does not, or replace it by a variable that the client expands",
                    )
                })
                .collect();
        }
    };
    with_secret
        .into_iter()
        .filter(|(file, _)| tracked.iter().any(|tracked| tracked == file))
        .map(|(file, secret)| {
            let message = format!("`{file}` holds {secret}, and git tracks the file");
            Finding::warning("client configuration", message, HOW_TO_REPLACE_IT)
        })
        .collect()
}

enum Tracked {
    Files(Vec<String>),
    NoRepository,
    Unknown,
}

fn tracked_files(folder: &Path) -> Tracked {
    let output = Command::new("git")
        // The repository's configuration must not start programs here.
        .args(["-c", "core.fsmonitor=false", "ls-files", "-z", "--"])
        .args(FILES)
        .current_dir(folder)
        .output();
    match output {
        Ok(output) if output.status.success() => Tracked::Files(
            output
                .stdout
                .split(|byte| *byte == 0)
                .map(|name| String::from_utf8_lossy(name).into_owned())
                .collect(),
        ),
        // Also if git does not trust the folder.
        _ if in_repository(folder) => Tracked::Unknown,
        _ => Tracked::NoRepository,
    }
}

fn in_repository(folder: &Path) -> bool {
    let folder = fs::canonicalize(folder).unwrap_or_default();
    folder
        .ancestors()
        .any(|folder| folder.join(".git").exists())
}

/// What secret a configuration holds, in words.
fn secret_in(text: &str, marks: &[char]) -> Option<&'static str> {
    let is_comment = |line: &str| ["//", "#"].iter().any(|mark| line.trim().starts_with(mark));
    // A mark in a comment opens no text.
    let lines: Vec<&str> = text.lines().filter(|line| !is_comment(line)).collect();
    let strings = strings(&lines.join("\n"), marks);
    let holds = |is: fn(&Named) -> bool| strings.iter().any(is);
    if holds(|named| has_password(&named.value)) {
        Some("the password of a Redis URL")
    } else if holds(has_bearer_token) {
        Some("a bearer token")
    } else if holds(is_token) {
        Some("a token")
    } else {
        None
    }
}

/// A text in quotation marks, and the name that stands before it.
#[derive(Debug, PartialEq)]
struct Named {
    name: String,
    value: String,
}

/// The values of JSON, with or without comments, and of TOML. Members of a list have the list's
/// name.
fn strings(text: &str, marks: &[char]) -> Vec<Named> {
    let (mut found, mut name) = (Vec::new(), String::new());
    let mut rest = text;
    while let Some(start) = rest.find(marks) {
        let (before, quoted) = rest.split_at(start);
        // TOML: `name = "value"`.
        if let Some(before) = before.trim_end().strip_suffix('=') {
            let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            let bare = before.trim_end().rsplit(|c| !is_part(c)).next();
            if let Some(bare) = bare.filter(|bare| !bare.is_empty()) {
                bare.clone_into(&mut name);
            }
        }
        let (value, after) = quoted_text(quoted);
        let next = after.trim_start();
        if next.starts_with([':', '=']) {
            name = value;
        } else {
            let name = name.clone();
            found.push(Named { name, value });
        }
        rest = after;
    }
    found
}

/// The text up to the closing mark, and what follows that.
fn quoted_text(quoted: &str) -> (String, &str) {
    let mut characters = quoted.char_indices();
    let mark = characters.next().map(|(_, mark)| mark);
    let mut value = String::new();
    while let Some((at, character)) = characters.next() {
        if Some(character) == mark {
            return (value, quoted.get(at + 1..).unwrap_or_default());
        }
        // No escape of JSON occurs in a secret but `\/`.
        if character == '\\' {
            value.extend(characters.next().map(|(_, character)| character));
        } else {
            value.push(character);
        }
    }
    (value, "")
}

/// A Redis URL with a password that is no placeholder.
fn has_password(value: &str) -> bool {
    ["redis://", "rediss://"].iter().any(|scheme| {
        let lower = value.to_ascii_lowercase();
        lower.match_indices(scheme).any(|(at, _)| {
            let rest = value.get(at + scheme.len()..).unwrap_or_default();
            let Some((credential, _)) = rest.rsplit_once('@') else {
                return false;
            };
            let password = credential.split_once(':').map_or(credential, |(_, p)| p);
            is_secret(password)
        })
    })
}

fn has_bearer_token(named: &Named) -> bool {
    let lower = named.value.to_lowercase();
    lower.match_indices("bearer ").any(|(at, word)| {
        let rest = named.value.get(at + word.len()..).unwrap_or_default();
        let token = rest.split_whitespace().next().unwrap_or_default();
        token.len() >= MIN_TOKEN_LENGTH && is_secret(token)
    })
}

/// The value of `…_TOKEN`, or the lines of `PORTFOLIO_TOKENS`.
fn is_token(named: &Named) -> bool {
    let is_named = named.name.ends_with("_TOKEN") || named.name == "PORTFOLIO_TOKENS";
    // In an argument: `KV_REST_API_TOKEN=…`.
    let assigned = named
        .value
        .split_once('=')
        .filter(|(name, _)| name.ends_with("_TOKEN"));
    match assigned {
        Some((_, value)) => is_secret(value),
        None => is_named && is_secret(&named.value) && !named.value.ends_with("_TOKEN"),
    }
}

/// Not a placeholder, such as `${NAME}`, `<token>` or `PASSWORD`.
fn is_secret(text: &str) -> bool {
    // A password may hold a `$` or a `{` too.
    let is_placeholder = text.starts_with(['$', '<'])
        || ["${", "{{", "***", "…"]
            .iter()
            .any(|mark| text.contains(mark))
        || text.to_uppercase().starts_with("YOUR")
        || ["PASSWORD", "TOKEN", "..."].contains(&text);
    !text.trim().is_empty() && !is_placeholder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_found_in_every_form_of_configuration() {
        for (text, secret) in [
            (
                r#"{"mcpServers":{"p":{"env":{"REDIS_URL":"rediss:\/\/default:s3cret@h:6379"}}}}"#,
                "the password of a Redis URL",
            ),
            (
                "// isn't\n{\"servers\":{\"p\":{\"args\":[\"--store\",\"redis://:s3cret@h\",],},},}",
                "the password of a Redis URL",
            ),
            (
                "[mcp_servers.p]\nenv = { REDIS_URL = 'redis://u:s3cret@h' }\n",
                "the password of a Redis URL",
            ),
            (
                r#"{"args":["--store=REDISS://default:pa$$w{rd@h:6379"]}"#,
                "the password of a Redis URL",
            ),
            (r#"{"env":{"KV_REST_API_TOKEN":"AXabc123"}}"#, "a token"),
            (
                r#"{"env":{"UPSTASH_REDIS_REST_READ_ONLY_TOKEN":"AXabc123"}}"#,
                "a token",
            ),
            ("env = { KV_REST_API_TOKEN = \"AXabc123\" }", "a token"),
            (r#"{"args":["-e","KV_REST_API_TOKEN=AXabc123"]}"#, "a token"),
            (
                r#"{"headers":{"Authorization":"Bearer 0123456789abcdef"}}"#,
                "a bearer token",
            ),
            (
                r#"{"args":["mcp-remote","--header","Authorization:bearer 0123456789abcdef"]}"#,
                "a bearer token",
            ),
        ] {
            assert_eq!(secret_in(text, TOML), Some(secret), "{text}");
        }
    }

    #[test]
    fn placeholders_and_names_are_no_secrets() {
        for text in [
            r#"{"env":{"REDIS_URL":"${REDIS_URL}"}}"#,
            r#"{"env":{"REDIS_URL":"redis://default:${REDIS_PASSWORD}@h:6379"}}"#,
            r#"{"env":{"REDIS_URL":"redis://localhost:6379"}}"#,
            r#"{"env":{"REDIS_URL":"rediss://default:PASSWORD@HOST.upstash.io:6379"}}"#,
            r#"{"headers":{"Authorization":"Bearer ${PORTFOLIO_TOKEN}"}}"#,
            r#"{"description":"Uses Bearer authentication"}"#,
            "bearer_token_env_var = \"PORTFOLIO_TOKEN\"",
            "env_vars = [\"KV_REST_API_TOKEN\"]",
            r#"{"env":{"KV_REST_API_TOKEN":""}}"#,
            r#"{"args":["--store-file","~/.config/portfolio-mcp/store"]}"#,
            "not \" closed",
            "",
        ] {
            assert_eq!(secret_in(text, TOML), None, "{text}");
        }
    }
}

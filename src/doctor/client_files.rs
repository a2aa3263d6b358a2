//! Secrets in the configuration of clients that git tracks, and so shows to everybody who reads the
//! repository.

use std::{fs, path::Path, process::Command};

use base64::prelude::{BASE64_STANDARD, Engine};

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
/// The digits of the escape `\uXXXX`.
const CODE_DIGITS: usize = 4;
const REDIS_SCHEMES: [&str; 2] = ["redis://", "rediss://"];
const WEB_SCHEMES: [&str; 2] = ["http://", "https://"];
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
    let strings = strings(text, marks);
    let holds = |is: fn(&Named) -> bool| strings.iter().any(is);
    if holds(|named| has_password(&named.value, &REDIS_SCHEMES, password_of_redis)) {
        Some("the password of a Redis URL")
    } else if holds(|named| has_password(&named.value, &WEB_SCHEMES, password_of_web)) {
        Some("the password of a URL")
    } else if holds(has_bearer_token) {
        Some("a bearer token")
    } else if holds(has_basic_password) {
        Some("a password in a header (`Basic …`)")
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

/// The values of JSON, with or without comments, and of TOML, also where the file is not complete.
/// Members of a list have the list's name.
fn strings(text: &str, marks: &[char]) -> Vec<Named> {
    let (mut found, mut name) = (Vec::new(), String::new());
    let mut rest = text;
    while let Some((before, quoted)) = next_quoted(rest, marks) {
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

/// The text up to the next opening mark, and what begins with it. A mark in a comment opens no text.
fn next_quoted<'a>(mut text: &'a str, marks: &[char]) -> Option<(&'a str, &'a str)> {
    loop {
        let at = text.find(|c| c == '/' || c == '#' || marks.contains(&c))?;
        let (before, rest) = text.split_at(at);
        let skipped = if rest.starts_with("//") || rest.starts_with('#') {
            rest.find('\n')?
        } else if rest.starts_with("/*") {
            rest.find("*/")? + 2
        } else if rest.starts_with('/') {
            1
        } else {
            return Some((before, rest));
        };
        text = rest.get(skipped..)?;
    }
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
        // TOML has no escapes between `'`.
        if character != '\\' || mark == Some('\'') {
            value.push(character);
            continue;
        }
        let code = || u32::from_str_radix(quoted.get(at + 2..at + 6)?, 16).ok();
        match characters.next() {
            Some((_, 'u')) => {
                value.extend(code().and_then(char::from_u32));
                characters.nth(CODE_DIGITS - 1);
            }
            Some((_, character)) => value.push(character),
            None => {}
        }
    }
    (value, "")
}

/// A URL with one of these schemes and a password that is no placeholder.
fn has_password(value: &str, schemes: &[&str], password: fn(&str) -> Option<&str>) -> bool {
    let lower = value.to_ascii_lowercase();
    schemes.iter().any(|scheme| {
        lower.match_indices(scheme).any(|(at, _)| {
            let rest = value.get(at + scheme.len()..).unwrap_or_default();
            password(rest).is_some_and(is_secret)
        })
    })
}

/// What people paste may hold any character.
fn password_of_redis(rest: &str) -> Option<&str> {
    let (credential, _) = rest.rsplit_once('@')?;
    Some(credential.split_once(':').map_or(credential, |(_, p)| p))
}

/// A path may hold `@` too. A user's name alone is none, but a token may stand in its place.
fn password_of_web(rest: &str) -> Option<&str> {
    let authority = rest.split(['/', '?', '#']).next()?;
    let (credential, _) = authority.rsplit_once('@')?;
    match credential.split_once(':') {
        Some((_, password)) => Some(password),
        None => Some(credential).filter(|token| token.len() >= MIN_TOKEN_LENGTH),
    }
}

/// What follows an authentication scheme such as `Bearer `.
fn credentials<'a>(value: &'a str, scheme: &str) -> Vec<&'a str> {
    let lower = value.to_ascii_lowercase();
    let found = lower.match_indices(scheme).filter_map(|(at, word)| {
        let rest = value.get(at + word.len()..)?;
        rest.split_whitespace().next()
    });
    found.collect()
}

fn has_bearer_token(named: &Named) -> bool {
    credentials(&named.value, "bearer ")
        .into_iter()
        .any(|token| token.len() >= MIN_TOKEN_LENGTH && is_secret(token))
}

/// `USER:PASSWORD` in base64.
fn has_basic_password(named: &Named) -> bool {
    let found = credentials(&named.value, "basic ").into_iter();
    let decoded = found.filter_map(|text| BASE64_STANDARD.decode(text).ok());
    decoded
        .filter_map(|bytes| String::from_utf8(bytes).ok())
        .any(|text| text.split_once(':').is_some_and(|(_, it)| is_secret(it)))
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
            (
                "{ /* isn't\n\" */ \"REDIS_URL\": \"redis://u:s3cret@h\" } // x",
                "the password of a Redis URL",
            ),
            (
                "{\"args\": [/*\"*/\"--store\", // \"\n\"redis://:s3cret@h\"",
                "the password of a Redis URL",
            ),
            (
                r#"{"REDIS_URL":"redis:\u002f\u002Fu:s3cret@h"}"#,
                "the password of a Redis URL",
            ),
            (
                r#"{"url":"https://me:s3cret@example.com/mcp"}"#,
                "the password of a URL",
            ),
            (
                r#"{"args":["mcp-remote","https://0123456789abcdef@example.com/mcp"]}"#,
                "the password of a URL",
            ),
            (
                r#"{"headers":{"Authorization":"Basic bWU6czNjcmV0"}}"#,
                "a password in a header (`Basic …`)",
            ),
            (
                "url = 'C:\\' # it's\nAuthorization = \"basic bWU6czNjcmV0\"",
                "a password in a header (`Basic …`)",
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
            r#"{"description":"Basic authentication, basic YWJj"}"#,
            r#"{"headers":{"Authorization":"Basic ${CREDENTIALS}"}}"#,
            r#"{"url":"https://${USER}:${PASSWORD}@example.com/mcp"}"#,
            r#"{"url":"https://git@example.com/@me/a:b@c"}"#,
            "{ /* \"REDIS_URL\": \"redis://u:s3cret@h\" */ }",
            "/* not closed \"redis://u:s3cret@h\"",
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

//! What people paste in place of an address or a token: quotation marks, a placeholder, a command
//! line. Nothing of the text is repeated in a message, because any part of it may be a secret.

/// Quotation marks, also those of word processors.
const QUOTES: [char; 12] = ['"', '\'', '`', '“', '”', '„', '‘', '’', '‚', '«', '»', '´'];
/// What programs write where a value is missing.
const MISSING: [&str; 8] = [
    "undefined",
    "null",
    "none",
    "nil",
    "nan",
    "true",
    "false",
    "[object object]",
];
/// What stands where somebody should have put a value.
const PLACEHOLDERS: [&str; 9] = [
    "${",
    "{{",
    "$(",
    "YOUR_",
    "YOUR-",
    "[YOUR",
    ":PASSWORD@",
    "@HOST",
    "<PASSWORD",
];
/// What stands in place of a hidden password.
const MASKS: [&str; 4] = ["***", "•", ":...@", "…"];

/// Refuses what is certainly not an address or a token.
///
/// # Errors
/// What was found and what is expected.
pub(super) fn check(text: &str) -> Result<(), String> {
    let (found, expected) = if text.contains(['\n', '\r']) {
        ("several lines", "the value alone, on one line")
    } else if text.starts_with(QUOTES) || text.ends_with(QUOTES) {
        ("quotation marks", "the value without them")
    } else if let Some(word) = missing(text) {
        return Err(format!(
            "found `{word}`, which programs write where a value is missing; expected the value itself"
        ));
    } else if is_command_line(text) {
        (
            "a command line (such as `redis-cli -u …`)",
            "only the URL in it",
        )
    } else if is_assignment(text) {
        (
            "an assignment (`NAME=VALUE`)",
            "only the value, without the name",
        )
    } else if is_placeholder(text) {
        (
            "a placeholder (such as `${NAME}` or `<password>`) that nothing has replaced",
            "the value itself",
        )
    } else if MASKS.iter().any(|mask| text.contains(mask)) {
        (
            "a password that is hidden (`***`)",
            "the password itself; show it before you copy it",
        )
    } else if text.contains(char::is_whitespace) {
        ("a space", "the value alone")
    } else if text.contains(char::is_control) {
        ("an invisible character", "the value alone")
    } else {
        return Ok(());
    };
    Err(format!("found {found}; expected {expected}"))
}

fn missing(text: &str) -> Option<&'static str> {
    let lower = text.to_lowercase();
    let value = lower.strip_prefix("sqlite:").unwrap_or(&lower);
    // Where a script puts a path together.
    if value.split('/').any(|part| part == "undefined") {
        return Some("undefined");
    }
    MISSING.into_iter().find(|word| *word == value)
}

fn is_command_line(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let first = words.next().unwrap_or_default();
    let is_option = |word: &str| {
        word.starts_with('-') && word.len() > 1 && word.chars().nth(1).is_some_and(|c| c != '/')
    };
    first.starts_with('-') || first.ends_with("redis-cli") || words.any(is_option)
}

/// `NAME=VALUE`, also as a shell, a Dockerfile or YAML writes it. Not the `=` at the end of a token.
fn is_assignment(text: &str) -> bool {
    let text = ["export ", "set ", "setx ", "ENV ", "env ", "$env:", "- "]
        .iter()
        .find_map(|word| text.strip_prefix(word))
        .unwrap_or(text);
    let is_name = |name: &str| {
        let name = name.trim_end();
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let assigned = |(name, value): (&str, &str)| {
        let is_variable = name.contains('_') && !name.contains(|c: char| c.is_ascii_lowercase());
        is_name(name)
            && (value.contains("://") || (is_variable && !value.trim_matches('=').is_empty()))
    };
    text.split_once('=').is_some_and(assigned) || text.split_once(": ").is_some_and(assigned)
}

fn is_placeholder(text: &str) -> bool {
    let value = text.strip_prefix("sqlite:").unwrap_or(text);
    let value = value.trim_start_matches('/');
    let of_windows = value
        .strip_prefix('%')
        .is_some_and(|rest| rest.contains('%'));
    let in_brackets = text
        .split_once('<')
        .is_some_and(|(_, rest)| rest.contains('>'));
    value.starts_with('$')
        || of_windows
        || in_brackets
        || PLACEHOLDERS.iter().any(|mark| text.contains(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pasted_in_place_of_a_value_is_named() {
        for (found, texts) in [
            (
                "quotation marks",
                &["\"redis://h\"", "'x'", "“redis://h”", "redis://h\"", "`x`"][..],
            ),
            (
                "`undefined`",
                &[
                    "undefined",
                    "UNDEFINED",
                    "sqlite:undefined/x.db",
                    "sqlite:undefined",
                ],
            ),
            ("`null`", &["null", "NULL"]),
            (
                "a command line",
                &[
                    "redis-cli --tls -u redis://u:p@h:1",
                    "/usr/bin/redis-cli -h x",
                    "--store redis://h",
                    "-u x",
                    "docker run -it redis",
                ],
            ),
            (
                "an assignment",
                &[
                    "REDIS_URL=redis://h",
                    "export REDIS_URL=redis://h",
                    "redis_url=redis://h",
                    "REDIS_URL: redis://h",
                    "$env:REDIS_URL=redis://h",
                    "KV_REST_API_TOKEN=abc",
                ],
            ),
            (
                "a placeholder",
                &[
                    "${REDIS_URL}",
                    "$REDIS_URL",
                    "redis://u:${PW}@h",
                    "{{ url }}",
                    "redis://u:<password>@h",
                    "%REDIS_URL%",
                    "redis://default:YOUR_PASSWORD@h",
                    "rediss://default:PASSWORD@HOST.upstash.io:6379",
                    "sqlite:$HOME/x.db",
                    "sqlite:%APPDATA%/x.db",
                    "<token>",
                ],
            ),
            (
                "a password that is hidden",
                &["redis://default:********@h", "redis://default:••••@h"],
            ),
            ("several lines", &["redis://h\nredis://g", "a\r\nb"]),
            ("a space", &["redis:// h", "Bearer abc"]),
        ] {
            for text in texts {
                let problem = check(text).unwrap_err();
                assert!(
                    problem.starts_with(&format!("found {found}")),
                    "{text}: {problem}"
                );
            }
        }
    }

    #[test]
    fn addresses_paths_and_tokens_pass() {
        for text in [
            "redis://default:p$w-{x}=@h:1/0?protocol=resp3",
            "rediss://u:p%2Fw@[::1]:1",
            "AXabc0123456789_-ABCDEF==",
            "AB_CD==",
            "sqlite:/home/u/content.db",
            "redis-host.example:6379",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }
}

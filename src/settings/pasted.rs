//! What people paste in place of an address or a token: quotation marks, a placeholder, a command
//! line. Nothing of the text is repeated in a message, because any part of it may be a secret.

use crate::domain::text::is_hidden;

/// Quotation marks, also those of word processors.
const QUOTES: [char; 12] = ['"', '\'', '`', '“', '”', '„', '‘', '’', '‚', '«', '»', '´'];
/// What programs write where a value is missing, also where they put an address together.
const MISSING: [&str; 5] = ["undefined", "null", "none", "nan", "[object object]"];
/// What else they write in place of a whole value.
const MISSING_ALONE: [&str; 3] = ["nil", "true", "false"];
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
/// What a program's source has in place of a value.
const EXPRESSIONS: [&str; 4] = ["process.env", "import.meta.env", "os.environ", "getenv("];
/// What examples write in place of a whole value.
const EXAMPLES: [&str; 7] = [
    "changeme",
    "change-me",
    "change_me",
    "placeholder",
    "redis_url",
    "tbd",
    "todo",
];
/// What examples write in place of a part of an address. Servers and passwords have other names.
const NAMED_PARTS: [&str; 8] = [
    "HOST", "HOSTNAME", "PASSWORD", "PORT", "USER", "USERNAME", "hostname", "Hostname",
];
/// What follows `your` there.
const YOURS: [&str; 13] = [
    "database", "db", "endpoint", "host", "hostname", "instance", "password", "port", "redis",
    "server", "token", "url", "user",
];

const PLACEHOLDER: &str = "found a placeholder (such as `${NAME}`, `<password>` or `changeme`) that nothing has replaced; expected the value itself";

/// Refuses what is certainly not an address or a token.
///
/// # Errors
/// What was found and what is expected.
pub(super) fn check(text: &str) -> Result<(), String> {
    check_text(text)?;
    let address = text.split_once("://").map_or(text, |(_, address)| address);
    let is_example = EXAMPLES.contains(&text.to_lowercase().as_str())
        || EXPRESSIONS.iter().any(|code| text.contains(code))
        || parts_of_url(address).into_iter().any(names_part);
    if is_example {
        return Err(PLACEHOLDER.to_owned());
    }
    Ok(())
}

/// Refuses what is certainly not the path of a file, which may contain spaces, and may be called
/// like a command line or a hidden password.
///
/// # Errors
/// What was found and what is expected.
pub(super) fn check_path(path: &str) -> Result<(), String> {
    if names_part(path) || EXPRESSIONS.iter().any(|code| path.contains(code)) {
        return Err(PLACEHOLDER.to_owned());
    }
    check_text(&format!("sqlite:{}", path.replace(' ', "_")))
}

fn check_text(text: &str) -> Result<(), String> {
    let is_path = text.starts_with("sqlite:");
    let (found, expected) = if text.contains(['\n', '\r']) {
        ("several lines", "the value alone, on one line")
    } else if text.starts_with(QUOTES) || text.ends_with(QUOTES) {
        ("quotation marks", "the value without them")
    } else if let Some(word) = missing(text) {
        return Err(is_missing(word));
    } else if !is_path && is_command_line(text) {
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
        return Err(PLACEHOLDER.to_owned());
    } else if !is_path && MASKS.iter().any(|mask| text.contains(mask)) {
        (
            "a password that is hidden (`***`)",
            "the password itself; show it before you copy it",
        )
    } else if text.contains(char::is_whitespace) {
        ("a space", "the value alone")
    } else if text.contains(is_hidden) {
        ("an invisible character", "the value alone")
    } else {
        return Ok(());
    };
    Err(format!("found {found}; expected {expected}"))
}

/// Refuses what is certainly not meant as the prefix of the keys. Braces alone are: they are a hash
/// tag of a Redis Cluster.
///
/// # Errors
/// What was found and what is expected.
pub(super) fn check_prefix(prefix: &str) -> Result<(), String> {
    if prefix.contains("://") {
        return Err("found an address; expected a prefix such as `site:`".to_owned());
    }
    let lower = prefix.to_lowercase();
    match missing_part(lower.split([':', '/', '{', '}'])) {
        Some(word) => Err(is_missing(word)),
        // A prefix may contain spaces.
        None => check_text(&prefix.replace(' ', "_")),
    }
}

fn is_missing(word: &str) -> String {
    format!(
        "found `{word}`, which programs write where a value is missing; expected the value itself"
    )
}

fn missing(text: &str) -> Option<&'static str> {
    let lower = text.to_lowercase();
    let path = lower.strip_prefix("sqlite:");
    let value = path.unwrap_or(&lower);
    let alone = || MISSING_ALONE.into_iter().find(|word| *word == value);
    if path.is_some() {
        return missing_part(value.split(['/', '\\'])).or_else(alone);
    }
    match value.split_once("://") {
        Some((_, rest)) => missing_part(parts_of_url(rest).into_iter()),
        None => missing_part([value].into_iter()).or_else(alone),
    }
}

/// The user, the password, the host, and the port.
fn parts_of_url(rest: &str) -> Vec<&str> {
    let (credential, address) = rest.rsplit_once('@').unwrap_or(("", rest));
    let address = address.split(['/', '?', '#']).next().unwrap_or_default();
    let (user, password) = credential.split_once(':').unwrap_or((credential, ""));
    [user, password]
        .into_iter()
        .chain(address.split(':'))
        .collect()
}

/// The word that one of the parts consists of.
fn missing_part<'a>(mut parts: impl Iterator<Item = &'a str>) -> Option<&'static str> {
    parts.find_map(|part| {
        // The space of `[object Object]`, which a URL or a path has in another form.
        let part = part.replace("%20", " ").replace('_', " ");
        MISSING.into_iter().find(|word| *word == part)
    })
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

/// Whether a part of an address is the name of what belongs there: `HOST`, `__HOST__`, `[HOST]`,
/// `your-host.example`.
fn names_part(part: &str) -> bool {
    let is_name = |name: &str| {
        let name = name.trim_matches('_');
        name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_- ".contains(c))
    };
    let between = |start: &str, end: &str| {
        let inside = part.strip_prefix(start)?.strip_suffix(end)?;
        Some(inside).filter(|inside| is_name(inside))
    };
    let label = part.split('.').next().unwrap_or_default().to_lowercase();
    let mut words = label.split(['-', '_']);
    NAMED_PARTS.contains(&part)
        || between("__", "__").or_else(|| between("[", "]")).is_some()
        || words.next() == Some("your") && words.any(|word| YOURS.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_found(found: &str, texts: &[&str]) {
        for text in texts {
            let problem = check(text).unwrap_err();
            assert!(
                problem.starts_with(&format!("found {found}")),
                "{text}: {problem}"
            );
        }
    }

    #[test]
    fn what_programs_write_for_a_missing_value_is_named_in_every_part() {
        for (found, texts) in [
            (
                "`undefined`",
                &[
                    "undefined",
                    "UNDEFINED",
                    "sqlite:undefined/x.db",
                    "sqlite:undefined",
                ][..],
            ),
            (
                "`undefined`",
                &[
                    "redis://undefined:6379",
                    "redis://u:p@undefined",
                    "rediss://undefined:p@h",
                    "redis://u:undefined@h:1/0",
                    "redis://:undefined@h",
                    "redis://h:undefined",
                    "https://undefined/x",
                    "sqlite:/srv/undefined/x.db",
                ],
            ),
            (
                "`null`",
                &["null", "NULL", "redis://u:null@h", "sqlite:/srv/null/x.db"],
            ),
            (
                "`none`",
                &["None", "redis://None:6379", "sqlite:/srv/None/x.db"],
            ),
            ("`nan`", &["NaN", "redis://u:NaN@h", "sqlite:NaN/x.db"]),
            (
                "`[object object]`",
                &[
                    "[object Object]",
                    "redis://[object Object]:6379",
                    "redis://u:[object%20Object]@h",
                    "sqlite:/srv/[object_Object]/x.db",
                ],
            ),
            ("`true`", &["true", "sqlite:true"]),
        ] {
            assert_found(found, texts);
        }
    }

    #[test]
    fn what_is_pasted_in_place_of_a_value_is_named() {
        for (found, texts) in [
            (
                "quotation marks",
                &["\"redis://h\"", "'x'", "“redis://h”", "redis://h\"", "`x`"][..],
            ),
            (
                "an invisible character",
                &[
                    "\u{200b}redis://h",
                    "redis://h\u{200b}",
                    "redis://u:p\u{ad}w@h",
                    "\u{feff}sqlite:x.db",
                    "a\u{2060}b",
                    "a\u{7f}b",
                ],
            ),
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
                    "__REDIS_URL__",
                    "[REDIS_URL]",
                    "redis://default:__PASSWORD__@h",
                    "redis://u:[password]@h",
                    "process.env.REDIS_URL",
                    "os.environ[REDIS_URL]",
                    "changeme",
                    "TODO",
                    "REDIS_URL",
                    "redis://HOST:6379",
                    "redis://h:PORT",
                    "rediss://USERNAME:s3cret@h",
                    "username:password@hostname",
                    "redis://hostname",
                    "redis://default:your_password@h",
                    "rediss://default:s3cret@your-redis-host.upstash.io:6379",
                ],
            ),
            (
                "a password that is hidden",
                &["redis://default:********@h", "redis://default:••••@h"],
            ),
            ("several lines", &["redis://h\nredis://g", "a\r\nb"]),
            ("a space", &["redis:// h", "Bearer abc"]),
        ] {
            assert_found(found, texts);
        }
    }

    #[test]
    fn a_prefix_that_was_not_meant_is_named() {
        for (text, found) in [
            ("${PREFIX}", "a placeholder"),
            ("${PREFIX}:", "a placeholder"),
            ("$PREFIX:", "a placeholder"),
            ("<prefix>", "a placeholder"),
            ("{{x}}", "a placeholder"),
            ("{{ x }}:", "a placeholder"),
            ("\"site:\"", "quotation marks"),
            ("'site:", "quotation marks"),
            ("si\u{200b}te:", "an invisible character"),
            ("si\u{7}te:", "an invisible character"),
            ("a\nb", "several lines"),
            ("undefined", "`undefined`"),
            ("undefined:", "`undefined`"),
            ("{undefined}:", "`undefined`"),
            ("null", "`null`"),
            ("site:None:", "`none`"),
            ("NaN", "`nan`"),
            ("PORTFOLIO_KEY_PREFIX=site:", "an assignment"),
            ("redis://u:p@h", "an address"),
        ] {
            let problem = check_prefix(text).unwrap_err();
            assert!(
                problem.starts_with(&format!("found {found}")) && problem.contains("expected"),
                "{text}: {problem}"
            );
        }
        for text in [
            "",
            "site:",
            "{site}:",
            "{site}",
            "my site:",
            "a*[b]?\\:",
            "é:",
        ] {
            assert_eq!(check_prefix(text), Ok(()), "{text}");
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
            "redis://u:nullable@undefined.example/0",
            "redis://u:true@h",
            "sqlite:/srv/nullable/none.db",
            "AX/null/undefined",
            "redis://default:changeme@localhost:6379",
            "redis://default:password@host:6379",
            "redis://[::1]:6379",
            "redis://[fe80::1]",
            "redis://yourhost.example",
            "redis://todo",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }
}

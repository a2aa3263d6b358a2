//! The path after `sqlite:`. A path is taken as it is; what people write otherwise, such as a URL, is
//! understood where only one meaning is possible, and else refused.

use std::path::{Path, PathBuf};

use super::pasted;
use crate::domain::text::{shown_path, truncate};

/// Reads a path and makes it absolute. `home` is what `~` stands for.
///
/// # Errors
/// What was found and what is expected.
pub(super) fn parse(text: &str, home: Option<&Path>) -> Result<PathBuf, String> {
    let text = text.trim();
    let written = shown_path(text);
    let path = without_slashes(text)?;
    check(text, path)?;
    let path = match path.strip_prefix('~') {
        None => PathBuf::from(path),
        Some(rest) if rest.is_empty() || rest.starts_with(['/', '\\']) => home
            .ok_or("found `~`, but HOME is not set; expected the whole path")?
            .join(rest.trim_start_matches(['/', '\\'])),
        Some(_) => {
            return Err(
                "found `~` before a user's name; expected `~/`, or the whole path".to_owned(),
            );
        }
    };
    let path = std::path::absolute(&path)
        .map_err(|error| format!("found a path that cannot be used: {error}; expected a file"))?;
    if text.ends_with(['/', '.']) && path.file_name().is_none()
        || text.ends_with('/')
        || path.is_dir()
    {
        return Err(format!(
            "found a folder (`{}`); expected a file in it, such as `portfolio.db`",
            truncate(&written)
        ));
    }
    Ok(path)
}

/// The path without the slashes that a URL has before it.
fn without_slashes(text: &str) -> Result<&str, String> {
    let Some(rest) = text.strip_prefix("//") else {
        return Ok(text);
    };
    // The home directory and relative paths look like a host, but are none.
    let path = rest.trim_start_matches('/');
    if path.starts_with("~/") || rest.starts_with("./") || rest.starts_with("../") {
        return Ok(path);
    }
    if is_of_windows(path) {
        return Ok(path);
    }
    let slashes = text.len() - path.len();
    // `sqlite:///x.db` is /x.db for some programs, and x.db for others.
    if slashes == 2 || (slashes == 3 && !path.contains('/')) {
        return Err(format!(
            "found `sqlite:{}` before the path; expected `sqlite:PATH`: `sqlite:content.db` in the current folder, or `sqlite:/srv/content.db`",
            "/".repeat(slashes)
        ));
    }
    Ok(text.get(slashes - 1..).unwrap_or(path))
}

fn check(text: &str, path: &str) -> Result<(), String> {
    let found = if path.is_empty() {
        "nothing after `sqlite:`"
    } else if text.contains("://") {
        "a URL after `sqlite:`"
    } else if text.contains(":memory:") || text.contains("mode=memory") {
        "an in-memory database, which would lose the content at the end"
    } else if text.starts_with("file:") {
        "`file:` after `sqlite:`"
    } else if path.contains('?') {
        "options after `?`, which this program does not read (for `mode=ro`, use --read-only)"
    } else if has_escape(path) {
        "an escape such as `%20`, which a path does not have (write the character itself)"
    } else if !cfg!(windows) && (is_of_windows(path) || path.contains('\\')) {
        "a path of Windows, which this system does not have"
    } else {
        return pasted::check_path(path);
    };
    Err(format!(
        "found {found}; expected `sqlite:PATH`, such as `sqlite:/srv/content.db`"
    ))
}

fn has_escape(path: &str) -> bool {
    let is_hex = |digit: Option<u8>| digit.is_some_and(|digit| digit.is_ascii_hexdigit());
    path.match_indices('%').any(|(at, _)| {
        let mut digits = path.bytes().skip(at + 1);
        is_hex(digits.next()) && is_hex(digits.next())
    })
}

/// `C:\…`, `C:/…`, `\\server\…`.
pub(super) fn is_of_windows(path: &str) -> bool {
    let mut characters = path.chars();
    let drive = matches!(
        (characters.next(), characters.next(), characters.next()),
        (Some(letter), Some(':'), Some('\\' | '/')) if letter.is_ascii_alphabetic()
    );
    drive || path.starts_with("\\\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_understood_as_it_was_meant() {
        let home = Path::new("/home/me");
        let here = std::env::current_dir().unwrap();
        for (text, path) in [
            ("content.db", here.join("content.db")),
            ("./content.db", here.join("content.db")),
            (" content.db\n", here.join("content.db")),
            ("//./content.db", here.join("content.db")),
            ("/no-such/a b.db", "/no-such/a b.db".into()),
            ("///no-such/content.db", "/no-such/content.db".into()),
            ("////no-such/content.db", "/no-such/content.db".into()),
            ("~/content.db", home.join("content.db")),
            ("//~/content.db", home.join("content.db")),
            ("///~/content.db", home.join("content.db")),
            ("50%.db", here.join("50%.db")),
            ("a….db", here.join("a….db")),
            ("my***.db", here.join("my***.db")),
            ("redis-cli", here.join("redis-cli")),
            ("/no-such/redis-cli", "/no-such/redis-cli".into()),
            ("-u -x.db", here.join("-u -x.db")),
        ] {
            assert_eq!(parse(text, Some(home)), Ok(path), "{text}");
        }
    }

    #[test]
    fn other_paths_are_refused_with_what_was_found() {
        for (text, found) in [
            ("", "nothing"),
            ("  ", "nothing"),
            ("//", "`sqlite://`"),
            ("//content.db", "`sqlite://`"),
            ("///content.db", "`sqlite:///`"),
            ("//localhost/srv/content.db", "`sqlite://`"),
            ("content.db?mode=ro", "--read-only"),
            ("/no-such/My%20Files/x.db", "`%20`"),
            (":memory:", "in-memory"),
            ("file::memory:", "in-memory"),
            ("file:content.db", "`file:`"),
            ("redis://u:s3cret@h", "a URL"),
            ("C:\\Users\\content.db", "Windows"),
            ("///C:/content.db", "Windows"),
            ("~other/content.db", "`~`"),
            ("/", "a folder"),
            (".", "a folder"),
            ("~", "a folder"),
            ("folder/", "a folder"),
            ("\"content.db\"", "quotation marks"),
            ("$HOME/content.db", "a placeholder"),
            ("${HOME}/content.db", "a placeholder"),
            ("__DB_PATH__", "a placeholder"),
            ("[path]", "a placeholder"),
            ("process.env.DB", "a placeholder"),
            ("undefined/content.db", "`undefined`"),
            ("/no-such/None/content.db", "`none`"),
            ("/no-such/[object Object]/content.db", "`[object object]`"),
            ("/no-such/con\u{200b}tent.db", "invisible"),
        ] {
            let problem = parse(text, Some(Path::new("/"))).unwrap_err();

            assert!(
                problem.contains(found) && problem.contains("expected"),
                "{text}: {problem}"
            );
            assert!(!problem.contains("s3cret"), "{problem}");
        }
        assert!(parse("~/content.db", None).unwrap_err().contains("HOME"));
    }
}

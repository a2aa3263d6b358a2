//! The path under which a proxy serves this server, when it is not the root.

use std::{fmt, str::FromStr};

use axum::http::{HeaderMap, HeaderName};

const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// A longer forwarded prefix is ignored: answers repeat it.
const MAX_FORWARDED_CHARACTERS: usize = 200;

/// A path such as `/cms`, without a slash at its end; empty for the root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublicPath(String);

/// A string that is not such a path.
#[derive(Debug, thiserror::Error)]
#[error(
    "expected a path such as `/cms`, made of slashes, ASCII letters, digits and `.`, `_`, `~`, `-`"
)]
pub struct NotAPath;

impl FromStr for PublicPath {
    type Err = NotAPath;

    /// A slash at the end is what people write too.
    fn from_str(text: &str) -> Result<Self, NotAPath> {
        let path = text.strip_suffix('/').unwrap_or(text);
        if (path.is_empty() && !text.is_empty()) || is_prefix(path) {
            Ok(Self(path.to_owned()))
        } else {
            Err(NotAPath)
        }
    }
}

impl fmt::Display for PublicPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl PublicPath {
    /// What follows this path in `path`: `/mcp` for `/cms/mcp`.
    pub(super) fn below<'a>(&self, path: &'a str) -> Option<&'a str> {
        match path.strip_prefix(&self.0)? {
            _ if self.0.is_empty() => None,
            "" => Some("/"),
            rest => rest.starts_with('/').then_some(rest),
        }
    }

    /// The path of a request: the configured one, else the one that a proxy names.
    pub(super) fn of_request(configured: Option<&Self>, headers: &HeaderMap) -> Self {
        configured
            .cloned()
            .or_else(|| forwarded(headers))
            .unwrap_or_default()
    }
}

/// Only a client could gain from naming another path here, and only for its own answers. So the
/// header needs no trusted proxy, only a form that cannot break out of a path.
fn forwarded(headers: &HeaderMap) -> Option<PublicPath> {
    let mut prefixes = headers.get_all(FORWARDED_PREFIX).iter();
    let (Some(prefix), None) = (prefixes.next(), prefixes.next()) else {
        return None;
    };
    let prefix = prefix.to_str().ok()?;
    (prefix.len() <= MAX_FORWARDED_CHARACTERS && is_prefix(prefix))
        .then(|| PublicPath(prefix.to_owned()))
}

/// Whether the text matches `^(/[A-Za-z0-9._~-]+)+$`.
fn is_prefix(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
    text.strip_prefix('/').is_some_and(|segments| {
        segments
            .split('/')
            .all(|segment| !segment.is_empty() && segment.bytes().all(is_allowed))
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_path_is_read_as_people_write_it() {
        for (text, path) in [
            ("/cms", "/cms"),
            ("/cms/", "/cms"),
            ("/a/b-c/d_e.f~g", "/a/b-c/d_e.f~g"),
            ("/", ""),
        ] {
            assert_eq!(text.parse::<PublicPath>().unwrap().to_string(), path);
        }
        for text in [
            "",
            "cms",
            "//",
            "/cms//",
            "//cms",
            "/a//b",
            "/a b",
            "/é",
            "/a?b",
            "/a#b",
            "/%2e",
            "https://example.com/cms",
            "/a\\b",
        ] {
            assert!(text.parse::<PublicPath>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_configured_path_takes_precedence_over_a_well_formed_header() {
        let path = |configured: Option<&str>, prefixes: &[&'static str]| {
            let configured = configured.map(|path| path.parse().unwrap());
            let mut headers = HeaderMap::new();
            for prefix in prefixes {
                headers.append(FORWARDED_PREFIX, HeaderValue::from_static(prefix));
            }
            PublicPath::of_request(configured.as_ref(), &headers).to_string()
        };

        assert_eq!(path(None, &["/cms"]), "/cms");
        assert_eq!(path(Some("/site"), &["/cms"]), "/site");
        assert_eq!(path(Some("/"), &["/cms"]), "");
        for ignored in [
            &[][..],
            &["cms"],
            &["/cms/"],
            &["/cms, /x"],
            &["//evil.example"],
            &["/a", "/b"],
            &["/a\"b"],
        ] {
            assert_eq!(path(None, ignored), "", "{ignored:?}");
        }
    }
}

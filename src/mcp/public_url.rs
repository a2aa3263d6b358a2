//! The address of a document on the website, from a template: `https://example.com/{kind}/{id}`.

use std::{fmt::Write, str::FromStr};

use url::Url;

use crate::domain::DocumentKey;

const EXPECTED: &str = "expected the address of a document on the website, with `{id}` for its id and `{kind}` for `projects` or `resources`, such as `https://example.com/{kind}/{id}`";

/// An address of the website with `{id}` and perhaps `{kind}` in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl(String);

impl FromStr for PublicUrl {
    type Err = String;

    /// Reads a template. The error repeats nothing of it, because it may hold a password.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        match problem(text) {
            None => Ok(Self(text.to_owned())),
            Some(problem) => Err(format!("{problem}; {EXPECTED}")),
        }
    }
}

impl PublicUrl {
    /// The address of a document.
    #[must_use]
    pub fn of(&self, key: &DocumentKey) -> String {
        let with_kind = self.0.replace("{kind}", key.kind.plural());
        with_kind.replace("{id}", &percent_encoded(&key.id))
    }
}

fn problem(text: &str) -> Option<&'static str> {
    let lower = text.to_lowercase();
    let Some(rest) = ["https://", "http://"]
        .iter()
        .find_map(|scheme| lower.strip_prefix(scheme))
    else {
        return Some("it does not begin with http:// or https://");
    };
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Some("it holds a space or a control character");
    }
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    if authority.is_empty() {
        return Some("it names no host");
    }
    if authority.contains('@') {
        return Some("it holds a user name or a password, which every answer would show");
    }
    if !text.contains("{id}") {
        return Some("`{id}` is missing");
    }
    if authority.contains("{id}") {
        return Some("`{id}` is in the name of the host");
    }
    let filled = text.replace("{id}", "a").replace("{kind}", "projects");
    if filled.contains(['{', '}']) {
        return Some("it holds a placeholder other than `{kind}` and `{id}`");
    }
    let is_valid = Url::parse(&filled).is_ok_and(|url| url.has_host());
    (!is_valid).then_some("it is not a valid URL")
}

/// The text with every byte encoded that is not unreserved in RFC 3986: the ids of older programs may
/// hold any.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Kind;

    #[test]
    fn an_address_is_made_of_kind_and_id() {
        let url = |template: &str, id: &str| {
            let template: PublicUrl = template.parse().unwrap();
            template.of(&DocumentKey::new(Kind::Project, id))
        };

        assert_eq!(
            url(" https://example.com/{kind}/{id} ", "rdv-artisan"),
            "https://example.com/projects/rdv-artisan"
        );
        assert_eq!(
            url("HTTP://localhost:3000/fr/{id}#{kind}", "a/é ?{kind}"),
            "HTTP://localhost:3000/fr/a%2F%C3%A9%20%3F%7Bkind%7D#projects"
        );
        assert_eq!(
            url("https://{kind}.example.com/?id={id}&x=a@b", "a"),
            "https://projects.example.com/?id=a&x=a@b"
        );
    }

    #[test]
    fn every_other_form_is_refused_with_the_reason() {
        for (template, reason) in [
            ("example.com/{kind}/{id}", "begin with http"),
            ("ftp://example.com/{id}", "begin with http"),
            ("javascript:alert({id})", "begin with http"),
            ("//example.com/{id}", "begin with http"),
            ("/{kind}/{id}", "begin with http"),
            ("https://example.com/{kind}", "`{id}` is missing"),
            ("https://example.com/{ID}", "`{id}` is missing"),
            ("https://{id}.example.com/", "name of the host"),
            ("https://example.com/{slug}/{id}", "placeholder"),
            ("https://example.com/{{id}}", "placeholder"),
            ("https://example.com/{id", "`{id}` is missing"),
            ("https://example.com/{id}/}", "placeholder"),
            ("https://u:s3cret@example.com/{id}", "password"),
            ("https://u@example.com/{id}", "password"),
            ("https://example.com/a b/{id}", "space"),
            ("https://example.com/{id}\n", ""),
            ("https:///{id}", "host"),
            ("https://:80/{id}", "valid URL"),
        ] {
            let parsed = template.parse::<PublicUrl>();
            if reason.is_empty() {
                assert!(parsed.is_ok(), "{template}");
                continue;
            }

            let problem = parsed.unwrap_err();

            assert!(problem.contains(reason), "{template}: {problem}");
            assert!(
                problem.contains("https://example.com/{kind}/{id}"),
                "{problem}"
            );
            assert!(!problem.contains("s3cret"), "{problem}");
        }
    }
}

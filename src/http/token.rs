//! Bearer tokens: parsing the list, and finding the owner of one.
//!
//! Knows the text of a token list but not where it comes from. Only hashes are kept. Every lookup
//! compares all of them, so that response times reveal nothing about any token.

use std::{collections::HashMap, fmt, sync::Arc};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::caller::{Caller, Role};

/// Shorter tokens could be guessed.
const MIN_TOKEN_LEN: usize = 16;
/// Anything longer is not a token but a mistake.
const MAX_TOKEN_LEN: usize = 512;
const MAX_NAME_CHARS: usize = 64;

/// The tokens of a deployment.
#[derive(Clone)]
pub struct Tokens(Vec<Token>);

#[derive(Clone)]
struct Token {
    digest: [u8; 32],
    caller: Caller,
}

/// Only names: logs must not hold even the hash of a token.
impl fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_list()
            .entries(self.0.iter().map(|token| &token.caller.name))
            .finish()
    }
}

impl Tokens {
    /// Parses `name:role:token` lines. Empty lines and lines that begin with `#` are skipped.
    ///
    /// # Errors
    /// Every problem, with its line number. No problem quotes its line, because any part of it may
    /// be the secret.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let (mut tokens, mut problems) = (Vec::new(), Vec::new());
        let (mut names, mut digests) = (HashMap::new(), HashMap::new());
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text
            .lines()
            .map(str::trim)
            .zip(1_usize..)
            .filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
        for (line, number) in lines {
            match parse_line(line) {
                Ok(token) => {
                    if let Some(first) = names.insert(Arc::clone(&token.caller.name), number) {
                        problems.push(format!(
                            "line {number}: same name as line {first}; \
                             each token needs its own name"
                        ));
                    }
                    if let Some(first) = digests.insert(token.digest, number) {
                        problems.push(format!(
                            "line {number}: same token as line {first}; \
                             each name needs its own token"
                        ));
                    }
                    tokens.push(token);
                }
                Err(problem) => problems.push(format!("line {number}: {problem}")),
            }
        }
        if tokens.is_empty() && problems.is_empty() {
            problems
                .push("no token found; expected lines of the form `name:role:token`".to_owned());
        }
        if problems.is_empty() {
            Ok(Self(tokens))
        } else {
            Err(problems)
        }
    }

    /// The number of tokens.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The owner of `token`; `None` if it is unknown.
    pub(super) fn find_caller(&self, token: &[u8]) -> Option<&Caller> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let mut found = None;
        // Compares all: the time must not depend on which one matches.
        for known in &self.0 {
            if bool::from(known.digest.ct_eq(&digest)) {
                found = Some(&known.caller);
            }
        }
        found
    }
}

fn parse_line(line: &str) -> Result<Token, String> {
    let mut parts = line.splitn(3, ':');
    let (Some(name), Some(role), Some(token)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("expected `name:role:token`".to_owned());
    };
    let is_name_char = |c: char| c.is_alphanumeric() || "-_.@+".contains(c);
    if name.is_empty() || name.chars().count() > MAX_NAME_CHARS || !name.chars().all(is_name_char) {
        return Err(format!(
            "the name must have 1 to {MAX_NAME_CHARS} characters: letters, digits and `-_.@+`"
        ));
    }
    let role = match role {
        "read" => Role::Read,
        "write" => Role::Write,
        _ => return Err("the role must be `read` or `write`".to_owned()),
    };
    if !(MIN_TOKEN_LEN..=MAX_TOKEN_LEN).contains(&token.len()) {
        return Err(format!(
            "the token must have {MIN_TOKEN_LEN} to {MAX_TOKEN_LEN} characters; generate one with \
             `openssl rand -hex 32`"
        ));
    }
    // RFC 6750 allows clients to send nothing else.
    if !token
        .trim_end_matches('=')
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-._~+/".contains(c))
    {
        return Err(
            "the token may contain only ASCII letters, digits and `-._~+/`, and `=` at its end"
                .to_owned(),
        );
    }
    Ok(Token {
        digest: Sha256::digest(token).into(),
        caller: Caller {
            name: name.into(),
            role,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARIE: &str = "0123456789abcdef";

    #[test]
    fn each_line_holds_a_name_a_role_and_a_token() {
        let text = format!(
            "\u{feff}# the owner\r\n\r\nmarie:write:{MARIE}\nsite:read:aB-._~+/0123456789==\n"
        );
        let tokens = Tokens::parse(&text).unwrap();

        assert_eq!(tokens.count(), 2);
        assert_eq!(
            tokens.find_caller(MARIE.as_bytes()),
            Some(&Caller {
                name: "marie".into(),
                role: Role::Write
            })
        );
        assert_eq!(
            tokens.find_caller(b"aB-._~+/0123456789==").unwrap().role,
            Role::Read
        );
        for other in [
            &b""[..],
            b"0123456789abcde",
            b"0123456789abcdef0",
            b"0123456789abcdeF",
        ] {
            assert_eq!(tokens.find_caller(other), None);
        }
        assert!(!format!("{tokens:?}").contains(MARIE));
    }

    #[test]
    fn all_problems_are_reported_by_line_number_without_quoting_the_line() {
        let lines = [
            "s3cret-s3cret-s3cret",
            "a:admin:s3cret-s3cret-s3cret",
            ":read:s3cret-s3cret-s3cret",
            "b:read:s3cret",
            "c:read:s3cret s3cret s3cret",
            "d:read:s3cret-s3cret-s3cret-1",
            "d:read:s3cret-s3cret-s3cret-2",
            "e:write:s3cret-s3cret-s3cret-1",
        ];

        let problems = Tokens::parse(&lines.join("\n")).unwrap_err();

        let reported: Vec<&str> = problems
            .iter()
            .map(|problem| problem.split(':').next().unwrap())
            .collect();
        assert_eq!(
            reported,
            [
                "line 1", "line 2", "line 3", "line 4", "line 5", "line 7", "line 8"
            ]
        );
        assert!(!problems.concat().contains("s3cret"), "{problems:?}");
        assert!(Tokens::parse("# nothing\n").unwrap_err()[0].contains("no token"));
    }
}

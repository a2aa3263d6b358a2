//! Bearer tokens: which there are, and whose one is.
//!
//! Knows the tokens' text but not where it comes from. Kept are hashes alone, and all of them are compared each time, so
//! that the time an answer takes tells nothing about any.

use std::{collections::HashMap, fmt, sync::Arc};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::caller::{Caller, Role};

/// Shorter tokens could be guessed.
const SHORTEST: usize = 16;
/// Longer lines are no tokens but a mistake.
const LONGEST: usize = 512;
const LONGEST_NAME: usize = 64;

/// The tokens of a deployment.
#[derive(Clone)]
pub struct Tokens(Vec<Token>);

#[derive(Clone)]
struct Token {
    digest: [u8; 32],
    caller: Caller,
}

/// Names alone: even the hash of a token is nobody's business.
impl fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_list()
            .entries(self.0.iter().map(|token| &token.caller.name))
            .finish()
    }
}

impl Tokens {
    /// Reads `name:role:token` lines; empty ones and those that begin with `#` are skipped.
    ///
    /// # Errors
    /// Everything that is wrong, by line. No text of a line is repeated, because any part of it may be the secret.
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
                        problems.push(format!("line {number}: the name of line {first} again; each token needs a name of its own"));
                    }
                    if let Some(first) = digests.insert(token.digest, number) {
                        problems.push(format!("line {number}: the token of line {first} again; each name needs a token of its own"));
                    }
                    tokens.push(token);
                }
                Err(problem) => problems.push(format!("line {number}: {problem}")),
            }
        }
        if tokens.is_empty() && problems.is_empty() {
            problems.push(
                "there is no token in it; expected lines of the form name:role:token".to_owned(),
            );
        }
        if problems.is_empty() {
            Ok(Self(tokens))
        } else {
            Err(problems)
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whose token this is.
    pub(super) fn caller(&self, presented: &[u8]) -> Option<&Caller> {
        let digest: [u8; 32] = Sha256::digest(presented).into();
        let mut found = None;
        for token in &self.0 {
            if bool::from(token.digest.ct_eq(&digest)) {
                found = Some(&token.caller);
            }
        }
        found
    }
}

fn parse_line(line: &str) -> Result<Token, String> {
    let mut parts = line.splitn(3, ':');
    let (Some(name), Some(role), Some(token)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("expected name:role:token".to_owned());
    };
    let good = |c: char| c.is_alphanumeric() || "-_.@+".contains(c);
    if name.is_empty() || name.chars().count() > LONGEST_NAME || !name.chars().all(good) {
        return Err(format!(
            "the name must be 1 to {LONGEST_NAME} letters, digits or `-_.@+`"
        ));
    }
    let role = match role {
        "read" => Role::Read,
        "write" => Role::Write,
        _ => return Err("the role must be `read` or `write`".to_owned()),
    };
    if !(SHORTEST..=LONGEST).contains(&token.len()) {
        return Err(format!(
            "the token must have {SHORTEST} to {LONGEST} characters; `openssl rand -hex 32` makes a good one"
        ));
    }
    // What RFC 6750 lets a client send.
    if !token
        .trim_end_matches('=')
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-._~+/".contains(c))
    {
        return Err(
            "a token consists of ASCII letters, digits and `-._~+/`, with `=` only at its end"
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
    fn lines_hold_name_role_and_token() {
        let text = format!("\u{feff}# the owner\r\n\r\nmarie:write:{MARIE}\n  site : ignored\n")
            .replace("  site : ignored\n", "site:read:aB-._~+/0123456789==\n");
        let tokens = Tokens::parse(&text).unwrap();

        assert_eq!(tokens.count(), 2);
        assert_eq!(
            tokens.caller(MARIE.as_bytes()),
            Some(&Caller {
                name: "marie".into(),
                role: Role::Write
            })
        );
        assert_eq!(
            tokens.caller(b"aB-._~+/0123456789==").unwrap().role,
            Role::Read
        );
        for other in [
            &b""[..],
            b"0123456789abcde",
            b"0123456789abcdef0",
            b"0123456789abcdeF",
        ] {
            assert_eq!(tokens.caller(other), None);
        }
        assert!(!format!("{tokens:?}").contains(MARIE));
    }

    #[test]
    fn everything_wrong_is_told_at_once_by_line_and_without_the_line() {
        let text = "s3cret-s3cret-s3cret\na:admin:s3cret-s3cret-s3cret\n:read:s3cret-s3cret-s3cret\nb:read:s3cret\nc:read:s3cret s3cret s3cret\n\
                    d:read:s3cret-s3cret-s3cret-1\nd:read:s3cret-s3cret-s3cret-2\ne:write:s3cret-s3cret-s3cret-1";

        let problems = Tokens::parse(text).unwrap_err();

        let lines: Vec<&str> = problems
            .iter()
            .map(|problem| problem.split(':').next().unwrap())
            .collect();
        assert_eq!(
            lines,
            [
                "line 1", "line 2", "line 3", "line 4", "line 5", "line 7", "line 8"
            ]
        );
        assert!(!problems.concat().contains("s3cret"), "{problems:?}");
        assert!(Tokens::parse("# nothing\n").unwrap_err()[0].contains("no token"));
    }
}

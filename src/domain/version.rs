//! The version of a document, and the hash that it and the audit log are made of.

use std::fmt;

use serde::Serialize;
use sha2::{Digest, Sha256};

/// The version of a document: the first 16 hexadecimal digits of the SHA-256 of its stored bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, schemars::JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Version(String);

impl Version {
    /// The version of a document that is stored as `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::of_checksum(&sha256_hex(bytes))
    }

    pub(super) fn of_checksum(checksum: &str) -> Self {
        Self(checksum.chars().take(16).collect())
    }

    /// The 16 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The SHA-256 of `bytes` in lower-case hexadecimal digits.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_beginning_of_the_sha_256_of_the_bytes() {
        assert_eq!(Version::of(b"abc").as_str(), "ba7816bf8f01cfea");
    }
}

//! Names of writes, so that each is applied and recorded once.

use serde_json::Value;

use super::{number::canonical_text, version::sha256_hex};

/// Names a write, so that it is applied and recorded once, however often it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    key: String,
    fingerprint: String,
    ttl_seconds: u32,
}

impl Operation {
    /// A write that the caller may repeat under `key`, for 24 hours and from anywhere; `request` is
    /// compared as JSON.
    #[must_use]
    pub fn keyed(key: &str, request: Value) -> Self {
        Self {
            ttl_seconds: 24 * 60 * 60,
            ..Self::once(key, request)
        }
    }

    /// A write that only this call repeats, under a key that nothing else has.
    #[must_use]
    pub fn once(key: &str, request: Value) -> Self {
        let key = sha256_hex(key.as_bytes());
        let fingerprint = sha256_hex([&key, " ", &canonical_text(request)].concat().as_bytes());
        Self {
            key,
            fingerprint,
            ttl_seconds: 15 * 60,
        }
    }

    /// The hash of the key, under which the store keeps the idempotency record.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The hash of key and request, which distinguishes a repetition from another request with the
    /// same key.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// How long the store keeps the idempotency record.
    #[must_use]
    pub fn ttl_seconds(&self) -> u32 {
        self.ttl_seconds
    }
}

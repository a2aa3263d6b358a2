//! Cursors: a place in a list, opaque to clients and bound to the query that it came from.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::domain::{Violation, sha256_hex};

/// The cursor for `place` in the answers to `query`.
#[must_use]
pub fn encode(query: &Value, place: &impl Serialize) -> String {
    BASE64_URL_SAFE_NO_PAD
        .encode(serde_json::to_vec(&(fingerprint(query), place)).unwrap_or_default())
}

/// The place that `cursor` stands for, if it is one of the answers to `query`.
///
/// # Errors
/// The violation to answer with.
pub fn decode<P: DeserializeOwned>(query: &Value, cursor: &str) -> Result<P, Violation> {
    let (of, place) = decode_any(cursor)?;
    if of != fingerprint(query) {
        return Err(wrong(
            "a cursor of another query: all filters have to stay the same",
        ));
    }
    serde_json::from_value(place).map_err(|_| wrong("not a cursor of this tool"))
}

/// The query and the place of any cursor of this server.
///
/// # Errors
/// The violation to answer with.
pub fn decode_any(cursor: &str) -> Result<(String, Value), Violation> {
    let json = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok();
    json.and_then(|json| serde_json::from_slice(&json).ok())
        .ok_or_else(|| wrong("not a cursor of this server"))
}

fn wrong(problem: &str) -> Violation {
    Violation::new(
        "cursor",
        "cursor",
        format!("{problem}; call again without it to begin with the first page"),
    )
}

fn fingerprint(query: &Value) -> String {
    let mut digits = sha256_hex(query.to_string().as_bytes());
    digits.truncate(12);
    digits
}

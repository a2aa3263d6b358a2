//! Cursors: a position in a list or in the log, opaque to clients and bound to its query.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::domain::{Violation, sha256_hex};

/// Hexadecimal digits of a query's hash that a cursor carries.
const FINGERPRINT_LEN: usize = 12;

/// The cursor for `position` in the results of `query`.
#[must_use]
pub fn encode(query: &Value, position: &impl Serialize) -> String {
    BASE64_URL_SAFE_NO_PAD
        .encode(serde_json::to_vec(&(fingerprint(query), position)).unwrap_or_default())
}

/// The position that `cursor` stands for in the results of `query`.
///
/// # Errors
/// When it is not a cursor, or one from another query.
pub fn decode<P: DeserializeOwned>(query: &Value, cursor: &str) -> Result<P, Violation> {
    let (query_fingerprint, position) = decode_any(cursor)?;
    if query_fingerprint != fingerprint(query) {
        return Err(violation(
            "this cursor is from a different tool or has different filters; send the filters of the call that returned it, or leave the cursor out to get the first page",
        ));
    }
    serde_json::from_value(position).map_err(|_| invalid_cursor())
}

/// The query's fingerprint and the position in any cursor of this server.
///
/// # Errors
/// When it is not a cursor.
pub fn decode_any(cursor: &str) -> Result<(String, Value), Violation> {
    let json = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok();
    json.and_then(|json| serde_json::from_slice(&json).ok())
        .ok_or_else(invalid_cursor)
}

fn invalid_cursor() -> Violation {
    violation(
        "not a valid cursor; send `meta.nextCursor` of the previous page unchanged, or leave the cursor out to get the first page",
    )
}

fn violation(message: &str) -> Violation {
    Violation::new("cursor", "cursor", message)
}

fn fingerprint(query: &Value) -> String {
    let mut digits = sha256_hex(query.to_string().as_bytes());
    digits.truncate(FINGERPRINT_LEN);
    digits
}

//! Cursors: a place in a list, opaque to clients and bound to the query that it came from.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::domain::{Violation, document::sha256_hex};

/// The cursor for `place` in the answers to `query`.
pub(super) fn encode(query: &Value, place: &impl Serialize) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&(fingerprint(query), place)).unwrap_or_default())
}

/// The place that `cursor` stands for, if it is one of the answers to `query`.
///
/// # Errors
/// The violation to answer with.
pub(super) fn decode<P: DeserializeOwned>(query: &Value, cursor: &str) -> Result<P, Violation> {
    let wrong =
        |problem: &str| Violation::new("cursor", "cursor", format!("{problem}; call again without it to begin with the first page"));
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).map_err(|_| wrong("not a cursor of this server"))?;
    let (of, place): (String, P) = serde_json::from_slice(&bytes).map_err(|_| wrong("not a cursor of this tool"))?;
    if of == fingerprint(query) { Ok(place) } else { Err(wrong("a cursor of another query: all filters have to stay the same")) }
}

fn fingerprint(query: &Value) -> String {
    let mut digits = sha256_hex(query.to_string().as_bytes());
    digits.truncate(12);
    digits
}

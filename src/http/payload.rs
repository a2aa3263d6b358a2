//! Published content as the REST API sends it.

use std::time::Duration;

use serde::Serialize;

use crate::{
    domain::{sha256_hex, text::compact_json},
    service::RESPONSE_TTL,
};

/// What surrounds the data in a response. The data itself is JSON text and is not parsed again.
const BEFORE_DATA: &str = r#"{"success":true,"data":"#;
const BEFORE_META: &str = r#","meta":"#;
const END: &str = "}";

/// The data of a response, and what its headers and `meta` say about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Payload {
    /// JSON text.
    pub(super) data: String,
    /// With its quotes.
    pub(super) etag: String,
    pub(super) total: Option<usize>,
    /// Set if the data is from the snapshot because the store is unavailable.
    pub(super) snapshot_age: Option<Duration>,
    /// How long it may be cached.
    pub(super) ttl: Duration,
}

impl Payload {
    /// Data that the store holds.
    pub(super) fn new(data: String, total: Option<usize>) -> Self {
        Self {
            etag: etag_of(&data),
            data,
            total,
            snapshot_age: None,
            ttl: RESPONSE_TTL,
        }
    }

    /// The body of a response.
    pub(super) fn with_meta(&self, meta: &impl Serialize) -> String {
        format!(
            "{BEFORE_DATA}{}{BEFORE_META}{}{END}",
            self.data,
            compact_json(meta)
        )
    }
}

/// Data and `meta` of a response that [`Payload::with_meta`] made.
pub(super) fn split_body(body: &str) -> Option<(&str, &str)> {
    body.strip_prefix(BEFORE_DATA)?
        .strip_suffix(END)?
        .rsplit_once(BEFORE_META)
}

/// The same data always has the same tag.
fn etag_of(data: &str) -> String {
    let hash = sha256_hex(data.as_bytes());
    format!("\"{}\"", hash.get(..32).unwrap_or(&hash))
}

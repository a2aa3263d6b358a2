//! The stored form of a REST response in the shared response cache: the response itself, with a
//! `meta` that holds the number of the write it was read after.

use serde::{Deserialize, Serialize};

use super::payload::{Payload, split_body};

#[derive(Serialize, Deserialize)]
struct StoredMeta {
    timestamp: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    total: Option<usize>,
    seq: u64,
    etag: String,
}

/// The stored form of a response that was read when `seq` was the number of the newest write.
pub(super) fn encode(payload: &Payload, seq: u64, timestamp: String) -> String {
    payload.with_meta(&StoredMeta {
        timestamp,
        total: payload.total,
        seq,
        etag: payload.etag.clone(),
    })
}

/// The response that is stored as `text`; `None` if it is older than the write number `seq`, or if
/// another program stored it.
pub(super) fn decode(text: &str, seq: u64) -> Option<Payload> {
    let (data, meta) = split_body(text)?;
    let meta: StoredMeta = serde_json::from_str(meta).ok()?;
    let payload = Payload::new(data.to_owned(), meta.total, None);
    // The tag is computed from the data, so it also shows whether the data was altered.
    (meta.seq == seq && meta.etag == payload.etag).then_some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_response_is_valid_only_unaltered_and_for_its_own_write() {
        let payload = Payload::new(
            r#"[{"id":"a","text":",\"meta\":{}"}]"#.to_owned(),
            Some(1),
            None,
        );
        let stored = encode(&payload, 7, "2026-01-01T00:00:00.000Z".to_owned());

        assert_eq!(decode(&stored, 7), Some(payload));
        assert_eq!(decode(&stored, 8), None);
        assert_eq!(
            decode(&stored.replace(r#""id":"a""#, r#""id":"b""#), 7),
            None
        );
        for foreign in [
            "",
            "{}",
            "null",
            r#"{"success":true,"data":[],"meta":{}}"#,
            r#"{"success":true,"data":[],"meta":{"seq":7}}"#,
        ] {
            assert_eq!(decode(foreign, 7), None, "{foreign}");
        }
    }
}

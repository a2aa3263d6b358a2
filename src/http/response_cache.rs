//! The stored form of a REST response in the shared response cache: the response itself, with a
//! `meta` that holds the state it was read in.

use serde::{Deserialize, Serialize};

use super::payload::{Payload, split_body};
use crate::domain::StoreState;

#[derive(Serialize, Deserialize)]
struct StoredMeta {
    timestamp: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    total: Option<usize>,
    #[serde(flatten)]
    state: StoreState,
    etag: String,
}

/// The stored form of a response that was read in the state `state` or later.
pub(super) fn encode(payload: &Payload, state: &StoreState, timestamp: String) -> String {
    payload.with_meta(&StoredMeta {
        timestamp,
        total: payload.total,
        state: state.clone(),
        etag: payload.etag.clone(),
    })
}

/// The response that is stored as `text`; `None` if it belongs to another state, or if another
/// program stored it.
pub(super) fn decode(text: &str, state: &StoreState) -> Option<Payload> {
    let (data, meta) = split_body(text)?;
    let meta: StoredMeta = serde_json::from_str(meta).ok()?;
    let payload = Payload::new(data.to_owned(), meta.total);
    // The tag is computed from the data, so it also shows whether the data was altered.
    (meta.state == *state && meta.etag == payload.etag).then_some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::History;

    #[test]
    fn a_stored_response_is_valid_only_unaltered_and_for_its_own_write() {
        let payload = Payload::new(r#"[{"id":"a","text":",\"meta\":{}"}]"#.to_owned(), Some(1));
        let state = |seq, history: &str| StoreState {
            seq,
            history: History::parse(history.to_owned()),
        };
        let stored = encode(
            &payload,
            &state(7, "a"),
            "2026-01-01T00:00:00.000Z".to_owned(),
        );

        assert_eq!(decode(&stored, &state(7, "a")), Some(payload));
        assert_eq!(decode(&stored, &state(8, "a")), None);
        assert_eq!(decode(&stored, &state(7, "b")), None);
        assert_eq!(
            decode(
                &stored.replace(r#""id":"a""#, r#""id":"b""#),
                &state(7, "a")
            ),
            None
        );
        for foreign in [
            "",
            "{}",
            "null",
            r#"{"success":true,"data":[],"meta":{}}"#,
            r#"{"success":true,"data":[],"meta":{"seq":7}}"#,
        ] {
            assert_eq!(decode(foreign, &state(7, "")), None, "{foreign}");
        }
    }
}

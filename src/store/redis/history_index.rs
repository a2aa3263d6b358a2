//! The history index: where in the log the entries of each document are, and those of each audit id.
//!
//! It is one sorted set, in which every entry of the log has two members. Both follow from the entry
//! and its score alone, so that adding one twice changes nothing, and the index is complete if it has
//! twice as many members as the log has entries. A member is
//!
//! ```text
//! d ⏎ entityId ⏎ score in 16 digits, beginning of the entry ⏎ letter of the kind, mark ⏎ exact score
//! i ⏎ id       ⏎ the same
//! ```
//!
//! where ⏎ is a line feed, and the exact score is there only if it is not the 16 digits. All have the
//! score 0, so Redis orders them by their bytes: the entries of a document as the log does, as far as
//! the beginning distinguishes them.

use crate::domain::{
    Kind, StoredEntry,
    audit::{Category, numbered_beginning},
};

pub(super) mod catch_up;
pub(super) mod reader;

/// Longer ids are not in the index.
const MAX_ID_BYTES: usize = 255;
/// How much of an entry of another program is in its members.
const MAX_BEGINNING_BYTES: usize = 100;
/// How much of an audit id distinguishes two entries of this program with the same score and number.
const MARK_CHARACTERS: usize = 8;
/// The greatest score of 16 digits.
const MAX_ORDER: i64 = 9_999_999_999_999_999;
/// Below this, every score without a fraction has 16 digits.
const MAX_EXACT_SCORE: f64 = 1e16;

/// How the members of a document's entries begin; `None` if there are none to be found.
pub(super) fn document_head(id: &str) -> Option<String> {
    is_indexed(id).then(|| format!("d\n{id}\n"))
}

/// How the members of the entries with an audit id begin; `None` if there are none to be found.
pub(super) fn id_head(id: &str) -> Option<String> {
    is_indexed(id).then(|| format!("i\n{id}\n"))
}

fn is_indexed(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_ID_BYTES && !id.contains('\n')
}

/// The letter of a kind in members.
pub(super) fn letter(kind: Option<Kind>) -> &'static str {
    match kind {
        Some(Kind::Project) => "p",
        Some(Kind::Resource) => "r",
        None => "?",
    }
}

/// What the members of an entry of this program have in common with no other program's: how they
/// begin and end. Between them, the commit script puts the score and the beginning of the entry.
pub(super) struct OwnMembers {
    pub(super) document: String,
    pub(super) id: String,
    pub(super) tail: String,
}

impl OwnMembers {
    pub(super) fn new(kind: Kind, entity_id: &str, audit_id: &str) -> Self {
        Self {
            document: document_head(entity_id).unwrap_or_else(|| no_head('d')),
            id: id_head(audit_id).unwrap_or_else(|| no_head('i')),
            tail: tail(Some(kind), &own_mark(audit_id), ""),
        }
    }
}

/// How the members of entries begin that name no document, or have no id.
fn no_head(of: char) -> String {
    format!("{of}\n\n")
}

fn own_mark(audit_id: &str) -> String {
    audit_id.chars().take(MARK_CHARACTERS).collect()
}

fn tail(kind: Option<Kind>, mark: &str, exact_score: &str) -> String {
    format!("\n{}{mark}\n{exact_score}", letter(kind))
}

/// Both members of an entry that is in the log with `score`.
pub(super) fn members(score: f64, entry: &StoredEntry) -> [Vec<u8>; 2] {
    let id = entry.text_of("id").filter(|id| is_indexed(id));
    let (beginning, mark) = match (numbered_beginning(entry.text()), id) {
        (Some(beginning), Some(id)) => (beginning.as_bytes(), own_mark(id)),
        _ => (foreign_beginning(entry.text()), entry.digest()),
    };
    let label = entry.label(Category::EntityType);
    let tail = tail(label.and_then(Kind::from_stored), &mark, &exact(score));
    let document = entry.text_of("entityId").and_then(document_head);
    let heads = [
        document.unwrap_or_else(|| no_head('d')),
        id.and_then(id_head).unwrap_or_else(|| no_head('i')),
    ];
    let order = digits(order(score));
    heads.map(|head| {
        [
            head.as_bytes(),
            order.as_bytes(),
            beginning,
            tail.as_bytes(),
        ]
        .concat()
    })
}

/// The beginning of an entry, up to what may not be UTF-8 in the log.
fn foreign_beginning(text: &str) -> &[u8] {
    let text = text.split('\u{fffd}').next().unwrap_or_default();
    let bytes = text.as_bytes();
    bytes.get(..MAX_BEGINNING_BYTES).unwrap_or(bytes)
}

/// The score that members are ordered by.
pub(super) fn order(score: f64) -> i64 {
    super::reply::rounded_down(score).clamp(0, MAX_ORDER)
}

/// An order as it is in members.
pub(super) fn digits(order: i64) -> String {
    format!("{order:016}")
}

fn exact(score: f64) -> String {
    if score.fract() == 0.0 && (0.0..MAX_EXACT_SCORE).contains(&score) {
        String::new()
    } else {
        format!("{score:e}")
    }
}

/// The score that a member names.
pub(super) fn score_of(member: &[u8]) -> Option<f64> {
    let mut parts = member.splitn(3, |byte| *byte == b'\n').skip(2);
    let pointer = parts.next()?;
    let exact = pointer.rsplit(|byte| *byte == b'\n').next()?;
    let score = match exact {
        [] => pointer.get(..16)?,
        exact => exact,
    };
    str::from_utf8(score).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::{Timestamp, audit::entry_text};

    fn text(members: &[Vec<u8>; 2]) -> [String; 2] {
        members
            .each_ref()
            .map(|member| String::from_utf8_lossy(member).into_owned())
    }

    #[test]
    fn members_of_an_own_entry_are_what_the_commit_script_makes() {
        let rest =
            r#""id":"0b5c7f6e-aaaa","action":"update","entityType":"project","entityId":"a"}"#;
        let entry = StoredEntry::parse(entry_text(
            42,
            Timestamp::from_millis(1_771_000_000_123),
            rest,
        ));

        let members = members(1_771_000_000_123.0, &entry);

        let own = OwnMembers::new(Kind::Project, "a", "0b5c7f6e-aaaa");
        let pointer = r#"0001771000000123{"seq":              42"#;
        assert_eq!(
            text(&members),
            [&own.document, &own.id].map(|head| format!("{head}{pointer}{}", own.tail))
        );
        assert_eq!(own.document, "d\na\n");
        assert_eq!(own.id, "i\n0b5c7f6e-aaaa\n");
        assert_eq!(own.tail, "\np0b5c7f6e\n");
    }

    #[test]
    fn every_score_can_be_read_from_a_member() {
        let entry = StoredEntry::parse(json!({ "entityId": "a", "n": "1\n2" }).to_string());
        for score in [
            0.0,
            1.0,
            1_771_000_000_123.0,
            9_007_199_254_740_993.0,
            1_771_000_000_123.5,
            -1.0,
            -2.5,
            1e16,
            1e300,
            f64::INFINITY,
            f64::NEG_INFINITY,
        ] {
            for member in members(score, &entry) {
                assert_eq!(score_of(&member), Some(score), "{score}");
            }
        }
    }

    #[test]
    fn ids_that_a_member_cannot_hold_are_left_out() {
        let long = "x".repeat(MAX_ID_BYTES + 1);
        for id in [json!("a\nb"), json!(""), json!(5), json!(long)] {
            let entry = StoredEntry::parse(json!({ "id": id, "entityId": id }).to_string());

            let [document, audit_id] = text(&members(5.0, &entry));

            assert!(document.starts_with("d\n\n0000000000000005{"), "{document}");
            assert!(audit_id.starts_with("i\n\n0000000000000005{"), "{audit_id}");
        }
    }
}

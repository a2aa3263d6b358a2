//! A point in the past, as callers name it.

use super::{timestamp::Timestamp, violation::Violation};

/// A point in the past. The content of then is what all writes up to it, itself included, had led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PointInTime {
    /// A time.
    Time(Timestamp),
    /// The write with this audit id.
    Entry(String),
}

impl PointInTime {
    /// Reads an RFC 3339 time or an audit id, which is a UUID.
    ///
    /// # Errors
    /// Any other text, which nobody has to look for in the log.
    pub fn parse(text: &str, argument: &str) -> Result<Self, Violation> {
        if let Some(time) = Timestamp::parse(text) {
            return Ok(Self::Time(time));
        }
        if may_be_id(text) {
            return Ok(Self::Entry(text.to_owned()));
        }
        let message =
            "expected an RFC 3339 time such as `2026-11-22T10:15:30Z`, or the audit id of a change";
        Err(Violation::new(argument, "format", message))
    }
}

/// Whether the log may have an entry of this id. Those of older programs have other forms than ours,
/// but words such as `yesterday`, and dates, need not be looked for.
fn may_be_id(text: &str) -> bool {
    let is_date = text
        .split_once('-')
        .is_some_and(|(year, _)| year.len() == 4 && year.parse::<u16>().is_ok());
    let has_digit = text.bytes().any(|byte| byte.is_ascii_digit());
    has_digit && !is_date && !text.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_a_time_or_an_audit_id() {
        let id = "0b5c8f3e-5a44-4c0e-9d43-1f2e3d4c5b6a";
        let time = "2026-11-22T10:15:30Z";
        let entry = PointInTime::Entry(id.to_owned());

        assert_eq!(PointInTime::parse(id, "asOf"), Ok(entry));
        assert!(matches!(
            PointInTime::parse(time, "asOf"),
            Ok(PointInTime::Time(_))
        ));
        let older = PointInTime::Entry("a-0007".to_owned());
        assert_eq!(PointInTime::parse("a-0007", "asOf"), Ok(older));
        for text in [
            "yesterday",
            "2026-11-22",
            "2026-11-22T10:15",
            "22 November 2026",
            "",
        ] {
            let refused = PointInTime::parse(text, "asOf").unwrap_err();
            assert_eq!(refused.path, "asOf", "{text}");
            assert!(refused.message.contains("or the audit id"), "{text}");
        }
    }
}

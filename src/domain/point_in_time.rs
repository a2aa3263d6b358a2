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
        if is_uuid(text) {
            return Ok(Self::Entry(text.to_owned()));
        }
        let message =
            "expected an RFC 3339 time such as `2026-11-22T10:15:30Z`, or the audit id of a change";
        Err(Violation::new(argument, "format", message))
    }
}

fn is_uuid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
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
        for text in [
            "yesterday",
            "2026-11-22",
            "",
            &id[1..],
            &id.replace('b', "x"),
        ] {
            let refused = PointInTime::parse(text, "asOf").unwrap_err();
            assert_eq!(refused.path, "asOf", "{text}");
            assert!(refused.message.contains("or the audit id"), "{text}");
        }
    }
}

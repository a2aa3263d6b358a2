//! Instants, as the documents write them and as they are compared.
//!
//! Knows RFC 3339 and nothing of clocks: the time is always passed in.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// An instant, in microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Timestamp(i64);

impl Timestamp {
    /// 9999-12-31T23:59:59.999Z, the last instant that four digits for the year can say.
    pub const LAST: Self = Self(253_402_300_799_999_000);

    /// From microseconds since 1970, as a clock gives them.
    #[must_use]
    pub fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// From milliseconds since 1970, as the audit log scores its entries.
    #[must_use]
    pub fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1000))
    }

    /// Reads any RFC 3339 form; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let instant = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        i64::try_from(instant.unix_timestamp_nanos() / 1000)
            .ok()
            .map(Self)
    }

    /// Reads what programs write as a time: text, a date, what a database exports as `$date`, or the
    /// milliseconds or seconds since 1970.
    #[must_use]
    pub fn from_json(value: &Value) -> Option<Self> {
        /// Milliseconds of 1973, and seconds of 5138.
        const MILLISECONDS_FROM: i64 = 100_000_000_000;
        let number = match value {
            Value::String(text) => {
                return match text.parse() {
                    Ok(number) => Self::from_json(&Value::Number(number)),
                    Err(_) => Self::parse(text).or_else(|| Self::midnight(text)),
                };
            }
            Value::Object(object) => return object.get("$date").and_then(Self::from_json),
            Value::Number(number) => number.as_f64()?,
            Value::Null | Value::Bool(_) | Value::Array(_) => return None,
        };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a float that is too large becomes the largest integer, which is no time"
        )]
        let integer = number as i64;
        let millis = if integer < MILLISECONDS_FROM {
            integer.saturating_mul(1000)
        } else {
            integer
        };
        (0..=Self::LAST.millis())
            .contains(&millis)
            .then(|| Self::from_millis(millis))
    }

    /// The beginning of a day in UTC, which is how JavaScript reads a date.
    fn midnight(date: &str) -> Option<Self> {
        Self::parse(&format!("{date}T00:00:00Z"))
    }

    /// Microseconds since 1970.
    #[must_use]
    pub fn micros(self) -> i64 {
        self.0
    }

    /// Whole milliseconds since 1970, rounded down.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Whole milliseconds since 1970, rounded up: the first one at which a log that counts
    /// milliseconds has reached this instant.
    #[must_use]
    pub fn millis_ceil(self) -> i64 {
        self.millis() + i64::from(self.0.rem_euclid(1000) != 0)
    }

    /// This long after this instant.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(micros))
    }

    /// This long before this instant.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(micros))
    }

    /// The later of this instant and one millisecond after `previous`, so that it reads as strictly
    /// later in documents too; this instant, if nothing that can be written is later than
    /// `previous`.
    #[must_use]
    pub fn after(self, previous: Option<Self>) -> Self {
        let next = previous
            .map(|previous| Self::from_millis(previous.millis() + 1))
            .filter(|next| *next <= Self::LAST);
        next.map_or(self, |next| self.max(next))
    }
}

/// As JavaScript's `toISOString` writes it: `2026-11-22T10:15:30.123Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instant = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1000)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let (date, time) = (instant.date(), instant.time());
        write!(
            formatter,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            date.year().max(0), // RFC 3339 has no year before 0
            u8::from(date.month()),
            date.day(),
            time.hour(),
            time.minute(),
            time.second(),
            time.millisecond(),
        )
    }
}

impl From<Timestamp> for String {
    fn from(timestamp: Timestamp) -> Self {
        timestamp.to_string()
    }
}

impl TryFrom<String> for Timestamp {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("expected an RFC 3339 time")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rfc_3339_form_of_an_instant_is_the_same_instant() {
        let forms = [
            "2025-01-20T00:00:00Z",
            "2025-01-20T01:00:00+01:00",
            "2025-01-20T00:00:00.000000Z",
        ];

        for form in forms {
            assert_eq!(
                Timestamp::parse(form).unwrap().to_string(),
                "2025-01-20T00:00:00.000Z"
            );
        }
        assert_eq!(Timestamp::parse("2025-01-20"), None);
    }

    #[test]
    fn an_instant_is_written_in_milliseconds_and_read_again() {
        for micros in [
            0,
            999,
            -1,
            1_009_008_007_006_005,
            253_402_300_799_999_999,
            -62_135_596_800_000_000,
        ] {
            let instant = Timestamp::from_micros(micros);
            let text = instant.to_string();

            assert_eq!(text.len(), "2026-11-22T10:15:30.123Z".len(), "{text}");
            assert_eq!(
                Timestamp::parse(&text),
                Some(Timestamp::from_millis(instant.millis())),
                "{text}"
            );
        }
        assert_eq!(
            Timestamp::from_micros(1_009_008_007_006_005).to_string(),
            "2001-12-22T08:00:07.006Z"
        );
        assert_eq!(
            Timestamp::from_micros(-1).to_string(),
            "1969-12-31T23:59:59.999Z"
        );
    }

    #[test]
    fn a_replaced_time_is_always_exceeded_by_a_millisecond() {
        let now = Timestamp::from_millis(1_000);

        assert_eq!(now.after(None), now);
        assert_eq!(
            now.after(Some(Timestamp::from_micros(5_000_400))),
            Timestamp::from_millis(5_001)
        );
        assert_eq!(now.after(Timestamp::parse("9999-12-31T23:59:59.999Z")), now);
    }
}

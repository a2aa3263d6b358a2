//! Numbers as they are written: `1.10` keeps its digits, and equals `1.1`.

use serde_json::{Number, Value};

use super::text::compact_json;

/// A number whose exponent is larger is written with it.
const MAX_PLAIN_ZEROS: usize = 40;

/// A number's value, the same for every way to write it: sign, digits without zeros at their ends,
/// and the power of ten by which they are multiplied.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    /// The value of a number; `None` if its exponent is absurd.
    fn of(number: &Number) -> Option<Self> {
        let text = number.as_str();
        let (negative, text) = text
            .strip_prefix('-')
            .map_or((false, text), |text| (true, text));
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = [integer, fraction].concat();
        let digits = all.trim_end_matches('0');
        if digits.is_empty() {
            return Some(Self {
                negative: false,
                digits: String::new(),
                exponent: 0,
            });
        }
        let shift =
            i64::try_from(all.len() - digits.len()).ok()? - i64::try_from(fraction.len()).ok()?;
        Some(Self {
            negative,
            digits: digits.trim_start_matches('0').to_owned(),
            exponent: exponent.parse::<i64>().ok()?.checked_add(shift)?,
        })
    }

    /// The magnitude, if this is an integer that fits.
    fn as_integer(&self) -> Option<u64> {
        let zeros = usize::try_from(self.exponent)
            .ok()
            .filter(|zeros| *zeros < 20)?;
        format!("0{}{}", self.digits, "0".repeat(zeros))
            .parse()
            .ok()
    }

    /// The usual way to write it.
    fn text(&self) -> String {
        let sign = if self.negative { "-" } else { "" };
        let (digits, exponent) = (&self.digits, self.exponent);
        let zeros = match usize::try_from(exponent.unsigned_abs()) {
            Ok(zeros) if zeros <= MAX_PLAIN_ZEROS => zeros,
            _ => return format!("{sign}{digits}e{exponent}"),
        };
        if digits.is_empty() {
            return "0".to_owned();
        }
        if exponent >= 0 {
            return format!("{sign}{digits}{}", "0".repeat(zeros));
        }
        match digits.split_at_checked(digits.len().saturating_sub(zeros)) {
            Some((integer, fraction)) if !integer.is_empty() => {
                format!("{sign}{integer}.{fraction}")
            }
            _ => format!("{sign}0.{digits:0>zeros$}"),
        }
    }
}

/// Whether two numbers are equal, however they are written.
#[must_use]
pub fn is_same_number(one: &Number, other: &Number) -> bool {
    if one.as_str() == other.as_str() {
        return true;
    }
    match (Decimal::of(one), Decimal::of(other)) {
        (Some(one), Some(other)) => one == other,
        _ => false,
    }
}

/// Whether two values are equal as JSON: numbers however they are written, members in any order.
#[must_use]
pub fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => is_same_number(one, other),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .zip(other)
                    .all(|(one, other)| is_same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(name, value)| is_same_member(Some(value), other.get(name)))
        }
        _ => one == other,
    }
}

/// Whether two members, each of which may be absent, are equal as JSON.
#[must_use]
pub fn is_same_member(one: Option<&Value>, other: Option<&Value>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => is_same(one, other),
        (None, None) => true,
        _ => false,
    }
}

/// A text that all equal values have in common.
#[must_use]
pub fn canonical_text(mut value: Value) -> String {
    value.sort_all_objects();
    normalize(&mut value);
    compact_json(&value)
}

fn normalize(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(normal) =
                Decimal::of(number).and_then(|decimal| decimal.text().parse().ok())
            {
                *number = normal;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(normalize),
        Value::Object(members) => members.values_mut().for_each(normalize),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// Whether this is an integer of more than `max`, or less than its negative.
#[must_use]
pub fn is_integer_beyond(number: &Number, max: u64) -> bool {
    if let Some(integer) = number.as_i64() {
        return integer.unsigned_abs() > max;
    }
    match Decimal::of(number) {
        Some(decimal) if decimal.exponent >= 0 => {
            decimal.as_integer().is_none_or(|integer| integer > max)
        }
        Some(_) => false,
        None => !number.as_str().contains("e-"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn equal_numbers_are_equal_however_they_are_written() {
        for (one, other) in [
            ("1", "1.0"),
            ("1", "10e-1"),
            ("100", "1E2"),
            ("-0", "0.0e5"),
            ("1.10", "1.1"),
            ("0.001", "1e-3"),
            ("12345678901234567890123", "12345678901234567890123.0"),
            ("1e400", "10e399"),
        ] {
            let (one, other) = (value(one), value(other));
            assert!(is_same(&one, &other), "{one} {other}");
            assert_eq!(canonical_text(one), canonical_text(other));
        }
        for (one, other) in [
            ("1", "-1"),
            ("1", "10"),
            ("9007199254740993", "9007199254740992"),
            ("0.1", "0.10000000000000001"),
            ("1e99999999999999999999", "1e99999999999999999998"),
        ] {
            assert!(!is_same(&value(one), &value(other)), "{one} {other}");
        }
    }

    #[test]
    fn the_text_of_common_numbers_is_the_usual_one() {
        for (written, normal) in [
            ("0", "0"),
            ("-0.0", "0"),
            ("42", "42"),
            ("-42.0", "-42"),
            ("29.90", "29.9"),
            ("0.050", "0.05"),
            ("-0.5", "-0.5"),
            ("1e3", "1000"),
        ] {
            assert_eq!(canonical_text(value(written)), normal);
        }
    }

    #[test]
    fn members_are_compared_in_any_order() {
        assert!(is_same(
            &value(r#"{"a":1,"b":[2.0]}"#),
            &value(r#"{"b":[2],"a":1.0}"#)
        ));
        assert!(!is_same(&value(r#"{"a":1}"#), &value(r#"{"b":1}"#)));
    }

    #[test]
    fn integers_beyond_a_limit_are_found_in_every_form() {
        const MAX: u64 = 1 << 53;
        for beyond in [
            "9007199254740993",
            "-9007199254740993",
            "9007199254740993.0",
            "1e16",
            "1e400",
            "12345678901234567890123",
        ] {
            let Value::Number(number) = value(beyond) else {
                panic!()
            };
            assert!(is_integer_beyond(&number, MAX), "{beyond}");
        }
        for within in [
            "9007199254740992",
            "-0",
            "1e15",
            "0.12345678901234567890123",
            "1e-400",
        ] {
            let Value::Number(number) = value(within) else {
                panic!()
            };
            assert!(!is_integer_beyond(&number, MAX), "{within}");
        }
    }
}

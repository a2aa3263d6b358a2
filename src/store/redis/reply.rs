//! Redis replies as the types that are expected of them, in RESP2 and in RESP3.

use std::collections::HashMap;

use redis::{RedisError, Value};

pub(crate) fn unwrap_reply(value: Value) -> Result<Value, RedisError> {
    match value {
        Value::ServerError(error) => Err(error.into()),
        value => Ok(value),
    }
}

pub(crate) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Int(_) => "integer",
        Value::Array(_) | Value::Set(_) | Value::Map(_) => "collection",
        _ => "other",
    }
}

pub(crate) fn text(value: Value) -> Result<String, String> {
    match value {
        Value::BulkString(bytes) => {
            String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
        }
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Ok(text),
        Value::Okay => Ok("OK".to_owned()),
        Value::Int(number) => Ok(number.to_string()),
        other => Err(format!("it is a Redis {}", kind_of(&other))),
    }
}

pub(crate) fn array(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) | Value::Set(items) => items,
        _ => Vec::new(),
    }
}

/// Members with their scores, rounded down. An infinite score is the least or the greatest number.
pub(crate) fn scored(value: Value) -> Vec<(String, i64)> {
    let found = scored_exactly(value).into_iter();
    found
        .map(|(member, score)| (member, rounded_down(score)))
        .collect()
}

/// A score as positions in the log have it.
pub(crate) fn rounded_down(score: f64) -> i64 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "scores are milliseconds since 1970, far below 2^53; others saturate"
    )]
    let rounded = score.floor() as i64;
    rounded
}

/// Members with their scores, which RESP3 gives as pairs and RESP2 one after the other.
pub(crate) fn scored_exactly(value: Value) -> Vec<(String, f64)> {
    let mut flat = Vec::new();
    for item in array(value) {
        match item {
            Value::Array(pair) => flat.extend(pair),
            item => flat.push(item),
        }
    }
    let mut items = flat.into_iter();
    let mut found = Vec::new();
    while let (Some(member), Some(score)) = (items.next(), items.next()) {
        let member = lossy_text(member);
        let score = match score {
            Value::Double(score) => score,
            other => text(other)
                .ok()
                .and_then(|text| text.parse().ok())
                .unwrap_or_default(),
        };
        found.push((member, score));
    }
    found
}

/// An entry's text. What is not UTF-8 in it is read as U+FFFD.
pub(crate) fn lossy_text(value: Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        other => text(other).unwrap_or_default(),
    }
}

/// The bound of a range by score that includes everything that [`scored`] rounds down to `score`.
pub(crate) fn upper_bound(score: i64) -> String {
    const FIRST_WITHOUT_FRACTION: u64 = 1 << 53;
    match score {
        i64::MAX => "+inf".to_owned(),
        score if score.unsigned_abs() < FIRST_WITHOUT_FRACTION => format!("({}", score + 1),
        score => score.to_string(),
    }
}

/// A hash, which RESP3 gives as a map and RESP2 as a list.
pub(crate) fn pairs(value: Value) -> HashMap<String, String> {
    let pairs: Vec<(Value, Value)> = match value {
        Value::Map(pairs) => pairs,
        other => {
            let mut items = array(other).into_iter();
            std::iter::from_fn(|| Some((items.next()?, items.next()?))).collect()
        }
    };
    pairs
        .into_iter()
        .filter_map(|(name, value)| Some((text(name).ok()?, text(value).ok()?)))
        .collect()
}

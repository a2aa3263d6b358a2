//! The depth of JSON text, checked before it is parsed.
//!
//! The limit of `serde_json`, 128 levels, is not enough: an audit entry wraps a document in four
//! more levels and an answer in three, so that a document of 127 levels could be stored, and its
//! entry could never be read again.

use std::fmt;

/// How deep JSON may be nested, counted in arrays and objects.
pub const MAX_DEPTH: usize = 64;

/// JSON text that is nested deeper than [`MAX_DEPTH`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooDeep(
    /// Its depth.
    pub usize,
);

impl std::error::Error for TooDeep {}

impl fmt::Display for TooDeep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "it is nested {} levels deep, and at most {MAX_DEPTH} are allowed",
            self.0
        )
    }
}

/// Checks that text may be parsed. Whether it is JSON does not matter here.
///
/// # Errors
/// When it is nested too deeply.
pub fn check_depth(json: &[u8]) -> Result<(), TooDeep> {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => skip_string(&mut bytes),
            _ => {}
        }
    }
    if deepest > MAX_DEPTH {
        Err(TooDeep(deepest))
    } else {
        Ok(())
    }
}

/// Skips the rest of a string.
fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_and_objects_count_up_to_the_limit() {
        let nested = |depth: usize| {
            format!(
                "{}0{}",
                r#"[{"a":"#.repeat(depth / 2),
                "}]".repeat(depth / 2)
            )
        };

        assert_eq!(check_depth(nested(MAX_DEPTH).as_bytes()), Ok(()));
        assert_eq!(
            check_depth(nested(MAX_DEPTH + 2).as_bytes()),
            Err(TooDeep(MAX_DEPTH + 2))
        );
        assert_eq!(
            check_depth("[".repeat(1_000_000).as_bytes()),
            Err(TooDeep(1_000_000))
        );
        assert!(
            TooDeep(100).to_string().contains("100") && TooDeep(100).to_string().contains("64")
        );
    }

    #[test]
    fn siblings_and_strings_do_not_count() {
        for text in [
            "[],".repeat(1000),
            format!("[\"{}\"]", "[".repeat(1000)),
            format!(r#"["\"{}"]"#, "{".repeat(1000)),
        ] {
            assert_eq!(check_depth(text.as_bytes()), Ok(()), "{text}");
        }
        assert_eq!(
            check_depth(format!(r#""\\"{}"#, "[".repeat(65)).as_bytes()),
            Err(TooDeep(65))
        );
    }
}

//! How deep JSON text is nested, found out before it is parsed: parsing is recursive, and so is what works on the result.

use std::fmt;

/// Deepest nesting that is read, counted in arrays and objects.
pub const DEEPEST: usize = 64;

/// JSON text that is nested deeper than [`DEEPEST`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooDeep(
    /// How deep it is.
    pub usize,
);

impl std::error::Error for TooDeep {}

impl fmt::Display for TooDeep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "it is nested {} levels deep, and at most {DEEPEST} are read",
            self.0
        )
    }
}

/// Whether text may be parsed; what it is if it is no JSON does not matter here.
///
/// # Errors
/// When it is nested too deep.
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
            b'"' => skip_text(&mut bytes),
            _ => {}
        }
    }
    if deepest > DEEPEST {
        Err(TooDeep(deepest))
    } else {
        Ok(())
    }
}

/// Goes on behind the quotation mark that ends a text.
fn skip_text(bytes: &mut std::slice::Iter<'_, u8>) {
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

        assert_eq!(check_depth(nested(DEEPEST).as_bytes()), Ok(()));
        assert_eq!(
            check_depth(nested(DEEPEST + 2).as_bytes()),
            Err(TooDeep(DEEPEST + 2))
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
    fn what_stands_side_by_side_or_in_texts_does_not_count() {
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

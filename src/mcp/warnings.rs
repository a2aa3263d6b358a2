//! Warnings about the call itself, which every tool's answer may carry beside its own.

use rmcp::model::{CallToolResponse, ContentBlock};
use serde_json::{Map, Value, json};

use super::output::answer_text;

/// Adds warnings to `meta.warnings` of a successful answer, in its structured content and its text.
/// A failed answer has no `meta`.
pub(super) fn add_warnings(response: &mut CallToolResponse, warnings: &[String]) {
    let CallToolResponse::Complete(result) = response else {
        return;
    };
    let Some(structured) = &mut result.structured_content else {
        return;
    };
    let Some(Value::Object(meta)) = structured.get_mut("meta") else {
        return;
    };
    let end = TextEnd::of(meta);
    push_all(meta, warnings);
    for block in &mut result.content {
        if let ContentBlock::Text(block) = block {
            let longer = end.with_warnings(&block.text, warnings);
            block.text = longer.unwrap_or_else(|| answer_text(structured));
        }
    }
}

/// How an answer's text ends, whose last member is `meta`. What is before the end is not written
/// again: that would cost as much as the call.
enum TextEnd {
    /// `meta` has no warnings.
    Meta,
    /// Warnings are the last member of `meta`.
    Warnings,
    Other,
}

impl TextEnd {
    fn of(meta: &Map<String, Value>) -> Self {
        match meta.get("warnings").and_then(Value::as_array) {
            None if !meta.is_empty() => Self::Meta,
            Some(list)
                if !list.is_empty()
                    && meta
                        .keys()
                        .next_back()
                        .is_some_and(|last| last == "warnings") =>
            {
                Self::Warnings
            }
            _ => Self::Other,
        }
    }

    /// The text with the warnings added, if its end is known.
    fn with_warnings(&self, text: &str, warnings: &[String]) -> Option<String> {
        let list = answer_text(&warnings);
        let items = list.strip_prefix('[')?;
        match self {
            Self::Meta => Some(format!(
                "{},\"warnings\":{list}}}}}",
                text.strip_suffix("}}")?
            )),
            Self::Warnings => Some(format!("{},{items}}}}}", text.strip_suffix("]}}")?)),
            Self::Other => None,
        }
    }
}

fn push_all(meta: &mut Map<String, Value>, warnings: &[String]) {
    let list = meta
        .entry("warnings")
        .or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(list) = list {
        list.extend(warnings.iter().map(|warning| json!(warning)));
    }
}

#[cfg(test)]
mod tests {
    use rmcp::model::CallToolResult;

    use super::*;

    /// The text and the structured content of an answer with one more warning.
    fn warned(text: &str) -> (String, Value) {
        let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
        result.structured_content = Some(serde_json::from_str(text).unwrap());
        let mut response = result.into();
        add_warnings(&mut response, &["w".to_owned()]);
        let CallToolResponse::Complete(mut result) = response else {
            panic!("the answer is complete");
        };
        let ContentBlock::Text(block) = result.content.remove(0) else {
            panic!("the answer is text");
        };
        (block.text, result.structured_content.unwrap())
    }

    #[test]
    fn the_text_stays_the_structured_content() {
        for (before, after) in [
            (
                r#"{"success":true,"data":{"n":1e2},"meta":{"a":1}}"#,
                r#"{"success":true,"data":{"n":1e2},"meta":{"a":1,"warnings":["w"]}}"#,
            ),
            (
                r#"{"data":1,"meta":{"warnings":["é"],"b":{}}}"#,
                r#"{"data":1,"meta":{"warnings":["é","w"],"b":{}}}"#,
            ),
            (
                r#"{"data":1,"meta":{"a":"\u00a0","warnings":["\u00a0"]}}"#,
                r#"{"data":1,"meta":{"a":"\u00a0","warnings":["\u00a0","w"]}}"#,
            ),
        ] {
            let (text, structured) = warned(before);

            assert_eq!(text, after);
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), structured);
        }
    }
}

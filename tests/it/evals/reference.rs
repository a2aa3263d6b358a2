//! References to earlier results in the arguments of a call: ids, versions and times differ each time
//! that the same calls are made.
//!
//! `${2.meta.version}` is a member of the result of the second call, `${setup1.meta.plan.id}` one of
//! the first call of the setup, and `${ago 3 hours}` a time before the task began.

use portfolio_mcp::domain::Timestamp;
use serde_json::Value;

use super::task::ago;

/// Arguments that are times.
const TIMES: [&str; 3] = ["since", "until", "asOf"];
/// Members whose values differ each time.
const VOLATILE: [&str; 12] = [
    "actor",
    "auditId",
    "currentVersion",
    "expiresAt",
    "id",
    "logBegins",
    "nextCursor",
    "timestamp",
    "updatedAt",
    "version",
    "versionAfter",
    "versionBefore",
];

/// What references may lead to.
#[derive(Debug, Clone)]
pub(crate) struct Results {
    pub(crate) start: Timestamp,
    pub(crate) setup: Vec<Value>,
    pub(crate) calls: Vec<Value>,
}

impl Results {
    /// The arguments with what their references lead to.
    pub(crate) fn resolve(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.resolve_text(text)),
            Value::Array(items) => items.iter().map(|item| self.resolve(item)).collect(),
            Value::Object(members) => {
                let members = members.iter();
                Value::Object(
                    members
                        .map(|(name, member)| (name.clone(), self.resolve(member)))
                        .collect(),
                )
            }
            other => other.clone(),
        }
    }

    /// A text with what its references lead to. One that leads nowhere stays.
    pub(crate) fn resolve_text(&self, text: &str) -> String {
        let mut resolved = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            resolved.push_str(before);
            let Some((reference, beyond)) = after.split_once('}') else {
                resolved.push_str("${");
                rest = after;
                continue;
            };
            let found = self.find(reference);
            resolved += &found.unwrap_or_else(|| ["${", reference, "}"].concat());
            rest = beyond;
        }
        resolved + rest
    }

    fn find(&self, reference: &str) -> Option<String> {
        if let Some(duration) = reference.strip_prefix("ago ") {
            return Some(ago(self.start, duration)?.to_string());
        }
        let (call, path) = reference.split_once('.')?;
        let (results, number) = match call.strip_prefix("setup") {
            Some(number) => (&self.setup, number),
            None => (&self.calls, call),
        };
        let index = number.parse::<usize>().ok()?.checked_sub(1)?;
        let pointer = format!("/{}", path.replace('.', "/"));
        Some(results.get(index)?.pointer(&pointer)?.as_str()?.to_owned())
    }

    /// The arguments of the next call, with references in the place of what differs each time.
    pub(crate) fn refer(&self, value: &Value) -> Value {
        self.refer_member("", value)
    }

    fn refer_member(&self, name: &str, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.refer_text(name, text)),
            Value::Array(items) => items
                .iter()
                .map(|item| self.refer_member(name, item))
                .collect(),
            Value::Object(members) => Value::Object(
                members
                    .iter()
                    .map(|(name, member)| (name.clone(), self.refer_member(name, member)))
                    .collect(),
            ),
            other => other.clone(),
        }
    }

    fn refer_text(&self, name: &str, text: &str) -> String {
        let calls = self.calls.iter().enumerate().rev();
        let calls = calls.map(|(index, result)| ((index + 1).to_string(), result));
        let setup = self.setup.iter().enumerate().rev();
        let setup = setup.map(|(index, result)| (format!("setup{}", index + 1), result));
        for (call, result) in calls.chain(setup) {
            if let Some(path) = path_of(result, text, "") {
                return format!("${{{call}{path}}}");
            }
        }
        match Timestamp::parse(text) {
            Some(time) if TIMES.contains(&name) => {
                let seconds = (self.start.millis() - time.millis()) / 1000;
                format!("${{ago {seconds} seconds}}")
            }
            _ => text.to_owned(),
        }
    }
}

/// The path of a volatile member with this text.
fn path_of(value: &Value, text: &str, path: &str) -> Option<String> {
    match value {
        Value::String(found) => (found == text && is_volatile(path)).then(|| path.to_owned()),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| path_of(item, text, &format!("{path}.{index}"))),
        Value::Object(members) => members
            .iter()
            .find_map(|(name, member)| path_of(member, text, &format!("{path}.{name}"))),
        _ => None,
    }
}

fn is_volatile(path: &str) -> bool {
    let mut names = path.rsplit('.');
    let (last, above) = (
        names.next().unwrap_or_default(),
        names.next().unwrap_or_default(),
    );
    let is_id_of_document = last == "id" && above != "plan";
    above == "versions" || (VOLATILE.contains(&last) && !is_id_of_document)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_referred_to_is_found_again_in_other_results() {
        let results = |version: &str, start: i64| Results {
            start: Timestamp::from_millis(start),
            setup: vec![json!({ "meta": { "plan": { "id": format!("plan of {version}") } } })],
            calls: vec![
                json!({ "data": [{ "id": "a", "version": version }], "meta": { "versions": { "b": format!("{version}b") } } }),
            ],
        };
        let recorded = results("v1", 1_000_000_000_000);
        let arguments = json!({
            "id": "a", "expectedVersion": "v1", "plan": "plan of v1", "changes": [{ "expectedVersion": "v1b" }],
            "since": Timestamp::from_millis(999_999_990_000).to_string(), "data": { "title": "v2" },
        });

        let referred = recorded.refer(&arguments);
        let replayed = results("w", 2_000_000_000_000).resolve(&referred);

        assert_eq!(referred["expectedVersion"], "${1.data.0.version}");
        assert_eq!(referred["since"], "${ago 10 seconds}");
        assert_eq!(recorded.resolve(&referred), arguments);
        assert_eq!(
            replayed,
            json!({
                "id": "a", "expectedVersion": "w", "plan": "plan of w", "changes": [{ "expectedVersion": "wb" }],
                "since": Timestamp::from_millis(1_999_999_990_000).to_string(), "data": { "title": "v2" },
            })
        );
    }
}

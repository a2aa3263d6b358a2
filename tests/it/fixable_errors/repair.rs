//! Repairs a call with nothing but the error: what a model would read out of it.

use serde_json::{Map, Value, json};

/// The tool and the arguments to try next.
pub(super) fn repaired(tool: &str, arguments: &Value, error: &Value) -> (String, Value) {
    let message = error["message"].as_str().unwrap();
    if error["code"].is_number() {
        let meant = between(message, "did you mean `", "`").unwrap_or(tool);
        return (meant.to_owned(), arguments.clone());
    }
    let mut call = arguments.clone();
    let details = &error["details"];
    if let Some(id) = details["similar"].get(0) {
        call["id"] = id.clone();
    }
    let kind = details["foundAs"].as_str();
    let tool = kind.map_or(tool.to_owned(), |kind| {
        let (verb, _) = tool.split_once('_').unwrap();
        format!("{verb}_{kind}")
    });
    if let Some(version) = details.get("currentVersion") {
        call["expectedVersion"] = version.clone();
    }
    let violations = details["violations"].as_array().into_iter().flatten();
    let (mut missing, mut unknown) = (Vec::new(), Vec::new());
    for violation in violations {
        let path = violation["path"].as_str().unwrap();
        let message = violation["message"].as_str().unwrap();
        if message.starts_with("missing") {
            missing.push(path.to_owned());
        } else if message.starts_with("unknown") && violation.get("suggestion").is_none() {
            unknown.push(path.to_owned());
        } else {
            fix(&mut call, path, message, violation["suggestion"].as_str());
        }
    }
    missing.retain(|path| value_at(&call, path).is_none());
    for (index, path) in unknown.iter().enumerate() {
        let value = take(&mut call, path);
        // The only other name must have been meant.
        if let (Some(value), Some(meant)) = (value, missing.get(index)) {
            put(&mut call, meant, value);
        }
    }
    (tool, call)
}

/// Repairs what one violation is about.
fn fix(call: &mut Value, path: &str, message: &str, suggestion: Option<&str>) {
    let at = located(call, path);
    if let Some(meant) = suggestion {
        return follow(call, &at, message, meant);
    }
    if message.contains("without `data` and `edits`") {
        take(call, "data");
        take(call, "edits");
        return;
    }
    if message.contains("`auditIds` alone") {
        take(call, "since");
        return;
    }
    if message.contains("leave it out") || message.contains("leave the cursor out") {
        take(call, &at);
        return;
    }
    let value = value_at(call, &at).cloned().unwrap_or_default();
    if let Some(path) = between(message, "name it as `", "`") {
        put(call, &at, json!(path));
    } else if let Some(index) = between(message, "equal to it, at ", ",") {
        let edit = at.trim_end_matches("value");
        put(
            call,
            &format!("{edit}at"),
            json!(index.parse::<u32>().unwrap()),
        );
    } else if let Some(shown) = between(message, "times, first in `", "`;") {
        replace_in(call, &at, shown, value.as_str().unwrap());
    } else if let Some(shown) = between(message, "the nearest place is `", "`") {
        let nearest = nearest_part(shown, value.as_str().unwrap());
        put(call, &at, json!(nearest));
    } else if let Some((_, nearest)) = message.split_once("]`: `") {
        put(call, &at, json!(nearest.trim_end_matches('`')));
    } else {
        put(call, &at, fitting(&value, message));
    }
}

/// Uses the name that was meant.
fn follow(call: &mut Value, at: &str, message: &str, meant: &str) {
    if message.contains("here, but once in") {
        put(call, &at.replace(".value", ".path"), json!(meant));
        return;
    }
    if at.ends_with("].path") {
        put(call, at, json!(meant));
        return;
    }
    let target = match at.split_once("data.") {
        Some((above, _)) if !message.contains("beside `data`") => format!("{above}data.{meant}"),
        Some((above, _)) => format!("{above}{meant}"),
        None => match at.rsplit_once('.') {
            Some((above, _)) => format!("{above}.{meant}"),
            None => meant.to_owned(),
        },
    };
    if let Some(value) = take(call, at) {
        put(call, &target, value);
    }
}

/// A value like the one that was sent, as the message wants it.
fn fitting(value: &Value, message: &str) -> Value {
    let text = value.as_str().unwrap_or_default();
    let expected = between(message, "expected ", ", found").unwrap_or(message);
    if let Some(example) = between(message, "RFC 3339 time such as `", "`") {
        return json!(example);
    }
    if let Some(limit) = between(expected, "at most ", " characters") {
        let limit = limit.parse().unwrap();
        return json!(text.chars().take(limit).collect::<String>().trim());
    }
    if let Some(limit) = between(expected, "at most ", " items") {
        let items = value.as_array().unwrap().iter();
        return items.take(limit.parse().unwrap()).cloned().collect();
    }
    if let Some(limit) = between(expected, "at most ", ",") {
        return json!(limit.parse::<u64>().unwrap());
    }
    for bound in [" or less", " or more"] {
        if let Some(limit) = expected.strip_suffix(bound) {
            return json!(limit.parse::<u64>().unwrap());
        }
    }
    if expected.contains("site path") {
        return json!(format!("/{text}"));
    }
    if expected.contains("http(s) URL") {
        return json!(format!("https://{text}"));
    }
    if expected.contains("without spaces") {
        return json!(text.replace(' ', "-"));
    }
    if let Some(kind) = expected
        .strip_prefix("a ")
        .or_else(|| expected.strip_prefix("an "))
    {
        return match kind {
            "boolean" => json!(matches!(text, "yes" | "true")),
            "integer" => json!(text.parse::<i64>().unwrap()),
            "string" => json!(value.to_string()),
            "array" => json!([value]),
            other => panic!("what is {other}? {message}"),
        };
    }
    let choices: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    let nearest = choices.into_iter().max_by(|one, other| {
        let likeness = |choice| strsim::normalized_damerau_levenshtein(choice, text);
        likeness(one).total_cmp(&likeness(other))
    });
    nearest.map_or_else(|| panic!("cannot be repaired: {message}"), |it| json!(it))
}

/// Sends more of the text around the place that is meant.
fn replace_in(call: &mut Value, at: &str, shown: &str, value: &str) {
    let shown = shown.trim_matches('…');
    let with = at.replace(".value", ".with");
    let replacement = value_at(call, &with).and_then(Value::as_str).unwrap();
    let replaced = shown.replacen(value, replacement, 1);
    put(call, at, json!(shown));
    put(call, &with, json!(replaced));
}

/// The words in what was shown that are most like the text that was sent.
fn nearest_part<'a>(shown: &'a str, text: &str) -> &'a str {
    let shown = shown.trim_matches('…');
    let starts = shown.match_indices(' ').map(|(at, _)| at + 1);
    let starts: Vec<usize> = [0].into_iter().chain(starts).collect();
    let ends = shown.match_indices([' ', ',', '.']).map(|(at, _)| at);
    let ends: Vec<usize> = ends.chain([shown.len()]).collect();
    let parts = starts.iter().flat_map(|start| {
        ends.iter()
            .filter(move |end| *end > start)
            .map(move |end| &shown[*start..*end])
    });
    let best = parts.max_by(|one, other| {
        let likeness = |part| strsim::normalized_damerau_levenshtein(part, text);
        likeness(one).total_cmp(&likeness(other))
    });
    best.unwrap()
}

/// What stands between two parts of a text.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(after)?.0)
}

/// The path in the call: violations of a document name its fields without `data`.
fn located(call: &Value, path: &str) -> String {
    let in_data = format!("data.{path}");
    if value_at(call, &in_data).is_some() {
        in_data
    } else {
        path.to_owned()
    }
}

/// The steps of a path, a name with a dot being tried whole first.
fn steps(path: &str) -> Vec<String> {
    let path = path.replace('[', ".").replace(']', "");
    path.split('.').map(ToOwned::to_owned).collect()
}

fn value_at<'a>(call: &'a Value, path: &str) -> Option<&'a Value> {
    if let Some((parent, name)) = whole_name(call, path) {
        return call.pointer(&parent)?.get(name);
    }
    call.pointer(&format!("/{}", steps(path).join("/")))
}

/// A member whose name has dots: the pointer to its parent, and the name.
fn whole_name(call: &Value, path: &str) -> Option<(String, String)> {
    let steps = steps(path);
    (0..steps.len()).rev().find_map(|split| {
        let (above, name) = steps.split_at(split);
        let parent: String = above.iter().flat_map(|step| ["/", step]).collect();
        let name = name.join(".");
        call.pointer(&parent)?.get(&name)?;
        Some((parent, name))
    })
}

fn take(call: &mut Value, path: &str) -> Option<Value> {
    let (parent, name) = whole_name(call, path)?;
    let members = call.pointer_mut(&parent)?.as_object_mut()?;
    members.shift_remove(&name)
}

fn put(call: &mut Value, path: &str, value: Value) {
    let mut target = call;
    for step in steps(path) {
        if target.is_null() {
            *target = Value::Object(Map::new());
        }
        target = match target {
            Value::Array(items) => &mut items[step.parse::<usize>().unwrap()],
            members => &mut members[step],
        };
    }
    *target = value;
}

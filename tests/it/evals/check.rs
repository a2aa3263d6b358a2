//! What a task's expectations say about what a model did.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{
    session::{CLIENT, Called},
    state::State,
    task::{ReplyExpectation, Task},
};

/// How replies say that something cannot be done, in French and in English.
const REFUSALS: &[&str] = &[
    "ne peux pas",
    "ne peut pas",
    "ne peut être",
    "ne peuvent pas",
    "ne puis",
    "n'ai pas pu",
    "pas possible",
    "impossible",
    "ne permet",
    "n'autorise",
    "pas autoris",
    "pas en mesure",
    "pas le droit",
    "aucun outil",
    "pas d'outil",
    "pas la possibilité",
    "pas capable",
    "ne dispose",
    "refus",
    "interdit",
    "ne change jamais",
    "n'ai rien changé",
    "rien n'a été",
    "cannot",
    "can't",
    "could not",
    "couldn't",
    "not possible",
    "isn't possible",
    "unable",
    "not able",
    "not allowed",
    "aren't allowed",
    "doesn't allow",
    "does not allow",
    "won't",
    "never changes",
    "no way to",
    "no tool",
    "don't have",
    "isn't something",
    "did not do",
    "didn't do",
    "nothing was changed",
];

/// How replies ask for something, in French and in English.
const ASKING: &[&str] = &[
    "?",
    "please send",
    "please tell",
    "send me",
    "tell me",
    "envoyez",
    "indiquez",
    "précisez",
    "donnez-moi",
];

/// What a model did, in its order.
#[derive(Debug)]
pub(crate) enum Done {
    Call {
        arguments: Value,
        called: Called,
    },
    Reply {
        text: String,
        /// The number of entries in the log at that moment.
        entries: usize,
    },
}

/// What is wrong with what was done; nothing if the task is solved.
pub(crate) fn problems(task: &Task, start: &State, end: &State, done: &[Done]) -> Vec<String> {
    let mut found = Vec::new();
    check_documents(task, start, end, &mut found);
    check_log(task, start, end, &mut found);
    check_replies(task, start, done, &mut found);
    found
}

fn check_documents(task: &Task, start: &State, end: &State, found: &mut Vec<String>) {
    let names: BTreeSet<&String> = [&start.documents, &end.documents]
        .into_iter()
        .flat_map(|documents| documents.keys())
        .chain(task.expect.documents.keys())
        .collect();
    for name in names {
        let (before, after) = (start.documents.get(name), end.documents.get(name));
        let expected = task.expect.documents.get(name);
        let mut differences = Vec::new();
        match (expected, after) {
            (Some(Value::Null), Some(_)) => found.push(format!("{name} is still there")),
            (Some(Value::Null), None) => {}
            (_, None) => found.push(format!("{name} is gone")),
            (expected, Some(after)) => {
                let unchanged = json!({});
                let expected = expected.unwrap_or(&unchanged);
                compare("", expected, before, Some(after), &mut differences);
            }
        }
        found.extend(differences.into_iter().map(|it| format!("{name}{it}")));
    }
}

/// Compares a value with what is expected relative to what it was.
fn compare(
    path: &str,
    expected: &Value,
    before: Option<&Value>,
    after: Option<&Value>,
    found: &mut Vec<String>,
) {
    let problem = match (expected, after) {
        (Value::Null, None) => return,
        (_, None) => "is missing".to_owned(),
        (Value::Object(members), Some(after)) => match matcher(members) {
            Some((name, argument)) => {
                if matches(path, name, argument, before, after, found) {
                    return;
                }
                format!("is {after}, expected {expected}")
            }
            None => return compare_members(path, members, before, after, found),
        },
        (Value::Array(items), Some(Value::Array(others))) if items.len() == others.len() => {
            for (index, (item, other)) in items.iter().zip(others).enumerate() {
                let before = before.and_then(|before| before.get(index));
                compare(
                    &format!("{path}[{index}]"),
                    item,
                    before,
                    Some(other),
                    found,
                );
            }
            return;
        }
        (expected, Some(after)) if expected == after => return,
        (expected, Some(after)) => format!("is {after}, expected {expected}"),
    };
    found.push(format!("{path} {problem}"));
}

fn compare_members(
    path: &str,
    expected: &Map<String, Value>,
    before: Option<&Value>,
    after: &Value,
    found: &mut Vec<String>,
) {
    let (old, new) = (before.and_then(Value::as_object), after.as_object());
    let Some(new) = new else {
        found.push(format!("{path} is {after}, expected an object"));
        return;
    };
    let names: BTreeSet<&String> = old
        .into_iter()
        .chain([new, expected])
        .flat_map(Map::keys)
        .collect();
    for name in names {
        let at = format!("{path}.{name}");
        let (before, after) = (old.and_then(|old| old.get(name)), new.get(name));
        match expected.get(name) {
            Some(expected) => compare(&at, expected, before, after, found),
            None if at == ".metadata.updatedAt" => {}
            None => match (before, after) {
                (Some(Value::Object(_)), Some(after @ Value::Object(_))) => {
                    compare(&at, &json!({}), before, Some(after), found);
                }
                (before, after) if before == after => {}
                (_, Some(after)) => found.push(format!("{at} became {after}")),
                (_, None) => found.push(format!("{at} is missing")),
            },
        }
    }
}

/// The name and the argument of an expectation such as `{ "$like": "39 €" }`.
fn matcher(members: &Map<String, Value>) -> Option<(&str, &Value)> {
    let (name, argument) = members.iter().next()?;
    Some((name.strip_prefix('$')?, argument))
}

fn matches(
    path: &str,
    name: &str,
    argument: &Value,
    before: Option<&Value>,
    after: &Value,
    found: &mut Vec<String>,
) -> bool {
    let text = after.as_str().unwrap_or_default();
    match name {
        "any" => true,
        "same" => before == Some(after),
        "like" => is_like(text, argument.as_str().unwrap()),
        // The whole document, which was not there.
        "created" => {
            compare(path, argument, Some(&json!({})), Some(after), found);
            true
        }
        "replaced" => {
            let (old, new) = (argument[0].as_str().unwrap(), argument[1].as_str().unwrap());
            let (start, end) = before.unwrap().as_str().unwrap().split_once(old).unwrap();
            let middle = text
                .strip_prefix(start)
                .and_then(|rest| rest.strip_suffix(end));
            middle.is_some_and(|middle| is_like(middle, new))
        }
        other => panic!("there is no matcher `{other}`"),
    }
}

/// Whether both are the same but for spaces and the form of quotation marks.
fn is_like(text: &str, other: &str) -> bool {
    plain(text).replace(' ', "") == plain(other).replace(' ', "")
}

/// A text in lower case, with plain spaces and quotation marks.
fn plain(text: &str) -> String {
    let characters = text.chars().map(|c| match c {
        '\u{a0}' | '\u{202f}' | '\u{2009}' | '\n' => ' ',
        '’' | '‘' => '\'',
        '«' | '»' | '“' | '”' => '"',
        c => c,
    });
    characters.collect::<String>().to_lowercase()
}

/// Whether a reply mentions it, whatever case and accents. A number is no part of a date.
fn mentions(reply: &str, wanted: &str) -> bool {
    let unaccented = |text: &str| plain(text).replace(['é', 'è', 'ê'], "e").replace('à', "a");
    let (reply, wanted) = (unaccented(reply), unaccented(wanted));
    if !wanted.chars().all(|c| c.is_ascii_digit()) {
        return reply.contains(&wanted);
    }
    let goes_on = |c: char| c.is_ascii_digit() || matches!(c, '-' | '/' | ':');
    reply.match_indices(&wanted).any(|(at, _)| {
        let before = reply[..at].chars().next_back();
        let after = reply[at + wanted.len()..].chars().next();
        !before.is_some_and(goes_on) && !after.is_some_and(goes_on)
    })
}

fn check_log(task: &Task, start: &State, end: &State, found: &mut Vec<String>) {
    let client = format!("{}/{}", CLIENT.0, CLIENT.1);
    let new = end.entries.iter().skip(start.entries.len());
    let own: Vec<&Value> = new
        .filter(|entry| entry["metadata"]["clientId"] == *client)
        .collect();
    let expect = &task.expect;
    let most = expect.most_writes.unwrap_or(expect.documents.len());
    if own.len() > most {
        found.push(format!("{} entries in the log, expected {most}", own.len()));
    }
    if own.is_empty() && !expect.documents.is_empty() {
        found.push("no entry in the log".to_owned());
    }
    for entry in own {
        let action = entry["action"].as_str().unwrap();
        if !expect.actions.iter().any(|expected| expected == action) {
            found.push(format!("an entry with the action {action}"));
        }
        let reason = entry["metadata"]["reason"].as_str().unwrap_or_default();
        for wanted in &expect.reason_mentions {
            if !mentions(reason, wanted) {
                found.push(format!("the reason `{reason}` does not mention {wanted}"));
            }
        }
    }
}

fn check_replies(task: &Task, start: &State, done: &[Done], found: &mut Vec<String>) {
    let replies: Vec<(usize, &String, usize)> = done
        .iter()
        .enumerate()
        .filter_map(|(index, it)| match it {
            Done::Reply { text, entries } => Some((index, text, *entries)),
            Done::Call { .. } => None,
        })
        .collect();
    let Some((_, last, _)) = replies.last() else {
        found.push("no reply to the owner".to_owned());
        return;
    };
    if task.then.is_some() {
        let (index, _, entries) = replies[0];
        if entries > start.entries.len() {
            found.push("something was written before the owner agreed".to_owned());
        }
        if replies.len() < 2 {
            found.push("no reply after the owner agreed".to_owned());
        }
        let previewed = done.iter().take(index).any(|it| match it {
            Done::Call { arguments, called } => {
                arguments["dryRun"] == json!(true) && called.outcome() == "ok"
            }
            Done::Reply { .. } => false,
        });
        if task.expect.previewed && !previewed {
            found.push("no dry run before the first reply".to_owned());
        }
    }
    check_reply(last, &task.expect.reply, found);
}

fn check_reply(reply: &str, expect: &ReplyExpectation, found: &mut Vec<String>) {
    if expect.asks && !ASKING.iter().any(|asking| mentions(reply, asking)) {
        found.push("the reply asks nothing".to_owned());
    }
    if expect.refuses && !REFUSALS.iter().any(|refusal| mentions(reply, refusal)) {
        found.push("the reply does not say that it cannot be done".to_owned());
    }
    for group in &expect.mentions {
        if !group.iter().any(|wanted| mentions(reply, wanted)) {
            found.push(format!("the reply mentions none of {group:?}"));
        }
    }
    for wanted in &expect.lacks {
        if mentions(reply, wanted) {
            found.push(format!("the reply mentions {wanted}"));
        }
    }
}

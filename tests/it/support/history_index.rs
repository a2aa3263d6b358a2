//! What the history index in Redis has to hold, worked out from the log alone.

use std::collections::BTreeSet;

use portfolio_mcp::domain::StoredEntry;
use redis::cmd;

use super::redis::RedisServer;

/// The members of an entry, as `src/store/redis/history_index.rs` describes them.
fn members(text: &[u8], score: f64) -> [Vec<u8>; 2] {
    let entry = StoredEntry::parse(String::from_utf8_lossy(text).into_owned());
    let text = entry.text();
    let named = |member: &str| {
        let id = entry.text_of(member).unwrap_or_default();
        let fits = id.len() <= 255 && !id.contains('\n');
        if fits { id } else { "" }
    };
    let id = named("id");
    let own = text.get(7..23).map(|seq| seq.trim_start().parse::<u64>());
    let is_own = text.starts_with(r#"{"seq":"#)
        && matches!(own, Some(Ok(_)))
        && text
            .get(23..)
            .is_some_and(|rest| rest.starts_with(r#","timestamp":""#))
        && !id.is_empty();
    let (beginning, mark) = if is_own {
        (&text.as_bytes()[..23], id.chars().take(8).collect())
    } else {
        let sound = text.split('\u{fffd}').next().unwrap().as_bytes();
        (&sound[..sound.len().min(100)], entry.digest())
    };
    let kind = match entry.text_of("entityType") {
        Some("project" | "projects") => 'p',
        Some("resource" | "resources") => 'r',
        _ => '?',
    };
    let is_whole = (0.0..1e16).contains(&score) && score.fract() == 0.0;
    let exact = if is_whole {
        String::new()
    } else {
        format!("{score:e}")
    };
    let digits = match score.floor() {
        1e16.. => "9999999999999999".to_owned(),
        score if score > 0.0 => format!("{score:016.0}"),
        _ => "0".repeat(16),
    };
    [format!("d\n{}\n", named("entityId")), format!("i\n{id}\n")].map(|head| {
        let tail = format!("\n{kind}{mark}\n{exact}");
        [
            head.as_bytes(),
            digits.as_bytes(),
            beginning,
            tail.as_bytes(),
        ]
        .concat()
    })
}

/// How many members the index lacks.
pub(crate) fn lacks(server: &RedisServer, prefix: &str) -> i64 {
    let count = |key: &str| server.run::<i64>(cmd("ZCARD").arg(format!("{prefix}{key}")));
    2 * count("audit:entries") - count("internal:history-index")
}

/// The members that the log needs, and those that the index holds.
fn members_in(server: &RedisServer, prefix: &str) -> [BTreeSet<Vec<u8>>; 2] {
    let all = |key: &str| {
        let mut command = cmd("ZRANGE");
        command.arg(format!("{prefix}{key}")).arg(0).arg(-1);
        command
    };
    let log: Vec<(Vec<u8>, f64)> = server.run(all("audit:entries").arg("WITHSCORES"));
    let needed = log.iter().flat_map(|(text, score)| members(text, *score));
    let index: Vec<Vec<u8>> = server.run(&all("internal:history-index"));
    [needed.collect(), index.into_iter().collect()]
}

/// Whether the index is complete, and holds nothing else.
pub(crate) fn is_right(server: &RedisServer, prefix: &str) -> bool {
    let [needed, index] = members_in(server, prefix);
    lacks(server, prefix) == 0 && needed == index
}

/// Fails unless the index holds what it should, if it says that it is complete, and else nothing but
/// that.
pub(crate) fn assert_right(server: &RedisServer, prefix: &str) {
    let is_complete = lacks(server, prefix) == 0;
    let [needed, index] = members_in(server, prefix);
    let shown = |members: Vec<&Vec<u8>>| {
        let text = |member: &&Vec<u8>| String::from_utf8_lossy(member).into_owned();
        members.iter().take(5).map(text).collect::<Vec<_>>()
    };
    let wrong = shown(index.difference(&needed).collect());
    assert_eq!(wrong, Vec::<String>::new(), "members of no entry");
    if is_complete {
        let missing = shown(needed.difference(&index).collect());
        assert_eq!(missing, Vec::<String>::new(), "missing members");
    }
}

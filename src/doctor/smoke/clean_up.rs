//! Deletes what the smoke test writes, and shows beforehand that this is possible.

use std::time::Duration;

use redis::{RedisError, cmd};
use tokio::time::sleep;

use crate::{
    doctor::{
        commit,
        connection::DiagnosticConnection,
        finding::{Fault, Finding},
    },
    store::{RedisUrl, redis::error::describe},
};

/// How often deleting is tried.
const CLEAN_UP_ATTEMPTS: u32 = 3;

/// Deletes every key under `prefix`, and makes sure that none is left.
pub(super) async fn clean_up(write: &RedisUrl, prefix: &str) -> Finding {
    let check = "smoke: tidying up";
    let mut problem = String::new();
    for attempt in 0..CLEAN_UP_ATTEMPTS {
        if attempt > 0 {
            sleep(Duration::from_secs(1)).await;
        }
        let deleted = match DiagnosticConnection::open(write, "writing credential").await {
            Ok(mut connection) => delete_keys(&mut connection, prefix).await,
            Err(error) => Err(error.to_string()),
        };
        match deleted {
            Ok(0) => return Finding::ok(check, "nothing is left behind"),
            Ok(unexpected) => {
                return Finding::ok(
                    check,
                    format!(
                        "nothing is left behind; {unexpected} of the deleted keys were unexpected"
                    ),
                );
            }
            Err(error) => problem = error,
        }
    }
    Finding::problem(
        Fault::Store,
        check,
        format!("keys may be left behind: {problem}"),
        format!("delete the keys that begin with `{prefix}`"),
    )
}

/// Deletes the keys that the test writes and all others with the prefix, and returns how many
/// others there were.
///
/// Before the test it shows that deleting is allowed.
pub(super) async fn delete_keys(
    connection: &mut DiagnosticConnection,
    prefix: &str,
) -> Result<usize, String> {
    let in_words = |error: RedisError| describe(&error);
    let mut keys = commit::written_keys(prefix);
    keys.extend(["script", "reader"].map(|name| format!("{prefix}{name}")));
    // By name first: if reads come from a replica, SCAN finds only what has reached it.
    connection
        .send(cmd("DEL").arg(keys))
        .await
        .map_err(in_words)?;
    let unexpected = find_keys(connection, prefix).await.map_err(in_words)?;
    if unexpected.is_empty() {
        return Ok(0);
    }
    connection
        .send(cmd("DEL").arg(&unexpected))
        .await
        .map_err(in_words)?;
    let left = find_keys(connection, prefix).await.map_err(in_words)?;
    if left.is_empty() {
        Ok(unexpected.len())
    } else {
        Err(format!("{} were not deleted", left.len()))
    }
}

async fn find_keys(
    connection: &mut DiagnosticConnection,
    prefix: &str,
) -> Result<Vec<String>, RedisError> {
    let (mut cursor, mut found) = ("0".to_owned(), Vec::new());
    loop {
        let (next, keys) = connection.scan(prefix, &cursor).await?;
        found.extend(keys);
        if next == "0" {
            return Ok(found);
        }
        cursor = next;
    }
}

//! Plans, in a table of their own, which is made for the first one: 0.1.0 did not make it, and does
//! not mind it.

use std::time::Instant;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};

use super::{SqliteStore, database::Problem};
use crate::{
    domain::{MAX_PLAN_BYTES, MAX_PLANS, PLAN_TTL, Plan, Timestamp},
    store::{PlanStore, StoreError},
};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS plans (
  id TEXT PRIMARY KEY,
  made INTEGER NOT NULL, -- milliseconds since 1970
  text TEXT NOT NULL -- the plan
) STRICT";

/// Drops expired plans, and those before the newest that there is room for; keeps the last one.
const DROP: &str = "DELETE FROM plans WHERE made <= ?1 OR id IN (
  SELECT id FROM (
    SELECT id, row_number() OVER newest_first AS number, sum(octet_length(text)) OVER newest_first AS bytes
    FROM plans WINDOW newest_first AS (ORDER BY id = ?2 DESC, made DESC, id)
  ) WHERE number > ?3 OR bytes > ?4 AND number > 1
)";

#[async_trait]
impl PlanStore for SqliteStore {
    async fn put_plan(&self, plan: &Plan) -> Result<(), StoreError> {
        let start = Instant::now();
        let (id, text) = (plan.reference.id.clone(), plan.text());
        let made = plan.reference.timestamp;
        self.run(&self.write_turns, move |database| {
            let written = database.write(start, |transaction| put(transaction, &id, made, &text));
            written.map_err(|problem| database.write_error(problem))
        })
        .await
    }

    async fn get_plan(&self, id: &str) -> Result<Option<Plan>, StoreError> {
        let id = id.to_owned();
        self.read(move |transaction| get(transaction, &id)).await
    }
}

fn put(transaction: &Connection, id: &str, made: Timestamp, text: &str) -> Result<(), Problem> {
    transaction.execute_batch(TABLE)?;
    transaction
        .prepare_cached("REPLACE INTO plans (id, made, text) VALUES (?, ?, ?)")?
        .execute(params![id, made.millis(), text])?;
    transaction.prepare_cached(DROP)?.execute(params![
        made.minus(PLAN_TTL).millis(),
        id,
        integer(MAX_PLANS),
        integer(MAX_PLAN_BYTES)
    ])?;
    Ok(())
}

fn integer(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn get(transaction: &Connection, id: &str) -> Result<Option<Plan>, Problem> {
    let exists = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'plans')";
    if !transaction.query_row(exists, [], |row| row.get(0))? {
        return Ok(None);
    }
    let text: Option<String> = transaction
        .prepare_cached("SELECT text FROM plans WHERE id = ?")?
        .query_row([id], |row| row.get(0))
        .optional()?;
    Ok(text.and_then(|text| Plan::parse(&text)))
}

//! Plans, in a hash of our own, with their times in a sorted set beside it.

use async_trait::async_trait;
use redis::{Value, cmd};

use super::{ReadFrom, RedisStore, error::write_error, reply::text};
use crate::{
    domain::{MAX_PLAN_BYTES, MAX_PLANS, PLAN_TTL, Plan},
    store::{PlanStore, StoreError},
};

const PUT: &str = include_str!("plans.lua");

#[async_trait]
impl PlanStore for RedisStore {
    async fn put_plan(&self, plan: &Plan) -> Result<(), StoreError> {
        let connection = self.write_connection()?;
        let mut command = cmd("EVAL");
        command
            .arg(PUT)
            .arg(2)
            .arg(self.keys.plans())
            .arg(self.keys.plan_times())
            .arg(&plan.reference.id)
            .arg(plan.text())
            .arg(plan.reference.timestamp.millis())
            .arg(MAX_PLANS)
            .arg(MAX_PLAN_BYTES)
            .arg(PLAN_TTL.as_secs() * 1000);
        let done = connection.send(&command).await;
        done.map(drop).map_err(|error| write_error(&error))
    }

    async fn get_plan(&self, id: &str) -> Result<Option<Plan>, StoreError> {
        let mut command = cmd("HGET");
        command.arg(self.keys.plans()).arg(id);
        match self.read(ReadFrom::Primary, &command).await? {
            Value::Nil => Ok(None),
            value => Ok(text(value).ok().and_then(|text| Plan::parse(&text))),
        }
    }
}

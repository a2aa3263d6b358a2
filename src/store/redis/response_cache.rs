//! The shared cache of REST responses, under the keys `cache:api:…`.

use std::time::Duration;

use async_trait::async_trait;
use redis::{Value, cmd};

use super::{
    ReadFrom, RedisStore,
    error::{read_error, write_error},
    reply::{text, unwrap_reply},
};
use crate::{
    domain::{ApiPath, CachedResponse, StoreState},
    store::{ResponseCache, StoreError},
};

/// Stores a response unless a commit has made it old. Nothing comes between the two commands of a
/// script.
const PUT: &str = "if (redis.call('HGET', KEYS[2], 'seq') or '0') == ARGV[1] \
                   and (redis.call('GET', KEYS[3]) or '') == ARGV[4] then \
                   redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) end";

#[async_trait]
impl ResponseCache for RedisStore {
    async fn get(&self, path: &ApiPath) -> Result<CachedResponse, StoreError> {
        let mut pipeline = redis::pipe();
        pipeline
            .cmd("GET")
            .arg(self.keys.cached_response(path))
            .cmd("HGET")
            .arg(self.keys.stats())
            .arg("seq")
            .cmd("GET")
            .arg(self.keys.newest_commit())
            .ignore_errors();
        let mut replies = self.read_all(ReadFrom::Any, &pipeline).await?.into_iter();
        // A value of another type, which another program may have left there, is no response.
        let response = replies.next().and_then(|value| text(value).ok());
        let seq = unwrap_reply(replies.next().unwrap_or_default());
        let seq = match seq.map_err(|error| read_error(&error))? {
            Value::Nil => 0,
            value => text(value)
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| StoreError::Failed("`seq` is not a number".to_owned()))?,
        };
        let commit = replies.next().and_then(|value| text(value).ok());
        let state = StoreState {
            seq,
            commit: commit.unwrap_or_default(),
        };
        Ok(CachedResponse {
            response,
            state: Some(state),
        })
    }

    async fn put(
        &self,
        path: &ApiPath,
        state: &StoreState,
        response: &str,
        ttl: Duration,
    ) -> Result<(), StoreError> {
        let Some(connection) = &self.write else {
            return Ok(());
        };
        let mut command = cmd("EVAL");
        command
            .arg(PUT)
            .arg(3)
            .arg(self.keys.cached_response(path))
            .arg(self.keys.stats())
            .arg(self.keys.newest_commit())
            .arg(state.seq)
            .arg(response)
            .arg(ttl.as_secs())
            .arg(&state.commit);
        connection
            .send(&command)
            .await
            .map(drop)
            .map_err(|error| write_error(&error))
    }
}

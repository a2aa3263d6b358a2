//! The shared cache of REST responses, under the keys `cache:api:…`.

use std::time::Duration;

use async_trait::async_trait;
use redis::{Pipeline, Value, cmd};

use super::{
    ReadFrom, RedisStore,
    error::{read_error, write_error},
    reply::{text, unwrap_reply},
};
use crate::{
    domain::{ApiPath, CachedResponse, History, StoreState},
    store::{ResponseCache, StoreError},
};

/// Stores a response unless a commit has made it old. Nothing comes between the two commands of a
/// script.
const PUT: &str = "if (redis.call('HGET', KEYS[2], 'seq') or '0') == ARGV[1] \
                   and (redis.call('GET', KEYS[3]) or '') == ARGV[4] then \
                   redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) return 1 end return 0";

#[async_trait]
impl ResponseCache for RedisStore {
    async fn get(&self, path: &ApiPath) -> Result<CachedResponse, StoreError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("GET").arg(self.keys.cached_response(path));
        self.ask_about(path, &mut pipeline);
        let mut replies = self.read_all(ReadFrom::Any, &pipeline).await?.into_iter();
        // A value of another type, which another program may have left there, is no response.
        let response = replies.next().and_then(|value| text(value).ok());
        Ok(CachedResponse {
            response,
            ..about(replies)?
        })
    }

    async fn look_up(&self, path: &ApiPath) -> Result<CachedResponse, StoreError> {
        let mut pipeline = redis::pipe();
        self.ask_about(path, &mut pipeline);
        about(self.read_all(ReadFrom::Any, &pipeline).await?.into_iter())
    }

    async fn put(
        &self,
        path: &ApiPath,
        state: &StoreState,
        response: &str,
        ttl: Duration,
    ) -> Result<bool, StoreError> {
        let Some(connection) = &self.write else {
            return Ok(false);
        };
        let mut command = cmd("EVAL");
        command
            .arg(PUT)
            .arg(3)
            .arg(self.keys.cached_response(path))
            .arg(self.keys.stats())
            .arg(self.keys.history())
            .arg(state.seq)
            .arg(response)
            .arg(ttl.as_secs())
            .arg(state.history.as_str());
        connection
            .send(&command)
            .await
            .map(|reply| reply == Value::Int(1))
            .map_err(|error| write_error(&error))
    }
}

impl RedisStore {
    /// Adds the commands whose replies [`about`] reads.
    fn ask_about(&self, path: &ApiPath, pipeline: &mut Pipeline) {
        pipeline
            .cmd("PTTL")
            .arg(self.keys.cached_response(path))
            .cmd("HGET")
            .arg(self.keys.stats())
            .arg("seq")
            .cmd("GET")
            .arg(self.keys.history())
            .ignore_errors();
    }
}

/// How long a response is still stored, and the store's state.
fn about(mut replies: impl Iterator<Item = Value>) -> Result<CachedResponse, StoreError> {
    let ttl = match replies.next() {
        Some(Value::Int(millis)) => u64::try_from(millis).ok().map(Duration::from_millis),
        _ => None,
    };
    let seq = unwrap_reply(replies.next().unwrap_or_default());
    let seq = match seq.map_err(|error| read_error(&error))? {
        Value::Nil => 0,
        value => text(value)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| StoreError::Failed("`seq` is not a number".to_owned()))?,
    };
    let history = replies.next().and_then(|value| text(value).ok());
    let history = history.map(History::parse).unwrap_or_default();
    Ok(CachedResponse {
        response: None,
        ttl,
        state: Some(StoreState { seq, history }),
    })
}

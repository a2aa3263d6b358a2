//! A Redis connection for checks: without retries, so that a check sees what the server does.

use std::time::{Duration, Instant};

use redis::{
    AsyncConnectionConfig, Client, Cmd, Pipeline, RedisError, Value, aio::MultiplexedConnection,
    cmd,
};

use crate::{
    domain::text::truncate,
    store::{
        RedisUrl, StoreError,
        redis::{
            connection::{CONNECT_TIMEOUT, RESPONSE_TIMEOUT, client},
            error::read_error,
            reply::{array, kind_of, text, unwrap_reply},
        },
    },
};

pub(super) struct DiagnosticConnection {
    client: Client,
    connection: MultiplexedConnection,
    /// What findings call it.
    pub(super) name: &'static str,
}

impl DiagnosticConnection {
    pub(super) async fn open(url: &RedisUrl, name: &'static str) -> Result<Self, StoreError> {
        Self::open_with(url, name, AsyncConnectionConfig::new()).await
    }

    pub(super) async fn open_with(
        url: &RedisUrl,
        name: &'static str,
        config: AsyncConnectionConfig,
    ) -> Result<Self, StoreError> {
        let client = client(url).map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let config = config
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        let connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|error| read_error(&error))?;
        Ok(Self {
            client,
            connection,
            name,
        })
    }

    /// How long each reply may take from now on.
    pub(super) fn set_response_timeout(&mut self, timeout: Duration) {
        self.connection.set_response_timeout(timeout);
    }

    /// Connects anew, because late replies that nobody waits for would hold up the next ones.
    pub(super) async fn reopen(&mut self, response_timeout: Duration) -> Result<(), RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(response_timeout));
        self.connection = self
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        Ok(())
    }

    pub(super) async fn send(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        self.connection
            .send_packed_command(command)
            .await
            .and_then(unwrap_reply)
    }

    /// One reply for each command of the pipeline; an error reply does not stop it.
    pub(super) async fn send_all(
        &mut self,
        pipeline: &Pipeline,
    ) -> Result<Vec<Result<Value, RedisError>>, RedisError> {
        let mut pipeline = pipeline.clone();
        pipeline.ignore_errors();
        let replies = self
            .connection
            .send_packed_commands(&pipeline, 0, pipeline.len())
            .await?;
        Ok(replies.into_iter().map(unwrap_reply).collect())
    }

    /// The median time of a `GET`.
    pub(super) async fn round_trip(
        &mut self,
        key: &str,
        times: usize,
    ) -> Result<Duration, RedisError> {
        let mut durations = Vec::with_capacity(times);
        for _ in 0..times {
            let start = Instant::now();
            self.send(cmd("GET").arg(key)).await?;
            durations.push(start.elapsed());
        }
        durations.sort_unstable();
        Ok(durations.get(times / 2).copied().unwrap_or_default())
    }

    /// Some of the keys that begin with `prefix`, and the cursor for the next ones. The cursor `0`
    /// starts and ends.
    pub(super) async fn scan(
        &mut self,
        prefix: &str,
        cursor: &str,
    ) -> Result<(String, Vec<String>), RedisError> {
        let mut scan = cmd("SCAN");
        scan.arg(cursor)
            .arg("MATCH")
            .arg(format!("{}*", escape_pattern(prefix)))
            .arg("COUNT")
            .arg(1000);
        let mut parts = array(self.send(&scan).await?).into_iter();
        let next = parts.next().and_then(|cursor| text(cursor).ok());
        let keys = parts.next().map(array).unwrap_or_default();
        Ok((
            next.unwrap_or_else(|| "0".to_owned()),
            keys.into_iter().filter_map(|key| text(key).ok()).collect(),
        ))
    }

    pub(super) async fn subscribe(&mut self, channel: &str) -> Result<(), RedisError> {
        self.connection.subscribe(channel).await
    }
}

/// A pattern for `SCAN` that matches `text` itself.
pub(super) fn escape_pattern(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if "*?[]\\^".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

/// A reply in words, for a message about one that was not expected.
pub(super) fn describe_value(value: &Value) -> String {
    match value {
        Value::Int(number) => number.to_string(),
        Value::BulkString(_) | Value::SimpleString(_) => text(value.clone()).map_or_else(
            |_| "bytes".to_owned(),
            |text| format!("`{}`", truncate(&text)),
        ),
        other => kind_of(other).to_owned(),
    }
}

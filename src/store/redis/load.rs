//! Reading all documents of a kind, in pieces that a slow network delivers in time.

use std::sync::Arc;

use async_trait::async_trait;
use redis::{Value, cmd};

use super::{
    ReadFrom, RedisStore,
    reply::{array, text},
    unreadable,
};
use crate::{
    domain::{DocumentKey, Kind},
    store::{Documents, SnapshotSource, StoreError},
};

/// The first documents are fetched this many at a time, and then as many as make up
/// [`MGET_TARGET_BYTES`]: on a slow network a reply must still arrive in time, and other replies
/// between two of them.
const FIRST_MGET_KEYS: usize = 8;
const MGET_TARGET_BYTES: usize = 512 * 1024;
const MAX_MGET_KEYS: usize = 1000;

#[async_trait]
impl SnapshotSource for RedisStore {
    async fn load(&self, kind: Kind) -> Result<Documents, StoreError> {
        let keys = self.document_keys(kind).await?;
        let values = self.document_values(&keys).await?;
        let (mut present, mut absent) = (Vec::with_capacity(keys.len()), Vec::new());
        for (key, value) in keys.into_iter().zip(values) {
            match value {
                Value::Nil => absent.push(key),
                value => present.push((key, value)),
            }
        }
        let mut documents = self.parse_all(present).await?;
        if !absent.is_empty() {
            documents.unreadable.extend(self.explain(&absent).await?);
        }
        Ok(documents)
    }
}

impl RedisStore {
    async fn document_keys(&self, kind: Kind) -> Result<Vec<DocumentKey>, StoreError> {
        let mut command = cmd("SMEMBERS");
        command.arg(self.keys.index("all", kind));
        let members = array(self.read(ReadFrom::Any, &command).await?);
        let mut keys: Vec<DocumentKey> = members
            .into_iter()
            .filter_map(|id| text(id).ok())
            .map(|id| DocumentKey::new(kind, id))
            .collect();
        keys.sort_unstable();
        Ok(keys)
    }

    /// The value at each key, in their order.
    async fn document_values(&self, keys: &[DocumentKey]) -> Result<Vec<Value>, StoreError> {
        let (mut values, mut bytes, mut size) =
            (Vec::with_capacity(keys.len()), 0, FIRST_MGET_KEYS);
        while let Some(chunk) = keys
            .get(values.len()..keys.len().min(values.len() + size))
            .filter(|chunk| !chunk.is_empty())
        {
            let mut command = cmd("MGET");
            for key in chunk {
                command.arg(self.keys.document(key));
            }
            let found = array(self.read(ReadFrom::Any, &command).await?);
            if found.len() != chunk.len() {
                return Err(StoreError::Failed(
                    "Redis returned fewer documents than were requested".to_owned(),
                ));
            }
            bytes += found.iter().map(length).sum::<usize>();
            values.extend(found);
            size = (MGET_TARGET_BYTES / (bytes / values.len()).max(1)).clamp(1, MAX_MGET_KEYS);
        }
        Ok(values)
    }

    /// Thousands of documents take longer to parse than other calls should wait, so a blocking
    /// thread does it.
    async fn parse_all(&self, values: Vec<(DocumentKey, Value)>) -> Result<Documents, StoreError> {
        let cache = Arc::clone(&self.cache);
        let named: Vec<(String, DocumentKey, Value)> = values
            .into_iter()
            .map(|(key, value)| (self.keys.document(&key), key, value))
            .collect();
        let parsed = tokio::task::spawn_blocking(move || {
            let mut documents = Documents::default();
            for (name, key, value) in named {
                match text(value).and_then(|text| cache.parse(key, text)) {
                    Ok(record) => documents.records.push(record),
                    Err(problem) => documents.unreadable.push(unreadable(&name, &problem)),
                }
            }
            documents
        });
        parsed.await.map_err(|_| StoreError::panicked())
    }

    /// Why MGET returned nothing for these keys: they hold another type, or nothing.
    async fn explain(&self, keys: &[DocumentKey]) -> Result<Vec<String>, StoreError> {
        let mut pipeline = redis::pipe();
        for key in keys {
            pipeline.cmd("TYPE").arg(self.keys.document(key));
        }
        let types = self.read_all(ReadFrom::Any, &pipeline).await?;
        Ok(keys
            .iter()
            .zip(types)
            .filter_map(|(key, kind)| match text(kind).ok().as_deref() {
                // The index names a document that is gone, such as one with a TTL: there is nothing
                // to report.
                None | Some("none") => None,
                Some(other) => Some(unreadable(
                    &self.keys.document(key),
                    &format!("it is a Redis {other}, not a string"),
                )),
            })
            .collect())
    }
}

fn length(value: &Value) -> usize {
    match value {
        Value::BulkString(bytes) => bytes.len(),
        _ => 0,
    }
}

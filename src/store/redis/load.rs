//! Reading many documents at once.

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

#[async_trait]
impl SnapshotSource for RedisStore {
    async fn ids(&self, kind: Kind) -> Result<Vec<String>, StoreError> {
        let mut command = cmd("SMEMBERS");
        command.arg(self.keys.index("all", kind));
        let members = array(self.read(ReadFrom::Bulk, &command).await?);
        Ok(members.into_iter().filter_map(|id| text(id).ok()).collect())
    }

    async fn get_many(&self, keys: &[DocumentKey]) -> Result<Documents, StoreError> {
        let mut command = cmd("MGET");
        for key in keys {
            command.arg(self.keys.document(key));
        }
        let values = array(self.read(ReadFrom::Bulk, &command).await?);
        if values.len() != keys.len() {
            return Err(StoreError::Failed(
                "Redis returned fewer documents than were requested".to_owned(),
            ));
        }
        let (mut present, mut absent) = (Vec::with_capacity(keys.len()), Vec::new());
        for (key, value) in keys.iter().cloned().zip(values) {
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
                    Ok(record) => {
                        let _ = record.index_entry(); // computed here, where no other call waits for it
                        documents.records.push(record);
                    }
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
        let types = self.read_all(ReadFrom::Bulk, &pipeline).await?;
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

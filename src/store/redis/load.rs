//! Reading many documents at once.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use redis::{Value, cmd};

use super::{
    ReadFrom, RedisStore,
    outside::WithChecksum,
    reply::{array, text},
    unreadable,
};
use crate::{
    domain::{DocumentKey, Kind, Record},
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
        let (values, checksums) = self.read_documents(keys).await?;
        let (mut present, mut absent) = (Vec::with_capacity(keys.len()), Vec::new());
        for (key, value) in keys.iter().cloned().zip(values) {
            match value {
                Value::Nil => absent.push(key),
                value => present.push((key, value)),
            }
        }
        let mut documents = self.parse_all(present).await?;
        let mut gone = Vec::new();
        if !absent.is_empty() {
            let explained = self.explain(&absent).await?;
            documents.unreadable.extend(explained.unreadable);
            gone = explained.gone;
        }
        if let Some(checksums) = checksums {
            let unexplained = self.unexplained(&documents.records, gone, &checksums);
            documents.changed_outside = self.changed_outside(&unexplained).await;
        }
        Ok(documents)
    }
}

/// The checksums beside documents.
type Checksums = HashMap<DocumentKey, String>;

/// Why some keys hold no document.
struct Absent {
    /// One sentence for each key that holds another type.
    unreadable: Vec<String>,
    /// The index names a document that is gone, such as one with a TTL.
    gone: Vec<DocumentKey>,
}

impl RedisStore {
    /// The values of documents, and the checksums beside them, if this user may read those.
    async fn read_documents(
        &self,
        keys: &[DocumentKey],
    ) -> Result<(Vec<Value>, Option<Checksums>), StoreError> {
        let documents = keys.iter().map(|key| self.keys.document(key));
        let checksums = keys.iter().map(|key| self.keys.checksum(key));
        let names: Vec<String> = documents.clone().chain(checksums).collect();
        let own = self.read_own(ReadFrom::Bulk, &names).await?;
        let (mut values, expected, has_checksums) = if let Some(values) = own {
            (values, names.len(), true)
        } else {
            let mut command = cmd("MGET");
            command.arg(documents.collect::<Vec<_>>());
            let values = array(self.read(ReadFrom::Bulk, &command).await?);
            (values, keys.len(), false)
        };
        if values.len() != expected {
            return Err(StoreError::Failed(
                "Redis returned fewer documents than were requested".to_owned(),
            ));
        }
        let beside = values.split_off(keys.len());
        let beside = keys.iter().zip(beside);
        let read = beside.filter_map(|(key, value)| Some((key.clone(), text(value).ok()?)));
        Ok((values, has_checksums.then(|| read.collect())))
    }

    /// The documents that the checksums beside them do not explain, those that are gone included.
    fn unexplained(
        &self,
        records: &[Record],
        gone: Vec<DocumentKey>,
        checksums: &Checksums,
    ) -> Vec<WithChecksum> {
        let present = records
            .iter()
            .map(|record| (record.key().clone(), Some(record.clone())));
        let gone = gone.into_iter().map(|key| (key, None));
        present
            .chain(gone)
            .map(|(key, record)| WithChecksum {
                checksum: checksums.get(&key).cloned(),
                key,
                record,
            })
            .filter(|document| match &document.record {
                Some(record) => !self.is_explained(record, document.checksum.as_deref()),
                None => true,
            })
            .collect()
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
    async fn explain(&self, keys: &[DocumentKey]) -> Result<Absent, StoreError> {
        let mut pipeline = redis::pipe();
        for key in keys {
            pipeline.cmd("TYPE").arg(self.keys.document(key));
        }
        let types = self.read_all(ReadFrom::Bulk, &pipeline).await?;
        let mut absent = Absent {
            unreadable: Vec::new(),
            gone: Vec::new(),
        };
        for (key, kind) in keys.iter().zip(types) {
            match text(kind).ok().as_deref() {
                None | Some("none") => absent.gone.push(key.clone()),
                Some(other) => absent.unreadable.push(unreadable(
                    &self.keys.document(key),
                    &format!("it is a Redis {other}, not a string"),
                )),
            }
        }
        Ok(absent)
    }
}

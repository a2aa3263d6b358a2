//! Which documents in Redis were changed outside this server.

use redis::{RedisError, Value, cmd};

use super::connection::DiagnosticConnection;
use crate::{
    domain::{DocumentKey, FoundDocument, OutsideChange, Record, changed_outside},
    store::redis::{
        error::is_permission_denied,
        keys::Keys,
        reply::{array, text},
    },
};

/// How many checksums are read at once, and how many newest entries.
const CHECKSUMS_AT_ONCE: usize = 500;
const ENTRIES_AT_ONCE: usize = 20;

/// Those of some documents that were changed outside this server, and of the ids without one that had
/// one.
pub(super) async fn changes(
    keys: &Keys,
    connection: &mut DiagnosticConnection,
    records: &[Record],
    absent: &[DocumentKey],
) -> Result<Vec<OutsideChange>, RedisError> {
    let present = records
        .iter()
        .map(|record| (record.key().clone(), Some(record)));
    let absent = absent.iter().map(|key| (key.clone(), None));
    let documents: Vec<(DocumentKey, Option<&Record>)> = present.chain(absent).collect();
    let mut check = Check { keys, connection };
    let unexplained = check.unexplained(&documents).await?;
    check.compare(&unexplained).await
}

struct Check<'a> {
    keys: &'a Keys,
    connection: &'a mut DiagnosticConnection,
}

impl Check<'_> {
    /// The documents that have another checksum than the one beside them, which version 0.1.0 leaves
    /// too.
    async fn unexplained(
        &mut self,
        documents: &[(DocumentKey, Option<&Record>)],
    ) -> Result<Vec<DocumentKey>, RedisError> {
        let mut unexplained = Vec::new();
        for chunk in documents.chunks(CHECKSUMS_AT_ONCE) {
            let names = chunk.iter().map(|(key, _)| self.keys.checksum(key));
            let checksums = self.read(names.collect()).await?;
            for ((key, record), checksum) in chunk.iter().zip(checksums) {
                if record.is_none()
                    || text(checksum).ok().as_deref() != record.map(Record::checksum)
                {
                    unexplained.push(key.clone());
                }
            }
        }
        Ok(unexplained)
    }

    /// Those that have another checksum than their newest entry, both read at one moment.
    async fn compare(&mut self, keys: &[DocumentKey]) -> Result<Vec<OutsideChange>, RedisError> {
        let mut found = Vec::new();
        for chunk in keys.chunks(ENTRIES_AT_ONCE) {
            let names = chunk
                .iter()
                .flat_map(|key| [self.keys.document(key), self.keys.latest(key)]);
            let mut values = self.read(names.collect()).await?.into_iter();
            for key in chunk {
                let (document, entry) = (values.next(), values.next());
                let entry = entry.and_then(|entry| text(entry).ok());
                let record = match document.unwrap_or_default() {
                    Value::Nil => None,
                    value => match text(value).and_then(|text| Record::parse(key.clone(), text)) {
                        Ok(record) => Some(record),
                        Err(_) => continue, // another finding has it
                    },
                };
                let document = FoundDocument {
                    changed_outside: changed_outside(record.as_ref(), entry.as_deref()),
                    record,
                };
                found.extend(OutsideChange::of(key, &document));
            }
        }
        Ok(found)
    }

    /// The values of these keys; none if this user may not read them.
    async fn read(&mut self, names: Vec<String>) -> Result<Vec<Value>, RedisError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        match self.connection.send(cmd("MGET").arg(names)).await {
            Ok(values) => Ok(array(values)),
            Err(error) if is_permission_denied(&error) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

//! Creating and deleting one document.

use serde_json::{Map, Value, json};

use super::{
    ContentService, Error,
    write::{Plan, Refusal, WriteCall, WriteOptions, Written, other_version},
};
use crate::{
    deadline::Deadline,
    domain::{Change, DocumentKey},
};

/// A requested creation.
#[derive(Debug, Clone)]
pub struct CreateRequest {
    /// Which document.
    pub key: DocumentKey,
    /// Its fields.
    pub data: Map<String, Value>,
    /// The rest.
    pub options: WriteOptions,
}

/// A requested deletion.
#[derive(Debug, Clone)]
pub struct DeleteRequest {
    /// Which document.
    pub key: DocumentKey,
    /// The version that the caller has read.
    pub expected_version: String,
    /// The rest.
    pub options: WriteOptions,
}

impl ContentService {
    /// Creates a document, or shows it. An id that was deleted before may be used again.
    pub async fn create(
        &self,
        request: CreateRequest,
        deadline: Deadline,
    ) -> Result<Written, Error> {
        let CreateRequest { key, data, options } = request;
        let identity =
            json!({ "tool": format!("create_{}", key.kind), "id": key.id, "data": data });
        let mut call = WriteCall::new(vec![key], options, identity, deadline);
        let written = self.write(&mut call, |_, current, context| {
            match Change::create(current, &data, context) {
                Ok(Some(change)) => Plan::Change(Box::new(change), Vec::new()),
                Ok(None) => Plan::Refuse(Refusal::Exists),
                Err(violations) => Plan::Refuse(Refusal::Invalid(violations)),
            }
        });
        match written.await {
            Ok(written) => Ok(written),
            Err(failure) => Err(self.refusal(failure, call.deadline).await),
        }
    }

    /// Deletes a document of the expected version, or shows it.
    pub async fn delete(
        &self,
        request: DeleteRequest,
        deadline: Deadline,
    ) -> Result<Written, Error> {
        let (key, expected) = (request.key, request.expected_version);
        let identity = json!({ "tool": format!("delete_{}", key.kind), "id": key.id, "expectedVersion": expected });
        let mut call = WriteCall::new(vec![key], request.options, identity, deadline);
        let written = self.write(&mut call, |_, current, context| {
            if let Some(refusal) = other_version(current, Some(&expected)) {
                return refusal;
            }
            match Change::delete(current, context) {
                Some(change) => Plan::Change(Box::new(change), Vec::new()),
                None => Plan::Refuse(Refusal::Missing),
            }
        });
        match written.await {
            Ok(written) => Ok(written),
            Err(failure) => Err(self.refusal(failure, call.deadline).await),
        }
    }
}

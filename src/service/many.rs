//! Updating many documents in one commit.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::{
    ContentService, Error,
    write::{Failure, Plan, Refusal, Refused, WriteCall, WriteOptions, Written, other_version},
};
use crate::{
    deadline::Deadline,
    domain::{Change, DocumentKey, Edit, Update, Violation, text::truncate},
};

/// Near ids are looked for only for this many documents that are missing.
const MAX_SIMILAR: usize = 3;

/// A requested update of many documents.
#[derive(Debug, Clone)]
pub struct UpdateManyRequest {
    /// The updates, each of another document.
    pub changes: Vec<ManyItem>,
    /// The rest.
    pub options: WriteOptions,
}

/// One of many updates.
#[derive(Debug, Clone)]
pub struct ManyItem {
    /// How violations name it: `changes[3]`.
    pub path: String,
    /// Which document.
    pub key: DocumentKey,
    /// What to merge into it.
    pub patch: Map<String, Value>,
    /// What to change after that.
    pub edits: Vec<Edit>,
    /// The version that the caller has read.
    pub expected_version: Option<String>,
}

impl ContentService {
    /// Changes many documents, all or none, or shows what would change.
    pub async fn update_many(
        &self,
        request: UpdateManyRequest,
        deadline: Deadline,
    ) -> Result<Written, Error> {
        let items = request.changes;
        let keys = items.iter().map(|item| item.key.clone()).collect();
        let mut call = WriteCall::new(keys, request.options, identity(&items), deadline);
        let written = self.write(&mut call, |index, current, context| {
            let Some(item) = items.get(index) else {
                return Plan::Unchanged;
            };
            let expected = item.expected_version.as_deref();
            if let Some(refusal) = other_version(current, expected) {
                return refusal;
            }
            match Change::update(current, &item.patch, &item.edits, context) {
                Ok(Update::Missing) => Plan::Refuse(Refusal::Missing),
                Ok(Update::Unchanged(_)) => Plan::Unchanged,
                Ok(Update::Change(change, warnings)) => Plan::Change(change, warnings),
                Err(violations) => Plan::Refuse(Refusal::Invalid(violations)),
            }
        });
        match written.await {
            Ok(written) => Ok(written),
            Err(Failure::Error(error)) => Err(error),
            Err(Failure::Refused(refused)) => {
                Err(self.refusal_of_many(&items, refused, call.deadline).await)
            }
        }
    }

    /// The error for documents that are not written: a conflict, or every violation.
    async fn refusal_of_many(
        &self,
        items: &[ManyItem],
        mut refused: Vec<Refused>,
        deadline: Deadline,
    ) -> Error {
        // What else is wrong may follow from it, so it has to be read again first.
        let conflict = |refused: &Refused| matches!(refused.refusal, Refusal::OtherVersion(_));
        if let Some(position) = refused.iter().position(conflict) {
            return self
                .refusal_of(refused.swap_remove(position), deadline)
                .await;
        }
        let (mut violations, mut missing) = (Vec::new(), 0);
        for refused in refused {
            let path = items.get(refused.index).map_or("", |item| &item.path);
            match refused.refusal {
                Refusal::Invalid(more) => {
                    violations.extend(more.into_iter().map(|violation| below(path, violation)));
                }
                Refusal::Missing | Refusal::Exists | Refusal::OtherVersion(_) => {
                    missing += 1;
                    let key = refused.current.key().clone();
                    let outside = refused.current.changed_outside();
                    let error = if missing <= MAX_SIMILAR {
                        self.not_found(key, outside, deadline).await
                    } else {
                        Error::NotFound {
                            key,
                            similar: Vec::new(),
                            found_as: None,
                            deleted_outside: outside,
                        }
                    };
                    violations.push(below(path, missing_document(&error)));
                }
            }
        }
        Error::Invalid(violations)
    }
}

/// What makes two requests the same one.
fn identity(items: &[ManyItem]) -> Value {
    let changes = items.iter().map(|item| {
        json!({
            "entityType": item.key.kind,
            "id": item.key.id,
            "data": item.patch,
            "edits": item.edits,
            "expectedVersion": item.expected_version,
        })
    });
    json!({ "tool": "update_many", "changes": changes.collect::<Vec<_>>() })
}

/// The same violation, of what is at `path`.
fn below(path: &str, violation: Violation) -> Violation {
    let joiner = if violation.path.is_empty() { "" } else { "." };
    Violation {
        path: format!("{path}{joiner}{}", violation.path),
        ..violation
    }
}

fn missing_document(error: &Error) -> Violation {
    let mut violation = Violation::new("id", "missing", error.to_string());
    if let Error::NotFound {
        similar,
        deleted_outside,
        ..
    } = error
    {
        if let Some(after) = deleted_outside {
            let _ = write!(
                violation.message,
                " any more: it was deleted outside this server after {after}"
            );
        } else if let Some(id) = similar.first() {
            let _ = write!(violation.message, "; did you mean `{}`?", truncate(id));
            violation.suggestion = Some(id.clone());
        }
    }
    violation
}

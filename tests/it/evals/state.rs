//! Everything that is in a store: what a task begins with and what it leads to.

use std::collections::BTreeMap;

use portfolio_mcp::{
    domain::{AuditQuery, Kind, ListQuery},
    store::Repository,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::support::soundness::entries;

/// The documents and the log of a store.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(crate) struct State {
    /// By `project:ID` and `resource:ID`.
    pub(crate) documents: BTreeMap<String, Value>,
    /// Oldest first.
    pub(crate) entries: Vec<Value>,
}

impl State {
    pub(crate) async fn of(repository: &dyn Repository) -> Self {
        let mut documents = BTreeMap::new();
        let query = ListQuery {
            limit: usize::MAX,
            ..ListQuery::default()
        };
        for kind in Kind::ALL {
            for record in repository.list(kind, &query).await.unwrap().records {
                let name = format!("{}:{}", kind.singular(), record.key().id);
                documents.insert(name, Value::Object(record.document().clone()));
            }
        }
        let entries = entries(repository, &AuditQuery::default()).await;
        Self {
            documents,
            entries: entries
                .iter()
                .map(|entry| Value::Object(entry.clone().into_json()))
                .collect(),
        }
    }
}

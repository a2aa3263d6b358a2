//! A store in which others interfere exactly between a read and a commit.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use portfolio_mcp::{
    domain::{
        AuditPage, AuditQuery, AuditStats, Change, Current, DocumentKey, FoundDocument, Kind,
        ListPage, ListQuery, Operation,
    },
    service::ContentService,
    store::{Commit, Repository, Revision, Store as Parts, StoreError},
};
use serde_json::json;

use super::{
    fixtures::{now, unique, update},
    stores::Store,
};

/// Longer than a call may take before its last commit.
const TOO_LONG: Duration = Duration::from_secs(10);

/// What happens at one commit.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// Another program changes a document first.
    Race(DocumentKey),
    /// The same, and then the time of the call is over. Needs a runtime with one thread.
    LastRace(DocumentKey),
    /// The commit is passed on, and reported to have failed like this.
    Fails(StoreError),
    /// The same, when the time of the call is over. Needs a runtime with one thread.
    FailsLate(StoreError),
}

/// A store in which others interfere; it counts what is read.
pub(crate) struct Contested {
    store: Arc<dyn Repository>,
    rival: Arc<dyn Repository>,
    events: Mutex<VecDeque<Event>>,
    unreadable: AtomicBool,
    reads: Mutex<BTreeMap<DocumentKey, usize>>,
    histories: Mutex<BTreeMap<String, usize>>,
}

impl Contested {
    /// The store, with what happens at the next commits.
    pub(crate) fn new(store: &Store, events: impl IntoIterator<Item = Event>) -> Arc<Self> {
        Arc::new(Self {
            store: store.another(),
            rival: store.another(),
            events: Mutex::new(events.into_iter().collect()),
            unreadable: AtomicBool::new(false),
            reads: Mutex::default(),
            histories: Mutex::default(),
        })
    }

    /// The parts for a service or a client, without a snapshot.
    pub(crate) fn parts(self: &Arc<Self>, store: &Store) -> Parts {
        Parts {
            repository: Arc::clone(self) as _,
            snapshot: None,
            ..store.open()
        }
    }

    /// The use cases on it.
    pub(crate) fn service(self: &Arc<Self>, store: &Store) -> ContentService {
        ContentService::new(self.parts(store), now)
    }

    /// Answers no read of a document from now on.
    pub(crate) fn set_unreadable(&self) {
        self.unreadable.store(true, Ordering::SeqCst);
    }

    /// How often a document was read to be changed.
    pub(crate) fn reads(&self, key: &DocumentKey) -> usize {
        self.reads.lock().unwrap().get(key).copied().unwrap_or(0)
    }

    /// How often the history of a document was read.
    pub(crate) fn histories(&self, key: &DocumentKey) -> usize {
        let histories = self.histories.lock().unwrap();
        histories.get(&key.id).copied().unwrap_or(0)
    }

    /// How many of the events did not happen yet.
    pub(crate) fn events_left(&self) -> usize {
        self.events.lock().unwrap().len()
    }

    async fn change(&self, key: &DocumentKey) {
        update(&*self.rival, key, json!({ "challenge": unique("rival") })).await;
    }

    fn check_readable(&self) -> Result<(), StoreError> {
        if self.unreadable.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("it is away".to_owned()));
        }
        Ok(())
    }
}

/// Lets the time of the call pass.
async fn let_time_pass() {
    tokio::time::pause();
    tokio::time::advance(TOO_LONG).await;
}

#[async_trait]
impl Repository for Contested {
    fn name(&self) -> &'static str {
        self.store.name()
    }
    async fn get(&self, key: &DocumentKey) -> Result<FoundDocument, StoreError> {
        self.check_readable()?;
        self.store.get(key).await
    }
    async fn get_for_update(&self, key: &DocumentKey) -> Result<Current, StoreError> {
        self.check_readable()?;
        *self.reads.lock().unwrap().entry(key.clone()).or_default() += 1;
        self.store.get_for_update(key).await
    }
    async fn list(&self, kind: Kind, query: &ListQuery) -> Result<ListPage, StoreError> {
        self.store.list(kind, query).await
    }
    async fn commit(
        &self,
        changes: &[Change],
        operation: &Operation,
    ) -> Result<Commit, StoreError> {
        let event = self.events.lock().unwrap().pop_front();
        if let Some(Event::Race(key) | Event::LastRace(key)) = &event {
            self.change(key).await;
        }
        let commit = self.store.commit(changes, operation).await;
        if let Some(Event::LastRace(_) | Event::FailsLate(_)) = &event {
            let_time_pass().await;
        }
        match event {
            Some(Event::Fails(error) | Event::FailsLate(error)) => Err(error),
            Some(Event::Race(_) | Event::LastRace(_)) | None => commit,
        }
    }
    async fn find_commit(&self, operation: &Operation) -> Result<Option<Commit>, StoreError> {
        self.store.find_commit(operation).await
    }
    async fn audit_entries(&self, query: &AuditQuery) -> Result<AuditPage, StoreError> {
        if let Some(id) = &query.entity_id {
            *self
                .histories
                .lock()
                .unwrap()
                .entry(id.clone())
                .or_default() += 1;
        }
        self.store.audit_entries(query).await
    }
    async fn audit_stats(&self) -> Result<AuditStats, StoreError> {
        self.store.audit_stats().await
    }
    async fn revision(&self) -> Result<Revision, StoreError> {
        self.store.revision().await
    }
}

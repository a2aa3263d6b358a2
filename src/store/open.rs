//! Opening the store at a location: which parts it has, and what stands around it.

use std::sync::Arc;

use super::{
    HistoryImport, Location, PlanStore, Repository, ResponseCache, redis::RedisStore,
    resilient::Resilient, snapshot::SnapshotCache, sqlite::SqliteStore,
};

/// A store, ready for use.
pub struct Store {
    /// Documents and the audit log.
    pub repository: Arc<dyn Repository>,
    /// Imports audit entries.
    pub history: Arc<dyn HistoryImport>,
    /// Keeps plans.
    pub plans: Arc<dyn PlanStore>,
    /// The shared cache of REST responses, where the store has one.
    pub responses: Option<Arc<dyn ResponseCache>>,
    /// Of a distant store: answers lists, and reads during an outage.
    pub snapshot: Option<Arc<SnapshotCache>>,
}

/// A store without cache and snapshot.
impl<R: Repository + HistoryImport + PlanStore + 'static> From<Arc<R>> for Store {
    fn from(store: Arc<R>) -> Self {
        Self {
            repository: Arc::clone(&store) as _,
            history: Arc::clone(&store) as _,
            plans: store,
            responses: None,
            snapshot: None,
        }
    }
}

/// Opens the store at `location`. Has to be called within a tokio runtime. Connects on first use,
/// so that a program can start while its store is down.
///
/// # Errors
/// What is wrong with the location.
pub fn open(location: &Location) -> anyhow::Result<Store> {
    Ok(match location {
        Location::Redis {
            write,
            read,
            key_prefix,
        } => {
            let store = RedisStore::new(write.as_ref(), read.as_ref(), key_prefix)?;
            let store = Arc::new(Resilient::new(store));
            Store {
                responses: Some(Arc::clone(&store) as _),
                snapshot: Some(Arc::new(SnapshotCache::new(Arc::clone(&store) as _))),
                ..Store::from(store)
            }
        }
        Location::Sqlite(path) => Store::from(Arc::new(SqliteStore::new(path))),
    })
}

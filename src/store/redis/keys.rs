//! The names of the Redis keys: those of CONTRACT.md, section 4, and our own under `internal:`.

use crate::domain::{ApiPath, DocumentKey, Kind, Operation};

/// The keys of CONTRACT.md, section 4, and those of our own under `internal:`.
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) prefix: String,
}

impl Keys {
    /// Joined without `format!`, which takes twice as long: a commit names a dozen keys.
    fn join(&self, parts: &[&str]) -> String {
        let mut key = String::with_capacity(100);
        key.push_str(&self.prefix);
        key.extend(parts.iter().copied());
        key
    }

    pub(crate) fn document(&self, key: &DocumentKey) -> String {
        self.join(&["data:", key.kind.plural(), ":", &key.id])
    }

    pub(crate) fn index(&self, name: &str, kind: Kind) -> String {
        self.join(&["index:", name, ":", kind.plural()])
    }

    pub(crate) fn cache(&self, kind: Kind) -> String {
        self.join(&["cache:api:", kind.plural()])
    }

    pub(crate) fn cache_of(&self, key: &DocumentKey) -> String {
        self.join(&["cache:api:", key.kind.plural(), ":", &key.id])
    }

    pub(crate) fn cached_response(&self, path: &ApiPath) -> String {
        match path {
            ApiPath::All(kind) => self.cache(*kind),
            ApiPath::One(key) => self.cache_of(key),
        }
    }

    pub(crate) fn entries(&self) -> String {
        self.join(&["audit:entries"])
    }

    pub(crate) fn stats(&self) -> String {
        self.join(&["audit:stats"])
    }

    /// Says how documents and log are laid out.
    pub(crate) fn schema_version(&self) -> String {
        self.join(&["meta:schema:version"])
    }

    pub(crate) fn internal(&self, name: &str) -> String {
        self.join(&["internal:", name])
    }

    /// Holds what identifies the history of this program's writes.
    pub(crate) fn history(&self) -> String {
        self.internal("history")
    }

    /// Holds where the entries of each document are in the log, and where those of each audit id are.
    pub(crate) fn history_index(&self) -> String {
        self.internal("history-index")
    }

    /// Tells which entries are at the ends of the log, as far as the history index knows.
    pub(crate) fn history_index_ends(&self) -> String {
        self.internal("history-index:ends")
    }

    /// Names the server that adds to the history index what it lacks.
    pub(crate) fn history_index_lock(&self) -> String {
        self.internal("history-index:lock")
    }

    /// Holds how far the log was read for that.
    pub(crate) fn history_index_position(&self) -> String {
        self.internal("history-index:position")
    }

    /// Holds the plans, by their ids.
    pub(crate) fn plans(&self) -> String {
        self.internal("plans")
    }

    /// Holds when each plan was made.
    pub(crate) fn plan_times(&self) -> String {
        self.internal("plans:times")
    }

    pub(crate) fn latest(&self, key: &DocumentKey) -> String {
        self.join(&["internal:latest:", key.kind.plural(), ":", &key.id])
    }

    /// Holds the checksum of a document after its newest entry of this program.
    pub(crate) fn checksum(&self, key: &DocumentKey) -> String {
        self.join(&["internal:checksum:", key.kind.plural(), ":", &key.id])
    }

    pub(crate) fn idempotency_record(&self, operation: &Operation) -> String {
        self.join(&["internal:operation:", operation.key()])
    }
}

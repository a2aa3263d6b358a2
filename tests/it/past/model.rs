//! Random writes, after each of which the whole content is kept: `asOf` each of them gives exactly
//! that, by audit id and by time, while others go on writing.

use std::{collections::BTreeMap, env, sync::Arc, time::Duration};

use portfolio_mcp::{
    deadline::Deadline,
    domain::{Change, DocumentKey, Kind, ListQuery, PointInTime, Record, StoredEntry, Timestamp},
    service::{ContentService, Error, LogPoint},
    store::{self, Repository},
};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::{
    support::{
        fixtures::{change, creation, document, now, once, try_update, write_context},
        stores::Store,
    },
    undo::model::Generator,
};

const DOCUMENTS: usize = 12;

type Content = BTreeMap<DocumentKey, Record>;

fn number(variable: &str, default: usize) -> usize {
    env::var(variable).map_or(default, |wanted| wanted.parse().unwrap())
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_mins(1))
}

/// The content after an entry.
struct Moment {
    audit_id: String,
    time: Timestamp,
    content: Content,
}

/// A store that is written to at random, and what it held after each write.
struct Written<'a> {
    repository: &'a dyn Repository,
    generator: Generator,
    content: Content,
    moments: Vec<Moment>,
}

impl<'a> Written<'a> {
    fn new(repository: &'a dyn Repository, seed: u64) -> Self {
        Self {
            repository,
            generator: Generator::new(seed),
            content: Content::new(),
            moments: Vec::new(),
        }
    }

    fn key(&mut self) -> DocumentKey {
        let number = self.generator.below(DOCUMENTS);
        let kind = Kind::ALL[usize::from(number.is_multiple_of(3))];
        DocumentKey::new(kind, format!("page-{number}"))
    }

    async fn change(&mut self, key: &DocumentKey) -> Option<Change> {
        let current = self.repository.get_for_update(key).await.unwrap();
        let Some(record) = current.record() else {
            let created = document(key.kind, &key.id);
            return Change::put(&current, &created, write_context(&once()));
        };
        if self.generator.is_one_in(8) {
            return Change::delete(&current, write_context(&once()));
        }
        let patch = match key.kind {
            Kind::Project => self.generator.patch(record.document()),
            Kind::Resource => json!({
                "title": format!("title {}", self.generator.below(5)),
                "metadata": { "status": (["draft", "published"][self.generator.below(2)]) },
            }),
        };
        let context = write_context(&once());
        let update = Change::update(&current, patch.as_object().unwrap(), &[], context);
        match update.unwrap() {
            portfolio_mcp::domain::Update::Change(change, _) => Some(*change),
            _ => None,
        }
    }

    /// Writes one document or several together; returns how many.
    async fn write(&mut self) -> usize {
        let mut changes: Vec<Change> = Vec::new();
        for _ in 0..=self.generator.below(2) {
            let key = self.key();
            if changes.iter().all(|change| *change.key() != key) {
                changes.extend(self.change(&key).await);
            }
        }
        if changes.is_empty() {
            return 0;
        }
        let commit = self.repository.commit(&changes, &once()).await.unwrap();
        for (change, entry) in changes.iter().zip(&commit.entries) {
            match change.next() {
                Some(next) => self.content.insert(change.key().clone(), next.clone()),
                None => self.content.remove(change.key()),
            };
            self.moments.push(Moment {
                audit_id: entry.text_of("id").unwrap().to_owned(),
                time: entry.timestamp().unwrap(),
                content: self.content.clone(),
            });
        }
        changes.len()
    }
}

async fn content_at(service: &ContentService, point: &LogPoint) -> Content {
    let mut content = Content::new();
    let query = ListQuery {
        limit: usize::MAX,
        ..ListQuery::default()
    };
    for kind in Kind::ALL {
        let past = service.list_as_of(kind, &query, point, soon()).await;
        let past = past.unwrap();
        assert_eq!(past.unexplained, [], "everything is explained");
        let records = past.page.records.into_iter();
        content.extend(records.map(|record| (record.key().clone(), record)));
    }
    content
}

fn assert_same(found: &Content, expected: &Content, what: &str) {
    let keys = |content: &Content| content.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(found), keys(expected), "{what}");
    for (key, record) in expected {
        assert_eq!(found[key].json(), record.json(), "{key} {what}");
        assert_eq!(found[key].version(), record.version(), "{key} {what}");
    }
}

async fn check_moment(service: &ContentService, moments: &[Moment], number: usize) {
    let moment = &moments[number];
    let by_id = PointInTime::Entry(moment.audit_id.clone());
    let by_time = PointInTime::Time(moment.time);
    let mut same_time = moments.iter().rev();
    let last = same_time.find(|other| other.time == moment.time).unwrap();
    for (point, expected) in [(by_id, &moment.content), (by_time, &last.content)] {
        let what = format!("as of {point:?}");
        let point = service.log_point(&point, "asOf", soon()).await.unwrap();

        let all = content_at(service, &point).await;
        let mut one_by_one = Content::new();
        for number in 0..DOCUMENTS {
            let kind = Kind::ALL[usize::from(number.is_multiple_of(3))];
            let key = DocumentKey::new(kind, format!("page-{number}"));
            match service.get_as_of(key.clone(), &point, soon()).await {
                Ok(record) => drop(one_by_one.insert(key, record)),
                Err(Error::NotThen { gap: None, .. } | Error::NotFound { .. }) => {}
                Err(error) => panic!("{key} {what}: {error}"),
            }
        }

        assert_same(&all, expected, &what);
        assert_same(&one_by_one, expected, &what);
    }
}

/// The differences between two moments, applied to the earlier one, give the later one.
async fn check_differences(service: &ContentService, moments: &[Moment], [a, b]: [usize; 2]) {
    let point = async |number: usize| {
        let point = PointInTime::Entry(moments[number].audit_id.clone());
        service.log_point(&point, "since", soon()).await.unwrap()
    };
    let (since, until) = (point(a.min(b)).await, point(a.max(b)).await);

    let compared = service
        .compare(&Kind::ALL, &since, &until, soon())
        .await
        .unwrap();

    let (before, after) = (&moments[a.min(b)].content, &moments[a.max(b)].content);
    let mut keys: Vec<&DocumentKey> = before.keys().chain(after.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    assert!(compared.unexplained.is_empty());
    for key in keys {
        let mut differences = compared.differences.iter();
        let found = differences.find(|it| it.key == *key);
        let text = |record: Option<&Record>| record.map(|it| it.json().clone());
        if let Some(found) = found {
            assert_eq!(text(found.before.as_ref()), text(before.get(key)), "{key}");
            assert_eq!(text(found.after.as_ref()), text(after.get(key)), "{key}");
        } else {
            let without_times = |record: Option<&Record>| {
                let mut json = text(record).unwrap();
                json["metadata"]["updatedAt"].take();
                json["metadata"]["createdAt"].take();
                json
            };
            let same = [before.get(key), after.get(key)].map(without_times);
            assert_eq!(same[0], same[1], "{key}");
        }
    }
}

/// Goes on writing while there are turns, until `turns` is closed.
async fn go_on_writing(repository: Arc<dyn Repository>, turns: Arc<Semaphore>) {
    let mut title = 0;
    while let Ok(turn) = turns.acquire().await {
        turn.forget();
        for number in 0..DOCUMENTS {
            title += 1;
            let kind = Kind::ALL[usize::from(number.is_multiple_of(3))];
            let key = DocumentKey::new(kind, format!("page-{number}"));
            let current = repository.get_for_update(&key).await.unwrap();
            if current.record().is_some() {
                let patch = json!({ "title": format!("later {title}") });
                try_update(&*repository, &key, patch).await.unwrap();
            }
        }
    }
}

async fn check_store(store: &Store, service: ContentService, seed: u64) {
    let mut written = Written::new(&*store.repository, seed);
    let (writes, checks) = (number("PAST_WRITES", 1000), number("PAST_CHECKS", 5));
    let mut count = 0;
    while count < writes {
        count += written.write().await;
    }
    let Written {
        moments,
        mut generator,
        ..
    } = written;
    let turns = Arc::new(Semaphore::new(0));
    let others = tokio::spawn(go_on_writing(store.another(), Arc::clone(&turns)));

    for _ in 0..checks {
        // Enough for as long as a check takes, and less than can be gone back over.
        turns.add_permits(8000 / (DOCUMENTS * checks));
        check_moment(&service, &moments, generator.below(moments.len())).await;
        let pair = [0; 2].map(|_| generator.below(moments.len()));
        check_differences(&service, &moments, pair).await;
    }

    turns.close();
    others.await.unwrap();
    store.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_redis_the_content_after_every_write_can_be_read_while_others_write() {
    let store = Store::redis();
    let with_snapshot = ContentService::new(store.open(), now);
    check_store(&store, with_snapshot, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_redis_without_a_snapshot_too() {
    let store = Store::redis();
    let parts = store::Store {
        snapshot: None,
        ..store.open()
    };
    check_store(&store, ContentService::new(parts, now), 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_sqlite_the_content_after_every_write_can_be_read_while_others_write() {
    let store = Store::sqlite();
    check_store(&store, ContentService::new(store.open(), now), 3).await;
}

#[tokio::test]
async fn a_document_that_was_read_before_newer_entries_goes_back_from_where_it_was_read() {
    let store = Store::sqlite();
    let repository = &*store.repository;
    let key = DocumentKey::new(Kind::Project, "a");
    let created = repository
        .commit(&[creation(&key, &document(key.kind, "a"))], &once())
        .await
        .unwrap();
    let mut entries: Vec<StoredEntry> = created.entries;
    let mut read = vec![repository.get(&key).await.unwrap()];
    for title in ["b", "c", "d"] {
        let change = change(repository, &key, json!({ "title": title })).await;
        entries.extend(repository.commit(&[change], &once()).await.unwrap().entries);
        read.push(repository.get(&key).await.unwrap());
    }
    entries.reverse();

    for found in &read {
        for point in 0..entries.len() {
            let mut rewind = portfolio_mcp::domain::Rewind::from_stored(key.clone(), found.clone());
            for entry in &entries[..point] {
                rewind.go_back_over(entry);
            }
            let state = rewind.finish(entries.get(point));

            let then = &read[read.len() - 1 - point];
            let is_later = read.iter().position(|it| std::ptr::eq(it, found)).unwrap()
                < read.len() - 1 - point;
            match state {
                portfolio_mcp::domain::PastState::Document(record) => {
                    assert_eq!(record.version(), then.record.as_ref().unwrap().version());
                }
                // A point after the document was read is not asked for.
                other => assert!(is_later, "{other:?}"),
            }
        }
    }
    store.assert_sound().await;
}

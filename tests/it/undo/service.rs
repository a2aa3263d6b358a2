//! Random histories of three actors over ten documents, undone through the service on both stores.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use portfolio_mcp::{
    deadline::Deadline,
    domain::{Creations, DocumentKey, Origin, Source, StoredEntry},
    service::{ContentService, Mode, Selection, UndoRequest, UpdateRequest},
    store::{self, Repository},
};

use super::{
    model::{Expected, Generator, assert_expected, assert_kept, sequences},
    page::without_times,
    reference::Reference,
};
use crate::support::{
    fixtures::{Document, creation, now, object, once, project, project_key},
    stores::Store,
};

const DOCUMENTS: usize = 10;
const STEPS: usize = 15;
/// How many sequences are in one store, so that its log stays short.
const PER_STORE: u64 = 200;

pub(crate) fn soon() -> Deadline {
    Deadline::after(Duration::from_mins(1))
}

pub(crate) fn origin(actor: &str) -> Origin {
    Origin {
        actor: Some(actor.to_owned()),
        transport: Some("stdio"),
        ..Origin::new(Source::Mcp)
    }
}

/// The service on a store, without a snapshot of it.
pub(crate) fn service_on(store: &Store) -> Arc<ContentService> {
    let parts = store::Store {
        snapshot: None,
        ..store.open()
    };
    Arc::new(ContentService::new(parts, now))
}

/// A request to undo what is selected.
pub(crate) fn undo_of(selection: Selection) -> UndoRequest {
    UndoRequest {
        selection,
        creations: Creations::Keep,
        expected_versions: [].into(),
        mode: Mode::Commit,
        idempotency_key: None,
        origin: origin("undo"),
    }
}

/// A request to change fields.
pub(crate) fn update_of(key: &DocumentKey, actor: &str, patch: serde_json::Value) -> UpdateRequest {
    UpdateRequest {
        key: key.clone(),
        patch: object(patch),
        edits: Vec::new(),
        expected_version: None,
        mode: Mode::Commit,
        idempotency_key: None,
        origin: origin(actor),
    }
}

/// A document, and what the reference knows of it.
struct Page {
    key: DocumentKey,
    reference: Reference,
}

/// Ten documents of a store.
struct TestedPages<'a> {
    service: &'a ContentService,
    repository: &'a dyn Repository,
    all: Vec<Page>,
    /// Who wrote which change, in their order.
    written: Vec<(&'static str, String)>,
}

impl<'a> TestedPages<'a> {
    async fn new(service: &'a ContentService, store: &'a Store, seed: u64) -> Self {
        let keys = (0..DOCUMENTS).map(|number| project_key(&format!("page-{seed}-{number}")));
        let pages: Vec<Page> = keys
            .map(|key| Page {
                reference: Reference::new(&project(&key.id)),
                key,
            })
            .collect();
        let creations: Vec<_> = pages
            .iter()
            .map(|page| creation(&page.key, &project(&page.key.id)))
            .collect();
        store.repository.commit(&creations, &once()).await.unwrap();
        Self {
            service,
            repository: &*store.repository,
            all: pages,
            written: Vec::new(),
        }
    }

    async fn document(&self, number: usize) -> Document {
        let found = self.repository.get(&self.all[number].key).await.unwrap();
        found.record.unwrap().document().clone()
    }

    async fn documents(&self) -> Vec<Document> {
        let mut documents = Vec::new();
        for number in 0..DOCUMENTS {
            documents.push(self.document(number).await);
        }
        documents
    }

    async fn note(&mut self, number: usize, actor: &'static str, expected: &Expected) {
        let document = self.document(number).await;
        let page = &mut self.all[number];
        let current = self.repository.get_for_update(&page.key).await.unwrap();
        let entry = StoredEntry::parse(current.latest_entry().unwrap().to_owned());
        let reverts: Vec<String> = entry.reverts().map(ToOwned::to_owned).collect();
        page.reference.record(&entry, &document, &reverts, expected);
        let id = entry.text_of("id").unwrap().to_owned();
        self.written.push((actor, id));
    }

    async fn update(&mut self, generator: &mut Generator) {
        let (number, actor) = (generator.below(DOCUMENTS), generator.actor());
        let patch = generator.patch(&self.document(number).await);
        let request = update_of(&self.all[number].key, actor, patch);
        let updated = self.service.update(request, soon()).await.unwrap();
        if updated.audit_id.is_some() {
            self.note(number, actor, &Vec::new()).await;
        }
    }

    /// Undoes changes as the reference expects; gives the audit ids.
    async fn undo(&mut self, actor: &'static str, ids: &BTreeSet<String>) -> BTreeSet<String> {
        let before = self.documents().await;
        let expected: Vec<Expected> = self
            .all
            .iter()
            .map(|page| page.reference.expected(ids))
            .collect();
        let request = undo_of(Selection::Entries(ids.clone()));

        let undone = self.service.undo(request, soon()).await.unwrap();

        let mut written = BTreeSet::new();
        for (number, (before, expected)) in before.iter().zip(&expected).enumerate() {
            let key = self.all[number].key.clone();
            assert_expected(before, &self.document(number).await, expected);
            let kept = undone.kept.iter().filter(|(of, _)| *of == key);
            let kept: Vec<_> = kept.map(|(_, kept)| kept.clone()).collect();
            assert_kept(&kept, expected);
            if let Some(document) = undone.documents.iter().find(|it| it.key == key) {
                written.extend(document.audit_id.clone());
                self.note(number, actor, expected).await;
            }
        }
        written
    }

    async fn step(&mut self, generator: &mut Generator) {
        let ids = generator.choose(&self.written);
        if ids.is_empty() || !generator.is_one_in(3) {
            return self.update(generator).await;
        }
        let times_aside = |documents: Vec<Document>| -> Vec<_> {
            documents.iter().map(|it| without_times(Some(it))).collect()
        };
        let before = times_aside(self.documents().await);
        let written = self.undo(generator.actor(), &ids).await;
        if !written.is_empty() && generator.is_one_in(2) {
            self.undo(generator.actor(), &written).await;
            assert_eq!(times_aside(self.documents().await), before, "undone twice");
        }
    }
}

async fn run_on(store: &Store, seeds: impl Iterator<Item = u64>) {
    let service = service_on(store);
    for seed in seeds {
        println!("{store}: seed {seed}");
        let mut generator = Generator::new(seed);
        let mut site = TestedPages::new(&service, store, seed).await;
        for _ in 0..STEPS {
            site.step(&mut generator).await;
        }
    }
    store.assert_sound().await;
}

#[tokio::test]
async fn on_both_stores_any_history_undone_in_any_order_is_what_the_reference_expects() {
    let count = sequences(PER_STORE);
    for first in (0..count).step_by(usize::try_from(PER_STORE).unwrap()) {
        let seeds = first..count.min(first + PER_STORE);
        run_on(&Store::redis(), seeds.clone()).await;
        run_on(&Store::sqlite(), seeds).await;
    }
}

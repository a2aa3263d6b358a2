//! Random histories of three actors, undone in any order, compared with the plain reference.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
};

use fastrand::Rng;
use portfolio_mcp::domain::{Kept, StoredEntry, Undo, diff::diff};
use serde_json::{Value, json};

use super::{
    page::{Page, without_times},
    reference::{Becomes, FIELDS, Recorded, Reference, value},
};
use crate::support::fixtures::{Document, with};

pub(crate) const ACTORS: [&str; 3] = ["AI", "Marie", "Zoé"];

const STEPS: usize = 30;

/// How many random sequences a test tries, unless `UNDO_SEQUENCES` says so.
pub(crate) fn sequences(count: u64) -> u64 {
    let wanted = env::var("UNDO_SEQUENCES").ok();
    wanted.map_or(count, |wanted| wanted.parse().unwrap())
}

/// Makes the model's changes.
pub(crate) struct Generator {
    random: Rng,
    fresh: usize,
}

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: Rng::with_seed(seed),
            fresh: 0,
        }
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.random.usize(..end)
    }

    pub(crate) fn is_one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub(crate) fn actor(&mut self) -> &'static str {
        ACTORS[self.below(ACTORS.len())]
    }

    /// Few values for most fields, so that they come back by chance; new elements for lists.
    pub(crate) fn patch(&mut self, document: &Document) -> Value {
        let mut patch = json!({});
        for _ in 0..=self.below(3) {
            let field = FIELDS[self.below(FIELDS.len())];
            let number = self.below(4);
            let change = match field {
                "title" | "result" => json!({ field: format!("{field} {number}") }),
                "client.size" => json!({ "client": { "size": format!("{number} people") } }),
                "client.type" => json!({ "client": { "type": format!("type {number}") } }),
                "metadata.status" => {
                    json!({ "metadata": { "status": (["draft", "published", "archived"][number % 3]) } })
                }
                "insight.resourceLink" => self.link(document, number),
                _ => json!({ field: self.list(document, field) }),
            };
            patch = Value::Object(with(patch.as_object().unwrap(), change));
        }
        patch
    }

    /// A link that comes, goes, or changes in one member.
    fn link(&mut self, document: &Document, number: usize) -> Value {
        let link = match value(document, "insight.resourceLink") {
            Some(_) if self.is_one_in(2) => Value::Null,
            Some(_) => json!({ "url": format!("/{number}") }),
            None => json!({ "text": format!("Guide {number}"), "url": format!("/{number}") }),
        };
        json!({ "insight": { "resourceLink": link } })
    }

    /// A list with one or two elements more, less, or replaced.
    fn list(&mut self, document: &Document, field: &str) -> Value {
        let list = value(document, field).unwrap_or_else(|| json!([]));
        let mut list = list.as_array().unwrap().clone();
        for _ in 0..=self.below(2) {
            let at = self.below(list.len() + 1);
            self.fresh += 1;
            let fresh = json!(format!("new {}", self.fresh));
            match self.below(3) {
                0 if at < list.len() => {
                    list.remove(at);
                }
                1 if at < list.len() => list[at] = fresh,
                _ if list.len() < 10 => list.insert(at, fresh),
                _ => {}
            }
        }
        Value::Array(list)
    }

    /// All that an actor did since some time, or some changes, undos among them.
    pub(crate) fn choose(&mut self, written: &[(&str, String)]) -> BTreeSet<String> {
        if written.is_empty() {
            return BTreeSet::new();
        }
        if self.is_one_in(2) {
            let (actor, since) = (self.actor(), self.below(written.len()));
            let since = written[since..].iter();
            let by = since.filter(|(writer, _)| *writer == actor);
            return by.map(|(_, id)| id.clone()).collect();
        }
        (0..=self.below(3))
            .map(|_| written[self.below(written.len())].1.clone())
            .collect()
    }
}

/// What the reference says of each field.
pub(crate) type Expected = Vec<(&'static str, Becomes)>;

/// The fields that the model changes of which a change is a part.
pub(crate) fn fields_of<'a>(changed: impl Iterator<Item = &'a str>) -> BTreeSet<&'static str> {
    let changed: Vec<&str> = changed.collect();
    let is_within = |path: &str, field: &str| {
        path.strip_prefix(field)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let mut fields: BTreeSet<&'static str> = FIELDS.into();
    fields.retain(|field| changed.iter().any(|path| is_within(path, field)));
    fields
}

impl Reference {
    pub(crate) fn new(document: &Document) -> Self {
        Self {
            states: vec![document.clone()],
            changes: Vec::new(),
        }
    }

    pub(crate) fn expected(&self, ids: &BTreeSet<String>) -> Expected {
        FIELDS
            .into_iter()
            .map(|field| (field, self.without(field, ids)))
            .collect()
    }

    /// Records a change that was made; `undone` and `expected` are empty unless it was an undo.
    pub(crate) fn record(
        &mut self,
        entry: &StoredEntry,
        document: &Document,
        undone: &[String],
        expected: &[(&'static str, Becomes)],
    ) {
        let merged = expected.iter().filter(|(_, becomes)| becomes.is_merged);
        self.changes.push(Recorded {
            id: entry.text_of("id").unwrap().to_owned(),
            fields: fields_of(entry.changed_fields()),
            reverts: undone.iter().cloned().collect(),
            merged: merged.map(|(field, _)| *field).collect(),
        });
        self.states.push(document.clone());
    }
}

/// Fails unless a document is what the reference expects, and everything else in it is as before.
pub(crate) fn assert_expected(before: &Document, after: &Document, expected: &Expected) {
    let found: Vec<_> = FIELDS.map(|field| value(after, field)).into();
    let wanted: Vec<_> = expected
        .iter()
        .map(|(_, becomes)| becomes.value.clone())
        .collect();
    for ((field, found), wanted) in FIELDS.iter().zip(&found).zip(&wanted) {
        assert_eq!(found, wanted, "{field}");
    }
    let changed = diff(before, after);
    let changed = changed.iter().map(|change| change.field.as_str());
    for field in changed {
        assert!(
            field.starts_with("metadata.updatedAt") || !fields_of([field].into_iter()).is_empty(),
            "{field} was changed too"
        );
    }
}

/// Fails unless the kept fields are those that the reference names, each with the last change.
pub(crate) fn assert_kept(kept: &[Kept], expected: &Expected) {
    let found = kept.iter().map(|kept| {
        let fields = fields_of([kept.field.as_str()].into_iter());
        (*fields.first().unwrap(), kept.audit_id.clone().unwrap())
    });
    let wanted = expected
        .iter()
        .filter_map(|(field, becomes)| Some((*field, becomes.kept_by.clone()?)));
    assert_eq!(
        found.collect::<BTreeMap<_, _>>(),
        wanted.collect::<BTreeMap<_, _>>(),
        "what is kept"
    );
}

/// One document's random history.
struct Sequence {
    page: Page,
    reference: Reference,
    /// Who wrote which change, in their order.
    written: Vec<(&'static str, String)>,
}

impl Sequence {
    fn new() -> Self {
        let page = Page::project();
        Self {
            reference: Reference::new(page.document().unwrap()),
            page,
            written: Vec::new(),
        }
    }

    fn update(&mut self, generator: &mut Generator) {
        let actor = generator.actor();
        let patch = generator.patch(self.page.document().unwrap());
        if let Some(id) = self.page.try_update(actor, patch) {
            self.note(actor, id, &[], &Vec::new());
        }
    }

    fn note(&mut self, actor: &'static str, id: String, undone: &[String], expected: &Expected) {
        let document = self.page.document().unwrap();
        self.reference
            .record(&self.page.log[0], document, undone, expected);
        self.written.push((actor, id));
    }

    /// Undoes changes as the reference expects; gives the audit id.
    fn undo(&mut self, actor: &'static str, ids: &BTreeSet<String>) -> Option<String> {
        let before = self.page.document().unwrap().clone();
        let expected = self.reference.expected(ids);
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let (undo, id): (Undo, _) = self.page.undo(&ids);
        assert_expected(&before, self.page.document().unwrap(), &expected);
        assert_kept(&undo.kept, &expected);
        assert_eq!(id.is_some(), undo.counts.undone > 0);
        if let Some(id) = &id {
            self.note(actor, id.clone(), &undo.reverts, &expected);
        }
        id
    }

    fn step(&mut self, generator: &mut Generator) {
        if !generator.is_one_in(3) {
            return self.update(generator);
        }
        let before = without_times(self.page.document());
        let ids = generator.choose(&self.written);
        let Some(id) = self.undo(generator.actor(), &ids) else {
            return;
        };
        if generator.is_one_in(2) {
            self.undo(generator.actor(), &[id].into());
            assert_eq!(without_times(self.page.document()), before, "undone twice");
        }
    }
}

#[test]
fn any_history_undone_in_any_order_is_what_the_reference_expects() {
    for seed in 0..sequences(200) {
        println!("seed {seed}");
        let mut generator = Generator::new(seed);
        let mut sequence = Sequence::new();
        for _ in 0..STEPS {
            sequence.step(&mut generator);
        }
    }
}

//! Undoing changes: what a document would be if they had never been made.
//!
//! Its log tells, entry by entry, who gave which field which value. A change of a field is undone
//! unless a later change of the same field stays; then the field stays too, and is named. A field
//! and the fields above or below it are one field here. What an earlier undo undid, and that undo,
//! count as not made; a list is merged where later changes left the undone part of it alone.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{
    audit::StoredEntry,
    diff::{self, FieldChange},
    field_path::{is_within, overlap},
    record::Record,
};

mod effect;
mod fate;
mod list;
pub(in crate::domain) mod state;
pub(in crate::domain) mod step;
mod timeline;

pub use timeline::Timeline;

use fate::{Fate, Fates, Reach};
use state::{State, TIMES, differences};
use step::{Item, Role};
use timeline::{Outcome, topmost};

/// What undoing leads to.
#[derive(Debug)]
pub struct Undo {
    /// The document as it would be; `None` if there would be none.
    pub document: Option<Map<String, Value>>,
    /// The ids of the entries of which something goes back.
    pub reverts: Vec<String>,
    /// The fields that stay.
    pub kept: Vec<Kept>,
    /// The fields, counted.
    pub counts: UndoCounts,
}

/// A field that stays although a change of it was to be undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its path; empty for the whole document.
    pub field: String,
    /// The last change of the field, or the creation that is not undone.
    pub audit_id: Option<String>,
    /// Who made it.
    pub actor: Option<String>,
    /// With which client.
    pub client_id: Option<String>,
    /// When.
    pub timestamp: Option<String>,
    /// Whether it stays because to undo its creation would delete the document.
    pub is_creation: bool,
}

/// What becomes of the fields whose changes are to be undone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UndoCounts {
    /// They go back.
    pub undone: usize,
    /// A later change keeps them.
    pub kept: usize,
    /// They have the value already.
    pub already_gone: usize,
}

impl UndoCounts {
    /// Adds those of another document.
    pub fn add(&mut self, other: Self) {
        self.undone += other.undone;
        self.kept += other.kept;
        self.already_gone += other.already_gone;
    }
}

/// Whether undoing the creation of a document deletes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creations {
    /// The document stays.
    Keep,
    /// The document is deleted.
    Undo,
}

impl Timeline<'_> {
    /// What undoing the entries with these ids leads to. Ids that are not in the timeline are left
    /// out.
    #[must_use]
    pub fn undo(&self, audit_ids: &BTreeSet<String>, creations: Creations) -> Undo {
        let mut undone = self.numbers_of(audit_ids);
        let now = self.without(&BTreeSet::new(), Reach::All).state;
        let mut outcome = self.without(&undone, Reach::All);
        let mut kept = Vec::new();
        if creations == Creations::Keep && now.is_some() && outcome.state.is_none() {
            for number in self.creations_among(&undone) {
                undone.remove(&number);
                kept.extend(self.kept(number, "", true));
            }
            outcome = self.without(&undone, Reach::All);
        }
        self.report(&undone, &now, outcome, kept)
    }

    /// The entries among these that made a document where there was none.
    fn creations_among(&self, entries: &BTreeSet<usize>) -> BTreeSet<usize> {
        let creations = self
            .items
            .iter()
            .filter(|item| item.path.is_empty() && item.old.is_none());
        let numbers = creations.map(|item| item.entry);
        numbers.filter(|number| entries.contains(number)).collect()
    }

    /// What the outcome of undoing these entries is; `kept` are the creations that are not undone.
    fn report(
        &self,
        undone: &BTreeSet<usize>,
        now: &State,
        outcome: Outcome,
        mut kept: Vec<Kept>,
    ) -> Undo {
        let changes = differences(now, &outcome.state);
        let items = outcome.fates.of_each(&self.items);
        let asked: Vec<Asked<'_>> = items
            .filter(|(_, item, _)| undone.contains(&item.entry) && item.role != Role::ServerSet)
            .map(|(number, item, fate)| Asked {
                number,
                path: &item.path,
                entry: item.entry,
                fate,
            })
            .collect();
        let fields = Fields::of(&asked, &changes);
        kept.extend(self.staying(&asked, &outcome.fates));
        let stays = |path: &str| kept.iter().any(|kept| is_within(path, &kept.field));
        let reverted = asked.iter().filter(|asked| {
            fields.change(asked.path) && !(matches!(asked.fate, Fate::Kept(_)) && stays(asked.path))
        });
        let already = asked.iter().map(|asked| asked.path);
        let already = already.filter(|path| !fields.change(path) && !stays(path));
        Undo {
            reverts: self.ids_of(&reverted.map(|asked| asked.entry).collect()),
            counts: UndoCounts {
                undone: changes.iter().map(fields_of).sum(),
                kept: kept.len(),
                already_gone: topmost(already).len(),
            },
            document: self.next(&changes, outcome.state),
            kept,
        }
    }

    /// The fields that later changes keep, each with the last of them that somebody made.
    fn staying(&self, asked: &[Asked<'_>], fates: &Fates) -> Vec<Kept> {
        let staying = asked.iter().filter_map(|asked| match asked.fate {
            Fate::Kept(last) if !self.goes_back(fates, asked.path, last) => {
                Some((asked.path, self.last_made(fates, asked, last)))
            }
            Fate::Kept(_) | Fate::Stands | Fate::Gone | Fate::GoneBefore | Fate::Merged => None,
        });
        let staying: Vec<(&str, usize)> = staying.collect();
        let last_within = |field: &str| {
            let within = staying.iter().filter(|(path, _)| is_within(path, field));
            self.items.get(within.map(|(_, last)| *last).max()?)
        };
        topmost(staying.iter().map(|(path, _)| *path))
            .into_iter()
            .filter_map(|field| self.kept(last_within(field)?.entry, field, false))
            .collect()
    }

    /// The last change of a field that somebody made; an undo within a list, which is `last`, stands
    /// for nobody's, unless it alone keeps the field.
    fn last_made(&self, fates: &Fates, asked: &Asked<'_>, last: usize) -> usize {
        let is_merge = |number| {
            let item = self.items.get(number);
            item.is_some_and(|item: &Item| item.role == Role::Merge)
        };
        if !is_merge(last) {
            return last;
        }
        let mut later = fates.of_each_from(asked.number + 1, &self.items);
        let made = later.rfind(|(_, item, fate)| {
            item.role == Role::Content && *fate == Fate::Stands && overlap(&item.path, asked.path)
        });
        made.map_or(last, |(number, ..)| number)
    }

    /// The document with these changes; its members stay in their order, and its times as they are.
    fn next(&self, changes: &[FieldChange], state: State) -> Option<Map<String, Value>> {
        let Some(Value::Object(undone)) = state else {
            return None;
        };
        let Some(current) = self.current.map(Record::document) else {
            return Some(undone);
        };
        let mut next = diff::apply(current.clone(), changes);
        let times = current.get("metadata").and_then(Value::as_object);
        let metadata = next.entry("metadata").or_insert(Value::Null);
        if metadata.is_null() && times.is_some() {
            *metadata = Value::Object(Map::new());
        }
        if let (Value::Object(metadata), Some(times)) = (metadata, times) {
            for name in TIMES {
                if let Some(time) = times.get(name) {
                    metadata.insert(name.to_owned(), time.clone());
                }
            }
        }
        Some(next)
    }

    fn ids_of(&self, entries: &BTreeSet<usize>) -> Vec<String> {
        let entries = entries
            .iter()
            .filter_map(|number| self.entries.get(*number));
        let ids = entries.filter_map(|entry| entry.text_of("id"));
        ids.map(ToOwned::to_owned).collect()
    }

    fn kept(&self, entry: usize, field: &str, is_creation: bool) -> Option<Kept> {
        let entry: &StoredEntry = self.entries.get(entry)?;
        let text = |text: Option<&str>| text.map(ToOwned::to_owned);
        Some(Kept {
            field: field.to_owned(),
            audit_id: text(entry.text_of("id")),
            actor: text(entry.origin_text("actor")),
            client_id: text(entry.origin_text("clientId")),
            timestamp: entry.timestamp().map(|time| time.to_string()),
            is_creation,
        })
    }
}

/// A change that is to be undone.
struct Asked<'a> {
    number: usize,
    path: &'a str,
    entry: usize,
    fate: Fate,
}

impl Asked<'_> {
    fn is_going(&self) -> bool {
        matches!(self.fate, Fate::Gone | Fate::Merged)
    }
}

/// The fields that go back, each with those above and below it.
struct Fields<'a> {
    fields: Vec<&'a str>,
    changes: &'a [FieldChange],
}

impl<'a> Fields<'a> {
    fn of(asked: &[Asked<'a>], changes: &'a [FieldChange]) -> Self {
        let going = asked.iter().filter(|asked| asked.is_going());
        let going = going.map(|asked| asked.path);
        let back = changes.iter().map(|change| change.field.as_str());
        Self {
            fields: topmost(going.chain(back)),
            changes,
        }
    }

    /// Whether anything changes in the field that `path` is in.
    fn change(&self, path: &str) -> bool {
        let field = self.fields.iter().find(|field| is_within(path, field));
        field.is_some_and(|field| {
            let mut changes = self.changes.iter();
            changes.any(|change| is_within(&change.field, field))
        })
    }
}

/// How many fields a change is: each top-level one of a document that comes or goes whole.
fn fields_of(change: &FieldChange) -> usize {
    match (&change.old_value, &change.new_value) {
        (Some(Value::Object(members)), None) | (None, Some(Value::Object(members)))
            if change.field.is_empty() =>
        {
            members.len()
        }
        _ => 1,
    }
}

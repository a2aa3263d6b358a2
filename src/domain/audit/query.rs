//! Queries of the audit log, their pages, and its statistics.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::stored::{AuditPosition, Category, Slot, StoredEntry, folded};
use crate::domain::{
    field_path::overlap,
    kind::{DocumentKey, Kind},
    timestamp::Timestamp,
};

/// Which entries to return, newest first.
#[derive(Debug, Clone)]
pub struct AuditQuery {
    /// Only of this kind.
    pub kind: Option<Kind>,
    /// Only of this document.
    pub entity_id: Option<String>,
    /// Only entries with one of these audit ids.
    pub audit_ids: Option<BTreeSet<String>>,
    /// Only this action.
    pub action: Option<String>,
    /// Only this source.
    pub source: Option<String>,
    /// Only by this actor.
    pub actor: Option<String>,
    /// Only by this client: its name with its version, or in any version.
    pub client_id: Option<String>,
    /// Only with a change of this field, or of one above or below it.
    pub field: Option<String>,
    /// Not before this instant.
    pub since: Option<Timestamp>,
    /// Before this instant.
    pub until: Option<Timestamp>,
    /// Only entries after this position in the log.
    pub after: Option<AuditPosition>,
    /// How many entries at most.
    pub limit: usize,
    /// How large the page may be, measured with `row_bytes`. One entry alone may be larger.
    pub max_bytes: usize,
    /// What an entry adds to the page: its stored text, unless it is shown in another form.
    pub row_bytes: fn(&StoredEntry) -> usize,
    /// Whether the page is to say when the log begins.
    pub with_log_begins: bool,
}

/// What an index of the log finds without looking through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup<'a> {
    /// The entries with these audit ids.
    AuditIds(&'a BTreeSet<String>),
    /// The entries of a document.
    Document {
        /// Its id.
        id: &'a str,
        /// Its kind; without one, the documents of all kinds with this id.
        kind: Option<Kind>,
    },
}

/// No filter, no limit in bytes, and no entries.
impl Default for AuditQuery {
    fn default() -> Self {
        Self {
            kind: None,
            entity_id: None,
            audit_ids: None,
            action: None,
            source: None,
            actor: None,
            client_id: None,
            field: None,
            since: None,
            until: None,
            after: None,
            limit: 0,
            max_bytes: usize::MAX,
            row_bytes: |entry| entry.text().len(),
            with_log_begins: false,
        }
    }
}

impl AuditQuery {
    /// Whether `entry` matches, apart from its time, which the store compares.
    #[must_use]
    pub fn matches(&self, entry: &StoredEntry) -> bool {
        let is = |category: Category, wanted: Option<&str>| {
            wanted.is_none_or(|wanted| entry.label(category) == Some(wanted))
        };
        is(Category::EntityType, self.kind.map(Kind::singular))
            && is(Category::Action, self.action.as_deref())
            && is(Category::Source, self.source.as_deref())
            && self
                .entity_id
                .as_deref()
                .is_none_or(|id| entry.text_of("entityId") == Some(id))
            && self.audit_ids.as_ref().is_none_or(|ids| {
                let id = entry.text_of("id");
                id.is_some_and(|id| ids.contains(id))
            })
            && self
                .actor
                .as_deref()
                .is_none_or(|actor| entry.origin_text("actor") == Some(actor))
            && self.client_id.as_deref().is_none_or(|wanted| {
                let client = entry.origin_text("clientId");
                client.is_some_and(|client| is_client(client, wanted))
            })
            && self.field.as_deref().is_none_or(|wanted| {
                let mut fields = entry.changed_fields();
                fields.any(|field| overlap(field, wanted))
            })
    }

    /// What an index can find of it; `None` where the log has to be looked through.
    #[must_use]
    pub fn lookup(&self) -> Option<Lookup<'_>> {
        let document = |id| Lookup::Document {
            id,
            kind: self.kind,
        };
        let ids = self.audit_ids.as_ref().map(Lookup::AuditIds);
        ids.or_else(|| self.entity_id.as_deref().map(document))
    }

    /// Whether some of the entries that an index finds may not match, apart from their time.
    #[must_use]
    pub fn is_filtered_beyond_lookup(&self) -> bool {
        let rest = match self.lookup() {
            Some(Lookup::AuditIds(_)) => Self {
                audit_ids: None,
                ..self.clone()
            },
            Some(Lookup::Document { .. }) => Self {
                entity_id: None,
                kind: None,
                ..self.clone()
            },
            None => return self.is_filtered(),
        };
        rest.is_filtered()
    }

    /// Whether some entries may not match, apart from their time.
    #[must_use]
    pub fn is_filtered(&self) -> bool {
        let Self {
            kind,
            entity_id,
            audit_ids,
            action,
            source,
            actor,
            client_id,
            field,
            since: _,
            until: _,
            after: _,
            limit: _,
            max_bytes: _,
            row_bytes: _,
            with_log_begins: _,
        } = self;
        let texts = [entity_id, action, source, actor, client_id, field];
        kind.is_some() || audit_ids.is_some() || texts.into_iter().any(Option::is_some)
    }

    /// The entries of one document.
    #[must_use]
    pub fn of(key: &DocumentKey, limit: usize) -> Self {
        Self {
            kind: Some(key.kind),
            entity_id: Some(key.id.clone()),
            limit,
            ..Self::default()
        }
    }

    /// The entries with these audit ids. An id that is not on the page is in no entry, unless the page
    /// has a [next one](AuditPage::next).
    #[must_use]
    pub fn by_ids(audit_ids: BTreeSet<String>) -> Self {
        Self {
            limit: audit_ids.len(),
            audit_ids: Some(audit_ids),
            ..Self::default()
        }
    }
}

/// Whether a client is the wanted one. What follows its last slash is its version.
fn is_client(client: &str, wanted: &str) -> bool {
    client == wanted
        || client
            .rsplit_once('/')
            .is_some_and(|(name, _)| name == wanted)
}

/// How much of the log was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LookedAt {
    /// How many entries.
    pub entries: usize,
    /// How much stored text they have.
    pub bytes: usize,
}

/// A page of the log, newest first.
#[derive(Debug, Clone, Default)]
pub struct AuditPage {
    /// Where each of the entries is.
    pub slots: Vec<Slot>,
    /// The entries.
    pub entries: Vec<StoredEntry>,
    /// Where the next page begins, when more follow: the position of the last entry that was looked
    /// at, whether it is on the page or not.
    pub next: Option<AuditPosition>,
    /// The time of that entry, when the search ended there because it had looked at enough. The
    /// page may then have any number of entries, or none.
    pub searched_since: Option<Timestamp>,
    /// How many entries were looked at for it, and how much stored text they have.
    pub looked_at: LookedAt,
    /// The time of the log's oldest entry that has one, if that was asked for and is known.
    pub log_begins: Option<Timestamp>,
}

/// The counters of the log.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AuditStats {
    /// How many entries the log holds.
    pub total: u64,
    /// How many of each label, for each of [`Category::ALL`]; labels in alphabetical order.
    pub counts: [BTreeMap<String, u64>; 3],
    /// Whether `counts` disagrees with `total` and is being counted again.
    pub recounting: bool,
}

impl AuditStats {
    /// Reads counters named `action:update` and so on, and whether they disagree with the number of
    /// entries.
    ///
    /// `unlabelled` holds, for each category, how many entries have no label; older programs wrote
    /// such entries.
    #[must_use]
    pub fn from_counters(
        total: u64,
        counters: &HashMap<String, String>,
        unlabelled: &HashMap<String, String>,
    ) -> Self {
        let mut stats = Self {
            total,
            ..Self::default()
        };
        for (category, counts) in Category::ALL.into_iter().zip(&mut stats.counts) {
            let numbers = counters
                .iter()
                .filter_map(|(name, count)| {
                    let label = name.strip_prefix(category.member())?.strip_prefix(':')?;
                    Some((Some(label), count))
                })
                .chain(unlabelled.get(category.member()).map(|count| (None, count)));
            let mut counted = Some(0_u64);
            for (label, count) in numbers {
                let count = count.parse::<u64>().ok();
                counted = counted
                    .zip(count)
                    .and_then(|(sum, count)| sum.checked_add(count));
                if let (Some(label), Some(count @ 1..)) = (label, count) {
                    let known = counts
                        .entry(folded(category, label).to_owned())
                        .or_default();
                    *known = known.saturating_add(count);
                }
            }
            stats.recounting |= counted != Some(total);
        }
        stats
    }

    /// The counters under their names.
    #[must_use]
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let named = |(category, counts): (Category, &BTreeMap<String, u64>)| {
            counts
                .iter()
                .map(|(label, count)| (format!("{}:{label}", category.member()), *count))
                .collect::<Vec<_>>()
        };
        Category::ALL
            .into_iter()
            .zip(&self.counts)
            .flat_map(named)
            .collect()
    }

    /// How many entries have no label, for each of [`Category::ALL`].
    #[must_use]
    pub fn unlabelled(&self) -> [u64; 3] {
        self.counts
            .each_ref()
            .map(|counts| self.total - counts.values().sum::<u64>())
    }

    /// Counts one more entry.
    pub fn count(&mut self, entry: &StoredEntry) {
        self.total += 1;
        for (category, counts) in Category::ALL.into_iter().zip(&mut self.counts) {
            if let Some(label) = entry.label(category) {
                *counts.entry(label.to_owned()).or_default() += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn finds(query: &AuditQuery, entry: &Value) -> bool {
        query.matches(&StoredEntry::parse(entry.to_string()))
    }

    #[test]
    fn a_client_is_found_in_any_version() {
        let by = |client: &str| json!({ "metadata": { "clientId": client } });
        let query = |wanted: &str| AuditQuery {
            client_id: Some(wanted.to_owned()),
            ..AuditQuery::default()
        };

        for (wanted, client, found) in [
            ("claude-code", "claude-code/2.1.0", true),
            ("claude-code", "claude-code", true),
            ("claude-code/2.1.0", "claude-code/2.1.0", true),
            ("claude-code", "claude-code/", true),
            ("@site/tool", "@site/tool/1.0", true),
            ("claude-code/2.1", "claude-code/2.1.0", false),
            ("claude", "claude-code/2.1.0", false),
            ("claude-code/2.1.0", "claude-code", false),
            ("@site", "@site/tool/1.0", false),
            ("Claude-Code", "claude-code/2.1.0", false),
        ] {
            assert_eq!(
                finds(&query(wanted), &by(client)),
                found,
                "{wanted} {client}"
            );
        }
        assert!(!finds(
            &query("claude-code"),
            &json!({ "metadata": "claude-code" })
        ));
        assert!(!finds(
            &query("5"),
            &json!({ "metadata": { "clientId": 5 } })
        ));
    }

    #[test]
    fn a_field_is_found_with_those_above_and_below_it() {
        let changing =
            |field: &str| json!({ "changes": [{ "field": "title" }, { "field": field }] });
        let query = |wanted: &str| AuditQuery {
            field: Some(wanted.to_owned()),
            ..AuditQuery::default()
        };

        for (wanted, field, found) in [
            ("client", "client.size", true),
            ("client.size", "client", true),
            ("client.size", "client.size", true),
            ("client", "", true),
            ("client", "clients", false),
            ("client.size", "client.type", false),
            ("size", "client.size", false),
        ] {
            assert_eq!(
                finds(&query(wanted), &changing(field)),
                found,
                "{wanted} {field}"
            );
        }
    }

    #[test]
    fn entries_of_any_shape_can_be_searched() {
        let query = AuditQuery {
            actor: Some("lise".to_owned()),
            field: Some("metadata.status".to_owned()),
            ..AuditQuery::default()
        };

        for (entry, found) in [
            (
                json!({ "actor": "lise", "changes": { "metadata": { "status": "published" } } }),
                true,
            ),
            (json!({ "actor": "lise", "changes": ["metadata", 5] }), true),
            (
                json!({ "actor": "lise", "changes": { "image": "x" } }),
                false,
            ),
            (
                json!({ "actor": { "name": "lise" }, "changes": ["metadata"] }),
                false,
            ),
            (
                json!({ "actor": "lise", "metadata": { "actor": "marc" }, "changes": ["metadata"] }),
                false,
            ),
            (
                json!({ "actor": "lise", "metadata": null, "changes": null }),
                false,
            ),
            (
                json!({ "actor": "lise", "changes": [{ "field": 5 }, { "field": null }, []] }),
                false,
            ),
            (json!(["lise"]), false),
            (json!("lise"), false),
        ] {
            assert_eq!(finds(&query, &entry), found, "{entry}");
        }
    }
}

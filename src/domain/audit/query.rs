//! Queries of the audit log, their pages, and its statistics.

use std::collections::{BTreeMap, HashMap};

use super::stored::{AuditPosition, Category, StoredEntry, folded};
use crate::domain::{
    kind::{DocumentKey, Kind},
    timestamp::Timestamp,
};

/// Which entries to return, newest first.
#[derive(Debug, Clone, Default)]
pub struct AuditQuery {
    /// Only of this kind.
    pub kind: Option<Kind>,
    /// Only of this document.
    pub entity_id: Option<String>,
    /// Only this action.
    pub action: Option<String>,
    /// Only this source.
    pub source: Option<String>,
    /// Not before this instant.
    pub since: Option<Timestamp>,
    /// Before this instant.
    pub until: Option<Timestamp>,
    /// Only entries after this position in the log.
    pub after: Option<AuditPosition>,
    /// How many entries at most.
    pub limit: usize,
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
}

/// A page of the log, newest first.
#[derive(Debug, Clone, Default)]
pub struct AuditPage {
    /// The entries.
    pub entries: Vec<StoredEntry>,
    /// The position of the last one, when more follow.
    pub next: Option<AuditPosition>,
}

/// The counters of the log.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AuditStats {
    /// How many entries the log holds.
    pub total: u64,
    /// How many of each label, for each of [`Category::ALL`]; labels in alphabetical order.
    pub counts: [BTreeMap<String, u64>; 3],
}

impl AuditStats {
    /// Reads counters named `action:update` and so on; `None` when they disagree with the number of
    /// entries.
    ///
    /// `unlabelled` holds, for each category, how many entries have no label; older programs wrote
    /// such entries.
    #[must_use]
    pub fn from_counters(
        total: u64,
        counters: &HashMap<String, String>,
        unlabelled: &HashMap<String, String>,
    ) -> Option<Self> {
        let mut stats = Self {
            total,
            ..Self::default()
        };
        for (category, counts) in Category::ALL.into_iter().zip(&mut stats.counts) {
            let mut counted: u64 = unlabelled
                .get(category.member())
                .map_or(Some(0), |count| count.parse().ok())?;
            for (name, count) in counters {
                if let Some(label) = name
                    .strip_prefix(category.member())
                    .and_then(|rest| rest.strip_prefix(':'))
                {
                    let count: u64 = count.parse().ok()?;
                    counted = counted.checked_add(count)?;
                    if count > 0 {
                        *counts
                            .entry(folded(category, label).to_owned())
                            .or_default() += count;
                    }
                }
            }
            if counted != total {
                return None;
            }
        }
        Some(stats)
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

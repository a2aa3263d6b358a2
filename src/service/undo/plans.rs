//! What an undo does to all its documents, from one attempt to the next.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};

use super::{
    plan::DocumentPlan,
    request::UndoCall,
    selection::{Selected, refused, unexplained},
};
use crate::{
    domain::DocumentKey,
    service::{ContentService, Error, read::in_time, write::MAX_TEXT_BYTES},
};

/// How many documents are read at once: fewer than the failures in a row that open the circuit
/// breaker, because one lost connection fails all of them.
const CONCURRENT_READS: usize = 4;

/// What an undo does to each document, as far as that is planned.
#[derive(Default)]
pub(super) struct Plans {
    plans: BTreeMap<DocumentKey, DocumentPlan>,
    /// The documents that others changed since they were planned.
    contested: BTreeSet<DocumentKey>,
}

impl Plans {
    pub(super) fn all(&self) -> impl Iterator<Item = &DocumentPlan> {
        self.plans.values()
    }

    pub(super) fn has(&self, key: &DocumentKey) -> bool {
        self.plans.contains_key(key)
    }

    pub(super) fn add(&mut self, plan: DocumentPlan) {
        self.plans.insert(plan.current.key().clone(), plan);
    }

    /// Refuses an undo of too much text.
    pub(super) fn check_size(&self, selected: &Selected) -> Result<(), Error> {
        let bytes: usize = self.all().map(DocumentPlan::bytes).sum();
        if bytes <= MAX_TEXT_BYTES {
            return Ok(());
        }
        let message = format!(
            "expected at most {MAX_TEXT_BYTES} bytes of documents before and after, found {bytes}; undo the changes in parts"
        );
        let argument = selected.argument.unwrap_or("since");
        Err(refused(argument, "size", message))
    }
}

impl ContentService {
    /// Drops the plans of documents that others changed since, so that only these are planned again.
    pub(super) async fn drop_outdated(
        &self,
        call: &UndoCall,
        plans: &mut Plans,
    ) -> Result<(), Error> {
        if plans.plans.is_empty() {
            return Ok(());
        }
        let keys = plans.plans.keys().cloned();
        let (contested, others) = keys.partition(|key| plans.contested.contains(key));
        // Who changed a document changes it again, so the others are asked for only if nobody has.
        let mut outdated = self.outdated(call, plans, contested).await?;
        if outdated.is_empty() {
            outdated = self.outdated(call, plans, others).await?;
        }
        if outdated.is_empty() {
            plans.plans.clear();
        }
        for key in outdated {
            plans.plans.remove(&key);
            plans.contested.insert(key);
        }
        Ok(())
    }

    /// Those of these documents that are not what they were planned from.
    async fn outdated(
        &self,
        call: &UndoCall,
        plans: &Plans,
        keys: Vec<DocumentKey>,
    ) -> Result<Vec<DocumentKey>, Error> {
        let mut reads = Vec::new();
        for key in keys {
            reads.push(async move {
                let current = in_time(call.deadline.run(self.read_stored(&key)).await)?;
                let plan = plans.plans.get(&key);
                let is_planned = plan.is_some_and(|plan| plan.is_from(&current));
                Ok::<_, Error>((!is_planned).then_some(key))
            });
        }
        let keys: Vec<Option<DocumentKey>> = stream::iter(reads)
            .buffered(CONCURRENT_READS)
            .try_collect()
            .await?;
        Ok(keys.into_iter().flatten().collect())
    }

    /// Plans what is not planned yet.
    pub(super) async fn plan_undo(
        &self,
        call: &UndoCall,
        selected: &Selected,
        plans: &mut Plans,
    ) -> Result<(), Error> {
        let mut missing = Vec::new();
        for (key, ids) in &selected.ids {
            if !plans.has(key) {
                missing.push(self.plan_document(call, key, ids));
            }
        }
        let planned: Vec<_> = stream::iter(missing)
            .buffered(CONCURRENT_READS)
            .try_collect()
            .await?;
        let mut violations = Vec::new();
        for plan in planned {
            match plan {
                Ok(plan) => plans.add(plan),
                Err(more) => violations.extend(more),
            }
        }
        if let Some(argument) = selected.argument {
            for plan in plans.all() {
                let ids = plan.unexplained.iter();
                violations.extend(ids.map(|id| unexplained(argument, id, &plan.current)));
            }
        }
        if !violations.is_empty() {
            return Err(Error::Invalid(violations));
        }
        plans.check_size(selected)
    }
}

//! Undoing changes: select entries, read the histories of their documents, plan, commit, report.
//!
//! All documents are changed in one commit. After a lost race the documents that others changed are
//! read and planned again, and the changes of all others stand, so that an undo of many documents wins
//! against somebody who keeps changing one of them.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;
use tokio::time::sleep;

use super::{ContentService, Error, Mode, Updated, read::in_time, update::violations_of};
use crate::{
    deadline::Deadline,
    domain::{Change, DocumentKey, Timestamp, Version},
    store::{Commit, StoreError},
};

mod plan;
mod plans;
mod request;
mod selection;

pub use request::{Selection, UndoRequest, Undone};

use plan::DocumentPlan;
use plans::Plans;
use request::UndoCall;
use selection::Selected;

/// How long an undo may take before its last commit; see "Time budget of a call" in
/// docs/architecture.md.
const UNDO_TIMEOUT: Duration = Duration::from_secs(7);
/// The pause after a lost race, a random part of it.
const BACKOFF: Duration = Duration::from_millis(20);

/// What the attempts of an undo have found so far.
#[derive(Default)]
struct Progress {
    /// What was selected at first. What others write meanwhile is not undone too.
    selected: Option<Selected>,
    plans: Plans,
    changed_outside: BTreeMap<DocumentKey, Timestamp>,
}

/// How one attempt ended.
enum Attempt {
    Done(Undone),
    /// A document, such as this one, is not the one any more that the undo was planned from.
    Again(DocumentKey),
}

impl ContentService {
    /// Undoes changes, or shows what undoing them would change.
    pub async fn undo(&self, request: UndoRequest, deadline: Deadline) -> Result<Undone, Error> {
        self.note_use();
        let call = UndoCall::new(request, deadline.capped(UNDO_TIMEOUT));
        let (mut progress, mut lost_race) = (Progress::default(), None);
        loop {
            let attempt = self.try_undo(&call, &mut progress).await;
            // The same request may have been carried out since the first look: that is why nothing
            // is left to undo, or why a version is another one.
            let may_be_done = match &attempt {
                Ok(Attempt::Done(undone)) => undone.documents.is_empty(),
                Ok(Attempt::Again(_)) => false,
                Err(error) => matches!(error, Error::Conflict { .. }),
            };
            if may_be_done && let Some(commit) = self.earlier_commit(&call).await? {
                return Ok(self.replay_undo(&call, commit).await);
            }
            match attempt {
                Ok(Attempt::Done(undone)) => return Ok(undone),
                Ok(Attempt::Again(key)) => {
                    lost_race = Some(key);
                    sleep(BACKOFF.mul_f64(fastrand::f64())).await;
                }
                Err(error) => {
                    // Then the races took the time, and not a slow store. The outcome of a commit
                    // is never covered up.
                    let is_late = matches!(error, Error::Unavailable { .. } | Error::Busy { .. })
                        && call.deadline.is_within(BACKOFF);
                    return Err(match lost_race {
                        Some(key) if is_late => Error::Conflict {
                            key,
                            current: None,
                            changed_since: Vec::new(),
                            changed_outside: None,
                        },
                        _ => error,
                    });
                }
            }
        }
    }

    async fn try_undo(&self, call: &UndoCall, progress: &mut Progress) -> Result<Attempt, Error> {
        if let Some(commit) = self.earlier_commit(call).await? {
            return Ok(Attempt::Done(self.replay_undo(call, commit).await));
        }
        let selected = match progress.selected.take() {
            Some(selected) => selected,
            None => self.select(&call.request.selection, call.deadline).await?,
        };
        let selected = progress.selected.insert(selected);
        let keys = selected.keys();
        let Some(first) = keys.first().cloned() else {
            return Ok(Attempt::Done(Undone::by(&Plans::default(), selected)));
        };
        let Ok(_turns) = call.deadline.run(self.write_turns(&keys)).await else {
            return Err(Error::Busy { key: first });
        };
        self.drop_outdated(call, &mut progress.plans).await?;
        self.plan_undo(call, selected, &mut progress.plans).await?;
        let found = progress
            .plans
            .all()
            .filter_map(DocumentPlan::changed_outside);
        progress.changed_outside.extend(found);
        let undone = Undone {
            changed_outside: progress.changed_outside.clone(),
            ..Undone::by(&progress.plans, selected)
        };
        let changes = progress.plans.all().filter_map(|plan| plan.change.clone());
        let changes: Vec<Change> = changes.collect();
        if changes.is_empty() || call.request.mode == Mode::DryRun {
            return Ok(Attempt::Done(undone.unwritten(changes)));
        }
        if self.adopt(&changes, call.deadline).await?.is_some() {
            return Ok(Attempt::Again(first));
        }
        match self.commit_in_task(changes, call.operation.clone()).await {
            Ok(commit) if commit.replayed && !undone.is_in(&commit) => {
                Ok(Attempt::Done(self.replay_undo(call, commit).await))
            }
            Ok(_) => Ok(Attempt::Done(undone)),
            Err(StoreError::Conflict) => Ok(Attempt::Again(first)),
            Err(error) => Err(error.into()),
        }
    }

    /// The same for one document, as an update of it.
    pub async fn undo_change(
        &self,
        request: UndoRequest,
        deadline: Deadline,
    ) -> Result<(Updated, Undone), Error> {
        let Selection::EntryOf(key, _) = request.selection.clone() else {
            unreachable!("an update undoes a change of its document")
        };
        let mode = request.mode;
        let mut undone = self.undo(request, deadline).await?;
        let document = undone.documents.pop();
        let changed_outside = undone.changed_outside.get(&key).copied();
        // What was written is known. To read it again could fail, and deny it.
        let (before, record) = if let Some(document) = &document {
            (document.before.clone(), document.record.clone())
        } else {
            let stored = in_time(deadline.run(self.read_stored(&key)).await)?;
            (stored.record().cloned(), stored.record().cloned())
        };
        if record.is_none() && !undone.replayed {
            return Err(self.not_found(key, changed_outside, deadline).await);
        }
        let versioned = match mode {
            Mode::DryRun => before.as_ref().or(record.as_ref()),
            Mode::Commit => record.as_ref(),
        };
        let version = versioned.map(|record| record.version().clone());
        let is_unread = document.as_ref().is_some_and(|it| it.is_unread);
        let (changes, audit_id) =
            document.map_or((json!([]), None), |it| (it.changes, it.audit_id));
        let updated = Updated {
            version,
            changes,
            audit_id,
            replayed: undone.replayed,
            warnings: violations_of(record.as_ref()),
            record,
            is_unread,
            changed_outside,
            planned: undone.planned.pop().map(Box::new),
        };
        Ok((updated, undone))
    }

    /// What the same request did before, if it was carried out.
    ///
    /// Looked up before the documents are read: if the record is missing now and there when the
    /// commit comes, the commit is answered with it.
    async fn earlier_commit(&self, call: &UndoCall) -> Result<Option<Commit>, Error> {
        if call.key_of_write().is_none() {
            return Ok(None);
        }
        let record = call.deadline.run(self.store.find_commit(&call.operation));
        Ok(in_time(record.await)?)
    }

    /// The result of an undo that an earlier call did.
    async fn replay_undo(&self, call: &UndoCall, commit: Commit) -> Undone {
        Undone {
            documents: self.replayed_documents(commit, call.deadline).await,
            replayed: true,
            ..Undone::default()
        }
    }
}

impl Undone {
    fn by(plans: &Plans, selected: &Selected) -> Self {
        let mut undone = Self {
            selected: selected.ids.values().flatten().cloned().collect(),
            unexplained: selected.unexplained,
            ..Self::default()
        };
        for plan in plans.all() {
            let key = plan.current.key();
            undone.unexplained += plan.unexplained.len();
            for id in &plan.unexplained {
                undone.selected.remove(id);
            }
            let version = plan.current.version().map(Version::as_str);
            undone
                .versions
                .insert(key.clone(), version.map(ToOwned::to_owned));
            undone.counts.add(plan.undo.counts);
            let kept = plan.undo.kept.iter().cloned();
            undone.kept.extend(kept.map(|kept| (key.clone(), kept)));
            undone.documents.extend(plan.document());
        }
        undone
    }

    /// The same, of which nothing was written.
    fn unwritten(mut self, changes: Vec<Change>) -> Self {
        self.planned = changes;
        for document in &mut self.documents {
            document.audit_id = None;
        }
        self
    }

    /// Whether a commit wrote this, and not an earlier call.
    fn is_in(&self, commit: &Commit) -> bool {
        let first = self.documents.first().and_then(|it| it.audit_id.as_deref());
        first.is_some_and(|id| commit.has_entry(id))
    }
}

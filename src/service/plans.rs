//! Plans: keeping what a dry run showed, reading it, and applying it exactly as it was shown.
//!
//! Applying needs no record that it was done: it changes the documents that the plan was made from,
//! so it cannot be done twice, and the entries that it writes name the plan.

use std::{collections::BTreeMap, time::Duration};

use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Value, json};
use tracing::warn;
use uuid::Uuid;

use super::{ContentService, Error, Written, WrittenDocument, read::in_time};
use crate::{
    deadline::Deadline,
    domain::{
        AuditQuery, Change, Creations, Current, DocumentKey, Operation, Origin, Plan,
        PlanApplication, PlanReference, PlannedDocument, Source, StoredEntry, Timestamp, Violation,
        WriteContext, audit::MAX_SCANNED_ENTRIES, sha256_hex,
    },
    store::{Commit, StoreError},
};

/// How long applying a plan may take before its last commit; see "Time budget of a call" in
/// docs/architecture.md.
const APPLY_TIMEOUT: Duration = Duration::from_secs(7);
/// How long keeping a plan may take.
const KEEP_TIMEOUT: Duration = Duration::from_secs(2);
/// How many documents are read at once: fewer than the failures in a row that open the circuit
/// breaker, because one lost connection fails all of them.
const CONCURRENT_READS: usize = 4;
/// How many entries of a document are read at first to find those since a plan was made, and then at
/// once, and how much text of them.
const FIRST_ENTRIES_SINCE: usize = 3;
const ENTRIES_SINCE: usize = 200;
const MAX_BYTES_SINCE: usize = 4 * 1024 * 1024;
/// A conflict names this many of the entries that led to it.
const MAX_CHANGED_SINCE: usize = 20;

/// What became of the plan of a dry run.
#[derive(Debug)]
pub enum KeptPlan {
    /// It was kept.
    Kept {
        /// Names it.
        id: String,
        /// From when on it cannot be applied any more.
        expires_at: Timestamp,
    },
    /// It was not kept, for this reason.
    NotKept(String),
}

/// A request to apply a plan.
#[derive(Debug, Clone)]
pub struct ApplyRequest {
    /// Which plan.
    pub plan_id: String,
    /// With which tool; a command applies those of all tools.
    pub tool: Option<&'static str>,
    /// Whether a plan may undo creations, which deletes their documents.
    pub creations: Creations,
    /// The document that the caller names, if the tool changes one.
    pub key: Option<DocumentKey>,
    /// The caller's name for this application, under which it may be repeated.
    pub idempotency_key: Option<String>,
    /// Who asks for it, how and why.
    pub origin: Origin,
}

/// A plan, and the documents that it was made from.
#[derive(Debug)]
pub struct ShownPlan {
    /// The plan.
    pub plan: Plan,
    /// What applying it would do.
    pub documents: Vec<WrittenDocument>,
}

/// One application under way.
struct ApplyCall {
    request: ApplyRequest,
    operation: Operation,
    deadline: Deadline,
}

impl ContentService {
    /// Keeps what a dry run with `tool` showed, so that it can be applied as it was shown.
    pub async fn keep_plan(&self, tool: &str, changes: &[Change], deadline: Deadline) -> KeptPlan {
        let planner = changes
            .first()
            .map(|change| &change.entry().metadata.origin);
        let mut random = [0; 16];
        if let Err(error) = getrandom::fill(&mut random) {
            return KeptPlan::NotKept(format!("the system gave no random numbers: {error}"));
        }
        let plan = Plan {
            reference: PlanReference {
                id: base16ct::lower::encode_string(&random),
                actor: planner.and_then(|planner| planner.actor.clone()),
                client_id: planner.and_then(|planner| planner.client_id.clone()),
                timestamp: self.now(),
            },
            tool: tool.to_owned(),
            documents: changes.iter().map(Change::to_planned).collect(),
        };
        let deadline = deadline.capped(KEEP_TIMEOUT);
        match in_time(deadline.run(self.plans.put_plan(&plan)).await) {
            Ok(()) => KeptPlan::Kept {
                expires_at: plan.expires_at(),
                id: plan.reference.id,
            },
            Err(
                error @ StoreError::ReadOnly {
                    retry_after: None, ..
                },
            ) => {
                warn!("could not keep a plan: {error}");
                KeptPlan::NotKept("this server may not keep plans in its store".to_owned())
            }
            Err(error) => KeptPlan::NotKept(Error::from(error).to_string()),
        }
    }

    /// A plan that can still be applied, and what it would do.
    pub async fn plan(&self, id: &str, deadline: Deadline) -> Result<ShownPlan, Error> {
        let plan = self.find_plan(id, deadline).await?;
        let context = || self.write_context(Origin::new(Source::Admin), apply_once(&plan));
        let changes = self.planned_changes(&plan, context, deadline).await?;
        Ok(ShownPlan {
            documents: changes.iter().map(WrittenDocument::of).collect(),
            plan,
        })
    }

    /// Applies a plan, once.
    pub async fn apply_plan(
        &self,
        request: ApplyRequest,
        deadline: Deadline,
    ) -> Result<Written, Error> {
        self.note_use();
        let call = ApplyCall::new(request, deadline.capped(APPLY_TIMEOUT));
        if let Some(commit) = self.earlier_application(&call).await? {
            return self.replay_application(commit, call.deadline).await;
        }
        let plan = self.find_plan(&call.request.plan_id, call.deadline).await?;
        call.check(&plan)?;
        let keys: Vec<DocumentKey> = plan.documents.iter().map(PlannedDocument::key).collect();
        let Ok(_turns) = call.deadline.run(self.write_turns(&keys)).await else {
            let first = keys.into_iter().next();
            return Err(first.map_or_else(not_found, |key| Error::Busy { key }));
        };
        let mut changed_outside = BTreeMap::new();
        loop {
            let context =
                || self.write_context(call.request.origin.clone(), call.operation.clone());
            let changes = match self.planned_changes(&plan, context, call.deadline).await {
                Ok(changes) => changes,
                // An earlier call with the same key may have been faster than the first look.
                Err(error) => {
                    return match self.earlier_application(&call).await? {
                        Some(commit) => self.replay_application(commit, call.deadline).await,
                        None => Err(error),
                    };
                }
            };
            changed_outside.extend(changes.iter().filter_map(|change| {
                let after = change.current().changed_outside()?;
                Some((change.key().clone(), after))
            }));
            if self.adopt(&changes, call.deadline).await?.is_some() {
                continue;
            }
            let written = Written {
                documents: changes.iter().map(WrittenDocument::of).collect(),
                changed_outside: changed_outside.clone(),
                ..Written::default()
            };
            match self.commit_in_task(changes, call.operation.clone()).await {
                Ok(commit) if commit.replayed && !written.is_in(&commit) => {
                    return self.replay_application(commit, call.deadline).await;
                }
                Ok(_) => return Ok(written),
                // The next reading says who was faster: somebody with the same plan, or with another
                // change. Without time for it, only that somebody was.
                Err(StoreError::Conflict) if call.deadline.is_within(Duration::ZERO) => {
                    return Err(keys.into_iter().next().map_or_else(not_found, lost_race));
                }
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn find_plan(&self, id: &str, deadline: Deadline) -> Result<Plan, Error> {
        let plan = in_time(deadline.run(self.plans.get_plan(id)).await)?;
        plan.filter(|plan| self.now() < plan.expires_at())
            .ok_or_else(not_found)
    }

    /// The changes that a plan makes to its documents as they are stored now. Fails if the plan was
    /// applied, or one of them is not what the plan was made from.
    async fn planned_changes(
        &self,
        plan: &Plan,
        context: impl Fn() -> WriteContext,
        deadline: Deadline,
    ) -> Result<Vec<Change>, Error> {
        let keys: Vec<DocumentKey> = plan.documents.iter().map(PlannedDocument::key).collect();
        let mut reads = Vec::new();
        for key in &keys {
            reads.push(self.read_stored(key));
        }
        let reads = stream::iter(reads).buffered(CONCURRENT_READS);
        let states: Vec<Current> = in_time(deadline.run(reads.try_collect()).await)?;
        let mut changes = Vec::new();
        for (planned, current) in plan.documents.iter().zip(states) {
            let change = Change::planned(&current, planned, &plan.reference, context());
            match change {
                Some(change) => changes.push(change),
                None => return Err(self.plan_problem(plan, planned, &current, deadline).await),
            }
        }
        Ok(changes)
    }

    /// Why a plan cannot be applied to a document that is not what the plan was made from.
    async fn plan_problem(
        &self,
        plan: &Plan,
        planned: &PlannedDocument,
        current: &Current,
        deadline: Deadline,
    ) -> Error {
        let entries = match self.entries_since(planned, deadline).await {
            Ok(entries) => entries,
            Err(error) => return error,
        };
        // If it was applied, its entry is the first one after those that it was made from.
        let own = entries.iter().rev().filter(|it| it.operation().is_some());
        let applied = own.take(2).any(|entry| plan.led_to(entry));
        if applied {
            let application = self.application(plan, deadline).await;
            return match application {
                Ok(application) => Error::PlanNotFound {
                    applied: Some(application),
                },
                Err(error) => error,
            };
        }
        Error::Conflict {
            key: planned.key(),
            current: current.version().cloned(),
            changed_since: entries.into_iter().take(MAX_CHANGED_SINCE).collect(),
            changed_outside: current.changed_outside(),
        }
    }

    /// The entries of a plan that was applied.
    async fn application(&self, plan: &Plan, deadline: Deadline) -> Result<PlanApplication, Error> {
        let mut searches = Vec::new();
        for planned in &plan.documents {
            searches.push(self.entries_since(planned, deadline));
        }
        let found = stream::iter(searches).buffered(CONCURRENT_READS);
        let found: Vec<Vec<StoredEntry>> = found.try_collect().await?;
        let entries = found.into_iter().flatten();
        let entries: Vec<StoredEntry> = entries.filter(|entry| plan.led_to(entry)).collect();
        let ids = entries.iter().filter_map(|entry| entry.text_of("id"));
        let first = entries.first();
        let actor = first.and_then(|entry| entry.origin_text("actor"));
        Ok(PlanApplication {
            audit_ids: ids.map(ToOwned::to_owned).collect(),
            timestamp: first.and_then(StoredEntry::timestamp),
            actor: actor.map(ToOwned::to_owned),
        })
    }

    /// The entries of a document since a plan was made from it, newest first.
    async fn entries_since(
        &self,
        planned: &PlannedDocument,
        deadline: Deadline,
    ) -> Result<Vec<StoredEntry>, Error> {
        let is_older = |entry: &StoredEntry| {
            planned.newest_entry() == Some(sha256_hex(entry.text().as_bytes()).as_str())
        };
        // Mostly the first or the second entry is the one that the plan was made from.
        let mut query = AuditQuery::of(&planned.key(), FIRST_ENTRIES_SINCE);
        let mut since = Vec::new();
        loop {
            let page = in_time(deadline.run(self.store.audit_entries(&query)).await)?;
            for entry in page.entries {
                if is_older(&entry) {
                    return Ok(since);
                }
                since.push(entry);
            }
            query.after = page.next;
            query.limit = ENTRIES_SINCE;
            query.max_bytes = MAX_BYTES_SINCE;
            if query.after.is_none() || since.len() >= MAX_SCANNED_ENTRIES {
                return Ok(since);
            }
        }
    }

    async fn earlier_application(&self, call: &ApplyCall) -> Result<Option<Commit>, Error> {
        if call.request.idempotency_key.is_none() {
            return Ok(None);
        }
        let record = call.deadline.run(self.store.find_commit(&call.operation));
        Ok(in_time(record.await)?)
    }

    async fn replay_application(
        &self,
        commit: Commit,
        deadline: Deadline,
    ) -> Result<Written, Error> {
        Ok(Written {
            documents: self.replayed_documents(commit, deadline).await,
            replayed: true,
            ..Written::default()
        })
    }
}

impl ApplyCall {
    fn new(request: ApplyRequest, deadline: Deadline) -> Self {
        let identity = identity(&request);
        let operation = match &request.idempotency_key {
            Some(key) => Operation::keyed(key, identity),
            None => Operation::once(&Uuid::new_v4().to_string(), identity),
        };
        Self {
            request,
            operation,
            deadline,
        }
    }

    /// Fails unless the plan is one of the called tool, for the named document.
    fn check(&self, plan: &Plan) -> Result<(), Error> {
        let refused = |message: String| {
            let violation = Violation::new("plan", "tool", message);
            Err(Error::Invalid(vec![violation]))
        };
        if self.request.creations == Creations::Keep && plan.undoes_creations() {
            return refused(
                "this plan undoes a creation, which would delete the document; this server does not do that, because its toolset `authoring` is off".to_owned(),
            );
        }
        let Some(tool) = self.request.tool else {
            return Ok(());
        };
        if plan.tool != tool {
            return refused(format!(
                "this plan was made with {}; send it there",
                plan.tool
            ));
        }
        let named = self.request.key.as_ref();
        match plan.documents.first().map(PlannedDocument::key) {
            Some(planned) if named.is_some_and(|named| *named != planned) => {
                refused(format!("this plan is for {planned}; send that id with it"))
            }
            _ => Ok(()),
        }
    }
}

fn not_found() -> Error {
    Error::PlanNotFound { applied: None }
}

fn lost_race(key: DocumentKey) -> Error {
    Error::Conflict {
        key,
        current: None,
        changed_since: Vec::new(),
        changed_outside: None,
    }
}

/// An operation for changes that are only shown.
fn apply_once(plan: &Plan) -> Operation {
    Operation::once(&plan.reference.id, json!({ "plan": plan.reference.id }))
}

/// What makes two requests the same one.
fn identity(request: &ApplyRequest) -> Value {
    json!({
        "tool": request.tool,
        "id": request.key.as_ref().map(|key| &key.id),
        "plan": request.plan_id,
    })
}

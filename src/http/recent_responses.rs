//! The website's recent responses, in this process: to know that one is still valid costs a few
//! bytes, to fetch it again from the store costs all of it.

use std::{sync::Arc, time::Duration};

use quick_cache::{Weighter, sync::Cache};
use tokio::time::Instant;

use super::payload::Payload;
use crate::domain::{ApiPath, StoreState};

/// The bytes of responses that are kept.
const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// An estimate of their number.
const ESTIMATED_RESPONSES: usize = 256;

/// Responses, each with the state of the store that it is valid for.
pub(super) struct RecentResponses(Cache<ApiPath, RecentResponse, ByLength>);

#[derive(Clone)]
pub(super) struct RecentResponse {
    pub(super) payload: Arc<Payload>,
    pub(super) state: StoreState,
    until: Instant,
}

impl RecentResponse {
    /// How long it may be shown.
    pub(super) fn time_left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

#[derive(Clone)]
struct ByLength;

impl Weighter<ApiPath, RecentResponse> for ByLength {
    fn weight(&self, _: &ApiPath, response: &RecentResponse) -> u64 {
        response.payload.data.len().max(1) as u64
    }
}

impl Default for RecentResponses {
    fn default() -> Self {
        Self(Cache::with_weighter(
            ESTIMATED_RESPONSES,
            MAX_BYTES,
            ByLength,
        ))
    }
}

impl RecentResponses {
    /// The response for a path, unless its time is over.
    pub(super) fn get(&self, path: &ApiPath) -> Option<RecentResponse> {
        let response = self.0.get(path)?;
        if response.until <= Instant::now() {
            self.remove(path);
            return None;
        }
        Some(response)
    }

    pub(super) fn remove(&self, path: &ApiPath) {
        self.0.remove(path);
    }

    pub(super) fn insert(
        &self,
        path: &ApiPath,
        state: &StoreState,
        payload: &Arc<Payload>,
        ttl: Duration,
    ) {
        let response = RecentResponse {
            payload: Arc::clone(payload),
            state: state.clone(),
            until: Instant::now() + ttl,
        };
        self.0.insert(path.clone(), response);
    }
}

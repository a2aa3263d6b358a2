//! A problem that is logged once until it is over.

use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{info, warn};

use crate::store::StoreError;

/// Whether reading something fails.
#[derive(Debug)]
pub(super) struct Problem {
    /// What is read.
    subject: &'static str,
    /// What does not work because of it.
    effect: &'static str,
    lasts: AtomicBool,
}

impl Problem {
    pub(super) fn new(subject: &'static str, effect: &'static str) -> Self {
        Self {
            subject,
            effect,
            lasts: AtomicBool::new(false),
        }
    }

    /// Logs that it begins or is over.
    pub(super) fn note<T>(&self, result: &Result<T, StoreError>) {
        let lasted = self.lasts.swap(result.is_err(), Ordering::Relaxed);
        match result {
            Err(error) if !lasted => warn!(
                "could not read {}: {error}; {}; run `doctor` for details",
                self.subject, self.effect
            ),
            Ok(_) if lasted => info!("{} can be read again", self.subject),
            Ok(_) | Err(_) => {}
        }
    }
}

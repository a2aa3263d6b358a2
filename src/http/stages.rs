//! How the server ends: in stages, so that what it accepted is answered.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How long before the end of the grace period calls get an error, so that it still reaches them.
const LAST_ANSWER_TIME: Duration = Duration::from_millis(500);

/// The error of a call that outlasts the server.
pub(super) const STOPPED: &str = "the server stopped before the call was finished; a change may have \
    been applied, so read the document before you send the call again";

/// The stages, in their order.
#[derive(Debug, Clone)]
pub(super) struct Stages {
    /// No new sessions, streams or connections.
    pub(super) stop: CancellationToken,
    /// What is still running gets an error.
    pub(super) overdue: CancellationToken,
    /// Everything is dropped. rmcp gets this one only, because it would answer open requests with
    /// an error at `stop`.
    pub(super) abort: CancellationToken,
}

impl Stages {
    /// The stages of a server that may run for `grace_period` after `stop`.
    pub(super) fn new(stop: CancellationToken, grace_period: Duration) -> Self {
        let (overdue, abort) = (CancellationToken::new(), CancellationToken::new());
        let stages = Self {
            stop,
            overdue,
            abort,
        };
        tokio::spawn(stages.clone().run(grace_period));
        stages
    }

    async fn run(self, grace_period: Duration) {
        let outlast = async {
            self.stop.cancelled().await;
            sleep(grace_period.saturating_sub(LAST_ANSWER_TIME)).await;
            self.overdue.cancel();
        };
        self.abort.run_until_cancelled(outlast).await;
    }
}

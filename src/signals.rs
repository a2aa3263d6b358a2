//! Ctrl-C and SIGTERM: both stop what runs, and a command that Ctrl-C interrupted says so with its
//! exit code.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio_util::sync::CancellationToken;

/// The exit code of a command that Ctrl-C interrupted, as shells expect it.
pub const INTERRUPTED: u8 = 130;

/// Ctrl-C interrupted a command.
#[derive(Debug, thiserror::Error)]
#[error("interrupted: {0}")]
pub struct Interrupted(pub &'static str);

/// The signals that stop the program.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signals {
    stop: CancellationToken,
    interrupted: Arc<AtomicBool>,
}

impl Signals {
    /// Waits for signals from now on. Has to be called within a tokio runtime.
    pub(crate) fn listen() -> Self {
        let signals = Self::default();
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            // Registered here and not in the task, so that a signal is never missed once this
            // returns.
            let (Ok(mut terminate), Ok(mut interrupt)) = (
                signal(SignalKind::terminate()),
                signal(SignalKind::interrupt()),
            ) else {
                return signals;
            };
            let signaled = signals.clone();
            tokio::spawn(async move {
                tokio::select! {
                    _ = interrupt.recv() => signaled.interrupt(),
                    _ = terminate.recv() => signaled.stop.cancel(),
                }
            });
        }
        #[cfg(not(unix))]
        {
            let signaled = signals.clone();
            tokio::spawn(async move {
                let _ = tokio::signal::ctrl_c().await;
                signaled.interrupt();
            });
        }
        signals
    }

    fn interrupt(&self) {
        self.interrupted.store(true, Ordering::SeqCst);
        self.stop.cancel();
    }

    /// Is cancelled by the first signal.
    pub(crate) fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Whether the signal was Ctrl-C.
    pub(crate) fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }
}

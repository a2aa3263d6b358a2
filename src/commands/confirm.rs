//! Asking a person before content is changed.

use std::io::{IsTerminal, Write, stderr, stdin};

use crate::settings::UsageError;

/// Asks `question`, and returns whether the answer was yes.
///
/// # Errors
/// `nobody_to_ask`, where standard input is no terminal.
pub(super) async fn is_confirmed(question: String, nobody_to_ask: &str) -> anyhow::Result<bool> {
    if !stdin().is_terminal() {
        return Err(UsageError(vec![nobody_to_ask.to_owned()]).into());
    }
    // In a task of its own, so that Ctrl-C also ends the waiting.
    let answer = tokio::task::spawn_blocking(move || {
        let mut answer = String::new();
        write!(stderr(), "{question} [y/N] ")?;
        stdin().read_line(&mut answer).map(|_| answer)
    });
    let answer = answer.await??.trim().to_lowercase();
    Ok(answer == "y" || answer == "yes")
}

//! Reading documents in the same pieces as the server, and what that says about the network.

use std::time::Duration;

use redis::{RedisError, Value, cmd};
use tokio::time::Instant;

use super::{
    connection::DiagnosticConnection,
    finding::{Fault, Finding, counted},
};
use crate::{
    deadline::Deadline,
    domain::text::truncate,
    store::{
        load::PieceSize,
        redis::{connection::RESPONSE_TIMEOUT, reply::array},
    },
};

/// How long a piece may take. The server waits less for a reply; the difference tells a slow network
/// from a connection that fell silent.
pub(super) const PIECE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a list waits until the documents are read: docs/architecture.md, "Time budget of a call".
const LIST_TIMEOUT: Duration = Duration::from_secs(7);

const CHECK: &str = "reading all documents";
const WHAT_TO_DO: &str = "run the server closer to the store, or keep fewer or smaller documents";

/// Reads documents until a deadline, and measures it.
pub(super) struct DocumentReader {
    deadline: Deadline,
    size: PieceSize,
    read: usize,
    skipped: usize,
    bytes: usize,
    time: Duration,
    last_piece: Duration,
    /// The key of a document that takes longer than the server waits, and how long it took.
    too_slow: Option<(String, Duration)>,
    /// The first key of a piece that did not arrive.
    lost: Option<String>,
}

impl DocumentReader {
    pub(super) fn until(deadline: Deadline) -> Self {
        Self {
            deadline,
            size: PieceSize::default(),
            read: 0,
            skipped: 0,
            bytes: 0,
            time: Duration::ZERO,
            last_piece: Duration::ZERO,
            too_slow: None,
            lost: None,
        }
    }

    /// The values of the first of these keys; `None` if there is no time for them.
    pub(super) async fn next(
        &mut self,
        connection: &mut DiagnosticConnection,
        keys: &[String],
    ) -> Result<Option<Vec<Value>>, RedisError> {
        while self.lost.is_none() && !self.deadline.is_within(self.last_piece) {
            let (piece, _) = keys.split_at(self.size.keys().min(keys.len()));
            let begun = Instant::now();
            match connection.send(cmd("MGET").arg(piece)).await {
                Err(error) if error.is_timeout() => {
                    connection.reopen(PIECE_TIMEOUT).await?;
                    if let [key] = piece {
                        self.lost = Some(key.clone());
                    }
                    self.size.failed(1); // there is time for one more attempt
                }
                reply => {
                    let values = array(reply?);
                    self.arrived(piece, &values, begun.elapsed());
                    return Ok(Some(values));
                }
            }
        }
        self.skipped += keys.len();
        Ok(None)
    }

    fn arrived(&mut self, keys: &[String], values: &[Value], time: Duration) {
        let bytes = values.iter().map(bytes_of).sum();
        self.size.arrived(keys.len(), bytes, time);
        let absent = values.iter().filter(|value| **value == Value::Nil).count();
        self.read += keys.len() - absent;
        self.bytes += bytes;
        self.time += time;
        self.last_piece = time;
        if let [key] = keys
            && time > RESPONSE_TIMEOUT
        {
            self.too_slow.get_or_insert((key.clone(), time));
        }
    }

    pub(super) fn findings(&self) -> Vec<Finding> {
        let mut findings: Vec<Finding> = self.speed().into_iter().collect();
        if let Some((key, time)) = &self.too_slow {
            findings.push(Finding::problem(
                Fault::Store,
                CHECK,
                format!(
                    "`{}` took {}, and the server waits {} s for a reply",
                    truncate(key),
                    in_words(*time),
                    RESPONSE_TIMEOUT.as_secs()
                ),
                format!("lists fail, and so does reading this document; {WHAT_TO_DO}"),
            ));
        }
        if let Some(key) = &self.lost {
            findings.push(not_arrived(CHECK, &format!("`{}`", truncate(key))));
        }
        findings
    }

    /// Nothing if no document arrived.
    fn speed(&self) -> Option<Finding> {
        let all = self.read + self.skipped;
        if all == 0 || (self.read == 0 && self.lost.is_some()) {
            return None;
        }
        let seconds = self.time.as_secs_f64();
        let measured = format!(
            "{}, {} ({:.2} MB/s)",
            size(self.bytes),
            in_words(self.time),
            rounded(self.bytes) / 1e6 / seconds.max(1e-6)
        );
        let documents = counted(all, "document");
        let (message, expected) = if self.skipped == 0 {
            (format!("{documents}, {measured}"), seconds)
        } else if self.read == 0 {
            let message = format!("no time was left for {documents}: the checks before were slow");
            (message, seconds)
        } else {
            let expected = seconds * rounded(all) / rounded(self.read);
            let message = format!(
                "stopped after {} of {documents}, {measured}; all would take about {expected:.0} s, so the rest was not checked",
                self.read
            );
            (message, expected)
        };
        if self.skipped == 0 && expected <= LIST_TIMEOUT.as_secs_f64() {
            return Some(Finding::ok(CHECK, message));
        }
        let remedy = format!(
            "a list waits {} s for the documents, so after a start lists fail until they are read; {WHAT_TO_DO}",
            LIST_TIMEOUT.as_secs()
        );
        Some(Finding::warning(CHECK, message, remedy))
    }
}

/// Says that something did not arrive, which the connection is not at fault for.
pub(super) fn not_arrived(check: &str, what: &str) -> Finding {
    Finding::problem(
        Fault::Store,
        check,
        format!(
            "{what} did not arrive within {} s: the network is very slow, or was interrupted",
            PIECE_TIMEOUT.as_secs()
        ),
        format!("run doctor again; if this stays, {WHAT_TO_DO}"),
    )
}

fn bytes_of(value: &Value) -> usize {
    match value {
        Value::BulkString(bytes) => bytes.len(),
        _ => 0,
    }
}

#[expect(clippy::cast_precision_loss, reason = "it is shown with few digits")]
fn rounded(number: usize) -> f64 {
    number as f64
}

fn size(bytes: usize) -> String {
    if bytes < 1_000_000 {
        format!("{:.1} kB", rounded(bytes) / 1e3)
    } else {
        format!("{:.1} MB", rounded(bytes) / 1e6)
    }
}

fn in_words(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

//! The log on stderr, and everything else that is written there while the program serves: no text
//! in it acts on a terminal or forges a line, a panic repeats no document, and a reader that reads
//! no more stops nothing.

use std::{
    any::Any,
    io::{self, Write, stderr},
    panic::{self, PanicHookInfo},
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use indicatif::ProgressBar;
use tracing::{Level, enabled, error, level_filters::LevelFilter, warn};
use tracing_subscriber::{filter::Targets, prelude::*};

use crate::{
    domain::text::{escape_invisible, sanitize},
    settings::LogFormat,
    style::{BAD, paint, stderr_has_colors},
};

mod queue;

use queue::Queue;

/// How long the end of the program may wait for a reader of stderr.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// What waits to be written to stderr, if the system has a thread for it.
static QUEUE: LazyLock<Option<Arc<Queue>>> = LazyLock::new(|| {
    let queue = Arc::new(Queue::default());
    thread::Builder::new()
        .name("log".to_owned())
        .spawn({
            let queue = Arc::clone(&queue);
            move || queue.write_to(AboveProgress, log_dropped)
        })
        .ok()?;
    Some(queue)
});

/// Writes what waits for stderr when it is dropped, also by a panic. Waits only shortly for a reader
/// that does not read.
#[derive(Debug)]
#[must_use]
pub struct FlushOnDrop;

impl Drop for FlushOnDrop {
    fn drop(&mut self) {
        if let Some(queue) = &*QUEUE {
            queue.flush(FLUSH_TIMEOUT);
        }
    }
}

/// Writes a line to stderr that is not an event of the log. Never blocks.
pub fn print_line(line: &str) {
    push(format!("{}\n", sanitize(line)).as_bytes());
}

/// Writes a line about an error to stderr, its prefix in colour on a terminal.
pub fn print_error(prefix: &str, line: &str) {
    let prefix = if prefix.is_empty() || !stderr_has_colors() {
        prefix.to_owned()
    } else {
        paint(BAD, prefix)
    };
    push(format!("{prefix}{}\n", sanitize(line)).as_bytes());
}

/// Keeps lines of the log above the bar as long as the guard lives.
pub(crate) fn show_progress(bar: &ProgressBar) -> ShownProgress {
    *progress() = Some(bar.clone()).filter(|bar| !bar.is_hidden());
    ShownProgress
}

/// Ends when it is dropped.
#[must_use]
pub(crate) struct ShownProgress;

impl Drop for ShownProgress {
    fn drop(&mut self) {
        *progress() = None;
    }
}

fn progress() -> MutexGuard<'static, Option<ProgressBar>> {
    static PROGRESS: Mutex<Option<ProgressBar>> = Mutex::new(None);
    PROGRESS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Standard error, where a progress bar may be: it is taken away while a line is written.
struct AboveProgress;

impl Write for AboveProgress {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Not locked while it writes: the end of the bar must not wait for a reader.
        let bar = progress().clone();
        match bar {
            Some(bar) => bar.suspend(|| stderr().write(bytes)),
            None => stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        stderr().flush()
    }
}

/// Puts a line into the queue.
fn push(line: &[u8]) {
    match &*QUEUE {
        Some(queue) => queue.push(line),
        // As good as it gets: nobody is left to tell that the line cannot be written.
        None => drop(stderr().write_all(line)),
    }
}

fn log_dropped(count: u64) {
    let message = "log lines dropped here: standard error was not read fast enough";
    // Somebody who wants to see errors alone may have lost some of them.
    if enabled!(Level::WARN) {
        warn!("{count} {message}");
    } else {
        error!("{count} {message}");
    }
}

/// Who reads the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// Who runs a server, and wants a line for each write.
    Operator,
    /// Who runs a command, which tells on stdout what it did.
    Person,
}

/// Starts logging to stderr.
///
/// rmcp is silent: it logs whole messages, with content, and every rejected request a second time.
pub(crate) fn start(level: &str, format: LogFormat, reader: Reader) {
    let level: LevelFilter = level.parse().unwrap_or(LevelFilter::INFO);
    // A command says itself what it wrote, and why it could not.
    let calls = match reader {
        Reader::Person if level == LevelFilter::INFO => LevelFilter::ERROR,
        Reader::Person | Reader::Operator => level,
    };
    let targets = Targets::new()
        .with_target("portfolio_mcp", level)
        .with_target("portfolio_mcp::service", calls)
        .with_target("portfolio_mcp::store", calls)
        .with_target("rmcp", LevelFilter::OFF)
        .with_default(level.min(LevelFilter::WARN));
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(move || LineWriter { push, format })
        .with_target(false)
        .with_ansi(false);
    let registry = tracing_subscriber::registry().with(targets);
    // A second start in one process, as in tests, keeps the log of the first.
    let _ = match format {
        LogFormat::Text => registry.with(layer).try_init(),
        LogFormat::Json => registry.with(layer.json()).try_init(),
    };
    log_panics();
}

/// Writes events; each comes whole and ends in a line break.
struct LineWriter<P> {
    push: P,
    format: LogFormat,
}

impl<P: FnMut(&[u8])> Write for LineWriter<P> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = match self.format {
            LogFormat::Text => sanitize(line).into_owned(),
            LogFormat::Json => escape_invisible(line.to_owned()),
        };
        (self.push)(format!("{line}\n").as_bytes());
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Logs where a panic happened, and its message if that is a literal in the source. Other messages
/// may repeat a document.
fn log_panics() {
    panic::set_hook(Box::new(|panic: &PanicHookInfo<'_>| {
        let location = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        error!("panicked at {location}: {}", literal(panic.payload()));
    }));
}

/// The message of a panic, if it is a literal.
fn literal(payload: &(dyn Any + Send)) -> &'static str {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .unwrap_or("(the message may repeat content and is not logged)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(format: LogFormat, event: &str) -> String {
        let mut lines = Vec::new();
        let mut writer = LineWriter {
            push: |line: &[u8]| lines.extend_from_slice(line),
            format,
        };
        writer.write_all(event.as_bytes()).unwrap();
        String::from_utf8(lines).unwrap()
    }

    #[test]
    fn a_panic_message_with_values_is_not_logged() {
        let message = |panic: fn()| literal(&*panic::catch_unwind(panic).unwrap_err());

        assert_eq!(message(|| panic!("a proof")), "a proof");
        assert!(!message(|| panic!("{}", String::from("canary"))).contains("canary"));
        assert!(!message(|| drop("çanary".to_owned()[1..].to_owned())).contains("anary"));
    }

    #[test]
    fn an_event_is_one_line_that_cannot_act_on_a_terminal() {
        let text = write(
            LogFormat::Text,
            "INFO read `\u{1b}[2J\u{9b}31m\u{202e}\u{200b}\nERROR forged`\r\n",
        );
        let json = write(LogFormat::Json, "{\"id\":\"\u{9b}\u{202e}\"}\n");

        assert_eq!(
            text,
            "INFO read `\u{fffd}[2J\u{fffd}31m\u{fffd}\u{fffd}\u{fffd}ERROR forged`\u{fffd}\n"
        );
        assert_eq!(json, "{\"id\":\"\\u009b\\u202e\"}\n");
    }
}

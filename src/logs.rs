//! The log on stderr: no text in it acts on a terminal or forges a line, and a panic repeats no
//! document.

use std::{
    any::Any,
    io::{self, Write},
    panic::{self, PanicHookInfo},
};

use tracing::{error, level_filters::LevelFilter};
use tracing_subscriber::{filter::Targets, prelude::*};

use crate::{
    domain::text::{escape_invisible, sanitize},
    settings::{LogFormat, Settings},
};

/// Starts logging to stderr.
///
/// rmcp is silent: it logs whole messages, with content, and every rejected request a second time.
pub(crate) fn start(settings: &Settings) {
    let level: LevelFilter = settings.log.parse().unwrap_or(LevelFilter::INFO);
    let targets = Targets::new()
        .with_target("portfolio_mcp", level)
        .with_target("rmcp", LevelFilter::OFF)
        .with_default(level.min(LevelFilter::WARN));
    let format = settings.log_format;
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(move || LineWriter {
            out: io::stderr(),
            format,
        })
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
struct LineWriter<W> {
    out: W,
    format: LogFormat,
}

impl<W: Write> Write for LineWriter<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = match self.format {
            LogFormat::Text => sanitize(line).into_owned(),
            LogFormat::Json => escape_invisible(line.to_owned()),
        };
        self.out.write_all(format!("{line}\n").as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
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
        let mut writer = LineWriter {
            out: Vec::new(),
            format,
        };
        writer.write_all(event.as_bytes()).unwrap();
        String::from_utf8(writer.out).unwrap()
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

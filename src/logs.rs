//! What logs are written through: nothing in them obeys a terminal, forges a line or, after a panic, repeats a document.

use std::{
    any::Any,
    io::{self, Write},
    panic::{self, PanicHookInfo},
};

use tracing::error;

use crate::{
    cli::LogFormat,
    domain::text::{escape_invisible, sanitize},
};

/// Writes events, each of which comes whole and with its line's end.
pub(crate) struct Lines<W> {
    pub(crate) out: W,
    pub(crate) format: LogFormat,
}

impl<W: Write> Write for Lines<W> {
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

/// Logs panics: where, and what was said if that was written in the source. Other messages repeat values, a document's among them.
pub(crate) fn log_panics() {
    panic::set_hook(Box::new(|panic: &PanicHookInfo<'_>| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        error!("panicked at {place}: {}", written_here(panic.payload()));
    }));
}

/// What a panic said, if the source says it word for word.
fn written_here(payload: &(dyn Any + Send)) -> &'static str {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .unwrap_or("(what it said may repeat content and is not logged)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: LogFormat, event: &str) -> String {
        let mut lines = Lines {
            out: Vec::new(),
            format,
        };
        lines.write_all(event.as_bytes()).unwrap();
        String::from_utf8(lines.out).unwrap()
    }

    #[test]
    fn a_panic_is_logged_without_what_it_repeats() {
        let said = |panic: fn()| written_here(&*panic::catch_unwind(panic).unwrap_err());

        assert_eq!(said(|| panic!("a proof")), "a proof");
        assert!(!said(|| panic!("{}", String::from("canary"))).contains("canary"));
        assert!(!said(|| drop("çanary".to_owned()[1..].to_owned())).contains("anary"));
    }

    #[test]
    fn an_event_is_one_line_that_no_terminal_obeys() {
        let text = written(
            LogFormat::Text,
            "INFO read `\u{1b}[2J\u{9b}31m\u{202e}\u{200b}\nERROR forged`\r\n",
        );
        let json = written(LogFormat::Json, "{\"id\":\"\u{9b}\u{202e}\"}\n");

        assert_eq!(
            text,
            "INFO read `\u{fffd}[2J\u{fffd}31m\u{fffd}\u{fffd}\u{fffd}ERROR forged`\u{fffd}\n"
        );
        assert_eq!(json, "{\"id\":\"\\u009b\\u202e\"}\n");
    }
}

//! Standard output of commands, whose reader may leave before the end: `doctor | head -1`.

use std::io::{self, ErrorKind, Stdout, Write};

use anstream::AutoStream;

use crate::style::styled_stdout;

/// Standard output. What nobody reads any more is dropped, and the command goes on to its end.
pub(crate) struct ReportOutput(AutoStream<Stdout>);

impl ReportOutput {
    pub(crate) fn new() -> Self {
        Self(styled_stdout())
    }
}

impl Write for ReportOutput {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        unless_closed(self.0.write(text), text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        unless_closed(self.0.flush(), ())
    }
}

/// The result, or `otherwise` if nobody reads.
pub(crate) fn unless_closed<T>(result: io::Result<T>, otherwise: T) -> io::Result<T> {
    match result {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(otherwise),
        result => result,
    }
}

//! Colours on a terminal.
//!
//! What is written is always styled; a stream that is no terminal gets it without the styles, and so
//! does one whose user set `NO_COLOR` or `TERM=dumb`.

use std::io::{Stdout, stderr, stdout};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

/// Something is as it should be, or was added.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Someone should look at it.
pub const WARNING: Style = AnsiColor::Yellow.on_default();
/// Something is wrong, or was removed.
pub const BAD: Style = AnsiColor::Red.on_default().bold();

/// Standard output, which takes styles away where they are not wanted.
#[must_use]
pub fn styled_stdout() -> AutoStream<Stdout> {
    AutoStream::auto(stdout())
}

/// Whether standard error shows colours.
#[must_use]
pub fn stderr_has_colors() -> bool {
    AutoStream::choice(&stderr()) != ColorChoice::Never
}

/// The text in a style.
#[must_use]
pub fn paint(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

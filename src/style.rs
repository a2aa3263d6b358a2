//! Colours on a terminal.
//!
//! What is written is always styled; a stream that is no terminal gets it without the styles, and so
//! does one whose user set `NO_COLOR` or `TERM=dumb`.

use std::io::{Stdout, stderr, stdout};

use anstream::{AutoStream, ColorChoice, adapter::strip_str};
use anstyle::{AnsiColor, Style};
use terminal_size::Width;

/// A style is written between these.
const ESCAPE: char = '\u{1b}';
const END_OF_STYLE: char = 'm';

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

/// The columns of the terminal that standard output is. Without a terminal, there is no limit.
#[must_use]
pub fn stdout_columns() -> usize {
    let size = terminal_size::terminal_size_of(stdout());
    size.map_or(usize::MAX, |(Width(columns), _)| columns.into())
}

/// A styled line as lines of at most `columns` characters. Words are broken only if they fit on no
/// line. Lines after the first are indented further.
#[must_use]
pub fn wrap(line: &str, columns: usize) -> String {
    let plain = strip_str(line).to_string();
    let indent = (plain.len() - plain.trim_start_matches(' ').len() + 2).min(columns / 2);
    let (mut lines, mut width) = (String::new(), 0);
    let next_line = |lines: &mut String| {
        lines.truncate(lines.trim_end_matches(' ').len());
        lines.push('\n');
        lines.push_str(&" ".repeat(indent));
        indent
    };
    for word in line.split_inclusive(' ') {
        let length = strip_str(word.trim_end()).to_string().chars().count();
        if width > indent && width + length > columns {
            width = next_line(&mut lines);
        }
        let mut is_style = false;
        for c in word.chars() {
            is_style |= c == ESCAPE;
            if !is_style && width >= columns && c != ' ' {
                width = next_line(&mut lines);
            }
            lines.push(c);
            width += usize::from(!is_style);
            is_style &= c != END_OF_STYLE;
        }
    }
    lines
}

/// The text in a style.
#[must_use]
pub fn paint(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_wrapped_between_words_and_keeps_its_style() {
        let line = format!("  - {} five", paint(BAD, "one two three four"));

        let wrapped = wrap(&line, 12);

        assert_eq!(
            strip_str(&wrapped).to_string(),
            "  - one two\n    three\n    four\n    five"
        );
        let unstyled: String = wrapped.replace("\n    ", " ");
        assert_eq!(unstyled, line);
    }

    #[test]
    fn a_word_that_fits_on_no_line_is_broken() {
        assert_eq!(wrap("ab abcdefghij", 6), "ab\n  abcd\n  efgh\n  ij");
        assert_eq!(wrap("abcdefghij", 6), "abcdef\n  ghij");
        assert_eq!(wrap("é é é", 80), "é é é");
        assert_eq!(wrap("", 80), "");
    }
}

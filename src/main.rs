//! Parses arguments, runs the command, and turns its result into an exit code.

use std::{env, process::ExitCode};

use clap::FromArgMatches;
use portfolio_mcp::{
    cli::Cli,
    logs::{self, FlushOnDrop},
    run,
    settings::{UsageError, command},
    signals::{INTERRUPTED, Interrupted},
};

/// Documents are trees of small strings, created and dropped in every call: glibc's allocator took
/// a third of a write's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let _flush = FlushOnDrop;
    let parsed = command()
        .try_get_matches()
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            print_error("", &hide_urls(&error.to_string()));
            return ExitCode::from(2);
        }
        Err(error) => error.exit(),
    };
    // A variable that is not Unicode must not look like one that is not set.
    let environment = env::vars_os()
        .map(|(name, value)| [name, value].map(|text| text.to_string_lossy().into_owned()))
        .map(|[name, value]| (name, value))
        .collect();
    match run(&cli, &environment) {
        Ok(code) => code,
        Err(error) => {
            for cause in causes(&error) {
                print_error("portfolio-mcp: ", &cause);
            }
            ExitCode::from(exit_code(&error))
        }
    }
}

/// What was being done, and why it failed. A cause that the next one says too, and more exactly, is
/// left out.
fn causes(error: &anyhow::Error) -> Vec<String> {
    let mut causes: Vec<String> = Vec::new();
    for cause in error.chain().map(ToString::to_string) {
        if causes
            .last()
            .is_some_and(|last| cause.starts_with(last.as_str()))
        {
            causes.pop();
        }
        causes.push(cause);
    }
    causes
}

/// 2: wrong usage; 130: Ctrl-C; 3: the store or the system is at fault (CONTRACT.md, section 6).
fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<UsageError>() {
        2
    } else if error.is::<Interrupted>() {
        INTERRUPTED
    } else {
        3
    }
}

fn print_error(prefix: &str, message: &str) {
    for line in message.lines() {
        // clap's own first line begins with it.
        match line.split_at_checked("error:".len()) {
            Some(("error:", rest)) if prefix.is_empty() => logs::print_error("error:", rest),
            _ => logs::print_error(prefix, line),
        }
    }
}

/// Removes the URLs of the command line from a message. The parser repeats what it does not
/// understand, and a URL in the wrong place may contain a password.
fn hide_urls(message: &str) -> String {
    let arguments: Vec<String> = env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let values = arguments
        .iter()
        .filter_map(|argument| argument.split_once('='))
        .map(|(_, value)| value);
    let urls = arguments
        .iter()
        .map(String::as_str)
        .chain(values)
        .filter(|text| text.contains("://") || text.contains('@'));
    urls.fold(message.to_owned(), |message, url| {
        message.replace(url, "(a URL)")
    })
}

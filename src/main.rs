//! Parses arguments, runs the command, and turns its outcome into an exit code.

use std::{
    env,
    io::{Write, stderr},
    process::ExitCode,
};

use clap::Parser;
use portfolio_mcp::{
    cli::{Cli, UsageError, without_urls},
    domain::text::sanitize,
    run,
};

/// Documents are trees of small texts, made and dropped in every call: glibc's allocator took a third of a write's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            let arguments: Vec<String> = env::args_os()
                .skip(1)
                .map(|argument| argument.to_string_lossy().into_owned())
                .collect();
            for line in without_urls(&error.to_string(), &arguments).lines() {
                let _ = writeln!(stderr(), "{}", sanitize(line));
            }
            return ExitCode::from(2);
        }
        Err(error) => error.exit(),
    };
    // What is not Unicode must not look like what is not there.
    let environment = |name: &str| {
        env::var_os(name)
            .map(|value| value.to_string_lossy().into_owned())
            .filter(|value| !value.is_empty())
    };
    match run(&cli, &environment) {
        Ok(code) => code,
        Err(error) => {
            for line in error.chain().flat_map(|cause| {
                cause
                    .to_string()
                    .lines()
                    .map(ToOwned::to_owned)
                    .collect::<Vec<_>>()
            }) {
                let _ = writeln!(stderr(), "portfolio-mcp: {}", sanitize(&line));
            }
            // 2: wrong usage; 3: the store or the system is at fault (CONTRACT.md, section 6).
            ExitCode::from(if error.is::<UsageError>() { 2 } else { 3 })
        }
    }
}

//! Parses arguments, runs the command, and turns its outcome into an exit code.

use std::{env, io, process::ExitCode};

use clap::Parser;
use portfolio_mcp::{
    cli::{Cli, UsageError},
    run,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let environment = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    match run(&cli, &environment) {
        Ok(code) => code,
        Err(error) => {
            let usage = error.is::<UsageError>();
            let _ = error.chain().try_for_each(|cause| io::Write::write_fmt(&mut io::stderr(), format_args!("portfolio-mcp: {cause}\n")));
            // 2: wrong usage; 3: the store or the system is at fault (CONTRACT.md, section 6).
            ExitCode::from(if usage { 2 } else { 3 })
        }
    }
}

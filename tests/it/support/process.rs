//! Child processes: signals, collected output, and running one to its end.

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use super::wait::wait_until;

/// Sends a signal such as `-TERM` to a process.
pub(crate) fn signal(process: u32, signal: &str) {
    let status = Command::new("kill")
        .args([signal, &process.to_string()])
        .status()
        .unwrap();
    assert!(status.success(), "kill {signal} {process}: {status}");
}

/// The lines that a process has written to a stream so far.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Collected>);

#[derive(Default)]
struct Collected {
    text: Mutex<String>,
    complete: AtomicBool,
}

impl Lines {
    /// Collects lines in a thread of its own, so that a full pipe never blocks the process.
    pub(crate) fn collect(stream: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let collected = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let mut text = collected.0.text.lock().unwrap();
                text.push_str(&line);
                text.push('\n');
            }
            collected.0.complete.store(true, Ordering::SeqCst);
        });
        lines
    }

    /// Waits until the process has closed the stream.
    pub(crate) fn wait(&self) {
        wait_until("the output is complete", || {
            self.0.complete.load(Ordering::SeqCst).then_some(())
        });
    }

    pub(crate) fn text(&self) -> String {
        self.0.text.lock().unwrap().clone()
    }
}

/// Runs a command to its end with `input` on standard input.
pub(crate) fn run_with_input(command: &mut Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    thread::scope(|scope| {
        // A program that rejects its arguments does not read its input.
        scope.spawn(move || drop(stdin.write_all(input.as_bytes())));
        child.wait_with_output().unwrap()
    })
}

//! Lines on their way to stderr: bounded, and written by a thread of their own, so that a reader
//! that falls asleep stops the log and nothing else.
//!
//! By hand. tracing-appender does nearly this, but it bounds the number of lines and not their
//! bytes, does not tell a reader what it dropped, and at the end waits for 1.1 seconds and then
//! prints to stdout, which is the protocol under `stdio`, and may be full itself.

use std::{
    io::{self, ErrorKind, Write},
    mem,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// How much may wait. As much again may be on its way out.
const MAX_WAITING_BYTES: usize = 1024 * 1024;
/// The pause before writing again to a stream that does not block and takes nothing now.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// Lines that wait to be written.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    written: Condvar,
}

#[derive(Default)]
struct State {
    /// Whole lines, with their ends.
    waiting: Vec<u8>,
    /// How many lines did not fit.
    dropped: u64,
    /// Whether lines that were taken from here are being written.
    writing: bool,
}

impl State {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.dropped == 0
    }
}

impl Queue {
    /// Adds a line with its end, or counts it if it does not fit. Never blocks.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        // After a dropped line no shorter one gets in, so that the count stands where lines are
        // missing.
        if state.dropped > 0 || state.waiting.len() + line.len() > MAX_WAITING_BYTES {
            state.dropped += 1;
        } else {
            state.waiting.extend_from_slice(line);
        }
        if !state.writing {
            self.filled.notify_one();
        }
    }

    /// Waits until everything is written, at most for `timeout`.
    pub(super) fn flush(&self, timeout: Duration) {
        let unwritten = |state: &mut State| state.writing || !state.is_empty();
        drop(
            self.written
                .wait_timeout_while(self.lock(), timeout, unwritten),
        );
    }

    /// Writes lines to `out` for ever. Reports how many were dropped, once there is room again.
    pub(super) fn write_to(&self, mut out: impl Write, report_dropped: impl Fn(u64)) -> ! {
        loop {
            self.write_waiting(&mut out, &report_dropped);
        }
    }

    /// Waits for lines and writes them.
    fn write_waiting(&self, out: &mut impl Write, report_dropped: impl Fn(u64)) {
        let (lines, dropped) = self.take();
        if dropped > 0 {
            // Adds a line to the queue, which was emptied just now.
            report_dropped(dropped);
        }
        // One by one: other processes may write to the same stream.
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            // Nobody is left to tell that the log cannot be written.
            let _ = write_line(out, line);
        }
        self.lock().writing = false;
        self.written.notify_all();
    }

    /// Waits for lines; takes them, and how many were dropped after them.
    fn take(&self) -> (Vec<u8>, u64) {
        let mut state = self
            .filled
            .wait_while(self.lock(), |state| state.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        state.writing = true;
        (mem::take(&mut state.waiting), mem::take(&mut state.dropped))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a line. Waits for a stream that was set not to block, as a parent that shares it may do.
fn write_line(out: &mut impl Write, mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match out.write(line) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(length) => line = line.get(length..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY_INTERVAL),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Lines that together fill the queue.
    fn fill(queue: &Queue) -> usize {
        let line = format!("{}\n", "x".repeat(1023));
        let count = MAX_WAITING_BYTES / line.len();
        for _ in 0..count {
            queue.push(line.as_bytes());
        }
        count
    }

    #[test]
    fn lines_that_do_not_fit_are_dropped_and_counted_once_there_is_room() {
        let queue = Queue::default();
        let count = fill(&queue);
        queue.push(b"too much\n");
        queue.push(b"and more\n");
        let mut out = Vec::new();
        let report = |dropped| queue.push(format!("{dropped} dropped\n").as_bytes());

        queue.write_waiting(&mut out, report);
        queue.push(b"after\n");
        queue.write_waiting(&mut out, report);

        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), count + 2);
        assert_eq!(lines[count..], ["2 dropped", "after"]);
    }

    #[test]
    fn a_line_longer_than_the_queue_is_dropped() {
        let queue = Queue::default();
        let reported = Cell::new(0);

        queue.push(&vec![b'x'; MAX_WAITING_BYTES + 1]);
        queue.write_waiting(&mut Vec::new(), |dropped| reported.set(dropped));

        assert_eq!(reported.get(), 1);
    }

    #[test]
    fn flushing_a_stuck_queue_ends() {
        let queue = Queue::default();
        queue.push(b"nobody writes this\n");

        queue.flush(Duration::from_millis(1));

        assert!(!queue.lock().is_empty());
    }

    #[test]
    fn a_stream_that_does_not_block_gets_every_byte() {
        /// Takes one byte of every two attempts.
        struct Reluctant(Vec<u8>, bool);

        impl Write for Reluctant {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.1 = !self.1;
                if self.1 {
                    return Err(ErrorKind::WouldBlock.into());
                }
                self.0.push(bytes[0]);
                Ok(1)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        let mut out = Reluctant(Vec::new(), false);

        write_line(&mut out, b"all\n").unwrap();

        assert_eq!(out.0, b"all\n");
    }
}

//! Lines that wait for a thread of their own to write them.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::telemetry::process::DroppedLines;

/// How many lines wait at most, besides those that are being written (as many again).
pub(super) const CAPACITY: usize = 1024;

/// The pause before a descriptor that takes nothing now is tried again.
const PAUSE: Duration = Duration::from_millis(10);

/// A bounded queue, and the thread that empties it.
#[derive(Debug)]
pub(super) struct Queue {
    /// Taken for a moment only, and never while something is written.
    state: Mutex<State>,
    /// There is something to write, or the end.
    filled: Condvar,
    /// All is written.
    emptied: Condvar,
    /// All that found no room, ever.
    pub(super) dropped: DroppedLines,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    /// Lines that came after those and found no room.
    dropped: u64,
    /// Whether the thread holds lines that it has not written yet.
    writing: bool,
    closed: bool,
}

impl State {
    fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.dropped == 0
    }
}

impl Queue {
    /// Starts a thread that writes to `output`; `dropped` makes the line that tells how many
    /// lines are missing before the next.
    pub(super) fn start(
        output: impl Write + Send + 'static,
        dropped: impl Fn(u64) -> Vec<u8> + Send + 'static,
    ) -> io::Result<Arc<Self>> {
        let queue = Arc::new(Self {
            state: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            dropped: DroppedLines::default(),
        });
        let own = Arc::clone(&queue);
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || own.run(output, dropped))?;
        Ok(queue)
    }

    /// Adds a line, or counts it as dropped.
    fn push(&self, line: &[u8]) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        if state.lines.len() < CAPACITY {
            state.lines.push_back(line.to_owned());
        } else {
            state.dropped += 1;
            self.dropped.add_one();
        }
        drop(state);
        self.filled.notify_one();
    }

    /// Takes no more lines, and waits until the others are written, for so long at most.
    pub(super) fn close(&self, patience: Duration) {
        let mut state = self.state.lock();
        state.closed = true;
        self.filled.notify_one();
        let unwritten = |state: &mut State| state.writing || !state.is_empty();
        // A writer that is stuck is left behind: it ends with the process.
        let _ = self.emptied.wait_while_for(&mut state, unwritten, patience);
    }

    fn run(&self, mut output: impl Write, dropped: impl Fn(u64) -> Vec<u8>) {
        while let Some((lines, missing)) = self.take() {
            for line in lines {
                write(&mut output, &line);
            }
            if missing > 0 {
                write(&mut output, &dropped(missing));
            }
        }
    }

    /// All that waits and how many lines came after it and were dropped, once there is any;
    /// nothing when there will be no more.
    fn take(&self) -> Option<(VecDeque<Vec<u8>>, u64)> {
        let mut state = self.state.lock();
        state.writing = false;
        if state.is_empty() {
            self.emptied.notify_all();
        }
        let wanting = |state: &mut State| state.is_empty() && !state.closed;
        self.filled.wait_while(&mut state, wanting);
        if state.is_empty() {
            return None;
        }
        state.writing = true;
        let lines = std::mem::take(&mut state.lines);
        Some((lines, std::mem::take(&mut state.dropped)))
    }
}

/// Writes a line as far as `output` takes it: there is nobody to tell that it does not.
fn write(output: &mut impl Write, mut line: &[u8]) {
    while !line.is_empty() {
        match output.write(line) {
            Ok(0) => return,
            Ok(count) => line = &line[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Another process has set the shared descriptor so.
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(_) => return,
        }
    }
}

/// Each write is a line.
impl Write for &Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! Lines on their way to a reader who may be slow or gone: handing one over never waits. What there is no room for is
//! dropped, counted, and told as soon as lines are taken again.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What lines may take in memory while nobody reads them.
pub const WAITING_BYTES: usize = 8 << 20;
/// What a line takes beside its text.
const OVERHEAD: usize = 64;

/// The line that tells how many were dropped before it.
type Notice = fn(u64) -> Vec<u8>;

/// A queue that one thread empties into a file, a pipe or a terminal.
#[derive(Clone)]
pub struct LineQueue {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    room: usize,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    dropped: u64,
    /// The thread has lines in its hands.
    writing: bool,
    /// The reader has gone, or no thread could be started: nothing is kept any more.
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every state is a good one: what a thread that panicked has left is gone on with.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LineQueue {
    /// Starts the thread that writes to `out`. Lines may take `room` bytes while they wait.
    pub fn start(name: &str, room: usize, out: impl Write + Send + 'static, notice: Notice) -> LineQueue {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), room });
        let work = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || work.write_to(out, notice));
        if thread.is_err() {
            shared.lock().closed = true;
        }
        LineQueue { shared }
    }

    /// Hands over a line with its end. Never waits.
    pub fn push(&self, line: Vec<u8>) {
        let mut state = self.shared.lock();
        if state.closed {
            return;
        }
        let size = line.len() + OVERHEAD;
        if state.bytes + size > self.shared.room {
            state.dropped += 1;
            return;
        }
        state.bytes += size;
        state.lines.push_back(line);
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Waits until all lines are written, or the time is over.
    pub fn flush(&self, time: Duration) {
        let deadline = Instant::now() + time;
        let mut state = self.shared.lock();
        while !state.closed && (state.writing || !state.lines.is_empty()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    fn write_to(&self, mut out: impl Write, notice: Notice) {
        loop {
            let mut state = self.lock();
            while state.lines.is_empty() {
                state.writing = false;
                self.changed.notify_all();
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.writing = true;
            // What was dropped came behind these lines and before whatever is pushed from now on.
            let dropped = std::mem::take(&mut state.dropped);
            let mut lines = std::mem::take(&mut state.lines);
            drop(state);
            if dropped > 0 {
                lines.push_back(notice(dropped));
            }
            for line in lines {
                // A full disk may have room again later; a reader that has gone does not come back, and costs no more than
                // this.
                let _lost = out.write_all(&line);
                let mut state = self.lock();
                state.bytes = state.bytes.saturating_sub(line.len() + OVERHEAD);
            }
            let _lost = out.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use std::io::Read;

    #[test]
    fn a_reader_that_sleeps_holds_nobody_up_and_is_told_what_it_missed() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let queue = LineQueue::start("test", 1 << 20, writer, |dropped| format!("{dropped} dropped\n").into_bytes());
        const LINES: usize = 20_000;
        for number in 0..LINES {
            queue.push(format!("{number:0>199}\n").into_bytes());
        }
        queue.flush(Duration::from_millis(10));
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            loop {
                let read = reader.read(&mut part).unwrap();
                sender.send(part[..read].to_vec()).unwrap();
            }
        });
        let mut text = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(60);
        let (mut whole, mut missed) = (0, 0);
        while whole + missed < LINES {
            text.extend(lines.recv_timeout(deadline.saturating_duration_since(Instant::now())).expect("all is told"));
            let told = String::from_utf8_lossy(&text);
            whole = told.lines().filter(|line| line.len() == 199).count();
            let notices = told.lines().filter_map(|line| line.strip_suffix(" dropped")?.parse::<usize>().ok());
            missed = notices.sum();
        }
        assert_eq!(whole + missed, LINES);
        assert!(whole * 200 <= (1 << 20) + (64 << 10) + 4096, "{whole}");
    }
}

//! The clock by which guests are interrupted: it raises an engine's epoch every tick.
//!
//! A host that is idle has no guest to interrupt, and two hundred wake-ups a second would be most of what it does. So the
//! clock rests when no guest has been there for a while, and goes on with the next one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use wasmtime::Engine;

use crate::error::SandboxError;

/// So long nobody has to be there before it rests: guests that follow each other closely need not wake it.
const REST_AFTER: Duration = Duration::from_secs(1);

/// Raises the engine's epoch every tick while guests are there, until dropped.
pub(crate) struct Ticker {
    ticks: Arc<Ticks>,
    thread: Option<JoinHandle<()>>,
}

struct Ticks {
    stopped: Mutex<bool>,
    wake: Condvar,
    guests: AtomicUsize,
    /// The thread rests, or is about to and will look at the guests once more.
    rests: AtomicBool,
}

/// A guest may compute for as long as this is there.
pub(crate) struct Ticking<'a>(&'a Ticks);

impl Ticker {
    pub(crate) fn start(engine: Engine, tick: Duration) -> Result<Ticker, SandboxError> {
        let ticks = Arc::new(Ticks {
            stopped: Mutex::new(false),
            wake: Condvar::new(),
            guests: AtomicUsize::new(0),
            rests: AtomicBool::new(false),
        });
        let seen = Arc::clone(&ticks);
        let thread = std::thread::Builder::new()
            .name("sandbox-ticker".to_owned())
            .spawn(move || seen.run(&engine, tick))
            .map_err(|error| SandboxError::Engine {
                reason: format!("cannot start a thread: {error}"),
                source: Some(Arc::new(error)),
            })?;
        Ok(Ticker { ticks, thread: Some(thread) })
    }

    /// Has the epoch raised for a guest. To be called before the guest's deadline is set, because that is counted in epochs from
    /// then on.
    pub(crate) fn ticking(&self) -> Ticking<'_> {
        self.ticks.guests.fetch_add(1, Ordering::SeqCst);
        // Either this sees that the thread rests, or the thread sees the guest: each writes first and then reads, in one order
        // of all four.
        if self.ticks.rests.load(Ordering::SeqCst) {
            // The thread looks at the guests and goes to sleep under this lock, so it cannot miss the notice in between.
            drop(self.ticks.stopped.lock());
            self.ticks.wake.notify_all();
        }
        Ticking(&self.ticks)
    }
}

impl Ticks {
    fn run(&self, engine: &Engine, tick: Duration) {
        let mut stopped = self.stopped.lock();
        let mut without_guests = Duration::ZERO;
        while !*stopped {
            self.wake.wait_for(&mut stopped, tick);
            engine.increment_epoch();
            match self.guests.load(Ordering::SeqCst) {
                0 => without_guests += tick,
                _ => without_guests = Duration::ZERO,
            }
            if without_guests >= REST_AFTER {
                self.rests.store(true, Ordering::SeqCst);
                while !*stopped && self.guests.load(Ordering::SeqCst) == 0 {
                    self.wake.wait(&mut stopped);
                }
                self.rests.store(false, Ordering::SeqCst);
                without_guests = Duration::ZERO;
            }
        }
    }
}

impl Drop for Ticking<'_> {
    fn drop(&mut self) {
        self.0.guests.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        *self.ticks.stopped.lock() = true;
        self.ticks.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            // The thread cannot panic; if it did there is nothing left to stop.
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::time::Instant;

    use wasmtime::{Config, Instance, Module, Store};

    use super::*;

    fn until(what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_so() {
            assert!(Instant::now() < deadline, "not in time: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Runs a guest that computes without end; it ends when the epoch is raised.
    fn is_interrupted(engine: &Engine, ticker: &Ticker) -> bool {
        let code = wat::parse_str("(module (func (export \"spin\") (loop br 0)))").unwrap();
        let module = Module::new(engine, code).unwrap();
        let _ticking = ticker.ticking();
        let mut store = Store::new(engine, ());
        store.set_epoch_deadline(1);
        let instance = Instance::new(&mut store, &module, &[]).unwrap();
        instance.get_typed_func::<(), ()>(&mut store, "spin").unwrap().call(&mut store, ()).is_err()
    }

    #[test]
    fn it_rests_without_guests_and_interrupts_the_next_one_all_the_same() {
        let engine = Engine::new(Config::new().epoch_interruption(true)).unwrap();
        let ticker = Ticker::start(engine.clone(), Duration::from_millis(5)).unwrap();
        for _ in 0..2 {
            assert!(is_interrupted(&engine, &ticker));
            until("it rests", || ticker.ticks.rests.load(Ordering::SeqCst));
        }
        let guest = ticker.ticking();
        until("it goes on", || !ticker.ticks.rests.load(Ordering::SeqCst));
        drop(guest);
    }

    #[test]
    fn guests_that_come_whenever_it_is_about_to_rest_are_all_interrupted() {
        let engine = Engine::new(Config::new().epoch_interruption(true)).unwrap();
        // A tick as long as the time without guests: it rests whenever a tick has passed without one.
        let ticker = Ticker::start(engine.clone(), REST_AFTER).unwrap();
        std::thread::scope(|scope| {
            for number in 0..8 {
                let (engine, ticker) = (&engine, &ticker);
                scope.spawn(move || {
                    std::thread::sleep(REST_AFTER / 8 * number);
                    assert!(is_interrupted(engine, ticker));
                });
            }
        });
    }

    #[test]
    fn one_that_rests_can_be_stopped() {
        let ticker = Ticker::start(Engine::default(), REST_AFTER).unwrap();
        until("it rests", || ticker.ticks.rests.load(Ordering::SeqCst));
        drop(ticker);
    }
}

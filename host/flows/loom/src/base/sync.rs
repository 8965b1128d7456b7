//! What the modules get in place of the primitives of the standard library.

pub(crate) use loom::sync::Arc;
pub(crate) use loom::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use loom::sync::{Condvar, MutexGuard};

/// A lock that is never poisoned, as that of `parking_lot`.
#[derive(Debug)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub fn new(value: T) -> Mutex<T> {
        Mutex(loom::sync::Mutex::new(value))
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        match self.0.lock() {
            Ok(guard) => guard,
            Err(poisoned) => poisoned.into_inner(),
        }
    }
}

/// As tokio's: a wake-up that nobody waits for is kept for the next who does.
#[derive(Debug)]
pub(crate) struct Notify {
    permit: loom::sync::Mutex<bool>,
    given: Condvar,
}

impl Notify {
    pub fn new() -> Notify {
        Notify { permit: loom::sync::Mutex::new(false), given: Condvar::new() }
    }

    pub fn wake(&self) {
        if let Ok(mut permit) = self.permit.lock() {
            *permit = true;
        }
        self.given.notify_one();
    }

    pub fn wait(&self) {
        let Ok(mut permit) = self.permit.lock() else { return };
        while !*permit {
            permit = match self.given.wait(permit) {
                Ok(permit) => permit,
                Err(poisoned) => poisoned.into_inner(),
            };
        }
        *permit = false;
    }
}

//! When the broker was last heard.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

/// The moment in which something last came from the broker, on any connection of the host. A broker says something on an idle
/// connection before the idle timeout that the host asks for has passed. Cloning gives another handle to the same moment.
#[derive(Debug, Clone)]
pub(crate) struct Heard(Arc<Mutex<Instant>>);

impl Heard {
    /// Of a broker that is about to be connected to.
    pub fn new() -> Heard {
        Heard(Arc::new(Mutex::new(Instant::now())))
    }

    /// Something comes now.
    pub fn note(&self) {
        *self.0.lock() = Instant::now();
    }

    pub fn last(&self) -> Instant {
        *self.0.lock()
    }
}

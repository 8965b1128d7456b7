//! Where hosts that run flows for each other share their components.

use maxhost_model::Problem;

use crate::ComponentHash;

/// Components that several hosts have in common. A host offers what is installed before any flow can be started on it, and
/// fetches what a flow of another host was started on. All of it blocks.
pub trait SharedCode: Send + Sync {
    /// Makes a component durable for the others.
    ///
    /// # Errors
    /// It cannot be kept for the moment.
    fn offer(&self, hash: &ComponentHash, bytes: &[u8]) -> Result<(), Problem>;

    /// The bytes of a component that somebody has offered; `None` if nobody has.
    ///
    /// # Errors
    /// It cannot be read for the moment.
    fn fetch(&self, hash: &ComponentHash) -> Result<Option<Vec<u8>>, Problem>;
}

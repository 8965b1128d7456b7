//! Code of CorDapps in a database that several hosts share, so that each of them can go on with any flow.

use std::collections::HashSet;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::StoreError;

/// The SHA-256 of a component's bytes.
pub type ComponentHash = [u8; 32];

/// Components in the database. They are there before a flow is started on them, and go when nobody needs them: a host says
/// now and then which it uses.
#[async_trait]
pub trait SharedComponents: Send + Sync {
    /// Which of these there are. They count as used now.
    ///
    /// # Errors
    /// The retriable ones, and [`StoreError::Closed`].
    async fn use_components(&self, hashes: &[ComponentHash]) -> Result<HashSet<ComponentHash>, StoreError>;

    /// Adds a component; one that is there stays as it is, and counts as used now. It is durable when this returns. The
    /// bytes are not compared with the hash.
    ///
    /// # Errors
    /// As [`SharedComponents::use_components`].
    async fn put_component(&self, hash: &ComponentHash, bytes: Bytes) -> Result<(), StoreError>;

    /// The bytes of a component; `None` if it is not there.
    ///
    /// # Errors
    /// As [`SharedComponents::use_components`].
    async fn component(&self, hash: &ComponentHash) -> Result<Option<Bytes>, StoreError>;

    /// Those that nobody has used for a day, except for the `newest` ones of them.
    ///
    /// # Errors
    /// As [`SharedComponents::use_components`].
    async fn unused_components(&self, newest: u32) -> Result<Vec<ComponentHash>, StoreError>;

    /// Removes these, except those that were used within a day. Gives how many went.
    ///
    /// # Errors
    /// As [`SharedComponents::use_components`].
    async fn remove_components(&self, hashes: &[ComponentHash]) -> Result<u64, StoreError>;
}

//! Messages that a broker has confirmed, kept for a while in a database that several hosts share: a broker that loses what
//! it had is given them again.
//!
//! What a broker has is told by a marker, something that only a broker with all that it was given can have. Each marker has
//! a number, and the database has that of the present one. A message is kept under the number of a marker that was seen in
//! the broker before the message was sent. So when another marker is set because that one is gone, the messages that may be
//! gone with it are those that are kept under other numbers than the present one, whenever they come to be kept.

use std::time::Duration;

use async_trait::async_trait;

use crate::error::StoreError;

/// The messages that are kept. Nothing else that reads messages for the broker sees them.
#[async_trait]
pub trait KeptMessages: Send + Sync {
    /// The number of the present marker; 0 if none was ever set.
    ///
    /// # Errors
    /// The retriable ones, and [`StoreError::Closed`].
    async fn marker(&self) -> Result<i64, StoreError>;

    /// Gives the number of the next marker, which is the present one from now on; `None` if `present` is not the present one
    /// any more, because another host was first. It is durable when this returns.
    ///
    /// # Errors
    /// As [`KeptMessages::marker`]; then it is not known whether there is a next one.
    async fn next_marker(&self, present: i64) -> Result<Option<i64>, StoreError>;

    /// Puts up to `limit` messages of each database that are kept under another marker than this one behind those that wait
    /// for the broker. Those of an identity whose rows are being written are left for the next time. Gives how many there
    /// were. Several hosts may do so at once: each message is put there by one of them.
    ///
    /// # Errors
    /// As [`KeptMessages::marker`].
    async fn send_again(&self, marker: i64, limit: u32) -> Result<u64, StoreError>;

    /// Forgets up to `limit` messages of each database that are kept under this marker: those that have been kept for so
    /// long, in the time that hosts run, and the oldest ones beyond `newest`. Gives how many went.
    ///
    /// # Errors
    /// As [`KeptMessages::marker`].
    async fn forget(&self, marker: i64, after: Duration, newest: u64, limit: u32) -> Result<u64, StoreError>;
}

//! Markers, by which a broker that has lost what it had is told from one that has it.

use async_trait::async_trait;

use crate::error::BrokerError;
use crate::queue_name::QueueName;

/// Durable queues that nothing is put into. A broker whose disk was emptied has lost them with all others, and one that was
/// put back to an earlier state has those of that time.
#[async_trait]
pub trait Markers: Send + Sync {
    /// Whether the broker has this marker. It is not made by asking.
    ///
    /// # Errors
    /// [`crate::Permanent::Closed`], and the transient ones: it is not known.
    async fn has_marker(&self, name: &QueueName) -> Result<bool, BrokerError>;

    /// Makes this marker, in one attempt: if it fails, the marker may be there all the same.
    ///
    /// # Errors
    /// [`crate::Permanent::Closed`], and the transient ones.
    async fn make_marker(&self, name: &QueueName) -> Result<(), BrokerError>;
}

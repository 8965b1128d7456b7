//! What an ownership service does for a host.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::error::OwnershipError;

/// The right to run an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Which.
    pub identity: Arc<str>,
    /// Higher than that of every claim of this identity before: to be written to the database before anything else.
    pub epoch: i64,
}

/// Who owns an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Which.
    pub identity: Arc<str>,
    /// The host.
    pub host: Arc<str>,
    /// Of its claim.
    pub epoch: i64,
}

/// How a host stands with the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// All is well.
    Connected,
    /// The service cannot be reached. What the host owned is still its own, for now: start no new work. An
    /// implementation with sessions that time out goes on to `Lost` by the host's own clock, before anybody else can
    /// be given what it owned.
    Suspended,
    /// The session is over and everything it owned is free. When the state is `Connected` again it is another session,
    /// which owns nothing.
    Lost,
    /// The host has left.
    Closed,
}

/// Something changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Somebody claimed an identity.
    Claimed(Owner),
    /// An identity is free: its owner let it go, or was lost.
    Released(Owner),
    /// Changes were missed: ask [`Ownership::owners`] how things are.
    Missed,
}

/// An identity that somebody wants to have running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// Which.
    pub identity: Arc<str>,
    /// How long to leave it to hosts that have more room ([`crate::turns`]). If somebody owns it then, it is served.
    pub turn: Duration,
}

/// A host's connection to the service. Every call ends within the service's timeout.
#[async_trait]
pub trait Ownership: Send + Sync + 'static {
    /// This host's name.
    fn host(&self) -> &str;

    /// Claims an identity whose epoch in the database is `stored_epoch`. Ends the demand for it.
    ///
    /// # Errors
    /// [`OwnershipError::Owned`], also when this host is the owner, and the retriable ones. After those the claim may
    /// have been made all the same: release it, or claim again and look at the owner.
    async fn claim(&self, identity: &str, stored_epoch: i64) -> Result<Claim, OwnershipError>;

    /// Lets an identity go; true if this host owned it.
    ///
    /// Messages may have come in the meantime: look once more, and [`Ownership::demand`] it if so.
    ///
    /// # Errors
    /// The retriable ones.
    async fn release(&self, identity: &str) -> Result<bool, OwnershipError>;

    /// Who owns what, of all hosts, by identity.
    ///
    /// # Errors
    /// The retriable ones.
    async fn owners(&self) -> Result<Vec<Owner>, OwnershipError>;

    /// Changes from now on.
    fn changes(&self) -> Box<dyn Changes>;

    /// How this host stands with the service.
    fn session(&self) -> watch::Receiver<SessionState>;

    /// Asks that somebody run an identity. Stays until it is claimed; asking again, or for one that is owned, does
    /// nothing.
    ///
    /// # Errors
    /// The retriable ones.
    async fn demand(&self, identity: &str) -> Result<(), OwnershipError>;

    /// Demands that this host may serve, open ones and new ones: only while it offers slots.
    fn demands(&self) -> Box<dyn Demands>;

    /// Tells how many more identities this host can take; it starts with none. Others see it and give way.
    ///
    /// # Errors
    /// The retriable ones.
    async fn offer(&self, free_slots: u32) -> Result<(), OwnershipError>;

    /// Lets everything go and leaves; every call from then on fails with [`OwnershipError::Closed`].
    async fn close(&self);
}

/// Changes of ownership.
#[async_trait]
pub trait Changes: Send {
    /// The next one; `None` when the host has left. Giving up waiting loses nothing.
    async fn next(&mut self) -> Option<Change>;
}

/// Demands for identities.
#[async_trait]
pub trait Demands: Send {
    /// The next one; `None` when the host has left. Giving up waiting loses nothing. Each open demand is told once, and
    /// again after the host had no slots or no connection.
    async fn next(&mut self) -> Option<Demand>;
}

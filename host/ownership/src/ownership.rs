//! What an ownership service does for a host.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use maxhost_model::{Claim, FencingToken, RunId, SecureHash};
use tokio::sync::watch;

use crate::error::OwnershipError;
use crate::owner::Owner;
use crate::roles::Roles;

/// What a host's own copy of the list of owners says. It may be behind, so it serves to decide whether to ask or to
/// ring, never whether to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ownedness {
    /// Somebody owned the identity when the copy was last brought up to date.
    Owned(Owner),
    /// Nobody did.
    Free,
    /// There is no copy, because the service is not connected.
    Unknown,
}

/// How a host stands with the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// The service answers.
    Connected,
    /// The service does not answer. What the host owned is still its own, for now: it starts no new work.
    Suspended,
    /// The session is over, and everything it owned is free or will be soon. The host decides this by its own clock,
    /// before the service may give away what it owned.
    Lost,
    /// The host has left.
    Closed,
}

/// A host's session. Whoever owned something in a session with another number than the present one has lost it, also
/// if he has not seen the state in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Rises with every session of this run, from 1.
    pub number: u64,
    /// How the session stands.
    pub state: SessionState,
}

/// Something about owners changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Somebody claimed an identity.
    Claimed(Owner),
    /// An identity is free: its owner let it go, or was lost.
    Released(Owner),
    /// Changes were missed: ask [`Ownership::owners`] how things are.
    Missed,
}

/// Longest message that comes with a demand, in bytes. All hosts read it, and the service keeps it for as long as the demand.
pub const DEMAND_MESSAGE_BYTES: usize = 2048;

/// An identity that somebody wants to have running and that nobody owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// The fingerprint of the identity's key.
    pub identity: SecureHash,
    /// How long this host leaves the demand to hosts that come before it ([`crate::rendezvous`]). If somebody owns the
    /// identity by then, it is served.
    pub turn: Duration,
    /// What whoever raised it last has said with it ([`Ownership::demand_with`]).
    pub message: Option<Arc<[u8]>>,
}

/// The state of a demand at one moment: it differs after every [`Ownership::demand`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DemandVersion {
    /// Which creation of the demand it was.
    pub created: i64,
    /// How often it was raised since.
    pub bumps: i64,
}

/// How a clean sleep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slept {
    /// The identity is free and nobody wants it.
    Asleep,
    /// The identity is free, and it was demanded since the version that its owner had seen: the demand stays.
    Wanted,
    /// This host did not own the identity; nothing was changed.
    NotOwner,
}

/// What a host tells the others of the parts that all of them share, beside this service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// The parts that it does not reach, or has not reached for long enough again. All hosts name a part alike.
    pub missed: Vec<String>,
    /// It has given up what it ran, and takes nothing, because another host reaches more.
    pub stands_back: bool,
}

/// A host of the cluster, as the others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostInfo {
    /// The name of the host.
    pub name: Arc<str>,
    /// The present start of its process.
    pub run: RunId,
    /// How many more identities it can take.
    pub free_slots: u32,
    /// Since when it has its session, in milliseconds since 1970.
    pub since_ms: i64,
    /// Somebody has asked it to give up what it owns and to take nothing more.
    pub draining: bool,
    /// What it does.
    pub roles: Roles,
    /// Words that stand for it beside its name, by which manifests may name several hosts at once.
    pub labels: Arc<[Arc<str>]>,
    /// What it reaches; `None` if it has not told.
    pub reach: Option<Reach>,
}

/// A host's connection to the service. Identities are named by the fingerprint of their key
/// (`PublicKey::fingerprint`). Every call ends within the service's timeout.
///
/// A claim does not end the demand for its identity: the demand outlives the owner, so that work of an owner that dies
/// is not forgotten. Only [`Ownership::sleep`] ends it. The service is a hint about who should try; who may write is
/// decided by the database alone, which compares the claim.
#[async_trait]
pub trait Ownership: Send + Sync + 'static {
    /// This host's name.
    fn host(&self) -> &str;

    /// This start of the process: part of every claim.
    fn run(&self) -> RunId;

    /// Claims an identity whose claim in the database is `stored`, and makes sure that there is a demand for it. The
    /// answer is above `stored` and above every claim of this identity that the service ever gave. It must be written
    /// to the database before anything is read there. A host that owns the identity in its present session is given
    /// its claim again.
    ///
    /// # Errors
    /// [`crate::Lost::Owned`] if another host is the owner; [`crate::Permanent::Behind`] if the service cannot rise
    /// above `stored`; after a transient error the claim may have been made all the same: claim again, or release.
    async fn claim(&self, identity: SecureHash, stored: FencingToken) -> Result<Claim, OwnershipError>;

    /// The demand for an identity as it is now; `None` if there is none. Whoever lets an identity sleep reads this
    /// first, then looks for work that is left, and then gives the version to [`Ownership::sleep`].
    ///
    /// # Errors
    /// Transient and permanent ones.
    async fn demand_version(&self, identity: SecureHash) -> Result<Option<DemandVersion>, OwnershipError>;

    /// Lets an identity go because nothing is left to do for it, and ends the demand for it if that still has the
    /// version `seen`. The two happen together or not at all. A demand that was raised meanwhile stays, and is told to
    /// the hosts at once. Does nothing if this host's session is not the one that claimed.
    ///
    /// # Errors
    /// Transient and permanent ones, and [`crate::Lost::SessionOver`].
    async fn sleep(&self, identity: SecureHash, seen: Option<DemandVersion>) -> Result<Slept, OwnershipError>;

    /// Lets an identity go while there is work for it: the demand stays (and is made if there is none), so that another
    /// host takes over. `target` names the host that should; the others give it precedence for
    /// [`crate::rendezvous::TARGET`]. Returns true if this host owned the identity.
    ///
    /// # Errors
    /// Transient and permanent ones, and [`crate::Lost::SessionOver`].
    async fn hand_over(&self, identity: SecureHash, target: Option<&str>) -> Result<bool, OwnershipError>;

    /// Who owns what, of all hosts, as the service has it now.
    ///
    /// # Errors
    /// Transient and permanent ones.
    async fn owners(&self) -> Result<Vec<Owner>, OwnershipError>;

    /// Who owns an identity, from this host's own copy and without waiting.
    fn owner_of(&self, identity: &SecureHash) -> Ownedness;

    /// Changes of owners from now on.
    fn changes(&self) -> Box<dyn Changes>;

    /// How this host stands with the service.
    fn session(&self) -> watch::Receiver<Session>;

    /// Asks that somebody run an identity; returns when the wish is durable. Asking again raises the version of the
    /// demand, also while the identity is owned: so an owner that is about to let it sleep finds that it is wanted.
    ///
    /// # Errors
    /// Transient and permanent ones.
    async fn demand(&self, identity: SecureHash) -> Result<(), OwnershipError>;

    /// As [`Ownership::demand`], with a message for whoever opens the identity. It is a hint that saves time: it is forgotten
    /// when the demand is raised again, and it is not taken along if it has more than [`DEMAND_MESSAGE_BYTES`]. It may be told
    /// to several hosts, and again to a later owner. Who has written it the service does not tell.
    ///
    /// # Errors
    /// Transient and permanent ones: the demand may have been raised all the same, with the message.
    async fn demand_with(&self, identity: SecureHash, message: Arc<[u8]>) -> Result<(), OwnershipError>;

    /// Demands that this host may serve, present ones and new ones: only while it offers slots.
    fn demands(&self) -> Box<dyn Demands>;

    /// The identities that are demanded and that nobody owns.
    ///
    /// # Errors
    /// Transient and permanent ones: not to know is never the same as none.
    async fn wanted(&self) -> Result<Vec<SecureHash>, OwnershipError>;

    /// The identities that are demanded, whether somebody owns them or not. A demand lasts until its identity sleeps, so
    /// this is what there must be room for.
    ///
    /// # Errors
    /// Transient and permanent ones: not to know is never the same as none.
    async fn demanded(&self) -> Result<Vec<SecureHash>, OwnershipError>;

    /// Tells how many more identities this host can take; it starts with none. Others see it and give way.
    ///
    /// # Errors
    /// Transient and permanent ones.
    async fn offer(&self, free_slots: u32) -> Result<(), OwnershipError>;

    /// Tells what this host reaches of the parts that hosts share; it stays told in later sessions. Others see it.
    ///
    /// # Errors
    /// Transient and permanent ones.
    async fn tell_reach(&self, reach: Reach) -> Result<(), OwnershipError>;

    /// The hosts that have a session, by name.
    ///
    /// # Errors
    /// Transient and permanent ones.
    async fn hosts(&self) -> Result<Vec<HostInfo>, OwnershipError>;

    /// The same from this host's own copy, without waiting: it may be behind. `None` if there is no copy, because the service is
    /// not connected.
    fn known_hosts(&self) -> Option<Vec<HostInfo>>;

    /// Asks the host of this name to give up what it owns and to take nothing more, or to take identities again. The wish
    /// stays until it is taken back, also while the host is away. True if the host was not asked for the same before; after a
    /// call whose answer was lost that may be wrong.
    ///
    /// # Errors
    /// Transient and permanent ones.
    async fn set_draining(&self, host: &str, draining: bool) -> Result<bool, OwnershipError>;

    /// Whether this host is asked to give up what it owns, as far as it knows.
    fn draining(&self) -> watch::Receiver<bool>;

    /// Makes this host the scheduler of the cluster if there is none; whether it is the scheduler now. It stays that until it
    /// resigns or its session is over. Who is told that he is may have lost it a moment later, so what a scheduler does must
    /// do no harm when two do it.
    ///
    /// # Errors
    /// Transient and permanent ones, and [`crate::Lost::SessionOver`].
    async fn campaign(&self) -> Result<bool, OwnershipError>;

    /// Makes room for another scheduler, if this host's present session is it.
    ///
    /// # Errors
    /// Transient and permanent ones, and [`crate::Lost::SessionOver`].
    async fn resign(&self) -> Result<(), OwnershipError>;

    /// The name of the scheduler, as far as this host knows; `None` if there is none, or that is not known.
    fn scheduler(&self) -> watch::Receiver<Option<Arc<str>>>;

    /// Lets everything go and leaves; demands stay. Every call from then on fails with [`crate::Permanent::Closed`].
    async fn close(&self);
}

/// Changes of ownership.
#[async_trait]
pub trait Changes: Send {
    /// The next change; `None` when the host has left. Giving up waiting loses nothing.
    async fn next(&mut self) -> Option<Change>;
}

/// Demands for identities.
#[async_trait]
pub trait Demands: Send {
    /// The next demand; `None` when the host has left. Giving up waiting loses nothing.
    ///
    /// A demand is told while nobody owns the identity: once when it is made or raised, once more each time an owner
    /// goes and leaves it behind, and again after this host had no slots or no connection.
    async fn next(&mut self) -> Option<Demand>;
}

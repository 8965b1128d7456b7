//! An identity that is open.

use std::sync::Arc;

use maxhost_pki::OpenIdentity;
use maxhost_store::{Author, Claim};

use crate::guests::placement::CordappSet;
use crate::ledger::notary_queue::NotaryQueue;
use crate::ledger::resolving::Resolving;
use crate::options::IdentityLimits;
use crate::registry::entry::IdentityEntry;

/// An identity whose keys, CorDapps and claim are in memory. Authority comes from here, never from a guest.
pub(crate) struct Opened {
    pub entry: Arc<IdentityEntry>,
    pub keys: Arc<OpenIdentity>,
    pub cordapps: Arc<CordappSet>,
    /// The claim that all work begins under while it is open so.
    pub claim: Claim,
    pub limits: IdentityLimits,
    /// Which of its flows are getting back-chains.
    pub resolving: Resolving,
    /// What it does as a notary, if it is one.
    pub notary: Option<NotaryRun>,
}

/// A notary that is open.
#[derive(Clone)]
pub(crate) struct NotaryRun {
    /// Whether it validates.
    pub validating: bool,
    /// Its requests.
    pub queue: Arc<NotaryQueue>,
}

impl Opened {
    /// The identity as one who writes under this claim.
    pub fn author(&self) -> Author {
        Author { identity: self.entry.row, claim: self.claim }
    }
}

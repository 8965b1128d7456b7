//! Who may write the rows of an identity.
//!
//! The database alone decides that. An identity's row shows one claim; a unit carries the claim that its work began
//! under, and is written only while the row shows that very claim. Claims of an identity rise strictly, so work of an
//! earlier ownership can never be written under a later one.

use maxhost_model::{Claim, FencingToken, IdentityRow, RunId};

/// The run that nobody is: an identity whose row shows it is owned by nobody.
pub const NOBODY: RunId = RunId(0);

/// What the row of an identity shows that was never claimed.
pub const UNCLAIMED: Claim = Claim { token: FencingToken::UNCLAIMED, run: NOBODY };

/// The identity that a unit writes for, and the claim that its work began under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Author {
    /// Whose rows are written.
    pub identity: IdentityRow,
    /// The claim as it was when the work began; never one that was looked up when the unit was handed in.
    pub claim: Claim,
}

/// An identity of the same database that a unit writes a message to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Recipient {
    /// Whom the message is for.
    pub identity: IdentityRow,
    /// The claim under which this run holds the recipient, as far as the sender knows. If the database shows another
    /// one, the message goes to the outbox in the same unit.
    pub claim: Claim,
}

/// After so many owners in a row that died while they had an identity, each claimer waits before he tries.
pub const DEATHS_SLOW: u32 = 3;

/// After so many nobody tries any more, until somebody asks for it ([`Forgive::Asked`]).
pub const DEATHS_LAST: u32 = 6;

/// How a claimer regards that owners died while they had the identity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Caution {
    /// Not at all: of a host that is alone, which all its identities end with.
    #[default]
    None,
    /// He has waited since the identity's row showed so many of them; 0 if he has not waited.
    WaitedSince(u32),
}

/// Why an owner does not count as one that died while it had an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forgive {
    /// It lost the identity, or could not open it, and is alive. The last one does not count.
    Survived,
    /// It has had the identity for long and is well, so none before it counts either: as long as the row shows this claim.
    Healthy(Claim),
    /// Somebody wants the identity to be tried again.
    Asked,
}

/// A claim that is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimRequest {
    /// Of which identity.
    pub identity: IdentityRow,
    /// What the ownership service has given: it must be above that of every earlier claim.
    pub token: FencingToken,
    /// The fingerprint of the identity's key. The first claim that has one records it, and a later claim with another
    /// one is refused.
    pub key_fp: Option<[u8; 32]>,
    /// What is made of owners that died while they had the identity.
    pub caution: Caution,
}

//! The decisions of the ownership protocol, without input or output, for services whose owners are nodes of sessions.
//! Implementations carry them out; the simulation in `tests/ownership_simulation` runs them under many faults.

use maxhost_model::FencingToken;

use crate::owner::Owner;
use crate::ownership::DemandVersion;

/// What a read of an identity's owner node found, after this session has asked for the node to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// There is no node: it came and went.
    Free,
    /// The node is of this session.
    Ours {
        /// The token of the node's creation.
        token: FencingToken,
    },
    /// The node is of another session, also if that is a former one of this host.
    Other(Owner),
}

/// What a claim comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimDecision {
    /// The identity is owned by this session.
    Granted(FencingToken),
    /// Somebody else owns the identity.
    Owned(Owner),
    /// Nothing is decided: ask for the node again.
    Again,
    /// The service cannot rise above what the database has. The node must be deleted.
    Behind(FencingToken),
}

/// Decides a claim by what was found, and never by the answer to the creation: that may be lost while the node was
/// made, and a node that exists may be another's, whose creation must not be taken for one's own epoch.
///
/// `is_new` says that the answer to the creation came and was positive: a node that this session made now must be
/// above `stored`, and one that it had before may be what was stored.
#[must_use]
pub fn decide_claim(found: Held, is_new: bool, stored: FencingToken) -> ClaimDecision {
    match found {
        Held::Free => ClaimDecision::Again,
        Held::Other(owner) => ClaimDecision::Owned(owner),
        Held::Ours { token } if token < stored || (is_new && token == stored) => ClaimDecision::Behind(token),
        Held::Ours { token } => ClaimDecision::Granted(token),
    }
}

/// What a clean sleep does with the demand, in the same transaction that deletes the owner's node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SleepPlan {
    /// Ends the demand if it still has this version, else nothing of the transaction happens.
    EndDemand(DemandVersion),
    /// Leaves the demand as it is; `wanted` says that there is one.
    KeepDemand {
        /// Whether there is a demand.
        wanted: bool,
    },
}

/// Decides what a sleep does. `seen` is the version that the owner read before he looked for work for the last time;
/// `present` is the version now, read while this session owns the identity, so that nobody else ends the demand in
/// between. A demand that was raised after `seen` may stand for work that the owner has not looked at.
#[must_use]
pub fn plan_sleep(present: Option<DemandVersion>, seen: Option<DemandVersion>) -> SleepPlan {
    match present {
        Some(version) if seen == Some(version) => SleepPlan::EndDemand(version),
        present => SleepPlan::KeepDemand { wanted: present.is_some() },
    }
}

#[cfg(test)]
mod tests {
    use maxhost_model::SecureHash;

    use super::*;

    fn token(epoch: i64) -> FencingToken {
        FencingToken { generation: 1, epoch }
    }

    #[test]
    fn a_claim_is_decided_by_who_made_the_node() {
        let other = Owner { identity: SecureHash::of(b"Alice"), host: "b".into(), token: token(9) };
        for (found, is_new, expected) in [
            (Held::Free, true, ClaimDecision::Again),
            (Held::Free, false, ClaimDecision::Again),
            (Held::Other(other.clone()), true, ClaimDecision::Owned(other.clone())),
            (Held::Other(other.clone()), false, ClaimDecision::Owned(other)),
            (Held::Ours { token: token(6) }, true, ClaimDecision::Granted(token(6))),
            (Held::Ours { token: token(5) }, false, ClaimDecision::Granted(token(5))),
            (Held::Ours { token: token(5) }, true, ClaimDecision::Behind(token(5))),
            (Held::Ours { token: token(4) }, false, ClaimDecision::Behind(token(4))),
        ] {
            assert_eq!(decide_claim(found, is_new, token(5)), expected);
        }
    }

    #[test]
    fn a_sleep_ends_only_the_version_that_was_seen() {
        let version = |created, bumps| DemandVersion { created, bumps };
        let keep = |wanted| SleepPlan::KeepDemand { wanted };
        for (present, seen, expected) in [
            (Some(version(1, 2)), Some(version(1, 2)), SleepPlan::EndDemand(version(1, 2))),
            (Some(version(1, 3)), Some(version(1, 2)), keep(true)),
            (Some(version(4, 2)), Some(version(1, 2)), keep(true)),
            (Some(version(1, 2)), None, keep(true)),
            (None, Some(version(1, 2)), keep(false)),
            (None, None, keep(false)),
        ] {
            assert_eq!(plan_sleep(present, seen), expected);
        }
    }
}

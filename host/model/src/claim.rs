//! The right to write for an identity, as the database compares it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One start of a process: a positive number drawn at random when it starts. No two starts share one, also not two
/// starts of the same host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub i64);

impl RunId {
    /// A run from random bits: the sign is dropped, and zero is replaced, because zero stands for nobody.
    #[must_use]
    pub fn from_random(bits: u64) -> RunId {
        RunId(i64::try_from(bits >> 1).unwrap_or(i64::MAX).max(1))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What orders the claims of one identity: every claim has a greater token than all claims of this identity before it.
///
/// Tokens compare by generation first. The generation belongs to the ownership service: 0 is a host that is alone; a
/// cluster has 1 or more, and a higher one after its service was set up anew. The epoch rises within a generation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FencingToken {
    /// The generation of the ownership service.
    pub generation: i64,
    /// The epoch within the generation.
    pub epoch: i64,
}

impl FencingToken {
    /// The token of an identity that nobody has claimed yet. Every claim is above it.
    pub const UNCLAIMED: FencingToken = FencingToken { generation: 0, epoch: 0 };
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.generation, self.epoch)
    }
}

/// The right of one run to write for one identity. The database accepts a commit only if it carries the claim that the
/// identity's row has; both fields must be equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Claim {
    /// What orders this claim among those of the identity.
    pub token: FencingToken,
    /// The process that claimed.
    pub run: RunId,
}

impl Claim {
    /// Whether this claim may be written over a row that has `stored`, by `owner`: it is above that one, or it is that
    /// one, written by an attempt whose answer was lost.
    #[must_use]
    pub fn may_replace(&self, stored: FencingToken, owner: Option<RunId>) -> bool {
        self.token > stored || (self.token == stored && owner == Some(self.run))
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of run {}", self.token, self.run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_replaces_what_is_below_it_and_itself() {
        let token = |generation, epoch| FencingToken { generation, epoch };
        let claim = Claim { token: token(1, 7), run: RunId(5) };
        for (stored, owner, expected) in [
            (FencingToken::UNCLAIMED, None, true),
            (token(0, i64::MAX), Some(RunId(9)), true),
            (token(1, 6), Some(RunId(9)), true),
            (token(1, 7), Some(RunId(5)), true),
            (token(1, 7), Some(RunId(9)), false),
            (token(1, 7), None, false),
            (token(1, 8), None, false),
            (token(2, 1), None, false),
        ] {
            assert_eq!(claim.may_replace(stored, owner), expected, "{stored} {owner:?}");
        }
    }

    #[test]
    fn a_run_is_positive_whatever_the_bits() {
        for bits in [0, 1, u64::MAX, 1 << 63] {
            assert!(RunId::from_random(bits).0 > 0, "{bits}");
        }
    }
}

/// Which database this is, and which of its lives: what tells the database of a cluster from another one, and from itself
/// before it was put back to an earlier moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lineage {
    /// A number that was drawn when the tables were made. It goes with copies and backups.
    pub database: i64,
    /// How often the database was declared to be put back to an earlier moment. It never falls.
    pub incarnation: i32,
    /// Of a server with standbys: how often one of them took over. It never falls; 0 where it is not known.
    pub timeline: i64,
}

impl Lineage {
    /// The earlier state that `self` shows beside what was seen before of the same database; `None` if there is none.
    #[must_use]
    pub fn behind(&self, seen: &Lineage) -> Option<&'static str> {
        if self.incarnation < seen.incarnation {
            Some("incarnation")
        } else if self.timeline < seen.timeline && self.timeline > 0 {
            Some("timeline")
        } else {
            None
        }
    }

    /// The newer of the two in each respect, of one database.
    #[must_use]
    pub fn latest(&self, seen: &Lineage) -> Lineage {
        Lineage {
            database: self.database,
            incarnation: self.incarnation.max(seen.incarnation),
            timeline: self.timeline.max(seen.timeline),
        }
    }
}

//! Identifiers, and how they relate.
//!
//! Inside one database everything hangs on rising integers, because random keys dirty a page each: a flow is a
//! [`FlowRow`], and its sessions are numbered beneath it ([`SessionId`]), so that all that belongs to a flow lies
//! together. Outside, a flow is a [`FlowId`], a UUID that carries the row number and a tag that nobody can guess.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The number of an identity in the database that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IdentityRow(pub i64);

/// The number of a flow in its database: rises with every start, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FlowRow(pub i64);

impl FlowRow {
    /// The largest row that fits into a [`SessionId`] and a [`FlowId`].
    pub const MAX: FlowRow = FlowRow((1 << 47) - 1);

    /// The session with this index of this flow.
    #[must_use]
    pub fn session(self, index: u16) -> SessionId {
        SessionId((self.0 << 16) | i64::from(index))
    }
}

/// One side of a session: the flow and the index of the session in that flow.
///
/// Corda draws these at random. Ours rise with the flow, which keeps a flow's messages together in the database; they
/// need not be secret, because a message is accepted only from the session's counterparty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionId(pub i64);

impl SessionId {
    /// The flow this session belongs to.
    #[must_use]
    pub fn flow(self) -> FlowRow {
        FlowRow(self.0 >> 16)
    }

    /// Its index in that flow.
    #[must_use]
    pub fn index(self) -> u16 {
        (self.0 & 0xffff) as u16
    }
}

/// The public name of a flow: a version 8 UUID (RFC 9562) of 47 bits of row number and 75 bits of random tag, so that
/// it can be found without an index and cannot be guessed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId(u128);

const ROW_SHIFT: u32 = 81;
const VERSION_MASK: u128 = 0xf << 76;
const VARIANT_MASK: u128 = 0x3 << 62;

impl FlowId {
    /// Joins a row number and random bits; only 75 bits of `tag` are used.
    #[must_use]
    pub fn new(row: FlowRow, tag: u128) -> FlowId {
        // Layout from the top: 47 bits of row, 1 + 4 (version) + 12 bits, 2 (variant) + 62 bits: the tag fills the rest.
        let bits = ((row.0 as u128) << ROW_SHIFT) | (tag & ((1 << ROW_SHIFT) - 1));
        FlowId((bits & !VERSION_MASK & !VARIANT_MASK) | (0x8 << 76) | (0x2 << 62))
    }

    /// The row number in it.
    #[must_use]
    pub fn row(self) -> FlowRow {
        FlowRow((self.0 >> ROW_SHIFT) as i64)
    }

    /// Its sixteen bytes, big-endian.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// From sixteen bytes; `None` if they are no version 8 UUID.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Option<FlowId> {
        let bits = u128::from_be_bytes(bytes);
        (bits & VERSION_MASK == 0x8 << 76 && bits & VARIANT_MASK == 0x2 << 62).then_some(FlowId(bits))
    }
}

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_u128(self.0).hyphenated().fmt(f)
    }
}

impl fmt::Debug for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not the id of a flow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFlowId {
    /// It is no UUID.
    #[error("'{0}' is not a flow id: expected a UUID as printed by `maxhost flow start`")]
    NoUuid(String),
    /// It is a UUID, but none that a host gives to a flow, so that no host has such a flow.
    #[error("there is no flow {0}")]
    Foreign(String),
}

impl FromStr for FlowId {
    type Err = BadFlowId;

    fn from_str(text: &str) -> Result<FlowId, BadFlowId> {
        let uuid = uuid::Uuid::parse_str(text).map_err(|_| BadFlowId::NoUuid(text.chars().take(64).collect()))?;
        FlowId::from_bytes(*uuid.as_bytes()).ok_or_else(|| BadFlowId::Foreign(uuid.to_string()))
    }
}

/// The number under which every side logs one error (docs/behaviour.md 4.4): random at the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ErrorId(pub u64);

impl fmt::Display for ErrorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_flow_id_carries_its_row_through_text_and_bytes() {
        for row in [1, 77, 1 << 40, FlowRow::MAX.0] {
            let id = FlowId::new(FlowRow(row), u128::MAX / 3);
            assert_eq!(id.row(), FlowRow(row));
            assert_eq!(id.to_string().parse::<FlowId>().unwrap(), id);
            assert_eq!(FlowId::from_bytes(id.to_bytes()), Some(id));
            assert_eq!(&id.to_string()[14..15], "8");
        }
    }

    #[test]
    fn other_uuids_are_refused() {
        let foreign = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
        assert_eq!(foreign.parse::<FlowId>(), Err(BadFlowId::Foreign(foreign.to_owned())));
        assert_eq!("nonsense".parse::<FlowId>(), Err(BadFlowId::NoUuid("nonsense".to_owned())));
    }

    #[test]
    fn sessions_lie_beneath_their_flow() {
        let session = FlowRow(9).session(65_535);
        assert_eq!((session.flow(), session.index()), (FlowRow(9), 65_535));
        assert!(session < FlowRow(10).session(0));
    }
}

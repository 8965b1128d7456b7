//! Component groups, and how components become the id of a transaction (behaviour.md 10.2, 10.3).
//!
//! A component is the bytes that it was built as or received as. They are hashed, stored and passed on, and never encoded
//! again.

use std::sync::Arc;

use maxhost_model::{SecureHash, octets};
use serde::{Deserialize, Serialize};

use crate::digest::{ONES, twice};
use crate::merkle;
use crate::refused::{Refused, Result};
use crate::rules::Rule;

/// The bytes of one component.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Component(#[serde(with = "octets")] Arc<[u8]>);

impl Component {
    /// These bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Component {
        Component(bytes.into())
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The largest index of a group. Groups that are not known are kept and hashed, and each absent one below costs a hash.
pub const MAX_GROUP: u32 = 255;

/// The most components in one group.
pub const MAX_COMPONENTS: usize = 1 << 16;

/// The groups that have a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// References to the states that are consumed.
    Inputs,
    /// The states that are made.
    Outputs,
    /// What is done, and to which contract.
    Commands,
    /// Attachments, as Corda had them before 4.12.
    LegacyAttachments,
    /// The notary.
    Notary,
    /// When it may be notarised.
    TimeWindow,
    /// For each command, in order, who must sign.
    Signers,
    /// References to states that are only looked at.
    References,
    /// The hash of the network parameters that it is judged by.
    Parameters,
    /// The ids of attachments.
    Attachments,
    /// What the notary is to do besides; kept and hashed, not interpreted.
    NotaryInstructions,
    /// The header: version, network, digest, layout.
    Header,
}

impl Group {
    /// All of them, by index.
    pub const ALL: [Group; 12] = [
        Group::Inputs,
        Group::Outputs,
        Group::Commands,
        Group::LegacyAttachments,
        Group::Notary,
        Group::TimeWindow,
        Group::Signers,
        Group::References,
        Group::Parameters,
        Group::Attachments,
        Group::NotaryInstructions,
        Group::Header,
    ];

    /// Its index.
    #[must_use]
    pub fn index(self) -> u32 {
        self as u32
    }

    /// The group with this index, if it has a meaning.
    #[must_use]
    pub fn from_index(index: u32) -> Option<Group> {
        Group::ALL.get(usize::try_from(index).ok()?).copied()
    }

    /// What its components are, for messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Group::Inputs => "input",
            Group::Outputs => "output",
            Group::Commands => "command",
            Group::LegacyAttachments => "legacy attachment",
            Group::Notary => "notary",
            Group::TimeWindow => "time-window",
            Group::Signers => "signers",
            Group::References => "reference",
            Group::Parameters => "parameters hash",
            Group::Attachments => "attachment",
            Group::NotaryInstructions => "notary instruction",
            Group::Header => "header",
        }
    }
}

/// All components of one kind, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u32, Vec<Component>)", into = "(u32, Vec<Component>)")]
pub struct ComponentGroup {
    /// Which kind; see [`Group`].
    pub index: u32,
    /// The components.
    pub components: Vec<Component>,
}

impl From<(u32, Vec<Component>)> for ComponentGroup {
    fn from((index, components): (u32, Vec<Component>)) -> ComponentGroup {
        ComponentGroup { index, components }
    }
}

impl From<ComponentGroup> for (u32, Vec<Component>) {
    fn from(group: ComponentGroup) -> (u32, Vec<Component>) {
        (group.index, group.components)
    }
}

/// The fewest and the most bytes of a salt: the length of a digest, and twice that.
const SALT_BYTES: std::ops::RangeInclusive<usize> = 32..=64;

/// Random bytes that keep others from guessing components behind their hashes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Salt(#[serde(with = "octets")] SaltBytes);

#[derive(Debug, Clone, PartialEq, Eq)]
struct SaltBytes(Vec<u8>);

impl AsRef<[u8]> for SaltBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<Vec<u8>> for SaltBytes {
    type Error = Refused;

    fn try_from(bytes: Vec<u8>) -> Result<SaltBytes> {
        if !SALT_BYTES.contains(&bytes.len()) {
            let message = format!("a privacy salt has 32 to 64 bytes, not {}", bytes.len());
            return Err(Refused::new(Rule::SaltInvalid, message));
        }
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(Refused::new(Rule::SaltInvalid, "a privacy salt is not all zero"));
        }
        Ok(SaltBytes(bytes))
    }
}

impl Salt {
    /// These random bytes.
    ///
    /// # Errors
    /// [`Rule::SaltInvalid`] unless there are 32 to 64 and not all are zero.
    pub fn new(bytes: Vec<u8>) -> Result<Salt> {
        SaltBytes::try_from(bytes).map(Salt)
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0.0
    }

    /// The nonce of a component: H(H(salt ‖ group ‖ position)), both numbers in four bytes, big end first.
    #[must_use]
    pub fn nonce(&self, group: u32, position: u32) -> SecureHash {
        twice(&[self.bytes(), &group.to_be_bytes(), &position.to_be_bytes()].concat())
    }
}

/// The leaf of a component: H(H(nonce ‖ bytes)).
#[must_use]
pub fn leaf(nonce: &SecureHash, component: &Component) -> SecureHash {
    twice(&[nonce.as_bytes(), component.bytes()].concat())
}

/// The leaves of a group, in order.
#[must_use]
pub fn leaves(group: &ComponentGroup, salt: &Salt) -> Vec<SecureHash> {
    let numbered = (0_u32..).zip(&group.components);
    numbered.map(|(position, component)| leaf(&salt.nonce(group.index, position), component)).collect()
}

/// The roots of the groups from 0 to the last that is present; an absent one is all ones.
///
/// # Errors
/// [`Rule::GroupEmpty`], [`Rule::GroupDuplicate`], [`Rule::GroupIndex`]; [`Rule::TooLarge`] for a group of more than
/// [`MAX_COMPONENTS`].
pub fn group_roots(groups: &[ComponentGroup], salt: &Salt) -> Result<Vec<SecureHash>> {
    let mut roots: Vec<Option<SecureHash>> = Vec::new();
    for group in groups {
        let refuse = |rule, message: String| Err(Refused::new(rule, message).detail("group", group.index));
        if group.index > MAX_GROUP {
            return refuse(
                Rule::GroupIndex,
                format!("{} is no index of a group: {MAX_GROUP} is the last", group.index),
            );
        }
        if group.components.is_empty() {
            return refuse(Rule::GroupEmpty, format!("group {} is present and empty", group.index));
        }
        if group.components.len() > MAX_COMPONENTS {
            return refuse(Rule::TooLarge, format!("group {} has more than {MAX_COMPONENTS} components", group.index));
        }
        let at = group.index as usize;
        if roots.len() <= at {
            roots.resize(at + 1, None);
        }
        if roots[at].is_some() {
            return refuse(Rule::GroupDuplicate, format!("group {} is there twice", group.index));
        }
        roots[at] = Some(merkle::root(&leaves(group, salt))?);
    }
    Ok(roots.into_iter().map(|root| root.unwrap_or(ONES)).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::digest::{ZERO, node};

    fn group(index: u32, components: &[&[u8]]) -> ComponentGroup {
        ComponentGroup { index, components: components.iter().map(|bytes| Component::new(bytes.to_vec())).collect() }
    }

    fn salt(byte: u8) -> Salt {
        Salt::new(vec![byte; 32]).unwrap()
    }

    fn id(groups: &[ComponentGroup], salt: &Salt) -> SecureHash {
        merkle::root(&group_roots(groups, salt).unwrap()).unwrap()
    }

    #[test]
    fn an_id_is_computed_as_stated() {
        let salt = salt(7);
        let h = |bytes: &[u8]| SecureHash::of(SecureHash::of(bytes).as_bytes());
        let nonce = |g: u8, i: u8| h(&[&[7; 32][..], &[0, 0, 0, g], &[0, 0, 0, i]].concat());
        let leaf = |g: u8, i: u8, bytes: &[u8]| h(&[nonce(g, i).as_bytes(), bytes].concat());
        let inputs = node(&node(&leaf(0, 0, b"a"), &leaf(0, 1, b"b")), &node(&leaf(0, 2, b"c"), &ZERO));
        let commands = leaf(2, 0, b"d");
        let expected = node(&node(&inputs, &ONES), &node(&commands, &ZERO));
        assert_eq!(id(&[group(0, &[b"a", b"b", b"c"]), group(2, &[b"d"])], &salt), expected);
        // Fixed for ever: a change of this value is a change of every transaction id.
        assert_eq!(expected.to_string(), "05c18a1331d877adf86553413a82a809180eddafa1fa47a46716774852396ea3");
    }

    #[test]
    fn order_counts_inside_a_group_only() {
        let all = [group(0, &[b"a", b"b"]), group(1, &[b"c"])];
        let base = id(&all, &salt(1));
        assert_eq!(id(&[all[1].clone(), all[0].clone()], &salt(1)), base);
        assert_ne!(id(&[group(0, &[b"b", b"a"]), group(1, &[b"c"])], &salt(1)), base);
        assert_ne!(id(&all, &salt(2)), base);
        let unknown = [all[0].clone(), all[1].clone(), group(200, &[b"x"])];
        assert_ne!(id(&unknown, &salt(1)), base);
    }

    #[test]
    fn malformed_groups_are_refused() {
        let rule = |groups: &[ComponentGroup]| group_roots(groups, &salt(1)).unwrap_err().rule();
        assert_eq!(rule(&[group(0, &[])]), Rule::GroupEmpty);
        assert_eq!(rule(&[group(0, &[b"a"]), group(0, &[b"b"])]), Rule::GroupDuplicate);
        assert_eq!(rule(&[group(MAX_GROUP + 1, &[b"a"])]), Rule::GroupIndex);
        assert_eq!(rule(&[group(u32::MAX, &[b"a"])]), Rule::GroupIndex);
        assert_eq!(rule(&[group(0, &vec![&b"a"[..]; MAX_COMPONENTS + 1])]), Rule::TooLarge);
    }

    #[test]
    fn salts_are_long_enough_and_random() {
        for bad in [vec![1; 31], vec![0; 32], vec![1; 65]] {
            assert_eq!(Salt::new(bad).unwrap_err().rule(), Rule::SaltInvalid);
        }
    }
}

//! Merkle trees and partial ones (behaviour.md 10.4).

use std::collections::BTreeSet;

use maxhost_model::{SecureHash, octets};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{ZERO, node};
use crate::refused::{Refused, Result};
use crate::rules::Rule;

/// How many leaves a tree may have: more than any transaction or batch within its size has.
pub const MAX_LEAVES: usize = 1 << 24;

/// How deep a partial tree may be: that of [`MAX_LEAVES`], and the root.
pub const MAX_TREE_DEPTH: usize = 25;

/// The root over these leaves, padded with zero hashes to a power of two. One leaf is its own root.
///
/// # Errors
/// [`Rule::MerkleEmpty`] for no leaves.
pub fn root(leaves: &[SecureHash]) -> Result<SecureHash> {
    let mut level = padded(leaves)?;
    while level.len() > 1 {
        level = parents(&level);
    }
    level.first().copied().ok_or_else(empty)
}

fn padded(leaves: &[SecureHash]) -> Result<Vec<SecureHash>> {
    if leaves.is_empty() {
        return Err(empty());
    }
    let mut level = leaves.to_vec();
    level.resize(leaves.len().next_power_of_two(), ZERO);
    Ok(level)
}

fn parents(level: &[SecureHash]) -> Vec<SecureHash> {
    level.chunks_exact(2).map(|pair| node(&pair[0], &pair[1])).collect()
}

fn empty() -> Refused {
    Refused::new(Rule::MerkleEmpty, "a Merkle tree needs at least one leaf")
}

fn mismatch(message: impl Into<String>) -> Refused {
    Refused::new(Rule::MerkleMismatch, message)
}

/// A tree with all its levels, from which partial trees are cut.
#[derive(Debug, Clone)]
pub struct MerkleTree {
    /// The padded leaves first, the root last.
    levels: Vec<Vec<SecureHash>>,
    leaves: usize,
}

impl MerkleTree {
    /// The tree over these leaves.
    ///
    /// # Errors
    /// [`Rule::MerkleEmpty`] for no leaves, [`Rule::TooLarge`] for more than [`MAX_LEAVES`].
    pub fn new(leaves: &[SecureHash]) -> Result<MerkleTree> {
        if leaves.len() > MAX_LEAVES {
            return Err(Refused::new(Rule::TooLarge, format!("a Merkle tree has at most {MAX_LEAVES} leaves")));
        }
        let mut levels = vec![padded(leaves)?];
        while let Some(last) = levels.last().filter(|last| last.len() > 1) {
            levels.push(parents(last));
        }
        Ok(MerkleTree { levels, leaves: leaves.len() })
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> SecureHash {
        self.levels.last().and_then(|level| level.first()).copied().unwrap_or(ZERO)
    }

    /// A partial tree that shows the leaves at these positions and nothing else.
    ///
    /// # Errors
    /// [`Rule::MerkleMismatch`] if a position is beyond the leaves.
    pub fn partial_at(&self, positions: &BTreeSet<usize>) -> Result<PartialTree> {
        if let Some(beyond) = positions.iter().find(|position| **position >= self.leaves) {
            return Err(mismatch(format!("there is no leaf {beyond}: the tree has {}", self.leaves)));
        }
        Ok(self.cut(self.levels.len() - 1, 0, positions))
    }

    fn cut(&self, level: usize, at: usize, positions: &BTreeSet<usize>) -> PartialTree {
        let hash = self.levels.get(level).and_then(|hashes| hashes.get(at)).copied().unwrap_or(ZERO);
        let covered = (at << level)..((at + 1) << level);
        if positions.range(covered).next().is_none() {
            return PartialTree::Hidden(hash);
        }
        if level == 0 {
            return PartialTree::Shown(hash);
        }
        let (left, right) = (self.cut(level - 1, 2 * at, positions), self.cut(level - 1, 2 * at + 1, positions));
        PartialTree::Node(Box::new((left, right)))
    }

    /// A partial tree that shows the leaves with these hashes.
    ///
    /// # Errors
    /// [`Rule::MerkleMismatch`] if a hash is not among the leaves, is given twice, or is that of several leaves, so that
    /// it would not be clear which is meant.
    pub fn partial_of(&self, hashes: &[SecureHash]) -> Result<PartialTree> {
        let leaves = self.levels.first().map_or(&[][..], |level| level.get(..self.leaves).unwrap_or(level));
        let mut positions = BTreeSet::new();
        for hash in hashes {
            let mut found = leaves.iter().enumerate().filter(|(_, leaf)| *leaf == hash).map(|(index, _)| index);
            let position = found.next().ok_or_else(|| mismatch(format!("{hash} is no leaf of the tree")))?;
            if found.next().is_some() {
                return Err(mismatch(format!("{hash} is the hash of several leaves")));
            }
            if !positions.insert(position) {
                return Err(mismatch(format!("{hash} is given twice")));
            }
        }
        self.partial_at(&positions)
    }
}

/// A tree of which only some leaves are shown; of the rest, hashes that are enough to compute the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartialTree {
    /// A leaf that is shown.
    Shown(SecureHash),
    /// A subtree, or a leaf, of which only the hash is given.
    Hidden(SecureHash),
    /// Two subtrees, left and right.
    Node(Box<(PartialTree, PartialTree)>),
}

impl PartialTree {
    /// The root that this tree has. Recursive: a tree that was decoded is at most [`MAX_TREE_DEPTH`] deep.
    #[must_use]
    pub fn root(&self) -> SecureHash {
        match self {
            PartialTree::Shown(hash) | PartialTree::Hidden(hash) => *hash,
            PartialTree::Node(both) => node(&both.0.root(), &both.1.root()),
        }
    }

    /// The leaves that are shown, from left to right.
    #[must_use]
    pub fn shown(&self) -> Vec<SecureHash> {
        self.shown_with_positions().map_or_else(|_| Vec::new(), |shown| shown.into_iter().map(|(_, h)| h).collect())
    }

    /// The leaves that are shown, with their positions in the whole tree.
    ///
    /// # Errors
    /// [`Rule::MerkleMismatch`] if they are at different depths, so that the tree is no perfect one.
    pub fn shown_with_positions(&self) -> Result<Vec<(usize, SecureHash)>> {
        let mut found = Vec::new();
        let mut depth = None;
        self.collect(0, 0, &mut depth, &mut found)?;
        Ok(found)
    }

    fn collect(
        &self,
        level: usize,
        at: usize,
        leaf_level: &mut Option<usize>,
        found: &mut Vec<(usize, SecureHash)>,
    ) -> Result<()> {
        match self {
            PartialTree::Hidden(_) => Ok(()),
            PartialTree::Shown(hash) => {
                if *leaf_level.get_or_insert(level) != level {
                    return Err(mismatch("the leaves that are shown are at different depths"));
                }
                found.push((at, *hash));
                Ok(())
            }
            PartialTree::Node(_) if level + 1 >= MAX_TREE_DEPTH => Err(mismatch("the tree is deeper than its bound")),
            PartialTree::Node(both) => {
                both.0.collect(level + 1, 2 * at, leaf_level, found)?;
                both.1.collect(level + 1, 2 * at + 1, leaf_level, found)
            }
        }
    }

    /// Whether this tree has that root, and shows exactly these hashes (in any order).
    #[must_use]
    pub fn verifies(&self, root: &SecureHash, hashes: &[SecureHash]) -> bool {
        let Ok(shown) = self.shown_with_positions() else { return false };
        let mut shown: Vec<SecureHash> = shown.into_iter().map(|(_, hash)| hash).collect();
        let mut wanted = hashes.to_vec();
        shown.sort_unstable();
        wanted.sort_unstable();
        shown == wanted && self.root() == *root
    }

    /// The position of a leaf that is shown.
    ///
    /// # Errors
    /// [`Rule::MerkleMismatch`] if it is not shown.
    pub fn leaf_index(&self, hash: &SecureHash) -> Result<usize> {
        let found = self.shown_with_positions()?.into_iter().find(|(_, leaf)| leaf == hash);
        found.map(|(at, _)| at).ok_or_else(|| mismatch(format!("{hash} is not shown by this tree")))
    }
}

const NODE: u8 = 0;
const HIDDEN: u8 = 1;
const SHOWN: u8 = 2;

impl PartialTree {
    /// The tree as bytes, in pre-order: 0 for a node, 1 and the hash for what is hidden, 2 and the hash for what is shown.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut left = vec![self];
        while let Some(tree) = left.pop() {
            match tree {
                PartialTree::Node(both) => {
                    bytes.push(NODE);
                    left.extend([&both.1, &both.0]);
                }
                PartialTree::Hidden(hash) => {
                    bytes.push(HIDDEN);
                    bytes.extend_from_slice(hash.as_bytes());
                }
                PartialTree::Shown(hash) => {
                    bytes.push(SHOWN);
                    bytes.extend_from_slice(hash.as_bytes());
                }
            }
        }
        bytes
    }

    /// Reads [`PartialTree::to_bytes`]. A node of two hidden halves is refused, because hiding it whole says the same.
    ///
    /// # Errors
    /// [`Rule::MerkleMismatch`] if the bytes are malformed, left over, or deeper than [`MAX_TREE_DEPTH`].
    pub fn from_bytes(bytes: &[u8]) -> Result<PartialTree> {
        let mut rest = bytes;
        let tree = PartialTree::read(&mut rest, MAX_TREE_DEPTH)?;
        if rest.is_empty() { Ok(tree) } else { Err(mismatch("bytes follow the partial tree")) }
    }

    fn read(rest: &mut &[u8], depth: usize) -> Result<PartialTree> {
        let (kind, after) = rest.split_first().ok_or_else(|| mismatch("the partial tree ends too early"))?;
        *rest = after;
        match *kind {
            NODE if depth <= 1 => Err(mismatch(format!("the partial tree is deeper than {MAX_TREE_DEPTH}"))),
            NODE => {
                let both = (PartialTree::read(rest, depth - 1)?, PartialTree::read(rest, depth - 1)?);
                if matches!(both, (PartialTree::Hidden(_), PartialTree::Hidden(_))) {
                    return Err(mismatch("a node hides both of its halves"));
                }
                Ok(PartialTree::Node(Box::new(both)))
            }
            HIDDEN | SHOWN => {
                let (hash, after) = rest.split_first_chunk::<32>().ok_or_else(|| mismatch("a hash ends too early"))?;
                *rest = after;
                let hash = SecureHash::from_bytes(*hash);
                Ok(if *kind == SHOWN { PartialTree::Shown(hash) } else { PartialTree::Hidden(hash) })
            }
            other => Err(mismatch(format!("{other} is no kind of node"))),
        }
    }
}

impl Serialize for PartialTree {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        octets::serialize(&self.to_bytes(), serializer)
    }
}

impl<'de> Deserialize<'de> for PartialTree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<PartialTree, D::Error> {
        let bytes: Vec<u8> = octets::deserialize(deserializer)?;
        PartialTree::from_bytes(&bytes).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn leaf(number: u32) -> SecureHash {
        SecureHash::of(&number.to_be_bytes())
    }

    fn leaves(count: u32) -> Vec<SecureHash> {
        (0..count).map(leaf).collect()
    }

    #[test]
    fn small_trees_are_as_defined() {
        let (a, b, c) = (leaf(0), leaf(1), leaf(2));
        assert_eq!(root(&[]).unwrap_err().rule(), Rule::MerkleEmpty);
        assert_eq!(root(&[a]).unwrap(), a);
        assert_eq!(root(&[a, b]).unwrap(), node(&a, &b));
        assert_eq!(root(&[a, b, c]).unwrap(), node(&node(&a, &b), &node(&c, &ZERO)));
        assert_ne!(root(&[a, b]).unwrap(), root(&[b, a]).unwrap());
    }

    #[test]
    fn what_cannot_be_proved_is_refused() {
        let tree = MerkleTree::new(&[leaf(0), leaf(1), leaf(1), leaf(2)]).unwrap();
        let rule = |hashes: &[SecureHash]| tree.partial_of(hashes).unwrap_err().rule();
        assert_eq!(rule(&[leaf(9)]), Rule::MerkleMismatch);
        assert_eq!(rule(&[leaf(0), leaf(0)]), Rule::MerkleMismatch);
        assert_eq!(rule(&[leaf(1)]), Rule::MerkleMismatch);
        assert!(tree.partial_of(&[leaf(0), leaf(2)]).is_ok());
        assert!(tree.partial_at(&[1, 2].into()).unwrap().verifies(&tree.root(), &[leaf(1), leaf(1)]));
        // The padding is no leaf.
        assert!(MerkleTree::new(&leaves(3)).unwrap().partial_at(&[3].into()).is_err());
    }

    #[test]
    fn an_inner_node_cannot_be_passed_off_as_a_leaf() {
        let tree = MerkleTree::new(&leaves(4)).unwrap();
        let inner = node(&leaf(2), &leaf(3));
        let forged = PartialTree::Node(Box::new((
            PartialTree::Node(Box::new((PartialTree::Shown(leaf(0)), PartialTree::Hidden(leaf(1))))),
            PartialTree::Shown(inner),
        )));
        assert_eq!(forged.root(), tree.root());
        assert!(!forged.verifies(&tree.root(), &[leaf(0), inner]));
    }

    #[test]
    fn depth_is_bounded() {
        let mut bytes = vec![NODE; MAX_TREE_DEPTH];
        bytes.extend_from_slice(&[0; 100]);
        assert!(PartialTree::from_bytes(&bytes).unwrap_err().message().contains("deeper"));
        let large = MerkleTree::new(&leaves(5000)).unwrap();
        let partial = large.partial_at(&[4999].into()).unwrap();
        assert_eq!(PartialTree::from_bytes(&partial.to_bytes()).unwrap(), partial);
    }

    proptest! {
        #[test]
        fn a_partial_tree_proves_what_it_shows_and_nothing_else(count in 1_u32..70, mask in any::<u128>(), other in 0_u32..70) {
            let all = leaves(count);
            let tree = MerkleTree::new(&all).unwrap();
            prop_assert_eq!(tree.root(), root(&all).unwrap());
            let shown: Vec<SecureHash> = (0..count).filter(|i| mask & (1 << i) != 0).map(leaf).collect();
            let partial = tree.partial_of(&shown).unwrap();
            prop_assert!(partial.verifies(&tree.root(), &shown));
            prop_assert_eq!(PartialTree::from_bytes(&partial.to_bytes()).unwrap(), partial.clone());
            prop_assert_eq!(partial.shown(), shown.clone());
            let changed: Vec<SecureHash> = if shown.contains(&leaf(other)) {
                shown.iter().copied().filter(|hash| *hash != leaf(other)).collect()
            } else {
                shown.iter().copied().chain([leaf(other)]).collect()
            };
            prop_assert!(!partial.verifies(&tree.root(), &changed));
            for hash in &shown {
                let at = partial.leaf_index(hash).unwrap();
                prop_assert_eq!(all[at], *hash);
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(0_u8..4, 0..300)) {
            if let Ok(tree) = PartialTree::from_bytes(&bytes) {
                prop_assert_eq!(tree.to_bytes(), bytes);
                let _ = tree.root();
            }
        }
    }
}

//! Tear-offs: a transaction of which only some components are shown (behaviour.md 10.18).

use std::collections::BTreeSet;

use maxhost_model::{Party, PublicKey, SecureHash};
use serde::{Deserialize, Serialize};

use super::component::{Component, Group, MAX_GROUP, leaf, leaves};
use super::header::Header;
use super::state::{CommandValue, StateRef, TransactionState};
use super::wire::{WireTransaction, decode_all};
use crate::codec;
use crate::digest::{ONES, ZERO};
use crate::merkle::{self, MerkleTree, PartialTree};
use crate::refused::{Refused, Result};
use crate::rules::Rule;
use crate::time::TimeWindow;

/// A component, as the one who makes a tear-off is asked about it. The kinds of hashes are told apart even when two
/// hashes are equal.
#[derive(Debug, Clone, Copy)]
pub enum Shown<'a> {
    /// A state that is consumed.
    Input(&'a StateRef),
    /// A state that is made.
    Output(&'a TransactionState),
    /// A command, with who must sign for it.
    Command(&'a CommandValue, &'a [PublicKey]),
    /// The id of an attachment.
    Attachment(&'a SecureHash),
    /// The notary.
    Notary(&'a Party),
    /// The time-window.
    TimeWindow(&'a TimeWindow),
    /// A state that is looked at.
    Reference(&'a StateRef),
    /// The hash of the network parameters.
    Parameters(&'a SecureHash),
}

/// The shown components of one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FilteredGroup {
    index: u32,
    components: Vec<Component>,
    nonces: Vec<SecureHash>,
    tree: PartialTree,
}

/// What a tear-off shows, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownContents {
    /// Version, network, digest, layout: always shown.
    pub header: Header,
    /// Inputs that are shown.
    pub inputs: Vec<StateRef>,
    /// Outputs that are shown.
    pub outputs: Vec<TransactionState>,
    /// Commands that are shown, with who must sign for each.
    pub commands: Vec<(CommandValue, Vec<PublicKey>)>,
    /// Attachments that are shown.
    pub attachments: Vec<SecureHash>,
    /// The notary, if shown.
    pub notary: Option<Party>,
    /// The time-window, if shown.
    pub time_window: Option<TimeWindow>,
    /// References that are shown.
    pub references: Vec<StateRef>,
    /// The hash of the parameters, if shown.
    pub parameters: Option<SecureHash>,
    /// All lists of signers, if any command is shown.
    signers: Vec<Vec<PublicKey>>,
}

/// A transaction of which only some components are shown. Whoever has one has verified it: there is no other way to get
/// one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilteredTransaction {
    raw: Raw,
    contents: ShownContents,
}

/// The form in which it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    id: SecureHash,
    group_hashes: Vec<SecureHash>,
    groups: Vec<FilteredGroup>,
}

fn invalid(message: impl Into<String>) -> Refused {
    Refused::new(Rule::FilteredInvalid, message)
}

impl FilteredTransaction {
    /// Shows the components that a predicate accepts, and always the header. Of a shown command all lists of signers are
    /// shown, so that nobody can hide who else must sign.
    ///
    /// # Errors
    /// None for a sound transaction.
    pub fn new(wire: &WireTransaction, show: impl Fn(Shown<'_>) -> bool) -> Result<FilteredTransaction> {
        let contents = wire.contents();
        let chosen = |group: Group| -> BTreeSet<usize> {
            fn of<'a, T: 'a>(items: &'a [T], shown: impl Fn(&'a T) -> bool) -> BTreeSet<usize> {
                items.iter().enumerate().filter(|(_, item)| shown(item)).map(|(at, _)| at).collect()
            }
            match group {
                Group::Inputs => of(&contents.inputs, |input| show(Shown::Input(input))),
                Group::Outputs => of(&contents.outputs, |output| show(Shown::Output(output))),
                Group::Commands => of(&contents.commands, |c| show(Shown::Command(&c.value, &c.signers))),
                Group::LegacyAttachments | Group::Attachments => {
                    let before =
                        if group == Group::Attachments { wire.group(Group::LegacyAttachments).len() } else { 0 };
                    let count = wire.group(group).len();
                    let own = contents.attachments.get(before..before + count).unwrap_or(&[]);
                    of(own, |attachment| show(Shown::Attachment(attachment)))
                }
                Group::Notary => of(contents.notary.as_slice(), |notary| show(Shown::Notary(notary))),
                Group::TimeWindow => of(contents.time_window.as_slice(), |window| show(Shown::TimeWindow(window))),
                Group::References => of(&contents.references, |reference| show(Shown::Reference(reference))),
                Group::Parameters => of(contents.parameters.as_slice(), |hash| show(Shown::Parameters(hash))),
                Group::Header => [0].into(),
                Group::Signers | Group::NotaryInstructions => BTreeSet::new(),
            }
        };
        let commands = chosen(Group::Commands);
        let mut groups = Vec::new();
        for group in wire.groups() {
            let positions = match Group::from_index(group.index) {
                Some(Group::Commands) => commands.clone(),
                Some(Group::Signers) if !commands.is_empty() => (0..group.components.len()).collect(),
                Some(known) => chosen(known),
                None => continue,
            };
            if positions.is_empty() {
                continue;
            }
            let tree = MerkleTree::new(&leaves(group, wire.salt()))?.partial_at(&positions)?;
            let at = |position: &usize| Some((group.components.get(*position)?, u32::try_from(*position).ok()?));
            let shown: Vec<_> = positions.iter().filter_map(at).collect();
            groups.push(FilteredGroup {
                index: group.index,
                components: shown.iter().map(|(component, _)| (*component).clone()).collect(),
                nonces: shown.iter().map(|(_, position)| wire.salt().nonce(group.index, *position)).collect(),
                tree,
            });
        }
        FilteredTransaction::verified(Raw { id: wire.id(), group_hashes: wire.group_roots().to_vec(), groups })
    }

    /// Reads the bytes in which it travels, and verifies that what is shown belongs to the transaction with its id.
    ///
    /// # Errors
    /// [`Rule::FilteredInvalid`] if it does not, or hides the header; those of components.
    pub fn decode(bytes: &[u8]) -> Result<FilteredTransaction> {
        FilteredTransaction::verified(codec::decode("tear-off", bytes)?)
    }

    /// The bytes in which it travels.
    ///
    /// # Errors
    /// As [`codec::encode`].
    pub fn encode(&self) -> Result<Vec<u8>> {
        codec::encode("tear-off", &self.raw)
    }

    fn verified(raw: Raw) -> Result<FilteredTransaction> {
        let id = raw.id;
        check_hashes(&raw).map_err(|refused| refused.of(id))?;
        let contents = read(&raw).map_err(|refused| refused.of(id))?;
        Ok(FilteredTransaction { raw, contents })
    }

    /// The id of the transaction.
    #[must_use]
    pub fn id(&self) -> SecureHash {
        self.raw.id
    }

    /// What is shown.
    #[must_use]
    pub fn contents(&self) -> &ShownContents {
        &self.contents
    }

    /// Checks that all components of a group are shown; of an absent group that it is absent.
    ///
    /// # Errors
    /// [`Rule::NotVisible`].
    pub fn check_all_shown(&self, group: Group) -> Result<()> {
        let hidden = || {
            let message = format!("the transaction hides components of the kind '{}'", group.name());
            Refused::new(Rule::NotVisible, message).of(self.raw.id).detail("group", group.index())
        };
        let hash = self.raw.group_hashes.get(group.index() as usize).copied().unwrap_or(ONES);
        match self.raw.groups.iter().find(|shown| shown.index == group.index()) {
            None if hash == ONES => Ok(()),
            None => Err(hidden()),
            Some(shown) if merkle::root(&group_leaves(shown)).is_ok_and(|root| root == hash) => Ok(()),
            Some(_) => Err(hidden()),
        }
    }

    /// Checks that all commands that this key must sign are shown. Passes if there is none.
    ///
    /// # Errors
    /// [`Rule::NotVisible`].
    pub fn check_commands_shown(&self, key: &PublicKey) -> Result<()> {
        self.check_all_shown(Group::Signers)?;
        let expected = self.contents.signers.iter().filter(|signers| signers.contains(key)).count();
        let shown = self.contents.commands.iter().filter(|(_, signers)| signers.contains(key)).count();
        if expected == shown {
            return Ok(());
        }
        let message = format!("{shown} of {expected} commands to be signed by {key} are shown");
        Err(Refused::new(Rule::NotVisible, message).of(self.raw.id).detail("key", key))
    }

    /// Whether a predicate holds for everything that is shown besides the header, and something is.
    pub fn check_with(&self, mut holds: impl FnMut(Shown<'_>) -> bool) -> bool {
        let shown = &self.contents;
        let mut seen = false;
        let mut all = true;
        let mut check = |one: Shown<'_>| {
            seen = true;
            all = all && holds(one);
        };
        shown.inputs.iter().for_each(|input| check(Shown::Input(input)));
        shown.outputs.iter().for_each(|output| check(Shown::Output(output)));
        shown.commands.iter().for_each(|(value, signers)| check(Shown::Command(value, signers)));
        shown.attachments.iter().for_each(|attachment| check(Shown::Attachment(attachment)));
        shown.notary.iter().for_each(|notary| check(Shown::Notary(notary)));
        shown.time_window.iter().for_each(|window| check(Shown::TimeWindow(window)));
        shown.references.iter().for_each(|reference| check(Shown::Reference(reference)));
        shown.parameters.iter().for_each(|hash| check(Shown::Parameters(hash)));
        seen && all
    }
}

fn group_leaves(group: &FilteredGroup) -> Vec<SecureHash> {
    group.nonces.iter().zip(&group.components).map(|(nonce, component)| leaf(nonce, component)).collect()
}

/// Whether a group has one component, whose leaf is the root of the group. A list in which hashes of groups are taken
/// together, so that it seems to have fewer groups, has the same id; but it has an inner node where the header must be, and
/// an inner node is no leaf: one is the hash of 64 bytes, the other of 32.
fn is_single(index: u32) -> bool {
    [Group::Header, Group::Notary, Group::TimeWindow, Group::Parameters].iter().any(|group| group.index() == index)
}

fn check_hashes(raw: &Raw) -> Result<()> {
    if raw.group_hashes.len() > MAX_GROUP as usize + 1 {
        return Err(invalid(format!("there are more than {} groups", MAX_GROUP + 1)));
    }
    // The padding is no group: one who could add it could lengthen the list without changing the id.
    if raw.group_hashes.contains(&ZERO) {
        return Err(invalid("a group has the hash of padding"));
    }
    if merkle::root(&raw.group_hashes)? != raw.id {
        return Err(invalid("the hashes of the groups are not those of the id"));
    }
    let mut last = None;
    for group in &raw.groups {
        if last.is_some_and(|last| last >= group.index) {
            return Err(invalid("groups are not in rising order"));
        }
        last = Some(group.index);
        let hash = raw.group_hashes.get(group.index as usize).filter(|hash| **hash != ONES);
        let hash = hash.ok_or_else(|| invalid(format!("group {} is shown and absent", group.index)))?;
        if group.components.is_empty() || group.components.len() != group.nonces.len() {
            return Err(invalid(format!("group {} has not one nonce for each component", group.index)));
        }
        let leaves = group_leaves(group);
        if group.tree.shown() != leaves || !group.tree.verifies(hash, &leaves) {
            return Err(invalid(format!("what is shown of group {} is not of the transaction", group.index)));
        }
        if is_single(group.index) && !matches!(group.tree, PartialTree::Shown(_)) {
            return Err(invalid(format!("group {} has one component, which is its root", group.index)));
        }
    }
    Ok(())
}

fn read(raw: &Raw) -> Result<ShownContents> {
    let find = |group: Group| raw.groups.iter().find(|shown| shown.index == group.index());
    let of = |group: Group| find(group).map_or(&[][..], |shown| shown.components.as_slice());
    let header: Option<Header> = decode_all(Group::Header, of(Group::Header))?.pop();
    let header = header.ok_or_else(|| Refused::new(Rule::HeaderMissing, "a tear-off shows the header"))?;
    header.check_supported()?;
    let signers: Vec<Vec<PublicKey>> = decode_all(Group::Signers, of(Group::Signers))?;
    let values: Vec<CommandValue> = decode_all(Group::Commands, of(Group::Commands))?;
    let positions = find(Group::Commands).map_or(Ok(Vec::new()), |shown| shown.tree.shown_with_positions())?;
    let mut commands = Vec::new();
    for (value, (at, _)) in values.into_iter().zip(positions) {
        let own = signers
            .get(at)
            .ok_or_else(|| Refused::new(Rule::SignersMismatch, format!("command {at} is shown without its signers")))?;
        commands.push((value, own.clone()));
    }
    let mut attachments: Vec<SecureHash> = decode_all(Group::LegacyAttachments, of(Group::LegacyAttachments))?;
    attachments.extend(decode_all::<SecureHash>(Group::Attachments, of(Group::Attachments))?);
    let contents = ShownContents {
        header,
        inputs: decode_all(Group::Inputs, of(Group::Inputs))?,
        outputs: decode_all(Group::Outputs, of(Group::Outputs))?,
        commands,
        attachments,
        notary: one(Group::Notary, of(Group::Notary))?,
        time_window: one(Group::TimeWindow, of(Group::TimeWindow))?,
        references: decode_all(Group::References, of(Group::References))?,
        parameters: one(Group::Parameters, of(Group::Parameters))?,
        signers,
    };
    Ok(contents)
}

fn one<T: Serialize + serde::de::DeserializeOwned>(group: Group, components: &[Component]) -> Result<Option<T>> {
    let mut all: Vec<T> = decode_all(group, components)?;
    if all.len() > 1 {
        return Err(invalid(format!("more than one {} is shown", group.name())));
    }
    Ok(all.pop())
}

#[cfg(test)]
use super::component::{ComponentGroup, Salt, group_roots};

#[cfg(test)]
impl FilteredTransaction {
    /// All components of these groups, whether or not any transaction could have them.
    pub(crate) fn of_groups(groups: &[ComponentGroup], salt: &Salt) -> Result<FilteredTransaction> {
        let group_hashes = group_roots(groups, salt)?;
        let shown = groups.iter().map(|group| {
            let leaves = leaves(group, salt);
            let nonces = (0_u32..).zip(&leaves).map(|(at, _)| salt.nonce(group.index, at)).collect();
            let tree = MerkleTree::new(&leaves)?.partial_at(&(0..leaves.len()).collect())?;
            Ok(FilteredGroup { index: group.index, components: group.components.clone(), nonces, tree })
        });
        let groups = shown.collect::<Result<_>>()?;
        FilteredTransaction::verified(Raw { id: merkle::root(&group_hashes)?, group_hashes, groups })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::fixtures::{command, contents, key, parameters_hash, reference, state, wire};
    use crate::time::Timestamp;

    fn full() -> WireTransaction {
        let mut contents = contents();
        contents.inputs = (1..4).map(reference).collect();
        contents.references = (7..9).map(reference).collect();
        contents.outputs = (0..3).map(state).collect();
        contents.commands = vec![command(&[1]), command(&[2]), command(&[1, 2])];
        // Equal to the hash of the parameters, and yet something else.
        contents.attachments = vec![parameters_hash()];
        contents.time_window = Some(TimeWindow::until_only(Timestamp::from_nanos(5)));
        wire(&contents)
    }

    fn rule<T: std::fmt::Debug>(result: Result<T>) -> Rule {
        result.unwrap_err().rule()
    }

    #[test]
    fn a_blind_tear_off_shows_the_header_only() {
        let blind = FilteredTransaction::new(&full(), |_| false).unwrap();
        assert_eq!(blind.contents().header, full().contents().header);
        assert!(!blind.check_with(|_| true));
        assert_eq!(rule(blind.check_all_shown(Group::Inputs)), Rule::NotVisible);
        assert_eq!(rule(blind.check_all_shown(Group::Signers)), Rule::NotVisible);
        assert_eq!(FilteredTransaction::decode(&blind.encode().unwrap()).unwrap(), blind);
    }

    #[test]
    fn what_a_notary_that_does_not_validate_needs() {
        let wire = full();
        let needed = |shown: Shown<'_>| {
            matches!(
                shown,
                Shown::Input(_) | Shown::Reference(_) | Shown::TimeWindow(_) | Shown::Notary(_) | Shown::Parameters(_)
            )
        };
        let tear_off = FilteredTransaction::new(&wire, needed).unwrap();
        for group in [Group::Inputs, Group::References, Group::TimeWindow, Group::Notary, Group::Parameters] {
            tear_off.check_all_shown(group).unwrap();
        }
        // The group of notary instructions is absent, and that is proved.
        tear_off.check_all_shown(Group::NotaryInstructions).unwrap();
        assert_eq!(tear_off.contents().inputs, wire.contents().inputs);
        assert_eq!(tear_off.contents().parameters, wire.contents().parameters);
        assert!(tear_off.contents().outputs.is_empty() && tear_off.contents().commands.is_empty());
        // The attachment has the same hash as the parameters and is not shown.
        assert!(tear_off.contents().attachments.is_empty());
    }

    #[test]
    fn commands_come_with_all_signers() {
        let first = FilteredTransaction::new(
            &full(),
            |shown| matches!(shown, Shown::Command(_, signers) if signers == [key(1)]),
        )
        .unwrap();
        assert_eq!(first.contents().commands.len(), 1);
        first.check_all_shown(Group::Signers).unwrap();
        assert_eq!(rule(first.check_commands_shown(&key(1))), Rule::NotVisible);
        first.check_commands_shown(&key(9)).unwrap();
        let both = |shown: Shown<'_>| matches!(shown, Shown::Command(_, signers) if signers.contains(&key(1)));
        let both = FilteredTransaction::new(&full(), both).unwrap();
        both.check_commands_shown(&key(1)).unwrap();
        assert_eq!(rule(both.check_commands_shown(&key(2))), Rule::NotVisible);
        assert!(both.check_with(|shown| matches!(shown, Shown::Command(..))));
        assert!(!both.check_with(|shown| matches!(shown, Shown::Input(_))));
    }

    #[test]
    fn what_is_hidden_is_not_in_the_bytes() {
        let wire = full();
        let is_first = |shown: Shown<'_>| matches!(shown, Shown::Command(_, signers) if signers == [key(2)]);
        let bytes = FilteredTransaction::new(&wire, is_first).unwrap().encode().unwrap();
        let has = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        let mut hidden = 0;
        for group in wire.groups() {
            let is_shown =
                matches!(Group::from_index(group.index), Some(Group::Header | Group::Signers | Group::Commands) | None);
            for component in group.components.iter().filter(|_| !is_shown) {
                assert!(!has(component.bytes()), "group {}", group.index);
                hidden += 1;
            }
        }
        assert!(hidden > 8, "{hidden}");
        let contents = wire.contents();
        assert!(!contents.inputs.iter().any(|input| has(input.tx.as_bytes())));
        // Whoever knows the salt could guess what is hidden. Before its bytes stands their length.
        let salt = codec::encode("salt", wire.salt()).unwrap();
        assert!(!has(&salt[2..]));
    }

    #[test]
    fn a_forged_tear_off_is_refused() {
        let sound = FilteredTransaction::new(&full(), |_| true).unwrap();
        let forged = |change: fn(&mut Raw)| {
            let mut raw = sound.raw.clone();
            change(&mut raw);
            rule(FilteredTransaction::decode(&codec::encode("tear-off", &raw).unwrap()))
        };
        let at = |raw: &mut Raw, group: Group| raw.groups.iter().position(|g| g.index == group.index()).unwrap();
        assert_eq!(forged(|raw| raw.id = ZERO), Rule::FilteredInvalid);
        assert_eq!(forged(|raw| raw.group_hashes.push(ZERO)), Rule::FilteredInvalid);
        assert_eq!(forged(|raw| raw.group_hashes.truncate(8)), Rule::FilteredInvalid);
        assert_eq!(forged(|raw| raw.group_hashes[5] = ONES), Rule::FilteredInvalid);
        assert_eq!(forged(|raw| raw.groups[0].nonces[0] = ZERO), Rule::FilteredInvalid);
        assert_eq!(forged(|raw| drop(raw.groups[0].components.pop())), Rule::FilteredInvalid);
        assert_eq!(forged(|raw| raw.groups[0].components.swap(0, 1)), Rule::FilteredInvalid);
        assert_eq!(forged(|raw| raw.groups.swap(0, 1)), Rule::FilteredInvalid);
        assert_eq!(forged(|raw| drop(raw.groups.pop())), Rule::HeaderMissing);
        let signers = |raw: &mut Raw| {
            let position = raw.groups.iter().position(|g| g.index == Group::Signers.index()).unwrap();
            raw.groups.remove(position);
        };
        assert_eq!(forged(signers), Rule::SignersMismatch);
        let mut raw = sound.raw.clone();
        let inputs = at(&mut raw, Group::Inputs);
        raw.groups[inputs].index = Group::NotaryInstructions.index();
        raw.groups.sort_by_key(|group| group.index);
        assert_eq!(rule(FilteredTransaction::verified(raw)), Rule::FilteredInvalid);
    }

    /// The hashes of the groups of an id can be taken together in pairs, which gives the same id; then groups would seem
    /// absent. The header, which has its place, gives it away.
    #[test]
    fn a_shorter_list_of_groups_is_refused() {
        let sound = FilteredTransaction::new(&full(), |_| false).unwrap();
        let mut hashes = sound.raw.group_hashes.clone();
        hashes.resize(16, ZERO);
        let halves: Vec<SecureHash> = hashes.chunks(2).map(|p| crate::digest::node(&p[0], &p[1])).collect();
        assert_eq!(merkle::root(&halves).unwrap(), sound.id());
        let raw = Raw { id: sound.id(), group_hashes: halves, groups: vec![] };
        assert_eq!(rule(FilteredTransaction::verified(raw)), Rule::HeaderMissing);
    }

    /// Groups taken together by four, with a header among those that seem to be the twelfth: what is shown would be of other
    /// groups than it says, and a command could be shown that the transaction does not have.
    #[test]
    fn groups_that_are_taken_together_have_no_header() {
        let header = Component::new(codec::encode("header", &full().contents().header).unwrap());
        let nonce = SecureHash::of(b"nonce");
        let mut roots: Vec<SecureHash> = (0_u8..64).map(|group| SecureHash::of(&[group])).collect();
        roots[44] = leaf(&nonce, &header);
        let four = |at: usize| merkle::root(&roots[4 * at..4 * at + 4]).unwrap();
        let group_hashes: Vec<SecureHash> = (0..16).map(four).collect();
        let id = merkle::root(&roots).unwrap();
        assert_eq!(merkle::root(&group_hashes).unwrap(), id);
        let tree = MerkleTree::new(&roots[44..48]).unwrap().partial_at(&[0].into()).unwrap();
        assert!(tree.verifies(&group_hashes[11], &[roots[44]]));
        let group = FilteredGroup { index: Group::Header.index(), components: vec![header], nonces: vec![nonce], tree };
        let raw = Raw { id, group_hashes, groups: vec![group] };
        assert_eq!(rule(FilteredTransaction::verified(raw)), Rule::FilteredInvalid);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_is_shown_verifies_and_nothing_else_is_there(mask in any::<u32>()) {
            let wire = full();
            let asked = std::cell::Cell::new(0);
            let tear_off = FilteredTransaction::new(&wire, |_| {
                asked.set(asked.get() + 1);
                mask & (1 << (asked.get() % 32)) != 0
            }).unwrap();
            let back = FilteredTransaction::decode(&tear_off.encode().unwrap()).unwrap();
            prop_assert_eq!(&back, &tear_off);
            let shown = back.contents();
            prop_assert!(shown.inputs.iter().all(|input| wire.contents().inputs.contains(input)));
            prop_assert!(shown.outputs.iter().all(|output| wire.contents().outputs.contains(output)));
            prop_assert_eq!(back.check_all_shown(Group::Outputs).is_ok(), shown.outputs.len() == 3);
            prop_assert_eq!(back.check_all_shown(Group::Inputs).is_ok(), shown.inputs.len() == 3);
        }

        #[test]
        fn a_changed_byte_is_refused(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let tear_off = FilteredTransaction::new(&full(), |shown| !matches!(shown, Shown::Output(_))).unwrap();
            let mut bytes = tear_off.encode().unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(FilteredTransaction::decode(&bytes).is_err());
        }
    }
}

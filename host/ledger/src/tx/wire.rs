//! A transaction as it travels: groups of components and a salt, with what they say (behaviour.md 10.2, 10.6).

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use maxhost_model::{Party, PublicKey, SecureHash};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::component::{Component, ComponentGroup, Group, Salt, group_roots};
use super::header::Header;
use super::state::{Command, CommandValue, StateRef, TransactionState, check_composite};
use super::structure;
use crate::codec;
use crate::merkle;
use crate::refused::{Refused, Result};
use crate::rules::Rule;
use crate::time::TimeWindow;

/// What the components of a transaction say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Version, network, digest, layout.
    pub header: Header,
    /// The states that are consumed.
    pub inputs: Vec<StateRef>,
    /// The states that are made.
    pub outputs: Vec<TransactionState>,
    /// What is done, with who must sign.
    pub commands: Vec<Command>,
    /// The ids of attachments.
    pub attachments: Vec<SecureHash>,
    /// The notary.
    pub notary: Option<Party>,
    /// When it may be notarised.
    pub time_window: Option<TimeWindow>,
    /// The states that are only looked at.
    pub references: Vec<StateRef>,
    /// The hash of the network parameters that it is judged by.
    pub parameters: Option<SecureHash>,
}

/// A transaction whose components decode and whose structure is sound. Whether it is signed, and what its contracts say,
/// is another matter.
#[derive(Debug, Clone)]
pub struct WireTransaction {
    groups: Vec<ComponentGroup>,
    salt: Salt,
    contents: Contents,
    group_roots: Vec<SecureHash>,
    id: SecureHash,
    /// The bytes in which it travels, once somebody has read or wanted them: it is signed, stored and given on several times.
    encoded: OnceLock<Arc<[u8]>>,
}

/// The form in which it travels and is stored.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    groups: Vec<ComponentGroup>,
    salt: Salt,
}

impl WireTransaction {
    /// From components as they were received.
    ///
    /// # Errors
    /// The first rule of the encoding, of groups, of the header or of structure that is broken.
    pub fn from_groups(groups: Vec<ComponentGroup>, salt: Salt) -> Result<WireTransaction> {
        let group_roots = group_roots(&groups, &salt)?;
        let id = merkle::root(&group_roots)?;
        let contents = read(&groups, Bytes::OfAnybody).map_err(|refused| refused.of(id))?;
        contents.header.check_supported().map_err(|refused| refused.of(id))?;
        structure::check(&contents).map_err(|refused| refused.of(id))?;
        Ok(WireTransaction { groups, salt, contents, group_roots, id, encoded: OnceLock::new() })
    }

    /// Encodes contents, once and for all.
    ///
    /// # Errors
    /// Those of [`codec::encode`], and the rules of structure.
    pub fn new(contents: &Contents, salt: Salt) -> Result<WireTransaction> {
        WireTransaction::from_groups(write(contents)?, salt)
    }

    /// Reads the bytes in which it travels.
    ///
    /// # Errors
    /// As [`WireTransaction::from_groups`].
    pub fn decode(bytes: &[u8]) -> Result<WireTransaction> {
        let envelope: Envelope = codec::decode("transaction", bytes)?;
        let wire = WireTransaction::from_groups(envelope.groups, envelope.salt)?;
        // Reading has shown that it has no other form.
        wire.encoded.get_or_init(|| bytes.into());
        Ok(wire)
    }

    /// Reads the bytes of a transaction that was read before ([`WireTransaction::decode`]), and had this id. The id commits to
    /// every component, so what was found of them then is not looked for again.
    ///
    /// # Errors
    /// [`Rule::MerkleMismatch`] if the bytes have another id; what keeps them from being read.
    pub fn decode_known(id: &SecureHash, bytes: &[u8]) -> Result<WireTransaction> {
        let Envelope { groups, salt } = codec::decode_known("transaction", bytes)?;
        let group_roots = group_roots(&groups, &salt)?;
        let found = merkle::root(&group_roots)?;
        if found != *id {
            let message = format!("these are the bytes of the transaction {found}");
            return Err(Refused::new(Rule::MerkleMismatch, message).of(*id));
        }
        let contents = read(&groups, Bytes::Known).map_err(|refused| refused.of(*id))?;
        contents.header.check_supported().map_err(|refused| refused.of(*id))?;
        let encoded = OnceLock::from(Arc::from(bytes));
        Ok(WireTransaction { groups, salt, contents, group_roots, id: *id, encoded })
    }

    /// The bytes in which it travels.
    ///
    /// # Errors
    /// As [`codec::encode`]: it may be larger than what may be sent.
    pub fn encode(&self) -> Result<Vec<u8>> {
        if let Some(encoded) = self.encoded.get() {
            return Ok(encoded.to_vec());
        }
        let envelope = Envelope { groups: self.groups.clone(), salt: self.salt.clone() };
        let encoded = codec::encode("transaction", &envelope)?;
        self.encoded.get_or_init(|| encoded.as_slice().into());
        Ok(encoded)
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> SecureHash {
        self.id
    }

    /// What it says.
    #[must_use]
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Its components.
    #[must_use]
    pub fn groups(&self) -> &[ComponentGroup] {
        &self.groups
    }

    /// The components of one kind; none if the group is absent.
    #[must_use]
    pub fn group(&self, group: Group) -> &[Component] {
        let found = self.groups.iter().find(|present| present.index == group.index());
        found.map_or(&[], |present| present.components.as_slice())
    }

    /// Its salt.
    #[must_use]
    pub fn salt(&self) -> &Salt {
        &self.salt
    }

    /// The roots of its groups, from 0 to the last that is present.
    #[must_use]
    pub fn group_roots(&self) -> &[SecureHash] {
        &self.group_roots
    }

    /// Whether a notary must sign: it has inputs, references or a time-window (behaviour.md 10.6).
    #[must_use]
    pub fn needs_notary(&self) -> bool {
        let contents = &self.contents;
        !contents.inputs.is_empty() || !contents.references.is_empty() || contents.time_window.is_some()
    }

    /// The keys of the parties that must sign: those of all commands.
    #[must_use]
    pub fn party_keys(&self) -> BTreeSet<PublicKey> {
        self.contents.commands.iter().flat_map(|command| command.signers.iter().cloned()).collect()
    }

    /// The reference to one of its outputs.
    #[must_use]
    pub fn output_ref(&self, index: u32) -> StateRef {
        StateRef::new(self.id, index)
    }

    /// The bytes of all its commands and outputs: its share of the size of a transaction (behaviour.md 10.8).
    #[must_use]
    pub fn own_size(&self) -> u64 {
        let own = [Group::Commands, Group::Outputs];
        own.iter().flat_map(|group| self.group(*group)).map(|component| component.bytes().len() as u64).sum()
    }
}

impl PartialEq for WireTransaction {
    fn eq(&self, other: &WireTransaction) -> bool {
        self.id == other.id
    }
}

impl Eq for WireTransaction {}

/// Where components come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bytes {
    /// Whoever sends them.
    OfAnybody,
    /// They were read before, and are the same.
    Known,
}

fn read(groups: &[ComponentGroup], from: Bytes) -> Result<Contents> {
    let of = |group: Group| -> &[Component] {
        let found = groups.iter().find(|present| present.index == group.index());
        found.map_or(&[], |present| present.components.as_slice())
    };
    let header = decode_one::<Header>(Group::Header, of(Group::Header), Rule::HeaderMissing, from)?
        .ok_or_else(|| Refused::new(Rule::HeaderMissing, "a transaction needs a header"))?;
    let outputs: Vec<TransactionState> = decode_each(Group::Outputs, of(Group::Outputs), from)?;
    let values: Vec<CommandValue> = decode_each(Group::Commands, of(Group::Commands), from)?;
    let signers: Vec<Vec<PublicKey>> = decode_each(Group::Signers, of(Group::Signers), from)?;
    if values.len() != signers.len() {
        let message = format!("there are {} commands and {} lists of signers", values.len(), signers.len());
        return Err(Refused::new(Rule::SignersMismatch, message));
    }
    if from == Bytes::OfAnybody {
        outputs.iter().try_for_each(TransactionState::check)?;
        values.iter().try_for_each(CommandValue::check)?;
        signers.iter().flatten().try_for_each(check_composite)?;
    }
    let notary: Option<Party> = decode_one(Group::Notary, of(Group::Notary), Rule::NotaryDuplicate, from)?;
    if from == Bytes::OfAnybody {
        notary.iter().try_for_each(|notary| check_composite(&notary.owning_key))?;
    }
    let mut attachments: Vec<SecureHash> = decode_each(Group::LegacyAttachments, of(Group::LegacyAttachments), from)?;
    attachments.extend(decode_each::<SecureHash>(Group::Attachments, of(Group::Attachments), from)?);
    let commands = values.into_iter().zip(signers).map(|(value, signers)| Command { value, signers }).collect();
    Ok(Contents {
        header,
        inputs: decode_each(Group::Inputs, of(Group::Inputs), from)?,
        outputs,
        commands,
        attachments,
        notary,
        time_window: decode_one(Group::TimeWindow, of(Group::TimeWindow), Rule::TimeWindowDuplicate, from)?,
        references: decode_each(Group::References, of(Group::References), from)?,
        parameters: decode_one(Group::Parameters, of(Group::Parameters), Rule::ParametersDuplicate, from)?,
    })
}

/// Decodes the components of one kind, and says which one is wrong.
pub(super) fn decode_all<T: Serialize + DeserializeOwned>(group: Group, components: &[Component]) -> Result<Vec<T>> {
    decode_each(group, components, Bytes::OfAnybody)
}

fn decode_each<T: Serialize + DeserializeOwned>(group: Group, components: &[Component], from: Bytes) -> Result<Vec<T>> {
    let decode = |(index, component): (usize, &Component)| {
        let decoded = match from {
            Bytes::OfAnybody => codec::decode(group.name(), component.bytes()),
            Bytes::Known => codec::decode_known(group.name(), component.bytes()),
        };
        decoded.map_err(|refused| refused.detail("group", group.index()).detail("index", index))
    };
    components.iter().enumerate().map(decode).collect()
}

fn decode_one<T: Serialize + DeserializeOwned>(
    group: Group,
    components: &[Component],
    more: Rule,
    from: Bytes,
) -> Result<Option<T>> {
    if components.len() > 1 {
        return Err(Refused::new(more, format!("a transaction has one {} at most", group.name())));
    }
    Ok(decode_each(group, components, from)?.pop())
}

fn write(contents: &Contents) -> Result<Vec<ComponentGroup>> {
    let values: Vec<&CommandValue> = contents.commands.iter().map(|command| &command.value).collect();
    let signers: Vec<&Vec<PublicKey>> = contents.commands.iter().map(|command| &command.signers).collect();
    let mut groups = Vec::new();
    encode_all(&mut groups, Group::Inputs, &contents.inputs)?;
    encode_all(&mut groups, Group::Outputs, &contents.outputs)?;
    encode_all(&mut groups, Group::Commands, &values)?;
    encode_all(&mut groups, Group::Notary, contents.notary.as_slice())?;
    encode_all(&mut groups, Group::TimeWindow, contents.time_window.as_slice())?;
    encode_all(&mut groups, Group::Signers, &signers)?;
    encode_all(&mut groups, Group::References, &contents.references)?;
    encode_all(&mut groups, Group::Parameters, contents.parameters.as_slice())?;
    encode_all(&mut groups, Group::Attachments, &contents.attachments)?;
    encode_all(&mut groups, Group::Header, std::slice::from_ref(&contents.header))?;
    Ok(groups)
}

fn encode_all<T: Serialize>(groups: &mut Vec<ComponentGroup>, group: Group, items: &[T]) -> Result<()> {
    if items.is_empty() {
        return Ok(());
    }
    let encode = |item: &T| codec::encode(group.name(), item).map(Component::new);
    let components = items.iter().map(encode).collect::<Result<_>>()?;
    groups.push(ComponentGroup { index: group.index(), components });
    Ok(())
}

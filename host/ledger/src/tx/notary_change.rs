//! A change of notary: a transaction of its own kind that moves states to another notary and changes nothing else
//! (behaviour.md 10.17).

use std::collections::BTreeSet;

use maxhost_model::{Party, PublicKey, SecureHash};
use serde::{Deserialize, Serialize};

use super::header::Header;
use super::state::{StateAndRef, StateRef, TransactionState, check_composite};
use crate::codec;
use crate::digest::twice;
use crate::refused::{Refused, Result};
use crate::rules::Rule;
use crate::time::{TimeWindow, Timestamp};

/// What keeps the id of a change of notary from ever being that of an ordinary transaction.
const PURPOSE: &[u8] = b"maxhost notary change\0";

/// A change of notary.
#[derive(Debug, Clone)]
pub struct NotaryChange {
    contents: NotaryChangeContents,
    bytes: Vec<u8>,
    id: SecureHash,
}

/// What a change of notary says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotaryChangeContents {
    /// Version, network, digest, layout.
    pub header: Header,
    /// The states that move, whole circles of encumbrance together.
    pub inputs: Vec<StateRef>,
    /// Who has kept them so far.
    pub notary: Party,
    /// Who will keep them.
    pub new_notary: Party,
    /// The hash of the network parameters.
    pub parameters: SecureHash,
    /// Until when the old notary may notarise it, that point excluded. Whoever has signed and hears nothing more takes it back
    /// then.
    pub until: Timestamp,
}

fn refuse(message: impl Into<String>) -> Refused {
    Refused::new(Rule::NotaryChangeInvalid, message)
}

impl NotaryChange {
    /// Encodes a change, once and for all.
    ///
    /// # Errors
    /// [`Rule::NotaryChangeInvalid`] without inputs, or with one given twice; [`Rule::NotaryUnchanged`] to the same notary.
    pub fn new(contents: NotaryChangeContents) -> Result<NotaryChange> {
        let bytes = codec::encode("notary change", &contents)?;
        NotaryChange::from_parts(contents, bytes)
    }

    /// Reads the bytes in which it travels.
    ///
    /// # Errors
    /// Those of [`codec::decode`], of [`NotaryChange::new`] and of the header.
    pub fn decode(bytes: &[u8]) -> Result<NotaryChange> {
        NotaryChange::from_parts(codec::decode("notary change", bytes)?, bytes.to_vec())
    }

    fn from_parts(contents: NotaryChangeContents, bytes: Vec<u8>) -> Result<NotaryChange> {
        contents.header.check_supported()?;
        check_composite(&contents.notary.owning_key)?;
        check_composite(&contents.new_notary.owning_key)?;
        if contents.inputs.is_empty() {
            return Err(refuse("a change of notary has inputs"));
        }
        let distinct: BTreeSet<&StateRef> = contents.inputs.iter().collect();
        if distinct.len() != contents.inputs.len() {
            return Err(refuse("an input is given twice"));
        }
        if contents.notary == contents.new_notary || contents.notary.name == contents.new_notary.name {
            let message = format!("the states are kept by {} already", contents.notary);
            return Err(Refused::new(Rule::NotaryUnchanged, message).detail("notary", contents.notary.name));
        }
        let id = twice(&[PURPOSE, &bytes].concat());
        Ok(NotaryChange { contents, bytes, id })
    }

    /// The bytes in which it travels: those that its id is over.
    ///
    /// # Errors
    /// None; the result is that of the other kinds of transactions.
    pub fn encode(&self) -> Result<Vec<u8>> {
        Ok(self.bytes.clone())
    }

    /// Its id: the double hash of its purpose and its bytes. There is no salt, because nothing in it is worth hiding.
    #[must_use]
    pub fn id(&self) -> SecureHash {
        self.id
    }

    /// When the old notary may notarise it.
    #[must_use]
    pub fn time_window(&self) -> TimeWindow {
        TimeWindow::until_only(self.contents.until)
    }

    /// What it says.
    #[must_use]
    pub fn contents(&self) -> &NotaryChangeContents {
        &self.contents
    }

    /// Where a state that it consumes is among those that it makes.
    #[must_use]
    pub fn moved_to(&self, state: &StateRef) -> Option<u32> {
        let at = self.contents.inputs.iter().position(|moving| moving == state);
        at.and_then(|at| u32::try_from(at).ok())
    }

    /// The states that it makes, in the order of its inputs: as they were, with the new notary, and with encumbrances
    /// pointing to the places where the states that encumber them are now.
    ///
    /// # Errors
    /// [`Rule::StateUnknown`] if the inputs given are not those of the change; [`Rule::NotaryMismatch`] if one has
    /// another notary; [`Rule::EncumbranceInputMissing`] if a state is left behind that encumbers one that moves.
    pub fn outputs(&self, inputs: &[StateAndRef]) -> Result<Vec<TransactionState>> {
        let id = self.id();
        if !inputs.iter().map(|input| &input.reference).eq(&self.contents.inputs) {
            return Err(Refused::new(Rule::StateUnknown, "the states given are not those of the change").of(id));
        }
        inputs.iter().map(|input| self.output(input)).collect::<Result<_>>().map_err(|refused| refused.of(id))
    }

    fn output(&self, input: &StateAndRef) -> Result<TransactionState> {
        if input.state.notary.name != self.contents.notary.name {
            let message = format!("the state {} is kept by {}", input.reference, input.state.notary);
            return Err(Refused::new(Rule::NotaryMismatch, message).detail("state", input.reference));
        }
        let moved_to = |index: u32| {
            let encumbering = StateRef::new(input.reference.tx, index);
            self.moved_to(&encumbering).ok_or_else(|| {
                let message = format!("the state {} is encumbered by {encumbering}, which stays", input.reference);
                Refused::new(Rule::EncumbranceInputMissing, message).detail("state", input.reference)
            })
        };
        let encumbrance = input.state.encumbrance.map(moved_to).transpose()?;
        Ok(TransactionState { notary: self.contents.new_notary.clone(), encumbrance, ..input.state.clone() })
    }

    /// The keys that must sign: the participants of all states, and the old notary.
    #[must_use]
    pub fn required_keys(&self, participants: impl IntoIterator<Item = PublicKey>) -> BTreeSet<PublicKey> {
        participants.into_iter().chain([self.contents.notary.owning_key.clone()]).collect()
    }

    /// Checks that the change names the old notary under the key that decides for these states: the one in these parameters,
    /// or, if they do not list it any more, the one that the states name. Without this the signature that stands for the old
    /// notary could be anybody's.
    ///
    /// # Errors
    /// [`Rule::NotaryMismatch`].
    pub fn check_old_notary<'a>(
        &self,
        inputs: &[StateAndRef],
        notaries: impl IntoIterator<Item = &'a Party>,
    ) -> Result<()> {
        let named = &self.contents.notary;
        let listed = notaries.into_iter().find(|notary| notary.name == named.name);
        let is_kept_by = |input: &StateAndRef| *named == *listed.unwrap_or(&input.state.notary);
        let Some(input) = inputs.iter().find(|input| !is_kept_by(input)) else { return Ok(()) };
        let message =
            format!("the change names {named} under another key than that of the notary of {}", input.reference);
        Err(Refused::new(Rule::NotaryMismatch, message).of(self.id()).detail("state", input.reference))
    }

    /// Checks that the network trusts the new notary. The old one may have been taken off the list.
    ///
    /// # Errors
    /// [`Rule::NotaryUntrusted`].
    pub fn check_new_notary<'a>(&self, notaries: impl IntoIterator<Item = &'a Party>) -> Result<()> {
        if notaries.into_iter().any(|notary| *notary == self.contents.new_notary) {
            return Ok(());
        }
        let message = format!("{} is no notary of the network", self.contents.new_notary);
        Err(Refused::new(Rule::NotaryUntrusted, message).of(self.id()))
    }
}

impl PartialEq for NotaryChange {
    fn eq(&self, other: &NotaryChange) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for NotaryChange {}

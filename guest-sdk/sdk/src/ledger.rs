//! The ledger of the identity that a flow runs as: building transactions, having them signed and finalised, and the states
//! of the vault.
//!
//! The protocols run on the host: what is built is verified and signed there, and what is finalised is notarised and
//! recorded by everybody whom it concerns, in two phases that survive a crash at any point. A flow writes one line for each.
//!
//! ```no_run
//! # use maxhost_sdk::prelude::*;
//! # use maxhost_sdk::ledger::{AmountOf, Draft, select};
//! # #[derive(Serialize, Deserialize)] struct Cash { quantity: u64 }
//! # fn pay(session: &Session, keys: Vec<Vec<u8>>, value: Vec<u8>) -> Result<()> {
//! let spent = select::<Cash>(&AmountOf::new("cash/Cash", "GBP", 100))?;
//! let paid = Draft::spending(&spent)
//!     .output("cash", "Cash", &Cash { quantity: 100 })?
//!     .command("cash", "Move", value, keys)
//!     .sign()?
//!     .finalise(&[session])?;
//! info!("paid in {}", paid.id());
//! # Ok(()) }
//! ```

mod attachments;
mod conflicts;
mod keys;
mod notary_change;
mod pointers;
mod recording;
mod tear_off;
mod waits;

use maxhost_cbor::deterministic::{self, Rules};
use maxhost_cbor::{Limits, from_slice_within};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::maxhost::cordapp::ledger as wit;
use crate::error::{Error, Result};
use crate::party::Party;
use crate::session::Session;
use crate::time::Timestamp;
use crate::{cbor, host};

pub use attachments::{attach, attachment};
pub use conflicts::{Conflict, ConflictKind, ConflictingState, Repeat, with_referenced_states};
pub use keys::{Key, external_id_of, fresh_key, fresh_key_for, keys_of, who_is};
pub use notary_change::{NotaryChange, change_notary, change_notary_observed, change_notary_with};
pub use pointers::resolve;
pub use recording::StatesToRecord;
pub use tear_off::{Show, Shown, TearOff};
pub use waits::{wait_for_ledger_commit, wait_for_state_consumption};

/// The rules of data on a ledger (`docs/behaviour.md` 10.1 of maxhost): deterministic, no floats.
const RULES: Rules = Rules { floats: false, limits: Limits { depth: 64, size: 64 << 20 } };

fn malformed(error: &cbor::Error) -> Error {
    Error::unexpected(format!("the data of the ledger: {error}"))
}

fn encode<T: Serialize + ?Sized>(data: &T) -> Result<Vec<u8>> {
    deterministic::to_vec(data, RULES).map_err(|error| malformed(&error))
}

fn decode<T: DeserializeOwned>(data: &[u8]) -> Result<T> {
    from_slice_within(data, RULES.limits).map_err(|error| malformed(&error))
}

/// The notaries of the network, the preferred one first.
#[must_use]
pub fn notaries() -> Vec<Party> {
    host::notaries().into_iter().map(|party| Party::named(party.name)).collect()
}

/// The key of a party, which signs for it: SubjectPublicKeyInfo, DER.
///
/// # Errors
/// `IllegalArgument` if the network has no such party.
pub fn key_of(party: &Party) -> Result<Vec<u8>> {
    party.owning_key()?.ok_or_else(|| Error::IllegalArgument(format!("the network has no party {party}")))
}

/// The own key.
#[must_use]
pub fn our_key() -> Vec<u8> {
    host::our_identity().owning_key
}

/// A state of the vault.
#[derive(Debug, Clone, PartialEq)]
pub struct StateAndRef<T> {
    /// Where it was made: `TXID:INDEX`.
    pub reference: String,
    /// What it says.
    pub state: T,
    /// Its notary.
    pub notary: Party,
}

impl<T: DeserializeOwned> StateAndRef<T> {
    fn read(state: wit::VaultState) -> Result<StateAndRef<T>> {
        Ok(StateAndRef { state: decode(&state.data)?, reference: state.reference, notary: Party::named(state.notary) })
    }
}

fn read_all<T: DeserializeOwned>(states: Vec<wit::VaultState>) -> Result<Vec<StateAndRef<T>>> {
    states.into_iter().map(StateAndRef::read).collect()
}

/// An amount of a token that is to be spent.
#[derive(Debug, Clone)]
pub struct AmountOf {
    state_type: String,
    token: String,
    quantity: u64,
    issuer: Option<Party>,
    notary: Option<Party>,
    wait_ms: u64,
}

impl AmountOf {
    /// So much of a token, in states of this type: `AmountOf::new("cash/Cash", "GBP", 100)`.
    #[must_use]
    pub fn new(state_type: impl Into<String>, token: impl Into<String>, quantity: u64) -> AmountOf {
        let (state_type, token) = (state_type.into(), token.into());
        AmountOf { state_type, token, quantity, issuer: None, notary: None, wait_ms: 0 }
    }

    /// Only what this party owes.
    #[must_use]
    pub fn issued_by(mut self, issuer: &Party) -> AmountOf {
        self.issuer = Some(issuer.clone());
        self
    }

    /// Only what this notary keeps.
    #[must_use]
    pub fn kept_by(mut self, notary: &Party) -> AmountOf {
        self.notary = Some(notary.clone());
        self
    }

    /// As much as this in place of what was said before.
    #[must_use]
    pub fn with_quantity(mut self, quantity: u64) -> AmountOf {
        self.quantity = quantity;
        self
    }

    /// How much it is.
    #[must_use]
    pub fn quantity(&self) -> u64 {
        self.quantity
    }

    /// The type of the states: `cash/Cash`.
    #[must_use]
    pub fn state_type(&self) -> &str {
        &self.state_type
    }

    /// The token that the amount is of.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The party that owes it, if that matters.
    #[must_use]
    pub fn issuer(&self) -> Option<&Party> {
        self.issuer.as_ref()
    }

    /// The notary that keeps it, if that matters.
    #[must_use]
    pub fn notary(&self) -> Option<&Party> {
        self.notary.as_ref()
    }

    /// Waits so long, milliseconds, while other flows hold too much of it.
    #[must_use]
    pub fn waiting(mut self, milliseconds: u64) -> AmountOf {
        self.wait_ms = milliseconds;
        self
    }
}

/// Selects states for an amount, and locks them until the flow ends: no other flow of this identity gets them.
///
/// # Errors
/// A flow exception of type `vault/insufficient`, `vault/locked` or `vault/fragmented`.
pub fn select<T: DeserializeOwned>(wanted: &AmountOf) -> Result<Vec<StateAndRef<T>>> {
    let states = host::select(wit::AmountWanted {
        state_type: &wanted.state_type,
        token: &wanted.token,
        issuer: wanted.issuer.as_ref().map(Party::name),
        notary: wanted.notary.as_ref().map(Party::name),
        quantity: wanted.quantity,
        wait: wanted.wait_ms,
    })?;
    read_all(states)
}

/// Locks exactly these states until the flow ends.
///
/// # Errors
/// A flow exception of type `vault/locked` if one of them is held by another flow, or cannot be spent.
pub fn lock<T: DeserializeOwned>(references: &[&str]) -> Result<Vec<StateAndRef<T>>> {
    read_all(host::lock(references)?)
}

/// States that can only be spent together, each encumbered by the next: as [`Draft::together`] makes them.
#[derive(Debug, Clone)]
pub struct Together(Vec<wit::VaultState>);

impl Together {
    /// Whether it is one state, which can be spent by itself.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.0.len() == 1
    }

    /// Those of this type: `cash/Cash`.
    ///
    /// # Errors
    /// Data of another type.
    pub fn of<T: DeserializeOwned>(&self, state_type: &str) -> Result<Vec<StateAndRef<T>>> {
        read_all(self.0.iter().filter(|state| state.state_type == state_type).cloned().collect())
    }
}

/// Locks a state with all that it can only be spent together with until the flow ends; a state that nothing encumbers is
/// alone. [`Draft::spending_together`] consumes them.
///
/// # Errors
/// A flow exception of type `vault/locked` if one of them is held by another flow, or is not this identity's to spend.
pub fn lock_together<T>(state: &StateAndRef<T>) -> Result<Together> {
    Ok(Together(host::lock_together(&state.reference)?))
}

/// A query of the vault.
#[derive(Debug, Clone, Default)]
pub struct Query {
    state_types: Vec<String>,
    consumed: bool,
    filter: Option<String>,
    /// What must hold beside it.
    more: Vec<String>,
    sort: Option<String>,
    limit: Option<u32>,
}

impl Query {
    /// States of this type that can be spent.
    #[must_use]
    pub fn of(state_type: impl Into<String>) -> Query {
        Query { state_types: vec![state_type.into()], ..Query::default() }
    }

    /// Consumed ones too.
    #[must_use]
    pub fn with_consumed(mut self) -> Query {
        self.consumed = true;
        self
    }

    /// Those for which a condition holds, as `maxhost vault query --where` takes it. Quote texts with [`text`].
    #[must_use]
    pub fn filter(mut self, condition: impl Into<String>) -> Query {
        self.filter = Some(condition.into());
        self
    }

    /// Sorted by these fields: `quantity:desc,currency`.
    #[must_use]
    pub fn sort(mut self, fields: impl Into<String>) -> Query {
        self.sort = Some(fields.into());
        self
    }

    /// At most so many.
    #[must_use]
    pub fn limit(mut self, limit: u32) -> Query {
        self.limit = Some(limit);
        self
    }

    /// All that must hold. The condition of the author comes first, so that a fault in it is found where he wrote it.
    fn condition(&self) -> Option<String> {
        let more = self.more.iter().cloned();
        match &self.filter {
            None if self.more.is_empty() => None,
            None => Some(more.collect::<Vec<_>>().join(" and ")),
            Some(filter) if self.more.is_empty() => Some(filter.clone()),
            Some(filter) => Some([format!("({filter})")].into_iter().chain(more).collect::<Vec<_>>().join(" and ")),
        }
    }

    /// What it finds, up to the limit (200 if none is said).
    ///
    /// # Errors
    /// A flow exception of type `ledger/rejected` for a condition that is none.
    pub fn find<T: DeserializeOwned>(&self) -> Result<Vec<StateAndRef<T>>> {
        let types: Vec<&str> = self.state_types.iter().map(String::as_str).collect();
        let filter = self.condition();
        let page = host::query(wit::VaultQuery {
            state_types: &types,
            unconsumed: true,
            consumed: self.consumed,
            filter: filter.as_deref(),
            sort: self.sort.as_deref(),
            limit: self.limit,
            cursor: None,
        })?;
        read_all(page.states)
    }
}

/// A text as conditions have it: in quotes.
#[must_use]
pub fn text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[derive(Debug, Clone)]
struct Output {
    contract: String,
    state_type: String,
    data: Vec<u8>,
    encumbrance: Option<u32>,
}

#[derive(Debug, Clone)]
struct Command {
    contract: String,
    name: String,
    value: Vec<u8>,
    signers: Vec<Vec<u8>>,
}

/// A transaction that is being put together.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    notary: Option<Party>,
    inputs: Vec<String>,
    references: Vec<String>,
    outputs: Vec<Output>,
    commands: Vec<Command>,
    attachments: Vec<String>,
    from: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Draft {
    /// A draft with this notary.
    #[must_use]
    pub fn new(notary: &Party) -> Draft {
        Draft { notary: Some(notary.clone()), ..Draft::default() }
    }

    /// A draft that consumes these states, with their notary.
    #[must_use]
    pub fn spending<T>(states: &[StateAndRef<T>]) -> Draft {
        Draft::default().inputs(states)
    }

    /// A draft that consumes states that can only be spent together, with their notary.
    #[must_use]
    pub fn spending_together(states: &Together) -> Draft {
        let mut draft = Draft::default();
        draft.inputs.extend(states.0.iter().map(|state| state.reference.clone()));
        draft
    }

    /// Consumes states.
    #[must_use]
    pub fn inputs<T>(mut self, states: &[StateAndRef<T>]) -> Draft {
        self.inputs.extend(states.iter().map(|state| state.reference.clone()));
        self
    }

    /// Looks at a state.
    #[must_use]
    pub fn reference<T>(mut self, state: &StateAndRef<T>) -> Draft {
        self.references.push(state.reference.clone());
        self
    }

    /// Makes a state of this type of this contract.
    ///
    /// # Errors
    /// Data that have no deterministic form, such as floats.
    pub fn output<T: Serialize + ?Sized>(
        mut self,
        contract: impl Into<String>,
        state_type: impl Into<String>,
        state: &T,
    ) -> Result<Draft> {
        let (contract, state_type, data) = (contract.into(), state_type.into(), encode(state)?);
        self.outputs.push(Output { contract, state_type, data, encumbrance: None });
        Ok(self)
    }

    /// The output that was added last can only be spent together with this one, counted from 0. Such outputs form closed
    /// circles, which [`Draft::together`] makes.
    #[must_use]
    pub fn encumbered_by(mut self, output: u32) -> Draft {
        if let Some(last) = self.outputs.last_mut() {
            last.encumbrance = Some(output);
        }
        self
    }

    /// The outputs that are added in here, two or more, can only be spent together: each is encumbered by the next, and the
    /// last by the first. `draft.together(|draft| draft.output(…)?.output(…))?`
    ///
    /// # Errors
    /// Those of adding them.
    pub fn together(self, add: impl FnOnce(Draft) -> Result<Draft>) -> Result<Draft> {
        let first = self.outputs.len();
        let mut draft = add(self)?;
        let number = |index: usize| u32::try_from(index).unwrap_or(u32::MAX);
        let end = draft.outputs.len();
        for (index, output) in draft.outputs.iter_mut().enumerate().skip(first) {
            output.encumbrance = Some(number(if index + 1 < end { index + 1 } else { first }));
        }
        Ok(draft)
    }

    /// Does something, to be signed by these keys. The value is deterministic CBOR, as the contract's commands encode it.
    #[must_use]
    pub fn command(
        mut self,
        contract: impl Into<String>,
        name: impl Into<String>,
        value: Vec<u8>,
        signers: impl IntoIterator<Item = Vec<u8>>,
    ) -> Draft {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        for key in signers {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        self.commands.push(Command { contract: contract.into(), name: name.into(), value, signers: keys });
        self
    }

    /// Attaches a file: one that [`attach`] has kept, that an operator has imported, or that came with a transaction. Whoever
    /// gets the transaction gets the file. The code of contracts is attached without being named.
    #[must_use]
    pub fn attachment(mut self, id: impl Into<String>) -> Draft {
        self.attachments.push(id.into());
        self
    }

    /// It may be notarised from then on, for 24 hours if no end is said.
    #[must_use]
    pub fn from(mut self, time: Timestamp) -> Draft {
        self.from = Some(time);
        self
    }

    /// It may be notarised until then, that point excluded; within 24 hours if nothing is said.
    #[must_use]
    pub fn until(mut self, time: Timestamp) -> Draft {
        self.until = Some(time);
        self
    }

    /// Builds it, verifies it with its contracts, and signs it with the own keys that must sign, or the legal one if none must.
    ///
    /// # Errors
    /// A flow exception of type `ledger/rejected` with the rule, or the contract and its fault, as data.
    pub fn sign(&self) -> Result<Transaction> {
        let inputs: Vec<&str> = self.inputs.iter().map(String::as_str).collect();
        let references: Vec<&str> = self.references.iter().map(String::as_str).collect();
        let outputs: Vec<wit::DraftOutput<'_>> = self
            .outputs
            .iter()
            .map(|output| wit::DraftOutput {
                contract: &output.contract,
                state_type: &output.state_type,
                data: &output.data,
                notary: None,
                encumbrance: output.encumbrance,
            })
            .collect();
        let signers: Vec<Vec<&[u8]>> =
            self.commands.iter().map(|command| command.signers.iter().map(Vec::as_slice).collect()).collect();
        let commands: Vec<wit::DraftCommand<'_>> = self
            .commands
            .iter()
            .zip(&signers)
            .map(|(command, signers)| wit::DraftCommand {
                contract: &command.contract,
                name: &command.name,
                value: &command.value,
                signers,
            })
            .collect();
        let draft = wit::Draft {
            notary: self.notary.as_ref().map(Party::name),
            inputs: &inputs,
            references: &references,
            outputs: &outputs,
            commands: &commands,
            from: self.from.map(Timestamp::as_unix_nanos),
            until: self.until.map(Timestamp::as_unix_nanos),
        };
        let attachments: Vec<&str> = self.attachments.iter().map(String::as_str).collect();
        let built = if attachments.is_empty() { host::build(draft) } else { host::build_with(draft, &attachments) };
        Ok(Transaction(built?))
    }
}

/// A transaction with the signatures that it has.
#[derive(Debug, Clone)]
pub struct Transaction(wit::Transaction);

impl Transaction {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// The bytes in which it travels, with its signatures.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// What it says, as its contracts see it: deterministic CBOR that the contract SDK reads.
    #[must_use]
    pub fn view(&self) -> &[u8] {
        &self.0.view
    }

    /// Asks the other sides of sessions for the signatures that are missing; each runs [`Session::receive_to_sign`].
    ///
    /// # Errors
    /// What they answer; `ledger/missing-signatures` if not all came that are needed.
    pub fn collect(&self, sessions: &[impl AsRef<Session>]) -> Result<Transaction> {
        Ok(Transaction(host::collect_signatures(&self.0.bytes, &numbers(sessions))?))
    }

    /// Has it notarised, and makes it part of the ledger of everybody whom it concerns: each has a session here and runs
    /// [`Session::receive_finality`].
    ///
    /// # Errors
    /// A flow exception of type `notary/conflict`, `notary/time-window` or `notary/invalid`; what the others answer.
    pub fn finalise(&self, sessions: &[impl AsRef<Session>]) -> Result<Transaction> {
        Ok(Transaction(host::finalise(&self.0.bytes, &numbers(sessions))?))
    }
}

fn numbers(sessions: &[impl AsRef<Session>]) -> Vec<u32> {
    sessions.iter().map(|session| session.as_ref().0).collect()
}

impl Session {
    /// Gets a transaction to sign, verified with all that it comes from. Look at what it does before you sign.
    ///
    /// # Errors
    /// A flow exception of type `ledger/rejected`; what the peer sends instead.
    pub fn receive_to_sign(&self) -> Result<Transaction> {
        Ok(Transaction(host::receive_to_sign(self.0)?))
    }

    /// Signs a transaction that came with [`Session::receive_to_sign`] with the key of the legal identity, and gives the
    /// signature.
    ///
    /// # Errors
    /// `IllegalArgument` if this identity's signature is not among those that are missing.
    pub fn sign(&self, transaction: &Transaction) -> Result<()> {
        Ok(host::return_signature(self.0, &transaction.0.bytes)?)
    }

    /// Gives states, and what they come from, so that the other side can build a transaction with them; it runs
    /// [`Session::receive_states`]. They stay where they are.
    ///
    /// # Errors
    /// `IllegalArgument` for a state that this identity does not know.
    pub fn send_states<T>(&self, states: &[StateAndRef<T>]) -> Result<()> {
        let references: Vec<&str> = states.iter().map(|state| state.reference.as_str()).collect();
        Ok(host::send_states(self.0, &references)?)
    }

    /// Gets states, verified with what they come from.
    ///
    /// # Errors
    /// A flow exception of type `ledger/rejected`; what the peer sends instead.
    pub fn receive_states<T: DeserializeOwned>(&self) -> Result<Vec<StateAndRef<T>>> {
        read_all(host::receive_states(self.0)?)
    }

    /// The other side of [`Transaction::finalise`]: gets a transaction, verifies it with all that it comes from, and makes it
    /// part of the ledger.
    ///
    /// # Errors
    /// A flow exception of type `ledger/rejected`, or of the notary; what the peer sends instead.
    pub fn receive_finality(&self) -> Result<Transaction> {
        Ok(Transaction(host::receive_finality(self.0, None)?))
    }

    /// As [`Session::receive_finality`], for the transaction of this id only.
    ///
    /// # Errors
    /// As there; `IllegalArgument` if another one comes.
    pub fn receive_finality_of(&self, id: &str) -> Result<Transaction> {
        Ok(Transaction(host::receive_finality(self.0, Some(id))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_states_are_found_is_said_beside_the_condition() {
        let said = |query: Query| query.condition().unwrap_or_default();
        assert_eq!(said(Query::of("cash/Cash")), "");
        assert_eq!(said(Query::of("cash/Cash").own()), "relevant = true");
        let account = Query::of("cash/Cash").key_external_id("it's");
        assert_eq!(said(account), "\"@key_external_id\" = 'it''s'");
        let either = Query::of("trade/Asset").of_others().filter("a = 1 or b = 2").external_id("it's");
        assert_eq!(said(either), "(a = 1 or b = 2) and relevant = false and \"@external_id\" = 'it''s'");
    }

    #[test]
    fn what_is_made_together_is_encumbered_in_a_circle() -> Result<()> {
        let output = |draft: Draft| draft.output("cash", "Cash", &1);
        let draft = output(Draft::default())?.together(|draft| output(output(output(draft)?)?))?;
        let draft = output(draft)?.together(Ok)?;
        let encumbrances: Vec<Option<u32>> = draft.outputs.iter().map(|output| output.encumbrance).collect();
        assert_eq!(encumbrances, [None, Some(2), Some(3), Some(1), None]);
        Ok(())
    }
}

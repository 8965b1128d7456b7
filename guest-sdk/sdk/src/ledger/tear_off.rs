//! Signatures of those who are to see a part of a transaction only, such as oracles: tear-offs.

use maxhost_contract::{Hash, Party as LedgerParty, RawCommand, RawState, StateRef, TimeWindow};
use serde::Deserialize;

use super::{Transaction, decode, key_of};
use crate::bindings::maxhost::cordapp::ledger as wit;
use crate::error::Result;
use crate::host;
use crate::party::Party;
use crate::session::Session;

/// What is shown of a transaction; the rest stays hidden, and is proved to be a part of it all the same. Of a command the
/// keys that sign for all commands are shown too.
#[derive(Debug, Clone, Default)]
pub struct Show {
    commands_of: Vec<Vec<u8>>,
    commands: bool,
    states: bool,
    terms: bool,
}

impl Show {
    /// Nothing but the id.
    #[must_use]
    pub fn nothing() -> Show {
        Show::default()
    }

    /// All that there is.
    #[must_use]
    pub fn everything() -> Show {
        Show { commands: true, states: true, terms: true, ..Show::default() }
    }

    /// The commands that this party must sign.
    ///
    /// # Errors
    /// `IllegalArgument` if the network has no such party.
    pub fn commands_of(party: &Party) -> Result<Show> {
        Ok(Show { commands_of: vec![key_of(party)?], ..Show::default() })
    }

    /// The states that it makes too, and the references of those that it consumes and looks at.
    #[must_use]
    pub fn and_states(mut self) -> Show {
        self.states = true;
        self
    }

    /// The notary, the time-window, the attachments and the network parameters too.
    #[must_use]
    pub fn and_terms(mut self) -> Show {
        self.terms = true;
        self
    }
}

/// What is shown of a transaction. It is a part of the transaction with this id; of the rest nothing is known.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Shown {
    /// The id of the transaction.
    pub id: Hash,
    /// States that it consumes.
    pub inputs: Vec<StateRef>,
    /// States that it looks at.
    pub references: Vec<StateRef>,
    /// States that it makes.
    pub outputs: Vec<RawState>,
    /// What it does, with the keys that must sign for it.
    pub commands: Vec<RawCommand>,
    /// The ids of its attachments.
    pub attachments: Vec<Hash>,
    /// The notary.
    pub notary: Option<LedgerParty>,
    /// When it may be notarised.
    pub time_window: Option<TimeWindow>,
    /// The hash of the network parameters that it is judged by.
    pub parameters: Option<Hash>,
}

impl Shown {
    /// Whether nothing is shown but commands.
    #[must_use]
    pub fn has_only_commands(&self) -> bool {
        let hides_states = self.inputs.is_empty() && self.references.is_empty() && self.outputs.is_empty();
        let hides_terms = self.notary.is_none() && self.time_window.is_none() && self.parameters.is_none();
        hides_states && hides_terms && self.attachments.is_empty()
    }
}

/// A part of a transaction, verified to be one.
#[derive(Debug, Clone)]
pub struct TearOff(wit::Transaction);

impl TearOff {
    /// The id of the transaction.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// What is shown of it.
    ///
    /// # Errors
    /// A host that is newer than this SDK and shows it in another form.
    pub fn shown(&self) -> Result<Shown> {
        decode(&self.0.view)
    }
}

impl Transaction {
    /// Asks the other side of a session for its signature, and shows it so much of the transaction; it runs
    /// [`Session::receive_tear_off`] and [`Session::sign_tear_off`].
    ///
    /// # Errors
    /// What it answers; `ledger/protocol` if its signature is none that is missing.
    pub fn collect_on_tear_off(&self, session: &Session, show: &Show) -> Result<Transaction> {
        let keys: Vec<&[u8]> = show.commands_of.iter().map(Vec::as_slice).collect();
        let shown = wit::ShownParts {
            commands_of: &keys,
            commands: show.commands,
            inputs: show.states,
            references: show.states,
            outputs: show.states,
            attachments: show.terms,
            notary: show.terms,
            time_window: show.terms,
            parameters: show.terms,
        };
        Ok(Transaction(host::collect_on_tear_off(self.bytes(), session.0, shown)?))
    }
}

impl Session {
    /// Gets a part of a transaction that this identity is to sign. That it is a part of it is verified, and that no command
    /// that needs the own signature is hidden behind others. Look at what is shown before you sign: it may be nothing.
    ///
    /// # Errors
    /// A flow exception of type `ledger/rejected`; what the peer sends instead.
    pub fn receive_tear_off(&self) -> Result<TearOff> {
        Ok(TearOff(host::receive_tear_off(self.0)?))
    }

    /// Signs the transaction of a tear-off that came with [`Session::receive_tear_off`], and gives the signature.
    ///
    /// # Errors
    /// A flow exception of type `ledger/rejected` if no command is shown that this identity must sign.
    pub fn sign_tear_off(&self, tear_off: &TearOff) -> Result<()> {
        Ok(host::sign_tear_off(self.0, &tear_off.0.bytes)?)
    }
}

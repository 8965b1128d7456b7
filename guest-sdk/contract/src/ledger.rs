//! The transaction as the host gives it: the same maps as `maxhost_ledger` writes, as far as contracts look at them.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Hash, Party, PublicKey, TimeWindow, octets};

/// An output of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "(Hash, u32)", into = "(Hash, u32)")]
pub struct StateRef {
    /// The transaction.
    pub tx: Hash,
    /// The position among its outputs.
    pub index: u32,
}

impl From<(Hash, u32)> for StateRef {
    fn from((tx, index): (Hash, u32)) -> StateRef {
        StateRef { tx, index }
    }
}

impl From<StateRef> for (Hash, u32) {
    fn from(state: StateRef) -> (Hash, u32) {
        (state.tx, state.index)
    }
}

impl fmt::Display for StateRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.tx, self.index)
    }
}

/// The text is no reference of a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseStateRefError(String);

impl fmt::Display for ParseStateRefError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is no reference of a state: TXID:INDEX, the id in hexadecimal", self.0)
    }
}

impl core::error::Error for ParseStateRefError {}

impl FromStr for StateRef {
    type Err = ParseStateRefError;

    fn from_str(text: &str) -> Result<StateRef, ParseStateRefError> {
        let parsed = text.split_once(':').and_then(|(tx, index)| {
            let plain = index.bytes().all(|byte| byte.is_ascii_digit());
            Some(StateRef { tx: Hash::from_hex(tx)?, index: index.parse().ok().filter(|_| plain)? })
        });
        parsed.ok_or_else(|| ParseStateRefError(text.chars().take(80).collect()))
    }
}

impl fmt::Debug for StateRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which contract: whose, and its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContractId {
    /// The key of its publisher; none for unsigned code.
    pub publisher: Option<PublicKey>,
    /// Its name.
    pub name: String,
}

/// The version of the type of a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaId {
    /// Counts changes of the type, from 1.
    pub version: u32,
    /// SHA-256 of the schema.
    pub hash: Hash,
}

/// A state, before its data are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawState {
    /// The contract that governs it.
    pub contract: ContractId,
    /// Its type among those of the contract.
    #[serde(rename = "type")]
    pub type_name: String,
    /// The version of that type.
    pub schema: SchemaId,
    /// The version of the code that made it.
    pub code_version: u32,
    /// Its data.
    #[serde(with = "octets")]
    pub data: Vec<u8>,
    /// Who keeps it from being spent twice.
    pub notary: Party,
    /// The output of the same transaction that must be spent together with this one.
    pub encumbrance: Option<u32>,
}

/// A state that is consumed or looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawInput {
    /// Where it was made.
    #[serde(rename = "ref")]
    pub reference: StateRef,
    /// The state.
    pub state: RawState,
}

/// What is done, before its data are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawCommand {
    /// What is done.
    pub command: RawCommandValue,
    /// The keys that must sign.
    pub signers: Vec<PublicKey>,
}

/// What is done, without who must sign for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawCommandValue {
    /// The contract that it speaks to.
    pub contract: ContractId,
    /// Its name.
    pub name: String,
    /// Its data.
    #[serde(with = "octets")]
    pub value: Vec<u8>,
}

/// A transaction with the states that it names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawTransaction {
    /// Its id.
    pub id: Hash,
    /// The states that it consumes.
    pub inputs: Vec<RawInput>,
    /// The states that it looks at.
    pub references: Vec<RawInput>,
    /// The states that it makes.
    pub outputs: Vec<RawState>,
    /// What is done.
    pub commands: Vec<RawCommand>,
    /// The ids of its attachments.
    pub attachments: Vec<Hash>,
    /// The notary.
    pub notary: Option<Party>,
    /// When it may be notarised.
    pub time_window: Option<TimeWindow>,
    /// The hash of the network parameters that it is judged by.
    pub parameters: Option<Hash>,
}

//! States, commands, and what they are made of (behaviour.md 10.6, 10.15).

use std::fmt;
use std::str::FromStr;

use maxhost_model::{Party, PublicKey, SecureHash, octets};
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::refused::{Refused, Result};
use crate::rules::Rule;

/// An output of a transaction. As text `ID:INDEX`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "(SecureHash, u32)", into = "(SecureHash, u32)")]
pub struct StateRef {
    /// The transaction.
    pub tx: SecureHash,
    /// The position among its outputs.
    pub index: u32,
}

impl StateRef {
    /// This output of this transaction.
    #[must_use]
    pub fn new(tx: SecureHash, index: u32) -> StateRef {
        StateRef { tx, index }
    }
}

impl From<(SecureHash, u32)> for StateRef {
    fn from((tx, index): (SecureHash, u32)) -> StateRef {
        StateRef { tx, index }
    }
}

impl From<StateRef> for (SecureHash, u32) {
    fn from(state: StateRef) -> (SecureHash, u32) {
        (state.tx, state.index)
    }
}

impl fmt::Display for StateRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.tx, self.index)
    }
}

impl fmt::Debug for StateRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for StateRef {
    type Err = Refused;

    fn from_str(text: &str) -> Result<StateRef> {
        let refuse = || {
            let shown: String = text.chars().take(80).collect();
            Refused::new(Rule::ValueInvalid, format!("'{shown}' is no state reference: expected ID:INDEX"))
        };
        let (tx, index) = text.split_once(':').ok_or_else(refuse)?;
        // `parse` would take a plus sign.
        if !index.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refuse());
        }
        Ok(StateRef { tx: tx.parse().map_err(|_| refuse())?, index: index.parse().map_err(|_| refuse())? })
    }
}

/// The longest name of a contract, a type or a command, in characters.
pub const MAX_NAME: usize = 128;

/// A name of a contract, a type or a command: letters, digits, `-`, `_` and `.`, beginning with a letter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// This name.
    ///
    /// # Errors
    /// [`Rule::ValueInvalid`] for other characters, or more than [`MAX_NAME`].
    pub fn new(name: impl Into<String>) -> Result<Name> {
        let name = name.into();
        let fits = name.len() <= MAX_NAME
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            && name.starts_with(|first: char| first.is_ascii_alphabetic());
        if fits {
            return Ok(Name(name));
        }
        let shown: String = name.chars().take(80).collect();
        let message = format!("'{shown}' is no name: a letter, then letters, digits, - _ . (at most {MAX_NAME})");
        Err(Refused::new(Rule::ValueInvalid, message))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = Refused;

    fn try_from(name: String) -> Result<Name> {
        Name::new(name)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which contract: whose, and its name. Neither a bare name, which others may use too, nor a hash of code, which every
/// compilation changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContractId {
    /// The key of its publisher; none for unsigned code, in development networks only.
    pub publisher: Option<PublicKey>,
    /// Its name.
    pub name: Name,
}

impl fmt::Display for ContractId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.publisher {
            Some(publisher) => {
                let fingerprint = publisher.to_string();
                write!(f, "{} of {}", self.name, fingerprint.get(..16).unwrap_or(&fingerprint))
            }
            None => write!(f, "{}, unsigned", self.name),
        }
    }
}

/// The data of a state or a command: deterministic CBOR of a type that only its contract knows, kept as bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Data(#[serde(with = "octets")] Vec<u8>);

impl Data {
    /// Encodes a value.
    ///
    /// # Errors
    /// As [`codec::encode`].
    pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Data> {
        codec::encode("data", value).map(Data)
    }

    /// Takes bytes that are encoded already.
    ///
    /// # Errors
    /// As [`codec::check`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Data> {
        let data = Data(bytes);
        data.check()?;
        Ok(data)
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn check(&self) -> Result<()> {
        codec::check("data", &self.0)
    }
}

/// Which code may govern a state from one transaction to the next. What is chosen automatically is chosen by the builder:
/// a finished transaction has no placeholder.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Constraint {
    /// Any code. For tests of contracts; a network refuses it unless it is a development network.
    AlwaysAccept,
    /// The code with this hash: SHA-256 of the component without its signatures.
    Hash(SecureHash),
    /// The attachments that the network parameters list for the contract.
    Whitelist,
    /// Code whose signers fulfil this key.
    Signature(PublicKey),
}

impl Constraint {
    /// Its kind, for messages and queries.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Constraint::AlwaysAccept => "always-accept",
            Constraint::Hash(_) => "hash",
            Constraint::Whitelist => "whitelist",
            Constraint::Signature(_) => "signature",
        }
    }
}

/// The version of the type of a state.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchemaId {
    /// Counts changes of the type, from 1.
    pub version: u32,
    /// SHA-256 of the schema.
    pub hash: SecureHash,
}

/// A state as a transaction makes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransactionState {
    /// The contract that governs it.
    pub contract: ContractId,
    /// Its type among those of the contract.
    #[serde(rename = "type")]
    pub type_name: Name,
    /// The version of that type.
    pub schema: SchemaId,
    /// The version of the code that made it.
    pub code_version: u32,
    /// What it says.
    pub data: Data,
    /// Who keeps it from being spent twice.
    pub notary: Party,
    /// The output of the same transaction that must be spent together with this one.
    pub encumbrance: Option<u32>,
    /// Which code may govern it.
    pub constraint: Constraint,
}

impl TransactionState {
    /// Checks what the encoding alone does not tell: that the data are deterministic, and composite keys are sound.
    pub(crate) fn check(&self) -> Result<()> {
        self.data.check()?;
        check_composite(&self.notary.owning_key)?;
        self.contract.publisher.iter().try_for_each(check_composite)?;
        match &self.constraint {
            Constraint::Signature(key) => check_composite(key),
            _ => Ok(()),
        }
    }

    /// Contract and type, as `cash/Cash`.
    #[must_use]
    pub fn qualified_type(&self) -> String {
        format!("{}/{}", self.contract.name, self.type_name)
    }
}

/// Checks a composite key. Plain keys are checked when a signature is: one that is no point verifies nothing.
pub(crate) fn check_composite(key: &PublicKey) -> Result<()> {
    match key.algorithm() {
        maxhost_model::KeyAlgorithm::Composite => crate::keys::check_key(key),
        _ => Ok(()),
    }
}

/// A state, and where it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateAndRef {
    /// The state.
    pub state: TransactionState,
    /// Where it was made.
    pub reference: StateRef,
}

/// What is done, without who must sign for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandValue {
    /// The contract that it speaks to.
    pub contract: ContractId,
    /// Its name among those of the contract.
    pub name: Name,
    /// Its data.
    pub value: Data,
}

impl CommandValue {
    pub(crate) fn check(&self) -> Result<()> {
        self.contract.publisher.iter().try_for_each(check_composite)?;
        self.value.check()
    }
}

/// What is done, and who must sign for it, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// What is done.
    pub value: CommandValue,
    /// Who must sign.
    pub signers: Vec<PublicKey>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn references_are_read_and_written() {
        let reference = StateRef::new(SecureHash::of(b"x"), 7);
        assert_eq!(reference.to_string().parse::<StateRef>().unwrap(), reference);
        for bad in ["", "7", &format!("{}:", reference.tx), &format!("{}:+7", reference.tx), "ab:7"] {
            assert!(bad.parse::<StateRef>().is_err(), "{bad}");
        }
        assert_eq!(codec::encode("ref", &reference).unwrap().len(), 36);
    }

    #[test]
    fn names_are_plain() {
        for good in ["cash", "Cash", "com.example.iou", "a-b_c9"] {
            Name::new(good).unwrap();
        }
        for bad in ["", "9a", "a b", "a/b", "ä", &"a".repeat(MAX_NAME + 1)] {
            assert!(Name::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn data_are_deterministic() {
        assert!(Data::from_bytes(vec![0x18, 1]).is_err());
        assert!(Data::encode(&0.5_f64).is_err());
        assert_eq!(Data::from_bytes(Data::encode(&(1, "a")).unwrap().bytes().to_vec()).unwrap().bytes().len(), 4);
    }
}

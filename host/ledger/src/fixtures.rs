//! Data for the tests of this crate.
#![allow(clippy::unwrap_used)]

use maxhost_model::{Party, PublicKey, SecureHash};

use crate::keys::{Scheme, SigningKey};
use crate::tx::component::Salt;
use crate::tx::constraint::{ContractAttachment, LedgerRules};
use crate::tx::header::Header;
use crate::tx::state::{
    Command, CommandValue, Constraint, ContractId, Data, Name, SchemaId, StateRef, TransactionState,
};
use crate::tx::wire::{Contents, WireTransaction};

pub(crate) fn signing_key(byte: u8) -> SigningKey {
    SigningKey::from_seed(Scheme::Ed25519, &[byte; 32]).unwrap()
}

pub(crate) fn key(byte: u8) -> PublicKey {
    signing_key(byte).public().clone()
}

pub(crate) fn party(organisation: &str, byte: u8) -> Party {
    Party::new(format!("O={organisation}, L=London, C=GB").parse().unwrap(), key(byte))
}

pub(crate) const NOTARY_KEY: u8 = 200;
pub(crate) const PUBLISHER_KEY: u8 = 201;

pub(crate) fn notary() -> Party {
    party("Notary", NOTARY_KEY)
}

pub(crate) fn network() -> SecureHash {
    SecureHash::of(b"network")
}

pub(crate) fn parameters_hash() -> SecureHash {
    SecureHash::of(b"parameters")
}

pub(crate) fn contract() -> ContractId {
    ContractId { publisher: Some(key(PUBLISHER_KEY)), name: Name::new("cash").unwrap() }
}

pub(crate) fn state(number: u32) -> TransactionState {
    TransactionState {
        contract: contract(),
        type_name: Name::new("Cash").unwrap(),
        schema: SchemaId { version: 1, hash: SecureHash::of(b"schema") },
        code_version: 1,
        data: Data::encode(&number).unwrap(),
        notary: notary(),
        encumbrance: None,
        constraint: Constraint::Signature(key(PUBLISHER_KEY)),
    }
}

pub(crate) fn reference(number: u32) -> StateRef {
    StateRef::new(SecureHash::of(&number.to_be_bytes()), 0)
}

pub(crate) fn command(signers: &[u8]) -> Command {
    Command {
        value: CommandValue {
            contract: contract(),
            name: Name::new("move").unwrap(),
            value: Data::encode(&()).unwrap(),
        },
        signers: signers.iter().map(|byte| key(*byte)).collect(),
    }
}

/// A move of one state to one state, signed by key 1.
pub(crate) fn contents() -> Contents {
    Contents {
        header: Header::current(network()),
        inputs: vec![reference(1)],
        outputs: vec![state(1)],
        commands: vec![command(&[1])],
        attachments: vec![SecureHash::of(b"attachment")],
        notary: Some(notary()),
        time_window: None,
        references: vec![],
        parameters: Some(parameters_hash()),
    }
}

pub(crate) fn salt() -> Salt {
    Salt::new(vec![7; 32]).unwrap()
}

pub(crate) fn wire(contents: &Contents) -> WireTransaction {
    WireTransaction::new(contents, salt()).unwrap()
}

pub(crate) fn attachment() -> ContractAttachment {
    ContractAttachment {
        id: SecureHash::of(b"attachment"),
        code_hash: SecureHash::of(b"code"),
        contracts: ["cash".to_owned()].into(),
        version: 1,
        signers: [key(PUBLISHER_KEY)].into(),
        size: 1000,
        trusted: true,
        no_propagation: false,
    }
}

pub(crate) fn ledger_rules() -> LedgerRules {
    LedgerRules { max_transaction_size: 10_000, notaries: vec![notary()], ..LedgerRules::default() }
}

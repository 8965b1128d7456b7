//! Transactions of the sample contracts, made with the ledger's own types: what a contract reads through the SDK must be
//! the same bytes.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};

use maxhost_ledger::attachment;
use maxhost_ledger::keys::{Scheme, SigningKey};
use maxhost_ledger::tx::component::Salt;
use maxhost_ledger::tx::{
    Command, CommandValue, Constraint, Contents, ContractId, Data, Header, LedgerRules, Name, StateAndRef,
    TransactionState, WireTransaction,
};
use maxhost_model::{Party, SecureHash};
use maxhost_sandbox::contract::{Attached, ContractComponent, ContractEngine, ToVerify, Verdict, Verification};
use serde::Serialize;

use crate::cli;

/// A key that is made from one byte.
pub fn key(byte: u8) -> SigningKey {
    SigningKey::from_seed(Scheme::Ed25519, &[byte; 32]).expect("32 bytes are a key")
}

/// A party with such a key.
pub fn party(name: &str, byte: u8) -> Party {
    Party::new(format!("O={name}, L=London, C=GB").parse().unwrap(), key(byte).public().clone())
}

/// The key that signs the samples.
pub const PUBLISHER: u8 = 50;

/// The sample, signed by the publisher of these tests.
pub fn signed(name: &str) -> Vec<u8> {
    let file = cli::cordapps().join(format!("{name}.contract.wasm"));
    let code = std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}; run `make build`", file.display()));
    attachment::sign(&code, &key(PUBLISHER)).unwrap()
}

/// One engine for all.
pub fn engine() -> &'static ContractEngine {
    static ENGINE: LazyLock<ContractEngine> = LazyLock::new(|| ContractEngine::new(None).unwrap());
    &ENGINE
}

/// A sample, loaded.
pub fn component(name: &str) -> Arc<ContractComponent> {
    static LOADED: LazyLock<Mutex<BTreeMap<String, Arc<ContractComponent>>>> = LazyLock::new(Mutex::default);
    let mut loaded = LOADED.lock().unwrap();
    Arc::clone(loaded.entry(name.to_owned()).or_insert_with(|| engine().load(&signed(name)).unwrap()))
}

/// What its contract is called.
pub fn contract(name: &str) -> ContractId {
    ContractId { publisher: Some(key(PUBLISHER).public().clone()), name: Name::new(name).unwrap() }
}

/// The network of all transactions.
pub fn network() -> SecureHash {
    SecureHash::of(b"network")
}

/// Its notary.
pub fn notary() -> Party {
    party("Notary", 9)
}

/// A debt as the ledger's own types write it: what the SDK reads must be the same bytes.
#[derive(Clone, Serialize)]
pub struct Iou {
    /// A UUID.
    pub id: &'static str,
    /// Who is owed.
    pub lender: Party,
    /// Who owes.
    pub borrower: Party,
    /// How much was lent.
    pub quantity: u64,
    /// Of what.
    pub currency: &'static str,
    /// How much was paid back.
    pub paid: u64,
    /// When all of it should be.
    pub due: Option<&'static str>,
}

/// Bob owes Ann.
pub fn iou() -> Iou {
    Iou {
        id: "00112233-4455-4677-8899-aabbccddeeff",
        lender: party("Ann", 1),
        borrower: party("Bob", 2),
        quantity: 100,
        currency: "GBP",
        paid: 0,
        due: Some("2030-01-01T00:00:00Z"),
    }
}

/// A state of the contract `iou` with these data.
pub fn state(code: &ContractComponent, data: &impl Serialize) -> TransactionState {
    let of = code.descriptor.contract("iou").unwrap().state("Iou").unwrap();
    TransactionState {
        contract: contract("iou"),
        type_name: of.name.clone(),
        schema: of.schema_id(),
        code_version: code.descriptor.code_version,
        data: Data::encode(data).unwrap(),
        notary: notary(),
        encumbrance: None,
        constraint: Constraint::Signature(key(PUBLISHER).public().clone()),
    }
}

/// A transaction of the contract `iou`.
pub fn transaction(
    inputs: &[StateAndRef],
    outputs: Vec<TransactionState>,
    command: &str,
    signers: &[u8],
) -> WireTransaction {
    let value = CommandValue {
        contract: contract("iou"),
        name: Name::new(command).unwrap(),
        value: Data::encode(&()).unwrap(),
    };
    let contents = Contents {
        header: Header::current(network()),
        inputs: inputs.iter().map(|input| input.reference).collect(),
        outputs,
        commands: vec![Command { value, signers: signers.iter().map(|byte| key(*byte).public().clone()).collect() }],
        attachments: vec![component("iou").id],
        notary: Some(notary()),
        time_window: None,
        references: vec![],
        parameters: Some(SecureHash::of(b"parameters")),
    };
    WireTransaction::new(&contents, Salt::new(vec![7; 32]).unwrap()).unwrap()
}

static RULES: LazyLock<LedgerRules> = LazyLock::new(|| LedgerRules {
    max_transaction_size: 10 << 20,
    notaries: vec![notary()],
    ..LedgerRules::default()
});

/// What the rules (without a name) and each contract say of it.
pub fn verify_each(wire: &WireTransaction, inputs: &[StateAndRef]) -> Vec<(Option<ContractId>, Verdict)> {
    let attachments = [Attached::installed(component("iou"))];
    let given =
        ToVerify { wire, inputs, references: &[], attachments: &attachments, network: &network(), rules: &RULES };
    engine().verify_each(given).unwrap()
}

/// What is decided about it.
pub fn verify(wire: &WireTransaction, inputs: &[StateAndRef]) -> Verification {
    let attachments = [Attached::installed(component("iou"))];
    let given =
        ToVerify { wire, inputs, references: &[], attachments: &attachments, network: &network(), rules: &RULES };
    engine().verify(given).unwrap()
}

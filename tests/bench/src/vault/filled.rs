//! A vault that was filled through the store.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use maxhost_ledger::keys::SigningKey;
use maxhost_ledger::time::Timestamp;
use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::query::{Number, Value};
use maxhost_ledger::vault::recording::{Described, StatesToRecord, TransactionEvent};
use maxhost_model::{PublicKey, SecureHash};
use maxhost_store::ledger::{LedgerOp, OutputState, Recording, StateContent, TokenAmount, TransactionKind};
use maxhost_store::{Author, Caution, ClaimRequest, FencingToken, Op, Store};
use maxhost_store_sqlite::{SqliteOptions, SqliteStore};
use maxhost_tests::contracts::key;

use crate::setting::Outcome;

pub const NOTARY: &str = "O=Notary, L=Zurich, C=CH";
pub const TYPE: &str = "cash/Cash";
/// When it is asked and paid.
pub fn now() -> Timestamp {
    Timestamp::from_nanos(2_000_000_000_000_000_000)
}
/// Outputs of a transaction.
const OUTPUTS: u32 = 10;
/// Transactions of a commit.
const BATCH: u32 = 500;

/// Random numbers from a seed (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// The store, and whose vault it is.
pub struct Filled {
    pub store: Store,
    pub owner: Author,
    pub size: u32,
    /// The next transaction's number.
    pub next: u32,
}

fn id(transaction: u32) -> SecureHash {
    SecureHash::of(&transaction.to_be_bytes())
}

/// The state with this number.
pub fn reference(state: u32) -> StateRef {
    StateRef::new(id(state / OUTPUTS), state % OUTPUTS)
}

pub fn serial(state: u32) -> String {
    format!(
        "{}",
        SecureHash::of(&[
            b's',
            state.to_be_bytes()[0],
            state.to_be_bytes()[1],
            state.to_be_bytes()[2],
            state.to_be_bytes()[3]
        ])
    )
}

pub fn owner(number: u64) -> String {
    format!("O=Party {number:05}, L=London, C=GB")
}

pub fn due(seconds: u64) -> Timestamp {
    Timestamp::from_nanos((1_700_000_000 + seconds) * 1_000_000_000)
}

fn currency(draw: u64) -> &'static str {
    match draw {
        0..500 => "GBP",
        500..800 => "USD",
        800..999 => "EUR",
        _ => "CHF",
    }
}

fn own_key() -> PublicKey {
    let key: SigningKey = key(1);
    key.public().clone()
}

/// A state that can be spent, of this serial number.
pub fn state(own: &PublicKey, serial: String, quantity: u64, random: &mut Random) -> OutputState {
    let currency = currency(random.below(1_000));
    let fields = [
        ("serial".to_owned(), Value::text(serial)),
        ("owner".to_owned(), Value::text(owner(random.below(1_000)))),
        ("currency".to_owned(), Value::text(currency)),
        ("quantity".to_owned(), Value::Number(Number::from(quantity))),
        ("due".to_owned(), Value::Time(due(random.below(1_000_000)))),
    ];
    OutputState {
        described: Described { participants: vec![own.clone()], owner: Some(own.clone()), fungible: true },
        content: StateContent {
            type_name: TYPE.to_owned(),
            // A component of a common size.
            state: Bytes::from(vec![7; 400]),
            notary: NOTARY.to_owned(),
            constraint: "signature".to_owned(),
            participants: [owner(1)].into(),
            fields: fields.into_iter().collect::<BTreeMap<_, _>>(),
            amount: Some(TokenAmount { token: currency.to_owned(), issuer: None, quantity }),
            linear_id: None,
        },
    }
}

/// What is recorded of a transaction with these inputs and outputs.
pub fn transaction(own: &PublicKey, number: u32, inputs: Vec<StateRef>, outputs: Vec<OutputState>) -> Recording {
    Recording {
        event: TransactionEvent::Finalised,
        id: id(number),
        kind: TransactionKind::Ordinary,
        body: Bytes::from(vec![7; 600]),
        signatures: Vec::new(),
        inputs,
        references: Vec::new(),
        outputs,
        what: StatesToRecord::OnlyRelevant,
        own_keys: [own.clone()].into(),
        parameters: None,
        flow: None,
        settlement: None,
        at: Timestamp::from_nanos(u64::from(number) * u64::from(OUTPUTS) * 1_000_000_000),
    }
}

/// Opens a store with one identity.
pub async fn open(file: &Path) -> Outcome<(Store, Author)> {
    let store = SqliteStore::open(SqliteOptions::new(file)).await?;
    let identity = store.register_identities(&["O=Party 00001, L=London, C=GB"]).await?[0];
    let token = FencingToken { generation: 0, epoch: 1 };
    let claim = store.claim(ClaimRequest { identity, token, key_fp: None, caution: Caution::None }).await?;
    Ok((store, Author { identity, claim }))
}

impl Filled {
    /// A vault of so many states. Of each transaction with an even number three outputs and of each other one none or some
    /// are consumed by later ones, three of ten in all.
    pub async fn make(file: &Path, size: u32) -> Outcome<Filled> {
        let (store, owner) = open(file).await?;
        let (mut random, own) = (Random(u64::from(size)), own_key());
        let transactions = size / OUTPUTS;
        for first in (0..transactions).step_by(BATCH as usize) {
            let ops = (first..transactions.min(first + BATCH)).map(|number| {
                let outputs = (0..OUTPUTS).map(|index| {
                    let quantity = 1 + random.below(1_000_000);
                    state(&own, serial(number * OUTPUTS + index), quantity, &mut random)
                });
                let outputs = outputs.collect();
                let before = number.checked_sub(1 + BATCH / 2);
                let inputs = before
                    .map_or_else(Vec::new, |before| (0..3).map(|index| StateRef::new(id(before), index)).collect());
                record(transaction(&own, number, inputs, outputs))
            });
            let ops: Vec<Op> = ops.collect();
            store.commit(owner, ops).await?;
        }
        Ok(Filled { store, owner, size, next: transactions })
    }

    /// The key of its owner.
    pub fn key(&self) -> PublicKey {
        own_key()
    }

    /// States with these numbers are not consumed.
    pub fn unconsumed(&self, random: &mut Random) -> StateRef {
        let transaction = random.below(u64::from(self.size / OUTPUTS)) as u32;
        StateRef::new(id(transaction), 3 + random.below(u64::from(OUTPUTS) - 3) as u32)
    }
}

/// As an operation.
pub fn record(recording: Recording) -> Op {
    LedgerOp::Record(Box::new(recording)).into()
}

//! A corpus of recorded transactions, with the code that judges them and what was decided: the same is decided on every setting
//! of the engine, with the same fuel, and by every later engine. One that decides or counts otherwise would split a network.
//!
//! The corpus is in `tests/corpus/iou`. It is written once for each profile of contracts:
//! `cargo test --release --workspace --test contracts -- --ignored write_the_corpus`.

use std::path::PathBuf;

use maxhost_ledger::codec;
use maxhost_ledger::time::{TimeWindow, Timestamp};
use maxhost_ledger::tx::{
    Constraint, Contents, ContractLimits, LedgerRules, Name, StateAndRef, StateRef, TransactionState, WireTransaction,
};
use maxhost_model::{SecureHash, octets};
use maxhost_sandbox::contract::{Attached, ContractEngine, EngineSettings, ToVerify, Verdict, Verification};
use maxhost_tests::contracts::{
    Iou, PUBLISHER, component, contract, iou, key, network, notary, party, signed, state, transaction,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

const SEED: u64 = 20_261_129;
/// So many transactions of each kind, with other parties and amounts.
const OF_EACH_KIND: u32 = 3;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Recorded {
    kind: String,
    #[serde(with = "octets")]
    transaction: Vec<u8>,
    inputs: Vec<RecordedState>,
    /// What the parameters say.
    max_transaction_size: u64,
    fuel_limit: u64,
    memory_limit: u64,
    decided: Decided,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RecordedState {
    reference: String,
    #[serde(with = "octets")]
    state: Vec<u8>,
}

/// What is decided, with what it took.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Decided {
    /// The code of the refusal, or `accepted`.
    verdict: String,
    /// What the contract says, if it does not accept it.
    fault: Option<String>,
    fuel: Vec<u64>,
    memory: Vec<u64>,
}

impl Decided {
    fn of(verification: &Verification) -> Decided {
        let refusal = verification.verdict.refusal(network());
        let fault = match &verification.verdict {
            Verdict::Rejected { fault, .. } => Some(fault.code.clone()),
            _ => None,
        };
        Decided {
            verdict: refusal.map_or_else(|| "accepted".to_owned(), |refused| refused.code().to_owned()),
            fault,
            fuel: verification.usage.iter().map(|usage| usage.fuel).collect(),
            memory: verification.usage.iter().map(|usage| usage.memory).collect(),
        }
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus/iou")
}

fn judge(engine: &ContractEngine, code: &[u8], recorded: &Recorded) -> Decided {
    let wire = WireTransaction::decode(&recorded.transaction).unwrap();
    let input = |one: &RecordedState| {
        let state: TransactionState = codec::decode("state", &one.state).unwrap();
        StateAndRef { state, reference: one.reference.parse::<StateRef>().unwrap() }
    };
    let inputs: Vec<StateAndRef> = recorded.inputs.iter().map(input).collect();
    let limits = ContractLimits { fuel: recorded.fuel_limit, memory: recorded.memory_limit };
    let max_transaction_size = recorded.max_transaction_size;
    let rules = LedgerRules { max_transaction_size, notaries: vec![notary()], limits, ..LedgerRules::default() };
    let attachments = [Attached::installed(engine.load(code).unwrap())];
    let network = network();
    // One that does not name the code does not have it.
    let attachments = if wire.contents().attachments.is_empty() { &[][..] } else { &attachments };
    let given =
        ToVerify { wire: &wire, inputs: &inputs, references: &[], attachments, network: &network, rules: &rules };
    Decided::of(&engine.verify(given).unwrap())
}

#[test]
fn recorded_transactions_are_judged_as_ever_on_every_setting_of_the_engine() {
    let code = std::fs::read(folder().join("iou.contract.wasm")).unwrap();
    let corpus = std::fs::read(folder().join("transactions.json")).unwrap();
    let corpus: Vec<Recorded> = serde_json::from_slice(&corpus).unwrap();
    let verdicts: std::collections::BTreeSet<&str> = corpus.iter().map(|one| one.decided.verdict.as_str()).collect();
    assert!(verdicts.len() > 10 && verdicts.contains("accepted"), "{verdicts:?}");
    let compiled = tempfile::tempdir().unwrap();
    for (number, settings) in EngineSettings::all().iter().enumerate() {
        for how in ["compiled now", "compiled before"] {
            let kept = compiled.path().join(number.to_string());
            let engine = ContractEngine::with(Some(&kept), 8, settings).unwrap();
            for (place, recorded) in corpus.iter().enumerate() {
                let decided = judge(&engine, &code, recorded);
                assert_eq!(decided, recorded.decided, "{place}, {}: {settings:?}, {how}", recorded.kind);
            }
        }
    }
}

/// A debt between parties that are drawn, with the numbers of their keys.
fn drawn(random: &mut ChaCha8Rng) -> (Iou, u8, u8) {
    let (lender, borrower) = (random.random_range(1..20), random.random_range(21..40));
    let name = |number: u8| format!("Party {number}");
    let debt = Iou {
        lender: party(&name(lender), lender),
        borrower: party(&name(borrower), borrower),
        quantity: random.random_range(1..1_000_000),
        due: random.random_bool(0.5).then_some("2031-05-01T12:00:00Z"),
        ..iou()
    };
    (debt, lender, borrower)
}

/// A transaction with the states of its inputs, under parameters that may be narrow.
struct Case {
    wire: WireTransaction,
    inputs: Vec<StateAndRef>,
    max_transaction_size: u64,
    limits: ContractLimits,
}

fn case(wire: WireTransaction, inputs: Vec<StateAndRef>) -> Case {
    Case { wire, inputs, max_transaction_size: 10 << 20, limits: ContractLimits::V1 }
}

fn with(wire: &WireTransaction, change: impl FnOnce(&mut Contents)) -> WireTransaction {
    let mut contents: Contents = wire.contents().clone();
    change(&mut contents);
    WireTransaction::new(&contents, wire.salt().clone()).unwrap()
}

/// One transaction of each kind: the good ones, and one for each thing that can be wrong.
fn cases(random: &mut ChaCha8Rng) -> Vec<(&'static str, Case)> {
    let code = component("iou");
    let (debt, lender, borrower) = drawn(random);
    let made = state(&code, &debt);
    let issue = transaction(&[], vec![made.clone()], "Issue", &[lender, borrower]);
    let input = StateAndRef { state: made.clone(), reference: StateRef::new(issue.id(), 0) };
    let buyer = 60 + lender;
    let passed_on = Iou { lender: party("Buyer", buyer), ..debt.clone() };
    let sold = state(&code, &passed_on);
    let transfer = |output: TransactionState, signers: &[u8]| {
        let inputs = vec![input.clone()];
        case(transaction(&inputs, vec![output], "Transfer", signers), inputs)
    };
    let issued = |data: &Iou, command: &str, signers: &[u8]| {
        case(transaction(&[], vec![state(&code, data)], command, signers), Vec::new())
    };
    let both = [lender, borrower];
    let changed = |change: fn(&mut Contents)| case(with(&issue, change), Vec::new());
    let narrow = |limits: ContractLimits| Case { limits, ..case(issue.clone(), Vec::new()) };
    let malformed = TransactionState { data: maxhost_ledger::tx::Data::encode(&5).unwrap(), ..made.clone() };
    vec![
        ("issue", case(issue.clone(), Vec::new())),
        ("transfer", transfer(sold.clone(), &[lender, buyer])),
        ("missing-signer", issued(&debt, "Issue", &[lender])),
        ("unknown-command", issued(&debt, "Gift", &both)),
        ("nothing-owed", issued(&Iou { quantity: 0, ..debt.clone() }, "Issue", &both)),
        ("owed-to-oneself", issued(&Iou { borrower: debt.lender.clone(), ..debt.clone() }, "Issue", &both)),
        ("paid-already", issued(&Iou { paid: 1, ..debt.clone() }, "Issue", &both)),
        ("malformed-state", case(transaction(&[], vec![malformed], "Issue", &both), Vec::new())),
        ("field-changed", transfer(state(&code, &Iou { quantity: 1_000_001, ..passed_on }), &[lender, buyer])),
        ("not-transferred", transfer(made.clone(), &both)),
        ("without-buyer", transfer(sold.clone(), &[lender])),
        ("other-network", changed(|contents| contents.header.network = SecureHash::of(b"another"))),
        ("other-code-version", changed(|contents| contents.outputs[0].code_version = 7)),
        ("schema-unknown", changed(|contents| contents.outputs[0].schema.version = 9)),
        ("type-unknown", changed(|contents| contents.outputs[0].type_name = Name::new("Bond").unwrap())),
        (
            "constraint-unsatisfied",
            changed(|contents| {
                contents.outputs[0].constraint = Constraint::Signature(key(99).public().clone());
            }),
        ),
        ("without-code", changed(|contents| contents.attachments.clear())),
        ("encumbers-itself", changed(|contents| contents.outputs[0].encumbrance = Some(0))),
        (
            "other-contract",
            changed(|contents| {
                contents.commands[0].value.contract = contract("trade");
            }),
        ),
        (
            "notary-unknown",
            changed(|contents| {
                let stranger = party("Stranger", 98);
                contents.notary = Some(stranger.clone());
                contents.time_window = Some(TimeWindow::until_only(Timestamp::from_nanos(1_900_000_000_000_000_000)));
                contents.outputs[0].notary = stranger;
            }),
        ),
        ("notary-changed", {
            let moved = TransactionState { notary: party("Other", 97), ..sold.clone() };
            transfer(moved, &[lender, buyer])
        }),
        ("too-large", Case { max_transaction_size: 500, ..case(issue.clone(), Vec::new()) }),
        ("out-of-fuel-at-once", narrow(ContractLimits { fuel: 100, ..ContractLimits::V1 })),
        ("out-of-fuel", narrow(ContractLimits { fuel: 30_000, ..ContractLimits::V1 })),
        ("over-memory", narrow(ContractLimits { memory: 64 << 10, ..ContractLimits::V1 })),
    ]
}

#[test]
#[ignore = "writes the corpus anew, when a profile of contracts changes"]
fn write_the_corpus() {
    let code = signed("iou");
    assert_eq!(component("iou").attachment(true).signers, [key(PUBLISHER).public().clone()].into());
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let engine = ContractEngine::new(None).unwrap();
    let mut corpus = Vec::new();
    for _ in 0..OF_EACH_KIND {
        for (kind, Case { wire, inputs, max_transaction_size, limits }) in cases(&mut random) {
            let input = |one: &StateAndRef| RecordedState {
                reference: one.reference.to_string(),
                state: codec::encode("state", &one.state).unwrap(),
            };
            let decided = Decided { verdict: String::new(), fault: None, fuel: Vec::new(), memory: Vec::new() };
            let mut recorded = Recorded {
                kind: kind.to_owned(),
                transaction: wire.encode().unwrap(),
                inputs: inputs.iter().map(input).collect(),
                max_transaction_size,
                fuel_limit: limits.fuel,
                memory_limit: limits.memory,
                decided,
            };
            recorded.decided = judge(&engine, &code, &recorded);
            corpus.push(recorded);
        }
    }
    std::fs::create_dir_all(folder()).unwrap();
    std::fs::write(folder().join("iou.contract.wasm"), code).unwrap();
    let mut text = serde_json::to_string_pretty(&corpus).unwrap();
    text.push('\n');
    std::fs::write(folder().join("transactions.json"), text).unwrap();
}

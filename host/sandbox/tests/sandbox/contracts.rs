//! The engine of contracts over code made by hand.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use maxhost_ledger::Rule;
use maxhost_ledger::attachment;
use maxhost_ledger::keys::{Scheme, SigningKey};
use maxhost_ledger::tx::component::Salt;
use maxhost_ledger::tx::{
    Command, CommandValue, Constraint, Contents, ContractId, ContractLimits, Data, Header, LedgerRules, Name, SchemaId,
    StateAndRef, StateRef, TransactionState, WireTransaction,
};
use maxhost_model::{Code, Party, Problem, PublicKey, SecureHash};
use maxhost_sandbox::SandboxError;
use maxhost_sandbox::contract::{
    Attached, ContractComponent, ContractEngine, EngineSettings, LocalError, ToVerify, Verdict, Verification,
};

use crate::contract_wat::{CONTRACTS, SCHEMA, code, publisher, signed};

fn engine() -> &'static ContractEngine {
    static ENGINE: LazyLock<ContractEngine> = LazyLock::new(|| ContractEngine::new(None).unwrap());
    &ENGINE
}

fn component() -> Arc<ContractComponent> {
    engine().load(&signed(1)).unwrap()
}

fn key(byte: u8) -> PublicKey {
    SigningKey::from_seed(Scheme::Ed25519, &[byte; 32]).unwrap().public().clone()
}

fn notary() -> Party {
    Party::new("O=Notary, L=Zurich, C=CH".parse().unwrap(), key(9))
}

fn contract(name: &str) -> ContractId {
    ContractId { publisher: Some(publisher().public().clone()), name: Name::new(name).unwrap() }
}

fn state(name: &str) -> TransactionState {
    TransactionState {
        contract: contract(name),
        type_name: Name::new("State").unwrap(),
        schema: SchemaId { version: 2, hash: SecureHash::of(SCHEMA.as_bytes()) },
        code_version: 1,
        data: Data::encode(&5).unwrap(),
        notary: notary(),
        encumbrance: None,
        constraint: Constraint::Signature(publisher().public().clone()),
    }
}

fn network() -> SecureHash {
    SecureHash::of(b"network")
}

fn rules() -> LedgerRules {
    let limits = ContractLimits { fuel: 20_000_000, memory: 8 << 20 };
    LedgerRules { max_transaction_size: 10 << 20, notaries: vec![notary()], limits, ..LedgerRules::default() }
}

/// An issue of one state of each of these contracts.
fn issue(names: &[&str], change: impl Fn(&mut Contents)) -> WireTransaction {
    let command = |name: &&str| Command {
        value: CommandValue {
            contract: contract(name),
            name: Name::new("Issue").unwrap(),
            value: Data::encode(&()).unwrap(),
        },
        signers: vec![key(1)],
    };
    let mut contents = Contents {
        header: Header::current(network()),
        inputs: vec![],
        outputs: names.iter().map(|name| state(name)).collect(),
        commands: names.iter().map(command).collect(),
        attachments: vec![component().id],
        notary: None,
        time_window: None,
        references: vec![],
        parameters: Some(SecureHash::of(b"parameters")),
    };
    change(&mut contents);
    WireTransaction::new(&contents, Salt::new(vec![7; 32]).unwrap()).unwrap()
}

fn verify_with(
    engine: &ContractEngine,
    wire: &WireTransaction,
    inputs: &[StateAndRef],
    rules: &LedgerRules,
) -> Result<Verification, LocalError> {
    let attachments = [Attached::installed(engine.load(&signed(1)).unwrap())];
    let given = ToVerify { wire, inputs, references: &[], attachments: &attachments, network: &network(), rules };
    engine.verify(given)
}

fn verify(names: &[&str]) -> Result<Verification, LocalError> {
    verify_with(engine(), &issue(names, |_| ()), &[], &rules())
}

fn verdict(name: &str) -> Verdict {
    verify(&[name]).unwrap().verdict
}

fn fault(name: &str) -> (String, String) {
    match verdict(name) {
        Verdict::Rejected { contract: by, fault } => {
            assert_eq!(by, contract(name));
            (fault.code, fault.message)
        }
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn code_says_what_is_in_it_and_who_signed_it() {
    let component = component();
    assert_eq!(component.descriptor.name, "hand-made");
    let names: Vec<&str> = component.descriptor.contracts.iter().map(|contract| contract.name.as_str()).collect();
    assert_eq!(names, CONTRACTS);
    let state = component.descriptor.contract("accept").unwrap().state("State").unwrap();
    assert_eq!((state.version, state.schema_hash), (2, SecureHash::of(SCHEMA.as_bytes())));
    let attachment = component.attachment(true);
    assert_eq!(attachment.signers, [publisher().public().clone()].into());
    assert_eq!(attachment.code_hash, SecureHash::of(&code(1, "")));
    assert_eq!(attachment.id, SecureHash::of(&signed(1)));
    assert_eq!((attachment.version, attachment.contracts.len()), (1, CONTRACTS.len()));
    // Another signature makes another attachment of the same code.
    let twice = attachment::sign(&signed(1), &SigningKey::from_seed(Scheme::Ed25519, &[1; 32]).unwrap()).unwrap();
    let other = engine().load(&twice).unwrap();
    assert!(other.id != component.id && other.code_hash == component.code_hash);
}

#[test]
fn every_contract_is_asked_and_the_first_that_objects_decides() {
    let accepted = verify(&["accept", "touch"]).unwrap();
    assert!(accepted.verdict.is_accepted(), "{accepted:?}");
    assert_eq!(accepted.usage.len(), 2);
    assert!(accepted.usage.iter().all(|usage| usage.fuel > 0 && usage.memory == 64 << 16), "{accepted:?}");
    let rejected = verify(&["accept", "reject", "touch"]).unwrap();
    assert_eq!(rejected.usage.len(), 2);
    let refused = rejected.verdict.refusal(network()).unwrap();
    assert_eq!(refused.rule(), Rule::ContractRejected);
    assert_eq!(refused.details()["fault"], "too-much");
    assert_eq!(fault("reject"), ("too-much".to_owned(), "it is 5 too much".to_owned()));
}

#[test]
fn an_instance_is_fresh_each_time() {
    for _ in 0..3 {
        assert!(verdict("touch").is_accepted());
    }
}

#[test]
fn a_contract_that_loops_or_grows_ends_by_the_limits_of_the_network() {
    assert_eq!(verdict("loop"), Verdict::OutOfFuel { contract: contract("loop"), limit: 20_000_000 });
    assert_eq!(verdict("grow"), Verdict::OverMemory { contract: contract("grow"), limit: 8 << 20 });
    // What does not fit from the start is over it too.
    let mut narrow = rules();
    narrow.limits.memory = 1 << 20;
    let verification = verify_with(engine(), &issue(&["accept"], |_| ()), &[], &narrow).unwrap();
    assert_eq!(verification.verdict, Verdict::OverMemory { contract: contract("accept"), limit: 1 << 20 });
    // The transaction has its price before anything runs.
    let mut poor = rules();
    poor.limits.fuel = 1_000;
    let verification = verify_with(engine(), &issue(&["accept"], |_| ()), &[], &poor).unwrap();
    assert_eq!(verification.verdict, Verdict::OutOfFuel { contract: contract("accept"), limit: 1_000 });
}

#[test]
fn a_contract_that_computes_lets_others_go_first_and_its_verdict_is_the_same() {
    let mut rich = rules();
    rich.limits.fuel = 400_000_000;
    let judge = || verify_with(engine(), &issue(&["loop"], |_| ()), &[], &rich).unwrap().verdict;
    let count = Rc::new(Cell::new(0));
    let counts = count.clone();
    // However long the others take.
    let between = move || {
        counts.set(counts.get() + 1);
        std::thread::sleep(Duration::from_millis(20));
    };
    let verdict = maxhost_sandbox::in_turns(Rc::new(between), judge);
    assert_eq!(verdict, Verdict::OutOfFuel { contract: contract("loop"), limit: 400_000_000 });
    assert!(count.get() >= 5, "{} times", count.get());
}

#[test]
fn a_contract_that_faults_rejects_and_its_stack_decides_nothing() {
    assert_eq!(fault("unreachable").0, "trap/unreachable");
    assert_eq!(fault("divide").0, "trap/arithmetic");
    assert_eq!(fault("bad-result").0, "trap/result");
    let (code, message) = fault("huge-message");
    assert_eq!(code, "too-much");
    assert!(message.len() <= 1_024 + 4, "{}", message.len());
    assert_eq!(fault("stack").0, "trap/depth");
}

#[test]
fn the_rules_of_the_ledger_come_first() {
    let rule = |change: &dyn Fn(&mut Contents)| {
        let wire = issue(&["reject"], change);
        match verify_with(engine(), &wire, &[], &rules()).unwrap().verdict {
            Verdict::Refused(refused) => {
                assert_eq!(refused.transaction(), Some(wire.id()));
                refused.rule()
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(rule(&|c| c.header.network = SecureHash::of(b"other")), Rule::NetworkWrong);
    assert_eq!(rule(&|c| c.outputs[0].type_name = Name::new("Other").unwrap()), Rule::StateTypeUnknown);
    assert_eq!(rule(&|c| c.outputs[0].schema.hash = network()), Rule::SchemaUnknown);
    assert_eq!(rule(&|c| c.outputs[0].schema.version = 3), Rule::SchemaUnknown);
    // An older version is the contract's to judge.
    let older = issue(&["accept"], |c| c.outputs[0].schema = SchemaId { version: 1, hash: network() });
    assert!(verify_with(engine(), &older, &[], &rules()).unwrap().verdict.is_accepted());
}

#[test]
fn an_input_brings_its_contract_along() {
    let input = StateAndRef { state: state("reject"), reference: StateRef::new(network(), 0) };
    let wire = issue(&["accept"], |c| {
        c.inputs = vec![input.reference];
        c.notary = Some(notary());
    });
    let verification = verify_with(engine(), &wire, std::slice::from_ref(&input), &rules()).unwrap();
    assert!(matches!(verification.verdict, Verdict::Rejected { .. }), "{verification:?}");
}

/// Each contract there is, several at once, and limits that are reached before any of them runs.
fn corpus() -> Vec<(WireTransaction, LedgerRules)> {
    let issues = CONTRACTS.iter().map(|name| vec![*name]).chain([vec!["accept", "reject", "touch"]]);
    let mut corpus: Vec<_> = issues.map(|names| (issue(&names, |_| ()), rules())).collect();
    for limits in [
        ContractLimits { memory: 1 << 20, ..rules().limits },
        ContractLimits { fuel: 1_000, ..rules().limits },
        ContractLimits { fuel: 10_000, ..rules().limits },
    ] {
        corpus.push((issue(&["accept"], |_| ()), LedgerRules { limits, ..rules() }));
    }
    corpus
}

#[test]
fn the_settings_of_the_engine_make_no_difference() {
    let (corpus, folders) = (corpus(), tempfile::tempdir().unwrap());
    let judged = |engine: &ContractEngine| -> Vec<Verification> {
        corpus.iter().map(|(wire, rules)| verify_with(engine, wire, &[], rules).unwrap()).collect()
    };
    let first = judged(engine());
    for (number, settings) in EngineSettings::all().iter().enumerate() {
        let folder = folders.path().join(number.to_string());
        for how in ["compiled now", "compiled before"] {
            let engine = ContractEngine::with(Some(&folder), 8, settings).unwrap();
            assert_eq!(judged(&engine), first, "{settings:?}, {how}");
        }
    }
}

#[test]
fn many_threads_share_the_slots() {
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..20 {
                    assert!(verdict("accept").is_accepted());
                }
            });
        }
    });
}

#[test]
fn compiled_code_is_kept_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let engine = ContractEngine::new(Some(folder.path())).unwrap();
        engine.load(&signed(1)).unwrap();
        let kept = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(kept, 2, "code and digest");
        let verification = verify_with(&engine, &issue(&["accept"], |_| ()), &[], &rules()).unwrap();
        assert!(verification.verdict.is_accepted());
    }
}

#[test]
fn code_that_breaks_a_rule_is_not_taken() {
    let refusal = |file: &[u8]| engine().load(file).unwrap_err();
    let problem = |error: SandboxError| Problem::from(error).code;
    let error = refusal(&code(0, ""));
    assert!(error.to_string().contains("code-version"), "{error}");
    let error = refusal(&code(1, "(func (result v128) v128.const i32x4 0 0 0 0)"));
    assert!(error.to_string().contains("`simd128`"), "{error}");
    assert_eq!(problem(error), Code::ComponentForbiddenFeature);
    let mut forged = signed(1);
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(problem(refusal(&forged)), Code::ComponentSignatures);
    assert_eq!(problem(refusal(crate::support::guest())), Code::ComponentForbiddenImport);
    assert_eq!(problem(refusal(&wat::parse_str("(component)").unwrap())), Code::ComponentWrongWorld);
    assert_eq!(problem(refusal(b"no wasm")), Code::ComponentSignatures);
}

#[test]
fn a_state_is_described_by_its_contract() {
    let described = engine().describe(&component(), &state("accept")).unwrap();
    assert_eq!(described.unwrap_err().code, "too-much");
    let mut unknown = state("accept");
    unknown.type_name = Name::new("Other").unwrap();
    assert_eq!(engine().describe(&component(), &unknown).unwrap().unwrap_err().code, "describe/unknown-type");
}

#[test]
fn code_from_before_there_were_pointers_points_to_nothing() {
    let pointers = engine().pointers(&component(), "accept", "State", &Data::encode(&5).unwrap());
    assert_eq!(pointers.unwrap().unwrap(), []);
}

//! Contracts from their crates to verdicts: built, signed, looked at, compared, installed, and asked about real
//! transactions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "contracts/corpus.rs"]
mod corpus;

use std::path::{Path, PathBuf};

use maxhost_ledger::tx::{Constraint, Data, StateAndRef, StateRef, TransactionState, WireTransaction};
use maxhost_ledger::vault::query::{Number, Value, fields};
use maxhost_model::Party;
use maxhost_sandbox::contract::Verdict;
use maxhost_tests::contracts::{
    Iou, PUBLISHER, component, contract, engine, iou, key, network, notary, party, state, transaction, verify,
    verify_each,
};
use maxhost_tests::{ALICE, BOB, Network, cli};
use serde::Serialize;
use serde_json::json;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn fault(wire: &WireTransaction, inputs: &[StateAndRef]) -> String {
    match verify(wire, inputs).verdict {
        Verdict::Rejected { fault, .. } => fault.code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_debt_is_issued_and_passed_on() {
    let code = component("iou");
    let issue = transaction(&[], vec![state(&code, &iou())], "Issue", &[1, 2]);
    assert!(verify(&issue, &[]).verdict.is_accepted(), "{:?}", verify(&issue, &[]));
    assert_eq!(fault(&transaction(&[], vec![state(&code, &iou())], "Issue", &[1]), &[]), "tx/missing-signer");
    assert_eq!(fault(&transaction(&[], vec![state(&code, &iou())], "Gift", &[1, 2]), &[]), "tx/unknown-command");

    let input = StateAndRef { state: state(&code, &iou()), reference: StateRef::new(issue.id(), 0) };
    let inputs = std::slice::from_ref(&input);
    let passed_on = Iou { lender: party("Carol", 3), ..iou() };
    let transfer = transaction(inputs, vec![state(&code, &passed_on)], "Transfer", &[1, 3]);
    let verification = verify(&transfer, inputs);
    assert!(verification.verdict.is_accepted(), "{verification:?}");
    let enlarged = Iou { quantity: 101, ..passed_on };
    assert_eq!(
        fault(&transaction(inputs, vec![state(&code, &enlarged)], "Transfer", &[1, 3]), inputs),
        "tx/field-changed"
    );
    // The same transaction costs the same everywhere.
    assert_eq!(verify(&transfer, inputs), verification);
    assert!(verification.usage[0].fuel > 1_000, "{verification:?}");
}

#[test]
fn every_contract_is_asked_for_people() {
    let code = component("iou");
    let good = transaction(&[], vec![state(&code, &iou())], "Issue", &[1, 2]);
    assert_eq!(verify_each(&good, &[]), [(None, Verdict::Accepted), (Some(contract("iou")), Verdict::Accepted)]);
    let unsigned = transaction(&[], vec![state(&code, &iou())], "Issue", &[1]);
    let asked = verify_each(&unsigned, &[]);
    assert_eq!(asked[1], (Some(contract("iou")), verify(&unsigned, &[]).verdict));
    assert!(!asked[1].1.is_accepted());
    // What a rule refuses, no contract is asked about.
    let other = TransactionState { code_version: 7, ..state(&code, &iou()) };
    let wrong = transaction(&[], vec![other], "Issue", &[1, 2]);
    assert_eq!(verify_each(&wrong, &[]), [(None, verify(&wrong, &[]).verdict)]);
}

#[test]
fn data_that_are_not_of_the_type_are_refused() {
    #[derive(Serialize)]
    struct More {
        #[serde(flatten)]
        iou: Iou,
        more: u32,
    }
    #[derive(Serialize)]
    struct Less {
        id: &'static str,
        lender: Party,
        borrower: Party,
        quantity: u64,
        currency: &'static str,
        paid: u64,
    }
    let code = component("iou");
    let Iou { id, lender, borrower, quantity, currency, paid, .. } = iou();
    let without_due = Less { id, lender, borrower, quantity, currency, paid };
    let more = More { iou: iou(), more: 1 };
    for data in [state(&code, &more), state(&code, &5), state(&code, &without_due)] {
        let issue = transaction(&[], vec![data.clone()], "Issue", &[1, 2]);
        assert_eq!(fault(&issue, &[]), "tx/state-malformed", "{data:?}");
    }
    // What was left out when the state was made is read as missing.
    let old = StateAndRef { state: state(&code, &without_due), reference: StateRef::new(network(), 0) };
    let now = Iou { due: None, lender: party("Carol", 3), ..iou() };
    let inputs = std::slice::from_ref(&old);
    let transfer = transaction(inputs, vec![state(&code, &now)], "Transfer", &[1, 3]);
    assert!(verify(&transfer, inputs).verdict.is_accepted());
}

#[test]
fn a_state_says_what_it_is() {
    let code = component("iou");
    let described = engine().describe(&code, &state(&code, &iou())).unwrap().unwrap();
    let participants: Vec<_> = described.participants.iter().map(|one| one.name.clone().unwrap().to_string()).collect();
    assert_eq!(participants, ["O=Ann, L=London, C=GB", "O=Bob, L=London, C=GB"]);
    assert_eq!(described.participants[0].key, party("Ann", 1).owning_key);
    assert_eq!(described.linear_id.unwrap()[..4], [0x00, 0x11, 0x22, 0x33]);
    assert_eq!(described.attributes["quantity"], Value::Number(Number::from(100_u64)));
    assert!(described.owner.is_none() && described.amount.is_none());
    // The type names its times, so that queries compare them as such.
    let of = code.descriptor.contract("iou").unwrap().state("Iou").unwrap();
    let due = &fields(&state(&code, &iou()).data, &of.times).unwrap()["due"];
    assert_eq!(*due, Value::Time("2030-01-01T00:00:00Z".parse().unwrap()));
    assert_eq!(engine().describe(&code, &state(&code, &5)).unwrap().unwrap_err().code, "tx/state-malformed");
}

#[test]
fn cash_says_how_much_it_is_and_whose() {
    #[derive(Serialize)]
    struct AnyParty {
        name: Option<String>,
        owning_key: maxhost_model::PublicKey,
    }
    #[derive(Serialize)]
    struct Cash {
        owner: AnyParty,
        quantity: u64,
        currency: &'static str,
        issuer: Party,
    }
    let code = component("cash");
    let owner = AnyParty { name: None, owning_key: key(4).public().clone() };
    let data = Data::encode(&Cash { owner, quantity: 500, currency: "GBP", issuer: party("Bank", 5) }).unwrap();
    let of = code.descriptor.contract("cash").unwrap().state("Cash").unwrap();
    let state = TransactionState {
        contract: contract("cash"),
        type_name: of.name.clone(),
        schema: of.schema_id(),
        code_version: 1,
        data,
        notary: notary(),
        encumbrance: None,
        constraint: Constraint::Signature(key(PUBLISHER).public().clone()),
    };
    let described = engine().describe(&code, &state).unwrap().unwrap();
    let amount = described.amount.unwrap();
    assert_eq!((amount.quantity, amount.token.as_str()), (500, "GBP"));
    assert_eq!(amount.issuer.unwrap().key, party("Bank", 5).owning_key);
    let owner = described.owner.unwrap();
    assert!(owner.name.is_none() && owner.key == *key(4).public(), "{owner:?}");
    assert_eq!(described.participants, [owner]);
}

/// Builds a copy of a sample, so that builds of these tests do not wait for each other.
fn build(words: &[&str]) -> cli::Answer {
    let mut command = cli::command(&[&["cordapp", "build", "--json"], words].concat());
    command.env("CARGO_TARGET_DIR", root().join("target/guests")).current_dir(root());
    cli::answer(command, None)
}

#[test]
fn a_contract_is_built_signed_looked_at_and_compared() {
    let network = Network::new();
    let developer = network.path("keys/developer.pem").display().to_string();
    // A folder with a contract and flows makes both, the contract first.
    let both = |words: &[&str]| {
        let made = build(words).ok().objects();
        assert_eq!((made.len(), &made[1]["world"], &made[1]["name"]), (2, &json!("flows"), &json!("cash")));
        made.into_iter().next().unwrap()
    };
    let plain = both(&["cordapps/cash"]);
    let signed = both(&["cordapps/cash", "--sign", &developer]);
    assert_eq!((&plain["world"], &plain["name"]), (&json!("contract"), &json!("cash")));
    assert_eq!(plain["code_hash"], signed["code_hash"]);
    assert_ne!(plain["id"], signed["id"]);
    assert_eq!((plain["signers"].as_array().unwrap().len(), signed["signers"].as_array().unwrap().len()), (0, 1));
    assert_eq!(signed["imports"], json!([]));
    assert_eq!(signed["contracts"][0]["states"][0]["name"], "Cash");
    assert_eq!(signed["contracts"][0]["commands"], json!(["Issue", "Move", "Exit"]));

    let file = signed["file"].as_str().unwrap();
    assert!(file.ends_with("target/guests/cordapps/cash.contract.wasm"), "{file}");
    let inspected = cli::run(&["cordapp", "inspect", file, "--json"]).ok().object();
    assert_eq!(inspected["id"], signed["id"]);
    drop(cli::run(&["cordapp", "check", file, "--against", file, "--json"]).ok());
    let iou = cli::cordapps().join("iou.contract.wasm").display().to_string();
    let error = cli::run(&["cordapp", "check", &iou, "--against", file, "--json"]).fails(4, "cordapp-incompatible");
    assert!(error["details"]["cash"].as_str().unwrap().contains("gone"), "{error}");
    let ping = cli::cordapps().join("ping-pong.wasm").display().to_string();
    cli::run(&["cordapp", "check", &ping, "--against", file, "--json"]).fails(4, "cordapp-incompatible");
    cli::run(&["cordapp", "check", file, "--against", "no-such-file", "--json"]).fails(3, "file-not-found");

    drop(network.cli(&["cordapp", "install", file]).ok());
    assert!(network.path("cordapps/cash-0.1.0.contract.wasm").is_file());
}

#[tokio::test(flavor = "multi_thread")]
async fn init_installs_contracts_signed_by_the_developer_and_flows_run_beside_them() {
    let network = Network::new();
    for name in ["cash", "iou", "trade"] {
        let file = network.path(&format!("cordapps/{name}-0.1.0.contract.wasm")).display().to_string();
        let found = cli::run(&["cordapp", "inspect", &file, "--json"]).ok().object();
        assert_eq!(found["signers"].as_array().unwrap().len(), 1, "{found}");
    }
    assert_eq!(
        network.cli(&["doctor"]).objects().into_iter().find(|one| one["check"] == "cordapps").unwrap()["ok"],
        true
    );
    let host = network.run();
    assert_eq!(host.run(ALICE, "ping", json!({"peer": BOB, "count": 1})).await.result(), json!({"rounds": 1}));
    assert!(!host.log().contains("cannot be used"), "{}", host.log());
}

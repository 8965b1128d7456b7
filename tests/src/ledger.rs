//! Money and ledgers of identities, in the words of the user surface. What is issued and paid is cash of the sample `cash`, in GBP.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::ALICE;
use crate::flows::{End, eventually};
use crate::host::Host;
use crate::network::Network;

/// The arguments of `cash/pay` for a payment of so much.
#[must_use]
pub fn payment(to: &str, quantity: i64) -> Value {
    json!({"to": to, "quantity": quantity, "currency": "GBP"})
}

/// Alice issues so much to herself; the id of the transaction.
pub async fn issue(host: &Host, quantity: i64) -> String {
    tx(&host.run(ALICE, "cash/issue", json!({"quantity": quantity, "currency": "GBP"})).await)
}

/// As [`issue`], kept by this notary.
pub async fn issue_at(host: &Host, quantity: i64, notary: &str) -> String {
    let terms = json!({"quantity": quantity, "currency": "GBP", "notary": notary});
    tx(&host.run(ALICE, "cash/issue", terms).await)
}

/// Somebody pays so much to somebody. The payee records it a moment after this flow has ended.
pub async fn pay(host: &Host, from: &str, to: &str, quantity: i64) -> End {
    host.run(from, "cash/pay", payment(to, quantity)).await
}

/// The id of the transaction that a flow of the sample has made.
#[must_use]
pub fn tx(end: &End) -> String {
    end.result()["tx"].as_str().expect("the result names the transaction").to_owned()
}

/// Starts a payment of Alice's that waits for the notary, who must be [`Away`]; its flow.
pub async fn start_paying(host: &Host, to: &str, quantity: i64) -> String {
    let flow = host.start(ALICE, "cash/pay", payment(to, quantity)).await;
    until_asks_notary(host, &flow).await;
    flow
}

/// Waits until a flow waits for the answer of [`NOTARY`](crate::NOTARY).
pub async fn until_asks_notary(host: &Host, flow: &str) {
    host.until(flow, |shown| format!("{:?}", shown.waiting_for).contains("Notary")).await;
}

/// The manifest of [`NOTARY`](crate::NOTARY), taken away: nobody runs it until it is put back.
#[must_use]
pub struct Away {
    manifest: PathBuf,
    text: String,
}

impl Away {
    /// Takes it away.
    pub fn notary(network: &Network) -> Away {
        let manifest = network.path("identities/notary.toml");
        let text = std::fs::read_to_string(&manifest).expect("the manifest is there");
        std::fs::remove_file(&manifest).expect("it can be removed");
        Away { manifest, text }
    }

    /// Puts it back.
    pub fn comes_back(self) {
        std::fs::write(self.manifest, self.text).expect("the manifest can be written");
    }
}

/// The states of a vault, as `vault query` with these words gives them.
#[must_use]
pub fn query(network: &Network, identity: &str, words: &[&str]) -> Vec<Value> {
    network.cli(&[&["vault", "query", "--identity", identity][..], words].concat()).ok().objects()
}

/// How much GBP an identity has, as its vault adds it up.
#[must_use]
pub fn money(network: &Network, identity: &str) -> i64 {
    money_in(network, identity, "GBP")
}

/// How much of a currency an identity has, as its vault adds it up.
#[must_use]
pub fn money_in(network: &Network, identity: &str, currency: &str) -> i64 {
    let filter = format!("currency = '{currency}'");
    let sums = query(network, identity, &["--type", "cash/Cash", "--sum", "quantity", "--where", &filter]);
    sums.first().and_then(|sum| sum["sum"].as_i64()).unwrap_or(0)
}

/// Waits until an identity has so much GBP.
pub async fn until_has(network: &Network, identity: &str, quantity: i64) {
    eventually("the money arrives", async || {
        let has = money(network, identity);
        if has == quantity { Ok(()) } else { Err(format!("{identity} has {has} in place of {quantity}")) }
    })
    .await;
}

/// The transactions that an identity knows: the first page of them.
#[must_use]
pub fn transactions(network: &Network, identity: &str) -> Vec<Value> {
    network.cli(&["ledger", "list", "--identity", identity]).ok().objects()
}

/// Those that are not verified.
#[must_use]
pub fn unsettled(network: &Network, identity: &str) -> Vec<Value> {
    transactions(network, identity).into_iter().filter(|one| one["status"] != "verified").collect()
}

/// What an identity holds locked.
#[must_use]
pub fn locks(network: &Network, identity: &str) -> Vec<Value> {
    network.cli(&["vault", "locks", "--identity", identity]).ok().objects()
}

/// A transaction, as an identity has it.
#[must_use]
pub fn show(network: &Network, tx: &str, identity: &str) -> Value {
    network.cli(&["ledger", "show", tx, "--identity", identity]).ok().object()
}

/// Who has signed a transaction that [`show`] gave, as far as it says; `null` for a key whose owner is not known.
#[must_use]
pub fn signers(shown: &Value) -> Vec<Value> {
    shown["signatures"].as_array().expect("signatures are listed").iter().map(|one| one["by"].clone()).collect()
}

/// A transaction, verified again from what an identity has.
#[must_use]
pub fn verified_again(network: &Network, tx: &str, identity: &str) -> Value {
    network.cli(&["ledger", "why-invalid", tx, "--identity", identity]).ok().object()
}

/// What a notary has done.
#[must_use]
pub fn notary_status(network: &Network, notary: &str) -> Value {
    network.cli(&["notary", "status", "--identity", notary]).ok().object()
}

/// Where the ledger of an identity lies, as the prefix of a table: in a schema of its own if the database is on a server.
#[must_use]
pub fn schema(network: &Network, identity: &str) -> String {
    match network.server() {
        None => String::new(),
        Some(_) => format!("maxhost_i{}.", network.sql(&format!("SELECT id FROM identity WHERE name = '{identity}'"))),
    }
}

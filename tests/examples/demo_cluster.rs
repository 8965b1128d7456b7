//! `make demo-cluster`: a database server, ZooKeeper and a broker on loopback, two RPC workers, and Max Nodes that come, die, hang
//! and go while payments run. Shows that each payment that was started ends once, that money is neither lost nor made, and that
//! all of it goes down to no Max Node and back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/hosts/cluster.rs"]
#[allow(dead_code)]
mod cluster;

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::time::{Duration, Instant};

use cluster::{Cluster, Servers};
use maxhost_rpc::Client;
use maxhost_rpc::proto::v1 as pb;
use maxhost_tests::{End, Host, eventually, flows};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// Parties of the network beside those that each has: the first ones pay, the others are paid.
const PARTIES: u32 = 20;
const PAYERS: u32 = 10;
/// How many payments there are, and what each pays. For each there is a piece of money of that size.
const PAYMENTS: u32 = 40;
const EACH: i64 = 10;
const CURRENCY: &str = "GBP";
const NOTARY: &str = "O=Notary, L=Zurich, C=CH";
/// Payments that the notary has seen when one host dies and another hangs.
const FATAL: u64 = 5;
/// The longest that a start is repeated for.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longer than a session lasts without a sign of life.
const HANGS: Duration = Duration::from_secs(9);

fn say(text: &str) {
    println!("{text}");
    let _ = std::io::stdout().flush();
}

fn step(text: &str) {
    say(&format!("\n== {text}"));
}

fn party(number: u32) -> String {
    format!("O=Party {number:05}, L=London, C=GB")
}

/// A flow that is started under a name of its own.
#[derive(Clone)]
struct Order {
    name: String,
    from: String,
    flow: &'static str,
    arguments: Value,
}

impl Order {
    /// The payer of a payment makes the money for it.
    fn issue(number: u32) -> Order {
        let arguments = json!({"quantity": EACH, "currency": CURRENCY});
        Order { name: format!("issue-{number}"), from: payer(number), flow: "cash/issue", arguments }
    }

    fn pay(number: u32) -> Order {
        Order::of_payment(format!("payment-{number}"), payer(number), payee(number))
    }

    fn of_payment(name: String, from: String, to: String) -> Order {
        Order { name, from, flow: "cash/pay", arguments: json!({"to": to, "quantity": EACH, "currency": CURRENCY}) }
    }
}

fn payer(number: u32) -> String {
    party(number % PAYERS + 1)
}

/// Some are paid more often than others.
fn payee(number: u32) -> String {
    party(PAYERS + number * number % (PARTIES - PAYERS) + 1)
}

async fn start(client: Client, order: Order) -> pb::StartedFlow {
    let request = flows::request(&order.from, order.flow, &order.arguments);
    let request = pb::StartFlowRequest { client_id: Some(order.name.clone()), ..request };
    let deadline = Instant::now() + PATIENCE;
    loop {
        match client.start_flow(request.clone()).await {
            Ok(started) => return started.flow.unwrap(),
            // Under its client id it is the same start whenever it is repeated.
            Err(_) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(problem) => panic!("{} was not started: {problem}", order.name),
        }
    }
}

fn start_all(workers: &[&Host], orders: impl Iterator<Item = Order>) -> Vec<JoinHandle<pb::StartedFlow>> {
    let client = |number: usize| workers[number % workers.len()].client().clone();
    orders.enumerate().map(|(number, order)| tokio::spawn(start(client(number), order))).collect()
}

/// Waits for the starts and for the ends of the flows. Each has made a transaction of its own; gives the ids of the flows.
async fn all_end(worker: &Host, starts: Vec<JoinHandle<pb::StartedFlow>>) -> Vec<String> {
    let (mut ids, mut transactions) = (Vec::new(), HashSet::new());
    for start in starts {
        ids.push(start.await.unwrap().flow_id);
    }
    for id in &ids {
        let end = eventually(&format!("the end of {id}"), async || {
            let shown = worker.show(id).await.flow.unwrap();
            let end = End::of(&shown);
            if end.result.is_some() || end.error.is_some() { Ok(end) } else { Err(format!("{shown:?}")) }
        })
        .await;
        let transaction = end.result()["tx"].as_str().expect("the flow made a transaction").to_owned();
        assert!(transactions.insert(transaction), "two flows made one transaction");
    }
    ids
}

/// What each party has, as its own vault adds it up.
async fn money(worker: &Host) -> BTreeMap<String, i64> {
    let mut found = BTreeMap::new();
    for party in (1..=PARTIES).map(party) {
        let query = pb::VaultQueryRequest {
            identity: party.clone(),
            types: vec!["cash/Cash".to_owned()],
            ..pb::VaultQueryRequest::default()
        };
        let request = pb::VaultSumRequest { query: Some(query), field: "quantity".to_owned(), by: None };
        let sums = worker.client().sum(request).await.unwrap().sums;
        let sum: Value = sums.first().map_or(Value::Null, |sum| serde_json::from_str(&sum.sum).unwrap());
        found.insert(party, sum.as_i64().unwrap_or(0));
    }
    found
}

/// What each party must have after these payments.
fn expected(payments: std::ops::Range<u32>) -> BTreeMap<String, i64> {
    let mut expected: BTreeMap<String, i64> = (1..=PARTIES).map(|number| (party(number), 0)).collect();
    let mut add = |party: String, amount: i64| *expected.get_mut(&party).unwrap() += amount;
    (0..PAYMENTS).for_each(|number| add(payer(number), EACH));
    payments.for_each(|number| {
        add(payer(number), -EACH);
        add(payee(number), EACH);
    });
    expected
}

/// Adds up all vaults, and compares each with what it must have.
async fn audit(worker: &Host, expected: &BTreeMap<String, i64>) {
    let (found, issued) = (money(worker).await, i64::from(PAYMENTS) * EACH);
    for (party, expected) in expected {
        assert_eq!(found[party], *expected, "the money of {party}");
    }
    let (total, payers): (i64, i64) = (found.values().sum(), (1..=PAYERS).map(|number| found[&party(number)]).sum());
    assert_eq!(total, issued, "the sum over all vaults");
    say(&format!(
        "   issued {issued} {CURRENCY}; in all vaults together {total}: payers {payers}, payees {}",
        total - payers
    ));
}

async fn notarised(worker: &Host) -> u64 {
    let status = worker.client().notary_status(pb::NotaryStatusRequest { identity: NOTARY.to_owned() }).await.unwrap();
    assert_eq!(status.conflicts, 0, "nothing is spent twice");
    status.committed
}

fn signal(host: &Host, signal: libc::c_int) {
    let pid = libc::pid_t::try_from(host.pid()).unwrap();
    // SAFETY: sends a signal; touches no memory. The process is a child that was not waited for, so the number is its.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

fn show(cluster: &Cluster<'_>) -> Value {
    let status = cluster.ask("rpc-1", &["cluster", "status"]).remove(0);
    for host in status["hosts"].as_array().unwrap() {
        let word = |field: &str| host[field].as_str().unwrap_or_default().to_owned();
        say(&format!(
            "   {:<6} {:<5} {}  {} identities",
            word("host"),
            host["roles"][0].as_str().unwrap(),
            word("state"),
            host["identities"]
        ));
    }
    say(&format!("   demand: {} slots; owned: {}", status["demand"], status["identities"]["owned"]));
    status
}

async fn until_quiet(cluster: &Cluster<'_>) {
    eventually("all sleep", async || {
        let status = cluster.ask("rpc-1", &["cluster", "status"]).remove(0);
        let quiet = status["demand"] == 0 && status["identities"]["owned"] == 0;
        if quiet { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
}

#[tokio::main]
async fn main() {
    let begun = Instant::now();
    step("PostgreSQL, ZooKeeper and Artemis start, on loopback");
    let servers = Servers::start().await;
    let cluster = Cluster::new(&servers, PARTIES, "demo", "/maxhost/demo");

    step("two RPC workers, and no Max Node");
    let (one, two) = (cluster.run_as("rpc-1", "rpc"), cluster.run_as("rpc-2", "rpc"));
    show(&cluster);

    step(&format!(
        "{PAYERS} parties are to issue money, in {PAYMENTS} pieces: nobody runs them yet, so there is demand"
    ));
    let issues = start_all(&[&one, &two], (0..PAYMENTS).map(Order::issue));
    eventually("demand", async || {
        let status = cluster.ask("rpc-1", &["cluster", "status"]).remove(0);
        let is_wanted = status["demand"].as_u64().is_some_and(|slots| slots >= u64::from(PAYERS));
        if is_wanted { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    show(&cluster);

    step("three Max Nodes come");
    let mut nodes: Vec<(&str, Host)> =
        ["max-1", "max-2", "max-3"].map(|name| (name, cluster.run_as(name, "flows"))).into();
    let issues = all_end(&two, issues).await;
    say(&format!("   {} pieces of money are issued", issues.len()));
    audit(&one, &expected(0..0)).await;
    show(&cluster);

    step(&format!("{PAYMENTS} payments, each of {EACH} {CURRENCY}; each is started under a client id of its own"));
    let payments = start_all(&[&one, &two], (0..PAYMENTS).map(Order::pay));
    eventually("payments are under way", async || {
        let seen = notarised(&one).await;
        if seen >= FATAL { Ok(()) } else { Err(format!("{seen} payments")) }
    })
    .await;
    // The host that runs the notary dies, because that hits all payments.
    let notary = cluster.owner("rpc-1", "Notary");
    let dies = nodes.iter().position(|(name, _)| Some(*name) == notary.as_deref()).unwrap_or(0);
    let (killed, host) = nodes.remove(dies);
    host.kill_9();
    let (hung, host) = &nodes[0];
    signal(host, libc::SIGSTOP);
    say(&format!(
        "   in the middle of them {killed}, which runs the notary, dies by kill -9, and {hung} hangs (SIGSTOP)"
    ));
    show(&cluster);
    tokio::time::sleep(HANGS).await;
    signal(host, libc::SIGCONT);
    say(&format!("   {hung} comes back, too late: what it still writes for what others own by now is refused"));
    let payments = all_end(&one, payments).await;
    say(&format!("   {} payments have ended, each with a transaction of its own", payments.len()));
    show(&cluster);

    step("nothing is lost, and nothing doubled");
    let different: HashSet<&String> = payments.iter().collect();
    assert_eq!(different.len(), PAYMENTS as usize);
    for number in 0..PAYMENTS {
        let again = start(two.client().clone(), Order::pay(number)).await;
        assert!(!again.new && again.flow_id == payments[number as usize], "payment {number} was started twice");
    }
    say(&format!("   {PAYMENTS} payments, {PAYMENTS} flows; each that is asked for again is the flow that it was"));
    assert_eq!(notarised(&two).await, u64::from(PAYMENTS));
    say(&format!("   the notary has seen {PAYMENTS} transactions that spend money, and none that spends any twice"));
    let mut expected = expected(0..PAYMENTS);
    audit(&two, &expected).await;
    for (payee, amount) in expected.iter().filter(|(_, amount)| **amount > 0) {
        say(&format!("   {payee} was paid {} times and has {amount} {CURRENCY}", amount / EACH));
    }

    step("nothing is left to do: all identities sleep, and the Max Nodes go");
    until_quiet(&cluster).await;
    for (_, host) in nodes {
        host.stop();
    }
    show(&cluster);

    step("down to none, a payment is asked for; one Max Node comes");
    let asked = Instant::now();
    let (from, to) = (payee(1), party(1));
    let payment = start_all(&[&one], std::iter::once(Order::of_payment("back".to_owned(), from.clone(), to.clone())));
    let last = cluster.run_as("max-4", "flows");
    all_end(&two, payment).await;
    say(&format!(
        "   it has ended, {:.1} s after it was asked for, the start of the process included",
        asked.elapsed().as_secs_f64()
    ));
    *expected.get_mut(&from).unwrap() -= EACH;
    *expected.get_mut(&to).unwrap() += EACH;
    audit(&one, &expected).await;
    show(&cluster);
    last.stop();
    say(&format!("\nAll is well, after {:.0} s.", begun.elapsed().as_secs_f64()));
}

//! Random payments, double spends and issues of three parties, while the host is killed at random moments: no money is made
//! or lost, no state is consumed twice, nothing stays locked, and every flow that was started ends, once.
//!
//! `MAXHOST_MONEY_SEED` repeats the draws of an earlier run (the order of events on a busy machine is not repeatable, so
//! the same seed is a similar run), `MAXHOST_MONEY_KILLS` sets how often the host is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use maxhost_model::{Code, Problem};
use maxhost_rpc::proto::v1 as pb;
use maxhost_rpc::{Client, EndpointSource, FollowFrom, FollowOptions};
use maxhost_tests::flows::request;
use maxhost_tests::ledger::{locks, money_in, schema};
use maxhost_tests::{ALICE, BOB, CAROL, End, Host, NOTARY, Network, eventually};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

const PARTIES: [&str; 3] = [ALICE, BOB, CAROL];
/// Flows of each party that are under way at once.
const LANES: usize = 3;
/// Over how many kills a flow may take to end.
const LONGEST: Duration = Duration::from_secs(120);
/// Between two attempts to reach a host that is away.
const PAUSE: Duration = Duration::from_millis(15);
/// Locks are gone by then, once nothing runs.
const UNLOCKED: Duration = Duration::from_secs(10);

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().map_or(otherwise, |text| text.parse().expect("a number"))
}

/// A transaction that a flow says it has finalised: what it is, and whom it concerns.
#[derive(Debug, Clone)]
struct Finalised {
    parties: Vec<String>,
    by_notary: bool,
}

/// What flows have come to.
#[derive(Debug, Default)]
struct Books {
    /// What was issued, less what was taken back, by currency.
    total: BTreeMap<&'static str, i64>,
    finalised: BTreeMap<String, Finalised>,
    /// Client ids and the flows they stand for.
    flows: BTreeMap<(String, String), String>,
    ended: u64,
    conflicts: u64,
    refusals: u64,
    wrong: Vec<String>,
}

/// A flow to start, and what it would change.
struct Work {
    party: &'static str,
    flow: &'static str,
    arguments: Value,
    currency: &'static str,
    quantity: i64,
    /// Who is paid.
    to: Vec<String>,
}

#[derive(Clone)]
struct Bank {
    client: Client,
    books: Arc<Mutex<Books>>,
    /// No lane starts anything while it is set.
    paused: Arc<AtomicBool>,
    closing: Arc<AtomicBool>,
    working: Arc<Mutex<usize>>,
}

fn draw(random: &mut StdRng, party: &'static str) -> Work {
    let currency = ["GBP", "USD"][random.random_range(0..2)];
    let others: Vec<&str> = PARTIES.into_iter().filter(|other| *other != party).collect();
    let one = random.random_range(0..2);
    let kind = random.random_range(0..20);
    // Most payments find the money that they need.
    let quantity = random.random_range(1..120) * if kind < 5 { 10 } else { 1 };
    let amount = json!({"quantity": quantity, "currency": currency});
    let with = |to: Value| {
        let mut arguments = amount.clone();
        arguments["to"] = to;
        arguments
    };
    let (flow, arguments, to) = match kind {
        0..4 => ("cash/issue", amount, vec![]),
        4 => ("cash/issue", with(json!(others[one])), vec![others[one]]),
        5..7 => ("cash/exit", amount, vec![]),
        7..11 => ("hostile/double-spend", with(json!([others[one], others[1 - one]])), vec![others[one]]),
        11..13 => {
            let mut arguments = with(json!(others[one]));
            arguments["anonymous"] = json!(true);
            ("cash/pay", arguments, vec![others[one]])
        }
        _ => ("cash/pay", with(json!(others[one])), vec![others[one]]),
    };
    let to = to.into_iter().map(str::to_owned).collect();
    Work { party, flow, arguments, currency, quantity, to }
}

fn is_away(problem: &Problem) -> bool {
    matches!(problem.code, Code::HostUnreachable | Code::HostStopping | Code::Timeout | Code::Overloaded)
}

impl Bank {
    async fn lane(self, party: &'static str, lane: usize, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut count = 0;
        while !self.closing.load(Ordering::Acquire) {
            if self.paused.load(Ordering::Acquire) {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            *self.working.lock().unwrap() += 1;
            let work = draw(&mut random, party);
            let client_id = format!("lane {lane} start {count}");
            count += 1;
            if let Err(problem) = self.carry_out(&work, &client_id).await {
                let text = format!("{} of {} {}: {problem}", work.flow, work.party, work.arguments);
                self.books.lock().unwrap().wrong.push(text);
            }
            *self.working.lock().unwrap() -= 1;
        }
    }

    /// Starts a flow under its client id until a host has answered, and follows it to its end.
    async fn carry_out(&self, work: &Work, client_id: &str) -> Result<(), Problem> {
        let deadline = Instant::now() + LONGEST;
        let start = pb::StartFlowRequest {
            client_id: Some(client_id.to_owned()),
            ..request(work.party, work.flow, &work.arguments)
        };
        let flow = loop {
            match self.client.start_flow(start.clone()).await {
                Ok(answer) => break answer.flow.expect("the answer names the flow").flow_id,
                Err(problem) if is_away(&problem) && Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
                Err(problem) => return Err(problem),
            }
        };
        let again = self.client.start_flow(start).await;
        let key = (work.party.to_owned(), client_id.to_owned());
        {
            let mut books = self.books.lock().unwrap();
            if let Ok(again) = again {
                let second = again.flow.map(|flow| flow.flow_id).unwrap_or_default();
                if second != flow {
                    books.wrong.push(format!("{key:?} stands for {flow} and for {second}"));
                }
            }
            books.flows.insert(key, flow.clone());
        }
        let end = self.follow(&flow, deadline).await?;
        let once_more = self.follow(&flow, deadline).await?;
        let mut books = self.books.lock().unwrap();
        if end != once_more {
            books.wrong.push(format!("flow {flow} ended with {end:?}, and then with {once_more:?}"));
        }
        books.enter(work, &flow, &end);
        Ok(())
    }

    async fn follow(&self, flow: &str, deadline: Instant) -> Result<End, Problem> {
        loop {
            let from = FollowFrom::Flow { flow_id: flow.to_owned(), cursor: 0, encoding: pb::Encoding::Json };
            let options = FollowOptions { deadline: Some(deadline.into()), patience: LONGEST };
            match self.client.follow(from, options, |_| {}).await {
                Ok(ended) => return Ok(End::of(&ended)),
                Err(problem) if is_away(&problem) && Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
                Err(problem) => return Err(problem),
            }
        }
    }

    /// Lets what was started come to its end, and starts nothing.
    async fn pause(&self) {
        self.paused.store(true, Ordering::Release);
        eventually("no lane is at work", async || match *self.working.lock().unwrap() {
            0 => Ok(()),
            working => Err(format!("{working} are")),
        })
        .await;
    }

    fn check(&self) {
        let books = self.books.lock().unwrap();
        assert!(books.wrong.is_empty(), "{} things went wrong:\n{}", books.wrong.len(), books.wrong.join("\n"));
    }
}

impl Books {
    fn enter(&mut self, work: &Work, flow: &str, end: &End) {
        self.ended += 1;
        let Some(result) = &end.result else {
            let failure = end.failure();
            match failure.exception.as_deref() {
                Some("cash/insufficient" | "cash/locked" | "cash/not-issuer") => self.refusals += 1,
                _ => self.wrong.push(format!("{} {} (flow {flow}) failed: {failure:?}", work.flow, work.arguments)),
            }
            return;
        };
        let id = if work.flow == "hostile/double-spend" { &result["first"] } else { &result["tx"] };
        let id = id.as_str().unwrap_or_default().to_owned();
        match work.flow {
            "cash/issue" => *self.total.entry(work.currency).or_default() += work.quantity,
            "cash/exit" => *self.total.entry(work.currency).or_default() -= work.quantity,
            "hostile/double-spend" => {
                if result["second"] == json!({"kind": "flow-exception", "exception": "notary/conflict"}) {
                    self.conflicts += 1;
                } else {
                    self.wrong.push(format!("the same money was paid twice by flow {flow}: {result}"));
                }
            }
            _ => {}
        }
        let parties = std::iter::once(work.party.to_owned()).chain(work.to.iter().cloned()).collect();
        let finalised = Finalised { parties, by_notary: work.flow != "cash/issue" };
        if self.finalised.insert(id.clone(), finalised).is_some() {
            self.wrong.push(format!("two flows have finalised {id}"));
        }
    }
}

/// How the next life of the host treats flows that wait.
fn settings(random: &mut StdRng) -> Vec<String> {
    let evict = match random.random_range(0..4) {
        0 => "never".to_owned(),
        1 => "every-wait".to_owned(),
        2 => format!("random:{}", random.random::<u32>()),
        _ => "after-linger".to_owned(),
    };
    vec![format!("flows.evict={evict}"), format!("flows.idle_close={} ms", [300, 1_000][random.random_range(0..2)])]
}

fn up(network: &Network, settings: &[String]) -> Host {
    let mut command = network.run_command();
    for setting in settings {
        command.arg("--set").arg(setting);
    }
    tokio::task::block_in_place(|| Host::up(command, network.folder()))
}

/// Lines of a report, each of a text.
fn report(network: &Network, identity: &str, text: &str, from: &str) -> Vec<String> {
    let schema = schema(network, identity);
    let is_there = network.server().is_none()
        || network.sql(&format!("SELECT to_regclass('{schema}report_state') IS NOT NULL")) == "t";
    // Who has no ledger yet has no tables on a server.
    if !is_there {
        return Vec::new();
    }
    let from = from.replace("{schema}", &schema);
    let all = network.sql(&format!("SELECT string_agg({text}, '|') FROM {from}"));
    all.split('|').filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// What the notary has committed as consumed: each state, and by which transaction.
fn consumed_by_notary(network: &Network) -> BTreeMap<String, String> {
    let hex = |column: &str| match network.server() {
        None => format!("lower(hex({column}))"),
        Some(_) => format!("encode({column}, 'hex')"),
    };
    let text = format!("{} || ':' || idx || ' ' || {}", hex("tx"), hex("consumed_by"));
    let lines = report(network, NOTARY, &text, "{schema}notary_state");
    lines.iter().filter_map(|line| line.split_once(' ')).map(|(state, by)| (state.to_owned(), by.to_owned())).collect()
}

/// What must hold in the database at any moment, whatever was killed: nobody has a state as consumed that the notary has not
/// given to the same transaction, and no state is two parties' own.
fn look_at_the_vaults(network: &Network) {
    let notary = consumed_by_notary(network);
    let mut owners: BTreeMap<String, &str> = BTreeMap::new();
    for party in PARTIES {
        let from = format!("{{schema}}report_state WHERE identity = '{party}' AND status = 'consumed'");
        for line in report(network, party, "ref || ' ' || consumed_by", &from) {
            let (state, by) = line.split_once(' ').unwrap();
            assert_eq!(notary.get(state).map(String::as_str), Some(by), "{party} has {state} as consumed by {by}");
        }
        let relevant = if network.server().is_none() { "relevant = 1" } else { "relevant" };
        let from = format!("{{schema}}report_state WHERE identity = '{party}' AND {relevant}");
        for state in report(network, party, "ref", &from) {
            let other = owners.insert(state.clone(), party);
            assert_eq!(other, None, "{state} is {party}'s too");
        }
    }
}

/// The vaults of all, who may be asleep, have together what was issued and not taken back.
async fn count_the_money(network: &Network, bank: &Bank) {
    let expected = bank.books.lock().unwrap().total.clone();
    for (currency, total) in expected {
        // A payee records a moment after the payer.
        eventually("the money is all there", async || {
            let each = PARTIES.map(|party| money_in(network, party, currency));
            match each.iter().sum::<i64>() == total {
                true => Ok(()),
                false => Err(format!("{each:?} {currency} are not {total}")),
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_money_is_made_or_lost_whatever_is_paid_and_whenever_the_host_is_killed() {
    let seed = number("MAXHOST_MONEY_SEED", rand::random::<u32>().into());
    let kills = number("MAXHOST_MONEY_KILLS", 4);
    println!("{kills} kills, MAXHOST_MONEY_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let network = Network::new();
    let address: Arc<Mutex<Option<String>>> = Arc::default();
    let source: EndpointSource = {
        let address = address.clone();
        let away = || Problem::new(Code::HostUnreachable, "the host is away");
        Arc::new(move || address.lock().unwrap().clone().ok_or_else(away))
    };
    let client = Client::new(source, Duration::from_secs(10));
    let bank = Bank {
        client,
        books: Arc::default(),
        paused: Arc::default(),
        closing: Arc::default(),
        working: Arc::default(),
    };
    let mut lanes = tokio::task::JoinSet::new();
    for (index, lane) in (0..PARTIES.len() * LANES).enumerate() {
        lanes.spawn(bank.clone().lane(PARTIES[index % PARTIES.len()], lane, random.random()));
    }
    for kill in 0..kills {
        let host = up(&network, &settings(&mut random));
        *address.lock().unwrap() = Some(host.ready()["grpc"].as_str().unwrap().to_owned());
        tokio::time::sleep(Duration::from_millis(random.random_range(200..1_500))).await;
        if kill % 2 == 1 {
            bank.pause().await;
            host.until_quiet().await;
            count_the_money(&network, &bank).await;
            bank.paused.store(false, Ordering::Release);
            tokio::time::sleep(Duration::from_millis(random.random_range(50..400))).await;
        }
        *address.lock().unwrap() = None;
        tokio::task::block_in_place(|| {
            host.kill_9();
            look_at_the_vaults(&network);
        });
        bank.check();
    }

    let host = up(&network, &[]);
    *address.lock().unwrap() = Some(host.ready()["grpc"].as_str().unwrap().to_owned());
    tokio::time::sleep(Duration::from_millis(500)).await;
    bank.closing.store(true, Ordering::Release);
    while let Some(lane) = lanes.join_next().await {
        lane.unwrap();
    }
    bank.check();
    let status = host.until_quiet().await;
    let quiet = Instant::now();
    assert_eq!((status.flows["hospital"], status.flows["killed"]), (0, 0), "{status:?}");
    eventually("nothing is locked", async || {
        let locks = PARTIES.map(|party| locks(&network, party));
        match locks.iter().all(Vec::is_empty) {
            true => Ok(()),
            false if quiet.elapsed() > UNLOCKED => panic!("still locked: {locks:?}"),
            false => Err(format!("{locks:?}")),
        }
    })
    .await;
    count_the_money(&network, &bank).await;
    look_at_the_ledgers(&network, &bank).await;
    host.stop();
    look_at_the_vaults(&network);
    look_at_the_notary(&network, &bank);
    let books = bank.books.lock().unwrap();
    println!(
        "{} flows ended, {} of {} transactions notarised, {} double spends refused, {} payments without the money; {:?}",
        books.ended,
        books.finalised.values().filter(|one| one.by_notary).count(),
        books.finalised.len(),
        books.conflicts,
        books.refusals,
        books.total
    );
    assert!(books.ended > kills && !books.finalised.is_empty(), "there was work between the kills");
}

/// Everybody whom a transaction concerns has it as verified, and nobody has one that is not.
async fn look_at_the_ledgers(network: &Network, bank: &Bank) {
    let finalised = bank.books.lock().unwrap().finalised.clone();
    for party in PARTIES {
        eventually("all that concerns a party is verified", async || {
            let listed = network.cli(&["ledger", "list", "--identity", party, "--limit", "10000"]).ok().objects();
            let (verified, others): (Vec<&Value>, Vec<&Value>) =
                listed.iter().partition(|one| one["status"] == "verified");
            let verified: BTreeSet<&str> = verified.iter().filter_map(|one| one["id"].as_str()).collect();
            let concerns = finalised.iter().filter(|(_, one)| one.parties.iter().any(|name| name == party));
            let missing: Vec<&String> =
                concerns.map(|(id, _)| id).filter(|id| !verified.contains(id.as_str())).collect();
            match missing.is_empty() && others.is_empty() {
                true => Ok(()),
                false => Err(format!("{party} lacks {missing:?}, and has {others:?}")),
            }
        })
        .await;
    }
}

/// What the notary has committed is what flows say that they have finalised: none is lost, and none but those.
fn look_at_the_notary(network: &Network, bank: &Bank) {
    let finalised = bank.books.lock().unwrap().finalised.clone();
    let told: BTreeSet<&str> = finalised.iter().filter(|(_, one)| one.by_notary).map(|(id, _)| id.as_str()).collect();
    let committed = report(network, NOTARY, "id", "{schema}report_notarised WHERE verdict = 'committed'");
    let committed: BTreeSet<&str> = committed.iter().map(String::as_str).collect();
    let lost: Vec<_> = committed.difference(&told).collect();
    assert!(lost.is_empty(), "notarised, and no flow has finalised them: {lost:?}");
    let unknown: Vec<_> = told.difference(&committed).collect();
    assert!(unknown.is_empty(), "finalised, and the notary has not committed them: {unknown:?}");
}

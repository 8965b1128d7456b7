//! Clients: each starts flows one after the other, repeats what was not answered, and waits for the ends. What they saw that
//! must not be is kept.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use maxhost_model::{Class, Problem};
use maxhost_rpc::proto::v1 as pb;
use maxhost_tests::{End, flows};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::deployment::Deployment;
use super::orders::{self, Order, What};

/// How often a client looks whether its flow has ended.
const POLL: Duration = Duration::from_millis(200);
/// How long a client waits before it repeats what failed.
const AGAIN: Duration = Duration::from_millis(200);
/// Every so manieth start is repeated at another worker when it was answered.
const REPEATED: u64 = 4;

/// All clients together.
pub struct Load {
    deployment: Arc<Deployment>,
    seed: u64,
    identities: u32,
    payers: u32,
    number: AtomicU64,
    goes_on: watch::Sender<bool>,
    books: Mutex<Books>,
    /// A payer pays one after the other, so that his change is there.
    paying: Vec<tokio::sync::Mutex<()>>,
}

/// What the clients know.
#[derive(Default)]
pub struct Books {
    /// Flows that were started and whose ends are known, by the names of their orders.
    pub ended: HashMap<String, String>,
    /// Orders under way, and since when.
    pub under_way: BTreeMap<String, (Instant, Option<String>)>,
    /// What each identity must have.
    pub money: BTreeMap<u32, i64>,
    /// What each payer surely has in his vault.
    pub purses: HashMap<u32, i64>,
    transactions: HashSet<String>,
    /// What was not answered well, by code.
    pub repeated: BTreeMap<String, u64>,
    /// What must not be.
    pub wrong: BTreeSet<String>,
    /// The longest that an order took.
    pub longest: Duration,
}

impl Load {
    pub fn new(deployment: Arc<Deployment>, seed: u64, identities: u32) -> Arc<Load> {
        let payers = (identities / 5).max(2);
        let paying = (0..payers).map(|_| tokio::sync::Mutex::new(())).collect();
        let (number, goes_on, books) = (AtomicU64::new(0), watch::Sender::new(true), Mutex::default());
        Arc::new(Load { deployment, seed, identities, payers, number, goes_on, books, paying })
    }

    /// What is known so far.
    pub fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the payers their money.
    pub async fn issue(self: &Arc<Load>) {
        let issues = (0..self.payers).map(|payer| {
            let load = self.clone();
            tokio::spawn(async move { load.carry_out(orders::issue(load.seed, payer), u64::from(payer)).await })
        });
        for issue in issues.collect::<Vec<_>>() {
            issue.await.unwrap();
        }
        self.settle_purses();
    }

    /// Starts so many clients.
    pub fn begin(self: &Arc<Load>, clients: usize) -> Vec<JoinHandle<()>> {
        let client = |_| {
            let load = self.clone();
            tokio::spawn(async move { load.client().await })
        };
        (0..clients).map(client).collect()
    }

    /// Has the clients begin nothing new, or go on.
    pub fn pause(&self, pauses: bool) {
        self.goes_on.send_replace(!pauses);
    }

    /// When all is known to have ended: what the identities have may be paid.
    pub fn settle_purses(&self) {
        let mut books = self.books();
        books.purses = books.money.iter().map(|(payer, money)| (*payer, *money)).collect();
    }

    async fn client(self: Arc<Load>) {
        let mut goes_on = self.goes_on.subscribe();
        while goes_on.wait_for(|goes_on| *goes_on).await.is_ok() {
            let number = self.number.fetch_add(1, Ordering::Relaxed);
            let order = orders::order(self.seed, number, self.identities, self.payers);
            match order.what {
                What::Payment { from, amount, .. } => {
                    let _turn = self.paying[from as usize].lock().await;
                    let has_enough = {
                        let mut books = self.books();
                        let purse = books.purses.entry(from).or_default();
                        *purse -= amount;
                        *purse >= 0
                    };
                    if has_enough {
                        self.carry_out(order, number).await;
                    }
                }
                _ => self.carry_out(order, number).await,
            }
            tokio::time::sleep(Duration::from_millis(number % 7 * 50)).await;
        }
    }

    /// Sees an order through: one flow, the same one however often it is asked for, and one end, which is the right one.
    async fn carry_out(&self, order: Order, number: u64) {
        let begun = Instant::now();
        self.books().under_way.insert(order.name.clone(), (begun, None));
        let id = self.start(&order, number).await.flow_id;
        self.books().under_way.insert(order.name.clone(), (begun, Some(id.clone())));
        if number.is_multiple_of(REPEATED) {
            self.start_again(&order, number + 1, &id).await;
        }
        let end = self.end(&order, &id, number).await;
        let mut books = self.books();
        books.judge(&order, &end);
        books.under_way.remove(&order.name);
        books.longest = books.longest.max(begun.elapsed());
        books.ended.insert(order.name, id);
    }

    async fn start(&self, order: &Order, number: u64) -> pb::StartedFlow {
        let request = flows::request(&order.from, order.flow, &order.arguments);
        let request = pb::StartFlowRequest { client_id: Some(order.name.clone()), ..request };
        let mut tries = number;
        loop {
            tries += 1;
            let Some(client) = self.deployment.client(tries as usize) else {
                tokio::time::sleep(AGAIN).await;
                continue;
            };
            match client.start_flow(request.clone()).await {
                Ok(started) => return started.flow.unwrap(),
                Err(problem) => self.note(&format!("start of {}", order.name), &problem),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Asks for the same once more: it must be the flow that it was.
    pub async fn start_again(&self, order: &Order, number: u64, id: &str) {
        let again = self.start(order, number).await;
        if again.flow_id != id || again.new {
            let text = format!("{} was {id} and is {} (new: {})", order.name, again.flow_id, again.new);
            self.books().wrong.insert(text);
        }
    }

    async fn end(&self, order: &Order, id: &str, number: u64) -> End {
        let selector = Some(pb::get_flow_request::Selector::FlowId(id.to_owned()));
        let request = pb::GetFlowRequest { selector, encoding: pb::Encoding::Json.into() };
        let mut tries = number;
        loop {
            tries += 1;
            if let Some(client) = self.deployment.client(tries as usize) {
                match client.get_flow(request.clone()).await {
                    Ok(shown) => {
                        let end = End::of(&shown.flow.unwrap());
                        if end.result.is_some() || end.error.is_some() {
                            return end;
                        }
                    }
                    Err(problem) => self.note(&format!("look at {id} of {}", order.name), &problem),
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Whoever is told to try again tries again; nothing else may be told.
    fn note(&self, what: &str, problem: &Problem) {
        let mut books = self.books();
        *books.repeated.entry(problem.code.as_str().to_owned()).or_default() += 1;
        if problem.code.class() != Class::Unavailable {
            books.wrong.insert(format!("{what}: {problem}"));
        }
    }

    /// Those orders of a sample that can be asked for once more.
    pub fn sample(&self, most: usize) -> Vec<(Order, String)> {
        let books = self.books();
        let numbers = (0..self.number.load(Ordering::Relaxed)).rev();
        let orders = numbers.map(|number| orders::order(self.seed, number, self.identities, self.payers));
        orders.filter_map(|order| books.ended.get(&order.name).map(|id| (order, id.clone()))).take(most).collect()
    }
}

impl Books {
    fn judge(&mut self, order: &Order, end: &End) {
        let Some(result) = &end.result else {
            self.wrong.insert(format!("{} ({} of {}) ended with {end:?}", order.name, order.flow, order.from));
            return;
        };
        if let What::Result(expected) = &order.what {
            if result != expected {
                self.wrong.insert(format!("{} ended with {result} instead of {expected}", order.name));
            }
            return;
        }
        let transaction = result["tx"].as_str().unwrap_or_default().to_owned();
        if transaction.is_empty() || !self.transactions.insert(transaction) {
            self.wrong.insert(format!("{} ended with {result}, which is no transaction of its own", order.name));
        }
        match order.what {
            What::Issue { to } => *self.money.entry(to).or_default() += orders::ISSUED,
            What::Payment { from, to, amount } => {
                *self.money.entry(from).or_default() -= amount;
                *self.money.entry(to).or_default() += amount;
            }
            What::Result(_) => {}
        }
    }
}

//! Work for a host that is killed again and again, and the books that are kept of it.
//!
//! Lanes start flows and follow them to their ends, over as many lives of the host as that takes. What a host has
//! promised is written down here, outside of it: a flow id that StartFlow has answered must be known for ever, a flow
//! must end with the one result that it can have, and a client id stands for one flow however often it is started.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use maxhost_model::{Code, Problem};
use maxhost_rpc::proto::v1 as pb;
use maxhost_rpc::{Client, EndpointSource, FollowFrom, FollowOptions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

/// A single call; a host that was killed does not answer at all.
const CALL: Duration = Duration::from_secs(5);
/// How long a flow may take, kills and all.
const LONGEST: Duration = Duration::from_secs(150);
/// Between two attempts to reach a host that is away.
const PAUSE: Duration = Duration::from_millis(15);

/// Where the host listens now; `None` while it is away.
pub type Address = Arc<Mutex<Option<String>>>;

/// What was promised, and what came of it.
#[derive(Debug, Default)]
pub struct Books {
    /// Flows that StartFlow has answered.
    pub promised: BTreeMap<String, String>,
    /// Client ids and their flows.
    pub clients: BTreeMap<(String, String), String>,
    /// Starts without a client id whose answer got lost: they may have begun or not.
    pub unknown: u64,
    /// Flows that ended as they must.
    pub ended: u64,
    /// Starts that were repeated under their client id.
    pub repeated: u64,
    /// The one answer to each question that always has the same.
    answers: BTreeMap<String, Value>,
    /// What was wrong.
    pub wrong: Vec<String>,
}

/// One flow that can be started, and what it must come to.
struct Work {
    identity: String,
    flow: &'static str,
    arguments: Value,
    /// The result; none: the same as every time before.
    result: Option<Value>,
}

/// What all lanes share.
#[derive(Clone)]
pub struct Site {
    parties: Arc<[String]>,
    client: Client,
    books: Arc<Mutex<Books>>,
    closing: Arc<AtomicBool>,
}

impl Site {
    /// A site with these identities, whose host is looked for at `address`.
    #[must_use]
    pub fn new(parties: Vec<String>, address: Address) -> Site {
        let source: EndpointSource = Arc::new(move || {
            let away = || Problem::new(Code::HostUnreachable, "the host is away");
            lock(&address).clone().ok_or_else(away)
        });
        Site {
            parties: parties.into(),
            client: Client::new(source, CALL),
            books: Arc::default(),
            closing: Arc::default(),
        }
    }

    /// Nothing new is started from now on; what was started is followed to its end.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// The books.
    pub fn read<T>(&self, look: impl FnOnce(&Books) -> T) -> T {
        look(&lock(&self.books))
    }

    /// A client of whatever host is there.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Starts flows one after the other and follows each to its end, until the site closes.
    pub async fn lane(self, number: usize, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed ^ (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut count = 0;
        while !self.closing.load(Ordering::Acquire) {
            let work = self.draw(&mut random);
            let client_id = random.random_bool(0.5).then(|| format!("lane {number} start {count}"));
            count += 1;
            if let Some(flow_id) = self.start(&work, client_id.as_deref()).await {
                self.follow(&work, &flow_id).await;
            }
        }
    }

    fn party(&self, random: &mut StdRng) -> String {
        self.parties[random.random_range(0..self.parties.len())].clone()
    }

    /// Different parties, the first of which is to start the flow.
    fn several(&self, random: &mut StdRng, count: usize) -> (String, Vec<String>) {
        let mut parties = Vec::new();
        while parties.len() <= count {
            let party = self.party(random);
            if !parties.contains(&party) {
                parties.push(party);
            }
        }
        (parties.remove(0), parties)
    }

    fn draw(&self, random: &mut StdRng) -> Work {
        match random.random_range(0..10) {
            0..3 => {
                let (identity, peers) = self.several(random, 1);
                let count = [1, 1, 3, 10, 40][random.random_range(0..5)];
                Work {
                    identity,
                    flow: "ping-pong/ping",
                    arguments: json!({"peer": peers[0], "count": count}),
                    result: Some(json!({"rounds": count})),
                }
            }
            3..5 => {
                let beats = random.random_range(0..8);
                Work {
                    identity: self.party(random),
                    flow: "heartbeat/beat",
                    arguments: json!({"beats": beats, "interval_ms": random.random_range(1..60)}),
                    result: Some(json!({"beats": beats})),
                }
            }
            5..7 => {
                // Few different questions, so that each is asked often: every time it must get the same answer.
                let (item, quantity) = (format!("XS{}", random.random_range(0..3)), random.random_range(1..3));
                Work {
                    identity: self.parties[0].clone(),
                    flow: "quotes/request",
                    arguments: json!({
                        "dealers": &self.parties[1..4], "item": item, "quantity": quantity, "deadline_ms": 120_000,
                    }),
                    result: None,
                }
            }
            _ => {
                let peers = random.random_range(1..4);
                let (identity, peers) = self.several(random, peers);
                let (bursts, burst) = (random.random_range(1..6_u64), random.random_range(1..9_u64));
                let (sent, count) = (bursts * burst, peers.len() as u64);
                Work {
                    identity,
                    flow: "hostile/sequence",
                    arguments: json!({
                        "peers": peers, "bursts": bursts, "burst": burst, "pause_ms": random.random_range(0..20),
                    }),
                    result: Some(json!({"messages": sent * count, "sum": sent * (sent + 1) / 2 * count})),
                }
            }
        }
    }

    /// Starts a flow. `None` if nobody knows whether it was started.
    async fn start(&self, work: &Work, client_id: Option<&str>) -> Option<String> {
        let request = pb::StartFlowRequest {
            identity: work.identity.clone(),
            flow: work.flow.to_owned(),
            arguments: Some(pb::start_flow_request::Arguments::Json(work.arguments.to_string())),
            client_id: client_id.map(str::to_owned),
            encoding: pb::Encoding::Json.into(),
        };
        let deadline = Instant::now() + LONGEST;
        let mut attempts = 0_u64;
        loop {
            match self.client.start_flow(request.clone()).await {
                Ok(answer) => {
                    let flow_id = answer.flow.map(|flow| flow.flow_id).unwrap_or_default();
                    let mut books = lock(&self.books);
                    books.repeated += u64::from(attempts > 0);
                    books.promise(&flow_id, work, client_id);
                    return Some(flow_id);
                }
                Err(problem) if is_away(&problem) && Instant::now() < deadline => {
                    // A call that never reached a host has started nothing, and may be repeated by anybody.
                    let never_left = problem.message.contains("is away") || problem.message.contains("no host answers");
                    if client_id.is_none() && !never_left {
                        lock(&self.books).unknown += 1;
                        return None;
                    }
                    attempts += u64::from(!never_left);
                    tokio::time::sleep(PAUSE).await;
                }
                Err(problem) => {
                    self.complain(format!("{} of {} was refused: {problem}", work.flow, work.identity));
                    return None;
                }
            }
        }
    }

    /// Follows a flow to its end, which must be the right one.
    async fn follow(&self, work: &Work, flow_id: &str) {
        let deadline = Instant::now() + LONGEST;
        let ended = loop {
            let from = FollowFrom::Flow { flow_id: flow_id.to_owned(), cursor: 0, encoding: pb::Encoding::Json };
            let options = FollowOptions { deadline: Some(deadline.into()), patience: LONGEST };
            match self.client.follow(from, options, |_| {}).await {
                Ok(ended) => break ended,
                Err(problem) if is_away(&problem) && Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
                Err(problem) => {
                    return self.complain(format!("flow {flow_id} ({}) did not end: {problem}", work.flow));
                }
            }
        };
        let result = match &ended.end {
            Some(pb::flow::End::Result(payload)) => value(payload),
            other => {
                let arguments = &work.arguments;
                return self.complain(format!("flow {flow_id} ({} {arguments}) ended with {other:?}", work.flow));
            }
        };
        let mut books = lock(&self.books);
        let expected = match &work.result {
            Some(expected) => expected.clone(),
            None => {
                let question = format!("{} {}", work.flow, work.arguments);
                books.answers.entry(question).or_insert_with(|| result.clone()).clone()
            }
        };
        if result == expected {
            books.ended += 1;
        } else {
            books.wrong.push(format!("flow {flow_id} ({}) came to {result} instead of {expected}", work.flow));
        }
    }

    fn complain(&self, text: String) {
        lock(&self.books).wrong.push(text);
    }
}

impl Books {
    fn promise(&mut self, flow_id: &str, work: &Work, client_id: Option<&str>) {
        self.promised.insert(flow_id.to_owned(), work.identity.clone());
        let Some(client_id) = client_id else { return };
        let key = (work.identity.clone(), client_id.to_owned());
        let first = self.clients.entry(key).or_insert_with(|| flow_id.to_owned());
        if first != flow_id {
            self.wrong.push(format!("client id '{client_id}' stands for {first} and for {flow_id}"));
        }
    }

    /// Flow ids that were promised and are not among these.
    #[must_use]
    pub fn lost(&self, known: &BTreeSet<String>) -> Vec<String> {
        self.promised.keys().filter(|id| !known.contains(*id)).cloned().collect()
    }
}

fn is_away(problem: &Problem) -> bool {
    matches!(problem.code, Code::HostUnreachable | Code::HostStopping | Code::Timeout | Code::Overloaded)
}

fn value(payload: &pb::Payload) -> Value {
    match &payload.encoding {
        Some(pb::payload::Encoding::Json(text)) => serde_json::from_str(text).unwrap_or(Value::Null),
        _ => Value::Null,
    }
}

/// The books are written whole by whoever holds them, so a lane that has panicked leaves them in order.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

//! A notary that does not validate: how many states it takes a second.
//!
//! By itself the store decides batches of requests, one commit a batch. The whole path of a request is its bytes, read and
//! checked as a notary does, the batch in which it is decided with those that wait, the commit, and the batch's signature.
//! What its callers do (building, verifying, recording) is not measured here, but in the group `ledger`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use maxhost_ledger::notary::{
    NotaryPayload, NotaryRequest, NotaryService, Parameters, UniquenessRequest, Verdict, check_request, sign_committed,
};
use maxhost_ledger::time::Timestamp;
use maxhost_ledger::tx::component::Salt;
use maxhost_ledger::tx::{
    Command, CommandValue, Contents, Data, FilteredTransaction, Header, LedgerRules, Name, NotaryRole, Shown, StateRef,
    TransactionSignature, WireTransaction,
};
use maxhost_model::SecureHash;
use maxhost_postgres_server::Server;
use maxhost_store::ledger::{LedgerOp, LedgerReceipt, NotaryOp};
use maxhost_store::{Author, Caution, ClaimRequest, FencingToken, Store};
use maxhost_store_postgres::{PostgresOptions, PostgresStore};
use maxhost_store_sqlite::{SqliteOptions, SqliteStore};
use maxhost_tests::contracts::{component, contract, key, network, notary, state};
use tokio::sync::{mpsc, oneshot};

use crate::figures::{Goal, Report, median};
use crate::setting::{Outcome, Setting};

/// The requests of a batch at most, as in a host.
const BATCH: usize = 1_000;
/// Callers that wait for an answer at any time.
const CALLERS: usize = 512;
/// The key of all callers.
const CALLER: u8 = 3;
const PLATFORM: u32 = 140;

pub fn measure(setting: &Setting, report: &mut Report) -> Outcome {
    let scratch = setting.scratch()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let sqlite = async |name: &str| open_sqlite(&scratch.path().join(name)).await;
        report.group("a notary's commits by themselves, on SQLite");
        alone(setting, report, 2, 10_000.0, async || sqlite("alone-2.db").await).await?;
        alone(setting, report, 10, 10_000.0, async || sqlite("alone-10.db").await).await?;
        report.group("requests to a notary, 512 callers at once, on SQLite: read, checked, decided in batches, signed");
        requests(setting, report, 2, 10_000.0, async || sqlite("path-2.db").await).await?;
        requests(setting, report, 10, 10_000.0, async || sqlite("path-10.db").await).await?;
        let server = Server::start("shared_buffers = 512MB\nmax_wal_size = 4GB")?;
        let number = AtomicUsize::new(0);
        let postgres = async || {
            let database = format!("bench_{}", number.fetch_add(1, Ordering::Relaxed));
            server.create_database(&database)?;
            let options = PostgresOptions::new(&server.tcp_url(&database), Some(&server.password_file()))?;
            claimed(PostgresStore::open(options).await?).await
        };
        report.group("the same on PostgreSQL: commits by themselves");
        alone(setting, report, 2, 5_000.0, postgres).await?;
        report.group("requests to a notary on PostgreSQL, 512 callers at once");
        requests(setting, report, 2, 5_000.0, postgres).await?;
        Ok(())
    })
}

async fn open_sqlite(file: &Path) -> Outcome<(Store, Author)> {
    claimed(SqliteStore::open(SqliteOptions::new(file)).await?).await
}

async fn claimed(store: Store) -> Outcome<(Store, Author)> {
    let identity = store.register_identities(&["O=Notary, L=London, C=GB"]).await?[0];
    let token = FencingToken { generation: 0, epoch: 1 };
    let claim = store.claim(ClaimRequest { identity, token, key_fp: None, caution: Caution::None }).await?;
    Ok((store, Author { identity, claim }))
}

/// How many requests a measurement has.
fn count(setting: &Setting, inputs: usize) -> usize {
    (if setting.quick { 40_000 } else { 200_000 }) / inputs
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// The states that the request with this number consumes: outputs of transactions that have nothing to do with each other.
fn inputs(request: usize, count: usize) -> Vec<StateRef> {
    let of = |index: usize| SecureHash::of(&[request.to_be_bytes(), index.to_be_bytes()].concat());
    (0..count).map(|index| StateRef::new(of(index), 0)).collect()
}

/// Batches of new states, each committed before the next is handed in.
async fn alone(
    setting: &Setting,
    report: &mut Report,
    each: usize,
    goal: f64,
    open: impl AsyncFn() -> Outcome<(Store, Author)>,
) -> Outcome {
    let (store, author) = open().await?;
    let mut rates = Vec::new();
    let mut next = 0;
    for _ in 0..setting.rounds() {
        let requests = count(setting, each);
        let mut took = Duration::ZERO;
        for _ in 0..requests / BATCH {
            let request = |number: usize| UniquenessRequest {
                id: SecureHash::of(&number.to_be_bytes()),
                inputs: inputs(number, each),
                references: Vec::new(),
                window: None,
            };
            let batch = (next..next + BATCH).map(|number| ("O=Caller".to_owned(), request(number))).collect();
            next += BATCH;
            let began = Instant::now();
            let op = LedgerOp::Notarise(Box::new(NotaryOp { requests: batch, at: now() }));
            let receipt = store.commit(author, vec![op.into()]).await?;
            took += began.elapsed();
            if verdicts(receipt.ledger)?.iter().any(Result::is_err) {
                return Err("a state that nobody had spent was refused".into());
            }
        }
        #[allow(clippy::cast_precision_loss)]
        rates.push((requests * each) as f64 / took.as_secs_f64());
    }
    report.add(format!("states of batches of {BATCH} requests of {each}"), median(rates), "/s", Goal::AtLeast(goal));
    store.close().await;
    Ok(())
}

fn verdicts(receipts: Vec<(usize, LedgerReceipt)>) -> Outcome<Vec<Verdict>> {
    match receipts.into_iter().next() {
        Some((_, LedgerReceipt::Notarised(verdicts))) => Ok(verdicts),
        other => Err(format!("a batch was answered with {other:?}").into()),
    }
}

struct Known(LedgerRules);

impl Parameters for Known {
    fn rules(&self, hash: &SecureHash) -> Option<&LedgerRules> {
        (*hash == parameters()).then_some(&self.0)
    }
}

fn parameters() -> SecureHash {
    SecureHash::of(b"parameters")
}

/// A request as it travels: a tear-off of a transaction with one output and one command, signed by its caller.
fn request(number: usize, each: usize) -> Outcome<Vec<u8>> {
    let value = CommandValue { contract: contract("iou"), name: Name::new("Transfer")?, value: Data::encode(&())? };
    let output = state(&component("iou"), &maxhost_tests::contracts::iou());
    let contents = Contents {
        header: Header::current(network()),
        inputs: inputs(number, each),
        outputs: vec![output],
        commands: vec![Command { value, signers: vec![key(CALLER).public().clone()] }],
        attachments: vec![component("iou").id],
        notary: Some(notary()),
        time_window: None,
        references: Vec::new(),
        parameters: Some(parameters()),
    };
    let wire = WireTransaction::new(&contents, Salt::new(SecureHash::of(&number.to_be_bytes()).as_bytes().to_vec())?)?;
    let shown = |shown: Shown<'_>| !matches!(shown, Shown::Output(_) | Shown::Command(..) | Shown::Attachment(_));
    let payload = NotaryPayload::Filtered(Box::new(FilteredTransaction::new(&wire, shown)?));
    Ok(NotaryRequest::sign(payload, &key(CALLER))?.encode()?)
}

struct Waiting {
    request: UniquenessRequest,
    answer: oneshot::Sender<TransactionSignature>,
}

async fn requests(
    setting: &Setting,
    report: &mut Report,
    each: usize,
    goal: f64,
    open: impl AsyncFn() -> Outcome<(Store, Author)>,
) -> Outcome {
    let (store, author) = open().await?;
    let (mut rates, mut cpus, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
    let mut latency = Histogram::<u64>::new(3)?;
    for round in 0..setting.rounds() {
        let count = count(setting, each);
        let made: Result<Vec<Vec<u8>>, _> = (0..count).map(|number| request(round * count + number, each)).collect();
        let made = Arc::new(made?);
        let (cpu, began) = (crate::installation::cpu_of("self"), Instant::now());
        let (sender, waiting) = mpsc::channel(CALLERS);
        let batches = tokio::spawn(decide(store.clone(), author, waiting));
        let taken = Arc::new(AtomicUsize::new(0));
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..CALLERS {
            callers.spawn(call(made.clone(), taken.clone(), sender.clone()));
        }
        drop(sender);
        while let Some(times) = callers.join_next().await {
            for micros in times?? {
                latency.record(micros)?;
            }
        }
        let batches = batches.await??;
        let (took, cpu) = (began.elapsed(), crate::installation::cpu_of("self") - cpu);
        #[allow(clippy::cast_precision_loss)]
        {
            rates.push((count * each) as f64 / took.as_secs_f64());
            cpus.push(cpu.as_secs_f64() * 1e6 / count as f64);
            sizes.push(count as f64 / batches as f64);
        }
    }
    report.add(format!("input states, {each} a request"), median(rates), "/s", Goal::AtLeast(goal));
    report.add("CPU of notary and committer a request", median(cpus), "µs", Goal::None);
    report.add("requests a batch", median(sizes), "", Goal::None);
    report.add("an answer, p50", latency.value_at_quantile(0.5) as f64 / 1e3, "ms", Goal::None);
    report.add("an answer, p99", latency.value_at_quantile(0.99) as f64 / 1e3, "ms", Goal::None);
    store.close().await;
    Ok(())
}

/// Sends one request after the other, until all are sent.
async fn call(
    made: Arc<Vec<Vec<u8>>>,
    taken: Arc<AtomicUsize>,
    sender: mpsc::Sender<Waiting>,
) -> Result<Vec<u64>, String> {
    let rules = LedgerRules { max_transaction_size: 10 << 20, notaries: vec![notary()], ..LedgerRules::default() };
    let (known, identity, network) = (Known(rules), notary(), network());
    let service = NotaryService { identity: &identity, validating: false, network: &network };
    let caller = key(CALLER).public().clone();
    let mut times = Vec::new();
    loop {
        let Some(bytes) = made.get(taken.fetch_add(1, Ordering::Relaxed)) else { return Ok(times) };
        let began = Instant::now();
        let request = NotaryRequest::decode(bytes).map_err(|error| error.to_string())?;
        let request =
            check_request(&request, &caller, service, &known, |_| Ok(())).map_err(|error| error.to_string())?;
        let (answer, answered) = oneshot::channel();
        sender.send(Waiting { request, answer }).await.map_err(|error| error.to_string())?;
        let signature = answered.await.map_err(|_| "a request was refused")?;
        times.push(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
        drop(signature);
    }
}

/// Decides what waits, batch after batch, and signs each. Gives the number of batches.
async fn decide(store: Store, author: Author, mut waiting: mpsc::Receiver<Waiting>) -> Result<usize, String> {
    let signer = key(9);
    let mut batches = 0;
    let mut batch = Vec::with_capacity(BATCH);
    while waiting.recv_many(&mut batch, BATCH).await > 0 {
        let requests = batch.iter().map(|one| ("O=Caller".to_owned(), one.request.clone())).collect();
        let op = LedgerOp::Notarise(Box::new(NotaryOp { requests, at: now() }));
        let receipt = store.commit(author, vec![op.into()]).await.map_err(|error| error.to_string())?;
        let decided = verdicts(receipt.ledger).map_err(|error| error.to_string())?;
        let committed: Result<Vec<_>, _> =
            batch.iter().zip(decided).map(|(one, verdict)| Ok((one.request.id, verdict?.stamp))).collect();
        let committed = committed.map_err(|error: maxhost_ledger::notary::NotaryError| error.to_string())?;
        let signed = sign_committed(&committed, NotaryRole::Uniqueness, parameters(), &signer, PLATFORM);
        for (one, signature) in batch.drain(..).zip(signed.map_err(|error| error.to_string())?) {
            // Who has gone needs no answer.
            let _ = one.answer.send(signature);
        }
        batches += 1;
    }
    Ok(batches)
}

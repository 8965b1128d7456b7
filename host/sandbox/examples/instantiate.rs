//! What one run costs: create, call, drop, on one thread and on two; and what a waiting run holds.
//!
//! `cargo run --release -p maxhost-sandbox --example instantiate -- GUEST.wasm FLOW_THAT_RETURNS FLOW_THAT_RECEIVES`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::future::{Future, pending, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use maxhost_sandbox::{
    CallResult, FlowComponent, FlowHost, GuestLogLevel, GuestParty, Invocation, Outcome, PeerFlowInfo, RunParameters,
    Sandbox, SandboxOptions, Tick,
};

const PARKED: usize = 5_000;

struct Host {
    /// Counts receives; they are never answered.
    parked: Option<Arc<AtomicUsize>>,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().unwrap_or_else(|| "target/guests/wasm32-wasip2/release/sandbox_test_guest.wasm".into());
    let short = arguments.next().unwrap_or_else(|| "echo".into());
    let waiting = arguments.next().unwrap_or_else(|| "statics".into());
    let wasm = std::fs::read(&file).expect("the guest's component");
    let folder = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::new(SandboxOptions::new(folder.path())).unwrap();
    let start = Instant::now();
    let component = sandbox.load(&wasm).unwrap();
    println!("{file}: {} KB, first load {:.1} ms, {} slots", wasm.len() / 1000, millis(start), sandbox.slots());
    let start = Instant::now();
    let again = Sandbox::new(SandboxOptions::new(folder.path())).unwrap();
    let made = millis(start);
    let start = Instant::now();
    again.load(&wasm).unwrap();
    println!("a second sandbox: made in {made:.1} ms, loads from disk in {:.2} ms", millis(start));
    drop(again);

    for threads in [1, 2, 1, 2] {
        throughput(&component, &short, threads);
    }
    for calls in [0_u32, 10, 100, 1000] {
        replay(&component, calls);
    }
    park(&component, &waiting);
    throughput(&component, &short, 1);
}

fn parameters() -> RunParameters {
    RunParameters { seed: [1; 32], memory_limit: 64 << 20, cpu: Duration::from_secs(2) }
}

fn invocation(flow: &str, arguments: &[u8]) -> Invocation {
    Invocation { flow: flow.to_owned(), arguments: arguments.to_vec(), session: None }
}

/// Runs as fast as it goes on each of some threads, for a second.
fn throughput(component: &Arc<FlowComponent>, flow: &str, threads: usize) {
    let mut times = std::thread::scope(|scope| {
        let work = || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let mut times = Vec::new();
                let begin = Instant::now();
                while begin.elapsed() < Duration::from_secs(1) {
                    let start = Instant::now();
                    let end = component.run(Host { parked: None }, invocation(flow, b"abc"), &parameters()).await;
                    times.push(start.elapsed());
                    assert!(matches!(end.outcome, Outcome::Returned(_)), "{:?}", end.outcome);
                }
                times
            })
        };
        let threads = (0..threads).map(|_| scope.spawn(work)).collect::<Vec<_>>();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    times.sort_unstable();
    let micros = |at: usize| times[at].as_nanos() as f64 / 1000.0;
    println!(
        "{threads} thread(s): {} runs/s, min {:.1} us, median {:.1} us, p99 {:.1} us",
        times.len(),
        micros(0),
        micros(times.len() / 2),
        micros(times.len() * 99 / 100)
    );
}

/// A run whose calls are all answered at once, as on replay. Needs the flow `calls` of the test guest.
fn replay(component: &Arc<FlowComponent>, calls: u32) {
    if !component.descriptor.flows.iter().any(|flow| flow.name == "calls") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut times = runtime.block_on(async {
        let mut times = Vec::new();
        for _ in 0..200 {
            let start = Instant::now();
            let call = invocation("calls", &calls.to_le_bytes());
            let end = component.run(Host { parked: None }, call, &parameters()).await;
            times.push(start.elapsed());
            assert!(matches!(end.outcome, Outcome::Returned(_)), "{:?}", end.outcome);
        }
        times
    });
    times.sort_unstable();
    println!("{calls} answered calls: median {:.1} us", times[times.len() / 2].as_nanos() as f64 / 1000.0);
}

/// Memory of runs that wait.
fn park(component: &Arc<FlowComponent>, flow: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let parked = Arc::new(AtomicUsize::new(0));
    let before = resident();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..PARKED {
        let component = Arc::clone(component);
        let host = Host { parked: Some(Arc::clone(&parked)) };
        let flow = flow.to_owned();
        tasks.spawn_on(
            async move { component.run(host, invocation(&flow, b"abc"), &parameters()).await },
            runtime.handle(),
        );
    }
    while parked.load(Ordering::SeqCst) < PARKED {
        std::thread::sleep(Duration::from_millis(10));
    }
    let each = (resident() - before) as f64 / PARKED as f64;
    let start = Instant::now();
    runtime.block_on(tasks.shutdown());
    let gone = start.elapsed().as_micros() as f64 / PARKED as f64;
    println!("{PARKED} waiting runs: {each:.1} KiB each; dropped in {gone:.1} us each");
}

/// Resident memory of this process, KiB.
fn resident() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn millis(start: Instant) -> f64 {
    start.elapsed().as_micros() as f64 / 1000.0
}

impl FlowHost for Host {
    fn our_identity(&mut self) -> GuestParty {
        GuestParty { name: String::new(), owning_key: Vec::new() }
    }

    fn flow_id(&mut self) -> String {
        String::new()
    }

    fn party(&mut self, _name: String) -> impl Future<Output = CallResult<Option<GuestParty>>> + Send {
        ready(Ok(None))
    }

    fn parties(&mut self, _query: String, _exact: bool) -> impl Future<Output = CallResult<Vec<GuestParty>>> + Send {
        ready(Ok(Vec::new()))
    }

    fn open_session(&mut self, _protocol: String, _party: String) -> impl Future<Output = CallResult<u32>> + Send {
        ready(Ok(0))
    }

    fn counterparty(&mut self, _session: u32) -> CallResult<GuestParty> {
        Ok(self.our_identity())
    }

    fn send(&mut self, _session: u32, _payload: Vec<u8>) -> impl Future<Output = CallResult<()>> + Send {
        ready(Ok(()))
    }

    async fn receive(&mut self, _session: u32) -> CallResult<Vec<u8>> {
        if let Some(parked) = &self.parked {
            parked.fetch_add(1, Ordering::SeqCst);
        }
        pending().await
    }

    async fn receive_or_end(&mut self, session: u32) -> CallResult<Option<Vec<u8>>> {
        self.receive(session).await.map(Some)
    }

    fn send_and_receive(
        &mut self,
        _session: u32,
        payload: Vec<u8>,
    ) -> impl Future<Output = CallResult<Vec<u8>>> + Send {
        ready(Ok(payload))
    }

    fn send_all(&mut self, _messages: Vec<(u32, Vec<u8>)>) -> impl Future<Output = CallResult<()>> + Send {
        ready(Ok(()))
    }

    fn receive_all(&mut self, _sessions: Vec<u32>) -> impl Future<Output = CallResult<Vec<Vec<u8>>>> + Send {
        ready(Ok(Vec::new()))
    }

    fn wait_any(
        &mut self,
        _sessions: Vec<u32>,
        _deadline: Option<u64>,
    ) -> impl Future<Output = CallResult<Option<u32>>> + Send {
        ready(Ok(None))
    }

    fn close(&mut self, _sessions: Vec<u32>) -> impl Future<Output = CallResult<()>> + Send {
        ready(Ok(()))
    }

    fn counterparty_flow_info(&mut self, _session: u32) -> impl Future<Output = CallResult<PeerFlowInfo>> + Send {
        ready(Ok(PeerFlowInfo { version: 1, app: String::new() }))
    }

    fn sleep(&mut self, _milliseconds: u64) -> impl Future<Output = CallResult<()>> + Send {
        ready(Ok(()))
    }

    fn now(&mut self) -> u64 {
        0
    }

    fn random(&mut self, length: u32) -> CallResult<Vec<u8>> {
        Ok(vec![0; length as usize])
    }

    fn log(&mut self, _level: GuestLogLevel, _message: String) -> CallResult<()> {
        Ok(())
    }

    fn progress(&mut self, _label: String) -> impl Future<Output = CallResult<()>> + Send {
        ready(Ok(()))
    }

    fn memory(&mut self, _bytes: u64) -> impl Future<Output = CallResult<()>> + Send {
        ready(Ok(()))
    }

    fn take_waited(&mut self) -> bool {
        true
    }

    fn tick(&mut self) -> Tick {
        Tick::Continue
    }
}

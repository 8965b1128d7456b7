//! The test guest, a sandbox over it, and a host that answers from a script.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use maxhost_model::{ErrorKind, FlowError};
use maxhost_sandbox::{
    CallError, CallResult, FlowComponent, FlowHost, GuestLogLevel, GuestParty, Invocation, Outcome, PeerFlowInfo,
    RunEnd, RunParameters, Sandbox, SandboxOptions, Tick, Trap,
};
use tokio::sync::{mpsc, oneshot};

/// No wait in a test is longer.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The guest's bytes; built when it is not up to date.
pub fn guest() -> &'static [u8] {
    static GUEST: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest");
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guests");
        std::fs::create_dir_all(&target).unwrap();
        // Held until the process ends: other test processes read the file only after it is whole.
        let lock = File::create(target.join("sandbox-test-guest.lock")).unwrap();
        lock.lock().unwrap();
        let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["build", "--release", "--quiet", "--target", "wasm32-wasip2", "--manifest-path"])
            .arg(source.join("Cargo.toml"))
            .env("CARGO_TARGET_DIR", &target)
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .status()
            .unwrap();
        assert!(status.success(), "the test guest does not compile");
        let bytes = std::fs::read(target.join("wasm32-wasip2/release/sandbox_test_guest.wasm")).unwrap();
        lock.unlock().unwrap();
        bytes
    });
    &GUEST
}

/// Options for tests: few slots, short ticks.
pub fn options(cache_dir: impl Into<PathBuf>) -> SandboxOptions {
    SandboxOptions { max_instances: 64, tick: Duration::from_millis(2), ..SandboxOptions::new(cache_dir) }
}

/// One sandbox for all tests that do not need their own.
pub fn sandbox() -> &'static Sandbox {
    static SANDBOX: LazyLock<(Sandbox, tempfile::TempDir)> = LazyLock::new(|| {
        let folder = tempfile::tempdir().unwrap();
        (Sandbox::new(options(folder.path())).unwrap(), folder)
    });
    &SANDBOX.0
}

pub fn component() -> Arc<FlowComponent> {
    sandbox().load(guest()).unwrap()
}

pub fn parameters() -> RunParameters {
    RunParameters { seed: [7; 32], memory_limit: 32 << 20, cpu: Duration::from_secs(10) }
}

pub fn invocation(flow: &str, arguments: &[u8]) -> Invocation {
    Invocation { flow: flow.to_owned(), arguments: arguments.to_vec(), session: None }
}

/// What a run did to its host.
#[derive(Debug, Default)]
pub struct Seen {
    pub log: Vec<(GuestLogLevel, String)>,
    pub progress: Vec<String>,
    pub memory: u64,
    pub slept: Vec<u64>,
    pub sent: Vec<Vec<u8>>,
    pub closed: Vec<u32>,
}

/// What a peer does next: a message, or its end.
pub type Event = Option<Vec<u8>>;

pub struct TestHost {
    pub seen: Arc<Mutex<Seen>>,
    pub inbox: mpsc::UnboundedReceiver<Event>,
    /// Set while the guest waits in a receive.
    pub waiting: Arc<AtomicUsize>,
    pub stop_on_tick: Arc<AtomicBool>,
    pub log_lines: usize,
    pub clock: u64,
    /// Told when the host is dropped.
    pub _alive: Option<oneshot::Sender<()>>,
}

/// The test's side of a host.
pub struct Control {
    pub seen: Arc<Mutex<Seen>>,
    pub peer: mpsc::UnboundedSender<Event>,
    pub waiting: Arc<AtomicUsize>,
    pub stop_on_tick: Arc<AtomicBool>,
    pub gone: oneshot::Receiver<()>,
}

pub fn host() -> (TestHost, Control) {
    let (peer, inbox) = mpsc::unbounded_channel();
    let (alive, gone) = oneshot::channel();
    let host = TestHost {
        seen: Arc::default(),
        inbox,
        waiting: Arc::default(),
        stop_on_tick: Arc::default(),
        log_lines: 1000,
        clock: 1_700_000_000_123_456_789,
        _alive: Some(alive),
    };
    let control = Control {
        seen: Arc::clone(&host.seen),
        peer,
        waiting: Arc::clone(&host.waiting),
        stop_on_tick: Arc::clone(&host.stop_on_tick),
        gone,
    };
    (host, control)
}

/// Runs a flow that needs no peer.
pub async fn run(flow: &str, arguments: &[u8]) -> (RunEnd<TestHost>, Control) {
    run_with(flow, arguments, &parameters()).await
}

pub async fn run_with(flow: &str, arguments: &[u8], parameters: &RunParameters) -> (RunEnd<TestHost>, Control) {
    let (host, control) = host();
    (component().run(host, invocation(flow, arguments), parameters).await, control)
}

pub fn returned(end: RunEnd<TestHost>) -> Vec<u8> {
    match end.outcome {
        Outcome::Returned(result) => result,
        other => panic!("did not return: {other:?}"),
    }
}

pub fn trap(end: RunEnd<TestHost>) -> Trap {
    match end.outcome {
        Outcome::Trapped(trap) => trap,
        other => panic!("no trap: {other:?}"),
    }
}

/// Waits, without blocking the runtime, until something holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < DEADLINE, "waited too long for: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

impl TestHost {
    async fn next(&mut self) -> CallResult<Event> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let event = self.inbox.recv().await;
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        // The test has let go of the peer's side: the host stops the run.
        event.ok_or(CallError::Stop)
    }

    async fn message(&mut self) -> CallResult<Vec<u8>> {
        self.next().await?.ok_or_else(|| FlowError::new(ErrorKind::UnexpectedEnd, "the peer is gone").into())
    }
}

impl FlowHost for TestHost {
    fn our_identity(&mut self) -> GuestParty {
        GuestParty { name: "O=Alice, L=London, C=GB".to_owned(), owning_key: vec![1, 2] }
    }

    fn flow_id(&mut self) -> String {
        "flow-1".to_owned()
    }

    async fn party(&mut self, _name: String) -> CallResult<Option<GuestParty>> {
        Ok(None)
    }

    async fn parties(&mut self, _query: String, _exact: bool) -> CallResult<Vec<GuestParty>> {
        Ok(Vec::new())
    }

    async fn open_session(&mut self, _protocol: String, _party: String) -> CallResult<u32> {
        Ok(5)
    }

    fn counterparty(&mut self, _session: u32) -> CallResult<GuestParty> {
        Err(FlowError::new(ErrorKind::IllegalArgument, "no such session").into())
    }

    async fn send(&mut self, _session: u32, payload: Vec<u8>) -> CallResult<()> {
        self.seen.lock().unwrap().sent.push(payload);
        Ok(())
    }

    async fn receive(&mut self, _session: u32) -> CallResult<Vec<u8>> {
        self.message().await
    }

    async fn receive_or_end(&mut self, _session: u32) -> CallResult<Option<Vec<u8>>> {
        self.next().await
    }

    async fn send_and_receive(&mut self, _session: u32, payload: Vec<u8>) -> CallResult<Vec<u8>> {
        self.seen.lock().unwrap().sent.push(payload);
        self.message().await
    }

    async fn send_all(&mut self, _messages: Vec<(u32, Vec<u8>)>) -> CallResult<()> {
        Ok(())
    }

    async fn receive_all(&mut self, _sessions: Vec<u32>) -> CallResult<Vec<Vec<u8>>> {
        Ok(Vec::new())
    }

    async fn wait_any(&mut self, _sessions: Vec<u32>, _deadline: Option<u64>) -> CallResult<Option<u32>> {
        Ok(None)
    }

    async fn close(&mut self, sessions: Vec<u32>) -> CallResult<()> {
        self.seen.lock().unwrap().closed.extend(sessions);
        Ok(())
    }

    async fn counterparty_flow_info(&mut self, _session: u32) -> CallResult<PeerFlowInfo> {
        Ok(PeerFlowInfo { version: 1, app: "test".to_owned() })
    }

    async fn sleep(&mut self, milliseconds: u64) -> CallResult<()> {
        self.clock += milliseconds * 1_000_000;
        self.seen.lock().unwrap().slept.push(milliseconds);
        Ok(())
    }

    fn now(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn random(&mut self, length: u32) -> CallResult<Vec<u8>> {
        Ok((0..length).map(|index| index as u8).collect())
    }

    fn log(&mut self, level: GuestLogLevel, message: String) -> CallResult<()> {
        let mut seen = self.seen.lock().unwrap();
        if seen.log.len() >= self.log_lines {
            return Err(FlowError::limit("log", "more lines than allowed").into());
        }
        seen.log.push((level, message));
        Ok(())
    }

    async fn progress(&mut self, label: String) -> CallResult<()> {
        self.seen.lock().unwrap().progress.push(label);
        Ok(())
    }

    async fn memory(&mut self, bytes: u64) -> CallResult<()> {
        self.seen.lock().unwrap().memory += bytes;
        Ok(())
    }

    fn take_waited(&mut self) -> bool {
        true
    }

    fn tick(&mut self) -> Tick {
        if self.stop_on_tick.load(Ordering::SeqCst) { Tick::Stop } else { Tick::Continue }
    }
}

//! One flow run seen from its guest: each call goes to the journal's machine; a call that blocks is first written down,
//! then waited for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use maxhost_journal::{Answer, Call, Delivery, Divergence, Machine, Step};
use maxhost_model::{Code, ErrorId, ErrorKind, FlowError, Problem, X500Name};
use maxhost_sandbox::{CallError, CallResult, FlowHost, GuestLogLevel, GuestParty, PeerFlowInfo, Tick};
use maxhost_store::{Announcement, AttemptToken, Op};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use tokio::sync::oneshot;

use crate::apps::FlowDef;
use crate::core::{Core, Opened, now, now_millis, random_bytes};
use crate::options::Eviction;
use crate::placement::BusyTimer;
use crate::running_flow::{RunningFlow, Signal, instant_of};
use crate::speculation::Runner;
use crate::unit::Unit;

/// Random bytes a guest may ask for at once.
const MAX_RANDOM: u32 = 65_536;
/// Characters of one log line.
const MAX_LOG_LINE: usize = 8 * 1024;

/// Why a run ended before its guest did.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The instance is given up; the journal has everything.
    Evicted,
    /// By an operator.
    Killed,
    /// The replay did not match.
    Diverged(Divergence),
    /// A limit: the flow ends with this error.
    Over(FlowError),
    /// A commit failed.
    CommitFailed,
    /// The host cannot do what the flow needs.
    Trouble(Problem),
}

/// The first unit of a flow: what starts it, and who waits for that to be durable.
pub(crate) struct StartUnit {
    pub ops: Vec<Op>,
    pub reply: Option<oneshot::Sender<Result<(), StartFailure>>>,
    pub coming: Announcement,
}

/// Why a flow was not started.
#[derive(Debug)]
pub(crate) enum StartFailure {
    /// Another flow has this client id.
    ClientIdTaken(maxhost_model::FlowRow),
    /// Anything else.
    Problem(Problem),
}

/// The host's side of a run.
pub(crate) struct FlowCalls {
    pub core: Arc<Core>,
    pub opened: Arc<Opened>,
    pub port: Arc<RunningFlow>,
    pub def: Arc<FlowDef>,
    /// Boxed, because a run is handed from one part of an activation to the next, and the activation has room for it in each.
    pub machine: Box<Machine>,
    pub start: Option<StartUnit>,
    pub stop: Option<Stop>,
    /// Only compares with the journal: nothing new may be asked.
    pub shadow: bool,
    /// Attempts of other flows whose messages were read and may not be written yet.
    depends_on: SmallVec<[AttemptToken; 1]>,
    /// While the guest works it is likely to have something to write soon.
    coming: Option<Announcement>,
    pub stretch: BusyTimer,
    log_lines: u32,
    log_bytes: u64,
    suspensions: u64,
}

/// A party as it is kept in the journal.
#[derive(Serialize, Deserialize)]
struct NotedParty {
    name: String,
    key: Vec<u8>,
}

impl FlowCalls {
    pub fn new(
        core: Arc<Core>,
        opened: Arc<Opened>,
        port: Arc<RunningFlow>,
        def: Arc<FlowDef>,
        machine: Machine,
        start: Option<StartUnit>,
    ) -> FlowCalls {
        FlowCalls {
            core,
            opened,
            port,
            def,
            machine: Box::new(machine),
            start,
            stop: None,
            shadow: false,
            depends_on: SmallVec::new(),
            coming: None,
            stretch: BusyTimer::new(),
            log_lines: 0,
            log_bytes: 0,
            suspensions: 0,
        }
    }

    fn stop<T>(&mut self, stop: Stop) -> CallResult<T> {
        self.stop.get_or_insert(stop);
        Err(CallError::Stop)
    }

    /// Takes a call to its answer.
    async fn ask(&mut self, call: Call) -> CallResult<Answer> {
        if self.shadow && !self.machine.is_replaying() {
            return self.stop(Stop::Diverged(Divergence {
                position: self.machine.entries(),
                expected: "the end of the flow".to_owned(),
                actual: format!("{call:?}").chars().take(200).collect(),
            }));
        }
        let mut step = match self.machine.begin(call, now()) {
            Ok(step) => step,
            Err(divergence) => return self.stop(Stop::Diverged(divergence)),
        };
        loop {
            match step {
                Step::Done(Ok(answer)) => return Ok(answer),
                Step::Done(Err(error)) => {
                    self.log_received(&error);
                    return Err(CallError::from(error));
                }
                Step::Over(error) => return self.stop(Stop::Over(error)),
                Step::Blocked => {
                    self.suspend().await?;
                    step = self.machine.resume(now());
                }
            }
        }
    }

    /// A peer's error is in the logs of both sides under its number (spec 1.4), even if the flow catches it.
    fn log_received(&self, error: &FlowError) {
        if let (Some(peer), Some(error_id)) = (&error.peer, error.error_id)
            && !self.shadow
            && !self.machine.is_catching_up()
        {
            let (identity, flow, id) = (&*self.opened.entry.text, &*self.def.name, self.port.id());
            tracing::info!(identity, flow, flow_id = %id, peer, %error_id, "a peer's error was received");
        }
    }

    /// A call that never blocks, but may have filled the buffer.
    async fn ask_local(&mut self, call: Call) -> CallResult<Answer> {
        let answer = self.ask(call).await?;
        if self.machine.is_flush_due() {
            self.flush();
        }
        Ok(answer)
    }

    /// Writes down what is new. Nothing waits for it: the next unit of this run comes after it, or not at all.
    pub fn flush(&mut self) {
        if self.shadow {
            return;
        }
        let mut unit = Unit::default();
        let reply = self.take_start(&mut unit);
        let flush = self.machine.flush(now());
        unit.flush(&self.core, self.port.row, flush);
        if unit.is_empty() {
            return;
        }
        self.build_on(&mut unit);
        unit.submit_for(&self.core, &self.opened, &self.port, move |result| answer_start(reply, result));
    }

    /// Moves the flow's start into a unit, if it is not written yet.
    pub fn take_start(&mut self, unit: &mut Unit) -> Option<oneshot::Sender<Result<(), StartFailure>>> {
        let start = self.start.take()?;
        start.ops.into_iter().for_each(|op| unit.op(op));
        self.coming = Some(start.coming);
        start.reply
    }

    /// The unit is written only if what the run has read is.
    pub fn build_on(&mut self, unit: &mut Unit) {
        unit.depends_on(std::mem::take(&mut self.depends_on));
    }

    /// Takes in what has arrived. True if there was something.
    fn absorb(&mut self) -> bool {
        let mut arrivals = self.port.take();
        arrivals.retain(|arrival| !arrival.runner.as_ref().is_some_and(Runner::is_void));
        let any = !arrivals.is_empty();
        if any {
            // Before what the arrivals announced is dropped with them.
            self.coming = Some(self.core.store.announce());
        }
        for arrival in arrivals {
            if let Some(runner) = arrival.runner.filter(|runner| !runner.speculation.is_written()) {
                self.depends_on.push(runner.sender);
            }
            match self.machine.deliver(arrival.session, arrival.seq, &arrival.batch) {
                Delivery::Taken | Delivery::Duplicate => {}
                Delivery::UnknownSession => {
                    tracing::warn!(flow_id = %self.port.id(), session = arrival.session, "message for a session that the flow does not have");
                }
                Delivery::ForeignSender => {
                    tracing::warn!(flow_id = %self.port.id(), from = arrival.batch.from, "message of a party that is not the session's counterparty");
                }
            }
        }
        any
    }

    /// The open call has no answer yet: returns when it is worth looking again.
    pub async fn suspend(&mut self) -> CallResult<()> {
        self.check_signals()?;
        // Run first, commit once: what is there already is consumed before anything is written.
        if self.absorb() {
            return Ok(());
        }
        let back = self.machine.is_catching_up();
        self.flush();
        self.suspensions += 1;
        let until = self.machine.wait_until();
        // A flow that came back to a wait that is over must go on: evicted, it would come back to it for ever.
        let over = back && until.is_some_and(|until| until <= now_millis());
        if !over && self.evicts_now() {
            return self.stop(Stop::Evicted);
        }
        self.coming = None;
        self.stretch.end(&self.def.habit, &self.port);
        let result = self.linger(until).await;
        self.stretch.begin();
        self.port.show_waiting(None);
        result
    }

    async fn linger(&mut self, until: Option<u64>) -> CallResult<()> {
        let millis = now_millis();
        if until.is_some_and(|until| until <= millis) {
            return Ok(());
        }
        if let Some(wait) = self.machine.wait() {
            self.port.show_waiting(Some((wait, millis)));
        }
        let due = until.map(|until| instant_of(until, millis));
        let evict_at = match self.core.options.eviction {
            Eviction::AfterLinger(linger) => Some(Instant::now() + linger),
            Eviction::Never | Eviction::EveryWait | Eviction::Random(_) => None,
        };
        loop {
            self.check_signals()?;
            if self.absorb() {
                return Ok(());
            }
            let now = Instant::now();
            if due.is_some_and(|due| due <= now) {
                return Ok(());
            }
            if evict_at.is_some_and(|at| at <= now) || self.core.slots.is_scarce() {
                return self.stop(Stop::Evicted);
            }
            let next = match (due, evict_at) {
                (Some(due), Some(evict)) => Some(due.min(evict)),
                (due, evict) => due.or(evict),
            };
            let timer = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.port.wake() => {}
                () = timer => {}
                () = self.core.slots.wanted() => return self.stop(Stop::Evicted),
            }
        }
    }

    fn check_signals(&mut self) -> CallResult<()> {
        if !self.port.has_signal() {
            return Ok(());
        }
        if self.port.is_signalled(Signal::Failed) {
            return self.stop(Stop::CommitFailed);
        }
        if self.port.is_signalled(Signal::Kill) {
            return self.stop(Stop::Killed);
        }
        if self.port.is_signalled(Signal::Evict) || self.port.is_signalled(Signal::Overflow) {
            self.flush();
            return self.stop(Stop::Evicted);
        }
        Ok(())
    }

    fn evicts_now(&self) -> bool {
        match self.core.options.eviction {
            Eviction::EveryWait => true,
            Eviction::Random(seed) => {
                let mut hash = blake3::Hasher::new();
                hash.update(&seed.to_be_bytes()).update(&self.port.row.0.to_be_bytes());
                hash.update(&self.suspensions.to_be_bytes()).update(&self.machine.entries().to_be_bytes());
                hash.finalize().as_bytes()[0] & 1 == 1
            }
            Eviction::AfterLinger(_) | Eviction::Never => false,
        }
    }

    /// Asks the host something whose answer is then part of the journal.
    fn note<T: Serialize + for<'de> Deserialize<'de>>(
        &mut self,
        question: &str,
        answer: impl FnOnce(&Core) -> Result<T, Problem>,
    ) -> CallResult<T> {
        let core = self.core.clone();
        let answer = match self.machine.is_replaying() {
            true => None,
            false if self.shadow => {
                return self.stop(Stop::Diverged(Divergence {
                    position: self.machine.entries(),
                    expected: "the end of the flow".to_owned(),
                    actual: format!("ask {question}"),
                }));
            }
            false => match answer(&core) {
                Ok(answer) => Some(answer),
                Err(problem) => return self.stop(Stop::Trouble(problem)),
            },
        };
        let mut encoded = Vec::new();
        if let Some(answer) = answer
            && let Err(error) = ciborium::into_writer(&answer, &mut encoded)
        {
            return self.stop(Stop::Trouble(Problem::new(Code::Internal, error.to_string())));
        }
        if let Some(error) = self.machine.exceeded() {
            return self.stop(Stop::Over(error));
        }
        let noted = self.machine.note(question, || encoded.into());
        if self.machine.is_flush_due() {
            self.flush();
        }
        match noted {
            Err(divergence) => self.stop(Stop::Diverged(divergence)),
            Ok(bytes) => match ciborium::from_reader(&bytes[..]) {
                Ok(answer) => Ok(answer),
                Err(error) => self.stop(Stop::Trouble(Problem::new(Code::JournalCorrupt, error.to_string()))),
            },
        }
    }

    /// Whether a session may be opened, and under which full name.
    fn check_session(&self, protocol: &str, party: &str) -> Result<X500Name, FlowError> {
        let initiating =
            self.def.component.descriptor.flows.iter().any(|flow| flow.initiating && flow.name == protocol);
        if !initiating {
            return Err(FlowError::new(
                ErrorKind::IllegalState,
                format!("'{protocol}' is no initiating flow of this CorDapp, so no session can be opened in its name"),
            ));
        }
        let illegal = |text: String| FlowError::new(ErrorKind::IllegalArgument, text);
        let name = X500Name::parse(party).map_err(|error| illegal(format!("'{party}' is no party: {error}")))?;
        match self.core.party(&name) {
            Ok(Some(_)) => Ok(name),
            Ok(None) => Err(illegal(format!("there is no party {name} on this network"))),
            Err(problem) => Err(illegal(format!("party {name} cannot be used: {}", problem.message))),
        }
    }
}

/// Tells the one who started the flow that it is durable, or why it is not.
pub(crate) fn answer_start(
    reply: Option<oneshot::Sender<Result<(), StartFailure>>>,
    result: Result<(), &maxhost_store::StoreError>,
) {
    let Some(reply) = reply else { return };
    // Nobody waits any more: fine, the flow runs.
    let _ = reply.send(result.map_err(|error| match error {
        maxhost_store::StoreError::ClientIdTaken { flow } => StartFailure::ClientIdTaken(*flow),
        error => StartFailure::Problem(Problem::from(error.clone())),
    }));
}

/// A random error id.
pub(crate) fn new_error_id() -> ErrorId {
    ErrorId(random_bytes().map_or(0, u64::from_be_bytes))
}

fn guest_party(party: NotedParty) -> GuestParty {
    GuestParty { name: party.name, owning_key: party.key }
}

impl FlowHost for FlowCalls {
    fn our_identity(&mut self) -> GuestParty {
        let party = self.opened.keys.party();
        GuestParty { name: self.opened.entry.text.to_string(), owning_key: party.owning_key.spki().to_vec() }
    }

    fn flow_id(&mut self) -> String {
        self.port.id().to_string()
    }

    async fn party(&mut self, name: String) -> CallResult<Option<GuestParty>> {
        let question = format!("party {name}");
        let found: Option<NotedParty> = self.note(&question, |core| {
            let Ok(name) = X500Name::parse(&name) else { return Ok(None) };
            let party = core.party(&name)?;
            Ok(party.map(|party| NotedParty { name: name.to_string(), key: party.owning_key.spki().to_vec() }))
        })?;
        Ok(found.map(guest_party))
    }

    async fn parties(&mut self, query: String, exact: bool) -> CallResult<Vec<GuestParty>> {
        let question = format!("parties {exact} {query}");
        let found: Vec<NotedParty> = self.note(&question, |core| {
            let fits = |name: &X500Name| maxhost_model::name_query::has_component(name, &query, exact);
            let all = core.network.list().into_iter().filter(|(name, _)| fits(name));
            Ok(all.map(|(name, key)| NotedParty { name: name.to_string(), key: key.spki().to_vec() }).collect())
        })?;
        Ok(found.into_iter().map(guest_party).collect())
    }

    async fn open_session(&mut self, protocol: String, party: String) -> CallResult<u32> {
        let version = self.def.component.descriptor.flows.iter().find(|flow| flow.name == protocol);
        let version = version.map_or(0, |flow| flow.version);
        let full = format!("{}/{protocol}", self.def.component.descriptor.name);
        let canonical = X500Name::parse(&party).map_or_else(|_| party.clone(), |name| name.to_string());
        let refused = if self.machine.is_replaying() { None } else { self.check_session(&protocol, &party).err() };
        let call = match refused {
            Some(error) => Call::RefuseSession { party: canonical, error: Box::new(error) },
            None => Call::OpenSession { protocol: full, version, party: canonical },
        };
        match self.ask_local(call).await? {
            Answer::Session(session) => Ok(session),
            other => self.misanswered(&other),
        }
    }

    fn counterparty(&mut self, session: u32) -> CallResult<GuestParty> {
        let Some(name) = self.machine.counterparty(session).cloned() else {
            let text = format!("there is no session {session}");
            return Err(FlowError::new(ErrorKind::IllegalArgument, text).into());
        };
        let question = format!("counterparty {name}");
        let party: NotedParty = self.note(&question, |core| {
            let key = X500Name::parse(&name).ok().and_then(|name| core.party(&name).ok().flatten());
            let key = key.map(|party| party.owning_key.spki().to_vec()).unwrap_or_default();
            Ok(NotedParty { name: name.to_string(), key })
        })?;
        Ok(guest_party(party))
    }

    async fn send(&mut self, session: u32, payload: Vec<u8>) -> CallResult<()> {
        self.ask_local(Call::Send(vec![(session, Bytes::from(payload))])).await.map(|_| ())
    }

    async fn receive(&mut self, session: u32) -> CallResult<Vec<u8>> {
        match self.ask(Call::Receive { session, or_end: false }).await? {
            Answer::Message(payload) => Ok(payload.into()),
            other => self.misanswered(&other),
        }
    }

    async fn receive_or_end(&mut self, session: u32) -> CallResult<Option<Vec<u8>>> {
        match self.ask(Call::Receive { session, or_end: true }).await? {
            Answer::Message(payload) => Ok(Some(payload.into())),
            Answer::Ended => Ok(None),
            other => self.misanswered(&other),
        }
    }

    async fn send_and_receive(&mut self, session: u32, payload: Vec<u8>) -> CallResult<Vec<u8>> {
        match self.ask(Call::SendAndReceive { session, payload: payload.into() }).await? {
            Answer::Message(payload) => Ok(payload.into()),
            other => self.misanswered(&other),
        }
    }

    async fn send_all(&mut self, messages: Vec<(u32, Vec<u8>)>) -> CallResult<()> {
        let sends = messages.into_iter().map(|(session, payload)| (session, payload.into())).collect();
        self.ask_local(Call::Send(sends)).await.map(|_| ())
    }

    async fn receive_all(&mut self, sessions: Vec<u32>) -> CallResult<Vec<Vec<u8>>> {
        match self.ask(Call::ReceiveAll(sessions)).await? {
            Answer::Messages(messages) => Ok(messages.into_iter().map(Vec::from).collect()),
            other => self.misanswered(&other),
        }
    }

    async fn wait_any(&mut self, sessions: Vec<u32>, deadline: Option<u64>) -> CallResult<Option<u32>> {
        match self.ask(Call::WaitAny { sessions, deadline }).await? {
            Answer::Ready(session) => Ok(session),
            other => self.misanswered(&other),
        }
    }

    async fn close(&mut self, sessions: Vec<u32>) -> CallResult<()> {
        self.ask_local(Call::Close(sessions)).await.map(|_| ())
    }

    async fn counterparty_flow_info(&mut self, session: u32) -> CallResult<PeerFlowInfo> {
        match self.ask(Call::FlowInfo(session)).await? {
            Answer::FlowInfo { version, app } => Ok(PeerFlowInfo { version, app }),
            other => self.misanswered(&other),
        }
    }

    async fn sleep(&mut self, milliseconds: u64) -> CallResult<()> {
        self.ask(Call::Sleep(milliseconds)).await.map(|_| ())
    }

    fn now(&mut self) -> u64 {
        self.machine.now()
    }

    fn random(&mut self, length: u32) -> CallResult<Vec<u8>> {
        if length > MAX_RANDOM {
            let text = format!("{length} random bytes at once, at most {MAX_RANDOM} are given");
            return Err(FlowError::new(ErrorKind::IllegalArgument, text).into());
        }
        Ok(self.machine.random(length as usize))
    }

    fn log(&mut self, level: GuestLogLevel, message: String) -> CallResult<()> {
        self.log_lines += 1;
        self.log_bytes += message.len() as u64;
        let options = &self.core.options;
        if self.log_lines > options.log_lines || self.log_bytes > options.log_bytes {
            let text = format!(
                "the flow has logged {} lines and {} bytes; {} lines and {} bytes are allowed",
                self.log_lines, self.log_bytes, options.log_lines, options.log_bytes
            );
            return self.stop(Stop::Over(FlowError::limit("log", text)));
        }
        if self.shadow || self.machine.is_catching_up() {
            return Ok(());
        }
        let end = message.char_indices().nth(MAX_LOG_LINE).map_or(message.len(), |(end, _)| end);
        let (line, flow, id, identity) = (&message[..end], &*self.def.name, self.port.id(), &*self.opened.entry.text);
        match level {
            GuestLogLevel::Debug => tracing::debug!(target: "cordapp", identity, flow, flow_id = %id, "{line}"),
            GuestLogLevel::Info => tracing::info!(target: "cordapp", identity, flow, flow_id = %id, "{line}"),
            GuestLogLevel::Warn => tracing::warn!(target: "cordapp", identity, flow, flow_id = %id, "{line}"),
            GuestLogLevel::Error => tracing::error!(target: "cordapp", identity, flow, flow_id = %id, "{line}"),
        }
        Ok(())
    }

    fn progress(&mut self, label: String) {
        self.machine.progress(label);
    }

    fn tick(&mut self) -> Tick {
        self.stretch.computes(&self.def.habit, &self.port);
        if self.shadow {
            return Tick::Continue;
        }
        if self.port.is_signalled(Signal::Kill) {
            self.stop.get_or_insert(Stop::Killed);
            return Tick::Stop;
        }
        if self.port.is_signalled(Signal::Failed) {
            self.stop.get_or_insert(Stop::CommitFailed);
            return Tick::Stop;
        }
        // A guest that computes for long must not keep its starter waiting, nor its progress to itself.
        if self.start.is_some() || self.machine.is_dirty() {
            self.flush();
        }
        Tick::Continue
    }
}

impl FlowCalls {
    /// The machine answered a call with the answer to another: a defect of ours, which must not become the guest's.
    fn misanswered<T>(&mut self, answer: &Answer) -> CallResult<T> {
        let text = format!("the journal answered with {answer:?}").chars().take(200).collect::<String>();
        self.stop(Stop::Trouble(Problem::new(Code::Internal, text)))
    }
}

/// How long a flow waits before it is tried again after trouble that is not its own: doubles up to half a minute.
pub(crate) fn backoff(attempt: u32) -> Duration {
    Duration::from_millis(100u64.saturating_mul(1 << attempt.min(9))).min(Duration::from_secs(30))
}

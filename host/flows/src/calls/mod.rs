//! One flow run seen from its guest: each call goes to the journal's machine; a call that blocks is first written down,
//! then waited for. A family of calls has a file; here is what they share.

mod ledger;
mod log;
mod network;
mod services;
mod session;
mod suspend;
mod time;

use std::sync::Arc;

use bytes::Bytes;
use maxhost_journal::{Answer, Call, Divergence, Machine, StartRecord, Step};
use maxhost_model::FlowError;
use maxhost_sandbox::{
    CallError, CallResult, FlowHost, GuestLogLevel, GuestParty, LedgerAnswer, LedgerCall, PeerFlowInfo, Tick,
};
use maxhost_store::{AttemptToken, CommitHint, Op};
use smallvec::SmallVec;
use tokio::sync::oneshot;

pub(crate) use self::ledger::{Findings, Traced, Transactions, kind_of, read_query, run_native, to_settle, trace};
pub(crate) use self::services::CallServices;
use crate::base::trouble::Trouble;
use crate::flow::running_flow::RunningFlow;
use crate::guests::flow_code::FlowCode;
use crate::guests::memory::Grant;
use crate::guests::placement::BusyTimer;
use crate::registry::message::StartFailure;
use crate::registry::opened::Opened;

/// Why a run ended before its guest did.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The instance is given up; the journal has everything.
    Evicted,
    /// As evicted, because the guest gets no more memory now: it comes back when it can have so many bytes in all.
    Memory { wanted: u64 },
    /// By an operator.
    Killed,
    /// The replay did not match.
    Diverged(Divergence),
    /// A limit: the flow ends with this error.
    Over(FlowError),
    /// A commit failed.
    CommitFailed,
    /// The host cannot do what the flow needs.
    Trouble(Trouble),
}

/// The first unit of a flow: what starts it, and who waits for that to be durable.
pub(crate) struct StartUnit {
    pub ops: Vec<Op>,
    pub reply: Option<oneshot::Sender<Result<(), StartFailure>>>,
    pub commit_hint: CommitHint,
    /// Whose attempt the flow was started by, if that may not be written yet. The unit itself need not name it: it takes an
    /// initiation that is not there otherwise.
    pub builds_on: Option<AttemptToken>,
}

/// The host's side of a run.
pub(crate) struct FlowCalls {
    pub services: Arc<CallServices>,
    pub opened: Arc<Opened>,
    pub flow: Arc<RunningFlow>,
    pub code: FlowCode,
    /// Boxed, because a run is handed from one part of an activation to the next, and the activation has room for it in each.
    pub machine: Box<Machine>,
    pub start: Option<StartUnit>,
    pub stop: Option<Stop>,
    /// Only compares with the journal: nothing new may be asked.
    pub shadow: bool,
    /// What the guest's memory takes.
    pub memory: Grant,
    /// What the journal takes until the flow is where it was.
    pub journal_room: Option<Grant>,
    /// The identity's key when the flow started; flows of older releases did not note it.
    owning_key: Option<Bytes>,
    /// Attempts of other flows whose messages were read and may not be written yet.
    depends_on: SmallVec<[AttemptToken; 1]>,
    /// While the guest works it is likely to have something to write soon.
    commit_hint: Option<CommitHint>,
    pub busy: BusyTimer,
    logged: log::Logged,
    /// Handed to the committer since the run last waited for it, bytes.
    unwritten: usize,
    suspensions: u64,
    /// The guest has waited since it was last asked.
    waited: bool,
    /// The run has asked for something that no earlier run has.
    got_on: bool,
    /// The flow has a deadline among those of the host.
    has_deadline: bool,
    /// Changes of the ledger that are written with the entries that say so.
    pub ledger_ops: Vec<Op>,
    /// Whether changes of the ledger may not be in the database yet, where the next step would look for them.
    pub ledger_unwritten: bool,
    /// Claims that the flow has made so far, in the order of its program.
    pub claims: u32,
}

impl FlowCalls {
    pub fn new(
        services: Arc<CallServices>,
        opened: Arc<Opened>,
        flow: Arc<RunningFlow>,
        code: FlowCode,
        machine: Machine,
        record: &StartRecord,
        start: Option<StartUnit>,
    ) -> FlowCalls {
        let has_deadline = services.deadlines.has(flow.row);
        FlowCalls {
            memory: services.room.memory.grant(opened.entry.row, opened.limits.memory),
            journal_room: None,
            services,
            opened,
            flow,
            code,
            machine: Box::new(machine),
            stop: None,
            shadow: false,
            owning_key: record.owning_key.clone(),
            depends_on: start.as_ref().and_then(|start| start.builds_on.clone()).into_iter().collect(),
            start,
            commit_hint: None,
            busy: BusyTimer::new(),
            logged: log::Logged::default(),
            unwritten: 0,
            suspensions: 0,
            waited: false,
            got_on: false,
            has_deadline,
            ledger_ops: Vec::new(),
            ledger_unwritten: false,
            claims: 0,
        }
    }

    pub(crate) fn stop<T>(&mut self, stop: Stop) -> CallResult<T> {
        self.stop.get_or_insert(stop);
        Err(CallError::Stop)
    }

    /// Takes a call to its answer.
    pub(crate) async fn ask(&mut self, call: Call) -> CallResult<Answer> {
        let mut step = self.begin(call)?;
        loop {
            if let Some(answer) = self.answer_of(step)? {
                return Ok(answer);
            }
            self.suspend().await?;
            step = self.resume();
        }
    }

    /// Begins a call. A run may be put away at any.
    pub(crate) fn begin(&mut self, call: Call) -> CallResult<Step> {
        self.check_signals()?;
        if self.shadow && !self.machine.is_replaying() {
            return self.stop(Stop::Diverged(Divergence {
                position: self.machine.entries(),
                expected: "the end of the flow".to_owned(),
                actual: format!("{call:?}").chars().take(200).collect(),
            }));
        }
        // What an earlier run waited for counts as a wait of this one.
        let is_replayed = self.machine.is_replaying();
        self.waited |= is_replayed;
        let time = self.time();
        let step = match self.machine.begin(call, time) {
            Ok(step) => step,
            Err(divergence) => return self.stop(Stop::Diverged(divergence)),
        };
        self.got_on |= !is_replayed;
        if !is_replayed {
            self.journal_room = None;
        }
        Ok(step)
    }

    /// The answer to the open call, if it has one.
    pub(crate) fn answer_of(&mut self, step: Step) -> CallResult<Option<Answer>> {
        match step {
            Step::Done(Ok(answer)) => Ok(Some(answer)),
            Step::Done(Err(error)) => {
                self.log_received(&error);
                Err(CallError::from(error))
            }
            Step::Over(error) => self.stop(Stop::Over(error)),
            Step::Blocked => Ok(None),
        }
    }

    /// A peer's error is in the logs of both sides under its number (`docs/behaviour.md`, section 4), even if the flow
    /// catches it.
    fn log_received(&self, error: &FlowError) {
        if let (Some(peer), Some(error_id)) = (&error.peer, error.error_id)
            && !self.shadow
            && !self.machine.is_catching_up()
        {
            let (identity, flow, id) = (&*self.opened.entry.text, &**self.code.name(), self.flow.id());
            tracing::info!(identity, flow, flow_id = %id, peer, %error_id, "a peer's error was received");
        }
    }

    /// A call that never blocks, but may have filled the buffer.
    pub(crate) async fn ask_local(&mut self, call: Call) -> CallResult<Answer> {
        let answer = self.ask(call).await?;
        self.flush_if_due().await?;
        Ok(answer)
    }

    /// The machine answered a call with the answer to another: a defect of ours, which must not become the guest's.
    pub(crate) fn misanswered<T>(&mut self, answer: &Answer) -> CallResult<T> {
        let text = format!("the journal answered with {answer:?}").chars().take(200).collect::<String>();
        self.stop(Stop::Trouble(Trouble::defect(text)))
    }
}

impl FlowHost for FlowCalls {
    fn our_identity(&mut self) -> GuestParty {
        self.own_party()
    }

    fn flow_id(&mut self) -> String {
        self.flow.id().to_string()
    }

    async fn party(&mut self, name: String) -> CallResult<Option<GuestParty>> {
        let found = self.find_party(&name);
        self.keep_pace().await?;
        found
    }

    async fn parties(&mut self, query: String, exact: bool) -> CallResult<Vec<GuestParty>> {
        self.find_parties(query, exact).await
    }

    async fn open_session(&mut self, protocol: String, party: String) -> CallResult<u32> {
        self.open(protocol, party).await
    }

    fn counterparty(&mut self, session: u32) -> CallResult<GuestParty> {
        self.party_of_session(session)
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
        // What came before the call counts before its deadline does, also one that has passed.
        if deadline.is_some() && !self.machine.is_replaying() {
            self.absorb();
        }
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
        self.random_bytes(length)
    }

    fn log(&mut self, level: GuestLogLevel, message: String) -> CallResult<()> {
        self.log_line(level, message)
    }

    async fn progress(&mut self, label: String) -> CallResult<()> {
        self.label(label).await
    }

    async fn memory(&mut self, bytes: u64) -> CallResult<()> {
        self.grow(bytes).await
    }

    async fn ledger(&mut self, call: LedgerCall) -> CallResult<LedgerAnswer> {
        self.on_ledger(call).await
    }

    fn take_waited(&mut self) -> bool {
        std::mem::take(&mut self.waited)
    }

    fn tick(&mut self) -> Tick {
        self.busy.tick(self.code.profile(), &self.flow.place);
        if self.shadow {
            return Tick::Continue;
        }
        if self.flow.has_signal() && self.check_signals().is_err() {
            return Tick::Stop;
        }
        // A guest that computes for long must not keep its starter waiting, nor its progress to itself.
        if self.start.is_some() || self.machine.is_dirty() {
            self.flush();
        }
        Tick::Continue
    }
}

//! The host's side of a flow without a host: the journal's machine, and a peer that sends everything back.

use bytes::Bytes;
use maxhost_journal::wire::{Confirm, FrameKind};
use maxhost_journal::{Answer, Call, Frame, FrameBatch, Machine, Step};
use maxhost_model::SessionId;
use maxhost_sandbox::{CallError, CallResult, FlowHost, GuestLogLevel, GuestParty, PeerFlowInfo, Tick};
use prost::Message;

/// One flow of the benchmark: its journal's machine, and the peer that answers it.
pub struct Replayer {
    machine: Machine,
    /// Messages that the peer will still send back.
    echoes: u32,
    /// Frames that came from the peer.
    arrived: u32,
    /// Calls that were answered with a message.
    pub answered: u32,
    /// What was to be written.
    pub log: Vec<(u32, Bytes)>,
    /// What arrived.
    pub inbox: Vec<(SessionId, u32, Bytes)>,
}

/// The arguments of a ping.
pub fn party_cbor(peer: &str, count: u32) -> Vec<u8> {
    let mut bytes = vec![0xa2, 0x64];
    bytes.extend(b"peer");
    bytes.extend([0x78, peer.len() as u8]);
    bytes.extend(peer.as_bytes());
    bytes.push(0x65);
    bytes.extend(b"count\x1a");
    bytes.extend(count.to_be_bytes());
    bytes
}

impl Replayer {
    /// A peer that sends back so many messages, and then nothing more.
    pub fn new(machine: Machine, echoes: u32) -> Replayer {
        Replayer { machine, echoes, arrived: 0, answered: 0, log: Vec::new(), inbox: Vec::new() }
    }

    fn ask(&mut self, call: Call) -> CallResult<Answer> {
        let sent = match &call {
            Call::SendAndReceive { payload, .. } => payload.clone(),
            _ => Bytes::new(),
        };
        let mut step = self.machine.begin(call, 0).map_err(|_| CallError::Stop)?;
        loop {
            match step {
                Step::Done(Ok(answer)) => return Ok(answer),
                Step::Done(Err(error)) => return Err(CallError::from(error)),
                Step::Over(_) => return Err(CallError::Stop),
                Step::Blocked if self.echoes == 0 => return Err(CallError::Stop),
                Step::Blocked => {
                    self.log.extend(self.machine.flush(0).segment);
                    self.echo(&sent);
                    step = self.machine.resume(0);
                }
            }
        }
    }

    fn echo(&mut self, payload: &Bytes) {
        self.echoes -= 1;
        let confirm = Confirm { session: 1 << 20, version: 1, app: "ping-pong".to_owned(), token: 1 };
        let mut frames: Vec<Frame> = Vec::new();
        if self.arrived == 0 {
            frames.push(FrameKind::Confirm(confirm).into());
        }
        frames.push(Frame::data(payload.clone()));
        let batch = FrameBatch { from: "O=Bob, L=New York, C=US".to_owned(), frames, token: 1 };
        let seq = self.arrived;
        self.arrived += batch.frames.len() as u32;
        let _taken = self.machine.deliver(0, seq, &batch);
        self.inbox.push((SessionId(1 << 16), seq, batch.encode_to_vec().into()));
    }
}

impl FlowHost for Replayer {
    fn our_identity(&mut self) -> GuestParty {
        GuestParty { name: String::new(), owning_key: Vec::new() }
    }

    fn flow_id(&mut self) -> String {
        String::new()
    }

    async fn party(&mut self, _name: String) -> CallResult<Option<GuestParty>> {
        Ok(None)
    }

    async fn parties(&mut self, _query: String, _exact: bool) -> CallResult<Vec<GuestParty>> {
        Ok(Vec::new())
    }

    async fn open_session(&mut self, protocol: String, party: String) -> CallResult<u32> {
        let call = Call::OpenSession { protocol: format!("ping-pong/{protocol}"), version: 1, party };
        match self.ask(call)? {
            Answer::Session(session) => Ok(session),
            _ => Err(CallError::Stop),
        }
    }

    fn counterparty(&mut self, _session: u32) -> CallResult<GuestParty> {
        Err(CallError::Stop)
    }

    async fn send(&mut self, session: u32, payload: Vec<u8>) -> CallResult<()> {
        self.ask(Call::Send(vec![(session, payload.into())])).map(drop)
    }

    async fn receive(&mut self, _session: u32) -> CallResult<Vec<u8>> {
        Err(CallError::Stop)
    }

    async fn receive_or_end(&mut self, _session: u32) -> CallResult<Option<Vec<u8>>> {
        Err(CallError::Stop)
    }

    async fn send_and_receive(&mut self, session: u32, payload: Vec<u8>) -> CallResult<Vec<u8>> {
        match self.ask(Call::SendAndReceive { session, payload: payload.into() })? {
            Answer::Message(message) => {
                self.answered += 1;
                Ok(message.into())
            }
            _ => Err(CallError::Stop),
        }
    }

    async fn send_all(&mut self, _messages: Vec<(u32, Vec<u8>)>) -> CallResult<()> {
        Err(CallError::Stop)
    }

    async fn receive_all(&mut self, _sessions: Vec<u32>) -> CallResult<Vec<Vec<u8>>> {
        Err(CallError::Stop)
    }

    async fn wait_any(&mut self, _sessions: Vec<u32>, _deadline: Option<u64>) -> CallResult<Option<u32>> {
        Err(CallError::Stop)
    }

    async fn close(&mut self, sessions: Vec<u32>) -> CallResult<()> {
        self.ask(Call::Close(sessions)).map(drop)
    }

    async fn counterparty_flow_info(&mut self, _session: u32) -> CallResult<PeerFlowInfo> {
        Err(CallError::Stop)
    }

    async fn sleep(&mut self, milliseconds: u64) -> CallResult<()> {
        self.ask(Call::Sleep(milliseconds)).map(drop)
    }

    fn now(&mut self) -> u64 {
        self.machine.now()
    }

    fn random(&mut self, length: u32) -> CallResult<Vec<u8>> {
        Ok(self.machine.random(length as usize))
    }

    fn log(&mut self, _level: GuestLogLevel, _message: String) -> CallResult<()> {
        Ok(())
    }

    async fn progress(&mut self, label: String) -> CallResult<()> {
        self.machine.progress(label).map_err(CallError::from)
    }

    async fn memory(&mut self, _bytes: u64) -> CallResult<()> {
        Ok(())
    }

    fn take_waited(&mut self) -> bool {
        true
    }

    fn tick(&mut self) -> Tick {
        Tick::Continue
    }
}

//! The interface `maxhost:cordapp/flow`, call by call, handed to the run's host.

use crate::bindings::{flow, types};
use crate::host::{CallError, CallResult};
use crate::state::{EndOfRun, RunState};

/// What a call gives wasmtime: an outer error ends the run, an inner one is the guest's to handle.
pub(crate) type Reply<T> = wasmtime::Result<Result<T, types::Failure>>;

fn reply<T, U: From<T>>(answer: CallResult<T>) -> Reply<U> {
    match answer {
        Ok(value) => Ok(Ok(value.into())),
        Err(CallError::Failure(error)) => Ok(Err((*error).into())),
        Err(CallError::Stop) => Err(EndOfRun::Stop.into()),
    }
}

impl RunState {
    /// A call that may wait is over.
    pub(crate) fn note_wait(&mut self) {
        if self.has_waited() {
            self.cpu.waited();
        }
    }
}

/// For a call whose answer has no place for a failure.
fn settle<T>(answer: CallResult<T>) -> wasmtime::Result<T> {
    answer.map_err(|error| match error {
        CallError::Stop => EndOfRun::Stop.into(),
        CallError::Failure(error) => EndOfRun::Refused(error.message).into(),
    })
}

impl types::Host for RunState {}

impl flow::Host for RunState {
    fn our_identity(&mut self) -> wasmtime::Result<types::Party> {
        Ok(self.host("our-identity")?.our_identity().into())
    }

    fn flow_id(&mut self) -> wasmtime::Result<String> {
        Ok(self.host("flow-id")?.flow_id())
    }

    async fn find_party(&mut self, name: String) -> Reply<Option<types::Party>> {
        let answer = self.host("find-party")?.party(name).await;
        reply(answer.map(|party| party.map(types::Party::from)))
    }

    async fn find_parties(&mut self, query: String, exact: bool) -> Reply<Vec<types::Party>> {
        let answer = self.host("find-parties")?.parties(query, exact).await;
        reply(answer.map(|parties| parties.into_iter().map(types::Party::from).collect::<Vec<_>>()))
    }

    async fn open_session(&mut self, protocol: String, party: String) -> Reply<u32> {
        reply(self.host("open-session")?.open_session(protocol, party).await)
    }

    fn counterparty(&mut self, session: u32) -> Reply<types::Party> {
        reply(self.host("counterparty")?.counterparty(session))
    }

    async fn send(&mut self, session: u32, payload: Vec<u8>) -> Reply<()> {
        reply(self.host("send")?.send(session, payload).await)
    }

    async fn receive(&mut self, session: u32) -> Reply<Vec<u8>> {
        let answer = self.host("receive")?.receive(session).await;
        self.note_wait();
        reply(answer)
    }

    async fn receive_or_end(&mut self, session: u32) -> Reply<Option<Vec<u8>>> {
        let answer = self.host("receive-or-end")?.receive_or_end(session).await;
        self.note_wait();
        reply(answer)
    }

    async fn send_and_receive(&mut self, session: u32, payload: Vec<u8>) -> Reply<Vec<u8>> {
        let answer = self.host("send-and-receive")?.send_and_receive(session, payload).await;
        self.note_wait();
        reply(answer)
    }

    async fn send_all(&mut self, messages: Vec<types::Message>) -> Reply<()> {
        let messages = messages.into_iter().map(|message| (message.session, message.payload)).collect();
        reply(self.host("send-all")?.send_all(messages).await)
    }

    async fn receive_all(&mut self, sessions: Vec<u32>) -> Reply<Vec<Vec<u8>>> {
        let answer = self.host("receive-all")?.receive_all(sessions).await;
        self.note_wait();
        reply(answer)
    }

    async fn wait_any(&mut self, sessions: Vec<u32>, deadline: Option<u64>) -> Reply<Option<u32>> {
        let answer = self.host("wait-any")?.wait_any(sessions, deadline).await;
        self.note_wait();
        reply(answer)
    }

    async fn close(&mut self, sessions: Vec<u32>) -> Reply<()> {
        reply(self.host("close")?.close(sessions).await)
    }

    async fn counterparty_flow_info(&mut self, session: u32) -> Reply<types::FlowInfo> {
        let answer = self.host("counterparty-flow-info")?.counterparty_flow_info(session).await;
        self.note_wait();
        reply(answer)
    }

    async fn sleep(&mut self, milliseconds: u64) -> Reply<()> {
        let answer = self.host("sleep")?.sleep(milliseconds).await;
        self.note_wait();
        reply(answer)
    }

    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(self.host("now")?.now())
    }

    fn random(&mut self, length: u32) -> Reply<Vec<u8>> {
        reply(self.host("random")?.random(length))
    }

    fn log(&mut self, level: types::LogLevel, message: String) -> wasmtime::Result<()> {
        self.host("log")?;
        RunState::log(self, level.into(), message)
    }

    async fn progress(&mut self, label: String) -> wasmtime::Result<()> {
        settle(self.host("progress")?.progress(label).await)
    }
}

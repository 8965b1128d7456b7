//! [`FlowHost`] behind a pointer: the glue to wasmtime is compiled once, here, and not again for each host type.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;

use crate::host::{CallResult, FlowHost, GuestLogLevel, PeerFlowInfo, Tick};
use crate::ledger::{LedgerAnswer, LedgerCall};
use crate::party::GuestParty;

/// The answer to come.
pub(crate) type Answer<'a, T> = Pin<Box<dyn Future<Output = CallResult<T>> + Send + 'a>>;

/// The same methods as [`FlowHost`]; see there.
pub(crate) trait ErasedHost: Send {
    fn our_identity(&mut self) -> GuestParty;
    fn flow_id(&mut self) -> String;
    fn party(&mut self, name: String) -> Answer<'_, Option<GuestParty>>;
    fn parties(&mut self, query: String, exact: bool) -> Answer<'_, Vec<GuestParty>>;
    fn open_session(&mut self, protocol: String, party: String) -> Answer<'_, u32>;
    fn counterparty(&mut self, session: u32) -> CallResult<GuestParty>;
    fn send(&mut self, session: u32, payload: Vec<u8>) -> Answer<'_, ()>;
    fn receive(&mut self, session: u32) -> Answer<'_, Vec<u8>>;
    fn receive_or_end(&mut self, session: u32) -> Answer<'_, Option<Vec<u8>>>;
    fn send_and_receive(&mut self, session: u32, payload: Vec<u8>) -> Answer<'_, Vec<u8>>;
    fn send_all(&mut self, messages: Vec<(u32, Vec<u8>)>) -> Answer<'_, ()>;
    fn receive_all(&mut self, sessions: Vec<u32>) -> Answer<'_, Vec<Vec<u8>>>;
    fn wait_any(&mut self, sessions: Vec<u32>, deadline: Option<u64>) -> Answer<'_, Option<u32>>;
    fn close(&mut self, sessions: Vec<u32>) -> Answer<'_, ()>;
    fn counterparty_flow_info(&mut self, session: u32) -> Answer<'_, PeerFlowInfo>;
    fn sleep(&mut self, milliseconds: u64) -> Answer<'_, ()>;
    fn now(&mut self) -> u64;
    fn random(&mut self, length: u32) -> CallResult<Vec<u8>>;
    fn log(&mut self, level: GuestLogLevel, message: String) -> CallResult<()>;
    fn progress(&mut self, label: String) -> Answer<'_, ()>;
    fn memory(&mut self, bytes: u64) -> Answer<'_, ()>;
    fn ledger(&mut self, call: LedgerCall) -> Answer<'_, LedgerAnswer>;
    fn take_waited(&mut self) -> bool;
    fn tick(&mut self) -> Tick;
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send>;
}

impl<H: FlowHost> ErasedHost for H {
    fn our_identity(&mut self) -> GuestParty {
        FlowHost::our_identity(self)
    }

    fn flow_id(&mut self) -> String {
        FlowHost::flow_id(self)
    }

    fn party(&mut self, name: String) -> Answer<'_, Option<GuestParty>> {
        Box::pin(FlowHost::party(self, name))
    }

    fn parties(&mut self, query: String, exact: bool) -> Answer<'_, Vec<GuestParty>> {
        Box::pin(FlowHost::parties(self, query, exact))
    }

    fn open_session(&mut self, protocol: String, party: String) -> Answer<'_, u32> {
        Box::pin(FlowHost::open_session(self, protocol, party))
    }

    fn counterparty(&mut self, session: u32) -> CallResult<GuestParty> {
        FlowHost::counterparty(self, session)
    }

    fn send(&mut self, session: u32, payload: Vec<u8>) -> Answer<'_, ()> {
        Box::pin(FlowHost::send(self, session, payload))
    }

    fn receive(&mut self, session: u32) -> Answer<'_, Vec<u8>> {
        Box::pin(FlowHost::receive(self, session))
    }

    fn receive_or_end(&mut self, session: u32) -> Answer<'_, Option<Vec<u8>>> {
        Box::pin(FlowHost::receive_or_end(self, session))
    }

    fn send_and_receive(&mut self, session: u32, payload: Vec<u8>) -> Answer<'_, Vec<u8>> {
        Box::pin(FlowHost::send_and_receive(self, session, payload))
    }

    fn send_all(&mut self, messages: Vec<(u32, Vec<u8>)>) -> Answer<'_, ()> {
        Box::pin(FlowHost::send_all(self, messages))
    }

    fn receive_all(&mut self, sessions: Vec<u32>) -> Answer<'_, Vec<Vec<u8>>> {
        Box::pin(FlowHost::receive_all(self, sessions))
    }

    fn wait_any(&mut self, sessions: Vec<u32>, deadline: Option<u64>) -> Answer<'_, Option<u32>> {
        Box::pin(FlowHost::wait_any(self, sessions, deadline))
    }

    fn close(&mut self, sessions: Vec<u32>) -> Answer<'_, ()> {
        Box::pin(FlowHost::close(self, sessions))
    }

    fn counterparty_flow_info(&mut self, session: u32) -> Answer<'_, PeerFlowInfo> {
        Box::pin(FlowHost::counterparty_flow_info(self, session))
    }

    fn sleep(&mut self, milliseconds: u64) -> Answer<'_, ()> {
        Box::pin(FlowHost::sleep(self, milliseconds))
    }

    fn now(&mut self) -> u64 {
        FlowHost::now(self)
    }

    fn random(&mut self, length: u32) -> CallResult<Vec<u8>> {
        FlowHost::random(self, length)
    }

    fn log(&mut self, level: GuestLogLevel, message: String) -> CallResult<()> {
        FlowHost::log(self, level, message)
    }

    fn progress(&mut self, label: String) -> Answer<'_, ()> {
        Box::pin(FlowHost::progress(self, label))
    }

    fn memory(&mut self, bytes: u64) -> Answer<'_, ()> {
        Box::pin(FlowHost::memory(self, bytes))
    }

    fn ledger(&mut self, call: LedgerCall) -> Answer<'_, LedgerAnswer> {
        Box::pin(FlowHost::ledger(self, call))
    }

    fn take_waited(&mut self) -> bool {
        FlowHost::take_waited(self)
    }

    fn tick(&mut self) -> Tick {
        FlowHost::tick(self)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

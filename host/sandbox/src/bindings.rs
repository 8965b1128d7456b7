//! The world `flows` as Rust: generated from `wit/cordapp.wit`, and the way between its types and ours.
#![allow(missing_docs)]

use maxhost_model::{ErrorId, ErrorKind, FlowError};

use crate::host::{GuestLogLevel, PeerFlowInfo};
use crate::party::GuestParty;

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "flows",
    imports: {
        "maxhost:cordapp/flow.our-identity": trappable,
        "maxhost:cordapp/flow.flow-id": trappable,
        "maxhost:cordapp/flow.counterparty": trappable,
        "maxhost:cordapp/flow.now": trappable,
        "maxhost:cordapp/flow.random": trappable,
        "maxhost:cordapp/flow.log": trappable,
        default: async | trappable,
    },
    exports: { default: async },
});

pub(crate) use maxhost::cordapp::flow;
pub(crate) use maxhost::cordapp::keys;
pub(crate) use maxhost::cordapp::ledger;
pub(crate) use maxhost::cordapp::types;
pub(crate) use maxhost::cordapp::{ledger_waits, recording};

impl From<FlowError> for types::Failure {
    fn from(error: FlowError) -> types::Failure {
        types::Failure {
            kind: match error.kind {
                ErrorKind::FlowException => types::FailureKind::FlowException,
                ErrorKind::UnexpectedEnd => types::FailureKind::UnexpectedEnd,
                ErrorKind::IllegalArgument => types::FailureKind::IllegalArgument,
                ErrorKind::IllegalState => types::FailureKind::IllegalState,
                ErrorKind::PrematureClose => types::FailureKind::PrematureClose,
                ErrorKind::Killed => types::FailureKind::Killed,
                ErrorKind::Limit => types::FailureKind::Limit,
                // A kind that this version of the contract has no word for.
                _ => types::FailureKind::Unexpected,
            },
            message: error.message,
            exception: error.exception,
            data: error.data,
            error_id: error.error_id.map(|id| id.0),
            peer: error.peer,
            limit: error.limit,
        }
    }
}

impl From<types::Failure> for FlowError {
    fn from(failure: types::Failure) -> FlowError {
        FlowError {
            kind: match failure.kind {
                types::FailureKind::FlowException => ErrorKind::FlowException,
                types::FailureKind::UnexpectedEnd => ErrorKind::UnexpectedEnd,
                types::FailureKind::Unexpected => ErrorKind::Unexpected,
                types::FailureKind::IllegalArgument => ErrorKind::IllegalArgument,
                types::FailureKind::IllegalState => ErrorKind::IllegalState,
                types::FailureKind::PrematureClose => ErrorKind::PrematureClose,
                types::FailureKind::Killed => ErrorKind::Killed,
                types::FailureKind::Limit => ErrorKind::Limit,
            },
            message: failure.message,
            exception: failure.exception,
            data: failure.data,
            error_id: failure.error_id.map(ErrorId),
            peer: failure.peer,
            limit: failure.limit,
        }
    }
}

impl From<GuestParty> for types::Party {
    fn from(party: GuestParty) -> types::Party {
        types::Party { name: party.name, owning_key: party.owning_key }
    }
}

impl From<PeerFlowInfo> for types::FlowInfo {
    fn from(info: PeerFlowInfo) -> types::FlowInfo {
        types::FlowInfo { version: info.version, app: info.app }
    }
}

impl From<types::LogLevel> for GuestLogLevel {
    fn from(level: types::LogLevel) -> GuestLogLevel {
        match level {
            types::LogLevel::Debug => GuestLogLevel::Debug,
            types::LogLevel::Info => GuestLogLevel::Info,
            types::LogLevel::Warn => GuestLogLevel::Warn,
            types::LogLevel::Error => GuestLogLevel::Error,
        }
    }
}

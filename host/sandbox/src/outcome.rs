//! How a run ended, told from what wasmtime says.

use std::time::Duration;

use maxhost_model::{ErrorKind, FlowError};
use wasmtime::WasmBacktrace;
use wasmtime::component::ResourceTableError;
use wasmtime_wasi::I32Exit;

use crate::engine::BACKTRACE_FRAMES;
use crate::error::chain;
use crate::state::EndOfRun;
use crate::wasi::MAX_HANDLES;

/// A backtrace is kept up to this size, bytes.
const BACKTRACE_BYTES: usize = 8192;
/// So many frames of one function, or so many frames at all, are taken for recursion.
const FRAMES_OF_RECURSION: usize = 8;
const FRAMES_OF_DEPTH: usize = BACKTRACE_FRAMES * 3 / 4;

/// The failure a guest returned, as in the WIT record `failure`. Its fields are the guest's word: nothing in it is to
/// be trusted.
pub type GuestFailure = FlowError;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It returned its result, CBOR by the contract; not looked at here.
    Returned(Vec<u8>),
    /// It returned a failure.
    Failed(Box<GuestFailure>),
    /// It was ended by a trap or a limit.
    Trapped(Trap),
    /// The host ended it: a call was answered with [`Stop`](crate::CallError::Stop), or a tick with
    /// [`Stop`](crate::Tick::Stop).
    Stopped,
}

/// What ended a run that did not return.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TrapKind {
    /// A panic, or whatever else reaches `unreachable`.
    Panic,
    /// It computed longer than its budget.
    Cpu,
    /// It asked for more memory than its limit.
    Memory,
    /// Its stack is full.
    Stack,
    /// It logged more than its host takes.
    Log,
    /// It called `exit`.
    Exit,
    /// It asked for what no flow gets, such as too many handles or a wait for nothing.
    Refused,
    /// The host could not give it an instance. The same run may succeed another time.
    Host,
    /// Any other fault of its own, such as a division by zero or an access outside its memory.
    Fault,
}

impl TrapKind {
    /// The limit that was reached, by the word that clients see.
    #[must_use]
    pub fn limit(self) -> Option<&'static str> {
        match self {
            TrapKind::Cpu => Some("cpu"),
            TrapKind::Memory => Some("memory"),
            TrapKind::Stack => Some("stack"),
            TrapKind::Log => Some("log"),
            _ => None,
        }
    }
}

/// The end of a run that did not return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trap {
    /// What kind of end.
    pub kind: TrapKind,
    /// In words; for a panic its own text.
    pub message: String,
    /// The guest's stack, innermost frame first, when it has one.
    pub backtrace: Option<String>,
}

impl From<Trap> for FlowError {
    fn from(trap: Trap) -> FlowError {
        match trap.kind.limit() {
            Some(limit) => FlowError::limit(limit, trap.message),
            None => FlowError::new(ErrorKind::Unexpected, trap.message),
        }
    }
}

/// A run that is over.
#[derive(Debug)]
pub struct RunEnd<H> {
    /// The host that was given to the run.
    pub host: H,
    /// How it ended.
    pub outcome: Outcome,
    /// The most linear memory it had, bytes.
    pub memory_peak: usize,
    /// How long it computed, over all, by the processor's time.
    pub computed: Duration,
}

/// Sorts an error of wasmtime. `last_words` is what the guest said last on standard error.
pub(crate) fn classify(error: &wasmtime::Error, last_words: Option<&str>) -> Outcome {
    let trap = match error.downcast_ref::<EndOfRun>() {
        Some(EndOfRun::Stop) => return Outcome::Stopped,
        Some(end) => {
            let message = maxhost_model::cut_text(format!("the flow {end}"), maxhost_model::MAX_FAILURE_TEXT);
            Trap { kind: kind_of(end), message, backtrace: None }
        }
        None => fault(error, last_words),
    };
    Outcome::Trapped(trap)
}

fn kind_of(end: &EndOfRun) -> TrapKind {
    match end {
        EndOfRun::Cpu { .. } => TrapKind::Cpu,
        EndOfRun::Memory { .. } => TrapKind::Memory,
        EndOfRun::Log(_) => TrapKind::Log,
        EndOfRun::Refused(_) | EndOfRun::Stop => TrapKind::Refused,
    }
}

fn fault(error: &wasmtime::Error, last_words: Option<&str>) -> Trap {
    let backtrace = error.downcast_ref::<WasmBacktrace>();
    if let Some(I32Exit(status)) = error.downcast_ref() {
        return Trap { kind: TrapKind::Exit, message: format!("the flow called exit({status})"), backtrace: None };
    }
    if matches!(error.downcast_ref(), Some(ResourceTableError::Full)) {
        let message = format!("the flow holds more than {MAX_HANDLES} WASI handles at once");
        return Trap { kind: TrapKind::Refused, message, backtrace: None };
    }
    let (kind, message) = match error.downcast_ref::<wasmtime::Trap>() {
        Some(wasmtime::Trap::UnreachableCodeReached) => {
            (TrapKind::Panic, last_words.unwrap_or("the flow panicked without a word").to_owned())
        }
        Some(wasmtime::Trap::StackOverflow) => (TrapKind::Stack, "the flow's stack is full".to_owned()),
        // The stack of a guest's variables lies at the start of its memory and grows downwards: one that is full
        // reaches below address zero.
        Some(wasmtime::Trap::MemoryOutOfBounds) if backtrace.is_some_and(recursed) => {
            (TrapKind::Stack, "the flow's stack is full: it recursed until it left its memory".to_owned())
        }
        Some(trap) => (TrapKind::Fault, format!("the flow faulted: {trap}")),
        // Neither ours nor a trap, but from a running guest: it broke a rule of the component model.
        None if backtrace.is_some() => (TrapKind::Fault, format!("the flow faulted: {}", error.root_cause())),
        None => (TrapKind::Host, format!("no instance for the flow: {}", chain(error))),
    };
    let message = maxhost_model::cut_text(message, maxhost_model::MAX_FAILURE_TEXT);
    Trap { kind, message, backtrace: backtrace.map(frames) }
}

fn recursed(backtrace: &WasmBacktrace) -> bool {
    let frames = backtrace.frames();
    frames.len() >= FRAMES_OF_DEPTH
        || frames.iter().any(|frame| {
            frames.iter().filter(|other| other.func_index() == frame.func_index()).count() >= FRAMES_OF_RECURSION
        })
}

fn frames(backtrace: &WasmBacktrace) -> String {
    let text = backtrace.to_string();
    let text = text.strip_prefix("error while executing at wasm backtrace:\n").unwrap_or(&text);
    text[..text.floor_char_boundary(BACKTRACE_BYTES)].to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn limits_keep_their_word_and_panics_their_text() {
        let Outcome::Trapped(trap) = classify(&EndOfRun::Memory { asked: 9, limit: 8 }.into(), None) else {
            panic!("not a trap")
        };
        let error = FlowError::from(trap);
        assert_eq!((error.kind, error.limit.as_deref()), (ErrorKind::Limit, Some("memory")));

        let panic = wasmtime::Error::from(wasmtime::Trap::UnreachableCodeReached);
        let Outcome::Trapped(trap) = classify(&panic, Some("panicked at src/lib.rs: boom")) else {
            panic!("not a trap")
        };
        assert_eq!((trap.kind, trap.message.as_str()), (TrapKind::Panic, "panicked at src/lib.rs: boom"));
        assert_eq!(FlowError::from(trap).kind, ErrorKind::Unexpected);
    }

    #[test]
    fn a_stop_is_no_trap_and_an_unknown_error_is_the_hosts() {
        assert_eq!(classify(&EndOfRun::Stop.into(), None), Outcome::Stopped);
        let Outcome::Trapped(trap) = classify(&wasmtime::Error::msg("mmap failed"), None) else { panic!("not a trap") };
        assert_eq!(trap.kind, TrapKind::Host);
    }
}

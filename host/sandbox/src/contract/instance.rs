//! One instance: its budgets, and what its end means.

use std::time::Duration;

use futures::FutureExt;
use maxhost_model::cut_text;
use wasmtime::{Engine, ResourceLimiter, Store, Trap, UpdateDeadline};

use super::verdict::{ContractFault, LocalError};
use crate::error::chain;
use crate::pace::{is_late, pace};

/// Fuel for making an instance: a module without a start function and with bounded data needs next to none.
const INSTANTIATION_FUEL: u64 = 50_000_000;
/// What a contract may hand out in one call, in bytes and elements.
const RESULT_FUEL: usize = 4 << 20;
/// How long a call may take, in ticks of the engine, whatever its fuel; beyond it is this host's trouble. Ticks in which others
/// went first ([`pace`]) do not count.
const TICKS: u32 = 4_000;
/// How long a tick is.
pub(super) const TICK: Duration = Duration::from_millis(5);
/// The longest message of a fault, bytes.
const MAX_MESSAGE: usize = 1_024;
/// The most entries of a table.
const TABLE_ELEMENTS: usize = 8_192;

/// What lives in the store of an instance.
pub(super) struct Budget {
    memory: usize,
    granted: usize,
    peak: usize,
}

#[derive(Debug, thiserror::Error)]
enum Denied {
    #[error("asked for more memory than it may have")]
    Memory,
    #[error("the system has no memory for it")]
    Host,
}

impl ResourceLimiter for Budget {
    fn memory_growing(&mut self, current: usize, desired: usize, _most: Option<usize>) -> wasmtime::Result<bool> {
        let granted = self.granted.saturating_add(desired.saturating_sub(current));
        if granted > self.memory {
            return Err(Denied::Memory.into());
        }
        self.granted = granted;
        self.peak = self.peak.max(granted);
        Ok(true)
    }

    /// A contract that saw the refusal could decide by it, and hosts would differ.
    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(Denied::Host.into())
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _most: Option<usize>) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS { Err(Denied::Memory.into()) } else { Ok(true) }
    }
}

/// How a call ended that returned nothing. The first three are the same on every host.
pub(super) enum CallEnd {
    OutOfFuel,
    OverMemory,
    Trap(ContractFault),
    Local(LocalError),
}

/// What a call used.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Used {
    pub(super) fuel: u64,
    pub(super) memory: u64,
}

/// A fresh instance with its fuel, for one call to what it exports.
pub(super) struct Instance<E> {
    store: Store<Budget>,
    exports: E,
    fuel: u64,
}

impl<E> Instance<E> {
    /// Makes an instance. Its fuel is set afterwards: how much of it making an instance burns depends on the host.
    pub(super) fn new(
        engine: &Engine,
        instantiate: impl AsyncFnOnce(&mut Store<Budget>) -> wasmtime::Result<E>,
        fuel: u64,
        memory: u64,
    ) -> wasmtime::Result<Instance<E>> {
        if is_late() {
            return Err(Trap::Interrupt.into());
        }
        let memory = usize::try_from(memory).unwrap_or(usize::MAX);
        let mut store = Store::try_new(engine, Budget { memory, granted: 0, peak: 0 })?;
        store.limiter(|budget| budget);
        store.set_hostcall_fuel(RESULT_FUEL);
        let mut ticks = 0;
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(move |_| {
            ticks += 1;
            if ticks > TICKS || is_late() {
                return Ok(UpdateDeadline::Interrupt);
            }
            pace();
            Ok(UpdateDeadline::Continue(1))
        });
        store.set_fuel(INSTANTIATION_FUEL)?;
        let exports = at_once(instantiate(&mut store))?;
        store.set_fuel(fuel)?;
        Ok(Instance { store, exports, fuel })
    }

    /// Calls one of its functions.
    pub(super) fn call<T>(
        &mut self,
        function: impl AsyncFnOnce(&E, &mut Store<Budget>) -> wasmtime::Result<T>,
    ) -> wasmtime::Result<T> {
        at_once(function(&self.exports, &mut self.store))
    }

    /// What was used so far.
    pub(super) fn used(&self) -> Used {
        let left = self.store.get_fuel().unwrap_or(0);
        Used { fuel: self.fuel.saturating_sub(left), memory: self.store.data().peak as u64 }
    }
}

/// A contract runs on a fiber for the sake of its stack. It can call nothing that waits, so it is done when it is polled once.
fn at_once<T>(call: impl Future<Output = wasmtime::Result<T>>) -> wasmtime::Result<T> {
    call.now_or_never()
        .unwrap_or_else(|| Err(wasmtime::Error::msg("a contract waits, and there is nothing to wait for")))
}

/// What it means that an instance could not be made. One that starts with more memory than it may have is over it.
pub(super) fn not_made(error: &wasmtime::Error, name: &str) -> CallEnd {
    match error.downcast_ref::<Denied>() {
        Some(Denied::Memory) => CallEnd::OverMemory,
        _ => CallEnd::Local(LocalError::Engine { contract: name.to_owned(), reason: chain(error) }),
    }
}

/// What the error of a call means. The instance was there, so what is neither the host's time, stack nor memory is the
/// contract's own doing.
pub(super) fn end_of(error: &wasmtime::Error, name: &str) -> CallEnd {
    let contract = name.to_owned();
    match error.downcast_ref::<Denied>() {
        Some(Denied::Memory) => return CallEnd::OverMemory,
        Some(Denied::Host) => return CallEnd::Local(LocalError::Engine { contract, reason: chain(error) }),
        None => {}
    }
    let code = match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => return CallEnd::OutOfFuel,
        Some(Trap::StackOverflow) => return CallEnd::Local(LocalError::Stack { contract }),
        Some(Trap::Interrupt) => {
            let limit = TICK.saturating_mul(TICKS);
            let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            return CallEnd::Local(LocalError::Time { contract, limit_ms });
        }
        Some(Trap::UnreachableCodeReached) => "trap/unreachable",
        Some(Trap::MemoryOutOfBounds | Trap::HeapMisaligned) => "trap/memory",
        Some(Trap::IntegerOverflow | Trap::IntegerDivisionByZero) => "trap/arithmetic",
        // What is inserted before calls, see `depth.rs`.
        Some(Trap::BadConversionToInteger) => "trap/depth",
        Some(Trap::TableOutOfBounds | Trap::IndirectCallToNull | Trap::BadSignature) => "trap/call",
        // A trap that the profile leaves no way to, or a result that breaks the rules of components.
        _ => "trap/result",
    };
    let message = match code {
        "trap/unreachable" => "it panicked; a native test of the contract shows where",
        "trap/memory" => "it left its memory, or called itself until its stack was full",
        "trap/arithmetic" => "it divided by zero, or a number did not fit",
        "trap/depth" => "its calls are nested deeper than profile 1 allows",
        "trap/call" => "it called what is no function",
        _ => "what it returned breaks the rules of components, or is too large",
    };
    CallEnd::Trap(ContractFault { code: code.to_owned(), message: message.to_owned() })
}

/// A fault as a contract gave it, within bounds.
pub(super) fn bounded(code: String, message: String) -> ContractFault {
    let code = if super::descriptor::is_code(&code) { code } else { "fault/unnamed".to_owned() };
    ContractFault { code, message: cut_text(message, MAX_MESSAGE) }
}

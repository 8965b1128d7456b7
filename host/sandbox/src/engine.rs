//! The engine that flows run on: one configuration, one pool of slots, one clock for computing time.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use wasmtime::component::{Component, InstancePre};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store};

use crate::error::{SandboxError, chain};
use crate::machine_code::Compiler;
use crate::state::{RunState, TABLE_ELEMENTS};
use crate::ticker::Ticker;

/// What each instance may have of these; more is refused when the component is loaded.
const CORE_INSTANCES: u32 = 16;
const MEMORIES: u32 = 1;
const TABLES: u32 = 4;

/// Stack of a guest's own code, and of a whole fiber. What is left over is for host functions.
const WASM_STACK: usize = 256 << 10;
const FIBER_STACK: usize = 512 << 10;
/// With four gibibytes of address space a memory, no access needs a bounds check (36 % on signatures).
const RESERVATION: u64 = 4 << 30;
const GUARD: u64 = 32 << 20;
/// 47 bits of address space hold so many reservations.
const MOST_SLOTS: u32 = 20_000;
/// A slot in use needs six mappings: stack and guard, and four of its memory.
const MAPPINGS_PER_SLOT: u32 = 6;
const MAPPINGS_OF_THE_REST: u32 = 5_000;
/// Frames kept of a guest's stack when it traps: enough to see that it recursed.
pub(crate) const BACKTRACE_FRAMES: usize = 64;

/// How a sandbox is set up.
#[derive(Debug, Clone)]
pub struct SandboxOptions {
    /// Where compiled code is kept between starts. Made when absent, with access for the host's user only: code from
    /// here is executed.
    pub cache_dir: PathBuf,
    /// How many runs may have an instance at once. Lowered to what the system's number of mappings allows.
    pub max_instances: u32,
    /// The most linear memory that any run may have, bytes.
    pub max_memory: usize,
    /// How often a computing guest yields, and its budget is looked at.
    pub tick: Duration,
}

impl SandboxOptions {
    /// 10,000 instances of at most 64 MiB, ticks of 5 ms.
    #[must_use]
    pub fn new(cache_dir: impl Into<PathBuf>) -> SandboxOptions {
        SandboxOptions {
            cache_dir: cache_dir.into(),
            max_instances: 10_000,
            max_memory: 64 << 20,
            tick: Duration::from_millis(5),
        }
    }
}

/// What all components of a sandbox share.
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) compiler: Compiler,
    pub(crate) slots: u32,
    pub(crate) permits: Semaphore,
    pub(crate) max_memory: usize,
    pub(crate) tick: Duration,
    /// `describe` has one slot of its own beside those of the runs, so that a full host can still load.
    pub(crate) describing: Mutex<()>,
    pub(crate) ticker: Ticker,
}

impl Shared {
    /// With a pool of slots when the system grants one, otherwise allocating each instance on demand.
    pub(crate) fn pooled(options: &SandboxOptions) -> Result<Arc<Shared>, SandboxError> {
        let slots = affordable_slots(options.max_instances);
        let max_memory = options.max_memory.next_multiple_of(1 << 16);
        let engine = match Engine::new(configuration().allocation_strategy(pool(slots, max_memory))) {
            Ok(engine) => engine,
            Err(error) => {
                tracing::warn!(slots, error = chain(&error), "no pool of instances: each is allocated on demand");
                on_demand_engine()?
            }
        };
        Shared::assemble(engine, slots, max_memory, options.tick)
    }

    /// Without a pool: for one look at one component.
    pub(crate) fn on_demand(max_memory: usize, tick: Duration) -> Result<Arc<Shared>, SandboxError> {
        Shared::assemble(on_demand_engine()?, 1, max_memory.next_multiple_of(1 << 16), tick)
    }

    fn assemble(engine: Engine, slots: u32, max_memory: usize, tick: Duration) -> Result<Arc<Shared>, SandboxError> {
        check(&engine)?;
        let ticker = Ticker::start(engine.clone(), tick)?;
        Ok(Arc::new(Shared {
            engine,
            compiler: Compiler::new(configuration()),
            slots,
            permits: Semaphore::new(slots as usize),
            max_memory,
            tick,
            describing: Mutex::new(()),
            ticker,
        }))
    }

    /// A store whose limits are those of `state`.
    pub(crate) fn store(&self, state: RunState) -> wasmtime::Result<Store<RunState>> {
        let memory_limit = state.memory.limit();
        let mut store = Store::try_new(&self.engine, state)?;
        store.limiter_async(|state| state);
        // The deadline of a new store is now: without this the first instruction would count as a tick.
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|mut context| context.data_mut().on_tick());
        // What one call may carry out of the guest: as much as the guest can hold, however often it names the same
        // bytes in one call.
        store.set_hostcall_fuel(memory_limit);
        Ok(store)
    }

    /// Refuses what a pool would refuse, so that a host without one takes the same components.
    pub(crate) fn check_size(&self, component: &Component) -> Result<(), SandboxError> {
        let Some(needs) = component.resources_required() else {
            return Err(SandboxError::TooLarge { reason: "it imports core modules or instances".to_owned() });
        };
        let pages = needs.max_initial_memory_size.unwrap_or(0);
        let reason = if needs.num_memories > MEMORIES {
            format!("{} linear memories, at most {MEMORIES} is allowed", needs.num_memories)
        } else if pages > (self.max_memory >> 16) as u64 {
            let limit = self.max_memory >> 20;
            format!("it starts with {} MiB of memory, at most {limit} MiB are allowed", pages >> 4)
        } else if needs.num_tables > TABLES {
            format!("{} tables, at most {TABLES} are allowed", needs.num_tables)
        } else if needs.max_initial_table_size.unwrap_or(0) > TABLE_ELEMENTS as u64 {
            format!("a table of {:?} entries, at most {TABLE_ELEMENTS} are allowed", needs.max_initial_table_size)
        } else {
            return Ok(());
        };
        Err(SandboxError::TooLarge { reason })
    }
}

/// A link of a component to the engine's functions; see [`crate::component::FlowComponent`].
pub(crate) type Linked = InstancePre<RunState>;

fn configuration() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .concurrency_support(false)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(FIBER_STACK)
        .memory_reservation(RESERVATION)
        .memory_guard_size(GUARD)
        .memory_init_cow(true)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(BACKTRACE_FRAMES));
    config
}

fn pool(slots: u32, max_memory: usize) -> InstanceAllocationStrategy {
    // One more for `describe`.
    let slots = slots + 1;
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(slots)
        .total_core_instances(slots * CORE_INSTANCES)
        .total_memories(slots * MEMORIES)
        .total_tables(slots * TABLES)
        .total_stacks(slots)
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_memories_per_component(MEMORIES)
        .max_tables_per_component(TABLES)
        .table_elements(TABLE_ELEMENTS)
        .max_memory_size(max_memory)
        // Slots are wiped by looking which pages were touched, not by unmapping them: unmapping stops every thread of
        // the process for a moment. What was touched stays resident, up to these sizes.
        .pagemap_scan(Enabled::Auto)
        .linear_memory_keep_resident(64 << 10)
        .table_keep_resident(8 << 10)
        .max_unused_warm_slots(0);
    InstanceAllocationStrategy::Pooling(pool)
}

fn on_demand_engine() -> Result<Engine, SandboxError> {
    Engine::new(configuration().allocation_strategy(InstanceAllocationStrategy::OnDemand))
        .map_err(|error| SandboxError::engine("wasmtime refuses its configuration", error))
}

/// An engine without these would run guests that nobody can interrupt, or that compute differently on replay; wasmtime
/// says nothing by itself.
fn check(engine: &Engine) -> Result<(), SandboxError> {
    let wanted = [
        ("epoch_interruption", engine.get_epoch_interruption()),
        ("cranelift_nan_canonicalization", engine.get_cranelift_nan_canonicalization() == Some(true)),
        ("no shared memory", !engine.get_shared_memory()),
        ("no concurrency support", !engine.get_concurrency_support()),
    ];
    match wanted.iter().find(|(_, holds)| !holds) {
        None => Ok(()),
        Some((name, _)) => {
            Err(SandboxError::Engine { reason: format!("the engine was built without: {name}"), source: None })
        }
    }
}

fn affordable_slots(wanted: u32) -> u32 {
    let mappings = std::fs::read_to_string("/proc/sys/vm/max_map_count")
        .ok()
        .and_then(|text| text.trim().parse::<u32>().ok())
        .unwrap_or(65_530);
    let affordable = (mappings.saturating_sub(MAPPINGS_OF_THE_REST) / MAPPINGS_PER_SLOT).clamp(1, MOST_SLOTS);
    if wanted > affordable {
        tracing::warn!(wanted, affordable, "fewer instances at once: raise vm.max_map_count to have more");
    }
    wanted.clamp(1, affordable)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn pooled_and_on_demand_engines_share_compiled_code() {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let hash = |engine: &Engine| {
            let mut hasher = DefaultHasher::new();
            engine.precompile_compatibility_hash().hash(&mut hasher);
            hasher.finish()
        };
        let pooled = Engine::new(configuration().allocation_strategy(pool(2, 1 << 20))).unwrap();
        assert_eq!(hash(&pooled), hash(&on_demand_engine().unwrap()));
    }

    #[test]
    fn slots_are_clamped_to_what_the_system_maps() {
        assert_eq!(affordable_slots(0), 1);
        assert_eq!(affordable_slots(7), 7);
        assert!(affordable_slots(u32::MAX) <= MOST_SLOTS);
    }

    #[test]
    fn an_engine_that_cannot_be_interrupted_is_refused() {
        let engine = Engine::new(configuration().epoch_interruption(false)).unwrap();
        let error = check(&engine).unwrap_err();
        assert!(error.to_string().contains("epoch_interruption"), "{error}");
    }

    #[test]
    fn the_ticker_raises_the_epoch_and_stops_when_dropped() {
        let shared = Shared::on_demand(1 << 20, Duration::from_millis(1)).unwrap();
        let weak = shared.engine.weak();
        drop(shared);
        assert!(weak.upgrade().is_none(), "the ticker's thread still holds the engine");
    }
}

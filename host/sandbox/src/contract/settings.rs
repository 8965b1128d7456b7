//! How wasmtime is set up for contracts: bounded, and the same verdict on every machine.

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use super::fuel::operator_costs;
use crate::error::{SandboxError, chain};
use crate::machine_code::Compiler;

/// The stack of a contract's own code, and of the fiber that it runs on. [`super::depth::MAX_DEPTH`] frames of the largest
/// function that the profile allows fit the first. Only what is touched of it takes memory.
const WASM_STACK: usize = 14 << 20;
const FIBER_STACK: usize = 16 << 20;
/// The most linear memory that a network may allow: slots are made for it.
const MAX_MEMORY: usize = 64 << 20;

/// Settings of the engine that make no difference to verdicts: a corpus of transactions is judged under each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineSettings {
    /// Take instances from a pool of slots.
    pub pooled: bool,
    /// Share the first contents of memories until they are written to.
    pub copy_on_write: bool,
    /// Compile to fast code, which takes longer.
    pub optimised: bool,
}

impl EngineSettings {
    /// Each setting there is.
    #[must_use]
    pub fn all() -> Vec<EngineSettings> {
        let both = [true, false];
        let settings = both.iter().flat_map(|pooled| both.iter().map(move |copy_on_write| (*pooled, *copy_on_write)));
        let with = |(pooled, copy_on_write)| both.map(|optimised| EngineSettings { pooled, copy_on_write, optimised });
        settings.flat_map(with).collect()
    }
}

impl Default for EngineSettings {
    fn default() -> EngineSettings {
        EngineSettings { pooled: true, copy_on_write: true, optimised: true }
    }
}

pub(super) fn make_engine(slots: u32, settings: &EngineSettings) -> Result<(Engine, Compiler), SandboxError> {
    let mut config = Config::new();
    config
        .consume_fuel(true)
        .operator_cost(operator_costs())
        .epoch_interruption(true)
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .wasm_simd(false)
        .concurrency_support(false)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(FIBER_STACK)
        .memory_init_cow(settings.copy_on_write)
        .cranelift_opt_level(if settings.optimised { OptLevel::Speed } else { OptLevel::None });
    let compiler = Compiler::new(config.clone());
    let on_demand = |mut config: Config| {
        config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
        Engine::new(&config)
    };
    let engine = if settings.pooled {
        let mut pooled = config.clone();
        pooled.allocation_strategy(pool(slots));
        Engine::new(&pooled).or_else(|error| {
            tracing::warn!(slots, error = chain(&error), "no pool of contract instances: each is allocated on demand");
            on_demand(config)
        })
    } else {
        on_demand(config)
    };
    let engine = engine.map_err(|error| SandboxError::engine("wasmtime refuses its configuration", error))?;
    check(&engine)?;
    Ok((engine, compiler))
}

fn pool(slots: u32) -> InstanceAllocationStrategy {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(slots)
        .total_core_instances(slots * 4)
        .total_memories(slots)
        .total_tables(slots * 2)
        .total_stacks(slots)
        .max_core_instances_per_component(4)
        .max_memories_per_component(1)
        .max_tables_per_component(2)
        .table_elements(8_192)
        .max_memory_size(MAX_MEMORY)
        .pagemap_scan(Enabled::Auto)
        .linear_memory_keep_resident(256 << 10)
        .table_keep_resident(8 << 10)
        .max_unused_warm_slots(0);
    InstanceAllocationStrategy::Pooling(pool)
}

/// An engine without these would run contracts that never end, or whose verdicts differ.
fn check(engine: &Engine) -> Result<(), SandboxError> {
    let wanted = [
        ("consume_fuel", engine.get_consume_fuel()),
        ("epoch_interruption", engine.get_epoch_interruption()),
        ("cranelift_nan_canonicalization", engine.get_cranelift_nan_canonicalization() == Some(true)),
        ("no shared memory", !engine.get_shared_memory()),
    ];
    match wanted.iter().find(|(_, holds)| !holds) {
        None => Ok(()),
        Some((name, _)) => {
            Err(SandboxError::Engine { reason: format!("the engine was built without: {name}"), source: None })
        }
    }
}

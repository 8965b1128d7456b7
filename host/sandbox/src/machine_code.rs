//! Machine code of components: taken from the cache, or compiled and kept there.

use std::borrow::Cow;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rayon::{ThreadPool, ThreadPoolBuilder};
use wasmtime::component::Component;
use wasmtime::{Config, Engine, InstanceAllocationStrategy};

use crate::code_cache::CodeCache;
use crate::error::{SandboxError, chain, shared};

/// The threads that compile, for as long as anybody does. They are not kept, because the allocator keeps memory that a thread
/// has let go of for that thread.
static THREADS: Mutex<Weak<ThreadPool>> = Mutex::new(Weak::new());

/// Compiles components, each by an engine of its own: wasmtime keeps the working memory of a compiler for as long as its
/// engine lives. With that and with threads that stay, a dozen components leave some 60 MB behind (`docs/benchmarks.md`).
pub(crate) struct Compiler(Config);

impl Compiler {
    /// For engines of this configuration, however they allocate instances.
    pub(crate) fn new(mut config: Config) -> Compiler {
        config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
        Compiler(config)
    }

    fn compile(&self, wasm: &[u8]) -> Result<Vec<u8>, SandboxError> {
        let refused = |error| SandboxError::engine("wasmtime refuses its configuration", error);
        let engine = Engine::new(&self.0).map_err(refused)?;
        let invalid = |error| SandboxError::Invalid { reason: chain(&error), source: Some(shared(error)) };
        // Without threads of its own it is compiled by those that wasmtime shares in the whole process.
        match threads() {
            Some(threads) => threads.install(|| engine.precompile_component(wasm)).map_err(invalid),
            None => engine.precompile_component(wasm).map_err(invalid),
        }
    }
}

/// Those that compile now, or new ones; none if the system gives none.
fn threads() -> Option<Arc<ThreadPool>> {
    let mut present = THREADS.lock();
    if let Some(threads) = present.upgrade() {
        return Some(threads);
    }
    let threads = ThreadPoolBuilder::new().thread_name(|number| format!("compiler-{number}")).build();
    let threads =
        threads.inspect_err(|error| tracing::debug!(%error, "no threads for compiling")).ok().map(Arc::new)?;
    *present = Arc::downgrade(&threads);
    Some(threads)
}

/// Where machine code came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Cache,
    Compiler,
}

/// The machine code that the cache has under a hash; if it has none, that of what `wasm` gives, which is kept there. The
/// compiler must be for such an engine. Blocks while it compiles.
///
/// # Errors
/// What `wasm` answers; [`SandboxError::Invalid`] if it does not compile, [`SandboxError::TooLarge`] if the engine has no room
/// for it.
pub(crate) fn machine_code<'a>(
    engine: &Engine,
    compiler: &Compiler,
    cache: Option<&CodeCache>,
    hash: &[u8; 32],
    wasm: impl FnOnce() -> Result<Cow<'a, [u8]>, SandboxError>,
) -> Result<(Component, Origin), SandboxError> {
    if let Some(component) = cache.and_then(|cache| cache.load(engine, hash)) {
        return Ok((component, Origin::Cache));
    }
    let code = compiler.compile(&wasm()?)?;
    // SAFETY: these bytes were just made by an engine of the same configuration.
    let loaded = unsafe { Component::deserialize(engine, &code) };
    let component = loaded.map_err(|error| {
        let reason = chain(&error);
        // Code that was just compiled and yet does not load does not fit the pool, or the system is out of memory.
        if reason.contains("limit") {
            SandboxError::TooLarge { reason }
        } else {
            SandboxError::engine("cannot load compiled code", error)
        }
    })?;
    let Some(cache) = cache else { return Ok((component, Origin::Compiler)) };
    cache.store(hash, &code);
    // Of code that is mapped from its file only what is used takes memory, and the system may take it back.
    let mapped = cache.load(engine, hash);
    Ok((mapped.unwrap_or(component), Origin::Compiler))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn small() -> Vec<u8> {
        wat::parse_str("(component (core module (func (export \"f\") (result i32) i32.const 7)))").unwrap()
    }

    #[test]
    fn code_is_compiled_once_and_then_taken_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let (engine, compiler) = (Engine::default(), Compiler::new(Config::new()));
        let cache = CodeCache::open(folder.path(), &engine).unwrap();
        let origin = |cache| machine_code(&engine, &compiler, cache, &[7; 32], || Ok(small().into())).unwrap().1;
        assert_eq!(origin(Some(&cache)), Origin::Compiler);
        assert_eq!(origin(Some(&cache)), Origin::Cache);
        assert_eq!(origin(None), Origin::Compiler, "without a cache it is compiled each time");
        let mapped = std::fs::read_to_string("/proc/self/maps").unwrap();
        let (kept, _) = machine_code(&engine, &compiler, Some(&cache), &[8; 32], || Ok(small().into())).unwrap();
        let file = format!("{}/{}-", folder.path().display(), hex::encode([8; 32]));
        assert!(!mapped.contains(&file), "nothing of it was there before");
        let mapped = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert!(mapped.contains(&file), "what was just compiled is mapped, too");
        drop(kept);
    }

    #[test]
    fn what_cannot_be_kept_is_used_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let (engine, compiler) = (Engine::default(), Compiler::new(Config::new()));
        let cache = CodeCache::open(folder.path(), &engine).unwrap();
        folder.close().unwrap();
        let (_, origin) = machine_code(&engine, &compiler, Some(&cache), &[7; 32], || Ok(small().into())).unwrap();
        assert_eq!(origin, Origin::Compiler);
    }

    #[test]
    fn threads_that_compile_end_when_nobody_compiles() {
        let first = threads().unwrap();
        assert!(Arc::ptr_eq(&first, &threads().unwrap()), "who compiles at the same time shares them");
        let present = Arc::downgrade(&first);
        drop(first);
        // Another test may compile at this moment; they end with it.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while present.upgrade().is_some() {
            assert!(std::time::Instant::now() < deadline, "they are kept");
            std::thread::yield_now();
        }
    }
}

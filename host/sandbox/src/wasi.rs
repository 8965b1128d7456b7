//! The parts of WASI 0.2 that language runtimes call, made of what the run's host says: time is the flow's, randomness
//! is recorded, output goes to the log, and there are no files, no sockets and no environment. To wait for a clock is to
//! sleep, as by the flow's own call: the journal has it.
//!
//! A component is given exactly the functions it imports, under the version it imports them. What is not written here
//! ends the run with its name when it is called.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use wasmtime::StoreContextMut;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, ComponentType, Linker, LinkerInstance, Lower, Resource, ResourceType, Val};

use crate::component_shape::wasi_interface;
use crate::output::Stream;
use crate::state::{EndOfRun, RunState};

/// Streams, terminals and pollables that a guest may hold at once. Each costs the host memory.
const MAX_HANDLES: u32 = 1024;
/// What a stream takes in one call.
const WRITE_ROOM: u64 = 64 << 10;
/// The longest sleep of a flow; a longer wait for a clock is several. Milliseconds.
const MAX_SLEEP_MS: u64 = 5 * 60 * 1000;
/// What `get-random-bytes` gives in one call, and what the host gives in one call.
const MAX_RANDOM: u64 = 1 << 20;
const RANDOM_PIECE: u64 = 65_536;

type Context<'a> = StoreContextMut<'a, RunState>;
type Instance<'a> = LinkerInstance<'a, RunState>;

/// The run's side of WASI.
pub(crate) struct Wasi {
    seed: [u8; 32],
    insecure: Option<Box<ChaCha20Rng>>,
    handles: u32,
    /// Moments that pollables stand for, by representation minus one.
    timers: Vec<Option<u64>>,
}

impl Wasi {
    pub(crate) fn new(seed: [u8; 32]) -> Wasi {
        Wasi { seed, insecure: None, handles: 0, timers: Vec::new() }
    }

    /// Randomness that nobody must rely on: the seed's, the same again on replay.
    pub(crate) fn random_by_seed(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.generator().fill_bytes(&mut bytes);
        bytes
    }

    fn generator(&mut self) -> &mut ChaCha20Rng {
        let seed = blake3::derive_key("maxhost 2026 wasi:random/insecure", &self.seed);
        self.insecure.get_or_insert_with(|| Box::new(ChaCha20Rng::from_seed(seed)))
    }

    /// Decides the order of the guest's hash maps.
    fn hash_seed(&self) -> (u64, u64) {
        let key = blake3::derive_key("maxhost 2026 wasi:random/insecure-seed", &self.seed);
        let half = |at: usize| key.iter().skip(at).take(8).fold(0, |word, &byte| word << 8 | u64::from(byte));
        (half(0), half(8))
    }

    fn hold(&mut self) -> wasmtime::Result<()> {
        if self.handles >= MAX_HANDLES {
            return Err(refused(format!("holds more than {MAX_HANDLES} WASI handles at once")));
        }
        self.handles += 1;
        Ok(())
    }

    fn release(&mut self) {
        self.handles = self.handles.saturating_sub(1);
    }

    fn set_timer(&mut self, moment: u64) -> wasmtime::Result<Resource<Pollable>> {
        self.hold()?;
        let free = self.timers.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.timers.push(None);
            self.timers.len() - 1
        });
        self.timers[index] = Some(moment);
        // There are at most MAX_HANDLES.
        Ok(Resource::new_own(index as u32 + 1))
    }

    fn moment(&self, pollable: &Resource<Pollable>) -> Option<u64> {
        let index = (pollable.rep() as usize).checked_sub(1)?;
        self.timers.get(index).copied().flatten()
    }
}

enum InputStream {}
enum OutputStream {}
enum IoError {}
enum Pollable {}
enum TerminalInput {}
enum TerminalOutput {}
enum Descriptor {}
enum Foreign {}

const OUT: u32 = 1;
const ERR: u32 = 2;
/// The pollable of what never waits.
const ALWAYS: u32 = 0;

#[derive(ComponentType, Lower)]
#[component(variant)]
enum StreamError {
    // Never made: writing to the log either works or ends the run. The type must have the case all the same.
    #[allow(dead_code)]
    #[component(name = "last-operation-failed")]
    LastOperationFailed(Resource<IoError>),
    #[component(name = "closed")]
    Closed,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

/// Defines what the component imports of WASI.
pub(crate) fn add_to_linker(linker: &mut Linker<RunState>, component: &Component) -> wasmtime::Result<()> {
    let engine = component.engine();
    for (name, item) in component.component_type().imports(engine) {
        let Some(interface) = wasi_interface(name) else { continue };
        let ComponentItem::ComponentInstance(imported) = item.ty else { continue };
        let mut instance = linker.instance(name)?;
        for (export, item) in imported.exports(engine) {
            match item.ty {
                ComponentItem::Resource(_) => define_resource(&mut instance, export)?,
                ComponentItem::ComponentFunc(_) => define_function(&mut instance, interface, export)?,
                _ => {}
            }
        }
    }
    Ok(())
}

fn define_resource(instance: &mut Instance<'_>, name: &str) -> wasmtime::Result<()> {
    let drop_handle = |mut context: Context<'_>, _: u32| {
        context.data_mut().wasi.release();
        Ok(())
    };
    match name {
        "input-stream" => instance.resource(name, ResourceType::host::<InputStream>(), drop_handle),
        "output-stream" => instance.resource(name, ResourceType::host::<OutputStream>(), drop_handle),
        "error" => instance.resource(name, ResourceType::host::<IoError>(), drop_handle),
        "terminal-input" => instance.resource(name, ResourceType::host::<TerminalInput>(), drop_handle),
        "terminal-output" => instance.resource(name, ResourceType::host::<TerminalOutput>(), drop_handle),
        "descriptor" => instance.resource(name, ResourceType::host::<Descriptor>(), drop_handle),
        "pollable" => instance.resource(name, ResourceType::host::<Pollable>(), |mut context: Context<'_>, rep| {
            let wasi = &mut context.data_mut().wasi;
            wasi.release();
            if let Some(timer) = (rep as usize).checked_sub(1).and_then(|index| wasi.timers.get_mut(index)) {
                *timer = None;
            }
            Ok(())
        }),
        _ => instance.resource(name, ResourceType::host::<Foreign>(), drop_handle),
    }
}

fn define_function(instance: &mut Instance<'_>, interface: &str, name: &str) -> wasmtime::Result<()> {
    let defined = match interface {
        "cli/environment" | "cli/exit" | "filesystem/preopens" => define_process(instance, name)?,
        "cli/stdin" | "cli/stdout" | "cli/stderr" => define_standard_streams(instance, name)?,
        "cli/terminal-stdin" | "cli/terminal-stdout" | "cli/terminal-stderr" => define_terminals(instance, name)?,
        "io/streams" => define_input(instance, name)? || define_output(instance, name)?,
        "io/poll" => define_poll(instance, name)?,
        "clocks/monotonic-clock" => define_monotonic_clock(instance, name)?,
        "clocks/wall-clock" => define_wall_clock(instance, name)?,
        "random/random" | "random/insecure" | "random/insecure-seed" => define_random(instance, name)?,
        "sockets/tcp-create-socket" | "sockets/udp-create-socket" | "sockets/ip-name-lookup" => {
            define_refusal(instance, name)?
        }
        _ => false,
    };
    if !defined {
        let full = format!("wasi:{interface}.{name}");
        instance.func_new(name, move |_, _, _, _| Err(refused(format!("called `{full}`, which no flow may use"))))?;
    }
    Ok(())
}

/// No socket is made and no name is looked up: the guest is told so, in the words of WASI.
fn define_refusal(instance: &mut Instance<'_>, name: &str) -> wasmtime::Result<bool> {
    if !["create-tcp-socket", "create-udp-socket", "resolve-addresses"].contains(&name) {
        return Ok(false);
    }
    instance.func_new(name, |_, _, _, results| {
        if let Some(result) = results.first_mut() {
            *result = Val::Result(Err(Some(Box::new(Val::Enum("access-denied".to_owned())))));
        }
        Ok(())
    })?;
    Ok(true)
}

fn define_process(instance: &mut Instance<'_>, name: &str) -> wasmtime::Result<bool> {
    match name {
        "get-environment" => instance.func_wrap(name, |_: Context<'_>, ()| Ok((Vec::<(String, String)>::new(),)))?,
        "get-arguments" => instance.func_wrap(name, |_: Context<'_>, ()| Ok((Vec::<String>::new(),)))?,
        "initial-cwd" => instance.func_wrap(name, |_: Context<'_>, ()| Ok((None::<String>,)))?,
        "get-directories" => {
            instance.func_wrap(name, |_: Context<'_>, ()| Ok((Vec::<(Resource<Descriptor>, String)>::new(),)))?;
        }
        "exit" => instance.func_wrap(name, |_: Context<'_>, (status,): (Result<(), ()>,)| -> wasmtime::Result<()> {
            Err(EndOfRun::Exit(u8::from(status.is_err())).into())
        })?,
        "exit-with-code" => instance.func_wrap(name, |_: Context<'_>, (code,): (u8,)| -> wasmtime::Result<()> {
            Err(EndOfRun::Exit(code).into())
        })?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn define_standard_streams(instance: &mut Instance<'_>, name: &str) -> wasmtime::Result<bool> {
    fn output(context: &mut Context<'_>, rep: u32) -> wasmtime::Result<(Resource<OutputStream>,)> {
        context.data_mut().wasi.hold()?;
        Ok((Resource::new_own(rep),))
    }
    match name {
        "get-stdout" => instance.func_wrap(name, |mut context: Context<'_>, ()| output(&mut context, OUT))?,
        "get-stderr" => instance.func_wrap(name, |mut context: Context<'_>, ()| output(&mut context, ERR))?,
        "get-stdin" => instance.func_wrap(name, |mut context: Context<'_>, ()| {
            context.data_mut().wasi.hold()?;
            Ok((Resource::<InputStream>::new_own(0),))
        })?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn define_terminals(instance: &mut Instance<'_>, name: &str) -> wasmtime::Result<bool> {
    match name {
        "get-terminal-stdin" => {
            instance.func_wrap(name, |_: Context<'_>, ()| Ok((None::<Resource<TerminalInput>>,)))?;
        }
        "get-terminal-stdout" | "get-terminal-stderr" => {
            instance.func_wrap(name, |_: Context<'_>, ()| Ok((None::<Resource<TerminalOutput>>,)))?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Standard input is at its end.
fn define_input(instance: &mut Instance<'_>, name: &str) -> wasmtime::Result<bool> {
    type Read = (Resource<InputStream>, u64);
    match name {
        "[method]input-stream.read" | "[method]input-stream.blocking-read" => {
            instance.func_wrap(name, |_: Context<'_>, _: Read| Ok((Err::<Vec<u8>, _>(StreamError::Closed),)))?;
        }
        "[method]input-stream.skip" | "[method]input-stream.blocking-skip" => {
            instance.func_wrap(name, |_: Context<'_>, _: Read| Ok((Err::<u64, _>(StreamError::Closed),)))?;
        }
        "[method]input-stream.subscribe" => {
            instance.func_wrap(name, |context: Context<'_>, _: (Resource<InputStream>,)| always_ready(context))?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Standard output and standard error take what they are given, at once.
fn define_output(instance: &mut Instance<'_>, name: &str) -> wasmtime::Result<bool> {
    type Stream1 = (Resource<OutputStream>,);
    type Write = (Resource<OutputStream>, Vec<u8>);
    match name {
        "[method]output-stream.check-write" => {
            instance.func_wrap(name, |_: Context<'_>, _: Stream1| Ok((Ok::<_, StreamError>(WRITE_ROOM),)))?;
        }
        "[method]output-stream.write" | "[method]output-stream.blocking-write-and-flush" => {
            instance.func_wrap(name, |mut context: Context<'_>, (stream, bytes): Write| {
                let stream = if stream.rep() == ERR { Stream::Err } else { Stream::Out };
                context.data_mut().write(stream, &bytes)?;
                Ok((Ok::<_, StreamError>(()),))
            })?;
        }
        "[method]output-stream.flush" | "[method]output-stream.blocking-flush" => {
            instance.func_wrap(name, |_: Context<'_>, _: Stream1| Ok((Ok::<_, StreamError>(()),)))?;
        }
        "[method]output-stream.subscribe" => {
            instance.func_wrap(name, |context: Context<'_>, _: Stream1| always_ready(context))?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn always_ready(mut context: Context<'_>) -> wasmtime::Result<(Resource<Pollable>,)> {
    context.data_mut().wasi.hold()?;
    Ok((Resource::new_own(ALWAYS),))
}

fn define_poll(instance: &mut Instance<'_>, name: &str) -> wasmtime::Result<bool> {
    match name {
        "[method]pollable.ready" => {
            instance.func_wrap(name, |mut context: Context<'_>, (pollable,): (Resource<Pollable>,)| {
                Ok((is_ready(context.data_mut(), &pollable),))
            })?;
        }
        "[method]pollable.block" => {
            instance.func_wrap_async(name, |mut context: Context<'_>, (pollable,): (Resource<Pollable>,)| {
                Box::new(async move { wait_for(context.data_mut(), &[pollable]).await.map(drop) })
            })?;
        }
        "poll" => {
            instance.func_wrap_async(name, |mut context: Context<'_>, (pollables,): (Vec<Resource<Pollable>>,)| {
                Box::new(async move { Ok((wait_for(context.data_mut(), &pollables).await?,)) })
            })?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn is_ready(state: &mut RunState, pollable: &Resource<Pollable>) -> bool {
    match state.wasi.moment(pollable) {
        Some(moment) => state.now() >= moment,
        None => true,
    }
}

/// Waits until at least one is ready, and names those that are. A wait that the journal did not know of could not be put
/// away, nor come back the same: so it is a sleep of the flow, or several if it is long.
async fn wait_for(state: &mut RunState, pollables: &[Resource<Pollable>]) -> wasmtime::Result<Vec<u32>> {
    if pollables.is_empty() {
        return Err(refused("polls nothing, which would never end".to_owned()));
    }
    loop {
        let now = state.now();
        let moments: Vec<Option<u64>> = pollables.iter().map(|pollable| state.wasi.moment(pollable)).collect();
        let is_ready = |moment: &Option<u64>| moment.is_none_or(|moment| moment <= now);
        let ready: Vec<u32> =
            (0_u32..).zip(&moments).filter(|(_, moment)| is_ready(moment)).map(|(index, _)| index).collect();
        if !ready.is_empty() {
            return Ok(ready);
        }
        let earliest = moments.iter().flatten().min().copied().unwrap_or(now);
        state.sleep(earliest.saturating_sub(now).div_ceil(1_000_000).min(MAX_SLEEP_MS)).await?;
    }
}

fn define_monotonic_clock(instance: &mut Instance<'_>, name: &str) -> wasmtime::Result<bool> {
    match name {
        "now" => instance.func_wrap(name, |mut context: Context<'_>, ()| Ok((context.data_mut().now(),)))?,
        "resolution" => instance.func_wrap(name, |_: Context<'_>, ()| Ok((1_u64,)))?,
        "subscribe-instant" => instance.func_wrap(name, |mut context: Context<'_>, (moment,): (u64,)| {
            Ok((context.data_mut().wasi.set_timer(moment)?,))
        })?,
        "subscribe-duration" => instance.func_wrap(name, |mut context: Context<'_>, (nanoseconds,): (u64,)| {
            let moment = context.data_mut().now().saturating_add(nanoseconds);
            Ok((context.data_mut().wasi.set_timer(moment)?,))
        })?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn define_wall_clock(instance: &mut Instance<'_>, name: &str) -> wasmtime::Result<bool> {
    match name {
        "now" => instance.func_wrap(name, |mut context: Context<'_>, ()| {
            let now = context.data_mut().now();
            let nanoseconds = (now % 1_000_000_000) as u32;
            Ok((Datetime { seconds: now / 1_000_000_000, nanoseconds },))
        })?,
        "resolution" => {
            instance.func_wrap(name, |_: Context<'_>, ()| Ok((Datetime { seconds: 0, nanoseconds: 1 },)))?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn define_random(instance: &mut Instance<'_>, name: &str) -> wasmtime::Result<bool> {
    match name {
        "get-random-bytes" => instance.func_wrap(name, |mut context: Context<'_>, (length,): (u64,)| {
            Ok((random_bytes(context.data_mut(), length)?,))
        })?,
        "get-random-u64" => instance.func_wrap(name, |mut context: Context<'_>, ()| {
            let bytes = context.data_mut().random(8)?;
            Ok((bytes.iter().take(8).fold(0_u64, |word, &byte| word << 8 | u64::from(byte)),))
        })?,
        "get-insecure-random-bytes" => instance.func_wrap(name, |mut context: Context<'_>, (length,): (u64,)| {
            let length = checked_length(length)?;
            Ok((context.data_mut().wasi.random_by_seed(length as usize),))
        })?,
        "get-insecure-random-u64" => instance
            .func_wrap(name, |mut context: Context<'_>, ()| Ok((context.data_mut().wasi.generator().next_u64(),)))?,
        "insecure-seed" => {
            instance.func_wrap(name, |context: Context<'_>, ()| Ok((context.data().wasi.hash_seed(),)))?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn random_bytes(state: &mut RunState, length: u64) -> wasmtime::Result<Vec<u8>> {
    let mut left = checked_length(length)?;
    let mut bytes = Vec::with_capacity(left as usize);
    while left > 0 {
        let piece = left.min(RANDOM_PIECE);
        bytes.extend_from_slice(&state.random(piece as u32)?);
        left -= piece;
    }
    Ok(bytes)
}

fn checked_length(length: u64) -> wasmtime::Result<u64> {
    if length > MAX_RANDOM {
        return Err(refused(format!("asks for {length} random bytes at once, at most {MAX_RANDOM} are given")));
    }
    Ok(length)
}

fn refused(reason: String) -> wasmtime::Error {
    EndOfRun::Refused(reason).into()
}

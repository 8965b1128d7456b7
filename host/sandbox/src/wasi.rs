//! WASI 0.2, which language runtimes call whether their program needs it or not: wasmtime's own implementation, with
//! nothing of the machine behind it.
//!
//! Environment, arguments and standard input are empty; no folder is open, so there is no file to be found; no socket may
//! be made and no name looked up, and the guest is told so in the words of WASI. What the journal has to answer is not
//! wasmtime's but the flow's: the clocks and the waiting for them (`clocks.rs`), randomness (`random.rs`). Standard
//! output goes to the log (`streams.rs`).

mod clocks;
mod random;
mod streams;

use wasmtime::component::{HasData, HasSelf, Linker, ResourceTable};
use wasmtime_wasi::cli::{WasiCli, WasiCliCtx, WasiCliCtxView};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemCtx, WasiFilesystemCtxView};
use wasmtime_wasi::p2::bindings::{cli, clocks as clock, filesystem, random as randomness, sockets};
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsCtx, WasiSocketsCtxView};
use wasmtime_wasi_io::bindings::wasi::io;

use self::clocks::Deadlines;
use self::random::Randomness;
use self::streams::Written;
use crate::state::{EndOfRun, RunState};

/// Streams, pollables, errors and the like that a guest may hold at once; a timer counts as two. Each costs the host
/// memory.
pub(crate) const MAX_HANDLES: usize = 1024;

/// The run's side of WASI.
pub(crate) struct Wasi {
    table: ResourceTable,
    cli: WasiCliCtx,
    files: WasiFilesystemCtx,
    sockets: WasiSocketsCtx,
    deadlines: Deadlines,
    randomness: Randomness,
    written: Written,
}

impl Wasi {
    pub(crate) fn new(seed: [u8; 32]) -> Wasi {
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        Wasi {
            table,
            // Each of these begins with nothing in it and nothing allowed.
            cli: WasiCliCtx::default(),
            files: WasiFilesystemCtx::default(),
            sockets: WasiSocketsCtx::default(),
            deadlines: Deadlines::default(),
            randomness: Randomness::new(seed),
            written: Written::default(),
        }
    }

    /// Randomness that nobody must rely on: the seed's, the same again on replay.
    pub(crate) fn random_by_seed(&mut self, length: usize) -> Vec<u8> {
        self.randomness.bytes(length)
    }
}

/// The handles alone.
struct Handles;

impl HasData for Handles {
    type Data<'a> = &'a mut ResourceTable;
}

/// Defines all of WASI that there is. A component is linked with the functions that it imports, under whichever version
/// 0.2.x it imports them.
pub(crate) fn add_to_linker(linker: &mut Linker<RunState>) -> wasmtime::Result<()> {
    type Flow = HasSelf<RunState>;
    let l = linker;

    io::poll::add_to_linker::<_, Flow>(l, flow)?;
    io::streams::add_to_linker::<_, Flow>(l, flow)?;
    clock::monotonic_clock::add_to_linker::<_, Flow>(l, flow)?;
    clock::wall_clock::add_to_linker::<_, Flow>(l, flow)?;
    randomness::random::add_to_linker::<_, Flow>(l, flow)?;
    randomness::insecure::add_to_linker::<_, Flow>(l, flow)?;
    randomness::insecure_seed::add_to_linker::<_, Flow>(l, flow)?;
    cli::stdout::add_to_linker::<_, Flow>(l, flow)?;
    cli::stderr::add_to_linker::<_, Flow>(l, flow)?;

    io::error::add_to_linker::<_, Handles>(l, |state| &mut state.wasi.table)?;
    cli::environment::add_to_linker::<_, WasiCli>(l, command_line)?;
    cli::exit::add_to_linker::<_, WasiCli>(l, command_line)?;
    cli::stdin::add_to_linker::<_, WasiCli>(l, command_line)?;
    cli::terminal_input::add_to_linker::<_, WasiCli>(l, command_line)?;
    cli::terminal_output::add_to_linker::<_, WasiCli>(l, command_line)?;
    cli::terminal_stdin::add_to_linker::<_, WasiCli>(l, command_line)?;
    cli::terminal_stdout::add_to_linker::<_, WasiCli>(l, command_line)?;
    cli::terminal_stderr::add_to_linker::<_, WasiCli>(l, command_line)?;
    filesystem::types::add_to_linker::<_, WasiFilesystem>(l, files)?;
    filesystem::preopens::add_to_linker::<_, WasiFilesystem>(l, files)?;
    let options = sockets::network::LinkOptions::default();
    sockets::network::add_to_linker::<_, WasiSockets>(l, &options, no_sockets)?;
    sockets::instance_network::add_to_linker::<_, WasiSockets>(l, no_sockets)?;
    sockets::tcp::add_to_linker::<_, WasiSockets>(l, no_sockets)?;
    sockets::tcp_create_socket::add_to_linker::<_, WasiSockets>(l, no_sockets)?;
    sockets::udp::add_to_linker::<_, WasiSockets>(l, no_sockets)?;
    sockets::udp_create_socket::add_to_linker::<_, WasiSockets>(l, no_sockets)?;
    sockets::ip_name_lookup::add_to_linker::<_, WasiSockets>(l, no_sockets)
}

fn flow(state: &mut RunState) -> &mut RunState {
    state
}

fn command_line(state: &mut RunState) -> WasiCliCtxView<'_> {
    WasiCliCtxView { ctx: &mut state.wasi.cli, table: &mut state.wasi.table }
}

fn files(state: &mut RunState) -> WasiFilesystemCtxView<'_> {
    WasiFilesystemCtxView { ctx: &mut state.wasi.files, table: &mut state.wasi.table }
}

fn no_sockets(state: &mut RunState) -> WasiSocketsCtxView<'_> {
    WasiSocketsCtxView { ctx: &mut state.wasi.sockets, table: &mut state.wasi.table }
}

fn refused(reason: String) -> wasmtime::Error {
    EndOfRun::Refused(reason).into()
}

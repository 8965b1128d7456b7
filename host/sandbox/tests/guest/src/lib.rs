//! Flows that do one thing each, good or bad, for the tests of the sandbox. Arguments and results are bare bytes.

use std::cell::Cell;
use std::collections::HashMap;
use std::hint::black_box;
use std::io::{Read, Write};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

wit_bindgen::generate!({ path: "../../../../wit", world: "flows" });

use maxhost::cordapp::flow;
use maxhost::cordapp::types::{FailureKind, FlowDescriptor, LogLevel};

/// The tests change these bytes in the finished component.
#[used]
static DESCRIBE_MODE: [u8; 20] = *b"describe-mode:normal";

struct TestGuest;
export!(TestGuest);

type Flow = fn(Vec<u8>) -> Result<Vec<u8>, Failure>;

const FLOWS: &[(&str, Flow)] = &[
    ("echo", |arguments| Ok(arguments)),
    ("fail", fail),
    ("identity", identity),
    ("talk", talk),
    ("calls", calls),
    ("hash-order", hash_order),
    ("clocks", clocks),
    ("random", random),
    ("environment", environment),
    ("outside", outside),
    ("print-zeroes", print_zeroes),
    ("print-empty-lines", print_empty_lines),
    ("poll-clocks", poll_clocks),
    ("sleep-by-clock", sleep_by_clock),
    ("exit", |_| std::process::exit(3)),
    ("spin", spin),
    ("spin-after-wait", spin_after_wait),
    ("eat-memory", eat_memory),
    ("grow", grow),
    ("recurse", |_| Ok(recurse(1).to_le_bytes().to_vec())),
    ("panic", |_| panic!("the sky is falling")),
    ("stray", stray),
    ("flood", flood),
    ("log", log),
    ("print", print),
    ("hoard-handles", hoard_handles),
    ("statics", statics),
    ("nan", nan),
];

impl Guest for TestGuest {
    fn describe() -> Descriptor {
        match &black_box(&DESCRIBE_MODE)[14..] {
            b"panic!" => panic!("no idea what I am"),
            b"spin!!" => drop(spin(Vec::new())),
            b"flow!!" => drop(flow::our_identity()),
            _ => {}
        }
        let flows = FLOWS.iter().map(|(name, _)| FlowDescriptor {
            name: (*name).to_owned(),
            doc: format!("Does {name}."),
            startable: true,
            initiating: true,
            responds_to: None,
            version: 1,
            arguments: Some("true".to_owned()),
            result_schema: None,
        });
        Descriptor {
            name: "sandbox-test".to_owned(),
            version: "0.1.0".to_owned(),
            vendor: "maxhost".to_owned(),
            flows: flows.collect(),
        }
    }

    fn run(invocation: Invocation) -> Result<Vec<u8>, Failure> {
        match FLOWS.iter().find(|(name, _)| *name == invocation.flow) {
            Some((_, flow)) => flow(invocation.arguments),
            None => Err(failure(FailureKind::IllegalArgument, "no such flow")),
        }
    }
}

fn failure(kind: FailureKind, message: &str) -> Failure {
    Failure { kind, message: message.to_owned(), exception: None, data: None, error_id: None, peer: None, limit: None }
}

fn fail(_: Vec<u8>) -> Result<Vec<u8>, Failure> {
    Err(Failure {
        exception: Some("test/refused".to_owned()),
        data: Some(vec![1, 2, 3]),
        error_id: Some(u64::MAX),
        peer: Some("O=Bob, L=New York, C=US".to_owned()),
        limit: Some("sessions".to_owned()),
        ..failure(FailureKind::FlowException, "refused")
    })
}

fn identity(_: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let ours = flow::our_identity();
    Ok(format!("{} {:?} {}", ours.name, ours.owning_key, flow::flow_id()).into_bytes())
}

/// One session, back and forth until the peer ends; a failed receive is told to the peer.
fn talk(_: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let session = flow::open_session("talk", "O=Bob")?;
    let mut all = flow::send_and_receive(session, b"hello")?;
    while let Some(more) = flow::receive_or_end(session)? {
        all.extend(more);
    }
    flow::close(&[session])?;
    Ok(all)
}

/// As many calls that may wait as the argument says (u32, little-endian).
fn calls(arguments: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let count = u32::from_le_bytes(arguments.try_into().unwrap_or_default());
    let mut sum = 0_u64;
    for _ in 0..count {
        sum += flow::send_and_receive(0, &[7; 200])?.len() as u64;
    }
    Ok(sum.to_le_bytes().to_vec())
}

fn hash_order(_: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let map = (0_u8..32).map(|key| (key, ())).collect::<HashMap<_, _>>();
    Ok(map.into_keys().collect())
}

fn clocks(_: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let start = Instant::now();
    Ok(format!("{} {} {}", since.as_nanos(), flow::now(), start.elapsed().as_nanos()).into_bytes())
}

fn random(_: Vec<u8>) -> Result<Vec<u8>, Failure> {
    flow::random(16)
}

fn environment(_: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let mut input = String::new();
    let read = std::io::stdin().read_to_string(&mut input).unwrap_or(usize::MAX);
    let thread = std::thread::Builder::new().spawn(|| ()).is_err();
    let file = std::fs::read("/etc/passwd").is_err();
    let listing = std::fs::read_dir("/").is_err();
    let connect = std::env::vars().count() + std::env::args().count();
    Ok(format!("stdin={read} no-thread={thread} no-file={file} no-dir={listing} vars={connect}").into_bytes())
}

/// Asks WASI itself for whatever lies outside: what a language runtime would be told.
fn outside(_: Vec<u8>) -> Result<Vec<u8>, Failure> {
    use wasip2::filesystem::preopens::get_directories;
    use wasip2::sockets::network::IpAddressFamily;
    use wasip2::sockets::{instance_network, ip_name_lookup, tcp_create_socket, udp_create_socket};

    let tcp = tcp_create_socket::create_tcp_socket(IpAddressFamily::Ipv4).map(drop);
    let udp = udp_create_socket::create_udp_socket(IpAddressFamily::Ipv6).map(drop);
    let network = instance_network::instance_network();
    let name = ip_name_lookup::resolve_addresses(&network, "localhost").map(drop);
    let folders = get_directories().len();
    let terminal = wasip2::cli::terminal_stdout::get_terminal_stdout().is_some();
    let input = wasip2::cli::stdin::get_stdin().blocking_read(10).map(|bytes| bytes.len());
    Ok(format!("{tcp:?} {udp:?} {name:?} folders={folders} terminal={terminal} {input:?}").into_bytes())
}

/// Has its host make so many bytes of output (u64, little-endian).
fn print_zeroes(arguments: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let count = u64::from_le_bytes(arguments.try_into().unwrap_or_default());
    let _ = wasip2::cli::stdout::get_stdout().write_zeroes(count);
    Ok(Vec::new())
}

/// Writes so many empty lines (u64, little-endian) in one call.
fn print_empty_lines(arguments: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let count = u64::from_le_bytes(arguments.try_into().unwrap_or_default());
    let lines = vec![b'\n'; usize::try_from(count).unwrap_or_default()];
    let _ = wasip2::cli::stdout::get_stdout().write(&lines);
    Ok(Vec::new())
}

/// Waits for the first of three moments, and names those of five pollables that are ready then.
fn poll_clocks(_: Vec<u8>) -> Result<Vec<u8>, Failure> {
    use wasip2::clocks::monotonic_clock::{now, subscribe_duration, subscribe_instant};
    const SECOND: u64 = 1_000_000_000;

    let late = [subscribe_duration(700 * SECOND), subscribe_instant(now() + 400 * SECOND), subscribe_duration(u64::MAX)];
    let waiting: Vec<_> = late.iter().collect();
    let first = wasip2::io::poll::poll(&waiting);
    let output = wasip2::cli::stdout::get_stdout();
    let stream = output.subscribe();
    let all: Vec<_> = late.iter().chain([&stream]).collect();
    let then = wasip2::io::poll::poll(&all);
    late[0].block();
    let ready: Vec<bool> = late.iter().map(|pollable| pollable.ready()).collect();
    Ok(format!("{first:?} {then:?} {ready:?}").into_bytes())
}

fn sleep_by_clock(_: Vec<u8>) -> Result<Vec<u8>, Failure> {
    std::thread::sleep(Duration::from_secs(3600));
    Ok(Vec::new())
}

fn spin(_: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let mut x = 1_u64;
    loop {
        x = black_box(x.wrapping_mul(31));
    }
}

/// Waits once for each byte of the argument and computes after it, for about as many ticks as the host has told.
fn spin_after_wait(arguments: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let mut x = 1_u64;
    for _ in &arguments {
        flow::receive(0)?;
        for _ in 0..20_000_000 {
            x = black_box(x.wrapping_mul(31));
        }
    }
    Ok(x.to_le_bytes().to_vec())
}

fn eat_memory(_: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let mut all = Vec::new();
    loop {
        all.push(black_box(vec![1_u8; 1 << 20]));
    }
}

/// Takes as many mebibytes as the argument says.
fn grow(arguments: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let size = usize::from(arguments.first().copied().unwrap_or_default()) << 20;
    Ok(vec![black_box(vec![1_u8; size]).iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))])
}

#[allow(unconditional_recursion)]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    recurse(depth + 1) + frame[(depth % 64) as usize]
}

/// Reads where no memory is.
fn stray(_: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let nowhere = black_box(0xfff0_0000_usize) as *const u8;
    // SAFETY: none; it is what the test is about.
    Ok(vec![unsafe { nowhere.read_volatile() }])
}

fn flood(_: Vec<u8>) -> Result<Vec<u8>, Failure> {
    loop {
        println!("{}", "noise ".repeat(10));
    }
}

fn log(_: Vec<u8>) -> Result<Vec<u8>, Failure> {
    flow::log(LogLevel::Warn, "careful");
    flow::progress("half way");
    Ok(Vec::new())
}

fn print(_: Vec<u8>) -> Result<Vec<u8>, Failure> {
    print!("one\ntwo");
    let _ = std::io::stdout().flush();
    eprintln!("three");
    println!(" and a half");
    print!("left over");
    let _ = std::io::stdout().flush();
    Ok(Vec::new())
}

/// Takes handles of WASI and never gives one back.
fn hoard_handles(_: Vec<u8>) -> Result<Vec<u8>, Failure> {
    loop {
        std::mem::forget(wasip2::cli::stdout::get_stdout());
    }
}

static mut COUNTER: u32 = 0;
thread_local!(static LOCAL: Cell<u32> = const { Cell::new(0) });

/// Counts, in a static and a thread-local, how often it waited: as many times as the argument has bytes.
fn statics(arguments: Vec<u8>) -> Result<Vec<u8>, Failure> {
    for _ in &arguments {
        // SAFETY: there is one thread.
        unsafe { COUNTER += 1 };
        LOCAL.set(LOCAL.get() + 1);
        flow::receive(0)?;
    }
    // SAFETY: as above.
    Ok(format!("{} {}", unsafe { COUNTER }, LOCAL.get()).into_bytes())
}

fn nan(_: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let zero = black_box(0.0_f64);
    Ok((zero / zero).to_bits().to_le_bytes().to_vec())
}

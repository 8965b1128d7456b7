//! `make demo`: what a maxhost does, on a network of its own, checked step by step.
//!
//! A development network, a host, flows started through gRPC; then the host is killed while they run, started again,
//! and the same flows finish. The same with money: issued, paid, traded, and paid while the host is killed. Ends with exit
//! code 0 only if all of that was seen to be true.

mod money;

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use maxhost_rpc::proto::v1 as pb;
use maxhost_rpc::proto::v1::flow_event::Event;
use maxhost_rpc::{Client, FollowFrom, FollowOptions, Observation};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const BOB: &str = "O=Bob, L=New York, C=US";
const CAROL: &str = "O=Carol, L=Paris, C=FR";
/// Enough rounds that the host is killed in the middle of them on any machine, and few enough for a flow's journal.
const ROUNDS: u64 = 15_000;
/// The round after which the host is killed.
const FATAL_ROUND: u64 = 200;
const BEATS: u64 = 20;
/// An orderly stop takes less.
const STOP: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(demo()));
    match outcome {
        Ok(()) => {
            say("Everything above was checked: the demonstration has succeeded.");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\nThe demonstration has failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) {
    println!("{text}");
}

async fn demo() -> Outcome<()> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target").canonicalize()?;
    let folder = target.join("demo");
    say("1. A development network: authorities, keys, four identities, a configuration.");
    make_network(&target, &folder)?;

    say("2. The host starts.");
    let mut host = Host::start(&target, &folder)?;
    say(&format!(
        "   {} identities in one process, gRPC on {}, ready after {} ms.",
        host.identities, host.grpc, host.start_ms
    ));
    let client = client(&folder);

    say("3. Alice asks Bob three times over (ping-pong), and two dealers for a price (quotes).");
    let rounds = run(&client, "ping-pong/ping", json!({"peer": BOB, "count": 3})).await?;
    expect("ping-pong", &rounds, &json!({"rounds": 3}))?;
    say(&format!("   ping-pong answered {rounds}."));
    let dealers = json!({"dealers": [BOB, CAROL], "item": "XS1", "quantity": 10, "deadline_ms": 10_000});
    let quote = run(&client, "quotes/request", dealers).await?;
    expect("the number of answers", &quote["answers"], &json!(2))?;
    say(&format!("   quotes answered {quote}."));

    say(&format!("4. Two long flows: a ping-pong of {ROUNDS} rounds, and {BEATS} heartbeats."));
    // The slow one first: the other does thousands of rounds between two beats.
    let (beat, beat_seen) = follow(&client, "heartbeat/beat", json!({"beats": BEATS, "interval_ms": 200}));
    wait_for(&beat_seen, 1).await?;
    let (ping, ping_seen) = follow(&client, "ping-pong/ping", json!({"peer": BOB, "count": ROUNDS}));
    wait_for(&ping_seen, FATAL_ROUND).await?;

    host.kill()?;
    let reached = (ping_seen.load(Ordering::SeqCst), beat_seen.load(Ordering::SeqCst));
    say(&format!("5. kill -9 of the host, after round {} of {ROUNDS} and beat {} of {BEATS}.", reached.0, reached.1));
    if reached.0 >= ROUNDS || reached.1 >= BEATS || ping.is_finished() || beat.is_finished() {
        return Err("the flows had ended before the host was killed".into());
    }

    say("6. The host starts again.");
    let mut host = Host::start(&target, &folder)?;
    say(&format!("   Ready after {} ms, gRPC on {}.", host.start_ms, host.grpc));
    let rounds = ping.await??;
    expect("the long ping-pong", &rounds, &json!({"rounds": ROUNDS}))?;
    let beats = beat.await??;
    expect("the heartbeat", &beats, &json!({"beats": BEATS}))?;
    say(&format!("   The same flows went on where they were and finished: {rounds}, {beats}."));

    money::demo(&mut host, &client, &target, &folder).await?;

    say("12. The host stops in order.");
    let took = host.stop()?;
    say(&format!("   After {} ms, without a trace of being there.", took.as_millis()));
    if folder.join("data/endpoint").exists() {
        return Err("the stopped host left its endpoint behind".into());
    }
    Ok(())
}

fn expect(what: &str, found: &Value, expected: &Value) -> Outcome<()> {
    if found == expected { Ok(()) } else { Err(format!("{what}: expected {expected}, found {found}").into()) }
}

fn maxhost(target: &Path) -> Command {
    let binary = std::env::var_os("MAXHOST_BIN").map_or_else(|| target.join("release/maxhost"), PathBuf::from);
    let mut command = Command::new(binary);
    command.env_remove("MAXHOST_CONFIG").env_remove("MAXHOST_ENDPOINT").env_remove("MAXHOST_PASSPHRASE");
    command
}

fn make_network(target: &Path, folder: &Path) -> Outcome<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    let output = maxhost(target)
        .arg("init")
        .arg(folder)
        .arg("--cordapps")
        .arg(target.join("cordapps"))
        .arg("--json")
        .output()?;
    if !output.status.success() {
        return Err(format!("maxhost init: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let made: Value = serde_json::from_slice(&output.stdout)?;
    for name in made["identities"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        say(&format!("   {name}"));
    }
    Ok(())
}

/// A running host.
struct Host {
    child: Child,
    grpc: String,
    identities: u64,
    start_ms: u64,
}

impl Host {
    fn start(target: &Path, folder: &Path) -> Outcome<Host> {
        let log = std::fs::File::options().create(true).append(true).open(folder.join("host.log"))?;
        let mut child = maxhost(target)
            .args(["run", "--json", "--config"])
            .arg(folder.join("maxhost.toml"))
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("the host has no output")?).lines();
        let first = lines
            .next()
            .ok_or_else(|| format!("the host did not start: see {}", folder.join("host.log").display()))??;
        // Read on, so that the host never writes into a closed pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let ready: Value = serde_json::from_str(&first)?;
        if ready["event"] != "ready" {
            return Err(format!("the first event is not 'ready': {first}").into());
        }
        Ok(Host {
            child,
            grpc: ready["grpc"].as_str().unwrap_or_default().to_owned(),
            identities: ready["identities"].as_u64().unwrap_or_default(),
            start_ms: ready["start_ms"].as_u64().unwrap_or_default(),
        })
    }

    /// SIGKILL: nothing in the process can prepare for it.
    fn kill(&mut self) -> Outcome<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM; gives the time it took to end.
    fn stop(&mut self) -> Outcome<Duration> {
        let started = Instant::now();
        // SAFETY: sends a signal to our own child, which has not been waited for, so that its number is still its own.
        if unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) } != 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        let status = self.child.wait()?;
        let took = started.elapsed();
        if !status.success() || took > STOP {
            return Err(format!("the host stopped with {status} after {took:?}").into());
        }
        Ok(took)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Left over only when the demonstration failed; it has ended already otherwise.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// A client that finds the host wherever it listens after a restart.
fn client(folder: &Path) -> Client {
    let file = folder.join("data/endpoint");
    let source = move || {
        std::fs::read_to_string(&file)
            .map(|text| text.trim().to_owned())
            .map_err(|error| maxhost_model::Problem::new(maxhost_model::Code::HostUnreachable, error.to_string()))
    };
    Client::new(Arc::new(source), Duration::from_secs(30))
}

fn start(identity: &str, flow: &str, arguments: &Value, client_id: Option<String>) -> FollowFrom {
    FollowFrom::Start(pb::StartFlowRequest {
        identity: identity.to_owned(),
        flow: flow.to_owned(),
        arguments: Some(pb::start_flow_request::Arguments::Json(arguments.to_string())),
        client_id,
        encoding: pb::Encoding::Json.into(),
    })
}

fn patience() -> FollowOptions {
    let deadline = Some(tokio::time::Instant::now() + Duration::from_secs(300));
    FollowOptions { deadline, patience: Duration::from_secs(120) }
}

/// Runs a flow of Alice to its end.
async fn run(client: &Client, flow: &str, arguments: Value) -> Outcome<Value> {
    run_of(client, "Alice", flow, arguments).await
}

/// Runs a flow to its end.
async fn run_of(client: &Client, identity: &str, flow: &str, arguments: Value) -> Outcome<Value> {
    result(client.follow(start(identity, flow, &arguments, None), patience(), |_| {}).await?)
}

/// Starts a flow and follows it, over restarts of the host. The counter shows the last progress that was seen.
fn follow(client: &Client, flow: &'static str, arguments: Value) -> (JoinHandle<Outcome<Value>>, Arc<AtomicU64>) {
    let seen = Arc::new(AtomicU64::new(0));
    let (client, counter) = (client.clone(), Arc::clone(&seen));
    let task = tokio::spawn(async move {
        let mut broken = None;
        let from = start("Alice", flow, &arguments, Some(format!("demo-{flow}")));
        let ended = client.follow(from, patience(), |observation| {
            if let Observation::Event { event: Event::Progress(label), cursor } = observation {
                // A client that attaches again behind its cursor is told nothing twice.
                if cursor <= counter.swap(cursor, Ordering::SeqCst) {
                    broken.get_or_insert(format!("'{label}' was told twice"));
                }
            }
        });
        let ended = ended.await?;
        match broken {
            Some(what) => Err(what.into()),
            None => result(ended),
        }
    });
    (task, seen)
}

fn result(flow: pb::Flow) -> Outcome<Value> {
    match flow.end {
        Some(pb::flow::End::Result(pb::Payload { encoding: Some(pb::payload::Encoding::Json(json)) })) => {
            Ok(serde_json::from_str(&json)?)
        }
        other => Err(format!("{} ended without a result: {other:?}", flow.flow).into()),
    }
}

async fn wait_for(seen: &AtomicU64, progress: u64) -> Outcome<()> {
    let deadline = Instant::now() + Duration::from_secs(120);
    while seen.load(Ordering::SeqCst) < progress {
        if Instant::now() > deadline {
            return Err("the flows made no progress".into());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

//! What must be the same when a flow is run again.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::hint::black_box;

use maxhost_sdk::prelude::*;

use crate::With;

/// All that differs from run to run elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Observation {
    /// In which order a hash map gives its keys.
    pub hash_map_order: Vec<u32>,
    /// What a fresh hasher makes of a constant: shows its seed.
    pub hash_of_constant: u64,
    /// The flow's time, nanoseconds since 1970.
    pub now: u64,
    /// The standard library's clock, the same unit.
    pub system_time: u64,
    /// Random bytes.
    pub random: Vec<u8>,
    /// Bits of numbers that are none.
    pub nan_bits: Vec<u64>,
    /// Address of a fresh allocation.
    pub address: u64,
    /// This flow's id.
    pub flow_id: String,
}

/// What was seen.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Observations {
    /// One before each wait and one after the last.
    pub observations: Vec<Observation>,
}

fn observe() -> Result<Observation> {
    let set: HashSet<u32> = (0..32).collect();
    let map: HashMap<u32, ()> = (0..16).map(|key| (key, ())).collect();
    let mut hash_map_order: Vec<u32> = map.into_keys().collect();
    hash_map_order.extend(set);
    let (zero, nought) = (black_box(0.0f64), black_box(0.0f64));
    let system_time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let allocation = black_box(vec![0u8; 100]);
    Ok(Observation {
        hash_map_order,
        hash_of_constant: RandomState::new().hash_one(42u8),
        now: now().as_unix_nanos(),
        system_time: u64::try_from(system_time.as_nanos())?,
        random: random(16)?,
        nan_bits: vec![
            (zero / nought).to_bits(),
            (-zero / nought).to_bits(),
            f64::INFINITY.mul_add(zero, 1.0).to_bits(),
        ],
        address: allocation.as_ptr() as u64,
        flow_id: flow_id(),
    })
}

/// Looks at all that could differ, before and after waits, and fails when a replay sees something else: the peer sends
/// back what the first run saw, and how long the flow sleeps depends on it too.
#[flow(startable)]
pub fn determinism(input: With) -> Result<Observations> {
    let session = initiate(&input.peer)?;
    let mut observations = Vec::new();
    for _ in 0..4 {
        let observed = observe()?;
        let first_seen: Observation = session.send_and_receive(&observed)?;
        ensure!(first_seen == observed, "a replay saw {observed:?} instead of {first_seen:?}");
        sleep(Duration::from_millis(digest(&observed) % 8))?;
        observations.push(observed);
    }
    observations.push(observe()?);
    Ok(Observations { observations })
}

fn digest(observed: &Observation) -> u64 {
    let mut hasher = DefaultHasher::new();
    observed.hash(&mut hasher);
    hasher.finish()
}

/// Sends everything back.
#[flow(responds_to = "determinism")]
pub fn echo(session: Session) -> Result<()> {
    while let Some(observation) = session.receive_or_close::<Observation>()? {
        session.send(&observation)?;
    }
    Ok(())
}

/// Behaves differently when it is run again by the other build of this CorDapp, `hostile/altered`. A guest has nothing of
/// its own to be non-deterministic with.
#[flow(startable)]
pub fn nondeterministic() -> Result<()> {
    for _ in 0..1_000 {
        sleep(Duration::from_millis(10))?;
    }
    Ok(())
}

/// How often.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Lines {
    /// How many lines.
    pub lines: u32,
}

/// Logs a line before each wait and one behind it: replays must not log them again, nor keep them to themselves.
#[flow(startable)]
pub fn talkative(input: Lines) -> Result<()> {
    for number in 1..=input.lines {
        info!("before wait {number}.");
        sleep(Duration::from_millis(1))?;
        info!("behind wait {number}.");
    }
    Ok(())
}

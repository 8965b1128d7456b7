//! Random programs: what the guests of the simulation do.

/// A seeded source of choices (SplitMix64): the same again on every machine.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// True once in `of` times.
    pub fn one_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

pub fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Sessions are named by any number, taken modulo the sessions there are; without any the step is left out.
#[derive(Debug, Clone)]
pub enum Op {
    /// With a flow of this program; [`UNKNOWN`] has none.
    Open {
        program: usize,
        party: usize,
    },
    /// There is no such party.
    OpenNobody,
    Send {
        to: Vec<usize>,
        size: usize,
    },
    Receive {
        from: usize,
        or_end: bool,
    },
    Exchange(usize),
    ReceiveAll(Vec<usize>),
    WaitAny {
        sessions: Vec<usize>,
        wait_ms: Option<u64>,
    },
    /// Receives until the peer ends.
    Drain(usize),
    Close(Vec<usize>),
    FlowInfo(usize),
    Sleep(u64),
    Note,
    Random(usize),
    Now,
    Label,
    /// Leaves out so many steps if the last answer says so.
    SkipIfOdd(usize),
    Throw,
    Panic,
}

/// No flow answers this program.
pub const UNKNOWN: usize = 999;

#[derive(Debug, Clone)]
pub struct Step {
    pub op: Op,
    /// An error of this step is caught, and the program goes on.
    pub caught: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Program {
    pub steps: Vec<Step>,
}

#[derive(Debug)]
pub struct Plan {
    pub parties: usize,
    /// Party `p` lives in database `p % databases`.
    pub databases: usize,
    pub programs: Vec<Program>,
    /// Party and program of the flows that are started from outside.
    pub roots: Vec<(usize, usize)>,
    /// The largest message, bytes.
    pub message_limit: usize,
    /// The largest journal, entries.
    pub entry_limit: u64,
    /// Nothing in it depends on the order of events: every run must see the same, without errors.
    pub scripted: bool,
}

impl Plan {
    pub fn random(rng: &mut Rng) -> Plan {
        if rng.one_in(4) { scripted(rng) } else { wild(rng) }
    }
}

/// Anything goes: programs may wait for each other for ever, fail, and talk to nobody.
fn wild(rng: &mut Rng) -> Plan {
    let parties = rng.between(2, 4);
    let roots = rng.between(1, 2);
    let programs = roots + rng.between(1, 2);
    let plan = |index: usize, rng: &mut Rng| {
        let mut steps = Vec::new();
        let later = (index + 1).max(roots);
        if index < roots {
            steps.push(Step { op: opening(rng, later, programs, parties), caught: false });
        }
        for _ in 0..rng.between(1, 6) {
            let op = match rng.below(16) {
                0 => opening(rng, later, programs, parties),
                _ => wild_op(rng),
            };
            steps.push(Step { op, caught: rng.one_in(2) });
        }
        Program { steps }
    };
    Plan {
        parties,
        databases: rng.between(1, 2),
        programs: (0..programs).map(|index| plan(index, rng)).collect(),
        roots: (0..roots).map(|program| (rng.below(parties), program)).collect(),
        message_limit: 60,
        entry_limit: if rng.one_in(16) { rng.between(3, 12) as u64 } else { 10_000 },
        scripted: false,
    }
}

fn opening(rng: &mut Rng, later: usize, programs: usize, parties: usize) -> Op {
    match rng.below(12) {
        0 => Op::OpenNobody,
        1 => Op::Open { program: UNKNOWN, party: rng.below(parties) },
        _ if later < programs => Op::Open { program: rng.between(later, programs - 1), party: rng.below(parties) },
        _ => Op::Label,
    }
}

fn some(rng: &mut Rng) -> Vec<usize> {
    (0..rng.between(1, 3)).map(|_| rng.below(6)).collect()
}

fn wild_op(rng: &mut Rng) -> Op {
    let session = rng.below(6);
    match rng.below(24) {
        0..=3 => Op::Send { to: vec![session], size: rng.below(40) },
        4 => Op::Send { to: some(rng), size: rng.below(52) },
        5..=7 => Op::Receive { from: session, or_end: rng.one_in(2) },
        8..=10 => Op::Exchange(session),
        11 => Op::ReceiveAll(some(rng)),
        12 => Op::WaitAny { sessions: some(rng), wait_ms: (!rng.one_in(3)).then(|| rng.below(20) as u64) },
        13 => Op::Drain(session),
        14 => Op::Close(vec![session]),
        15 => Op::FlowInfo(session),
        16 => Op::Sleep(if rng.one_in(8) { 300_001 } else { rng.below(30) as u64 }),
        17 => Op::Note,
        18 => Op::Random(rng.below(20)),
        19 => Op::Now,
        20 => Op::Label,
        21 => Op::SkipIfOdd(rng.between(1, 2)),
        22 => {
            if rng.one_in(2) {
                Op::Throw
            } else {
                Op::Panic
            }
        }
        _ => Op::Receive { from: session, or_end: true },
    }
}

/// Both ends of each session follow one script, and sessions form a tree: no program can wait for ever, and none can
/// meet an error.
fn scripted(rng: &mut Rng) -> Plan {
    let mut plan = Plan {
        parties: rng.between(2, 4),
        databases: rng.between(1, 2),
        programs: Vec::new(),
        roots: Vec::new(),
        message_limit: 1_000,
        entry_limit: 10_000,
        scripted: true,
    };
    for _ in 0..rng.between(1, 2) {
        let program = scripted_program(rng, &mut plan, &[], 2);
        plan.roots.push((rng.below(plan.parties), program));
    }
    plan
}

/// Adds a program whose session 0, if it has one, follows `given`: true for a message that it sends. Answers its index.
fn scripted_program(rng: &mut Rng, plan: &mut Plan, given: &[bool], depth: usize) -> usize {
    let index = plan.programs.len();
    plan.programs.push(Program::default());
    let mut scripts: Vec<Vec<bool>> = Vec::new();
    let mut steps = Vec::new();
    if depth < 2 {
        scripts.push(given.to_vec());
    }
    let peers = if depth == 2 { rng.between(1, 2) } else { rng.below(2) };
    for _ in 0..if depth == 0 { 0 } else { peers } {
        let script: Vec<bool> = (0..rng.between(1, 4)).map(|_| rng.one_in(2)).collect();
        let mirrored: Vec<bool> = script.iter().map(|sends| !sends).collect();
        let program = scripted_program(rng, plan, &mirrored, depth - 1);
        steps.push(Op::Open { program, party: rng.below(plan.parties) });
        scripts.push(script);
    }
    let mut at = vec![0; scripts.len()];
    while let Some(session) = pick_unfinished(rng, &scripts, &at) {
        let rest = &scripts[session][at[session]..];
        let quiet = match rng.below(12) {
            0 => Some(Op::Sleep(rng.below(30) as u64)),
            1 => Some(Op::Note),
            2 => Some(Op::Random(rng.below(20))),
            3 => Some(Op::Label),
            4 => Some(Op::FlowInfo(session)),
            5 if !rest[0] => Some(Op::WaitAny { sessions: vec![session], wait_ms: None }),
            _ => None,
        };
        steps.extend(quiet);
        let step = match rest {
            [true, false, ..] if rng.one_in(2) => {
                at[session] += 1;
                Op::Exchange(session)
            }
            [true, ..] => Op::Send { to: vec![session], size: rng.below(30) },
            _ => match (0..scripts.len()).find(|&other| other != session && receives(&scripts, &at, other)) {
                Some(other) if rng.one_in(2) => {
                    at[other] += 1;
                    Op::ReceiveAll(vec![session, other])
                }
                _ => Op::Receive { from: session, or_end: rng.one_in(2) },
            },
        };
        at[session] += 1;
        steps.push(step);
    }
    plan.programs[index].steps = steps.into_iter().map(|op| Step { op, caught: false }).collect();
    index
}

fn receives(scripts: &[Vec<bool>], at: &[usize], session: usize) -> bool {
    scripts[session].get(at[session]) == Some(&false)
}

fn pick_unfinished(rng: &mut Rng, scripts: &[Vec<bool>], at: &[usize]) -> Option<usize> {
    let unfinished: Vec<usize> = (0..scripts.len()).filter(|&session| at[session] < scripts[session].len()).collect();
    (!unfinished.is_empty()).then(|| unfinished[rng.below(unfinished.len())])
}

//! What hosts meet in the simulation: a service with sessions and servers that lag behind, and a database. Both carry
//! out requests late, or carry them out and lose the answer.

use std::collections::HashMap;

use maxhost_model::{Claim, FencingToken, RunId};
use maxhost_ownership::DemandVersion;

/// A rule that is broken on purpose, to see that the simulation finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    Nothing,
    /// A claim deletes the demand (hazard 3).
    ClaimEndsDemand,
    /// What was in memory in an earlier ownership is used again (hazard 4).
    StateFromBefore,
    /// A claim takes the creation of whatever node there is for its epoch, and the database accepts equal epochs
    /// (hazard 6).
    EpochOfAnyNode,
    /// A commit without an answer is taken for one that failed (hazard 2).
    UnknownIsFailure,
    /// The database accepts a commit of whoever owned the identity once (hazards 17 and 19).
    NoFence,
    /// An owner's node is deleted by its path, whoever's it is (hazard 19).
    DeleteByPath,
    /// A sleep ends the demand whatever its version, and nobody looks once more afterwards (hazard 25).
    SleepIgnoresVersion,
    /// A claim without an answer is forgotten, and the node stays (O1).
    ClaimForgotten,
    /// What is written under a claim outlives the claim, when the database dies before that is on its disk (hazard 53).
    WorkOutlivesClaim,
}

/// A random number by SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        ((self.next() >> 32) as usize * bound) >> 32
    }

    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

pub const IDENTITIES: usize = 2;

/// The nodes of a cluster at one moment.
#[derive(Clone, Copy, Default)]
pub struct Nodes {
    /// The session that made the node, and the transaction that did.
    pub owners: [Option<(usize, i64)>; IDENTITIES],
    pub demands: [Option<DemandVersion>; IDENTITIES],
}

#[derive(Debug, Clone, Copy)]
pub enum Write {
    CreateDemand(usize),
    CreateOwner(usize),
    /// The same, if there is a demand, in one transaction.
    CreateOwnerIfWanted(usize),
    RaiseDemand(usize),
    DeleteDemand(usize),
    /// Deletes the owner's node and, if a version is given, the demand at that version.
    LetGo(usize, Option<DemandVersion>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    SessionOver,
    Exists,
    NoNode,
    BadVersion,
}

/// What the asker learns; `None`: nothing.
pub type Answer<T> = Option<T>;

pub struct Session {
    pub is_alive: bool,
    /// Up to which transaction the server of this session has come.
    view: usize,
    /// A request that was sent and is not carried out yet.
    late: Option<Write>,
}

pub struct Service {
    /// The state after each transaction.
    history: Vec<Nodes>,
    pub sessions: Vec<Session>,
    pub violation: Option<String>,
    broken: Broken,
}

impl Service {
    pub fn new(broken: Broken) -> Service {
        Service { history: vec![Nodes::default()], sessions: Vec::new(), violation: None, broken }
    }

    pub fn begin(&mut self) -> usize {
        self.sessions.push(Session { is_alive: true, view: self.history.len() - 1, late: None });
        self.sessions.len() - 1
    }

    /// Ends a session, as the leader does: its nodes go.
    pub fn end(&mut self, session: usize) {
        if std::mem::replace(&mut self.sessions[session].is_alive, false) {
            let mut nodes = self.nodes();
            for owner in &mut nodes.owners {
                *owner = owner.filter(|(of, _)| *of != session);
            }
            self.history.push(nodes);
        }
    }

    pub fn nodes(&self) -> Nodes {
        self.history[self.history.len() - 1]
    }

    /// Asks for a change. A request that is late is carried out before the next one of its session, or never.
    pub fn write(
        &mut self,
        random: &mut Random,
        calm: bool,
        session: usize,
        write: Write,
    ) -> Answer<Result<(), Refused>> {
        self.settle(random, session);
        match if calm { 99 } else { random.below(100) } {
            0..=5 => None,
            6..=11 => {
                self.sessions[session].late = Some(write);
                None
            }
            12..=19 => {
                let _ = self.carry_out(session, write);
                None
            }
            _ => Some(self.carry_out(session, write)),
        }
    }

    /// Reads at the session's server, which may be behind but never goes back.
    pub fn read(&mut self, random: &mut Random, calm: bool, session: usize) -> Result<Nodes, Refused> {
        self.settle(random, session);
        let newest = self.history.len() - 1;
        let session = &mut self.sessions[session];
        if !session.is_alive {
            return Err(Refused::SessionOver);
        }
        session.view = if calm { newest } else { session.view + random.below(newest - session.view + 1) };
        Ok(self.history[session.view])
    }

    /// Carries out a late request of any session.
    pub fn deliver_late(&mut self, random: &mut Random) {
        let session = random.below(self.sessions.len());
        if let Some(write) = self.sessions[session].late.take() {
            let _ = self.carry_out(session, write);
        }
    }

    fn settle(&mut self, random: &mut Random, session: usize) {
        if let Some(write) = self.sessions[session].late.take()
            && random.percent(50)
        {
            let _ = self.carry_out(session, write);
        }
    }

    fn carry_out(&mut self, session: usize, write: Write) -> Result<(), Refused> {
        let by_path = self.broken == Broken::DeleteByPath && matches!(write, Write::LetGo(..));
        if !self.sessions[session].is_alive && !by_path {
            return Err(Refused::SessionOver);
        }
        let zxid = i64::try_from(self.history.len()).unwrap_or(i64::MAX);
        let mut nodes = self.nodes();
        match write {
            Write::CreateDemand(id) if nodes.demands[id].is_some() => return Err(Refused::Exists),
            Write::CreateDemand(id) => nodes.demands[id] = Some(DemandVersion { created: zxid, bumps: 0 }),
            Write::CreateOwnerIfWanted(id) if nodes.demands[id].is_none() => return Err(Refused::NoNode),
            Write::CreateOwner(id) | Write::CreateOwnerIfWanted(id) if nodes.owners[id].is_some() => {
                return Err(Refused::Exists);
            }
            Write::CreateOwner(id) | Write::CreateOwnerIfWanted(id) => nodes.owners[id] = Some((session, zxid)),
            Write::RaiseDemand(id) => {
                let demand = nodes.demands[id].get_or_insert(DemandVersion { created: zxid, bumps: -1 });
                demand.bumps += 1;
            }
            Write::DeleteDemand(id) => nodes.demands[id] = None,
            Write::LetGo(id, ends) => {
                let (of, _) = nodes.owners[id].take().ok_or(Refused::NoNode)?;
                if of != session {
                    self.violation.get_or_insert_with(|| format!("the node of session {of} was deleted by {session}"));
                }
                if let Some(version) = ends {
                    // Only the count is compared, as ZooKeeper does.
                    match nodes.demands[id] {
                        Some(present) if present.bumps == version.bumps => nodes.demands[id] = None,
                        Some(_) => return Err(Refused::BadVersion),
                        None => return Err(Refused::NoNode),
                    }
                }
            }
        }
        self.history.push(nodes);
        self.sessions[session].view = self.history.len() - 1;
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Row {
    token: FencingToken,
    owner: Option<RunId>,
    /// Pieces of work that came, and that are done.
    pub arrived: u32,
    pub done: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transaction {
    Claim(usize, Claim),
    /// Does the piece of work of this number.
    Work(usize, Claim, u32),
    Release(usize, Claim),
}

impl Transaction {
    pub fn identity(self) -> usize {
        let (Transaction::Claim(id, _) | Transaction::Work(id, ..) | Transaction::Release(id, _)) = self;
        id
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Written,
    Fenced,
    /// A release while there is work.
    Refused,
}

pub struct Database {
    pub rows: [Row; IDENTITIES],
    /// The transaction of each run that is under way, and outcomes that nobody has heard of.
    late: HashMap<RunId, Transaction>,
    unheard: HashMap<(RunId, usize), Outcome>,
    /// Claims that all see and that are not on the disk yet, the oldest first: of which identity, by whom, and what the row showed
    /// before.
    unsynced: Vec<(usize, RunId, FencingToken, Option<RunId>)>,
    /// Which run wrote under a token.
    writers: HashMap<(usize, FencingToken), RunId>,
    pub violation: Option<String>,
    pub written: u64,
    pub fenced: u64,
    broken: Broken,
}

impl Database {
    pub fn new(broken: Broken) -> Database {
        let row = Row { token: FencingToken::UNCLAIMED, owner: None, arrived: 0, done: 0 };
        Database {
            rows: [row; IDENTITIES],
            late: HashMap::new(),
            unheard: HashMap::new(),
            unsynced: Vec::new(),
            writers: HashMap::new(),
            violation: None,
            written: 0,
            fenced: 0,
            broken,
        }
    }

    /// A piece of work comes, durably: what was seen before it is on the disk, too.
    pub fn arrive(&mut self, id: usize) {
        self.rows[id].arrived += 1;
        self.unsynced.clear();
    }

    /// The server dies and comes back: what was under way is rolled back, and claims that were not on the disk are gone.
    pub fn crash(&mut self) {
        self.late.clear();
        for (id, run, token, owner) in std::mem::take(&mut self.unsynced).into_iter().rev() {
            (self.rows[id].token, self.rows[id].owner) = (token, owner);
            self.unheard.remove(&(run, id));
        }
    }

    pub fn token(&self, id: usize) -> FencingToken {
        self.rows[id].token
    }

    pub fn commit(&mut self, random: &mut Random, calm: bool, run: RunId, what: Transaction) -> Answer<Outcome> {
        // A run's next transaction begins when its last one has ended (C4), one way or the other.
        self.settle(random, run);
        self.unheard.remove(&(run, what.identity()));
        match if calm { 99 } else { random.below(100) } {
            0..=5 => {
                self.late.insert(run, what);
                None
            }
            6..=11 => {
                let outcome = self.carry_out(run, what);
                self.unheard.insert((run, what.identity()), outcome);
                None
            }
            _ => Some(self.carry_out(run, what)),
        }
    }

    fn settle(&mut self, random: &mut Random, run: RunId) {
        if let Some(what) = self.late.remove(&run)
            && random.percent(50)
        {
            let outcome = self.carry_out(run, what);
            self.unheard.insert((run, what.identity()), outcome);
        }
    }

    /// Finds out what became of a transaction whose outcome is unknown. This waits for one that is under way, which is
    /// carried out or rolled back. `None`: it was not written.
    pub fn resolve(&mut self, random: &mut Random, run: RunId, id: usize) -> Option<Outcome> {
        self.settle(random, run);
        self.unheard.remove(&(run, id)).filter(|outcome| *outcome == Outcome::Written)
    }

    /// Carries out a transaction that is under way, also of a run that is gone.
    pub fn deliver_late(&mut self, random: &mut Random) {
        let mut runs: Vec<RunId> = self.late.keys().copied().collect();
        runs.sort();
        if !runs.is_empty() {
            let run = runs[random.below(runs.len())];
            if let Some(what) = self.late.remove(&run) {
                let outcome = self.carry_out(run, what);
                self.unheard.insert((run, what.identity()), outcome);
            }
        }
    }

    fn carry_out(&mut self, run: RunId, what: Transaction) -> Outcome {
        let (Transaction::Claim(id, claim) | Transaction::Work(id, claim, _) | Transaction::Release(id, claim)) = what;
        let row = &mut self.rows[id];
        let is_held = match self.broken {
            Broken::NoFence => true,
            Broken::EpochOfAnyNode => row.token == claim.token,
            _ => row.token == claim.token && row.owner == Some(claim.run),
        };
        let outcome = match what {
            Transaction::Claim(..) => {
                let is_above = match self.broken {
                    Broken::EpochOfAnyNode => claim.token >= row.token,
                    _ => claim.may_replace(row.token, row.owner),
                };
                if is_above {
                    self.unsynced.push((id, run, row.token, row.owner));
                    (row.token, row.owner) = (claim.token, Some(claim.run));
                    Outcome::Written
                } else {
                    Outcome::Fenced
                }
            }
            _ if !is_held => Outcome::Fenced,
            Transaction::Work(_, _, number) => {
                if number != row.done + 1 {
                    let text = format!("work {number} of identity {id} was done after {}, by {claim}", row.done);
                    self.violation.get_or_insert(text);
                }
                row.done = number;
                Outcome::Written
            }
            Transaction::Release(..) if row.done < row.arrived => Outcome::Refused,
            Transaction::Release(..) => {
                row.owner = None;
                Outcome::Written
            }
        };
        match outcome {
            Outcome::Written => {
                // The log is written in order.
                if !matches!(what, Transaction::Claim(..)) && self.broken != Broken::WorkOutlivesClaim {
                    self.unsynced.clear();
                }
                self.written += 1;
                let writer = *self.writers.entry((id, claim.token)).or_insert(run);
                if writer != run {
                    let text = format!("runs {writer} and {run} both wrote for identity {id} under {}", claim.token);
                    self.violation.get_or_insert(text);
                }
            }
            Outcome::Fenced => self.fenced += 1,
            Outcome::Refused => {}
        }
        outcome
    }
}

//! A host of the simulation: the program of an owner, one step at a time.

use maxhost_model::{Claim, FencingToken, RunId, SecureHash};
use maxhost_ownership::protocol::{ClaimDecision, Held, SleepPlan, decide_claim, plan_sleep};
use maxhost_ownership::{DemandVersion, Owner};

use crate::world::{
    Answer, Broken, Database, IDENTITIES, Nodes, Outcome, Random, Refused, Service, Transaction, Write,
};

/// Where a host is with an identity.
#[derive(Debug, Clone, Copy)]
enum Phase {
    Idle,
    /// It asks for the nodes (O1).
    Asking,
    /// It looks whose node it is (O1).
    Deciding {
        is_new: bool,
    },
    /// It writes its claim into the database (O2).
    Claiming(Claim),
    /// It reads the state (O3).
    Opening(Claim),
    /// It does what there is to do.
    Working {
        claim: Claim,
        done: u32,
    },
    /// It has seen the version of the demand and looks for work once more, and then releases (L1).
    Leaving {
        claim: Claim,
        done: u32,
        seen: Option<DemandVersion>,
    },
    /// It lets the identity sleep (L1).
    Sleeping {
        seen: Option<DemandVersion>,
    },
    /// It looks into the queue (L1).
    LookingBack,
    /// It rings, until that is confirmed.
    Ringing,
    /// It lets go of an identity that it may not write for.
    Yielding,
    /// The outcome of a transaction is not known (C5).
    Resolving {
        transaction: Transaction,
        seen: Option<DemandVersion>,
    },
}

pub struct Host {
    pub run: RunId,
    pub session: usize,
    pub is_paused: bool,
    phases: [Phase; IDENTITIES],
    /// What it knew when it last worked for an identity: forgotten with the ownership.
    memory: [Option<u32>; IDENTITIES],
}

/// All that a step needs.
pub struct Surroundings<'a> {
    pub service: &'a mut Service,
    pub database: &'a mut Database,
    pub random: &'a mut Random,
    /// No more faults.
    pub calm: bool,
    pub broken: Broken,
}

impl Host {
    pub fn new(run: RunId, session: usize) -> Host {
        Host { run, session, is_paused: false, phases: [Phase::Idle; IDENTITIES], memory: [None; IDENTITIES] }
    }

    pub fn is_idle(&self) -> bool {
        self.phases.iter().all(|phase| matches!(phase, Phase::Idle))
    }

    /// The session is over: everything is dropped, nothing is repeated, and another session begins (L3).
    pub fn lose_session(&mut self, service: &mut Service) {
        service.end(self.session);
        self.session = service.begin();
        self.phases = [Phase::Idle; IDENTITIES];
    }

    /// Does the next step for an identity.
    pub fn step(&mut self, id: usize, around: &mut Surroundings<'_>) {
        let next = match self.phases[id] {
            Phase::Idle => self.look_for_demand(id, around),
            Phase::Asking => self.ask(id, around),
            Phase::Deciding { is_new } => self.decide(id, is_new, around),
            Phase::Claiming(claim) => self.commit(Transaction::Claim(id, claim), None, around),
            Phase::Opening(claim) => {
                let fresh = around.database.rows[id].done;
                let kept = self.memory[id].filter(|_| around.broken == Broken::StateFromBefore);
                Ok(Phase::Working { claim, done: kept.unwrap_or(fresh) })
            }
            Phase::Working { claim, done } => {
                self.memory[id] = Some(done);
                if done < around.database.rows[id].arrived {
                    self.commit(Transaction::Work(id, claim, done + 1), None, around)
                } else {
                    self.read(around).map(|nodes| Phase::Leaving { claim, done, seen: nodes.demands[id] })
                }
            }
            Phase::Leaving { claim, done, .. } if done < around.database.rows[id].arrived => {
                Ok(Phase::Working { claim, done })
            }
            Phase::Leaving { claim, seen, .. } => self.commit(Transaction::Release(id, claim), seen, around),
            Phase::Sleeping { seen } => self.sleep(id, seen, around),
            Phase::LookingBack => {
                let row = around.database.rows[id];
                let rings = row.done < row.arrived && around.broken != Broken::SleepIgnoresVersion;
                Ok(if rings { Phase::Ringing } else { Phase::Idle })
            }
            Phase::Ringing => self.write(Write::RaiseDemand(id), around).map(|answer| match answer {
                Some(_) => Phase::Idle,
                None => Phase::Ringing,
            }),
            Phase::Yielding => self.yield_up(id, around),
            Phase::Resolving { transaction, seen } => Ok(self.resolve(id, transaction, seen, around)),
        };
        match next {
            Ok(phase) => self.phases[id] = phase,
            Err(Refused::SessionOver) => self.lose_session(around.service),
            Err(_) => {}
        }
    }

    fn read(&self, around: &mut Surroundings<'_>) -> Result<Nodes, Refused> {
        around.service.read(around.random, around.calm, self.session)
    }

    /// Asks for a change; an error is the end of the session.
    fn write(&self, write: Write, around: &mut Surroundings<'_>) -> Result<Answer<Result<(), Refused>>, Refused> {
        match around.service.write(around.random, around.calm, self.session, write) {
            Some(Err(Refused::SessionOver)) => Err(Refused::SessionOver),
            answer => Ok(answer),
        }
    }

    fn look_for_demand(&self, id: usize, around: &mut Surroundings<'_>) -> Result<Phase, Refused> {
        let nodes = self.read(around)?;
        let is_asked = nodes.demands[id].is_some() && nodes.owners[id].is_none();
        Ok(if is_asked { Phase::Asking } else { Phase::Idle })
    }

    fn ask(&self, id: usize, around: &mut Surroundings<'_>) -> Result<Phase, Refused> {
        // It has seen a demand, which may be gone: then it makes one.
        let at_once = match around.random.percent(50) {
            true => self.write(Write::CreateOwnerIfWanted(id), around)?,
            false => Some(Err(Refused::NoNode)),
        };
        let created = match at_once {
            Some(Err(Refused::NoNode)) => {
                self.write(Write::CreateDemand(id), around)?;
                self.write(Write::CreateOwner(id), around)?
            }
            answer => answer,
        };
        if created.is_none() && around.broken == Broken::ClaimForgotten {
            return Ok(Phase::Idle);
        }
        Ok(Phase::Deciding { is_new: created == Some(Ok(())) })
    }

    fn held(&self, id: usize, nodes: &Nodes, broken: Broken) -> Held {
        match nodes.owners[id] {
            None => Held::Free,
            Some((session, created)) => {
                let token = FencingToken { generation: 1, epoch: created };
                if session == self.session || broken == Broken::EpochOfAnyNode {
                    Held::Ours { token }
                } else {
                    Held::Other(Owner { identity: SecureHash::from_bytes([0; 32]), host: "other".into(), token })
                }
            }
        }
    }

    fn decide(&self, id: usize, is_new: bool, around: &mut Surroundings<'_>) -> Result<Phase, Refused> {
        let nodes = self.read(around)?;
        let stored = around.database.token(id);
        Ok(match decide_claim(self.held(id, &nodes, around.broken), is_new, stored) {
            ClaimDecision::Granted(token) => {
                if around.broken == Broken::ClaimEndsDemand {
                    self.write(Write::DeleteDemand(id), around)?;
                }
                Phase::Claiming(Claim { token, run: self.run })
            }
            ClaimDecision::Owned(_) => Phase::Idle,
            ClaimDecision::Again => Phase::Asking,
            ClaimDecision::Behind(_) => Phase::Yielding,
        })
    }

    fn commit(
        &mut self,
        transaction: Transaction,
        seen: Option<DemandVersion>,
        around: &mut Surroundings<'_>,
    ) -> Result<Phase, Refused> {
        Ok(match around.database.commit(around.random, around.calm, self.run, transaction) {
            Some(outcome) => self.after(transaction, outcome, seen),
            None => Phase::Resolving { transaction, seen },
        })
    }

    fn resolve(
        &mut self,
        id: usize,
        transaction: Transaction,
        seen: Option<DemandVersion>,
        around: &mut Surroundings<'_>,
    ) -> Phase {
        if around.broken == Broken::UnknownIsFailure {
            return match transaction {
                Transaction::Work(_, claim, number) => Phase::Working { claim, done: number - 1 },
                _ => self.begin_again(transaction, seen),
            };
        }
        match around.database.resolve(around.random, self.run, id) {
            Some(outcome) => self.after(transaction, outcome, seen),
            None => self.begin_again(transaction, seen),
        }
    }

    /// A transaction that was not written is written again.
    fn begin_again(&self, transaction: Transaction, seen: Option<DemandVersion>) -> Phase {
        match transaction {
            Transaction::Claim(_, claim) => Phase::Claiming(claim),
            Transaction::Work(_, claim, number) => Phase::Working { claim, done: number - 1 },
            Transaction::Release(_, claim) => Phase::Leaving { claim, done: u32::MAX, seen },
        }
    }

    fn after(&mut self, transaction: Transaction, outcome: Outcome, seen: Option<DemandVersion>) -> Phase {
        match (transaction, outcome) {
            (_, Outcome::Fenced) => Phase::Yielding,
            (Transaction::Claim(_, claim), _) => Phase::Opening(claim),
            (Transaction::Work(_, claim, number), _) => Phase::Working { claim, done: number },
            (Transaction::Release(_, claim), Outcome::Refused) => Phase::Opening(claim),
            (Transaction::Release(..), Outcome::Written) => Phase::Sleeping { seen },
        }
    }

    fn sleep(&self, id: usize, seen: Option<DemandVersion>, around: &mut Surroundings<'_>) -> Result<Phase, Refused> {
        let nodes = self.read(around)?;
        let is_ours = nodes.owners[id].is_some_and(|(session, _)| session == self.session);
        if !is_ours && around.broken != Broken::DeleteByPath {
            return Ok(Phase::LookingBack);
        }
        let ends = match around.broken {
            Broken::SleepIgnoresVersion => around.service.nodes().demands[id],
            _ => match plan_sleep(nodes.demands[id], seen) {
                SleepPlan::EndDemand(version) => Some(version),
                SleepPlan::KeepDemand { .. } => None,
            },
        };
        Ok(match self.write(Write::LetGo(id, ends), around)? {
            Some(Ok(()) | Err(Refused::NoNode)) => Phase::LookingBack,
            // It was raised in between: look again, which keeps it.
            Some(Err(_)) | None => Phase::Sleeping { seen },
        })
    }

    fn yield_up(&self, id: usize, around: &mut Surroundings<'_>) -> Result<Phase, Refused> {
        let nodes = self.read(around)?;
        if nodes.owners[id].is_none_or(|(session, _)| session != self.session) {
            return Ok(Phase::Idle);
        }
        Ok(match self.write(Write::LetGo(id, None), around)? {
            Some(_) => Phase::Idle,
            None => Phase::Yielding,
        })
    }
}

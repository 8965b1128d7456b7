//! One simulated world: a scheduler that picks what happens next, hosts that run the flows, and mishaps.

use std::collections::BTreeMap;

use bytes::Bytes;
use maxhost_journal::{
    Answer, Delivery, FrameBatch, Initiation, Limits, Machine, Nanos, Origin, StartRecord, Step, WaitKind,
};
use maxhost_model::{ErrorId, ErrorKind, FlowError, FlowRow, SessionId};
use prost::Message as _;

use crate::guest::{Ask, Guest, Told, party_name, responder, thrown_by};
use crate::program::{Plan, Rng, mix};
use crate::store::{At, Flow, Life, Message, Phase, Run, Store, party_number};

const EPOCH: Nanos = 1_700_000_000_000_000_000;
const MILLISECOND: Nanos = 1_000_000;
/// More than any plan needs.
const MAX_STEPS: usize = 20_000;

/// What a flow saw and how it ended, without what may differ from run to run.
pub type Seen = (Vec<Told>, Option<Result<Bytes, FlowError>>);

pub struct World<'a> {
    plan: &'a Plan,
    rng: Rng,
    store: Store,
    now: Nanos,
    /// Mishaps that may still happen.
    mishaps: usize,
    /// Kills by an operator that may still happen on the way.
    kills: usize,
    /// Nothing more may go wrong, and flows that had nothing to do have been brought back: how many commits there were
    /// before, for they must not make one.
    settling: Option<u64>,
    notes: u64,
    errors_made: u64,
    pub verbose: bool,
    pub counts: Counts,
}

/// What happened, to see that the simulation tries what it should.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub flows: u64,
    pub commits: u64,
    pub lost: u64,
    pub crashes: u64,
    pub evictions: u64,
    pub replays: u64,
    pub kills: u64,
    pub deadlocks: u64,
    pub messages: u64,
    pub errors: u64,
}

enum Action {
    Run(At),
    Load(At),
    Answer(usize, usize),
    Message(usize),
}

impl<'a> World<'a> {
    /// A calm world has no mishaps.
    pub fn new(plan: &'a Plan, seed: u64, calm: bool) -> World<'a> {
        let mut rng = Rng::new(seed);
        let mishaps = if calm { 0 } else { rng.below(12) };
        let kills = if calm || plan.scripted { 0 } else { usize::from(rng.one_in(8)) };
        World {
            plan,
            rng,
            store: Store::new(plan.databases),
            now: EPOCH,
            mishaps,
            kills,
            settling: None,
            notes: 0,
            errors_made: 100,
            verbose: false,
            counts: Counts::default(),
        }
    }

    /// Runs everything to its end.
    pub fn run(&mut self) -> BTreeMap<u64, Seen> {
        for (index, &(party, program)) in self.plan.roots.iter().enumerate() {
            let origin = Origin::Rpc { user: "local".to_owned() };
            let at = self.start(party, program, index as u64 + 1, origin, None);
            self.commit_now(at, None);
        }
        for step in 0.. {
            assert!(step < MAX_STEPS, "the flows go on for ever");
            self.now += self.rng.below(3) as u64 * MILLISECOND / 2;
            if self.mishaps > 0 && self.rng.one_in(12) {
                self.mishap();
            }
            let actions = self.actions();
            if !actions.is_empty() {
                let choice = self.rng.below(actions.len());
                self.act(&actions[choice]);
            } else if !self.wait_for_time() && !self.settle() {
                break;
            }
        }
        self.finished()
    }

    fn all(&self) -> impl Iterator<Item = (At, &Flow)> {
        let databases = self.store.databases.iter().enumerate();
        databases.flat_map(|(home, database)| {
            database.flows.iter().enumerate().map(move |(index, flow)| ((home, index), flow))
        })
    }

    fn actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        let now = self.now / MILLISECOND;
        for (at, flow) in self.all() {
            match &flow.run {
                Some(run) => {
                    let due = run.machine.wait_until().is_some_and(|until| until <= now);
                    if run.phase == Phase::Ready || !run.arrivals.is_empty() || due {
                        actions.push(Action::Run(at));
                    }
                }
                None => {
                    let due = flow.news || flow.until.is_some_and(|until| until <= now);
                    if flow.life == Life::Live && due {
                        actions.push(Action::Load(at));
                    }
                }
            }
        }
        for (home, database) in self.store.databases.iter().enumerate() {
            let open = database.requests.iter().enumerate().filter(|(_, request)| !request.taken);
            actions.extend(open.map(|(index, _)| Action::Answer(home, index)));
        }
        let messages = self.store.messages.iter().enumerate().filter(|(_, message)| !message.staged);
        actions.extend(messages.map(|(index, _)| Action::Message(index)));
        actions
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Run(at) => self.run_flow(at),
            Action::Load(at) => self.load(at),
            Action::Answer(home, index) => self.answer(home, index),
            Action::Message(index) => self.deliver_letter(index),
        }
    }

    /// Lets time pass until the next timer. False if there is none.
    fn wait_for_time(&mut self) -> bool {
        let timers = self.all().filter_map(|(_, flow)| match &flow.run {
            Some(run) => run.machine.wait_until(),
            None if flow.life == Life::Live => flow.until,
            None => None,
        });
        let next = timers.min();
        if let Some(next) = next {
            self.now = self.now.max(next * MILLISECOND);
        }
        next.is_some()
    }

    // ---- flows ----

    fn start(&mut self, party: usize, program: usize, logical: u64, origin: Origin, initiation: Option<u64>) -> At {
        let home = party % self.plan.databases;
        let row = FlowRow(self.store.databases[home].flows.len() as i64 + 1);
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&logical.to_be_bytes());
        let start = StartRecord {
            flow_id: [0; 16],
            flow: format!("p{program}"),
            flow_version: 1,
            cordapp: "app".to_owned(),
            cordapp_version: "1".to_owned(),
            component: [0; 32],
            arguments: Bytes::new(),
            origin,
            seed,
            started: self.now,
            owning_key: None,
        };
        let machine = Machine::start(party_name(party).into(), row, &start, self.limits());
        let run = Run {
            machine,
            guest: Guest::new(program, logical, initiation.is_some()),
            phase: Phase::Ready,
            arrivals: Vec::new(),
            staged: Vec::new(),
            told: 0,
            asked: 0,
        };
        self.store.databases[home].flows.push(Flow {
            party,
            program,
            logical,
            row,
            start,
            initiation,
            life: Life::Starting,
            log: Vec::new(),
            inbox: Vec::new(),
            labels: 0,
            trace: Vec::new(),
            committed: 0,
            outcome: None,
            held: Vec::new(),
            run: Some(run),
            news: false,
            until: None,
        });
        self.counts.flows += 1;
        (home, self.store.databases[home].flows.len() - 1)
    }

    fn limits(&self) -> Limits {
        Limits { entries: self.plan.entry_limit, message: self.plan.message_limit, ..Limits::default() }
    }

    /// Answers an initiation: with a flow, whose start is committed at once or with what it does first, or not at all.
    fn answer(&mut self, home: usize, index: usize) {
        let request = &mut self.store.databases[home].requests[index];
        let Some(program) = responder(&request.initiation.protocol) else {
            self.store.reject(home, index);
            return;
        };
        request.taken = true;
        let (id, party, from, initiation) = (request.id, request.party, request.from, request.initiation.clone());
        let logical = self.logical_of_responder(from, &initiation);
        let at = self.start(party, program, logical, Origin::Peer(initiation), Some(id));
        if self.rng.one_in(2) {
            self.commit(at, None);
        }
    }

    /// Follows from the initiator, so that it is the same in each run of a plan.
    fn logical_of_responder(&self, from: usize, initiation: &Initiation) -> u64 {
        let session = SessionId(initiation.from_session);
        let initiator = &self.store.databases[from].flows[session.flow().0 as usize - 1];
        mix(initiator.logical ^ (u64::from(session.index()) << 48))
    }

    /// Brings a flow back into memory; its guest will run from the start.
    fn load(&mut self, at: At) {
        let limits = self.limits();
        let flow = self.store.flow(at);
        let me = party_name(flow.party);
        self.rng.shuffle(&mut flow.inbox);
        let machine = Machine::restore(me.into(), flow.row, &flow.start, limits, &flow.log, &flow.inbox);
        let machine = machine.expect("a journal that can be restored");
        assert_eq!(machine.is_catching_up(), !flow.log.is_empty());
        let guest = Guest::new(flow.program, flow.logical, flow.initiation.is_some());
        let (arrivals, staged) = (Vec::new(), Vec::new());
        flow.run = Some(Run { machine, guest, phase: Phase::Ready, arrivals, staged, told: 0, asked: 0 });
        self.counts.replays += 1;
    }

    /// Runs a flow for a while.
    fn run_flow(&mut self, at: At) {
        self.take_arrivals(at);
        let phase = self.run_of(at).phase;
        if phase != Phase::Ready {
            let now = self.now;
            let step = self.run_of(at).machine.resume(now);
            match step {
                Step::Blocked => {
                    self.commit(at, None);
                    return;
                }
                step if phase == Phase::Finishing => return self.ended(at, step),
                Step::Over(error) => return self.fail(at, error),
                Step::Done(result) => {
                    self.run_of(at).phase = Phase::Ready;
                    self.tell(at, Told::Answer(result));
                }
            }
        }
        for _ in 0..self.rng.between(1, 8) {
            if !self.run_one(at) {
                return;
            }
        }
        let due = self.run_of(at).machine.is_flush_due();
        if due || self.rng.one_in(4) {
            self.commit(at, None);
        }
    }

    /// Gives the machine some of what lies in its inbox, in any order, and sometimes twice.
    fn take_arrivals(&mut self, at: At) {
        let mut arrivals = std::mem::take(&mut self.run_of(at).arrivals);
        self.rng.shuffle(&mut arrivals);
        let later = if arrivals.len() > 1 { self.rng.below(arrivals.len()) } else { 0 };
        let twice = self.rng.one_in(4);
        let run = self.store.flow(at).run.as_mut().unwrap();
        for (session, seq, batch) in arrivals.drain(later..) {
            let first = run.machine.deliver(session.index(), seq, &batch);
            assert!(matches!(first, Delivery::Taken | Delivery::Duplicate), "{first:?}");
            if twice {
                assert_eq!(run.machine.deliver(session.index(), seq, &batch), Delivery::Duplicate);
                let forged = FrameBatch { from: "Mallory".to_owned(), ..batch };
                assert_eq!(run.machine.deliver(session.index(), seq + 1, &forged), Delivery::ForeignSender);
            }
        }
        run.arrivals = arrivals;
    }

    fn run_of(&mut self, at: At) -> &mut Run {
        self.store.flow(at).run.as_mut().expect("a flow in memory")
    }

    /// Does one thing that the guest asks for. False if the flow stops for now.
    fn run_one(&mut self, at: At) -> bool {
        let (plan, now) = (self.plan, self.now);
        let note = if plan.scripted { 0 } else { self.notes + 1 };
        let run = self.store.flow(at).run.as_mut().unwrap();
        run.asked += 1;
        let ask = run.guest.next(plan);
        if self.verbose {
            eprintln!("{at:?} {ask:?}");
        }
        let told = match ask {
            Ask::Label(label) => {
                let Err(error) = run.machine.progress(label) else { return true };
                self.fail(at, error);
                return false;
            }
            Ask::Now => Told::Now(run.machine.now()),
            Ask::Random(length) => Told::Bytes(Bytes::from(run.machine.random(length))),
            Ask::Note(question) => {
                let answer = run.machine.note(&question, || Bytes::copy_from_slice(&note.to_be_bytes()));
                self.notes = note;
                Told::Bytes(answer.expect("no divergence"))
            }
            Ask::Call(call) => match run.machine.begin(call, now).expect("no divergence") {
                Step::Done(result) => Told::Answer(result),
                Step::Over(error) => {
                    self.fail(at, error);
                    return false;
                }
                Step::Blocked => {
                    run.phase = Phase::Waiting;
                    self.commit(at, None);
                    return false;
                }
            },
            Ask::End(outcome) => {
                self.errors_made += 1;
                let step = run.machine.finish(outcome, ErrorId(self.errors_made)).expect("no divergence");
                match step {
                    Step::Blocked => {
                        run.phase = Phase::Finishing;
                        self.commit(at, None);
                    }
                    step => self.ended(at, step),
                }
                return false;
            }
        };
        self.tell(at, told);
        true
    }

    /// Tells the guest something, which must be what it was told before if that is committed.
    fn tell(&mut self, at: At, told: Told) {
        if self.verbose {
            eprintln!("{at:?}   {told:?}");
        }
        self.check(at, &told);
        let plan = self.plan;
        let flow = self.store.flow(at);
        let run = flow.run.as_mut().unwrap();
        run.guest.told(plan, &told);
        if run.told < flow.committed {
            assert_eq!(flow.trace[run.told], told, "an answer of a replay, number {}", run.told);
        } else {
            flow.trace.truncate(run.told);
            flow.trace.push(told);
        }
        run.told += 1;
        let bound = 2 * run.asked + 2 * run.guest.sessions.len() as u64 + 2 + flow.log.len() as u64;
        assert!(run.machine.is_replaying() || run.machine.entries() <= bound, "entries follow from what is asked");
    }

    /// Errors are told as they were made, and tell no more than they may.
    fn check(&mut self, at: At, told: &Told) {
        self.counts.messages += u64::from(matches!(told, Told::Answer(Ok(Answer::Message(_)))));
        let Told::Answer(Err(error)) = told else { return };
        assert!(!self.plan.scripted, "a script has no errors: {error}");
        self.counts.errors += 1;
        assert!(!error.message.contains("secret"), "{error}");
        let Some(ErrorId(id)) = error.error_id else { return };
        let Some(made) = self.store.errors.get(&id) else {
            panic!("{error} was never made: {:?}", self.store.flow(at).log)
        };
        if error.kind == ErrorKind::FlowException {
            // A message that is too long to send is cut.
            assert_eq!((made.kind, &made.peer), (error.kind, &None));
            assert!(made.message.starts_with(&error.message), "{error}, but it was {made}");
        } else {
            assert_eq!(error.kind, ErrorKind::UnexpectedEnd);
        }
    }

    /// The machine has ended the flow.
    fn ended(&mut self, at: At, step: Step) {
        let outcome = match step {
            Step::Done(Ok(Answer::Message(value))) => Ok(value),
            Step::Over(error) => Err(error),
            other => panic!("a flow ended with {other:?}"),
        };
        self.commit(at, Some(outcome));
    }

    fn fail(&mut self, at: At, error: FlowError) {
        self.errors_made += 1;
        let id = ErrorId(self.errors_made);
        let error = self.run_of(at).machine.abort(error, id);
        self.commit(at, Some(Err(error)));
    }

    fn kill(&mut self, at: At) {
        if self.store.flow(at).run.is_none() {
            self.load(at);
        }
        self.counts.kills += 1;
        self.fail(at, FlowError::new(ErrorKind::Killed, "killed"));
    }

    // ---- commits and mishaps ----

    /// Commits what a flow did, unless a mishap comes before.
    fn commit(&mut self, at: At, end: Option<Result<Bytes, FlowError>>) {
        let mishap = self.mishaps > 0 && self.rng.one_in(8);
        if !mishap {
            return self.commit_now(at, end);
        }
        self.mishaps -= 1;
        match self.rng.below(4) {
            0 => {
                self.counts.lost += 1;
                self.store.drop_run(at);
            }
            1 => self.crash(at.0),
            2 => {
                self.commit_now(at, end);
                self.crash(at.0);
            }
            _ => {
                self.commit_now(at, end);
                self.store.drop_run(at);
            }
        }
    }

    fn commit_now(&mut self, at: At, end: Option<Result<Bytes, FlowError>>) {
        let now = self.now;
        let starting = self.store.flow(at).life == Life::Starting;
        let run = self.run_of(at);
        let dirty = run.machine.is_dirty();
        let unconfirmed = run.machine.unconfirmed();
        let flush = run.machine.flush(now);
        assert!(dirty || flush.is_empty(), "a flush that was not announced");
        let staged = std::mem::take(&mut run.staged);
        if starting || end.is_some() || !staged.is_empty() || !flush.is_empty() {
            self.counts.commits += 1;
            self.store.commit(at, flush, staged, end, unconfirmed);
        }
    }

    fn mishap(&mut self) {
        self.mishaps -= 1;
        let resident: Vec<At> = self.all().filter(|(_, flow)| flow.run.is_some()).map(|(at, _)| at).collect();
        match self.rng.below(4) {
            0 => {
                let home = self.rng.below(self.plan.databases);
                self.crash(home);
            }
            1 if self.kills > 0 => {
                self.kills -= 1;
                self.kill_any();
            }
            _ if !resident.is_empty() => {
                let at = resident[self.rng.below(resident.len())];
                self.counts.evictions += 1;
                self.store.drop_run(at);
            }
            _ => {}
        }
    }

    fn crash(&mut self, home: usize) {
        self.counts.crashes += 1;
        for index in 0..self.store.databases[home].flows.len() {
            self.store.drop_run((home, index));
        }
    }

    fn kill_any(&mut self) -> bool {
        let live: Vec<At> = self.all().filter(|(_, flow)| flow.life == Life::Live).map(|(at, _)| at).collect();
        if !live.is_empty() {
            let at = live[self.rng.below(live.len())];
            self.kill(at);
        }
        !live.is_empty()
    }

    // ---- the network ----

    /// Delivers a message: to the machine, which stores it with its next commit, or into the inbox of a flow that is
    /// not in memory.
    fn deliver_letter(&mut self, index: usize) {
        let message = &self.store.messages[index];
        let (id, to, seq) = (message.id, message.to, message.seq);
        if self.rng.one_in(8) {
            // It comes once more, now or when everything else is over.
            let again = Message { party: message.party.clone(), batch: message.batch.clone(), ..*message };
            self.store.messages.push(again);
        }
        if self.store.was_processed(id) {
            self.store.messages.swap_remove(index);
            return;
        }
        let message = &mut self.store.messages[index];
        let (batch, session) = (message.batch.clone(), SessionId(to.1));
        let at = (to.0, session.flow().0 as usize - 1);
        let flow = &mut self.store.databases[at.0].flows[at.1];
        assert_eq!(party_number(&message.party), flow.party, "a message to the flow of another");
        match &mut flow.run {
            Some(run) => match run.machine.deliver(session.index(), seq, &batch) {
                Delivery::Taken => {
                    message.staged = true;
                    run.staged.push((id, (session, seq, Bytes::from(batch.encode_to_vec()))));
                    if run.phase != Phase::Ready {
                        self.run_flow(at);
                    }
                }
                Delivery::Duplicate => {
                    let staged = run.staged.iter().any(|(other, _)| *other == id);
                    self.store.messages.swap_remove(index);
                    if !staged {
                        self.store.acknowledge(id);
                    }
                }
                other => panic!("{other:?}"),
            },
            None => {
                self.store.acknowledge(id);
                self.store.put_row(to, seq, batch);
            }
        }
    }

    // ---- the end ----

    /// Nothing happens any more. Flows that are not in memory are brought back, to see that they have nothing to do;
    /// then every wait must have its reason, and one flow is killed. False if no flow is left.
    fn settle(&mut self) -> bool {
        self.mishaps = 0;
        let Some(before) = self.settling.take() else {
            let asleep = self.all().filter(|(_, flow)| flow.life == Life::Live && flow.run.is_none());
            let asleep: Vec<At> = asleep.map(|(at, _)| at).collect();
            asleep.into_iter().for_each(|at| self.load(at));
            self.settling = Some(self.counts.commits);
            return true;
        };
        assert_eq!(before, self.counts.commits, "a flow was asleep although it had something to do");
        let waiting: Vec<At> = self.all().filter(|(_, flow)| flow.life == Life::Live).map(|(at, _)| at).collect();
        waiting.iter().for_each(|&at| self.justify(at));
        assert!(waiting.is_empty() || !self.plan.scripted, "a script cannot come to a stop");
        self.counts.deadlocks += u64::from(!waiting.is_empty());
        self.kill_any()
    }

    /// A flow that waits at the very end waits for a peer that lives and has sent nothing that it has not consumed.
    fn justify(&mut self, at: At) {
        let flow = &self.store.databases[at.0].flows[at.1];
        let run = flow.run.as_ref().expect("all are in memory");
        let wait = run.machine.wait().expect("all are waiting");
        let lacks = |&session: &u32| {
            let end = (at.0, flow.row.session(session as u16).0);
            let Some(peer) = self.store.links.get(&end) else { panic!("{at:?} waits for nobody: {wait:?}") };
            let peer = &self.store.databases[peer.0].flows[SessionId(peer.1).flow().0 as usize - 1];
            let first_is_data =
                session == 0 && matches!(&flow.start.origin, Origin::Peer(Initiation { payload: Some(_), .. }));
            let consumed = 1 + run.guest.sessions[session as usize].received
                - u32::from(first_is_data).min(run.guest.sessions[session as usize].received);
            peer.life == Life::Live && self.store.emitted[&end] == consumed
        };
        let justified = match wait.kind {
            WaitKind::Receive => wait.sessions.iter().all(lacks),
            WaitKind::ReceiveAll => wait.sessions.iter().any(lacks),
            WaitKind::WaitAny => wait.until.is_none() && wait.sessions.iter().all(lacks),
            WaitKind::FlowInfo
            | WaitKind::Sleep
            | WaitKind::Confirmation
            | WaitKind::LedgerCommit
            | WaitKind::StateConsumption => false,
        };
        assert!(justified, "{at:?} is stuck: {wait:?}");
    }

    /// Checks that nothing is left over, and hands out what the flows saw.
    fn finished(&mut self) -> BTreeMap<u64, Seen> {
        assert!(self.store.messages.is_empty(), "messages are left over");
        let mut seen = BTreeMap::new();
        for database in &mut self.store.databases {
            assert!(database.requests.is_empty(), "initiations are left over");
            for flow in database.flows.drain(..).filter(|flow| flow.life != Life::Undone) {
                assert_eq!(flow.life, Life::Ended);
                assert!(flow.log.is_empty() && flow.inbox.is_empty() && flow.run.is_none());
                if let Some(Err(error)) = &flow.outcome {
                    let own = error.kind == ErrorKind::FlowException && error.peer.is_none();
                    assert!(!own || error.message == thrown_by(flow.logical) || error.message.contains("sleep"));
                }
                let timeless = flow.trace.into_iter().filter(|told| !matches!(told, Told::Now(_))).collect();
                let twice = seen.insert(flow.logical, (timeless, flow.outcome));
                assert!(twice.is_none(), "one responder for each initiation");
            }
        }
        seen
    }
}

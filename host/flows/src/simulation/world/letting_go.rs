//! What is forgotten of an identity that is not this host's any more, while a flow of its own waits for a time.

use super::super::PARTIES;
use super::super::plan::{Move, Root, Talk};
use super::*;
use crate::options::Eviction;
use crate::registry::entry::{EntryState, IdentityEntry};

/// How long the flow sleeps, milliseconds.
const SLEEP: u64 = 3_600_000;

impl World {
    /// One identity, and a flow of its own that sleeps for an hour.
    fn of_a_sleeper(change: impl FnOnce(Plan) -> Plan) -> World {
        let talk = Talk { with: 0, moves: vec![Move::InitiatorSleeps(SLEEP)] };
        let root = Root {
            identity: 0,
            talks: vec![talk],
            deals: Vec::new(),
            named: true,
            fails_after: None,
            killed_after: None,
        };
        let rng = Rng::new(1);
        let plan = Plan {
            identities: 1,
            mute: false,
            roots: vec![root],
            eviction: Eviction::EveryWait,
            slots: 100,
            flows: 100,
            memory: 1 << 20,
            shadow_replay: 0.0,
            always_broker: false,
            claims_first: true,
            idle_close: Duration::from_millis(5),
            mishaps: 0,
            defects: 0,
            crashes: Vec::new(),
            clock_jumps: false,
            ..Plan::random(&rng)
        };
        let world = World::new(change(plan), rng, None);
        world.until("the flow sleeps", |world| world.deadlines() == 1 && world.started[0].get().is_some())
    }

    /// Lets things happen until it is so. Time passes when nothing else can happen.
    fn until(mut self, what: &str, is_so: impl Fn(&World) -> bool) -> World {
        let clock = self.around.clock.clone();
        for _ in 0..MOST_STEPS {
            if is_so(&self) {
                return self;
            }
            if !self.step() {
                let Some(next) = clock.next() else { break };
                clock.advance(next.since(clock.monotonic()).max(Duration::from_nanos(1)));
            }
        }
        panic!("it never is so that {what}");
    }

    fn entry(&self) -> Arc<IdentityEntry> {
        self.life.parts.directory.get(PARTIES[0]).unwrap()
    }

    fn deadlines(&self) -> usize {
        self.life.parts.deadlines.len()
    }

    /// How long the world has lasted, by the clock that cannot be set.
    fn lasted(&self) -> Duration {
        self.around.clock.monotonic().since(Default::default())
    }
}

#[test]
fn a_host_that_shares_its_identities_forgets_the_deadlines_of_one_that_it_lets_go() {
    super::super::on_a_large_stack(|| {
        let change = |plan| Plan { shares: true, idle_close: Duration::from_secs(60), ..plan };
        let world = World::of_a_sleeper(change);
        assert!(world.entry().is_held());
        let world = world.until("it is let go", |world| !world.entry().is_held());
        assert!(world.lasted() < Duration::from_millis(SLEEP), "it is not because the flow has ended");
        assert_eq!((world.deadlines(), world.around.disk.tables.lock().live_rows().count()), (0, 1));
    });
}

#[test]
fn a_host_forgets_the_deadlines_of_an_identity_that_it_has_lost() {
    super::super::on_a_large_stack(|| {
        // Once while the flow is in memory, and once while it is not.
        for eviction in [Eviction::Never, Eviction::EveryWait] {
            let change = |plan| Plan { shares: true, idle_close: Duration::from_secs(7_200), eviction, ..plan };
            let world = World::of_a_sleeper(change);
            world.life.parts.waking.lose(&world.entry(), "the test says so");
            let is_closed = |world: &World| matches!(&*world.entry().state.lock(), EntryState::Cold(_));
            let world = world.until("it is given up", is_closed);
            assert!(world.lasted() < Duration::from_millis(SLEEP), "it is not because the flow has ended");
            assert_eq!(
                (world.deadlines(), world.around.disk.tables.lock().live_rows().count()),
                (0, 1),
                "{eviction:?}"
            );
        }
    });
}

#[test]
fn a_host_that_is_alone_keeps_the_deadlines_of_an_identity_that_sleeps_until_its_manifest_goes() {
    super::super::on_a_large_stack(|| {
        let world = World::of_a_sleeper(|plan| plan);
        let is_cold = |world: &World| matches!(&*world.entry().state.lock(), EntryState::Cold(_));
        let world = world.until("it sleeps", is_cold);
        assert_eq!(world.deadlines(), 1, "it wakes by the same clock");
        let entry = world.entry();
        world.life.parts.waking.tell(&entry, IdentityCommand::Drain);
        let world = world.until("it is gone", |_| entry.is_removed());
        assert!(world.lasted() < Duration::from_millis(SLEEP), "it is not because the flow has ended");
        assert_eq!((world.deadlines(), world.around.disk.tables.lock().live_rows().count()), (0, 1));
    });
}

//! What is forgotten of an identity that is not this host's any more, while a flow of its own waits for a time.

use std::thread;
use std::time::Instant;

use super::super::PARTIES;
use super::super::plan::{Move, Root, Talk};
use super::*;
use crate::options::Eviction;
use crate::registry::entry::{EntryState, IdentityEntry};

/// How long the flow sleeps: as long as a flow may. Milliseconds.
const SLEEP: u64 = 300_000;
/// Time passes up to here and no further, so that the flow never wakes: long before the end of its sleep, and long after all
/// that a host waits for of its own accord.
const LATEST: Duration = Duration::from_millis(SLEEP / 2);
/// How long threads outside of the world are waited for.
const PATIENCE: Duration = Duration::from_secs(60);

impl World {
    /// One identity, and a flow of its own that sleeps.
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
        let mut world = World::new(change(plan), rng, None);
        world.until("the flow sleeps", |world| world.deadlines() == 1 && world.started[0].get().is_some());
        world
    }

    /// Lets things happen until it is so. Time passes when nothing else can happen, up to [`LATEST`]. What has not come about by
    /// then waits for a thread outside of the world, of which the world cannot tell whether it is at work: a host that shares its
    /// identities has the broker make sure of their queues. Such a thread is waited for while the clock of the world stands.
    fn until(&mut self, what: &str, is_so: impl Fn(&World) -> bool) {
        let clock = self.around.clock.clone();
        let latest = Instant::now() + PATIENCE;
        for _ in 0..MOST_STEPS {
            if is_so(self) {
                return;
            }
            if self.step() {
                continue;
            }
            match clock.next() {
                Some(next) if next.since(Default::default()) < LATEST => {
                    clock.advance(next.since(clock.monotonic()).max(Duration::from_nanos(1)));
                }
                _ => {
                    assert!(Instant::now() < latest, "it never is so that {what}");
                    thread::sleep(Duration::from_millis(1));
                }
            }
        }
        panic!("it never is so that {what}");
    }

    fn entry(&self) -> Arc<IdentityEntry> {
        self.life.parts.directory.get(PARTIES[0]).unwrap()
    }

    fn is_cold(&self) -> bool {
        matches!(&*self.entry().state.lock(), EntryState::Cold(_))
    }

    fn deadlines(&self) -> usize {
        self.life.parts.deadlines.len()
    }

    /// The flow has not ended, and nothing is known of its deadline.
    fn has_forgotten(&self, case: &str) {
        let live = self.around.disk.tables.lock().live_rows().count();
        assert_eq!((self.deadlines(), live), (0, 1), "{case}");
    }
}

#[test]
fn a_host_that_shares_its_identities_forgets_the_deadlines_of_one_that_it_lets_go() {
    super::super::on_a_large_stack(|| {
        let change = |plan| Plan { shares: true, idle_close: Duration::from_secs(60), ..plan };
        let mut world = World::of_a_sleeper(change);
        assert!(world.entry().is_held());
        world.until("it is let go", |world| !world.entry().is_held() && world.is_cold());
        world.has_forgotten("let go");
    });
}

#[test]
fn a_host_forgets_the_deadlines_of_an_identity_that_it_has_lost() {
    super::super::on_a_large_stack(|| {
        // Once while the flow is in memory, and once while it is not.
        for eviction in [Eviction::Never, Eviction::EveryWait] {
            let change = |plan| Plan { shares: true, idle_close: Duration::from_secs(7_200), eviction, ..plan };
            let mut world = World::of_a_sleeper(change);
            world.life.parts.waking.lose(&world.entry(), "the test says so");
            world.until("it is given up", World::is_cold);
            world.has_forgotten(&format!("{eviction:?}"));
        }
    });
}

#[test]
fn a_host_that_is_alone_keeps_the_deadlines_of_an_identity_that_sleeps_until_its_manifest_goes() {
    super::super::on_a_large_stack(|| {
        let mut world = World::of_a_sleeper(|plan| plan);
        world.until("it sleeps", World::is_cold);
        assert_eq!(world.deadlines(), 1, "it wakes by the same clock");
        let entry = world.entry();
        world.life.parts.waking.tell(&entry, IdentityCommand::Drain);
        world.until("it is gone", |_| entry.is_removed());
        world.has_forgotten("its manifest went");
    });
}

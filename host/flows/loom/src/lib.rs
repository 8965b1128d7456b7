//! The small protocols between threads of `maxhost-flows`, over the primitives of loom, which tries every order in which
//! the threads may run and every value that a load may see.
//!
//! The modules are those of `maxhost-flows`, compiled from the same files. They take their primitives from
//! `crate::base::sync`, which is loom's here. Each function below is one model; the tests run them.
#![allow(dead_code, reason = "not every part of a module is in a model")]
#![allow(clippy::panic, reason = "a model that finds something fails")]

mod base {
    pub(crate) mod sync;
}

#[path = "../../src/flow/commit_tracker.rs"]
mod commit_tracker;
#[path = "../../src/flow/inbox.rs"]
mod inbox;
#[path = "../../src/flow/signals.rs"]
mod signals;
#[path = "../../src/flow/speculation.rs"]
mod speculation;

use loom::thread;

use crate::base::sync::{Arc, AtomicU8, Mutex, Notify, Ordering};
use crate::commit_tracker::CommitTracker;
use crate::inbox::{Inbox, Kept, MAX_QUEUED_BYTES};
use crate::signals::{Signal, Signals};
use crate::speculation::Speculation;

/// What one run and the threads around it share.
struct Run {
    inbox: Inbox<u32>,
    signals: Signals,
    units: CommitTracker<&'static str>,
    notify: Notify,
}

impl Run {
    fn new() -> Arc<Run> {
        Arc::new(Run {
            inbox: Inbox::new(),
            signals: Signals::new(),
            units: CommitTracker::new(),
            notify: Notify::new(),
        })
    }

    /// As `RunningFlow::settle`.
    fn settle(&self) {
        if !self.units.begin_settling() {
            while !self.units.is_settled() {
                self.notify.wait();
            }
        }
        self.units.end_settling();
    }
}

/// A run that settles while the committer answers its units goes on when the last is answered, and knows what came of
/// them: loom reports a run that sleeps for ever as a deadlock.
pub fn a_run_that_settles_is_woken_by_the_last_answer() {
    loom::model(|| {
        let run = Run::new();
        run.units.submitting();
        run.units.submitting();
        let committer = {
            let run = run.clone();
            thread::spawn(move || {
                if run.units.committed() {
                    run.notify.wake();
                }
                if run.units.failed("refused") {
                    run.notify.wake();
                }
            })
        };
        run.settle();
        assert!(run.units.is_durable());
        assert_eq!(run.units.take_failure(), Some("refused"));
        assert!(committer.join().is_ok());
    });
}

/// As above, with a third unit that is handed in while the first is being answered, and a second settling.
pub fn a_run_may_settle_again() {
    loom::model(|| {
        let run = Run::new();
        let answer = |run: &Arc<Run>| {
            let run = run.clone();
            thread::spawn(move || {
                if run.units.committed() {
                    run.notify.wake();
                }
            })
        };
        run.units.submitting();
        let first = answer(&run);
        run.settle();
        run.units.submitting();
        let second = answer(&run);
        run.settle();
        assert_eq!(run.units.in_flight(), 0);
        assert!(first.join().is_ok() && second.join().is_ok());
    });
}

/// A run that waits for anything is woken by a signal and by an arrival, however they fall together with its look.
pub fn a_run_that_waits_sees_signals_and_arrivals() {
    loom::model(|| {
        let run = Run::new();
        let other = {
            let run = run.clone();
            thread::spawn(move || {
                assert_eq!(run.inbox.push(1, 1, Kept::InDatabase), Ok(()));
                run.notify.wake();
                run.signals.raise(Signal::Kill);
                run.notify.wake();
            })
        };
        let mut taken = Vec::new();
        while taken.is_empty() || !run.signals.is_raised(Signal::Kill) {
            taken.extend(run.inbox.take());
            if taken.is_empty() || !run.signals.any() {
                run.notify.wait();
            }
        }
        assert_eq!(taken, [1]);
        assert!(other.join().is_ok());
    });
}

/// Whatever is pushed while a run gives up its instance is taken by it, handed out when its inbox closes, told by the
/// mark, or given back.
pub fn nothing_is_lost_when_an_inbox_closes() {
    loom::model(|| {
        let run = Run::new();
        assert_eq!(run.inbox.push(0, MAX_QUEUED_BYTES, Kept::InDatabase), Ok(()));
        let other = {
            let run = run.clone();
            thread::spawn(move || run.inbox.push(1, 1, Kept::InDatabase).is_ok())
        };
        let mut seen = run.inbox.take();
        let rest = run.inbox.close();
        seen.extend(&rest.unread);
        let Ok(pushed) = other.join() else { panic!("a thread failed") };
        assert!(seen.contains(&0));
        assert_eq!(seen.contains(&1) || rest.missed, pushed, "it is given back to whom it was not taken from");
    });
}

/// What a run waits for in the ledger is seen, whatever comes first: its look, the record, or the end of the run.
///
/// The run is noted as one that waits, looks into the ledger, and waits or gives up its instance. The committer writes the
/// record, and tells the run if it is noted, or has it brought back if it is gone.
pub fn what_is_waited_for_in_the_ledger_is_seen() {
    for leaves in [false, true] {
        loom::model(move || {
            struct World {
                run: Arc<Run>,
                noted: Mutex<bool>,
                recorded: Mutex<bool>,
            }
            let world = Arc::new(World { run: Run::new(), noted: Mutex::new(false), recorded: Mutex::new(false) });
            let committer = {
                let world = world.clone();
                thread::spawn(move || {
                    *world.recorded.lock() = true;
                    let noted = *world.noted.lock();
                    let is_told = noted && world.run.inbox.stir();
                    if is_told {
                        world.run.notify.wake();
                    }
                    noted && !is_told
                })
            };
            let look = || {
                world.run.inbox.forget_stirred();
                *world.noted.lock() = true;
                *world.recorded.lock()
            };
            let mut seen = look();
            while !seen && !leaves {
                while !world.run.inbox.is_stirred() {
                    world.run.notify.wait();
                }
                seen = look();
            }
            let rest = world.run.inbox.close();
            let Ok(is_brought_back) = committer.join() else { panic!("a thread failed") };
            assert!(seen || rest.is_news() || is_brought_back, "a flow waits for what is there");
        });
    }
}

/// A message that runs ahead reaches its recipient whatever comes first: its copy, its commit, or the end of the
/// recipient's run.
///
/// The sender leaves a copy at the recipient; if that does not take it, and it is written already, the sender brings it.
/// The committer writes it, and brings it if the copy was not taken or the recipient has gone. The recipient takes what
/// is there, gives up its instance, and looks into the database if something was left. Whoever brings a message leaves it
/// at the recipient, or has the database looked into.
pub fn a_message_that_runs_ahead_reaches_its_recipient() {
    loom::model(|| {
        struct World {
            run: Arc<Run>,
            speculation: Speculation,
            /// 1: the message is in the database.
            row: AtomicU8,
            /// 1: the recipient has seen it.
            seen: AtomicU8,
        }
        impl World {
            fn look(&self) {
                if self.row.load(Ordering::Acquire) == 1 {
                    self.seen.store(1, Ordering::Release);
                }
            }
            fn bring(&self) {
                if self.run.inbox.push(1, 1, Kept::InDatabase).is_err() {
                    self.look();
                }
            }
        }
        let world = Arc::new(World {
            run: Run::new(),
            speculation: Speculation::default(),
            row: AtomicU8::new(0),
            seen: AtomicU8::new(0),
        });
        let sender = {
            let world = world.clone();
            thread::spawn(move || {
                if world.run.inbox.push(1, 1, Kept::NotYet).is_err() && world.speculation.decline() {
                    world.bring();
                }
            })
        };
        let committer = {
            let world = world.clone();
            thread::spawn(move || {
                world.row.store(1, Ordering::Release);
                if world.speculation.written() || world.run.inbox.is_closed() {
                    world.bring();
                }
            })
        };
        if !world.run.inbox.take().is_empty() {
            world.seen.store(1, Ordering::Release);
        }
        if world.run.inbox.close().is_news() {
            world.look();
        }
        assert!(sender.join().is_ok() && committer.join().is_ok());
        assert_eq!(world.seen.load(Ordering::Acquire), 1, "the message was not seen");
    });
}

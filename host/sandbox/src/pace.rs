//! Long work on a thread of its own that lets others go first now and then, and brief work on a thread that is not to be held up.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

thread_local! {
    static PACE: RefCell<Option<Rc<dyn Fn()>>> = const { RefCell::new(None) };
    /// Until when brief work of this thread may go on.
    static BRIEF: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Does work on this thread that is not to take longer. A contract that is asked in it has trouble of this host instead of waiting
/// for an instance, when it is asked later than that, or when its engine ticks later than that.
pub fn briefly<R>(most: Duration, work: impl FnOnce() -> R) -> R {
    struct Restore(Option<Instant>);
    impl Drop for Restore {
        fn drop(&mut self) {
            BRIEF.set(self.0);
        }
    }
    let _restore = Restore(BRIEF.replace(Some(Instant::now() + most)));
    work()
}

/// Whether this thread does brief work.
pub(crate) fn is_brief() -> bool {
    BRIEF.get().is_some()
}

/// Whether this thread does brief work, and that has taken too long.
pub(crate) fn is_late() -> bool {
    BRIEF.get().is_some_and(|until| Instant::now() >= until)
}

/// Does work on this thread. Whatever computes for long in it calls [`pace`] now and then, contracts at every tick of their engine,
/// and that calls `between`, which may block until the work is to go on.
pub fn in_turns<R>(between: Rc<dyn Fn()>, work: impl FnOnce() -> R) -> R {
    struct Restore(Option<Rc<dyn Fn()>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            PACE.set(self.0.take());
        }
    }
    let _restore = Restore(PACE.replace(Some(between)));
    work()
}

/// Lets others go first, if this thread does work in turns.
pub fn pace() {
    let between = PACE.with_borrow(Clone::clone);
    if let Some(between) = between {
        between();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::cell::Cell;

    use super::*;

    #[test]
    fn brief_work_is_late_when_its_time_is_over_and_nothing_else_is() {
        assert!(!is_brief() && !is_late());
        let late = briefly(Duration::ZERO, is_late);
        let inner = briefly(Duration::ZERO, || briefly(Duration::from_secs(600), || (is_brief(), is_late())));
        assert_eq!((late, inner), (true, (true, false)));
        assert!(!is_brief() && !is_late());
    }

    #[test]
    fn work_is_paced_where_it_is_done_in_turns_and_nowhere_else() {
        let count = Rc::new(Cell::new(0));
        let between = |by: i32| {
            let count = count.clone();
            Rc::new(move || count.set(count.get() + by))
        };
        pace();
        let done = in_turns(between(1), || {
            pace();
            in_turns(between(10), pace);
            pace();
            "done"
        });
        let panicked =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| in_turns(between(100), || panic!("on purpose"))));
        pace();
        assert_eq!((done, panicked.is_err(), count.get()), ("done", true, 12));
    }
}

//! Long work on a thread of its own that lets others go first now and then.

use std::cell::RefCell;
use std::rc::Rc;

thread_local! {
    static PACE: RefCell<Option<Rc<dyn Fn()>>> = const { RefCell::new(None) };
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

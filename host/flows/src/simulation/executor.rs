//! Runs tasks one step at a time, in an order that is drawn: any task that can go on may be the next.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::rng::Rng;

#[derive(Default)]
struct Tasks {
    /// `None` while it is being polled.
    all: BTreeMap<u64, Option<BoxFuture<'static, ()>>>,
    ready: Vec<u64>,
    last: u64,
}

/// The tasks of one simulation, of which each step takes one at random.
#[derive(Clone)]
pub(crate) struct Executor {
    tasks: Arc<Mutex<Tasks>>,
    rng: Rng,
}

struct TaskWaker {
    task: u64,
    tasks: Arc<Mutex<Tasks>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let mut tasks = self.tasks.lock();
        if tasks.all.contains_key(&self.task) && !tasks.ready.contains(&self.task) {
            tasks.ready.push(self.task);
        }
    }
}

impl Executor {
    pub fn new(rng: Rng) -> Executor {
        Executor { tasks: Arc::default(), rng }
    }

    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock();
        tasks.last += 1;
        let id = tasks.last;
        tasks.all.insert(id, Some(Box::pin(task)));
        tasks.ready.push(id);
    }

    /// Polls one task that can go on. False if there is none, or if the one that was drawn is being polled further up.
    pub fn step(&self) -> bool {
        let (id, mut task) = {
            let mut tasks = self.tasks.lock();
            if tasks.ready.is_empty() {
                return false;
            }
            let drawn = self.rng.below(tasks.ready.len());
            let id = tasks.ready.swap_remove(drawn);
            match tasks.all.get_mut(&id) {
                None => return true,
                Some(slot) => match slot.take() {
                    Some(task) => (id, task),
                    None => {
                        // It was woken while it is polled further up: it stays ready.
                        tasks.ready.push(id);
                        return false;
                    }
                },
            }
        };
        let waker = Waker::from(Arc::new(TaskWaker { task: id, tasks: self.tasks.clone() }));
        let over = task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let mut tasks = self.tasks.lock();
        match over {
            true => {
                tasks.all.remove(&id);
                drop(tasks);
            }
            false => {
                tasks.all.insert(id, Some(task));
                drop(tasks);
            }
        }
        true
    }

    /// Drops every task. What they hold may wake others, so they are dropped outside of the lock.
    pub fn clear(&self) {
        let all = std::mem::take(&mut self.tasks.lock().all);
        drop(all);
        self.tasks.lock().ready.clear();
    }
}

/// Lets others go first, once.
pub(crate) async fn pause() {
    let mut paused = false;
    std::future::poll_fn(move |context| {
        if std::mem::replace(&mut paused, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

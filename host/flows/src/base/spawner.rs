//! Where tasks are started: on the threads of a runtime, or, in a simulation, on an executor whose every step is drawn.

use std::future::Future;

use maxhost_model::{Code, Problem};
use tokio::runtime::Handle;

/// Starts tasks. Clones start them at the same place.
#[derive(Clone)]
pub(crate) struct Spawner(Kind);

#[derive(Clone)]
enum Kind {
    Runtime(Handle),
    #[cfg(test)]
    Simulated(crate::simulation::Executor),
}

impl Spawner {
    /// On the threads of this runtime.
    pub fn on(runtime: Handle) -> Spawner {
        Spawner(Kind::Runtime(runtime))
    }

    /// On an executor that takes one step at a time.
    #[cfg(test)]
    pub fn simulated(executor: crate::simulation::Executor) -> Spawner {
        Spawner(Kind::Simulated(executor))
    }

    /// Starts a task. It ends by itself, or with the host.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        match &self.0 {
            Kind::Runtime(runtime) => drop(runtime.spawn(task)),
            #[cfg(test)]
            Kind::Simulated(executor) => executor.spawn(task),
        }
    }

    /// Does work that blocks. A simulation has no threads for it: there the work is done at once.
    #[cfg(test)]
    pub fn blocking<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> futures::future::BoxFuture<'static, Result<R, crate::base::trouble::Trouble>> {
        let done = work();
        Box::pin(async move {
            crate::simulation::pause().await;
            Ok(done)
        })
    }

    /// The executor, in a simulation.
    #[cfg(test)]
    pub fn executor(&self) -> Option<&crate::simulation::Executor> {
        match &self.0 {
            Kind::Runtime(_) => None,
            Kind::Simulated(executor) => Some(executor),
        }
    }
}

/// Does work that blocks on a thread of the runtime that may.
///
/// # Errors
/// Those of the work. `internal`: it has panicked, which is a defect.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Problem::new(Code::Internal, error.to_string()))?
}

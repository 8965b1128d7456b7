//! Work that takes processors, on all of them.

use super::environment::LedgerEnvironment;
use crate::base::trouble::Trouble;
use crate::guests::jobs::each_in_turns;

/// So few are done where they are asked for: reading one, or checking its signatures, takes some 100 µs.
const FEW: usize = 2;

/// As [`on_all`], for work that never takes long.
pub(super) async fn in_parallel<T, R>(
    environment: &LedgerEnvironment,
    things: Vec<T>,
    work: impl Fn(T) -> R + Send + Sync + Clone + 'static,
) -> Result<Vec<R>, Trouble>
where
    T: Send + 'static,
    R: Send + 'static,
{
    if things.len() <= FEW {
        return Ok(things.into_iter().map(work).collect());
    }
    on_all(environment, things, work).await
}

/// Does the same with each of many things, in the turns of the identity, and gives the answers in their order.
pub(super) async fn on_all<T, R>(
    environment: &LedgerEnvironment,
    things: Vec<T>,
    work: impl Fn(T) -> R + Send + Sync + Clone + 'static,
) -> Result<Vec<R>, Trouble>
where
    T: Send + 'static,
    R: Send + 'static,
{
    let threads = environment.services.placement.threads();
    let share = things.len().div_ceil(threads).max(1);
    let mut things = things.into_iter();
    let mut parts = Vec::with_capacity(threads);
    loop {
        let part: Vec<T> = things.by_ref().take(share).collect();
        if part.is_empty() {
            break;
        }
        let work = work.clone();
        parts.push(environment.work(move || each_in_turns(part, work)));
    }
    let done = futures::future::try_join_all(parts).await?;
    Ok(done.into_iter().flatten().collect())
}

//! The clocks of WASI show the flow's time, and to wait for one is to sleep, as by the flow's own call: a wait that the
//! journal did not know of could not be put away, nor come back the same.

use std::collections::BTreeMap;

use async_trait::async_trait;
use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::clocks::wall_clock::Datetime;
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};
use wasmtime_wasi_io::bindings::wasi::io::poll;

use super::refused;
use crate::state::RunState;

/// The longest sleep of a flow; a longer wait for a clock is several. Milliseconds.
const MAX_SLEEP_MS: u64 = 5 * 60 * 1000;

/// The moments that pollables stand for, by the pollable's number. All other pollables that a guest can come by are of
/// its standard streams, which are always ready.
pub(super) type Deadlines = BTreeMap<u32, u64>;

/// What the pollable of a moment is made of. Whether the moment has come is asked of the flow's clock, not of this.
struct Moment;

#[async_trait]
impl Pollable for Moment {
    async fn ready(&mut self) {
        std::future::pending::<()>().await;
    }
}

impl RunState {
    fn pollable_of(&mut self, moment: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let stands_for = self.wasi.table.push(Moment)?;
        let pollable = subscribe(&mut self.wasi.table, stands_for)?;
        self.wasi.deadlines.insert(pollable.rep(), moment);
        Ok(pollable)
    }

    /// Waits until at least one is ready, and names those that are.
    async fn wait_for(&mut self, pollables: &[Resource<DynPollable>]) -> wasmtime::Result<Vec<u32>> {
        if pollables.is_empty() {
            return Err(refused("polls nothing, which would never end".to_owned()));
        }
        let moments: Vec<Option<u64>> =
            pollables.iter().map(|pollable| self.wasi.deadlines.get(&pollable.rep()).copied()).collect();
        loop {
            let now = self.now();
            let is_ready = |moment: &Option<u64>| moment.is_none_or(|moment| moment <= now);
            let ready: Vec<u32> =
                (0_u32..).zip(&moments).filter(|(_, moment)| is_ready(moment)).map(|(index, _)| index).collect();
            if !ready.is_empty() {
                return Ok(ready);
            }
            let earliest = moments.iter().flatten().min().copied().unwrap_or(now);
            self.sleep(earliest.saturating_sub(now).div_ceil(1_000_000).min(MAX_SLEEP_MS)).await?;
        }
    }
}

impl poll::Host for RunState {
    async fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> wasmtime::Result<Vec<u32>> {
        self.wait_for(&pollables).await
    }
}

impl poll::HostPollable for RunState {
    async fn ready(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<bool> {
        let moment = self.wasi.deadlines.get(&pollable.rep()).copied();
        Ok(moment.is_none_or(|moment| moment <= self.now()))
    }

    async fn block(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        self.wait_for(&[pollable]).await.map(drop)
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        self.wasi.deadlines.remove(&pollable.rep());
        poll::HostPollable::drop(&mut self.wasi.table, pollable)
    }
}

impl monotonic_clock::Host for RunState {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(RunState::now(self))
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(1)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.pollable_of(when)
    }

    fn subscribe_duration(&mut self, nanoseconds: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let moment = RunState::now(self).saturating_add(nanoseconds);
        self.pollable_of(moment)
    }
}

impl wall_clock::Host for RunState {
    fn now(&mut self) -> wasmtime::Result<Datetime> {
        let now = RunState::now(self);
        Ok(Datetime { seconds: now / 1_000_000_000, nanoseconds: (now % 1_000_000_000) as u32 })
    }

    fn resolution(&mut self) -> wasmtime::Result<Datetime> {
        Ok(Datetime { seconds: 0, nanoseconds: 1 })
    }
}

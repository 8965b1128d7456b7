//! The live flows of an open identity: which are in memory, which wait for what, and which have something to do.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use maxhost_model::{FlowRow, Problem};
use tokio::sync::oneshot;

use crate::base::clock::Moment;
use crate::base::fair_queue::FairQueue;
use crate::flow::running_flow::RunningFlow;
use crate::flow::status::RoomWait;

/// Where one flow is.
pub(super) enum SlotState {
    /// In memory. `news`: something arrived that its run may not have seen.
    Hot { running: Arc<RunningFlow>, news: bool },
    /// In the database only, until somebody has news for it, or until then.
    Cold { until: Option<Moment> },
    /// It met trouble that passes, and is tried again then.
    Retrying { at: Moment },
    /// It needs a person.
    Hospital,
}

impl SlotState {
    fn alarm(&self) -> Option<Moment> {
        match self {
            SlotState::Cold { until } => *until,
            SlotState::Retrying { at } => Some(*at),
            SlotState::Hot { .. } | SlotState::Hospital => None,
        }
    }
}

/// Who waits for the end of a flow that is killed.
pub(super) type KillReply = oneshot::Sender<Result<bool, Problem>>;

/// One live flow.
pub(super) struct FlowSlot {
    state: SlotState,
    /// How often its guest was begun, as far as is known here; the journal may know of more.
    pub attempts: u32,
    /// How often it met trouble that is not its own since it last got on.
    pub troubles: u32,
    /// How often of these a run of it met a defect of the host.
    pub defects: u32,
    /// Its messages find no room since then. It is tried again until they do.
    pub no_room: Option<RoomWait>,
    /// The user that started it under a client id, and that client id.
    pub client: Option<(String, String)>,
    /// Who opened the session that it answers, as far as is known here; nobody, if it was started otherwise.
    caller: Arc<str>,
    /// The initiation that it answers, until its first activation is over.
    pub initiation: Option<i64>,
    pub kills: Vec<KillReply>,
    /// It comes back only to be ended, however often that takes.
    pub kill_pending: bool,
}

impl FlowSlot {
    fn new(state: SlotState, client: Option<(String, String)>, caller: Arc<str>) -> FlowSlot {
        FlowSlot {
            state,
            attempts: 0,
            troubles: 0,
            defects: 0,
            no_room: None,
            client,
            caller,
            initiation: None,
            kills: Vec::new(),
            kill_pending: false,
        }
    }

    pub fn state(&self) -> &SlotState {
        &self.state
    }

    /// Its run, if it is in memory.
    pub fn running(&self) -> Option<&Arc<RunningFlow>> {
        match &self.state {
            SlotState::Hot { running, .. } => Some(running),
            SlotState::Cold { .. } | SlotState::Retrying { .. } | SlotState::Hospital => None,
        }
    }
}

/// The flows of one open identity, with their alarms. Every change of a flow's state goes through [`FlowTable::set`], so
/// alarms and counts are always those of the states.
#[derive(Default)]
pub(super) struct FlowTable {
    flows: BTreeMap<FlowRow, FlowSlot>,
    alarms: BTreeSet<(Moment, FlowRow)>,
    /// Flows that have something to do and wait for room. Those who opened their sessions take turns.
    ready: FairQueue<FlowRow>,
    queued: HashSet<FlowRow>,
    hot: u32,
}

impl FlowTable {
    /// The flows that are live in the database; of `held` it is known that they are in hospital.
    pub fn new(live: &[FlowRow], held: &[FlowRow]) -> FlowTable {
        let held: HashSet<FlowRow> = held.iter().copied().collect();
        let mut table = FlowTable::default();
        for row in live {
            let state = match held.contains(row) {
                true => SlotState::Hospital,
                false => SlotState::Cold { until: None },
            };
            table.flows.insert(*row, FlowSlot::new(state, None, Arc::default()));
        }
        table
    }

    pub fn insert(&mut self, row: FlowRow, state: SlotState, client: Option<(String, String)>, caller: Arc<str>) {
        // What was there before is not counted any more.
        self.remove(row);
        self.flows.insert(row, FlowSlot::new(SlotState::Cold { until: None }, client, caller));
        self.set(row, state);
    }

    /// Moves a flow to another state. A flow that is not in the table stays out of it.
    pub fn set(&mut self, row: FlowRow, state: SlotState) {
        let Some(slot) = self.flows.get_mut(&row) else { return };
        if let Some(at) = slot.state.alarm() {
            self.alarms.remove(&(at, row));
        }
        if let Some(at) = state.alarm() {
            self.alarms.insert((at, row));
        }
        self.hot -= u32::from(slot.running().is_some());
        slot.state = state;
        self.hot += u32::from(slot.running().is_some());
    }

    pub fn remove(&mut self, row: FlowRow) -> Option<FlowSlot> {
        self.set(row, SlotState::Hospital);
        self.flows.remove(&row)
    }

    pub fn get(&self, row: FlowRow) -> Option<&FlowSlot> {
        self.flows.get(&row)
    }

    pub fn get_mut(&mut self, row: FlowRow) -> Option<&mut FlowSlot> {
        self.flows.get_mut(&row)
    }

    pub fn iter(&self) -> impl Iterator<Item = (FlowRow, &FlowSlot)> {
        self.flows.iter().map(|(row, slot)| (*row, slot))
    }

    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Flows in memory.
    pub fn hot(&self) -> u32 {
        self.hot
    }

    /// The runs of the flows in memory.
    pub fn hot_flows(&self) -> impl Iterator<Item = &Arc<RunningFlow>> {
        self.flows.values().filter_map(FlowSlot::running)
    }

    /// Something arrived for a flow. One that is tried again later, or is in hospital, finds it then.
    pub fn news(&mut self, row: FlowRow) {
        match self.flows.get_mut(&row).map(|slot| &mut slot.state) {
            Some(SlotState::Hot { news, .. }) => *news = true,
            Some(SlotState::Cold { .. }) => self.enqueue(row),
            Some(SlotState::Retrying { .. } | SlotState::Hospital) | None => {}
        }
    }

    /// There may be news for any flow in memory that no command tells of.
    pub fn news_for_hot(&mut self) {
        for slot in self.flows.values_mut() {
            if let SlotState::Hot { news, .. } = &mut slot.state {
                *news = true;
            }
        }
    }

    pub fn cold(&self) -> Vec<FlowRow> {
        let cold = |(row, slot): (FlowRow, &FlowSlot)| matches!(slot.state, SlotState::Cold { .. }).then_some(row);
        self.iter().filter_map(cold).collect()
    }

    pub fn held(&self) -> Vec<FlowRow> {
        let held = |(row, slot): (FlowRow, &FlowSlot)| matches!(slot.state, SlotState::Hospital).then_some(row);
        self.iter().filter_map(held).collect()
    }

    /// The flow has something to do.
    pub fn enqueue(&mut self, row: FlowRow) {
        if self.queued.insert(row) {
            let caller = self.flows.get(&row).map(|slot| slot.caller.clone()).unwrap_or_default();
            self.ready.push(&caller, 1, row);
        }
    }

    pub fn is_anything_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The next flow that has something to do.
    pub fn next_ready(&mut self) -> Option<FlowRow> {
        let (_, row) = self.ready.pop()?;
        self.queued.remove(&row);
        Some(row)
    }

    /// Nothing is brought back any more.
    pub fn clear_ready(&mut self) {
        self.ready.clear();
        self.queued.clear();
    }

    /// The first moment at which a flow that is not in memory has to be looked at.
    pub fn next_alarm(&self) -> Option<Moment> {
        self.alarms.first().map(|(at, _)| *at)
    }

    /// Those whose time has come have something to do.
    pub fn fire(&mut self, now: Moment) {
        while let Some(&(at, row)) = self.alarms.first()
            && at <= now
        {
            self.set(row, SlotState::Cold { until: None });
            self.enqueue(row);
        }
    }

    /// A flow that somebody wants dead comes back however long that takes.
    pub fn is_any_kill_pending(&self) -> bool {
        self.flows.values().any(|slot| slot.kill_pending)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use maxhost_model::IdentityRow;

    use super::*;

    const A: FlowRow = FlowRow(1);
    const B: FlowRow = FlowRow(2);

    const fn at(seconds: u64) -> Moment {
        Moment::new(Duration::from_secs(seconds))
    }

    fn hot(row: FlowRow) -> SlotState {
        SlotState::Hot { running: RunningFlow::new(row, IdentityRow(1)), news: false }
    }

    #[test]
    fn alarms_and_counts_follow_the_states() {
        let mut table = FlowTable::new(&[A, B], &[]);
        table.set(A, SlotState::Cold { until: Some(at(5)) });
        table.set(B, SlotState::Retrying { at: at(3) });
        assert_eq!((table.next_alarm(), table.hot()), (Some(at(3)), 0));
        table.set(B, hot(B));
        assert_eq!((table.next_alarm(), table.hot()), (Some(at(5)), 1));
        table.set(B, hot(B));
        assert_eq!(table.hot(), 1, "the same flow");
        table.insert(B, hot(B), None, Arc::default());
        assert_eq!(table.hot(), 1, "the same row");
        assert!(table.remove(B).is_some_and(|slot| slot.state.alarm().is_none()));
        assert!(table.remove(A).is_some());
        assert_eq!((table.next_alarm(), table.hot(), table.len()), (None, 0, 0));
        table.set(A, hot(A));
        assert_eq!(table.len(), 0, "it is gone");
    }

    #[test]
    fn a_flow_whose_time_has_come_is_ready_once() {
        let mut table = FlowTable::new(&[A, B], &[]);
        table.set(A, SlotState::Cold { until: Some(at(5)) });
        table.news(A);
        table.fire(at(4));
        table.fire(at(5));
        assert_eq!((table.next_ready(), table.next_ready()), (Some(A), None));
        assert_eq!(table.next_alarm(), None);
    }

    #[test]
    fn flows_come_back_in_the_turns_of_those_who_opened_their_sessions() {
        let mut table = FlowTable::default();
        let callers = ["flooding", "flooding", "flooding", "", "single", "flooding", ""];
        for (row, caller) in (1..).map(FlowRow).zip(callers) {
            table.insert(row, SlotState::Cold { until: None }, None, caller.into());
            table.news(row);
        }
        table.news(FlowRow(2));
        let order: Vec<i64> = std::iter::from_fn(|| table.next_ready()).map(|row| row.0).collect();
        assert_eq!(order, [1, 4, 5, 2, 7, 3, 6]);
    }

    #[test]
    fn news_brings_back_only_what_waits_for_it() {
        let mut table = FlowTable::new(&[A, B], &[B]);
        table.news(B);
        table.news(FlowRow(9));
        assert!(!table.is_anything_ready());
        table.set(A, hot(A));
        table.news(A);
        assert!(!table.is_anything_ready());
        assert!(table.get(A).is_some_and(|slot| matches!(slot.state(), SlotState::Hot { news: true, .. })));
        assert_eq!((table.cold(), table.held()), (vec![], vec![B]));
    }
}

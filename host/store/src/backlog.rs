//! How much waits for each identity, and for the broker from each identity, and how much may; and which flows hold states
//! of a vault, so that the end of one that holds none costs nothing.
//!
//! The committer counts exactly while it runs. What waits counts as follows: an initiation from when it is written until
//! it is taken; a message in the inbox of a flow from when it is written until the flow next writes its log or ends,
//! because by then it has looked; an outbox row until the broker has the message. A restart counts initiations and outbox
//! rows from their tables. Of messages it knows what was noted in the flows' rows, which is exact to within
//! [`NOTED_EVERY`] bytes and messages a flow: a flow that takes its messages as they come costs no write for it.

use std::collections::{HashMap, HashSet};
use std::fmt;

use maxhost_model::{FlowRow, IdentityRow};

use crate::error::StoreError;

/// After so many more bytes, or a 1,024th of it in messages, what waits for a flow is noted in its row.
pub const NOTED_EVERY: u64 = 64 << 10;
/// Messages of at most so many bytes may use a quarter beyond the quota: the ends, errors and confirmations of sessions
/// get through where data has to wait.
const SMALL: u64 = 4 << 10;

/// How much may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// The number of messages.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

/// The quotas of each identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// What may wait for an identity: initiations, and messages that its flows have not looked at.
    pub inbound: Quota,
    /// What may wait in the outbox of an identity.
    pub outbound: Quota,
}

impl Default for Quotas {
    fn default() -> Quotas {
        let quota = Quota { messages: 100_000, bytes: 256 << 20 };
        Quotas { inbound: quota, outbound: quota }
    }
}

/// Where messages wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queued {
    /// For the identity to take them.
    Inbound,
    /// For the broker to take them from the identity.
    Outbound,
}

impl fmt::Display for Queued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Queued::Inbound => "waiting for it",
            Queued::Outbound => "waiting for the broker",
        })
    }
}

/// Messages and bytes that wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    /// The number of messages.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

impl Waiting {
    fn add(&mut self, messages: u64, bytes: u64) {
        self.messages += messages;
        self.bytes += bytes;
    }

    fn subtract(&mut self, messages: u64, bytes: u64) {
        self.messages = self.messages.saturating_sub(messages);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// What waits for one flow.
#[derive(Debug, Clone, Copy, Default)]
struct FlowBacklog {
    identity: i64,
    waiting: Waiting,
    /// What the flow's row says.
    noted: Waiting,
}

/// How something was before it was changed.
enum Before {
    Inbound(IdentityRow, Option<Waiting>),
    Outbound(IdentityRow, Option<Waiting>),
    Flow(FlowRow, Option<FlowBacklog>),
    /// A flow that held states, or may have.
    Holder(FlowRow),
}

/// The committer's count of what waits. Changes can be undone, by unit and by transaction.
#[derive(Default)]
pub struct Backlog {
    quotas: Quotas,
    inbound: HashMap<IdentityRow, Waiting>,
    outbound: HashMap<IdentityRow, Waiting>,
    flows: HashMap<FlowRow, FlowBacklog>,
    /// Flows that may hold states. One that holds none any more may be among them until it ends.
    holders: HashSet<FlowRow>,
    undo: Vec<Before>,
}

impl fmt::Debug for Backlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backlog").field("identities", &self.inbound.len()).finish_non_exhaustive()
    }
}

impl Backlog {
    /// Nothing waits yet.
    #[must_use]
    pub fn new(quotas: Quotas) -> Backlog {
        Backlog { quotas, ..Backlog::default() }
    }

    /// Counts initiations that were found in the database.
    pub fn load_initiations(&mut self, identity: IdentityRow, messages: u64, bytes: u64) {
        self.inbound.entry(identity).or_default().add(messages, bytes);
    }

    /// Counts outbox rows that were found in the database.
    pub fn load_outbox(&mut self, identity: IdentityRow, messages: u64, bytes: u64) {
        self.outbound.entry(identity).or_default().add(messages, bytes);
    }

    /// Counts what a flow's row says that waits for it.
    pub fn load_flow(&mut self, identity: IdentityRow, flow: FlowRow, messages: u64, bytes: u64) {
        let waiting = Waiting { messages, bytes };
        self.flows.insert(flow, FlowBacklog { identity: identity.0, waiting, noted: waiting });
        self.inbound.entry(identity).or_default().add(messages, bytes);
    }

    /// A flow that was found in the database as one that holds states.
    pub fn load_holder(&mut self, flow: FlowRow) {
        self.holders.insert(flow);
    }

    /// Forgets what is known of an identity that another host may have written for, so that it can be counted anew.
    /// Only between transactions.
    pub fn forget(&mut self, identity: IdentityRow) {
        self.inbound.remove(&identity);
        self.outbound.remove(&identity);
        self.flows.retain(|_, flow| flow.identity != identity.0);
    }

    /// What waits for an identity.
    #[must_use]
    pub fn inbound(&self, identity: IdentityRow) -> Waiting {
        self.inbound.get(&identity).copied().unwrap_or_default()
    }

    /// What waits for the broker from an identity.
    #[must_use]
    pub fn outbound(&self, identity: IdentityRow) -> Waiting {
        self.outbound.get(&identity).copied().unwrap_or_default()
    }

    /// Whether messages of so many bytes more may wait for an identity.
    ///
    /// # Errors
    /// [`StoreError::NoRoom`].
    pub fn admit_inbound(&self, identity: IdentityRow, more: Waiting) -> Result<(), StoreError> {
        admit(self.quotas.inbound, self.inbound(identity), more, identity, Queued::Inbound)
    }

    /// Whether messages of so many bytes more may wait for the broker.
    ///
    /// # Errors
    /// [`StoreError::NoRoom`].
    pub fn admit_outbound(&self, identity: IdentityRow, more: Waiting) -> Result<(), StoreError> {
        admit(self.quotas.outbound, self.outbound(identity), more, identity, Queued::Outbound)
    }

    pub(crate) fn initiated(&mut self, to: IdentityRow, bytes: u64) {
        self.change_inbound(to, |waiting| waiting.add(1, bytes));
    }

    pub(crate) fn initiation_taken(&mut self, by: IdentityRow, bytes: u64) {
        self.change_inbound(by, |waiting| waiting.subtract(1, bytes));
    }

    pub(crate) fn left_for_broker(&mut self, sender: IdentityRow, bytes: u64) {
        self.change_outbound(sender, |waiting| waiting.add(1, bytes));
    }

    pub(crate) fn sent(&mut self, sender: IdentityRow, bytes: u64) {
        self.change_outbound(sender, |waiting| waiting.subtract(1, bytes));
    }

    /// A message was written into a flow's inbox. Returns what is to be noted in the flow's row now.
    pub(crate) fn delivered(&mut self, to: IdentityRow, flow: FlowRow, bytes: u64) -> Option<Waiting> {
        self.change_inbound(to, |waiting| waiting.add(1, bytes));
        let before = self.flows.get(&flow).copied();
        self.undo.push(Before::Flow(flow, before));
        let backlog =
            self.flows.entry(flow).or_insert_with(|| FlowBacklog { identity: to.0, ..FlowBacklog::default() });
        backlog.waiting.add(1, bytes);
        let due = backlog.waiting.bytes >= backlog.noted.bytes + NOTED_EVERY
            || backlog.waiting.messages >= backlog.noted.messages + NOTED_EVERY / 1024;
        due.then(|| {
            backlog.noted = backlog.waiting;
            backlog.waiting
        })
    }

    /// A flow has looked at its inbox. True if its row says that something waits, and must be corrected.
    pub(crate) fn looked(&mut self, flow: FlowRow) -> bool {
        let Some(before) = self.flows.remove(&flow) else { return false };
        self.undo.push(Before::Flow(flow, Some(before)));
        let Waiting { messages, bytes } = before.waiting;
        self.change_inbound(IdentityRow(before.identity), |waiting| waiting.subtract(messages, bytes));
        before.noted != Waiting::default()
    }

    /// A flow holds states from now on. Undoing leaves it so: it may hold none, as others here.
    pub fn holds(&mut self, flow: FlowRow) {
        self.holders.insert(flow);
    }

    /// A flow ends. True if it may hold states.
    pub(crate) fn released(&mut self, flow: FlowRow) -> bool {
        let held = self.holders.remove(&flow);
        if held {
            self.undo.push(Before::Holder(flow));
        }
        held
    }

    fn change_inbound(&mut self, identity: IdentityRow, change: impl FnOnce(&mut Waiting)) {
        self.undo.push(Before::Inbound(identity, self.inbound.get(&identity).copied()));
        change_in(&mut self.inbound, identity, change);
    }

    fn change_outbound(&mut self, identity: IdentityRow, change: impl FnOnce(&mut Waiting)) {
        self.undo.push(Before::Outbound(identity, self.outbound.get(&identity).copied()));
        change_in(&mut self.outbound, identity, change);
    }

    /// A point to which [`Backlog::undo_to`] goes back.
    #[must_use]
    pub fn mark(&self) -> usize {
        self.undo.len()
    }

    /// Undoes what was changed since.
    pub fn undo_to(&mut self, mark: usize) {
        for before in self.undo.drain(mark.min(self.undo.len())..).rev() {
            match before {
                Before::Inbound(identity, waiting) => put_back(&mut self.inbound, identity, waiting),
                Before::Outbound(identity, waiting) => put_back(&mut self.outbound, identity, waiting),
                Before::Flow(flow, backlog) => put_back(&mut self.flows, flow, backlog),
                Before::Holder(flow) => drop(self.holders.insert(flow)),
            }
        }
    }

    /// The transaction is over.
    pub fn ended(&mut self, committed: bool) {
        match committed {
            true => self.undo.clear(),
            false => self.undo_to(0),
        }
    }
}

fn change_in(waiting: &mut HashMap<IdentityRow, Waiting>, identity: IdentityRow, change: impl FnOnce(&mut Waiting)) {
    let entry = waiting.entry(identity).or_default();
    change(entry);
    if *entry == Waiting::default() {
        waiting.remove(&identity);
    }
}

fn put_back<K: std::hash::Hash + Eq, V>(map: &mut HashMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

fn admit(quota: Quota, now: Waiting, more: Waiting, identity: IdentityRow, queued: Queued) -> Result<(), StoreError> {
    let quarter = |n: u64| if more.bytes <= SMALL * more.messages { n / 4 } else { 0 };
    let fits = now.messages + more.messages <= quota.messages.saturating_add(quarter(quota.messages))
        && now.bytes + more.bytes <= quota.bytes.saturating_add(quarter(quota.bytes));
    // A message that is larger than the whole quota goes alone, or it would never go.
    match fits || (now == Waiting::default() && more.messages == 1) {
        true => Ok(()),
        false => Err(StoreError::NoRoom { identity, queued, messages: now.messages, bytes: now.bytes }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOB: IdentityRow = IdentityRow(2);
    const FLOW: FlowRow = FlowRow(7);

    fn small() -> Backlog {
        let quota = Quota { messages: 4, bytes: 40_000 };
        Backlog::new(Quotas { inbound: quota, outbound: quota })
    }

    fn one(bytes: u64) -> Waiting {
        Waiting { messages: 1, bytes }
    }

    #[test]
    fn data_waits_at_the_quota_and_small_messages_a_quarter_later() {
        let mut backlog = small();
        for _ in 0..4 {
            assert!(backlog.admit_inbound(BOB, one(9_000)).is_ok());
            backlog.initiated(BOB, 9_000);
        }
        assert!(matches!(
            backlog.admit_inbound(BOB, one(9_000)),
            Err(StoreError::NoRoom { identity: BOB, queued: Queued::Inbound, messages: 4, bytes: 36_000 })
        ));
        assert!(backlog.admit_inbound(BOB, one(10)).is_ok(), "an end gets through");
        backlog.initiated(BOB, 10);
        assert!(backlog.admit_inbound(BOB, one(10)).is_err());
        backlog.initiation_taken(BOB, 9_000);
        assert!(backlog.admit_inbound(BOB, one(10)).is_ok());
        assert!(backlog.admit_outbound(BOB, one(9_000)).is_ok(), "the outbox has a quota of its own");
    }

    #[test]
    fn a_message_larger_than_the_quota_goes_alone() {
        let mut backlog = small();
        assert!(backlog.admit_inbound(BOB, one(1 << 20)).is_ok());
        backlog.initiated(BOB, 1 << 20);
        assert!(backlog.admit_inbound(BOB, one(5_000)).is_err());
    }

    #[test]
    fn a_flow_that_looks_has_nothing_waiting() {
        let mut backlog = small();
        assert_eq!(backlog.delivered(BOB, FLOW, 100), None);
        assert!(backlog.delivered(BOB, FLOW, NOTED_EVERY).is_some(), "so much is noted");
        assert_eq!(backlog.inbound(BOB), Waiting { messages: 2, bytes: 100 + NOTED_EVERY });
        assert!(backlog.looked(FLOW), "the note must go");
        assert_eq!(backlog.inbound(BOB), Waiting::default());
        assert!(!backlog.looked(FLOW));
    }

    #[test]
    fn what_is_forgotten_is_counted_anew() {
        let mut backlog = small();
        backlog.load_flow(BOB, FLOW, 2, 200);
        backlog.load_outbox(BOB, 1, 10);
        backlog.forget(BOB);
        assert_eq!((backlog.inbound(BOB), backlog.outbound(BOB)), (Waiting::default(), Waiting::default()));
        assert!(!backlog.looked(FLOW));
    }

    #[test]
    fn a_flow_whose_end_is_undone_holds_what_it_held() {
        let mut backlog = small();
        assert!(!backlog.released(FLOW));
        backlog.holds(FLOW);
        let mark = backlog.mark();
        assert!(backlog.released(FLOW));
        backlog.undo_to(mark);
        assert!(backlog.released(FLOW));
        backlog.ended(true);
        assert!(!backlog.released(FLOW));
    }

    #[test]
    fn what_is_undone_never_was() {
        let mut backlog = small();
        backlog.delivered(BOB, FLOW, 100);
        backlog.ended(true);
        let mark = backlog.mark();
        backlog.initiated(BOB, 7);
        backlog.looked(FLOW);
        backlog.undo_to(mark);
        assert_eq!(backlog.inbound(BOB), one(100));
        backlog.looked(FLOW);
        backlog.left_for_broker(BOB, 5);
        backlog.ended(false);
        assert_eq!((backlog.inbound(BOB), backlog.outbound(BOB)), (one(100), Waiting::default()));
    }
}

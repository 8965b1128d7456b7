//! Which flows of an identity are getting back-chains, and what each has asked for, so that two of them do not get the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use maxhost_model::{FlowRow, SecureHash};
use parking_lot::Mutex;

use crate::base::clock::Moment;

/// So long others wait for a flow that does not get on.
const PATIENCE: Duration = Duration::from_secs(5);

/// The flows of an identity that get back-chains now. What is here is a hint and nothing more: what a flow is not told of,
/// it gets itself.
#[derive(Debug, Default)]
pub(crate) struct Resolving {
    flows: Mutex<BTreeMap<FlowRow, Asked>>,
}

#[derive(Debug)]
struct Asked {
    ids: BTreeSet<SecureHash>,
    at: Moment,
}

impl Resolving {
    /// This flow is about to ask for those of these transactions that nobody else asks for: they are the answer.
    pub fn ask(&self, flow: FlowRow, ids: &[SecureHash], now: Moment) -> Vec<SecureHash> {
        let mut flows = self.flows.lock();
        flows.retain(|other, asked| *other == flow || !is_stuck(asked, now));
        let is_asked = |id: &SecureHash| flows.iter().any(|(other, asked)| *other != flow && asked.ids.contains(id));
        let own: Vec<SecureHash> = ids.iter().filter(|id| !is_asked(id)).copied().collect();
        if !own.is_empty() {
            flows.insert(flow, Asked { ids: own.iter().copied().collect(), at: now });
        }
        own
    }

    /// This flow verifies what it has got.
    pub fn gets_on(&self, flow: FlowRow, now: Moment) {
        self.flows.lock().insert(flow, Asked { ids: BTreeSet::new(), at: now });
    }

    /// Whether another flow gets a back-chain, and gets on.
    pub fn is_another_at_it(&self, flow: FlowRow, now: Moment) -> bool {
        self.flows.lock().iter().any(|(other, asked)| *other != flow && !is_stuck(asked, now))
    }

    /// This flow has got what it needs, or will not.
    pub fn is_done(&self, flow: FlowRow) {
        self.flows.lock().remove(&flow);
    }
}

fn is_stuck(asked: &Asked, now: Moment) -> bool {
    now.since(asked.at) > PATIENCE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> SecureHash {
        SecureHash::of(&[number])
    }

    #[test]
    fn what_one_asks_for_the_other_waits_for_until_it_is_done_or_stuck() {
        let (resolving, now) = (Resolving::default(), Moment::new(Duration::from_secs(60)));
        let (one, two) = (FlowRow(1), FlowRow(2));
        assert_eq!(resolving.ask(one, &[id(1), id(2)], now), [id(1), id(2)]);
        assert_eq!(resolving.ask(two, &[id(2), id(3)], now), [id(3)]);
        assert_eq!(resolving.ask(one, &[id(3)], now), [], "it has asked for nothing new, and keeps what it asked for");
        assert!(resolving.is_another_at_it(two, now));
        resolving.gets_on(one, now);
        assert_eq!(resolving.ask(two, &[id(2)], now), [id(2)]);
        resolving.is_done(two);
        assert!(!resolving.is_another_at_it(one, now));
        let later = now + PATIENCE + Duration::from_millis(1);
        assert!(!resolving.is_another_at_it(two, later), "nobody waits for ever");
    }
}

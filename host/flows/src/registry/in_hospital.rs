//! Flows in hospital that a host need not try when it claims their identity.

use std::collections::HashSet;

use maxhost_model::FlowRow;
use parking_lot::Mutex;

/// The flows of one identity that this host could not go on with when it had the identity last. There are no more than flows of
/// the identity that have not ended.
#[derive(Debug, Default)]
pub(crate) struct InHospital(Mutex<HashSet<FlowRow>>);

impl InHospital {
    /// The identity is let go, or lost, with these flows in hospital.
    pub fn leave(&self, parked: Vec<FlowRow>) {
        *self.0.lock() = parked.into_iter().collect();
    }

    /// Of the flows that are in hospital when this host claims the identity, those that it need not try, because it has done so
    /// since it started. The others were parked by another host, or before this one started: this one may have code that was
    /// missing, or be of a later version, so it may be able to go on with them.
    pub fn known_of(&self, parked: &[FlowRow]) -> Vec<FlowRow> {
        let known = self.0.lock();
        parked.iter().copied().filter(|flow| known.contains(flow)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_tries_what_another_has_parked_and_not_what_it_has_parked_itself() {
        let [a, b, c] = [FlowRow(1), FlowRow(2), FlowRow(3)];
        let in_hospital = InHospital::default();
        assert!(in_hospital.known_of(&[a, b]).is_empty());
        in_hospital.leave(vec![a, c]);
        assert_eq!(in_hospital.known_of(&[a, b]), [a]);
        in_hospital.leave(vec![b]);
        assert_eq!(in_hospital.known_of(&[a, b]), [b], "one that is well again counts as new when it is parked again");
    }
}

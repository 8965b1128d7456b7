//! Who may write into which session, kept for flows whose peers have written before: otherwise the database would be asked for the
//! start of a flow with each of its messages.

use maxhost_journal::wire::session_token;
use maxhost_journal::{FrameBatch, StartRecord};
use maxhost_model::{FlowRow, IdentityRow, SessionId};
use maxhost_store::FlowRecord;
use quick_cache::sync::Cache;

/// So many flows are remembered, each with less than a hundred bytes.
const FLOWS: usize = 8_192;

/// What of a flow decides who its counterparties are. It never changes, and the row of a flow is never another one's, so nothing that
/// is remembered goes wrong; that the flow has ended is found by the commit.
#[derive(Clone, Copy)]
struct Known {
    identity: IdentityRow,
    /// `None`: its start cannot be read, so nobody can be told to be a counterparty.
    seed: Option<[u8; 32]>,
}

impl Known {
    fn of(record: &FlowRecord) -> Known {
        Known { identity: record.identity, seed: StartRecord::decode(&record.start).ok().map(|start| start.seed) }
    }

    fn has(&self, identity: IdentityRow, session: SessionId, batch: &FrameBatch) -> bool {
        let is_right = |seed: [u8; 32]| session_token(&seed, session.index(), &batch.from) == batch.token;
        self.identity == identity && self.seed.is_some_and(is_right)
    }
}

/// The flows of which that is known.
pub(crate) struct Counterparties(Cache<FlowRow, Known>);

impl Counterparties {
    pub fn new() -> Counterparties {
        Counterparties(Cache::new(FLOWS))
    }

    /// Whether the sender of a batch, whose signature was found right, is the counterparty of the session it is for, if that can be
    /// told without the database.
    pub fn knows(&self, identity: IdentityRow, session: SessionId, batch: &FrameBatch) -> Option<bool> {
        self.0.get(&session.flow()).map(|known| known.has(identity, session, batch))
    }

    /// The same for one of which the database has this record, from which it is told from now on.
    pub fn learn(&self, record: &FlowRecord, identity: IdentityRow, session: SessionId, batch: &FrameBatch) -> bool {
        let known = Known::of(record);
        // What is damaged may be mended.
        if known.seed.is_some() {
            self.0.insert(record.row, known);
        }
        known.has(identity, session, batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_counterparty_of_the_identity_s_own_flow_is_let_in() {
        let (seed, session) = ([7; 32], FlowRow(3).session(1));
        let known = Known { identity: IdentityRow(1), seed: Some(seed) };
        let batch = |from: &str, token| FrameBatch { from: from.to_owned(), frames: Vec::new(), token };
        let right = batch("Bob", session_token(&seed, session.index(), "Bob"));
        let counterparties = Counterparties::new();
        assert_eq!(counterparties.knows(IdentityRow(1), session, &right), None);
        counterparties.0.insert(FlowRow(3), known);
        assert_eq!(counterparties.knows(IdentityRow(1), session, &right), Some(true));
        assert_eq!(
            counterparties.knows(IdentityRow(2), session, &right),
            Some(false),
            "the flow is another identity's"
        );
        let of_bob = right.token;
        assert_eq!(counterparties.knows(IdentityRow(1), session, &batch("Carol", of_bob)), Some(false));
        assert_eq!(counterparties.knows(IdentityRow(1), session, &batch("Bob", of_bob ^ 1)), Some(false));
        assert_eq!(counterparties.knows(IdentityRow(1), FlowRow(4).session(1), &right), None);
        assert!(!Known { seed: None, ..known }.has(IdentityRow(1), session, &right));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let counterparties = Counterparties::new();
        for row in 0..2 * FLOWS {
            let known = Known { identity: IdentityRow(1), seed: Some([0; 32]) };
            counterparties.0.insert(FlowRow(i64::try_from(row).unwrap_or(i64::MAX)), known);
        }
        assert!(counterparties.0.len() <= FLOWS);
    }
}

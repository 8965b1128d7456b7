//! Transactions that a flow has left in flight, because it was killed or failed: each gets a flow that settles it.

use std::sync::Arc;

use maxhost_journal::Origin;
use maxhost_model::Problem;
use maxhost_store::ledger::{LedgerOp, Settlement, Unsettled};
use maxhost_store::{FlowOp, NewFlow};

use super::{Actor, RESCAN};
use crate::base::rules::{self, Rule};
use crate::calls::{StartUnit, to_settle};
use crate::guests::flow_code::FlowCode;
use crate::registry::opened::Opened;

/// So many are begun at once; the rest come when these are written.
const AT_ONCE: u32 = 100;
/// Who starts these flows.
const USER: &str = "maxhost";

impl Actor {
    /// Looks for them where there may be some: when the identity is opened, and after a flow failed.
    pub(super) async fn settle_what_is_left(&mut self, opened: &Arc<Opened>) {
        let store = self.services.committer.store.clone();
        if !std::mem::take(&mut self.unsettled)
            || self.draining
            || !store.keeps_ledgers()
            || !rules::holds(Rule::WhatIsInFlightIsSettled)
        {
            return;
        }
        let found = store.unsettled(self.entry.row, AT_ONCE).await.map_err(Problem::from);
        let begun = found.and_then(|found| {
            found.iter().try_for_each(|left| self.settle(opened, *left))?;
            Ok(found.len())
        });
        match begun {
            Ok(begun) if begun < AT_ONCE as usize => {}
            Ok(_) => self.look_for_unsettled(),
            Err(problem) => {
                tracing::warn!(identity = %self.entry.text, %problem, "what is in flight could not be settled; it is tried again");
                self.look_for_unsettled();
            }
        }
    }

    /// Looks again, a while later, for what nobody settles.
    pub(super) fn look_for_unsettled(&mut self) {
        self.unsettled = true;
        self.rescan_after(RESCAN);
    }

    fn settle(&mut self, opened: &Arc<Opened>, left: Unsettled) -> Result<(), Problem> {
        let Unsettled { id, part, states } = left;
        let (code, started) = (FlowCode::settle(), self.services.now());
        let origin = Origin::Rpc { user: USER.to_owned() };
        let (row, flow_id, record) = self.start_record(opened, &code, to_settle(left)?, origin, (started, None))?;
        tracing::info!(identity = %self.entry.text, transaction = %id, %flow_id, "a transaction was left in flight; it is settled");
        let new = NewFlow {
            row,
            id: flow_id,
            name: code.name().clone(),
            user: Some(USER.to_owned()),
            client_id: None,
            started: (started / 1_000_000) as i64,
            start: record.encode(),
        };
        let settlement = Settlement { flow: row, part, states };
        let ops = vec![FlowOp::Start(Box::new(new)).into(), LedgerOp::Settle { id, settlement }.into()];
        let commit_hint = self.services.committer.store.commit_hint_for(self.entry.row);
        let unit = StartUnit { ops, reply: None, commit_hint, builds_on: None };
        self.begin(opened, row, flow_id, None, record, code, unit);
        Ok(())
    }
}

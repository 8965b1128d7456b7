//! Finding what a state says that changes of notary have moved (`docs/behaviour.md` 10.17).
//!
//! A change of notary has references and no states. What it makes is found at the ordinary transaction that first made each of
//! its states, with the notary of the last change and the encumbrance that each change has moved. The code that describes
//! such a state is among the attachments of that first transaction.

use std::sync::Arc;

use maxhost_ledger::tx::{Core as TxCore, StateRef, TransactionState};
use maxhost_model::SecureHash;

/// A state, with the attachments of the transaction that first made it, and the network parameters by which these hold its
/// contract: a change of notary under other parameters does not alter whose code that is.
#[derive(Debug, Clone)]
pub(crate) struct Traced {
    pub state: TransactionState,
    pub attachments: Arc<[SecureHash]>,
    pub parameters: Option<SecureHash>,
}

/// Where transactions that are part of a ledger are read.
pub(crate) trait Transactions: Sync {
    /// What a read that failed is told as.
    type Error: Send;

    /// A transaction that is part of the ledger.
    fn core(&self, id: &SecureHash) -> impl Future<Output = Result<Option<TxCore>, Self::Error>> + Send;

    /// What a change of notary is known to have made.
    fn made_by_change(&self, _: &SecureHash) -> Option<Arc<[Traced]>> {
        None
    }
}

/// The state of a reference; `None` unless all transactions that it comes through are part of the ledger, and made it.
///
/// It takes one read for each change of notary in a row, and memory for the ids of these.
pub(crate) async fn trace<T: Transactions>(from: &T, reference: &StateRef) -> Result<Option<Traced>, T::Error> {
    let (mut at, mut changes, mut notary) = (*reference, Vec::new(), None);
    let mut traced = loop {
        let index = at.index as usize;
        let found = match from.core(&at.tx).await? {
            None => return Ok(None),
            Some(TxCore::Wire(wire)) => {
                let contents = wire.contents();
                let attachments = || contents.attachments.as_slice().into();
                contents.outputs.get(index).map(|state| Traced {
                    state: state.clone(),
                    attachments: attachments(),
                    parameters: contents.parameters,
                })
            }
            Some(TxCore::NotaryChange(change)) => match from.made_by_change(&at.tx) {
                Some(made) => made.get(index).cloned(),
                None => {
                    let Some(before) = change.contents().inputs.get(index) else { return Ok(None) };
                    notary.get_or_insert_with(|| change.contents().new_notary.clone());
                    changes.push(at.tx);
                    at = *before;
                    continue;
                }
            },
        };
        match found {
            Some(found) => break found,
            None => return Ok(None),
        }
    };
    traced.state.notary = notary.unwrap_or(traced.state.notary);
    let mut made_by = at.tx;
    for id in changes.into_iter().rev() {
        let Some(encumbrance) = traced.state.encumbrance else { break };
        let Some(TxCore::NotaryChange(change)) = from.core(&id).await? else { return Ok(None) };
        let moved = change.moved_to(&StateRef::new(made_by, encumbrance));
        let Some(moved) = moved else { return Ok(None) };
        (traced.state.encumbrance, made_by) = (Some(moved), id);
    }
    Ok(Some(traced))
}

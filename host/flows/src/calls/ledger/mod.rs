//! The platform's own protocols: signing, collecting signatures, finality, the back-chain of a transaction, notarising,
//! changing the notary of states.
//!
//! They run on the host, inside of the call of a guest, over the journal of its flow: each of their steps is an entry like
//! those of the guest, so a flow that comes back finds itself in the middle of a protocol as it does anywhere else. What a
//! step changes in the ledger is written in the commit that writes its entry ([`steps`]).
//!
//! ```text
//!   guest ── ledger.finalise(tx, sessions) ──▶ finality ──▶ steps ──▶ journal, and ledger rows in one commit
//!                                                │ sends and receives on sessions of the flow
//!                                                ▼
//!                                  notary_client ──▶ notary (a native responder) ──▶ notary_batches ──▶ one batch
//! ```

mod attachments;
mod awaiting;
mod back_chain;
mod build;
mod calls;
mod chain;
mod describing;
mod environment;
mod finality;
mod findings;
mod key_exchange;
mod key_ids;
mod keys;
mod moved;
mod notary;
mod notary_batches;
mod notary_change;
mod notary_client;
mod observing;
mod parallel;
mod past_parameters;
mod pieces;
mod pointers;
mod protocol;
mod refusal;
mod settling;
mod signing;
mod states;
mod steps;
mod tear_off;
mod trace;
mod transactions;
mod vending;
mod view;

pub(crate) use findings::Findings;
pub(crate) use notary::run_native;
pub(crate) use settling::to_settle;
pub(crate) use states::read_query;
pub(crate) use trace::{Traced, Transactions, trace};
pub(crate) use transactions::kind_of;

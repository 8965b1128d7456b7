//! The calls into the host, one to one. Outside a host, where an author's unit tests run, each panics with a hint.

use crate::bindings::maxhost::cordapp::types::{self, Failure, Message};
use crate::bindings::maxhost::cordapp::{flow, keys, ledger, ledger_waits, recording};

pub use types::LogLevel;

/// One function for each call that an author's code may reach.
macro_rules! calls {
    ($interface:ident; $($(#[$doc:meta])* $visibility:vis fn $name:ident($($argument:ident: $type:ty),*) $(-> $answer:ty)? = $call:ident;)*) => { $(
        $(#[$doc])*
        #[cfg(target_arch = "wasm32")]
        #[inline]
        $visibility fn $name($($argument: $type),*) $(-> $answer)? {
            $interface::$call($($argument),*)
        }

        $(#[$doc])*
        #[cfg(not(target_arch = "wasm32"))]
        $visibility fn $name($($argument: $type),*) $(-> $answer)? {
            $(let _ = $argument;)*
            let _ = $interface::$call;
            outside_a_host(stringify!($call))
        }
    )* };
}

calls! {
    flow;
    pub(crate) fn our_identity() -> types::Party = our_identity;
    pub(crate) fn flow_id() -> String = flow_id;
    pub(crate) fn find_party(name: &str) -> Result<Option<types::Party>, Failure> = find_party;
    pub(crate) fn find_parties(query: &str, exact: bool) -> Result<Vec<types::Party>, Failure> = find_parties;
    pub(crate) fn open_session(protocol: &str, party: &str) -> Result<u32, Failure> = open_session;
    pub(crate) fn counterparty(session: u32) -> Result<types::Party, Failure> = counterparty;
    pub(crate) fn send(session: u32, payload: &[u8]) -> Result<(), Failure> = send;
    pub(crate) fn receive(session: u32) -> Result<Vec<u8>, Failure> = receive;
    pub(crate) fn receive_or_end(session: u32) -> Result<Option<Vec<u8>>, Failure> = receive_or_end;
    pub(crate) fn send_and_receive(session: u32, payload: &[u8]) -> Result<Vec<u8>, Failure> = send_and_receive;
    pub(crate) fn send_all(messages: &[Message<'_>]) -> Result<(), Failure> = send_all;
    pub(crate) fn receive_all(sessions: &[u32]) -> Result<Vec<Vec<u8>>, Failure> = receive_all;
    pub(crate) fn wait_any(sessions: &[u32], deadline: Option<u64>) -> Result<Option<u32>, Failure> = wait_any;
    pub(crate) fn close(sessions: &[u32]) -> Result<(), Failure> = close;
    pub(crate) fn counterparty_flow_info(session: u32) -> Result<types::FlowInfo, Failure> = counterparty_flow_info;
    pub(crate) fn sleep(milliseconds: u64) -> Result<(), Failure> = sleep;
    pub(crate) fn now() -> u64 = now;
    pub(crate) fn random(length: u32) -> Result<Vec<u8>, Failure> = random;
    /// A line for the host's log.
    pub fn log(level: LogLevel, message: &str) = log;
    /// Where the flow is.
    pub fn progress(label: &str) = progress;
}

calls! {
    ledger;
    pub(crate) fn notaries() -> Vec<types::Party> = notaries;
    pub(crate) fn build(draft: ledger::Draft<'_>) -> Result<ledger::Transaction, Failure> = build;
    pub(crate) fn collect_signatures(transaction: &[u8], sessions: &[u32]) -> Result<ledger::Transaction, Failure> = collect_signatures;
    pub(crate) fn receive_to_sign(session: u32) -> Result<ledger::Transaction, Failure> = receive_to_sign;
    pub(crate) fn return_signature(session: u32, transaction: &[u8]) -> Result<(), Failure> = return_signature;
    pub(crate) fn collect_on_tear_off(transaction: &[u8], session: u32, shown: ledger::ShownParts<'_>) -> Result<ledger::Transaction, Failure> = collect_on_tear_off;
    pub(crate) fn receive_tear_off(session: u32) -> Result<ledger::Transaction, Failure> = receive_tear_off;
    pub(crate) fn sign_tear_off(session: u32, tear_off: &[u8]) -> Result<(), Failure> = sign_tear_off;
    pub(crate) fn finalise(transaction: &[u8], sessions: &[u32]) -> Result<ledger::Transaction, Failure> = finalise;
    pub(crate) fn receive_finality(session: u32, expected: Option<&str>) -> Result<ledger::Transaction, Failure> = receive_finality;
    pub(crate) fn send_states(session: u32, references: &[&str]) -> Result<(), Failure> = send_states;
    pub(crate) fn receive_states(session: u32) -> Result<Vec<ledger::VaultState>, Failure> = receive_states;
    pub(crate) fn select(wanted: ledger::AmountWanted<'_>) -> Result<Vec<ledger::VaultState>, Failure> = select;
    pub(crate) fn lock(references: &[&str]) -> Result<Vec<ledger::VaultState>, Failure> = lock;
    pub(crate) fn lock_together(reference: &str) -> Result<Vec<ledger::VaultState>, Failure> = lock_together;
    pub(crate) fn query(query: ledger::VaultQuery<'_>) -> Result<ledger::StatePage, Failure> = query;
    pub(crate) fn build_with(draft: ledger::Draft<'_>, attachments: &[&str]) -> Result<ledger::Transaction, Failure> = build_with;
    pub(crate) fn attach(file: &[u8]) -> Result<String, Failure> = attach;
    pub(crate) fn open_attachment(id: &str) -> Result<Option<Vec<u8>>, Failure> = open_attachment;
    pub(crate) fn change_notary(reference: &str, notary: &str) -> Result<ledger::VaultState, Failure> = change_notary;
    pub(crate) fn receive_notary_change(session: u32) -> Result<ledger::NotaryChange, Failure> = receive_notary_change;
    pub(crate) fn accept_notary_change(session: u32, change: &[u8]) -> Result<Vec<ledger::VaultState>, Failure> = accept_notary_change;
    pub(crate) fn resolve(pointer: ledger::PointerTarget<'_>) -> Result<ledger::VaultState, Failure> = resolve;
}

calls! {
    keys;
    pub(crate) fn fresh_key() -> Result<keys::Key, Failure> = fresh_key;
    pub(crate) fn party_of_key(key: &[u8]) -> Result<Option<types::Party>, Failure> = party_of_key;
    pub(crate) fn request_key(session: u32) -> Result<keys::Key, Failure> = request_key;
    pub(crate) fn provide_key(session: u32) -> Result<keys::Key, Failure> = provide_key;
    pub(crate) fn fresh_key_for(external_id: &str) -> Result<keys::Key, Failure> = fresh_key_for;
    pub(crate) fn external_id_of_key(key: &[u8]) -> Result<Option<String>, Failure> = external_id_of_key;
    pub(crate) fn keys_of_external_id(external_id: &str, after: Option<&str>) -> Result<Vec<keys::Key>, Failure> = keys_of_external_id;
    pub(crate) fn request_key_for(session: u32, external_id: &str) -> Result<keys::Key, Failure> = request_key_for;
    pub(crate) fn provide_key_for(session: u32, external_id: Option<&str>) -> Result<keys::ProvidedKey, Failure> = provide_key_for;
    pub(crate) fn share_keys(session: u32, keys: &[&[u8]]) -> Result<(), Failure> = share_keys;
    pub(crate) fn receive_keys(session: u32) -> Result<Vec<keys::Key>, Failure> = receive_keys;
    pub(crate) fn return_signatures(session: u32, transaction: &[u8], keys: &[&[u8]]) -> Result<(), Failure> = return_signatures;
}

calls! {
    recording;
    pub(crate) fn finalise_with(transaction: &[u8], participants: &[u32], observers: &[u32], states: recording::StatesToRecord) -> Result<ledger::Transaction, Failure> = finalise;
    pub(crate) fn receive_finality_with(session: u32, expected: Option<&str>, states: recording::StatesToRecord) -> Result<ledger::Transaction, Failure> = receive_finality;
    pub(crate) fn send_transaction(session: u32, transaction: &[u8]) -> Result<(), Failure> = send_transaction;
    pub(crate) fn send_recorded(session: u32, id: &str) -> Result<(), Failure> = send_recorded;
    pub(crate) fn receive_transaction(session: u32, states: recording::StatesToRecord) -> Result<ledger::Transaction, Failure> = receive_transaction;
    pub(crate) fn receive_unrecorded(session: u32) -> Result<ledger::Transaction, Failure> = receive_unrecorded;
    pub(crate) fn change_notary_with(reference: &str, notary: &str, observers: &[u32], states: recording::StatesToRecord) -> Result<ledger::VaultState, Failure> = change_notary;
    pub(crate) fn observe_notary_change(session: u32, states: recording::StatesToRecord) -> Result<ledger::NotaryChange, Failure> = observe_notary_change;
}

calls! {
    ledger_waits;
    pub(crate) fn until_committed(id: &str, deadline: Option<u64>) -> Result<Option<ledger::Transaction>, Failure> = until_committed;
    pub(crate) fn until_consumed(references: &[&str], deadline: Option<u64>) -> Result<bool, Failure> = until_consumed;
}

#[cfg(not(target_arch = "wasm32"))]
#[cold]
// An author's mistake, in a place that has no other way to answer; no guest contains this.
#[allow(clippy::panic)]
fn outside_a_host(call: &str) -> ! {
    panic!("`{call}` needs a host: start this flow on a network of maxhost_testkit, or test the code around the call")
}

//! The suite that every database must pass.
//!
//! A crate that implements one makes a [`Databases`] for it and writes [`contract_tests!`](crate::contract_tests): each
//! test of the suite becomes one of its own. The tests stop with a panic where something is not as it must be, as tests
//! do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

pub mod attachments;
pub mod audit;
pub mod clients;
pub mod flows;
pub mod identities;
pub mod in_flight;
pub mod kept;
pub mod key_ids;
pub mod ledger;
pub mod messages;
pub mod notary;
pub mod observing;
pub mod queries;
pub mod quotas;
pub mod reads;
pub mod recording;
pub mod units;

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use maxhost_model::{FlowId, FlowRow, IdentityRow, SessionId};
use tokio::sync::oneshot;

use crate::{
    AttemptToken, AuditBounds, Author, Bounds, Caution, Claim, ClaimRequest, CommitUnit, FencingToken, FlowOp,
    FlowState, Keep, MessageOp, NewFlow, Op, Quotas, Receipt, Recipient, Store, StoreError,
};

/// How a database of a test is opened.
#[derive(Debug, Clone)]
pub struct Settings {
    pub bounds: Bounds,
    pub quotas: Quotas,
    pub processed_retention: Duration,
    pub audit: AuditBounds,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            bounds: Bounds::default(),
            quotas: Quotas::default(),
            processed_retention: crate::PROCESSED_RETENTION,
            audit: AuditBounds::default(),
        }
    }
}

/// One database of a test, empty at first; it can be opened again after it was closed.
#[async_trait]
pub trait Databases: Send + Sync + Sized {
    async fn new() -> Self;
    async fn open(&self, settings: &Settings) -> Store;
}

/// A database with two identities that its run has claimed.
#[derive(Debug)]
pub struct World<D> {
    pub databases: D,
    pub settings: Settings,
    pub store: Store,
    pub alice: Author,
    pub bob: Author,
}

impl<D: Databases> World<D> {
    pub async fn new() -> World<D> {
        World::with(Settings::default()).await
    }

    pub async fn with(settings: Settings) -> World<D> {
        let databases = D::new().await;
        let store = databases.open(&settings).await;
        let rows = store.register_identities(&["Alice", "Bob"]).await.unwrap();
        let (alice, bob) = (claim(&store, rows[0], 1).await, claim(&store, rows[1], 1).await);
        World { databases, settings, store, alice, bob }
    }

    /// Closes the database, and opens and claims it as the next run.
    pub async fn reopen(self) -> World<D> {
        let World { databases, settings, store, alice, bob } = self;
        store.close().await;
        drop(store);
        let store = databases.open(&settings).await;
        let next = alice.claim.token.epoch.max(bob.claim.token.epoch) + 1;
        let alice = claim(&store, alice.identity, next).await;
        let bob = claim(&store, bob.identity, next).await;
        World { databases, settings, store, alice, bob }
    }

    pub async fn start(&self, author: Author) -> FlowRow {
        let flow = self.store.next_flow_row();
        self.commit(author, vec![start(flow)]).await.unwrap();
        flow
    }

    pub async fn commit(&self, author: Author, ops: Vec<Op>) -> Result<Receipt, StoreError> {
        self.store.commit(author, ops).await
    }

    /// Commits and expects a conflict.
    pub async fn conflict(&self, author: Author, ops: Vec<Op>) -> crate::Conflict {
        match self.commit(author, ops).await {
            Err(StoreError::Conflict(conflict)) => conflict,
            other => panic!("no conflict: {other:?}"),
        }
    }
}

pub async fn claim(store: &Store, identity: IdentityRow, epoch: i64) -> Author {
    let request =
        ClaimRequest { identity, token: FencingToken { generation: 0, epoch }, key_fp: None, caution: Caution::None };
    Author { identity, claim: store.claim(request).await.unwrap() }
}

/// As this author is known to senders of the same run.
pub fn to(author: Author) -> Recipient {
    Recipient { identity: author.identity, claim: author.claim }
}

/// An identity that nobody holds.
pub fn nobody(identity: IdentityRow) -> Recipient {
    Recipient { identity, claim: crate::UNCLAIMED }
}

pub fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub fn new_flow(row: FlowRow) -> NewFlow {
    NewFlow {
        row,
        id: FlowId::new(row, 0xfeed),
        name: Arc::from("ping-pong/ping"),
        user: None,
        client_id: None,
        started: 1000,
        start: text("start"),
    }
}

pub fn start(row: FlowRow) -> Op {
    FlowOp::Start(Box::new(new_flow(row))).into()
}

pub fn start_with_client(row: FlowRow, client_id: &str, user: &str) -> Op {
    let (client_id, user) = (Some(client_id.to_owned()), Some(user.to_owned()));
    FlowOp::Start(Box::new(NewFlow { client_id, user, ..new_flow(row) })).into()
}

pub fn log(flow: FlowRow, seq: u32) -> Op {
    FlowOp::AppendLog { flow, seq, body: text(&format!("log {seq}")) }.into()
}

pub fn deliver(to: Recipient, session: SessionId, seq: u32) -> Op {
    MessageOp::Deliver { to, session, seq, body: text(&format!("message {seq}")), confirms: false }.into()
}

pub fn initiate(to: Recipient, id: i64) -> Op {
    MessageOp::Initiate { to, id, body: text("hello") }.into()
}

pub fn take(id: i64) -> Op {
    MessageOp::TakeInitiation { id }.into()
}

pub fn set(flow: FlowRow, state: FlowState) -> Op {
    FlowOp::SetState { flow, state, reason: Some("why".to_owned()), attempts: 3, expect: None }.into()
}

pub fn end(flow: FlowRow) -> Op {
    FlowOp::End { flow, state: FlowState::Completed, finished: 2000, keep: None, unconfirmed: vec![] }.into()
}

pub fn end_kept(flow: FlowRow, expires: i64) -> Op {
    let keep = Some(Keep { expires, end: text("end"), labels: Some(text("labels")) });
    FlowOp::End { flow, state: FlowState::Completed, finished: 2000, keep, unconfirmed: vec![] }.into()
}

pub type Answer = oneshot::Receiver<Result<Receipt, StoreError>>;

/// Hands a unit in and gives back where its outcome will be.
pub fn submit(store: &Store, author: Author, attempt: Option<&AttemptToken>, ops: Vec<Op>) -> Answer {
    submit_after(store, author, attempt, &[], ops)
}

/// As [`submit`], for a unit that builds on messages of other attempts.
pub fn submit_after(
    store: &Store,
    author: Author,
    attempt: Option<&AttemptToken>,
    depends_on: &[&AttemptToken],
    ops: Vec<Op>,
) -> Answer {
    let (reply, answer) = oneshot::channel();
    let done = Box::new(move |outcome| drop(reply.send(outcome)));
    let depends_on = depends_on.iter().map(|&token| token.clone()).collect();
    store.submit(CommitUnit { author, attempt: attempt.cloned(), depends_on, ops, done });
    answer
}

/// Keeps the committer busy inside a `done` until what is returned is dropped.
pub fn hold_the_committer(store: &Store, author: Author) -> mpsc::Sender<()> {
    let (gate, closed) = mpsc::channel::<()>();
    let (reached, at_gate) = mpsc::channel();
    let done = Box::new(move |_| {
        reached.send(()).unwrap();
        let _ = closed.recv();
    });
    store.submit(CommitUnit { author, attempt: None, depends_on: Default::default(), ops: Vec::new(), done });
    at_gate.recv().unwrap();
    gate
}

/// Asserts the shape of an outcome and shows it if it is another.
#[macro_export]
macro_rules! assert_outcome {
    ($outcome:expr, $pattern:pat $(if $guard:expr)?) => {
        match $outcome {
            $pattern $(if $guard)? => {}
            other => panic!("unexpected outcome: {other:?}"),
        }
    };
}

/// Makes a test of each test of the suite, for one kind of [`Databases`].
#[macro_export]
macro_rules! contract_tests {
    ($databases:ty) => {
        $crate::contract_tests! { @family $databases, units:
            a_failing_unit_fails_alone_and_leaves_nothing, after_a_failure_nothing_of_that_attempt_is_written,
            what_builds_on_a_unit_that_was_not_written_is_not_written_either,
            a_defect_in_done_does_not_stop_the_committer, the_queue_is_bounded_and_says_so_before,
            closing_commits_what_waits_and_refuses_the_rest }
        $crate::contract_tests! { @family $databases, flows:
            a_flow_lives_and_dies, a_flow_is_written_only_by_its_identity_while_it_is_live,
            a_change_that_was_decided_on_an_older_version_is_refused, what_was_kept_is_forgotten_in_time,
            a_row_is_never_used_again, a_result_is_read_once }
        $crate::contract_tests! { @family $databases, clients:
            a_client_id_names_one_flow_of_its_user, the_uses_of_a_client_id_are_found_over_all_identities,
            two_users_may_use_the_same_client_id,
            client_ids_are_read_a_page_at_a_time,
            a_client_id_given_anew_outlives_the_flow_it_named }
        $crate::contract_tests! { @family $databases, messages:
            a_message_is_kept_once_and_dropped_when_nobody_is_there,
            a_message_for_somebody_elses_flow_is_not_delivered, an_initiation_waits_until_its_identity_takes_it,
            an_initiation_that_a_failing_unit_took_still_waits,
            what_cannot_be_written_to_its_recipient_is_left_for_the_relay, a_late_confirmation_is_noted_and_answered_once,
            a_confirmation_that_a_flow_has_not_read_outlives_it,
            a_broker_message_is_taken_once, the_outbox_keeps_messages_until_the_broker_has_them,
            notes_of_taken_messages_are_forgotten_in_time, orphaned_outbox_rows_are_removed,
            a_message_that_cannot_be_taken_is_counted_and_put_aside }
        $crate::contract_tests! { @family $databases, kept:
            what_the_broker_has_is_no_work_that_is_left, what_is_kept_is_forgotten_in_time_and_beyond_a_number,
            what_receivers_have_forgotten_is_not_kept, what_a_lost_broker_had_is_sent_again }
        $crate::contract_tests! { @family $databases, identities:
            the_database_decides_who_may_write, epochs_rise_strictly, a_key_is_recorded_by_the_first_claim,
            claims_succeed_and_fail_alone, owners_that_died_are_counted_and_make_claimers_careful,
            an_identity_is_let_go_only_without_work,
            a_unit_that_lets_go_and_fails_has_let_nothing_go, work_of_sleepers_is_found_from_rows }
        $crate::contract_tests! { @family $databases, quotas:
            what_waits_for_an_identity_is_bounded, a_flow_that_looks_makes_room, a_restart_knows_what_waits,
            what_waits_for_the_broker_is_bounded, a_refused_unit_costs_others_nothing }
        $crate::contract_tests! { @family $databases, reads:
            heads_are_the_newest_of_each_stream, flows_are_listed_newest_first_in_pages,
            a_list_reads_what_it_shows, live_flows_are_counted_by_identity_and_by_state,
            live_flows_of_an_identity_are_read_in_pages, the_outbox_is_read_by_destination,
            the_outbox_is_read_for_senders_that_this_run_holds, no_outbox_page_is_much_larger_than_its_bound,
            what_waits_is_read_in_pages_of_bounded_bytes, flows_are_read_in_pages_of_bounded_bytes,
            of_a_journal_that_is_too_large_only_its_size_is_told,
            readers_see_whole_units }
        $crate::contract_tests! { @family $databases, audit:
            rows_are_read_newest_first_in_pages, rows_are_found_by_user_identity_and_time, a_row_is_there_once,
            the_oldest_rows_go_first, old_rows_are_forgotten_by_the_time_that_hosts_run, rows_outlive_a_restart }
    };
    (@family $databases:ty, $family:ident: $($test:ident),+) => {
        mod $family {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    use super::*;
                    $crate::contract::$family::$test::<$databases>().await;
                }
            )+
        }
    };
}

/// Makes a test of each test about ledgers, for one kind of [`Databases`] that keeps them.
#[macro_export]
macro_rules! ledger_contract_tests {
    ($databases:ty) => {
        $crate::contract_tests! { @family $databases, ledger:
        a_recorded_transaction_changes_the_vault_once, what_is_looked_at_is_kept_once, order_and_repetition_make_no_difference,
        changes_are_told_in_their_order, a_claim_is_repeatable_and_ends_with_its_flow,
        what_cannot_be_spent_by_itself_is_not_selected, states_are_reserved_together_or_not_at_all,
        what_a_flow_makes_it_holds_from_the_start, the_newest_of_a_linear_id_is_found, a_notary_commits_each_state_once,
        a_unit_that_fails_leaves_nothing_in_the_ledger, units_of_one_batch_see_each_other, a_key_is_kept_with_whose_it_is,
        network_parameters_are_kept_for_an_identity,
        a_chain_is_read_in_pieces_and_what_is_unverified_is_forgotten }
        $crate::contract_tests! { @family $databases, attachments: what_clients_import_is_kept_once_and_bounded,
            imports_of_one_moment_are_counted_in_turn, attachments_are_listed_in_pages }
        $crate::contract_tests! { @family $databases, in_flight: what_is_in_flight_is_not_selected_until_it_is_settled,
            what_is_in_flight_twice_is_free_when_both_are_settled, what_is_in_flight_is_somebodys_to_settle }
        $crate::contract_tests! { @family $databases, queries: queries_mean_what_they_say, pages_go_on_over_changes,
            pages_of_large_states_are_bounded_in_bytes,
            the_longest_criteria_are_answered }
        $crate::contract_tests! { @family $databases, key_ids: a_key_has_one_external_id_for_ever,
            states_are_found_by_the_external_ids_of_their_keys }
        $crate::contract_tests! { @family $databases, notary: requests_are_read_newest_first_with_what_was_answered,
            a_log_is_searched_in_bounded_steps, what_was_consumed_is_told_with_its_consumer }
        $crate::contract_tests! { @family $databases, recording: any_order_of_events_keeps_one_verified_row,
            one_transaction_is_read_as_many_are }
        $crate::contract_tests! { @family $databases, observing:
            what_is_not_ones_own_is_found_and_neither_selected_nor_locked, a_choice_of_states_grows_and_never_shrinks,
            what_an_observer_gets_late_comes_in_consumed, states_are_found_by_their_external_id,
            what_has_consumed_a_state_is_known_whether_or_not_the_vault_has_it }
    };
}
